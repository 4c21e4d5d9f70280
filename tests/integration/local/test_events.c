/* SPDX-License-Identifier: MIT */
/*
 * What a service is told beside its requests: receipts, channels that come and go, a newcomer that
 * asks it to end; and what a client is told: that an asynchronous channel is open, generation
 * numbers.
 */
#include "suite.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static void receipts(unsigned flags)
{
	struct service_config config = { .address = "receipt", .options.flags = flags };
	struct service service;
	struct client client;
	struct aph_event ev;
	struct aph_call *call;
	char byte;

	service_start(&service, suite_mode, &config);
	client_open(&client, "receipt");
	/* The receipt comes when the reply was read, not before. */
	call = client_begin(client.channel, "e", 1, APH_FOREVER);
	do {
		client_next(client.ep, &ev, 3000);
		assert_ptr_equal(ev.call, call);
	} while (ev.type != APH_EVENT_END);
	usleep(20000);
	assert_int_equal(service.seen->disposed, 0);
	assert_int_equal(service.seen->works, 1);
	assert_int_equal(aph_call_read(call, &byte, 1), 1);
	aph_call_free(call);
	if (!(flags & APH_SERVICE_RECEIPTS_NOW))
		client_echo(client.channel); /* something has to wake it */
	for (int i = 0; i < check_hang_ms(3000) && service.seen->disposed == 0; i++)
		usleep(1000);
	assert_true(service.seen->disposed >= 1);
	/* An abort and a refusal end with a receipt too. */
	assert_int_equal(aph_call(client.channel, "a\0\0\0", 5, NULL, NULL, APH_FOREVER),
			 APH_ABORTED);
	assert_int_equal(aph_call(client.channel, "r\3", 2, NULL, NULL, APH_FOREVER), APH_REFUSED);
	/* A client that cancels is gone, with a reason. */
	call = client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&service.seen->held, 1);
	aph_call_free(call);
	service_await(&service.seen->gone_for[APH_REASON_CANCELLED], 1);
	client_echo(client.channel);
	client_close(&client);
	service_await(&service.seen->works, 0);
	assert_int_equal(service.seen->requests,
			 service.seen->disposed + service.seen->gone + service.seen->own_ends);
	assert_int_equal(service.seen->own_ends, 2);
	service_stop(&service);
}

static void receipts_when_awake(void **state)
{
	(void)state;
	receipts(APH_SERVICE_RECEIPTS);
}

static void receipts_at_once(void **state)
{
	(void)state;
	receipts(APH_SERVICE_RECEIPTS_NOW);
	receipts(APH_SERVICE_RECEIPTS_NOW | APH_SERVICE_RECEIPTS);
}

static int dying_client(int ctl, void *arg)
{
	struct client client;
	struct aph_call *held, *part, *answered;

	(void)arg;
	client_open(&client, "dying");
	held = client_begin(client.channel, "h", 1, APH_FOREVER);
	part = client_begin(client.channel, "p", 1, APH_FOREVER);
	answered = client_begin(client.channel, "e", 1, APH_FOREVER);
	client_next(client.ep, &(struct aph_event){ 0 }, 3000);
	(void)held;
	(void)part;
	(void)answered;
	child_say(ctl, 'r');
	pause();
	return 1;
}

static void a_client_dies(void **state)
{
	struct service_config config = {
		.address = "dying",
		.options.flags = APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS_NOW,
	};
	struct service service;
	struct child child;

	(void)state;
	service_start(&service, suite_mode, &config);
	for (uint32_t i = 1; i <= 3; i++) {
		child_start(&child, dying_client, NULL);
		assert_int_equal(child_hear(child.ctl, check_hang_ms(5000)), 'r');
		service_await(&service.seen->requests, 3 * i);
		assert_int_equal(service.seen->connects, i);
		assert_int_equal(service.seen->disconnects, i - 1);
		child_kill(&child);
		service_await(&service.seen->disconnects, i);
		service_await(&service.seen->gone_for[APH_REASON_CLOSED], 3 * i);
		service_await(&service.seen->works, 0);
	}
	service_stop(&service);
}

enum {
	TRIES = 20, /* and one of them is prompt; bench/ measures it well */
	PROMPT_MS = 100,
};

static bool is_prompt(uint64_t start)
{
	return aph_time_ns() - start < (uint64_t)check_ms(PROMPT_MS) * 1000000;
}

/* How soon after kill -9 the service is told. */
static void death_is_told_at_once(void **state)
{
	struct service_config config = { .address = "dying", .options.flags = APH_SERVICE_EVENTS };
	struct service service;
	struct child child;
	bool prompt = false;
	uint64_t start;

	(void)state;
	service_start(&service, suite_mode, &config);
	for (uint32_t i = 1; !prompt && i <= TRIES; i++) {
		child_start(&child, dying_client, NULL);
		assert_int_equal(child_hear(child.ctl, check_hang_ms(5000)), 'r');
		start = aph_time_ns();
		child_kill(&child);
		service_await(&service.seen->disconnects, i);
		prompt = is_prompt(start);
	}
	assert_true(prompt);
	service_stop(&service);
}

