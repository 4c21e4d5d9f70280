/* SPDX-License-Identifier: MIT */
/*
 * The life of a call: the state machine of core.h, implemented once for every transport and both
 * sides. What is sent and read on the way is in body.c.
 */
#include "base/error.h"
#include "base/time.h"
#include "core/call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SPARE_MAX    32u
#define CLEARED_FROM offsetof(struct aph_call, data)
#define CLEARED_TO   offsetof(struct aph_call, signal_code)
/* The clock is too dear to read for every call: once in 250 us to 1 ms. */
#define SAMPLE_TICKS 1000000u

/* -- life -------------------------------------------------------------------------------------- */

static struct aph_call *allocate(struct aph_channel *channel)
{
	/* The last one that was freed: its memory is in the cache. */
	struct aph_call *call = channel->spare;

	if (!call)
		return calloc(1, channel->ops->call_size);
	channel->spare = call->next_spare;
	channel->n_spare--;
	return call;
}

static void give_back(struct aph_channel *channel, struct aph_call *call)
{
	if (channel->n_spare >= SPARE_MAX || channel->state == APH_CHANNEL_ENDED) {
		free(call);
		return;
	}
	channel->n_spare++;
	call->next_spare = channel->spare;
	channel->spare = call;
}

void aph_call_free_spare(struct aph_channel *channel)
{
	while (channel->spare) {
		struct aph_call *call = channel->spare;

		channel->spare = call->next_spare;
		free(call);
	}
	channel->n_spare = 0;
}

static void expire(struct aph_timer *timer);

static APH_APART int reserve_timer(struct aph_call *call)
{
	int r = aph_timers_reserve(&call->channel->ep->timers);

	if (r < 0)
		return aph_err(r, "no memory for a deadline");
	call->timed = true;
	call->timer.expire = expire;
	return 0;
}

static APH_APART void stop_timer(struct aph_call *call)
{
	call->timed = false;
	aph_timers_stop(&call->channel->ep->timers, &call->timer);
	aph_timers_unreserve(&call->channel->ep->timers);
}

static inline int make(struct aph_call **out, struct aph_channel *channel, uint64_t deadline_ns)
{
	struct aph_call *call = allocate(channel);
	int r = 0;

	if (!call)
		return aph_err(-ENOMEM, "no memory for a call");
	call->pending.events = 0;
	call->pending.kind = APH_PENDING_CALL;
	call->channel = channel;
	call->deadline_ns = deadline_ns;
	/* Small enough to be done in place, unlike the whole. */
	memset((char *)call + CLEARED_FROM, 0, CLEARED_TO - CLEARED_FROM);
	call->is_client = channel->is_client;
	if (deadline_ns != APH_FOREVER)
		r = reserve_timer(call);
	if (r == 0)
		r = channel->ops->call_init(call);
	if (r < 0) {
		if (call->timed)
			aph_timers_unreserve(&channel->ep->timers);
		give_back(channel, call);
		return r;
	}
	aph_list_append(&channel->calls, &call->link);
	aph_channel_ref(channel);
	channel->n_calls++;
	if (call->timed)
		aph_endpoint_start_timer(channel->ep, &call->timer, deadline_ns);
	*out = call;
	return 0;
}

int aph_call_make(struct aph_call **out, struct aph_channel *channel, uint64_t deadline_ns)
{
	return make(out, channel, deadline_ns);
}

void aph_call_recycle(struct aph_call *call)
{
	struct aph_channel *channel = call->channel;

	aph_pending_clear(&call->pending);
	channel->ops->call_deinit(call);
	aph_list_remove(&call->link);
	give_back(channel, call);
	aph_channel_unref(channel);
}

/* -- events from the transport ----------------------------------------------------------------- */

/* Tells whoever waits for this call, or queues the event. */
static inline void tell(struct aph_call *call, enum aph_event_type type)
{
	struct aph_endpoint *ep = call->channel->ep;

	call->progress = true;
	if (call->n_waiting)
		aph_endpoint_changed(ep);
	if (!call->private && call->user_holds)
		aph_pending_add(ep, &call->pending, type);
}

static void count_end(struct aph_service *service, enum aph_outcome outcome)
{
	if (!service)
		return;
	service->stats->open--;
	if (outcome == APH_DISPOSED)
		service->stats->disposed++;
	else if (outcome == APH_GONE)
		service->stats->gone++;
	else
		service->stats->aborted++;
}

