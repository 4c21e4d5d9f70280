/* SPDX-License-Identifier: MIT */
/*
 * What is kept: entries by owner and name, what each user has of them, and which expires next.
 *
 * Changes are made in two steps: what can fail happens before anybody is told, hold_table_add() and
 * hold_table_remove() cannot. The table knows no calls; an entry that some call is about is
 * `leaving` or has an `offer`.
 */
#ifndef ANTIPHON_HOLD_TABLE_H
#define ANTIPHON_HOLD_TABLE_H

#include "wire.h"

struct hold_offer;

struct hold_user {
	struct hold_user *next;
	uid_t uid;
	uint32_t n_fds;
};

struct hold_entry {
	struct hold_entry *next; /* in its chain */
	struct hold_user *user;
	struct hold_offer *offer; /* it is offered */
	bool plain;		  /* its descriptors are none that could linger */
	bool leaving;		  /* it is being taken: it can neither change nor expire */
	uint32_t slot;		  /* in the image, plus 1; 0: none */
	size_t heap_at;		  /* its place among those that expire, plus 1; 0: it never does */
	uint64_t expiry_ns;	  /* 0: never */
	uint64_t stored_ns;
	uint64_t token;
	uint64_t serial; /* of this keeping; unique, later ones are greater */
	uid_t owner;
	char name[APH_HOLD_NAME_MAX + 1];
	uint32_t n_fds;
	int fds[];
};

struct hold_table {
	struct hold_entry **chains;
	size_t n_chains; /* a power of two */
	size_t n_entries;
	uint32_t n_fds;
	uint64_t last_serial; /* the greatest that was ever here */
	struct hold_user *users;
	struct hold_entry **heap; /* by expiry, the first first */
	size_t n_heap, heap_max;
};

/* 0, -ENOMEM. */
int hold_table_init(struct hold_table *table);
/* Closes and frees all. */
void hold_table_deinit(struct hold_table *table);
/* Frees all, and closes nothing; it is empty then. */
void hold_table_forget(struct hold_table *table);

/* A new entry that owns the descriptors; NULL without memory, and they are still the caller's. */
struct hold_entry *hold_entry_new(uid_t owner, const char *name, const int *fds, uint32_t n_fds);
/* Closes its descriptors. Accepts NULL. */
void hold_entry_free(struct hold_entry *entry);

struct hold_entry *hold_table_find(const struct hold_table *table, uid_t owner, const char *name);

/* How many descriptors the user has here. */
uint32_t hold_table_share(const struct hold_table *table, uid_t uid);

/* Makes sure that an entry of this user can be added. 0, -ENOMEM. */
int hold_table_prepare(struct hold_table *table, uid_t owner);
/* Adds it; nothing may be there under its owner and name, and hold_table_prepare() was called. */
void hold_table_add(struct hold_table *table, struct hold_entry *entry);
/* Takes it out, without freeing it. */
void hold_table_remove(struct hold_table *table, struct hold_entry *entry);

/* The entry that expires first, if it does so by `now_ns`; NULL. */
struct hold_entry *hold_table_expired(const struct hold_table *table, uint64_t now_ns);
/* When that is; APH_FOREVER. */
uint64_t hold_table_next_expiry(const struct hold_table *table);
/* An entry that was kept from expiring may do so again, or the other way round. */
void hold_table_suspend(struct hold_table *table, struct hold_entry *entry);
void hold_table_resume(struct hold_table *table, struct hold_entry *entry);

/*
 * Calls `visit` with each entry; it must not change the table. Stops at a negative result and
 * returns it.
 */
int hold_table_each(const struct hold_table *table,
		    int (*visit)(const struct hold_entry *entry, void *arg), void *arg);

#endif
