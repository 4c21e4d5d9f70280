/* SPDX-License-Identifier: MIT */
/*
 * cmocka with what it needs, and a runner for tests of the public interface: each test has a
 * runtime directory of its own and leaves nothing behind (dir.h), and the whole program has a time
 * limit.
 */
#ifndef TESTS_SUPPORT_SUITE_H
#define TESTS_SUPPORT_SUITE_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "check.h"
#include "child.h"
#include "client.h"
#include "dir.h"
#include "service.h"

/* Where the service of the running test lives; suite_run_both() sets it. */
extern enum service_mode suite_mode;

struct suite_test {
	void (*run)(void **state);
};

#define SUITE_TEST(test)                                                             \
	{                                                                            \
#test, suite_test_run, dir_setup, dir_teardown, &(struct suite_test) \
		{                                                                    \
			test                                                         \
		}                                                                    \
	}

/*
 * Runs a test with the signal handlers that the program began with: a crash is a crash, not an
 * exception.
 */
void suite_test_run(void **state);

/*
 * Runs a group once; only the tests that match the pattern APH_TEST_ONLY if the environment has it.
 * Ends the process with SIGALRM after `limit_s` seconds (more where it is slow or long).
 */
int suite_run(const char *name, const struct CMUnitTest *tests, size_t n, unsigned limit_s);

/* Runs it with the service in a process of its own, and with it in a thread of this process. */
int suite_run_both(const char *name, const struct CMUnitTest *tests, size_t n, unsigned limit_s);

/* Says why and skips the running test. */
void suite_skip(const char *why);

#define SUITE_LEN(tests) (sizeof(tests) / sizeof((tests)[0]))

#endif
