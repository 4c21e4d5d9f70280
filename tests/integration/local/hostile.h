/* SPDX-License-Identifier: MIT */
/*
 * A service under attack and an honest client beside it: what the tests of hostile clients share.
 * The honest client must be answered correctly and at once, before, during and after; the service
 * must end cleanly when it is asked to, with nothing left open.
 */
#ifndef TESTS_INTEGRATION_LOCAL_HOSTILE_H
#define TESTS_INTEGRATION_LOCAL_HOSTILE_H

#include "suite.h"
#include "wire.h"

struct victim {
	struct service service;
	struct client honest;
	char path[108];
	uint64_t slowest_ns;
};

/* Starts the service with these flags, and the honest client. */
void victim_start(struct victim *victim, unsigned flags);

/* The honest client's calls, old channel and a new one: right and prompt. */
void victim_check(struct victim *victim);

/* Ends both and checks them. */
void victim_stop(struct victim *victim);

/* How many channels the service has ended for breaking the protocol. */
uint64_t victim_violations(void);

/* Makes its attack on an open channel. */
typedef void (*attack_fn)(struct wire *wire);

/* Each must cost the attacker its channel. */
void attack_must_end(struct victim *victim, attack_fn attack);

/* These are the attacker's own trouble: the service may go on with the channel or not. */
void attack_may_end(struct victim *victim, attack_fn attack);

#endif
