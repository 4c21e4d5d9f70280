/* SPDX-License-Identifier: MIT */
/*
 * Waiting. The threads that wait on an endpoint choose a leader. It asks the transports for what
 * has arrived, spins while they expect that to pay, and sleeps without the lock: in epoll, or in
 * the one transport there is, if that has a faster way. The other threads follow: they wait on a
 * condition until the leader has queued something for them or steps down. A single thread is always
 * the leader and pays for none of this.
 */
#include "base/apart.h"
#include "base/error.h"
#include "base/time.h"
#include "core/transport.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EPOLL_BATCH 64
#define TIDY_TICKS  100000u /* 25 to 100 us */
/*
 * Who does not wait comes back after so many looks that found something, but no event: peers may go
 * on for ever.
 */
#define LOOKS_NOW 64u

static bool poll_transports(struct aph_endpoint *ep, bool requests)
{
	bool any = ep->local && ep->local->ops->poll(ep->local, requests);

	/* One request at a time: the second would wait for the user with the first. */
	if (any && requests && !aph_list_empty(&ep->ready))
		requests = false;
	return (ep->remote && ep->remote->ops->poll(ep->remote, requests)) || any;
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

/*
 * Runs what epoll has found, and sleeps for it without the lock if `sleeps`. The count of events,
 * or -errno. Whoever sleeps with a deadline has set the timer.
 */
static int run_epoll(struct aph_endpoint *ep, bool sleeps)
{
	struct epoll_event events[EPOLL_BATCH];
	int n, i, e = 0;

	if (sleeps) {
		ep->in_epoll = true;
		aph_unlock(ep);
	}
	n = epoll_wait(ep->epoll_fd, events, EPOLL_BATCH, sleeps ? -1 : 0);
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
	aph_graves_free(ep);
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
	if ((!ep->local || ep->local->ops->sleep(ep->local, requests)) &&
	    (!ep->remote || ep->remote->ops->sleep(ep->remote, requests)))
		return true;
	wake_up(ep);
	return false;
}

/* One look at everything that is not seen by polling: epoll's sources, timers, quiet channels. */
static bool tidy(struct aph_endpoint *ep)
{
	bool any;

	ep->tidied = ep->ticks;
	if (ep->local)
		ep->local->ops->tidy(ep->local);
	any = run_epoll(ep, false) > 0;
	return (ep->timers.n && expire_timers(ep, aph_time_ns())) || any;
}

/*
 * Has the timer wake us at `until_ns` at the latest. One that is set to go off earlier stays: it
 * costs a look when it does, whereas setting it for every call would cost more than falling asleep
 * does.
 */
static void set_timer(struct aph_endpoint *ep, uint64_t until_ns)
{
	struct itimerspec spec = { 0 };

	if (until_ns >= ep->timer_until_ns)
		return;
	spec.it_value.tv_sec = (time_t)(until_ns / UINT64_C(1000000000));
	spec.it_value.tv_nsec = (long)(until_ns % UINT64_C(1000000000));
	if (until_ns == 0)
		spec.it_value.tv_nsec = 1;
	if (timerfd_settime(ep->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
		ep->timer_until_ns = until_ns;
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
	set_timer(ep, aph_timers_next(&ep->timers));
	aph_endpoint_set_alarm(ep);
	return -EAGAIN;
}

static int lead_asleep(struct aph_endpoint *ep, uint64_t deadline_ns, bool requests,
		       bool interruptible)
{
	uint64_t until, now;
	int n;

	if (ep->local && ep->ticks - ep->tidied > TIDY_TICKS)
		ep->local->ops->tidy(ep->local);
	if (!fall_asleep(ep, requests))
		return 0;
	/* Behind fall_asleep(), which may have started timers. */
	until = aph_timers_next(&ep->timers);
	if (deadline_ns < until)
		until = deadline_ns;
	set_timer(ep, until);
	ep->sleep_until_ns = until;
	n = run_epoll(ep, true);
	ep->tidied = aph_ticks();
	wake_up(ep);
	if (n == -EINTR)
		return interruptible ? -EINTR : 0;
	if (n < 0)
		return aph_err(n, "cannot wait for events: %s", strerror(-n));
	if (until == APH_FOREVER)
		return 0;
	now = aph_time_ns();
	/* Nothing came but the timer, if that. */
	if (!expire_timers(ep, now) && n <= (ep->timer_until_ns == APH_FOREVER) &&
	    now >= deadline_ns)
		return -ETIMEDOUT;
	return 0;
}

/* The endpoint has one source, and that has a way to wait that is faster than epoll. */
static bool has_driver(const struct aph_endpoint *ep)
{
	return ep->remote && !ep->local && !ep->external && ep->remote->ops->can_wait(ep->remote);
}

static int lead_in_driver(struct aph_endpoint *ep, uint64_t deadline_ns, bool requests,
			  bool interruptible)
{
	uint64_t until = aph_timers_next(&ep->timers);
	int r;

	if (deadline_ns < until)
		until = deadline_ns;
	ep->sleep_until_ns = until;
	r = ep->remote->ops->wait(ep->remote, requests, until);
	aph_graves_free(ep);
	if (r == -EINTR)
		return interruptible ? r : 0;
	if (r != -ETIMEDOUT) {
		/* A thread that is never idle must not forget its deadlines. */
		if (ep->timers.n)
			(void)expire_timers(ep, aph_time_ns());
		return r;
	}
	if (!expire_timers(ep, aph_time_ns()) && aph_time_ns() >= deadline_ns)
		return -ETIMEDOUT;
	return 0;
}

/*
 * Somebody else's loop waits for events, and this thread, which takes none, uses up what would have
 * brought it: does the loop's part, and tells it of what was found. False where that loop is the
 * only thread there is.
 */
static APH_APART bool lead_for_loop(struct aph_endpoint *ep)
{
	if (!ep->locked)
		return false;
	aph_endpoint_set_alarm(ep);
	return true;
}

/* One step of the leader: 0 when something may have changed. */
static int lead(struct aph_endpoint *ep, uint64_t deadline_ns, enum aph_waiter waiter)
{
	bool receives = waiter == APH_WAITER_RECEIVER || ep->n_receivers;
	bool requests, found;

	if (ep->external && waiter != APH_WAITER_RECEIVER)
		receives |= lead_for_loop(ep);
	requests = waiter == APH_WAITER_SERVICE || ep->n_service_callers ||
		   (receives && aph_list_empty(&ep->ready));

	ep->takes_requests = requests;
	ep->takes_events = waiter == APH_WAITER_RECEIVER;
	ep->takes_wakes = waiter >= APH_WAITER_TENDER;

	if (ep->asleep)
		wake_up(ep);
	if (deadline_ns != APH_NOW && has_driver(ep))
		return lead_in_driver(ep, deadline_ns, requests, waiter != APH_WAITER_CLIENT);
	ep->ticks = aph_ticks();
	found = poll_transports(ep, requests);
	if (!found && deadline_ns == APH_NOW)
		return lead_now(ep, requests);
	if (!found && ep->local && ep->local->ops->spin(ep->local, requests, deadline_ns)) {
		(void)poll_transports(ep, requests);
		found = true;
	}
	/*
	 * A thread that is never idle must not forget the rest; one that sleeps looks at it anyway.
	 */
	if (found) {
		if (ep->ticks - ep->tidied > TIDY_TICKS)
			(void)tidy(ep);
		return 0;
	}
	return lead_asleep(ep, deadline_ns, requests, waiter != APH_WAITER_CLIENT);
}

/*
 * This thread, or somebody else's loop, has taken all events and does not wait, and another thread
 * leads, which leaves requests, and what lies behind them, where they are. It sleeps, or has lent
 * us the lock: it comes back for what arrives later, and so nothing is hidden from the next look.
 */
static int look_beside_leader(struct aph_endpoint *ep)
{
	if (ep->local && ep->local->ops->poll_beside(ep->local))
		return 0;
	if (ep->remote && ep->remote->ops->poll_beside(ep->remote))
		return 0;
	/* Until it has run, what woke us both stays readable. */
	aph_unlock(ep);
	(void)sched_yield();
	aph_lock(ep);
	if (ep->external)
		aph_endpoint_set_alarm(ep);
	return -EAGAIN;
}

static int follow(struct aph_endpoint *ep, uint64_t deadline_ns, enum aph_waiter waiter)
{
	bool receiver = waiter == APH_WAITER_RECEIVER;
	pthread_cond_t *cond = receiver ? &ep->for_receivers : &ep->for_callers;
	unsigned *n = receiver ? &ep->n_receivers : &ep->n_callers;
	bool wants_requests = receiver || waiter == APH_WAITER_SERVICE;
	int r;

	if (deadline_ns == APH_NOW)
		return wants_requests ? look_beside_leader(ep) : -EAGAIN;
	(*n)++;
	ep->n_service_callers += waiter == APH_WAITER_SERVICE;
	/* A leader that lay down for its own call has left requests where they are. */
	if (wants_requests && ep->in_epoll && !ep->takes_requests)
		aph_endpoint_raise(ep);
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
	if (r != ETIMEDOUT)
		return 0;
	/* There may have been no time for the leader to see that this thread waits. */
	return wants_requests && ep->led && look_beside_leader(ep) == 0 ? 0 : -ETIMEDOUT;
}

void aph_endpoint_hand_over(struct aph_endpoint *ep)
{
	/* Nobody leads: lets one of those who wait do it. */
	if (!ep->led && ep->n_receivers)
		(void)pthread_cond_signal(&ep->for_receivers);
	else if (!ep->led && ep->n_callers)
		(void)pthread_cond_signal(&ep->for_callers);
	/*
	 * Somebody else's loop polls our descriptor, and our peers do not ring, as we are awake:
	 * stay readable until a look has found nothing and has put us to sleep.
	 */
	if (ep->external && !ep->asleep)
		aph_endpoint_raise(ep);
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

/* A wake that is not for the leader: those behind it look who takes it. */
static void pass_wakes_on(struct aph_endpoint *ep)
{
	if (!atomic_load_explicit(&ep->wakes, memory_order_relaxed))
		return;
	if (ep->n_receivers)
		(void)pthread_cond_broadcast(&ep->for_receivers);
	if (ep->n_callers)
		(void)pthread_cond_broadcast(&ep->for_callers);
}

/* After `n` turns, for all of which there was a reason. 0, -ETIMEDOUT, -EAGAIN. */
static int check_time(uint64_t deadline_ns, unsigned n)
{
	if (deadline_ns == APH_NOW)
		return n < LOOKS_NOW ? 0 : -EAGAIN;
	return aph_time_ns() < deadline_ns ? 0 : -ETIMEDOUT;
}

/* Why nobody waits any longer, for aph_error(); other failures have said it where they happened. */
static APH_APART int tell_why(int r)
{
	switch (r) {
	case -EAGAIN:
	case -ETIMEDOUT:
		return aph_err(r, "no event came in time");
	case -EINTR:
		return aph_err(r, "a signal came: try again");
	case -ECANCELED:
		return aph_err(r, "aph_endpoint_wake() was called");
	default:
		return r;
	}
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
			return tell_why(r);
		if (waiter >= APH_WAITER_TENDER && was_woken(ep))
			return tell_why(-ECANCELED);
		if (ep->led) {
			r = follow(ep, deadline_ns, waiter);
		} else {
			ep->led = true;
			r = lead(ep, deadline_ns, waiter);
			ep->led = false;
			if (waiter < APH_WAITER_TENDER)
				pass_wakes_on(ep);
		}
		/* Events of others must not keep this thread beyond its deadline. */
		if (r == 0 && n % 16 == 0 && deadline_ns != APH_FOREVER)
			r = check_time(deadline_ns, n);
	}
}

int aph_endpoint_wait(struct aph_endpoint *ep, bool (*done)(void *arg), void *arg,
		      uint64_t deadline_ns, enum aph_waiter waiter)
{
	int r = wait_turns(ep, done, arg, deadline_ns, waiter);

	aph_endpoint_leave(ep);
	return r;
}
