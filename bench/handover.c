/* SPDX-License-Identifier: MIT */
/*
 * The floor under handing over descriptors: a plain program that does the exchange of libafdt and
 * nothing else. Connect, request, answer with a descriptor, close; a server that accepts and
 * blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "harness.h"

struct message {
	uint32_t len;
	uint32_t value;
};

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(sizeof(int))];
};

static int answer(const struct bench_job *job, int fd, int given)
{
	struct message message;
	struct iovec iov = { &message, sizeof message };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control = { .header = { .cmsg_level = SOL_SOCKET,
					      .cmsg_type = SCM_RIGHTS,
					      .cmsg_len = CMSG_LEN(sizeof(int)) } };
	size_t len;

	if (recvmsg(fd, &msg, 0) != (ssize_t)sizeof message)
		return -1;
	bench_answer(job, message.value, &message.value, &len);
	memcpy(CMSG_DATA(&control.header), &given, sizeof given);
	msg.msg_control = &control;
	msg.msg_controllen = control.header.cmsg_len;
	return sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static int serve(struct bench_job *job)
{
	int listener = bench_listen(job->address, SOCK_STREAM), fd;
	int given = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (listener < 0 || given < 0)
		return listener < 0 ? listener : -errno;
	bench_ready(job);
	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		(void)answer(job, fd, given);
		close(fd);
	}
	return -errno;
}

static int open_client(struct bench_job *job, void **self)
{
	*self = job;
	return 0;
}

static int exchange(int fd, uint32_t value, uint64_t *sum)
{
	struct message message = { sizeof message.value, value };
	struct iovec iov = { &message, sizeof message };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control;
	int got;

	if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
		return -errno;
	msg.msg_control = &control;
	msg.msg_controllen = sizeof control;
	if (recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof message ||
	    control.header.cmsg_type != SCM_RIGHTS)
		return -ECONNRESET;
	memcpy(&got, CMSG_DATA(&control.header), sizeof got);
	close(got);
	*sum = message.value;
	return 0;
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	const struct bench_job *job = self;
	int fd = bench_connect(job->address, SOCK_STREAM), r;
	uint32_t value;

	if (fd < 0)
		return fd;
	(void)len;
	memcpy(&value, req, sizeof value);
	r = exchange(fd, value, sum);
	close(fd);
	return r;
}

int main(int argc, char **argv)
{
	static const struct bench_who whos[] = {
		{ .name = "floor:handover",
		  .exchange = true,
		  .serve = serve,
		  .open = open_client,
		  .call = call },
	};

	return bench_main(whos, sizeof whos / sizeof whos[0], argc, argv);
}
