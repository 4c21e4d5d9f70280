/* SPDX-License-Identifier: MIT */
/*
 * Sockets that only send: whom they lead to, from which address, and that nothing is received by
 * them or lost with them.
 */
/* Before the driver under test, which would hide a parameter of its. */
#include "udp/udp.h"

#include "driver.h"
#include "rx/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ENOUGH 64 /* datagrams in a row */

static const struct aph_udp_line *line(void)
{
	return &udp->lines[to_peer.remote.family == AF_INET6];
}

static bool leads_to(const struct aph_rx_path *path)
{
	return line()->fd >= 0 && aph_rx_address_equal(&line()->remote, &path->remote);
}

static void send_one(const struct aph_rx_path *path, uint32_t number)
{
	static unsigned char packet[APH_RX_HEADER_SIZE + sizeof(number)];

	memcpy(packet + APH_RX_HEADER_SIZE, &number, sizeof(number));
	engine_put(path, packet, sizeof(packet), sizeof(packet), 0);
	assert_int_equal(aph_rx_udp_flush(udp), 0);
}

/* Reads it at its destination; `from`: who sent it. */
static void expect_one(int fd, uint32_t number, union aph_udp_name *from)
{
	unsigned char packet[100];
	socklen_t len = sizeof(*from);
	uint32_t got;

	assert_int_equal(recvfrom(fd, packet, sizeof(packet), 0, &from->any, &len),
			 APH_RX_HEADER_SIZE + sizeof(got));
	memcpy(&got, packet + APH_RX_HEADER_SIZE, sizeof(got));
	assert_int_equal(got, number);
}

/* The peer answers, and the driver hears it. */
static void expect_answer(int fd, const union aph_udp_name *to)
{
	static const unsigned char packet[APH_RX_HEADER_SIZE];
	socklen_t len = to->any.sa_family == AF_INET ? sizeof(to->in) : sizeof(to->in6);

	assert_int_equal(sendto(fd, packet, sizeof(packet), 0, &to->any, len), sizeof(packet));
	assert_int_equal(engine_wait_for_bytes(udp, sizeof(packet)), 1);
	engine_forget();
}

/* Many datagrams to the peer: the same at the other end with a line as without. */
static void talk(unsigned n)
{
	union aph_udp_name first, from;

	for (uint32_t i = 0; i < n; i++) {
		send_one(&to_peer, i);
		expect_one(peer, i, i ? &from : &first);
		if (i)
			assert_memory_equal(&from, &first, sizeof(first.in));
		expect_answer(peer, &first);
	}
}

static void open_at(struct aph_rx_address local)
{
	open_driver(&(struct aph_rx_udp_options){ .local = local });
	engine->receiving_is_event = true;
}

/* The line has the address that is kept for documentation, and so can be nobody's. */
static void expect_bound_to(const char *host)
{
	union aph_udp_name name;
	socklen_t len = sizeof(name);
	char text[INET6_ADDRSTRLEN];

	assert_int_equal(getsockname(line()->fd, &name.any, &len), 0);
	assert_non_null(inet_ntop(name.any.sa_family,
				  name.any.sa_family == AF_INET ? (void *)&name.in.sin_addr
								: (void *)&name.in6.sin6_addr,
				  text, sizeof(text)));
	assert_string_equal(text, host);
}

static struct aph_rx_address v6(const struct in6_addr *host)
{
	return (struct aph_rx_address){ .in6 = { .sin6_family = AF_INET6, .sin6_addr = *host } };
}

/* A driver on one address, on all, on another one. */
static void leads_to_whom_we_talk_to(void **state)
{
	const struct aph_rx_address locals[] = {
		v4(INADDR_LOOPBACK, 0),	 v4(INADDR_ANY, 0), v6(&in6addr_any),
		{ .family = AF_UNSPEC }, v4(0x7f000102, 0),
	};

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(locals); i++) {
		open_at(locals[i]);
		talk(ENOUGH - 1);
		assert_false(leads_to(&to_peer));
		talk(10);
		assert_true(leads_to(&to_peer));
		expect_bound_to("233.252.0.1");
		close_driver();
	}
}

static void over_ipv6_too(void **state)
{
	const struct aph_rx_address locals[] = { v6(&in6addr_loopback), v6(&in6addr_any) };

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(locals); i++) {
		struct aph_rx_address at = v6(&in6addr_loopback);

		open_at(locals[i]);
		(void)close(peer);
		peer = plain_socket(&at);
		if (peer < 0) {
			udp = aph_rx_udp_close(udp);
			suite_skip("this machine has no IPv6 on its loopback interface");
		}
		to_peer.remote = at;
		talk(ENOUGH + 10);
		assert_true(leads_to(&to_peer));
		expect_bound_to("ff0e::db8:0:1");
		close_driver();
	}
}

