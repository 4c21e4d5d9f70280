/* SPDX-License-Identifier: MIT */
/* Several processes at one UDP port: when one of them is killed, and who does not get in. */
#include "remote.h"

#include <antiphon/rx.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define N      3
#define NOBODY 65534

static struct {
	char addresses[N][64];
	struct service services[N];
	struct client clients[N];
} at;

static void start(int i)
{
	service_start_simple(&at.services[i], SERVICE_PROCESS, at.addresses[i]);
}

/* The first one is the owner. */
static void open_all(void)
{
	snprintf(at.addresses[0], sizeof(at.addresses[0]), "%s", remote_address());
	for (int i = 1; i < N; i++)
		snprintf(at.addresses[i], sizeof(at.addresses[i]), "%s",
			 remote_other(at.addresses[0], 200 + (unsigned)i));
	for (int i = 0; i < N; i++)
		start(i);
	for (int i = 0; i < N; i++) {
		client_open(&at.clients[i], at.addresses[i]);
		client_echo(at.clients[i].channel);
	}
}

static void close_all(void)
{
	for (int i = 0; i < N; i++) {
		client_close(&at.clients[i]);
		service_stop(&at.services[i]);
	}
}

static struct aph_call *hold(int i)
{
	struct aph_call *call = client_begin(at.clients[i].channel, "h", 1, APH_FOREVER);

	service_await(&at.services[i].seen->held, 1);
	/* What the service has received it has acknowledged then. */
	client_echo(at.clients[i].channel);
	return call;
}

static void expect_end(int i, struct aph_call *call, enum aph_outcome outcome,
		       enum aph_reason reason)
{
	client_check_result(client_end(at.clients[i].ep, call, NULL, NULL), outcome, reason);
	aph_call_free(call);
}

static void expect_no_service(int i)
{
	struct client client;

	client_open(&client, at.addresses[i]);
	remote_expect_refused(client.channel, APH_REASON_NO_SERVICE);
	client_close(&client);
}

static void release_held(int i, struct aph_call *call)
{
	assert_int_equal(
		aph_call(at.clients[i].channel, "w", 1, NULL, NULL, aph_deadline_ms(20000)), 0);
	expect_end(i, call, APH_ANSWERED, APH_REASON_NONE);
}

/* -- deaths ------------------------------------------------------------------------------------ */

/*
 * One is killed in the middle of a call: that call is lost, the others go on, and its number can be
 * served again.
 */
static void dies(int victim)
{
	struct aph_call *calls[N];
	struct aph_result result;

	open_all();
	for (int i = 0; i < N; i++)
		calls[i] = hold(i);
	service_kill(&at.services[victim]);
	for (int i = 0; i < N; i++)
		if (i != victim)
			client_echo(at.clients[i].channel);
	expect_no_service(victim);
	/*
	 * The reason is what the new owner said: that it forgot the call, or does not know the
	 * service.
	 */
	result = client_end(at.clients[victim].ep, calls[victim], NULL, NULL);
	assert_int_equal(result.outcome, APH_LOST);
	aph_call_free(calls[victim]);
	for (int i = 0; i < N; i++)
		if (i != victim)
			release_held(i, calls[i]);
	start(victim);
	for (int i = 0; i < N; i++)
		client_echo(at.clients[i].channel);
	close_all();
}

static void the_owner_dies(void **state)
{
	(void)state;
	dies(0);
}

static void another_one_dies(void **state)
{
	(void)state;
	dies(2);
}

/* The port goes from hand to hand, until nobody has it. */
static void all_die(void **state)
{
	(void)state;
	open_all();
	for (int i = 0; i < N; i++) {
		service_kill(&at.services[i]);
		for (int k = i + 1; k < N; k++) {
			client_echo(at.clients[k].channel);
			client_get(at.clients[k].ep, at.clients[k].channel, 'g', 100000, 3);
		}
	}
	expect_no_service(0);
	for (int i = N - 1; i >= 0; i--)
		start(i);
	for (int i = 0; i < N; i++)
		client_echo(at.clients[i].channel);
	close_all();
}

#define CALLS 4

/* All calls end, each once; those at who lives are answered. */
static void await_ends(int i, bool lives)
{
	struct aph_event ev;
	char buf[64];

	for (int n = 0; n < CALLS;) {
		client_next(at.clients[i].ep, &ev, 5000);
		if (ev.type != APH_EVENT_END) {
			(void)aph_call_read(ev.call, buf, sizeof(buf));
			continue;
		}
		if (lives)
			client_check_result(ev.result, APH_ANSWERED, APH_REASON_NONE);
		aph_call_free(ev.call);
		n++;
	}
	assert_int_equal(aph_endpoint_next(at.clients[i].ep, &ev, APH_NOW), -EAGAIN);
}

