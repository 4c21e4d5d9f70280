/* SPDX-License-Identifier: MIT */
/*
 * What two processes of the local transport agree on: the messages of the rendezvous socket, the
 * shared segment of a channel, and the page of an endpoint. Any change here is a new
 * APH_LOCAL_VERSION.
 *
 * One cache line has one writer. The other side is hostile: every word it wrote is loaded once into
 * a private copy, checked, and only the copy is used.
 *
 * Offsets in the segment, for a ring of `depth` records and arenas of `arena` bytes:
 *
 *   0                      struct aph_segment_words, then revoked[2 * depth]
 *   4096                   request ring: depth records     (written by the client)
 *   4096 + 64 * depth      reply ring: depth records       (written by the server)
 *   next page              request arena: arena bytes      (written by the client)
 *   + arena                reply arena: arena bytes        (written by the server)
 */
#ifndef ANTIPHON_LOCAL_LAYOUT_H
#define ANTIPHON_LOCAL_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define APH_LOCAL_MAGIC	  0x6e687061u /* "aphn" */
#define APH_LOCAL_VERSION 1u

#define APH_LINE 64u
#define APH_PAGE 4096u

#define APH_DEPTH_MIN	    32u
#define APH_DEPTH_MAX	    512u
#define APH_CALLS_DEFAULT   1024u
#define APH_CALLS_MAX	    4096u
#define APH_ARENA_MIN	    (64u << 10)
#define APH_ARENA_DEFAULT   (256u << 10)
#define APH_ARENA_MAX	    (16u << 20)
#define APH_ARENA_UNITS_MAX 512u
#define APH_INLINE_MAX	    40u

/* -- records ----------------------------------------------------------------------------------- */

enum aph_record_type {
	/* Client: first piece of a request; aux: deadline, CLOCK_MONOTONIC ns. */
	APH_RECORD_REQUEST = 1,
	/* Either: a further piece, always in the arena unless it is empty. */
	APH_RECORD_BODY = 2,
	APH_RECORD_CANCEL = 3,	/* client: gives the call up; aux: enum aph_reason */
	APH_RECORD_DISPOSE = 4, /* client: the whole reply was taken */
	APH_RECORD_REPLY = 5,	/* server: first piece of a reply */
	APH_RECORD_ABORT = 6,	/* server: aux: the code, as int32_t */
	APH_RECORD_REFUSE = 7,	/* server: aux: enum aph_reason */
	APH_RECORD_LOSE = 8,	/* server: ended unanswered, may have run; aux: enum aph_reason */
	/* Client: a word about a call that goes on; aux: the code, as int32_t. */
	APH_RECORD_SIGNAL = 9,
};

#define APH_RECORD_MORE	 0x1u /* the body goes on */
#define APH_RECORD_ARENA 0x2u /* the piece lies in the arena at `off`, not in `data` */

/*
 * One record, one cache line. `seq` is the record's number, from 1; it is stored last, with
 * release, and that publishes the record. There is no shared head or tail.
 */
struct aph_record {
	_Atomic uint32_t seq;
	uint8_t type;
	uint8_t flags;
	uint8_t n_fds; /* descriptors wait on the socket, in one message of their own */
	uint8_t cpu;   /* low bits of the CPU that the sender ran on */
	uint32_t tag;  /* index of the call (16 bits), generation of that index (16 bits) */
	uint32_t len;
	uint64_t aux;
	union {
		uint32_t off;
		uint8_t data[APH_INLINE_MAX];
	};
};

static_assert(sizeof(struct aph_record) == APH_LINE, "a record is one cache line");
static_assert(offsetof(struct aph_record, data) == 24, "forty bytes ride in the record");

#define APH_TAG(index, generation) ((uint32_t)(index) | (uint32_t)(generation) << 16)
#define APH_TAG_INDEX(tag)	   ((tag)&0xffffu)

/* -- the segment of a channel ------------------------------------------------------------------ */

