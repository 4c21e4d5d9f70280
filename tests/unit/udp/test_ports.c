/* SPDX-License-Identifier: MIT */
/*
 * Drivers that share a port, each with an engine made for tests: who gets which packet, what waits
 * for those who do not look, and what is left when one of them goes.
 */
#include "engine.h"
#include "fds.h"
#include "port.h"
#include "suite.h"
#include "udp/link.h"
#include "udp/udp.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define N	    3
#define FROM_CLIENT 1
#define SOON	    aph_deadline_ms((uint64_t)check_ms(2000))

static struct aph_rx_udp *udp[N];
static struct engine *engines[N];
static struct aph_rx_address at;
static int peer; /* a plain socket */

/* -- packets ----------------------------------------------------------------------------------- */

struct packet {
	unsigned char bytes[100];
};

static struct packet packet_of(uint32_t epoch, uint16_t service, uint8_t flags)
{
	struct packet packet = { .bytes = { (uint8_t)(epoch >> 24), (uint8_t)(epoch >> 16),
					    (uint8_t)(epoch >> 8), (uint8_t)epoch } };

	packet.bytes[21] = flags;
	packet.bytes[26] = (uint8_t)(service >> 8);
	packet.bytes[27] = (uint8_t)service;
	return packet;
}

static struct packet request(uint16_t service)
{
	return packet_of(UINT32_C(0x12345678), service, FROM_CLIENT);
}

static struct packet reply(uint32_t epoch)
{
	return packet_of(epoch, 1, 0);
}

static void send_packet(struct packet packet)
{
	port_send_run(peer, &at.in, packet.bytes, sizeof(packet.bytes), 0);
}

/* -- drivers ----------------------------------------------------------------------------------- */

static int try_open(struct aph_rx_udp **out, uint32_t flags)
{
	struct aph_rx_udp_options options = { .size = sizeof(options),
					      .local = at,
					      .flags = flags };

	return aph_rx_udp_open(out, &options);
}

static void open_one(unsigned i)
{
	assert_int_equal(try_open(&udp[i], APH_RX_UDP_SHARE), 0);
	engines[i] = engine;
	engine->receiving_is_event = true;
	assert_int_equal(aph_rx_udp_address(udp[i], &at), 0);
}

