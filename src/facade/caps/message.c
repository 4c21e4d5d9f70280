/* SPDX-License-Identifier: MIT */
/*
 * Messages, their places and ids, and peers. A place is found by its index, which the id carries in
 * its low bits; the serial number above it makes every id one of its own for as long as the port
 * lives.
 */
#include "port.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INDEX_BITS 24

/* -- lists ------------------------------------------------------------------------------------- */

void aph_caps_link_init(struct aph_caps_link *head)
{
	head->next = head->prev = head;
}

void aph_caps_link_append(struct aph_caps_link *head, struct aph_caps_link *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}

void aph_caps_link_remove(struct aph_caps_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	aph_caps_link_init(link);
}

/* -- places ------------------------------------------------------------------------------------ */

static bool grow(struct aph_caps_pool *pool)
{
	struct aph_caps_message **chunks, *chunk;
	uint32_t i;

	if (pool->n_chunks >= (1u << INDEX_BITS) / APH_CAPS_POOL_CHUNK)
		return false;
	chunk = calloc(APH_CAPS_POOL_CHUNK, sizeof(*chunk));
	chunks = realloc(pool->chunks, (pool->n_chunks + 1) * sizeof(struct aph_caps_message *));
	if (chunks)
		pool->chunks = chunks;
	if (!chunk || !chunks) {
		free(chunk);
		return false;
	}
	for (i = 0; i < APH_CAPS_POOL_CHUNK; i++) {
		chunk[i].id = (off_t)pool->n_chunks * APH_CAPS_POOL_CHUNK + i;
		aph_caps_link_append(&pool->unused, &chunk[i].link);
	}
	pool->chunks[pool->n_chunks++] = chunk;
	return true;
}

struct aph_caps_message *aph_caps_message_new(struct aph_caps_port *port,
					      struct aph_caps_peer *peer)
{
	struct aph_caps_pool *pool = &port->pool;
	struct aph_caps_message *m;
	off_t index;

	if (aph_caps_link_empty(&pool->unused) && !grow(pool))
		return NULL;
	/* The place that was used last is the one that is in the cache. */
	m = APH_CAPS_CONTAINER(pool->unused.prev, struct aph_caps_message, link);
	aph_caps_link_remove(&m->link);
	index = m->id & ((1 << INDEX_BITS) - 1);
	*m = (struct aph_caps_message){ .id = ++pool->serial << INDEX_BITS | index };
	aph_caps_link_init(&m->link);
	aph_caps_link_init(&m->peer_link);
	if (peer)
		aph_caps_message_adopt(m, peer);
	return m;
}

void aph_caps_message_adopt(struct aph_caps_message *m, struct aph_caps_peer *peer)
{
	m->peer = peer;
	peer->refs++;
	aph_caps_link_append(&peer->messages, &m->peer_link);
}

void aph_caps_message_free(struct aph_caps_port *port, struct aph_caps_message *m)
{
	aph_caps_body_drop(m);
	if (m->call)
		m->call = aph_call_free(m->call);
	aph_caps_link_remove(&m->link);
	aph_caps_link_remove(&m->peer_link);
	if (m->peer)
		aph_caps_peer_unref(m->peer);
	m->peer = NULL;
	m->stage = APH_CAPS_UNUSED;
	aph_caps_link_append(&port->pool.unused, &m->link);
}

struct aph_caps_message *aph_caps_message_find(struct aph_caps_port *port, off_t id)
{
	uint32_t index = (uint32_t)(id & ((1 << INDEX_BITS) - 1));
	struct aph_caps_message *m;

	if (id < 0 || index / APH_CAPS_POOL_CHUNK >= port->pool.n_chunks)
		return NULL;
	m = &port->pool.chunks[index / APH_CAPS_POOL_CHUNK][index % APH_CAPS_POOL_CHUNK];
	return m->id == id && m->stage != APH_CAPS_UNUSED ? m : NULL;
}

void aph_caps_pool_deinit(struct aph_caps_port *port)
{
	struct aph_caps_pool *pool = &port->pool;
	uint32_t i;

	for (i = 0; i < pool->n_chunks * APH_CAPS_POOL_CHUNK; i++) {
		struct aph_caps_message *m =
			&pool->chunks[i / APH_CAPS_POOL_CHUNK][i % APH_CAPS_POOL_CHUNK];

		if (m->stage != APH_CAPS_UNUSED)
			aph_caps_message_free(port, m);
	}
	for (i = 0; i < pool->n_chunks; i++)
		free(pool->chunks[i]);
	free(pool->chunks);
	pool->chunks = NULL;
	pool->n_chunks = 0;
	aph_caps_link_init(&pool->unused);
}

/* -- what can be retrieved --------------------------------------------------------------------- */

void aph_caps_message_ready(struct aph_caps_port *port, struct aph_caps_message *m,
			    caps_msg_state_t state)
{
	m->stage = APH_CAPS_READY;
	m->state = state;
	aph_caps_link_remove(&m->link);
	aph_caps_link_append(&port->ready, &m->link);
	port->fresh = true;
}

struct aph_caps_message *aph_caps_message_first(struct aph_caps_port *port)
{
	if (aph_caps_link_empty(&port->ready))
		return NULL;
	return APH_CAPS_CONTAINER(port->ready.next, struct aph_caps_message, link);
}

/* -- peers ------------------------------------------------------------------------------------- */

static size_t limit_of(const struct aph_caps_port *port, const struct aph_caps_peer *peer)
{
	if (port->bytes_max >= 0)
		return (size_t)port->bytes_max;
	return peer->cred.euid == geteuid() || peer->cred.euid == 0 ? INT_MAX : CAPS_PEER_BYTES;
}

void aph_caps_peer_limits(struct aph_caps_port *port)
{
	struct aph_caps_link *pos;

	for (pos = port->peers.next; pos != &port->peers; pos = pos->next) {
		struct aph_caps_peer *peer = APH_CAPS_CONTAINER(pos, struct aph_caps_peer, link);

		peer->bytes_max = limit_of(port, peer);
	}
}

static void fill_cred(struct caps_cred *cred, const struct aph_credentials *from)
{
	size_t n = from->n_groups < CAPS_MAXGROUPS ? from->n_groups : CAPS_MAXGROUPS;

	*cred = (struct caps_cred){
		.pid = from->pid,
		.uid = from->uid,
		.euid = from->euid,
		.gid = from->gid,
		.ngroups = (int)n,
	};
	if (n)
		memcpy(cred->groups, from->groups, n * sizeof(*from->groups));
}

void aph_caps_peer_refresh(struct aph_caps_peer *peer)
{
	int cacheid = peer->cred.cacheid;

	if (!peer->channel)
		return;
	fill_cred(&peer->cred, aph_channel_credentials(peer->channel));
	peer->cred.cacheid = cacheid;
}

struct aph_caps_peer *aph_caps_peer_new(struct aph_caps_port *port, struct aph_channel *channel)
{
	struct aph_caps_peer *peer = calloc(1, sizeof(*peer));

	if (!peer)
		return NULL;
	peer->refs = 1;
	peer->channel = channel;
	aph_caps_link_init(&peer->messages);
	fill_cred(&peer->cred, aph_channel_credentials(channel));
	peer->bytes_max = limit_of(port, peer);
	aph_caps_link_append(&port->peers, &peer->link);
	return peer;
}

void aph_caps_peer_unref(struct aph_caps_peer *peer)
{
	if (--peer->refs)
		return;
	aph_caps_link_remove(&peer->link);
	free(peer);
}
