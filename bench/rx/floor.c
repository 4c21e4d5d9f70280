/* SPDX-License-Identifier: MIT */
/*
 * What UDP itself costs, with nothing on top: a ping-pong that blocks in recv(), and a stream of
 * datagrams of 1412 bytes under credit, that is: the receiver says how much it has taken, and the
 * sender keeps no more on the way than the receive buffer holds. The stream goes with sendmmsg(),
 * or with UDP_SEGMENT and UDP_GRO.
 */
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PACKET	  1412
#define PING	  60
#define RUN	  45
#define VECTOR	  32
#define WINDOW	  255 /* packets on the way: what Rx allows itself */
#define ACK_EVERY 64
#define BUFFER	  65536

struct ack {
	uint64_t bytes;
};

static int sock;
static bool offload;
static char *memory;

static int open_socket(const char *who)
{
	int size = 4 << 20, one = 1;

	offload = strcmp(who, "floor:offload") == 0;
	memory = calloc(VECTOR, BUFFER);
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (offload && setsockopt(sock, IPPROTO_UDP, UDP_GRO, &one, sizeof(one)) < 0)
		return -1;
	return memory == NULL ? -1 : 0;
}

static int meet(unsigned port)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_port = htons((uint16_t)port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	return connect(sock, (struct sockaddr *)&in, sizeof(in));
}

/* Takes a stream until the datagram of one byte that ends it. */
static int take_stream(void)
{
	struct mmsghdr headers[VECTOR];
	struct iovec iov[VECTOR];
	struct ack ack = { 0 };
	uint64_t told = 0;
	unsigned n = offload ? 2 : VECTOR;

	for (unsigned i = 0; i < n; i++) {
		iov[i] = (struct iovec){ memory + i * BUFFER, offload ? BUFFER : 2048 };
		headers[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	for (;;) {
		int got = recvmmsg(sock, headers, n, MSG_WAITFORONE, NULL);

		if (got < 0)
			return -1;
		for (int i = 0; i < got; i++) {
			if (headers[i].msg_len == 1)
				return send(sock, "", 1, 0) < 0 ? -1 : 0;
			ack.bytes += headers[i].msg_len;
		}
		if (ack.bytes - told < ACK_EVERY * PACKET)
			continue;
		told = ack.bytes;
		if (send(sock, &ack, sizeof(ack), 0) < 0)
			return -1;
	}
}

static int serve(const char *who, const char *name)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	bool stream = strncmp(name, "bulk", 4) == 0;
	ssize_t n;

	if (open_socket(who) < 0 || bind(sock, (struct sockaddr *)&in, len) < 0 ||
	    getsockname(sock, (struct sockaddr *)&in, &len) < 0)
		return -1;
	rxb_ready(ntohs(in.sin_port));
	len = sizeof(in);
	n = recvfrom(sock, memory, BUFFER, 0, (struct sockaddr *)&in, &len);
	if (n < 0 || connect(sock, (struct sockaddr *)&in, len) < 0 ||
	    send(sock, memory, (size_t)n, 0) < 0)
		return -1;
	for (;;) {
		if (stream) {
			if (take_stream() < 0)
				return -1;
			continue;
		}
		n = recv(sock, memory, BUFFER, 0);
		if (n < 0 || send(sock, memory, (size_t)n, 0) < 0)
			return -1;
	}
}

static int call(unsigned thread)
{
	(void)thread;
	if (send(sock, memory, PING, 0) < 0)
		return -1;
	return recv(sock, memory, BUFFER, 0) == PING ? 0 : -1;
}

static int open_client(const char *who, const char *name, unsigned port)
{
	(void)name;
	if (open_socket(who) < 0 || meet(port) < 0)
		return -1;
	return call(0);
}

/* Sends up to `room` packets; returns how many, negative on failure. */
static int send_some(unsigned room)
{
	struct mmsghdr headers[VECTOR];
	struct iovec iov[VECTOR];
	unsigned n = room < VECTOR ? room : VECTOR;
	union {
		size_t align;
		char bytes[CMSG_SPACE(sizeof(uint16_t))];
	} control = { 0 };
	uint16_t segment = PACKET;
	struct cmsghdr *c;

	if (!offload) {
		for (unsigned i = 0; i < n; i++) {
			iov[i] = (struct iovec){ memory + (size_t)i * PACKET, PACKET };
			headers[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
		}
		return sendmmsg(sock, headers, n, 0);
	}
	n = room < RUN ? room : RUN;
	iov[0] = (struct iovec){ memory, (size_t)n * PACKET };
	headers[0].msg_hdr = (struct msghdr){ .msg_iov = iov,
					      .msg_iovlen = 1,
					      .msg_control = &control,
					      .msg_controllen = sizeof(control) };
	c = CMSG_FIRSTHDR(&headers[0].msg_hdr);
	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof(segment));
	memcpy(CMSG_DATA(c), &segment, sizeof(segment));
	return sendmsg(sock, &headers[0].msg_hdr, 0) < 0 ? -1 : (int)n;
}

static int bulk(bool up, size_t len)
{
	uint64_t n_packets = len / PACKET, sent = 0, taken = 0;
	struct ack ack;

	(void)up;
	while (sent < n_packets) {
		uint64_t room = WINDOW - (sent - taken);
		int n;

		room = room < n_packets - sent ? room : n_packets - sent;
		/* A run that waits for room is better than two short ones. */
		if (room < RUN && room < n_packets - sent) {
			if (recv(sock, &ack, sizeof(ack), 0) != sizeof(ack))
				return -1;
			taken = ack.bytes / PACKET;
			continue;
		}
		n = send_some((unsigned)room);
		if (n < 0)
			return -1;
		sent += (uint64_t)n;
	}
	if (send(sock, memory, 1, 0) < 0)
		return -1;
	/* What is left of the acknowledgements, then the end. */
	for (;;) {
		ssize_t n = recv(sock, &ack, sizeof(ack), 0);

		if (n <= 1)
			return n == 1 ? 0 : -1;
	}
}

int main(int argc, char **argv)
{
	static const struct rxb_peer peers[] = {
		{ .name = "floor:udp", .serve = serve, .open = open_client, .call = call },
		{ .name = "floor:sendmmsg", .serve = serve, .open = open_client, .bulk = bulk },
		{ .name = "floor:offload", .serve = serve, .open = open_client, .bulk = bulk },
	};

	return rxb_main(peers, 3, argc, argv);
}
