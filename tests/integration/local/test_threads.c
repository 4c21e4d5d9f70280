/* SPDX-License-Identifier: MIT */
/*
 * Several threads on one endpoint, at either side and at both at once: each event goes to exactly
 * one of them, and a thread that waits for its own call does not lose the events of others.
 */
#include "pattern.h"
#include "suite.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 4

struct pool {
	struct aph_endpoint *ep;
	struct aph_service *service;
	pthread_t threads[THREADS];
	_Atomic unsigned requests, gone, served[THREADS];
	_Atomic bool stop;
	pthread_mutex_t lock;
};

struct worker {
	struct pool *pool;
	int number;
};

/*
 * A call's END may be handed to one thread while another is still busy with its REQUEST. Only one
 * of them may free it: whoever is done last. This is what stands in the call's data, under the
 * pool's lock.
 */
enum {
	FRESH,
	IN_HAND,
	HELD,
	ENDED
};

static int exchange(struct pool *pool, struct aph_call *call, int state)
{
	int old;

	pthread_mutex_lock(&pool->lock);
	old = (int)(intptr_t)aph_call_data(call);
	if (old != FRESH || state == IN_HAND)
		aph_call_set_data(call, (void *)(intptr_t)state);
	pthread_mutex_unlock(&pool->lock);
	return old;
}

static void ended(struct pool *pool, struct aph_call *call)
{
	int old;

	pool->gone++;
	while ((old = exchange(pool, call, ENDED)) == FRESH)
		sched_yield();
	if (old == HELD)
		aph_call_free(call);
}

static void requested(struct pool *pool, struct aph_call *call)
{
	char buf[4096];
	size_t len = 0;
	ssize_t n;
	int r;

	exchange(pool, call, IN_HAND);
	pool->requests++;
	while ((n = aph_call_read(call, buf + len, sizeof(buf) - len)) > 0)
		len += (size_t)n;
	CHECK(n == 0 || n == -EPIPE);
	if (n == -EPIPE || (len == 4 && memcmp(buf, "hold", 4) == 0)) {
		if (exchange(pool, call, HELD) == ENDED)
			aph_call_free(call);
		return;
	}
	r = aph_call_reply(call, buf, len);
	CHECK(r == 0 || r == -ECANCELED);
}

static void *serve(void *arg)
{
	struct worker *worker = arg;
	struct pool *pool = worker->pool;
	struct aph_event ev;
	int r;

	while (!atomic_load(&pool->stop)) {
		r = aph_endpoint_next(pool->ep, &ev, APH_FOREVER);
		if (r == -ECANCELED || r == -EINTR)
			continue;
		CHECK_OK(r);
		if (ev.type == APH_EVENT_END) {
			CHECK(ev.result.outcome == APH_GONE);
			ended(pool, ev.call);
			continue;
		}
		CHECK(ev.type == APH_EVENT_REQUEST);
		pool->served[worker->number]++;
		requested(pool, ev.call);
	}
	CHECK_OK(aph_endpoint_wake(pool->ep)); /* the next one */
	return NULL;
}

static void pool_start(struct pool *pool, struct worker *workers, const char *address)
{
	memset(pool, 0, sizeof(*pool));
	pthread_mutex_init(&pool->lock, NULL);
	CHECK_OK(aph_endpoint_new(&pool->ep, NULL));
	CHECK_OK(aph_service_open(&pool->service, pool->ep, address, NULL));
	for (int i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .pool = pool, .number = i };
		CHECK(pthread_create(&pool->threads[i], NULL, serve, &workers[i]) == 0);
	}
}

static void pool_stop(struct pool *pool)
{
	atomic_store(&pool->stop, true);
	CHECK_OK(aph_endpoint_wake(pool->ep));
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(pool->threads[i], NULL) == 0);
	aph_endpoint_free(pool->ep);
}

struct caller {
	struct aph_channel *channel;
	unsigned number, rounds;
};

static void *call_often(void *arg)
{
	const struct caller *caller = arg;
	char request[2048], reply[2048];
	size_t n, len;

	for (unsigned i = 0; i < caller->rounds; i++) {
		memset(request, (int)('a' + (caller->number + i) % 26), sizeof(request));
		n = (size_t)snprintf(request, sizeof(request), "%u %u ", caller->number, i);
		n = i % 5 == 0 ? sizeof(request) : n;
		len = sizeof(reply);
		CHECK_OK(
			aph_call(caller->channel, request, n, reply, &len, aph_deadline_ms(20000)));
		CHECK(aph_channel_result(caller->channel).outcome == APH_ANSWERED);
		CHECK(len == n && memcmp(request, reply, n) == 0);
	}
	return NULL;
}