static void open_all(void)
{
	at = (struct aph_rx_address){ .in = { .sin_family = AF_INET,
					      .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
	for (unsigned i = 0; i < N; i++)
		open_one(i);
	peer = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(peer >= 0);
}

static void close_all(void)
{
	for (unsigned i = 0; i < N; i++)
		udp[i] = aph_rx_udp_close(udp[i]);
	close(peer);
}

/* Waits with one of them until its engine has got something. */
static void expect(unsigned i, unsigned n)
{
	while (engines[i]->n_received + engines[i]->n_errors < n) {
		engines[i]->n_events = 0;
		assert_int_equal(aph_rx_udp_wait(udp[i], SOON), 0);
	}
	engines[i]->n_events = 0;
	assert_int_equal(aph_rx_udp_wait(udp[i], APH_NOW), -ETIMEDOUT);
	assert_int_equal(engines[i]->n_received + engines[i]->n_errors, n);
}

static void expect_nothing(unsigned i)
{
	expect(i, 0);
}

/* -- tests ------------------------------------------------------------------------------------- */

static void by_service(void **state)
{
	(void)state;
	open_all();
	assert_int_equal(aph_rx_udp_claim(udp[1], 7), 0);
	assert_int_equal(aph_rx_udp_claim(udp[2], 71), 0); /* in the same chain */
	assert_int_equal(aph_rx_udp_claim(udp[1], 7), 0);
	assert_int_equal(aph_rx_udp_claim(udp[2], 7), -EADDRINUSE);
	send_packet(request(7));
	send_packet(request(71));
	send_packet(request(8)); /* nobody's: the oldest one's */
	expect(0, 1);
	assert_int_equal(engines[0]->received[0]->bytes[27], 8);
	expect(2, 1);
	assert_int_equal(engines[2]->received[0]->bytes[27], 71);
	assert_int_equal(engines[2]->received[0]->path.remote.family, AF_INET);
	expect(1, 1);
	assert_int_equal(engines[1]->received[0]->bytes[27], 7);
	/* What was given back can be had by others. */
	aph_rx_udp_release(udp[2], 7);
	assert_int_equal(aph_rx_udp_claim(udp[2], 7), -EADDRINUSE);
	aph_rx_udp_release(udp[1], 7);
	assert_int_equal(aph_rx_udp_claim(udp[2], 7), 0);
	send_packet(request(7));
	expect(1, 1);
	expect(2, 2);
	close_all();
}

static void by_epoch(void **state)
{
	(void)state;
	open_all();
	for (unsigned i = 0; i < N; i++)
		send_packet(reply(engines[i]->epoch));
	send_packet(reply(77));
	expect(2, 1);
	expect(1, 1);
	expect(0, 2);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(engines[i]->received[0]->bytes[3], engines[i]->epoch & 0xff);
	close_all();
}

/* The kernel may hand out datagrams of several connections as one run. */
static void a_mixed_run(void **state)
{
	struct packet run[9];
	size_t size = sizeof(run[0]);

	(void)state;
	open_all();
	assert_int_equal(aph_rx_udp_claim(udp[1], 7), 0);
	assert_int_equal(aph_rx_udp_claim(udp[2], 8), 0);
	for (unsigned i = 0; i < 9; i++)
		run[i] = request(i < 4 ? 7 : i < 6 ? 8 : i < 7 ? 9 : 7);
	port_send_run(peer, &at.in, run, sizeof(run) - 40, (uint16_t)size);
	expect(0, 1);
	assert_int_equal(engines[0]->received[0]->len, size);
	expect(2, 1);
	assert_int_equal(engines[2]->received[0]->len, 2 * size);
	assert_int_equal(engines[2]->received[0]->segment, size);
	expect(1, 2);
	assert_int_equal(engines[1]->received[0]->len, 4 * size);
	assert_int_equal(engines[1]->received[1]->len, 2 * size - 40);
	assert_int_equal(engines[1]->received[1]->segment, size);
	close_all();
}

/* What one of them does not look at is kept within bounds, and nobody else waits for it. */
static void one_sleeps(void **state)
{
	static unsigned char large[20 * 1400];
	struct packet start = request(7);

	(void)state;
	open_all();
	assert_int_equal(aph_rx_udp_claim(udp[1], 7), 0);
	assert_int_equal(aph_rx_udp_claim(udp[2], 8), 0);
	for (size_t i = 0; i < sizeof(large); i += 1400)
		memcpy(large + i, &start, sizeof(start));
	for (unsigned i = 0; i < 200; i++) {
		port_send_run(peer, &at.in, large, sizeof(large), 1400);
		send_packet(request(8));
		expect(2, i + 1);
	}
	engines[1]->n_events = 0;
	assert_int_equal(aph_rx_udp_wait(udp[1], SOON), 0);
	assert_true(engines[1]->n_received > 20);
	assert_true(engines[1]->n_received < 100); /* 2 MiB of 5.6 MB */
	close_all();
}

static void one_goes(void **state)
{
	(void)state;
	open_all();
	assert_int_equal(aph_rx_udp_claim(udp[1], 7), 0);
	send_packet(request(7));
	expect_nothing(2);
	udp[1] = aph_rx_udp_close(udp[1]); /* with something in its queue */
	send_packet(request(7));
	udp[0] = aph_rx_udp_close(udp[0]);
	expect(2, 1); /* it is the oldest now */
	assert_int_equal(aph_rx_udp_claim(udp[2], 7), 0);
	open_one(0);
	assert_int_equal(aph_rx_udp_claim(udp[0], 8), 0);
	send_packet(request(8));
	expect(2, 1);
	expect(0, 1);
	close_all();
}

static void errors(void **state)
{
	struct aph_rx_address to = at;
	struct aph_rx_path path;
	struct packet packet;
	socklen_t len = sizeof(to.in);
	int closed;

	(void)state;
	open_all();
	/* A port where nobody is. */
	closed = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	to = at;
	to.in.sin_port = 0;
	assert_int_equal(bind(closed, &to.any, len), 0);
	assert_int_equal(getsockname(closed, &to.any, &len), 0);
	close(closed);
	path = (struct aph_rx_path){ .remote = to };
	packet = packet_of(engines[2]->epoch, 9, FROM_CLIENT);
	engine = engines[2];
	engine_put(&path, packet.bytes, sizeof(packet.bytes), sizeof(packet.bytes), 0);
	assert_int_equal(aph_rx_udp_flush(udp[2]), 0);
	/* Whoever reads the error, it is for the engine that sent. */
	expect_nothing(0);
	expect_nothing(1);
	expect(2, 1);
	assert_int_equal(engines[2]->errors[0].error, ECONNREFUSED);
	assert_false(engines[2]->errors[0].local);
	close_all();
}

static void by_descriptor(void **state)
{
	struct pollfd fds[N];

	(void)state;
	open_all();
	for (unsigned i = 0; i < N; i++)
		fds[i] = (struct pollfd){ .fd = aph_rx_udp_fd(udp[i]), .events = POLLIN };
	assert_int_equal(aph_rx_udp_claim(udp[1], 7), 0);
	assert_int_equal(poll(fds, N, 0), 0);
	send_packet(request(7));
	assert_true(poll(fds, N, check_ms(2000)) > 0);
	assert_int_equal(aph_rx_udp_wait(udp[2], APH_NOW), -ETIMEDOUT);
	/* Out of the socket and into the queue. */
	assert_int_equal(poll(fds, N, 0), 1);
	assert_int_equal(fds[1].revents, POLLIN);
	assert_int_equal(aph_rx_udp_wait(udp[1], APH_NOW), 0);
	engines[1]->n_events = 0;
	assert_int_equal(aph_rx_udp_wait(udp[1], APH_NOW), -ETIMEDOUT);
	assert_int_equal(poll(fds, N, 0), 0);
	/* A wake of one does not lose what is queued for it. */
	send_packet(request(7));
	assert_int_equal(poll(fds, N, check_ms(2000)), N);
	assert_int_equal(aph_rx_udp_wait(udp[0], APH_NOW), -ETIMEDOUT);
	assert_int_equal(aph_rx_udp_wake(udp[1]), 0);
	assert_int_equal(aph_rx_udp_wait(udp[1], APH_NOW), -ECANCELED);
	assert_int_equal(poll(fds, N, 0), 1);
	expect(1, 2);
	close_all();
}

/* The room in the socket is for all of them. */
static void the_budget_is_shared(void **state)
{
	uint32_t whole;

	(void)state;
	open_all();
	udp[1] = aph_rx_udp_close(udp[1]);
	udp[2] = aph_rx_udp_close(udp[2]);
	expect_nothing(0);
	whole = engines[0]->budget;
	open_one(1);
	expect_nothing(0);
	expect_nothing(1);
	assert_int_equal(engines[0]->budget, whole / 2);
	assert_int_equal(engines[1]->budget, whole / 2);
	close_all();
}

/* Who wants less of it than its share gets that. */
static void a_smaller_budget(void **state)
{
	struct aph_rx_config config = { .size = sizeof(config), .receive_budget = 40 };
	struct aph_rx_udp_options options = { .size = sizeof(options),
					      .flags = APH_RX_UDP_SHARE,
					      .config = &config };

	(void)state;
	open_all();
	udp[1] = aph_rx_udp_close(udp[1]);
	options.local = at;
	assert_int_equal(aph_rx_udp_open(&udp[1], &options), 0);
	engines[1] = engine;
	assert_int_equal(engines[1]->budget, 40);
	expect_nothing(1);
	assert_int_equal(engines[1]->budget, 40);
	expect_nothing(0);
	assert_true(engines[0]->budget > 40);
	close_all();
}

static void who_may_share(void **state)
{
	struct aph_rx_udp *other = NULL;
	struct fds before;

	(void)state;
	fds_take(&before);
	open_all();
	assert_int_equal(try_open(&other, 0), -EADDRINUSE);
	at.in.sin_addr.s_addr = htonl(INADDR_ANY);
	assert_int_equal(try_open(&other, APH_RX_UDP_SHARE), -EADDRINUSE);
	/* Another address with the same number is another port. */
	at.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
	assert_int_equal(try_open(&other, APH_RX_UDP_SHARE), 0);
	assert_int_equal(aph_rx_udp_claim(other, 7), 0);
	assert_int_equal(aph_rx_udp_claim(udp[0], 7), 0);
	aph_rx_udp_close(other);
	/* One that did not say so shares with nobody; its claims are good all the same. */
	at.in.sin_port = 0;
	assert_int_equal(try_open(&other, 0), 0);
	assert_int_equal(aph_rx_udp_claim(other, 7), 0);
	aph_rx_udp_release(other, 7);
	assert_int_equal(aph_rx_udp_address(other, &at), 0);
	assert_int_equal(try_open(&udp[0], APH_RX_UDP_SHARE), -EADDRINUSE);
	aph_rx_udp_close(other);
	close_all();
	assert_int_equal(fds_differ(&before), 0);
}

static void epochs_differ(void **state)
{
	(void)state;
	open_all();
	udp[2] = aph_rx_udp_close(udp[2]);
	engine_epoch = engines[0]->epoch + 1;
	engine_epoch_again = true;
	open_one(2);
	assert_int_not_equal(engines[2]->epoch, engines[0]->epoch);
	assert_int_not_equal(engines[2]->epoch, engines[1]->epoch);
	engine_epoch += N;
	close_all();
}

static void in_a_child(void **state)
{
	struct fds before;
	int status;
	pid_t pid;

	(void)state;
	fds_take(&before);
	open_all();
	assert_int_equal(aph_rx_udp_claim(udp[1], 7), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		CHECK(close(peer) == 0);
		CHECK(fds_differ(&before) == 0);
		CHECK(aph_rx_udp_claim(udp[1], 8) == -ENOTCONN);
		aph_rx_udp_release(udp[1], 7);
		CHECK(aph_rx_udp_close(udp[0]) == NULL);
		/* The parent has the port. */
		CHECK(try_open(&udp[0], 0) == -EADDRINUSE);
		at.in.sin_port = 0;
		CHECK(try_open(&udp[0], APH_RX_UDP_SHARE) == 0);
		CHECK(aph_rx_udp_close(udp[0]) == NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	send_packet(request(7));
	expect(1, 1);
	close_all();
}

/* -- processes --------------------------------------------------------------------------------- */

/* Runs in a child, with the port in the parent's hands, who looks after it meanwhile. */
static void in_another_process(void (*run)(void))
{
	int status;
	pid_t pid;

	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		run();
		_exit(0);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		engines[0]->n_events = 0;
		(void)aph_rx_udp_wait(udp[0], aph_deadline_ms(5));
	}
	assert_int_equal(status, 0);
}

/* Two drivers of a process that is not the owner: what one receives for the other is told to it. */
static void two_of_a_newcomer(void)
{
	struct pollfd other;

	for (unsigned i = 1; i < N; i++) {
		CHECK_OK(try_open(&udp[i], APH_RX_UDP_SHARE));
		engines[i] = engine;
		CHECK_OK(aph_rx_udp_claim(udp[i], (uint16_t)(10 + i)));
	}
	for (unsigned i = 1; i < N; i++) {
		struct aph_udp_member *member = &udp[i]->member;

		other = (struct pollfd){ .fd = member->fd, .events = POLLIN };
		CHECK(other.fd >= 0 && poll(&other, 1, 0) == 0);
		while (poll(&other, 1, 0) == 0) {
			send_packet(request((uint16_t)(10 + i)));
			(void)aph_rx_udp_wait(udp[N - i], aph_deadline_ms(5));
		}
		CHECK(atomic_load(&member->queued));
	}
	for (unsigned i = 1; i < N; i++)
		aph_rx_udp_close(udp[i]);
}

static void a_newcomers_drivers(void **state)
{
	(void)state;
	open_all();
	in_another_process(two_of_a_newcomer);
	close_all();
}

/*
 * What is refused stays known as somebody else's: whoever takes the port over does not answer for
 * it.
 */
static void ask_for_what_is_taken(void)
{
	const struct aph_udp_claim *claim;

	CHECK_OK(try_open(&udp[1], APH_RX_UDP_SHARE));
	CHECK(aph_rx_udp_claim(udp[1], 7) == -EADDRINUSE);
	claim = aph_udp_claim_find(udp[1]->port, false, 7);
	CHECK(claim && claim->is_owners && !claim->udp && !claim->peer);
	CHECK_OK(aph_rx_udp_claim(udp[1], 8));
	aph_rx_udp_close(udp[1]);
}

static void refused_and_still_known(void **state)
{
	(void)state;
	open_all();
	assert_int_equal(aph_rx_udp_claim(udp[0], 7), 0);
	in_another_process(ask_for_what_is_taken);
	close_all();
}

static int ask_in_vain(int ctl, void *arg)
{
	uint64_t start;

	(void)arg;
	CHECK_OK(try_open(&udp[1], APH_RX_UDP_SHARE));
	child_say(ctl, 'o');
	/* Until it has seen that it is to stop. */
	nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	start = aph_time_ns();
	CHECK(aph_rx_udp_claim(udp[1], 7) == -EADDRINUSE);
	CHECK(try_open(&udp[2], APH_RX_UDP_SHARE) == -EADDRINUSE);
	CHECK(aph_time_ns() - start < (uint64_t)check_hang_ms(6000) * 1000000);
	child_say(ctl, 'd');
	CHECK(child_hear(ctl, check_hang_ms(5000)) == 'q');
	aph_rx_udp_close(udp[1]);
	return 0;
}

static bool child_has_spoken(const struct child *child)
{
	struct pollfd fds = { .fd = child->ctl, .events = POLLIN };

	return poll(&fds, 1, 0) != 0;
}

/*
 * The owner looks for nothing for a while. Nobody waits for it for long, and what was given up is
 * free.
 */
static void an_owner_that_does_not_answer(void **state)
{
	struct child child;

	(void)state;
	open_all();
	child_start(&child, ask_in_vain, NULL);
	while (!child_has_spoken(&child))
		(void)aph_rx_udp_wait(udp[0], aph_deadline_ms(5));
	assert_int_equal(child_hear(child.ctl, 0), 'o');
	assert_int_equal(child_hear(child.ctl, check_hang_ms(10000)), 'd');
	/* It is still there, and what it had asked for arrives now. */
	for (int i = 0; i < 3; i++)
		(void)aph_rx_udp_wait(udp[0], aph_deadline_ms(15));
	assert_int_equal(aph_rx_udp_claim(udp[2], 7), 0);
	child_say(child.ctl, 'q');
	assert_int_equal(child_finish(&child, check_hang_ms(2000)), 0);
	close_all();
}

static void come_and_go(void)
{
	CHECK_OK(try_open(&udp[0], APH_RX_UDP_SHARE));
	aph_rx_udp_close(udp[0]);
}

/* A connection to the owner of the port. */
static int knock(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1,
			 "antiphon-udp/%u/127.0.0.1%%0/%u", (unsigned)geteuid(),
			 ntohs(at.in.sin_port));
	size_t len = offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&name, (socklen_t)len), 0);
	return fd;
}

