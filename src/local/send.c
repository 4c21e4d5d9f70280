/* SPDX-License-Identifier: MIT */
/*
 * Sending: the pieces of a body, and the records that end a call. A first piece of up to forty
 * bytes rides in its record; all else lies in this side's arena until the peer has read it.
 *
 * A call that finds no room is put on the channel's `blocked` list. Before it gives up it sets
 * `want` and looks once more; whoever makes room looks at `want` after a full fence. So one of the
 * two sees the other.
 */
#include "base/copy.h"
#include "base/error.h"
#include "base/time.h"
#include "local/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIECES_PER_ARENA 8u    /* pieces of 32 KiB keep both cores busy in an arena of 256 KiB */
#define PIECE_LEAST	 8192u /* rather wait than send less of a long body */
/* This part of the arena is kept free of bodies that fill half of it. */
#define SPARE_PART	   8u
#define PATIENCE_NS	   50000u   /* how long send_all() waits for a client that may be reading */
#define PATIENCE_IN_ALL_NS 1000000u /* the same for all of a reply */
#define PATIENT_UP_TO	   (4u << 20)

/* -- publishing -------------------------------------------------------------------------------- */

/*
 * Whether the page that this client sees says nothing about who serves now. Argued in handover.c.
 */
static bool has_moved(const struct aph_local_channel *lc)
{
	return atomic_load_explicit(&lc->words->server.moved, memory_order_acquire);
}

/* The peer has something to look at: wakes it if it sleeps. The caller has made a full fence. */
static void notify(struct aph_local_channel *lc)
{
	if (lc->base.is_client) {
		const struct aph_endpoint_page *page = lc->page_map;
		uint32_t state = atomic_load(&page->state);

		/* One bell for each sleep is enough: see docs/spec/local-transport.md. */
		lc->rang = true;
		if ((state & APH_PAGE_ASLEEP) && state != lc->rung_state) {
			lc->rung_state = state;
			aph_local_ring(lc);
		} else if (!(state & APH_PAGE_ASLEEP) || has_moved(lc)) {
			lc->rang = !atomic_load(&lc->words->server.scanned);
			if (lc->rang)
				aph_local_ring(lc);
		}
	} else if (atomic_load(&lc->words->client.wait) &&
		   atomic_exchange(&lc->words->client.wait, 0)) {
		aph_local_ring(lc);
	}
}

/* Whether the other side makes the fence when it falls asleep. */
static bool leaves_fence(const struct aph_local_channel *lc)
{
	if (lc->base.is_client)
		return lc->pipelined;
	return lc->may_pipeline && lc->local->barriers &&
	       atomic_load_explicit(&lc->words->client.pipelined, memory_order_relaxed);
}

/* The peer hears of the record that was published just now. */
static inline void announce(struct aph_local_channel *lc)
{
	if (leaves_fence(lc))
		atomic_signal_fence(memory_order_seq_cst); /* who falls asleep makes ours, too */
	else
		aph_fence();
	notify(lc);
}

/*
 * Before the peer is told anything that it answers to: another thread, or somebody else's loop,
 * sleeps for this endpoint, and did not know of this channel when it lay down.
 */
static inline void note_sleeper(struct aph_local_channel *lc)
{
	if (lc->base.is_client && lc->base.ep->asleep && !lc->waits) {
		lc->waits = true;
		atomic_store_explicit(&lc->words->client.wait, 1, memory_order_relaxed);
	}
}

/* Publishes the next slot, which is filled in. */
static inline void publish_slot(struct aph_local_channel *lc)
{
	note_sleeper(lc);
	aph_ring_publish(&lc->out);
}

/*
 * Publishes the next record; the ring has room. `data` is copied into it unless it lies in the
 * arena.
 */
