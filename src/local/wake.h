/* SPDX-License-Identifier: MIT */
/*
 * When to spin, when to yield, when to sleep: what a waiting thread has learned. It knows nothing
 * of rings.
 */
#ifndef ANTIPHON_LOCAL_WAKE_H
#define ANTIPHON_LOCAL_WAKE_H

#include "base/trial.h"

#include <stdbool.h>
#include <stdint.h>

enum aph_wake_mode {
	APH_WAKE_SLEEP, /* at once */
	APH_WAKE_SPIN,	/* watch memory: the peer runs on another CPU */
	APH_WAKE_YIELD, /* watch memory and let others run: they need this CPU to answer */
};

/* What one kind of wait has taught: bit 0 is the last one, set when it was short. */
struct aph_wake_history {
	uint8_t shorts;
	uint8_t n_since_probe;
	struct aph_trial far; /* whether to spin for longer than usual */
};

struct aph_wake {
	struct aph_wake_history replies;  /* of a client that waits for a reply */
	struct aph_wake_history requests; /* of a service that waits for a request */
	/* The wait that goes on. */
	bool counts_as_reply;
	bool is_far;	/* it counts for `far` */
	uint64_t began; /* 0: no wait goes on */
	uint64_t back_off_until;
	uint64_t back_off_us;
	uint32_t good_yields;
	uint64_t affinity_checked;
	uint64_t born, born_ns; /* the same moment by both clocks */
	uint32_t ticks_per_us;
	bool knows_ticks; /* `ticks_per_us` was measured */
	bool single_cpu;  /* this thread may run on one CPU only */
	unsigned n_cpus;
};

/* What the transport knows about the wait that begins. */
struct aph_wake_scene {
	bool reply;	 /* waits for a reply, not for requests */
	bool rang;	 /* the peer was asleep and had to be rung */
	bool peer_apart; /* some peer runs on another CPU */
	unsigned n_busy; /* threads that are busy with each other, with this one */
};

void aph_wake_init(struct aph_wake *wake);

/*
 * All times are in ticks (base/time.h): a clock that costs little to read, as a wait may be over in
 * less time than it takes to read the other.
 */

/* A wait begins: how to spend its first moments. */
enum aph_wake_mode aph_wake_begin(struct aph_wake *wake, const struct aph_wake_scene *scene,
				  uint64_t now);
/* How long it may spin, in ticks: `cap_us`, or longer where that is a mere default. */
uint64_t aph_wake_limit(struct aph_wake *wake, uint64_t cap_us, bool is_default);
/* It was over before anybody looked at a clock. */
void aph_wake_end_at_once(struct aph_wake *wake);
/* It goes on; this is when it began, or nearly so. */
void aph_wake_goes_on(struct aph_wake *wake, uint64_t now);
/* It is over: was it a short one? `cap_us` is the longest spin. */
void aph_wake_end(struct aph_wake *wake, uint64_t now, uint64_t cap_us);
/*
 * Gives up the CPU once, and notes for how long: `*now` is the time before, then after. False when
 * it is better to sleep from here on.
 */
bool aph_wake_yield(struct aph_wake *wake, uint64_t *now);
/* So many microseconds in ticks. */
static inline uint64_t aph_wake_ticks(const struct aph_wake *wake, uint64_t us)
{
	return us * wake->ticks_per_us;
}

#endif
