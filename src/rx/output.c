/* SPDX-License-Identifier: MIT */
/*
 * Datagrams out: what each call has to send, in turns. How packets become messages is in draft.h,
 * what DATA packets leave is in data.c.
 */
#include "rx/call.h"
#include "rx/draft.h"

#include <string.h>

/* -- acknowledgements -------------------------------------------------------------------------- */

static struct aph_rx_header ack_header(const struct aph_rx_conn *conn, uint32_t cid,
				       uint32_t number, uint8_t reason)
{
	uint8_t flags = APH_RX_SLOW_START_OK;

	if (reason == APH_RX_ACK_PING)
		flags |= APH_RX_REQUEST_ACK;
	return aph_rx_conn_header(conn, cid, number, APH_RX_ACK, flags);
}

static bool send_ack(struct aph_rx_call *call, enum aph_rx_ack_reason reason, uint32_t serial)
{
	struct aph_rx *rx = call->rx;
	struct aph_rx_conn *conn = call->conn;
	struct aph_rx_header header = ack_header(conn, call->cid, call->number, (uint8_t)reason);
	uint8_t body[APH_RX_ACK_BODY_MAX];
	uint8_t *place;
	size_t len;

	if (!aph_rx_draft_has_room(rx, APH_RX_HEADER + sizeof(body)))
		return false;
	len = aph_rx_ack_build(call, body, reason, serial);
	place = aph_rx_draft_stage(rx, call->peer, APH_RX_HEADER + len, false);
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
	/*
	 * Small packets could draw large acknowledgements to somebody else: those are as good as
	 * lost.
	 */
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
void aph_rx_call_ask_for_proof(struct aph_rx_call *call)
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

	if (rx->config.flags & APH_RX_NO_PMTU_PROBES || !call->received)
		return true;
	/*
	 * A client that has all of its reply may have forgotten the call when the question comes.
	 */
	if (!call->is_client && call->state == APH_RX_STATE_REPLY &&
	    call->out.end == call->out.next)
		return true;
	/*
	 * More than one packet in a datagram is only of use where the kernel does not cut runs
	 * itself.
	 */
	if (peer->pmtu.current >= APH_RX_SLOT &&
	    (rx->config.flags & (APH_RX_SEGMENTS | APH_RX_NO_JUMBO) || peer->max_jumbo <= 1))
		return true;
	if (!peer->proven) {
		if (call->out.end > call->out.next)
			aph_rx_call_ask_for_proof(call);
		return true;
	}
	if (peer->pmtu.probing) {
		if (rx->now_ns < peer->probe_ns)
			return true;
		aph_rx_pmtu_probe_lost(&peer->pmtu);
	}
	if (!aph_rx_draft_has_room(rx, APH_RX_MTU_MAX))
		return true;
	size = aph_rx_pmtu_probe(&peer->pmtu, rx->now_ns);
	if (!size)
		return true;
	place = aph_rx_draft_stage(rx, peer, size, true);
	rx->drafts[rx->n_drafts - 1].probe = true;
	memset(place, 0, size);
	header = ack_header(call->conn, call->cid, call->number, APH_RX_ACK_PING);
	header.serial = aph_rx_conn_serial(call->conn);
	(void)aph_rx_ack_build(call, place + APH_RX_HEADER, APH_RX_ACK_PING, 0);
	aph_rx_header_encode(place, &header);
	peer->probe_cid = call->conn->cid | call->conn->is_client;
	peer->probe_serial = header.serial;
	rx->tally.n_pings++;
	peer->probe_ns = rx->now_ns + aph_rx_rtt_rto_ns(&peer->rtt, 0);
	rx->stats.packets_sent[APH_RX_ACK]++;
	return true;
}

/* -- calls ------------------------------------------------------------------------------------- */

/* False when there is no more room: it is this call's turn again next time. */
static bool send_call(struct aph_rx_call *call)
{
	return send_pending_ack(call) && aph_rx_data_send(call) && send_size_probe(call) &&
	       send_ping(call);
}

/* -- what is due when a call is over ----------------------------------------------------------- */

/* A packet about a channel's last call; `header` lacks its serial. */
static bool send_last(struct aph_rx_conn *conn, struct aph_rx_header *header, const uint8_t *body,
		      size_t len)
{
	struct aph_rx *rx = conn->rx;
	uint8_t *place;

	if (!aph_rx_draft_has_room(rx, APH_RX_HEADER + len))
		return false;
	place = aph_rx_draft_stage(rx, conn->peer, APH_RX_HEADER + len, false);
	header->serial = aph_rx_conn_serial(conn);
	aph_rx_header_encode(place, header);
	if (len)
		memcpy(place + APH_RX_HEADER, body, len);
	rx->stats.packets_sent[header->type]++;
	return true;
}

