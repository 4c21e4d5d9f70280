/* SPDX-License-Identifier: MIT */
#include "suite.h"

#include "base/error.h"

#include <antiphon/error.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

static void the_text_is_kept(void **state)
{
	(void)state;
	assert_non_null(aph_error());
	errno = 77;
	assert_int_equal(aph_err(-ENOENT, "no %s at %d", "thing", 5), -ENOENT);
	assert_int_equal(errno, 77);
	assert_string_equal(aph_error(), "no thing at 5");
	assert_int_equal(aph_err(-EINVAL, "another"), -EINVAL);
	assert_string_equal(aph_error(), "another");
}

static void long_texts_are_cut(void **state)
{
	static char text[100000];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(aph_err(-E2BIG, "%s", text), -E2BIG);
	assert_true(strlen(aph_error()) < 5000);
	assert_true(strspn(aph_error(), "x") > 50);
}

static void *other_thread(void *arg)
{
	(void)arg;
	CHECK(strcmp(aph_error(), "mine") != 0);
	(void)aph_err(-1, "theirs");
	CHECK(strcmp(aph_error(), "theirs") == 0);
	return NULL;
}

static void each_thread_has_its_own(void **state)
{
	pthread_t thread;

	(void)state;
	(void)aph_err(-1, "mine");
	assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_string_equal(aph_error(), "mine");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_text_is_kept),
		cmocka_unit_test(long_texts_are_cut),
		cmocka_unit_test(each_thread_has_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
