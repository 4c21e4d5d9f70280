/* SPDX-License-Identifier: MIT */
/* Messages with descriptors. See hello.h. */
#include "base/close.h"
#include "local/hello.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

ssize_t aph_hello_recvmsg(int sock, struct msghdr *msg)
{
	size_t room = msg->msg_controllen;
	ssize_t n = recvmsg(sock, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && errno == ECONNRESET) {
		msg->msg_controllen = room;
		n = recvmsg(sock, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	}
	return n;
}

static void take(struct aph_hello_message *message, struct cmsghdr *cmsg, bool *too_many)
{
	size_t size = cmsg->cmsg_len - CMSG_LEN(0), i;

	if (cmsg->cmsg_level != SOL_SOCKET)
		return;
	if (cmsg->cmsg_type == SCM_CREDENTIALS && size >= sizeof(message->cred)) {
		memcpy(&message->cred, CMSG_DATA(cmsg), sizeof(message->cred));
		message->has_cred = true;
	}
	if (cmsg->cmsg_type != SCM_RIGHTS)
		return;
	for (i = 0; i < size / sizeof(int); i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
		if (message->n_fds < APH_HELLO_FDS_MAX) {
			message->fds[message->n_fds++] = fd;
		} else {
			aph_close_received(message->whose, &fd, 1);
			*too_many = true;
		}
	}
}

static uid_t sender_of(int sock)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 ? cred.uid
									   : APH_CLOSE_ANYBODY;
}

int aph_hello_recv(int sock, void *buf, size_t max, struct aph_hello_message *message)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * APH_HELLO_FDS_MAX) +
			   CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = max };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
	};
	struct cmsghdr *cmsg;
	bool too_many = false;
	ssize_t n;

	memset(message, 0, sizeof(*message));
	message->whose = sender_of(sock);
	/* The credentials come first, as they were asked for. */
	msg.msg_controllen = aph_close_has_room(message->whose) ? sizeof(control.space)
								: CMSG_SPACE(sizeof(struct ucred));
	n = aph_hello_recvmsg(sock, &msg);
	if (n < 0)
		return -errno;
	for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg))
		take(message, cmsg, &too_many);
	message->len = (size_t)n;
	if (too_many || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		/* Cut off although there was room: it is this process that can hold no more. */
		bool own_limit = !too_many && message->n_fds < APH_HELLO_FDS_MAX &&
				 (msg.msg_flags & MSG_CTRUNC);

		aph_close_received(message->whose, message->fds, message->n_fds);
		message->n_fds = 0;
		return own_limit ? -EMFILE : -EPROTO;
	}
	return 0;
}

int aph_hello_send(int sock, const void *buf, size_t len, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * APH_HELLO_FDS_MAX)];
	} control;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *cmsg;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n_fds);
	}
	if (sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	return 0;
}
