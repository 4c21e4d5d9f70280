/* SPDX-License-Identifier: MIT */
/*
 * RxRPC: the protocol engine, and the UDP driver under it. For calls by name use antiphon/call.h
 * with an address `rx:HOST:PORT/SERVICE`; this header is for those who bring their own sockets,
 * loops or clocks, and for facades.
 *
 * The engine is sans-I/O. Datagrams, time and randomness come in as arguments; datagrams and the
 * next deadline come out; it makes no system call. One engine is one UDP port: any number of
 * services, clients, connections and calls, of both roles.
 *
 *   aph_rx_receive()   for each datagram, or run of datagrams, that arrived
 *   aph_rx_next()      until it says false: what happened to calls; read, write, abort, free them
 *                      meanwhile
 *   aph_rx_send()      until it says 0: what has to leave now
 *   aph_rx_tick()      when aph_rx_deadline() has come
 *
 * Everything is in this order of life: engine, then its services and clients, then their calls.
 * Threads: one engine is used by one thread at a time; the user serialises. Nothing here calls back
 * but the allocator, the random source and the trace. Units: times are nanoseconds of one monotonic
 * clock that the caller chooses; `_ms` are milliseconds; sizes are bytes; windows are packets.
 * Every function that can fail returns a negative errno.
 *
 * The protocol is AFS's Rx as OpenAFS and Linux speak it; docs/spec/rx.md states it rule by rule.
 */
#ifndef ANTIPHON_RX_H
#define ANTIPHON_RX_H

#include <antiphon/api.h>

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/uio.h>

APH_BEGIN_DECLS

struct aph_rx;	       /* an engine */
struct aph_rx_service; /* something of ours that others may call, by its number */
struct aph_rx_client;  /* our way to one service of one peer: a bundle of connections */
struct aph_rx_call;
struct aph_rx_buffer; /* 64 KiB for what arrives, counted by those who still read from it */

#define APH_RX_BUFFER_SIZE 65536
#define APH_RX_HEADER_SIZE 28 /* of every packet */
#define APH_RX_PAYLOAD_MAX \
	1412 /* of one DATA packet; more only as further packets of a jumbogram */
#define APH_RX_WINDOW_MAX \
	8192		  /* packets, between two ends that both know the extension; else 255 */
#define APH_RX_RUN_MAX 45 /* packets in one message: what one UDP_SEGMENT send can carry */

#define APH_RX_NO_DEADLINE UINT64_MAX

/* Codes of ABORT packets that the protocol itself uses. */
#define APH_RX_CALL_DEAD	 (-1)
#define APH_RX_INVALID_OPERATION (-2)
#define APH_RX_CALL_TIMEOUT	 (-3)
#define APH_RX_EOF		 (-4)
#define APH_RX_PROTOCOL_ERROR	 (-5)
#define APH_RX_USER_ABORT	 (-6)
#define APH_RX_RESTARTING	 (-100)

/* -- addresses --------------------------------------------------------------------------------- */

struct aph_rx_address {
	union {
		sa_family_t family; /* AF_INET, AF_INET6, or 0: none */
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	};
};

/*
 * A way that datagrams take. `local` is the address of ours they use, or none when that does not
 * matter.
 */
struct aph_rx_path {
	struct aph_rx_address remote;
	struct aph_rx_address local; /* its port is not looked at */
	/* Index of the interface they arrived on; 0: not known. No part of identity. */
	uint32_t interface;
};

/* Whether both are the same, port and scope included; a flow label does not count. */
APH_API bool aph_rx_address_equal(const struct aph_rx_address *a, const struct aph_rx_address *b);

/* -- engine ------------------------------------------------------------------------------------ */

#define APH_RX_NO_JUMBO	    0x1u /* neither send nor ask for jumbograms */
#define APH_RX_NO_EXTENSION 0x2u /* windows of at most 255 packets, whoever the peer is */
#define APH_RX_SEGMENTS \
	0x4u /* the sender cuts messages into segments itself: prefer that to jumbograms */
