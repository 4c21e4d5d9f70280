/* SPDX-License-Identifier: MIT */
/*
 * The contract, second part: messages and their three states, truncated reads, credentials, limits.
 */
#include "fixture.h"

#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/time.h>

/* Most tests need no more than this. */
struct pair {
	int service, client;
};

static struct pair open_pair(int flags)
{
	struct pair p;

	p.service = serve("pair", CAPF_ANYCLIENT | flags);
	p.client = connect_to("pair", CAPF_ANYCLIENT);
	return p;
}

static void close_pair(struct pair p)
{
	assert_int_equal(caps_sys_close(p.client), 0);
	assert_int_equal(caps_sys_close(p.service), 0);
}

static void answer(int service, off_t id, const char *text)
{
	char copy[256];

	memcpy(copy, text, strlen(text) + 1);
	CHECK_OK(caps_sys_reply(service, copy, (int)strlen(copy), id));
	memset(copy, 'x', sizeof(copy));
}

/* -- the three states -------------------------------------------------------------------------- */

static void test_life_of_a_message(void **state)
{
	struct pair p = open_pair(0);
	off_t id, at_service;

	(void)state;
	id = put(p.client, "question");
	at_service = expect(p.service, CAPMS_REQUEST, "question");
	expect_nothing(p.client);
	answer(p.service, at_service, "answer");
	expect_nothing(p.service); /* no dispose before the reply was retrieved */
	expect_id(p.client, CAPMS_REPLY, "answer", id);
	expect_id(p.service, CAPMS_DISPOSE, "", at_service);
	expect_nothing(p.service);
	expect_nothing(p.client);
	FAILS(caps_sys_reply(p.service, NULL, 0, at_service), EINVAL); /* its life is over */
	close_pair(p);
}

static void test_empty_messages(void **state)
{
	struct pair p = open_pair(0);
	struct caps_msgid id;
	off_t at_client, at_service;

	(void)state;
	at_client = caps_sys_put(p.client, NULL, 0);
	assert_true(at_client >= 0);
	assert_int_equal(caps_sys_wait(p.service, NULL, 0, &id, NULL), 0);
	assert_int_equal(id.c_state, CAPMS_REQUEST);
	at_service = id.c_id;
	assert_int_equal(caps_sys_reply(p.service, NULL, 0, at_service), 0);
	assert_int_equal(caps_sys_wait(p.client, NULL, 0, &id, NULL), 0);
	assert_int_equal(id.c_state, CAPMS_REPLY);
	assert_true(id.c_id == at_client);
	expect_id(p.service, CAPMS_DISPOSE, "", at_service);
	close_pair(p);
}

static void test_order(void **state)
{
	struct pair p = open_pair(0);
	char text[] = "a";
	off_t ids[20], at_service[20];
	int i;

	(void)state;
	for (i = 0; i < 20; i++) {
		text[0] = (char)('a' + i);
		ids[i] = put(p.client, text);
	}
	for (i = 0; i < 20; i++) {
		text[0] = (char)('a' + i);
		at_service[i] = expect(p.service, CAPMS_REQUEST, text);
	}
	/* Replies come in the order in which they were given. */
	for (i = 19; i >= 0; i--) {
		text[0] = (char)('A' + i);
		answer(p.service, at_service[i], text);
	}
	for (i = 19; i >= 0; i--) {
		text[0] = (char)('A' + i);
		expect_id(p.client, CAPMS_REPLY, text, ids[i]);
	}
	for (i = 19; i >= 0; i--)
		expect_id(p.service, CAPMS_DISPOSE, "", at_service[i]);
	close_pair(p);
}

static void test_ids_are_not_reused(void **state)
{
	struct pair p = open_pair(0);
	off_t first, second;

	(void)state;
	(void)put(p.client, "1");
	first = expect(p.service, CAPMS_REQUEST, "1");
	answer(p.service, first, "");
	(void)expect(p.client, CAPMS_REPLY, "");
	expect_id(p.service, CAPMS_DISPOSE, "", first);
	(void)put(p.client, "2");
	second = expect(p.service, CAPMS_REQUEST, "2");
	assert_true(first != second);
	FAILS(caps_sys_reply(p.service, NULL, 0, first), EINVAL);
	answer(p.service, second, "two");
	(void)expect(p.client, CAPMS_REPLY, "two");
	close_pair(p);
}

