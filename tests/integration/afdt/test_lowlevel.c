/* SPDX-License-Identifier: MIT */
/*
 * The low-level interface: bytes as specified, whatever pieces they come in, and what each failure
 * says.
 */
#include "fixture.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

static uint8_t text[AFDT_MSGLEN];

static void pair_open(int pair[2])
{
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i * 7 + 1);
	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
}

static void pair_close(int pair[2])
{
	close(pair[0]);
	close(pair[1]);
}

static void never_block(int sock)
{
	CHECK_OK(fcntl(sock, F_SETFL, O_NONBLOCK));
}

static void names(void **state)
{
	static const char *const phases[] = { "AFDT_NO_PHASE",
					      "AFDT_CREATE_SERVER",
					      "AFDT_ACCEPT_CLIENT",
					      "AFDT_HANDLE_REQUEST",
					      "AFDT_CREATE_CLIENT",
					      "AFDT_HANDLE_RESPONSE",
					      "UNKNOWN" };
	static const char *const operations[] = {
		"AFDT_NO_OPERATION", "AFDT_MALLOC",  "AFDT_SOCKET",  "AFDT_PATHNAME",
		"AFDT_BIND",	     "AFDT_LISTEN",  "AFDT_ACCEPT",  "AFDT_CONNECT",
		"AFDT_FORMAT",	     "AFDT_SENDMSG", "AFDT_RECVMSG", "AFDT_EVENT_BASE_SET",
		"AFDT_EVENT_ADD",    "AFDT_POLL",    "AFDT_TIMEOUT", "UNKNOWN",
	};
	struct afdt_error_t err = AFDT_ERROR_T_INIT;

	(void)state;
	for (unsigned i = 0; i < SUITE_LEN(phases); i++)
		assert_string_equal(afdt_phase_str((enum afdt_phase)i), phases[i]);
	for (unsigned i = 0; i < SUITE_LEN(operations); i++)
		assert_string_equal(afdt_operation_str((enum afdt_operation)i), operations[i]);
	assert_string_equal(afdt_phase_str((enum afdt_phase) - 1), "UNKNOWN");
	assert_int_equal(err.phase, AFDT_NO_PHASE);
	assert_int_equal(err.operation, AFDT_NO_OPERATION);
	assert_string_equal(err.message, "");
	assert_int_equal(AFDT_MSGLEN, 508);
}

/*
 * The bytes that the specification says, for messages of several lengths, with and without a
 * descriptor.
 */
static void bytes_on_the_wire(void **state)
{
	static const uint32_t lengths[] = { 0, 1, 5, 507, 508 };
	struct peer_got got = { 0 };
	int pair[2], file = some_file();

	(void)state;
	pair_open(pair);
	for (size_t i = 0; i < SUITE_LEN(lengths); i++) {
		for (int with = 0; with < 2; with++) {
			uint32_t len = lengths[i];

			assert_int_equal(with ? afdt_send_fd_msg(pair[0], text, len, file, NULL)
					      : afdt_send_plain_msg(pair[0], text, len, NULL),
					 0);
			assert_true(peer_receive(pair[1], &got));
			assert_int_equal(got.len, 4 + len);
			assert_memory_equal(got.bytes, &len, 4);
			assert_memory_equal(got.bytes + 4, text, len);
			assert_int_equal(got.n_fds, with);
			assert_true(!with || same_file(got.fds[0], file));
			assert_int_equal(recv(pair[1], got.bytes, 1, MSG_DONTWAIT), -1);
		}
	}
	peer_drop(&got);
	close(file);
	pair_close(pair);
}

static void expect(int sock, uint32_t len, int file)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	uint8_t buf[AFDT_MSGLEN];
	uint32_t got = sizeof(buf);
	int fd = 1000;

	assert_int_equal(afdt_recv_fd_msg(sock, buf, &got, &fd, &err), 0);
	assert_int_equal(got, len);
	assert_memory_equal(buf, text, len);
	if (file < 0) {
		assert_int_equal(fd, -1);
		return;
	}
	assert_true(same_file(fd, file));
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

