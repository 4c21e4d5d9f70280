/* SPDX-License-Identifier: MIT */
/*
 * The client's side of the tests: opening, waiting for events, whole calls. Everything here checks.
 */
#ifndef TESTS_SUPPORT_CLIENT_H
#define TESTS_SUPPORT_CLIENT_H

#include <antiphon/antiphon.h>

#include <stdbool.h>

struct client {
	struct aph_endpoint *ep;
	struct aph_channel *channel;
};

/* An endpoint, and a channel to `address` with the default options. */
void client_open(struct client *client, const char *address);
void client_close(struct client *client);

/* The next event. The limit is for a hang: on a busy machine it is longer. */
void client_next(struct aph_endpoint *ep, struct aph_event *ev, int timeout_ms);

/* The next event, which must be of this type and, if `call` is set, of this call. */
struct aph_event client_expect(struct aph_endpoint *ep, enum aph_event_type type,
			       const struct aph_call *call);

void client_check_result(struct aph_result got, enum aph_outcome outcome, enum aph_reason reason);

/*
 * Takes the END of each of `n` calls, which have nothing left to read then, and if it is to end as
 * well the channel's CLOSED, in any order; then nothing more. Frees the calls.
 */
void client_expect_ends(const struct client *client, struct aph_call **calls, size_t n,
			enum aph_outcome outcome, enum aph_reason reason, bool closed,
			int limit_ms);

/* No event comes within this time. */
void client_quiet(struct aph_endpoint *ep, int ms);

/* A call that has sent its whole request, whose deadline is further away than that takes. */
struct aph_call *client_begin(struct aph_channel *channel, const void *request, size_t len,
			      uint64_t deadline_ns);

struct service;

/*
 * A call with the request `op`, which the service holds now and whose deadline is still to come: 50
 * ms away when it was made, or further where this machine is too busy for that. Before it there is
 * an echo, and there may be others that were freed; the service has forgotten them.
 */
struct aph_call *client_begin_late(struct aph_channel *channel, const struct service *service,
				   const char *op, uint64_t *deadline_ns);

/*
 * aph_call() with such a deadline and the request `op`: what it gave, and when the last deadline
 * was.
 */
int client_call_late(struct aph_channel *channel, const char *op, uint64_t *deadline_ns);

/* Reads what comes and waits for END, whatever it says. At most `*len` bytes go to `reply`. */
struct aph_result client_end(struct aph_endpoint *ep, struct aph_call *call, void *reply,
			     size_t *len);

/*
 * Sends all of it, waiting for room. False when the call ended instead; END is then still to come.
 */
int client_send(struct aph_call *call, const void *data, size_t len, unsigned flags);

/* A short echo that must be answered; the time it took in nanoseconds. */
uint64_t client_echo(struct aph_channel *channel);

/* The reply of a long call is the pattern; checks every byte. */
void client_get(struct aph_endpoint *ep, struct aph_channel *channel, char op, uint64_t len,
		uint32_t seed);

/* Sends `len` patterned bytes to be drained and checks the answer. */
void client_put(struct aph_endpoint *ep, struct aph_channel *channel, uint64_t len, uint32_t seed);

#endif
