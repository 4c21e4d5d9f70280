/* SPDX-License-Identifier: MIT */
/*
 * What the peer's acknowledgements say about our packets, and what to do when none come: loss
 * detection by time and order of transmission (RACK), probes of the tail (TLP), and the
 * retransmission time-out, after RFC 8985 and RFC 6298. Serial numbers, new for every transmission,
 * take the place of time stamps.
 */
#include "rx/call.h"

#include <errno.h>

#define PROBE_MIN_NS (10 * APH_RX_MS)
/* Where no acknowledgement was asked for, or it may come late. */
#define PROBE_UNASKED_NS  (120 * APH_RX_MS)
#define STOCK_LAST_NS	  (400 * APH_RX_MS) /* how long OpenAFS holds a receipt back */
#define RECEIPT_NS	  (1000 * APH_RX_MS)
#define RECEIPT_TRIES	  3
#define BACKOFFS_MAX	  10
#define BUSY_BACKOFFS_MAX 4

/* -- packets in flight, and those lost --------------------------------------------------------- */

/* Those in flight are a list in the order of their last transmission. */
static void link_flying(struct aph_rx_out *out, uint32_t seq, struct aph_rx_meta *meta)
{
	meta->prev = out->flying_tail;
	meta->next = 0;
	if (out->flying_tail)
		aph_rx_out_meta(out, out->flying_tail)->next = seq;
	else
		out->flying_head = seq;
	out->flying_tail = seq;
	out->n_flying++;
}

static void unlink_flying(struct aph_rx_out *out, struct aph_rx_meta *meta)
{
	if (meta->prev)
		aph_rx_out_meta(out, meta->prev)->next = meta->next;
	else
		out->flying_head = meta->next;
	if (meta->next)
		aph_rx_out_meta(out, meta->next)->prev = meta->prev;
	else
		out->flying_tail = meta->prev;
	out->n_flying--;
}

/*
 * Those that are lost are found in order, as what the reader waits for goes first: each chunk has a
 * bit for each of its packets, and the lowest of all is known. Acknowledgements in whatever order
 * then cost no more than a look at each chunk.
 */
static uint16_t bit_of(uint32_t seq)
{
	return (uint16_t)(1u << (seq - 1) % APH_RX_CHUNK_SLOTS);
}

static uint16_t *lost_bits(struct aph_rx_out *out, uint32_t seq, uint16_t *bit)
{
	*bit = bit_of(seq);
	return &(*aph_rx_chunk_place(out, seq))->lost;
}

static void add_lost(struct aph_rx_out *out, uint32_t seq)
{
	if (!out->inlined) {
		uint16_t bit, *bits = lost_bits(out, seq, &bit);

		*bits |= bit;
	}
	if (!out->n_lost++ || seq < out->lost_head)
		out->lost_head = seq;
}

static void drop_lost(struct aph_rx_out *out, uint32_t seq)
{
	uint16_t bit, *bits;

	if (--out->n_lost == 0)
		out->lost_head = 0;
	/* That is the only packet of its body. */
	if (out->inlined)
		return;
	bits = lost_bits(out, seq, &bit);
	*bits &= (uint16_t)~bit;
	if (seq != out->lost_head)
		return;
	/* All others lie above. */
	while (!*bits) {
		seq += APH_RX_CHUNK_SLOTS;
		bits = lost_bits(out, seq, &bit);
	}
	out->lost_head = seq - (seq - 1) % APH_RX_CHUNK_SLOTS + (uint32_t)__builtin_ctz(*bits);
}

/* So are those that have arrived, so that a range of many that are known costs little. */
static void add_sacked(struct aph_rx_out *out, uint32_t seq)
{
	out->n_sacked++;
	if (!out->inlined)
		(*aph_rx_chunk_place(out, seq))->sacked |= bit_of(seq);
}

static void drop_sacked(struct aph_rx_out *out, uint32_t seq)
{
	out->n_sacked--;
	if (!out->inlined)
		(*aph_rx_chunk_place(out, seq))->sacked &= (uint16_t)~bit_of(seq);
}

