/* SPDX-License-Identifier: MIT */
/*
 * Peers: one for each path, with all that is known of it. A peer that nobody refers to is kept for
 * a minute, as its round-trip time and window are worth something; when there are too many, the one
 * idle longest goes.
 *
 * Until it has answered, an address may be forged: what we send to it is then bounded by what came
 * from it. Who forges one gets nothing of what we send, but can guess most of it: the answer that
 * counts is the one to a PING whose serial is random.
 */
#include "rx/address.h"
#include "rx/engine.h"

#include <string.h>

#define KEEP_NS		   (60000 * APH_RX_MS)
#define EVICT_MAX	   64 /* connections for one peer */
#define UNPROVEN_FACTOR	   3
#define UNPROVEN_ALLOWANCE 256
#define UNPROVEN_QUESTIONS 256 /* bytes more, of PINGs only */

static bool same_path(const struct aph_rx_path *a, const struct aph_rx_path *b)
{
	return aph_rx_same_host(&a->remote, &b->remote) &&
	       aph_rx_same_port(&a->remote, &b->remote) && aph_rx_same_host(&a->local, &b->local);
}

bool aph_rx_peer_is_at(const struct aph_rx_peer *peer, const struct aph_rx_path *path)
{
	return aph_rx_same_host(&peer->path.remote, &path->remote) &&
	       aph_rx_same_port(&peer->path.remote, &path->remote) &&
	       (peer->path.local.family == 0 || aph_rx_same_host(&peer->path.local, &path->local));
}

static uint32_t hash_path(const struct aph_rx *rx, const struct aph_rx_path *path)
{
	struct {
		uint8_t remote[16];
		uint8_t local[16];
		uint32_t port, scope;
	} key = { .scope = 0 };

	if (path->remote.family == AF_INET) {
		memcpy(key.remote, &path->remote.in.sin_addr, 4);
		key.port = path->remote.in.sin_port;
	} else if (path->remote.family == AF_INET6) {
		memcpy(key.remote, &path->remote.in6.sin6_addr, 16);
		key.port = path->remote.in6.sin6_port;
		key.scope = path->remote.in6.sin6_scope_id;
	}
	if (path->local.family == AF_INET)
		memcpy(key.local, &path->local.in.sin_addr, 4);
	else if (path->local.family == AF_INET6)
		memcpy(key.local, &path->local.in6.sin6_addr, 16);
	return aph_rx_hash(rx, &key, sizeof(key));
}

static struct aph_rx_peer *find(struct aph_rx *rx, const struct aph_rx_path *path, uint32_t hash)
{
	struct aph_rx_node *node;

	for (node = aph_rx_table_chain(&rx->peers, hash); node; node = node->next) {
		struct aph_rx_peer *peer = aph_container(node, struct aph_rx_peer, node);

		if (node->hash == hash && same_path(&peer->path, path)) {
			rx->last_peer = peer;
			return peer;
		}
	}
	return NULL;
}

struct aph_rx_peer *aph_rx_peer_find(struct aph_rx *rx, const struct aph_rx_path *path)
{
	if (rx->last_peer && same_path(&rx->last_peer->path, path))
		return rx->last_peer;
	return find(rx, path, hash_path(rx, path));
}

static void free_peer(struct aph_rx_peer *peer)
{
	struct aph_rx *rx = peer->rx;

	if (rx->last_peer == peer)
		rx->last_peer = NULL;
	aph_list_remove(&peer->idle);
	rx->n_idle_peers--;
	aph_rx_table_remove(&rx->peers, &peer->node);
	rx->stats.n_peers--;
	aph_rx_release(rx, peer, sizeof(*peer));
}

/* Peers whose connections have been idle for long become idle themselves. */
static bool has_idle(struct aph_rx *rx)
{
	for (unsigned i = 0; aph_list_empty(&rx->idle_peers); i++) {
		if (i == EVICT_MAX || !aph_rx_conn_evict(rx))
			return false;
	}
	return true;
}

/*
 * What a path is taken to carry at first. Routers of IPv6 do not fragment and sometimes do not say
 * so, so that what is once cut too large would never arrive: there it is what every path carries,
 * until a probe has shown more.
 */
static uint16_t first_mtu(const struct aph_rx *rx, const struct aph_rx_path *path)
{
	if (rx->config.mtu)
		return (uint16_t)rx->config.mtu;
	if (path->remote.family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&path->remote.in6.sin6_addr) &&
	    !(rx->config.flags & APH_RX_NO_PMTU_PROBES))
		return APH_RX_MTU_IPV6;
	return APH_RX_MTU_DEFAULT;
}

struct aph_rx_peer *aph_rx_peer_get(struct aph_rx *rx, const struct aph_rx_path *path)
{
	struct aph_rx_peer *peer = aph_rx_peer_find(rx, path);

