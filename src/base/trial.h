/* SPDX-License-Identifier: MIT */
/*
 * Whether to spin where one would sleep, found out by trying: eight waits without it, eight with
 * it. As long as it pays it goes on, and is compared anew now and then. If it does not pay it is
 * tried again after 64 waits, 128, and so on up to 4,096. What a wait costs, and what pays, is for
 * the user to say.
 */
#ifndef ANTIPHON_BASE_TRIAL_H
#define ANTIPHON_BASE_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

#define APH_TRIAL_ROUND	   UINT64_C(8) /* waits that are taken together */
#define APH_TRIAL_ROUNDS   64u	       /* that pay, before it is compared anew */
#define APH_TRIAL_REST_MIN 64u
#define APH_TRIAL_REST_MAX 4096u
#define APH_TRIAL_VAIN_MAX 1u /* spins of a round that end without what they were for */

struct aph_trial {
	uint64_t sum;	  /* what the waits of this round have cost */
	uint64_t without; /* what a round cost without it */
	unsigned n;	  /* waits of this round */
	unsigned n_vain;
	unsigned n_rounds; /* that have paid */
	unsigned n_rest;   /* waits before it is tried again */
	unsigned n_rest_last;
	bool on;
};

/* Begins anew with waits without it, or with it. */
static inline void aph_trial_begin(struct aph_trial *trial, bool on)
{
	trial->on = on;
	trial->n = trial->n_vain = 0;
	trial->sum = 0;
}

/* A wait is over: true when it was the last one of a round. */
static inline bool aph_trial_add(struct aph_trial *trial, uint64_t cost)
{
	if (trial->n_rest) {
		trial->n_rest--;
		return false;
	}
	trial->sum += cost;
	return ++trial->n == APH_TRIAL_ROUND;
}

/* The round was one without it; `worth` trying it. */
static inline void aph_trial_try(struct aph_trial *trial, bool worth)
{
	trial->without = trial->sum;
	trial->n_rounds = 0;
	aph_trial_begin(trial, worth);
}

/* It has not paid. */
static inline void aph_trial_give_up(struct aph_trial *trial)
{
	if (!trial->n_rest_last)
		trial->n_rest_last = APH_TRIAL_REST_MIN;
	else if (trial->n_rest_last < APH_TRIAL_REST_MAX)
		trial->n_rest_last *= 2;
	trial->n_rest = trial->n_rest_last;
	aph_trial_begin(trial, false);
}

/* It has paid. */
static inline void aph_trial_go_on(struct aph_trial *trial)
{
	trial->n_rest_last = 0;
	aph_trial_begin(trial, ++trial->n_rounds < APH_TRIAL_ROUNDS);
}

/* A spin was in vain. */
static inline void aph_trial_fail(struct aph_trial *trial)
{
	if (++trial->n_vain > APH_TRIAL_VAIN_MAX)
		aph_trial_give_up(trial);
}

#endif
