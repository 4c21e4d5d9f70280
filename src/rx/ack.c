/* SPDX-License-Identifier: MIT */
/*
 * Acknowledging: when, why and what. What arrives is noted; the acknowledgement leaves with the
 * next aph_rx_send(), after the user has read, so that it is one for a batch of packets and says
 * "read" rather than "arrived" where that is true by then. A reply says it better still and takes
 * its place.
 */
#include "rx/call.h"

#include <string.h>

#define CONSUMED_MIN 8 /* packets read that are worth a word of their own */
/*
 * A path with a shorter round trip delivers a whole window at once: it must fit into the receive
 * buffer.
 */
#define SHORT_PATH_US 1000

/* Of several reasons the strongest is named. */
static unsigned rank(unsigned reason)
{
	static const uint8_t ranks[] = {
		[APH_RX_ACK_IDLE] = 1,
		[APH_RX_ACK_DELAY] = 2,
		[APH_RX_ACK_REQUESTED] = 3,
		[APH_RX_ACK_DUPLICATE] = 4,
		[APH_RX_ACK_EXCEEDS_WINDOW] = 5,
		[APH_RX_ACK_NOSPACE] = 6,
		[APH_RX_ACK_OUT_OF_SEQUENCE] = 7,
		[APH_RX_ACK_PING] = 8,
		[APH_RX_ACK_PING_RESPONSE] = 9,
	};

	return ranks[reason];
}

void aph_rx_ack_want(struct aph_rx_call *call, enum aph_rx_ack_reason reason, uint32_t serial,
		     bool now)
{
	struct aph_rx_in *in = &call->in;
	struct aph_rx *rx = call->rx;

	if (rank(reason) >= rank(in->ack_reason)) {
		in->ack_reason = (uint8_t)reason;
		in->ack_serial = serial;
	}
	if (now) {
		in->ack_now = true;
		in->ack_ns = UINT64_MAX;
		aph_rx_call_wants_to_send(call);
	} else if (!in->ack_now && in->ack_ns == UINT64_MAX) {
		in->ack_ns = rx->now_ns + rx->config.soft_ack_delay_ms * APH_RX_MS;
		aph_rx_call_arm(call, in->ack_ns);
	}
}

void aph_rx_ack_drop(struct aph_rx_call *call)
{
	struct aph_rx_in *in = &call->in;

	if (rank(in->ack_reason) > rank(APH_RX_ACK_REQUESTED))
		return;
	in->ack_reason = 0;
	in->ack_now = false;
	in->ack_ns = UINT64_MAX;
}

void aph_rx_ack_arrived(struct aph_rx_call *call, const struct aph_rx_header *header,
			enum aph_rx_taken taken, bool was_gap)
{
	struct aph_rx_in *in = &call->in;

	switch (taken) {
	case APH_RX_TAKEN_DUPLICATE:
		aph_rx_ack_want(call, APH_RX_ACK_DUPLICATE, header->serial, true);
		return;
	case APH_RX_TAKEN_BEYOND_WINDOW:
		aph_rx_ack_want(call, APH_RX_ACK_EXCEEDS_WINDOW, header->serial, true);
		return;
	case APH_RX_TAKEN_NO_SPACE:
		aph_rx_ack_want(call, APH_RX_ACK_NOSPACE, header->serial, true);
		return;
	case APH_RX_TAKEN_WRONG:
		return;
	case APH_RX_TAKEN:
		break;
	}
	in->n_unacked++;
	if (header->seq >= in->next)
		aph_rx_ack_want(call, APH_RX_ACK_OUT_OF_SEQUENCE, header->serial, true);
	else if (header->flags & APH_RX_REQUEST_ACK)
		aph_rx_ack_want(call, APH_RX_ACK_REQUESTED, header->serial, true);
	else if (was_gap)
		aph_rx_ack_want(call, APH_RX_ACK_DELAY, 0, true);
	else if (in->n_unacked >= 2)
		aph_rx_ack_want(call, APH_RX_ACK_IDLE, header->serial, true);
	else
		aph_rx_ack_want(call, APH_RX_ACK_DELAY, 0, false);
}

