/* SPDX-License-Identifier: MIT */
/*
 * Messages on a socket: the first ones are whole structures, with descriptors and the sender's
 * credentials. Descriptors leave in the same way later on.
 */
#ifndef ANTIPHON_LOCAL_HELLO_H
#define ANTIPHON_LOCAL_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define APH_HELLO_FDS_MAX 64

struct aph_hello_message {
	size_t len;
	bool has_cred;
	struct ucred cred; /* as the kernel filled it in */
	uid_t whose;	   /* the user at the other end; APH_CLOSE_ANYBODY */
	size_t n_fds;
	int fds[APH_HELLO_FDS_MAX]; /* close-on-exec; the caller's */
};

/*
 * Receives one message of at most `max` bytes without waiting. 0 with len 0 at the end of the
 * stream; -EAGAIN, -EPROTO (it was cut off, or brought more descriptors than fit), -EMFILE (this
 * process has no room for what it brought), -errno.
 */
int aph_hello_recv(int sock, void *buf, size_t max, struct aph_hello_message *message);

/*
 * As recvmsg() without waiting. That a peer has closed with our messages unread is told once, ahead
 * of what it has sent, and is passed over.
 */
ssize_t aph_hello_recvmsg(int sock, struct msghdr *msg);

/* Sends one, with at most APH_HELLO_FDS_MAX descriptors, without waiting. 0 or -errno. */
int aph_hello_send(int sock, const void *buf, size_t len, const int *fds, size_t n_fds);

#endif
