/* SPDX-License-Identifier: MIT */
/* The states of a socket: socket, bind, connect, listen, shutdown, close, and what a forked child can do. */
#include "socket.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define ADOPT_TRIES 100 /* of 10 ms: as long a child waits for its parent to let go of a port */

APH_API int aph_rxrpc_socket(int domain, int type, int protocol)
{
	int flags = type & (SOCK_CLOEXEC | SOCK_NONBLOCK), fd, r;
	struct aph_afrx_socket *s;

	if (domain != AF_RXRPC)
		return (int)aph_afrx_result(-EAFNOSUPPORT);
	if (protocol != PF_INET && protocol != PF_INET6)
		return (int)aph_afrx_result(-EPROTONOSUPPORT);
	if ((type & ~flags) != SOCK_DGRAM)
		return (int)aph_afrx_result(-ESOCKTNOSUPPORT);
	r = aph_afrx_socket_new(&s, &fd, flags);
	if (r < 0)
		return (int)aph_afrx_result(r);
	s->family = protocol;
	aph_afrx_reap();
	return (int)aph_afrx_put(s, fd);
}

/* -- bind --------------------------------------------------------------------------------------------------- */

static int serve_one(struct aph_afrx_socket *s, unsigned i)
{
	struct aph_rx_service_options options = {
		.size = sizeof(options),
		.data = s,
		.upgrade_to = s->services[i] == s->upgrade_from ? s->upgrade_to : 0,
	};
	int r;

	/* Others of the process may have the port too, in engines of their own. */
	r = aph_rx_udp_claim(s->endpoint->udp, s->services[i]);
	if (r < 0)
		return r;
	r = aph_rx_service_add(&s->rx_services[i], s->endpoint->rx, s->services[i], &options);
	if (r == 0)
		aph_rx_service_set_credit(s->rx_services[i], 0);
	else if (r != -EADDRINUSE)
		aph_rx_udp_release(s->endpoint->udp, s->services[i]);
	return r;
}

void aph_afrx_unserve(struct aph_afrx_socket *s)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		if (!s->rx_services[i])
			continue;
		s->rx_services[i] = aph_rx_service_remove(s->rx_services[i]);
		aph_rx_udp_release(s->endpoint->udp, s->services[i]);
	}
}

int aph_afrx_serve(struct aph_afrx_socket *s)
{
	unsigned i;
	int r = 0;

	/* Added anew when it gets an upgrade: nobody can have called yet. */
	aph_afrx_unserve(s);
	for (i = 0; r == 0 && i < s->n_services; i++)
		r = serve_one(s, i);
	if (r == 0)
		aph_afrx_set_credit(s);
	return r;
}

static int bind_first(struct aph_afrx_socket *s, const struct aph_afrx_name *name)
{
	int r;

	s->n_services = name->service ? 1 : 0;
	s->services[0] = name->service;
	r = aph_afrx_endpoint_join(s, &name->address);
	if (r == 0) {
		r = aph_afrx_serve(s);
		if (r < 0)
			aph_afrx_endpoint_part(s);
	}
	if (r < 0) {
		s->n_services = 0;
		return r;
	}
	s->state = name->service ? APH_AFRX_SERVER_BOUND : APH_AFRX_CLIENT_BOUND;
	return 0;
}

static int bind_second(struct aph_afrx_socket *s, const struct aph_afrx_name *name)
{
	int r;

	if (!aph_afrx_address_equal(&name->address, &s->endpoint->asked) &&
	    !aph_afrx_address_equal(&name->address, &s->endpoint->local))
		return -EINVAL;
	if (name->service == 0)
		return -EINVAL;
	if (name->service == s->services[0])
		return -EADDRINUSE;
	s->services[1] = name->service;
	r = serve_one(s, 1);
	if (r < 0)
		return r;
	s->n_services = 2;
	s->state = APH_AFRX_SERVER_BOUND2;
	return 0;
}

