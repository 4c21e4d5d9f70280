/* SPDX-License-Identifier: MIT */
/*
 * sendmsg(): beginning calls, their bodies, aborting and accepting them.
 *
 * The checks come in this order: flags, address, state of the socket, control messages, tag, state
 * of the call, length, time limits, what is asked for.
 */
#include "share.h"
#include "socket.h"

#include <errno.h>
#include <string.h>

#define TURN_MIN_NS UINT64_C(10000000)

/* What goes through the functions of one sendmsg(). */
struct sending {
	struct aph_afrx_socket *s;
	int fd, flags;
	bool named;
	struct aph_afrx_name name;
	struct aph_afrx_request req;
	struct aph_afrx_vector body;
	uint64_t deadline_ns; /* known after the first wait */
	bool waited;
	struct aph_afrx_client *client; /* of whose calls one is counted that is not there yet */
	struct aph_afrx_call *call;	/* which is pinned */
	const struct aph_afrx_onward *begun; /* in a program, and goes on here; or NULL */
	struct aph_afrx_onward onward;	     /* where it goes on if the socket moves */
};

/* The thread is cancelled while it sleeps. */
static void give_up(void *arg)
{
	struct sending *t = arg;

	if (t->client && !t->s->moved)
		aph_afrx_client_put(t->client);
	if (t->call)
		aph_afrx_call_unpin(t->call);
	aph_afrx_vector_deinit(&t->body);
	(void)aph_afrx_put(t->s, 0);
}

/* Waits for the socket to change. `n` as for aph_afrx_sleep(). */
static int wait_for_change(struct sending *t, unsigned *n)
{
	if (!t->waited) {
		t->deadline_ns = aph_afrx_deadline(t->fd, SO_SNDTIMEO, t->flags);
		t->waited = true;
	}
	return aph_afrx_sleep(t->s, n, t->deadline_ns, give_up, t);
}

/* -- accepting --------------------------------------------------------------------------------- */

static int charge(struct aph_afrx_socket *s, const struct aph_afrx_request *req)
{
	struct aph_afrx_call *c;

	if (s->state != APH_AFRX_LISTENING)
		return -EINVAL;
	if (s->n_charged >= s->backlog)
		return -ENOBUFS;
	if (aph_afrx_call_find(s, req->tag))
		return -EBADSLT;
	c = aph_afrx_call_new(s);
	if (!c)
		return -ENOMEM;
	aph_afrx_call_set_tag(c, req->tag);
	aph_afrx_list_add(&s->charged, &c->place);
	s->n_charged++;
	s->charging = true;
	aph_afrx_match(s);
	aph_afrx_set_credit(s);
	return 0;
}

static int accept_call(struct aph_afrx_socket *s, const struct aph_afrx_request *req)
{
	struct aph_afrx_call *c;

	/* Those that have ended are not among them any more. */
	if (s->n_waiting == 0)
		return -ENODATA;
	if (aph_afrx_call_find(s, req->tag))
		return -EBADSLT;
	c = APH_AFRX_OF(s->waiting.next, struct aph_afrx_call, place);
	aph_afrx_call_accept(c, req->tag);
	aph_afrx_set_credit(s);
	aph_afrx_call_announce(c);
	return 0;
}

/* -- beginning a call -------------------------------------------------------------------------- */

