/* SPDX-License-Identifier: MIT */
/*
 * Ports, the messages in them, and the peers they come from.
 *
 * A port is one aph_endpoint with one service or one channel in it. Its lock protects everything
 * here and is never held while a thread waits. One thread at a time, the receiver, is in
 * aph_endpoint_next(), so that events are handled in the order in which they came; it is a thread
 * of the program, or the attendant, a thread of ours that stands in while the program is elsewhere
 * (attendant.c).
 *
 * The struct of a port is never freed, only used again: a number that was closed leads to a closed
 * port.
 */
#ifndef FACADE_CAPS_PORT_H
#define FACADE_CAPS_PORT_H

#include "lock.h"

#include <antiphon/antiphon.h>
#include <sys/caps.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of the channel behind a client port, and behind each connection of a service. */
#define APH_CAPS_DEPTH	   256u
#define APH_CAPS_CALLS_MAX 4096u

struct aph_caps_port;

struct aph_caps_link {
	struct aph_caps_link *next, *prev;
};

/* The other end of a connection: a client at a service, the service at a client. */
struct aph_caps_peer {
	struct aph_caps_link link; /* in the port's peers */
	unsigned refs;		   /* one of the connection, one of each message */
	struct caps_cred cred;
	struct aph_channel *channel;   /* NULL once it was let go */
	struct aph_caps_link messages; /* all that came of this peer, by peer_link */
	size_t bytes;		       /* private memory that its messages hold in this process */
	size_t bytes_max;
	size_t bytes_replied; /* in replies that it has not retrieved */
	unsigned n_gathered;  /* whole messages in private memory that were not retrieved yet */
	bool announced;	      /* CAPMS_CONNECT was retrieved */
};

/*
 *   client:   OUTGOING -> SENT -> READY (a reply) -> freed when retrieved
 *   service:  ARRIVING -> READY (a request) -> HELD -> REPLIED -> READY (a dispose)
 *             -> freed when retrieved;
 *             notices are READY from the beginning
 */
enum aph_caps_stage {
	APH_CAPS_UNUSED,
	APH_CAPS_OUTGOING, /* client: something of the request is still to be sent */
	APH_CAPS_SENT,	   /* client: the reply is not here, or not all of it */
	APH_CAPS_ARRIVING, /* service: the request is not all here */
	APH_CAPS_READY,	   /* to be retrieved as `state` says */
	APH_CAPS_HELD,	   /* service: retrieved, not answered */
	APH_CAPS_REPLIED,  /* service: answered, its dispose is to come */
};

struct aph_caps_message {
	struct aph_caps_link link; /* in the queue `ready` or `outgoing` of the port */
	struct aph_caps_link peer_link;
	struct aph_caps_peer *peer; /* NULL for CAPMS_TERM */
	struct aph_call *call; /* NULL for a notice, before the call was begun, and after its end */
	off_t id;
	off_t about; /* CAPMS_ABORT: the request that it is about */
	caps_msg_state_t state;
	enum aph_caps_stage stage;
	bool begun;    /* client: the reply has begun to arrive */
	bool peeked;   /* its beginning was retrieved: it may be answered unread */
	bool gathered; /* it counts in the peer's n_gathered */
	bool gone;     /* service: the client went away before the reply; this is its dispose */
	bool taken;    /* service: a hard abort took it away */
	bool reminded; /* service: a CAPMS_ABORT about it waits to be retrieved */
	int error;     /* retrieving it fails with this errno value */
	char *body;    /* what of the arriving body is in private memory */
	size_t body_len;
	size_t body_size;
	char *out;	/* OUTGOING: what had no room at once */
	size_t out_len; /* REPLIED: the length of the reply */
	size_t out_sent;
};

/*
 * The places of messages: an id leads to its place, and is worth nothing once the place was used
 * again.
 */
#define APH_CAPS_POOL_CHUNK 64u
struct aph_caps_pool {
	struct aph_caps_message **chunks;
	uint32_t n_chunks;
	struct aph_caps_link unused;
	off_t serial;
};

