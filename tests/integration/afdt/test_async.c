/* SPDX-License-Identifier: MIT */
/* The asynchronous interface on libevent, both roles, against a peer that may do anything. */
#include "fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

static struct event_base *base;
static struct told server_told, client_told;
static void *server;

static void open_server(void)
{
	base = event_base_new();
	told_init(&server_told);
	told_init(&client_told);
	server_told.answer = "yes";
	server_told.answer_len = 3;
	assert_int_equal(afdt_create_server(path_of("s"), base, on_request, on_post, on_error,
					    &server, &server_told),
			 0);
}

static void close_server(void)
{
	if (server)
		assert_int_equal(afdt_close_server(server), 0);
	server = NULL;
	(void)unlink(path_of("s"));
	event_base_free(base);
}

static int create_client(const char *request, int timeout_ms)
{
	const struct timeval timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };

	return afdt_create_client(path_of("s"), base, (const uint8_t *)request,
				  (uint32_t)strlen(request), on_response, on_error,
				  timeout_ms < 0 ? NULL : &timeout, &client_told);
}

static void both_roles(void **state)
{
	(void)state;
	open_server();
	server_told.give = some_file();
	for (int i = 1; i < 20; i++) {
		assert_int_equal(create_client("hello", i % 2 ? -1 : 5000), 0);
		run_until(base, &client_told.responses, i);
		assert_int_equal(server_told.requests, i);
		assert_int_equal(server_told.posts, i);
		assert_int_equal(server_told.len, 5);
		assert_memory_equal(server_told.body, "hello", 5);
		assert_int_equal(client_told.len, 3);
		assert_memory_equal(client_told.body, "yes", 3);
		assert_true(same_file(client_told.fd, server_told.give));
		assert_true(fcntl(client_told.fd, F_GETFD) & FD_CLOEXEC);
		close(client_told.fd);
	}
	assert_int_equal(server_told.errors + client_told.errors, 0);
	close(server_told.give);
	close_server();
}

/* The descriptor that was given away may be closed by the post handler. */
static void given_away(void **state)
{
	int copy;

	(void)state;
	open_server();
	server_told.give = some_file();
	copy = dup(server_told.give);
	server_told.close_given = true;
	assert_int_equal(create_client("", 5000), 0);
	run_until(base, &client_told.responses, 1);
	assert_int_equal(fcntl(server_told.give, F_GETFD) < 0 || server_told.give == client_told.fd,
			 1);
	assert_true(same_file(client_told.fd, copy));
	close(client_told.fd);
	close(copy);
	close_server();
}

static void without_a_descriptor(void **state)
{
	(void)state;
	open_server();
	server_told.answer_len = 0;
	assert_int_equal(create_client("", -1), 0);
	run_until(base, &client_told.responses, 1);
	assert_int_equal(client_told.fd, -1);
	assert_int_equal(client_told.len, 0);
	assert_int_equal(server_told.posts, 1);
	assert_int_equal(server_told.fd, -1);
	afdt_no_post(NULL, 0, NULL, 0, -1, NULL);
	close_server();
}

/*
 * A thousand clients at a time, and the server is closed while they wait: they are served all the
 * same.
 */
static void many(void **state)
{
	enum {
		N = 200
	};
	struct peer_got got = { 0 };
	int socks[N];

	(void)state;
	open_server();
	for (int i = 0; i < N; i++)
		socks[i] = peer_connect(path_of("s"));
	run_ready(base);
	run_ready(base);
	run_ready(base);
	run_ready(base);
	assert_int_equal(afdt_close_server(server), 0);
	server = NULL;
	for (int i = N - 1; i >= 0; i--) {
		peer_message_split(socks[i], "ab", 2, -1);
		run_until(base, &server_told.posts, N - i);
		assert_true(peer_receive(socks[i], &got));
		assert_memory_equal(got.bytes, "\3\0\0\0yes", 7);
		assert_true(peer_hung_up(socks[i]));
		close(socks[i]);
	}
	assert_int_equal(server_told.errors, 0);
	close_server();
}

