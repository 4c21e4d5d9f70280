/* SPDX-License-Identifier: MIT */
#include "client.h"

#include "check.h"
#include "pattern.h"
#include "service.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void client_open(struct client *client, const char *address)
{
	CHECK_OK(aph_endpoint_new(&client->ep, NULL));
	CHECK_OK(aph_channel_open(&client->channel, client->ep, address, NULL));
}

void client_close(struct client *client)
{
	CHECK(aph_channel_close(client->channel) == NULL);
	CHECK(aph_endpoint_free(client->ep) == NULL);
	client->channel = NULL;
	client->ep = NULL;
}

void client_next(struct aph_endpoint *ep, struct aph_event *ev, int timeout_ms)
{
	uint64_t deadline = aph_deadline_ms((uint64_t)check_hang_ms(timeout_ms));
	int r;

	do {
		r = aph_endpoint_next(ep, ev, deadline);
	} while (r == -EINTR);
	CHECK_OK(r);
}

struct aph_event client_expect(struct aph_endpoint *ep, enum aph_event_type type,
			       const struct aph_call *call)
{
	struct aph_event ev;

	client_next(ep, &ev, 3000);
	if (ev.type != type)
		fprintf(stderr, "event %s came, not %s; result %s, %s\n", aph_event_name(ev.type),
			aph_event_name(type), aph_outcome_name(ev.result.outcome),
			aph_reason_name(ev.result.reason));
	CHECK(ev.type == type);
	CHECK(!call || ev.call == call);
	return ev;
}

void client_check_result(struct aph_result got, enum aph_outcome outcome, enum aph_reason reason)
{
	if (got.outcome != outcome || got.reason != reason)
		fprintf(stderr, "the result is %s, %s, not %s, %s\n", aph_outcome_name(got.outcome),
			aph_reason_name(got.reason), aph_outcome_name(outcome),
			aph_reason_name(reason));
	CHECK(got.outcome == outcome && got.reason == reason);
}

/* It is over, and there is nothing more to be had from it. */
static void check_over(struct aph_call *call)
{
	ssize_t n;
	char byte;

	do {
		n = aph_call_read(call, &byte, 1);
	} while (n > 0);
	CHECK(n == -EPIPE);
	CHECK(aph_call_send(call, "x", 1, 0) == -EPIPE);
	CHECK(aph_call_cancel(call) == -EALREADY);
}

void client_expect_ends(const struct client *client, struct aph_call **calls, size_t n,
			enum aph_outcome outcome, enum aph_reason reason, bool closed, int limit_ms)
{
	struct aph_event ev;
	size_t i;

	for (size_t left = n + closed; left > 0;) {
		client_next(client->ep, &ev, limit_ms);
		if (ev.type == APH_EVENT_REPLY || ev.type == APH_EVENT_WRITABLE)
			continue;
		left--;
		if (ev.type == APH_EVENT_CLOSED) {
			CHECK(closed && ev.channel == client->channel);
			CHECK(ev.result.reason == APH_REASON_CLOSED);
			closed = false;
			continue;
		}
		CHECK(ev.type == APH_EVENT_END);
		for (i = 0; i < n && calls[i] != ev.call; i++)
			;
		CHECK(i < n);
		client_check_result(ev.result, outcome, reason);
		check_over(ev.call);
		calls[i] = aph_call_free(ev.call);
	}
	client_quiet(client->ep, 10);
}

void client_quiet(struct aph_endpoint *ep, int ms)
{
	struct aph_event ev;
	int r = aph_endpoint_next(ep, &ev, aph_deadline_ms((uint64_t)ms));

	if (r == 0)
		fprintf(stderr, "event %s came, result %s, %s\n", aph_event_name(ev.type),
			aph_outcome_name(ev.result.outcome), aph_reason_name(ev.result.reason));
	CHECK(r == -ETIMEDOUT);
}

struct aph_call *client_begin(struct aph_channel *channel, const void *request, size_t len,
			      uint64_t deadline_ns)
{
	struct aph_call *call;

	CHECK_OK(aph_call_new(&call, channel, deadline_ns, NULL));
	CHECK(client_send(call, request, len, 0));
	return call;
}

#define LATE_MS	    50u	  /* how near a deadline is, at first */
#define LATE_MS_MAX 6000u /* a machine on which that is too near hangs */

struct aph_call *client_begin_late(struct aph_channel *channel, const struct service *service,
				   const char *op, uint64_t *deadline_ns)
{
	const struct timespec nap = { .tv_nsec = 200000 };
	struct aph_call *call;
	uint32_t held;

	/* It may still be at the end of an earlier one. */
	client_echo(channel);
	held = service->seen->held;
	for (unsigned ms = LATE_MS;; ms *= 2) {
		*deadline_ns = aph_deadline_ms(ms);
		CHECK_OK(aph_call_new(&call, channel, *deadline_ns, NULL));
		if (client_send(call, op, 1, 0)) {
			while (service->seen->held == held && aph_time_ns() < *deadline_ns)
				nanosleep(&nap, NULL);
			if (service->seen->held > held)
				return call;
		}
		CHECK(ms < LATE_MS_MAX);
		aph_call_free(call);
		client_echo(channel);
		service_await(&service->seen->held, held);
	}
}

int client_call_late(struct aph_channel *channel, const char *op, uint64_t *deadline_ns)
{
	int r;

	for (unsigned ms = LATE_MS;; ms *= 2) {
		*deadline_ns = aph_deadline_ms(ms);
		r = aph_call(channel, op, 1, NULL, NULL, *deadline_ns);
		if (r != APH_REFUSED)
			return r;
		/* Nobody had received it in that time. */
		CHECK(aph_channel_result(channel).reason == APH_REASON_DEADLINE);
		CHECK(ms < LATE_MS_MAX);
	}
}

