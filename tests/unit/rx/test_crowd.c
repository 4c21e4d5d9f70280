/* SPDX-License-Identifier: MIT */
/*
 * A service that many call, under addresses that may all be forged: who has one of its own still
 * gets in.
 */
#include "stranger.h"

#include "rx/proof.h"

#include <stdio.h>

#define ROOM 64

static void begin_small(struct host *h, uint32_t calls_max, uint32_t peers_max,
			uint32_t connections_max)
{
	struct aph_rx_config config = a_config(0);

	config.calls_max = calls_max;
	config.peers_max = peers_max;
	config.connections_max = connections_max;
	begin_with(h, &config);
}

static struct client somebody(unsigned n)
{
	struct client c = { .epoch = 0x80001000 + n, .cid = 4 * n };
	char address[32];

	snprintf(address, sizeof(address), "10.1.%u.%u", n / 250, n % 250 + 1);
	c.path = a_path(address, 7001);
	return c;
}

/* A request of one packet; true: it has become a call, which is answered at once. */
static bool call_once(struct host *h, const struct client *c)
{
	struct aph_rx_event event;

	send_data(h, c, 0, 1, LAST, 4);
	if (!aph_rx_next(h->rx, &event))
		return false;
	assert_int_equal(event.type, APH_RX_EVENT_CALL);
	assert_int_equal(aph_rx_call_write(event.call, "answer", 6, 0), 6);
	assert_null(aph_rx_call_free(event.call));
	return true;
}

/* Requests from addresses that never answer. Returns how many were taken. */
static unsigned flood(struct host *h)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 10 * ROOM; i++) {
		struct client c = somebody(i);

		n += call_once(h, &c);
		look(h);
		/* Neither the answer nor a question is much more than what came. */
		assert_in_range(h->n_bytes, 0, (uint64_t)3 * (APH_RX_HEADER + 4));
	}
	return n;
}

static uint32_t question(struct host *h)
{
	look(h);
	assert_int_equal(h->n_types[APH_RX_BUSY_PACKET], 0);
	assert_int_equal(h->n_types[APH_RX_ACK], 1);
	assert_int_equal(h->acked[16], APH_RX_ACK_PING);
	assert_true(h->seen[APH_RX_ACK].flags & APH_RX_REQUEST_ACK);
	return h->seen[APH_RX_ACK].serial;
}

static void answer(struct host *h, const struct client *c, uint32_t serial)
{
	struct aph_rx_ack ack = an_ack(1);
	struct aph_rx_event event;

	ack.reason = APH_RX_ACK_PING_RESPONSE;
	ack.serial = serial;
	send_ack(h, c, 0, &ack);
	assert_false(aph_rx_next(h->rx, &event));
	look(h);
}

/* Whichever of the tables is the narrow one. */
static void honest_callers_get_in(void **state)
{
	static const uint32_t rooms[][3] = { { ROOM, 0, 0 }, { 0, ROOM, 0 }, { 0, 0, ROOM } };

	(void)state;
	for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
		const struct client honest = { a_path("10.9.9.9", 7001), 0x80000009, 64 };
		struct host h;

		begin_small(&h, rooms[i][0], rooms[i][1], rooms[i][2]);
		assert_in_range(flood(&h), ROOM / 2, ROOM - ROOM / 4 + 1);
		assert_false(call_once(&h, &honest));
		answer(&h, &honest, question(&h));
		assert_true(call_once(&h, &honest));
		end(&h);
	}
}

/* Whoever cannot have got the question: it is another one for each address, connection and time. */
static void others_do_not(void **state)
{
	const struct client honest = { a_path("10.9.9.9", 7001), 0x80000009, 64 };
	struct client other;
	uint32_t serial;
	struct host h;

	(void)state;
	begin_small(&h, ROOM, 0, 0);
	(void)flood(&h);
	assert_false(call_once(&h, &honest));
	serial = question(&h);
	answer(&h, &honest, serial + 1);
	assert_false(call_once(&h, &honest));
	other = honest;
	other.path = a_path("10.9.9.8", 7001);
	answer(&h, &other, serial);
	assert_false(call_once(&h, &other));
	other = honest;
	other.path = a_path("10.9.9.9", 7002);
	answer(&h, &other, serial);
	assert_false(call_once(&h, &other));
	other = honest;
	other.cid += 4;
	answer(&h, &other, serial);
	assert_false(call_once(&h, &other));
	end(&h);
}

static void questions_expire(void **state)
{
	const struct client honest = { a_path("10.9.9.9", 7001), 0x80000009, 64 };
	uint32_t serial;
	struct host h;

	(void)state;
	begin_small(&h, 0, ROOM, 0);
	(void)flood(&h);
	assert_false(call_once(&h, &honest));
	serial = question(&h);
	pass(&h, 9 * S);
	look(&h);
	answer(&h, &honest, serial);
	assert_true(call_once(&h, &honest));
	end(&h);
	begin_small(&h, 0, ROOM, 0);
	(void)flood(&h);
	assert_false(call_once(&h, &honest));
	serial = question(&h);
	pass(&h, 21 * S);
	look(&h);
	answer(&h, &honest, serial);
	assert_false(call_once(&h, &honest));
	end(&h);
}

/*
 * Bodies of the answers that clients of Linux gave to a server's first PING, before any reply; only
 * the serial differs.
 */
