/* SPDX-License-Identifier: MIT */
/*
 * What the library of 2009 did not have. Everything is tried on libevent and on an endpoint of its
 * own, of which the descriptor is all that the loop here looks at.
 */
#include "rig.h"

#include "fuse.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

/* -- answers that come later ------------------------------------------------------------------- */

static void later(void **state)
{
	struct aph_afdt_request *first, *second;
	struct peer_got got = { 0 };
	int a, b, file = some_file();
	const struct aph_afdt_message answer = { "a", 1, &file, 1 };

	(void)state;
	open_endpoint();
	open_server();
	a = peer_connect(path_of("s"));
	b = peer_connect(path_of("s"));
	peer_message(a, "1", 1, -1);
	turn_until(&server_told.requests, 1);
	first = held;
	peer_message_split(b, "2", 1, -1);
	turn_until(&server_told.requests, 2);
	second = held;
	assert_null(aph_afdt_request_data(second));
	aph_afdt_request_set_data(second, &file);
	assert_ptr_equal(aph_afdt_request_data(second), &file);
	/* An original client takes one descriptor. */
	assert_int_equal(aph_afdt_request_fds_max(first), 1);
	turn(0);
	/* The second is answered first, and after the server was closed. */
	server = aph_afdt_server_close(server);
	assert_int_equal(aph_afdt_request_reply(second, &answer), 0);
	close(file);
	assert_true(peer_receive(b, &got));
	assert_memory_equal(got.bytes, "\1\0\0\0a", 5);
	assert_int_equal(got.n_fds, 1);
	peer_drop(&got);
	assert_int_equal(aph_afdt_request_reply(first, NULL), 0);
	assert_true(peer_receive(a, &got));
	assert_int_equal(got.len, 4);
	assert_true(peer_hung_up(a) && peer_hung_up(b));
	close(a);
	close(b);
	assert_int_equal(server_told.errors + n_gone, 0);
	close_all();
}

static void gone_meanwhile(void **state)
{
	int sock;

	(void)state;
	open_endpoint();
	open_server();
	sock = peer_connect(path_of("s"));
	peer_message(sock, "1", 1, -1);
	turn_until(&server_told.requests, 1);
	/* Half closed is not gone. */
	shutdown(sock, SHUT_WR);
	turn(0);
	turn(0);
	assert_int_equal(n_gone, 0);
	assert_int_equal(aph_afdt_request_reply(held, &yes), 0);
	close(sock);

	sock = peer_connect(path_of("s"));
	peer_message(sock, "1", 1, -1);
	turn_until(&server_told.requests, 2);
	close(sock);
	turn_until(&n_gone, 1);
	assert_int_equal(aph_afdt_request_reply(held, &yes), -ECANCELED);
	aph_afdt_request_free(held);

	/* Nobody has looked: the answer itself finds out. */
	sock = peer_connect(path_of("s"));
	peer_message(sock, "1", 1, -1);
	turn_until(&server_told.requests, 3);
	close(sock);
	assert_int_equal(aph_afdt_request_reply(held, &yes), -ECANCELED);
	aph_afdt_request_free(held);

	/* Gone in two steps. */
	sock = peer_connect(path_of("s"));
	peer_message(sock, "1", 1, -1);
	turn_until(&server_told.requests, 4);
	shutdown(sock, SHUT_WR);
	turn(0);
	turn(0);
	assert_int_equal(n_gone, 1);
	close(sock);
	turn_until(&n_gone, 2);
	aph_afdt_request_free(held);

	/* More than was asked for. */
	sock = peer_connect(path_of("s"));
	peer_message(sock, "1", 1, -1);
	turn_until(&server_told.requests, 5);
	peer_message(sock, "1", 1, -1);
	turn_until(&n_gone, 3);
	aph_afdt_request_free(held);
	assert_true(peer_hung_up(sock));
	close(sock);
	assert_int_equal(server_told.errors, 0);
	close_all();
}

static void not_answered(void **state)
{
	int sock;

	(void)state;
	open_endpoint();
	open_server();
	sock = peer_connect(path_of("s"));
	peer_message(sock, "1", 1, -1);
	turn_until(&server_told.requests, 1);
	assert_null(aph_afdt_request_free(held));
	assert_true(peer_hung_up(sock));
	close(sock);
	/* What is left when the endpoint is freed is freed with it. */
	sock = peer_connect(path_of("s"));
	peer_message(sock, "1", 1, -1);
	turn_until(&server_told.requests, 2);
	close(peer_connect(path_of("s")));
	ask("x", NULL, 0, -1);
	server = NULL;
	close_all();
	assert_true(peer_hung_up(sock));
	close(sock);
}

