/* SPDX-License-Identifier: MIT */
/*
 * Which channels count as work: what poll() would not do must not keep a thread awake. And when a service lets
 * others run.
 */
#include "suite.h"

#include "base/time.h"
#include "local/local.h"

#include <sched.h>
#include <string.h>

#define LONG_REPLY (4u << 20)

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

static void open_pair(struct pair *pair)
{
	struct aph_channel_options options = { .size = sizeof(options),
					       .flags = APH_CHANNEL_ASYNC };

	memset(pair, 0, sizeof(*pair));
	assert_int_equal(aph_endpoint_new(&pair->server, NULL), 0);
	assert_int_equal(aph_service_open(NULL, pair->server, "pair", NULL), 0);
	assert_int_equal(aph_endpoint_new(&pair->client, NULL), 0);
	assert_int_equal(aph_channel_open(&pair->channel, pair->client, "pair", &options), 0);
	turn(pair);
	assert_true(aph_channel_is_open(pair->channel));
}

static void close_pair(struct pair *pair)
{
	aph_endpoint_free(pair->client);
	aph_endpoint_free(pair->server);
}

static void request(struct pair *pair)
{
	struct aph_call *call;

	assert_int_equal(aph_call_new(&call, pair->channel, APH_FOREVER, NULL), 0);
	assert_int_equal(aph_call_send(call, "?", 1, 0), 1);
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

/* Too much is kept for this client: its next request stays where it is, and is no reason to stay awake. */
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

/* In a crowd: who has let others run and finds that they have called answers them, before they get another turn. */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(a_request_that_is_held_back_is_no_work),
		SUITE_TEST(a_service_that_has_yielded_goes_to_work),
	};

	return suite_run("local transport", tests, SUITE_LEN(tests), 30);
}
