/* SPDX-License-Identifier: MIT */
/*
 * A socket of one address that nobody shares begins without UDP_GRO and receives with recvfrom():
 * what switches the option on, what does not, and that nothing is taken for what it is not
 * meanwhile.
 */
#include "engine.h"
#include "port.h"
#include "suite.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PACKETS	 45
#define PACKET	 1440
#define RUN	 (PACKETS * PACKET - 100)
#define SMALL	 60
#define RUNS_MAX 10 /* by then one arrives whole */

static struct aph_rx_udp *udp;
static int peers[2];
static unsigned char run[PACKETS * PACKET];

static void open_driver(uint32_t flags)
{
	struct aph_rx_udp_options options = {
		.size = sizeof(options),
		.flags = flags,
		.local.in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
	};

	assert_int_equal(aph_rx_udp_open(&udp, &options), 0);
	engine->receiving_is_event = true;
	for (size_t i = 0; i < 2; i++) {
		peers[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		assert_return_code(peers[i], errno);
	}
	for (size_t i = 0; i < sizeof(run); i++)
		run[i] = (unsigned char)(i / PACKET + i);
}

static void close_driver(void)
{
	engine_forget();
	udp = aph_rx_udp_close(udp);
	close(peers[0]);
	close(peers[1]);
}

static void send_from(int peer, const void *data, size_t len, uint16_t segment)
{
	struct aph_rx_address to;

	assert_int_equal(aph_rx_udp_address(udp, &to), 0);
	port_send_run(peer, &to.in, data, len, segment);
}

/* All that was received is the run, so many times. */
static void expect_runs(unsigned n_runs)
{
	size_t at = 0;

	for (unsigned i = 0; i < engine->n_received; i++) {
		const struct engine_received *got = engine->received[i];

		assert_true(got->len <= PACKET || got->segment == PACKET);
		assert_true(at % RUN + got->len <= RUN);
		assert_memory_equal(got->bytes, run + at % RUN, got->len);
		at += got->len;
	}
	assert_int_equal(at, n_runs * RUN);
	engine_forget();
}

/* One after the other, until one arrives whole. Returns how many it took. */
static unsigned send_runs(void)
{
	for (unsigned n = 1; n <= RUNS_MAX; n++) {
		unsigned n_pieces;

		send_from(peers[0], run, RUN, PACKET);
		n_pieces = engine_wait_for_bytes(udp, RUN);
		expect_runs(1);
		if (n_pieces == 1)
			return n;
	}
	fail_msg("runs still arrive in pieces");
	return 0;
}

/* Each is received before the next one is sent. */
static void send_alone(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		send_from(peers[0], run, SMALL, 0);
		assert_int_equal(engine_wait_for_bytes(udp, SMALL), 1);
		engine_forget();
	}
}

/* Of the same size, and both are there before anybody looks. */
static void send_two(int first, int second)
{
	send_from(first, run, SMALL, 0);
	send_from(second, run, SMALL, 0);
	assert_int_equal(engine_wait_for_bytes(udp, 2 * SMALL), 2);
	engine_forget();
}

/* Whatever came alone before. */
static void a_run_switches_it_on(void **state)
{
	static const unsigned n_alone[] = { 0, 1, 62, 63, 64, 65, 300 };

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(n_alone); i++) {
		open_driver(0);
		send_alone(n_alone[i]);
		assert_true(send_runs() > 1);
		/* It stays. */
		send_alone(300);
		assert_int_equal(send_runs(), 1);
		close_driver();
	}
}

static void runs_of_two_do(void **state)
{
	unsigned n_pieces = 2;

	(void)state;
	open_driver(0);
	for (int i = 0; i < 400 && n_pieces != 1; i++) {
		send_from(peers[0], run, 2 * PACKET, PACKET);
		n_pieces = engine_wait_for_bytes(udp, 2 * PACKET);
		for (unsigned k = 0; k < n_pieces; k++)
			assert_memory_equal(engine->received[k]->bytes, run + k * PACKET,
					    engine->received[k]->len);
		engine_forget();
	}
	assert_int_equal(n_pieces, 1);
	close_driver();
}

static void send_another(void)
{
	static unsigned n;

	n++;
	if (n == 2)
		engine->on_receive = NULL;
	n %= 2;
	send_from(peers[0], run, RUN, PACKET);
}

/* What was cut up before the option is on lies beside what comes whole afterwards. */
static void runs_come_while_it_changes(void **state)
{
	(void)state;
	open_driver(0);
	send_from(peers[0], run, RUN, PACKET);
	engine->on_receive = send_another;
	(void)engine_wait_for_bytes(udp, 3 * RUN);
	expect_runs(3);
	close_driver();
}

/*
 * Two peers that call at the same time; and a packet that was sent again before the first copy was
 * looked at.
 */
static void neighbours_do_not(void **state)
{
	(void)state;
	open_driver(0);
	for (int i = 0; i < 300; i++)
		send_two(peers[0], peers[1]);
	assert_true(send_runs() > 1);
	close_driver();
	open_driver(0);
	for (int i = 0; i < 4; i++) {
		send_two(peers[0], peers[0]);
		send_alone(300);
	}
	assert_true(send_runs() > 1);
	close_driver();
}

/* There everybody who receives would have to know. */
static void it_is_on_where_others_may_come(void **state)
{
	(void)state;
	open_driver(APH_RX_UDP_SHARE);
	assert_int_equal(send_runs(), 1);
	close_driver();
}

/* Without the option for good a slot has 8 KiB: what does not fit is lost, not cut. */
static void what_is_too_long_is_lost(void **state)
{
	(void)state;
	open_driver(APH_RX_UDP_NO_GRO);
	for (int i = 0; i < 3; i++) {
		send_from(peers[0], run, 9000, 0);
		send_from(peers[0], run + i, 8192, 0);
		assert_int_equal(engine_wait_for_bytes(udp, 8192), 1);
		assert_memory_equal(engine->received[0]->bytes, run + i, 8192);
		engine_forget();
	}
	close_driver();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(a_run_switches_it_on),	    SUITE_TEST(runs_of_two_do),
		SUITE_TEST(runs_come_while_it_changes),	    SUITE_TEST(neighbours_do_not),
		SUITE_TEST(it_is_on_where_others_may_come), SUITE_TEST(what_is_too_long_is_lost),
	};

	return suite_run("udp gro", tests, SUITE_LEN(tests), 60);
}
