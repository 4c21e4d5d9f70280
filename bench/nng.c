/* SPDX-License-Identifier: MIT */
/*
 * nng: req/rep over ipc. One call at a time uses the sockets themselves, several in flight use
 * nng's contexts on one socket at either end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>

#include "harness.h"

#define DEPTH_MAX 64

struct slot {
	nng_ctx ctx;
	nng_aio *aio;
	const struct bench_job *job;
	bool replying;
};

struct client {
	nng_socket socket;
	struct slot *slots;
	unsigned depth, head, tail;
};

static const char *url(const struct bench_job *job)
{
	static char text[128];

	snprintf(text, sizeof text, "ipc://%s", job->address);
	return text;
}

static nng_msg *answer(const struct bench_job *job, nng_msg *msg)
{
	uint32_t small;
	size_t len;
	const void *data =
		bench_answer(job, bench_sum(nng_msg_body(msg), nng_msg_len(msg)), &small, &len);

	nng_msg_clear(msg);
	if (nng_msg_append(msg, data, len) != 0)
		abort();
	return msg;
}

/* A context of the service: receives, answers, and receives again, driven by nng's threads. */
static void step(void *arg)
{
	struct slot *slot = arg;

	if (nng_aio_result(slot->aio) != 0)
		return;
	slot->replying = !slot->replying;
	if (slot->replying) {
		nng_aio_set_msg(slot->aio, answer(slot->job, nng_aio_get_msg(slot->aio)));
		nng_ctx_send(slot->ctx, slot->aio);
	} else {
		nng_ctx_recv(slot->ctx, slot->aio);
	}
}

static int serve(struct bench_job *job)
{
	static struct slot slots[DEPTH_MAX];
	nng_socket socket;
	nng_msg *msg;

	if (nng_rep0_open(&socket) != 0)
		return -1;
	nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, 0);
	if (nng_listen(socket, url(job), NULL, 0) != 0)
		return -1;
	for (unsigned i = 0; i < job->c.depth && i < DEPTH_MAX; i++) {
		slots[i].job = job;
		if (nng_ctx_open(&slots[i].ctx, socket) != 0 ||
		    nng_aio_alloc(&slots[i].aio, step, &slots[i]) != 0)
			return -1;
		nng_ctx_recv(slots[i].ctx, slots[i].aio);
	}
	bench_ready(job);
	while (job->c.depth > 0)
		pause();
	while (nng_recvmsg(socket, &msg, 0) == 0)
		if (nng_sendmsg(socket, answer(job, msg), 0) != 0)
			return -1;
	return -1;
}

static int open_client(struct bench_job *job, void **self)
{
	struct client *client = calloc(1, sizeof *client);

	if (nng_req0_open(&client->socket) != 0)
		return -1;
	nng_socket_set_size(client->socket, NNG_OPT_RECVMAXSZ, 0);
	if (nng_dial(client->socket, url(job), NULL, 0) != 0)
		return -1;
	client->depth = job->c.depth;
	client->slots = calloc(client->depth + 1, sizeof client->slots[0]);
	for (unsigned i = 0; i < client->depth; i++)
		if (nng_ctx_open(&client->slots[i].ctx, client->socket) != 0 ||
		    nng_aio_alloc(&client->slots[i].aio, NULL, NULL) != 0)
			return -1;
	*self = client;
	return 0;
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	struct client *client = self;
	nng_msg *msg;

	if (nng_msg_alloc(&msg, len) != 0)
		return -ENOMEM;
	memcpy(nng_msg_body(msg), req, len);
	if (nng_sendmsg(client->socket, msg, 0) != 0 || nng_recvmsg(client->socket, &msg, 0) != 0)
		return -1;
	*sum = bench_sum(nng_msg_body(msg), nng_msg_len(msg));
	nng_msg_free(msg);
	return 0;
}

static int submit(void *self, uint32_t value)
{
	struct client *client = self;
	struct slot *slot = &client->slots[client->head++ % client->depth];
	nng_msg *msg;

	if (nng_msg_alloc(&msg, 0) != 0 || nng_msg_append(msg, &value, sizeof value) != 0)
		return -ENOMEM;
	/* A request is queued by the context and leaves at once; only the reply is waited for. */
	nng_aio_set_msg(slot->aio, msg);
	nng_ctx_send(slot->ctx, slot->aio);
	nng_aio_wait(slot->aio);
	if (nng_aio_result(slot->aio) != 0)
		return -1;
	nng_ctx_recv(slot->ctx, slot->aio);
	return 0;
}

static int collect(void *self, uint64_t *sum)
{
	struct client *client = self;
	struct slot *slot = &client->slots[client->tail++ % client->depth];
	nng_msg *msg;

	nng_aio_wait(slot->aio);
	if (nng_aio_result(slot->aio) != 0)
		return -1;
	msg = nng_aio_get_msg(slot->aio);
	*sum = bench_sum(nng_msg_body(msg), nng_msg_len(msg));
	nng_msg_free(msg);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct bench_who who = { .name = "nng",
					      .idle = true,
					      .serve = serve,
					      .open = open_client,
					      .call = call,
					      .submit = submit,
					      .collect = collect };

	return bench_main(&who, 1, argc, argv);
}
