/* SPDX-License-Identifier: MIT */
/*
 * What arrives at a port of several drivers: whom it is for, and what waits for others. A driver
 * that never looks loses what is beyond its queue, as it would lose what is beyond a socket's
 * buffer; the others do not notice.
 */
#include "rx/wire.h"
#include "udp/link.h"
#include "udp/udp.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_MAX (2u << 20) /* bytes that wait for one driver */

/* Packets that a connection between two processes has room for. */
#define LINK_BUDGET 128

/* How often other processes are looked at by somebody who does not sleep. */
#define LOOK_EVERY_NS UINT64_C(10000000)

/* Who has received so short a time ago will do so again. */
#define ATTENDED_NS UINT64_C(10000000)

struct aph_udp_item {
	struct aph_udp_item *next;
	struct aph_rx_path path;
	bool is_error;
	int error;
	uint32_t mtu;
	size_t len, segment;
	uint8_t bytes[];
};

/* -- whom it is for ---------------------------------------------------------------------------- */

/* What decides about a packet: of a client, the service; of a server, the epoch of who called. */
struct key {
	bool is_epoch;
	uint32_t key;
};

static struct key key_of(const uint8_t *packet, bool is_sent)
{
	struct aph_rx_header header;
	bool from_client;

	aph_rx_header_decode(&header, packet);
	from_client = header.flags & APH_RX_CLIENT_INITIATED;
	if (from_client == is_sent)
		return (struct key){ .is_epoch = true, .key = header.epoch };
	return (struct key){ .key = header.service };
}

/* A driver of ours, or a connection to another process; or neither, while nobody is here yet. */
struct target {
	struct aph_rx_udp *udp;
	const struct aph_udp_link *link;
};

/* Under the port's lock. `from`: whoever has sent it to us, who does not get it back. */
static struct target target_of(struct aph_udp_port *port, struct key key,
			       const struct aph_udp_link *from)
{
	const struct aph_udp_claim *claim = aph_udp_claim_find(port, key.is_epoch, key.key);
	struct target to = { 0 };

	if (claim && claim->udp)
		return (struct target){ .udp = claim->udp };
	if (claim && claim->peer && claim->peer != from)
		return (struct target){ .link = claim->peer };
	/*
	 * Of others, who come to us when the owner has gone: what is lost until then is sent again.
	 */
	if (claim && !claim->peer && !port->is_attached)
		return to;
	/*
	 * Questions to the port, services that nobody has: the oldest driver of the owner answers.
	 */
	if (port->is_attached && !from)
		to.link = aph_udp_link_up(port);
	else if (!aph_list_empty(&port->members))
		to.udp = aph_container(port->members.next, struct aph_rx_udp, member.link);
	return to;
}

/* -- queues ------------------------------------------------------------------------------------ */

static struct aph_udp_item *make_item(const struct aph_rx_path *path, const void *bytes, size_t len)
{
	struct aph_udp_item *item = malloc(sizeof(*item) + len);

	if (!item)
		return NULL;
	*item = (struct aph_udp_item){ .path = *path, .len = len };
	if (len)
		memcpy(item->bytes, bytes, len);
	return item;
}

/* Under the port's lock. Takes the item; what finds no room is lost, as datagrams are. */
static void push(struct aph_rx_udp *udp, struct aph_udp_item *item)
{
	struct aph_udp_member *member = &udp->member;
	uint64_t one = 1;

	if (!item || member->queued_bytes + sizeof(*item) + item->len > QUEUE_MAX) {
		free(item);
		return;
	}
	member->queued_bytes += sizeof(*item) + item->len;
	*member->last = item;
	member->last = &item->next;
	if (atomic_load_explicit(&member->queued, memory_order_relaxed))
		return;
	atomic_store(&member->queued, true);
	(void)!write(member->fd, &one, sizeof(one));
}

static struct aph_udp_item *take_all(struct aph_rx_udp *udp)
{
	struct aph_udp_member *member = &udp->member;
	struct aph_udp_item *first;
	uint64_t count;

	(void)pthread_mutex_lock(&udp->port->lock);
	first = member->first;
	member->first = NULL;
	member->last = &member->first;
	member->queued_bytes = 0;
	atomic_store(&member->queued, false);
	(void)!read(member->fd, &count, sizeof(count));
	(void)pthread_mutex_unlock(&udp->port->lock);
	return first;
}

