/* SPDX-License-Identifier: MIT */
/*
 * The image: slots of two versions each, one of which counts.
 */
#include "image.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NOTHING 0u /* what counts in a free slot; else 1 or 2, a version */

struct version {
	struct hold_record record;
	int fds[APH_HOLD_FDS_MAX];
};

struct slot {
	/*
	 * Stored with release after the version that it names. Whoever reads it has learnt from the
	 * kernel that the writer is dead.
	 */
	_Atomic uint32_t counts;
	struct version versions[2];
};

struct shared {
	_Atomic uint32_t n_used; /* slots beyond were never touched, and take no memory */
	struct slot slots[];
};

struct hold_image {
	struct shared *shared;
	size_t bytes;
	uint32_t n_slots;
	uint32_t *free; /* a stack of those below n_used */
	uint32_t n_free;
};

int hold_image_new(struct hold_image **out, uint32_t n_slots)
{
	struct hold_image *image = calloc(1, sizeof(*image));

	if (!image)
		return -ENOMEM;
	image->n_slots = n_slots;
	image->bytes = sizeof(struct shared) + n_slots * sizeof(struct slot);
	image->free = calloc(n_slots, sizeof(*image->free));
	image->shared = mmap(NULL, image->bytes, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (image->free && image->shared != MAP_FAILED) {
		*out = image;
		return 0;
	}
	if (image->shared == MAP_FAILED)
		image->shared = NULL;
	hold_image_free(image);
	return -ENOMEM;
}

void hold_image_free(struct hold_image *image)
{
	if (!image)
		return;
	if (image->shared)
		(void)munmap(image->shared, image->bytes);
	free(image->free);
	free(image);
}

static uint32_t counting(const struct slot *slot)
{
	return atomic_load_explicit(&slot->counts, memory_order_acquire);
}

static void let_count(struct slot *slot, uint32_t version)
{
	atomic_store_explicit(&slot->counts, version, memory_order_release);
}

/* The version beside the one that counts. */
static uint32_t other(const struct slot *slot)
{
	return counting(slot) == 1 ? 2 : 1;
}

/* An entry knows its slot by its number plus 1. */
static struct slot *slot_of(const struct hold_image *image, const struct hold_entry *entry)
{
	return &image->shared->slots[entry->slot - 1];
}

/* The number of a free one plus 1, or 0. */
static uint32_t take_slot(struct hold_image *image)
{
	uint32_t n_used = atomic_load(&image->shared->n_used);

	if (image->n_free)
		return image->free[--image->n_free] + 1;
	if (n_used == image->n_slots)
		return 0;
	atomic_store(&image->shared->n_used, n_used + 1);
	return n_used + 1;
}

int hold_image_put(struct hold_image *image, struct hold_entry *entry, struct hold_entry *old)
{
	uint32_t number = old && old->slot ? old->slot : take_slot(image), version;
	struct slot *slot;

	if (!number)
		return -ENFILE;
	if (old)
		old->slot = 0;
	entry->slot = number;
	slot = slot_of(image, entry);
	version = other(slot);
	hold_record_of(&slot->versions[version - 1].record, entry);
	memcpy(slot->versions[version - 1].fds, entry->fds, entry->n_fds * sizeof(int));
	let_count(slot, version);
	return 0;
}

void hold_image_move(struct hold_image *image, const struct hold_entry *entry, uid_t owner,
		     uint64_t serial, uint64_t token)
{
	struct slot *slot = slot_of(image, entry);
	uint32_t version = other(slot);
	struct version *next = &slot->versions[version - 1];

	*next = slot->versions[counting(slot) - 1];
	next->record.owner = owner;
	next->record.serial = serial;
	next->record.token = token;
	let_count(slot, version);
}

void hold_image_drop(struct hold_image *image, struct hold_entry *entry)
{
	let_count(slot_of(image, entry), NOTHING);
	image->free[image->n_free++] = entry->slot - 1;
	entry->slot = 0;
}

int hold_image_each(const struct hold_image *image,
		    int (*visit)(const struct hold_record *record, const int *fds, uint32_t slot,
				 void *arg),
		    void *arg)
{
	uint32_t n_used = atomic_load(&image->shared->n_used);
	int r = 0;

	for (uint32_t i = 0; i < n_used && r >= 0; i++) {
		const struct slot *slot = &image->shared->slots[i];
		uint32_t version = counting(slot);

		if (version != NOTHING)
			r = visit(&slot->versions[version - 1].record,
				  slot->versions[version - 1].fds, i + 1, arg);
	}
	return r < 0 ? r : 0;
}

void hold_image_adopt(struct hold_image *image)
{
	uint32_t n_used = atomic_load(&image->shared->n_used);

	image->n_free = 0;
	for (uint32_t i = n_used; i-- > 0;) {
		if (counting(&image->shared->slots[i]) == NOTHING)
			image->free[image->n_free++] = i;
	}
}
