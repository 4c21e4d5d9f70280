/* SPDX-License-Identifier: MIT */
/* The engine's timers, against a list that is searched. */
#include "rx/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define N     64
#define STEPS 20000

static uint64_t state = 1;

static uint32_t draw(uint32_t n)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(state >> 33) % n;
}

static uint64_t earliest(const struct aph_rx_timer *timers)
{
	uint64_t first = UINT64_MAX;

	for (unsigned i = 0; i < N; i++)
		if (timers[i].deadline_ns < first)
			first = timers[i].deadline_ns;
	return first;
}

static void none(void **unused)
{
	struct aph_rx_timers timers = { 0 };

	(void)unused;
	assert_true(aph_rx_timers_next(&timers) == UINT64_MAX);
	assert_null(aph_rx_timers_pop(&timers, UINT64_MAX - 1));
}

static void in_order(void **unused)
{
	struct aph_rx_timers timers = { 0 };
	struct aph_rx_timer timer[N];
	uint64_t last = 0;

	(void)unused;
	for (unsigned i = 0; i < N; i++) {
		aph_rx_timer_init(&timer[i]);
		aph_rx_timer_set(&timers, &timer[i], 1 + draw(1000));
	}
	for (unsigned i = 0; i < N; i++) {
		uint64_t next = aph_rx_timers_next(&timers);
		struct aph_rx_timer *popped;

		assert_true(next >= last);
		assert_null(aph_rx_timers_pop(&timers, next - 1));
		popped = aph_rx_timers_pop(&timers, next);
		assert_non_null(popped);
		assert_true(popped->deadline_ns == UINT64_MAX);
		last = next;
	}
	assert_true(aph_rx_timers_next(&timers) == UINT64_MAX);
}

static void any_order(void **unused)
{
	struct aph_rx_timers timers = { 0 };
	struct aph_rx_timer timer[N];
	uint64_t now = 0;

	(void)unused;
	for (unsigned i = 0; i < N; i++)
		aph_rx_timer_init(&timer[i]);
	for (unsigned step = 0; step < STEPS; step++) {
		struct aph_rx_timer *one = &timer[draw(N)];

		switch (draw(4)) {
		case 0:
			aph_rx_timer_set(&timers, one, UINT64_MAX);
			break;
		case 1:
			now += draw(50);
			while ((one = aph_rx_timers_pop(&timers, now)))
				assert_true(one->deadline_ns == UINT64_MAX);
			assert_true(earliest(timer) > now);
			break;
		default:
			aph_rx_timer_set(&timers, one, now + 1 + draw(500));
		}
		assert_true(aph_rx_timers_next(&timers) == earliest(timer));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(none),
		cmocka_unit_test(in_order),
		cmocka_unit_test(any_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
