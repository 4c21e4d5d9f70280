/* SPDX-License-Identifier: MIT */
/*
 * The low-level interface: one message on a connected socket, in as many system calls as it takes.
 */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

APH_API int afdt_connect(const char *fname, struct afdt_error_t *err)
{
	struct aph_afdt_address address;
	int sock;

	if (aph_afdt_address_set(&address, fname, err) < 0)
		return -1;
	sock = aph_afdt_socket(0, err);
	if (sock < 0)
		return -1;
	if (connect(sock, (const struct sockaddr *)&address.un, address.len) < 0) {
		(void)aph_afdt_fail(err, AFDT_CONNECT, errno, "cannot connect to the path");
		aph_afdt_close(sock);
		return -1;
	}
	return sock;
}

/* -- sending ----------------------------------------------------------------------------------- */

APH_API int aph_afdt_send_msg(int connfd, const struct aph_afdt_message *message,
			      struct afdt_error_t *err)
{
	struct pollfd poller = { .fd = connfd, .events = POLLOUT };
	struct aph_afdt_outgo out;
	int r = aph_afdt_outgo_init(&out, message, false, err);

	if (r < 0)
		return r;
	while ((r = aph_afdt_outgo_write(&out, connfd, 0)) <= 0) {
		if (r == 0 || (r == -EINTR && out.sent))
			continue;
		if (r != -EAGAIN || !out.sent)
			return aph_afdt_fail(err, AFDT_SENDMSG, -r, "cannot send the message");
		/* Half a message cannot be taken back. */
		(void)poll(&poller, 1, -1);
	}
	return 0;
}

APH_API int afdt_send_fd_msg(int connfd, const uint8_t *content, uint32_t content_len,
			     int fd_to_send, struct afdt_error_t *err)
{
	const struct aph_afdt_message message = {
		.body = content,
		.len = content_len,
		.fds = &fd_to_send,
		.n_fds = fd_to_send >= 0,
	};

	return aph_afdt_send_msg(connfd, &message, err) < 0 ? -1 : 0;
}

APH_API int afdt_send_plain_msg(int connfd, const uint8_t *content, uint32_t content_len,
				struct afdt_error_t *err)
{
	return afdt_send_fd_msg(connfd, content, content_len, -1, err);
}

/* -- receiving --------------------------------------------------------------------------------- */

/* Up to which byte the message goes, as far as is known. */
static unsigned message_end(const struct aph_afdt_intake *in)
{
	return APH_AFDT_HEADER + (in->n < APH_AFDT_HEADER ? 0 : in->len);
}

/*
 * Looks past descriptors, at which a plain MSG_PEEK ends, for the whole message. True also if there
 * is no way to tell, or nothing more will come: reading will show.
 */
static bool is_here(int sock)
{
	struct aph_afdt_intake in;
	int from = 0, before = -1;
	socklen_t len = sizeof(before);
	ssize_t n = 0;

	if (getsockopt(sock, SOL_SOCKET, SO_PEEK_OFF, &before, &len) < 0 ||
	    setsockopt(sock, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof(from)) < 0)
		return true;
	aph_afdt_intake_init(&in);
	while (aph_afdt_intake_state(&in, NULL) == APH_AFDT_PART) {
		n = recv(sock, in.bytes + in.n, message_end(&in) - in.n, MSG_PEEK | MSG_DONTWAIT);
		if (n <= 0)
			break;
		in.n += (unsigned)n;
	}
	from = errno;
	(void)setsockopt(sock, SOL_SOCKET, SO_PEEK_OFF, &before, sizeof(before));
	return n >= 0 || from != EAGAIN;
}

/*
 * Whether to begin reading: 1; or -errno: there is nothing yet, or on a socket that does not block,
 * not all. Nothing is read, and only in the odd case is more than one system call made.
 */
static int await(int sock)
{
	struct aph_afdt_intake in;
	ssize_t n = recv(sock, in.bytes, sizeof(in.bytes), MSG_PEEK);

	if (n <= 0)
		return n < 0 ? -errno : 1;
	aph_afdt_intake_init(&in);
	in.n = (unsigned)n;
	if (n >= (ssize_t)APH_AFDT_HEADER &&
	    (aph_afdt_intake_state(&in, NULL) != APH_AFDT_PART || in.n >= message_end(&in)))
		return 1;
	if (fcntl(sock, F_GETFL) & O_NONBLOCK && !is_here(sock))
		return -EAGAIN;
	return 1;
}

static int receive(struct aph_afdt_intake *in, int sock, struct afdt_error_t *err)
{
	enum aph_afdt_intake_state state;
	ssize_t n = await(sock);

	if (n < 0)
		return aph_afdt_fail(err, AFDT_RECVMSG, (int)-n, "cannot receive a message");
	while ((state = aph_afdt_intake_state(in, err)) == APH_AFDT_PART) {
		n = aph_afdt_intake_read(in, sock, message_end(in));
		if (n == 0 && in->n == 0)
			return aph_afdt_fail(err, AFDT_RECVMSG, 0,
					     "the connection was closed, no message came");
		if (n == 0)
			return aph_afdt_fail(err, AFDT_FORMAT, 0,
					     "the connection was closed within a message");
		if (n < 0 && (n != -EINTR || in->n == 0))
			return aph_afdt_fail(err, AFDT_RECVMSG, (int)-n,
					     "cannot receive a message");
	}
	return state == APH_AFDT_WRONG ? (errno ? -errno : -EPROTO) : 0;
}

APH_API int aph_afdt_recv_msg(int connfd, struct aph_afdt_room *room, struct afdt_error_t *err)
{
	struct aph_afdt_intake in;
	int r;

	aph_afdt_intake_init(&in);
	r = receive(&in, connfd, err);
	if (r == 0)
		r = aph_afdt_intake_give(&in, room, err);
	aph_afdt_intake_deinit(&in);
	return r;
}

APH_API int afdt_recv_fd_msg(int connfd, uint8_t *content, uint32_t *content_len, int *received_fd,
			     struct afdt_error_t *err)
{
	struct aph_afdt_room room = { .body = content, .len = *content_len, .n_fds = 0 };
	int fd = -1;

	if (received_fd) {
		*received_fd = -1;
		room.fds = &fd;
		room.n_fds = 1;
	}
	if (aph_afdt_recv_msg(connfd, &room, err) < 0)
		return -1;
	*content_len = (uint32_t)room.len;
	if (received_fd)
		*received_fd = fd;
	return 0;
}

APH_API int afdt_recv_plain_msg(int connfd, uint8_t *content, uint32_t *content_len,
				struct afdt_error_t *err)
{
	return afdt_recv_fd_msg(connfd, content, content_len, NULL, err);
}

APH_API size_t aph_afdt_fds_max(int connfd)
{
	struct sockaddr_un peer;
	socklen_t len = sizeof(peer);
	const char *mark;

	memset(&peer, 0, sizeof(peer));
	if (getpeername(connfd, (struct sockaddr *)&peer, &len) < 0 || peer.sun_family != AF_UNIX)
		return 0;
	/* A name may fill all of it. */
	peer.sun_path[sizeof(peer.sun_path) - 1] = 0;
	mark = strstr(peer.sun_path, APH_AFDT_MARK);
	return mark && !strchr(mark + sizeof(APH_AFDT_MARK) - 1, '/') ? APH_AFDT_FDS_MAX : 0;
}
