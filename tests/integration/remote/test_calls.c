/* SPDX-License-Identifier: MIT */
/* Bodies over rx: addresses: whole and in pieces, copied and in place, faster than the other side reads. */
#include "pattern.h"
#include "remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void answered(void **state)
{
	static const size_t sizes[] = { 1, 1400, 1412, 1413, 5000, 16000 };
	struct service service;
	struct client client;
	unsigned char *request = malloc(16000), *reply = malloc(16000);
	size_t len;

	(void)state;
	pattern_fill(request, 16000, 0, 5);
	request[0] = 'e';
	for (int family = 0; family < 2; family++) {
		const char *address = remote_address();

		service_start_simple(&service, suite_mode, address);
		client_open(&client, address);
		for (size_t i = 0; i < SUITE_LEN(sizes); i++) {
			len = sizes[i];
			assert_int_equal(aph_call(client.channel, request, sizes[i], reply, &len,
						  aph_deadline_ms(10000)),
					 APH_ANSWERED);
			assert_int_equal(len, sizes[i]);
			assert_memory_equal(request, reply, len);
			remote_check_result(aph_channel_result(client.channel), APH_ANSWERED,
					    APH_REASON_NONE);
		}
		/* An empty request, and an empty reply to it. */
		len = 1;
		assert_int_equal(aph_call(client.channel, NULL, 0, reply, &len,
					  aph_deadline_ms(3000)),
				 APH_ANSWERED);
		assert_int_equal(len, 0);
		len = 3;
		assert_int_equal(aph_call(client.channel, "e234", 4, reply, &len, APH_FOREVER),
				 -EMSGSIZE);
		assert_int_equal(len, 4);
		client_quiet(client.ep, 5);
		client_close(&client);
		service_stop(&service);
	}
	free(request);
	free(reply);
}

static void long_bodies(void **state)
{
	static const char ops[] = "gGz";
	const char *address = remote_address();
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	client_put(client.ep, client.channel, 0, 1);
	client_put(client.ep, client.channel, 3000000, 2);
	for (const char *op = ops; *op; op++) {
		client_get(client.ep, client.channel, *op, 1, 3);
		client_get(client.ep, client.channel, *op, 3000000, 4);
	}
	client_quiet(client.ep, 5);
	client_close(&client);
	service_stop(&service);
}

/* A sender that outruns its reader gets EAGAIN after a bounded number of bytes; then there is room again. */
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
	remote_check_result(client_end(client.ep, call, NULL, NULL), APH_ANSWERED, APH_REASON_NONE);
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

