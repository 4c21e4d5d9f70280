/* SPDX-License-Identifier: MIT */
/*
 * Bodies out: what the user writes becomes packets at once, with room for the header before each,
 * so that sending and sending again touch no byte of the body. A body that fits into one small
 * packet stays inside the call.
 */
#include "base/apart.h"
#include "rx/call.h"

#include <errno.h>
#include <string.h>

#define LEARN_MIN 128 /* packets: what becomes of fewer says little about the path */

/* -- packets ----------------------------------------------------------------------------------- */

static uint16_t payload_max(const struct aph_rx_call *call)
{
	return aph_rx_layout_room(&call->out.layout, aph_rx_peer_payload(call->peer));
}

void aph_rx_out_init(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	struct aph_rx_peer *peer = call->peer;
	const struct aph_rx_class *class = call->conn ? call->conn->class : call->client->class;

	out->chunks = out->few_chunks;
	out->n_chunks = 2;
	out->base = out->next = out->end = 1;
	out->window_end = 1 + peer->rwind;
	out->timeout_ns = out->reorder_ns = out->pace_wait_ns = UINT64_MAX;
	if (class->layout)
		out->layout = class->layout(call->client, call->conn);
	out->payload_max = payload_max(call);
	aph_rx_congest_init(&out->congest, call->rx->config.congestion, peer->ssthresh);
}

static void free_chunks(struct aph_rx *rx, struct aph_rx_out *out)
{
	uint32_t i;

	if (out->inlined)
		return;
	for (i = 0; i < out->n_chunks; i++) {
		aph_rx_chunk_free(rx, out->chunks[i]);
		out->chunks[i] = NULL;
	}
	if (out->chunks != out->few_chunks)
		aph_rx_release(rx, out->chunks, out->n_chunks * sizeof(struct aph_rx_chunk *));
	out->chunks = out->few_chunks;
	out->n_chunks = 2;
}

void aph_rx_out_deinit(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;

	if (out->base > LEARN_MIN)
		call->peer->ssthresh = aph_rx_congest_learnt(&out->congest, call->peer->ssthresh);
	if (out->reserved) {
		struct aph_rx_chunk **place = aph_rx_chunk_place(out, out->end);

		out->lent = *place;
		*place = NULL;
	}
	free_chunks(call->rx, out);
	out->next = out->end = out->base;
	out->n_flying = out->n_lost = out->n_sacked = 0;
	out->timeout_ns = out->reorder_ns = out->pace_wait_ns = UINT64_MAX;
}

void aph_rx_out_settle(struct aph_rx_call *call)
{
	aph_rx_chunk_free(call->rx, call->out.lent);
	call->out.lent = NULL;
}

void aph_rx_out_trim(struct aph_rx_call *call, uint32_t old_base)
{
	struct aph_rx_out *out = &call->out;
	uint32_t first = (old_base - 1) / APH_RX_CHUNK_SLOTS;
	uint32_t end = (out->base - 1) / APH_RX_CHUNK_SLOTS;

	if (out->inlined)
		return;
	for (; first < end; first++) {
		struct aph_rx_chunk **place = &out->chunks[first & (out->n_chunks - 1)];

		aph_rx_chunk_free(call->rx, *place);
		*place = NULL;
	}
}

static bool grow_chunks(struct aph_rx *rx, struct aph_rx_out *out)
{
	uint32_t n = out->n_chunks * 4;
	struct aph_rx_chunk **chunks = aph_rx_zalloc(rx, n * sizeof(struct aph_rx_chunk *));
	uint32_t first = (out->base - 1) / APH_RX_CHUNK_SLOTS;
	uint32_t i;

	if (!chunks)
		return false;
	for (i = first; i < first + out->n_chunks; i++)
		chunks[i & (n - 1)] = out->chunks[i & (out->n_chunks - 1)];
	if (out->chunks != out->few_chunks)
		aph_rx_release(rx, out->chunks, out->n_chunks * sizeof(struct aph_rx_chunk *));
	out->chunks = chunks;
	out->n_chunks = n;
	return true;
}

/* Makes sure that there is memory for packet `end`, which is as large as the path takes now. */
static bool open_packet(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;
	struct aph_rx_chunk **place;

	if (!out->fill)
		out->payload_max = payload_max(call);
	if ((out->end - 1) / APH_RX_CHUNK_SLOTS - (out->base - 1) / APH_RX_CHUNK_SLOTS >=
	    out->n_chunks) {
		if (!grow_chunks(call->rx, out))
			return false;
	}
	place = aph_rx_chunk_place(out, out->end);
	if (!*place)
		*place = aph_rx_chunk_new(call->rx);
	return *place != NULL;
}

static void close_packet(struct aph_rx_call *call, bool last)
{
	struct aph_rx_out *out = &call->out;
	struct aph_rx_meta *meta = aph_rx_out_meta(out, out->end);

	*meta = (struct aph_rx_meta){
		.len = out->fill,
		.cksum = call->is_client ? 0 : call->rx->life,
		.last = last,
	};
	out->end++;
	out->fill = 0;
	out->finished = last;
	aph_rx_call_wants_to_send(call);
}

/* -- what the user may do now ------------------------------------------------------------------ */

bool aph_rx_out_has_room(const struct aph_rx_call *call)
{
	const struct aph_rx_out *out = &call->out;
	uint32_t send_max = call->rx->config.send_max;

	if (out->end - out->next >= APH_RX_UNSENT_MAX)
		return false;
	if (out->end - out->base >= APH_RX_WINDOW_MAX + APH_RX_UNSENT_MAX)
		return false;
	return !send_max || (uint64_t)(out->end - out->base) * APH_RX_PAYLOAD_MAX < send_max;
}

