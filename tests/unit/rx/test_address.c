/* SPDX-License-Identifier: MIT */
/* When two addresses are the same one. */
#include "rig.h"

static struct aph_rx_address an_address(const char *text, uint16_t port)
{
	return a_path(text, port).remote;
}

static void equal_to_themselves(void **state)
{
	static const char *const texts[] = { "10.0.0.1", "::1", "fe80::1", "::ffff:10.0.0.1" };
	const struct aph_rx_address none = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		for (size_t j = 0; j < sizeof(texts) / sizeof(texts[0]); j++) {
			struct aph_rx_address a = an_address(texts[i], 7000);
			struct aph_rx_address b = an_address(texts[j], 7000);

			assert_int_equal(aph_rx_address_equal(&a, &b), i == j);
			assert_false(aph_rx_address_equal(&a, &none));
		}
	}
	assert_true(aph_rx_address_equal(&none, &none));
}

static void ports_and_scopes_count(void **state)
{
	struct aph_rx_address a = an_address("fe80::1", 7000), b = a;

	(void)state;
	b.in6.sin6_flowinfo = 7;
	assert_true(aph_rx_address_equal(&a, &b));
	b.in6.sin6_scope_id = 2;
	assert_false(aph_rx_address_equal(&a, &b));
	b = an_address("fe80::1", 7001);
	assert_false(aph_rx_address_equal(&a, &b));
	a = an_address("10.0.0.1", 7000);
	b = an_address("10.0.0.1", 7001);
	assert_false(aph_rx_address_equal(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_to_themselves),
		cmocka_unit_test(ports_and_scopes_count),
	};

	return cmocka_run_group_tests_name("rx address", tests, NULL, NULL);
}
