/* SPDX-License-Identifier: MIT */
/* Several threads on one endpoint, each in a function of its own. */
#include "scheme.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define N_CALLS	  20
#define N_AT_ONCE 12

static void doze(void)
{
	const struct timespec nap = { .tv_nsec = 1000000 };

	nanosleep(&nap, NULL);
}

struct caller {
	struct aph_channel *channel;
	_Atomic pid_t tid;
	_Atomic int n_answered;
	_Atomic bool done;
};

/* Its reply begins, and does not end before beside_stop(). */
static void *call_for_long(void *arg)
{
	struct caller *caller = arg;
	char reply[8];
	size_t len = sizeof(reply);

	caller->tid = gettid();
	(void)aph_call(caller->channel, "p", 1, reply, &len, aph_deadline_ms(20000));
	caller->done = true;
	return NULL;
}

static void *call_often(void *arg)
{
	struct caller *caller = arg;

	for (int i = 0; i < N_CALLS; i++) {
		char reply[8];
		size_t len = sizeof(reply);

		caller->n_answered += aph_call(caller->channel, "x", 1, reply, &len,
					       aph_deadline_ms(500)) == APH_ANSWERED;
	}
	caller->done = true;
	return NULL;
}

/* An endpoint with a service, a thread that waits in a call on it, and somebody who calls it. */
struct beside {
	char *own, *other;
	struct service service;
	struct client client, there;
	struct caller waits;
	pthread_t thread;
};

static void beside_start(struct beside *beside)
{
	*beside = (struct beside){ 0 };
	beside->own = strdup(scheme_is_remote() ? scheme_address() : "beside");
	beside->other = strdup(scheme_address());
	service_start_simple(&beside->service, suite_mode, beside->other);
	client_open(&beside->client, beside->other);
	assert_int_equal(aph_service_open(NULL, beside->client.ep, beside->own, NULL), 0);
	beside->waits.channel = beside->client.channel;
	assert_int_equal(pthread_create(&beside->thread, NULL, call_for_long, &beside->waits), 0);
	service_await(&beside->service.seen->held, 1);
	client_open(&beside->there, beside->own);
}

static void beside_stop(struct beside *beside)
{
	struct client ends;

	assert_false(beside->waits.done);
	client_close(&beside->there);
	client_open(&ends, beside->other);
	assert_int_equal(aph_call(ends.channel, "P", 1, NULL, NULL, APH_FOREVER), APH_ANSWERED);
	client_close(&ends);
	pthread_join(beside->thread, NULL);
	client_close(&beside->client);
	service_stop(&beside->service);
	free(beside->own);
	free(beside->other);
}

/* Answers until the other thread has made all of its calls. */
static void look_often(uint64_t (*until)(void))
{
	struct caller calls = { 0 };
	struct beside beside;
	struct aph_event ev;
	pthread_t thread;

	beside_start(&beside);
	calls.channel = beside.there.channel;
	assert_int_equal(pthread_create(&thread, NULL, call_often, &calls), 0);
	while (!calls.done) {
		int r = aph_endpoint_next(beside.client.ep, &ev, until());

		if (r == 0 && ev.type == APH_EVENT_REQUEST)
			assert_int_equal(aph_call_reply(ev.call, "y", 1), 0);
		else
			doze();
		assert_true(r == 0 || r == -EAGAIN || r == -ETIMEDOUT);
	}
	pthread_join(thread, NULL);
	assert_int_equal(calls.n_answered, N_CALLS);
	beside_stop(&beside);
}

static uint64_t at_once(void)
{
	return APH_NOW;
}

/* Who only looks, and never waits, is told of requests while another thread waits in a call. */
static void looks_beside_a_call(void **state)
{
	(void)state;
	look_often(at_once);
}

/* Nor does who comes with a deadline that is over, or nearly so. */
static void short_waits_beside_a_call(void **state)
{
	(void)state;
	look_often(aph_time_ns);
}

static _Atomic bool holds, is_held;

static void on_hold(int number)
{
	(void)number;
	is_held = true;
	while (holds)
		(void)sched_yield();
	is_held = false;
}

