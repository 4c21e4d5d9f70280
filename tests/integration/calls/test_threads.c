/* SPDX-License-Identifier: MIT */
/* Several threads on one endpoint, each in a function of its own. */
#include "scheme.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_CALLS 20

static void doze(void)
{
	const struct timespec nap = { .tv_nsec = 1000000 };

	nanosleep(&nap, NULL);
}

struct caller {
	struct aph_channel *channel;
	_Atomic int n_answered;
	_Atomic bool done;
};

/* Its reply begins, and does not end. */
static void *call_for_long(void *arg)
{
	struct caller *caller = arg;
	char reply[8];
	size_t len = sizeof(reply);

	(void)aph_call(caller->channel, "p", 1, reply, &len, aph_deadline_ms(2000));
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

/* Who only looks, and never waits, is told of requests while another thread waits in a call. */
static void looks_beside_a_call(void **state)
{
	char *own = strdup(scheme_address()), *other = strdup(scheme_address());
	struct caller waits = { 0 }, calls = { 0 };
	pthread_t threads[2];
	struct service service;
	struct client client, there;
	struct aph_event ev;

	(void)state;
	service_start_simple(&service, suite_mode, other);
	client_open(&client, other);
	assert_int_equal(aph_service_open(NULL, client.ep, own, NULL), 0);
	waits.channel = client.channel;
	assert_int_equal(pthread_create(&threads[0], NULL, call_for_long, &waits), 0);
	service_await(&service.seen->held, 1);
	client_open(&there, own);
	calls.channel = there.channel;
	assert_int_equal(pthread_create(&threads[1], NULL, call_often, &calls), 0);
	while (!calls.done) {
		int r = aph_endpoint_next(client.ep, &ev, APH_NOW);

		if (r == 0 && ev.type == APH_EVENT_REQUEST)
			assert_int_equal(aph_call_reply(ev.call, "y", 1), 0);
		else
			doze();
		assert_true(r == 0 || r == -EAGAIN);
	}
	pthread_join(threads[1], NULL);
	assert_int_equal(calls.n_answered, N_CALLS);
	assert_false(waits.done);
	client_close(&there);
	pthread_join(threads[0], NULL);
	client_close(&client);
	service_stop(&service);
	free(own);
	free(other);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(looks_beside_a_call),
	};

	scheme_choose(argc, argv);
	return suite_run_both("threads", tests, SUITE_LEN(tests), 60);
}
