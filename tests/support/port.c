/* SPDX-License-Identifier: MIT */
#include "port.h"

#include "check.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST 16384u
#define N     16384u /* Linux gives out 32768 and more, unless told otherwise */
#define EACH  61u    /* tests that run side by side begin at different ones */

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

uint16_t port_free(int family)
{
	static unsigned turn;
	uint16_t port;

	do {
		CHECK(turn < N);
		port = (uint16_t)(FIRST + ((unsigned)getpid() * EACH + turn++) % N);
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
