/* SPDX-License-Identifier: MIT */
/*
 * The rxdebug protocol: offsets by number, both ways, old forms, the end of a list, and what is no
 * answer.
 */
#include "rx/debug.h"
#include "rx/wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID 4711

static uint8_t packet[APH_RX_ANSWER_SIZE_MAX];
static uint8_t *const body = packet + APH_RX_HEADER;

/* What a server would put in front of the body. */
static size_t an_answer(enum aph_rx_query query, size_t body_len)
{
	uint8_t asked[APH_RX_QUERY_SIZE_MAX];

	(void)aph_rx_query_encode(asked, query, 0, ID);
	memcpy(packet, asked, APH_RX_HEADER);
	packet[21] &= (uint8_t)~APH_RX_CLIENT_INITIATED;
	return APH_RX_HEADER + body_len;
}

static void queries(void **state)
{
	static const uint8_t stats[] = {
		0, 0, 3, 0xe7, 0, 0, 0, 0, 0, 0, 0, 101, 0, 0, 0, 0, 0, 0,
		0, 0, 8, 5,    0, 0, 0, 0, 0, 0, 0, 0,	 0, 5, 0, 0, 0, 7,
	};
	uint8_t out[APH_RX_QUERY_SIZE_MAX + 1];

	(void)state;
	out[sizeof(out) - 1] = 0xee;
	assert_int_equal(aph_rx_query_encode(out, APH_RX_QUERY_PEERS, 7, 101), sizeof(stats));
	assert_memory_equal(out, stats, sizeof(stats));
	assert_int_equal(aph_rx_query_encode(out, APH_RX_QUERY_VERSION, 0, 101), 29);
	assert_int_equal(out[20], 13);
	assert_int_equal(out[21], 5);
	assert_int_equal(out[28], 0);
	assert_int_equal(out[sizeof(out) - 1], 0xee);
}

static void stats_layout(void **state)
{
	struct aph_rx_answer answer;
	size_t len = an_answer(APH_RX_QUERY_STATS, 56);

	(void)state;
	for (size_t i = 0; i < 56; i++)
		body[i] = (uint8_t)(i + 1);
	body[12] = 1;
	body[14] = 'S';
	assert_int_equal(aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_STATS, ID), 0);
	assert_false(answer.end || answer.unsupported);
	assert_int_equal(answer.stats.free_packets, 0x01020304);
	assert_int_equal(answer.stats.packet_reclaims, 0x05060708);
	assert_int_equal(answer.stats.calls_executed, 0x090a0b0c);
	assert_true(answer.stats.waiting_for_packets);
	assert_int_equal(answer.stats.used_fds, 14);
	assert_int_equal(answer.stats.version, 'S');
	assert_int_equal(answer.stats.n_waiting, 0x11121314);
	assert_int_equal(answer.stats.idle_threads, 0x15161718);
	assert_int_equal(answer.stats.n_waited, 0x191a1b1c);
	assert_int_equal(answer.stats.n_packets, 0x1d1e1f20);
	/* An old one is shorter, down to the letter. */
	assert_int_equal(aph_rx_answer_decode(&answer, packet, APH_RX_HEADER + 16,
					      APH_RX_QUERY_STATS, ID),
			 0);
	assert_int_equal(answer.stats.n_waiting, 0);
	assert_int_equal(answer.stats.version, 'S');
}

static void connection_layout(void **state)
{
	struct aph_rx_answer answer;
	const struct aph_rx_debug_connection *c = &answer.connection;
	size_t len = an_answer(APH_RX_QUERY_ALL_CONNECTIONS, 176);

	(void)state;
	for (size_t i = 0; i < 176; i++)
		body[i] = (uint8_t)i;
	assert_int_equal(
		aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_ALL_CONNECTIONS, ID), 0);
	assert_false(answer.end);
	assert_int_equal(c->host, 0x00010203);
	assert_int_equal(c->cid, 0x04050607);
	assert_int_equal(c->serial, 0x08090a0b);
	assert_int_equal(c->call_number[3], 0x18191a1b);
	assert_int_equal(c->error, 0x1c1d1e1f);
	assert_int_equal(c->port, 0x2021);
	assert_int_equal(c->flags, 34);
	assert_true(c->is_server);
	assert_int_equal(c->security_index, 36);
	assert_int_equal(c->call_state[0], 40);
	assert_int_equal(c->call_mode[0], 44);
	assert_int_equal(c->call_flags[0], 48);
	assert_int_equal(c->call_other[3], 55);
	assert_int_equal(c->security.type, 56);
	assert_int_equal(c->security.level, 57);
	assert_int_equal(c->security.flags, 0x44454647);
	assert_int_equal(c->security.expires, 0x48494a4b);
	assert_int_equal(c->security.bytes_sent, 0x58595a5b);
	assert_int_equal(c->epoch, 0x84858687);
	assert_int_equal(c->nat_mtu, (int32_t)0x88898a8b);

	/* Letters up to 'L': the states lie right behind the index, and there is no epoch. */
	assert_int_equal(aph_rx_answer_decode(&answer, packet, APH_RX_HEADER + 172,
					      APH_RX_QUERY_ALL_CONNECTIONS, ID),
			 0);
	assert_int_equal(c->call_state[0], 37);
	assert_int_equal(c->call_other[3], 52);
	assert_int_equal(c->security.type, 56);
	assert_int_equal(c->epoch, 0);

	memset(body + 4, 0xff, 4);
	assert_int_equal(
		aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_ALL_CONNECTIONS, ID), 0);
	assert_true(answer.end);
}

