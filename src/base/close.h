/* SPDX-License-Identifier: MIT */
/*
 * Closing descriptors that others gave us, without waiting for anybody. Libraries that do not use libantiphon have
 * this compiled in.
 */
#ifndef ANTIPHON_BASE_CLOSE_H
#define ANTIPHON_BASE_CLOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Of somebody who is not known. */
#define APH_CLOSE_ANYBODY ((uid_t)-1)

/*
 * Has forks watched. Whoever has locks under which the functions below are called, and takes them before a fork,
 * calls this before pthread_atfork(3).
 */
void aph_close_prepare(void);

/*
 * Closes them, at once if that takes no time; the rest is closed by a thread. `whose` is the user who gave them to
 * us: what is not closed yet counts as that one's. Keeps errno.
 */
void aph_close_received(uid_t whose, const int *fds, size_t n);

/*
 * Whether more descriptors of that user may be received: not while its share of those that are still to be closed
 * is used up. Waits a moment before it says no.
 */
bool aph_close_has_room(uid_t whose);

/* How many are still to be closed: of that user, and of the others. */
void aph_close_count(uid_t whose, size_t *own, size_t *others);

#endif