/*
 * What only an owner may say, from a newcomer; and an owner that does not stop telling of others.
 */
static void who_says_too_much(void **state)
{
	struct aph_udp_frame frames[] = {
		{ .kind = APH_UDP_HELLO, .value = (int)APH_UDP_LINK_VERSION },
		{ .kind = APH_UDP_WELCOME },
	};
	struct aph_udp_port *port;
	int fd;

	(void)state;
	open_all();
	port = udp[0]->port;
	aph_udp_claim_know(port, true, 99, APH_UDP_ANOTHERS);
	fd = knock();
	for (size_t i = 0; i < SUITE_LEN(frames); i++)
		assert_int_equal(send(fd, &frames[i], sizeof(frames[i]), 0), sizeof(frames[i]));
	for (int i = 0; i < 3; i++)
		aph_udp_port_look(port, aph_time_ns());
	assert_non_null(aph_udp_claim_find(port, true, 99));
	for (uint32_t key = 0; key < 34000; key++)
		aph_udp_claim_know(port, true, key, APH_UDP_ANOTHERS);
	assert_true(port->n_claims < 33000);
	for (uint32_t key = 0; key < 34000; key++)
		aph_udp_claim_know(port, true, key, APH_UDP_NOBODYS);
	assert_int_equal(port->n_claims, N);
	close(fd);
	close_all();
}

