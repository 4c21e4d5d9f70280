/* SPDX-License-Identifier: MIT */
/*
 * The endpoint: its life, its lock, its one queue of events, what wakes it, and what becomes of it
 * in a child.
 */
#include "base/close.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/time.h"
#include "core/transport.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct aph_list all_endpoints = { &all_endpoints, &all_endpoints };

/* -- lock -------------------------------------------------------------------------------------- */

void aph_lock_among_threads(struct aph_endpoint *ep)
{
	if (pthread_mutex_trylock(&ep->lock) != 0) {
		atomic_fetch_add_explicit(&ep->n_contending, 1, memory_order_relaxed);
		(void)pthread_mutex_lock(&ep->lock);
		atomic_fetch_sub_explicit(&ep->n_contending, 1, memory_order_relaxed);
	}
	ep->locked = true;
}

void aph_unlock_among_threads(struct aph_endpoint *ep)
{
	ep->locked = false;
	(void)pthread_mutex_unlock(&ep->lock);
}

int aph_endpoint_check(const struct aph_endpoint *ep)
{
	if (ep->forked)
		return aph_err(-ENOTCONN,
			       "this endpoint belongs to the parent process: make a new one "
			       "after fork()");
	return 0;
}

/* -- descriptors ------------------------------------------------------------------------------- */

static void close_descriptors(struct aph_endpoint *ep)
{
	aph_fd_close(&ep->loop_fd);
	aph_fd_close(&ep->alarm_fd);
	aph_fd_close(&ep->epoll_fd);
	aph_fd_close(&ep->wake_fd);
	aph_fd_close(&ep->timer_fd);
}

/* -- sources ----------------------------------------------------------------------------------- */

static int control(struct aph_endpoint *ep, int op, int fd, struct aph_source *source,
		   uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	if (epoll_ctl(ep->epoll_fd, op, fd, &event) < 0) {
		int e = errno;

		return aph_err(-e, "cannot watch a descriptor: %s%s", strerror(e), aph_advice(e));
	}
	/* Who sleeps elsewhere does not see it. */
	if (atomic_load(&ep->in_driver))
		aph_endpoint_raise(ep);
	return 0;
}

int aph_source_add(struct aph_endpoint *ep, int fd, struct aph_source *source, uint32_t events)
{
	return control(ep, EPOLL_CTL_ADD, fd, source, events);
}

int aph_source_change(struct aph_endpoint *ep, int fd, struct aph_source *source, uint32_t events)
{
	return control(ep, EPOLL_CTL_MOD, fd, source, events);
}

