/* SPDX-License-Identifier: MIT */
/*
 * The rules, each with its reason (measured on two-core machines, see docs/spec/local-transport.md):
 *
 * - A client spins only when the service was awake: one that had to be rung takes longer than a spin.
 * - Nobody spins on the CPU that the peer needs.
 * - A client spins when 2 of its last 8 waits were short, a service when 4 were; a client probes every
 *   16th time anyway. A call every 200 us teaches both not to.
 * - In a crowd (more busy threads than CPUs), or pinned together on one CPU, yielding beats both spinning
 *   and sleeping: the other side answers before the scheduler is asked to wake anybody.
 * - A yield that took over 2 ms means that somebody else wants the CPU: back off, for 1 ms at first, twice
 *   as long each time up to 64 ms, forgotten after 256 good yields.
 */
#include "local/wake.h"
#include "base/time.h"

#include <unistd.h>

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

#define WAKE_UP_NS	     (8 * US) /* what a short wait may take longer when it ended asleep */
#define YIELD_BAD_NS	     (2 * MS)
#define BACK_OFF_MIN_NS	     (1 * MS)
#define BACK_OFF_MAX_NS	     (64 * MS)
#define GOOD_YIELDS	     256u
#define AFFINITY_EVERY_TICKS 20000000u /* 5 to 20 ms */
#define PROBE_EVERY	     16u

void aph_wake_init(struct aph_wake *wake)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	*wake = (struct aph_wake){
		.n_cpus = n > 0 ? (unsigned)n : 1,
		.back_off_ns = BACK_OFF_MIN_NS,
		.replies.shorts = 0xff,
		.requests.shorts = 0xff,
	};
}

static bool is_single_cpu(struct aph_wake *wake)
{
	uint64_t ticks = aph_ticks();
	cpu_set_t set;

	if (ticks - wake->affinity_checked > AFFINITY_EVERY_TICKS) {
		wake->affinity_checked = ticks;
		wake->single_cpu = sched_getaffinity(0, sizeof(set), &set) == 0 &&
				   CPU_COUNT(&set) == 1;
	}
	return wake->single_cpu;
}

/* Whether the last waits say that this one will be short. */
static bool pays(struct aph_wake_history *history, bool reply)
{
	int shorts = __builtin_popcount(history->shorts);

	if (!reply)
		return shorts >= 4;
	if (shorts >= 2)
		return true;
	return ++history->n_since_probe % PROBE_EVERY == 0;
}

enum aph_wake_mode aph_wake_begin(struct aph_wake *wake, const struct aph_wake_scene *scene)
{
	struct aph_wake_history *history = scene->reply ? &wake->replies : &wake->requests;
	bool crowded = scene->n_busy > wake->n_cpus;

	wake->counts_as_reply = scene->reply;
	if (wake->back_off_until_ns) {
		if (aph_time_ns() < wake->back_off_until_ns)
			return APH_WAKE_SLEEP;
		wake->back_off_until_ns = 0;
	}
	if (scene->rang && scene->reply && !crowded && scene->peer_apart)
		return APH_WAKE_SLEEP;
	if (!pays(history, scene->reply))
		return APH_WAKE_SLEEP;
	if (crowded)
		return APH_WAKE_YIELD;
	if (scene->peer_apart)
		return APH_WAKE_SPIN;
	return is_single_cpu(wake) ? APH_WAKE_YIELD : APH_WAKE_SLEEP;
}

static void remember(struct aph_wake *wake, bool was_short)
{
	struct aph_wake_history *history = wake->counts_as_reply ? &wake->replies : &wake->requests;

	history->shorts = (uint8_t)(history->shorts << 1 | was_short);
}

void aph_wake_end_at_once(struct aph_wake *wake)
{
	wake->began_ns = 0;
	remember(wake, true);
}

void aph_wake_goes_on(struct aph_wake *wake, uint64_t now_ns)
{
	wake->began_ns = now_ns;
}

void aph_wake_end(struct aph_wake *wake, uint64_t now_ns, uint64_t cap_ns)
{
	if (!wake->began_ns)
		return;
	remember(wake, now_ns - wake->began_ns <= cap_ns + WAKE_UP_NS);
	wake->began_ns = 0;
}

bool aph_wake_yield(struct aph_wake *wake, uint64_t *now_ns)
{
	uint64_t before = *now_ns;

	(void)sched_yield();
	*now_ns = aph_time_ns();
	if (*now_ns - before <= YIELD_BAD_NS) {
		if (++wake->good_yields >= GOOD_YIELDS)
			wake->back_off_ns = BACK_OFF_MIN_NS;
		return true;
	}
	wake->good_yields = 0;
	wake->back_off_until_ns = *now_ns + wake->back_off_ns;
	if (wake->back_off_ns < BACK_OFF_MAX_NS)
		wake->back_off_ns *= 2;
	return false;
}
