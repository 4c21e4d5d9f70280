/* SPDX-License-Identifier: MIT */
/*
 * Datagrams out. Small packets are gathered in the staging area, where neighbours to the same peer and of the same
 * size become one message; runs of full packets leave from where they were written. Nothing is copied twice, and a
 * message is at most what one system call can take.
 */
#include "rx/engine.h"

#include <string.h>

#define STAGED_MAX     256	   /* larger packets leave from where they are */
#define BURST_NS       (APH_RX_MS) /* packets of so long leave together where sending is paced */
#define IOVECS_PER_RUN (2 * APH_RX_RUN_MAX + 2)

/* -- drafts ------------------------------------------------------------------------------------------------------------ */

static struct aph_rx_draft *new_draft(struct aph_rx *rx, struct aph_rx_peer *peer)
{
	struct aph_rx_draft *draft = &rx->drafts[rx->n_drafts++];

	*draft = (struct aph_rx_draft){ .peer = peer, .first_iov = rx->n_iovs };
	return draft;
}

static void add_iov(struct aph_rx *rx, struct aph_rx_draft *draft, uint8_t *base, size_t len)
{
	rx->iovs[rx->n_iovs++] = (struct iovec){ .iov_base = base, .iov_len = len };
	draft->n_iov++;
	draft->len += len;
}

/* What an address that is not proven has got counts against what came from it. */
static void charge(struct aph_rx_peer *peer, size_t len)
{
	if (!peer->proven)
		peer->bytes_out += (uint32_t)len;
}

static bool is_full(const struct aph_rx *rx)
{
	return rx->n_drafts == rx->drafts_max || rx->n_iovs + IOVECS_PER_RUN > APH_RX_N_IOVECS;
}

/*
 * Room for a packet of `len` bytes to `peer` in the staging area, as the next segment of the last message if that
 * fits. NULL: send what is there first.
 */
static uint8_t *stage(struct aph_rx *rx, struct aph_rx_peer *peer, size_t len, bool alone)
{
	struct aph_rx_draft *draft = rx->n_drafts ? &rx->drafts[rx->n_drafts - 1] : NULL;
	uint8_t *place = rx->staging + rx->staged;

	if (rx->staged + len > sizeof(rx->staging))
		return NULL;
	if (draft && draft->staged && !draft->closed && draft->peer == peer && !alone &&
	    len <= draft->segment && draft->n_segments < APH_RX_RUN_SEGMENTS) {
		rx->iovs[rx->n_iovs - 1].iov_len += len;
		draft->len += len;
		draft->closed = len < draft->segment;
	} else {
		if (is_full(rx))
			return NULL;
		draft = new_draft(rx, peer);
		draft->staged = true;
		draft->closed = alone;
		draft->segment = len;
		add_iov(rx, draft, place, len);
	}
	draft->n_segments++;
	rx->staged += len;
	charge(peer, len);
	return place;
}

/* -- acknowledgements ------------------------------------------------------------------------------------------------------ */

static struct aph_rx_header ack_header(const struct aph_rx_conn *conn, uint32_t cid,
				       uint32_t number, uint8_t reason)
{
	uint8_t flags = APH_RX_SLOW_START_OK;

	if (conn->is_client)
		flags |= APH_RX_CLIENT_INITIATED;
	if (reason == APH_RX_ACK_PING)
		flags |= APH_RX_REQUEST_ACK;
	return (struct aph_rx_header){
		.epoch = conn->epoch,
		.cid = cid,
		.call_number = number,
		.type = APH_RX_ACK,
		.flags = flags,
		.security = conn->class->index,
		.service = conn->service,
	};
}

static bool send_ack(struct aph_rx_call *call, enum aph_rx_ack_reason reason, uint32_t serial)
{
	struct aph_rx *rx = call->rx;
	struct aph_rx_conn *conn = call->conn;
	struct aph_rx_header header = ack_header(conn, call->cid, call->number, (uint8_t)reason);
	uint8_t body[APH_RX_ACK_BODY_MAX];
	uint8_t *place;
	size_t len;

	if (is_full(rx) || rx->staged + APH_RX_HEADER + sizeof(body) > sizeof(rx->staging))
		return false;
	len = aph_rx_ack_build(call, body, reason, serial);
	place = stage(rx, call->peer, APH_RX_HEADER + len, false);
	if (reason == APH_RX_ACK_PING && !call->peer->proven)
		aph_rx_conn_skip_serials(conn);
	header.serial = aph_rx_conn_serial(conn);
	if (reason == APH_RX_ACK_PING) {
		rx->tally.n_pings++;
		aph_rx_recover_note_ping(call, header.serial);
	}
	aph_rx_header_encode(place, &header);
	memcpy(place + APH_RX_HEADER, body, len);
	rx->stats.packets_sent[APH_RX_ACK]++;
	return true;
}

