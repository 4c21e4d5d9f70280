/* SPDX-License-Identifier: MIT */
/*
 * Datagrams in: each packet finds its connection, its channel and its call, or is answered or
 * dropped as docs/spec/rx.md says. Anybody can send anything here: nothing is believed that is not
 * checked, nothing is made that is not bounded, and what concerns one call ends at most that call.
 */
#include "base/apart.h"
#include "rx/call.h"
#include "rx/input.h"

#include <string.h>

/*
 * A run of at least so many bytes is kept where it arrived; less is copied, so that it does not pin
 * a buffer.
 */
#define KEEP_MIN 16384

#define RESTARTED_CODE APH_RX_CALL_DEAD

/* -- what is done with those that no call takes ------------------------------------------------ */

void aph_rx_input_ignore(const struct aph_rx_input *input, const char *why)
{
	aph_rx_trace_packet(input->rx, APH_RX_TRACE_DROPPED, input->path, input->packet, input->len,
			    why);
}

void aph_rx_input_drop(const struct aph_rx_input *input, uint64_t *counter, const char *why)
{
	(*counter)++;
	aph_rx_input_ignore(input, why);
}

void aph_rx_input_answer(const struct aph_rx_input *input, uint8_t type, uint32_t call_number,
			 const uint8_t *body, size_t len)
{
	struct aph_rx_header header = {
		.epoch = input->header.epoch,
		.cid = call_number ? input->header.cid : input->header.cid & ~UINT32_C(3),
		.call_number = call_number,
		.type = type,
		.flags = (input->header.flags ^ APH_RX_CLIENT_INITIATED) & APH_RX_CLIENT_INITIATED,
		.security = input->header.security,
		.service = input->header.service,
	};

	if (input->header.type == APH_RX_ABORT || !aph_rx_limit_take(input->rx, input->path))
		return;
	aph_rx_raw_send(input->rx, input->path, &header, body, len);
}

void aph_rx_input_reject(const struct aph_rx_input *input, uint32_t call_number, int32_t code,
			 const char *why)
{
	uint8_t body[4];

	aph_put32(body, (uint32_t)code);
	aph_rx_input_answer(input, APH_RX_ABORT, call_number, body, sizeof(body));
	aph_rx_input_drop(input, &input->rx->stats.rejected, why);
}

/* -- DATA -------------------------------------------------------------------------------------- */

static void tell_readable(struct aph_rx_call *call)
{
	if (!call->in.want || (!call->in.available && !aph_rx_in_is_complete(&call->in)))
		return;
	call->in.want = false;
	aph_rx_call_post(call, APH_RX_EVENT_READABLE);
}

/* The first DATA of a reply says that all of the request has arrived. */
static bool begin_reply(struct aph_rx_call *call)
{
	struct aph_rx *rx = call->rx;

	if (call->out.next != call->out.end || call->out.fill)
		return false;
	/*
	 * A server that has read all that it needs may reply before it has heard that nothing
	 * follows. It has then, as far as it is concerned.
	 */
	if (!call->out.finished) {
		if (call->out.end == 1 || call->peer->extended)
			return false;
		call->out.finished = true;
		/* Who waits to write more hears of it now, not after the end. */
		if (call->out.short_write)
			aph_rx_call_post(call, APH_RX_EVENT_WRITABLE);
		call->out.short_write = false;
	}
	/* Of a longer one a server may have answered the beginning. */
	if (call->out.base == 1 && call->out.end == 2 && !call->n_resent)
		aph_rx_rtt_bound(&call->peer->rtt,
				 rx->now_ns - aph_rx_out_meta(&call->out, 1)->sent_ns, rx->now_ns);
	call->state = APH_RX_STATE_REPLY;
	aph_rx_recover_all_acked(call);
	return true;
}

/* All of the body is here. */
static void complete(struct aph_rx_call *call)
{
	if (call->is_client) {
		if (call->state == APH_RX_STATE_REPLY)
			aph_rx_call_complete(call);
	} else if (call->state == APH_RX_STATE_REQUEST) {
		call->state = APH_RX_STATE_WORK;
		aph_rx_call_not_awaited(call);
		if (call->out.early_write)
			aph_rx_call_post(call, APH_RX_EVENT_WRITABLE);
		call->out.early_write = false;
	}
}

