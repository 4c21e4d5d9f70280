/* SPDX-License-Identifier: MIT */
/* Endpoints: making and freeing them, and serving one from somebody else's loop. */
#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define TURN_MAX  64

void aph_afdt_endpoint_init_libevent(struct aph_afdt_endpoint *ep, struct event_base *eb)
{
	*ep = (struct aph_afdt_endpoint){ .eb = eb, .epoll = -1, .timerfd = -1 };
	aph_afdt_link_init(&ep->servers);
	aph_afdt_link_init(&ep->requests);
	aph_afdt_link_init(&ep->clients);
}

static int open_own(struct aph_afdt_endpoint *ep)
{
	struct epoll_event event = { .events = EPOLLIN };

	ep->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (ep->epoll < 0)
		return -errno;
	ep->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (ep->timerfd < 0)
		return -errno;
	ep->timerfd_ns = APH_FOREVER;
	/* A NULL pointer in the event is this one. */
	return epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ep->timerfd, &event) < 0 ? -errno : 0;
}

APH_API int aph_afdt_endpoint_new(struct aph_afdt_endpoint **out, struct event_base *eb)
{
	struct aph_afdt_endpoint *ep = malloc(sizeof(*ep));
	int r;

	if (!ep)
		return -ENOMEM;
	aph_afdt_endpoint_init_libevent(ep, eb);
	r = eb ? 0 : open_own(ep);
	if (r < 0) {
		aph_afdt_endpoint_free(ep);
		return r;
	}
	*out = ep;
	return 0;
}

APH_API struct aph_afdt_endpoint *aph_afdt_endpoint_free(struct aph_afdt_endpoint *ep)
{
	struct aph_afdt_link *link;

	if (!ep)
		return NULL;
	while ((link = ep->clients.next) != &ep->clients)
		aph_afdt_client_close(aph_afdt_client_of(link));
	while ((link = ep->requests.next) != &ep->requests)
		aph_afdt_request_free(APH_AFDT_CONTAINER(link, struct aph_afdt_request, link));
	while ((link = ep->servers.next) != &ep->servers)
		aph_afdt_server_close(APH_AFDT_CONTAINER(link, struct aph_afdt_server, link));
	aph_afdt_close(ep->timerfd);
	aph_afdt_close(ep->epoll);
	free(ep->heap);
	free(ep);
	return NULL;
}

void aph_afdt_endpoint_arm(struct aph_afdt_endpoint *ep)
{
	uint64_t when = ep->n_heap ? ep->heap[0]->deadline_ns : APH_FOREVER;
	struct itimerspec spec = { 0 };

	if (!ep->given || ep->serving || when == ep->timerfd_ns)
		return;
	if (when != APH_FOREVER) {
		spec.it_value.tv_sec = (time_t)(when / NS_PER_S);
		spec.it_value.tv_nsec = (long)(when % NS_PER_S);
		/* 0 and 0 would stop it. */
		if (when == 0)
			spec.it_value.tv_nsec = 1;
	}
	if (timerfd_settime(ep->timerfd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
		ep->timerfd_ns = when;
}

APH_API int aph_afdt_endpoint_fd(struct aph_afdt_endpoint *ep)
{
	if (ep->epoll < 0)
		return -EOPNOTSUPP;
	ep->given = true;
	aph_afdt_endpoint_arm(ep);
	return ep->epoll;
}

static int wait_ms(const struct aph_afdt_endpoint *ep, uint64_t deadline_ns)
{
	uint64_t now, until = deadline_ns;

	if (deadline_ns == APH_NOW)
		return 0;
	if (ep->n_heap && ep->heap[0]->deadline_ns < until)
		until = ep->heap[0]->deadline_ns;
	if (until == APH_FOREVER)
		return -1;
	now = aph_afdt_now();
	if (until <= now)
		return 0;
	until = (until - now + NS_PER_MS - 1) / NS_PER_MS;
	return until > INT32_MAX ? INT32_MAX : (int)until;
}

APH_API int aph_afdt_endpoint_serve(struct aph_afdt_endpoint *ep, uint64_t deadline_ns)
{
	struct epoll_event events[TURN_MAX];
	int n, expired, r = 0;

	if (ep->epoll < 0)
		return -EOPNOTSUPP;
	if (ep->serving)
		return -EBUSY;
	ep->serving = true;
	do {
		n = epoll_wait(ep->epoll, events, TURN_MAX, wait_ms(ep, deadline_ns));
		if (n < 0) {
			r = -errno;
			break;
		}
		aph_afdt_endpoint_turn(ep, events, n);
		expired = aph_afdt_endpoint_expire(ep);
		if (n + expired == 0 && (deadline_ns == APH_NOW || aph_afdt_now() >= deadline_ns))
			r = -ETIMEDOUT;
	} while (r == 0 && n + expired == 0);
	ep->turn = NULL;
	ep->serving = false;
	/* If it has rung it would go on ringing. */
	if (ep->timerfd_ns <= aph_afdt_now())
		ep->timerfd_ns = APH_NOW;
	aph_afdt_endpoint_arm(ep);
	return r;
}
