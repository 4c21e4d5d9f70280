/* SPDX-License-Identifier: MIT */
/*
 * Both ends of an arena: room is found, bounded, given back in any order; what makes no sense is
 * refused.
 */
#include "local/arena.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define SIZE (64u << 10)

static uint8_t memory[SIZE];

struct ends {
	_Atomic uint64_t released[APH_ARENA_WORDS];
	struct aph_arena arena;
	struct aph_intake intake;
};

static int set_up(void **state)
{
	struct ends *ends = calloc(1, sizeof(*ends));

	if (!ends)
		return -1;
	aph_arena_init(&ends->arena, memory, SIZE, ends->released);
	aph_intake_init(&ends->intake, memory, SIZE, ends->released);
	*state = ends;
	return 0;
}

static int tear_down(void **state)
{
	struct ends *ends = *state;

	aph_arena_deinit(&ends->arena);
	aph_intake_deinit(&ends->intake);
	free(ends);
	return 0;
}

/* Random pieces, given back in random order: no two ever overlap, and all room comes back. */
static void pieces_in_any_order(void **state)
{
	struct ends *ends = *state;
	struct {
		uint32_t off, len;
		int piece;
	} held[64];
	unsigned seed = 3, n = 0, i, round;
	uint32_t off, len;

	for (round = 0; round < 20000; round++) {
		len = (uint32_t)(rand_r(&seed) % 9000) + 1;
		if (n < 64 && aph_arena_alloc(&ends->arena, &off, &len, 1, 0) == APH_ARENA_OK) {
			for (i = 0; i < n; i++)
				assert_true(off >= held[i].off + held[i].len ||
					    off + len <= held[i].off);
			held[n].off = off;
			held[n].len = len;
			held[n].piece = aph_intake_add(&ends->intake, off, len);
			assert_true(held[n++].piece >= 0);
			continue;
		}
		assert_true(n > 0);
		i = (unsigned)rand_r(&seed) % n;
		aph_intake_release(&ends->intake, (uint16_t)held[i].piece);
		held[i] = held[--n];
	}
	while (n)
		aph_intake_release(&ends->intake, (uint16_t)held[--n].piece);
	len = SIZE;
	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, SIZE, 0), APH_ARENA_OK);
	assert_int_equal(len, SIZE);
}

static void some_is_spared(void **state)
{
	struct ends *ends = *state;
	uint32_t off, len = SIZE - 8192;

	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, len, 8192), APH_ARENA_OK);
	len = 1;
	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, 1, 8192), APH_ARENA_FULL);
	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, 1, 0), APH_ARENA_OK);
}

static void trimmed_pieces_come_back_whole(void **state)
{
	struct ends *ends = *state;
	uint32_t off, len = SIZE;

	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, SIZE, 0), APH_ARENA_OK);
	aph_arena_trim(&ends->arena, off, 1);
	len = SIZE - ends->arena.unit;
	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, len, 0), APH_ARENA_OK);
	aph_arena_trim(&ends->arena, off, 0);
	aph_arena_trim(&ends->arena, 0, 0);
	len = SIZE;
	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, SIZE, 0), APH_ARENA_OK);
}

static void hostile_receiver(void **state)
{
	struct ends *ends = *state;
	uint32_t off, len = SIZE;

	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, SIZE, 0), APH_ARENA_OK);
	atomic_store(&ends->released[0], 1u << 5); /* nothing begins there */
	len = 1;
	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, 1, 0), APH_ARENA_BROKEN);
}

static void hostile_sender(void **state)
{
	struct ends *ends = *state;

	assert_int_equal(aph_intake_add(&ends->intake, 1, 10), -EPROTO);
	assert_int_equal(aph_intake_add(&ends->intake, SIZE, 1), -EPROTO);
	assert_int_equal(aph_intake_add(&ends->intake, 0, 0), -EPROTO);
	assert_int_equal(aph_intake_add(&ends->intake, 0, SIZE + 1), -EPROTO);
	assert_int_equal(aph_intake_add(&ends->intake, UINT32_MAX - 1023, 2048), -EPROTO);
	assert_int_equal(aph_intake_add(&ends->intake, 1024, SIZE - 1024), 1);
	assert_int_equal(aph_intake_add(&ends->intake, 1024, 1), -EPROTO); /* held already */
}

/* What a bit of `released` stands for: as little as the number of bits allows. */
static void units(void **state)
{
	uint32_t size;

	(void)state;
	for (size = APH_ARENA_MIN; size <= APH_ARENA_MAX; size *= 2) {
		uint32_t unit = aph_arena_unit(size);

		assert_true(unit >= 1024);
		assert_int_equal(unit & (unit - 1), 0);
		assert_true(size / unit <= APH_ARENA_UNITS_MAX);
		assert_true(unit == 1024 || size / (unit / 2) > APH_ARENA_UNITS_MAX);
	}
}

/* Who wants more than there is gets what there is, unless that is less than it can use. */
static void less_than_wanted(void **state)
{
	struct ends *ends = *state;
	uint32_t off, len = 4 * SIZE;

	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, 1, 0), APH_ARENA_OK);
	assert_int_equal(len, SIZE);
	aph_arena_trim(&ends->arena, off, 10000);
	len = SIZE;
	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, SIZE - 1000, 0), APH_ARENA_FULL);
	assert_int_equal(aph_arena_alloc(&ends->arena, &off, &len, 1000, 0), APH_ARENA_OK);
	assert_int_equal(off, 10240);
	assert_int_equal(len, SIZE - 10240);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pieces_in_any_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(some_is_spared, set_up, tear_down),
		cmocka_unit_test_setup_teardown(trimmed_pieces_come_back_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(hostile_receiver, set_up, tear_down),
		cmocka_unit_test_setup_teardown(hostile_sender, set_up, tear_down),
		cmocka_unit_test(units),
		cmocka_unit_test_setup_teardown(less_than_wanted, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
