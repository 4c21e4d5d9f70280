/* SPDX-License-Identifier: MIT */
/*
 * The server of the rxperf test. Each call takes in its head, then as much data as that says, then
 * replies. A caller who does not keep to it is aborted.
 */
#include "rx_perf.h"
#include "json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK	 65536
#define LIST_MAX ((size_t)1024)			     /* words of a FILE list */
#define FIXED	 ((size_t)4 * (PERF_HEAD_WORDS + 1)) /* octets with one parameter */
#define TOO_MUCH (UINT64_C(1) << 40)		     /* octets that a list may call for */

enum step {
	STEP_HEAD,
	STEP_DATA,
	STEP_REPLY,
	STEP_DONE,
};

struct work {
	enum step step;
	size_t head_len; /* octets of the head that are here */
	uint64_t to_read;
	uint64_t to_write; /* octets of data in the reply */
	uint64_t written;
	size_t cookie_len;
	uint8_t head[FIXED + sizeof(uint32_t) * LIST_MAX];
};

static const uint8_t zeros[CHUNK];

/* The head's length as far as it can be told; 0: what is there makes no sense. */
static size_t head_wanted(const struct work *work)
{
	uint32_t count;

	if (work->head_len < FIXED)
		return FIXED;
	if (perf_get32(work->head) != PERF_VERSION)
		return 0;
	switch (perf_get32(work->head + 4)) {
	case PERF_SEND:
	case PERF_RECV:
		return FIXED;
	case PERF_RPC:
		return FIXED + 4;
	case PERF_FILE:
		count = perf_get32(work->head + FIXED - 4);
		return count <= LIST_MAX ? FIXED + 4 * (size_t)count : 0;
	default:
		return 0;
	}
}

/* Adds up a FILE list. One turn of direction is what the protocol allows. */
static int read_list(struct work *work)
{
	const uint8_t *list = work->head + FIXED;
	size_t n = (work->head_len - FIXED) / 4;
	bool turned = false;

	for (size_t i = 0; i < n; i++) {
		uint64_t octets = 4 * (uint64_t)perf_get32(list + 4 * i);

		if (octets == 0 && turned)
			return -EINVAL;
		if (octets == 0)
			turned = true;
		else if (turned)
			work->to_write += octets;
		else
			work->to_read += octets;
	}
	return work->to_read < TOO_MUCH && work->to_write < TOO_MUCH ? 0 : -EINVAL;
}

/* The head is complete. */
static int understand(struct work *work)
{
	const uint8_t *parameters = work->head + FIXED - 4;

	work->cookie_len = 4;
	switch (perf_get32(work->head + 4)) {
	case PERF_SEND:
		work->to_read = perf_get32(parameters);
		return 0;
	case PERF_RECV:
		work->to_write = perf_get32(parameters);
		return 0;
	case PERF_RPC:
		work->to_read = perf_get32(parameters);
		work->to_write = perf_get32(parameters + 4);
		return 0;
	default:
		work->cookie_len = 0;
		return read_list(work);
	}
}

/* 1: the head is here; 0: more of it has to come; else -errno. */
static int read_head(struct work *work, struct aph_rx_call *call)
{
	size_t wanted;

	while ((wanted = head_wanted(work)) > work->head_len) {
		ssize_t n = aph_rx_call_read(call, work->head + work->head_len,
					     wanted - work->head_len, 0);

		if (n <= 0)
			return n == -EAGAIN ? 0 : -EINVAL;
		work->head_len += (size_t)n;
	}
	if (wanted == 0 || understand(work) < 0)
		return -EINVAL;
	return 1;
}

static int read_data(struct work *work, struct aph_rx_call *call)
{
	const void *data;
	size_t len;
	int r;

	while ((r = aph_rx_call_borrow(call, &data, &len)) == 0 && len > 0) {
		if (len > work->to_read)
			return -EINVAL;
		work->to_read -= len;
		aph_rx_call_release(call, len);
	}
	if (r < 0)
		return r == -EAGAIN ? 0 : r;
	return work->to_read == 0 ? 1 : -EINVAL;
}

