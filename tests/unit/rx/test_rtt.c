/* SPDX-License-Identifier: MIT */
/* The estimator against RFC 6298 by worked examples. */
#include "rx/rtt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)
#define S  (1000 * MS)

static void before_any_sample(void **state)
{
	const struct aph_rx_rtt rtt = { 0 };

	(void)state;
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 0), 1 * S);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 1), 2 * S);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 6), 64 * S);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 7), 120 * S);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 4000000000u), 120 * S);
}

static void worked_example(void **state)
{
	struct aph_rx_rtt rtt = { 0 };

	(void)state;
	/* (2.2) SRTT = R, RTTVAR = R/2; RTO = 80 + 4 * 40 + 100 of ours. */
	aph_rx_rtt_sample(&rtt, 80 * MS, 1 * S);
	assert_int_equal(rtt.srtt_us, 80000);
	assert_int_equal(rtt.rttvar_us, 40000);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 0), 340 * MS);
	/* (2.3) RTTVAR = 3/4 * 40 + 1/4 * |80 - 120| = 40; SRTT = 7/8 * 80 + 1/8 * 120 = 85 */
	aph_rx_rtt_sample(&rtt, 120 * MS, 1 * S);
	assert_int_equal(rtt.rttvar_us, 40000);
	assert_int_equal(rtt.srtt_us, 85000);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 0), 345 * MS);
	/* RTTVAR = 30 + 1/4 * |85 - 45| = 40; SRTT = 74.375 + 5.625 = 80 */
	aph_rx_rtt_sample(&rtt, 45 * MS, 1 * S);
	assert_int_equal(rtt.rttvar_us, 40000);
	assert_int_equal(rtt.srtt_us, 80000);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 1), 680 * MS);
	assert_int_equal(rtt.latest_us, 45000);
	assert_int_equal(rtt.n_samples, 3);
}

static void steady_samples_converge(void **state)
{
	struct aph_rx_rtt rtt = { 0 };

	(void)state;
	aph_rx_rtt_sample(&rtt, 900 * MS, 0);
	for (int i = 0; i < 200; i++)
		aph_rx_rtt_sample(&rtt, 10 * MS, 0);
	assert_in_range(rtt.srtt_us, 9990, 10010);
	assert_true(rtt.rttvar_us < 20);
	/* The floor. */
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 0), 200 * MS);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 3), 1600 * MS);
}

static void extremes(void **state)
{
	struct aph_rx_rtt rtt = { 0 };

	(void)state;
	aph_rx_rtt_sample(&rtt, 0, 0);
	assert_int_equal(rtt.srtt_us, 1);
	assert_int_equal(rtt.min_us, 1);
	aph_rx_rtt_sample(&rtt, UINT64_MAX, 0);
	assert_int_equal(rtt.latest_us, 60000000);
	for (int i = 0; i < 1000; i++)
		aph_rx_rtt_sample(&rtt, i % 2 ? UINT64_MAX : 0, UINT64_MAX - 1);
	assert_in_range(rtt.srtt_us, 20000000, 40000000);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 0), 120 * S);
}

static void smallest_of_lately(void **state)
{
	struct aph_rx_rtt rtt = { 0 };

	(void)state;
	aph_rx_rtt_sample(&rtt, 20 * MS, 1 * S);
	aph_rx_rtt_sample(&rtt, 10 * MS, 2 * S);
	aph_rx_rtt_sample(&rtt, 30 * MS, 3 * S);
	assert_int_equal(rtt.min_us, 10000);
	/* The path has become longer. The next window knows it, the one after it believes it. */
	aph_rx_rtt_sample(&rtt, 50 * MS, 12 * S);
	assert_int_equal(rtt.min_us, 10000);
	for (unsigned s = 13; s < 21; s++)
		aph_rx_rtt_sample(&rtt, 50 * MS, s * S);
	assert_int_equal(rtt.min_us, 10000);
	aph_rx_rtt_sample(&rtt, 51 * MS, 21 * S);
	assert_int_equal(rtt.min_us, 50000);
	aph_rx_rtt_sample(&rtt, 7 * MS, 22 * S);
	assert_int_equal(rtt.min_us, 7000);
	/* After a long silence nothing of before counts. */
	aph_rx_rtt_sample(&rtt, 90 * MS, 100 * S);
	assert_int_equal(rtt.min_us, 90000);
}

/* What a service took is no round trip, and hides how long that was. */
static void bounds(void **state)
{
	struct aph_rx_rtt rtt = { 0 };

	(void)state;
	aph_rx_rtt_bound(&rtt, 1400 * MS, 1 * S);
	assert_int_equal(rtt.srtt_us, 1400000);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 0), 1 * S);
	/* A shorter one says more, a longer one nothing. */
	aph_rx_rtt_bound(&rtt, 40 * MS, 2 * S);
	assert_int_equal(rtt.srtt_us, 40000);
	assert_int_equal(rtt.min_us, 40000);
	assert_int_equal(aph_rx_rtt_rto_ns(&rtt, 0), 220 * MS);
	aph_rx_rtt_bound(&rtt, 700 * MS, 3 * S);
	assert_int_equal(rtt.srtt_us, 40000);
	/* A sample is what it is, even above. */
	aph_rx_rtt_sample(&rtt, 80 * MS, 4 * S);
	assert_int_equal(rtt.srtt_us, 80000);
	assert_int_equal(rtt.rttvar_us, 40000);
	assert_int_equal(rtt.min_us, 80000);
	aph_rx_rtt_bound(&rtt, 10 * MS, 5 * S);
	assert_int_equal(rtt.srtt_us, 80000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(before_any_sample),	   cmocka_unit_test(worked_example),
		cmocka_unit_test(steady_samples_converge), cmocka_unit_test(extremes),
		cmocka_unit_test(smallest_of_lately),	   cmocka_unit_test(bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
