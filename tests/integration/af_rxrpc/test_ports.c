/* SPDX-License-Identifier: MIT */
/*
 * UDP ports that unrelated sockets share: those of several processes, and one beside an endpoint of
 * libantiphon.
 */
#include "fixture.h"

#include <poll.h>
#include <stdio.h>
#include <sys/wait.h>

#define OTHER (SERVICE + 1)
#define MINE  (SERVICE + 2)

static struct got got;

/* -- processes --------------------------------------------------------------------------------- */

static void serve_one(int fd)
{
	receive(fd, &got, 100, MSG_DONTWAIT);
	CHECK(got.n >= 0 || got.n == -EAGAIN);
	if (got.n < 0)
		return;
	if (got.type == RXRPC_ACK)
		CHECK_INT(tag_command(fd, got.tag, RXRPC_CHARGE_ACCEPT), 0);
	else if (got.type == 0)
		CHECK_INT(tag_send(fd, got.tag, got.data, (size_t)got.n, NULL, 0), got.n);
}

/* Whoever was killed may still be seen there for a moment. */
static void bind_soon(int fd, const struct sockaddr_rxrpc *at)
{
	uint64_t until_ns = aph_deadline_ms((uint64_t)check_hang_ms(5000));
	int r;

	while ((r = bind_to(fd, at)) == -EADDRINUSE && aph_time_ns() < until_ns)
		usleep(1000);
	OK(r);
}

/*
 * A process of its own, which answers each call with what was asked, and forks when it is told to.
 */
static int serve(int ctl, void *arg)
{
	const struct sockaddr_rxrpc *at = arg;
	int fd = client_new();
	struct pollfd fds[2] = { { .fd = fd, .events = POLLIN }, { .fd = ctl, .events = POLLIN } };

	bind_soon(fd, at);
	OK(rx_listen(fd, 10));
	for (unsigned long tag = 1; tag < 9; tag++)
		CHECK_INT(tag_command(fd, tag, RXRPC_CHARGE_ACCEPT), 0);
	child_say(ctl, 'r');
	for (;;) {
		OK(poll(fds, 2, -1));
		if (fds[1].revents) {
			CHECK_INT(child_hear(ctl, 0), 'f');
			fork_once();
			child_say(ctl, 'f');
		}
		if (fds[0].revents)
			serve_one(fd);
	}
}

static int finds_it_taken(int ctl, void *arg)
{
	int fd = client_new();

	(void)ctl;
	CHECK_INT(bind_to(fd, arg), -EADDRINUSE);
	OK(rx_close(fd));
	return 0;
}

static void start(struct child *child, struct sockaddr_rxrpc *at)
{
	child_start(child, serve, at);
	CHECK_INT(child_hear(child->ctl, check_hang_ms(5000)), 'r');
}

/* Two numbers at one port. */
static void start_both(struct child children[2], struct sockaddr_rxrpc at[2])
{
	at[0] = at[1] = loopback(port_free(AF_INET), SERVICE);
	at[1].srx_service = OTHER;
	for (int i = 0; i < 2; i++)
		start(&children[i], &at[i]);
}

static void kill_both(struct child children[2])
{
	for (int i = 0; i < 2; i++)
		child_kill(&children[i]);
}

static void expect_echo(int client, const struct sockaddr_rxrpc *to)
{
	CHECK_INT(tag_send(client, 7, "body", 4, to, 0), 4);
	receive_soon(client, &got, 100, 0);
	CHECK(got.n == 4 && got.flags == MSG_EOR && memcmp(got.data, "body", 4) == 0);
}

