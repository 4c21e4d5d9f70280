/* SPDX-License-Identifier: MIT */
/*
 * Bytes in: packets wait where they arrived, in a ring that is reorder queue, acknowledgement table
 * and the user's input in one. A packet is freed when the user has read it to its end, and only
 * then acknowledged for good.
 *
 * Memory is on the account of the peer that caused it, as it is: a receive buffer is held by a
 * single packet in it.
 */
#include "rx/call.h"

#include <errno.h>
#include <string.h>

#define N_FEW (sizeof(((struct aph_rx_in *)0)->few_slots) / sizeof(struct aph_rx_slot))

static struct aph_rx_slot *slot_of(struct aph_rx_in *in, uint32_t seq)
{
	return &in->slots[seq & (in->n_slots - 1)];
}

void aph_rx_in_init(struct aph_rx_call *call)
{
	struct aph_rx_in *in = &call->in;

	in->slots = in->few_slots;
	in->n_slots = N_FEW;
	in->base = in->next = 1;
	in->window_end = 1;
	in->ack_ns = UINT64_MAX;
}

/* -- whose memory it is ------------------------------------------------------------------------ */

uint64_t aph_rx_in_memory_left(const struct aph_rx_call *call)
{
	const struct aph_rx *rx = call->rx;
	uint64_t max = rx->config.peer_memory_max, all = max * APH_RX_PEERS_HELD;
	uint64_t left = max > call->peer->memory ? max - call->peer->memory : 0;
	uint64_t all_left = all > rx->held ? all - rx->held : 0;

	return left < all_left ? left : all_left;
}

static void charge(struct aph_rx_peer *peer, size_t size)
{
	peer->memory += size;
	peer->rx->held += size;
}

static void discharge(struct aph_rx_peer *peer, size_t size)
{
	peer->memory -= size;
	peer->rx->held -= size;
}

static void charge_packet(struct aph_rx_call *call, struct aph_rx_buffer *buffer)
{
	charge(call->peer, APH_RX_PACKET_COST);
	if (buffer->n_held++)
		return;
	buffer->payer = call->peer;
	charge(call->peer, buffer->size);
}

static void drop_slot(struct aph_rx_call *call, struct aph_rx_slot *slot)
{
	struct aph_rx_buffer *buffer = slot->hold;

	discharge(call->peer, APH_RX_PACKET_COST);
	if (--buffer->n_held == 0) {
		discharge(buffer->payer, buffer->size);
		buffer->payer = NULL;
	}
	aph_rx_buffer_unref(call->rx, buffer);
	slot->hold = NULL;
}

static void free_slots(struct aph_rx_call *call)
{
	struct aph_rx_in *in = &call->in;

	if (in->slots == in->few_slots)
		return;
	discharge(call->peer, in->n_slots * sizeof(*in->slots));
	aph_rx_release(call->rx, in->slots, in->n_slots * sizeof(*in->slots));
	in->slots = in->few_slots;
	in->n_slots = N_FEW;
}

void aph_rx_in_deinit(struct aph_rx_call *call)
{
	struct aph_rx_in *in = &call->in;
	uint32_t i;

	/* Mostly all has been read. */
	for (i = 0; i < in->n_slots && in->highest >= in->base; i++) {
		if (in->slots[i].hold)
			drop_slot(call, &in->slots[i]);
	}
	free_slots(call);
}

/* -- arriving ---------------------------------------------------------------------------------- */

