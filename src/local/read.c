/* SPDX-License-Identifier: MIT */
/*
 * Reading: what has arrived of a body and was not read yet. First the bytes that rode in the first
 * record, then pieces that lie in the peer's arena until they are used up.
 */
#include "base/close.h"
#include "base/copy.h"
#include "local/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A piece was used up. Tells a sender that waits for the room. */
static void release_piece(struct aph_local_channel *lc, uint16_t piece)
{
	aph_intake_release(&lc->intake, piece);
	aph_local_made_room(lc);
}

/* The bytes that come next, in one piece; 0 when none are here. */
static size_t front(const struct aph_local_call *call, const uint8_t **data)
{
	const struct aph_local_channel *lc = aph_local_channel_of(call);

	if (call->inline_off < call->inline_len) {
		*data = call->inline_data + call->inline_off;
		return (size_t)(call->inline_len - call->inline_off);
	}
	if (call->head == APH_PIECE_NONE || !call->available)
		return 0;
	*data = aph_intake_at(&lc->intake, call->head) + call->head_off;
	return lc->intake.pieces[call->head].len - call->head_off;
}

static void advance(struct aph_local_call *call, size_t n)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);
	uint16_t piece = call->head;

	call->available -= n;
	if (call->inline_off < call->inline_len) {
		call->inline_off = (uint8_t)(call->inline_off + n);
		return;
	}
	call->head_off += (uint32_t)n;
	if (call->head_off < lc->intake.pieces[piece].len)
		return;
	call->head = lc->intake.pieces[piece].next;
	call->head_off = 0;
	release_piece(lc, piece);
}

/* A look ahead that takes nothing: walks the pieces. Something is here. */
static APH_APART size_t peek(const struct aph_local_call *call, uint8_t *buf, size_t max)
{
	const struct aph_local_channel *lc = aph_local_channel_of(call);
	const uint8_t *data;
	size_t n = front(call, &data), done = n < max ? n : max;
	uint16_t piece = call->head;

	if (done)
		memcpy(buf, data, done);
	if (call->inline_off == call->inline_len)
		piece = lc->intake.pieces[piece].next; /* that was the first one */
	while (done < max && piece != APH_PIECE_NONE) {
		n = lc->intake.pieces[piece].len;
		n = n < max - done ? n : max - done;
		memcpy(buf + done, aph_intake_at(&lc->intake, piece), n);
		done += n;
		piece = lc->intake.pieces[piece].next;
	}
	return done;
}

static APH_APART ssize_t read_pieces(struct aph_local_call *call, void *buf, size_t max)
{
	size_t done = 0, n;
	const uint8_t *data;

	while (done < max && (n = front(call, &data))) {
		n = n < max - done ? n : max - done;
		memcpy((uint8_t *)buf + done, data, n);
		advance(call, n);
		done += n;
	}
	return (ssize_t)done;
}

ssize_t aph_local_read(struct aph_call *base, void *buf, size_t max, bool consume)
{
	struct aph_local_call *call = aph_local_call(base);
	size_t n = call->available;

	if (!n)
		return -EAGAIN;
	if (!consume)
		return (ssize_t)peek(call, buf, max);
	if (n > max || call->head != APH_PIECE_NONE)
		return read_pieces(call, buf, max);
	/* What most bodies are: all of it rode in the record. */
	aph_copy_short(buf, call->inline_data + call->inline_off, n);
	call->inline_off = call->inline_len;
	call->available = 0;
	return (ssize_t)n;
}

size_t aph_local_available(const struct aph_call *base)
{
	return aph_container(base, const struct aph_local_call, base)->available;
}

int aph_local_borrow(struct aph_call *base, const void **data, size_t *len)
{
	const uint8_t *bytes;
	size_t n = front(aph_local_call(base), &bytes);

	if (!n)
		return -EAGAIN;
	*data = bytes;
	*len = n;
	return 0;
}

void aph_local_release(struct aph_call *base, size_t len)
{
	struct aph_local_call *call = aph_local_call(base);
	const uint8_t *data;

	while (len) {
		size_t n = front(call, &data);

		n = n < len ? n : len;
		advance(call, n);
		len -= n;
	}
}

ssize_t aph_local_take_fds(struct aph_call *base, int *fds, size_t max)
{
	struct aph_local_call *call = aph_local_call(base);
	size_t left = (size_t)(call->n_fds - call->fds_off);
	size_t n = left < max ? left : max;

	if (n)
		memcpy(fds, call->fds + call->fds_off, n * sizeof(int));
	call->fds_off = (uint16_t)(call->fds_off + n);
	aph_local_channel_of(call)->n_call_fds -= (uint32_t)n;
	return (ssize_t)n;
}

APH_APART void aph_local_drop_rest(struct aph_local_call *call)
{
	struct aph_local_channel *lc = aph_local_channel_of(call);

	if (call->available)
		aph_local_release(&call->base, call->available);
	if (call->fds) {
		lc->n_call_fds -= (uint32_t)(call->n_fds - call->fds_off);
		aph_close_received(lc->base.peer.euid, call->fds + call->fds_off,
				   call->n_fds - call->fds_off);
		free(call->fds);
		call->fds = NULL;
	}
	aph_local_drop_kept(call);
	if (call->reserved && lc->out_arena.n_of)
		aph_local_trim_piece(lc, call->reserved_off, 0);
	call->reserved = false;
	aph_list_remove(&call->blocked_link);
}