static void publish(struct aph_local_channel *lc, const struct aph_record *head, const void *data,
		    bool wake)
{
	struct aph_record *slot = aph_ring_slot(&lc->out);

	slot->type = head->type;
	slot->flags = head->flags;
	slot->n_fds = head->n_fds;
	slot->cpu = (uint8_t)aph_cpu();
	slot->tag = head->tag;
	slot->len = head->len;
	slot->aux = head->aux;
	if (head->flags & APH_RECORD_ARENA)
		slot->off = head->off;
	else if (data && head->len)
		memcpy(slot->data, data, head->len);
	publish_slot(lc);
	if (wake)
		announce(lc);
}

/* -- room -------------------------------------------------------------------------------------- */

static void block(struct aph_local_call *call)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);

	/* The only one that waits has just seen all that there is. */
	if (aph_list_empty(&lc->blocked))
		lc->out_arena.regained = false;
	if (aph_list_empty(&call->blocked_link))
		aph_list_append(&lc->blocked, &call->blocked_link);
}

static void unblock_one(struct aph_local_call *call)
{
	if (!aph_list_empty(&call->blocked_link))
		aph_list_remove(&call->blocked_link);
}

bool aph_local_found_room(struct aph_local_channel *lc)
{
	if (lc->fds_blocked || !aph_ring_has_room(&lc->out))
		return false;
	if (lc->fds_refused && aph_local_fds_under_way(lc) < lc->fds_refused)
		return true;
	/* What one call has collected, or did not use, is room for the others, too. */
	return lc->blocked_by_ring || lc->out_arena.regained ||
	       aph_arena_has_returns(&lc->out_arena);
}

void aph_local_trim_piece(struct aph_local_channel *lc, uint32_t off, uint32_t len)
{
	aph_arena_trim(&lc->out_arena, off, len);
	if (lc->out_arena.regained && !aph_list_empty(&lc->blocked))
		aph_endpoint_needs_look(lc->base.ep);
}

/* Asks the peer to tell when there is room. A full fence: look once more then. */
static void want_room(struct aph_local_channel *lc)
{
	note_sleeper(lc);
	(void)atomic_exchange(lc->my_want, 1);
}

/* Room for one record. After a refusal `want` is set. */
static bool get_ring_room(struct aph_local_channel *lc)
{
	if (aph_ring_has_room(&lc->out))
		return true;
	want_room(lc);
	if (aph_ring_has_room(&lc->out))
		return true;
	lc->blocked_by_ring = true;
	return false;
}

/*
 * A piece of the arena. Long bodies leave a part of it to the short ones of other calls, which
 * would otherwise wait for whoever does not read a long one. 0, -EAGAIN, -ENOMEM or -ENOTCONN.
 */
static int get_arena_room(struct aph_local_call *call, uint32_t *off, uint32_t *len)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);
	uint32_t least = *len < PIECE_LEAST ? *len : PIECE_LEAST;
	uint32_t spare = call->sent < lc->arena_size / 2 ? 0 : lc->arena_size / SPARE_PART;
	int r = aph_arena_alloc(&lc->out_arena, off, len, least, spare);

	if (r == APH_ARENA_FULL) {
		want_room(lc);
		r = aph_arena_alloc(&lc->out_arena, off, len, least, spare);
	}
	if (r == APH_ARENA_FULL)
		return -EAGAIN;
	if (r == APH_ARENA_BROKEN) {
		aph_local_doom(lc, APH_REASON_PROTOCOL);
		return aph_err(-ENOTCONN, "the other side broke the protocol");
	}
	return r < 0 ? aph_err(r, "no memory for a body") : 0;
}

uint32_t aph_local_fds_under_way(struct aph_local_channel *lc)
{
	while (lc->fds_head != lc->fds_tail &&
	       aph_ring_was_taken(&lc->out, lc->fds_sent[lc->fds_head % APH_FDS_SENT].record))
		lc->fds_under_way -= lc->fds_sent[lc->fds_head++ % APH_FDS_SENT].n;
	return lc->fds_under_way;
}

