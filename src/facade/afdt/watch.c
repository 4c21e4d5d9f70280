/* SPDX-License-Identifier: MIT */
/*
 * Watches on libevent's base or on an endpoint's own epoll descriptor. In the own one a watch that
 * is stopped is also taken out of the turn that is being handled, so that its owner may be freed at
 * any time.
 */
#include "watch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)

/* -- timers ------------------------------------------------------------------------------------ */

static void heap_put(struct aph_afdt_endpoint *ep, size_t i, struct aph_afdt_timer *timer)
{
	ep->heap[i] = timer;
	timer->at = i + 1;
}

/* Puts a timer where it belongs, beginning at a place that is free. */
static void heap_settle(struct aph_afdt_endpoint *ep, size_t i, struct aph_afdt_timer *timer)
{
	size_t child;

	while (i > 0 && timer->deadline_ns < ep->heap[(i - 1) / 2]->deadline_ns) {
		heap_put(ep, i, ep->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	while ((child = 2 * i + 1) < ep->n_heap) {
		if (child + 1 < ep->n_heap &&
		    ep->heap[child + 1]->deadline_ns < ep->heap[child]->deadline_ns)
			child++;
		if (timer->deadline_ns <= ep->heap[child]->deadline_ns)
			break;
		heap_put(ep, i, ep->heap[child]);
		i = child;
	}
	heap_put(ep, i, timer);
}

static void timer_stop(struct aph_afdt_endpoint *ep, struct aph_afdt_timer *timer)
{
	size_t at = timer->at;
	struct aph_afdt_timer *last;

	if (!at)
		return;
	timer->at = 0;
	last = ep->heap[--ep->n_heap];
	if (last != timer)
		heap_settle(ep, at - 1, last);
}

static void timer_start(struct aph_afdt_endpoint *ep, struct aph_afdt_timer *timer,
			uint64_t deadline_ns)
{
	timer_stop(ep, timer);
	if (deadline_ns == APH_FOREVER)
		return;
	timer->deadline_ns = deadline_ns;
	/* There is room: each watch has brought some. */
	heap_settle(ep, ep->n_heap++, timer);
}

/* -- libevent ---------------------------------------------------------------------------------- */

static void on_libevent(evutil_socket_t fd, short what, void *arg)
{
	struct aph_afdt_watch *watch = arg;
	unsigned told = 0;

	(void)fd;
	if (what & EV_READ)
		told |= APH_AFDT_READ;
	if (what & EV_WRITE)
		told |= APH_AFDT_WRITE;
	if (what & EV_TIMEOUT)
		told |= APH_AFDT_TIMEOUT;
	watch->ready(watch, told);
}

static int start_libevent(struct aph_afdt_watch *watch, unsigned what, uint64_t deadline_ns,
			  struct afdt_error_t *err)
{
	short events = 0;
	struct timeval timeout;
	uint64_t now;

	if (what & APH_AFDT_READ)
		events |= EV_READ;
	if (what & APH_AFDT_WRITE)
		events |= EV_WRITE;
	if (what & APH_AFDT_PERSIST)
		events |= EV_PERSIST;
	if (watch->started)
		event_del(&watch->event);
	watch->started = false;
	errno = 0;
	if (!watch->ep->eb ||
	    event_assign(&watch->event, watch->ep->eb, watch->fd, events, on_libevent, watch) < 0)
		return aph_afdt_fail(err, AFDT_EVENT_BASE_SET, errno ? errno : EINVAL,
				     "there is no event base");
	errno = 0;
	if (deadline_ns != APH_FOREVER) {
		now = aph_afdt_now();
		now = deadline_ns > now ? deadline_ns - now + 999 : 0;
		timeout.tv_sec = (time_t)(now / NS_PER_S);
		timeout.tv_usec = (suseconds_t)(now % NS_PER_S / 1000);
	}
	if (event_add(&watch->event, deadline_ns != APH_FOREVER ? &timeout : NULL) < 0)
		return aph_afdt_fail(err, AFDT_EVENT_ADD, errno ? errno : ENOMEM,
				     "libevent does not take the event");
	watch->started = true;
	return 0;
}

/* -- an endpoint's own ------------------------------------------------------------------------- */

/* Takes it out of epoll. */
static void forget(struct aph_afdt_watch *watch)
{
	if (watch->known)
		(void)epoll_ctl(watch->ep->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->known = false;
}

static int start_epoll(struct aph_afdt_watch *watch, unsigned what, uint64_t deadline_ns,
		       struct afdt_error_t *err)
{
	struct aph_afdt_endpoint *ep = watch->ep;
	struct epoll_event event = { .data.ptr = watch };

	if (what & APH_AFDT_READ)
		event.events |= EPOLLIN;
	if (what & APH_AFDT_WRITE)
		event.events |= EPOLLOUT;
	if (!(what & APH_AFDT_PERSIST))
		event.events |= EPOLLONESHOT;
	/*
	 * Of a socket that is not connected yet epoll would tell, unasked and at once, that it has
	 * hung up.
	 */
	if (!(what & (APH_AFDT_READ | APH_AFDT_WRITE)))
		forget(watch);
	else if (epoll_ctl(ep->epoll, watch->known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd,
			   &event) < 0)
		return aph_afdt_fail(err, AFDT_EVENT_ADD, errno, "epoll does not take the socket");
	else
		watch->known = true;
	watch->started = true;
	timer_start(ep, &watch->timer, deadline_ns);
	aph_afdt_endpoint_arm(ep);
	return 0;
}

static void stop_epoll(struct aph_afdt_watch *watch)
{
	struct aph_afdt_endpoint *ep = watch->ep;

	timer_stop(ep, &watch->timer);
	forget(watch);
	for (int i = 0; i < ep->n_turn; i++)
		if (ep->turn[i].data.ptr == watch)
			ep->turn[i].data.ptr = NULL;
}

/* -- both -------------------------------------------------------------------------------------- */

int aph_afdt_watch_init(struct aph_afdt_watch *watch, struct aph_afdt_endpoint *ep, int fd,
			void (*ready)(struct aph_afdt_watch *watch, unsigned what))
{
	watch->ep = ep;
	watch->ready = ready;
	watch->fd = fd;
	watch->started = watch->known = false;
	watch->timer.at = 0;
	if (ep->epoll < 0)
		return 0;
	if (ep->n_watches == ep->heap_max) {
		size_t max = ep->heap_max ? 2 * ep->heap_max : 16;
		struct aph_afdt_timer **heap =
			reallocarray(ep->heap, max, sizeof(struct aph_afdt_timer *));

		if (!heap)
			return -ENOMEM;
		ep->heap = heap;
		ep->heap_max = max;
	}
	ep->n_watches++;
	return 0;
}

void aph_afdt_watch_deinit(struct aph_afdt_watch *watch)
{
	aph_afdt_watch_stop(watch);
	if (watch->ep->epoll >= 0)
		watch->ep->n_watches--;
}

int aph_afdt_watch_start(struct aph_afdt_watch *watch, unsigned what, uint64_t deadline_ns,
			 struct afdt_error_t *err)
{
	if (watch->ep->epoll >= 0)
		return start_epoll(watch, what, deadline_ns, err);
	return start_libevent(watch, what, deadline_ns, err);
}

void aph_afdt_watch_stop(struct aph_afdt_watch *watch)
{
	if (!watch->started)
		return;
	watch->started = false;
	if (watch->ep->epoll >= 0)
		stop_epoll(watch);
	else
		event_del(&watch->event);
}

/*
 * Tells what has come, and only then: a watch is told of one thing at a time and may be gone after
 * it.
 */
void aph_afdt_endpoint_turn(struct aph_afdt_endpoint *ep, struct epoll_event *events, int n)
{
	ep->turn = events;
	ep->n_turn = n;
	for (int i = 0; i < n; i++) {
		struct aph_afdt_watch *watch = events[i].data.ptr;
		unsigned what = 0;

		events[i].data.ptr = NULL;
		if (!watch)
			continue;
		if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			what |= APH_AFDT_READ;
		if (events[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
			what |= APH_AFDT_WRITE;
		watch->ready(watch, what);
	}
	ep->n_turn = 0;
}

/* Tells those whose time has come. How many. */
int aph_afdt_endpoint_expire(struct aph_afdt_endpoint *ep)
{
	uint64_t now;
	int n = 0;

	if (!ep->n_heap)
		return 0;
	now = aph_afdt_now();
	/*
	 * Those that are started anew by this have a later deadline, or they wait for the next
	 * turn.
	 */
	for (size_t most = ep->n_heap; most && ep->n_heap && ep->heap[0]->deadline_ns <= now;
	     most--) {
		struct aph_afdt_watch *watch =
			APH_AFDT_CONTAINER(ep->heap[0], struct aph_afdt_watch, timer);

		timer_stop(ep, &watch->timer);
		watch->ready(watch, APH_AFDT_TIMEOUT);
		n++;
	}
	return n;
}
