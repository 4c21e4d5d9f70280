/* SPDX-License-Identifier: MIT */
/*
 * A service and clients that nobody would write: what they get, what they can make us hold, and
 * what they cannot.
 */
#include "stranger.h"

#include <errno.h>

/*
 * All of a reply has arrived, and nothing more is ever said about it. Many calls, so that memory is
 * given back.
 */
static void replies_without_receipts(void **state)
{
	static const uint8_t arrived[] = { 1 };
	struct aph_rx_ack ack = an_ack(1);
	struct aph_rx_stats stats;
	struct host h;

	(void)state;
	ack.n_acks = 1;
	ack.acks = arrived;
	begin(&h, 0);
	for (unsigned i = 0; i < 1200; i++) {
		struct client c = a_client(i / 4);
		struct aph_rx_call *call;

		send_data(&h, &c, i % 4, 1, LAST, 400);
		call = next_call(&h);
		assert_int_equal(aph_rx_call_write(call, "answer", 6, 0), 6);
		assert_null(aph_rx_call_free(call));
	}
	for (unsigned s = 0; s < 40; s += 5) {
		look(&h);
		for (unsigned i = 0; i < 1200; i++) {
			struct client c = a_client(i / 4);

			send_ack(&h, &c, i % 4, &ack);
		}
		for (unsigned i = 0; i < 50; i++) {
			pass(&h, 100 * MS);
			look(&h);
		}
	}
	aph_rx_get_stats(h.rx, &stats);
	assert_int_equal(stats.n_calls, 0);
	end(&h);
}

/* Not hostile, only late: the user changes the limits of a call that has ended. */
static void limits_after_the_end(void **state)
{
	struct client c = a_client(1);
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin(&h, 0);
	send_data(&h, &c, 0, 1, LAST, 4);
	call = next_call(&h);
	assert_int_equal(aph_rx_call_abort(call, 1), 0);
	aph_rx_call_set_timeouts(call, 100, 100, 100);
	assert_null(aph_rx_call_free(call));
	pass(&h, S);
	end(&h);
}

/* -- whose address it is ----------------------------------------------------------------------- */

/* What an address may get that has not shown that it is one. */
static void assert_not_amplified(const struct host *h)
{
	assert_in_range(h->n_sent, 0, 3 * h->n_received + 256 + 256);
}

/* Who forges an address does not see what goes there, but knows what it will be. */
static void acknowledged_blindly(void **state)
{
	struct client c = a_client(1);
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin(&h, 0);
	call = ask_for_much(&h, &c, 1400);
	for (unsigned i = 0; i < 100; i++) {
		struct aph_rx_ack ack;

		look(&h);
		assert_not_amplified(&h);
		ack = an_ack(h.seen[APH_RX_DATA].seq + 1);
		ack.serial = h.seen[APH_RX_DATA].serial;
		ack.reason = APH_RX_ACK_REQUESTED;
		send_ack(&h, &c, 0, &ack);
		ack.serial++;
		ack.reason = APH_RX_ACK_PING_RESPONSE;
		send_ack(&h, &c, 0, &ack);
		pass(&h, 20 * MS);
	}
	(void)aph_rx_call_free(call);
	end(&h);
}

static void silent_address(void **state)
{
	struct client c = a_client(1);
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin(&h, 0);
	call = ask_for_much(&h, &c, 4);
	for (unsigned i = 0; i < 300; i++) {
		look(&h);
		assert_not_amplified(&h);
		pass(&h, 100 * MS);
	}
	(void)aph_rx_call_free(call);
	end(&h);
}

/* One round trip is what it takes, for requests of any size. */
static void honest_address(void **state)
{
	static const size_t requests[] = { 0, 100, 400, 1400 };

	(void)state;
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		struct client c = a_client(1);
		struct aph_rx_call *call;
		struct aph_rx_ack ack;
		struct host h;

		begin(&h, 0);
		call = ask_for_much(&h, &c, requests[i]);
		look(&h);
		assert_int_equal(h.n_types[APH_RX_ACK], 1);
		assert_int_equal(h.acked[16], APH_RX_ACK_PING);
		ack = an_ack(1);
		ack.reason = APH_RX_ACK_PING_RESPONSE;
		ack.serial = h.seen[APH_RX_ACK].serial;
		pass(&h, MS);
		send_ack(&h, &c, 0, &ack);
		look(&h);
		assert_true(h.n_types[APH_RX_DATA] >= 5);
		(void)aph_rx_call_free(call);
		end(&h);
	}
}

/* Short packets above a gap, each of which draws a long acknowledgement. */
static void drawn_acknowledgements(void **state)
{
	struct client c = a_client(1);
	struct host h;

	(void)state;
	begin(&h, 0);
	for (unsigned round = 0; round < 4; round++) {
		for (uint32_t seq = 255; seq > 1; seq--) {
			send_data(&h, &c, 0, seq, 0, 0);
			look(&h);
			assert_not_amplified(&h);
			pass(&h, MS);
		}
	}
	end(&h);
}