/* And the client. */
static void a_services_death_is_told_at_once(void **state)
{
	struct service service;
	struct client client;
	struct aph_call *call;
	bool prompt = false;
	uint64_t start;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("a thread cannot die alone");
	for (int i = 0; !prompt && i < TRIES; i++) {
		service_start_simple(&service, suite_mode, "dying");
		client_open(&client, "dying");
		call = client_begin(client.channel, "h", 1, APH_FOREVER);
		service_await(&service.seen->held, 1);
		start = aph_time_ns();
		service_kill(&service);
		client_expect(client.ep, APH_EVENT_END, call);
		prompt = is_prompt(start);
		aph_call_free(call);
		client_close(&client);
		dir_remove_sockets();
	}
	assert_true(prompt);
}

static void connect_and_disconnect(void **state)
{
	enum {
		N = 20
	};
	struct service_config config = { .address = "visits", .options.flags = APH_SERVICE_EVENTS };
	struct service service;
	struct client clients[N];

	(void)state;
	service_start(&service, suite_mode, &config);
	for (uint32_t i = 0; i < N; i++) {
		client_open(&clients[i], "visits");
		if (i % 2)
			client_echo(clients[i].channel);
	}
	service_await(&service.seen->connects, N);
	assert_int_equal(service.seen->disconnects, 0);
	for (uint32_t i = 0; i < N; i++) {
		client_close(&clients[i]);
		service_await(&service.seen->disconnects, i + 1);
	}
	service_stop(&service);
}

static void without_the_flag_no_events(void **state)
{
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, suite_mode, "quiet");
	client_open(&client, "quiet");
	client_echo(client.channel);
	client_close(&client);
	usleep(20000);
	assert_int_equal(service.seen->connects, 0);
	assert_int_equal(service.seen->disconnects, 0);
	assert_int_equal(service.seen->disposed, 0);
	service_stop(&service);
}

static void generation(void **state)
{
	static const int64_t numbers[] = { 1, 2, -5, INT64_MAX, INT64_MIN, 7 };
	struct service service;
	struct client client, other;
	char request[9] = "n";

	(void)state;
	service_start_simple(&service, suite_mode, "gen");
	client_open(&client, "gen");
	client_open(&other, "gen");
	assert_int_equal(aph_channel_generation(client.channel), 0);
	for (size_t i = 0; i < SUITE_LEN(numbers); i++) {
		memcpy(request + 1, &numbers[i], 8);
		assert_int_equal(aph_call(client.channel, request, 9, NULL, NULL, APH_FOREVER), 0);
		assert_int_equal(aph_channel_generation(client.channel), numbers[i]);
		assert_int_equal(aph_channel_generation(other.channel), numbers[i]);
	}
	client_close(&other);
	/* One that comes later sees the number that holds. */
	client_open(&other, "gen");
	assert_int_equal(aph_channel_generation(other.channel), 7);
	client_close(&other);
	client_close(&client);
	service_stop(&service);
}

static void asynchronous_open(void **state)
{
	struct aph_channel_options options = { .size = sizeof(options),
					       .flags = APH_CHANNEL_ASYNC };
	struct service_config config = { .address = "async", .options.channels_max = 1 };
	struct service service;
	struct aph_endpoint *ep;
	struct aph_channel *channel, *second;
	struct aph_event ev;
	int mark;

	(void)state;
	options.data = &mark;
	service_start(&service, suite_mode, &config);
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_channel_open(&channel, ep, "async", &options), 0);
	ev = client_expect(ep, APH_EVENT_OPEN, NULL);
	assert_ptr_equal(ev.channel, channel);
	assert_ptr_equal(aph_channel_data(channel), &mark);
	client_echo(channel);
	/* One too many: refused as busy, by either form. */
	assert_int_equal(aph_channel_open(&second, ep, "async", NULL), -EBUSY);
	assert_int_equal(aph_channel_open(&second, ep, "async", &options), 0);
	ev = client_expect(ep, APH_EVENT_CLOSED, NULL);
	assert_ptr_equal(ev.channel, second);
	assert_int_equal(ev.result.reason, APH_REASON_BUSY);
	assert_false(aph_channel_is_open(second));
	aph_channel_close(second);
	client_echo(channel);
	aph_channel_close(channel);
	/* There is room again. */
	for (int i = 0; i < 100; i++) {
		int r = aph_channel_open(&channel, ep, "async", NULL);

		if (r == 0)
			break;
		assert_int_equal(r, -EBUSY); /* it has not seen the first one go yet */
		usleep(10000);
	}
	client_echo(channel);
	aph_channel_close(channel);
	/* Closed before the answer came. */
	assert_int_equal(aph_channel_open(&channel, ep, "async", &options), 0);
	aph_channel_close(channel);
	client_quiet(ep, 20);
	aph_endpoint_free(ep);
	service_stop(&service);
}

