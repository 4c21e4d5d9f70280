/* SPDX-License-Identifier: MIT */
/*
 * The functions that the linker puts in place of the C library's: each asks should_fail() and goes
 * on to the real one. Blocks are remembered, so that a leak shows without a sanitizer.
 */
#include "fault.h"

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define BLOCKS_MAX 65536 /* a power of two, far more than any test has */

/* The library closes descriptors in threads of its own, which give memory back as well. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static enum fault_site armed_site = FAULT_SITE_COUNT;
static unsigned armed_n;
static int armed_error;
static bool happened;
static unsigned reached[FAULT_SITE_COUNT];

static void *blocks[BLOCKS_MAX];
static long n_blocks;

static const char *const names[] = { "allocation",
#define FAULT_STRING(name) #name,
				     FAULT_SITES(FAULT_STRING)
#undef FAULT_STRING
};

static void enter(void)
{
	(void)pthread_mutex_lock(&lock);
}

static void leave(void)
{
	(void)pthread_mutex_unlock(&lock);
}

/* A thread that does not come along must not leave the child with the lock. */
__attribute__((constructor)) static void watch_fork(void)
{
	(void)pthread_atfork(enter, leave, leave);
}

const char *fault_name(enum fault_site site)
{
	return names[site];
}

static void arm(enum fault_site site, unsigned n, int error)
{
	memset(reached, 0, sizeof(reached));
	armed_site = site;
	armed_n = n;
	armed_error = error;
}

void fault_arm(enum fault_site site, unsigned n, int error)
{
	enter();
	arm(site, n, error);
	happened = false;
	leave();
}

bool fault_disarm(void)
{
	bool hit;

	enter();
	arm(FAULT_SITE_COUNT, 0, 0);
	hit = happened;
	leave();
	return hit;
}

unsigned fault_reached(enum fault_site site)
{
	unsigned n;

	enter();
	n = reached[site];
	leave();
	return n;
}

long fault_blocks(void)
{
	long n;

	enter();
	n = n_blocks;
	leave();
	return n;
}

static bool should_fail(enum fault_site site)
{
	bool fails;

	enter();
	reached[site]++;
	fails = site == armed_site && reached[site] == armed_n;
	happened |= fails;
	if (fails)
		errno = armed_error;
	leave();
	return fails;
}

/* -- memory ------------------------------------------------------------------------------------ */

static size_t slot_of(const void *block)
{
	return (size_t)((uintptr_t)block >> 4) * 2654435761u % BLOCKS_MAX;
}

static void *remember(void *block)
{
	size_t i = slot_of(block);

	if (!block)
		return NULL;
	enter();
	CHECK(n_blocks < BLOCKS_MAX / 2);
	while (blocks[i])
		i = (i + 1) % BLOCKS_MAX;
	blocks[i] = block;
	n_blocks++;
	leave();
	return block;
}

/*
 * Takes a block out of the table and closes the gap that it leaves. Unknown ones are the C
 * library's.
 */
static void take_out(const void *block)
{
	size_t i = slot_of(block), k;

	while (blocks[i] && blocks[i] != block)
		i = (i + 1) % BLOCKS_MAX;
	if (!blocks[i])
		return;
	n_blocks--;
	for (k = (i + 1) % BLOCKS_MAX; blocks[k]; k = (k + 1) % BLOCKS_MAX) {
		size_t home = slot_of(blocks[k]);

		if ((k - home) % BLOCKS_MAX >= (k - i) % BLOCKS_MAX) {
			blocks[i] = blocks[k];
			i = k;
		}
	}
	blocks[i] = NULL;
}

static void forget(const void *block)
{
	if (!block)
		return;
	enter();
	take_out(block);
	leave();
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t n, size_t size);
char *__real_strdup(const char *string);
void __real_free(void *block);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size);
char *__wrap_strdup(const char *string);
void __wrap_free(void *block);

