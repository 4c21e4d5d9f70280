/* SPDX-License-Identifier: MIT */
#include "load.h"

#include "load_call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_MAX 65536

/* -- bodies ------------------------------------------------------------------------------------ */

static ssize_t write_piece(struct load *load, struct aph_rx_call *handle, uint32_t id, uint64_t at,
			   size_t n, uint32_t flags)
{
	static uint8_t piece[PIECE_MAX];
	void *place;
	size_t room;
	int r;

	/* Now and then in place. */
	if (n > 0 && rng_below(&load->world->rng, 4) == 0) {
		r = aph_rx_call_reserve(handle, &place, &room);
		if (r < 0)
			return r;
		if (room == 0)
			world_fail(load->world, "a reservation of 0 bytes");
		if (room < n) {
			n = room;
			flags |= APH_RX_MORE;
		}
		load_pattern(place, n, id, at);
		r = aph_rx_call_commit(handle, n, flags);
		return r < 0 ? r : (ssize_t)n;
	}
	load_pattern(piece, n, id, at);
	return aph_rx_call_write(handle, piece, n, flags);
}

int load_write(struct load *load, struct aph_rx_call *handle, struct load_body *body, uint32_t id,
	       uint64_t len)
{
	struct world *world = load->world;

	while (!body->write_over) {
		uint32_t chunk = load->options.chunk_max ? load->options.chunk_max : PIECE_MAX;
		size_t n = 1 + rng_below(&world->rng, chunk > PIECE_MAX ? PIECE_MAX : chunk);
		uint64_t left = len - body->written;
		uint32_t flags = APH_RX_MORE;
		ssize_t r;

		if (load->options.pushes && rng_below(&world->rng, MILLION) < load->options.pushes)
			flags |= APH_RX_PUSH;
		if (n >= left) {
			n = (size_t)left;
			/* The end may come with the last bytes or behind them. */
			if (n == 0 || rng_below(&world->rng, 8))
				flags = 0;
		}
		r = write_piece(load, handle, id, body->written, n, flags);
		if (r == -EAGAIN || (r == -ENOMEM && load->options.forged))
			return LOAD_BLOCKED;
		if (r == -ENOMEM)
			return LOAD_PAUSED;
		if (r == -ESHUTDOWN)
			return LOAD_BROKEN;
		if (r < 0 || (size_t)r > n)
			world_fail(world,
				   "a write of %zu bytes gives %zd (call %u, at %llu of %llu)", n,
				   r, id, (unsigned long long)body->written,
				   (unsigned long long)len);
		body->written += (uint64_t)r;
		load->n_bytes += (uint64_t)r;
		if ((size_t)r == n && flags == 0 && body->written == len)
			body->write_over = true;
		/*
		 * A piece made in place may be smaller than was asked for: that is no short write.
		 */
		else if (r == 0 && n > 0)
			world_fail(world, "a write gives 0");
	}
	return LOAD_OVER;
}

static ssize_t read_piece(struct load *load, struct aph_rx_call *handle, uint8_t *piece, size_t n,
			  const uint8_t **at)
{
	const void *place;
	size_t len, available = aph_rx_call_available(handle);
	ssize_t r, peeked = -1;
	int b;

	*at = piece;
	switch (rng_below(&load->world->rng, 8)) {
	case 0: /* where it lies */
		b = aph_rx_call_borrow(handle, &place, &len);
		if (b < 0)
			return b;
		*at = place;
		return (ssize_t)(len < n ? len : n);
	case 1:
		peeked = aph_rx_call_read(handle, piece, n, APH_RX_PEEK);
		break;
	default:
		break;
	}
	r = aph_rx_call_read(handle, piece, n, 0);
	if (peeked != -1 && peeked != r)
		world_fail(load->world, "a peek gives %zd, the read %zd", peeked, r);
	if (r > 0 && ((size_t)r > available || ((size_t)r < n && (size_t)r < available)))
		world_fail(load->world, "a read of %zu gives %zd with %zu available", n, r,
			   available);
	return r;
}

unsigned load_slow_pieces(const struct load *load, uint64_t len)
{
	uint32_t chunk = load->options.chunk_max ? load->options.chunk_max : PIECE_MAX;

	return 1 + (unsigned)(len / chunk / 100);
}

