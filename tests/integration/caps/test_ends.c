/* SPDX-License-Identifier: MIT */
/* The contract, third part: how things end. Closing, death, fork, abort. */
#include "fixture.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

/* A service in a child process that does what the bytes on `ctl` say. */
static int service_child(int ctl, void *arg)
{
	int service = serve("ends", CAPF_ANYCLIENT);
	struct caps_msgid id = { 0 };
	char buf[64];

	(void)arg;
	child_say(ctl, 'r');
	for (;;) {
		switch (child_hear(ctl, check_hang_ms(10000))) {
		case 'g': /* retrieve a request */
			do
				CHECK_OK(caps_sys_wait(service, buf, sizeof(buf), &id, NULL));
			while (id.c_state != CAPMS_REQUEST);
			break;
		case 'a': /* answer it */
			CHECK_OK(caps_sys_reply(service, "answer", 6, id.c_id));
			break;
		case 'c':
			CHECK_OK(caps_sys_close(service));
			break;
		case 'x':
			return 0;
		case 'X':
			_exit(0);
		default:
			return 1;
		}
		child_say(ctl, 'd');
	}
}

static void start_service(struct child *child)
{
	child_start(child, service_child, NULL);
	CHECK(child_hear(child->ctl, check_hang_ms(5000)) == 'r');
}

static void tell(const struct child *child, char what)
{
	child_say(child->ctl, what);
	CHECK(child_hear(child->ctl, check_hang_ms(5000)) == 'd');
}

/* -- a service ends ---------------------------------------------------------------------------- */

/* Three messages: one answered, one retrieved, one unread. Then `end` happens to the service. */
static void run_service_end(void (*end)(struct child *child))
{
	off_t ids[3];
	struct child child;
	int i, client;

	start_service(&child);
	client = connect_to("ends", CAPF_ANYCLIENT);
	for (i = 0; i < 3; i++)
		ids[i] = put(client, "question");
	tell(&child, 'g');
	tell(&child, 'a');
	tell(&child, 'g');
	end(&child);
	expect_id(client, CAPMS_REPLY, "answer", ids[0]);
	expect_id(client, CAPMS_REPLY, "", ids[1]);
	expect_id(client, CAPMS_REPLY, "", ids[2]);
	expect_nothing(client);
	FAILS(caps_sys_put(client, "more", 4), ENOTCONN);
	FAILS(caps_sys_wait(client, NULL, 0, NULL, NULL), ENOTCONN); /* ours: it waited for ever */
	assert_int_equal(caps_sys_close(client), 0);
	dir_remove_sockets();
}

static void end_by_close(struct child *child)
{
	tell(child, 'c');
	child_say(child->ctl, 'x');
	CHECK(child_finish(child, check_hang_ms(5000)) == 0);
}

static void end_by_kill(struct child *child)
{
	child_kill(child);
}

static void end_by_exit(struct child *child)
{
	child_say(child->ctl, 'X');
	CHECK(child_finish(child, check_hang_ms(5000)) == 0);
}

static void test_service_closes(void **state)
{
	(void)state;
	run_service_end(end_by_close);
}

static void test_service_is_killed(void **state)
{
	(void)state;
	run_service_end(end_by_kill);
}

static void test_service_exits(void **state)
{
	(void)state;
	run_service_end(end_by_exit);
}

/* The client has nothing under way and was elsewhere when it happened. */
static void test_put_notices_at_once(void **state)
{
	void (*ends[])(struct child *) = { end_by_close, end_by_kill, end_by_exit };
	int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		struct child child;
		int client;

		start_service(&child);
		client = connect_to("ends", CAPF_ANYCLIENT);
		(void)put(client, "question");
		tell(&child, 'g');
		tell(&child, 'a');
		(void)expect(client, CAPMS_REPLY, "answer");
		ends[i](&child);
		FAILS(caps_sys_put(client, "more", 4), ENOTCONN);
		assert_int_equal(caps_sys_close(client), 0);
		dir_remove_sockets();
	}
}

static void test_service_closes_in_process(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT), client = connect_to("ends", CAPF_ANYCLIENT);
	off_t id = put(client, "question");

	(void)state;
	assert_int_equal(caps_sys_close(service), 0);
	expect_id(client, CAPMS_REPLY, "", id);
	FAILS(caps_sys_put(client, "more", 4), ENOTCONN);
	assert_int_equal(caps_sys_close(client), 0);
}

/* -- a client ends ----------------------------------------------------------------------------- */

