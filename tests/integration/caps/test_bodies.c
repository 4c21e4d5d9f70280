/* SPDX-License-Identifier: MIT */
/*
 * Long messages: longer than the channel, in both directions, with a service that takes its time.
 */
#include "fixture.h"

#include "support/pattern.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

static char *new_body(size_t len, uint32_t seed)
{
	char *body = malloc(len + 1);

	CHECK(body != NULL);
	pattern_fill(body, len, 0, seed);
	return body;
}

static off_t put_body(int client, size_t len, uint32_t seed)
{
	char *body = new_body(len, seed);
	off_t id = (off_t)CHECK_OK(caps_sys_put(client, body, (int)len));

	memset(body, 0, len);
	free(body);
	return id;
}

static void reply_body(int service, off_t id, size_t len, uint32_t seed)
{
	char *body = new_body(len, seed);

	CHECK_OK(caps_sys_reply(service, body, (int)len, id));
	memset(body, 0, len);
	free(body);
}

/* Waits for a message of the state, with this body. Its id. */
static off_t take_body(int port, caps_msg_state_t state, size_t len, uint32_t seed)
{
	char *body = malloc(len + 1);
	struct caps_msgid id;
	int n;

	CHECK(body != NULL);
	do
		n = (int)CHECK_OK(caps_sys_wait(port, body, (int)len + 1, &id, NULL));
	while (id.c_state == CAPMS_DISPOSE && state != CAPMS_DISPOSE);
	CHECK(id.c_state == state);
	CHECK((size_t)n == len);
	CHECK(pattern_check(body, len, 0, seed) == len);
	free(body);
	return id.c_id;
}

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static const size_t lengths[] = { 0,	 1,	 39,	 40,	 41,	  4095,	  4096,
				  65536, 262143, 262144, 262145, 1000003, 5 << 20 };
#define N_LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

