/* SPDX-License-Identifier: MIT */
/* The pairing heap of timer.h: merging two heaps puts the later root under the earlier one. */
#include "rx/timer.h"

#include <stddef.h>

static struct aph_rx_timer *merge(struct aph_rx_timer *a, struct aph_rx_timer *b)
{
	struct aph_rx_timer *later;

	if (!a || !b)
		return a ? a : b;
	later = b;
	if (b->deadline_ns < a->deadline_ns) {
		later = a;
		a = b;
	}
	later->next = a->child;
	if (later->next)
		later->next->link = &later->next;
	later->link = &a->child;
	a->child = later;
	return a;
}

/* Merges a list of siblings in pairs, then the pairs from the last to the first. */
static struct aph_rx_timer *merge_siblings(struct aph_rx_timer *list)
{
	struct aph_rx_timer *pairs = NULL;
	struct aph_rx_timer *root = NULL;

	while (list) {
		struct aph_rx_timer *a = list;
		struct aph_rx_timer *b = a->next;

		list = b ? b->next : NULL;
		a->next = NULL;
		if (b)
			b->next = NULL;
		a = merge(a, b);
		a->next = pairs;
		pairs = a;
	}
	while (pairs) {
		struct aph_rx_timer *next = pairs->next;

		pairs->next = NULL;
		root = merge(root, pairs);
		pairs = next;
	}
	return root;
}

static void set_root(struct aph_rx_timers *timers, struct aph_rx_timer *root)
{
	timers->root = root;
	if (root) {
		root->next = NULL;
		root->link = &timers->root;
	}
}

static void take_out(struct aph_rx_timers *timers, struct aph_rx_timer *timer)
{
	struct aph_rx_timer *children = merge_siblings(timer->child);

	if (timer == timers->root) {
		set_root(timers, children);
	} else {
		*timer->link = timer->next;
		if (timer->next)
			timer->next->link = timer->link;
		set_root(timers, merge(timers->root, children));
	}
	aph_rx_timer_init(timer);
}

void aph_rx_timer_init(struct aph_rx_timer *timer)
{
	*timer = (struct aph_rx_timer){ .deadline_ns = UINT64_MAX };
}

void aph_rx_timer_set(struct aph_rx_timers *timers, struct aph_rx_timer *timer,
		      uint64_t deadline_ns)
{
	if (timer->deadline_ns == deadline_ns)
		return;
	if (timer->deadline_ns != UINT64_MAX)
		take_out(timers, timer);
	if (deadline_ns == UINT64_MAX)
		return;
	timer->deadline_ns = deadline_ns;
	set_root(timers, merge(timers->root, timer));
}

struct aph_rx_timer *aph_rx_timers_pop(struct aph_rx_timers *timers, uint64_t now_ns)
{
	struct aph_rx_timer *first = timers->root;

	if (!first || first->deadline_ns > now_ns)
		return NULL;
	take_out(timers, first);
	return first;
}
