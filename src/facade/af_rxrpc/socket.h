/* SPDX-License-Identifier: MIT */
/*
 * The objects of libafrxrpc, and what its files offer each other.
 *
 *   descriptor   of the program: one end (the outer) of a pair of Unix sockets. The kernel counts
 *                its copies, polls it, keeps its flags and time limits. Its cookie says which
 *                socket it is.
 *   socket       what the program thinks it has. Owns its calls and the other (inner) end. In a
 *                program that has forked, the broker (broker.c) has it: share.h tells how.
 *   endpoint     a UDP port: the engine with its driver, and a thread. Shared by the sockets of one
 *                address.
 *   call         the engine's, with a tag. A tag that was charged is a call that has not come yet.
 *
 * One lock for everything. It is held while the engine works and while bodies are copied, never
 * while a thread sleeps. Nothing of an endpoint, socket or call may be used after the lock was let
 * go, except by those who hold a reference (`users`, `pins`) and look again.
 *
 * Functions return 0 or -errno; the public ones turn that into errno.
 */
#ifndef FACADE_AF_RXRPC_SOCKET_H
#define FACADE_AF_RXRPC_SOCKET_H

#include <antiphon/af_rxrpc.h>
#include <antiphon/rx.h>
#include <linux/rxrpc.h>

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* -- lists ------------------------------------------------------------------------------------- */

struct aph_afrx_link {
	struct aph_afrx_link *prev, *next;
};

#define APH_AFRX_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void aph_afrx_list_init(struct aph_afrx_link *list)
{
	list->prev = list->next = list;
}

static inline bool aph_afrx_list_empty(const struct aph_afrx_link *list)
{
	return list->next == list;
}

/* At the end of the list. */
static inline void aph_afrx_list_add(struct aph_afrx_link *list, struct aph_afrx_link *link)
{
	link->prev = list->prev;
	link->next = list;
	list->prev->next = link;
	list->prev = link;
}

/* Takes the first one off a list that is not empty. */
static inline struct aph_afrx_link *aph_afrx_list_pop(struct aph_afrx_link *list)
{
	struct aph_afrx_link *link = list->next;

	list->next = link->next;
	link->next->prev = list;
	link->prev = link->next = link;
	return link;
}

/* Removing what is on no list does nothing. */
static inline void aph_afrx_list_del(struct aph_afrx_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	link->prev = link->next = link;
}

/* -- objects ----------------------------------------------------------------------------------- */

/* Bytes a call takes ahead of its peer: 512 packets. */
#define APH_AFRX_SEND_MAX	UINT32_C(722944)
#define APH_AFRX_N_TAGS		64     /* heads of a socket's hash table of tags */
#define APH_AFRX_BUFFER_DEFAULT 212992 /* what SO_SNDBUF and SO_RCVBUF say unless they were set */

struct aph_afrx_endpoint {
	struct aph_afrx_link link;
	struct aph_rx_address asked; /* the address somebody bound to; its port may be 0 */
	struct aph_rx_address local; /* what became of it */
	struct aph_rx_udp *udp;
	struct aph_rx *rx;
	unsigned n_sockets;
	struct aph_afrx_link clients; /* struct aph_afrx_client, least lately used first */
	unsigned n_clients;
	unsigned n_channel_waiters; /* threads that wait for a call of somebody to end */
	bool driven;		    /* a thread of the program receives, and ours does not */
	struct aph_afrx_socket
		*waits; /* for which it does, while it waits in the driver; else NULL */
	pthread_t thread;
	int epoll, wake;
	bool stop;
	bool detached; /* the thread frees the endpoint */
};

/* A way to a service of a peer, shared by the sockets of an endpoint. */
struct aph_afrx_client {
	struct aph_afrx_link link;
	struct aph_afrx_endpoint *endpoint;
	struct aph_rx_address remote;
	uint16_t service;
	struct aph_rx_client *rx;
	unsigned n_calls;
	uint64_t idle_ns; /* since when it has none */
};