/* For one that has not ended. `told`: its user learns of it by an event. */
static inline void end(struct aph_call *call, enum aph_outcome outcome, enum aph_reason reason,
		       int32_t code, bool told)
{
	struct aph_channel *channel = call->channel;

	call->state = APH_CALL_ENDED;
	call->result = (struct aph_result){ .outcome = outcome, .reason = reason, .code = code };
	channel->n_calls--;
	if (call->timed)
		stop_timer(call);
	if (!call->is_client) {
		count_end(channel->service, outcome);
		if (call->pending.events & 1u << APH_EVENT_REQUEST)
			call->user_holds = false; /* the service never learns of it */
	}
	aph_pending_clear(&call->pending);
	if (told)
		tell(call, APH_EVENT_END);
	if (aph_call_is_over(call))
		aph_call_recycle(call);
	else if (!call->is_client)
		channel->ops->call_ended(call);
}

void aph_call_end(struct aph_call *call, enum aph_outcome outcome, enum aph_reason reason,
		  int32_t code)
{
	if (call->state != APH_CALL_ENDED)
		end(call, outcome, reason, code,
		    call->is_client || call->receipts || call->state != APH_CALL_REPLIED);
}

void aph_call_abandon(struct aph_call *call)
{
	call->n_waiting = 0; /* those threads are the parent's */
	if (call->state == APH_CALL_ENDED)
		return;
	call->state = APH_CALL_ENDED;
	call->lingering = false;
	call->result = (struct aph_result){
		.outcome = call->is_client ? APH_LOST : APH_GONE,
		.reason = APH_REASON_CLOSED,
	};
	/* It may be freed before others that have one. */
	if (call->timed)
		stop_timer(call);
}

struct aph_call *aph_call_incoming(struct aph_channel *channel, uint64_t deadline_ns)
{
	struct aph_service *service = channel->service;
	struct aph_call *call = NULL;

	(void)make(&call, channel, deadline_ns);
	if (!call)
		return NULL;
	call->state = APH_CALL_REQUEST;
	call->user_holds = true;
	call->receipts = service->flags & APH_SERVICE_RECEIPTS;
	service->stats->calls++;
	if (channel->ep->ticks - service->sampled_ticks > SAMPLE_TICKS) {
		service->sampled_ticks = channel->ep->ticks;
		call->sampled_since_ns = aph_time_ns();
	}
	service->stats->open++;
	aph_pending_add(channel->ep, &call->pending, APH_EVENT_REQUEST);
	return call;
}

void aph_call_arrived(struct aph_call *call, bool last)
{
	if (call->state == APH_CALL_ENDED)
		return;
	if (last)
		call->in_last = true;
	if (call->is_client && last) {
		end(call, APH_ANSWERED, APH_REASON_NONE, 0, true);
	} else if (call->is_client && call->state == APH_CALL_REQUEST) {
		call->state = APH_CALL_REPLY;
		tell(call, APH_EVENT_REPLY);
	} else {
		call->progress = true;
		if (call->want_readable)
			tell(call, APH_EVENT_READABLE);
		else if (call->n_waiting)
			aph_endpoint_changed(call->channel->ep);
		call->want_readable = false;
	}
}

void aph_call_signalled(struct aph_call *call, int32_t code)
{
	call->signal_code = code;
	if (call->state != APH_CALL_ENDED && call->state != APH_CALL_REPLIED)
		tell(call, APH_EVENT_SIGNAL);
}

void aph_call_writable(struct aph_call *call)
{
	if (call->state == APH_CALL_ENDED || call->out_last)
		return;
	call->has_room = true;
	tell(call, APH_EVENT_WRITABLE);
}

void aph_call_give_up(struct aph_call *call, enum aph_reason reason)
{
	const struct aph_channel_ops *ops = call->channel->ops;
	bool unseen = call->state == APH_CALL_NEW || ops->revoke(call);

	if (!unseen)
		ops->farewell(call, APH_FAREWELL_CANCEL, (int32_t)reason);
	aph_call_end(call, unseen ? APH_REFUSED : APH_LOST, reason, 0);
}

static void expire(struct aph_timer *timer)
{
	struct aph_call *call = aph_container(timer, struct aph_call, timer);

	if (call->is_client)
		aph_call_give_up(call, APH_REASON_DEADLINE);
	else if (call->state != APH_CALL_REPLIED)
		aph_call_end(call, APH_GONE, APH_REASON_DEADLINE, 0);
}

/* -- the service's end of a call --------------------------------------------------------------- */