/* A thread that is blocked in caps_sys_wait(). */
struct waiter {
	pthread_t thread;
	int port;
	_Atomic int done;
	int n;
	struct caps_msgid id;
	char buf[64];
};

static void *wait_in_thread(void *arg)
{
	struct waiter *waiter = arg;

	waiter->n =
		caps_sys_wait(waiter->port, waiter->buf, sizeof(waiter->buf), &waiter->id, NULL);
	atomic_store(&waiter->done, 1);
	return NULL;
}

static void waiter_start(struct waiter *waiter, int port)
{
	*waiter = (struct waiter){ .port = port };
	CHECK(pthread_create(&waiter->thread, NULL, wait_in_thread, waiter) == 0);
	(void)usleep(20000);
}

static void waiter_end(struct waiter *waiter, caps_msg_state_t state)
{
	int ms;

	for (ms = check_hang_ms(3000); ms > 0 && !atomic_load(&waiter->done); ms--)
		(void)usleep(1000);
	CHECK(atomic_load(&waiter->done));
	CHECK(pthread_join(waiter->thread, NULL) == 0);
	CHECK_OK(waiter->n);
	CHECK(waiter->id.c_state == state);
}

/* The service is a process of its own that reports what caps_sys_wait() gives it. */
static int dispose_child(int ctl, void *arg)
{
	int flags = *(int *)arg, service = serve("dispose", CAPF_ANYCLIENT | flags);
	struct caps_msgid id;
	char buf[16];

	child_say(ctl, 'r');
	for (;;) {
		int n = (int)CHECK_OK(caps_sys_wait(service, buf, sizeof(buf), &id, NULL));

		child_say(ctl, id.c_state == CAPMS_DISPOSE ? 'd' : 'q');
		if (id.c_state == CAPMS_REQUEST)
			CHECK_OK(caps_sys_reply(service, buf, n, id.c_id));
		if (n == 1 && buf[0] == 'x')
			break;
	}
	while (id.c_state != CAPMS_DISPOSE)
		CHECK_OK(caps_sys_wait(service, buf, sizeof(buf), &id, NULL));
	CHECK_OK(caps_sys_close(service));
	return 0;
}

static void run_dispose(int flags)
{
	struct child child;
	int client;

	child_start(&child, dispose_child, &flags);
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
	client = connect_to("dispose", CAPF_ANYCLIENT);
	(void)put(client, "1");
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'q');
	child_await_rest(child.pid); /* it is blocked now, well beyond any spinning */
	(void)expect(client, CAPMS_REPLY, "1");
	if (flags & CAPF_DISPOSE_IMM) {
		assert_int_equal(child_hear(child.ctl, check_hang_ms(3000)), 'd');
	} else {
		assert_int_equal(child_hear(child.ctl, 300), -1);
	}
	(void)put(client, "2");
	if (!(flags & CAPF_DISPOSE_IMM))
		assert_int_equal(child_hear(child.ctl, check_hang_ms(3000)),
				 'd'); /* and before the request */
	assert_int_equal(child_hear(child.ctl, check_hang_ms(3000)), 'q');
	(void)expect(client, CAPMS_REPLY, "2");
	(void)put(client, "x");
	(void)expect(client, CAPMS_REPLY, "x");
	if (!(flags & CAPF_DISPOSE_IMM))
		(void)put(client, "y"); /* wakes it for the last dispose */
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	assert_int_equal(caps_sys_close(client), 0);
}

static void test_dispose_does_not_wake(void **state)
{
	(void)state;
	run_dispose(0);
}

static void test_dispose_at_once(void **state)
{
	(void)state;
	run_dispose(CAPF_DISPOSE_IMM);
}

/* -- put --------------------------------------------------------------------------------------- */

static void test_put_wrong(void **state)
{
	struct pair p = open_pair(0);
	char byte = 'x';

	(void)state;
	FAILS(caps_sys_put(p.service, &byte, 1), EINVAL);
	FAILS(caps_sys_put(p.client, &byte, -1), EINVAL);
	expect_nothing(p.service);
	close_pair(p);
}