static int32_t take_packet(const struct aph_rx_input *input, struct aph_rx_call *call,
			   const struct aph_rx_header *header, const uint8_t *payload, size_t len)
{
	struct aph_rx_in *in = &call->in;
	struct aph_rx_conn *conn = call->conn;
	bool was_gap = in->highest >= in->next;
	bool last = header->flags & APH_RX_LAST_PACKET;
	size_t start = 0, user_len = len;
	enum aph_rx_taken taken;
	int32_t code;

	if (!header->seq)
		return APH_RX_PROTOCOL_ERROR;
	if (conn->class->verify) {
		/* It works in place: the buffer is ours, and nobody else reads what it changes. */
		code = conn->class->verify(conn, header, (uint8_t *)(uintptr_t)payload, len, &start,
					   &user_len);
		if (code)
			return code;
	}
	taken = aph_rx_in_take(call, header->seq, last, payload + start, user_len, input->buffer);
	switch (taken) {
	case APH_RX_TAKEN:
		input->rx->stats.bytes_received += user_len;
		call->peer->body_received += user_len;
		call->data_ns = input->rx->now_ns;
		break;
	case APH_RX_TAKEN_WRONG:
		return APH_RX_PROTOCOL_ERROR;
	case APH_RX_TAKEN_DUPLICATE:
		input->rx->stats.data_duplicate++;
		break;
	case APH_RX_TAKEN_BEYOND_WINDOW:
	case APH_RX_TAKEN_NO_SPACE:
		input->rx->stats.data_out_of_window++;
		break;
	}
	aph_rx_ack_arrived(call, header, taken, was_gap);
	return 0;
}

static APH_APART int32_t take_jumbo(const struct aph_rx_input *input, struct aph_rx_call *call)
{
	struct aph_rx_header header = input->header;
	const uint8_t *data = input->packet + APH_RX_HEADER;
	size_t left = input->len - APH_RX_HEADER;
	int more;

	do {
		const uint8_t *payload;
		size_t len;
		struct aph_rx_header this = header;
		int32_t code;

		more = aph_rx_jumbo_next(&header, &data, &left, &payload, &len);
		if (more < 0) {
			aph_rx_input_drop(input, &input->rx->stats.malformed,
					  "a jumbogram that is cut short");
			break;
		}
		code = take_packet(input, call, &this, payload, len);
		if (code)
			return code;
	} while (more);
	return 0;
}

/*
 * A server of ours writes into each packet of a reply which life of its own it is, where the
 * security class leaves the word free; others write 0 there. One that has restarted and begun the
 * call anew must not be taken for the other.
 */
static bool is_of_another_life(struct aph_rx_call *call, const struct aph_rx_header *header)
{
	struct aph_rx_in *in = &call->in;

	if (header->cksum == in->life || !header->cksum || call->state != APH_RX_STATE_REPLY ||
	    !call->is_client || call->conn->class->verify)
		return false;
	if (in->life)
		return true;
	in->life = header->cksum;
	return false;
}

static void input_data(struct aph_rx_input *input, struct aph_rx_call *call)
{
	int32_t code;

	if (call->is_client && call->state == APH_RX_STATE_REQUEST && !begin_reply(call)) {
		aph_rx_call_abort_now(call, APH_RX_ABORTED_HERE, APH_RX_PROTOCOL_ERROR);
		return;
	}
	if (is_of_another_life(call, &input->header)) {
		aph_rx_call_reset(call);
		return;
	}
	if (input->header.flags & APH_RX_JUMBO_PACKET)
		code = take_jumbo(input, call);
	else
		code = take_packet(input, call, &input->header, input->packet + APH_RX_HEADER,
				   input->len - APH_RX_HEADER);
	if (code) {
		aph_rx_call_abort_now(call, APH_RX_ABORTED_HERE, code);
		return;
	}
	if (aph_rx_in_is_complete(&call->in))
		complete(call);
	/* A call that ended with it is gone when nobody holds it. */
	if (call->state == APH_RX_STATE_ENDED)
		return;
	tell_readable(call);
	input->call = call;
}

/* -- ACK --------------------------------------------------------------------------------------- */

