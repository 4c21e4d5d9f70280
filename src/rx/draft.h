/* SPDX-License-Identifier: MIT */
/*
 * Messages that are put together for the driver. Small packets are gathered in the staging area,
 * where neighbours to the same peer and of the same size become one message; runs of full packets
 * leave from where they were written. Nothing is copied twice, and a message is at most what one
 * system call can take.
 */
#ifndef ANTIPHON_RX_DRAFT_H
#define ANTIPHON_RX_DRAFT_H

#include "rx/engine.h"

#define APH_RX_RUN_IOVECS (2 * APH_RX_RUN_MAX + 2)

/* Whether there is no room for one more message of any length. */
static inline bool aph_rx_drafts_full(const struct aph_rx *rx)
{
	return rx->n_drafts == rx->drafts_max || rx->n_iovs + APH_RX_RUN_IOVECS > APH_RX_N_IOVECS;
}

static inline struct aph_rx_draft *aph_rx_draft_new(struct aph_rx *rx, struct aph_rx_peer *peer)
{
	struct aph_rx_draft *draft = &rx->drafts[rx->n_drafts++];

	*draft = (struct aph_rx_draft){ .peer = peer, .first_iov = rx->n_iovs };
	return draft;
}

static inline void aph_rx_draft_add(struct aph_rx *rx, struct aph_rx_draft *draft, uint8_t *base,
				    size_t len)
{
	rx->iovs[rx->n_iovs++] = (struct iovec){ .iov_base = base, .iov_len = len };
	draft->n_iov++;
	draft->len += len;
}

/* What an address that is not proven has got counts against what came from it. */
static inline void aph_rx_draft_charge(struct aph_rx_peer *peer, size_t len)
{
	if (!peer->proven)
		peer->bytes_out += (uint32_t)len;
}

/* Whether there is room for one more message, and in the staging area for `len` bytes of it. */
static inline bool aph_rx_draft_has_room(const struct aph_rx *rx, size_t len)
{
	return !aph_rx_drafts_full(rx) && rx->staged + len <= sizeof(rx->staging);
}

/*
 * Where a packet of `len` bytes to `peer` goes in the staging area, which has room: as the next
 * segment of the last message if that fits, and not `alone`.
 */
uint8_t *aph_rx_draft_stage(struct aph_rx *rx, struct aph_rx_peer *peer, size_t len, bool alone);

/* Fills in `out` from `n` on, and returns how many messages there are then: all drafts. */
size_t aph_rx_drafts_hand_out(struct aph_rx *rx, struct aph_rx_message *out, size_t n);

/* The same for packets that are sent once, from the first message on. */
size_t aph_rx_raw_hand_out(struct aph_rx *rx, struct aph_rx_message *out, size_t max);

#endif
