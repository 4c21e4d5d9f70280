/* SPDX-License-Identifier: MIT */
/* Sockets that have moved, and what stays as it was: keys, programs that are started, signals. */
#include "fixture.h"
#include "keys.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

/* -- keys -------------------------------------------------------------------------------------- */

static int set_key(int fd, const char *name)
{
	return rx_setsockopt(fd, SOL_RXRPC, RXRPC_SECURITY_KEY, name, (socklen_t)strlen(name)) < 0
		       ? -errno
		       : 0;
}

/* Whoever has the sockets hears of what is done to keys, be it by the parent or by the child. */
static void test_keys_after_a_move(void **state)
{
	int32_t early = (int32_t)OK(key_add("rxrpc", "afs@early", NULL, 0, -2)), late;
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new(), others[3];
	pid_t pid;

	(void)state;
	for (int i = 0; i < 3; i++)
		others[i] = client_new();
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		CHECK_INT(set_key(others[0], "afs@child"), -ENOKEY);
		OK(key_add("rxrpc", "afs@child", NULL, 0, -2));
		CHECK_INT(set_key(others[0], "afs@child"), 0);
		_exit(0);
	}
	finish(pid);
	CHECK_INT(set_key(client, "afs@late"), -ENOKEY);
	late = (int32_t)OK(key_add("rxrpc", "afs@late", NULL, 0, -2));
	OK(key_add("keyring", "ring", NULL, 0, -2));
	CHECK_INT(set_key(client, "afs@late"), 0);
	CHECK_INT(set_key(others[1], "afs@early"), 0);
	OK(rx_setsockopt(others[1], SOL_RXRPC, RXRPC_SECURITY_KEYRING, "ring", 4));
	/* The child's key is there as well: it was told, and nobody took it away. */
	CHECK_INT(set_key(others[2], "afs@child"), 0);
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	reply_to(server, 11);
	expect_data(client, 1, "y", MSG_EOR);
	OK(key_revoke(late));
	CHECK_INT(tag_send(client, 2, "x", 1, &to, 0), -EKEYREVOKED);
	late = (int32_t)OK(key_add("rxrpc", "afs@late", NULL, 0, -2));
	CHECK_INT(tag_send(client, 2, "x", 1, &to, 0), 1);
	OK(key_unlink(late));
	CHECK_INT(tag_send(client, 3, "x", 1, &to, 0), -ENOKEY);
	OK(key_unlink(early));
	CHECK_INT(tag_send(others[1], 1, "x", 1, &to, 0), -ENOKEY);
	for (int i = 0; i < 3; i++)
		OK(rx_close(others[i]));
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- exec -------------------------------------------------------------------------------------- */

/* A program that is started does not disturb the sockets of the one that starts it. */
static void test_exec(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	pid_t pid;

	(void)state;
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		char path[64];

		snprintf(path, sizeof(path), "! test -e /proc/self/fd/%d", server);
		execl("/bin/sh", "sh", "-c", path, (char *)NULL);
		_exit(127);
	}
	finish(pid);
	reply_to(server, 11);
	expect_data(client, 1, "y", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Each function that takes the arguments one by one hands on all of them. */
static void test_exec_lists(void **state)
{
	char variable[] = "STATUS=7", *environment[] = { variable, NULL };
	int server = client_new();

	(void)state;
	for (int way = 0; way < 3; way++) {
		pid_t pid = (pid_t)OK(fork());
		int status;

		if (pid == 0) {
			CHECK_INT(execl("/nowhere", "x", (char *)NULL), -1);
			CHECK_INT(errno, ENOENT);
			if (way == 0)
				execl("/bin/sh", "sh", "-c", "exit $2", "sh", "x", "7", NULL);
			else if (way == 1)
				execlp("sh", "sh", "-c", "exit $2", "sh", "x", "7", NULL);
			else
				execle("/bin/sh", "sh", "-c", "exit $STATUS", NULL, environment);
			_exit(127);
		}
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	}
	OK(rx_close(server));
}

/* A program that has got a socket at its start, by number. */
static int serve_inherited(const char *number)
{
	int server = (int)strtol(number, NULL, 10);

	reply_to(server, 11);
	expect_ack(server, 11);
	OK(rx_close(server));
	return 0;
}

static void call_and_finish(const struct sockaddr_rxrpc *to, pid_t pid)
{
	int client = client_new();

	CHECK_INT(tag_send(client, 1, "x", 1, to, 0), 1);
	expect_data(client, 1, "y", MSG_EOR);
	finish(pid);
	OK(rx_close(client));
}

/* The listening socket is handed to another program, as inetd would. */
static void test_exec_inherits(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5);
	char number[16];
	pid_t pid;

	(void)state;
	OK(fcntl(server, F_SETFD, 0));
	(void)snprintf(number, sizeof(number), "%d", server);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		execl("/proc/self/exe", "server", "--inherited", number, (char *)NULL);
		_exit(127);
	}
	OK(rx_close(server));
	call_and_finish(&to, pid);
}