/* Whether `seq` begins a chunk of which all have arrived. */
static bool is_known(struct aph_rx_out *out, uint32_t seq)
{
	return bit_of(seq) == 1 && (*aph_rx_chunk_place(out, seq))->sacked == UINT16_MAX;
}

static void take_from_list(struct aph_rx_out *out, uint32_t seq, struct aph_rx_meta *meta)
{
	if (meta->state == APH_RX_PACKET_FLYING)
		unlink_flying(out, meta);
	else if (meta->state == APH_RX_PACKET_LOST)
		drop_lost(out, seq);
	else if (meta->state == APH_RX_PACKET_SACKED)
		drop_sacked(out, seq);
}

static void set_lost(struct aph_rx_out *out, uint32_t seq, struct aph_rx_meta *meta)
{
	take_from_list(out, seq, meta);
	meta->state = APH_RX_PACKET_LOST;
	add_lost(out, seq);
}

/* -- deadlines --------------------------------------------------------------------------------- */

static uint64_t timeout(const struct aph_rx_call *call)
{
	const struct aph_rx_out *out = &call->out;
	const struct aph_rx_rtt *rtt = &call->peer->rtt;
	uint64_t rto = aph_rx_rtt_rto_ns(rtt, out->n_backoffs);
	uint64_t probe;

	/* Who is silent for longer than dead_ns is dead: several tries fit into that time. */
	if (out->n_backoffs && rto > call->dead_ns / 3)
		rto = call->dead_ns / 3;

	/* Stock peers may keep quiet about the last packet of a body for a while. */
	if (out->finished && out->next == out->end && !call->peer->extended)
		rto += STOCK_LAST_NS;
	if (!out->n_flying || out->probed || out->n_backoffs || !rtt->n_samples)
		return rto;
	probe = 2 * (uint64_t)rtt->srtt_us * 1000;
	probe += out->keep_ack_request && !rtt->is_bound ? PROBE_MIN_NS : PROBE_UNASKED_NS;
	return probe < rto ? probe : rto;
}

void aph_rx_recover_arm(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	uint64_t now = call->rx->now_ns;

	if (out->n_flying)
		out->timeout_ns = now + timeout(call);
	else if (out->n_sacked && !out->n_lost && out->next == out->end)
		out->timeout_ns = now + (RECEIPT_NS << out->n_backoffs);
	else if (out->end > out->next || out->n_lost)
		out->timeout_ns = now + timeout(call);
	else
		out->timeout_ns = UINT64_MAX;
	aph_rx_call_arm(call, aph_rx_recover_deadline(call));
}

uint64_t aph_rx_recover_deadline(const struct aph_rx_call *call)
{
	const struct aph_rx_out *out = &call->out;
	uint64_t due = out->timeout_ns < out->reorder_ns ? out->timeout_ns : out->reorder_ns;

	return out->pace_wait_ns < due ? out->pace_wait_ns : due;
}

/* -- sending ----------------------------------------------------------------------------------- */

static void note_time(struct aph_rx_call *call, uint32_t serial, bool proves)
{
	struct aph_rx_out *out = &call->out;

	out->timings[out->n_timings++ % APH_RX_N_TIMINGS] = (struct aph_rx_timing){
		.serial = serial, .proves = proves, .sent_ns = call->rx->now_ns
	};
}

void aph_rx_recover_note_ping(struct aph_rx_call *call, uint32_t serial)
{
	note_time(call, serial, !call->peer->proven);
}

void aph_rx_recover_sent(struct aph_rx_call *call, uint32_t seq, struct aph_rx_meta *meta,
			 uint32_t serial, bool ack_requested)
{
	struct aph_rx_out *out = &call->out;

	take_from_list(out, seq, meta);
	meta->state = APH_RX_PACKET_FLYING;
	meta->serial = serial;
	meta->sent_ns = call->rx->now_ns;
	if (meta->n_sent < UINT8_MAX)
		meta->n_sent++;
	link_flying(out, seq, meta);
	out->keep_ack_request = ack_requested;
	if (ack_requested)
		note_time(call, serial, false);
}

