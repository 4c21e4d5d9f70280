/* SPDX-License-Identifier: MIT */
/*
 * How an endpoint with rx: addresses waits: alone and beside others, in threads, in loops of
 * others, after fork().
 */
#include "fds.h"
#include "pattern.h"
#include "remote.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4

static void *call_often(void *arg)
{
	for (int i = 0; i < 100; i++)
		client_echo(arg);
	return NULL;
}

/* One channel, with one thread after the other in the lead. */
static void threads_that_call(void **state)
{
	const char *address = remote_address();
	pthread_t threads[THREADS];
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_often, client.channel), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	client_quiet(client.ep, 5);
	client_close(&client);
	service_stop(&service);
}

/* Events that nobody takes must not keep other threads' requests here. */
static void a_call_beside_events_that_lie(void **state)
{
	const char *address = remote_address();
	struct aph_call *held;
	pthread_t threads[THREADS];
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	held = client_begin(client.channel, "p", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_often, client.channel), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	client_expect(client.ep, APH_EVENT_REPLY, held);
	aph_call_free(held);
	service_await(&service.seen->works, 0);
	client_close(&client);
	service_stop(&service);
}

struct waiter {
	struct aph_endpoint *ep;
	_Atomic uint32_t turns;
	_Atomic uint32_t requests;
	_Atomic uint32_t stop;
};

static void *answer(void *arg)
{
	struct waiter *waiter = arg;
	struct aph_event ev;
	int r;

	while (!waiter->stop) {
		r = aph_endpoint_next(waiter->ep, &ev, APH_FOREVER);
		waiter->turns++;
		if (r == -ECANCELED || r == -EINTR)
			continue;
		CHECK_OK(r);
		if (ev.type != APH_EVENT_REQUEST)
			continue;
		waiter->requests++;
		CHECK_OK(aph_call_reply(ev.call, "reply", 5));
	}
	return NULL;
}

/* Services and channels come and go while another thread sleeps in the driver or in epoll. */
static void others_change_what_a_sleeper_waits_for(void **state)
{
	struct aph_service *first, *second, *local;
	struct waiter waiter = { .turns = 0 };
	char addresses[2][64];
	struct client client;
	pthread_t thread;

	(void)state;
	snprintf(addresses[0], sizeof(addresses[0]), "%s", remote_address());
	snprintf(addresses[1], sizeof(addresses[1]), "%s", remote_address());
	assert_int_equal(aph_endpoint_new(&waiter.ep, NULL), 0);
	assert_int_equal(aph_service_open(&first, waiter.ep, addresses[0], NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, answer, &waiter), 0);
	for (int i = 0; i < 4; i++) {
		uint32_t turns = waiter.turns;

		client_open(&client, addresses[0]);
		assert_int_equal(
			aph_call(client.channel, "x", 1, NULL, NULL, aph_deadline_ms(20000)), 0);
		remote_nap();
		assert_int_equal(aph_endpoint_wake(waiter.ep), 0);
		while (waiter.turns == turns)
			remote_nap();
		/* A second port: the leader has to leave the first one's driver. */
		assert_int_equal(aph_service_open(&second, waiter.ep, addresses[1], NULL), 0);
		assert_int_equal(aph_service_open(NULL, waiter.ep, addresses[1], NULL), -EEXIST);
		aph_channel_close(client.channel);
		assert_int_equal(aph_channel_open(&client.channel, client.ep, addresses[1], NULL),
				 0);
		assert_int_equal(
			aph_call(client.channel, "x", 1, NULL, NULL, aph_deadline_ms(20000)), 0);
		assert_null(aph_service_close(first));
		remote_nap();
		assert_int_equal(
			aph_call(client.channel, "x", 1, NULL, NULL, aph_deadline_ms(20000)), 0);
		remote_nap();
		/* The last one goes while somebody may sleep in it. */
		assert_null(aph_service_close(second));
		assert_int_equal(aph_service_open(&local, waiter.ep, "beside", NULL), 0);
		aph_channel_close(client.channel);
		assert_int_equal(aph_channel_open(&client.channel, client.ep, "beside", NULL), 0);
		assert_int_equal(
			aph_call(client.channel, "x", 1, NULL, NULL, aph_deadline_ms(20000)), 0);
		assert_null(aph_service_close(local));
		assert_int_equal(aph_service_open(&first, waiter.ep, addresses[0], NULL), 0);
		client_close(&client);
	}
	waiter.stop = 1;
	assert_int_equal(aph_endpoint_wake(waiter.ep), 0);
	pthread_join(thread, NULL);
	assert_int_equal(waiter.requests, 16);
	aph_endpoint_free(waiter.ep);
}

