/* SPDX-License-Identifier: MIT */
/*
 * Deadlines in a pairing heap, embedded in what they belong to: starting one is O(1), needs no
 * memory and cannot fail; stopping one and taking the earliest is O(log n) on average.
 */
#ifndef ANTIPHON_RX_TIMER_H
#define ANTIPHON_RX_TIMER_H

#include <stdint.h>

struct aph_rx_timer {
	uint64_t deadline_ns; /* UINT64_MAX: it does not run */
	struct aph_rx_timer *child;
	struct aph_rx_timer *next;  /* sibling */
	struct aph_rx_timer **link; /* what points to us */
};

struct aph_rx_timers {
	struct aph_rx_timer *root;
};

void aph_rx_timer_init(struct aph_rx_timer *timer);
/* Starts the timer, or moves it. UINT64_MAX stops it. */
void aph_rx_timer_set(struct aph_rx_timers *timers, struct aph_rx_timer *timer,
		      uint64_t deadline_ns);
/* Takes out a timer whose deadline has come; NULL: there is none. */
struct aph_rx_timer *aph_rx_timers_pop(struct aph_rx_timers *timers, uint64_t now_ns);

static inline uint64_t aph_rx_timers_next(const struct aph_rx_timers *timers)
{
	return timers->root ? timers->root->deadline_ns : UINT64_MAX;
}

#endif
