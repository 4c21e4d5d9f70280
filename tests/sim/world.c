/* SPDX-License-Identifier: MIT */
#include "world.h"

#include "describe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define PACKET_ROOM 2048
#define BATCH_MAX   64
#define FRAGMENTED  1444 /* datagrams of so many bytes pass in fragments */
#define IP_UDP	    28	 /* bytes of every datagram that take the link's time too */

struct aph_rx_address address_v4(uint32_t host, uint16_t port)
{
	struct aph_rx_address out;

	memset(&out, 0, sizeof(out));
	out.in.sin_family = AF_INET;
	out.in.sin_port = htons(port);
	out.in.sin_addr.s_addr = htonl(0x0a000000u + host);
	return out;
}

struct aph_rx_address address_v6(uint32_t host, uint16_t port)
{
	struct aph_rx_address out;

	memset(&out, 0, sizeof(out));
	out.in6.sin6_family = AF_INET6;
	out.in6.sin6_port = htons(port);
	out.in6.sin6_addr.s6_addr[0] = 0xfd;
	out.in6.sin6_addr.s6_addr[14] = (uint8_t)(host >> 8);
	out.in6.sin6_addr.s6_addr[15] = (uint8_t)host;
	return out;
}

bool address_equal(const struct aph_rx_address *a, const struct aph_rx_address *b)
{
	if (a->family != b->family)
		return false;
	if (a->family == AF_INET)
		return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr &&
		       a->in.sin_port == b->in.sin_port;
	return a->in6.sin6_port == b->in6.sin6_port &&
	       memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
}

void world_init(struct world *world, uint64_t seed)
{
	memset(world, 0, sizeof(*world));
	world->seed = seed;
	world->rng.state = seed;
	world->now = 1000 * SECOND + rng_next(&world->rng) % SECOND;
	world->hash = UINT64_C(0xcbf29ce484222325);
}

void world_deinit(struct world *world)
{
	struct packet *packet;

	for (size_t i = 0; i < world->n_heap; i++)
		if (world->heap[i].kind == EVENT_PACKET || world->heap[i].kind == EVENT_REFUSED)
			free(world->heap[i].packet);
	while ((packet = world->free_packets)) {
		world->free_packets = packet->next_free;
		free(packet);
	}
	free(world->heap);
	world->heap = NULL;
	world->n_heap = 0;
}

void world_add(struct world *world, struct node *node, const char *name)
{
	CHECK(world->n_nodes < WORLD_NODES_MAX);
	node->world = world;
	node->name = name;
	node->index = world->n_nodes;
	node->timer_at = node->timer_queued = UINT64_MAX;
	world->nodes[world->n_nodes++] = node;
}

void world_rule(struct world *world, const struct rule *rule)
{
	for (unsigned i = 0; i < WORLD_NODES_MAX; i++)
		for (unsigned j = 0; j < WORLD_NODES_MAX; j++)
			world->links[i][j].rule = *rule;
}

struct link *world_link(struct world *world, const struct node *from, const struct node *to)
{
	return &world->links[from->index][to->index];
}

bool world_chance(struct world *world, uint32_t per_million)
{
	return per_million > 0 && rng_below(&world->rng, MILLION) < per_million;
}

uint64_t world_skewed(struct world *world, uint64_t n)
{
	unsigned bits = 0;

	if (n == 0)
		return 0;
	while (n >> bits > 1)
		bits++;
	bits = rng_below(&world->rng, bits + 1);
	return rng_next(&world->rng) % (UINT64_C(2) << bits) % n;
}

void world_note(struct world *world, uint64_t value)
{
	world->hash = (world->hash ^ value) * UINT64_C(0x100000001b3);
	world->hash ^= world->hash >> 29;
}

void world_say(struct world *world, const char *format, ...)
{
	va_list args;

	if (!world->trace)
		return;
	fprintf(world->trace, "%14.6f ", (double)world->now / 1e9);
	va_start(args, format);
	vfprintf(world->trace, format, args);
	va_end(args);
	fputc('\n', world->trace);
}