static void pieces(void **state)
{
	static const uint32_t lengths[] = { 0, 1, 5, 100 };
	int pair[2], file = some_file();

	(void)state;
	pair_open(pair);
	for (int nonblock = 0; nonblock < 2; nonblock++) {
		if (nonblock)
			never_block(pair[1]);
		for (size_t i = 0; i < SUITE_LEN(lengths); i++) {
			peer_message(pair[0], text, lengths[i], file);
			expect(pair[1], lengths[i], file);
			peer_message_split(pair[0], text, lengths[i], file);
			expect(pair[1], lengths[i], file);
			peer_message_split(pair[0], text, lengths[i], -1);
			expect(pair[1], lengths[i], -1);
		}
	}
	close(file);
	pair_close(pair);
}

/* Each message has its own descriptor, and its own bytes. */
static void one_after_the_other(void **state)
{
	int pair[2], a = some_file(), b = some_file();

	(void)state;
	pair_open(pair);
	peer_message(pair[0], text, 10, a);
	peer_message(pair[0], text, 20, b);
	peer_message(pair[0], text, 0, -1);
	peer_message_split(pair[0], text, 0, a);
	peer_message_split(pair[0], text, 30, b);
	expect(pair[1], 10, a);
	expect(pair[1], 20, b);
	expect(pair[1], 0, -1);
	expect(pair[1], 0, a);
	expect(pair[1], 30, b);
	close(a);
	close(b);
	pair_close(pair);
}

/* Without blocking, a message that is not all there stays there, byte after byte. */
static void not_all_there(void **state)
{
	uint8_t bytes[4 + 6], buf[16];
	struct afdt_error_t err;
	int pair[2], file = some_file(), fd;
	uint32_t len = 6;

	(void)state;
	pair_open(pair);
	never_block(pair[1]);
	memcpy(bytes, &len, 4);
	memcpy(bytes + 4, text, 6);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		err = AFDT_ERROR_T_INIT;
		len = sizeof(buf);
		assert_int_equal(afdt_recv_fd_msg(pair[1], buf, &len, &fd, &err), -1);
		CHECK_ERR(err, AFDT_NO_PHASE, AFDT_RECVMSG, EAGAIN);
		assert_int_equal(fd, -1);
		peer_send(pair[0], bytes + i, 1, &file, i == 0);
	}
	expect(pair[1], 6, file);
	close(file);
	pair_close(pair);
}

