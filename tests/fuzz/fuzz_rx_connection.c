/* SPDX-License-Identifier: MIT */
/*
 * An engine in the middle of calls, as a service and as a client at once, is fed what the input
 * says: datagrams whose ids are mostly those of the calls and whose other fields are anything,
 * time, what the network reports, and what users do meanwhile. Each call ends once, nothing follows
 * the end, memory is bounded and all of it comes back.
 */
#include "rx/wire.h"

#include "check.h"
#include "fuzz.h"

#include <antiphon/rx.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SERVICE	     4
#define CALLS_MAX    32
#define STEPS_MAX    400
#define MS	     UINT64_C(1000000)
#define MEMORY_MAX   (16u << 20)
#define PEER_EPOCH   0x80001234u
#define PEER_CID     0x1000u
#define DATAGRAM_MAX 20000

struct held {
	struct aph_rx_call *call;
	bool is_client, ended;
};

struct subject {
	struct aph_rx *rx;
	struct aph_rx_client *client;
	struct aph_rx_service *service;
	struct held held[CALLS_MAX];
	uint32_t epoch, cid; /* of the client's connection, as it was seen to leave */
	uint32_t serial, seen_serial;
	uint64_t now;
	size_t memory;
	struct rng rng;
};

static void *take(void *arg, size_t size)
{
	struct subject *s = arg;
	void *memory = malloc(size);

	CHECK(memory);
	s->memory += size;
	CHECK(s->memory < MEMORY_MAX);
	return memory;
}

static void give(void *arg, void *memory, size_t size)
{
	struct subject *s = arg;

	if (memory)
		s->memory -= size;
	free(memory);
}

static void draw(void *arg, void *out, size_t len)
{
	struct subject *s = arg;

	for (size_t i = 0; i < len; i++)
		((uint8_t *)out)[i] = (uint8_t)rng_next(&s->rng);
}

static struct aph_rx_path path_of(unsigned peer)
{
	struct aph_rx_path path;

	memset(&path, 0, sizeof(path));
	path.remote.in.sin_family = AF_INET;
	path.remote.in.sin_addr.s_addr = htonl(0x0a000001 + peer);
	path.remote.in.sin_port = htons(7001);
	return path;
}

/* -- what leaves, and what is told ------------------------------------------------------------- */

static void look(struct subject *s, const struct aph_rx_message *message)
{
	static uint8_t bytes[65536];
	size_t len = 0;

	for (size_t i = 0; i < message->n_iov; i++) {
		CHECK(len + message->iov[i].iov_len <= sizeof(bytes));
		memcpy(bytes + len, message->iov[i].iov_base, message->iov[i].iov_len);
		len += message->iov[i].iov_len;
	}
	CHECK(len == message->len && message->segment > 0 && len > 0);
	for (size_t at = 0; at < len; at += message->segment) {
		struct aph_rx_header h;

		CHECK(len - at >= APH_RX_HEADER);
		aph_rx_header_decode(&h, bytes + at);
		if (h.flags & APH_RX_CLIENT_INITIATED && h.type == APH_RX_DATA) {
			s->epoch = h.epoch;
			s->cid = h.cid & ~3u;
		}
		s->seen_serial = h.serial;
	}
}

static struct held *find(struct subject *s, struct aph_rx_call *call)
{
	for (unsigned i = 0; i < CALLS_MAX; i++)
		if (s->held[i].call == call)
			return &s->held[i];
	return NULL;
}

static void take_event(struct subject *s, const struct aph_rx_event *event)
{
	struct held *held = find(s, event->call);
	uint8_t piece[512];

	if (event->type == APH_RX_EVENT_CALL) {
		CHECK(!held && event->service == s->service);
		held = find(s, NULL);
		if (!held) {
			aph_rx_call_free(event->call);
			return;
		}
		*held = (struct held){ .call = event->call };
		return;
	}
	CHECK(held && !held->ended);
	if (event->type == APH_RX_EVENT_END)
		held->ended = true;
	else
		(void)aph_rx_call_read(held->call, piece, sizeof(piece), 0);
}

static void settle(struct subject *s)
{
	struct aph_rx_message out[8];
	struct aph_rx_event event;
	unsigned rounds = 0;
	size_t n;

	do {
		while (aph_rx_next(s->rx, &event))
			take_event(s, &event);
		while ((n = aph_rx_send(s->rx, out, 8, s->now)) > 0) {
			for (size_t i = 0; i < n; i++)
				look(s, &out[i]);
			CHECK(++rounds < 10000);
		}
	} while (aph_rx_has_event(s->rx));
}

static void pass(struct subject *s, uint64_t ns)
{
	uint64_t until = s->now + ns;
	unsigned n = 0;

	while (aph_rx_deadline(s->rx) <= until && n++ < 2000) {
		if (aph_rx_deadline(s->rx) > s->now)
			s->now = aph_rx_deadline(s->rx);
		aph_rx_tick(s->rx, s->now);
		settle(s);
	}
	s->now = until;
	aph_rx_tick(s->rx, s->now);
	settle(s);
}

