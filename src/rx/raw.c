/* SPDX-License-Identifier: MIT */
/*
 * Packets that are sent once: answers outside connections, ABORTs, CHALLENGEs. They wait in a ring
 * for the next aph_rx_send(); what an address that may be forged can make us send is limited.
 */
#include "rx/engine.h"

#include <string.h>

#define LIMIT_PER_S 50
#define LIMIT_BURST 20

static struct aph_rx_large *new_large(struct aph_rx *rx, size_t len)
{
	struct aph_rx_large *large = aph_rx_alloc(rx, sizeof(*large) + len);

	if (large)
		large->size = (uint32_t)(sizeof(*large) + len);
	return large;
}

void aph_rx_raw_forget(struct aph_rx *rx, bool all)
{
	while (rx->spent_large) {
		struct aph_rx_large *large = rx->spent_large;

		rx->spent_large = large->next;
		aph_rx_release(rx, large, large->size);
	}
	for (; all && rx->n_raw; rx->n_raw--) {
		struct aph_rx_large *large = rx->raw[rx->raw_first].large;

		if (large)
			aph_rx_release(rx, large, large->size);
		rx->raw_first = (rx->raw_first + 1) % APH_RX_N_RAW;
	}
}

bool aph_rx_raw_send(struct aph_rx *rx, const struct aph_rx_path *path,
		     const struct aph_rx_header *header, const uint8_t *body, size_t len)
{
	struct aph_rx_large *large = NULL;
	struct aph_rx_raw *raw;
	uint8_t *bytes;

	if (rx->n_raw == APH_RX_N_RAW || len > APH_RX_LARGE_MAX - APH_RX_HEADER ||
	    (APH_RX_HEADER + len > APH_RX_RAW_MAX &&
	     !(large = new_large(rx, APH_RX_HEADER + len)))) {
		rx->stats.rate_limited++;
		return false;
	}
	raw = &rx->raw[(rx->raw_first + rx->n_raw++) % APH_RX_N_RAW];
	raw->path = *path;
	raw->len = (uint16_t)(APH_RX_HEADER + len);
	raw->large = large;
	bytes = large ? large->bytes : raw->bytes;
	aph_rx_header_encode(bytes, header);
	if (len)
		memcpy(bytes + APH_RX_HEADER, body, len);
	rx->stats.packets_sent[header->type]++;
	return true;
}

bool aph_rx_send_abort(struct aph_rx_conn *conn, uint32_t cid, uint32_t call_number, int32_t code)
{
	struct aph_rx_header header = aph_rx_conn_header(conn, cid, call_number, APH_RX_ABORT, 0);
	uint8_t body[4];

	header.serial = aph_rx_conn_serial(conn);
	aph_put32(body, (uint32_t)code);
	return aph_rx_raw_send(conn->rx, &conn->peer->path, &header, body, sizeof(body));
}

uint32_t aph_rx_group(const struct aph_rx *rx, const struct aph_rx_path *path)
{
	const struct aph_rx_address *a = &path->remote;
	uint64_t v4 = a->in.sin_addr.s_addr; /* hashes are of whole words */
	uint32_t hash = a->family == AF_INET ? aph_rx_hash(rx, &v4, sizeof(v4))
					     : aph_rx_hash(rx, &a->in6.sin6_addr, 8);

	return hash % APH_RX_N_LIMITS;
}

/* A bucket of tokens for each group of addresses. */
bool aph_rx_limit_take(struct aph_rx *rx, const struct aph_rx_path *path)
{
	struct aph_rx_limit *limit = &rx->limits[aph_rx_group(rx, path)];
	uint64_t earned = (rx->now_ns - limit->filled_ns) / (1000 * APH_RX_MS / LIMIT_PER_S);

	if (earned) {
		limit->tokens = earned > LIMIT_BURST - limit->tokens
					? LIMIT_BURST
					: limit->tokens + (uint32_t)earned;
		limit->filled_ns = rx->now_ns;
	}
	if (!limit->tokens) {
		rx->stats.rate_limited++;
		return false;
	}
	limit->tokens--;
	return true;
}
