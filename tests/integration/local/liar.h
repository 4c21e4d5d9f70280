/* SPDX-License-Identifier: MIT */
/*
 * A service that lies, and an honest one with a client beside it: what the tests of hostile servers
 * share. The liar listens on the socket of a service that this process opened and never looks
 * after.
 */
#ifndef TESTS_INTEGRATION_LOCAL_LIAR_H
#define TESTS_INTEGRATION_LOCAL_LIAR_H

#include "suite.h"
#include "wire.h"

struct liar {
	struct aph_endpoint *decoy;
	int listener;
	int pipe_reader; /* of a full pipe, when a welcome has had one */
	struct service honest_service;
	struct client honest;
};

extern struct liar liar;

/* Has its name in the directory, and the honest client a channel. */
void liar_start(void);

/* Ends both, after calls of the honest client. */
void liar_stop(void);

#endif
