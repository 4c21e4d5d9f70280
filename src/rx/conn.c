/* SPDX-License-Identifier: MIT */
/*
 * Connections: four channels, each with one call at a time, between us and one peer. The client end
 * numbers calls and connections; the server end only remembers. An idle connection costs its
 * structure and a place in a list that is ordered by time, and no work.
 */
#include "rx/address.h"
#include "rx/call.h"
#include "rx/proof.h"

#include <errno.h>

/* An idle connection of a service that is younger than this is not thrown out for another one. */
#define EVICT_NS (60000 * APH_RX_MS)
/*
 * Serials may leave out some; far enough for guessing to be hopeless, not so far that they would
 * seem to go back.
 */
#define SKIP_MASK UINT32_C(0xffffff)
/* Bits of a connection's number, above the two of the channel. */
#define CID_HALF      15
#define CID_HALF_MASK UINT32_C(0x7fff)
#define CID_MASK      UINT32_C(0x3fffffff)

/* -- finding ----------------------------------------------------------------------------------- */

/*
 * Ids with bit 31 of the epoch are unique by themselves (section 2.1); older clients' need the
 * address.
 */
static bool is_unique(uint32_t epoch)
{
	return epoch >> 31;
}

static uint32_t hash_conn(const struct aph_rx *rx, const struct aph_rx_peer *peer, uint32_t epoch,
			  uint32_t cid)
{
	uint64_t key[2] = { (uint64_t)epoch << 32 | cid, is_unique(epoch) ? 0 : (uintptr_t)peer };

	return aph_rx_hash(rx, key, sizeof(key));
}

static bool matches(const struct aph_rx_conn *conn, const struct aph_rx_header *header,
		    uint32_t cid, bool is_client)
{
	return conn->cid == cid && conn->epoch == header->epoch && conn->is_client == is_client;
}

/*
 * A server is found by its peer; a client of ours by the ids alone, and then it may insist on the
 * address.
 */
static bool is_from(const struct aph_rx_conn *conn, const struct aph_rx_path *path,
		    const struct aph_rx_peer *peer)
{
	if (conn->peer == peer)
		return true;
	if (!conn->is_client)
		return false;
	if (conn->rx->config.flags & APH_RX_MULTIHOMED)
		return aph_rx_same_port(&conn->peer->path.remote, &path->remote);
	return aph_rx_peer_is_at(conn->peer, path);
}

struct aph_rx_conn *aph_rx_conn_find(struct aph_rx *rx, const struct aph_rx_path *path,
				     struct aph_rx_peer *peer, const struct aph_rx_header *header)
{
	bool is_client = !(header->flags & APH_RX_CLIENT_INITIATED);
	uint32_t cid = header->cid & ~UINT32_C(3);
	struct aph_rx_node *node;
	uint32_t hash;

	if (rx->last_conn && matches(rx->last_conn, header, cid, is_client) &&
	    is_from(rx->last_conn, path, peer))
		return rx->last_conn;
	if (!is_client && !peer)
		return NULL;
	hash = hash_conn(rx, is_client ? NULL : peer, header->epoch, cid);
	node = aph_rx_table_chain(is_client ? &rx->client_conns : &rx->service_conns, hash);
	for (; node; node = node->next) {
		struct aph_rx_conn *conn = aph_container(node, struct aph_rx_conn, node);

		if (node->hash == hash && matches(conn, header, cid, is_client) &&
		    is_from(conn, path, peer)) {
			rx->last_conn = conn;
			return conn;
		}
	}
	return NULL;
}

/*
 * So that a request is not taken for a new one when its client's address changes between two
 * transmissions.
 */