/* Which of the bodies it can be, after this piece. */
static void check_piece(struct load *load, struct load_body *body, const uint32_t *ids,
			unsigned n_ids, const void *piece, size_t n, uint64_t len)
{
	bool is_one = false;

	for (unsigned i = 0; i < n_ids; i++) {
		if (body->ruled_out >> i & 1)
			continue;
		if (load_pattern_is(piece, n, ids[i], body->read))
			is_one = true;
		else
			body->ruled_out |= UINT32_C(1) << i;
	}
	if (!is_one)
		world_fail(load->world, "wrong bytes at %llu of %llu, or of another life (call %u)",
			   (unsigned long long)body->read, (unsigned long long)len,
			   n_ids ? ids[0] : 0);
}

int load_read(struct load *load, struct aph_rx_call *handle, struct load_body *body,
	      const uint32_t *ids, unsigned n_ids, uint64_t len, unsigned pieces)
{
	static uint8_t piece[PIECE_MAX];
	struct world *world = load->world;
	unsigned n_pieces = 0;

	while (!body->read_over) {
		uint32_t chunk = load->options.chunk_max ? load->options.chunk_max : PIECE_MAX;
		size_t n = 1 + rng_below(&world->rng, chunk > PIECE_MAX ? PIECE_MAX : chunk);
		const uint8_t *at;
		ssize_t r;

		if (pieces && n_pieces++ == pieces)
			return LOAD_PAUSED;
		r = read_piece(load, handle, piece, n, &at);
		if (r == -EAGAIN)
			return LOAD_BLOCKED;
		if (r == -ESHUTDOWN || (r == -ENOMEM))
			return LOAD_BROKEN;
		if (r < 0)
			world_fail(world, "a read gives %zd", r);
		if (len != UINT64_MAX &&
		    (body->read + (uint64_t)r > len || (r == 0 && body->read != len)))
			world_fail(world, "a body of %llu bytes has %llu and %s (call %u)",
				   (unsigned long long)len,
				   (unsigned long long)(body->read + (uint64_t)r),
				   r ? "more" : "ends", n_ids ? ids[0] : 0);
		if (len != UINT64_MAX && r > 0)
			check_piece(load, body, ids, n_ids, at, (size_t)r, len);
		if (at != piece && r > 0)
			aph_rx_call_release(handle, (size_t)r);
		body->read += (uint64_t)r;
		if (r == 0)
			body->read_over = true;
	}
	return LOAD_OVER;
}

/* -- a client's side --------------------------------------------------------------------------- */

static void begin_more(void *arg)
{
	struct load *load = arg;

	load->stopped = load->stopped || load->n_calls >= load->calls_max;
	while (!load->stopped && load->n_calls < load->calls_max &&
	       load->n_open < load->options.at_once) {
		if (!load_call_begin(load)) {
			world_at(load->world, load->world->now + 5 * MS, begin_more, load);
			return;
		}
	}
	load_call_keep_on(load);
}

void load_call_keep_on(struct load *load)
{
	uint32_t pause = load->options.pause_max_us;
	uint64_t ns = 1000;

	if (load->stopped || load->n_calls >= load->calls_max)
		return;
	if (load->options.at_once > 0 && load->n_open >= load->options.at_once)
		return; /* the next one that ends comes here again */
	if (pause)
		ns += rng_below(&load->world->rng, pause) * US;
	world_at(load->world, load->world->now + ns, begin_more, load);
}

static void call_over(struct load_call *call)
{
	load_name(call);
	if (!call->number) {
		/* It never had any: nobody can ask for it. */
		if (call->prev)
			call->prev->next = call->next;
		else
			call->load->unnamed = call->next;
		if (call->next)
			call->next->prev = call->prev;
	}
	call->handle = NULL;
	call->load->n_open--;
	call->load->last_end = call->load->world->now;
	load_call_keep_on(call->load);
}

static void call_free(struct load_call *call)
{
	struct aph_rx_call *handle = call->handle;

	if (!call->ended)
		call->gave_up = true;
	call_over(call);
	aph_rx_call_free(handle);
}