void world_fail(struct world *world, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "sim: scenario %s, seed %llu, at %.6f s: ", world->scenario,
		(unsigned long long)world->seed, (double)world->now / 1e9);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nreplay with: sim --scenario %s --seed %llu --trace\n", world->scenario,
		(unsigned long long)world->seed);
	if (world->trace)
		fflush(world->trace);
	abort();
}

/* -- events ------------------------------------------------------------------------------------ */

static bool is_before(const struct world_event *a, const struct world_event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct world *world, struct world_event event)
{
	size_t i = world->n_heap, up;

	if (world->n_heap == world->room_heap) {
		world->room_heap = world->room_heap ? 2 * world->room_heap : 1024;
		world->heap = realloc(world->heap, world->room_heap * sizeof(event));
		CHECK(world->heap);
	}
	event.order = world->order++;
	world->n_heap++;
	for (; i > 0; i = up) {
		up = (i - 1) / 4;
		if (!is_before(&event, &world->heap[up]))
			break;
		world->heap[i] = world->heap[up];
	}
	world->heap[i] = event;
}

static struct world_event pop(struct world *world)
{
	struct world_event first = world->heap[0], last = world->heap[--world->n_heap];
	size_t i = 0, n = world->n_heap;

	for (;;) {
		size_t child = 4 * i + 1, least = child;

		if (child >= n)
			break;
		for (size_t c = child + 1; c < child + 4 && c < n; c++)
			if (is_before(&world->heap[c], &world->heap[least]))
				least = c;
		if (!is_before(&world->heap[least], &last))
			break;
		world->heap[i] = world->heap[least];
		i = least;
	}
	if (n > 0)
		world->heap[i] = last;
	return first;
}

void world_at(struct world *world, uint64_t at, void (*function)(void *arg), void *arg)
{
	push(world, (struct world_event){
			    .at = at, .kind = EVENT_CALL, .function = function, .arg = arg });
}

void world_set_timer(struct node *node, uint64_t at)
{
	node->timer_at = at;
	if (at >= node->timer_queued)
		return;
	node->timer_queued = at;
	push(node->world, (struct world_event){ .at = at, .kind = EVENT_TIMER, .node = node });
}

/* -- datagrams --------------------------------------------------------------------------------- */

static struct packet *packet_new(struct world *world, size_t len)
{
	size_t room = len > PACKET_ROOM ? len : PACKET_ROOM;
	struct packet *packet = NULL;

	if (room == PACKET_ROOM && world->free_packets) {
		packet = world->free_packets;
		world->free_packets = packet->next_free;
	} else {
		packet = malloc(sizeof(*packet) + room);
		CHECK(packet);
		packet->room = (uint32_t)room;
	}
	packet->len = (uint32_t)len;
	packet->corrupted = false;
	packet->dest = NULL;
	return packet;
}

static void packet_free(struct world *world, struct packet *packet)
{
	if (packet->room != PACKET_ROOM) {
		free(packet);
		return;
	}
	packet->next_free = world->free_packets;
	world->free_packets = packet;
}

static struct packet *packet_copy(struct world *world, const struct packet *packet)
{
	struct packet *copy = packet_new(world, packet->len);

	copy->from = packet->from;
	copy->to = packet->to;
	copy->fragments = packet->fragments;
	copy->corrupted = packet->corrupted;
	memcpy(copy->data, packet->data, packet->len);
	return copy;
}

struct node *world_find(struct world *world, const struct aph_rx_address *address)
{
	struct node *everywhere = NULL;

	for (unsigned i = 0; i < world->n_nodes; i++) {
		if (address_equal(&world->nodes[i]->address, address))
			return world->nodes[i];
		if (world->nodes[i]->everywhere)
			everywhere = world->nodes[i];
	}
	return everywhere;
}

static void say_packet(struct world *world, const char *what, const struct node *from,
		       const struct packet *packet)
{
	char text[200];

	if (!world->trace)
		return;
	describe_packet(text, sizeof(text), packet->data, packet->len);
	world_say(world, "%s %s: %s", from ? from->name : "?", what, text);
}

static bool is_lost(struct world *world, struct link *link)
{
	const struct rule *rule = &link->rule;

	if (link->n_sent <= 64 && rule->mask >> (link->n_sent - 1) & 1)
		return true;
	if (rule->burst_begin) {
		if (world_chance(world, link->in_burst ? rule->burst_end : rule->burst_begin))
			link->in_burst = !link->in_burst;
		if (link->in_burst)
			return true;
	}
	return world_chance(world, rule->loss);
}