/* -- whose memory it is ------------------------------------------------------------------------ */

#define MEMORY_MAX (4u << 20)

static void begin_small(struct host *h)
{
	struct aph_rx_config config = a_config(0);

	config.peer_memory_max = MEMORY_MAX;
	begin_with(h, &config);
}

static uint64_t memory_of(const struct host *h)
{
	struct aph_rx_stats stats;

	aph_rx_get_stats(h->rx, &stats);
	return stats.memory;
}

/* The peer knows the extension: windows of 8192 packets. */
static void extend(struct host *h, const struct client *c, uint32_t channel)
{
	struct aph_rx_ack ack = an_ack(1);

	ack.extended = true;
	ack.window = 8192;
	send_ack(h, c, channel, &ack);
}

/* Of sizes that fit badly into what they are kept in. */
static void held_packets(void **state)
{
	static const size_t sizes[] = { 0, 1, 257, 1412, 1537, 9000 };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct client c = a_client(1);
		uint64_t before;
		struct host h;

		begin_small(&h);
		send_data(&h, &c, 0, 2, 0, 1);
		send_data(&h, &c, 1, 2, 0, 1);
		extend(&h, &c, 0);
		before = memory_of(&h);
		for (uint32_t seq = 3; seq < 8000; seq++) {
			send_data(&h, &c, 0, seq, 0, sizes[i]);
			send_data(&h, &c, 1, seq, 0, sizes[i]);
			look(&h);
		}
		assert_in_range(memory_of(&h) - before, 0, MEMORY_MAX + 4096);
		end(&h);
	}
}

/* A run of datagrams is kept where it arrived, even if one of them is all that is new. */
static void held_buffers(void **state)
{
	enum {
		N = 12,
		LEN = 1440
	};
	struct client c = a_client(1);
	struct aph_rx_header header = { .type = APH_RX_DATA,
					.call_number = 1,
					.service = SERVICE,
					.flags = APH_RX_CLIENT_INITIATED };
	struct host h;
	uint64_t before;

	(void)state;
	begin_small(&h);
	send_data(&h, &c, 0, 2, 0, LEN - APH_RX_HEADER); /* it comes again and again */
	extend(&h, &c, 0);
	before = memory_of(&h);
	header.epoch = c.epoch;
	header.cid = c.cid;
	for (uint32_t seq = 3; seq < 8000; seq++) {
		struct aph_rx_buffer *buffer = aph_rx_buffer_take(h.rx);
		uint8_t *bytes = aph_rx_buffer_bytes(buffer);

		for (unsigned i = 0; i < N; i++) {
			header.seq = i ? 2 : seq;
			memset(bytes + (size_t)i * LEN, 'x', LEN);
			aph_rx_header_encode(bytes + (size_t)i * LEN, &header);
		}
		aph_rx_receive(h.rx, &c.path, bytes, (size_t)N * LEN, LEN, buffer, now_ns);
		aph_rx_buffer_put(h.rx, buffer);
		look(&h);
	}
	/* They are held, as much as may be; and some are kept for what comes next. */
	assert_in_range(memory_of(&h) - before, MEMORY_MAX / 2, MEMORY_MAX + 20 * 65600);
	end(&h);
}

/* A place is kept for each packet up to the highest. */
static void held_places(void **state)
{
	struct client c = a_client(1);
	struct host h;
	uint64_t before;

	(void)state;
	begin_small(&h);
	send_data(&h, &c, 0, 1, 0, 1);
	extend(&h, &c, 0);
	before = memory_of(&h);
	for (unsigned i = 4; i < 800; i++) {
		c = a_client(i / 4);
		send_data(&h, &c, i % 4, 2, 0, 1);
		send_data(&h, &c, i % 4, 8000, 0, 1);
		look(&h);
	}
	assert_in_range(memory_of(&h) - before, 0, MEMORY_MAX + 800 * 8192);
	end(&h);
}

/* What is held waits for a packet that there would be no room for. */
static void room_for_the_next_one(void **state)
{
	struct client c = a_client(1);
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin_small(&h);
	send_data(&h, &c, 0, 2, 0, 1412);
	extend(&h, &c, 0);
	for (uint32_t seq = 3; seq < 6000; seq++)
		send_data(&h, &c, 0, seq, 0, 1412);
	call = next_call(&h);
	assert_int_equal(aph_rx_call_available(call), 0);
	send_data(&h, &c, 0, 1, 0, 1412);
	assert_true(aph_rx_call_available(call) > MEMORY_MAX / 2);
	(void)aph_rx_call_free(call);
	end(&h);
}

