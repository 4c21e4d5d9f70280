/* SPDX-License-Identifier: MIT */
/* The descriptors a process has open, to see which were left behind. */
#ifndef TESTS_SUPPORT_FDS_H
#define TESTS_SUPPORT_FDS_H

#include <stddef.h>

#define FDS_MAX 4096

struct fds {
	unsigned char open[FDS_MAX]; /* descriptors above are not looked at */
};

/* This one stays open and is never counted: it is the tests' own, for as long as they run. */
void fds_keep(int fd);

/* Remembers what is open now. */
void fds_take(struct fds *fds);

/*
 * How many descriptors are open now that were not in `before`; says on standard error what each is.
 * One that was in `before` and is closed now counts too.
 */
int fds_differ(const struct fds *before);

/* The same without pipes, which a fuzzer and its sanitizers open when they like. */
int fds_differ_but_pipes(const struct fds *before);

/* How many descriptors are open. */
int fds_count(void);

/* Waits until there are so many: what takes long to close is closed by a thread of the library. */
void fds_await_count(int n);

/*
 * A TCP connection that nobody reads from, with something to send: its last close(2) waits for a
 * minute.
 */
int fds_lingering(int *peer);

#endif
