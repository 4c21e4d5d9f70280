/* SPDX-License-Identifier: MIT */
/*
 * A progress bar on standard error. It appears only after half a second and is drawn ten times a
 * second at most, so that short work shows none and long work is not slowed.
 */
#ifndef ANTIPHON_CLI_PROGRESS_H
#define ANTIPHON_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

enum progress_unit {
	PROGRESS_BYTES,
	PROGRESS_CALLS,
};

struct progress {
	bool enabled;
	bool shown;
	enum progress_unit unit;
	uint64_t total; /* 0: not known */
	uint64_t began_ns;
	uint64_t next_ns; /* when to draw next */
};

/* `wanted` is what the user asked for; without it the bar is shown on a terminal only. */
void progress_init(struct progress *progress, enum progress_unit unit, uint64_t total, bool wanted,
		   bool unwanted);

/* Draws if it is time. `sent` counts towards the total, `received` is shown beside it if not 0. */
void progress_update(struct progress *progress, uint64_t sent, uint64_t received);

/* When to call progress_update() again at the latest; UINT64_MAX if no bar will ever be shown. */
uint64_t progress_next(const struct progress *progress);

/* Clears the bar's line, so that messages can follow. */
void progress_finish(struct progress *progress);

#endif
