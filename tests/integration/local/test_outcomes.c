/* SPDX-License-Identifier: MIT */
/*
 * Outcomes of calls, with the reasons that the two sides can bring about by dying or closing, and
 * the rule that each call ends exactly once. What a service answers is in ../calls.
 */
#include "suite.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void lost_when_the_service_dies(void **state)
{
	static const char *const requests[] = { "x", "X" };
	struct aph_call *calls[4];
	struct service service;
	struct client client;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("a thread cannot die alone");
	for (size_t i = 0; i < SUITE_LEN(requests); i++) {
		service_start_simple(&service, suite_mode, "die");
		client_open(&client, "die");
		for (size_t k = 0; k < 3; k++)
			calls[k] = client_begin(client.channel, "h", 1, APH_FOREVER);
		service_await(&service.seen->held, 3);
		calls[3] = client_begin(client.channel, requests[i], 1, APH_FOREVER);
		client_expect_ends(&client, calls, 4, APH_LOST, APH_REASON_CLOSED, true, 3000);
		assert_false(aph_channel_is_open(client.channel));
		assert_int_equal(aph_call_new(calls, client.channel, APH_FOREVER, NULL), -ENOTCONN);
		assert_int_equal(aph_call(client.channel, "e", 1, NULL, NULL, APH_FOREVER),
				 -ENOTCONN);
		client_close(&client);
		service_gone(&service, 0);
		dir_remove_sockets();
	}
}

static void lost_in_the_one_shot_call(void **state)
{
	struct service service;
	struct client client;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("a thread cannot die alone");
	service_start_simple(&service, suite_mode, "die");
	client_open(&client, "die");
	assert_int_equal(aph_call(client.channel, "x", 1, NULL, NULL, APH_FOREVER), APH_LOST);
	client_check_result(aph_channel_result(client.channel), APH_LOST, APH_REASON_CLOSED);
	client_expect(client.ep, APH_EVENT_CLOSED, NULL);
	client_quiet(client.ep, 10);
	client_close(&client);
	service_gone(&service, 0);
	dir_remove_sockets();
}

static void refused_when_the_service_dies_before_receiving(void **state)
{
	struct aph_call *calls[8];
	struct service service;
	struct client client;
	char large[40000] = "h";

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("a thread cannot die alone");
	service_start_simple(&service, suite_mode, "die");
	client_open(&client, "die");
	client_echo(client.channel);
	child_signal(&service.child, SIGSTOP);
	child_await_state(service.child.pid, 'T', check_hang_ms(2000));
	for (size_t i = 0; i < SUITE_LEN(calls); i++) {
		assert_int_equal(aph_call_new(&calls[i], client.channel, APH_FOREVER, NULL), 0);
		assert_true(aph_call_send(calls[i], large, i % 2 ? sizeof(large) : 1, 0) > 0);
	}
	assert_int_equal(service.seen->requests, 1);
	child_signal(&service.child, SIGKILL);
	client_expect_ends(&client, calls, SUITE_LEN(calls), APH_REFUSED, APH_REASON_CLOSED, true,
			   3000);
	client_close(&client);
	service_gone(&service, CHILD_SIGNALLED + SIGKILL);
	dir_remove_sockets();
}

/*
 * The client closes its channel while the service looks at its ring and has not heard of it: what
 * the client is told was not received must not be received afterwards either.
 */
static void refused_when_the_client_closes(void **state)
{
	const struct aph_channel_options async = { .size = sizeof(async),
						   .flags = APH_CHANNEL_ASYNC };
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_result result;
	char reply[8];
	size_t len = sizeof(reply);

	(void)state;
	service_start_simple(&service, SERVICE_INLINE, "echo");
	assert_int_equal(aph_endpoint_new(&client.ep, NULL), 0);
	assert_int_equal(aph_channel_open(&client.channel, client.ep, "echo", &async), 0);
	service_turn(&service, 1);
	client_expect(client.ep, APH_EVENT_OPEN, NULL);
	/* From this call on the service looks at the ring without being rung for. */
	call = client_begin(client.channel, "e", 1, APH_FOREVER);
	while (service_turn(&service, 1) == 0)
		;
	client_check_result(client_end(client.ep, call, reply, &len), APH_ANSWERED,
			    APH_REASON_NONE);
	call = client_begin(client.channel, "e", 1, APH_FOREVER);
	aph_channel_close(client.channel);
	assert_true(aph_call_result(call, &result));
	client_check_result(result, APH_REFUSED, APH_REASON_CLOSED);
	service_turn(&service, 10);
	assert_int_equal(service.seen->requests, 1);
	aph_call_free(call);
	aph_endpoint_free(client.ep);
	service_stop(&service);
}

static void ends_when_the_service_closes(void **state)
{
	struct aph_call *calls[5];
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, "close");
	client_open(&client, "close");
	for (size_t i = 0; i < SUITE_LEN(calls); i++)
		calls[i] = client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, SUITE_LEN(calls));
	service_stop(&service);
	client_expect_ends(&client, calls, SUITE_LEN(calls), APH_LOST, APH_REASON_CLOSED, true,
			   3000);
	client_close(&client);
}