static int client_child(int ctl, void *arg)
{
	int client = connect_to("ends", CAPF_ANYCLIENT);

	(void)arg;
	(void)put(client, "retrieved");
	(void)put(client, "answered");
	(void)put(client, "unread");
	child_say(ctl, 'r');
	switch (child_hear(ctl, check_hang_ms(10000))) {
	case 'c':
		CHECK_OK(caps_sys_close(client));
		child_say(ctl, 'd');
		CHECK(child_hear(ctl, check_hang_ms(10000)) == 'x');
		return 0;
	case 'X':
		_exit(0);
	default:
		return 1;
	}
}

static void run_client_end(void (*end)(struct child *child))
{
	int service = serve("ends", CAPF_ANYCLIENT);
	off_t retrieved, answered;
	struct child child;

	child_of_threads(&child, client_child, NULL);
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
	retrieved = expect(service, CAPMS_REQUEST, "retrieved");
	answered = expect(service, CAPMS_REQUEST, "answered");
	CHECK_OK(caps_sys_reply(service, "nobody takes it", 15, answered));
	end(&child);
	/* Both of them, in any order, and nothing else: the third has vanished. */
	if (expect(service, CAPMS_DISPOSE, "") == retrieved)
		expect_id(service, CAPMS_DISPOSE, "", answered);
	else
		expect_id(service, CAPMS_DISPOSE, "", retrieved);
	expect_nothing(service);
	FAILS(caps_sys_reply(service, NULL, 0, retrieved), EINVAL);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_client_closes(void **state)
{
	(void)state;
	run_client_end(end_by_close);
}

static void test_client_is_killed(void **state)
{
	(void)state;
	run_client_end(end_by_kill);
}

static void test_client_exits(void **state)
{
	(void)state;
	run_client_end(end_by_exit);
}

static void test_unread_vanishes(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT), client = connect_to("ends", CAPF_ANYCLIENT);
	char buf[8];

	(void)state;
	(void)put(client, "unread");
	assert_int_equal(caps_sys_close(client), 0);
	FAILS(caps_sys_get(service, buf, 8, NULL, NULL), EWOULDBLOCK);
	/* Also after its beginning was seen. */
	client = connect_to("ends", CAPF_ANYCLIENT);
	(void)put(client, "unread");
	assert_int_equal(caps_sys_wait(service, buf, 2, NULL, NULL), 6);
	assert_int_equal(caps_sys_close(client), 0);
	expect_nothing(service);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_reply_to_nobody(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT), client = connect_to("ends", CAPF_ANYCLIENT);
	off_t id;

	(void)state;
	(void)put(client, "question");
	id = expect(service, CAPMS_REQUEST, "question");
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_reply(service, "answer", 6, id), 0);
	expect_id(service, CAPMS_DISPOSE, "", id);
	FAILS(caps_sys_reply(service, "answer", 6, id), EINVAL);
	expect_nothing(service);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_reply_outlives_service(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT), client = connect_to("ends", CAPF_ANYCLIENT);
	off_t id = put(client, "question");

	(void)state;
	CHECK_OK(caps_sys_reply(service, "answer", 6, expect(service, CAPMS_REQUEST, "question")));
	assert_int_equal(caps_sys_close(service), 0);
	expect_id(client, CAPMS_REPLY, "answer", id);
	assert_int_equal(caps_sys_close(client), 0);
}

/* -- fork -------------------------------------------------------------------------------------- */

struct ports {
	int service, client, hidden;
	off_t held;
};

static int forked_child(int ctl, void *arg)
{
	const struct ports *ports = arg;
	char buf[8];
	int client;

	(void)ctl;
	FAILS(caps_sys_put(ports->client, "x", 1), ENOTCONN);
	FAILS(caps_sys_get(ports->client, buf, 8, NULL, NULL), ENOTCONN);
	FAILS(caps_sys_wait(ports->client, buf, 8, NULL, NULL), ENOTCONN);
	FAILS(caps_sys_abort(ports->client, 1, 0), ENOTCONN);
	FAILS(caps_sys_getgen(ports->client), ENOTCONN);
	FAILS(caps_sys_reply(ports->service, "x", 1, ports->held), ENOTCONN);
	FAILS(caps_sys_get(ports->service, buf, 8, NULL, NULL), ENOTCONN);
	FAILS(caps_sys_wait(ports->service, buf, 8, NULL, NULL), ENOTCONN);
	FAILS(caps_sys_setgen(ports->service, 1), ENOTCONN);
	FAILS(caps_upcall_fd(ports->service), ENOTCONN);
	FAILS(caps_limit(ports->service, 1), ENOTCONN);

	FAILS(caps_sys_put(ports->hidden, "x", 1), EINVAL);
	FAILS(caps_sys_wait(ports->hidden, buf, 8, NULL, NULL), EINVAL);
	FAILS(caps_sys_close(ports->hidden), EINVAL);

	/* As a robust program does: close and connect anew. The number is free again. */
	CHECK_OK(caps_sys_close(ports->client));
	FAILS(caps_sys_put(ports->client, "x", 1), EINVAL);
	client = connect_to("ends", CAPF_ANYCLIENT);
	CHECK(client > 0 && client != ports->service);
	(void)put(client, "from the child");
	CHECK(caps_sys_wait(client, buf, 8, NULL, NULL) == 2);
	CHECK_OK(caps_sys_close(client));
	CHECK_OK(caps_sys_close(ports->service));
	FAILS(caps_sys_close(ports->service), EINVAL);
	return 0;
}

