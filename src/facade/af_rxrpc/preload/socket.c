/* SPDX-License-Identifier: MIT */
/* Making, naming and closing sockets; options. */
/* The functions that are defined here are not to be the checked forms of themselves. */
#undef _FORTIFY_SOURCE

#include "preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/rxrpc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

uintptr_t aph_afrx_next(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (!found) {
		(void)fprintf(stderr, "libafrxrpc-preload: there is no function %s\n", name);
		abort();
	}
	return (uintptr_t)found;
}

static int fail(int error)
{
	errno = error;
	return -1;
}

/* -- sockets ----------------------------------------------------------------------------------- */

APH_API int socket(int domain, int type, int protocol)
{
	APH_AFRX_REAL(socket);

	return domain == AF_RXRPC ? aph_rxrpc_socket(domain, type, protocol)
				  : real(domain, type, protocol);
}

APH_API int socketpair(int domain, int type, int protocol, int fds[2])
{
	APH_AFRX_REAL(socketpair);

	return domain == AF_RXRPC ? fail(EOPNOTSUPP) : real(domain, type, protocol, fds);
}

APH_API int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t len)
{
	APH_AFRX_REAL(bind);

	return aph_rxrpc_is_socket(fd) ? aph_rxrpc_bind(fd, address.__sockaddr__, len)
				       : real(fd, address, len);
}

APH_API int connect(int fd, __CONST_SOCKADDR_ARG address, socklen_t len)
{
	APH_AFRX_REAL(connect);

	return aph_rxrpc_is_socket(fd) ? aph_rxrpc_connect(fd, address.__sockaddr__, len)
				       : real(fd, address, len);
}

APH_API int listen(int fd, int backlog)
{
	APH_AFRX_REAL(listen);

	return aph_rxrpc_is_socket(fd) ? aph_rxrpc_listen(fd, backlog) : real(fd, backlog);
}

APH_API int accept(int fd, __SOCKADDR_ARG address, socklen_t *len)
{
	APH_AFRX_REAL(accept);

	return aph_rxrpc_is_socket(fd) ? fail(EOPNOTSUPP) : real(fd, address, len);
}

APH_API int accept4(int fd, __SOCKADDR_ARG address, socklen_t *len, int flags)
{
	APH_AFRX_REAL(accept4);

	return aph_rxrpc_is_socket(fd) ? fail(EOPNOTSUPP) : real(fd, address, len, flags);
}

APH_API int getsockname(int fd, __SOCKADDR_ARG address, socklen_t *len)
{
	APH_AFRX_REAL(getsockname);

	return aph_rxrpc_is_socket(fd) ? fail(EOPNOTSUPP) : real(fd, address, len);
}

APH_API int getpeername(int fd, __SOCKADDR_ARG address, socklen_t *len)
{
	APH_AFRX_REAL(getpeername);

	return aph_rxrpc_is_socket(fd) ? fail(EOPNOTSUPP) : real(fd, address, len);
}

APH_API int shutdown(int fd, int how)
{
	APH_AFRX_REAL(shutdown);

	return aph_rxrpc_is_socket(fd) ? aph_rxrpc_shutdown(fd, how) : real(fd, how);
}

APH_API int close(int fd)
{
	APH_AFRX_REAL(close);

	return aph_rxrpc_is_socket(fd) ? aph_rxrpc_close(fd) : real(fd);
}

/* -- options ----------------------------------------------------------------------------------- */

APH_API int setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	APH_AFRX_REAL(setsockopt);

	return aph_rxrpc_is_socket(fd) ? aph_rxrpc_setsockopt(fd, level, option, value, len)
				       : real(fd, level, option, value, len);
}

APH_API int getsockopt(int fd, int level, int option, void *value, socklen_t *len)
{
	APH_AFRX_REAL(getsockopt);

	return aph_rxrpc_is_socket(fd) ? aph_rxrpc_getsockopt(fd, level, option, value, len)
				       : real(fd, level, option, value, len);
}

/* What every descriptor can do, the pair's end does too. */
static bool is_generic(unsigned long request)
{
	return request == FIONBIO || request == FIOASYNC || request == FIOCLEX ||
	       request == FIONCLEX;
}

APH_API int ioctl(int fd, unsigned long request, ...)
{
	APH_AFRX_REAL(ioctl);
	va_list list;
	void *arg;

	va_start(list, request);
	/*
	 * clang-tidy 14 takes no note of the line above.
	 * NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized)
	 */
	arg = va_arg(list, void *);
	va_end(list);
	if (!is_generic(request) && aph_rxrpc_is_socket(fd))
		return fail(EOPNOTSUPP);
	return real(fd, request, arg);
}
