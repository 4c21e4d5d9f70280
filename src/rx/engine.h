/* SPDX-License-Identifier: MIT */
/*
 * The engine's objects, outermost first: engine, peer, connection, call with its two halves. One
 * file for each concern works on them; who does what is in docs/architecture.md. What is done with
 * one call is in call.h, what with one packet that has come in input.h, with one that leaves in
 * draft.h.
 *
 * Ownership: the engine owns everything. A peer lives while connections or clients refer to it, and
 * then for a while; a connection while it has calls, and then for a while; a call until it has
 * ended, its user has let go of it and its peer has been told.
 */
#ifndef ANTIPHON_RX_ENGINE_H
#define ANTIPHON_RX_ENGINE_H

#include "base/list.h"
#include "rx/clear.h"
#include "rx/congest.h"
#include "rx/pmtu.h"
#include "rx/rtt.h"
#include "rx/security/class.h"
#include "rx/timer.h"
#include "rx/wire.h"

#include <antiphon/rx.h>

#define APH_RX_MS UINT64_C(1000000) /* nanoseconds */

#define APH_RX_SLOT	    (APH_RX_HEADER + APH_RX_PAYLOAD_MAX)
#define APH_RX_CHUNK_SLOTS  16
#define APH_RX_INLINE_MAX   228 /* bytes of a body that fit into the call itself */
#define APH_RX_UNSENT_MAX   256 /* packets written beyond those in flight */
#define APH_RX_STAGING	    (APH_RX_MTU_MAX + 4096) /* the largest probe, and then some */
#define APH_RX_RUN_SEGMENTS 64
#define APH_RX_N_MESSAGES   32
#define APH_RX_N_IOVECS	    1024
#define APH_RX_N_RAW	    128	  /* packets that wait to be sent once */
#define APH_RX_RAW_MAX	    320	  /* larger ones have memory of their own */
#define APH_RX_LARGE_MAX    65000 /* the largest of those: tickets may be of many KiB */
#define APH_RX_N_LIMITS	    256
/* Of the longest body: numbers do not begin anew. */
#define APH_RX_SEQ_MAX	       UINT32_C(0xfffffff0)
#define APH_RX_CALL_NUMBER_MAX UINT32_C(0x7fffffff) /* then a channel is used up */
#define APH_RX_WINDOW_SMALL    255		    /* what the trailer can say */
#define APH_RX_WINDOW_START    16		    /* of a peer that has not said */
#define APH_RX_RECEIPTS_MAX    1024		    /* connections of ours that owe one, and wait */
/* Memory for a packet that arrives: for those as small as the first, and up to the second. */
#define APH_RX_SMALL_CELL  256
#define APH_RX_CELL	   1536
#define APH_RX_PACKET_COST 128 /* what a packet is charged for beside the memory it lies in */
#define APH_RX_PEERS_HELD  16  /* all peers together may make us hold so many times what one may */

/* -- hash tables ------------------------------------------------------------------------------- */

struct aph_rx_node {
	struct aph_rx_node *next;
	uint32_t hash;
};

struct aph_rx_table {
	struct aph_rx_node **heads;
	uint32_t n_heads; /* a power of two, or 0 */
	uint32_t n;
};

/* -- memory ------------------------------------------------------------------------------------ */

/* Holds what arrived: a whole receive buffer, or a copy of one packet. */
struct aph_rx_buffer {
	uint32_t refs;
	uint32_t size; /* of bytes[] */
	struct aph_rx_buffer *next;
	struct aph_rx_peer *payer; /* on whose account all of it is while packets in it are held */
	uint32_t n_held;	   /* packets */
	uint8_t bytes[];
};

struct aph_rx_meta {
	uint64_t sent_ns; /* last transmission */
	uint32_t serial;
	uint32_t prev, next; /* in the list of those in flight; seq, 0: none */
	uint16_t len;	     /* behind the header */
	uint16_t cksum;
	uint16_t datagram; /* size of what it last left in; 0: that may be fragmented */
	uint8_t state;	   /* enum aph_rx_packet_state */
	uint8_t n_sent;
	bool last;
};

