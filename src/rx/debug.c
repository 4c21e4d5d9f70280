/* SPDX-License-Identifier: MIT */
/*
 * The rxdebug protocol and VERSION packets, both sides. The bodies of answers are structures of
 * OpenAFS as a big-endian machine would lay them out. So that neither side can forget a field, each
 * structure is walked by one function for both directions; what differs is in struct walk.
 */
#include "rx/debug.h"

#include "rx/wire.h"

#include <errno.h>
#include <string.h>

#define BAD_TYPE UINT32_C(0xfffffff8) /* -8, RX_DEBUGI_BADTYPE */
#define LIST_END UINT32_MAX

/* The form of a connection that peers up to letter 'L' send. */
#define CONNECTION_OLD	   172
#define CONNECTION_OLD_GAP 3 /* bytes that the calls' states lie further in front */

struct walk {
	uint8_t *at;
	bool encode;
};

static void u8(struct walk *w, uint8_t *value)
{
	if (w->encode)
		*w->at = *value;
	else
		*value = *w->at;
	w->at++;
}

static void u16(struct walk *w, uint16_t *value)
{
	if (w->encode)
		aph_put16(w->at, *value);
	else
		*value = aph_get16(w->at);
	w->at += 2;
}

static void u32(struct walk *w, uint32_t *value)
{
	if (w->encode)
		aph_put32(w->at, *value);
	else
		*value = aph_get32(w->at);
	w->at += 4;
}

static void i32(struct walk *w, int32_t *value)
{
	uint32_t word = (uint32_t)*value;

	u32(w, &word);
	*value = (int32_t)word;
}

static void u64(struct walk *w, uint64_t *value)
{
	uint32_t high = (uint32_t)(*value >> 32), low = (uint32_t)*value;

	u32(w, &high);
	u32(w, &low);
	*value = (uint64_t)high << 32 | low;
}

static void flag(struct walk *w, bool *value)
{
	uint8_t octet = *value;

	u8(w, &octet);
	*value = octet != 0;
}

static void u8s(struct walk *w, uint8_t *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		u8(w, &values[i]);
}

static void i32s(struct walk *w, int32_t *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		i32(w, &values[i]);
}

static void moment(struct walk *w, struct aph_rx_debug_time *value)
{
	i32(w, &value->sec);
	i32(w, &value->usec);
}

/* Spare bytes are zeros when they leave, and not looked at when they come. */
static void skip(struct walk *w, size_t n)
{
	w->at += n;
}

static void walk_stats(struct walk *w, struct aph_rx_debug_stats *stats)
{
	uint8_t version = (uint8_t)stats->version;

	i32(w, &stats->free_packets);
	i32(w, &stats->packet_reclaims);
	i32(w, &stats->calls_executed);
	flag(w, &stats->waiting_for_packets);
	u8(w, &stats->used_fds);
	u8(w, &version);
	stats->version = (char)version;
	skip(w, 1);
	i32(w, &stats->n_waiting);
	i32(w, &stats->idle_threads);
	i32(w, &stats->n_waited);
	i32(w, &stats->n_packets);
}

static void walk_security(struct walk *w, struct aph_rx_debug_security *security)
{
	u8(w, &security->type);
	u8(w, &security->level);
	skip(w, 10);
	u32(w, &security->flags);
	u32(w, &security->expires);
	u32(w, &security->packets_received);
	u32(w, &security->packets_sent);
	u32(w, &security->bytes_received);
	u32(w, &security->bytes_sent);
	skip(w, 40);
}

static void walk_connection(struct walk *w, struct aph_rx_debug_connection *connection, bool old)
{
	uint8_t type = connection->is_server;

	u32(w, &connection->host);
	u32(w, &connection->cid);
	u32(w, &connection->serial);
	for (int i = 0; i < 4; i++)
		u32(w, &connection->call_number[i]);
	i32(w, &connection->error);
	u16(w, &connection->port);
	u8(w, &connection->flags);
	u8(w, &type);
	connection->is_server = type != 0;
	u8(w, &connection->security_index);
	skip(w, old ? 0 : CONNECTION_OLD_GAP);
	u8s(w, connection->call_state, 4);
	u8s(w, connection->call_mode, 4);
	u8s(w, connection->call_flags, 4);
	u8s(w, connection->call_other, 4);
	skip(w, old ? CONNECTION_OLD_GAP : 0);
	walk_security(w, &connection->security);
	if (old)
		return;
	u32(w, &connection->epoch);
	i32(w, &connection->nat_mtu);
}