enum aph_afrx_state {
	APH_AFRX_UNBOUND,
	APH_AFRX_CLIENT_UNBOUND, /* connected, not bound yet */
	APH_AFRX_CLIENT_BOUND,
	APH_AFRX_SERVER_BOUND,
	APH_AFRX_SERVER_BOUND2, /* to two services */
	APH_AFRX_LISTENING,
	APH_AFRX_DISABLED, /* does not listen any more */
	APH_AFRX_SHUT,
};

struct aph_afrx_socket {
	struct aph_afrx_link link; /* among all sockets */
	uint64_t cookie;	   /* of the outer end */
	int inner;
	unsigned users; /* threads in a function */
	bool hung_up;	/* the last descriptor is gone */
	bool moved;	/* to the broker; what is left is for those who are still in a function */

	int family; /* PF_INET or PF_INET6 */
	enum aph_afrx_state state;
	struct aph_afrx_endpoint *endpoint;
	bool connected;
	struct aph_rx_address peer; /* of connect() */
	uint16_t peer_service;

	unsigned n_services;
	uint16_t services[2];
	struct aph_rx_service *rx_services[2];
	uint16_t upgrade_from, upgrade_to;
	unsigned backlog;
	bool charging; /* RXRPC_CHARGE_ACCEPT was used: no RXRPC_NEW_CALL any more */

	bool exclusive;
	uint32_t min_level;
	char *key, *keyring;		 /* names, or NULL */
	int send_buffer, receive_buffer; /* as set; 0: not set */
	bool stamped;			 /* SO_TIMESTAMP or its like was set, or unset again */

	struct aph_afrx_link tags[APH_AFRX_N_TAGS]; /* of calls, by tag */
	unsigned n_tags;
	unsigned n_charged, n_waiting, n_blocked;
	struct aph_afrx_link charged; /* calls, oldest first */
	struct aph_afrx_link waiting; /* calls without a tag yet, oldest first */
	struct aph_afrx_link queue;   /* calls with something to receive */
	_Atomic uint32_t changes;     /* counts what may wake somebody */
	unsigned n_sleepers;	      /* on `changes` */
	unsigned n_readers;	      /* of them, those who will take what arrives */
	unsigned marks;		      /* bytes in the outer end that make it readable */
	bool full;		      /* bytes in the inner end make the outer end unwritable */
};

struct aph_afrx_call {
	struct aph_afrx_link hash;	/* in tags */
	struct aph_afrx_link place;	/* in charged or waiting */
	struct aph_afrx_link pending;	/* in queue */
	struct aph_afrx_socket *socket; /* NULL: it is gone, and only pinned */
	uint64_t serial;		/* no other call of the socket has this number */
	struct aph_rx_call *rx;		/* NULL while charged */
	struct aph_afrx_client *client;
	unsigned pins;
	unsigned long tag;
	bool tagged; /* `tag` is valid and known */
	bool waits;  /* to be accepted */
	bool notice; /* it is to be reported as RXRPC_NEW_CALL */
	bool ended;
	struct aph_rx_end end;
	bool read_out;	 /* the arriving body has been read to its end */
	bool written;	 /* the departing body has been written to its end */
	bool begun;	 /* something of it was written */
	bool blocked;	 /* a write was short, and there was no room since */
	int64_t tx_left; /* of RXRPC_TX_LENGTH; -1: not said */
	size_t turn;	 /* bytes it may still give before other calls have their turn */
	struct timespec arrived;
};

/* -- table.c: which sockets there are ---------------------------------------------------------- */

/* The lock. */
void aph_afrx_enter(void);
void aph_afrx_leave(void);

/* Between these the thread is not cancelled. They may be nested. */
void aph_afrx_hold(void);
void aph_afrx_release(void);
/* Whether it may be when it is not held. */
bool aph_afrx_is_cancellable(void);

/*
 * The socket behind a descriptor, with the lock and the thread held and counted as in use; -EBADF,
 * -ENOTSOCK, -EREMOTE (a broker has it) with both free. End with aph_afrx_put(), which takes a
 * result through.
 */