#define APH_RX_ANSWER_DEBUG \
	0x8u /* answer DEBUG packets of anyone; else of loopback addresses alone */
/* Take packets of a server that come from another address of its. */
#define APH_RX_MULTIHOMED     0x10u
#define APH_RX_BUSY_ENDS      0x20u /* a BUSY packet ends a client's call; else it goes on trying */
#define APH_RX_NO_PMTU_PROBES 0x40u

enum aph_rx_congestion {
	/* CUBIC that does not take a few losses without a queue for congestion. */
	APH_RX_CUBIC_TOLERANT,
	APH_RX_CUBIC,	/* RFC 9438 */
	APH_RX_NEWRENO, /* RFC 6582 */
};

enum aph_rx_trace_type {
	APH_RX_TRACE_SENT,
	APH_RX_TRACE_RECEIVED,
	APH_RX_TRACE_DROPPED, /* received and not used: `why` says the rule */
	APH_RX_TRACE_LOST,    /* a packet of ours is taken for lost */
	APH_RX_TRACE_ENDED,   /* a call has ended */
};

/* One step of the protocol. Valid during the call back. */
struct aph_rx_trace {
	uint64_t now_ns;
	enum aph_rx_trace_type type;
	const struct aph_rx_path *path;
	const void *packet; /* the datagram, as on the wire; NULL for LOST and ENDED */
	size_t len;
	uint32_t epoch, cid, call_number, seq; /* of the packet, or of the call */
	const char *why;		       /* static, or NULL */
};

struct aph_rx_config {
	size_t size; /* sizeof(struct aph_rx_config) */

	/* Memory; `free` is told the size again. Both must be given. `alloc` may fail. */
	void *(*alloc)(void *arg, size_t size);
	void (*free)(void *arg, void *memory, size_t size);
	void *alloc_arg;
	/* Fills `out` with bytes that nobody can predict. Must be given. */
	void (*random)(void *arg, void *out, size_t len);
	void *random_arg;
	/* May be NULL. */
	void (*trace)(void *arg, const struct aph_rx_trace *trace);
	void *trace_arg;

	uint32_t flags; /* APH_RX_* above */
	enum aph_rx_congestion congestion;
	uint32_t mtu;	 /* largest UDP payload we send to a new peer; 0: 1444, or 1232 over IPv6 */
	uint32_t window; /* packets we take ahead of the reader; 0: APH_RX_WINDOW_MAX, the most */
	/* Packets that all windows may sum up to; 0: no limit. See credit. */
	uint32_t receive_budget;
	/*
	 * Bytes a call keeps that were written and not yet acknowledged; 0: what the windows allow.
	 */
	uint32_t send_max;
	uint32_t peers_max; /* of one host that calls us 3/4 of what others leave; 0: 65536 */
	/* At our services, of one host 3/4 of what others leave; 0: 1048576. */
	uint32_t connections_max;
	uint32_t calls_max; /* at our services, of one host 3/4 of what others leave; 0: 65536 */
	/* Bytes one peer can make us hold, all of them 16 times that; 0: 64 MiB. */
	uint32_t peer_memory_max;
	uint32_t dead_ms;	 /* nothing heard for so long ends a call; 0: 12,000 */
	uint32_t idle_client_ms; /* an idle connection of ours; 0: 120,000 */
	/*
	 * With more than `crowd` connections of ours, idle ones go after `crowd_idle_ms`; 0: no
	 * such limit, 2000.
	 */
	uint32_t crowd;
	uint32_t crowd_idle_ms;
	uint32_t idle_service_ms;   /* of a peer's; 0: 600,000 */
	uint32_t soft_ack_delay_ms; /* 0: 100 */
	/*
	 * For the receipt of a reply, if no call follows; 0: 20. The oldest go earlier while more
	 * than 1024 connections owe one.
	 */
	uint32_t final_ack_delay_ms;
	uint32_t receive_delay_ms; /* for tests: before what arrives is looked at */
	char version[65];	   /* text for VERSION packets; empty: the library's */
};

