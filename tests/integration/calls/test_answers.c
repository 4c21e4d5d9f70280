/* SPDX-License-Identifier: MIT */
/*
 * How a service ends a call, and what its client is told. The same cases over every kind of
 * address.
 */
#include "scheme.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void answered(void **state)
{
	const char *address = scheme_address();
	static const size_t sizes[] = { 1,	2,     39,    40,     41,	63,
					64,	65,    4095,  4096,   4097,	16384,
					65535,	65536, 65537, 100000, 1u << 18, (1u << 18) + 1,
					1000000 };
	struct service service;
	struct client client;
	unsigned char *request = malloc(1000000), *reply = malloc(1000000);
	size_t len;

	(void)state;
	for (size_t i = 0; i < 1000000; i++)
		request[i] = (unsigned char)(i * 7 + i / 251);
	request[0] = 'e';
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	for (size_t i = 0; i < SUITE_LEN(sizes); i++) {
		len = sizes[i];
		assert_int_equal(aph_call(client.channel, request, sizes[i], reply, &len,
					  aph_deadline_ms(10000)),
				 APH_ANSWERED);
		assert_int_equal(len, sizes[i]);
		assert_memory_equal(request, reply, len);
		client_check_result(aph_channel_result(client.channel), APH_ANSWERED,
				    APH_REASON_NONE);
	}
	client_quiet(client.ep, 10);
	client_close(&client);
	service_stop(&service);
	free(request);
	free(reply);
}

static void answered_empty(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_event ev;
	char byte;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	call = client_begin(client.channel, NULL, 0, APH_FOREVER);
	ev = client_expect(client.ep, APH_EVENT_END, call);
	client_check_result(ev.result, APH_ANSWERED, APH_REASON_NONE);
	assert_int_equal(aph_call_available(call), 0);
	assert_true(aph_call_body_complete(call));
	assert_int_equal(aph_call_read(call, &byte, 1), 0);
	assert_int_equal(aph_call_peek(call, &byte, 1), 0);
	assert_null(aph_call_free(call));
	client_quiet(client.ep, 10);
	client_close(&client);
	service_stop(&service);
}

