/* SPDX-License-Identifier: MIT */
/*
 * How a call over an rx: address ends, and that both sides are told the right outcome. What its
 * service alone decides is in ../calls.
 */
#include "remote.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void aborted(void **state)
{
	/* The last ones mean something to the protocol: another code goes in their place. */
	static const int32_t codes[] = { 1, 42, INT32_MAX, INT32_MIN, -3,	  -0x3eaffefd,
					 0, -1, -2,	   -100,      0x41500103, 0x41500205 };
	const char *address = remote_address();
	struct aph_result result;
	struct service service;
	struct client client;
	struct aph_call *call;
	char request[5] = "a";

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	for (size_t i = 0; i < SUITE_LEN(codes); i++) {
		memcpy(request + 1, &codes[i], 4);
		call = client_begin(client.channel, request, 5, APH_FOREVER);
		result = client_end(client.ep, call, NULL, NULL);
		client_check_result(result, APH_ABORTED, APH_REASON_NONE);
		assert_int_equal(result.code, i < 6 ? codes[i] : -6);
		aph_call_free(call);
	}
	/* After part of the reply. */
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

/* aph_call() until its deadline passes at a service that has received it. */
static void late_in_one(struct client *client, struct service *service)
{
	for (unsigned ms = 60;; ms *= 2) {
		uint32_t late = service->seen->gone_for[APH_REASON_DEADLINE];
		uint32_t requests = service->seen->requests;

		assert_int_equal(aph_call(client->channel, "h", 1, NULL, NULL, aph_deadline_ms(ms)),
				 APH_LOST);
		client_echo(client->channel);
		if (service->seen->requests == requests + 2) {
			service_await(&service->seen->gone_for[APH_REASON_DEADLINE], late + 1);
			return;
		}
		/* This machine is busy. */
		assert_true(ms < 6000);
	}
}

/* The last reply is acknowledged while the client waits for something. */
static void await_rest(struct client *client, struct service *service)
{
	uint64_t end = aph_deadline_ms((uint64_t)check_hang_ms(5000));
	struct aph_event ev;

	while (service->seen->works) {
		assert_int_equal(aph_endpoint_next(client->ep, &ev, aph_deadline_ms(10)),
				 -ETIMEDOUT);
		assert_true(aph_time_ns() < end);
	}
}

static void cancelled_and_late(void **state)
{
	struct service_config config = { .address = remote_address() };
	const _Atomic uint32_t *gone;
	uint32_t late, cancelled;
	struct service service;
	struct client client;
	struct aph_call *call;
	uint64_t deadline;

	(void)state;
	for (int receipts = 0; receipts < 2; receipts++) {
		config.options.flags = receipts ? APH_SERVICE_RECEIPTS : 0;
		service_start(&service, suite_mode, &config);
		client_open(&client, config.address);
		call = client_begin(client.channel, "h", 1, APH_FOREVER);
		service_await(&service.seen->held, 1);
		assert_int_equal(aph_call_withdraw(call), -EBUSY);
		assert_int_equal(aph_call_cancel(call), 0);
		client_check_result(client_end(client.ep, call, NULL, NULL), APH_LOST,
				    APH_REASON_CANCELLED);
		aph_call_free(call);
		service_await(&service.seen->gone_for[APH_REASON_CANCELLED], 1);
		call = client_begin_late(client.channel, &service, "h", &deadline);
		gone = service.seen->gone_for;
		late = gone[APH_REASON_DEADLINE];
		client_check_result(client_end(client.ep, call, NULL, NULL), APH_LOST,
				    APH_REASON_DEADLINE);
		aph_call_free(call);
		service_await(&gone[APH_REASON_DEADLINE], late + 1);
		/* One that is freed, and one whose deadline passes in aph_call(). */
		cancelled = gone[APH_REASON_CANCELLED];
		call = client_begin(client.channel, "h", 1, APH_FOREVER);
		service_await(&service.seen->held, 1);
		aph_call_free(call);
		service_await(&gone[APH_REASON_CANCELLED], cancelled + 1);
		late_in_one(&client, &service);
		await_rest(&client, &service);
		/* One that nobody has heard of. */
		assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
		assert_int_equal(aph_call_cancel(call), 0);
		client_check_result(client_end(client.ep, call, NULL, NULL), APH_REFUSED,
				    APH_REASON_CANCELLED);
		aph_call_free(call);
		client_echo(client.channel);
		client_close(&client);
		service_stop(&service);
	}
}

/* A deadline is kept by a thread that is never idle. */
static void late_while_others_come(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	struct aph_call *call, *other;
	struct aph_event ev;
	uint64_t deadline, end;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	call = client_begin_late(client.channel, &service, "h", &deadline);
	end = deadline + (uint64_t)check_hang_ms(2000) * 1000000;
	do {
		other = client_begin(client.channel, "e", 1, APH_FOREVER);
		do {
			client_next(client.ep, &ev, 3000);
		} while (ev.type != APH_EVENT_END);
		if (ev.call == call) {
			client_end(client.ep, other, NULL, NULL);
			aph_call_free(other);
			break;
		}
		assert_ptr_equal(ev.call, other);
		aph_call_free(other);
		assert_true(aph_time_ns() < end);
	} while (1);
	assert_true(aph_time_ns() >= deadline);
	client_check_result(ev.result, APH_LOST, APH_REASON_DEADLINE);
	aph_call_free(call);
	client_close(&client);
	service_stop(&service);
}

static void await_receipts(struct client *client, struct service *service, uint32_t n)
{
	uint64_t deadline = aph_deadline_ms((uint64_t)check_hang_ms(3000));

	while (service->seen->disposed != n && aph_time_ns() < deadline)
		client_quiet(client->ep, 5);
	assert_int_equal(service->seen->disposed, n);
}

static void receipts(void **state)
{
	struct service_config config = { .address = remote_address() };
	struct service_get get = { .len = 20000, .seed = 3 };
	char request[1 + sizeof(get)] = "G", buf[20000];
	struct service service;
	struct client client;
	struct aph_call *call;

	(void)state;
	memcpy(request + 1, &get, sizeof(get));
	config.options.flags = APH_SERVICE_RECEIPTS | APH_SERVICE_EVENTS;
	service_start(&service, suite_mode, &config);
	client_open(&client, config.address);
	client_echo(client.channel);
	/*
	 * The receipt goes with the next call, or a little later while the client waits for
	 * something.
	 */
	await_receipts(&client, &service, 1);
	service_await(&service.seen->connects, 1);
	call = client_begin(client.channel, request, sizeof(request), APH_FOREVER);
	while (!aph_call_body_complete(call))
		assert_int_equal(aph_endpoint_serve(client.ep, aph_deadline_ms(5)), -ETIMEDOUT);
	/* All of it is here, and nothing was read. */
	assert_int_equal(service.seen->disposed, 1);
	assert_int_equal(service.seen->works, 1);
	assert_int_equal(aph_call_read(call, buf, sizeof(buf)), 20000);
	client_expect(client.ep, APH_EVENT_END, call);
	aph_call_free(call);
	client_echo(client.channel);
	await_receipts(&client, &service, 3);
	service_await(&service.seen->works, 0);
	client_close(&client);
	service_stop(&service);
}

/* A service that holds these calls is killed; when. */
static uint64_t kill_a_holder(const char *address, struct client *client, struct aph_call **calls,
			      size_t n)
{
	struct service service;

	if (suite_mode == SERVICE_THREAD)
		suite_skip("a thread cannot die alone");
	service_start_simple(&service, suite_mode, address);
	client_open(client, address);
	for (size_t i = 0; i < n; i++)
		calls[i] = client_begin(client->channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, (uint32_t)n);
	/* What the service has received it has acknowledged then: none of it is sent again. */
	client_echo(client->channel);
	service_kill(&service);
	return aph_time_ns();
}

static void the_service_is_killed(void **state)
{
	const char *address = remote_address();
	struct service service;
	struct client client;
	struct aph_call *calls[3];
	uint64_t start;

	(void)state;
	start = kill_a_holder(address, &client, calls, SUITE_LEN(calls));
	/* The next that is sent there is answered by the kernel. */
	client_expect_ends(&client, calls, SUITE_LEN(calls), APH_LOST, APH_REASON_CLOSED, false,
			   6000);
	assert_true(aph_time_ns() - start < (uint64_t)check_hang_ms(6000) * 1000000);
	printf("the service's death was noticed after %u ms\n",
	       (unsigned)((aph_time_ns() - start) / 1000000));
	remote_expect_refused(client.channel, APH_REASON_NO_SERVICE);
	service_start_simple(&service, suite_mode, address);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

/*
 * The kernel answers the first packet that comes to nobody's port, and that ends all calls there.
 */
static void death_is_heard_with_the_next_packet(void **state)
{
	const char *address = remote_address();
	struct client client;
	struct aph_call *calls[3];
	uint64_t start;

	(void)state;
	start = kill_a_holder(address, &client, calls, SUITE_LEN(calls));
	remote_expect_refused(client.channel, APH_REASON_NO_SERVICE);
	client_expect_ends(&client, calls, SUITE_LEN(calls), APH_LOST, APH_REASON_CLOSED, false,
			   1000);
	/* Well before anybody would have asked whether it is still there. */
	assert_true(aph_time_ns() - start < (uint64_t)check_ms(1900) * 1000000);
	client_close(&client);
}

/*
 * Who comes in place of the dead does not know the calls, and says so when it is asked: nobody
 * waits for silence.
 */
static void another_one_in_its_place(void **state)
{
	const char *address = remote_address();
	struct service next;
	struct client client;
	struct aph_call *calls[3];
	uint64_t start;

	(void)state;
	start = kill_a_holder(address, &client, calls, SUITE_LEN(calls));
	service_start_simple(&next, suite_mode, address);
	/* New calls go to it meanwhile, on the same connections. */
	client_echo(client.channel);
	client_expect_ends(&client, calls, SUITE_LEN(calls), APH_LOST, APH_REASON_CLOSED, false,
			   6000);
	assert_true(aph_time_ns() - start < (uint64_t)check_hang_ms(6000) * 1000000);
	assert_int_equal(next.seen->held, 0);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&next);
}

static int hold_calls(int ctl, void *arg)
{
	struct client client;

	client_open(&client, arg);
	for (int i = 0; i < 2; i++)
		client_begin(client.channel, "h", 1, APH_FOREVER);
	(void)aph_endpoint_serve(client.ep, aph_deadline_ms(5));
	child_say(ctl, 'h');
	(void)aph_endpoint_serve(client.ep, APH_FOREVER);
	return 0;
}

static void the_client_is_killed(void **state)
{
	char address[64];
	struct service service;
	struct client client;
	struct child child;
	uint64_t deadline;

	(void)state;
	snprintf(address, sizeof(address), "%s", remote_address());
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	child_start(&child, hold_calls, address);
	service_await(&service.seen->held, 2);
	child_kill(&child);
	/* A question whether it is still there is answered by the kernel. */
	deadline = aph_deadline_ms((uint64_t)check_hang_ms(12500));
	while (service.seen->gone < 2 && aph_time_ns() < deadline)
		client_quiet(client.ep, 20);
	assert_int_equal(service.seen->gone_for[APH_REASON_CLOSED], 2);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

/* The network has said so while the reply was under way, and nobody has looked for events since. */
static void a_reply_to_a_client_that_was_killed(void **state)
{
	const struct aph_service_options options = { .size = sizeof(options),
						     .flags = APH_SERVICE_RECEIPTS };
	const struct timespec nap = { .tv_nsec = 1000000 };
	char address[64];
	struct aph_service *service;
	struct aph_endpoint *ep;
	struct aph_call *call;
	struct aph_event ev;
	struct child child;
	ssize_t n = 0;

	(void)state;
	snprintf(address, sizeof(address), "%s", remote_address());
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(&service, ep, address, &options), 0);
	child_start(&child, hold_calls, address);
	call = client_expect(ep, APH_EVENT_REQUEST, NULL).call;
	child_kill(&child);
	for (int i = 0; i < 1000 && n != -EPIPE; i++) {
		n = aph_call_send(call, "x", 1, APH_MORE);
		nanosleep(&nap, NULL);
	}
	assert_int_equal(n, -EPIPE);
	assert_int_equal(aph_call_reply(call, "y", 1), -ECANCELED);
	ev = client_expect(ep, APH_EVENT_END, call);
	client_check_result(ev.result, APH_GONE, APH_REASON_CLOSED);
	aph_call_free(call);
	aph_endpoint_free(ep);
}

static void the_service_closes(void **state)
{
	const char *address = remote_address();
	struct aph_call *calls[4];
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, address);
	client_open(&client, address);
	for (size_t i = 0; i < SUITE_LEN(calls); i++)
		calls[i] = client_begin(client.channel, i ? "h" : "p", 1, APH_FOREVER);
	service_await(&service.seen->held, SUITE_LEN(calls));
	service_stop(&service);
	client_expect_ends(&client, calls, SUITE_LEN(calls), APH_LOST, APH_REASON_CLOSED, false,
			   3000);
	client_close(&client);
}

