/* SPDX-License-Identifier: MIT */
/*
 * recvmsg(): one message, which is data of one call, or a notification without data.
 *
 * Data of a call are copied until the body is over, the buffer is full, or another call has
 * something to say; a blocking read waits for one of these. What is left of a call stays in front
 * until it has given what it had when its turn came; then it goes to the end of the queue.
 */
#include "share.h"
#include "socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

struct receiving {
	struct aph_afrx_socket *s;
	int fd, flags;
	struct msghdr message; /* our copy */
	struct aph_afrx_vector body;
	struct sockaddr_rxrpc name;
	size_t name_len; /* as much of it as there is room for */
	struct aph_afrx_control control;
	uint64_t deadline_ns;
	bool waited;
	struct aph_afrx_call *call; /* which is pinned */
	size_t copied;
	const struct aph_afrx_onward *begun; /* in a program, and goes on here; or NULL */
	struct aph_afrx_onward onward;	     /* where it goes on if the socket moves */
};

/* The thread is cancelled while it sleeps. */
static void give_up(void *arg)
{
	struct receiving *t = arg;

	if (t->call)
		aph_afrx_call_unpin(t->call);
	aph_afrx_vector_deinit(&t->body);
	/* What was left for us to take is for others now. */
	aph_afrx_settle(t->s, t->fd);
	(void)aph_afrx_put(t->s, 0);
}

static int wait_for_change(struct receiving *t)
{
	if (!t->waited) {
		t->deadline_ns = aph_afrx_deadline(t->fd, SO_RCVTIMEO, t->flags);
		t->waited = true;
	}
	return aph_afrx_sleep(t->s, &t->s->n_readers, t->deadline_ns, give_up, t);
}

/* -- what goes with a message ------------------------------------------------------------------ */

static void put_name(struct receiving *t, const struct aph_afrx_call *c)
{
	struct aph_rx_call_info info;

	if (!t->message.msg_name)
		return;
	aph_rx_call_info(c->rx, &info);
	aph_afrx_name_write(&t->name, &info.path->remote, info.service);
	t->name_len = t->message.msg_namelen < sizeof(t->name) ? t->message.msg_namelen
							       : sizeof(t->name);
	t->message.msg_namelen = sizeof(t->name);
}

static void put_tag(struct receiving *t, const struct aph_afrx_call *c)
{
	aph_afrx_control_put(&t->control, SOL_RXRPC, RXRPC_USER_CALL_ID, &c->tag, sizeof(c->tag));
}

static bool has_option(int fd, int option)
{
	socklen_t len = sizeof(int);
	int value = 0;

	return syscall(SYS_getsockopt, fd, SOL_SOCKET, option, &value, &len) == 0 && value;
}

static void put_time(struct receiving *t, const struct aph_afrx_call *c)
{
	struct timeval time = { .tv_sec = c->arrived.tv_sec, .tv_usec = c->arrived.tv_nsec / 1000 };

	if (!t->s->stamped)
		return;
	if (has_option(t->fd, SO_TIMESTAMPNS))
		aph_afrx_control_put(&t->control, SOL_SOCKET, SO_TIMESTAMPNS, &c->arrived,
				     sizeof(c->arrived));
	else if (has_option(t->fd, SO_TIMESTAMP))
		aph_afrx_control_put(&t->control, SOL_SOCKET, SO_TIMESTAMP, &time, sizeof(time));
}

static void put_end(struct receiving *t, const struct aph_afrx_call *c)
{
	uint32_t code = (uint32_t)c->end.code;
	int type = RXRPC_ABORT;

	switch (c->end.outcome) {
	case APH_RX_DONE:
		aph_afrx_control_put(&t->control, SOL_RXRPC, RXRPC_ACK, NULL, 0);
		return;
	case APH_RX_BUSY:
		aph_afrx_control_put(&t->control, SOL_RXRPC, RXRPC_BUSY, NULL, 0);
		return;
	case APH_RX_ABORTED:
	case APH_RX_ABORTED_HERE:
		break;
	case APH_RX_TIMED_OUT:
		/* A peer that is silent and one that is too slow look the same here. */
		code = (uint32_t)APH_RX_CALL_TIMEOUT;
		break;
	case APH_RX_NET_ERROR:
		type = RXRPC_NET_ERROR;
		break;
	case APH_RX_RESET:
	case APH_RX_LOCAL_ERROR:
		type = RXRPC_LOCAL_ERROR;
		break;
	}
	aph_afrx_control_put(&t->control, SOL_RXRPC, type, &code, sizeof(code));
}

/* -- messages without data --------------------------------------------------------------------- */

static bool is_peek(const struct receiving *t)
{
	return t->flags & MSG_PEEK;
}

