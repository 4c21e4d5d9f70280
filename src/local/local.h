/* SPDX-License-Identifier: MIT */
/*
 * The local transport's own objects, and what its files offer each other. All under the endpoint's
 * lock.
 */
#ifndef ANTIPHON_LOCAL_LOCAL_H
#define ANTIPHON_LOCAL_LOCAL_H

#include "core/transport.h"
#include "local/arena.h"
#include "local/ring.h"
#include "local/wake.h"

/* A client that lets more than this of its replies lie gets no further requests in. */
#define APH_KEPT_MAX (8u << 20)
/* Records with descriptors that are remembered until the peer has taken them. */
#define APH_FDS_SENT 64u

/* Descriptors that arrived on the socket ahead of their record: whole messages, in order. */
struct aph_fd_stash {
	uint16_t n_messages;
	uint16_t n_fds;
	uint8_t counts[APH_SOCKET_FDS_MAX];
	bool truncated[APH_SOCKET_FDS_MAX]; /* this process had no room for all of them */
	int fds[APH_SOCKET_FDS_MAX];
};

/* One index of the table of calls. */
struct aph_call_slot {
	struct aph_local_call *call;
	uint16_t generation; /* client */
	uint16_t next_free;  /* client: index plus one; 0 ends the list */
};

struct aph_local_channel {
	struct aph_channel base;
	struct aph_grave grave;
	struct aph_local *local;
	struct aph_list scan_link;    /* in the scan list (service) or the active list (client) */
	struct aph_list doomed_link;  /* in the doomed list */
	struct aph_list pending_link; /* service: in the list of newcomers */
	struct aph_list leaving_link; /* service: may be idle and so given to the next service */
	enum aph_reason doom;	      /* why it is to end at the next poll */

	int sock;
	int bell; /* eventfd; -1: a byte on the socket rings */
	/* The segment's memfd: kept for a newcomer that takes over, and while `is_new`; else -1. */
	int segment_fd;
	uint32_t sock_events; /* what epoll watches it for; 0: it does not */
	struct aph_source sock_source;
	struct aph_source bell_source;

	void *map;
	size_t map_size;
	const void *page_map; /* client: the endpoint page of the service */
	struct aph_segment_words *words;
	uint32_t depth, arena_size;
	struct aph_ring in, out;
	struct aph_arena out_arena;
	struct aph_intake intake;
	_Atomic uint32_t *my_want, *peer_want;

	struct aph_call_slot *slots;
	uint32_t n_slots;	 /* allocated */
	uint32_t n_in_use;	 /* client */
	uint32_t free_slot;	 /* client: index plus one */
	struct aph_list blocked; /* calls that wait for room, by blocked_link */
	size_t n_kept;		 /* service: bytes of replies that are kept for want of room */
	uint64_t last_ticks;	 /* service: when the last record came */
	uint32_t burst;		 /* service: records taken in this turn */
	uint32_t window_count;	 /* service: records taken in this window */
	bool competes;		 /* service: called as fast as it could in the last window */

	uint32_t rung_state;  /* client: the sleep of the service that was rung for */
	bool rang;	      /* client: the last record had to wake the service */
	bool receipts_ring;   /* the client rings for DISPOSE */
	bool moved;	      /* service: taken over, see handover.c */
	bool is_new;	      /* service: epoll has not reported the bell yet, which it does once */
	bool waits;	      /* client: `wait` is set */
	bool may_pipeline;    /* the client may set `pipelined` */
	bool pipelined;	      /* client: `pipelined` is set */
	uint8_t n_deep;	      /* client: calls that were not alone, before it is set */
	bool blocked_by_ring; /* something that is blocked needs a record, not the arena */
	bool fds_blocked;     /* the socket is full of descriptors */
	/* So many were under way when there was no room for more; 0: there was. */
	uint32_t fds_refused;
	uint8_t peer_cpu;

	struct aph_fd_stash *stash;
	uint32_t n_call_fds; /* came with calls, and nobody has taken them */
	struct {
		uint32_t record; /* the descriptors have arrived when this one was taken */
		uint32_t n;
	} fds_sent[APH_FDS_SENT];
	uint32_t fds_head, fds_tail, fds_under_way;
	struct aph_connecting *connecting; /* client: until it is open */
	uint64_t hello_deadline_ns;	   /* service: for a newcomer to say hello */
	int connect_error;		   /* client: why it could not be opened */
};

