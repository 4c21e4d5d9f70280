/* SPDX-License-Identifier: MIT */
/*
 * The floors that sockets give: a SOCK_SEQPACKET ping-pong, which all ratios are to, the same with
 * descriptors (SCM_RIGHTS), and memcpy for bodies.
 *
 * One client is served by blocking calls, several by one epoll loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

/* What is sent at once of a large body; measured to be the best here. */
#define PIECE ((size_t)64 << 10)

struct client {
	int fd;
	const struct bench_job *job;
	uint8_t *buffer;
};

static int send_all(int fd, const uint8_t *data, size_t len)
{
	while (len > 0) {
		size_t n = len < PIECE ? len : PIECE;

		if (send(fd, data, n, MSG_NOSIGNAL) != (ssize_t)n)
			return -errno;
		data += n;
		len -= n;
	}
	return 0;
}

static int receive_all(int fd, uint8_t *buffer, size_t len, uint64_t *sum)
{
	for (*sum = 0; len > 0;) {
		ssize_t n = recv(fd, buffer, PIECE, 0);

		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		*sum += bench_sum(buffer, (size_t)n);
		len -= (size_t)n;
	}
	return 0;
}

static int serve_one(const struct bench_job *job, int fd, uint8_t *buffer)
{
	uint64_t sum;
	uint32_t small;
	size_t len;
	const void *answer;
	int r = receive_all(fd, buffer, job->c.req_len, &sum);

	if (r < 0)
		return r;
	answer = bench_answer(job, sum, &small, &len);
	if (answer == NULL)
		return 0;
	return send_all(fd, answer, len);
}

static int add(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int serve_many(struct bench_job *job, int listener, uint8_t *buffer)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[64];
	int r = add(epoll, listener);

	bench_ready(job);
	while (r >= 0) {
		int n = epoll_wait(epoll, events, 64, -1);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			if (fd == listener)
				r = add(epoll, accept4(listener, NULL, NULL, SOCK_CLOEXEC));
			else if (serve_one(job, fd, buffer) < 0)
				close(fd);
		}
	}
	return r;
}

static int serve(struct bench_job *job)
{
	int listener = bench_listen(job->address, SOCK_SEQPACKET), fd;
	uint8_t *buffer = malloc(PIECE);

	if (listener < 0 || buffer == NULL)
		return listener < 0 ? listener : -ENOMEM;
	if (job->c.n_clients > 1 || job->c.kind == BENCH_IDLE)
		return serve_many(job, listener, buffer);
	bench_ready(job);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	while (serve_one(job, fd, buffer) >= 0)
		continue;
	bench_told(job);
	pause();
	return -1;
}

static int open_client(struct bench_job *job, void **self)
{
	struct client *client = calloc(1, sizeof *client);

	client->job = job;
	client->fd = bench_connect(job->address, SOCK_SEQPACKET);
	/* An idle client needs no buffer. */
	client->buffer = malloc(job->c.kind == BENCH_IDLE ? 64 : PIECE);
	*self = client;
	return client->fd;
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	struct client *client = self;
	int r = send_all(client->fd, req, len);

	return r < 0 ? r : receive_all(client->fd, client->buffer, client->job->c.rep_len, sum);
}

static int submit(void *self, uint32_t value)
{
	return send_all(((struct client *)self)->fd, (uint8_t *)&value, sizeof value);
}

static int collect(void *self, uint64_t *sum)
{
	struct client *client = self;

	return receive_all(client->fd, client->buffer, sizeof(uint32_t), sum);
}

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(BENCH_FDS_MAX * sizeof(int))];
};

static int serve_rights(struct bench_job *job)
{
	int listener = bench_listen(job->address, SOCK_SEQPACKET), fd;
	uint32_t value, small;
	size_t len;

	if (listener < 0)
		return listener;
	bench_ready(job);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	for (;;) {
		union control control;
		struct iovec iov = { &value, sizeof value };
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
		struct cmsghdr *header;
		int fds[BENCH_FDS_MAX];
		size_t n;

		message.msg_control = &control;
		message.msg_controllen = sizeof control;
		if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) <= 0)
			return -errno;
		header = CMSG_FIRSTHDR(&message);
		n = header != NULL ? (header->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
		memcpy(fds, CMSG_DATA(&control.header), n * sizeof(int));
		send(fd, bench_answer(job, n, &small, &len), sizeof small, MSG_NOSIGNAL);
		for (size_t i = 0; i < n; i++)
			close(fds[i]);
	}
}

static int call_fds(void *self, const int *fds, unsigned n_fds, uint64_t *sum)
{
	struct client *client = self;
	union control control;
	struct iovec iov = { &n_fds, sizeof n_fds };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	memset(&control, 0, sizeof control);
	message.msg_control = &control;
	message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
	if (sendmsg(client->fd, &message, MSG_NOSIGNAL) < 0)
		return -errno;
	return receive_all(client->fd, client->buffer, sizeof(uint32_t), sum);
}

int main(int argc, char **argv)
{
	static const struct bench_who whos[] = {
		{ .name = "floor:seqpacket",
		  .idle = true,
		  .death = true,
		  .client_death = true,
		  .serve = serve,
		  .open = open_client,
		  .call = call,
		  .submit = submit,
		  .collect = collect },
		{ .name = "floor:scm_rights",
		  .serve = serve_rights,
		  .open = open_client,
		  .call_fds = call_fds },
		{ .name = "floor:memcpy" },
	};

	return bench_main(whos, sizeof whos / sizeof whos[0], argc, argv);
}
