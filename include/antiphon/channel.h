/* SPDX-License-Identifier: MIT */
/*
 * Services and channels: the two ends that meet at a name.
 */
#ifndef ANTIPHON_CHANNEL_H
#define ANTIPHON_CHANNEL_H

#include <antiphon/credentials.h>
#include <antiphon/endpoint.h>
#include <antiphon/name.h>

APH_BEGIN_DECLS

/* Who may use a service. A client gets in when one kind that both sides allow fits it. */
#define APH_ALLOW_USER	0x1u /* clients whose effective uid is the service's uid */
#define APH_ALLOW_GROUP 0x2u /* clients that are in the service's gid */
#define APH_ALLOW_WORLD 0x4u /* everybody */
#define APH_ALLOW_ANY	0x7u
#define APH_ALLOW_NONE	0x8u /* nobody: to say so where no flag at all would mean the default */

/* -- service ----------------------------------------------------------------------------------- */

#define APH_SERVICE_EXCLUSIVE 0x10u /* -EEXIST when the same (name, uid, gid) is already served */
/*
 * Deliver CONNECT and DISCONNECT. A channel that was announced by CONNECT stays until the service
 * has had its DISCONNECT and then calls aph_channel_close() on it.
 */
#define APH_SERVICE_EVENTS 0x20u
/*
 * Deliver END for every call, also after the reply: DISPOSED or GONE, or what the service did
 * itself: ABORTED, REFUSED, or LOST where memory ran out in the middle of its reply. The service
 * then frees each call with aph_call_free() when it has had its END. Without this flag a call ends
 * for the service with its reply, abort or refusal, and only a client that goes away before that is
 * told, by END with GONE.
 */
#define APH_SERVICE_RECEIPTS	 0x40u
#define APH_SERVICE_RECEIPTS_NOW 0x80u /* a receipt wakes a sleeping service; implies RECEIPTS */
#define APH_SERVICE_TERMINATE \
	0x100u /* ask the service that is there now to end (TERMINATE event) */
/*
 * Take over from the service that is there, if it has GIVE and is the same user's: its name, its
 * generation number, and its idle channels, whose clients notice nothing; others follow when their
 * last call has ended. It is asked to end (TERMINATE). aph_service_open() waits up to two seconds
 * for what is idle.
 */
#define APH_SERVICE_TAKE 0x200u
#define APH_SERVICE_GIVE 0x400u /* let a newcomer take over; one descriptor more for each channel */
/*
 * Remote services: callers that prove nothing may come from other hosts. Needed on addresses they
 * can reach. Without it or WORLD, a remote service with USER, GROUP or NONE is refused: nobody
 * could keep to that.
 */
#define APH_ALLOW_ANONYMOUS 0x800u

struct aph_service_options {
	size_t size;	       /* sizeof(struct aph_service_options) */
	uint32_t flags;	       /* APH_ALLOW_* (none means APH_ALLOW_USER) and APH_SERVICE_* */
	uint32_t channels_max; /* open channels; more are refused as busy; 0: 65536 */
	/* Calls of one channel the service holds at once; 0: 1024, at most 4096. */
	uint32_t calls_max;
	uint32_t arena_max; /* bytes of body memory a channel may have in each direction, at most
			       * 16 MiB; 0: 256 KiB */
	void *data;	    /* for aph_service_data() */
};

/*
 * Registers `address` and starts to accept channels. `out` may be NULL when the service is to live
 * as long as the endpoint. 0, or -EINVAL (address or options), -EPERM (a uid or gid that the caller
 * may not register: one that is not root may register only its own effective uid and a gid that it
 * is in), -EEXIST, -ENOENT, -EACCES (no usable runtime directory), -EMFILE, -ENOMEM, ...; see
 * aph_error().
 */
APH_API int aph_service_open(struct aph_service **out, struct aph_endpoint *ep, const char *address,
			     const struct aph_service_options *options);

/* As aph_service_open(), with a name that is not written but built. */
APH_API int aph_service_open_name(struct aph_service **out, struct aph_endpoint *ep,
				  const struct aph_name *name,
				  const struct aph_service_options *options);

/*
 * Takes the name away and closes all channels of the service. Its calls end: what no one has
 * received is refused (CLOSED) at the client, the rest is lost. Calls that the service still holds
 * get no more events and must be freed by it. Accepts NULL. Returns NULL.
 */
APH_API struct aph_service *aph_service_close(struct aph_service *service);