enum aph_rx_packet_state {
	APH_RX_PACKET_WRITTEN,
	APH_RX_PACKET_FLYING,
	APH_RX_PACKET_LOST,
	APH_RX_PACKET_SACKED,
};

/*
 * Packets of a body that leaves, header room first, back to back: a run of full ones is one range
 * of bytes.
 */
struct aph_rx_chunk {
	struct aph_rx_chunk *next; /* while it is free */
	uint16_t lost, sacked;	   /* bit i: packet i is */
	struct aph_rx_meta meta[APH_RX_CHUNK_SLOTS];
	uint8_t slots[APH_RX_CHUNK_SLOTS][APH_RX_SLOT];
};

/* A packet of a body that arrives. */
struct aph_rx_slot {
	const uint8_t *data;
	struct aph_rx_buffer *hold; /* NULL: it is not here */
	uint16_t len;
};

/* -- peers ------------------------------------------------------------------------------------- */

struct aph_rx_peer {
	struct aph_rx_node node; /* in the engine's peers */
	struct aph_rx *rx;
	struct aph_list conns;
	struct aph_list idle; /* in the engine's idle_peers while refs is 0 */
	struct aph_rx_path path;
	uint32_t refs;
	uint32_t group; /* its limit */
	struct aph_rx_rtt rtt;
	struct aph_rx_pmtu pmtu;
	uint32_t ssthresh; /* where the last bulk call came to */
	uint32_t rwind;	   /* window that the peer last offered */
	uint64_t memory;   /* bytes held on its account */
	uint64_t idle_since_ns;
	uint32_t bytes_in, bytes_out; /* until the address is proven */
	uint32_t n_sent, n_resent;    /* DATA packets: for the first time, and again */
	uint64_t body_sent, body_received;
	uint32_t probe_cid; /* connection of the size probe under way; bit 0: we are its client */
	uint32_t probe_serial;
	uint64_t probe_ns;
	uint16_t max_jumbo;
	bool proven;   /* the address answers: it has told a serial that nobody could guess */
	bool extended; /* it speaks the extension */
	bool stock;    /* it is known not to */
};

/* -- connections ------------------------------------------------------------------------------- */

struct aph_rx_channel {
	struct aph_rx_call *call;
	uint32_t call_number; /* of `call`, or of the one before */
	/* Of the last call that was heard of: a client's `call` is not before its first packet. */
	uint32_t last_seq;  /* client: of the reply that was read, for its receipt */
	int32_t abort_code; /* 0: it was not aborted */
	uint32_t receipt_serial;
	bool done; /* it ended well */
	bool receipt_due;
	bool abort_due; /* its ABORT has not left yet */
};

struct aph_rx_conn {
	struct aph_rx_node node; /* in the engine's client_conns or service_conns */
	struct aph_rx *rx;
	struct aph_rx_peer *peer;
	struct aph_list peer_link;
	struct aph_list idle_link;    /* in one of the engine's idle_* while n_calls is 0 */
	struct aph_list receipt_link; /* in the engine's receipts while a channel owes something */
	struct aph_list bundle_link;  /* client: in the client's conns, or in its spent ones */
	struct aph_rx_client *client; /* NULL at a service; and in one that leaves */
	const struct aph_rx_class *class;
	void *class_state;
	uint64_t idle_since_ns;
	uint64_t receipt_ns;
	uint64_t stray_ns; /* when a call of several packets ended last; 0: none has */
	uint32_t epoch, cid;
	uint32_t serial;  /* last one used */
	uint16_t service; /* as in packets */
	uint8_t n_calls;
	bool is_client;
	bool failed;   /* no new calls */
	bool spent;    /* client: no new calls, for any reason */
	bool asked;    /* client: its first call asked for an upgrade */
	bool probing;  /* client: asked for an upgrade and has no answer yet */
	bool answered; /* client: something has come back */
	bool unheard;  /* client: a call has ended of which nothing was heard */
	bool upgraded;
	int32_t abort_code; /* of the connection, when it failed by ABORT */
	struct aph_rx_channel channels[4];
};

