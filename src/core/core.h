/* SPDX-License-Identifier: MIT */
/*
 * The objects of the call model, as core and the transports see them. Everything here is protected
 * by the endpoint's lock unless it says otherwise.
 *
 * Ownership: an endpoint owns its services and channels. A channel is kept alive by references: one
 * of whoever may still close it (the user at a client, the library or a user who asked for CONNECT
 * at a service), one of the transport while it is connected, and one of every call.
 */
#ifndef ANTIPHON_CORE_CORE_H
#define ANTIPHON_CORE_CORE_H

#include "base/apart.h"
#include "base/list.h"
#include "base/timers.h"

#include <antiphon/call.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/single_threaded.h>

struct aph_transport;

enum aph_pending_kind {
	APH_PENDING_CALL,
	APH_PENDING_CHANNEL,
	APH_PENDING_SERVICE
};

/*
 * Something that has events for the user; linked in the endpoint's `ready` list while `events` is
 * not 0.
 */
struct aph_pending {
	struct aph_list link;
	uint32_t events; /* bit 1 << enum aph_event_type for each */
	enum aph_pending_kind kind;
};

/* Something in the endpoint's epoll. `on_ready` runs with the lock held. */
struct aph_source {
	void (*on_ready)(struct aph_source *source, uint32_t epoll_events);
};

/* Memory that a thread which is in epoll_wait() may still point to; freed when it is back. */
struct aph_grave {
	struct aph_grave *next;
	void *memory;
};

struct aph_endpoint {
	pthread_mutex_t lock;
	bool locked; /* false while the process has one thread, which needs no lock */
	/* Threads that found the lock taken: a spinner lets them in. */
	_Atomic unsigned n_contending;
	/*
	 * One thread, the leader, polls, spins and sleeps for all that wait; the others follow
	 * until it finds what they wait for or steps down.
	 */
	bool led;
	bool in_epoll;		    /* the leader is in epoll_wait(), without the lock */
	uint64_t sleep_until_ns;    /* then at the latest it looks at the timers */
	unsigned n_receivers;	    /* followers that wait for any event */
	unsigned n_callers;	    /* followers that wait for a call of theirs */
	unsigned n_service_callers; /* of those: for a call of a service */
	bool takes_requests;	    /* the leader does in this turn */
	bool takes_events;	    /* it waits for any */
	bool takes_wakes;	    /* it is one that aph_endpoint_wake() is for */
	pthread_cond_t for_receivers;
	pthread_cond_t for_callers;
	uint64_t ticks;	 /* when this turn of the leader began */
	uint64_t tidied; /* ticks: when it last looked at everything */

	int epoll_fd;
	int wake_fd; /* eventfd: brings the leader back from epoll_wait() */
	int timer_fd;
	uint64_t timer_until_ns; /* what it is set to; it may be earlier than anybody waits for */
	struct aph_source wake_source;
	struct aph_source timer_source;
	_Atomic unsigned wakes; /* by aph_endpoint_wake(), not answered for yet */
	bool external; /* aph_endpoint_fd() was called: somebody else's loop waits for us */
	int loop_fd;   /* what that loop polls: `epoll_fd` and `alarm_fd`; -1 without one */
	/* eventfd: what a leader has found for the loop, who does not wake up for it itself. */
	int alarm_fd;
	bool alarmed; /* it is readable */
	bool raised;  /* wake_fd is readable */
	bool asleep;  /* the transports were told that we sleep */
	bool forked;  /* we are in a child: nothing here is ours any more */

	struct aph_list ready;
	struct aph_timers timers;
	struct aph_list services;
	struct aph_list channels;
	struct aph_grave *graves;
	struct aph_transport *local; /* this and the next: NULL while nothing needs it */
	struct aph_transport *remote;
	_Atomic bool in_driver; /* the leader sleeps in `remote`, without the lock */
	uint32_t spin_max_us;
	bool spin_is_default; /* transports that know better may do so */
	struct aph_list all;  /* every endpoint of the process, for fork */
};

#define APH_LATENCIES 40 /* ranges of service times, see struct aph_service_info */

/*
 * How a service does. Other processes may read it while it changes: each word is right by itself.
 */
