/* SPDX-License-Identifier: MIT */
/*
 * Waiting for a socket or for a point in time, on libevent or on an endpoint of our own. What waits
 * is started, is told once, and then starts again if it wants more; listeners alone are told time
 * and again.
 */
#ifndef ANTIPHON_FACADE_AFDT_WATCH_H
#define ANTIPHON_FACADE_AFDT_WATCH_H

#include "wire.h"

#include <event2/event.h>
#include <event2/event_struct.h>

#define APH_AFDT_READ	 0x1u
#define APH_AFDT_WRITE	 0x2u
#define APH_AFDT_TIMEOUT 0x4u
#define APH_AFDT_PERSIST 0x8u /* to be told until it is stopped; has no deadline */

struct aph_afdt_link {
	struct aph_afdt_link *next, *prev;
};

#define APH_AFDT_CONTAINER(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void aph_afdt_link_init(struct aph_afdt_link *link)
{
	link->next = link->prev = link;
}

static inline bool aph_afdt_link_alone(const struct aph_afdt_link *link)
{
	return link->next == link;
}

static inline void aph_afdt_link_append(struct aph_afdt_link *head, struct aph_afdt_link *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}

static inline void aph_afdt_link_remove(struct aph_afdt_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	aph_afdt_link_init(link);
}

/* A place in a heap of deadlines. */
struct aph_afdt_timer {
	uint64_t deadline_ns;
	size_t at; /* its number plus one; 0: it is not running */
};

struct aph_afdt_watch {
	struct aph_afdt_endpoint *ep;
	void (*ready)(struct aph_afdt_watch *watch, unsigned what);
	int fd;
	bool started;
	bool known; /* to epoll */
	struct aph_afdt_timer timer;
	struct event event; /* on libevent */
};

struct epoll_event;

struct aph_afdt_endpoint {
	struct event_base *eb; /* NULL: the rest is used */
	struct aph_afdt_link servers, requests, clients;
	int epoll;
	int timerfd;
	bool given; /* the descriptor was asked for: timerfd has to be set */
	bool serving;
	uint64_t timerfd_ns; /* what it is set to */
	/* The events of a turn that were not handled yet. */
	struct epoll_event *turn;
	int n_turn;
	/* Timers, the earliest first, and room for one of each watch there is. */
	struct aph_afdt_timer **heap;
	size_t n_heap, n_watches, heap_max;
};

/* An endpoint in storage of the caller's, on libevent: cannot fail and needs no end. */
void aph_afdt_endpoint_init_libevent(struct aph_afdt_endpoint *ep, struct event_base *eb);

/* Has the timerfd ring at the earliest deadline, if somebody may be looking at it. */
void aph_afdt_endpoint_arm(struct aph_afdt_endpoint *ep);

/*
 * Tells the watches of `n` events; tells those whose deadline has passed, and how many they were.
 */
void aph_afdt_endpoint_turn(struct aph_afdt_endpoint *ep, struct epoll_event *events, int n);
int aph_afdt_endpoint_expire(struct aph_afdt_endpoint *ep);

/* Before the first start and after the last stop. 0 or -ENOMEM. */
int aph_afdt_watch_init(struct aph_afdt_watch *watch, struct aph_afdt_endpoint *ep, int fd,
			void (*ready)(struct aph_afdt_watch *watch, unsigned what));
void aph_afdt_watch_deinit(struct aph_afdt_watch *watch);

/*
 * Waits for what is in `what` (0: for the deadline alone), or instead of what was waited for so
 * far. 0 or -errno with `err` filled in.
 */
int aph_afdt_watch_start(struct aph_afdt_watch *watch, unsigned what, uint64_t deadline_ns,
			 struct afdt_error_t *err);
void aph_afdt_watch_stop(struct aph_afdt_watch *watch);

#endif
