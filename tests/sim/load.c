/* SPDX-License-Identifier: MIT */
#include "load.h"

#include "load_call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN 65521u

/* -- bodies ------------------------------------------------------------------------------------ */

static const uint8_t *pattern(uint32_t id, uint64_t at)
{
	static uint8_t bytes[2 * PATTERN];
	static bool made;

	if (!made) {
		struct rng rng = { 42 };

		for (size_t i = 0; i < PATTERN; i++)
			bytes[i] = bytes[i + PATTERN] = (uint8_t)rng_next(&rng);
		made = true;
	}
	return bytes + (at + (uint64_t)id * 7919) % PATTERN;
}

void load_pattern(void *out, size_t len, uint32_t id, uint64_t at)
{
	uint8_t *to = out;

	while (len > 0) {
		size_t n = len < PATTERN ? len : PATTERN;

		memcpy(to, pattern(id, at), n);
		to += n;
		at += n;
		len -= n;
	}
}

bool load_pattern_is(const void *bytes, size_t len, uint32_t id, uint64_t at)
{
	const uint8_t *from = bytes;

	while (len > 0) {
		size_t n = len < PATTERN ? len : PATTERN;

		if (memcmp(from, pattern(id, at), n) != 0)
			return false;
		from += n;
		at += n;
		len -= n;
	}
	return true;
}

/* -- who is which call ------------------------------------------------------------------------- */

static struct load_call **slot(struct load_call **table, size_t room, uint32_t epoch, uint32_t cid,
			       uint32_t number)
{
	uint64_t hash = ((uint64_t)epoch << 32 | cid) * UINT64_C(0x9e3779b97f4a7c15);

	hash = (hash ^ hash >> 29 ^ number) * UINT64_C(0xbf58476d1ce4e5b9);
	for (size_t i = (size_t)(hash ^ hash >> 32) & (room - 1);; i = (i + 1) & (room - 1))
		if (!table[i] || (table[i]->epoch == epoch && table[i]->cid == cid &&
				  table[i]->number == number))
			return &table[i];
}

void load_name(struct load_call *call)
{
	struct load *load = call->load;
	struct aph_rx_call_info info;
	struct load_call **place;

	if (call->number || !call->handle)
		return;
	aph_rx_call_info(call->handle, &info);
	/* Until its first packet leaves the number may go to another one. */
	if (info.n_sent == 0)
		return;
	call->epoch = info.epoch;
	call->cid = info.cid;
	call->number = info.call_number;
	if (2 * (load->n_by_number + 1) > load->room_by_number) {
		size_t room = load->room_by_number ? 2 * load->room_by_number : 1024;
		struct load_call **table = calloc(room, sizeof(struct load_call *));

		CHECK(table);
		for (size_t i = 0; i < load->room_by_number; i++) {
			struct load_call *old = load->by_number[i];

			if (old)
				*slot(table, room, old->epoch, old->cid, old->number) = old;
		}
		free(load->by_number);
		load->by_number = table;
		load->room_by_number = room;
	}
	place = slot(load->by_number, load->room_by_number, call->epoch, call->cid, call->number);
	if (*place)
		world_fail(load->world, "%s: two calls have the numbers %08x %08x %u",
			   call->at->host->node.name, call->epoch, call->cid, call->number);
	*place = call;
	load->n_by_number++;
	if (call->prev)
		call->prev->next = call->next;
	else
		load->unnamed = call->next;
	if (call->next)
		call->next->prev = call->prev;
}

static struct load_call *find_call(struct load *load, const struct aph_rx_call_info *info)
{
	struct load_call *next;

	for (struct load_call *call = load->unnamed; call; call = next) {
		next = call->next;
		load_name(call);
	}
	if (load->room_by_number == 0)
		return NULL;
	return *slot(load->by_number, load->room_by_number, info->epoch, info->cid,
		     info->call_number);
}

/* -- a service's side -------------------------------------------------------------------------- */

static void work_end(struct load_work *work)
{
	struct load_host *at = work->at;

	aph_rx_call_free(work->handle);
	work->handle = NULL;
	if (work->prev)
		work->prev->next = work->next;
	else
		at->works = work->next;
	if (work->next)
		work->next->prev = work->prev;
	at->n_works--;
	/* A callback may still be under way: those who wait for it give it back. */
	work->gone = true;
	if (!work->waits) {
		work->next = at->load->free_works;
		at->load->free_works = work;
	}
}

static void work_later(void *arg);

static void work_wait(struct load_work *work, uint64_t ns)
{
	if (work->waits)
		return;
	work->waits = true;
	world_at(work->load->world, work->load->world->now + ns, work_later, work);
}

static bool is_due(uint64_t done, uint64_t of, uint32_t percent)
{
	return done * 100 >= of * percent;
}