/* 0, -EINVAL (something has to be given), -ENOMEM. `now_ns` starts the engine's clock. */
APH_API int aph_rx_new(struct aph_rx **out, const struct aph_rx_config *config, uint64_t now_ns);
/*
 * Ends everything without a word to anybody: close services and clients first to say it. Accepts
 * NULL. Returns NULL.
 */
APH_API struct aph_rx *aph_rx_free(struct aph_rx *rx);

/* What it puts into each packet of the connections that it begins: no other engine does. */
APH_API uint32_t aph_rx_epoch(const struct aph_rx *rx);

/*
 * How many packets fit into the socket's receive buffer now: the sum of the windows we offer
 * follows.
 */
APH_API void aph_rx_set_receive_budget(struct aph_rx *rx, uint32_t packets);

/* -- datagrams and time ------------------------------------------------------------------------ */

/* An empty buffer, NULL when memory is short. Give it back with aph_rx_buffer_put(). */
APH_API struct aph_rx_buffer *aph_rx_buffer_take(struct aph_rx *rx);
APH_API void aph_rx_buffer_put(struct aph_rx *rx, struct aph_rx_buffer *buffer);
APH_API void *aph_rx_buffer_bytes(struct aph_rx_buffer *buffer);
/* Whether somebody else still reads from it: then take another one for what comes next. */
APH_API bool aph_rx_buffer_is_shared(const struct aph_rx_buffer *buffer);

/*
 * `len` bytes arrived: one datagram, or a run of datagrams of `segment` bytes each (the last may be
 * shorter). `data` lies in `buffer`, which the engine may then keep references to; with `buffer`
 * NULL it copies what it keeps. Anything at all may be in them. What is enciphered may be
 * deciphered in place.
 */
APH_API void aph_rx_receive(struct aph_rx *rx, const struct aph_rx_path *path, const void *data,
			    size_t len, size_t segment, struct aph_rx_buffer *buffer,
			    uint64_t now_ns);

/*
 * The network reported `error` (an errno) for a datagram of ours to `path`; `mtu` is the largest
 * payload that passes if an EMSGSIZE said so, else 0. `quote` is what it showed of our datagram's
 * payload, or NULL; less than 8 bytes prove nothing, and such a report is ignored. With `local` our
 * own kernel refused to send.
 */
APH_API void aph_rx_receive_error(struct aph_rx *rx, const struct aph_rx_path *path, int error,
				  uint32_t mtu, const void *quote, size_t quote_len, bool local,
				  uint64_t now_ns);

/*
 * What has to leave: one datagram, or a run. The memory is the engine's and valid until the next
 * call of it.
 */
struct aph_rx_message {
	const struct aph_rx_path *path;
	const struct iovec *iov;
	size_t n_iov;
	size_t len;
	size_t segment; /* bytes of each datagram but the last; equal to `len` when it is one */
	bool probe;	/* must not be fragmented, and may be too large for the path */
	bool fragment;	/* may be too large for the path as well: in fragments, then */
};

/* At most `max` messages that may leave now; 0: none is left. Each is taken for sent. */
APH_API size_t aph_rx_send(struct aph_rx *rx, struct aph_rx_message *out, size_t max,
			   uint64_t now_ns);

/* When aph_rx_tick() has to be called next; APH_RX_NO_DEADLINE. May be in the past. */
APH_API uint64_t aph_rx_deadline(const struct aph_rx *rx);
APH_API void aph_rx_tick(struct aph_rx *rx, uint64_t now_ns);

/* -- events ------------------------------------------------------------------------------------ */

enum aph_rx_event_type {
	APH_RX_EVENT_CALL =
		/* A service: a new call, its first data is there. It is the user's from here on. */
		1,
	APH_RX_EVENT_READABLE =
		2, /* more of the body, or its end, has arrived since the last read came up empty */
	APH_RX_EVENT_WRITABLE = 3, /* there is room again after a short write */
	APH_RX_EVENT_END = 4,	   /* the one end of the call: nothing follows */
};

