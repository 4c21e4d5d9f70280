/* SPDX-License-Identifier: MIT */
/*
 * The event loop.
 */
#include "loop.h"

#include <antiphon/api.h>

#include <errno.h>
#include <limits.h>
#include <unistd.h>

int loop_init(struct loop *loop)
{
	loop->n_batch = 0;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll_fd < 0 ? -errno : 0;
}

void loop_deinit(struct loop *loop)
{
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	loop->epoll_fd = -1;
}

int loop_add(struct loop *loop, struct loop_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
	/*
	 * By hand and not by close(): a child between fork and exec still holds the same
	 * descriptor.
	 */
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	for (size_t i = 0; i < loop->n_batch; i++) {
		if (loop->batch[i].data.ptr == source)
			loop->batch[i].data.ptr = NULL;
	}
}

static int timeout_ms(uint64_t deadline_ns)
{
	uint64_t now, ms;

	if (deadline_ns == APH_FOREVER)
		return -1;
	if (deadline_ns == APH_NOW)
		return 0;
	now = aph_time_ns();
	if (deadline_ns <= now)
		return 0;
	/* Rounded up: waking before the deadline would only mean to wait again. */
	ms = (deadline_ns - now + 999999) / 1000000;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

int loop_wait(struct loop *loop, uint64_t deadline_ns)
{
	int n = epoll_wait(loop->epoll_fd, loop->batch, LOOP_BATCH, timeout_ms(deadline_ns));

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	loop->n_batch = (size_t)n;
	for (size_t i = 0; i < loop->n_batch; i++) {
		struct loop_source *source = loop->batch[i].data.ptr;

		if (source != NULL)
			source->ready(source, loop->batch[i].events);
	}
	loop->n_batch = 0;
	return 0;
}