static void test_too_many(void **state)
{
	struct pair p = open_pair(0);
	off_t id, last = 0;
	int i;

	(void)state;
	for (i = 0; i <= CAPS_MAXINPROG; i++)
		last = put(p.client, "x");
	FAILS(caps_sys_put(p.client, NULL, 0), ENOBUFS);
	/* A reply that is not retrieved is in progress still. */
	id = expect(p.service, CAPMS_REQUEST, "x");
	answer(p.service, id, "");
	(void)usleep(10000);
	FAILS(caps_sys_put(p.client, NULL, 0), ENOBUFS);
	(void)expect(p.client, CAPMS_REPLY, "");
	assert_true(put(p.client, "y") != last);
	FAILS(caps_sys_put(p.client, NULL, 0), ENOBUFS);
	/* All of them are delivered, and answered, and there is room again. */
	for (i = 0; i <= CAPS_MAXINPROG; i++) {
		struct caps_msgid msgid;
		char buf[4];

		do
			assert_true(caps_sys_wait(p.service, buf, 4, &msgid, NULL) >= 0);
		while (msgid.c_state != CAPMS_REQUEST);
		answer(p.service, msgid.c_id, "");
	}
	for (i = 0; i <= CAPS_MAXINPROG; i++)
		(void)expect(p.client, CAPMS_REPLY, "");
	retrieve_all(p.service);
	round_trip(p.client, p.service);
	close_pair(p);
}

static void test_any_bytes(void **state)
{
	struct pair p = open_pair(0);
	unsigned char out[256], in[256];
	int i;

	(void)state;
	for (i = 0; i < 256; i++)
		out[i] = (unsigned char)i;
	assert_true(caps_sys_put(p.client, out, 256) >= 0);
	memset(out, 0, sizeof(out));
	assert_int_equal(caps_sys_wait(p.service, in, 256, NULL, NULL), 256);
	for (i = 0; i < 256; i++)
		assert_int_equal(in[i], i);
	close_pair(p);
}

/* -- reply ------------------------------------------------------------------------------------- */

static void test_reply_wrong(void **state)
{
	struct pair p = open_pair(0);
	off_t id, at_service;
	char byte = 'x';

	(void)state;
	id = put(p.client, "one");
	FAILS(caps_sys_reply(p.service, &byte, 1, id),
	      EINVAL); /* not retrieved, and not its id there */
	FAILS(caps_sys_reply(p.service, &byte, 1, 0), EINVAL);
	FAILS(caps_sys_reply(p.service, &byte, 1, -1), EINVAL);
	at_service = expect(p.service, CAPMS_REQUEST, "one");
	FAILS(caps_sys_reply(p.client, &byte, 1, at_service), EINVAL);
	FAILS(caps_sys_reply(p.service, &byte, -1, at_service), EINVAL);
	FAILS(caps_sys_reply(p.service, &byte, 1, at_service + 1), EINVAL);
	answer(p.service, at_service, "1");
	FAILS(caps_sys_reply(p.service, &byte, 1, at_service), EINVAL); /* answered before */
	expect_id(p.client, CAPMS_REPLY, "1", id);
	FAILS(caps_sys_reply(p.service, &byte, 1, at_service), EINVAL); /* a dispose now */
	expect_id(p.service, CAPMS_DISPOSE, "", at_service);
	FAILS(caps_sys_reply(p.service, &byte, 1, at_service), EINVAL); /* nothing any more */
	close_pair(p);
}

/* -- get and wait ------------------------------------------------------------------------------ */

static void test_get_would_block(void **state)
{
	struct pair p = open_pair(0);
	char buf[4];

	(void)state;
	FAILS(caps_sys_get(p.service, buf, 4, NULL, NULL), EWOULDBLOCK);
	FAILS(caps_sys_get(p.client, buf, 4, NULL, NULL), EWOULDBLOCK);
	FAILS(caps_sys_get(p.service, buf, -1, NULL, NULL), EINVAL);
	FAILS(caps_sys_wait(p.service, buf, -1, NULL, NULL), EINVAL);
	close_pair(p);
}