/* True when it is over. */
static bool work_fate(struct load_work *work, bool replying)
{
	const struct load_call *call = work->call;

	if (!call || work->ended)
		return false;
	if (replying ? !is_due(work->body.written, call->reply_len, call->service_percent)
		     : call->service_fate_in_reply ||
			       !is_due(work->body.read, call->request_len, call->service_percent))
		return false;
	switch (call->service_fate) {
	case FATE_ABORT:
		if (!work->aborted) {
			int r = aph_rx_call_abort(work->handle, 1000 + (int32_t)call->id % 1000);

			/* It may have ended with its event still to come. */
			CHECK(r == 0 || r == -EALREADY);
			work->aborted = true;
		}
		return true;
	case FATE_FREE:
		work_end(work);
		return true;
	default:
		return false;
	}
}

static void work_go_on(struct load_work *work)
{
	struct load_call *call = work->call;
	struct load *load = work->load;
	int r;

	if (work->aborted || work_fate(work, false))
		return;
	if (!work->body.read_over) {
		r = load_read(load, work->handle, &work->body, call ? &call->id : NULL, 1,
			      call ? call->request_len : UINT64_MAX,
			      call && call->slow_service ? load_slow_pieces(load, call->request_len)
							 : 0);
		if (r == LOAD_PAUSED) {
			work_wait(work, rng_next(&load->world->rng) % (20 * MS));
			return;
		}
		if (work_fate(work, false) || r != LOAD_OVER)
			return;
		if (!work->ended && !work->aborted && call && call->service_delay_ns) {
			work_wait(work, call->service_delay_ns);
			return;
		}
	}
	if (work->ended || work->body.write_over)
		return;
	r = load_write(load, work->handle, &work->body, work->reply_id,
		       call ? call->reply_len : 10);
	if (work_fate(work, true))
		return;
	if (r == LOAD_PAUSED)
		work_wait(work, MS);
	/* The reply goes on by itself. */
	if (r == LOAD_OVER && call && call->service_lets_go) {
		call->let_go = true;
		work_end(work);
	}
}

static void work_later(void *arg)
{
	struct load_work *work = arg;
	struct host *host;

	work->waits = false;
	if (work->gone) {
		work->next = work->load->free_works;
		work->load->free_works = work;
		return;
	}
	host = work->at->host;
	work_go_on(work);
	host_pump(host);
}

/*
 * Of the reply that the server's present life gives: each gives another one, so that two of them
 * are not mixed unseen.
 */
static uint32_t reply_id(const struct load_call *call)
{
	return call->id + 1 + 104729 * call->executed_in;
}

static void work_begin(struct load_host *at, const struct aph_rx_event *event)
{
	struct load *load = at->load;
	struct world *world = load->world;
	struct load_work *work = load->free_works;
	struct aph_rx_call_info info;
	struct load_call *call;

	if (aph_rx_call_data(event->call))
		world_fail(world, "%s: CALL twice for one call", at->host->node.name);
	aph_rx_call_info(event->call, &info);
	call = find_call(load, &info);
	if (!call && !load->options.forged)
		world_fail(world, "%s: a call that nobody made: %08x %08x %u", at->host->node.name,
			   info.epoch, info.cid, info.call_number);
	if (load->options.forged)
		call = NULL;
	if (call) {
		if (call->executed_in == at->host->incarnation)
			world_fail(world, "%s executes a request twice: %08x %08x %u",
				   at->host->node.name, info.epoch, info.cid, info.call_number);
		CHECK(call->n_executed < LIVES_MAX);
		call->executed_in = at->host->incarnation;
		call->reply_ids[call->n_executed++] = reply_id(call);
		if (call->to != at)
			world_fail(world, "%s gets a call of another server", at->host->node.name);
		if (!call->is_upgrade && aph_rx_service_id(event->service) != call->service)
			world_fail(world, "%s: a call of service %u at service %u",
				   at->host->node.name, call->service,
				   aph_rx_service_id(event->service));
	}
	load->n_executed++;
	if (work)
		load->free_works = work->next;
	else
		work = malloc(sizeof(*work));
	CHECK(work);
	memset(work, 0, sizeof(*work));
	work->load = load;
	work->at = at;
	work->call = call;
	work->reply_id = call ? reply_id(call) : 1;
	work->handle = event->call;
	work->next = at->works;
	if (at->works)
		at->works->prev = work;
	at->works = work;
	at->n_works++;
	aph_rx_call_set_data(event->call, work);
	if (load->options.forged)
		aph_rx_call_set_timeouts(event->call, 0, 0, FORGED_HARD_MS);
	work_go_on(work);
}