/* As much as the engine takes; the manual says so. */
static uint32_t hard_ms(const struct aph_afrx_request *req)
{
	uint64_t ms = (uint64_t)req->hard_s * 1000;

	return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

static int check_key(const struct aph_afrx_socket *s)
{
	int index = s->key ? aph_afrx_key_find("rxrpc", s->key, true) : RXRPC_SECURITY_NONE;

	if (index < 0)
		return index;
	return index == RXRPC_SECURITY_NONE ? 0 : -ENOPKG;
}

static int find_destination(const struct sending *t, struct aph_afrx_name *out)
{
	const struct aph_afrx_socket *s = t->s;

	if (t->named)
		*out = t->name;
	else if (s->connected)
		*out = (struct aph_afrx_name){ .address = s->peer, .service = s->peer_service };
	else
		return s->n_services ? -EBADSLT : -EDESTADDRREQ;
	return 0;
}

/* Makes a call in the engine, and waits for a channel if that is wanted. */
static int open_call(struct sending *t, struct aph_afrx_client *client, struct aph_rx_call **rx)
{
	const struct aph_afrx_request *req = &t->req;
	struct aph_rx_call_options options = {
		.size = sizeof(options),
		.flags = APH_RX_CALL_NO_WAIT,
		.dead_ms = req->normal_ms,
		.idle_ms = req->idle_ms,
		.hard_ms = hard_ms(req),
	};
	int r;

	if (req->exclusive || t->s->exclusive)
		options.flags |= APH_RX_CALL_EXCLUSIVE;
	if (req->upgrade)
		options.flags |= APH_RX_CALL_UPGRADE;
	for (;;) {
		r = aph_rx_call_new(rx, client->rx, &options);
		if (r != -EAGAIN)
			return r;
		r = wait_for_change(t, &client->endpoint->n_channel_waiters);
		if (r < 0)
			return r;
		/* Another thread may have used the tag meanwhile, or shut the socket down. */
		if (aph_afrx_call_find(t->s, req->tag))
			return -EEXIST;
		if (t->s->state == APH_AFRX_SHUT || t->s->state == APH_AFRX_DISABLED)
			return -EINVAL;
	}
}

static int begin(struct sending *t, struct aph_afrx_call **out)
{
	struct aph_afrx_client *client;
	struct aph_afrx_name to = { 0 };
	struct aph_afrx_call *c;
	struct aph_rx_call *rx;
	int r;

	if (t->s->state == APH_AFRX_DISABLED)
		return -EINVAL;
	r = find_destination(t, &to);
	if (r == 0)
		r = check_key(t->s);
	if (r < 0)
		return r;
	r = aph_afrx_client_get(&client, t->s->endpoint, &to.address, to.service);
	if (r < 0)
		return r;
	client->n_calls++;
	t->client = client;
	r = open_call(t, client, &rx);
	t->client = NULL;
	if (r == -EREMOTE)
		return r; /* the client is gone with the socket */
	c = r == 0 ? aph_afrx_call_new(t->s) : NULL;
	if (!c) {
		if (r == 0)
			(void)aph_rx_call_free(rx);
		aph_afrx_client_put(client);
		return r < 0 ? r : -ENOMEM;
	}
	c->client = client;
	c->rx = rx;
	aph_rx_call_set_data(c->rx, c);
	aph_afrx_call_set_tag(c, t->req.tag);
	*out = c;
	return 0;
}

/* -- a call that is there ---------------------------------------------------------------------- */

static int check_existing(const struct sending *t, const struct aph_afrx_call *c)
{
	if (!c->rx)
		return -EBUSY; /* charged, and not come yet */
	if (c->ended)
		return -ESHUTDOWN;
	if (t->req.command == APH_AFRX_ABORT)
		return 0;
	if (t->req.command != APH_AFRX_DATA)
		return -EBADSLT;
	if (c->written)
		return -EPROTO;
	/* The reply comes after all of the request was received. */
	return c->client || c->read_out ? 0 : -EPROTO;
}

static int set_length(const struct sending *t, struct aph_afrx_call *c)
{
	int64_t len = (int64_t)t->body.left;

	if (t->req.tx_length != -1) {
		if (c->tx_left != -1 || c->begun)
			return -EINVAL;
		c->tx_left = t->req.tx_length;
	}
	if (c->tx_left == -1)
		return 0;
	if (len > c->tx_left || (!(t->flags & MSG_MORE) && len != c->tx_left))
		return -EMSGSIZE;
	return 0;
}

static void abort_call(struct aph_afrx_call *c, uint32_t code)
{
	/* The tag is free at once, and what was queued of the call is gone. */
	(void)aph_rx_call_abort(c->rx, (int32_t)code);
	c->ended = true;
	if (c->client)
		aph_afrx_wake_senders(c->client->endpoint);
	aph_afrx_call_free(c);
}

/* -- the body ---------------------------------------------------------------------------------- */

/* One piece of the body, or its end. 0, -EAGAIN: no room; other errors. */
static int write_piece(struct sending *t, struct aph_afrx_call *c)
{
	bool more = t->flags & MSG_MORE;
	size_t room = 0;
	void *data;
	ssize_t n;
	int r;

	if (t->body.left == 0) {
		n = aph_rx_call_write(c->rx, NULL, 0, more ? APH_RX_MORE : 0);
		return n < 0 ? (int)n : 0;
	}
	r = aph_rx_call_reserve(c->rx, &data, &room);
	if (r < 0)
		return r;
	if (room > t->body.left)
		room = t->body.left;
	r = aph_afrx_vector_gather(&t->body, data, room);
	if (r < 0)
		return r;
	if (c->tx_left != -1)
		c->tx_left -= (int64_t)room;
	return aph_rx_call_commit(c->rx, room, t->body.left || more ? APH_RX_MORE : 0);
}

/* The call has ended, or was aborted by another thread and is gone. */
static bool is_over(const struct aph_afrx_call *c)
{
	return !c->socket || c->ended;
}

/*
 * With MSG_WAITALL a signal does not end it as long as the peer acknowledges something in each two
 * round trips. A broker is not told by how many signals it was, and lets go at the first.
 */
static int wait_on(struct sending *t, struct aph_afrx_call *c)
{
	struct aph_rx_call_info info;
	uint64_t until_ns, turn_ns;
	uint32_t n_acked;
	int r;

	while (!is_over(c) && c->blocked) {
		if (aph_afrx_broker_cancelled())
			return -EINTR;
		aph_rx_call_info(c->rx, &info);
		n_acked = info.n_acked;
		turn_ns = info.rtt_us * UINT64_C(2000);
		until_ns = aph_time_ns() + (turn_ns < TURN_MIN_NS ? TURN_MIN_NS : turn_ns);
		do {
			if (aph_time_ns() >= t->deadline_ns)
				return -EAGAIN;
			r = aph_afrx_sleep(t->s, NULL,
					   until_ns < t->deadline_ns ? until_ns : t->deadline_ns,
					   give_up, t);
			if (r == -EREMOTE)
				return r;
		} while (!is_over(c) && c->blocked && aph_time_ns() < until_ns);
		if (is_over(c) || !c->blocked)
			return 0;
		aph_rx_call_info(c->rx, &info);
		if (info.n_acked == n_acked)
			return -EINTR;
	}
	return 0;
}

/* The engine takes no more: sends what it has, and waits. */
static int make_room(struct sending *t, struct aph_afrx_call *c)
{
	int r = 0;

	if (!c->blocked) {
		c->blocked = true;
		t->s->n_blocked++;
	}
	aph_afrx_endpoint_push(t->s->endpoint);
	while (r == 0 && !is_over(c) && c->blocked) {
		aph_afrx_settle_room(t->s, t->fd);
		r = wait_for_change(t, NULL);
		if (r == -EINTR && (t->flags & MSG_WAITALL))
			r = wait_on(t, c);
	}
	return r;
}

static ssize_t write_body(struct sending *t, struct aph_afrx_call *c)
{
	size_t len = t->body.left;
	bool more = t->flags & MSG_MORE, done = false;
	int r = 0;

	if (len == 0 && more)
		return 0;
	while (!done && r == 0 && !is_over(c)) {
		r = write_piece(t, c);
		if (r == -EAGAIN) {
			r = make_room(t, c);
		} else if (r == 0) {
			c->begun = true;
			done = t->body.left == 0;
		}
	}
	if (c->socket) {
		c->written = c->written || (done && !more);
		aph_afrx_endpoint_push(t->s->endpoint);
	}
	if (r != -EREMOTE && !done && !c->socket)
		return -ECONNABORTED;
	if (!done && c->ended)
		return -aph_afrx_call_error(c);
	/*
	 * An error after something was taken comes back with the next call; but a bad pointer is
	 * told at once.
	 */
	return r == -EFAULT || len == t->body.left ? r : (ssize_t)(len - t->body.left);
}

static void set_timeouts(const struct sending *t, struct aph_afrx_call *c)
{
	const struct aph_afrx_request *req = &t->req;

	if (req->n_timeouts)
		aph_rx_call_set_timeouts(c->rx, req->normal_ms, req->idle_ms, hard_ms(req));
}

static ssize_t send_to_call(struct sending *t)
{
	struct aph_afrx_call *c = aph_afrx_call_find(t->s, t->req.tag);
	ssize_t r = 0;

	if (!c && t->req.command == APH_AFRX_ABORT)
		return -EBADSLT;
	/* It is over by now, and the tag may be that of another one. */
	if (t->begun && t->begun->call && (!c || c->serial != t->begun->call))
		return -ECONNABORTED;
	if (c) {
		r = check_existing(t, c);
		if (r == 0 && t->req.command == APH_AFRX_DATA)
			set_timeouts(t, c);
	} else {
		r = begin(t, &c);
	}
	if (r < 0)
		return r;
	if (t->req.command == APH_AFRX_ABORT) {
		abort_call(c, t->req.abort_code);
		/* Who waits for a message of it waits for nothing. */
		aph_afrx_notify(t->s);
		aph_afrx_settle(t->s, t->fd);
		aph_afrx_settle_room(t->s, t->fd);
		aph_afrx_endpoint_push(t->s->endpoint);
		return 0;
	}
	r = set_length(t, c);
	if (r < 0)
		return r;
	c->pins++;
	t->call = c;
	t->onward.tag = c->tag;
	t->onward.call = c->serial;
	r = write_body(t, c);
	aph_afrx_call_unpin(c);
	return r;
}

/* -- sendmsg ----------------------------------------------------------------------------------- */

static int check_state(struct aph_afrx_socket *s)
{
	switch (s->state) {
	case APH_AFRX_UNBOUND:
	case APH_AFRX_CLIENT_UNBOUND:
		return aph_afrx_autobind(s);
	case APH_AFRX_SERVER_BOUND2:
	case APH_AFRX_SHUT:
		return -EINVAL;
	case APH_AFRX_CLIENT_BOUND:
	case APH_AFRX_SERVER_BOUND:
	case APH_AFRX_LISTENING:
	case APH_AFRX_DISABLED:
		break;
	}
	return 0;
}

static ssize_t send_message(struct sending *t, const struct msghdr *message)
{
	ssize_t r;

	if (t->flags & MSG_OOB)
		return -EOPNOTSUPP;
	t->named = message->msg_name && message->msg_namelen;
	if (t->named) {
		r = aph_afrx_name_read(&t->name, t->s->family, message->msg_name,
				       message->msg_namelen);
		if (r < 0)
			return r;
	}
	r = check_state(t->s);
	if (r == 0)
		r = aph_afrx_request_read(&t->req, t->s, message);
	if (r < 0)
		return r;
	switch (t->req.command) {
	case APH_AFRX_CHARGE:
		r = charge(t->s, &t->req);
		break;
	case APH_AFRX_ACCEPT:
		r = accept_call(t->s, &t->req);
		break;
	case APH_AFRX_DATA:
	case APH_AFRX_ABORT:
		return send_to_call(t);
	}
	aph_afrx_settle(t->s, t->fd);
	aph_afrx_endpoint_push(t->s->endpoint);
	return r;
}

/*
 * The socket has moved while it was waited for: the broker gets what is left after `n` bytes or, if
 * that is an error, all of it. Whether a call was begun is not said twice.
 */
static ssize_t send_rest(struct sending *t, const struct msghdr *message, ssize_t n)
{
	char control[CMSG_SPACE(sizeof(unsigned long))] = { 0 };
	const struct cmsghdr header = { .cmsg_len = CMSG_LEN(sizeof(unsigned long)),
					.cmsg_level = SOL_RXRPC,
					.cmsg_type = RXRPC_USER_CALL_ID };
	struct msghdr rest = *message;
	ssize_t r;

	t->onward.deadline_ns = t->deadline_ns;
	if (t->onward.call) {
		memcpy(control, &header, sizeof(header));
		memcpy(control + sizeof(header), &t->req.tag, sizeof(t->req.tag));
		rest = (struct msghdr){ .msg_control = control, .msg_controllen = sizeof(control) };
	}
	r = aph_afrx_remote_send_on(t->fd, &rest, &t->body, t->flags, &t->onward);
	if (n < 0)
		return r;
	return r < 0 ? n : n + r;
}

static ssize_t send_here(struct sending *t, const struct msghdr *message)
{
	struct msghdr copy;
	bool moved;
	ssize_t r;

	r = aph_afrx_get(&t->s, t->fd);
	if (r < 0)
		return r;
	r = aph_afrx_message_copy(&copy, &t->body, message);
	if (r < 0)
		return aph_afrx_put(t->s, r);
	r = send_message(t, &copy);
	/* The broker can be asked by this number only if it is not that of something else now. */
	moved = t->s->moved && aph_afrx_is_outer(t->s, t->fd);
	if (r == -EREMOTE && !moved)
		r = -EBADF;
	(void)aph_afrx_put(t->s, 0);
	if (moved && (r == -EREMOTE || (r > 0 && t->body.left)))
		r = send_rest(t, &copy, r);
	aph_afrx_vector_deinit(&t->body);
	return r;
}

ssize_t aph_afrx_sendmsg(int fd, const struct msghdr *message, int flags,
			 const struct aph_afrx_onward *begun)
{
	struct sending t = { .fd = fd, .flags = flags, .begun = begun };
	ssize_t r;

	if (begun) {
		t.deadline_ns = begun->deadline_ns;
		t.waited = true;
	}
	r = send_here(&t, message);
	return r == -EREMOTE ? aph_afrx_remote_sendmsg(fd, message, flags) : aph_afrx_result(r);
}

APH_API ssize_t aph_rxrpc_sendmsg(int fd, const struct msghdr *message, int flags)
{
	return aph_afrx_sendmsg(fd, message, flags, NULL);
}