struct aph_segment_words {
	/*
	 * All of it is 0 at first, so that a channel nobody has used has no page. The sizes are in
	 * the welcome.
	 */
	_Alignas(APH_LINE) _Atomic int64_t generation; /* of the service; written by the server */

	/*
	 * What is written seldom and read by the other side with every record stays apart from what
	 * is written with every record and read seldom.
	 */

	/* Written by the client. `wait` and `want` are claimed (set to 0) by the server. */
	_Alignas(APH_LINE) struct {
		_Atomic uint32_t wait; /* 1: it sleeps and is to be rung for a reply */
		_Atomic uint32_t want; /* 1: it is to be told when there is room */
		/*
		 * 1: neither side makes a fence between publishing a record and looking whether the
		 * other sleeps; so who falls asleep has the kernel make one on every CPU.
		 */
		_Atomic uint32_t pipelined;
	} client;

	/* Written by the server. `want` is claimed by the client. */
	_Alignas(APH_LINE) struct {
		_Atomic uint32_t scanned; /* 1: it looks at this ring without being rung */
		_Atomic uint32_t want;
		/* 1: the first server's page counts no more, only `scanned`. */
		_Atomic uint32_t moved;
	} server;

	/* The number of the last one: of replies by the client, of requests by the server. */
	_Alignas(APH_LINE) _Atomic uint32_t replies_taken;
	_Alignas(APH_LINE) _Atomic uint32_t requests_taken;

	/*
	 * A set bit: the piece that began at this unit was used up. Set by the receiver, the client
	 * of a reply and the server of a request; cleared by the sender.
	 */
	_Alignas(APH_LINE) _Atomic uint64_t reply_released[APH_ARENA_UNITS_MAX / 64];
	_Alignas(APH_LINE) _Atomic uint64_t request_released[APH_ARENA_UNITS_MAX / 64];

	/*
	 * revoked[i % (2 * depth)] 1: record i is withdrawn. Set by the client; cleared by the
	 * server, who drops the record then, or by the client who sees that it was taken: who
	 * clears it has decided. Two laps, as the server looks when it has taken the record, and so
	 * the next lap may have begun.
	 */
	_Alignas(APH_LINE) _Atomic uint8_t revoked[];
};

#define APH_REVOKED_MASK(depth) (2 * (depth)-1)

static_assert(sizeof(struct aph_segment_words) + 2 * (size_t)APH_DEPTH_MAX <= APH_PAGE,
	      "the words and the revocations share the first page");

static inline size_t aph_layout_ring(uint32_t depth, int reply)
{
	return APH_PAGE + (reply ? (size_t)depth * sizeof(struct aph_record) : 0);
}

static inline size_t aph_layout_arena(uint32_t depth, uint32_t arena, int reply)
{
	size_t rings = 2 * (size_t)depth * sizeof(struct aph_record);

	return APH_PAGE + (rings + APH_PAGE - 1) / APH_PAGE * APH_PAGE + (reply ? arena : 0);
}

static inline size_t aph_layout_size(uint32_t depth, uint32_t arena)
{
	return aph_layout_arena(depth, arena, 1) + arena;
}

/* Whether these are figures of a channel. */
static inline bool aph_layout_is_sane(uint32_t depth, uint32_t arena, uint32_t calls_max)
{
	return depth >= APH_DEPTH_MIN && depth <= APH_DEPTH_MAX && !(depth & (depth - 1)) &&
	       arena >= APH_ARENA_MIN && arena <= APH_ARENA_MAX && !(arena & (arena - 1)) &&
	       calls_max >= 1 && calls_max <= APH_CALLS_MAX;
}

/* -- the page of an endpoint that serves: read-only to its clients ----------------------------- */

#define APH_PAGE_ASLEEP 0x1u /* low bit of `state`; the rest counts sleeps */

struct aph_endpoint_page {
	_Alignas(APH_LINE) _Atomic uint32_t state;
	_Atomic uint32_t cpu;
	_Atomic uint32_t n_active; /* channels that it scans */
};

