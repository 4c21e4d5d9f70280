/* SPDX-License-Identifier: MIT */
/*
 * What a client may say to a service about a call that goes on: signals, and the request to have it
 * back if nobody has it yet.
 */
#include "suite.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* -- signals ----------------------------------------------------------------------------------- */

static void every_code_arrives(void **state)
{
	static const int32_t codes[] = { 1, 0, -1, 42, INT32_MAX, INT32_MIN };
	struct service service;
	struct client client;
	struct aph_call *call;
	char reply[8];
	size_t len = sizeof(reply);

	(void)state;
	service_start_simple(&service, suite_mode, "signals");
	client_open(&client, "signals");
	call = client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	for (uint32_t i = 0; i < SUITE_LEN(codes); i++) {
		assert_int_equal(aph_call_signal(call, codes[i]), 0);
		service_await(&service.seen->signals, i + 1);
		assert_int_equal((int32_t)service.seen->signal_code, codes[i]);
	}
	/* The call goes on as if nothing had been said, and nothing is told to its client. */
	client_quiet(client.ep, 10);
	assert_int_equal(service.seen->held, 1);
	assert_int_equal(aph_call(client.channel, "w", 1, reply, &len, aph_deadline_ms(5000)),
			 APH_ANSWERED);
	len = sizeof(reply);
	client_check_result(client_end(client.ep, call, reply, &len), APH_ANSWERED,
			    APH_REASON_NONE);
	assert_int_equal(len, 5);
	assert_memory_equal(reply, "woken", 5);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

/* While the request is still being sent, and while the reply comes. */
static void at_any_time_of_a_call(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;

	(void)state;
	service_start_simple(&service, suite_mode, "signals");
	client_open(&client, "signals");
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_signal(call, 1), -EPIPE); /* nothing was sent yet */
	assert_int_equal(aph_call_send(call, "p", 1, APH_MORE), 1);
	assert_int_equal(aph_call_signal(call, 2), 0);
	service_await(&service.seen->signals, 1);
	assert_int_equal(aph_call_send(call, "", 0, 0), 0);
	client_expect(client.ep, APH_EVENT_REPLY, call);
	assert_int_equal(aph_call_signal(call, 3), 0);
	service_await(&service.seen->signals, 2);
	assert_int_equal(service.seen->signal_code, 3);
	assert_int_equal(aph_call_cancel(call), 0);
	assert_int_equal(aph_call_signal(call, 4), -EPIPE);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_LOST,
			    APH_REASON_CANCELLED);
	aph_call_free(call);
	client_echo(client.channel);
	assert_int_equal(service.seen->signals, 2);
	client_close(&client);
	service_stop(&service);
}

/*
 * A service that does not look: signals find no room some time, nothing is lost but older signals.
 */
static void more_than_there_is_room_for(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	uint32_t n = 0;
	int r;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("needs a service that can be stopped");
	service_start_simple(&service, suite_mode, "signals");
	client_open(&client, "signals");
	call = client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	child_signal(&service.child, SIGSTOP);
	child_await_state(service.child.pid, 'T', check_hang_ms(2000));
	while ((r = aph_call_signal(call, (int32_t)n + 1)) == 0)
		n++;
	assert_int_equal(r, -EAGAIN);
	assert_true(n >= 31);
	child_signal(&service.child, SIGCONT);
	while (service.seen->signal_code != n)
		(void)aph_endpoint_serve(client.ep, aph_deadline_ms(1));
	/* Those that had not been delivered count as one. */
	assert_true(service.seen->signals >= 1 && service.seen->signals <= n);
	assert_int_equal(aph_call_signal(call, -5), 0);
	aph_call_free(call);
	service_await(&service.seen->held, 0);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

/* What has been answered, or was never received, hears nothing. */
static void too_late_or_too_early(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;

	(void)state;
	service_start_simple(&service, suite_mode, "signals");
	client_open(&client, "signals");
	call = client_begin(client.channel, "e", 1, APH_FOREVER);
	service_await(&service.seen->requests, 1);
	service_await(&service.seen->works, 0);
	/* The reply is here, and this side has not looked at it: it cannot know. */
	assert_int_equal(aph_call_signal(call, 1), 0);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_ANSWERED, APH_REASON_NONE);
	assert_int_equal(aph_call_signal(call, 2), -EPIPE);
	aph_call_free(call);
	if (suite_mode == SERVICE_PROCESS) {
		child_signal(&service.child, SIGSTOP);
		child_await_state(service.child.pid, 'T', check_hang_ms(2000));
		call = client_begin(client.channel, "h", 1, APH_FOREVER);
		assert_int_equal(aph_call_signal(call, 3), 0);
		assert_int_equal(aph_call_withdraw(call), 0);
		client_check_result(client_end(client.ep, call, NULL, NULL), APH_REFUSED,
				    APH_REASON_CANCELLED);
		aph_call_free(call);
		child_signal(&service.child, SIGCONT);
	}
	client_echo(client.channel);
	assert_int_equal(service.seen->signals, 0);
	assert_int_equal(service.seen->gone, 0);
	client_close(&client);
	service_stop(&service);
}

