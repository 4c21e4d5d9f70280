/* SPDX-License-Identifier: MIT */
/*
 * POSIX message queues: one for the requests of all clients, one per client for its replies. Large
 * bodies go in as large messages as the system allows. The queues are made before the processes and
 * inherited, so that none is left behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define N_MESSAGES 8
#define PIECE_MAX  ((size_t)64 << 10)
#define PIECE_ANY  ((size_t)8184) /* with the header, what everybody may send */

struct message {
	uint64_t client;
	uint8_t data[PIECE_MAX];
};

#define HEADER offsetof(struct message, data)

static mqd_t requests, replies[BENCH_CLIENTS_MAX];
static size_t piece;

static mqd_t new_queue(const struct bench_job *job)
{
	struct mq_attr attributes = { .mq_maxmsg = N_MESSAGES,
				      .mq_msgsize = (long)(HEADER + piece) };
	char name[96];
	mqd_t queue;

	snprintf(name, sizeof name, "/antiphon-%s", strrchr(job->dir, '/') + 1);
	queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attributes);
	if (queue >= 0)
		mq_unlink(name);
	return queue;
}

static int prepare(struct bench_job *job)
{
	piece = job->c.req_len > 4 || job->c.rep_len > 4 ? PIECE_MAX : 64;
	requests = new_queue(job);
	if (requests < 0 && errno == EINVAL) {
		piece = PIECE_ANY;
		requests = new_queue(job);
	}
	if (requests < 0)
		return -errno;
	for (unsigned i = 0; i < job->c.n_clients; i++) {
		replies[i] = new_queue(job);
		if (replies[i] < 0)
			return -errno;
	}
	return 0;
}

static int transmit(mqd_t queue, struct message *message, const uint8_t *data, size_t len)
{
	while (len > 0) {
		size_t n = len < piece ? len : piece;

		memcpy(message->data, data, n);
		if (mq_send(queue, (const char *)message, HEADER + n, 0) < 0)
			return -errno;
		data += n;
		len -= n;
	}
	return 0;
}

static int receive(mqd_t queue, struct message *message, size_t len, uint64_t *sum)
{
	for (*sum = 0; len > 0;) {
		ssize_t n = mq_receive(queue, (char *)message, HEADER + piece, NULL);

		if (n < (ssize_t)HEADER)
			return -errno;
		*sum += bench_sum(message->data, (size_t)n - HEADER);
		len -= (size_t)n - HEADER;
	}
	return 0;
}

static int serve(struct bench_job *job)
{
	struct message *message = calloc(1, sizeof *message);
	uint64_t sum;
	uint32_t small;
	size_t len;

	bench_ready(job);
	while (receive(requests, message, job->c.req_len, &sum) >= 0) {
		const void *data = bench_answer(job, sum, &small, &len);

		if (transmit(replies[message->client], message, data, len) < 0)
			break;
	}
	return -errno;
}

struct client {
	const struct bench_job *job;
	struct message message;
};

static int open_client(struct bench_job *job, void **self)
{
	struct client *client = calloc(1, sizeof *client);

	client->job = job;
	*self = client;
	return 0;
}

static int collect(void *self, uint64_t *sum)
{
	struct client *client = self;

	return receive(replies[client->job->index], &client->message, client->job->c.rep_len, sum);
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	struct client *client = self;
	int r;

	client->message.client = client->job->index;
	r = transmit(requests, &client->message, req, len);
	return r < 0 ? r : collect(self, sum);
}

static int submit(void *self, uint32_t value)
{
	struct client *client = self;

	client->message.client = client->job->index;
	return transmit(requests, &client->message, (uint8_t *)&value, sizeof value);
}

int main(int argc, char **argv)
{
	static const struct bench_who who = { .name = "posix-mq",
					      .prepare = prepare,
					      .serve = serve,
					      .open = open_client,
					      .call = call,
					      .submit = submit,
					      .collect = collect };

	return bench_main(&who, 1, argc, argv);
}
