/* SPDX-License-Identifier: MIT */
/*
 * Lines: sockets that only send, to the one peer that we send to most. The kernel remembers the way
 * of a connected socket, and looks it up for each datagram of another one: a twentieth of a small
 * call. Connecting the driver's own socket would save that, too, but then it would not hear others.
 *
 * A line sends from the address and port of the driver's socket and can never receive in its place:
 * it is bound to the same port of a multicast address, which the kernel compares arriving datagrams
 * with, but does not send from. Where from it sends, its first connection decides, for good. Nobody
 * joins that group: its address is one that is kept for documentation (RFC 6676).
 *
 * What the network says of a datagram is told at the driver's socket, by its addresses. Whatever
 * else happens to a line, the driver's own socket sends.
 */
#include "rx/address.h"
#include "udp/udp.h"

#include "base/fd.h"

#include <sys/time.h>

/* Datagrams in a row to one peer, before a line leads there. */
#define ROW_NEEDED 64

#define GROUP_V4 UINT32_C(0xe9fc0001) /* 233.252.0.1 */
#define GROUP_V6                                                       \
	{                                                              \
		.s6_addr = { 0xff, 0x0e, [10] = 0x0d, 0xb8, [15] = 1 } \
	} /* ff0e::db8:0:1 */

/* As a socket of that family takes it, with another port. */
static socklen_t to_name(const struct aph_rx_address *address, in_port_t port,
			 union aph_udp_name *name)
{
	if (address->family == AF_INET) {
		name->in = address->in;
		name->in.sin_port = port;
		return sizeof(name->in);
	}
	name->in6 = address->in6;
	name->in6.sin6_port = port;
	return sizeof(name->in6);
}

static bool connect_to(int fd, const struct aph_rx_address *address, in_port_t port)
{
	union aph_udp_name name;
	socklen_t len = to_name(address, port, &name);

	return connect(fd, &name.any, len) == 0;
}

static struct aph_rx_address group(sa_family_t family)
{
	if (family == AF_INET)
		return (struct aph_rx_address){ .in = { .sin_family = AF_INET,
							.sin_addr.s_addr = htonl(GROUP_V4) } };
	return (struct aph_rx_address){ .in6 = { .sin6_family = AF_INET6, .sin6_addr = GROUP_V6 } };
}

/* -- opening ----------------------------------------------------------------------------------- */

static bool bind_to_group(int fd, sa_family_t family, in_port_t port)
{
	struct aph_rx_address address = group(family);
	union aph_udp_name name;
	socklen_t len = to_name(&address, port, &name);

	return bind(fd, &name.any, len) == 0;
}

/*
 * From now on it sends from that address. To an address of its own the kernel may send from another
 * one of its own; to a group, from the one that is chosen for groups.
 */
static bool send_from(int fd, const struct aph_rx_address *source, in_port_t port)
{
	struct aph_rx_address to = group(AF_INET);
	struct ip_mreqn choice = { .imr_address = source->in.sin_addr };

	return source->family == AF_INET &&
	       setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &choice, sizeof(choice)) == 0 &&
	       connect_to(fd, &to, port);
}

/*
 * The same for IPv6, where the only choice is to send to the address itself. So another socket
 * finds out first where from that is done.
 */
static bool send_from_v6(int fd, const struct aph_rx_address *source, in_port_t port)
{
	int probe = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	union aph_udp_name name = { .in6.sin6_family = AF_INET6 };
	socklen_t len = sizeof(name);
	bool ok;

	ok = probe >= 0 && connect_to(probe, source, port) &&
	     getsockname(probe, &name.any, &len) == 0 &&
	     IN6_ARE_ADDR_EQUAL(&name.in6.sin6_addr, &source->in6.sin6_addr);
	aph_fd_close(&probe);
	return ok && connect_to(fd, source, port);
}

