/* SPDX-License-Identifier: MIT */
#include "watch.h"

#include "describe.h"
#include "rx/wire.h"

#include <stdlib.h>
#include <string.h>

#define HELD_BITS 16384 /* more than any window */

/*
 * What has been seen of the latest call of a channel. `out` is what the host sends, `in` what it
 * gets.
 */
struct watch_flow {
	bool used;
	bool is_client; /* this host is the client end */
	uint32_t epoch, cid;
	uint32_t call;
	uint32_t out_highest, out_allowed;
	uint32_t in_next;     /* all below have been delivered */
	uint32_t in_last;     /* seq with LAST_PACKET; 0: not seen */
	uint64_t *in_held;    /* bits, seq modulo HELD_BITS; NULL as long as all came in order */
	uint32_t last_serial; /* in the flow of channel 0: of the connection */
};

void watch_init(struct watch *watch, struct world *world, const struct node *node,
		const struct aph_rx_config *config)
{
	bool hostile = watch->hostile;

	memset(watch, 0, sizeof(*watch));
	watch->world = world;
	watch->node = node;
	watch->hostile = hostile;
	watch->window_max = config->window ? config->window : APH_RX_WINDOW_MAX;
}

void watch_deinit(struct watch *watch)
{
	for (size_t i = 0; i < watch->room_flows; i++)
		free(watch->flows[i].in_held);
	free(watch->flows);
	watch->flows = NULL;
	watch->n_flows = watch->room_flows = 0;
}

/* -- flows ------------------------------------------------------------------------------------- */

static struct watch_flow *place(struct watch_flow *flows, size_t room, uint32_t epoch, uint32_t cid,
				bool is_client)
{
	uint64_t hash = ((uint64_t)epoch << 32 | cid) * UINT64_C(0x9e3779b97f4a7c15) + is_client;

	hash ^= hash >> 31;
	for (size_t i = (size_t)hash & (room - 1);; i = (i + 1) & (room - 1))
		if (!flows[i].used || (flows[i].epoch == epoch && flows[i].cid == cid &&
				       flows[i].is_client == is_client))
			return &flows[i];
}

static struct watch_flow *flow(struct watch *watch, uint32_t epoch, uint32_t cid, bool is_client)
{
	struct watch_flow *found;

	if (2 * (watch->n_flows + 1) > watch->room_flows) {
		size_t room = watch->room_flows ? 2 * watch->room_flows : 64;
		struct watch_flow *flows = calloc(room, sizeof(*flows));

		CHECK(flows);
		for (size_t i = 0; i < watch->room_flows; i++) {
			struct watch_flow *old = &watch->flows[i];

			if (old->used)
				*place(flows, room, old->epoch, old->cid, old->is_client) = *old;
		}
		free(watch->flows);
		watch->flows = flows;
		watch->room_flows = room;
	}
	found = place(watch->flows, watch->room_flows, epoch, cid, is_client);
	if (!found->used) {
		found->used = true;
		found->is_client = is_client;
		found->epoch = epoch;
		found->cid = cid;
		watch->n_flows++;
	}
	return found;
}

/* The flow of the packet's call; NULL if the packet is about an older call than the latest. */
static struct watch_flow *flow_of_call(struct watch *watch, const struct aph_rx_header *h,
				       bool is_client, uint32_t window)
{
	struct watch_flow *f = flow(watch, h->epoch, h->cid, is_client);

	if (h->call_number < f->call)
		return NULL;
	if (h->call_number > f->call) {
		f->call = h->call_number;
		f->out_highest = 0;
		f->out_allowed = window > 16 ? window : 16;
		f->in_next = 1;
		f->in_last = 0;
		free(f->in_held);
		f->in_held = NULL;
	}
	return f;
}

static uint32_t window_of(const struct watch *watch, const struct aph_rx_address *peer)
{
	const struct node *node = world_find(watch->world, peer);

	return node ? watch->window_seen[node->index] : 0;
}

static bool is_held(const struct watch_flow *f, uint32_t seq)
{
	if (seq < f->in_next)
		return true;
	if (!f->in_held || seq - f->in_next >= HELD_BITS)
		return false;
	return f->in_held[seq % HELD_BITS / 64] >> seq % 64 & 1;
}

