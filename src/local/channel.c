/* SPDX-License-Identifier: MIT */
/* A channel of the local transport: its memory, its calls' places, its end. */
#include "base/error.h"
#include "base/fd.h"
#include "local/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define DEEP_MIN 64u /* calls that were not alone */

/* -- life -------------------------------------------------------------------------------------- */

struct aph_local_channel *aph_local_channel_new(struct aph_local *local)
{
	struct aph_local_channel *lc = calloc(1, sizeof(*lc));

	if (!lc)
		return NULL;
	lc->local = local;
	lc->sock = lc->bell = lc->segment_fd = -1;
	lc->base.ops = &aph_local_channel_ops;
	aph_list_init(&lc->scan_link);
	aph_list_init(&lc->doomed_link);
	aph_list_init(&lc->pending_link);
	aph_list_init(&lc->leaving_link);
	aph_list_init(&lc->blocked);
	aph_list_init(&lc->base.link);
	return lc;
}

void aph_local_channel_attach(struct aph_local_channel *lc, uint32_t depth, uint32_t arena,
			      bool is_client)
{
	uint8_t *map = lc->map;
	struct aph_segment_words *words = lc->map;
	struct aph_record *requests = (void *)(map + aph_layout_ring(depth, 0));
	struct aph_record *replies = (void *)(map + aph_layout_ring(depth, 1));
	uint8_t *request_arena = map + aph_layout_arena(depth, arena, 0);
	uint8_t *reply_arena = map + aph_layout_arena(depth, arena, 1);

	lc->words = words;
	lc->depth = depth;
	lc->arena_size = arena;
	if (is_client) {
		aph_ring_init(&lc->out, requests, depth, &words->requests_taken);
		aph_ring_init(&lc->in, replies, depth, &words->replies_taken);
		aph_arena_init(&lc->out_arena, request_arena, arena, words->request_released);
		aph_intake_init(&lc->intake, reply_arena, arena, words->reply_released);
		lc->out.revoked = words->revoked;
		lc->my_want = &words->client.want;
		lc->peer_want = &words->server.want;
	} else {
		aph_ring_init(&lc->out, replies, depth, &words->replies_taken);
		aph_ring_init(&lc->in, requests, depth, &words->requests_taken);
		aph_arena_init(&lc->out_arena, reply_arena, arena, words->reply_released);
		aph_intake_init(&lc->intake, request_arena, arena, words->request_released);
		lc->in.revoked = words->revoked;
		lc->my_want = &words->server.want;
		lc->peer_want = &words->client.want;
	}
}

void aph_local_close_segment(struct aph_local_channel *lc)
{
	if (!(lc->base.service->flags & APH_SERVICE_GIVE))
		aph_fd_close(&lc->segment_fd);
}

static void close_descriptors(struct aph_local_channel *lc)
{
	aph_fd_close(&lc->sock);
	aph_fd_close(&lc->bell);
	aph_fd_close(&lc->segment_fd);
	aph_local_stash_free(lc);
}

static void unmap(struct aph_local_channel *lc)
{
	if (lc->map)
		(void)munmap(lc->map, lc->map_size);
	if (lc->page_map)
		(void)munmap((void *)(uintptr_t)lc->page_map, APH_PAGE);
	lc->map = NULL;
	lc->page_map = NULL;
}

static void free_memory(struct aph_local_channel *lc)
{
	aph_arena_deinit(&lc->out_arena);
	aph_intake_deinit(&lc->intake);
	free(lc->slots);
	lc->slots = NULL;
}

void aph_local_channel_detach(struct aph_local_channel *lc)
{
	aph_local_unwatch(lc);
	close_descriptors(lc);
	unmap(lc);
	free_memory(lc);
}

void aph_local_channel_discard(struct aph_local_channel *lc)
{
	aph_local_channel_detach(lc);
	free(lc->base.groups);
	free(lc->base.label);
	aph_bury(lc->local->base.ep, &lc->grave, lc);
}

static void free_channel(struct aph_channel *channel)
{
	struct aph_local_channel *lc = aph_local_channel(channel);

	aph_local_connecting_free(lc); /* in a forked child */
	unmap(lc);
	free_memory(lc);
	aph_bury(channel->ep, &lc->grave, lc);
}

