/* SPDX-License-Identifier: MIT */
/*
 * Who has claimed what at a port. The owner's list is complete; another process has its own claims,
 * and asks the owner for each.
 */
#include "base/error.h"
#include "base/time.h"
#include "udp/link.h"
#include "udp/udp.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#define KNOWN_MAX (1u << 15) /* beyond that the owner tells of others in vain */

static struct aph_list *claims_of(struct aph_udp_port *port, uint32_t key)
{
	return &port->claims[key % APH_UDP_CLAIM_HEADS];
}

/* All claims at the port; the present one may be removed. `pos` is its link. */
#define for_each_claim(pos, tmp, port)                            \
	for (size_t head = 0; head < APH_UDP_CLAIM_HEADS; head++) \
		aph_list_for_each(pos, tmp, &(port)->claims[head])

static struct aph_udp_claim *claim_at(struct aph_list *pos)
{
	return aph_container(pos, struct aph_udp_claim, link);
}

struct aph_udp_claim *aph_udp_claim_find(struct aph_udp_port *port, bool is_epoch, uint32_t key)
{
	struct aph_list *head = claims_of(port, key), *pos;

	for (pos = head->next; pos != head; pos = pos->next) {
		struct aph_udp_claim *claim = claim_at(pos);

		if (claim->key == key && claim->is_epoch == is_epoch)
			return claim;
	}
	return NULL;
}

/* The owner tells everybody but whose it is. */
static void announce(const struct aph_udp_port *port, const struct aph_udp_link *to,
		     const struct aph_udp_claim *claim, enum aph_udp_whose whose)
{
	struct aph_udp_frame frame = {
		.kind = APH_UDP_KNOWN,
		.is_epoch = claim->is_epoch,
		.key = claim->key,
		.value = (int)whose,
	};

	for (size_t i = 0; i < APH_UDP_LINKS_MAX && !port->is_attached; i++)
		if (port->links[i].is_open && &port->links[i] != claim->peer &&
		    (!to || to == &port->links[i]))
			aph_udp_link_send(&port->links[i], &frame, NULL, 0);
}

static enum aph_udp_whose whose_is(const struct aph_udp_claim *claim)
{
	return claim->udp ? APH_UDP_OWNERS : APH_UDP_ANOTHERS;
}

int aph_udp_claim_add(struct aph_udp_port *port, bool is_epoch, uint32_t key,
		      struct aph_rx_udp *udp, struct aph_udp_link *peer)
{
	struct aph_udp_claim *claim = aph_udp_claim_find(port, is_epoch, key);

	if (claim && (claim->udp || claim->peer))
		return claim->udp == udp && claim->peer == peer ? 0 : -EADDRINUSE;
	if (!claim) {
		claim = calloc(1, sizeof(*claim));
		if (!claim)
			return -ENOMEM;
		claim->is_epoch = is_epoch;
		claim->key = key;
		aph_list_append(claims_of(port, key), &claim->link);
		port->n_claims++;
	}
	claim->udp = udp;
	claim->peer = peer;
	if (peer)
		peer->n_claims++;
	announce(port, NULL, claim, whose_is(claim));
	return 0;
}

void aph_udp_claim_remove(struct aph_udp_port *port, struct aph_udp_claim *claim)
{
	announce(port, NULL, claim, APH_UDP_NOBODYS);
	if (claim->peer)
		claim->peer->n_claims--;
	aph_list_remove(&claim->link);
	port->n_claims--;
	free(claim);
}

void aph_udp_claims_remove(struct aph_udp_port *port, const struct aph_rx_udp *udp,
			   const struct aph_udp_link *peer)
{
	struct aph_list *pos, *tmp;

	for_each_claim(pos, tmp, port) {
		struct aph_udp_claim *claim = claim_at(pos);

		if (claim->udp == udp && claim->peer == peer)
			aph_udp_claim_remove(port, claim);
	}
}

void aph_udp_claims_announce(struct aph_udp_port *port, const struct aph_udp_link *link)
{
	struct aph_list *pos, *tmp;

	for_each_claim(pos, tmp, port)
		announce(port, link, claim_at(pos), whose_is(claim_at(pos)));
}

void aph_udp_claim_know(struct aph_udp_port *port, bool is_epoch, uint32_t key, int whose)
{
	struct aph_udp_claim *claim = aph_udp_claim_find(port, is_epoch, key);

	if (claim && claim->udp)
		return;
	if (whose == APH_UDP_NOBODYS) {
		if (claim)
			aph_udp_claim_remove(port, claim);
		return;
	}
	if (!claim && port->n_claims >= KNOWN_MAX)
		return;
	if (aph_udp_claim_add(port, is_epoch, key, NULL, NULL) == 0)
		aph_udp_claim_find(port, is_epoch, key)->is_owners = whose == APH_UDP_OWNERS;
}

unsigned aph_udp_claims_count_epochs(struct aph_udp_port *port)
{
	struct aph_list *pos, *tmp;
	unsigned n = 0;

	for_each_claim(pos, tmp, port)
		n += claim_at(pos)->is_epoch;
	return n;
}

