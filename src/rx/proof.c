/* SPDX-License-Identifier: MIT */
#include "rx/proof.h"

#include <string.h>

#define SPAN_NS (10000 * APH_RX_MS) /* a question may be answered for so long, or twice as long */

/* -- the code ---------------------------------------------------------------------------------- */

static uint64_t rotate(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static void stir(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

static void take_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	stir(v);
	stir(v);
	v[0] ^= word;
}

uint64_t aph_rx_siphash(const uint64_t key[2], const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t v[4] = {
		key[0] ^ UINT64_C(0x736f6d6570736575),
		key[1] ^ UINT64_C(0x646f72616e646f6d),
		key[0] ^ UINT64_C(0x6c7967656e657261),
		key[1] ^ UINT64_C(0x7465646279746573),
	};
	uint64_t word = 0;
	size_t i;

	for (i = 0; i < len; i++) {
		word |= (uint64_t)p[i] << 8 * (i % 8);
		if (i % 8 == 7) {
			take_word(v, word);
			word = 0;
		}
	}
	take_word(v, word | (uint64_t)len << 56);
	v[2] ^= 0xff;
	for (i = 0; i < 4; i++)
		stir(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* -- questions --------------------------------------------------------------------------------- */

static uint32_t serial_in(const struct aph_rx *rx, const struct aph_rx_path *path,
			  const struct aph_rx_header *header, uint64_t span)
{
	const struct aph_rx_address *a = &path->remote;
	uint8_t text[16 + 2 + 4 + 4 + 8] = { 0 };

	if (a->family == AF_INET)
		memcpy(text, &a->in.sin_addr, sizeof(a->in.sin_addr));
	else
		memcpy(text, &a->in6.sin6_addr, sizeof(a->in6.sin6_addr));
	memcpy(text + 16, &a->in.sin_port, 2);
	aph_put32(text + 18, header->epoch);
	aph_put32(text + 22, header->cid);
	memcpy(text + 26, &span, sizeof(span));
	return (uint32_t)aph_rx_siphash(rx->proof_key, text, sizeof(text));
}

uint32_t aph_rx_proof_serial(const struct aph_rx *rx, const struct aph_rx_path *path,
			     const struct aph_rx_header *header)
{
	return serial_in(rx, path, header, rx->now_ns / SPAN_NS);
}

bool aph_rx_proof_holds(const struct aph_rx *rx, const struct aph_rx_path *path,
			const struct aph_rx_header *header, uint32_t serial)
{
	uint64_t span = rx->now_ns / SPAN_NS;

	return serial == serial_in(rx, path, header, span) ||
	       serial == serial_in(rx, path, header, span - 1);
}
