/* SPDX-License-Identifier: MIT */
/*
 * A service hands its name and its idle channels over to a newcomer, step by step: what goes, what
 * stays.
 */
#include "suite.h"

#include "pattern.h"
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* -- what goes --------------------------------------------------------------------------------- */

/*
 * A newcomer takes the name and the idle channels; a client that calls all the time never notices.
 */
static void chain(enum service_mode mode, const struct service_config *first)
{
	struct service_config config = *first;
	struct service services[6];
	struct client client, other;
	struct aph_channel *channel;
	uint32_t total = 0;

	service_start(&services[0], mode, &config);
	client_open(&client, "relay");
	channel = client.channel;
	for (int i = 1; i < 6; i++) {
		for (int k = 0; k < 20; k++)
			client_echo(client.channel);
		config.options.flags |= APH_SERVICE_TAKE | APH_SERVICE_TERMINATE;
		service_start(&services[i], mode, &config);
		for (int k = 0; k < 20; k++)
			client_echo(client.channel);
		client_open(&other, "relay");
		client_echo(other.channel);
		client_close(&other);
		/* Both sides sleep now, and have to wake each other. */
		nap_ms(10);
		client_echo(client.channel);
		service_await(&services[i - 1].seen->terminates, 1);
		total += services[i - 1].seen->requests;
		if (mode == SERVICE_PROCESS)
			service_gone(&services[i - 1], 0);
		else
			service_stop(&services[i - 1]);
	}
	client_quiet(client.ep, 10);
	assert_true(aph_channel_is_open(client.channel));
	assert_ptr_equal(client.channel, channel);
	assert_int_equal(total + services[5].seen->requests, 5 * 42);
	assert_true(services[5].seen->requests > 0);
	if (mode == SERVICE_PROCESS)
		assert_int_equal(aph_channel_credentials(client.channel)->pid,
				 services[5].child.pid);
	client_close(&client);
	service_stop(&services[5]);
}

static void newcomers_take_over(void **state)
{
	struct service_config config = relay(0);

	(void)state;
	chain(suite_mode, &config);
	config = relay(APH_SERVICE_EVENTS);
	chain(suite_mode, &config);
	config = relay(0);
	config.by_fd = true;
	chain(suite_mode, &config);
	config.by_fd = false;
	config.spin_max_us = APH_SPIN_NEVER;
	chain(suite_mode, &config);
}

/* Channels that ring by a byte on the socket, as a process short of descriptors opens them. */
static void without_a_bell(void **state)
{
	struct service_config config = relay(0);

	(void)state;
	config.nofile = 26;
	chain(SERVICE_PROCESS, &config);
}

static void *echo_until(void *arg)
{
	struct client *client = ((void **)arg)[0];
	_Atomic bool *stop = ((void **)arg)[1];

	while (!atomic_load(stop))
		client_echo(client->channel);
	return NULL;
}

