/* SPDX-License-Identifier: MIT */
/* Becoming other users, which root alone can. */
#ifndef TESTS_INTEGRATION_LOCAL_VISITOR_H
#define TESTS_INTEGRATION_LOCAL_VISITOR_H

#include "suite.h"

#include <sys/types.h>

/* Ids that no real account of a test machine should have. */
#define ANNA 54321u
#define BERT 54322u
#define CREW 54333u

struct visitor {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t n_groups;
	const char *address;
	unsigned allow;
};

/* Whether we are root; if not, the test is skipped. */
int visitor_need_root(void);

/* In a child, which dies with its parent. */
void visitor_become(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups);

/* Who opens a channel and has something echoed: `status` is 0, or the errno of the opening. */
void visitor_expect(const struct visitor *visitor, int status);

#endif