struct aph_local_call {
	struct aph_call base;
	struct aph_list blocked_link;

	/* call_init() sets these. */
	bool begun; /* a first record was published by this side */
	bool reserved;
	uint8_t farewell; /* record type still to be sent, 0: none */
	uint32_t tag;
	bool has_slot;
	uint16_t n_fds, fds_off;
	/* The body that arrives: the bytes that rode in the first record, then pieces. */
	uint16_t head; /* first piece */
	uint8_t inline_len, inline_off;
	size_t available;
	int *fds;
	/* The body that leaves. */
	size_t sent;   /* bytes of it */
	uint8_t *kept; /* by send_all() for want of room */

	/* These mean something when one of those says so. */
	uint16_t tail;	       /* last piece */
	uint32_t head_off;     /* bytes of the head that were read */
	uint32_t first_record; /* client: number of the REQUEST record */
	uint32_t reserved_off, reserved_len;
	int32_t farewell_value;
	size_t kept_len, kept_off;
	uint8_t inline_data[APH_INLINE_MAX];
};

struct aph_local {
	struct aph_transport base;
	struct aph_endpoint_page *page; /* NULL while nothing is served */
	int page_fd;
	uint32_t state; /* of the page */
	unsigned cpu;
	bool barriers;		/* a fence by the kernel reaches us */
	bool owes_barrier;	/* `pipelined` was taken back, and no such fence was made since */
	struct aph_list scan;	/* channels of services that are looked at without a bell */
	struct aph_list active; /* channels of clients with calls in progress */
	struct aph_list doomed;
	struct aph_list newcomers; /* connected, have not said hello */
	struct aph_list givers;	   /* services that may have a channel to give away */
	unsigned n_giving;	   /* services that give their channels away */
	unsigned n_moved;	   /* channels that were taken over */
	unsigned n_scan, n_active, n_newcomers;
	int spare_fd; /* given up to be able to turn somebody away */
	/* Half of what this process may open: from here on it counts whose they are. */
	int many_fds;
	uint64_t window_began; /* ticks */
	uint64_t yielded;      /* ticks: when a thread last let others run */
	uint32_t streak;       /* waits in a crowd that ended without a yield */
	uint32_t quota;	       /* requests that a channel may have taken in this window */
	struct aph_wake wake;
};

struct aph_local_service {
	struct aph_service base;
	struct aph_grave grave;
	struct aph_local *local;
	struct aph_source source;
	int listener;
	int dir_fd;
	char file[APH_NAME_MAX + 48];
	uint64_t serial;
	/* The listener of the service before, whose backlog is let in, too; else -1. */
	int inherited;
	struct aph_source inherited_source;
	bool taken;		   /* this one has taken over its name */
	struct aph_giving *giving; /* to the service that takes over */
	struct aph_taking *taking; /* from the service before */
};

static inline struct aph_local_channel *aph_local_channel(struct aph_channel *channel)
{
	return aph_container(channel, struct aph_local_channel, base);
}

static inline struct aph_local_call *aph_local_call(struct aph_call *call)
{
	return aph_container(call, struct aph_local_call, base);
}

static inline struct aph_local_channel *aph_local_channel_of(const struct aph_local_call *call)
{
	return aph_local_channel(call->base.channel);
}

/* -- transport.c: the instance of an endpoint */
int aph_local_get(struct aph_local **out, struct aph_endpoint *ep);
/* Makes the page that clients read; once there is a service. 0 or -errno. */
int aph_local_need_page(struct aph_local *local);

/* -- channel.c */
extern const struct aph_channel_ops aph_local_channel_ops;
/* Memory for a channel, not yet known to anybody. NULL: out of memory. */
struct aph_local_channel *aph_local_channel_new(struct aph_local *local);
/*
 * Lets go of what a peer's answer has brought, and of the socket. Another peer may be asked then.
 */
void aph_local_channel_detach(struct aph_local_channel *lc);
/* Frees one that aph_channel_init() has not seen, with its descriptors. */
void aph_local_channel_discard(struct aph_local_channel *lc);
/* Sets up rings and arenas on the mapped segment. */
void aph_local_channel_attach(struct aph_local_channel *lc, uint32_t depth, uint32_t arena,
			      bool is_client);
