/* SPDX-License-Identifier: MIT */
/*
 * Closing descriptors that others gave us, without waiting for anybody. Libraries that do not use
 * libantiphon have this compiled in.
 */
#ifndef ANTIPHON_BASE_CLOSE_H
#define ANTIPHON_BASE_CLOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Of somebody who is not known. */
#define APH_CLOSE_ANYBODY ((uid_t)-1)

/*
 * Has forks watched. Whoever has locks under which the functions below are called, and takes them
 * before a fork, calls this before pthread_atfork(3).
 */
void aph_close_prepare(void);

/*
 * What make() returns. It forks without handlers, in a process that has no threads but ours: none
 * of them has a lock of the C library meanwhile, and the child has nothing to close.
 */
pid_t aph_close_fork(pid_t (*make)(void));

/*
 * Closes them, at once if that takes no time; the rest is closed by a thread, at some time later:
 * until then the numbers are not free, and nobody may put anything there with dup2(2). `whose` is
 * the user who gave them to us: what is not closed yet counts as that one's. Connections do not
 * linger. Keeps errno.
 */
void aph_close_received(uid_t whose, const int *fds, size_t n);
/*
 * The same, but whoever has set SO_LINGER, and may have a copy, keeps it: a thread waits as long as
 * that says.
 */
void aph_close_lingering(uid_t whose, const int *fds, size_t n);

/*
 * Whether more descriptors of that user may be received: not while its share of those that are
 * still to be closed is used up. Waits a moment before it says no.
 */
bool aph_close_has_room(uid_t whose);

/* How many are still to be closed: of that user, and of the others. */
void aph_close_count(uid_t whose, size_t *own, size_t *others);

#endif