/* Whether the datagram fits; when not, says so to whom the rule says. */
static bool passes_mtu(struct world *world, struct node *from, struct link *link,
		       struct packet *packet)
{
	const struct rule *rule = &link->rule;

	if (rule->mtu == 0 || packet->len <= rule->mtu)
		return true;
	/* What may be fragmented is, though on the way not everybody lets many fragments pass. */
	if (rule->mtu_mode == MTU_FRAGMENT) {
		if (packet->fragments != FRAGMENTS_NEVER)
			return true;
	} else if (packet->fragments == FRAGMENTS_MAY && packet->len <= FRAGMENTED &&
		   (packet->to.family == AF_INET || rule->mtu_mode != MTU_BLACKHOLE)) {
		return true;
	}
	say_packet(world, "too large", from, packet);
	if (!from->refused)
		return false;
	if (rule->mtu_mode == MTU_EMSGSIZE || rule->mtu_mode == MTU_FRAGMENT)
		push(world, (struct world_event){ .at = world->now,
						  .kind = EVENT_REFUSED,
						  .packet = packet_copy(world, packet),
						  .mtu = rule->mtu | 1u << 31,
						  .arg = from });
	else if (rule->mtu_mode == MTU_ICMP)
		push(world, (struct world_event){ .at = world->now + rule->delay_ns,
						  .kind = EVENT_REFUSED,
						  .packet = packet_copy(world, packet),
						  .mtu = rule->mtu,
						  .arg = from });
	return false;
}

/* When the datagram arrives; 0: the queue is full. */
static uint64_t arrival(struct world *world, struct link *link, const struct packet *packet)
{
	const struct rule *rule = &link->rule;
	uint64_t at = world->now, waits;

	if (rule->rate) {
		uint64_t takes = (uint64_t)(packet->len + IP_UDP) * 8 * SECOND / rule->rate;

		if (link->busy_until < world->now)
			link->busy_until = world->now;
		waits = link->busy_until - world->now;
		if (rule->queue && waits > (uint64_t)rule->queue * 8 * SECOND / rule->rate)
			return 0;
		link->busy_until += takes;
		at = link->busy_until;
	}
	at += rule->delay_ns;
	if (rule->jitter_ns)
		at += rng_next(&world->rng) % rule->jitter_ns;
	if (world_chance(world, rule->reorder))
		return at + rng_next(&world->rng) % (rule->delay_ns + MS);
	if (at < link->last_arrival)
		at = link->last_arrival;
	link->last_arrival = at;
	return at;
}

static void damage(struct world *world, struct link *link, struct packet *packet)
{
	const struct rule *rule = &link->rule;

	if (packet->len > 0 && world_chance(world, rule->corrupt)) {
		uint32_t n = 1 + rng_below(&world->rng, 4);
		/* Headers are what is interesting. */
		uint32_t within = rng_below(&world->rng, 2) && packet->len > 64 ? 64 : packet->len;

		for (; n > 0; n--)
			packet->data[rng_below(&world->rng, within)] ^=
				(uint8_t)(1u << rng_below(&world->rng, 8));
		packet->corrupted = true;
	}
	if (packet->len > 0 && world_chance(world, rule->truncate)) {
		packet->len = rng_below(&world->rng, packet->len);
		packet->corrupted = true;
	}
}

