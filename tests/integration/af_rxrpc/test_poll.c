/* SPDX-License-Identifier: MIT */
/* What poll(), select() and epoll say of a socket, and that threads may share one. */
#include "fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>

static struct got got;

static void test_idle(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	CHECK(polls(client, POLLOUT | POLLWRNORM, 0));
	CHECK(!polls(client, POLLIN, 0));
	CHECK(polls(server, POLLOUT, 0));
	CHECK(!polls(server, POLLIN, 0));
	OK(rx_close(client));
	OK(rx_close(server));
}

static bool select_says(int fd, bool out, int ms)
{
	struct timeval timeout = { .tv_usec = ms * 1000 };
	fd_set set;
	int n;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	n = select(fd + 1, out ? NULL : &set, out ? &set : NULL, NULL, &timeout);
	CHECK(n >= 0);
	return n == 1;
}

/* Readable from the arrival to the last message taken, and not a moment longer. */
static void test_readable(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	CHECK(!select_says(server, false, 0));
	CHECK(select_says(server, true, 0));
	CHECK_INT(tag_send(client, 1, "abc", 3, &to, 0), 3);
	CHECK(polls(server, POLLIN | POLLRDNORM, check_hang_ms(5000)));
	CHECK(select_says(server, false, 0));
	receive(server, &got, 10, MSG_PEEK);
	CHECK(polls(server, POLLIN, 0));
	receive(server, &got, 10, 0);
	CHECK_INT(got.type, RXRPC_NEW_CALL);
	CHECK(!polls(server, POLLIN, 0));
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	CHECK(polls(server, POLLIN, 0));
	receive(server, &got, 2, 0);
	CHECK(polls(server, POLLIN, 0));
	receive(server, &got, 2, 0);
	CHECK(!polls(server, POLLIN, 0));
	CHECK_INT(tag_send(server, 11, "d", 1, NULL, 0), 1);
	CHECK(polls(client, POLLIN, check_hang_ms(5000)));
	receive(client, &got, 10, 0);
	CHECK(!polls(client, POLLIN, 0));
	OK(rx_close(client));
	OK(rx_close(server));
}

static int epoll_on(int fd, uint32_t events)
{
	struct epoll_event event = { .events = events };
	int ep = (int)OK(epoll_create1(EPOLL_CLOEXEC));

	OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event));
	return ep;
}

static uint32_t epoll_says(int ep, int ms)
{
	struct epoll_event event = { 0 };

	return OK(epoll_wait(ep, &event, 1, ms)) ? event.events : 0;
}

