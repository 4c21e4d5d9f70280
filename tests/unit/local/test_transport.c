/* SPDX-License-Identifier: MIT */
/*
 * Which channels count as work: what poll() would not do must not keep a thread awake. And when a
 * service lets others run.
 */
#include "suite.h"

#include "base/time.h"
#include "local/local.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LONG_REPLY (4u << 20)
#define ROUNDS	   20

struct pair {
	struct aph_endpoint *server;
	struct aph_channel *channel;
	struct aph_endpoint *client;
	struct aph_call *last; /* request that was delivered last */
	unsigned n_requests;
};

/* Lets both ends do what there is to do. */
static void turn(struct pair *pair)
{
	struct aph_event event;

	for (int i = 0; i < 100; i++) {
		if (aph_endpoint_next(pair->server, &event, APH_NOW) == 0 &&
		    event.type == APH_EVENT_REQUEST) {
			pair->last = event.call;
			pair->n_requests++;
		}
		(void)aph_endpoint_next(pair->client, &event, APH_NOW);
	}
}

static struct aph_channel *open_channel(struct pair *pair)
{
	struct aph_channel_options options = { .size = sizeof(options),
					       .flags = APH_CHANNEL_ASYNC };
	struct aph_channel *channel;

	assert_int_equal(aph_channel_open(&channel, pair->client, "pair", &options), 0);
	turn(pair);
	assert_true(aph_channel_is_open(channel));
	return channel;
}

static void open_pair(struct pair *pair)
{
	memset(pair, 0, sizeof(*pair));
	assert_int_equal(aph_endpoint_new(&pair->server, NULL), 0);
	assert_int_equal(aph_service_open(NULL, pair->server, "pair", NULL), 0);
	assert_int_equal(aph_endpoint_new(&pair->client, NULL), 0);
	pair->channel = open_channel(pair);
}

static void close_pair(struct pair *pair)
{
	aph_endpoint_free(pair->client);
	aph_endpoint_free(pair->server);
}

static struct aph_call *request(struct pair *pair)
{
	struct aph_call *call;