static int check(struct aph_rx_call *call)
{
	if (call->told || call->state == APH_RX_STATE_ENDED)
		return -ESHUTDOWN;
	if (call->out.finished)
		return -EPROTO;
	if (call->out.end >= APH_RX_SEQ_MAX)
		return -EFBIG;
	if (call->is_client)
		return call->state <= APH_RX_STATE_REQUEST ? 0 : -EPROTO;
	if (call->state >= APH_RX_STATE_WORK)
		return 0;
	call->out.early_write = true;
	return -EPROTO;
}

static void begin_reply(struct aph_rx_call *call)
{
	call->data_ns = call->rx->now_ns;
	if (call->is_client || call->state != APH_RX_STATE_WORK)
		return;
	call->state = APH_RX_STATE_REPLY;
	aph_rx_ack_drop(call);
}

/* Ends the body: on the last packet if that has not left yet, else with an empty one. */
static bool finish(struct aph_rx_call *call)
{
	struct aph_rx_out *out = &call->out;

	if (!out->fill && out->end > out->next && out->end > 1) {
		aph_rx_out_meta(out, out->end - 1)->last = true;
		out->finished = true;
		aph_rx_call_wants_to_send(call);
		return true;
	}
	if (!open_packet(call))
		return false;
	close_packet(call, true);
	return true;
}

static size_t fill(struct aph_rx_call *call, const uint8_t *data, size_t len)
{
	struct aph_rx_out *out = &call->out;
	size_t done = 0;

	while (done < len) {
		size_t n;

		/* Who is short of numbers hears so from the next write. */
		if (!out->fill && (!aph_rx_out_has_room(call) || out->end >= APH_RX_SEQ_MAX ||
				   !open_packet(call)))
			break;
		n = (size_t)(out->payload_max - out->fill);
		if (n > len - done)
			n = len - done;
		memcpy(aph_rx_out_packet(out, out->end) + APH_RX_HEADER + out->layout.header +
			       out->fill,
		       data + done, n);
		out->fill = (uint16_t)(out->fill + n);
		done += n;
		if (out->fill == out->payload_max)
			close_packet(call, false);
	}
	return done;
}

/*
 * Stock servers begin to work, and even to reply, once they have read what they need; a reply
 * before the end of the request is against the protocol. So who is known to be one gets full
 * packets, the last of which says that it is the last.
 */
static bool is_pushed(const struct aph_rx_call *call, uint32_t flags)
{
	return flags & APH_RX_PUSH && call->out.fill && !call->peer->stock;
}

/* A whole body that fits into the call. */
static ssize_t write_inline(struct aph_rx_call *call, const void *data, size_t len)
{
	struct aph_rx_out *out = &call->out;

	begin_reply(call);
	out->inlined = out->started = true;
	if (len)
		memcpy(out->inline_packet + APH_RX_HEADER + out->layout.header, data, len);
	out->fill = (uint16_t)len;
	close_packet(call, true);
	return (ssize_t)len;
}

static APH_APART ssize_t write_packets(struct aph_rx_call *call, const void *data, size_t len,
				       uint32_t flags)
{
	struct aph_rx_out *out = &call->out;
	size_t done;

	begin_reply(call);
	out->started = true;
	done = fill(call, data, len);
	if (done == len && !(flags & APH_RX_MORE) && finish(call))
		return (ssize_t)done;
	if (done == len && (flags & APH_RX_MORE)) {
		if (is_pushed(call, flags))
			close_packet(call, false);
		return (ssize_t)done;
	}
	/* Only the end of a body that ends with nothing new can be missing when all was taken. */
	if (done == len || (!done && aph_rx_out_has_room(call)))
		return -ENOMEM;
	out->short_write = true;
	return done ? (ssize_t)done : -EAGAIN;
}

ssize_t aph_rx_call_write(struct aph_rx_call *call, const void *data, size_t len, uint32_t flags)
{
	const struct aph_rx_out *out = &call->out;
	int r = check(call);

	if (r < 0)
		return r;
	if (!out->started && !(flags & APH_RX_MORE) && len <= APH_RX_INLINE_MAX &&
	    len <= out->payload_max && aph_rx_layout_size(&out->layout, len) <= APH_RX_INLINE_MAX)
		return write_inline(call, data, len);
	return write_packets(call, data, len, flags);
}

int aph_rx_call_reserve(struct aph_rx_call *call, void **data, size_t *len)
{
	struct aph_rx_out *out = &call->out;
	int r = check(call);

	if (r < 0)
		return r;
	if (!out->fill) {
		if (!aph_rx_out_has_room(call)) {
			out->short_write = true;
			return -EAGAIN;
		}
		if (!open_packet(call))
			return -ENOMEM;
	}
	out->started = out->reserved = true;
	*data = aph_rx_out_packet(out, out->end) + APH_RX_HEADER + out->layout.header + out->fill;
	*len = (size_t)(out->payload_max - out->fill);
	return 0;
}

int aph_rx_call_commit(struct aph_rx_call *call, size_t len, uint32_t flags)
{
	struct aph_rx_out *out = &call->out;
	int r = check(call);

	if (r < 0)
		return r;
	if (!out->started || len > (size_t)(out->payload_max - out->fill))
		return -EINVAL;
	out->reserved = false;
	begin_reply(call);
	out->fill = (uint16_t)(out->fill + len);
	if (!(flags & APH_RX_MORE)) {
		if (!finish(call))
			return -ENOMEM;
	} else if (out->fill == out->payload_max || is_pushed(call, flags)) {
		close_packet(call, false);
	}
	return 0;
}
