/* SPDX-License-Identifier: MIT */
/* The twin: what it has when the keeper dies, what it closes, and what its own death means. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMES	   12
#define TAKE_OVERS 30
#define CROWD	   20

static void name_of(char *name, int i)
{
	(void)sprintf(name, "name.%d", i);
}

static void all_are_there(struct aph_hold *hold)
{
	char name[32];

	for (int i = 0; i < NAMES; i++) {
		name_of(name, i);
		assert_int_equal(retrieve(hold, name, name, 0), 0);
	}
}

static void store_all(struct aph_hold *hold)
{
	char name[32];

	for (int i = 0; i < NAMES; i++) {
		name_of(name, i);
		assert_int_equal(store(hold, name, name, APH_HOLD_REPLACE), 0);
	}
}

/* Nothing of the dead keeper's is open in the next: not its channels, nor what was half kept. */
static void nothing_is_left_over(void **state)
{
	struct aph_hold *hold, *crowd[CROWD];
	struct keeper keeper;
	pid_t pid;
	int before;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	store_all(hold);
	pid = keeper_pid();
	before = fds_settled(pid, hold);
	for (int i = 0; i < TAKE_OVERS; i++) {
		for (int j = 0; j < CROWD; j++)
			crowd[j] = hold_open();
		assert_int_equal(kill(pid, SIGKILL), 0);
		pid = keeper_await_pid(pid);
		all_are_there(hold);
		for (int j = 0; j < CROWD; j++)
			aph_hold_close(crowd[j]);
		fds_await(pid, before);
	}
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/* One after the other dies: the keeper makes a twin again each time, and its clients come again. */
static void the_twin_dies(void **state)
{
	struct aph_hold *hold;
	struct keeper keeper;
	pid_t pid, twin;
	int before;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	store_all(hold);
	pid = keeper_pid();
	twin = keeper_await_twin(pid, 0);
	before = fds_settled(pid, hold);
	for (int i = 0; i < TAKE_OVERS; i++) {
		assert_int_equal(kill(twin, SIGKILL), 0);
		assert_int_equal(store(hold, "name.0", "name.0", APH_HOLD_REPLACE), 0);
		twin = keeper_await_twin(pid, twin);
		all_are_there(hold);
		fds_await(pid, before);
	}
	/* The last of them is as good as the first. */
	assert_int_equal(kill(pid, SIGKILL), 0);
	all_are_there(hold);
	assert_int_equal(keeper_pid(), twin);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/*
 * A twin that is told to end closes nothing of the keeper's, though they have one table of
 * descriptors.
 */
static void the_twin_is_told_to_end(void **state)
{
	struct aph_hold *hold;
	struct keeper keeper;
	pid_t pid, twin;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	store_all(hold);
	pid = keeper_pid();
	twin = keeper_await_twin(pid, 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(kill(twin, SIGTERM), 0);
		twin = keeper_await_twin(pid, twin);
		all_are_there(hold);
		assert_int_equal(keeper_pid(), pid);
	}
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/* Somebody who takes something when the twin dies gets it once, and it is gone then. */
static void taking_while_the_twin_dies(void **state)
{
	struct aph_hold *hold;
	struct keeper keeper;
	pid_t pid;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	pid = keeper_pid();
	for (int i = 0; i < TAKE_OVERS; i++) {
		pid_t twin = keeper_await_twin(pid, 0);

		assert_int_equal(store(hold, "x", "x", 0), 0);
		assert_int_equal(retrieve(hold, "x", "x", APH_HOLD_TAKE), 0);
		assert_int_equal(kill(twin, SIGKILL), 0);
		assert_int_equal(retrieve(hold, "x", "x", 0), -ENOENT);
		(void)keeper_await_twin(pid, twin);
	}
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

static int log_to = -1;

static void log_there(const char *text)
{
	(void)!write(log_to, text, strlen(text));
	(void)!write(log_to, "\n", 1);
}

static int logs(int ctl, void *arg)
{
	const struct aph_hold_keeper_options options = { .size = sizeof(options),
							 .log = log_there };

	(void)arg;
	log_to = ctl;
	return -aph_hold_keep(&options);
}

/* What a program had open when it became a keeper is open in the process that takes over. */
static void what_was_open_stays_open(void **state)
{
	char text[4096] = "";
	size_t len = 0;
	int status;
	struct child child;
	struct aph_hold *hold;
	pid_t pid;

	(void)state;
	child_start(&child, logs, NULL);
	pid = keeper_await_pid(0);
	assert_int_equal(pid, child.pid);
	hold = hold_open();
	assert_int_equal(store(hold, "x", "x", 0), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(retrieve(hold, "x", "x", 0), 0);
	pid = keeper_pid();
	assert_int_not_equal(pid, child.pid);
	while (!strstr(text, "takes over") && len < sizeof(text) - 1) {
		ssize_t n;

		assert_int_equal(poll(&(struct pollfd){ .fd = child.ctl, .events = POLLIN }, 1,
				      check_hang_ms(5000)),
				 1);
		n = read(child.ctl, text + len, sizeof(text) - 1 - len);
		assert_true(n > 0);
		len += (size_t)n;
		text[len] = '\0';
	}
	assert_int_equal(aph_hold_stop(hold, SOON), 0);
	aph_hold_close(hold);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), CHILD_SIGNALLED + SIGKILL);
	/* Orphans are ours: hold_setup(). */
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		HOLD_TEST(nothing_is_left_over),     HOLD_TEST(the_twin_dies),
		HOLD_TEST(the_twin_is_told_to_end),  HOLD_TEST(taking_while_the_twin_dies),
		HOLD_TEST(what_was_open_stays_open),
	};

	return suite_run("hold twin", tests, SUITE_LEN(tests), 60);
}