enum aph_caps_life {
	APH_CAPS_FREE,
	APH_CAPS_OPEN,
	APH_CAPS_CLOSING,
	APH_CAPS_FORKED, /* in a child: it was open in the parent */
	APH_CAPS_STALE,	 /* in a child: free, but for the remains of the parent's port */
};

enum aph_caps_receiver {
	APH_CAPS_NOBODY,
	APH_CAPS_PROGRAM,
	APH_CAPS_ATTENDANT
};

/* Whom to tell that there is something to retrieve. */
struct aph_caps_upcall {
	int fd; /* the caller's eventfd, duplicated; -1 if none */
	caps_upcall_t function;
	void *arg;
};

enum aph_caps_thread {
	APH_CAPS_NO_THREAD,
	APH_CAPS_RUNNING,
	APH_CAPS_ENDED
};

struct aph_caps_port {
	_Atomic uint32_t lock;
	int number;
	_Atomic int life; /* enum aph_caps_life; written with the lock held */
	caps_type_t type;
	int flags;
	struct aph_endpoint *ep;
	int bytes_max; /* per peer, as set with caps_limit(); -1: by who the peer is */

	struct aph_caps_pool pool;
	struct aph_caps_link ready; /* what can be retrieved, oldest first */
	struct aph_caps_link peers;

	/* service */
	struct aph_service *service;
	int n_connections; /* ever: the last number given out */

	/* client */
	struct aph_caps_peer *server; /* NULL until it is connected */
	struct aph_caps_link outgoing;
	unsigned n_in_progress;
	bool connecting;   /* CAPF_ASYNC: the service has not answered yet */
	bool disconnected; /* and will never be anything else */
	struct aph_name name;
	bool awaited; /* CAPF_ASYNC and CAPF_WAITSVC: nobody serves the name yet */

	/* for aph_caps_looked() */
	bool received; /* since it was last asked */
	uint64_t asked_ticks, looked_ticks;

	/* who receives */
	enum aph_caps_receiver receiver;
	bool called_back;	 /* the attendant was asked to step aside */
	unsigned n_followers;	 /* threads of the program that wait for the receiver */
	_Atomic uint32_t turn;	 /* futex: changes when followers should look again */
	uint64_t visits;	 /* how often the program has come to receive */
	_Atomic uint32_t closed; /* futex, for caps_sys_close(): a receiver or follower has left */

	/* attendant */
	enum aph_caps_thread thread_state;
	pthread_t thread;
	_Atomic uint32_t attention; /* futex: what the attendant waits on */
	bool stop;
	pthread_t closer; /* valid with `stop`: the thread that closes the port */
	bool parked;	  /* it waits until the program leaves */
	bool opening;	  /* it is in aph_channel_open() */

	/* notification */
	struct aph_caps_upcall upcall;
	bool fresh; /* what can be retrieved has not been told of */
	bool upcall_due;
	int own_fd;	 /* of caps_upcall_fd(); -1 until asked for */
	bool own_raised; /* own_fd is readable */
};

/* -- message.c --------------------------------------------------------------------------------- */

void aph_caps_link_init(struct aph_caps_link *head);
void aph_caps_link_append(struct aph_caps_link *head, struct aph_caps_link *link);
void aph_caps_link_remove(struct aph_caps_link *link);

static inline bool aph_caps_link_empty(const struct aph_caps_link *head)
{
	return head->next == head;
}

#define APH_CAPS_CONTAINER(link, type, member) ((type *)((char *)(link)-offsetof(type, member)))

/* A new message of a peer, or NULL when memory is short. `peer` may be NULL. */
struct aph_caps_message *aph_caps_message_new(struct aph_caps_port *port,
					      struct aph_caps_peer *peer);
/* Frees it with its body and its call, wherever it is. */
void aph_caps_message_free(struct aph_caps_port *port, struct aph_caps_message *m);
/* The message with this id, or NULL. */
struct aph_caps_message *aph_caps_message_find(struct aph_caps_port *port, off_t id);
/* Says whose it is, if it was made before that was known. */
void aph_caps_message_adopt(struct aph_caps_message *m, struct aph_caps_peer *peer);
/* Makes it the last of those that can be retrieved. */
void aph_caps_message_ready(struct aph_caps_port *port, struct aph_caps_message *m,
			    caps_msg_state_t state);
