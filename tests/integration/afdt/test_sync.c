/* SPDX-License-Identifier: MIT */
/* The synchronous client, against servers in a thread that do as they are told. */
#include "fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#define N_THREADS 4
#define N_CALLS	  200

/* -- a server that accepts one client and does something with it ------------------------------- */

struct server {
	int listener;
	int file;
	void (*run)(int sock, int file);
	struct peer_got got;
	pthread_t thread;
	char path[160];
};

static void *serve(void *arg)
{
	struct server *server = arg;
	int sock = peer_accept(server->listener);

	if (peer_receive(sock, &server->got) && server->run)
		server->run(sock, server->file);
	close(sock);
	return NULL;
}

static void server_open(struct server *server, void (*run)(int sock, int file))
{
	memset(server, 0, sizeof(*server));
	snprintf(server->path, sizeof(server->path), "%s", path_of("s"));
	server->listener = peer_listen(server->path);
	server->file = some_file();
	server->run = run;
	CHECK(pthread_create(&server->thread, NULL, serve, server) == 0);
}

static void server_close(struct server *server)
{
	CHECK(pthread_join(server->thread, NULL) == 0);
	assert_int_equal(server->got.n_fds, 0);
	close(server->listener);
	close(server->file);
	CHECK_OK(unlink(server->path));
}

static int ask(const char *path, uint32_t room, int timeout_ms, int *fd, struct afdt_error_t *err)
{
	const struct timeval timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };
	uint8_t response[AFDT_MSGLEN];
	uint32_t len = room;
	int r;

	*err = AFDT_ERROR_T_INIT;
	r = afdt_sync_client(path, (const uint8_t *)"hello", 5, response, &len, fd,
			     timeout_ms < 0 ? NULL : &timeout, err);
	if (r == 0) {
		assert_int_equal(len, 3);
		assert_memory_equal(response, "yes", 3);
	} else {
		assert_int_equal(*fd, -1);
	}
	return r;
}

static void say_yes(int sock, int file)
{
	peer_message(sock, "yes", 3, file);
}

static void say_yes_bit_by_bit(int sock, int file)
{
	peer_message_split(sock, "yes", 3, file);
}

static void say_yes_late(int sock, int file)
{
	const struct timespec nap = { .tv_nsec = 30000000 };

	nanosleep(&nap, NULL);
	peer_send(sock, "\3\0", 2, &file, 1);
	nanosleep(&nap, NULL);
	peer_send(sock, "\0\0yes", 5, NULL, 0);
}

static void answered(void **state)
{
	static void (*const runs[])(int sock, int file) = { say_yes, say_yes_bit_by_bit,
							    say_yes_late };
	struct afdt_error_t err;
	struct server server;

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(runs); i++) {
		for (int timed = 0; timed < 2; timed++) {
			int fd = 1000;

			server_open(&server, runs[i]);
			assert_int_equal(
				ask(server.path, 508, timed ? check_ms(5000) : -1, &fd, &err), 0);
			assert_true(same_file(fd, server.file));
			close(fd);
			/* The request came as the specification says. */
			pthread_join(server.thread, NULL);
			assert_int_equal(server.got.len, 9);
			assert_memory_equal(server.got.bytes, "\5\0\0\0hello", 9);
			CHECK(pthread_create(&server.thread, NULL, serve, &server) == 0);
			close(peer_connect(server.path));
			server_close(&server);
		}
	}
}

/* -- what else may happen ---------------------------------------------------------------------- */

static void say_nothing(int sock, int file)
{
	char byte;

	(void)file;
	/* Until the client gives up. */
	(void)recv(sock, &byte, 1, 0);
}

static void hang_up(int sock, int file)
{
	(void)sock;
	(void)file;
}

static void hang_up_within(int sock, int file)
{
	peer_send(sock, "\3\0\0\0ye", 6, &file, 1);
}

static void say_too_much(int sock, int file)
{
	peer_send(sock, "\3\0\0\0yes!", 8, &file, 1);
}

static void announce_too_much(int sock, int file)
{
	peer_send(sock, "\375\1\0\0", 4, &file, 1);
}

static void give_too_much(int sock, int file)
{
	const int files[] = { file, file, file };

	peer_send(sock, "\3\0\0\0yes", 7, files, 3);
}

