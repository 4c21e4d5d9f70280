/* SPDX-License-Identifier: MIT */
/*
 * Answers to VERSION and rxdebug queries: the first byte says which query, the rest is the packet.
 */
#include "rx/debug.h"
#include "rx/wire.h"

#include "check.h"
#include "fuzz.h"

#include <string.h>

#define ID 101

/* Whole answers are the same after they were encoded again. */
static size_t encode(uint8_t *body, const struct aph_rx_answer *answer)
{
	switch (answer->query) {
	case APH_RX_QUERY_STATS:
		return aph_rx_debug_encode_stats(body, &answer->stats);
	case APH_RX_QUERY_CONNECTIONS:
	case APH_RX_QUERY_ALL_CONNECTIONS:
		return aph_rx_debug_encode_connection(body, &answer->connection);
	case APH_RX_QUERY_COUNTERS:
		return aph_rx_debug_encode_counters(body, &answer->counters);
	case APH_RX_QUERY_PEERS:
		return aph_rx_debug_encode_peer(body, &answer->peer);
	case APH_RX_QUERY_VERSION:
	default:
		return aph_rx_version_encode(body, answer->version);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct aph_rx_header header = { .call_number = ID, .type = APH_RX_DEBUG };
	uint8_t packet[APH_RX_HEADER + APH_RX_DEBUG_ANSWER_MAX];
	struct aph_rx_answer answer, same;
	enum aph_rx_query query;
	size_t len;

	if (size == 0)
		return 0;
	query = (enum aph_rx_query)(data[0] % 7);
	if (aph_rx_answer_decode(&answer, data + 1, size - 1, query, ID) < 0)
		return 0;
	CHECK(answer.query == query);
	if (answer.unsupported)
		return 0;
	if (query == APH_RX_QUERY_VERSION) {
		header.type = APH_RX_VERSION;
		CHECK(strlen(answer.version) < sizeof(answer.version));
		for (const char *c = answer.version; *c; c++)
			CHECK(*c >= ' ' && *c <= '~');
		answer.version[APH_RX_VERSION_BODY - 1] = 0;
	}
	aph_rx_header_encode(packet, &header);
	len = encode(packet + APH_RX_HEADER, &answer);
	CHECK(len <= APH_RX_DEBUG_ANSWER_MAX);
	CHECK_OK(aph_rx_answer_decode(&same, packet, APH_RX_HEADER + len, query, ID));
	CHECK(answer.end == same.end);
	CHECK(encode(packet, &same) == len);
	CHECK(memcmp(&answer, &same, sizeof(answer)) == 0);
	return 0;
}