/* -- losses ------------------------------------------------------------------------------------ */

static uint64_t reorder_window_ns(const struct aph_rx_call *call)
{
	const struct aph_rx_out *out = &call->out;
	const struct aph_rx_rtt *rtt = &call->peer->rtt;
	uint64_t window;

	if (!out->reordering_seen && out->n_sacked >= 3)
		return 0;
	window = (uint64_t)rtt->min_us * 1000 * (out->reorder_mult + 1u) / 4;
	return window < (uint64_t)rtt->srtt_us * 1000 ? window : (uint64_t)rtt->srtt_us * 1000;
}

static void note_lost_size(struct aph_rx_call *call, uint16_t datagram)
{
	if (datagram && !(call->rx->config.flags & APH_RX_NO_PMTU_PROBES))
		aph_rx_pmtu_lost(&call->peer->pmtu, datagram);
}

/* Those that were sent before one that has arrived, and long enough ago, are lost. */
static void detect_losses(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	uint64_t now = call->rx->now_ns;
	uint64_t patience = (uint64_t)call->peer->rtt.latest_us * 1000 + reorder_window_ns(call);
	uint32_t in_flight = out->n_flying;
	uint32_t n = 0, lowest = 0, seq;
	uint16_t datagram = 0;

	out->reorder_ns = UINT64_MAX;
	while ((seq = out->flying_head)) {
		struct aph_rx_meta *meta = aph_rx_out_meta(out, seq);

		if ((int32_t)(meta->serial - out->acked_serial) >= 0)
			break;
		if (meta->sent_ns + patience > now) {
			out->reorder_ns = meta->sent_ns + patience;
			aph_rx_call_arm(call, out->reorder_ns);
			break;
		}
		aph_rx_trace_call(call, APH_RX_TRACE_LOST, seq, "a later one has arrived");
		/* Once may be bad luck. */
		if (meta->n_sent > 1 && meta->datagram > datagram)
			datagram = meta->datagram;
		set_lost(out, seq, meta);
		if (!lowest || seq < lowest)
			lowest = seq;
		n++;
	}
	if (!n)
		return;
	note_lost_size(call, datagram);
	aph_rx_congest_on_loss(&out->congest, n, lowest, out->next, in_flight, &call->peer->rtt);
	aph_rx_call_wants_to_send(call);
}

/* -- an acknowledgement ------------------------------------------------------------------------ */

struct progress {
	uint32_t n_acked;
	uint32_t highest;
	uint32_t serial;   /* of the transmission that the ACK answers; 0: it gives no sample */
	uint64_t sent_ns;  /* when that was made, if it is among those that have arrived */
	uint16_t datagram; /* size of the largest that has arrived in one piece */
};

static void note_arrival(struct aph_rx_call *call, uint32_t seq, struct aph_rx_meta *meta,
			 struct progress *progress)
{
	struct aph_rx_out *out = &call->out;

	if (meta->state == APH_RX_PACKET_SACKED)
		return;
	take_from_list(out, seq, meta);
	progress->n_acked++;
	if (seq > progress->highest)
		progress->highest = seq;
	if (meta->serial == progress->serial)
		progress->sent_ns = meta->sent_ns;
	if (meta->datagram > progress->datagram)
		progress->datagram = meta->datagram;
	/* It was overtaken by one that was sent after it, and was not lost. */
	if (seq < out->highest_sacked && meta->n_sent == 1)
		out->reordering_seen = true;
	if (!out->acked_serial || (int32_t)(meta->serial - out->acked_serial) > 0)
		out->acked_serial = meta->serial;
}

static void sack(struct aph_rx_call *call, uint32_t seq, struct progress *progress)
{
	struct aph_rx_meta *meta = aph_rx_out_meta(&call->out, seq);

	if (meta->state == APH_RX_PACKET_SACKED)
		return;
	note_arrival(call, seq, meta, progress);
	meta->state = APH_RX_PACKET_SACKED;
	add_sacked(&call->out, seq);
	if (seq > call->out.highest_sacked)
		call->out.highest_sacked = seq;
}

