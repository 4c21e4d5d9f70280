/* SPDX-License-Identifier: MIT */
/*
 * AF_RXRPC sockets of libafrxrpc: blocking calls, one at a time, as a program makes them that waits
 * in recvmsg(). A socket gives the news of any of its calls to whoever waits, so each thread has
 * one of its own; they share a port. As "af_rxrpc:moved" both ends have forked, so that other
 * processes have their sockets.
 */
#include "harness.h"

#include <antiphon/af_rxrpc.h>
#include <linux/rxrpc.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define N_SOCKETS 16 /* as many threads as the harness has */
#define N_CHARGES 24 /* more than callers, which never find the server busy then */
#define BODY_MAX  65536

static int fds[N_SOCKETS]; /* the server has the first alone */

static struct sockaddr_rxrpc address_of(unsigned port)
{
	struct sockaddr_rxrpc address = {
		.srx_family = AF_RXRPC,
		.srx_service = RXB_SERVICE,
		.transport_type = SOCK_DGRAM,
		.transport_len = sizeof(struct sockaddr_in),
	};

	address.transport.sin.sin_family = AF_INET;
	address.transport.sin.sin_port = htons((uint16_t)port);
	address.transport.sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

static int send_with(int fd, unsigned long tag, int type, const void *data, size_t len)
{
	char control[CMSG_SPACE(sizeof(tag)) + CMSG_SPACE(0)] __attribute__((aligned(16))) = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

	cmsg->cmsg_level = SOL_RXRPC;
	cmsg->cmsg_type = RXRPC_USER_CALL_ID;
	cmsg->cmsg_len = CMSG_LEN(sizeof(tag));
	memcpy(CMSG_DATA(cmsg), &tag, sizeof(tag));
	cmsg = CMSG_NXTHDR(&message, cmsg);
	cmsg->cmsg_level = SOL_RXRPC;
	cmsg->cmsg_type = type;
	cmsg->cmsg_len = CMSG_LEN(0);
	if (!type)
		message.msg_controllen = CMSG_SPACE(sizeof(tag));
	return aph_rxrpc_sendmsg(fd, &message, 0) == (ssize_t)len ? 0 : -1;
}

/* Length of what came, and was not looked at; -1. */
static ssize_t receive(int fd, unsigned long *tag, int *type, int *flags)
{
	char body[BODY_MAX];
	char control[128] __attribute__((aligned(16)));
	struct iovec iov = { body, sizeof(body) };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg;
	ssize_t n = aph_rxrpc_recvmsg(fd, &message, 0);

	*type = 0;
	for (cmsg = n < 0 ? NULL : CMSG_FIRSTHDR(&message); cmsg;
	     cmsg = CMSG_NXTHDR(&message, cmsg)) {
		if (cmsg->cmsg_type == RXRPC_USER_CALL_ID)
			memcpy(tag, CMSG_DATA(cmsg), sizeof(*tag));
		else
			*type = cmsg->cmsg_type;
	}
	*flags = message.msg_flags;
	return n;
}

static int start(const char *who, unsigned n, unsigned port)
{
	struct sockaddr_rxrpc address = address_of(port);

	for (unsigned i = 0; i < n; i++) {
		fds[i] = aph_rxrpc_socket(AF_RXRPC, SOCK_DGRAM | SOCK_CLOEXEC, PF_INET);
		if (fds[i] < 0 || (port && aph_rxrpc_connect(fds[i], (struct sockaddr *)&address,
							     sizeof(address)) < 0))
			return -1;
	}
	return strcmp(who, "af_rxrpc:moved") == 0 ? aph_rxrpc_share() : 0;
}

/* Small calls alone are measured here. */
static int answer(unsigned long tag)
{
	static char reply[RXB_SMALL + 4];
	uint32_t word = htonl(RXB_COOKIE);

	memcpy(reply + RXB_SMALL, &word, sizeof(word));
	return send_with(fds[0], tag, 0, reply, sizeof(reply));
}

static int charge(void)
{
	static unsigned long last;

	return send_with(fds[0], ++last, RXRPC_CHARGE_ACCEPT, NULL, 0);
}

static int serve(const char *who, const char *name)
{
	unsigned port = rxb_free_port();
	struct sockaddr_rxrpc address = address_of(port);
	unsigned long tag;
	int type, flags;

	(void)name;
	if (aph_rxrpc_set_tunable("max_backlog", N_CHARGES) < 0 || start(who, 1, 0) < 0 ||
	    aph_rxrpc_bind(fds[0], (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    aph_rxrpc_listen(fds[0], N_CHARGES) < 0)
		return -1;
	for (int i = 0; i < N_CHARGES; i++)
		if (charge() < 0)
			return -1;
	rxb_ready(port);
	/* What is not a request is the end of one that was answered. */
	while (receive(fds[0], &tag, &type, &flags) >= 0)
		if (!type && (answer(tag) < 0 || charge() < 0))
			return -1;
	return -1;
}

static int open_client(const char *who, const char *name, unsigned port)
{
	(void)name;
	return start(who, N_SOCKETS, port);
}

static int call(unsigned thread)
{
	char request[24 + RXB_SMALL] = { 0 };
	unsigned long tag = 0;
	int type, flags;

	rxb_request(request, RXB_RPC, RXB_SMALL, RXB_SMALL);
	if (send_with(fds[thread], thread, 0, request, sizeof(request)) < 0 ||
	    receive(fds[thread], &tag, &type, &flags) != RXB_SMALL + 4)
		return -1;
	return tag == thread && (flags & MSG_EOR) ? 0 : -1;
}

int main(int argc, char **argv)
{
	static const struct rxb_peer peers[] = {
		{ .name = "af_rxrpc", .serve = serve, .open = open_client, .call = call },
		{ .name = "af_rxrpc:moved", .serve = serve, .open = open_client, .call = call },
	};

	return rxb_main(peers, sizeof(peers) / sizeof(peers[0]), argc, argv);
}