enum aph_rx_outcome {
	/* client: the whole reply has arrived. Service: the client has all of the reply. */
	APH_RX_DONE,
	APH_RX_ABORTED, /* by the peer; code: the abort code */
	/* By aph_rx_call_abort(), or by the protocol because the peer broke it; code. */
	APH_RX_ABORTED_HERE,
	APH_RX_BUSY, /* client: the server will not start it */
	/* A time limit here; code: APH_RX_CALL_TIMEOUT, or APH_RX_CALL_DEAD: nothing heard. */
	APH_RX_TIMED_OUT,
	/* The peer is there and has forgotten the call, or begun it anew; code: ENETRESET. */
	APH_RX_RESET,
	APH_RX_NET_ERROR,   /* the network said so; code: errno */
	APH_RX_LOCAL_ERROR, /* our own kernel or memory; code: errno */
};

struct aph_rx_end {
	enum aph_rx_outcome outcome;
	int32_t code;
};

struct aph_rx_event {
	enum aph_rx_event_type type;
	struct aph_rx_call *call;
	struct aph_rx_service *service; /* at a service, else NULL */
	void *data;			/* the call's */
	struct aph_rx_end end;		/* END */
};

/* The oldest event. False: none. */
APH_API bool aph_rx_next(struct aph_rx *rx, struct aph_rx_event *event);
/* Whether aph_rx_next() would say true. */
APH_API bool aph_rx_has_event(const struct aph_rx *rx);

/* -- services ---------------------------------------------------------------------------------- */

#define APH_RX_UNLIMITED UINT32_MAX
/* As credit: new calls are aborted, as if nobody served the number. */
#define APH_RX_REFUSE (UINT32_MAX - 1)

struct aph_rx_service_options {
	size_t size;	 /* sizeof(struct aph_rx_service_options) */
	uint32_t credit; /* new calls that may still come; others get BUSY. 0: APH_RX_UNLIMITED */
	/* Number of another service here: its callers who ask are moved there; 0: none. */
	uint16_t upgrade_to;
	void *data;
};

/* Serves `id` (not 0). 0, -EADDRINUSE (it is served), -EINVAL, -ENOMEM. `options` may be NULL. */
APH_API int aph_rx_service_add(struct aph_rx_service **out, struct aph_rx *rx, uint16_t id,
			       const struct aph_rx_service_options *options);
/*
 * Aborts its calls (APH_RX_CALL_DEAD; they end, and stay to be freed) and serves it no more.
 * Returns NULL.
 */
APH_API struct aph_rx_service *aph_rx_service_remove(struct aph_rx_service *service);
/*
 * New calls that may come from now on; each takes one. APH_RX_UNLIMITED takes none; with
 * APH_RX_REFUSE there are none, for good. Calls that have come already go on in either case.
 */
APH_API void aph_rx_service_set_credit(struct aph_rx_service *service, uint32_t credit);
APH_API uint32_t aph_rx_service_credit(const struct aph_rx_service *service);
APH_API void *aph_rx_service_data(const struct aph_rx_service *service);
APH_API uint16_t aph_rx_service_id(const struct aph_rx_service *service);

/* -- clients ----------------------------------------------------------------------------------- */

struct aph_rx_client_options {
	size_t size;		  /* sizeof(struct aph_rx_client_options) */
	uint32_t connections_max; /* in parallel, four calls each; 0: 4 */
	void *data;
};

/*
 * A way to the service `id` at `path`. Nothing is sent before the first call. 0, -EINVAL,
 * -EAFNOSUPPORT, -ENOMEM, -ENOBUFS (peers_max). Idle connections are kept and used again.
 */
APH_API int aph_rx_client_new(struct aph_rx_client **out, struct aph_rx *rx,
			      const struct aph_rx_path *path, uint16_t id,
			      const struct aph_rx_client_options *options);
