/* SPDX-License-Identifier: MIT */
/*
 * The engine against peers that are not ours. Besides the contract, their clean runs bound the time
 * that calls take: a receiver that acknowledges late, or a sender that waits for what never comes,
 * shows as seconds.
 */
#include "scenario.h"
#include "stock.h"

#include "rx/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CALLS	  120
#define AT_ONCE	  12
#define PIECE	  65536
#define LIMIT_NS  (600 * SECOND)
#define SERVER_IP 2

struct near_call {
	struct aph_rx_call *handle;
	uint32_t id;
	uint64_t request_len, reply_len, written, read;
	bool replying;
};

struct near {
	struct host host;
	struct stock stock;
	struct aph_rx_client *client;
	struct aph_rx_service *service;
	struct near_call calls[64];
	unsigned n_begun, n_open, n_ended;
	uint32_t body_max;
	uint8_t piece[PIECE];
};

static struct world *world_of(struct near *near)
{
	return near->host.node.world;
}

static void write_request(struct near *near, struct near_call *call)
{
	while (call->written < call->request_len) {
		uint64_t left = call->request_len - call->written;
		size_t n = left < PIECE ? (size_t)left : PIECE;
		ssize_t r;

		load_pattern(near->piece, n, call->id, call->written);
		if (call->written == 0) {
			aph_put32(near->piece, call->id);
			aph_put32(near->piece + 4, (uint32_t)(call->reply_len >> 32));
			aph_put32(near->piece + 8, (uint32_t)call->reply_len);
		}
		r = aph_rx_call_write(call->handle, near->piece, n, n < left ? APH_RX_MORE : 0);
		if (r <= 0)
			return;
		call->written += (uint64_t)r;
	}
}

static void read_reply(struct near *near, struct near_call *call)
{
	ssize_t r;

	while ((r = aph_rx_call_read(call->handle, near->piece, PIECE, 0)) > 0) {
		if (!load_pattern_is(near->piece, (size_t)r, call->id + 1, call->read))
			world_fail(world_of(near), "wrong bytes at %llu of the reply",
				   (unsigned long long)call->read);
		call->read += (uint64_t)r;
	}
}

static void begin_calls(struct near *near)
{
	struct world *world = world_of(near);

	while (near->n_open < AT_ONCE && near->n_begun < CALLS) {
		struct aph_rx_call_options options = { .size = sizeof(options) };
		struct near_call *call = NULL;

		for (unsigned i = 0; i < AT_ONCE; i++)
			if (!near->calls[i].handle)
				call = &near->calls[i];
		CHECK(call);
		memset(call, 0, sizeof(*call));
		call->id = near->n_begun++ * 2;
		call->request_len = STOCK_PREFIX + world_skewed(world, near->body_max);
		call->reply_len = world_skewed(world, near->body_max);
		options.data = call;
		options.dead_ms = 60000;
		CHECK_OK(aph_rx_call_new(&call->handle, near->client, &options));
		near->n_open++;
		write_request(near, call);
	}
}

static void client_event(struct host *host, const struct aph_rx_event *event)
{
	struct near *near = host->user;
	struct near_call *call = event->data;

	if (event->type == APH_RX_EVENT_WRITABLE)
		write_request(near, call);
	read_reply(near, call);
	if (event->type != APH_RX_EVENT_END)
		return;
	if (event->end.outcome != APH_RX_DONE || call->read != call->reply_len)
		world_fail(world_of(near), "call %u ends as %d, code %d, with %llu of %llu",
			   call->id, event->end.outcome, event->end.code,
			   (unsigned long long)call->read, (unsigned long long)call->reply_len);
	call->handle = aph_rx_call_free(call->handle);
	near->n_open--;
	near->n_ended++;
	begin_calls(near);
}

static void client_start(struct host *host)
{
	struct near *near = host->user;
	struct aph_rx_client_options options = { .size = sizeof(options) };
	struct aph_rx_path path = host_path(&near->stock.node.address);

	CHECK_OK(aph_rx_client_new(&near->client, host->rx, &path, STOCK_SERVICE, &options));
	begin_calls(near);
}

static void draw(struct near *near, struct rule *rule)
{
	struct world *world = world_of(near);

	near->stock.jumbo = rng_below(&world->rng, 2);
	near->stock.slow = rng_below(&world->rng, 4) == 0;
	near->stock.work_ns = rng_below(&world->rng, 2) ? 0 : 5 * MS;
	near->body_max = near->stock.body_max = rng_below(&world->rng, 2) ? 500 : 200000;
	near->host.no_gro = near->host.copies = rng_below(&world->rng, 2);
	if (rng_below(&world->rng, 2))
		near->host.config.flags |= APH_RX_SEGMENTS;
	rule->delay_ns = world_skewed(world, 20 * MS);
	if (rng_below(&world->rng, 2)) {
		rule->loss = rng_below(&world->rng, 50000);
		rule->duplicate = rng_below(&world->rng, 50000);
		rule->reorder = rng_below(&world->rng, 50000);
	}
}

static bool is_clean(const struct rule *rule)
{
	return rule->loss == 0 && rule->duplicate == 0 && rule->reorder == 0;
}

/* What a clean run of small calls may take: a few round trips each. */
static void check_time(struct near *near, const struct rule *rule, uint64_t took)
{
	uint64_t each = 4 * rule->delay_ns + near->stock.work_ns + 2 * MS;

	if (is_clean(rule) && near->body_max < 1000 && !near->stock.slow &&
	    took > CALLS / 4 * each + SECOND / 2)
		world_fail(world_of(near), "%u small calls on a clean link took %.3f s", CALLS,
			   (double)took / 1e9);
}

