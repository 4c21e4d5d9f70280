/* SPDX-License-Identifier: MIT */
/* Sending and receiving: every form of it is a sendmsg() or a recvmsg(). */
/* The functions that are defined here are not to be the checked forms of themselves. */
#undef _FORTIFY_SOURCE

#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

/* -- what never comes to the socket ------------------------------------------------------------ */

/* send() and recv() take of too much what they can; read() and write() say EFAULT. */
static size_t clip(size_t len)
{
	return len < SSIZE_MAX ? len : SSIZE_MAX;
}

/* Nothing is wanted of any piece. Of a pointer that leads nowhere the library tells. */
static bool is_empty(const struct iovec *iov, int n)
{
	for (int i = 0; i < n; i++) {
		struct iovec piece, to = { &piece, sizeof(piece) };
		struct iovec from = { (void *)(uintptr_t)&iov[i], sizeof(piece) };

		if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != sizeof(piece) ||
		    piece.iov_len)
			return false;
	}
	return true;
}

/* Whether the kernel does it without the socket: it is refused, or 0. */
static bool is_idle(const struct iovec *iov, int n)
{
	return n < 0 || n > IOV_MAX || is_empty(iov, n);
}

/* -- sending ----------------------------------------------------------------------------------- */

/* Without control messages it cannot say for which call: the library tells the error. */
static ssize_t send_vector(int fd, const struct iovec *iov, size_t n, int flags,
			   const struct sockaddr *name, socklen_t name_len)
{
	struct msghdr message = {
		.msg_name = (void *)(uintptr_t)name,
		.msg_namelen = name ? name_len : 0,
		.msg_iov = (struct iovec *)(uintptr_t)iov,
		.msg_iovlen = n,
	};

	return aph_rxrpc_sendmsg(fd, &message, flags);
}

APH_API ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	APH_AFRX_REAL(sendmsg);

	return aph_rxrpc_is_socket(fd) ? aph_rxrpc_sendmsg(fd, message, flags)
				       : real(fd, message, flags);
}

APH_API int sendmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags)
{
	APH_AFRX_REAL(sendmmsg);
	unsigned i;
	ssize_t r;

	if (!aph_rxrpc_is_socket(fd))
		return real(fd, messages, n, flags);
	if (n > IOV_MAX)
		n = IOV_MAX; /* as the kernel has it */
	for (i = 0; i < n; i++) {
		r = aph_rxrpc_sendmsg(fd, &messages[i].msg_hdr, flags);
		if (r < 0)
			return i ? (int)i : -1;
		messages[i].msg_len = (unsigned)r;
	}
	return (int)n;
}

APH_API ssize_t sendto(int fd, const void *data, size_t len, int flags, __CONST_SOCKADDR_ARG name,
		       socklen_t name_len)
{
	APH_AFRX_REAL(sendto);
	struct iovec iov = { (void *)(uintptr_t)data, clip(len) };

	return aph_rxrpc_is_socket(fd)
		       ? send_vector(fd, &iov, 1, flags, name.__sockaddr__, name_len)
		       : real(fd, data, len, flags, name, name_len);
}

APH_API ssize_t send(int fd, const void *data, size_t len, int flags)
{
	APH_AFRX_REAL(send);
	struct iovec iov = { (void *)(uintptr_t)data, clip(len) };

	return aph_rxrpc_is_socket(fd) ? send_vector(fd, &iov, 1, flags, NULL, 0)
				       : real(fd, data, len, flags);
}

APH_API ssize_t write(int fd, const void *data, size_t len)
{
	APH_AFRX_REAL(write);
	struct iovec iov = { (void *)(uintptr_t)data, len };

	return len <= SSIZE_MAX && aph_rxrpc_is_socket(fd) ? send_vector(fd, &iov, 1, 0, NULL, 0)
							   : real(fd, data, len);
}

APH_API ssize_t writev(int fd, const struct iovec *iov, int n)
{
	APH_AFRX_REAL(writev);

	if (!aph_rxrpc_is_socket(fd) || is_idle(iov, n))
		return real(fd, iov, n);
	return send_vector(fd, iov, (size_t)n, 0, NULL, 0);
}

/* -- receiving --------------------------------------------------------------------------------- */

static ssize_t receive_vector(int fd, const struct iovec *iov, size_t n, int flags,
			      struct sockaddr *name, socklen_t *name_len)
{
	struct msghdr message = {
		.msg_name = name,
		.msg_iov = (struct iovec *)(uintptr_t)iov,
		.msg_iovlen = n,
	};
	ssize_t r;

	if (name && !name_len) {
		errno = EFAULT;
		return -1;
	}
	if (name)
		message.msg_namelen = *name_len;
	r = aph_rxrpc_recvmsg(fd, &message, flags);
	if (r >= 0 && name)
		*name_len = message.msg_namelen;
	return r;
}

APH_API ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	APH_AFRX_REAL(recvmsg);

	return aph_rxrpc_is_socket(fd) ? aph_rxrpc_recvmsg(fd, message, flags)
				       : real(fd, message, flags);
}

