/* SPDX-License-Identifier: MIT */
/*
 * Receiving: from the socket into the inbox, from the inbox into the engine. They are two steps
 * because the first may go on while another thread uses the engine.
 *
 * With UDP_GRO each slot is a buffer of 64 KiB: a smaller one would cut runs off. Without it
 * several slots share a buffer. How many slots are offered follows how many were filled.
 *
 * A socket that is ours alone and has one address begins without UDP_GRO: then nothing is to be
 * learned about a datagram but its sender, and recvfrom() is enough, the cheapest call there is.
 * The kernel cuts runs up for such a socket, and what looks like one switches UDP_GRO on. There it
 * stays. Once it is off, a run that the kernel has put together before is handed out as one
 * datagram, and nothing tells: its first packet would swallow the others, headers and all.
 */
#include "udp/udp.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_PER_BUFFER 8u /* without UDP_GRO */
#define SLOT_SIZE	 (APH_RX_BUFFER_SIZE / SLOTS_PER_BUFFER)
#define VECTOR_GRO_MAX	 4u

/*
 * So many small packets of a run are handed on at once. They are of as many calls, mostly: while we
 * see to the next ones, the peer can begin with the answers to these. On one CPU it could not, and
 * each piece costs a system call.
 */
#define PIECE 8u
#define SMALL 256u

/*
 * What looks like a run twice within so many datagrams is one; once it may be a packet and its copy
 * that waited together. And after so many that came alone two are asked for, as the clock does not
 * always tell that there are more.
 */
#define RUN_WITHIN  256u
#define PROBE_EVERY 64u

static void set_slot(struct aph_udp_inbox *inbox, unsigned i, struct aph_rx_buffer *buffer,
		     char *memory, size_t size)
{
	inbox->buffers[i] = buffer;
	inbox->iov[i].iov_base = memory;
	inbox->iov[i].iov_len = size;
}

/* The first buffer that several slots share, or each slot's own. */
static void fill_from(struct aph_rx_udp *udp, unsigned i, struct aph_rx_buffer *buffer)
{
	struct aph_udp_inbox *inbox = &udp->inbox;
	char *bytes = aph_rx_buffer_bytes(buffer);

	if (udp->has_gro) {
		set_slot(inbox, i, buffer, bytes, APH_RX_BUFFER_SIZE);
		return;
	}
	for (size_t k = 0; k < SLOTS_PER_BUFFER; k++)
		set_slot(inbox, (unsigned)k, buffer, bytes + k * SLOT_SIZE, SLOT_SIZE);
	inbox->n_slots = SLOTS_PER_BUFFER;
}

/* Gives back what somebody reads from, takes as many buffers as the vector wants. */
static void make_ready(struct aph_rx_udp *udp)
{
	struct aph_udp_inbox *inbox = &udp->inbox;
	unsigned n_buffers = udp->has_gro ? inbox->vector : 1;

	for (unsigned i = 0; i < n_buffers; i++) {
		struct aph_rx_buffer *buffer = i < inbox->n_slots ? inbox->buffers[i] : NULL;

		if (buffer && !aph_rx_buffer_is_shared(buffer))
			continue;
		if (buffer)
			aph_rx_buffer_put(udp->rx, buffer);
		buffer = aph_rx_buffer_take(udp->rx);
		if (!buffer) {
			/* Memory is short: what is received next will be copied. */
			for (unsigned k = i + 1; udp->has_gro && k < inbox->n_slots; k++)
				if (inbox->buffers[k])
					aph_rx_buffer_put(udp->rx, inbox->buffers[k]);
			set_slot(inbox, i, NULL, inbox->reserve, APH_RX_BUFFER_SIZE);
			inbox->n_slots = i + 1;
			return;
		}
		if (i >= inbox->n_slots)
			inbox->n_slots = i + 1;
		fill_from(udp, i, buffer);
	}
}

