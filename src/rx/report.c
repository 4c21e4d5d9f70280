/* SPDX-License-Identifier: MIT */
/*
 * What the network says about datagrams of ours. Anybody can forge it: it counts if it quotes a
 * connection that there is, and then for all of that peer's; for its youngest, where it has very
 * many, as reports about its own cost a peer little. What is quoted may have left long ago, before
 * somebody was at the port: it says nothing about calls that began later.
 */
#include "rx/call.h"
#include "rx/engine.h"

#include <errno.h>

#define CONNECTIONS_MAX 1024 /* that one report may end */

/* Whether the quoted packet can be one that left on the connection, as far as it is shown. */
static bool is_ours(const struct aph_rx_conn *conn, const uint8_t *quote, size_t len)
{
	uint32_t cid = aph_get32(quote + 4);

	if (aph_get32(quote) != conn->epoch || (cid & ~3u) != conn->cid)
		return false;
	if (len >= 12 && aph_get32(quote + 8) > conn->channels[cid & 3].call_number)
		return false;
	if (len >= 20 && (int32_t)(aph_get32(quote + 16) - conn->serial) > 0)
		return false;
	return len < 22 || !(quote[21] & APH_RX_CLIENT_INITIATED) == !conn->is_client;
}

/*
 * The connection that the quoted packet left on, or NULL. Who does not see our packets can guess
 * addresses and ports, and no more than those must a router show: a report that does not tell which
 * connection it is about is not believed. Without it the calls end a little later, by time.
 */
static struct aph_rx_conn *find_quoted(struct aph_rx_peer *peer, const uint8_t *quote, size_t len)
{
	if (!quote || len < 8)
		return NULL;
	/* As an answer to it would be found: at our client's end, or at our service's. */
	for (unsigned i = 0; i < 2; i++) {
		const struct aph_rx_header answer = {
			.epoch = aph_get32(quote),
			.cid = aph_get32(quote + 4),
			.flags = i ? APH_RX_CLIENT_INITIATED : 0,
		};
		struct aph_rx_conn *conn = aph_rx_conn_find(peer->rx, &peer->path, peer, &answer);

		if (conn && conn->peer == peer && is_ours(conn, quote, len))
			return conn;
	}
	return NULL;
}

/*
 * A call whose first packet came back has not reached anybody, if no copy of that packet was sent.
 */
static void note_bounce(struct aph_rx_conn *conn, const uint8_t *quote, size_t len)
{
	struct aph_rx_header header;
	struct aph_rx_call *call;

	if (len < APH_RX_HEADER || !conn->is_client)
		return;
	aph_rx_header_decode(&header, quote);
	call = conn->channels[header.cid & 3].call;
	if (call && header.type == APH_RX_DATA && header.seq == 1 &&
	    header.call_number == call->number && !call->received && !call->n_resent)
		call->bounced = true;
}

static void fail(struct aph_rx_conn *conn, enum aph_rx_outcome outcome, int error)
{
	if (conn->n_calls)
		aph_rx_conn_fail(conn, outcome, error);
}

/* Whether the call had begun when the quoted packet left, as far as it is shown. */
static bool is_concerned(const struct aph_rx_call *call, const uint8_t *quote, size_t len)
{
	return len < 20 || (int32_t)(aph_get32(quote + 16) - call->serial_before) > 0;
}

/* Ends the calls of its connection that a report concerns. Returns how many. */
static unsigned fail_quoted(struct aph_rx_conn *conn, int error, const uint8_t *quote, size_t len)
{
	struct aph_rx_call *concerned[4];
	unsigned n = 0;

	for (unsigned i = 0; i < 4; i++) {
		struct aph_rx_call *call = conn->channels[i].call;

		if (call && is_concerned(call, quote, len))
			concerned[n++] = call;
	}
	if (n == conn->n_calls) {
		fail(conn, APH_RX_NET_ERROR, error);
		return n;
	}
	if (n)
		aph_rx_conn_spend(conn);
	for (unsigned i = 0; i < n; i++) {
		concerned[i]->vague = true;
		aph_rx_call_end(concerned[i], APH_RX_NET_ERROR, error);
	}
	return n;
}

static void peer_error(struct aph_rx_peer *peer, int error, uint32_t mtu, const void *quote,
		       size_t quote_len, bool local)
{
	enum aph_rx_outcome outcome = local ? APH_RX_LOCAL_ERROR : APH_RX_NET_ERROR;
	struct aph_rx_conn *quoted;
	struct aph_list *pos;

	if (!peer)
		return;
	quoted = find_quoted(peer, quote, quote_len);
	if (!local && !quoted)
		return;
	if (error == EMSGSIZE) {
		aph_rx_pmtu_too_large(&peer->pmtu, mtu);
		return;
	}
	if (quoted)
		note_bounce(quoted, quote, quote_len);
	if (local && quoted)
		fail(quoted, outcome, error);
	else if (!local && !fail_quoted(quoted, error, quote, quote_len))
		return;
	pos = peer->conns.prev;
	for (unsigned i = 0; pos != &peer->conns && i < CONNECTIONS_MAX; i++) {
		struct aph_rx_conn *conn = aph_container(pos, struct aph_rx_conn, peer_link);

		pos = pos->prev;
		if (local || conn != quoted)
			fail(conn, outcome, error);
	}
}

void aph_rx_receive_error(struct aph_rx *rx, const struct aph_rx_path *path, int error,
			  uint32_t mtu, const void *quote, size_t quote_len, bool local,
			  uint64_t now_ns)
{
	struct aph_rx_path remote = *path;

	aph_rx_set_now(rx, now_ns);
	peer_error(aph_rx_peer_find(rx, path), error, mtu, quote, quote_len, local);
	if (path->local.family == 0)
		return;
	/* Those whom we call are known without our own address. */
	remote.local.family = 0;
	peer_error(aph_rx_peer_find(rx, &remote), error, mtu, quote, quote_len, local);
}
