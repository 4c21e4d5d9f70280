/* SPDX-License-Identifier: MIT */
/* When the driver spins: a table of lives it has learned from, no clock and no socket. */
#include "udp/spin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define US     UINT64_C(1000)
#define MAX    (25 * US)
#define FAR    (400 * US)
#define N_CPUS 3

static struct aph_udp_spin spin;
static uint64_t now;

static void set_up(uint64_t max_ns)
{
	aph_udp_spin_init(&spin, max_ns, max_ns ? FAR : 0, N_CPUS);
	now = 1000000 * US;
}

/*
 * One wait: whether it span. What comes takes `wait_us`, and the program then stays away for
 * `gap_us`.
 */
static bool one_wait(uint64_t wait_us, uint64_t gap_us, bool peer_needs_cpu)
{
	uint64_t start = now, until = aph_udp_spin_begin(&spin, now);
	bool spins = until > now, in_time = !peer_needs_cpu && start + wait_us * US < until;

	now = start + wait_us * US;
	if (spins && !in_time) {
		aph_udp_spin_fail(&spin);
		if (peer_needs_cpu)
			now += MAX;
	}
	aph_udp_spin_end(&spin, false, now);
	now += gap_us * US;
	return spins;
}

static unsigned n_spins(unsigned n, uint64_t wait_us, uint64_t gap_us, bool peer_needs_cpu)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += one_wait(wait_us, gap_us, peer_needs_cpu);
	return sum;
}

static void short_waits_spin(void **state)
{
	(void)state;
	set_up(MAX);
	assert_in_range(n_spins(100, 6, 1, false), 90, 100);
	/* Those that only sleep would make short teach it too. */
	set_up(MAX);
	(void)n_spins(100, 500, 1, false);
	(void)n_spins(20, 30, 1, false);
	assert_in_range(n_spins(100, 17, 1, false), 90, 100);
}

static void never_when_told(void **state)
{
	(void)state;
	set_up(0);
	assert_int_equal(n_spins(100, 6, 1, false), 0);
	assert_false(aph_udp_spin_pays(&spin));
}

/* A call every 200 us: the service waits long, the client stays away for long. */
static void slow_calls_do_not(void **state)
{
	(void)state;
	set_up(MAX);
	(void)n_spins(100, 6, 1, false);
	assert_in_range(n_spins(1000, 185, 1, false), 0, 20);
	set_up(MAX);
	(void)n_spins(100, 6, 1, false);
	assert_in_range(n_spins(1000, 15, 185, false), 0, 1);
}

/*
 * The peer needs this CPU: after a while it is tried once in a thousand waits, and forgotten soon
 * after.
 */
static void same_cpu_is_learned(void **state)
{
	(void)state;
	set_up(MAX);
	assert_true(aph_udp_spin_pays(&spin));
	(void)n_spins(3000, 7, 1, true);
	assert_false(aph_udp_spin_pays(&spin));
	assert_in_range(n_spins(10000, 7, 1, true), 1, 11);
	(void)n_spins(4000, 7, 1, false);
	assert_in_range(n_spins(100, 7, 1, false), 99, 100);
	assert_true(aph_udp_spin_pays(&spin));
}

/* What had been there before anybody waited says nothing about the peer's CPU. */
static void at_once_proves_nothing(void **state)
{
	(void)state;
	set_up(MAX);
	(void)n_spins(3000, 7, 1, true);
	for (unsigned i = 0; i < 5000; i++) {
		(void)aph_udp_spin_begin(&spin, now);
		aph_udp_spin_end(&spin, true, now);
		now += US;
	}
	assert_int_equal(spin.n_skip_next, 1024);
}

static void *send_something(void *arg)
{
	(void)arg;
	aph_udp_spin_note_other(&spin);
	return NULL;
}

static void from_another_thread(void)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, send_something, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

/* Threads that send in turns need the CPUs; one that does so always sleeps meanwhile. */
static void busy_threads_are_given_way(void **state)
{
	(void)state;
	set_up(MAX);
	(void)n_spins(100, 6, 1, false);
	for (unsigned i = 0; i < 10; i++)
		aph_udp_spin_note_other(&spin);
	assert_true(one_wait(6, 1, false));
	from_another_thread();
	aph_udp_spin_note_other(&spin);
	assert_int_equal(n_spins(8, 6, 1, false), 0);
	assert_true(one_wait(6, 1, false));
	/* One other CPU is left for it. */
	from_another_thread();
	assert_true(one_wait(6, 1, false));
}

/* Waits where somebody who sleeps takes longer to wake up: how many of them span. */
static unsigned n_spins_of(unsigned n, uint64_t asleep_us, uint64_t awake_us)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t start = now, until = aph_udp_spin_begin(&spin, now);
		bool in_time = start + awake_us * US < until;

		now = start + (in_time ? awake_us : asleep_us) * US;
		if (until > start && !in_time)
			aph_udp_spin_fail(&spin);
		aph_udp_spin_end(&spin, false, now);
		now += US;
		sum += until > start;
	}
	return sum;
}

/* Nobody's waits are short as long as both ends sleep; or only this end can spare wake-ups. */
static void slow_wake_ups_are_avoided(void **state)
{
	(void)state;
	set_up(MAX);
	assert_in_range(n_spins_of(100, 64, 9), 90, 100);
	set_up(MAX);
	assert_in_range(n_spins_of(100, 93, 58), 90, 100);
}

/* A service that takes that long for its answer: it is tried ever more seldom. */
static void slow_answers_are_slept_for(void **state)
{
	(void)state;
	set_up(MAX);
	assert_in_range(n_spins_of(100, 65, 60), 3, 20);
	(void)n_spins_of(10000, 65, 60);
	assert_in_range(n_spins_of(8192, 65, 60), 3, 9);
	/* Nor for requests that come as they please, however much sooner they are then seen. */
	set_up(MAX);
	assert_in_range(n_spins_of(1000, 95, 65), 3, 20);
	/* Nor is anything spent on what takes longer still. */
	set_up(MAX);
	assert_in_range(n_spins_of(1000, 450, 130), 0, 2);
	/* The peer needs this CPU: two spins of each try are in vain. */
	set_up(MAX);
	assert_in_range(n_spins_of(1000, 64, 1000), 2, 20);
}

/* A program that comes back later than that has its own pace. */
static void slow_programs_do_not_spin_far(void **state)
{
	(void)state;
	set_up(MAX);
	assert_in_range(n_spins(1000, 64, 30, false), 0, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(short_waits_spin),
		cmocka_unit_test(never_when_told),
		cmocka_unit_test(slow_calls_do_not),
		cmocka_unit_test(same_cpu_is_learned),
		cmocka_unit_test(at_once_proves_nothing),
		cmocka_unit_test(slow_wake_ups_are_avoided),
		cmocka_unit_test(slow_answers_are_slept_for),
		cmocka_unit_test(slow_programs_do_not_spin_far),
		cmocka_unit_test(busy_threads_are_given_way),
	};

	return cmocka_run_group_tests_name("udp spin", tests, NULL, NULL);
}