static void peer_layout(void **state)
{
	struct aph_rx_answer answer;
	const struct aph_rx_debug_peer *p = &answer.peer;
	size_t len = an_answer(APH_RX_QUERY_PEERS, 132);

	(void)state;
	for (size_t i = 0; i < 132; i++)
		body[i] = (uint8_t)i;
	assert_int_equal(aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_PEERS, ID), 0);
	assert_int_equal(p->host, 0x00010203);
	assert_int_equal(p->port, 0x0405);
	assert_int_equal(p->if_mtu, 0x0607);
	assert_int_equal(p->idle_when, 0x08090a0b);
	assert_int_equal(p->ref_count, 0x0c0d);
	assert_int_equal(p->burst_size, 14);
	assert_int_equal(p->burst, 15);
	assert_int_equal(p->burst_wait.sec, 0x10111213);
	assert_int_equal(p->rtt, 0x18191a1b);
	assert_int_equal(p->rtt_dev, 0x1c1d1e1f);
	assert_int_equal(p->timeout.usec, 0x24252627);
	assert_int_equal(p->n_sent, 0x28292a2b);
	assert_int_equal(p->resends, 0x2c2d2e2f);
	assert_int_equal(p->rate_flag, 0x38393a3b);
	assert_int_equal(p->nat_mtu, 0x3c3d);
	assert_int_equal(p->mtu, 0x4445);
	assert_int_equal(p->congest_seq, 0x4a4b);
	assert_true(p->bytes_sent == UINT64_C(0x4c4d4e4f50515253));
	assert_true(p->bytes_received == UINT64_C(0x5455565758595a5b));
}

static void counters_layout(void **state)
{
	struct aph_rx_answer answer;
	const struct aph_rx_debug_counters *c = &answer.counters;
	size_t len = an_answer(APH_RX_QUERY_COUNTERS, 284);

	(void)state;
	for (size_t i = 0; i < 284; i += 4)
		aph_put32(body + i, (uint32_t)i);
	assert_int_equal(aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_COUNTERS, ID), 0);
	assert_int_equal(c->packet_requests, 0);
	assert_int_equal(c->send_selects, 40);
	assert_int_equal(c->packets_read[0], 44);
	assert_int_equal(c->packets_read[12], 92);
	assert_int_equal(c->data_packets_read, 96);
	assert_int_equal(c->packets_sent[0], 112);
	assert_int_equal(c->ack_packets_sent, 164);
	assert_int_equal(c->data_packets_resent, 184);
	assert_int_equal(c->total_rtt.sec, 196);
	assert_int_equal(c->max_rtt.usec, 216);
	assert_int_equal(c->n_rtt_samples, 220);
	assert_int_equal(c->n_free_call_structs, 240);
	assert_int_equal(c->n_busies, 264);
}

