/* SPDX-License-Identifier: MIT */
/*
 * The pair of Unix sockets behind a descriptor. The program has the outer end, we have the inner
 * one:
 *
 *   POLLIN    as long as bytes of ours (marks) lie in the outer end. One is put there for each
 *             arrival, so that edge-triggered pollers see each, and they are taken away by whoever
 *             receives the last message.
 *   POLLOUT   as long as nothing lies in the inner end: what the outer end has sent and we have not
 *             read counts against its send buffer, which is made as small as can be.
 *   closed    the inner end hears a hang-up when the last copy of the outer end is closed, in
 *             whatever process.
 *
 * We keep no copy of the outer end, and so can only work on it when the program comes with its
 * descriptor. It does whenever the queue becomes empty or a call gets blocked.
 */
#include "share.h"
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MARKS_MAX 32u

/*
 * Asked of the kernel directly: the preload library has functions of the usual names that come
 * here.
 */
static ssize_t take(int fd, void *buf, size_t len)
{
	return syscall(SYS_recvfrom, fd, buf, len, MSG_DONTWAIT, NULL, NULL);
}

static ssize_t give(int fd, const void *buf, size_t len)
{
	return syscall(SYS_sendto, fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
}

int aph_afrx_pair_new(int *outer, int *inner, uint64_t *cookie, int flags)
{
	int ends[2], least = 1, r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return -errno;
	r = aph_afrx_name_inner(ends[1]);
	if (r == 0)
		r = aph_afrx_cookie(ends[0], cookie);
	if (r == 0 && setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)) < 0)
		r = -errno;
	if (r == 0 && !(flags & SOCK_NONBLOCK)) {
		int off = 0;

		if (ioctl(ends[0], FIONBIO, &off) < 0)
			r = -errno;
	}
	if (r == 0 && !(flags & SOCK_CLOEXEC) && fcntl(ends[0], F_SETFD, 0) < 0)
		r = -errno;
	if (r < 0) {
		(void)close(ends[0]);
		(void)close(ends[1]);
		return r;
	}
	*outer = ends[0];
	*inner = ends[1];
	return 0;
}

bool aph_afrx_is_closed(const struct aph_afrx_socket *s)
{
	struct pollfd poller = { .fd = s->inner };

	return poll(&poller, 1, 0) == 1 && (poller.revents & POLLHUP);
}

void aph_afrx_mark(struct aph_afrx_socket *s)
{
	/* Somebody who sleeps in recvmsg() will take it, and see to the rest. */
	if (s->n_readers || s->marks >= MARKS_MAX)
		return;
	if (give(s->inner, "", 1) == 1)
		s->marks++;
}

bool aph_afrx_is_outer(const struct aph_afrx_socket *s, int fd)
{
	uint64_t cookie;

	return fd >= 0 && aph_afrx_cookie(fd, &cookie) == 0 && cookie == s->cookie;
}

static void unmark(struct aph_afrx_socket *s, int fd, unsigned n)
{
	char buf[MARKS_MAX];
	ssize_t r;

	if (!aph_afrx_is_outer(s, fd))
		return;
	r = take(fd, buf, n);
	s->marks = r > 0 && (unsigned)r < s->marks ? s->marks - (unsigned)r : 0;
}

void aph_afrx_settle(struct aph_afrx_socket *s, int fd)
{
	if (aph_afrx_list_empty(&s->queue)) {
		if (s->marks)
			unmark(s, fd, s->marks);
	} else if (s->marks == 0) {
		aph_afrx_mark(s);
	} else if (s->marks > MARKS_MAX / 2) {
		unmark(s, fd, s->marks - 1);
	}
}

void aph_afrx_settle_room(struct aph_afrx_socket *s, int fd)
{
	uint64_t held = (uint64_t)s->n_blocked * APH_AFRX_SEND_MAX;
	uint64_t allowed = (uint64_t)(s->send_buffer ? s->send_buffer : APH_AFRX_BUFFER_DEFAULT);
	static const char filling[2048];
	char buf[4096];

	if (held >= allowed && !s->full) {
		if (aph_afrx_is_outer(s, fd) && give(fd, filling, sizeof(filling)) > 0)
			s->full = true;
	} else if (held < allowed && s->full) {
		while (take(s->inner, buf, sizeof(buf)) > 0)
			;
		s->full = false;
	}
}
