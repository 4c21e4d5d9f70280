/* SPDX-License-Identifier: MIT */
/*
 * A program as it is written for kernels that have AF_RXRPC: it includes the system's headers and
 * links the C library alone. Server and client of a service that answers with its request in
 * capitals, with the process models that servers have; "end" ends the process that gets it.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <linux/rxrpc.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVICE	  1234
#define N_CHARGES 4
#define N_WORKERS 3
#define BODY_MAX  (1 << 20)

extern char **environ;

static char body[BODY_MAX];

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_rxrpc address_of(const char *port)
{
	struct sockaddr_rxrpc address = {
		.srx_family = AF_RXRPC,
		.srx_service = SERVICE,
		.transport_type = SOCK_DGRAM,
		.transport_len = sizeof(struct sockaddr_in),
	};

	address.transport.sin.sin_family = AF_INET;
	address.transport.sin.sin_port = htons((unsigned short)strtoul(port, NULL, 10));
	address.transport.sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

/* sendmsg() with a tag and, if `type` is not 0, a command. */
static void send_with(int fd, unsigned long tag, int type, const void *data, size_t len)
{
	char control[CMSG_SPACE(sizeof(tag)) + CMSG_SPACE(0)] __attribute__((aligned(16))) = { 0 };
	struct iovec iov = { (void *)data, len };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

	cmsg->cmsg_level = SOL_RXRPC;
	cmsg->cmsg_type = RXRPC_USER_CALL_ID;
	cmsg->cmsg_len = CMSG_LEN(sizeof(tag));
	memcpy(CMSG_DATA(cmsg), &tag, sizeof(tag));
	if (type) {
		cmsg = CMSG_NXTHDR(&message, cmsg);
		cmsg->cmsg_level = SOL_RXRPC;
		cmsg->cmsg_type = type;
		cmsg->cmsg_len = CMSG_LEN(0);
	} else {
		message.msg_controllen = CMSG_SPACE(sizeof(tag));
	}
	if (sendmsg(fd, &message, 0) != (ssize_t)len)
		die("sendmsg");
}

/* recvmsg(): the type of the notification, 0 for data. */
static int receive(int fd, unsigned long *tag, size_t *len, int *flags)
{
	char control[256] __attribute__((aligned(16)));
	struct iovec iov = { body, sizeof(body) };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg;
	ssize_t n = recvmsg(fd, &message, 0);
	int type = 0;

	if (n < 0)
		die("recvmsg");
	for (cmsg = CMSG_FIRSTHDR(&message); cmsg; cmsg = CMSG_NXTHDR(&message, cmsg)) {
		if (cmsg->cmsg_type == RXRPC_USER_CALL_ID)
			memcpy(tag, CMSG_DATA(cmsg), sizeof(*tag));
		else
			type = cmsg->cmsg_type;
	}
	*len = (size_t)n;
	*flags = message.msg_flags;
	return type;
}

/* -- the server -------------------------------------------------------------------------------- */

static int open_server(const char *port)
{
	struct sockaddr_rxrpc address = address_of(port);
	unsigned long tag;
	int fd = socket(AF_RXRPC, SOCK_DGRAM, PF_INET);

	if (fd < 0)
		die("socket");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("bind");
	if (listen(fd, N_CHARGES) < 0)
		die("listen");
	for (tag = 1; tag <= N_CHARGES; tag++)
		send_with(fd, tag, RXRPC_CHARGE_ACCEPT, NULL, 0);
	return fd;
}

static void say(void)
{
	printf("listening\n");
	fflush(stdout);
}

static void reply(int fd, unsigned long tag, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		body[i] = (char)toupper((unsigned char)body[i]);
	send_with(fd, tag, 0, body, len);
}

/*
 * Until "end" has been answered and, where nobody else could get that message, acknowledged. With
 * `each`, a child answers.
 */
