/* SPDX-License-Identifier: MIT */
/*
 * A server and clients of antiphon/afdt.h in one loop, which is libevent's or an endpoint's of its
 * own. Tests are run on both.
 */
#ifndef TESTS_AFDT_RIG_H
#define TESTS_AFDT_RIG_H

#include "fixture.h"

#include <stdio.h>

extern bool on_libevent;
extern struct aph_afdt_endpoint *ep;
extern struct aph_afdt_server *server;
extern struct told server_told, client_told;
extern struct aph_afdt_request *held; /* what the handler was given and did not answer */
extern int n_gone;
extern int got_fds[APH_AFDT_FDS_MAX];
extern size_t n_got_fds;
extern struct aph_afdt_server_options
	options; /* open_endpoint() sets them, a test may change them */
extern const struct aph_afdt_message yes;

/* Handlers: one that only keeps the request in `held`, one for a client's answer. */
void hold(struct aph_afdt_request *request, void *data);
void on_message(const struct aph_afdt_message *response, void *data);

void open_endpoint(void);
/* At path_of("s"). */
void open_server(void);
void close_all(void);

/* One look at the loop, for up to some milliseconds. */
void turn(int ms);
void turn_until(const int *count, int wanted);

struct aph_afdt_client *ask(const char *request, const int *fds, size_t n_fds, int ms);

/* Runs the tests on both loops. */
int rig_run(const char *name, const struct CMUnitTest *tests, size_t n);

#endif