/* What was put before get was called must be seen by it, without waiting. */
static void test_get_sees_at_once(void **state)
{
	struct pair p = open_pair(0);
	struct caps_msgid id;
	char buf[8];
	int i;

	(void)state;
	for (i = 0; i < 50; i++) {
		(void)put(p.client, "now");
		assert_int_equal(caps_sys_get(p.service, buf, 8, &id, NULL), 3);
		answer(p.service, id.c_id, "then");
		assert_int_equal(caps_sys_get(p.client, buf, 8, NULL, NULL), 4);
		assert_int_equal(caps_sys_get(p.service, buf, 8, &id, NULL), 0);
		assert_int_equal(id.c_state, CAPMS_DISPOSE);
		if (i % 10 == 0)
			(void)usleep(60000); /* the attendant has stepped in */
	}
	close_pair(p);
}

static void test_wait_blocks(void **state)
{
	struct pair p = open_pair(0);
	struct waiter waiter;
	off_t id;

	(void)state;
	waiter_start(&waiter, p.service);
	assert_int_equal(atomic_load(&waiter.done), 0);
	(void)put(p.client, "come");
	waiter_end(&waiter, CAPMS_REQUEST);
	assert_int_equal(waiter.n, 4);
	id = waiter.id.c_id;
	waiter_start(&waiter, p.client);
	assert_int_equal(atomic_load(&waiter.done), 0);
	answer(p.service, id, "go");
	waiter_end(&waiter, CAPMS_REPLY);
	assert_memory_equal(waiter.buf, "go", 2);
	close_pair(p);
}

static void on_alarm(int signal)
{
	(void)signal;
}

static void test_wait_is_interrupted(void **state)
{
	struct itimerval timer = { { 0, 20000 }, { 0, 30000 } }, none = { 0 };
	int i, handlers[] = { 0, SA_RESTART };
	struct pair p = open_pair(0);
	char buf[4];

	(void)state;
	for (i = 0; i < 2; i++) {
		struct sigaction action = { .sa_handler = on_alarm, .sa_flags = handlers[i] };

		(void)sigaction(SIGALRM, &action, NULL);
		(void)setitimer(ITIMER_REAL, &timer, NULL);
		FAILS(caps_sys_wait(p.service, buf, 4, NULL, NULL), EINTR);
		FAILS(caps_sys_wait(p.client, buf, 4, NULL, NULL), EINTR);
		(void)setitimer(ITIMER_REAL, &none, NULL);
	}
	(void)signal(SIGALRM, SIG_DFL);
	(void)put(p.client, "on");
	(void)expect(p.service, CAPMS_REQUEST, "on");
	close_pair(p);
}

static void check_truncated(int port, caps_msg_state_t state, off_t *at)
{
	struct caps_msgid id, again;
	char buf[16];

	memset(buf, '-', sizeof(buf));
	assert_int_equal(caps_sys_wait(port, buf, 3, &id, NULL), 8);
	assert_memory_equal(buf, "the-----", 8);
	assert_int_equal(id.c_state, state);
	memset(buf, '-', sizeof(buf));
	assert_int_equal(caps_sys_get(port, buf, 0, &again, NULL), 8);
	assert_memory_equal(buf, "--------", 8);
	assert_true(again.c_id == id.c_id);
	*at = id.c_id;
}

static void test_truncated(void **state)
{
	struct pair p = open_pair(0);
	off_t id, at_service, at_client;
	char byte;

	(void)state;
	id = put(p.client, "the long");
	(void)put(p.client, "next");
	check_truncated(p.service, CAPMS_REQUEST, &at_service);
	expect_id(p.service, CAPMS_REQUEST, "the long", at_service);
	answer(p.service, at_service, "the long");
	answer(p.service, expect(p.service, CAPMS_REQUEST, "next"), "next");
	check_truncated(p.client, CAPMS_REPLY, &at_client);
	assert_true(at_client == id);
	expect_nothing(p.service); /* no dispose: the reply was not retrieved whole */
	expect_id(p.client, CAPMS_REPLY, "the long", id);
	(void)expect(p.client, CAPMS_REPLY, "next");
	expect_id(p.service, CAPMS_DISPOSE, "", at_service);
	assert_int_equal(caps_sys_get(p.service, &byte, 1, NULL, NULL), 0);
	close_pair(p);
}