/* Calls at all of them while they are killed in turns. */
static void killed_in_turns(void **state)
{
	static const char request[20000] = "d";

	(void)state;
	open_all();
	for (unsigned round = 0; round < 12; round++) {
		int victim = (int)(round * 7 % N);

		for (int i = 0; i < N; i++)
			for (int k = 0; k < CALLS; k++)
				(void)client_begin(at.clients[i].channel, request,
						   k ? sizeof(request) : 1, APH_FOREVER);
		service_kill(&at.services[victim]);
		for (int i = 0; i < N; i++)
			await_ends(i, i != victim);
		start(victim);
	}
	close_all();
}

/* -- who gets in ------------------------------------------------------------------------------- */

static int open_as_nobody(int ctl, void *arg)
{
	struct aph_endpoint *ep;

	(void)ctl;
	CHECK_OK(setresuid(NOBODY, NOBODY, NOBODY));
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK(aph_service_open(NULL, ep, arg, NULL) == -EADDRINUSE);
	aph_endpoint_free(ep);
	return 0;
}

/* The name of a port's owner, as a program that is up to no good would write it. */
static socklen_t owner_name(struct sockaddr_un *name, const char *address, unsigned uid)
{
	const char *host = strchr(address, ':') + 1;
	const char *port = strrchr(address, ':');
	int n = (int)(port - host), len;

	if (*host == '[') {
		host++;
		n -= 2;
	}
	memset(name, 0, sizeof(*name));
	name->sun_family = AF_UNIX;
	len = snprintf(name->sun_path + 1, sizeof(name->sun_path) - 1, "antiphon-udp/%u/%.*s%%0/%d",
		       uid, n, host, atoi(port + 1));
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

static const uint32_t hello[64] = { 1, 0, 0, 1 };

/* It is heard, and told nothing, and given nothing. */
static int knock_as_nobody(int ctl, void *arg)
{
	struct sockaddr_un name;
	socklen_t len = owner_name(&name, arg, geteuid());
	int fd = (int)CHECK_OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	char buf[256];

	(void)ctl;
	CHECK_OK(setresuid(NOBODY, NOBODY, NOBODY));
	CHECK_OK(connect(fd, (struct sockaddr *)&name, len));
	(void)!send(fd, hello, sizeof(hello), MSG_NOSIGNAL);
	CHECK(recv(fd, buf, sizeof(buf), 0) <= 0);
	close(fd);
	return 0;
}

static int come_and_go(int ctl, void *address)
{
	struct rng rng = { (uint64_t)getpid() };
	struct aph_service *service;
	struct aph_endpoint *ep;
	struct aph_event ev;

	(void)ctl;
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	for (int i = 0; i < 300; i++) {
		CHECK_OK(aph_service_open(&service, ep, address, NULL));
		(void)aph_endpoint_next(ep, &ev, aph_time_ns() + rng_below(&rng, 2000000));
		aph_service_close(service);
	}
	aph_endpoint_free(ep);
	return 0;
}

/* Who would let a newcomer in may be about to go: the port is the newcomer's then. */
static void coming_while_others_go(void **state)
{
	char addresses[2][64];
	struct child children[2];

	(void)state;
	snprintf(addresses[0], sizeof(addresses[0]), "%s", remote_address());
	snprintf(addresses[1], sizeof(addresses[1]), "%s", remote_other(addresses[0], 200));
	for (int i = 0; i < 2; i++)
		child_start(&children[i], come_and_go, addresses[i]);
	for (int i = 0; i < 2; i++)
		assert_int_equal(child_finish(&children[i], check_hang_ms(20000)), 0);
}

static void other_users_stay_outside(void **state)
{
	struct child child;

	(void)state;
	if (geteuid() != 0) {
		suite_skip("only root can become somebody else");
		return;
	}
	open_all();
	child_start(&child, open_as_nobody, at.addresses[1]);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	child_start(&child, knock_as_nobody, at.addresses[1]);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	for (int i = 0; i < N; i++)
		client_echo(at.clients[i].channel);
	close_all();
}

/* Another user has the port, and waits for us under the name that our owner would have. */
static int squat(int ctl, void *arg)
{
	struct aph_rx_udp_options options = { .size = sizeof(options) };
	struct aph_rx_udp *udp;
	struct sockaddr_un name;
	socklen_t len = owner_name(&name, arg, geteuid());
	int fd = (int)CHECK_OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));

	CHECK_OK(setresuid(NOBODY, NOBODY, NOBODY));
	CHECK_OK(bind(fd, (struct sockaddr *)&name, len));
	CHECK_OK(listen(fd, 1));
	options.local.in = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons((uint16_t)atoi(strrchr(arg, ':') + 1)),
	};
	CHECK_OK(aph_rx_udp_open(&udp, &options));
	child_say(ctl, 'r');
	CHECK(child_hear(ctl, check_hang_ms(5000)) == 'q');
	aph_rx_udp_close(udp);
	close(fd);
	return 0;
}

static void a_false_owner(void **state)
{
	struct aph_endpoint *ep;
	struct child child;
	const char *address;

	(void)state;
	if (geteuid() != 0) {
		suite_skip("only root can become somebody else");
		return;
	}
	do {
		address = remote_address();
	} while (strchr(address, '['));
	child_start(&child, squat, (void *)(uintptr_t)address);
	assert_int_equal(child_hear(child.ctl, check_hang_ms(5000)), 'r');
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, ep, address, NULL), -EADDRINUSE);
	assert_non_null(strstr(aph_error(), "another user"));
	child_say(child.ctl, 'q');
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	/*
	 * With the port free, only sharing it is out of the question as long as the name is taken.
	 */
	assert_int_equal(aph_service_open(NULL, ep, address, NULL), 0);
	assert_null(aph_endpoint_free(ep));
}

