/* SPDX-License-Identifier: MIT */
#include "fixture.h"

#include "support/fds.h"

#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>

#define PORTS_LOOKED_AT 64

/*
 * The thread sanitizer does not like threads in a child of threads, which CAPS programs may well
 * have.
 */
const char *__tsan_default_options(void);

const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

int caps_setup(void **state)
{
	int r = dir_setup(state);

	/* Sticky and for everybody, as the directory of a whole machine would be. */
	if (r == 0 && chmod(dir_path(), 01777) < 0)
		r = -1;
	return r;
}

int caps_teardown(void **state)
{
	int port, left = 0;

	for (port = 1; port < PORTS_LOOKED_AT; port++)
		left += caps_sys_close(port) == 0;
	(void)child_kill_left();
	if (dir_teardown(state) != 0)
		return -1;
	if (left)
		(void)fprintf(stderr, "%d ports were left open\n", left);
	return left ? -1 : 0;
}

void need_root(void)
{
	if (geteuid() == 0)
		return;
	print_message("only root can become two other users\n");
	skip();
}

void become(uid_t uid, gid_t gid, const gid_t *groups, size_t n)
{
	CHECK_OK(setgroups(n, groups));
	CHECK_OK(setresgid(gid, gid, gid));
	CHECK_OK(setresuid(uid, uid, uid));
}

struct call {
	int (*run)(int ctl, void *arg);
	void *arg;
};

static int run_and_exit(int ctl, void *arg)
{
	static struct fds before;
	const struct call *call = arg;
	int status;

	fds_take(&before);
	status = call->run(ctl, call->arg);
	if (fds_differ(&before) && status == 0)
		status = CHILD_LEAKED;
	(void)fflush(NULL);
	_exit(status);
}

void child_of_threads(struct child *child, int (*run)(int ctl, void *arg), void *arg)
{
	struct call call = { run, arg };

	/* A sanitizer's allocator is not ready for a fork in the middle of something. */
	if (check_slow())
		(void)usleep(5000);
	child_start(child, run_and_exit, &call);
}

void fails(const char *file, int line, const char *what, long long result, int e)
{
	int got = errno;

	if (result == -1 && got == e)
		return;
	(void)fprintf(stderr, "%s:%d: %s is %lld with errno %d (%s), and not -1 with %d (%s)\n",
		      file, line, what, result, got, strerror(got), e, strerror(e));
	check_failed(file, line, what, result);
}

int serve(const char *name, int flags)
{
	return (int)CHECK_OK(caps_sys_service(name, geteuid(), getegid(), 0, flags));
}

int connect_to(const char *name, int flags)
{
	return (int)CHECK_OK(caps_sys_client(name, geteuid(), getegid(), 0, flags));
}

off_t put(int client, const char *text)
{
	char copy[256];
	off_t id;

	(void)snprintf(copy, sizeof(copy), "%s", text);
	id = (off_t)CHECK_OK(caps_sys_put(client, copy, (int)strlen(copy)));
	memset(copy, 'x', sizeof(copy)); /* the message is the library's now */
	return id;
}

/* caps_sys_get() until something comes: a test must not hang where the contract says it cannot. */
static int get_within(int port, void *buf, int max, caps_msgid_t id, int ms)
{
	int n;

	for (; ms > 0; ms--) {
		n = caps_sys_get(port, buf, max, id, NULL);
		if (n >= 0 || errno != EWOULDBLOCK)
			return n;
		(void)poll(NULL, 0, 1);
	}
	return caps_sys_get(port, buf, max, id, NULL);
}

off_t expect(int port, caps_msg_state_t state, const char *text)
{
	struct caps_msgid id = { 0 };
	char buf[256];
	int n = (int)CHECK_OK(get_within(port, buf, sizeof(buf), &id, check_hang_ms(3000)));

	CHECK(id.c_state == state);
	CHECK((size_t)n == strlen(text));
	CHECK(memcmp(buf, text, (size_t)n) == 0);
	return id.c_id;
}

void expect_id(int port, caps_msg_state_t state, const char *text, off_t id)
{
	CHECK(expect(port, state, text) == id);
}

void expect_nothing(int port)
{
	char byte;

	FAILS(get_within(port, &byte, 1, NULL, 30), EWOULDBLOCK);
}

void round_trip(int client, int service)
{
	off_t id = put(client, "question"), at_service = expect(service, CAPMS_REQUEST, "question");

	CHECK_OK(caps_sys_reply(service, "answer", 6, at_service));
	expect_id(client, CAPMS_REPLY, "answer", id);
	expect_id(service, CAPMS_DISPOSE, "", at_service);
}

void retrieve_all(int port)
{
	char byte;

	while (caps_sys_get(port, &byte, 1, NULL, NULL) == 0)
		;
}
