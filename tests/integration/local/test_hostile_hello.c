/* SPDX-License-Identifier: MIT */
/*
 * Whoever connects to a service's socket and says anything, or nothing: it is turned away, its
 * descriptors are closed, and nobody else waits for it.
 */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct victim victim;

static void garbage(void **state)
{
	static unsigned char large[100000];
	static const size_t sizes[] = { 0, 1, 4, 23, 24, 25, 28, 64, 4096, 100000 };
	struct aph_hello hello = wire_hello();
	int sock;

	(void)state;
	victim_start(&victim, 0);
	for (size_t i = 0; i < SUITE_LEN(sizes); i++) {
		for (int fill = 0; fill < 3; fill++) {
			memset(large, fill == 1 ? 0xff : 0, sizeof(large));
			if (fill == 2 && sizes[i] == sizeof(hello))
				continue; /* that one is welcome */
			if (fill == 2)
				memcpy(large, &hello, sizeof(hello));
			sock = wire_connect(victim.path);
			assert_true(sock >= 0);
			wire_send(sock, large, sizes[i], NULL, 0);
			assert_true(wire_hung_up(sock, check_hang_ms(1000)));
			close(sock);
		}
	}
	victim_stop(&victim);
}

static void fields(void **state)
{
	static const struct aph_hello bad[] = {
		{ .magic = 1 },		 { .version = 0 },	  { .version = 2 },
		{ .version = 65535 },	 { .kind = 0 },		  { .kind = 5 },
		{ .kind = 65535 },	 { .depth = 1 },	  { .depth = 31 },
		{ .depth = 33 },	 { .depth = 1024 },	  { .depth = 1u << 31 },
		{ .depth = UINT32_MAX }, { .calls_max = 4097 },	  { .calls_max = UINT32_MAX },
		{ .arena = 1 },		 { .arena = 65535 },	  { .arena = 65537 },
		{ .arena = 1u << 25 },	 { .arena = UINT32_MAX }, { .allow = 0x80 },
		{ .allow = UINT32_MAX },
	};
	struct aph_hello hello;
	struct wire wire;

	(void)state;
	victim_start(&victim, 0);
	for (size_t i = 0; i < SUITE_LEN(bad); i++) {
		hello = wire_hello();
		if (bad[i].magic)
			hello.magic = bad[i].magic;
		if (i == 1 || bad[i].version)
			hello.version = bad[i].version;
		if (i == 4 || bad[i].kind)
			hello.kind = bad[i].kind;
		hello.depth = bad[i].depth ? bad[i].depth : hello.depth;
		hello.calls_max = bad[i].calls_max ? bad[i].calls_max : hello.calls_max;
		hello.arena = bad[i].arena ? bad[i].arena : hello.arena;
		hello.allow = bad[i].allow ? bad[i].allow : hello.allow;
		/* Turned away, or brought into bounds: wire_open() maps by what it was told. */
		if (wire_open(&wire, victim.path, &hello)) {
			assert_true(i >= 7);
			assert_true(wire.welcome.depth >= APH_DEPTH_MIN &&
				    wire.welcome.depth <= APH_DEPTH_MAX);
			assert_int_equal(wire.welcome.depth & (wire.welcome.depth - 1), 0);
			assert_true(wire.welcome.calls_max >= 1 &&
				    wire.welcome.calls_max <= APH_CALLS_MAX);
			assert_true(wire.welcome.arena >= APH_ARENA_MIN &&
				    wire.welcome.arena <= APH_ARENA_MAX);
			assert_true(wire_echo(&wire, 0, check_hang_ms(1000)));
		}
		wire_close(&wire);
	}
	victim_stop(&victim);
}

static void descriptors_in_the_hello(void **state)
{
	struct aph_hello hello = wire_hello();
	int fds[253], sock;

	(void)state;
	victim_start(&victim, 0);
	for (int i = 0; i < 253; i++)
		fds[i] = STDERR_FILENO;
	for (size_t n = 1; n <= 253; n = n == 128 ? 253 : n * 2) {
		sock = wire_connect(victim.path);
		assert_true(sock >= 0);
		fds[0] = sock; /* a socket that holds itself */
		wire_send(sock, &hello, sizeof(hello), fds, n);
		wire_hung_up(sock, 20);
		close(sock);
	}
	victim_stop(&victim);
}

/* More of them than the service will ever wait for; the honest get in all the same. */
static void silent_connections(void **state)
{
	enum {
		N = 400
	};
	static int socks[N];
	struct client client;

	(void)state;
	victim_start(&victim, 0);
	for (int i = 0; i < N; i++) {
		socks[i] = wire_connect(victim.path);
		if (i % 40 == 0) {
			client_open(&client, "victim");
			client_echo(client.channel);
			client_close(&client);
		}
	}
	victim_check(&victim);
	for (int i = 0; i < N; i++)
		if (socks[i] >= 0)
			close(socks[i]);
	victim_stop(&victim);
}

static void connections_that_go_at_once(void **state)
{
	struct aph_hello hello = wire_hello();
	int sock;

	(void)state;
	victim_start(&victim, APH_SERVICE_EVENTS);
	for (int i = 0; i < 600; i++) {
		sock = wire_connect(victim.path);
		if (sock < 0)
			continue;
		if (i % 3 == 1)
			wire_send(sock, &hello, sizeof(hello), NULL, 0);
		if (i % 3 == 2)
			wire_send(sock, &hello, 5, NULL, 0);
		close(sock);
	}
	victim_check(&victim);
	victim_stop(&victim);
}