struct aph_service_stats {
	uint64_t channels, calls, open;
	uint64_t disposed, aborted, gone, violations;
	uint64_t sampled, sampled_ns;
	uint64_t latency[APH_LATENCIES];
};

struct aph_service {
	struct aph_pending pending;
	struct aph_endpoint *ep;
	struct aph_list link; /* in the endpoint's services */
	const struct aph_service_ops *ops;
	struct aph_name name;
	uint32_t flags;
	uint32_t channels_max;
	uint32_t calls_max;
	uint32_t arena_max;
	void *data;
	uint32_t n_channels;
	int64_t generation;
	struct aph_list channels; /* by service_link */
	uint64_t sampled_ticks;
	struct aph_service_stats *stats; /* `own_stats`, or where everybody can read them */
	struct aph_service_stats own_stats;
	struct aph_notice *notice; /* NULL: none; see local/notice.c */
	int shown; /* 0, or -errno: it should have a notice, and could not get one */
};

enum aph_channel_state {
	APH_CHANNEL_CONNECTING,
	APH_CHANNEL_OPEN,
	APH_CHANNEL_ENDED
};

struct aph_channel {
	struct aph_pending pending;
	struct aph_endpoint *ep;
	struct aph_service *service;  /* NULL at a client, and after the service was closed */
	struct aph_list link;	      /* in the endpoint's channels */
	struct aph_list service_link; /* in the service's channels */
	const struct aph_channel_ops *ops;
	bool is_client;
	bool user_holds; /* the user has not closed it */
	bool receipts;	 /* the client sends DISPOSE */
	enum aph_channel_state state;
	enum aph_reason reason; /* why it ended */
	uint32_t refs;
	uint32_t n_calls; /* not ended */
	uint32_t calls_max;
	struct aph_list calls;	/* not freed, by link */
	struct aph_call *spare; /* freed, to be used again, by next_spare */
	uint32_t n_spare;
	void *data;
	struct aph_credentials peer;
	gid_t *groups; /* owned; peer.groups */
	char *label;   /* owned; peer.label */
};

/*
 * The life of a call.
 *
 *   client:   NEW --first piece of the request sent--> REQUEST --first piece of the reply--> REPLY
 *             --> ENDED
 *   service:  REQUEST --first piece of the reply sent--> REPLY --last piece sent--> REPLIED
 *             --> ENDED
 *
 *   to ENDED at the client        by                                        outcome
 *     REQUEST, REPLY              last piece of the reply                   ANSWERED
 *     REQUEST, REPLY              ABORT, REFUSE or LOSE from the service    ABORTED, REFUSED, LOST
 *     any                         cancel, deadline, channel ended           REFUSED if the
 *                                                                           transport can prove
 *                                                                           that no one received
 *                                                                           the request, else LOST
 *   to ENDED at the service
 *     REPLIED                     DISPOSE from the client; where no receipt
 *                                 is wanted, all of the reply on its way    DISPOSED
 *     any                         CANCEL, channel ended; before REPLIED
 *                                 also the deadline                         GONE
 *     REQUEST, REPLY              the service aborts or refuses, or memory
 *                                 runs out in the middle of its reply       ABORTED, REFUSED, LOST
 *     REQUEST, REPLY              the service frees                         LOST
 *
 * A client gets END for each of its calls. A service gets it for what it did not do itself, and
 * with receipts for all calls that it has not freed.
 *
 * ENDED is entered once, by aph_call_end(), and nothing leaves it.
 */
enum aph_call_state {
	APH_CALL_NEW,
	APH_CALL_REQUEST,
	APH_CALL_REPLY,
	APH_CALL_REPLIED,
	APH_CALL_ENDED,
};

