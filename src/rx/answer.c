/* SPDX-License-Identifier: MIT */
/*
 * Packets outside connections: who asks what we are is told, within limits (VERSION); and what this
 * endpoint is doing, in the structures of rxdebug (DEBUG, section 20). That is read-only, and only
 * for loopback addresses unless the user wants more: the query is forgeable, and the answer is
 * larger.
 *
 * Lists are asked for by index, one entry a query. So that asking for all n does not take n^2
 * steps, the engine keeps where the last answer of a list came from; lists that change in between
 * may skip or repeat entries, as the protocol says.
 */
#include "rx/call.h"
#include "rx/debug.h"

#include <arpa/inet.h>

/* OpenAFS's numbers for what a call does (section 12.3) and a connection is (section 20.4). */
enum {
	STATE_NONE,
	STATE_PRECALL,
	STATE_ACTIVE,
	STATE_DALLY
};
enum {
	MODE_SENDING = 1,
	MODE_RECEIVING,
	MODE_ERROR,
	MODE_EOF
};
enum {
	CALL_READER_WAIT = 1,
	CALL_WAIT_WINDOW = 2,
	CALL_RECEIVE_DONE = 32
};
enum {
	OTHER_QUEUED_IN = 1,
	OTHER_QUEUED_OUT = 2
};
enum {
	CONN_MAKECALL_WAITING = 1,
	CONN_DESTROY_ME = 2,
	CONN_KNOW_WINDOW = 8
};
enum {
	SECURITY_NULL = 1,
	SECURITY_KAD = 3,
	SECURITY_GK = 4
};
enum {
	SECURITY_AUTHENTICATED = 2
};