/* A newcomer knocks, and there is no descriptor for it: it is not looked at again and again. */
static void a_newcomer_too_many(void **state)
{
	struct rlimit limit, few;
	int64_t start;
	int fd;

	(void)state;
	open_all();
	fd = knock();
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	few.rlim_cur = (rlim_t)dup(fd);
	close((int)few.rlim_cur);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	start = check_worked_ms();
	assert_int_equal(aph_rx_udp_wait(udp[0], aph_deadline_ms(400)), -ETIMEDOUT);
	assert_true(check_worked_ms() - start < 150);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	/* And then there is one. */
	in_another_process(come_and_go);
	close(fd);
	close_all();
}

/* -- threads ----------------------------------------------------------------------------------- */

#define ROUNDS 300

static void *serve(void *arg)
{
	unsigned i = *(unsigned *)arg;

	while (engines[i]->n_received < ROUNDS) {
		engines[i]->n_events = 0;
		CHECK_OK(aph_rx_udp_wait(udp[i], SOON));
	}
	return NULL;
}

/* Each waits for its own and receives for all. */
static void each_in_its_thread(void **state)
{
	static unsigned numbers[N] = { 0, 1, 2 };
	pthread_t threads[N];

	(void)state;
	open_all();
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(aph_rx_udp_claim(udp[i], (uint16_t)(i + 1)), 0);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, serve, &numbers[i]), 0);
	for (unsigned k = 0; k < ROUNDS; k++) {
		for (unsigned i = 0; i < N; i++)
			send_packet(request((uint16_t)(i + 1)));
		if (k % 16 == 0)
			nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (unsigned i = 0; i < N; i++)
		for (unsigned k = 0; k < ROUNDS; k++)
			assert_int_equal(engines[i]->received[k]->bytes[27], i + 1);
	close_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(by_service),
		SUITE_TEST(by_epoch),
		SUITE_TEST(a_mixed_run),
		SUITE_TEST(one_sleeps),
		SUITE_TEST(one_goes),
		SUITE_TEST(errors),
		SUITE_TEST(by_descriptor),
		SUITE_TEST(the_budget_is_shared),
		SUITE_TEST(a_smaller_budget),
		SUITE_TEST(who_may_share),
		SUITE_TEST(epochs_differ),
		SUITE_TEST(in_a_child),
		SUITE_TEST(a_newcomers_drivers),
		SUITE_TEST(refused_and_still_known),
		SUITE_TEST(an_owner_that_does_not_answer),
		SUITE_TEST(a_newcomer_too_many),
		SUITE_TEST(who_says_too_much),
		SUITE_TEST(each_in_its_thread),
	};

	return suite_run("udp ports", tests, SUITE_LEN(tests), 60);
}