/* A program that replaces itself keeps its socket. */
static void test_exec_without_fork(void **state)
{
	struct sockaddr_rxrpc to;
	int server, up[2];
	char number[16];
	pid_t pid;

	(void)state;
	OK(pipe2(up, O_CLOEXEC));
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		server = server_new(&to, 5);
		OK(fcntl(server, F_SETFD, 0));
#ifndef AFRX_PLAIN
		OK(aph_rxrpc_share());
#endif
		CHECK_INT(write(up[1], &to, sizeof(to)), sizeof(to));
		(void)snprintf(number, sizeof(number), "%d", server);
		execl("/proc/self/exe", "server", "--inherited", number, (char *)NULL);
		_exit(127);
	}
	CHECK_INT(read(up[0], &to, sizeof(to)), sizeof(to));
	call_and_finish(&to, pid);
	OK(close(up[0]));
	OK(close(up[1]));
}

static void test_spawn(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5);
	char number[16], program[] = "server", option[] = "--inherited";
	char *argv[] = { program, option, number, NULL };
	pid_t pid;

	(void)state;
	OK(fcntl(server, F_SETFD, 0));
	(void)snprintf(number, sizeof(number), "%d", server);
#ifndef AFRX_PLAIN
	OK(aph_rxrpc_share());
#endif
	CHECK_INT(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ), 0);
	OK(rx_close(server));
	call_and_finish(&to, pid);
}

#ifndef AFRX_PLAIN
static volatile sig_atomic_t n_signals;

static void count_signal(int number)
{
	(void)number;
	n_signals++;
}

/* A child that ends while sockets move is heard of, whatever else ends then. */
static void test_share_keeps_signals(void **state)
{
	struct sigaction action = { .sa_handler = count_signal, .sa_flags = SA_RESTART }, before;
	uint64_t until_ns;
	siginfo_t info;
	pid_t pid;

	(void)state;
	OK(sigaction(SIGCHLD, &action, &before));
	for (int round = 0; round < 200; round++) {
		int fd = client_new();

		n_signals = 0;
		/* Past the library, which is to move them later. */
		pid = (pid_t)OK(_Fork());
		if (pid == 0) {
			usleep((useconds_t)round * 13 % 2500);
			_exit(0);
		}
		OK(aph_rxrpc_share());
		OK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
		until_ns = aph_deadline_ms((uint64_t)check_hang_ms(1000));
		while (n_signals == 0 && aph_time_ns() < until_ns)
			usleep(100);
		CHECK(n_signals > 0);
		CHECK_INT(waitpid(pid, NULL, 0), pid);
		OK(rx_close(fd));
	}
	OK(sigaction(SIGCHLD, &before, NULL));
}
#endif

/* A command that is run on the side costs the sockets nothing. */
static void test_system(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	CHECK_INT(system("exit 3"), 3 << 8);
	reply_to(server, 11);
	expect_data(client, 1, "y", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_keys_after_a_move),
		SUITE_TEST(test_exec),
		SUITE_TEST(test_exec_lists),
		SUITE_TEST(test_exec_inherits),
		SUITE_TEST(test_exec_without_fork),
		SUITE_TEST(test_spawn),
#ifndef AFRX_PLAIN
		SUITE_TEST(test_share_keeps_signals),
#endif
		SUITE_TEST(test_system),
	};

	if (argc == 3 && strcmp(argv[1], "--inherited") == 0)
		return serve_inherited(argv[2]);

	return suite_run("af_rxrpc exec", tests, SUITE_LEN(tests), 60);
}
