/* SPDX-License-Identifier: MIT */
/*
 * Bytes in: packets wait where they arrived, in a ring that is reorder queue, acknowledgement table and the user's
 * input in one. A packet is freed when the user has read it to its end, and only then acknowledged for good.
 */
#include "rx/engine.h"

#include <errno.h>
#include <string.h>

#define PACKET_COST 128 /* what a packet is charged for beside its bytes */

static struct aph_rx_slot *slot_of(struct aph_rx_in *in, uint32_t seq)
{
	return &in->slots[seq & (in->n_slots - 1)];
}

void aph_rx_in_init(struct aph_rx_call *call)
{
	struct aph_rx_in *in = &call->in;

	in->slots = in->few_slots;
	in->n_slots = sizeof(in->few_slots) / sizeof(in->few_slots[0]);
	in->base = in->next = 1;
	in->window_end = 1;
	in->ack_ns = UINT64_MAX;
}

static void drop_slot(struct aph_rx_call *call, struct aph_rx_slot *slot)
{
	call->peer->memory -= slot->len + (size_t)PACKET_COST;
	aph_rx_buffer_unref(call->rx, slot->hold);
	slot->hold = NULL;
}

void aph_rx_in_deinit(struct aph_rx_call *call)
{
	struct aph_rx_in *in = &call->in;
	uint32_t i;

	for (i = 0; i < in->n_slots; i++) {
		if (in->slots[i].hold)
			drop_slot(call, &in->slots[i]);
	}
	if (in->slots != in->few_slots)
		aph_rx_release(call->rx, in->slots, in->n_slots * sizeof(*in->slots));
	in->slots = in->few_slots;
}

/* -- arriving ------------------------------------------------------------------------------------------------------ */

static bool grow_slots(struct aph_rx_call *call, uint32_t span)
{
	struct aph_rx_in *in = &call->in;
	uint32_t n = 64;
	struct aph_rx_slot *slots;
	uint32_t seq;

	while (n < span)
		n *= 2;
	slots = aph_rx_zalloc(call->rx, n * sizeof(*slots));
	if (!slots)
		return false;
	for (seq = in->base; seq != in->base + in->n_slots; seq++)
		slots[seq & (n - 1)] = *slot_of(in, seq);
	if (in->slots != in->few_slots)
		aph_rx_release(call->rx, in->slots, in->n_slots * sizeof(*slots));
	in->slots = slots;
	in->n_slots = n;
	if (!call->started_counted) {
		call->started_counted = true;
		call->rx->n_bulk++;
	}
	return true;
}

/* A packet of the window that the sender may know of, from this call or from earlier ones. */
static bool is_within_window(const struct aph_rx_call *call, uint32_t seq)
{
	const struct aph_rx_in *in = &call->in;
	uint32_t window = call->peer->extended ? call->rx->config.window : APH_RX_WINDOW_SMALL;
	int32_t offered = (int32_t)(in->window_end - in->base);

	if (window > call->rx->config.window)
		window = call->rx->config.window;
	if (offered > 0 && (uint32_t)offered > window)
		window = (uint32_t)offered;
	return seq - in->base < window;
}

static struct aph_rx_buffer *hold(struct aph_rx_call *call, const uint8_t **data, size_t len,
				  struct aph_rx_buffer *buffer)
{
	struct aph_rx_buffer *cell;

	if (buffer) {
		buffer->refs++;
		return buffer;
	}
	cell = aph_rx_cell_new(call->rx, len);
	if (!cell)
		return NULL;
	memcpy(cell->bytes, *data, len);
	*data = cell->bytes;
	return cell;
}

static void advance(struct aph_rx_in *in)
{
	uint32_t end = in->base + in->n_slots;

	while (in->next != end && slot_of(in, in->next)->hold) {
		in->available += slot_of(in, in->next)->len;
		in->next++;
	}
}

