/* SPDX-License-Identifier: MIT */
#include "base/close.h"

#include <sys/socket.h>
#include <unistd.h>

static void stop_lingering(int fd)
{
	static const struct linger off = { 0 };
	struct linger linger;
	socklen_t len = sizeof(linger);

	if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && linger.l_onoff &&
	    linger.l_linger > 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

void aph_close_received(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		stop_lingering(fds[i]);
		(void)close(fds[i]);
	}
}
