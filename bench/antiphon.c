/* SPDX-License-Identifier: MIT */
/*
 * This project, used as its users would: one endpoint at either end, aph_call() for one call at a
 * time, events where several are in flight, bodies read in pieces as they arrive.
 */
#include <antiphon/antiphon.h>

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"

#define ADDRESS "caps:bench"
#define PIECE	((size_t)32 << 10)

struct client {
	const struct bench_job *job;
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	uint8_t *piece;
};

static int prepare(struct bench_job *job)
{
	return setenv("ANTIPHON_RUNTIME_DIR", job->dir, 1);
}

/* Reads a body of `len` bytes, waiting for what has not arrived. */
static int read_body(struct aph_call *call, uint8_t *piece, size_t len, uint64_t *sum)
{
	*sum = 0;
	while (len > 0) {
		ssize_t n = aph_call_read(call, piece, PIECE);

		if (n > 0) {
			*sum += bench_sum(piece, (size_t)n);
			len -= (size_t)n < len ? (size_t)n : len;
			continue;
		}
		n = n == -EAGAIN ? aph_call_wait(call, APH_FOREVER) : -EPROTO;
		if (n < 0)
			return (int)n;
	}
	return 0;
}

static int serve_one(const struct bench_job *job, struct aph_call *call, uint8_t *piece)
{
	int fds[BENCH_FDS_MAX];
	ssize_t n_fds = 0;
	uint64_t sum;
	uint32_t small;
	size_t len;
	const void *data;
	int r = read_body(call, piece, job->c.req_len, &sum);

	if (r < 0)
		return r;
	if (job->c.n_fds > 0) {
		n_fds = aph_call_take_fds(call, fds, BENCH_FDS_MAX);
		sum = n_fds > 0 ? (uint64_t)n_fds : 0;
	}
	data = bench_answer(job, sum, &small, &len);
	if (data == NULL)
		return 0;
	r = aph_call_reply(call, data, len);
	/* After the reply: the client need not wait for it. The floor does the same. */
	for (ssize_t i = 0; i < n_fds; i++)
		close(fds[i]);
	return r;
}

static int serve(struct bench_job *job)
{
	struct aph_endpoint *ep;
	struct aph_event event;
	uint8_t *piece = malloc(PIECE);
	int r = aph_endpoint_new(&ep, NULL);

	if (r < 0 || (r = aph_service_open(NULL, ep, ADDRESS, NULL)) < 0)
		return r;
	bench_ready(job);
	while ((r = aph_endpoint_next(ep, &event, APH_FOREVER)) == 0) {
		if (event.type == APH_EVENT_REQUEST) {
			/* A client that goes away is not the service's trouble: END follows. */
			(void)serve_one(job, event.call, piece);
		} else if (event.type == APH_EVENT_END) {
			bench_told(job);
			aph_call_free(event.call);
		}
	}
	return r;
}

static int open_client(struct bench_job *job, void **self)
{
	/* The idle channels of a process share an endpoint, as a program would have it. */
	static struct aph_endpoint *ep;
	static uint8_t *piece;
	struct client *client = calloc(1, sizeof *client);
	int r = ep != NULL ? 0 : aph_endpoint_new(&ep, NULL);

	if (piece == NULL)
		piece = malloc(PIECE);
	client->job = job;
	client->piece = piece;
	client->ep = ep;
	*self = client;
	return r < 0 ? r : aph_channel_open(&client->channel, ep, ADDRESS, NULL);
}

/* Waits for the end of a call and reads its reply as it arrives. */
static int finish(struct client *client, struct aph_call *call, uint64_t *sum)
{
	int r = read_body(call, client->piece, client->job->c.rep_len, sum);

	aph_call_free(call);
	return r;
}

/* A large reply is summed up piece by piece rather than gathered first. */
static int call_large(struct client *client, const void *req, size_t len, uint64_t *sum)
{
	struct aph_call *call;
	int r = aph_call_new(&call, client->channel, APH_FOREVER, NULL);

	if (r < 0)
		return r;
	if (aph_call_send(call, req, len, 0) != (ssize_t)len) {
		aph_call_free(call);
		return -EIO;
	}
	return finish(client, call, sum);
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	struct client *client = self;
	uint32_t reply;
	size_t reply_len = sizeof reply;
	int r;

	if (client->job->c.rep_len > sizeof reply)
		return call_large(client, req, len, sum);
	r = aph_call(client->channel, req, len, &reply, &reply_len, APH_FOREVER);
	*sum = reply_len == sizeof reply ? reply : 0;
	return r > 0 ? -ECONNRESET : r;
}

static int call_fds(void *self, const int *fds, unsigned n_fds, uint64_t *sum)
{
	struct client *client = self;
	struct aph_call *call;
	int r = aph_call_new(&call, client->channel, APH_FOREVER, NULL);
	ssize_t n;

	if (r < 0)
		return r;
	n = aph_call_send_fds(call, &n_fds, sizeof n_fds, fds, n_fds, 0);
	if (n < 0) {
		aph_call_free(call);
		return (int)n;
	}
	return finish(client, call, sum);
}

static int submit(void *self, uint32_t value)
{
	struct client *client = self;
	struct aph_call *call;
	ssize_t n;
	int r = aph_call_new(&call, client->channel, APH_FOREVER, NULL);

	if (r < 0)
		return r;
	n = aph_call_send(call, &value, sizeof value, 0);
	return n < 0 ? (int)n : 0;
}

static int collect(void *self, uint64_t *sum)
{
	struct client *client = self;
	struct aph_event event;
	int r;

	do {
		r = aph_endpoint_next(client->ep, &event, APH_FOREVER);
		if (r < 0)
			return r;
	} while (event.type != APH_EVENT_END);
	return finish(client, event.call, sum);
}

int main(int argc, char **argv)
{
	static const struct bench_who who = { .name = "antiphon",
					      .idle = true,
					      .death = true,
					      .client_death = true,
					      .prepare = prepare,
					      .serve = serve,
					      .open = open_client,
					      .call = call,
					      .call_fds = call_fds,
					      .submit = submit,
					      .collect = collect };

	return bench_main(&who, 1, argc, argv);
}