/* -- which channels are looked at -------------------------------------------------------------- */

void aph_local_scan(struct aph_local_channel *lc)
{
	struct aph_local *local = lc->local;

	if (!aph_list_empty(&lc->scan_link) || lc->base.is_client ||
	    lc->base.state != APH_CHANNEL_OPEN)
		return;
	aph_list_append(&local->scan, &lc->scan_link);
	local->n_scan++;
	lc->last_ticks = 0;
	lc->burst = 0;
	atomic_store_explicit(&local->page->n_active, local->n_scan, memory_order_relaxed);
	/*
	 * Partner: the look in notify(). What was published before it saw this is found by the
	 * scan.
	 */
	(void)atomic_exchange(&lc->words->server.scanned, 1);
}

void aph_local_unscan(struct aph_local_channel *lc)
{
	struct aph_local *local = lc->local;

	if (aph_list_empty(&lc->scan_link))
		return;
	aph_list_remove(&lc->scan_link);
	if (lc->base.is_client) {
		local->n_active--;
		if (lc->waits && lc->words)
			atomic_store_explicit(&lc->words->client.wait, 0, memory_order_relaxed);
		lc->waits = false;
		return;
	}
	local->n_scan--;
	atomic_store_explicit(&local->page->n_active, local->n_scan, memory_order_relaxed);
}

void aph_local_doom(struct aph_local_channel *lc, enum aph_reason reason)
{
	if (lc->doom)
		return;
	lc->doom = reason;
	aph_list_append(&lc->local->doomed, &lc->doomed_link);
	aph_endpoint_needs_look(lc->local->base.ep);
}

static void disconnect(struct aph_channel *channel)
{
	struct aph_local_channel *lc = aph_local_channel(channel);

	aph_local_unscan(lc);
	aph_list_remove(&lc->doomed_link);
	aph_list_remove(&lc->leaving_link);
	if (lc->moved)
		lc->local->n_moved--;
	lc->moved = false;
	while (!aph_list_empty(&lc->blocked))
		aph_list_remove(lc->blocked.next);
	aph_local_connecting_free(lc);
	aph_local_unwatch(lc);
	close_descriptors(lc);
}

static void abandon(struct aph_channel *channel)
{
	struct aph_local_channel *lc = aph_local_channel(channel);
	struct aph_list *pos, *tmp;

	close_descriptors(lc);
	/* The mappings did not come along: whatever points into them must not be followed. */
	lc->map = NULL;
	lc->page_map = NULL;
	lc->words = NULL;
	aph_list_for_each(pos, tmp, &channel->calls) {
		struct aph_local_call *call =
			aph_local_call(aph_container(pos, struct aph_call, link));

		call->available = 0;
		call->reserved = false;
		call->has_slot = false;
	}
}

/* -- calls ------------------------------------------------------------------------------------- */

static APH_APART int grow_slots(struct aph_local_channel *lc)
{
	uint32_t n = lc->n_slots ? 2 * lc->n_slots : 8, i;
	struct aph_call_slot *slots;

	if (lc->n_slots >= lc->base.calls_max)
		return aph_err(-EAGAIN,
			       "%u calls of this channel are in progress: wait for one to end",
			       lc->base.calls_max);
	if (n > lc->base.calls_max)
		n = lc->base.calls_max;
	slots = reallocarray(lc->slots, n, sizeof(*slots));
	if (!slots)
		return aph_err(-ENOMEM, "no memory for another call");
	for (i = n; i > lc->n_slots; i--) {
		slots[i - 1] = (struct aph_call_slot){ .next_free = (uint16_t)lc->free_slot };
		lc->free_slot = i;
	}
	lc->slots = slots;
	lc->n_slots = n;
	return 0;
}

/*
 * Client: where calls are not alone, records are published without a fence from some of them on. It
 * takes some, as whoever falls asleep pays for it.
 */
static APH_APART void note_depth(struct aph_local_channel *lc)
{
	if (++lc->n_deep < DEEP_MIN)
		return;
	lc->n_deep = 0;
	lc->pipelined = true;
	/*
	 * Before the first record without a fence. Partner: is_pipelined() in transport.c, behind
	 * the exchanges there.
	 */
	(void)atomic_exchange(&lc->words->client.pipelined, 1);
}

