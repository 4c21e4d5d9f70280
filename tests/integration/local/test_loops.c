/* SPDX-License-Identifier: MIT */
/*
 * The pollable descriptor in loops of other people: level-triggered, one event taken per wake-up,
 * so that a descriptor which forgets to stay readable hangs the test.
 */
#include "suite.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <unistd.h>

typedef int (*wait_fn)(int fd, int timeout_ms);

static int wait_poll(int fd, int timeout_ms)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	return poll(&poller, 1, timeout_ms);
}

static int wait_epoll(int fd, int timeout_ms)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC), n;

	assert_true(ep >= 0);
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
	n = epoll_wait(ep, &ev, 1, timeout_ms);
	close(ep);
	return n;
}

static int wait_select(int fd, int timeout_ms)
{
	struct timeval tv = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return select(fd + 1, &set, NULL, NULL, &tv);
}

/* A loop's epoll set that lives as long as the loop: what libevent and libuv do. */
static int kept_epoll = -1;

static int wait_kept(int fd, int timeout_ms)
{
	struct epoll_event ev = { .events = EPOLLIN };

	if (kept_epoll < 0) {
		kept_epoll = epoll_create1(EPOLL_CLOEXEC);
		assert_int_equal(epoll_ctl(kept_epoll, EPOLL_CTL_ADD, fd, &ev), 0);
	}
	return epoll_wait(kept_epoll, &ev, 1, timeout_ms);
}

static const wait_fn waits[] = { wait_poll, wait_epoll, wait_select, wait_kept };

static void drop_kept(void)
{
	if (kept_epoll >= 0)
		close(kept_epoll);
	kept_epoll = -1;
}

/* One event for one wake-up; checks that a wake-up comes. */
static int next_one(struct aph_endpoint *ep, wait_fn wait, struct aph_event *ev)
{
	int fd = aph_endpoint_fd(ep);

	assert_true(fd >= 0);
	assert_int_equal(wait(fd, check_hang_ms(3000)), 1);
	return aph_endpoint_next(ep, ev, APH_NOW);
}

static void clients(void **state)
{
	enum {
		N = 60
	};
	struct service_config config = { .address = "loop", .by_fd = true };
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_event ev;
	int r, idle;

	(void)state;
	for (size_t w = 0; w < SUITE_LEN(waits); w++) {
		config.by_fd = w % 2 == 0;
		service_start(&service, suite_mode, &config);
		client_open(&client, "loop");
		assert_true(aph_endpoint_fd(client.ep) >= 0);
		for (int round = 0; round < 20; round++) {
			for (int i = 0; i < N; i++)
				call = client_begin(client.channel, i % 3 ? "e" : "l", 1,
						    APH_FOREVER);
			(void)call;
			idle = 0;
			for (int ends = 0; ends < N;) {
				r = next_one(client.ep, waits[w], &ev);
				if (r == -EAGAIN) {
					/*
					 * A spurious wake-up now and then is fair; a busy loop is
					 * not.
					 */
					assert_true(++idle < 10 * N);
					continue;
				}
				assert_int_equal(r, 0);
				if (ev.type == APH_EVENT_END) {
					ends++;
					aph_call_free(ev.call);
				}
			}
		}
		/* Nothing is left: it goes quiet, after a few looks at most. */
		for (int i = 0; i < 10 && aph_endpoint_next(client.ep, &ev, APH_NOW) == 0; i++)
			assert_int_equal(ev.type, APH_EVENT_NONE);
		for (int i = 0; waits[w](aph_endpoint_fd(client.ep), 50) != 0; i++) {
			assert_int_equal(aph_endpoint_next(client.ep, &ev, APH_NOW), -EAGAIN);
			assert_true(i < 20);
		}
		drop_kept();
		client_close(&client);
		service_stop(&service);
	}
}

static void deadlines(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_event ev;
	uint64_t deadline;
	int r;

	(void)state;
	service_start_simple(&service, suite_mode, "loop");
	for (size_t w = 0; w < SUITE_LEN(waits); w++) {
		client_open(&client, "loop");
		assert_true(aph_endpoint_fd(client.ep) >= 0);
		call = client_begin_late(client.channel, &service, "h", &deadline);
		do {
			r = next_one(client.ep, waits[w], &ev);
			assert_true(r == 0 || r == -EAGAIN);
		} while (r != 0);
		assert_int_equal(ev.type, APH_EVENT_END);
		assert_int_equal(ev.result.reason, APH_REASON_DEADLINE);
		assert_true(aph_time_ns() >= deadline);
		aph_call_free(call);
		drop_kept();
		client_close(&client);
	}
	service_stop(&service);
}

