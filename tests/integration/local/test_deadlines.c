/* SPDX-License-Identifier: MIT */
/*
 * Deadlines and cancelling: what the client is told, that the service is told too, and that REFUSED
 * is said exactly when nobody has received the request.
 */
#include "suite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TRIES 20

/*
 * A deadline is never told early. It is told promptly, where this process is let run then: one of
 * TRIES has to be, and all of them before a hang is thought of.
 */
static bool has_just_passed(uint64_t deadline)
{
	uint64_t now = aph_time_ns();

	assert_true(now >= deadline);
	return now - deadline < (uint64_t)check_ms(50) * 1000000;
}

static void the_service_sees_the_deadline(void **state)
{
	struct service service;
	struct client client;
	uint64_t deadline = aph_deadline_ms(123456), seen;
	size_t len = sizeof(seen);

	(void)state;
	service_start_simple(&service, suite_mode, "time");
	client_open(&client, "time");
	assert_int_equal(aph_call(client.channel, "t", 1, &seen, &len, deadline), 0);
	assert_int_equal(len, sizeof(seen));
	assert_true(seen == deadline);
	len = sizeof(seen);
	assert_int_equal(aph_call(client.channel, "t", 1, &seen, &len, APH_FOREVER), 0);
	assert_true(seen == APH_FOREVER);
	client_close(&client);
	service_stop(&service);
}

static void deadline_of_a_received_call(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_event ev;
	uint64_t deadline;
	bool is_prompt;
	uint32_t gone;
	int n;

	(void)state;
	service_start_simple(&service, suite_mode, "late");
	client_open(&client, "late");
	client_echo(client.channel);
	for (n = 0, is_prompt = false; !is_prompt && n < TRIES; n++) {
		call = client_begin_late(client.channel, &service, "h", &deadline);
		gone = service.seen->gone_for[APH_REASON_DEADLINE];
		assert_true(aph_call_deadline(call) == deadline);
		ev = client_expect(client.ep, APH_EVENT_END, call);
		is_prompt = has_just_passed(deadline);
		client_check_result(ev.result, APH_LOST, APH_REASON_DEADLINE);
		aph_call_free(call);
		service_await(&service.seen->gone_for[APH_REASON_DEADLINE], gone + 1);
	}
	assert_true(is_prompt);
	/* With part of the reply there. */
	call = client_begin_late(client.channel, &service, "p", &deadline);
	gone = service.seen->gone_for[APH_REASON_DEADLINE];
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_LOST, APH_REASON_DEADLINE);
	aph_call_free(call);
	service_await(&service.seen->gone_for[APH_REASON_DEADLINE], gone + 1);
	/* In the one-shot form. */
	for (n = 0, is_prompt = false; !is_prompt && n < TRIES; n++) {
		assert_int_equal(client_call_late(client.channel, "h", &deadline), APH_LOST);
		is_prompt = has_just_passed(deadline);
		client_check_result(aph_channel_result(client.channel), APH_LOST,
				    APH_REASON_DEADLINE);
		service_await(&service.seen->held, 0);
	}
	assert_true(is_prompt);
	assert_true(service.seen->gone_for[APH_REASON_DEADLINE] > gone + 1);
	service_await(&service.seen->works, 0);
	client_echo(client.channel);
	client_quiet(client.ep, 10);
	client_close(&client);
	service_stop(&service);
}

