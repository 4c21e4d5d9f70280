/* SPDX-License-Identifier: MIT */
/* Sockets that a broker has, as their programs see them: each function as a question. */
#include "connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VALUE_MAX 4096		      /* of an option: more is refused, whatever it is */
#define NOW_MAX	  (UINT32_C(1) << 20) /* of a body that may not wait */

static_assert(NOW_MAX > APH_AFRX_SEND_MAX, "more than a call takes");

/* -- names and states -------------------------------------------------------------------------- */

static int put_name(struct aph_afrx_connection *c, const void *name, socklen_t len)
{
	size_t n = len < sizeof(c->shared->name) ? len : sizeof(c->shared->name);

	c->shared->question.has_name = name != NULL;
	c->shared->question.name_len = len;
	return name ? aph_afrx_copy_in(c->shared->name, name, n) : 0;
}

static int ask_with_name(int fd, enum aph_afrx_op op, const struct sockaddr *address, socklen_t len)
{
	struct aph_afrx_connection *c;
	ssize_t r;

	c = aph_afrx_connection_begin(fd, 0, &r);
	if (!c)
		return (int)aph_afrx_result(r);
	/* One that is too short is not looked at. */
	if (len < sizeof(struct sockaddr_rxrpc))
		r = -EINVAL;
	else
		r = address ? put_name(c, address, len) : -EFAULT;
	if (r == 0)
		r = aph_afrx_connection_ask(c, fd, op);
	aph_afrx_connection_end(c);
	return (int)aph_afrx_result(r);
}

static int ask_with_number(int fd, enum aph_afrx_op op, int number)
{
	struct aph_afrx_connection *c;
	ssize_t r;

	c = aph_afrx_connection_begin(fd, 0, &r);
	if (!c)
		return (int)aph_afrx_result(r);
	c->shared->question.a = number;
	r = aph_afrx_connection_ask(c, fd, op);
	aph_afrx_connection_end(c);
	return (int)aph_afrx_result(r);
}

int aph_afrx_remote_bind(int fd, const struct sockaddr *address, socklen_t len)
{
	return ask_with_name(fd, APH_AFRX_OP_BIND, address, len);
}

int aph_afrx_remote_connect(int fd, const struct sockaddr *address, socklen_t len)
{
	return ask_with_name(fd, APH_AFRX_OP_CONNECT, address, len);
}

int aph_afrx_remote_listen(int fd, int backlog)
{
	return ask_with_number(fd, APH_AFRX_OP_LISTEN, backlog);
}

int aph_afrx_remote_shutdown(int fd, int how)
{
	return ask_with_number(fd, APH_AFRX_OP_SHUTDOWN, how);
}

/*
 * The broker keeps the descriptor for a moment, so that it closes the last one and can say when
 * that is done.
 */
int aph_afrx_remote_close(int fd)
{
	struct aph_afrx_connection *c;
	ssize_t r;
	int saved;

	c = aph_afrx_connection_begin(fd, 0, &r);
	if (c) {
		c->shared->question.op = APH_AFRX_OP_CLOSE;
		c->broken = aph_afrx_say(c->fd, APH_AFRX_KEEP, &fd, 1) < 0;
	}
	saved = syscall(SYS_close, fd) < 0 ? errno : 0;
	if (c) {
		c->broken = c->broken || aph_afrx_say(c->fd, APH_AFRX_ASK, NULL, 0) < 0;
		if (!c->broken)
			(void)aph_afrx_connection_await(c);
		aph_afrx_connection_end_all(c);
	}
	return (int)aph_afrx_result(-saved);
}

/* -- messages ---------------------------------------------------------------------------------- */

static int put_message(struct aph_afrx_connection *c, const struct msghdr *message,
		       struct aph_afrx_vector *body, size_t len)
{
	size_t n_control = message->msg_controllen;
	int r;

	r = put_name(c, message->msg_namelen ? message->msg_name : NULL, message->msg_namelen);
	if (n_control > UINT32_MAX)
		n_control = UINT32_MAX;
	c->shared->question.control_len = (uint32_t)n_control;
	if (n_control > sizeof(c->shared->control))
		n_control = 0; /* refused without a look */
	if (r == 0)
		r = aph_afrx_copy_in(c->shared->control, message->msg_control, n_control);
	c->shared->question.is_faulty = r == 0 &&
					aph_afrx_vector_gather(body, c->shared->body, len) < 0;
	c->shared->question.len = len;
	return r;
}

