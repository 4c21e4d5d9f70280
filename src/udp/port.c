/* SPDX-License-Identifier: MIT */
/* Which ports there are, and who is at them. See port.h. */
#include "udp/port.h"
#include "base/error.h"
#include "udp/link.h"
#include "udp/udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REFUSED_MAX 20 /* in a row, 10 ms apart: on a busy machine it takes a while to take over */
#define LEFT_MAX    100

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of those who change the list */
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER; /* or given up: a port in the list */
static _Atomic(struct aph_udp_port *) ports;

/* -- ports ------------------------------------------------------------------------------------- */

static bool has_number(const struct aph_rx_address *a)
{
	return a->family != AF_UNSPEC && (a->family == AF_INET ? a->in.sin_port : a->in6.sin6_port);
}

static struct aph_udp_port *find(const struct aph_rx_udp_options *options)
{
	bool is_v6only = options->flags & APH_RX_UDP_V6ONLY;

	if (!has_number(&options->local))
		return NULL;
	for (struct aph_udp_port *port = atomic_load(&ports); port; port = atomic_load(&port->next))
		/* Those without a socket are of the process that this one was forked from. */
		if ((port->fd >= 0 || port->is_opening) &&
		    aph_rx_address_equal(&port->facts.local, &options->local) &&
		    port->is_v6only == is_v6only)
			return port;
	return NULL;
}

static void forget(struct aph_udp_port *port)
{
	_Atomic(struct aph_udp_port *) *link = &ports;

	while (atomic_load(link) != port)
		link = &atomic_load(link)->next;
	atomic_store(link, atomic_load(&port->next));
}

static void close_all(struct aph_udp_port *port)
{
	aph_udp_links_close(port);
	if (port->fd >= 0)
		(void)close(port->fd);
	port->fd = -1;
}

static void port_free(struct aph_udp_port *port)
{
	close_all(port);
	aph_udp_hint_close(port);
	aph_udp_claims_free(port);
	(void)pthread_mutex_destroy(&port->lock);
	free(port);
}

static struct aph_udp_port *new_port(uint32_t flags)
{
	struct aph_udp_port *port = calloc(1, sizeof(*port));

	if (!port)
		return NULL;
	(void)pthread_mutex_init(&port->lock, NULL);
	aph_list_init(&port->members);
	for (size_t i = 0; i < APH_UDP_CLAIM_HEADS; i++)
		aph_list_init(&port->claims[i]);
	for (size_t i = 0; i < APH_UDP_LINKS_MAX; i++)
		port->links[i].fd = -1;
	port->fd = port->listener = port->epoll_fd = port->hint_fd = -1;
	port->hint = &port->own_hint;
	port->is_v6only = flags & APH_RX_UDP_V6ONLY;
	port->is_for_all = flags & APH_RX_UDP_SHARE_ALL;
	return port;
}

/*
 * Between the driver that has opened or examined a socket and the port: what later ones need not
 * find out.
 */
static void note_facts(struct aph_udp_port *port, const struct aph_rx_udp *udp)
{
	port->facts = (struct aph_udp_facts){
		.is_v6 = udp->is_v6,
		.is_wildcard = udp->is_wildcard,
		.has_segment = udp->has_segment,
		.has_gro = udp->has_gro,
		.local = udp->local,
		.path = udp->path,
		.self_len = udp->self_len,
		.budget_max = udp->budget_max,
	};
	memcpy(&port->facts.self, &udp->self, sizeof(udp->self));
}

static void use_facts(struct aph_rx_udp *udp, const struct aph_udp_facts *facts, uint32_t flags)
{
	udp->is_v6 = facts->is_v6;
	udp->is_wildcard = facts->is_wildcard;
	udp->has_segment = facts->has_segment && !(flags & APH_RX_UDP_NO_SEGMENT);
	udp->has_gro = facts->has_gro;
	udp->local = facts->local;
	udp->path = facts->path;
	memcpy(&udp->self, &facts->self, sizeof(udp->self));
	udp->self_len = facts->self_len;
	udp->budget = udp->budget_max = facts->budget_max;
}

/* The socket is in another process, which has let us in. */
static int learn_port(struct aph_udp_port *port, struct aph_rx_udp *udp,
		      const struct aph_rx_udp_options *options)
{
	int r;

	udp->fd = port->fd;
	udp->is_v6 = options->local.family == AF_INET6;
	udp->has_segment = port->facts.has_segment;
	udp->has_gro = port->facts.has_gro;
	udp->budget_max = port->facts.budget_max;
	r = aph_udp_socket_learn(udp, port->is_v6only);
	udp->fd = -1;
	return r;
}

/*
 * Opens the socket, or gets it from the process that has it. Who has just bound the port and does
 * not listen yet, or takes it over from one that is gone, will be there in a moment; and one that
 * has let us in may go at the same time.
 */
static int open_or_attach(struct aph_udp_port *port, struct aph_rx_udp *udp,
			  const struct aph_rx_udp_options *options)
{
	const struct timespec nap = { .tv_nsec = 10000000 };
	unsigned n_refused = 0, n_left = 0;
	int r;

	for (;;) {
		r = aph_udp_socket_open(udp, options);
		if (r != -EADDRINUSE || !has_number(&options->local))
			return r;
		r = aph_udp_attach(port, &options->local);
		if (r == 0)
			return learn_port(port, udp, options);
		if (r == -ECONNRESET || r == -EPIPE) {
			n_refused = 0;
			n_left++;
		} else if (r == -ECONNREFUSED || r == -EAGAIN) {
			n_refused++;
		} else {
			break;
		}
		if (n_refused == REFUSED_MAX || n_left == LEFT_MAX)
			break;
		if (n_refused)
			(void)nanosleep(&nap, NULL);
	}
	return aph_udp_attach_error(r);
}

