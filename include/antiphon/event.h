/* SPDX-License-Identifier: MIT */
/*
 * Events: what aph_endpoint_next() hands out. Each belongs to one call, one channel or one service.
 *
 * A call's events end with exactly one terminal event (END); nothing is delivered on the call
 * afterwards.
 */
#ifndef ANTIPHON_EVENT_H
#define ANTIPHON_EVENT_H

#include <antiphon/error.h>

APH_BEGIN_DECLS

struct aph_call;
struct aph_channel;
struct aph_service;

enum aph_event_type {
	APH_EVENT_NONE = 0,
	APH_EVENT_REQUEST = 1, /* service: a new call; read its body, then reply, abort or refuse */
	APH_EVENT_REPLY = 2,   /* client: the reply has begun and more of it is to come */
	APH_EVENT_READABLE = 3, /* either: more of the body is there after a read said EAGAIN */
	APH_EVENT_WRITABLE =
		4,	   /* either: there is room again after a send was short or said EAGAIN */
	APH_EVENT_END = 5, /* either: the call has ended, see result */
	APH_EVENT_CONNECT = 6,	  /* service that asked: a client has opened a channel */
	APH_EVENT_DISCONNECT = 7, /* service that asked: that channel has closed */
	APH_EVENT_OPEN = 8,   /* client: a channel opened with APH_CHANNEL_ASYNC can be used now */
	APH_EVENT_CLOSED = 9, /* client: the channel has closed, see result.reason */
	APH_EVENT_TERMINATE =
		10,	       /* service: a newcomer of the same user asks this service to end */
	APH_EVENT_SIGNAL = 11, /* service: the client sent aph_call_signal(), see result.code */
};

/*
 * `call` is set for the first five and SIGNAL, `channel` always but for TERMINATE, `service` on the
 * service's side; it is NULL for a DISCONNECT that is taken after its service was closed. `result`
 * is set for END, its reason alone for CLOSED and DISCONNECT, its code alone for SIGNAL. All
 * pointers are borrowed: see call.h and channel.h for their lives.
 */
struct aph_event {
	enum aph_event_type type;
	struct aph_call *call;
	struct aph_channel *channel;
	struct aph_service *service;
	struct aph_result result;
};

/* The name of an event type ("REQUEST"); never NULL. Static string. */
APH_API const char *aph_event_name(enum aph_event_type type);

APH_END_DECLS

#endif