static int write_reply(struct work *work, struct aph_rx_call *call)
{
	uint8_t cookie[4];
	ssize_t n;

	perf_put32(cookie, PERF_COOKIE);
	while (work->written < work->to_write) {
		uint64_t left = work->to_write - work->written;
		size_t len = left < CHUNK ? (size_t)left : CHUNK;

		n = aph_rx_call_write(call, zeros, len,
				      len < left || work->cookie_len ? APH_RX_MORE : 0);
		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		work->written += (size_t)n;
		if ((size_t)n < len)
			return 0;
	}
	if (work->cookie_len > 0 || work->to_write == 0) {
		uint64_t done = work->written - work->to_write;

		n = aph_rx_call_write(call, cookie + done, work->cookie_len - (size_t)done, 0);
		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		work->written += (size_t)n;
	}
	return work->written == work->to_write + work->cookie_len ? 1 : 0;
}

static void let_go(struct aph_rx_call *call)
{
	free(aph_rx_call_data(call));
	aph_rx_call_free(call);
}

/* As far as it goes now. */
static void work_on(struct aph_rx_call *call)
{
	struct work *work = aph_rx_call_data(call);
	int r = 1;

	while (work->step != STEP_DONE && r > 0) {
		switch (work->step) {
		case STEP_HEAD:
			r = read_head(work, call);
			break;
		case STEP_DATA:
			r = read_data(work, call);
			break;
		case STEP_REPLY:
			r = write_reply(work, call);
			break;
		case STEP_DONE:
			break;
		}
		if (r > 0)
			work->step++;
	}
	if (r == -EINVAL) {
		(void)aph_rx_call_abort(call, APH_RX_PROTOCOL_ERROR);
		let_go(call);
	} else if (work->step == STEP_DONE) {
		/* The reply goes on to the client by itself. */
		let_go(call);
	}
}

static void handle(const struct aph_rx_event *event)
{
	struct work *work;

	switch (event->type) {
	case APH_RX_EVENT_CALL:
		work = calloc(1, sizeof(*work));
		if (work == NULL) {
			(void)aph_rx_call_abort(event->call, APH_RX_RESTARTING);
			aph_rx_call_free(event->call);
			return;
		}
		aph_rx_call_set_data(event->call, work);
		work_on(event->call);
		return;
	case APH_RX_EVENT_READABLE:
	case APH_RX_EVENT_WRITABLE:
		work_on(event->call);
		return;
	case APH_RX_EVENT_END:
		let_go(event->call);
		return;
	}
}

static int serve_until_interrupted(struct aph_rx_udp *udp)
{
	struct aph_rx *rx = aph_rx_udp_engine(udp);
	struct aph_rx_event event;
	int r = 0;

	while (!perf_interrupted() && r == 0) {
		r = aph_rx_udp_wait(udp, APH_FOREVER);
		if (r == -EINTR || r == -ECANCELED)
			r = 0;
		while (r == 0 && aph_rx_next(rx, &event))
			handle(&event);
	}
	if (r < 0)
		cli_error("cannot go on: %s", strerror(-r));
	return r;
}

/* It can be called now, and where. A cli_status: nobody finds one that cannot say so. */
static int announce(const struct perf_options *options, const struct aph_rx_address *address)
{
	char text[RX_ADDRESS_TEXT];
	struct json json;

	(void)rx_address_text(text, sizeof(text), address);
	if (options->json) {
		json_init(&json, stdout);
		json_begin_object(&json, NULL);
		json_uint(&json, "service", options->service);
		json_string(&json, "address", text);
		json_end(&json);
	} else {
		printf("service %u at %s\n", options->service, text);
	}
	return cli_finish(CLI_OK);
}

int perf_server(const struct perf_options *options)
{
	struct aph_rx_service *service;
	struct aph_rx_address address;
	struct aph_rx_udp *udp;
	int r, status = CLI_FAILED;

	if (perf_open(&udp, &options->address, options->window) < 0)
		return CLI_FAILED;
	perf_watch_signals(udp);
	r = aph_rx_service_add(&service, aph_rx_udp_engine(udp), options->service, NULL);
	if (r == 0)
		r = aph_rx_udp_address(udp, &address);
	if (r == 0) {
		status = announce(options, &address);
		if (status == CLI_OK && serve_until_interrupted(udp) < 0)
			status = CLI_FAILED;
	} else {
		cli_error("cannot serve: %s", strerror(-r));
	}
	perf_close(udp);
	return status;
}
