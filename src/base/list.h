/* SPDX-License-Identifier: MIT */
/*
 * Doubly linked list, embedded in its members. A head and an unlinked member point to themselves,
 * so that aph_list_remove() may be called on a member that is in no list.
 */
#ifndef ANTIPHON_BASE_LIST_H
#define ANTIPHON_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct aph_list {
	struct aph_list *next;
	struct aph_list *prev;
};

/* The object of type `type` whose member `member` is at `ptr`. */
#define aph_container(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Walks the list; the current member may be removed and freed on the way, others may not. */
#define aph_list_for_each(pos, tmp, head)                                \
	for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head); \
	     (pos) = (tmp), (tmp) = (pos)->next)

static inline void aph_list_init(struct aph_list *list)
{
	list->next = list;
	list->prev = list;
}

static inline bool aph_list_empty(const struct aph_list *list)
{
	return list->next == list;
}

/* Appends `item` at the end of the list `head`. */
static inline void aph_list_append(struct aph_list *head, struct aph_list *item)
{
	item->prev = head->prev;
	item->next = head;
	head->prev->next = item;
	head->prev = item;
}

static inline void aph_list_remove(struct aph_list *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
	aph_list_init(item);
}

#endif
