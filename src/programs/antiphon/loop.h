/* SPDX-License-Identifier: MIT */
/*
 * A small event loop over epoll for `antiphon serve`: sources that are told when their descriptor
 * is ready. A source may be removed, and freed, from within any callback.
 */
#ifndef ANTIPHON_CLI_LOOP_H
#define ANTIPHON_CLI_LOOP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define LOOP_BATCH 64

struct loop_source {
	int fd;
	void (*ready)(struct loop_source *source, uint32_t events);
	void *data;
};

struct loop {
	int epoll_fd;
	struct epoll_event batch[LOOP_BATCH]; /* of the loop_wait() that is under way */
	size_t n_batch;
};

/* 0 or -errno. */
int loop_init(struct loop *loop);
void loop_deinit(struct loop *loop);

/*
 * Watches source->fd for EPOLL* `events`; the source is borrowed until loop_remove(). 0 or -errno.
 */
int loop_add(struct loop *loop, struct loop_source *source, uint32_t events);
void loop_remove(struct loop *loop, struct loop_source *source);

/* Waits until something is ready or `deadline_ns` has come and runs the callbacks. 0 or -errno. */
int loop_wait(struct loop *loop, uint64_t deadline_ns);

#endif
