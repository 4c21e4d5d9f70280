/* SPDX-License-Identifier: MIT */
/*
 * The socket: family, options, what the kernel can do for it, and how many packets its receive
 * buffer holds.
 *
 * The receive buffer is why nothing needs to be paced on a fast path: the windows that the engine
 * offers never sum up to more packets than the buffer holds (credit). Where datagrams are dropped
 * all the same, because others send too or because the kernel counts differently, the budget
 * shrinks.
 */
#include "base/error.h"
#include "base/fd.h"
#include "udp/udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>

#define RECEIVE_BUFFER (4u << 20) /* bytes to ask for */
/* What the kernel charges for the most expensive packet of 1440 bytes. */
#define BYTES_PER_PACKET 2304u
#define BUDGET_MIN	 16u

/*
 * A receiving system call ends after this, so that a thread that waits for long goes to sleep in
 * poll.
 */
#define RECEIVE_TIMEOUT_US 4000

#define SHRINK_EVERY_NS UINT64_C(10000000)
#define GROW_EVERY_NS	UINT64_C(1000000000)

static const char *text_of(const struct aph_rx_address *address, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (address->family == AF_INET) {
		(void)inet_ntop(AF_INET, &address->in.sin_addr, host, sizeof(host));
		(void)snprintf(text, size, "%s port %u", host, ntohs(address->in.sin_port));
	} else {
		(void)inet_ntop(AF_INET6, &address->in6.sin6_addr, host, sizeof(host));
		(void)snprintf(text, size, "%s port %u", host, ntohs(address->in6.sin6_port));
	}
	return text;
}

/* Makes the socket and binds it. */
static int bind_socket(struct aph_rx_udp *udp, const struct aph_rx_address *local, uint32_t flags)
{
	char text[INET6_ADDRSTRLEN + 16];
	union aph_udp_name name;
	socklen_t len;
	int r;

	udp->is_v6 = local->family == AF_INET6;
	udp->fd = socket(local->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (udp->fd < 0) {
		r = -errno;
		return aph_err(r, "cannot make a UDP socket: %s%s", strerror(-r), aph_advice(-r));
	}
	if (udp->is_v6)
		(void)aph_udp_set(udp->fd, IPPROTO_IPV6, IPV6_V6ONLY,
				  (flags & APH_RX_UDP_V6ONLY) != 0);
	if (flags & APH_RX_UDP_REUSE)
		(void)aph_udp_set(udp->fd, SOL_SOCKET, SO_REUSEADDR, 1);
	len = aph_udp_to_name(udp, local, &name);
	if (bind(udp->fd, &name.any, len) < 0) {
		r = -errno;
		aph_fd_close(&udp->fd);
		return aph_err(r, "cannot bind to %s: %s", text_of(local, text, sizeof(text)),
			       strerror(-r));
	}
	return 0;
}

/* Both families where the machine has both, else IPv4. */
static int bind_any(struct aph_rx_udp *udp, uint32_t flags)
{
	struct aph_rx_address any = { .in6 = { .sin6_family = AF_INET6 } };
	int r = bind_socket(udp, &any, flags);

	if (r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL)
		return r;
	any = (struct aph_rx_address){ .in = { .sin_family = AF_INET } };
	return bind_socket(udp, &any, flags);
}

int aph_udp_socket_learn(struct aph_rx_udp *udp, bool is_v6only)
{
	union aph_udp_name name;
	socklen_t len = sizeof(name);

	if (getsockname(udp->fd, &name.any, &len) < 0)
		return aph_err(-errno, "cannot learn the address of a socket: %s", strerror(errno));
	aph_udp_from_name(&name, &udp->local);
	udp->is_wildcard = aph_udp_is_wildcard(&udp->local);
	udp->self = name;
	udp->self_len = len;
	if (!udp->is_wildcard) {
		udp->path.local = udp->local;
		return 0;
	}
	if (!udp->is_v6) {
		udp->self.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	} else if (is_v6only) {
		udp->self.in6.sin6_addr = in6addr_loopback;
	} else {
		struct aph_rx_address loopback = { .in = { .sin_family = AF_INET,
							   .sin_port = name.in6.sin6_port } };

		/* There may be no ::1 where IPv6 is switched off. */
		loopback.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		(void)aph_udp_to_name(udp, &loopback, &udp->self);
	}
	return 0;
}

/*
 * What a socket of this kind must be able to do; without any of it the driver would be wrong, not
 * slow.
 */
static int set_needed(struct aph_rx_udp *udp)
{
	struct timeval receive = { .tv_usec = RECEIVE_TIMEOUT_US };
	struct timeval send = { .tv_usec = APH_UDP_SEND_TIMEOUT_US };
	int discover = udp->keeps_whole ? IP_PMTUDISC_DO : IP_PMTUDISC_WANT;
	int fd = udp->fd;
	bool ok;

	ok = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &receive, sizeof(receive)) == 0 &&
	     setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &send, sizeof(send)) == 0;
	/* A socket of both families has the options of both. */
	if (ok && (!udp->is_v6 || udp->is_wildcard))
		ok = aph_udp_set(fd, IPPROTO_IP, IP_RECVERR, 1) &&
		     aph_udp_set(fd, IPPROTO_IP, IP_MTU_DISCOVER, discover);
	if (ok && udp->is_v6)
		ok = aph_udp_set(fd, IPPROTO_IPV6, IPV6_RECVERR, 1) &&
		     aph_udp_set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_WANT);
	/* To which of our addresses something came; it costs a little with each datagram. */
	if (ok && udp->is_wildcard)
		ok = udp->is_v6 ? aph_udp_set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
				: aph_udp_set(fd, IPPROTO_IP, IP_PKTINFO, 1);
	return ok ? 0 : aph_err(-errno, "cannot set up a UDP socket: %s", strerror(errno));
}