/* Giver and newcomer may be services of one endpoint, in one thread. */
static void within_one_endpoint(void **state)
{
	struct aph_service_options options = { .size = sizeof(options), .flags = APH_SERVICE_GIVE };
	struct aph_service *first, *second = NULL;
	unsigned n_first = 0, n_second = 0;
	_Atomic bool stop = false;
	struct aph_endpoint *ep;
	struct client client;
	void *args[] = { &client, (void *)&stop };
	pthread_t thread;
	char buf[64];

	(void)state;
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK_OK(aph_service_open(&first, ep, "relay", &options));
	CHECK_OK(aph_endpoint_new(&client.ep, NULL));
	{
		struct aph_channel_options async = { .size = sizeof(async),
						     .flags = APH_CHANNEL_ASYNC };
		struct aph_event ev;

		CHECK_OK(aph_channel_open(&client.channel, client.ep, "relay", &async));
		while (aph_endpoint_next(client.ep, &ev, APH_NOW) == -EAGAIN)
			CHECK(aph_endpoint_next(ep, &ev, APH_NOW) == -EAGAIN);
		CHECK(ev.type == APH_EVENT_OPEN);
	}
	CHECK(pthread_create(&thread, NULL, echo_until, args) == 0);
	while (n_second < 200) {
		struct aph_event ev;
		ssize_t n;

		client_next(ep, &ev, 5000);
		if (ev.type == APH_EVENT_TERMINATE) {
			CHECK(ev.service == first);
			first = aph_service_close(first);
			continue;
		}
		CHECK(ev.type == APH_EVENT_REQUEST);
		n = (ssize_t)CHECK_OK(aph_call_read(ev.call, buf, sizeof(buf)));
		CHECK_OK(aph_call_reply(ev.call, buf, (size_t)n));
		if (ev.service == second) {
			n_second++;
			continue;
		}
		options.flags |= APH_SERVICE_TAKE;
		if (++n_first == 200)
			CHECK_OK(aph_service_open(&second, ep, "relay", &options));
	}
	CHECK(!first);
	/* The thread may still make a call or two. */
	atomic_store(&stop, true);
	for (;;) {
		struct timespec now;
		struct aph_event ev;

		if (aph_endpoint_next(ep, &ev, aph_deadline_ms(20)) == 0) {
			ssize_t n = (ssize_t)CHECK_OK(aph_call_read(ev.call, buf, sizeof(buf)));

			CHECK_OK(aph_call_reply(ev.call, buf, (size_t)n));
		}
		clock_gettime(CLOCK_REALTIME, &now);
		if (pthread_timedjoin_np(thread, NULL, &now) == 0)
			break;
	}
	client_close(&client);
	aph_endpoint_free(ep);
}

/* Whoever the client is: the newcomer asks the kernel, and for the rest the giver. */
static void the_caller_is_known(void **state)
{
	struct service first, second;
	struct service_caller before, after;
	struct client client;
	size_t len;

	(void)state;
	relay_first(&first, 0);
	client_open(&client, "relay");
	len = sizeof(before);
	CHECK(aph_call(client.channel, "c", 1, &before, &len, aph_deadline_ms(5000)) == 0);
	relay_next(&second, 0);
	service_gone(&first, 0);
	len = sizeof(after);
	CHECK(aph_call(client.channel, "c", 1, &after, &len, aph_deadline_ms(5000)) == 0);
	assert_int_equal(after.pid, getpid());
	assert_memory_equal(&before, &after, sizeof(before));
	client_close(&client);
	service_stop(&second);
}

/* The pid that a pidfd stands for. */
static pid_t pid_of(int pidfd)
{
	char path[64], line[128];
	int pid = -1;
	FILE *info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	info = fopen(path, "re");
	assert_non_null(info);
	while (fgets(line, sizeof(line), info))
		(void)sscanf(line, "Pid: %d", &pid);
	fclose(info);
	return pid;
}

/* Also to a client that has not looked since, while the giver still lives. */
static void the_newcomer_is_known(void **state)
{
	struct service_config config = relay(0);
	struct service services[2];
	struct client client;
	int fd;

	(void)state;
	config.end_on_terminate = false;
	service_start(&services[0], SERVICE_PROCESS, &config);
	client_open(&client, "relay");
	config.options.flags |= APH_SERVICE_TAKE;
	service_start(&services[1], SERVICE_PROCESS, &config);
	service_await(&services[0].seen->terminates, 1);
	fd = aph_channel_pidfd(client.channel);
	assert_true(fd >= 0);
	assert_int_equal(pid_of(fd), services[1].child.pid);
	close(fd);
	client_echo(client.channel);
	client_close(&client);
	for (int i = 0; i < 2; i++)
		service_stop(&services[i]);
}

static void set_generation(struct aph_channel *channel, int64_t number)
{
	char request[9] = "n";

	memcpy(request + 1, &number, 8);
	CHECK(aph_call(channel, request, 9, NULL, NULL, aph_deadline_ms(5000)) == 0);
}