static int bind_to(struct aph_afrx_socket *s, const struct sockaddr *address, socklen_t len)
{
	struct aph_afrx_name name;
	int r;

	r = aph_afrx_name_read(&name, s->family, address, len);
	if (r < 0)
		return r;
	if (s->state == APH_AFRX_UNBOUND)
		return bind_first(s, &name);
	if (s->state == APH_AFRX_SERVER_BOUND)
		return bind_second(s, &name);
	return -EINVAL;
}

APH_API int aph_rxrpc_bind(int fd, const struct sockaddr *address, socklen_t len)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get(&s, fd);

	if (r < 0)
		return (int)aph_afrx_result(r);
	return (int)aph_afrx_put(s, bind_to(s, address, len));
}

int aph_afrx_autobind(struct aph_afrx_socket *s)
{
	struct aph_rx_address any = { .in = { .sin_family = AF_INET } };
	int r;

	if (s->family == PF_INET6)
		any.in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6 };
	r = aph_afrx_endpoint_join(s, &any);
	if (r == 0)
		s->state = APH_AFRX_CLIENT_BOUND;
	return r;
}

/* -- connect, listen, shutdown ----------------------------------------------------------------------------------- */

static int connect_to(struct aph_afrx_socket *s, const struct sockaddr *address, socklen_t len)
{
	struct aph_afrx_name name;
	int r;

	r = aph_afrx_name_read(&name, s->family, address, len);
	if (r < 0)
		return r;
	if (s->state > APH_AFRX_CLIENT_BOUND)
		return -EBUSY;
	if (s->connected)
		return -EISCONN;
	s->connected = true;
	s->peer = name.address;
	s->peer_service = name.service;
	if (s->state == APH_AFRX_UNBOUND)
		s->state = APH_AFRX_CLIENT_UNBOUND;
	return 0;
}

APH_API int aph_rxrpc_connect(int fd, const struct sockaddr *address, socklen_t len)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get(&s, fd);

	if (r < 0)
		return (int)aph_afrx_result(r);
	return (int)aph_afrx_put(s, connect_to(s, address, len));
}

/* New calls are refused; those that were accepted go on. */
static void refuse(struct aph_afrx_socket *s, enum aph_afrx_state state)
{
	s->state = state;
	while (s->n_charged)
		aph_afrx_call_free(
			APH_AFRX_OF(aph_afrx_list_pop(&s->charged), struct aph_afrx_call, place));
	while (s->n_waiting)
		aph_afrx_call_free(
			APH_AFRX_OF(aph_afrx_list_pop(&s->waiting), struct aph_afrx_call, place));
	aph_afrx_set_credit(s);
	if (s->endpoint)
		aph_afrx_endpoint_push(s->endpoint);
}

static int listen_to(struct aph_afrx_socket *s, int backlog)
{
	unsigned max = aph_afrx_tunable("max_backlog");

	switch (s->state) {
	case APH_AFRX_UNBOUND:
	case APH_AFRX_CLIENT_UNBOUND:
		return -EADDRNOTAVAIL;
	case APH_AFRX_SERVER_BOUND:
	case APH_AFRX_SERVER_BOUND2:
		s->backlog = backlog < 0 || (unsigned)backlog > max ? max : (unsigned)backlog;
		s->state = APH_AFRX_LISTENING;
		aph_afrx_set_credit(s);
		return 0;
	case APH_AFRX_LISTENING:
		if (backlog != 0)
			return -EBUSY;
		refuse(s, APH_AFRX_DISABLED);
		return 0;
	case APH_AFRX_CLIENT_BOUND:
	case APH_AFRX_DISABLED:
	case APH_AFRX_SHUT:
		break;
	}
	return -EBUSY;
}

APH_API int aph_rxrpc_listen(int fd, int backlog)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get(&s, fd);

	if (r < 0)
		return (int)aph_afrx_result(r);
	return (int)aph_afrx_put(s, listen_to(s, backlog));
}

APH_API int aph_rxrpc_shutdown(int fd, int how)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get(&s, fd);

	if (r < 0)
		return (int)aph_afrx_result(r);
	if (how != SHUT_RDWR)
		r = -EOPNOTSUPP;
	else if (s->state == APH_AFRX_SHUT)
		r = -ESHUTDOWN;
	else
		refuse(s, APH_AFRX_SHUT);
	return (int)aph_afrx_put(s, r);
}