void aph_source_remove(struct aph_endpoint *ep, int fd)
{
	(void)epoll_ctl(ep->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void aph_bury(struct aph_endpoint *ep, struct aph_grave *grave, void *memory)
{
	grave->memory = memory;
	grave->next = ep->graves;
	ep->graves = grave;
}

void aph_graves_free(struct aph_endpoint *ep)
{
	while (ep->graves) {
		struct aph_grave *grave = ep->graves;

		ep->graves = grave->next;
		free(grave->memory);
	}
}

/* -- waking ------------------------------------------------------------------------------------ */

void aph_endpoint_raise(struct aph_endpoint *ep)
{
	static const uint64_t one = 1;

	if (atomic_load(&ep->in_driver)) {
		ep->remote->ops->interrupt(ep->remote);
		return;
	}
	if (ep->raised)
		return;
	ep->raised = true;
	(void)!write(ep->wake_fd, &one, sizeof(one));
}

void aph_endpoint_set_alarm(struct aph_endpoint *ep)
{
	bool due = !aph_list_empty(&ep->ready) || atomic_load(&ep->wakes);
	uint64_t count = 1;

	if (due == ep->alarmed)
		return;
	ep->alarmed = due;
	if (due)
		(void)!write(ep->alarm_fd, &count, sizeof(count));
	else
		(void)!read(ep->alarm_fd, &count, sizeof(count));
}

static void wake_ready(struct aph_source *source, uint32_t events)
{
	struct aph_endpoint *ep = aph_container(source, struct aph_endpoint, wake_source);
	uint64_t count;

	(void)events;
	ep->raised = false;
	(void)!read(ep->wake_fd, &count, sizeof(count));
}

static void timer_ready(struct aph_source *source, uint32_t events)
{
	struct aph_endpoint *ep = aph_container(source, struct aph_endpoint, timer_source);
	uint64_t count;

	(void)events;
	ep->timer_until_ns = APH_FOREVER;
	(void)!read(ep->timer_fd, &count, sizeof(count));
}

void aph_endpoint_changed(struct aph_endpoint *ep)
{
	if (ep->n_callers)
		(void)pthread_cond_broadcast(&ep->for_callers);
	if (ep->in_epoll)
		aph_endpoint_raise(ep);
}

void aph_endpoint_driver_sleeps(struct aph_endpoint *ep)
{
	ep->in_epoll = true;
	atomic_store(&ep->in_driver, true);
	if (ep->takes_wakes && atomic_load(&ep->wakes))
		ep->remote->ops->interrupt(ep->remote);
	aph_unlock(ep);
}

void aph_endpoint_driver_woke(struct aph_endpoint *ep)
{
	aph_lock(ep);
	atomic_store(&ep->in_driver, false);
	ep->in_epoll = false;
}

void aph_endpoint_start_timer(struct aph_endpoint *ep, struct aph_timer *timer,
			      uint64_t deadline_ns)
{
	aph_timers_start(&ep->timers, timer, deadline_ns);
	if ((ep->in_epoll && deadline_ns < ep->sleep_until_ns) || (ep->external && ep->asleep))
		aph_endpoint_raise(ep);
}

void aph_endpoint_has_event(struct aph_endpoint *ep)
{
	if (ep->n_receivers)
		(void)pthread_cond_signal(&ep->for_receivers);
	if (ep->led ? ep->in_epoll && ep->takes_events : ep->external)
		aph_endpoint_raise(ep);
	else if (ep->external && ep->locked && !ep->takes_events)
		aph_endpoint_set_alarm(ep);
}

void aph_pending_remove(struct aph_pending *pending, enum aph_event_type type)
{
	if (!(pending->events & 1u << type))
		return;
	pending->events &= ~(1u << type);
	if (!pending->events)
		aph_list_remove(&pending->link);
}

int aph_endpoint_wake(struct aph_endpoint *ep)
{
	static const uint64_t one = 1;

	/* Without a text: aph_err() is not for signal handlers. */
	if (ep->forked)
		return -ENOTCONN;
	(void)atomic_fetch_add(&ep->wakes, 1);
	/* Partner: driver_sleeps(), where `wakes` is looked at behind the store to `in_driver`. */
	if (atomic_load(&ep->in_driver))
		ep->remote->ops->interrupt(ep->remote);
	/* Not aph_endpoint_raise(): a signal handler must not look at what the lock protects. */
	if (write(ep->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		return -errno;
	return 0;
}

/* -- events ------------------------------------------------------------------------------------ */

static void fill_call(struct aph_call *call, struct aph_event *event)
{
	event->call = call;
	event->channel = call->channel;
	event->service = call->channel->service;
	if (event->type == APH_EVENT_END)
		event->result = call->result;
	else if (event->type == APH_EVENT_SIGNAL)
		event->result.code = call->signal_code;
}

static void fill_channel(struct aph_channel *channel, struct aph_event *event)
{
	event->channel = channel;
	event->service = channel->service;
	if (event->type == APH_EVENT_CLOSED || event->type == APH_EVENT_DISCONNECT)
		event->result.reason = channel->reason;
}

/*
 * Takes the oldest pending object's first event: types are numbered in the order they are delivered
 * in.
 */
static inline bool take_event(struct aph_endpoint *ep, struct aph_event *event)
{
	struct aph_pending *pending;
	int type;

	if (aph_list_empty(&ep->ready))
		return false;
	pending = aph_container(ep->ready.next, struct aph_pending, link);
	type = __builtin_ctz(pending->events);
	aph_list_remove(&pending->link);
	pending->events &= ~(1u << type);
	if (pending->events)
		aph_list_append(&ep->ready, &pending->link);

	*event = (struct aph_event){ .type = (enum aph_event_type)type };
	switch (pending->kind) {
	case APH_PENDING_CALL:
		fill_call(aph_container(pending, struct aph_call, pending), event);
		break;
	case APH_PENDING_CHANNEL:
		fill_channel(aph_container(pending, struct aph_channel, pending), event);
		break;
	case APH_PENDING_SERVICE:
		event->service = aph_container(pending, struct aph_service, pending);
		break;
	}
	return true;
}

struct taking {
	struct aph_endpoint *ep;
	struct aph_event *event;
};

static bool has_taken(void *arg)
{
	return take_event(((struct taking *)arg)->ep, ((struct taking *)arg)->event);
}

static APH_APART int wait_for_event(struct aph_endpoint *ep, struct aph_event *event,
				    uint64_t deadline_ns)
{
	struct taking taking = { ep, event };
	int r = aph_endpoint_check(ep);

	if (r == 0)
		r = aph_endpoint_wait(ep, has_taken, &taking, deadline_ns, APH_WAITER_RECEIVER);
	return r;
}

int aph_endpoint_next(struct aph_endpoint *ep, struct aph_event *event, uint64_t deadline_ns)
{
	int r = 0;

	aph_lock(ep);
	if (!ep->forked && take_event(ep, event))
		aph_endpoint_leave(ep);
	else
		r = wait_for_event(ep, event, deadline_ns);
	aph_unlock(ep);
	return r;
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

int aph_endpoint_serve(struct aph_endpoint *ep, uint64_t deadline_ns)
{
	int r;

	aph_lock(ep);
	r = aph_endpoint_check(ep);
	if (r == 0)
		r = aph_endpoint_wait(ep, never, NULL, deadline_ns, APH_WAITER_TENDER);
	aph_unlock(ep);
	return r;
}

/*
 * The loop gets a descriptor that holds ours, and an alarm beside it: a thread that leads uses up
 * what makes ours readable, and must be able to sleep while the loop has not come yet.
 */
static int open_for_loop(struct aph_endpoint *ep)
{
	struct epoll_event event = { .events = EPOLLIN };

	ep->loop_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->alarm_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ep->loop_fd < 0 || ep->alarm_fd < 0 ||
	    epoll_ctl(ep->loop_fd, EPOLL_CTL_ADD, ep->epoll_fd, &event) < 0 ||
	    epoll_ctl(ep->loop_fd, EPOLL_CTL_ADD, ep->alarm_fd, &event) < 0) {
		int e = errno;

		aph_fd_close(&ep->loop_fd);
		aph_fd_close(&ep->alarm_fd);
		return aph_err(-e, "cannot make a descriptor for a loop: %s", strerror(e));
	}
	ep->external = true;
	aph_endpoint_raise(ep);
	return 0;
}

int aph_endpoint_fd(struct aph_endpoint *ep)
{
	int r;

	aph_lock(ep);
	r = aph_endpoint_check(ep);
	if (r == 0 && !ep->external)
		r = open_for_loop(ep);
	if (r == 0)
		r = ep->loop_fd;
	aph_unlock(ep);
	return r;
}

/* -- fork -------------------------------------------------------------------------------------- */

static void before_fork(void)
{
	struct aph_list *pos, *tmp;

	(void)pthread_mutex_lock(&all_lock);
	aph_list_for_each(pos, tmp, &all_endpoints)
		aph_lock(aph_container(pos, struct aph_endpoint, all));
}

static void after_fork_in_parent(void)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &all_endpoints)
		aph_unlock(aph_container(pos, struct aph_endpoint, all));
	(void)pthread_mutex_unlock(&all_lock);
}

/* Everything ends here without a word to anybody: the parent goes on with it. */
static void abandon(struct aph_endpoint *ep)
{
	struct aph_list *pos, *tmp, *call_pos, *call_tmp;

	ep->forked = true;
	ep->led = false;
	ep->in_epoll = false;
	atomic_store(&ep->in_driver, false);
	ep->asleep = false;
	ep->n_receivers = 0;
	ep->n_callers = 0;
	aph_list_for_each(pos, tmp, &ep->services) {
		struct aph_service *service = aph_container(pos, struct aph_service, link);

		aph_local_forget(service);
		service->ops->abandon(service);
	}
	aph_list_for_each(pos, tmp, &ep->channels) {
		struct aph_channel *channel = aph_container(pos, struct aph_channel, link);

		channel->ops->abandon(channel);
		channel->state = APH_CHANNEL_ENDED;
		channel->reason = APH_REASON_CLOSED;
		aph_list_for_each(call_pos, call_tmp, &channel->calls)
			aph_call_abandon(aph_container(call_pos, struct aph_call, link));
	}
	if (ep->local)
		ep->local->ops->abandon(ep->local);
	if (ep->remote)
		ep->remote->ops->abandon(ep->remote);
	close_descriptors(ep);
}

static void after_fork_in_child(void)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &all_endpoints) {
		struct aph_endpoint *ep = aph_container(pos, struct aph_endpoint, all);

		abandon(ep);
		aph_unlock(ep);
	}
	(void)pthread_mutex_unlock(&all_lock);
}