/*
 * Requests that are in the socket: nobody has received them, alone at its port or not. The client
 * hears so, although more of a request went to a port that is closed before it has looked.
 */
static void the_service_closes_unread(void **state)
{
	const char *address = remote_address();
	char others[64], large[40000] = "h";
	struct aph_call *calls[4];
	struct aph_service *service;
	struct aph_endpoint *ep;
	struct client client;

	(void)state;
	snprintf(others, sizeof(others), "%s", remote_other(address, REMOTE_SERVICE + 1));
	for (int with_another = 0; with_another < 2; with_another++) {
		assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
		assert_int_equal(aph_service_open(&service, ep, address, NULL), 0);
		if (with_another)
			assert_int_equal(aph_service_open(NULL, ep, others, NULL), 0);
		client_open(&client, address);
		for (size_t i = 0; i < SUITE_LEN(calls); i++) {
			assert_int_equal(aph_call_new(&calls[i], client.channel, APH_FOREVER, NULL),
					 0);
			assert_true(aph_call_send(calls[i], large, i % 2 ? sizeof(large) : 1, 0) >
				    0);
		}
		client_quiet(client.ep, 5);
		assert_null(aph_service_close(service));
		client_expect_ends(&client, calls, SUITE_LEN(calls), APH_REFUSED, APH_REASON_CLOSED,
				   false, 3000);
		client_close(&client);
		assert_null(aph_endpoint_free(ep));
	}
}