/* Edge-triggered: each arrival is told, also when the one before was left lying. */
static void test_edges(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new(),
	    ep = epoll_on(server, EPOLLIN | EPOLLET);
	unsigned long tag;

	(void)state;
	CHECK_INT(epoll_says(ep, 0), 0);
	for (tag = 1; tag <= 3; tag++) {
		CHECK_INT(tag_send(client, tag, "x", 1, &to, 0), 1);
		CHECK_INT(epoll_says(ep, check_hang_ms(5000)), EPOLLIN);
		CHECK_INT(epoll_says(ep, 0), 0);
	}
	for (tag = 1; tag <= 3; tag++)
		expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_send(client, 4, "x", 1, &to, 0), 1);
	CHECK_INT(epoll_says(ep, check_hang_ms(5000)), EPOLLIN);
	OK(close(ep));
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Not writable while a call has as much under way as it may; an edge when there is room again. */
static void test_writable(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	int ep = epoll_on(client, EPOLLOUT | EPOLLET);
	static char big[4u << 20];
	ssize_t n;
	size_t sent;

	(void)state;
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(epoll_says(ep, 0), EPOLLOUT);
	n = tag_send(client, 1, big, sizeof(big), &to, MSG_MORE | MSG_DONTWAIT);
	CHECK(n > 0);
	for (sent = (size_t)n; !polls(client, POLLOUT, 50) || n > 0; sent += (size_t)n) {
		/* The peer takes a window of it: what is free of that is filled up again. */
		n = tag_send(client, 1, big, sizeof(big), NULL, MSG_MORE | MSG_DONTWAIT);
		if (n == -EAGAIN)
			break;
		CHECK(n > 0);
	}
	while (polls(client, POLLOUT, 20)) {
		n = tag_send(client, 1, big, sizeof(big), NULL, MSG_MORE | MSG_DONTWAIT);
		sent += n > 0 ? (size_t)n : 0;
	}
	(void)epoll_says(ep, 0);
	CHECK_INT(epoll_says(ep, 0), 0);
	CHECK(!polls(client, POLLIN, 0));
	while (sent) {
		receive_soon(server, &got, sizeof(got.data), MSG_DONTWAIT);
		CHECK(got.n > 0);
		sent -= (size_t)got.n;
	}
	CHECK_INT(epoll_says(ep, check_hang_ms(5000)), EPOLLOUT);
	CHECK(polls(client, POLLOUT, 0));
	OK(close(ep));
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_nonblocking(void **state)
{
	int client = client_new();
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5);

	(void)state;
	OK(fcntl(server, F_SETFL, O_NONBLOCK));
	receive(server, &got, 10, 0);
	CHECK_INT(got.n, -EAGAIN);
	OK(fcntl(client, F_SETFL, O_NONBLOCK));
	OK(connect_to(client, &to)); /* never EINPROGRESS */
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- threads ----------------------------------------------------------------------------------- */

#define N_THREADS 4
#define N_CALLS	  200

static struct sockaddr_rxrpc threads_to;

struct caller {
	pthread_t thread;
	unsigned long tag;
	int fd;
};

static void *serve(void *arg)
{
	struct got *mine = calloc(1, sizeof(*mine));
	int fd = *(int *)arg, done = 0;

	CHECK(mine != NULL);
	while (done < N_THREADS * N_CALLS) {
		receive(fd, mine, 100, 0);
		if (mine->n == -EAGAIN)
			continue;
		CHECK(mine->n >= 0);
		if (mine->type == RXRPC_ACK) {
			CHECK_INT(tag_command(fd, mine->tag, RXRPC_CHARGE_ACCEPT), 0);
			done++;
		} else {
			CHECK(mine->type == 0 && mine->flags == 0);
			CHECK_INT(tag_send(fd, mine->tag, mine->data, (size_t)mine->n, NULL, 0),
				  mine->n);
		}
	}
	free(mine);
	return NULL;
}

static void *call_often(void *arg)
{
	struct got *mine = calloc(1, sizeof(*mine));
	const struct caller *caller = arg;
	unsigned long tag = caller->tag;
	int fd = caller->fd, i;

	CHECK(mine != NULL);
	for (i = 0; i < N_CALLS; i++) {
		CHECK_INT(tag_send(fd, tag, &i, sizeof(i), &threads_to, 0), sizeof(i));
		receive(fd, mine, 100, 0);
		if (mine->type == RXRPC_BUSY) {
			i--;
			continue;
		}
		CHECK_INT(mine->n, sizeof(i));
		CHECK(mine->tag == tag && mine->flags == MSG_EOR);
		CHECK(memcmp(mine->data, &i, sizeof(i)) == 0);
	}
	free(mine);
	OK(rx_close(fd));
	return NULL;
}

/* Clients in threads share a port without knowing, and a server answers them all. */
static void test_threads(void **state)
{
	pthread_t server_thread;
	struct caller callers[N_THREADS];
	int server = server_new(&threads_to, 10), i;

	(void)state;
	for (i = 0; i < 10; i++)
		CHECK_INT(tag_command(server, 100 + (unsigned long)i, RXRPC_CHARGE_ACCEPT), 0);
	/*
	 * Sockets may be moved with a fork() when they are made: a sanitizer's memory allocator
	 * allows that to one thread.
	 */
	for (i = 0; i < N_THREADS; i++)
		callers[i] = (struct caller){ .tag = (unsigned long)i + 1, .fd = client_new() };
	CHECK_INT(pthread_create(&server_thread, NULL, serve, &server), 0);
	for (i = 0; i < N_THREADS; i++)
		CHECK_INT(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
	for (i = 0; i < N_THREADS; i++)
		CHECK_INT(pthread_join(callers[i].thread, NULL), 0);
	CHECK_INT(pthread_join(server_thread, NULL), 0);
	OK(rx_close(server));
}

static void *read_all(void *arg)
{
	static struct got mine;

	receive(*(int *)arg, &mine, 2000, 0);
	CHECK(mine.n == 2000 && mine.flags == 0);
	return NULL;
}

/* A thread has taken what was there and waits for more: nothing is there for others. */
static void test_readable_for_another(void **state)
{
	static char half[1000];
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	pthread_t thread;

	(void)state;
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(client, 1, half, 1000, &to, MSG_MORE), 1000);
	CHECK_INT(tag_send(client, 1, half, 999, &to, MSG_MORE), 999);
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	CHECK_INT(pthread_create(&thread, NULL, read_all, &server), 0);
	usleep(50000);
	CHECK(!polls(server, POLLIN, 0));
	CHECK_INT(tag_send(client, 1, half, 1, &to, 0), 1);
	CHECK_INT(pthread_join(thread, NULL), 0);
	CHECK(!polls(server, POLLIN, 0));
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- news of what is not there yet ------------------------------------------------------------- */

/* Who has read all that had come, to the last byte of the buffer, hears of what comes then. */
static void test_more_after_a_full_buffer(void **state)
{
	static char data[2000];
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	size_t n = 0;

	(void)state;
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	/* One packet leaves; what is behind it waits for more. */
	CHECK_INT(tag_send(client, 1, data, sizeof(data), &to, MSG_MORE), sizeof(data));
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	for (; polls(server, POLLIN, 0); n++) {
		receive(server, &got, 1, MSG_DONTWAIT);
		CHECK(got.n == 1 && got.tag == 11 && got.flags == MSG_MORE);
	}
	CHECK(n > 0 && n < sizeof(data));
	CHECK_INT(tag_send(client, 1, NULL, 0, NULL, 0), 0);
	for (; n < sizeof(data); n += (size_t)got.n) {
		receive_soon(server, &got, sizeof(data), 0);
		CHECK(got.n > 0 && got.tag == 11);
	}
	CHECK(n == sizeof(data) && got.flags == 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Calls that nobody will accept any more are nothing to read. */
static void test_readable_no_more(void **state)
{
	struct sockaddr_rxrpc to;

	(void)state;
	for (int i = 0; i < 2; i++) {
		int server = server_new(&to, 5), client = client_new();

		CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
		CHECK(polls(server, POLLIN, check_hang_ms(5000)));
		OK(i == 0 ? rx_listen(server, 0) : rx_shutdown(server, SHUT_RDWR));
		CHECK(!polls(server, POLLIN, 0));
		receive(server, &got, 10, MSG_DONTWAIT);
		CHECK_INT(got.n, -EAGAIN);
		OK(rx_close(client));
		OK(rx_close(server));
	}
}

/* A packet of the first call of a connection, by a client of bare packets. */
static void send_raw(int udp, const struct sockaddr_rxrpc *to, uint8_t seq, uint8_t flags,
		     const char *text)
{
	unsigned char packet[64] = { 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0 };
	size_t len = strlen(text);

	packet[11] = 1; /* call */
	packet[15] = packet[19] = seq;
	packet[20] = 1; /* DATA */
	packet[21] = flags | 1;
	packet[26] = SERVICE >> 8;
	packet[27] = SERVICE & 0xff;
	memcpy(packet + 28, text, len);
	CHECK_INT(sendto(udp, packet, 28 + len, 0, (const struct sockaddr *)&to->transport.sin,
			 sizeof(struct sockaddr_in)),
		  28 + len);
}

/* The network may bring the second packet of a request before the first. */
static void with_wrong_order(bool charge)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), udp = (int)OK(socket(AF_INET, SOCK_DGRAM, 0));

	if (charge)
		CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	send_raw(udp, &to, 2, 4, "last");
	if (!charge) {
		expect_note(server, &got, 0, RXRPC_NEW_CALL);
		CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
		expect_nothing(server);
	}
	send_raw(udp, &to, 1, 0, "first ");
	expect_data(server, 11, "first last", 0);
	OK(close(udp));
	OK(rx_close(server));
}

static void test_wrong_order(void **state)
{
	(void)state;
	with_wrong_order(true);
	with_wrong_order(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_idle),
		SUITE_TEST(test_readable),
		SUITE_TEST(test_edges),
		SUITE_TEST(test_writable),
		SUITE_TEST(test_nonblocking),
		SUITE_TEST(test_threads),
		SUITE_TEST(test_readable_for_another),
		SUITE_TEST(test_more_after_a_full_buffer),
		SUITE_TEST(test_readable_no_more),
		SUITE_TEST(test_wrong_order),
	};

	return suite_run("af_rxrpc poll", tests, SUITE_LEN(tests), 60);
}
