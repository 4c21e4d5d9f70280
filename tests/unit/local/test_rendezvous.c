/* SPDX-License-Identifier: MIT */
/* File names of the rendezvous directory: read and written alike, and nothing else is taken for one. */
#include "local/rendezvous.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void round_trip(void **state)
{
	struct aph_name name = { .name = "a.B_9", .uid = 1000, .gid = APH_ID_ANY };
	struct aph_rendezvous_entry entry;
	char file[APH_RENDEZVOUS_FILE_MAX + 1];

	(void)state;
	aph_rendezvous_format(file, &name, UINT64_C(0x123456789abcdef0));
	assert_string_equal(file, "a.B_9,000003e8,ffffffff,123456789abcdef0");
	assert_true(aph_rendezvous_parse(&entry, file));
	assert_string_equal(entry.name.name, "a.B_9");
	assert_true(entry.name.uid == 1000 && entry.name.gid == APH_ID_ANY);
	assert_true(entry.serial == UINT64_C(0x123456789abcdef0));
	memset(name.name, 'x', APH_NAME_MAX);
	aph_rendezvous_format(file, &name, 0);
	assert_int_equal(strlen(file), APH_RENDEZVOUS_FILE_MAX);
	assert_true(aph_rendezvous_parse(&entry, file));
}

static void strangers(void **state)
{
	static const char *const files[] = {
		"",
		".",
		"..",
		"echo",
		",00000000,00000000,0000000000000000",
		"echo,00000000,00000000,000000000000000",
		"echo,00000000,00000000,00000000000000000",
		"echo,0000000g,00000000,0000000000000000",
		"echo,00000000,0000000A,0000000000000000",
		"echo,000000000,0000000,0000000000000000",
		"ec-ho,00000000,00000000,0000000000000000",
		".18ea350f9c9c056b",
	};
	struct aph_rendezvous_entry entry;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		assert_false(aph_rendezvous_parse(&entry, files[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(strangers),
	};

	return cmocka_run_group_tests_name("rendezvous", tests, NULL, NULL);
}