void *__wrap_malloc(size_t size)
{
	return should_fail(FAULT_ALLOCATION) ? NULL : remember(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
	return should_fail(FAULT_ALLOCATION) ? NULL : remember(__real_calloc(n, size));
}

void *__wrap_realloc(void *old, size_t size)
{
	void *block;

	if (should_fail(FAULT_ALLOCATION))
		return NULL;
	block = __real_realloc(old, size);
	if (block) {
		forget(old);
		remember(block);
	}
	return block;
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
	void *block;

	if (should_fail(FAULT_ALLOCATION))
		return NULL;
	block = __real_reallocarray(old, n, size);
	if (block) {
		forget(old);
		remember(block);
	}
	return block;
}

char *__wrap_strdup(const char *string)
{
	return should_fail(FAULT_ALLOCATION) ? NULL : remember(__real_strdup(string));
}

void __wrap_free(void *block)
{
	forget(block);
	__real_free(block);
}

/* -- system calls ------------------------------------------------------------------------------ */

#define WRAP(type, failed, name, parameters, arguments)                                \
	type __real_##name parameters;                                                 \
	type __wrap_##name parameters;                                                 \
	type __wrap_##name parameters                                                  \
	{                                                                              \
		return should_fail(FAULT_##name) ? (failed) : __real_##name arguments; \
	}

struct epoll_event;
struct stat64;

WRAP(int, -1, accept4, (int fd, struct sockaddr *addr, socklen_t *len, int flags),
     (fd, addr, len, flags))
WRAP(int, -1, bind, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len))
WRAP(int, -1, connect, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len))
WRAP(int, -1, epoll_create1, (int flags), (flags))
WRAP(int, -1, epoll_ctl, (int ep, int op, int fd, struct epoll_event *ev), (ep, op, fd, ev))
WRAP(int, -1, eventfd, (unsigned count, int flags), (count, flags))
WRAP(int, -1, faccessat, (int dir, const char *path, int mode, int flags), (dir, path, mode, flags))
WRAP(int, -1, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(int, -1, fchmodat, (int dir, const char *path, mode_t mode, int flags),
     (dir, path, mode, flags))
WRAP(DIR *, NULL, fdopendir, (int fd), (fd))
WRAP(int, -1, fstat64, (int fd, struct stat64 *st), (fd, st))
WRAP(int, -1, fstatat64, (int dir, const char *path, struct stat64 *st, int flags),
     (dir, path, st, flags))
WRAP(int, -1, ftruncate64, (int fd, int64_t size), (fd, size))
WRAP(int, -1, getsockname, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len))
WRAP(int, -1, getsockopt, (int fd, int level, int name, void *value, socklen_t *len),
     (fd, level, name, value, len))
WRAP(int, -1, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, path, mask))
WRAP(int, -1, inotify_init1, (int flags), (flags))
WRAP(int, -1, listen, (int fd, int backlog), (fd, backlog))
WRAP(int, -1, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(int, -1, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(void *, MAP_FAILED, mmap64, (void *addr, size_t len, int prot, int flags, int fd, int64_t off),
     (addr, len, prot, flags, fd, off))
WRAP(int, -1, ppoll,
     (struct pollfd * fds, nfds_t n, const struct timespec *time, const sigset_t *mask),
     (fds, n, time, mask))
WRAP(ssize_t, -1, recvfrom,
     (int fd, void *data, size_t len, int flags, struct sockaddr *from, socklen_t *from_len),
     (fd, data, len, flags, from, from_len))
WRAP(int, -1, recvmmsg,
     (int fd, struct mmsghdr *headers, unsigned n, int flags, struct timespec *time),
     (fd, headers, n, flags, time))
WRAP(ssize_t, -1, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags))
WRAP(int, -1, renameat, (int from_dir, const char *from, int to_dir, const char *to),
     (from_dir, from, to_dir, to))
WRAP(int, -1, sendmmsg, (int fd, struct mmsghdr *headers, unsigned n, int flags),
     (fd, headers, n, flags))
WRAP(ssize_t, -1, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags))
WRAP(ssize_t, -1, sendto,
     (int fd, const void *data, size_t len, int flags, const struct sockaddr *to, socklen_t to_len),
     (fd, data, len, flags, to, to_len))
WRAP(int, -1, setsockopt, (int fd, int level, int name, const void *value, socklen_t len),
     (fd, level, name, value, len))
WRAP(int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, -1, timerfd_create, (int clock, int flags), (clock, flags))
WRAP(int, -1, unlinkat, (int dir, const char *path, int flags), (dir, path, flags))

/* Those with a last argument that need not be there; a long holds any that the library passes. */
int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __real_openat64(int dir, const char *path, int flags, ...);
int __wrap_openat64(int dir, const char *path, int flags, ...);

int __wrap_fcntl64(int fd, int command, ...)
{
	va_list args;
	long last;

	va_start(args, command);
	last = va_arg(args, long);
	va_end(args);
	return should_fail(FAULT_fcntl64) ? -1 : __real_fcntl64(fd, command, last);
}

int __wrap_open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t last;

	va_start(args, flags);
	last = va_arg(args, mode_t);
	va_end(args);
	return should_fail(FAULT_open64) ? -1 : __real_open64(path, flags, last);
}

int __wrap_openat64(int dir, const char *path, int flags, ...)
{
	va_list args;
	mode_t last;

	va_start(args, flags);
	last = va_arg(args, mode_t);
	va_end(args);
	return should_fail(FAULT_openat64) ? -1 : __real_openat64(dir, path, flags, last);
}
