/* SPDX-License-Identifier: MIT */
#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES_MAX	16
#define ROUNDS_MAX	200000
#define TICKS_MAX	1000
#define DATAGRAM_MAX	65536
#define BLOCK_HEADER	16
#define FILL_BLOCKS_MAX 4096

uint64_t host_now(const struct host *host)
{
	return host->node.world->now + host->clock_ahead_ns;
}

static void *host_alloc(void *arg, size_t size)
{
	struct host *host = arg;
	unsigned char *block;

	if (host->alloc_fails && world_chance(host->node.world, host->alloc_fails)) {
		host->n_alloc_failed++;
		return NULL;
	}
	block = malloc(BLOCK_HEADER + size);
	CHECK(block);
	memcpy(block, &size, sizeof(size));
	/* What is not written must not be relied upon. */
	memset(block + BLOCK_HEADER, 0xa5, size < FILL_BLOCKS_MAX ? size : FILL_BLOCKS_MAX);
	host->memory += size;
	host->n_blocks++;
	if (host->memory > host->memory_peak)
		host->memory_peak = host->memory;
	return block + BLOCK_HEADER;
}

static void host_free(void *arg, void *memory, size_t size)
{
	struct host *host = arg;
	unsigned char *block;
	size_t was;

	if (!memory)
		return;
	block = (unsigned char *)memory - BLOCK_HEADER;
	memcpy(&was, block, sizeof(was));
	if (was != size)
		world_fail(host->node.world, "%s frees %zu bytes as %zu", host->node.name, was,
			   size);
	host->memory -= size;
	host->n_blocks--;
	free(block);
}

static void host_random(void *arg, void *out, size_t len)
{
	struct host *host = arg;
	unsigned char *bytes = out;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (unsigned char)rng_next(&host->random);
}

static void host_trace(void *arg, const struct aph_rx_trace *trace)
{
	struct host *host = arg;

	if (trace->type == APH_RX_TRACE_DROPPED)
		world_say(host->node.world, "%s drops it: %s", host->node.name,
			  trace->why ? trace->why : "?");
	else if (trace->type == APH_RX_TRACE_LOST)
		world_say(host->node.world, "%s takes for lost: call %u seq %u%s%s",
			  host->node.name, trace->call_number, trace->seq, trace->why ? " " : "",
			  trace->why ? trace->why : "");
}

/* -- datagrams in ------------------------------------------------------------------------------ */

struct aph_rx_path host_path(const struct aph_rx_address *to)
{
	struct aph_rx_path path;

	memset(&path, 0, sizeof(path));
	path.remote = *to;
	return path;
}

static void feed(struct host *host, const struct aph_rx_address *from, const void *data, size_t len,
		 size_t segment)
{
	struct aph_rx_path path = host_path(from);
	struct aph_rx_buffer *buffer = NULL;
	void *bytes = NULL;

	path.local = host->node.address;
	path.interface = 1;
	if (!host->copies) {
		if (!host->buffer)
			host->buffer = aph_rx_buffer_take(host->rx);
		buffer = host->buffer;
	}
	if (buffer) {
		memcpy(aph_rx_buffer_bytes(buffer), data, len);
		aph_rx_receive(host->rx, &path, aph_rx_buffer_bytes(buffer), len, segment, buffer,
			       host_now(host));
		if (aph_rx_buffer_is_shared(buffer)) {
			aph_rx_buffer_put(host->rx, buffer);
			host->buffer = NULL;
		}
		return;
	}
	/* A block of just this size, so that a sanitizer sees what is read beyond. */
	bytes = malloc(len ? len : 1);
	CHECK(bytes);
	memcpy(bytes, data, len);
	aph_rx_receive(host->rx, &path, bytes, len, segment, NULL, host_now(host));
	free(bytes);
}

static void host_deliver(struct node *node, struct packet **packets, size_t n)
{
	static unsigned char run[DATAGRAM_MAX];
	struct host *host = (struct host *)node;
	size_t i = 0;

	if (!host->rx)
		return;
	while (i < n) {
		size_t segment = packets[i]->len, len = 0, last = segment;
		const struct packet *first = packets[i];

		do {
			watch_delivered(&host->watch, packets[i]);
			memcpy(run + len, packets[i]->data, packets[i]->len);
			len += last = packets[i]->len;
			i++;
		} while (!host->no_gro && i < n && last == segment && segment > 0 &&
			 !world_chance(host->node.world, host->cuts) &&
			 packets[i]->len <= segment && packets[i]->len > 0 &&
			 len + packets[i]->len <= APH_RX_BUFFER_SIZE &&
			 address_equal(&packets[i]->from, &first->from));
		feed(host, &first->from, run, len, segment);
	}
	host_pump(host);
	watch_settled(&host->watch);
}

static void host_refused(struct node *node, const struct packet *packet, int error, uint32_t mtu,
			 bool local)
{
	struct host *host = (struct host *)node;
	struct aph_rx_path path = host_path(&packet->to);

	if (!host->rx)
		return;
	/* An ICMP shows at least the header of the datagram that it is about. */
	aph_rx_receive_error(host->rx, &path, error, mtu, packet->data,
			     packet->len < 100 ? packet->len : 100, local, host_now(host));
	host_pump(host);
}