/* -- tables ------------------------------------------------------------------------------------ */

static struct client from(const char *address, uint16_t port)
{
	struct client c = a_client(1);

	c.path = a_path(address, port);
	c.epoch += port; /* each end has its own */
	return c;
}

/* A request; who is asked whether it is where it says answers, and says it again. */
static void request(struct host *h, const struct client *c)
{
	struct aph_rx_ack ack = an_ack(1);

	send_data(h, c, 0, 1, LAST, 4);
	look(h);
	if (!h->n_types[APH_RX_ACK])
		return;
	ack.reason = APH_RX_ACK_PING_RESPONSE;
	ack.serial = h->seen[APH_RX_ACK].serial;
	send_ack(h, c, 0, &ack);
	send_data(h, c, 0, 1, LAST, 4);
	look(h);
}

/* One small call, answered and acknowledged. False: the service was busy. */
static bool serve(struct host *h, const struct client *c)
{
	struct aph_rx_ack ack = an_ack(2);
	struct aph_rx_call *call;

	request(h, c);
	if (h->n_types[APH_RX_BUSY_PACKET])
		return false;
	call = next_call(h);
	assert_int_equal(aph_rx_call_write(call, "answer", 6, 0), 6);
	look(h);
	send_ack(h, c, 0, &ack);
	(void)aph_rx_call_free(call);
	look(h);
	return true;
}

/*
 * Who was here once does not keep others out for as long as its connection is remembered; and who
 * comes from many ports does not keep out others at all.
 */
static void full_table_of_peers(void **state)
{
	struct aph_rx_config config = a_config(0);
	struct client one = from("10.0.0.3", 7001), other = from("10.0.0.77", 7777);
	struct host h;
	uint16_t port = 1;

	(void)state;
	config.peers_max = 10;
	begin_with(&h, &config);
	/* Of another group of addresses. */
	if (aph_rx_group(h.rx, &other.path) == aph_rx_group(h.rx, &one.path))
		other = from("10.0.0.78", 7777);
	for (unsigned minute = 0; minute < 5; minute++) {
		struct client c;

		for (unsigned i = 0; i < 8; i++) {
			c = from("10.0.0.3", port++);
			assert_true(serve(&h, &c));
		}
		c = from("10.0.0.3", port++);
		assert_false(serve(&h, &c));
		assert_true(serve(&h, &other));
		pass(&h, 61 * S);
	}
	end(&h);
}

/* Somebody makes as many connections as it likes, from one port; others are served all the same. */
static void connections_of_one_host(void **state)
{
	struct aph_rx_config config = a_config(0);
	struct client one = from("10.0.0.3", 7001), other = from("10.0.0.77", 7777);
	unsigned n = 0;
	struct host h;

	(void)state;
	config.connections_max = 100;
	begin_with(&h, &config);
	/* Of another group of addresses. */
	if (aph_rx_group(h.rx, &other.path) == aph_rx_group(h.rx, &one.path))
		other = from("10.0.0.78", 7777);
	for (one.cid = 4; one.cid <= 4 * 80; one.cid += 4)
		n += serve(&h, &one);
	assert_int_equal(n, 75);
	assert_true(serve(&h, &other));
	/* What it leaves for a minute makes room for more of its own. */
	pass(&h, 61 * S);
	for (; one.cid <= 4 * 90; one.cid += 4)
		assert_true(serve(&h, &one));
	end(&h);
}

/* A client that has moved, when there is no room for its new address but where its old one was. */
static void moved_into_a_full_table(void **state)
{
	struct aph_rx_config config = a_config(0);
	struct client c = a_client(1);
	struct host h;

	(void)state;
	config.peers_max = 1;
	begin_with(&h, &config);
	assert_true(serve(&h, &c));
	pass(&h, 61 * S);
	c.path = a_path("10.0.0.4", 7001);
	send_packet(&h, &c,
		    (struct aph_rx_header){
			    .call_number = 2, .seq = 1, .type = APH_RX_DATA, .flags = LAST },
		    NULL, 4);
	look(&h);
	pass(&h, S);
	send_packet(&h, &c,
		    (struct aph_rx_header){
			    .call_number = 2, .seq = 1, .type = APH_RX_DATA, .flags = LAST },
		    NULL, 4);
	(void)aph_rx_call_free(next_call(&h));
	end(&h);
}

/* Somebody begins calls from as many ports as it likes; others are served all the same. */
static void calls_of_one_host(void **state)
{
	struct aph_rx_config config = a_config(0);
	struct client other = from("10.0.0.77", 7777);
	struct aph_rx_event event;
	unsigned n = 0;
	struct host h;

	(void)state;
	config.calls_max = 100;
	begin_with(&h, &config);
	for (uint16_t port = 1; port <= 200; port++) {
		struct client c = from("10.0.0.3", port);

		send_data(&h, &c, 0, 1, LAST, 4);
	}
	while (aph_rx_next(h.rx, &event))
		n++;
	assert_in_range(n, 37, 75);
	look(&h);
	assert_true(serve(&h, &other));
	end(&h);
}

