/* SPDX-License-Identifier: MIT */
/*
 * Receiving: records from the ring, checked one by one. A record that an honest peer would not have
 * written dooms the channel, and nothing of it is used.
 *
 * What may come for a call that is no more here is not an offence: the peer had not heard of its
 * end. It is dropped, with its memory given back and its descriptors closed.
 */
#include "base/close.h"
#include "local/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALL_FDS_HELD_MAX 256u

static APH_APART void offend(struct aph_local_channel *lc)
{
	aph_local_doom(lc, APH_REASON_PROTOCOL);
}

/* -- the table of calls ------------------------------------------------------------------------ */

static struct aph_local_call *find_call(const struct aph_local_channel *lc, uint32_t tag)
{
	uint32_t index = APH_TAG_INDEX(tag);
	struct aph_local_call *call = index < lc->n_slots ? lc->slots[index].call : NULL;

	return call && call->tag == tag ? call : NULL;
}

/* Service: room in the table for an index that the client chose. */
static APH_APART int grow_table(struct aph_local_channel *lc, uint32_t index)
{
	uint32_t n = lc->n_slots ? lc->n_slots : 8;
	struct aph_call_slot *slots;

	while (n <= index)
		n *= 2;
	slots = reallocarray(lc->slots, n, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	memset(slots + lc->n_slots, 0, (n - lc->n_slots) * sizeof(*slots));
	lc->slots = slots;
	lc->n_slots = n;
	return 0;
}

/* Service: the client chose the index; it must be in bounds and not in use. */
static int enter_call(struct aph_local_channel *lc, struct aph_local_call *call, uint32_t tag)
{
	uint32_t index = APH_TAG_INDEX(tag);

	if (index >= lc->n_slots && grow_table(lc, index) < 0)
		return -ENOMEM;
	lc->slots[index].call = call;
	call->tag = tag;
	call->has_slot = true;
	return 0;
}

/* -- what comes with a record ------------------------------------------------------------------ */

/* Memory and descriptors of a record that nobody wants. */
static APH_APART void discard(struct aph_local_channel *lc, const struct aph_record *record,
			      const int *fds)
{
	int piece;

	aph_close_received(lc->base.peer.euid, fds, record->n_fds);
	if (!(record->flags & APH_RECORD_ARENA))
		return;
	piece = aph_intake_add(&lc->intake, record->off, record->len);
	if (piece < 0) {
		aph_local_doom(lc, piece == -ENOMEM ? APH_REASON_RESOURCES : APH_REASON_PROTOCOL);
		return;
	}
	aph_intake_release(&lc->intake, (uint16_t)piece);
	aph_local_made_room(lc);
}

static APH_APART int add_fds(struct aph_local_channel *lc, struct aph_local_call *call,
			     const int *fds, size_t n)
{
	int *all;

	if (call->n_fds + n > CALL_FDS_HELD_MAX)
		return -EMFILE;
	all = reallocarray(call->fds, call->n_fds + n, sizeof(int));
	if (!all)
		return -ENOMEM;
	memcpy(all + call->n_fds, fds, n * sizeof(int));
	call->fds = all;
	call->n_fds = (uint16_t)(call->n_fds + n);
	lc->n_call_fds += (uint32_t)n;
	return 0;
}

/* Adds a piece that lies in the arena. -EPROTO, -ENOMEM. */
static APH_APART int add_arena(struct aph_local_channel *lc, struct aph_local_call *call,
			       const struct aph_record *record)
{
	int piece = aph_intake_add(&lc->intake, record->off, record->len);

	if (piece < 0)
		return piece;
	if (call->head == APH_PIECE_NONE) {
		call->head = (uint16_t)piece;
		call->head_off = 0;
	} else {
		lc->intake.pieces[call->tail].next = (uint16_t)piece;
	}
	call->tail = (uint16_t)piece;
	call->available += record->len;
	return 0;
}

/* Adds the record's bytes to the body. -EPROTO, -ENOMEM. */
static inline int add_bytes(struct aph_local_channel *lc, struct aph_local_call *call,
			    const struct aph_record *record, bool first)
{
	if (record->flags & APH_RECORD_ARENA)
		return add_arena(lc, call, record);
	if (!record->len)
		return 0;
	if (record->len > APH_INLINE_MAX || !first)
		return -EPROTO;
	/* All of it: a length that is known is copied in place. */
	memcpy(call->inline_data, record->data, sizeof(call->inline_data));
	call->inline_len = (uint8_t)record->len;
	call->available += record->len;
	return 0;
}

/* This side cannot hold what came: ends the one call it belongs to, on both sides. */
static void give_up_call(struct aph_local_call *call)
{
	struct aph_call *base = &call->base;
	bool fresh = base->pending.events & 1u << APH_EVENT_REQUEST;

	if (base->is_client) {
		aph_local_farewell(base, APH_FAREWELL_CANCEL, APH_REASON_RESOURCES);
		aph_call_end(base, APH_LOST, APH_REASON_RESOURCES, 0);
	} else if (fresh) {
		/* Nobody has seen it yet: the service never learns of it. */
		base->user_holds = false;
		aph_local_farewell(base, APH_FAREWELL_REFUSE, APH_REASON_RESOURCES);
		aph_call_end(base, APH_REFUSED, APH_REASON_RESOURCES, 0);
	} else {
		aph_local_farewell(base, APH_FAREWELL_LOSE, APH_REASON_RESOURCES);
		aph_call_end(base, APH_GONE, APH_REASON_RESOURCES, 0);
	}
}

/*
 * The record's descriptors become the call's. False: they did not come whole (`error`; the record
 * has none then), or there is no room for them. Then its bytes are not delivered either.
 */
static APH_APART bool keep_fds(struct aph_local_channel *lc, struct aph_local_call *call,
			       const struct aph_record *record, const int *fds, int error)
{
	if (error == 0 && add_fds(lc, call, fds, record->n_fds) == 0)
		return true;
	discard(lc, record, fds);
	give_up_call(call);
	return false;
}

/* A record cannot be added to its call: its fault, or ours. */
static APH_APART void reject_piece(struct aph_local_channel *lc, struct aph_local_call *call, int r)
{
	if (r == -EPROTO)
		offend(lc);
	else
		give_up_call(call);
}

/* Adds a record to a call's body and tells core. `fds_error`: as for keep_fds(). */
static inline void add_piece(struct aph_local_channel *lc, struct aph_local_call *call,
			     const struct aph_record *record, const int *fds, int fds_error,
			     bool first)
{
	int r;

	if ((fds_error || record->n_fds) && !keep_fds(lc, call, record, fds, fds_error))
		return;
	r = add_bytes(lc, call, record, first);
	if (r < 0)
		reject_piece(lc, call, r);
	else if (call->base.is_client || !first)
		aph_call_arrived(&call->base, !(record->flags & APH_RECORD_MORE));
	else
		call->base.in_last = !(record->flags & APH_RECORD_MORE);
}

/* -- records to a service ---------------------------------------------------------------------- */

static void take_request(struct aph_local_channel *lc, const struct aph_record *record,
			 const int *fds, int fds_error)
{
	struct aph_call *base;
	uint32_t index = APH_TAG_INDEX(record->tag);

	if (index >= lc->base.calls_max || (index < lc->n_slots && lc->slots[index].call)) {
		discard(lc, record, fds);
		offend(lc);
		return;
	}
	if (aph_ring_was_withdrawn(&lc->in)) {
		discard(lc, record, fds);
		return;
	}
	base = aph_call_incoming(&lc->base, record->aux);
	if (!base || enter_call(lc, aph_local_call(base), record->tag) < 0) {
		discard(lc, record, fds);
		aph_local_doom(lc, APH_REASON_RESOURCES);
		return;
	}
	add_piece(lc, aph_local_call(base), record, fds, fds_error, true);
}

static bool is_reason(uint64_t value)
{
	return value <= APH_REASON_RESOURCES;
}

static void take_at_service(struct aph_local_channel *lc, const struct aph_record *record,
			    const int *fds, int fds_error)
{
	struct aph_local_call *call;

	if (record->type == APH_RECORD_REQUEST) {
		take_request(lc, record, fds, fds_error);
		return;
	}
	call = find_call(lc, record->tag);
	if (!call || call->base.state == APH_CALL_ENDED) {
		discard(lc, record, fds);
		if (record->type != APH_RECORD_BODY && record->type != APH_RECORD_CANCEL &&
		    record->type != APH_RECORD_DISPOSE && record->type != APH_RECORD_SIGNAL)
			offend(lc);
		return;
	}
	if (record->n_fds && record->type != APH_RECORD_BODY) {
		discard(lc, record, fds);
		offend(lc);
		return;
	}
	switch (record->type) {
	case APH_RECORD_BODY:
		if (call->base.in_last) {
			discard(lc, record, fds);
			offend(lc);
		} else {
			add_piece(lc, call, record, fds, fds_error, false);
		}
		return;
	case APH_RECORD_CANCEL:
		if (is_reason(record->aux))
			aph_call_end(&call->base, APH_GONE, (enum aph_reason)record->aux, 0);
		else
			offend(lc);
		return;
	case APH_RECORD_SIGNAL:
		aph_call_signalled(&call->base, (int32_t)record->aux);
		return;
	case APH_RECORD_DISPOSE:
		if (call->base.state == APH_CALL_REPLIED && !call->kept)
			aph_call_end(&call->base, APH_DISPOSED, APH_REASON_NONE, 0);
		else
			offend(lc);
		return;
	default:
		discard(lc, record, fds);
		offend(lc);
	}
}

/* -- records to a client ----------------------------------------------------------------------- */

static APH_APART void take_end(struct aph_local_channel *lc, struct aph_local_call *call,
			       const struct aph_record *record)
{
	if (record->type == APH_RECORD_ABORT)
		aph_call_end(&call->base, APH_ABORTED, APH_REASON_NONE, (int32_t)record->aux);
	else if (!is_reason(record->aux))
		offend(lc);
	else if (record->type == APH_RECORD_REFUSE)
		aph_call_end(&call->base, APH_REFUSED, (enum aph_reason)record->aux, 0);
	else
		aph_call_end(&call->base, APH_LOST, (enum aph_reason)record->aux, 0);
}

static void take_at_client(struct aph_local_channel *lc, const struct aph_record *record,
			   const int *fds, int fds_error)
{
	struct aph_local_call *call = find_call(lc, record->tag);
	bool known;

	if (!call || call->base.state == APH_CALL_ENDED) {
		discard(lc, record, fds);
		if (record->type != APH_RECORD_BODY &&
		    (record->type < APH_RECORD_REPLY || record->type > APH_RECORD_LOSE))
			offend(lc);
		return;
	}
	known = (record->type == APH_RECORD_REPLY && call->base.state == APH_CALL_REQUEST) ||
		(record->type == APH_RECORD_BODY && call->base.state == APH_CALL_REPLY);
	if (known) {
		add_piece(lc, call, record, fds, fds_error, record->type == APH_RECORD_REPLY);
	} else if (record->type >= APH_RECORD_ABORT && record->type <= APH_RECORD_LOSE &&
		   call->base.state != APH_CALL_NEW && !record->n_fds) {
		take_end(lc, call, record);
	} else {
		discard(lc, record, fds);
		offend(lc);
	}
}

/* -- the ring ---------------------------------------------------------------------------------- */

static void take_whole(struct aph_local_channel *lc, const struct aph_record *record,
		       const int *fds, int fds_error)
{
	if (lc->base.is_client)
		take_at_client(lc, record, fds, fds_error);
	else
		take_at_service(lc, record, fds, fds_error);
}

/* A record with descriptors: apart, as others need no room for them. */
static APH_APART void take_with_fds(struct aph_local_channel *lc, struct aph_record *record)
{
	int fds[APH_CALL_FDS_MAX];
	int r;

	if (record->n_fds > APH_CALL_FDS_MAX) {
		offend(lc);
		return;
	}
	r = aph_local_recv_fds(lc, fds, record->n_fds);
	if (r == -EPROTO) {
		offend(lc);
		return;
	}
	if (r)
		record->n_fds = 0;
	take_whole(lc, record, fds, r);
}

static void take_record(struct aph_local_channel *lc, struct aph_record *record)
{
	lc->peer_cpu = record->cpu;
	if (record->n_fds)
		take_with_fds(lc, record);
	else
		take_whole(lc, record, NULL, 0);
}

int aph_local_take(struct aph_local_channel *lc, bool requests)
{
	struct aph_record record;

	if (!aph_ring_ready(&lc->in) || lc->doom || lc->base.state != APH_CHANNEL_OPEN)
		return 0;
	aph_ring_copy(&lc->in, &record);
	if (record.type == APH_RECORD_REQUEST && (!requests || lc->n_kept > APH_KEPT_MAX))
		return 0;
	aph_ring_take(&lc->in);
	take_record(lc, &record);
	aph_local_made_room(lc);
	return 1;
}

bool aph_local_take_replies(struct aph_local_channel *lc)
{
	struct aph_record record;
	uint32_t n = 0;

	while (n < lc->depth && aph_ring_ready(&lc->in) && !lc->doom &&
	       lc->base.state == APH_CHANNEL_OPEN) {
		aph_ring_copy(&lc->in, &record);
		aph_ring_pass(&lc->in);
		take_record(lc, &record);
		n++;
	}
	if (!n)
		return false;
	aph_ring_tell(&lc->in);
	aph_local_made_room(lc);
	return true;
}

/*
 * A request that nobody is there to have answered. Its descriptors must not be taken for those of a
 * record behind it.
 */
static void pass_request(struct aph_local_channel *lc, const struct aph_record *record)
{
	int fds[APH_CALL_FDS_MAX];

	lc->in.next++;
	if (!record->n_fds)
		return;
	if (record->n_fds > APH_CALL_FDS_MAX)
		offend(lc);
	else if (aph_local_recv_fds(lc, fds, record->n_fds) == 0)
		aph_close_received(lc->base.peer.euid, fds, record->n_fds);
}

void aph_local_hangup(struct aph_local_channel *lc)
{
	struct aph_record record;
	uint32_t i;

	aph_channel_ref(&lc->base);
	/* At most what fits into the ring: a peer that still writes is not gone. */
	for (i = 0; i < lc->depth && !lc->doom && aph_ring_ready(&lc->in); i++) {
		aph_ring_copy(&lc->in, &record);
		if (!lc->base.is_client && record.type == APH_RECORD_REQUEST)
			pass_request(lc, &record);
		else if (!aph_local_take(lc, false))
			break;
	}
	aph_channel_end(&lc->base, lc->doom ? lc->doom : APH_REASON_CLOSED);
	aph_channel_unref(&lc->base);
}