int aph_udp_inbox_init(struct aph_rx_udp *udp)
{
	struct aph_udp_inbox *inbox = &udp->inbox;

	inbox->reserve = malloc(APH_RX_BUFFER_SIZE);
	if (!inbox->reserve)
		return -ENOMEM;
	inbox->vector = 1;
	inbox->n_alone = RUN_WITHIN;
	for (unsigned i = 0; i < APH_UDP_INBOX_MAX; i++)
		inbox->headers[i].msg_hdr = (struct msghdr){
			.msg_name = &inbox->names[i],
			.msg_iov = &inbox->iov[i],
			.msg_iovlen = 1,
			.msg_control = &inbox->controls[i],
		};
	make_ready(udp);
	return 0;
}

void aph_udp_inbox_deinit(struct aph_rx_udp *udp)
{
	struct aph_udp_inbox *inbox = &udp->inbox;

	for (unsigned i = 0; i < inbox->n_slots; i++)
		if (inbox->buffers[i] && (i == 0 || udp->has_gro))
			aph_rx_buffer_put(udp->rx, inbox->buffers[i]);
	inbox->n_slots = 0;
	free(inbox->reserve);
	inbox->reserve = NULL;
}

/* A receiving call changes the lengths: they are set anew before each. */
static void prepare(struct aph_udp_inbox *inbox, unsigned i)
{
	inbox->headers[i].msg_hdr.msg_namelen = sizeof(inbox->names[i]);
	inbox->headers[i].msg_hdr.msg_controllen = sizeof(inbox->controls[i]);
}

/* One datagram, of which the sender is all there is to know. */
static int receive_bare(struct aph_rx_udp *udp, int flags)
{
	struct aph_udp_inbox *inbox = &udp->inbox;
	struct msghdr *header = &inbox->headers[0].msg_hdr;
	size_t size = inbox->iov[0].iov_len;
	ssize_t len;

	header->msg_namelen = sizeof(inbox->names[0]);
	len = recvfrom(udp->fd, inbox->iov[0].iov_base, size, flags | MSG_TRUNC,
		       &inbox->names[0].any, &header->msg_namelen);
	if (len < 0)
		return -errno;
	header->msg_flags = (size_t)len > size ? MSG_TRUNC : 0;
	header->msg_controllen = 0;
	inbox->headers[0].msg_len = (unsigned)len;
	inbox->n_received = 1;
	return 1;
}

int aph_udp_receive(struct aph_rx_udp *udp, int flags)
{
	struct aph_udp_inbox *inbox = &udp->inbox;
	unsigned n = inbox->vector < inbox->n_slots ? inbox->vector : inbox->n_slots;
	int r;

	if (n <= 1 && udp->is_bare)
		return receive_bare(udp, flags);
	if (n <= 1) {
		ssize_t len;

		prepare(inbox, 0);
		len = recvmsg(udp->fd, &inbox->headers[0].msg_hdr, flags);
		if (len < 0)
			return -errno;
		inbox->headers[0].msg_len = (unsigned)len;
		inbox->n_received = 1;
		return 1;
	}
	for (unsigned i = 0; i < n; i++)
		prepare(inbox, i);
	r = recvmmsg(udp->fd, inbox->headers, n, flags | MSG_WAITFORONE, NULL);
	if (r < 0)
		return -errno;
	inbox->n_received = (unsigned)r;
	return r;
}

static void adapt(struct aph_rx_udp *udp, bool at_once)
{
	struct aph_udp_inbox *inbox = &udp->inbox;
	unsigned max = udp->has_gro ? VECTOR_GRO_MAX : SLOTS_PER_BUFFER;

	if (inbox->n_received >= inbox->vector) {
		/* One that was waited for says nothing about there being more. */
		if ((inbox->vector > 1 || at_once) && inbox->vector < max)
			inbox->vector *= 2;
	} else if (inbox->n_received * 2 <= inbox->vector) {
		inbox->vector /= 2;
	}
}

static bool is_of_same_sender(const union aph_udp_name *a, const union aph_udp_name *b)
{
	struct aph_rx_address first, second;

	aph_udp_from_name(a, &first);
	aph_udp_from_name(b, &second);
	return aph_rx_address_equal(&first, &second);
}

/* Whether neighbours in the inbox may be of one run: of one sender, and of one size. */
static bool looks_like_run(const struct aph_udp_inbox *inbox)
{
	for (unsigned i = 1; i < inbox->n_received; i++)
		if (inbox->headers[i].msg_len == inbox->headers[i - 1].msg_len &&
		    is_of_same_sender(&inbox->names[i], &inbox->names[i - 1]))
			return true;
	return false;
}

