/* SPDX-License-Identifier: MIT */
/*
 * The table: chains by a hash of owner and name, a heap of those that expire.
 */
#include "table.h"

#include "close.h"

#include "../../base/close.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHAINS_MIN 64

int hold_table_init(struct hold_table *table)
{
	memset(table, 0, sizeof(*table));
	table->chains = calloc(CHAINS_MIN, sizeof(struct hold_entry *));
	if (!table->chains)
		return -ENOMEM;
	table->n_chains = CHAINS_MIN;
	return 0;
}

static void empty(struct hold_table *table, void (*let_go)(struct hold_entry *entry))
{
	for (size_t i = 0; i < table->n_chains; i++) {
		while (table->chains[i]) {
			struct hold_entry *entry = table->chains[i];

			table->chains[i] = entry->next;
			let_go(entry);
		}
	}
	while (table->users) {
		struct hold_user *user = table->users;

		table->users = user->next;
		free(user);
	}
	table->n_entries = table->n_heap = 0;
	table->n_fds = 0;
}

void hold_table_deinit(struct hold_table *table)
{
	empty(table, hold_entry_free);
	free(table->chains);
	free(table->heap);
	memset(table, 0, sizeof(*table));
}

static void forget(struct hold_entry *entry)
{
	free(entry);
}

void hold_table_forget(struct hold_table *table)
{
	empty(table, forget);
}

/* -- entries ----------------------------------------------------------------------------------- */

struct hold_entry *hold_entry_new(uid_t owner, const char *name, const int *fds, uint32_t n_fds)
{
	struct hold_entry *entry = calloc(1, sizeof(*entry) + n_fds * sizeof(int));

	if (!entry)
		return NULL;
	entry->owner = owner;
	memcpy(entry->name, name, strnlen(name, APH_HOLD_NAME_MAX));
	entry->n_fds = n_fds;
	memcpy(entry->fds, fds, n_fds * sizeof(int));
	return entry;
}

void hold_entry_free(struct hold_entry *entry)
{
	if (!entry)
		return;
	if (entry->plain)
		hold_close_plain(entry->fds, entry->n_fds);
	else
		aph_close_lingering(entry->owner, entry->fds, entry->n_fds);
	free(entry);
}

/* -- chains ------------------------------------------------------------------------------------ */

/*
 * FNV-1a; whoever makes names collide slows down a walk over at most as many entries as it may
 * have.
 */
static size_t hash(uid_t owner, const char *name)
{
	uint64_t h = UINT64_C(14695981039346656037) ^ owner;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * UINT64_C(1099511628211);
	return (size_t)(h ^ (h >> 32));
}

static struct hold_entry **chain_of(const struct hold_table *table, uid_t owner, const char *name)
{
	return &table->chains[hash(owner, name) & (table->n_chains - 1)];
}

struct hold_entry *hold_table_find(const struct hold_table *table, uid_t owner, const char *name)
{
	struct hold_entry *entry = *chain_of(table, owner, name);

	while (entry && (entry->owner != owner || strcmp(entry->name, name) != 0))
		entry = entry->next;
	return entry;
}

/* Longer chains are only slower: without memory it stays as it is. */
static void grow(struct hold_table *table)
{
	size_t n_old = table->n_chains;
	struct hold_entry **old = table->chains;
	struct hold_entry **chains = calloc(2 * n_old, sizeof(struct hold_entry *));

	if (!chains)
		return;
	table->chains = chains;
	table->n_chains = 2 * n_old;
	for (size_t i = 0; i < n_old; i++) {
		while (old[i]) {
			struct hold_entry *entry = old[i];
			struct hold_entry **chain = chain_of(table, entry->owner, entry->name);

			old[i] = entry->next;
			entry->next = *chain;
			*chain = entry;
		}
	}
	free(old);
}

/* -- the heap ---------------------------------------------------------------------------------- */

static void place(struct hold_table *table, struct hold_entry *entry, size_t at)
{
	table->heap[at] = entry;
	entry->heap_at = at + 1;
}