/* Whether `n` more descriptors may be under way, and room for the note that they are. */
static bool get_fd_room(struct aph_local_channel *lc, size_t n)
{
	int pass;

	for (pass = 0; pass < 2; pass++) {
		if (aph_local_fds_under_way(lc) + n <= APH_SOCKET_FDS_MAX &&
		    lc->fds_tail - lc->fds_head < APH_FDS_SENT)
			return true;
		want_room(lc);
	}
	if (lc->fds_refused < lc->fds_under_way)
		lc->fds_refused = lc->fds_under_way;
	return false;
}

/* There is room for them. */
static int send_fds(struct aph_local_channel *lc, const int *fds, size_t n)
{
	int r = aph_local_send_fds(lc, fds, n);

	if (r == -EAGAIN)
		aph_local_watch_room(lc, true);
	if (r < 0)
		return r;
	lc->fds_sent[lc->fds_tail % APH_FDS_SENT].record = lc->out.next + 1;
	lc->fds_sent[lc->fds_tail++ % APH_FDS_SENT].n = (uint32_t)n;
	lc->fds_under_way += (uint32_t)n;
	return 0;
}

/* -- sending ----------------------------------------------------------------------------------- */

static void begin_record(const struct aph_local_call *call, struct aph_record *head, size_t len,
			 bool more)
{
	bool client = call->base.is_client;

	memset(head, 0, offsetof(struct aph_record, data));
	head->type = call->begun ? APH_RECORD_BODY : client ? APH_RECORD_REQUEST : APH_RECORD_REPLY;
	head->flags = more ? APH_RECORD_MORE : 0;
	head->tag = call->tag;
	head->len = (uint32_t)len;
	if (head->type == APH_RECORD_REQUEST)
		head->aux = call->base.deadline_ns;
}

static void record_sent(struct aph_local_call *call)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);

	if (!call->begun && call->base.is_client)
		call->first_record = lc->out.next;
	call->begun = true;
}

/* The first pieces are small, so that the other side has something to read early. */
static uint32_t piece_max(const struct aph_local_call *call)
{
	size_t most = aph_local_channel_of(call)->arena_size / PIECES_PER_ARENA;
	size_t first = call->sent > PIECE_LEAST ? call->sent : PIECE_LEAST;

	return (uint32_t)(first < most ? first : most);
}

/*
 * Sends one piece, of at most `*len` bytes. 0 and how many, or a negative error with nothing done.
 */
static APH_APART int send_piece(struct aph_local_call *call, const void *data, size_t *len,
				const int *fds, size_t n_fds, bool more)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);
	uint32_t most = piece_max(call);
	uint32_t n = *len < most ? (uint32_t)*len : most;
	bool in_record = n == 0 || (!call->begun && n <= APH_INLINE_MAX);
	struct aph_record head;
	uint32_t off = 0;
	int r;

	if (!get_ring_room(lc) || (n_fds && !get_fd_room(lc, n_fds)))
		return -EAGAIN;
	if (!in_record) {
		r = get_arena_room(call, &off, &n);
		if (r < 0)
			return r;
	}
	if (n_fds) {
		r = send_fds(lc, fds, n_fds);
		if (r < 0) {
			if (!in_record)
				aph_local_trim_piece(lc, off, 0);
			return r;
		}
	}
	begin_record(call, &head, n, more || n < *len);
	head.n_fds = (uint8_t)n_fds;
	if (!in_record) {
		memcpy(lc->out_arena.base + off, data, n);
		head.flags |= APH_RECORD_ARENA;
		head.off = off;
	}
	publish(lc, &head, data, true);
	call->sent += n;
	record_sent(call);
	*len = n;
	return 0;
}

static bool is_usable(const struct aph_local_channel *lc)
{
	return lc->base.state == APH_CHANNEL_OPEN && !lc->doom;
}

static int check_channel(const struct aph_local_channel *lc)
{
	return is_usable(lc) ? 0 : aph_err(-ENOTCONN, "the channel has closed");
}

/*
 * What most calls are: a short body at once, written straight into its record. False: take the long
 * way.
 */
