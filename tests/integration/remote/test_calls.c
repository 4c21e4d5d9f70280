/* SPDX-License-Identifier: MIT */
/* What is different about bodies over rx: addresses; the rest is in ../calls. */
#include "pattern.h"
#include "remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * A sender that outruns its reader gets EAGAIN after a bounded number of bytes; then there is room
 * again.
 */
static void back_pressure(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	static char data[100000] = "h";
	size_t total = 1;
	ssize_t n;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(call, "h", 1, APH_MORE), 1);
	service_await(&service.seen->held, 1);
	for (int quiet = 0; quiet < 2;) {
		struct aph_event ev;

		while ((n = aph_call_send(call, data, sizeof(data), APH_MORE)) >= 0) {
			total += (size_t)n;
			assert_true(total < 16u << 20);
		}
		assert_int_equal(n, -EAGAIN);
		if (aph_endpoint_next(client.ep, &ev, aph_deadline_ms(20)) == -ETIMEDOUT) {
			quiet++;
			continue;
		}
		assert_int_equal(ev.type, APH_EVENT_WRITABLE);
		assert_ptr_equal(ev.call, call);
	}
	assert_true(total >= 16384);
	/* Small calls pass by. */
	for (int i = 0; i < 20; i++)
		client_echo(client.channel);
	/* The reply is there, and waits for the rest of the request, which the library drops. */
	assert_int_equal(aph_call(client.channel, "w", 1, NULL, NULL, APH_FOREVER), APH_ANSWERED);
	assert_int_equal(client_send(call, data, sizeof(data), 0), 1);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_ANSWERED, APH_REASON_NONE);
	assert_int_equal(aph_call_send(call, data, 1, APH_MORE), -EPIPE);
	aph_call_free(call);
	client_put(client.ep, client.channel, 1000000, 3);
	client_close(&client);
	service_stop(&service);
}

/* The same in the one-shot call. */
static void answered_before_all_was_sent(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	static char data[3000000] = "c";
	struct service_caller caller;
	size_t len = sizeof(caller);

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	assert_int_equal(aph_call(client.channel, data, sizeof(data), &caller, &len,
				  aph_deadline_ms(10000)),
			 APH_ANSWERED);
	assert_int_equal(len, sizeof(caller));
	/* Nobody has proved who he is. */
	assert_int_equal(caller.pid, 0);
	assert_int_equal(caller.uid, UINT32_MAX);
	assert_int_equal(caller.egid, UINT32_MAX);
	assert_int_equal(caller.n_groups, 0);
	assert_string_equal(caller.label, "");
	client_close(&client);
	service_stop(&service);
}

/* What the network cannot carry says so, and leaves the call as it was. */
static void what_stays_at_home(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	int fd = STDERR_FILENO;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send_fds(call, "e", 1, &fd, 1, 0), -EOPNOTSUPP);
	assert_non_null(strstr(aph_error(), "descriptors"));
	assert_int_equal(aph_call_signal(call, 1), -EPIPE);
	assert_int_equal(aph_call_send(call, "e", 1, APH_MORE), 1);
	assert_int_equal(aph_call_signal(call, 1), -EOPNOTSUPP);
	assert_non_null(strstr(aph_error(), "signals"));
	assert_int_equal(aph_call_send(call, NULL, 0, 0), 0);
	assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
	assert_int_equal(aph_call_take_fds(call, &fd, 1), 0);
	aph_call_free(call);
	assert_int_equal(aph_channel_pidfd(client.channel), -EOPNOTSUPP);
	assert_int_equal(aph_channel_generation(client.channel), 0);
	assert_int_equal(aph_call(client.channel, "n12345678", 9, NULL, NULL, APH_FOREVER), 0);
	assert_int_equal(aph_channel_generation(client.channel), 0);
	client_close(&client);
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(back_pressure),
		SUITE_TEST(answered_before_all_was_sent),
		SUITE_TEST(what_stays_at_home),
	};

	return suite_run_both("remote calls", tests, SUITE_LEN(tests), 60);
}
