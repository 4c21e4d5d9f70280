/* SPDX-License-Identifier: MIT */
/* The broker as such: who is there at its name, what it does for whom, and when it ends. */
#include "fixture.h"
#include "support/fds.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
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

/* Until the last one has let go of the name. */
static void await_no_broker(const struct sockaddr_un *name, socklen_t len)
{
	uint64_t until_ns = aph_deadline_ms((uint64_t)check_hang_ms(5000));
	int fd = (int)OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)), r;

	while ((r = bind(fd, (const struct sockaddr *)name, len)) < 0 && aph_time_ns() < until_ns)
		usleep(1000);
	OK(r);
	OK(close(fd));
}

/* Whether it has the name of a broker. */
static bool is_bound_to_zero(int fd)
{
	struct sockaddr_un name = { 0 };
	socklen_t len = sizeof(name);

	if (syscall(SYS_getsockname, fd, &name, &len) < 0 || name.sun_family != AF_UNIX)
		return false;
	return memcmp(name.sun_path + 1, "afrxrpc/", 8) == 0 &&
	       name.sun_path[len - offsetof(struct sockaddr_un, sun_path) - 1] == '0' &&
	       name.sun_path[len - offsetof(struct sockaddr_un, sun_path) - 2] == '/';
}

/* Another user, who listens there, and does not get a word. */
static void squat(const struct sockaddr_un *name, socklen_t len, int to)
{
	char byte;
	int fd;

	OK(setuid(65534));
	fd = (int)OK(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	OK(bind(fd, (const struct sockaddr *)name, len));
	OK(listen(fd, 5));
	CHECK_INT(write(to, "r", 1), 1);
	fd = (int)OK(accept(fd, NULL, NULL));
	CHECK_INT(recv(fd, &byte, 1, 0), 0);
	_exit(0);
}

/* Who listens there. */
static pid_t pid_of(const struct sockaddr_un *name, socklen_t len)
{
	int fd = (int)OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	struct ucred peer;
	socklen_t peer_len = sizeof(peer);

	OK(connect(fd, (const struct sockaddr *)name, len));
	OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len));
	OK(close(fd));
	return peer.pid;
}

/* When the broker has died. */
static void test_false_broker(void **state)
{
	struct sockaddr_rxrpc any = loopback(0, 0);
	struct sockaddr_un name;
	int up[2], client;
	pid_t squatter;
	socklen_t len;
	char byte;

	(void)state;
	if (geteuid() != 0)
		suite_skip("only root can be two users");
	OK(pipe2(up, O_CLOEXEC));
	client = client_new();
	len = broker_of(client, &name);
	fork_once();
	OK(kill(pid_of(&name, len), SIGKILL));
	await_no_broker(&name, len);
	CHECK_INT(bind_to(client, &any), -ENOTCONN);
	squatter = (pid_t)OK(fork());
	if (squatter == 0)
		squat(&name, len, up[1]);
	CHECK_INT(read(up[0], &byte, 1), 1);
	CHECK_INT(bind_to(client, &any), -ENOTCONN);
	finish(squatter);
	OK(rx_close(client));
	OK(close(up[0]));
	OK(close(up[1]));
}

/*
 * From the first socket on nobody else can have the name, and nobody is there as long as there is
 * no broker.
 */
static void test_name_is_taken(void **state)
{
	struct sockaddr_rxrpc any = loopback(0, 0);
	int client = client_new(), other = client_new();
	int fd = (int)OK(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	struct sockaddr_un name;
	socklen_t len = broker_of(client, &name);
	const struct sockaddr *address = (const struct sockaddr *)&name;

	(void)state;
	FAILS(bind(fd, address, len), EADDRINUSE);
	FAILS(connect(fd, address, len), ECONNREFUSED);
	fork_once();
	FAILS(bind(fd, address, len), EADDRINUSE);
	OK(bind_to(client, &any));
	OK(connect(fd, address, len));
	OK(rx_close(client));
	OK(rx_close(other));
	await_no_broker(&name, len);
	OK(close(fd));
}

/* A program may close what it does not know. */
static void test_name_is_closed(void **state)
{
	struct sockaddr_rxrpc any = loopback(0, 0);
	int client, fd;
	pid_t pid;

	(void)state;
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		client = client_new();
		for (fd = 3; fd < 100; fd++)
			if (fd != client && is_bound_to_zero(fd))
				OK(syscall(SYS_close, fd));
		fork_once();
		OK(bind_to(client, &any));
		OK(rx_close(client));
		_exit(0);
	}
	finish(pid);
}

/*
 * With a broker, what leads to it ends, also if the library has not heard of the last close: that
 * is found out with the next broker.
 */
static void test_unheard_close(void **state)
{
	uint64_t until_ns = aph_deadline_ms((uint64_t)check_hang_ms(5000));
	struct sockaddr_rxrpc any = loopback(0, 0);
	int before = fds_count(), client, i;

	(void)state;
	for (i = 0; i < 3; i++) {
		client = client_new();
		fork_once();
		OK(bind_to(client, &any));
		OK(syscall(SYS_close, client));
	}
	/* The brokers may be at their ends still. */
	do {
		client = client_new();
		fork_once();
		OK(bind_to(client, &any));
		OK(rx_close(client));
	} while (fds_count() > before && aph_time_ns() < until_ns);
	CHECK_INT(fds_count(), before);
}

/* -- clients that do not keep to the rules ----------------------------------------------------- */