static inline bool send_short(struct aph_local_call *call, const void *data, size_t len, bool more)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);
	bool client = lc->base.is_client;
	struct aph_record *slot;

	if (call->begun || call->reserved || len > APH_INLINE_MAX || !is_usable(lc) ||
	    !aph_ring_has_room(&lc->out))
		return false;
	slot = aph_ring_slot(&lc->out);
	slot->type = client ? APH_RECORD_REQUEST : APH_RECORD_REPLY;
	slot->flags = more ? APH_RECORD_MORE : 0;
	slot->n_fds = 0;
	/* For a service it is enough where it was when it took the request. */
	slot->cpu = (uint8_t)(client ? aph_cpu() : lc->local->cpu);
	slot->tag = call->tag;
	slot->len = (uint32_t)len;
	slot->aux = client ? call->base.deadline_ns : 0;
	aph_copy_short(slot->data, data, len);
	publish_slot(lc);
	announce(lc);
	call->sent = len;
	call->first_record = lc->out.next;
	call->begun = true;
	unblock_one(call);
	return true;
}

static APH_APART ssize_t send_long(struct aph_local_call *call, const void *data, size_t len,
				   const int *fds, size_t n_fds, bool more)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);
	const uint8_t *bytes = data ? data : (const void *)"";
	size_t sent = 0;
	int r = check_channel(lc);

	if (r < 0)
		return r;
	if (call->reserved)
		return aph_err(-EBUSY, "commit the piece that is reserved first");
	if (!len && more && call->begun && !n_fds)
		return 0;
	do {
		size_t n = len - sent;

		r = send_piece(call, bytes + sent, &n, fds, n_fds, more);
		/* Whatever it was, who sent a part is told when to go on. */
		if (r == -EAGAIN || (r < 0 && sent))
			block(call);
		if (r == -ENOMEM && sent)
			lc->blocked_by_ring = true; /* room is not what it waits for */
		if (r < 0)
			return sent ? (ssize_t)sent : r;
		sent += n;
		n_fds = 0;
	} while (sent < len);
	unblock_one(call);
	return (ssize_t)sent;
}

ssize_t aph_local_send(struct aph_call *base, const void *data, size_t len, const int *fds,
		       size_t n_fds, bool more)
{
	struct aph_local_call *call = aph_local_call(base);

	if (!n_fds && send_short(call, data, len, more))
		return (ssize_t)len;
	return send_long(call, data, len, fds, n_fds, more);
}

int aph_local_reserve(struct aph_call *base, void **data, size_t *len)
{
	struct aph_local_call *call = aph_local_call(base);
	struct aph_local_channel *lc = aph_local_channel_of(call);
	uint32_t most = lc->arena_size / 2, n, off;
	int r = check_channel(lc);

	if (r < 0)
		return r;
	if (call->reserved)
		return aph_err(-EBUSY, "one piece is reserved already: commit it first");
	if (!*len)
		return aph_err(-EINVAL, "a reservation has at least one byte");
	n = *len < most ? (uint32_t)*len : most;
	r = get_arena_room(call, &off, &n);
	if (r == -EAGAIN)
		block(call);
	if (r < 0)
		return r;
	call->reserved = true;
	call->reserved_off = off;
	call->reserved_len = n;
	*data = lc->out_arena.base + off;
	*len = n;
	return 0;
}

int aph_local_commit(struct aph_call *base, size_t len, bool more)
{
	struct aph_local_call *call = aph_local_call(base);
	struct aph_local_channel *lc = aph_local_channel_of(call);
	struct aph_record head;
	int r = check_channel(lc);

	if (r < 0)
		return r;
	if (!call->reserved || len > call->reserved_len)
		return aph_err(-EINVAL, "nothing, or less than %zu bytes, is reserved", len);
	if (len || !more) {
		if (!get_ring_room(lc)) {
			block(call);
			return -EAGAIN;
		}
	}
	call->reserved = false;
	aph_local_trim_piece(lc, call->reserved_off, (uint32_t)len);
	if (!len && more)
		return 0;
	begin_record(call, &head, len, more);
	if (len) {
		head.flags |= APH_RECORD_ARENA;
		head.off = call->reserved_off;
	}
	publish(lc, &head, NULL, true);
	call->sent += len;
	record_sent(call);
	unblock_one(call);
	return 0;
}

