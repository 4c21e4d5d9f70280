/* SPDX-License-Identifier: MIT */
/*
 * Closing what others gave us, without waiting.
 *
 * The last close(2) of a connection with SO_LINGER waits until its peer has taken what was sent,
 * for as long as whoever gave it to us has set: nobody else would be served meanwhile. It does not
 * wait in a process that is exiting. So such a socket is closed by a child that has a copy of it,
 * and of all else, and exits.
 */
#include "close.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool lingers(int fd)
{
	struct linger linger;
	socklen_t len = sizeof(linger);

	return getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && linger.l_onoff &&
	       linger.l_linger > 0;
}

/*
 * A fork without handlers: the child does nothing but wait for the end of `ends[0]`. It sends no
 * signal.
 */
static pid_t fork_holder(const int *ends)
{
	pid_t pid = (pid_t)syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L);
	char byte;

	if (pid)
		return pid;
	(void)close(ends[1]);
	while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
		continue;
	_exit(0);
}

static void close_lingering(int fd)
{
	static const struct linger off = { 0 };
	int ends[2] = { -1, -1 };
	pid_t pid = -1;

	if (pipe2(ends, O_CLOEXEC) == 0)
		pid = fork_holder(ends);
	/* Whoever else has it will find it changed, which is better than to wait. */
	if (pid < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	(void)close(fd);
	if (ends[0] >= 0) {
		(void)close(ends[0]);
		(void)close(ends[1]);
	}
	while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		continue;
}

bool hold_may_linger(int fd, int *domain)
{
	socklen_t len = sizeof(*domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, domain, &len) < 0)
		*domain = AF_UNSPEC;
	return *domain != AF_UNSPEC && *domain != AF_UNIX;
}

void hold_close(const int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (lingers(fds[i]))
			close_lingering(fds[i]);
		else
			(void)close(fds[i]);
	}
}

/* What arrived in one message has numbers in a row, as a rule: one system call for all. */
void hold_close_plain(const int *fds, uint32_t n)
{
	uint32_t i, end;

	for (i = 0; i < n; i = end) {
		end = i + 1;
		while (end < n && fds[end] == fds[end - 1] + 1)
			end++;
		if (end - i == 1 || close_range((unsigned)fds[i], (unsigned)fds[end - 1], 0) < 0) {
			for (uint32_t j = i; j < end; j++)
				(void)close(fds[j]);
		}
	}
}
