/* SPDX-License-Identifier: MIT */
/*
 * Calls: request, reply, dispose.
 *
 *   client   new -> send ... -> [REPLY] read ... -> END (ANSWERED, REFUSED, ABORTED, LOST)
 *            -> read -> free
 *   service  REQUEST -> read ... -> reply (or abort, refuse) -> [END (DISPOSED, GONE) -> free]
 *
 * Bodies are streams of bytes. A sender says with each piece whether MORE follows; a receiver reads
 * in pieces of any size. Nothing is copied towards a receiver before it reads. What a sender may
 * have under way is bounded by the channel; then a send is short or answers -EAGAIN, and WRITABLE
 * follows.
 *
 * Life of a struct aph_call: a client owns what aph_call_new() gave it until aph_call_free(). A
 * service owns what came with REQUEST until it has called one of aph_call_reply(),
 * aph_call_abort(), aph_call_refuse() or aph_call_free(); with APH_SERVICE_RECEIPTS always until
 * aph_call_free(). A call whose END with GONE was delivered before the reply stays the service's
 * until one of these as well.
 */
#ifndef ANTIPHON_CALL_H
#define ANTIPHON_CALL_H

#include <antiphon/channel.h>

APH_BEGIN_DECLS

#define APH_MORE 0x1u /* more of this body follows */

#define APH_CALL_FDS_MAX 64 /* descriptors with one piece of a body */

/* -- the simple way ---------------------------------------------------------------------------- */

/*
 * Client: makes a call and waits for its end. Sends `len` bytes of `request`; at most `*reply_len`
 * bytes of the reply go to `reply`, and `*reply_len` says how many there were. `reply` and
 * `reply_len` may both be NULL: the reply is then read and dropped. Returns the outcome: 0
 * (APH_ANSWERED), or APH_REFUSED, APH_ABORTED, APH_LOST; aph_channel_result() has the reason and
 * the code. Or a negative error: -EMSGSIZE (answered, but the reply is longer than the buffer;
 * *reply_len is its length), -EINVAL, -ENOTCONN (channel closed before, nothing was sent), -EAGAIN
 * (calls_max in progress), -ENOMEM; with all but the first nothing was sent. Other events of the
 * endpoint are kept for aph_endpoint_next(). A signal does not interrupt it.
 */
APH_API int aph_call(struct aph_channel *channel, const void *request, size_t len, void *reply,
		     size_t *reply_len, uint64_t deadline_ns);

/*
 * The result of this thread's last aph_call(), if that was on this channel; else LOST without a
 * reason. Where aph_call() failed and sent nothing it is REFUSED without a reason.
 */
APH_API struct aph_result aph_channel_result(const struct aph_channel *channel);

/*
 * Service: the whole reply at once. It never waits for a slow client: what does not fit into the
 * channel now is copied and sent as room appears. 0 once the reply is the library's, and the call
 * is no longer the caller's (but see APH_SERVICE_RECEIPTS); -ECANCELED when the client is gone, or
 * was told LOST because memory ran out in the middle, with the same effect; -ENOMEM, -EBUSY (a
 * reservation is open: commit it first), -EINVAL (a reply was finished before): nothing has
 * changed. May follow aph_call_send() with MORE, as the last piece. Over rx, what has not been read
 * of a request that is not here as a whole is dropped: reads then answer -EPIPE.
 */
APH_API int aph_call_reply(struct aph_call *call, const void *data, size_t len);

/* -- client ------------------------------------------------------------------------------------ */

/*
 * Begins a call; nothing is sent yet. `data` is for aph_call_data(). 0, -ENOTCONN (channel closed),
 * -EAGAIN (calls_max in progress), -ENOMEM.
 */
APH_API int aph_call_new(struct aph_call **out, struct aph_channel *channel, uint64_t deadline_ns,
			 void *data);

/*
 * Gives the call up. Refused if no one had received the request, else lost; END follows unless it
 * came before. Over rx it is lost once a packet of it has left. The service is told. 0, or
 * -EALREADY when the call has ended.
 */
APH_API int aph_call_cancel(struct aph_call *call);

/*
 * Gives the call up only if nobody has received the request: 0, and END with REFUSED follows;
 * -EBUSY when it was received (over rx: may have been), and nothing has changed; -EALREADY when the
 * call has ended.
 */
APH_API int aph_call_withdraw(struct aph_call *call);

/*
 * A word to the service about a call that goes on, such as "hurry" or "stop if you can": it gets
 * SIGNAL with the code, unless the call ends first. Of several that were not delivered yet the last
 * one counts. 0, -EPIPE (not begun, or ended), -EAGAIN (no room), -ENOTCONN, -EOPNOTSUPP (over rx).
 */
APH_API int aph_call_signal(struct aph_call *call, int32_t code);

/*
 * Waits until this call can go on: until there is something to read (bytes, or the end) or, with
 * room wanted after a short send or a refused reservation, to write, or it has ended. Other events
 * are kept for aph_endpoint_next(); so is this call's own END. 0, -ETIMEDOUT, -EAGAIN
 * (`deadline_ns` was APH_NOW), -EINTR (at a service), -ENOTCONN (in a forked child).
 */
APH_API int aph_call_wait(struct aph_call *call, uint64_t deadline_ns);

/* -- service ----------------------------------------------------------------------------------- */

