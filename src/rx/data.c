/* SPDX-License-Identifier: MIT */
/*
 * DATA packets out: how many may leave, and in which messages. They leave from where they were
 * written, in runs that the kernel cuts or as jumbograms; only small ones are copied.
 */
#include "rx/call.h"
#include "rx/draft.h"

#include <string.h>

#define STAGED_MAX 256	       /* larger packets leave from where they are */
#define BURST_NS   (APH_RX_MS) /* packets of so long leave together where sending is paced */
#define FEW_TAKEN  32	       /* a window of no more packets is a small one */

/* How many new packets may leave now. */
static uint32_t n_allowed(struct aph_rx_call *call, bool *limited)
{
	const struct aph_rx_out *out = &call->out;
	uint32_t n = out->end - out->next;
	uint32_t cwnd = out->congest.cwnd;

	*limited = false;
	if ((int32_t)(out->window_end - out->next) <= 0)
		return 0;
	if (n > out->window_end - out->next)
		n = out->window_end - out->next;
	if (n && out->n_flying >= cwnd) {
		*limited = true;
		return 0;
	}
	if (n > cwnd - out->n_flying) {
		n = cwnd - out->n_flying;
		*limited = true;
	}
	return n;
}

/* How many packets may leave by the clock; 0: the timer is set. */
static uint32_t n_paced(struct aph_rx_call *call, uint32_t n)
{
	struct aph_rx_out *out = &call->out;
	uint64_t now = call->rx->now_ns;
	uint64_t interval = aph_rx_congest_interval_ns(&out->congest, &call->peer->rtt);
	uint64_t burst, due;

	if (!interval || !out->n_flying) {
		out->pace_ns = now;
		return n;
	}
	burst = BURST_NS / interval;
	if (burst < 2)
		burst = 2;
	if (burst > APH_RX_RUN_MAX)
		burst = APH_RX_RUN_MAX;
	if (out->pace_ns + burst * interval < now)
		out->pace_ns = now - burst * interval;
	due = out->pace_ns < now ? (now - out->pace_ns) / interval : 0;
	/* Rather a burst a little later than single packets. */
	if (due < burst && due < n) {
		out->pace_wait_ns = out->pace_ns + (n < burst ? n : burst) * interval;
		aph_rx_call_arm(call, out->pace_wait_ns);
		return 0;
	}
	return due < n ? (uint32_t)due : n;
}

static bool wants_ack(const struct aph_rx_call *call, const struct aph_rx_meta *meta, uint32_t seq,
		      bool run_end, bool limited)
{
	const struct aph_rx_out *out = &call->out;

	if (meta->n_sent)
		return true;
	/*
	 * A client that is asked for one at the end of a reply may leave it at that and send no
	 * receipt.
	 */
	if (meta->last && !call->is_client)
		return false;
	if (seq + 1 == out->window_end)
		return true;
	if (!call->peer->rtt.n_samples || call->peer->rtt.is_bound)
		return run_end;
	/* The reply acknowledges the end of a request. */
	if (meta->last && !limited)
		return false;
	/*
	 * OpenAFS's windows are so small, and to put off an acknowledgement costs it more than to
	 * send one.
	 */
	return run_end || call->peer->rwind <= FEW_TAKEN;
}

/*
 * Whether packet `seq` may leave in fragments. What was cut for a path that has become narrower
 * since has to. And when packets are lost again and again it may be that routers drop what they
 * could fragment, and do not say so: every second try is in their hands. Not each, as there are
 * others that drop fragments.
 */
static bool may_fragment(struct aph_rx_call *call, uint32_t seq)
{
	struct aph_rx_out *out = &call->out;
	const struct aph_rx_meta *meta = aph_rx_out_meta(out, seq);
	size_t len = (size_t)APH_RX_HEADER + meta->len;

	if (len > call->peer->pmtu.current)
		return true;
	if (meta->n_sent < 2)
		return meta->n_sent && out->n_backoffs && len > APH_RX_MTU_FLOOR;
	return meta->n_sent % 2 == 0 && len > APH_RX_MTU_FLOOR;
}