/* As many as the kernel lets wait, none of whom is still there. */
static void crowd_the_door(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock, r;

	memcpy(address.sun_path, victim.path, strlen(victim.path) + 1);
	do {
		sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		assert_true(sock >= 0);
		r = connect(sock, (void *)&address, sizeof(address));
		assert_true(r == 0 || errno == EAGAIN);
		close(sock);
	} while (r == 0);
}

static void *let_it_go_on(void *arg)
{
	(void)arg;
	usleep(30000);
	child_signal(&victim.service.child, SIGCONT);
	return NULL;
}

/* Who finds the door crowded waits for a moment to come in, as long as the deadline allows. */
static void a_crowd_at_the_door(void **state)
{
	struct aph_channel_options options = { .size = sizeof(options) };
	struct aph_channel *channel;
	struct aph_event ev;
	pthread_t thread;

	(void)state;
	victim_start(&victim, 0);
	child_signal(&victim.service.child, SIGSTOP);
	child_await_state(victim.service.child.pid, 'T', check_hang_ms(2000));
	crowd_the_door();
	options.deadline_ns = aph_deadline_ms(50);
	assert_int_equal(aph_channel_open(&channel, victim.honest.ep, "victim", &options),
			 -ETIMEDOUT);
	options.deadline_ns = aph_deadline_ms((uint64_t)check_ms(5000));
	assert_int_equal(pthread_create(&thread, NULL, let_it_go_on, NULL), 0);
	assert_int_equal(aph_channel_open(&channel, victim.honest.ep, "victim", &options), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	client_echo(channel);
	aph_channel_close(channel);
	/* The same without waiting in the function. */
	child_signal(&victim.service.child, SIGSTOP);
	child_await_state(victim.service.child.pid, 'T', check_hang_ms(2000));
	crowd_the_door();
	options.flags = APH_CHANNEL_ASYNC;
	assert_int_equal(aph_channel_open(&channel, victim.honest.ep, "victim", &options), 0);
	assert_int_equal(pthread_create(&thread, NULL, let_it_go_on, NULL), 0);
	client_next(victim.honest.ep, &ev, 5000);
	assert_int_equal(ev.type, APH_EVENT_OPEN);
	assert_int_equal(pthread_join(thread, NULL), 0);
	client_echo(channel);
	aph_channel_close(channel);
	victim_stop(&victim);
}

static void a_second_hello(void **state)
{
	struct aph_hello hello = wire_hello();
	struct wire wire;

	(void)state;
	victim_start(&victim, 0);
	assert_true(wire_open(&wire, victim.path, NULL));
	wire_send(wire.sock, &hello, sizeof(hello), NULL, 0);
	assert_true(wire_hung_up(wire.sock, check_hang_ms(1000)));
	wire_close(&wire);
	/* Both before the first is answered. */
	int sock = wire_connect(victim.path);
	assert_true(sock >= 0);
	wire_send(sock, &hello, sizeof(hello), NULL, 0);
	wire_send(sock, &hello, sizeof(hello), NULL, 0);
	assert_true(wire_hung_up(sock, check_hang_ms(1000)));
	close(sock);
	victim_stop(&victim);
}

/* The other kinds of hello, again and again, from somebody who may not or who leaves at once. */
static void other_kinds(void **state)
{
	struct aph_hello hello = wire_hello();
	int sock;

	(void)state;
	victim_start(&victim, 0);
	for (int i = 0; i < 300; i++) {
		hello.kind = (uint16_t)(APH_HELLO_STATS + i % 3);
		sock = wire_connect(victim.path);
		assert_true(sock >= 0);
		wire_send(sock, &hello, sizeof(hello), NULL, 0);
		if (i % 2)
			assert_true(wire_hung_up(sock, check_hang_ms(1000)));
		close(sock);
	}
	/* Nothing was taken from a service that does not give. */
	victim_check(&victim);
	victim_stop(&victim);
}

static void seeded(void **state)
{
	struct rng rng = { .state = check_seed() };
	unsigned rounds = check_long() ? 20000 : 1000;
	unsigned char bytes[128];
	struct aph_hello hello;
	int fds[4] = { 2, 2, 2, 2 }, sock;

	(void)state;
	victim_start(&victim, APH_SERVICE_EVENTS);
	for (unsigned i = 0; i < rounds; i++) {
		sock = wire_connect(victim.path);
		if (sock < 0)
			continue;
		for (uint32_t message = 0; message <= rng_below(&rng, 3); message++) {
			hello = wire_hello();
			memcpy(bytes, &hello, sizeof(hello));
			for (uint32_t flips = rng_below(&rng, 4); flips > 0; flips--)
				bytes[rng_below(&rng, sizeof(hello))] =
					(unsigned char)rng_next(&rng);
			wire_send(sock, bytes,
				  rng_below(&rng, 4) ? sizeof(hello) : rng_below(&rng, 128), fds,
				  rng_below(&rng, 3) ? 0 : rng_below(&rng, 4));
		}
		if (rng_below(&rng, 4) == 0)
			wire_hung_up(sock, (int)rng_below(&rng, 3));
		close(sock);
		if (i % 100 == 0)
			victim_check(&victim);
	}
	victim_stop(&victim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(garbage),
		SUITE_TEST(fields),
		SUITE_TEST(descriptors_in_the_hello),
		SUITE_TEST(silent_connections),
		SUITE_TEST(connections_that_go_at_once),
		SUITE_TEST(a_crowd_at_the_door),
		SUITE_TEST(a_second_hello),
		SUITE_TEST(other_kinds),
		SUITE_TEST(seeded),
	};

	return suite_run("hostile hello", tests, SUITE_LEN(tests), 60);
}
