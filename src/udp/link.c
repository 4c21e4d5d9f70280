/* SPDX-License-Identifier: MIT */
/* Connections between the processes at a port: messages out and in. See link.h. */
#include "udp/link.h"
#include "udp/udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEND_BUFFER  (1 << 20)
#define CLAIMS_MAX   1024 /* of one process */
#define MESSAGES_MAX 64	  /* of one look at a connection */
#define FDS_MAX	     2

/* -- out --------------------------------------------------------------------------------------- */

void aph_udp_link_send(const struct aph_udp_link *link, const struct aph_udp_frame *frame,
		       const void *bytes, size_t len)
{
	struct iovec iov[2] = {
		{ .iov_base = (void *)(uintptr_t)frame, .iov_len = sizeof(*frame) },
		{ .iov_base = (void *)(uintptr_t)bytes, .iov_len = len },
	};
	struct msghdr header = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };

	/* One that is gone is met by the next look. */
	(void)sendmsg(link->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The socket, and the memory of hints, to a newcomer. */
static void welcome(struct aph_udp_port *port, const struct aph_udp_link *link)
{
	struct aph_udp_frame frame = {
		.kind = APH_UDP_WELCOME,
		.value = (port->facts.has_segment ? APH_UDP_FACT_SEGMENT : 0) |
			 (port->facts.has_gro ? APH_UDP_FACT_GRO : 0),
		.count = port->facts.budget_max,
	};
	int fds[FDS_MAX] = { port->fd, aph_udp_hint_share(port) };
	size_t n = fds[1] < 0 ? 1 : 2;
	union {
		size_t align;
		char bytes[CMSG_SPACE(sizeof(fds))];
	} control = { 0 };
	struct iovec iov = { .iov_base = &frame, .iov_len = sizeof(frame) };
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&header);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	(void)sendmsg(link->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* -- connections ------------------------------------------------------------------------------- */

struct aph_udp_link *aph_udp_link_up(struct aph_udp_port *port)
{
	for (size_t i = 0; port->is_attached && i < APH_UDP_LINKS_MAX; i++)
		if (port->links[i].fd >= 0 && port->links[i].is_up)
			return &port->links[i];
	return NULL;
}

static void link_close(struct aph_udp_port *port, struct aph_udp_link *link)
{
	bool was_up = link->is_up;

	aph_udp_claims_remove(port, NULL, link);
	(void)close(link->fd);
	link->fd = -1;
	link->is_up = link->is_open = false;
	link->n_claims = 0;
	if (was_up)
		aph_udp_take_over(port);
	aph_udp_port_changed(port);
}

static struct aph_udp_link *free_place(struct aph_udp_port *port)
{
	for (size_t i = 0; i < APH_UDP_LINKS_MAX; i++)
		if (port->links[i].fd < 0)
			return &port->links[i];
	/* Who has come and said nothing yet makes room. */
	for (size_t i = 0; i < APH_UDP_LINKS_MAX; i++) {
		if (port->links[i].is_open || port->links[i].is_up)
			continue;
		link_close(port, &port->links[i]);
		return &port->links[i];
	}
	return NULL;
}

struct aph_udp_link *aph_udp_link_add(struct aph_udp_port *port, int fd, bool is_up)
{
	struct aph_udp_link *link = free_place(port);
	struct epoll_event event = { .events = EPOLLIN };
	int size = SEND_BUFFER;

	if (!link)
		return NULL;
	event.data.u32 = (uint32_t)(link - port->links);
	if (epoll_ctl(port->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return NULL;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	link->fd = fd;
	link->is_up = is_up;
	return link;
}

void aph_udp_links_close(struct aph_udp_port *port)
{
	_Atomic int *const others[] = { &port->listener, &port->epoll_fd };

	for (size_t i = 0; i < APH_UDP_LINKS_MAX; i++) {
		if (port->links[i].fd >= 0)
			(void)close(port->links[i].fd);
		port->links[i].fd = -1;
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (*others[i] >= 0)
			(void)close(*others[i]);
		*others[i] = -1;
	}
	free(port->arrived);
	port->arrived = NULL;
}

/* -- in ---------------------------------------------------------------------------------------- */

static void answer_claim(struct aph_udp_port *port, struct aph_udp_link *link,
			 const struct aph_udp_frame *frame)
{
	struct aph_udp_frame answer = {
		.kind = APH_UDP_ANSWER,
		.is_epoch = frame->is_epoch,
		.key = frame->key,
		.value = -ENOBUFS,
	};

	if (link->n_claims < CLAIMS_MAX)
		answer.value =
			aph_udp_claim_add(port, frame->is_epoch != 0, frame->key, NULL, link);
	aph_udp_link_send(link, &answer, NULL, 0);
	if (answer.value == 0)
		aph_udp_port_changed(port);
}

/* What the other side has said about a claim. */
static void take_word(struct aph_udp_port *port, struct aph_udp_link *link,
		      const struct aph_udp_frame *frame)
{
	struct aph_udp_claim *claim = aph_udp_claim_find(port, frame->is_epoch != 0, frame->key);

	if (!claim)
		return;
	if (frame->kind == APH_UDP_ANSWER && claim->udp && claim->is_asked) {
		claim->is_asked = false;
		claim->refusal = frame->value < 0 ? frame->value : 0;
	} else if (frame->kind == APH_UDP_RELEASE && claim->peer == link) {
		aph_udp_claim_remove(port, claim);
		aph_udp_port_changed(port);
	}
}

/* False: this is no way to talk to us. */
static bool take_frame(struct aph_udp_port *port, struct aph_udp_link *link,
		       const struct aph_udp_frame *frame, size_t len)
{
	if (!link->is_open && !link->is_up) {
		if (frame->kind != APH_UDP_HELLO || frame->value != (int)APH_UDP_LINK_VERSION)
			return false;
		link->is_open = true;
		welcome(port, link);
		aph_udp_claims_announce(port, link);
		aph_udp_port_changed(port);
		return true;
	}
	switch (frame->kind) {
	case APH_UDP_WELCOME:
		if (!link->is_up)
			return false;
		/* A new owner: what it knows of follows. */
		aph_udp_claims_forget(port, false);
		link->is_open = true;
		return true;
	case APH_UDP_CLAIM:
		if (link->is_up)
			return false;
		answer_claim(port, link, frame);
		return true;
	case APH_UDP_ANSWER:
	case APH_UDP_RELEASE:
		take_word(port, link, frame);
		return true;
	case APH_UDP_KNOWN:
		if (!link->is_up)
			return false;
		aph_udp_claim_know(port, frame->is_epoch != 0, frame->key, frame->value);
		return true;
	case APH_UDP_COUNT:
		if (!link->is_up)
			return false;
		port->n_drivers = frame->count;
		(void)atomic_fetch_add(&port->generation, 1);
		return true;
	case APH_UDP_PACKET:
	case APH_UDP_ERROR:
		aph_udp_sort_frame(port, link, frame, port->arrived, len);
		return true;
	default:
		return false;
	}
}

/* Descriptors that nobody asked for: a new owner sends us the socket, which we have. */
static void close_fds(struct msghdr *header)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			(void)close(fd);
		}
	}
}

/* One message. 1, 0: none is there, -1: the connection is over. */
static int read_one(struct aph_udp_port *port, struct aph_udp_link *link)
{
	struct aph_udp_frame frame;
	struct iovec iov[2] = {
		{ .iov_base = &frame, .iov_len = sizeof(frame) },
		{ .iov_base = port->arrived, .iov_len = APH_RX_BUFFER_SIZE },
	};
	union {
		size_t align;
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct msghdr header = {
		.msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(link->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	close_fds(&header);
	if (n < (ssize_t)sizeof(frame) || (header.msg_flags & MSG_TRUNC))
		return -1;
	return take_frame(port, link, &frame, (size_t)n - sizeof(frame)) ? 1 : -1;
}

static void read_link(struct aph_udp_port *port, struct aph_udp_link *link)
{
	int r = 1;

	if (!port->arrived)
		port->arrived = malloc(APH_RX_BUFFER_SIZE);
	if (!port->arrived)
		return;
	for (int i = 0; i < MESSAGES_MAX && r > 0; i++)
		r = read_one(port, link);
	if (r < 0)
		link_close(port, link);
}

/*
 * Those who have come, as many as can have been waiting: epoll does not tell of them again. What
 * one has to say is heard at once, so that it does not have to make room for the next.
 */
static void accept_all(struct aph_udp_port *port)
{
	for (int i = 0; i <= APH_UDP_BACKLOG; i++) {
		int fd = accept4(port->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		struct aph_udp_link *link;

		if (fd < 0)
			return;
		link = aph_udp_is_let_in(port, fd) ? aph_udp_link_add(port, fd, false) : NULL;
		if (link)
			read_link(port, link);
		else
			(void)close(fd);
	}
}

void aph_udp_link_look(struct aph_udp_port *port, uint64_t now_ns)
{
	struct epoll_event events[8];
	int n = epoll_wait(port->epoll_fd, events, 8, 0);

	for (int i = 0; i < n; i++) {
		uint32_t which = events[i].data.u32;

		if (which == APH_UDP_LISTENER)
			accept_all(port);
		else if (which < APH_UDP_LINKS_MAX && port->links[which].fd >= 0)
			read_link(port, &port->links[which]);
	}
	/* Who has not come by now has gone with the owner before us. */
	if (port->awaited_ns && now_ns > port->awaited_ns) {
		port->awaited_ns = 0;
		aph_udp_claims_forget(port, false);
		aph_udp_port_changed(port);
	}
	/* The owner had gone, and nobody was there yet. */
	if (port->is_attached && !aph_udp_link_up(port))
		aph_udp_take_over(port);
}