/* In any pieces, with the loop running in between. */
static void split_requests(void **state)
{
	static const char bytes[] = "\5\0\0\0hello";
	struct peer_got got = { 0 };
	int n = 0;

	(void)state;
	open_server();
	server_told.give = some_file();
	for (size_t cut = 1; cut < 9; cut++) {
		int sock = peer_connect(path_of("s"));

		peer_send(sock, bytes, cut, NULL, 0);
		run_ready(base);
		run_ready(base);
		assert_int_equal(server_told.requests, n);
		peer_send(sock, bytes + cut, 9 - cut, NULL, 0);
		run_until(base, &server_told.requests, ++n);
		assert_true(peer_receive(sock, &got));
		assert_int_equal(got.n_fds, 1);
		close(sock);
	}
	peer_drop(&got);
	assert_int_equal(server_told.errors, 0);
	close(server_told.give);
	close_server();
}

/* -- a client that does what it should not ----------------------------------------------------- */

static void bad_requests(void **state)
{
	static const struct {
		const char *bytes;
		size_t len, n_fds;
		enum afdt_operation operation;
	} rows[] = {
		{ "", 0, 0, AFDT_RECVMSG },
		{ "\3", 1, 0, AFDT_FORMAT },
		{ "\3\0\0\0ab", 6, 1, AFDT_FORMAT },
		{ "\375\1\0\0", 4, 0, AFDT_FORMAT },
		{ "\377\377\377\377", 4, 2, AFDT_FORMAT },
		{ "\2\0\0\0abc", 7, 0, AFDT_FORMAT },
		{ "\2\0\0\0ab", 6, 1, AFDT_FORMAT },
		{ "\2\0\0\0ab", 6, 2, AFDT_FORMAT },
		{ "\2\0\0\0ab", 6, 253, AFDT_FORMAT },
		{ "\2\0\1\200ab", 6, 1, AFDT_FORMAT }, /* ours, but not to this server */
	};
	int file = some_file(), files[APH_AFDT_FDS_MAX];

	(void)state;
	for (size_t i = 0; i < APH_AFDT_FDS_MAX; i++)
		files[i] = file;
	open_server();
	for (size_t i = 0; i < SUITE_LEN(rows); i++) {
		int before = fds_count(), sock = peer_connect(path_of("s"));

		if (rows[i].len)
			peer_send(sock, rows[i].bytes, rows[i].len, files, rows[i].n_fds);
		if (i % 2)
			run_ready(base);
		shutdown(sock, SHUT_WR);
		run_until(base, &server_told.errors, 1);
		check_told(&server_told, AFDT_HANDLE_REQUEST, rows[i].operation, 0);
		assert_true(peer_hung_up(sock));
		close(sock);
		assert_int_equal(fds_count(), before);
	}
	assert_int_equal(server_told.requests, 0);
	/* And the next one is served. */
	assert_int_equal(create_client("", 5000), 0);
	run_until(base, &client_told.responses, 1);
	close(file);
	close_server();
}

/* A descriptor that is of no use here is not kept until the rest of the request comes. */
static void half_with_a_descriptor(void **state)
{
	int file = some_file(), before, sock;

	(void)state;
	open_server();
	before = fds_count();
	sock = peer_connect(path_of("s"));
	peer_send(sock, "\1", 1, &file, 1);
	run_until(base, &server_told.errors, 1);
	check_told(&server_told, AFDT_HANDLE_REQUEST, AFDT_FORMAT, 0);
	assert_true(peer_hung_up(sock));
	close(sock);
	assert_int_equal(fds_count(), before);
	close(file);
	close_server();
}

/* Whoever says nothing holds up nobody. */
static void silent(void **state)
{
	int sock;

	(void)state;
	open_server();
	sock = peer_connect(path_of("s"));
	run_ready(base);
	assert_int_equal(create_client("", 5000), 0);
	run_until(base, &client_told.responses, 1);
	close(sock);
	run_until(base, &server_told.errors, 1);
	check_told(&server_told, AFDT_HANDLE_REQUEST, AFDT_RECVMSG, 0);
	close_server();
}

static void bad_answers(void **state)
{
	(void)state;
	open_server();
	server_told.give = 4000;
	assert_int_equal(create_client("", 5000), 0);
	run_until(base, &client_told.errors, 1);
	check_told(&server_told, AFDT_HANDLE_REQUEST, AFDT_SENDMSG, EBADF);
	check_told(&client_told, AFDT_HANDLE_RESPONSE, AFDT_RECVMSG, 0);
	server_told.give = -1;
	server_told.answer_len = AFDT_MSGLEN + 1;
	assert_int_equal(create_client("", 5000), 0);
	run_until(base, &client_told.errors, 1);
	check_told(&server_told, AFDT_HANDLE_REQUEST, AFDT_FORMAT, 0);
	check_told(&client_told, AFDT_HANDLE_RESPONSE, AFDT_RECVMSG, 0);
	assert_int_equal(server_told.posts, 0);
	close_server();
}