static void plain_means_plain(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	int pair[2], file = some_file();
	uint8_t buf[16];
	uint32_t len = sizeof(buf);

	(void)state;
	pair_open(pair);
	peer_message(pair[0], text, 3, -1);
	assert_int_equal(afdt_recv_plain_msg(pair[1], buf, &len, &err), 0);
	assert_int_equal(len, 3);
	peer_message(pair[0], text, 3, file);
	len = sizeof(buf);
	assert_int_equal(afdt_recv_plain_msg(pair[1], buf, &len, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_FORMAT, 0);
	close(file);
	pair_close(pair);
}

/* What is received is an error, whole or in pieces, and no descriptor stays. */
static void bad_messages(void **state)
{
	static const struct {
		uint32_t header;
		size_t n_bytes, n_fds;
		uint32_t room;
		bool end;
		enum afdt_operation operation;
	} rows[] = {
		{ 509, 4, 0, 508, false, AFDT_FORMAT }, /* too long */
		{ 509, 4, 1, 508, false, AFDT_FORMAT }, /* the same with a descriptor */
		{ 0x7fffffff, 4, 1, 508, false, AFDT_FORMAT },
		{ 0xffffffff, 4, 1, 508, false, AFDT_FORMAT },
		{ 5, 9, 1, 4, false, AFDT_FORMAT },   /* longer than the buffer */
		{ 5, 9, 2, 508, false, AFDT_FORMAT }, /* too many descriptors */
		{ 5, 9, 3, 508, false, AFDT_FORMAT },
		{ 5, 9, 253, 508, false, AFDT_FORMAT },
		{ 5, 8, 1, 508, true, AFDT_FORMAT },	       /* ends within the body */
		{ 5, 3, 1, 508, true, AFDT_FORMAT },	       /* within the header */
		{ 5, 0, 0, 508, true, AFDT_RECVMSG },	       /* before it */
		{ 0x80030005, 9, 2, 508, false, AFDT_FORMAT }, /* fewer than announced */
		{ 0x80fe0005, 9, 1, 508, false, AFDT_FORMAT }, /* more than there can be */
		{ 0x81000005, 9, 0, 508, false, AFDT_FORMAT }, /* bits that mean nothing */
		{ 0x80020005, 9, 2, 508, false, AFDT_FORMAT }, /* more than this caller takes */
	};
	int file = some_file(), files[APH_AFDT_FDS_MAX], n_before;
	uint8_t bytes[16] = { 0 }, buf[AFDT_MSGLEN];

	(void)state;
	for (size_t i = 0; i < APH_AFDT_FDS_MAX; i++)
		files[i] = file;
	for (size_t i = 0; i < SUITE_LEN(rows); i++) {
		struct afdt_error_t err = AFDT_ERROR_T_INIT;
		uint32_t len = rows[i].room;
		int pair[2], fd = 1000;

		pair_open(pair);
		n_before = fds_count();
		memcpy(bytes, &rows[i].header, 4);
		if (rows[i].n_bytes)
			peer_send(pair[0], bytes, rows[i].n_bytes, files, rows[i].n_fds);
		if (rows[i].end)
			shutdown(pair[0], SHUT_WR);
		assert_int_equal(afdt_recv_fd_msg(pair[1], buf, &len, &fd, &err), -1);
		assert_int_equal(errno, 0);
		assert_int_equal(err.operation, rows[i].operation);
		assert_true(err.message[0]);
		assert_int_equal(fd, -1);
		assert_int_equal(len, rows[i].room);
		assert_int_equal(fds_count(), n_before);
		pair_close(pair);
	}
	close(file);
}

static void a_descriptor_that_may_not_be_had(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct rlimit before, limit;
	int pair[2], file = some_file(), fd;
	uint8_t buf[16];
	uint32_t len = sizeof(buf);

	(void)state;
	pair_open(pair);
	peer_message(pair[0], text, 3, file);
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
	limit = before;
	limit.rlim_cur = (rlim_t)file;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	assert_int_equal(afdt_recv_fd_msg(pair[1], buf, &len, &fd, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_RECVMSG, EMFILE);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
	close(file);
	pair_close(pair);
}

static void bad_sends(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	int pair[2], full = 0;

	(void)state;
	pair_open(pair);
	assert_int_equal(afdt_send_plain_msg(pair[0], text, AFDT_MSGLEN + 1, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_FORMAT, 0);
	assert_int_equal(afdt_send_fd_msg(pair[0], text, 1, 4000, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_SENDMSG, EBADF);
	assert_int_equal(afdt_send_plain_msg(4000, text, 1, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_SENDMSG, EBADF);
	never_block(pair[0]);
	while (afdt_send_plain_msg(pair[0], text, AFDT_MSGLEN, &err) == 0)
		full++;
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_SENDMSG, EAGAIN);
	/* What was sent was sent whole. */
	while (full--)
		expect(pair[1], AFDT_MSGLEN, -1);
	close(pair[1]);
	assert_int_equal(afdt_send_plain_msg(pair[0], text, 1, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_SENDMSG, EPIPE);
	close(pair[0]);
}

static void bad_receives(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	uint8_t buf[4];
	uint32_t len = sizeof(buf);
	int fd;

	(void)state;
	assert_int_equal(afdt_recv_fd_msg(4000, buf, &len, &fd, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_RECVMSG, EBADF);
	assert_int_equal(afdt_recv_plain_msg(4000, buf, &len, NULL), -1);
}

static void listening(void **state)
{
	char path[160];
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	int listener, client, server;

	(void)state;
	snprintf(path, sizeof(path), "%s", path_of("s"));
	listener = afdt_listen(path, &err);
	assert_true(listener >= 0);
	assert_true(fcntl(listener, F_GETFD) & FD_CLOEXEC);
	assert_false(fcntl(listener, F_GETFL) & O_NONBLOCK);
	/* More than two may wait at a time. */
	for (int i = 0; i < 20; i++)
		close((int)CHECK_OK(afdt_connect(path, &err)));
	client = afdt_connect(path, &err);
	assert_true(client >= 0);
	assert_true(fcntl(client, F_GETFD) & FD_CLOEXEC);
	for (int i = 0; i < 20; i++)
		close(peer_accept(listener));
	server = peer_accept(listener);
	memset(text, 'x', sizeof(text));
	assert_int_equal(afdt_send_plain_msg(client, text, 3, &err), 0);
	expect(server, 3, -1);
	assert_int_equal(aph_afdt_fds_max(client), 0);
	close(server);
	close(client);

	assert_int_equal(afdt_listen(path, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_BIND, EADDRINUSE);
	close(listener);
	assert_int_equal(afdt_connect(path, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_CONNECT, ECONNREFUSED);
	CHECK_OK(unlink(path));
	assert_int_equal(afdt_connect(path, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_CONNECT, ENOENT);
}

static void bad_paths(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	char longest[108], too_long[109];

	(void)state;
	memset(too_long, 'x', sizeof(too_long));
	memcpy(too_long, "/tmp/", 5);
	too_long[108] = 0;
	assert_int_equal(afdt_listen(too_long, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_PATHNAME, ENAMETOOLONG);
	assert_int_equal(afdt_connect(too_long, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_PATHNAME, ENAMETOOLONG);
	memcpy(longest, too_long, 107);
	longest[107] = 0;
	assert_int_equal(afdt_connect(longest, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_CONNECT, ENOENT);
	assert_int_equal(afdt_listen("", &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_PATHNAME, ENOENT);
	assert_int_equal(afdt_connect(NULL, &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_PATHNAME, EINVAL);
	assert_int_equal(afdt_listen(path_of("no/such/directory"), &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_BIND, ENOENT);
	assert_int_equal(afdt_connect(dir_path(), NULL), -1);
	assert_int_equal(errno, ECONNREFUSED);
}

static void no_descriptors_left(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct rlimit before, limit;

	(void)state;
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
	limit = before;
	limit.rlim_cur = 0;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	assert_int_equal(afdt_listen("/tmp/x", &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_SOCKET, EMFILE);
	assert_int_equal(afdt_connect("/tmp/x", &err), -1);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_SOCKET, EMFILE);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
}

/* Messages with several descriptors, between two that agree on it. */
static void several(void **state)
{
	static const size_t counts[] = { 0, 1, 2, 16, 253 };
	int pair[2], file = some_file(), files[APH_AFDT_FDS_MAX + 1], got[APH_AFDT_FDS_MAX];
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	uint8_t buf[AFDT_MSGLEN];

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(files); i++)
		files[i] = file;
	pair_open(pair);
	for (size_t i = 0; i < SUITE_LEN(counts); i++) {
		const struct aph_afdt_message message = { text, 100, files, counts[i] };
		struct aph_afdt_room room = { buf, sizeof(buf), got, APH_AFDT_FDS_MAX };

		assert_int_equal(aph_afdt_send_msg(pair[0], &message, &err), 0);
		assert_int_equal(aph_afdt_recv_msg(pair[1], &room, &err), 0);
		assert_int_equal(room.len, 100);
		assert_memory_equal(buf, text, 100);
		assert_int_equal(room.n_fds, counts[i]);
		for (size_t k = 0; k < room.n_fds; k++) {
			assert_true(same_file(got[k], file));
			close(got[k]);
		}
	}
	assert_int_equal(aph_afdt_send_msg(pair[0],
					   &(struct aph_afdt_message){ text, 1, files, 254 }, &err),
			 -EINVAL);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_FORMAT, EINVAL);
	assert_int_equal(aph_afdt_send_msg(pair[0],
					   &(struct aph_afdt_message){ text, 509, NULL, 0 }, &err),
			 -EMSGSIZE);
	assert_int_equal(aph_afdt_send_msg(pair[0], &(struct aph_afdt_message){ NULL, 1, NULL, 0 },
					   &err),
			 -EINVAL);
	/* Too little room: the receiver keeps nothing. */
	assert_int_equal(aph_afdt_send_msg(pair[0], &(struct aph_afdt_message){ text, 1, files, 3 },
					   &err),
			 0);
	assert_int_equal(aph_afdt_recv_msg(pair[1],
					   &(struct aph_afdt_room){ buf, sizeof(buf), got, 2 },
					   &err),
			 -EPROTO);
	CHECK_ERR(err, AFDT_NO_PHASE, AFDT_FORMAT, 0);
	close(file);
	pair_close(pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(names),
		SUITE_TEST(bytes_on_the_wire),
		SUITE_TEST(pieces),
		SUITE_TEST(one_after_the_other),
		SUITE_TEST(not_all_there),
		SUITE_TEST(plain_means_plain),
		SUITE_TEST(bad_messages),
		SUITE_TEST(a_descriptor_that_may_not_be_had),
		SUITE_TEST(bad_sends),
		SUITE_TEST(bad_receives),
		SUITE_TEST(listening),
		SUITE_TEST(bad_paths),
		SUITE_TEST(no_descriptors_left),
		SUITE_TEST(several),
	};

	return suite_run("afdt lowlevel", tests, SUITE_LEN(tests), 60);
}