/*
 * Aborts its calls (they end, and stay to be freed), then lets its connections go. Accepts NULL.
 * Returns NULL.
 */
APH_API struct aph_rx_client *aph_rx_client_free(struct aph_rx_client *client);
APH_API void *aph_rx_client_data(const struct aph_rx_client *client);
/* Calls that can begin now without waiting for another one to end. */
APH_API uint32_t aph_rx_client_free_channels(const struct aph_rx_client *client);

#define APH_RX_CALL_EXCLUSIVE 0x1u /* on a connection of its own */
#define APH_RX_CALL_UPGRADE   0x2u /* ask for a better service with this call */
#define APH_RX_CALL_NO_WAIT   0x4u /* -EAGAIN rather than waiting for a free channel */

struct aph_rx_call_options {
	size_t size; /* sizeof(struct aph_rx_call_options) */
	uint32_t flags;
	uint32_t dead_ms; /* nothing heard from the peer; 0: the engine's */
	uint32_t idle_ms; /* no data in either direction; 0: no limit */
	uint32_t hard_ms; /* in all, from now; 0: no limit */
	void *data;
};

/*
 * Begins a call; the first packet leaves with the first write that fills it or ends the request.
 * `options` may be NULL. 0, -EAGAIN, -ENOMEM. Free with aph_rx_call_free().
 */
APH_API int aph_rx_call_new(struct aph_rx_call **out, struct aph_rx_client *client,
			    const struct aph_rx_call_options *options);

/* -- calls ------------------------------------------------------------------------------------- */

#define APH_RX_MORE 0x1u /* more of this body follows */
#define APH_RX_PEEK 0x2u /* leave it there */
/*
 * With MORE: what was written leaves in a packet that is not full, but to peers that are known to
 * be of another kind.
 */
#define APH_RX_PUSH 0x4u

/*
 * Writes to the request (client) or the reply (service, once all of the request has arrived).
 * Returns how much was taken: less than `len` when as much as allowed is under way, and WRITABLE
 * follows; the body ends when all of `len` was taken without MORE. -EAGAIN (nothing was taken),
 * -EPROTO (the phase is over, or has not begun: WRITABLE tells a service when it does), -ESHUTDOWN
 * (the call has ended), -EFBIG (2^32 packets), -ENOMEM.
 */
APH_API ssize_t aph_rx_call_write(struct aph_rx_call *call, const void *data, size_t len,
				  uint32_t flags);

/*
 * Room for a piece of the body to be built in place: at least 1 byte, `*len` of it. It stays until
 * the commit or the free, also when the call ends meanwhile. Then commit what was filled in. Errors
 * as aph_rx_call_write().
 */
APH_API int aph_rx_call_reserve(struct aph_rx_call *call, void **data, size_t *len);
APH_API int aph_rx_call_commit(struct aph_rx_call *call, size_t len, uint32_t flags);

/*
 * Reads what has arrived, in order. Returns how much; 0 with max > 0 means that the body is over;
 * -EAGAIN: nothing is there now, READABLE or END follows; -ESHUTDOWN: the call has ended before the
 * body was complete.
 */
APH_API ssize_t aph_rx_call_read(struct aph_rx_call *call, void *buf, size_t max, uint32_t flags);
/*
 * The piece that is next, where it lies, until release, read or free. `*len` is 0 at the end.
 * -EAGAIN, -ESHUTDOWN.
 */
APH_API int aph_rx_call_borrow(struct aph_rx_call *call, const void **data, size_t *len);
APH_API void aph_rx_call_release(struct aph_rx_call *call, size_t len);
/* Bytes that a read would give now. */
APH_API size_t aph_rx_call_available(const struct aph_rx_call *call);
/* All of the arriving body is here, read or not. */
APH_API bool aph_rx_call_is_complete(const struct aph_rx_call *call);