static void feed_queue(struct aph_rx_udp *udp, uint64_t now_ns)
{
	struct aph_udp_item *item = take_all(udp), *next;

	udp->member.fed_ns = now_ns;
	for (; item; item = next) {
		next = item->next;
		if (item->is_error)
			aph_rx_receive_error(udp->rx, &item->path, item->error, item->mtu,
					     item->len ? item->bytes : NULL, item->len, false,
					     now_ns);
		else
			aph_rx_receive(udp->rx, &item->path, item->bytes, item->len, item->segment,
				       NULL, now_ns);
		free(item);
	}
}

void aph_udp_queue_free(struct aph_rx_udp *udp)
{
	struct aph_udp_item *item = udp->member.first, *next;

	for (; item; item = next) {
		next = item->next;
		free(item);
	}
	udp->member.first = NULL;
}

/* -- what has changed -------------------------------------------------------------------------- */

/* All of them share the room in the socket. */
static void share_budget(struct aph_rx_udp *udp, unsigned generation)
{
	struct aph_udp_port *port = udp->port;
	uint32_t n, budget;
	bool crosses;

	(void)pthread_mutex_lock(&port->lock);
	n = port->n_drivers;
	crosses = port->is_attached;
	for (size_t i = 0; i < APH_UDP_LINKS_MAX; i++)
		crosses |= port->links[i].is_open;
	(void)pthread_mutex_unlock(&port->lock);
	udp->member.generation = generation;
	budget = port->facts.budget_max / (n ? n : 1);
	if (crosses && budget > LINK_BUDGET)
		budget = LINK_BUDGET;
	if (udp->budget_asked && budget > udp->budget_asked)
		budget = udp->budget_asked;
	aph_udp_set_budget_max(udp, budget);
}

void aph_udp_port_turn(struct aph_rx_udp *udp, uint64_t now_ns)
{
	struct aph_udp_port *port = udp->port;
	unsigned generation;

	if (port->epoll_fd >= 0 &&
	    now_ns - atomic_load_explicit(&port->looked_ns, memory_order_relaxed) > LOOK_EVERY_NS)
		aph_udp_port_look(port, now_ns);
	generation = atomic_load_explicit(&port->generation, memory_order_relaxed);
	if (generation != udp->member.generation)
		share_budget(udp, generation);
	if (atomic_load(&udp->member.queued))
		feed_queue(udp, now_ns);
}

bool aph_udp_port_is_attended(const struct aph_rx_udp *udp, uint64_t now_ns)
{
	struct aph_udp_hint *hint = atomic_load_explicit(&udp->port->hint, memory_order_relaxed);

	return now_ns - udp->member.fed_ns > ATTENDED_NS &&
	       atomic_load_explicit(&hint->receiver, memory_order_relaxed) !=
		       aph_rx_epoch(udp->rx) &&
	       now_ns - atomic_load_explicit(&hint->received_ns, memory_order_relaxed) <
		       ATTENDED_NS;
}

/* -- sorting ----------------------------------------------------------------------------------- */

/* Under the port's lock. */
static void send_packet(const struct aph_udp_link *link, const struct aph_rx_path *path,
			const uint8_t *data, size_t len, size_t segment)
{
	struct aph_udp_frame frame = {
		.kind = APH_UDP_PACKET,
		.segment = (uint32_t)segment,
		.path = *path,
	};

	aph_udp_link_send(link, &frame, data, len);
}

static void queue_packet(struct aph_rx_udp *udp, const struct aph_rx_path *path,
			 const uint8_t *data, size_t len, size_t segment)
{
	struct aph_udp_item *item = make_item(path, data, len);

	if (item)
		item->segment = segment;
	push(udp, item);
}

/*
 * Whether datagrams at the front, which are all for the same one, are for us; if not, they are on
 * their way.
 */
static bool is_ours(struct aph_rx_udp *udp, const struct aph_rx_path *path, const uint8_t *data,
		    size_t len, size_t segment, struct key key)
{
	struct aph_udp_port *port = udp->port;
	struct target to;

	(void)pthread_mutex_lock(&port->lock);
	to = target_of(port, key, NULL);
	if (to.link)
		send_packet(to.link, path, data, len, segment);
	else if (to.udp && to.udp != udp)
		queue_packet(to.udp, path, data, len, segment);
	(void)pthread_mutex_unlock(&port->lock);
	return to.udp == udp;
}