static void bad_replies(void **state)
{
	static const char body[AFDT_MSGLEN + 1];
	int sock, bad = 4000, files[] = { 0, 1 };
	struct peer_got got = { 0 };

	(void)state;
	open_endpoint();
	open_server();
	sock = peer_connect(path_of("s"));
	peer_message(sock, "1", 1, -1);
	turn_until(&server_told.requests, 1);
	assert_int_equal(aph_afdt_request_reply(
				 held, &(struct aph_afdt_message){ body, sizeof(body), NULL, 0 }),
			 -EMSGSIZE);
	assert_int_equal(aph_afdt_request_reply(held, &(struct aph_afdt_message){ "", 0, &bad, 1 }),
			 -EBADF);
	assert_int_equal(aph_afdt_request_reply(held,
						&(struct aph_afdt_message){ "", 0, files, 2 }),
			 -EOPNOTSUPP);
	/* It is still there to be answered well. */
	assert_int_equal(aph_afdt_request_reply(held, &yes), 0);
	assert_true(peer_receive(sock, &got));
	assert_memory_equal(got.bytes, "\3\0\0\0yes", 7);
	close(sock);
	close_all();
}

/* -- who asks ---------------------------------------------------------------------------------- */

static int call_from_child(int ctl, void *arg)
{
	struct aph_afdt_room room = { 0 };

	(void)ctl;
	(void)arg;
	return aph_afdt_call(path_of("s"), NULL, &room, aph_deadline_ms(5000), NULL) != 0;
}

static void credentials(void **state)
{
	const struct aph_credentials *peer;
	struct pollfd poller = { .events = POLLIN };
	struct child child;
	gid_t groups[64];
	int n_groups;

	(void)state;
	open_endpoint();
	open_server();
	child_start(&child, call_from_child, NULL);
	turn_until(&server_told.requests, 1);
	assert_int_equal(aph_afdt_request_credentials(held, &peer), 0);
	assert_int_equal(peer->pid, child.pid);
	assert_int_equal(peer->uid, geteuid());
	assert_int_equal(peer->euid, geteuid());
	assert_int_equal(peer->gid, getegid());
	assert_non_null(peer->label);
	n_groups = getgroups(64, groups);
	assert_int_equal(peer->n_groups, n_groups);
	assert_true(n_groups <= 0 ||
		    memcmp(peer->groups, groups, (size_t)n_groups * sizeof(gid_t)) == 0);
	poller.fd = aph_afdt_request_pidfd(held);
	assert_true(poller.fd >= 0);
	assert_int_equal(poll(&poller, 1, 0), 0);
	assert_int_equal(aph_afdt_request_reply(held, NULL), 0);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	assert_int_equal(poll(&poller, 1, 0), 1);
	close(poller.fd);
	close_all();
}

/* -- several descriptors ----------------------------------------------------------------------- */

static void several(void **state)
{
	static const size_t counts[] = { 0, 1, 2, 16, 253 };
	int files[APH_AFDT_FDS_MAX], taken[APH_AFDT_FDS_MAX], n = 0;

	(void)state;
	open_endpoint();
	open_server();
	for (size_t i = 0; i < APH_AFDT_FDS_MAX; i++)
		files[i] = i < 3 ? some_file() : files[i % 3];
	for (size_t i = 0; i < SUITE_LEN(counts); i++) {
		struct aph_afdt_message answer = { "there", 5, files, counts[i] };

		ask("here", files, counts[i], 5000);
		turn_until(&server_told.requests, ++n);
		assert_memory_equal(server_told.body, "here", 4);
		assert_int_equal(aph_afdt_request_fds_max(held), APH_AFDT_FDS_MAX);
		/* In two portions; what is not taken is closed. */
		assert_int_equal(aph_afdt_request_take_fds(held, taken, 1), counts[i] > 0);
		if (counts[i] > 1) {
			assert_int_equal(aph_afdt_request_take_fds(held, taken + 1, 1), 1);
			assert_true(same_file(taken[0], files[0]));
			assert_true(same_file(taken[1], files[1]));
			close(taken[1]);
		}
		if (counts[i])
			close(taken[0]);
		assert_int_equal(aph_afdt_request_reply(held, &answer), 0);
		turn_until(&client_told.responses, n);
		assert_memory_equal(client_told.body, "there", 5);
		assert_int_equal(n_got_fds, counts[i]);
		for (size_t k = 0; k < n_got_fds; k++) {
			assert_true(same_file(got_fds[k], files[k]));
			close(got_fds[k]);
		}
	}
	assert_int_equal(server_told.errors + client_told.errors, 0);
	for (size_t i = 0; i < 3; i++)
		close(files[i]);
	close_all();
}

