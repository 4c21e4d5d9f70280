/* SPDX-License-Identifier: MIT */
/* Copies of descriptors: dup, fork, and every way of closing them. */
#include "fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

static struct got got;

/* -- dup --------------------------------------------------------------------------------------- */

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
	CHECK(polls(client, POLLIN, check_hang_ms(5000)));
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
	CHECK(polls(client, POLLIN, check_hang_ms(5000)));
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
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE);
	int i, fd;

	(void)state;
	for (i = 0; i < 200; i++) {
		fd = client_new();
		OK(bind_to(fd, &to));
		OK(rx_close(fd));
	}
}

/* Those without a port are not heard of, and do not use up what the program may have open. */
static void test_many_unbound(void **state)
{
	struct rlimit limit, before;
	int i, fd, keep = client_new();

	(void)state;
	OK(getrlimit(RLIMIT_NOFILE, &before));
	limit = before;
	limit.rlim_cur = (rlim_t)keep + 20;
	OK(setrlimit(RLIMIT_NOFILE, &limit));
	for (i = 0; i < 100; i++) {
		fd = client_new();
		OK(close_range((unsigned)fd, (unsigned)fd, 0));
	}
	OK(setrlimit(RLIMIT_NOFILE, &before));
	OK(rx_close(keep));
	/* It is the next one that ends the last one. */
	OK(rx_close(client_new()));
}

static int n_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	int n = 0;

	CHECK(dir != NULL);
	while (readdir(dir))
		n++;
	OK(closedir(dir));
	return n - 2;
}

/* All ports are gone, with all they had. */
static void await_one_thread(void)
{
	uint64_t until_ns = aph_deadline_ms((uint64_t)check_hang_ms(5000));

	while (n_threads() > 1 && aph_time_ns() < until_ns)
		usleep(1000);
	CHECK_INT(n_threads(), 1);
}

#define MANY 20

/* Sockets with a port each, at the numbers from here on, of which the library has not heard. */
static void bind_many(int first)
{
	static uint16_t ports[MANY]; /* few, as other tests look for free ones as well */
	struct sockaddr_rxrpc at;
	int fd, i;

	for (i = 0; i < MANY; i++) {
		fd = client_new();
		do {
			ports[i] = ports[i] ? ports[i] : port_free(AF_INET);
			at = loopback(ports[i], SERVICE);
			if (bind_to(fd, &at) == 0)
				break;
			CHECK_INT(errno, EADDRINUSE);
			ports[i] = 0;
		} while (true);
		OK(dup2(fd, first + i));
		OK(close(fd));
	}
}

/*
 * Ports whose sockets are closed together, behind the library's back: their threads end each
 * other's, and all end.
 */
static void test_many_at_once(void **state)
{
	const int first = 900;
	int round;

	(void)state;
	for (round = 0; round < 10; round++) {
		bind_many(first);
		OK(close_range((unsigned)first, (unsigned)first + MANY - 1, 0));
		await_one_thread();
	}
}

static void *send_first(void *arg)
{
	unsigned long tag = (unsigned long)pthread_self();

	CHECK_INT(tag_send(*(int *)arg, tag, "x", 1, NULL, MSG_MORE), 1);
	return NULL;
}

/*
 * Two threads use a socket for the first time while others are noticed to be closed: it is bound
 * once.
 */
static void test_closed_while_binding(void **state)
{
	const int first = 900;
	pthread_t threads[2];
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE);
	int round, i, client;

	(void)state;
	for (round = 0; round < 50; round++) {
		bind_many(first);
		client = client_new();
		OK(connect_to(client, &to));
		OK(close_range((unsigned)first, (unsigned)first + MANY - 1, 0));
		for (i = 0; i < 2; i++)
			CHECK_INT(pthread_create(&threads[i], NULL, send_first, &client), 0);
		for (i = 0; i < 2; i++)
			CHECK_INT(pthread_join(threads[i], NULL), 0);
		OK(rx_close(client));
	}
	await_one_thread();
}

/* -- fork -------------------------------------------------------------------------------------- */

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

/*
 * Takes one message, and answers it with "y" if it is a request. Whether it was an acknowledgement.
 */
static bool serve(int server)
{
	receive_soon(server, &got, 10, 0);
	if (got.type == 0 && !(got.flags & MSG_MORE))
		CHECK_INT(tag_send(server, got.tag, "y", 1, NULL, 0), 1);
	return got.type == RXRPC_ACK;
}

