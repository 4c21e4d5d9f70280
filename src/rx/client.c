/* SPDX-License-Identifier: MIT */
/*
 * Clients: a bundle of connections to one service of one peer. A call takes a free channel of a
 * connection that is there, else of a new one, else it waits for its turn.
 */
#include "rx/call.h"

#include <errno.h>

int aph_rx_client_new(struct aph_rx_client **out, struct aph_rx *rx, const struct aph_rx_path *path,
		      uint16_t id, const struct aph_rx_client_options *options)
{
	struct aph_rx_client *client;
	struct aph_rx_peer *peer;

	if (options && options->size != sizeof(*options))
		return -EINVAL;
	if (path->remote.family != AF_INET && path->remote.family != AF_INET6)
		return -EAFNOSUPPORT;
	peer = aph_rx_peer_get(rx, path);
	if (!peer)
		return rx->peers.n >= rx->config.peers_max ? -ENOBUFS : -ENOMEM;
	client = aph_rx_zalloc(rx, sizeof(*client));
	if (!client)
		return -ENOMEM;
	client->rx = rx;
	client->peer = peer;
	client->class = &aph_rx_null;
	client->service = id;
	client->connections_max = options && options->connections_max ? options->connections_max
								      : 4;
	client->data = options ? options->data : NULL;
	aph_list_init(&client->conns);
	aph_list_init(&client->spent);
	aph_list_init(&client->waiting);
	aph_list_init(&client->assign_link);
	aph_list_init(&client->calls);
	aph_list_append(&rx->clients, &client->link);
	aph_rx_peer_ref(peer);
	/* We call it of our own accord: there is nothing to be had by forging its address. */
	aph_rx_peer_prove(peer);
	*out = client;
	return 0;
}

static void leave_all(struct aph_list *conns)
{
	while (!aph_list_empty(conns))
		aph_rx_conn_leave(aph_container(conns->next, struct aph_rx_conn, bundle_link));
}

struct aph_rx_client *aph_rx_client_free(struct aph_rx_client *client)
{
	struct aph_list *pos, *tmp;

	if (!client)
		return NULL;
	aph_list_for_each(pos, tmp, &client->calls) {
		struct aph_rx_call *call = aph_container(pos, struct aph_rx_call, link);

		aph_list_remove(&call->link);
		aph_list_append(&client->rx->orphans, &call->link);
		call->client = NULL;
		if (call->state == APH_RX_STATE_COMPLETE)
			aph_rx_call_end(call, APH_RX_DONE, 0);
		else if (call->state != APH_RX_STATE_ENDED)
			aph_rx_call_abort_now(call, APH_RX_ABORTED_HERE, APH_RX_CALL_DEAD);
	}
	leave_all(&client->conns);
	leave_all(&client->spent);
	aph_list_remove(&client->link);
	aph_list_remove(&client->assign_link);
	aph_rx_peer_unref(client->peer);
	aph_rx_release(client->rx, client, sizeof(*client));
	return NULL;
}

void *aph_rx_client_data(const struct aph_rx_client *client)
{
	return client->data;
}

/* A channel of the connection that may take a call now, -1: none. */
static int free_channel(const struct aph_rx_conn *conn)
{
	int i;

	if (conn->n_calls == 4 || (conn->probing && conn->n_calls))
		return -1;
	for (i = 0; i < 4; i++) {
		if (!conn->channels[i].call &&
		    conn->channels[i].call_number < APH_RX_CALL_NUMBER_MAX)
			return i;
	}
	return -1;
}

uint32_t aph_rx_client_free_channels(const struct aph_rx_client *client)
{
	uint32_t n = client->connections_max > client->n_conns
			     ? (client->connections_max - client->n_conns) * 4
			     : 0;
	struct aph_list *pos, *tmp;

	if (!aph_list_empty(&client->waiting))
		return 0;
	aph_list_for_each(pos, tmp, &client->conns) {
		struct aph_rx_conn *conn = aph_container(pos, struct aph_rx_conn, bundle_link);

		/*
		 * What became of a question for a better service shows with the next call, before
		 * others begin.
		 */
		if (free_channel(conn) >= 0)
			n += conn->probing ? 1 : 4u - conn->n_calls;
	}
	return n;
}

static bool may_share(const struct aph_rx_conn *conn, const struct aph_rx_call *call)
{
	/*
	 * Who asks for a better service wants an answer to that, from this connection or an earlier
	 * question.
	 */
	return !(call->flags & APH_RX_CALL_UPGRADE) || conn->asked;
}

/* An idle connection of the wrong kind makes room for another one. */
static bool make_room(struct aph_rx_client *client)
{
	struct aph_list *pos, *tmp;

	if (client->n_conns < client->connections_max)
		return true;
	aph_list_for_each(pos, tmp, &client->conns) {
		struct aph_rx_conn *conn = aph_container(pos, struct aph_rx_conn, bundle_link);

		if (conn->n_calls)
			continue;
		aph_rx_conn_leave(conn);
		return true;
	}
	return false;
}