static void write_header(struct aph_rx_call *call, uint8_t *packet, const struct aph_rx_meta *meta,
			 uint32_t seq, uint32_t serial, uint8_t flags)
{
	struct aph_rx_conn *conn = call->conn;

	/* Straight into the packet: this is done for each. */
	aph_put32(packet, conn->epoch);
	aph_put32(packet + 4, call->cid);
	aph_put32(packet + 8, call->number);
	aph_put32(packet + 12, seq);
	aph_put32(packet + 16, serial);
	packet[20] = APH_RX_DATA;
	packet[21] = flags;
	packet[22] = conn->probing && seq == 1 ? APH_RX_USER_STATUS_UPGRADE : 0;
	packet[23] = conn->class->index;
	aph_put16(packet + 24, meta->cksum);
	aph_put16(packet + 26, conn->service);
}

static void secure(struct aph_rx_call *call, uint32_t seq, struct aph_rx_meta *meta,
		   uint8_t *packet)
{
	struct aph_rx_conn *conn = call->conn;
	struct aph_rx_header header;
	size_t len = meta->len;

	if (meta->n_sent || !conn->class->secure)
		return;
	header = (struct aph_rx_header){ .epoch = conn->epoch,
					 .cid = call->cid,
					 .call_number = call->number,
					 .seq = seq,
					 .type = APH_RX_DATA,
					 .security = conn->class->index,
					 .service = conn->service };
	conn->class->secure(conn, &header, packet, &len);
	meta->len = (uint16_t)len;
	meta->cksum = header.cksum;
}

/* Of the packet as it will leave. */
static size_t size_of(struct aph_rx_call *call, uint32_t seq)
{
	const struct aph_rx_meta *meta = aph_rx_out_meta(&call->out, seq);

	return APH_RX_HEADER +
	       (meta->n_sent ? meta->len : aph_rx_layout_size(&call->out.layout, meta->len));
}

/* Prepares packet `seq` for the network; returns its bytes. */
static uint8_t *prepare(struct aph_rx_call *call, uint32_t seq, bool run_end, bool limited,
			size_t *len)
{
	struct aph_rx *rx = call->rx;
	struct aph_rx_out *out = &call->out;
	struct aph_rx_meta *meta = aph_rx_out_meta(out, seq);
	uint8_t *packet = aph_rx_out_packet(out, seq);
	uint32_t serial = aph_rx_conn_serial(call->conn);
	bool ask = wants_ack(call, meta, seq, run_end, limited);
	uint8_t flags = call->is_client ? APH_RX_CLIENT_INITIATED : 0;

	if (meta->last)
		flags |= APH_RX_LAST_PACKET;
	if (ask)
		flags |= APH_RX_REQUEST_ACK;
	if (!run_end)
		flags |= APH_RX_MORE_PACKETS;
	secure(call, seq, meta, packet);
	write_header(call, packet, meta, seq, serial, flags);
	if (meta->n_sent) {
		call->n_resent++;
		rx->stats.data_resent++;
		call->peer->n_resent++;
	} else {
		call->peer->n_sent++;
	}
	if (call->n_sent++ == 0 && call->is_client)
		aph_rx_conn_begins(call->conn, call->channel);
	rx->stats.packets_sent[APH_RX_DATA]++;
	rx->stats.bytes_sent += meta->len;
	call->peer->body_sent += meta->len;
	aph_rx_recover_sent(call, seq, meta, serial, ask);
	*len = (size_t)APH_RX_HEADER + meta->len;
	return packet;
}

/* One packet that is small, through the staging area. */
static bool send_small(struct aph_rx_call *call, uint32_t seq, bool limited)
{
	struct aph_rx *rx = call->rx;
	size_t len = size_of(call, seq);
	uint8_t *place;
	uint8_t *packet;

	if (!aph_rx_draft_has_room(rx, len))
		return false;
	packet = prepare(call, seq, true, limited, &len);
	place = aph_rx_draft_stage(rx, call->peer, len, false);
	memcpy(place, packet, len);
	return true;
}

/* Packets `seq` and on, `n` of them, all of one size but the last, as one message. */
static bool send_run(struct aph_rx_call *call, uint32_t seq, uint32_t n, bool limited)
{
	struct aph_rx *rx = call->rx;
	struct aph_rx_draft *draft;
	uint8_t *end = NULL;
	uint32_t i;

	if (aph_rx_drafts_full(rx))
		return false;
	draft = aph_rx_draft_new(rx, call->peer);
	draft->fragment = may_fragment(call, seq);
	for (i = 0; i < n; i++) {
		size_t len;
		uint8_t *packet = prepare(call, seq + i, i + 1 == n, limited, &len);

		aph_rx_out_meta(&call->out, seq + i)->datagram = draft->fragment ? 0
										 : (uint16_t)len;
		if (packet == end) {
			rx->iovs[rx->n_iovs - 1].iov_len += len;
			draft->len += len;
		} else {
			aph_rx_draft_add(rx, draft, packet, len);
		}
		end = packet + len;
		if (i == 0)
			draft->segment = len;
	}
	aph_rx_draft_charge(call->peer, draft->len);
	return true;
}