struct aph_rx_conn *aph_rx_conn_find_elsewhere(struct aph_rx *rx,
					       const struct aph_rx_header *header)
{
	uint32_t cid = header->cid & ~UINT32_C(3);
	uint32_t hash = hash_conn(rx, NULL, header->epoch, cid);
	struct aph_rx_node *node;

	if (!is_unique(header->epoch))
		return NULL;
	for (node = aph_rx_table_chain(&rx->service_conns, hash); node; node = node->next) {
		struct aph_rx_conn *conn = aph_container(node, struct aph_rx_conn, node);

		if (node->hash == hash && matches(conn, header, cid, false))
			return conn;
	}
	return NULL;
}

void aph_rx_conn_move(struct aph_rx_conn *conn, struct aph_rx_peer *peer)
{
	aph_rx_peer_ref(peer);
	aph_list_remove(&conn->peer_link);
	conn->rx->limits[conn->peer->group].n_conns--;
	conn->rx->limits[peer->group].n_conns++;
	aph_rx_peer_unref(conn->peer);
	conn->peer = peer;
	aph_list_append(&peer->conns, &conn->peer_link);
}

/* -- life -------------------------------------------------------------------------------------- */

static struct aph_list *idle_list(struct aph_rx_conn *conn)
{
	if (!conn->is_client)
		return &conn->rx->idle_services;
	return conn->spent ? &conn->rx->idle_spent : &conn->rx->idle_clients;
}

static void make_idle(struct aph_rx_conn *conn)
{
	struct aph_rx *rx = conn->rx;
	struct aph_list *list = idle_list(conn);

	conn->idle_since_ns = rx->now_ns - rx->late_ns;
	aph_list_remove(&conn->idle_link);
	if (conn->is_client && conn->failed && aph_list_empty(&conn->receipt_link)) {
		/* It is of no more use: the next to go. */
		conn->idle_since_ns -= rx->config.idle_client_ms * APH_RX_MS;
		list = list->next;
	}
	aph_list_append(list, &conn->idle_link);
}