/* -- whole replies ----------------------------------------------------------------------------- */

/*
 * Waits a moment for a client that is reading right now, at most for what is left of `patience_ns`.
 */
static bool wait_for_room(struct aph_local_channel *lc, uint64_t *patience_ns)
{
	uint64_t began, waited = 0;

	if (lc->peer_cpu == (uint8_t)aph_cpu() || atomic_load(&lc->words->client.wait))
		return false;
	began = aph_time_ns();
	while (!aph_ring_has_room(&lc->out) || !aph_arena_has_returns(&lc->out_arena)) {
		int i;

		for (i = 0; i < 16; i++)
			aph_pause();
		waited = aph_time_ns() - began;
		if (waited > PATIENCE_NS || waited > *patience_ns)
			return false;
	}
	*patience_ns -= waited;
	return true;
}

void aph_local_drop_kept(struct aph_local_call *call)
{
	if (!call->kept)
		return;
	aph_local_channel_of(call)->n_kept -= call->kept_len;
	free(call->kept);
	call->kept = NULL;
}

/* Goes on with what send_all() kept, which may be an empty last piece. */
static void pump(struct aph_local_call *call)
{
	do {
		size_t n = call->kept_len - call->kept_off;
		int r = send_piece(call, call->kept + call->kept_off, &n, NULL, 0, false);

		if (r == -EAGAIN)
			block(call);
		else if (r < 0)
			aph_local_doom(aph_local_channel_of(call), APH_REASON_RESOURCES);
		if (r < 0)
			return;
		call->kept_off += n;
	} while (call->kept_off < call->kept_len);
	aph_local_drop_kept(call);
	aph_call_flushed(&call->base);
}

/* Memory ran out in the middle of a reply: it cannot be taken back, and it will never be whole. */
static int give_up_reply(struct aph_local_call *call)
{
	aph_local_farewell(&call->base, APH_FAREWELL_LOSE, APH_REASON_RESOURCES);
	return aph_err(-ECANCELED, "no memory for the rest of a reply: the call is lost");
}

static APH_APART int send_all_long(struct aph_local_call *call, const void *data, size_t len)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);
	const uint8_t *bytes = data ? data : (const void *)"";
	uint64_t patience_ns = PATIENCE_IN_ALL_NS;
	size_t sent = 0, n;
	int r;

	if (!is_usable(lc))
		return 0; /* the channel's end, which follows, is this call's end */
	if (call->reserved)
		return aph_err(-EBUSY, "commit the piece that is reserved first");
	do {
		n = len - sent;
		r = send_piece(call, bytes + sent, &n, NULL, 0, false);
		if (r == 0)
			sent += n;
		else if (r != -EAGAIN || len > PATIENT_UP_TO || !wait_for_room(lc, &patience_ns))
			break;
	} while (sent < len || (r != 0 && len == 0));
	if (r == 0) {
		unblock_one(call);
		return 0;
	}
	if (r == -ENOTCONN)
		return 0;
	if (r != -EAGAIN)
		return sent ? give_up_reply(call) : r;
	/* An empty reply that found no room keeps 0 bytes: one more makes the pointer real. */
	call->kept = malloc(len - sent ? len - sent : 1);
	if (!call->kept && sent)
		return give_up_reply(call);
	if (!call->kept)
		return aph_err(-ENOMEM, "no memory to keep a reply of %zu bytes", len);
	if (len - sent)
		memcpy(call->kept, bytes + sent, len - sent);
	call->kept_len = len - sent;
	call->kept_off = 0;
	lc->n_kept += call->kept_len;
	block(call);
	return 1;
}