/* The peer broke the protocol (or memory ran out): the channel ends at the next poll. */
void aph_local_doom(struct aph_local_channel *lc, enum aph_reason reason);
/* Looks at this channel without being rung for it. */
void aph_local_scan(struct aph_local_channel *lc);
void aph_local_unscan(struct aph_local_channel *lc);
/* Closes the segment's memfd unless a newcomer may ask for it. */
void aph_local_close_segment(struct aph_local_channel *lc);

/* -- socket.c: bells and descriptors */
void aph_local_ring(struct aph_local_channel *lc);
/* 0, -EAGAIN (then the socket is watched), -EBADF, ... */
int aph_local_send_fds(struct aph_local_channel *lc, const int *fds, size_t n);
/* Takes the message that belongs to a record with `n` descriptors. 0, -EPROTO, -EMFILE, -ENOMEM. */
int aph_local_recv_fds(struct aph_local_channel *lc, int *fds, size_t n);
/* Takes in what lies on the socket. 0, or an error, and the channel is doomed. */
int aph_local_read_socket(struct aph_local_channel *lc);
/* Keeps descriptors of one message, which are taken in any case. 0, -EPROTO, -ENOMEM. */
int aph_local_stash_add(struct aph_local_channel *lc, const int *fds, size_t n, bool truncated);
void aph_local_stash_free(struct aph_local_channel *lc);
int aph_local_watch(struct aph_local_channel *lc);
void aph_local_unwatch(struct aph_local_channel *lc);
void aph_local_watch_room(struct aph_local_channel *lc, bool on);

/* -- send.c */
ssize_t aph_local_send(struct aph_call *call, const void *data, size_t len, const int *fds,
		       size_t n_fds, bool more);
int aph_local_send_all(struct aph_call *call, const void *data, size_t len);
int aph_local_reserve(struct aph_call *call, void **data, size_t *len);
int aph_local_commit(struct aph_call *call, size_t len, bool more);
bool aph_local_revoke(struct aph_call *call);
int aph_local_signal(struct aph_call *call, int32_t code);
void aph_local_farewell(struct aph_call *call, enum aph_farewell kind, int32_t value);
/* There may be room again: goes on with what was blocked. */
void aph_local_unblock(struct aph_local_channel *lc);
/* Descriptors that went with records which the peer has not taken. */
uint32_t aph_local_fds_under_way(struct aph_local_channel *lc);
/* Whether anything that is blocked, if it is, could go on. */
bool aph_local_found_room(struct aph_local_channel *lc);

static inline bool aph_local_has_room(struct aph_local_channel *lc)
{
	return !aph_list_empty(&lc->blocked) && aph_local_found_room(lc);
}

/* The peer waits for room, and there is some. */
void aph_local_tell_room(struct aph_local_channel *lc);

/*
 * This side has taken a record or given back a piece (after a full fence): tells a peer who waits
 * for it.
 */
static inline void aph_local_made_room(struct aph_local_channel *lc)
{
	if (atomic_load(lc->peer_want))
		aph_local_tell_room(lc);
}

/*
 * Gives back what lies behind the first `len` bytes of a piece that was not sent. Others may wait
 * for that room.
 */
void aph_local_trim_piece(struct aph_local_channel *lc, uint32_t off, uint32_t len);

/* Drops what send_all() kept. */
void aph_local_drop_kept(struct aph_local_call *call);

/* -- read.c */
/* Gives back all that the call still holds of either body. */
void aph_local_drop_rest(struct aph_local_call *call);

static inline void aph_local_drop_body(struct aph_local_call *call)
{
	if (call->available || call->fds || call->kept || call->reserved ||
	    !aph_list_empty(&call->blocked_link))
		aph_local_drop_rest(call);
}

ssize_t aph_local_read(struct aph_call *call, void *buf, size_t max, bool consume);
size_t aph_local_available(const struct aph_call *call);
int aph_local_borrow(struct aph_call *call, const void **data, size_t *len);
void aph_local_release(struct aph_call *call, size_t len);
ssize_t aph_local_take_fds(struct aph_call *call, int *fds, size_t max);

/* -- receive.c: records */
/*
 * Takes one record if one is there. 1: taken; 0: none; with `requests` false a REQUEST is left
 * alone and counts as none. The channel may be doomed afterwards.
 */