static void clients_of_linux_get_in(void **state)
{
	static const uint8_t bodies[][APH_RX_ACK_FIXED + APH_RX_ACK_PADDING + 16] = {
		/* 6.12 */
		{ 0, 0, 0, 0, 0,    0,	  0, 1, 0, 0,	 0, 0, 0, 0,	0, 3, 7, 0, 0,
		  0, 0, 0, 0, 0x16, 0x3c, 0, 0, 5, 0xa4, 0, 0, 0, 0xff, 0, 0, 0, 4 },
		/* 7.3 */
		{ 0, 0, 0, 0, 0,    0,	  0, 1, 0, 0,	 0, 0, 0, 0,	0, 4, 7, 0, 0,
		  0, 0, 0, 0, 0xfe, 0x88, 0, 0, 5, 0xa4, 0, 0, 0, 0xff, 0, 0, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		const struct client honest = { a_path("10.9.9.9", 7001), 0x859e8439, 0xb9b9b62c };
		const struct aph_rx_header header = {
			.call_number = 1,
			.type = APH_RX_ACK,
			.flags = APH_RX_SLOW_START_OK,
		};
		uint8_t body[sizeof(bodies[0])];
		struct host h;

		begin_small(&h, ROOM, 0, 0);
		(void)flood(&h);
		assert_false(call_once(&h, &honest));
		memcpy(body, bodies[i], sizeof(body));
		aph_put32(body + 12, question(&h));
		send_packet(&h, &honest, header, body, sizeof(body));
		assert_true(call_once(&h, &honest));
		end(&h);
	}
}

/* The first packet of a request that has two; true: it has become a call. */
static bool begin_call(struct host *h, const struct client *c)
{
	struct aph_rx_event event;

	send_data(h, c, 0, 1, 0, 4);
	return aph_rx_next(h->rx, &event) && event.type == APH_RX_EVENT_CALL;
}

/*
 * Services that do little at a time must not wait for the rest of requests that strangers have
 * begun.
 */
static void requests_that_do_not_end(void **state)
{
	const struct client honest = { a_path("10.9.9.9", 7001), 0x80000009, 64 };
	struct client c;
	struct host h;
	unsigned n = 0;

	(void)state;
	begin_small(&h, 0, 0, 0);
	for (unsigned i = 0; i < 100; i++) {
		c = somebody(i);
		n += begin_call(&h, &c);
	}
	assert_int_equal(n, 8);
	look(&h);
	/* What is whole can be answered at once. */
	c = somebody(200);
	assert_true(call_once(&h, &c));
	look(&h);
	assert_false(begin_call(&h, &honest));
	answer(&h, &honest, question(&h));
	assert_true(begin_call(&h, &honest));
	/* Where a rest comes somebody else may begin. */
	c = somebody(0);
	send_data(&h, &c, 0, 2, LAST, 4);
	c = somebody(300);
	assert_true(begin_call(&h, &c));
	c = somebody(301);
	assert_false(begin_call(&h, &c));
	/* Or none any more. */
	pass(&h, 13 * S);
	for (struct aph_rx_event event; aph_rx_next(h.rx, &event);)
		(void)aph_rx_call_free(event.call);
	c = somebody(302);
	assert_true(begin_call(&h, &c));
	end(&h);
}

/* A client of ours needs a round trip for it, and no time-out. */
static void our_client_answers(void **state)
{
	const struct aph_rx_path here = a_path("10.9.9.9", 7001), there = a_path("10.0.0.1", 7000);
	struct aph_rx_client *client;
	struct aph_rx_event event;
	struct aph_rx_call *call;
	struct aph_rx *rx;
	struct host h;

	(void)state;
	begin_small(&h, ROOM, 0, 0);
	(void)flood(&h);
	rx = an_engine(0);
	assert_int_equal(aph_rx_client_new(&client, rx, &there, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_call_new(&call, client, NULL), 0);
	assert_int_equal(aph_rx_call_write(call, "request", 7, 0), 7);
	(void)deliver(rx, h.rx, &here);
	assert_false(aph_rx_next(h.rx, &event));
	(void)deliver(h.rx, rx, &there);
	(void)deliver(rx, h.rx, &here);
	assert_true(aph_rx_next(h.rx, &event));
	assert_int_equal(event.type, APH_RX_EVENT_CALL);
	assert_int_equal(aph_rx_call_write(event.call, "answer", 6, 0), 6);
	assert_null(aph_rx_call_free(event.call));
	(void)deliver(h.rx, rx, &there);
	do {
		assert_true(aph_rx_next(rx, &event));
	} while (event.type != APH_RX_EVENT_END);
	assert_int_equal(event.end.outcome, APH_RX_DONE);
	(void)aph_rx_call_free(call);
	(void)aph_rx_client_free(client);
	(void)aph_rx_free(rx);
	end(&h);
}

/* The example of the algorithm's authors. */
static void siphash(void **state)
{
	static const uint64_t key[2] = { UINT64_C(0x0706050403020100),
					 UINT64_C(0x0f0e0d0c0b0a0908) };
	uint8_t text[15];

	(void)state;
	for (uint8_t i = 0; i < sizeof(text); i++)
		text[i] = i;
	assert_true(aph_rx_siphash(key, text, sizeof(text)) == UINT64_C(0xa129ca6149be45e5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(honest_callers_get_in),
		cmocka_unit_test(others_do_not),
		cmocka_unit_test(questions_expire),
		cmocka_unit_test(requests_that_do_not_end),
		cmocka_unit_test(our_client_answers),
		cmocka_unit_test(clients_of_linux_get_in),
		cmocka_unit_test(siphash),
	};

	return cmocka_run_group_tests_name("rx crowd", tests, NULL, NULL);
}
