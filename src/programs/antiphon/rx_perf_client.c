/* SPDX-License-Identifier: MIT */
/*
 * The client of the rxperf test: keeps a number of calls in flight, each in a slot of its own, and
 * checks each reply.
 */
#include "rx_perf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 65536

/* A head is at most that of FILE: 4 words, the length of the list, and a list of 3. */
#define HEAD_MAX (4 * (PERF_HEAD_WORDS + 1 + 3))

struct slot {
	struct client *client;
	struct aph_rx_call *call;
	uint64_t start_ns;
	uint64_t to_write;   /* octets of the request, head included */
	uint64_t n_received; /* octets of the reply so far */
	uint8_t tail[4];     /* the last ones of them */
};

struct client {
	const struct perf_options *options;
	struct perf_result *result;
	struct aph_rx_client *to;
	uint8_t head[HEAD_MAX];
	size_t head_len;
	uint64_t request_len, reply_len; /* with head, and with cookie */
	uint64_t n_begun, n_open;
	uint64_t end_ns;
};

static const uint8_t zeros[CHUNK];

/* The same for every call. */
static void build_head(struct client *client)
{
	const struct perf_options *o = client->options;
	uint32_t words[HEAD_MAX / 4] = { PERF_VERSION, o->command, PERF_READ_SIZE, PERF_READ_SIZE };
	size_t n = PERF_HEAD_WORDS;

	switch (o->command) {
	case PERF_SEND:
		words[n++] = (uint32_t)o->request_len;
		break;
	case PERF_RECV:
		words[n++] = (uint32_t)o->reply_len;
		break;
	case PERF_RPC:
		words[n++] = (uint32_t)o->request_len;
		words[n++] = (uint32_t)o->reply_len;
		break;
	case PERF_FILE:
		words[n++] = 3;
		words[n++] = (uint32_t)(o->request_len / 4);
		words[n++] = 0;
		words[n++] = (uint32_t)(o->reply_len / 4);
		break;
	}
	for (size_t i = 0; i < n; i++)
		perf_put32(client->head + 4 * i, words[i]);
	client->head_len = 4 * n;
	client->request_len = client->head_len + o->request_len;
	client->reply_len = o->reply_len + (o->command == PERF_FILE ? 0 : 4);
}

/* 0, or what keeps it from going on. */
static int write_some(struct slot *slot)
{
	struct client *client = slot->client;

	while (slot->to_write > 0) {
		uint64_t done = client->request_len - slot->to_write;
		const uint8_t *from = zeros;
		size_t len = slot->to_write < CHUNK ? (size_t)slot->to_write : CHUNK;
		ssize_t n;

		if (done < client->head_len) {
			from = client->head + done;
			len = client->head_len - (size_t)done;
		}
		n = aph_rx_call_write(slot->call, from, len,
				      len < slot->to_write ? APH_RX_MORE : 0);
		if (n < 0)
			return (int)n;
		slot->to_write -= (size_t)n;
		if ((size_t)n < len)
			return -EAGAIN;
	}
	return 0;
}

static void keep_tail(struct slot *slot, const uint8_t *data, size_t len)
{
	if (len >= 4) {
		memcpy(slot->tail, data + len - 4, 4);
		return;
	}
	memmove(slot->tail, slot->tail + len, 4 - len);
	memcpy(slot->tail + 4 - len, data, len);
}

static void read_some(struct slot *slot)
{
	const void *data;
	size_t len;

	while (aph_rx_call_borrow(slot->call, &data, &len) == 0 && len > 0) {
		keep_tail(slot, data, len);
		slot->n_received += len;
		aph_rx_call_release(slot->call, len);
	}
}

static bool is_right(const struct slot *slot)
{
	return slot->n_received == slot->client->reply_len &&
	       (slot->client->options->command == PERF_FILE ||
		perf_get32(slot->tail) == PERF_COOKIE);
}

static bool wants_another(const struct client *client)
{
	if (perf_interrupted() ||
	    (client->options->count && client->n_begun == client->options->count))
		return false;
	return client->options->seconds_ms == 0 || aph_time_ns() < client->end_ns;
}

