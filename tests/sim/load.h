/* SPDX-License-Identifier: MIT */
/*
 * Programs that make and answer calls, and watch over the contract: a request is executed at most
 * once, every call ends exactly once on each side with nothing after it, bodies arrive as they were
 * sent, and DONE means what the header says. What a call does at both ends is decided when it
 * begins, by chance.
 */
#ifndef TESTS_SIM_LOAD_H
#define TESTS_SIM_LOAD_H

#include "host.h"

#define LOAD_HOSTS_MAX	  8
#define LOAD_SERVICES_MAX 6
#define LOAD_OUTCOMES	  8

/* Probabilities are out of a million calls. */
struct load_options {
	uint32_t request_max, reply_max; /* bytes; sizes are skewed towards small ones */
	uint32_t chunk_max;		 /* of a read or a write */
	uint32_t at_once;		 /* calls in progress in all */
	uint32_t pause_max_us;		 /* between the end of one and the next one's beginning */
	uint32_t slow_reader, slow_service;
	uint32_t client_aborts, client_frees, service_aborts, service_frees;
	uint32_t exclusive, upgrade, no_wait;
	uint32_t pushes; /* of writes that are not the last */
	uint32_t deadlines;
	uint32_t connections_max; /* of a client; 0: the engine's default */
	uint32_t credit;	  /* of each service, renewed now and then; 0: no limit */
	uint16_t n_services;	  /* numbers 1 to n; 0: 1 */
	bool upgrades;		  /* service 1 has an upgrade to 2 */
	bool forged;		  /* damaged packets come in: nothing can be said of bodies */
	bool may_move;		  /* a client's address changes */
};

struct load;
struct load_call;
struct load_work;

struct load_host {
	struct load *load;
	struct host *host;
	bool is_client, is_server;
	struct aph_rx_client *clients[LOAD_HOSTS_MAX][LOAD_SERVICES_MAX];
	struct aph_rx_service *services[LOAD_SERVICES_MAX];
	struct aph_rx_service *upgraded;
	struct load_work *works; /* calls at its services */
	unsigned n_works;
};

struct load {
	struct world *world;
	struct load_options options;
	struct load_host hosts[LOAD_HOSTS_MAX];
	unsigned n_hosts;
	struct load_call **calls; /* all that were begun */
	size_t n_calls, room_calls;
	struct load_call *unnamed; /* begun, and their numbers are not known yet */
	struct load_call **by_number;
	size_t n_by_number, room_by_number;
	struct load_work *free_works;
	unsigned n_open;
	size_t calls_max; /* to begin */
	bool stopped;	  /* no new ones */
	bool renews;	  /* credit is given again from time to time */
	uint64_t last_end;
	/* Results. */
	uint64_t n_outcomes[LOAD_OUTCOMES]; /* at clients, by enum aph_rx_outcome */
	uint64_t n_service_outcomes[LOAD_OUTCOMES];
	uint64_t n_executed, n_lost_in_restarts, n_bytes, n_calm_failed;
	uint64_t n_dead_unheard; /* ended by a time-out of a service that had let go of them */
};

void load_init(struct load *load, struct world *world, const struct load_options *options);
void load_deinit(struct load *load);
void load_add(struct load *load, struct host *host, bool is_client, bool is_server);
/* Begins calls until `calls_max` of them have begun. */
void load_begin(struct load *load, size_t calls_max);
/* The host is about to be stopped: what goes on there is over. */
void load_forget(struct load *load, struct host *host);
/* Waits until all calls have ended; fails after `limit_ns`. */
void load_drain(struct load *load, uint64_t limit_ns);
/*
 * Frees clients and removes services, waits a while, and checks that the engines hold nothing any
 * more.
 */
void load_close(struct load *load);

/* Bytes that say where they belong. */
void load_pattern(void *out, size_t len, uint32_t id, uint64_t at);
bool load_pattern_is(const void *bytes, size_t len, uint32_t id, uint64_t at);

#endif
