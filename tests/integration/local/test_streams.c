/* SPDX-License-Identifier: MIT */
/*
 * Bodies through an arena: far longer than it, and by a sender that outruns its reader. What is the same for every kind
 * of address is in ../calls.
 */
#include "suite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void far_beyond_the_arena(void **state)
{
	uint64_t len = check_slow() ? 20000000 : 100000000;
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, "long");
	client_open(&client, "long");
	client_put(client.ep, client.channel, len, 1);
	client_get(client.ep, client.channel, 'g', len, 2);
	client_close(&client);
	service_stop(&service);
}

/* A sender that outruns its reader gets EAGAIN after a bounded number of bytes, then WRITABLE. */
static void back_pressure(void **state)
{
	struct service_config config = { .address = "slow" };
	struct service service;
	struct client client;
	struct aph_call *call, *other;
	static char data[100000] = "h";
	size_t total = 1;
	struct aph_event ev;
	ssize_t n;

	(void)state;
	service_start(&service, suite_mode, &config);
	client_open(&client, "slow");
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(call, "h", 1, APH_MORE), 1);
	while ((n = aph_call_send(call, data, sizeof(data), APH_MORE)) >= 0) {
		total += (size_t)n;
		assert_true(total < 1000000);
	}
	assert_int_equal(n, -EAGAIN);
	assert_true(total >= 32768);
	service_await(&service.seen->held, 1);
	/* Nothing was read: no room, and no event. Small calls pass by. */
	client_quiet(client.ep, 20);
	for (int i = 0; i < 20; i++)
		client_echo(client.channel);
	/* Another call that needs the arena waits too, and fails by its deadline without harm. */
	for (unsigned ms = 50;; ms *= 2) {
		assert_int_equal(aph_call_new(&other, client.channel, aph_deadline_ms(ms), NULL),
				 0);
		for (total = 0; (n = aph_call_send(other, data, sizeof(data), APH_MORE)) >= 0;) {
			total += (size_t)n;
			assert_true(total < 1000000);
		}
		ev = client_expect(client.ep, APH_EVENT_END, other);
		assert_int_equal(ev.result.reason, APH_REASON_DEADLINE);
		aph_call_free(other);
		if (n == -EAGAIN && ev.result.outcome == (total > 0 ? APH_LOST : APH_REFUSED))
			break;
		/* It passed before all was sent, or before the service had received what was. */
		assert_true(n == -EPIPE || (n == -EAGAIN && ev.result.outcome == APH_REFUSED));
		assert_true(ms < 5000);
	}
	/* The reply comes before the request was sent: the rest of it has nowhere to go. */
	assert_int_equal(aph_call(client.channel, "w", 1, NULL, NULL, APH_FOREVER), APH_ANSWERED);
	assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
	assert_int_equal(aph_call_send(call, data, 1, APH_MORE), -EPIPE);
	aph_call_free(call);
	/* All the room is there again. */
	client_put(client.ep, client.channel, 1000000, 3);
	client_close(&client);
	service_stop(&service);
}

static void the_body_has_begun(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	char reply[16];
	size_t len = sizeof(reply);

	(void)state;
	service_start_simple(&service, suite_mode, "begin");
	client_open(&client, "begin");
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(call, NULL, 0, APH_MORE), 0);
	service_await(&service.seen->requests, 1);
	assert_int_equal(aph_call_send(call, "ex", 2, APH_MORE), 2);
	assert_int_equal(aph_call_send(call, "y", 1, APH_MORE), 1);
	assert_int_equal(aph_call_send(call, NULL, 0, 0), 0);
	assert_int_equal(aph_call_send(call, NULL, 0, 0), -EPIPE);
	assert_int_equal(client_end(client.ep, call, reply, &len).outcome, APH_ANSWERED);
	assert_int_equal(len, 3);
	assert_memory_equal(reply, "exy", 3);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(far_beyond_the_arena),
		SUITE_TEST(back_pressure),
		SUITE_TEST(the_body_has_begun),
	};

	return suite_run_both("streams", tests, SUITE_LEN(tests), 90);
}