/*
 * Ends the call here and at the peer with `code` (not 0). END with ABORTED_HERE follows. 0,
 * -EALREADY, -EINVAL.
 */
APH_API int aph_rx_call_abort(struct aph_rx_call *call, int32_t code);
/*
 * Lets go of the call. One that has not ended is aborted with APH_RX_CALL_DEAD; a reply that was
 * written to its end goes on to the client by itself. No event follows. Accepts NULL. Returns NULL.
 */
APH_API struct aph_rx_call *aph_rx_call_free(struct aph_rx_call *call);

struct aph_rx_call_info {
	const struct aph_rx_path *path;
	uint16_t service; /* after an upgrade, the one that answers */
	uint8_t security; /* index */
	bool is_client;
	uint32_t epoch, cid, call_number; /* 0 while it waits for a channel */
	uint32_t n_sent;		  /* DATA packets that left, each transmission counted */
	uint32_t n_resent;
	uint32_t n_acked; /* of them, those that the peer has acknowledged for good */
	uint32_t rtt_us;  /* to the peer and back, smoothed; 0: not known */
	bool received;	  /* the peer has acknowledged something of it, or answered */
	bool bounced; /* the network gave back the only copy of its first packet: nobody has it */
	/* What has ended it was said of its connection, and may be about another call. */
	bool vague;
};
APH_API void aph_rx_call_info(const struct aph_rx_call *call, struct aph_rx_call_info *info);
APH_API void *aph_rx_call_data(const struct aph_rx_call *call);
APH_API void aph_rx_call_set_data(struct aph_rx_call *call, void *data);
/*
 * Changes the limits of a call that goes on; 0 leaves one as it is. A shorter dead_ms is about the
 * silence from now on.
 */
APH_API void aph_rx_call_set_timeouts(struct aph_rx_call *call, uint32_t dead_ms, uint32_t idle_ms,
				      uint32_t hard_ms);

/* -- figures ----------------------------------------------------------------------------------- */

struct aph_rx_stats {
	uint64_t packets_sent[14]; /* by type */
	uint64_t packets_received[14];
	uint64_t data_resent, data_duplicate, data_out_of_window;
	uint64_t bytes_sent, bytes_received; /* of bodies */
	uint64_t malformed, unknown, rejected, rate_limited, no_memory;
	uint64_t calls_begun, calls_served, calls_ended;
	uint64_t n_peers, n_client_connections, n_service_connections, n_calls;
	uint64_t memory; /* bytes held now */
};
APH_API void aph_rx_get_stats(const struct aph_rx *rx, struct aph_rx_stats *stats);

/* -- UDP driver -------------------------------------------------------------------------------- */

/*
 * Owns a socket, an engine, a clock and a random source. One thread at a time. The thread that
 * waits is the driver: it receives, and what its user does between two waits leaves at the start of
 * the second. In a forked child it is closed: functions give -ENOTCONN, and closing it there frees
 * memory and tells nobody.
 */
struct aph_rx_udp;

#define APH_RX_UDP_NO_SEGMENT 0x1u /* as if the kernel had no UDP_SEGMENT */
#define APH_RX_UDP_NO_GRO     0x2u /* as if the kernel had no UDP_GRO */
#define APH_RX_UDP_REUSE      0x4u /* SO_REUSEADDR */
#define APH_RX_UDP_V6ONLY     0x8u
/*
 * Others, of this process and of others, may open the same address with this flag: see
 * aph_rx_udp_claim().
 */
#define APH_RX_UDP_SHARE 0x10u
/* And processes of any user may, where both say this; else those of our own. */
#define APH_RX_UDP_SHARE_ALL 0x40u
/*
 * Left as it is in forked children: one process goes on with it, the others aph_rx_udp_forget() it.
 */
#define APH_RX_UDP_KEEP 0x20u