struct aph_call {
	struct aph_pending pending;
	struct aph_channel *channel;
	union {
		struct aph_list link; /* in the channel's calls */
		struct aph_call *next_spare;
	};
	uint64_t deadline_ns;
	/* From here on all is 0 in a new call. */
	void *data;
	uint64_t sampled_since_ns; /* 0: its service time is not taken */
	enum aph_call_state state;
	unsigned n_waiting; /* threads that wait for it */
	/*
	 * What is set once stays apart from what has just been written when it is read: compilers
	 * test neighbours in one load, which waits for each store that it overlaps.
	 */
	bool is_client;
	bool receipts;		     /* the service wants END after its reply as well */
	bool private;		     /* belongs to aph_call(): no event is queued */
	bool timed;		     /* holds a reservation in the timers */
	_Alignas(8) bool user_holds; /* the user may still use the pointer */
	bool in_last;		     /* the last piece of the arriving body is here */
	bool out_last;		     /* the last piece of the leaving body was accepted */
	bool disposed;		     /* client: the receipt was sent */
	bool progress;		     /* something happened since a waiter looked */
	bool was_short;		     /* the last send was */
	bool has_room;		     /* WRITABLE was earned, and no send was short since */
	bool want_readable;	     /* a read said EAGAIN */
	bool lingering;		     /* the transport still has to tell the peer something */
	/* Up to here: what follows means something when one of those says so. */
	int32_t signal_code;	  /* of the last signal */
	struct aph_result result; /* when ENDED */
	struct aph_timer timer;	  /* when `timed` */
};

/* -- what transports fill in (core/transport.h) and call --------------------------------------- */

/* -- endpoint.c */
APH_API void aph_lock_among_threads(struct aph_endpoint *ep);
APH_API void aph_unlock_among_threads(struct aph_endpoint *ep);

static inline void aph_lock(struct aph_endpoint *ep)
{
	/*
	 * Nobody to lock out; and nobody can come before the unlock, as nothing in between makes
	 * threads of the program.
	 */
	if (!__libc_single_threaded)
		aph_lock_among_threads(ep);
}

static inline void aph_unlock(struct aph_endpoint *ep)
{
	if (ep->locked)
		aph_unlock_among_threads(ep);
}

APH_API int aph_source_add(struct aph_endpoint *ep, int fd, struct aph_source *source,
			   uint32_t events);
int aph_source_change(struct aph_endpoint *ep, int fd, struct aph_source *source, uint32_t events);
APH_API void aph_source_remove(struct aph_endpoint *ep, int fd);
/* Frees `grave->memory` when no thread can come back from epoll_wait() with a pointer into it. */
APH_API void aph_bury(struct aph_endpoint *ep, struct aph_grave *grave, void *memory);
/* An event was queued: tells threads that wait for one, or somebody else's loop. */
void aph_endpoint_has_event(struct aph_endpoint *ep);
/* Queues an event of `pending` and tells threads that wait for it. */
static inline void aph_pending_add(struct aph_endpoint *ep, struct aph_pending *pending,
				   enum aph_event_type type)
{
	if (!pending->events)
		aph_list_append(&ep->ready, &pending->link);
	pending->events |= 1u << type;
	if (ep->n_receivers || ep->in_epoll || ep->external)
		aph_endpoint_has_event(ep);
}

static inline void aph_pending_clear(struct aph_pending *pending)
{
	if (!pending->events)
		return;
	pending->events = 0;
	aph_list_remove(&pending->link);
}

/* Takes back one event that was not delivered. */
void aph_pending_remove(struct aph_pending *pending, enum aph_event_type type);
/* Lets the threads that wait for calls of theirs look again. */
APH_API void aph_endpoint_changed(struct aph_endpoint *ep);
/* Starts a timer, and makes sure that a sleeping leader knows. */
APH_API void aph_endpoint_start_timer(struct aph_endpoint *ep, struct aph_timer *timer,
				      uint64_t deadline_ns);
/*
 * The loop's descriptor is readable on its own account while there is something to take, and not
 * beyond.
 */
void aph_endpoint_set_alarm(struct aph_endpoint *ep);
/* Brings the leader back from its sleep. */
void aph_endpoint_raise(struct aph_endpoint *ep);
/*
 * There is something that only a look finds: brings back whoever sleeps for us all, a loop as well.
 */
static inline void aph_endpoint_needs_look(struct aph_endpoint *ep)
{
	if (ep->in_epoll || ep->external)
		aph_endpoint_raise(ep);
}

