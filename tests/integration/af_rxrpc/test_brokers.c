/* SPDX-License-Identifier: MIT */
/* The broker as such: who is there at its name, what it does for whom, and when it ends. */
#include "fixture.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

/* Where a broker would listen that got this socket. */
static socklen_t broker_of(int fd, struct sockaddr_un *name)
{
	socklen_t len = sizeof(*name);

	/* The preload library would say that there is no such thing. */
	OK(syscall(SYS_getpeername, fd, name, &len));
	while (name->sun_path[len - offsetof(struct sockaddr_un, sun_path) - 1] != '/')
		len--;
	name->sun_path[len - offsetof(struct sockaddr_un, sun_path)] = '0';
	return len + 1;
}

/* Another user, who listens there first, and does not get a word. */
static void squat(int from, int to)
{
	struct sockaddr_un name;
	socklen_t len;
	char byte;
	int fd;

	OK(setuid(65534));
	CHECK_INT(read(from, &len, sizeof(len)), sizeof(len));
	CHECK_INT(read(from, &name, len), len);
	fd = (int)OK(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	OK(bind(fd, (const struct sockaddr *)&name, len));
	OK(listen(fd, 5));
	CHECK_INT(write(to, "r", 1), 1);
	fd = (int)OK(accept(fd, NULL, NULL));
	CHECK_INT(recv(fd, &byte, 1, 0), 0);
	_exit(0);
}

static void test_false_broker(void **state)
{
	int up[2], down[2], client;
	struct sockaddr_rxrpc any = loopback(0, 0);
	struct sockaddr_un name;
	pid_t squatter, pid;
	socklen_t len;
	char byte;

	(void)state;
	if (geteuid() != 0)
		suite_skip("only root can be two users");
	OK(pipe2(up, O_CLOEXEC));
	OK(pipe2(down, O_CLOEXEC));
	squatter = (pid_t)OK(fork());
	if (squatter == 0)
		squat(down[0], up[1]);
	client = client_new();
	len = broker_of(client, &name);
	CHECK_INT(write(down[1], &len, sizeof(len)), sizeof(len));
	CHECK_INT(write(down[1], &name, len), len);
	CHECK_INT(read(up[0], &byte, 1), 1);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		CHECK_INT(bind_to(client, &any), -ENOTCONN);
		_exit(0);
	}
	finish(pid);
	finish(squatter);
	OK(bind_to(client, &any)); /* here it is as it was */
	OK(rx_close(client));
	for (int i = 0; i < 2; i++) {
		OK(close(up[i]));
		OK(close(down[i]));
	}
}
int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_false_broker),
	};

	return suite_run("af_rxrpc brokers", tests, SUITE_LEN(tests), 60);
}