static ssize_t take_notice(struct receiving *t, struct aph_afrx_call *c)
{
	put_name(t, c);
	aph_afrx_control_put(&t->control, SOL_RXRPC, RXRPC_NEW_CALL, NULL, 0);
	if (is_peek(t))
		return 0;
	c->notice = false;
	aph_afrx_list_del(&c->pending);
	/* One that has ended waits for nothing any more: see vanish() in call.c. */
	if (c->ended)
		aph_afrx_call_free(c);
	return 0;
}

static ssize_t take_end(struct receiving *t, struct aph_afrx_call *c)
{
	put_name(t, c);
	put_tag(t, c);
	put_end(t, c);
	t->message.msg_flags |= MSG_EOR;
	if (!is_peek(t))
		aph_afrx_call_free(c);
	return 0;
}

/* -- data -------------------------------------------------------------------------------------- */

/* Copies what has arrived. -EFAULT; else 0. */
static int copy(struct receiving *t, struct aph_afrx_call *c)
{
	const void *data;
	size_t len;
	int r;

	while (t->body.left) {
		r = aph_rx_call_borrow(c->rx, &data, &len);
		if (r < 0 || len == 0)
			return 0; /* nothing now, or no more */
		if (len > t->body.left)
			len = t->body.left;
		r = aph_afrx_vector_scatter(&t->body, data, len);
		if (r < 0)
			return r;
		t->copied += len;
		if (is_peek(t))
			return 0;
		aph_rx_call_release(c->rx, len);
		c->turn = c->turn > len ? c->turn - len : 0;
	}
	return 0;
}

/* All of the body has arrived and been taken (or would have been, by more than a peek). */
static bool is_at_end(const struct receiving *t, const struct aph_afrx_call *c)
{
	size_t peeked = is_peek(t) ? t->copied : 0;

	return aph_rx_call_is_complete(c->rx) && aph_rx_call_available(c->rx) == peeked;
}

static void begin_turn(struct aph_afrx_call *c)
{
	if (c->turn == 0)
		c->turn = aph_rx_call_available(c->rx);
}

/* Its place in the queue, now that something was read. */
static void requeue(struct aph_afrx_call *c)
{
	if (!aph_afrx_call_has_news(c)) {
		aph_afrx_list_del(&c->pending);
		aph_afrx_call_watch(c);
	} else if (c->turn == 0) {
		aph_afrx_list_del(&c->pending);
		aph_afrx_list_add(&c->socket->queue, &c->pending);
	}
}

/* The body is over. */
static void finish(struct receiving *t, struct aph_afrx_call *c)
{
	if (is_peek(t))
		return;
	if (c->client) {
		t->message.msg_flags |= MSG_EOR;
		aph_afrx_call_free(c);
		return;
	}
	c->read_out = true;
	c->turn = 0;
	requeue(c);
	/* Another thread that reads it has all that it will get. */
	if (c->pins > 1)
		aph_afrx_notify(c->socket);
}

/*
 * Whether a blocking read goes on with this call: something was copied, there is room, and nobody
 * else waits.
 */
static bool is_to_wait(const struct receiving *t, struct aph_afrx_call *c)
{
	if (is_peek(t) || t->body.left == 0 || aph_rx_call_available(c->rx))
		return false;
	aph_afrx_list_del(&c->pending);
	return aph_afrx_list_empty(&t->s->queue);
}

static ssize_t take_data(struct receiving *t, struct aph_afrx_call *c)
{
	int r;

	put_name(t, c);
	put_tag(t, c);
	put_time(t, c);
	c->pins++;
	t->call = c;
	t->onward.tag = c->tag;
	t->onward.call = c->serial;
	for (;;) {
		begin_turn(c);
		r = copy(t, c);
		/* Room in our window is told to the peer, and may let more come at once. */
		aph_afrx_endpoint_push(t->s->endpoint);
		if (r < 0 || is_at_end(t, c) || !is_to_wait(t, c))
			break;
		aph_afrx_settle(t->s, t->fd);
		while (r == 0 && c->socket && !c->read_out && !aph_afrx_call_has_news(c) &&
		       aph_afrx_list_empty(&t->s->queue))
			r = wait_for_change(t);
		if (r < 0 || !c->socket || c->read_out || !aph_afrx_call_has_news(c) ||
		    aph_afrx_call_is_broken(c))
			break;
	}
	if (c->socket && !c->read_out && is_at_end(t, c) && !aph_afrx_call_is_broken(c)) {
		finish(t, c);
		r = 0;
	} else {
		t->message.msg_flags |= MSG_MORE;
		if (c->socket)
			requeue(c);
	}
	aph_afrx_call_unpin(c);
	return t->copied ? (ssize_t)t->copied : r;
}

/* More of the call that a part was read of before the socket moved; it may be over by now. */
static ssize_t take_rest(struct receiving *t)
{
	struct aph_afrx_call *c = aph_afrx_call_find(t->s, t->begun->tag);

	if (!c || !c->rx || c->serial != t->begun->call || c->read_out ||
	    aph_afrx_call_is_broken(c))
		return -ECONNABORTED;
	return take_data(t, c);
}

