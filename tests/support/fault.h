/* SPDX-License-Identifier: MIT */
/*
 * Failing on purpose: the n-th allocation, or the n-th call of one system call's wrapper, that the
 * program makes from here on, in whichever thread. Works in programs linked with fault_dep,
 * whose link arguments (--wrap) put these functions between libantiphon's static form and the C
 * library.
 */
#ifndef TESTS_SUPPORT_FAULT_H
#define TESTS_SUPPORT_FAULT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Allocation is one site: malloc(), calloc(), realloc(), reallocarray() and strdup() are counted
 * together.
 */
#define FAULT_SITES(X)       \
	X(accept4)           \
	X(bind)              \
	X(connect)           \
	X(epoll_create1)     \
	X(epoll_ctl)         \
	X(eventfd)           \
	X(faccessat)         \
	X(fchmod)            \
	X(fchmodat)          \
	X(fcntl64)           \
	X(fdopendir)         \
	X(fstat64)           \
	X(fstatat64)         \
	X(ftruncate64)       \
	X(getsockname)       \
	X(getsockopt)        \
	X(inotify_add_watch) \
	X(inotify_init1)     \
	X(listen)            \
	X(memfd_create)      \
	X(mkdir)             \
	X(mmap64)            \
	X(open64)            \
	X(openat64)          \
	X(ppoll)             \
	X(recvfrom)          \
	X(recvmmsg)          \
	X(recvmsg)           \
	X(renameat)          \
	X(sendmmsg)          \
	X(sendmsg)           \
	X(sendto)            \
	X(setsockopt)        \
	X(socket)            \
	X(timerfd_create)    \
	X(unlinkat)

enum fault_site {
	FAULT_ALLOCATION,
#define FAULT_ENUM(name) FAULT_##name,
	FAULT_SITES(FAULT_ENUM)
#undef FAULT_ENUM
	FAULT_SITE_COUNT,
};

const char *fault_name(enum fault_site site);

/*
 * The n-th call from now on fails with `error`; n counts from 1. Only one fault is armed at a time.
 */
void fault_arm(enum fault_site site, unsigned n, int error);

/* No more faults. True when the one that was armed has happened. */
bool fault_disarm(void);

/* How often the site was reached since the last fault_arm() or fault_disarm(). */
unsigned fault_reached(enum fault_site site);

/* Blocks allocated through the wrapped functions and not freed yet. */
long fault_blocks(void);

#endif
