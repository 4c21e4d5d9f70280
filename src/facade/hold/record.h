/* SPDX-License-Identifier: MIT */
/*
 * What is kept under a name, in a form that another process takes: one message to a newcomer, what
 * is in a bottle of the service manager's store, a slot of the twin's image.
 */
#ifndef ANTIPHON_HOLD_RECORD_H
#define ANTIPHON_HOLD_RECORD_H

#include "table.h"

enum hold_what {
	HOLD_PUT = 1,
	HOLD_GO = 4, /* to a newcomer: that is all */
};

struct hold_record {
	uint32_t what; /* enum hold_what */
	uint32_t n_fds;
	uint32_t owner;
	uint32_t zero;
	uint64_t expiry_ns;
	uint64_t stored_ns;
	uint64_t token;
	uint64_t serial;
	char name[APH_HOLD_NAME_MAX + 1];
};

void hold_record_of(struct hold_record *record, const struct hold_entry *entry);
/* One message; waits a second at most. 0, or what went wrong. */
int hold_record_send(int sock, const struct hold_record *record, const int *fds);
/*
 * 1: one record has come, is what it should be, and `fds`, APH_HOLD_FDS_MAX, has its descriptors,
 * which are the caller's. 0: the end. -EAGAIN, or what went wrong.
 */
int hold_record_recv(int sock, struct hold_record *record, int *fds, int flags);
/*
 * Puts it into the table, in place of what has its owner and name. 0, and `*out`, unless NULL, is
 * the entry; or -ENOMEM, and the descriptors are still the caller's.
 */
int hold_record_apply(struct hold_table *table, const struct hold_record *record, const int *fds,
		      struct hold_entry **out);

#endif
