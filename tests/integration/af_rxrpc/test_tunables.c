/* SPDX-License-Identifier: MIT */
/*
 * Tunables: their first values from the environment, which programs as they are get too, and the
 * functions.
 */
#include "fixture.h"

#include <antiphon/api.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#define DELAY_MS 20

static struct got got;

/* The two ends of a call take turns at one thread. */
static void one_call(int client, int server, const struct sockaddr_rxrpc *to)
{
	CHECK_INT(tag_send(client, 1, "x", 1, to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	expect_data(server, 11, "x", 0);
	CHECK_INT(tag_send(server, 11, "y", 1, NULL, 0), 1);
	expect_data(client, 1, "y", MSG_EOR);
	expect_note(server, &got, 11, RXRPC_ACK);
}

/* -- from the environment ---------------------------------------------------------------------- */

static void test_backlog(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 100);
	unsigned long tag;

	(void)state;
	for (tag = 1; tag <= 4; tag++)
		CHECK_INT(tag_command(server, tag, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_command(server, 5, RXRPC_CHARGE_ACCEPT), -ENOBUFS);
	OK(rx_close(server));
}

/* Request, reply and receipt are each looked at only after a while. */
static void test_delay(void **state)
{
	uint64_t start_ns = aph_time_ns();
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	one_call(client, server, &to);
	CHECK(aph_time_ns() - start_ns >= UINT64_C(3000000) * DELAY_MS);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* The documentation's examples leave transport_len 0. */
static void test_implicit_length(void **state)
{
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE), six = to, none = to;
	int server = client_new(), client = client_new(), fd;

	(void)state;
	to.transport_len = 0;
	OK(bind_to(server, &to));
	OK(rx_listen(server, 5));
	OK(connect_to(client, &to));
	one_call(client, server, NULL);
	one_call(client, server, &to);
	fd = (int)OK(rx_socket(AF_RXRPC, SOCK_DGRAM, PF_INET6));
	none.transport_len = 0;
	none.transport.family = AF_UNIX;
	CHECK_INT(bind_to(fd, &none), -EINVAL);
	memset(&six.transport, 0, sizeof(six.transport));
	six.transport_len = 0;
	six.transport.family = AF_INET6;
	OK(connect_to(fd, &six));
	OK(rx_close(fd));
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- the functions ----------------------------------------------------------------------------- */

#ifndef AFRX_PLAIN
static const struct {
	const char *name;
	unsigned value, min, max;
} tunables[] = {
	{ "max_backlog", 4, 4, 31 },
	{ "soft_ack_delay", 100, 1, 1000 },
	{ "idle_ack_delay", 20, 1, 1000 },
	{ "idle_conn_expiry", 120000, 1, UINT32_MAX },
	{ "idle_conn_fast_expiry", 2000, 1, UINT32_MAX },
	{ "inject_rx_delay", DELAY_MS, 0, 500 },
	{ "reap_client_conns", 900, 1, 65535 },
	{ "rx_window_size", 255, 1, 255 },
	{ "rx_mtu", 1444, 500, 65535 }, /* what the environment says is out of range */
	{ "rx_jumbo_max", 46, 1, 46 },
	{ "busy_ends", 1, 0, 1 },
	{ "implicit_length", 1, 0, 1 },
};

static void test_ranges(void **state)
{
	unsigned value = 0;
	size_t i;

	(void)state;
	for (i = 0; i < SUITE_LEN(tunables); i++) {
		const char *name = tunables[i].name;

		OK(aph_rxrpc_get_tunable(name, &value));
		CHECK_INT(value, tunables[i].value);
		if (tunables[i].min)
			FAILS(aph_rxrpc_set_tunable(name, tunables[i].min - 1), EINVAL);
		if (tunables[i].max < UINT32_MAX)
			FAILS(aph_rxrpc_set_tunable(name, tunables[i].max + 1), EINVAL);
		OK(aph_rxrpc_set_tunable(name, tunables[i].min));
		OK(aph_rxrpc_set_tunable(name, tunables[i].max));
		OK(aph_rxrpc_get_tunable(name, &value));
		CHECK_INT(value, tunables[i].max);
		OK(aph_rxrpc_set_tunable(name, tunables[i].value));
	}
	FAILS(aph_rxrpc_set_tunable("nothing", 1), ENOENT);
	FAILS(aph_rxrpc_get_tunable("nothing", &value), ENOENT);
}

/*
 * Peers that were called a moment ago are forgotten when there are more than are to be kept, and
 * called anew.
 */
static void test_reaping(void **state)
{
	struct sockaddr_rxrpc to[2];
	int servers[2], client, i;

	(void)state;
	OK(aph_rxrpc_set_tunable("inject_rx_delay", 0));
	OK(aph_rxrpc_set_tunable("reap_client_conns", 1));
	OK(aph_rxrpc_set_tunable("idle_conn_fast_expiry", 1));
	servers[0] = server_new(&to[0], 5);
	servers[1] = server_new(&to[1], 5);
	client = client_new();
	for (i = 0; i < 6; i++) {
		one_call(client, servers[i % 2], &to[i % 2]);
		usleep(3000);
	}
	OK(aph_rxrpc_set_tunable("reap_client_conns", 900));
	OK(aph_rxrpc_set_tunable("idle_conn_fast_expiry", 2000));
	OK(aph_rxrpc_set_tunable("inject_rx_delay", DELAY_MS));
	OK(rx_close(client));
	OK(rx_close(servers[0]));
	OK(rx_close(servers[1]));
}

struct sender {
	int fd;
	ssize_t result;
	_Atomic bool done;
};

#define LARGE (1u << 20)

static void *send_all(void *arg)
{
	struct sender *sender = arg;
	static char body[LARGE];

	sender->result = tag_send(sender->fd, 1, body, LARGE, NULL, MSG_WAITALL);
	atomic_store(&sender->done, true);
	return NULL;
}

static void on_signal(int signal)
{
	(void)signal;
}

/*
 * On a long way, where there is time for it: signals do not end MSG_WAITALL while somebody reads;
 * then they do.
 */
static void test_wait_for_all(void **state)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct sender sender = { 0 };
	struct sockaddr_rxrpc to;
	int server, client, reads;
	pthread_t thread;
	size_t at;

	(void)state;
	OK(sigaction(SIGUSR1, &action, NULL));
	OK(aph_rxrpc_set_tunable("inject_rx_delay", 150));
	for (reads = 1; reads >= 0; reads--) {
		server = server_new(&to, 5);
		client = sender.fd = client_new();
		OK(connect_to(client, &to));
		CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
		atomic_store(&sender.done, false);
		CHECK_INT(pthread_create(&thread, NULL, send_all, &sender), 0);
		for (at = 0; reads && at < LARGE; at += (size_t)got.n) {
			receive_soon(server, &got, sizeof(got.data), MSG_DONTWAIT);
			CHECK(got.n > 0);
			/* Now it is known how long the way is. */
			if (at > LARGE / 8 && !atomic_load(&sender.done))
				(void)pthread_kill(thread, SIGUSR1);
		}
		while (!reads && !atomic_load(&sender.done)) {
			(void)pthread_kill(thread, SIGUSR1);
			usleep(1000);
		}
		CHECK_INT(pthread_join(thread, NULL), 0);
		if (reads)
			CHECK_INT(sender.result, LARGE);
		else
			CHECK(sender.result > 0 && sender.result < (ssize_t)LARGE);
		OK(rx_close(client));
		OK(rx_close(server));
	}
	OK(aph_rxrpc_set_tunable("inject_rx_delay", DELAY_MS));
}

/* With a window of one packet and no jumbograms everything is slower, and nothing else. */
static void test_least(void **state)
{
	static const char *const names[] = { "rx_window_size", "rx_jumbo_max", "soft_ack_delay",
					     "idle_ack_delay" };
	static char body[20000];
	struct sockaddr_rxrpc to;
	int server, client;
	size_t i, at = 0;

	(void)state;
	OK(aph_rxrpc_set_tunable("inject_rx_delay", 0));
	OK(aph_rxrpc_set_tunable("rx_mtu", 500));
	for (i = 0; i < SUITE_LEN(names); i++)
		OK(aph_rxrpc_set_tunable(names[i], 1));
	server = server_new(&to, 5);
	client = client_new();
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(client, 1, body, sizeof(body), &to, 0), sizeof(body));
	do {
		receive_soon(server, &got, sizeof(got.data), 0);
		CHECK(got.n > 0 && got.tag == 11);
		at += (size_t)got.n;
	} while (got.flags & MSG_MORE);
	CHECK_INT(at, sizeof(body));
	CHECK_INT(tag_send(server, 11, "y", 1, NULL, 0), 1);
	expect_data(client, 1, "y", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_backlog),	  SUITE_TEST(test_delay),
		SUITE_TEST(test_implicit_length),
#ifndef AFRX_PLAIN
		SUITE_TEST(test_ranges),	  SUITE_TEST(test_reaping),
		SUITE_TEST(test_wait_for_all),	  SUITE_TEST(test_least),
#endif
	};

	OK(setenv("AFRXRPC_MAX_BACKLOG", "4", 1));
	OK(setenv("AFRXRPC_INJECT_RX_DELAY", "20", 1));
	OK(setenv("AFRXRPC_IMPLICIT_LENGTH", "1", 1));
	OK(setenv("AFRXRPC_RX_MTU", "499", 1)); /* is ignored */
	return suite_run("af_rxrpc tunables", tests, SUITE_LEN(tests), 60);
}