/* The same as one datagram, for kernels that cannot cut runs and peers that take jumbograms. */
static bool send_jumbo(struct aph_rx_call *call, uint32_t seq, uint32_t n, bool limited)
{
	struct aph_rx *rx = call->rx;
	struct aph_rx_draft *draft;
	uint8_t *flags = NULL;
	uint32_t i;

	if (aph_rx_drafts_full(rx))
		return false;
	draft = aph_rx_draft_new(rx, call->peer);
	for (i = 0; i < n; i++) {
		size_t len;
		uint8_t *packet = prepare(call, seq + i, i + 1 == n, limited, &len);

		if (i == 0) {
			aph_rx_draft_add(rx, draft, packet, len);
			flags = packet + 21;
			continue;
		}
		/* The short header fits into the end of the room for the long one. */
		*flags |= APH_RX_JUMBO_PACKET;
		packet += APH_RX_HEADER - APH_RX_JUMBO_HEADER;
		packet[0] = packet[-3];
		packet[1] = 0;
		aph_put16(packet + 2, aph_rx_out_meta(&call->out, seq + i)->cksum);
		aph_rx_draft_add(rx, draft, packet, len - APH_RX_HEADER + APH_RX_JUMBO_HEADER);
		flags = packet;
	}
	draft->segment = draft->len;
	for (i = 0; i < n; i++)
		aph_rx_out_meta(&call->out, seq + i)->datagram = (uint16_t)draft->len;
	aph_rx_draft_charge(call->peer, draft->len);
	return true;
}

/* How many packets from `seq` on, at most `n`, make one message. */
static uint32_t run_length(struct aph_rx_out *out, uint32_t seq, uint32_t n)
{
	uint16_t len = aph_rx_out_meta(out, seq)->len;
	uint32_t i;

	if (n > APH_RX_RUN_MAX)
		n = APH_RX_RUN_MAX;
	for (i = 1; i < n; i++) {
		uint16_t next = aph_rx_out_meta(out, seq + i)->len;

		if (next < len)
			return i + 1;
		if (next > len)
			return i;
	}
	return n;
}

static uint32_t jumbo_length(struct aph_rx_call *call, uint32_t seq, uint32_t n)
{
	const struct aph_rx_peer *peer = call->peer;
	const struct aph_rx_meta *meta = aph_rx_out_meta(&call->out, seq);
	uint32_t fit;

	if (call->rx->config.flags & (APH_RX_SEGMENTS | APH_RX_NO_JUMBO) || peer->max_jumbo <= 1 ||
	    meta->n_sent || meta->len != APH_RX_JUMBO_PAYLOAD || peer->pmtu.current < APH_RX_SLOT)
		return 1;
	fit = 1 + (peer->pmtu.current - (uint32_t)APH_RX_SLOT) /
			  (APH_RX_JUMBO_PAYLOAD + APH_RX_JUMBO_HEADER);
	if (fit > peer->max_jumbo)
		fit = peer->max_jumbo;
	return n < fit ? n : fit;
}

/* All packets below `end` have left now. */
static void advance(struct aph_rx_out *out, uint32_t end)
{
	if (end > out->next)
		out->next = end;
}

/* False: there is no more room; some may have left. */
static bool send_packets(struct aph_rx_call *call, uint32_t seq, uint32_t n, bool limited)
{
	struct aph_rx_out *out = &call->out;
	uint32_t jumbo, part;

	if (n == 1 && size_of(call, seq) <= STAGED_MAX) {
		if (!send_small(call, seq, limited))
			return false;
		advance(out, seq + 1);
		return true;
	}
	jumbo = jumbo_length(call, seq, n);
	for (; n; seq += part, n -= part) {
		part = jumbo > 1 && jumbo < n ? jumbo : n;
		if (!(jumbo > 1 && part > 1 ? send_jumbo(call, seq, part, limited)
					    : send_run(call, seq, part, limited)))
			return false;
		advance(out, seq + part);
	}
	return true;
}

