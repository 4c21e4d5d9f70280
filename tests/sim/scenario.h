/* SPDX-License-Identifier: MIT */
/* A scenario builds a world from its seed, runs it and checks it. */
#ifndef TESTS_SIM_SCENARIO_H
#define TESTS_SIM_SCENARIO_H

#include "load.h"
#include "world.h"

struct scenario {
	const char *name;
	const char *what;
	void (*run)(struct world *world);
	bool slow; /* not among those that run with every seed */
};

/* What a run came to; printed by the program. */
struct tally {
	uint64_t n_calls, n_done, n_executed, n_datagrams;
	uint64_t n_outcomes[LOAD_OUTCOMES];
	double virtual_seconds;
	double goodput; /* of the performance scenarios: part of the link's rate */
};

extern struct tally tally;

extern const struct scenario scenarios[];
extern const unsigned n_scenarios;

void tally_load(const struct load *load);

/* perf.c */
void scenario_link_full(struct world *world);
void scenario_link_quarter(struct world *world);
void scenario_link_loss(struct world *world);
/* scenario_stock.c */
void scenario_stock_server(struct world *world);
void scenario_stock_client(struct world *world);
/* scenario_flood.c */
void scenario_flood(struct world *world);

#endif
