/* SPDX-License-Identifier: MIT */
/* Binary heap of deadlines, smallest first. */
#include "base/timers.h"

#include <errno.h>
#include <stdlib.h>

#define CAPACITY_FIRST 16u

static void place(struct aph_timers *timers, size_t i, struct aph_timer *timer)
{
	timers->heap[i] = timer;
	timer->slot = i + 1;
}

static void rise(struct aph_timers *timers, size_t i)
{
	struct aph_timer *timer = timers->heap[i];

	while (i > 0) {
		size_t parent = (i - 1) / 2;

		if (timers->heap[parent]->deadline_ns <= timer->deadline_ns)
			break;
		place(timers, i, timers->heap[parent]);
		i = parent;
	}
	place(timers, i, timer);
}

static void sink(struct aph_timers *timers, size_t i)
{
	struct aph_timer *timer = timers->heap[i];

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= timers->n)
			break;
		if (child + 1 < timers->n &&
		    timers->heap[child + 1]->deadline_ns < timers->heap[child]->deadline_ns)
			child++;
		if (timer->deadline_ns <= timers->heap[child]->deadline_ns)
			break;
		place(timers, i, timers->heap[child]);
		i = child;
	}
	place(timers, i, timer);
}

void aph_timers_deinit(struct aph_timers *timers)
{
	free(timers->heap);
	*timers = (struct aph_timers){ 0 };
}

int aph_timers_reserve(struct aph_timers *timers)
{
	if (timers->n_reserved == timers->capacity) {
		size_t capacity = timers->capacity ? 2 * timers->capacity : CAPACITY_FIRST;
		struct aph_timer **heap =
			reallocarray(timers->heap, capacity, sizeof(struct aph_timer *));

		if (!heap)
			return -ENOMEM;
		timers->heap = heap;
		timers->capacity = capacity;
	}
	timers->n_reserved++;
	return 0;
}

void aph_timers_unreserve(struct aph_timers *timers)
{
	timers->n_reserved--;
}

void aph_timers_start(struct aph_timers *timers, struct aph_timer *timer, uint64_t deadline_ns)
{
	timer->deadline_ns = deadline_ns;
	if (deadline_ns == UINT64_MAX)
		return;
	timers->heap[timers->n] = timer;
	rise(timers, timers->n++);
}

void aph_timers_stop(struct aph_timers *timers, struct aph_timer *timer)
{
	struct aph_timer *last;
	size_t i;

	if (!timer->slot)
		return;
	i = timer->slot - 1;
	timer->slot = 0;
	last = timers->heap[--timers->n];
	if (last == timer)
		return;
	place(timers, i, last);
	rise(timers, i);
	sink(timers, last->slot - 1);
}

struct aph_timer *aph_timers_pop(struct aph_timers *timers, uint64_t now_ns)
{
	struct aph_timer *timer;

	if (!timers->n || timers->heap[0]->deadline_ns > now_ns)
		return NULL;
	timer = timers->heap[0];
	aph_timers_stop(timers, timer);
	return timer;
}