int aph_local_take(struct aph_local_channel *lc, bool requests);
/* Client: takes all that are there. True when there was one. */
bool aph_local_take_replies(struct aph_local_channel *lc);
/* The peer is gone: takes what it had published, requests aside, and ends the channel. */
void aph_local_hangup(struct aph_local_channel *lc);

/* -- segment.c: shared memory */
int aph_segment_make(int *out_fd, void **out_map, size_t size, const char *name,
		     bool read_only_to_peer);
/* Maps what a peer sent after checking its seals and size. 0 or -EPROTO, -ENOMEM, ... */
int aph_segment_map(void **out_map, int fd, size_t size, bool writable);

/* -- peer.c: who is at the other end, as the kernel says */
int aph_local_peer_credentials(struct aph_channel *channel, int sock);
bool aph_local_is_in_group(const struct aph_credentials *who, int64_t gid);
int aph_local_pidfd(struct aph_channel *channel);
/* Whether the other end of the socket is closed. */
bool aph_local_has_left(const struct aph_local_channel *lc);

/* -- connect.c */
/* Ends the search that a connecting channel is engaged in. */
void aph_local_connecting_free(struct aph_local_channel *lc);

/* -- register.c */
/*
 * Shows the service's name, settles with others that have it, and tidies up after the dead. 0 or
 * -errno.
 */
int aph_local_register(struct aph_local_service *ls);

/* -- share.c: who may come in, and how much of the service each user may have */
/* One kind of permission that both sides allow has to fit; `allow`: APH_ALLOW_*. */
bool aph_local_is_allowed(const struct aph_service *service, const struct aph_credentials *who,
			  uint32_t allow);
/* Whether this client may use the service, whatever it said when it came. */
bool aph_local_may_enter(const struct aph_service *service, const struct aph_credentials *who);
/* Whoever could end the process anyway. */
bool aph_local_is_master(const struct aph_credentials *who);
/* Whether this client may have one more channel. O(channels of the service). */
bool aph_local_has_share(const struct aph_service *service, const struct aph_credentials *who);
/* Whether this client may make us hold so many descriptors more. O(channels of the service). */
bool aph_local_may_hold(const struct aph_local_channel *lc, size_t n_fds);
/*
 * The limit on open files may change while the service runs; who opens a channel pays for looking.
 */
void aph_local_note_limit(struct aph_local *local);

/* -- listen.c */
void aph_local_newcomer_drop(struct aph_local_channel *lc);
void aph_local_newcomer_expire(struct aph_local *local, uint64_t now_ns);
/* Takes the name away; connections that wait stay in the socket's queue. */
void aph_local_stop_listening(struct aph_local_service *ls);
/* Lets in who waits at the listener of the service before. Takes `fd` on success. */
int aph_local_inherit(struct aph_local_service *ls, int fd);

/* -- give.c: to the next service */
struct aph_hello;
/* Offers everything to a newcomer and takes `sock` to it. 0, or -EACCES, -EBUSY, ... */
int aph_local_offer(struct aph_local_service *ls, int sock, const struct aph_hello *hello);
/* The channel may have fallen idle. */
void aph_local_may_leave(struct aph_local_channel *lc);
/* Gives away what is idle: called while `givers` is not empty. */
void aph_local_give(struct aph_local *local);
/* The same for all channels of a service that is about to close. */
void aph_local_give_last(struct aph_local_service *ls);
void aph_local_give_stop(struct aph_local_service *ls);
/* Nothing more comes from the service before: our user may end too, if we have been taken over. */
void aph_local_taken_all(struct aph_local_service *ls);

/* -- handover.c: from the service before */
/*
 * Asks who serves at the other end of `sock`, which is taken in any case, for its name and its
 * channels, and waits a while for them. True when the name is ours now.
 */
bool aph_local_take_over(struct aph_local_service *ls, int sock);
/*
 * The service ends, or we are in a child and it belongs to the parent: ends all talk with others.
 */
void aph_local_handover_free(struct aph_local_service *ls);
/*
 * The endpoint is about to sleep, or is awake again: what clients of channels that moved need to
 * know.
 */
void aph_local_moved_asleep(struct aph_local *local);
void aph_local_moved_awake(struct aph_local *local);

#endif
