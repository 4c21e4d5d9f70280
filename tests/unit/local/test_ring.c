/* SPDX-License-Identifier: MIT */
/*
 * Rings and arenas with both ends as threads on one mapping: what the thread sanitizer needs to see
 * races. Every record and every byte must arrive once, in order, through the wrap of the numbers
 * too; and what is withdrawn is not used.
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
		aph_ring_publish(&ring);
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
		aph_ring_publish(&ring);
	}
	assert_false(aph_ring_has_room(&ring));
	atomic_store(&taken, DEPTH + 1);
	assert_false(aph_ring_has_room(&ring));
	atomic_store(&taken, UINT32_MAX);
	assert_false(aph_ring_has_room(&ring));
	atomic_store(&taken, 1);
	assert_true(aph_ring_has_room(&ring));
}

/* -- withdrawing ------------------------------------------------------------------------------- */

struct both {
	struct aph_record slots[DEPTH];
	_Atomic uint32_t taken;
	_Atomic uint8_t revoked[2 * DEPTH];
};

static void both_begin(struct both *both, struct aph_ring *writer, struct aph_ring *reader,
		       uint32_t start)
{
	memset((void *)both, 0, sizeof(*both));
	both->taken = start;
	aph_ring_init(writer, both->slots, DEPTH, &both->taken);
	aph_ring_init(reader, both->slots, DEPTH, &both->taken);
	writer->revoked = reader->revoked = both->revoked;
	writer->next = writer->taken = reader->next = start;
}

static uint32_t publish(struct aph_ring *writer)
{
	assert_true(aph_ring_has_room(writer));
	aph_ring_publish(writer);
	return writer->next;
}

static void take(struct aph_ring *reader)
{
	assert_true(aph_ring_ready(reader));
	aph_ring_take(reader);
}

/*
 * The reader looks at a mark after it has said that the record is taken. In between the writer may
 * publish a record of the next lap and withdraw that too: neither must hide the other.
 */
static void withdrawn_in_two_laps(void **state)
{
	static struct both both;
	struct aph_ring writer, reader;
	uint32_t start, i, first, second;

	(void)state;
	for (start = UINT32_MAX - 3 * DEPTH; start != 3 * DEPTH; start++) {
		both_begin(&both, &writer, &reader, start);
		first = publish(&writer);
		assert_true(aph_ring_withdraw(&writer, first));
		for (i = 1; i < DEPTH; i++)
			(void)publish(&writer);
		assert_false(aph_ring_has_room(&writer));
		take(&reader);
		second = publish(&writer);
		assert_true(aph_ring_withdraw(&writer, second));
		assert_true(aph_ring_was_withdrawn(&reader));
		for (i = 1; i < DEPTH; i++) {
			take(&reader);
			assert_false(aph_ring_was_withdrawn(&reader));
		}
		take(&reader);
		assert_true(aph_ring_was_withdrawn(&reader));
	}
}

/*
 * A withdrawal concerns one record, and leaves nothing behind for those that come into its place.
 */
static void withdrawn_once(void **state)
{
	static struct both both;
	struct aph_ring writer, reader;
	uint32_t number, i;

	(void)state;
	both_begin(&both, &writer, &reader, 0);
	for (i = 0; i < 10 * DEPTH; i++) {
		number = publish(&writer);
		if (i == 3)
			assert_true(aph_ring_withdraw(&writer, number));
		take(&reader);
		assert_int_equal(aph_ring_was_withdrawn(&reader), i == 3);
		/* Too late, whether the reader has looked or not. */
		assert_false(aph_ring_withdraw(&writer, number));
		if (i == 7) {
			publish(&writer);
			take(&reader);
			assert_false(aph_ring_withdraw(&writer, number + 1));
			assert_false(aph_ring_was_withdrawn(&reader));
		}
	}
}

/*
 * A call may be open while any number of others come and go: that it was received is not forgotten.
 */
static void taken_long_ago(void **state)
{
	static const uint32_t ages[] = { 0, 1, DEPTH, 1000, UINT32_MAX / 2, UINT32_MAX / 2 + 2 };
	static struct both both;
	struct aph_ring writer, reader;
	uint32_t number;
	size_t i;

	(void)state;
	both_begin(&both, &writer, &reader, UINT32_MAX - 5);
	number = publish(&writer);
	assert_false(aph_ring_was_taken(&writer, number));
	take(&reader);
	for (i = 0; i < sizeof(ages) / sizeof(ages[0]); i++) {
		both.taken = number + ages[i];
		assert_true(aph_ring_was_taken(&writer, number));
		assert_false(aph_ring_withdraw(&writer, number));
	}
}

struct race {
	struct both both;
	uint32_t start;
	bool withdrawn[RECORDS +
		       1]; /* by number, from the start: the writer says that nobody has it */
	bool used[RECORDS + 1];
};

static void *write_and_withdraw(void *arg)
{
	struct race *race = arg;
	struct aph_ring writer;
	uint32_t i, back;

	aph_ring_init(&writer, race->both.slots, DEPTH, &race->both.taken);
	writer.revoked = race->both.revoked;
	writer.next = writer.taken = race->start;
	for (i = 1; i <= RECORDS; i++) {
		while (!aph_ring_has_room(&writer))
			sched_yield();
		aph_ring_publish(&writer);
		if (i % 3 == 0)
			continue;
		back = i % 5 * (DEPTH / 8);
		if (back < i && !race->withdrawn[i - back])
			race->withdrawn[i - back] =
				aph_ring_withdraw(&writer, race->start + i - back);
	}
	return NULL;
}

/*
 * Whatever the two threads do at once, they agree: a record is used or withdrawn. One that is both
 * was run against the word of its caller; one that is neither will never be answered.
 */
static void withdrawn_or_used(void **state)
{
	struct race *race = aligned_alloc(APH_LINE, (sizeof(*race) / APH_LINE + 1) * APH_LINE);
	struct aph_ring reader;
	pthread_t writer;
	uint32_t i;

	(void)state;
	assert_non_null(race);
	memset((void *)race, 0, sizeof(*race));
	race->start = UINT32_MAX - RECORDS / 2;
	race->both.taken = race->start;
	aph_ring_init(&reader, race->both.slots, DEPTH, &race->both.taken);
	reader.revoked = race->both.revoked;
	reader.next = race->start;
	assert_int_equal(pthread_create(&writer, NULL, write_and_withdraw, race), 0);
	for (i = 1; i <= RECORDS; i++) {
		while (!aph_ring_ready(&reader))
			sched_yield();
		aph_ring_take(&reader);
		race->used[i] = !aph_ring_was_withdrawn(&reader);
	}
	assert_int_equal(pthread_join(writer, NULL), 0);
	for (i = 1; i <= RECORDS; i++)
		assert_int_not_equal(race->used[i], race->withdrawn[i]);
	free(race);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order),	     cmocka_unit_test(through_the_wrap),
		cmocka_unit_test(a_lie_about_taken), cmocka_unit_test(withdrawn_in_two_laps),
		cmocka_unit_test(withdrawn_once),    cmocka_unit_test(withdrawn_or_used),
		cmocka_unit_test(taken_long_ago),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
