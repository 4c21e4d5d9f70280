/* SPDX-License-Identifier: MIT */
/* The additions: notification by upcid, notices, and the flags that the original only announced. */
#include "fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

static bool readable(int fd, int ms)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	return poll(&poller, 1, ms) == 1;
}

static bool soon(int fd)
{
	return readable(fd, check_hang_ms(3000));
}

/* -- an eventfd of the caller's ---------------------------------------------------------------- */

static uint64_t drain(int fd)
{
	uint64_t count = 0;

	CHECK(read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count));
	return count;
}

static void test_eventfd(void **state)
{
	int at_service = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int at_client = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int service, client;
	off_t id;

	(void)state;
	service = caps_sys_service("told", geteuid(), getegid(), at_service, CAPF_ANYCLIENT);
	client = caps_sys_client("told", geteuid(), getegid(), at_client, CAPF_ANYCLIENT);
	assert_true(service > 0 && client > 0);
	assert_false(readable(at_service, 20));
	(void)put(client, "question");
	assert_true(soon(at_service));
	(void)drain(at_service);
	id = expect(service, CAPMS_REQUEST, "question");
	assert_false(readable(at_service, 20));
	assert_false(readable(at_client, 0));
	CHECK_OK(caps_sys_reply(service, "answer", 6, id));
	assert_true(soon(at_client));
	(void)drain(at_client);
	(void)expect(client, CAPMS_REPLY, "answer");
	/* Two at once, of which one is retrieved: it says so again. */
	(void)put(client, "1");
	(void)put(client, "2");
	assert_true(soon(at_service));
	(void)usleep(20000);
	(void)drain(at_service);
	expect_id(service, CAPMS_DISPOSE, "", id);
	assert_true(soon(at_service));
	(void)drain(at_service);
	(void)expect(service, CAPMS_REQUEST, "1");
	assert_true(soon(at_service));
	(void)expect(service, CAPMS_REQUEST, "2");
	/* The port has a duplicate: the caller may close its own. */
	CHECK_OK(close(at_service));
	(void)put(client, "3");
	(void)expect(service, CAPMS_REQUEST, "3");
	assert_int_equal(caps_sys_close(service), 0);
	assert_true(soon(at_client)); /* three empty replies */
	for (id = 0; id < 3; id++)
		(void)expect(client, CAPMS_REPLY, "");
	assert_int_equal(caps_sys_close(client), 0);
	CHECK_OK(close(at_client));
}

static void test_upcid_old_programs(void **state)
{
	int upcids[] = { 0, -1 };
	int i, port;

	(void)state;
	for (i = 0; i < 2; i++) {
		port = caps_sys_service("told", geteuid(), getegid(), upcids[i], CAPF_ANYCLIENT);
		assert_true(port > 0);
		assert_int_equal(caps_sys_close(port), 0);
	}
}

static void test_upcid_wrong(void **state)
{
	int pipes[2], upcids[4], i;

	(void)state;
	CHECK_OK(pipe(pipes));
	upcids[0] = pipes[1];
	upcids[1] = 1 << 29;
	upcids[2] = -5;
	upcids[3] = (1 << 30) + 77;
	for (i = 0; i < 4; i++) {
		FAILS(caps_sys_service("told", geteuid(), getegid(), upcids[i], CAPF_ANYCLIENT),
		      EINVAL);
		FAILS(caps_sys_client("told", geteuid(), getegid(), upcids[i], CAPF_ANYCLIENT),
		      EINVAL);
	}
	CHECK_OK(close(pipes[0]));
	CHECK_OK(close(pipes[1]));
	FAILS(caps_upcall_function(NULL, NULL), EINVAL);
	FAILS(caps_upcall_release((1 << 30) + 77), EINVAL);
}

/* -- a descriptor of the library's ------------------------------------------------------------- */

