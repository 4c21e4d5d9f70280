/* SPDX-License-Identifier: MIT */
/* Copies of descriptors: dup, fork, exec, and every way of closing them. */
#include "fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/wait.h>

static struct got got;

/* -- dup ------------------------------------------------------------------------------------------------------- */

/* The last close counts, whichever it is. */
static void test_dup(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	int copies[3];

	(void)state;
	copies[0] = (int)OK(dup(server));
	copies[1] = (int)OK(fcntl(server, F_DUPFD_CLOEXEC, 100));
	copies[2] = (int)OK(dup3(server, 200, O_CLOEXEC));
	OK(rx_close(server));
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	expect_note(copies[0], &got, 0, RXRPC_NEW_CALL);
	OK(rx_close(copies[0]));
	CHECK_INT(tag_command(copies[1], 11, RXRPC_ACCEPT), 0);
	expect_data(copies[2], 11, "x", 0);
	OK(rx_close(copies[2]));
	CHECK(!polls(client, POLLIN, 50));
	OK(rx_close(copies[1]));
	CHECK(polls(client, POLLIN, check_ms(5000)));
	OK(rx_close(client));
}

/* A descriptor that is closed by other means is noticed all the same. */
static void test_closed_by_others(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new(),
	    null = (int)OK(open("/dev/null", O_RDWR));

	(void)state;
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	OK(dup2(null, server));
	CHECK(polls(client, POLLIN, check_ms(5000)));
	receive(client, &got, 10, 0);
	CHECK(got.type == RXRPC_ABORT || got.type == RXRPC_NET_ERROR);
	OK(close(server));
	/* The address is free again at once. */
	server = client_new();
	OK(bind_to(server, &to));
	OK(close_range((unsigned)server, (unsigned)server, 0));
	server = client_new();
	OK(bind_to(server, &to));
	OK(rx_close(server));
	OK(rx_close(client));
	OK(close(null));
}

/* Many sockets, one after the other: numbers and ports come back. */
static void test_many(void **state)
{
	struct sockaddr_rxrpc to = loopback(free_port(), SERVICE);
	int i, fd;

	(void)state;
	for (i = 0; i < 200; i++) {
		fd = client_new();
		OK(bind_to(fd, &to));
		OK(rx_close(fd));
	}
}

/* -- fork ------------------------------------------------------------------------------------------------------- */

/* Waits for a child; its exit status has to be 0. */
static void finish(pid_t pid)
{
	int status;

	CHECK_INT(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void reply_to(int server, unsigned long tag)
{
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, tag, RXRPC_ACCEPT), 0);
	expect_data(server, tag, "x", 0);
	CHECK_INT(tag_send(server, tag, "y", 1, NULL, 0), 1);
}

static void expect_ack(int server, unsigned long tag)
{
	expect_note(server, &got, tag, RXRPC_ACK);
}

/* A child that closes its copies, or just ends, does not disturb its parent's calls. */
static void test_child_closes(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	pid_t pid;

	(void)state;
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		OK(rx_close(server));
		_exit(0);
	}
	finish(pid);
	CHECK(!polls(client, POLLIN, 50));
	reply_to(server, 11);
	expect_data(client, 1, "y", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* A client's socket goes on in the child, on its own; the calls are the parent's. */
static void test_client_in_child(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	int copy = (int)OK(dup(client));
	pid_t pid;

	(void)state;
	OK(connect_to(client, &to));
	CHECK_INT(tag_send(client, 1, "x", 1, NULL, 0), 1);
	reply_to(server, 11);
	CHECK(polls(client, POLLIN, check_ms(5000)));
	CHECK_INT(tag_send(client, 2, "x", 1, NULL, MSG_MORE), 1);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		CHECK_INT(tag_abort(client, 1, 1), -EBADSLT);
		CHECK_INT(tag_send(copy, 3, "x", 1, NULL, 0), 1);
		expect_data(client, 3, "y", MSG_EOR);
		CHECK(!polls(copy, POLLIN, 0));
		OK(rx_close(client));
		OK(rx_close(copy));
		_exit(0);
	}
	reply_to(server, 12);
	expect_ack(server, 12);
	finish(pid);
	expect_data(client, 1, "y", MSG_EOR);
	expect_ack(server, 11);
	CHECK_INT(tag_send(client, 2, NULL, 0, NULL, 0), 0);
	reply_to(server, 13);
	expect_data(client, 2, "y", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(copy));
	OK(rx_close(server));
}

/* A server's port is the parent's as long as that has it; then the child can have it, as daemons do. */
static void test_server_in_child(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new(), go[2];
	char byte;
	pid_t pid;

	(void)state;
	OK(pipe2(go, O_CLOEXEC));
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		receive(server, &got, 10, MSG_DONTWAIT);
		CHECK_INT(got.n, -ENOTCONN);
		CHECK_INT(write(go[1], "", 1), 1);
		do {
			receive(server, &got, 0, MSG_DONTWAIT | MSG_PEEK);
		} while (got.n == -ENOTCONN);
		reply_to(server, 11);
		expect_ack(server, 11);
		OK(rx_close(server));
		_exit(0);
	}
	CHECK_INT(read(go[0], &byte, 1), 1);
	OK(rx_close(server)); /* aborts nothing: there are no calls */
	usleep(100000);
	for (;;) {
		CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
		receive_soon(client, &got, 10, 0);
		if (got.n == 1)
			break;
		/* The child is not there yet. */
		CHECK(got.type == RXRPC_NET_ERROR || got.type == RXRPC_BUSY);
		usleep(20000);
	}
	CHECK(got.data[0] == 'y' && got.flags == MSG_EOR);
	finish(pid);
	OK(rx_close(client));
	OK(close(go[0]));
	OK(close(go[1]));
}

#ifdef AFRX_PLAIN
/* A daemon that waits in epoll is found there, too: waiting is enough to take the socket up. */
static void test_daemon(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new(), ep;
	struct epoll_event event = { .events = EPOLLIN };
	pid_t pid = (pid_t)OK(fork());

	(void)state;
	if (pid == 0) {
		ep = (int)OK(epoll_create1(EPOLL_CLOEXEC));
		OK(epoll_ctl(ep, EPOLL_CTL_ADD, server, &event));
		CHECK_INT(epoll_wait(ep, &event, 1, check_ms(5000)), 1);
		reply_to(server, 11);
		expect_ack(server, 11);
		_exit(0);
	}
	OK(close(server));
	for (;;) {
		CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
		receive_soon(client, &got, 10, 0);
		if (got.n == 1)
			break;
		CHECK(got.type == RXRPC_NET_ERROR || got.type == RXRPC_BUSY);
		usleep(20000);
	}
	finish(pid);
	OK(close(client));
}
#endif

/* -- exec ------------------------------------------------------------------------------------------------------- */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_dup),
		SUITE_TEST(test_closed_by_others),
		SUITE_TEST(test_many),
		SUITE_TEST(test_child_closes),
		SUITE_TEST(test_client_in_child),
		SUITE_TEST(test_server_in_child),
		SUITE_TEST(test_exec),
#ifdef AFRX_PLAIN
		SUITE_TEST(test_daemon),
#endif
	};

	return suite_run("af_rxrpc processes", tests, SUITE_LEN(tests), 60);
}