static void hold(struct watch_flow *f, uint32_t seq)
{
	if (seq < f->in_next || seq - f->in_next >= HELD_BITS)
		return;
	if (seq == f->in_next && !f->in_held) {
		f->in_next++;
		return;
	}
	if (!f->in_held) {
		f->in_held = calloc(HELD_BITS / 64, sizeof(*f->in_held));
		CHECK(f->in_held);
	}
	f->in_held[seq % HELD_BITS / 64] |= UINT64_C(1) << seq % 64;
	while (f->in_held[f->in_next % HELD_BITS / 64] >> f->in_next % 64 & 1) {
		f->in_held[f->in_next % HELD_BITS / 64] &= ~(UINT64_C(1) << f->in_next % 64);
		f->in_next++;
	}
}

/* -- what is sent ------------------------------------------------------------------------------ */

_Noreturn static void wrong(struct watch *watch, const uint8_t *data, size_t len, const char *what)
{
	char text[240];

	describe_packet(text, sizeof(text), data, len);
	world_fail(watch->world, "%s sends what it must not: %s\n  %s", watch->node->name, what,
		   text);
}

#define MUST(condition, what)                            \
	do {                                             \
		if (!(condition))                        \
			wrong(watch, data, len, (what)); \
	} while (0)

static void check_serial(struct watch *watch, const struct aph_rx_header *h, uint32_t n,
			 const uint8_t *data, size_t len)
{
	bool is_client = h->flags & APH_RX_CLIENT_INITIATED;
	struct watch_flow *f;

	if (h->type == APH_RX_VERSION || h->type == APH_RX_DEBUG)
		return;
	f = flow(watch, h->epoch, h->cid & ~3u, is_client);
	if (h->serial == 0 && f->last_serial != UINT32_MAX) {
		/* What is sent without a connection. */
		MUST(h->type == APH_RX_ABORT || h->type == APH_RX_BUSY_PACKET ||
			     h->type == APH_RX_ACK,
		     "serial 0");
		return;
	}
	/* A server may have forgotten the connection and begin anew. */
	if (!(h->serial == 1 && !is_client))
		MUST((int32_t)(h->serial - f->last_serial) > 0, "a serial is used again");
	f->last_serial = h->serial + n - 1;
}

static void check_data(struct watch *watch, struct aph_rx_header h, uint32_t window,
		       const uint8_t *data, size_t len)
{
	bool is_client = h.flags & APH_RX_CLIENT_INITIATED;
	struct watch_flow *f = flow_of_call(watch, &h, is_client, window);
	const uint8_t *at = data + APH_RX_HEADER, *payload;
	size_t left = len - APH_RX_HEADER, payload_len;
	uint32_t n = 0;
	int more;

	MUST(h.call_number > 0 && h.call_number <= 0x7fffffff, "callNumber");
	MUST(h.service != 0, "service 0");
	do {
		bool last = h.flags & APH_RX_LAST_PACKET, jumbo = h.flags & APH_RX_JUMBO_PACKET;
		uint32_t seq = h.seq;

		MUST(!(last && jumbo), "LAST_PACKET with JUMBO_PACKET");
		MUST(seq > 0, "DATA with seq 0");
		more = aph_rx_jumbo_next(&h, &at, &left, &payload, &payload_len);
		MUST(more >= 0, "a jumbogram that cannot be taken apart");
		MUST(payload_len <= APH_RX_PAYLOAD_MAX, "more payload than fits into a jumbogram");
		n++;
		watch->n_data_sent++;
		if (!f)
			continue;
		if (seq <= f->out_highest)
			watch->n_resent++;
		if (seq > f->out_highest) {
			MUST(seq == f->out_highest + 1, "a seq is left out");
			f->out_highest = seq;
		}
		if (!watch->hostile)
			MUST(seq <= f->out_allowed, "more than the peer's window");
		if (!is_client && !watch->hostile)
			MUST(f->in_last && f->in_next > f->in_last,
			     "reply before all of the request has come");
	} while (more > 0);
	aph_rx_header_decode(&h, data);
	check_serial(watch, &h, n, data, len);
}

