/* SPDX-License-Identifier: MIT */
/*
 * Rings of records: one writer, one reader, no shared head or tail. A record is published by
 * storing its number, which is the reader's private index plus one; the reader says how far it is
 * by `taken`, which the writer looks at only when its ring seems full. A record that was not taken
 * can be withdrawn.
 */
#ifndef ANTIPHON_LOCAL_RING_H
#define ANTIPHON_LOCAL_RING_H

#include "base/time.h"
#include "local/layout.h"

#include <stdbool.h>
#include <string.h>

#define RING_AHEAD 2u

/* One end of a ring, in private memory. */
struct aph_ring {
	struct aph_record *slots;
	uint32_t mask;
	uint32_t next;	/* records written, or taken, by this end */
	uint32_t taken; /* writer: how many the reader had taken when last looked */
	_Atomic uint32_t *shared_taken;
	_Atomic uint8_t *revoked; /* for requests: two laps of marks, see layout.h */
};

static inline void aph_ring_init(struct aph_ring *ring, struct aph_record *slots, uint32_t depth,
				 _Atomic uint32_t *shared_taken)
{
	*ring = (struct aph_ring){ .slots = slots,
				   .mask = depth - 1,
				   .shared_taken = shared_taken };
}

/* -- writer -- */

/* Whether a record can be written. The reader's word is believed only as far as it makes sense. */
static inline bool aph_ring_has_room(struct aph_ring *ring)
{
	uint32_t taken;

	if (ring->next - ring->taken <= ring->mask)
		return true;
	/* Partner: the exchange in aph_ring_take(). */
	taken = atomic_load(ring->shared_taken);
	if (taken - ring->taken <= ring->next - ring->taken)
		ring->taken = taken;
	return ring->next - ring->taken <= ring->mask;
}

/* A record will be written soon: fetches its line, which the reader had last. */
static inline void aph_ring_prepare(const struct aph_ring *ring)
{
	aph_prefetch_to_write(&ring->slots[ring->next & ring->mask]);
}

/* The slot that comes next; fill in all but `seq`, then publish. */
static inline struct aph_record *aph_ring_slot(struct aph_ring *ring)
{
	return &ring->slots[ring->next & ring->mask];
}

/*
 * Publishes the slot. Who has to know whether the reader sleeps makes a full fence afterwards,
 * before he looks.
 */
static inline void aph_ring_publish(struct aph_ring *ring)
{
	struct aph_record *slots = ring->slots;
	uint32_t mask = ring->mask, at = ring->next;

	/*
	 * The line after next is still the reader's from the last lap; the next one he may be
	 * watching. To own it in time spares the fence that follows a wait for it.
	 */
	aph_prefetch_to_write(&slots[(at + RING_AHEAD) & mask]);
	ring->next = at + 1;
	/* Partner: the acquire in aph_ring_ready(). */
	atomic_store_explicit(&slots[at & mask].seq, at + 1, memory_order_release);
}

/* Takes back a mark that is set. False: the other side was faster. */
static inline bool aph_ring_claim(_Atomic uint8_t *mark)
{
	uint8_t set = 1;

	return atomic_compare_exchange_strong(mark, &set, 0);
}

/*
 * Whether the reader has taken this record, however long ago. What it has not taken is among the
 * next `depth` numbers; to compare which is greater would go wrong for a call that is as old as
 * half of all numbers.
 */
static inline bool aph_ring_was_taken(const struct aph_ring *ring, uint32_t number)
{
	return number - atomic_load(ring->shared_taken) - 1 > ring->mask;
}

/*
 * Withdraws a record. True: the reader drops it; false: the reader uses it, or has. Partner: the
 * exchange in aph_ring_take() and aph_ring_was_withdrawn(). Whichever fence comes first, one side
 * sees the other; if both do, whoever gets the mark decides.
 */
static inline bool aph_ring_withdraw(struct aph_ring *ring, uint32_t number)
{
	_Atomic uint8_t *mark = &ring->revoked[number & APH_REVOKED_MASK(ring->mask + 1)];

	/* The mark of a record that was taken long ago may be a newer one's by now. */
	if (aph_ring_was_taken(ring, number))
		return false;
	(void)atomic_exchange(mark, 1);
	return !aph_ring_was_taken(ring, number) || !aph_ring_claim(mark);
}

/* -- reader -- */

/* Whether a record is there. */
static inline bool aph_ring_ready(const struct aph_ring *ring)
{
	/* Partner: the store in aph_ring_publish(). */
	return atomic_load(&ring->slots[ring->next & ring->mask].seq) == ring->next + 1;
}

/* Whether the record that is there begins a request: a hint, as the writer may still change it. */
static inline bool aph_ring_at_request(const struct aph_ring *ring)
{
	return *(volatile uint8_t *)&ring->slots[ring->next & ring->mask].type ==
	       APH_RECORD_REQUEST;
}

/* Records have been or will be written soon: fetches their lines, whose way here is long. */
static inline void aph_ring_expect(const struct aph_ring *ring)
{
	uint32_t i;

	for (i = 0; i < RING_AHEAD; i++)
		__builtin_prefetch(&ring->slots[(ring->next + i) & ring->mask]);
}

/* Copies the record that is there. All checks are made on the copy. */
static inline void aph_ring_copy(const struct aph_ring *ring, struct aph_record *copy)
{
	const struct aph_record *slot = &ring->slots[ring->next & ring->mask];

	/*
	 * In two parts, as they are read: what is loaded over the seam of two stores has to wait
	 * for both.
	 */
	memcpy((void *)copy, (const void *)slot, offsetof(struct aph_record, data));
	memcpy(copy->data, slot->data, sizeof(copy->data));
	/* The compiler must not go back to the shared one. */
	__asm__ volatile("" : : "r"(copy) : "memory");
}

/*
 * Takes the record: its slot may be written again. A full fence: the writer who then withdraws or
 * waits for room either sees that it was taken, or we see what he did.
 */
static inline void aph_ring_take(struct aph_ring *ring)
{
	ring->next++;
	/* Before the fence, which would hold it up. */
	__builtin_prefetch(&ring->slots[ring->next & ring->mask]);
	(void)atomic_exchange(ring->shared_taken, ring->next);
}

/*
 * The same in two steps, for a reader who takes several records that nobody withdraws: goes on to
 * the next one, and at last says once how far it is.
 */
static inline void aph_ring_pass(struct aph_ring *ring)
{
	ring->next++;
	__builtin_prefetch(&ring->slots[(ring->next + RING_AHEAD) & ring->mask]);
}

static inline void aph_ring_tell(struct aph_ring *ring)
{
	(void)atomic_exchange(ring->shared_taken, ring->next);
}

/*
 * Whether the record that was just taken was withdrawn and is to be dropped. Its mark is not used
 * again before the next record is taken, when the writer is one lap ahead; so what is claimed here
 * is this record's.
 */
static inline bool aph_ring_was_withdrawn(struct aph_ring *ring)
{
	_Atomic uint8_t *mark = &ring->revoked[ring->next & APH_REVOKED_MASK(ring->mask + 1)];

	return atomic_load(mark) && aph_ring_claim(mark);
}

#endif
