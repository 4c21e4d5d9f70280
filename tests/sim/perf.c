/* SPDX-License-Identifier: MIT */
/*
 * One long call over a link of 1 Gbit/s with a round trip of 50 ms: how much of the link the body
 * gets, headers and the beginning included. The buffer before the link holds one bandwidth-delay
 * product, or a quarter of it.
 */
#include "scenario.h"

#include <errno.h>
#include <string.h>

#define RATE	   UINT64_C(1000000000)
#define DELAY	   (25 * MS)
#define PRODUCT	   6250000u /* bytes in flight that fill the link */
#define PIECE	   65536
#define BYTES	   (UINT64_C(1000) << 20)
#define BYTES_LONG (UINT64_C(4000) << 20)
#define LIMIT_NS   (400 * SECOND)

struct perf {
	struct host hosts[2];
	struct aph_rx_client *client;
	struct aph_rx_call *call, *served;
	struct aph_rx_service *service;
	uint64_t len, written, read, ended_at;
	uint8_t piece[PIECE];
};

static void write_some(struct perf *perf)
{
	while (perf->written < perf->len) {
		uint64_t left = perf->len - perf->written;
		size_t n = left < PIECE ? (size_t)left : PIECE;
		ssize_t r;

		load_pattern(perf->piece, n, 1, perf->written);
		r = aph_rx_call_write(perf->call, perf->piece, n, n < left ? APH_RX_MORE : 0);
		if (r < 0)
			return;
		perf->written += (uint64_t)r;
	}
}

static void on_event(struct host *host, const struct aph_rx_event *event)
{
	struct perf *perf = host->user;
	struct world *world = host->node.world;
	ssize_t r;

	if (event->type == APH_RX_EVENT_END) {
		if (event->end.outcome != APH_RX_DONE)
			world_fail(world, "%s: the call ends as %d, code %d", host->node.name,
				   event->end.outcome, event->end.code);
		if (event->call == perf->call)
			perf->ended_at = world->now;
		return;
	}
	if (event->type == APH_RX_EVENT_WRITABLE) {
		write_some(perf);
		return;
	}
	if (event->call == perf->call)
		return;
	perf->served = event->call;
	while ((r = aph_rx_call_read(perf->served, perf->piece, PIECE, 0)) > 0) {
		if (!load_pattern_is(perf->piece, (size_t)r, 1, perf->read))
			world_fail(world, "wrong bytes at %llu", (unsigned long long)perf->read);
		perf->read += (uint64_t)r;
	}
	if (r == 0)
		CHECK_OK(aph_rx_call_write(perf->served, "", 0, 0));
}

static void on_start(struct host *host)
{
	struct perf *perf = host->user;
	struct aph_rx_path path = host_path(&perf->hosts[1].node.address);

	if (host == &perf->hosts[1]) {
		CHECK_OK(aph_rx_service_add(&perf->service, host->rx, 1, NULL));
		return;
	}
	CHECK_OK(aph_rx_client_new(&perf->client, host->rx, &path, 1, NULL));
	CHECK_OK(aph_rx_call_new(&perf->call, perf->client, NULL));
	write_some(perf);
}

static void run(struct world *world, uint32_t queue, uint32_t loss, double least)
{
	static struct perf perf;
	static const char *const names[] = { "client", "server" };
	struct rule rule = { .rate = RATE, .delay_ns = DELAY, .queue = queue, .loss = loss };
	uint64_t begun = world->now;

	memset(&perf, 0, sizeof(perf));
	perf.len = check_long() ? BYTES_LONG : check_slow() ? BYTES / 8 : BYTES;
	world_rule(world, &rule);
	for (unsigned i = 2; i-- > 0;) {
		struct aph_rx_address address = address_v4(i + 1, 7000);

		host_init(&perf.hosts[i], world, names[i], &address);
		perf.hosts[i].config.window = APH_RX_WINDOW_MAX;
		perf.hosts[i].config.send_max = 24 << 20;
		perf.hosts[i].config.flags |= APH_RX_SEGMENTS;
		perf.hosts[i].user = &perf;
		perf.hosts[i].on_event = on_event;
		perf.hosts[i].on_start = on_start;
	}
	host_start(&perf.hosts[1]);
	host_start(&perf.hosts[0]);
	while (perf.ended_at == 0) {
		if (world->now > begun + LIMIT_NS)
			world_fail(world, "%llu of %llu bytes after %.0f s",
				   (unsigned long long)perf.read, (unsigned long long)perf.len,
				   (double)LIMIT_NS / 1e9);
		world_run(world, world->now + 100 * MS);
	}
	tally.goodput =
		(double)perf.len * 8 / ((double)(perf.ended_at - begun) / 1e9) / (double)RATE;
	tally.n_calls++;
	tally.n_outcomes[APH_RX_DONE]++;
	tally.virtual_seconds += (double)(perf.ended_at - begun) / 1e9;
	world_run(world, world->now + SECOND);
	aph_rx_call_free(perf.call);
	aph_rx_call_free(perf.served);
	host_stop(&perf.hosts[0]);
	host_stop(&perf.hosts[1]);
	/* A short run is mostly its beginning. */
	if (!check_slow() && tally.goodput < least)
		world_fail(world, "%.3f of the link, less than %.2f", tally.goodput, least);
}

void scenario_link_full(struct world *world)
{
	run(world, PRODUCT, 0, 0.85);
}

void scenario_link_quarter(struct world *world)
{
	run(world, PRODUCT / 4, 0, 0.6);
}

void scenario_link_loss(struct world *world)
{
	run(world, PRODUCT, 1000, 0.55);
}
