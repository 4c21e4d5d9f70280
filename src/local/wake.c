/* SPDX-License-Identifier: MIT */
/*
 * The rules, each with its reason (measured on two-core machines, see
 * docs/spec/local-transport.md):
 *
 * - A client spins when the service was awake: one that had to be rung takes longer than a spin.
 * - Nobody spins on the CPU that the peer needs.
 * - A client spins when 2 of its last 8 waits were short, a service when 4 were; a client probes
 *   every 16th time anyway. A call every 200 us teaches both not to.
 * - In a crowd (more busy threads than CPUs), or pinned together on one CPU, yielding beats both
 *   spinning and sleeping: the other side answers before the scheduler is asked to wake anybody.
 * - A yield that took over 2 ms means that somebody else wants the CPU: back off, for 1 ms at
 *   first, four times as long each time up to 256 ms, forgotten after 256 good yields.
 * - On some virtual machines a wake-up takes 30 us, and at times 140, and about as much of the
 *   processors. Two ends that sleep never see a short wait there. So where the peer runs on
 *   another CPU it is tried (base/trial.h) whether to spin for longer makes the waits shorter: by
 *   20 us, and for a client by a third, as it gets its answer sooner, for a service by half, so
 *   that it burns no more than it spares. What takes its time does not pass. Both ends count the
 *   same waits, and so try at the same time.
 */
#include "local/wake.h"
#include "base/time.h"

#include <unistd.h>

#define WAKE_UP_US	  8u /* what a short wait may take longer when it ended asleep */
#define YIELD_BAD_US	  2000u
#define BACK_OFF_MIN_US	  1000u
#define BACK_OFF_MAX_US	  256000u
#define GOOD_YIELDS	  256u
#define AFFINITY_EVERY_US 5000u
#define PROBE_EVERY	  16u
#define TICKS_PER_US	  2000u /* until measured */
#define MEASURE_NS	  UINT64_C(10000000)
#define FAR_SPARED_US	  20u
#define FAR_MOST_US	  400u

void aph_wake_init(struct aph_wake *wake)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	*wake = (struct aph_wake){
		.n_cpus = n > 0 ? (unsigned)n : 1,
		.back_off_us = BACK_OFF_MIN_US,
		.replies.shorts = 0xff,
		.requests.shorts = 0xff,
		.born = aph_ticks(),
		.born_ns = aph_time_ns(),
		.ticks_per_us = TICKS_PER_US,
	};
}

/* How fast the ticks are: known once some time has passed by both clocks. */
static void measure_ticks(struct aph_wake *wake, uint64_t now)
{
	uint64_t ns = aph_time_ns() - wake->born_ns;
	uint64_t per_us;

	if (ns < MEASURE_NS)
		return;
	wake->knows_ticks = true;
	per_us = (uint64_t)((double)(now - wake->born) * 1000.0 / (double)ns);
	/* Anything else is no clock at all. */
	if (per_us >= 1 && per_us <= 10000)
		wake->ticks_per_us = (uint32_t)per_us;
}

static bool is_single_cpu(struct aph_wake *wake, uint64_t now)
{
	cpu_set_t set;

	if (now - wake->affinity_checked > aph_wake_ticks(wake, AFFINITY_EVERY_US)) {
		wake->affinity_checked = now;
		wake->single_cpu = sched_getaffinity(0, sizeof(set), &set) == 0 &&
				   CPU_COUNT(&set) == 1;
	}
	return wake->single_cpu;
}

static struct aph_wake_history *history_of(struct aph_wake *wake)
{
	return wake->counts_as_reply ? &wake->replies : &wake->requests;
}

static struct aph_trial_rule far_rule(const struct aph_wake *wake)
{
	return (struct aph_trial_rule){
		.spared = aph_wake_ticks(wake, FAR_SPARED_US),
		.most = aph_wake_ticks(wake, FAR_MOST_US),
		.sixths = wake->counts_as_reply ? 4 : 3,
	};
}

