/* SPDX-License-Identifier: MIT */
/*
 * The driver between an engine made for tests and plain sockets on loopback: what leaves, what
 * arrives, and what is told.
 */
#include "driver.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOON aph_deadline_ms((uint64_t)check_ms(2000))

/* Reads the run from the plain socket: datagrams of PACKET bytes, and a shorter last one. */
static void expect_run(size_t len)
{
	unsigned char got[2 * PACKET];

	for (size_t i = 0; i < len; i += PACKET) {
		size_t want = len - i < PACKET ? len - i : PACKET;

		assert_int_equal(recv(peer, got, sizeof(got), 0), (ssize_t)want);
		assert_memory_equal(got, run + i, want);
	}
	assert_int_equal(recv(peer, got, sizeof(got), MSG_DONTWAIT), -1);
}

/* -- sending ----------------------------------------------------------------------------------- */

static void sends_runs(uint32_t flags)
{
	open_with(flags);
	engine_put(&to_peer, run, RUN, PACKET, 0);
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	expect_run(RUN);
	engine_put(&to_peer, run, RUN, PACKET, 28);
	engine_put(&to_peer, run, 3 * PACKET, PACKET, 2 * PACKET + 5);
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	for (size_t i = 0; i < RUN; i += PACKET) {
		unsigned char got[PACKET];

		assert_int_equal(recv(peer, got, sizeof(got), 0),
				 i + PACKET > RUN ? RUN - i : PACKET);
		assert_memory_equal(got, run + i, i + PACKET > RUN ? RUN - i : PACKET);
	}
	expect_run(3 * PACKET);
	assert_int_equal(engine->n_errors, 0);
	close_driver();
}

static void a_run_is_datagrams(void **state)
{
	(void)state;
	sends_runs(0);
}

static void the_same_without_offload(void **state)
{
	(void)state;
	sends_runs(APH_RX_UDP_NO_SEGMENT);
}

static void tells_the_engine_what_it_can_do(void **state)
{
	(void)state;
	open_with(APH_RX_UDP_NO_SEGMENT);
	assert_int_equal(engine->config.flags & APH_RX_SEGMENTS, 0);
	assert_true(engine->config.receive_budget >= 16);
	close_driver();
	open_with(0);
	assert_int_equal(engine->config.flags & APH_RX_SEGMENTS, APH_RX_SEGMENTS);
	close_driver();
}

/* More messages than one system call takes, to several peers, in order. */
static void many_small_messages(void **state)
{
	struct aph_rx_path second = { .remote = v4(INADDR_LOOPBACK, 0) };
	int other;
	char got[64];

	(void)state;
	open_with(0);
	other = plain_socket(&second.remote);
	for (size_t i = 0; i < 200; i++)
		engine_put(i % 3 ? &to_peer : &second, run + i, 40, 40, 0);
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	for (size_t i = 0; i < 200; i++) {
		assert_int_equal(recv(i % 3 ? peer : other, got, sizeof(got), 0), 40);
		assert_memory_equal(got, run + i, 40);
	}
	close(other);
	close_driver();
}

static void a_probe_that_is_too_large(void **state)
{
	static unsigned char large[65535];

	(void)state;
	open_with(0);
	engine_put(&to_peer, run, 60, 60, 0);
	engine_put(&to_peer, large, sizeof(large), sizeof(large), 0);
	engine->to_send[1].probe = true;
	memcpy(large, run, 28);
	engine_put(&to_peer, run, 60, 60, 0);
	(void)aph_rx_udp_flush(udp);
	assert_int_equal(engine->n_errors, 1);
	assert_int_equal(engine->errors[0].error, EMSGSIZE);
	assert_true(engine->errors[0].local);
	assert_int_equal(engine->errors[0].quote_len, 28);
	assert_memory_equal(engine->errors[0].quote, run, 28);
	/* What was around it has left. */
	assert_int_equal(recv(peer, large, sizeof(large), 0), 60);
	assert_int_equal(recv(peer, large, sizeof(large), 0), 60);
	close_driver();
}

/* A run that may be fragmented leaves datagram by datagram, and what follows as ever. */
static void what_may_be_fragmented(void **state)
{
	(void)state;
	open_with(0);
	engine_put(&to_peer, run, RUN, PACKET, 28);
	engine->to_send[0].fragment = true;
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	expect_run(RUN);
	engine_put(&to_peer, run, RUN, PACKET, 0);
	engine_put(&to_peer, run, PACKET, PACKET, 0);
	engine->to_send[2].fragment = true;
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	for (size_t at = 0; at < RUN + PACKET; at += PACKET) {
		unsigned char got[PACKET];
		size_t want = at + PACKET > RUN && at < RUN ? RUN - at : PACKET;

		assert_int_equal(recv(peer, got, sizeof(got), 0), want);
		assert_memory_equal(got, run + (at < RUN ? at : 0), want);
	}
	assert_int_equal(engine->n_errors, 0);
	close_driver();
}