static void take_trailer(struct aph_rx_peer *peer, const struct aph_rx_ack *ack)
{
	/* Another program may have taken the place of the one that was there. */
	if (ack->n_words >= 3) {
		peer->extended = ack->extended;
		peer->stock = !ack->extended;
		peer->rwind = ack->extended ? ack->window : ack->rwind;
	}
	if (peer->rwind < 1)
		peer->rwind = 1;
	if (peer->rwind > APH_RX_WINDOW_MAX)
		peer->rwind = APH_RX_WINDOW_MAX;
	if (ack->n_words >= 1)
		aph_rx_pmtu_set_peer_max(&peer->pmtu, ack->max_mtu);
	if (ack->n_words >= 4)
		peer->max_jumbo = (uint16_t)(ack->max_jumbo < 46 ? ack->max_jumbo : 46);
}

/*
 * Who knows the serial of a probe has got it. Mostly the ACK is a PING_RESPONSE; where the call is
 * over by then at the other end, it is the receipt once more.
 */
static void note_probe(struct aph_rx_conn *conn, const struct aph_rx_ack *ack)
{
	struct aph_rx_peer *peer = conn->peer;

	if (peer->pmtu.probing && ack->serial && ack->serial == peer->probe_serial &&
	    peer->probe_cid == (conn->cid | conn->is_client))
		aph_rx_pmtu_probe_acked(&peer->pmtu);
}

static void answer_ping(struct aph_rx_call *call, const struct aph_rx_header *header,
			const struct aph_rx_ack *ack)
{
	if (ack->reason == APH_RX_ACK_PING)
		aph_rx_ack_want(call, APH_RX_ACK_PING_RESPONSE, header->serial, true);
	else if (header->flags & APH_RX_REQUEST_ACK && ack->reason != APH_RX_ACK_PING_RESPONSE)
		aph_rx_ack_want(call, APH_RX_ACK_PING_RESPONSE, header->serial, true);
}

/*
 * A crowded service asks callers who have proven nothing whether they are where they say, and keeps
 * nothing meanwhile: the answer leaves, and behind it the request once more.
 */
static void take_question(struct aph_rx_call *call, const struct aph_rx_ack *ack)
{
	if (call->is_client && call->state == APH_RX_STATE_REQUEST &&
	    ack->reason == APH_RX_ACK_PING && ack->first == 1 && !ack->n_acks && !ack->n_ranges &&
	    call->out.base == 1 && !call->out.n_sacked && !call->n_resent)
		aph_rx_recover_repeat(call);
}

void aph_rx_input_ack(struct aph_rx_call *call, const struct aph_rx_header *header,
		      const uint8_t *body, size_t len)
{
	struct aph_rx *rx = call->rx;
	struct aph_rx_ack ack;

	if (!aph_rx_ack_decode(&ack, body, len)) {
		rx->stats.malformed++;
		return;
	}
	if (rx->config.flags & APH_RX_NO_EXTENSION) {
		ack.extended = false;
		ack.n_ranges = 0;
	}
	if (!aph_rx_recover_is_plausible(call, &ack)) {
		rx->stats.malformed++;
		/*
		 * The client has it from whoever was here before us: what we send would not
		 * continue that.
		 */
		if (aph_rx_recover_is_of_another_life(call, &ack))
			aph_rx_call_reset(call);
		return;
	}
	take_trailer(call->peer, &ack);
	answer_ping(call, header, &ack);
	take_question(call, &ack);
	note_probe(call->conn, &ack);
	aph_rx_recover_ack(call, &ack);
}

static APH_APART void input_ackall(struct aph_rx_call *call)
{
	if (!call->is_client && call->state == APH_RX_STATE_REPLY && call->out.finished &&
	    call->out.next == call->out.end)
		aph_rx_recover_all_acked(call);
}

/* -- ABORT and BUSY ---------------------------------------------------------------------------- */

/* The code of an ABORT. False: it has none. */
static bool take_code(const struct aph_rx_input *input, int32_t *code)
{
	if (input->len < APH_RX_HEADER + 4) {
		aph_rx_input_drop(input, &input->rx->stats.malformed, "an ABORT without a code");
		return false;
	}
	*code = (int32_t)aph_get32(input->packet + APH_RX_HEADER);
	return true;
}

static APH_APART void input_busy(struct aph_rx_call *call)
{
	if (!call->is_client || call->state != APH_RX_STATE_REQUEST || call->received)
		return;
	call->n_busy++;
	if (call->rx->config.flags & APH_RX_BUSY_ENDS)
		aph_rx_call_end(call, APH_RX_BUSY, 0);
	else if (call->out.n_flying)
		aph_rx_recover_busy(call);
}

/* -- one call ---------------------------------------------------------------------------------- */

