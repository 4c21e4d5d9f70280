/* SPDX-License-Identifier: MIT */
/*
 * A call of the core on a call of the engine: which words of the one mean which of the other. What
 * decides between REFUSED and LOST is whether anybody can have run the request; where nobody can
 * prove that, it is LOST.
 */
#include "base/error.h"
#include "remote/remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct aph_remote_port *port_of(const struct aph_call *call)
{
	return aph_remote_channel(call->channel)->port;
}

/* -- life -------------------------------------------------------------------------------------- */

int aph_remote_call_init(struct aph_call *call)
{
	struct aph_remote_call *rc = aph_remote_call(call);
	struct aph_remote_channel *channel = aph_remote_channel(call->channel);
	struct aph_rx_call_options options = { .size = sizeof(options), .data = &rc->user };

	rc->user = (struct aph_remote_user){ .is_told = true };
	rc->rx = NULL;
	rc->kept = NULL;
	rc->kept_len = rc->kept_off = 0;
	rc->reserved = 0;
	rc->drops = false;
	if (!call->is_client)
		return 0;
	if (call->channel->n_calls >= call->channel->calls_max)
		return aph_err(-EAGAIN,
			       "%u calls of this channel are in progress: wait for one to end",
			       call->channel->calls_max);
	if (aph_rx_call_new(&rc->rx, channel->client, &options) < 0)
		return aph_err(-ENOMEM, "no memory for another call");
	return 0;
}

void aph_remote_call_ended(struct aph_call *call)
{
	(void)call;
}

void aph_remote_call_deinit(struct aph_call *call)
{
	struct aph_remote_call *rc = aph_remote_call(call);

	free(rc->kept);
	/* In a child the engine is the parent's. */
	if (call->channel->ep->forked)
		return;
	if (rc->rx) {
		/* A reply that is written goes on to its end without us. */
		aph_rx_call_set_data(rc->rx, NULL);
		rc->rx = aph_rx_call_free(rc->rx);
		aph_remote_changed(port_of(call));
	}
	if (!call->is_client)
		aph_remote_channel_quiet(aph_remote_channel(call->channel));
}

/* -- bodies out -------------------------------------------------------------------------------- */

static int no_descriptors(void)
{
	return aph_err(-EOPNOTSUPP,
		       "descriptors do not cross the network: use a service of this host");
}

/* The protocol has no reply before the whole request is there; WRITABLE follows then. */
static bool is_early(const struct aph_remote_call *rc, ssize_t r)
{
	return r == -EPROTO && !rc->base.is_client && !aph_rx_call_is_complete(rc->rx);
}

static int too_early(void)
{
	return aph_err(-EAGAIN,
		       "over the network a reply begins when the whole request has arrived");
}

/* A reservation lies where the next byte would. */
static int check_reserved(const struct aph_remote_call *rc)
{
	return rc->reserved ? aph_err(-EBUSY, "commit the piece that is reserved first") : 0;
}

/* A piece of a body that the engine does not take. */
static int not_taken(int r)
{
	switch (r) {
	case -EAGAIN:
		return r;
	case -ENOMEM:
		return aph_err(r, "no memory for a body");
	case -EFBIG:
		return aph_err(r, "a body over the network has at most 2^32 packets");
	default:
		return aph_err(-EPIPE, "the call takes no more of this body");
	}
}

/* What was sent is delivered even if the rest takes its time. */
#define FLAGS_OF(more) ((more) ? APH_RX_MORE | APH_RX_PUSH : 0)

ssize_t aph_remote_send(struct aph_call *call, const void *data, size_t len, const int *fds,
			size_t n_fds, bool more)
{
	struct aph_remote_call *rc = aph_remote_call(call);
	ssize_t r;

	(void)fds;
	if (n_fds)
		return no_descriptors();
	r = check_reserved(rc);
	if (r < 0)
		return r;
	r = aph_rx_call_write(rc->rx, data, len, FLAGS_OF(more));
	if (r >= 0)
		aph_remote_flush(port_of(call));
	if (is_early(rc, r))
		return too_early();
	/* A service that has begun to reply does not want the rest of the request. */
	if (r == -EPROTO && call->is_client && !call->out_last)
		return (ssize_t)len;
	return r < 0 ? not_taken((int)r) : r;
}

/*
 * The rest of a request that was answered without it. What has come of it is gone as well: nobody
 * could tell that from a whole one.
 */
static void drop_request(struct aph_remote_call *rc)
{
	const void *data;
	size_t len;

	rc->drops = true;
	while (aph_rx_call_borrow(rc->rx, &data, &len) == 0 && len)
		aph_rx_call_release(rc->rx, len);
}

