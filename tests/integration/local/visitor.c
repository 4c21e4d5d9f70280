/* SPDX-License-Identifier: MIT */
#include "visitor.h"

#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

int visitor_need_root(void)
{
	if (geteuid() != 0) {
		suite_skip("only root can become other users");
		return 0;
	}
	return 1;
}

void visitor_become(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups)
{
	CHECK_OK(setgroups(n_groups, groups));
	CHECK_OK(setresgid(gid, gid, gid));
	CHECK_OK(setresuid(uid, uid, uid));
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 1);
}

/* Opens a channel as the visitor; the exit status is the errno, or 0 after an echo. */
static int visit(int ctl, void *arg)
{
	const struct visitor *visitor = arg;
	struct aph_channel_options options = { .size = sizeof(options), .flags = visitor->allow };
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	int r;

	(void)ctl;
	visitor_become(visitor->uid, visitor->gid, visitor->groups, visitor->n_groups);
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	r = aph_channel_open(&channel, ep, visitor->address, &options);
	if (r == 0) {
		client_echo(channel);
		aph_channel_close(channel);
	}
	aph_endpoint_free(ep);
	return -r;
}

void visitor_expect(const struct visitor *visitor, int status)
{
	struct visitor copy = *visitor;
	struct child child;

	child_start(&child, visit, &copy);
	assert_int_equal(child_finish(&child, check_hang_ms(15000)), status);
}
