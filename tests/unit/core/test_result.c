/* SPDX-License-Identifier: MIT */
/* Names of outcomes, reasons and events: each its own, and never NULL. */
#include "suite.h"

#include <string.h>

typedef const char *(*name_fn)(int number);

static const char *outcome(int number)
{
	return aph_outcome_name((enum aph_outcome)number);
}

static const char *reason(int number)
{
	return aph_reason_name((enum aph_reason)number);
}

static const char *event(int number)
{
	return aph_event_name((enum aph_event_type)number);
}

static void all_named(name_fn name, int n)
{
	for (int i = 0; i < n; i++) {
		assert_non_null(name(i));
		assert_true(strlen(name(i)) > 2);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(name(i), name(k));
	}
	assert_non_null(name(n));
	assert_non_null(name(1000));
	assert_non_null(name(-1));
}

static void names(void **state)
{
	(void)state;
	all_named(outcome, APH_GONE + 1);
	all_named(reason, APH_REASON_RESOURCES + 1);
	all_named(event, APH_EVENT_SIGNAL + 1);
	assert_string_equal(aph_outcome_name(APH_ANSWERED), "ANSWERED");
	assert_string_equal(aph_reason_name(APH_REASON_DEADLINE), "deadline");
	assert_string_equal(aph_event_name(APH_EVENT_REQUEST), "REQUEST");
}

static void time_saturates(void **state)
{
	uint64_t now = aph_time_ns();

	(void)state;
	assert_true(aph_time_ns() >= now);
	assert_true(aph_deadline_ms(0) >= now);
	assert_true(aph_deadline_ms(10) >= now + 10000000);
	assert_true(aph_deadline_ms(10) < now + 10000000 + UINT64_C(60000000000));
	assert_true(aph_deadline_ms(UINT64_MAX) == APH_FOREVER);
	assert_true(aph_deadline_ms(UINT64_MAX / 1000000) == APH_FOREVER);
	assert_true(aph_deadline_ms(UINT64_MAX / 1000000 + 1) == APH_FOREVER);
	assert_non_null(strchr(aph_version(), '.'));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(time_saturates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