static void say_it_twice(int sock, int file)
{
	peer_message(sock, "yes", 3, file);
	peer_message(sock, "yes", 3, file);
}

static void failures(void **state)
{
	static const struct {
		void (*run)(int sock, int file);
		uint32_t room;
		int timeout_ms;
		enum afdt_operation operation;
	} rows[] = {
		{ say_nothing, 508, 20, AFDT_TIMEOUT },
		{ say_nothing, 508, 0, AFDT_TIMEOUT },
		{ hang_up, 508, -1, AFDT_RECVMSG },
		{ hang_up_within, 508, -1, AFDT_FORMAT },
		{ say_too_much, 508, -1, AFDT_FORMAT },
		{ announce_too_much, 508, -1, AFDT_FORMAT },
		{ give_too_much, 508, -1, AFDT_FORMAT },
		{ say_yes, 2, -1, AFDT_FORMAT },
	};
	struct afdt_error_t err;
	struct server server;
	int fd, before;

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(rows); i++) {
		server_open(&server, rows[i].run);
		before = fds_count();
		assert_int_equal(ask(server.path, rows[i].room, rows[i].timeout_ms, &fd, &err), -1);
		CHECK(errno == 0);
		assert_int_equal(err.phase, AFDT_HANDLE_RESPONSE);
		assert_string_equal(afdt_operation_str(err.operation),
				    afdt_operation_str(rows[i].operation));
		pthread_join(server.thread, NULL);
		CHECK(pthread_create(&server.thread, NULL, serve, &server) == 0);
		close(peer_connect(server.path));
		pthread_join(server.thread, NULL);
		assert_int_equal(fds_count(), before);
		CHECK(pthread_create(&server.thread, NULL, serve, &server) == 0);
		close(peer_connect(server.path));
		server_close(&server);
	}
}

/*
 * What comes after a whole answer is either seen, and an error, or not seen; nothing is left open.
 */
static void twice(void **state)
{
	struct afdt_error_t err;
	struct server server;
	int fd;

	(void)state;
	server_open(&server, say_it_twice);
	if (ask(server.path, 508, -1, &fd, &err) == 0)
		close(fd);
	else
		assert_int_equal(err.operation, AFDT_FORMAT);
	server_close(&server);
}

