/* SPDX-License-Identifier: MIT */
/*
 * Addresses: what is one, what is none, and that writing one and reading it again changes nothing.
 */
#include "core/name.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <antiphon/error.h>
#include <cmocka.h>

static void good_addresses(void **state)
{
	static const struct {
		const char *address, *name;
		int64_t uid, gid;
	} cases[] = {
		{ "echo", "echo", APH_ID_DEFAULT, APH_ID_DEFAULT },
		{ "caps:echo", "echo", APH_ID_DEFAULT, APH_ID_DEFAULT },
		{ "caps:a.B_9,uid=5", "a.B_9", 5, APH_ID_DEFAULT },
		{ "caps:x,gid=any,uid=any", "x", APH_ID_ANY, APH_ID_ANY },
		{ "caps:x,uid=root,gid=4294967294", "x", 0, 4294967294 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct aph_name name, again;
		char text[APH_ADDRESS_MAX + 1];

		assert_int_equal(aph_name_parse(&name, cases[i].address), 0);
		assert_string_equal(name.name, cases[i].name);
		assert_true(name.uid == cases[i].uid && name.gid == cases[i].gid);
		assert_int_equal(aph_name_format(&name, text, sizeof(text)), 0);
		assert_int_equal(aph_name_parse(&again, text), 0);
		assert_memory_equal(&name, &again, sizeof(name));
		assert_int_equal(aph_name_format(&name, text, strlen(text)), -ENOSPC);
	}
}

static void bad_addresses(void **state)
{
	static const struct {
		const char *address;
		int error;
	} cases[] = {
		{ NULL, -EINVAL },
		{ "", -EINVAL },
		{ "caps:", -EINVAL },
		{ "caps:a b", -EINVAL },
		{ "caps:a/b", -EINVAL },
		{ "caps:\xc3\xa4", -EINVAL },
		{ "caps:x,", -EINVAL },
		{ "caps:x,uid=", -EINVAL },
		{ "caps:x,uid=1,uid=2", -EINVAL },
		{ "caps:x,uid=4294967295", -EINVAL },
		{ "caps:x,uid=1x", -EINVAL },
		{ "caps:x,who=me", -EINVAL },
		{ "caps:x,uid=no_such_user_here", -ENOENT },
		{ "caps:x,gid=no_such_group_here", -ENOENT },
		{ "rx:host:7000/1", -EPROTONOSUPPORT },
		{ "chan:x", -EPROTONOSUPPORT },
		{ "srv:x.example.org", -EPROTONOSUPPORT },
		{ "caps:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		  -EINVAL },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct aph_name name = { .name = "untouched" };

		assert_int_equal(aph_name_parse(&name, cases[i].address), cases[i].error);
		assert_string_equal(name.name, "untouched");
		assert_true(strlen(aph_error()) > 10);
	}
}

static void a_scheme_that_is_still_to_come(void **state)
{
	struct aph_name name;

	(void)state;
	assert_int_equal(aph_name_parse(&name, "srv:x.example.org"), -EPROTONOSUPPORT);
	assert_non_null(strstr(aph_error(), "not supported"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_addresses),
		cmocka_unit_test(bad_addresses),
		cmocka_unit_test(a_scheme_that_is_still_to_come),
	};

	return cmocka_run_group_tests_name("name", tests, NULL, NULL);
}
