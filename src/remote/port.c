/* SPDX-License-Identifier: MIT */
/*
 * The transport in an endpoint: its ports, what they receive, and how it sleeps. A single port that
 * is all the endpoint waits for sleeps in the driver's own way, which is the fastest; beside others
 * its socket is in epoll.
 */
#include "base/error.h"
#include "base/time.h"
#include "remote/remote.h"
#include "udp/udp.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>

/* 25 to 100 us: who takes longer for a request sends each answer at once. */
#define TOGETHER_TICKS 100000u
/* 1 to 4 ms with one request: who takes that may take any time. */
#define SLOW_TICKS UINT64_C(4000000)
/*
 * No answer waits for the next one then for so many times as long, but not for longer than 1 to 4
 * s.
 */
#define CALM_TIMES 64u
#define CALM_TICKS UINT64_C(4000000000)
#define LOOKS_MAX  64 /* at what has come meanwhile, before it goes on */

static struct aph_remote *of(struct aph_transport *transport)
{
	return aph_container(transport, struct aph_remote, base);
}

static struct aph_remote_port *port_at(struct aph_list *link)
{
	return aph_container(link, struct aph_remote_port, link);
}

/* -- what has happened ------------------------------------------------------------------------- */

bool aph_remote_pump(struct aph_remote_port *port)
{
	struct aph_rx_event event;
	bool any = false;

	while (aph_rx_next(port->rx, &event)) {
		struct aph_remote_user *user = event.data;

		any = true;
		if (event.type == APH_RX_EVENT_CALL)
			aph_remote_incoming_add(port, &event);
		else if (user && user->is_told)
			aph_remote_call_event(aph_container(user, struct aph_remote_call, user),
					      &event);
		else if (user)
			aph_remote_incoming_event(port, user, &event);
	}
	return any;
}

/* Tells the service of one request. */
static bool deliver(struct aph_remote_port *port)
{
	if (!aph_remote_incoming_deliver(port))
		return false;
	port->delivered = aph_ticks();
	port->is_away = true;
	return true;
}

/*
 * The program looks at us again: how long it was away with a request says how long it may be with
 * the next one. True: for so long that the network comes before a request that waits, or its peers
 * would take us for dead behind a few of them.
 */
static bool note_return(struct aph_remote_port *port)
{
	uint64_t ticks, away;

	if (!port->is_away)
		return false;
	port->is_away = false;
	ticks = aph_ticks();
	away = ticks - port->delivered;
	if (away < SLOW_TICKS)
		return false;
	port->slow_until =
		ticks + (away < CALM_TICKS / CALM_TIMES ? away * CALM_TIMES : CALM_TICKS);
	return true;
}

/* All that has come while the program was away. */
static bool catch_up(struct aph_remote_port *port)
{
	bool any = false;

	for (int i = 0; i < LOOKS_MAX && aph_rx_udp_wait(port->udp, APH_NOW) == 0; i++)
		any |= aph_remote_pump(port);
	return any;
}

static bool poll_ports(struct aph_transport *transport, bool requests)
{
	struct aph_remote *remote = of(transport);
	struct aph_list *pos, *tmp;
	bool any = false;

	aph_list_for_each(pos, tmp, &remote->ports) {
		struct aph_remote_port *port = port_at(pos);

		if (note_return(port))
			any |= catch_up(port);
		if (requests && deliver(port)) {
			any = true;
			continue;
		}
		(void)aph_rx_udp_wait(port->udp, APH_NOW);
		any |= aph_remote_pump(port);
		if (requests)
			any |= deliver(port);
	}
	return any;
}

/*
 * Whoever sleeps in the driver or beside it has told us of all that it has received, and comes back
 * for more.
 */
static bool poll_beside(struct aph_transport *transport)
{
	struct aph_remote *remote = of(transport);
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &remote->ports) {
		struct aph_remote_port *port = port_at(pos);

		if (aph_list_empty(&port->incoming))
			continue;
		if (deliver(port)) {
			/* Somebody else looks at the network while the program is busy with it. */
			port->is_away = false;
			return true;
		}
		/* What could not be taken was refused. */
		aph_remote_changed(port);
	}
	return false;
}

