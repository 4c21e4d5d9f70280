/* SPDX-License-Identifier: MIT */
/*
 * Rings and arenas with both ends as threads on one mapping: what the thread sanitizer needs to see races.
 * Every record and every byte must arrive once, in order, through the wrap of the numbers too.
 */
#include "local/arena.h"
#include "local/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define DEPTH	32u
#define RECORDS 200000u
#define SIZE	(64u << 10)

struct shared {
	struct aph_record slots[DEPTH];
	_Atomic uint32_t taken;
	_Atomic uint64_t released[APH_ARENA_WORDS];
	uint8_t memory[SIZE];
	uint32_t start;
};

static void *write_all(void *arg)
{
	struct shared *shared = arg;
	struct aph_arena arena;
	struct aph_ring ring;
	uint32_t i;

	aph_ring_init(&ring, shared->slots, DEPTH, &shared->taken);
	aph_arena_init(&arena, shared->memory, SIZE, shared->released);
	ring.next = ring.taken = shared->start;
	for (i = 0; i < RECORDS; i++) {
		uint32_t off, len = i % 3000 + 1;
		struct aph_record *slot;

		while (!aph_ring_has_room(&ring))
			sched_yield();
		while (aph_arena_alloc(&arena, &off, &len, len, 0) != APH_ARENA_OK)
			sched_yield();
		memset(shared->memory + off, (int)(i & 0xff), len);
		slot = aph_ring_slot(&ring);
		slot->tag = i;
		slot->off = off;
		slot->len = len;
		aph_ring_publish(&ring, i % 2);
	}
	aph_arena_deinit(&arena);
	return NULL;
}

static void read_all(struct shared *shared)
{
	struct aph_intake intake;
	struct aph_record record;
	struct aph_ring ring;
	uint32_t i;

	aph_ring_init(&ring, shared->slots, DEPTH, &shared->taken);
	aph_intake_init(&intake, shared->memory, SIZE, shared->released);
	ring.next = shared->start;
	for (i = 0; i < RECORDS; i++) {
		int piece;

		while (!aph_ring_ready(&ring))
			sched_yield();
		aph_ring_copy(&ring, &record);
		aph_ring_take(&ring);
		assert_int_equal(record.tag, i);
		assert_int_equal(record.len, i % 3000 + 1);
		piece = aph_intake_add(&intake, record.off, record.len);
		assert_true(piece >= 0);
		assert_int_equal(aph_intake_at(&intake, (uint16_t)piece)[0], i & 0xff);
		assert_int_equal(aph_intake_at(&intake, (uint16_t)piece)[record.len - 1], i & 0xff);
		aph_intake_release(&intake, (uint16_t)piece);
	}
	assert_false(aph_ring_ready(&ring));
	aph_intake_deinit(&intake);
}

static void run(uint32_t start)
{
	struct shared *shared =
		aligned_alloc(APH_LINE, (sizeof(struct shared) / APH_LINE + 1) * APH_LINE);
	pthread_t writer;

	assert_non_null(shared);
	memset((void *)shared, 0, sizeof(*shared));
	shared->start = start;
	shared->taken = start;
	assert_int_equal(pthread_create(&writer, NULL, write_all, shared), 0);
	read_all(shared);
	assert_int_equal(pthread_join(writer, NULL), 0);
	free(shared);
}

static void in_order(void **state)
{
	(void)state;
	run(0);
}

static void through_the_wrap(void **state)
{
	(void)state;
	run(UINT32_MAX - 1000);
}

/* A reader that claims to have taken what was never written is not believed. */
static void a_lie_about_taken(void **state)
{
	static struct aph_record slots[DEPTH];
	_Atomic uint32_t taken = 0;
	struct aph_ring ring;
	uint32_t i;

	(void)state;
	aph_ring_init(&ring, slots, DEPTH, &taken);
	for (i = 0; i < DEPTH; i++) {
		assert_true(aph_ring_has_room(&ring));
		aph_ring_publish(&ring, false);
	}
	assert_false(aph_ring_has_room(&ring));
	atomic_store(&taken, DEPTH + 1);
	assert_false(aph_ring_has_room(&ring));
	atomic_store(&taken, UINT32_MAX);
	assert_false(aph_ring_has_room(&ring));
	atomic_store(&taken, 1);
	assert_true(aph_ring_has_room(&ring));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order),
		cmocka_unit_test(through_the_wrap),
		cmocka_unit_test(a_lie_about_taken),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
