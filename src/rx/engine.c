/* SPDX-License-Identifier: MIT */
/*
 * The engine: its life, its services, its clock, and the events it hands out. What it does with
 * packets is in the files it calls.
 */
#include "base/apart.h"
#include "rx/call.h"

#include <errno.h>
#include <string.h>

#define JUMP_NS	  (5000 * APH_RX_MS)
#define AWAY_NS	  (100 * APH_RX_MS)
#define SETTLE_NS (2 * APH_RX_MS)

/* -- small things that all need ---------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	return x;
}

/*
 * Keyed: two random words enter it between the data, so that chains cannot be chosen from outside.
 */
uint32_t aph_rx_hash(const struct aph_rx *rx, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t h = rx->key[0];

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t word;

		memcpy(&word, p, 8);
		h = mix(h ^ word) + rx->key[1];
	}
	return (uint32_t)mix(h);
}

void aph_rx_trace_packet_now(struct aph_rx *rx, enum aph_rx_trace_type type,
			     const struct aph_rx_path *path, const uint8_t *packet, size_t len,
			     const char *why)
{
	struct aph_rx_trace trace = {
		.now_ns = rx->now_ns,
		.type = type,
		.path = path,
		.packet = packet,
		.len = len,
		.why = why,
	};

	if (len >= APH_RX_HEADER) {
		trace.epoch = aph_get32(packet);
		trace.cid = aph_get32(packet + 4);
		trace.call_number = aph_get32(packet + 8);
		trace.seq = aph_get32(packet + 12);
	}
	rx->config.trace(rx->config.trace_arg, &trace);
}

void aph_rx_trace_call_now(struct aph_rx_call *call, enum aph_rx_trace_type type, uint32_t seq,
			   const char *why)
{
	struct aph_rx *rx = call->rx;
	struct aph_rx_trace trace = {
		.now_ns = rx->now_ns,
		.type = type,
		.path = &call->peer->path,
		.epoch = call->epoch,
		.cid = call->cid,
		.call_number = call->number,
		.seq = seq,
		.why = why,
	};

	rx->config.trace(rx->config.trace_arg, &trace);
}

/* -- life -------------------------------------------------------------------------------------- */

static void set_default(uint32_t *value, uint32_t what)
{
	if (!*value)
		*value = what;
}

static void fill_config(struct aph_rx_config *config)
{
	set_default(&config->window, APH_RX_WINDOW_MAX);
	set_default(&config->peers_max, 65536);
	set_default(&config->connections_max, 1048576);
	set_default(&config->calls_max, 65536);
	set_default(&config->peer_memory_max, 64u << 20);
	set_default(&config->dead_ms, 12000);
	set_default(&config->idle_client_ms, 120000);
	set_default(&config->crowd_idle_ms, 2000);
	set_default(&config->idle_service_ms, 600000);
	set_default(&config->soft_ack_delay_ms, 100);
	set_default(&config->final_ack_delay_ms, 20);
	if (config->window > APH_RX_WINDOW_MAX)
		config->window = APH_RX_WINDOW_MAX;
	if (config->flags & APH_RX_NO_EXTENSION && config->window > APH_RX_WINDOW_SMALL)
		config->window = APH_RX_WINDOW_SMALL;
	if (config->mtu && config->mtu < APH_RX_MTU_FLOOR)
		config->mtu = APH_RX_MTU_FLOOR;
	if (config->mtu > APH_RX_MTU_MAX)
		config->mtu = APH_RX_MTU_MAX;
	config->version[sizeof(config->version) - 1] = '\0';
	if (!config->version[0])
		memcpy(config->version, "antiphon " APH_VERSION, sizeof("antiphon " APH_VERSION));
}

