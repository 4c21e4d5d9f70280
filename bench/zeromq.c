/* SPDX-License-Identifier: MIT */
/*
 * ZeroMQ: REQ and REP over ipc; DEALER and ROUTER where several calls are in flight.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zmq.h>

#include "harness.h"

static const char *url(const struct bench_job *job)
{
	static char text[128];

	snprintf(text, sizeof text, "ipc://%s", job->address);
	return text;
}

static int receive(void *socket, uint64_t *sum)
{
	zmq_msg_t msg;

	zmq_msg_init(&msg);
	if (zmq_msg_recv(&msg, socket, 0) < 0)
		return -errno;
	*sum = bench_sum(zmq_msg_data(&msg), zmq_msg_size(&msg));
	zmq_msg_close(&msg);
	return 0;
}

/* A ROUTER sees the client's identity in front of each message, and gives it back. */
static int route(const struct bench_job *job, void *socket)
{
	zmq_msg_t identity;
	uint64_t sum = 0;
	uint32_t small;
	size_t len;
	const void *data;

	zmq_msg_init(&identity);
	if (zmq_msg_recv(&identity, socket, 0) < 0 || receive(socket, &sum) < 0)
		return -errno;
	data = bench_answer(job, sum, &small, &len);
	if (zmq_msg_send(&identity, socket, ZMQ_SNDMORE) < 0)
		return -errno;
	return zmq_send(socket, data, len, 0) < 0 ? -errno : 0;
}

static int reply(const struct bench_job *job, void *socket)
{
	uint64_t sum = 0;
	uint32_t small;
	size_t len;
	const void *data;

	if (receive(socket, &sum) < 0)
		return -errno;
	data = bench_answer(job, sum, &small, &len);
	return zmq_send(socket, data, len, 0) < 0 ? -errno : 0;
}

static int serve(struct bench_job *job)
{
	void *context = zmq_ctx_new();
	void *socket = zmq_socket(context, job->c.depth > 0 ? ZMQ_ROUTER : ZMQ_REP);
	int r = 0;

	if (zmq_bind(socket, url(job)) < 0)
		return -errno;
	bench_ready(job);
	while (r >= 0)
		r = job->c.depth > 0 ? route(job, socket) : reply(job, socket);
	return r;
}

static int open_client(struct bench_job *job, void **self)
{
	static void *context;

	if (context == NULL)
		context = zmq_ctx_new();
	*self = zmq_socket(context, job->c.depth > 0 ? ZMQ_DEALER : ZMQ_REQ);
	if (*self == NULL || zmq_connect(*self, url(job)) < 0)
		return -errno;
	return 0;
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	if (zmq_send(self, req, len, 0) < 0)
		return -errno;
	return receive(self, sum);
}

static int submit(void *self, uint32_t value)
{
	return zmq_send(self, &value, sizeof value, 0) < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
	static const struct bench_who who = { .name = "zeromq",
					      .serve = serve,
					      .open = open_client,
					      .call = call,
					      .submit = submit,
					      .collect = receive };

	return bench_main(&who, 1, argc, argv);
}