static unsigned rounds(void)
{
	return check_slow() ? 300 : 3000;
}

static void call_from_threads(struct aph_channel **channels, unsigned n_channels)
{
	pthread_t threads[THREADS];
	struct caller callers[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		callers[i] = (struct caller){ channels[i % n_channels], i, rounds() };
		assert_int_equal(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void threads_serve(void **state)
{
	struct worker workers[THREADS];
	struct aph_channel *channels[THREADS];
	struct client clients[THREADS];
	struct pool pool;

	(void)state;
	pool_start(&pool, workers, "pool");
	for (int i = 0; i < THREADS; i++) {
		client_open(&clients[i], "pool");
		channels[i] = clients[i].channel;
	}
	call_from_threads(channels, THREADS);
	assert_int_equal(pool.requests, THREADS * rounds());
	for (int i = 0; i < THREADS; i++)
		client_close(&clients[i]);
	pool_stop(&pool);
}

/* All callers share one endpoint and one channel. */
static void threads_call(void **state)
{
	struct worker workers[THREADS];
	struct client client;
	struct pool pool;

	(void)state;
	pool_start(&pool, workers, "pool");
	client_open(&client, "pool");
	call_from_threads(&client.channel, 1);
	client_close(&client);
	assert_int_equal(pool.requests, THREADS * rounds());
	pool_stop(&pool);
}

/* The same with channels of one endpoint, which is also the service's. */
static void callers_share_the_endpoint_of_the_service(void **state)
{
	struct worker workers[THREADS];
	struct aph_channel *channels[2];
	struct pool pool;

	(void)state;
	pool_start(&pool, workers, "pool");
	for (int i = 0; i < 2; i++)
		assert_int_equal(aph_channel_open(&channels[i], pool.ep, "pool", NULL), 0);
	call_from_threads(channels, 2);
	for (int i = 0; i < 2; i++)
		aph_channel_close(channels[i]);
	pool_stop(&pool);
}

struct ends {
	struct client client;
	_Atomic unsigned begun, ended;
	unsigned wanted;
};

static void *take_ends(void *arg)
{
	struct ends *ends = arg;
	struct aph_event ev;
	int r;

	while (ends->ended < ends->wanted) {
		r = aph_endpoint_next(ends->client.ep, &ev, aph_deadline_ms(20));
		if (r == -ETIMEDOUT || r == -ECANCELED)
			continue;
		CHECK_OK(r);
		if (ev.type != APH_EVENT_END)
			continue;
		CHECK(aph_call_data(ev.call) == ends);
		aph_call_free(ev.call);
		ends->ended++;
	}
	return NULL;
}

static void *begin_calls(void *arg)
{
	struct ends *ends = arg;
	struct aph_call *call;
	unsigned number;
	int r;

	while ((number = atomic_fetch_add(&ends->begun, 1)) < ends->wanted) {
		do {
			r = aph_call_new(&call, ends->client.channel, APH_FOREVER, ends);
		} while (r == -EAGAIN);
		CHECK_OK(r);
		while (aph_call_send(call, number % 7 ? "echo" : "hold", 4, 0) == -EAGAIN)
			;
		/*
		 * An echo may be over and freed by another thread from here on; what is held stays
		 * until it is cancelled, and no longer.
		 */
		if (number % 7 == 0)
			CHECK_OK(aph_call_cancel(call));
	}
	return NULL;
}

/* Some threads begin calls, others take the events; answers and ends, all at once. */
static void one_event_one_thread(void **state)
{
	struct worker workers[THREADS];
	struct ends ends = { .wanted = check_slow() ? 2000 : 20000 };
	pthread_t threads[4];
	struct pool pool;
	unsigned holds = (ends.wanted + 6) / 7;

	(void)state;
	pool_start(&pool, workers, "pool");
	client_open(&ends.client, "pool");
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? begin_calls : take_ends,
						&ends),
				 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(ends.ended, ends.wanted);
	client_quiet(ends.client.ep, 10);
	/* Whatever was cancelled before its request was received was never seen. */
	assert_true(pool.requests <= ends.wanted);
	assert_true(pool.requests >= ends.wanted - holds);
	service_await(&pool.gone, pool.requests - (ends.wanted - holds));
	client_close(&ends.client);
	pool_stop(&pool);
}

static void *wake_often(void *arg)
{
	struct pool *pool = arg;

	for (int i = 0; i < 2000; i++)
		CHECK_OK(aph_endpoint_wake(pool->ep));
	return NULL;
}

/* Wakes, clients that come and go, and calls from elsewhere do not disturb each other. */
static void coming_and_going(void **state)
{
	struct worker workers[THREADS];
	struct client client, passer_by;
	struct pool pool;
	pthread_t thread;

	(void)state;
	pool_start(&pool, workers, "pool");
	client_open(&client, "pool");
	assert_int_equal(pthread_create(&thread, NULL, wake_often, &pool), 0);
	for (int i = 0; i < (check_slow() ? 30 : 200); i++) {
		client_open(&passer_by, "pool");
		client_echo(client.channel);
		if (i % 2)
			client_echo(passer_by.channel);
		else
			(void)client_begin(passer_by.channel, "hold", 4, APH_FOREVER);
		client_close(&passer_by);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	client_close(&client);
	pool_stop(&pool);
}

/* One thread waits for a call of its own, and leads; what wakes reaches those behind it. */
struct behind {
	struct client client;
	bool tends;
	_Atomic bool ended; /* the call of the thread that leads */
};

static void *call_in_vain(void *arg)
{
	struct behind *behind = arg;
	int r = aph_call(behind->client.channel, "hold", 4, NULL, NULL,
			 aph_deadline_ms((uint64_t)check_ms(1000)));

	behind->ended = true;
	CHECK(r == APH_LOST);
	return NULL;
}

static void *be_woken(void *arg)
{
	struct behind *behind = arg;
	struct aph_event ev;
	int r = behind->tends ? aph_endpoint_serve(behind->client.ep, APH_FOREVER)
			      : aph_endpoint_next(behind->client.ep, &ev, APH_FOREVER);

	CHECK(r == -ECANCELED);
	CHECK(!behind->ended);
	return NULL;
}

static void a_wake_is_passed_on(void **state)
{
	struct worker workers[THREADS];
	struct behind behind = { .ended = false };
	pthread_t caller, other;
	struct pool pool;

	(void)state;
	pool_start(&pool, workers, "pool");
	client_open(&behind.client, "pool");
	for (int i = 0; i < 2; i++) {
		behind.tends = i;
		behind.ended = false;
		assert_int_equal(pthread_create(&caller, NULL, call_in_vain, &behind), 0);
		service_await(&pool.requests, (unsigned)i + 1);
		usleep(10000);
		assert_int_equal(pthread_create(&other, NULL, be_woken, &behind), 0);
		usleep(10000);
		assert_int_equal(aph_endpoint_wake(behind.client.ep), 0);
		assert_int_equal(pthread_join(other, NULL), 0);
		assert_int_equal(pthread_join(caller, NULL), 0);
	}
	client_close(&behind.client);
	pool_stop(&pool);
}

static void *take_nothing(void *arg)
{
	struct aph_event ev;

	CHECK(aph_endpoint_next(arg, &ev, APH_FOREVER) == -ECANCELED);
	return NULL;
}

/*
 * A thread that waits for events takes in the pieces of a body; whoever waits for that body is told
 * of each.
 */
static void a_long_reply_beside_a_leader(void **state)
{
	enum {
		LEN = 4 << 20
	};
	struct {
		char op;
		struct service_get get;
	} __attribute__((packed)) request = { 'g', { .len = LEN, .seed = 7 } };
	struct service service;
	struct client client;
	pthread_t leader;
	uint8_t *reply = malloc(LEN);
	size_t len = LEN;

	(void)state;
	assert_non_null(reply);
	service_start_simple(&service, SERVICE_PROCESS, "long");
	client_open(&client, "long");
	assert_int_equal(pthread_create(&leader, NULL, take_nothing, client.ep), 0);
	usleep(10000);
	assert_int_equal(aph_call(client.channel, &request, sizeof(request), reply, &len,
				  aph_deadline_ms((uint64_t)check_hang_ms(10000))),
			 0);
	assert_int_equal(len, LEN);
	assert_int_equal(pattern_check(reply, LEN, 0, 7), LEN);
	assert_int_equal(aph_endpoint_wake(client.ep), 0);
	assert_int_equal(pthread_join(leader, NULL), 0);
	free(reply);
	client_close(&client);
	service_stop(&service);
}

static void *register_often(void *arg)
{
	struct aph_endpoint *ep;

	CHECK_OK(aph_endpoint_new(&ep, NULL));
	while (!atomic_load((_Atomic bool *)arg)) {
		struct aph_service *service;

		CHECK_OK(aph_service_open(&service, ep, "other", NULL));
		aph_service_close(service);
	}
	aph_endpoint_free(ep);
	return NULL;
}

/*
 * Opens that wait in vain, while another thread sees what happens in the directory that they watch.
 */
static void waiting_in_vain_beside_a_leader(void **state)
{
	struct aph_channel_options options = { .size = sizeof(options), .flags = APH_CHANNEL_WAIT };
	_Atomic bool stop = false;
	struct worker workers[THREADS];
	struct aph_channel *channel;
	struct pool pool;
	pthread_t thread;
	uint64_t until = aph_deadline_ms(300);

	(void)state;
	pool_start(&pool, workers, "pool");
	assert_int_equal(pthread_create(&thread, NULL, register_often, &stop), 0);
	while (aph_time_ns() < until) {
		options.deadline_ns = aph_time_ns() + 100000;
		assert_int_equal(aph_channel_open(&channel, pool.ep, "nobody", &options),
				 -ETIMEDOUT);
	}
	stop = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	pool_stop(&pool);
}

/* -- a service that throws everybody out ------------------------------------------------------- */

static void *throw_out(void *arg)
{
	struct aph_endpoint *ep = arg;
	struct aph_event ev;

	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0) {
		CHECK(ev.type == APH_EVENT_CONNECT);
		aph_channel_close(ev.channel);
	}
	return NULL;
}

struct closed {
	struct aph_endpoint *ep;
	_Atomic unsigned n;
};

static void *count_closed(void *arg)
{
	struct closed *closed = arg;
	struct aph_event ev;

	while (aph_endpoint_next(closed->ep, &ev, APH_FOREVER) == 0) {
		CHECK(ev.type == APH_EVENT_CLOSED && ev.result.reason == APH_REASON_CLOSED);
		closed->n++;
	}
	return NULL;
}

/* Another thread may see a channel's end before the one that opens it has seen that it is open. */
static void thrown_out_beside_a_leader(void **state)
{
	static const struct aph_service_options options = { .size = sizeof(options),
							    .flags = APH_SERVICE_EVENTS };
	struct closed closed = { .n = 0 };
	struct aph_channel *channel;
	struct aph_endpoint *service;
	pthread_t threads[2];

	(void)state;
	assert_int_equal(aph_endpoint_new(&service, NULL), 0);
	assert_int_equal(aph_service_open(NULL, service, "bouncer", &options), 0);
	assert_int_equal(aph_endpoint_new(&closed.ep, NULL), 0);
	assert_int_equal(pthread_create(&threads[0], NULL, throw_out, service), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, count_closed, &closed), 0);
	for (unsigned i = 1; i <= 500; i++) {
		assert_int_equal(aph_channel_open(&channel, closed.ep, "bouncer", NULL), 0);
		service_await(&closed.n, i);
		aph_channel_close(channel);
	}
	assert_int_equal(aph_endpoint_wake(service), 0);
	assert_int_equal(aph_endpoint_wake(closed.ep), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	aph_endpoint_free(closed.ep);
	aph_endpoint_free(service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(threads_serve),
		SUITE_TEST(threads_call),
		SUITE_TEST(callers_share_the_endpoint_of_the_service),
		SUITE_TEST(one_event_one_thread),
		SUITE_TEST(coming_and_going),
		SUITE_TEST(a_wake_is_passed_on),
		SUITE_TEST(a_long_reply_beside_a_leader),
		SUITE_TEST(waiting_in_vain_beside_a_leader),
		SUITE_TEST(thrown_out_beside_a_leader),
	};

	return suite_run("threads", tests, SUITE_LEN(tests), 60);
}
