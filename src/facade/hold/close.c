/* SPDX-License-Identifier: MIT */
/* Closing what others gave us, without waiting. */
#include "close.h"

#include <sys/socket.h>
#include <unistd.h>

bool hold_may_linger(int fd, int *domain)
{
	socklen_t len = sizeof(*domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, domain, &len) < 0)
		*domain = AF_UNSPEC;
	return *domain != AF_UNSPEC && *domain != AF_UNIX;
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