/* A time limit is looked at between two messages, as the system's own does. */
static bool is_over(const struct timespec *limit, uint64_t start_ns)
{
	return limit && aph_time_ns() - start_ns >=
				(uint64_t)limit->tv_sec * 1000000000 + (uint64_t)limit->tv_nsec;
}

APH_API int recvmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags,
		     struct timespec *timeout)
{
	APH_AFRX_REAL(recvmmsg);
	uint64_t start_ns;
	unsigned i;
	ssize_t r;

	if (!aph_rxrpc_is_socket(fd))
		return real(fd, messages, n, flags, timeout);
	if (timeout &&
	    (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)) {
		errno = EINVAL;
		return -1;
	}
	start_ns = aph_time_ns();
	for (i = 0; i < n && !(i && is_over(timeout, start_ns)); i++) {
		r = aph_rxrpc_recvmsg(fd, &messages[i].msg_hdr, flags & ~MSG_WAITFORONE);
		if (r < 0)
			return i ? (int)i : -1;
		messages[i].msg_len = (unsigned)r;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
	}
	return (int)i;
}

APH_API ssize_t recvfrom(int fd, void *data, size_t len, int flags, __SOCKADDR_ARG name,
			 socklen_t *name_len)
{
	APH_AFRX_REAL(recvfrom);
	struct iovec iov = { data, clip(len) };

	return aph_rxrpc_is_socket(fd)
		       ? receive_vector(fd, &iov, 1, flags, name.__sockaddr__, name_len)
		       : real(fd, data, len, flags, name, name_len);
}

APH_API ssize_t recv(int fd, void *data, size_t len, int flags)
{
	APH_AFRX_REAL(recv);
	struct iovec iov = { data, clip(len) };

	return aph_rxrpc_is_socket(fd) ? receive_vector(fd, &iov, 1, flags, NULL, NULL)
				       : real(fd, data, len, flags);
}

APH_API ssize_t read(int fd, void *data, size_t len)
{
	APH_AFRX_REAL(read);
	struct iovec iov = { data, len };

	if (len > SSIZE_MAX || !aph_rxrpc_is_socket(fd))
		return real(fd, data, len);
	return len ? receive_vector(fd, &iov, 1, 0, NULL, NULL) : 0;
}

APH_API ssize_t readv(int fd, const struct iovec *iov, int n)
{
	APH_AFRX_REAL(readv);

	if (!aph_rxrpc_is_socket(fd) || is_idle(iov, n))
		return real(fd, iov, n);
	return receive_vector(fd, iov, (size_t)n, 0, NULL, NULL);
}

/* -- past the messages: what these sockets do not have ----------------------------------------- */

static ssize_t refuse(void)
{
	errno = EOPNOTSUPP;
	return -1;
}

APH_API ssize_t sendfile(int out, int in, off_t *offset, size_t len)
{
	APH_AFRX_REAL(sendfile);

	return aph_rxrpc_is_socket(out) || aph_rxrpc_is_socket(in) ? refuse()
								   : real(out, in, offset, len);
}

#if __SIZEOF_LONG__ == 8
/*
 * The one above may be called sendfile64; where numbers are long enough anyway, programs use either
 * name.
 */
#undef sendfile
ssize_t aph_afrx_sendfile(int out, int in, off_t *offset, size_t len) __asm__("sendfile");

APH_API ssize_t aph_afrx_sendfile(int out, int in, off_t *offset, size_t len)
{
	return sendfile64(out, in, offset, len);
}
#endif

APH_API ssize_t splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t len,
		       unsigned flags)
{
	APH_AFRX_REAL(splice);

	return aph_rxrpc_is_socket(out) || aph_rxrpc_is_socket(in)
		       ? refuse()
		       : real(in, in_offset, out, out_offset, len, flags);
}

/* -- what programs that were compiled with _FORTIFY_SOURCE call -------------------------------- */

ssize_t __read_chk(int fd, void *data, size_t len, size_t size);
ssize_t __recv_chk(int fd, void *data, size_t len, size_t size, int flags);
ssize_t __recvfrom_chk(int fd, void *data, size_t len, size_t size, int flags, __SOCKADDR_ARG name,
		       socklen_t *name_len);

APH_API ssize_t __read_chk(int fd, void *data, size_t len, size_t size)
{
	APH_AFRX_REAL(__read_chk);

	return len <= size && aph_rxrpc_is_socket(fd) ? read(fd, data, len)
						      : real(fd, data, len, size);
}

APH_API ssize_t __recv_chk(int fd, void *data, size_t len, size_t size, int flags)
{
	APH_AFRX_REAL(__recv_chk);

	return len <= size && aph_rxrpc_is_socket(fd) ? recv(fd, data, len, flags)
						      : real(fd, data, len, size, flags);
}

APH_API ssize_t __recvfrom_chk(int fd, void *data, size_t len, size_t size, int flags,
			       __SOCKADDR_ARG name, socklen_t *name_len)
{
	APH_AFRX_REAL(__recvfrom_chk);

	return len <= size && aph_rxrpc_is_socket(fd)
		       ? recvfrom(fd, data, len, flags, name, name_len)
		       : real(fd, data, len, size, flags, name, name_len);
}
