/* SPDX-License-Identifier: MIT */
/*
 * Refusals over an rx: address: when it is proven that nobody has run the request, and when whoever
 * says so may have come in place of one that has.
 */
#include "remote.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void nobody_is_there(void **state)
{
	struct service service;
	struct client client;

	(void)state;
	for (int family = 0; family < 2; family++) {
		const char *address = remote_address();

		client_open(&client, address);
		remote_expect_refused(client.channel, APH_REASON_NO_SERVICE);
		/* The channel stays, and works as soon as somebody serves. */
		assert_true(aph_channel_is_open(client.channel));
		service_start_simple(&service, suite_mode, address);
		client_echo(client.channel);
		aph_channel_close(client.channel);
		assert_int_equal(aph_channel_open(&client.channel, client.ep,
						  remote_other(address, 148), NULL),
				 0);
		remote_expect_refused(client.channel, APH_REASON_NO_SERVICE);
		client_close(&client);
		service_stop(&service);
	}
}

/* A server that is not ours, for as long as the test wants it. */
static int open_socket(char *address, size_t size)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	(void)snprintf(address, size, "rx:127.0.0.1:%u/147", ntohs(in.sin_port));
	return fd;
}

/*
 * Whoever says "not I" to the second copy of a request may have taken the place of one that ran the
 * first.
 */
static void refused_too_late(void **state)
{
	static const uint32_t codes[] = { 0xfffffffe, 0xffffff9c, 0x41500100 | APH_REASON_BUSY };
	uint64_t deadline = aph_deadline_ms((uint64_t)check_hang_ms(4000));
	unsigned n_copies[4] = { 0 }, n_ended = 0;
	struct aph_result ends[4];
	struct aph_call *calls[4];
	uint8_t packet[1500];
	char address[64];
	struct client client;
	int fd = open_socket(address, sizeof(address));

	(void)state;
	client_open(&client, address);
	/* The first one is refused at once, the others when they come again. */
	for (size_t i = 0; i < SUITE_LEN(calls); i++)
		calls[i] = client_begin(client.channel, "e", 1, APH_FOREVER);
	while (n_ended < SUITE_LEN(calls)) {
		struct sockaddr_in from;
		socklen_t from_len = sizeof(from);
		ssize_t len;
		unsigned i;

		(void)aph_endpoint_serve(client.ep, aph_deadline_ms(2));
		assert_true(aph_time_ns() < deadline);
		len = recvfrom(fd, packet, sizeof(packet), MSG_DONTWAIT, (struct sockaddr *)&from,
			       &from_len);
		if (len < 28 || packet[20] != 1)
			continue;
		i = packet[7] & 3;
		if (++n_copies[i] != (i ? 2 : 1))
			continue;
		packet[20] = 4; /* ABORT, and from the server */
		packet[21] = 0;
		i = i ? i - 1 : 2;
		memcpy(packet + 28, &(uint32_t){ htonl(codes[i]) }, 4);
		assert_int_equal(sendto(fd, packet, 32, 0, (struct sockaddr *)&from, from_len), 32);
		n_ended++;
	}
	for (size_t i = 0; i < SUITE_LEN(calls); i++)
		ends[i] = client_end(client.ep, calls[i], NULL, NULL);
	/* On a busy machine another copy of the first one was on its way when that was refused. */
	while (recv(fd, packet, sizeof(packet), MSG_DONTWAIT) >= 28)
		n_copies[0] += packet[20] == 1 && (packet[7] & 3) == 0;
	for (size_t i = 0; i < SUITE_LEN(calls); i++) {
		assert_int_equal(ends[i].outcome, i || n_copies[0] > 1 ? APH_LOST : APH_REFUSED);
		aph_call_free(calls[i]);
	}
	client_close(&client);
	close(fd);
}

/*
 * Who does not know the service has come in place of one that had received the call, and may have
 * run it.
 */
static void no_service_any_more(void **state)
{
	struct sockaddr_in from;
	socklen_t from_len = sizeof(from);
	uint8_t packet[1500], ack[28 + 18] = { 0 };
	struct aph_call *call;
	struct client client;
	char address[64];
	int fd = open_socket(address, sizeof(address));

	(void)state;
	client_open(&client, address);
	call = client_begin(client.channel, "e", 1, aph_deadline_ms(20000));
	do {
		assert_true(recvfrom(fd, packet, sizeof(packet), 0, (struct sockaddr *)&from,
				     &from_len) >= 28);
	} while (packet[20] != 1);
	memcpy(ack, packet, 28);
	ack[20] = 2; /* an ACK that was asked for, of all before packet 2 */
	ack[21] = 0;
	memset(ack + 12, 0, 4);
	ack[28 + 7] = 2;
	memcpy(ack + 28 + 12, packet + 16, 4);
	ack[28 + 16] = 1;
	assert_int_equal(sendto(fd, ack, sizeof(ack), 0, (struct sockaddr *)&from, from_len),
			 sizeof(ack));
	packet[20] = 4; /* ABORT */
	packet[21] = 0;
	memcpy(packet + 28, &(uint32_t){ htonl(0xfffffffe) }, 4);
	assert_int_equal(sendto(fd, packet, 32, 0, (struct sockaddr *)&from, from_len), 32);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_LOST,
			    APH_REASON_NO_SERVICE);
	aph_call_free(call);
	client_close(&client);
	close(fd);
}