static void serve(int fd, int each, int alone)
{
	unsigned long tag = 0, last = 0;
	size_t len;
	int type, flags;

	for (;;) {
		type = receive(fd, &tag, &len, &flags);
		if (type) {
			if (tag == last)
				return;
			send_with(fd, tag, RXRPC_CHARGE_ACCEPT, NULL, 0);
			continue;
		}
		if (len == 3 && memcmp(body, "end", 3) == 0)
			last = tag;
		if (!each) {
			reply(fd, tag, len);
			if (last && !alone)
				return;
		} else if (fork() == 0) {
			reply(fd, tag, len);
			_exit(0);
		} else {
			wait(NULL);
		}
	}
}

static int workers(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	int i, status, worst = 0, flags;
	unsigned long tag;
	size_t len;

	for (i = 0; i < N_WORKERS; i++) {
		if (fork() == 0) {
			serve(fd, 0, 0);
			_exit(0);
		}
	}
	say();
	while (wait(&status) > 0)
		if (status)
			worst = 1;
	/* The last replies are taken by then: closing would break them off. */
	while (poll(&poller, 1, 200) > 0)
		receive(fd, &tag, &len, &flags);
	return worst;
}

static int start_other(const char *mode, const char *self, int fd)
{
	char number[16], option[] = "inherited";
	char *argv[] = { (char *)self, option, number, NULL };
	int status = 0;
	pid_t pid;

	snprintf(number, sizeof(number), "%d", fd);
	if (strcmp(mode, "exec") == 0) {
		execv(self, argv);
		die("execv");
	}
	if (strcmp(mode, "spawn") == 0) {
		errno = posix_spawn(&pid, self, NULL, NULL, argv, environ);
		if (errno)
			die("posix_spawn");
	} else {
		pid = vfork();
		if (pid == 0) {
			execl(self, self, option, number, (char *)NULL);
			_exit(127);
		}
	}
	close(fd);
	waitpid(pid, &status, 0);
	return status ? 1 : 0;
}

static int on_the_side(void)
{
	char line[16] = "";
	FILE *pipe = popen("echo hello", "r");

	if (!pipe || !fgets(line, sizeof(line), pipe) || pclose(pipe) != 0)
		die("popen");
	return system("exit 3") != 3 << 8 || strcmp(line, "hello\n") != 0;
}

static int run_server(const char *mode, const char *self, const char *port)
{
	int fd = open_server(port);

	if (strcmp(mode, "workers") == 0)
		return workers(fd);
	if (strcmp(mode, "exec") == 0 || strcmp(mode, "spawn") == 0 ||
	    strcmp(mode, "fork-exec") == 0)
		return start_other(mode, self, fd);
	if (strcmp(mode, "side") == 0 && on_the_side())
		return 1;
	say();
	if (strcmp(mode, "daemon") == 0 && daemon(0, 0) < 0)
		die("daemon");
	serve(fd, strcmp(mode, "each") == 0, 1);
	return close(fd) < 0;
}

/* -- the client -------------------------------------------------------------------------------- */

static int run_client(const char *port, int n, char **texts)
{
	struct sockaddr_rxrpc address = address_of(port);
	int fd = socket(AF_RXRPC, SOCK_DGRAM, PF_INET), i, type, flags;
	unsigned long tag;
	size_t len;

	if (fd < 0)
		die("socket");
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("connect");
	for (i = 0; i < n; i++) {
		send_with(fd, (unsigned long)i, 0, texts[i], strlen(texts[i]));
		do {
			type = receive(fd, &tag, &len, &flags);
			if (type) {
				fprintf(stderr, "call %d ended with message %d\n", i, type);
				return 1;
			}
			fwrite(body, 1, len, stdout);
		} while (!(flags & MSG_EOR));
		putchar('\n');
	}
	return close(fd) < 0;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	if (strcmp(argv[1], "call") == 0)
		return run_client(argv[2], argc - 3, argv + 3);
	if (strcmp(argv[1], "inherited") == 0) {
		say();
		serve((int)strtol(argv[2], NULL, 10), 0, 1);
		return 0;
	}
	return run_server(argv[1], argv[0], argv[2]);
}
