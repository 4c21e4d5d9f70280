/* SPDX-License-Identifier: MIT */
/*
 * What arrives at a port of several drivers: whom it is for, and what waits for others. A driver that never looks
 * loses what is beyond its queue, as it would lose what is beyond a socket's buffer; the others do not notice.
 */
#include "udp/port.h"
#include "udp/udp.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_MAX (2u << 20) /* bytes that wait for one driver */

/* Who has received so short a time ago will do so again. */
#define ATTENDED_NS UINT64_C(10000000)

/* Of the header of every packet. */
#define OFFSET_FLAGS	 21
#define OFFSET_SERVICE	 26
#define CLIENT_INITIATED 0x01

struct aph_udp_item {
	struct aph_udp_item *next;
	struct aph_rx_path path;
	bool is_error;
	int error;
	uint32_t mtu;
	size_t len, segment;
	uint8_t bytes[];
};

/* -- whom it is for ------------------------------------------------------------------------------------------- */

/* What decides about a packet: of a client, the service; of a server, the epoch of who called. */
struct key {
	bool is_epoch;
	uint32_t key;
};

static struct key key_of(const uint8_t *packet, bool is_sent)
{
	bool from_client = packet[OFFSET_FLAGS] & CLIENT_INITIATED;

	if (from_client == is_sent)
		return (struct key){
			.is_epoch = true,
			.key = (uint32_t)packet[0] << 24 | (uint32_t)packet[1] << 16 |
			       (uint32_t)packet[2] << 8 | packet[3],
		};
	return (struct key){
		.key = (uint32_t)packet[OFFSET_SERVICE] << 8 | packet[OFFSET_SERVICE + 1],
	};
}

/* The driver; under the port's lock. */
static struct aph_rx_udp *target(struct aph_udp_port *port, struct key key)
{
	const struct aph_udp_claim *claim = aph_udp_claim_find(port, key.is_epoch, key.key);

	if (claim)
		return claim->udp;
	/* Questions to the port, services that nobody has: the oldest one answers. */
	return aph_container(port->members.next, struct aph_rx_udp, member.link);
}

/* -- queues ----------------------------------------------------------------------------------------------------- */

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
		member->n_dropped++;
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

/* -- what has changed ------------------------------------------------------------------------------------------- */

/* All of them share the room in the socket. */
static void share_budget(struct aph_rx_udp *udp, unsigned generation)
{
	struct aph_udp_port *port = udp->port;
	struct aph_list *pos;
	uint32_t n = 0;

	(void)pthread_mutex_lock(&port->lock);
	for (pos = port->members.next; pos != &port->members; pos = pos->next)
		n++;
	(void)pthread_mutex_unlock(&port->lock);
	udp->member.generation = generation;
	aph_udp_set_budget_max(udp, port->facts.budget_max / (n ? n : 1));
}

void aph_udp_port_turn(struct aph_rx_udp *udp, uint64_t now_ns)
{
	unsigned generation = atomic_load_explicit(&udp->port->generation, memory_order_relaxed);

	if (generation != udp->member.generation)
		share_budget(udp, generation);
	if (atomic_load(&udp->member.queued))
		feed_queue(udp, now_ns);
}

bool aph_udp_port_is_attended(const struct aph_rx_udp *udp, uint64_t now_ns)
{
	struct aph_udp_port *port = udp->port;

	return now_ns - udp->member.fed_ns > ATTENDED_NS &&
	       atomic_load_explicit(&port->receiver, memory_order_relaxed) != udp &&
	       now_ns - atomic_load_explicit(&port->received_ns, memory_order_relaxed) <
		       ATTENDED_NS;
}

/* -- sorting ------------------------------------------------------------------------------------------------------ */

/* Datagrams at the front that are for the same one. The driver, or NULL: it was queued for it. */
static bool is_ours(struct aph_rx_udp *udp, const struct aph_rx_path *path, const uint8_t *data,
		    size_t len, size_t segment, struct key key)
{
	struct aph_udp_port *port = udp->port;
	struct aph_udp_item *item;
	struct aph_rx_udp *to;

	(void)pthread_mutex_lock(&port->lock);
	to = target(port, key);
	if (to != udp) {
		item = make_item(path, data, len);
		if (item)
			item->segment = segment;
		push(to, item);
	}
	(void)pthread_mutex_unlock(&port->lock);
	return to == udp;
}

void aph_udp_port_sort(struct aph_rx_udp *udp, const struct aph_rx_path *path, const uint8_t *data,
		       size_t len, size_t segment, struct aph_rx_buffer *buffer, uint64_t now_ns)
{
	atomic_store_explicit(&udp->port->receiver, udp, memory_order_relaxed);
	atomic_store_explicit(&udp->port->received_ns, now_ns, memory_order_relaxed);
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

/* To all but us: each engine sees by itself whether the error is for one of its calls. */
static void push_to_others(struct aph_rx_udp *udp, const struct aph_rx_udp *only,
			   const struct aph_udp_item *like)
{
	struct aph_list *pos;

	for (pos = udp->port->members.next; pos != &udp->port->members; pos = pos->next) {
		struct aph_rx_udp *other = aph_container(pos, struct aph_rx_udp, member.link);
		struct aph_udp_item *item;

		if (other == udp || (only && other != only))
			continue;
		item = make_item(&like->path, like->bytes, like->len);
		if (item) {
			item->is_error = true;
			item->error = like->error;
			item->mtu = like->mtu;
		}
		push(other, item);
	}
}

void aph_udp_port_sort_error(struct aph_rx_udp *udp, const struct aph_rx_path *path, int error,
			     uint32_t mtu, const uint8_t *quote, size_t quote_len, uint64_t now_ns)
{
	struct aph_udp_item *item = make_item(path, quote, quote_len);
	const struct aph_rx_udp *only = NULL;

	if (item) {
		item->error = error;
		item->mtu = mtu;
		(void)pthread_mutex_lock(&udp->port->lock);
		if (quote_len >= APH_RX_HEADER_SIZE)
			only = target(udp->port, key_of(quote, true));
		if (only != udp)
			push_to_others(udp, only, item);
		(void)pthread_mutex_unlock(&udp->port->lock);
		free(item);
	}
	if (!only || only == udp)
		aph_rx_receive_error(udp->rx, path, error, mtu, quote_len ? quote : NULL, quote_len,
				     false, now_ns);
}
