/* SPDX-License-Identifier: MIT */
/*
 * Descriptors with any piece of a body, in both directions, in order, and none of them lost or
 * kept.
 */
#include "suite.h"

#include "fds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A descriptor that can be told from others wherever it arrives: a file of `size` bytes. */
static int marked(size_t size)
{
	int fd = memfd_create("marked", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static size_t mark_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (size_t)st.st_size;
}

static void expect_marks(const int *fds, ssize_t n, size_t first)
{
	for (ssize_t i = 0; i < n; i++) {
		assert_int_equal(mark_of(fds[i]), first + (size_t)i);
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		close(fds[i]);
	}
}

static void there_and_back(void **state)
{
	static const size_t counts[] = { 1, 2, 16, 63, 64 };
	struct service service;
	struct client client;
	struct aph_call *call;
	int out[APH_CALL_FDS_MAX], in[APH_CALL_FDS_MAX + 1];

	(void)state;
	service_start_simple(&service, suite_mode, "fds");
	client_open(&client, "fds");
	for (size_t round = 0; round < 3 * SUITE_LEN(counts); round++) {
		size_t n = counts[round % SUITE_LEN(counts)];

		for (size_t i = 0; i < n; i++)
			out[i] = marked(round * 100 + i);
		assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
		assert_int_equal(aph_call_send_fds(call, "f", 1, out, n, 0), 1);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(close(out[i]), 0); /* they were duplicated */
		assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
		/* In two helpings. */
		assert_int_equal(aph_call_take_fds(call, in, 1), 1);
		assert_int_equal(aph_call_take_fds(call, in + 1, APH_CALL_FDS_MAX), n - 1);
		assert_int_equal(aph_call_take_fds(call, in, 1), 0);
		expect_marks(in, (ssize_t)n, round * 100);
		aph_call_free(call);
	}
	client_close(&client);
	service_stop(&service);
}

static void with_later_pieces(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	static char body[30000];
	int fds[2], in[16];

	(void)state;
	service_start_simple(&service, suite_mode, "fds");
	client_open(&client, "fds");
	for (int large = 0; large < 2; large++) {
		assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
		assert_int_equal(aph_call_send(call, "f", 1, APH_MORE), 1);
		for (size_t piece = 0; piece < 5; piece++) {
			size_t len = large ? sizeof(body) : piece;
			ssize_t n;

			fds[0] = marked(2 * piece);
			fds[1] = marked(2 * piece + 1);
			while ((n = aph_call_send_fds(call, body, len, fds, 2, APH_MORE)) ==
			       -EAGAIN)
				assert_int_equal(aph_call_wait(call, aph_deadline_ms(5000)), 0);
			assert_true(n >= 0);
			if ((size_t)n < len)
				assert_true(client_send(call, body, len - (size_t)n, APH_MORE));
			close(fds[0]);
			close(fds[1]);
		}
		assert_int_equal(aph_call_send(call, NULL, 0, 0), 0);
		assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
		assert_int_equal(aph_call_take_fds(call, in, 16), 10);
		expect_marks(in, 10, 0);
		aph_call_free(call);
	}
	client_close(&client);
	service_stop(&service);
}

/* Descriptors are there as soon as the first byte of their piece is. */
static void ordered_with_the_body(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	struct service_get get = { .len = 600000, .seed = 3, .fd = 1 };
	char request[1 + sizeof(get)] = "g", byte;
	int in[4];

	(void)state;
	service_start_simple(&service, suite_mode, "fds");
	client_open(&client, "fds");
	memcpy(request + 1, &get, sizeof(get));
	call = client_begin(client.channel, request, sizeof(request), APH_FOREVER);
	client_expect(client.ep, APH_EVENT_REPLY, call);
	assert_int_equal(aph_call_read(call, &byte, 1), 1);
	assert_int_equal(aph_call_take_fds(call, in, 4), 1);
	close(in[0]);
	assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
	assert_int_equal(aph_call_take_fds(call, in, 4), 0);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

/* Many calls under way at once: each gets its own. */
static void many_calls_at_once(void **state)
{
	enum {
		N = 40
	};
	struct service service;
	struct client client;
	struct aph_call *calls[N];
	struct aph_event ev;
	int fds[3], in[4];

	(void)state;
	service_start_simple(&service, suite_mode, "fds");
	client_open(&client, "fds");
	for (size_t i = 0; i < N; i++) {
		for (size_t k = 0; k < 3; k++)
			fds[k] = marked(i * 10 + k);
		assert_int_equal(
			aph_call_new(&calls[i], client.channel, APH_FOREVER, (void *)(i + 1)), 0);
		while (aph_call_send_fds(calls[i], "f", 1, fds, 3, 0) == -EAGAIN)
			assert_int_equal(aph_call_wait(calls[i], aph_deadline_ms(5000)), 0);
		for (size_t k = 0; k < 3; k++)
			close(fds[k]);
	}
	for (size_t ends = 0; ends < N;) {
		client_next(client.ep, &ev, 3000);
		if (ev.type != APH_EVENT_END)
			continue;
		size_t i = (size_t)aph_call_data(ev.call) - 1;
		assert_int_equal(ev.result.outcome, APH_ANSWERED);
		assert_int_equal(aph_call_take_fds(ev.call, in, 4), 3);
		expect_marks(in, 3, i * 10);
		aph_call_free(ev.call);
		ends++;
	}
	client_close(&client);
	service_stop(&service);
}

static void bad_ones_change_nothing(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	int fds[APH_CALL_FDS_MAX + 1];
	int good = marked(7), in[2];

	(void)state;
	service_start_simple(&service, suite_mode, "fds");
	client_open(&client, "fds");
	for (size_t i = 0; i <= APH_CALL_FDS_MAX; i++)
		fds[i] = good;
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send_fds(call, "f", 1, fds, APH_CALL_FDS_MAX + 1, 0), -EINVAL);
	fds[1] = -1;
	assert_int_equal(aph_call_send_fds(call, "f", 1, fds, 3, 0), -EBADF);
	fds[1] = 19999;
	assert_int_equal(aph_call_send_fds(call, "f", 1, fds, 3, 0), -EBADF);
	assert_int_equal(aph_call_send_fds(call, "f", 1, &good, 1, 0), 1);
	assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
	assert_int_equal(aph_call_take_fds(call, in, 2), 1);
	expect_marks(in, 1, 7);
	aph_call_free(call);
	close(good);
	client_close(&client);
	service_stop(&service);
}

/* The fixture's own check sees whether anything stays open here. */
static void untaken_ones_are_closed(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	int fds[8];

	(void)state;
	service_start_simple(&service, suite_mode, "fds");
	client_open(&client, "fds");
	for (size_t i = 0; i < 8; i++)
		fds[i] = marked(i);
	for (int round = 0; round < 4; round++) {
		/*
		 * Taken by nobody at the client; by nobody at the service; not even received;
		 * cancelled.
		 */
		static const char ops[] = "feha";

		assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
		assert_int_equal(aph_call_send_fds(call, &ops[round], 1, fds, 8, 0), 1);
		if (ops[round] == 'h')
			assert_int_equal(aph_call_cancel(call), 0);
		client_end(client.ep, call, NULL, NULL);
		aph_call_free(call);
	}
	/* And those of a channel that ends with all of them under way. */
	for (int i = 0; i < 5; i++) {
		assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
		assert_int_equal(aph_call_send_fds(call, "f", 1, fds, 8, 0), 1);
		aph_call_free(call);
	}
	for (size_t i = 0; i < 8; i++)
		close(fds[i]);
	client_close(&client);
	service_stop(&service);
}

/* One whose last close would wait for a minute does not hold up the service. */
static void one_that_lingers(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	int fd, peer;

	(void)state;
	service_start_simple(&service, suite_mode, "fds");
	client_open(&client, "fds");
	fd = fds_lingering(&peer);
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send_fds(call, "e", 1, &fd, 1, 0), 1);
	close(fd);
	assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
	aph_call_free(call);
	client_echo(client.channel);
	close(peer);
	client_close(&client);
	service_stop(&service);
}

