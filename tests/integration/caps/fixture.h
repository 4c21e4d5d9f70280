/* SPDX-License-Identifier: MIT */
/*
 * What the CAPS tests share. Each test program holds one table, in which every line is a sentence
 * of the contract and the function that proves it: the names of the tests are the contract.
 */
#ifndef TESTS_CAPS_FIXTURE_H
#define TESTS_CAPS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/check.h"
#include "support/child.h"
#include "support/dir.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/caps.h>
#include <unistd.h>

/* One line of a table. */
#define SENTENCE(text, function)                                    \
	{                                                           \
		(text), (function), caps_setup, caps_teardown, NULL \
	}

/* A runtime directory of the test's own, which other users may use too; no port is left open. */
int caps_setup(void **state);
int caps_teardown(void **state);

#define UID_ANY ((uid_t)-1)
#define GID_ANY ((gid_t)-1)

/* Two users and two groups that are nobody in particular. */
#define ALICE	   ((uid_t)54321)
#define BOB	   ((uid_t)54322)
#define ALICES_GID ((gid_t)54331)
#define BOBS_GID   ((gid_t)54332)

/* Skips the test unless it may become other users. */
void need_root(void);
/* Becomes another user for good, with one group and `n` further ones. */
void become(uid_t uid, gid_t gid, const gid_t *groups, size_t n);

/*
 * child_start() for a process that has a service open, and so a second thread: the child ends
 * without the leak sanitizer, whose locks do not survive such a fork.
 */
void child_of_threads(struct child *child, int (*run)(int ctl, void *arg), void *arg);

/* The expression gives -1 and this errno. */
#define FAILS(expression, e) fails(__FILE__, __LINE__, #expression, (long long)(expression), e)
void fails(const char *file, int line, const char *what, long long result, int e);

/* A service and a client of it in this process; both must succeed. */
int serve(const char *name, int flags);
int connect_to(const char *name, int flags);

/* Puts a string; the id. */
off_t put(int client, const char *text);

/* The next message must come within the limit, be in this state and have this text. Its id. */
off_t expect(int port, caps_msg_state_t state, const char *text);
/* The same, and of this id. */
void expect_id(int port, caps_msg_state_t state, const char *text, off_t id);
/* Nothing comes for a while. */
void expect_nothing(int port);
/* Puts, is served and answered, and takes the dispose. */
void round_trip(int client, int service);

/* The dispose or the notice that is there, without a limit on what else may come first. */
void retrieve_all(int port);

#endif