static APH_APART void input_other(struct aph_rx_input *input, struct aph_rx_call *call)
{
	const uint8_t *body = input->packet + APH_RX_HEADER;
	size_t len = input->len - APH_RX_HEADER;
	int32_t code;

	switch (input->header.type) {
	case APH_RX_ACK:
		aph_rx_input_ack(call, &input->header, body, len);
		return;
	case APH_RX_ACKALL:
		input_ackall(call);
		return;
	case APH_RX_BUSY_PACKET:
		input_busy(call);
		return;
	case APH_RX_ABORT:
		if (!take_code(input, &code))
			return;
		if (call->state == APH_RX_STATE_COMPLETE)
			aph_rx_input_ignore(input, "an ABORT after all of the reply");
		else
			aph_rx_call_end(call, APH_RX_ABORTED, code);
		return;
	default:
		aph_rx_input_drop(input, &input->rx->stats.unknown, "a type that no call takes");
		return;
	}
}

void aph_rx_input_call(struct aph_rx_input *input, struct aph_rx_call *call)
{
	call->heard_ns = input->rx->now_ns;
	if (input->header.type == APH_RX_DATA)
		input_data(input, call);
	else
		input_other(input, call);
}

/*
 * The channel has gone on to another call: what the peer says of the one before still tells of the
 * path.
 */
static APH_APART void input_older(const struct aph_rx_input *input, struct aph_rx_conn *conn)
{
	struct aph_rx_ack ack;

	if (input->header.type == APH_RX_ACK &&
	    aph_rx_ack_decode(&ack, input->packet + APH_RX_HEADER, input->len - APH_RX_HEADER))
		note_probe(conn, &ack);
	aph_rx_input_ignore(input, "an older call");
}

/* The last call of the channel is over: what it was is said again to those who did not hear it. */
static APH_APART void input_over(const struct aph_rx_input *input, struct aph_rx_conn *conn,
				 struct aph_rx_channel *ch)
{
	const struct aph_rx_header *header = &input->header;
	struct aph_rx *rx = input->rx;

	if (header->type == APH_RX_ABORT || header->type == APH_RX_BUSY_PACKET ||
	    header->type == APH_RX_ACKALL)
		return;
	if (header->type == APH_RX_ACK) {
		struct aph_rx_ack ack;

		if (!aph_rx_ack_decode(&ack, input->packet + APH_RX_HEADER,
				       input->len - APH_RX_HEADER))
			return;
		note_probe(conn, &ack);
		if (ack.reason == APH_RX_ACK_PING_RESPONSE)
			return;
	}
	if (ch->done) {
		if (!conn->is_client)
			return; /* the client has acknowledged all of it */
		ch->receipt_due = true;
		ch->receipt_serial = header->serial;
		aph_rx_conn_hurry(conn);
		return;
	}
	if (ch->abort_code && aph_rx_limit_take(rx, input->path))
		aph_rx_send_abort(conn, header->cid, header->call_number, ch->abort_code);
}

/* -- connections ------------------------------------------------------------------------------- */

static APH_APART void input_connection_level(const struct aph_rx_input *input,
					     struct aph_rx_conn *conn)
{
	int32_t code;

	switch (input->header.type) {
	case APH_RX_ABORT:
		if (take_code(input, &code))
			aph_rx_conn_fail(conn, APH_RX_ABORTED, code);
		return;
	case APH_RX_CHALLENGE:
	case APH_RX_RESPONSE:
		/*
		 * A connection without security has no business with either; forged ones must not
		 * end it.
		 */
		aph_rx_input_drop(input, &input->rx->stats.unknown, "security where there is none");
		return;
	default:
		aph_rx_input_drop(input, &input->rx->stats.unknown, "call number 0");
		return;
	}
}

/* Whether the packet's service is the connection's, or tells the client of its upgrade. */
static bool is_service(struct aph_rx_conn *conn, const struct aph_rx_header *header)
{
	struct aph_rx_call *call;

	if (header->service == conn->service)
		return true;
	/* The client goes on writing the old number until it has heard the new one. */
	if (!conn->is_client)
		return conn->upgraded;
	if (!conn->probing || conn->answered || !header->call_number)
		return false;
	conn->service = header->service;
	call = conn->channels[header->cid & 3].call;
	if (call)
		call->service = conn->service;
	return true;
}

/*
 * Not DATA, and of a call that we do not know. A client of our own kind asks about calls only that
 * were acknowledged to it: whoever was here before us has done that. Of others it may be that DATA
 * is still to come.
 */
