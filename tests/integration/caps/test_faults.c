/* SPDX-License-Identifier: MIT */
/*
 * No memory: allocation 1, 2, 3... fails once, in whichever thread and whichever library it happens
 * to be. Whatever could not be done says so, every message that was taken comes back, and nothing
 * is left behind. The program is linked statically, with --wrap for the functions that allocate.
 */
#include "fixture.h"

#include "support/fds.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define LONG_BODY 600000
#define N_PUTS	  6

static _Atomic long countdown; /* the allocation that fails is the one that finds 1 */
static _Atomic int n_failed;

static bool fails_now(void)
{
	if (atomic_load_explicit(&countdown, memory_order_relaxed) <= 0 ||
	    atomic_fetch_sub(&countdown, 1) != 1)
		return false;
	atomic_fetch_add(&n_failed, 1);
	errno = ENOMEM;
	return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size);

void *__wrap_malloc(size_t size)
{
	return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails_now() ? NULL : __real_realloc(old, size);
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
	return fails_now() ? NULL : __real_reallocarray(old, n, size);
}

static _Atomic bool no_threads;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			  void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			  void *arg)
{
	return atomic_load(&no_threads) ? EAGAIN : __real_pthread_create(thread, attr, run, arg);
}

static char long_body[LONG_BODY];

static unsigned n_refused;

/* Answers what has come. A reply that finds no memory is tried again, or false: it gives up. */
static bool serve_once(int service)
{
	static char buf[LONG_BODY];
	struct caps_msgid id;
	int n;

	while ((n = caps_sys_get(service, buf, sizeof(buf), &id, NULL)) >= 0) {
		CHECK(n <= LONG_BODY);
		if (id.c_state == CAPMS_REQUEST && caps_sys_reply(service, buf, n, id.c_id) < 0) {
			CHECK(errno == ENOMEM);
			if (++n_refused % 2)
				return false;
			CHECK_OK(caps_sys_reply(service, buf, n, id.c_id));
		}
	}
	CHECK(errno == EWOULDBLOCK);
	return true;
}

/* True when all went well. */
static bool run(int flags)
{
	static char back[LONG_BODY];
	int service, client, i, n_sent = 0, ms;
	struct caps_msgid id;
	bool well = true;

	service = caps_sys_service("faults", geteuid(), getegid(), 0, CAPF_ANYCLIENT | flags);
	if (service < 0)
		return false;
	client = caps_sys_client("faults", geteuid(), getegid(), 0,
				 CAPF_ANYCLIENT | (flags & CAPF_ASYNC));
	if (client < 0) {
		CHECK_OK(caps_sys_close(service));
		return false;
	}
	for (i = 0; i < N_PUTS; i++) {
		if (caps_sys_put(client, long_body, i % 2 ? LONG_BODY : i) >= 0)
			n_sent++;
		else
			CHECK(errno == ENOMEM || errno == ENOTCONN);
	}
	well = n_sent == N_PUTS;
	for (ms = check_hang_ms(5000); n_sent && ms; ms--) {
		int n;

		if (service > 0 && !serve_once(service)) {
			/* It gives up, and everything comes back. */
			CHECK_OK(caps_sys_close(service));
			service = -1;
			well = false;
		}
		while ((n = caps_sys_get(client, back, sizeof(back), &id, NULL)) >= 0 ||
		       errno == EMSGSIZE || errno == ENOMEM) {
			CHECK(n <= LONG_BODY);
			well &= n >= 0;
			n_sent--;
		}
		CHECK(errno == EWOULDBLOCK);
		(void)poll(NULL, 0, n_sent ? 1 : 0);
	}
	CHECK(n_sent == 0);
	CHECK_OK(caps_sys_close(client));
	if (service > 0)
		CHECK_OK(caps_sys_close(service));
	return well;
}

static void run_all(int flags)
{
	static struct fds before;
	int n, n_clean = 0;

	CHECK(run(flags)); /* what is allocated once for ever is there now */
	fds_take(&before);
	for (n = 1; n_clean < 3; n++) {
		bool well;

		atomic_store(&n_failed, 0);
		atomic_store(&countdown, n);
		well = run(flags);
		atomic_store(&countdown, 0);
		if (!atomic_load(&n_failed)) {
			CHECK(well);
			n_clean++; /* threads do not always allocate the same: be sure */
		}
		assert_int_equal(fds_differ(&before), 0);
		assert_true(n < 2000);
	}
	print_message("%d allocations\n", n - 1 - n_clean);
	CHECK(run(flags));
}

static void test_allocations(void **state)
{
	(void)state;
	run_all(0);
}

static void test_allocations_of_additions(void **state)
{
	(void)state;
	run_all(CAPF_NOTICE | CAPF_ASYNC);
}

/* A descriptor that no thread looks after is none; the next one is as good as ever. */
static void test_no_thread_for_upcalls(void **state)
{
	int service = serve("faults", CAPF_ANYCLIENT),
	    client = connect_to("faults", CAPF_ANYCLIENT);
	struct pollfd poller = { .events = POLLIN };
	static struct fds before;

	(void)state;
	fds_take(&before);
	atomic_store(&no_threads, true);
	FAILS(caps_upcall_fd(client), EAGAIN);
	FAILS(caps_upcall_fd(client), EAGAIN);
	atomic_store(&no_threads, false);
	assert_int_equal(fds_differ(&before), 0);
	poller.fd = (int)CHECK_OK(caps_upcall_fd(client));
	(void)put(client, "question");
	CHECK_OK(caps_sys_reply(service, "answer", 6, expect(service, CAPMS_REQUEST, "question")));
	assert_int_equal(poll(&poller, 1, check_hang_ms(3000)), 1);
	(void)expect(client, CAPMS_REPLY, "answer");
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		SENTENCE("no memory: every message comes back", test_allocations),
		SENTENCE("no memory: also with notices and asynchronous connections",
			 test_allocations_of_additions),
		SENTENCE("no thread: caps_upcall_fd() says so each time",
			 test_no_thread_for_upcalls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