static void work_ended(struct load_work *work, const struct aph_rx_event *event)
{
	struct load *load = work->load;
	const struct load_call *call = work->call;

	if (work->ended)
		world_fail(load->world, "%s: a call at a service ends twice",
			   work->at->host->node.name);
	work->ended = true;
	load->n_service_outcomes[event->end.outcome]++;
	if (event->end.outcome == APH_RX_DONE && !work->body.write_over)
		world_fail(load->world, "%s: DONE before the reply was written",
			   work->at->host->node.name);
	if (event->end.outcome == APH_RX_DONE && call && call->handle && !call->gave_up &&
	    !call->ended && !aph_rx_call_is_complete(call->handle))
		world_fail(load->world, "%s: DONE, but the client has not all of the reply",
			   work->at->host->node.name);
	if (work->aborted && event->end.outcome != APH_RX_ABORTED_HERE &&
	    event->end.outcome != APH_RX_ABORTED && event->end.outcome != APH_RX_TIMED_OUT)
		world_fail(load->world, "%s: aborted here, and ends as %d",
			   work->at->host->node.name, (int)event->end.outcome);
	work_end(work);
}

void load_on_event(struct host *host, const struct aph_rx_event *event)
{
	struct load_host *at = host->user;
	struct load *load = at->load;

	world_say(load->world, "%s event %d outcome %d code %d", host->node.name, event->type,
		  event->end.outcome, event->end.code);
	world_note(load->world, (uint64_t)event->type << 8 | event->end.outcome);
	if (event->type == APH_RX_EVENT_CALL) {
		work_begin(at, event);
		return;
	}
	if (!event->data)
		world_fail(load->world, "%s: an event of a call that was not given out",
			   host->node.name);
	if (event->service) {
		struct load_work *work = event->data;

		if (work->gone || work->handle != event->call || work->ended)
			world_fail(load->world, "%s: an event after the end, or of another call",
				   host->node.name);
		if (event->type == APH_RX_EVENT_END)
			work_ended(work, event);
		else if (!work->waits)
			work_go_on(work);
		return;
	}
	load_client_event(event->data, event);
}

/* -- hosts ------------------------------------------------------------------------------------- */

static void make_services(struct load_host *at)
{
	struct load *load = at->load;
	struct aph_rx_service_options options = { .size = sizeof(options) };
	uint16_t n = load->options.n_services ? load->options.n_services : 1;

	for (uint16_t i = 0; i < n; i++) {
		int r;

		options.credit = load->options.credit;
		options.upgrade_to = load->options.upgrades && i == 0 ? 2 : 0;
		do {
			r = aph_rx_service_add(&at->services[i], at->host->rx, (uint16_t)(i + 1),
					       &options);
		} while (r == -ENOMEM && at->host->alloc_fails);
		CHECK_OK(r);
	}
}

static void make_clients(struct load_host *at)
{
	struct load *load = at->load;
	struct aph_rx_client_options options = {
		.size = sizeof(options),
		.connections_max = load->options.connections_max,
	};
	uint16_t n = load->options.n_services ? load->options.n_services : 1;

	for (unsigned h = 0; h < load->n_hosts; h++) {
		struct aph_rx_path path;

		if (!load->hosts[h].is_server || &load->hosts[h] == at)
			continue;
		path = host_path(&load->hosts[h].host->node.address);
		for (uint16_t i = 0; i < n; i++) {
			int r;

			do {
				r = aph_rx_client_new(&at->clients[h][i], at->host->rx, &path,
						      (uint16_t)(i + 1), &options);
			} while (r == -ENOMEM && at->host->alloc_fails);
			CHECK_OK(r);
		}
	}
}

static void load_on_start(struct host *host)
{
	struct load_host *at = host->user;

	memset(at->clients, 0, sizeof(at->clients));
	memset(at->services, 0, sizeof(at->services));
	if (at->is_server)
		make_services(at);
	if (at->is_client)
		make_clients(at);
}

void load_init(struct load *load, struct world *world, const struct load_options *options)
{
	memset(load, 0, sizeof(*load));
	load->world = world;
	load->options = *options;
}

void load_add(struct load *load, struct host *host, bool is_client, bool is_server)
{
	struct load_host *at = &load->hosts[load->n_hosts++];

	CHECK(load->n_hosts <= LOAD_HOSTS_MAX);
	at->load = load;
	at->host = host;
	at->is_client = is_client;
	at->is_server = is_server;
	host->user = at;
	host->on_event = load_on_event;
	host->on_start = load_on_start;
}