/* A request for another service of the port, in a loop that sleeps when the first one closes. */
static void one_closes_and_one_is_called(void **state)
{
	struct aph_service *services[2];
	struct aph_endpoint *ep;
	struct aph_event ev;
	struct client client;
	struct aph_call *call;
	struct pollfd fd = { .events = POLLIN };
	char addresses[2][64];

	(void)state;
	snprintf(addresses[0], sizeof(addresses[0]), "%s", remote_address());
	snprintf(addresses[1], sizeof(addresses[1]), "%s",
		 remote_other(addresses[0], REMOTE_SERVICE + 1));
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(aph_service_open(&services[i], ep, addresses[i], NULL), 0);
	fd.fd = aph_endpoint_fd(ep);
	assert_true(fd.fd >= 0);
	assert_int_equal(aph_endpoint_next(ep, &ev, APH_NOW), -EAGAIN);
	client_open(&client, addresses[1]);
	call = client_begin(client.channel, "e", 1, APH_FOREVER);
	client_quiet(client.ep, 5);
	assert_null(aph_service_close(services[0]));
	assert_int_equal(poll(&fd, 1, check_hang_ms(3000)), 1);
	assert_int_equal(aph_endpoint_next(ep, &ev, APH_NOW), 0);
	assert_int_equal(ev.type, APH_EVENT_REQUEST);
	assert_int_equal(aph_call_reply(ev.call, "yes", 3), 0);
	assert_int_equal(aph_endpoint_next(ep, &ev, APH_NOW), -EAGAIN);
	client_check_result(client_end(client.ep, call, NULL, NULL), APH_ANSWERED, APH_REASON_NONE);
	aph_call_free(call);
	client_close(&client);
	assert_null(aph_endpoint_free(ep));
}

