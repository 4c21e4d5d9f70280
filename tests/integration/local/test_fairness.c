/* SPDX-License-Identifier: MIT */
/*
 * Many clients of one service: nobody starves, a greedy one does not hold up a modest one, and
 * nobody who has nothing to do runs at all. The bounds are wide, as tests share their machine,
 * which may also take the CPU away from one of those that are compared: one round of several has to
 * be within them. bench/ measures.
 */
#include "suite.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CLIENTS 8
#define ROUNDS	5

struct tally {
	_Atomic uint64_t calls[CLIENTS];
	_Atomic uint32_t ready;
	_Atomic uint32_t go; /* 1: call, 2: stop */
};

struct racer {
	struct tally *tally;
	int number;
	int kind; /* of greed: 0 none, 1 many calls in flight, 2 long bodies, 3 both ways */
};

static struct tally *tally_new(void)
{
	struct tally *tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(tally != MAP_FAILED);
	return tally;
}

static void be_greedy(struct client *client, int kind)
{
	static char data[200000] = "e";
	struct aph_event ev;
	struct aph_call *call;
	int r;

	if (kind == 2) {
		client_put(client->ep, client->channel, 3000000, 1);
		return;
	}
	if (kind == 3) {
		client_get(client->ep, client->channel, 'g', 3000000, 1);
		return;
	}
	while ((r = aph_call_new(&call, client->channel, APH_FOREVER, NULL)) == 0) {
		if (aph_call_send(call, data, 10, 0) == 10)
			continue;
		aph_call_free(call);
		break;
	}
	CHECK(r == 0 || r == -EAGAIN);
	for (int i = 0; i < 100 && aph_endpoint_next(client->ep, &ev, APH_NOW) == 0; i++)
		if (ev.type == APH_EVENT_END)
			aph_call_free(ev.call);
}

static int race(int ctl, void *arg)
{
	const struct racer *racer = arg;
	struct tally *tally = racer->tally;
	struct client client;

	(void)ctl;
	client_open(&client, "race");
	client_echo(client.channel);
	tally->ready++;
	while (!tally->go)
		usleep(1000);
	while (tally->go == 1) {
		if (racer->kind)
			be_greedy(&client, racer->kind);
		else
			client_echo(client.channel);
		tally->calls[racer->number]++;
	}
	client_close(&client);
	return 0;
}

/* How many calls the slowest and the fastest of them made for a while. */
static void watch_race(struct tally *tally, uint64_t *least, uint64_t *most)
{
	uint64_t before[CLIENTS], n;

	for (int i = 0; i < CLIENTS; i++)
		before[i] = tally->calls[i];
	usleep(1500000);
	*least = UINT64_MAX;
	*most = 0;
	for (int i = 0; i < CLIENTS; i++) {
		n = tally->calls[i] - before[i];
		*least = n < *least ? n : *least;
		*most = n > *most ? n : *most;
	}
	print_message("8 clients: least %llu, most %llu calls\n", (unsigned long long)*least,
		      (unsigned long long)*most);
}

static bool is_fair(uint64_t least, uint64_t most)
{
	return least * 10 >= most * 3;
}

static void nobody_starves(void **state)
{
	struct child children[CLIENTS];
	struct racer racers[CLIENTS];
	struct tally *tally = tally_new();
	uint64_t least = 0, most = 1;
	struct service service;

	(void)state;
	service_start_simple(&service, SERVICE_PROCESS, "race");
	for (int i = 0; i < CLIENTS; i++) {
		racers[i] = (struct racer){ tally, i, 0 };
		child_start(&children[i], race, &racers[i]);
	}
	service_await(&tally->ready, CLIENTS);
	tally->go = 1;
	for (int i = 0; i < ROUNDS && !is_fair(least, most); i++)
		watch_race(tally, &least, &most);
	tally->go = 2;
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(child_finish(&children[i], check_hang_ms(5000)), 0);
	assert_true(is_fair(least, most));
	munmap(tally, sizeof(*tally));
	service_stop(&service);
}