static void walk_counters(struct walk *w, struct aph_rx_debug_counters *counters)
{
	i32(w, &counters->packet_requests);
	i32(w, &counters->receive_alloc_failures);
	i32(w, &counters->send_alloc_failures);
	i32(w, &counters->special_alloc_failures);
	i32(w, &counters->socket_greedy);
	i32(w, &counters->bogus_packet_on_read);
	i32(w, &counters->bogus_host);
	i32(w, &counters->no_packet_on_read);
	i32(w, &counters->no_packet_buffers_on_read);
	i32(w, &counters->selects);
	i32(w, &counters->send_selects);
	i32s(w, counters->packets_read, APH_RX_DEBUG_N_TYPES);
	i32(w, &counters->data_packets_read);
	i32(w, &counters->ack_packets_read);
	i32(w, &counters->dup_packets_read);
	i32(w, &counters->spurious_packets_read);
	i32s(w, counters->packets_sent, APH_RX_DEBUG_N_TYPES);
	i32(w, &counters->ack_packets_sent);
	i32(w, &counters->ping_packets_sent);
	i32(w, &counters->abort_packets_sent);
	i32(w, &counters->busy_packets_sent);
	i32(w, &counters->data_packets_sent);
	i32(w, &counters->data_packets_resent);
	i32(w, &counters->data_packets_pushed);
	i32(w, &counters->ignore_acked_packet);
	moment(w, &counters->total_rtt);
	moment(w, &counters->min_rtt);
	moment(w, &counters->max_rtt);
	i32(w, &counters->n_rtt_samples);
	i32(w, &counters->n_server_conns);
	i32(w, &counters->n_client_conns);
	i32(w, &counters->n_peer_structs);
	i32(w, &counters->n_call_structs);
	i32(w, &counters->n_free_call_structs);
	i32(w, &counters->net_send_failures);
	i32(w, &counters->fatal_errors);
	i32(w, &counters->ignore_packet_dally);
	i32(w, &counters->receive_cbuf_alloc_failures);
	i32(w, &counters->send_cbuf_alloc_failures);
	i32(w, &counters->n_busies);
}

static void walk_peer(struct walk *w, struct aph_rx_debug_peer *peer)
{
	u32(w, &peer->host);
	u16(w, &peer->port);
	u16(w, &peer->if_mtu);
	u32(w, &peer->idle_when);
	u16(w, &peer->ref_count);
	u8(w, &peer->burst_size);
	u8(w, &peer->burst);
	moment(w, &peer->burst_wait);
	i32(w, &peer->rtt);
	i32(w, &peer->rtt_dev);
	moment(w, &peer->timeout);
	i32(w, &peer->n_sent);
	i32(w, &peer->resends);
	i32(w, &peer->in_packet_skew);
	i32(w, &peer->out_packet_skew);
	i32(w, &peer->rate_flag);
	u16(w, &peer->nat_mtu);
	u16(w, &peer->max_mtu);
	u16(w, &peer->max_dgram_packets);
	u16(w, &peer->if_dgram_packets);
	u16(w, &peer->mtu);
	u16(w, &peer->cwind);
	u16(w, &peer->n_dgram_packets);
	u16(w, &peer->congest_seq);
	u64(w, &peer->bytes_sent);
	u64(w, &peer->bytes_received);
}

/* -- answering --------------------------------------------------------------------------------- */

size_t aph_rx_debug_encode_stats(uint8_t *body, const struct aph_rx_debug_stats *stats)
{
	struct aph_rx_debug_stats copy = *stats;
	struct walk walk = { body, true };

	memset(body, 0, APH_RX_DEBUG_STATS);
	walk_stats(&walk, &copy);
	return APH_RX_DEBUG_STATS;
}

size_t aph_rx_debug_encode_connection(uint8_t *body,
				      const struct aph_rx_debug_connection *connection)
{
	struct aph_rx_debug_connection copy = *connection;
	struct walk walk = { body, true };

	memset(body, 0, APH_RX_DEBUG_CONNECTION);
	walk_connection(&walk, &copy, false);
	return APH_RX_DEBUG_CONNECTION;
}

size_t aph_rx_debug_encode_counters(uint8_t *body, const struct aph_rx_debug_counters *counters)
{
	struct aph_rx_debug_counters copy = *counters;
	struct walk walk = { body, true };

	memset(body, 0, APH_RX_DEBUG_COUNTERS);
	walk_counters(&walk, &copy);
	return APH_RX_DEBUG_COUNTERS;
}

size_t aph_rx_debug_encode_peer(uint8_t *body, const struct aph_rx_debug_peer *peer)
{
	struct aph_rx_debug_peer copy = *peer;
	struct walk walk = { body, true };

	memset(body, 0, APH_RX_DEBUG_PEER);
	walk_peer(&walk, &copy);
	return APH_RX_DEBUG_PEER;
}

