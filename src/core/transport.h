/* SPDX-License-Identifier: MIT */
/*
 * What a transport fills in so that core can call down without knowing it. All of it runs with the
 * endpoint's lock held.
 */
#ifndef ANTIPHON_CORE_TRANSPORT_H
#define ANTIPHON_CORE_TRANSPORT_H

#include "core/core.h"
#include "core/name.h"

/* How a call is brought to an end towards the peer. */
enum aph_farewell {
	APH_FAREWELL_DISPOSE, /* client: the whole reply was taken */
	APH_FAREWELL_CANCEL,  /* client: given up; value: enum aph_reason */
	APH_FAREWELL_ABORT,   /* service: value: the code */
	APH_FAREWELL_REFUSE,  /* service: not run; value: enum aph_reason */
	APH_FAREWELL_LOSE,    /* service: may have run; value: enum aph_reason */
};

struct aph_channel_ops {
	size_t call_size; /* of the transport's call, which begins with struct aph_call */
	/*
	 * A fresh call. Behind struct aph_call is what an earlier one has left, or 0. 0, or -EAGAIN
	 * when no more can be in progress.
	 */
	int (*call_init)(struct aph_call *call);
	/*
	 * Service: it has ended, and the peer may use its place for another call from now on. Left
	 * out where call_deinit() follows at once.
	 */
	void (*call_ended)(struct aph_call *call);
	/* Gives back all that the call holds: its place, body memory, descriptors. */
	void (*call_deinit)(struct aph_call *call);

	/* Bodies out. As aph_call_send_fds() and so on; never for an ended call. */
	ssize_t (*send)(struct aph_call *call, const void *data, size_t len, const int *fds,
			size_t n_fds, bool more);
	/*
	 * Takes all of `data` and finishes the body. 0: all is on its way; 1: a copy of the rest is
	 * kept, and aph_call_flushed() follows; -ENOMEM, -EBUSY: nothing has changed; -ECANCELED:
	 * memory ran out in the middle, and the peer was told LOSE.
	 */
	int (*send_all)(struct aph_call *call, const void *data, size_t len);
	int (*reserve)(struct aph_call *call, void **data, size_t *len);
	int (*commit)(struct aph_call *call, size_t len, bool more);

	/*
	 * Bodies in. They return -EAGAIN where nothing is there; core knows whether more will come.
	 */
	ssize_t (*read)(struct aph_call *call, void *buf, size_t max, bool consume);
	size_t (*available)(const struct aph_call *call);
	/*
	 * Whether all of it is here, for transports that may not have told the core yet; or NULL.
	 */
	bool (*is_complete)(const struct aph_call *call);
	int (*borrow)(struct aph_call *call, const void **data, size_t *len);
	void (*release)(struct aph_call *call, size_t len);
	ssize_t (*take_fds)(struct aph_call *call, int *fds, size_t max);

	/*
	 * Client: withdraws a request. True when it is proven that nobody has received it and
	 * nobody will. For a channel that has ended: whether nobody had.
	 */
	bool (*revoke)(struct aph_call *call);
	/* Client: a word to the service about a call that goes on. 0 or -EAGAIN. */
	int (*signal)(struct aph_call *call, int32_t code);
	/* Tells the peer, now or as soon as there is room. */
	void (*farewell)(struct aph_call *call, enum aph_farewell kind, int32_t value);

	/* Lets go of the connection. The channel has ended and may live on for its calls. */
	void (*disconnect)(struct aph_channel *channel);
	/* Frees the channel's memory: no call is left and nobody holds it. */
	void (*free)(struct aph_channel *channel);
	int64_t (*generation)(const struct aph_channel *channel);
	void (*set_generation)(struct aph_channel *channel, int64_t generation);
	int (*pidfd)(struct aph_channel *channel);
	/* In a forked child: closes descriptors, touches nothing shared. */
	void (*abandon)(struct aph_channel *channel);
};

