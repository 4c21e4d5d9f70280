/* SPDX-License-Identifier: MIT */
/*
 * Calls that wait: aph_call(), built from the same steps as an asynchronous call, and
 * aph_call_wait().
 */
#include "base/apart.h"
#include "base/error.h"
#include "core/call.h"

#include <errno.h>
#include <string.h>

/*
 * The result that aph_channel_result() gives to the thread that called. Initial exec: reached
 * without a call to the dynamic linker, and small enough for a library loaded late.
 */
static _Thread_local __attribute__((tls_model("initial-exec"))) struct {
	const struct aph_channel *channel;
	struct aph_result result;
} last_result;

static bool made_progress(void *arg)
{
	return ((struct aph_call *)arg)->progress;
}

struct exchange {
	const uint8_t *request;
	size_t request_len;
	size_t sent;
	uint8_t *reply;
	size_t reply_max;
	size_t reply_len; /* all that came, also beyond reply_max */
};

/* Sends what has room. 0 or a negative error, with which nothing has been sent. */
static int push_request(struct aph_call *call, struct exchange *x)
{
	ssize_t n;

	if (call->out_last || call->state == APH_CALL_ENDED)
		return 0;
	n = call->channel->ops->send(call, x->request + x->sent, x->request_len - x->sent, NULL, 0,
				     false);
	if (n == -EAGAIN)
		return 0;
	if (n == -EPIPE || (n == -ENOTCONN && call->state != APH_CALL_NEW)) {
		/*
		 * The service has answered without the rest of the request, or the channel is about
		 * to end: how the call ends is still to be told.
		 */
		call->out_last = true;
		return 0;
	}
	if (n < 0 && call->state == APH_CALL_NEW)
		return (int)n;
	if (n < 0) {
		/*
		 * An error would say that nothing has happened; but the service may be at work on
		 * the beginning.
		 */
		aph_call_give_up(call, APH_REASON_RESOURCES);
		return 0;
	}
	x->sent += (size_t)n;
	aph_call_sent(call, x->sent == x->request_len);
	return 0;
}

/* Takes what has arrived; what does not fit is counted and dropped. */
static void pull_reply(struct aph_call *call, struct exchange *x)
{
	const struct aph_channel_ops *ops = call->channel->ops;
	const void *data;
	size_t len;

	while (x->reply_len < x->reply_max) {
		ssize_t n =
			ops->read(call, x->reply + x->reply_len, x->reply_max - x->reply_len, true);

		if (n <= 0)
			return;
		x->reply_len += (size_t)n;
	}
	/*
	 * More may come: until one look is in vain, as a transport may tell only then of what
	 * arrives.
	 */
	while ((!call->in_last || ops->available(call)) && ops->borrow(call, &data, &len) == 0) {
		x->reply_len += len;
		ops->release(call, len);
	}
}

/* Goes on until the call has ended. */
static int run(struct aph_call *call, struct exchange *x)
{
	struct aph_endpoint *ep = call->channel->ep;
	int r;

	for (;;) {
		call->progress = false;
		r = push_request(call, x);
		if (r < 0)
			return r;
		if (call->state == APH_CALL_REPLY)
			pull_reply(call, x);
		if (call->state == APH_CALL_ENDED)
			break;
		r = aph_endpoint_wait(ep, made_progress, call, APH_FOREVER, APH_WAITER_CLIENT);
		if (r < 0)
			return r;
	}
	if (call->in_last)
		pull_reply(call, x);
	return 0;
}

static int finish(struct aph_channel *channel, struct aph_call *call, const struct exchange *x)
{
	last_result.channel = channel;
	last_result.result = call->result;
	if (call->result.outcome != APH_ANSWERED)
		return (int)call->result.outcome;
	if (x->reply && x->reply_len > x->reply_max)
		return aph_err(-EMSGSIZE, "the reply has %zu bytes and the buffer only %zu",
			       x->reply_len, x->reply_max);
	return 0;
}

/* What aph_channel_result() says where there is an error and no result. Returns the error. */
static APH_APART int failed(const struct aph_channel *channel, bool sent, int r)
{
	last_result.channel = channel;
	last_result.result = (struct aph_result){ .outcome = sent ? APH_LOST : APH_REFUSED };
	return r;
}

int aph_call(struct aph_channel *channel, const void *request, size_t len, void *reply,
	     size_t *reply_len, uint64_t deadline_ns)
{
	struct exchange x = {
		.request = request ? request : (const void *)"",
		.request_len = len,
		.reply = reply,
		.reply_max = reply && reply_len ? *reply_len : 0,
	};
	struct aph_endpoint *ep = channel->ep;
	struct aph_call *call;
	int r;

	if (!channel->is_client)
		return aph_err(-EINVAL, "a service cannot call its clients");
	aph_lock(ep);
	if (channel->state != APH_CHANNEL_OPEN) {
		r = aph_err(-ENOTCONN, "the channel is not open (%s): open a new one",
			    aph_reason_name(channel->reason));
		r = failed(channel, false, r);
		goto out;
	}
	r = aph_call_make(&call, channel, deadline_ns);
	if (r < 0) {
		r = failed(channel, false, r);
		goto out;
	}
	call->private = true;
	call->user_holds = true;
	call->n_waiting = 1;
	r = run(call, &x);
	r = r == 0 ? finish(channel, call, &x) : failed(channel, call->state != APH_CALL_NEW, r);
	if (reply_len)
		*reply_len = x.reply_len;
	call->n_waiting = 0;
	aph_call_drop(call);
out:
	aph_unlock(ep);
	return r;
}

struct aph_result aph_channel_result(const struct aph_channel *channel)
{
	struct aph_result none = { .outcome = APH_LOST, .reason = APH_REASON_NONE };

	return last_result.channel == channel ? last_result.result : none;
}

/* Whether a read, or a send that was short, would do better than -EAGAIN. */
static bool can_go_on(struct aph_call *call)
{
	const struct aph_channel_ops *ops = call->channel->ops;
	uint8_t byte;

	if (call->has_room || call->state == APH_CALL_ENDED || ops->available(call) > 0)
		return true;
	/*
	 * A transport may tell of what arrives only to those who have looked in vain, and of an end
	 * then.
	 */
	return ops->read(call, &byte, 1, false) > 0 || (call->in_last && !call->was_short);
}

int aph_call_wait(struct aph_call *call, uint64_t deadline_ns)
{
	struct aph_endpoint *ep = call->channel->ep;
	int r = 0;

	aph_lock(ep);
	r = aph_endpoint_check(ep);
	if (r == 0 && !can_go_on(call)) {
		call->progress = false;
		call->n_waiting++;
		r = aph_endpoint_wait(ep, made_progress, call, deadline_ns,
				      call->is_client ? APH_WAITER_CLIENT : APH_WAITER_SERVICE);
		call->n_waiting--;
	}
	call->has_room = false;
	aph_unlock(ep);
	return r;
}