/* What the parent has begun the child can end, and the other way round. */
static void test_calls_are_shared(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 10), client = client_new();
	unsigned long tag;
	pid_t pid;
	int n;

	(void)state;
	for (tag = 11; tag < 21; tag++)
		CHECK_INT(tag_command(server, tag, RXRPC_CHARGE_ACCEPT), 0);
	OK(connect_to(client, &to));
	CHECK_INT(tag_send(client, 1, "x", 1, NULL, 0), 1);
	CHECK_INT(tag_send(client, 2, "x", 1, NULL, MSG_MORE), 1);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		expect_data(client, 1, "y", MSG_EOR);
		CHECK_INT(tag_send(client, 1, "x", 1, NULL, MSG_MORE), 1);
		CHECK_INT(tag_abort(client, 1, 7), 0);
		CHECK_INT(tag_send(client, 2, NULL, 0, NULL, 0), 0);
		expect_data(client, 2, "y", MSG_EOR);
		CHECK_INT(tag_send(client, 3, "x", 1, NULL, 0), 1);
		OK(rx_close(client));
		_exit(0);
	}
	for (n = 0; n < 2;)
		n += serve(server);
	finish(pid);
	/* It is known here, and its request is over. */
	CHECK(tag_send(client, 3, "x", 1, NULL, 0) < 0);
	while (!polls(client, POLLIN, 0))
		(void)serve(server);
	expect_data(client, 3, "y", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

/*
 * The parent ends, and the child goes on with the socket that was bound before: no caller notices.
 */
static void test_daemon(void **state)
{
	struct sockaddr_rxrpc to;
	int server, client = client_new(), up[2];
	char byte;
	pid_t pid;

	(void)state;
	OK(pipe2(up, O_CLOEXEC));
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		server = server_new(&to, 5);
		CHECK_INT(write(up[1], &to, sizeof(to)), sizeof(to));
		pid = (pid_t)OK(fork());
		if (pid > 0)
			_exit(0);
		OK(setsid());
		CHECK(polls(server, POLLIN, check_hang_ms(5000)));
		reply_to(server, 11);
		expect_ack(server, 11);
		_exit(0);
	}
	OK(close(up[1]));
	CHECK_INT(read(up[0], &to, sizeof(to)), sizeof(to));
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	finish(pid);
	expect_data(client, 1, "y", MSG_EOR);
	/* Nobody but the daemon has the pipe open, the broker least of all. */
	CHECK_INT(read(up[0], &byte, 1), 0);
	OK(close(up[0]));
	OK(rx_close(client));
}

#define N_WORKERS 3
#define N_CALLS	  60

/* As long as there is somebody who calls. */
static void work(int server)
{
	static struct got mine;

	for (;;) {
		receive(server, &mine, 100, 0);
		CHECK(mine.n >= 0);
		if (mine.type == RXRPC_ACK) {
			CHECK_INT(tag_command(server, mine.tag, RXRPC_CHARGE_ACCEPT), 0);
			continue;
		}
		CHECK_INT(mine.type, 0);
		if (memcmp(mine.data, "end", 3) == 0)
			_exit(0);
		CHECK_INT(tag_send(server, mine.tag, mine.data, (size_t)mine.n, NULL, 0), mine.n);
	}
}

/* A server that forks its workers when it listens: each call is answered once, by one of them. */
static void test_workers(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 10), client, i;
	unsigned long tag;

	(void)state;
	for (tag = 100; tag < 110; tag++)
		CHECK_INT(tag_command(server, tag, RXRPC_CHARGE_ACCEPT), 0);
	for (i = 0; i < N_WORKERS; i++)
		if (OK(fork()) == 0)
			work(server);
	OK(rx_close(server));
	client = client_new();
	for (i = 0; i < N_CALLS; i += 4) {
		for (tag = 1; tag <= 4; tag++)
			CHECK_INT(tag_send(client, tag, "body", 4, &to, 0), 4);
		for (tag = 1; tag <= 4; tag++) {
			receive_soon(client, &got, 100, 0);
			CHECK(got.n == 4 && got.flags == MSG_EOR);
			CHECK(memcmp(got.data, "body", 4) == 0);
		}
	}
	for (i = 0; i < N_WORKERS; i++)
		CHECK_INT(tag_send(client, 1 + (unsigned long)i, "end", 3, &to, 0), 3);
	for (i = 0; i < N_WORKERS; i++)
		finish(-1);
	/* And the broker is nobody's child. */
	CHECK(wait(NULL) < 0 && errno == ECHILD);
	OK(rx_close(client));
}

/* Processes that together have more open than one of them may. */
static void test_many_processes(void **state)
{
	enum {
		N = 40
	};
	struct rlimit limit, few;
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), go[2], i;
	char byte;

	(void)state;
	OK(getrlimit(RLIMIT_NOFILE, &limit));
	few = limit;
	few.rlim_cur = 64;
	OK(setrlimit(RLIMIT_NOFILE, &few));
	OK(pipe2(go, O_CLOEXEC));
	for (i = 0; i < N; i++) {
		if (OK(fork()) == 0) {
			OK(close(go[1]));
			receive(server, &got, 10, MSG_DONTWAIT);
			CHECK_INT(got.n, -EAGAIN);
			(void)!read(go[0], &byte, 1);
			_exit(0);
		}
	}
	usleep(50000);
	receive(server, &got, 10, MSG_DONTWAIT);
	CHECK_INT(got.n, -EAGAIN);
	OK(close(go[1]));
	for (i = 0; i < N; i++)
		finish(-1);
	OK(setrlimit(RLIMIT_NOFILE, &limit));
	OK(close(go[0]));
	OK(rx_close(server));
}