static struct aph_rx_conn *conn_new(struct aph_rx *rx, struct aph_rx_peer *peer,
				    struct aph_rx_client *client, const struct aph_rx_class *class,
				    uint32_t epoch, uint32_t cid)
{
	struct aph_rx_conn *conn = aph_rx_zalloc(rx, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->rx = rx;
	conn->peer = peer;
	conn->client = client;
	conn->is_client = client != NULL;
	conn->class = class;
	conn->epoch = epoch;
	conn->cid = cid;
	conn->node.hash = hash_conn(rx, client ? NULL : peer, epoch, cid);
	if (aph_rx_table_insert(rx, client ? &rx->client_conns : &rx->service_conns, &conn->node) <
	    0) {
		aph_rx_release(rx, conn, sizeof(*conn));
		return NULL;
	}
	if (class->init && class->init(conn) < 0) {
		aph_rx_table_remove(client ? &rx->client_conns : &rx->service_conns, &conn->node);
		aph_rx_release(rx, conn, sizeof(*conn));
		return NULL;
	}
	aph_list_init(&conn->idle_link);
	aph_list_init(&conn->receipt_link);
	aph_list_init(&conn->bundle_link);
	aph_list_init(&conn->peer_link);
	aph_list_append(&peer->conns, &conn->peer_link);
	aph_rx_peer_ref(peer);
	make_idle(conn);
	if (client)
		rx->stats.n_client_connections++;
	else
		rx->stats.n_service_connections++;
	return conn;
}

/* 30 bits to 30 bits, one to one: a cipher of four rounds (Luby and Rackoff's). */
static uint32_t encipher(const uint64_t key[2], uint32_t n)
{
	uint32_t left = n >> CID_HALF, right = n & CID_HALF_MASK;

	for (uint32_t round = 0; round < 4; round++) {
		uint64_t word = (uint64_t)round << 32 | right;
		uint32_t mixed = left ^ (aph_rx_siphash(key, &word, sizeof(word)) & CID_HALF_MASK);

		left = right;
		right = mixed;
	}
	return left << CID_HALF | right;
}

/*
 * Each connection has another number, as servers remember those of long ago; and a server learns
 * nothing from its own about the others: with the epoch, which it knows, it could take their place
 * elsewhere (section 2).
 */
static uint32_t next_cid(struct aph_rx *rx)
{
	uint32_t cid;

	do {
		cid = encipher(rx->cid_key, rx->n_cids++ & CID_MASK) << 2;
	} while (!cid);
	return cid;
}

struct aph_rx_conn *aph_rx_conn_new_client(struct aph_rx_client *client)
{
	struct aph_rx *rx = client->rx;
	struct aph_rx_conn *conn;

	conn = conn_new(rx, client->peer, client, client->class, rx->epoch, next_cid(rx));
	if (!conn)
		return NULL;
	conn->service = client->service;
	aph_list_append(&client->conns, &conn->bundle_link);
	client->n_conns++;
	return conn;
}

void aph_rx_conn_spend(struct aph_rx_conn *conn)
{
	if (!conn->client || conn->spent)
		return;
	conn->spent = true;
	conn->client->n_conns--;
	aph_list_remove(&conn->bundle_link);
	aph_list_append(&conn->client->spent, &conn->bundle_link);
}

void aph_rx_conn_leave(struct aph_rx_conn *conn)
{
	if (!aph_rx_conn_owes(conn)) {
		aph_rx_conn_free(conn);
		return;
	}
	aph_rx_conn_spend(conn);
	aph_list_remove(&conn->bundle_link);
	conn->client = NULL;
	conn->probing = false;
	aph_rx_conn_hurry(conn);
}

bool aph_rx_conn_evict(struct aph_rx *rx)
{
	struct aph_rx_conn *oldest;

	if (aph_list_empty(&rx->idle_services))
		return false;
	oldest = aph_container(rx->idle_services.next, struct aph_rx_conn, idle_link);
	if (oldest->idle_since_ns + rx->late_ns + EVICT_NS > rx->now_ns)
		return false;
	aph_rx_conn_free(oldest);
	return true;
}

static bool has_room(const struct aph_rx *rx, uint32_t group)
{
	uint32_t n = rx->limits[group].n_conns;

	return n < aph_rx_group_share(rx->config.connections_max, rx->service_conns.n - n);
}

struct aph_rx_conn *aph_rx_conn_new_service(struct aph_rx *rx, struct aph_rx_peer *peer,
					    const struct aph_rx_header *header)
{
	struct aph_rx_conn *conn;

	if (!has_room(rx, peer->group) && (!aph_rx_conn_evict(rx) || !has_room(rx, peer->group)))
		return NULL;
	conn = conn_new(rx, peer, NULL, &aph_rx_null, header->epoch, header->cid & ~UINT32_C(3));
	if (!conn)
		return NULL;
	conn->service = header->service;
	rx->limits[peer->group].n_conns++;
	return conn;
}

void aph_rx_conn_free(struct aph_rx_conn *conn)
{
	struct aph_rx *rx = conn->rx;

	if (conn->class->deinit)
		conn->class->deinit(conn);
	if (rx->last_conn == conn)
		rx->last_conn = NULL;
	aph_rx_conn_quits(conn);
	aph_list_remove(&conn->idle_link);
	aph_list_remove(&conn->bundle_link);
	aph_list_remove(&conn->peer_link);
	if (conn->is_client) {
		if (conn->client)
			conn->client->n_conns -= !conn->spent;
		rx->stats.n_client_connections--;
		aph_rx_table_remove(&rx->client_conns, &conn->node);
	} else {
		rx->stats.n_service_connections--;
		rx->limits[conn->peer->group].n_conns--;
		aph_rx_table_remove(&rx->service_conns, &conn->node);
	}
	aph_rx_peer_unref(conn->peer);
	aph_rx_release(rx, conn, sizeof(*conn));
}

/* -- channels ---------------------------------------------------------------------------------- */

uint32_t aph_rx_conn_serial(struct aph_rx_conn *conn)
{
	return ++conn->serial;
}

void aph_rx_conn_skip_serials(struct aph_rx_conn *conn)
{
	struct aph_rx *rx = conn->rx;
	uint32_t n;

	rx->config.random(rx->config.random_arg, &n, sizeof(n));
	conn->serial += n & SKIP_MASK;
}

void aph_rx_conn_begins(struct aph_rx_conn *conn, unsigned channel)
{
	struct aph_rx_channel *ch = &conn->channels[channel];

	ch->abort_code = 0;
	ch->done = false;
	ch->receipt_due = ch->abort_due = false;
}

void aph_rx_conn_attach(struct aph_rx_conn *conn, unsigned channel, struct aph_rx_call *call,
			uint32_t number)
{
	struct aph_rx_channel *ch = &conn->channels[channel];

	ch->call = call;
	ch->call_number = number;
	if (!conn->is_client)
		aph_rx_conn_begins(conn, channel);
	call->conn = conn;
	call->channel = (uint8_t)channel;
	call->number = number;
	call->serial_before = conn->serial;
	call->epoch = conn->epoch;
	call->cid = conn->cid | channel;
	if (conn->n_calls++ == 0)
		aph_list_remove(&conn->idle_link);
	if (!conn->client)
		return;
	conn->client->n_begun++;
	/* No number is left for another call. */
	if (number >= APH_RX_CALL_NUMBER_MAX)
		aph_rx_conn_spend(conn);
}

void aph_rx_conn_hurry(struct aph_rx_conn *conn)
{
	aph_rx_conn_quits(conn);
	conn->receipt_ns = conn->rx->now_ns;
	/* To the front: the list is in order of time. */
	aph_list_append(conn->rx->receipts.next, &conn->receipt_link);
	conn->rx->n_receipts++;
}

void aph_rx_conn_quits(struct aph_rx_conn *conn)
{
	if (aph_list_empty(&conn->receipt_link))
		return;
	aph_list_remove(&conn->receipt_link);
	conn->rx->n_receipts--;
}

static void owe_receipt(struct aph_rx_conn *conn, struct aph_rx_channel *ch,
			const struct aph_rx_call *call)
{
	struct aph_rx *rx = conn->rx;

	ch->last_seq = call->in.last;
	ch->receipt_serial = 0;
	/*
	 * No ACK was hard for all of it: the call ends with the last packet that is read, or with
	 * some unread.
	 */
	ch->receipt_due = true;
	if (!aph_list_empty(&conn->receipt_link))
		return;
	conn->receipt_ns = rx->now_ns + rx->config.final_ack_delay_ms * APH_RX_MS;
	aph_list_append(&rx->receipts, &conn->receipt_link);
	rx->n_receipts++;
}

/* How its last call has ended, for whoever asks. */
static void note_end(struct aph_rx_conn *conn, struct aph_rx_channel *ch,
		     const struct aph_rx_call *call)
{
	ch->done = call->end.outcome == APH_RX_DONE;
	ch->abort_code = 0;
	if (!ch->done) {
		ch->abort_code = call->end.code < 0 || call->end.outcome == APH_RX_ABORTED_HERE
					 ? call->end.code
					 : APH_RX_CALL_DEAD;
		conn->unheard |= call->n_sent && !call->received;
	}
	/* Others of its packets, or copies, may still be on their way. */
	if (call->n_sent > 1)
		conn->stray_ns = conn->rx->now_ns;
	ch->abort_due = ch->abort_due && !ch->done;
	if (ch->done && conn->is_client)
		owe_receipt(conn, ch, call);
}

void aph_rx_conn_release(struct aph_rx_conn *conn, struct aph_rx_call *call)
{
	struct aph_rx_channel *ch = &conn->channels[call->channel];

	ch->call = NULL;
	/* Nobody has heard of its number: the last call is the one before, with what it owes. */
	if (conn->is_client && !call->n_sent)
		ch->call_number--;
	else
		note_end(conn, ch, call);
	call->conn = NULL;
	if (--conn->n_calls == 0)
		make_idle(conn);
	if (!conn->client)
		return;
	conn->client->n_begun--;
	aph_rx_client_assign(conn->client);
}

/* Whether what is said of the connection may answer packets of more calls than one. */
static bool is_vague(const struct aph_rx_conn *conn)
{
	const struct aph_rx *rx = conn->rx;
	unsigned i, n = conn->unheard;

	if (conn->stray_ns && rx->now_ns - conn->stray_ns < rx->config.dead_ms * APH_RX_MS)
		n++;
	for (i = 0; i < 4; i++)
		n += conn->channels[i].call && conn->channels[i].call->n_sent;
	return n > 1;
}

void aph_rx_conn_fail(struct aph_rx_conn *conn, enum aph_rx_outcome outcome, int32_t code)
{
	bool vague = is_vague(conn);
	unsigned i;

	conn->failed = true;
	aph_rx_conn_spend(conn);
	if (outcome == APH_RX_ABORTED || outcome == APH_RX_ABORTED_HERE)
		conn->abort_code = code;
	for (i = 0; i < 4; i++) {
		struct aph_rx_call *call = conn->channels[i].call;

		if (!call)
			continue;
		call->vague = vague;
		aph_rx_call_end(call, outcome, code);
	}
	if (conn->is_client && !conn->n_calls)
		make_idle(conn);
}

/* -- what is idle ------------------------------------------------------------------------------ */

static uint64_t expiry(const struct aph_rx *rx, const struct aph_list *list, uint32_t idle_ms)
{
	uint64_t due_ns;

	if (aph_list_empty(list))
		return UINT64_MAX;
	due_ns = aph_container(list->next, struct aph_rx_conn, idle_link)->idle_since_ns +
		 rx->late_ns + idle_ms * APH_RX_MS;
	/* One that failed may be said to have been idle since before the clock began. */
	return (int64_t)due_ns < 0 ? 0 : due_ns;
}

static uint32_t idle_client_ms(const struct aph_rx *rx)
{
	const struct aph_rx_config *config = &rx->config;
	bool is_crowd = config->crowd && rx->client_conns.n > config->crowd;

	return is_crowd && config->crowd_idle_ms < config->idle_client_ms ? config->crowd_idle_ms
									  : config->idle_client_ms;
}

/*
 * One that takes no new calls is only there to say again what became of its last ones, while
 * servers may still ask.
 */
static uint32_t idle_spent_ms(const struct aph_rx *rx)
{
	uint32_t idle_ms = idle_client_ms(rx);

	return rx->config.dead_ms < idle_ms ? rx->config.dead_ms : idle_ms;
}

uint64_t aph_rx_conn_expiry(const struct aph_rx *rx)
{
	uint64_t clients = expiry(rx, &rx->idle_clients, idle_client_ms(rx));
	uint64_t spent = expiry(rx, &rx->idle_spent, idle_spent_ms(rx));
	uint64_t services = expiry(rx, &rx->idle_services, rx->config.idle_service_ms);

	clients = spent < clients ? spent : clients;
	return clients < services ? clients : services;
}

/* Frees the first of the list if it is due. */
static bool expire(struct aph_rx *rx, struct aph_list *list, uint32_t idle_ms)
{
	struct aph_rx_client *client;
	struct aph_rx_conn *conn;

	if (expiry(rx, list, idle_ms) > rx->now_ns)
		return false;
	conn = aph_container(list->next, struct aph_rx_conn, idle_link);
	client = conn->client;
	aph_rx_conn_free(conn);
	if (client)
		aph_rx_client_assign(client);
	return true;
}

void aph_rx_conn_expire(struct aph_rx *rx)
{
	while (expire(rx, &rx->idle_spent, idle_spent_ms(rx)))
		;
	while (expire(rx, &rx->idle_clients, idle_client_ms(rx)))
		;
	while (expire(rx, &rx->idle_services, rx->config.idle_service_ms))
		;
}