static void the_generation_goes_on(void **state)
{
	struct service first, second;
	struct client client, other;

	(void)state;
	relay_first(&first, 0);
	client_open(&client, "relay");
	set_generation(client.channel, 7);
	relay_next(&second, 0);
	service_gone(&first, 0);
	assert_int_equal(aph_channel_generation(client.channel), 7);
	client_open(&other, "relay");
	assert_int_equal(aph_channel_generation(other.channel), 7);
	set_generation(other.channel, 8);
	assert_int_equal(aph_channel_generation(client.channel), 8);
	client_close(&other);
	client_close(&client);
	service_stop(&second);
}

static enum aph_event_type next_of(struct aph_endpoint *ep, const struct aph_call *call)
{
	struct aph_event ev;

	client_next(ep, &ev, 5000);
	CHECK(ev.call == call);
	return ev.type;
}

/* The giver's replies may still lie in the channel, unread: the newcomer writes around them. */
static void unread_replies_survive(void **state)
{
	struct service_get get = { .len = 200000, .seed = 5 };
	unsigned char request[1 + sizeof(get)] = "G";
	unsigned char *reply = malloc((size_t)get.len);
	struct service first, second;
	struct client client;
	struct aph_call *call;
	size_t len;
	ssize_t n;

	(void)state;
	memcpy(request + 1, &get, sizeof(get));
	for (int i = 0; i < 3; i++) {
		relay_first(&first, 0);
		client_open(&client, "relay");
		/* Some that were read before leave marks of their own. */
		for (int k = 0; k < i; k++)
			client_get(client.ep, client.channel, 'G', 70000, 9);
		call = client_begin(client.channel, request, sizeof(request),
				    aph_deadline_ms(20000));
		while (next_of(client.ep, call) != APH_EVENT_END)
			;
		assert_int_equal(aph_call_available(call), get.len);
		relay_next(&second, 0);
		service_gone(&first, 0);
		for (int k = 0; k < 10; k++)
			client_get(client.ep, client.channel, 'G', 20000, (uint32_t)k);
		len = 0;
		while ((n = aph_call_read(call, reply + len, (size_t)get.len - len)) > 0)
			len += (size_t)n;
		assert_int_equal(len, get.len);
		assert_int_equal(pattern_check(reply, len, 0, get.seed), len);
		aph_call_free(call);
		for (int k = 0; k < 20; k++)
			client_get(client.ep, client.channel, 'g', 300000, (uint32_t)k);
		client_close(&client);
		service_stop(&second);
	}
	free(reply);
}

/* A descriptor that can be told from others wherever it arrives: a file of `size` bytes. */
static int marked(size_t size)
{
	int fd = (int)CHECK_OK(memfd_create("marked", MFD_CLOEXEC));

	CHECK_OK(ftruncate(fd, (off_t)size));
	return fd;
}

static size_t mark_of(int fd)
{
	struct stat st;

	CHECK_OK(fstat(fd, &st));
	return (size_t)st.st_size;
}

/* A call that sends two marked descriptors back; false when there is no room. */
static bool begin_marked(struct aph_call **call, struct aph_channel *channel, unsigned number)
{
	int fds[2] = { marked(2 * number + 1), marked(2 * number + 2) };
	ssize_t n;

	CHECK_OK(aph_call_new(call, channel, aph_deadline_ms(30000), NULL));
	n = aph_call_send_fds(*call, "f", 1, fds, 2, 0);
	close(fds[0]);
	close(fds[1]);
	CHECK(n == 1 || n == -EAGAIN);
	if (n < 0)
		aph_call_free(*call);
	return n == 1;
}

static void end_marked(struct aph_call *call, unsigned number)
{
	int fds[3];

	CHECK(aph_call_take_fds(call, fds, 3) == 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(mark_of(fds[i]), 2 * number + 1 + i);
		close(fds[i]);
	}
	aph_call_free(call);
}

/* All but the cancelled ones are answered, each with its own descriptors. */
static void end_all_marked(struct aph_endpoint *ep, struct aph_call **calls, unsigned n)
{
	unsigned n_left = 0, i;
	struct aph_event ev;

	for (i = 0; i < n; i++)
		n_left += calls[i] != NULL;
	while (n_left) {
		client_next(ep, &ev, 10000);
		if (ev.type != APH_EVENT_END)
			continue;
		CHECK(ev.result.outcome == APH_ANSWERED);
		for (i = 0; calls[i] != ev.call; i++)
			CHECK(i + 1 < n);
		end_marked(ev.call, i);
		calls[i] = NULL;
		n_left--;
	}
}