struct aph_rx_client {
	struct aph_rx *rx;
	struct aph_list link;
	struct aph_rx_peer *peer;
	struct aph_list conns;	     /* at most connections_max; that take calls */
	struct aph_list spent;	     /* connections that do not */
	struct aph_list waiting;     /* calls without a channel */
	struct aph_list assign_link; /* in the engine's assigning */
	struct aph_list calls;	     /* all that are not freed */
	const struct aph_rx_class *class;
	uint16_t service;
	uint32_t n_conns; /* of conns */
	uint32_t n_begun; /* calls that have a channel */
	uint32_t connections_max;
	void *data;
};

struct aph_rx_service {
	struct aph_rx *rx;
	struct aph_rx_service *hash_next;
	uint16_t id;
	uint16_t upgrade_to;
	uint32_t credit;
	struct aph_list calls; /* not freed */
	void *data;
};

/* -- calls ------------------------------------------------------------------------------------- */

/*
 *   client:   WAITING --channel--> REQUEST --first reply DATA--> REPLY --all here-->
 *             COMPLETE --read or freed--> ENDED
 *   service:  REQUEST --all here--> WORK --first reply byte written--> REPLY
 *             --acknowledged for good--> ENDED
 *
 * Anything leads to ENDED by an abort, a time-out or an error. END is told at COMPLETE (client) or
 * ENDED.
 */
enum aph_rx_state {
	APH_RX_STATE_WAITING,
	APH_RX_STATE_REQUEST,
	APH_RX_STATE_WORK,
	APH_RX_STATE_REPLY,
	APH_RX_STATE_COMPLETE,
	APH_RX_STATE_ENDED,
};

struct aph_rx_timing {
	uint32_t serial;
	bool proves; /* nobody could guess it */
	uint64_t sent_ns;
};

#define APH_RX_N_TIMINGS 8

/* The half of a call that sends. Sequence numbers begin with 1. */
struct aph_rx_out {
	struct aph_rx_chunk **chunks; /* ring of n_chunks; packet seq is in chunk (seq - 1) / 16 */
	struct aph_rx_chunk *few_chunks[2];
	uint32_t n_chunks;
	uint32_t base; /* lowest packet that is not acknowledged for good */
	uint32_t next; /* next packet to be sent for the first time */
	uint32_t end;  /* next packet to be written */
	uint16_t fill; /* bytes in packet `end` */
	uint16_t payload_max;
	struct aph_rx_layout layout;
	bool inlined;  /* packet 1 is in the call itself, and the only one */
	bool finished; /* packet end - 1 is the last */
	bool started;  /* something was written */
	bool short_write;
	bool early_write;	   /* a reply was begun before the whole request was here */
	bool reserved;		   /* the user may write to packet `end` */
	struct aph_rx_chunk *lent; /* and still may, when the call has ended: the chunk with it */
	uint32_t window_end;	   /* first packet that the peer does not take yet */
	uint32_t previous;	   /* highest previousPacket seen */
	uint32_t base_serial;	   /* last one used when base moved */
	/* recovery */
	uint32_t n_flying, n_lost, n_sacked;
	uint32_t flying_head, flying_tail; /* in order of their last transmission */
	uint32_t lost_head;		   /* the lowest that is lost, 0: none */
	uint32_t acked_serial;		   /* highest of a transmission known to have arrived */
	uint32_t highest_sacked;
	uint64_t timeout_ns;   /* retransmission, or probe */
	uint64_t reorder_ns;   /* when those that look lost are */
	uint64_t pace_ns;      /* up to when packets have used their time */
	uint64_t pace_wait_ns; /* nothing leaves before; UINT64_MAX: not waiting */
	uint64_t last_sent_ns;
	uint8_t n_backoffs;
	uint8_t reorder_mult;
	bool reordering_seen;
	bool probed; /* a tail loss probe is under way */
	bool keep_ack_request;
	uint32_t n_ranges;
	uint32_t n_timings; /* in all; the last ones are kept */
	/* What follows is not cleared for a new call: it is set before it is looked at. */
	struct aph_rx_congest congest;
	struct aph_rx_timing timings[APH_RX_N_TIMINGS];
	struct aph_rx_range ranges[APH_RX_ACK_RANGES_MAX]; /* of the last extended ACK */
	struct aph_rx_meta inline_meta;
	uint8_t inline_packet[APH_RX_HEADER + APH_RX_INLINE_MAX];
};