/* As much of the broker's own messages as a client needs that is to be a bad one. */
static ssize_t say(int fd, char what, const int *fds, unsigned n)
{
	char control[CMSG_SPACE(2 * sizeof(int))] __attribute__((aligned(16))) = { 0 };
	struct iovec iov = { &what, 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	if (n) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(n * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&message);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n * sizeof(int));
	}
	return syscall(SYS_sendmsg, fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A connection with memory for questions, all of them zeros. */
static int connect_to_broker(int outer, const struct sockaddr_un *name, socklen_t len)
{
	int fd = (int)OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	int fds[2] = { (int)OK(memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING)), outer };

	OK(ftruncate(fds[0], 1 << 17));
	OK(fcntl(fds[0], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL));
	OK(connect(fd, (const struct sockaddr *)name, len));
	OK(say(fd, 'h', fds, 2));
	OK(close(fds[0]));
	return fd;
}

/*
 * One that asks and asks, and reads no answer, does not keep the broker when all sockets are
 * closed.
 */
static void test_no_answer_is_read(void **state)
{
	uint64_t until_ns = aph_deadline_ms(300);
	struct sockaddr_un name;
	int client = client_new(), fd, n = 0;
	socklen_t len = broker_of(client, &name);

	(void)state;
	fork_once();
	fd = connect_to_broker(client, &name, len);
	while (aph_time_ns() < until_ns && n < 100000)
		if (say(fd, 'a', &client, 1) == 1)
			n++;
	CHECK(n > 100);
	OK(rx_close(client));
	await_no_broker(&name, len);
	OK(close(fd));
}

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static int n_files(pid_t pid)
{
	char path[64];
	DIR *dir;
	int n = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	CHECK(dir != NULL);
	while (readdir(dir))
		n++;
	OK(closedir(dir));
	return n;
}

/* Those with descriptors and pointers are of the process that sets and gets them. */
static void test_options_of_the_pair(void **state)
{
	struct sock_filter instruction = { .code = BPF_RET, .k = 0 };
	struct sock_fprog program = { .len = 1, .filter = &instruction };
	struct timeval limit = { .tv_sec = 1 }, got_limit = { 0 };
	struct sockaddr_un name;
	int client = client_new(), pidfd = -1, n;
	socklen_t name_len = broker_of(client, &name), len = sizeof(pidfd);
	pid_t broker;

	(void)state;
	fork_once();
	broker = pid_of(&name, name_len);
	/* Once, so that there is a connection. */
	OK(rx_getsockopt(client, SOL_SOCKET, SO_TYPE, &pidfd, &len));
	CHECK_INT(pidfd, SOCK_DGRAM);
	n = n_files(broker);
	for (int i = 0; i < 10; i++) {
		len = sizeof(pidfd);
		if (rx_getsockopt(client, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0)
			OK(close(pidfd)); /* it is one of this process */
	}
	CHECK_INT(n_files(broker), n);
	OK(rx_setsockopt(client, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
	OK(rx_setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	len = sizeof(got_limit);
	OK(rx_getsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &got_limit, &len));
	CHECK_INT(got_limit.tv_sec, 1);
	OK(rx_close(client));
}

#define CONNECTIONS 1024
#define LIMIT	    40

/*
 * When it has as many connections as it may, or descriptors, whoever comes hears that it is full,
 * not that it is gone.
 */
static void be_full(int n_connections, rlim_t limit)
{
	struct sockaddr_rxrpc any = loopback(0, 0);
	struct sockaddr_un name;
	int client = client_new(), *fds = calloc((size_t)n_connections, sizeof(*fds)), i, r;
	socklen_t len = broker_of(client, &name);
	struct rlimit before, less;
	pid_t broker;

	CHECK(fds != NULL);
	fork_once();
	broker = pid_of(&name, len);
	OK(prlimit(broker, RLIMIT_NOFILE, NULL, &before));
	less = before;
	less.rlim_cur = limit ? limit : before.rlim_cur;
	OK(prlimit(broker, RLIMIT_NOFILE, &less, NULL));
	for (i = 0; i < n_connections; i++)
		fds[i] = connect_to_broker(client, &name, len);
	for (i = 0; i < 3; i++) {
		r = bind_to(client, &any);
		/* It may be let in, and have no descriptor to bind with. */
		CHECK(r == -ENOBUFS || (limit && r == -EMFILE));
	}
	OK(prlimit(broker, RLIMIT_NOFILE, &before, NULL));
	for (i = 0; i < n_connections; i++)
		OK(close(fds[i]));
	while ((r = bind_to(client, &any)) == -ENOBUFS || r == -EMFILE)
		usleep(1000);
	CHECK_INT(r, 0);
	OK(rx_close(client));
	free(fds);
}

static void test_too_many_connections(void **state)
{
	struct rlimit limit;

	(void)state;
	OK(getrlimit(RLIMIT_NOFILE, &limit));
	if (limit.rlim_max < CONNECTIONS + 100)
		suite_skip("too few descriptors");
	limit.rlim_cur = limit.rlim_max;
	OK(setrlimit(RLIMIT_NOFILE, &limit));
	be_full(CONNECTIONS, 0);
}

static void test_too_many_files(void **state)
{
	(void)state;
	be_full(LIMIT, LIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_false_broker),	       SUITE_TEST(test_name_is_taken),
		SUITE_TEST(test_name_is_closed),       SUITE_TEST(test_unheard_close),
		SUITE_TEST(test_no_answer_is_read),    SUITE_TEST(test_options_of_the_pair),
		SUITE_TEST(test_too_many_connections), SUITE_TEST(test_too_many_files),
	};

	return suite_run("af_rxrpc brokers", tests, SUITE_LEN(tests), 60);
}