static bool set_up(const struct aph_rx_udp *udp, int fd, sa_family_t family)
{
	struct timeval patience = { .tv_usec = APH_UDP_SEND_TIMEOUT_US };
	in_port_t port = udp->local.in.sin_port;
	bool ok;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
		return false;
	(void)aph_udp_set(fd, SOL_SOCKET, SO_SNDBUF, APH_UDP_SEND_BUFFER);
	(void)aph_udp_set(fd, SOL_SOCKET, SO_RCVBUF, 0);
	if (family == AF_INET) {
		/* What is too large is refused, and the driver's socket knows what to do. */
		ok = aph_udp_set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
		(void)aph_udp_set(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
	} else {
		ok = aph_udp_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) &&
		     aph_udp_set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_WANT);
		(void)aph_udp_set(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0);
	}
	/* Other drivers at the port have lines, too. */
	ok = ok && aph_udp_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (!udp->is_wildcard)
		return ok && bind_to_group(fd, family, port) &&
		       (family == AF_INET ? send_from(fd, &udp->local, port)
					  : send_from_v6(fd, &udp->local, port));
	/* A socket that is bound to every address lets in none that does without this. */
	ok = ok && aph_udp_set(udp->fd, SOL_SOCKET, SO_REUSEPORT, 1) &&
	     bind_to_group(fd, family, port);
	return aph_udp_set(udp->fd, SOL_SOCKET, SO_REUSEPORT, 0) && ok;
}

static void open_line(const struct aph_rx_udp *udp, struct aph_udp_line *line, sa_family_t family)
{
	line->fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (line->fd >= 0 && !set_up(udp, line->fd, family))
		aph_fd_close(&line->fd);
}

static bool is_link_local(const struct aph_rx_address *address)
{
	return address->family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&address->in6.sin6_addr);
}

static bool is_v6only(int fd)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &value, &len) == 0 && value;
}

void aph_udp_lines_open(struct aph_rx_udp *udp)
{
	bool is_v6 = udp->local.family == AF_INET6;

	/* A link-local address means the device as well. */
	if (is_link_local(&udp->local))
		return;
	if (is_v6)
		open_line(udp, &udp->lines[1], AF_INET6);
	if (!is_v6 || (udp->is_wildcard && !is_v6only(udp->fd)))
		open_line(udp, &udp->lines[0], AF_INET);
}

/* -- leading ----------------------------------------------------------------------------------- */

/*
 * Whether a line that has been connected before sends from where the path begins. Where the path
 * leaves that to the kernel, it did so for the first host, and no other.
 */
static bool begins_like(const struct aph_udp_line *line, const struct aph_rx_path *path)
{
	return aph_rx_same_host(&line->first.local, &path->local) &&
	       (path->local.family || aph_rx_same_host(&line->first.remote, &path->remote));
}

/* Leads it to that peer. False: there is no line for it. */
static bool lead(const struct aph_rx_udp *udp, struct aph_udp_line *line,
		 const struct aph_rx_path *path)
{
	bool is_first = udp->is_wildcard && !line->first.remote.family;

	line->remote.family = AF_UNSPEC;
	if (is_first && path->local.family &&
	    !send_from(line->fd, &path->local, udp->local.in.sin_port))
		return false;
	if (udp->is_wildcard && !is_first && !begins_like(line, path))
		return false;
	if (!connect_to(line->fd, &path->remote, path->remote.in.sin_port))
		return false;
	if (is_first)
		line->first = *path;
	line->remote = path->remote;
	return true;
}

int aph_udp_line_to(struct aph_rx_udp *udp, const struct aph_rx_path *path)
{
	struct aph_udp_line *line = &udp->lines[path->remote.family == AF_INET6];

	if (line->fd < 0)
		return -1;
	if (!aph_rx_address_equal(&line->remote, &path->remote)) {
		if (!aph_rx_address_equal(&line->next, &path->remote)) {
			line->next = path->remote;
			line->n_in_row = 0;
		}
		if (++line->n_in_row < ROW_NEEDED || is_link_local(&path->remote))
			return -1;
		line->n_in_row = 0;
		if (!lead(udp, line, path))
			return -1;
	}
	line->n_in_row = 0;
	return !udp->is_wildcard || begins_like(line, path) ? line->fd : -1;
}

void aph_udp_line_fail(struct aph_rx_udp *udp, const struct aph_rx_path *path)
{
	udp->lines[path->remote.family == AF_INET6].remote.family = AF_UNSPEC;
}
