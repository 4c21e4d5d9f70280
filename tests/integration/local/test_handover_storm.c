/* SPDX-License-Identifier: MIT */
/*
 * Services take over from one another again and again while clients of every temper go on: nobody
 * may notice. The clients live in a process of their own, a thread each, so that this one can fork
 * services.
 */
#include "suite.h"

#include "pattern.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define IN_FLIGHT  16
#define FDS_FLIGHT 4

struct storm {
	_Atomic bool stop;
	_Atomic unsigned long calls[8];
};

static struct storm *storm;

static void nap_us(unsigned us)
{
	struct timespec nap = { .tv_nsec = (long)us * 1000 };

	nanosleep(&nap, NULL);
}

/* -- clients ----------------------------------------------------------------------------------- */

/* One call after the other. */
static void one_by_one(struct client *client, _Atomic unsigned long *n)
{
	client_echo(client->channel);
	(*n)++;
}

/* A call now and then: both sides have fallen asleep, or are just about to. */
static void now_and_then(struct client *client, _Atomic unsigned long *n)
{
	static struct rng rng = { 4711 };

	nap_us(rng_below(&rng, 300));
	client_echo(client->channel);
	(*n)++;
}

static void seldom(struct client *client, _Atomic unsigned long *n)
{
	nap_us(20000);
	client_echo(client->channel);
	(*n)++;
}

/* Replies that lie in the arena for a while. */
static void large_replies(struct client *client, _Atomic unsigned long *n)
{
	struct service_get get = { .len = 60000, .seed = 3 };
	unsigned char request[1 + sizeof(get)] = "G", reply[60000];
	struct aph_call *calls[3];
	size_t len;

	memcpy(request + 1, &get, sizeof(get));
	for (int i = 0; i < 3; i++)
		calls[i] = client_begin(client->channel, request, sizeof(request),
					aph_deadline_ms((uint64_t)check_ms(20000)));
	for (int i = 0; i < 3; i++) {
		ssize_t r;

		len = 0;
		while ((r = aph_call_read(calls[i], reply + len, sizeof(reply) - len)) != 0 &&
		       len < sizeof(reply)) {
			CHECK(r > 0 || r == -EAGAIN);
			len += r > 0 ? (size_t)r : 0;
			if (r < 0)
				CHECK_OK(aph_call_wait(calls[i],
						       aph_deadline_ms((uint64_t)check_ms(20000))));
		}
		CHECK(len == sizeof(reply) && pattern_check(reply, len, 0, 3) == len);
		aph_call_free(calls[i]);
		(*n)++;
	}
}

/* Many calls in progress on one channel, each followed by the next. */
static void many_at_once(struct client *client, _Atomic unsigned long *n)
{
	struct aph_call *calls[IN_FLIGHT];
	struct aph_event ev;

	for (int i = 0; i < IN_FLIGHT; i++)
		calls[i] = client_begin(client->channel, "echo", 4,
					aph_deadline_ms((uint64_t)check_ms(20000)));
	for (int left = 5 * IN_FLIGHT; left > 0;) {
		int i = 0;

		client_next(client->ep, &ev, 20000);
		CHECK(ev.type == APH_EVENT_END || ev.type == APH_EVENT_REPLY ||
		      ev.type == APH_EVENT_READABLE);
		if (ev.type != APH_EVENT_END)
			continue;
		CHECK(ev.result.outcome == APH_ANSWERED);
		while (calls[i] != ev.call)
			CHECK(++i < IN_FLIGHT);
		CHECK(aph_call_available(ev.call) == 4);
		aph_call_free(ev.call);
		calls[i] = NULL;
		(*n)++;
		if (--left >= IN_FLIGHT)
			calls[i] = client_begin(client->channel, "echo", 4,
						aph_deadline_ms((uint64_t)check_ms(20000)));
	}
}

static size_t size_of(int fd)
{
	struct stat st;

	CHECK_OK(fstat(fd, &st));
	return (size_t)st.st_size;
}

/* Descriptors there and back, several calls at once: none may come with the wrong call. */
static void with_descriptors(struct client *client, _Atomic unsigned long *n)
{
	struct aph_call *calls[FDS_FLIGHT];
	int out[FDS_FLIGHT], in[2];
	struct aph_event ev;

	for (int i = 0; i < FDS_FLIGHT; i++) {
		out[i] = (int)CHECK_OK(memfd_create("marked", MFD_CLOEXEC));
		CHECK_OK(ftruncate(out[i], i + 1));
		CHECK_OK(aph_call_new(&calls[i], client->channel,
				      aph_deadline_ms((uint64_t)check_ms(20000)), NULL));
		CHECK(aph_call_send_fds(calls[i], "f", 1, &out[i], 1, 0) == 1);
	}
	for (int left = FDS_FLIGHT; left > 0;) {
		int i = 0;

		client_next(client->ep, &ev, 20000);
		if (ev.type != APH_EVENT_END)
			continue;
		CHECK(ev.result.outcome == APH_ANSWERED);
		while (calls[i] != ev.call)
			CHECK(++i < FDS_FLIGHT);
		CHECK(aph_call_take_fds(ev.call, in, 2) == 1);
		CHECK(size_of(in[0]) == (size_t)i + 1);
		close(in[0]);
		close(out[i]);
		aph_call_free(ev.call);
		(*n)++;
		left--;
	}
}

