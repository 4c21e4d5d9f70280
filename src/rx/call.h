/* SPDX-License-Identifier: MIT */
/* What the files that work on one call offer: its life, its bodies, its acknowledgements. */
#ifndef ANTIPHON_RX_CALL_H
#define ANTIPHON_RX_CALL_H

#include "rx/engine.h"

/* -- call.c */
struct aph_rx_call *aph_rx_call_incoming(struct aph_rx_conn *conn, struct aph_rx_service *service,
					 unsigned channel, uint32_t number);
void aph_rx_call_end(struct aph_rx_call *call, enum aph_rx_outcome outcome, int32_t code);
/* Tells the peer, then ends it. */
void aph_rx_call_abort_now(struct aph_rx_call *call, enum aph_rx_outcome outcome, int32_t code);
/* One of the two ends has begun the call anew, and cannot go on from where the other one is. */
void aph_rx_call_reset(struct aph_rx_call *call);
void aph_rx_call_post(struct aph_rx_call *call, enum aph_rx_event_type type);
/* Something is to be sent for the call: it is looked at by aph_rx_send(). */
void aph_rx_call_wants_to_send(struct aph_rx_call *call);
/* It has a deadline that may be earlier than those it had. */
static inline void aph_rx_call_arm(struct aph_rx_call *call, uint64_t due_ns)
{
	if (due_ns < call->timer.deadline_ns && call->state != APH_RX_STATE_ENDED)
		aph_rx_timer_set(&call->rx->timers, &call->timer, due_ns);
}
/* When it is to be looked at; UINT64_MAX: never. */
uint64_t aph_rx_call_deadline(const struct aph_rx_call *call);
void aph_rx_call_expired(struct aph_rx_call *call);
void aph_rx_call_complete(struct aph_rx_call *call);
/* At a service: all of its request is here, or none of it is wanted any more. */
void aph_rx_call_not_awaited(struct aph_rx_call *call);
/* Frees it when nobody needs it. */
void aph_rx_call_settle(struct aph_rx_call *call);
/* These of its times were set by a clock that may be old. */
void aph_rx_call_is_fresh(struct aph_rx_call *call, uint8_t times);
/* That clock was late by so much. */
void aph_rx_call_freshen(struct aph_rx_call *call, uint64_t late_ns);
/* Frees those that users have not let go of. */
void aph_rx_call_free_all(struct aph_rx *rx);
/* It has its connection: sizes and windows are known. */
void aph_rx_call_begin(struct aph_rx_call *call);

/* -- write.c: what the user writes */
void aph_rx_out_init(struct aph_rx_call *call);
void aph_rx_out_deinit(struct aph_rx_call *call);
/* The user has let go of the call, and of what was reserved. */
void aph_rx_out_settle(struct aph_rx_call *call);
static inline struct aph_rx_chunk **aph_rx_chunk_place(struct aph_rx_out *out, uint32_t seq)
{
	return &out->chunks[((seq - 1) / APH_RX_CHUNK_SLOTS) & (out->n_chunks - 1)];
}
static inline struct aph_rx_meta *aph_rx_out_meta(struct aph_rx_out *out, uint32_t seq)
{
	if (out->inlined)
		return &out->inline_meta;
	return &(*aph_rx_chunk_place(out, seq))->meta[(seq - 1) % APH_RX_CHUNK_SLOTS];
}
static inline uint8_t *aph_rx_out_packet(struct aph_rx_out *out, uint32_t seq)
{
	if (out->inlined)
		return out->inline_packet;
	return (*aph_rx_chunk_place(out, seq))->slots[(seq - 1) % APH_RX_CHUNK_SLOTS];
}
/* Frees what lies below `base` now. */
void aph_rx_out_trim(struct aph_rx_call *call, uint32_t old_base);
bool aph_rx_out_has_room(const struct aph_rx_call *call);
/* There may be room again for a user whose last write was short. */
static inline void aph_rx_out_offer_room(struct aph_rx_call *call)
{
	if (!call->out.short_write || !aph_rx_out_has_room(call))
		return;
	call->out.short_write = false;
	aph_rx_call_post(call, APH_RX_EVENT_WRITABLE);
}