static void refused_by_service(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	char request[2] = "r";

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	for (int reason = APH_REASON_NONE; reason <= APH_REASON_RESOURCES; reason++) {
		request[1] = (char)reason;
		assert_int_equal(aph_call(client.channel, request, 2, NULL, NULL,
					  aph_deadline_ms(5000)),
				 APH_REFUSED);
		client_check_result(aph_channel_result(client.channel), APH_REFUSED,
				    (enum aph_reason)reason);
	}
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

static void aborted(void **state)
{
	const char *address = scheme_address();
	static const int32_t codes[] = { 1, 42, INT32_MAX, INT32_MIN, -3, 0, -1 };
	/* The last ones mean something to the protocol of AFS. */
	size_t n = SUITE_LEN(codes) - (scheme_is_remote() ? 2 : 0);
	struct aph_result result;
	struct service service;
	struct client client;
	struct aph_call *call;
	char request[5] = "a";

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	for (size_t i = 0; i < n; i++) {
		memcpy(request + 1, &codes[i], 4);
		call = client_begin(client.channel, request, 5, APH_FOREVER);
		result = client_end(client.ep, call, NULL, NULL);
		client_check_result(result, APH_ABORTED, APH_REASON_NONE);
		assert_int_equal(result.code, codes[i]);
		aph_call_free(call);
		assert_int_equal(aph_call(client.channel, request, 5, NULL, NULL, APH_FOREVER),
				 APH_ABORTED);
		assert_int_equal(aph_channel_result(client.channel).code, codes[i]);
	}
	client_close(&client);
	service_stop(&service);
}

static void aborted_after_part_of_the_reply(void **state)
{
	const char *address = scheme_address();
	struct aph_result result;
	struct service service;
	struct client client;
	struct aph_call *call;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	call = client_begin(client.channel, "p", 1, APH_FOREVER);
	client_expect(client.ep, APH_EVENT_REPLY, call);
	assert_int_equal(aph_call(client.channel, "P", 1, NULL, NULL, APH_FOREVER), APH_ANSWERED);
	result = client_end(client.ep, call, NULL, NULL);
	client_check_result(result, APH_ABORTED, APH_REASON_NONE);
	assert_int_equal(result.code, 77);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

static void lost_when_dropped(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	assert_int_equal(aph_call(client.channel, "l", 1, NULL, NULL, aph_deadline_ms(5000)),
			 APH_LOST);
	client_check_result(aph_channel_result(client.channel), APH_LOST, APH_REASON_POLICY);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

/* The next failure leaves a text of its own. */
static void forget_text(void)
{
	struct aph_name name;

	assert_int_equal(aph_name_parse(&name, "not/a/name"), -EINVAL);
}

static void check_text(const char *part)
{
	if (!strstr(aph_error(), part))
		fail_msg("'%s' says nothing of '%s'", aph_error(), part);
	forget_text();
}

/* The thread's last call counts, and of another channel nobody can say more than LOST does. */
static void the_result_of_the_last_call(void **state)
{
	char addresses[2][64];
	struct service services[2];
	struct client clients[2];
	struct aph_channel *a, *b;

	(void)state;
	for (int i = 0; i < 2; i++) {
		(void)snprintf(addresses[i], sizeof(addresses[i]), "%s", scheme_address());
		if (!scheme_is_remote())
			(void)snprintf(addresses[i], sizeof(addresses[i]), "last%d", i);
		service_start_simple(&services[i], suite_mode, addresses[i]);
		client_open(&clients[i], addresses[i]);
	}
	a = clients[0].channel;
	b = clients[1].channel;
	client_echo(a);
	client_echo(b);
	client_check_result(aph_channel_result(b), APH_ANSWERED, APH_REASON_NONE);
	client_check_result(aph_channel_result(a), APH_LOST, APH_REASON_NONE);
	/* A call that was not made has not run. */
	service_stop(&services[1]);
	if (!scheme_is_remote()) {
		client_expect(clients[1].ep, APH_EVENT_CLOSED, NULL);
		assert_int_equal(aph_call(b, "e", 1, NULL, NULL, APH_FOREVER), -ENOTCONN);
		client_check_result(aph_channel_result(b), APH_REFUSED, APH_REASON_NONE);
	}
	client_close(&clients[0]);
	client_close(&clients[1]);
	service_stop(&services[0]);
}

static void failures_are_told_in_words(void **state)
{
	const char *address = scheme_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_event ev;
	const void *data;
	size_t len = 10;
	void *room;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	call = client_begin(client.channel, "e", 1, APH_FOREVER);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_ANSWERED, APH_REASON_NONE);
	forget_text();
	assert_int_equal(aph_call_cancel(call), -EALREADY);
	check_text("ended");
	assert_int_equal(aph_call_withdraw(call), -EALREADY);
	check_text("ended");
	assert_int_equal(aph_call_send(call, "x", 1, 0), -EPIPE);
	check_text("body");
	assert_int_equal(aph_call_reserve(call, &room, &len), -EPIPE);
	check_text("body");
	aph_call_free(call);
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_wait(call, APH_NOW), -EAGAIN);
	check_text("in time");
	assert_int_equal(aph_call_wait(call, aph_deadline_ms(1)), -ETIMEDOUT);
	check_text("in time");
	assert_int_equal(aph_call_reserve(call, &room, &len), 0);
	assert_int_equal(aph_call_commit(call, 1, APH_MORE << 1), -EINVAL);
	check_text("APH_MORE");
	assert_int_equal(aph_call_commit(call, len + 100000, APH_MORE), -EINVAL);
	check_text("reserved");
	assert_int_equal(aph_call_release(call, 1), -EINVAL);
	check_text("release");
	/* Not a failure. */
	assert_int_equal(aph_call_borrow(call, &data, &len), -EAGAIN);
	aph_call_free(call);
	assert_int_equal(aph_endpoint_serve(client.ep, aph_deadline_ms(1)), -ETIMEDOUT);
	check_text("in time");
	assert_int_equal(aph_endpoint_wake(client.ep), 0);
	assert_int_equal(aph_endpoint_next(client.ep, &ev, APH_FOREVER), -ECANCELED);
	check_text("aph_endpoint_wake");
	client_close(&client);
	service_stop(&service);
}

static int wait_for_answer(int ctl, void *address)
{
	struct client client;

	(void)ctl;
	client_open(&client, address);
	(void)aph_call(client.channel, "x", 1, NULL, NULL, APH_FOREVER);
	client_close(&client);
	return 0;
}

/* It was still to be told when the service went. */
static void a_disconnect_behind_its_service(void **state)
{
	const struct aph_service_options options = { .size = sizeof(options),
						     .flags = APH_SERVICE_EVENTS };
	char address[64];
	struct aph_service *service;
	struct aph_channel *channel;
	struct aph_endpoint *ep;
	struct aph_event ev;
	struct child child;

	(void)state;
	snprintf(address, sizeof(address), "%s", scheme_address());
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(&service, ep, address, &options), 0);
	child_start(&child, wait_for_answer, address);
	ev = client_expect(ep, APH_EVENT_CONNECT, NULL);
	assert_ptr_equal(ev.service, service);
	channel = ev.channel;
	ev = client_expect(ep, APH_EVENT_REQUEST, NULL);
	aph_service_close(service);
	aph_call_free(ev.call);
	ev = client_expect(ep, APH_EVENT_DISCONNECT, NULL);
	assert_ptr_equal(ev.channel, channel);
	assert_null(ev.service);
	assert_int_equal(ev.result.reason, APH_REASON_CLOSED);
	aph_channel_close(channel);
	aph_endpoint_free(ep);
	assert_int_equal(child_finish(&child, check_hang_ms(10000)), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(answered),
		SUITE_TEST(answered_empty),
		SUITE_TEST(refused_by_service),
		SUITE_TEST(aborted),
		SUITE_TEST(aborted_after_part_of_the_reply),
		SUITE_TEST(lost_when_dropped),
		SUITE_TEST(the_result_of_the_last_call),
		SUITE_TEST(failures_are_told_in_words),
		SUITE_TEST(a_disconnect_behind_its_service),
	};

	scheme_choose(argc, argv);
	return suite_run_both("answers", tests, SUITE_LEN(tests), 90);
}
