/* SPDX-License-Identifier: MIT */
/* Threads that are in a function of a socket while another thread forks. */
#include "fixture.h"

#include <pthread.h>

static struct got got;

/* A thread that sleeps in a function while another one forks goes on there. */
static void *receive_in_thread(void *arg)
{
	static struct got mine;

	receive(*(int *)arg, &mine, 10, 0);
	CHECK_INT(mine.n, 0);
	CHECK_INT(mine.type, RXRPC_NEW_CALL);
	return NULL;
}

static void test_fork_meanwhile(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	pthread_t thread;

	(void)state;
	CHECK_INT(pthread_create(&thread, NULL, receive_in_thread, &server), 0);
	usleep(20000);
	fork_once();
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	CHECK_INT(pthread_join(thread, NULL), 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

#define CHANNELS 16
#define LARGE	 (4u << 20)

/* A thread in one function. */
struct sleeper {
	int fd;
	unsigned long tag;
	size_t len;
	ssize_t result;
	pthread_t thread;
};

static void *send_in_thread(void *arg)
{
	struct sleeper *sleeper = arg;
	char *body = calloc(1, sleeper->len);

	CHECK(body != NULL);
	sleeper->result = tag_send(sleeper->fd, sleeper->tag, body, sleeper->len, NULL, MSG_MORE);
	free(body);
	return NULL;
}

/* Until there is no room, or a moment long where nothing tells. */
static void begin_sending(struct sleeper *sleeper, int fd, unsigned long tag, size_t len)
{
	*sleeper = (struct sleeper){ .fd = fd, .tag = tag, .len = len };
	CHECK_INT(pthread_create(&sleeper->thread, NULL, send_in_thread, sleeper), 0);
	while (len > 1 && polls(fd, POLLOUT, 0))
		usleep(1000);
	usleep(50000);
}

/* A body that is on its way is sent to its end, by whoever has the socket now. */
static void test_fork_while_sending(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct sleeper sleeper;
	size_t at = 0;

	(void)state;
	OK(connect_to(client, &to));
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	begin_sending(&sleeper, client, 1, LARGE);
	fork_once();
	do {
		receive_soon(server, &got, sizeof(got.data), MSG_DONTWAIT);
		CHECK(got.n > 0 && got.tag == 11);
		at += (size_t)got.n;
	} while (at + 1412 < LARGE);
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK_INT(sleeper.result, LARGE);
	CHECK_INT(tag_send(client, 1, "end", 3, NULL, 0), 3);
	while (at < LARGE + 3) {
		receive_soon(server, &got, sizeof(got.data), 0);
		CHECK(got.n > 0 && got.tag == 11);
		at += (size_t)got.n;
	}
	CHECK_INT(got.flags, 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Whoever waits for a channel gets one that becomes free there. */
static void test_fork_without_channel(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct sleeper sleeper;
	unsigned long tag;

	(void)state;
	OK(connect_to(client, &to));
	for (tag = 1; tag <= CHANNELS; tag++)
		CHECK_INT(tag_send(client, tag, "x", 1, NULL, MSG_MORE | MSG_DONTWAIT), 1);
	begin_sending(&sleeper, client, tag, 1);
	fork_once();
	CHECK_INT(tag_abort(client, 5, 1), 0);
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK_INT(sleeper.result, 1);
	CHECK_INT(tag_abort(client, tag, 1), 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void *read_in_thread(void *arg)
{
	struct sleeper *sleeper = arg;
	static struct got mine;

	receive(sleeper->fd, &mine, sizeof(mine.data), 0);
	CHECK(mine.tag == 11 && mine.flags == MSG_MORE);
	sleeper->result = mine.n;
	return NULL;
}

/* Who has read a part returns with it, and leaves nothing in the pair that is not there. */
static void test_fork_while_reading(void **state)
{
	static char part[5000];
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct sleeper sleeper = { .fd = server };
	size_t at;

	(void)state;
	OK(connect_to(client, &to));
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(client, 1, part, sizeof(part), NULL, MSG_MORE), sizeof(part));
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	CHECK_INT(pthread_create(&sleeper.thread, NULL, read_in_thread, &sleeper), 0);
	usleep(50000);
	fork_once();
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK(sleeper.result > 0 && (size_t)sleeper.result <= sizeof(part));
	CHECK_INT(tag_send(client, 1, part, sizeof(part), NULL, 0), sizeof(part));
	for (at = (size_t)sleeper.result; at < 2 * sizeof(part); at += (size_t)got.n) {
		receive_soon(server, &got, 1000, MSG_DONTWAIT);
		CHECK(got.n > 0 && got.tag == 11);
	}
	CHECK_INT(got.flags, 0);
	expect_nothing(server);
	OK(rx_close(client));
	OK(rx_close(server));
}
static void *receive_too_late(void *arg)
{
	static struct got mine;

	receive(*(int *)arg, &mine, 10, 0);
	CHECK(mine.n < 0); /* the number may be that of something else by now */
	return NULL;
}

/* Closed while a thread still waits, it ends with the move, and its address is free. */
static void test_fork_after_close(void **state)
{
	uint64_t until_ns = aph_deadline_ms((uint64_t)check_hang_ms(5000));
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), r;
	pthread_t thread;

	(void)state;
	CHECK_INT(pthread_create(&thread, NULL, receive_too_late, &server), 0);
	usleep(50000);
	OK(rx_close(server));
	fork_once();
	CHECK_INT(pthread_join(thread, NULL), 0);
	server = client_new();
	while ((r = bind_to(server, &to)) == -EADDRINUSE && aph_time_ns() < until_ns)
		usleep(1000);
	OK(r);
	OK(rx_close(server));
}

/* Whoever sleeps has nothing to do with another socket that has got the number meanwhile. */
static void test_fork_after_reuse(void **state)
{
	struct sockaddr_rxrpc to, other_to;
	int server = server_new(&to, 5), other_server = server_new(&other_to, 5);
	int client = client_new(), other = client_new();
	struct sleeper sleeper;

	(void)state;
	OK(connect_to(client, &to));
	OK(connect_to(other, &other_to));
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	begin_sending(&sleeper, client, 1, LARGE);
	OK(dup2(other, client));
	fork_once();
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK(sleeper.result > 0 && sleeper.result < LARGE);
	expect_nothing(other_server);
	OK(rx_close(client));
	OK(rx_close(other));
	OK(rx_close(other_server));
	OK(rx_close(server));
}

#define PORTS 16

static void *fork_in_thread(void *arg)
{
	(void)arg;
	fork_once();
	return NULL;
}

/*
 * Two threads fork at once, and the child of the later one goes on to fork: it has nothing of the
 * other one's.
 */
static void test_fork_twice(void **state)
{
	int fds[PORTS], round, i;
	pthread_t thread;
	pid_t pid;

	(void)state;
	for (round = 0; round < 30; round++) {
		for (i = 0; i < PORTS; i++) {
			struct sockaddr_rxrpc at;

			fds[i] = server_new(&at, 1);
		}
		CHECK_INT(pthread_create(&thread, NULL, fork_in_thread, NULL), 0);
		usleep((useconds_t)round * 100);
		pid = (pid_t)OK(fork());
		if (pid == 0) {
			OK(rx_close(client_new()));
			fork_once();
			_exit(0);
		}
		finish(pid);
		CHECK_INT(pthread_join(thread, NULL), 0);
		for (i = 0; i < PORTS; i++)
			OK(rx_close(fds[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_fork_meanwhile),       SUITE_TEST(test_fork_while_sending),
		SUITE_TEST(test_fork_without_channel), SUITE_TEST(test_fork_while_reading),
		SUITE_TEST(test_fork_after_close),     SUITE_TEST(test_fork_after_reuse),
		SUITE_TEST(test_fork_twice),
	};

	return suite_run("af_rxrpc forks", tests, SUITE_LEN(tests), 60);
}