static void *tend(void *ep)
{
	CHECK(aph_endpoint_serve(ep, APH_FOREVER) == -ECANCELED);
	return NULL;
}

/*
 * Requests that nobody has received go on to the newcomer, with their descriptors, which the
 * giver's process has received already; those that were withdrawn do not.
 */
static void hand_over_unread(void)
{
	struct aph_service_options options = { .size = sizeof(options), .flags = APH_SERVICE_GIVE };
	struct aph_service *first;
	struct aph_call *calls[20];
	struct aph_endpoint *ep;
	struct service second;
	struct client client;
	pthread_t thread;

	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK_OK(aph_service_open(&first, ep, "relay", &options));
	CHECK(pthread_create(&thread, NULL, tend, ep) == 0);
	client_open(&client, "relay");
	for (unsigned i = 0; i < 20; i++)
		CHECK(begin_marked(&calls[i], client.channel, i));
	nap_ms(20);
	for (unsigned i = 0; i < 20; i += 3) {
		CHECK_OK(aph_call_withdraw(calls[i]));
		client_expect(client.ep, APH_EVENT_END, calls[i]);
		calls[i] = aph_call_free(calls[i]);
	}
	relay_next(&second, 0);
	CHECK_OK(aph_endpoint_wake(ep));
	CHECK(pthread_join(thread, NULL) == 0);
	aph_endpoint_free(ep);
	end_all_marked(client.ep, calls, 20);
	assert_int_equal(second.seen->requests, 13);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&second);
}

static void unread_requests_go_along(void **state)
{
	struct rlimit limit, low;
	int spare[120];

	(void)state;
	hand_over_unread();
	/* Again with channels that ring by a byte, as there are when descriptors are short. */
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
	low = limit;
	low.rlim_cur = 240;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &low));
	for (int i = 0; i < 120; i++)
		spare[i] = (int)CHECK_OK(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
	hand_over_unread();
	for (int i = 0; i < 120; i++)
		close(spare[i]);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
}

/*
 * A stopped giver: the newcomer waits a while and then serves who comes to it. Requests pile up in
 * the ring, with descriptors, until there is no more room. Once the giver goes on, all of that is
 * handed over or served.
 */
static void a_giver_that_was_stopped(void **state)
{
	struct aph_call *calls[100];
	struct service first, second;
	struct client client, other;
	unsigned n_begun;

	(void)state;
	relay_patient(&first, APH_SERVICE_EVENTS);
	client_open(&client, "relay");
	client_echo(client.channel);
	child_signal(&first.child, SIGSTOP);
	child_await_state(first.child.pid, 'T', check_hang_ms(3000));
	for (n_begun = 0; n_begun < 100; n_begun++) {
		if (!begin_marked(&calls[n_begun], client.channel, n_begun))
			break;
	}
	assert_true(n_begun >= 32 && n_begun < 100);
	relay_next(&second, 0); /* two seconds */
	client_open(&other, "relay");
	client_echo(other.channel);
	child_signal(&first.child, SIGCONT);
	end_all_marked(client.ep, calls, n_begun);
	service_await(&first.seen->disconnects, 1);
	service_stop(&first);
	client_echo(client.channel);
	client_close(&client);
	client_close(&other);
	service_stop(&second);
}

/* -- what stays -------------------------------------------------------------------------------- */