static APH_APART void take_sample(struct aph_call *call)
{
	struct aph_service *service = call->channel->service;
	uint64_t ns;
	int bucket = 0;

	if (!service)
		return;
	ns = aph_time_ns() - call->sampled_since_ns;
	while (bucket < APH_LATENCIES - 1 && ns >> bucket)
		bucket++;
	service->stats->sampled++;
	service->stats->sampled_ns += ns;
	service->stats->latency[bucket]++;
}

/* All of the reply is on its way: a service that wants no receipt is done. */
void aph_call_flushed(struct aph_call *call)
{
	if (!call->receipts && call->state != APH_CALL_ENDED)
		end(call, APH_DISPOSED, APH_REASON_NONE, 0, false);
}

void aph_call_replied(struct aph_call *call, bool flushed)
{
	call->out_last = true;
	call->state = APH_CALL_REPLIED;
	if (call->timed)
		stop_timer(call);
	if (call->sampled_since_ns)
		take_sample(call);
	if (flushed)
		aph_call_flushed(call);
}

static int check_answerable(struct aph_call *call)
{
	if (call->is_client)
		return aph_err(-EINVAL, "only a service can answer: this is a client's call");
	if (call->out_last)
		return aph_err(-EINVAL, "the reply was finished before");
	return 0;
}

/* It lives on for a while: what was to be told of it is not told to a user who has let go of it. */
static void fall_silent(struct aph_call *call)
{
	if (!call->user_holds)
		aph_pending_clear(&call->pending);
}

static int gone(struct aph_call *call)
{
	call->user_holds = call->receipts;
	fall_silent(call);
	aph_call_settle(call);
	return aph_err(-ECANCELED, "the client of this call is gone");
}

int aph_call_reply(struct aph_call *call, const void *data, size_t len)
{
	struct aph_channel *channel = call->channel;
	struct aph_endpoint *ep = channel->ep;
	int r;

	aph_lock(ep);
	r = check_answerable(call);
	if (r == 0 && call->state == APH_CALL_ENDED) {
		r = gone(call);
	} else if (r == 0) {
		r = channel->ops->send_all(call, data, len);
		if (r >= 0) {
			call->user_holds = call->receipts;
			if (r > 0)
				fall_silent(call);
			aph_call_replied(call, r == 0);
			r = 0;
		} else if (r == -ECANCELED && call->state == APH_CALL_ENDED) {
			r = gone(call);
		} else if (r == -ECANCELED) {
			call->user_holds = call->receipts;
			aph_call_end(call, APH_LOST, APH_REASON_RESOURCES, 0);
		}
	}
	aph_unlock(ep);
	return r;
}

static int end_by_service(struct aph_call *call, enum aph_farewell kind, int32_t value)
{
	struct aph_endpoint *ep = call->channel->ep;
	int r;

	aph_lock(ep);
	r = check_answerable(call);
	if (r == 0 && call->state == APH_CALL_ENDED) {
		r = gone(call);
	} else if (r == 0) {
		bool aborts = kind == APH_FAREWELL_ABORT;

		if (call->sampled_since_ns)
			take_sample(call);
		call->channel->ops->farewell(call, kind, value);
		call->user_holds = call->receipts;
		aph_call_end(call, aborts ? APH_ABORTED : APH_REFUSED,
			     aborts ? APH_REASON_NONE : (enum aph_reason)value, aborts ? value : 0);
	}
	aph_unlock(ep);
	return r;
}

int aph_call_abort(struct aph_call *call, int32_t code)
{
	return end_by_service(call, APH_FAREWELL_ABORT, code);
}

int aph_call_refuse(struct aph_call *call, enum aph_reason reason)
{
	if ((unsigned)reason > APH_REASON_RESOURCES)
		return aph_err(-EINVAL, "there is no reason %d", (int)reason);
	return end_by_service(call, APH_FAREWELL_REFUSE, (int32_t)reason);
}

/* -- the client's end of a call ---------------------------------------------------------------- */

int aph_call_new(struct aph_call **out, struct aph_channel *channel, uint64_t deadline_ns,
		 void *data)
{
	struct aph_call *call = NULL;
	int r = 0;

	if (!channel->is_client)
		return aph_err(-EINVAL,
			       "a service cannot call its clients: let them open a channel to a "
			       "service of yours, or keep a call of theirs open");
	aph_lock(channel->ep);
	if (channel->state == APH_CHANNEL_CONNECTING)
		r = aph_err(-EAGAIN, "the channel is not open yet: wait for its OPEN event");
	else if (channel->state == APH_CHANNEL_ENDED)
		r = aph_err(-ENOTCONN, "the channel has closed (%s): open a new one",
			    aph_reason_name(channel->reason));
	if (r == 0)
		r = make(&call, channel, deadline_ns);
	if (call) {
		call->user_holds = true;
		call->data = data;
		*out = call;
	}
	aph_unlock(channel->ep);
	return r;
}

