/* SPDX-License-Identifier: MIT */
/*
 * How calls end, and what each side is told: aborts, busy, network and local errors, sockets that
 * go away.
 */
#include "fixture.h"

#include <arpa/inet.h>
#include <pthread.h>

static struct got got;

/*
 * A call under way: tag 1 at the client, 11 at the server, its request read unless it is still
 * being sent.
 */
struct call {
	struct sockaddr_rxrpc to;
	int server, client;
};

static void call_begin(struct call *call, bool complete)
{
	call->server = server_new(&call->to, 5);
	call->client = client_new();
	CHECK_INT(tag_command(call->server, 11, RXRPC_CHARGE_ACCEPT), 0);
	if (complete) {
		CHECK_INT(tag_send(call->client, 1, "request", 7, &call->to, 0), 7);
		expect_data(call->server, 11, "request", 0);
	} else {
		static char more[3000];

		CHECK_INT(tag_send(call->client, 1, more, sizeof(more), &call->to, MSG_MORE),
			  sizeof(more));
		CHECK(polls(call->server, POLLIN, check_hang_ms(5000)));
	}
}

static void call_end(const struct call *call)
{
	OK(rx_close(call->client));
	OK(rx_close(call->server));
}

/* -- aborts ------------------------------------------------------------------------------------ */

/*
 * By either side: the other one gets the code, what was queued of the call is gone, and the tag is
 * free at once.
 */
static void test_abort_by_client(void **state)
{
	struct call call;

	(void)state;
	call_begin(&call, false);
	CHECK_INT(tag_abort(call.client, 1, 0xfedcba98), 0);
	expect_nothing(call.client);
	CHECK_INT(tag_abort(call.client, 1, 1), -EBADSLT);
	for (;;) {
		/*
		 * Data that were not read when it came do not stay; some may have been taken
		 * before.
		 */
		receive_soon(call.server, &got, sizeof(got.data), MSG_DONTWAIT);
		if (got.type == RXRPC_ABORT)
			break;
		CHECK(got.n > 0 && got.flags == MSG_MORE);
	}
	CHECK(got.n == 0 && got.tag == 11 && got.flags == MSG_EOR && got.code == 0xfedcba98);
	CHECK_INT(tag_abort(call.server, 11, 1), -EBADSLT);
	/* The tag can be used again. */
	CHECK_INT(tag_send(call.client, 1, "x", 1, &call.to, MSG_MORE), 1);
	call_end(&call);
}

static void test_abort_by_server(void **state)
{
	struct call call;

	(void)state;
	call_begin(&call, true);
	CHECK_INT(tag_send(call.server, 11, "part", 4, NULL, MSG_MORE), 4);
	CHECK_INT(tag_abort(call.server, 11, 42), 0);
	CHECK_INT(tag_abort(call.server, 11, 42), -EBADSLT);
	CHECK(polls(call.client, POLLIN, check_hang_ms(5000)));
	CHECK_INT(tag_send(call.client, 1, "x", 1, NULL, 0), -ESHUTDOWN);
	expect_note(call.client, &got, 1, RXRPC_ABORT);
	CHECK_INT(got.code, 42);
	expect_nothing(call.server);
	call_end(&call);
}