static int call_init(struct aph_call *base)
{
	struct aph_local_call *call = aph_local_call(base);
	struct aph_local_channel *lc = aph_local_channel(base->channel);
	struct aph_call_slot *slot;
	uint32_t index;
	int r;

	aph_list_init(&call->blocked_link);
	call->tag = 0;
	call->has_slot = call->begun = call->reserved = false;
	call->farewell = 0;
	call->n_fds = call->fds_off = 0;
	call->head = APH_PIECE_NONE;
	call->inline_len = call->inline_off = 0;
	call->available = 0;
	call->fds = NULL;
	call->sent = 0;
	call->kept = NULL;
	/* Lines that this call needs, and the next ones, travel while it is set up. */
	aph_ring_prepare(&lc->out);
	if (!base->is_client)
		return 0; /* its client has chosen the place */
	aph_ring_expect(&lc->in);
	if (lc->n_in_use >= 2 && lc->may_pipeline && !lc->pipelined)
		note_depth(lc);
	if (!lc->free_slot) {
		r = grow_slots(lc);
		if (r < 0)
			return r;
	}
	index = lc->free_slot - 1;
	slot = &lc->slots[index];
	lc->free_slot = slot->next_free;
	slot->call = call;
	call->tag = APH_TAG(index, ++slot->generation);
	call->has_slot = true;
	if (lc->n_in_use++ == 0) {
		aph_list_append(&lc->local->active, &lc->scan_link);
		lc->local->n_active++;
	}
	return 0;
}

static void leave_slot(struct aph_local_call *call)
{
	struct aph_local_channel *lc = aph_local_channel(call->base.channel);

	if (call->has_slot)
		lc->slots[APH_TAG_INDEX(call->tag)].call = NULL;
	call->has_slot = false;
}

static void may_leave(struct aph_local_channel *lc)
{
	if (lc->local->n_giving)
		aph_local_may_leave(lc);
}

static void call_ended(struct aph_call *base)
{
	leave_slot(aph_local_call(base));
	may_leave(aph_local_channel(base->channel));
}

static void call_deinit(struct aph_call *base)
{
	struct aph_local_call *call = aph_local_call(base);
	struct aph_local_channel *lc = aph_local_channel(base->channel);
	bool had_slot = call->has_slot;

	aph_local_drop_body(call);
	leave_slot(call);
	if (!base->is_client) {
		may_leave(lc);
	} else if (had_slot) {
		lc->slots[APH_TAG_INDEX(call->tag)].next_free = (uint16_t)lc->free_slot;
		lc->free_slot = APH_TAG_INDEX(call->tag) + 1;
		if (--lc->n_in_use == 0)
			aph_local_unscan(lc);
	}
}

/* -- generation -------------------------------------------------------------------------------- */

static int64_t generation(const struct aph_channel *channel)
{
	const struct aph_local_channel *lc = aph_container(channel, struct aph_local_channel, base);

	return lc->words ? atomic_load_explicit(&lc->words->generation, memory_order_acquire) : 0;
}

static void set_generation(struct aph_channel *channel, int64_t value)
{
	struct aph_local_channel *lc = aph_local_channel(channel);

	if (lc->words)
		atomic_store_explicit(&lc->words->generation, value, memory_order_release);
}

const struct aph_channel_ops aph_local_channel_ops = {
	.call_size = sizeof(struct aph_local_call),
	.call_init = call_init,
	.call_ended = call_ended,
	.call_deinit = call_deinit,
	.send = aph_local_send,
	.send_all = aph_local_send_all,
	.reserve = aph_local_reserve,
	.commit = aph_local_commit,
	.read = aph_local_read,
	.available = aph_local_available,
	.borrow = aph_local_borrow,
	.release = aph_local_release,
	.take_fds = aph_local_take_fds,
	.revoke = aph_local_revoke,
	.signal = aph_local_signal,
	.farewell = aph_local_farewell,
	.disconnect = disconnect,
	.free = free_channel,
	.generation = generation,
	.set_generation = set_generation,
	.pidfd = aph_local_pidfd,
	.abandon = abandon,
};