/* Goes on with a reply that was kept. */
static void send_kept(struct aph_remote_call *rc)
{
	ssize_t r =
		aph_rx_call_write(rc->rx, rc->kept + rc->kept_off, rc->kept_len - rc->kept_off, 0);

	if (r < 0)
		return;
	rc->kept_off += (size_t)r;
	if (rc->kept_off < rc->kept_len)
		return;
	free(rc->kept);
	rc->kept = NULL;
	aph_call_flushed(&rc->base);
}

int aph_remote_send_all(struct aph_call *call, const void *data, size_t len)
{
	struct aph_remote_call *rc = aph_remote_call(call);
	ssize_t r = check_reserved(rc);
	size_t done;
	bool early;

	if (r < 0)
		return (int)r;
	r = aph_rx_call_write(rc->rx, data, len, 0);
	done = r > 0 ? (size_t)r : 0;
	early = is_early(rc, r);
	if (r == (ssize_t)len) {
		aph_remote_flush(port_of(call));
		return 0;
	}
	if (r == -ENOMEM)
		return aph_err(-ENOMEM, "no memory for the reply");
	if (r < 0 && r != -EAGAIN && !early) {
		/* How it has ended is known already, and only to be told. */
		(void)aph_remote_pump(port_of(call));
		return aph_err(-ECANCELED, "the call takes no more of its reply");
	}
	rc->kept_len = len - done;
	rc->kept_off = 0;
	rc->kept = malloc(rc->kept_len ? rc->kept_len : 1);
	if (!rc->kept) {
		if (!done)
			return aph_err(-ENOMEM, "no memory for the reply");
		aph_remote_farewell(call, APH_FAREWELL_LOSE, APH_REASON_RESOURCES);
		return aph_err(-ECANCELED, "no memory for the rest of a reply: the call is lost");
	}
	if (rc->kept_len)
		memcpy(rc->kept, (const uint8_t *)data + done, rc->kept_len);
	if (early)
		drop_request(rc);
	aph_remote_flush(port_of(call));
	return 1;
}

int aph_remote_reserve(struct aph_call *call, void **data, size_t *len)
{
	struct aph_remote_call *rc = aph_remote_call(call);
	size_t room;
	int r;

	if (rc->reserved)
		return aph_err(-EBUSY, "one piece is reserved already: commit it first");
	if (!*len)
		return aph_err(-EINVAL, "a reservation has at least one byte");
	r = aph_rx_call_reserve(rc->rx, data, &room);
	if (is_early(rc, r))
		return too_early();
	if (r < 0)
		return not_taken(r);
	if (*len > room)
		*len = room;
	rc->reserved = *len;
	return 0;
}

int aph_remote_commit(struct aph_call *call, size_t len, bool more)
{
	struct aph_remote_call *rc = aph_remote_call(call);
	int r;

	if (!rc->reserved)
		return aph_err(-EINVAL, "there is no reservation to commit");
	if (len > rc->reserved)
		return aph_err(-EINVAL, "only %zu bytes are reserved", rc->reserved);
	if (!len && more) {
		rc->reserved = 0;
		return 0;
	}
	r = aph_rx_call_commit(rc->rx, len, FLAGS_OF(more));
	if (r < 0)
		return not_taken(r);
	rc->reserved = 0;
	aph_remote_flush(port_of(call));
	return 0;
}

/* -- bodies in --------------------------------------------------------------------------------- */

/* The engine tells of the end of a body only to those who wait for it. */
static void look_for_end(struct aph_remote_call *rc)
{
	if (!rc->base.in_last && aph_rx_call_is_complete(rc->rx))
		rc->base.in_last = true;
}

/*
 * And of more to those whose last read came up empty. Those of the core who wait count on it after
 * any read.
 */
static void has_read(struct aph_remote_call *rc)
{
	if (!aph_rx_call_available(rc->rx) && !aph_rx_call_is_complete(rc->rx))
		(void)aph_rx_call_read(rc->rx, NULL, 0, 0);
	aph_remote_changed(port_of(&rc->base));
}

static int was_dropped(void)
{
	return aph_err(-EPIPE, "the call was answered before the request was here: over the "
			       "network the rest of it is dropped then");
}

ssize_t aph_remote_read(struct aph_call *call, void *buf, size_t max, bool consume)
{
	struct aph_remote_call *rc = aph_remote_call(call);
	ssize_t r;

	if (rc->drops)
		return was_dropped();
	look_for_end(rc);
	r = aph_rx_call_read(rc->rx, buf, max, consume ? 0 : APH_RX_PEEK);
	if (consume)
		has_read(rc);
	return r > 0 || (r == 0 && !max && aph_rx_call_available(rc->rx)) ? r : -EAGAIN;
}

