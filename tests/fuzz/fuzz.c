/* SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include "check.h"
#include "dir.h"
#include "fds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint8_t feed_u8(struct feed *feed)
{
	if (feed->left == 0)
		return 0;
	feed->left--;
	return *feed->at++;
}

uint16_t feed_u16(struct feed *feed)
{
	uint16_t low = feed_u8(feed);

	return (uint16_t)(low | feed_u8(feed) << 8);
}

uint32_t feed_u32(struct feed *feed)
{
	uint32_t low = feed_u16(feed);

	return low | (uint32_t)feed_u16(feed) << 16;
}

const uint8_t *feed_bytes(struct feed *feed, size_t max, size_t *len)
{
	const uint8_t *bytes = feed->at;

	*len = feed->left < max ? feed->left : max;
	feed->at += *len;
	feed->left -= *len;
	return bytes;
}

void fuzz_dir(void)
{
	static int made;

	if (!made++)
		dir_begin();
}

struct fuzz_world *fuzz_world(void)
{
	static struct fuzz_world world;
	const struct service_config config = {
		.address = "fuzz",
		.options.flags = APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS,
		.harmless = true,
	};
	struct aph_channel_options options = { .size = sizeof(options),
					       .flags = APH_CHANNEL_ASYNC };
	struct aph_event ev;

	if (world.ep)
		return &world;
	fuzz_dir();
	service_start(&world.service, SERVICE_INLINE, &config);
	dir_only_socket(world.path, sizeof(world.path));
	CHECK_OK(aph_endpoint_new(&world.ep, NULL));
	CHECK_OK(aph_channel_open(&world.honest, world.ep, "fuzz", &options));
	do {
		service_turn(&world.service, 10);
	} while (aph_endpoint_next(world.ep, &ev, APH_NOW) == -EAGAIN);
	CHECK(ev.type == APH_EVENT_OPEN);
	return &world;
}

static void honest_call(struct fuzz_world *world)
{
	static const char request[] = "echo of an honest client, longer than a record holds";
	char reply[100];
	struct aph_call *call;
	struct aph_event ev;

	CHECK_OK(aph_call_new(&call, world->honest, aph_deadline_ms(20000), NULL));
	CHECK(aph_call_send(call, request, sizeof(request), 0) == sizeof(request));
	for (;;) {
		service_turn(&world->service, 100);
		if (aph_endpoint_next(world->ep, &ev, APH_NOW) < 0)
			continue;
		CHECK(ev.call == call);
		if (ev.type == APH_EVENT_END)
			break;
	}
	CHECK(ev.result.outcome == APH_ANSWERED);
	CHECK(aph_call_read(call, reply, sizeof(reply)) == sizeof(request));
	CHECK(memcmp(request, reply, sizeof(request)) == 0);
	aph_call_free(call);
	service_turn(&world->service, 100);
}

void fuzz_world_check(struct fuzz_world *world)
{
	const struct service_seen *seen = world->service.seen;

	/*
	 * The input's channel is closed: what it held at the service has an end, each call its own.
	 */
	for (int turns = 0;; turns++) {
		service_turn(&world->service, 1000);
		if (seen->disconnects + seen->thrown_out == seen->connects - 1 && seen->works == 0)
			break;
		CHECK(turns < 100000);
	}
	if (world->inputs++ % 8 == 0)
		honest_call(world);
	if (world->inputs == 16)
		fds_take(&world->fds);
	if (world->inputs > 16 && world->inputs % 64 == 0)
		CHECK(fds_differ_but_pipes(&world->fds) == 0);
}

static void post(struct wire *wire, struct feed *feed)
{
	struct aph_record record;
	uint8_t shape = feed_u8(feed);
	size_t len;
	const uint8_t *bytes;

	memset(&record, 0, sizeof(record));
	record.type = feed_u8(feed);
	record.flags = shape & 3;
	record.tag = APH_TAG(feed_u8(feed) % 8, shape >> 2 & 3);
	record.len = feed_u8(feed);
	record.aux = shape & 16				 ? feed_u32(feed)
		     : record.type == APH_RECORD_REQUEST ? APH_FOREVER
							 : 2;
	if (shape & 32)
		record.n_fds = feed_u8(feed);
	if (shape & 64)
		record.len = feed_u32(feed);
	if (record.flags & APH_RECORD_ARENA) {
		record.off = shape & 128 ? feed_u32(feed) : (uint32_t)feed_u8(feed) * 1024;
		/* The operation that the test service looks for is the first byte of the piece. */
		if (record.off < wire->welcome.arena)
			wire_arena(wire, wire->server)[record.off] = feed_u8(feed);
	} else {
		bytes = feed_bytes(feed, record.len < APH_INLINE_MAX ? record.len : APH_INLINE_MAX,
				   &len);
		memcpy(record.data, bytes, len);
	}
	wire_post(wire, record);
}

static void poke_a_word(struct wire *wire, struct feed *feed)
{
	uint8_t which = feed_u8(feed);
	uint32_t value = which & 128 ? feed_u32(feed) : feed_u8(feed);
	struct aph_segment_words *words = wire->words;

	switch (which & 15) {
	case 0:
		words->client.wait = value;
		break;
	case 1:
		words->client.want = value;
		break;
	case 2:
		words->client.want = words->client.wait = value;
		break;
	case 3:
		words->server.scanned = value;
		break;
	case 4:
		words->server.want = value;
		break;
	case 5:
		words->replies_taken = value;
		break;
	case 6:
		words->requests_taken = value;
		break;
	case 7:
		words->generation = (int64_t)value << 20;
		break;
	case 8:
		words->reply_released[value % 8] = (uint64_t)feed_u32(feed) << (which & 16);
		break;
	case 9:
		words->request_released[value % 8] = (uint64_t)feed_u32(feed) << (which & 16);
		break;
	case 10:
		words->revoked[(wire->sent + value) % (2 * wire->welcome.depth)] = feed_u8(feed);
		break;
	case 11:
		memset(words, (int)value, APH_LINE);
		break;
	case 12:
		wire_slot(wire, value & 1, feed_u8(feed))->seq = feed_u32(feed);
		break;
	default:
		wire->map[feed_u32(feed) % wire->size] = (uint8_t)value;
	}
}

void fuzz_wire_step(struct wire *wire, struct feed *feed)
{
	int fds[80];
	size_t n;

	switch (feed_u8(feed) % 8) {
	case 0:
	case 1:
	case 2:
		post(wire, feed);
		break;
	case 3:
		poke_a_word(wire, feed);
		break;
	case 4:
		n = feed_u8(feed) % 80;
		for (size_t i = 0; i < n; i++)
			fds[i] = STDERR_FILENO;
		wire_send(wire->sock, n % 16 == 15 ? "b" : "d", 1, fds, n);
		break;
	case 5:
		n = feed_u8(feed);
		wire_send(wire->sock, feed_bytes(feed, n, &n), n, NULL, 0);
		break;
	case 6:
		/* An honest reader, to let streams go on. */
		*wire_taken(wire) += feed_u8(feed) % 4;
		if (wire->server)
			wire->words->request_released[feed_u8(feed) % 8] |= feed_u8(feed);
		else
			wire->words->reply_released[feed_u8(feed) % 8] |= feed_u8(feed);
		break;
	default:
		wire_ring(wire);
	}
}
