/* SPDX-License-Identifier: MIT */
/*
 * Two engines that make calls to each other, with an adversary between them: the input says what
 * becomes of each datagram. As long as it only loses, repeats, delays and replays, the whole
 * contract must hold and all calls must end, bodies intact. When it forges, nothing but the call's
 * own fate may be in its hands.
 */
#include "load.h"

#include "fuzz.h"
#include "rx/wire.h"

#include <stdlib.h>
#include <string.h>

#define CALLS	  12
#define KEPT	  8
#define FORGERIES 0x80 /* of the first byte */

struct adversary {
	struct world *world;
	struct feed feed;
	bool forges;
	struct packet *kept[KEPT]; /* to be sent again later */
	unsigned n_kept;
};

static void keep(struct adversary *adversary, const struct packet *packet)
{
	unsigned i = adversary->n_kept++ % KEPT;

	free(adversary->kept[i]);
	adversary->kept[i] = malloc(sizeof(*packet) + packet->len);
	CHECK(adversary->kept[i]);
	memcpy(adversary->kept[i], packet, sizeof(*packet) + packet->len);
}

static void forge(struct adversary *adversary, struct packet *packet)
{
	static const uint8_t widths[] = { 4, 4, 4, 4, 4, 1, 1, 1, 1, 2, 2 };
	static const uint8_t offsets[] = { 0, 4, 8, 12, 16, 20, 21, 22, 23, 24, 26 };
	uint8_t what = feed_u8(&adversary->feed);
	unsigned field = (what & 0x1f) % (sizeof(offsets) + 4);
	uint32_t at, width = 4;

	if (field < sizeof(offsets)) {
		at = offsets[field];
		width = widths[field];
	} else {
		/* Fields of an ACK, or bytes of a body. */
		at = APH_RX_HEADER + 4u * feed_u8(&adversary->feed);
	}
	for (uint32_t i = 0; i < width && at + i < packet->len; i++) {
		uint8_t value = feed_u8(&adversary->feed);

		if (what & 0x20)
			packet->data[at + i] ^= value;
		else
			packet->data[at + i] = value;
	}
	if (what & 0x40)
		packet->len = packet->len * feed_u8(&adversary->feed) / 256;
}

static enum verdict meddle(void *arg, struct packet *packet)
{
	struct adversary *adversary = arg;
	uint8_t what = feed_u8(&adversary->feed);

	switch (what & 0x0f) {
	case 1:
	case 2:
		return DROP;
	case 3:
		world_inject(adversary->world, packet, (uint64_t)(what >> 4) * MS);
		return PASS;
	case 4:
		world_inject(adversary->world, packet, (uint64_t)(what >> 4) * 20 * MS);
		return DROP;
	case 5:
		keep(adversary, packet);
		return PASS;
	case 6:
		if (adversary->n_kept > 0)
			world_inject(adversary->world,
				     adversary->kept[(what >> 4) % (adversary->n_kept < KEPT
									    ? adversary->n_kept
									    : KEPT)],
				     0);
		return PASS;
	case 7:
	case 8:
		if (adversary->forges)
			forge(adversary, packet);
		return PASS;
	case 9:
		if (adversary->forges) {
			keep(adversary, packet);
			forge(adversary, adversary->kept[(adversary->n_kept - 1) % KEPT]);
			world_inject(adversary->world,
				     adversary->kept[(adversary->n_kept - 1) % KEPT], 0);
		}
		return PASS;
	default:
		return PASS;
	}
}

static void start(struct load *load, struct host *hosts, struct world *world, uint8_t shape)
{
	static const char *const names[] = { "a", "b" };

	for (unsigned i = 0; i < 2; i++) {
		struct aph_rx_address address = address_v4(i + 1, 7000);

		host_init(&hosts[i], world, names[i], &address);
		hosts[i].watch.hostile = load->options.forged;
		hosts[i].config.flags = shape & 7u;
		hosts[i].config.window = shape & 8 ? 32 : 0;
		hosts[i].no_gro = shape & 16;
		hosts[i].copies = shape & 32;
		load_add(load, &hosts[i], i == 0 || shape & 64, i == 1 || shape & 64);
	}
	for (unsigned i = 0; i < 2; i++)
		host_start(&hosts[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world world;
	static struct host hosts[2];
	static struct load load;
	struct load_options options = { .request_max = 20000,
					.reply_max = 20000,
					.at_once = 4,
					.pause_max_us = 1000,
					.n_services = 2 };
	const struct rule rule = { .delay_ns = 2 * MS };
	struct adversary adversary = { .world = &world, .feed = { data, size } };
	uint8_t shape = feed_u8(&adversary.feed);

	options.forged = adversary.forges = shape & FORGERIES;
	world_init(&world, feed_u8(&adversary.feed));
	world.scenario = "fuzz";
	world_rule(&world, &rule);
	world.meddle = meddle;
	world.meddle_arg = &adversary;
	load_init(&load, &world, &options);
	start(&load, hosts, &world, shape);
	load_begin(&load, CALLS);
	load_drain(&load, 300 * SECOND);
	world.meddle = NULL;
	load_close(&load);
	CHECK(load.n_outcomes[APH_RX_LOCAL_ERROR] == 0 && load.n_outcomes[APH_RX_BUSY] == 0);
	load_deinit(&load);
	world_deinit(&world);
	for (unsigned i = 0; i < KEPT; i++)
		free(adversary.kept[i]);
	return 0;
}