static void deadline_that_has_passed(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_result result;
	int r;

	(void)state;
	service_start_simple(&service, suite_mode, "late");
	client_open(&client, "late");
	r = aph_call(client.channel, "h", 1, NULL, NULL, APH_NOW);
	assert_true(r == APH_REFUSED || r == APH_LOST);
	assert_int_equal(aph_channel_result(client.channel).reason, APH_REASON_DEADLINE);
	assert_int_equal(aph_call_new(&call, client.channel, aph_time_ns() - 1, NULL), 0);
	result = client_end(client.ep, call, NULL, NULL);
	client_check_result(result, APH_REFUSED, APH_REASON_DEADLINE);
	assert_int_equal(aph_call_send(call, "h", 1, 0), -EPIPE);
	aph_call_free(call);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

/* Refused at a service that is stopped, and it never sees the request when it goes on. */
static void stopped_service(int by_cancel)
{
	struct service service;
	struct client client;
	struct aph_call *calls[6];
	struct aph_event ev;
	static char large[60000] = "h";

	if (suite_mode == SERVICE_THREAD)
		suite_skip("needs a service that can be stopped");
	service_start_simple(&service, suite_mode, "stopped");
	client_open(&client, "stopped");
	client_echo(client.channel);
	child_signal(&service.child, SIGSTOP);
	child_await_state(service.child.pid, 'T', check_hang_ms(2000));
	for (size_t i = 0; i < SUITE_LEN(calls); i++) {
		uint64_t deadline = by_cancel ? APH_FOREVER : aph_deadline_ms(40);
		ssize_t n;

		assert_int_equal(aph_call_new(&calls[i], client.channel, deadline, NULL), 0);
		n = aph_call_send(calls[i], large, i % 2 ? sizeof(large) : 1, 0);
		assert_true(n > 0 || (n == -EPIPE && aph_time_ns() >= deadline));
	}
	if (by_cancel)
		for (size_t i = 0; i < SUITE_LEN(calls); i++)
			assert_int_equal(aph_call_cancel(calls[i]), 0);
	for (size_t i = 0; i < SUITE_LEN(calls); i++) {
		client_next(client.ep, &ev, 3000);
		assert_int_equal(ev.type, APH_EVENT_END);
		client_check_result(ev.result, APH_REFUSED,
				    by_cancel ? APH_REASON_CANCELLED : APH_REASON_DEADLINE);
		aph_call_free(ev.call);
	}
	child_signal(&service.child, SIGCONT);
	client_echo(client.channel);
	client_echo(client.channel);
	assert_int_equal(service.seen->requests, 3);
	service_await(&service.seen->works, 0);
	assert_int_equal(service.seen->gone, 0);
	client_put(client.ep, client.channel, 1000000, 8);
	client_close(&client);
	service_stop(&service);
}

static void deadline_at_a_stopped_service(void **state)
{
	(void)state;
	stopped_service(0);
}

static void cancel_at_a_stopped_service(void **state)
{
	(void)state;
	stopped_service(1);
}

/* Received and then stopped: it may have run. */
static void deadline_at_a_service_stopped_later(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call, *unsent;
	struct aph_event ev;
	uint64_t deadline, unsent_deadline;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("needs a service that can be stopped");
	service_start_simple(&service, suite_mode, "stopped");
	client_open(&client, "stopped");
	/*
	 * Stopped in the face of its deadline, and asked for something else, whose deadline may be
	 * before that.
	 */
	call = client_begin_late(client.channel, &service, "h", &deadline);
	child_signal(&service.child, SIGSTOP);
	child_await_state(service.child.pid, 'T', check_hang_ms(10000));
	unsent_deadline = aph_deadline_ms(30);
	CHECK_OK(aph_call_new(&unsent, client.channel, unsent_deadline, NULL));
	(void)client_send(unsent, "h", 1, 0);
	for (int i = 0; i < 2; i++) {
		client_next(client.ep, &ev, 3000);
		assert_int_equal(ev.type, APH_EVENT_END);
		if (ev.call == call) {
			assert_true(aph_time_ns() >= deadline);
			client_check_result(ev.result, APH_LOST, APH_REASON_DEADLINE);
		} else {
			assert_true(aph_time_ns() >= unsent_deadline);
			client_check_result(ev.result, APH_REFUSED, APH_REASON_DEADLINE);
		}
	}
	aph_call_free(unsent);
	aph_call_free(call);
	child_signal(&service.child, SIGCONT);
	service_await(&service.seen->works, 0);
	assert_true(service.seen->gone_for[APH_REASON_DEADLINE] >= 1);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

static void cancel_of_a_received_call(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;

	(void)state;
	service_start_simple(&service, suite_mode, "cancel");
	client_open(&client, "cancel");
	call = client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	assert_int_equal(aph_call_cancel(call), 0);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_LOST,
			    APH_REASON_CANCELLED);
	assert_int_equal(aph_call_cancel(call), -EALREADY);
	aph_call_free(call);
	service_await(&service.seen->gone_for[APH_REASON_CANCELLED], 1);
	service_await(&service.seen->works, 0);
	/* Freed without a word: cancelled too, and no event. */
	call = client_begin(client.channel, "p", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	aph_call_free(call);
	service_await(&service.seen->gone_for[APH_REASON_CANCELLED], 2);
	client_quiet(client.ep, 10);
	/* Nothing sent yet: nobody has received it, and nobody ever will. */
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_cancel(call), 0);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_REFUSED,
			    APH_REASON_CANCELLED);
	aph_call_free(call);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

/* In the middle of a long request, and of a long reply. */
static void cancel_in_the_middle(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	struct service_get get = { .len = 5000000 };
	static char data[150000] = "d";
	char request[1 + sizeof(get)] = "g";

	(void)state;
	service_start_simple(&service, suite_mode, "cancel");
	client_open(&client, "cancel");
	memcpy(request + 1, &get, sizeof(get));
	for (int i = 0; i < 30; i++) {
		assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
		assert_true(client_send(call, data, sizeof(data), APH_MORE));
		assert_int_equal(aph_call_cancel(call), 0);
		assert_int_equal(client_end(client.ep, call, NULL, NULL).reason,
				 APH_REASON_CANCELLED);
		aph_call_free(call);

		call = client_begin(client.channel, request, sizeof(request), APH_FOREVER);
		client_expect(client.ep, APH_EVENT_REPLY, call);
		if (i % 2) {
			assert_int_equal(aph_call_cancel(call), 0);
			client_check_result(client_end(client.ep, call, NULL, NULL), APH_LOST,
					    APH_REASON_CANCELLED);
		}
		aph_call_free(call);
	}
	service_await(&service.seen->works, 0);
	client_put(client.ep, client.channel, 1000000, 1);
	client_get(client.ep, client.channel, 'g', 1000000, 2);
	client_close(&client);
	service_stop(&service);
}

/* Answer and cancel cross: one outcome, whichever it is, and the service agrees with it. */
static void cancel_races_with_the_answer(void **state)
{
	struct service_config config = { .address = "race",
					 .options.flags = APH_SERVICE_RECEIPTS_NOW };
	struct rng rng = { .state = check_seed() };
	unsigned answered = 0, cancelled = 0, refused = 0;
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_result result;

	(void)state;
	service_start(&service, suite_mode, &config);
	client_open(&client, "race");
	for (int i = 0; i < 3000; i++) {
		uint64_t until = aph_time_ns() + rng_below(&rng, 20000);

		call = client_begin(client.channel, "e", 1, APH_FOREVER);
		while (aph_time_ns() < until)
			;
		(void)aph_call_cancel(call);
		result = client_end(client.ep, call, NULL, NULL);
		aph_call_free(call);
		if (result.outcome == APH_ANSWERED) {
			answered++;
			continue;
		}
		assert_int_equal(result.reason, APH_REASON_CANCELLED);
		if (result.outcome == APH_REFUSED)
			refused++;
		else
			cancelled++;
	}
	client_echo(client.channel);
	service_await(&service.seen->works, 0);
	/*
	 * Each request that was received ended once at the service; none that was refused was seen.
	 * One that was cancelled between its receipt and its delivery is lost, and not seen either.
	 */
	assert_true(service.seen->requests <= 3001 - refused);
	assert_true(service.seen->requests >= answered + 1);
	assert_int_equal(service.seen->disposed + service.seen->gone, service.seen->requests);
	assert_true(service.seen->disposed <= answered + 1 + cancelled);
	client_close(&client);
	service_stop(&service);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

enum {
	N_DEADLINES = 500
};

/*
 * Begins so many calls that all are under way before the first deadline, and sorts those: when the
 * last one is.
 */
static void begin_many(struct client *client, struct rng *rng, uint64_t *deadlines)
{
	struct aph_call *calls[N_DEADLINES];

	for (unsigned ahead_ms = 50;; ahead_ms *= 2) {
		uint64_t first = aph_deadline_ms(ahead_ms);

		for (int i = 0; i < N_DEADLINES; i++) {
			deadlines[i] = first + rng_below(rng, 200000000);
			assert_int_equal(
				aph_call_new(&calls[i], client->channel, deadlines[i], NULL), 0);
			(void)client_send(calls[i], "h", 1, 0);
		}
		if (aph_time_ns() < first)
			break;
		/* This machine needs more time for it. */
		assert_true(ahead_ms < 5000);
		for (int i = 0; i < N_DEADLINES; i++)
			aph_call_free(calls[i]);
	}
	qsort(deadlines, N_DEADLINES, sizeof(deadlines[0]), compare);
}

/* Many deadlines under way at once pass in order, each at its time. */
static void many_deadlines(void **state)
{
	struct rng rng = { .state = check_seed() };
	uint64_t deadlines[N_DEADLINES];
	struct service service;
	struct client client;
	struct aph_event ev;
	int n_prompt = 0;

	(void)state;
	service_start_simple(&service, suite_mode, "many");
	client_open(&client, "many");
	begin_many(&client, &rng, deadlines);
	for (int i = 0; i < N_DEADLINES; i++) {
		do {
			client_next(client.ep, &ev, 3000);
		} while (ev.type == APH_EVENT_WRITABLE);
		assert_int_equal(ev.type, APH_EVENT_END);
		assert_true(aph_call_deadline(ev.call) == deadlines[i]);
		n_prompt += has_just_passed(deadlines[i]);
		aph_call_free(ev.call);
	}
	/* However busy the machine is, it does not keep us from running for all of that time. */
	assert_true(n_prompt > 0);
	service_await(&service.seen->works, 0);
	client_close(&client);
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(the_service_sees_the_deadline),
		SUITE_TEST(deadline_of_a_received_call),
		SUITE_TEST(deadline_that_has_passed),
		SUITE_TEST(deadline_at_a_stopped_service),
		SUITE_TEST(cancel_at_a_stopped_service),
		SUITE_TEST(deadline_at_a_service_stopped_later),
		SUITE_TEST(cancel_of_a_received_call),
		SUITE_TEST(cancel_in_the_middle),
		SUITE_TEST(cancel_races_with_the_answer),
		SUITE_TEST(many_deadlines),
	};

	return suite_run_both("deadlines", tests, SUITE_LEN(tests), 60);
}
