/* SPDX-License-Identifier: MIT */
/*
 * What is done while something fails: whole lives of services, channels and calls in one thread,
 * from nothing to nothing. Each comes to an end whatever fails, and leaves nothing behind.
 */
#ifndef TESTS_FAULTS_SCENARIO_H
#define TESTS_FAULTS_SCENARIO_H

#include "fault.h"

#include <stdbool.h>
#include <stddef.h>

struct scenario {
	const char *name;
	/*
	 * 0 when all went well, or the first error that a function returned or a call ended with.
	 */
	int (*run)(void);
};

extern const struct scenario scenarios[];
extern const size_t n_scenarios;

/* Runs it with the patience that it takes where nothing fails. */
int scenario_run(const struct scenario *scenario);

/* Runs it with call `n` of this site failing; `hit` says whether it came to that. */
int scenario_run_with(const struct scenario *scenario, enum fault_site site, unsigned n, int error,
		      bool *hit);

/* Checks that the last scenario has left nothing behind; call scenario_begin() once before. */
void scenario_begin(void);
void scenario_check(const char *what, unsigned n);

#endif
