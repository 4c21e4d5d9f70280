/* SPDX-License-Identifier: MIT */
/* nanomsg: NN_REQ and NN_REP over ipc, with messages of the library's own memory. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>

#include "harness.h"

static const char *url(const struct bench_job *job)
{
	static char text[128];

	snprintf(text, sizeof text, "ipc://%s", job->address);
	return text;
}

static int new_socket(int protocol)
{
	int socket = nn_socket(AF_SP, protocol), unlimited = -1;

	if (socket < 0)
		return -errno;
	nn_setsockopt(socket, NN_SOL_SOCKET, NN_RCVMAXSIZE, &unlimited, sizeof unlimited);
	return socket;
}

static int transmit(int socket, const void *data, size_t len)
{
	void *msg = nn_allocmsg(len, 0);

	if (msg == NULL)
		return -ENOMEM;
	memcpy(msg, data, len);
	return nn_send(socket, &msg, NN_MSG, 0) < 0 ? -errno : 0;
}

static int receive(int socket, uint64_t *sum)
{
	void *msg;
	int n = nn_recv(socket, &msg, NN_MSG, 0);

	if (n < 0)
		return -errno;
	*sum = bench_sum(msg, (size_t)n);
	nn_freemsg(msg);
	return 0;
}

static int serve(struct bench_job *job)
{
	int socket = new_socket(NN_REP);
	uint64_t sum = 0;
	uint32_t small;
	size_t len;

	if (socket < 0 || nn_bind(socket, url(job)) < 0)
		return -errno;
	bench_ready(job);
	while (receive(socket, &sum) >= 0) {
		const void *data = bench_answer(job, sum, &small, &len);

		if (transmit(socket, data, len) < 0)
			break;
	}
	return -errno;
}

static int open_client(struct bench_job *job, void **self)
{
	static int socket;

	socket = new_socket(NN_REQ);
	if (socket < 0 || nn_connect(socket, url(job)) < 0)
		return -errno;
	*self = &socket;
	return 0;
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	int socket = *(int *)self, r = transmit(socket, req, len);

	return r < 0 ? r : receive(socket, sum);
}

int main(int argc, char **argv)
{
	static const struct bench_who who = {
		.name = "nanomsg", .serve = serve, .open = open_client, .call = call
	};

	return bench_main(&who, 1, argc, argv);
}