/* An address that is not proven gets a question instead of more than it has sent. */
static bool may_send(struct aph_rx_call *call, uint32_t seq, uint32_t n)
{
	struct aph_rx_out *out = &call->out;
	size_t len = 0;
	uint32_t i;

	if (call->peer->proven)
		return true;
	for (i = 0; i < n; i++)
		len += size_of(call, seq + i);
	if (aph_rx_peer_may_send(call->peer, len))
		return true;
	aph_rx_call_ask_for_proof(call);
	if (out->timeout_ns == UINT64_MAX)
		aph_rx_recover_arm(call);
	return false;
}

/* How many of `n` packets may leave as far as their address is concerned: all, one, or 0. */
static uint32_t n_earned(struct aph_rx_call *call, uint32_t seq, uint32_t n)
{
	if (may_send(call, seq, n))
		return n;
	return n > 1 && may_send(call, seq, 1) ? 1 : 0;
}

static bool send_lost(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	bool sent = false;

	while (out->n_lost && (out->n_flying < out->congest.cwnd || !out->n_flying)) {
		uint32_t seq = out->lost_head;
		uint32_t n = 1;
		uint32_t max = out->congest.cwnd > out->n_flying ? out->congest.cwnd - out->n_flying
								 : 1;

		/* The window may have become smaller since it was sent. */
		if ((int32_t)(seq - out->window_end) >= 0 && seq != out->base)
			break;
		max = n_paced(call, max < out->n_lost ? max : out->n_lost);
		if (!max)
			break;
		/* Losses come in runs, and are mended in runs. */
		while (n < max && n < APH_RX_RUN_MAX && seq + n < out->next &&
		       (int32_t)(seq + n - out->window_end) < 0 &&
		       aph_rx_out_meta(out, seq + n)->state == APH_RX_PACKET_LOST &&
		       may_fragment(call, seq + n) == may_fragment(call, seq))
			n++;
		n = n_earned(call, seq, run_length(out, seq, n));
		if (!n)
			break;
		if (!send_packets(call, seq, n, false))
			return false;
		out->pace_ns += n * aph_rx_congest_interval_ns(&out->congest, &call->peer->rtt);
		sent = true;
	}
	if (sent)
		aph_rx_recover_arm(call);
	return true;
}

/*
 * New packets have left. The silence that counts begins with the first: before it the server knows
 * of nothing.
 */
static void note_sent(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;

	if (call->is_client && !out->last_sent_ns)
		call->heard_ns = call->rx->now_ns;
	out->last_sent_ns = call->rx->now_ns;
	aph_rx_recover_arm(call);
}

/* A window that nothing has used for longer than a time-out is known to fit no more. */
static void note_idle(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	uint64_t now = call->rx->now_ns;

	if (out->n_flying || !out->pace_ns ||
	    now < out->pace_ns + aph_rx_rtt_rto_ns(&call->peer->rtt, 0))
		return;
	aph_rx_congest_on_idle(&out->congest);
	out->pace_ns = now;
}

static bool send_new(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	uint32_t first = out->next;
	bool limited, room = true;

	if (out->end > out->next)
		note_idle(call);
	while (out->end > out->next) {
		uint32_t n = n_allowed(call, &limited);

		if (n)
			n = n_paced(call, n);
		if (!n)
			break;
		n = n_earned(call, out->next, run_length(out, out->next, n));
		if (!n)
			break;
		room = send_packets(call, out->next, n, limited);
		if (!room)
			break;
		out->pace_ns += n * aph_rx_congest_interval_ns(&out->congest, &call->peer->rtt);
		aph_rx_congest_on_sent(&out->congest, limited);
	}
	if (out->next != first)
		note_sent(call);
	else if (out->end > out->next && out->timeout_ns == UINT64_MAX)
		aph_rx_recover_arm(call); /* a closed window is asked about */
	aph_rx_out_offer_room(call);
	return room;
}

/* The one packet of a short body, for the first time. */
static bool send_only(struct aph_rx_call *call)
{
	if (!may_send(call, 1, 1))
		return true;
	if (!send_small(call, 1, false))
		return false;
	call->out.next = 2;
	note_sent(call);
	return true;
}

bool aph_rx_data_send(struct aph_rx_call *call)
{
	const struct aph_rx_out *out = &call->out;

	if (out->inlined && out->next == 1 && out->window_end > 1)
		return send_only(call);
	return send_lost(call) && send_new(call);
}
