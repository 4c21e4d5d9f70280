/* SPDX-License-Identifier: MIT */
#include "pattern.h"

#include <string.h>

static uint64_t word_at(uint64_t index, uint32_t seed)
{
	uint64_t z = (index + seed) * UINT64_C(0x9e3779b97f4a7c15);

	return z ^ z >> 29;
}

static unsigned char byte_at(uint64_t at, uint32_t seed)
{
	return (unsigned char)(word_at(at / 8, seed) >> at % 8 * 8);
}

void pattern_fill(void *buf, size_t len, uint64_t at, uint32_t seed)
{
	unsigned char *to = buf;
	size_t i = 0;

	while (i < len && (at + i) % 8)
		to[i] = byte_at(at + i, seed), i++;
	for (; i + 8 <= len; i += 8) {
		uint64_t word = word_at((at + i) / 8, seed);

		memcpy(to + i, &word, 8); /* little-endian hosts only, as byte_at() is written */
	}
	for (; i < len; i++)
		to[i] = byte_at(at + i, seed);
}

size_t pattern_check(const void *buf, size_t len, uint64_t at, uint32_t seed)
{
	const unsigned char *from = buf;
	unsigned char want[1024];
	size_t i, n;

	for (i = 0; i < len; i += n) {
		n = len - i < sizeof(want) ? len - i : sizeof(want);
		pattern_fill(want, n, at + i, seed);
		if (memcmp(want, from + i, n) == 0)
			continue;
		for (n = 0; want[n] == from[i + n]; n++)
			;
		return i + n;
	}
	return len;
}

uint64_t pattern_sum(uint64_t sum, const void *buf, size_t len)
{
	const unsigned char *from = buf;

	for (size_t i = 0; i < len; i++)
		sum = sum * UINT64_C(1099511628211) + from[i] + 1;
	return sum;
}
