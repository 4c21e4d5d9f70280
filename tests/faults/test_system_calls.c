/* SPDX-License-Identifier: MIT */
/* Fails call 1, 2, 3... of each system call in each scenario until it passes. */
#include "scenario.h"
#include "suite.h"

#include <errno.h>
#include <stdio.h>

/* What the system call gives when it is short of something. */
static int error_of(enum fault_site site)
{
	switch (site) {
	case FAULT_accept4:
	case FAULT_epoll_create1:
	case FAULT_eventfd:
	case FAULT_inotify_init1:
	case FAULT_memfd_create:
	case FAULT_open64:
	case FAULT_openat64:
	case FAULT_socket:
	case FAULT_timerfd_create:
		return EMFILE;
	case FAULT_bind:
	case FAULT_epoll_ctl:
	case FAULT_ftruncate64:
	case FAULT_inotify_add_watch:
	case FAULT_mkdir:
	case FAULT_renameat:
		return ENOSPC;
	case FAULT_connect:
		return ECONNREFUSED;
	case FAULT_faccessat:
	case FAULT_fchmod:
	case FAULT_fchmodat:
	case FAULT_fstatat64:
	case FAULT_unlinkat:
		return EACCES;
	case FAULT_fcntl64:
		return EPERM;
	case FAULT_getsockopt:
	case FAULT_recvmsg:
	case FAULT_sendmsg:
	case FAULT_setsockopt:
		return ENOBUFS;
	default:
		return ENOMEM;
	}
}

static void each_system_call(void **state)
{
	unsigned n, total = 0;
	bool hit;
	int r;

	(void)state;
	scenario_begin();
	for (size_t i = 0; i < n_scenarios; i++) {
		for (enum fault_site site = FAULT_ALLOCATION + 1; site < FAULT_SITE_COUNT; site++) {
			for (n = 1; n < 40; n++) {
				r = scenario_run_with(&scenarios[i], site, n, error_of(site), &hit);
				/* A file that could not be removed may stay. */
				if (site == FAULT_unlinkat)
					dir_remove_sockets();
				scenario_check(fault_name(site), n);
				if (!hit)
					break;
				total++;
				if (scenario_run(&scenarios[i]) != 0)
					fail_msg("%s fails after %s %u failed: %s",
						 scenarios[i].name, fault_name(site), n,
						 aph_error());
			}
			assert_true(hit || r == 0);
		}
	}
	print_message("%u system calls failed\n", total);
	assert_true(total > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(each_system_call),
	};

	return suite_run("system calls", tests, SUITE_LEN(tests), 90);
}