static bool sleeps(pid_t tid)
{
	char path[64], line[256] = "";
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_non_null(fgets(line, sizeof(line), file));
	(void)fclose(file);
	assert_non_null(strrchr(line, ')'));
	return strncmp(strrchr(line, ')'), ") S", 3) == 0;
}

/*
 * Whoever sleeps does not wake up until it is let go. It does sleep: held at its work it would have
 * the endpoint's lock, which the others need.
 */
static void hold(struct beside *beside)
{
	struct sigaction action = { .sa_handler = on_hold };

	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	while (!sleeps(beside->waits.tid))
		doze();
	holds = true;
	assert_false(beside->waits.done);
	assert_int_equal(pthread_kill(beside->thread, SIGUSR1), 0);
	while (!is_held)
		doze();
}

static void let_go(void)
{
	holds = false;
	while (is_held)
		doze();
}

/* How many requests there are until a look finds none; answers them. */
static int drain(struct aph_endpoint *ep, uint64_t (*until)(void))
{
	struct aph_event ev;
	int n = 0;

	while (aph_endpoint_next(ep, &ev, until()) == 0) {
		assert_int_equal(ev.type, APH_EVENT_REQUEST);
		assert_int_equal(aph_call_reply(ev.call, "y", 1), 0);
		n++;
	}
	return n;
}

/* Those that have come are all found at once, and whoever has received them need not run. */
static void look_at_many(uint64_t (*until)(void))
{
	struct aph_call *calls[N_AT_ONCE];
	struct beside beside;
	int n = 0, most = 0;

	beside_start(&beside);
	(void)drain(beside.client.ep, until);
	for (int i = 0; i < N_AT_ONCE; i++)
		calls[i] = client_begin(beside.there.channel, "x", 1, APH_FOREVER);
	for (int i = 0; i < 20 && n < N_AT_ONCE; i++) {
		int found;

		(void)aph_endpoint_serve(beside.there.ep, aph_deadline_ms(50));
		hold(&beside);
		found = drain(beside.client.ep, until);
		let_go();
		n += found;
		most = found > most ? found : most;
	}
	assert_int_equal(n, N_AT_ONCE);
	/* Even if a busy machine has not brought all of them by then. */
	assert_in_range(most, N_AT_ONCE / 2, N_AT_ONCE);
	for (int i = 0; i < N_AT_ONCE; i++)
		calls[i] = aph_call_free(calls[i]);
	beside_stop(&beside);
}

static void a_look_finds_all(void **state)
{
	(void)state;
	look_at_many(at_once);
}

static void a_short_wait_finds_all(void **state)
{
	(void)state;
	look_at_many(aph_time_ns);
}

/* More of a body that lies behind another request. */
static void a_look_at_a_call(void **state)
{
	struct beside beside;
	struct aph_call *call, *calls[2];
	char byte;

	(void)state;
	beside_start(&beside);
	assert_int_equal(aph_call_new(&calls[0], beside.there.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(calls[0], "x", 1, APH_MORE), 1);
	call = client_expect(beside.client.ep, APH_EVENT_REQUEST, NULL).call;
	assert_int_equal(aph_call_read(call, &byte, 1), 1);
	assert_int_equal(aph_call_read(call, &byte, 1), -EAGAIN);
	calls[1] = client_begin(beside.there.channel, "y", 1, APH_FOREVER);
	assert_int_equal(aph_call_send(calls[0], "z", 1, 0), 1);
	(void)aph_endpoint_serve(beside.there.ep, aph_deadline_ms((uint64_t)check_ms(100)));
	hold(&beside);
	assert_int_equal(aph_call_wait(call, APH_NOW), 0);
	let_go();
	assert_int_equal(aph_call_read(call, &byte, 1), 1);
	assert_int_equal(byte, 'z');
	for (int i = 0; i < 2; i++)
		calls[i] = aph_call_free(calls[i]);
	beside_stop(&beside);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(looks_beside_a_call), SUITE_TEST(short_waits_beside_a_call),
		SUITE_TEST(a_look_finds_all),	 SUITE_TEST(a_short_wait_finds_all),
		SUITE_TEST(a_look_at_a_call),
	};

	scheme_choose(argc, argv);
	return suite_run_both("threads", tests, SUITE_LEN(tests), 60);
}
