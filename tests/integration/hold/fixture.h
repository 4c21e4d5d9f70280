/* SPDX-License-Identifier: MIT */
/*
 * A keeper for tests: a process group of its own with the keeper, its twin, and all that come after
 * them. It dies with the test, however that ends.
 */
#ifndef TESTS_HOLD_FIXTURE_H
#define TESTS_HOLD_FIXTURE_H

#include "suite.h"

#include <antiphon/hold.h>

#include <sys/types.h>

struct keeper {
	pid_t group;
	int guard; /* whoever holds its other end kills the group when this one closes */
	pid_t guardian;
};

#define ALICE ((uid_t)54321)
#define BOB   ((uid_t)54322)
#define SOON  aph_deadline_ms((uint64_t)check_hang_ms(5000))

/* For cmocka: as dir_setup() and dir_teardown(), and other users may use the directory. */
int hold_setup(void **state);
int hold_teardown(void **state);

#define HOLD_TEST(test) cmocka_unit_test_setup_teardown(test, hold_setup, hold_teardown)

/* Starts it and waits until it serves. NULL: the default options. */
void keeper_start(struct keeper *keeper, const struct aph_hold_keeper_options *options);
/* The same with rules; ends with NULL. */
void keeper_start_rules(struct keeper *keeper, const char *const *rules);
/* Starts one that may fail; its result. It must end by itself. */
int keeper_try(const struct aph_hold_keeper_options *options);
/* Tells it to stop, and checks that nothing of it is left. */
void keeper_stop(struct keeper *keeper);
/* Kills all of it. */
void keeper_kill(struct keeper *keeper);
/* Waits until the whole group has ended by itself. */
void keeper_gone(struct keeper *keeper);

/* Who serves now, and its twin; 0 if there is none. */
pid_t keeper_pid(void);
pid_t keeper_twin(pid_t keeper);
/* The same, waiting until there is one, and another than `not`. */
pid_t keeper_await_pid(pid_t not );
pid_t keeper_await_twin(pid_t keeper, pid_t not );

/* How many descriptors another process has open. */
int fds_of(pid_t pid);
/*
 * The same for a keeper or its twin, when it has not changed for a while in which the keeper has
 * answered: whoever looked for the keeper may just have left.
 */
int fds_settled(pid_t pid, struct aph_hold *hold);
/* Waits until it has so many. */
void fds_await(pid_t pid, int n);

struct aph_hold *hold_open(void);

/* A descriptor that can be told from others, and which one it is. */
int marked(const char *text);
bool is_marked(int fd, const char *text);

/* Stores one, closes our own. */
int store(struct aph_hold *hold, const char *name, const char *text, uint32_t flags);
/* Retrieves one and compares. 0, 1 if it is another, or the error. */
int retrieve(struct aph_hold *hold, const char *name, const char *text, uint32_t flags);

void need_root(void);
void become(uid_t uid);

#endif
