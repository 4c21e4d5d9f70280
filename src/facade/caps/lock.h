/* SPDX-License-Identifier: MIT */
/*
 * A lock of one word, and waiting for a word to change. A port is locked several times in each
 * round trip of a process that always has a second thread, the attendant: what is saved here
 * against a general mutex is felt. Nobody holds it while waiting, and it survives fork() as any
 * word does.
 */
#ifndef FACADE_CAPS_LOCK_H
#define FACADE_CAPS_LOCK_H

#include "../../base/futex.h"

#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleeps while the word has this value, or until woken or interrupted. As syscall(2). */
static inline long aph_caps_futex_wait(_Atomic uint32_t *word, uint32_t value,
				       const struct timespec *timeout)
{
	return syscall(aph_futex_number(), word, FUTEX_WAIT_PRIVATE, value, timeout, NULL, 0);
}

static inline void aph_caps_futex_wake(_Atomic uint32_t *word, int n)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* A lock is such a word. 0: free; 1: held; 2: held, and somebody may be waiting for it. */

static inline void aph_caps_word_lock(_Atomic uint32_t *word)
{
	uint32_t free = 0;

	/* Partner: the release in aph_caps_word_unlock(). */
	if (atomic_compare_exchange_strong_explicit(word, &free, 1, memory_order_acquire,
						    memory_order_relaxed))
		return;
	while (atomic_exchange_explicit(word, 2, memory_order_acquire) != 0)
		(void)aph_caps_futex_wait(word, 2, NULL);
}

static inline void aph_caps_word_unlock(_Atomic uint32_t *word)
{
	if (atomic_exchange_explicit(word, 0, memory_order_release) == 2)
		aph_caps_futex_wake(word, 1);
}

#endif