/* -- messages on the socket -------------------------------------------------------------------- */

enum aph_hello_kind {
	APH_HELLO_CALLS = 1,	 /* open a channel */
	APH_HELLO_STATS = 2,	 /* one struct aph_stats_message, then the socket closes */
	APH_HELLO_TERMINATE = 3, /* ask the service to end */
	APH_HELLO_TAKE = 4,	 /* ask for its listening socket and its idle channels */
};

/*
 * Client to server, the first message. With APH_HELLO_TAKE a newcomer says what it can take:
 * APH_WELCOME_* in `allow` (what its channels must bring), the number of channels in `depth`, and
 * limits of each.
 */
struct aph_hello {
	uint32_t magic;
	uint16_t version;
	uint16_t kind;
	uint32_t allow; /* APH_ALLOW_* */
	uint32_t depth;
	uint32_t calls_max;
	uint32_t arena;
};

/*
 * Server to client, the answer. With status 0 to APH_HELLO_CALLS it carries the segment, the
 * endpoint's page and, with APH_WELCOME_BELL, the eventfd, in this order. Segment: sealed against
 * shrinking, growing and further seals. Page: against shrinking, growing, future writing and
 * further seals.
 */
struct aph_welcome {
	uint32_t magic;
	uint16_t version;
	uint16_t status; /* 0, or an errno value */
	uint32_t depth;
	uint32_t calls_max;
	uint32_t arena;
	uint32_t flags; /* APH_WELCOME_* */
};

#define APH_WELCOME_BELL	 0x1u /* an eventfd rings; else a byte on the socket does */
#define APH_WELCOME_RECEIPTS	 0x2u /* the service wants DISPOSE */
#define APH_WELCOME_RECEIPTS_NOW 0x4u /* and wants to be rung for it */
#define APH_WELCOME_BARRIERS	 0x8u /* the client may set `pipelined` */

/* Afterwards, both ways, one byte: */
#define APH_SOCKET_BELL	   'b' /* look at your ring */
#define APH_SOCKET_FDS	   'd' /* carries the descriptors of one record */
#define APH_SOCKET_MOVED   'm' /* server, after a handover: carries the page of who serves now */
#define APH_SOCKET_FDS_MAX 256 /* descriptors under way in one direction */

/* -- handover: between two services of one user, both trusted ---------------------------------- */

/*
 * The giver answers APH_HELLO_TAKE with struct aph_welcome to refuse, or with the listener. It
 * gives nothing more, and goes on listening, until the newcomer has said APH_HANDOVER_YES.
 */
#define APH_HANDOVER_YES 'y'

enum aph_handover_kind {
	APH_HANDOVER_LISTENER = 1, /* carries the listening socket */
	APH_HANDOVER_CHANNEL = 2,  /* carries socket, segment and, with APH_WELCOME_BELL, eventfd */
	/* Carries descriptors that the giver had received ahead of their record. */
	APH_HANDOVER_FDS = 3,
	APH_HANDOVER_DONE = 4, /* what was idle has been sent; more may follow as it falls idle */
};

struct aph_handover {
	uint32_t magic;
	uint16_t version;
	uint16_t kind;
	uint32_t flags;	     /* of a channel: APH_WELCOME_* */
	uint32_t n_messages; /* of a channel: so many of APH_HANDOVER_FDS follow */
	int64_t generation;  /* of the service */
	uint32_t depth;
	uint32_t calls_max;
	uint32_t arena;
	uint32_t requests_taken;
	uint32_t replies_sent;
	uint32_t replies_taken;
	uint32_t fds_under_way; /* sent with replies that were not taken yet */
	uint32_t uid, gid;	/* of the client, its real ones */
	uint32_t truncated;	/* of descriptors: some did not arrive */
	/*
	 * The reply arena: by first unit the units of the piece there. Left out when it is empty.
	 */
	uint16_t n_of[APH_ARENA_UNITS_MAX];
};

#define APH_HANDOVER_SHORT offsetof(struct aph_handover, n_of)

#endif
