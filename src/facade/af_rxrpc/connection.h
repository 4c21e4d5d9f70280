/* SPDX-License-Identifier: MIT */
/* A program's connection to a broker, for one question after the other. */
#ifndef FACADE_AF_RXRPC_CONNECTION_H
#define FACADE_AF_RXRPC_CONNECTION_H

#include "share.h"

struct aph_afrx_connection {
	struct aph_afrx_link link; /* in `idle` or `busy` */
	int fd;
	/* Of fd: a program may close what it does not know, and get the number again. */
	uint64_t cookie;
	struct sockaddr_un broker;
	struct aph_afrx_shared *shared;
	size_t size;
	struct aph_afrx_vector *body; /* of who asks, and may be cancelled; or NULL */
	bool timed; /* a signal ends the waiting, even if its handler has SA_RESTART */
	bool broken;
	int failure; /* of a broken one: what it is told with */
};

/*
 * A connection to the broker of this outer end, with room for a body and an empty question; the
 * thread is held. NULL: -errno in `error`.
 */
struct aph_afrx_connection *aph_afrx_connection_begin(int outer, size_t len, ssize_t *error);
/* Returns the answer, or -errno. */
ssize_t aph_afrx_connection_ask(struct aph_afrx_connection *c, int outer, enum aph_afrx_op op);
/*
 * Waits for the answer. A signal withdraws the question, but what was done of it is still told.
 */
ssize_t aph_afrx_connection_await(struct aph_afrx_connection *c);
void aph_afrx_connection_end(struct aph_afrx_connection *c);
/* Nobody may come to this broker any more: no descriptor stays that the program does not know. */
void aph_afrx_connection_end_all(struct aph_afrx_connection *c);
/* Tells the broker what it does not know yet of keys. The question is empty again. */
void aph_afrx_connection_tell_keys(struct aph_afrx_connection *c, int outer);

#endif
