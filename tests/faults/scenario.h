/* SPDX-License-Identifier: MIT */
/*
 * What is done while something fails: whole lives of services, channels and calls in one thread, from
 * nothing to nothing. Each comes to an end whatever fails, and leaves nothing behind.
 */
#ifndef TESTS_FAULTS_SCENARIO_H
#define TESTS_FAULTS_SCENARIO_H

#include <stddef.h>

struct scenario {
	const char *name;
	/* 0 when all went well, or the first error that a function returned or a call ended with. */
	int (*run)(void);
};

extern const struct scenario scenarios[];
extern const size_t n_scenarios;

/* Checks that the last scenario has left nothing behind; call scenario_begin() once before. */
void scenario_begin(void);
void scenario_check(const char *what, unsigned n);

#endif
