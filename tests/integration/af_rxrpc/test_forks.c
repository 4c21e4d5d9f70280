/* SPDX-License-Identifier: MIT */
/* Threads that are in a function of a socket while another thread forks. */
#include "fixture.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

static struct got got;

/* A thread that sleeps in a function while another one forks goes on there. */
static void *receive_in_thread(void *arg)
{
	static struct got mine;

	receive(*(int *)arg, &mine, 10, 0);
	CHECK_INT(mine.n, 0);
	CHECK_INT(mine.type, RXRPC_NEW_CALL);
	return NULL;
}

static void test_fork_meanwhile(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	pthread_t thread;

	(void)state;
	CHECK_INT(pthread_create(&thread, NULL, receive_in_thread, &server), 0);
	usleep(20000);
	fork_once();
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	CHECK_INT(pthread_join(thread, NULL), 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

#define CHANNELS 16
#define LARGE	 (4u << 20)

/* A thread in one function. */
struct sleeper {
	int fd;
	unsigned long tag;
	size_t len;
	ssize_t result;
	int flags;
	_Atomic bool done;
	pthread_t thread;
};

static void *send_in_thread(void *arg)
{
	struct sleeper *sleeper = arg;
	char *body = calloc(1, sleeper->len);

	CHECK(body != NULL);
	sleeper->result = tag_send(sleeper->fd, sleeper->tag, body, sleeper->len, NULL, MSG_MORE);
	free(body);
	return NULL;
}

/* Until there is no room, or a moment long where nothing tells. */
static void begin_sending(struct sleeper *sleeper, int fd, unsigned long tag, size_t len)
{
	*sleeper = (struct sleeper){ .fd = fd, .tag = tag, .len = len };
	CHECK_INT(pthread_create(&sleeper->thread, NULL, send_in_thread, sleeper), 0);
	while (len > 1 && polls(fd, POLLOUT, 0))
		usleep(1000);
	usleep(50000);
}

/* A body that is on its way is sent to its end, by whoever has the socket now. */
static void test_fork_while_sending(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct sleeper sleeper;
	size_t at = 0;

	(void)state;
	OK(connect_to(client, &to));
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	begin_sending(&sleeper, client, 1, LARGE);
	fork_once();
	do {
		receive_soon(server, &got, sizeof(got.data), MSG_DONTWAIT);
		CHECK(got.n > 0 && got.tag == 11);
		at += (size_t)got.n;
	} while (at + 1412 < LARGE);
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK_INT(sleeper.result, LARGE);
	CHECK_INT(tag_send(client, 1, "end", 3, NULL, 0), 3);
	while (at < LARGE + 3) {
		receive_soon(server, &got, sizeof(got.data), 0);
		CHECK(got.n > 0 && got.tag == 11);
		at += (size_t)got.n;
	}
	CHECK_INT(got.flags, 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Whoever waits for a channel gets one that becomes free there. */
static void test_fork_without_channel(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct sleeper sleeper;
	unsigned long tag;

	(void)state;
	OK(connect_to(client, &to));
	for (tag = 1; tag <= CHANNELS; tag++)
		CHECK_INT(tag_send(client, tag, "x", 1, NULL, MSG_MORE | MSG_DONTWAIT), 1);
	begin_sending(&sleeper, client, tag, 1);
	fork_once();
	CHECK_INT(tag_abort(client, 5, 1), 0);
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK_INT(sleeper.result, 1);
	CHECK_INT(tag_abort(client, tag, 1), 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

#define PART 5000

static char body[2 * PART];

/* The whole of what the body is, or a part of it. */
static void *read_in_thread(void *arg)
{
	struct sleeper *sleeper = arg;
	static struct got mine;

	receive(sleeper->fd, &mine, sizeof(mine.data), 0);
	if (mine.n > 0) {
		CHECK(mine.has_tag && mine.tag == sleeper->tag && mine.type == 0);
		CHECK_INT(mine.from_len, sizeof(mine.from));
		CHECK(mine.from.srx_service == SERVICE);
		CHECK(memcmp(mine.data, body, (size_t)mine.n) == 0);
	}
	sleeper->flags = mine.flags & (MSG_MORE | MSG_EOR | MSG_CTRUNC);
	sleeper->result = mine.n;
	atomic_store(&sleeper->done, true);
	return NULL;
}

/* A call with tag 1 whose request, to tag 11, has come in part; somebody waits for the rest. */
static void begin_reading(struct sleeper *sleeper, int *client, int *server)
{
	struct sockaddr_rxrpc to;
	size_t i;

	for (i = 0; i < sizeof(body); i++)
		body[i] = (char)(i % 251);
	*server = server_new(&to, 5);
	*client = client_new();
	OK(connect_to(*client, &to));
	CHECK_INT(tag_command(*server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(*client, 1, body, PART, NULL, MSG_MORE), PART);
	CHECK(polls(*server, POLLIN, check_hang_ms(5000)));
	*sleeper = (struct sleeper){ .fd = *server, .tag = 11 };
	CHECK_INT(pthread_create(&sleeper->thread, NULL, read_in_thread, sleeper), 0);
	/* It is not readable any more when that has been taken, and more is waited for. */
	while (polls(*server, POLLIN, 0))
		usleep(1000);
}

static void end_reading(int client, int server)
{
	expect_nothing(server);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void share(void)
{
#ifdef AFRX_PLAIN
	CHECK_INT(system(":"), 0);
#else
	OK(aph_rxrpc_share());
#endif
}

/* A body that is read on its way is read to its end, whoever has the socket then. */
static void read_while(void (*move)(void))
{
	struct sleeper sleeper;
	int client, server;

	begin_reading(&sleeper, &client, &server);
	move();
	CHECK_INT(tag_send(client, 1, body + PART, PART, NULL, 0), PART);
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK_INT(sleeper.result, 2 * PART);
	CHECK_INT(sleeper.flags, 0);
	end_reading(client, server);
}

static void test_fork_while_reading(void **state)
{
	(void)state;
	read_while(fork_once);
}

static void test_share_while_reading(void **state)
{
	(void)state;
	read_while(share);
}

/* That of a reply is the last message of its call. */
static void test_fork_while_reading_reply(void **state)
{
	struct sleeper sleeper;
	int client, server;

	(void)state;
	begin_reading(&sleeper, &client, &server);
	CHECK_INT(tag_send(client, 1, body + PART, PART, NULL, 0), PART);
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK_INT(tag_send(server, 11, body, PART, NULL, MSG_MORE), PART);
	CHECK(polls(client, POLLIN, check_hang_ms(5000)));
	sleeper = (struct sleeper){ .fd = client, .tag = 1 };
	CHECK_INT(pthread_create(&sleeper.thread, NULL, read_in_thread, &sleeper), 0);
	while (polls(client, POLLIN, 0))
		usleep(1000);
	fork_once();
	CHECK_INT(tag_send(server, 11, body + PART, PART, NULL, 0), PART);
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK_INT(sleeper.result, 2 * PART);
	CHECK_INT(sleeper.flags, MSG_EOR);
	CHECK_INT(tag_abort(client, 1, 5), -EBADSLT);
	expect_ack(server, 11);
	end_reading(client, server);
}

/* If there is no more, the part is what was read; the end of the call comes by itself. */
static void test_fork_while_reading_aborted(void **state)
{
	struct sleeper sleeper;
	int client, server;

	(void)state;
	begin_reading(&sleeper, &client, &server);
	fork_once();
	CHECK_INT(tag_abort(client, 1, 77), 0);
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK(sleeper.result > 0 && sleeper.result <= PART);
	CHECK_INT(sleeper.flags, MSG_MORE);
	expect_note(server, &got, 11, RXRPC_ABORT);
	CHECK_INT(got.code, 77);
	end_reading(client, server);
}

static void be_interrupted(int signal)
{
	(void)signal;
}

/* And so it is when a signal comes. */
static void test_fork_while_reading_interrupted(void **state)
{
	const struct sigaction action = { .sa_handler = be_interrupted };
	struct sleeper sleeper;
	int client, server;

	(void)state;
	OK(sigaction(SIGUSR1, &action, NULL));
	begin_reading(&sleeper, &client, &server);
	fork_once();
	while (!atomic_load(&sleeper.done)) {
		(void)pthread_kill(sleeper.thread, SIGUSR1);
		usleep(1000);
	}
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK(sleeper.result > 0 && sleeper.result <= PART);
	CHECK_INT(sleeper.flags, MSG_MORE);
	CHECK_INT(tag_abort(server, 11, 1), 0);
	end_reading(client, server);
}

/* Who is cancelled there leaves the call as it is for others. */
static void test_fork_while_reading_cancelled(void **state)
{
	struct sleeper sleeper;
	int client, server;
	void *result;

	(void)state;
	begin_reading(&sleeper, &client, &server);
	fork_once();
	CHECK_INT(pthread_cancel(sleeper.thread), 0);
	CHECK_INT(pthread_join(sleeper.thread, &result), 0);
	CHECK(result == PTHREAD_CANCELED);
	CHECK_INT(tag_send(client, 1, body, PART, NULL, 0), PART);
	do {
		receive_soon(server, &got, sizeof(got.data), 0);
		CHECK(got.n > 0 && got.tag == 11);
	} while (got.flags & MSG_MORE);
	CHECK_INT(tag_abort(server, 11, 1), 0);
	end_reading(client, server);
}

#define LIMIT_MS 400

static void set_limits(int fd)
{
	const struct timeval limit = { .tv_usec = LIMIT_MS * 1000 };

	OK(rx_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	OK(rx_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
}

/* Ends what sleeps when most of its time has passed; whether that was on time. */
static bool fork_late(struct sleeper *sleeper, uint64_t began_ns)
{
	uint64_t ms;

	usleep(LIMIT_MS * 3 / 4 * 1000);
	fork_once();
	CHECK_INT(pthread_join(sleeper->thread, NULL), 0);
	ms = (aph_time_ns() - began_ns) / 1000000;
	CHECK(ms >= LIMIT_MS - 5);
	return ms < LIMIT_MS + LIMIT_MS / 2;
}

/* A time limit goes on where the socket is now, and does not begin again. */
static bool limit_reading(bool hold_part)
{
	uint64_t began_ns = aph_time_ns();
	struct sleeper sleeper;
	int client, server;
	bool on_time;

	begin_reading(&sleeper, &client, &server);
	CHECK_INT(tag_send(client, 1, body + PART, PART, NULL, 0), PART);
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	set_limits(client);
	if (hold_part) {
		CHECK_INT(tag_send(server, 11, body, PART, NULL, MSG_MORE), PART);
		CHECK(polls(client, POLLIN, check_hang_ms(5000)));
	}
	sleeper = (struct sleeper){ .fd = client, .tag = 1 };
	began_ns = aph_time_ns();
	CHECK_INT(pthread_create(&sleeper.thread, NULL, read_in_thread, &sleeper), 0);
	on_time = fork_late(&sleeper, began_ns);
	if (hold_part)
		CHECK(sleeper.result > 0 && sleeper.result <= PART);
	else
		CHECK_INT(sleeper.result, -EAGAIN);
	OK(rx_close(client));
	OK(rx_close(server));
	return on_time;
}

static bool limit_sending(void)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	uint64_t began_ns = aph_time_ns();
	struct sleeper sleeper;
	bool on_time;

	OK(connect_to(client, &to));
	set_limits(client);
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	sleeper = (struct sleeper){ .fd = client, .tag = 1, .len = LARGE };
	CHECK_INT(pthread_create(&sleeper.thread, NULL, send_in_thread, &sleeper), 0);
	on_time = fork_late(&sleeper, began_ns);
	CHECK(sleeper.result > 0 && sleeper.result < (ssize_t)LARGE);
	OK(rx_close(client));
	OK(rx_close(server));
	return on_time;
}

static void test_fork_within_limit(void **state)
{
	bool reading = false, holding = false, sending = false;
	int round;

	(void)state;
	for (round = 0; round < 8 && !(reading && holding && sending); round++) {
		reading = reading || limit_reading(false);
		holding = holding || limit_reading(true);
		sending = sending || limit_sending();
	}
	CHECK(reading && holding && sending);
}

static void *receive_too_late(void *arg)
{
	static struct got mine;

	receive(*(int *)arg, &mine, 10, 0);
	CHECK(mine.n < 0); /* the number may be that of something else by now */
	return NULL;
}

/* Closed while a thread still waits, it ends with the move, and its address is free. */
static void test_fork_after_close(void **state)
{
	uint64_t until_ns = aph_deadline_ms((uint64_t)check_hang_ms(5000));
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), r;
	pthread_t thread;

	(void)state;
	CHECK_INT(pthread_create(&thread, NULL, receive_too_late, &server), 0);
	usleep(50000);
	OK(rx_close(server));
	fork_once();
	CHECK_INT(pthread_join(thread, NULL), 0);
	server = client_new();
	while ((r = bind_to(server, &to)) == -EADDRINUSE && aph_time_ns() < until_ns)
		usleep(1000);
	OK(r);
	OK(rx_close(server));
}

/* Whoever sleeps has nothing to do with another socket that has got the number meanwhile. */
static void test_fork_after_reuse(void **state)
{
	struct sockaddr_rxrpc to, other_to;
	int server = server_new(&to, 5), other_server = server_new(&other_to, 5);
	int client = client_new(), other = client_new();
	struct sleeper sleeper;

	(void)state;
	OK(connect_to(client, &to));
	OK(connect_to(other, &other_to));
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	begin_sending(&sleeper, client, 1, LARGE);
	OK(dup2(other, client));
	fork_once();
	CHECK_INT(pthread_join(sleeper.thread, NULL), 0);
	CHECK(sleeper.result > 0 && sleeper.result < (ssize_t)LARGE);
	expect_nothing(other_server);
	OK(rx_close(client));
	OK(rx_close(other));
	OK(rx_close(other_server));
	OK(rx_close(server));
}

#define PORTS 16

static void *fork_in_thread(void *arg)
{
	(void)arg;
	fork_once();
	return NULL;
}

/*
 * Two threads fork at once, and the child of the later one goes on to fork: it has nothing of the
 * other one's.
 */
static void test_fork_twice(void **state)
{
	int fds[PORTS], round, i;
	pthread_t thread;
	pid_t pid;

	(void)state;
	for (round = 0; round < 30; round++) {
		for (i = 0; i < PORTS; i++) {
			struct sockaddr_rxrpc at;

			fds[i] = server_new(&at, 1);
		}
		CHECK_INT(pthread_create(&thread, NULL, fork_in_thread, NULL), 0);
		usleep((useconds_t)round * 100);
		pid = (pid_t)OK(fork());
		if (pid == 0) {
			OK(rx_close(client_new()));
			fork_once();
			_exit(0);
		}
		finish(pid);
		CHECK_INT(pthread_join(thread, NULL), 0);
		for (i = 0; i < PORTS; i++)
			OK(rx_close(fds[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_fork_meanwhile),
		SUITE_TEST(test_fork_while_sending),
		SUITE_TEST(test_fork_without_channel),
		SUITE_TEST(test_fork_while_reading),
		SUITE_TEST(test_share_while_reading),
		SUITE_TEST(test_fork_while_reading_reply),
		SUITE_TEST(test_fork_while_reading_aborted),
		SUITE_TEST(test_fork_while_reading_interrupted),
		SUITE_TEST(test_fork_while_reading_cancelled),
		SUITE_TEST(test_fork_within_limit),
		SUITE_TEST(test_fork_after_close),
		SUITE_TEST(test_fork_after_reuse),
		SUITE_TEST(test_fork_twice),
	};

	return suite_run("af_rxrpc forks", tests, SUITE_LEN(tests), 60);
}