/* Whether it is time for UDP_GRO. Only who receives may ask: nobody else does so meanwhile. */
static void look_for_runs(struct aph_rx_udp *udp)
{
	struct aph_udp_inbox *inbox = &udp->inbox;

	if (!looks_like_run(inbox)) {
		inbox->n_alone++;
		if (inbox->n_alone % PROBE_EVERY == 0 && inbox->vector == 1)
			inbox->vector = 2;
		return;
	}
	if (inbox->n_alone < RUN_WITHIN)
		aph_udp_start_gro(udp);
	inbox->n_alone = 0;
}

/* What the control messages say. */
struct marks {
	size_t segment; /* 0: it is one datagram */
	uint32_t n_dropped;
};

static void read_control(struct msghdr *header, struct aph_rx_path *path, struct marks *marks)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
			int segment;

			memcpy(&segment, CMSG_DATA(c), sizeof(segment));
			marks->segment = segment > 0 ? (size_t)segment : 0;
		} else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
			memcpy(&marks->n_dropped, CMSG_DATA(c), sizeof(marks->n_dropped));
		} else {
			aph_udp_read_pktinfo(c, path);
		}
	}
}

/*
 * How much of a message of `len` bytes from `offset` on is handed on at once: all, if it may be for
 * others.
 */
static size_t piece_of(const struct aph_rx_udp *udp, size_t len, size_t segment, size_t offset)
{
	size_t max = PIECE * segment;

	if (segment > SMALL || len - offset < max || aph_udp_is_crowded(udp) ||
	    !aph_udp_spin_pays(&udp->spin))
		return len - offset;
	return max;
}

/* Hands on the next piece of message `i`. */
static void deliver_piece(struct aph_rx_udp *udp, unsigned i, uint64_t now_ns)
{
	struct aph_udp_inbox *inbox = &udp->inbox;
	struct msghdr *header = &inbox->headers[i].msg_hdr;
	struct marks marks = { .n_dropped = udp->n_dropped };
	size_t len = inbox->headers[i].msg_len, offset = inbox->offset;
	struct aph_rx_path path = udp->path;
	char *data = inbox->iov[i].iov_base;

	inbox->offset = len;
	aph_udp_from_name(&inbox->names[i], &path.remote);
	read_control(header, &path, &marks);
	if (marks.n_dropped != udp->n_dropped)
		aph_udp_note_drops(udp, marks.n_dropped, now_ns);
	/*
	 * Nothing of Rx is that short, but wake-ups of ours are; what was cut off is of no use, nor
	 * what may be a run and does not say.
	 */
	if (len < APH_RX_HEADER_SIZE || (header->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
	    path.remote.family == AF_UNSPEC)
		return;
	marks.segment = marks.segment ? marks.segment : len;
	len = piece_of(udp, len, marks.segment, offset);
	inbox->offset = offset + len;
	if (aph_udp_is_crowded(udp))
		aph_udp_port_sort(udp, &path, (uint8_t *)data + offset, len, marks.segment,
				  inbox->buffers[i], now_ns);
	else
		aph_rx_receive(udp->rx, &path, data + offset, len, marks.segment, inbox->buffers[i],
			       now_ns);
}

void aph_udp_deliver_rest(struct aph_rx_udp *udp, uint64_t now_ns)
{
	struct aph_udp_inbox *inbox = &udp->inbox;

	while (inbox->n_delivered < inbox->n_received) {
		unsigned i = inbox->n_delivered;

		deliver_piece(udp, i, now_ns);
		udp->has_rest = inbox->offset < inbox->headers[i].msg_len;
		if (udp->has_rest)
			return;
		inbox->offset = 0;
		inbox->n_delivered++;
	}
	inbox->n_received = inbox->n_delivered = 0;
	make_ready(udp);
	if (udp->budget < udp->budget_max)
		aph_udp_grow_budget(udp, now_ns);
}

void aph_udp_deliver(struct aph_rx_udp *udp, bool at_once, uint64_t now_ns)
{
	adapt(udp, at_once);
	if (udp->is_bare && udp->has_gro)
		look_for_runs(udp);
	aph_udp_deliver_rest(udp, now_ns);
}