/* A question to an address that may be forged: it is of no connection, and its serial is a code. */
static bool is_question(const struct aph_rx_header *h, size_t len)
{
	return h->type == APH_RX_ACK && !(h->flags & APH_RX_CLIENT_INITIATED) &&
	       len == APH_RX_HEADER + APH_RX_ACK_FIXED + APH_RX_ACK_PADDING;
}

static void check_question(struct watch *watch, const struct aph_rx_header *h, const uint8_t *data,
			   size_t len)
{
	struct aph_rx_ack ack;

	MUST(aph_rx_ack_decode(&ack, data + APH_RX_HEADER, len - APH_RX_HEADER), "a malformed ACK");
	MUST(ack.reason == APH_RX_ACK_PING && h->flags & APH_RX_REQUEST_ACK && ack.first == 1,
	     "an ACK without the whole trailer");
	watch->n_questions_sent++;
}

static void check_ack(struct watch *watch, const struct aph_rx_header *h, const uint8_t *data,
		      size_t len)
{
	const uint8_t *body = data + APH_RX_HEADER;
	size_t n = len - APH_RX_HEADER;
	struct watch_flow *f = flow_of_call(watch, h, h->flags & APH_RX_CLIENT_INITIATED, 0);
	struct aph_rx_ack ack;

	MUST(aph_rx_ack_decode(&ack, body, n), "a malformed ACK");
	MUST(ack.n_words == 4, "an ACK without the whole trailer");
	MUST(h->seq == 0, "an ACK with a seq");
	MUST(h->flags & APH_RX_SLOW_START_OK, "an ACK without SLOW_START_OK");
	MUST(h->call_number != 0, "an ACK for no call");
	MUST(aph_get32(body) == 0, "bufferSpace or maxSkew are not 0");
	MUST(ack.reason >= APH_RX_ACK_REQUESTED && ack.reason <= APH_RX_ACK_IDLE, "ACK reason");
	MUST(!(h->flags & APH_RX_REQUEST_ACK) == (ack.reason != APH_RX_ACK_PING),
	     "REQUEST_ACK belongs to PING, and to no other ACK");
	for (unsigned i = 0; i < ack.n_acks; i++)
		MUST(ack.acks[i] <= 1, "a soft acknowledgement that is neither 0 nor 1");
	for (unsigned i = 0; i < APH_RX_ACK_PADDING; i++)
		MUST(body[APH_RX_ACK_FIXED + ack.n_acks + i] == 0, "padding is not 0");
	MUST(ack.rwind <= 255, "rwind beyond 255");
	MUST(ack.max_mtu >= 500 && ack.if_mtu >= 500, "MTU words");
	if (ack.extended)
		MUST(ack.window <= watch->window_max, "a window beyond what is configured");
	watch->n_acks_sent++;
	watch->n_pings_sent += ack.reason == APH_RX_ACK_PING;
	if (!f)
		return;
	MUST(ack.first <= f->in_next, "acknowledges for good what has not come");
	for (unsigned i = 0; i < ack.n_acks; i++)
		MUST(!(ack.acks[i] & 1) || is_held(f, ack.first + i),
		     "acknowledges softly what has not come");
	/*
	 * The ends of a range, and what is in its middle: there can be thousands of them in each
	 * ACK.
	 */
	for (unsigned i = 0; i < ack.n_ranges; i++) {
		const struct aph_rx_range *range = &ack.ranges[i];

		MUST(is_held(f, range->start) && is_held(f, range->end - 1) &&
			     is_held(f, range->start + (range->end - range->start) / 2),
		     "a range says that something came that has not");
	}
}