/* The last descriptor counts, in whatever process it is. */
static void test_last_close(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client, go[2];
	pid_t pid;
	char byte;

	(void)state;
	OK(pipe2(go, O_CLOEXEC));
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		OK(close(go[1]));
		(void)!read(go[0], &byte, 1);
		_exit(0);
	}
	client = client_new();
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	OK(rx_close(server));
	CHECK(!polls(client, POLLIN, 50));
	OK(close(go[1]));
	finish(pid);
	CHECK(polls(client, POLLIN, check_hang_ms(5000)));
	OK(rx_close(client));
	OK(close(go[0]));
	/* And when it is closed here, the address is free at once. */
	to = loopback(port_free(AF_INET), SERVICE);
	server = client_new();
	OK(bind_to(server, &to));
	fork_once();
	OK(rx_close(server));
	server = client_new();
	OK(bind_to(server, &to));
	OK(rx_close(server));
}

static void on_alarm(int number)
{
	(void)number;
}

/* Waiting in another process: time limits, signals, and somebody who is killed meanwhile. */
static void test_waiting(void **state)
{
	/* More than once: the first may come before anybody waits. */
	struct itimerval soon = { .it_value.tv_usec = 50000, .it_interval.tv_usec = 50000 };
	struct itimerval never = { 0 };
	struct timeval limit = { .tv_usec = 30000 };
	struct sigaction action = { .sa_handler = on_alarm }, before;
	unsigned suite_limit_s;
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client;
	pid_t pid;

	(void)state;
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		receive(server, &got, 10, 0);
		_exit(1);
	}
	receive(server, &got, 10, MSG_DONTWAIT);
	CHECK_INT(got.n, -EAGAIN);
	OK(rx_setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	receive(server, &got, 10, 0);
	CHECK_INT(got.n, -EAGAIN);
	limit.tv_usec = 0;
	OK(rx_setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	suite_limit_s = alarm(0);
	OK(sigaction(SIGALRM, &action, &before));
	OK(setitimer(ITIMER_REAL, &soon, NULL));
	receive(server, &got, 10, 0);
	CHECK_INT(got.n, -EINTR);
	OK(setitimer(ITIMER_REAL, &never, NULL));
	OK(sigaction(SIGALRM, &before, NULL));
	(void)alarm(suite_limit_s);
	OK(kill(pid, SIGKILL));
	CHECK_INT(waitpid(pid, NULL, 0), pid);
	client = client_new();
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	reply_to(server, 11);
	expect_data(client, 1, "y", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Many of them, with bodies that do not fit into anything at once. */
static void test_bulk(void **state)
{
	enum {
		SIZE = 3 << 20
	};
	char *body = calloc(1, SIZE);
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new(), i;
	size_t at = 0;
	pid_t pid;

	(void)state;
	CHECK(body != NULL);
	for (i = 0; i < SIZE; i++)
		body[i] = (char)(i * 7);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		CHECK_INT(tag_send(client, 1, body, SIZE, &to, 0), SIZE);
		expect_data(client, 1, "y", MSG_EOR);
		_exit(0);
	}
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	do {
		receive_soon(server, &got, sizeof(got.data), 0);
		CHECK(got.n > 0 && at + (size_t)got.n <= SIZE);
		CHECK(memcmp(got.data, body + at, (size_t)got.n) == 0);
		at += (size_t)got.n;
	} while (got.flags & MSG_MORE);
	CHECK_INT(at, SIZE);
	CHECK_INT(tag_send(server, 11, "y", 1, NULL, 0), 1);
	expect_ack(server, 11);
	finish(pid);
	OK(rx_close(client));
	OK(rx_close(server));
	free(body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_dup),
		SUITE_TEST(test_closed_by_others),
		SUITE_TEST(test_many),
		SUITE_TEST(test_many_unbound),
		SUITE_TEST(test_many_at_once),
		SUITE_TEST(test_closed_while_binding),
		SUITE_TEST(test_child_closes),
		SUITE_TEST(test_calls_are_shared),
		SUITE_TEST(test_daemon),
		SUITE_TEST(test_workers),
		SUITE_TEST(test_many_processes),
		SUITE_TEST(test_last_close),
		SUITE_TEST(test_waiting),
		SUITE_TEST(test_bulk),
	};

	return suite_run("af_rxrpc processes", tests, SUITE_LEN(tests), 60);
}