static int begin(struct slot *slot)
{
	struct client *client = slot->client;
	const struct aph_rx_call_options options = {
		.size = sizeof(options),
		.hard_ms = (uint32_t)(client->options->timeout_ms < UINT32_MAX
					      ? client->options->timeout_ms
					      : UINT32_MAX),
		.data = slot,
	};
	int r;

	slot->start_ns = aph_time_ns();
	slot->to_write = client->request_len;
	slot->n_received = 0;
	r = aph_rx_call_new(&slot->call, client->to, &options);
	if (r == 0) {
		client->n_begun++;
		client->n_open++;
		r = write_some(slot);
	}
	return r == -EAGAIN ? 0 : r;
}

static void fail(struct client *client, enum aph_rx_outcome outcome, int32_t code)
{
	client->result->n_failed++;
	client->result->last_outcome = outcome;
	client->result->last_code = code;
}

static void finish(struct slot *slot, const struct aph_rx_end *end)
{
	struct client *client = slot->client;
	struct perf_result *result = client->result;
	struct aph_rx_call_info info;

	read_some(slot);
	aph_rx_call_info(slot->call, &info);
	result->n_packets += info.n_sent;
	result->n_resent += info.n_resent;
	if (end->outcome != APH_RX_DONE) {
		fail(client, end->outcome, end->code);
	} else if (!is_right(slot)) {
		fail(client, APH_RX_ABORTED_HERE, APH_RX_PROTOCOL_ERROR);
	} else {
		result->n_calls++;
		result->bytes_sent += client->options->request_len;
		result->bytes_received += client->options->reply_len;
		histogram_add(&result->histogram, aph_time_ns() - slot->start_ns);
	}
	slot->call = aph_rx_call_free(slot->call);
	client->n_open--;
}

/* 0, or what ends the test. */
static int handle(const struct aph_rx_event *event)
{
	struct slot *slot = event->data;

	switch (event->type) {
	case APH_RX_EVENT_WRITABLE:
		(void)write_some(slot); /* what is wrong comes as the call's end */
		return 0;
	case APH_RX_EVENT_READABLE:
		read_some(slot);
		return 0;
	case APH_RX_EVENT_END:
		finish(slot, &event->end);
		return wants_another(slot->client) ? begin(slot) : 0;
	case APH_RX_EVENT_CALL:
		break;
	}
	return 0;
}

static int run(struct client *client, struct aph_rx_udp *udp)
{
	struct aph_rx *rx = aph_rx_udp_engine(udp);
	struct aph_rx_event event;
	int r = 0;

	while (client->n_open > 0 && r == 0) {
		r = aph_rx_udp_wait(udp, APH_FOREVER);
		if (perf_interrupted())
			return 0;
		if (r == -EINTR || r == -ECANCELED)
			r = 0;
		while (r == 0 && aph_rx_next(rx, &event))
			r = handle(&event);
	}
	return r;
}

int perf_client(const struct perf_options *options, struct perf_result *result)
{
	const struct aph_rx_path path = { .remote = options->address };
	const struct aph_rx_client_options client_options = {
		.size = sizeof(client_options),
		.connections_max = (uint32_t)(options->parallel + 3) / 4,
	};
	const struct aph_rx_address any = { .family = AF_UNSPEC };
	struct client client = { .options = options, .result = result };
	struct slot *slots = calloc((size_t)options->parallel, sizeof(*slots));
	struct aph_rx_udp *udp;
	uint64_t start_ns;
	int r;

	if (slots == NULL) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	if (perf_open(&udp, &any, options->window) < 0) {
		free(slots);
		return CLI_FAILED;
	}
	perf_watch_signals(udp);
	build_head(&client);
	start_ns = aph_time_ns();
	client.end_ns = start_ns + options->seconds_ms * 1000000;
	r = aph_rx_client_new(&client.to, aph_rx_udp_engine(udp), &path, options->service,
			      &client_options);
	for (uint64_t i = 0; i < options->parallel && r == 0; i++) {
		slots[i].client = &client;
		if (wants_another(&client))
			r = begin(&slots[i]);
	}
	if (r == 0)
		r = run(&client, udp);
	result->elapsed_ns = aph_time_ns() - start_ns;
	if (r < 0)
		cli_error("cannot go on: %s", strerror(-r));
	for (uint64_t i = 0; i < options->parallel; i++)
		aph_rx_call_free(slots[i].call);
	aph_rx_client_free(client.to);
	perf_close(udp);
	free(slots);
	return r < 0 ? CLI_FAILED : CLI_OK;
}