size_t aph_remote_available(const struct aph_call *call)
{
	return aph_rx_call_available(aph_remote_call(call)->rx);
}

bool aph_remote_is_complete(const struct aph_call *call)
{
	const struct aph_remote_call *rc = aph_remote_call(call);

	return !rc->drops && aph_rx_call_is_complete(rc->rx);
}

int aph_remote_borrow(struct aph_call *call, const void **data, size_t *len)
{
	struct aph_remote_call *rc = aph_remote_call(call);

	if (rc->drops)
		return was_dropped();
	look_for_end(rc);
	if (aph_rx_call_borrow(rc->rx, data, len) < 0 || !*len)
		return -EAGAIN;
	return 0;
}

void aph_remote_release(struct aph_call *call, size_t len)
{
	struct aph_remote_call *rc = aph_remote_call(call);

	aph_rx_call_release(rc->rx, len);
	has_read(rc);
}

ssize_t aph_remote_take_fds(struct aph_call *call, int *fds, size_t max)
{
	(void)call;
	(void)fds;
	(void)max;
	return 0;
}

/* -- ends -------------------------------------------------------------------------------------- */

bool aph_remote_revoke(struct aph_call *call)
{
	struct aph_remote_call *rc = aph_remote_call(call);
	struct aph_rx_call_info info;

	aph_rx_call_info(rc->rx, &info);
	if (info.n_sent)
		return false;
	(void)aph_rx_call_abort(rc->rx, APH_RX_USER_ABORT);
	aph_remote_changed(port_of(call));
	return true;
}

int aph_remote_signal(struct aph_call *call, int32_t code)
{
	(void)call;
	(void)code;
	return aph_err(-EOPNOTSUPP, "signals do not cross the network");
}

static bool is_own_code(int32_t code, int32_t kind)
{
	return (code & ~APH_REMOTE_REASON) == kind &&
	       (code & APH_REMOTE_REASON) <= APH_REASON_RESOURCES;
}

/*
 * Codes that the protocol, or the other end of ours, takes for something else than a word of the
 * service.
 */
static bool is_taken(int32_t code)
{
	switch (code) {
	case 0:
	case APH_RX_CALL_DEAD:
	case APH_RX_INVALID_OPERATION:
	case APH_RX_RESTARTING:
		return true;
	default:
		return is_own_code(code, APH_REMOTE_REFUSED) || is_own_code(code, APH_REMOTE_LOST);
	}
}

void aph_remote_farewell(struct aph_call *call, enum aph_farewell kind, int32_t value)
{
	struct aph_remote_call *rc = aph_remote_call(call);
	int32_t code = value;

	switch (kind) {
	case APH_FAREWELL_DISPOSE:
		return; /* the engine acknowledges what was read */
	case APH_FAREWELL_CANCEL:
		code = value == APH_REASON_DEADLINE ? APH_RX_CALL_TIMEOUT : APH_RX_USER_ABORT;
		break;
	case APH_FAREWELL_ABORT:
		code = is_taken(value) ? APH_RX_USER_ABORT : value;
		break;
	case APH_FAREWELL_REFUSE:
		code = APH_REMOTE_REFUSED | value;
		break;
	case APH_FAREWELL_LOSE:
		code = APH_REMOTE_LOST | value;
		break;
	}
	(void)aph_rx_call_abort(rc->rx, code);
	aph_remote_flush(port_of(call));
}

/* -- what the engine says ---------------------------------------------------------------------- */

/*
 * Whoever says that the request was not run may have taken the place of one that has run it. The
 * service itself says so behind the first packet: it is the only one who has had it, if there was
 * one copy.
 */
static bool is_refusal_of_service(const struct aph_rx_call_info *info)
{
	return !info->n_resent;
}

/*
 * A server that does not begin the call says so to any packet: it is about the call if there was
 * one packet.
 */
static bool is_refusal_of_server(const struct aph_rx_call_info *info)
{
	return info->n_sent == 1 && !info->received && !info->vague;
}

/*
 * `refused`: what has ended it proves that the request did not run. Nor did it if nothing of it has
 * left.
 */
static void end_unanswered(struct aph_call *call, const struct aph_rx_call_info *info, bool refused,
			   enum aph_reason reason)
{
	aph_call_end(call, refused || !info->n_sent ? APH_REFUSED : APH_LOST, reason, 0);
}

