/* SPDX-License-Identifier: MIT */
/*
 * What the processes of the kill storm share: the head of a request and of its reply, and a log in
 * shared memory that outlives each of them.
 */
#ifndef TESTS_INTEGRATION_LOCAL_STORM_H
#define TESTS_INTEGRATION_LOCAL_STORM_H

#include <antiphon/antiphon.h>

#include <stdatomic.h>
#include <stdint.h>

#define STORM_NAME	"storm"
#define STORM_CALLS_MAX (1u << 24)
#define STORM_FDS_MAX	5

/* The first bytes of each body, both ways. */
struct storm_head {
	uint64_t id;
	uint32_t request_len; /* bytes of the pattern `id` that follow */
	uint32_t reply_len;   /* bytes of the pattern `id` + 1 that are wanted */
	uint32_t n_fds;	      /* files of 1, 2, 3... bytes, there and back */
	uint32_t zero;
};

/* What is known of a call when its client does not live to tell: nothing. */
enum storm_end {
	STORM_NOTHING = 0,
	STORM_BEGUN = 1,
	STORM_FREED = 2,    /* its client let go of it */
	STORM_ENDED = 0x80, /* plus 16 times enum aph_outcome, plus enum aph_reason */
};

struct storm_call {
	_Atomic uint8_t executed; /* how often the service ran it */
	_Atomic uint8_t end;
};

struct storm_log {
	_Atomic uint64_t next_id;
	_Atomic uint32_t stop; /* clients are to come to an end */
	_Atomic uint32_t opened, closed;
	struct storm_call calls[STORM_CALLS_MAX];
};

struct storm_process {
	struct storm_log *log;
	uint64_t seed;
};

/* The lives of the two kinds of process; for child_start(). */
int storm_client(int ctl, void *process);
int storm_service(int ctl, void *process);

/* The file that descriptor `k` of a call refers to has so many bytes. */
void storm_check_fds(const int *fds, uint32_t n);
void storm_close_fds(int *fds, uint32_t *n);

#endif
