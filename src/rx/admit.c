/* SPDX-License-Identifier: MIT */
/*
 * Requests that begin a call: whether there is such a service, and room for its caller. Addresses
 * may be forged; those who have not shown that theirs is not get a part of the room only.
 */
#include "rx/call.h"
#include "rx/input.h"
#include "rx/proof.h"

#define EVICT_MAX 64 /* connections for one request */
/*
 * Requests of such callers that are not whole yet: each is a place at the service that waits for a
 * rest.
 */
#define AWAITED_MAX 8

/* What a client asks for may have moved to a better service. */
static struct aph_rx_service *find_service(struct aph_rx *rx, struct aph_rx_conn *conn,
					   const struct aph_rx_header *header)
{
	struct aph_rx_service *service =
		aph_rx_find_service(rx, conn ? conn->service : header->service);
	struct aph_rx_service *better;

	if (!service || conn || !service->upgrade_to ||
	    header->user_status != APH_RX_USER_STATUS_UPGRADE)
		return service;
	better = aph_rx_find_service(rx, service->upgrade_to);
	return better ? better : service;
}

/* The client has gone on to its next call on this channel. */
static void supersede(struct aph_rx_call *call)
{
	if (call->state == APH_RX_STATE_REPLY && call->out.finished &&
	    call->out.next == call->out.end)
		aph_rx_recover_all_acked(call);
	else
		aph_rx_call_end(call, APH_RX_ABORTED, APH_RX_CALL_DEAD);
}

enum room {
	NO_ROOM,
	ROOM_FOR_PROVEN, /* and for nobody whose address may be forged */
	ROOM_FOR_ALL,
};

static bool are_tables_crowded(const struct aph_rx *rx)
{
	const struct aph_rx_config *config = &rx->config;

	return rx->peers.n - rx->n_idle_peers > config->peers_max - config->peers_max / 4 ||
	       rx->service_conns.n > config->connections_max - config->connections_max / 4;
}

/* What has been idle for long gives way first. */
static bool is_crowded(struct aph_rx *rx)
{
	for (unsigned i = 0; are_tables_crowded(rx); i++) {
		if (i == EVICT_MAX || !aph_rx_conn_evict(rx))
			return true;
	}
	return false;
}

static bool is_whole(const struct aph_rx_header *header)
{
	return header->seq == 1 && header->flags & APH_RX_LAST_PACKET;
}

/*
 * Callers who may have forged their address get half of their group's share, and three quarters of
 * each table: whoever they are, others find room. And few of their requests may be such that the
 * service waits for more of them, as some services do little at a time.
 */
static enum room room_for(const struct aph_rx_input *input, const struct aph_rx_conn *conn)
{
	struct aph_rx *rx = input->rx;
	const struct aph_rx_config *config = &rx->config;
	uint32_t group = conn ? conn->peer->group : aph_rx_group(rx, input->path);
	uint32_t n = rx->limits[group].n_calls;
	uint32_t share = aph_rx_group_share(config->calls_max, rx->n_served - n);

	if (n >= share)
		return NO_ROOM;
	if (n > share / 2 || rx->n_served > config->calls_max - config->calls_max / 4 ||
	    (rx->n_awaited >= AWAITED_MAX && !is_whole(&input->header)) ||
	    (!conn && is_crowded(rx)))
		return ROOM_FOR_PROVEN;
	return ROOM_FOR_ALL;
}

static void say_busy(const struct aph_rx_input *input, const char *why)
{
	aph_rx_input_answer(input, APH_RX_BUSY_PACKET, input->header.call_number, NULL, 0);
	aph_rx_input_drop(input, &input->rx->stats.rejected, why);
}

/*
 * As long as it is unproven nothing is made for it: what the answer has to say is in the question's
 * serial.
 */
static void ask_for_proof(const struct aph_rx_input *input)
{
	const struct aph_rx_ack ack = { .first = 1, .reason = APH_RX_ACK_PING };
	const struct aph_rx_header header = {
		.epoch = input->header.epoch,
		.cid = input->header.cid,
		.call_number = input->header.call_number,
		.serial = aph_rx_proof_serial(input->rx, input->path, &input->header),
		.type = APH_RX_ACK,
		.flags = APH_RX_REQUEST_ACK,
		.security = input->header.security,
		.service = input->header.service,
	};
	uint8_t body[APH_RX_ACK_BODY_MAX];

	(void)aph_rx_ack_encode(body, &ack);
	/*
	 * Without what is there of a peer only; it is shorter than twice any packet that can draw
	 * it.
	 */
	aph_rx_raw_send(input->rx, input->path, &header, body,
			APH_RX_ACK_FIXED + APH_RX_ACK_PADDING);
	aph_rx_input_drop(input, &input->rx->stats.rejected, "its address is to be proven first");
}