enum aph_rx_taken aph_rx_in_take(struct aph_rx_call *call, uint32_t seq, bool last,
				 const uint8_t *data, size_t len, struct aph_rx_buffer *buffer)
{
	struct aph_rx_in *in = &call->in;
	struct aph_rx_slot *slot;
	struct aph_rx_buffer *held;

	if (in->last ? seq > in->last || (last && seq != in->last) : last && seq < in->highest)
		return APH_RX_TAKEN_WRONG;
	if (seq < in->next)
		return APH_RX_TAKEN_DUPLICATE;
	if (!is_within_window(call, seq))
		return APH_RX_TAKEN_BEYOND_WINDOW;
	if (seq - in->base >= in->n_slots && !grow_slots(call, seq - in->base + 1))
		return APH_RX_TAKEN_NO_SPACE;
	slot = slot_of(in, seq);
	if (slot->hold)
		return APH_RX_TAKEN_DUPLICATE;
	if (call->peer->memory + len > call->rx->config.peer_memory_max)
		return APH_RX_TAKEN_NO_SPACE;
	held = hold(call, &data, len, buffer);
	if (!held)
		return APH_RX_TAKEN_NO_SPACE;
	call->peer->memory += len + PACKET_COST;
	*slot = (struct aph_rx_slot){ .data = data, .hold = held, .len = (uint16_t)len };
	if (last)
		in->last = seq;
	if (seq > in->highest)
		in->highest = seq;
	if (seq == in->next)
		advance(in);
	return APH_RX_TAKEN;
}

/* -- reading ----------------------------------------------------------------------------------------------------------- */

/* Frees the packets that were read to their end. */
static void consume(struct aph_rx_call *call)
{
	struct aph_rx_in *in = &call->in;
	uint32_t n = 0;

	while (in->base != in->next) {
		struct aph_rx_slot *slot = slot_of(in, in->base);

		if (in->offset < slot->len)
			break;
		drop_slot(call, slot);
		in->offset = 0;
		in->base++;
		n++;
	}
	if (!n)
		return;
	call->data_ns = call->rx->now_ns;
	/* The window has moved: packets that were held back may be counted on now. */
	advance(in);
	aph_rx_ack_consumed(call, n);
	if (aph_rx_in_is_consumed(in) && call->state == APH_RX_STATE_COMPLETE)
		aph_rx_call_end(call, APH_RX_DONE, 0);
}

/* What a read says when nothing is there. */
static int nothing(struct aph_rx_call *call)
{
	struct aph_rx_in *in = &call->in;

	if (aph_rx_in_is_complete(in))
		return 0;
	if (call->state == APH_RX_STATE_ENDED)
		return -ESHUTDOWN;
	in->want = true;
	return -EAGAIN;
}

ssize_t aph_rx_call_read(struct aph_rx_call *call, void *buf, size_t max, uint32_t flags)
{
	struct aph_rx_in *in = &call->in;
	uint32_t seq = in->base;
	uint32_t offset = in->offset;
	uint8_t *to = buf;
	size_t done = 0;

	if (!in->available) {
		int r = nothing(call);

		if (r == 0 && !(flags & APH_RX_PEEK))
			consume(call);
		return r;
	}
	while (seq != in->next && done < max) {
		struct aph_rx_slot *slot = slot_of(in, seq);
		size_t n = slot->len - (size_t)offset;

		if (n > max - done)
			n = max - done;
		if (n)
			memcpy(to + done, slot->data + offset, n);
		done += n;
		offset += (uint32_t)n;
		if (!(flags & APH_RX_PEEK)) {
			in->offset = offset;
			in->available -= n;
		}
		if (offset == slot->len) {
			seq++;
			offset = 0;
			if (!(flags & APH_RX_PEEK))
				consume(call);
		}
	}
	return (ssize_t)done;
}

int aph_rx_call_borrow(struct aph_rx_call *call, const void **data, size_t *len)
{
	struct aph_rx_in *in = &call->in;
	struct aph_rx_slot *slot;

	if (!in->available) {
		int r = nothing(call);

		*len = 0;
		if (r == 0)
			consume(call);
		return r;
	}
	consume(call); /* empty packets */
	slot = slot_of(in, in->base);
	*data = slot->data + in->offset;
	*len = slot->len - (size_t)in->offset;
	return 0;
}

void aph_rx_call_release(struct aph_rx_call *call, size_t len)
{
	struct aph_rx_in *in = &call->in;

	while (len && in->available) {
		size_t n = slot_of(in, in->base)->len - (size_t)in->offset;

		if (n > len)
			n = len;
		in->offset += (uint32_t)n;
		in->available -= n;
		len -= n;
		consume(call);
	}
}

size_t aph_rx_call_available(const struct aph_rx_call *call)
{
	return call->in.available;
}

bool aph_rx_call_is_complete(const struct aph_rx_call *call)
{
	return aph_rx_in_is_complete(&call->in);
}