static void end_aborted(struct aph_call *call, int32_t code, const struct aph_rx_call_info *info)
{
	enum aph_reason reason = (enum aph_reason)(code & APH_REMOTE_REASON);

	if (is_own_code(code, APH_REMOTE_REFUSED))
		end_unanswered(call, info, is_refusal_of_service(info), reason);
	else if (is_own_code(code, APH_REMOTE_LOST))
		end_unanswered(call, info, false, reason);
	else if (code == APH_RX_RESTARTING)
		end_unanswered(call, info, is_refusal_of_server(info), APH_REASON_BUSY);
	else if (code == APH_RX_INVALID_OPERATION)
		end_unanswered(call, info, is_refusal_of_server(info), APH_REASON_NO_SERVICE);
	else if (code == APH_RX_CALL_DEAD)
		end_unanswered(call, info, false, APH_REASON_CLOSED);
	else
		aph_call_end(call, APH_ABORTED, APH_REASON_NONE, code);
}

static void end_client(struct aph_remote_call *rc, const struct aph_rx_end *end)
{
	struct aph_call *call = &rc->base;
	struct aph_rx_call_info info;
	bool nobody;

	aph_rx_call_info(rc->rx, &info);
	switch (end->outcome) {
	case APH_RX_DONE:
		aph_call_arrived(call, true);
		return;
	case APH_RX_ABORTED:
		end_aborted(call, end->code, &info);
		return;
	case APH_RX_BUSY:
		end_unanswered(call, &info, is_refusal_of_server(&info), APH_REASON_BUSY);
		return;
	case APH_RX_NET_ERROR:
	case APH_RX_LOCAL_ERROR:
		/* Of another packet, it says nothing about this request: it may have run before. */
		nobody = end->code == ECONNREFUSED && (info.bounced || !info.n_sent);
		end_unanswered(call, &info, info.bounced,
			       nobody ? APH_REASON_NO_SERVICE : APH_REASON_CLOSED);
		return;
	case APH_RX_ABORTED_HERE:
		end_unanswered(call, &info, false, APH_REASON_PROTOCOL);
		return;
	case APH_RX_TIMED_OUT:
	case APH_RX_RESET:
		end_unanswered(call, &info, false, APH_REASON_CLOSED);
		return;
	}
}

static void end_service(struct aph_remote_call *rc, const struct aph_rx_end *end)
{
	enum aph_reason reason = APH_REASON_CLOSED;

	if (end->outcome == APH_RX_DONE) {
		aph_call_end(&rc->base, APH_DISPOSED, APH_REASON_NONE, 0);
		return;
	}
	if (end->outcome == APH_RX_ABORTED && end->code == APH_RX_CALL_TIMEOUT)
		reason = APH_REASON_DEADLINE;
	else if (end->outcome == APH_RX_ABORTED && end->code != APH_RX_CALL_DEAD)
		reason = APH_REASON_CANCELLED;
	else if (end->outcome == APH_RX_ABORTED_HERE)
		reason = APH_REASON_PROTOCOL;
	aph_call_end(&rc->base, APH_GONE, reason, 0);
}

void aph_remote_call_event(struct aph_remote_call *rc, const struct aph_rx_event *event)
{
	switch (event->type) {
	case APH_RX_EVENT_READABLE:
		/* A reply that is complete is told by END, which follows. */
		if (rc->drops)
			drop_request(rc);
		else if (!rc->base.is_client || !aph_rx_call_is_complete(rc->rx))
			aph_call_arrived(&rc->base, aph_rx_call_is_complete(rc->rx));
		return;
	case APH_RX_EVENT_WRITABLE:
		if (rc->kept)
			send_kept(rc);
		else
			aph_call_writable(&rc->base);
		return;
	case APH_RX_EVENT_END:
		if (rc->base.is_client)
			end_client(rc, &event->end);
		else
			end_service(rc, &event->end);
		return;
	case APH_RX_EVENT_CALL:
		return;
	}
}

enum aph_reason aph_remote_call_arrive(struct aph_remote_service *service, struct aph_rx_call *rx)
{
	struct aph_remote_channel *channel;
	struct aph_rx_call_info info;
	struct aph_call *call;

	aph_rx_call_info(rx, &info);
	channel = aph_remote_channel_for(service, info.path);
	if (!channel || channel->n_calls >= channel->base.calls_max)
		return APH_REASON_BUSY;
	call = aph_call_incoming(&channel->base, APH_FOREVER);
	if (!call) {
		aph_remote_channel_unused(channel);
		return APH_REASON_RESOURCES;
	}
	aph_remote_channel_busy(channel);
	aph_remote_call(call)->rx = rx;
	aph_rx_call_set_data(rx, &aph_remote_call(call)->user);
	if (aph_rx_call_is_complete(rx))
		aph_call_arrived(call, true);
	return APH_REASON_NONE;
}