/*
 * With the lock, which is given back meanwhile: another process may take its time to answer, and
 * only those wait for it who want the same port.
 */
static int open_port(struct aph_rx_udp *udp, const struct aph_rx_udp_options *options)
{
	struct aph_udp_port *port = new_port(options->flags);
	int r;

	if (!port)
		return aph_err(-ENOMEM, "no memory for a UDP port");
	port->facts.local = options->local;
	port->is_opening = true;
	/* In a child it may be closed twice, but it is closed. */
	atomic_store(&port->next, atomic_load(&ports));
	atomic_store(&ports, port);
	(void)pthread_mutex_unlock(&lock);
	r = open_or_attach(port, udp, options);
	(void)pthread_mutex_lock(&lock);
	port->is_opening = false;
	(void)pthread_cond_broadcast(&opened);
	if (r < 0) {
		forget(port);
		port_free(port);
		return r;
	}
	note_facts(port, udp);
	if (!port->is_attached) {
		/* Without it others of this process may come all the same. */
		(void)aph_udp_listen(port);
		atomic_store(&port->fd, udp->fd);
	}
	udp->port = port;
	return 0;
}

/* What aph_udp_socket_open() would have done. */
static int enter_opened(struct aph_rx_udp *udp, struct aph_udp_port *port, uint32_t flags)
{
	int r = aph_udp_need_eventfd(&udp->event_fd);

	if (r < 0)
		return r;
	udp->port = port;
	udp->fd = port->fd;
	use_facts(udp, &port->facts, flags);
	return 0;
}

int aph_udp_port_join(struct aph_rx_udp *udp, const struct aph_rx_udp_options *options)
{
	struct aph_udp_port *port;
	int r;

	aph_list_init(&udp->member.link);
	udp->member.last = &udp->member.first;
	r = aph_udp_need_eventfd(&udp->member.fd);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&lock);
	while ((port = find(options)) && port->is_opening)
		(void)pthread_cond_wait(&opened, &lock);
	r = port ? 0 : open_port(udp, options);
	port = port ? port : udp->port;
	if (r == 0)
		r = enter_opened(udp, port, options->flags);
	/* Counted at once, so that it stays. */
	if (udp->port)
		udp->port->n_members++;
	(void)pthread_mutex_unlock(&lock);
	return r;
}

void aph_udp_port_changed(struct aph_udp_port *port)
{
	struct aph_udp_frame frame = { .kind = APH_UDP_COUNT };
	/* Those who are awaited have not gone. */
	bool crowded = port->is_attached || port->awaited_ns ||
		       port->members.next->next != &port->members;

	if (!port->is_attached)
		port->n_drivers = aph_udp_claims_count_epochs(port); /* each has one */
	frame.count = port->n_drivers;
	for (size_t i = 0; i < APH_UDP_LINKS_MAX; i++) {
		if (port->links[i].fd < 0 || !port->links[i].is_open)
			continue;
		crowded = true;
		if (!port->is_attached)
			aph_udp_link_send(&port->links[i], &frame, NULL, 0);
	}
	(void)atomic_fetch_add(&port->generation, 1);
	atomic_store(&port->crowded, crowded);
}

void aph_udp_port_look(struct aph_udp_port *port, uint64_t now_ns)
{
	atomic_store_explicit(&port->looked_ns, now_ns, memory_order_relaxed);
	(void)pthread_mutex_lock(&port->lock);
	aph_udp_link_look(port, now_ns);
	(void)pthread_mutex_unlock(&port->lock);
}

void aph_udp_port_leave(struct aph_rx_udp *udp, bool silently)
{
	struct aph_udp_port *port = udp->port;
	bool is_last;

	(void)pthread_mutex_lock(&lock);
	(void)pthread_mutex_lock(&port->lock);
	if (!silently)
		aph_udp_claims_unsay(port, udp);
	aph_udp_claims_remove(port, udp, NULL);
	aph_list_remove(&udp->member.link);
	/* Those of the parent process do not count in a child. */
	port->n_members -= !udp->forked;
	is_last = port->n_members == 0;
	if (is_last)
		forget(port);
	else
		aph_udp_port_changed(port);
	(void)pthread_mutex_unlock(&port->lock);
	(void)pthread_mutex_unlock(&lock);
	udp->port = NULL;
	udp->fd = -1;
	if (is_last)
		port_free(port);
}

void aph_udp_ports_abandon(void)
{
	static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
	static const pthread_cond_t fresh_cond = PTHREAD_COND_INITIALIZER;

	for (struct aph_udp_port *port = atomic_load(&ports); port;
	     port = atomic_load(&port->next)) {
		port->lock = fresh;
		port->is_opening = false;
		if (port->keeps)
			continue;
		close_all(port);
		if (port->hint_fd >= 0)
			(void)close(port->hint_fd);
		port->hint_fd = -1;
	}
	lock = fresh;
	opened = fresh_cond;
}
