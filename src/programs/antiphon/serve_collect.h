/* SPDX-License-Identifier: MIT */
/*
 * Requests on their way to the one process of `antiphon serve --persistent`.
 *
 * A frame says its length first, so a request is collected whole before its turn comes. One that
 * has arrived whole stays in the channel's own memory until then; only a larger one is collected
 * here, within limits that are charged to its channel and to all of them together, and it never
 * holds up those that are complete.
 */
#ifndef ANTIPHON_CLI_SERVE_COLLECT_H
#define ANTIPHON_CLI_SERVE_COLLECT_H

#include "serve.h"

#include <sys/queue.h>

#define FRAME_HEADER_LEN 4

struct request {
	TAILQ_ENTRY(request) link;
	struct aph_call *call; /* NULL once the caller has gone */
	bool complete;	       /* it is on the ready list, or was taken from it */
	unsigned char *frame;  /* with its header, as far as it was collected */
	size_t len;
	size_t size;
	size_t charged; /* to its channel */
	struct serve_record record;
};

TAILQ_HEAD(request_list, request);

struct collector {
	struct serve *serve;
	struct request_list collecting;
	struct request_list ready;
	size_t collected; /* bytes in all requests */
};

void collector_init(struct collector *collector, struct serve *serve);

/* A new call: it becomes the `data` of the call, or is refused. */
void collector_add(struct collector *collector, struct aph_call *call);

/* More of the request may be there. */
void collector_advance(struct collector *collector, struct request *request);

/*
 * The next request that is complete, as a frame; NULL if there is none. It is the caller's then,
 * until collector_put_back() makes it the next again or collector_free() frees it.
 */
struct request *collector_take(struct collector *collector);
void collector_put_back(struct collector *collector, struct request *request);
void collector_free(struct collector *collector, struct request *request);

/* True when there is none that was not taken. */
bool collector_is_empty(const struct collector *collector);

/* The caller of one that was not taken has gone. */
void collector_abandon(struct collector *collector, struct request *request);

/* Refuses all that were not taken. */
void collector_refuse_all(struct collector *collector, enum aph_reason reason);

#endif