static void there_and_back(void **state)
{
	struct aph_rx_answer answer, same;
	size_t len;

	(void)state;
	for (int query = APH_RX_QUERY_STATS; query <= APH_RX_QUERY_PEERS; query++) {
		len = an_answer((enum aph_rx_query)query, 284);
		for (size_t i = 0; i < 284; i++)
			body[i] = (uint8_t)(i * 7 + (unsigned)query);
		assert_int_equal(aph_rx_answer_decode(&answer, packet, len,
						      (enum aph_rx_query)query, ID),
				 0);
		memset(body, 0xee, 300);
		switch (query) {
		case APH_RX_QUERY_STATS:
			len = aph_rx_debug_encode_stats(body, &answer.stats);
			break;
		case APH_RX_QUERY_COUNTERS:
			len = aph_rx_debug_encode_counters(body, &answer.counters);
			break;
		case APH_RX_QUERY_PEERS:
			len = aph_rx_debug_encode_peer(body, &answer.peer);
			break;
		default:
			len = aph_rx_debug_encode_connection(body, &answer.connection);
		}
		assert_int_equal(body[len], 0xee);
		assert_int_equal(body[len - 1], 0); /* spare */
		len = an_answer((enum aph_rx_query)query, len);
		assert_int_equal(
			aph_rx_answer_decode(&same, packet, len, (enum aph_rx_query)query, ID), 0);
		assert_memory_equal(&answer, &same, sizeof(answer));
	}
}

static void ends_and_unknown_queries(void **state)
{
	struct aph_rx_answer answer;
	size_t len;

	(void)state;
	for (int query = APH_RX_QUERY_STATS; query <= APH_RX_QUERY_PEERS; query++) {
		len = an_answer((enum aph_rx_query)query, aph_rx_debug_encode_unsupported(body));
		assert_int_equal(aph_rx_answer_decode(&answer, packet, len,
						      (enum aph_rx_query)query, ID),
				 0);
		assert_true(answer.unsupported);
		if (query == APH_RX_QUERY_STATS || query == APH_RX_QUERY_COUNTERS)
			continue;
		len = an_answer((enum aph_rx_query)query,
				aph_rx_debug_encode_end(body, (enum aph_rx_query)query));
		assert_int_equal(aph_rx_answer_decode(&answer, packet, len,
						      (enum aph_rx_query)query, ID),
				 0);
		assert_true(answer.end);
		assert_false(answer.unsupported);
	}
}

static void version_text(void **state)
{
	struct aph_rx_answer answer;
	char text[100];
	size_t len;

	(void)state;
	len = an_answer(APH_RX_QUERY_VERSION, aph_rx_version_encode(body, "antiphon 1.2"));
	assert_int_equal(len, 93);
	assert_int_equal(aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_VERSION, ID), 0);
	assert_string_equal(answer.version, "antiphon 1.2");

	memset(text, 'x', sizeof(text));
	text[99] = 0;
	len = an_answer(APH_RX_QUERY_VERSION, aph_rx_version_encode(body, text));
	assert_int_equal(body[64], 0);
	assert_int_equal(aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_VERSION, ID), 0);
	assert_int_equal(strlen(answer.version), 64);

	/* A stranger's text must not reach a terminal as it is, and need not end. */
	memset(body, '\033', 200);
	len = an_answer(APH_RX_QUERY_VERSION, 200);
	assert_int_equal(aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_VERSION, ID), 0);
	assert_int_equal(strlen(answer.version), 65);
	assert_int_equal(strspn(answer.version, "?"), 65);
}

static void no_answers(void **state)
{
	struct aph_rx_answer answer;
	size_t len = an_answer(APH_RX_QUERY_STATS, 56);

	(void)state;
	memset(body, 0, 300);
	assert_int_equal(aph_rx_answer_decode(&answer, packet, 27, APH_RX_QUERY_STATS, ID),
			 -ENOMSG);
	assert_int_equal(aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_STATS, ID + 1),
			 -ENOMSG);
	assert_int_equal(aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_VERSION, ID),
			 -ENOMSG);
	packet[21] |= APH_RX_CLIENT_INITIATED; /* somebody's query */
	assert_int_equal(aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_STATS, ID),
			 -ENOMSG);
	/* Every length that is too short, in memory of just that length. */
	for (int query = APH_RX_QUERY_STATS; query <= APH_RX_QUERY_PEERS; query++) {
		static const size_t least[] = { 0, 16, 172, 172, 108, 92 };

		for (size_t n = 0; n < least[query]; n++) {
			uint8_t *copy = malloc(APH_RX_HEADER + n);

			(void)an_answer((enum aph_rx_query)query, n);
			memcpy(copy, packet, APH_RX_HEADER + n);
			assert_int_equal(aph_rx_answer_decode(&answer, copy, APH_RX_HEADER + n,
							      (enum aph_rx_query)query, ID),
					 -EBADMSG);
			free(copy);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(queries),
		cmocka_unit_test(stats_layout),
		cmocka_unit_test(connection_layout),
		cmocka_unit_test(peer_layout),
		cmocka_unit_test(counters_layout),
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(ends_and_unknown_queries),
		cmocka_unit_test(version_text),
		cmocka_unit_test(no_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
