/* SPDX-License-Identifier: MIT */
/*
 * Packets that are made here, of clients that are not ours, and what an endpoint does with them:
 * which request a service is told of when, when its answers leave, and what wakes nobody.
 */
#include "port.h"
#include "remote.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define RUN  24 /* packets; so many small ones come to the engine in several pieces */
#define SIZE 60

/* A client's packet, the only one of its call. */
static void make_packet(uint8_t packet[SIZE], uint8_t type, uint8_t connection, uint32_t call)
{
	memset(packet, 0, SIZE);
	packet[3] = 1; /* epoch */
	packet[7] = (uint8_t)(4 * connection);
	packet[11] = (uint8_t)call;
	packet[15] = packet[19] = 1; /* seq, serial */
	packet[20] = type;
	packet[21] = 0x05; /* of a client, the last one */
	packet[27] = REMOTE_SERVICE;
}

/*
 * An endpoint with a service for whom packets are made; returns the socket that they are sent from.
 */
static int open_for_packets(struct aph_endpoint **ep, struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char address[64];

	assert_true(fd >= 0);
	*to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port_free(AF_INET)) };
	to->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)snprintf(address, sizeof(address), "rx:127.0.0.1:%u/%d", ntohs(to->sin_port),
		       REMOTE_SERVICE);
	assert_int_equal(aph_endpoint_new(ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, *ep, address, NULL), 0);
	return fd;
}

static void expect_request(struct aph_endpoint *ep, struct aph_event *ev)
{
	assert_int_equal(aph_endpoint_next(ep, ev, aph_deadline_ms((uint64_t)check_ms(2000))), 0);
	assert_int_equal(ev->type, APH_EVENT_REQUEST);
}

/*
 * Who sleeps in epoll has handed all of it to the engine: at the end of what says nothing to
 * anybody is a request.
 */
static void a_run_beside_others(void **state)
{
	uint8_t run[RUN][SIZE];
	struct aph_endpoint *ep;
	struct sockaddr_in to;
	struct aph_event ev;
	int fd = open_for_packets(&ep, &to);

	(void)state;
	assert_int_equal(aph_service_open(NULL, ep, "beside", NULL), 0);
	for (uint32_t call = 1; call <= 3; call++) {
		for (int i = 0; i < RUN; i++)
			make_packet(run[i], i < RUN - 1 ? 99 : 1, 1, call);
		port_send_run(fd, &to, run, sizeof(run), SIZE);
		expect_request(ep, &ev);
		assert_int_equal(aph_call_reply(ev.call, "", 0), 0);
	}
	close(fd);
	aph_endpoint_free(ep);
}

/*
 * The rest of a request says nothing to the service, who could refuse it only: its beginning may
 * have gone to one that was here before, and was run.
 */
static void a_request_without_its_beginning(void **state)
{
	uint8_t packet[SIZE], body[2 * SIZE];
	struct aph_endpoint *ep;
	struct sockaddr_in to;
	struct aph_event ev;
	int fd = open_for_packets(&ep, &to);

	(void)state;
	for (uint32_t i = 0; i < 3; i++) {
		/* The end of the first call, all of the second one, the beginning of the first. */
		make_packet(packet, 1, i == 1 ? 2 : 1, 1);
		packet[15] = i == 0 ? 2 : 1;
		packet[21] = i == 2 ? 0x01 : 0x05;
		packet[28] = (uint8_t)('a' + i);
		assert_int_equal(sendto(fd, packet, SIZE, 0, (struct sockaddr *)&to, sizeof(to)),
				 SIZE);
		if (i == 0)
			continue;
		expect_request(ep, &ev);
		assert_int_equal(aph_call_read(ev.call, body, sizeof(body)),
				 (i == 1 ? 1 : 2) * (SIZE - 28));
		assert_int_equal(body[0], 'a' + i);
		assert_int_equal(aph_call_reply(ev.call, "", 0), 0);
	}
	close(fd);
	aph_endpoint_free(ep);
}

/* The answers to a run leave together, but not where somebody may have to wait for a slow one. */
static void a_reply_before_a_slow_one(void **state)
{
	struct timeval patience = { .tv_sec = 2 };
	uint8_t run[2][SIZE], reply[1500];
	struct aph_endpoint *ep;
	struct sockaddr_in to;
	struct aph_event ev;
	int fd = open_for_packets(&ep, &to);

	(void)state;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	make_packet(run[0], 1, 1, 1);
	port_send_run(fd, &to, run[0], SIZE, 0);
	expect_request(ep, &ev);
	remote_nap(); /* that is slow */
	assert_int_equal(aph_call_reply(ev.call, "", 0), 0);
	assert_true(recv(fd, reply, sizeof(reply), 0) >= 28);
	make_packet(run[0], 1, 1, 2);
	make_packet(run[1], 1, 2, 1);
	port_send_run(fd, &to, run, sizeof(run), SIZE);
	expect_request(ep, &ev);
	assert_int_equal(aph_call_reply(ev.call, "", 0), 0);
	expect_request(ep, &ev);
	/* While we are at this one. */
	assert_true(recv(fd, reply, sizeof(reply), 0) >= 28);
	assert_int_equal(reply[20], 1);
	assert_int_equal(aph_call_reply(ev.call, "", 0), 0);
	close(fd);
	aph_endpoint_free(ep);
}

