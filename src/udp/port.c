/* SPDX-License-Identifier: MIT */
/* Which ports there are, who is at them, and who has claimed what. See port.h. */
#include "udp/port.h"
#include "base/error.h"
#include "udp/udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of those who change the list */
static _Atomic(struct aph_udp_port *) ports;

/* -- ports ---------------------------------------------------------------------------------------------------- */

static bool is_same(const struct aph_rx_address *a, const struct aph_rx_address *b)
{
	if (a->family != b->family)
		return false;
	if (a->family == AF_INET)
		return a->in.sin_port == b->in.sin_port &&
		       a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
	return a->in6.sin6_port == b->in6.sin6_port &&
	       a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
	       memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
}

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
		if (port->fd >= 0 && is_same(&port->facts.local, &options->local) &&
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

static void port_free(struct aph_udp_port *port)
{
	if (port->fd >= 0)
		(void)close(port->fd);
	(void)pthread_mutex_destroy(&port->lock);
	free(port);
}

static int open_port(struct aph_rx_udp *udp, const struct aph_rx_udp_options *options)
{
	struct aph_udp_port *port = calloc(1, sizeof(*port));
	int r;

	if (!port)
		return aph_err(-ENOMEM, "no memory for a UDP port");
	(void)pthread_mutex_init(&port->lock, NULL);
	aph_list_init(&port->members);
	for (size_t i = 0; i < APH_UDP_CLAIM_HEADS; i++)
		aph_list_init(&port->claims[i]);
	port->fd = -1;
	port->is_v6only = options->flags & APH_RX_UDP_V6ONLY;
	r = aph_udp_socket_open(udp, options);
	if (r < 0) {
		port_free(port);
		return r;
	}
	port->facts = (struct aph_udp_facts){
		.is_v6 = udp->is_v6,
		.is_wildcard = udp->is_wildcard,
		.has_segment = udp->has_segment,
		.has_gro = udp->has_gro,
		.local = udp->local,
		.path = udp->path,
		.budget_max = udp->budget_max,
	};
	/* In a child it may be closed twice, but it is closed. */
	atomic_store(&port->next, atomic_load(&ports));
	atomic_store(&ports, port);
	atomic_store(&port->fd, udp->fd);
	udp->port = port;
	return 0;
}

/* What aph_udp_socket_open() would have found out. */
static int take_facts(struct aph_rx_udp *udp, struct aph_udp_port *port, uint32_t flags)
{
	const struct aph_udp_facts *facts = &port->facts;

	udp->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (udp->event_fd < 0)
		return aph_err(-errno, "cannot make an eventfd: %s", strerror(errno));
	udp->port = port;
	udp->fd = port->fd;
	udp->is_v6 = facts->is_v6;
	udp->is_wildcard = facts->is_wildcard;
	udp->has_segment = facts->has_segment && !(flags & APH_RX_UDP_NO_SEGMENT);
	udp->has_gro = facts->has_gro;
	udp->local = facts->local;
	udp->path = facts->path;
	udp->budget = udp->budget_max = facts->budget_max;
	return 0;
}

int aph_udp_port_join(struct aph_rx_udp *udp, const struct aph_rx_udp_options *options)
{
	struct aph_udp_port *port;
	int r;

	aph_list_init(&udp->member.link);
	udp->member.last = &udp->member.first;
	udp->member.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (udp->member.fd < 0)
		return aph_err(-errno, "cannot make an eventfd: %s", strerror(errno));
	(void)pthread_mutex_lock(&lock);
	port = find(options);
	r = port ? take_facts(udp, port, options->flags) : open_port(udp, options);
	/* Counted at once, so that it stays. */
	if (udp->port)
		udp->port->n_members++;
	(void)pthread_mutex_unlock(&lock);
	return r;
}

/* Under the port's lock: those who were there share what they have. */
static void changed(struct aph_udp_port *port)
{
	atomic_fetch_add(&port->generation, 1);
	atomic_store(&port->crowded, port->members.next->next != &port->members);
}

void aph_udp_port_leave(struct aph_rx_udp *udp)
{
	struct aph_udp_port *port = udp->port;
	struct aph_list *pos, *tmp;
	bool is_last;

	(void)pthread_mutex_lock(&lock);
	(void)pthread_mutex_lock(&port->lock);
	for (size_t i = 0; i < APH_UDP_CLAIM_HEADS; i++) {
		aph_list_for_each(pos, tmp, &port->claims[i]) {
			struct aph_udp_claim *claim =
				aph_container(pos, struct aph_udp_claim, link);

			if (claim->udp != udp)
				continue;
			aph_list_remove(&claim->link);
			free(claim);
		}
	}
	aph_list_remove(&udp->member.link);
	changed(port);
	is_last = --port->n_members == 0;
	if (is_last)
		forget(port);
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

	for (struct aph_udp_port *port = atomic_load(&ports); port;
	     port = atomic_load(&port->next)) {
		port->lock = fresh;
		if (port->keeps)
			continue;
		if (port->fd >= 0)
			(void)close(port->fd);
		port->fd = -1;
	}
	lock = fresh;
}

/* -- claims --------------------------------------------------------------------------------------------------- */

static struct aph_list *claims_of(struct aph_udp_port *port, uint32_t key)
{
	return &port->claims[key % APH_UDP_CLAIM_HEADS];
}

struct aph_udp_claim *aph_udp_claim_find(struct aph_udp_port *port, bool is_epoch, uint32_t key)
{
	struct aph_list *head = claims_of(port, key), *pos;

	for (pos = head->next; pos != head; pos = pos->next) {
		struct aph_udp_claim *claim = aph_container(pos, struct aph_udp_claim, link);

		if (claim->key == key && claim->is_epoch == is_epoch)
			return claim;
	}
	return NULL;
}

static int add_claim(struct aph_rx_udp *udp, bool is_epoch, uint32_t key)
{
	struct aph_udp_claim *claim = aph_udp_claim_find(udp->port, is_epoch, key);

	if (claim)
		return claim->udp == udp ? 0 : -EADDRINUSE;
	claim = calloc(1, sizeof(*claim));
	if (!claim)
		return -ENOMEM;
	claim->is_epoch = is_epoch;
	claim->key = key;
	claim->udp = udp;
	aph_list_append(claims_of(udp->port, key), &claim->link);
	return 0;
}

int aph_udp_port_enter(struct aph_rx_udp *udp)
{
	struct aph_udp_port *port = udp->port;
	int r;

	(void)pthread_mutex_lock(&port->lock);
	r = add_claim(udp, true, aph_rx_epoch(udp->rx));
	if (r == 0) {
		aph_list_append(&port->members, &udp->member.link);
		changed(port);
	}
	(void)pthread_mutex_unlock(&port->lock);
	return r == -EADDRINUSE ? -EEXIST : r;
}

int aph_rx_udp_claim(struct aph_rx_udp *udp, uint16_t id)
{
	int r = aph_udp_check(udp);

	if (r < 0 || !udp->port)
		return r;
	(void)pthread_mutex_lock(&udp->port->lock);
	r = add_claim(udp, false, id);
	(void)pthread_mutex_unlock(&udp->port->lock);
	if (r == -EADDRINUSE)
		return aph_err(r, "service %u of this port is served already", id);
	return r < 0 ? aph_err(r, "no memory to claim a service") : 0;
}

void aph_rx_udp_release(struct aph_rx_udp *udp, uint16_t id)
{
	struct aph_udp_claim *claim;

	if (udp->forked || !udp->port)
		return;
	(void)pthread_mutex_lock(&udp->port->lock);
	claim = aph_udp_claim_find(udp->port, false, id);
	if (claim && claim->udp == udp) {
		aph_list_remove(&claim->link);
		free(claim);
	}
	(void)pthread_mutex_unlock(&udp->port->lock);
}