static APH_APART void input_future(struct aph_rx_input *input)
{
	struct aph_rx_ack ack;

	if (aph_rx_take_proof(input))
		return;
	if (input->header.type == APH_RX_ACK &&
	    aph_rx_ack_decode(&ack, input->packet + APH_RX_HEADER, input->len - APH_RX_HEADER) &&
	    ack.reason == APH_RX_ACK_PING && ack.extended)
		aph_rx_input_reject(input, input->header.call_number, RESTARTED_CODE,
				    "a question about a forgotten call");
	else
		aph_rx_input_ignore(input, "a call that has not begun");
}

static void input_conn(struct aph_rx_input *input, struct aph_rx_conn *conn)
{
	const struct aph_rx_header *header = &input->header;
	struct aph_rx_channel *ch = &conn->channels[header->cid & 3];

	if (header->security != conn->class->index || !is_service(conn, header)) {
		aph_rx_input_drop(input, &input->rx->stats.unknown,
				  "another class or service than the connection's");
		return;
	}
	/* What concerns no call answers none. */
	if (!conn->answered && header->call_number) {
		conn->answered = true;
		/* The probe is over; its channel mates may begin. */
		if (conn->probing && conn->is_client) {
			conn->probing = false;
			aph_rx_client_assign(conn->client);
		}
	}
	if (!header->call_number) {
		input_connection_level(input, conn);
		return;
	}
	if (header->call_number < ch->call_number) {
		if (header->call_number == aph_rx_channel_heard(ch))
			input_over(input, conn, ch);
		else
			input_older(input, conn);
	} else if (header->call_number == ch->call_number) {
		if (ch->call)
			aph_rx_input_call(input, ch->call);
		else
			input_over(input, conn, ch);
	} else if (conn->is_client) {
		aph_rx_input_drop(input, &input->rx->stats.malformed, "a call that we never made");
	} else if (header->type == APH_RX_DATA) {
		aph_rx_admit(input, conn);
	} else {
		input_future(input);
	}
}

/*
 * DATA on a connection that we know from another address. When that one is idle, the client has
 * moved. A call that we have seen must not begin a second time, nor can it be told apart from
 * forgery while calls go on: the client hears that its connection is over, and makes another one.
 */
static APH_APART void input_moved(struct aph_rx_input *input, struct aph_rx_conn *conn)
{
	const struct aph_rx_header *header = &input->header;

	if (conn->n_calls || header->call_number <= conn->channels[header->cid & 3].call_number) {
		aph_rx_input_reject(input, 0, APH_RX_CALL_DEAD, "a connection of another address");
		return;
	}
	input->peer = aph_rx_peer_admit(input->rx, input->path);
	if (!input->peer) {
		aph_rx_input_drop(input, &input->rx->stats.rejected, "no room for a peer");
		return;
	}
	if (aph_rx_conn_find_elsewhere(input->rx, header) != conn) {
		aph_rx_input_drop(input, &input->rx->stats.rejected,
				  "forgotten, to make room for a peer");
		return;
	}
	input->peer->bytes_in += (uint32_t)input->len;
	aph_rx_conn_move(conn, input->peer);
	input_conn(input, conn);
}

/* Nobody knows the connection. */
static APH_APART void input_stranger(struct aph_rx_input *input)
{
	const struct aph_rx_header *header = &input->header;
	bool from_client = header->flags & APH_RX_CLIENT_INITIATED;

	if (header->type == APH_RX_DATA && from_client && header->call_number) {
		struct aph_rx_conn *elsewhere = aph_rx_conn_find_elsewhere(input->rx, header);

		if (elsewhere)
			input_moved(input, elsewhere);
		else
			aph_rx_admit(input, NULL);
		return;
	}
	if (aph_rx_take_proof(input))
		return;
	aph_rx_input_drop(input, &input->rx->stats.unknown, "a connection that is not known");
	/*
	 * Who asks whether we are still there hears that we have forgotten; who replies to nobody,
	 * too.
	 */
	if (!header->call_number)
		return;
	if (header->type == APH_RX_ACK && input->len > APH_RX_HEADER + 16 &&
	    input->packet[APH_RX_HEADER + 16] == APH_RX_ACK_PING)
		aph_rx_input_reject(input, header->call_number, RESTARTED_CODE,
				    "a question about a forgotten call");
	else if (header->type == APH_RX_DATA)
		aph_rx_input_reject(input, header->call_number, RESTARTED_CODE,
				    "a reply to a forgotten call");
}

