/* SPDX-License-Identifier: MIT */
/* Waiting in sendmsg(), for room and for a channel: what ends it, and what is there afterwards. */
#include "fixture.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

#define CHANNELS 16
#define LARGE	 (8u << 20)

static struct got got;
static char body[LARGE];

/* A thread in one sendmsg(). */
struct sender {
	int fd;
	unsigned long tag;
	size_t len;
	ssize_t result;
	_Atomic bool done;
	pthread_t thread;
};

static void *send_in_thread(void *arg)
{
	struct sender *sender = arg;

	sender->result = tag_send(sender->fd, sender->tag, body, sender->len, NULL, MSG_MORE);
	atomic_store(&sender->done, true);
	return NULL;
}

static void begin_sending(struct sender *sender, int fd, unsigned long tag, size_t len)
{
	*sender = (struct sender){ .fd = fd, .tag = tag, .len = len };
	CHECK_INT(pthread_create(&sender->thread, NULL, send_in_thread, sender), 0);
}

static ssize_t result_of(struct sender *sender)
{
	CHECK_INT(pthread_join(sender->thread, NULL), 0);
	return sender->result;
}

static void on_signal(int signal)
{
	(void)signal;
}

static void handle_signals(int flags)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };

	OK(sigaction(SIGUSR1, &action, NULL));
}

/* It may not wait yet when the first ones come. */
static ssize_t interrupt(struct sender *sender)
{
	while (!atomic_load(&sender->done)) {
		(void)pthread_kill(sender->thread, SIGUSR1);
		usleep(1000);
	}
	return result_of(sender);
}

static void call_begin(struct sockaddr_rxrpc *to, int *server, int *client)
{
	*server = server_new(to, 5);
	*client = client_new();
	OK(connect_to(*client, to));
	CHECK_INT(tag_command(*server, 11, RXRPC_CHARGE_ACCEPT), 0);
}

/* All but what may be held back for a packet that is not full yet. */
static size_t read_most(int server, size_t len)
{
	size_t at = 0;

	while (at + 1412 < len) {
		receive_soon(server, &got, sizeof(got.data), MSG_DONTWAIT);
		CHECK(got.n > 0 && got.flags == MSG_MORE);
		at += (size_t)got.n;
	}
	return at;
}

/* `at` of `len` bytes have been read: ends the body, and reads the rest. */
static void end_and_read(int client, int server, size_t at, size_t len)
{
	CHECK_INT(tag_send(client, 1, "end", 3, NULL, 0), 3);
	do {
		receive_soon(server, &got, sizeof(got.data), 0);
		CHECK(got.n > 0 && got.tag == 11);
		at += (size_t)got.n;
	} while (got.flags & MSG_MORE);
	CHECK_INT(at, len + 3);
}

static void *receive_in_thread(void *arg)
{
	struct sender *reader = arg;
	static struct got mine;

	receive(reader->fd, &mine, 10, 0);
	reader->result = mine.n;
	atomic_store(&reader->done, true);
	return NULL;
}

/* -- for room ---------------------------------------------------------------------------------- */