	if (peer)
		return peer;
	if (rx->peers.n >= rx->config.peers_max) {
		if (!has_idle(rx))
			return NULL;
		free_peer(aph_container(rx->idle_peers.next, struct aph_rx_peer, idle));
	}
	peer = aph_rx_zalloc(rx, sizeof(*peer));
	if (!peer)
		return NULL;
	peer->rx = rx;
	peer->path = *path;
	peer->node.hash = hash_path(rx, path);
	peer->group = aph_rx_group(rx, path);
	if (aph_rx_table_insert(rx, &rx->peers, &peer->node) < 0) {
		aph_rx_release(rx, peer, sizeof(*peer));
		return NULL;
	}
	aph_list_init(&peer->conns);
	aph_rx_pmtu_init(&peer->pmtu, first_mtu(rx, path));
	peer->ssthresh = UINT32_MAX;
	peer->rwind = APH_RX_WINDOW_START;
	peer->idle_since_ns = rx->now_ns;
	aph_list_init(&peer->idle);
	aph_list_append(&rx->idle_peers, &peer->idle);
	rx->n_idle_peers++;
	rx->stats.n_peers++;
	return peer;
}

static bool has_room(const struct aph_rx *rx, uint32_t group)
{
	uint32_t n = rx->limits[group].n_peers;

	return n < aph_rx_group_share(rx->config.peers_max, rx->peers.n - rx->n_idle_peers - n);
}

struct aph_rx_peer *aph_rx_peer_admit(struct aph_rx *rx, const struct aph_rx_path *path)
{
	struct aph_rx_peer *peer = aph_rx_peer_find(rx, path);
	uint32_t group = aph_rx_group(rx, path);

	if (peer && peer->refs)
		return peer;
	for (unsigned i = 0; !has_room(rx, group); i++) {
		if (i == EVICT_MAX || !aph_rx_conn_evict(rx))
			return NULL;
	}
	return aph_rx_peer_get(rx, path);
}

void aph_rx_peer_ref(struct aph_rx_peer *peer)
{
	if (peer->refs++)
		return;
	aph_list_remove(&peer->idle);
	peer->rx->n_idle_peers--;
	peer->rx->limits[peer->group].n_peers++;
}

void aph_rx_peer_unref(struct aph_rx_peer *peer)
{
	if (--peer->refs)
		return;
	peer->idle_since_ns = peer->rx->now_ns;
	aph_list_append(&peer->rx->idle_peers, &peer->idle);
	peer->rx->n_idle_peers++;
	peer->rx->limits[peer->group].n_peers--;
}

uint64_t aph_rx_peer_expiry(const struct aph_rx *rx)
{
	if (aph_list_empty(&rx->idle_peers))
		return UINT64_MAX;
	return aph_container(rx->idle_peers.next, struct aph_rx_peer, idle)->idle_since_ns +
	       KEEP_NS;
}

void aph_rx_peer_expire(struct aph_rx *rx)
{
	while (aph_rx_peer_expiry(rx) <= rx->now_ns)
		free_peer(aph_container(rx->idle_peers.next, struct aph_rx_peer, idle));
}

void aph_rx_peer_free_all(struct aph_rx *rx)
{
	while (!aph_list_empty(&rx->idle_peers))
		free_peer(aph_container(rx->idle_peers.next, struct aph_rx_peer, idle));
}

uint16_t aph_rx_peer_payload(const struct aph_rx_peer *peer)
{
	uint16_t payload = (uint16_t)(peer->pmtu.current - APH_RX_HEADER);

	return payload < APH_RX_PAYLOAD_MAX ? payload : APH_RX_PAYLOAD_MAX;
}

static bool is_earned(const struct aph_rx_peer *peer, size_t len, unsigned allowance)
{
	return peer->proven ||
	       peer->bytes_out + len <= (uint64_t)UNPROVEN_FACTOR * peer->bytes_in + allowance;
}

bool aph_rx_peer_may_send(const struct aph_rx_peer *peer, size_t len)
{
	return is_earned(peer, len, UNPROVEN_ALLOWANCE);
}

bool aph_rx_peer_may_ask(const struct aph_rx_peer *peer, size_t len)
{
	return is_earned(peer, len, UNPROVEN_ALLOWANCE + UNPROVEN_QUESTIONS);
}

void aph_rx_peer_prove(struct aph_rx_peer *peer)
{
	peer->proven = true;
}

void aph_rx_peer_round_trip(struct aph_rx_peer *peer, uint64_t ns)
{
	struct aph_rx_tally *tally = &peer->rx->tally;
	uint64_t us = ns / 1000;

	aph_rx_rtt_sample(&peer->rtt, ns, peer->rx->now_ns);
	if (!tally->n_rtts++ || us < tally->rtt_min_us)
		tally->rtt_min_us = us;
	if (us > tally->rtt_max_us)
		tally->rtt_max_us = us;
	tally->rtt_total_us += us;
}