/* The oldest message that can be retrieved, or NULL. */
struct aph_caps_message *aph_caps_message_first(struct aph_caps_port *port);
/* Frees every message and all memory of the pool. */
void aph_caps_pool_deinit(struct aph_caps_port *port);

struct aph_caps_peer *aph_caps_peer_new(struct aph_caps_port *port, struct aph_channel *channel);
void aph_caps_peer_unref(struct aph_caps_peer *peer);
/* Asks again who it is. Nobody may be receiving. */
void aph_caps_peer_refresh(struct aph_caps_peer *peer);
/* Puts the limits of the port into force for its peers. */
void aph_caps_peer_limits(struct aph_caps_port *port);

/* -- body.c ------------------------------------------------------------------------------------ */

enum aph_caps_body {
	APH_CAPS_BODY_PART,
	APH_CAPS_BODY_WHOLE
};

/*
 * Takes what has arrived of the message's body into private memory, unless all of it has arrived:
 * what remains then is left in the channel until it is retrieved. The enum, or -EMSGSIZE (beyond
 * the peer's limit), -ENOMEM, -EPIPE (the rest will not come).
 */
int aph_caps_body_step(struct aph_caps_message *m);
/* The length of a body that is all here. */
size_t aph_caps_body_len(const struct aph_caps_message *m);
/* Copies the first `max` bytes of a body that is all here, and leaves it as it is. 0 or -EPIPE. */
int aph_caps_body_peek(struct aph_caps_message *m, char *buf, size_t max);
/* Copies all `len` bytes of it and lets it go. 0 or -EPIPE. */
int aph_caps_body_take(struct aph_caps_message *m, char *buf, size_t len);
/* Keeps a copy of what is to be sent. 0 or -ENOMEM. */
int aph_caps_body_keep(struct aph_caps_message *m, const char *data, size_t len);
/* The message can be retrieved: what of it is in private memory counts for its peer. */
void aph_caps_body_gathered(struct aph_caps_message *m);
/*
 * The peer whose other messages may wait for this one: when it goes, aph_caps_resume() is due. Or
 * NULL.
 */
static inline struct aph_caps_peer *aph_caps_held_up(const struct aph_caps_message *m)
{
	return m->gathered ? m->peer : NULL;
}
/* Lets the private memory go, in both directions. */
void aph_caps_body_drop(struct aph_caps_message *m);

/* -- table.c ----------------------------------------------------------------------------------- */

/* The port with this number, locked; or NULL and errno: EINVAL, ENOTCONN after a fork. */
struct aph_caps_port *aph_caps_port_lock(int number);
/* The same, and of this type (else EINVAL). */
struct aph_caps_port *aph_caps_port_lock_type(int number, caps_type_t type);
/* The same for a port that is about to be closed: a forked one is good too. */
struct aph_caps_port *aph_caps_port_lock_any(int number);
static inline void aph_caps_port_relock(struct aph_caps_port *port)
{
	aph_caps_word_lock(&port->lock);
}

static inline void aph_caps_port_unlock(struct aph_caps_port *port)
{
	aph_caps_word_unlock(&port->lock);
}

/* Wakes `n` of those who sleep on one of the port's futexes. With the lock held. */
static inline void aph_caps_ring(_Atomic uint32_t *word, int n)
{
	atomic_fetch_add_explicit(word, 1, memory_order_relaxed);
	aph_caps_futex_wake(word, n);
}

/* A free port with the lowest number, locked, all of it in its first state; or NULL and errno. */
struct aph_caps_port *aph_caps_port_claim(caps_type_t type, int flags);
/*
 * Waits, unlocked, until one of the port's futexes rings, for so long at most; 0: without a limit.
 */
long aph_caps_port_sleep(struct aph_caps_port *port, _Atomic uint32_t *word, unsigned ms);
/*
 * The last step of opening: runs the attendant if the port needs one, and unlocks. The number; or
 * -1 and errno, and the port is closed.
 */