/*
 * How much of a body is given to the broker at a time: the caller hears of the rest, as of any
 * short count.
 */
static size_t limit_body(int fd, size_t len, int flags)
{
	/*
	 * A call that may not wait takes no more than there is room for, which is less than this.
	 */
	if (len > NOW_MAX && aph_afrx_deadline(fd, SO_SNDTIMEO, flags) == APH_NOW)
		return NOW_MAX;
	return len < APH_AFRX_BODY_MAX ? len : APH_AFRX_BODY_MAX;
}

/* Whether it may wait, but not for ever: the functions of the system are then not restarted. */
static bool is_timed(int fd, int option, int flags, const struct aph_afrx_onward *onward)
{
	uint64_t deadline_ns = onward ? onward->deadline_ns : aph_afrx_deadline(fd, option, flags);

	return deadline_ns != APH_NOW && deadline_ns != APH_FOREVER;
}

static void put_onward(struct aph_afrx_question *q, const struct aph_afrx_onward *onward)
{
	uint64_t now_ns = aph_time_ns();

	if (!onward)
		return;
	q->tag = onward->tag;
	q->call = onward->call;
	if (onward->deadline_ns == APH_FOREVER)
		q->wait_ns = APH_FOREVER;
	else
		q->wait_ns = onward->deadline_ns > now_ns ? onward->deadline_ns - now_ns : 1;
}

ssize_t aph_afrx_remote_send_on(int fd, const struct msghdr *copy, struct aph_afrx_vector *body,
				int flags, const struct aph_afrx_onward *onward)
{
	size_t len = limit_body(fd, body->left, flags);
	struct aph_afrx_connection *c;
	ssize_t r;

	if (len < body->left)
		flags |= MSG_MORE;
	c = aph_afrx_connection_begin(fd, len, &r);
	if (!c)
		return r;
	c->body = body;
	c->timed = is_timed(fd, SO_SNDTIMEO, flags, onward);
	aph_afrx_connection_tell_keys(c, fd);
	r = put_message(c, copy, body, len);
	c->shared->question.a = flags;
	put_onward(&c->shared->question, onward);
	if (r == 0)
		r = aph_afrx_connection_ask(c, fd, APH_AFRX_OP_SEND);
	aph_afrx_connection_end(c);
	return r;
}

ssize_t aph_afrx_remote_sendmsg(int fd, const struct msghdr *message, int flags)
{
	struct aph_afrx_vector body = { .left = 0 };
	struct msghdr copy;
	ssize_t r;

	r = aph_afrx_message_copy(&copy, &body, message);
	if (r < 0)
		return aph_afrx_result(r);
	r = aph_afrx_remote_send_on(fd, &copy, &body, flags, NULL);
	aph_afrx_vector_deinit(&body);
	return aph_afrx_result(r);
}

/* What has come, within what there is room for. */
static int take_message(const struct aph_afrx_connection *c, struct msghdr *copy,
			struct aph_afrx_vector *body, size_t len)
{
	struct aph_afrx_answer answer = c->shared->answer;
	size_t n = answer.name_len < copy->msg_namelen ? answer.name_len : copy->msg_namelen;
	int r = 0;

	if (copy->msg_name && n <= sizeof(c->shared->name))
		r = aph_afrx_copy_out(copy->msg_name, c->shared->name, n);
	if (copy->msg_name)
		copy->msg_namelen = answer.name_len;
	if (answer.control_len > copy->msg_controllen ||
	    answer.control_len > sizeof(c->shared->control) || len > body->left)
		return -EIO;
	if (r == 0)
		r = aph_afrx_copy_out(copy->msg_control, c->shared->control, answer.control_len);
	if (r == 0)
		r = aph_afrx_vector_scatter(body, c->shared->body, len);
	copy->msg_controllen = answer.control_len;
	copy->msg_flags = answer.flags;
	return r;
}

