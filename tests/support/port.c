/* SPDX-License-Identifier: MIT */
#include "port.h"

#include "check.h"
#include "fds.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Linux gives out 32768 and more, unless told otherwise. */
#define FIRST	  16384u
#define PER_BLOCK 256u
#define N_BLOCKS  64u

static bool is_free(int family, uint16_t port)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} at = { .any.sa_family = (sa_family_t)family };
	int fd = (int)CHECK_OK(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	socklen_t len = sizeof(at.in);
	bool done;

	if (family == AF_INET6) {
		at.in6.sin6_addr = in6addr_loopback;
		len = sizeof(at.in6);
	} else {
		at.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	}
	at.in.sin_port = htons(port);
	done = bind(fd, &at.any, len) == 0;
	/* Where there is no IPv6, that is for the test to find. */
	CHECK(done || errno == EADDRINUSE || errno == EADDRNOTAVAIL);
	done = done || errno == EADDRNOTAVAIL;
	close(fd);
	return done;
}

/*
 * The first port of a block that this process has to itself as long as it runs: of two tests that
 * run side by side neither may meet the other's server.
 */
static unsigned block(void)
{
	static unsigned first;
	static pid_t owner;
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd;

	if (owner == getpid())
		return first;
	owner = getpid();
	first = 0;
	fd = (int)CHECK_OK(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	for (unsigned i = 0; !first; i++) {
		unsigned own = ((unsigned)owner + i) % N_BLOCKS;
		int len = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1,
				   "aph-test-ports-%u", own);

		CHECK(i < N_BLOCKS);
		len += (int)offsetof(struct sockaddr_un, sun_path) + 1;
		if (bind(fd, (const struct sockaddr *)&name, (socklen_t)len) == 0)
			first = FIRST + own * PER_BLOCK;
		else
			CHECK(errno == EADDRINUSE);
	}
	fds_keep(fd);
	return first;
}

uint16_t port_free(int family)
{
	static unsigned turn;
	uint16_t port;
	unsigned n = 0;

	do {
		CHECK(n++ < PER_BLOCK);
		port = (uint16_t)(block() + turn++ % PER_BLOCK);
	} while (!is_free(family, port));
	return port;
}

void port_send_run(int fd, const struct sockaddr_in *to, const void *data, size_t len,
		   uint16_t segment)
{
	union {
		size_t align;
		char bytes[CMSG_SPACE(sizeof(segment))];
	} control = { 0 };
	struct sockaddr_in name = *to;
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr header = {
		.msg_name = &name, .msg_namelen = sizeof(name), .msg_iov = &iov, .msg_iovlen = 1
	};

	if (segment) {
		struct cmsghdr *c;

		header.msg_control = &control;
		header.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&header);
		c->cmsg_level = IPPROTO_UDP;
		c->cmsg_type = UDP_SEGMENT;
		c->cmsg_len = CMSG_LEN(sizeof(segment));
		memcpy(CMSG_DATA(c), &segment, sizeof(segment));
	}
	CHECK(sendmsg(fd, &header, 0) == (ssize_t)len);
}