/* Several services and channels on one endpoint, all through its one descriptor, in one thread. */
static void all_in_one(void **state)
{
	enum {
		N = 6,
		ROUNDS = 25
	}; /* so many that all fit into a ring */
	static const char *const names[] = { "one", "two" };
	struct aph_channel *channels[N];
	struct aph_service *services[2];
	struct aph_channel_options options = { .size = sizeof(options),
					       .flags = APH_CHANNEL_ASYNC };
	struct aph_endpoint *ep;
	struct aph_call *call;
	struct aph_event ev;
	char buf[64];
	int opened = 0, ends = 0, idle = 0, r;
	ssize_t n;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_true(aph_endpoint_fd(ep) >= 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(aph_service_open(&services[i], ep, names[i], NULL), 0);
	for (int i = 0; i < N; i++)
		assert_int_equal(aph_channel_open(&channels[i], ep, names[i % 2], &options), 0);
	while (ends < N * ROUNDS) {
		r = next_one(ep, wait_poll, &ev);
		if (r == -EAGAIN) {
			assert_true(++idle < 10 * N * ROUNDS);
			continue;
		}
		assert_int_equal(r, 0);
		switch (ev.type) {
		case APH_EVENT_OPEN:
			opened++;
			for (int k = 0; k < ROUNDS; k++)
				call = client_begin(ev.channel, "hello", 5, APH_FOREVER);
			(void)call;
			break;
		case APH_EVENT_REQUEST:
			n = aph_call_read(ev.call, buf, sizeof(buf));
			assert_int_equal(n, 5);
			assert_int_equal(aph_call_reply(ev.call, buf, (size_t)n), 0);
			break;
		case APH_EVENT_END:
			assert_int_equal(ev.result.outcome, APH_ANSWERED);
			assert_int_equal(aph_call_read(ev.call, buf, sizeof(buf)), 5);
			aph_call_free(ev.call);
			ends++;
			break;
		default:
			fail_msg("event %s", aph_event_name(ev.type));
		}
	}
	assert_int_equal(opened, N);
	for (int i = 0; i < N; i++)
		aph_channel_close(channels[i]);
	aph_endpoint_free(ep); /* with its services */
}

/* Bursts both ways with pauses between: a wake-up that was suppressed once too often shows here. */
static void bursts(void **state)
{
	struct service_config config = { .address = "burst" };
	struct rng rng = { .state = check_seed() };
	struct service service;
	struct client client;
	struct aph_event ev;
	int r, ends;

	(void)state;
	for (int by_fd = 0; by_fd < 4; by_fd++) {
		config.by_fd = by_fd & 1;
		config.spin_max_us = by_fd & 2 ? APH_SPIN_NEVER : 0;
		service_start(&service, suite_mode, &config);
		client_open(&client, "burst");
		for (int round = 0; round < 300; round++) {
			int n = 1 + (int)rng_below(&rng, 40);

			for (int i = 0; i < n; i++)
				(void)client_begin(client.channel, "eabc", 4, APH_FOREVER);
			for (ends = 0; ends < n;) {
				if (by_fd < 2) {
					r = next_one(client.ep, wait_poll, &ev);
					if (r == -EAGAIN)
						continue;
				} else {
					r = aph_endpoint_next(
						client.ep, &ev,
						aph_deadline_ms((uint64_t)check_hang_ms(3000)));
				}
				assert_int_equal(r, 0);
				if (ev.type != APH_EVENT_END)
					continue;
				assert_int_equal(ev.result.outcome, APH_ANSWERED);
				aph_call_free(ev.call);
				ends++;
			}
			if (rng_below(&rng, 4) == 0)
				usleep(rng_below(&rng, 500));
		}
		client_close(&client);
		service_stop(&service);
	}
}

static void writable_through_the_descriptor(void **state)
{
	struct service_config config = { .address = "loop", .by_fd = true };
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_event ev;
	static char data[2000000] = "d";
	size_t sent = 0;
	bool ended = false;
	ssize_t n;
	int r;

	(void)state;
	service_start(&service, suite_mode, &config);
	client_open(&client, "loop");
	assert_true(aph_endpoint_fd(client.ep) >= 0);
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	n = aph_call_send(call, data, sizeof(data), 0);
	assert_true(n > 0);
	sent = (size_t)n;
	while (!ended) {
		r = next_one(client.ep, wait_kept, &ev);
		if (r == -EAGAIN)
			continue;
		assert_int_equal(r, 0);
		if (ev.type == APH_EVENT_WRITABLE) {
			n = aph_call_send(call, data + sent, sizeof(data) - sent, 0);
			assert_true(n >= 0 || n == -EAGAIN);
			sent += n > 0 ? (size_t)n : 0;
		}
		ended = ev.type == APH_EVENT_END;
	}
	assert_int_equal(sent, sizeof(data));
	assert_int_equal(ev.result.outcome, APH_ANSWERED);
	aph_call_free(call);
	drop_kept();
	client_close(&client);
	service_stop(&service);
}

/*
 * A ring that is full of what was given up, and a call that waits for room there. It is the only
 * one, and was made while the loop slept.
 */
static void room_for_a_call_made_in_the_loop(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_event ev;
	int r;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("needs a service that can be stopped");
	service_start_simple(&service, suite_mode, "loop");
	for (size_t w = 0; w < SUITE_LEN(waits); w++) {
		client_open(&client, "loop");
		assert_true(aph_endpoint_fd(client.ep) >= 0);
		client_echo(client.channel);
		while (aph_endpoint_next(client.ep, &ev, APH_NOW) != -EAGAIN)
			;
		child_signal(&service.child, SIGSTOP);
		child_await_state(service.child.pid, 'T', check_hang_ms(2000));
		for (int i = 0; i < 32; i++) {
			call = client_begin(client.channel, "e", 1, APH_FOREVER);
			aph_call_free(call);
		}
		assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
		assert_int_equal(aph_call_send(call, "e", 1, 0), -EAGAIN);
		child_signal(&service.child, SIGCONT);
		do {
			r = next_one(client.ep, waits[w], &ev);
			assert_true(r == 0 || r == -EAGAIN);
		} while (r != 0);
		assert_int_equal(ev.type, APH_EVENT_WRITABLE);
		assert_int_equal(aph_call_send(call, "e", 1, 0), 1);
		assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
		aph_call_free(call);
		drop_kept();
		client_close(&client);
	}
	service_stop(&service);
}

/*
 * Reservations fill the arena. One is given back while the loop sleeps, by the same process, so
 * that no peer rings.
 */
static void room_of_a_reservation(void **state)
{
	struct aph_call *blocked, *reserves[2];
	struct service service;
	struct client client;
	struct aph_event ev;
	char data[1000] = "e";
	void *room;
	size_t len;
	int r;

	(void)state;
	service_start_simple(&service, suite_mode, "loop");
	for (size_t w = 0; w < SUITE_LEN(waits); w++) {
		client_open(&client, "loop");
		assert_true(aph_endpoint_fd(client.ep) >= 0);
		for (int i = 0; i < 2; i++) {
			len = 1 << 20; /* as much as may be */
			assert_int_equal(
				aph_call_new(&reserves[i], client.channel, APH_FOREVER, NULL), 0);
			assert_int_equal(aph_call_reserve(reserves[i], &room, &len), 0);
		}
		assert_int_equal(aph_call_new(&blocked, client.channel, APH_FOREVER, NULL), 0);
		assert_int_equal(aph_call_send(blocked, data, sizeof(data), 0), -EAGAIN);
		while (aph_endpoint_next(client.ep, &ev, APH_NOW) != -EAGAIN)
			;
		if (w % 2)
			assert_int_equal(aph_call_commit(reserves[0], 0, APH_MORE), 0);
		else
			reserves[0] = aph_call_free(reserves[0]);
		do
			r = next_one(client.ep, waits[w], &ev);
		while (r == -EAGAIN);
		assert_int_equal(r, 0);
		assert_int_equal(ev.type, APH_EVENT_WRITABLE);
		assert_int_equal(aph_call_send(blocked, data, sizeof(data), 0), sizeof(data));
		aph_call_free(reserves[0]);
		aph_call_free(reserves[1]);
		aph_call_free(blocked);
		drop_kept();
		client_close(&client);
	}
	service_stop(&service);
}

static void *call_for_long(void *arg)
{
	struct client *client = arg;

	CHECK(aph_call(client->channel, "h", 1, NULL, NULL, APH_FOREVER) == 0);
	return NULL;
}

struct asker {
	const char *address;
	_Atomic bool done;
};

static void *ask_often(void *arg)
{
	struct asker *asker = arg;
	struct client client;
	char answer[8];

	client_open(&client, asker->address);
	for (int i = 0; i < 100; i++) {
		size_t len = sizeof(answer);

		CHECK(aph_call(client.channel, "ask", 3, answer, &len,
			       aph_deadline_ms((uint64_t)check_hang_ms(3000))) == 0);
		CHECK(len == 3);
		if (i % 8 == 0)
			usleep(1000);
	}
	client_close(&client);
	asker->done = true;
	return NULL;
}

static void answer_until(struct aph_endpoint *ep, const struct asker *asker)
{
	struct aph_event ev;

	while (!asker->done) {
		if (wait_kept(aph_endpoint_fd(ep), 10) != 1 ||
		    aph_endpoint_next(ep, &ev, APH_NOW) == -EAGAIN)
			continue;
		assert_int_equal(ev.type, APH_EVENT_REQUEST);
		assert_int_equal(aph_call_reply(ev.call, "yes", 3), 0);
	}
}

/*
 * Another thread waits for a call of its own, and takes in what the loop waits for: the loop is
 * told of all of it.
 */
static void beside_a_thread_that_calls(void **state)
{
	struct asker asker = { .address = "own" };
	pthread_t caller, other;
	struct service service;
	struct client client, ender;
	struct aph_event ev;
	int r;

	(void)state;
	service_start_simple(&service, suite_mode, "slow");
	client_open(&client, "slow");
	assert_int_equal(aph_service_open(NULL, client.ep, asker.address, NULL), 0);
	assert_true(aph_endpoint_fd(client.ep) >= 0);
	while (aph_endpoint_next(client.ep, &ev, APH_NOW) != -EAGAIN)
		;
	assert_int_equal(pthread_create(&caller, NULL, call_for_long, &client), 0);
	service_await(&service.seen->held, 1);

	assert_int_equal(pthread_create(&other, NULL, ask_often, &asker), 0);
	answer_until(client.ep, &asker);
	assert_int_equal(pthread_join(other, NULL), 0);

	(void)client_begin(client.channel, "", 0, APH_FOREVER);
	do
		r = next_one(client.ep, wait_kept, &ev);
	while (r == -EAGAIN);
	assert_int_equal(r, 0);
	assert_int_equal(ev.type, APH_EVENT_END);
	aph_call_free(ev.call);

	assert_int_equal(aph_endpoint_wake(client.ep), 0);
	do
		r = next_one(client.ep, wait_kept, &ev);
	while (r == -EAGAIN);
	assert_int_equal(r, -ECANCELED);

	/* Nothing is left: it goes quiet. */
	for (int i = 0; wait_kept(aph_endpoint_fd(client.ep), 50) != 0; i++) {
		assert_int_equal(aph_endpoint_next(client.ep, &ev, APH_NOW), -EAGAIN);
		assert_true(i < 100);
		usleep(1000);
	}
	client_open(&ender, "slow");
	assert_int_equal(aph_call(ender.channel, "w", 1, NULL, NULL, APH_FOREVER), 0);
	assert_int_equal(pthread_join(caller, NULL), 0);
	drop_kept();
	client_close(&ender);
	client_close(&client);
	service_stop(&service);
}

/*
 * The loop's own thread looks after one call without waiting, and so takes in the end of another
 * one.
 */
static void a_look_at_one_call(void **state)
{
	struct aph_call *held, *quick;
	struct service service;
	struct client client;
	struct aph_event ev;
	int r;

	(void)state;
	service_start_simple(&service, suite_mode, "loop");
	for (size_t w = 0; w < SUITE_LEN(waits); w++) {
		client_open(&client, "loop");
		assert_true(aph_endpoint_fd(client.ep) >= 0);
		held = client_begin(client.channel, "h", 1, APH_FOREVER);
		quick = client_begin(client.channel, "", 0, APH_FOREVER);
		while (!aph_call_result(quick, NULL))
			assert_int_equal(aph_call_wait(held, APH_NOW), -EAGAIN);
		assert_int_equal(aph_call_wait(held, APH_NOW), -EAGAIN);
		do
			r = next_one(client.ep, waits[w], &ev);
		while (r == -EAGAIN);
		assert_int_equal(r, 0);
		assert_int_equal(ev.type, APH_EVENT_END);
		assert_ptr_equal(ev.call, quick);
		aph_call_free(quick);
		aph_call_free(held);
		drop_kept();
		client_close(&client);
	}
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(clients),
		SUITE_TEST(deadlines),
		SUITE_TEST(all_in_one),
		SUITE_TEST(bursts),
		SUITE_TEST(writable_through_the_descriptor),
		SUITE_TEST(room_for_a_call_made_in_the_loop),
		SUITE_TEST(room_of_a_reservation),
		SUITE_TEST(beside_a_thread_that_calls),
		SUITE_TEST(a_look_at_one_call),
	};

	return suite_run_both("loops", tests, SUITE_LEN(tests), 60);
}