int aph_afrx_get(struct aph_afrx_socket **out, int fd);
ssize_t aph_afrx_put(struct aph_afrx_socket *s, ssize_t result);
/* A new socket, with the lock and the thread held and counted as in use, and its descriptor. */
int aph_afrx_socket_new(struct aph_afrx_socket **out, int *fd, int flags);
/* With the lock held: every socket of this process, and how many there are. */
void aph_afrx_for_each(void (*visit)(struct aph_afrx_socket *s));
unsigned aph_afrx_n_sockets(void);
/* The broker has it: it is not found any more, and whoever sleeps in a function learns of it. */
void aph_afrx_socket_moved(struct aph_afrx_socket *s);
/* Of a socket. -EBADF, -ENOTSOCK. */
int aph_afrx_cookie(int fd, uint64_t *cookie);
/* Turns -errno into -1 and errno. */
ssize_t aph_afrx_result(ssize_t result);
/* Tells everybody asleep on the socket. */
void aph_afrx_notify(struct aph_afrx_socket *s);
/*
 * Lets go of the lock until something has happened at the socket. 0, -EAGAIN (`deadline_ns`),
 * -EINTR (or goes on, as the signal's handler asks), -EREMOTE (it has moved). `n`, if not NULL,
 * counts who sleeps for the same purpose. When the thread is cancelled `give_up` is called in place
 * of a return, with the lock held, to undo what the functions above have done; the last of it is
 * aph_afrx_put().
 */
int aph_afrx_sleep(struct aph_afrx_socket *s, unsigned *n, uint64_t deadline_ns,
		   void (*give_up)(void *arg), void *arg);
/* The last descriptor of it is gone: aborts its calls, gives its address free. */
void aph_afrx_socket_end(struct aph_afrx_socket *s);
/*
 * Ends sockets that were closed behind our back: those of ports are heard of, by their cookies;
 * others are looked for with each new one (if there are many, when their number has doubled), and
 * when something cannot be had. All of these may let go of the lock.
 */
void aph_afrx_reap_one(uint64_t cookie);
void aph_afrx_reap_sometimes(void);
void aph_afrx_reap(void);

/* -- pollable.c: the two ends ------------------------------------------------------------------ */

int aph_afrx_pair_new(int *outer, int *inner, uint64_t *cookie, int flags);
/* Something more can be received. */
void aph_afrx_mark(struct aph_afrx_socket *s);
/* The program has received something by this descriptor: what it polls is made to fit. */
void aph_afrx_settle(struct aph_afrx_socket *s, int fd);
/*
 * As many calls as before, or fewer, are blocked; `fd` is the program's, or -1 in our own thread.
 */
void aph_afrx_settle_room(struct aph_afrx_socket *s, int fd);
/*
 * Whether the descriptor is the socket's still: while a thread slept in a function it may have been
 * closed, and its number be that of something else.
 */
bool aph_afrx_is_outer(const struct aph_afrx_socket *s, int fd);
/* Whether nobody has the outer end any more. */
bool aph_afrx_is_closed(const struct aph_afrx_socket *s);

/* -- endpoint.c: UDP ports --------------------------------------------------------------------- */

/* Finds or opens the endpoint of an address for the socket. Errors of aph_rx_udp_open(). */
int aph_afrx_endpoint_join(struct aph_afrx_socket *s, const struct aph_rx_address *address);
/* May let go of the lock, when it was the last socket. */
void aph_afrx_endpoint_part(struct aph_afrx_socket *s);
/* After something was done to the engine: sends, and hands out events. */
void aph_afrx_endpoint_push(struct aph_afrx_endpoint *ep);
/*
 * Receives for everybody at the socket's port until something has happened at the socket, and so
 * takes no other thread. 0, -ETIMEDOUT, -EINTR; -EBUSY: there is no port, somebody else does it, or
 * is to: in the driver a thread cannot be cancelled, so that one that might be stays for a moment
 * only.
 */