int aph_rx_new(struct aph_rx **out, const struct aph_rx_config *config, uint64_t now_ns)
{
	struct aph_rx *rx;

	if (!config || config->size != sizeof(*config) || !config->alloc || !config->free ||
	    !config->random)
		return -EINVAL;
	rx = config->alloc(config->alloc_arg, sizeof(*rx));
	if (!rx)
		return -ENOMEM;
	/* The staging area at the end need not be touched before it is used. */
	memset(rx, 0, offsetof(struct aph_rx, raw));
	rx->raw_first = rx->n_raw = 0;
	rx->n_drafts = rx->n_iovs = rx->staged = 0;
	rx->config = *config;
	fill_config(&rx->config);
	rx->stats.memory = sizeof(*rx);
	rx->now_ns = now_ns;
	rx->config.random(rx->config.random_arg, rx->key, sizeof(rx->key));
	rx->config.random(rx->config.random_arg, rx->proof_key, sizeof(rx->proof_key));
	rx->config.random(rx->config.random_arg, &rx->epoch, sizeof(rx->epoch));
	/* Bit 31: random, and so unique without an address; 999 and the like cannot come up. */
	rx->epoch = (rx->epoch | UINT32_C(0x80000000)) & ~UINT32_C(0x40000000);
	rx->life = (uint16_t)(rx->epoch % 65535 + 1);
	rx->config.random(rx->config.random_arg, rx->cid_key, sizeof(rx->cid_key));
	aph_list_init(&rx->clients);
	aph_list_init(&rx->orphans);
	aph_list_init(&rx->idle_peers);
	aph_list_init(&rx->idle_clients);
	aph_list_init(&rx->idle_spent);
	aph_list_init(&rx->idle_services);
	aph_list_init(&rx->receipts);
	aph_list_init(&rx->sending);
	aph_list_init(&rx->ready);
	aph_list_init(&rx->assigning);
	aph_list_init(&rx->fresh);
	aph_list_init(&rx->free_calls);
	*out = rx;
	return 0;
}

static void free_conns(struct aph_list *idle)
{
	while (!aph_list_empty(idle))
		aph_rx_conn_free(aph_container(idle->next, struct aph_rx_conn, idle_link));
}

struct aph_rx *aph_rx_free(struct aph_rx *rx)
{
	size_t i;

	if (!rx)
		return NULL;
	while (!aph_list_empty(&rx->clients))
		(void)aph_rx_client_free(
			aph_container(rx->clients.next, struct aph_rx_client, link));
	for (i = 0; i < sizeof(rx->services) / sizeof(rx->services[0]); i++) {
		while (rx->services[i])
			(void)aph_rx_service_remove(rx->services[i]);
	}
	aph_rx_call_free_all(rx);
	free_conns(&rx->idle_clients);
	free_conns(&rx->idle_spent);
	free_conns(&rx->idle_services);
	aph_rx_peer_free_all(rx);
	aph_rx_raw_forget(rx, true);
	aph_rx_table_deinit(rx, &rx->peers);
	aph_rx_table_deinit(rx, &rx->client_conns);
	aph_rx_table_deinit(rx, &rx->service_conns);
	aph_rx_delay_deinit(rx);
	aph_rx_memory_deinit(rx);
	rx->config.free(rx->config.alloc_arg, rx, sizeof(*rx));
	return NULL;
}

void aph_rx_set_receive_budget(struct aph_rx *rx, uint32_t packets)
{
	rx->config.receive_budget = packets;
}

uint32_t aph_rx_epoch(const struct aph_rx *rx)
{
	return rx->epoch;
}

void aph_rx_get_stats(const struct aph_rx *rx, struct aph_rx_stats *stats)
{
	*stats = rx->stats;
}

/* -- time -------------------------------------------------------------------------------------- */

