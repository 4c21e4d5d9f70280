/* SPDX-License-Identifier: MIT */
/*
 * Ports that several drivers share: one socket, and for each datagram the driver it is for. Every
 * driver has an engine of its own; which one a packet belongs to is said by its header alone: a
 * packet of a client names the service, a packet of a server the epoch of the engine that calls. So
 * there is nothing to remember for each connection, and nothing that a peer could make us remember.
 *
 * Whoever receives sorts: it feeds its own engine, and queues for the others what is theirs. Users'
 * locks are never taken here; `lock` is held for moments, by anybody, and nothing is called under
 * it that takes another one.
 */
#ifndef ANTIPHON_UDP_PORT_H
#define ANTIPHON_UDP_PORT_H

#include "base/list.h"

#include <antiphon/rx.h>

#include <pthread.h>
#include <stdatomic.h>

struct aph_rx_udp;
struct aph_udp_port;

#define APH_UDP_CLAIM_HEADS 1024
#define APH_UDP_LINKS_MAX   32 /* other processes at a port of ours */

/* A connection to another process at the port, see link.h. */
struct aph_udp_link {
	_Atomic int fd; /* -1: the place is free */
	bool is_up;	/* it leads to the owner */
	bool is_open;	/* both ends have agreed */
	unsigned n_claims;
};

/*
 * Who receives. In memory that all processes at the port share: it is believed for moments, and no
 * more than that.
 */
struct aph_udp_hint {
	_Atomic uint64_t received_ns; /* when somebody received last */
	_Atomic uint32_t receiver;    /* the epoch of its engine */
};

/* Packets that are for one driver: of clients for a service, or of servers for an epoch. */
struct aph_udp_claim {
	struct aph_list link; /* in the port's */
	bool is_epoch;
	bool is_owners; /* of those of whom we only know: the owner's own */
	bool is_asked;	/* the owner has not answered yet */
	int refusal;	/* or has refused: a negative errno */
	uint32_t key;
	/*
	 * Whose: a driver of ours, or one at the other end of a connection. Neither: somebody
	 * else's, we know of it.
	 */
	struct aph_rx_udp *udp;
	struct aph_udp_link *peer;
};

/* What a socket is like: for drivers that come later. */
struct aph_udp_facts {
	bool is_v6, is_wildcard, has_segment, has_gro;
	struct aph_rx_address local;
	struct aph_rx_path path;
	struct sockaddr_storage self;
	socklen_t self_len;
	uint32_t budget_max;
};

struct aph_udp_port {
	_Atomic(struct aph_udp_port *) next; /* among all; see fork.c on how it is changed */
	pthread_mutex_t lock;
	bool is_opening; /* by another thread: it has no socket yet */
	bool is_v6only;
	bool keeps; /* in a child: a driver goes on there, and so does the port */
	_Atomic int fd;
	struct aph_udp_facts facts;
	struct aph_list members; /* drivers: the first one gets what nobody claims */
	unsigned n_members;
	struct aph_list claims[APH_UDP_CLAIM_HEADS];
	unsigned n_claims;
	_Atomic bool crowded;	     /* not all that arrives is for one driver */
	_Atomic unsigned generation; /* counts those who come and go */
	unsigned n_drivers;	     /* at the port, those of other processes too */
	_Atomic(struct aph_udp_hint *) hint;
	struct aph_udp_hint own_hint; /* as long as there is no other process */
	_Atomic int hint_fd;

	/* Other processes. */
	bool is_for_all;  /* users */
	bool is_attached; /* another process has opened the socket */
	_Atomic int listener, epoll_fd;
	/* owner: until then those of whom it only knows may come, 0: there are none. */
	uint64_t awaited_ns;
	_Atomic uint64_t looked_ns; /* when the two were looked at last */
	struct aph_udp_link links[APH_UDP_LINKS_MAX];
	uint8_t *arrived; /* what a message is read into */
};

/* A datagram, or a run, or an error, on its way from one driver to another. */
struct aph_udp_item;

/* A driver's part in a port. All but the atomics under the port's lock. */
struct aph_udp_member {
	struct aph_list link; /* in the port's members */
	struct aph_udp_item *first, **last;
	size_t queued_bytes;
	_Atomic bool queued;
	int fd;		     /* an eventfd: readable while something is queued */
	unsigned generation; /* of the port, as far as the budget goes */
	uint64_t fed_ns;     /* when something was for us last */
};

/* Opens or finds the port of options->local. */
int aph_udp_port_join(struct aph_rx_udp *udp, const struct aph_rx_udp_options *options);
/*
 * The engine is there: from now on it gets what is for it. -EEXIST: its epoch is taken; -ETIMEDOUT.
 */
int aph_udp_port_enter(struct aph_rx_udp *udp);
/*
 * The socket goes with the last one. `silently`: other processes are not told, as another copy of
 * us goes on.
 */
void aph_udp_port_leave(struct aph_rx_udp *udp, bool silently);
/* In a forked child: closes what is open, but for ports where a driver goes on. */
void aph_udp_ports_abandon(void);

/* Under the port's lock: those who were there share what they have. */
void aph_udp_port_changed(struct aph_udp_port *port);
/* Under the port's lock: what another process claims. 0, -EADDRINUSE, -ENOBUFS, -ENOMEM. */
int aph_udp_claim_add(struct aph_udp_port *port, bool is_epoch, uint32_t key,
		      struct aph_rx_udp *udp, struct aph_udp_link *peer);
void aph_udp_claim_remove(struct aph_udp_port *port, struct aph_udp_claim *claim);
/* Under the port's lock: all of a driver, or of another process. */
void aph_udp_claims_remove(struct aph_udp_port *port, const struct aph_rx_udp *udp,
			   const struct aph_udp_link *peer);
/* Under the port's lock: the owner says whose something is. */
void aph_udp_claim_know(struct aph_udp_port *port, bool is_epoch, uint32_t key, int whose);
/* Under the port's lock: all that is claimed, to a newcomer. */
void aph_udp_claims_announce(struct aph_udp_port *port, const struct aph_udp_link *link);
/* Under the port's lock: how many engines there are, ours and others'. */
unsigned aph_udp_claims_count_epochs(struct aph_udp_port *port);
/* Under the port's lock: forgets those of whom it only knows; all, or the former owner's. */
void aph_udp_claims_forget(struct aph_udp_port *port, bool owners_only);
/* Under the port's lock: gives back to the owner what a driver has claimed. */
void aph_udp_claims_unsay(struct aph_udp_port *port, const struct aph_rx_udp *udp);
/* When the port is closed: those of others. */
void aph_udp_claims_free(struct aph_udp_port *port);
/* Under the port's lock: says all that we claim to the owner, who is another one. */
void aph_udp_claims_say(struct aph_udp_port *port);
/* Looks whether other processes have come, gone or sent something. Takes the port's lock. */
void aph_udp_port_look(struct aph_udp_port *port, uint64_t now_ns);
/* Under the port's lock. NULL: nobody has claimed it. */
struct aph_udp_claim *aph_udp_claim_find(struct aph_udp_port *port, bool is_epoch, uint32_t key);

/* -- sort.c ------------------------------------------------------------------------------------ */

/* Under the port's lock: a message of another process, to whoever it is for. */
struct aph_udp_frame;
void aph_udp_sort_frame(struct aph_udp_port *port, const struct aph_udp_link *from,
			const struct aph_udp_frame *frame, const uint8_t *bytes, size_t len);
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