static void a_service_that_does_not_answer(void **state)
{
	struct aph_channel_options options = { .size = sizeof(options) };
	struct service service;
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_event ev;
	uint64_t start = aph_time_ns();

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("needs a service that can be stopped");
	service_start_simple(&service, suite_mode, "dumb");
	child_signal(&service.child, SIGSTOP);
	child_await_state(service.child.pid, 'T', check_hang_ms(2000));
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	options.deadline_ns = aph_deadline_ms(100);
	assert_int_equal(aph_channel_open(&channel, ep, "dumb", &options), -ETIMEDOUT);
	assert_true(aph_time_ns() - start < UINT64_C(5000000000));
	options.flags = APH_CHANNEL_ASYNC;
	options.deadline_ns = aph_deadline_ms(50);
	assert_int_equal(aph_channel_open(&channel, ep, "dumb", &options), 0);
	ev = client_expect(ep, APH_EVENT_CLOSED, NULL);
	assert_int_equal(ev.result.reason, APH_REASON_DEADLINE);
	aph_channel_close(channel);
	child_signal(&service.child, SIGCONT);
	assert_int_equal(aph_channel_open(&channel, ep, "dumb", NULL), 0);
	client_echo(channel);
	aph_channel_close(channel);
	aph_endpoint_free(ep);
	service_stop(&service);
}

static void wake(void **state)
{
	struct aph_endpoint *ep;
	struct aph_event ev;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_endpoint_next(ep, &ev, APH_NOW), -EAGAIN);
	assert_int_equal(aph_endpoint_next(ep, &ev, aph_deadline_ms(10)), -ETIMEDOUT);
	assert_int_equal(aph_endpoint_wake(ep), 0);
	assert_int_equal(aph_endpoint_next(ep, &ev, APH_FOREVER), -ECANCELED);
	assert_int_equal(aph_endpoint_next(ep, &ev, APH_NOW), -EAGAIN);
	aph_endpoint_free(ep);
}

/* Both ends in this thread. */
static struct aph_channel *open_beside(struct aph_endpoint *server, struct aph_endpoint *client)
{
	struct aph_channel_options options = { .size = sizeof(options),
					       .flags = APH_CHANNEL_ASYNC };
	struct aph_channel *channel;
	struct aph_event ev;

	assert_int_equal(aph_channel_open(&channel, client, "out", &options), 0);
	while (!aph_channel_is_open(channel)) {
		(void)aph_endpoint_next(server, &ev, aph_deadline_ms(1));
		(void)aph_endpoint_serve(client, APH_NOW);
	}
	(void)client_expect(client, APH_EVENT_OPEN, NULL);
	/* CONNECT, where it was asked for. */
	while (aph_endpoint_next(server, &ev, APH_NOW) == 0)
		assert_int_equal(ev.type, APH_EVENT_CONNECT);
	return channel;
}

static void throw_out(unsigned flags)
{
	struct aph_service_options options = { .size = sizeof(options), .flags = flags };
	struct aph_call *calls[2], *works[2];
	struct aph_endpoint *server, *client;
	struct aph_channel *channel;
	struct aph_event ev;

	assert_int_equal(aph_endpoint_new(&server, NULL), 0);
	assert_int_equal(aph_endpoint_new(&client, NULL), 0);
	assert_int_equal(aph_service_open(NULL, server, "out", &options), 0);
	channel = open_beside(server, client);
	for (int i = 0; i < 2; i++) {
		calls[i] = client_begin(channel, "x", 1, APH_FOREVER);
		ev = client_expect(server, APH_EVENT_REQUEST, NULL);
		works[i] = ev.call;
	}
	/* What is no reason is not told to anybody. */
	assert_int_equal(aph_call_refuse(works[0], (enum aph_reason)99), -EINVAL);
	aph_channel_close(ev.channel);
	/* Nothing more comes of it: its calls are the service's to end. */
	client_quiet(server, 20);
	assert_int_equal(aph_call_reply(works[0], NULL, 0), -ECANCELED);
	if (flags & APH_SERVICE_RECEIPTS)
		aph_call_free(works[0]);
	aph_call_free(works[1]);
	client_quiet(server, 5);
	for (int i = 0; i < 2; i++) {
		ev = client_expect(client, APH_EVENT_END, calls[i]);
		assert_int_equal(ev.result.outcome, APH_LOST);
		assert_int_equal(ev.result.reason, APH_REASON_CLOSED);
		aph_call_free(calls[i]);
	}
	(void)client_expect(client, APH_EVENT_CLOSED, NULL);
	aph_channel_close(channel);
	aph_endpoint_free(client);
	aph_endpoint_free(server);
}