static bool grow_slots(struct aph_rx_call *call, uint32_t span)
{
	struct aph_rx_in *in = &call->in;
	uint32_t n = 64;
	struct aph_rx_slot *slots;
	uint32_t seq;

	while (n < span)
		n *= 2;
	if (n * sizeof(*slots) > aph_rx_in_memory_left(call))
		return false;
	slots = aph_rx_zalloc(call->rx, n * sizeof(*slots));
	if (!slots)
		return false;
	charge(call->peer, n * sizeof(*slots));
	for (seq = in->base; seq != in->base + in->n_slots; seq++)
		slots[seq & (n - 1)] = *slot_of(in, seq);
	free_slots(call);
	in->slots = slots;
	in->n_slots = n;
	if (!call->is_bulk) {
		call->is_bulk = true;
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

/* Where the packet stays: in the buffer that it arrived in, or in a cell. NULL: nowhere. */
static struct aph_rx_buffer *hold(struct aph_rx_call *call, const uint8_t **data, size_t len,
				  struct aph_rx_buffer *buffer, bool needed)
{
	uint64_t left = aph_rx_in_memory_left(call);
	struct aph_rx_buffer *cell;

	if (buffer && (buffer->n_held ? buffer->payer == call->peer
				      : buffer->size + (uint64_t)APH_RX_PACKET_COST <= left)) {
		buffer->refs++;
		return buffer;
	}
	if (!needed && aph_rx_cell_size(len) + APH_RX_PACKET_COST > left)
		return NULL;
	cell = aph_rx_cell_new(call->rx, len);
	if (!cell)
		return NULL;
	memcpy(cell->bytes, *data, len);
	*data = cell->bytes;
	return cell;
}

/*
 * Packets that are here behind the last one that counted as such do so now, as far as the ring
 * goes.
 */
static void close_gap(struct aph_rx_in *in)
{
	uint32_t end = in->base + in->n_slots;

	while (in->next <= in->highest && in->next != end && slot_of(in, in->next)->hold) {
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
	if (seq > APH_RX_SEQ_MAX)
		return APH_RX_TAKEN_WRONG;
	if (seq < in->base)
		return APH_RX_TAKEN_DUPLICATE;
	if (!is_within_window(call, seq))
		return APH_RX_TAKEN_BEYOND_WINDOW;
	if (seq - in->base >= in->n_slots && !grow_slots(call, seq - in->base + 1))
		return APH_RX_TAKEN_NO_SPACE;
	slot = slot_of(in, seq);
	/*
	 * Nobody cuts packets anew: another one in this place is of a peer that has restarted and
	 * begun the call anew.
	 */
	if (slot->hold)
		return slot->len == len && (!len || memcmp(slot->data, data, len) == 0)
			       ? APH_RX_TAKEN_DUPLICATE
			       : APH_RX_TAKEN_WRONG;
	/*
	 * Nobody can go on without the packet that the user waits for: it must not be kept out by
	 * those behind it.
	 */
	held = hold(call, &data, len, buffer, seq == in->base);
	if (!held)
		return APH_RX_TAKEN_NO_SPACE;
	charge_packet(call, held);
	*slot = (struct aph_rx_slot){ .data = data, .hold = held, .len = (uint16_t)len };
	if (last)
		in->last = seq;
	if (seq > in->highest)
		in->highest = seq;
	if (seq == in->next) {
		in->available += len;
		in->next++;
		close_gap(in);
	}
	return APH_RX_TAKEN;
}

/* -- reading ----------------------------------------------------------------------------------- */

/* The first packet has been read to its end. */
static void drop_first(struct aph_rx_call *call, struct aph_rx_slot *slot)
{
	drop_slot(call, slot);
	call->in.offset = 0;
	call->in.base++;
}

/* So many packets have been read to their end. */
static void consumed(struct aph_rx_call *call, uint32_t n)
{
	struct aph_rx_in *in = &call->in;

	call->data_ns = call->rx->now_ns;
	/* The window has moved: packets that were held back may be counted on now. */
	close_gap(in);
	aph_rx_ack_consumed(call, n);
	if (aph_rx_in_is_consumed(in) && call->state == APH_RX_STATE_COMPLETE)
		aph_rx_call_end(call, APH_RX_DONE, 0);
}

/* Frees the packets that were read to their end; `n` are gone already. */
static void consume(struct aph_rx_call *call, uint32_t n)
{
	struct aph_rx_in *in = &call->in;

	while (in->base != in->next) {
		struct aph_rx_slot *slot = slot_of(in, in->base);

		if (in->offset < slot->len)
			break;
		drop_first(call, slot);
		n++;
	}
	if (n)
		consumed(call, n);
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
	uint32_t end = in->next, n_read = 0;
	bool peek = flags & APH_RX_PEEK;
	uint8_t *to = buf;
	size_t done = 0;

	if (!in->available) {
		int r = nothing(call);

		if (r != -ESHUTDOWN && !peek)
			consume(call, 0); /* empty packets */
		return r;
	}
	while (seq != end && done < max) {
		struct aph_rx_slot *slot = slot_of(in, seq);
		size_t n = slot->len - (size_t)offset;

		if (n > max - done)
			n = max - done;
		if (n)
			memcpy(to + done, slot->data + offset, n);
		done += n;
		offset += (uint32_t)n;
		if (offset < slot->len)
			break;
		seq++;
		offset = 0;
		if (peek)
			continue;
		drop_first(call, slot);
		n_read++;
	}
	if (peek)
		return (ssize_t)done;
	in->offset = offset;
	in->available -= done;
	if (n_read)
		consume(call, n_read);
	return (ssize_t)done;
}

int aph_rx_call_borrow(struct aph_rx_call *call, const void **data, size_t *len)
{
	struct aph_rx_in *in = &call->in;
	struct aph_rx_slot *slot;

	if (!in->available) {
		int r = nothing(call);

		*len = 0;
		if (r != -ESHUTDOWN)
			consume(call, 0);
		return r;
	}
	consume(call, 0); /* empty packets */
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
		consume(call, 0);
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
