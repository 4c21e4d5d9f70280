/* SPDX-License-Identifier: MIT */
/* The states of a socket: socket, bind, connect, listen, shutdown, close. */
#include "share.h"
#include "socket.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

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
	aph_afrx_reap_sometimes();
	return (int)aph_afrx_result(aph_afrx_put(s, fd));
}

/* -- bind -------------------------------------------------------------------------------------- */

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
	if (r == 0)
		r = aph_afrx_serve(s);
	if (r < 0) {
		s->n_services = 0;
		/* Last, as it may let go of the lock. */
		if (s->endpoint)
			aph_afrx_endpoint_part(s);
		return r;
	}
	s->state = name->service ? APH_AFRX_SERVER_BOUND : APH_AFRX_CLIENT_BOUND;
	return 0;
}

static int bind_second(struct aph_afrx_socket *s, const struct aph_afrx_name *name)
{
	int r;

	if (!aph_rx_address_equal(&name->address, &s->endpoint->asked) &&
	    !aph_rx_address_equal(&name->address, &s->endpoint->local))
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

static int bind_now(struct aph_afrx_socket *s, const struct aph_afrx_name *name)
{
	if (s->moved)
		return -EREMOTE;
	if (s->state == APH_AFRX_UNBOUND)
		return bind_first(s, name);
	if (s->state == APH_AFRX_SERVER_BOUND)
		return bind_second(s, name);
	return -EINVAL;
}

static int bind_to(struct aph_afrx_socket *s, const struct sockaddr *address, socklen_t len)
{
	struct aph_afrx_name name;
	int r;

	r = aph_afrx_name_read(&name, s->family, address, len);
	if (r == 0)
		r = bind_now(s, &name);
	if (r != -EADDRINUSE)
		return r;
	/*
	 * What was closed without a word gives its address free. That may let go of the lock: the
	 * state is looked at again.
	 */
	aph_afrx_reap();
	return bind_now(s, &name);
}

APH_API int aph_rxrpc_bind(int fd, const struct sockaddr *address, socklen_t len)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get(&s, fd);

	if (r == 0)
		r = (int)aph_afrx_put(s, bind_to(s, address, len));
	return r == -EREMOTE ? aph_afrx_remote_bind(fd, address, len) : (int)aph_afrx_result(r);
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

/* -- connect, listen, shutdown ----------------------------------------------------------------- */

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

	if (r == -EREMOTE)
		return aph_afrx_remote_connect(fd, address, len);
	if (r < 0)
		return (int)aph_afrx_result(r);
	return (int)aph_afrx_result(aph_afrx_put(s, connect_to(s, address, len)));
}

/* New calls are refused; those that were accepted go on. `fd` is the program's. */
static void refuse(struct aph_afrx_socket *s, int fd, enum aph_afrx_state state)
{
	s->state = state;
	while (s->n_charged)
		aph_afrx_call_free(
			APH_AFRX_OF(aph_afrx_list_pop(&s->charged), struct aph_afrx_call, place));
	while (s->n_waiting)
		aph_afrx_call_free(
			APH_AFRX_OF(aph_afrx_list_pop(&s->waiting), struct aph_afrx_call, place));
	aph_afrx_set_credit(s);
	aph_afrx_settle(s, fd);
	if (s->endpoint)
		aph_afrx_endpoint_push(s->endpoint);
}

static int listen_to(struct aph_afrx_socket *s, int fd, int backlog)
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
		refuse(s, fd, APH_AFRX_DISABLED);
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

	if (r == -EREMOTE)
		return aph_afrx_remote_listen(fd, backlog);
	if (r < 0)
		return (int)aph_afrx_result(r);
	return (int)aph_afrx_result(aph_afrx_put(s, listen_to(s, fd, backlog)));
}

APH_API int aph_rxrpc_shutdown(int fd, int how)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get(&s, fd);

	if (r == -EREMOTE)
		return aph_afrx_remote_shutdown(fd, how);
	if (r < 0)
		return (int)aph_afrx_result(r);
	if (how != SHUT_RDWR)
		r = -EOPNOTSUPP;
	else if (s->state == APH_AFRX_SHUT)
		r = -ESHUTDOWN;
	else
		refuse(s, fd, APH_AFRX_SHUT);
	return (int)aph_afrx_result(aph_afrx_put(s, r));
}

APH_API int aph_rxrpc_close(int fd)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get(&s, fd);

	if (r == -EREMOTE)
		return aph_afrx_remote_close(fd);
	if (r < 0)
		return (int)aph_afrx_result(r);
	if (syscall(SYS_close, fd) < 0)
		return (int)aph_afrx_result(aph_afrx_put(s, -errno));
	if (aph_afrx_is_closed(s))
		s->hung_up = true;
	return (int)aph_afrx_result(aph_afrx_put(s, 0));
}