static void a_family_out_of_reach(void **state)
{
	struct aph_rx_path path = { .remote = { .in6 = { .sin6_family = AF_INET6,
							 .sin6_port = htons(9),
							 .sin6_addr = IN6ADDR_LOOPBACK_INIT } } };

	(void)state;
	open_driver(&(struct aph_rx_udp_options){ .local = v4(INADDR_LOOPBACK, 0) });
	engine_put(&path, run, 60, 60, 0);
	assert_int_equal(aph_rx_udp_flush(udp), -EAFNOSUPPORT);
	assert_int_equal(engine->n_errors, 1);
	assert_int_equal(engine->errors[0].error, EAFNOSUPPORT);
	close_driver();
}

/* -- receiving --------------------------------------------------------------------------------- */

static void expect_received_run(size_t len)
{
	size_t at = 0;

	for (unsigned i = 0; i < engine->n_received; i++) {
		const struct engine_received *got = engine->received[i];

		assert_true(got->len <= got->segment || got->segment == PACKET);
		assert_memory_equal(got->bytes, run + at, got->len);
		at += got->len;
	}
	assert_int_equal(at, len);
}

static void receives_runs(uint32_t flags, bool keep)
{
	open_with(flags);
	engine->receiving_is_event = true;
	engine->keep_buffers = keep;
	for (int i = 0; i < 20; i++) {
		send_from(peer, run, RUN, PACKET);
		(void)engine_wait_for_bytes(udp, RUN);
		if (!(flags & APH_RX_UDP_NO_GRO) && i == 0)
			assert_int_equal(engine->n_received, 1);
		expect_received_run(RUN);
		assert_true(engine->received[0]->had_buffer);
		engine_forget();
	}
	close_driver();
}

static void a_run_arrives_whole(void **state)
{
	(void)state;
	receives_runs(0, false);
}

static void or_in_pieces(void **state)
{
	(void)state;
	receives_runs(APH_RX_UDP_NO_GRO, false);
}

#define SMALL 60

/* The next piece of what has been received, of `n` packets. */
static void expect_piece(unsigned i, unsigned n, size_t *at)
{
	const struct engine_received *got;

	engine->n_events = 0;
	assert_int_equal(aph_rx_udp_wait(udp, SOON), 0);
	assert_int_equal(engine->n_received, i + 1);
	got = engine->received[i];
	assert_int_equal(got->segment, SMALL);
	assert_int_equal(got->len, n * SMALL);
	assert_memory_equal(got->bytes, run + *at, got->len);
	*at += got->len;
}

/* What was sent for the first packets has left before the next ones are looked at. */
static void small_packets_of_a_run_come_in_turns(void **state)
{
	char answer[SMALL];
	struct pollfd p;
	size_t at = 0;

	(void)state;
	open_with(0);
	engine->receiving_is_event = true;
	p = (struct pollfd){ .fd = aph_rx_udp_fd(udp), .events = POLLIN };
	assert_return_code(p.fd, errno);
	send_from(peer, run, 20 * SMALL, SMALL);
	expect_piece(0, 8, &at);
	engine_put(&to_peer, run, SMALL, SMALL, 0);
	expect_piece(1, 8, &at);
	assert_int_equal(recv(peer, answer, sizeof(answer), MSG_DONTWAIT), SMALL);
	/* Nothing more is in the socket, but here. */
	engine->n_events = 0;
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	assert_int_equal(poll(&p, 1, 0), 1);
	expect_piece(2, 4, &at);
	engine->n_events = 0;
	assert_int_equal(aph_rx_udp_wait(udp, aph_rx_udp_now()), -ETIMEDOUT);
	assert_int_equal(poll(&p, 1, 0), 0);
	close_driver();
}

/* Who never spins shares its CPU: turns would only cost system calls. */
static void or_all_at_once(void **state)
{
	size_t at = 0;

	(void)state;
	open_driver(&(struct aph_rx_udp_options){ .spin_max_us = UINT32_MAX });
	engine->receiving_is_event = true;
	send_from(peer, run, 20 * SMALL, SMALL);
	expect_piece(0, 20, &at);
	close_driver();
}