/* -- read.c: what arrives and the user reads */
/* What the peer may still make us hold. */
uint64_t aph_rx_in_memory_left(const struct aph_rx_call *call);
void aph_rx_in_init(struct aph_rx_call *call);
void aph_rx_in_deinit(struct aph_rx_call *call);
enum aph_rx_taken {
	APH_RX_TAKEN,
	APH_RX_TAKEN_DUPLICATE,
	APH_RX_TAKEN_BEYOND_WINDOW,
	APH_RX_TAKEN_NO_SPACE,
	APH_RX_TAKEN_WRONG, /* breaks the protocol */
};
enum aph_rx_taken aph_rx_in_take(struct aph_rx_call *call, uint32_t seq, bool last,
				 const uint8_t *data, size_t len, struct aph_rx_buffer *buffer);
static inline bool aph_rx_in_is_complete(const struct aph_rx_in *in)
{
	return in->last && in->next > in->last;
}
static inline bool aph_rx_in_is_consumed(const struct aph_rx_in *in)
{
	return in->last && in->base > in->last;
}

/* -- ack.c: when and how we acknowledge */
void aph_rx_ack_want(struct aph_rx_call *call, enum aph_rx_ack_reason reason, uint32_t serial,
		     bool now);
void aph_rx_ack_arrived(struct aph_rx_call *call, const struct aph_rx_header *header,
			enum aph_rx_taken taken, bool was_gap);
void aph_rx_ack_consumed(struct aph_rx_call *call, uint32_t n_packets);
/* The packets from here on say it as well. */
void aph_rx_ack_drop(struct aph_rx_call *call);
uint32_t aph_rx_ack_window(const struct aph_rx_call *call);
/* What every ACK to that peer says of us: the trailer and the window. */
void aph_rx_ack_offer(const struct aph_rx_peer *peer, uint32_t window, struct aph_rx_ack *ack);
/* Writes the body for the call as it stands. */
size_t aph_rx_ack_build(struct aph_rx_call *call, uint8_t *body, enum aph_rx_ack_reason reason,
			uint32_t serial);

/* -- recover.c: what their acknowledgements mean, and what to do when they do not come */
/* Whether it is about packets that we sent. */
bool aph_rx_recover_is_plausible(const struct aph_rx_call *call, const struct aph_rx_ack *ack);
/*
 * Of those that are not: whether a client has got more of a reply than we have sent, and so from
 * somebody else.
 */
bool aph_rx_recover_is_of_another_life(const struct aph_rx_call *call,
				       const struct aph_rx_ack *ack);
/* One that is plausible. */
void aph_rx_recover_ack(struct aph_rx_call *call, const struct aph_rx_ack *ack);
/* All that was sent has arrived. */
void aph_rx_recover_all_acked(struct aph_rx_call *call);
void aph_rx_recover_sent(struct aph_rx_call *call, uint32_t seq, struct aph_rx_meta *meta,
			 uint32_t serial, bool ack_requested);
/* False: the call has ended with it, and may be gone. */
bool aph_rx_recover_expired(struct aph_rx_call *call);
uint64_t aph_rx_recover_deadline(const struct aph_rx_call *call);
void aph_rx_recover_arm(struct aph_rx_call *call);
/* The server will not start it now: it is asked again after a while, a random one. */
void aph_rx_recover_busy(struct aph_rx_call *call);
void aph_rx_recover_note_ping(struct aph_rx_call *call, uint32_t serial);
/* Client: the server has kept nothing of the request, and will now. */
void aph_rx_recover_repeat(struct aph_rx_call *call);

/* -- output.c */
/* Who answers a PING is where it says it is. */
void aph_rx_call_ask_for_proof(struct aph_rx_call *call);

/* -- data.c */
/* What may leave of what was lost and of what is new. False: there is no more room. */
bool aph_rx_data_send(struct aph_rx_call *call);

#endif
