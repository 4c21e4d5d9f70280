/* SPDX-License-Identifier: MIT */
/*
 * The memory of bodies in one direction. The sender allocates pieces of it in units, the receiver
 * gives pieces back by setting one bit for each, in any order.
 */
#ifndef ANTIPHON_LOCAL_ARENA_H
#define ANTIPHON_LOCAL_ARENA_H

#include "local/layout.h"

#include <stdbool.h>

#define APH_ARENA_WORDS (APH_ARENA_UNITS_MAX / 64)
#define APH_PIECE_NONE	UINT16_MAX

/* The sender's end. */
struct aph_arena {
	uint8_t *base;
	uint32_t unit;
	uint32_t n_units;
	_Atomic uint64_t *released; /* shared, set by the receiver */
	uint32_t n_used;
	/* Something has become free: set here, taken back by who has told all that wait. */
	bool regained;
	uint64_t used[APH_ARENA_WORDS];
	/* By first unit: units of the piece that begins there, else 0; made when needed. */
	uint16_t *n_of;
};

/*
 * A unit is the smallest power of two that lets the bits of one line cover the arena, at least 1
 * KiB.
 */
uint32_t aph_arena_unit(uint32_t size);

void aph_arena_init(struct aph_arena *arena, uint8_t *base, uint32_t size,
		    _Atomic uint64_t *released);
void aph_arena_deinit(struct aph_arena *arena);

enum aph_arena_result {
	APH_ARENA_OK = 0,
	APH_ARENA_FULL = 1,
	APH_ARENA_BROKEN = 2
};

/*
 * Finds room for a piece of `*len` bytes, or for less, but not less than `least`; `*len` is lowered
 * to what there is. At least `spare` bytes stay free. OK, FULL, BROKEN (the receiver gave back what
 * it did not have), or -ENOMEM.
 */
int aph_arena_alloc(struct aph_arena *arena, uint32_t *off, uint32_t *len, uint32_t least,
		    uint32_t spare);

/* Takes back a piece that was never sent, or all of it but its first `len` bytes. */
void aph_arena_trim(struct aph_arena *arena, uint32_t off, uint32_t len);

/*
 * Writes down what is in use, by first unit, for somebody else to go on with. False when nothing
 * is, and nothing was written.
 */
bool aph_arena_save(const struct aph_arena *arena, uint16_t n_of[APH_ARENA_UNITS_MAX]);
/* Goes on with that. 0, -EPROTO (it makes no sense), -ENOMEM. */
int aph_arena_restore(struct aph_arena *arena, const uint16_t n_of[APH_ARENA_UNITS_MAX]);

/* Whether the receiver has given anything back that was not collected yet. */
bool aph_arena_has_returns(const struct aph_arena *arena);

/*
 * The receiver's end: pieces that have arrived and were not given back, in lists by their first
 * unit.
 */
struct aph_piece {
	uint32_t len;
	uint16_t next;
	bool held;
};

struct aph_intake {
	const uint8_t *base;
	uint32_t size;
	uint32_t unit;
	_Atomic uint64_t *released; /* shared, cleared by the sender */
	struct aph_piece *pieces;   /* made when needed */
};

void aph_intake_init(struct aph_intake *intake, const uint8_t *base, uint32_t size,
		     _Atomic uint64_t *released);
void aph_intake_deinit(struct aph_intake *intake);

/* Takes note of a piece. Its number, or -EPROTO (it makes no sense), -ENOMEM. */
int aph_intake_add(struct aph_intake *intake, uint32_t off, uint32_t len);

/* Gives a piece back. A full fence: look then whether the sender waits for room. */
void aph_intake_release(struct aph_intake *intake, uint16_t piece);

static inline const uint8_t *aph_intake_at(const struct aph_intake *intake, uint16_t piece)
{
	return intake->base + (size_t)piece * intake->unit;
}

#endif