/* A client that has gone before its answer. */
static void gone_client(void **state)
{
	int sock;

	(void)state;
	open_server();
	server_told.give = some_file();
	sock = peer_connect(path_of("s"));
	peer_message(sock, "x", 1, -1);
	close(sock);
	run_until(base, &server_told.requests, 1);
	check_told(&server_told, AFDT_HANDLE_REQUEST, AFDT_SENDMSG, EPIPE);
	assert_int_equal(server_told.posts, 0);
	close(server_told.give);
	close_server();
}

/* -- a server that does ------------------------------------------------------------------------ */

static void bad_servers(void **state)
{
	static const struct {
		const char *bytes;
		size_t len, n_fds;
		enum afdt_operation operation;
	} rows[] = {
		{ "", 0, 0, AFDT_RECVMSG },
		{ "\3\0", 2, 1, AFDT_FORMAT },
		{ "\3\0\0\0ab", 6, 1, AFDT_FORMAT },
		{ "\375\1\0\0", 4, 1, AFDT_FORMAT },
		{ "\2\0\0\0abc", 7, 1, AFDT_FORMAT },
		{ "\2\0\0\0ab", 6, 2, AFDT_FORMAT },
		{ "\2\0\3\200ab", 6, 3, AFDT_FORMAT },
	};
	int file = some_file(), files[] = { file, file, file }, listener;
	struct peer_got got = { 0 };

	(void)state;
	base = event_base_new();
	told_init(&client_told);
	listener = peer_listen(path_of("s"));
	for (size_t i = 0; i < SUITE_LEN(rows); i++) {
		int before = fds_count(), sock;

		assert_int_equal(create_client("hello", 5000), 0);
		sock = peer_accept(listener);
		assert_true(peer_receive(sock, &got));
		assert_int_equal(got.len, 9);
		if (rows[i].len)
			peer_send(sock, rows[i].bytes, rows[i].len, files, rows[i].n_fds);
		run_ready(base);
		close(sock);
		run_until(base, &client_told.errors, 1);
		check_told(&client_told, AFDT_HANDLE_RESPONSE, rows[i].operation, 0);
		assert_int_equal(fds_count(), before);
	}
	assert_int_equal(client_told.responses, 0);
	close(listener);
	close(file);
	close_server();
}

static void split_response(void **state)
{
	static const char bytes[] = "\5\0\0\0hello";
	int file = some_file(), listener, n = 0;
	struct peer_got got = { 0 };

	(void)state;
	base = event_base_new();
	told_init(&client_told);
	listener = peer_listen(path_of("s"));
	for (size_t cut = 1; cut < 9; cut++) {
		int sock;

		assert_int_equal(create_client("", 5000), 0);
		sock = peer_accept(listener);
		assert_true(peer_receive(sock, &got));
		peer_send(sock, bytes, cut, &file, 1);
		run_ready(base);
		run_ready(base);
		assert_int_equal(client_told.responses, n);
		peer_send(sock, bytes + cut, 9 - cut, NULL, 0);
		run_until(base, &client_told.responses, ++n);
		assert_true(same_file(client_told.fd, file));
		close(client_told.fd);
		close(sock);
	}
	assert_int_equal(client_told.errors, 0);
	close(listener);
	close(file);
	close_server();
}

static void timeouts(void **state)
{
	uint64_t begin = aph_time_ns();
	int listener, sock;

	(void)state;
	base = event_base_new();
	told_init(&client_told);
	listener = peer_listen(path_of("s"));
	assert_int_equal(create_client("", 20), 0);
	run_until(base, &client_told.errors, 1);
	check_told(&client_told, AFDT_HANDLE_RESPONSE, AFDT_TIMEOUT, 0);
	assert_true(aph_time_ns() - begin >= 19000000);
	close(peer_accept(listener));
	/* A part of an answer is none, and does not lengthen the time. */
	assert_int_equal(create_client("", 20), 0);
	sock = peer_accept(listener);
	peer_send(sock, "\3\0\0\0y", 5, NULL, 0);
	run_until(base, &client_told.errors, 1);
	check_told(&client_told, AFDT_HANDLE_RESPONSE, AFDT_TIMEOUT, 0);
	close(sock);
	close(listener);
	close_server();
}

