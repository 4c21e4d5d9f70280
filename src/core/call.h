/* SPDX-License-Identifier: MIT */
/* Between call.c, body.c and oneshot.c: steps of a call with the endpoint's lock held. */
#ifndef ANTIPHON_CORE_CALL_H
#define ANTIPHON_CORE_CALL_H

#include "core/transport.h"

/* A new call on an open channel. 0, -ENOMEM, -EAGAIN. */
int aph_call_make(struct aph_call **out, struct aph_channel *channel, uint64_t deadline_ns);
/* 0, or -EPIPE when nothing can be sent any more. */
int aph_call_check_sender(struct aph_call *call);
/* Service: the whole reply is the transport's; `flushed`: and on its way. */
void aph_call_replied(struct aph_call *call, bool flushed);
/* A piece was accepted; `last`: the body is finished. */
void aph_call_sent(struct aph_call *call, bool last);
ssize_t aph_call_read_locked(struct aph_call *call, void *buf, size_t max, bool consume);
/* Client: the service waits to be told that the whole reply was taken. */
static inline bool aph_call_owes_receipt(const struct aph_call *call)
{
	return call->is_client && call->channel->receipts && !call->disposed;
}

/* Client: the receipt, once, when the call was answered. */
void aph_call_dispose(struct aph_call *call);
/*
 * Client: ends a call that has not ended. Whether the request may have run is for the transport to
 * prove.
 */
void aph_call_give_up(struct aph_call *call, enum aph_reason reason);
/* aph_call_free() */
void aph_call_drop(struct aph_call *call);

#endif
