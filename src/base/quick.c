/* SPDX-License-Identifier: MIT */
/*
 * Which descriptors are closed at once: a list of what is known, as close(2) asks a FUSE or network
 * server for its leave, lets terminals and lingering connections send what they have, and takes
 * long to free what is large or what is watched (inotify), or what lies in the queue of a Unix
 * socket.
 */
#include "quick.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCKS_MAX (UINT64_C(16) << 11) /* 16 MiB: whoever has the last of it frees it */
#define MAJOR_MEM  1			/* /dev/null and its like */

static bool is_quick_socket(int fd, int domain)
{
	struct linger linger;
	socklen_t len = sizeof(linger);

	return (domain == AF_INET || domain == AF_INET6) &&
	       getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 &&
	       !(linger.l_onoff && linger.l_linger > 0);
}

/*
 * What counts or measures time, and nothing else; a file cannot have such a name, as it begins with
 * '/'.
 */
static bool is_quick_inode(int fd)
{
	static const char *const names[] = { "anon_inode:[eventfd]", "anon_inode:[timerfd]",
					     "anon_inode:[signalfd]" };
	char path[32], target[64];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	target[n < 0 ? 0 : n] = '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(target, names[i]) == 0)
			return true;
	}
	return false;
}

/*
 * What the kernel knows by itself: no type of file system is asked for more than it has in memory.
 */
static bool is_quick_file(int fd)
{
	struct statx file;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &file) < 0)
		return false;
	switch (file.stx_mode & S_IFMT) {
	case S_IFIFO:
		return true;
	case S_IFCHR:
		return file.stx_rdev_major == MAJOR_MEM;
	case S_IFDIR:
		return file.stx_dev_major != 0;
	case S_IFREG:
		/* On a disk; or in memory, which alone can be sealed. */
		return file.stx_blocks <= BLOCKS_MAX &&
		       (file.stx_dev_major != 0 || fcntl(fd, F_GET_SEALS) >= 0);
	case 0:
		return is_quick_inode(fd);
	default:
		return false;
	}
}

bool aph_closes_quickly(int fd)
{
	int saved = errno, domain;
	socklen_t len = sizeof(domain);
	bool quick;

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0)
		quick = is_quick_socket(fd, domain);
	else
		quick = errno == EBADF || is_quick_file(fd);
	errno = saved;
	return quick;
}
