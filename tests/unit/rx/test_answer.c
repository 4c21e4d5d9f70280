/* SPDX-License-Identifier: MIT */
/*
 * What an engine tells of itself: to whom, how often, and that it is true. Two engines, wired back
 * to back.
 */
#include "rx/debug.h"
#include "rx/wire.h"

#include "rig.h"

#include <errno.h>

#define ID	57
#define SERVICE 147

/* Bytes of all that it sends, and what it sent last. */
static size_t sent(struct aph_rx *rx, uint8_t *last, size_t *last_len)
{
	struct aph_rx_message message;
	size_t total = 0;

	while (aph_rx_send(rx, &message, 1, now_ns) == 1) {
		total += message.len;
		*last_len = gather(&message, last, message.len);
	}
	return total;
}

/* Asks from an address. The length of the answer, 0: none. */
static size_t ask(struct aph_rx *rx, const char *from, enum aph_rx_query query, uint32_t index,
		  struct aph_rx_answer *answer)
{
	struct aph_rx_path path = a_path(from, 4000);
	uint8_t packet[65536];
	size_t len = aph_rx_query_encode(packet, query, index, ID), answer_len = 0;

	aph_rx_receive(rx, &path, packet, len, len, NULL, now_ns);
	len = sent(rx, packet, &answer_len);
	assert_int_equal(len, answer_len);
	if (len > 0)
		assert_int_equal(aph_rx_answer_decode(answer, packet, len, query, ID), 0);
	return len;
}

/* Carries all packets between the two until none is left. */
static void carry(struct aph_rx *a, struct aph_rx *b)
{
	const struct aph_rx_path from_a = a_path("10.0.0.1", 5000);
	const struct aph_rx_path from_b = a_path("10.0.0.2", 7000);
	struct aph_rx_message message;
	uint8_t bytes[65536];
	bool more = true;

	while (more) {
		more = false;
		for (int i = 0; i < 2; i++) {
			while (aph_rx_send(i ? b : a, &message, 1, now_ns) == 1) {
				size_t len = gather(&message, bytes, sizeof(bytes));

				now_ns += 1000000;
				aph_rx_receive(i ? a : b, i ? &from_b : &from_a, bytes, len,
					       message.segment, NULL, now_ns);
				more = true;
			}
		}
	}
}

static void version_within_limits(void **state)
{
	struct aph_rx *rx = an_engine(0);
	struct aph_rx_answer answer;
	unsigned n = 0;

	(void)state;
	assert_int_equal(ask(rx, "192.0.2.1", APH_RX_QUERY_VERSION, 0, &answer), 93);
	assert_string_equal(answer.version, "a version");
	while (ask(rx, "192.0.2.1", APH_RX_QUERY_VERSION, 0, &answer) > 0)
		assert_true(++n < 1000);
	/* Another one is not kept from asking, and in time the first may ask again. */
	assert_int_equal(ask(rx, "198.51.100.77", APH_RX_QUERY_VERSION, 0, &answer), 93);
	now_ns += 10 * S;
	assert_int_equal(ask(rx, "192.0.2.1", APH_RX_QUERY_VERSION, 0, &answer), 93);
	aph_rx_free(rx);
}

static void debug_for_its_own_machine(void **state)
{
	static const char *const strangers[] = { "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1" };
	static const char *const locals[] = { "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1" };
	struct aph_rx *rx = an_engine(0), *open = an_engine(APH_RX_ANSWER_DEBUG);
	struct aph_rx_answer answer;
	unsigned n = 0;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(ask(rx, strangers[i], APH_RX_QUERY_STATS, 0, &answer), 0);
		assert_int_equal(ask(open, strangers[i], APH_RX_QUERY_STATS, 0, &answer), 84);
	}
	/* One's own may go through a long list at once, strangers may not. */
	for (size_t i = 0; i < 4; i++) {
		for (int j = 0; j < 1000; j++)
			assert_int_equal(ask(rx, locals[i], APH_RX_QUERY_STATS, 0, &answer), 84);
	}
	while (ask(open, "192.0.2.1", APH_RX_QUERY_STATS, 0, &answer) > 0)
		assert_true(++n < 1000);
	aph_rx_free(rx);
	aph_rx_free(open);
}