/* -- what the input does ----------------------------------------------------------------------- */

/* Small numbers, numbers near the ends of the range, or any. */
static uint32_t number(struct feed *feed)
{
	uint8_t what = feed_u8(feed);

	if (what < 0xe0)
		return what & 0x1f;
	if (what < 0xf0)
		return UINT32_MAX - (what & 0xf);
	if (what < 0xf8)
		return 0x80000000u + (what & 7) - 4;
	return feed_u32(feed);
}

static size_t build_ack(struct subject *s, struct feed *feed, uint8_t *body)
{
	struct aph_rx_ack ack = { .first = number(feed), .previous = number(feed) };
	uint8_t shape = feed_u8(feed);
	const uint8_t *acks;
	size_t n, len;

	ack.serial = shape & 1 ? s->seen_serial : number(feed);
	ack.reason = shape >> 4;
	acks = feed_bytes(feed, feed_u8(feed), &n);
	ack.acks = acks;
	ack.n_acks = (uint8_t)n;
	ack.max_mtu = shape & 2 ? 1444 : number(feed);
	ack.if_mtu = 1444;
	ack.rwind = shape & 4 ? 32 : number(feed);
	ack.max_jumbo = shape & 8 ? 4 : number(feed);
	if (feed_u8(feed) & 1) {
		ack.extended = true;
		ack.window = number(feed);
		ack.n_ranges = feed_u8(feed) % (APH_RX_ACK_RANGES_MAX + 1);
		for (uint32_t i = 0; i < ack.n_ranges; i++)
			ack.ranges[i] = (struct aph_rx_range){ number(feed), number(feed) };
	}
	len = aph_rx_ack_encode(body, &ack);
	return shape & 0x80 ? len - len / 3 : len;
}

static size_t build(struct subject *s, struct feed *feed, uint8_t *packet)
{
	uint8_t shape = feed_u8(feed), kind = feed_u8(feed);
	bool to_client = shape & 1;
	struct aph_rx_header h = {
		.epoch = to_client ? s->epoch : PEER_EPOCH,
		.cid = (to_client ? s->cid : PEER_CID) | (shape >> 1 & 3),
		.call_number = 1,
		.serial = ++s->serial,
		.type = kind & 0x0f,
		.flags = (uint8_t)((kind >> 4 & 7) << 1 | (kind & 0x80) >> 2 | !to_client),
		.service = SERVICE,
	};
	const uint8_t *bytes;
	size_t len = 0;

	if (h.type == APH_RX_DATA)
		h.seq = number(feed);
	if (shape & 8)
		h.call_number = number(feed);
	if (shape & 16)
		h.serial = number(feed);
	if (shape & 32) {
		h.security = feed_u8(feed) & 3;
		h.user_status = feed_u8(feed);
		h.service = (uint16_t)number(feed);
		h.cid ^= number(feed);
	}
	aph_rx_header_encode(packet, &h);
	if (h.type == APH_RX_ACK)
		len = build_ack(s, feed, packet + APH_RX_HEADER);
	if (shape & 64) {
		/* Long enough for packets of a jumbogram. */
		size_t fill = (size_t)feed_u8(feed) * 64;

		memset(packet + APH_RX_HEADER + len, feed_u8(feed), fill);
		len += fill;
	}
	if (shape & 128 || h.type != APH_RX_ACK) {
		size_t n;

		bytes = feed_bytes(feed, feed_u8(feed), &n);
		memcpy(packet + APH_RX_HEADER + len, bytes, n);
		len += n;
	}
	return APH_RX_HEADER + len;
}

static void receive(struct subject *s, struct feed *feed, unsigned peer)
{
	struct aph_rx_path path = path_of(peer);
	uint8_t *packet = malloc(DATAGRAM_MAX), *exact;
	struct aph_rx_buffer *buffer;
	size_t len;

	CHECK(packet);
	len = build(s, feed, packet);
	CHECK(len <= DATAGRAM_MAX);
	if (len > 8000) {
		/* Long ones may stay where they arrived, as a run of datagrams. */
		buffer = aph_rx_buffer_take(s->rx);
		CHECK(buffer);
		memcpy(aph_rx_buffer_bytes(buffer), packet, len);
		memcpy((uint8_t *)aph_rx_buffer_bytes(buffer) + len, packet, len);
		aph_rx_receive(s->rx, &path, aph_rx_buffer_bytes(buffer), 2 * len, len, buffer,
			       s->now);
		aph_rx_buffer_put(s->rx, buffer);
		free(packet);
		return;
	}
	/* A block of just this size, so that a sanitizer sees what is read beyond. */
	exact = malloc(len);
	CHECK(exact);
	memcpy(exact, packet, len);
	aph_rx_receive(s->rx, &path, exact, len, len, NULL, s->now);
	free(exact);
	free(packet);
}