struct aph_rx_udp_options {
	size_t size;		     /* sizeof(struct aph_rx_udp_options) */
	struct aph_rx_address local; /* none: the wildcard address of IPv6 and IPv4, any port */
	uint32_t flags;
	/*
	 * Before a wait sleeps; 0: 25, or up to 400 where wake-ups turn out to be slow; UINT32_MAX:
	 * never.
	 */
	uint32_t spin_max_us;
	uint32_t receive_buffer; /* bytes of SO_RCVBUF to ask for; 0: 4 MiB */
	/* NULL: defaults. What is not given of memory and randomness is filled in. */
	const struct aph_rx_config *config;
	/*
	 * For users with several threads: given back around the time in which aph_rx_udp_wait()
	 * sleeps or spins, so that others may use the engine and aph_rx_udp_flush() meanwhile. Both
	 * or neither.
	 */
	void (*lock)(void *arg);
	void (*unlock)(void *arg);
	void *lock_arg;
};

/*
 * 0, -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, -EAFNOSUPPORT, -EMFILE, -ENOMEM, ...; see aph_error().
 * Another process that has the address, and shares it, is given 2 s to answer.
 */
APH_API int aph_rx_udp_open(struct aph_rx_udp **out, const struct aph_rx_udp_options *options);
/*
 * Sends what is to be sent, closes. Removing services and freeing clients before is what tells the
 * peers. Calls that are left end with it: free them before. Accepts NULL. Returns NULL.
 */
APH_API struct aph_rx_udp *aph_rx_udp_close(struct aph_rx_udp *udp);
APH_API struct aph_rx *aph_rx_udp_engine(struct aph_rx_udp *udp);
/*
 * After fork() both processes have the driver, and only one of them may go on with it. The other
 * one forgets it: as closing, but nothing is sent. Accepts NULL. Returns NULL.
 */
APH_API struct aph_rx_udp *aph_rx_udp_forget(struct aph_rx_udp *udp);
/*
 * For a process that closes all others: the driver's descriptors, at most `n` of them. Returns how
 * many it has.
 */
APH_API unsigned aph_rx_udp_descriptors(const struct aph_rx_udp *udp, int *fds, unsigned n);
/* Where we are met. */
APH_API int aph_rx_udp_address(const struct aph_rx_udp *udp, struct aph_rx_address *out);

/*
 * Drivers that share a port have an engine each. A packet of a server goes to the engine that
 * called it, a packet of a client to whoever has claimed the service: claim before
 * aph_rx_service_add(), release after the removal. What nobody has claimed goes to the driver that
 * came first. Whoever waits receives for all; each is used under its own lock, or from its own
 * thread. To claim needs no lock, and may ask another process, which is given 2 s to answer. 0,
 * -EADDRINUSE (another driver has it, or is asking for it, or nobody answered), -ENOBUFS (1024
 * claims of one process), -ENOMEM; with a port of its own always 0.
 */
APH_API int aph_rx_udp_claim(struct aph_rx_udp *udp, uint16_t id);
APH_API void aph_rx_udp_release(struct aph_rx_udp *udp, uint16_t id);

/* Sends what the engine has for the network now. 0 or what the socket said last. */
APH_API int aph_rx_udp_flush(struct aph_rx_udp *udp);
/*
 * Flushes, then waits until the engine has an event. 0; -ETIMEDOUT (deadline_ns, of
 * CLOCK_MONOTONIC; APH_NOW: what is there makes none); -EINTR; -ECANCELED (aph_rx_udp_wake()).
 */
APH_API int aph_rx_udp_wait(struct aph_rx_udp *udp, uint64_t deadline_ns);
/* Makes one wait end. From any thread, and async-signal-safe. */
APH_API int aph_rx_udp_wake(struct aph_rx_udp *udp);
/*
 * Readable while aph_rx_udp_wait(udp, APH_NOW) has something to do, deadlines included;
 * level-triggered. Borrowed.
 */
APH_API int aph_rx_udp_fd(struct aph_rx_udp *udp);
/* The driver's clock. */
APH_API uint64_t aph_rx_udp_now(void);

APH_END_DECLS

#endif