static ssize_t receive(int fd, struct msghdr *copy, struct aph_afrx_vector *body, int flags,
		       const struct aph_afrx_onward *onward)
{
	size_t len = body->left < APH_AFRX_BODY_MAX ? body->left : APH_AFRX_BODY_MAX;
	size_t n_control = copy->msg_control ? copy->msg_controllen : 0;
	struct aph_afrx_question *q;
	struct aph_afrx_connection *c;
	ssize_t n;
	int r;

	/* The broker takes the message before it can be seen whether there is a place for it. */
	r = aph_afrx_check(copy->msg_name, copy->msg_namelen);
	if (r == 0)
		r = aph_afrx_check(copy->msg_control, n_control);
	if (r == 0)
		r = aph_afrx_vector_check(body);
	if (r < 0)
		return r;
	c = aph_afrx_connection_begin(fd, len, &n);
	if (!c)
		return n;
	c->body = body;
	c->timed = is_timed(fd, SO_RCVTIMEO, flags, onward);
	q = &c->shared->question;
	q->a = flags;
	q->len = len;
	q->has_name = copy->msg_name != NULL;
	q->name_len = copy->msg_namelen;
	q->control_len =
		(uint32_t)(n_control < APH_AFRX_CONTROL_MAX ? n_control : APH_AFRX_CONTROL_MAX);
	copy->msg_controllen = n_control;
	put_onward(q, onward);
	n = aph_afrx_connection_ask(c, fd, APH_AFRX_OP_RECEIVE);
	if (n >= 0)
		r = take_message(c, copy, body, (size_t)n);
	aph_afrx_connection_end(c);
	return r < 0 ? r : n;
}

ssize_t aph_afrx_remote_receive_on(int fd, struct msghdr *message, const struct msghdr *copy,
				   struct aph_afrx_vector *body, int flags,
				   const struct aph_afrx_onward *onward)
{
	struct msghdr changed = *copy;
	ssize_t n = receive(fd, &changed, body, flags, onward);
	int r;

	if (n < 0)
		return n;
	r = aph_afrx_copy_out(message, &changed, sizeof(changed));
	return r < 0 ? r : n;
}

ssize_t aph_afrx_remote_recvmsg(int fd, struct msghdr *message, int flags)
{
	struct aph_afrx_vector body = { .left = 0 };
	struct msghdr copy;
	ssize_t r;

	r = aph_afrx_message_copy(&copy, &body, message);
	if (r < 0)
		return aph_afrx_result(r);
	r = aph_afrx_remote_receive_on(fd, message, &copy, &body, flags, NULL);
	aph_afrx_vector_deinit(&body);
	return aph_afrx_result(r);
}

/* -- options ----------------------------------------------------------------------------------- */

int aph_afrx_remote_setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	struct aph_afrx_connection *c;
	ssize_t r;

	if (level == SOL_SOCKET && !aph_afrx_sets_option(option))
		return (int)syscall(SYS_setsockopt, fd, level, option, value, len);
	c = aph_afrx_connection_begin(fd, 0, &r);
	if (!c)
		return (int)aph_afrx_result(r);
	aph_afrx_connection_tell_keys(c, fd);
	c->shared->question.a = level;
	c->shared->question.b = option;
	c->shared->question.len = len;
	c->shared->question.has_value = value != NULL;
	c->shared->question.is_faulty =
		value &&
		aph_afrx_copy_in(c->shared->body, value, len < VALUE_MAX ? len : VALUE_MAX) < 0;
	r = aph_afrx_connection_ask(c, fd, APH_AFRX_OP_SET);
	aph_afrx_connection_end(c);
	return (int)aph_afrx_result(r);
}

int aph_afrx_remote_getsockopt(int fd, int level, int option, void *value, socklen_t *len)
{
	struct aph_afrx_connection *c;
	socklen_t given, n;
	ssize_t r;

	if (level == SOL_SOCKET && !aph_afrx_gets_option(option))
		return (int)syscall(SYS_getsockopt, fd, level, option, value, len);
	r = aph_afrx_copy_in(&given, len, sizeof(given));
	c = r < 0 ? NULL : aph_afrx_connection_begin(fd, 0, &r);
	if (!c)
		return (int)aph_afrx_result(r);
	c->shared->question.a = level;
	c->shared->question.b = option;
	c->shared->question.len = given;
	r = aph_afrx_connection_ask(c, fd, APH_AFRX_OP_GET);
	if (r == 0) {
		n = c->shared->answer.value_len;
		if (n > given || n > APH_AFRX_BODY_MIN)
			r = -EIO;
		if (r == 0)
			r = aph_afrx_copy_out(value, c->shared->body, n);
		if (r == 0)
			r = aph_afrx_copy_out(len, &n, sizeof(n));
	}
	aph_afrx_connection_end(c);
	return (int)aph_afrx_result(r);
}