static bool send_receipt(struct aph_rx_conn *conn, unsigned channel)
{
	struct aph_rx_channel *ch = &conn->channels[channel];
	struct aph_rx_header header =
		ack_header(conn, conn->cid | channel, aph_rx_channel_heard(ch), APH_RX_ACK_IDLE);
	struct aph_rx_ack ack = {
		.first = ch->last_seq + 1,
		.previous = ch->last_seq,
		.serial = ch->receipt_serial,
		.reason = ch->receipt_serial ? APH_RX_ACK_DUPLICATE : APH_RX_ACK_IDLE,
	};
	uint8_t body[APH_RX_ACK_BODY_MAX];

	/* The same as in every ACK: the peer takes the last that it hears for all that follows. */
	aph_rx_ack_offer(conn->peer, conn->rx->config.window, &ack);
	ch->receipt_due = !send_last(conn, &header, body, aph_rx_ack_encode(body, &ack));
	return !ch->receipt_due;
}

/*
 * In place of the receipt where the connection goes: it is short, and nobody will answer what comes
 * then (section 7.5).
 */
static bool send_goodbye(struct aph_rx_conn *conn, unsigned channel)
{
	struct aph_rx_channel *ch = &conn->channels[channel];
	struct aph_rx_header header = aph_rx_conn_header(
		conn, conn->cid | channel, aph_rx_channel_heard(ch), APH_RX_ACKALL, 0);

	ch->receipt_due = !send_last(conn, &header, NULL, 0);
	return !ch->receipt_due;
}

static bool send_abort(struct aph_rx_conn *conn, unsigned channel)
{
	struct aph_rx_channel *ch = &conn->channels[channel];
	struct aph_rx_header header = aph_rx_conn_header(conn, conn->cid | channel,
							 aph_rx_channel_heard(ch), APH_RX_ABORT, 0);
	uint8_t body[4];

	aph_put32(body, (uint32_t)ch->abort_code);
	ch->abort_due = !send_last(conn, &header, body, sizeof(body));
	return !ch->abort_due;
}

static bool send_due(struct aph_rx_conn *conn, unsigned channel)
{
	const struct aph_rx_channel *ch = &conn->channels[channel];
	bool leaves = conn->is_client && !conn->client;

	if (ch->receipt_due && !(leaves ? send_goodbye : send_receipt)(conn, channel))
		return false;
	return !ch->abort_due || send_abort(conn, channel);
}

static bool send_receipts(struct aph_rx *rx)
{
	while (!aph_list_empty(&rx->receipts)) {
		struct aph_rx_conn *conn =
			aph_container(rx->receipts.next, struct aph_rx_conn, receipt_link);
		unsigned i;

		if (conn->receipt_ns > rx->now_ns && rx->n_receipts <= APH_RX_RECEIPTS_MAX)
			return true;
		for (i = 0; i < 4; i++) {
			if (!send_due(conn, i))
				return false;
		}
		aph_rx_conn_quits(conn);
		if (conn->is_client && !conn->client)
			aph_rx_conn_free(conn);
	}
	return true;
}

/* -- all of it --------------------------------------------------------------------------------- */

size_t aph_rx_send(struct aph_rx *rx, struct aph_rx_message *out, size_t max, uint64_t now_ns)
{
	size_t n_raw;

	aph_rx_set_now(rx, now_ns);
	aph_rx_clients_assign(rx);
	aph_rx_raw_forget(rx, false);
	rx->n_drafts = rx->n_iovs = rx->staged = 0;
	n_raw = aph_rx_raw_hand_out(rx, out, max);
	rx->drafts_max = max - n_raw < APH_RX_N_MESSAGES ? max - n_raw : APH_RX_N_MESSAGES;
	if (!send_receipts(rx))
		return aph_rx_drafts_hand_out(rx, out, n_raw);
	while (!aph_list_empty(&rx->sending)) {
		struct aph_rx_call *call =
			aph_container(rx->sending.next, struct aph_rx_call, send_link);

		if (!send_call(call))
			break;
		aph_list_remove(&call->send_link);
	}
	return aph_rx_drafts_hand_out(rx, out, n_raw);
}