static void take_soft(struct aph_rx_call *call, const struct aph_rx_ack *ack,
		      struct progress *progress)
{
	struct aph_rx_out *out = &call->out;
	uint32_t i, seq;

	for (i = 0; i < ack->n_acks; i++) {
		struct aph_rx_meta *meta;

		seq = ack->first + i;
		if (ack->acks[i] & 1) {
			sack(call, seq, progress);
			continue;
		}
		meta = aph_rx_out_meta(out, seq);
		/* Peers may drop what they had not handed on. */
		if (meta->state == APH_RX_PACKET_SACKED)
			set_lost(out, seq, meta);
	}
	for (i = 0; i < ack->n_ranges; i++) {
		uint32_t start = ack->ranges[i].start;
		uint32_t end = ack->ranges[i].end;
		uint32_t j;

		/* Ranges are repeated from one ACK to the next and mostly grow at their ends. */
		for (j = 0; j < out->n_ranges; j++) {
			if (start >= out->ranges[j].start && start < out->ranges[j].end)
				start = end < out->ranges[j].end ? end : out->ranges[j].end;
		}
		if (start < out->base)
			start = out->base;
		for (seq = start; seq < end && seq < out->next; seq++) {
			if (is_known(out, seq))
				seq += APH_RX_CHUNK_SLOTS - 1;
			else
				sack(call, seq, progress);
		}
	}
	out->n_ranges = ack->n_ranges;
	for (i = 0; i < ack->n_ranges; i++)
		out->ranges[i] = ack->ranges[i];
}

/*
 * Looks for a PING, or one of the last packets that asked. On a long path many more of those are on
 * their way than are kept here: of them the packets themselves tell, as they are acknowledged.
 * False: not found.
 */
static bool sample_rtt(struct aph_rx_call *call, const struct aph_rx_ack *ack)
{
	struct aph_rx_out *out = &call->out;
	uint64_t now = call->rx->now_ns;
	unsigned i;

	for (i = 0; i < APH_RX_N_TIMINGS && i < out->n_timings; i++) {
		struct aph_rx_timing *timing = &out->timings[i];

		if (timing->serial != ack->serial)
			continue;
		aph_rx_peer_round_trip(call->peer, now - timing->sent_ns);
		/* Who knows the serial has got the packet. */
		if (timing->proves)
			aph_rx_peer_prove(call->peer);
		timing->serial = 0;
		return true;
	}
	return false;
}

bool aph_rx_recover_is_plausible(const struct aph_rx_call *call, const struct aph_rx_ack *ack)
{
	const struct aph_rx_out *out = &call->out;
	uint32_t i;

	if (ack->first > out->next || ack->n_acks > out->next - ack->first)
		return false;
	for (i = 0; i < ack->n_ranges; i++) {
		if (ack->ranges[i].start >= ack->ranges[i].end || ack->ranges[i].end > out->next ||
		    ack->ranges[i].start < ack->first)
			return false;
	}
	return true;
}

bool aph_rx_recover_is_of_another_life(const struct aph_rx_call *call, const struct aph_rx_ack *ack)
{
	uint32_t n_sent = call->out.next - 1;
	uint32_t acked = ack->first - 1;
	unsigned i;

	for (i = 0; i < ack->n_acks; i++) {
		if (ack->acks[i] & 1)
			acked = ack->first + i;
	}
	for (i = 0; i < ack->n_ranges; i++)
		acked = ack->ranges[i].end - 1;
	return !call->is_client && acked > n_sent;
}

static bool is_stale(struct aph_rx_out *out, const struct aph_rx_ack *ack)
{
	if (ack->first < out->base)
		return true;
	/* A weak test: some peers put something else there, see docs/spec/rx.md. */
	if (ack->first == out->base && ack->previous < out->previous && out->previous < out->next)
		return true;
	out->previous = ack->previous;
	return false;
}

/*
 * An answer to a packet that left after `base` had moved, and it acknowledges less: whoever answers
 * has begun the call anew and will never see what we have let go of.
 */
