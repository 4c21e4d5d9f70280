/* SPDX-License-Identifier: MIT */
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum service_mode suite_mode = SERVICE_PROCESS;

#define LONG_LIMIT_S 3600u

/* What cmocka would catch and hide from the sanitizers, and from whoever wants a core file. */
static const int crashes[] = { SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS };
static struct sigaction handlers[SUITE_LEN(crashes)];

static void begin(unsigned limit_s)
{
	alarm(check_long() ? LONG_LIMIT_S : (unsigned)check_ms((int)limit_s));
	for (size_t i = 0; i < SUITE_LEN(crashes); i++)
		sigaction(crashes[i], NULL, &handlers[i]);
	if (getenv("APH_TEST_ONLY"))
		cmocka_set_test_filter(getenv("APH_TEST_ONLY"));
}

void suite_test_run(void **state)
{
	const struct suite_test *test = *state;

	for (size_t i = 0; i < SUITE_LEN(crashes); i++)
		sigaction(crashes[i], &handlers[i], NULL);
	test->run(state);
}

static int run(const char *name, const char *how, const struct CMUnitTest *tests, size_t n)
{
	char full[128];

	snprintf(full, sizeof(full), "%s%s", name, how);
	return _cmocka_run_group_tests(full, tests, n, NULL, NULL);
}

int suite_run(const char *name, const struct CMUnitTest *tests, size_t n, unsigned limit_s)
{
	begin(limit_s);
	return run(name, "", tests, n);
}

int suite_run_both(const char *name, const struct CMUnitTest *tests, size_t n, unsigned limit_s)
{
	int failed;

	begin(limit_s);
	suite_mode = SERVICE_PROCESS;
	failed = run(name, ", service in a process", tests, n);
	suite_mode = SERVICE_THREAD;
	failed += run(name, ", service in a thread", tests, n);
	return failed;
}

void suite_skip(const char *why)
{
	printf("%s\n", why);
	fflush(stdout);
	skip();
}
