/* SPDX-License-Identifier: MIT */
/*
 * Bodies through an arena: far longer than it, and by a sender that outruns its reader. What is the
 * same for every kind of address is in ../calls.
 */
#include "suite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void far_beyond_the_arena(void **state)
{
	uint64_t len = check_slow() ? 20000000 : 100000000;
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, "long");
	client_open(&client, "long");
	client_put(client.ep, client.channel, len, 1);
	client_get(client.ep, client.channel, 'g', len, 2);
	client_close(&client);
	service_stop(&service);
}

/* A sender that outruns its reader gets EAGAIN after a bounded number of bytes, then WRITABLE. */
static void back_pressure(void **state)
{
	struct service_config config = { .address = "slow" };
	struct service service;
	struct client client;
	struct aph_call *call, *other;
	static char data[100000] = "h";
	size_t total = 1;
	struct aph_event ev;
	ssize_t n;

	(void)state;
	service_start(&service, suite_mode, &config);
	client_open(&client, "slow");
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(call, "h", 1, APH_MORE), 1);
	while ((n = aph_call_send(call, data, sizeof(data), APH_MORE)) >= 0) {
		total += (size_t)n;
		assert_true(total < 1000000);
	}
	assert_int_equal(n, -EAGAIN);
	assert_true(total >= 32768);
	service_await(&service.seen->held, 1);
	/* Nothing was read: no room, and no event. Small calls pass by. */
	client_quiet(client.ep, 20);
	for (int i = 0; i < 20; i++)
		client_echo(client.channel);
	/* Another call that needs the arena waits too, and fails by its deadline without harm. */
	for (unsigned ms = 50;; ms *= 2) {
		assert_int_equal(aph_call_new(&other, client.channel, aph_deadline_ms(ms), NULL),
				 0);
		for (total = 0; (n = aph_call_send(other, data, sizeof(data), APH_MORE)) >= 0;) {
			total += (size_t)n;
			assert_true(total < 1000000);
		}
		ev = client_expect(client.ep, APH_EVENT_END, other);
		assert_int_equal(ev.result.reason, APH_REASON_DEADLINE);
		aph_call_free(other);
		if (n == -EAGAIN && ev.result.outcome == (total > 0 ? APH_LOST : APH_REFUSED))
			break;
		/* It passed before all was sent, or before the service had received what was. */
		assert_true(n == -EPIPE || (n == -EAGAIN && ev.result.outcome == APH_REFUSED));
		assert_true(ms < 5000);
	}
	/* The reply comes before the request was sent: the rest of it has nowhere to go. */
	assert_int_equal(aph_call(client.channel, "w", 1, NULL, NULL, APH_FOREVER), APH_ANSWERED);
	assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
	assert_int_equal(aph_call_send(call, data, 1, APH_MORE), -EPIPE);
	aph_call_free(call);
	/* All the room is there again. */
	client_put(client.ep, client.channel, 1000000, 3);
	client_close(&client);
	service_stop(&service);
}

static void the_body_has_begun(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	char reply[16];
	size_t len = sizeof(reply);

	(void)state;
	service_start_simple(&service, suite_mode, "begin");
	client_open(&client, "begin");
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(call, NULL, 0, APH_MORE), 0);
	service_await(&service.seen->requests, 1);
	assert_int_equal(aph_call_send(call, "ex", 2, APH_MORE), 2);
	assert_int_equal(aph_call_send(call, "y", 1, APH_MORE), 1);
	assert_int_equal(aph_call_send(call, NULL, 0, 0), 0);
	assert_int_equal(aph_call_send(call, NULL, 0, 0), -EPIPE);
	assert_int_equal(client_end(client.ep, call, reply, &len).outcome, APH_ANSWERED);
	assert_int_equal(len, 3);
	assert_memory_equal(reply, "exy", 3);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

/* A service and its client at one endpoint, where nothing happens but what is asked for. */
struct pair {
	struct aph_endpoint *ep;
	struct aph_channel *channel;
};

static void pair_open(struct pair *pair)
{
	assert_int_equal(aph_endpoint_new(&pair->ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, pair->ep, "pair", NULL), 0);
	assert_int_equal(aph_channel_open(&pair->channel, pair->ep, "pair", NULL), 0);
}

static struct aph_call *pair_call(const struct pair *pair)
{
	struct aph_call *call;

	assert_int_equal(aph_call_new(&call, pair->channel, APH_FOREVER, NULL), 0);
	return call;
}

/* The next event of this call, whatever comes for others. */
static void pair_expect(const struct pair *pair, enum aph_event_type type,
			const struct aph_call *call)
{
	struct aph_event ev;

	do {
		client_next(pair->ep, &ev, 2000);
	} while (ev.call != call);
	assert_int_equal(ev.type, type);
}