/* Whether the packet is the answer to such a question; its address is proven then. */
bool aph_rx_take_proof(struct aph_rx_input *input)
{
	struct aph_rx_ack ack;

	if (input->header.type != APH_RX_ACK || !(input->header.flags & APH_RX_CLIENT_INITIATED) ||
	    !aph_rx_ack_decode(&ack, input->packet + APH_RX_HEADER, input->len - APH_RX_HEADER) ||
	    ack.reason != APH_RX_ACK_PING_RESPONSE ||
	    !aph_rx_proof_holds(input->rx, input->path, &input->header, ack.serial))
		return false;
	/* The request may be right behind, in the same run. */
	input->peer = aph_rx_peer_admit(input->rx, input->path);
	if (input->peer)
		aph_rx_peer_prove(input->peer);
	else
		say_busy(input, "no room for a peer");
	return true;
}

/* Whether it can be of the beginning of a call. */
static bool is_beginning(const struct aph_rx_input *input)
{
	const struct aph_rx_header *header = &input->header;
	uint64_t *malformed = &input->rx->stats.malformed;

	if (!header->service || !header->seq) {
		aph_rx_input_reject(input, 0, APH_RX_PROTOCOL_ERROR,
				    "no service, or no sequence number");
		return false;
	}
	if (header->flags & APH_RX_JUMBO_PACKET &&
	    (header->flags & APH_RX_LAST_PACKET ||
	     input->len < APH_RX_HEADER + APH_RX_JUMBO_PAYLOAD + APH_RX_JUMBO_HEADER)) {
		aph_rx_input_drop(input, malformed, "a jumbogram that is none");
		return false;
	}
	if (header->call_number > APH_RX_CALL_NUMBER_MAX || header->seq > APH_RX_WINDOW_SMALL) {
		aph_rx_input_drop(input, malformed, "a new call that does not begin");
		return false;
	}
	return true;
}

/* Whether the service is there, and takes calls of that connection. */
static bool is_served(const struct aph_rx_input *input, const struct aph_rx_conn *conn,
		      const struct aph_rx_service *service)
{
	if (!service || input->header.security != aph_rx_null.index) {
		aph_rx_input_reject(input, 0, APH_RX_INVALID_OPERATION,
				    "no such service, or not so secured");
		return false;
	}
	if (conn && conn->abort_code) {
		aph_rx_input_reject(input, 0, conn->abort_code, "its connection was aborted");
		return false;
	}
	if (service->credit == APH_RX_REFUSE) {
		/* Calls of the connection that go on are not to die of it. */
		aph_rx_input_reject(input, conn ? input->header.call_number : 0,
				    APH_RX_INVALID_OPERATION, "the service takes no more calls");
		return false;
	}
	return true;
}

/* The caller's first connection, or another one. NULL: there is no room, and it hears so. */
static struct aph_rx_conn *new_conn(struct aph_rx_input *input,
				    const struct aph_rx_service *service)
{
	struct aph_rx *rx = input->rx;
	struct aph_rx_conn *conn = NULL;

	input->peer = aph_rx_peer_admit(rx, input->path);
	if (input->peer)
		conn = aph_rx_conn_new_service(rx, input->peer, &input->header);
	if (!conn) {
		say_busy(input, "no room for a connection");
		return NULL;
	}
	input->peer->bytes_in += (uint32_t)input->len;
	conn->upgraded = service->id != input->header.service;
	conn->service = service->id;
	rx->last_conn = conn;
	return conn;
}

void aph_rx_admit(struct aph_rx_input *input, struct aph_rx_conn *conn)
{
	const struct aph_rx_header *header = &input->header;
	unsigned channel = header->cid & 3;
	struct aph_rx_service *service;
	struct aph_rx_call *call;
	enum room room;

	if (!is_beginning(input))
		return;
	service = find_service(input->rx, conn, header);
	if (!is_served(input, conn, service))
		return;
	if (conn && conn->channels[channel].call)
		supersede(conn->channels[channel].call);
	room = service->credit ? room_for(input, conn) : NO_ROOM;
	if (room == ROOM_FOR_PROVEN && !(input->peer && input->peer->proven)) {
		ask_for_proof(input);
		return;
	}
	if (room == NO_ROOM) {
		say_busy(input, "busy");
		return;
	}
	if (!conn)
		conn = new_conn(input, service);
	if (!conn)
		return;
	call = aph_rx_call_incoming(conn, service, channel, header->call_number);
	if (!call) {
		aph_rx_input_ignore(input, "no memory for a call");
		return;
	}
	aph_rx_input_call(input, call);
}