/* The half of a call that receives. */
struct aph_rx_in {
	struct aph_rx_slot *slots; /* ring of n_slots; packet seq is in seq & (n_slots - 1) */
	uint32_t n_slots;
	uint32_t base;	     /* next packet to be read */
	uint32_t next;	     /* lowest packet that is not here */
	uint32_t highest;    /* highest packet that is here, 0: none */
	uint32_t last;	     /* the last packet of the body, 0: not known */
	uint32_t offset;     /* bytes of packet `base` that were read */
	uint32_t window_end; /* first packet beyond what was offered */
	size_t available;    /* bytes in base .. next - 1 not read */
	bool want;	     /* a read came up empty: READABLE is due */
	uint16_t life;	     /* client: of the server that replies, 0: it has not said */
	/* acknowledgement */
	uint8_t ack_reason; /* 0: none is pending */
	bool ack_now;
	uint32_t ack_serial;
	uint64_t ack_ns;
	uint32_t n_unacked;  /* packets that arrived since the last ACK */
	uint32_t n_consumed; /* packets read since the last ACK */
	struct aph_rx_slot few_slots[4];
};

#define APH_RX_FRESH_HARD  0x1u
#define APH_RX_FRESH_HEARD 0x2u /* and ping_ns */
#define APH_RX_FRESH_DATA  0x4u
#define APH_RX_FRESH_ALL   0x7u

struct aph_rx_call {
	/*
	 * Not stopped when the call ends, nor when its memory waits for the next call: most expire
	 * so late that they never do, and one that is too early only makes us look once too often.
	 */
	struct aph_rx_timer timer;
	/* From here up to out.congest all is cleared for a new call. */
	struct aph_rx *rx;
	struct aph_rx_conn *conn; /* NULL while it waits, and after the end */
	struct aph_rx_client *client;
	struct aph_rx_service *owner; /* at a service */
	struct aph_rx_peer *peer;
	struct aph_list link;	   /* in the client's or the service's calls */
	struct aph_list wait_link; /* in the client's waiting */
	struct aph_list send_link; /* in the engine's sending */
	struct aph_list event_link;
	struct aph_list fresh_link; /* in the engine's fresh */
	uint32_t events;	    /* bits 1 << enum aph_rx_event_type */
	enum aph_rx_state state;
	struct aph_rx_end end;
	uint32_t number;
	uint32_t serial_before; /* the connection's last one, when it got its channel */
	uint16_t service;
	uint8_t flags; /* APH_RX_CALL_* */
	uint8_t channel;
	bool is_client;
	bool user_holds;
	bool told; /* END is queued or was delivered */
	bool received;
	bool ping_due;
	uint8_t fresh; /* APH_RX_FRESH_*: times that were set by a clock that may be old */
	bool is_bulk;  /* it receives bulk, and counts for the receive budget */
	/*
	 * At a service: the rest of its request is, from a caller who had proven nothing when it
	 * began.
	 */
	bool awaited;
	uint32_t epoch, cid;
	uint64_t proof_ns; /* when an address that is not proven may be asked again */
	uint32_t n_busy;
	uint32_t n_sent, n_resent;
	bool bounced; /* client: the only copy of its first packet came back */
	bool vague; /* what has ended it may have been said about another call of its connection */
	uint64_t heard_ns;	   /* a packet of the call, or a sign of life */
	uint64_t spared_ns;	   /* heard_ns as it was set because we had been away */
	uint64_t data_ns;	   /* data moved */
	uint64_t ping_ns;	   /* next keep-alive */
	uint64_t dead_ns, idle_ns; /* how long each may last; idle 0: no limit */
	uint64_t hard_ns;	   /* when it is over at the latest */
	void *data;
	struct aph_rx_in in;
	struct aph_rx_out out;
};