void aph_graves_free(struct aph_endpoint *ep);
/* The leader gives up the lock to sleep in a transport of its own way, and is back. */
APH_API void aph_endpoint_driver_sleeps(struct aph_endpoint *ep);
APH_API void aph_endpoint_driver_woke(struct aph_endpoint *ep);
/* 0, or -ENOTCONN in a forked child. */
int aph_endpoint_check(const struct aph_endpoint *ep);
/* What a thread waits for, and so which arrivals it may take in. */
enum aph_waiter {
	APH_WAITER_CLIENT, /* a call of a client: requests stay where they are */
	APH_WAITER_OPENER, /* somebody to call: likewise */
	/* A call of a service: requests that stand before its body are queued. */
	APH_WAITER_SERVICE,
	APH_WAITER_TENDER,   /* nothing: keeps the endpoint going, as aph_endpoint_serve() */
	APH_WAITER_RECEIVER, /* any event: a request is taken when no event is queued */
};
/*
 * Waits until done(arg), polling all sources meanwhile; other events are queued. 0, -EAGAIN,
 * -ETIMEDOUT; -EINTR but for APH_WAITER_CLIENT; -ECANCELED for APH_WAITER_TENDER and
 * APH_WAITER_RECEIVER.
 */
int aph_endpoint_wait(struct aph_endpoint *ep, bool (*done)(void *arg), void *arg,
		      uint64_t deadline_ns, enum aph_waiter waiter);
/* This thread has what it came for: somebody else may have to go on. */
void aph_endpoint_hand_over(struct aph_endpoint *ep);

static inline void aph_endpoint_leave(struct aph_endpoint *ep)
{
	if (ep->n_receivers || ep->n_callers || ep->external)
		aph_endpoint_hand_over(ep);
}

/* -- channel.c */
/* For a service whose other members are filled in: the endpoint's from here on. */
APH_API void aph_service_init(struct aph_service *service);
/* As aph_service_close(), with the lock held. */
void aph_service_end(struct aph_service *service);
APH_API void aph_channel_init(struct aph_channel *channel, struct aph_endpoint *ep,
			      struct aph_service *service);
static inline void aph_channel_ref(struct aph_channel *channel)
{
	channel->refs++;
}

/* Nobody has a reference any more. */
void aph_channel_free(struct aph_channel *channel);

static inline void aph_channel_unref(struct aph_channel *channel)
{
	if (--channel->refs == 0)
		aph_channel_free(channel);
}

/* The channel can be used: OPEN or CONNECT where they were asked for. */
APH_API void aph_channel_opened(struct aph_channel *channel, bool announce);
/*
 * The channel is over: ends its calls, then says CLOSED or DISCONNECT. Only the first time counts.
 */
APH_API void aph_channel_end(struct aph_channel *channel, enum aph_reason reason);

/* -- call.c */
/*
 * Service: a request has begun to arrive. NULL when memory is short. The caller fills in the body.
 */
APH_API struct aph_call *aph_call_incoming(struct aph_channel *channel, uint64_t deadline_ns);
/* More of the body is here; with `last`, all of it. */
APH_API void aph_call_arrived(struct aph_call *call, bool last);
/* Service: the rest of a reply that send_all() kept is on its way. */
APH_API void aph_call_flushed(struct aph_call *call);
/* Service: the client has sent a signal. */
void aph_call_signalled(struct aph_call *call, int32_t code);
/* There is room again for a sender that was told EAGAIN. */
APH_API void aph_call_writable(struct aph_call *call);
/* Enters ENDED, once. */
APH_API void aph_call_end(struct aph_call *call, enum aph_outcome outcome, enum aph_reason reason,
			  int32_t code);
/* In a forked child: it ends without a word to anybody. */
void aph_call_abandon(struct aph_call *call);
/* The end of a call's life: gives back all that it holds. */
void aph_call_recycle(struct aph_call *call);

/* Whether it has ended and neither the user nor the transport needs it. */
static inline bool aph_call_is_over(const struct aph_call *call)
{
	return call->state == APH_CALL_ENDED && !call->user_holds && !call->lingering &&
	       !call->n_waiting;
}

/* Frees the call if it is over. */
static inline void aph_call_settle(struct aph_call *call)
{
	if (aph_call_is_over(call))
		aph_call_recycle(call);
}

/* The last step of a channel's life: frees the calls kept for reuse. */
void aph_call_free_spare(struct aph_channel *channel);

#endif
