/* SPDX-License-Identifier: MIT */
/*
 * A child process that leads a process group of its own and is talked to through two pipes.
 *
 * The leader is not reaped before child_reap(): as long as it is a zombie nobody else can get its
 * number, so that a signal to its group cannot hit a stranger.
 */
#ifndef ANTIPHON_CLI_CHILD_H
#define ANTIPHON_CLI_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct child {
	pid_t pid;
	int in;	 /* where its standard input is written to, non-blocking; -1 when closed */
	int out; /* where its standard output is read from, non-blocking; -1 when closed */
	bool widened[2];
};

struct child_spec {
	char *const *argv;
	char *const *env; /* "NAME=value" on top of our own environment; ends with NULL */
	const int *fds; /* handed on from descriptor 3 up, announced by LISTEN_FDS and LISTEN_PID */
	size_t n_fds;
};

/*
 * Starts it. 0 or -errno. A command that cannot be executed exits with 127, or 126 if it is not
 * allowed.
 */
int child_start(struct child *child, const struct child_spec *spec);

/*
 * Whether the child has ended; then `*code` is its exit status, or 128 and the signal that ended
 * it.
 */
bool child_has_ended(const struct child *child, int *code);

/* Signals the whole group. */
void child_signal(const struct child *child, int signal);

/* Closes what is open, takes the zombie away and forgets the child. It must have ended. */
void child_reap(struct child *child);

/*
 * Lets one of its two pipes hold more, for bodies that do not fit into it: fewer switches between
 * the two sides. True when there is more room than before.
 */
bool child_widen(struct child *child, int pipe_fd);

/* Whether `command` can be found the way execvp(3) looks for it. 0 or -errno. */
int child_find(const char *command);

#endif