static void ends_when_the_service_throws_the_client_out(void **state)
{
	struct service_config config = { .address = "out" };
	struct aph_call *calls[3];
	struct service service;
	struct client client, other;

	(void)state;
	for (int events = 0; events < 2; events++) {
		config.options.flags = events ? APH_SERVICE_EVENTS : 0;
		service_start(&service, suite_mode, &config);
		client_open(&client, "out");
		client_open(&other, "out");
		calls[0] = client_begin(client.channel, "h", 1, APH_FOREVER);
		calls[1] = client_begin(client.channel, "h", 1, APH_FOREVER);
		service_await(&service.seen->held, 2);
		calls[2] = client_begin(client.channel, "o", 1, APH_FOREVER);
		client_expect_ends(&client, calls, 3, APH_LOST, APH_REASON_CLOSED, true, 3000);
		assert_false(aph_channel_is_open(client.channel));
		client_echo(other.channel);
		client_quiet(other.ep, 10);
		client_close(&client);
		client_close(&other);
		/* Who closes a channel is not told that it has closed. */
		if (events)
			service_await(&service.seen->disconnects, 1);
		service_stop(&service);
	}
}

static void the_service_has_no_name(void **state)
{
	struct aph_channel_options options = { .size = sizeof(options) };
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_event ev;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_channel_open(&channel, ep, "nobody", NULL), -ENOENT);
	assert_non_null(strstr(aph_error(), "nobody"));
	options.flags = APH_CHANNEL_ASYNC;
	int r = aph_channel_open(&channel, ep, "nobody", &options);
	/* Asynchronously it may be known at once or told by CLOSED. */
	if (r == 0) {
		ev = client_expect(ep, APH_EVENT_CLOSED, NULL);
		assert_int_equal(ev.result.reason, APH_REASON_NO_SERVICE);
		aph_channel_close(channel);
	} else {
		assert_int_equal(r, -ENOENT);
	}
	client_quiet(ep, 10);
	aph_endpoint_free(ep);
}

static void every_end_at_once(void **state)
{
	enum {
		N = 600
	};
	static struct aph_call *calls[N];
	struct service service;
	struct client client;
	struct aph_event ev;
	unsigned ends = 0;
	char request[8];
	int kind;

	(void)state;
	service_start_simple(&service, suite_mode, "mix");
	client_open(&client, "mix");
	for (int i = 0; i < N; i++) {
		static const char ops[] = "earlhh";

		memset(request, 0, sizeof(request));
		kind = i % 6;
		request[0] = ops[kind];
		request[1] = kind == 2 ? APH_REASON_BUSY : 9;
		assert_int_equal(aph_call_new(&calls[i], client.channel,
					      kind == 4 ? aph_deadline_ms(100) : APH_FOREVER,
					      &calls[i]),
				 0);
		/* Unless its deadline passes on the way. */
		assert_true(client_send(calls[i], request, sizeof(request), 0) || kind == 4);
	}
	for (int i = 5; i < N; i += 6)
		assert_int_equal(aph_call_cancel(calls[i]), 0);
	while (ends < N) {
		client_next(client.ep, &ev, 3000);
		if (ev.type != APH_EVENT_END)
			continue;
		ends++;
		assert_ptr_equal(aph_call_data(ev.call),
				 &calls[(struct aph_call **)aph_call_data(ev.call) - calls]);
		kind = (int)((struct aph_call **)aph_call_data(ev.call) - calls) % 6;
		switch (kind) {
		case 0:
			client_check_result(ev.result, APH_ANSWERED, APH_REASON_NONE);
			break;
		case 1:
			client_check_result(ev.result, APH_ABORTED, APH_REASON_NONE);
			break;
		case 2:
			client_check_result(ev.result, APH_REFUSED, APH_REASON_BUSY);
			break;
		case 3:
			client_check_result(ev.result, APH_LOST, APH_REASON_POLICY);
			break;
		case 4:
			assert_int_equal(ev.result.reason, APH_REASON_DEADLINE);
			break;
		default:
			assert_int_equal(ev.result.reason, APH_REASON_CANCELLED);
		}
		*(struct aph_call **)aph_call_data(ev.call) = NULL;
		assert_null(aph_call_free(ev.call));
	}
	client_quiet(client.ep, 10);
	for (int i = 0; i < N; i++)
		assert_null(calls[i]);
	service_await(&service.seen->held, 0);
	service_await(&service.seen->works, 0);
	client_close(&client);
	service_stop(&service);
}

static void calls_are_limited(void **state)
{
	struct service_config config = { .address = "few", .options.calls_max = 4 };
	struct service service;
	struct client client;
	struct aph_call *calls[5], *call;

	(void)state;
	service_start(&service, suite_mode, &config);
	client_open(&client, "few");
	for (int i = 0; i < 4; i++)
		calls[i] = client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, 4);
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), -EAGAIN);
	assert_int_equal(aph_call(client.channel, "e", 1, NULL, NULL, APH_FOREVER), -EAGAIN);
	assert_int_equal(aph_call_cancel(calls[0]), 0);
	client_check_result(client_end(client.ep, calls[0], NULL, NULL), APH_LOST,
			    APH_REASON_CANCELLED);
	aph_call_free(calls[0]);
	client_echo(client.channel);
	for (int i = 1; i < 4; i++)
		aph_call_free(calls[i]);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(lost_when_the_service_dies),
		SUITE_TEST(lost_in_the_one_shot_call),
		SUITE_TEST(refused_when_the_service_dies_before_receiving),
		SUITE_TEST(refused_when_the_client_closes),
		SUITE_TEST(ends_when_the_service_closes),
		SUITE_TEST(ends_when_the_service_throws_the_client_out),
		SUITE_TEST(the_service_has_no_name),
		SUITE_TEST(every_end_at_once),
		SUITE_TEST(calls_are_limited),
	};

	return suite_run_both("outcomes", tests, SUITE_LEN(tests), 60);
}
