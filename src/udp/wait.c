/* SPDX-License-Identifier: MIT */
/*
 * Waiting. The thread that waits is the driver; there is no other thread on a call's path, as
 * handing over from one to another costs as much as a call.
 *
 * A wait has up to three phases. It spins, if that has paid of late (spin.h). It sleeps in a call
 * that receives for some milliseconds: that is faster than asking poll first. Then nothing is
 * urgent any more, and it sleeps in ppoll(), where an eventfd can end it and deadlines are exact.
 * The second phase is left out where a deadline is near.
 *
 * Waking: a flag and the eventfd; in the second phase also an empty datagram to ourselves. If
 * something is in its way, the flag is seen when the phase ends. The flag is stored before the
 * place is looked at, and the waiter stores its place before it looks at the flag, so one of them
 * sees the other.
 */
#include "base/error.h"
#include "base/fd.h"
#include "base/time.h"
#include "udp/udp.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

#define ENGINE_PRECISE_NS (2 * MS)  /* the engine's deadlines nearer than this are for poll */
#define USER_PRECISE_NS	  (10 * MS) /* and the user's */
#define LEAVE_NS	  (10 * MS) /* for so long a busy one may receive for us */
#define AT_ONCE_NS	  3000	    /* nobody falls asleep and is woken up in less */
#define LOOKS_MAX	  64 /* of a wait whose time is over, while there is something each time */

uint64_t aph_rx_udp_now(void)
{
	return aph_time_ns();
}

/* -- the eventfd ------------------------------------------------------------------------------- */

static void raise_event_fd(const struct aph_rx_udp *udp)
{
	uint64_t one = 1;

	/* It fails only when the counter is full, and then it is readable. */
	(void)!write(udp->event_fd, &one, sizeof(one));
}

static void drain_event_fd(struct aph_rx_udp *udp)
{
	uint64_t count;

	udp->raised = false;
	(void)!read(udp->event_fd, &count, sizeof(count));
}

/* Ends a receiving call; a pending error of the socket may take the place of the first attempt. */
static void send_to_self(const struct aph_rx_udp *udp)
{
	for (int i = 0; i < 3; i++)
		if (sendto(udp->fd, "", 0, MSG_DONTWAIT, &udp->self.any, udp->self_len) == 0)
			return;
}

int aph_rx_udp_wake(struct aph_rx_udp *udp)
{
	int saved = errno;

	if (udp->forked)
		return -ENOTCONN;
	atomic_store(&udp->woken, true);
	raise_event_fd(udp);
	if (atomic_load(&udp->place) == APH_UDP_IN_RECEIVE)
		send_to_self(udp);
	errno = saved;
	return 0;
}

/* Whether somebody has asked for the wait to end. A wake that comes meanwhile is the same one. */
static bool take_wake(struct aph_rx_udp *udp)
{
	if (!atomic_load_explicit(&udp->woken, memory_order_relaxed))
		return false;
	drain_event_fd(udp);
	atomic_store(&udp->woken, false);
	return true;
}

/* -- the pollable descriptor ------------------------------------------------------------------- */