/* What the wait that is over teaches about spinning far. */
static void learn_far(struct aph_wake *wake, uint64_t took)
{
	struct aph_trial_rule rule;

	if (!wake->is_far)
		return;
	rule = far_rule(wake);
	aph_trial_note(&history_of(wake)->far, &rule, took);
}

uint64_t aph_wake_limit(struct aph_wake *wake, uint64_t cap_us, bool is_default)
{
	const struct aph_trial *far = &history_of(wake)->far;
	struct aph_trial_rule rule;

	if (!wake->is_far || !far->on || !is_default)
		return aph_wake_ticks(wake, cap_us);
	rule = far_rule(wake);
	return aph_trial_limit(far, &rule);
}

/* Whether the last waits say that this one will be short. */
static bool pays(struct aph_wake_history *history, bool reply)
{
	unsigned shorts = history->shorts;

	shorts &= shorts - 1;
	if (reply && shorts)
		return true; /* two were */
	if (!reply) {
		shorts &= shorts - 1;
		return shorts & (shorts - 1); /* four were */
	}
	return ++history->n_since_probe % PROBE_EVERY == 0;
}

enum aph_wake_mode aph_wake_begin(struct aph_wake *wake, const struct aph_wake_scene *scene,
				  uint64_t now)
{
	bool crowded = scene->n_busy > wake->n_cpus;
	struct aph_wake_history *history;

	wake->counts_as_reply = scene->reply;
	history = history_of(wake);
	wake->is_far = false;
	if (!wake->knows_ticks)
		measure_ticks(wake, now);
	if (wake->back_off_until) {
		if (now < wake->back_off_until)
			return APH_WAKE_SLEEP;
		wake->back_off_until = 0;
	}
	wake->is_far = !crowded && scene->peer_apart;
	if (wake->is_far && history->far.on)
		return APH_WAKE_SPIN;
	if (scene->rang && scene->reply && wake->is_far)
		return APH_WAKE_SLEEP;
	if (!pays(history, scene->reply))
		return APH_WAKE_SLEEP;
	if (crowded)
		return APH_WAKE_YIELD;
	if (scene->peer_apart)
		return APH_WAKE_SPIN;
	return is_single_cpu(wake, now) ? APH_WAKE_YIELD : APH_WAKE_SLEEP;
}

static void remember(struct aph_wake *wake, bool was_short)
{
	struct aph_wake_history *history = history_of(wake);

	history->shorts = (uint8_t)(history->shorts << 1 | was_short);
}

void aph_wake_end_at_once(struct aph_wake *wake)
{
	wake->began = 0;
	remember(wake, true);
	if (history_of(wake)->far.on)
		learn_far(wake, 0);
}

void aph_wake_goes_on(struct aph_wake *wake, uint64_t now)
{
	wake->began = now;
}

void aph_wake_end(struct aph_wake *wake, uint64_t now, uint64_t cap_us)
{
	uint64_t took = now - wake->began;

	if (!wake->began)
		return;
	remember(wake, took <= aph_wake_ticks(wake, cap_us + WAKE_UP_US));
	learn_far(wake, took);
	wake->began = 0;
}

bool aph_wake_yield(struct aph_wake *wake, uint64_t *now)
{
	uint64_t before = *now;

	(void)sched_yield();
	*now = aph_ticks();
	if (*now - before <= aph_wake_ticks(wake, YIELD_BAD_US)) {
		if (++wake->good_yields >= GOOD_YIELDS)
			wake->back_off_us = BACK_OFF_MIN_US;
		return true;
	}
	wake->good_yields = 0;
	wake->back_off_until = *now + aph_wake_ticks(wake, wake->back_off_us);
	if (wake->back_off_us < BACK_OFF_MAX_US)
		wake->back_off_us *= 4;
	return false;
}