/* At least as long as the ACK that would be sent now. */
static size_t ack_size(const struct aph_rx_call *call)
{
	const struct aph_rx_in *in = &call->in;
	uint32_t n = in->highest >= in->base ? in->highest - in->base + 1 : 0;

	return n < 256 ? APH_RX_HEADER + APH_RX_ACK_BODY_MIN + n
		       : APH_RX_HEADER + APH_RX_ACK_BODY_MAX;
}

static bool send_pending_ack(struct aph_rx_call *call)
{
	struct aph_rx_in *in = &call->in;

	if (!in->ack_now || !in->ack_reason)
		return true;
	/* Small packets could draw large acknowledgements to somebody else: those are as good as lost. */
	if (!call->peer->proven && !aph_rx_peer_may_send(call->peer, ack_size(call)))
		call->rx->stats.rate_limited++;
	else if (!send_ack(call, in->ack_reason, in->ack_serial))
		return false;
	in->ack_reason = 0;
	in->ack_now = false;
	in->ack_ns = UINT64_MAX;
	return true;
}

static bool send_ping(struct aph_rx_call *call)
{
	if (!call->ping_due)
		return true;
	if (!call->peer->proven && !aph_rx_peer_may_ask(call->peer, ack_size(call)))
		call->rx->stats.rate_limited++;
	else if (!send_ack(call, APH_RX_ACK_PING, 0))
		return false;
	call->ping_due = false;
	call->out.last_sent_ns = call->rx->now_ns;
	return true;
}

/* Who answers a PING is where it says it is. */
static void ask_for_proof(struct aph_rx_call *call)
{
	uint64_t now = call->rx->now_ns;

	if (now < call->proof_ns)
		return;
	call->ping_due = true;
	call->proof_ns = now + aph_rx_rtt_rto_ns(&call->peer->rtt, 0);
}

/* A PING with zeros behind, as large as the probe says. */
static bool send_size_probe(struct aph_rx_call *call)
{
	struct aph_rx *rx = call->rx;
	struct aph_rx_peer *peer = call->peer;
	struct aph_rx_header header;
	uint16_t size;
	uint8_t *place;
	size_t len;

	if (rx->config.flags & APH_RX_NO_PMTU_PROBES || !call->received)
		return true;
	/* A client that has all of its reply may have forgotten the call when the question comes. */
	if (!call->is_client && call->state == APH_RX_STATE_REPLY &&
	    call->out.end == call->out.next)
		return true;
	/* More than one packet in a datagram is only of use where the kernel does not cut runs itself. */
	if (peer->pmtu.current >= APH_RX_SLOT &&
	    (rx->config.flags & (APH_RX_SEGMENTS | APH_RX_NO_JUMBO) || peer->max_jumbo <= 1))
		return true;
	if (!peer->proven) {
		if (call->out.end > call->out.next)
			ask_for_proof(call);
		return true;
	}
	if (peer->pmtu.probing) {
		if (rx->now_ns < peer->probe_ns)
			return true;
		aph_rx_pmtu_probe_lost(&peer->pmtu, rx->now_ns);
	}
	if (is_full(rx) || rx->staged + APH_RX_MTU_MAX > sizeof(rx->staging))
		return true;
	size = aph_rx_pmtu_probe(&peer->pmtu, rx->now_ns);
	if (!size)
		return true;
	place = stage(rx, peer, size, true);
	rx->drafts[rx->n_drafts - 1].probe = true;
	memset(place, 0, size);
	header = ack_header(call->conn, call->cid, call->number, APH_RX_ACK_PING);
	header.serial = aph_rx_conn_serial(call->conn);
	len = aph_rx_ack_build(call, place + APH_RX_HEADER, APH_RX_ACK_PING, 0);
	(void)len;
	aph_rx_header_encode(place, &header);
	peer->probe_cid = call->conn->cid | call->conn->is_client;
	peer->probe_serial = header.serial;
	rx->tally.n_pings++;
	peer->probe_ns = rx->now_ns + aph_rx_rtt_rto_ns(&peer->rtt, 0);
	rx->stats.packets_sent[APH_RX_ACK]++;
	return true;
}

/* -- DATA -------------------------------------------------------------------------------------------------------------------- */

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
	/* A client that is asked for one at the end of a reply may leave it at that and send no receipt. */
	if (meta->last && !call->is_client)
		return false;
	if (seq + 1 == out->window_end)
		return true;
	if (!call->peer->rtt.n_samples)
		return run_end;
	/* The reply acknowledges the end of a request. */
	return run_end && (!meta->last || limited);
}