static bool is_loopback(const struct aph_rx_address *a)
{
	if (a->family == AF_INET)
		return ntohl(a->in.sin_addr.s_addr) >> 24 == 127;
	if (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
		return a->in6.sin6_addr.s6_addr[12] == 127;
	return IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

/* The protocol knows IPv4 only; others are shown by their port. */
static void show_address(const struct aph_rx_address *a, uint32_t *host, uint16_t *port)
{
	if (a->family == AF_INET) {
		*host = ntohl(a->in.sin_addr.s_addr);
		*port = ntohs(a->in.sin_port);
		return;
	}
	*port = ntohs(a->in6.sin6_port);
	if (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
		*host = aph_get32(&a->in6.sin6_addr.s6_addr[12]);
}

static struct aph_rx_debug_time show_us(uint64_t us)
{
	return (struct aph_rx_debug_time){
		.sec = (int32_t)(us / 1000000),
		.usec = (int32_t)(us % 1000000),
	};
}

/* -- lists ------------------------------------------------------------------------------------- */

static struct aph_rx_conn *conn_of(struct aph_rx_node *node)
{
	return aph_container(node, struct aph_rx_conn, node);
}

static bool matches(enum aph_rx_query query, struct aph_rx_node *node)
{
	return query != APH_RX_QUERY_CONNECTIONS || conn_of(node)->n_calls > 0;
}

/*
 * The entry of a list with this index, or NULL. The list is the chains of `first`, then those of
 * `second`.
 */
static struct aph_rx_node *find_entry(struct aph_rx *rx, enum aph_rx_query query, uint32_t index,
				      const struct aph_rx_table *first,
				      const struct aph_rx_table *second)
{
	struct aph_rx_cursor *c = &rx->cursor;
	uint32_t n_heads = first->n_heads + second->n_heads;

	if (c->query != query || c->n_heads != n_heads || index < c->index)
		*c = (struct aph_rx_cursor){ .query = query, .n_heads = n_heads };
	for (; c->head < n_heads; c->head++) {
		struct aph_rx_node *node = c->head < first->n_heads
						   ? first->heads[c->head]
						   : second->heads[c->head - first->n_heads];
		uint32_t at = c->index;

		for (; node; node = node->next) {
			if (!matches(query, node))
				continue;
			if (at++ == index)
				return node;
		}
		c->index = at;
	}
	return NULL;
}

/* -- what is shown ----------------------------------------------------------------------------- */

static size_t show_stats(const struct aph_rx *rx, uint8_t *body)
{
	const struct aph_rx_stats *s = &rx->stats;
	const struct aph_rx_debug_stats stats = {
		.free_packets = (int32_t)(rx->n_free_cells + rx->n_free_small_cells),
		.calls_executed = (int32_t)s->calls_served,
		.version = APH_RX_DEBUG_VERSION_LETTER,
		.n_packets = (int32_t)(s->memory / APH_RX_SLOT),
	};

	return aph_rx_debug_encode_stats(body, &stats);
}

static void show_call(struct aph_rx_debug_connection *out, unsigned i,
		      const struct aph_rx_channel *channel)
{
	const struct aph_rx_call *call = channel->call;

	out->call_number[i] = channel->call_number;
	if (!call) {
		out->call_state[i] = channel->receipt_due ? STATE_DALLY : STATE_NONE;
		return;
	}
	out->call_state[i] = STATE_ACTIVE;
	switch (call->state) {
	case APH_RX_STATE_WAITING:
		out->call_state[i] = STATE_PRECALL;
		break;
	case APH_RX_STATE_REQUEST:
		out->call_mode[i] = call->is_client ? MODE_SENDING : MODE_RECEIVING;
		break;
	case APH_RX_STATE_WORK:
		out->call_mode[i] = aph_rx_in_is_consumed(&call->in) ? MODE_EOF : MODE_RECEIVING;
		break;
	case APH_RX_STATE_REPLY:
		out->call_mode[i] = call->is_client ? MODE_RECEIVING : MODE_SENDING;
		if (!call->is_client && call->out.finished)
			out->call_state[i] = STATE_DALLY;
		break;
	case APH_RX_STATE_COMPLETE:
		out->call_mode[i] = aph_rx_in_is_consumed(&call->in) ? MODE_EOF : MODE_RECEIVING;
		break;
	case APH_RX_STATE_ENDED:
		out->call_mode[i] = MODE_ERROR;
		break;
	}
	if (call->in.want)
		out->call_flags[i] |= CALL_READER_WAIT;
	if (call->out.short_write)
		out->call_flags[i] |= CALL_WAIT_WINDOW;
	if (aph_rx_in_is_complete(&call->in))
		out->call_flags[i] |= CALL_RECEIVE_DONE;
	if (call->in.available)
		out->call_other[i] |= OTHER_QUEUED_IN;
	if (call->out.base != call->out.end)
		out->call_other[i] |= OTHER_QUEUED_OUT;
}

static uint8_t show_security(uint8_t index)
{
	switch (index) {
	case 0:
		return SECURITY_NULL;
	case 2:
		return SECURITY_KAD;
	case 4:
	case 6:
		return SECURITY_GK;
	default:
		return 0;
	}
}

static size_t show_connection(const struct aph_rx_conn *conn, uint8_t *body)
{
	struct aph_rx_debug_connection out = {
		.cid = conn->cid,
		.epoch = conn->epoch,
		.serial = conn->serial + 1,
		.error = conn->abort_code,
		.is_server = !conn->is_client,
		.security_index = conn->class->index,
		.security.type = show_security(conn->class->index),
		.nat_mtu = conn->peer->pmtu.current,
	};

	show_address(&conn->peer->path.remote, &out.host, &out.port);
	if (conn->failed)
		out.flags |= CONN_DESTROY_ME;
	if (conn->peer->rwind)
		out.flags |= CONN_KNOW_WINDOW;
	if (conn->client && !aph_list_empty(&conn->client->waiting))
		out.flags |= CONN_MAKECALL_WAITING;
	if (conn->class->is_proven && conn->class->is_proven(conn))
		out.security.flags |= SECURITY_AUTHENTICATED;
	for (unsigned i = 0; i < 4; i++)
		show_call(&out, i, &conn->channels[i]);
	return aph_rx_debug_encode_connection(body, &out);
}

static size_t show_counters(const struct aph_rx *rx, uint8_t *body)
{
	const struct aph_rx_stats *s = &rx->stats;
	const struct aph_rx_tally *t = &rx->tally;
	struct aph_rx_debug_counters out = {
		.bogus_packet_on_read = (int32_t)s->malformed,
		.receive_alloc_failures = (int32_t)s->no_memory,
		.data_packets_read = (int32_t)s->packets_received[APH_RX_DATA],
		.ack_packets_read = (int32_t)s->packets_received[APH_RX_ACK],
		.dup_packets_read = (int32_t)s->data_duplicate,
		.spurious_packets_read = (int32_t)(s->rejected + s->unknown),
		.ack_packets_sent = (int32_t)s->packets_sent[APH_RX_ACK],
		.ping_packets_sent = (int32_t)t->n_pings,
		.abort_packets_sent = (int32_t)s->packets_sent[APH_RX_ABORT],
		.busy_packets_sent = (int32_t)s->packets_sent[APH_RX_BUSY_PACKET],
		.data_packets_sent = (int32_t)s->packets_sent[APH_RX_DATA],
		.data_packets_resent = (int32_t)s->data_resent,
		.total_rtt = show_us(t->rtt_total_us),
		.min_rtt = show_us(t->rtt_min_us),
		.max_rtt = show_us(t->rtt_max_us),
		.n_rtt_samples = (int32_t)t->n_rtts,
		.n_server_conns = (int32_t)s->n_service_connections,
		.n_client_conns = (int32_t)s->n_client_connections,
		.n_peer_structs = (int32_t)s->n_peers,
		.n_call_structs = (int32_t)s->n_calls,
		.n_free_call_structs = (int32_t)rx->n_free_calls,
		.n_busies = (int32_t)s->packets_sent[APH_RX_BUSY_PACKET],
	};

	for (unsigned i = 0; i < APH_RX_DEBUG_N_TYPES; i++) {
		out.packets_read[i] = (int32_t)s->packets_received[i + 1];
		out.packets_sent[i] = (int32_t)s->packets_sent[i + 1];
	}
	return aph_rx_debug_encode_counters(body, &out);
}

static uint16_t to_u16(uint32_t value)
{
	return value < UINT16_MAX ? (uint16_t)value : UINT16_MAX;
}

static size_t show_peer(const struct aph_rx_peer *peer, uint8_t *body)
{
	struct aph_rx_debug_peer out = {
		.if_mtu = peer->pmtu.current,
		.ref_count = to_u16(peer->refs),
		.rtt = (int32_t)(peer->rtt.srtt_us / 125),
		.rtt_dev = (int32_t)(peer->rtt.rttvar_us / 250),
		.timeout = show_us(aph_rx_rtt_rto_ns(&peer->rtt, 0) / 1000),
		.nat_mtu = peer->pmtu.current,
		.max_mtu = peer->pmtu.peer_max,
		.max_dgram_packets = peer->max_jumbo,
		.mtu = peer->pmtu.current,
		.cwind = peer->ssthresh == UINT32_MAX ? 0 : to_u16(peer->ssthresh),
		.n_sent = (int32_t)peer->n_sent,
		.resends = (int32_t)peer->n_resent,
		.bytes_sent = peer->body_sent,
		.bytes_received = peer->body_received,
	};

	show_address(&peer->path.remote, &out.host, &out.port);
	return aph_rx_debug_encode_peer(body, &out);
}

static size_t show_entry(struct aph_rx *rx, enum aph_rx_query query, uint32_t index, uint8_t *body)
{
	static const struct aph_rx_table nothing;
	struct aph_rx_node *node;

	if (query == APH_RX_QUERY_PEERS) {
		node = find_entry(rx, query, index, &rx->peers, &nothing);
		if (node)
			return show_peer(aph_container(node, struct aph_rx_peer, node), body);
	} else {
		node = find_entry(rx, query, index, &rx->service_conns, &rx->client_conns);
		if (node)
			return show_connection(conn_of(node), body);
	}
	return aph_rx_debug_encode_end(body, query);
}

/* -- answers ----------------------------------------------------------------------------------- */

/* To the packet with this header. */
static void send_answer(struct aph_rx *rx, const struct aph_rx_path *path,
			const struct aph_rx_header *header, uint8_t flags, const uint8_t *body,
			size_t len)
{
	struct aph_rx_header answer = {
		.epoch = header->epoch,
		.cid = header->cid,
		.call_number = header->call_number,
		.type = header->type,
		.flags = flags,
		.service = header->service,
	};

	aph_rx_raw_send(rx, path, &answer, body, len);
}

void aph_rx_input_version(struct aph_rx *rx, const struct aph_rx_path *path,
			  const struct aph_rx_header *header)
{
	uint8_t text[APH_RX_VERSION_BODY];

	/* Without the flag it is an answer, or a keep-alive that wants none. */
	if (!(header->flags & APH_RX_CLIENT_INITIATED) || !aph_rx_limit_take(rx, path))
		return;
	send_answer(rx, path, header, APH_RX_LAST_PACKET, text,
		    aph_rx_version_encode(text, rx->config.version));
}

void aph_rx_input_debug(struct aph_rx *rx, const struct aph_rx_path *path,
			const struct aph_rx_header *header, const uint8_t *body, size_t len)
{
	uint8_t out[APH_RX_DEBUG_ANSWER_MAX];
	uint32_t query;
	size_t out_len;

	/* Without the flag it is an answer, and two that answer each other's answers never end. */
	if (!(header->flags & APH_RX_CLIENT_INITIATED) || len < APH_RX_DEBUG_QUERY)
		return;
	if (!is_loopback(&path->remote) &&
	    (!(rx->config.flags & APH_RX_ANSWER_DEBUG) || !aph_rx_limit_take(rx, path)))
		return;

	query = aph_get32(body);
	switch (query) {
	case APH_RX_QUERY_STATS:
		out_len = show_stats(rx, out);
		break;
	case APH_RX_QUERY_COUNTERS:
		out_len = show_counters(rx, out);
		break;
	case APH_RX_QUERY_CONNECTIONS:
	case APH_RX_QUERY_ALL_CONNECTIONS:
	case APH_RX_QUERY_PEERS:
		out_len = show_entry(rx, (enum aph_rx_query)query, aph_get32(body + 4), out);
		break;
	default:
		out_len = aph_rx_debug_encode_unsupported(out);
	}
	send_answer(rx, path, header, header->flags & (uint8_t)~APH_RX_CLIENT_INITIATED, out,
		    out_len);
}
