/* SPDX-License-Identifier: MIT */
/*
 * How processes find each other at a port. The name is an abstract one, as those are of a network
 * namespace, like the ports themselves; binding it decides who is the owner; and the kernel takes
 * it away from the dead. Who has it is asked of the kernel, at both ends.
 */
#include "base/error.h"
#include "base/fd.h"
#include "base/time.h"
#include "udp/link.h"
#include "udp/udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Others have to come to a new owner; their calls last about as long. */
#define COMING_NS UINT64_C(10000000000)

/* -- names ------------------------------------------------------------------------------------- */

static socklen_t make_name(struct sockaddr_un *out, const struct aph_udp_port *port,
			   const struct aph_rx_address *a, bool for_all)
{
	char host[INET6_ADDRSTRLEN] = "", who[16] = "all";
	bool is_v4 = a->family == AF_INET;
	int n;

	if (!for_all)
		(void)snprintf(who, sizeof(who), "%u", (unsigned)geteuid());
	(void)inet_ntop(a->family,
			is_v4 ? (const void *)&a->in.sin_addr : (const void *)&a->in6.sin6_addr,
			host, sizeof(host));
	*out = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(out->sun_path + 1, sizeof(out->sun_path) - 1, "antiphon-udp/%s/%s%%%u/%u%s",
		     who, host, is_v4 ? 0 : a->in6.sin6_scope_id,
		     ntohs(is_v4 ? a->in.sin_port : a->in6.sin6_port),
		     port->is_v6only ? "/v6only" : "");
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int new_socket(void)
{
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

bool aph_udp_is_let_in(const struct aph_udp_port *port, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	return port->is_for_all || peer.uid == geteuid();
}

/* -- the owner --------------------------------------------------------------------------------- */

static int open_epoll(struct aph_udp_port *port)
{
	if (port->epoll_fd < 0)
		port->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return port->epoll_fd < 0 ? -errno : 0;
}

int aph_udp_listen(struct aph_udp_port *port)
{
	/* Told once of each that comes: for want of descriptors it may have to stay outside. */
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u32 = APH_UDP_LISTENER };
	struct sockaddr_un name;
	socklen_t len = make_name(&name, port, &port->facts.local, port->is_for_all);
	int r = open_epoll(port), fd;

	if (r < 0)
		return r;
	fd = new_socket();
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&name, len) < 0 || listen(fd, APH_UDP_BACKLOG) < 0 ||
	    epoll_ctl(port->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	port->listener = fd;
	return 0;
}

/* -- newcomers --------------------------------------------------------------------------------- */

/*
 * A connection to the owner; -ECONNREFUSED: there is none, -EACCES: it is of a user whom we do not
 * trust.
 */
static int meet(struct aph_udp_port *port, const struct aph_rx_address *address, bool for_all)
{
	struct aph_udp_frame hello = {
		.kind = APH_UDP_HELLO,
		.value = (int)APH_UDP_LINK_VERSION,
	};
	struct sockaddr_un name;
	socklen_t len = make_name(&name, port, address, for_all);
	int fd = new_socket(), r = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&name, len) < 0)
		r = -errno;
	else if (!aph_udp_is_let_in(port, fd))
		r = -EACCES;
	else if (send(fd, &hello, sizeof(hello), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		r = -errno;
	if (r == 0)
		return fd;
	(void)close(fd);
	return r;
}

/* The owner may have said that everybody may come, or that its own user may. */
static int meet_any(struct aph_udp_port *port, const struct aph_rx_address *address)
{
	int fd = meet(port, address, port->is_for_all);

	if (fd < 0) {
		int other = meet(port, address, !port->is_for_all);

		fd = other >= 0 || fd == -ECONNREFUSED ? other : fd;
	}
	return fd;
}

/* What the owner sends: the socket, and perhaps the memory of hints. */
struct gift {
	struct aph_udp_frame frame;
	int fds[2];
};

/* 0, -ETIMEDOUT, or what the connection says. */
static int receive_gift(int link, struct gift *gift)
{
	union {
		size_t align;
		char bytes[CMSG_SPACE(sizeof(gift->fds))];
	} control;
	struct iovec iov = { .iov_base = &gift->frame, .iov_len = sizeof(gift->frame) };
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct pollfd fds = { .fd = link, .events = POLLIN };
	uint64_t until_ns = aph_time_ns() + APH_UDP_PATIENCE_NS;
	struct cmsghdr *c;
	ssize_t n;
	int r;

	do {
		struct timespec left = aph_time_left(until_ns, aph_time_ns());

		r = ppoll(&fds, 1, &left, NULL);
	} while (r < 0 && errno == EINTR);
	if (r <= 0)
		return r < 0 ? -errno : -ETIMEDOUT;
	n = recvmsg(link, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return n < 0 ? -errno : -ECONNRESET;
	c = CMSG_FIRSTHDR(&header);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(gift->fds, CMSG_DATA(c),
		       c->cmsg_len > CMSG_LEN(sizeof(int)) ? sizeof(gift->fds) : sizeof(int));
	if (n != (ssize_t)sizeof(gift->frame) || gift->frame.kind != APH_UDP_WELCOME ||
	    gift->fds[0] < 0)
		return -ECONNREFUSED;
	return 0;
}

/* Whether the socket is what we asked for, whoever gave it. */
static bool is_bound_to(int fd, const struct aph_rx_address *address)
{
	union aph_udp_name name = { 0 };
	socklen_t len = sizeof(name);
	struct aph_rx_address local;
	int type = 0;
	socklen_t type_len = sizeof(type);

	if (getsockname(fd, &name.any, &len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 || type != SOCK_DGRAM ||
	    name.any.sa_family != address->family)
		return false;
	aph_udp_from_name(&name, &local);
	if (local.family == AF_INET)
		return local.in.sin_port == address->in.sin_port &&
		       local.in.sin_addr.s_addr == address->in.sin_addr.s_addr;
	return local.in6.sin6_port == address->in6.sin6_port &&
	       memcmp(&local.in6.sin6_addr, &address->in6.sin6_addr, 16) == 0;
}

/* With the owner's gift in our hands. */
static int move_in(struct aph_udp_port *port, const struct aph_rx_address *address, int link,
		   struct gift *gift)
{
	int r;

	if (!is_bound_to(gift->fds[0], address))
		return -EADDRINUSE;
	r = open_epoll(port);
	if (r < 0)
		return r;
	if (!aph_udp_link_add(port, link, true))
		return -EMFILE;
	port->is_attached = true;
	port->links[0].is_open = true;
	port->fd = gift->fds[0];
	gift->fds[0] = -1;
	if (gift->fds[1] >= 0)
		aph_udp_hint_adopt(port, gift->fds[1]);
	gift->fds[1] = -1;
	port->facts.has_segment = gift->frame.value & APH_UDP_FACT_SEGMENT;
	port->facts.has_gro = gift->frame.value & APH_UDP_FACT_GRO;
	port->facts.budget_max = gift->frame.count;
	return 0;
}

int aph_udp_attach(struct aph_udp_port *port, const struct aph_rx_address *address)
{
	struct gift gift = { .fds = { -1, -1 } };
	int link = meet_any(port, address), r = link;

	if (link >= 0)
		r = receive_gift(link, &gift);
	if (r == 0)
		r = move_in(port, address, link, &gift);
	if (r == 0)
		return 0;
	aph_fd_close(&link);
	aph_fd_close(&gift.fds[0]);
	aph_fd_close(&gift.fds[1]);
	return r;
}

int aph_udp_attach_error(int r)
{
	return aph_err(-EADDRINUSE, "%s",
		       r == -ECONNREFUSED ? "the port is in use by another program"
		       : r == -EACCES	  ? "the port is in use by another user"
		       : r == -ETIMEDOUT  ? "the process that has the port does not answer"
					  : "the process that has the port does not let us in");
}

/* -- when the owner is gone -------------------------------------------------------------------- */

void aph_udp_take_over(struct aph_udp_port *port)
{
	int fd;

	if (aph_udp_listen(port) == 0) {
		port->is_attached = false;
		aph_udp_claims_forget(port, true);
		port->awaited_ns = aph_time_ns() + COMING_NS;
		return;
	}
	fd = meet_any(port, &port->facts.local);
	if (fd < 0)
		return; /* nobody yet: the next look tries again */
	if (!aph_udp_link_add(port, fd, true)) {
		(void)close(fd);
		return;
	}
	aph_udp_claims_say(port);
}
