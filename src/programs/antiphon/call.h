/* SPDX-License-Identifier: MIT */
/*
 * What the parts of `antiphon call` share: call_once.c streams one call, call_repeat.c makes many
 * and measures them.
 */
#ifndef ANTIPHON_CLI_CALL_H
#define ANTIPHON_CLI_CALL_H

#include "progress.h"

#include <antiphon/antiphon.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct call_options {
	const char *address;
	const char *text; /* the request itself, or NULL */
	const char *in;	  /* the file that holds it, "-" for standard input, or NULL */
	int fds[APH_CALL_FDS_MAX];
	size_t n_fds;
	uint64_t timeout_ms; /* UINT64_MAX: for ever */
	bool wait;
	uint64_t repeat; /* 0: one call, and its reply is wanted */
	uint64_t parallel;
	bool json;
	bool progress;
	bool quiet;
};

/* How the one call went. */
struct call_report {
	struct aph_result result;
	uint64_t request_bytes;
	uint64_t reply_bytes;
	double seconds;
};

/*
 * Makes one call: the request comes from the text or `in_fd` (-1: none), the reply goes to standard
 * output. Returns a cli_status; CLI_FAILED after a message.
 */
int call_once(struct aph_endpoint *ep, struct aph_channel *channel,
	      const struct call_options *options, int in_fd, uint64_t deadline_ns,
	      struct call_report *report);

/* Makes many calls with the same request and prints a summary. The reply is dropped. */
int call_repeat(struct aph_endpoint *ep, struct aph_channel *channel,
		const struct call_options *options, int in_fd);

#endif