void watch_sent(struct watch *watch, const struct aph_rx_address *to, const uint8_t *data,
		size_t len)
{
	struct aph_rx_header h;
	bool client;

	MUST(len >= APH_RX_HEADER, "less than a header");
	aph_rx_header_decode(&h, data);
	client = h.flags & APH_RX_CLIENT_INITIATED;
	if (h.type != APH_RX_DATA)
		MUST(h.cksum == 0 || h.type == APH_RX_RESPONSE, "cksum outside of DATA");
	if (watch->only_abort && h.epoch == watch->abort_epoch &&
	    (h.cid & ~3u) == (watch->abort_cid & ~3u))
		MUST(h.type != APH_RX_ABORT && h.type != APH_RX_BUSY_PACKET &&
			     !(h.type == APH_RX_ACK && len >= APH_RX_HEADER + 16 &&
			       aph_get32(data + APH_RX_HEADER + 12) == watch->abort_serial),
		     "an answer to an ABORT");
	if (is_question(&h, len)) {
		check_question(watch, &h, data, len);
		return;
	}
	switch (h.type) {
	case APH_RX_DATA:
		check_data(watch, h, window_of(watch, to), data, len);
		return;
	case APH_RX_ACK:
		check_ack(watch, &h, data, len);
		break;
	case APH_RX_ABORT:
		MUST(len == APH_RX_HEADER + 4, "an ABORT of another size");
		MUST(aph_get32(data + APH_RX_HEADER) != 0, "ABORT with code 0");
		MUST(h.seq == 0, "an ABORT with a seq");
		watch->n_aborts_sent++;
		break;
	case APH_RX_BUSY_PACKET:
		MUST(!client && h.call_number != 0 && len == APH_RX_HEADER, "BUSY");
		watch->n_busy_sent++;
		break;
	case APH_RX_ACKALL:
		MUST(client && h.call_number != 0 && len == APH_RX_HEADER, "ACKALL");
		break;
	case APH_RX_CHALLENGE:
		MUST(!client && h.call_number == 0, "CHALLENGE");
		break;
	case APH_RX_RESPONSE:
		MUST(client && h.call_number == 0, "RESPONSE");
		break;
	case APH_RX_VERSION:
	case APH_RX_DEBUG:
		break;
	default:
		MUST(false, "a type that is never sent");
	}
	check_serial(watch, &h, 1, data, len);
}

/* -- what arrives ------------------------------------------------------------------------------ */

static void take_data(struct watch *watch, struct aph_rx_header h, uint32_t window,
		      const uint8_t *data, size_t len)
{
	struct watch_flow *f =
		flow_of_call(watch, &h, !(h.flags & APH_RX_CLIENT_INITIATED), window);
	const uint8_t *at = data + APH_RX_HEADER, *payload;
	size_t left = len - APH_RX_HEADER, payload_len;
	int more;

	if (!f)
		return;
	do {
		bool last = h.flags & APH_RX_LAST_PACKET;
		uint32_t seq = h.seq;

		more = aph_rx_jumbo_next(&h, &at, &left, &payload, &payload_len);
		if (more < 0)
			return;
		hold(f, seq);
		if (last)
			f->in_last = seq;
	} while (more > 0);
}

static void take_ack(struct watch *watch, const struct aph_rx_header *h,
		     const struct packet *packet)
{
	const struct node *node = world_find(watch->world, &packet->from);
	struct watch_flow *f;
	struct aph_rx_ack ack;
	uint32_t window;

	if (!aph_rx_ack_decode(&ack, packet->data + APH_RX_HEADER, packet->len - APH_RX_HEADER))
		return;
	window = ack.n_words == 4 ? ack.rwind : 16;
	if (ack.extended && ack.window > window)
		window = ack.window;
	if (window == 0)
		window = 1;
	if (node && window > watch->window_seen[node->index])
		watch->window_seen[node->index] = window;
	f = flow_of_call(watch, h, !(h->flags & APH_RX_CLIENT_INITIATED), window);
	if (f && ack.first + window - 1 > f->out_allowed)
		f->out_allowed = ack.first + window - 1;
}

void watch_delivered(struct watch *watch, const struct packet *packet)
{
	struct aph_rx_header h;

	watch->only_abort = false;
	watch->n_in_batch++;
	if (packet->len < APH_RX_HEADER)
		return;
	aph_rx_header_decode(&h, packet->data);
	if (h.type == APH_RX_DATA) {
		take_data(watch, h, window_of(watch, &packet->from), packet->data, packet->len);
	} else if (h.type == APH_RX_ACK) {
		take_ack(watch, &h, packet);
	} else if (h.type == APH_RX_ABORT) {
		watch->only_abort = watch->n_in_batch == 1;
		watch->abort_epoch = h.epoch;
		watch->abort_cid = h.cid;
		watch->abort_serial = h.serial ? h.serial : UINT32_MAX;
	}
}

void watch_settled(struct watch *watch)
{
	watch->only_abort = false;
	watch->n_in_batch = 0;
}