/* Answers what the driver sends, until that is nothing. */
static void *echo(void *arg)
{
	struct aph_rx_address to = driver_address();
	char bytes[64];
	ssize_t len;

	(void)arg;
	while ((len = recv(peer, bytes, sizeof(bytes), 0)) > 0 || (len < 0 && errno == EAGAIN))
		CHECK(len < 0 ||
		      sendto(peer, bytes, (size_t)len, 0, &to.any, sizeof(to.in)) == len);
	return NULL;
}

static void send_run(void)
{
	engine->on_receive = NULL;
	send_from(peer, run, RUN, PACKET);
}

/*
 * A run that comes while a datagram is looked at, however many came alone before: whole or in its
 * datagrams, but never taken for one.
 */
static void a_run_after_lonely_datagrams(void **state)
{
	struct aph_rx_address to;
	pthread_t thread;

	(void)state;
	open_driver(&(struct aph_rx_udp_options){ .local = v4(INADDR_LOOPBACK, 0) });
	engine->receiving_is_event = true;
	assert_int_equal(pthread_create(&thread, NULL, echo, NULL), 0);
	for (int n = 1; n <= 100; n++) {
		for (int i = 0; i < n; i++) {
			if (i + 1 == n)
				engine->on_receive = send_run;
			engine_put(&to_peer, run, 60, 60, 0);
			(void)engine_wait_for_bytes(udp, 60);
			assert_int_equal(engine->received[0]->segment, 60);
			engine_forget();
		}
		(void)engine_wait_for_bytes(udp, RUN);
		expect_received_run(RUN);
		for (unsigned i = 0; i < engine->n_received; i++)
			assert_true(engine->received[i]->segment <= PACKET);
		engine_forget();
	}
	to = to_peer.remote;
	assert_int_equal(sendto(peer, "", 0, 0, &to.any, sizeof(to.in)), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	close_driver();
}

static void buffers_that_are_read_are_replaced(void **state)
{
	(void)state;
	receives_runs(0, true);
	receives_runs(APH_RX_UDP_NO_GRO, true);
}

static void short_of_memory(void **state)
{
	(void)state;
	for (int gro = 0; gro < 2; gro++) {
		open_with(gro ? 0 : APH_RX_UDP_NO_GRO);
		engine->receiving_is_event = true;
		engine->keep_buffers = true;
		engine->no_memory = true;
		for (int i = 0; i < 3; i++) {
			send_from(peer, run, RUN, PACKET);
			(void)engine_wait_for_bytes(udp, RUN);
			expect_received_run(RUN);
			engine_forget();
		}
		engine->no_memory = false;
		for (int i = 0; i < 3; i++) {
			send_from(peer, run, RUN, PACKET);
			(void)engine_wait_for_bytes(udp, RUN);
			assert_true(i == 0 || engine->received[0]->had_buffer);
			engine_forget();
		}
		close_driver();
	}
}

static void short_datagrams_are_nothing(void **state)
{
	(void)state;
	open_with(0);
	engine->receiving_is_event = true;
	send_from(peer, run, 0, 0);
	send_from(peer, run, 27, 0);
	send_from(peer, run, 28, 0);
	(void)engine_wait_for_bytes(udp, 28);
	assert_int_equal(engine->n_received, 1);
	close_driver();
}

/* The path says who sent it, to which of our addresses, and the answer leaves from there. */
static void keeps_to_the_path(void **state)
{
	struct aph_rx_address to = v4(INADDR_LOOPBACK + 5, 0), from;
	socklen_t len = sizeof(from.in);
	struct aph_rx_path path;

	(void)state;
	open_with(0);
	engine->receiving_is_event = true;
	to.in.sin_port = driver_address().in.sin_port;
	assert_int_equal(sendto(peer, run, 40, 0, &to.any, sizeof(to.in)), 40);
	(void)engine_wait_for_bytes(udp, 40);
	path = engine->received[0]->path;
	assert_int_equal(path.remote.family, AF_INET);
	assert_memory_equal(&path.remote.in, &to_peer.remote.in, sizeof(path.remote.in));
	assert_int_equal(path.local.family, AF_INET);
	assert_int_equal(path.local.in.sin_addr.s_addr, to.in.sin_addr.s_addr);
	assert_int_not_equal(path.interface, 0);
	engine_put(&path, run, 40, 40, 0);
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	assert_int_equal(recvfrom(peer, run, 40, 0, &from.any, &len), 40);
	assert_int_equal(from.in.sin_addr.s_addr, to.in.sin_addr.s_addr);
	close_driver();
}

static void speaks_ipv6(void **state)
{
	struct aph_rx_address address = { .in6 = { .sin6_family = AF_INET6,
						   .sin6_addr = IN6ADDR_LOOPBACK_INIT } };
	int other = plain_socket(&address);
	struct aph_rx_path path = { .remote = address };
	unsigned char got[PACKET];

	(void)state;
	if (other < 0) {
		print_message("SKIP: this machine has no IPv6 on its loopback interface\n");
		skip();
	}
	open_with(0);
	engine->receiving_is_event = true;
	engine_put(&path, run, 3 * PACKET, PACKET, 0);
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(recv(other, got, sizeof(got), 0), PACKET);
	assert_int_equal(aph_rx_udp_address(udp, &address), 0);
	assert_int_equal(address.family, AF_INET6);
	address.in6.sin6_addr = in6addr_loopback;
	assert_int_equal(sendto(other, run, 40, 0, &address.any, sizeof(address.in6)), 40);
	(void)engine_wait_for_bytes(udp, 40);
	assert_int_equal(engine->received[0]->path.remote.family, AF_INET6);
	assert_int_equal(engine->received[0]->path.local.family, AF_INET6);
	close(other);
	close_driver();
}

static void nobody_is_there(void **state)
{
	struct aph_rx_udp_options options = { .flags = 0 };
	struct aph_rx_path path = { .remote = v4(INADDR_LOOPBACK, 0) };
	int other;

	(void)state;
	for (int i = 0; i < 2; i++) {
		if (i)
			options.local = v4(INADDR_LOOPBACK, 0);
		open_driver(&options);
		engine->receiving_is_event = true;
		path.remote = v4(INADDR_LOOPBACK, 0);
		other = plain_socket(&path.remote);
		close(other);
		engine_put(&path, run, 60, 60, 0);
		engine_put(&to_peer, run, 60, 60, 0);
		assert_int_equal(aph_rx_udp_wait(udp, SOON), 0);
		assert_int_equal(engine->n_errors, 1);
		assert_int_equal(engine->errors[0].error, ECONNREFUSED);
		assert_false(engine->errors[0].local);
		assert_memory_equal(&engine->errors[0].path.remote.in, &path.remote.in,
				    sizeof(path.remote.in));
		assert_true(engine->errors[0].quote_len >= 8);
		assert_memory_equal(engine->errors[0].quote, run, engine->errors[0].quote_len);
		/* The other peer has lost nothing by it. */
		assert_int_equal(recv(peer, run, sizeof(run), 0), 60);
		close_driver();
	}
}

/* More than the receive buffer holds: the engine is told to offer less. */
static void drops_shrink_the_budget(void **state)
{
	struct aph_rx_udp_options options = { .receive_buffer = 100000 };
	uint32_t before;

	(void)state;
	for (int k = 0; k < 3; k++) {
		if (k)
			options.local = v4(INADDR_LOOPBACK, 0);
		options.flags = k == 2 ? APH_RX_UDP_NO_GRO : 0;
		open_driver(&options);
		engine->receiving_is_event = true;
		before = engine->budget;
		for (int i = 0; i < 300; i++)
			send_from(peer, run, PACKET, 0);
		for (int i = 0; i < 300 && engine->budget == before; i++) {
			engine->n_events = 0;
			if (aph_rx_udp_wait(udp, APH_NOW) != 0)
				send_from(peer, run, PACKET, 0);
		}
		assert_true(engine->budget < before);
		assert_true(engine->budget >= 16);
		close_driver();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(a_run_is_datagrams),
		SUITE_TEST(the_same_without_offload),
		SUITE_TEST(tells_the_engine_what_it_can_do),
		SUITE_TEST(many_small_messages),
		SUITE_TEST(a_probe_that_is_too_large),
		SUITE_TEST(what_may_be_fragmented),
		SUITE_TEST(a_family_out_of_reach),
		SUITE_TEST(a_run_arrives_whole),
		SUITE_TEST(or_in_pieces),
		SUITE_TEST(small_packets_of_a_run_come_in_turns),
		SUITE_TEST(or_all_at_once),
		SUITE_TEST(a_run_after_lonely_datagrams),
		SUITE_TEST(buffers_that_are_read_are_replaced),
		SUITE_TEST(short_of_memory),
		SUITE_TEST(short_datagrams_are_nothing),
		SUITE_TEST(keeps_to_the_path),
		SUITE_TEST(speaks_ipv6),
		SUITE_TEST(nobody_is_there),
		SUITE_TEST(drops_shrink_the_budget),
	};

	return suite_run("udp driver", tests, SUITE_LEN(tests), 60);
}
