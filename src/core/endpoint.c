/* SPDX-License-Identifier: MIT */
/*
 * The endpoint: one queue of events, one lock, one thread at a time that polls for all.
 *
 * Waiting threads choose a leader. It asks the transports for what has arrived, spins while they expect
 * that to pay, and sleeps in epoll without the lock. The other threads follow: they wait on a condition
 * until the leader has queued something for them or steps down. A single thread is always the leader and
 * pays for none of this.
 */
#include "base/error.h"
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

#define EPOLL_BATCH 64
#define TIDY_TICKS  100000u /* 25 to 100 us */

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct aph_list all_endpoints = { &all_endpoints, &all_endpoints };

/* -- lock ---------------------------------------------------------------------------------------------- */

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

/* -- sources -------------------------------------------------------------------------------------------- */

static int control(struct aph_endpoint *ep, int op, int fd, struct aph_source *source,
		   uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	if (epoll_ctl(ep->epoll_fd, op, fd, &event) < 0) {
		int e = errno;

		return aph_err(-e, "cannot watch a descriptor: %s", strerror(e));
	}
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

static void free_graves(struct aph_endpoint *ep)
{
	while (ep->graves) {
		struct aph_grave *grave = ep->graves;

		ep->graves = grave->next;
		free(grave->memory);
	}
}

/* -- waking ----------------------------------------------------------------------------------------------- */

static void raise_wake(struct aph_endpoint *ep)
{
	static const uint64_t one = 1;

	if (ep->raised)
		return;
	ep->raised = true;
	(void)!write(ep->wake_fd, &one, sizeof(one));
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
	(void)!read(ep->timer_fd, &count, sizeof(count));
}

void aph_endpoint_changed(struct aph_endpoint *ep)
{
	if (ep->n_callers)
		(void)pthread_cond_broadcast(&ep->for_callers);
	if (ep->in_epoll)
		raise_wake(ep);
}

void aph_endpoint_start_timer(struct aph_endpoint *ep, struct aph_timer *timer,
			      uint64_t deadline_ns)
{
	aph_timers_start(&ep->timers, timer, deadline_ns);
	if ((ep->in_epoll && deadline_ns < ep->sleep_until_ns) || (ep->external && ep->asleep))
		raise_wake(ep);
}

void aph_pending_add(struct aph_endpoint *ep, struct aph_pending *pending, enum aph_event_type type)
{
	if (!pending->events)
		aph_list_append(&ep->ready, &pending->link);
	pending->events |= 1u << type;
	if (ep->n_receivers)
		(void)pthread_cond_signal(&ep->for_receivers);
	if (ep->in_epoll || (ep->external && !ep->led))
		raise_wake(ep);
}

void aph_pending_clear(struct aph_pending *pending)
{
	if (!pending->events)
		return;
	pending->events = 0;
	aph_list_remove(&pending->link);
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

	(void)atomic_fetch_add(&ep->wakes, 1);
	/* Not raise_wake(): a signal handler must not look at what the lock protects. */
	if (write(ep->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		return -errno;
	return 0;
}

/* -- the leader --------------------------------------------------------------------------------------------- */

static bool poll_transports(struct aph_endpoint *ep, bool requests)
{
	return ep->local && ep->local->ops->poll(ep->local, requests);
}

static bool expire_timers(struct aph_endpoint *ep, uint64_t now_ns)
{
	struct aph_timer *timer;
	bool any = false;

	while ((timer = aph_timers_pop(&ep->timers, now_ns))) {
		timer->expire(timer);
		any = true;
	}
	return any;
}

/* Sleeps to the nanosecond, or to the millisecond on kernels before 5.11 and under valgrind. */
static int wait_for_epoll(int fd, struct epoll_event *events, const struct timespec *timeout)
{
	int n = epoll_pwait2(fd, events, EPOLL_BATCH, timeout, NULL);
	int64_t ms;

	if (n >= 0 || errno != ENOSYS)
		return n;
	if (!timeout)
		return epoll_wait(fd, events, EPOLL_BATCH, -1);
	ms = (int64_t)timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000;
	return epoll_wait(fd, events, EPOLL_BATCH, ms > INT_MAX ? INT_MAX : (int)ms);
}

/* Runs what epoll has found. The lock is given up while it sleeps. The count of events, or -errno. */
static int run_epoll(struct aph_endpoint *ep, const struct timespec *timeout)
{
	struct epoll_event events[EPOLL_BATCH];
	bool sleeps = !timeout || timeout->tv_sec || timeout->tv_nsec;
	int n, i, e = 0;

	if (sleeps) {
		ep->in_epoll = true;
		aph_unlock(ep);
	}
	n = wait_for_epoll(ep->epoll_fd, events, timeout);
	if (n < 0)
		e = errno;
	if (sleeps) {
		aph_lock(ep);
		ep->in_epoll = false;
	}
	for (i = 0; i < n; i++) {
		struct aph_source *source = events[i].data.ptr;

		source->on_ready(source, events[i].events);
	}
	free_graves(ep);
	return n < 0 ? -e : n;
}

static void wake_up(struct aph_endpoint *ep)
{
	if (!ep->asleep)
		return;
	ep->asleep = false;
	if (ep->local)
		ep->local->ops->awake(ep->local, aph_ticks());
}

/* Says that we sleep. False when something is there after all; we are awake again then. */
static bool fall_asleep(struct aph_endpoint *ep, bool requests)
{
	ep->asleep = true;
	if (!ep->local || ep->local->ops->sleep(ep->local, requests))
		return true;
	wake_up(ep);
	return false;
}

/* One look at everything that is not seen by polling: epoll's sources, timers, quiet channels. */
static bool tidy(struct aph_endpoint *ep)
{
	static const struct timespec zero;
	bool any;

	ep->tidied = ep->ticks;
	if (ep->local)
		ep->local->ops->tidy(ep->local);
	any = run_epoll(ep, &zero) > 0;
	return (ep->timers.n && expire_timers(ep, aph_time_ns())) || any;
}

static void set_timer_fd(struct aph_endpoint *ep)
{
	uint64_t next = aph_timers_next(&ep->timers);
	struct itimerspec spec = { 0 };

	if (next != APH_FOREVER) {
		spec.it_value.tv_sec = (time_t)(next / UINT64_C(1000000000));
		spec.it_value.tv_nsec = (long)(next % UINT64_C(1000000000));
		if (next == 0)
			spec.it_value.tv_nsec = 1;
	}
	(void)timerfd_settime(ep->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* Nothing may be waited for: one look everywhere. */
static int lead_now(struct aph_endpoint *ep, bool requests)
{
	if (tidy(ep) || poll_transports(ep, requests))
		return 0;
	if (!ep->external)
		return -EAGAIN;
	/* From here on somebody else's loop waits for us: our peers have to ring. */
	if (!fall_asleep(ep, requests))
		return 0;
	set_timer_fd(ep);
	return -EAGAIN;
}

static int lead_asleep(struct aph_endpoint *ep, uint64_t deadline_ns, bool requests,
		       bool interruptible)
{
	uint64_t until = aph_timers_next(&ep->timers);
	struct timespec left;
	uint64_t now;
	int n;

	if (deadline_ns < until)
		until = deadline_ns;
	if (until != APH_FOREVER)
		left = aph_time_left(until, aph_time_ns());
	if (ep->local && ep->ticks - ep->tidied > TIDY_TICKS)
		ep->local->ops->tidy(ep->local);
	if (!fall_asleep(ep, requests))
		return 0;
	ep->sleep_until_ns = until;
	n = run_epoll(ep, until == APH_FOREVER ? NULL : &left);
	now = aph_time_ns();
	ep->tidied = aph_ticks();
	wake_up(ep);
	if (n == -EINTR)
		return interruptible ? -EINTR : 0;
	if (n < 0)
		return aph_err(n, "cannot wait for events: %s", strerror(-n));
	if (!expire_timers(ep, now) && n == 0 && now >= deadline_ns)
		return -ETIMEDOUT;
	return 0;
}

/* One step of the leader: 0 when something may have changed. */
static int lead(struct aph_endpoint *ep, uint64_t deadline_ns, enum aph_waiter waiter)
{
	bool receives = waiter == APH_WAITER_RECEIVER || ep->n_receivers;
	bool requests = waiter == APH_WAITER_SERVICE || ep->n_service_callers ||
			(receives && aph_list_empty(&ep->ready));
	bool found;

	ep->takes_requests = requests;

	if (ep->asleep)
		wake_up(ep);
	ep->ticks = aph_ticks();
	found = poll_transports(ep, requests);
	if (!found && deadline_ns == APH_NOW)
		return lead_now(ep, requests);
	if (!found && ep->local && ep->local->ops->spin(ep->local, requests, deadline_ns)) {
		(void)poll_transports(ep, requests);
		found = true;
	}
	/* A thread that is never idle must not forget the rest; one that sleeps looks at it anyway. */
	if (found) {
		if (ep->ticks - ep->tidied > TIDY_TICKS)
			(void)tidy(ep);
		return 0;
	}
	return lead_asleep(ep, deadline_ns, requests, waiter != APH_WAITER_CLIENT);
}

static int follow(struct aph_endpoint *ep, uint64_t deadline_ns, enum aph_waiter waiter)
{
	bool receiver = waiter == APH_WAITER_RECEIVER;
	pthread_cond_t *cond = receiver ? &ep->for_receivers : &ep->for_callers;
	unsigned *n = receiver ? &ep->n_receivers : &ep->n_callers;
	bool wants_requests = receiver || waiter == APH_WAITER_SERVICE;
	int r;

	if (deadline_ns == APH_NOW)
		return -EAGAIN;
	(*n)++;
	ep->n_service_callers += waiter == APH_WAITER_SERVICE;
	/* A leader that lay down for its own call has left requests where they are. */
	if (wants_requests && ep->in_epoll && !ep->takes_requests)
		raise_wake(ep);
	ep->locked = false; /* the wait gives the lock up and takes it again */
	if (deadline_ns == APH_FOREVER) {
		r = pthread_cond_wait(cond, &ep->lock);
	} else {
		struct timespec until = aph_time_left(deadline_ns, 0);

		r = pthread_cond_timedwait(cond, &ep->lock, &until);
	}
	ep->locked = true;
	ep->n_service_callers -= waiter == APH_WAITER_SERVICE;
	(*n)--;
	return r == ETIMEDOUT ? -ETIMEDOUT : 0;
}

/* Nobody leads: lets one of those who wait do it. */
static void hand_over(struct aph_endpoint *ep)
{
	if (ep->led)
		return;
	if (ep->n_receivers)
		(void)pthread_cond_signal(&ep->for_receivers);
	else if (ep->n_callers)
		(void)pthread_cond_signal(&ep->for_callers);
}

/* Whether this thread is the one that a call of aph_endpoint_wake() is for. */
static bool was_woken(struct aph_endpoint *ep)
{
	unsigned wakes = atomic_load_explicit(&ep->wakes, memory_order_relaxed);

	while (wakes) {
		if (atomic_compare_exchange_weak(&ep->wakes, &wakes, wakes - 1))
			return true;
	}
	return false;
}

static int wait_turns(struct aph_endpoint *ep, bool (*done)(void *arg), void *arg,
		      uint64_t deadline_ns, enum aph_waiter waiter)
{
	int r = 0;
	unsigned n;

	for (n = 1;; n++) {
		if (done(arg))
			return 0;
		if (r < 0)
			return r;
		if (waiter >= APH_WAITER_TENDER && was_woken(ep))
			return -ECANCELED;
		if (ep->led) {
			r = follow(ep, deadline_ns, waiter);
			continue;
		}
		ep->led = true;
		r = lead(ep, deadline_ns, waiter);
		ep->led = false;
		/* Events of others must not keep this thread beyond its deadline. */
		if (r == 0 && n % 16 == 0 && deadline_ns != APH_FOREVER && deadline_ns != APH_NOW &&
		    aph_time_ns() >= deadline_ns)
			r = -ETIMEDOUT;
	}
}

int aph_endpoint_wait(struct aph_endpoint *ep, bool (*done)(void *arg), void *arg,
		      uint64_t deadline_ns, enum aph_waiter waiter)
{
	int r = wait_turns(ep, done, arg, deadline_ns, waiter);

	hand_over(ep);
	/*
	 * Somebody else's loop polls our descriptor, and our peers do not ring, as we are awake: stay
	 * readable until a look has found nothing and has put us to sleep.
	 */
	if (ep->external && !ep->asleep)
		raise_wake(ep);
	return r;
}

/* -- events ------------------------------------------------------------------------------------------------ */

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

struct taking {
	struct aph_endpoint *ep;
	struct aph_event *event;
};

/* Takes the oldest pending object's first event: types are numbered in the order they are delivered in. */
static bool take_event(void *arg)
{
	struct aph_endpoint *ep = ((struct taking *)arg)->ep;
	struct aph_event *event = ((struct taking *)arg)->event;
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

int aph_endpoint_next(struct aph_endpoint *ep, struct aph_event *event, uint64_t deadline_ns)
{
	struct taking taking = { ep, event };
	int r;

	aph_lock(ep);
	r = aph_endpoint_check(ep);
	if (r == 0)
		r = aph_endpoint_wait(ep, take_event, &taking, deadline_ns, APH_WAITER_RECEIVER);
	aph_unlock(ep);
	if (r == -EAGAIN || r == -ETIMEDOUT)
		(void)aph_err(r, "no event came in time");
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

int aph_endpoint_fd(struct aph_endpoint *ep)
{
	int r;

	aph_lock(ep);
	r = aph_endpoint_check(ep);
	if (r == 0) {
		if (!ep->external)
			raise_wake(ep);
		ep->external = true;
		r = ep->epoll_fd;
	}
	aph_unlock(ep);
	return r;
}

/* -- fork ---------------------------------------------------------------------------------------------------- */

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
	ep->asleep = false;
	ep->n_receivers = 0;
	ep->n_callers = 0;
	aph_list_for_each(pos, tmp, &ep->services) {
		struct aph_service *service = aph_container(pos, struct aph_service, link);

		service->ops->abandon(service);
	}
	aph_list_for_each(pos, tmp, &ep->channels) {
		struct aph_channel *channel = aph_container(pos, struct aph_channel, link);

		channel->ops->abandon(channel);
		channel->state = APH_CHANNEL_ENDED;
		channel->reason = APH_REASON_CLOSED;
		aph_list_for_each(call_pos, call_tmp, &channel->calls) {
			struct aph_call *call = aph_container(call_pos, struct aph_call, link);

			if (call->state == APH_CALL_ENDED)
				continue;
			call->state = APH_CALL_ENDED;
			call->lingering = false;
			call->result = (struct aph_result){
				.outcome = call->is_client ? APH_LOST : APH_GONE,
				.reason = APH_REASON_CLOSED,
			};
		}
	}
	if (ep->local)
		ep->local->ops->abandon(ep->local);
	(void)close(ep->epoll_fd);
	(void)close(ep->wake_fd);
	(void)close(ep->timer_fd);
	ep->epoll_fd = ep->wake_fd = ep->timer_fd = -1;
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
	(void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* -- life ------------------------------------------------------------------------------------------------------ */

static int open_descriptors(struct aph_endpoint *ep)
{
	int r;

	ep->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ep->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (ep->epoll_fd < 0 || ep->wake_fd < 0 || ep->timer_fd < 0) {
		int e = errno;

		return aph_err(
			-e,
			"cannot make an endpoint: %s; raise the limit on open files (ulimit -n)",
			strerror(e));
	}
	ep->wake_source.on_ready = wake_ready;
	ep->timer_source.on_ready = timer_ready;
	r = aph_source_add(ep, ep->wake_fd, &ep->wake_source, EPOLLIN);
	if (r == 0)
		r = aph_source_add(ep, ep->timer_fd, &ep->timer_source, EPOLLIN);
	return r;
}

static void close_descriptors(struct aph_endpoint *ep)
{
	int fds[] = { ep->epoll_fd, ep->wake_fd, ep->timer_fd };
	size_t i;

	for (i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			(void)close(fds[i]);
	}
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
	ep->spin_max_us = options && options->spin_max_us ? options->spin_max_us : 30;
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
	free_graves(ep);
	aph_unlock(ep);
	close_descriptors(ep);
	aph_timers_deinit(&ep->timers);
	(void)pthread_cond_destroy(&ep->for_receivers);
	(void)pthread_cond_destroy(&ep->for_callers);
	(void)pthread_mutex_destroy(&ep->lock);
	free(ep);
	return NULL;
}