static bool is_forgotten(const struct aph_rx_call *call, const struct aph_rx_ack *ack)
{
	const struct aph_rx_out *out = &call->out;

	/* A reply has acknowledged the request, read or not. */
	if (call->is_client && call->state != APH_RX_STATE_REQUEST)
		return false;
	return ack->first < out->base && ack->serial && ack->reason <= APH_RX_ACK_PING_RESPONSE &&
	       (int32_t)(ack->serial - out->base_serial) > 0 &&
	       (int32_t)(call->conn->serial - ack->serial) >= 0;
}

static void take_hard(struct aph_rx_call *call, uint32_t first, struct progress *progress)
{
	struct aph_rx_out *out = &call->out;
	uint32_t old_base = out->base;
	uint32_t seq;

	for (seq = old_base; seq < first; seq++) {
		struct aph_rx_meta *meta = aph_rx_out_meta(out, seq);

		if (meta->state == APH_RX_PACKET_SACKED)
			drop_sacked(out, seq);
		else
			note_arrival(call, seq, meta, progress);
	}
	if (first == old_base)
		return;
	out->base = first;
	out->base_serial = call->conn->serial;
	aph_rx_out_trim(call, old_base);
}

static void after_progress(struct aph_rx_call *call, const struct progress *progress)
{
	struct aph_rx_out *out = &call->out;
	uint32_t in_flight = out->n_flying + progress->n_acked;

	call->received = true;
	call->data_ns = call->rx->now_ns;
	out->n_backoffs = 0;
	out->probed = false;
	aph_rx_congest_on_ack(&out->congest, progress->n_acked, progress->highest, out->next,
			      in_flight, &call->peer->rtt, call->rx->now_ns);
	aph_rx_pmtu_arrived(&call->peer->pmtu, progress->datagram);
}

/*
 * Nothing was under way and the peer was asked, now and then, whether it takes more. It does, or
 * has read: what leaves now is not late yet. Whether all of a body has been read is asked a few
 * times only.
 */
static void end_asking(struct aph_rx_out *out)
{
	if (!out->n_flying && !(out->finished && out->next == out->end))
		out->n_backoffs = 0;
}

void aph_rx_recover_ack(struct aph_rx_call *call, const struct aph_rx_ack *ack)
{
	struct aph_rx_out *out = &call->out;
	struct progress progress = { 0 };
	uint32_t window, base = out->base, window_end = out->window_end;

	if (is_forgotten(call, ack)) {
		aph_rx_call_reset(call);
		return;
	}
	if (ack->serial && ack->reason <= APH_RX_ACK_PING_RESPONSE && !sample_rtt(call, ack))
		progress.serial = ack->serial;
	if (is_stale(out, ack))
		return;
	window = ack->extended ? ack->window : ack->n_words >= 3 ? ack->rwind : APH_RX_WINDOW_START;
	out->window_end = ack->first + (window < APH_RX_WINDOW_MAX ? window : APH_RX_WINDOW_MAX);
	if (ack->first > base || (int32_t)(out->window_end - window_end) > 0)
		end_asking(out);
	take_hard(call, ack->first, &progress);
	take_soft(call, ack, &progress);
	if (ack->reason == APH_RX_ACK_DUPLICATE && out->reorder_mult < 16)
		out->reorder_mult++;
	if (progress.sent_ns)
		aph_rx_peer_round_trip(call->peer, call->rx->now_ns - progress.sent_ns);
	if (progress.n_acked)
		after_progress(call, &progress);
	if (out->finished && out->base == out->end) {
		aph_rx_recover_all_acked(call);
		return;
	}
	/* As long as nothing has arrived nothing was overtaken. */
	if (out->flying_head && out->acked_serial)
		detect_losses(call);
	if (out->n_lost || out->end > out->next)
		aph_rx_call_wants_to_send(call);
	if (progress.n_acked || out->timeout_ns == UINT64_MAX)
		aph_rx_recover_arm(call);
	aph_rx_out_offer_room(call);
}