size_t aph_rx_debug_encode_end(uint8_t *body, enum aph_rx_query query)
{
	size_t len = query == APH_RX_QUERY_PEERS ? APH_RX_DEBUG_PEER : APH_RX_DEBUG_CONNECTION;

	/* Documents and code of OpenAFS disagree on which word says it: both do (section 20.1). */
	memset(body, 0, len);
	aph_put32(body, LIST_END);
	if (query != APH_RX_QUERY_PEERS)
		aph_put32(body + 4, LIST_END);
	return len;
}

size_t aph_rx_debug_encode_unsupported(uint8_t *body)
{
	aph_put32(body, BAD_TYPE);
	aph_put32(body + 4, BAD_TYPE);
	return 8;
}

size_t aph_rx_version_encode(uint8_t *body, const char *text)
{
	size_t len = strnlen(text, APH_RX_VERSION_BODY - 1);

	memset(body, 0, APH_RX_VERSION_BODY);
	memcpy(body, text, len);
	return APH_RX_VERSION_BODY;
}

/* -- asking ------------------------------------------------------------------------------------ */

size_t aph_rx_query_encode(void *packet, enum aph_rx_query query, uint32_t index, uint32_t id)
{
	const struct aph_rx_header header = {
		.epoch = APH_RX_DEBUG_EPOCH,
		.call_number = id,
		.type = query == APH_RX_QUERY_VERSION ? APH_RX_VERSION : APH_RX_DEBUG,
		.flags = APH_RX_CLIENT_INITIATED | APH_RX_LAST_PACKET,
	};
	uint8_t *body = (uint8_t *)packet + APH_RX_HEADER;

	aph_rx_header_encode(packet, &header);
	if (query == APH_RX_QUERY_VERSION) {
		*body = 0;
		return APH_RX_HEADER + 1;
	}
	aph_put32(body, query);
	aph_put32(body + 4, index);
	return APH_RX_HEADER + APH_RX_DEBUG_QUERY;
}

static void decode_version(struct aph_rx_answer *out, const uint8_t *body, size_t len)
{
	size_t n = 0;

	/* It goes to terminals. */
	for (; n < len && n < sizeof(out->version) - 1 && body[n]; n++)
		out->version[n] = body[n] >= ' ' && body[n] <= '~' ? (char)body[n] : '?';
	out->version[n] = 0;
}

static int decode_debug(struct aph_rx_answer *out, const uint8_t *body, size_t len)
{
	/* As if an old peer had sent zeros for what it does not know. */
	uint8_t whole[APH_RX_DEBUG_ANSWER_MAX] = { 0 };
	struct walk walk = { whole, false };
	bool old = len < APH_RX_DEBUG_CONNECTION;

	if (len == 8 && aph_get32(body) == BAD_TYPE && aph_get32(body + 4) == BAD_TYPE) {
		out->unsupported = true;
		return 0;
	}
	memcpy(whole, body, len < sizeof(whole) ? len : sizeof(whole));
	switch (out->query) {
	case APH_RX_QUERY_STATS:
		if (len < 16)
			return -EBADMSG; /* without the letter */
		walk_stats(&walk, &out->stats);
		return 0;
	case APH_RX_QUERY_CONNECTIONS:
	case APH_RX_QUERY_ALL_CONNECTIONS:
		if (len < CONNECTION_OLD)
			return -EBADMSG;
		out->end = aph_get32(body + 4) == LIST_END;
		walk_connection(&walk, &out->connection, old);
		return 0;
	case APH_RX_QUERY_COUNTERS:
		/* Up to what old ones have; each later one has added at the end. */
		if (len < 108)
			return -EBADMSG;
		walk_counters(&walk, &out->counters);
		return 0;
	case APH_RX_QUERY_PEERS:
		if (len < 92)
			return -EBADMSG;
		out->end = aph_get32(body) == LIST_END;
		walk_peer(&walk, &out->peer);
		return 0;
	case APH_RX_QUERY_VERSION:
	default:
		return -ENOMSG;
	}
}

int aph_rx_answer_decode(struct aph_rx_answer *out, const void *packet, size_t len,
			 enum aph_rx_query query, uint32_t id)
{
	const uint8_t *body = (const uint8_t *)packet + APH_RX_HEADER;
	struct aph_rx_answer answer;
	struct aph_rx_header header;
	int r = 0;

	if (len < APH_RX_HEADER)
		return -ENOMSG;
	aph_rx_header_decode(&header, packet);
	if (header.type != (query == APH_RX_QUERY_VERSION ? APH_RX_VERSION : APH_RX_DEBUG) ||
	    header.flags & APH_RX_CLIENT_INITIATED || header.call_number != id)
		return -ENOMSG;

	memset(&answer, 0, sizeof(answer));
	answer.query = query;
	if (query == APH_RX_QUERY_VERSION)
		decode_version(&answer, body, len - APH_RX_HEADER);
	else
		r = decode_debug(&answer, body, len - APH_RX_HEADER);
	if (r < 0)
		return r;
	*out = answer;
	return 0;
}
