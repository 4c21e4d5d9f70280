/* SPDX-License-Identifier: MIT */
/*
 * Endpoint: where a process's events arrive, however many channels and services it has.
 *
 * Threads: everything that belongs to one endpoint may be used from any number of threads at once,
 * and several threads may wait in aph_endpoint_next(); each event is handed to exactly one of them.
 * Only the functions that free must not race with another use of what they free. No thread may be
 * cancelled (pthread_cancel(3)) in a function of the library: it would leave the endpoint locked,
 * or waited for by nobody, for ever. Wake it with aph_endpoint_wake(), or disable cancellation
 * around the calls.
 *
 * Fork: an endpoint belongs to the process that made it. In a child made by fork() the library has
 * let go of its descriptors, and every function on it, its services and channels answers -ENOTCONN;
 * its calls have ended there, and functions on them say so (-EPIPE, -EALREADY, -ECANCELED). Free
 * it, and make a new one.
 */
#ifndef ANTIPHON_ENDPOINT_H
#define ANTIPHON_ENDPOINT_H

#include <antiphon/event.h>

APH_BEGIN_DECLS

struct aph_endpoint;

struct aph_endpoint_options {
	size_t size; /* sizeof(struct aph_endpoint_options) */

	/*
	 * How long a waiter may spin before it sleeps in the kernel, in microseconds: 0 is the
	 * default of 30, or of up to 400 where wake-ups turn out to be slow, APH_SPIN_NEVER never
	 * spins. The budget is an upper bound: a channel whose peer is slow learns not to spin.
	 */
	uint32_t spin_max_us;
};

#define APH_SPIN_NEVER UINT32_MAX

/* 0, -ENOMEM, -EMFILE, -ENFILE, -EINVAL. `options` may be NULL. Free with aph_endpoint_free(). */
APH_API int aph_endpoint_new(struct aph_endpoint **out, const struct aph_endpoint_options *options);

/*
 * Closes every service and channel of the endpoint and frees it, with all their calls. No thread
 * may be in a function of the endpoint. Accepts NULL. Returns NULL.
 */
APH_API struct aph_endpoint *aph_endpoint_free(struct aph_endpoint *ep);

/*
 * The next event, or the reason why there is none. 0; -EAGAIN when `deadline_ns` was APH_NOW and
 * nothing is there; -ETIMEDOUT; -EINTR when a signal handler ran while it slept; -ENOTCONN in a
 * forked child. -ECANCELED when aph_endpoint_wake() was called.
 */
APH_API int aph_endpoint_next(struct aph_endpoint *ep, struct aph_event *event,
			      uint64_t deadline_ns);

/*
 * Keeps the endpoint going without taking anything from it: lets newcomers in, moves bodies, keeps
 * deadlines. Requests stay where they are, and so can still be withdrawn. For a thread that looks
 * after an endpoint while nobody calls aph_endpoint_next(); where somebody does, or a loop waits on
 * aph_endpoint_fd(), it takes requests in for them. -ETIMEDOUT, -EAGAIN (the deadline was APH_NOW),
 * -EINTR, -ECANCELED (woken), -ENOTCONN.
 */
APH_API int aph_endpoint_serve(struct aph_endpoint *ep, uint64_t deadline_ns);

/*
 * Makes one aph_endpoint_next() that waits, or else the next one to be called, return -ECANCELED.
 * Async-signal-safe. 0, -ENOTCONN in a forked child.
 */
APH_API int aph_endpoint_wake(struct aph_endpoint *ep);

/*
 * A descriptor that is readable while aph_endpoint_next(ep, &event, APH_NOW) has something to do,
 * for use with poll(2), epoll(7) or any event loop, level-triggered. Deadlines make it readable
 * too. Borrowed: do not read or close it. The first call switches the endpoint to this mode, which
 * costs a few system calls per burst of events. Other threads may wait on the endpoint meanwhile,
 * in any function: what they take in for the loop makes the descriptor readable. -errno on failure.
 */
APH_API int aph_endpoint_fd(struct aph_endpoint *ep);

APH_END_DECLS

#endif