/* A local service appears in an endpoint that has slept in the driver only. */
static void a_local_service_beside_a_sleeper(void **state)
{
	struct waiter waiter = { .turns = 0 };
	struct client client;
	pthread_t thread;

	(void)state;
	assert_int_equal(aph_endpoint_new(&waiter.ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, waiter.ep, remote_address(), NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, answer, &waiter), 0);
	remote_nap();
	assert_int_equal(aph_service_open(NULL, waiter.ep, "beside", NULL), 0);
	client_open(&client, "beside");
	assert_int_equal(aph_call(client.channel, "x", 1, NULL, NULL, aph_deadline_ms(20000)), 0);
	client_close(&client);
	waiter.stop = 1;
	assert_int_equal(aph_endpoint_wake(waiter.ep), 0);
	pthread_join(thread, NULL);
	aph_endpoint_free(waiter.ep);
}

/* Both kinds of service in one endpoint, and both kinds of channel in another. */
static void local_and_remote_together(void **state)
{
	char address[64];
	struct service_config config = { .address = address };
	struct waiter waiter = { .turns = 0 };
	struct aph_channel *local;
	struct service service;
	struct client client;
	pthread_t thread;

	(void)state;
	snprintf(address, sizeof(address), "%s", remote_address());
	service_start(&service, suite_mode, &config);
	assert_int_equal(aph_endpoint_new(&waiter.ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, waiter.ep, "beside", NULL), 0);
	assert_int_equal(aph_service_open(NULL, waiter.ep, remote_address(), NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, answer, &waiter), 0);
	client_open(&client, address);
	assert_int_equal(aph_channel_open(&local, client.ep, "beside", NULL), 0);
	for (int i = 0; i < 50; i++) {
		client_echo(client.channel);
		assert_int_equal(aph_call(local, "x", 1, NULL, NULL, aph_deadline_ms(20000)), 0);
	}
	client_put(client.ep, client.channel, 1000000, 1);
	client_get(client.ep, client.channel, 'g', 1000000, 2);
	aph_channel_close(local);
	client_close(&client);
	waiter.stop = 1;
	assert_int_equal(aph_endpoint_wake(waiter.ep), 0);
	pthread_join(thread, NULL);
	aph_endpoint_free(waiter.ep);
	service_stop(&service);
}

static void *take_nothing(void *arg)
{
	struct aph_event ev;

	CHECK(aph_endpoint_next(arg, &ev, APH_FOREVER) == -ECANCELED);
	return NULL;
}

/*
 * A thread that waits for events takes in what another one reads: who sends is told that it was
 * read.
 */
static void a_long_reply_beside_a_sleeper(void **state)
{
	enum {
		LEN = 16 << 20
	};
	struct {
		char op;
		struct service_get get;
	} __attribute__((packed)) request = { 'g', { .len = LEN, .seed = 7 } };
	struct service service;
	struct client client;
	pthread_t sleeper;
	uint8_t *reply = malloc(LEN);
	size_t len;

	(void)state;
	assert_non_null(reply);
	service_start_simple(&service, suite_mode, remote_address());
	client_open(&client, service.config.address);
	/* In the driver, then in epoll. */
	for (int i = 0; i < 2; i++) {
		if (i)
			assert_int_equal(aph_service_open(NULL, client.ep, "beside", NULL), 0);
		assert_int_equal(pthread_create(&sleeper, NULL, take_nothing, client.ep), 0);
		remote_nap();
		len = LEN;
		assert_int_equal(aph_call(client.channel, &request, sizeof(request), reply, &len,
					  aph_deadline_ms((uint64_t)check_hang_ms(10000))),
				 0);
		assert_int_equal(len, LEN);
		assert_int_equal(pattern_check(reply, LEN, 0, 7), LEN);
		assert_int_equal(aph_endpoint_wake(client.ep), 0);
		assert_int_equal(pthread_join(sleeper, NULL), 0);
	}
	free(reply);
	client_close(&client);
	service_stop(&service);
}

#define AT_ONCE 16 /* calls of a channel that are under way at once */

/* As many calls as there can be have ended and are to be read, and one more waits for that. */
static void fill_channel(struct client *client, struct aph_call *calls[AT_ONCE + 1])
{
	struct aph_event ev;

	for (int i = 0; i < AT_ONCE; i++)
		calls[i] = client_begin(client->channel, "e", 1, APH_FOREVER);
	for (int n = 0; n < AT_ONCE; n += ev.type == APH_EVENT_END)
		client_next(client->ep, &ev, 3000);
	calls[AT_ONCE] = client_begin(client->channel, "e", 1, APH_FOREVER);
	assert_int_equal(aph_endpoint_next(client->ep, &ev, aph_deadline_ms(300)), -ETIMEDOUT);
}