/* 0, -EAGAIN: all are in use, -ENOMEM. */
static int find_conn(struct aph_rx_client *client, struct aph_rx_call *call,
		     struct aph_rx_conn **out, int *channel)
{
	struct aph_list *pos, *tmp;
	struct aph_rx_conn *conn;

	if (!(call->flags & APH_RX_CALL_EXCLUSIVE)) {
		aph_list_for_each(pos, tmp, &client->conns) {
			conn = aph_container(pos, struct aph_rx_conn, bundle_link);
			*channel = may_share(conn, call) ? free_channel(conn) : -1;
			if (*channel >= 0) {
				*out = conn;
				return 0;
			}
		}
		if (!make_room(client))
			return -EAGAIN;
	}
	conn = aph_rx_conn_new_client(client);
	if (!conn)
		return -ENOMEM;
	if (call->flags & APH_RX_CALL_EXCLUSIVE)
		aph_rx_conn_spend(conn);
	conn->asked = conn->probing = (call->flags & APH_RX_CALL_UPGRADE) != 0;
	*channel = 0;
	*out = conn;
	return 0;
}

static int assign(struct aph_rx_client *client, struct aph_rx_call *call)
{
	struct aph_rx_conn *conn;
	int channel;
	int r = find_conn(client, call, &conn, &channel);

	if (r < 0)
		return r;
	aph_rx_conn_attach(conn, (unsigned)channel, call, conn->channels[channel].call_number + 1);
	call->service = conn->service;
	aph_rx_call_begin(call);
	return 0;
}

static void assign_waiting(struct aph_rx_client *client)
{
	while (!aph_list_empty(&client->waiting)) {
		struct aph_rx_call *call =
			aph_container(client->waiting.next, struct aph_rx_call, wait_link);
		int r = assign(client, call);

		/* As long as another call goes on, its end is the next occasion. */
		if (r < 0 && (r == -EAGAIN || client->n_begun))
			return;
		aph_list_remove(&call->wait_link);
		if (r < 0)
			aph_rx_call_end(call, APH_RX_LOCAL_ERROR, -r);
	}
}

void aph_rx_client_assign(struct aph_rx_client *client)
{
	if (!aph_list_empty(&client->waiting) && aph_list_empty(&client->assign_link))
		aph_list_append(&client->rx->assigning, &client->assign_link);
}

void aph_rx_clients_assign(struct aph_rx *rx)
{
	while (!aph_list_empty(&rx->assigning)) {
		struct aph_rx_client *client =
			aph_container(rx->assigning.next, struct aph_rx_client, assign_link);

		aph_list_remove(&client->assign_link);
		assign_waiting(client);
	}
}

int aph_rx_call_new(struct aph_rx_call **out, struct aph_rx_client *client,
		    const struct aph_rx_call_options *options)
{
	struct aph_rx *rx = client->rx;
	struct aph_rx_call *call;
	int r;

	if (options && options->size != sizeof(*options))
		return -EINVAL;
	call = aph_rx_call_alloc(rx);
	if (!call)
		return -ENOMEM;
	call->client = client;
	call->peer = client->peer;
	aph_rx_peer_ref(call->peer);
	call->is_client = true;
	call->user_holds = true;
	call->service = client->service;
	call->heard_ns = call->data_ns = rx->now_ns;
	call->dead_ns = rx->config.dead_ms * APH_RX_MS;
	call->hard_ns = UINT64_MAX;
	aph_rx_call_is_fresh(call, APH_RX_FRESH_ALL);
	if (options) {
		call->flags = (uint8_t)options->flags;
		call->data = options->data;
		if (options->dead_ms || options->idle_ms || options->hard_ms)
			aph_rx_call_set_timeouts(call, options->dead_ms, options->idle_ms,
						 options->hard_ms);
	}
	aph_rx_in_init(call);
	call->in.want = true;
	aph_rx_out_init(call);
	aph_list_append(&client->calls, &call->link);
	rx->stats.calls_begun++;
	r = aph_list_empty(&client->waiting) ? assign(client, call) : -EAGAIN;
	if (r == 0) {
		*out = call;
		return 0;
	}
	if (call->flags & APH_RX_CALL_NO_WAIT || (r == -ENOMEM && !client->n_begun)) {
		call->user_holds = false;
		aph_rx_call_end(call, APH_RX_LOCAL_ERROR, -r);
		return r;
	}
	call->state = APH_RX_STATE_WAITING;
	aph_list_append(&client->waiting, &call->wait_link);
	aph_rx_call_arm(call, aph_rx_call_deadline(call));
	*out = call;
	return 0;
}