/* For somebody who sleeps in epoll and so does not look at the engine's clock. */
static void set_timer(struct aph_remote_port *port)
{
	struct aph_endpoint *ep = port->remote->base.ep;

	aph_timers_stop(&ep->timers, &port->timer);
	/* What cannot leave may have ended a call at once. */
	aph_endpoint_start_timer(ep, &port->timer,
				 aph_rx_has_event(port->rx) ? 0 : aph_rx_deadline(port->rx));
}

/*
 * Whether who was told of a request last has answered soon, and is likely to be as quick with the
 * next one.
 */
static bool is_quick(const struct aph_remote_port *port, uint64_t ticks)
{
	return ticks - port->delivered < TOGETHER_TICKS && ticks >= port->slow_until;
}

static bool sleeps(const struct aph_remote_port *port)
{
	const struct aph_endpoint *ep = port->remote->base.ep;

	return ep->in_epoll || ep->asleep;
}

void aph_remote_flush_now(struct aph_remote_port *port)
{
	(void)aph_rx_udp_flush(port->udp);
	if (sleeps(port) && !port->waits)
		set_timer(port);
}

void aph_remote_flush(struct aph_remote_port *port)
{
	const struct aph_endpoint *ep = port->remote->base.ep;

	/*
	 * More is to be done first: it leaves together, if those who do it will look at us soon.
	 * Who sleeps does not.
	 */
	if ((!aph_list_empty(&ep->ready) || !aph_list_empty(&port->incoming)) && !sleeps(port) &&
	    is_quick(port, aph_ticks()))
		return;
	aph_remote_flush_now(port);
}

void aph_remote_drain(struct aph_remote_port *port)
{
	struct aph_endpoint *ep = port->remote->base.ep;

	/* Whoever waits there receives it, and needs the lock for what comes next. */
	if (port->waits) {
		(void)aph_rx_udp_flush(port->udp);
		return;
	}
	if (!catch_up(port))
		return;
	/* The socket does not tell those who sleep of it any more. */
	aph_timers_stop(&ep->timers, &port->timer);
	aph_endpoint_start_timer(ep, &port->timer, 0);
}

void aph_remote_changed(struct aph_remote_port *port)
{
	/* Who is awake looks at the engine before it sleeps. */
	if (sleeps(port))
		aph_remote_flush(port);
}

/* -- sleeping ---------------------------------------------------------------------------------- */

static void expire(struct aph_timer *timer)
{
	struct aph_remote_port *port = aph_container(timer, struct aph_remote_port, timer);

	/* The next poll looks at the engine's clock. */
	aph_endpoint_changed(port->remote->base.ep);
}

static bool sleep_in_epoll(struct aph_transport *transport, bool requests)
{
	struct aph_remote *remote = of(transport);
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &remote->ports) {
		struct aph_remote_port *port = port_at(pos);

		(void)aph_rx_udp_flush(port->udp);
		/* What the driver has received and not handed on yet makes no socket readable. */
		if (aph_rx_has_event(port->rx) || port->udp->has_rest ||
		    (requests && !aph_list_empty(&port->incoming)))
			return false;
		aph_timers_stop(&transport->ep->timers, &port->timer);
		aph_timers_start(&transport->ep->timers, &port->timer, aph_rx_deadline(port->rx));
	}
	return true;
}

static bool can_wait(struct aph_transport *transport)
{
	struct aph_remote *remote = of(transport);

	return !aph_list_empty(&remote->ports) && remote->ports.next == remote->ports.prev;
}

static void free_port(struct aph_remote_port *port);

static int wait_in_driver(struct aph_transport *transport, bool requests, uint64_t deadline_ns)
{
	struct aph_remote *remote = of(transport);
	struct aph_remote_port *port = port_at(remote->ports.next);
	int r;

	if (note_return(port) && catch_up(port))
		return 0;
	if (requests && deliver(port))
		return 0;
	port->waits = true;
	atomic_store(&remote->sleeper, port->udp);
	r = aph_rx_udp_wait(port->udp, deadline_ns);
	atomic_store(&remote->sleeper, NULL);
	port->waits = false;
	if (aph_remote_pump(port) && requests)
		(void)deliver(port);
	/* Another thread has closed its last service meanwhile. */
	if (!port->n_users && port->serves)
		free_port(port);
	return r == -ECANCELED ? 0 : r;
}

/*
 * Without the lock, and from signal handlers: whoever frees a port waits for those who are in here.
 */