/* Each serves a number of its own; the death of one, the first or the second, leaves the other. */
static void test_unrelated_processes(void **state)
{
	struct sockaddr_rxrpc at[2];
	struct child children[2], third;
	int client;

	(void)state;
	for (int victim = 0; victim < 2; victim++) {
		start_both(children, at);
		child_start(&third, finds_it_taken, &at[victim]);
		CHECK_INT(child_finish(&third, check_hang_ms(5000)), 0);
		client = client_new();
		for (int i = 0; i < 10; i++)
			expect_echo(client, &at[i % 2]);
		child_kill(&children[victim]);
		for (int i = 0; i < 10; i++)
			expect_echo(client, &at[!victim]);
		CHECK_INT(tag_send(client, 8, "body", 4, &at[victim], 0), 4);
		receive_soon(client, &got, 100, 0);
		CHECK_INT(got.type, RXRPC_ABORT);
		start(&children[victim], &at[victim]);
		for (int i = 0; i < 10; i++)
			expect_echo(client, &at[i % 2]);
		OK(rx_close(client));
		kill_both(children);
	}
}

/*
 * Sockets that move to a process of their own take their part in the port along, the owner's and
 * the other's.
 */
static void test_ports_that_move(void **state)
{
	struct sockaddr_rxrpc at[2];
	struct child children[2], third;
	int client;

	(void)state;
	for (int first = 0; first < 2; first++) {
		start_both(children, at);
		client = client_new();
		for (int i = 0; i < 2; i++) {
			struct child *child = &children[first ^ i];

			child_say(child->ctl, 'f');
			CHECK_INT(child_hear(child->ctl, check_hang_ms(5000)), 'f');
			for (int j = 0; j < 4; j++)
				expect_echo(client, &at[j % 2]);
			child_start(&third, finds_it_taken, &at[first ^ i]);
			CHECK_INT(child_finish(&third, check_hang_ms(5000)), 0);
		}
		/*
		 * The last descriptor is gone with the program, and so is the service, from
		 * wherever it was served.
		 */
		child_kill(&children[first]);
		for (int j = 0; j < 4; j++)
			expect_echo(client, &at[!first]);
		start(&children[first], &at[first]);
		for (int j = 0; j < 4; j++)
			expect_echo(client, &at[j % 2]);
		OK(rx_close(client));
		kill_both(children);
	}
}

/* -- one process ------------------------------------------------------------------------------- */

static void test_beside_an_endpoint(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 1), client = client_new();
	struct aph_endpoint *ep;
	struct aph_event ev;
	char address[64];

	(void)state;
	snprintf(address, sizeof(address), "rx:127.0.0.1:%u/%u", ntohs(to.transport.sin.sin_port),
		 SERVICE);
	OK(aph_endpoint_new(&ep, NULL));
	CHECK_INT(aph_service_open(NULL, ep, address, NULL), -EADDRINUSE);
	snprintf(address, sizeof(address), "rx:127.0.0.1:%u/%u", ntohs(to.transport.sin.sin_port),
		 MINE);
	OK(aph_service_open(NULL, ep, address, NULL));
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	to.srx_service = MINE;
	CHECK_INT(tag_send(client, 2, "x", 1, &to, 0), 1);
	OK(aph_endpoint_next(ep, &ev, aph_deadline_ms((uint64_t)check_hang_ms(5000))));
	CHECK(ev.type == APH_EVENT_REQUEST);
	OK(aph_call_reply(ev.call, "y", 1));
	(void)aph_endpoint_next(ep, &ev, APH_NOW);
	expect_data(client, 2, "y", MSG_EOR);
	/* The socket's call goes on without the endpoint. */
	CHECK(aph_endpoint_free(ep) == NULL);
	CHECK_INT(tag_command(server, 5, RXRPC_ACCEPT), 0);
	expect_data(server, 5, "x", 0);
	CHECK_INT(tag_send(server, 5, "z", 1, NULL, 0), 1);
	expect_data(client, 1, "z", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_unrelated_processes),
		SUITE_TEST(test_ports_that_move),
		SUITE_TEST(test_beside_an_endpoint),
	};

	return suite_run("af_rxrpc ports", tests, SUITE_LEN(tests), 60);
}
