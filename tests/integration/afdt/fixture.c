/* SPDX-License-Identifier: MIT */
#include "fixture.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#define PATIENCE_MS 5000

const char *path_of(const char *name)
{
	static _Thread_local char paths[4][160];
	static _Thread_local unsigned turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir_path(), name);
	return path;
}

int some_file(void)
{
	return (int)CHECK_OK(memfd_create("some", MFD_CLOEXEC));
}

bool same_file(int a, int b)
{
	struct stat st_a, st_b;

	CHECK_OK(fstat(a, &st_a));
	CHECK_OK(fstat(b, &st_b));
	return st_a.st_dev == st_b.st_dev && st_a.st_ino == st_b.st_ino;
}

/* -- the peer ---------------------------------------------------------------------------------- */

static int peer_socket(const char *path, struct sockaddr_un *address)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	CHECK(strlen(path) < sizeof(address->sun_path));
	memcpy(address->sun_path, path, strlen(path));
	return (int)CHECK_OK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

int peer_listen(const char *path)
{
	struct sockaddr_un address;
	int sock = peer_socket(path, &address);

	CHECK_OK(bind(sock, (struct sockaddr *)&address, sizeof(address)));
	CHECK_OK(listen(sock, 16));
	return sock;
}

int peer_accept(int listener)
{
	return (int)CHECK_OK(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
}

int peer_connect(const char *path)
{
	struct sockaddr_un address;
	int sock = peer_socket(path, &address);

	CHECK_OK(connect(sock, (struct sockaddr *)&address, sizeof(address)));
	return sock;
}

bool peer_try_send(int sock, const void *bytes, size_t len, const int *fds, size_t n_fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(APH_AFDT_FDS_MAX * sizeof(int))];
	struct iovec iov = { (void *)bytes, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	CHECK(n_fds <= APH_AFDT_FDS_MAX);
	if (n_fds) {
		memset(control, 0, sizeof(control));
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)len;
}

void peer_send(int sock, const void *bytes, size_t len, const int *fds, size_t n_fds)
{
	/* The other end may have seen enough, and gone. */
	CHECK(peer_try_send(sock, bytes, len, fds, n_fds) || errno == EPIPE || errno == ECONNRESET);
}

void peer_message(int sock, const void *body, uint32_t len, int fd)
{
	uint8_t bytes[1024];

	memcpy(bytes, &len, sizeof(len));
	if (len)
		memcpy(bytes + sizeof(len), body, len);
	peer_send(sock, bytes, sizeof(len) + len, &fd, fd >= 0);
}

void peer_message_split(int sock, const void *body, uint32_t len, int fd)
{
	uint8_t bytes[1024];

	memcpy(bytes, &len, sizeof(len));
	if (len)
		memcpy(bytes + sizeof(len), body, len);
	for (size_t i = 0; i < sizeof(len) + len; i++)
		peer_send(sock, bytes + i, 1, &fd, i == 0 && fd >= 0);
}

static size_t wanted_of(const struct peer_got *got)
{
	uint32_t word;

	if (got->len < sizeof(word))
		return sizeof(word);
	memcpy(&word, got->bytes, sizeof(word));
	/* Sixteen bits of length in either kind of header. */
	return sizeof(word) + (word & 0xffff);
}

bool peer_receive(int sock, struct peer_got *got)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(APH_AFDT_FDS_MAX * sizeof(int))];
	struct pollfd poller = { .fd = sock, .events = POLLIN };

	peer_drop(got);
	while (got->len < wanted_of(got)) {
		struct iovec iov = { got->bytes + got->len, wanted_of(got) - got->len };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		struct cmsghdr *cmsg;
		ssize_t n;

		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		if (poll(&poller, 1, check_ms(PATIENCE_MS)) != 1)
			return false;
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
		if (n <= 0)
			return false;
		got->len += (size_t)n;
		for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
			size_t n_fds = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

			CHECK(cmsg->cmsg_type == SCM_RIGHTS);
			memcpy(got->fds + got->n_fds, CMSG_DATA(cmsg), n_fds * sizeof(int));
			got->n_fds += n_fds;
		}
	}
	return true;
}

void peer_drop(struct peer_got *got)
{
	while (got->n_fds)
		close(got->fds[--got->n_fds]);
	got->len = 0;
}

bool peer_hung_up(int sock)
{
	struct pollfd poller = { .fd = sock, .events = POLLIN };
	char byte;

	return poll(&poller, 1, check_ms(1000)) == 1 && recv(sock, &byte, 1, 0) <= 0;
}

/* -- handlers ---------------------------------------------------------------------------------- */

void told_init(struct told *told)
{
	memset(told, 0, sizeof(*told));
	told->err = AFDT_ERROR_T_INIT;
	told->fd = -1;
	told->give = -1;
}

int on_request(const uint8_t *request, uint32_t len, uint8_t *response, uint32_t *response_len,
	       void *data)
{
	struct told *told = data;

	told->requests++;
	CHECK(len <= AFDT_MSGLEN && *response_len == AFDT_MSGLEN);
	memcpy(told->body, request, len);
	told->len = len;
	if (told->answer_len && told->answer_len <= AFDT_MSGLEN)
		memcpy(response, told->answer, told->answer_len);
	*response_len = told->answer_len;
	return told->give;
}

void on_post(const uint8_t *request, uint32_t len, const uint8_t *response, uint32_t response_len,
	     int fd, void *data)
{
	struct told *told = data;

	told->posts++;
	told->fd = fd;
	CHECK(len == told->len && memcmp(request, told->body, len) == 0);
	CHECK(response_len == told->answer_len);
	CHECK(response_len == 0 || memcmp(response, told->answer, response_len) == 0);
	if (told->close_given)
		close(fd);
}

void on_response(const uint8_t *response, uint32_t len, int fd, void *data)
{
	struct told *told = data;

	told->responses++;
	CHECK(len <= AFDT_MSGLEN);
	memcpy(told->body, response, len);
	told->len = len;
	told->fd = fd;
}

void on_error(const struct afdt_error_t *err, void *data)
{
	struct told *told = data;

	told->cause = errno;
	told->errors++;
	told->err = *err;
}

void check_told(struct told *told, enum afdt_phase phase, enum afdt_operation operation, int cause)
{
	assert_int_equal(told->errors, 1);
	assert_string_equal(afdt_operation_str(told->err.operation), afdt_operation_str(operation));
	assert_string_equal(afdt_phase_str(told->err.phase), afdt_phase_str(phase));
	assert_int_equal(told->cause, cause);
	assert_non_null(told->err.message);
	told->errors = 0;
	told->err = AFDT_ERROR_T_INIT;
}

void run_ready(struct event_base *base)
{
	CHECK(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
}

void run_until(struct event_base *base, const int *count, int wanted)
{
	uint64_t end = aph_deadline_ms((uint64_t)check_ms(PATIENCE_MS));
	const struct timeval slice = { .tv_usec = 20000 };

	while (*count < wanted) {
		CHECK(aph_time_ns() < end);
		/* Ends by itself when there is nothing to wait for. */
		(void)event_base_loopexit(base, &slice);
		CHECK(event_base_loop(base, EVLOOP_ONCE) >= 0);
	}
	CHECK(*count == wanted);
}