void aph_rx_ack_consumed(struct aph_rx_call *call, uint32_t n_packets)
{
	struct aph_rx_in *in = &call->in;
	int32_t offered = (int32_t)(in->window_end - in->base);
	uint32_t enough = offered > 0 ? (uint32_t)offered / 4 : 0;

	in->n_consumed += n_packets;
	if (call->state == APH_RX_STATE_ENDED || call->state == APH_RX_STATE_COMPLETE)
		return;
	/* The reply acknowledges a request. */
	if (!call->is_client && aph_rx_in_is_complete(in))
		return;
	if (enough < CONSUMED_MIN)
		enough = CONSUMED_MIN;
	aph_rx_ack_want(call, APH_RX_ACK_DELAY, 0, in->n_consumed >= enough);
}

uint32_t aph_rx_ack_window(const struct aph_rx_call *call)
{
	const struct aph_rx *rx = call->rx;
	const struct aph_rx_peer *peer = call->peer;
	uint32_t window = rx->config.window;
	uint64_t more = aph_rx_in_memory_left(call) / (APH_RX_CELL + APH_RX_PACKET_COST);
	uint32_t held = call->in.next - call->in.base;

	/*
	 * Who does not know the extension reads 255 at most; whether a peer knows it, a mere sender
	 * never says.
	 */
	if (rx->config.receive_budget &&
	    (!peer->rtt.n_samples || peer->rtt.min_us < SHORT_PATH_US)) {
		uint32_t share = rx->config.receive_budget / (rx->n_bulk ? rx->n_bulk : 1);

		if (share < APH_RX_WINDOW_START)
			share = APH_RX_WINDOW_START;
		if (window > share)
			window = share;
	}
	if (window > held + more)
		window = held + (uint32_t)more;
	return window;
}

void aph_rx_ack_offer(const struct aph_rx_peer *peer, uint32_t window, struct aph_rx_ack *ack)
{
	uint32_t flags = peer->rx->config.flags;

	ack->if_mtu = APH_RX_MTU_DEFAULT;
	ack->rwind = window < APH_RX_WINDOW_SMALL ? window : APH_RX_WINDOW_SMALL;
	ack->extended = !(flags & APH_RX_NO_EXTENSION);
	ack->window = window;
	if (flags & APH_RX_NO_JUMBO) {
		ack->max_mtu = APH_RX_MTU_DEFAULT;
		ack->max_jumbo = 1;
	} else if (peer->extended) {
		ack->max_mtu = APH_RX_MTU_MAX;
		ack->max_jumbo = 46;
	} else {
		/*
		 * Who takes jumbograms gets larger datagrams from stock peers; 4 is what OpenAFS
		 * and Linux say.
		 */
		ack->max_mtu = 5692;
		ack->max_jumbo = 4;
	}
}

/*
 * acks[] and, beyond what it can say, ranges: what has arrived above the first packet that has not
 * been read.
 */
static void fill_acks(struct aph_rx_call *call, struct aph_rx_ack *ack, uint8_t *acks)
{
	struct aph_rx_in *in = &call->in;
	uint32_t seq = in->base;
	uint32_t end = in->highest + 1;

	while (seq < end && ack->n_acks < 255) {
		acks[ack->n_acks++] = in->slots[seq & (in->n_slots - 1)].hold != NULL;
		seq++;
	}
	ack->acks = acks;
	while (ack->extended && seq < end && ack->n_ranges < APH_RX_ACK_RANGES_MAX) {
		struct aph_rx_range *range = &ack->ranges[ack->n_ranges];

		while (seq < end && !in->slots[seq & (in->n_slots - 1)].hold)
			seq++;
		range->start = seq;
		while (seq < end && in->slots[seq & (in->n_slots - 1)].hold)
			seq++;
		range->end = seq;
		if (range->end > range->start)
			ack->n_ranges++;
	}
}

size_t aph_rx_ack_build(struct aph_rx_call *call, uint8_t *body, enum aph_rx_ack_reason reason,
			uint32_t serial)
{
	struct aph_rx_in *in = &call->in;
	uint32_t window = aph_rx_ack_window(call);
	uint8_t acks[255];
	struct aph_rx_ack ack = {
		.first = in->base,
		.previous = in->highest,
		.serial = serial,
		.reason = (uint8_t)reason,
	};

	aph_rx_ack_offer(call->peer, window, &ack);
	fill_acks(call, &ack, acks);
	if ((int32_t)(in->base + window - in->window_end) > 0)
		in->window_end = in->base + window;
	in->n_unacked = 0;
	in->n_consumed = 0;
	return aph_rx_ack_encode(body, &ack);
}