/* -- engine ------------------------------------------------------------------------------------ */

/* Bytes of a packet that is sent once and is a large one: a RESPONSE. */
struct aph_rx_large {
	struct aph_rx_large *next; /* once it was handed out */
	uint32_t size;
	uint8_t bytes[];
};

/* A packet that is sent once: an answer outside connections, an ABORT, a CHALLENGE. */
struct aph_rx_raw {
	struct aph_rx_path path;
	uint16_t len;
	struct aph_rx_large *large; /* or NULL */
	uint8_t bytes[APH_RX_RAW_MAX];
};

/* What a group of addresses may have of us. */
struct aph_rx_limit {
	uint32_t n_calls; /* at our services that are not freed */
	uint32_t n_conns; /* at our services */
	uint32_t n_peers; /* that somebody refers to */
	uint32_t tokens;
	uint64_t filled_ns;
};

/*
 * Where the last DEBUG answer out of a list came from: `index` entries lie in the chains before
 * `head`.
 */
struct aph_rx_cursor {
	uint32_t query, n_heads;
	uint32_t index, head;
};

/* A message that is being put together. */
struct aph_rx_draft {
	struct aph_rx_peer *peer; /* NULL: raw */
	size_t first_iov, n_iov;
	size_t len, segment;
	size_t n_segments;
	bool staged; /* may be continued in the staging area */
	bool closed; /* its last packet is short: it cannot be continued */
	bool probe;
	bool fragment;
};

/* What only rxdebug wants to know. */
struct aph_rx_tally {
	uint64_t n_pings;
	uint64_t n_rtts, rtt_total_us, rtt_min_us, rtt_max_us;
};

/* Datagrams that are not to be looked at yet, see delay.c. */
struct aph_rx_delay {
	struct aph_rx_delayed *first, **last;
	size_t held; /* bytes */
};

struct aph_rx {
	struct aph_rx_config config;
	uint64_t now_ns;
	uint64_t late_ns; /* in all, by which the clock has jumped: no connection was idle then */
	uint64_t away_ns; /* how late we were told the time, the last time that it mattered */
	uint64_t back_ns; /* when that was over */
	uint64_t key[2];  /* of the hash tables */
	uint64_t proof_key[2]; /* of questions to addresses */
	uint32_t epoch;
	uint16_t life; /* as random, in the packets of our services; never 0 */
	uint64_t cid_key[2];
	uint32_t n_cids; /* connections of ours so far: see next_cid() */
	struct aph_rx_table peers, client_conns, service_conns;
	struct aph_rx_service *services[64];
	struct aph_list clients;
	struct aph_list orphans; /* ended calls that outlive their client or service */
	struct aph_list idle_peers, idle_clients, idle_spent, idle_services, receipts;
	uint32_t n_idle_peers;
	uint32_t n_receipts; /* connections in `receipts` */
	struct aph_list sending, ready, assigning;
	struct aph_list fresh; /* calls whose times were set by a clock that may be old */
	struct aph_rx_timers timers;
	struct aph_rx_delay delay;
	struct aph_rx_peer *last_peer;
	struct aph_rx_conn *last_conn;
	struct aph_rx_buffer *free_buffers, *free_cells, *free_small_cells;
	uint32_t n_free_buffers, n_free_cells, n_free_small_cells;
	struct aph_rx_chunk *free_chunks;
	uint32_t n_free_chunks;
	struct aph_list free_calls;
	uint32_t n_free_calls;
	uint32_t n_bulk;    /* calls that receive bulk */
	uint32_t n_served;  /* calls at our services that are not freed */
	uint32_t n_awaited; /* of them, those that are awaited */
	uint64_t held;	    /* bytes on the accounts of all peers */
	struct aph_rx_stats stats;
	struct aph_rx_tally tally;
	struct aph_rx_limit limits[APH_RX_N_LIMITS];
	struct aph_rx_cursor cursor;
	/* output */
	struct aph_rx_large *spent_large; /* handed out by the last aph_rx_send() */
	struct aph_rx_raw raw[APH_RX_N_RAW];
	uint32_t raw_first, n_raw;
	struct aph_rx_draft drafts[APH_RX_N_MESSAGES];
	size_t n_drafts, drafts_max;
	struct iovec iovs[APH_RX_N_IOVECS];
	size_t n_iovs;
	size_t staged; /* bytes of the staging area in use */
	uint8_t staging[APH_RX_STAGING];
};