/* The backlog is full: nothing blocks, and when there is room again all goes on. */
static void full_backlog(void **state)
{
	struct peer_got got = { 0 };
	int listener, first, sock;

	(void)state;
	base = event_base_new();
	told_init(&client_told);
	listener = peer_listen(path_of("s"));
	CHECK_OK(listen(listener, 0));
	first = peer_connect(path_of("s"));
	assert_int_equal(create_client("", 10), 0);
	run_until(base, &client_told.errors, 1);
	check_told(&client_told, AFDT_CREATE_CLIENT, AFDT_TIMEOUT, 0);
	assert_int_equal(create_client("", -1), 0);
	run_ready(base);
	close(peer_accept(listener));
	close(first);
	for (int i = 0; i < 1000; i++) {
		struct timeval slice = { .tv_usec = 2000 };

		event_base_loopexit(base, &slice);
		event_base_loop(base, EVLOOP_ONCE);
		sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (sock >= 0)
			break;
		CHECK_OK(fcntl(listener, F_SETFL, O_NONBLOCK));
	}
	assert_true(sock >= 0);
	assert_true(peer_receive(sock, &got));
	peer_message(sock, "yes", 3, -1);
	run_until(base, &client_told.responses, 1);
	assert_int_equal(client_told.errors, 0);
	close(sock);
	close(listener);
	close_server();
}

/* -- what cannot be made ----------------------------------------------------------------------- */

static int create_server(const char *path, struct event_base *where)
{
	void *handle = NULL;
	int r = afdt_create_server(path, where, on_request, on_post, on_error, &handle,
				   &server_told);

	assert_null(handle);
	return r;
}

