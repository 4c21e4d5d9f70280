/* SPDX-License-Identifier: MIT */
/*
 * A fence that one thread makes for all: dear for it, and free for those who publish often. It
 * reaches the threads of all processes that have asked for it.
 */
#ifndef ANTIPHON_BASE_BARRIER_H
#define ANTIPHON_BASE_BARRIER_H

#include <stdbool.h>

/* Has this process's threads be reached. False where the kernel cannot do it, or not at once. */
bool aph_barrier_join(void);
/*
 * Each thread of a process that has joined makes a full fence before this returns. Where the kernel
 * refuses that now, as a filter of system calls was set up since, it waits until their stores can
 * be seen all the same.
 */
void aph_barrier_everywhere(void);

#endif