static void renew_credit(void *arg)
{
	struct load *load = arg;

	for (unsigned h = 0; h < load->n_hosts; h++)
		for (unsigned i = 0; i < LOAD_SERVICES_MAX; i++)
			if (load->hosts[h].host->rx && load->hosts[h].services[i])
				aph_rx_service_set_credit(load->hosts[h].services[i],
							  load->options.credit
								  ? load->options.credit
								  : APH_RX_UNLIMITED);
	load->renews = !load->stopped || load->n_open > 0;
	if (load->renews)
		world_at(load->world, load->world->now + 50 * MS, renew_credit, load);
}

void load_begin(struct load *load, size_t calls_max)
{
	load->calls_max = load->n_calls + calls_max;
	load->stopped = false;
	if (!load->renews)
		renew_credit(load);
	while (load->n_open < load->options.at_once && load->n_calls < load->calls_max)
		if (!load_call_begin(load))
			break;
	load_call_keep_on(load);
}

void load_forget(struct load *load, struct host *host)
{
	struct load_host *at = host->user;

	while (at->works) {
		struct load_work *work = at->works;

		at->works = work->next;
		work->gone = true;
		work->handle = NULL;
		if (!work->waits) {
			work->next = load->free_works;
			load->free_works = work;
		}
	}
	at->n_works = 0;
	for (size_t i = 0; i < load->n_calls; i++)
		if (load->calls[i]->at == at && load->calls[i]->handle)
			load_call_forget(load->calls[i]);
}

static void print_open(const struct load *load)
{
	for (size_t i = 0; i < load->n_calls; i++) {
		const struct load_call *call = load->calls[i];

		if (call->handle)
			fprintf(stderr,
				"%s: call %08x %08x %u to %s: wrote %llu of %llu, read %llu of %llu%s%s\n",
				call->at->host->node.name, call->epoch, call->cid, call->number,
				call->to->host->node.name, (unsigned long long)call->body.written,
				(unsigned long long)call->request_len,
				(unsigned long long)call->body.read,
				(unsigned long long)call->reply_len, call->ended ? " ended" : "",
				call->waits ? " waits" : "");
	}
}

void load_drain(struct load *load, uint64_t limit_ns)
{
	uint64_t limit = load->world->now + limit_ns;

	while (load->n_open > 0 || (load->n_calls < load->calls_max && !load->stopped)) {
		if (load->world->now >= limit) {
			print_open(load);
			world_fail(load->world,
				   "%u calls have not ended, %zu of %zu were begun, the last end "
				   "was %.3f s ago",
				   load->n_open, load->n_calls, load->calls_max,
				   (double)(load->world->now - load->last_end) / 1e9);
		}
		world_run(load->world, load->world->now + 10 * MS);
	}
}

static void check_empty(struct load_host *at)
{
	struct aph_rx_stats stats;
	struct world *world = at->load->world;

	aph_rx_get_stats(at->host->rx, &stats);
	if (stats.n_calls != 0)
		world_fail(world, "%s has %llu calls left", at->host->node.name,
			   (unsigned long long)stats.n_calls);
	if (stats.memory != at->host->memory)
		world_fail(world, "%s holds %zu bytes and says %llu", at->host->node.name,
			   at->host->memory, (unsigned long long)stats.memory);
}

void load_close(struct load *load)
{
	struct world *world = load->world;
	uint64_t limit = world->now + 60 * SECOND;
	unsigned n_works;

	load->stopped = true;
	/* What services still do ends when they learn that the clients are gone. */
	do {
		world_run(world, world->now + 100 * MS);
		n_works = 0;
		for (unsigned h = 0; h < load->n_hosts; h++)
			n_works += load->hosts[h].n_works;
	} while (n_works > 0 && world->now < limit);
	if (n_works > 0)
		world_fail(world, "%u calls at services have not ended", n_works);
	for (unsigned h = 0; h < load->n_hosts; h++) {
		struct load_host *at = &load->hosts[h];

		if (!at->host->rx)
			continue;
		for (unsigned i = 0; i < LOAD_HOSTS_MAX; i++)
			for (unsigned s = 0; s < LOAD_SERVICES_MAX; s++)
				at->clients[i][s] = aph_rx_client_free(at->clients[i][s]);
		for (unsigned s = 0; s < LOAD_SERVICES_MAX; s++)
			if (at->services[s])
				at->services[s] = aph_rx_service_remove(at->services[s]);
		host_pump(at->host);
	}
	world_run(world, world->now + 3 * SECOND);
	for (unsigned h = 0; h < load->n_hosts; h++) {
		if (load->hosts[h].host->rx)
			check_empty(&load->hosts[h]);
		host_stop(load->hosts[h].host);
	}
}

void load_deinit(struct load *load)
{
	struct load_work *work;

	for (size_t i = 0; i < load->n_calls; i++)
		free(load->calls[i]);
	free(load->calls);
	free(load->by_number);
	while ((work = load->free_works)) {
		load->free_works = work->next;
		free(work);
	}
}