/* -- datagrams out ----------------------------------------------------------------------------- */

static void transmit(struct host *host, const struct aph_rx_message *message)
{
	static unsigned char bytes[DATAGRAM_MAX];
	struct world *world = host->node.world;
	size_t len = 0;

	for (size_t i = 0; i < message->n_iov; i++) {
		CHECK(len + message->iov[i].iov_len <= sizeof(bytes));
		memcpy(bytes + len, message->iov[i].iov_base, message->iov[i].iov_len);
		len += message->iov[i].iov_len;
	}
	if (len != message->len || len == 0 || message->segment == 0 || message->segment > len)
		world_fail(world, "%s: message of %zu bytes, segment %zu, iov %zu", host->node.name,
			   message->len, message->segment, len);
	if (len > message->segment * 64)
		world_fail(world, "%s: run of %zu bytes in segments of %zu", host->node.name, len,
			   message->segment);
	for (size_t at = 0; at < len; at += message->segment) {
		size_t part = len - at < message->segment ? len - at : message->segment;

		watch_sent(&host->watch, &message->path->remote, bytes + at, part);
		world_send(&host->node, &host->node.address, &message->path->remote, bytes + at,
			   part,
			   message->probe      ? FRAGMENTS_NEVER
			   : message->fragment ? FRAGMENTS_MAY
					       : FRAGMENTS_HERE);
	}
}

static void set_timer(struct host *host)
{
	struct world *world = host->node.world;
	uint64_t deadline = aph_rx_deadline(host->rx), at;

	if (deadline == APH_RX_NO_DEADLINE) {
		world_set_timer(&host->node, UINT64_MAX);
		return;
	}
	at = deadline > host->clock_ahead_ns ? deadline - host->clock_ahead_ns : 0;
	if (at < world->now)
		at = world->now;
	if (host->slack_ns)
		at += rng_next(&world->rng) % host->slack_ns;
	world_set_timer(&host->node, at);
}

void host_pump(struct host *host)
{
	struct world *world = host->node.world;
	struct aph_rx_message out[MESSAGES_MAX];
	struct aph_rx_event event;
	unsigned rounds = 0;
	size_t n;

	if (host->busy || !host->rx)
		return;
	host->busy = true;
	do {
		while (aph_rx_next(host->rx, &event))
			host->on_event(host, &event);
		while ((n = aph_rx_send(host->rx, out, MESSAGES_MAX, host_now(host))) > 0) {
			for (size_t i = 0; i < n; i++)
				transmit(host, &out[i]);
			if (++rounds > ROUNDS_MAX)
				world_fail(world, "%s never stops sending", host->node.name);
		}
		if (++rounds > ROUNDS_MAX)
			world_fail(world, "%s never comes to rest", host->node.name);
	} while (aph_rx_has_event(host->rx));
	host->busy = false;
	set_timer(host);
}

static void host_timer(struct node *node)
{
	struct host *host = (struct host *)node;

	if (!host->rx)
		return;
	if (host->last_tick != node->world->now) {
		host->last_tick = node->world->now;
		host->n_ticks_then = 0;
	}
	if (++host->n_ticks_then > TICKS_MAX)
		world_fail(node->world, "%s: ticks do not move the deadline", node->name);
	aph_rx_tick(host->rx, host_now(host));
	host_pump(host);
}

/* -- life -------------------------------------------------------------------------------------- */

void host_init(struct host *host, struct world *world, const char *name,
	       const struct aph_rx_address *address)
{
	memset(host, 0, sizeof(*host));
	world_add(world, &host->node, name);
	host->node.address = *address;
	host->node.deliver = host_deliver;
	host->node.timer = host_timer;
	host->node.refused = host_refused;
	host->random.state = rng_next(&world->rng);
	host->config.size = sizeof(host->config);
	host->config.alloc = host_alloc;
	host->config.free = host_free;
	host->config.alloc_arg = host;
	host->config.random = host_random;
	host->config.random_arg = host;
}

void host_start(struct host *host)
{
	struct world *world = host->node.world;
	int r;

	CHECK(!host->rx);
	host->incarnation++;
	watch_init(&host->watch, world, &host->node, &host->config);
	if (world->trace) {
		host->config.trace = host_trace;
		host->config.trace_arg = host;
	}
	do {
		r = aph_rx_new(&host->rx, &host->config, host_now(host));
		if (r < 0 && !(r == -ENOMEM && host->alloc_fails))
			world_fail(world, "%s: aph_rx_new() gave %d", host->node.name, r);
	} while (r < 0);
	if (host->on_start)
		host->on_start(host);
	host_pump(host);
}

void host_stop(struct host *host)
{
	if (!host->rx)
		return;
	if (host->buffer)
		aph_rx_buffer_put(host->rx, host->buffer);
	host->buffer = NULL;
	host->rx = aph_rx_free(host->rx);
	watch_deinit(&host->watch);
	if (host->memory || host->n_blocks)
		world_fail(host->node.world, "%s leaks %zu bytes in %zu blocks", host->node.name,
			   host->memory, host->n_blocks);
}