static void interrupt(struct aph_transport *transport)
{
	struct aph_remote *remote = of(transport);
	struct aph_rx_udp *udp;

	(void)atomic_fetch_add(&remote->n_wakers, 1);
	udp = atomic_load(&remote->sleeper);
	if (udp)
		(void)aph_rx_udp_wake(udp);
	(void)atomic_fetch_sub(&remote->n_wakers, 1);
}

static void lock(void *arg)
{
	aph_endpoint_driver_woke(arg);
}

static void unlock(void *arg)
{
	aph_endpoint_driver_sleeps(arg);
}

/* -- ports ------------------------------------------------------------------------------------- */

static void socket_ready(struct aph_source *source, uint32_t events)
{
	const struct aph_remote_port *port = aph_container(source, struct aph_remote_port, source);

	/*
	 * It is read by the next poll; that an error is there no call may say, if another process
	 * has met it.
	 */
	if (port->udp)
		port->udp->errors_there = port->udp->errors_there || events & EPOLLERR;
}

static void queue_ready(struct aph_source *source, uint32_t events)
{
	/* It is read by the next poll. */
	(void)source;
	(void)events;
}

static struct aph_remote_port *find_port(struct aph_remote *remote,
					 const struct aph_rx_address *address)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &remote->ports) {
		struct aph_remote_port *port = port_at(pos);

		if (address ? port->serves && aph_rx_address_equal(&port->address, address)
			    : !port->serves)
			return port;
	}
	return NULL;
}

static void others_ready(struct aph_source *source, uint32_t events)
{
	const struct aph_remote_port *port = aph_container(source, struct aph_remote_port, others);

	(void)events;
	if (port->udp)
		aph_udp_port_look(port->udp->port, aph_time_ns());
}

static int watch_port(struct aph_remote_port *port)
{
	struct aph_endpoint *ep = port->remote->base.ep;
	int r;

	port->source.on_ready = socket_ready;
	port->queue.on_ready = queue_ready;
	r = aph_source_add(ep, port->udp->fd, &port->source, EPOLLIN);
	if (r < 0 || port->udp->member.fd < 0)
		return r;
	r = aph_source_add(ep, port->udp->member.fd, &port->queue, EPOLLIN);
	if (r == 0 && port->udp->port->epoll_fd >= 0) {
		port->others.on_ready = others_ready;
		r = aph_source_add(ep, port->udp->port->epoll_fd, &port->others, EPOLLIN);
		if (r < 0)
			aph_source_remove(ep, port->udp->member.fd);
	}
	if (r < 0)
		aph_source_remove(ep, port->udp->fd);
	return r;
}

static void unwatch_port(struct aph_remote_port *port)
{
	struct aph_endpoint *ep = port->remote->base.ep;

	aph_source_remove(ep, port->udp->fd);
	if (port->udp->member.fd >= 0)
		aph_source_remove(ep, port->udp->member.fd);
	if (port->udp->port && port->udp->port->epoll_fd >= 0)
		aph_source_remove(ep, port->udp->port->epoll_fd);
}

/* The address that was asked for, with the port that was got. */
static struct aph_rx_address served_address(const struct aph_remote_port *port,
					    struct aph_rx_address address)
{
	struct aph_rx_address local;

	(void)aph_rx_udp_address(port->udp, &local);
	if (address.family == AF_INET6)
		address.in6.sin6_port = aph_remote_port_of(&local);
	else
		address.in.sin_port = aph_remote_port_of(&local);
	return address;
}

static int open_port(struct aph_remote_port *port, const struct aph_rx_address *address)
{
	struct aph_endpoint *ep = port->remote->base.ep;
	struct aph_rx_config config = { .size = sizeof(config), .flags = APH_RX_BUSY_ENDS };
	struct aph_rx_udp_options options = {
		.size = sizeof(options),
		.spin_max_us = ep->spin_is_default ? 0
			       : ep->spin_max_us   ? ep->spin_max_us
						   : UINT32_MAX,
		.config = &config,
		.lock = lock,
		.unlock = unlock,
		.lock_arg = ep,
	};
	int r;

	aph_remote_trace(&config, port);
	if (address) {
		options.local = *address;
		options.flags = APH_RX_UDP_SHARE;
		port->serves = true;
	}
	/* Another process may have the port, and take its time to answer. */
	if (address)
		aph_unlock(ep);
	r = aph_rx_udp_open(&port->udp, &options);
	if (address)
		aph_lock(ep);
	if (r < 0)
		return r;
	if (address)
		port->address = served_address(port, *address);
	port->rx = aph_rx_udp_engine(port->udp);
	port->timer.expire = expire;
	r = aph_timers_reserve(&ep->timers);
	if (r == 0) {
		r = watch_port(port);
		if (r < 0)
			aph_timers_unreserve(&ep->timers);
	}
	if (r < 0)
		port->udp = aph_rx_udp_close(port->udp);
	return r;
}