/* The engine's next deadline is further away. */
static void check_soon(uint64_t start_ns)
{
	assert_true(aph_deadline_ms(0) - start_ns < (uint64_t)check_ms(400) * 1000000);
}

static void *await_end(void *arg)
{
	struct aph_event ev = { .type = APH_EVENT_NONE };

	while (ev.type != APH_EVENT_END)
		client_next(arg, &ev, 3000);
	return NULL;
}

/* Room for a call that waits is seen by whoever sleeps. */
static void room_beside_a_sleeper(void **state)
{
	struct aph_call *calls[AT_ONCE + 1];
	struct service service;
	struct client client;
	pthread_t sleeper;
	uint64_t start;

	(void)state;
	service_start_simple(&service, suite_mode, remote_address());
	client_open(&client, service.config.address);
	fill_channel(&client, calls);
	assert_int_equal(pthread_create(&sleeper, NULL, await_end, client.ep), 0);
	remote_nap();
	start = aph_deadline_ms(0);
	aph_call_free(calls[0]);
	assert_int_equal(pthread_join(sleeper, NULL), 0);
	check_soon(start);
	assert_int_equal(aph_call_result(calls[AT_ONCE], NULL), 1);
	for (int i = 1; i <= AT_ONCE; i++)
		aph_call_free(calls[i]);
	client_close(&client);
	service_stop(&service);
}

/* The same in a foreign loop, which reads between two waits. */
static void room_by_descriptor(void **state)
{
	struct pollfd poller = { .events = POLLIN };
	struct aph_call *calls[AT_ONCE + 1];
	struct service service;
	struct client client;
	struct aph_event ev;
	uint64_t start;
	char byte;
	int r;

	(void)state;
	service_start_simple(&service, suite_mode, remote_address());
	client_open(&client, service.config.address);
	fill_channel(&client, calls);
	poller.fd = aph_endpoint_fd(client.ep);
	do {
		assert_int_equal(aph_endpoint_next(client.ep, &ev, APH_NOW), -EAGAIN);
	} while (poll(&poller, 1, 20) != 0);
	start = aph_deadline_ms(0);
	assert_int_equal(aph_call_read(calls[0], &byte, 1), 1);
	do {
		assert_int_equal(poll(&poller, 1, check_hang_ms(3000)), 1);
		r = aph_endpoint_next(client.ep, &ev, APH_NOW);
		assert_true(r == 0 || r == -EAGAIN);
	} while (r < 0 || ev.type != APH_EVENT_END);
	assert_ptr_equal(ev.call, calls[AT_ONCE]);
	check_soon(start);
	for (int i = 0; i <= AT_ONCE; i++)
		aph_call_free(calls[i]);
	client_close(&client);
	service_stop(&service);
}

/* Both sides in foreign loops: with poll() on one descriptor each, one event for a wake-up. */
static void by_descriptor(void **state)
{
	struct service_config config = { .address = remote_address(), .by_fd = true };
	struct service service;
	struct client client;
	struct pollfd poller = { .events = POLLIN };
	struct aph_call *call;
	struct aph_event ev;
	uint64_t deadline;
	int r;

	(void)state;
	service_start(&service, suite_mode, &config);
	client_open(&client, config.address);
	poller.fd = aph_endpoint_fd(client.ep);
	assert_true(poller.fd >= 0);
	for (int i = 0; i < 20; i++) {
		call = client_begin(client.channel, "e", 1, APH_FOREVER);
		do {
			assert_int_equal(poll(&poller, 1, check_hang_ms(3000)), 1);
			r = aph_endpoint_next(client.ep, &ev, APH_NOW);
		} while (r == -EAGAIN || (r == 0 && ev.type == APH_EVENT_REPLY));
		assert_int_equal(r, 0);
		assert_int_equal(ev.type, APH_EVENT_END);
		client_check_result(ev.result, APH_ANSWERED, APH_REASON_NONE);
		aph_call_free(call);
	}
	/* Deadlines make it readable. */
	call = client_begin_late(client.channel, &service, "h", &deadline);
	do {
		assert_int_equal(poll(&poller, 1, check_hang_ms(3000)), 1);
		r = aph_endpoint_next(client.ep, &ev, APH_NOW);
	} while (r == -EAGAIN);
	assert_int_equal(ev.type, APH_EVENT_END);
	client_check_result(ev.result, APH_LOST, APH_REASON_DEADLINE);
	aph_call_free(call);
	/* With nothing to do it becomes quiet, but for the engine's own deadlines. */
	for (int i = 0; poll(&poller, 1, 20) != 0; i++) {
		assert_int_equal(aph_endpoint_next(client.ep, &ev, APH_NOW), -EAGAIN);
		assert_true(i < 50);
	}
	client_put(client.ep, client.channel, 300000, 1);
	client_get(client.ep, client.channel, 'g', 300000, 1);
	client_close(&client);
	service_stop(&service);
}

