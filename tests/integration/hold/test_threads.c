/* SPDX-License-Identifier: MIT */
/* The client library in several threads, a connection each, while keeper and twin die. */
#include "fixture.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS	150
#define DEATHS	6

static void *use(void *arg)
{
	int number = *(int *)arg;
	struct aph_hold *hold = hold_open();
	char name[32], text[32];

	for (int i = 0; i < ROUNDS; i++) {
		struct aph_hold_info *list;
		size_t n;

		(void)snprintf(name, sizeof(name), "thread%d.%d", number, i % 3);
		(void)snprintf(text, sizeof(text), "%d", i);
		CHECK_OK(store(hold, name, text, APH_HOLD_REPLACE));
		CHECK(retrieve(hold, name, text, 0) == 0);
		CHECK(retrieve(hold, "nothing", "", 0) == -ENOENT);
		CHECK(strstr(aph_hold_error(), "nothing under the name"));
		CHECK_OK(aph_hold_list(hold, NULL, &list, &n, NULL, SOON));
		CHECK(n >= 1);
		free(list);
	}
	return aph_hold_close(hold);
}

static void each_has_its_own(void **state)
{
	pthread_t threads[THREADS];
	int numbers[THREADS];
	struct keeper keeper;

	(void)state;
	keeper_start(&keeper, NULL);
	for (int i = 0; i < THREADS; i++) {
		numbers[i] = i;
		assert_int_equal(pthread_create(&threads[i], NULL, use, &numbers[i]), 0);
	}
	for (int i = 0; i < DEATHS; i++) {
		pid_t pid = keeper_await_pid(0), twin = keeper_await_twin(pid, 0);

		CHECK_OK(kill(i % 2 ? twin : pid, SIGKILL));
		(void)(i % 2 ? keeper_await_twin(pid, twin) : keeper_await_pid(pid));
		(void)poll(NULL, 0, 3);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	keeper_stop(&keeper);
}

int main(void)
{
	static const struct CMUnitTest tests[] = { HOLD_TEST(each_has_its_own) };

	return suite_run("hold threads", tests, SUITE_LEN(tests), 100);
}