/* A request that came whole is delivered to its end, and the abort after it. */
static void test_abort_after_the_request(void **state)
{
	struct call call;

	(void)state;
	call.server = server_new(&call.to, 5);
	call.client = client_new();
	CHECK_INT(tag_command(call.server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(call.client, 1, "whole", 5, &call.to, 0), 5);
	CHECK(polls(call.server, POLLIN, check_hang_ms(5000)));
	CHECK_INT(tag_abort(call.client, 1, 7), 0);
	expect_data(call.server, 11, "whole", 0);
	expect_note(call.server, &got, 11, RXRPC_ABORT);
	CHECK_INT(got.code, 7);
	call_end(&call);
}

struct sender {
	int fd;
	ssize_t result;
};

static void *send_without_end(void *arg)
{
	struct sender *sender = arg;
	static char data[8u << 20];

	sender->result = tag_send(sender->fd, 1, data, sizeof(data), NULL, MSG_MORE);
	return NULL;
}

/* Who waits for room learns that the call was aborted: there, or here by another thread. */
static void test_abort_of_a_blocked_sender(void **state)
{
	struct call call;
	struct sender sender;
	pthread_t thread;
	int i;

	(void)state;
	for (i = 0; i < 2; i++) {
		call_begin(&call, false);
		sender.fd = call.client;
		CHECK(polls(call.client, POLLOUT, 0));
		CHECK_INT(pthread_create(&thread, NULL, send_without_end, &sender), 0);
		while (polls(call.client, POLLOUT, 0))
			usleep(1000);
		CHECK_INT(i ? tag_abort(call.client, 1, 9) : tag_abort(call.server, 11, 9), 0);
		CHECK_INT(pthread_join(thread, NULL), 0);
		CHECK_INT(sender.result, -ECONNABORTED);
		CHECK(polls(call.client, POLLOUT, check_hang_ms(5000)));
		call_end(&call);
	}
}

/* -- refusals ---------------------------------------------------------------------------------- */

static void test_unknown_service(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	to.srx_service++;
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	expect_note(client, &got, 1, RXRPC_ABORT);
	CHECK_INT(got.code, (uint32_t)RX_INVALID_OPERATION);
	OK(rx_close(client));
	OK(rx_close(server));
}

/*
 * More calls than the backlog and one wait: BUSY. So it is without a charge, and without listen().
 */
static void test_busy(void **state)
{
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE);
	int server = client_new(), client = client_new();
	unsigned long tag;

	(void)state;
	OK(bind_to(server, &to));
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	expect_note(client, &got, 1, RXRPC_BUSY);
	OK(rx_listen(server, 2));
	for (tag = 1; tag <= 3; tag++) {
		CHECK_INT(tag_send(client, tag, "x", 1, &to, 0), 1);
		expect_note(server, &got, 0, RXRPC_NEW_CALL);
	}
	CHECK_INT(tag_send(client, 4, "x", 1, &to, 0), 1);
	expect_note(client, &got, 4, RXRPC_BUSY);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	CHECK_INT(tag_send(client, 4, "x", 1, &to, 0), 1);
	expect_data(server, 11, "x", 0);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_busy_without_charge(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	expect_data(server, 11, "x", 0);
	CHECK_INT(tag_send(client, 2, "x", 1, &to, 0), 1);
	expect_note(client, &got, 2, RXRPC_BUSY);
	expect_nothing(server);
	OK(rx_close(client));
	OK(rx_close(server));
}

/*
 * Whoever stops listening, or shuts down, refuses new calls; those there are go on in the first
 * case.
 */
static void test_disabled(void **state)
{
	struct call call;

	(void)state;
	call_begin(&call, true);
	OK(rx_listen(call.server, 0));
	CHECK_INT(tag_send(call.client, 2, "x", 1, &call.to, 0), 1);
	expect_note(call.client, &got, 2, RXRPC_ABORT);
	CHECK_INT(got.code, (uint32_t)RX_INVALID_OPERATION);
	CHECK_INT(tag_command(call.server, 12, RXRPC_CHARGE_ACCEPT), -EINVAL);
	CHECK_INT(tag_send(call.server, 12, "x", 1, &call.to, 0), -EINVAL);
	CHECK_INT(tag_send(call.server, 11, "reply", 5, NULL, 0), 5);
	expect_data(call.client, 1, "reply", MSG_EOR);
	expect_note(call.server, &got, 11, RXRPC_ACK);
	call_end(&call);
}

static void test_shut_down(void **state)
{
	struct call call;

	(void)state;
	call_begin(&call, true);
	OK(rx_shutdown(call.server, SHUT_RDWR));
	CHECK_INT(tag_send(call.server, 11, "x", 1, NULL, 0), -EINVAL);
	CHECK_INT(tag_send(call.client, 2, "x", 1, &call.to, 0), 1);
	expect_note(call.client, &got, 2, RXRPC_ABORT);
	CHECK_INT(got.code, (uint32_t)RX_INVALID_OPERATION);
	CHECK(!polls(call.client, POLLIN, 50)); /* the first call is not told */
	call_end(&call);
}

/* -- sockets that go away ---------------------------------------------------------------------- */

static void expect_gone(int fd, unsigned long tag)
{
	receive_soon(fd, &got, 10, 0);
	CHECK(got.n == 0 && got.tag == tag && got.flags == MSG_EOR);
	if (got.type == RXRPC_NET_ERROR)
		CHECK_INT(got.code, ECONNREFUSED);
	else
		CHECK(got.type == RXRPC_ABORT && got.code == (uint32_t)RX_CALL_DEAD);
}

static void test_close(void **state)
{
	struct call call;
	struct sockaddr_rxrpc other;
	int keeper;

	(void)state;
	keeper = client_new();
	call_begin(&call, true);
	other = call.to;
	other.srx_service++;
	OK(bind_to(keeper, &other)); /* the port stays in use */
	OK(rx_close(call.server));
	expect_note(call.client, &got, 1, RXRPC_ABORT);
	CHECK_INT(got.code, (uint32_t)RX_CALL_DEAD);
	OK(rx_close(call.client));
	OK(rx_close(keeper));
	call_begin(&call, true);
	OK(rx_close(call.server));
	expect_gone(call.client, 1);
	OK(rx_close(call.client));
	call_begin(&call, true);
	OK(rx_close(call.client));
	expect_gone(call.server, 11);
	OK(rx_close(call.server));
}

/* A reply that was given lasts until it is read, whatever the server does meanwhile. */
static void test_close_after_the_reply(void **state)
{
	struct call call;

	(void)state;
	call_begin(&call, true);
	CHECK_INT(tag_send(call.server, 11, "reply", 5, NULL, 0), 5);
	CHECK(polls(call.client, POLLIN, check_hang_ms(5000)));
	OK(rx_close(call.server));
	usleep(10000);
	expect_data(call.client, 1, "reply", MSG_EOR);
	OK(rx_close(call.client));
}

/* -- errors of the network and of our own kernel ----------------------------------------------- */

static void test_net_error(void **state)
{
	struct sockaddr_rxrpc nobody = loopback(port_free(AF_INET), SERVICE);
	int client = client_new();

	(void)state;
	CHECK_INT(tag_send(client, 1, "x", 1, &nobody, 0), 1);
	expect_note(client, &got, 1, RXRPC_NET_ERROR);
	CHECK_INT(got.code, ECONNREFUSED);
	OK(rx_close(client));
}

/*
 * A broadcast address, which our own kernel does not let us send to: told at once or as a message.
 */
static void test_local_error(void **state)
{
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE);
	int client = client_new();
	ssize_t n;

	(void)state;
	to.transport.sin.sin_addr.s_addr = htonl(INADDR_BROADCAST);
	n = tag_send(client, 1, "x", 1, &to, 0);
	if (n == 1) {
		expect_note(client, &got, 1, RXRPC_LOCAL_ERROR);
		n = -(ssize_t)got.code;
	}
	CHECK(n == -EACCES || n == -ENETUNREACH);
	OK(rx_close(client));
}

