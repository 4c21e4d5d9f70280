/* SPDX-License-Identifier: MIT */
/*
 * Timers: a binary heap of deadlines, embedded in what they belong to. Room is reserved when an
 * object is made, so that starting a timer cannot fail.
 */
#ifndef ANTIPHON_BASE_TIMERS_H
#define ANTIPHON_BASE_TIMERS_H

#include <antiphon/api.h>

#include <stddef.h>
#include <stdint.h>

struct aph_timer {
	uint64_t deadline_ns;
	size_t slot; /* place in the heap plus one; 0: not running */
	void (*expire)(struct aph_timer *timer);
};

struct aph_timers {
	struct aph_timer **heap;
	size_t n;
	size_t n_reserved; /* how many timers may run */
	size_t capacity;
};

void aph_timers_deinit(struct aph_timers *timers);

/* Makes room for one more timer, or gives that room back. 0 or -ENOMEM. */
APH_API int aph_timers_reserve(struct aph_timers *timers);
APH_API void aph_timers_unreserve(struct aph_timers *timers);

/* Starts a timer that does not run; `deadline_ns` APH_FOREVER starts nothing. */
APH_API void aph_timers_start(struct aph_timers *timers, struct aph_timer *timer,
			      uint64_t deadline_ns);

/* Stops a timer; one that does not run is left alone. */
APH_API void aph_timers_stop(struct aph_timers *timers, struct aph_timer *timer);

/* The earliest deadline, or APH_FOREVER. */
static inline uint64_t aph_timers_next(const struct aph_timers *timers)
{
	return timers->n ? timers->heap[0]->deadline_ns : UINT64_MAX;
}

/* Takes out one timer whose deadline is not after `now_ns`; NULL when there is none. */
struct aph_timer *aph_timers_pop(struct aph_timers *timers, uint64_t now_ns);

#endif