static void a_client_that_is_thrown_out(void **state)
{
	(void)state;
	throw_out(0);
	throw_out(APH_SERVICE_EVENTS);
	throw_out(APH_SERVICE_RECEIPTS);
	throw_out(APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS_NOW);
}

/*
 * Of whoever came and was not announced before the service closed the program never hears; the
 * others go.
 */
static void closing_with_newcomers(void **state)
{
	struct aph_service_options options = { .size = sizeof(options),
					       .flags = APH_SERVICE_EVENTS };
	struct aph_channel_options later = { .size = sizeof(later), .flags = APH_CHANNEL_ASYNC };
	struct aph_endpoint *server, *client;
	struct aph_channel *channels[3];
	struct aph_service *service;
	struct aph_event ev = { .channel = NULL };

	(void)state;
	assert_int_equal(aph_endpoint_new(&server, NULL), 0);
	assert_int_equal(aph_endpoint_new(&client, NULL), 0);
	assert_int_equal(aph_service_open(&service, server, "out", &options), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(aph_channel_open(&channels[i], client, "out", &later), 0);
		while (!aph_channel_is_open(channels[i])) {
			(void)aph_endpoint_serve(server, aph_deadline_ms(1));
			(void)aph_endpoint_serve(client, APH_NOW);
		}
		(void)client_expect(client, APH_EVENT_OPEN, NULL);
		if (i == 0)
			ev = client_expect(server, APH_EVENT_CONNECT, NULL);
	}
	/* One has gone before. */
	aph_channel_close(channels[2]);
	assert_int_equal(aph_endpoint_serve(server, aph_deadline_ms(5)), -ETIMEDOUT);
	aph_service_close(service);
	channels[2] = ev.channel;
	ev = client_expect(server, APH_EVENT_DISCONNECT, NULL);
	assert_ptr_equal(ev.channel, channels[2]);
	assert_null(ev.service);
	aph_channel_close(ev.channel);
	client_quiet(server, 20);
	for (int i = 0; i < 2; i++) {
		(void)client_expect(client, APH_EVENT_CLOSED, NULL);
		aph_channel_close(channels[i]);
	}
	aph_endpoint_free(client);
	aph_endpoint_free(server);
}

/* A reply that is on its way for a while takes with it what was to be told of its call. */
static void nothing_after_the_reply(void **state)
{
	static char reply[1 << 20];
	struct aph_endpoint *server, *client;
	struct aph_channel *channel;
	struct aph_call *call;
	struct aph_event ev;
	size_t len = 0;

	(void)state;
	assert_int_equal(aph_endpoint_new(&server, NULL), 0);
	assert_int_equal(aph_endpoint_new(&client, NULL), 0);
	assert_int_equal(aph_service_open(NULL, server, "out", NULL), 0);
	channel = open_beside(server, client);
	call = client_begin(channel, "x", 1, APH_FOREVER);
	ev = client_expect(server, APH_EVENT_REQUEST, NULL);
	assert_int_equal(aph_call_signal(call, 5), 0);
	assert_int_equal(aph_endpoint_serve(server, aph_deadline_ms(5)), -ETIMEDOUT);
	assert_int_equal(aph_call_reply(ev.call, reply, sizeof(reply)), 0);
	client_quiet(server, 20);
	while (aph_endpoint_next(client, &ev, aph_deadline_ms(5)) == -ETIMEDOUT ||
	       ev.type != APH_EVENT_END) {
		ssize_t n;

		while ((n = aph_call_read(call, reply, sizeof(reply))) > 0)
			len += (size_t)n;
		client_quiet(server, 1);
	}
	assert_int_equal(ev.result.outcome, APH_ANSWERED);
	assert_int_equal(len + aph_call_available(call), sizeof(reply));
	aph_call_free(call);
	aph_channel_close(channel);
	aph_endpoint_free(client);
	aph_endpoint_free(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(receipts_when_awake),
		SUITE_TEST(receipts_at_once),
		SUITE_TEST(a_client_dies),
		SUITE_TEST(death_is_told_at_once),
		SUITE_TEST(a_services_death_is_told_at_once),
		SUITE_TEST(connect_and_disconnect),
		SUITE_TEST(without_the_flag_no_events),
		SUITE_TEST(generation),
		SUITE_TEST(asynchronous_open),
		SUITE_TEST(a_service_that_does_not_answer),
		SUITE_TEST(a_client_that_is_thrown_out),
		SUITE_TEST(nothing_after_the_reply),
		SUITE_TEST(closing_with_newcomers),
		SUITE_TEST(wake),
	};

	return suite_run_both("events", tests, SUITE_LEN(tests), 60);
}
