/* SPDX-License-Identifier: MIT */
/*
 * The floors that shared memory gives to a word each way: pure spinning, a futex without spinning,
 * and an eventfd waited for in epoll. The memory and the eventfds are inherited.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"

/* One direction: the number of messages sent so far, and the last one's content. */
struct lane {
	_Alignas(64) _Atomic uint32_t sent;
	uint32_t value;
	int bell, epoll;
	uint32_t taken; /* the receiver's own */
};

static struct lane *lanes; /* requests, replies */

static void ring_nothing(struct lane *lane)
{
	(void)lane;
}

static void wait_spin(struct lane *lane)
{
	while (atomic_load_explicit(&lane->sent, memory_order_acquire) == lane->taken)
		continue;
}

static void ring_futex(struct lane *lane)
{
	syscall(SYS_futex, &lane->sent, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void wait_futex(struct lane *lane)
{
	while (atomic_load_explicit(&lane->sent, memory_order_acquire) == lane->taken)
		syscall(SYS_futex, &lane->sent, FUTEX_WAIT, lane->taken, NULL, NULL, 0);
}

static void ring_eventfd(struct lane *lane)
{
	uint64_t one = 1;

	while (write(lane->bell, &one, sizeof one) < 0 && errno == EINTR)
		continue;
}

static void wait_eventfd(struct lane *lane)
{
	while (atomic_load_explicit(&lane->sent, memory_order_acquire) == lane->taken) {
		struct epoll_event event;
		uint64_t count;

		if (epoll_wait(lane->epoll, &event, 1, -1) == 1 &&
		    read(lane->bell, &count, sizeof count) < 0)
			continue;
	}
}

static void (*ring)(struct lane *lane);
static void (*await)(struct lane *lane);

static int prepare(struct bench_job *job)
{
	(void)job;
	lanes = mmap(NULL, 2 * sizeof *lanes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		     -1, 0);
	if (lanes == MAP_FAILED)
		return -errno;
	for (int i = 0; i < 2; i++) {
		struct epoll_event event = { .events = EPOLLIN };

		lanes[i].bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		lanes[i].epoll = epoll_create1(EPOLL_CLOEXEC);
		if (epoll_ctl(lanes[i].epoll, EPOLL_CTL_ADD, lanes[i].bell, &event) < 0)
			return -errno;
	}
	return 0;
}

static int prepare_spin(struct bench_job *job)
{
	ring = ring_nothing;
	await = wait_spin;
	return prepare(job);
}

static int prepare_futex(struct bench_job *job)
{
	ring = ring_futex;
	await = wait_futex;
	return prepare(job);
}

static int prepare_eventfd(struct bench_job *job)
{
	ring = ring_eventfd;
	await = wait_eventfd;
	return prepare(job);
}

static void transmit(struct lane *lane, uint32_t value)
{
	lane->value = value;
	atomic_fetch_add_explicit(&lane->sent, 1, memory_order_release);
	ring(lane);
}

static uint32_t receive(struct lane *lane)
{
	await(lane);
	lane->taken++;
	return lane->value;
}

static int serve(struct bench_job *job)
{
	uint32_t small;
	size_t len;

	bench_ready(job);
	while (ring != NULL) {
		bench_answer(job, receive(&lanes[0]), &small, &len);
		transmit(&lanes[1], small);
	}
	return -EINVAL;
}

static int open_client(struct bench_job *job, void **self)
{
	(void)job;
	(void)self;
	return 0;
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	uint32_t value;

	(void)self;
	(void)len;
	memcpy(&value, req, sizeof value);
	transmit(&lanes[0], value);
	*sum = receive(&lanes[1]);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct bench_who whos[] = {
		/* One core would be handed over by the scheduler's clock alone. */
		{ .name = "floor:spin",
		  .no_one_core = true,
		  .no_clients = true,
		  .no_body = true,
		  .prepare = prepare_spin,
		  .serve = serve,
		  .open = open_client,
		  .call = call },
		{ .name = "floor:futex",
		  .no_clients = true,
		  .no_body = true,
		  .prepare = prepare_futex,
		  .serve = serve,
		  .open = open_client,
		  .call = call },
		{ .name = "floor:eventfd",
		  .no_clients = true,
		  .no_body = true,
		  .prepare = prepare_eventfd,
		  .serve = serve,
		  .open = open_client,
		  .call = call },
	};

	return bench_main(whos, sizeof whos / sizeof whos[0], argc, argv);
}