static void sift(struct hold_table *table, struct hold_entry *entry, size_t at)
{
	while (at > 0 && table->heap[(at - 1) / 2]->expiry_ns > entry->expiry_ns) {
		place(table, table->heap[(at - 1) / 2], at);
		at = (at - 1) / 2;
	}
	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < table->n_heap &&
		    table->heap[child + 1]->expiry_ns < table->heap[child]->expiry_ns)
			child++;
		if (child >= table->n_heap || table->heap[child]->expiry_ns >= entry->expiry_ns)
			break;
		place(table, table->heap[child], at);
		at = child;
	}
	place(table, entry, at);
}

void hold_table_resume(struct hold_table *table, struct hold_entry *entry)
{
	if (!entry->expiry_ns || entry->heap_at)
		return;
	table->n_heap++;
	sift(table, entry, table->n_heap - 1);
}

void hold_table_suspend(struct hold_table *table, struct hold_entry *entry)
{
	size_t at = entry->heap_at;
	struct hold_entry *last;

	if (!at)
		return;
	entry->heap_at = 0;
	last = table->heap[--table->n_heap];
	if (last != entry)
		sift(table, last, at - 1);
}

struct hold_entry *hold_table_expired(const struct hold_table *table, uint64_t now_ns)
{
	return table->n_heap && table->heap[0]->expiry_ns <= now_ns ? table->heap[0] : NULL;
}

uint64_t hold_table_next_expiry(const struct hold_table *table)
{
	return table->n_heap ? table->heap[0]->expiry_ns : APH_FOREVER;
}

/* -- users ------------------------------------------------------------------------------------- */

static struct hold_user *user_of(const struct hold_table *table, uid_t uid)
{
	struct hold_user *user = table->users;

	while (user && user->uid != uid)
		user = user->next;
	return user;
}

uint32_t hold_table_share(const struct hold_table *table, uid_t uid)
{
	const struct hold_user *user = user_of(table, uid);

	return user ? user->n_fds : 0;
}

/* -- changes ----------------------------------------------------------------------------------- */

/* Those who have nothing left: not earlier, as what is taken out may be added again. */
static void forget_users(struct hold_table *table)
{
	struct hold_user **link = &table->users;

	while (*link) {
		struct hold_user *user = *link;

		if (user->n_fds) {
			link = &user->next;
			continue;
		}
		*link = user->next;
		free(user);
	}
}

int hold_table_prepare(struct hold_table *table, uid_t owner)
{
	struct hold_user *user;

	/* Room for all entries, so that whatever expires finds its place. */
	if (table->n_entries >= table->heap_max) {
		size_t max = table->heap_max ? 2 * table->heap_max : CHAINS_MIN;
		struct hold_entry **heap =
			reallocarray(table->heap, max, sizeof(struct hold_entry *));

		if (!heap)
			return -ENOMEM;
		table->heap = heap;
		table->heap_max = max;
	}
	if (user_of(table, owner))
		return 0;
	forget_users(table);
	user = calloc(1, sizeof(*user));
	if (!user)
		return -ENOMEM;
	user->uid = owner;
	user->next = table->users;
	table->users = user;
	return 0;
}

void hold_table_add(struct hold_table *table, struct hold_entry *entry)
{
	struct hold_entry **chain;

	if (table->n_entries >= 2 * table->n_chains)
		grow(table);
	chain = chain_of(table, entry->owner, entry->name);
	entry->next = *chain;
	*chain = entry;
	entry->user = user_of(table, entry->owner);
	entry->user->n_fds += entry->n_fds;
	table->n_fds += entry->n_fds;
	table->n_entries++;
	if (entry->serial > table->last_serial)
		table->last_serial = entry->serial;
	hold_table_resume(table, entry);
}

void hold_table_remove(struct hold_table *table, struct hold_entry *entry)
{
	struct hold_entry **link = chain_of(table, entry->owner, entry->name);

	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	entry->next = NULL;
	hold_table_suspend(table, entry);
	table->n_entries--;
	table->n_fds -= entry->n_fds;
	entry->user->n_fds -= entry->n_fds;
	entry->user = NULL;
}

int hold_table_each(const struct hold_table *table,
		    int (*visit)(const struct hold_entry *entry, void *arg), void *arg)
{
	int r = 0;

	for (size_t i = 0; i < table->n_chains && r >= 0; i++) {
		for (const struct hold_entry *entry = table->chains[i]; entry && r >= 0;
		     entry = entry->next)
			r = visit(entry, arg);
	}
	return r < 0 ? r : 0;
}