int aph_local_send_all(struct aph_call *base, const void *data, size_t len)
{
	struct aph_local_call *call = aph_local_call(base);

	return send_short(call, data, len, false) ? 0 : send_all_long(call, data, len);
}

/* -- ends -------------------------------------------------------------------------------------- */

bool aph_local_revoke(struct aph_call *base)
{
	struct aph_local_call *call = aph_local_call(base);

	/*
	 * On a channel that has ended too: a service that has not noticed yet may still be taking
	 * requests.
	 */
	return !call->begun ||
	       aph_ring_withdraw(&aph_local_channel_of(call)->out, call->first_record);
}

int aph_local_signal(struct aph_call *base, int32_t code)
{
	struct aph_local_call *call = aph_local_call(base);
	struct aph_local_channel *lc = aph_local_channel_of(call);
	struct aph_record head = {
		.type = APH_RECORD_SIGNAL,
		.tag = call->tag,
		.aux = (uint64_t)(int64_t)code,
	};
	int r = check_channel(lc);

	if (r < 0)
		return r;
	if (!get_ring_room(lc))
		return -EAGAIN;
	publish(lc, &head, NULL, true);
	return 0;
}

static uint8_t record_of(enum aph_farewell kind)
{
	static const uint8_t types[] = {
		[APH_FAREWELL_DISPOSE] = APH_RECORD_DISPOSE,
		[APH_FAREWELL_CANCEL] = APH_RECORD_CANCEL,
		[APH_FAREWELL_ABORT] = APH_RECORD_ABORT,
		[APH_FAREWELL_REFUSE] = APH_RECORD_REFUSE,
		[APH_FAREWELL_LOSE] = APH_RECORD_LOSE,
	};

	return types[kind];
}

static bool send_farewell(struct aph_local_call *call)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);
	struct aph_record head = {
		.type = call->farewell,
		.tag = call->tag,
		.aux = (uint64_t)(int64_t)call->farewell_value,
	};

	if (!get_ring_room(lc)) {
		block(call);
		return false;
	}
	publish(lc, &head, NULL, call->farewell != APH_RECORD_DISPOSE || lc->receipts_ring);
	call->farewell = 0;
	unblock_one(call);
	return true;
}

void aph_local_farewell(struct aph_call *base, enum aph_farewell kind, int32_t value)
{
	struct aph_local_call *call = aph_local_call(base);
	const struct aph_local_channel *lc = aph_local_channel_of(call);

	if (!is_usable(lc) || (kind == APH_FAREWELL_DISPOSE && !lc->base.receipts))
		return;
	aph_local_drop_kept(call);
	call->farewell = record_of(kind);
	call->farewell_value = value;
	base->lingering = !send_farewell(call);
}

void aph_local_unblock(struct aph_local_channel *lc)
{
	struct aph_list waiting, *pos;

	lc->blocked_by_ring = lc->out_arena.regained = false;
	lc->fds_refused = 0;
	/* Those that find no room again go to the end of the new list. */
	aph_list_init(&waiting);
	while (!aph_list_empty(&lc->blocked)) {
		pos = lc->blocked.next;
		aph_list_remove(pos);
		aph_list_append(&waiting, pos);
	}
	while (!aph_list_empty(&waiting) && !lc->doom) {
		struct aph_local_call *call =
			aph_container(waiting.next, struct aph_local_call, blocked_link);

		aph_list_remove(&call->blocked_link);
		if (call->farewell) {
			if (send_farewell(call)) {
				call->base.lingering = false;
				aph_call_settle(&call->base);
			}
		} else if (call->kept) {
			pump(call);
		} else {
			aph_call_writable(&call->base);
		}
	}
	while (!aph_list_empty(&waiting))
		aph_list_remove(waiting.next);
}

/* -- room for the peer ------------------------------------------------------------------------- */

void aph_local_tell_room(struct aph_local_channel *lc)
{
	if (lc->base.state == APH_CHANNEL_OPEN && atomic_exchange(lc->peer_want, 0))
		notify(lc);
}
