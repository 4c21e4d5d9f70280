/* SPDX-License-Identifier: MIT */
/* Fails allocation 1, 2, 3... of each scenario until it passes. */
#include "scenario.h"
#include "suite.h"

#include <errno.h>
#include <stdio.h>

static void each_allocation(void **state)
{
	unsigned n;
	bool hit;
	int r;

	(void)state;
	scenario_begin();
	for (size_t i = 0; i < n_scenarios; i++) {
		for (n = 1;; n++) {
			r = scenario_run_with(&scenarios[i], FAULT_ALLOCATION, n, ENOMEM, &hit);
			scenario_check(scenarios[i].name, n);
			if (!hit)
				break;
			assert_true(n < 1000);
			/* The next try works, in spite of what went before. */
			if (scenario_run(&scenarios[i]) != 0)
				fail_msg("%s fails after allocation %u failed: %s",
					 scenarios[i].name, n, aph_error());
		}
		assert_int_equal(r, 0);
		print_message("%s: %u allocations\n", scenarios[i].name, n - 1);
		assert_true(n > 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(each_allocation),
	};

	return suite_run("allocation", tests, SUITE_LEN(tests), 90);
}