static void the_client_closes(void **state)
{
	struct service_config config = { .address = remote_address() };
	struct aph_call *calls[3];
	struct aph_result result;
	struct service service;
	struct client client;

	(void)state;
	config.options.flags = APH_SERVICE_EVENTS;
	service_start(&service, suite_mode, &config);
	client_open(&client, config.address);
	for (size_t i = 0; i < SUITE_LEN(calls); i++)
		calls[i] = client_begin(client.channel, i ? "h" : "p", 1, APH_FOREVER);
	service_await(&service.seen->held, SUITE_LEN(calls));
	client.channel = aph_channel_close(client.channel);
	client_quiet(client.ep, 5);
	for (size_t i = 0; i < SUITE_LEN(calls); i++) {
		assert_true(aph_call_result(calls[i], &result));
		client_check_result(result, APH_LOST, APH_REASON_CLOSED);
		aph_call_free(calls[i]);
	}
	service_await(&service.seen->gone, SUITE_LEN(calls));
	service_await(&service.seen->works, 0);
	assert_int_equal(aph_channel_open(&client.channel, client.ep, config.address, NULL), 0);
	client_echo(client.channel);
	/* All goes with the endpoint. */
	(void)client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	client.ep = aph_endpoint_free(client.ep);
	service_await(&service.seen->works, 0);
	service_stop(&service);
}