/*
 * Ends the call with a code of the service's own. 0, -ECANCELED (client gone), -EINVAL (reply
 * finished).
 */
APH_API int aph_call_abort(struct aph_call *call, int32_t code);

/*
 * Ends the call as not run: the client is told REFUSED with APH_REASON_BUSY or APH_REASON_POLICY
 * (or another reason given). The service promises that the request has had no effect. Errors as for
 * abort; -EINVAL also for a reason that is none.
 */
APH_API int aph_call_refuse(struct aph_call *call, enum aph_reason reason);

/* -- both: bodies ------------------------------------------------------------------------------ */

/*
 * Sends a piece of the request (client) or of the reply (service). Never waits. Returns how many
 * bytes were taken, which may be less than `len`: send the rest after WRITABLE; the body is
 * finished only when a send without APH_MORE was taken whole. A piece of 0 bytes without APH_MORE
 * finishes a body; one with it is delivered as "the body has begun", over rx: with the bytes that
 * follow. -EAGAIN (no room; WRITABLE follows), -EPIPE (the body was finished or the call has
 * ended), -EINVAL, -ENOTCONN, -ENOMEM.
 */
APH_API ssize_t aph_call_send(struct aph_call *call, const void *data, size_t len, unsigned flags);

/*
 * The same, with descriptors that arrive with the first byte of this piece. `n_fds` at most
 * APH_CALL_FDS_MAX. They are duplicated: the caller keeps its own. All of them go or none: when the
 * answer is not negative, they went. -EBADF, -EAGAIN and others as for aph_call_send().
 */
APH_API ssize_t aph_call_send_fds(struct aph_call *call, const void *data, size_t len,
				  const int *fds, size_t n_fds, unsigned flags);

/*
 * Copies the next bytes of the body that arrives. How many, at most `max`; 0 when the body has
 * ended; -EAGAIN when more is to come but is not here (READABLE follows); -EPIPE when it will never
 * come (the call ended without it). After END a client may go on to read what ANSWERED brought.
 */
APH_API ssize_t aph_call_read(struct aph_call *call, void *buf, size_t max);

/*
 * Like aph_call_read(), but nothing is consumed: the same bytes are there for the next read. It
 * sees at most what has arrived.
 */
APH_API ssize_t aph_call_peek(struct aph_call *call, void *buf, size_t max);

/* Bytes that have arrived and were not read yet. */
APH_API size_t aph_call_available(const struct aph_call *call);

/* True when the whole body has arrived (not necessarily been read). */
APH_API int aph_call_body_complete(const struct aph_call *call);

/*
 * Takes up to `max` of the descriptors that have arrived, in order; they are the caller's then, and
 * close-on-exec. Descriptors that nobody takes are closed with the call, by a thread where close(2)
 * might wait; to close those that were taken may take as long as whoever sent them likes. Returns
 * how many, 0 if none.
 */
APH_API ssize_t aph_call_take_fds(struct aph_call *call, int *fds, size_t max);

/* -- both: bodies without a copy --------------------------------------------------------------- */

/*
 * Room for up to `*len` bytes in memory that the peer will read: `*len` is lowered to what there is
 * in one piece. Build the piece there and hand it over with aph_call_commit(). One reservation per
 * call at a time; it is given back by aph_call_commit() with 0 bytes and APH_MORE, or when the call
 * is freed. Until then nothing else can be sent of the body, and the memory is there, also when the
 * call has ended meanwhile. 0; -EAGAIN (WRITABLE follows; a reservation stays), -EPIPE, -EBUSY (one
 * is open already), -ENOTCONN, -EINVAL, -ENOMEM.
 */
APH_API int aph_call_reserve(struct aph_call *call, void **data, size_t *len);
APH_API int aph_call_commit(struct aph_call *call, size_t len, unsigned flags);

/*
 * The next bytes that have arrived, in place, in one piece of `*len` bytes. The memory is shared
 * with the peer, who may change it while you look: copy before you check what you then rely on.
 * Give back what you have used up with aph_call_release(); bytes released are read. Results as for
 * aph_call_read(), with 0 for "here it is" and -ENODATA at the body's end.
 */
APH_API int aph_call_borrow(struct aph_call *call, const void **data, size_t *len);
APH_API int aph_call_release(struct aph_call *call, size_t len);

/* -- both: what is known of a call ------------------------------------------------------------- */

/*
 * Frees the call. A client's call that has not ended is cancelled first, without an event. A
 * service's call that was not replied to is lost at the client (reason POLICY): refuse or abort it
 * instead. Accepts NULL. Returns NULL.
 */
APH_API struct aph_call *aph_call_free(struct aph_call *call);

/* 1 and the result when the call has ended, else 0. */
APH_API int aph_call_result(const struct aph_call *call, struct aph_result *result);

APH_API struct aph_channel *aph_call_channel(const struct aph_call *call);
APH_API struct aph_service *aph_call_service(
	const struct aph_call *call); /* NULL at a client, and once the service was closed */
APH_API const struct aph_credentials *aph_call_credentials(const struct aph_call *call);
APH_API uint64_t
aph_call_deadline(const struct aph_call *call); /* APH_FOREVER at a service over rx */
APH_API void *aph_call_data(const struct aph_call *call);
APH_API void aph_call_set_data(struct aph_call *call, void *data);

APH_END_DECLS

#endif