/* More than may be under way: the sender is told to wait, and nothing is lost. */
static void more_than_may_be_under_way(void **state)
{
	enum {
		N = 24
	};
	struct service service;
	struct client client;
	struct aph_call *calls[N], *late;
	int fds[32], again = 0, in[33];
	ssize_t n;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("needs a service that can be stopped");
	service_start_simple(&service, suite_mode, "fds");
	client_open(&client, "fds");
	client_echo(client.channel);
	for (size_t i = 0; i < 32; i++)
		fds[i] = marked(i);
	child_signal(&service.child, SIGSTOP);
	child_await_state(service.child.pid, 'T', check_hang_ms(2000));
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(aph_call_new(&calls[i], client.channel, APH_FOREVER, NULL), 0);
		n = aph_call_send_fds(calls[i], "f", 1, fds, 32, 0);
		assert_true(n == 1 || n == -EAGAIN);
		again += n == -EAGAIN;
		if (n == -EAGAIN)
			calls[i] = aph_call_free(calls[i]);
	}
	assert_true(again > 0 && again < N);
	/* One that waits hears of room when there is some, and not before. */
	assert_int_equal(aph_call_new(&late, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send_fds(late, "f", 1, fds, 32, 0), -EAGAIN);
	client_quiet(client.ep, 20);
	child_signal(&service.child, SIGCONT);
	for (size_t i = 0; i < N; i++) {
		struct aph_event ev;

		if (!calls[i])
			continue;
		do {
			client_next(client.ep, &ev, 5000);
			if (ev.type == APH_EVENT_WRITABLE && ev.call == late &&
			    aph_call_send_fds(late, "f", 1, fds, 32, 0) == 1)
				calls[N - 1] = late;
		} while (ev.type != APH_EVENT_END);
		assert_int_equal(ev.result.outcome, APH_ANSWERED);
		assert_int_equal(aph_call_take_fds(ev.call, in, 33), 32);
		expect_marks(in, 32, 0);
		aph_call_free(ev.call);
	}
	for (size_t i = 0; i < 32; i++)
		close(fds[i]);
	client_close(&client);
	service_stop(&service);
}