int aph_caps_port_start(struct aph_caps_port *port);
/* Frees what the port holds. It is closed to everybody else; no thread is in its endpoint. */
void aph_caps_port_scrub(struct aph_caps_port *port);

/* -- receive.c --------------------------------------------------------------------------------- */

/*
 * One step of a thread of the program that wants messages: takes an event, or waits while another
 * thread does. 0 when it should look again; -EAGAIN (only with APH_NOW), -EINTR, or an error of the
 * endpoint.
 */
int aph_caps_receive(struct aph_caps_port *port, uint64_t deadline_ns);
/* Takes all events that are there now. */
void aph_caps_receive_all(struct aph_caps_port *port);
/*
 * The same as caps_sys_close() and others leave a port: tells whoever waits that the receiver has
 * gone.
 */
void aph_caps_leave(struct aph_caps_port *port);
/* Goes on with what waited until memory of this peer was given back. Accepts NULL. */
void aph_caps_resume(struct aph_caps_port *port, struct aph_caps_peer *peer);
/* Handles one event. */
void aph_caps_event(struct aph_caps_port *port, const struct aph_event *ev);

/* -- service.c, client.c ----------------------------------------------------------------------- */

void aph_caps_service_event(struct aph_caps_port *port, const struct aph_event *ev);
void aph_caps_client_event(struct aph_caps_port *port, const struct aph_event *ev);
/* Before it closes: gives the clients a little time to take long replies in. */
void aph_caps_service_linger(struct aph_caps_port *port);
/* Goes on with a message that has arrived in part. */
void aph_caps_service_gather(struct aph_caps_port *port, struct aph_caps_message *m);
void aph_caps_client_gather(struct aph_caps_port *port, struct aph_caps_message *m);
/* Sends what has room. */
void aph_caps_client_pump(struct aph_caps_port *port);
/* Ends a message without an answer: it comes back as an empty reply, or fails with `error`. */
void aph_caps_client_come_back(struct aph_caps_port *port, struct aph_caps_message *m, int error);
/* The service has answered. 0, or -ENOMEM: the channel is closed then. */
int aph_caps_client_connected(struct aph_caps_port *port, struct aph_channel *channel);
/* It never will, or will never again. */
void aph_caps_client_disconnected(struct aph_caps_port *port);
/* The attendant's part of a connection that is made while the program goes on. */
void aph_caps_client_connect(struct aph_caps_port *port);
/* 0 when the name is well formed, else an errno value. */
int aph_caps_name(struct aph_name *out, const char *name, uid_t uid, gid_t gid);
/* Sets errno from a negative result, and returns -1. */
int aph_caps_fail(int r);

static inline bool aph_caps_is_open(const struct aph_caps_port *port)
{
	return atomic_load_explicit(&port->life, memory_order_relaxed) == APH_CAPS_OPEN;
}

/* -- attendant.c ------------------------------------------------------------------------------- */

/* Sees to it that the attendant runs if it is needed, and that it looks. 0 or an errno value. */
int aph_caps_attend(struct aph_caps_port *port);
/*
 * Ends it; the lock is given up meanwhile. False when it is the calling thread, and ends by itself.
 */
bool aph_caps_attend_stop(struct aph_caps_port *port);

/* -- upcall.c ---------------------------------------------------------------------------------- */

/*
 * What an upcid stands for. 0, or an errno value. The duplicate is closed by
 * aph_caps_upcall_deinit().
 */
int aph_caps_upcall_init(struct aph_caps_upcall *upcall, int upcid);
void aph_caps_upcall_deinit(struct aph_caps_upcall *upcall);
/* Around a fork. */
void aph_caps_upcall_lock(void);
void aph_caps_upcall_unlock(void);
/* Whether somebody wants to be told. */
bool aph_caps_upcall_wanted(const struct aph_caps_port *port);
/* Tells them if there is something to retrieve, and takes it back if there is not. */
void aph_caps_upcall_tell(struct aph_caps_port *port);

#endif