/* A call that the giver holds is the giver's to answer; then its channel follows the others. */
static void what_is_in_hand_is_finished(void **state)
{
	struct service first, second;
	struct client idle, busy;
	struct aph_call *held;
	char reply[8];
	size_t len = sizeof(reply);

	(void)state;
	relay_patient(&first, APH_SERVICE_EVENTS);
	client_open(&idle, "relay");
	client_open(&busy, "relay");
	held = client_begin(busy.channel, "h", 1, aph_deadline_ms(20000));
	service_await(&first.seen->held, 1);
	relay_next(&second, APH_SERVICE_EVENTS);
	service_await(&first.seen->terminates, 1);
	service_await(&first.seen->disconnects, 1);
	service_await(&second.seen->connects, 1);
	client_echo(idle.channel);
	assert_int_equal(second.seen->requests, 1);
	/* Its channel is served where it is. */
	client_echo(busy.channel);
	assert_int_equal(first.seen->requests, 2);
	CHECK(aph_call(busy.channel, "w", 1, NULL, NULL, aph_deadline_ms(5000)) == 0);
	CHECK(client_end(busy.ep, held, reply, &len).outcome == APH_ANSWERED);
	assert_memory_equal(reply, "woken", 5);
	aph_call_free(held);
	service_await(&second.seen->connects, 2);
	service_await(&first.seen->disconnects, 2);
	client_echo(busy.channel);
	assert_int_equal(second.seen->requests, 2);
	service_stop(&first);
	client_echo(busy.channel);
	client_echo(idle.channel);
	client_close(&busy);
	client_close(&idle);
	service_await(&second.seen->disconnects, 2);
	service_stop(&second);
}

struct giver {
	struct aph_endpoint *ep;
	struct aph_call *_Atomic call;
};

/* Receives one call and goes back to sleep. */
static void *receive_one(void *arg)
{
	struct giver *giver = arg;
	struct aph_event ev;
	int r;

	while ((r = aph_endpoint_next(giver->ep, &ev, APH_FOREVER)) != -ECANCELED) {
		CHECK_OK(r);
		if (ev.type == APH_EVENT_REQUEST)
			atomic_store(&giver->call, ev.call);
		else
			CHECK(ev.type == APH_EVENT_TERMINATE);
	}
	return NULL;
}

/*
 * The last call ends while the thread that looks after the endpoint sleeps: the channel goes all
 * the same.
 */
static void answered_by_another_thread(void **state)
{
	struct aph_service_options options = { .size = sizeof(options), .flags = APH_SERVICE_GIVE };
	struct giver giver = { .call = NULL };
	struct service second;
	struct client client;
	struct aph_call *call;
	pthread_t thread;

	(void)state;
	CHECK_OK(aph_endpoint_new(&giver.ep, NULL));
	CHECK_OK(aph_service_open(NULL, giver.ep, "relay", &options));
	CHECK(pthread_create(&thread, NULL, receive_one, &giver) == 0);
	client_open(&client, "relay");
	call = client_begin(client.channel, "wait", 4, aph_deadline_ms(20000));
	while (!atomic_load(&giver.call))
		nap_ms(1);
	relay_next(&second, APH_SERVICE_EVENTS);
	nap_ms(20);
	assert_int_equal(second.seen->connects, 0);
	CHECK_OK(aph_call_reply(giver.call, NULL, 0));
	service_await(&second.seen->connects, 1);
	CHECK(client_end(client.ep, call, NULL, NULL).outcome == APH_ANSWERED);
	aph_call_free(call);
	client_echo(client.channel);
	CHECK_OK(aph_endpoint_wake(giver.ep));
	CHECK(pthread_join(thread, NULL) == 0);
	aph_endpoint_free(giver.ep);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&second);
}

/*
 * What a giver closes on is lost or refused, as ever; what it has answered just before is handed
 * over.
 */
static void closing_hands_over_too(void **state)
{
	struct service first, second;
	struct client answered, held;
	struct aph_call *call;
	struct aph_result result;

	(void)state;
	relay_first(&first, 0);
	client_open(&answered, "relay");
	client_open(&held, "relay");
	call = client_begin(held.channel, "h", 1, aph_deadline_ms(20000));
	service_await(&first.seen->held, 1);
	relay_next(&second, 0);
	service_gone(&first, 0);
	result = client_end(held.ep, call, NULL, NULL);
	assert_int_equal(result.outcome, APH_LOST);
	assert_int_equal(result.reason, APH_REASON_CLOSED);
	aph_call_free(call);
	client_expect(held.ep, APH_EVENT_CLOSED, NULL);
	client_echo(answered.channel);
	client_close(&answered);
	client_close(&held);
	service_stop(&second);
}

