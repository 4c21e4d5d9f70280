/* SPDX-License-Identifier: MIT */
/*
 * The local transport spoken by hand, from either side, for peers that do what the library never
 * would. Only src/local/layout.h is shared with the library; nothing here checks what it is told to
 * write.
 */
#ifndef TESTS_SUPPORT_WIRE_H
#define TESTS_SUPPORT_WIRE_H

#include <antiphon/antiphon.h>

#include "local/layout.h"

#include <stdbool.h>

/* One end of a channel, client's or server's. */
struct wire {
	int sock;
	int bell;	   /* eventfd, or -1 */
	int segment, page; /* the memfds; a server has them, a client closes them */
	size_t size;
	unsigned char *map;
	struct aph_segment_words *words;
	struct aph_endpoint_page *shared; /* the endpoint's page */
	struct aph_welcome welcome;
	bool server;
	uint32_t sent; /* number of the last record written */
	uint32_t seen; /* number of the last record read */
};

/* -- client ------------------------------------------------------------------------------------ */

/* A connection to this socket file. */
int wire_connect(const char *path);

/* What the library itself would say. */
struct aph_hello wire_hello(void);

/*
 * wire_open() in two steps, for those who also are the service: connects and says hello, then, when
 * the answer must be there, maps what came.
 */
bool wire_open_begin(struct wire *wire, const char *path, const struct aph_hello *hello);
bool wire_open_finish(struct wire *wire, int timeout_ms);

/*
 * Connects, says `hello` (NULL: a good one) and maps what comes back. False when it was turned
 * away.
 */
bool wire_open(struct wire *wire, const char *path, const struct aph_hello *hello);
void wire_close(struct wire *wire);

/* -- server ------------------------------------------------------------------------------------ */

/*
 * The listening socket of the service that this process has open: there must be just one. A
 * duplicate.
 */
int wire_steal_listener(void);

/* Takes a connection and reads its hello. -1 when none comes in time. */
int wire_accept(int listener, struct aph_hello *hello, int timeout_ms);

/*
 * Makes a correct segment, page and bell for this connection, and sends nothing yet. Takes `sock`.
 */
void wire_serve(struct wire *wire, int sock, const struct aph_hello *hello, bool bell);

/* Sends the welcome with these descriptors. */
void wire_welcome(int sock, const struct aph_welcome *welcome, const int *fds, size_t n_fds);

/* wire_serve() and wire_welcome() as it should be. */
void wire_serve_well(struct wire *wire, int sock, const struct aph_hello *hello);

/* -- both -------------------------------------------------------------------------------------- */

struct aph_record *wire_slot(const struct wire *wire, bool reply, uint32_t seq);
unsigned char *wire_arena(const struct wire *wire, bool reply);

/* The word in which this side says how many records it has taken. */
_Atomic uint32_t *wire_taken(const struct wire *wire);

/* Writes a record as the next one of this side and publishes it, without any regard to room. */
void wire_post(struct wire *wire, struct aph_record record);

/* The same with a number that need not be the next. */
void wire_post_as(struct wire *wire, struct aph_record record, uint32_t seq);

/* A record of up to 40 bytes of text. */
struct aph_record wire_record(enum aph_record_type type, uint32_t tag, const void *data,
			      uint32_t len);

/* Wakes the other side in the way that was agreed, never blocking. */
void wire_ring(const struct wire *wire);

/* wire_post() and wire_ring(). */
void wire_tell(struct wire *wire, struct aph_record record);

/* Takes the other side's next record. False when none comes in time or the other side hung up. */
bool wire_next(struct wire *wire, struct aph_record *out, int timeout_ms);

/* Sends one message on a socket, with descriptors; false when it was not taken. Never blocks. */
bool wire_send(int sock, const void *data, size_t len, const int *fds, size_t n_fds);

/* True when the other side hangs up within the limit. What it sends is read and dropped. */
bool wire_hung_up(int sock, int timeout_ms);

/* An echo by hand: the channel works. */
bool wire_echo(struct wire *wire, uint32_t tag, int timeout_ms);

#endif
