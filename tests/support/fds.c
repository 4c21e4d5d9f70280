/* SPDX-License-Identifier: MIT */
/*
 * Reads /proc/self/fd. Uses system calls without the C library's directory streams so that it works
 * with allocation faults armed and does not count its own descriptor.
 */
#include "fds.h"

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct entry {
	uint64_t ino;
	int64_t off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

static int kept = -1;

void fds_keep(int fd)
{
	kept = fd;
}

void fds_take(struct fds *fds)
{
	_Alignas(8) char buf[8192];
	const struct entry *entry;
	long n, at;
	int dir, fd;

	memset(fds, 0, sizeof(*fds));
	dir = (int)CHECK_OK(open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	while ((n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0) {
		for (at = 0; at < n; at += entry->reclen) {
			entry = (const void *)(buf + at);
			if (entry->name[0] < '0' || entry->name[0] > '9')
				continue;
			fd = atoi(entry->name);
			if (fd != dir && fd != kept && fd < FDS_MAX)
				fds->open[fd] = 1;
		}
	}
	close(dir);
}

int fds_count(void)
{
	struct fds now;
	int n = 0;

	fds_take(&now);
	for (int fd = 0; fd < FDS_MAX; fd++)
		n += now.open[fd];
	return n;
}

void fds_await_count(int n)
{
	static const struct timespec span = { .tv_nsec = 1000000 };

	for (int i = 0; i < check_ms(500) && fds_count() != n; i++)
		(void)nanosleep(&span, NULL);
	CHECK(fds_count() == n);
}

static int count_changes(const struct fds *before, bool pipes, bool aloud)
{
	char path[64], what[256];
	struct fds now;
	int n = 0;

	fds_take(&now);
	for (int fd = 0; fd < FDS_MAX; fd++) {
		if (now.open[fd] == before->open[fd])
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ssize_t len = readlink(path, what, sizeof(what) - 1);
		what[len > 0 ? len : 0] = 0;
		if (!pipes && strncmp(what, "pipe:", 5) == 0)
			continue;
		n++;
		if (aloud)
			fprintf(stderr, "descriptor %d was %s: %s\n", fd,
				now.open[fd] ? "left open" : "closed", what);
	}
	return n;
}

static int differ(const struct fds *before, bool pipes)
{
	static const struct timespec span = { .tv_nsec = 1000000 };

	/*
	 * What takes long to close is closed by a thread of the library, and may be closed a moment
	 * later.
	 */
	for (int i = 0; i < check_ms(500); i++) {
		if (count_changes(before, pipes, false) == 0)
			return 0;
		(void)nanosleep(&span, NULL);
	}
	return count_changes(before, pipes, true);
}

int fds_differ(const struct fds *before)
{
	return differ(before, true);
}

int fds_differ_but_pipes(const struct fds *before)
{
	return differ(before, false);
}

int fds_lingering(int *peer)
{
	static const struct linger minute = { .l_onoff = 1, .l_linger = 60 };
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);
	char bytes[4096] = { 0 };
	int listener, sock;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(listener >= 0 && sock >= 0);
	CHECK_OK(bind(listener, (struct sockaddr *)&address, len));
	CHECK_OK(listen(listener, 1));
	CHECK_OK(getsockname(listener, (struct sockaddr *)&address, &len));
	CHECK_OK(connect(sock, (struct sockaddr *)&address, len));
	*peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK_OK(*peer);
	CHECK_OK(close(listener));
	CHECK_OK(setsockopt(sock, SOL_SOCKET, SO_LINGER, &minute, sizeof(minute)));
	CHECK_OK(fcntl(sock, F_SETFL, O_NONBLOCK));
	while (send(sock, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
		continue;
	CHECK(errno == EAGAIN);
	return sock;
}