struct aph_service_ops {
	/* It is about to close: its channels have not ended yet. */
	void (*retire)(struct aph_service *service);
	/* Takes the name away and frees the transport's part; its channels have ended. */
	void (*close)(struct aph_service *service);
	void (*abandon)(struct aph_service *service);
	/* Writes its address, as clients give it. 0, -ENOSPC. */
	int (*address)(const struct aph_service *service, char *buf, size_t size);
};

/* A transport's instance in one endpoint. */
struct aph_transport {
	const struct aph_transport_ops *ops;
	struct aph_endpoint *ep;
};

struct aph_transport_ops {
	/*
	 * Takes what has arrived: replies, and with `requests` at most one request. True when that
	 * changed anything that somebody may wait for.
	 */
	bool (*poll)(struct aph_transport *transport, bool requests);
	/*
	 * The same with requests, beside the leader, who sleeps or has lent the lock: only what it
	 * has left, where it looks for more itself.
	 */
	bool (*poll_beside)(struct aph_transport *transport);
	/*
	 * This thread is about to sleep. False when there is something after all that poll() would
	 * take.
	 */
	bool (*sleep)(struct aph_transport *transport, bool requests);
	void (*free)(struct aph_transport *transport);
	void (*abandon)(struct aph_transport *transport);

	/* Of endpoint.local alone, whose peers ring for who sleeps: */

	/*
	 * Lets go of what has gone quiet: called now and then by a busy thread, and before a sleep.
	 */
	void (*tidy)(struct aph_transport *transport);
	/* Spins as long as that is likely to pay. True when poll may find something. */
	bool (*spin)(struct aph_transport *transport, bool requests, uint64_t deadline_ns);
	/* The sleep is over. */
	void (*awake)(struct aph_transport *transport, uint64_t ticks);

	/* Of endpoint.remote alone, which has a driver of its own to sleep in: */

	/* Whether all that it waits for can be waited for there, without epoll. */
	bool (*can_wait)(struct aph_transport *transport);
	/*
	 * Such a wait, in which it calls aph_endpoint_driver_sleeps(), until something has changed
	 * or the deadline has come. 0, -ETIMEDOUT, -EINTR, ...
	 */
	int (*wait)(struct aph_transport *transport, bool requests, uint64_t deadline_ns);
	/* The end of a wait, from any thread or signal handler. */
	void (*interrupt)(struct aph_transport *transport);
};

/* Where an address of a scheme leads; what is in it is the scheme's. */
struct aph_place {
	union {
		uint64_t align;
		char room[64];
	};
};

/* What carries addresses of one scheme. */
struct aph_scheme {
	/*
	 * Reads the address; may ask the network and take its time. `passive`: to be served.
	 * Without the lock.
	 */
	int (*resolve)(struct aph_place *out, const char *address, bool passive);
	/*
	 * As the functions of channel.h, options filled in, under the lock, which the first may
	 * give back while it waits; `address` is for what they have to say.
	 */
	int (*service_open)(struct aph_service **out, struct aph_endpoint *ep,
			    const struct aph_place *at, const char *address,
			    const struct aph_service_options *options);
	int (*channel_open)(struct aph_channel **out, struct aph_endpoint *ep,
			    const struct aph_place *to, const char *address,
			    const struct aph_channel_options *options);
};

/* `rx:`, in libantiphon-rx, which is loaded when such an address is first used. */
extern const struct aph_scheme aph_rx_scheme;

/* The scheme of an address, NULL: one of this host. 0 or -EPROTONOSUPPORT. */
int aph_scheme_find(const struct aph_scheme **out, const char *address);

/* The local transport (src/local). `name` is well formed. `out` is set only on success. */
int aph_local_service_open(struct aph_service **out, struct aph_endpoint *ep,
			   const struct aph_name *name, const struct aph_service_options *options);
int aph_local_channel_open(struct aph_channel **out, struct aph_endpoint *ep,
			   const struct aph_name *name, const struct aph_channel_options *options);

/*
 * Shows a service of another transport to aph_directory_list(), and counts where that can see it.
 * 0, or -errno: it serves all the same. Hidden once it ends; forgotten in a forked child.
 */
int aph_local_show(struct aph_service *service);
void aph_local_hide(struct aph_service *service);
void aph_local_forget(struct aph_service *service);

#endif
