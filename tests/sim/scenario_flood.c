/* SPDX-License-Identifier: MIT */
/*
 * Somebody sends packets with other people's addresses, made up and repeated, while an honest
 * client makes calls. Nobody who has not shown that the address is its own gets much more than it
 * sent; the memory is bounded; the honest calls are done.
 */
#include "scenario.h"

#include "rx/wire.h"

#include <stdlib.h>
#include <string.h>

#define VICTIMS	      200
#define AMPLIFICATION 3	   /* times what came from there */
#define ALLOWANCE     2000 /* bytes more */

struct flood {
	struct node node; /* everybody else: gets what is sent to the victims */
	struct load load;
	struct host hosts[2];
	uint64_t sent[VICTIMS], got[VICTIMS];
	uint64_t until;
	uint32_t rate_us;
};

static unsigned victim_of(const struct aph_rx_address *address)
{
	return address->in.sin_port % VICTIMS;
}

static void flood_deliver(struct node *node, struct packet **packets, size_t n)
{
	struct flood *flood = (struct flood *)node;

	for (size_t i = 0; i < n; i++)
		flood->got[victim_of(&packets[i]->to)] += packets[i]->len;
}

static void flood_timer(struct node *node)
{
	(void)node;
}

static size_t make(struct flood *flood, uint8_t *packet)
{
	struct world *world = flood->node.world;
	struct aph_rx_header h = {
		.epoch = 0x80000000u | rng_below(&world->rng, 4),
		.cid = rng_below(&world->rng, 64),
		.call_number = rng_below(&world->rng, 3),
		.seq = rng_below(&world->rng, 3),
		.serial = rng_below(&world->rng, 10),
		.type = (uint8_t)(rng_below(&world->rng, 3) ? APH_RX_DATA
							    : rng_below(&world->rng, 15)),
		.flags = (uint8_t)(rng_next(&world->rng) | APH_RX_CLIENT_INITIATED),
		.service = (uint16_t)(1 + rng_below(&world->rng, 3)),
	};
	size_t len = rng_below(&world->rng, 2) ? rng_below(&world->rng, 1400) : 12;

	if (rng_below(&world->rng, 2))
		h.flags = APH_RX_CLIENT_INITIATED | APH_RX_LAST_PACKET;
	if (rng_below(&world->rng, 8) == 0)
		h.security = (uint8_t)rng_next(&world->rng);
	aph_rx_header_encode(packet, &h);
	for (size_t i = 0; i < len; i++)
		packet[APH_RX_HEADER + i] =
			(uint8_t)(rng_below(&world->rng, 4) ? 0 : rng_next(&world->rng));
	return APH_RX_HEADER + len;
}

static void flood_some(void *arg)
{
	struct flood *flood = arg;
	struct world *world = flood->node.world;
	uint8_t packet[APH_RX_HEADER + 1500];

	if (world->now >= flood->until)
		return;
	for (unsigned i = 0; i < 20; i++) {
		uint32_t victim = rng_below(&world->rng, VICTIMS);
		struct aph_rx_address from = address_v4(1000 + victim, 0);
		size_t len = make(flood, packet);

		from.in.sin_port = (uint16_t)victim;
		flood->sent[victim] += len;
		world_send(&flood->node, &from, &flood->hosts[1].node.address, packet, len,
			   FRAGMENTS_MAY);
	}
	world_at(world, world->now + flood->rate_us * US, flood_some, flood);
}

static void check(struct flood *flood)
{
	for (unsigned i = 0; i < VICTIMS; i++)
		if (flood->got[i] > AMPLIFICATION * flood->sent[i] + ALLOWANCE)
			world_fail(flood->node.world,
				   "%llu bytes went to an address that had sent %llu",
				   (unsigned long long)flood->got[i],
				   (unsigned long long)flood->sent[i]);
}

void scenario_flood(struct world *world)
{
	const struct load_options options = { .request_max = 20000,
					      .reply_max = 20000,
					      .at_once = 8,
					      .pause_max_us = 5000,
					      .n_services = 2,
					      .forged = true };
	struct aph_rx_address a = address_v4(1, 7000), b = address_v4(2, 7000);
	static struct flood flood;
	struct rule rule = { .delay_ns = 2 * MS };
	size_t most = 0;

	memset(&flood, 0, sizeof(flood));
	world_add(world, &flood.node, "everybody");
	flood.node.everywhere = true;
	flood.node.address = address_v4(999, 1);
	flood.node.deliver = flood_deliver;
	flood.node.timer = flood_timer;
	flood.rate_us = 100 + rng_below(&world->rng, 5000);
	load_init(&flood.load, world, &options);
	host_init(&flood.hosts[0], world, "client", &a);
	host_init(&flood.hosts[1], world, "server", &b);
	load_add(&flood.load, &flood.hosts[0], true, false);
	load_add(&flood.load, &flood.hosts[1], false, true);
	flood.hosts[1].watch.hostile = true;
	flood.hosts[1].config.peers_max = 100 + rng_below(&world->rng, 200);
	flood.hosts[1].config.connections_max = 200 + rng_below(&world->rng, 2000);
	flood.hosts[1].config.calls_max = 200 + rng_below(&world->rng, 2000);
	flood.hosts[1].config.peer_memory_max = 1 << 20;
	world_rule(world, &rule);
	host_start(&flood.hosts[1]);
	host_start(&flood.hosts[0]);
	/* The honest one is there first. */
	load_begin(&flood.load, 20);
	load_drain(&flood.load, 20 * SECOND);
	flood.until = world->now + 5 * SECOND;
	flood_some(&flood);
	load_begin(&flood.load, 300);
	load_drain(&flood.load, 100 * SECOND);
	most = flood.hosts[1].memory_peak;
	if (flood.load.n_outcomes[APH_RX_DONE] != flood.load.n_calls)
		world_fail(world, "%llu of %zu honest calls were done",
			   (unsigned long long)flood.load.n_outcomes[APH_RX_DONE],
			   flood.load.n_calls);
	if (most > 64u << 20)
		world_fail(world, "the server held %zu bytes", most);
	world_run(world, flood.until + 100 * SECOND);
	check(&flood);
	load_close(&flood.load);
	tally_load(&flood.load);
	load_deinit(&flood.load);
}