static void receive_raw(struct subject *s, struct feed *feed)
{
	struct aph_rx_path path = path_of(feed_u8(feed) & 3);
	size_t segment = feed_u8(feed), len;
	const uint8_t *bytes = feed_bytes(feed, feed_u16(feed) & 0xfff, &len);

	aph_rx_receive(s->rx, &path, bytes, len, segment, NULL, s->now);
}

static void begin(struct subject *s, struct feed *feed)
{
	struct aph_rx_call_options options = { .size = sizeof(options) };
	struct held *held = find(s, NULL);

	if (!held)
		return;
	options.flags = feed_u8(feed) & 7;
	options.hard_ms = feed_u8(feed) & 1 ? 100 : 0;
	*held = (struct held){ .is_client = true };
	if (aph_rx_call_new(&held->call, s->client, &options) < 0)
		held->call = NULL;
}

static void use(struct subject *s, struct feed *feed)
{
	static const uint8_t filler[8192];
	struct held *held = &s->held[feed_u8(feed) % CALLS_MAX];
	uint8_t piece[256];
	const void *place;
	size_t len;

	if (!held->call)
		return;
	switch (feed_u8(feed) % 6) {
	case 0:
		(void)aph_rx_call_write(held->call, filler, feed_u16(feed) % sizeof(filler),
					feed_u8(feed) & APH_RX_MORE);
		break;
	case 1:
		(void)aph_rx_call_read(held->call, piece, 1 + feed_u8(feed), feed_u8(feed) & 2);
		break;
	case 2:
		if (aph_rx_call_borrow(held->call, &place, &len) == 0)
			aph_rx_call_release(held->call, len);
		break;
	case 3:
		(void)aph_rx_call_abort(held->call, 1 + feed_u8(feed));
		break;
	case 4:
		held->call = aph_rx_call_free(held->call);
		break;
	default:
		aph_rx_call_set_timeouts(held->call, feed_u8(feed), feed_u8(feed), feed_u8(feed));
	}
}

static void report(struct subject *s, struct feed *feed)
{
	static const int errors[] = { EMSGSIZE, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH };
	struct aph_rx_path path = path_of(feed_u8(feed) & 3);
	uint8_t what = feed_u8(feed);
	size_t len;
	const uint8_t *quote = feed_bytes(feed, what >> 3, &len);

	aph_rx_receive_error(s->rx, &path, errors[what & 3], number(feed), len ? quote : NULL, len,
			     what & 4, s->now);
}

static void step(struct subject *s, struct feed *feed)
{
	uint8_t what = feed_u8(feed);

	if (what < 0x80)
		receive(s, feed, 0);
	else if (what < 0x90)
		receive(s, feed, what & 3);
	else if (what < 0x98)
		receive_raw(s, feed);
	else if (what < 0xb0)
		settle(s);
	else if (what < 0xc0)
		pass(s, (uint64_t)feed_u8(feed) * feed_u8(feed) * MS);
	else if (what < 0xd0)
		begin(s, feed);
	else if (what < 0xf0)
		use(s, feed);
	else
		report(s, feed);
}

static void start(struct subject *s, uint8_t shape)
{
	const struct aph_rx_config config = {
		.size = sizeof(config),
		.alloc = take,
		.free = give,
		.alloc_arg = s,
		.random = draw,
		.random_arg = s,
		.flags = shape & 0x3f,
		.window = shape & 0x40 ? 0 : 64,
		.calls_max = 64,
		.connections_max = 32,
		.peers_max = 8,
		.peer_memory_max = 1 << 20,
	};
	struct aph_rx_path path = path_of(0);
	struct aph_rx_call_options options = { .size = sizeof(options) };

	memset(s, 0, sizeof(*s));
	s->now = 1000000 * MS;
	CHECK_OK(aph_rx_new(&s->rx, &config, s->now));
	CHECK_OK(aph_rx_service_add(&s->service, s->rx, SERVICE, NULL));
	CHECK_OK(aph_rx_client_new(&s->client, s->rx, &path, SERVICE, NULL));
	/* A call of ours that waits for its reply. */
	s->held[0].is_client = true;
	CHECK_OK(aph_rx_call_new(&s->held[0].call, s->client, &options));
	CHECK(aph_rx_call_write(s->held[0].call, "question", 8, 0) == 8);
	settle(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct feed feed = { data, size };
	struct subject s;
	struct aph_rx_stats stats;

	start(&s, feed_u8(&feed));
	for (unsigned i = 0; i < STEPS_MAX && feed.left > 0; i++)
		step(&s, &feed);
	settle(&s);
	for (unsigned i = 0; i < CALLS_MAX; i++)
		s.held[i].call = aph_rx_call_free(s.held[i].call);
	aph_rx_client_free(s.client);
	aph_rx_service_remove(s.service);
	settle(&s);
	aph_rx_get_stats(s.rx, &stats);
	CHECK(stats.n_calls == 0);
	CHECK(stats.memory == s.memory);
	aph_rx_free(s.rx);
	CHECK(s.memory == 0);
	return 0;
}