/* As large a receive buffer as we may have, and what it is good for. */
static void size_buffers(struct aph_rx_udp *udp, uint32_t wanted)
{
	int want = wanted > INT32_MAX / 2 ? INT32_MAX / 2 : (int)wanted;
	int granted = 0;
	socklen_t len = sizeof(granted);

	if (!aph_udp_set(udp->fd, SOL_SOCKET, SO_RCVBUFFORCE, want))
		(void)aph_udp_set(udp->fd, SOL_SOCKET, SO_RCVBUF, want);
	(void)aph_udp_set(udp->fd, SOL_SOCKET, SO_SNDBUF, APH_UDP_SEND_BUFFER);
	(void)aph_udp_set(udp->fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
	if (getsockopt(udp->fd, SOL_SOCKET, SO_RCVBUF, &granted, &len) < 0 || granted < 0)
		granted = 0;
	udp->budget_max = (uint32_t)granted / BYTES_PER_PACKET;
	if (udp->budget_max < BUDGET_MIN)
		udp->budget_max = BUDGET_MIN;
	udp->budget = udp->budget_max;
}

/* Whether the kernel knows the option, whatever it is set to. */
static bool knows(int fd, int option)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, IPPROTO_UDP, option, &value, &len) == 0;
}

/* What makes it fast and is not there in every kernel. */
static void probe(struct aph_rx_udp *udp, uint32_t flags)
{
	/*
	 * Where others may receive too, each of them would have to know when UDP_GRO is switched
	 * on.
	 */
	bool may_wait = !udp->is_wildcard && !(flags & (APH_RX_UDP_SHARE | APH_RX_UDP_KEEP));

	udp->has_segment = !(flags & APH_RX_UDP_NO_SEGMENT) && knows(udp->fd, UDP_SEGMENT);
	udp->is_bare = may_wait;
	if (flags & APH_RX_UDP_NO_GRO)
		return;
	/* Kernels before 5.13 have it and do not tell. */
	udp->has_gro = may_wait && knows(udp->fd, UDP_GRO);
	if (!udp->has_gro)
		aph_udp_start_gro(udp);
}

void aph_udp_start_gro(struct aph_rx_udp *udp)
{
	bool is_on = aph_udp_set(udp->fd, IPPROTO_UDP, UDP_GRO, 1);

	udp->has_gro = udp->has_gro || is_on;
	udp->is_bare = udp->is_bare && !is_on;
}

int aph_udp_need_eventfd(int *fd)
{
	if (*fd < 0)
		*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (*fd < 0)
		return aph_err(-errno, "cannot make an eventfd: %s%s", strerror(errno),
			       aph_advice(errno));
	return 0;
}

int aph_udp_socket_open(struct aph_rx_udp *udp, const struct aph_rx_udp_options *options)
{
	int r;

	r = aph_udp_need_eventfd(&udp->event_fd);
	if (r < 0)
		return r;
	r = options->local.family == AF_UNSPEC ? bind_any(udp, options->flags)
					       : bind_socket(udp, &options->local, options->flags);
	if (r == 0)
		r = aph_udp_socket_learn(udp, options->flags & APH_RX_UDP_V6ONLY);
	udp->keeps_whole = !(options->flags & APH_RX_UDP_SHARE);
	if (r == 0)
		r = set_needed(udp);
	if (r < 0) {
		/*
		 * Only the socket: another process may give us its own, and the rest goes with
		 * that.
		 */
		aph_fd_close(&udp->fd);
		return r;
	}
	size_buffers(udp, options->receive_buffer ? options->receive_buffer : RECEIVE_BUFFER);
	probe(udp, options->flags);
	return 0;
}

void aph_udp_socket_close(struct aph_rx_udp *udp)
{
	int *const fds[] = { &udp->fd,	      &udp->event_fd,	 &udp->timer_fd,   &udp->epoll_fd,
			     &udp->member.fd, &udp->lines[0].fd, &udp->lines[1].fd };

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		/* A port's socket goes with the port. */
		if (*fds[i] >= 0 && !(i == 0 && udp->port))
			(void)close(*fds[i]);
		*fds[i] = -1;
	}
}

static void move_budget(struct aph_rx_udp *udp, uint32_t budget, uint64_t now_ns)
{
	udp->budget_moved_ns = now_ns;
	if (budget == udp->budget)
		return;
	udp->budget = budget;
	aph_rx_set_receive_budget(udp->rx, budget);
}

void aph_udp_note_drops(struct aph_rx_udp *udp, uint32_t n_dropped, uint64_t now_ns)
{
	uint32_t budget = udp->budget - udp->budget / 4;

	if (n_dropped == udp->n_dropped)
		return;
	/* One overflow shows in many datagrams: it is one reason to shrink. */
	udp->n_dropped = n_dropped;
	if (now_ns - udp->budget_moved_ns < SHRINK_EVERY_NS)
		return;
	move_budget(udp, budget < BUDGET_MIN ? BUDGET_MIN : budget, now_ns);
}

void aph_udp_set_budget_max(struct aph_rx_udp *udp, uint32_t budget)
{
	udp->budget_max = udp->budget = budget < BUDGET_MIN ? BUDGET_MIN : budget;
	aph_rx_set_receive_budget(udp->rx, udp->budget);
}

void aph_udp_grow_budget(struct aph_rx_udp *udp, uint64_t now_ns)
{
	uint32_t budget = udp->budget + udp->budget_max / 16 + 1;

	if (now_ns - udp->budget_moved_ns < GROW_EVERY_NS)
		return;
	move_budget(udp, budget > udp->budget_max ? udp->budget_max : budget, now_ns);
}