void load_call_forget(struct load_call *call)
{
	call->load->n_lost_in_restarts++;
	call->gave_up = true;
	call_over(call);
}

static void call_go_on(struct load_call *call);

static void call_later(void *arg)
{
	struct load_call *call = arg;
	struct host *host = call->at->host;

	call->waits = false;
	if (!call->handle)
		return;
	call_go_on(call);
	host_pump(host);
}

static void call_wait(struct load_call *call, uint64_t ns)
{
	if (call->waits)
		return;
	call->waits = true;
	world_at(call->load->world, call->load->world->now + ns, call_later, call);
}

static void call_go_on(struct load_call *call)
{
	struct load *load = call->load;
	bool done = call->ended && call->end.outcome == APH_RX_DONE;
	int r;

	if (!call->ended && !call->body.write_over) {
		r = load_write(load, call->handle, &call->body, call->id, call->request_len);
		if (r == LOAD_PAUSED)
			call_wait(call, MS);
		load_name(call);
	}
	if (!call->ended || done) {
		r = load_read(load, call->handle, &call->body, call->reply_ids, call->n_executed,
			      load->options.forged ? UINT64_MAX : call->reply_len,
			      call->slow_reader ? load_slow_pieces(load, call->reply_len) : 0);
		if (r == LOAD_PAUSED) {
			call_wait(call, rng_next(&load->world->rng) % (20 * MS));
			return;
		}
		if (done && r != LOAD_OVER)
			world_fail(load->world, "%s: DONE, but the reply cannot be read (%d)",
				   call->at->host->node.name, r);
	}
	if (call->ended)
		call_free(call);
}

static void check_end(struct load_call *call)
{
	struct load *load = call->load;
	enum aph_rx_outcome outcome = call->end.outcome;
	const char *name = call->at->host->node.name;

	if (load->options.forged)
		return;
	if (outcome == APH_RX_DONE && call->n_executed == 0)
		world_fail(load->world, "%s: DONE, and the server does not know of it", name);
	if (outcome == APH_RX_DONE && call->aborted)
		world_fail(load->world, "%s: DONE after it was aborted here", name);
	if (outcome == APH_RX_DONE && !call->body.write_over)
		world_fail(load->world, "%s: DONE before the request was written", name);
	if (outcome == APH_RX_ABORTED && call->let_go && call->end.code == APH_RX_CALL_DEAD)
		load->n_dead_unheard++;
	if (outcome == APH_RX_ABORTED_HERE && !call->aborted && call->end.code == APH_RX_USER_ABORT)
		world_fail(load->world, "%s: aborted here, by nobody", name);
	if (call->client_fate == FATE_NONE && call->service_fate == FATE_NONE &&
	    !call->has_deadline && outcome != APH_RX_DONE)
		load->n_calm_failed++;
}

void load_client_event(struct load_call *call, const struct aph_rx_event *event)
{
	struct load *load = call->load;

	if (!call->handle || call->handle != event->call || call->ended)
		world_fail(load->world, "%s: an event after the end, or of another call",
			   call->at->host->node.name);
	load_name(call);
	if (event->type == APH_RX_EVENT_END) {
		call->ended = true;
		call->end = event->end;
		load->n_outcomes[event->end.outcome]++;
		check_end(call);
		if (call->waits)
			return; /* a slow reader goes on by itself */
	} else if (call->waits) {
		return;
	}
	call_go_on(call);
}

static void client_fate(void *arg)
{
	struct load_call *call = arg;
	struct host *host = call->at->host;
	int r;

	if (!call->handle)
		return;
	if (call->client_fate == FATE_FREE) {
		call_free(call);
	} else if (!call->ended) {
		r = aph_rx_call_abort(call->handle, 500);
		CHECK(r == 0 || r == -EALREADY);
		call->aborted = r == 0;
		call->gave_up = true;
	}
	host_pump(host);
}

/* -- beginning --------------------------------------------------------------------------------- */

static enum fate draw_fate(struct load *load, uint32_t aborts, uint32_t frees)
{
	if (world_chance(load->world, aborts))
		return FATE_ABORT;
	return world_chance(load->world, frees) ? FATE_FREE : FATE_NONE;
}