/* The next DATA; the socket waits for it. */
static void receive_data(int fd, uint8_t packet[1500], struct sockaddr_in *from)
{
	socklen_t len = sizeof(*from);

	do {
		assert_true(recvfrom(fd, packet, 1500, 0, (struct sockaddr *)from, &len) >= 28);
	} while (packet[20] != 1);
}

static void send_no_service(int fd, uint8_t packet[1500], const struct sockaddr_in *to, bool of_all)
{
	packet[20] = 4; /* ABORT */
	packet[21] = 0;
	if (of_all)
		memset(packet + 8, 0, 4); /* the call's number */
	memset(packet + 12, 0, 8);
	memcpy(packet + 28, &(uint32_t){ htonl(0xfffffffe) }, 4);
	assert_int_equal(sendto(fd, packet, 32, 0, (const struct sockaddr *)to, sizeof(*to)), 32);
}

/*
 * Whoever does not know the service may have come in place of one that has died with the other call
 * of the connection, or with the first packet of a request, in his hands.
 */
static void no_service_for_another_packet(void **state)
{
	struct timeval patience = { .tv_sec = 2 };
	struct sockaddr_in from;
	uint8_t packet[1500];
	struct aph_call *calls[2];
	struct client client;
	char address[64];
	int fd = open_socket(address, sizeof(address));

	(void)state;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	client_open(&client, address);
	for (size_t i = 0; i < SUITE_LEN(calls); i++)
		calls[i] = client_begin(client.channel, "e", 1, aph_deadline_ms(20000));
	receive_data(fd, packet, &from);
	send_no_service(fd, packet, &from, true);
	client_expect_ends(&client, calls, SUITE_LEN(calls), APH_LOST, APH_REASON_NO_SERVICE, false,
			   5000);
	assert_int_equal(aph_call_new(&calls[0], client.channel, aph_deadline_ms(20000), NULL), 0);
	assert_int_equal(aph_call_send(calls[0], "ab", 2, APH_MORE), 2);
	assert_int_equal(aph_call_send(calls[0], "c", 1, 0), 1);
	do {
		receive_data(fd, packet, &from);
	} while (packet[15] != 2); /* seq */
	send_no_service(fd, packet, &from, false);
	client_expect_ends(&client, calls, 1, APH_LOST, APH_REASON_NO_SERVICE, false, 5000);
	client_close(&client);
	close(fd);
}

/* One is busy that comes in place of another, who has the beginning of a request and may run it. */
static void refused_in_place_of_another(void **state)
{
	struct service_config config = { .options.channels_max = 1 };
	struct aph_call *call, *held;
	struct client client, other;
	struct service service;
	struct sockaddr_in from;
	uint8_t packet[1500];
	char address[64];
	int fd = open_socket(address, sizeof(address));

	(void)state;
	client_open(&client, address);
	assert_int_equal(aph_call_new(&call, client.channel, aph_deadline_ms(20000), NULL), 0);
	assert_int_equal(aph_call_send(call, "ab", 2, APH_MORE), 2);
	receive_data(fd, packet, &from);
	close(fd);
	config.address = address;
	service_start(&service, suite_mode, &config);
	client_open(&other, address);
	held = client_begin(other.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	assert_int_equal(aph_call_send(call, "c", 1, 0), 1);
	client_expect_ends(&client, &call, 1, APH_LOST, APH_REASON_BUSY, false, 5000);
	aph_call_free(held);
	client_close(&other);
	client_close(&client);
	service_stop(&service);
}

static void busy(void **state)
{
	struct service_config config = { .address = remote_address() };
	struct aph_channel_options few = { .size = sizeof(few), .calls_max = 1 };
	struct aph_channel *narrow;
	struct service service;
	struct client client, other;
	struct aph_call *calls[3];

	(void)state;
	config.options.calls_max = 2;
	config.options.channels_max = 1;
	service_start(&service, suite_mode, &config);
	client_open(&client, config.address);
	calls[0] = client_begin(client.channel, "h", 1, APH_FOREVER);
	calls[1] = client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, 2);
	/* As many as one client may have, and as many clients. */
	remote_expect_refused(client.channel, APH_REASON_BUSY);
	client_open(&other, config.address);
	remote_expect_refused(other.channel, APH_REASON_BUSY);
	for (int i = 0; i < 2; i++) {
		aph_call_cancel(calls[i]);
		client_end(client.ep, calls[i], NULL, NULL);
		aph_call_free(calls[i]);
	}
	service_await(&service.seen->works, 0);
	/* Who is quiet makes room. */
	client_echo(other.channel);
	client_echo(client.channel);
	assert_int_equal(aph_channel_open(&narrow, client.ep, config.address, &few), 0);
	assert_int_equal(aph_call_new(&calls[0], narrow, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_new(&calls[1], narrow, APH_FOREVER, NULL), -EAGAIN);
	aph_call_free(calls[0]);
	assert_int_equal(aph_call_new(&calls[1], narrow, APH_FOREVER, NULL), 0);
	aph_call_free(calls[1]);
	client_close(&other);
	client_close(&client);
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(nobody_is_there),
		SUITE_TEST(refused_too_late),
		SUITE_TEST(no_service_any_more),
		SUITE_TEST(no_service_for_another_packet),
		SUITE_TEST(refused_in_place_of_another),
		SUITE_TEST(busy),
	};

	return suite_run_both("remote refusals", tests, SUITE_LEN(tests), 60);
}