/* What was taken before the signal is told, and only where there was nothing the signal is. */
static void test_signal_without_room(void **state)
{
	struct sockaddr_rxrpc to;
	struct sender sender;
	int server, client;
	size_t sent = 0;
	ssize_t n;

	(void)state;
	handle_signals(0);
	call_begin(&to, &server, &client);
	begin_sending(&sender, client, 1, LARGE);
	while (polls(client, POLLOUT, 0))
		usleep(1000);
	n = interrupt(&sender);
	CHECK(n > 0 && n < (ssize_t)LARGE);
	/* There may be a little room left, or come in the last acknowledgements. */
	while (n > 0) {
		sent += (size_t)n;
		begin_sending(&sender, client, 1, 100);
		n = interrupt(&sender);
	}
	CHECK_INT(n, -EINTR);
	/* Nothing of the last one was taken, and the call goes on. */
	end_and_read(client, server, read_most(server, sent), sent);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Handlers that want it let the function go on. */
static void test_signal_that_restarts(void **state)
{
	struct sockaddr_rxrpc to;
	struct sender sender;
	int server, client, i;
	size_t at;

	(void)state;
	handle_signals(SA_RESTART);
	call_begin(&to, &server, &client);
	begin_sending(&sender, client, 1, 2u << 20);
	while (polls(client, POLLOUT, 0))
		usleep(1000);
	for (i = 0; i < 10; i++) {
		CHECK_INT(pthread_kill(sender.thread, SIGUSR1), 0);
		usleep(1000);
	}
	at = read_most(server, 2u << 20);
	CHECK_INT(result_of(&sender), 2u << 20);
	end_and_read(client, server, at, 2u << 20);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Where there is a time limit, no handler lets the function go on. */
static void test_signal_before_the_limit(void **state)
{
	struct timeval limit = { .tv_sec = 1000 };
	struct sockaddr_rxrpc to;
	struct sender waiter;
	int server, client;

	(void)state;
	handle_signals(SA_RESTART);
	call_begin(&to, &server, &client);
	OK(rx_setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
	begin_sending(&waiter, client, 1, LARGE);
	while (polls(client, POLLOUT, 0))
		usleep(1000);
	CHECK(interrupt(&waiter) < (ssize_t)LARGE);
	OK(rx_close(client));
	OK(rx_close(server));
	server = server_new(&to, 5);
	OK(rx_setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	waiter = (struct sender){ .fd = server };
	CHECK_INT(pthread_create(&waiter.thread, NULL, receive_in_thread, &waiter), 0);
	CHECK_INT(interrupt(&waiter), -EINTR);
	OK(rx_close(server));
}

/*
 * The number is given to something else meanwhile, which has nothing to do with the call: sendmsg()
 * goes on to its end, and the socket ends with it.
 */
static void test_closed_without_room(void **state)
{
	struct sockaddr_rxrpc to;
	struct sender sender;
	int server, client, pair[2];
	char byte;

	(void)state;
	call_begin(&to, &server, &client);
	begin_sending(&sender, client, 1, LARGE);
	while (polls(client, POLLOUT, 0))
		usleep(1000);
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	OK(dup2(pair[0], client));
	do {
		receive_soon(server, &got, sizeof(got.data), MSG_DONTWAIT);
		/* So that it has to wait again and again. */
		usleep(100);
	} while (got.type == 0);
	CHECK_INT(result_of(&sender), LARGE);
	CHECK(recv(pair[1], &byte, 1, MSG_DONTWAIT) < 0);
	OK(close(client));
	OK(close(pair[0]));
	OK(close(pair[1]));
	OK(rx_close(server));
}

/* -- for a channel ----------------------------------------------------------------------------- */

/* A thread waits for the seventeenth channel. */
static void begin_without_channel(struct sender *sender, int *server, int *client)
{
	struct sockaddr_rxrpc to;
	unsigned long tag;

	handle_signals(0);
	call_begin(&to, server, client);
	for (tag = 1; tag <= CHANNELS; tag++)
		CHECK_INT(tag_send(*client, tag, "x", 1, NULL, MSG_MORE | MSG_DONTWAIT), 1);
	begin_sending(sender, *client, tag, 1);
}

/* Neither a signal nor a time limit leaves a tag behind. */
static void test_no_channel(void **state)
{
	struct timeval limit = { .tv_usec = 30000 };
	struct sender sender;
	int server, client;

	(void)state;
	begin_without_channel(&sender, &server, &client);
	CHECK_INT(interrupt(&sender), -EINTR);
	CHECK_INT(tag_abort(client, 17, 1), -EBADSLT);
	OK(rx_setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
	CHECK_INT(tag_send(client, 17, "x", 1, NULL, MSG_MORE), -EAGAIN);
	CHECK_INT(tag_abort(client, 17, 1), -EBADSLT);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_channel_that_becomes_free(void **state)
{
	struct sender sender;
	int server, client;

	(void)state;
	begin_without_channel(&sender, &server, &client);
	CHECK_INT(tag_abort(client, 5, 1), 0);
	CHECK_INT(result_of(&sender), 1);
	CHECK_INT(tag_abort(client, 17, 1), 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* The socket is shut down while somebody waits: what would have been refused then is refused. */
static void test_shut_down_without_channel(void **state)
{
	struct sender sender;
	int server, client;

	(void)state;
	begin_without_channel(&sender, &server, &client);
	OK(rx_shutdown(client, SHUT_RDWR));
	/* As with a kernel, that alone wakes nobody. */
	CHECK(interrupt(&sender) < 0);
	CHECK(sender.result == -EINVAL || sender.result == -EINTR);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- for a message ----------------------------------------------------------------------------- */

/* The only call is aborted here, of which no message comes: nothing could come any more. */
static void test_last_call_aborted(void **state)
{
	struct sockaddr_rxrpc to;
	struct sender reader;
	int server;

	(void)state;
	call_begin(&to, &server, &reader.fd);
	CHECK_INT(tag_send(reader.fd, 1, "x", 1, NULL, 0), 1);
	CHECK_INT(pthread_create(&reader.thread, NULL, receive_in_thread, &reader), 0);
	usleep(20000);
	CHECK_INT(tag_abort(reader.fd, 1, 1), 0);
	CHECK_INT(result_of(&reader), -EAGAIN);
	OK(rx_close(reader.fd));
	OK(rx_close(server));
}

/* -- for the rest of a body -------------------------------------------------------------------- */

static void *read_all_in_thread(void *arg)
{
	struct sender *reader = arg;
	struct got *mine = calloc(1, sizeof(*mine));

	CHECK(mine != NULL);
	receive(reader->fd, mine, sizeof(mine->data), 0);
	reader->result = mine->n;
	reader->tag = mine->tag;
	reader->len = (size_t)mine->flags;
	free(mine);
	atomic_store(&reader->done, true);
	return NULL;
}

static bool is_done_within(struct sender *reader, int ms)
{
	uint64_t until_ns = aph_deadline_ms((uint64_t)ms);

	while (!atomic_load(&reader->done) && aph_time_ns() < until_ns)
		usleep(1000);
	return atomic_load(&reader->done);
}

/*
 * Two threads read one request, and both return at its end. A third one, at another socket of the
 * port, receives for both, so that they come in any order.
 */
static void test_two_readers(void **state)
{
	struct sender readers[2] = { { .done = false } }, third = { .done = false };
	struct sockaddr_rxrpc to, other_to;
	int server, client, other = client_new(), i, late;
	ssize_t sum = 0;

	(void)state;
	call_begin(&to, &server, &client);
	other_to = loopback(ntohs(to.transport.sin.sin_port), SERVICE + 1);
	OK(bind_to(other, &other_to));
	OK(rx_listen(other, 1));
	third.fd = other;
	CHECK_INT(pthread_create(&third.thread, NULL, read_all_in_thread, &third), 0);
	usleep(20000);
	for (i = 0; i < 2; i++) {
		readers[i].fd = server;
		CHECK_INT(pthread_create(&readers[i].thread, NULL, read_all_in_thread, &readers[i]),
			  0);
	}
	for (i = 0; i < 50; i++) {
		CHECK_INT(tag_send(client, 1, "x", 1, NULL, MSG_MORE), 1);
		/* What is less than a packet is sent when the one who writes pauses. */
		usleep(2000);
	}
	CHECK_INT(tag_send(client, 1, body, 20000, NULL, MSG_MORE), 20000);
	usleep(20000);
	CHECK_INT(tag_send(client, 1, "x", 1, NULL, 0), 1);
	while (!atomic_load(&readers[0].done) && !atomic_load(&readers[1].done))
		usleep(1000);
	late = atomic_load(&readers[0].done) ? 1 : 0;
	if (!is_done_within(&readers[late], 500)) {
		/* It never had any of it, and waits for another call. */
		CHECK_INT(tag_command(server, 12, RXRPC_CHARGE_ACCEPT), 0);
		CHECK_INT(tag_send(client, 2, "x", 1, NULL, 0), 1);
		CHECK(is_done_within(&readers[late], check_hang_ms(5000)));
		CHECK_INT(readers[late].tag, 12);
	}
	for (i = 0; i < 2; i++) {
		sum += result_of(&readers[i]);
		CHECK(readers[i].len == 0 || readers[i].len == MSG_MORE);
	}
	CHECK(readers[late].tag == 12 || readers[0].len != readers[1].len);
	CHECK_INT(sum, 20000 + 51 + (readers[late].tag == 12));
	CHECK_INT(tag_send(client, 3, "x", 1, &other_to, 0), 1);
	CHECK_INT(result_of(&third), 0);
	OK(rx_close(other));
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- cancelled --------------------------------------------------------------------------------- */

/* After so many microseconds: in the port's driver first, and then asleep. */
static void cancel(struct sender *who, useconds_t after)
{
	void *result;

	usleep(after);
	CHECK_INT(pthread_cancel(who->thread), 0);
	CHECK_INT(pthread_join(who->thread, &result), 0);
	CHECK(result == PTHREAD_CANCELED);
}

static void *read_vector_in_thread(void *arg)
{
	struct sender *reader = arg;
	static char bytes[16];
	struct iovec iov[16];
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = 16 };

	/* More pieces than fit on the stack. */
	for (int i = 0; i < 16; i++)
		iov[i] = (struct iovec){ &bytes[i], 1 };
	reader->result = rx_recvmsg(reader->fd, &message, 0);
	return NULL;
}

static void *read_much_in_thread(void *arg)
{
	struct sender *reader = arg;
	static struct got mine;

	receive(reader->fd, &mine, sizeof(mine.data), 0);
	reader->result = mine.n;
	return NULL;
}

/* A thread that is cancelled leaves everything as it was for the others. */
static void test_cancelled_reader(void **state)
{
	const useconds_t times[] = { 0, 50000, 500000, 50000 };
	struct sender reader = { .done = false };
	struct sockaddr_rxrpc to;
	int server, client, i;

	(void)state;
	call_begin(&to, &server, &client);
	reader.fd = server;
	for (i = 0; i < 4; i++) {
		CHECK_INT(pthread_create(&reader.thread, NULL,
					 i == 3 ? read_vector_in_thread : receive_in_thread,
					 &reader),
			  0);
		cancel(&reader, times[i]);
	}
	CHECK_INT(tag_send(client, 1, body, 5000, NULL, MSG_MORE), 5000);
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	/* In the middle of a body, of which it has taken a part. */
	CHECK_INT(pthread_create(&reader.thread, NULL, read_much_in_thread, &reader), 0);
	cancel(&reader, 400000);
	expect_nothing(server);
	CHECK_INT(tag_send(client, 1, "y", 1, NULL, 0), 1);
	do {
		receive_soon(server, &got, sizeof(got.data), 0);
		CHECK(got.n > 0 && got.tag == 11);
	} while (got.flags & MSG_MORE);
	CHECK_INT(tag_send(server, 11, "z", 1, NULL, 0), 1);
	expect_data(client, 1, "z", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_cancelled_sender(void **state)
{
	const useconds_t times[] = { 50000, 400000 };
	struct sockaddr_rxrpc to;
	struct sender sender;
	unsigned long tag;
	int server, client, i;

	(void)state;
	for (i = 0; i < 2; i++) {
		call_begin(&to, &server, &client);
		begin_sending(&sender, client, 1, LARGE);
		while (polls(client, POLLOUT, 0))
			usleep(1000);
		cancel(&sender, times[i]);
		/* It goes on where the thread has left it. */
		CHECK_INT(tag_abort(client, 1, 7), 0);
		CHECK(polls(client, POLLOUT, check_hang_ms(5000)));
		for (tag = 2; tag < 2 + CHANNELS; tag++)
			CHECK_INT(tag_send(client, tag, "x", 1, NULL, MSG_MORE | MSG_DONTWAIT), 1);
		/* Without a channel. */
		begin_sending(&sender, client, tag, 1);
		cancel(&sender, times[i]);
		CHECK_INT(tag_abort(client, 2, 7), 0);
		CHECK_INT(tag_send(client, tag, "x", 1, NULL, MSG_MORE), 1);
		OK(rx_close(client));
		OK(rx_close(server));
	}
}

/* As programs that do not want it are used to. */
static void *read_without_cancelling(void *arg)
{
	OK(-pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL));
	receive_in_thread(arg);
	return NULL;
}

static void test_not_cancelled(void **state)
{
	struct sender reader = { .done = false };
	struct sockaddr_rxrpc to;
	int server, client;

	(void)state;
	call_begin(&to, &server, &client);
	reader.fd = server;
	CHECK_INT(pthread_create(&reader.thread, NULL, read_without_cancelling, &reader), 0);
	usleep(50000);
	CHECK_INT(pthread_cancel(reader.thread), 0);
	usleep(50000);
	CHECK_INT(tag_send(client, 1, "x", 1, NULL, 0), 1);
	CHECK_INT(result_of(&reader), 1);
	OK(rx_close(client));
	OK(rx_close(server));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_signal_without_room),
		SUITE_TEST(test_signal_that_restarts),
		SUITE_TEST(test_signal_before_the_limit),
		SUITE_TEST(test_closed_without_room),
		SUITE_TEST(test_no_channel),
		SUITE_TEST(test_channel_that_becomes_free),
		SUITE_TEST(test_shut_down_without_channel),
		SUITE_TEST(test_last_call_aborted),
		SUITE_TEST(test_two_readers),
		SUITE_TEST(test_cancelled_reader),
		SUITE_TEST(test_cancelled_sender),
		SUITE_TEST(test_not_cancelled),
	};

	return suite_run("af_rxrpc waits", tests, SUITE_LEN(tests), 60);
}