/* One process, one thread: nobody receives while the other half of it sends. */
static void test_lengths(void **state)
{
	int service = serve("long", CAPF_ANYCLIENT), client = connect_to("long", CAPF_ANYCLIENT);
	size_t i;

	(void)state;
	for (i = 0; i < N_LENGTHS; i++) {
		off_t id = put_body(client, lengths[i], (uint32_t)i), at_service;

		at_service = take_body(service, CAPMS_REQUEST, lengths[i], (uint32_t)i);
		reply_body(service, at_service, lengths[N_LENGTHS - 1 - i], 100);
		assert_true(take_body(client, CAPMS_REPLY, lengths[N_LENGTHS - 1 - i], 100) == id);
		assert_true(take_body(service, CAPMS_DISPOSE, 0, 0) == at_service);
	}
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_put_does_not_wait(void **state)
{
	int service = serve("long", CAPF_ANYCLIENT), client = connect_to("long", CAPF_ANYCLIENT), i;
	uint64_t begin = now_ms();

	(void)state;
	for (i = 0; i < 20; i++)
		(void)put_body(client, 1 << 20, (uint32_t)i);
	(void)put(client, "short");
	assert_true(now_ms() - begin < (uint64_t)check_hang_ms(3000));
	for (i = 0; i < 20; i++)
		(void)take_body(service, CAPMS_REQUEST, 1 << 20, (uint32_t)i);
	(void)expect(service, CAPMS_REQUEST, "short");
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static int echo_child(int ctl, void *arg)
{
	int service = serve("long", CAPF_ANYCLIENT), n = 1;
	struct caps_msgid id;
	char *buf = malloc(1 << 20);
	int max = 1 << 20;

	(void)arg;
	CHECK(buf != NULL);
	child_say(ctl, 'r');
	while (n != 0 || id.c_state != CAPMS_REQUEST) {
		n = (int)CHECK_OK(caps_sys_wait(service, buf, max, &id, NULL));
		if (n > max) {
			max = n;
			buf = realloc(buf, (size_t)max);
			CHECK(buf != NULL);
			continue;
		}
		if (id.c_state == CAPMS_REQUEST)
			CHECK_OK(caps_sys_reply(service, buf, n, id.c_id));
	}
	/* The last reply must be on its way before the port goes. */
	do
		CHECK_OK(caps_sys_wait(service, buf, max, &id, NULL));
	while (id.c_state != CAPMS_REQUEST);
	free(buf);
	CHECK_OK(caps_sys_close(service));
	return 0;
}

static void test_two_processes(void **state)
{
	struct child child;
	off_t ids[4];
	int client, i;

	(void)state;
	child_start(&child, echo_child, NULL);
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
	client = connect_to("long", CAPF_ANYCLIENT);
	for (i = 0; i < 4; i++)
		ids[i] = put_body(client, (size_t)(i + 1) * 3000000, (uint32_t)i);
	for (i = 0; i < 4; i++)
		assert_true(take_body(client, CAPMS_REPLY, (size_t)(i + 1) * 3000000,
				      (uint32_t)i) == ids[i]);
	(void)put_body(client, 64 << 20, 9);
	(void)take_body(client, CAPMS_REPLY, 64 << 20, 9);
	(void)put(client, "");
	(void)expect(client, CAPMS_REPLY, "");
	(void)put(client, "x");
	assert_int_equal(child_finish(&child, check_hang_ms(10000)), 0);
	(void)expect(client, CAPMS_REPLY, "");
	assert_int_equal(caps_sys_close(client), 0);
}

static void test_truncated(void **state)
{
	int service = serve("long", CAPF_ANYCLIENT), client = connect_to("long", CAPF_ANYCLIENT);
	size_t len = 3000000;
	char *buf = malloc(len);
	struct caps_msgid id;
	int n;

	(void)state;
	(void)put_body(client, len, 5);
	do
		n = caps_sys_wait(service, buf, 1000, &id, NULL);
	while (id.c_state != CAPMS_REQUEST);
	assert_int_equal(n, len);
	assert_int_equal(pattern_check(buf, 1000, 0, 5), 1000);
	assert_int_equal(caps_sys_wait(service, buf, (int)len - 1, &id, NULL), len);
	assert_int_equal(pattern_check(buf, len - 1, 0, 5), len - 1);
	(void)take_body(service, CAPMS_REQUEST, len, 5);
	reply_body(service, id.c_id, len, 6);
	do
		n = caps_sys_wait(client, buf, 1, &id, NULL);
	while (n == -1);
	assert_int_equal(n, len);
	expect_nothing(service); /* not retrieved, not disposed of */
	(void)take_body(client, CAPMS_REPLY, len, 6);
	(void)expect(service, CAPMS_DISPOSE, "");
	free(buf);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

/*
 * A client that puts something long and never comes back to the library: it arrives all the same.
 */
static int absent_child(int ctl, void *arg)
{
	int client = connect_to("long", CAPF_ANYCLIENT);

	(void)arg;
	(void)put_body(client, 10 << 20, 3);
	CHECK(child_hear(ctl, check_hang_ms(20000)) == 'x');
	CHECK_OK(caps_sys_close(client));
	return 0;
}

static void test_absent_client(void **state)
{
	int service = serve("long", CAPF_ANYCLIENT);
	struct child child;
	off_t id;

	(void)state;
	child_of_threads(&child, absent_child, NULL);
	id = take_body(service, CAPMS_REQUEST, 10 << 20, 3);
	child_say(child.ctl, 'x');
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	expect_id(service, CAPMS_DISPOSE, "", id);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_killed_while_sending(void **state)
{
	int service = serve("long", CAPF_ANYCLIENT);
	struct child child;
	int client;

	(void)state;
	child_of_threads(&child, absent_child, NULL);
	child_await_state(child.pid, 'S', check_hang_ms(5000));
	(void)usleep(20000);
	child_kill(&child);
	expect_nothing(service); /* a request that is not whole was never there */
	client = connect_to("long", CAPF_ANYCLIENT);
	round_trip(client, service);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_limit(void **state)
{
	int service = serve("long", CAPF_ANYCLIENT), client = connect_to("long", CAPF_ANYCLIENT);
	struct caps_msgid id;
	off_t long_id, at_service;
	char buf[8];
	int n, ms;

	(void)state;
	FAILS(caps_limit(service, -1), EINVAL);
	assert_int_equal(caps_limit(service, 1 << 20), 0);
	long_id = put_body(client, 3 << 20, 1);
	(void)put(client, "short");
	at_service = expect(service, CAPMS_REQUEST, "short"); /* the long one never gets there */
	for (n = -1, ms = 0; n < 0 && ms < check_hang_ms(3000); ms++) {
		n = caps_sys_get(client, buf, 8, &id, NULL);
		if (n < 0 && errno == EMSGSIZE)
			break;
		CHECK(n < 0 && errno == EWOULDBLOCK);
		(void)usleep(1000);
	}
	assert_true(id.c_id == long_id);
	assert_int_equal(id.c_state, CAPMS_REPLY);
	/* The other way round. */
	assert_int_equal(caps_limit(client, 1 << 20), 0);
	reply_body(service, at_service, 3 << 20, 2);
	FAILS(caps_sys_wait(client, buf, 8, &id, NULL), EMSGSIZE);
	(void)expect(service, CAPMS_DISPOSE, "");
	/* Neither has lost anything else. */
	round_trip(client, service);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

/* Closing right after a long reply, with a client that takes it in a moment later. */
static int hasty_child(int ctl, void *arg)
{
	int service = serve("long", CAPF_ANYCLIENT);

	(void)arg;
	child_say(ctl, 'r');
	reply_body(service, take_body(service, CAPMS_REQUEST, 5, 1), 3 << 20, 2);
	CHECK_OK(caps_sys_close(service));
	return 0;
}

static void test_close_after_long_reply(void **state)
{
	struct child child;
	int client;

	(void)state;
	child_start(&child, hasty_child, NULL);
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
	client = connect_to("long", CAPF_ANYCLIENT);
	(void)put_body(client, 5, 1);
	(void)usleep(100000);
	(void)take_body(client, CAPMS_REPLY, 3 << 20, 2);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	assert_int_equal(caps_sys_close(client), 0);
}

/* One message in private memory at a time: the next waits until it was retrieved. */
static void test_one_at_a_time(void **state)
{
	int service = serve("long", CAPF_ANYCLIENT), client = connect_to("long", CAPF_ANYCLIENT), i;

	(void)state;
	assert_int_equal(caps_limit(service, 3 << 20), 0);
	for (i = 0; i < 10; i++)
		(void)put_body(client, 2 << 20, (uint32_t)i);
	for (i = 0; i < 10; i++) {
		(void)usleep(3000);
		(void)take_body(service, CAPMS_REQUEST, 2 << 20, (uint32_t)i);
	}
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

/*
 * The next message of the same client is begun as soon as the one before it has gone, however that
 * was.
 */
static void test_answered_unread(void **state)
{
	int service = serve("long", CAPF_ANYCLIENT), client = connect_to("long", CAPF_ANYCLIENT);
	size_t len = 2 << 20;
	struct caps_msgid id;
	char byte;

	(void)state;
	(void)put_body(client, len, 1);
	(void)put_body(client, len, 2);
	assert_int_equal(caps_sys_wait(service, &byte, 1, &id, NULL), len);
	reply_body(service, id.c_id, 5, 3);
	(void)take_body(service, CAPMS_REQUEST, len, 2);
	(void)take_body(client, CAPMS_REPLY, 5, 3);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void test_aborted_unread(void **state)
{
	int flags[] = { 0, CAPF_ABORT_HARD }, i;

	(void)state;
	for (i = 0; i < 2; i++) {
		int service = serve("long", CAPF_ANYCLIENT),
		    client = connect_to("long", CAPF_ANYCLIENT);
		/* With it messages are taken in without being retrieved. */
		struct pollfd poller = { .fd = caps_upcall_fd(service), .events = POLLIN };
		off_t id = put_body(client, 2 << 20, 1);

		(void)put_body(client, 2 << 20, 2);
		CHECK(poll(&poller, 1, check_hang_ms(5000)) == 1);
		assert_int_equal(caps_sys_abort(client, id, flags[i]), CAPS_ABORT_ATSERVER);
		expect_id(client, CAPMS_REPLY, "", id);
		/*
		 * Looks at all that has come, the abort included: caps_sys_wait() takes what it
		 * finds.
		 */
		(void)caps_sys_get(service, NULL, 0, NULL, NULL);
		(void)take_body(service, CAPMS_REQUEST, 2 << 20, 2);
		assert_int_equal(caps_sys_close(client), 0);
		assert_int_equal(caps_sys_close(service), 0);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		SENTENCE("messages of any length go both ways", test_lengths),
		SENTENCE("put: does not wait for a slow service", test_put_does_not_wait),
		SENTENCE("put: several long messages are on their way at once", test_two_processes),
		SENTENCE("put: the message is sent though the client does not come back",
			 test_absent_client),
		SENTENCE("a client dies in the middle of a message: it was never there",
			 test_killed_while_sending),
		SENTENCE("close: long replies have a second to be taken in",
			 test_close_after_long_reply),
		SENTENCE("truncated reads of long messages", test_truncated),
		SENTENCE("caps_limit: what goes beyond comes back with EMSGSIZE", test_limit),
		SENTENCE("caps_limit: one long message of a peer is kept at a time",
			 test_one_at_a_time),
		SENTENCE("the next long message comes when one was answered unread",
			 test_answered_unread),
		SENTENCE("the next long message comes when one was aborted unread",
			 test_aborted_unread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