static void watch_fork(void)
{
	aph_close_prepare();
	(void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* -- life -------------------------------------------------------------------------------------- */

static int open_descriptors(struct aph_endpoint *ep)
{
	int r;

	ep->loop_fd = ep->alarm_fd = -1;
	ep->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ep->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (ep->epoll_fd < 0 || ep->wake_fd < 0 || ep->timer_fd < 0) {
		int e = errno;

		return aph_err(-e, "cannot make an endpoint: %s%s", strerror(e), aph_advice(e));
	}
	ep->wake_source.on_ready = wake_ready;
	ep->timer_source.on_ready = timer_ready;
	ep->timer_until_ns = APH_FOREVER;
	r = aph_source_add(ep, ep->wake_fd, &ep->wake_source, EPOLLIN);
	if (r == 0)
		r = aph_source_add(ep, ep->timer_fd, &ep->timer_source, EPOLLIN);
	return r;
}

static void init_sync(struct aph_endpoint *ep)
{
	pthread_condattr_t attr;

	(void)pthread_mutex_init(&ep->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&ep->for_receivers, &attr);
	(void)pthread_cond_init(&ep->for_callers, &attr);
	(void)pthread_condattr_destroy(&attr);
}

int aph_endpoint_new(struct aph_endpoint **out, const struct aph_endpoint_options *options)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct aph_endpoint *ep;
	int r;

	if (options && options->size != sizeof(*options))
		return aph_err(-EINVAL,
			       "endpoint options of an unknown size: set size to sizeof *options");
	ep = calloc(1, sizeof(*ep));
	if (!ep)
		return aph_err(-ENOMEM, "no memory for an endpoint");
	aph_list_init(&ep->ready);
	aph_list_init(&ep->services);
	aph_list_init(&ep->channels);
	ep->spin_is_default = !options || !options->spin_max_us;
	ep->spin_max_us = ep->spin_is_default ? 30 : options->spin_max_us;
	if (ep->spin_max_us == APH_SPIN_NEVER)
		ep->spin_max_us = 0;
	r = open_descriptors(ep);
	if (r < 0) {
		close_descriptors(ep);
		free(ep);
		return r;
	}
	init_sync(ep);
	(void)pthread_once(&once, watch_fork);
	(void)pthread_mutex_lock(&all_lock);
	aph_list_append(&all_endpoints, &ep->all);
	(void)pthread_mutex_unlock(&all_lock);
	*out = ep;
	return 0;
}

/* Lets go of the calls of a channel that the endpoint takes with it. */
static void free_calls(struct aph_channel *channel)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &channel->calls) {
		struct aph_call *call = aph_container(pos, struct aph_call, link);

		call->user_holds = false;
		call->lingering = false;
		aph_call_settle(call);
	}
}

