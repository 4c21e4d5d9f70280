/* SPDX-License-Identifier: MIT */
/*
 * Bodies of calls. They belong to the transport; this file decides what may be done with them when,
 * and what that means for the call.
 */
#include "base/error.h"
#include "core/call.h"

#include <errno.h>

/* -- bodies out -------------------------------------------------------------------------------- */

int aph_call_check_sender(struct aph_call *call)
{
	if (call->out_last || call->state == APH_CALL_ENDED || call->state == APH_CALL_REPLIED)
		return aph_err(
			-EPIPE,
			"the body is finished or the call has ended: nothing more can be sent");
	return 0;
}

void aph_call_sent(struct aph_call *call, bool last)
{
	if (call->is_client) {
		if (call->state == APH_CALL_NEW)
			call->state = APH_CALL_REQUEST;
		call->out_last = last;
	} else if (last) {
		aph_call_replied(call, true);
	} else {
		call->state = APH_CALL_REPLY;
	}
}

/*
 * A reservation, or what became of one, tells aph_call_wait() whether to wait for room, as a send
 * does.
 */
static void note_room(struct aph_call *call, int r)
{
	if (r < 0 && r != -EAGAIN)
		return;
	call->has_room = false;
	call->was_short = r == -EAGAIN;
}

ssize_t aph_call_send_fds(struct aph_call *call, const void *data, size_t len, const int *fds,
			  size_t n_fds, unsigned flags)
{
	struct aph_channel *channel = call->channel;
	struct aph_endpoint *ep = channel->ep;
	bool more = flags & APH_MORE;
	ssize_t r;

	if (n_fds > APH_CALL_FDS_MAX || (flags & ~APH_MORE))
		return aph_err(-EINVAL,
			       "at most %d descriptors go with a piece, and no flag but APH_MORE",
			       APH_CALL_FDS_MAX);
	aph_lock(ep);
	r = aph_call_check_sender(call);
	call->has_room = false;
	if (r == 0)
		r = channel->ops->send(call, data, len, fds, n_fds, more);
	if (r >= 0 && (size_t)r == len) {
		aph_call_sent(call, !more);
		call->was_short = false;
		if (call->pending.events)
			aph_pending_remove(&call->pending, APH_EVENT_WRITABLE);
	} else {
		if (r >= 0)
			aph_call_sent(call, false);
		call->was_short = r == -EAGAIN || r >= 0;
	}
	aph_unlock(ep);
	return r;
}

ssize_t aph_call_send(struct aph_call *call, const void *data, size_t len, unsigned flags)
{
	return aph_call_send_fds(call, data, len, NULL, 0, flags);
}

int aph_call_reserve(struct aph_call *call, void **data, size_t *len)
{
	struct aph_endpoint *ep = call->channel->ep;
	int r;

	aph_lock(ep);
	r = aph_call_check_sender(call);
	if (r == 0)
		r = call->channel->ops->reserve(call, data, len);
	note_room(call, r);
	aph_unlock(ep);
	return r;
}

int aph_call_commit(struct aph_call *call, size_t len, unsigned flags)
{
	struct aph_endpoint *ep = call->channel->ep;
	bool more = flags & APH_MORE;
	int r;

	if (flags & ~APH_MORE)
		return aph_err(-EINVAL, "there is no flag but APH_MORE");
	aph_lock(ep);
	r = aph_call_check_sender(call);
	if (r == 0)
		r = call->channel->ops->commit(call, len, more);
	if (r == 0 && (len || !more))
		aph_call_sent(call, !more);
	note_room(call, r);
	aph_unlock(ep);
	return r;
}

/* -- bodies in --------------------------------------------------------------------------------- */

/* What "nothing is here" means: the end, the end of hope, or a little patience. */
static int nothing_to_read(struct aph_call *call, int at_end)
{
	if (call->in_last) {
		aph_call_dispose(call);
		return at_end;
	}
	if (call->state == APH_CALL_ENDED)
		return aph_err(-EPIPE, "the call has ended (%s, %s) before the body was complete",
			       aph_outcome_name(call->result.outcome),
			       aph_reason_name(call->result.reason));
	call->want_readable = true;
	return -EAGAIN;
}

ssize_t aph_call_read_locked(struct aph_call *call, void *buf, size_t max, bool consume)
{
	const struct aph_channel_ops *ops = call->channel->ops;
	ssize_t r = ops->read(call, buf, max, consume);

	if (r == -EAGAIN)
		return nothing_to_read(call, 0);
	if (consume && call->in_last && aph_call_owes_receipt(call) && ops->available(call) == 0)
		aph_call_dispose(call);
	return r;
}

static ssize_t read_body(struct aph_call *call, void *buf, size_t max, bool consume)
{
	struct aph_endpoint *ep = call->channel->ep;
	ssize_t r;

	aph_lock(ep);
	r = aph_call_read_locked(call, buf, max, consume);
	aph_unlock(ep);
	return r;
}

ssize_t aph_call_read(struct aph_call *call, void *buf, size_t max)
{
	return read_body(call, buf, max, true);
}

ssize_t aph_call_peek(struct aph_call *call, void *buf, size_t max)
{
	return read_body(call, buf, max, false);
}

int aph_call_borrow(struct aph_call *call, const void **data, size_t *len)
{
	struct aph_endpoint *ep = call->channel->ep;
	int r;

	aph_lock(ep);
	r = call->channel->ops->borrow(call, data, len);
	if (r == -EAGAIN)
		r = nothing_to_read(call, -ENODATA);
	aph_unlock(ep);
	return r;
}

int aph_call_release(struct aph_call *call, size_t len)
{
	struct aph_endpoint *ep = call->channel->ep;
	const struct aph_channel_ops *ops = call->channel->ops;
	int r = 0;

	aph_lock(ep);
	if (len > ops->available(call)) {
		r = aph_err(-EINVAL, "cannot release %zu bytes: only %zu are here", len,
			    ops->available(call));
	} else {
		ops->release(call, len);
		if (call->in_last && aph_call_owes_receipt(call) && ops->available(call) == 0)
			aph_call_dispose(call);
	}
	aph_unlock(ep);
	return r;
}

size_t aph_call_available(const struct aph_call *call)
{
	size_t n;

	aph_lock(call->channel->ep);
	n = call->channel->ops->available(call);
	aph_unlock(call->channel->ep);
	return n;
}

int aph_call_body_complete(const struct aph_call *call)
{
	const struct aph_channel_ops *ops = call->channel->ops;
	int complete;

	aph_lock(call->channel->ep);
	complete = call->in_last || (ops->is_complete && ops->is_complete(call));
	aph_unlock(call->channel->ep);
	return complete;
}

ssize_t aph_call_take_fds(struct aph_call *call, int *fds, size_t max)
{
	struct aph_endpoint *ep = call->channel->ep;
	ssize_t r;

	aph_lock(ep);
	r = call->channel->ops->take_fds(call, fds, max);
	aph_unlock(ep);
	return r;
}