static void nothing_to_tell(void **state)
{
	struct aph_rx *rx = an_engine(0);
	struct aph_rx_answer answer;

	(void)state;
	assert_int_equal(ask(rx, "127.0.0.1", APH_RX_QUERY_STATS, 0, &answer), 28 + 56);
	assert_int_equal(answer.stats.version, 'S');
	assert_int_equal(ask(rx, "127.0.0.1", APH_RX_QUERY_CONNECTIONS, 0, &answer), 28 + 176);
	assert_true(answer.end);
	assert_int_equal(ask(rx, "127.0.0.1", APH_RX_QUERY_ALL_CONNECTIONS, UINT32_MAX, &answer),
			 28 + 176);
	assert_true(answer.end);
	assert_int_equal(ask(rx, "127.0.0.1", APH_RX_QUERY_COUNTERS, 0, &answer), 28 + 284);
	assert_int_equal(answer.counters.n_peer_structs, 0);
	assert_int_equal(answer.counters.packets_read[APH_RX_DEBUG - 1], 4);
	assert_int_equal(ask(rx, "127.0.0.1", APH_RX_QUERY_PEERS, 0, &answer), 28 + 132);
	assert_true(answer.end);
	assert_int_equal(ask(rx, "127.0.0.1", (enum aph_rx_query)6, 0, &answer), 28 + 8);
	assert_true(answer.unsupported);
	aph_rx_free(rx);
}

