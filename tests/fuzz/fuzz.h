/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share: drawing numbers from an input, a runtime directory for the process,
 * and a service with an honest client in the same thread, which must stay well whatever the input
 * does.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "client.h"
#include "fds.h"
#include "service.h"
#include "wire.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Numbers from the input; zeros when it is used up. */
struct feed {
	const uint8_t *at;
	size_t left;
};

uint8_t feed_u8(struct feed *feed);
uint16_t feed_u16(struct feed *feed);
uint32_t feed_u32(struct feed *feed);

/* Up to `max` bytes that stay in the input; `*len` says how many. */
const uint8_t *feed_bytes(struct feed *feed, size_t max, size_t *len);

/* Makes the runtime directory, once in the process. */
void fuzz_dir(void);

/* The service, its socket file and its honest client. */
struct fuzz_world {
	struct service service;
	struct aph_endpoint *ep;
	struct aph_channel *honest;
	char path[108];
	unsigned inputs;
	struct fds fds;
};

/* Made with the first input; the same one ever after. */
struct fuzz_world *fuzz_world(void);

/*
 * After each input: every call has ended, the honest client is answered, and now and then: nothing
 * leaks.
 */
void fuzz_world_check(struct fuzz_world *world);

/* Writes what the input says into what is shared, as either side; one step. */
void fuzz_wire_step(struct wire *wire, struct feed *feed);

#endif
