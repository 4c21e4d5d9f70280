/* SPDX-License-Identifier: MIT */
/*
 * Bodies as streams: any size in any pieces, both ways, with back-pressure, and the forms without a
 * copy. The same cases over every kind of address.
 */
#include "scheme.h"

#include "pattern.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FAR ((size_t)16 << 20) /* bytes: more than any window takes */

static void long_bodies(void **state)
{
	const char *address = scheme_address();
	static const uint64_t lens[] = { 0, 1, 41, 4096, 70000, 262143, 262144, 262145, 3000000 };
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	for (size_t i = 0; i < SUITE_LEN(lens); i++) {
		client_put(client.ep, client.channel, lens[i], (uint32_t)i);
		client_get(client.ep, client.channel, 'g', lens[i], (uint32_t)i + 100);
		client_get(client.ep, client.channel, 'z', lens[i], (uint32_t)i + 200);
		if (lens[i])
			client_get(client.ep, client.channel, 'G', lens[i], (uint32_t)i + 300);
	}
	client_quiet(client.ep, 10);
	client_close(&client);
	service_stop(&service);
}

/* Sends and receives at the same time, as the service answers while it reads. */
static void both_ways_at_once(struct client *client, char op, size_t len)
{
	unsigned char *out = malloc(len), in[5000];
	size_t sent = 0, got = 0;
	struct aph_call *call;
	bool ended = false;
	ssize_t n;

	pattern_fill(out, len, 0, 5);
	out[0] = (unsigned char)op;
	assert_int_equal(aph_call_new(&call, client->channel, aph_deadline_ms(60000), NULL), 0);
	while (!ended) {
		while (sent < len) {
			n = aph_call_send(call, out + sent, len - sent, 0);
			if (n <= 0)
				break;
			sent += (size_t)n;
		}
		while ((n = aph_call_read(call, in, sizeof(in))) > 0) {
			assert_true(got + (size_t)n <= len);
			assert_memory_equal(in, out + got, (size_t)n);
			got += (size_t)n;
		}
		assert_true(n == 0 || n == -EAGAIN);
		ended = n == 0;
		if (!ended)
			assert_int_equal(aph_call_wait(call, aph_deadline_ms(20000)), 0);
	}
	assert_int_equal(got, len);
	client_end(client->ep, call, NULL, NULL);
	aph_call_free(call);
	free(out);
}

static void echo_streams_both_ways(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	both_ways_at_once(&client, 'e', 3000000);
	both_ways_at_once(&client, 'b', 3000000);
	both_ways_at_once(&client, 'e', 1);
	both_ways_at_once(&client, 'b', 300000);
	client_close(&client);
	service_stop(&service);
}

static void pieces_of_any_size(void **state)
{
	const char *address = scheme_address();
	struct rng rng = { .state = check_seed() };
	struct service service;
	struct client client;
	struct aph_call *call;
	unsigned char out[5000], in[5000];
	size_t len, at, n, got;
	struct aph_event ev;
	ssize_t r;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	for (int round = 0; round < 50; round++) {
		len = 1 + rng_below(&rng, sizeof(out));
		pattern_fill(out, len, 0, (uint32_t)round);
		out[0] = round % 2 ? 'e' : 'b';
		assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
		for (at = 0; at < len; at += n) {
			n = rng_below(&rng, 200);
			n = n < len - at ? n : len - at;
			assert_true(client_send(call, out + at, n, APH_MORE));
		}
		assert_true(client_send(call, NULL, 0, 0));
		got = 0;
		do {
			client_next(client.ep, &ev, 3000);
			assert_ptr_equal(ev.call, call);
			while ((r = aph_call_read(call, in + got, 1 + rng_below(&rng, 300))) > 0)
				got += (size_t)r;
		} while (ev.type != APH_EVENT_END);
		assert_int_equal(r, 0);
		assert_int_equal(got, len);
		assert_memory_equal(in, out, len);
		aph_call_free(call);
	}
	client_close(&client);
	service_stop(&service);
}