static void test_fork(void **state)
{
	struct ports ports;
	struct child child;
	off_t id, other;

	(void)state;
	ports.service = serve("ends", CAPF_ANYCLIENT);
	ports.client = connect_to("ends", CAPF_ANYCLIENT);
	ports.hidden = connect_to("ends", CAPF_ANYCLIENT | CAPF_NOFORK);
	id = put(ports.client, "question");
	ports.held = expect(ports.service, CAPMS_REQUEST, "question");
	child_of_threads(&child, forked_child, &ports);
	other = expect(ports.service, CAPMS_REQUEST, "from the child");
	CHECK_OK(caps_sys_reply(ports.service, "ok", 2, other));
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	/* Nothing of this has touched the parent's. */
	expect_id(ports.service, CAPMS_DISPOSE, "", other);
	CHECK_OK(caps_sys_reply(ports.service, "answer", 6, ports.held));
	expect_id(ports.client, CAPMS_REPLY, "answer", id);
	retrieve_all(ports.service);
	round_trip(ports.hidden, ports.service);
	assert_int_equal(caps_sys_close(ports.hidden), 0);
	assert_int_equal(caps_sys_close(ports.client), 0);
	assert_int_equal(caps_sys_close(ports.service), 0);
}

static int grandchild_child(int ctl, void *arg)
{
	const struct ports *ports = arg;
	pid_t pid;
	int status;

	(void)ctl;
	pid = (pid_t)CHECK_OK(fork());
	if (pid == 0) {
		FAILS(caps_sys_put(ports->client, "x", 1), ENOTCONN);
		FAILS(caps_sys_put(ports->hidden, "x", 1), EINVAL);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	/* Ports that are left open here are the parent's still. */
	return 0;
}

static void test_fork_of_fork(void **state)
{
	struct ports ports = { 0 };
	struct child child;

	(void)state;
	ports.service = serve("ends", CAPF_ANYCLIENT);
	ports.client = connect_to("ends", CAPF_ANYCLIENT);
	ports.hidden = connect_to("ends", CAPF_ANYCLIENT | CAPF_NOFORK);
	child_of_threads(&child, grandchild_child, &ports);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	round_trip(ports.client, ports.service);
	assert_int_equal(caps_sys_close(ports.hidden), 0);
	assert_int_equal(caps_sys_close(ports.client), 0);
	assert_int_equal(caps_sys_close(ports.service), 0);
}

/* -- abort ------------------------------------------------------------------------------------- */

static void test_abort_wrong(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT), client = connect_to("ends", CAPF_ANYCLIENT);

	(void)state;
	FAILS(caps_sys_abort(client, 12345, 0), EINVAL);
	FAILS(caps_sys_abort(service, 12345, 0), EINVAL);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_abort_returned(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT), client = connect_to("ends", CAPF_ANYCLIENT);
	off_t id = put(client, "question");

	(void)state;
	CHECK_OK(caps_sys_reply(service, "answer", 6, expect(service, CAPMS_REQUEST, "question")));
	assert_int_equal(caps_sys_abort(client, id, 0), CAPS_ABORT_RETURNED);
	assert_int_equal(caps_sys_abort(client, id, CAPF_ABORT_HARD), CAPS_ABORT_RETURNED);
	expect_id(client, CAPMS_REPLY, "answer", id);
	FAILS(caps_sys_abort(client, id, 0), EINVAL); /* it is over */
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_abort_before_server(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT), client = connect_to("ends", CAPF_ANYCLIENT);
	int i, flags[] = { 0, CAPF_ABORT_HARD };

	(void)state;
	for (i = 0; i < 2; i++) {
		off_t id = put(client, "question");

		if (i)
			(void)usleep(60000); /* the attendant is there, and must not take it */
		assert_int_equal(caps_sys_abort(client, id, flags[i]), CAPS_ABORT_BEFORESERVER);
		expect_id(client, CAPMS_REPLY, "", id);
		expect_nothing(service);
	}
	round_trip(client, service);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_abort_at_server(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT), client = connect_to("ends", CAPF_ANYCLIENT);
	off_t id = put(client, "question"), at_service = expect(service, CAPMS_REQUEST, "question");

	(void)state;
	assert_int_equal(caps_sys_abort(client, id, 0), CAPS_ABORT_ATSERVER);
	/* The service may answer all the same, and the client gets it. */
	CHECK_OK(caps_sys_reply(service, "answer", 6, at_service));
	expect_id(client, CAPMS_REPLY, "answer", id);
	expect_id(service, CAPMS_DISPOSE, "", at_service);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_abort_tells_the_service(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT | CAPF_NOTICE), client;
	off_t id, at_service;

	(void)state;
	client = connect_to("ends", CAPF_ANYCLIENT);
	(void)expect(service, CAPMS_CONNECT, "");
	id = put(client, "question");
	at_service = expect(service, CAPMS_REQUEST, "question");
	assert_int_equal(caps_sys_abort(client, id, 0), CAPS_ABORT_ATSERVER);
	expect_id(service, CAPMS_ABORT, "", at_service);
	CHECK_OK(caps_sys_reply(service, "hurry", 5, at_service));
	expect_id(client, CAPMS_REPLY, "hurry", id);
	expect_id(service, CAPMS_DISPOSE, "", at_service);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

/* A client that goes on asking costs the service one notice at a time. */
static void test_abort_repeated(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT | CAPF_NOTICE), client, i, n;
	off_t id, at_service;
	char byte;

	(void)state;
	client = connect_to("ends", CAPF_ANYCLIENT);
	(void)expect(service, CAPMS_CONNECT, "");
	id = put(client, "question");
	at_service = expect(service, CAPMS_REQUEST, "question");
	(void)CHECK_OK(caps_upcall_fd(service)); /* what comes is taken in at once */
	for (i = 0; i < 2; i++) {
		for (n = 0; n < 20; n++) {
			assert_int_equal(caps_sys_abort(client, id, 0), CAPS_ABORT_ATSERVER);
			(void)usleep(1000);
		}
		expect_id(service, CAPMS_ABORT, "", at_service);
		/* What comes late may be told once more. */
		for (n = 0; caps_sys_get(service, &byte, 1, NULL, NULL) == 0; n++)
			;
		assert_in_range(n, 0, 2);
	}
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_abort_hard(void **state)
{
	int service = serve("ends", CAPF_ANYCLIENT), client = connect_to("ends", CAPF_ANYCLIENT);
	off_t id = put(client, "question"), at_service = expect(service, CAPMS_REQUEST, "question");

	(void)state;
	assert_int_equal(caps_sys_abort(client, id, CAPF_ABORT_HARD), CAPS_ABORT_ATSERVER);
	FAILS(caps_sys_reply(service, "answer", 6, at_service), EINVAL);
	expect_id(client, CAPMS_REPLY, "", id);
	expect_id(service, CAPMS_DISPOSE, "", at_service);
	FAILS(caps_sys_reply(service, "answer", 6, at_service), EINVAL);
	expect_nothing(client);
	round_trip(client, service);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		SENTENCE(
			"a service closes: what it has not answered is, with length 0; then ENOTCONN",
			test_service_closes),
		SENTENCE("a service is killed: the same", test_service_is_killed),
		SENTENCE("a service exits: the same", test_service_exits),
		SENTENCE("put: ENOTCONN once the service has gone, without any other call between",
			 test_put_notices_at_once),
		SENTENCE("a service closes in the client's own process: the same",
			 test_service_closes_in_process),
		SENTENCE(
			"a client closes: unread requests vanish, retrieved ones come back as DISPOSE",
			test_client_closes),
		SENTENCE("a client is killed: the same", test_client_is_killed),
		SENTENCE("a client exits: the same", test_client_exits),
		SENTENCE("a request that was never retrieved vanishes at once",
			 test_unread_vanishes),
		SENTENCE("reply: if the client has gone the message comes back as DISPOSE",
			 test_reply_to_nobody),
		SENTENCE("a reply that was given outlives its service",
			 test_reply_outlives_service),
		SENTENCE("fork: the child's ports say ENOTCONN, with CAPF_NOFORK EINVAL",
			 test_fork),
		SENTENCE("fork: so do the grandchild's, and the parent's go on", test_fork_of_fork),
		SENTENCE("abort: EINVAL for an unknown message", test_abort_wrong),
		SENTENCE("abort: RETURNED when the reply is there", test_abort_returned),
		SENTENCE(
			"abort: BEFORESERVER when it was caught unread; it returns as an empty reply",
			test_abort_before_server),
		SENTENCE("abort: ATSERVER when the service holds it; it may still reply",
			 test_abort_at_server),
		SENTENCE("abort: the service is told", test_abort_tells_the_service),
		SENTENCE("abort: the service is told once until it has listened",
			 test_abort_repeated),
		SENTENCE("abort: CAPF_ABORT_HARD takes it away, and a later reply is EINVAL",
			 test_abort_hard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