int client_send(struct aph_call *call, const void *data, size_t len, unsigned flags)
{
	uint64_t deadline = aph_deadline_ms((uint64_t)check_ms(10000));
	const char *at = data ? data : "";
	ssize_t n;

	for (;;) {
		n = aph_call_send(call, at, len, flags);
		if (n == -EPIPE || n == -ENOTCONN)
			return 0;
		CHECK(n >= 0 || n == -EAGAIN);
		if (n >= 0) {
			at += n;
			len -= (size_t)n;
			if (len == 0)
				return 1;
		}
		CHECK_OK(aph_call_wait(call, deadline));
	}
}

struct aph_result client_end(struct aph_endpoint *ep, struct aph_call *call, void *reply,
			     size_t *len)
{
	struct aph_event ev = { .type = APH_EVENT_NONE };
	size_t got = 0, room = len ? *len : 0;
	unsigned char waste[4096];
	struct aph_result known;
	ssize_t n;

	for (;;) {
		do {
			if (room > got)
				n = aph_call_read(call, (char *)reply + got, room - got);
			else
				n = aph_call_read(call, waste, sizeof(waste));
			got += n > 0 ? (size_t)n : 0;
		} while (n > 0);
		CHECK(n == 0 || n == -EAGAIN || n == -EPIPE);
		if (ev.type == APH_EVENT_END)
			break;
		client_next(ep, &ev, 10000);
		CHECK(ev.call == call);
		CHECK(ev.type == APH_EVENT_REPLY || ev.type == APH_EVENT_READABLE ||
		      ev.type == APH_EVENT_WRITABLE || ev.type == APH_EVENT_END);
	}
	/* After ANSWERED everything is there: nothing may be waited for any more. */
	CHECK(ev.result.outcome == APH_ANSWERED ? n == 0 : n == -EPIPE);
	CHECK(aph_call_result(call, &known) == 1);
	CHECK(known.outcome == ev.result.outcome && known.reason == ev.result.reason &&
	      known.code == ev.result.code);
	if (len)
		*len = got;
	return ev.result;
}

uint64_t client_echo(struct aph_channel *channel)
{
	static _Atomic uint32_t number;
	char request[32] = "e", reply[32];
	size_t len = sizeof(reply);
	uint64_t start = aph_time_ns();
	int n = snprintf(request, sizeof(request), "echo %u", number++);

	int r = aph_call(channel, request, (size_t)n, reply, &len,
			 aph_deadline_ms((uint64_t)check_ms(10000)));
	struct aph_result result = aph_channel_result(channel);

	if (r != 0)
		fprintf(stderr, "an echo ended with %d: %s, %s, code %d\n", r,
			aph_outcome_name(result.outcome), aph_reason_name(result.reason),
			result.code);
	CHECK(r == APH_ANSWERED && result.outcome == APH_ANSWERED);
	CHECK(len == (size_t)n && memcmp(request, reply, len) == 0);
	return aph_time_ns() - start;
}

void client_get(struct aph_endpoint *ep, struct aph_channel *channel, char op, uint64_t len,
		uint32_t seed)
{
	struct service_get get = { .len = len, .seed = seed };
	unsigned char request[1 + sizeof(get)], buf[20000];
	struct aph_call *call;
	struct aph_event ev;
	uint64_t got = 0;
	ssize_t n;

	request[0] = (unsigned char)op;
	memcpy(request + 1, &get, sizeof(get));
	call = client_begin(channel, request, sizeof(request), aph_deadline_ms(60000));
	do {
		client_next(ep, &ev, 10000);
		CHECK(ev.call == call);
		while ((n = aph_call_read(call, buf, sizeof(buf))) > 0) {
			CHECK(pattern_check(buf, (size_t)n, got, seed) == (size_t)n);
			got += (size_t)n;
		}
		CHECK(n == 0 || n == -EAGAIN);
	} while (ev.type != APH_EVENT_END);
	CHECK(ev.result.outcome == APH_ANSWERED);
	CHECK(got == len);
	aph_call_free(call);
}

void client_put(struct aph_endpoint *ep, struct aph_channel *channel, uint64_t len, uint32_t seed)
{
	struct service_get put = { .len = len, .seed = seed };
	unsigned char head[1 + sizeof(put)] = "D", buf[20000];
	struct service_sum answer;
	struct aph_call *call;
	size_t n = sizeof(answer);
	uint64_t sum = 0, at;

	memcpy(head + 1, &put, sizeof(put));
	CHECK_OK(aph_call_new(&call, channel, aph_deadline_ms(60000), NULL));
	CHECK(client_send(call, head, sizeof(head), APH_MORE));
	for (at = 0; at < len; at += n) {
		n = len - at < sizeof(buf) ? (size_t)(len - at) : sizeof(buf);
		pattern_fill(buf, n, at, seed);
		sum = pattern_sum(sum, buf, n);
		CHECK(client_send(call, buf, n, at + n < len ? APH_MORE : 0));
	}
	if (len == 0)
		CHECK(client_send(call, NULL, 0, 0));
	n = sizeof(answer);
	CHECK(client_end(ep, call, &answer, &n).outcome == APH_ANSWERED);
	CHECK(n == sizeof(answer));
	if (answer.len != len || answer.wrong_at != UINT64_MAX || answer.sum != sum)
		fprintf(stderr, "%" PRIu64 " bytes arrived as %" PRIu64 ", wrong at %" PRIu64 "\n",
			len, answer.len, answer.wrong_at);
	CHECK(answer.wrong_at == UINT64_MAX);
	CHECK(answer.len == len);
	CHECK(answer.sum == sum);
	aph_call_free(call);
}