static int share_as_nobody(int ctl, void *arg)
{
	struct aph_rx_udp_options options = *(struct aph_rx_udp_options *)arg;
	struct aph_rx_udp *udp;

	(void)ctl;
	CHECK_OK(setresuid(NOBODY, NOBODY, NOBODY));
	options.flags = APH_RX_UDP_SHARE;
	CHECK(aph_rx_udp_open(&udp, &options) == -EADDRINUSE);
	options.flags = APH_RX_UDP_SHARE | APH_RX_UDP_SHARE_ALL;
	CHECK_OK(aph_rx_udp_open(&udp, &options));
	CHECK(aph_rx_udp_claim(udp, 7) == -EADDRINUSE);
	CHECK_OK(aph_rx_udp_claim(udp, 8));
	aph_rx_udp_close(udp);
	return 0;
}

/* Where both say that any user is welcome. */
static void among_users(void **state)
{
	struct aph_rx_udp_options options = {
		.size = sizeof(options),
		.flags = APH_RX_UDP_SHARE | APH_RX_UDP_SHARE_ALL,
		.local.in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
	};
	struct aph_rx_udp *udp;
	struct child child;
	struct pollfd fds;

	(void)state;
	if (geteuid() != 0) {
		suite_skip("only root can become somebody else");
		return;
	}
	assert_int_equal(aph_rx_udp_open(&udp, &options), 0);
	assert_int_equal(aph_rx_udp_claim(udp, 7), 0);
	assert_int_equal(aph_rx_udp_address(udp, &options.local), 0);
	child_start(&child, share_as_nobody, &options);
	fds = (struct pollfd){ .fd = child.ctl, .events = POLLIN };
	while (poll(&fds, 1, 0) == 0)
		assert_int_equal(aph_rx_udp_wait(udp, aph_deadline_ms(5)), -ETIMEDOUT);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	/* What it had is free again. */
	while (aph_rx_udp_claim(udp, 8) == -EADDRINUSE)
		assert_int_equal(aph_rx_udp_wait(udp, aph_deadline_ms(5)), -ETIMEDOUT);
	aph_rx_udp_close(udp);
}

/* -- nonsense ---------------------------------------------------------------------------------- */

/* Connections of our own user that say what nobody says: they end, and nobody else notices. */
static void nonsense(void **state)
{
	static const struct {
		uint32_t words[64];
		size_t len;
	} first[] = {
		{ { 0 }, 0 },
		{ { 1 }, 3 },
		{ { 1, 0, 0, 99 }, sizeof(hello) },
		{ { 3, 0, 7, 0 }, sizeof(hello) },
		{ { 7, 0, 0, 0 }, sizeof(hello) },
		{ { 4000000000, 0, 0, 1 }, sizeof(hello) },
	};
	struct sockaddr_un name;
	uint32_t words[64];
	unsigned seed = 1;
	socklen_t len;
	int fd;

	(void)state;
	open_all();
	len = owner_name(&name, at.addresses[0], geteuid());
	for (size_t i = 0; i < SUITE_LEN(first); i++) {
		fd = (int)CHECK_OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
		CHECK_OK(connect(fd, (struct sockaddr *)&name, len));
		CHECK(send(fd, first[i].words, first[i].len, MSG_NOSIGNAL) ==
		      (ssize_t)first[i].len);
		client_echo(at.clients[i % N].channel);
		if (first[i].len == sizeof(hello))
			CHECK(recv(fd, words, sizeof(words), 0) <= 0);
		close(fd);
	}
	for (int round = 0; round < 50; round++) {
		fd = (int)CHECK_OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
		CHECK_OK(connect(fd, (struct sockaddr *)&name, len));
		CHECK(send(fd, hello, 128, MSG_NOSIGNAL) == 128);
		for (int k = 0; k < 20; k++) {
			for (size_t i = 0; i < SUITE_LEN(words); i++)
				words[i] = (uint32_t)rand_r(&seed) >> (rand_r(&seed) % 32);
			words[0] %= 10;
			(void)!send(fd, words, (size_t)rand_r(&seed) % sizeof(words), MSG_NOSIGNAL);
		}
		client_echo(at.clients[round % N].channel);
		close(fd);
	}
	close_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(the_owner_dies),
		SUITE_TEST(another_one_dies),
		SUITE_TEST(all_die),
		SUITE_TEST(killed_in_turns),
		SUITE_TEST(coming_while_others_go),
		SUITE_TEST(other_users_stay_outside),
		SUITE_TEST(a_false_owner),
		SUITE_TEST(among_users),
		SUITE_TEST(nonsense),
	};

	return suite_run("remote processes", tests, SUITE_LEN(tests), 60);
}
