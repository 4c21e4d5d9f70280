/* SPDX-License-Identifier: MIT */
/*
 * A node that runs the engine: it feeds datagrams, time and randomness in and takes them out, as
 * the UDP driver does, and counts the memory. Restarting one is freeing its engine with all that
 * goes on in it.
 */
#ifndef TESTS_SIM_HOST_H
#define TESTS_SIM_HOST_H

#include "watch.h"
#include "world.h"

struct host {
	struct node node;
	struct aph_rx *rx;
	struct aph_rx_config config; /* for the next start; alloc, free and random are filled in */
	unsigned incarnation;
	struct watch watch;

	struct rng random; /* the engine's */
	uint64_t clock_ahead_ns;
	uint64_t slack_ns; /* timers fire up to so much late */
	bool no_gro;	   /* each datagram alone */
	uint32_t cuts;	   /* of a million times, a run is cut after a datagram */
	bool copies;	   /* no buffers: the engine copies what it keeps */
	struct aph_rx_buffer *buffer;

	size_t memory, memory_peak, n_blocks;
	uint32_t alloc_fails; /* per million */
	uint64_t n_alloc_failed;

	/* What the programs on it do; may call anything of the engine but what feeds it. */
	void (*on_event)(struct host *host, const struct aph_rx_event *event);
	/* After a start: services and clients can be made. */
	void (*on_start)(struct host *host);
	void *user;

	bool busy;
	uint64_t last_tick;
	unsigned n_ticks_then;
};

void host_init(struct host *host, struct world *world, const char *name,
	       const struct aph_rx_address *address);
/* Makes the engine, and what on_start() makes. */
void host_start(struct host *host);
/* Frees the engine, and checks that nothing is left. */
void host_stop(struct host *host);
uint64_t host_now(const struct host *host);
/* After anything was done to the engine: events, datagrams and the timer. */
void host_pump(struct host *host);
/* The path to an address. */
struct aph_rx_path host_path(const struct aph_rx_address *to);

#endif