/* -- recvmsg ----------------------------------------------------------------------------------- */

/* Whether anything can come at all. */
static bool is_hopeless(const struct aph_afrx_socket *s)
{
	return s->n_tags == 0 && s->state != APH_AFRX_LISTENING;
}

static int await_message(struct receiving *t)
{
	int r = 0;

	while (r == 0 && aph_afrx_list_empty(&t->s->queue)) {
		if (is_hopeless(t->s) || (!t->waited && t->s->state == APH_AFRX_SHUT))
			return -EAGAIN;
		r = wait_for_change(t);
	}
	return r;
}

static ssize_t receive_message(struct receiving *t)
{
	struct aph_afrx_call *c;
	int r;

	if (t->flags & (MSG_OOB | MSG_TRUNC))
		return -EOPNOTSUPP;
	/* Both are written last, when it is too late to leave the message where it is. */
	r = aph_afrx_check(t->message.msg_name, t->message.msg_namelen);
	if (r == 0)
		r = aph_afrx_check(t->message.msg_control, t->message.msg_controllen);
	if (r < 0)
		return r;
	if (t->begun && t->begun->call)
		return take_rest(t);
	for (;;) {
		r = await_message(t);
		if (r < 0)
			return r;
		c = APH_AFRX_OF(t->s->queue.next, struct aph_afrx_call, pending);
		if (aph_afrx_call_has_news(c))
			break;
		aph_afrx_list_del(&c->pending);
	}
	if (!c->tagged)
		return take_notice(t, c);
	if (c->ended && (aph_afrx_call_is_broken(c) || c->read_out))
		return take_end(t, c);
	return take_data(t, c);
}

/* What goes with the message, and its header. */
static int put_all(struct receiving *t, struct msghdr *message)
{
	struct msghdr *ours = &t->message;
	const struct iovec from[] = {
		{ &t->name, t->name_len },
		{ t->control.bytes, t->control.used },
		{ ours, sizeof(*message) },
	};
	const struct iovec to[] = {
		{ ours->msg_name, t->name_len },
		{ ours->msg_control, t->control.used },
		{ message, sizeof(*message) },
	};

	ours->msg_flags |= t->control.flags;
	ours->msg_controllen = t->control.used;
	return aph_afrx_copy_out_all(to, from, 3);
}

/*
 * The socket has moved while it was waited for: the broker gives what is missing of `n` or, if that
 * is an error, all of it. What goes with the message is that of its last part.
 */
static ssize_t receive_rest(struct receiving *t, struct msghdr *message, const struct msghdr *copy,
			    ssize_t n)
{
	ssize_t rest;
	int r;

	t->onward.deadline_ns = t->deadline_ns;
	rest = aph_afrx_remote_receive_on(t->fd, message, copy, &t->body, t->flags, &t->onward);
	if (n < 0)
		return rest;
	if (rest >= 0)
		return n + rest;
	r = put_all(t, message);
	return r < 0 ? r : n;
}

static ssize_t receive_here(struct receiving *t, struct msghdr *message)
{
	struct msghdr copy;
	ssize_t n;
	int r;

	r = aph_afrx_get(&t->s, t->fd);
	if (r < 0)
		return r;
	r = aph_afrx_message_copy(&copy, &t->body, message);
	if (r < 0)
		return aph_afrx_put(t->s, r);
	t->message = copy;
	t->control.left = copy.msg_control ? copy.msg_controllen : 0;
	t->message.msg_flags = 0;
	n = receive_message(t);
	aph_afrx_settle(t->s, t->fd);
	if (t->s->endpoint)
		aph_afrx_endpoint_push(t->s->endpoint);
	/* The broker can be asked by this number only if it is not that of something else now. */
	if (t->s->moved && aph_afrx_is_outer(t->s, t->fd)) {
		(void)aph_afrx_put(t->s, 0);
		n = receive_rest(t, message, &copy, n);
		aph_afrx_vector_deinit(&t->body);
		return n;
	}
	aph_afrx_vector_deinit(&t->body);
	if (n >= 0) {
		r = put_all(t, message);
		n = r < 0 ? r : n;
	}
	return aph_afrx_put(t->s, n == -EREMOTE ? -EBADF : n);
}

ssize_t aph_afrx_recvmsg(int fd, struct msghdr *message, int flags,
			 const struct aph_afrx_onward *begun)
{
	struct receiving t = { .fd = fd, .flags = flags, .begun = begun };
	ssize_t n;

	if (begun) {
		t.deadline_ns = begun->deadline_ns;
		t.waited = true;
	}
	n = receive_here(&t, message);
	return n == -EREMOTE ? aph_afrx_remote_recvmsg(fd, message, flags) : aph_afrx_result(n);
}

APH_API ssize_t aph_rxrpc_recvmsg(int fd, struct msghdr *message, int flags)
{
	return aph_afrx_recvmsg(fd, message, flags, NULL);
}