static int by_time(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

enum {
	ECHOES = 400
};

struct latency {
	uint64_t p50, p99;
};

static struct latency measure(struct client *client)
{
	uint64_t took[ECHOES];

	for (int i = 0; i < ECHOES; i++) {
		took[i] = client_echo(client->channel);
		if (i % 8 == 0)
			usleep(500);
	}
	qsort(took, ECHOES, sizeof(took[0]), by_time);
	return (struct latency){ took[ECHOES / 2], took[ECHOES * 99 / 100] };
}

/* Whether neither is much more than with nobody else. */
static bool is_little(struct latency beside, struct latency alone)
{
	return beside.p50 < alone.p50 * 10 + (uint64_t)check_ms(10) * 1000000 &&
	       beside.p99 < alone.p99 * 10 + (uint64_t)check_ms(100) * 1000000;
}

static void the_greedy_do_not_hold_up_the_modest(void **state)
{
	(void)state;
	for (int kind = 1; kind <= 3; kind++) {
		struct tally *tally = tally_new();
		struct racer racer = { tally, 0, kind };
		struct latency alone, beside;
		struct service service;
		struct client client;
		struct child child;
		int n = 0;

		service_start_simple(&service, SERVICE_PROCESS, "race");
		client_open(&client, "race");
		alone = measure(&client);
		child_start(&child, race, &racer);
		service_await(&tally->ready, 1);
		tally->go = 1;
		do {
			beside = measure(&client);
			print_message(
				"beside a greedy client of kind %d: p50 %llu us, p99 %llu us\n",
				kind, (unsigned long long)beside.p50 / 1000,
				(unsigned long long)beside.p99 / 1000);
		} while (!is_little(beside, alone) && ++n < ROUNDS);
		tally->go = 2;
		assert_int_equal(child_finish(&child, check_hang_ms(10000)), 0);
		assert_true(is_little(beside, alone));
		assert_true(tally->calls[0] > 0);
		client_close(&client);
		service_stop(&service);
		munmap(tally, sizeof(*tally));
	}
}

static int wait_for_an_end(int ctl, void *arg)
{
	struct client client;
	struct aph_call *call;
	struct aph_event ev;

	(void)arg;
	client_open(&client, "idle");
	for (int i = 0; i < 100; i++)
		client_echo(client.channel);
	call = client_begin(client.channel, "h", 1, aph_deadline_ms(60000));
	child_say(ctl, 'r');
	CHECK_OK(aph_endpoint_next(client.ep, &ev, APH_FOREVER));
	CHECK(ev.type == APH_EVENT_END && ev.call == call);
	aph_call_free(call);
	client_close(&client);
	return 0;
}

/* Who sleeps makes no system call, so it is never switched to: neither service nor client. */
static void the_idle_do_nothing(void **state)
{
	struct service_config config = { .address = "idle" };
	struct service service;
	struct client client;
	struct child child;
	long of_service, of_client;

	(void)state;
	for (int by_fd = 0; by_fd < 2; by_fd++) {
		config.by_fd = by_fd;
		service_start(&service, SERVICE_PROCESS, &config);
		client_open(&client, "idle");
		child_start(&child, wait_for_an_end, NULL);
		assert_int_equal(child_hear(child.ctl, check_hang_ms(5000)), 'r');
		for (int i = 0; i < 1000; i++)
			client_echo(client.channel);
		service_await(&service.seen->held, 1);
		for (int i = 0;; i++) {
			usleep(100000);
			of_service = child_switches(service.child.pid);
			of_client = child_switches(child.pid);
			usleep(500000);
			of_service = child_switches(service.child.pid) - of_service;
			of_client = child_switches(child.pid) - of_client;
			if (!of_service && !of_client)
				break;
			/* They may have been kept from getting to sleep; always is no accident. */
			print_message("%ld and %ld switches\n", of_service, of_client);
			assert_true(i < ROUNDS);
		}
		child_await_state(service.child.pid, 'S', check_hang_ms(1000));
		/* It still hears. */
		client_echo(client.channel);
		assert_int_equal(aph_call(client.channel, "w", 1, NULL, NULL, APH_FOREVER), 0);
		assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
		client_close(&client);
		service_stop(&service);
	}
}

enum {
	IDLE = 1000,
	CALLS = 2000
};

static uint64_t median_echo(struct client *client)
{
	static uint64_t took[CALLS];

	for (int i = 0; i < CALLS; i++)
		took[i] = client_echo(client->channel);
	qsort(took, CALLS, sizeof(took[0]), by_time);
	return took[CALLS / 2];
}

/* A thousand idle channels beside one that works. */
static void the_idle_cost_nothing(void **state)
{
	static struct aph_channel *channels[IDLE];
	uint64_t alone, beside;
	struct service service;
	struct client client;
	bool is_cheap = false;

	(void)state;
	service_start_simple(&service, SERVICE_PROCESS, "crowd");
	client_open(&client, "crowd");
	for (int n = 0; !is_cheap && n < ROUNDS; n++) {
		alone = median_echo(&client);
		for (int i = 0; i < IDLE; i++)
			assert_int_equal(aph_channel_open(&channels[i], client.ep, "crowd", NULL),
					 0);
		for (int i = 0; i < IDLE; i += 100)
			client_echo(channels[i]);
		beside = median_echo(&client);
		print_message("p50 alone %llu ns, beside %d idle channels %llu ns\n",
			      (unsigned long long)alone, IDLE, (unsigned long long)beside);
		/*
		 * O(connected) would be a thousand times, a bad wake-up rule fifty; the machine
		 * makes up to a few.
		 */
		is_cheap = beside < 20 * alone + 200000;
		for (int i = 0; i < IDLE; i++)
			aph_channel_close(channels[i]);
	}
	assert_true(is_cheap);
	client_close(&client);
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(nobody_starves),
		SUITE_TEST(the_greedy_do_not_hold_up_the_modest),
		SUITE_TEST(the_idle_do_nothing),
		SUITE_TEST(the_idle_cost_nothing),
	};

	return suite_run("fairness", tests, SUITE_LEN(tests), 60);
}
