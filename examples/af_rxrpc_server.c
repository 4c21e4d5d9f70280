/* SPDX-License-Identifier: MIT */
/* An AF_RXRPC server that sends each request back, on 127.0.0.1. It runs until it is ended. */
#include <antiphon/af_rxrpc.h>
#include <linux/rxrpc.h>

#include <err.h>
#include <stdio.h>

int main(void)
{
	struct sockaddr_rxrpc at = { AF_RXRPC, 52, SOCK_DGRAM, sizeof(struct sockaddr_in), { 0 } };
	char data[1000], control[CMSG_SPACE(sizeof(long)) + CMSG_SPACE(4)];
	int fd = aph_rxrpc_socket(AF_RXRPC, SOCK_DGRAM | SOCK_CLOEXEC, PF_INET);
	struct cmsghdr *c = (void *)control,
		       tagged = { CMSG_LEN(sizeof(long)), SOL_RXRPC, RXRPC_USER_CALL_ID };
	unsigned long tag = 0;

	at.transport.sin =
		(struct sockaddr_in){ AF_INET, htons(17052), { htonl(0x7f000001) }, { 0 } };
	if (fd < 0 || aph_rxrpc_bind(fd, (void *)&at, sizeof at) < 0 || aph_rxrpc_listen(fd, 5) < 0)
		err(1, "cannot serve");
	for (fprintf(stderr, "serving\n");;) {
		struct iovec iov = { data, sizeof data };
		struct msghdr m = { NULL, 0, &iov, 1, control, sizeof control, 0 };
		ssize_t n = aph_rxrpc_recvmsg(fd, &m, 0);

		if (n < 0 || (m.msg_flags & (MSG_MORE | MSG_EOR)))
			continue; /* it is not complete, or it is over */
		iov.iov_len = (size_t)n;
		m.msg_controllen = CMSG_SPACE(sizeof tag); /* it came first: send it back */
		if (c->cmsg_type == RXRPC_NEW_CALL) {
			m.msg_controllen += CMSG_SPACE(0);
			*c = tagged;
			*(unsigned long *)(void *)CMSG_DATA(c) = ++tag;
			*CMSG_NXTHDR(&m, c) =
				(struct cmsghdr){ CMSG_LEN(0), SOL_RXRPC, RXRPC_ACCEPT };
		}
		aph_rxrpc_sendmsg(fd, &m, 0);
	}
}