/* -- one datagram ------------------------------------------------------------------------------ */

static void input_packet(struct aph_rx_input *input)
{
	struct aph_rx *rx = input->rx;
	struct aph_rx_conn *conn;

	input->call = NULL;
	if (input->len < APH_RX_HEADER || input->len > UINT16_MAX) {
		aph_rx_input_drop(input, &rx->stats.malformed,
				  "shorter than a header, or longer than UDP takes");
		return;
	}
	aph_rx_header_decode(&input->header, input->packet);
	aph_rx_trace_packet(rx, APH_RX_TRACE_RECEIVED, input->path, input->packet, input->len,
			    NULL);
	if (input->header.type > 13 || !input->header.type) {
		aph_rx_input_drop(input, &rx->stats.malformed, "no type that exists");
		return;
	}
	rx->stats.packets_received[input->header.type]++;
	if (input->header.type == APH_RX_VERSION) {
		aph_rx_input_version(rx, input->path, &input->header);
		return;
	}
	if (input->header.type == APH_RX_DEBUG) {
		aph_rx_input_debug(rx, input->path, &input->header, input->packet + APH_RX_HEADER,
				   input->len - APH_RX_HEADER);
		return;
	}
	/* Connections of ours are found by their ids alone. */
	if (input->header.flags & APH_RX_CLIENT_INITIATED && !input->peer_known) {
		input->peer = aph_rx_peer_find(rx, input->path);
		input->peer_known = true;
	}
	conn = aph_rx_conn_find(rx, input->path, input->peer, &input->header);
	if (!conn) {
		input_stranger(input);
		return;
	}
	if (!conn->peer->proven)
		conn->peer->bytes_in += (uint32_t)input->len;
	input_conn(input, conn);
}

/*
 * Most packets of a run are DATA of the same call as the one before, which has passed all the
 * checks above. `before` is that packet. False: this one is not so, and nothing was done.
 */
static bool input_next(struct aph_rx_input *input, const uint8_t *before)
{
	struct aph_rx_call *call = input->call;
	const uint8_t *packet = input->packet;
	struct aph_rx_conn *conn;

	/* The same epoch, connection and call; type; security; service. */
	if (!call || input->len < APH_RX_HEADER || input->len > UINT16_MAX ||
	    memcmp(packet, before, 12) != 0 || packet[20] != APH_RX_DATA ||
	    packet[23] != before[23] || memcmp(packet + 26, before + 26, 2) != 0 ||
	    (packet[21] ^ before[21]) & (APH_RX_CLIENT_INITIATED | APH_RX_JUMBO_PACKET))
		return false;
	conn = call->conn;
	aph_rx_header_decode(&input->header, packet);
	aph_rx_trace_packet(input->rx, APH_RX_TRACE_RECEIVED, input->path, packet, input->len,
			    NULL);
	input->rx->stats.packets_received[APH_RX_DATA]++;
	if (!conn->peer->proven)
		conn->peer->bytes_in += (uint32_t)input->len;
	input->call = NULL;
	input_data(input, call);
	return true;
}

void aph_rx_input(struct aph_rx *rx, const struct aph_rx_path *path, const void *data, size_t len,
		  size_t segment, struct aph_rx_buffer *buffer)
{
	const uint8_t *p = data, *before = data;
	struct aph_rx_input input; /* the rest is set for each packet */

	input.rx = rx;
	input.path = path;
	input.peer = NULL;
	input.peer_known = false;
	input.call = NULL;
	input.buffer = len >= KEEP_MIN ? buffer : NULL;
	if (!segment || segment > len)
		segment = len;
	do {
		input.packet = p;
		input.len = len < segment ? len : segment;
		if (!input_next(&input, before))
			input_packet(&input);
		before = p;
		p += input.len;
		len -= input.len;
	} while (len);
}

void aph_rx_receive(struct aph_rx *rx, const struct aph_rx_path *path, const void *data, size_t len,
		    size_t segment, struct aph_rx_buffer *buffer, uint64_t now_ns)
{
	aph_rx_set_now(rx, now_ns);
	if (rx->config.receive_delay_ms)
		aph_rx_delay_put(rx, path, data, len, segment);
	else
		aph_rx_input(rx, path, data, len, segment, buffer);
}