/* -- withdrawing ------------------------------------------------------------------------------- */

static void before_anything_was_sent(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;

	(void)state;
	service_start_simple(&service, suite_mode, "signals");
	client_open(&client, "signals");
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_withdraw(call), 0);
	assert_int_equal(aph_call_withdraw(call), -EALREADY);
	assert_int_equal(aph_call_cancel(call), -EALREADY);
	client_check_result(client_expect(client.ep, APH_EVENT_END, call).result, APH_REFUSED,
			    APH_REASON_CANCELLED);
	client_quiet(client.ep, 10);
	aph_call_free(call);
	client_echo(client.channel);
	assert_int_equal(service.seen->requests, 1);
	client_close(&client);
	service_stop(&service);
}

/* Whoever comes too late has changed nothing: the call goes on, and is answered. */
static void after_it_was_received(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	char reply[8];
	size_t len = sizeof(reply);

	(void)state;
	service_start_simple(&service, suite_mode, "signals");
	client_open(&client, "signals");
	call = client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	for (int i = 0; i < 100; i++)
		assert_int_equal(aph_call_withdraw(call), -EBUSY);
	client_quiet(client.ep, 10);
	assert_int_equal(service.seen->held, 1);
	assert_int_equal(service.seen->gone, 0);
	/* Its mark would be that of these records now, if it had left one. */
	for (int i = 0; i < 200; i++)
		client_echo(client.channel);
	assert_int_equal(aph_call_withdraw(call), -EBUSY);
	for (int i = 0; i < 200; i++)
		client_echo(client.channel);
	assert_int_equal(aph_call(client.channel, "w", 1, reply, &len, aph_deadline_ms(5000)),
			 APH_ANSWERED);
	len = sizeof(reply);
	client_check_result(client_end(client.ep, call, reply, &len), APH_ANSWERED,
			    APH_REASON_NONE);
	assert_int_equal(aph_call_withdraw(call), -EALREADY);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

/*
 * Requests with bodies and descriptors: all of it comes back, and the service never hears of them.
 */
static void with_all_that_belongs_to_it(void **state)
{
	static char data[20000] = "d";
	struct service service;
	struct client client;
	struct aph_call *calls[8];
	int fd = STDERR_FILENO;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("needs a service that can be stopped");
	service_start_simple(&service, suite_mode, "signals");
	client_open(&client, "signals");
	client_echo(client.channel);
	for (int round = 0; round < 20; round++) {
		child_signal(&service.child, SIGSTOP);
		child_await_state(service.child.pid, 'T', check_hang_ms(2000));
		for (size_t i = 0; i < SUITE_LEN(calls); i++) {
			assert_int_equal(aph_call_new(&calls[i], client.channel, APH_FOREVER, NULL),
					 0);
			assert_int_equal(aph_call_send_fds(calls[i], data, sizeof(data), &fd, 1,
							   i % 2 ? APH_MORE : 0),
					 sizeof(data));
		}
		for (size_t i = 0; i < SUITE_LEN(calls); i++) {
			assert_int_equal(aph_call_withdraw(calls[i]), 0);
			client_check_result(
				client_expect(client.ep, APH_EVENT_END, calls[i]).result,
				APH_REFUSED, APH_REASON_CANCELLED);
			aph_call_free(calls[i]);
		}
		child_signal(&service.child, SIGCONT);
		client_echo(client.channel);
	}
	assert_int_equal(service.seen->requests, 21);
	assert_int_equal(service.seen->gone, 0);
	client_put(client.ep, client.channel, 1000000, 3);
	client_close(&client);
	service_stop(&service);
}

/*
 * At the very moment in which the service takes it. The two must agree: what was withdrawn is not
 * seen by the service, and what could not be withdrawn is answered.
 */
static void both_at_once(void **state)
{
	struct rng rng = { .state = check_seed() };
	uint32_t withdrawn = 0, received = 0, n = check_slow() ? 1500 : 15000;
	struct service service;
	struct client client;
	struct aph_call *call;
	uint64_t until;
	int r;

	(void)state;
	service_start_simple(&service, suite_mode, "signals");
	client_open(&client, "signals");
	for (uint32_t i = 0; i < n; i++) {
		call = client_begin(client.channel, "e", 1, aph_deadline_ms(20000));
		until = aph_time_ns() + rng_below(&rng, 600);
		while (aph_time_ns() < until)
			;
		r = aph_call_withdraw(call);
		if (r == 0) {
			withdrawn++;
			client_check_result(client_end(client.ep, call, NULL, NULL), APH_REFUSED,
					    APH_REASON_CANCELLED);
		} else {
			assert_int_equal(r, -EBUSY);
			received++;
			client_check_result(client_end(client.ep, call, NULL, NULL), APH_ANSWERED,
					    APH_REASON_NONE);
		}
		aph_call_free(call);
	}
	client_echo(client.channel);
	assert_int_equal(service.seen->requests, received + 1);
	assert_int_equal(service.seen->gone, 0);
	assert_int_equal(withdrawn + received, n);
	client_close(&client);
	service_stop(&service);
}

/* -- who may ----------------------------------------------------------------------------------- */

static void only_the_client(void **state)
{
	struct aph_endpoint *ep;
	struct aph_service *service;
	struct aph_channel *channel;
	struct aph_call *call, *theirs;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(&service, ep, "signals", NULL), 0);
	assert_int_equal(aph_channel_open(&channel, ep, "signals", NULL), 0);
	call = client_begin(channel, "x", 1, APH_FOREVER);
	theirs = client_expect(ep, APH_EVENT_REQUEST, NULL).call;
	assert_int_equal(aph_call_signal(theirs, 1), -EINVAL);
	assert_int_equal(aph_call_withdraw(theirs), -EINVAL);
	assert_int_equal(aph_call_cancel(theirs), -EINVAL);
	assert_int_equal(aph_call_reply(theirs, "y", 1), 0);
	client_check_result(client_end(ep, call, NULL, NULL), APH_ANSWERED, APH_REASON_NONE);
	aph_call_free(call);
	/* On a channel that has closed there is nothing to say. */
	call = client_begin(channel, "x", 1, APH_FOREVER);
	theirs = client_expect(ep, APH_EVENT_REQUEST, NULL).call;
	aph_call_free(theirs);
	aph_service_close(service);
	assert_int_equal(client_expect(ep, APH_EVENT_END, call).result.outcome, APH_LOST);
	assert_int_equal(aph_call_signal(call, 1), -EPIPE);
	assert_int_equal(aph_call_withdraw(call), -EALREADY);
	aph_call_free(call);
	client_expect(ep, APH_EVENT_CLOSED, NULL);
	aph_channel_close(channel);
	aph_endpoint_free(ep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(every_code_arrives),
		SUITE_TEST(at_any_time_of_a_call),
		SUITE_TEST(more_than_there_is_room_for),
		SUITE_TEST(too_late_or_too_early),
		SUITE_TEST(before_anything_was_sent),
		SUITE_TEST(after_it_was_received),
		SUITE_TEST(with_all_that_belongs_to_it),
		SUITE_TEST(both_at_once),
		SUITE_TEST(only_the_client),
	};

	return suite_run_both("signals", tests, SUITE_LEN(tests), 60);
}