/* -- engine.c */
uint32_t aph_rx_hash(const struct aph_rx *rx, const void *data, size_t len);
struct aph_rx_service *aph_rx_find_service(struct aph_rx *rx, uint16_t id);
void aph_rx_trace_packet_now(struct aph_rx *rx, enum aph_rx_trace_type type,
			     const struct aph_rx_path *path, const uint8_t *packet, size_t len,
			     const char *why);
static inline void aph_rx_trace_packet(struct aph_rx *rx, enum aph_rx_trace_type type,
				       const struct aph_rx_path *path, const uint8_t *packet,
				       size_t len, const char *why)
{
	if (rx->config.trace)
		aph_rx_trace_packet_now(rx, type, path, packet, len, why);
}
void aph_rx_trace_call_now(struct aph_rx_call *call, enum aph_rx_trace_type type, uint32_t seq,
			   const char *why);
static inline void aph_rx_trace_call(struct aph_rx_call *call, enum aph_rx_trace_type type,
				     uint32_t seq, const char *why)
{
	if (call->rx->config.trace)
		aph_rx_trace_call_now(call, type, seq, why);
}

/* What time it is: every function that is told comes here first. */
void aph_rx_set_now(struct aph_rx *rx, uint64_t now_ns);

/* -- delay.c */
void aph_rx_delay_put(struct aph_rx *rx, const struct aph_rx_path *path, const void *data,
		      size_t len, size_t segment);
/* When the first one is due; UINT64_MAX. */
uint64_t aph_rx_delay_next(const struct aph_rx_delay *delay);
/* Looks at those that are due. */
void aph_rx_delay_expire(struct aph_rx *rx);
void aph_rx_delay_deinit(struct aph_rx *rx);

/* -- memory.c */
void *aph_rx_alloc(struct aph_rx *rx, size_t size);
void *aph_rx_zalloc(struct aph_rx *rx, size_t size);
void aph_rx_release(struct aph_rx *rx, void *memory, size_t size);
/* A cell for one packet; NULL when memory is short. */
struct aph_rx_buffer *aph_rx_cell_new(struct aph_rx *rx, size_t len);
/* How large it is. */
size_t aph_rx_cell_size(size_t len);
void aph_rx_buffer_unref(struct aph_rx *rx, struct aph_rx_buffer *buffer);
struct aph_rx_chunk *aph_rx_chunk_new(struct aph_rx *rx);
void aph_rx_chunk_free(struct aph_rx *rx, struct aph_rx_chunk *chunk);
struct aph_rx_call *aph_rx_call_alloc(struct aph_rx *rx);
void aph_rx_call_release_memory(struct aph_rx_call *call);
void aph_rx_memory_deinit(struct aph_rx *rx);

/* -- table.c */
/* 0 or -ENOMEM. `node->hash` is set. */
int aph_rx_table_insert(struct aph_rx *rx, struct aph_rx_table *table, struct aph_rx_node *node);
void aph_rx_table_remove(struct aph_rx_table *table, struct aph_rx_node *node);
void aph_rx_table_deinit(struct aph_rx *rx, struct aph_rx_table *table);
/* The chain that an object with this hash would be in. */
static inline struct aph_rx_node *aph_rx_table_chain(const struct aph_rx_table *table,
						     uint32_t hash)
{
	return table->n_heads ? table->heads[hash & (table->n_heads - 1)] : NULL;
}