/* To each of several what is for it, whoever the line leads to; it follows who talks most. */
static void others_are_not_forgotten(void **state)
{
	struct aph_rx_path to_other = { .remote = v4(INADDR_LOOPBACK, 0) };
	union aph_udp_name from;
	int other;

	(void)state;
	open_at(v4(INADDR_LOOPBACK, 0));
	other = plain_socket(&to_other.remote);
	assert_true(other >= 0);
	talk(ENOUGH);
	for (uint32_t i = 0; i < 3 * ENOUGH; i++) {
		send_one(&to_peer, i);
		send_one(&to_other, i + 1);
		expect_one(peer, i, &from);
		expect_one(other, i + 1, &from);
		expect_answer(other, &from);
		expect_answer(peer, &from);
	}
	assert_true(leads_to(&to_peer));
	for (uint32_t i = 0; i < ENOUGH; i++) {
		send_one(&to_other, i);
		expect_one(other, i, &from);
	}
	assert_true(leads_to(&to_other));
	talk(1);
	close(other);
	close_driver();
}

/* A driver on every address leaves the source to the kernel, or is told where a peer met it. */
static void from_where_the_peer_met_us(void **state)
{
	struct aph_rx_path to_other;
	union aph_udp_name from;

	(void)state;
	open_at(v4(INADDR_ANY, 0));
	to_peer.local = v4(0x7f000203, 0);
	for (uint32_t i = 0; i < ENOUGH + 10; i++) {
		send_one(&to_peer, i);
		expect_one(peer, i, &from);
		expect_answer(peer, &from);
	}
	assert_true(leads_to(&to_peer));
	/* Another path to the same peer begins elsewhere, and so does what is sent along it. */
	to_other = to_peer;
	to_other.local = v4(0x7f000204, 0);
	for (uint32_t i = 0; i < 2 * ENOUGH; i++) {
		send_one(&to_other, i);
		expect_one(peer, i, &from);
		assert_int_equal(from.in.sin_addr.s_addr, to_other.local.in.sin_addr.s_addr);
		send_one(&to_peer, i);
		expect_one(peer, i, &from);
		assert_int_equal(from.in.sin_addr.s_addr, to_peer.local.in.sin_addr.s_addr);
	}
	close_driver();
}

static void errors_are_told(void **state)
{
	(void)state;
	open_at(v4(INADDR_LOOPBACK, 0));
	talk(ENOUGH);
	assert_true(leads_to(&to_peer));
	close(peer);
	peer = -1;
	engine->n_events = 0;
	send_one(&to_peer, 1);
	assert_int_equal(aph_rx_udp_wait(udp, aph_deadline_ms(2000)), 0);
	assert_int_equal(engine->n_errors, 1);
	assert_int_equal(engine->errors[0].error, ECONNREFUSED);
	assert_true(aph_rx_address_equal(&engine->errors[0].path.remote, &to_peer.remote));
	assert_false(engine->errors[0].local);
	close_driver();
}

/* Where a line does not send, the driver's socket does. */
static void one_that_fails_is_done_without(void **state)
{
	union aph_udp_name from;

	(void)state;
	open_at(v4(INADDR_LOOPBACK, 0));
	talk(ENOUGH);
	assert_int_equal(shutdown(line()->fd, SHUT_WR), 0);
	send_one(&to_peer, 7);
	expect_one(peer, 7, &from);
	assert_false(leads_to(&to_peer));
	expect_answer(peer, &from);
	talk(2 * ENOUGH);
	close_driver();
}

/* Each of several drivers at a port has its own. */
static void at_a_shared_port(void **state)
{
	struct aph_rx_udp_options options = { .local = v4(INADDR_LOOPBACK, 0),
					      .flags = APH_RX_UDP_SHARE };
	struct aph_rx_udp *second = NULL;

	(void)state;
	open_driver(&options);
	options.size = sizeof(options);
	assert_int_equal(aph_rx_udp_address(udp, &options.local), 0);
	assert_int_equal(aph_rx_udp_open(&second, &options), 0);
	assert_true(udp->lines[0].fd >= 0);
	assert_true(second->lines[0].fd >= 0);
	(void)aph_rx_udp_close(second);
	close_driver();
}

/* Having let a line in does not let anybody else in. */
static void the_port_stays_ours(void **state)
{
	struct aph_rx_address address;
	int one = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_true(fd >= 0);
	open_at(v4(INADDR_ANY, 0));
	assert_true(udp->lines[0].fd >= 0);
	address = driver_address();
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, &address.any, sizeof(address.in)), -1);
	assert_int_equal(errno, EADDRINUSE);
	close(fd);
	close_driver();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(leads_to_whom_we_talk_to), SUITE_TEST(over_ipv6_too),
		SUITE_TEST(others_are_not_forgotten), SUITE_TEST(from_where_the_peer_met_us),
		SUITE_TEST(errors_are_told),	      SUITE_TEST(one_that_fails_is_done_without),
		SUITE_TEST(at_a_shared_port),	      SUITE_TEST(the_port_stays_ours),
	};

	return suite_run("udp lines", tests, SUITE_LEN(tests), 60);
}