/*
 * Descriptors behind many bells, where those are bytes on the same socket: nobody has done anything
 * wrong.
 */
static void behind_many_bells(void **state)
{
	struct aph_channel_options options = { .size = sizeof(options), .depth = 512 };
	struct rlimit before, limit;
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_call *call;
	struct aph_event ev;
	int fd, in[2], crowd[32];

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, ep, "bells", NULL), 0);
	/* Half of what may be open is. */
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	limit = before;
	limit.rlim_cur = 64;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (size_t i = 0; i < SUITE_LEN(crowd); i++)
		assert_true((crowd[i] = dup(0)) >= 0);
	assert_int_equal(aph_channel_open(&channel, ep, "bells", &options), 0);
	/* Each of these rings, as the service is awake and does not look at this channel yet. */
	for (int i = 0; i < 200; i++) {
		assert_int_equal(aph_call_new(&call, channel, APH_FOREVER, NULL), 0);
		assert_int_equal(aph_call_send(call, "x", 1, 0), 1);
		aph_call_free(call);
	}
	fd = marked(5);
	assert_int_equal(aph_call_new(&call, channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send_fds(call, "f", 1, &fd, 1, 0), 1);
	ev = client_expect(ep, APH_EVENT_REQUEST, NULL);
	assert_int_equal(aph_call_take_fds(ev.call, in, 2), 1);
	expect_marks(in, 1, 5);
	close(fd);
	for (size_t i = 0; i < SUITE_LEN(crowd); i++)
		close(crowd[i]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	aph_endpoint_free(ep);
}

/* A service and its client in one thread, each at an endpoint of its own. */
static void open_both(struct aph_endpoint **ep, struct aph_endpoint **client,
		      struct aph_channel **channel)
{
	struct aph_channel_options async = { .size = sizeof(async), .flags = APH_CHANNEL_ASYNC };
	struct aph_event ev;

	assert_int_equal(aph_endpoint_new(ep, NULL), 0);
	assert_int_equal(aph_endpoint_new(client, NULL), 0);
	assert_int_equal(aph_service_open(NULL, *ep, "fds", NULL), 0);
	assert_int_equal(aph_channel_open(channel, *client, "fds", &async), 0);
	while (aph_endpoint_next(*client, &ev, APH_NOW) != 0)
		(void)aph_endpoint_serve(*ep, APH_NOW);
	assert_int_equal(ev.type, APH_EVENT_OPEN);
}

/*
 * A client closes its channel behind a request with descriptors that nobody has received, and
 * behind it are descriptors of a call that was: each goes where it belongs, or nowhere.
 */
static void behind_a_request_that_is_dropped(void **state)
{
	struct aph_endpoint *ep, *client;
	struct aph_channel *channel;
	struct aph_call *first, *second, *call;
	struct aph_event ev;
	int fds[3], in[4];

	(void)state;
	open_both(&ep, &client, &channel);
	for (size_t i = 0; i < 3; i++)
		fds[i] = marked(i);
	assert_int_equal(aph_call_new(&first, channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(first, "1", 1, APH_MORE), 1);
	client_next(ep, &ev, 2000);
	assert_int_equal(ev.type, APH_EVENT_REQUEST);
	call = ev.call;
	assert_int_equal(aph_call_new(&second, channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send_fds(second, "2", 1, fds, 1, 0), 1);
	assert_int_equal(aph_call_send_fds(first, "1", 1, fds + 1, 2, APH_MORE), 1);
	aph_channel_close(channel);
	aph_call_free(first);
	aph_call_free(second);
	/* The channel's end is seen before the request is taken. */
	while (!aph_call_result(call, NULL))
		(void)aph_endpoint_serve(ep, APH_NOW);
	client_next(ep, &ev, 2000);
	assert_int_equal(ev.type, APH_EVENT_END);
	assert_ptr_equal(ev.call, call);
	client_check_result(ev.result, APH_GONE, APH_REASON_CLOSED);
	assert_int_equal(aph_call_take_fds(call, in, 4), 2);
	expect_marks(in, 2, 1);
	aph_call_free(call);
	client_quiet(ep, 0);
	for (size_t i = 0; i < 3; i++)
		close(fds[i]);
	aph_endpoint_free(client);
	aph_endpoint_free(ep);
}

/*
 * This process can hold no more: the call is lost, and no byte is read of the piece whose
 * descriptor is missing.
 */
static void no_room_for_one(void **state)
{
	struct aph_endpoint *ep, *client;
	struct aph_channel *channel;
	struct rlimit before, none;
	struct aph_call *call;
	struct aph_event ev;
	char buf[8];
	int fd;

	(void)state;
	open_both(&ep, &client, &channel);
	fd = marked(0);
	assert_int_equal(aph_call_new(&call, channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(call, "?", 1, 0), 1);
	client_next(ep, &ev, 2000);
	assert_int_equal(ev.type, APH_EVENT_REQUEST);
	assert_int_equal(aph_call_send(ev.call, "1", 1, APH_MORE), 1);
	assert_int_equal(aph_call_send_fds(ev.call, "2", 1, &fd, 1, APH_MORE), 1);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	while (!aph_call_result(call, NULL))
		(void)aph_endpoint_serve(client, APH_NOW);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	client_next(client, &ev, 2000);
	assert_int_equal(ev.type, APH_EVENT_END);
	client_check_result(ev.result, APH_LOST, APH_REASON_RESOURCES);
	assert_int_equal(aph_call_read(call, buf, sizeof(buf)), 1);
	assert_int_equal(aph_call_read(call, buf, sizeof(buf)), -EPIPE);
	assert_int_equal(aph_call_take_fds(call, &fd, 1), 0);
	aph_call_free(call);
	close(fd);
	aph_endpoint_free(client);
	aph_endpoint_free(ep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(there_and_back),	     SUITE_TEST(with_later_pieces),
		SUITE_TEST(ordered_with_the_body),   SUITE_TEST(many_calls_at_once),
		SUITE_TEST(bad_ones_change_nothing), SUITE_TEST(untaken_ones_are_closed),
		SUITE_TEST(one_that_lingers),	     SUITE_TEST(more_than_may_be_under_way),
		SUITE_TEST(behind_many_bells),	     SUITE_TEST(behind_a_request_that_is_dropped),
		SUITE_TEST(no_room_for_one),
	};

	return suite_run_both("descriptors", tests, SUITE_LEN(tests), 60);
}
