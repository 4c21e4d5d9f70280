/* SPDX-License-Identifier: MIT */
/* What a waiting thread learns: each rule of wake.c, told a scene and asked for its mode. */
#include "local/wake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CAP 30u
#define NOW UINT64_C(1000000000000)

static struct aph_wake two_cpus(void)
{
	struct aph_wake wake;

	aph_wake_init(&wake);
	wake.n_cpus = 2;
	return wake;
}

static const struct aph_wake_scene apart = { .reply = true, .peer_apart = true, .n_busy = 2 };

static void spins_when_the_peer_is_apart(void **state)
{
	struct aph_wake wake = two_cpus();
	struct aph_wake_scene rang = apart;

	(void)state;
	assert_int_equal(aph_wake_begin(&wake, &apart, NOW), APH_WAKE_SPIN);
	rang.rang = true;
	assert_int_equal(aph_wake_begin(&wake, &rang, NOW), APH_WAKE_SLEEP);
}

static void yields_in_a_crowd(void **state)
{
	struct aph_wake wake = two_cpus();
	struct aph_wake_scene crowd = apart;

	(void)state;
	crowd.n_busy = 3;
	assert_int_equal(aph_wake_begin(&wake, &crowd, NOW), APH_WAKE_YIELD);
}

/*
 * Long waits teach it to sleep; every 16th time it looks whether that is still right; short ones
 * teach it back.
 */
static void learns(void **state)
{
	struct aph_wake wake = two_cpus();
	int i, spins = 0;

	(void)state;
	for (i = 0; i < 8; i++) {
		(void)aph_wake_begin(&wake, &apart, NOW);
		aph_wake_goes_on(&wake, NOW);
		aph_wake_end(&wake, NOW + aph_wake_ticks(&wake, 1000), CAP);
	}
	for (i = 0; i < 32; i++)
		spins += aph_wake_begin(&wake, &apart, NOW) == APH_WAKE_SPIN;
	assert_int_equal(spins, 2);
	for (i = 0; i < 2; i++) {
		(void)aph_wake_begin(&wake, &apart, NOW);
		aph_wake_end_at_once(&wake);
	}
	assert_int_equal(aph_wake_begin(&wake, &apart, NOW), APH_WAKE_SPIN);
}

/* Waits of one kind: how many of them span. */
static unsigned n_spins(struct aph_wake *wake, const struct aph_wake_scene *scene, unsigned n,
			unsigned asleep_us, unsigned awake_us)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < n; i++) {
		bool spins = aph_wake_begin(wake, scene, NOW) == APH_WAKE_SPIN;
		uint64_t limit = aph_wake_limit(wake, CAP, true);
		bool in_time = spins && aph_wake_ticks(wake, awake_us) < limit;

		aph_wake_goes_on(wake, NOW);
		aph_wake_end(wake, NOW + aph_wake_ticks(wake, in_time ? awake_us : asleep_us), CAP);
		sum += spins;
	}
	return sum;
}

static const struct aph_wake_scene rung = {
	.reply = true, .rang = true, .peer_apart = true, .n_busy = 2
};
static const struct aph_wake_scene serves = { .peer_apart = true, .n_busy = 2 };

static void spins_far_where_wake_ups_are_slow(void **state)
{
	struct aph_wake wake = two_cpus();

	(void)state;
	assert_in_range(n_spins(&wake, &rung, 100, 70, 36), 90, 92);
	/* From time to time it is compared anew. */
	assert_in_range(n_spins(&wake, &rung, 1000, 70, 36), 980, 999);
	wake = two_cpus();
	assert_in_range(n_spins(&wake, &rung, 100, 290, 150), 90, 92);
	/* The user's limit is one. */
	assert_true(aph_wake_limit(&wake, 10, true) > aph_wake_ticks(&wake, 290));
	assert_true(aph_wake_limit(&wake, 10, false) == aph_wake_ticks(&wake, 10));
	/* A service, as soon as its clients do not sleep. */
	wake = two_cpus();
	wake.requests.shorts = 0;
	assert_in_range(n_spins(&wake, &serves, 100, 70, 4), 90, 92);
}