/*
 * To a server that does not understand them descriptors are not sent, nor anything else that is
 * new.
 */
static void several_to_an_original(void **state)
{
	int listener, sock, file = some_file();
	const struct aph_afdt_message with = { "x", 1, &file, 1 }, without = { "x", 1, NULL, 0 };
	const struct aph_afdt_client_options how = {
		.size = sizeof(how),
		.response = on_message,
		.error = on_error,
		.data = &client_told,
		.deadline_ns = APH_FOREVER,
	};
	struct aph_afdt_client *client;
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct peer_got got = { 0 };

	(void)state;
	open_endpoint();
	listener = peer_listen(path_of("s"));
	assert_int_equal(aph_afdt_client_open(&client, ep, path_of("s"), &with, &how, &err),
			 -EOPNOTSUPP);
	CHECK_ERR(err, AFDT_CREATE_CLIENT, AFDT_CONNECT, EOPNOTSUPP);
	sock = peer_accept(listener);
	assert_true(peer_hung_up(sock));
	close(sock);
	assert_int_equal(aph_afdt_call(path_of("s"), &with, NULL, APH_FOREVER, &err), -EOPNOTSUPP);
	CHECK_ERR(err, AFDT_CREATE_CLIENT, AFDT_CONNECT, EOPNOTSUPP);
	close(peer_accept(listener));
	assert_int_equal(aph_afdt_client_open(&client, ep, path_of("s"), &without, &how, &err), 0);
	sock = peer_accept(listener);
	assert_true(peer_receive(sock, &got));
	assert_int_equal(got.len, 5);
	assert_memory_equal(got.bytes, "\1\0\0\0x", 5);
	peer_message(sock, "yes", 3, file);
	turn_until(&client_told.responses, 1);
	assert_int_equal(n_got_fds, 1);
	close(got_fds[0]);
	close(sock);
	close(listener);
	close(file);
	close_all();
}

/* The same server takes requests of the historical clients as they always were. */
static void original_clients(void **state)
{
	struct peer_got got = { 0 };
	int sock;

	(void)state;
	open_endpoint();
	open_server();
	sock = peer_connect(path_of("s"));
	assert_int_equal(aph_afdt_fds_max(sock), APH_AFDT_FDS_MAX);
	peer_message(sock, "x", 1, -1);
	turn_until(&server_told.requests, 1);
	assert_int_equal(aph_afdt_request_reply(held, &yes), 0);
	assert_true(peer_receive(sock, &got));
	assert_memory_equal(got.bytes, "\3\0\0\0yes", 7);
	close(sock);
	/* What is wrong is wrong here, too. */
	sock = peer_connect(path_of("s"));
	peer_send(sock, "\1\0\2\200x", 5, (int[]){ 0 }, 1);
	turn_until(&server_told.errors, 1);
	check_told(&server_told, AFDT_HANDLE_REQUEST, AFDT_FORMAT, 0);
	close(sock);
	close_all();
}

/* -- clients ----------------------------------------------------------------------------------- */

static void clients(void **state)
{
	struct aph_afdt_client *client;

	(void)state;
	open_endpoint();
	open_server();
	/* In time. */
	client = ask("x", NULL, 0, check_ms(15));
	turn_until(&client_told.errors, 1);
	check_told(&client_told, AFDT_HANDLE_RESPONSE, AFDT_TIMEOUT, 0);
	turn_until(&n_gone, 1);
	aph_afdt_request_free(held);
	/* Given up: nobody is told. */
	client = ask("x", NULL, 0, 5000);
	turn_until(&server_told.requests, 2);
	assert_null(aph_afdt_client_close(client));
	turn_until(&n_gone, 2);
	aph_afdt_request_free(held);
	assert_int_equal(client_told.responses + client_told.errors, 0);
	close_all();
}

/*
 * A descriptor that nobody takes is closed at once, however long its sender would like that to
 * take.
 */