/* -- peer.c */
/*
 * Whether what came that way is from the peer; our own address may have been unknown when a client
 * was made.
 */
bool aph_rx_peer_is_at(const struct aph_rx_peer *peer, const struct aph_rx_path *path);
struct aph_rx_peer *aph_rx_peer_find(struct aph_rx *rx, const struct aph_rx_path *path);
/* Finds or makes it. NULL: no memory, or peers_max. */
struct aph_rx_peer *aph_rx_peer_get(struct aph_rx *rx, const struct aph_rx_path *path);
/*
 * The same for somebody who comes of his own accord. NULL as well: his group of addresses has its
 * share.
 */
struct aph_rx_peer *aph_rx_peer_admit(struct aph_rx *rx, const struct aph_rx_path *path);
void aph_rx_peer_ref(struct aph_rx_peer *peer);
void aph_rx_peer_unref(struct aph_rx_peer *peer);
void aph_rx_peer_expire(struct aph_rx *rx);
uint64_t aph_rx_peer_expiry(const struct aph_rx *rx);
void aph_rx_peer_free_all(struct aph_rx *rx);
/* Bytes of a packet's body for this peer. */
uint16_t aph_rx_peer_payload(const struct aph_rx_peer *peer);
/* Whether it may get so many bytes more; before its address is proven they are counted. */
bool aph_rx_peer_may_send(const struct aph_rx_peer *peer, size_t len);
/* The same for a PING, which is how it can prove its address. */
bool aph_rx_peer_may_ask(const struct aph_rx_peer *peer, size_t len);
/* A round trip to it took so long. */
void aph_rx_peer_round_trip(struct aph_rx_peer *peer, uint64_t ns);
void aph_rx_peer_prove(struct aph_rx_peer *peer);

/* -- conn.c */
struct aph_rx_conn *aph_rx_conn_find(struct aph_rx *rx, const struct aph_rx_path *path,
				     struct aph_rx_peer *peer, const struct aph_rx_header *header);
/*
 * A service's connection with these ids from whatever address, if they are said to be unique; NULL.
 */
struct aph_rx_conn *aph_rx_conn_find_elsewhere(struct aph_rx *rx,
					       const struct aph_rx_header *header);
/* Its client, idle until now, has another address. */
void aph_rx_conn_move(struct aph_rx_conn *conn, struct aph_rx_peer *peer);
struct aph_rx_conn *aph_rx_conn_new_client(struct aph_rx_client *client);
struct aph_rx_conn *aph_rx_conn_new_service(struct aph_rx *rx, struct aph_rx_peer *peer,
					    const struct aph_rx_header *header);
void aph_rx_conn_free(struct aph_rx_conn *conn);
void aph_rx_conn_attach(struct aph_rx_conn *conn, unsigned channel, struct aph_rx_call *call,
			uint32_t number);
/* The first packet of the channel's call: it says what was owed for the call before. */
void aph_rx_conn_begins(struct aph_rx_conn *conn, unsigned channel);
/* The channel is free; the client owes a receipt for a reply that it has read. */
void aph_rx_conn_release(struct aph_rx_conn *conn, struct aph_rx_call *call);
/* Client: it takes no new calls. */
void aph_rx_conn_spend(struct aph_rx_conn *conn);
/* Client: it has no calls and goes, as soon as it has said what is due. */
void aph_rx_conn_leave(struct aph_rx_conn *conn);
/* What is due on its channels leaves with the next send. */
void aph_rx_conn_hurry(struct aph_rx_conn *conn);
/* It owes nothing any more. */
void aph_rx_conn_quits(struct aph_rx_conn *conn);
/* The number of the channel's last call that the peer may have heard of. */
static inline uint32_t aph_rx_channel_heard(const struct aph_rx_channel *ch)
{
	return ch->call_number - (ch->call && ch->call->is_client && !ch->call->n_sent);
}
static inline bool aph_rx_conn_owes(const struct aph_rx_conn *conn)
{
	for (unsigned i = 0; i < 4; i++) {
		if (conn->channels[i].receipt_due || conn->channels[i].abort_due)
			return true;
	}
	return false;
}
/*
 * Forgets the connection of a service that has been idle for longest. False: there is none, or not
 * for long.
 */
