/* SPDX-License-Identifier: MIT */
/*
 * What is kept, as the twin finds it when the keeper has died: in memory that both of them have.
 *
 * Each name has a slot. A change is written beside what the slot says, and then one store makes it
 * count: a keeper that is killed at any instruction leaves the state before or after it. Only the
 * keeper writes, and the twin reads when there is no keeper any more. The descriptors are numbers:
 * the two have one table of them.
 */
#ifndef ANTIPHON_HOLD_IMAGE_H
#define ANTIPHON_HOLD_IMAGE_H

#include "record.h"

struct hold_image;

/* Room for so many names. 0, -ENOMEM. */
int hold_image_new(struct hold_image **out, uint32_t n_slots);
/* Accepts NULL. */
void hold_image_free(struct hold_image *image);

/*
 * The entry is kept now, in place of `old`, which may be NULL or the entry itself when it was
 * changed. 0, or -ENFILE: no slot is free, and nothing has changed.
 */
int hold_image_put(struct hold_image *image, struct hold_entry *entry, struct hold_entry *old);
/* The same entry, with another owner, serial and token. */
void hold_image_move(struct hold_image *image, const struct hold_entry *entry, uid_t owner,
		     uint64_t serial, uint64_t token);
void hold_image_drop(struct hold_image *image, struct hold_entry *entry);

/* Calls `visit` with each that is kept; stops at a negative result and returns it. */
int hold_image_each(const struct hold_image *image,
		    int (*visit)(const struct hold_record *record, const int *fds, uint32_t slot,
				 void *arg),
		    void *arg);
/* The reader becomes the writer: finds the slots that are free. */
void hold_image_adopt(struct hold_image *image);

#endif
