/* SPDX-License-Identifier: MIT */
/*
 * A hostile client's records, words and descriptors, step by step, with the service looking in
 * between.
 */
#include "check.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_world *world = fuzz_world();
	struct feed feed = { data, size };
	struct wire wire;

	CHECK(wire_open_begin(&wire, world->path, NULL));
	service_turn(&world->service, 10);
	service_turn(&world->service, 10);
	CHECK(wire_open_finish(&wire, 1000));
	for (int steps = 0; steps < 200 && feed.left > 0; steps++) {
		fuzz_wire_step(&wire, &feed);
		if (feed_u8(&feed) % 4 == 0)
			service_turn(&world->service, 1 + feed_u8(&feed) % 8);
	}
	wire_ring(&wire);
	service_turn(&world->service, 50);
	wire_hung_up(wire.sock, 0);
	wire_close(&wire);
	fuzz_world_check(world);
	return 0;
}