static void bad_servers_to_create(void **state)
{
	struct rlimit before, limit;
	char too_long[200];
	void *first;

	(void)state;
	open_server();
	first = server;
	memset(too_long, 'x', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = 0;
	assert_int_equal(create_server(path_of("s"), base), -1);
	check_told(&server_told, AFDT_CREATE_SERVER, AFDT_BIND, EADDRINUSE);
	assert_int_equal(create_server(too_long, base), -1);
	check_told(&server_told, AFDT_CREATE_SERVER, AFDT_PATHNAME, ENAMETOOLONG);
	assert_int_equal(create_server(path_of("no/where"), base), -1);
	check_told(&server_told, AFDT_CREATE_SERVER, AFDT_BIND, ENOENT);
	/* Nothing of it is left, not even the file. */
	assert_int_equal(create_server(path_of("t"), NULL), -1);
	check_told(&server_told, AFDT_CREATE_SERVER, AFDT_EVENT_BASE_SET, EINVAL);
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
	limit = before;
	limit.rlim_cur = 0;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	assert_int_equal(create_server(path_of("t"), base), -1);
	check_told(&server_told, AFDT_CREATE_SERVER, AFDT_SOCKET, EMFILE);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
	dir_check_sockets(1);
	assert_int_equal(afdt_close_server(NULL), -1);
	assert_int_equal(errno, EINVAL);
	server = first;
	close_server();
}

static void bad_clients_to_create(void **state)
{
	static uint8_t request[AFDT_MSGLEN + 1];
	int listener;

	(void)state;
	base = event_base_new();
	told_init(&client_told);
	assert_int_equal(create_client("", 10), -1);
	check_told(&client_told, AFDT_CREATE_CLIENT, AFDT_CONNECT, ENOENT);
	listener = peer_listen(path_of("s"));
	assert_int_equal(afdt_create_client(path_of("s"), base, request, sizeof(request),
					    on_response, on_error, NULL, &client_told),
			 -1);
	check_told(&client_told, AFDT_CREATE_CLIENT, AFDT_FORMAT, 0);
	assert_int_equal(afdt_create_client(path_of("s"), NULL, request, 1, on_response, on_error,
					    NULL, &client_told),
			 -1);
	check_told(&client_told, AFDT_CREATE_CLIENT, AFDT_EVENT_BASE_SET, EINVAL);
	close(listener);
	assert_int_equal(create_client("", 10), -1);
	check_told(&client_told, AFDT_CREATE_CLIENT, AFDT_CONNECT, ECONNREFUSED);
	assert_int_equal(afdt_create_client("", base, request, 1, on_response, on_error, NULL,
					    &client_told),
			 -1);
	check_told(&client_told, AFDT_CREATE_CLIENT, AFDT_PATHNAME, ENOENT);
	close_server();
}

static void permissions(void **state)
{
	(void)state;
	if (geteuid() != 0)
		suite_skip("needs root to become somebody else");
	base = event_base_new();
	told_init(&server_told);
	told_init(&client_told);
	CHECK_OK(mkdir(path_of("d"), 0755));
	close(peer_listen(path_of("s")));
	CHECK_OK(chmod(path_of("s"), 0700));
	CHECK_OK(seteuid(54321));
	assert_int_equal(create_server(path_of("d/s"), base), -1);
	check_told(&server_told, AFDT_CREATE_SERVER, AFDT_BIND, EACCES);
	assert_int_equal(create_client("", 10), -1);
	check_told(&client_told, AFDT_CREATE_CLIENT, AFDT_CONNECT, EACCES);
	CHECK_OK(seteuid(0));
	CHECK_OK(rmdir(path_of("d")));
	close_server();
}

/* No descriptor for the one who connects: one error, a pause, and then it is served. */
static void accept_fails(void **state)
{
	struct rlimit before, limit;
	int sock;

	(void)state;
	open_server();
	sock = peer_connect(path_of("s"));
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
	limit = before;
	limit.rlim_cur = (rlim_t)sock;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	run_ready(base);
	run_ready(base);
	run_ready(base);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
	check_told(&server_told, AFDT_ACCEPT_CLIENT, AFDT_ACCEPT, EMFILE);
	peer_message(sock, "", 0, -1);
	run_until(base, &server_told.posts, 1);
	assert_int_equal(server_told.errors, 0);
	close(sock);
	close_server();
}

/* -- handlers that do everything --------------------------------------------------------------- */

static int close_and_answer(const uint8_t *request, uint32_t len, uint8_t *response,
			    uint32_t *response_len, void *data)
{
	int r = on_request(request, len, response, response_len, data);

	assert_int_equal(afdt_close_server(server), 0);
	server = NULL;
	CHECK_OK(unlink(path_of("s")));
	return r;
}

static void closed_by_its_handler(void **state)
{
	int first, second;
	struct peer_got got = { 0 };

	(void)state;
	base = event_base_new();
	told_init(&server_told);
	assert_int_equal(afdt_create_server(path_of("s"), base, close_and_answer, on_post, on_error,
					    &server, &server_told),
			 0);
	first = peer_connect(path_of("s"));
	second = peer_connect(path_of("s"));
	peer_message(first, "", 0, -1);
	run_until(base, &server_told.posts, 1);
	assert_true(peer_receive(first, &got));
	assert_int_equal(server_told.requests, 1);
	/* It was never accepted. */
	assert_true(peer_hung_up(second));
	close(first);
	close(second);
	close_server();
}

static void ask_again(const uint8_t *response, uint32_t len, int fd, void *data)
{
	on_response(response, len, fd, data);
	if (client_told.responses < 5)
		assert_int_equal(create_client("again", 5000), 0);
}

static void asked_by_a_handler(void **state)
{
	(void)state;
	open_server();
	assert_int_equal(afdt_create_client(path_of("s"), base, NULL, 0, ask_again, on_error, NULL,
					    &client_told),
			 0);
	run_until(base, &client_told.responses, 2);
	assert_int_equal(client_told.errors + server_told.errors, 0);
	close_server();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(both_roles),
		SUITE_TEST(given_away),
		SUITE_TEST(without_a_descriptor),
		SUITE_TEST(many),
		SUITE_TEST(split_requests),
		SUITE_TEST(bad_requests),
		SUITE_TEST(half_with_a_descriptor),
		SUITE_TEST(silent),
		SUITE_TEST(bad_answers),
		SUITE_TEST(gone_client),
		SUITE_TEST(bad_servers),
		SUITE_TEST(split_response),
		SUITE_TEST(timeouts),
		SUITE_TEST(full_backlog),
		SUITE_TEST(bad_servers_to_create),
		SUITE_TEST(bad_clients_to_create),
		SUITE_TEST(permissions),
		SUITE_TEST(accept_fails),
		SUITE_TEST(closed_by_its_handler),
		SUITE_TEST(asked_by_a_handler),
	};

	return suite_run("afdt async", tests, SUITE_LEN(tests), 60);
}