static void writable_follows(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	static unsigned char data[3000000];
	size_t sent = 0, waits = 0;
	struct service_sum answer;
	struct aph_event ev;
	size_t len = sizeof(answer);
	ssize_t n;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	data[0] = 'd';
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	while (sent < sizeof(data)) {
		n = aph_call_send(call, data + sent, sizeof(data) - sent, 0);
		assert_true(n >= 0 || n == -EAGAIN);
		if (n > 0)
			sent += (size_t)n;
		if (sent == sizeof(data))
			break;
		client_next(client.ep, &ev, 3000);
		assert_ptr_equal(ev.call, call);
		assert_int_equal(ev.type, APH_EVENT_WRITABLE);
		waits++;
	}
	assert_true(waits > 0);
	assert_int_equal(aph_call_send(call, data, 1, 0), -EPIPE);
	assert_int_equal(client_end(client.ep, call, &answer, &len).outcome, APH_ANSWERED);
	assert_int_equal(answer.len, sizeof(data));
	assert_int_equal(answer.sum, pattern_sum(0, data, sizeof(data)));
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

/* The service is told that there is room when the client has read. */
static void the_service_waits_for_a_slow_reader(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	struct service_get get = { .len = 20000000, .seed = 9 };
	unsigned char request[1 + sizeof(get)] = "g", buf[50000];
	struct aph_event ev;
	uint64_t got = 0;
	ssize_t n;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	memcpy(request + 1, &get, sizeof(get));
	call = client_begin(client.channel, request, sizeof(request), APH_FOREVER);
	client_expect(client.ep, APH_EVENT_REPLY, call);
	for (int i = 0; i < 20; i++)
		client_echo(client.channel);
	service_await(&service.seen->works, 1);
	for (;;) {
		while ((n = aph_call_read(call, buf, sizeof(buf))) > 0) {
			assert_int_equal(pattern_check(buf, (size_t)n, got, 9), n);
			got += (size_t)n;
		}
		if (n == 0)
			break;
		assert_int_equal(n, -EAGAIN);
		client_next(client.ep, &ev, 3000);
		assert_true(ev.type == APH_EVENT_READABLE || ev.type == APH_EVENT_END);
	}
	assert_int_equal(got, get.len);
	assert_true(service.seen->writable > 0);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

/* What a reader finds in a body that has begun and stands still, and in one that is whole. */
static void reading(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	struct aph_event ev;
	const void *data;
	char buf[16];
	size_t len;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	call = client_begin(client.channel, "p", 1, APH_FOREVER);
	client_expect(client.ep, APH_EVENT_REPLY, call);
	assert_false(aph_call_body_complete(call));
	assert_int_equal(aph_call_available(call), 4);
	assert_int_equal(aph_call_peek(call, buf, sizeof(buf)), 4);
	assert_int_equal(aph_call_borrow(call, &data, &len), 0);
	assert_int_equal(len, 4);
	assert_memory_equal(data, "part", 4);
	assert_int_equal(aph_call_release(call, 5), -EINVAL);
	assert_int_equal(aph_call_release(call, 1), 0);
	assert_int_equal(aph_call_read(call, buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "art", 3);
	assert_int_equal(aph_call_read(call, buf, sizeof(buf)), -EAGAIN);
	assert_int_equal(aph_call_borrow(call, &data, &len), -EAGAIN);
	assert_int_equal(aph_call_wait(call, aph_deadline_ms(20)), -ETIMEDOUT);
	assert_int_equal(aph_call(client.channel, "w", 1, NULL, NULL, APH_FOREVER), APH_ANSWERED);
	do {
		client_next(client.ep, &ev, 3000);
		assert_ptr_equal(ev.call, call);
		assert_true(ev.type == APH_EVENT_READABLE || ev.type == APH_EVENT_END);
	} while (ev.type != APH_EVENT_END);
	assert_true(aph_call_body_complete(call));
	assert_int_equal(aph_call_available(call), 5);
	assert_int_equal(aph_call_peek(call, buf, 2), 2);
	assert_int_equal(aph_call_borrow(call, &data, &len), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(data, "woken", 5);
	assert_int_equal(aph_call_release(call, 5), 0);
	assert_int_equal(aph_call_borrow(call, &data, &len), -ENODATA);
	assert_int_equal(aph_call_read(call, buf, 1), 0);
	assert_int_equal(aph_call_release(call, 1), -EINVAL);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

static void in_place(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	struct aph_call *call;
	uint64_t sum = 0;
	struct service_sum answer;
	size_t len, sent, total = 150000;
	void *room, *again;
	int r;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_commit(call, 0, APH_MORE), -EINVAL);
	len = 100;
	assert_int_equal(aph_call_reserve(call, &room, &len), 0);
	assert_true(len >= 1 && len <= 100);
	assert_int_equal(aph_call_reserve(call, &again, &len), -EBUSY);
	assert_int_equal(aph_call_commit(call, 0, APH_MORE), 0);
	for (sent = 0; sent < total;) {
		len = total - sent;
		r = aph_call_reserve(call, &room, &len);
		if (r == -EAGAIN) {
			assert_int_equal(aph_call_wait(call, aph_deadline_ms(5000)), 0);
			continue;
		}
		assert_int_equal(r, 0);
		assert_true(len > 0 && len <= total - sent);
		pattern_fill(room, len, sent, 4);
		if (sent == 0)
			((unsigned char *)room)[0] = 'd';
		sent += len;
		sum = pattern_sum(sum, room, len);
		assert_int_equal(aph_call_commit(call, len, sent < total ? APH_MORE : 0), 0);
	}
	len = sizeof(answer);
	assert_int_equal(client_end(client.ep, call, &answer, &len).outcome, APH_ANSWERED);
	assert_int_equal(answer.len, total);
	assert_int_equal(answer.sum, sum);
	aph_call_free(call);
	/* One that is open when its call is freed, and one that commits too much. */
	assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
	len = SIZE_MAX / 2;
	assert_int_equal(aph_call_reserve(call, &room, &len), 0);
	assert_int_equal(aph_call_commit(call, len + 1, APH_MORE), -EINVAL);
	aph_call_free(call);
	client_put(client.ep, client.channel, 600000, 1);
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
		SUITE_TEST(answered),
		SUITE_TEST(long_bodies),
		SUITE_TEST(back_pressure),
		SUITE_TEST(answered_before_all_was_sent),
		SUITE_TEST(writable_follows),
		SUITE_TEST(the_service_waits_for_a_slow_reader),
		SUITE_TEST(reading),
		SUITE_TEST(in_place),
		SUITE_TEST(what_stays_at_home),
	};

	return suite_run_both("remote calls", tests, SUITE_LEN(tests), 60);
}