int aph_afrx_drive(struct aph_afrx_socket *s, uint64_t deadline_ns);
/*
 * Before fork(): lets go of the lock until no thread of the program receives, and lets none begin.
 * And after it.
 */
void aph_afrx_endpoints_park(void);
void aph_afrx_endpoints_unpark(bool forked);
/* How many calls the socket's services take at the moment. */
void aph_afrx_set_credit(struct aph_afrx_socket *s);
int aph_afrx_client_get(struct aph_afrx_client **out, struct aph_afrx_endpoint *ep,
			const struct aph_rx_address *remote, uint16_t service);
/* One call less of it. */
void aph_afrx_client_put(struct aph_afrx_client *client);
/* Everybody who waits for a channel at this port looks again. */
void aph_afrx_wake_senders(struct aph_afrx_endpoint *ep);
/*
 * Every endpoint, when a broker has got them: drops them without a word. `forked`: their threads
 * are not here.
 */
void aph_afrx_endpoints_forget(bool forked);
/* Lets go of the lock until the threads of forgotten ones have ended. */
void aph_afrx_endpoints_bury(void);
/* In a broker: the threads begin again, and the clients' calls are counted anew. */
int aph_afrx_endpoints_resume(void);
/* The descriptors that they need, at most `n`. Returns how many there are. */
unsigned aph_afrx_endpoints_descriptors(int *fds, unsigned n);
/* Every endpoint, when the process ends: says goodbye. */
void aph_afrx_endpoints_end(void);

/* -- call.c ------------------------------------------------------------------------------------ */

/* A call of the socket without a tag. NULL: memory. */
struct aph_afrx_call *aph_afrx_call_new(struct aph_afrx_socket *s);
/* Lets go of it and its tag; one that goes on is aborted. */
void aph_afrx_call_free(struct aph_afrx_call *c);
/* Where the engine is not any more: the same without it. */
void aph_afrx_call_forget(struct aph_afrx_call *c);
void aph_afrx_call_unpin(struct aph_afrx_call *c);
void aph_afrx_call_set_tag(struct aph_afrx_call *c, unsigned long tag);
struct aph_afrx_call *aph_afrx_call_find(const struct aph_afrx_socket *s, unsigned long tag);
/* The engine's event. */
void aph_afrx_event(const struct aph_rx_event *ev);
/* Whether there is something to receive of it. */
bool aph_afrx_call_has_news(const struct aph_afrx_call *c);
/*
 * It has none now, and those that come are to be heard of: the engine tells of arriving data only
 * after somebody has looked and found nothing.
 */
void aph_afrx_call_watch(struct aph_afrx_call *c);
/* Puts it into the queue if there is, or watches it. */
void aph_afrx_call_announce(struct aph_afrx_call *c);
/* It has waited, and has this tag from now on. */
void aph_afrx_call_accept(struct aph_afrx_call *c, unsigned long tag);
/* Gives the oldest waiting calls to the oldest charges. */
void aph_afrx_match(struct aph_afrx_socket *s);
/* It ended without its body: what is left of that is not delivered. */
bool aph_afrx_call_is_broken(const struct aph_afrx_call *c);
/* The errno with which a sender learns of its end. */
int aph_afrx_call_error(const struct aph_afrx_call *c);

/* -- address.c --------------------------------------------------------------------------------- */

struct aph_afrx_name {
	struct aph_rx_address address;
	uint16_t service;
};

/*
 * Copies and checks an address for a socket of the family. -EINVAL and the other errors, in order;
 * -EFAULT.
 */
int aph_afrx_name_read(struct aph_afrx_name *out, int family, const void *address, socklen_t len);
void aph_afrx_name_write(struct sockaddr_rxrpc *out, const struct aph_rx_address *address,
			 uint16_t service);

/* -- memory.c: the program's memory, which may not be there ------------------------------------ */

/*
 * All return 0 or -EFAULT. This one says whether something is there, as far as that can be seen
 * without touching it.
 */
