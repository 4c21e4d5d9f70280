/* SPDX-License-Identifier: MIT */
/*
 * Collecting requests within limits. What a channel is charged is kept in its data pointer: it
 * needs no memory and goes away with the channel.
 */
#include "serve_collect.h"

#include "cli.h"
#include "format.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE_MIN 4096
/* What all channels together may have collected, in units of the limit for one request. */
#define COLLECTED_FACTOR 16

static size_t channel_charge(const struct request *request)
{
	return (size_t)(uintptr_t)aph_channel_data(aph_call_channel(request->call));
}

static void charge(struct request *request, size_t bytes)
{
	aph_channel_set_data(aph_call_channel(request->call),
			     (void *)(uintptr_t)(channel_charge(request) + bytes));
	request->charged += bytes;
}

/* Before the call is given away, as the channel may go with it. */
static void discharge(struct request *request)
{
	aph_channel_set_data(aph_call_channel(request->call),
			     (void *)(uintptr_t)(channel_charge(request) - request->charged));
	request->charged = 0;
}

static void detach(struct collector *collector, struct request *request)
{
	struct request_list *list = request->complete ? &collector->ready : &collector->collecting;

	TAILQ_REMOVE(list, request, link);
}

static void refuse(struct collector *collector, struct request *request, enum aph_reason reason)
{
	serve_record_finish(collector->serve, &request->record, "refused", 0);
	discharge(request);
	aph_call_refuse(request->call, reason);
	detach(collector, request);
	collector_free(collector, request);
}

static void refuse_for(struct collector *collector, struct request *request, int error)
{
	struct text text;

	if (error == -E2BIG) {
		cli_error("refused a request of more than %s; --request-max allows more",
			  format_bytes(&text, (double)collector->serve->options.request_max));
		refuse(collector, request, APH_REASON_POLICY);
		return;
	}
	refuse(collector, request, error == -ENOBUFS ? APH_REASON_BUSY : APH_REASON_RESOURCES);
}

/*
 * Makes room for `more` bytes. 0, or -E2BIG (too long a request), -ENOBUFS (too many at once),
 * -ENOMEM.
 */
static int grow(struct collector *collector, struct request *request, size_t more)
{
	size_t request_max = (size_t)collector->serve->options.request_max + FRAME_HEADER_LEN;
	size_t wanted = request->len + more;
	size_t size = request->size == 0 ? SIZE_MIN : request->size;
	unsigned char *frame;
	size_t added;

	if (wanted > request_max)
		return -E2BIG;
	if (wanted <= request->size)
		return 0;
	while (size < wanted)
		size *= 2;
	added = size - request->size;
	/* A complete one is collected because it is the next: one at a time needs no limit. */
	if (!request->complete && (channel_charge(request) + added > 2 * request_max ||
				   collector->collected + added > COLLECTED_FACTOR * request_max))
		return -ENOBUFS;
	frame = realloc(request->frame, size);
	if (frame == NULL)
		return -ENOMEM;
	request->frame = frame;
	request->size = size;
	collector->collected += added;
	charge(request, added);
	return 0;
}

/*
 * Collects what has arrived. 1 when it is all here, 0 when more is to come, or an error of grow().
 * A call that is over is left to its END event.
 */
static int collect(struct collector *collector, struct request *request)
{
	const void *data;
	size_t len;
	int r;

	if (request->len == 0) {
		r = grow(collector, request, FRAME_HEADER_LEN);
		if (r < 0)
			return r;
		request->len = FRAME_HEADER_LEN;
	}
	for (;;) {
		r = aph_call_borrow(request->call, &data, &len);
		if (r == -ENODATA)
			return 1;
		if (r < 0)
			return 0;
		r = grow(collector, request, len);
		if (r < 0) {
			aph_call_release(request->call, 0);
			return r;
		}
		memcpy(request->frame + request->len, data, len);
		request->len += len;
		aph_call_release(request->call, len);
	}
}

void collector_init(struct collector *collector, struct serve *serve)
{
	memset(collector, 0, sizeof(*collector));
	TAILQ_INIT(&collector->collecting);
	TAILQ_INIT(&collector->ready);
	collector->serve = serve;
}

void collector_add(struct collector *collector, struct aph_call *call)
{
	struct request *request = calloc(1, sizeof(*request));

	if (request == NULL) {
		aph_call_refuse(call, APH_REASON_RESOURCES);
		return;
	}
	request->call = call;
	serve_record_begin(&request->record, call);
	aph_call_set_data(call, request);
	TAILQ_INSERT_TAIL(&collector->collecting, request, link);
	collector_advance(collector, request);
}

void collector_advance(struct collector *collector, struct request *request)
{
	int r;

	if (request->complete)
		return;
	/*
	 * One that is whole in the channel costs nothing there: it is collected when its turn
	 * comes.
	 */
	r = aph_call_body_complete(request->call) ? 1 : collect(collector, request);
	if (r < 0) {
		refuse_for(collector, request, r);
	} else if (r > 0) {
		TAILQ_REMOVE(&collector->collecting, request, link);
		TAILQ_INSERT_TAIL(&collector->ready, request, link);
		request->complete = true;
	}
}

static void write_header(struct request *request)
{
	size_t body_len = request->len - FRAME_HEADER_LEN;

	for (size_t i = 0; i < FRAME_HEADER_LEN; i++)
		request->frame[i] =
			(unsigned char)(body_len >> (8 * (FRAME_HEADER_LEN - 1 - i)) & 0xff);
	request->record.request_bytes = body_len;
}

struct request *collector_take(struct collector *collector)
{
	struct request *request, *following;
	int fd, r;

	for (request = TAILQ_FIRST(&collector->ready); request != NULL; request = following) {
		following = TAILQ_NEXT(request, link);
		r = collect(collector, request);
		if (r < 0) {
			refuse_for(collector, request, r);
		} else if (r > 0 && aph_call_take_fds(request->call, &fd, 1) > 0) {
			/* A request must not run without what came with it. */
			close(fd);
			cli_error("refused a request with descriptors: --persistent cannot pass "
				  "them on");
			refuse(collector, request, APH_REASON_POLICY);
		} else if (r > 0) {
			TAILQ_REMOVE(&collector->ready, request, link);
			discharge(request);
			write_header(request);
			return request;
		}
	}
	return NULL;
}

void collector_put_back(struct collector *collector, struct request *request)
{
	TAILQ_INSERT_HEAD(&collector->ready, request, link);
}

void collector_free(struct collector *collector, struct request *request)
{
	collector->collected -= request->size;
	free(request->frame);
	free(request);
}

bool collector_is_empty(const struct collector *collector)
{
	return TAILQ_EMPTY(&collector->collecting) && TAILQ_EMPTY(&collector->ready);
}

void collector_abandon(struct collector *collector, struct request *request)
{
	serve_record_finish(collector->serve, &request->record, "gone", 0);
	discharge(request);
	aph_call_free(request->call);
	detach(collector, request);
	collector_free(collector, request);
}

static void refuse_list(struct collector *collector, struct request_list *list,
			enum aph_reason reason)
{
	struct request *request, *following;

	for (request = TAILQ_FIRST(list); request != NULL; request = following) {
		following = TAILQ_NEXT(request, link);
		refuse(collector, request, reason);
	}
}

void collector_refuse_all(struct collector *collector, enum aph_reason reason)
{
	refuse_list(collector, &collector->collecting, reason);
	refuse_list(collector, &collector->ready, reason);
}