static void put_on_link(struct world *world, struct node *from, struct packet *packet)
{
	struct node *to = world_find(world, &packet->to);
	struct link *link;
	uint64_t at;

	if (!to) {
		packet_free(world, packet);
		return;
	}
	link = world_link(world, from, to);
	link->n_sent++;
	link->n_bytes += packet->len;
	if (!passes_mtu(world, from, link, packet)) {
		packet_free(world, packet);
		return;
	}
	if (packet->len > link->largest)
		link->largest = packet->len;
	at = arrival(world, link, packet);
	if (at == 0 || is_lost(world, link)) {
		link->n_lost++;
		link->n_overflowed += at == 0;
		say_packet(world, at ? "lost" : "overflow", from, packet);
		packet_free(world, packet);
		return;
	}
	if (world_chance(world, link->rule.duplicate)) {
		struct packet *copy = packet_copy(world, packet);

		push(world, (struct world_event){ .at = at + rng_next(&world->rng) %
								     (link->rule.delay_ns + MS),
						  .kind = EVENT_PACKET,
						  .packet = copy });
	}
	damage(world, link, packet);
	if (packet->corrupted && !link->rule.no_checksum) {
		say_packet(world, "bad checksum", from, packet);
		packet_free(world, packet);
		return;
	}
	push(world, (struct world_event){ .at = at, .kind = EVENT_PACKET, .packet = packet });
}

void world_send(struct node *node, const struct aph_rx_address *from,
		const struct aph_rx_address *to, const void *data, size_t len,
		enum fragments fragments)
{
	struct world *world = node->world;
	struct packet *packet = packet_new(world, len);

	packet->from = *from;
	packet->to = *to;
	packet->fragments = fragments;
	memcpy(packet->data, data, len);
	say_packet(world, "sends", node, packet);
	if (world->meddle && world->meddle(world->meddle_arg, packet) == DROP) {
		packet_free(world, packet);
		return;
	}
	put_on_link(world, node, packet);
}

void world_inject(struct world *world, const struct packet *packet, uint64_t delay_ns)
{
	struct packet *copy = packet_copy(world, packet);

	push(world, (struct world_event){
			    .at = world->now + delay_ns, .kind = EVENT_PACKET, .packet = copy });
}

/* -- running ----------------------------------------------------------------------------------- */

static void note_packet(struct world *world, const struct packet *packet)
{
	uint64_t word;
	uint32_t n = packet->len < 64 ? packet->len : 64;

	world_note(world, world->now);
	world_note(world, packet->len);
	for (uint32_t i = 0; i + 8 <= n; i += 8) {
		memcpy(&word, packet->data + i, 8);
		world_note(world, word);
	}
}

/*
 * This datagram and those behind it in the queue that arrive at the same node at the same moment.
 */
static void deliver(struct world *world, struct packet *first)
{
	struct packet *batch[BATCH_MAX];
	struct node *node = world_find(world, &first->to);
	size_t n = 0;

	batch[n++] = first;
	while (n < BATCH_MAX && world->n_heap > 0 && world->heap[0].at == world->now &&
	       world->heap[0].kind == EVENT_PACKET &&
	       address_equal(&world->heap[0].packet->to, &first->to))
		batch[n++] = pop(world).packet;
	for (size_t i = 0; i < n; i++) {
		note_packet(world, batch[i]);
		say_packet(world, "receives", node, batch[i]);
	}
	world->n_datagrams += n;
	if (node)
		node->deliver(node, batch, n);
	for (size_t i = 0; i < n; i++)
		packet_free(world, batch[i]);
}

static void fire_timer(struct world *world, struct node *node, uint64_t at)
{
	if (at != node->timer_queued)
		return; /* an earlier one was queued later, and fired */
	node->timer_queued = UINT64_MAX;
	if (node->timer_at <= world->now) {
		node->timer_at = UINT64_MAX;
		node->timer(node);
	} else if (node->timer_at != UINT64_MAX) {
		world_set_timer(node, node->timer_at);
	}
}

static void run_event(struct world *world, struct world_event *event)
{
	struct node *node;

	switch (event->kind) {
	case EVENT_PACKET:
		deliver(world, event->packet);
		break;
	case EVENT_TIMER:
		fire_timer(world, event->node, event->at);
		break;
	case EVENT_REFUSED:
		node = event->arg;
		node->refused(node, event->packet, EMSGSIZE, event->mtu & ~(1u << 31),
			      event->mtu >> 31);
		packet_free(world, event->packet);
		break;
	case EVENT_CALL:
		event->function(event->arg);
		break;
	}
}

void world_run(struct world *world, uint64_t until)
{
	while (world->n_heap > 0 && world->heap[0].at <= until) {
		struct world_event event = pop(world);

		if (event.at > world->now)
			world->now = event.at;
		run_event(world, &event);
	}
	if (until > world->now)
		world->now = until;
}
