/* SPDX-License-Identifier: MIT */
/*
 * The kind of address that the cases of this directory run over: one of this host, or `rx:` on
 * loopback.
 */
#ifndef TESTS_INTEGRATION_CALLS_SCHEME_H
#define TESTS_INTEGRATION_CALLS_SCHEME_H

#include "suite.h"

/* The program's argument says which: `local` or `rx`. */
void scheme_choose(int argc, char **argv);

bool scheme_is_remote(void);

/* One that nobody serves. The text is good until the next call. */
const char *scheme_address(void);

#endif