static void test_upcall_fd(void **state)
{
	int service = serve("told", CAPF_ANYCLIENT), client = connect_to("told", CAPF_ANYCLIENT);
	int at_service = caps_upcall_fd(service), at_client = caps_upcall_fd(client), i;

	(void)state;
	assert_true(at_service >= 0 && at_client >= 0);
	assert_int_equal(caps_upcall_fd(service), at_service);
	assert_true(fcntl(at_service, F_GETFD) & FD_CLOEXEC);
	for (i = 0; i < 3; i++) {
		off_t id;

		/* Later there is a dispose, which may have been noticed and may not. */
		if (i == 0)
			assert_false(readable(at_service, 10));
		(void)put(client, "1");
		(void)put(client, "2");
		assert_true(soon(at_service));
		if (i)
			(void)expect(service, CAPMS_DISPOSE, "");
		id = expect(service, CAPMS_REQUEST, "1");
		assert_true(soon(at_service)); /* level-triggered: there is another */
		(void)expect(service, CAPMS_REQUEST, "2");
		assert_false(readable(at_service, 0));
		assert_false(readable(at_client, 0));
		CHECK_OK(caps_sys_reply(service, "one", 3, id));
		assert_true(soon(at_client));
		assert_true(
			readable(at_client, 0)); /* it stays so until the message was retrieved */
		(void)expect(client, CAPMS_REPLY, "one");
		assert_false(readable(at_client, 0));
	}
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
	assert_int_equal(fcntl(at_service, F_GETFD), -1);
}

/*
 * A whole service in a poll loop, and clients that wait: every message goes through the descriptor.
 */
static void *poll_service(void *arg)
{
	int service = *(int *)arg, fd = caps_upcall_fd(service), n_left = 300;
	struct caps_msgid id;
	char buf[16];

	while (n_left > 0) {
		int n;

		CHECK(soon(fd));
		while ((n = caps_sys_get(service, buf, sizeof(buf), &id, NULL)) >= 0) {
			if (id.c_state != CAPMS_REQUEST)
				continue;
			CHECK_OK(caps_sys_reply(service, buf, n, id.c_id));
			n_left--;
		}
		CHECK(errno == EWOULDBLOCK);
	}
	return NULL;
}