/*
 * With receipts a channel is idle when they have come; a newcomer that wants them takes no other.
 */
static void receipts(void **state)
{
	struct service first, second, third;
	struct client client;

	(void)state;
	relay_patient(&first, APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS);
	client_open(&client, "relay");
	for (int i = 0; i < 10; i++)
		client_echo(client.channel);
	relay_next(&second, APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS);
	service_await(&second.seen->connects, 1);
	service_await(&first.seen->disconnects, 1);
	assert_int_equal(first.seen->disposed, 10);
	for (int i = 0; i < 10; i++)
		client_echo(client.channel);
	service_stop(&first);
	/* One that wants none may have it all the same. */
	relay_next(&third, APH_SERVICE_EVENTS);
	service_await(&third.seen->connects, 1);
	service_gone(&second, 0);
	for (int i = 0; i < 10; i++)
		client_echo(client.channel);
	client_close(&client);
	service_stop(&third);

	relay_patient(&first, 0);
	client_open(&client, "relay");
	relay_next(&second, APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS);
	service_await(&first.seen->terminates, 1);
	client_echo(client.channel);
	assert_int_equal(first.seen->requests, 1);
	assert_int_equal(second.seen->connects, 0);
	service_stop(&first);
	client_expect(client.ep, APH_EVENT_CLOSED, NULL);
	client_close(&client);
	service_stop(&second);
}

/* Without APH_SERVICE_GIVE nothing is handed over: the newcomer is just the newer one. */
static void who_does_not_give(void **state)
{
	struct service_config config = relay(0);
	struct service first, second;
	struct client client, other;

	(void)state;
	config.options.flags = 0;
	service_start(&first, SERVICE_PROCESS, &config);
	client_open(&client, "relay");
	relay_next(&second, 0);
	client_open(&other, "relay");
	client_echo(client.channel);
	client_echo(other.channel);
	assert_int_equal(first.seen->requests, 1);
	assert_int_equal(second.seen->requests, 1);
	assert_int_equal(first.seen->terminates, 0);
	service_stop(&first);
	client_expect(client.ep, APH_EVENT_CLOSED, NULL);
	client_close(&client);
	client_close(&other);
	service_stop(&second);
}

static void exclusive(void **state)
{
	struct aph_service_options options = { .size = sizeof(options),
					       .flags = APH_SERVICE_TAKE | APH_SERVICE_EXCLUSIVE };
	struct service_config config = relay(0);
	struct service first, second;
	struct aph_endpoint *ep;

	(void)state;
	config.options.flags = 0;
	service_start(&first, SERVICE_PROCESS, &config);
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	assert_int_equal(aph_service_open(NULL, ep, "relay", &options), -EEXIST);
	assert_int_equal(dir_sockets(), 1);
	aph_endpoint_free(ep);
	service_stop(&first);
	relay_first(&first, 0);
	relay_next(&second, APH_SERVICE_EXCLUSIVE);
	service_gone(&first, 0);
	assert_int_equal(dir_sockets(), 1);
	service_stop(&second);
}

int main(void)
{
	const struct CMUnitTest both[] = {
		SUITE_TEST(newcomers_take_over),
	};
	const struct CMUnitTest tests[] = {
		SUITE_TEST(without_a_bell),
		SUITE_TEST(within_one_endpoint),
		SUITE_TEST(the_caller_is_known),
		SUITE_TEST(the_newcomer_is_known),
		SUITE_TEST(the_generation_goes_on),
		SUITE_TEST(unread_replies_survive),
		SUITE_TEST(unread_requests_go_along),
		SUITE_TEST(a_giver_that_was_stopped),
		SUITE_TEST(what_is_in_hand_is_finished),
		SUITE_TEST(answered_by_another_thread),
		SUITE_TEST(closing_hands_over_too),
		SUITE_TEST(receipts),
		SUITE_TEST(who_does_not_give),
		SUITE_TEST(exclusive),
	};
	int failed = suite_run_both("handover", both, SUITE_LEN(both), 60);

	return failed + suite_run("handover", tests, SUITE_LEN(tests), 60);
}