/* What is lost is sent again, and counted as that. */
static void packets_that_are_lost(void **state)
{
	struct aph_rx *client = an_engine(0);
	const struct aph_rx_path path = a_path("10.0.0.2", 7000);
	struct aph_rx_answer answer;
	struct aph_rx_client *to;
	struct aph_rx_call *call;
	uint8_t out[65536];
	size_t len, n = 0;

	(void)state;
	assert_int_equal(aph_rx_client_new(&to, client, &path, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_call_new(&call, to, NULL), 0);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	/*
	 * Twice within four and a half seconds: after one, after two more, and a moment for slow
	 * ACKs each.
	 */
	for (int i = 0; i < 45; i++) {
		n += sent(client, out, &len);
		now_ns += S / 10;
		aph_rx_tick(client, now_ns);
	}
	assert_int_equal(n, 3 * (28 + 5));
	(void)ask(client, "127.0.0.1", APH_RX_QUERY_PEERS, 0, &answer);
	assert_int_equal(answer.peer.n_sent, 1);
	assert_int_equal(answer.peer.resends, 2);
	assert_int_equal(answer.peer.bytes_sent, 15);
	assert_int_equal(answer.peer.bytes_received, 0);
	(void)aph_rx_call_free(call);
	aph_rx_free(client);
}

static void no_answer_to_answers(void **state)
{
	struct aph_rx *rx = an_engine(0);
	struct aph_rx_path path = a_path("127.0.0.1", 4000);
	uint8_t packet[100], out[65536];
	size_t len, out_len;

	(void)state;
	for (int query = APH_RX_QUERY_VERSION; query <= APH_RX_QUERY_PEERS; query++) {
		len = aph_rx_query_encode(packet, (enum aph_rx_query)query, 0, ID);
		packet[21] &= (uint8_t)~APH_RX_CLIENT_INITIATED;
		aph_rx_receive(rx, &path, packet, len, len, NULL, now_ns);
		assert_int_equal(sent(rx, out, &out_len), 0);
	}
	/* Nor to one whose body is cut short. */
	for (len = APH_RX_HEADER; len < APH_RX_HEADER + 8; len++) {
		(void)aph_rx_query_encode(packet, APH_RX_QUERY_STATS, 0, ID);
		aph_rx_receive(rx, &path, packet, len, len, NULL, now_ns);
		assert_int_equal(sent(rx, out, &out_len), 0);
	}
	aph_rx_free(rx);
}

static void what_is_going_on(void **state)
{
	struct aph_rx *server = an_engine(0), *client = an_engine(0);
	struct aph_rx_service *service;
	struct aph_rx_client *to;
	struct aph_rx_call *call;
	struct aph_rx_event event;
	const struct aph_rx_path path = a_path("10.0.0.2", 7000);
	struct aph_rx_answer answer;

	(void)state;
	assert_int_equal(aph_rx_service_add(&service, server, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_client_new(&to, client, &path, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_call_new(&call, to, NULL), 0);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	carry(client, server);

	/* The server has a call that waits for its reply, from us. */
	assert_int_equal(ask(server, "127.0.0.1", APH_RX_QUERY_CONNECTIONS, 0, &answer), 28 + 176);
	assert_false(answer.end);
	assert_int_equal(answer.connection.host, 0x0a000001);
	assert_int_equal(answer.connection.port, 5000);
	assert_true(answer.connection.is_server);
	assert_int_equal(answer.connection.call_number[0], 1);
	assert_int_equal(answer.connection.call_state[0], 2);
	assert_int_equal(answer.connection.call_mode[0], 2);
	assert_int_equal(answer.connection.call_other[0], 1); /* "hello" is not read */
	assert_int_equal(answer.connection.security.type, 1);
	assert_true(answer.connection.epoch >> 31);
	(void)ask(server, "127.0.0.1", APH_RX_QUERY_CONNECTIONS, 1, &answer);
	assert_true(answer.end);
	(void)ask(client, "127.0.0.1", APH_RX_QUERY_CONNECTIONS, 0, &answer);
	assert_false(answer.connection.is_server);
	assert_int_equal(answer.connection.port, 7000);

	assert_int_equal(ask(server, "127.0.0.1", APH_RX_QUERY_PEERS, 0, &answer), 28 + 132);
	assert_int_equal(answer.peer.host, 0x0a000001);
	assert_int_equal(answer.peer.port, 5000);
	assert_true(answer.peer.nat_mtu >= 1440);
	(void)ask(server, "127.0.0.1", APH_RX_QUERY_PEERS, 1, &answer);
	assert_true(answer.end);

	assert_true(aph_rx_next(server, &event));
	assert_int_equal(event.type, APH_RX_EVENT_CALL);
	assert_int_equal(aph_rx_call_write(event.call, "answer", 6, 0), 6);
	carry(client, server);
	(void)aph_rx_call_free(event.call);
	(void)aph_rx_call_free(call);
	carry(client, server);
	now_ns += S;
	aph_rx_tick(client, now_ns);
	aph_rx_tick(server, now_ns);
	carry(client, server);

	/* Idle: still there, and not interesting any more. */
	(void)ask(client, "127.0.0.1", APH_RX_QUERY_CONNECTIONS, 0, &answer);
	assert_true(answer.end);
	(void)ask(client, "127.0.0.1", APH_RX_QUERY_ALL_CONNECTIONS, 0, &answer);
	assert_false(answer.end);
	(void)ask(server, "127.0.0.1", APH_RX_QUERY_COUNTERS, 0, &answer);
	assert_int_equal(answer.counters.n_server_conns, 1);
	assert_int_equal(answer.counters.n_client_conns, 0);
	assert_int_equal(answer.counters.n_peer_structs, 1);
	assert_int_equal(answer.counters.data_packets_read, 1);
	assert_int_equal(answer.counters.data_packets_sent, 1);
	/* Each side of the path counts what it has done. */
	(void)ask(server, "127.0.0.1", APH_RX_QUERY_PEERS, 0, &answer);
	assert_int_equal(answer.peer.n_sent, 1);
	assert_int_equal(answer.peer.resends, 0);
	assert_int_equal(answer.peer.bytes_sent, 6);
	assert_int_equal(answer.peer.bytes_received, 5);
	(void)ask(client, "127.0.0.1", APH_RX_QUERY_PEERS, 0, &answer);
	assert_int_equal(answer.peer.n_sent, 1);
	assert_int_equal(answer.peer.bytes_sent, 5);
	assert_int_equal(answer.peer.bytes_received, 6);
	assert_true(answer.peer.timeout.sec || answer.peer.timeout.usec);
	(void)ask(client, "127.0.0.1", APH_RX_QUERY_COUNTERS, 0, &answer);
	assert_int_equal(answer.counters.n_rtt_samples, 1);
	(void)ask(server, "127.0.0.1", APH_RX_QUERY_STATS, 0, &answer);
	assert_int_equal(answer.stats.calls_executed, 1);
	aph_rx_free(client);
	aph_rx_free(server);
}

enum {
	ACTIVE = 2,
	DALLY = 3,
	SENDING = 1,
	RECEIVING = 2,
	AT_END = 4,
	READER_WAITS = 1,
	RECEIVE_DONE = 32,
	QUEUED_IN = 1,
	QUEUED_OUT = 2,
	LEN = 2000
};

/* What is said of the first call. */
static void shows(struct aph_rx *rx, int state, int mode, int flags, int other)
{
	struct aph_rx_answer answer;

	(void)ask(rx, "127.0.0.1", APH_RX_QUERY_ALL_CONNECTIONS, 0, &answer);
	assert_false(answer.end);
	assert_int_equal(answer.connection.call_state[0], state);
	assert_int_equal(answer.connection.call_mode[0], mode);
	assert_int_equal(answer.connection.call_flags[0], flags);
	assert_int_equal(answer.connection.call_other[0], other);
}

static void a_call_from_its_begin_to_its_end(void **state)
{
	struct aph_rx *server = an_engine(0), *client = an_engine(0);
	const struct aph_rx_path path = a_path("10.0.0.2", 7000);
	struct aph_rx_service *service;
	struct aph_rx_client *to;
	struct aph_rx_call *call;
	struct aph_rx_event event;
	char bytes[2 * LEN] = { 0 };

	(void)state;
	assert_int_equal(aph_rx_service_add(&service, server, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_client_new(&to, client, &path, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_call_new(&call, to, NULL), 0);
	/* More than a packet: the first one leaves. */
	assert_int_equal(aph_rx_call_write(call, bytes, LEN, APH_RX_MORE), LEN);
	carry(client, server);
	shows(client, ACTIVE, SENDING, READER_WAITS, QUEUED_OUT);
	assert_true(aph_rx_next(server, &event));
	shows(server, ACTIVE, RECEIVING, 0, QUEUED_IN);
	assert_true(aph_rx_call_read(event.call, bytes, sizeof(bytes), 0) > 0);
	assert_int_equal(aph_rx_call_read(event.call, bytes, sizeof(bytes), 0), -EAGAIN);
	shows(server, ACTIVE, RECEIVING, READER_WAITS, 0);

	assert_int_equal(aph_rx_call_write(call, "end", 3, 0), 3);
	carry(client, server);
	shows(server, ACTIVE, RECEIVING, RECEIVE_DONE, QUEUED_IN);
	assert_true(aph_rx_call_read(event.call, bytes, sizeof(bytes), 0) > 0);
	shows(server, ACTIVE, AT_END, RECEIVE_DONE, 0);

	assert_int_equal(aph_rx_call_write(event.call, bytes, LEN, APH_RX_MORE), LEN);
	carry(client, server);
	shows(server, ACTIVE, SENDING, RECEIVE_DONE, QUEUED_OUT);
	shows(client, ACTIVE, RECEIVING, 0, QUEUED_IN);
	assert_int_equal(aph_rx_call_write(event.call, "end", 3, 0), 3);
	carry(client, server);
	shows(server, DALLY, SENDING, RECEIVE_DONE, QUEUED_OUT);
	shows(client, ACTIVE, RECEIVING, RECEIVE_DONE, QUEUED_IN);
	assert_int_equal(aph_rx_call_read(call, bytes, sizeof(bytes), 0), LEN + 3);
	/* The call is over; the server is still to be told that the reply has come. */
	shows(client, DALLY, 0, 0, 0);
	(void)aph_rx_call_free(event.call);
	(void)aph_rx_call_free(call);
	aph_rx_free(client);
	aph_rx_free(server);
}

/* The protocol has room for IPv4 alone. */
static void addresses_of_ipv6(void **state)
{
	static const struct {
		const char *text;
		uint32_t shown;
	} peers[] = { { "2001:db8::7", 0 }, { "::ffff:10.0.0.7", 0x0a000007 } };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct aph_rx *client = an_engine(0);
		const struct aph_rx_path path = a_path(peers[i].text, 7000);
		struct aph_rx_answer answer;
		struct aph_rx_client *to;
		struct aph_rx_call *call;

		assert_int_equal(aph_rx_client_new(&to, client, &path, SERVICE, NULL), 0);
		assert_int_equal(aph_rx_call_new(&call, to, NULL), 0);
		(void)ask(client, "127.0.0.1", APH_RX_QUERY_ALL_CONNECTIONS, 0, &answer);
		assert_int_equal(answer.connection.host, peers[i].shown);
		assert_int_equal(answer.connection.port, 7000);
		(void)ask(client, "127.0.0.1", APH_RX_QUERY_PEERS, 0, &answer);
		assert_int_equal(answer.peer.host, peers[i].shown);
		assert_int_equal(answer.peer.port, 7000);
		(void)aph_rx_call_free(call);
		aph_rx_free(client);
	}
}

/* Each connection of a long list is told once, forwards; and any index can be asked for. */
static void long_lists(void **state)
{
	enum {
		N = 500
	};
	struct aph_rx *client = an_engine(0);
	struct aph_rx_answer answer;
	uint32_t cids[N];

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		const struct aph_rx_path path = a_path("10.0.0.2", (uint16_t)(1000 + i));
		struct aph_rx_client *to;
		struct aph_rx_call *call;

		assert_int_equal(aph_rx_client_new(&to, client, &path, SERVICE, NULL), 0);
		assert_int_equal(aph_rx_call_new(&call, to, NULL), 0);
	}
	for (unsigned i = 0; i < N; i++) {
		(void)ask(client, "127.0.0.1", APH_RX_QUERY_ALL_CONNECTIONS, i, &answer);
		assert_false(answer.end);
		cids[i] = answer.connection.cid;
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(cids[j], cids[i]);
	}
	(void)ask(client, "127.0.0.1", APH_RX_QUERY_ALL_CONNECTIONS, N, &answer);
	assert_true(answer.end);
	for (unsigned i = N; i-- > 0;) {
		(void)ask(client, "127.0.0.1", APH_RX_QUERY_ALL_CONNECTIONS, i, &answer);
		assert_int_equal(answer.connection.cid, cids[i]);
		(void)ask(client, "127.0.0.1", APH_RX_QUERY_PEERS, i, &answer);
		assert_false(answer.end);
	}
	aph_rx_free(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(version_within_limits),
		cmocka_unit_test(debug_for_its_own_machine),
		cmocka_unit_test(nothing_to_tell),
		cmocka_unit_test(packets_that_are_lost),
		cmocka_unit_test(no_answer_to_answers),
		cmocka_unit_test(what_is_going_on),
		cmocka_unit_test(a_call_from_its_begin_to_its_end),
		cmocka_unit_test(addresses_of_ipv6),
		cmocka_unit_test(long_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
