/* SPDX-License-Identifier: MIT */
/*
 * Arena: first fit over a bitmap of at most 512 units. First fit keeps the pages and cache lines in
 * use few, and what has come back is collected only when the rest does not suffice.
 */
#include "local/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_MIN 1024u

uint32_t aph_arena_unit(uint32_t size)
{
	uint32_t unit = UNIT_MIN;

	while (size / unit > APH_ARENA_UNITS_MAX)
		unit *= 2;
	return unit;
}

void aph_arena_init(struct aph_arena *arena, uint8_t *base, uint32_t size,
		    _Atomic uint64_t *released)
{
	*arena = (struct aph_arena){
		.base = base,
		.unit = aph_arena_unit(size),
		.released = released,
	};
	arena->n_units = size / arena->unit;
}

void aph_arena_deinit(struct aph_arena *arena)
{
	free(arena->n_of);
	arena->n_of = NULL;
}

static bool is_used(const struct aph_arena *arena, uint32_t unit)
{
	return arena->used[unit / 64] >> (unit % 64) & 1;
}

static void mark(struct aph_arena *arena, uint32_t first, uint32_t n, bool used)
{
	uint32_t i;

	arena->n_used += used ? n : -n;
	for (i = first; i < first + n; i++) {
		uint64_t bit = UINT64_C(1) << (i % 64);

		if (used)
			arena->used[i / 64] |= bit;
		else
			arena->used[i / 64] &= ~bit;
	}
}

/* The length of the free run at or after `*first`, at most `want`; 0 when there is none. */
static uint32_t next_run(const struct aph_arena *arena, uint32_t *first, uint32_t want)
{
	uint32_t at = *first, n = 0;

	while (at < arena->n_units) {
		uint64_t free_bits = ~arena->used[at / 64] >> (at % 64);

		if (free_bits) {
			at += (uint32_t)__builtin_ctzll(free_bits);
			break;
		}
		at = (at / 64 + 1) * 64;
	}
	while (n < want && at + n < arena->n_units && !is_used(arena, at + n))
		n++;
	*first = at;
	return n;
}

/* The first run of `want` units, or else the longest there is. */
static uint32_t find(const struct aph_arena *arena, uint32_t *first, uint32_t want)
{
	uint32_t at = 0, best = 0, n;

	while ((n = next_run(arena, &at, want))) {
		if (n > best) {
			best = n;
			*first = at;
		}
		if (n == want)
			break;
		at += n;
	}
	return best;
}

static int collect(struct aph_arena *arena)
{
	uint32_t word;

	for (word = 0; word * 64 < arena->n_units; word++) {
		uint64_t bits;

		if (!atomic_load_explicit(&arena->released[word], memory_order_relaxed))
			continue;
		/* Partner: the fetch_or in aph_intake_release(). */
		bits = atomic_exchange(&arena->released[word], 0);
		arena->regained |= bits != 0;
		while (bits) {
			uint32_t unit = word * 64 + (uint32_t)__builtin_ctzll(bits);

			bits &= bits - 1;
			if (unit >= arena->n_units || !arena->n_of[unit])
				return APH_ARENA_BROKEN;
			mark(arena, unit, arena->n_of[unit], false);
			arena->n_of[unit] = 0;
		}
	}
	return APH_ARENA_OK;
}

int aph_arena_alloc(struct aph_arena *arena, uint32_t *off, uint32_t *len, uint32_t least,
		    uint32_t spare)
{
	uint32_t want = (*len + arena->unit - 1) / arena->unit;
	uint32_t most = arena->n_units - (spare + arena->unit - 1) / arena->unit;
	uint32_t first = 0, n;
	int r;

	if (!arena->n_of) {
		arena->n_of = calloc(arena->n_units, sizeof(*arena->n_of));
		if (!arena->n_of)
			return -ENOMEM;
	}
	n = find(arena, &first, want);
	if (n < want || arena->n_used + n > most) {
		r = collect(arena);
		if (r != APH_ARENA_OK)
			return r;
		n = find(arena, &first, want);
	}
	if (n == 0 || arena->n_used + n > most || (n < want && n * arena->unit < least))
		return APH_ARENA_FULL;
	mark(arena, first, n, true);
	arena->n_of[first] = (uint16_t)n;
	*off = first * arena->unit;
	if (n * arena->unit < *len)
		*len = n * arena->unit;
	return APH_ARENA_OK;
}

void aph_arena_trim(struct aph_arena *arena, uint32_t off, uint32_t len)
{
	uint32_t first = off / arena->unit;
	uint32_t had = arena->n_of[first];
	uint32_t keep = (len + arena->unit - 1) / arena->unit;

	mark(arena, first + keep, had - keep, false);
	arena->n_of[first] = (uint16_t)keep;
	arena->regained |= had != keep;
}

bool aph_arena_save(const struct aph_arena *arena, uint16_t n_of[APH_ARENA_UNITS_MAX])
{
	if (!arena->n_used)
		return false;
	memset(n_of, 0, APH_ARENA_UNITS_MAX * sizeof(*n_of));
	memcpy(n_of, arena->n_of, arena->n_units * sizeof(*n_of));
	return true;
}

int aph_arena_restore(struct aph_arena *arena, const uint16_t n_of[APH_ARENA_UNITS_MAX])
{
	uint32_t unit, next = 0;

	arena->n_of = calloc(arena->n_units, sizeof(*arena->n_of));
	if (!arena->n_of)
		return -ENOMEM;
	for (unit = 0; unit < APH_ARENA_UNITS_MAX; unit++) {
		if (!n_of[unit])
			continue;
		if (unit < next || unit >= arena->n_units || n_of[unit] > arena->n_units - unit)
			return -EPROTO;
		arena->n_of[unit] = n_of[unit];
		mark(arena, unit, n_of[unit], true);
		next = unit + n_of[unit];
	}
	return 0;
}

bool aph_arena_has_returns(const struct aph_arena *arena)
{
	uint32_t word;

	for (word = 0; word * 64 < arena->n_units; word++) {
		if (atomic_load(&arena->released[word]))
			return true;
	}
	return false;
}

/* -- receiver ---------------------------------------------------------------------------------- */

void aph_intake_init(struct aph_intake *intake, const uint8_t *base, uint32_t size,
		     _Atomic uint64_t *released)
{
	*intake = (struct aph_intake){
		.base = base,
		.size = size,
		.unit = aph_arena_unit(size),
		.released = released,
	};
}

void aph_intake_deinit(struct aph_intake *intake)
{
	free(intake->pieces);
	intake->pieces = NULL;
}

int aph_intake_add(struct aph_intake *intake, uint32_t off, uint32_t len)
{
	uint32_t unit = off / intake->unit;

	if (off % intake->unit || off >= intake->size || len == 0 || len > intake->size - off)
		return -EPROTO;
	if (!intake->pieces) {
		intake->pieces = calloc(intake->size / intake->unit, sizeof(*intake->pieces));
		if (!intake->pieces)
			return -ENOMEM;
	}
	if (intake->pieces[unit].held)
		return -EPROTO;
	intake->pieces[unit] =
		(struct aph_piece){ .len = len, .next = APH_PIECE_NONE, .held = true };
	return (int)unit;
}

void aph_intake_release(struct aph_intake *intake, uint16_t piece)
{
	intake->pieces[piece].held = false;
	/* Partner: the exchange in collect(). */
	(void)atomic_fetch_or(&intake->released[piece / 64], UINT64_C(1) << (piece % 64));
}