static void near_begin(struct near *near, struct world *world)
{
	struct aph_rx_address a = address_v4(1, 7001), b = address_v4(SERVER_IP, 7000);

	memset(near, 0, sizeof(*near));
	host_init(&near->host, world, "ours", &a);
	near->host.user = near;
	stock_init(&near->stock, world, "stock", &b,
		   rng_below(&world->rng, 2) ? STOCK_LINUX : STOCK_OPENAFS);
}

static void near_end(struct near *near, uint64_t begun)
{
	struct world *world = world_of(near);

	tally.n_calls += CALLS;
	tally.n_done += CALLS;
	tally.n_outcomes[APH_RX_DONE] += CALLS;
	tally.virtual_seconds += (double)(world->now - begun) / 1e9;
	host_stop(&near->host);
	stock_deinit(&near->stock);
}

void scenario_stock_server(struct world *world)
{
	static struct near near;
	struct rule rule = { 0 };
	uint64_t begun = world->now;

	near_begin(&near, world);
	draw(&near, &rule);
	world_rule(world, &rule);
	near.host.on_event = client_event;
	near.host.on_start = client_start;
	host_start(&near.host);
	while (near.n_ended < CALLS) {
		if (world->now > begun + LIMIT_NS)
			world_fail(world, "%u of %u calls have ended", near.n_ended, CALLS);
		world_run(world, world->now + MS);
	}
	check_time(&near, &rule, world->now - begun);
	if (near.stock.n_served != CALLS)
		world_fail(world, "%u calls reached the server, not %u", near.stock.n_served,
			   CALLS);
	near_end(&near, begun);
}

/* -- the engine is the server ------------------------------------------------------------------ */

static void read_request(struct near *near, struct near_call *call)
{
	ssize_t r;

	while ((r = aph_rx_call_read(call->handle, near->piece, PIECE, 0)) > 0) {
		size_t skip = 0;

		if (call->read == 0) {
			CHECK(r >= STOCK_PREFIX);
			call->id = aph_get32(near->piece);
			call->reply_len = (uint64_t)aph_get32(near->piece + 4) << 32 |
					  aph_get32(near->piece + 8);
			skip = STOCK_PREFIX;
		}
		if (!load_pattern_is(near->piece + skip, (size_t)r - skip, call->id,
				     call->read + skip))
			world_fail(world_of(near), "wrong bytes at %llu of a request",
				   (unsigned long long)call->read);
		call->read += (uint64_t)r;
	}
	if (r == 0)
		call->replying = true;
}

static void write_reply(struct near *near, struct near_call *call)
{
	ssize_t r;
	uint64_t left;
	size_t n;

	do {
		left = call->reply_len - call->written;
		n = left < PIECE ? (size_t)left : PIECE;
		load_pattern(near->piece, n, call->id + 1, call->written);
		r = aph_rx_call_write(call->handle, near->piece, n, n < left ? APH_RX_MORE : 0);
		if (r > 0)
			call->written += (uint64_t)r;
	} while (r > 0 && call->written < call->reply_len);
	if (call->written == call->reply_len && r >= 0)
		call->replying = false;
}

static void server_event(struct host *host, const struct aph_rx_event *event)
{
	struct near *near = host->user;
	struct near_call *call = event->data;

	if (event->type == APH_RX_EVENT_CALL) {
		for (unsigned i = 0; i < 64 && !call; i++)
			if (!near->calls[i].handle)
				call = &near->calls[i];
		CHECK(call);
		memset(call, 0, sizeof(*call));
		call->handle = event->call;
		aph_rx_call_set_data(event->call, call);
		near->n_begun++;
	}
	if (event->type == APH_RX_EVENT_END) {
		if (event->end.outcome != APH_RX_DONE)
			world_fail(world_of(near), "a served call ends as %d, code %d",
				   event->end.outcome, event->end.code);
		call->handle = aph_rx_call_free(call->handle);
		near->n_ended++;
		return;
	}
	if (!call->replying && call->written == 0)
		read_request(near, call);
	if (call->replying)
		write_reply(near, call);
}

static void server_start(struct host *host)
{
	struct near *near = host->user;

	CHECK_OK(aph_rx_service_add(&near->service, host->rx, STOCK_SERVICE, NULL));
}

void scenario_stock_client(struct world *world)
{
	static struct near near;
	struct rule rule = { 0 };
	uint64_t begun = world->now;

	near_begin(&near, world);
	draw(&near, &rule);
	world_rule(world, &rule);
	near.host.on_event = server_event;
	near.host.on_start = server_start;
	host_start(&near.host);
	stock_call(&near.stock, &near.host.node.address, 1 + rng_below(&world->rng, 3), CALLS);
	while (near.stock.n_done < CALLS) {
		if (world->now > begun + LIMIT_NS)
			world_fail(world, "%u of %u calls have ended", near.stock.n_done, CALLS);
		world_run(world, world->now + MS);
	}
	check_time(&near, &rule, world->now - begun);
	world_run(world, world->now + 30 * SECOND);
	if (near.n_ended != CALLS || near.n_begun != CALLS)
		world_fail(world, "%u calls were served and %u ended, not %u", near.n_begun,
			   near.n_ended, CALLS);
	near_end(&near, begun);
}