/* -- the descriptors of this process ------------------------------------------------------------------------------ */

/* Calls `visit` for each descriptor of the socket but `except`. Returns how many there are. */
static int for_each_descriptor(uint64_t cookie, int except, void (*visit)(int fd, int arg), int arg)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int n = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		char *rest;
		long fd = strtol(entry->d_name, &rest, 10);
		uint64_t other;

		if (*rest || rest == entry->d_name || fd == except ||
		    aph_afrx_cookie((int)fd, &other) < 0 || other != cookie)
			continue;
		n++;
		if (visit)
			visit((int)fd, arg);
	}
	(void)closedir(dir);
	return n;
}

APH_API int aph_rxrpc_close(int fd)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get_as_is(&s, fd);
	bool last;

	if (r < 0)
		return (int)aph_afrx_result(r);
	/* A child may keep a copy: then no hang-up says that this process has none any more. */
	last = s->copied && for_each_descriptor(s->cookie, fd, NULL, 0) == 0;
	if (close(fd) < 0)
		return (int)aph_afrx_put(s, -errno);
	if (last || aph_afrx_is_closed(s))
		s->hung_up = true;
	return (int)aph_afrx_put(s, 0);
}

/* -- after fork ---------------------------------------------------------------------------------------------------- */

static void replace(int fd, int outer)
{
	int flags = fcntl(fd, F_GETFD);

	(void)dup3(outer, fd, flags > 0 && (flags & FD_CLOEXEC) ? O_CLOEXEC : 0);
}

/* What the kernel keeps for the old pair. */
static void copy_options(int from, int to)
{
	static const int options[] = { SO_RCVTIMEO, SO_SNDTIMEO };
	int flags = fcntl(from, F_GETFL);
	struct timeval time;
	socklen_t len;
	size_t i;

	if (flags >= 0)
		(void)fcntl(to, F_SETFL, flags);
	for (i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		len = sizeof(time);
		if (getsockopt(from, SOL_SOCKET, options[i], &time, &len) == 0)
			(void)setsockopt(to, SOL_SOCKET, options[i], &time, len);
	}
}

/* The parent goes on with the pair there was, this process with one of its own, under the same numbers. */
static int renew_pair(struct aph_afrx_socket *s, int fd)
{
	uint64_t cookie;
	int outer, inner, r;

	r = aph_afrx_pair_new(&outer, &inner, &cookie, SOCK_CLOEXEC);
	if (r < 0)
		return r;
	copy_options(fd, outer);
	(void)for_each_descriptor(s->cookie, fd, replace, outer);
	replace(fd, outer);
	(void)close(outer);
	(void)close(s->inner);
	s->inner = inner;
	s->marks = 0;
	s->full = s->copied = false;
	aph_afrx_socket_rehash(s, cookie);
	return 0;
}

static int rejoin(struct aph_afrx_socket *s)
{
	struct timespec pause = { .tv_nsec = 10000000 };
	struct aph_rx_address bound = s->bound;
	int i, r = -EADDRINUSE;

	for (i = 0; i < ADOPT_TRIES && r == -EADDRINUSE && !s->endpoint; i++) {
		if (i > 0) {
			aph_afrx_leave();
			(void)nanosleep(&pause, NULL);
			aph_afrx_enter();
		}
		r = aph_afrx_endpoint_join(s, &bound);
	}
	return r;
}

int aph_afrx_adopt(struct aph_afrx_socket *s, int fd)
{
	int r;

	if (s->adopting)
		return -ENOTCONN;
	r = renew_pair(s, fd);
	if (r == 0 && s->bound.family) {
		s->adopting = true;
		r = rejoin(s);
		s->adopting = false;
		if (r == 0)
			r = aph_afrx_serve(s);
		if (r < 0 && s->endpoint)
			aph_afrx_endpoint_part(s);
		r = r < 0 ? -ENOTCONN : 0;
	}
	s->inherited = r < 0;
	return r;
}