static uint64_t receipts_due(const struct aph_rx *rx)
{
	if (aph_list_empty(&rx->receipts))
		return UINT64_MAX;
	return aph_container(rx->receipts.next, struct aph_rx_conn, receipt_link)->receipt_ns;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* When time alone brings something about. */
static uint64_t next_due(const struct aph_rx *rx)
{
	uint64_t due = aph_rx_timers_next(&rx->timers);

	due = earlier(due, receipts_due(rx));
	due = earlier(due, aph_rx_delay_next(&rx->delay));
	due = earlier(due, aph_rx_conn_expiry(rx));
	return earlier(due, aph_rx_peer_expiry(rx));
}

uint64_t aph_rx_deadline(const struct aph_rx *rx)
{
	if (!aph_list_empty(&rx->sending) || !aph_list_empty(&rx->assigning) || rx->n_raw ||
	    rx->n_receipts > APH_RX_RECEIPTS_MAX)
		return 0;
	return next_due(rx);
}

/*
 * Timers are left where they are when what they were for is done. Those that come before `until_ns`
 * are put right.
 */
static void settle_timers(struct aph_rx *rx, uint64_t until_ns)
{
	while (aph_rx_timers_next(&rx->timers) < until_ns) {
		struct aph_rx_call *call =
			aph_container(rx->timers.root, struct aph_rx_call, timer);
		uint64_t due = aph_rx_call_deadline(call);

		if (due <= call->timer.deadline_ns)
			return;
		aph_rx_timer_set(&rx->timers, &call->timer, due);
	}
}

/* So are the receipts that the next call of their channel has made needless. */
static void settle_receipts(struct aph_rx *rx, uint64_t until_ns)
{
	while (receipts_due(rx) < until_ns) {
		struct aph_rx_conn *conn =
			aph_container(rx->receipts.next, struct aph_rx_conn, receipt_link);

		if (aph_rx_conn_owes(conn))
			return;
		aph_rx_conn_quits(conn);
	}
}

/*
 * When we should have been woken long before, the clock has jumped or the machine slept: peers may
 * go on with what they did, and what must not be done twice must not be forgotten. What the user
 * has just begun woke nobody.
 */
static APH_APART void note_jump(struct aph_rx *rx, uint64_t now_ns, uint64_t late_ns)
{
	uint64_t due_ns;

	settle_timers(rx, now_ns);
	settle_receipts(rx, now_ns);
	due_ns = next_due(rx);
	if (due_ns < now_ns - AWAY_NS) {
		rx->away_ns = earlier(now_ns - due_ns, late_ns);
		rx->back_ns = now_ns;
	}
	if (late_ns > JUMP_NS && due_ns < now_ns - JUMP_NS)
		rx->late_ns += late_ns;
}

/*
 * The user may begin a call long after it last told the time. What was reckoned from then is put
 * right with the next time that we hear, which is that of the send that follows.
 */
static APH_APART void freshen(struct aph_rx *rx, uint64_t late_ns)
{
	while (!aph_list_empty(&rx->fresh)) {
		struct aph_rx_call *call =
			aph_container(rx->fresh.next, struct aph_rx_call, fresh_link);

		aph_list_remove(&call->fresh_link);
		aph_rx_call_freshen(call, late_ns);
	}
}

void aph_rx_set_now(struct aph_rx *rx, uint64_t now_ns)
{
	uint64_t late_ns = now_ns > rx->now_ns ? now_ns - rx->now_ns : 0;

	if (!aph_list_empty(&rx->fresh))
		freshen(rx, late_ns);
	if (late_ns > AWAY_NS)
		note_jump(rx, now_ns, late_ns);
	rx->now_ns += late_ns;
}

void aph_rx_tick(struct aph_rx *rx, uint64_t now_ns)
{
	struct aph_rx_timer *timer;

	aph_rx_set_now(rx, now_ns);
	aph_rx_delay_expire(rx);
	while ((timer = aph_rx_timers_pop(&rx->timers, rx->now_ns)))
		aph_rx_call_expired(aph_container(timer, struct aph_rx_call, timer));
	settle_timers(rx, rx->now_ns + SETTLE_NS);
	settle_receipts(rx, rx->now_ns + SETTLE_NS);
	aph_rx_conn_expire(rx);
	aph_rx_peer_expire(rx);
}

/* -- events ------------------------------------------------------------------------------------ */

bool aph_rx_has_event(const struct aph_rx *rx)
{
	return !aph_list_empty(&rx->ready);
}

bool aph_rx_next(struct aph_rx *rx, struct aph_rx_event *event)
{
	struct aph_rx_call *call;
	unsigned type;

	if (aph_list_empty(&rx->ready))
		return false;
	call = aph_container(rx->ready.next, struct aph_rx_call, event_link);
	/* They are numbered in the order in which one call's are handed out. */
	type = (unsigned)__builtin_ctz(call->events);
	call->events &= ~(1u << type);
	aph_list_remove(&call->event_link);
	if (call->events)
		aph_list_append(&rx->ready, &call->event_link);
	*event = (struct aph_rx_event){
		.type = (enum aph_rx_event_type)type,
		.call = call,
		.service = call->owner,
		.data = call->data,
		.end = call->end,
	};
	return true;
}

/* -- services ---------------------------------------------------------------------------------- */

static struct aph_rx_service **service_head(struct aph_rx *rx, uint16_t id)
{
	return &rx->services[id % (sizeof(rx->services) / sizeof(rx->services[0]))];
}

struct aph_rx_service *aph_rx_find_service(struct aph_rx *rx, uint16_t id)
{
	struct aph_rx_service *service = *service_head(rx, id);

	while (service && service->id != id)
		service = service->hash_next;
	return service;
}

int aph_rx_service_add(struct aph_rx_service **out, struct aph_rx *rx, uint16_t id,
		       const struct aph_rx_service_options *options)
{
	struct aph_rx_service *service;

	if (!id || (options && options->size != sizeof(*options)))
		return -EINVAL;
	if (aph_rx_find_service(rx, id))
		return -EADDRINUSE;
	service = aph_rx_zalloc(rx, sizeof(*service));
	if (!service)
		return -ENOMEM;
	service->rx = rx;
	service->id = id;
	service->credit = APH_RX_UNLIMITED;
	if (options) {
		service->upgrade_to = options->upgrade_to;
		service->data = options->data;
		if (options->credit)
			service->credit = options->credit;
	}
	aph_list_init(&service->calls);
	service->hash_next = *service_head(rx, id);
	*service_head(rx, id) = service;
	*out = service;
	return 0;
}

struct aph_rx_service *aph_rx_service_remove(struct aph_rx_service *service)
{
	struct aph_rx *rx;
	struct aph_rx_service **link;
	struct aph_list *pos, *tmp;

	if (!service)
		return NULL;
	rx = service->rx;
	for (link = service_head(rx, service->id); *link != service; link = &(*link)->hash_next)
		;
	*link = service->hash_next;
	/* Calls that the user still holds stay for it to free; they belong to nobody then. */
	aph_list_for_each(pos, tmp, &service->calls) {
		struct aph_rx_call *call = aph_container(pos, struct aph_rx_call, link);

		aph_list_remove(&call->link);
		aph_list_append(&rx->orphans, &call->link);
		call->owner = NULL;
		if (call->state != APH_RX_STATE_ENDED)
			aph_rx_call_abort_now(call, APH_RX_ABORTED_HERE, APH_RX_CALL_DEAD);
	}
	aph_rx_release(rx, service, sizeof(*service));
	return NULL;
}

void aph_rx_service_set_credit(struct aph_rx_service *service, uint32_t credit)
{
	service->credit = credit;
}

uint32_t aph_rx_service_credit(const struct aph_rx_service *service)
{
	return service->credit;
}

void *aph_rx_service_data(const struct aph_rx_service *service)
{
	return service->data;
}

uint16_t aph_rx_service_id(const struct aph_rx_service *service)
{
	return service->id;
}