static void test_reply_unread(void **state)
{
	struct pair p = open_pair(0);
	off_t id, at_service;

	(void)state;
	id = put(p.client, "the long");
	(void)put(p.client, "next");
	check_truncated(p.service, CAPMS_REQUEST, &at_service);
	answer(p.service, at_service, "no");
	expect_id(p.client, CAPMS_REPLY, "no", id);
	(void)expect(p.service, CAPMS_REQUEST, "next");
	expect_id(p.service, CAPMS_DISPOSE, "", at_service);
	close_pair(p);
}

/* -- credentials ------------------------------------------------------------------------------- */

struct identity {
	uid_t uid, euid;
	gid_t gid;
	int n;
	gid_t groups[20];
};

static void check_cred(const struct caps_cred *cred, pid_t pid, const struct identity *who)
{
	int i;

	CHECK(cred->pid == pid);
	CHECK(cred->uid == who->uid);
	CHECK(cred->euid == who->euid);
	CHECK(cred->gid == who->gid);
	CHECK(cred->ngroups == (who->n < CAPS_MAXGROUPS ? who->n : CAPS_MAXGROUPS));
	for (i = 0; i < cred->ngroups; i++)
		CHECK(cred->groups[i] == who->groups[i]);
}

static struct identity myself(void)
{
	struct identity me = { .uid = getuid(), .euid = geteuid(), .gid = getgid() };

	me.n = getgroups(20, me.groups);
	CHECK(me.n >= 0);
	return me;
}

/* The client: takes the identity it is told, and checks who answers. */
struct cred_test {
	struct identity client, service;
	pid_t service_pid;
};

static int cred_child(int ctl, void *arg)
{
	const struct cred_test *test = arg;
	const struct identity *who = &test->client;
	struct caps_cred cred;
	int client;
	char buf[8];

	if (test->service.euid == 0) {
		CHECK_OK(setgroups((size_t)who->n, who->groups));
		CHECK_OK(setresgid(who->gid, who->gid, who->gid));
		CHECK_OK(setresuid(who->uid, who->euid, who->euid));
	}
	client = (int)CHECK_OK(caps_sys_client("who", UID_ANY, GID_ANY, 0, CAPF_ANYCLIENT));
	(void)put(client, "me");
	CHECK(caps_sys_wait(client, buf, 8, NULL, &cred) == 3);
	check_cred(&cred, test->service_pid, &test->service);
	child_say(ctl, 'd');
	(void)child_hear(ctl, check_hang_ms(5000));
	CHECK_OK(caps_sys_close(client));
	return 0;
}

static void run_cred_test(const struct identity *client)
{
	struct cred_test test = { *client, myself(), getpid() };
	int service = serve("who", CAPF_ANYCLIENT);
	struct caps_msgid id;
	struct caps_cred cred;
	struct child child;
	char buf[8];

	child_of_threads(&child, cred_child, &test);
	CHECK(caps_sys_wait(service, buf, 8, &id, &cred) == 2);
	check_cred(&cred, child.pid, client);
	CHECK_OK(caps_sys_reply(service, "you", 3, id.c_id));
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'd');
	memset(&cred, 0, sizeof(cred));
	CHECK(caps_sys_wait(service, buf, 8, &id, &cred) == 0);
	CHECK(id.c_state == CAPMS_DISPOSE);
	check_cred(&cred, child.pid, client);
	child_say(child.ctl, 'x');
	CHECK(child_finish(&child, check_hang_ms(5000)) == 0);
	CHECK_OK(caps_sys_close(service));
}

static void test_credentials(void **state)
{
	struct identity me = myself();

	(void)state;
	run_cred_test(&me);
}

static void test_credentials_of_others(void **state)
{
	struct identity alice = { ALICE, BOB, ALICES_GID, 2, { BOBS_GID, BOBS_GID + 1 } };
	struct identity joiner = { BOB, BOB, BOBS_GID, 20, { 0 } };
	int i;

	(void)state;
	need_root();
	run_cred_test(&alice);
	for (i = 0; i < 20; i++)
		joiner.groups[i] = BOBS_GID + 1 + (gid_t)i;
	run_cred_test(&joiner);
}

static void test_null_pointers(void **state)
{
	struct pair p = open_pair(0);
	char buf[8];

	(void)state;
	(void)put(p.client, "x");
	assert_int_equal(caps_sys_wait(p.service, buf, 8, NULL, NULL), 1);
	(void)put(p.client, "yy");
	assert_int_equal(caps_sys_get(p.service, buf, 8, NULL, NULL), 2);
	close_pair(p);
}