struct aph_endpoint *aph_endpoint_free(struct aph_endpoint *ep)
{
	if (!ep)
		return NULL;
	(void)pthread_mutex_lock(&all_lock);
	aph_list_remove(&ep->all);
	(void)pthread_mutex_unlock(&all_lock);

	while (!aph_list_empty(&ep->services))
		(void)aph_service_close(aph_container(ep->services.next, struct aph_service, link));
	aph_lock(ep);
	while (!aph_list_empty(&ep->channels)) {
		struct aph_channel *channel =
			aph_container(ep->channels.next, struct aph_channel, link);

		aph_channel_ref(channel);
		channel->user_holds = false;
		aph_channel_end(channel, APH_REASON_CLOSED);
		free_calls(channel);
		aph_list_remove(&channel->link);
		channel->refs = 1;
		aph_channel_unref(channel);
	}
	if (ep->local)
		ep->local->ops->free(ep->local);
	if (ep->remote)
		ep->remote->ops->free(ep->remote);
	aph_graves_free(ep);
	aph_unlock(ep);
	close_descriptors(ep);
	aph_timers_deinit(&ep->timers);
	/* In a child it would wait for the parent's threads to come out of them. */
	if (!ep->forked) {
		(void)pthread_cond_destroy(&ep->for_receivers);
		(void)pthread_cond_destroy(&ep->for_callers);
	}
	(void)pthread_mutex_destroy(&ep->lock);
	free(ep);
	return NULL;
}