int aph_afrx_check(const void *at, size_t len);
int aph_afrx_copy_in(void *to, const void *from, size_t len);
int aph_afrx_copy_out(void *to, const void *from, size_t len);
/* `n` pairs of places, each two of one length. */
int aph_afrx_copy_out_all(const struct iovec *to, const struct iovec *from, size_t n);

/* This process, without asking the system (fork.c). */
pid_t aph_afrx_process(void);

/* A checked copy of a msghdr's vector, and how far it was used. */
struct aph_afrx_vector {
	struct iovec fixed[8];
	struct iovec *iov;
	size_t n, i, offset;
	size_t left; /* bytes */
};

/* Copies of a message's header and of its vector. 0, -EFAULT, -EMSGSIZE, -EINVAL, -ENOMEM. */
int aph_afrx_message_copy(struct msghdr *copy, struct aph_afrx_vector *v,
			  const struct msghdr *message);
void aph_afrx_vector_deinit(struct aph_afrx_vector *v);
/* Whether its memory is there, as far as can be seen without touching it. 0, -EFAULT. */
int aph_afrx_vector_check(const struct aph_afrx_vector *v);
/* Copies the next bytes, at most `left`. -EFAULT; then nothing counts as used. */
int aph_afrx_vector_gather(struct aph_afrx_vector *v, void *to, size_t len);
int aph_afrx_vector_scatter(struct aph_afrx_vector *v, const void *from, size_t len);

/* -- control.c --------------------------------------------------------------------------------- */

#define APH_AFRX_CONTROL_MAX 20480 /* as much as a kernel takes */

enum aph_afrx_command {
	APH_AFRX_DATA,
	APH_AFRX_ABORT,
	APH_AFRX_ACCEPT,
	APH_AFRX_CHARGE,
};

/* What the control messages of a sendmsg() say. */
struct aph_afrx_request {
	enum aph_afrx_command command;
	bool has_tag;
	unsigned long tag;
	uint32_t abort_code;
	bool exclusive, upgrade;
	int64_t tx_length; /* -1: not said */
	unsigned n_timeouts;
	uint32_t hard_s, idle_ms, normal_ms;
};

/* -EINVAL, -EISCONN (RXRPC_ACCEPT, not a server), -ERANGE, -EFAULT. */
int aph_afrx_request_read(struct aph_afrx_request *out, const struct aph_afrx_socket *s,
			  const struct msghdr *message);

/* Control messages on their way to the program. */
struct aph_afrx_control {
	size_t left, used; /* of the program's room */
	int flags;	   /* MSG_CTRUNC */
	char bytes[128];   /* more than all that one message can have */
};

void aph_afrx_control_put(struct aph_afrx_control *c, int level, int type, const void *data,
			  size_t len);

/* -- bind.c ------------------------------------------------------------------------------------ */

/* Binds a client that has not been. */
int aph_afrx_autobind(struct aph_afrx_socket *s);
/* Serves what the socket is bound to. -EADDRINUSE, -ENOMEM. */
int aph_afrx_serve(struct aph_afrx_socket *s);
/* And no more. */
void aph_afrx_unserve(struct aph_afrx_socket *s);

/* -- option.c, key.c, tunable.c ---------------------------------------------------------------- */

/* Of SO_RCVTIMEO or SO_SNDTIMEO, a deadline; or APH_NOW with O_NONBLOCK or MSG_DONTWAIT. */
uint64_t aph_afrx_deadline(int fd, int option, int flags);

/*
 * Whether an option of SOL_SOCKET is (also) the library's business. The others are the pair's:
 * whoever has the outer end sets or gets them there.
 */
bool aph_afrx_sets_option(int option);
bool aph_afrx_gets_option(int option);

/*
 * -ENOKEY, -EKEYREVOKED, -EKEYREJECTED; with `started` also -EKEYEXPIRED. The security index, else.
 */
int aph_afrx_key_find(const char *type, const char *description, bool started);

unsigned aph_afrx_tunable(const char *name);
void aph_afrx_tune(struct aph_rx_config *config);

#endif