void aph_rx_recover_all_acked(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	uint32_t old_base = out->base;

	call->received = true;
	for (uint32_t seq = old_base; call->peer->pmtu.n_black && seq < out->next; seq++)
		aph_rx_pmtu_arrived(&call->peer->pmtu, aph_rx_out_meta(out, seq)->datagram);
	out->base = out->next = out->end;
	out->n_flying = out->n_lost = out->n_sacked = 0;
	out->flying_head = out->flying_tail = out->lost_head = 0;
	out->timeout_ns = out->reorder_ns = out->pace_wait_ns = UINT64_MAX;
	out->n_backoffs = 0;
	aph_rx_out_trim(call, old_base);
	if (!call->is_client)
		aph_rx_call_end(call, APH_RX_DONE, 0);
}

void aph_rx_recover_busy(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	struct aph_rx *rx = call->rx;
	uint64_t wait;
	uint32_t chance;

	out->n_backoffs =
		(uint8_t)(call->n_busy < BUSY_BACKOFFS_MAX ? call->n_busy : BUSY_BACKOFFS_MAX);
	wait = aph_rx_rtt_rto_ns(&call->peer->rtt, out->n_backoffs);
	if (wait > call->dead_ns / 4)
		wait = call->dead_ns / 4;
	/* Those who were refused together must not come back together. */
	rx->config.random(rx->config.random_arg, &chance, sizeof(chance));
	out->timeout_ns = rx->now_ns + wait / 2 + wait / 2 * (chance >> 16) / 65536;
	aph_rx_call_arm(call, out->timeout_ns);
}

/* -- when nothing comes ------------------------------------------------------------------------ */

/* The last packet again, and a request to say what has arrived: most often that mends it. */
static void probe_tail(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	uint32_t seq = out->flying_tail;

	out->probed = true;
	set_lost(out, seq, aph_rx_out_meta(out, seq));
}

static void give_up_all(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	uint32_t in_flight = out->n_flying;
	uint16_t datagram = 0;
	uint32_t seq;

	while ((seq = out->flying_head)) {
		struct aph_rx_meta *meta = aph_rx_out_meta(out, seq);

		if (meta->datagram > datagram)
			datagram = meta->datagram;
		set_lost(out, seq, meta);
	}
	aph_rx_trace_call(call, APH_RX_TRACE_LOST, out->base, "time-out");
	if (out->n_backoffs < BACKOFFS_MAX)
		out->n_backoffs++;
	out->probed = false;
	aph_rx_congest_on_timeout(&out->congest, out->next, in_flight);
	note_lost_size(call, datagram);
}

void aph_rx_recover_repeat(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	uint32_t seq;

	while ((seq = out->flying_head))
		set_lost(out, seq, aph_rx_out_meta(out, seq));
	aph_rx_call_wants_to_send(call);
}

/* False: the call has ended with it, and may be gone. */
static bool ask(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;

	if (out->n_backoffs < BACKOFFS_MAX)
		out->n_backoffs++;
	/* All of a reply has arrived, and the client has nothing more to say about it. */
	if (!call->is_client && out->finished && out->n_sacked && out->next == out->end &&
	    !out->n_lost && out->n_backoffs > RECEIPT_TRIES) {
		aph_rx_recover_all_acked(call);
		return false;
	}
	call->ping_due = true;
	return true;
}

bool aph_rx_recover_expired(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	uint64_t now = call->rx->now_ns;

	if (now >= out->pace_wait_ns) {
		out->pace_wait_ns = UINT64_MAX;
		aph_rx_call_wants_to_send(call);
	}
	if (now >= out->reorder_ns)
		detect_losses(call);
	if (now < out->timeout_ns)
		return true;
	if (!out->n_flying) {
		if (!ask(call))
			return false;
	} else if (!out->probed && !out->n_backoffs && call->peer->rtt.n_samples) {
		probe_tail(call);
	} else {
		give_up_all(call);
	}
	aph_rx_recover_arm(call);
	aph_rx_call_wants_to_send(call);
	return true;
}