static void arm_timer(struct aph_rx_udp *udp)
{
	uint64_t deadline_ns = aph_rx_deadline(udp->rx);
	struct itimerspec spec = { 0 };

	if (deadline_ns == udp->armed_ns)
		return;
	udp->armed_ns = deadline_ns;
	if (deadline_ns != APH_RX_NO_DEADLINE) {
		/* 0 would mean: no time at all. */
		deadline_ns = deadline_ns ? deadline_ns : 1;
		spec.it_value.tv_sec = (time_t)(deadline_ns / UINT64_C(1000000000));
		spec.it_value.tv_nsec = (long)(deadline_ns % UINT64_C(1000000000));
	}
	(void)timerfd_settime(udp->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void update_fd(struct aph_rx_udp *udp)
{
	bool has_event = aph_rx_has_event(udp->rx) || udp->has_rest;

	arm_timer(udp);
	if (has_event && !udp->raised) {
		udp->raised = true;
		raise_event_fd(udp);
	} else if (!has_event && udp->raised) {
		drain_event_fd(udp);
		if (atomic_load(&udp->woken))
			raise_event_fd(udp);
	}
}

/* Whoever sleeps has looked at the engine before somebody else changed it. */
static void nudge(struct aph_rx_udp *udp)
{
	enum aph_udp_place place = atomic_load(&udp->place);
	uint64_t deadline_ns = aph_rx_deadline(udp->rx);
	bool has_event = aph_rx_has_event(udp->rx) || udp->errors_there;

	if (place == APH_UDP_AWAKE || (!has_event && deadline_ns >= udp->sleep_until_ns))
		return;
	if (place == APH_UDP_IN_POLL) {
		raise_event_fd(udp);
	} else if (has_event || deadline_ns < aph_time_ns() + ENGINE_PRECISE_NS) {
		send_to_self(udp);
	} else {
		return; /* it wakes up soon enough */
	}
	udp->sleep_until_ns = has_event ? 0 : deadline_ns;
}

void aph_udp_update(struct aph_rx_udp *udp)
{
	if (udp->epoll_fd >= 0)
		update_fd(udp);
	nudge(udp);
}

static int watch(int epoll_fd, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	if (fd < 0)
		return 0;
	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int aph_rx_udp_fd(struct aph_rx_udp *udp)
{
	int r = aph_udp_check(udp);

	if (r < 0)
		return r;
	if (udp->epoll_fd >= 0)
		return udp->epoll_fd;
	udp->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (udp->timer_fd >= 0)
		udp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (udp->epoll_fd >= 0 && watch(udp->epoll_fd, udp->fd) == 0 &&
	    watch(udp->epoll_fd, udp->event_fd) == 0 && watch(udp->epoll_fd, udp->timer_fd) == 0 &&
	    watch(udp->epoll_fd, udp->member.fd) == 0 &&
	    watch(udp->epoll_fd, udp->port ? udp->port->epoll_fd : -1) == 0) {
		udp->armed_ns = APH_RX_NO_DEADLINE;
		update_fd(udp);
		return udp->epoll_fd;
	}
	r = -errno;
	aph_fd_close(&udp->epoll_fd);
	aph_fd_close(&udp->timer_fd);
	return aph_err(r, "cannot make a descriptor to poll: %s%s", strerror(-r), aph_advice(-r));
}

/* -- sleeping ---------------------------------------------------------------------------------- */

/* One wait for something to receive. */
struct nap {
	uint64_t now_ns, until_ns, spin_until_ns;
	bool exact;   /* sleep in poll */
	bool at_once; /* what came was there before anybody waited */
	bool drained; /* the eventfd */
	bool leaves;  /* the socket to others, who are at it */
};

/* Somebody has something to tell us: others of the program, or others at the port. */
static bool is_called(const struct aph_rx_udp *udp)
{
	return atomic_load_explicit(&udp->woken, memory_order_relaxed) ||
	       atomic_load_explicit(&udp->member.queued, memory_order_relaxed);
}

static int spin(struct aph_rx_udp *udp, struct nap *nap)
{
	int r = aph_udp_receive(udp, MSG_DONTWAIT);
	uint64_t now_ns;

	nap->at_once = r != -EAGAIN;
	while (r == -EAGAIN) {
		if (is_called(udp))
			return r;
		aph_pause();
		now_ns = aph_time_ns();
		if (now_ns >= nap->spin_until_ns || now_ns >= nap->until_ns) {
			aph_udp_spin_fail(&udp->spin);
			return r;
		}
		r = aph_udp_receive(udp, MSG_DONTWAIT);
	}
	return r;
}

static int sleep_in_poll(struct aph_rx_udp *udp, struct nap *nap)
{
	struct pollfd fds[4] = {
		{ .fd = nap->leaves ? -1 : udp->fd, .events = POLLIN },
		{ .fd = udp->event_fd, .events = POLLIN },
		{ .fd = udp->member.fd, .events = POLLIN },
		{ .fd = udp->port ? udp->port->epoll_fd : -1, .events = POLLIN },
	};
	struct timespec left = aph_time_left(nap->until_ns, aph_time_ns());
	int r = ppoll(fds, udp->port ? 4 : 2, nap->until_ns == APH_FOREVER ? NULL : &left, NULL);

	if (r < 0)
		return -errno;
	if (fds[1].revents) {
		uint64_t count;

		nap->drained = true;
		(void)!read(udp->event_fd, &count, sizeof(count));
	}
	if (udp->port && fds[3].revents)
		aph_udp_port_look(udp->port, aph_time_ns());
	if (!fds[0].revents)
		return -EAGAIN;
	r = aph_udp_receive(udp, MSG_DONTWAIT);
	/*
	 * The error queue has something, and there is no datagram: stands for any error reported.
	 */
	return r == -EAGAIN && (fds[0].revents & POLLERR) ? -ECONNREFUSED : r;
}

/*
 * Fills the inbox. -EAGAIN: nothing came in time, or somebody has something to tell. Runs without
 * the user's lock.
 */
static int sleep_unlocked(struct aph_rx_udp *udp, struct nap *nap)
{
	if (nap->spin_until_ns > nap->now_ns) {
		int r = spin(udp, nap);

		if (r != -EAGAIN)
			return r;
	}
	if (atomic_load(&udp->woken) || atomic_load(&udp->member.queued))
		return -EAGAIN;
	if (nap->exact)
		return sleep_in_poll(udp, nap);
	return aph_udp_receive(udp, 0);
}

/*
 * Sleeps, with everybody else let in. `*quiet`: this wait has been long enough for the last phase.
 */
static int take_nap(struct aph_rx_udp *udp, struct nap *nap, uint64_t deadline_ns, bool *quiet)
{
	uint64_t start_ns = nap->now_ns;
	int r;

	nap->spin_until_ns = *quiet ? 0 : aph_udp_spin_begin(&udp->spin, start_ns);
	nap->exact = *quiet || nap->until_ns - start_ns < ENGINE_PRECISE_NS ||
		     deadline_ns - start_ns < USER_PRECISE_NS;
	nap->at_once = nap->drained = nap->leaves = false;
	if (aph_udp_is_crowded(udp)) {
		/* Only there others can wake us up. */
		nap->exact = true;
		nap->leaves = aph_udp_port_is_attended(udp, start_ns);
		if (nap->leaves) {
			nap->spin_until_ns = 0;
			if (nap->until_ns - start_ns > LEAVE_NS)
				nap->until_ns = start_ns + LEAVE_NS;
		}
	}
	udp->sleep_until_ns = nap->until_ns;
	atomic_store(&udp->place, nap->exact ? APH_UDP_IN_POLL : APH_UDP_IN_RECEIVE);
	if (udp->unlock)
		udp->unlock(udp->lock_arg);
	r = sleep_unlocked(udp, nap);
	if (udp->lock)
		udp->lock(udp->lock_arg);
	atomic_store_explicit(&udp->place, APH_UDP_AWAKE, memory_order_relaxed);
	nap->now_ns = aph_time_ns();
	if (nap->drained)
		udp->raised = false;
	if (r > 0) {
		nap->at_once = nap->at_once || nap->now_ns - start_ns < AT_ONCE_NS;
		aph_udp_spin_end(&udp->spin, nap->at_once, nap->now_ns);
	}
	*quiet = r == -EAGAIN;
	return r;
}

/* Receives once. 1: something, 0: nothing; -EINTR and what the socket says and nobody expected. */
static int receive(struct aph_rx_udp *udp, uint64_t deadline_ns, uint64_t engine_ns,
		   uint64_t *now_ns, bool *quiet)
{
	struct nap nap = {
		.now_ns = *now_ns,
		.until_ns = engine_ns < deadline_ns ? engine_ns : deadline_ns,
		.at_once = true,
	};
	int r;

	if (udp->has_rest) {
		aph_udp_deliver_rest(udp, *now_ns);
		return 1;
	}
	if (nap.until_ns <= nap.now_ns)
		r = aph_udp_receive(udp, MSG_DONTWAIT);
	else
		r = take_nap(udp, &nap, deadline_ns, quiet);
	*now_ns = nap.now_ns;
	if (r > 0)
		aph_udp_deliver(udp, nap.at_once, nap.now_ns);
	else if (aph_udp_is_reported(-r))
		aph_udp_read_all(udp, nap.now_ns);
	else
		return r == -EAGAIN ? 0 : r;
	return 1;
}

static int wait_for_event(struct aph_rx_udp *udp, uint64_t deadline_ns)
{
	uint64_t now_ns = aph_time_ns(), engine_ns;
	unsigned n_looks = 0;
	bool quiet = false;
	int r = 0;

	for (;; n_looks++) {
		if (take_wake(udp))
			return -ECANCELED;
		if (udp->port)
			aph_udp_port_turn(udp, now_ns);
		/*
		 * After a batch that has caused events, the user's answers leave together with
		 * ours.
		 */
		if (n_looks && aph_rx_has_event(udp->rx))
			return 0;
		(void)aph_udp_send(udp, now_ns);
		engine_ns = aph_rx_deadline(udp->rx);
		/* A deadline that seems near may be one that has gone: a tick puts it right. */
		if (engine_ns <= now_ns + ENGINE_PRECISE_NS) {
			aph_rx_tick(udp->rx, now_ns);
			(void)aph_udp_send(udp, now_ns);
			engine_ns = aph_rx_deadline(udp->rx);
		}
		if (udp->errors_there) {
			aph_udp_read_all(udp, now_ns);
			continue;
		}
		if (aph_rx_has_event(udp->rx))
			return 0;
		if (n_looks && now_ns >= deadline_ns && (r == 0 || n_looks >= LOOKS_MAX))
			return -ETIMEDOUT;
		r = receive(udp, deadline_ns, engine_ns, &now_ns, &quiet);
		if (r < 0)
			return r;
	}
}

int aph_rx_udp_wait(struct aph_rx_udp *udp, uint64_t deadline_ns)
{
	int r = aph_udp_check(udp);

	if (r < 0)
		return r;
	if (udp->epoll_fd < 0)
		return wait_for_event(udp, deadline_ns);
	drain_event_fd(udp);
	if (udp->port && udp->port->epoll_fd >= 0)
		aph_udp_port_look(udp->port, aph_time_ns());
	r = wait_for_event(udp, deadline_ns);
	/* An error that no call of ours has met makes the descriptor readable all the same. */
	if (r == -ETIMEDOUT)
		aph_udp_read_errors(udp, aph_time_ns());
	update_fd(udp);
	return r;
}
