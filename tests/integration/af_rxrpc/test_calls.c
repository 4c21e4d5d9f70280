/* SPDX-License-Identifier: MIT */
/* Whole calls: both accept models, bodies, what the flags of sendmsg() and recvmsg() mean. */
#include "fixture.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/time.h>

static struct got got;

/* The client's request under tag 1 is there, accepted under tag 11 and not read. */
static void begin_call(int client, int server, const struct sockaddr_rxrpc *to, const char *request)
{
	CHECK_INT(tag_send(client, 1, request, strlen(request), to, 0), strlen(request));
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
}

/* -- the two models ---------------------------------------------------------------------------- */

static void test_accept_model(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	begin_call(client, server, &to, "how are you?");
	expect_data(server, 11, "how are you?", 0);
	CHECK_INT(tag_send(server, 11, "well", 4, NULL, 0), 4);
	expect_data(client, 1, "well", MSG_EOR);
	expect_note(server, &got, 11, RXRPC_ACK);
	expect_nothing(client);
	expect_nothing(server);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_charge_model(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	unsigned long tag;

	(void)state;
	CHECK_INT(tag_command(server, 21, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_command(server, 22, RXRPC_CHARGE_ACCEPT), 0);
	for (tag = 1; tag <= 2; tag++) {
		CHECK_INT(tag_send(client, tag, "request", 7, &to, 0), 7);
		expect_data(server, 20 + tag, "request", 0); /* in the order of the charges */
		CHECK_INT(tag_send(server, 20 + tag, "reply", 5, NULL, 0), 5);
		expect_data(client, tag, "reply", MSG_EOR);
		expect_note(server, &got, 20 + tag, RXRPC_ACK);
	}
	OK(rx_close(client));
	OK(rx_close(server));
}

/* A call that came before the first charge gets it, and its RXRPC_NEW_CALL is not seen any more. */
static void test_charge_after_the_call(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	CHECK_INT(tag_send(client, 1, "early", 5, &to, 0), 5);
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	CHECK_INT(tag_command(server, 21, RXRPC_CHARGE_ACCEPT), 0);
	expect_data(server, 21, "early", 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Several calls wait: RXRPC_ACCEPT takes the oldest, and messages of calls do not mix. */
static void test_several_calls(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	unsigned long tag;
	char text[2] = "0";

	(void)state;
	OK(connect_to(client, &to));
	for (tag = 1; tag <= 4; tag++) {
		text[0] = (char)('0' + tag);
		CHECK_INT(tag_send(client, tag, text, 1, NULL, 0), 1);
		expect_note(server, &got, 0, RXRPC_NEW_CALL);
	}
	for (tag = 1; tag <= 4; tag++)
		CHECK_INT(tag_command(server, 10 + tag, RXRPC_ACCEPT), 0);
	CHECK_INT(tag_command(server, 99, RXRPC_ACCEPT), -ENODATA);
	for (tag = 1; tag <= 4; tag++) {
		text[0] = (char)('0' + tag);
		expect_data(server, 10 + tag, text, 0);
	}
	for (tag = 4; tag >= 1; tag--) {
		CHECK_INT(tag_send(server, 10 + tag, "r", 1, NULL, 0), 1);
		expect_data(client, tag, "r", MSG_EOR);
	}
	OK(rx_close(client));
	OK(rx_close(server));
}

/* A tag is free once its last message was received, and not before. */
static void test_tag_reuse(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		begin_call(client, server, &to, "x");
		expect_data(server, 11, "x", 0);
		CHECK_INT(tag_send(server, 11, "y", 1, NULL, 0), 1);
		CHECK(polls(client, POLLIN, check_hang_ms(5000)));
		CHECK_INT(tag_send(client, 1, "z", 1, &to, 0), -ESHUTDOWN);
		CHECK_INT(tag_abort(client, 1, 5), -ESHUTDOWN);
		expect_data(client, 1, "y", MSG_EOR);
		expect_note(server, &got, 11, RXRPC_ACK);
		CHECK_INT(tag_abort(client, 1, 5), -EBADSLT);
	}
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Tags 0 and ~0 are like any other. */
static void test_extreme_tags(void **state)
{
	static const unsigned long tags[] = { 0, ~0UL };
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		CHECK_INT(tag_send(client, tags[i], "x", 1, &to, 0), 1);
		expect_note(server, &got, 0, RXRPC_NEW_CALL);
		CHECK_INT(tag_command(server, tags[i], RXRPC_ACCEPT), 0);
		expect_data(server, tags[i], "x", 0);
		CHECK_INT(tag_send(server, tags[i], "y", 1, NULL, 0), 1);
		expect_data(client, tags[i], "y", MSG_EOR);
		expect_note(server, &got, tags[i], RXRPC_ACK);
	}
	OK(rx_close(client));
	OK(rx_close(server));
}

/* An address goes before the one that the socket is connected to, for that call. */
static void test_name_before_connection(void **state)
{
	struct sockaddr_rxrpc to, other;
	int server = server_new(&to, 5), second = server_new(&other, 5), client = client_new();

	(void)state;
	OK(connect_to(client, &to));
	begin_call(client, second, &other, "x");
	expect_data(second, 11, "x", 0);
	CHECK_INT(tag_send(client, 2, "z", 1, NULL, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 12, RXRPC_ACCEPT), 0);
	expect_data(server, 12, "z", 0);
	expect_nothing(second);
	OK(rx_close(client));
	OK(rx_close(second));
	OK(rx_close(server));
}

/* A server's socket can call too, with an address. */
static void test_server_as_client(void **state)
{
	struct sockaddr_rxrpc to, back;
	int server = server_new(&to, 5), other = server_new(&back, 5);

	(void)state;
	begin_call(server, other, &back, "question");
	expect_data(other, 11, "question", 0);
	CHECK_INT(tag_send(other, 11, "answer", 6, NULL, 0), 6);
	expect_data(server, 1, "answer", MSG_EOR);
	CHECK_INT(tag_send(server, 2, "x", 1, NULL, 0), -EBADSLT);
	OK(rx_close(server));
	OK(rx_close(other));
}

/* -- bodies ------------------------------------------------------------------------------------ */

static void test_empty_bodies(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	begin_call(client, server, &to, "");
	receive_soon(server, &got, 100, 0);
	CHECK_INT(got.n, 0);
	CHECK(got.has_tag && got.tag == 11 && got.type == 0);
	CHECK_INT(got.flags, 0);
	CHECK_INT(tag_send(server, 11, NULL, 0, NULL, 0), 0);
	receive_soon(client, &got, 100, 0);
	CHECK_INT(got.n, 0);
	CHECK(got.has_tag && got.tag == 1 && got.type == 0);
	CHECK_INT(got.flags, MSG_EOR);
	expect_note(server, &got, 11, RXRPC_ACK);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* MSG_MORE holds the body open, and an empty sendmsg() ends it. */
static void test_more(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	CHECK_INT(tag_send(client, 1, "one ", 4, &to, MSG_MORE), 4);
	expect_nothing(server);
	CHECK_INT(tag_send(client, 1, "two", 3, NULL, MSG_MORE), 3);
	CHECK_INT(tag_send(client, 1, NULL, 0, NULL, 0), 0);
	CHECK_INT(tag_send(client, 1, "late", 4, NULL, 0), -EPROTO);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	CHECK_INT(tag_send(server, 11, "early", 5, NULL, 0), -EPROTO);
	expect_data(server, 11, "one two", 0);
	CHECK_INT(tag_send(server, 11, "a", 1, NULL, MSG_MORE), 1);
	CHECK_INT(tag_send(server, 11, "b", 1, NULL, 0), 1);
	CHECK_INT(tag_send(server, 11, "c", 1, NULL, 0), -EPROTO);
	expect_data(client, 1, "ab", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

/*
 * A body read in pieces: MSG_MORE is clear on the last byte alone, and a short buffer loses
 * nothing.
 */
static void test_pieces(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	int i;

	(void)state;
	begin_call(client, server, &to, "abcde");
	receive_soon(server, &got, 0, 0);
	CHECK_INT(got.n, 0);
	CHECK(got.tag == 11 && got.flags == MSG_MORE);
	for (i = 0; i < 5; i++) {
		receive_soon(server, &got, 1, 0);
		CHECK_INT(got.n, 1);
		CHECK(got.data[0] == 'a' + i);
		CHECK_INT(got.flags, i < 4 ? MSG_MORE : 0);
	}
	expect_nothing(server);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_peek(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	int i;

	(void)state;
	CHECK_INT(tag_send(client, 1, "abc", 3, &to, 0), 3);
	for (i = 0; i < 2; i++) {
		receive_soon(server, &got, 10, MSG_PEEK);
		CHECK(got.n == 0 && got.type == RXRPC_NEW_CALL);
	}
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	receive_soon(server, &got, 2, MSG_PEEK);
	CHECK(got.n == 2 && got.flags == MSG_MORE && memcmp(got.data, "ab", 2) == 0);
	receive_soon(server, &got, 10, MSG_PEEK);
	CHECK(got.n == 3 && got.flags == 0);
	expect_data(server, 11, "abc", 0);
	CHECK_INT(tag_send(server, 11, "yz", 2, NULL, 0), 2);
	receive_soon(client, &got, 10, MSG_PEEK);
	CHECK(got.n == 2 && got.flags == 0 && got.tag == 1); /* neither MORE nor EOR */
	expect_data(client, 1, "yz", MSG_EOR);
	for (i = 0; i < 2; i++) {
		receive_soon(server, &got, 10, MSG_PEEK);
		CHECK(got.n == 0 && got.type == RXRPC_ACK && got.flags == MSG_EOR);
	}
	expect_note(server, &got, 11, RXRPC_ACK);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* A reply of several pieces: each flag with its last byte alone. */
static void test_reply_in_pieces(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	begin_call(client, server, &to, "x");
	expect_data(server, 11, "x", 0);
	CHECK_INT(tag_send(server, 11, "ab", 2, NULL, 0), 2);
	receive_soon(client, &got, 0, 0);
	CHECK(got.n == 0 && got.tag == 1 && got.flags == MSG_MORE);
	receive_soon(client, &got, 1, 0);
	CHECK(got.n == 1 && got.data[0] == 'a' && got.flags == MSG_MORE);
	receive_soon(client, &got, 1, 0);
	CHECK(got.n == 1 && got.data[0] == 'b' && got.flags == MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* An empty reply that is peeked at has no flag, an abort its own; both stay, with their tags. */
static void test_peek_at_ends(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new(), i;

	(void)state;
	begin_call(client, server, &to, "x");
	expect_data(server, 11, "x", 0);
	CHECK_INT(tag_send(server, 11, NULL, 0, NULL, 0), 0);
	for (i = 0; i < 2; i++) {
		receive_soon(client, &got, 10, MSG_PEEK);
		CHECK(got.n == 0 && got.tag == 1 && got.type == 0 && got.flags == 0);
	}
	CHECK_INT(tag_abort(client, 1, 5), -ESHUTDOWN);
	receive_soon(client, &got, 10, 0);
	CHECK(got.n == 0 && got.tag == 1 && got.flags == MSG_EOR);
	expect_note(server, &got, 11, RXRPC_ACK);
	begin_call(client, server, &to, "x");
	expect_data(server, 11, "x", 0);
	CHECK_INT(tag_abort(server, 11, 7), 0);
	for (i = 0; i < 2; i++) {
		receive_soon(client, &got, 10, MSG_PEEK);
		CHECK(got.type == RXRPC_ABORT && got.code == 7 && got.flags == MSG_EOR);
	}
	CHECK_INT(tag_send(client, 1, "x", 1, NULL, 0), -ESHUTDOWN);
	expect_note(client, &got, 1, RXRPC_ABORT);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* A level is for calls with a key: without one they are plain, whatever either side asked for. */
static void test_level_without_key(void **state)
{
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE);
	int server = client_new(), client = client_new();
	uint32_t level = RXRPC_SECURITY_ENCRYPT;

	(void)state;
	OK(rx_setsockopt(server, SOL_RXRPC, RXRPC_MIN_SECURITY_LEVEL, &level, sizeof(level)));
	OK(rx_setsockopt(client, SOL_RXRPC, RXRPC_MIN_SECURITY_LEVEL, &level, sizeof(level)));
	OK(bind_to(server, &to));
	OK(rx_listen(server, 5));
	begin_call(client, server, &to, "x");
	expect_data(server, 11, "x", 0);
	CHECK_INT(tag_send(server, 11, "y", 1, NULL, 0), 1);
	expect_data(client, 1, "y", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- blocking ---------------------------------------------------------------------------------- */

struct late {
	int fd;
	unsigned long tag;
	unsigned n;
};

static void *send_late(void *arg)
{
	struct late *late = arg;
	struct timespec pause = { .tv_nsec = 30000000 };
	unsigned i;

	for (i = 1; i <= late->n; i++) {
		(void)nanosleep(&pause, NULL);
		CHECK_INT(tag_send(late->fd, late->tag, "1234", 4, NULL,
				   i < late->n ? MSG_MORE : 0),
			  4);
	}
	return NULL;
}

/*
 * A blocking read goes on until the body is over or the buffer is full; one that does not block
 * gives what is there.
 */
static void test_blocking_read(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct late late = { client, 1, 3 };
	static char big[20000];
	pthread_t thread;

	(void)state;
	CHECK_INT(tag_send(client, 1, big, sizeof(big), &to, MSG_MORE), sizeof(big));
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	CHECK_INT(pthread_create(&thread, NULL, send_late, &late), 0);
	receive(server, &got, sizeof(big) + 6, 0);
	CHECK_INT(got.n, sizeof(big) + 6);
	CHECK_INT(got.flags, MSG_MORE);
	receive(server, &got, 100, MSG_WAITALL);
	CHECK_INT(got.n, 6);
	CHECK_INT(got.flags, 0);
	CHECK_INT(pthread_join(thread, NULL), 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* ... or until another call has something. */
static void test_blocking_read_of_two(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct late late = { client, 2, 1 };
	static char big[20000];
	pthread_t thread;

	(void)state;
	OK(connect_to(client, &to));
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_command(server, 12, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(client, 1, big, sizeof(big), NULL, MSG_MORE), sizeof(big));
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	CHECK_INT(pthread_create(&thread, NULL, send_late, &late), 0);
	receive(server, &got, sizeof(got.data), 0);
	CHECK(got.n > 0 && got.tag == 11 && got.flags == MSG_MORE);
	expect_data(server, 12, "1234", 0);
	CHECK_INT(pthread_join(thread, NULL), 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_receive_time_limit(void **state)
{
	struct timeval limit = { .tv_usec = 50000 };
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	OK(rx_setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	receive(server, &got, 10, 0);
	CHECK_INT(got.n, -EAGAIN);
	receive(server, &got, 10, MSG_DONTWAIT);
	CHECK_INT(got.n, -EAGAIN);
	/* There is nothing that could ever come. */
	receive(client, &got, 10, 0);
	CHECK_INT(got.n, -EAGAIN);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void on_signal(int signal)
{
	(void)signal;
}

static void *interrupt(void *arg)
{
	struct timespec pause = { .tv_nsec = 50000000 };

	(void)nanosleep(&pause, NULL);
	CHECK_INT(pthread_kill(*(pthread_t *)arg, SIGUSR1), 0);
	return NULL;
}

static void test_interrupted(void **state)
{
	struct sigaction action = { .sa_handler = on_signal }, old;
	pthread_t self = pthread_self(), thread;
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5);

	(void)state;
	OK(sigaction(SIGUSR1, &action, &old));
	CHECK_INT(pthread_create(&thread, NULL, interrupt, &self), 0);
	receive(server, &got, 10, 0);
	CHECK_INT(got.n, -EINTR);
	CHECK_INT(pthread_join(thread, NULL), 0);
	OK(sigaction(SIGUSR1, &old, NULL));
	OK(rx_close(server));
}

/* -- large bodies ------------------------------------------------------------------------------ */

#define LARGE (8u << 20)

static void *send_large(void *arg)
{
	struct late *late = arg;
	unsigned char *data = malloc(LARGE);
	size_t i;

	CHECK(data != NULL);
	for (i = 0; i < LARGE; i++)
		data[i] = (unsigned char)(i * 7 + (i >> 11));
	CHECK_INT(tag_send(late->fd, late->tag, data, LARGE, NULL, 0), LARGE);
	free(data);
	return NULL;
}

static void receive_large(int fd, unsigned long tag, int end)
{
	size_t at = 0;
	ssize_t i;

	do {
		receive_soon(fd, &got, sizeof(got.data), 0);
		CHECK(got.n >= 0 && got.tag == tag && got.type == 0);
		for (i = 0; i < got.n; i++) {
			size_t at_i = at + (size_t)i;

			CHECK((unsigned char)got.data[i] ==
			      (unsigned char)(at_i * 7 + (at_i >> 11)));
		}
		at += (size_t)got.n;
		CHECK_INT(got.flags, at < LARGE ? MSG_MORE : end);
	} while (at < LARGE);
}

static void test_large_bodies(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct late up = { client, 1, 0 }, down = { server, 11, 0 };
	pthread_t thread;

	(void)state;
	OK(connect_to(client, &to));
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(pthread_create(&thread, NULL, send_large, &up), 0);
	receive_large(server, 11, 0);
	CHECK_INT(pthread_join(thread, NULL), 0);
	CHECK_INT(pthread_create(&thread, NULL, send_large, &down), 0);
	receive_large(client, 1, MSG_EOR);
	CHECK_INT(pthread_join(thread, NULL), 0);
	expect_note(server, &got, 11, RXRPC_ACK);
	OK(rx_close(client));
	OK(rx_close(server));
}

/*
 * The window is full: MSG_DONTWAIT gives a short count, then EAGAIN; a time limit the same after a
 * while.
 */
static void test_full_window(void **state)
{
	struct timeval limit = { .tv_usec = 30000 };
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	static char big[4u << 20];
	size_t sent = 0, read = 0;
	ssize_t n;

	(void)state;
	OK(connect_to(client, &to));
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	n = tag_send(client, 1, big, sizeof(big), NULL, MSG_DONTWAIT);
	CHECK(n > 0 && n < (ssize_t)sizeof(big));
	sent = (size_t)n;
	OK(rx_setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
	for (;;) {
		n = tag_send(client, 1, big, 100000, NULL, MSG_MORE);
		if (n == -EAGAIN)
			break;
		CHECK(n > 0);
		sent += (size_t)n;
	}
	CHECK(sent > 300 * 1412);
	CHECK_INT(tag_send(client, 1, big, 1, NULL, MSG_MORE | MSG_DONTWAIT), -EAGAIN);
	while (read < sent) {
		receive_soon(server, &got, sizeof(got.data), MSG_DONTWAIT);
		CHECK(got.n > 0 && got.flags == MSG_MORE);
		read += (size_t)got.n;
	}
	CHECK_INT(read, sent);
	CHECK(polls(client, POLLOUT, check_hang_ms(5000)));
	CHECK_INT(tag_send(client, 1, "end", 3, NULL, 0), 3);
	expect_data(server, 11, "end", 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- addresses in messages --------------------------------------------------------------------- */

static void test_names(void **state)
{
	struct sockaddr_rxrpc to, own = loopback(0, 0);
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	own.transport.sin.sin_port = htons(port_free(AF_INET));
	OK(bind_to(client, &own));
	begin_call(client, server, &to, "x");
	receive_soon(server, &got, 10, 0);
	CHECK_INT(got.from_len, sizeof(got.from));
	CHECK_INT(got.from.srx_family, AF_RXRPC);
	CHECK_INT(got.from.srx_service, SERVICE);
	CHECK_INT(got.from.transport_type, SOCK_DGRAM);
	CHECK_INT(got.from.transport_len, sizeof(struct sockaddr_in));
	CHECK_INT(got.from.transport.sin.sin_port, own.transport.sin.sin_port);
	CHECK_INT(got.from.transport.sin.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	CHECK_INT(tag_send(server, 11, "y", 1, NULL, 0), 1);
	receive_soon(client, &got, 10, 0);
	CHECK(memcmp(&got.from, &to, sizeof(to)) == 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_accept_model),
		SUITE_TEST(test_charge_model),
		SUITE_TEST(test_charge_after_the_call),
		SUITE_TEST(test_several_calls),
		SUITE_TEST(test_tag_reuse),
		SUITE_TEST(test_extreme_tags),
		SUITE_TEST(test_server_as_client),
		SUITE_TEST(test_name_before_connection),
		SUITE_TEST(test_empty_bodies),
		SUITE_TEST(test_more),
		SUITE_TEST(test_pieces),
		SUITE_TEST(test_peek),
		SUITE_TEST(test_peek_at_ends),
		SUITE_TEST(test_reply_in_pieces),
		SUITE_TEST(test_level_without_key),
		SUITE_TEST(test_blocking_read),
		SUITE_TEST(test_blocking_read_of_two),
		SUITE_TEST(test_receive_time_limit),
		SUITE_TEST(test_large_bodies),
		SUITE_TEST(test_full_window),
		SUITE_TEST(test_names),
		SUITE_TEST(test_interrupted),
	};

	return suite_run("af_rxrpc calls", tests, SUITE_LEN(tests), 60);
}