bool aph_rx_conn_evict(struct aph_rx *rx);
/* Ends all its calls; it takes no new ones. */
void aph_rx_conn_fail(struct aph_rx_conn *conn, enum aph_rx_outcome outcome, int32_t code);
void aph_rx_conn_expire(struct aph_rx *rx);
uint64_t aph_rx_conn_expiry(const struct aph_rx *rx);
uint32_t aph_rx_conn_serial(struct aph_rx_conn *conn);
/* Of a packet about one of its calls, but for the serial; `flags`: those that the type has. */
static inline struct aph_rx_header aph_rx_conn_header(const struct aph_rx_conn *conn, uint32_t cid,
						      uint32_t call_number, uint8_t type,
						      uint8_t flags)
{
	return (struct aph_rx_header){
		.epoch = conn->epoch,
		.cid = cid,
		.call_number = call_number,
		.type = type,
		.flags = conn->is_client ? flags | APH_RX_CLIENT_INITIATED : flags,
		.security = conn->class->index,
		.service = conn->service,
	};
}
/* The next serial is one that nobody can guess. */
void aph_rx_conn_skip_serials(struct aph_rx_conn *conn);

/* -- client.c */
/*
 * A channel has become free: calls that wait for one get it with the next send, when nothing else
 * is under way.
 */
void aph_rx_client_assign(struct aph_rx_client *client);
void aph_rx_clients_assign(struct aph_rx *rx);

/* -- input.c */
/* As aph_rx_receive(), now. */
void aph_rx_input(struct aph_rx *rx, const struct aph_rx_path *path, const void *data, size_t len,
		  size_t segment, struct aph_rx_buffer *buffer);
void aph_rx_input_ack(struct aph_rx_call *call, const struct aph_rx_header *header,
		      const uint8_t *body, size_t len);

/* -- raw.c */
/*
 * Queues a packet that is sent once and remembered nowhere. False: it is dropped, as there is no
 * room, or no memory for a large one.
 */
bool aph_rx_raw_send(struct aph_rx *rx, const struct aph_rx_path *path,
		     const struct aph_rx_header *header, const uint8_t *body, size_t len);
/* Frees large packets that have left; and with `all` those that wait. */
void aph_rx_raw_forget(struct aph_rx *rx, bool all);
/* The group of addresses that the remote end of `path` belongs to: an index of limits[]. */
uint32_t aph_rx_group(const struct aph_rx *rx, const struct aph_rx_path *path);
/*
 * What a group may have of `max` things, of which others have so many: three quarters of what they
 * leave, so that nobody can take all.
 */
static inline uint32_t aph_rx_group_share(uint32_t max, uint32_t others)
{
	uint32_t left = max > others ? max - others : 0;

	return left - left / 4;
}
/* Whether `path` may have one more answer to something that anybody could have sent. */
bool aph_rx_limit_take(struct aph_rx *rx, const struct aph_rx_path *path);
bool aph_rx_send_abort(struct aph_rx_conn *conn, uint32_t cid, uint32_t call_number, int32_t code);

/* -- answer.c: VERSION and DEBUG packets */
void aph_rx_input_version(struct aph_rx *rx, const struct aph_rx_path *path,
			  const struct aph_rx_header *header);
void aph_rx_input_debug(struct aph_rx *rx, const struct aph_rx_path *path,
			const struct aph_rx_header *header, const uint8_t *body, size_t len);

#endif
