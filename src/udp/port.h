/* SPDX-License-Identifier: MIT */
/*
 * Ports that several drivers share: one socket, and for each datagram the driver it is for. Every driver has an
 * engine of its own; which one a packet belongs to is said by its header alone: a packet of a client names the
 * service, a packet of a server the epoch of the engine that calls. So there is nothing to remember for each
 * connection, and nothing that a peer could make us remember.
 *
 * Whoever receives sorts: it feeds its own engine, and queues for the others what is theirs. Users' locks are never
 * taken here; `lock` is held for moments, by anybody, and nothing is called under it that takes another one.
 */
#ifndef ANTIPHON_UDP_PORT_H
#define ANTIPHON_UDP_PORT_H

#include "base/list.h"

#include <antiphon/rx.h>

#include <pthread.h>
#include <stdatomic.h>

struct aph_rx_udp;
struct aph_udp_port;

#define APH_UDP_CLAIM_HEADS 64

/* Packets that are for one driver: of clients for a service, or of servers for an epoch. */
struct aph_udp_claim {
	struct aph_list link; /* in the port's */
	bool is_epoch;
	uint32_t key;
	struct aph_rx_udp *udp;
};

/* What a socket is like: for drivers that come later. */
struct aph_udp_facts {
	bool is_v6, is_wildcard, has_segment, has_gro;
	struct aph_rx_address local;
	struct aph_rx_path path;
	uint32_t budget_max;
};

struct aph_udp_port {
	_Atomic(struct aph_udp_port *) next; /* among all; see fork.c on how it is changed */
	pthread_mutex_t lock;
	bool is_v6only;
	bool keeps; /* in a child: a driver goes on there, and so does the port */
	_Atomic int fd;
	struct aph_udp_facts facts;
	struct aph_list members; /* drivers: the first one gets what nobody claims */
	unsigned n_members;
	struct aph_list claims[APH_UDP_CLAIM_HEADS];
	_Atomic bool crowded;	      /* not all that arrives is for one driver */
	_Atomic unsigned generation;  /* counts those who come and go */
	_Atomic uint64_t received_ns; /* when somebody received last, and who */
	_Atomic(struct aph_rx_udp *) receiver;
};

/* A datagram, or a run, or an error, on its way from one driver to another. */
struct aph_udp_item;

/* A driver's part in a port. All but the atomics under the port's lock. */
struct aph_udp_member {
	struct aph_list link; /* in the port's members */
	struct aph_udp_item *first, **last;
	size_t queued_bytes;
	uint64_t n_dropped; /* that found no room */
	_Atomic bool queued;
	int fd;		     /* an eventfd: readable while something is queued */
	unsigned generation; /* of the port, as far as the budget goes */
	uint64_t fed_ns;     /* when something was for us last */
};

/* Opens or finds the port of options->local. */
int aph_udp_port_join(struct aph_rx_udp *udp, const struct aph_rx_udp_options *options);
/* The engine is there: from now on it gets what is for it. -EEXIST: its epoch is taken. */
int aph_udp_port_enter(struct aph_rx_udp *udp);
/* The socket goes with the last one. */
void aph_udp_port_leave(struct aph_rx_udp *udp);
/* Packets of clients for a service. 0, -EADDRINUSE, -ENOMEM. */
int aph_udp_port_claim(struct aph_rx_udp *udp, uint16_t id);
void aph_udp_port_release(struct aph_rx_udp *udp, uint16_t id);
/* In a forked child: closes what is open, but for ports where a driver goes on. */
void aph_udp_ports_abandon(void);

/* Under the port's lock. NULL: nobody has claimed it. */
struct aph_udp_claim *aph_udp_claim_find(struct aph_udp_port *port, bool is_epoch, uint32_t key);

/* -- sort.c ---------------------------------------------------------------------------------------------------- */

/* What was queued and nobody took. */
void aph_udp_queue_free(struct aph_rx_udp *udp);
/* Under the user's lock: takes over what others have queued, and what has changed at the port. */
void aph_udp_port_turn(struct aph_rx_udp *udp, uint64_t now_ns);
/* What was received, to those whom it is for. */
void aph_udp_port_sort(struct aph_rx_udp *udp, const struct aph_rx_path *path, const uint8_t *data,
		       size_t len, size_t segment, struct aph_rx_buffer *buffer, uint64_t now_ns);
/* What the network says about a packet that one of them has sent. */
void aph_udp_port_sort_error(struct aph_rx_udp *udp, const struct aph_rx_path *path, int error,
			     uint32_t mtu, const uint8_t *quote, size_t quote_len, uint64_t now_ns);
/* Whether somebody else is at it, so that we need not wake up for each of their datagrams. */
bool aph_udp_port_is_attended(const struct aph_rx_udp *udp, uint64_t now_ns);

#endif
