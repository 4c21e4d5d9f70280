/* SPDX-License-Identifier: MIT */
/*
 * What the parts of `antiphon serve` share. cmd_serve.c owns the service and the loop; how a call
 * becomes work for a process is a mode: serve_process.c runs one process per call,
 * serve_persistent.c talks to one process that stays. serve_log.c tells what became of calls.
 */
#ifndef ANTIPHON_CLI_SERVE_H
#define ANTIPHON_CLI_SERVE_H

#include "child.h"
#include "loop.h"

#include <antiphon/antiphon.h>

#include <stdbool.h>
#include <stdint.h>

struct serve_options {
	const char *address;
	char **argv;
	uint32_t flags; /* APH_ALLOW_* and APH_SERVICE_* */
	uint64_t processes_max;
	uint64_t request_max; /* bytes of a request that --persistent collects */
	uint64_t kill_after_ns;
	bool persistent;
	bool log;
	bool json;
};

struct serve_mode;

/* What became of the lines of the log so far. */
struct serve_log {
	bool complained;   /* that it cannot be written */
	bool torn;	   /* the last line is there in part */
	uint64_t until_ns; /* how long its reader is waited for; 0: the service is not to end */
};

struct serve {
	struct serve_options options;
	struct aph_endpoint *ep;
	struct aph_service *service;
	struct loop loop;
	struct loop_source ep_source;
	struct loop_source child_source; /* SIGCHLD */
	struct loop_source end_source;	 /* the signals that end it */
	const struct serve_mode *mode;
	void *mode_state;
	char name[APH_ADDRESS_MAX + 1];
	struct serve_log log;
	uint64_t n_logged;
	bool finishing; /* when no call is left: stop */
	bool stopping;
};

struct serve_mode {
	/* 0, or -errno after a message. */
	int (*begin)(struct serve *serve);
	/* An event of a call: REQUEST, READABLE, WRITABLE or END. */
	void (*event)(struct serve *serve, const struct aph_event *event);
	/* Some child may have ended. */
	void (*child_ended)(struct serve *serve);
	/*
	 * Moves what can be moved and does what is due at `now_ns`. Returns when to come again at
	 * the latest.
	 */
	uint64_t (*turn)(struct serve *serve, uint64_t now_ns);
	/* True while there is a call to be answered. */
	bool (*has_calls)(const struct serve *serve);
	/* Ends all work; at once if `hard`. */
	void (*stop)(struct serve *serve, bool hard);
	/* True when no process is left. */
	bool (*is_idle)(const struct serve *serve);
	void (*end)(struct serve *serve);
};

extern const struct serve_mode serve_process_mode;
extern const struct serve_mode serve_persistent_mode;

/* How one call went, for the log. */
struct serve_record {
	pid_t caller_pid;
	uid_t caller_uid;
	const char *outcome; /* "answered", "aborted", "refused", "gone" or "lost" */
	int code;	     /* exit status of the command, 0 if there is none */
	uint64_t request_bytes;
	uint64_t reply_bytes;
	uint64_t began_ns;
};

/* Writes the line that says that the service can be called, if the user asked for a log. */
void serve_log_begin(struct serve *serve);
/* Takes from a call what the record needs of its caller. */
void serve_record_begin(struct serve_record *record, const struct aph_call *call);
/* Writes the line if the user asked for a log. */
void serve_record_finish(struct serve *serve, const struct serve_record *record,
			 const char *outcome, int code);

/*
 * Moves a piece of the request into `fd`, or of the reply out of it, without a copy of our own.
 * Returns the number of bytes, or SERVE_FD_ENDS at the end of the body or the file and when nobody
 * holds the other end of `fd`; SERVE_CALL_WAITS until the call has an event, SERVE_FD_WAITS until
 * `fd` has.
 */
enum {
	SERVE_FD_ENDS = 0,
	SERVE_CALL_WAITS = -1,
	SERVE_FD_WAITS = -2,
};
/* As much as a pipe holds; larger pieces would take room from the next while they are read. */
#define SERVE_PIECE_MAX 65536
ssize_t serve_move_request(struct aph_call *call, int fd);

/*
 * `uncommitted` is 0 at first and the function's own: what was read but found no room to be sent.
 */
ssize_t serve_move_reply(struct aph_call *call, int fd, size_t max, size_t *uncommitted);

#endif