/*
 * Nor does the network wait for a program that is slow with each of many requests: its clients ask
 * whether it lives.
 */
static void the_network_before_the_next_request(void **state)
{
	struct timeval patience = { .tv_sec = 2 };
	uint8_t run[2][SIZE], answer[1500] = { 0 };
	struct aph_endpoint *ep;
	struct sockaddr_in to;
	struct aph_event ev;
	int fd = open_for_packets(&ep, &to);

	(void)state;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	make_packet(run[0], 1, 1, 1);
	make_packet(run[1], 1, 2, 1);
	port_send_run(fd, &to, run, sizeof(run), SIZE);
	expect_request(ep, &ev);
	port_send_run(fd, &to, run[1], SIZE, 0); /* once more: that asks for an ACK */
	remote_nap();
	assert_int_equal(aph_call_reply(ev.call, "", 0), 0);
	expect_request(ep, &ev);
	/* While we are at this one. */
	while (answer[20] != 2)
		assert_true(recv(fd, answer, sizeof(answer), 0) >= 28);
	assert_int_equal(answer[7], 8);
	assert_int_equal(aph_call_reply(ev.call, "", 0), 0);
	close(fd);
	aph_endpoint_free(ep);
}

/*
 * A reply that is the library's leaves before the service goes, even if it was to leave together
 * with the next.
 */
static void a_reply_before_the_end(void **state)
{
	struct timeval patience = { .tv_sec = 2 };
	uint8_t run[2][SIZE], reply[1500];
	struct aph_service *service;
	struct aph_endpoint *ep;
	struct sockaddr_in to;
	struct aph_event ev;
	int fd = open_for_packets(&ep, &to);

	(void)state;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	for (uint32_t call = 1; call <= 3; call++) {
		make_packet(run[0], 1, 1, call);
		make_packet(run[1], 1, 2, call);
		port_send_run(fd, &to, run, sizeof(run), SIZE);
		expect_request(ep, &ev);
		service = ev.service;
		assert_int_equal(aph_call_reply(ev.call, "", 0), 0);
		if (call == 3)
			break;
		expect_request(ep, &ev);
		assert_int_equal(aph_call_reply(ev.call, "", 0), 0);
		assert_int_equal(aph_endpoint_next(ep, &ev, APH_NOW), -EAGAIN);
		for (int i = 0; i < 2; i++)
			do
				assert_true(recv(fd, reply, sizeof(reply), 0) >= 28);
			while (reply[20] != 1);
	}
	assert_null(aph_service_close(service));
	do
		assert_true(recv(fd, reply, sizeof(reply), 0) >= 28);
	while (reply[7] != 4 || reply[11] != 3);
	assert_int_equal(reply[20], 1);
	close(fd);
	aph_endpoint_free(ep);
}

static int find_socket(const struct sockaddr_in *bound_to)
{
	for (int fd = 3; fd < 200; fd++) {
		struct sockaddr_in name = { .sin_family = 0 };
		socklen_t len = sizeof(name);

		if (getsockname(fd, (struct sockaddr *)&name, &len) == 0 &&
		    name.sin_family == AF_INET && name.sin_port == bound_to->sin_port)
			return fd;
	}
	return -1;
}

/*
 * What the network has reported and another process has heard of first does not keep anybody awake.
 */
static void an_error_beside_others(void **state)
{
	struct sockaddr_in to, nobody;
	struct aph_endpoint *ep;
	struct aph_event ev;
	int fd = open_for_packets(&ep, &to), error, sock = find_socket(&to);
	socklen_t len = sizeof(error);
	int64_t start;

	(void)state;
	assert_int_equal(aph_service_open(NULL, ep, "beside", NULL), 0);
	nobody = to;
	nobody.sin_port = htons(port_free(AF_INET));
	assert_int_equal(sendto(sock, "", 1, 0, (struct sockaddr *)&nobody, sizeof(nobody)), 1);
	do {
		assert_int_equal(getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	} while (error != ECONNREFUSED);
	start = check_worked_ms();
	assert_int_equal(aph_endpoint_next(ep, &ev, aph_deadline_ms(400)), -ETIMEDOUT);
	assert_true(check_worked_ms() - start < 150);
	close(fd);
	aph_endpoint_free(ep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(a_run_beside_others),
		SUITE_TEST(a_request_without_its_beginning),
		SUITE_TEST(a_reply_before_a_slow_one),
		SUITE_TEST(the_network_before_the_next_request),
		SUITE_TEST(a_reply_before_the_end),
		SUITE_TEST(an_error_beside_others),
	};

	return suite_run("remote packets", tests, SUITE_LEN(tests), 60);
}