static struct aph_remote *get_remote(struct aph_endpoint *ep);

int aph_remote_begin_opening(struct aph_endpoint *ep)
{
	struct aph_remote *remote = get_remote(ep);

	if (!remote)
		return aph_err(-ENOMEM, "no memory for a transport");
	aph_unlock(ep);
	(void)pthread_mutex_lock(&remote->opening);
	aph_lock(ep);
	return 0;
}

void aph_remote_end_opening(struct aph_endpoint *ep)
{
	(void)pthread_mutex_unlock(&of(ep->remote)->opening);
}

int aph_remote_port_get(struct aph_remote_port **out, struct aph_endpoint *ep,
			const struct aph_rx_address *address)
{
	struct aph_remote *remote = get_remote(ep);
	struct aph_remote_port *port;
	int r;

	if (!remote)
		return aph_err(-ENOMEM, "no memory for a transport");
	port = find_port(remote, address);
	if (!port) {
		port = calloc(1, sizeof(*port));
		if (!port)
			return aph_err(-ENOMEM, "no memory for a port");
		port->remote = remote;
		aph_list_init(&port->incoming);
		aph_list_init(&port->headless);
		r = open_port(port, address);
		if (r < 0) {
			free(port);
			return r;
		}
		aph_list_append(&remote->ports, &port->link);
		/* Whoever sleeps does not know of it. */
		aph_endpoint_changed(ep);
	}
	port->n_users++;
	*out = port;
	return 0;
}

static void free_port(struct aph_remote_port *port)
{
	struct aph_endpoint *ep = port->remote->base.ep;

	aph_remote_incoming_free(port);
	aph_list_remove(&port->link);
	aph_timers_stop(&ep->timers, &port->timer);
	aph_timers_unreserve(&ep->timers);
	if (!ep->forked)
		unwatch_port(port);
	while (!ep->forked && atomic_load(&port->remote->n_wakers))
		(void)sched_yield();
	/* A thread may be on its way back from epoll with a pointer to one of the sources. */
	port->udp = aph_rx_udp_close(port->udp);
	aph_bury(ep, &port->grave, port);
}

void aph_remote_port_put(struct aph_remote_port *port)
{
	/* The port for channels is kept for the next one: idle connections are worth something. */
	if (--port->n_users || !port->serves)
		return;
	if (port->waits)
		aph_endpoint_changed(
			port->remote->base.ep); /* the thread that sleeps there frees it */
	else
		free_port(port);
}

static void free_remote(struct aph_transport *transport)
{
	struct aph_remote *remote = of(transport);
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &remote->ports)
		free_port(port_at(pos));
	(void)pthread_mutex_destroy(&remote->opening);
	free(remote);
}

static void abandon(struct aph_transport *transport)
{
	struct aph_list *pos, *tmp;

	atomic_store(&of(transport)->sleeper, NULL);
	/* Closes descriptors only: what they had to say is the parent's to say. */
	aph_list_for_each(pos, tmp, &of(transport)->ports)
		aph_udp_socket_close(port_at(pos)->udp);
}

static const struct aph_transport_ops transport_ops = {
	.poll = poll_ports,
	.poll_beside = poll_beside,
	.sleep = sleep_in_epoll,
	.can_wait = can_wait,
	.wait = wait_in_driver,
	.interrupt = interrupt,
	.free = free_remote,
	.abandon = abandon,
};

static struct aph_remote *get_remote(struct aph_endpoint *ep)
{
	struct aph_remote *remote;

	if (ep->remote)
		return of(ep->remote);
	remote = calloc(1, sizeof(*remote));
	if (!remote)
		return NULL;
	remote->base.ops = &transport_ops;
	remote->base.ep = ep;
	aph_list_init(&remote->ports);
	(void)pthread_mutex_init(&remote->opening, NULL);
	ep->remote = &remote->base;
	return remote;
}
