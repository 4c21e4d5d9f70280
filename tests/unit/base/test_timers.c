/* SPDX-License-Identifier: MIT */
/* The heap of deadlines: order, stopping in the middle, room that is reserved ahead. */
#include "base/timers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define N 500

static void in_order(void **state)
{
	struct aph_timers timers = { 0 };
	struct aph_timer timer[N] = { 0 };
	uint64_t last = 0;
	unsigned seed = 7;
	int i;

	(void)state;
	for (i = 0; i < N; i++) {
		assert_int_equal(aph_timers_reserve(&timers), 0);
		aph_timers_start(&timers, &timer[i], (uint64_t)(rand_r(&seed) % 1000) + 1);
	}
	for (i = 0; i < N; i += 3)
		aph_timers_stop(&timers, &timer[i]);
	assert_int_equal(timers.n, N - (N + 2) / 3);
	while (timers.n) {
		uint64_t next = aph_timers_next(&timers);
		struct aph_timer *popped;

		assert_null(aph_timers_pop(&timers, next - 1));
		popped = aph_timers_pop(&timers, next);
		assert_non_null(popped);
		assert_int_not_equal((popped - timer) % 3, 0);
		assert_true(popped->deadline_ns >= last);
		assert_int_equal(popped->slot, 0);
		last = popped->deadline_ns;
	}
	assert_true(aph_timers_next(&timers) == UINT64_MAX);
	aph_timers_deinit(&timers);
}

static void forever_is_not_started(void **state)
{
	struct aph_timers timers = { 0 };
	struct aph_timer timer = { 0 };

	(void)state;
	aph_timers_start(&timers, &timer, UINT64_MAX);
	assert_int_equal(timers.n, 0);
	aph_timers_stop(&timers, &timer);
	aph_timers_deinit(&timers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order),
		cmocka_unit_test(forever_is_not_started),
	};

	return cmocka_run_group_tests_name("timers", tests, NULL, NULL);
}
