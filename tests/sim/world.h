/* SPDX-License-Identifier: MIT */
/*
 * A world in one thread: virtual time, nodes that have an address, and links between them that
 * delay, lose, repeat, reorder, damage and refuse datagrams. Everything that happens is drawn from
 * one seed, so that a run can be had again; its hash says whether it was the same one.
 *
 * What arrives at a node at one moment is delivered in one batch, as a socket would give it.
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "check.h"

#include <antiphon/rx.h>

#include <stdio.h>

#define WORLD_NODES_MAX 24
#define MILLION		1000000u
#define US		UINT64_C(1000)
#define MS		UINT64_C(1000000)
#define SECOND		UINT64_C(1000000000)

struct world;
struct node;

/* Whether a datagram may be fragmented. */
enum fragments {
	FRAGMENTS_HERE, /* by our own kernel, if it knows that it has to; nobody on the way */
	FRAGMENTS_MAY,	/* by anybody */
	FRAGMENTS_NEVER,
};

struct packet {
	struct aph_rx_address from, to;
	struct node *dest;
	uint32_t len, room;
	enum fragments fragments;
	bool corrupted; /* and the receiver's UDP checksum does not see it */
	struct packet *next_free;
	uint8_t data[];
};

enum mtu_mode {
	MTU_FRAGMENT,  /* our own kernel knows; what it may not fragment is refused */
	MTU_EMSGSIZE,  /* the sender's own kernel refuses, and says the size */
	MTU_ICMP,      /* a router says so, a while later */
	MTU_BLACKHOLE, /* nobody says anything */
};

/* What a link does; each probability is out of a million. */
struct rule {
	uint64_t rate; /* bit/s; 0: no limit */
	uint64_t delay_ns, jitter_ns;
	uint32_t queue; /* bytes that wait for the link; 0: no limit */
	uint32_t loss, duplicate, reorder, corrupt, truncate;
	uint32_t burst_begin,
		burst_end; /* of a time when everything is lost; burst_begin 0: none */
	uint64_t mask;	   /* of the first 64 datagrams, those that are lost */
	uint32_t mtu;	   /* UDP payload; 0: no limit */
	enum mtu_mode mtu_mode;
	bool no_checksum; /* damaged datagrams reach the node */
};

struct link {
	struct rule rule;
	uint64_t busy_until, last_arrival;
	uint64_t n_sent, n_lost, n_overflowed, n_bytes;
	uint32_t largest; /* of those that passed */
	bool in_burst;
};

/* A place that datagrams come from and go to. The functions belong to its kind. */
struct node {
	struct world *world;
	const char *name;
	unsigned index;
	struct aph_rx_address address;
	bool everywhere; /* has every address that nobody else has */
	void (*deliver)(struct node *node, struct packet **packets, size_t n);
	void (*timer)(struct node *node);
	/*
	 * The network, or our kernel if `local`, says `error` to a datagram of the node. May be
	 * NULL.
	 */
	void (*refused)(struct node *node, const struct packet *packet, int error, uint32_t mtu,
			bool local);
	uint64_t timer_at, timer_queued;
};

enum verdict {
	PASS,
	DROP,
};

struct world_event {
	uint64_t at, order;
	enum {
		EVENT_PACKET,
		EVENT_TIMER,
		EVENT_REFUSED,
		EVENT_CALL
	} kind;
	uint32_t mtu;
	union {
		struct packet *packet;
		struct node *node;
		void (*function)(void *arg);
	};
	void *arg;
};

struct world {
	uint64_t now, order;
	uint64_t seed;
	const char *scenario; /* for what a failure prints */
	struct rng rng;
	uint64_t hash;
	uint64_t n_datagrams;
	FILE *trace; /* NULL: none */
	struct node *nodes[WORLD_NODES_MAX];
	unsigned n_nodes;
	struct link links[WORLD_NODES_MAX][WORLD_NODES_MAX];
	struct world_event *heap;
	size_t n_heap, room_heap;
	struct packet *free_packets;
	/* An adversary on all links: may change a datagram, and send more with world_inject(). */
	enum verdict (*meddle)(void *arg, struct packet *packet);
	void *meddle_arg;
};

void world_init(struct world *world, uint64_t seed);
void world_deinit(struct world *world);

void world_add(struct world *world, struct node *node, const char *name);
/* The same rule for each pair of nodes, both ways. */
void world_rule(struct world *world, const struct rule *rule);
struct link *world_link(struct world *world, const struct node *from, const struct node *to);

/* Runs what is due until `until`, and then it is that time. */
void world_run(struct world *world, uint64_t until);
/* The node that has this address, or NULL. */
struct node *world_find(struct world *world, const struct aph_rx_address *address);
/* Calls `function` at that time. */
void world_at(struct world *world, uint64_t at, void (*function)(void *arg), void *arg);
/* The node's timer() is called at that time, or earlier; UINT64_MAX: never. */
void world_set_timer(struct node *node, uint64_t at);

/* Sends one datagram from the node. */
void world_send(struct node *node, const struct aph_rx_address *from,
		const struct aph_rx_address *to, const void *data, size_t len,
		enum fragments fragments);
/* Delivers one after `delay_ns`, whatever the links are like. */
void world_inject(struct world *world, const struct packet *packet, uint64_t delay_ns);

/* Adds to the hash of the run. */
void world_note(struct world *world, uint64_t value);
/* Says what is wrong and how to have the run again, and ends the process. */
_Noreturn void world_fail(struct world *world, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void world_say(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool world_chance(struct world *world, uint32_t per_million);
/* 0 to n - 1, and small numbers much more often. */
uint64_t world_skewed(struct world *world, uint64_t n);

/* Addresses: 10.0.0.N or fd00::N. */
struct aph_rx_address address_v4(uint32_t host, uint16_t port);
struct aph_rx_address address_v6(uint32_t host, uint16_t port);
bool address_equal(const struct aph_rx_address *a, const struct aph_rx_address *b);

#endif