static void peek_and_available(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	struct aph_event ev;
	struct aph_call *call;
	char buf[64];

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	call = client_begin(client.channel, "eabcdefgh", 9, APH_FOREVER);
	/* A reply that is there as a whole needs no REPLY. */
	do {
		client_next(client.ep, &ev, 3000);
		assert_ptr_equal(ev.call, call);
	} while (ev.type != APH_EVENT_END);
	assert_true(aph_call_body_complete(call));
	assert_int_equal(aph_call_available(call), 9);
	for (int i = 0; i < 3; i++) {
		memset(buf, 0, sizeof(buf));
		assert_int_equal(aph_call_peek(call, buf, sizeof(buf)), 9);
		assert_string_equal(buf, "eabcdefgh");
		assert_int_equal(aph_call_peek(call, buf, 2), 2);
	}
	assert_int_equal(aph_call_read(call, buf, 3), 3);
	assert_int_equal(aph_call_available(call), 6);
	assert_int_equal(aph_call_peek(call, buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "cdefgh", 6);
	assert_int_equal(aph_call_read(call, buf, sizeof(buf)), 6);
	assert_int_equal(aph_call_read(call, buf, sizeof(buf)), 0);
	assert_int_equal(aph_call_peek(call, buf, sizeof(buf)), 0);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

/*
 * A client that wants none of a long reply, or only its beginning, has it sent to its end all the
 * same.
 */
static void a_long_reply_that_is_dropped(void **state)
{
	struct service_get get = { .len = 40000000, .seed = 3 };
	const char *address = scheme_address();
	char request[1 + sizeof(get)] = "g", buf[10];
	struct service service;
	struct client client;
	size_t len;

	(void)state;
	memcpy(request + 1, &get, sizeof(get));
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	assert_int_equal(aph_call(client.channel, request, sizeof(request), NULL, NULL,
				  aph_deadline_ms((uint64_t)check_hang_ms(10000))),
			 APH_ANSWERED);
	len = sizeof(buf);
	assert_int_equal(aph_call(client.channel, request, sizeof(request), buf, &len,
				  aph_deadline_ms((uint64_t)check_hang_ms(10000))),
			 -EMSGSIZE);
	assert_int_equal(len, get.len);
	client_close(&client);
	service_stop(&service);
}

/*
 * A service in this thread has `call`, of whose request one byte is here, and the client's end of
 * it is `*ours`.
 */
struct two_ends {
	struct aph_endpoint *server;
	struct client client;
	struct aph_call *ours, *call;
};

static void begin_two_ends(struct two_ends *two)
{
	const char *address = scheme_address();
	struct aph_channel_options options = { .size = sizeof(options),
					       .flags = APH_CHANNEL_ASYNC };
	struct aph_event ev;

	assert_int_equal(aph_endpoint_new(&two->server, NULL), 0);
	assert_int_equal(aph_service_open(NULL, two->server, address, NULL), 0);
	assert_int_equal(aph_endpoint_new(&two->client.ep, NULL), 0);
	assert_int_equal(aph_channel_open(&two->client.channel, two->client.ep, address, &options),
			 0);
	while (!aph_channel_is_open(two->client.channel)) {
		(void)aph_endpoint_serve(two->server, aph_deadline_ms(1));
		(void)aph_endpoint_serve(two->client.ep, aph_deadline_ms(1));
	}
	assert_int_equal(aph_call_new(&two->ours, two->client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(two->ours, "a", 1, APH_MORE), 1);
	(void)aph_endpoint_serve(two->client.ep, APH_NOW);
	client_next(two->server, &ev, 3000);
	assert_int_equal(ev.type, APH_EVENT_REQUEST);
	two->call = ev.call;
}

static void end_two_ends(struct two_ends *two)
{
	assert_int_equal(aph_call_reply(two->call, NULL, 0), 0);
	(void)aph_endpoint_serve(two->server, APH_NOW);
	aph_call_free(two->ours);
	client_close(&two->client);
	aph_endpoint_free(two->server);
}

/* Who has read what there was, and has not looked in vain, is told of the rest and of the end. */
static void the_end_of_a_body_that_was_read(void **state)
{
	struct two_ends two;
	char byte;

	(void)state;
	begin_two_ends(&two);
	assert_false(aph_call_body_complete(two.call));
	assert_int_equal(aph_call_read(two.call, &byte, 1), 1);
	assert_int_equal(aph_call_send(two.ours, NULL, 0, 0), 0);
	(void)aph_endpoint_serve(two.client.ep, APH_NOW);
	assert_int_equal(aph_call_wait(two.call, aph_deadline_ms((uint64_t)check_hang_ms(3000))),
			 0);
	assert_true(aph_call_body_complete(two.call));
	assert_int_equal(aph_call_read(two.call, &byte, 1), 0);
	end_two_ends(&two);
}

static void a_body_that_is_complete_and_unread(void **state)
{
	struct two_ends two;
	char buf[10];

	(void)state;
	begin_two_ends(&two);
	assert_int_equal(aph_call_send(two.ours, "bc", 2, 0), 2);
	(void)aph_endpoint_serve(two.client.ep, APH_NOW);
	for (int i = 0; i < 1000 && aph_call_available(two.call) < 3; i++)
		(void)aph_endpoint_serve(two.server, aph_deadline_ms(1));
	assert_true(aph_call_body_complete(two.call));
	assert_int_equal(aph_call_read(two.call, buf, sizeof(buf)), 3);
	end_two_ends(&two);
}

static void *say_more_later(void *arg)
{
	struct two_ends *two = arg;

	(void)aph_endpoint_serve(two->client.ep, aph_deadline_ms(50));
	CHECK(aph_call_send(two->ours, "b", 1, APH_MORE) == 1);
	(void)aph_endpoint_serve(two->client.ep, aph_deadline_ms(50));
	CHECK(aph_call_send(two->ours, NULL, 0, 0) == 0);
	(void)aph_endpoint_serve(two->client.ep, aph_deadline_ms(50));
	return NULL;
}

static void a_body_that_goes_on_during_the_wait(void **state)
{
	struct two_ends two;
	pthread_t thread;
	char byte;

	(void)state;
	begin_two_ends(&two);
	assert_int_equal(aph_call_read(two.call, &byte, 1), 1);
	assert_int_equal(pthread_create(&thread, NULL, say_more_later, &two), 0);
	assert_int_equal(aph_call_wait(two.call, aph_deadline_ms((uint64_t)check_hang_ms(3000))),
			 0);
	assert_int_equal(aph_call_read(two.call, &byte, 1), 1);
	assert_int_equal(byte, 'b');
	assert_int_equal(aph_call_wait(two.call, aph_deadline_ms((uint64_t)check_hang_ms(3000))),
			 0);
	assert_int_equal(aph_call_read(two.call, &byte, 1), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	end_two_ends(&two);
}

/* What a reader finds in a body that has begun and stands still. */
static void a_body_that_stands_still(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	const void *data;
	char buf[16];
	size_t len;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	call = client_begin(client.channel, "p", 1, APH_FOREVER);
	assert_int_equal(aph_call_result(call, &(struct aph_result){ 0 }), 0);
	client_expect(client.ep, APH_EVENT_REPLY, call);
	assert_false(aph_call_body_complete(call));
	assert_int_equal(aph_call_available(call), 4);
	assert_int_equal(aph_call_borrow(call, &data, &len), 0);
	assert_int_equal(len, 4);
	assert_memory_equal(data, "part", 4);
	assert_int_equal(aph_call_release(call, 1), 0);
	assert_int_equal(aph_call_read(call, buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "art", 3);
	assert_int_equal(aph_call_read(call, buf, sizeof(buf)), -EAGAIN);
	assert_int_equal(aph_call_peek(call, buf, sizeof(buf)), -EAGAIN);
	assert_int_equal(aph_call_borrow(call, &data, &len), -EAGAIN);
	assert_int_equal(aph_call_wait(call, aph_deadline_ms(20)), -ETIMEDOUT);
	client_quiet(client.ep, 10);
	assert_int_equal(aph_call(client.channel, "w", 1, NULL, NULL, APH_FOREVER), APH_ANSWERED);
	/* "woken" follows, and then the end. */
	struct aph_event ev = { .type = APH_EVENT_NONE };
	while (ev.type != APH_EVENT_END) {
		client_next(client.ep, &ev, 3000);
		assert_ptr_equal(ev.call, call);
		assert_true(ev.type == APH_EVENT_READABLE || ev.type == APH_EVENT_END);
	}
	assert_int_equal(aph_call_borrow(call, &data, &len), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(data, "woken", 5);
	assert_int_equal(aph_call_release(call, 5), 0);
	assert_int_equal(aph_call_borrow(call, &data, &len), -ENODATA);
	assert_int_equal(aph_call_release(call, 1), -EINVAL);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

static void writable_follows(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	static unsigned char data[3000000];
	size_t sent = 0, waits = 0;
	struct service_sum answer;
	struct aph_event ev;
	size_t len = sizeof(answer);
	ssize_t n;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	data[0] = 'd';
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	while (sent < sizeof(data)) {
		n = aph_call_send(call, data + sent, sizeof(data) - sent, 0);
		assert_true(n >= 0 || n == -EAGAIN);
		if (n > 0)
			sent += (size_t)n;
		if (sent == sizeof(data))
			break;
		client_next(client.ep, &ev, 3000);
		assert_ptr_equal(ev.call, call);
		assert_int_equal(ev.type, APH_EVENT_WRITABLE);
		waits++;
	}
	assert_true(waits > 0);
	/* The body is finished. */
	assert_int_equal(aph_call_send(call, data, 1, 0), -EPIPE);
	assert_int_equal(client_end(client.ep, call, &answer, &len).outcome, APH_ANSWERED);
	assert_int_equal(len, sizeof(answer));
	assert_int_equal(answer.len, sizeof(data));
	assert_int_equal(answer.sum, pattern_sum(0, data, sizeof(data)));
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

/* The service is told that there is room when the client has read. */
static void the_service_waits_for_a_slow_reader(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	struct service_get get = { .len = scheme_is_remote() ? 20000000 : 2000000, .seed = 9 };
	unsigned char request[1 + sizeof(get)] = "g", buf[50000];
	struct aph_event ev;
	uint64_t got = 0;
	ssize_t n;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	memcpy(request + 1, &get, sizeof(get));
	call = client_begin(client.channel, request, sizeof(request), APH_FOREVER);
	client_expect(client.ep, APH_EVENT_REPLY, call);
	/* While it is not read, others are served. */
	for (int i = 0; i < 20; i++)
		client_echo(client.channel);
	service_await(&service.seen->works, 1);
	for (;;) {
		while ((n = aph_call_read(call, buf, sizeof(buf))) > 0) {
			assert_int_equal(pattern_check(buf, (size_t)n, got, 9), n);
			got += (size_t)n;
		}
		if (n == 0)
			break;
		assert_int_equal(n, -EAGAIN);
		client_next(client.ep, &ev, 3000);
		assert_true(ev.type == APH_EVENT_READABLE || ev.type == APH_EVENT_END);
	}
	assert_int_equal(got, get.len);
	assert_true(service.seen->writable > 0);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

static void reserve_and_commit(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	unsigned char *reply = malloc(200000);
	size_t len, sent, total = 150000;
	void *room, *again;
	int r;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	len = 100;
	assert_int_equal(aph_call_reserve(call, &room, &len), 0);
	assert_true(len >= 1 && len <= 100);
	assert_int_equal(aph_call_reserve(call, &again, &len), -EBUSY);
	assert_int_equal(aph_call_send(call, "e", 1, APH_MORE), -EBUSY);
	assert_int_equal(aph_call_commit(call, 101, APH_MORE), -EINVAL);
	/* Given back unused. */
	assert_int_equal(aph_call_commit(call, 0, APH_MORE), 0);
	assert_int_equal(aph_call_commit(call, 0, APH_MORE), -EINVAL);
	len = 0;
	assert_int_equal(aph_call_reserve(call, &room, &len), -EINVAL);
	for (sent = 0; sent < total;) {
		len = total - sent;
		r = aph_call_reserve(call, &room, &len);
		if (r == -EAGAIN) {
			assert_int_equal(aph_call_wait(call, aph_deadline_ms(5000)), 0);
			continue;
		}
		assert_int_equal(r, 0);
		assert_true(len > 0 && len <= total - sent);
		if (len > 7777)
			len = 7777; /* less than was reserved is fine */
		pattern_fill(room, len, sent, 4);
		if (sent == 0)
			((unsigned char *)room)[0] = 'e';
		sent += len;
		assert_int_equal(aph_call_commit(call, len, sent < total ? APH_MORE : 0), 0);
	}
	len = 200000;
	assert_int_equal(client_end(client.ep, call, reply, &len).outcome, APH_ANSWERED);
	assert_int_equal(len, total);
	assert_int_equal(reply[0], 'e');
	assert_int_equal(pattern_check(reply + 1, len - 1, 1, 4), len - 1);
	aph_call_free(call);

	/* One that is open when its call is freed, and one that asks for too much. */
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	len = SIZE_MAX / 2;
	assert_int_equal(aph_call_reserve(call, &room, &len), 0);
	assert_true(len <= 1u << 24);
	assert_int_equal(aph_call_commit(call, len + 1, APH_MORE), -EINVAL);
	aph_call_free(call);
	client_put(client.ep, client.channel, 600000, 1);
	client_close(&client);
	service_stop(&service);
	free(reply);
}

/*
 * Answers one request with a long body, built in place, and waits where there is no room. Returns
 * how often.
 */
static void *reserve_and_wait(void *arg)
{
	struct aph_event ev;
	size_t left = FAR, len;
	intptr_t n = 0;
	void *room;
	int r;

	CHECK_OK(aph_endpoint_next(arg, &ev, aph_deadline_ms((uint64_t)check_hang_ms(5000))));
	while (left) {
		len = left;
		r = aph_call_reserve(ev.call, &room, &len);
		if (r == -EAGAIN) {
			n++;
			CHECK_OK(aph_call_wait(ev.call,
					       aph_deadline_ms((uint64_t)check_hang_ms(5000))));
			continue;
		}
		CHECK_OK(r);
		memset(room, 0, len);
		left -= len;
		CHECK_OK(aph_call_commit(ev.call, len, left ? APH_MORE : 0));
	}
	CHECK(aph_endpoint_serve(arg, APH_FOREVER) == -ECANCELED);
	return (void *)n;
}

/* A service that finds no room for the next piece sleeps until there is some. */
static void waiting_for_a_place(void **state)
{
	const char *address = scheme_address();
	struct aph_endpoint *ep;
	struct client client;
	struct aph_call *call;
	pthread_t thread;
	char *piece = malloc(1 << 20);
	size_t got = 0;
	ssize_t n;
	void *waits;

	(void)state;
	assert_non_null(piece);
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, ep, address, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, reserve_and_wait, ep), 0);
	client_open(&client, address);
	call = client_begin(client.channel, "", 0, APH_FOREVER);
	/* It has filled what there is long since. */
	client_expect(client.ep, APH_EVENT_REPLY, call);
	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	while ((n = aph_call_read(call, piece, 1 << 20)) != 0) {
		if (n == -EAGAIN)
			n = aph_call_wait(call, aph_deadline_ms((uint64_t)check_hang_ms(5000)));
		assert_true(n >= 0);
		got += (size_t)n;
	}
	assert_int_equal(got, FAR);
	assert_int_equal(aph_endpoint_wake(ep), 0);
	assert_int_equal(pthread_join(thread, &waits), 0);
	assert_true((intptr_t)waits < 20000);
	aph_call_free(call);
	client_close(&client);
	aph_endpoint_free(ep);
	free(piece);
}

/*
 * Each time exactly what is there is read, and no read comes up empty: whoever waits is told of
 * more all the same.
 */
static void waiting_after_exact_reads(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	unsigned char request[1 + sizeof(struct service_get)] = "g", *piece = malloc(FAR);
	struct service_get get = { .len = FAR, .seed = 1 };
	size_t got = 0;

	(void)state;
	assert_non_null(piece);
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	memcpy(request + 1, &get, sizeof(get));
	call = client_begin(client.channel, request, sizeof(request), APH_FOREVER);
	while (got < FAR) {
		size_t len = aph_call_available(call);

		if (!len) {
			assert_int_equal(
				aph_call_wait(call, aph_deadline_ms((uint64_t)check_hang_ms(5000))),
				0);
			continue;
		}
		assert_int_equal(aph_call_read(call, piece, len), len);
		assert_int_equal(pattern_check(piece, len, got, 1), len);
		got += len;
	}
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_ANSWERED, APH_REASON_NONE);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
	free(piece);
}

/*
 * A call may end while another thread builds a piece: what was reserved is nobody else's until the
 * call is freed.
 */
static void a_reservation_outlives_its_call(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *calls[20];
	struct aph_event ev;
	void *rooms[20];
	size_t len[20];

	(void)state;
	service_start_simple(&service, suite_mode, scheme_address());
	client_open(&client, service.config.address);
	for (uint32_t i = 0; i < SUITE_LEN(calls); i++) {
		len[i] = 500;
		assert_int_equal(aph_call_new(&calls[i], client.channel, APH_FOREVER, NULL), 0);
		assert_int_equal(aph_call_send(calls[i], "d", 1, APH_MORE), 1);
		assert_int_equal(aph_call_reserve(calls[i], &rooms[i], &len[i]), 0);
		assert_int_equal(aph_call_cancel(calls[i]), 0);
		ev = client_expect(client.ep, APH_EVENT_END, calls[i]);
		assert_int_equal(ev.result.reason, APH_REASON_CANCELLED);
		pattern_fill(rooms[i], len[i], 0, i);
	}
	for (uint32_t i = 0; i < SUITE_LEN(calls); i++) {
		assert_int_equal(pattern_check(rooms[i], len[i], 0, i), len[i]);
		assert_int_equal(aph_call_commit(calls[i], len[i], 0), -EPIPE);
		aph_call_free(calls[i]);
	}
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

static void one_shot_reply_does_not_fit(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	unsigned char request[1 + sizeof(struct service_get)] = "g", reply[100];
	struct service_get get = { .len = 700000, .seed = 1 };
	size_t len;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	len = 3;
	assert_int_equal(aph_call(client.channel, "e234", 4, reply, &len, APH_FOREVER), -EMSGSIZE);
	assert_int_equal(len, 4);
	len = 4;
	assert_int_equal(aph_call(client.channel, "e234", 4, reply, &len, APH_FOREVER), 0);
	memcpy(request + 1, &get, sizeof(get));
	len = sizeof(reply);
	assert_int_equal(aph_call(client.channel, request, sizeof(request), reply, &len,
				  APH_FOREVER),
			 -EMSGSIZE);
	assert_int_equal(len, get.len);
	get.len = FAR;
	memcpy(request + 1, &get, sizeof(get));
	assert_int_equal(aph_call(client.channel, request, sizeof(request), NULL, NULL,
				  APH_FOREVER),
			 APH_ANSWERED);
	client_echo(client.channel);
	client_quiet(client.ep, 10);
	client_close(&client);
	service_stop(&service);
}

/* The one-shot call keeps the events of others for later. */
static void one_shot_keeps_other_events(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	struct aph_call *call;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	for (int i = 0; i < 20; i++) {
		call = client_begin(client.channel, "h", 1, APH_FOREVER);
		service_await(&service.seen->held, 1);
		assert_int_equal(aph_call(client.channel, "w", 1, NULL, NULL, APH_FOREVER), 0);
		client_echo(client.channel);
		assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
		aph_call_free(call);
	}
	client_quiet(client.ep, 10);
	client_close(&client);
	service_stop(&service);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(long_bodies),
		SUITE_TEST(echo_streams_both_ways),
		SUITE_TEST(pieces_of_any_size),
		SUITE_TEST(peek_and_available),
		SUITE_TEST(a_long_reply_that_is_dropped),
		SUITE_TEST(the_end_of_a_body_that_was_read),
		SUITE_TEST(a_body_that_is_complete_and_unread),
		SUITE_TEST(a_body_that_goes_on_during_the_wait),
		SUITE_TEST(a_body_that_stands_still),
		SUITE_TEST(writable_follows),
		SUITE_TEST(the_service_waits_for_a_slow_reader),
		SUITE_TEST(reserve_and_commit),
		SUITE_TEST(waiting_for_a_place),
		SUITE_TEST(waiting_after_exact_reads),
		SUITE_TEST(a_reservation_outlives_its_call),
		SUITE_TEST(one_shot_reply_does_not_fit),
		SUITE_TEST(one_shot_keeps_other_events),
	};

	scheme_choose(argc, argv);
	return suite_run_both("bodies", tests, SUITE_LEN(tests), 90);
}
