/* SPDX-License-Identifier: MIT */
/*
 * What a stranger says on a service's socket: messages of any bytes with any number of descriptors.
 */
#include "check.h"
#include "fuzz.h"

#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_world *world = fuzz_world();
	struct feed feed = { data, size };
	int fds[16];
	int sock = wire_connect(world->path);

	CHECK(sock >= 0);
	for (int i = 0; i < 16; i++)
		fds[i] = STDERR_FILENO;
	for (int messages = 0; messages < 6 && feed.left > 0; messages++) {
		uint8_t shape = feed_u8(&feed);
		const uint8_t *bytes;
		size_t len;

		bytes = feed_bytes(&feed, shape & 64 ? feed_u8(&feed) : sizeof(struct aph_hello),
				   &len);
		wire_send(sock, bytes, len, fds, shape & 15);
		if (shape & 128)
			service_turn(&world->service, 5);
	}
	service_turn(&world->service, 20);
	wire_hung_up(sock, 0);
	close(sock);
	fuzz_world_check(world);
	return 0;
}
