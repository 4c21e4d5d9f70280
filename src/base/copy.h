/* SPDX-License-Identifier: MIT */
/* Copies of a few bytes, made in place: a call of memcpy() costs more than they do. */
#ifndef ANTIPHON_BASE_COPY_H
#define ANTIPHON_BASE_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* For lengths that are a few dozen at most; the two do not overlap. */
static inline void aph_copy_short(void *to, const void *from, size_t n)
{
	uint8_t *t = to;
	const uint8_t *f = from;
	size_t i;

	/* Each length is covered by pieces of one size, of which the last two may overlap. */
	if (n >= 16) {
		for (i = 0; i < n - 16; i += 16)
			memcpy(t + i, f + i, 16);
		memcpy(t + n - 16, f + n - 16, 16);
	} else if (n >= 8) {
		memcpy(t, f, 8);
		memcpy(t + n - 8, f + n - 8, 8);
	} else if (n >= 4) {
		memcpy(t, f, 4);
		memcpy(t + n - 4, f + n - 4, 4);
	} else {
		for (i = 0; i < n; i++)
			t[i] = f[i];
	}
}

#endif