static void lingering(void **state)
{
	const struct linger linger = { .l_onoff = 1, .l_linger = 5 };
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);
	int listener = (int)CHECK_OK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), sent, sock;
	char bytes[4096] = { 0 };
	uint64_t begin;

	(void)state;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK_OK(bind(listener, (struct sockaddr *)&address, len));
	CHECK_OK(listen(listener, 1));
	CHECK_OK(getsockname(listener, (struct sockaddr *)&address, &len));
	sent = (int)CHECK_OK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	CHECK_OK(connect(sent, (struct sockaddr *)&address, len));
	while (send(sent, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		continue;
	CHECK_OK(setsockopt(sent, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	open_endpoint();
	open_server();
	sock = peer_connect(path_of("s"));
	peer_message(sock, "x", 1, sent);
	close(sent);
	turn_until(&server_told.requests, 1);
	begin = aph_time_ns();
	aph_afdt_request_free(held);
	assert_true(aph_time_ns() - begin < UINT64_C(2000000000));
	close(sock);
	close(listener);
	close_all();
}

/* The same with a file whose server does not let anybody close it. */
static void cannot_be_closed(void **state)
{
	struct fuse_file file;
	uint64_t begin;
	int sock;

	(void)state;
	if (fuse_begin(&file) < 0)
		suite_skip("FUSE cannot be mounted here");
	open_endpoint();
	open_server();
	sock = peer_connect(path_of("s"));
	peer_message(sock, "x", 1, file.fd);
	turn_until(&server_told.requests, 1);
	begin = aph_time_ns();
	aph_afdt_request_free(held);
	assert_true(aph_time_ns() - begin < UINT64_C(2000000000));
	fuse_end(&file);
	close(sock);
	close_all();
}

/* The backlog is full: to wait for room in it costs next to nothing. */
static void waiting_to_connect(void **state)
{
	struct aph_afdt_client *client;
	int listener, first, n = 0;
	uint64_t end;

	(void)state;
	open_endpoint();
	listener = peer_listen(path_of("s"));
	CHECK_OK(listen(listener, 0));
	first = peer_connect(path_of("s"));
	client = ask("x", NULL, 0, -1);
	for (end = aph_deadline_ms(100); aph_time_ns() < end; n++)
		turn(20);
	/* It is tried after 1, 2, 4, 8... milliseconds, and this loop turns by itself. */
	assert_in_range(n, 1, 30);
	aph_afdt_client_close(client);
	close(first);
	close(listener);
	close_all();
}

/* -- limits ------------------------------------------------------------------------------------ */

static void request_time(void **state)
{
	int sock;

	(void)state;
	open_endpoint();
	options.request_ms = 15;
	open_server();
	sock = peer_connect(path_of("s"));
	peer_send(sock, "\1\0", 2, NULL, 0);
	turn_until(&server_told.errors, 1);
	check_told(&server_told, AFDT_HANDLE_REQUEST, AFDT_TIMEOUT, 0);
	assert_true(peer_hung_up(sock));
	close(sock);
	close_all();
}

/* Lowers the limit until there is no room for another descriptor. */
static void leave_no_room(struct rlimit *before)
{
	int next = (int)CHECK_OK(dup(0));
	struct rlimit limit;

	close(next);
	CHECK_OK(getrlimit(RLIMIT_NOFILE, before));
	limit = *before;
	limit.rlim_cur = (rlim_t)next;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
}

/* Half a request cannot hold the descriptors that others need. */
static void hoarders(void **state)
{
	int hoarder, other, fds[APH_AFDT_FDS_MAX] = { 0 };
	struct rlimit before;

	(void)state;
	open_endpoint();
	open_server();
	hoarder = peer_connect(path_of("s"));
	peer_send(hoarder, "\0\0", 2, fds, APH_AFDT_FDS_MAX);
	turn(20);
	other = peer_connect(path_of("s"));
	peer_message(other, "x", 1, -1);
	leave_no_room(&before);
	turn_until(&server_told.requests, 1);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
	assert_int_equal(server_told.errors, 1);
	assert_int_equal(server_told.cause, EBUSY);
	assert_true(peer_hung_up(hoarder));
	aph_afdt_request_free(held);
	close(hoarder);
	close(other);
	close_all();
}

/* Those that say nothing make room; those that are being served do not. */
static void crowds(void **state)
{
	struct aph_afdt_request *first, *second;
	int socks[6];

	(void)state;
	open_endpoint();
	options.connections_max = 3;
	open_server();
	for (int i = 0; i < 5; i++) {
		socks[i] = peer_connect(path_of("s"));
		turn(0);
	}
	assert_int_equal(server_told.errors, 2);
	assert_int_equal(server_told.err.operation, AFDT_TIMEOUT);
	assert_int_equal(server_told.cause, EBUSY);
	assert_true(peer_hung_up(socks[0]) && peer_hung_up(socks[1]));
	peer_message(socks[2], "x", 1, -1);
	turn_until(&server_told.requests, 1);
	first = held;
	peer_message(socks[3], "x", 1, -1);
	turn_until(&server_told.requests, 2);
	second = held;
	peer_message(socks[4], "x", 1, -1);
	turn_until(&server_told.requests, 3);
	/* All places are taken by requests that the program has. */
	socks[5] = peer_connect(path_of("s"));
	peer_message(socks[5], "y", 1, -1);
	turn(1);
	turn(1);
	assert_int_equal(server_told.requests, 3);
	assert_int_equal(aph_afdt_request_reply(first, &yes), 0);
	turn_until(&server_told.requests, 4);
	assert_memory_equal(server_told.body, "y", 1);
	aph_afdt_request_free(second);
	for (int i = 0; i < 6; i++)
		close(socks[i]);
	server = NULL;
	close_all();
}

static void modes(void **state)
{
	struct stat st;

	(void)state;
	open_endpoint();
	options.mode = 0666;
	open_server();
	CHECK_OK(stat(path_of("s"), &st));
	assert_int_equal(st.st_mode & 0777, 0666);
	close_all();
}

/* -- what cannot be ---------------------------------------------------------------------------- */

static void reenter(struct aph_afdt_request *request, void *data)
{
	hold(request, data);
	if (!on_libevent)
		assert_int_equal(aph_afdt_endpoint_serve(ep, APH_NOW), -EBUSY);
	assert_int_equal(aph_afdt_request_reply(request, &yes), 0);
	server = aph_afdt_server_close(server);
}

static void misuse(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct aph_afdt_client *client;
	char too_long[200];

	(void)state;
	open_endpoint();
	memset(too_long, 'x', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = 0;
	assert_int_equal(aph_afdt_server_open(&server, ep, too_long, &options, &err),
			 -ENAMETOOLONG);
	CHECK_ERR(err, AFDT_CREATE_SERVER, AFDT_PATHNAME, ENAMETOOLONG);
	options.flags = 0x80;
	assert_int_equal(aph_afdt_server_open(&server, ep, path_of("s"), &options, &err), -EINVAL);
	CHECK_ERR(err, AFDT_CREATE_SERVER, AFDT_NO_OPERATION, EINVAL);
	options.flags = 0;
	options.size = 3;
	assert_int_equal(aph_afdt_server_open(&server, ep, path_of("s"), &options, NULL), -EINVAL);
	assert_int_equal(aph_afdt_server_open(&server, ep, path_of("s"), NULL, NULL), -EINVAL);
	assert_int_equal(aph_afdt_client_open(&client, ep, path_of("s"), NULL, NULL, &err),
			 -EINVAL);
	CHECK_ERR(err, AFDT_CREATE_CLIENT, AFDT_NO_OPERATION, EINVAL);
	options.size = sizeof(options);
	options.request = reenter;
	open_server();
	client = ask("x", NULL, 0, 5000);
	assert_non_null(client);
	turn_until(&client_told.responses, 1);
	if (on_libevent) {
		assert_int_equal(aph_afdt_endpoint_fd(ep), -EOPNOTSUPP);
		assert_int_equal(aph_afdt_endpoint_serve(ep, APH_NOW), -EOPNOTSUPP);
	} else {
		assert_int_equal(aph_afdt_endpoint_serve(ep, APH_NOW), -ETIMEDOUT);
		assert_int_equal(aph_afdt_endpoint_serve(ep, aph_deadline_ms(2)), -ETIMEDOUT);
	}
	assert_null(aph_afdt_endpoint_free(NULL));
	assert_null(aph_afdt_server_close(NULL));
	assert_null(aph_afdt_request_free(NULL));
	assert_null(aph_afdt_client_close(NULL));
	assert_int_equal(aph_afdt_fds_max(4000), 0);
	close_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(later),
		SUITE_TEST(gone_meanwhile),
		SUITE_TEST(not_answered),
		SUITE_TEST(bad_replies),
		SUITE_TEST(credentials),
		SUITE_TEST(several),
		SUITE_TEST(several_to_an_original),
		SUITE_TEST(original_clients),
		SUITE_TEST(clients),
		SUITE_TEST(lingering),
		SUITE_TEST(cannot_be_closed),
		SUITE_TEST(waiting_to_connect),
		SUITE_TEST(request_time),
		SUITE_TEST(hoarders),
		SUITE_TEST(crowds),
		SUITE_TEST(modes),
		SUITE_TEST(misuse),
	};

	return rig_run("afdt additions", tests, SUITE_LEN(tests));
}