static void aborted_connection(void **state)
{
	static const uint8_t code[] = { 0, 0, 0, 77 };
	struct client c = a_client(1);
	struct aph_rx_event event;
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin(&h, 0);
	send_data(&h, &c, 0, 1, LAST, 4);
	call = next_call(&h);
	send_packet(&h, &c, (struct aph_rx_header){ .type = APH_RX_ABORT }, code, sizeof(code));
	assert_true(aph_rx_next(h.rx, &event));
	assert_int_equal(event.type, APH_RX_EVENT_END);
	assert_int_equal(event.end.code, 77);
	(void)aph_rx_call_free(call);
	send_data(&h, &c, 1, 1, LAST, 4);
	assert_false(aph_rx_next(h.rx, &event));
	look(&h);
	assert_int_equal(h.n_types[APH_RX_ABORT], 1);
	assert_int_equal(h.seen[APH_RX_ABORT].call_number, 0);
	end(&h);
}

/*
 * Serials of a connection that lives long begin anew after 2^32: from the middle on none is taken
 * for one of long ago.
 */
static void late_in_a_long_life(void **state)
{
	static const uint32_t serials[] = { 1000, INT32_MAX, UINT32_C(0x90000000), UINT32_MAX - 2 };

	(void)state;
	for (size_t i = 0; i < sizeof(serials) / sizeof(serials[0]); i++) {
		const struct client c = a_client(1);
		const struct aph_rx_ack question = { .first = 1, .reason = APH_RX_ACK_PING };
		struct aph_rx_call *call;
		struct host h;

		begin(&h, 0);
		send_data(&h, &c, 0, 1, LAST, 4000);
		call = next_call(&h);
		call->conn->serial = serials[i];
		assert_int_equal(
			aph_rx_call_write(call, "0123456789", 10, APH_RX_MORE | APH_RX_PUSH), 10);
		look(&h);
		assert_int_equal(h.n_types[APH_RX_DATA], 1);
		/* It crosses the reply, and acknowledges nothing. */
		now_ns += MS;
		send_ack(&h, &c, 0, &question);
		aph_rx_tick(h.rx, now_ns);
		look(&h);
		assert_int_equal(h.n_types[APH_RX_ACK], 1);
		assert_int_equal(h.n_types[APH_RX_DATA], 0);
		end(&h);
	}
}

static bool is_over(struct host *h, const struct client *quoted, struct aph_rx_call *call)
{
	struct aph_rx_event event;
	uint8_t quote[8];

	aph_put32(quote, quoted->epoch);
	aph_put32(quote + 4, quoted->cid);
	aph_rx_receive_error(h->rx, &quoted->path, EHOSTUNREACH, 0, quote, sizeof(quote), false,
			     now_ns);
	return aph_rx_next(h->rx, &event) && event.type == APH_RX_EVENT_END && event.call == call;
}

/*
 * Who makes many connections can report about them as often as it likes: a report is about few
 * beside the one that it quotes.
 */
static void reports_about_very_many(void **state)
{
	const struct client first = a_client(1);
	struct aph_rx_call *call;
	struct client c;
	struct host h;

	(void)state;
	begin(&h, 0);
	send_data(&h, &first, 0, 1, 0, 4);
	call = next_call(&h);
	aph_rx_peer_prove(call->peer);
	for (unsigned i = 2; i < 1200; i++) {
		c = a_client(i);
		send_data(&h, &c, 0, 1, LAST, 4);
		(void)aph_rx_call_free(next_call(&h));
		look(&h);
	}
	assert_false(is_over(&h, &c, call));
	assert_true(is_over(&h, &first, call));
	(void)aph_rx_call_free(call);
	end(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(replies_without_receipts),
		cmocka_unit_test(limits_after_the_end),
		cmocka_unit_test(acknowledged_blindly),
		cmocka_unit_test(silent_address),
		cmocka_unit_test(honest_address),
		cmocka_unit_test(drawn_acknowledgements),
		cmocka_unit_test(held_packets),
		cmocka_unit_test(held_buffers),
		cmocka_unit_test(held_places),
		cmocka_unit_test(room_for_the_next_one),
		cmocka_unit_test(full_table_of_peers),
		cmocka_unit_test(connections_of_one_host),
		cmocka_unit_test(moved_into_a_full_table),
		cmocka_unit_test(calls_of_one_host),
		cmocka_unit_test(aborted_connection),
		cmocka_unit_test(late_in_a_long_life),
		cmocka_unit_test(reports_about_very_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