static void sleeps_otherwise(void **state)
{
	static const unsigned us[][2] = {
		{ 25, 13 },   /* wake-ups are fast */
		{ 130, 95 },  /* the service takes its time */
		{ 500, 100 }, /* more than is tried */
		{ 70, 1000 }, /* it needs this CPU */
	};
	struct aph_wake wake;

	(void)state;
	for (size_t i = 0; i < sizeof(us) / sizeof(us[0]); i++) {
		wake = two_cpus();
		assert_in_range(n_spins(&wake, &rung, 10000, us[i][0], us[i][1]), 0, 30);
	}
	/* A call every 100 us: the service would burn what it spares, and more. */
	wake = two_cpus();
	wake.requests.shorts = 0;
	assert_in_range(n_spins(&wake, &serves, 10000, 95, 60), 0, 30);
}

/* A spin that is tried ends when it can turn out to be better no more. */
static void tries_no_longer_than_it_may_pay(void **state)
{
	struct aph_wake wake = two_cpus();

	(void)state;
	assert_int_equal(n_spins(&wake, &rung, 8, 120, 100), 0);
	assert_int_equal(aph_wake_begin(&wake, &rung, NOW), APH_WAKE_SPIN);
	assert_in_range(aph_wake_limit(&wake, CAP, true), aph_wake_ticks(&wake, 79),
			aph_wake_ticks(&wake, 80));
	wake = two_cpus();
	wake.requests.shorts = 0;
	assert_int_equal(n_spins(&wake, &serves, 8, 190, 180), 0);
	assert_int_equal(aph_wake_begin(&wake, &serves, NOW), APH_WAKE_SPIN);
	assert_in_range(aph_wake_limit(&wake, CAP, true), aph_wake_ticks(&wake, 94),
			aph_wake_ticks(&wake, 95));
}

static void backs_off(void **state)
{
	struct aph_wake wake = two_cpus();

	(void)state;
	wake.back_off_until = UINT64_MAX;
	assert_int_equal(aph_wake_begin(&wake, &apart, NOW), APH_WAKE_SLEEP);
	wake.back_off_until = 1; /* long past */
	assert_int_equal(aph_wake_begin(&wake, &apart, NOW), APH_WAKE_SPIN);
	assert_true(wake.back_off_until == 0);
}

/*
 * The rate of the ticks is a guess at first, and measured once some time has passed by both clocks.
 */
static void measures_its_ticks(void **state)
{
	struct aph_wake wake = two_cpus();
	uint32_t guess = wake.ticks_per_us;

	(void)state;
	(void)aph_wake_begin(&wake, &apart, wake.born + 1);
	assert_int_equal(wake.ticks_per_us, guess);
	wake.born_ns -= UINT64_C(1000000000);
	(void)aph_wake_begin(&wake, &apart, wake.born + UINT64_C(1234000000));
	assert_in_range(wake.ticks_per_us, 1200, 1234);
	wake.born_ns -= UINT64_C(1000000000);
	(void)aph_wake_begin(&wake, &apart, wake.born + UINT64_C(1234000000));
	assert_in_range(wake.ticks_per_us, 1200, 1234);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spins_when_the_peer_is_apart),
		cmocka_unit_test(yields_in_a_crowd),
		cmocka_unit_test(learns),
		cmocka_unit_test(spins_far_where_wake_ups_are_slow),
		cmocka_unit_test(sleeps_otherwise),
		cmocka_unit_test(tries_no_longer_than_it_may_pay),
		cmocka_unit_test(backs_off),
		cmocka_unit_test(measures_its_ticks),
	};

	return cmocka_run_group_tests_name("wake", tests, NULL, NULL);
}