/* The `data` of the options. */
APH_API void *aph_service_data(const struct aph_service *service);

/*
 * Writes the address at which the service is: for `rx:127.0.0.1:0/147` with the port that it got,
 * for `caps:upper` with the uid and gid it is served for. It is what aph_channel_open() takes. 0,
 * or -ENOSPC when `size` is too small: APH_ADDRESS_MAX + 1 always does. Any thread.
 */
APH_API int aph_service_address(const struct aph_service *service, char *buf, size_t size);

/*
 * Shows a service at an address of RxRPC to aph_directory_list() if aph_service_open(), which does
 * so too, could not: it serves all the same. 0, also where there is nothing to do, or -errno of the
 * runtime directory; aph_error() says what to do.
 */
APH_API int aph_service_show(struct aph_service *service);

/*
 * A number that every client of the service reads without a round trip: by custom it grows whenever
 * clients should drop what they cached. It starts at 0. O(channels of the service).
 */
APH_API int aph_service_set_generation(struct aph_service *service, int64_t generation);

/* -- channel ----------------------------------------------------------------------------------- */

#define APH_CHANNEL_WAIT  0x10u /* wait until somebody serves the name; not with ASYNC */
#define APH_CHANNEL_ASYNC 0x20u /* return before the service has answered; OPEN or CLOSED follows */

struct aph_channel_options {
	size_t size;	/* sizeof(struct aph_channel_options) */
	uint32_t flags; /* APH_ALLOW_* (none means APH_ALLOW_ANY) and APH_CHANNEL_* */
	/* Records under way in each direction, a power of two from 32 to 512; 0: 32. */
	uint32_t depth;
	/* Calls in progress at once; 0: 1024, at most 4096; the service may lower it. */
	uint32_t calls_max;
	uint32_t arena; /* bytes of body memory in each direction, at most 16 MiB; 0: 256 KiB;
			       * may be lowered too */
	/* For the service to answer, or to appear with WAIT; 0: ten seconds ahead. */
	uint64_t deadline_ns;
	void *data; /* for aph_channel_data() */
};

/*
 * Connects to the newest service of that name that lets the caller in. 0, or -EINVAL, -ENOENT
 * (nobody serves the name), -EACCES (not permitted), -EBUSY (it takes no more channels),
 * -ETIMEDOUT, -EINTR, -EPROTO (it does not speak this protocol), -EMFILE, -ENOMEM; see aph_error().
 * Opening is the only thing that can block here, and APH_CHANNEL_ASYNC avoids it, but for the
 * look-up of a host's name.
 */
APH_API int aph_channel_open(struct aph_channel **out, struct aph_endpoint *ep, const char *address,
			     const struct aph_channel_options *options);
APH_API int aph_channel_open_name(struct aph_channel **out, struct aph_endpoint *ep,
				  const struct aph_name *name,
				  const struct aph_channel_options *options);

/*
 * Client: ends the channel. Its calls end without an END event: those still open are cancelled, and
 * every struct aph_call of the channel must be freed by its owner, before or after. Service: throws
 * the client out; CLOSED reaches it, and no DISCONNECT follows here. The service's calls on it get
 * no further events and must be freed or answered (-ECANCELED) by it as ever. After DISCONNECT it
 * frees the channel. Accepts NULL. Returns NULL.
 */
APH_API struct aph_channel *aph_channel_close(struct aph_channel *channel);

/* The service's generation number now: one load from shared memory, no round trip. */
APH_API int64_t aph_channel_generation(const struct aph_channel *channel);

/*
 * Who is at the other end. Borrowed, as long as the channel lives. Never NULL. At a client `pid`,
 * `uid` and `gid` change when another process takes the service over.
 */
APH_API const struct aph_credentials *aph_channel_credentials(const struct aph_channel *channel);

/*
 * A new pidfd of the process at the other end, close-on-exec, the caller's to close. It cannot name
 * a process that took the pid later. -errno where the kernel cannot give one; -ESRCH when it is
 * gone.
 */
APH_API int aph_channel_pidfd(const struct aph_channel *channel);

/* A pointer of the user's; on the service's side NULL until set. */
APH_API void *aph_channel_data(const struct aph_channel *channel);
APH_API void aph_channel_set_data(struct aph_channel *channel, void *data);

/* False once the channel has closed at either end, also before CLOSED was delivered. */
APH_API int aph_channel_is_open(const struct aph_channel *channel);

APH_END_DECLS

#endif