static void draw(struct load_call *call, struct aph_rx_call_options *options)
{
	struct load *load = call->load;
	const struct load_options *o = &load->options;
	struct world *world = load->world;

	call->request_len = world_skewed(world, (uint64_t)o->request_max + 1);
	call->reply_len = world_skewed(world, (uint64_t)o->reply_max + 1);
	call->slow_reader = world_chance(world, o->slow_reader);
	call->slow_service = world_chance(world, o->slow_service);
	call->client_fate = draw_fate(load, o->client_aborts, o->client_frees);
	call->service_fate = draw_fate(load, o->service_aborts, o->service_frees);
	call->service_percent = rng_below(&world->rng, 101);
	call->service_fate_in_reply = rng_below(&world->rng, 2);
	call->service_lets_go = rng_below(&world->rng, 2);
	if (call->slow_service)
		call->service_delay_ns = rng_next(&world->rng) % (3 * SECOND);
	if (world_chance(world, o->exclusive))
		options->flags |= APH_RX_CALL_EXCLUSIVE;
	if (world_chance(world, o->upgrade)) {
		options->flags |= APH_RX_CALL_UPGRADE;
		call->is_upgrade = true;
	}
	if (world_chance(world, o->no_wait))
		options->flags |= APH_RX_CALL_NO_WAIT;
	if (o->forged)
		options->hard_ms = FORGED_HARD_MS;
	if (world_chance(world, o->deadlines)) {
		call->has_deadline = true;
		options->hard_ms = 1 + rng_below(&world->rng, 5000);
		options->idle_ms = rng_below(&world->rng, 2) ? 500 : 0;
		options->dead_ms = rng_below(&world->rng, 2) ? 2000 : 0;
	}
}

static struct load_host *draw_host(struct load *load, bool client, const struct load_host *other)
{
	unsigned start = rng_below(&load->world->rng, load->n_hosts);

	for (unsigned i = 0; i < load->n_hosts; i++) {
		struct load_host *at = &load->hosts[(start + i) % load->n_hosts];

		if (at != other && (client ? at->is_client && at->host->rx : at->is_server))
			return at;
	}
	return NULL;
}

static void remember(struct load *load, struct load_call *call)
{
	if (load->n_calls == load->room_calls) {
		load->room_calls = load->room_calls ? 2 * load->room_calls : 256;
		load->calls = realloc(load->calls, load->room_calls * sizeof(struct load_call *));
		CHECK(load->calls);
	}
	load->calls[load->n_calls++] = call;
	call->next = load->unnamed;
	if (load->unnamed)
		load->unnamed->prev = call;
	load->unnamed = call;
	load->n_open++;
}

bool load_call_begin(struct load *load)
{
	struct aph_rx_call_options options = { .size = sizeof(options) };
	struct load_host *at = draw_host(load, true, NULL);
	struct load_host *to = at ? draw_host(load, false, at) : NULL;
	uint16_t n_services = load->options.n_services ? load->options.n_services : 1;
	uint32_t service = rng_below(&load->world->rng, n_services);
	struct load_call *call;
	int r;

	if (!to)
		return false;
	call = calloc(1, sizeof(*call));
	CHECK(call);
	call->load = load;
	call->id = (uint32_t)load->n_calls * 2;
	call->at = at;
	call->to = to;
	call->service = (uint16_t)(service + 1);
	draw(call, &options);
	options.data = call;
	r = aph_rx_call_new(&call->handle, at->clients[to - load->hosts][service], &options);
	if (r == -EAGAIN || r == -ENOMEM) {
		if (!(r == -EAGAIN ? options.flags & APH_RX_CALL_NO_WAIT : at->host->alloc_fails))
			world_fail(load->world, "%s: aph_rx_call_new() gives %d",
				   at->host->node.name, r);
		free(call);
		return false;
	}
	CHECK_OK(r);
	/* The upgrade of one call is the connection's; later calls of the client go with it. */
	if (load->options.upgrades)
		call->is_upgrade = true;
	remember(load, call);
	if (call->client_fate != FATE_NONE) {
		uint64_t when = world_skewed(load->world, 2000) * MS / 4;

		world_at(load->world, load->world->now + when, client_fate, call);
	}
	call_go_on(call);
	host_pump(at->host);
	return true;
}