void aph_udp_port_sort(struct aph_rx_udp *udp, const struct aph_rx_path *path, const uint8_t *data,
		       size_t len, size_t segment, struct aph_rx_buffer *buffer, uint64_t now_ns)
{
	struct aph_udp_hint *hint = atomic_load_explicit(&udp->port->hint, memory_order_relaxed);

	atomic_store_explicit(&hint->receiver, aph_rx_epoch(udp->rx), memory_order_relaxed);
	atomic_store_explicit(&hint->received_ns, now_ns, memory_order_relaxed);
	while (len >= APH_RX_HEADER_SIZE) {
		struct key key = key_of(data, false);
		size_t n = segment < len ? segment : len;

		while (len - n >= APH_RX_HEADER_SIZE) {
			struct key next = key_of(data + n, false);

			if (next.is_epoch != key.is_epoch || next.key != key.key)
				break;
			n += segment < len - n ? segment : len - n;
		}
		if (is_ours(udp, path, data, n, segment, key)) {
			udp->member.fed_ns = now_ns;
			aph_rx_receive(udp->rx, path, data, n, segment < n ? segment : n, buffer,
				       now_ns);
		}
		data += n;
		len -= n;
	}
}

/* -- errors ------------------------------------------------------------------------------------ */

/* What the network says about a packet: of whom is seen in what it quotes, or not at all. */
struct report {
	const struct aph_rx_path *path;
	int error;
	uint32_t mtu;
	const uint8_t *quote;
	size_t quote_len;
};

static void queue_error(struct aph_rx_udp *udp, const struct report *report)
{
	struct aph_udp_item *item = make_item(report->path, report->quote, report->quote_len);

	if (item) {
		item->is_error = true;
		item->error = report->error;
		item->mtu = report->mtu;
	}
	push(udp, item);
}

static void send_error(const struct aph_udp_link *link, const struct report *report)
{
	struct aph_udp_frame frame = {
		.kind = APH_UDP_ERROR,
		.value = report->error,
		.mtu = report->mtu,
		.path = *report->path,
	};

	aph_udp_link_send(link, &frame, report->quote, report->quote_len);
}

/* All of them: each engine sees by itself whether the error is for one of its calls. */
static bool tell_all(struct aph_udp_port *port, const struct aph_rx_udp *udp,
		     const struct aph_udp_link *from, const struct report *report)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &port->members) {
		struct aph_rx_udp *member = aph_container(pos, struct aph_rx_udp, member.link);

		if (member != udp)
			queue_error(member, report);
	}
	for (size_t i = 0; i < APH_UDP_LINKS_MAX; i++)
		if (&port->links[i] != from && port->links[i].is_open)
			send_error(&port->links[i], report);
	return udp != NULL;
}

/* Under the port's lock: to whoever has sent the packet. Returns whether that is `udp`. */
static bool share_error(struct aph_udp_port *port, const struct aph_rx_udp *udp,
			const struct aph_udp_link *from, const struct report *report)
{
	struct target to;

	if (report->quote_len < APH_RX_HEADER_SIZE)
		return tell_all(port, udp, from, report);
	to = target_of(port, key_of(report->quote, true), from);
	if (to.link)
		send_error(to.link, report);
	else if (to.udp && to.udp != udp)
		queue_error(to.udp, report);
	return to.udp && to.udp == udp;
}

void aph_udp_port_sort_error(struct aph_rx_udp *udp, const struct aph_rx_path *path, int error,
			     uint32_t mtu, const uint8_t *quote, size_t quote_len, uint64_t now_ns)
{
	struct report report = { path, error, mtu, quote, quote_len };
	bool is_for_us;

	(void)pthread_mutex_lock(&udp->port->lock);
	is_for_us = share_error(udp->port, udp, NULL, &report);
	(void)pthread_mutex_unlock(&udp->port->lock);
	if (is_for_us)
		aph_rx_receive_error(udp->rx, path, error, mtu, quote_len ? quote : NULL, quote_len,
				     false, now_ns);
}

/* -- from other processes ---------------------------------------------------------------------- */

static bool is_address(const struct aph_rx_address *address)
{
	return address->family == AF_INET || address->family == AF_INET6;
}

void aph_udp_sort_frame(struct aph_udp_port *port, const struct aph_udp_link *from,
			const struct aph_udp_frame *frame, const uint8_t *bytes, size_t len)
{
	struct report report = { &frame->path, frame->value, frame->mtu, bytes, len };
	struct target to;

	if (!is_address(&frame->path.remote))
		return;
	if (frame->kind == APH_UDP_ERROR) {
		(void)share_error(port, NULL, from, &report);
		return;
	}
	/* A run that was sent here is for one of us as a whole. */
	if (len < APH_RX_HEADER_SIZE || !frame->segment)
		return;
	to = target_of(port, key_of(bytes, false), from);
	if (to.link)
		send_packet(to.link, &frame->path, bytes, len, frame->segment);
	else if (to.udp)
		queue_packet(to.udp, &frame->path, bytes, len, frame->segment);
}
