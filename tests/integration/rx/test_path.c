/* SPDX-License-Identifier: MIT */
/*
 * Calls between two network namespaces, over a wire that behaves, that loses, and that is narrower
 * than the packets. Needs the right to make namespaces and a TUN device; skipped, with the reason,
 * where there is none.
 */
#include "caller.h"
#include "relay.h"
#include "suite.h"

#include <antiphon/rx.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct path_case {
	struct relay_faults faults;
	uint32_t udp_flags;
	unsigned n_calls;
	size_t len_max;
	bool nobody;
};

static uint64_t seed;

/* What a carrier process ends with when it is not permitted to be one. */
#define STATUS_SKIP 77

/* Root of a namespace of users, for who is not root here. */
static void become_root(void)
{
	uid_t uid = getuid();
	char line[64];
	int fd;

	if (uid == 0 || unshare(CLONE_NEWUSER) < 0)
		return;
	fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
	(void)snprintf(line, sizeof(line), "0 %u 1", (unsigned)uid);
	(void)!write(fd, line, strlen(line));
	close(fd);
}

static pid_t fork_mortal(void)
{
	pid_t parent = getpid(), pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

/* Enters one namespace after the other, leaves a process in each, and is the wire between them. */
static int carry(const struct path_case *c)
{
	struct relay relay = { .faults = c->faults, .rng = { .state = seed } };
	const char *why = "";
	pid_t caller, service;
	int go[2], status;
	char byte;

	become_root();
	CHECK(pipe2(go, O_CLOEXEC) == 0);
	relay.ends[0] = relay_enter(RELAY_CLIENT, c->faults.mtu, &why);
	if (relay.ends[0] < 0) {
		print_message("SKIP: %s is not permitted here: %s\n", why,
			      strerror(-relay.ends[0]));
		return STATUS_SKIP;
	}
	caller = fork_mortal();
	if (caller == 0) {
		CHECK(read(go[0], &byte, 1) == 1);
		if (c->nobody)
			caller_call_nobody();
		caller_call(c->udp_flags, c->n_calls, c->len_max, seed);
	}
	relay.ends[1] = relay_enter(RELAY_SERVER, c->faults.mtu, &why);
	CHECK_OK(relay.ends[1]);
	service = fork_mortal();
	if (service == 0)
		caller_serve(c->udp_flags, go[1]);
	status = relay_run(&relay, caller);
	CHECK(kill(service, SIGKILL) == 0);
	CHECK(waitpid(service, NULL, 0) == service);
	print_message("carried %u, lost %u, delayed %u\n", relay.n_carried, relay.n_lost,
		      relay.n_delayed);
	if (c->faults.loss)
		CHECK(relay.n_lost > 0);
	if (c->faults.black_hole)
		CHECK(relay.n_swallowed > 0);
	return status;
}

static void run(const struct path_case *c)
{
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork_mortal();
	if (pid == 0) {
		status = carry(c);
		fflush(stdout);
		_exit(status);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == STATUS_SKIP)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_wire_that_behaves(void **state)
{
	(void)state;
	run(&(struct path_case){ .n_calls = 200, .len_max = 100000 });
}

static void without_offload(void **state)
{
	(void)state;
	run(&(struct path_case){ .n_calls = 100,
				 .len_max = 100000,
				 .udp_flags = APH_RX_UDP_NO_SEGMENT | APH_RX_UDP_NO_GRO });
}

static void a_wire_that_loses(void **state)
{
	(void)state;
	run(&(struct path_case){
		.faults = { .loss = 30, .duplicates = 10, .delays = 30, .delay_max_us = 3000 },
		.n_calls = check_long() ? 2000 : 60,
		.len_max = 40000 });
}

/*
 * Segments are larger than the way takes: the kernel refuses runs, and packets go in fragments or
 * smaller.
 */
static void a_narrow_wire(void **state)
{
	(void)state;
	run(&(struct path_case){ .faults = { .mtu = 1280 }, .n_calls = 60, .len_max = 60000 });
}

/*
 * Somebody on the way drops what is too large and may not be fragmented, and nothing tells.
 * Datagrams one by one: the kernel lets runs be fragmented.
 */
static void a_black_hole(void **state)
{
	(void)state;
	run(&(struct path_case){ .faults = { .black_hole = 1100 },
				 .n_calls = 60,
				 .len_max = 60000,
				 .udp_flags = APH_RX_UDP_NO_SEGMENT });
}

static void nobody_there(void **state)
{
	(void)state;
	run(&(struct path_case){ .nobody = true });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(a_wire_that_behaves), SUITE_TEST(without_offload),
		SUITE_TEST(a_wire_that_loses),	 SUITE_TEST(a_narrow_wire),
		SUITE_TEST(a_black_hole),	 SUITE_TEST(nobody_there),
	};

	seed = check_seed();
	return suite_run("rx path", tests, SUITE_LEN(tests), 110);
}