void aph_udp_claims_forget(struct aph_udp_port *port, bool owners_only)
{
	struct aph_list *pos, *tmp;

	for_each_claim(pos, tmp, port) {
		struct aph_udp_claim *claim = claim_at(pos);

		if (!claim->udp && !claim->peer && (claim->is_owners || !owners_only))
			aph_udp_claim_remove(port, claim);
	}
}

static void tell_owner(struct aph_udp_port *port, enum aph_udp_frame_kind kind,
		       const struct aph_udp_claim *claim)
{
	struct aph_udp_link *up = aph_udp_link_up(port);
	struct aph_udp_frame frame = {
		.kind = kind,
		.is_epoch = claim->is_epoch,
		.key = claim->key,
	};

	if (up)
		aph_udp_link_send(up, &frame, NULL, 0);
}

void aph_udp_claims_free(struct aph_udp_port *port)
{
	struct aph_list *pos, *tmp;

	for_each_claim(pos, tmp, port)
		free(claim_at(pos));
}

/* All of ours, or of one driver. */
static void tell_owner_all(struct aph_udp_port *port, enum aph_udp_frame_kind kind,
			   const struct aph_rx_udp *udp)
{
	struct aph_list *pos, *tmp;

	for_each_claim(pos, tmp, port) {
		const struct aph_udp_claim *claim = claim_at(pos);

		if (claim->udp && (!udp || claim->udp == udp))
			tell_owner(port, kind, claim);
	}
}

void aph_udp_claims_unsay(struct aph_udp_port *port, const struct aph_rx_udp *udp)
{
	tell_owner_all(port, APH_UDP_RELEASE, udp);
}

void aph_udp_claims_say(struct aph_udp_port *port)
{
	tell_owner_all(port, APH_UDP_CLAIM, NULL);
}

/* With the lock, which is given back while we wait. Its answer, or -ETIMEDOUT. */
static int ask_owner(struct aph_udp_port *port, bool is_epoch, uint32_t key)
{
	uint64_t until_ns = aph_time_ns() + APH_UDP_PATIENCE_NS;
	struct aph_udp_claim *claim;

	tell_owner(port, APH_UDP_CLAIM, aph_udp_claim_find(port, is_epoch, key));
	for (;;) {
		struct pollfd fds = { .fd = port->epoll_fd, .events = POLLIN };

		aph_udp_link_look(port, aph_time_ns());
		/* The claim is ours to remove, so it is there. */
		claim = aph_udp_claim_find(port, is_epoch, key);
		if (!claim->is_asked)
			return claim->refusal;
		/* With no owner we are about to be it, or to say it all to the next one. */
		if (!port->is_attached || aph_time_ns() > until_ns)
			break;
		(void)pthread_mutex_unlock(&port->lock);
		(void)poll(&fds, 1, 10);
		(void)pthread_mutex_lock(&port->lock);
	}
	claim->is_asked = false;
	if (!port->is_attached)
		return 0;
	/* It will find the question and that we do not ask any more, one behind the other. */
	tell_owner(port, APH_UDP_RELEASE, claim);
	return -ETIMEDOUT;
}

/* With the lock. */
static int claim_for(struct aph_rx_udp *udp, bool is_epoch, uint32_t key)
{
	struct aph_udp_port *port = udp->port;
	struct aph_udp_claim *claim = aph_udp_claim_find(port, is_epoch, key);
	bool was_known = claim != NULL;
	int r;

	/* What another thread of the same driver still asks for may be refused. */
	if (claim && claim->udp)
		return claim->udp == udp && !claim->is_asked ? 0 : -EADDRINUSE;
	r = aph_udp_claim_add(port, is_epoch, key, udp, NULL);
	if (r < 0 || !port->is_attached)
		return r;
	aph_udp_claim_find(port, is_epoch, key)->is_asked = true;
	r = ask_owner(port, is_epoch, key);
	if (r == 0)
		return 0;
	claim = aph_udp_claim_find(port, is_epoch, key);
	if (was_known)
		claim->udp = NULL; /* somebody else's, as before */
	else
		aph_udp_claim_remove(port, claim);
	return r;
}

int aph_udp_port_enter(struct aph_rx_udp *udp)
{
	struct aph_udp_port *port = udp->port;
	int r;

	(void)pthread_mutex_lock(&port->lock);
	r = claim_for(udp, true, aph_rx_epoch(udp->rx));
	if (r == 0) {
		aph_list_append(&port->members, &udp->member.link);
		aph_udp_port_changed(port);
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
	r = claim_for(udp, false, id);
	(void)pthread_mutex_unlock(&udp->port->lock);
	if (r == -EADDRINUSE)
		return aph_err(r, "service %u of this port is served already", id);
	if (r == -ETIMEDOUT)
		return aph_err(-EADDRINUSE, "the process that has the port does not answer");
	if (r == -ENOBUFS)
		return aph_err(r, "this process has as many services at the port as it may have");
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
		tell_owner(udp->port, APH_UDP_RELEASE, claim);
		aph_udp_claim_remove(udp->port, claim);
	}
	(void)pthread_mutex_unlock(&udp->port->lock);
}