/* One that comes and goes: somebody always lets it in. */
static void come_and_go(struct client *client, _Atomic unsigned long *n)
{
	struct client other;

	(void)client;
	client_open(&other, "storm");
	client_echo(other.channel);
	client_close(&other);
	(*n)++;
}

static void (*const tempers[])(struct client *client, _Atomic unsigned long *n) = {
	one_by_one,   now_and_then,	seldom,	     large_replies,
	many_at_once, with_descriptors, come_and_go,
};

#define N_TEMPERS SUITE_LEN(tempers)

static void *call(void *arg)
{
	size_t which = (size_t)(uintptr_t)arg;
	struct aph_channel *channel;
	struct client client;

	client_open(&client, "storm");
	channel = client.channel;
	while (!atomic_load(&storm->stop))
		tempers[which](&client, &storm->calls[which]);
	CHECK(client.channel == channel && aph_channel_is_open(channel));
	client_close(&client);
	return NULL;
}

static int clients(int ctl, void *arg)
{
	pthread_t threads[N_TEMPERS];

	(void)ctl;
	(void)arg;
	for (size_t i = 0; i < N_TEMPERS; i++)
		CHECK(pthread_create(&threads[i], NULL, call, (void *)(uintptr_t)i) == 0);
	for (size_t i = 0; i < N_TEMPERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	return 0;
}

/* -- services ---------------------------------------------------------------------------------- */

/*
 * Waits until the old one has nothing left: whatever falls idle goes to the new one, without a
 * break.
 */
static void await_empty(struct service *old)
{
	uint64_t deadline = aph_deadline_ms((uint64_t)check_ms(10000));

	while (old->seen->disconnects != old->seen->connects) {
		CHECK(aph_time_ns() < deadline);
		nap_us(200);
	}
}

/*
 * `rounds` handovers. A patient giver goes on until nobody is left; the others end when they are
 * asked.
 */
static void blow(const struct service_config *first, int rounds, bool patient)
{
	struct service_config config = *first;
	struct service services[2];
	struct rng rng = { check_seed() };
	unsigned long total[N_TEMPERS] = { 0 };
	struct child child;

	storm = mmap(NULL, sizeof(*storm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	CHECK(storm != MAP_FAILED);
	config.address = "storm";
	config.end_on_terminate = !patient;
	config.options.flags |= APH_SERVICE_GIVE;
	service_start(&services[0], SERVICE_PROCESS, &config);
	child_start(&child, clients, NULL);
	config.options.flags |= APH_SERVICE_TAKE;
	for (int i = 1; i <= rounds; i++) {
		struct service *old = &services[(i - 1) % 2], *new = &services[i % 2];

		nap_us(500 + rng_below(&rng, 10000));
		config.spin_max_us = i % 3 == 0 ? APH_SPIN_NEVER : 0;
		config.by_fd = i % 5 == 0;
		service_start(new, SERVICE_PROCESS, &config);
		if (patient) {
			service_await(&old->seen->terminates, 1);
			await_empty(old);
			service_stop(old);
		} else {
			service_gone(old, 0);
		}
	}
	nap_us(20000);
	atomic_store(&storm->stop, true);
	assert_int_equal(child_finish(&child, check_hang_ms(30000)), 0);
	for (size_t i = 0; i < N_TEMPERS; i++)
		total[i] = storm->calls[i];
	print_message(
		"calls: %lu one by one, %lu now and then, %lu seldom, %lu large, %lu at once, "
		"%lu with descriptors, %lu new channels\n",
		total[0], total[1], total[2], total[3], total[4], total[5], total[6]);
	for (size_t i = 0; i < N_TEMPERS; i++)
		assert_true(total[i] > 0);
	service_stop(&services[rounds % 2]);
	munmap(storm, sizeof(*storm));
	dir_remove_sockets();
}

static void nobody_notices(void **state)
{
	struct service_config config = { 0 };

	(void)state;
	blow(&config, check_long() ? 2000 : 50, false);
}

static void nobody_notices_a_patient_giver(void **state)
{
	struct service_config config = { .options.flags = APH_SERVICE_EVENTS };

	(void)state;
	blow(&config, check_long() ? 1000 : 25, true);
}

static void nor_with_receipts(void **state)
{
	struct service_config config = { .options.flags = APH_SERVICE_EVENTS |
							  APH_SERVICE_RECEIPTS };

	(void)state;
	blow(&config, check_long() ? 1000 : 25, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(nobody_notices),
		SUITE_TEST(nobody_notices_a_patient_giver),
		SUITE_TEST(nor_with_receipts),
	};

	return suite_run("handover storm", tests, SUITE_LEN(tests), 85);
}
