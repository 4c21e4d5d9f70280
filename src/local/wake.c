/* SPDX-License-Identifier: MIT */
/*
 * The rules, each with its reason (measured on two-core machines, see
 * docs/spec/local-transport.md):
 *
 * - A client spins when the service was awake: one that had to be rung takes longer than a spin.
 *   But on some virtual machines a wake-up takes 30 us, and about as much of the processors. There
 *   it costs nothing more to wait for a rung service without sleep, and takes half the time.
 *   Whether it is so is tried (base/trial.h): it must spare 20 us, and a third of the wait,
 *   which a service that takes its time does not allow.
 * - Nobody spins on the CPU that the peer needs.
 * - A client spins when 2 of its last 8 waits were short, a service when 4 were; a client probes
 *   every 16th time anyway. A call every 200 us teaches both not to.
 * - In a crowd (more busy threads than CPUs), or pinned together on one CPU, yielding beats both
 *   spinning and sleeping: the other side answers before the scheduler is asked to wake anybody.
 * - A yield that took over 2 ms means that somebody else wants the CPU: back off, for 1 ms at
 *   first, four times as long each time up to 256 ms, forgotten after 256 good yields.
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
#define SLOW_WAKE_UP_US	  20u
#define RUNG_MAX_US	  100u

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

/* A wait for a service that had to be rung is over. */
static void learn_rung(struct aph_wake *wake, uint64_t took)
{
	struct aph_trial *rung = &wake->rung;
	uint64_t spared = aph_wake_ticks(wake, SLOW_WAKE_UP_US) * APH_TRIAL_ROUND;
	uint64_t most = 2 * aph_wake_ticks(wake, RUNG_MAX_US);

	/* One that was held up by something else does not decide. */
	if (!aph_trial_add(rung, took < most ? took : most))
		return;
	if (!rung->on)
		aph_trial_try(rung, rung->sum > 2 * spared &&
					    4 * rung->sum <= APH_TRIAL_ROUND * 3 * most);
	else if (rung->sum + spared <= rung->without && rung->sum / 2 <= rung->without / 3)
		aph_trial_go_on(rung);
	else
		aph_trial_give_up(rung);
}

uint64_t aph_wake_cap_us(const struct aph_wake *wake, uint64_t cap_us, bool is_default)
{
	return wake->is_rung && is_default ? RUNG_MAX_US : cap_us;
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
	struct aph_wake_history *history = scene->reply ? &wake->replies : &wake->requests;
	bool crowded = scene->n_busy > wake->n_cpus;

	wake->counts_as_reply = scene->reply;
	wake->is_rung = false;
	if (!wake->knows_ticks)
		measure_ticks(wake, now);
	if (wake->back_off_until) {
		if (now < wake->back_off_until)
			return APH_WAKE_SLEEP;
		wake->back_off_until = 0;
	}
	wake->is_rung = scene->rang && scene->reply && !crowded && scene->peer_apart;
	if (wake->is_rung)
		return wake->rung.on ? APH_WAKE_SPIN : APH_WAKE_SLEEP;
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
	struct aph_wake_history *history = wake->counts_as_reply ? &wake->replies : &wake->requests;

	history->shorts = (uint8_t)(history->shorts << 1 | was_short);
}

void aph_wake_end_at_once(struct aph_wake *wake)
{
	wake->began = 0;
	remember(wake, true);
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
	if (wake->is_rung && wake->rung.on && took > aph_wake_ticks(wake, RUNG_MAX_US))
		aph_trial_fail(&wake->rung);
	else if (wake->is_rung)
		learn_rung(wake, took);
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
