/* SPDX-License-Identifier: MIT */
/*
 * What the network says about datagrams of ours. Anybody can forge it: it counts for the connection that it quotes.
 */
#include "rx/engine.h"

#include <errno.h>

/* The connection that the quoted packet of ours belonged to; forged ones rarely quote one that there is. */
static bool is_quote_plausible(struct aph_rx_peer *peer, const uint8_t *quote, size_t len)
{
	struct aph_list *pos, *tmp;

	if (!quote || len < 8)
		return true;
	aph_list_for_each(pos, tmp, &peer->conns) {
		const struct aph_rx_conn *conn = aph_container(pos, struct aph_rx_conn, peer_link);

		if (aph_get32(quote) == conn->epoch && (aph_get32(quote + 4) & ~3u) == conn->cid)
			return true;
	}
	return false;
}

/* A call whose first packet came back has not reached anybody, if no copy of that packet was sent. */
static void note_bounce(struct aph_rx_conn *conn, const uint8_t *quote, size_t len)
{
	struct aph_rx_header header;
	struct aph_rx_call *call;

	if (!quote || len < APH_RX_HEADER || !conn->is_client)
		return;
	aph_rx_header_decode(&header, quote);
	if (header.epoch != conn->epoch || (header.cid & ~3u) != conn->cid)
		return;
	call = conn->channels[header.cid & 3].call;
	if (call && header.type == APH_RX_DATA && header.seq == 1 &&
	    header.call_number == call->number && !call->received && !call->n_resent)
		call->bounced = true;
}

static void peer_error(struct aph_rx_peer *peer, int error, uint32_t mtu, const void *quote,
		       size_t quote_len, bool local)
{
	struct aph_list *pos, *tmp;

	if (!peer || !is_quote_plausible(peer, quote, quote_len))
		return;
	if (error == EMSGSIZE) {
		aph_rx_pmtu_too_large(&peer->pmtu, mtu, peer->rx->now_ns);
		return;
	}
	aph_rx_peer_ref(peer);
	aph_list_for_each(pos, tmp, &peer->conns) {
		struct aph_rx_conn *conn = aph_container(pos, struct aph_rx_conn, peer_link);

		if (!conn->n_calls)
			continue;
		note_bounce(conn, quote, quote_len);
		aph_rx_conn_fail(conn, local ? APH_RX_LOCAL_ERROR : APH_RX_NET_ERROR, error);
	}
	aph_rx_peer_unref(peer);
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