static void the_service_throws_the_client_out(void **state)
{
	struct service_config config = { .address = remote_address() };
	struct aph_call *calls[3];
	struct service service;
	struct client client, other;

	(void)state;
	for (int events = 0; events < 2; events++) {
		config.options.flags = events ? APH_SERVICE_EVENTS : 0;
		service_start(&service, suite_mode, &config);
		client_open(&client, config.address);
		client_open(&other, config.address);
		calls[0] = client_begin(client.channel, "h", 1, APH_FOREVER);
		calls[1] = client_begin(client.channel, "h", 1, APH_FOREVER);
		service_await(&service.seen->held, 2);
		calls[2] = client_begin(client.channel, "o", 1, APH_FOREVER);
		client_expect_ends(&client, calls, 3, APH_LOST, APH_REASON_CLOSED, false, 3000);
		/* It may come back. */
		client_echo(client.channel);
		client_echo(other.channel);
		client_close(&client);
		client_close(&other);
		service_stop(&service);
	}
}

/* The client hears of it at once, however long the service keeps the call that it has left. */
static void thrown_out_and_still_held(void **state)
{
	struct aph_endpoint *ep;
	struct aph_call *call;
	struct client client;
	struct aph_event ev;
	const char *address = remote_address();

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, ep, address, NULL), 0);
	client_open(&client, address);
	call = client_begin(client.channel, "x", 1, aph_deadline_ms((uint64_t)check_hang_ms(2000)));
	client_next(ep, &ev, 3000);
	assert_int_equal(ev.type, APH_EVENT_REQUEST);
	assert_null(aph_channel_close(ev.channel));
	client_expect_ends(&client, &call, 1, APH_LOST, APH_REASON_CLOSED, false, 3000);
	assert_int_equal(aph_call_reply(ev.call, "", 0), -ECANCELED);
	client_close(&client);
	aph_endpoint_free(ep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(aborted),
		SUITE_TEST(cancelled_and_late),
		SUITE_TEST(late_while_others_come),
		SUITE_TEST(receipts),
		SUITE_TEST(the_service_is_killed),
		SUITE_TEST(death_is_heard_with_the_next_packet),
		SUITE_TEST(another_one_in_its_place),
		SUITE_TEST(the_client_is_killed),
		SUITE_TEST(a_reply_to_a_client_that_was_killed),
		SUITE_TEST(the_service_closes),
		SUITE_TEST(the_service_closes_unread),
		SUITE_TEST(one_closes_and_one_is_called),
		SUITE_TEST(the_client_closes),
		SUITE_TEST(the_service_throws_the_client_out),
		SUITE_TEST(thrown_out_and_still_held),
	};

	return suite_run_both("remote ends", tests, SUITE_LEN(tests), 60);
}