	assert_int_equal(aph_call_new(&call, pair->channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(call, "?", 1, 0), 1);
	return call;
}

/* What happens while others run. */
static struct pair *yields_to;
static unsigned n_yields;

int sched_yield(void)
{
	struct pair *pair = yields_to;

	n_yields++;
	yields_to = NULL;
	if (pair)
		request(pair);
	return 0;
}

/* The kernel's fences, counted; and whether it refuses them. */
static unsigned n_barriers;
static bool refuses_barriers;

/* It takes as many arguments as there may be, as the C library's does. */
__attribute__((no_sanitize_address)) long syscall(long number, ...)
{
	static long (*real)(long number, ...);
	long args[6];
	va_list ap;

	va_start(ap, number);
	for (size_t i = 0; i < 6; i++)
		args[i] = va_arg(ap, long);
	va_end(ap);
	if (!real)
		*(void **)(void *)&real = dlsym(RTLD_NEXT, "syscall");
	if (number == SYS_membarrier && args[0] == MEMBARRIER_CMD_GLOBAL_EXPEDITED) {
		n_barriers++;
		if (refuses_barriers) {
			errno = EPERM;
			return -1;
		}
	}
	return real(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

/* A thread of the service that would rather spin than sleep, with clients on other CPUs. */
static bool would_spin(struct pair *pair)
{
	struct aph_local *local = aph_container(pair->server->local, struct aph_local, base);
	struct aph_list *pos, *tmp;

	local->wake.n_cpus = 64;
	local->wake.requests.shorts = 0xff;
	local->wake.back_off_until = 0;
	aph_list_for_each(pos, tmp, &local->scan)
		aph_container(pos, struct aph_local_channel, scan_link)->peer_cpu = 255;
	pair->server->ticks = aph_ticks();
	return local->base.ops->spin(&local->base, true, APH_FOREVER);
}

/*
 * Too much is kept for this client: its next request stays where it is, and is no reason to stay
 * awake.
 */
static void a_request_that_is_held_back_is_no_work(void **state)
{
	static char reply[LONG_REPLY];
	struct pair pair;
	unsigned before;

	(void)state;
	open_pair(&pair);
	for (int i = 0; i < 3; i++) {
		request(&pair);
		turn(&pair);
		assert_int_equal(pair.n_requests, i + 1);
		assert_int_equal(aph_call_reply(pair.last, reply, sizeof(reply)), 0);
	}
	/* Both on the scan list, so that it is seen without a bell. */
	request(&pair);
	before = pair.n_requests;
	turn(&pair);
	assert_int_equal(pair.n_requests, before);
	assert_false(would_spin(&pair));
	close_pair(&pair);
}

/*
 * In a crowd: who has let others run and finds that they have called answers them, before they get
 * another turn.
 */
static void a_service_that_has_yielded_goes_to_work(void **state)
{
	struct aph_local_channel *lc;
	struct aph_local *local;
	struct pair pair;

	(void)state;
	open_pair(&pair);
	request(&pair);
	turn(&pair);
	assert_int_equal(pair.n_requests, 1);
	lc = aph_local_channel(aph_call_channel(pair.last));
	local = lc->local;
	aph_local_scan(lc);
	local->wake.n_cpus = 1;
	local->wake.requests.shorts = 0xff;
	local->wake.back_off_until = 0;
	pair.server->ticks = aph_ticks();
	yields_to = &pair;
	n_yields = 0;
	assert_true(local->base.ops->spin(&local->base, true, APH_FOREVER));
	assert_int_equal(n_yields, 1);
	assert_true(local->base.ops->poll(&local->base, true));
	assert_int_equal(n_yields, 1);
	close_pair(&pair);
}

struct caller {
	struct aph_channel *channel;
	unsigned at_once; /* calls that it keeps in flight */
	unsigned in_flight, done;
};

static void call(struct caller *caller)
{
	struct aph_call *call;

	for (; caller->in_flight < caller->at_once; caller->in_flight++) {
		assert_int_equal(aph_call_new(&call, caller->channel, APH_FOREVER, caller), 0);
		assert_int_equal(aph_call_send(call, "?", 1, 0), 1);
	}
}

static void collect(struct aph_endpoint *ep)
{
	struct aph_event event;
	struct caller *caller;

	while (aph_endpoint_next(ep, &event, APH_NOW) == 0) {
		if (event.type != APH_EVENT_END)
			continue;
		caller = aph_call_data(event.call);
		caller->in_flight--;
		caller->done++;
		aph_call_free(event.call);
	}
}

static void answer_all(struct aph_endpoint *ep)
{
	struct aph_event event;

	while (aph_endpoint_next(ep, &event, APH_NOW) == 0) {
		if (event.type == APH_EVENT_REQUEST)
			assert_int_equal(aph_call_reply(event.call, "!", 1), 0);
	}
}

static bool are_about_as_many(const struct caller *quick, const struct caller *slow)
{
	print_message("quick %u, slow %u calls\n", quick->done, slow->done);
	return quick->done < slow->done * 2;
}

/*
 * In a crowd: those who share the service's CPU, and so get less of it, are not left behind. It
 * would be six times as many in each round; somebody else's turn in the middle of a window spoils
 * that one.
 */
static void the_slow_are_not_left_behind(void **state)
{
	struct caller quick = { .at_once = 6 }, slow = { .at_once = 1 };
	struct pair pair;
	uint64_t end;
	int n = 0;

	(void)state;
	open_pair(&pair);
	quick.channel = pair.channel;
	slow.channel = open_channel(&pair);
	aph_container(pair.server->local, struct aph_local, base)->wake.n_cpus = 1;
	do {
		quick.done = slow.done = 0;
		end = aph_time_ns() + UINT64_C(50000000);
		while (aph_time_ns() < end) {
			call(&quick);
			call(&slow);
			collect(pair.client);
			answer_all(pair.server);
		}
	} while (!are_about_as_many(&quick, &slow) && ++n < ROUNDS);
	assert_true(n < ROUNDS);
	close_pair(&pair);
}

static bool falls_asleep(struct aph_endpoint *ep)
{
	struct aph_transport *local = ep->local;
	bool falls = local->ops->sleep(local, true);

	local->ops->awake(local, aph_ticks());
	return falls;
}

static void answer_one(struct pair *pair)
{
	struct aph_call *call = request(pair);

	turn(pair);
	assert_int_equal(aph_call_reply(pair->last, "!", 1), 0);
	turn(pair);
	aph_call_free(call);
}

/*
 * One call at a time makes its own fences; those that are not alone leave them to whoever falls
 * asleep.
 */
static void who_falls_asleep_makes_the_fences(void **state)
{
	struct aph_local_channel *lc, *served;
	struct pair pair;

	(void)state;
	open_pair(&pair);
	lc = aph_local_channel(pair.channel);
	if (!lc->may_pipeline) {
		close_pair(&pair);
		suite_skip("the kernel has no membarrier() for this process");
	}
	for (int i = 0; i < 200; i++)
		answer_one(&pair);
	assert_int_equal(lc->words->client.pipelined, 0);
	request(&pair);
	request(&pair);
	turn(&pair);
	served = aph_local_channel(pair.last->channel);
	for (int round = 0; round < 3; round++) {
		refuses_barriers = round == 2;
		for (int i = 0; i < 64; i++) {
			assert_int_equal(lc->words->client.pipelined, 0);
			answer_one(&pair);
		}
		assert_int_equal(lc->words->client.pipelined, 1);
		/*
		 * However slow this machine is: a service looks at those who called a moment ago.
		 */
		aph_local_scan(served);
		n_barriers = 0;
		assert_true(falls_asleep(pair.server));
		assert_int_equal(n_barriers, 1);
		assert_int_equal(lc->words->client.pipelined, 1);
		assert_true(falls_asleep(pair.client));
		assert_int_equal(n_barriers, 2);
		assert_int_equal(lc->words->client.pipelined, 0);
		/* Nothing is owed now. */
		assert_true(falls_asleep(pair.client) && falls_asleep(pair.server));
		assert_int_equal(n_barriers, 2);
	}
	refuses_barriers = false;
	close_pair(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(a_request_that_is_held_back_is_no_work),
		SUITE_TEST(a_service_that_has_yielded_goes_to_work),
		SUITE_TEST(the_slow_are_not_left_behind),
		SUITE_TEST(who_falls_asleep_makes_the_fences),
	};

	return suite_run("local transport", tests, SUITE_LEN(tests), 30);
}
