/* SPDX-License-Identifier: MIT */
/*
 * The attendant: a thread that receives for a port while the program does not.
 *
 * A CAPS program may connect to a service whose process is waiting for something else altogether:
 * the kernel used to do the rest. Here somebody has to answer the connection, to move the rest of a
 * long body, and to notice what upcid asks for. As long as the program keeps coming to receive, it
 * does all this itself, and the attendant sleeps.
 *
 *   service port           always has one; it steps in when the program has been away for AWAY_MS,
 *                          and leaves requests where they are, so that they can still be aborted
 *                          unread
 *   port with an upcid     has one that steps in as soon as the program is not receiving, and takes
 *                          events
 *   client port            has one while something is on its way out or the connection is in the
 *                          making
 *
 * It leaves when the program comes back (aph_caps_receive() wakes it). It sleeps without a time
 * limit while the program sleeps in caps_sys_wait(): an idle service makes no system call.
 */
#include "port.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>

#define AWAY_MS	     20u
#define PUMP_AWAY_MS 1u
#define LINGER_MS    50u
#define STILL_MAX    16u /* so many times AWAY_MS in one wait: the program sleeps */

static bool is_needed(const struct aph_caps_port *port)
{
	if (port->type == CAPT_SERVICE || aph_caps_upcall_wanted(port))
		return true;
	return !port->disconnected && (port->connecting || !aph_caps_link_empty(&port->outgoing));
}

/* What the attendant remembers between two looks. */
struct attention {
	uint64_t visits; /* of the program, when last looked at */
	unsigned still;	 /* how often it was found in one and the same visit */
	bool away;	 /* it was not here for the whole time since then */
	bool lingered;
	pid_t pid;
	bool forked; /* by the upcall, and this is the child: the port is not ours */
};

static void park(struct aph_caps_port *port)
{
	port->parked = true;
	(void)aph_caps_port_sleep(port, &port->attention, 0);
	port->parked = false;
}

/* The program is receiving, or somebody waits to. */
static void give_way(struct aph_caps_port *port, struct attention *a)
{
	bool moved = port->visits != a->visits;

	a->away = false;
	a->still = moved ? 0 : a->still + 1;
	a->visits = port->visits;
	if (aph_caps_upcall_wanted(port) || a->still > STILL_MAX)
		park(port);
	else
		(void)aph_caps_port_sleep(port, &port->attention, AWAY_MS);
}

/* The program is not receiving, but may be about to. True when it has been away for long enough. */
static bool is_away(struct aph_caps_port *port, struct attention *a)
{
	if (aph_caps_upcall_wanted(port))
		return true;
	if (port->visits == a->visits && a->away)
		return true;
	a->visits = port->visits;
	a->away = true;
	a->still = 0;
	(void)aph_caps_port_sleep(port, &port->attention,
				  port->type == CAPT_SERVICE ? AWAY_MS : PUMP_AWAY_MS);
	return false;
}

static void receive(struct aph_caps_port *port)
{
	bool take = port->type == CAPT_CLIENT || aph_caps_upcall_wanted(port);
	struct aph_event ev;
	int r;

	port->receiver = APH_CAPS_ATTENDANT;
	aph_caps_port_unlock(port);
	if (take)
		r = aph_endpoint_next(port->ep, &ev, APH_FOREVER);
	else
		r = aph_endpoint_serve(port->ep, APH_FOREVER);
	aph_caps_port_relock(port);
	port->receiver = APH_CAPS_NOBODY;
	port->called_back = false;
	if (take && r == 0)
		aph_caps_event(port, &ev);
	else if (r < 0 && r != -ECANCELED && r != -EINTR)
		(void)aph_caps_port_sleep(port, &port->attention,
					  AWAY_MS); /* it will not be better at once */
	/*
	 * All who follow: caps_sys_get() must not sleep on behind one that becomes the receiver and
	 * waits.
	 */
	if (port->n_followers)
		aph_caps_ring(&port->turn, INT_MAX);
	aph_caps_leave(port);
}

static void call_up(struct aph_caps_port *port, struct attention *a)
{
	struct aph_caps_upcall upcall = port->upcall;

	/* It is due again whenever something is left when the port is left. */
	port->upcall_due = false;
	aph_caps_port_unlock(port);
	upcall.function(port->number, upcall.arg);
	a->forked = getpid() != a->pid;
	if (!a->forked)
		aph_caps_port_relock(port);
}

/* One step. False when the thread is not needed any more. */
static bool step(struct aph_caps_port *port, struct attention *a)
{
	if (port->upcall_due && !aph_caps_link_empty(&port->ready)) {
		call_up(port, a);
		if (a->forked)
			return false;
	} else if (!is_needed(port)) {
		if (a->lingered)
			return false;
		a->lingered = true;
		(void)aph_caps_port_sleep(port, &port->attention, LINGER_MS);
		return true;
	} else if (port->awaited) {
		aph_caps_client_connect(port);
	} else if (port->receiver != APH_CAPS_NOBODY || port->n_followers) {
		give_way(port, a);
	} else if (is_away(port, a)) {
		receive(port);
	}
	a->lingered = false;
	return true;
}

static void *attend(void *arg)
{
	struct aph_caps_port *port = arg;
	/*
	 * It begins as if the program had been away: a service must answer from the first moment.
	 */
	struct attention a = { .away = true, .pid = getpid() };

	aph_caps_port_relock(port);
	a.visits = port->type == CAPT_SERVICE ? port->visits : 0;
	while (!port->stop && step(port, &a))
		;
	if (a.forked)
		return NULL;
	if (port->stop && pthread_equal(port->closer, pthread_self())) {
		/*
		 * The port was closed by its own upcall: nobody else is there to take this thread
		 * away.
		 */
		(void)pthread_detach(pthread_self());
		port->thread_state = APH_CAPS_NO_THREAD;
		atomic_store_explicit(&port->life, APH_CAPS_FREE, memory_order_relaxed);
	} else {
		port->thread_state = APH_CAPS_ENDED;
	}
	aph_caps_port_unlock(port);
	return NULL;
}

static int start(struct aph_caps_port *port)
{
	sigset_t all, old;
	int e;

	/* Signals are for the program's threads: there they interrupt caps_sys_wait(). */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	e = pthread_create(&port->thread, NULL, attend, port);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e == 0)
		port->thread_state = APH_CAPS_RUNNING;
	return e;
}

int aph_caps_attend(struct aph_caps_port *port)
{
	if (!is_needed(port))
		return 0;
	if (port->thread_state == APH_CAPS_RUNNING) {
		aph_caps_ring(&port->attention, 1);
		return 0;
	}
	if (port->thread_state == APH_CAPS_ENDED)
		(void)pthread_join(port->thread, NULL);
	port->thread_state = APH_CAPS_NO_THREAD;
	return start(port);
}

bool aph_caps_attend_stop(struct aph_caps_port *port)
{
	pthread_t thread = port->thread;

	if (port->thread_state == APH_CAPS_NO_THREAD)
		return true;
	port->stop = true;
	port->closer = pthread_self();
	if (pthread_equal(thread, pthread_self()))
		return false;
	aph_caps_ring(&port->attention, 1);
	aph_caps_port_unlock(port);
	(void)pthread_join(thread, NULL);
	aph_caps_port_relock(port);
	return true;
}