static void test_upcall_fd_loop(void **state)
{
	int service = serve("told", CAPF_ANYCLIENT), client = connect_to("told", CAPF_ANYCLIENT), i;
	pthread_t thread;
	char buf[8];

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, poll_service, &service), 0);
	for (i = 0; i < 300; i++) {
		(void)put(client, "ping");
		assert_int_equal(caps_sys_wait(client, buf, 8, NULL, NULL), 4);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

/* -- a function -------------------------------------------------------------------------------- */

struct upcalls {
	_Atomic int n, busy, requests;
	_Atomic int port;
	pthread_t main_thread;
};

static void serve_upcall(int port, void *arg)
{
	struct upcalls *upcalls = arg;
	struct caps_msgid id;
	char buf[16];
	int n;

	CHECK(atomic_fetch_add(&upcalls->busy, 1) == 0);
	CHECK(!pthread_equal(pthread_self(), upcalls->main_thread));
	atomic_store(&upcalls->port, port);
	atomic_fetch_add(&upcalls->n, 1);
	while ((n = caps_sys_get(port, buf, sizeof(buf), &id, NULL)) >= 0) {
		if (id.c_state != CAPMS_REQUEST)
			continue;
		atomic_fetch_add(&upcalls->requests, 1);
		CHECK_OK(caps_sys_reply(port, buf, n, id.c_id));
	}
	atomic_fetch_sub(&upcalls->busy, 1);
}

static void test_upcall_function(void **state)
{
	struct upcalls upcalls = { .main_thread = pthread_self() };
	int upcid = caps_upcall_function(serve_upcall, &upcalls), service, client, i;
	char buf[8];

	(void)state;
	assert_true(upcid > 0);
	service = caps_sys_service("called", geteuid(), getegid(), upcid, CAPF_ANYCLIENT);
	assert_true(service > 0);
	assert_int_equal(caps_upcall_release(upcid), 0); /* the port keeps it */
	FAILS(caps_upcall_release(upcid), EINVAL);
	FAILS(caps_sys_client("called", geteuid(), getegid(), upcid, CAPF_ANYCLIENT), EINVAL);
	client = connect_to("called", CAPF_ANYCLIENT);
	for (i = 0; i < 200; i++) {
		(void)put(client, "ping");
		assert_int_equal(caps_sys_wait(client, buf, 8, NULL, NULL), 4);
	}
	assert_int_equal(upcalls.requests, 200);
	assert_true(upcalls.n >= 1);
	assert_int_equal(upcalls.port, service);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

/* Retrieves one message at a time: it is called again for the next. */
static void lazy_upcall(int port, void *arg)
{
	char buf[8];

	if (caps_sys_get(port, buf, sizeof(buf), NULL, NULL) >= 0)
		atomic_fetch_add((_Atomic int *)arg, 1);
}

static void await(const _Atomic int *number, int n)
{
	int ms;

	for (ms = check_hang_ms(3000); ms > 0 && atomic_load(number) != n; ms--)
		(void)usleep(1000);
	CHECK(atomic_load(number) == n);
}

static void test_upcall_level(void **state)
{
	_Atomic int n = 0;
	int upcid = caps_upcall_function(lazy_upcall, &n), service, client, i;

	(void)state;
	service = caps_sys_service("called", geteuid(), getegid(), upcid, CAPF_ANYCLIENT);
	client = connect_to("called", CAPF_ANYCLIENT);
	for (i = 0; i < 20; i++)
		(void)put(client, "x");
	await(&n, 20);
	assert_int_equal(caps_upcall_release(upcid), 0);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void closing_upcall(int port, void *arg)
{
	CHECK_OK(caps_sys_close(port));
	FAILS(caps_sys_close(port), EINVAL);
	atomic_fetch_add((_Atomic int *)arg, 1);
}

static void test_upcall_closes_port(void **state)
{
	_Atomic int n = 0;
	int upcid = caps_upcall_function(closing_upcall, &n), i;

	(void)state;
	for (i = 0; i < 10; i++) {
		int service =
			caps_sys_service("called", geteuid(), getegid(), upcid, CAPF_ANYCLIENT);
		int client = connect_to("called", CAPF_ANYCLIENT);
		off_t id = put(client, "x");

		await(&n, i + 1);
		expect_id(client, CAPMS_REPLY, "", id);
		assert_int_equal(caps_sys_close(client), 0);
		FAILS(caps_sys_close(service), EINVAL);
	}
	assert_int_equal(caps_upcall_release(upcid), 0);
}

/* The child of an upcall that returns from it has nothing more to do, and ends. */
static void forking_upcall(int port, void *arg)
{
	_Atomic pid_t *pid = arg;
	char buf[8];

	if (caps_sys_get(port, buf, sizeof(buf), NULL, NULL) != 1 || atomic_load(pid))
		return;
	atomic_store(pid, (pid_t)CHECK_OK(fork()));
	if (atomic_load(pid) == 0)
		FAILS(caps_sys_get(port, buf, sizeof(buf), NULL, NULL), ENOTCONN);
}

static void test_upcall_forks(void **state)
{
	_Atomic pid_t pid = 0;
	int upcid = caps_upcall_function(forking_upcall, &pid), service, client, status = 0, ms;

	(void)state;
	if (check_slow()) {
		print_message("sanitizers want the first thread to end a process\n");
		skip();
	}
	service = caps_sys_service("called", geteuid(), getegid(), upcid, CAPF_ANYCLIENT);
	client = connect_to("called", CAPF_ANYCLIENT);
	(void)put(client, "x");
	for (ms = check_hang_ms(3000); ms && !atomic_load(&pid); ms--)
		(void)usleep(1000);
	for (; ms && waitpid(atomic_load(&pid), &status, WNOHANG) == 0; ms--)
		(void)usleep(1000);
	assert_true(ms > 0);
	assert_int_equal(status, 0);
	(void)put(client, "y"); /* here everything goes on */
	expect_nothing(client);
	assert_int_equal(caps_upcall_release(upcid), 0);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

/* -- notices ----------------------------------------------------------------------------------- */

static void test_notices(void **state)
{
	int service = serve("noticed", CAPF_ANYCLIENT | CAPF_NOTICE), a, b;
	struct caps_cred cred;
	struct caps_msgid id;
	off_t connection_a, connection_b, request;
	char buf[8];

	(void)state;
	a = connect_to("noticed", CAPF_ANYCLIENT);
	(void)put(a, "hello");
	assert_int_equal(caps_sys_wait(service, buf, 8, &id, &cred), 0);
	assert_int_equal(id.c_state, CAPMS_CONNECT);
	assert_int_equal(cred.pid, getpid());
	assert_int_equal(cred.cacheid, id.c_id);
	connection_a = id.c_id;
	assert_true(connection_a > 0);
	FAILS(caps_sys_reply(service, "no", 2, id.c_id), EINVAL); /* it is not a request */
	assert_int_equal(caps_sys_wait(service, buf, 8, &id, &cred), 5);
	assert_int_equal(id.c_state, CAPMS_REQUEST);
	assert_int_equal(cred.cacheid, connection_a);
	request = id.c_id;
	b = connect_to("noticed", CAPF_ANYCLIENT);
	connection_b = expect(service, CAPMS_CONNECT, "");
	assert_true(connection_b != connection_a);
	assert_int_equal(caps_sys_close(a), 0);
	expect_id(service, CAPMS_DISPOSE, "", request); /* its last message, and then the notice */
	expect_id(service, CAPMS_DISCONNECT, "", connection_a);
	assert_int_equal(caps_sys_close(b), 0);
	expect_id(service, CAPMS_DISCONNECT, "", connection_b);
	expect_nothing(service);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_notice_wakes(void **state)
{
	int service = serve("noticed", CAPF_ANYCLIENT | CAPF_NOTICE), fd = caps_upcall_fd(service),
	    client;

	(void)state;
	assert_false(readable(fd, 20));
	client = connect_to("noticed", CAPF_ANYCLIENT);
	assert_true(soon(fd));
	(void)expect(service, CAPMS_CONNECT, "");
	assert_int_equal(caps_sys_close(client), 0);
	assert_true(soon(fd));
	(void)expect(service, CAPMS_DISCONNECT, "");
	assert_int_equal(caps_sys_close(service), 0);
}

/* A program that never asked sees none, and one that looks late sees no pair that is over. */
static void test_notices_only_where_asked(void **state)
{
	int service = serve("noticed", CAPF_ANYCLIENT), i;

	(void)state;
	for (i = 0; i < 3; i++)
		assert_int_equal(caps_sys_close(connect_to("noticed", CAPF_ANYCLIENT)), 0);
	expect_nothing(service);
	assert_int_equal(caps_sys_close(service), 0);
	service = serve("noticed", CAPF_ANYCLIENT | CAPF_NOTICE);
	for (i = 0; i < 3; i++)
		assert_int_equal(caps_sys_close(connect_to("noticed", CAPF_ANYCLIENT)), 0);
	expect_nothing(service);
	assert_int_equal(caps_sys_close(service), 0);
}

/* -- the flags that were announced ------------------------------------------------------------- */

static void test_nogroups(void **state)
{
	int service = serve("flags", CAPF_ANYCLIENT | CAPF_NOGROUPS);
	int client = connect_to("flags", CAPF_ANYCLIENT | CAPF_NOGROUPS);
	struct caps_cred cred;
	struct caps_msgid id;
	char buf[8];
	int i;

	(void)state;
	memset(&cred, 0x5a, sizeof(cred));
	(void)put(client, "x");
	assert_int_equal(caps_sys_wait(service, buf, 8, &id, &cred), 1);
	assert_int_equal(cred.pid, getpid());
	assert_int_equal(cred.euid, geteuid());
	assert_int_equal(cred.ngroups, 0);
	for (i = 0; i < CAPS_MAXGROUPS; i++)
		assert_int_equal(cred.groups[i], 0x5a5a5a5a);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static int term_child(int ctl, void *arg)
{
	int flags = *(int *)arg, service = serve("term", CAPF_ANYCLIENT | flags);
	struct caps_msgid id;
	char buf[8];

	child_say(ctl, 'r');
	if (!(flags & CAPF_NOTICE)) {
		CHECK(child_hear(ctl, check_hang_ms(5000)) == 'x');
		FAILS(caps_sys_get(service, buf, 8, NULL, NULL), EWOULDBLOCK);
		CHECK_OK(caps_sys_close(service));
		return 0;
	}
	CHECK(caps_sys_wait(service, buf, 8, &id, NULL) == 0);
	CHECK(id.c_state == CAPMS_TERM);
	CHECK_OK(caps_sys_close(service));
	return 0;
}

static void test_term(void **state)
{
	int i, flags[] = { CAPF_NOTICE, 0 };

	(void)state;
	for (i = 0; i < 2; i++) {
		struct child child;
		int service;

		child_start(&child, term_child, &flags[i]);
		CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
		service = serve("term", CAPF_ANYCLIENT | CAPF_TERM);
		if (!flags[i])
			child_say(child.ctl, 'x');
		assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
		assert_int_equal(caps_sys_close(service), 0);
	}
}

static int take_child(int ctl, void *arg)
{
	int service = serve("take", CAPF_ANYCLIENT);
	off_t id;

	(void)arg;
	child_say(ctl, 'r');
	id = expect(service, CAPMS_REQUEST, "old");
	CHECK_OK(caps_sys_reply(service, "from the old", 12, id));
	CHECK(child_hear(ctl, check_hang_ms(5000)) == 'x');
	CHECK_OK(caps_sys_close(service));
	return 0;
}

/* A reply from this process. */
static void expect_from(int client, const char *text, pid_t pid)
{
	struct caps_cred cred;
	char buf[16];

	CHECK(caps_sys_wait(client, buf, 16, NULL, &cred) == (int)strlen(text));
	CHECK(memcmp(buf, text, strlen(text)) == 0);
	CHECK(cred.pid == pid);
}

static void test_take(void **state)
{
	struct child child;
	int service, client, late;
	off_t id;

	(void)state;
	child_start(&child, take_child, NULL);
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
	client = connect_to("take", CAPF_ANYCLIENT);
	(void)put(client, "old");
	expect_from(client, "from the old", child.pid);
	service = serve("take", CAPF_ANYCLIENT | CAPF_TAKE);
	/* The old client notices nothing, and new ones come to the new service. */
	(void)put(client, "new");
	id = expect(service, CAPMS_REQUEST, "new");
	CHECK_OK(caps_sys_reply(service, "from the new", 12, id));
	expect_from(client, "from the new", getpid());
	late = connect_to("take", CAPF_ANYCLIENT);
	retrieve_all(service);
	round_trip(late, service);
	child_say(child.ctl, 'x');
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	round_trip(client, service);
	assert_int_equal(caps_sys_close(late), 0);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_async(void **state)
{
	int service = serve("async", CAPF_ANYCLIENT), client;
	off_t id;

	(void)state;
	client = connect_to("async", CAPF_ANYCLIENT | CAPF_ASYNC);
	id = put(client, "early");
	CHECK_OK(caps_sys_reply(service, "bird", 4, expect(service, CAPMS_REQUEST, "early")));
	expect_id(client, CAPMS_REPLY, "bird", id);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
	FAILS(caps_sys_client("async", geteuid(), getegid(), 0, CAPF_ANYCLIENT | CAPF_ASYNC),
	      ENOENT);
}

static void test_async_before_service(void **state)
{
	int client = connect_to("async", CAPF_ANYCLIENT | CAPF_ASYNC | CAPF_WAITSVC), service, i;
	off_t ids[3];

	(void)state;
	assert_int_equal(caps_sys_getgen(client), 0);
	ids[0] = put(client, "a");
	ids[1] = put(client, "b");
	expect_nothing(client);
	service = serve("async", CAPF_ANYCLIENT);
	CHECK_OK(caps_sys_reply(service, "A", 1, expect(service, CAPMS_REQUEST, "a")));
	CHECK_OK(caps_sys_reply(service, "B", 1, expect(service, CAPMS_REQUEST, "b")));
	expect_id(client, CAPMS_REPLY, "A", ids[0]);
	expect_id(client, CAPMS_REPLY, "B", ids[1]);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
	/* And one that never comes. */
	client = connect_to("async", CAPF_ANYCLIENT | CAPF_ASYNC | CAPF_WAITSVC);
	for (i = 0; i < 3; i++)
		ids[i] = put(client, "x");
	assert_int_equal(caps_sys_abort(client, ids[1], 0), CAPS_ABORT_BEFORESERVER);
	expect_id(client, CAPMS_REPLY, "", ids[1]);
	assert_int_equal(caps_sys_close(client), 0);
}

static int silent_child(int ctl, void *arg)
{
	(void)arg;
	(void)serve("async", CAPF_ANYCLIENT);
	child_say(ctl, 'r');
	(void)child_hear(ctl, check_hang_ms(20000));
	return 1;
}

/* The service dies between the connection and its answer. */
static void test_async_next_service(void **state)
{
	struct child child;
	int client, service;
	off_t id;

	(void)state;
	child_start(&child, silent_child, NULL);
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
	CHECK_OK(kill(child.pid, SIGSTOP));
	child_await_state(child.pid, 'T', check_hang_ms(5000));
	client = connect_to("async", CAPF_ANYCLIENT | CAPF_ASYNC | CAPF_WAITSVC);
	id = put(client, "a");
	child_kill(&child);
	expect_nothing(client);
	service = serve("async", CAPF_ANYCLIENT);
	CHECK_OK(caps_sys_reply(service, "A", 1, expect(service, CAPMS_REQUEST, "a")));
	expect_id(client, CAPMS_REPLY, "A", id);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_async_not_permitted(void **state)
{
	int service = caps_sys_service("async", UID_ANY, getegid(), 0, CAPF_USER), client;
	off_t id;
	char buf[4];

	(void)state;
	assert_true(service > 0);
	client = caps_sys_client("async", UID_ANY, getegid(), 0, CAPF_ANYCLIENT | CAPF_ASYNC);
	assert_true(client > 0);
	id = caps_sys_put(client, "x", 1);
	if (id >= 0)
		expect_id(client, CAPMS_REPLY, "", id);
	FAILS(caps_sys_wait(client, buf, 4, NULL, NULL), ENOTCONN);
	FAILS(caps_sys_put(client, "x", 1), ENOTCONN);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

/* -- an idle service --------------------------------------------------------------------------- */

static int idle_child(int ctl, void *arg)
{
	int service = serve("idle", CAPF_ANYCLIENT);
	struct caps_msgid id;
	char buf[8];

	(void)arg;
	child_say(ctl, 'r');
	while (caps_sys_wait(service, buf, 8, &id, NULL) != 1 || buf[0] != 'x') {
		if (id.c_state == CAPMS_REQUEST)
			CHECK_OK(caps_sys_reply(service, buf, 0, id.c_id));
	}
	CHECK_OK(caps_sys_close(service));
	return 0;
}

static bool with_tsan(void)
{
#if defined(__SANITIZE_THREAD__)
	return true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
	return true;
#else
	return false;
#endif
#else
	return false;
#endif
}

static void test_idle(void **state)
{
	struct child child;
	int client;
	long before;

	(void)state;
	if (with_tsan()) {
		print_message("the thread sanitizer has a thread of its own that is never idle\n");
		skip();
	}
	child_start(&child, idle_child, NULL);
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
	client = connect_to("idle", CAPF_ANYCLIENT);
	(void)put(client, "1");
	(void)expect(client, CAPMS_REPLY, "");
	/*
	 * The attendant takes a while to believe it. On a busy machine it may not have come to that
	 * yet.
	 */
	(void)usleep(700000);
	for (int i = 0;; i++) {
		before = child_switches(child.pid);
		(void)usleep(500000);
		if (child_switches(child.pid) == before)
			break;
		assert_true(i < 5);
	}
	(void)put(client, "x");
	(void)expect(client, CAPMS_REPLY, "");
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	assert_int_equal(caps_sys_close(client), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		SENTENCE("upcid: an eventfd becomes readable when there is something to retrieve",
			 test_eventfd),
		SENTENCE("upcid: 0 and -1 are none, as old programs pass them",
			 test_upcid_old_programs),
		SENTENCE("upcid: EINVAL for anything else", test_upcid_wrong),
		SENTENCE("caps_upcall_fd: readable while there is something to retrieve",
			 test_upcall_fd),
		SENTENCE("caps_upcall_fd: a service in a poll loop misses nothing",
			 test_upcall_fd_loop),
		SENTENCE("upcall: runs on a thread of the library, never twice at once",
			 test_upcall_function),
		SENTENCE("upcall: comes again while something is left", test_upcall_level),
		SENTENCE("upcall: may close its port", test_upcall_closes_port),
		SENTENCE("upcall: may fork", test_upcall_forks),
		SENTENCE("CAPF_NOTICE: a client connects and disconnects", test_notices),
		SENTENCE("CAPF_NOTICE: a notice is something to retrieve", test_notice_wakes),
		SENTENCE("CAPF_NOTICE: others see none", test_notices_only_where_asked),
		SENTENCE("CAPF_NOGROUPS: groups[] is left alone", test_nogroups),
		SENTENCE("CAPF_TERM: the service that is there is asked to end", test_term),
		SENTENCE("CAPF_TAKE: its connections are taken over", test_take),
		SENTENCE("CAPF_ASYNC: messages are kept until the service has answered",
			 test_async),
		SENTENCE("CAPF_ASYNC with CAPF_WAITSVC: and until there is one",
			 test_async_before_service),
		SENTENCE("CAPF_ASYNC with CAPF_WAITSVC: one that dies before it answers is none",
			 test_async_next_service),
		SENTENCE("CAPF_ASYNC: what is not permitted comes back", test_async_not_permitted),
		SENTENCE("a service that is idle makes no system call", test_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