/* What a client says about its call in one go, under the lock. */
static int tell_service(struct aph_call *call, int (*word)(struct aph_call *call, int32_t value),
			int32_t value)
{
	struct aph_endpoint *ep = call->channel->ep;
	int r;

	aph_lock(ep);
	if (call->is_client)
		r = word(call, value);
	else
		r = aph_err(-EINVAL, "only the client can cancel, withdraw or signal: a service "
				     "answers, aborts or refuses");
	aph_unlock(ep);
	return r;
}

static int has_ended(void)
{
	return aph_err(-EALREADY, "the call has ended already");
}

static int cancel(struct aph_call *call, int32_t reason)
{
	if (call->state == APH_CALL_ENDED)
		return has_ended();
	aph_call_give_up(call, (enum aph_reason)reason);
	return 0;
}

int aph_call_cancel(struct aph_call *call)
{
	return tell_service(call, cancel, APH_REASON_CANCELLED);
}

static int withdraw(struct aph_call *call, int32_t reason)
{
	if (call->state == APH_CALL_ENDED)
		return has_ended();
	if (call->state != APH_CALL_NEW && !call->channel->ops->revoke(call))
		return aph_err(-EBUSY,
			       "the service has received the request: cancel the call instead");
	aph_call_end(call, APH_REFUSED, (enum aph_reason)reason, 0);
	return 0;
}

int aph_call_withdraw(struct aph_call *call)
{
	return tell_service(call, withdraw, APH_REASON_CANCELLED);
}

static int signal_service(struct aph_call *call, int32_t code)
{
	if (call->state != APH_CALL_REQUEST && call->state != APH_CALL_REPLY)
		return aph_err(-EPIPE, "the call has not begun or has ended");
	return call->channel->ops->signal(call, code);
}

int aph_call_signal(struct aph_call *call, int32_t code)
{
	return tell_service(call, signal_service, code);
}

void aph_call_dispose(struct aph_call *call)
{
	if (!aph_call_owes_receipt(call) || call->state != APH_CALL_ENDED ||
	    call->result.outcome != APH_ANSWERED)
		return;
	call->disposed = true;
	if (call->channel->state == APH_CHANNEL_OPEN)
		call->channel->ops->farewell(call, APH_FAREWELL_DISPOSE, 0);
}

void aph_call_drop(struct aph_call *call)
{
	const struct aph_channel_ops *ops = call->channel->ops;

	call->user_holds = false;
	aph_pending_clear(&call->pending);
	if (call->is_client && call->state != APH_CALL_ENDED)
		aph_call_give_up(call, APH_REASON_CANCELLED);
	else if (call->is_client) {
		aph_call_dispose(call);
		aph_call_settle(call);
	} else if (call->state == APH_CALL_REQUEST || call->state == APH_CALL_REPLY) {
		ops->farewell(call, APH_FAREWELL_LOSE, APH_REASON_POLICY);
		aph_call_end(call, APH_LOST, APH_REASON_POLICY, 0);
	} else {
		aph_call_settle(call);
	}
}

struct aph_call *aph_call_free(struct aph_call *call)
{
	struct aph_endpoint *ep;

	if (!call)
		return NULL;
	ep = call->channel->ep;
	aph_lock(ep);
	aph_call_drop(call);
	aph_unlock(ep);
	return NULL;
}

/* -- what is known of a call ------------------------------------------------------------------- */

int aph_call_result(const struct aph_call *call, struct aph_result *result)
{
	bool ended;

	aph_lock(call->channel->ep);
	ended = call->state == APH_CALL_ENDED;
	if (ended && result)
		*result = call->result;
	aph_unlock(call->channel->ep);
	return ended;
}

struct aph_channel *aph_call_channel(const struct aph_call *call)
{
	return call->channel;
}

struct aph_service *aph_call_service(const struct aph_call *call)
{
	return call->channel->service;
}

const struct aph_credentials *aph_call_credentials(const struct aph_call *call)
{
	return &call->channel->peer;
}

uint64_t aph_call_deadline(const struct aph_call *call)
{
	return call->deadline_ns;
}

void *aph_call_data(const struct aph_call *call)
{
	return call->data;
}

void aph_call_set_data(struct aph_call *call, void *data)
{
	call->data = data;
}