/*
 * Whether packet `seq` may leave in fragments. What was cut for a path that has become narrower since has to. And
 * when packets are lost again and again it may be that routers drop what they could fragment, and do not say so: every
 * second try is in their hands. Not each, as there are others that drop fragments.
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
	call->n_sent++;
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

	if (rx->staged + len > sizeof(rx->staging) || is_full(rx))
		return false;
	packet = prepare(call, seq, true, limited, &len);
	place = stage(rx, call->peer, len, false);
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

	if (is_full(rx))
		return false;
	draft = new_draft(rx, call->peer);
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
			add_iov(rx, draft, packet, len);
		}
		end = packet + len;
		if (i == 0)
			draft->segment = len;
	}
	charge(call->peer, draft->len);
	return true;
}

/* The same as one datagram, for kernels that cannot cut runs and peers that take jumbograms. */
static bool send_jumbo(struct aph_rx_call *call, uint32_t seq, uint32_t n, bool limited)
{
	struct aph_rx *rx = call->rx;
	struct aph_rx_draft *draft;
	uint8_t *flags = NULL;
	uint32_t i;

	if (is_full(rx))
		return false;
	draft = new_draft(rx, call->peer);
	for (i = 0; i < n; i++) {
		size_t len;
		uint8_t *packet = prepare(call, seq + i, i + 1 == n, limited, &len);

		if (i == 0) {
			add_iov(rx, draft, packet, len);
			flags = packet + 21;
			continue;
		}
		/* The short header fits into the end of the room for the long one. */
		*flags |= APH_RX_JUMBO_PACKET;
		packet += APH_RX_HEADER - APH_RX_JUMBO_HEADER;
		packet[0] = packet[-3];
		packet[1] = 0;
		aph_put16(packet + 2, aph_rx_out_meta(&call->out, seq + i)->cksum);
		add_iov(rx, draft, packet, len - APH_RX_HEADER + APH_RX_JUMBO_HEADER);
		flags = packet;
	}
	draft->segment = draft->len;
	for (i = 0; i < n; i++)
		aph_rx_out_meta(&call->out, seq + i)->datagram = (uint16_t)draft->len;
	charge(call->peer, draft->len);
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

static bool send_packets(struct aph_rx_call *call, uint32_t seq, uint32_t n, bool limited)
{
	struct aph_rx_out *out = &call->out;
	uint32_t jumbo;

	if (n == 1 && size_of(call, seq) <= STAGED_MAX)
		return send_small(call, seq, limited);
	jumbo = jumbo_length(call, seq, n);
	if (jumbo <= 1)
		return send_run(call, seq, n, limited);
	while (n) {
		uint32_t part = n < jumbo ? n : jumbo;

		if (!(part > 1 ? send_jumbo(call, seq, part, limited)
			       : send_run(call, seq, part, limited)))
			return false;
		seq += part;
		n -= part;
		if (seq > out->next)
			out->next = seq;
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
	ask_for_proof(call);
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

static bool send_new(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	bool limited, sent = false, room = true;

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
		if (out->next < out->end &&
		    aph_rx_out_meta(out, out->next)->state != APH_RX_PACKET_WRITTEN)
			out->next += n;
		aph_rx_congest_on_sent(&out->congest, out->next - 1, limited);
		sent = true;
	}
	if (sent) {
		out->last_sent_ns = call->rx->now_ns;
		aph_rx_recover_arm(call);
	} else if (out->end > out->next && out->timeout_ns == UINT64_MAX) {
		aph_rx_recover_arm(call); /* a closed window is asked about */
	}
	if (out->short_write && aph_rx_out_has_room(call)) {
		out->short_write = false;
		aph_rx_call_post(call, APH_RX_EVENT_WRITABLE);
	}
	return room;
}

/* False when there is no more room: it is this call's turn again next time. */
static bool send_call(struct aph_rx_call *call)
{
	return send_pending_ack(call) && send_lost(call) && send_new(call) &&
	       send_size_probe(call) && send_ping(call);
}

/* -- receipts ----------------------------------------------------------------------------------------------------------------- */

static bool send_receipt(struct aph_rx_conn *conn, unsigned channel)
{
	struct aph_rx *rx = conn->rx;
	struct aph_rx_channel *ch = &conn->channels[channel];
	struct aph_rx_header header =
		ack_header(conn, conn->cid | channel, ch->call_number, APH_RX_ACK_IDLE);
	struct aph_rx_ack ack = {
		.first = ch->last_seq + 1,
		.previous = ch->last_seq,
		.serial = ch->receipt_serial,
		.reason = ch->receipt_serial ? APH_RX_ACK_DUPLICATE : APH_RX_ACK_IDLE,
	};
	uint8_t body[APH_RX_ACK_BODY_MAX];
	uint8_t *place;
	size_t len;

	if (is_full(rx) || rx->staged + APH_RX_HEADER + sizeof(body) > sizeof(rx->staging))
		return false;
	/* The same as in every ACK: the peer takes the last that it hears for all that follows. */
	aph_rx_ack_offer(conn->peer, rx->config.window, &ack);
	len = aph_rx_ack_encode(body, &ack);
	place = stage(rx, conn->peer, APH_RX_HEADER + len, false);
	header.serial = aph_rx_conn_serial(conn);
	aph_rx_header_encode(place, &header);
	memcpy(place + APH_RX_HEADER, body, len);
	rx->stats.packets_sent[APH_RX_ACK]++;
	ch->receipt_due = false;
	return true;
}

static bool send_receipts(struct aph_rx *rx)
{
	while (!aph_list_empty(&rx->receipts)) {
		struct aph_rx_conn *conn =
			aph_container(rx->receipts.next, struct aph_rx_conn, receipt_link);
		unsigned i;

		if (conn->receipt_ns > rx->now_ns)
			return true;
		for (i = 0; i < 4; i++) {
			if (conn->channels[i].receipt_due && !send_receipt(conn, i))
				return false;
		}
		aph_list_remove(&conn->receipt_link);
	}
	return true;
}

/* -- all of it ------------------------------------------------------------------------------------------------------------------ */

static void trace_message(struct aph_rx *rx, const struct aph_rx_message *message)
{
	uint8_t packet[APH_RX_HEADER];
	size_t done = 0, i;

	if (!rx->config.trace)
		return;
	for (i = 0; i < message->n_iov; i++) {
		const struct iovec *iov = &message->iov[i];

		/* Datagrams begin where segments do, and never lie across two pieces when they are whole runs. */
		for (done = 0; done + APH_RX_HEADER <= iov->iov_len; done += message->segment) {
			size_t len = iov->iov_len - done;

			if (message->segment == message->len && i)
				break;
			memcpy(packet, (const uint8_t *)iov->iov_base + done, sizeof(packet));
			aph_rx_trace_packet(rx, APH_RX_TRACE_SENT, message->path,
					    (const uint8_t *)iov->iov_base + done,
					    len < message->segment ? len : message->segment, NULL);
		}
	}
}

static size_t hand_out(struct aph_rx *rx, struct aph_rx_message *out, size_t n_raw)
{
	size_t i;

	for (i = 0; i < rx->n_drafts; i++) {
		const struct aph_rx_draft *draft = &rx->drafts[i];
		struct aph_rx_message *message = &out[n_raw + i];

		*message = (struct aph_rx_message){
			.path = &draft->peer->path,
			.iov = &rx->iovs[draft->first_iov],
			.n_iov = draft->n_iov,
			.len = draft->len,
			.segment = draft->segment < draft->len ? draft->segment : draft->len,
			.probe = draft->probe,
			.fragment = draft->fragment,
		};
		trace_message(rx, message);
	}
	return n_raw + rx->n_drafts;
}

static size_t hand_out_raw(struct aph_rx *rx, struct aph_rx_message *out, size_t max)
{
	size_t n = 0;

	while (rx->n_raw && n < max) {
		struct aph_rx_raw *raw = &rx->raw[rx->raw_first];

		rx->iovs[rx->n_iovs] =
			(struct iovec){ .iov_base = raw->bytes, .iov_len = raw->len };
		out[n] = (struct aph_rx_message){
			.path = &raw->path,
			.iov = &rx->iovs[rx->n_iovs++],
			.n_iov = 1,
			.len = raw->len,
			.segment = raw->len,
		};
		trace_message(rx, &out[n++]);
		rx->raw_first = (rx->raw_first + 1) % APH_RX_N_RAW;
		rx->n_raw--;
	}
	return n;
}

size_t aph_rx_send(struct aph_rx *rx, struct aph_rx_message *out, size_t max, uint64_t now_ns)
{
	size_t n_raw;

	aph_rx_set_now(rx, now_ns);
	aph_rx_clients_assign(rx);
	rx->n_drafts = rx->n_iovs = rx->staged = 0;
	n_raw = hand_out_raw(rx, out, max);
	rx->drafts_max = max - n_raw < APH_RX_N_MESSAGES ? max - n_raw : APH_RX_N_MESSAGES;
	if (!send_receipts(rx))
		return hand_out(rx, out, n_raw);
	while (!aph_list_empty(&rx->sending)) {
		struct aph_rx_call *call =
			aph_container(rx->sending.next, struct aph_rx_call, send_link);

		if (!send_call(call))
			break;
		aph_list_remove(&call->send_link);
	}
	return hand_out(rx, out, n_raw);
}
