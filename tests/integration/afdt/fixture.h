/* SPDX-License-Identifier: MIT */
/*
 * What the tests of libafdt share: a peer that knows the wire from its specification alone and
 * speaks it with plain system calls, in whatever pieces it likes; and handlers that remember what
 * they were told.
 */
#ifndef TESTS_AFDT_FIXTURE_H
#define TESTS_AFDT_FIXTURE_H

#include "fds.h"
#include "suite.h"

#include <afdt.h>
#include <antiphon/afdt.h>
#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

/* -- files ------------------------------------------------------------------------------------- */

/* A path in the test's directory; a static string. */
const char *path_of(const char *name);

/* A new descriptor that is like no other, and whether two are of the same file. */
int some_file(void);
bool same_file(int a, int b);

/* -- the peer ---------------------------------------------------------------------------------- */

int peer_listen(const char *path);
int peer_accept(int listener);
int peer_connect(const char *path);

/*
 * Bytes as they are, descriptors with the first of them. The second form checks that it went well.
 */
bool peer_try_send(int sock, const void *bytes, size_t len, const int *fds, size_t n_fds);
void peer_send(int sock, const void *bytes, size_t len, const int *fds, size_t n_fds);

/* A message with its header, at once or in single bytes. A descriptor of -1 is none. */
void peer_message(int sock, const void *body, uint32_t len, int fd);
void peer_message_split(int sock, const void *body, uint32_t len, int fd);

/* What was received: up to the end of a message, or of the connection. */
struct peer_got {
	size_t len;
	size_t n_fds;
	uint8_t bytes[1024];
	int fds[APH_AFDT_FDS_MAX];
};

/*
 * Waits for a message; false if the connection ended, or nothing came. Closes what was there
 * before.
 */
bool peer_receive(int sock, struct peer_got *got);
void peer_drop(struct peer_got *got);

/* True once the other side has hung up; false after a second. */
bool peer_hung_up(int sock);

/* -- what handlers were told ------------------------------------------------------------------- */

struct told {
	int requests, posts, responses, errors;
	struct afdt_error_t err;
	int cause;
	uint8_t body[AFDT_MSGLEN];
	uint32_t len;
	int fd; /* received: to be closed by the test; or sent */
	/* What the request handler gives. */
	const void *answer;
	uint32_t answer_len;
	int give;
	bool close_given; /* the post handler closes it */
};

void told_init(struct told *told);
int on_request(const uint8_t *request, uint32_t len, uint8_t *response, uint32_t *response_len,
	       void *data);
void on_post(const uint8_t *request, uint32_t len, const uint8_t *response, uint32_t response_len,
	     int fd, void *data);
void on_response(const uint8_t *response, uint32_t len, int fd, void *data);
void on_error(const struct afdt_error_t *err, void *data);

/* Handles what is ready until `*count` is `wanted`; fails after some seconds. */
void run_until(struct event_base *base, const int *count, int wanted);
void run_ready(struct event_base *base);

/* The error told last, once; then forgets it. */
void check_told(struct told *told, enum afdt_phase phase, enum afdt_operation operation, int cause);

#define CHECK_ERR(err, wanted_phase, wanted_operation, wanted_cause)                         \
	do {                                                                                 \
		int check_cause = errno;                                                     \
		assert_string_equal(afdt_operation_str((err).operation), #wanted_operation); \
		assert_string_equal(afdt_phase_str((err).phase), #wanted_phase);             \
		assert_int_equal(check_cause, wanted_cause);                                 \
		assert_non_null((err).message);                                              \
	} while (0)

#endif
