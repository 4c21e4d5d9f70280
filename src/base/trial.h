/* SPDX-License-Identifier: MIT */
/*
 * Whether to spin where one would sleep, found out by trying: eight waits without it, eight with
 * it, most of which must be better. As long as it pays it goes on, and is compared anew now and
 * then. If it does not pay, which three waits may tell, it is tried again after 64 waits, 128, and
 * so on up to 4,096.
 */
#ifndef ANTIPHON_BASE_TRIAL_H
#define ANTIPHON_BASE_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

#define APH_TRIAL_ROUND	   UINT64_C(8) /* waits that are taken together */
#define APH_TRIAL_FEW	   3u	       /* that are enough to give up for */
#define APH_TRIAL_MOST	   5u	       /* that must be better */
#define APH_TRIAL_ROUNDS   64u	       /* that pay, before it is compared anew */
#define APH_TRIAL_REST_MIN 64u
#define APH_TRIAL_REST_MAX 4096u

/* What pays; times are in the user's unit. */
struct aph_trial_rule {
	/* Of each wait, at least; it is not worth trying where they take less than twice that. */
	uint64_t spared;
	uint64_t most;	 /* nor where they take longer than this */
	unsigned sixths; /* of the time that a wait took without it, at most */
};

struct aph_trial {
	uint64_t sum;	  /* what the waits of a round without it have taken */
	uint64_t without; /* what a wait takes without it */
	unsigned n;	  /* waits of this round */
	unsigned n_better;
	unsigned n_rounds; /* that have paid */
	unsigned n_rest;   /* waits before it is tried again */
	unsigned n_rest_last;
	bool on;
};

/* Begins anew with waits without it, or with it. */
static inline void aph_trial_begin(struct aph_trial *trial, bool on)
{
	trial->on = on;
	trial->n = trial->n_better = 0;
	trial->sum = 0;
}

/* What a wait with it may take at most to be better. */
static inline uint64_t aph_trial_better(const struct aph_trial *trial,
					const struct aph_trial_rule *rule)
{
	uint64_t part = trial->without * rule->sixths / 6;
	uint64_t spared = trial->without > rule->spared ? trial->without - rule->spared : 0;

	return part < spared ? part : spared;
}

/* How long to spin, while it is on: at first no longer than it can turn out to be better. */
static inline uint64_t aph_trial_limit(const struct aph_trial *trial,
				       const struct aph_trial_rule *rule)
{
	return trial->n_rounds ? trial->without * 5 / 4 : aph_trial_better(trial, rule);
}

static inline void aph_trial_give_up(struct aph_trial *trial)
{
	if (!trial->n_rest_last)
		trial->n_rest_last = APH_TRIAL_REST_MIN;
	else if (trial->n_rest_last < APH_TRIAL_REST_MAX)
		trial->n_rest_last *= 2;
	trial->n_rest = trial->n_rest_last;
	aph_trial_begin(trial, false);
}

static inline void aph_trial_go_on(struct aph_trial *trial)
{
	trial->n_rest_last = 0;
	aph_trial_begin(trial, ++trial->n_rounds < APH_TRIAL_ROUNDS);
}

static inline void aph_trial_note_with(struct aph_trial *trial, const struct aph_trial_rule *rule,
				       uint64_t took)
{
	trial->n++;
	trial->n_better += took <= aph_trial_better(trial, rule);
	if (!trial->n_rounds && trial->n == APH_TRIAL_FEW && !trial->n_better)
		aph_trial_give_up(trial);
	else if (trial->n == APH_TRIAL_ROUND && trial->n_better >= APH_TRIAL_MOST)
		aph_trial_go_on(trial);
	else if (trial->n == APH_TRIAL_ROUND)
		aph_trial_give_up(trial);
}

static inline void aph_trial_note_without(struct aph_trial *trial,
					  const struct aph_trial_rule *rule, uint64_t took)
{
	/* One that was held up by something else does not decide. */
	trial->sum += took < 2 * rule->most ? took : 2 * rule->most;
	if (++trial->n < APH_TRIAL_ROUND)
		return;
	trial->without = trial->sum / APH_TRIAL_ROUND;
	trial->n_rounds = 0;
	aph_trial_begin(trial, trial->without > 2 * rule->spared && trial->without <= rule->most);
}

/* A wait is over, which has taken so long. */
static inline void aph_trial_note(struct aph_trial *trial, const struct aph_trial_rule *rule,
				  uint64_t took)
{
	if (trial->n_rest)
		trial->n_rest--;
	else if (trial->on)
		aph_trial_note_with(trial, rule, took);
	else
		aph_trial_note_without(trial, rule, took);
}

#endif