static void nobody_there(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	char too_long[200];
	int fd, listener;

	(void)state;
	assert_int_equal(ask(path_of("s"), 508, -1, &fd, &err), -1);
	CHECK_ERR(err, AFDT_CREATE_CLIENT, AFDT_CONNECT, ENOENT);
	listener = peer_listen(path_of("s"));
	close(listener);
	assert_int_equal(ask(path_of("s"), 508, -1, &fd, &err), -1);
	CHECK_ERR(err, AFDT_CREATE_CLIENT, AFDT_CONNECT, ECONNREFUSED);
	CHECK_OK(unlink(path_of("s")));
	memset(too_long, 'x', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = 0;
	assert_int_equal(ask(too_long, 508, -1, &fd, &err), -1);
	CHECK_ERR(err, AFDT_CREATE_CLIENT, AFDT_PATHNAME, ENAMETOOLONG);
}

static void too_long_a_request(void **state)
{
	static const uint8_t request[AFDT_MSGLEN + 1];
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	uint32_t len = 0;
	int fd, listener;

	(void)state;
	listener = peer_listen(path_of("s"));
	assert_int_equal(afdt_sync_client(path_of("s"), request, sizeof(request), NULL, &len, &fd,
					  NULL, &err),
			 -1);
	CHECK_ERR(err, AFDT_CREATE_CLIENT, AFDT_FORMAT, 0);
	close(listener);
	CHECK_OK(unlink(path_of("s")));
}

/* A backlog that is full holds nobody longer than the time limit; and it may become free. */
static void full_backlog(void **state)
{
	struct afdt_error_t err;
	int listener, waiting[8], n = 0, fd;
	uint64_t begin;

	(void)state;
	listener = peer_listen(path_of("s"));
	CHECK_OK(listen(listener, 0));
	waiting[n++] = peer_connect(path_of("s"));
	begin = aph_time_ns();
	assert_int_equal(ask(path_of("s"), 508, 30, &fd, &err), -1);
	CHECK_ERR(err, AFDT_CREATE_CLIENT, AFDT_TIMEOUT, 0);
	assert_true(aph_time_ns() - begin >= 29000000);
	while (n)
		close(waiting[--n]);
	close(listener);
	CHECK_OK(unlink(path_of("s")));
}

static void *accept_all_late(void *arg)
{
	const struct timespec nap = { .tv_nsec = 20000000 };
	int listener = *(int *)arg, sock;
	struct peer_got got = { 0 };

	nanosleep(&nap, NULL);
	close(peer_accept(listener));
	sock = peer_accept(listener);
	CHECK(peer_receive(sock, &got));
	peer_message(sock, "yes", 3, -1);
	close(sock);
	return NULL;
}

static void backlog_becomes_free(void **state)
{
	struct afdt_error_t err;
	int listener, first, fd;
	pthread_t thread;

	(void)state;
	listener = peer_listen(path_of("s"));
	CHECK_OK(listen(listener, 0));
	first = peer_connect(path_of("s"));
	CHECK(pthread_create(&thread, NULL, accept_all_late, &listener) == 0);
	assert_int_equal(ask(path_of("s"), 508, check_ms(5000), &fd, &err), 0);
	assert_int_equal(fd, -1);
	CHECK(pthread_join(thread, NULL) == 0);
	close(first);
	close(listener);
	CHECK_OK(unlink(path_of("s")));
}

static void no_descriptors_left(void **state)
{
	struct rlimit before, limit;
	struct afdt_error_t err;
	int fd;

	(void)state;
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
	limit = before;
	limit.rlim_cur = 0;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	assert_int_equal(ask(path_of("s"), 508, -1, &fd, &err), -1);
	CHECK_ERR(err, AFDT_CREATE_CLIENT, AFDT_SOCKET, EMFILE);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
}

/* -- against our own server, from several threads ---------------------------------------------- */

struct loop {
	struct event_base *base;
	struct told told;
	pthread_t thread;
	_Atomic int n_done;
};

static void tick(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;

	(void)fd;
	(void)what;
	if (loop->n_done == N_THREADS)
		event_base_loopbreak(loop->base);
}

static void *dispatch(void *arg)
{
	const struct timeval period = { .tv_usec = 2000 };
	struct loop *loop = arg;
	struct event *timer = event_new(loop->base, -1, EV_PERSIST, tick, loop);

	event_add(timer, &period);
	CHECK(event_base_dispatch(loop->base) >= 0);
	event_free(timer);
	return NULL;
}

static void *call_often(void *arg)
{
	struct loop *loop = arg;

	for (int i = 0; i < N_CALLS; i++) {
		struct afdt_error_t err;
		int fd;

		CHECK(ask(path_of("s"), 508, check_ms(10000), &fd, &err) == 0);
		CHECK(fd >= 0);
		close(fd);
	}
	loop->n_done++;
	return NULL;
}

static void from_threads(void **state)
{
	struct loop loop = { .base = event_base_new() };
	pthread_t threads[N_THREADS];
	void *server;

	(void)state;
	told_init(&loop.told);
	loop.told.answer = "yes";
	loop.told.answer_len = 3;
	loop.told.give = some_file();
	assert_int_equal(afdt_create_server(path_of("s"), loop.base, on_request, on_post, on_error,
					    &server, &loop.told),
			 0);
	CHECK(pthread_create(&loop.thread, NULL, dispatch, &loop) == 0);
	for (int i = 0; i < N_THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, call_often, &loop) == 0);
	for (int i = 0; i < N_THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	CHECK(pthread_join(loop.thread, NULL) == 0);
	assert_int_equal(loop.told.requests, N_THREADS * N_CALLS);
	assert_int_equal(loop.told.posts, N_THREADS * N_CALLS);
	assert_int_equal(loop.told.errors, 0);
	assert_int_equal(afdt_close_server(server), 0);
	CHECK_OK(unlink(path_of("s")));
	close(loop.told.give);
	event_base_free(loop.base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(answered),
		SUITE_TEST(failures),
		SUITE_TEST(twice),
		SUITE_TEST(nobody_there),
		SUITE_TEST(too_long_a_request),
		SUITE_TEST(full_backlog),
		SUITE_TEST(backlog_becomes_free),
		SUITE_TEST(no_descriptors_left),
		SUITE_TEST(from_threads),
	};

	return suite_run("afdt sync", tests, SUITE_LEN(tests), 60);
}
