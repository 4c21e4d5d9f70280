/* SPDX-License-Identifier: MIT */
/* What the tests over rx: addresses share: a port on loopback that nobody has, for each service. */
#ifndef TESTS_INTEGRATION_REMOTE_REMOTE_H
#define TESTS_INTEGRATION_REMOTE_REMOTE_H

#include "suite.h"

#define REMOTE_SERVICE 147

/*
 * `rx:HOST:PORT/147` with a port that nobody has; IPv6 in turns. The text is good until the next
 * call.
 */
const char *remote_address(void);

/* The same host and port with another service. */
const char *remote_other(const char *address, unsigned service);

/*
 * Calls where nobody runs it: REFUSED, for that reason. A request that went out twice, as it may
 * where this machine is busy, is LOST in place of that; the next one need not be.
 */
void remote_expect_refused(struct aph_channel *channel, enum aph_reason reason);

/* Long enough for a thread that waits to fall asleep, and for a program to count as slow. */
void remote_nap(void);

#endif