/* -- generations ------------------------------------------------------------------------------- */

static int generation_child(int ctl, void *arg)
{
	int service = serve("generation", CAPF_ANYCLIENT);

	(void)arg;
	child_say(ctl, 'r');
	CHECK(child_hear(ctl, check_hang_ms(5000)) == 's');
	CHECK_OK(caps_sys_setgen(service, INT64_C(-5000000000)));
	child_say(ctl, 's');
	CHECK(child_hear(ctl, check_hang_ms(5000)) == 'x');
	CHECK_OK(caps_sys_close(service));
	return 0;
}

static void test_generation(void **state)
{
	struct child child;
	int client;

	(void)state;
	child_start(&child, generation_child, NULL);
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
	client = connect_to("generation", CAPF_ANYCLIENT);
	assert_int_equal(caps_sys_getgen(client), 0);
	child_say(child.ctl, 's');
	CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 's');
	child_signal(&child, SIGSTOP); /* whatever the service does: there is no round trip */
	child_await_state(child.pid, 'T', check_hang_ms(3000));
	assert_true(caps_sys_getgen(client) == INT64_C(-5000000000));
	child_signal(&child, SIGCONT);
	child_say(child.ctl, 'x');
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	assert_true(caps_sys_getgen(client) ==
		    INT64_C(-5000000000)); /* the last one, after its end */
	assert_int_equal(caps_sys_close(client), 0);
}

static void test_generation_before_connecting(void **state)
{
	int service = serve("pair", CAPF_ANYCLIENT), client;

	(void)state;
	assert_int_equal(caps_sys_setgen(service, 7), 0);
	client = connect_to("pair", CAPF_ANYCLIENT);
	assert_int_equal(caps_sys_getgen(client), 7);
	FAILS(caps_sys_getgen(service), EINVAL);	 /* it is the clients' to read */
	assert_int_equal(caps_sys_setgen(client, 8), 0); /* accepted as ever, and of no effect */
	assert_int_equal(caps_sys_getgen(client), 7);
	close_pair((struct pair){ service, client });
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		SENTENCE("a message is REQUEST, REPLY, DISPOSE, in this order and once",
			 test_life_of_a_message),
		SENTENCE("messages may have length 0 in both directions", test_empty_messages),
		SENTENCE("a client's messages arrive in the order of the puts", test_order),
		SENTENCE("an id that was used up is never another message's",
			 test_ids_are_not_reused),
		SENTENCE(
			"a dispose does not wake a blocked service; it comes before the next request",
			test_dispose_does_not_wake),
		SENTENCE("with CAPF_DISPOSE_IMM it does", test_dispose_at_once),
		SENTENCE("put: EINVAL for a service, and for a negative size", test_put_wrong),
		SENTENCE("put: ENOBUFS while more than 128 messages are in progress",
			 test_too_many),
		SENTENCE("put: the data is opaque, and the buffer is the caller's again",
			 test_any_bytes),
		SENTENCE("reply: EINVAL unless it is a request this service has retrieved",
			 test_reply_wrong),
		SENTENCE("get: EWOULDBLOCK when nothing is waiting", test_get_would_block),
		SENTENCE("get: sees what was sent before it was called", test_get_sees_at_once),
		SENTENCE("wait: blocks until there is a message", test_wait_blocks),
		SENTENCE("wait: EINTR on a signal, also with SA_RESTART", test_wait_is_interrupted),
		SENTENCE("truncated: full length, first bytes, and the message stays at the head",
			 test_truncated),
		SENTENCE("truncated: the service may reply to it unread", test_reply_unread),
		SENTENCE(
			"credentials: the client's on a request and a dispose, the service's on a reply",
			test_credentials),
		SENTENCE("credentials: real and effective ids and 16 groups of other users",
			 test_credentials_of_others),
		SENTENCE("id and cred may be NULL", test_null_pointers),
		SENTENCE("generation: set by the service, read by clients without a round trip",
			 test_generation),
		SENTENCE("generation: clients that come later read it too; a service does not",
			 test_generation_before_connecting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
