/* SPDX-License-Identifier: MIT */
/* One call over an AF_RXRPC socket, to 127.0.0.1. af_rxrpc_client [TEXT] */
#include <antiphon/af_rxrpc.h>
#include <linux/rxrpc.h>

#include <err.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	char hello[] = "hello", *text = argc > 1 ? argv[1] : hello, data[1000], control[128];
	struct sockaddr_rxrpc to = { AF_RXRPC, 52, SOCK_DGRAM, sizeof(struct sockaddr_in), { 0 } };
	struct iovec iov = { text, strlen(text) };
	struct msghdr m = { NULL, 0, &iov, 1, control, CMSG_SPACE(sizeof(long)), 0 };
	int fd = aph_rxrpc_socket(AF_RXRPC, SOCK_DGRAM | SOCK_CLOEXEC, PF_INET);
	unsigned long tag = 1;
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	ssize_t n;

	to.transport.sin =
		(struct sockaddr_in){ AF_INET, htons(17052), { htonl(0x7f000001) }, { 0 } };
	*c = (struct cmsghdr){ CMSG_LEN(sizeof tag), SOL_RXRPC, RXRPC_USER_CALL_ID };
	memcpy(CMSG_DATA(c), &tag, sizeof tag);
	if (fd < 0 || aph_rxrpc_connect(fd, (struct sockaddr *)&to, sizeof to) < 0 ||
	    aph_rxrpc_sendmsg(fd, &m, 0) < 0)
		err(1, "cannot call");
	do {
		iov = (struct iovec){ data, sizeof data };
		m.msg_controllen = sizeof control;
		n = aph_rxrpc_recvmsg(fd, &m, 0);
		c = n < 0 ? NULL : CMSG_NXTHDR(&m, CMSG_FIRSTHDR(&m));
		if (n < 0 || c) /* behind the tag: how it ended, if not with a reply */
			errx(1, "no reply (%d)", c ? c->cmsg_type : 0);
		fwrite(data, 1, (size_t)n, stdout);
	} while (!(m.msg_flags & MSG_EOR));
	putchar('\n');
	return aph_rxrpc_close(fd) < 0;
}