static void fork_leaves_the_parent_alone(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_event ev;
	int status;
	pid_t pid;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	client_echo(client.channel);
	call = client_begin(client.channel, "p", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		CHECK(aph_endpoint_next(client.ep, &ev, APH_NOW) == -ENOTCONN);
		CHECK(aph_call(client.channel, "e", 1, NULL, NULL, APH_NOW) == -ENOTCONN);
		CHECK(aph_channel_open(&client.channel, client.ep, address, NULL) == -ENOTCONN);
		CHECK(aph_call_send(call, "x", 1, 0) == -EPIPE);
		CHECK(aph_endpoint_free(client.ep) == NULL);
		client_open(&client, address);
		client_echo(client.channel);
		client_close(&client);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	client_expect(client.ep, APH_EVENT_REPLY, call);
	client_echo(client.channel);
	assert_int_equal(aph_call(client.channel, "w", 1, NULL, NULL, APH_FOREVER), 0);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_ANSWERED, APH_REASON_NONE);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

/* A service's endpoint in a child, freed there with everything in it. */
static void fork_of_a_service(void **state)
{
	struct aph_event ev;
	struct service service;
	struct client client;
	struct aph_call *call;
	int status;
	pid_t pid;

	(void)state;
	service_start_simple(&service, SERVICE_INLINE, remote_address());
	client_open(&client, service.config.address);
	call = client_begin(client.channel, "h", 1, APH_FOREVER);
	while (service_turn(&service, 1) == 0)
		;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		CHECK(aph_endpoint_next(service.ep, &ev, APH_NOW) == -ENOTCONN);
		aph_endpoint_free(service.ep);
		aph_endpoint_free(client.ep);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	aph_call_cancel(call);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_LOST,
			    APH_REASON_CANCELLED);
	aph_call_free(call);
	while (service_turn(&service, 1) == 0)
		;
	assert_int_equal(service.seen->gone, 1);
	client_close(&client);
	service_stop(&service);
}

/*
 * All kinds of things are open when the endpoints go: a child or a sanitizer would tell of what is
 * left.
 */
static void freed_with_everything_open(void **state)
{
	struct aph_call *calls[3];
	struct service service;
	struct client client;
	struct fds before;
	static char large[300000] = "d";

	(void)state;
	fds_take(&before);
	service_start_simple(&service, SERVICE_INLINE, remote_address());
	assert_int_equal(aph_service_open(NULL, service.ep,
					  remote_other(service.config.address, 200), NULL),
			 0);
	client_open(&client, service.config.address);
	calls[0] = client_begin(client.channel, "p", 1, APH_FOREVER);
	while (service_turn(&service, 1) == 0)
		;
	assert_int_equal(aph_call_new(&calls[1], client.channel, aph_deadline_ms(20000), NULL), 0);
	assert_true(aph_call_send(calls[1], large, sizeof(large), 0) > 0);
	assert_int_equal(aph_call_new(&calls[2], client.channel, APH_FOREVER, NULL), 0);
	aph_endpoint_free(client.ep);
	/* What has arrived and was never taken in goes too. */
	service_stop(&service);
	assert_int_equal(fds_differ(&before), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(threads_that_call),
		SUITE_TEST(a_call_beside_events_that_lie),
		SUITE_TEST(others_change_what_a_sleeper_waits_for),
		SUITE_TEST(a_local_service_beside_a_sleeper),
		SUITE_TEST(local_and_remote_together),
		SUITE_TEST(a_long_reply_beside_a_sleeper),
		SUITE_TEST(room_beside_a_sleeper),
		SUITE_TEST(room_by_descriptor),
		SUITE_TEST(by_descriptor),
		SUITE_TEST(fork_leaves_the_parent_alone),
		SUITE_TEST(fork_of_a_service),
		SUITE_TEST(freed_with_everything_open),
	};

	return suite_run_both("remote loops", tests, SUITE_LEN(tests), 60);
}