/* Nobody can be reached at port 0. */
static void test_port_zero(void **state)
{
	struct sockaddr_rxrpc to = loopback(0, SERVICE);
	int client = client_new();
	ssize_t n;

	(void)state;
	n = tag_send(client, 1, "x", 1, &to, 0);
	if (n == 1) {
		expect_note(client, &got, 1, RXRPC_LOCAL_ERROR);
		n = -(ssize_t)got.code;
	}
	CHECK_INT(n, -EINVAL);
	OK(rx_close(client));
}

/* -- a peer of bare packets -------------------------------------------------------------------- */

#define HEADER 28

/*
 * Takes the first packet of a call at a plain UDP socket, and answers with one of this type and
 * body.
 */
static void answer_raw(int udp, uint8_t type, const void *body, size_t len)
{
	unsigned char packet[2048];
	struct sockaddr_in from;
	socklen_t from_len = sizeof(from);
	uint32_t zero = 0;
	ssize_t n;

	CHECK(polls(udp, POLLIN, check_hang_ms(5000)));
	n = (ssize_t)OK(
		recvfrom(udp, packet, sizeof(packet), 0, (struct sockaddr *)&from, &from_len));
	CHECK(n >= HEADER && packet[20] == 1);
	memcpy(packet + 12, &zero, sizeof(zero)); /* seq */
	memcpy(packet + 16, "\0\0\0\1", 4);	  /* serial */
	packet[20] = type;
	packet[21] = 0; /* not from the client */
	if (len)
		memcpy(packet + HEADER, body, len);
	CHECK_INT(sendto(udp, packet, HEADER + len, 0, (struct sockaddr *)&from, from_len),
		  HEADER + len);
}

static void with_raw_peer(uint8_t type, const void *body, size_t len, int note, uint32_t code)
{
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE);
	int udp = (int)OK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), client = client_new();

	OK(bind(udp, (const struct sockaddr *)&to.transport.sin, sizeof(struct sockaddr_in)));
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	answer_raw(udp, type, body, len);
	expect_note(client, &got, 1, note);
	CHECK_INT(got.code, code);
	OK(rx_close(client));
	OK(close(udp));
}

static void test_raw_busy(void **state)
{
	(void)state;
	with_raw_peer(3, NULL, 0, RXRPC_BUSY, 0);
}

/* Nobody may send a code of 0, but a peer that does has aborted. */
static void test_raw_abort(void **state)
{
	(void)state;
	with_raw_peer(4, "\0\0\0\0", 4, RXRPC_ABORT, 0);
	with_raw_peer(4, "\xff\xff\xff\xfa", 4, RXRPC_ABORT, (uint32_t)RX_USER_ABORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_abort_by_client),
		SUITE_TEST(test_abort_by_server),
		SUITE_TEST(test_abort_after_the_request),
		SUITE_TEST(test_abort_of_a_blocked_sender),
		SUITE_TEST(test_unknown_service),
		SUITE_TEST(test_busy),
		SUITE_TEST(test_busy_without_charge),
		SUITE_TEST(test_disabled),
		SUITE_TEST(test_shut_down),
		SUITE_TEST(test_close),
		SUITE_TEST(test_close_after_the_reply),
		SUITE_TEST(test_net_error),
		SUITE_TEST(test_local_error),
		SUITE_TEST(test_port_zero),
		SUITE_TEST(test_raw_busy),
		SUITE_TEST(test_raw_abort),
	};

	return suite_run("af_rxrpc ends", tests, SUITE_LEN(tests), 60);
}