/* Sends until there is no room. How much went. */
static size_t fill(struct aph_call *call, size_t piece)
{
	static const char data[512 << 10];
	size_t sent = 0;
	ssize_t n;

	while ((n = aph_call_send(call, data, piece, APH_MORE)) > 0)
		sent += (size_t)n;
	assert_int_equal(n, -EAGAIN);
	return sent;
}

/*
 * Room that was given back is for all that wait, also when the call that finds it is another one.
 */
static void room_that_another_call_finds(void **state)
{
	static char data[512 << 10];
	struct aph_call *first, *second, *request;
	struct aph_event ev;
	struct pair pair;
	size_t sent;

	(void)state;
	pair_open(&pair);
	first = pair_call(&pair);
	second = pair_call(&pair);
	sent = fill(first, sizeof(data));
	(void)fill(second, 20000);
	ev = client_expect(pair.ep, APH_EVENT_REQUEST, NULL);
	request = ev.call;
	while (aph_call_available(request) < sent)
		client_expect(pair.ep, APH_EVENT_REQUEST, NULL);
	assert_int_equal(aph_call_read(request, data, sizeof(data)), sent);
	assert_int_equal(aph_call_send(second, data, 1000, 0), 1000);
	pair_expect(&pair, APH_EVENT_WRITABLE, first);
	assert_true(aph_call_send(first, data, sizeof(data), 0) > 0);
	aph_endpoint_free(pair.ep);
}

/* What was reserved and not used is room for others; nobody else will say so. */
static void room_of_a_reservation(void **state)
{
	static const char data[1000];
	struct aph_call *calls[3];
	struct pair pair;
	size_t len;
	void *room;

	(void)state;
	pair_open(&pair);
	for (int i = 0; i < 3; i++)
		calls[i] = pair_call(&pair);
	for (int i = 0; i < 2; i++) {
		len = 128 << 10;
		assert_int_equal(aph_call_reserve(calls[i], &room, &len), 0);
		assert_int_equal(len, 128 << 10);
	}
	assert_int_equal(aph_call_send(calls[2], data, sizeof(data), 0), -EAGAIN);
	client_quiet(pair.ep, 20);
	assert_int_equal(aph_call_commit(calls[1], 0, APH_MORE), 0);
	pair_expect(&pair, APH_EVENT_WRITABLE, calls[2]);
	assert_int_equal(aph_call_send(calls[2], data, sizeof(data), 0), sizeof(data));
	aph_endpoint_free(pair.ep);
}

/* A long body without a copy leaves room for short ones, as one with a copy does. */
static void a_long_reservation_lets_others_by(void **state)
{
	static const char data[1000];
	struct aph_call *call, *other;
	struct pair pair;
	size_t len, all = 0;
	void *room;
	int r;

	(void)state;
	pair_open(&pair);
	call = pair_call(&pair);
	other = pair_call(&pair);
	for (;;) {
		len = 32 << 10;
		r = aph_call_reserve(call, &room, &len);
		if (r < 0)
			break;
		assert_int_equal(aph_call_commit(call, len, APH_MORE), 0);
		all += len;
	}
	assert_int_equal(r, -EAGAIN);
	assert_true(all >= 128 << 10);
	assert_int_equal(aph_call_send(other, data, sizeof(data), 0), sizeof(data));
	aph_endpoint_free(pair.ep);
}

/*
 * Who finds no room for a reservation can wait for it, also when nothing more is to come the other
 * way.
 */
static void waiting_for_a_reservation(void **state)
{
	struct aph_event ev;
	struct pair pair;
	size_t len;
	void *room;
	char buf[8];

	(void)state;
	pair_open(&pair);
	assert_int_equal(aph_call_send(pair_call(&pair), "x", 1, 0), 1);
	ev = client_expect(pair.ep, APH_EVENT_REQUEST, NULL);
	assert_int_equal(aph_call_read(ev.call, buf, sizeof(buf)), 1);
	do {
		len = 32 << 10;
	} while (aph_call_reserve(ev.call, &room, &len) == 0 &&
		 aph_call_commit(ev.call, len, APH_MORE) == 0);
	assert_int_equal(aph_call_reserve(ev.call, &room, &len), -EAGAIN);
	assert_int_equal(aph_call_wait(ev.call, aph_deadline_ms(20)), -ETIMEDOUT);
	aph_endpoint_free(pair.ep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(far_beyond_the_arena),
		SUITE_TEST(back_pressure),
		SUITE_TEST(the_body_has_begun),
		SUITE_TEST(room_that_another_call_finds),
		SUITE_TEST(room_of_a_reservation),
		SUITE_TEST(a_long_reservation_lets_others_by),
		SUITE_TEST(waiting_for_a_reservation),
	};

	return suite_run_both("streams", tests, SUITE_LEN(tests), 90);
}
