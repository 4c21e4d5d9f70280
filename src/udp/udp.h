/* SPDX-License-Identifier: MIT */
/*
 * The UDP driver's object, and what its files offer each other.
 *
 * Two things may go on at once when the user gave `lock` and `unlock`: one thread sleeps or spins
 * in the driver (wait.c), which then touches nothing but the inbox, the socket and the atomics;
 * another one uses the engine and sends. Everything else happens under the user's serialisation.
 */
#ifndef ANTIPHON_UDP_UDP_H
#define ANTIPHON_UDP_UDP_H

#include <antiphon/rx.h>

#include "udp/port.h"
#include "udp/spin.h"

#include <stdatomic.h>
#include <sys/socket.h>

#define APH_UDP_INBOX_MAX   8	/* buffers that one system call may fill */
#define APH_UDP_OUTBOX_MAX  64	/* messages that one system call may send */
#define APH_UDP_CONTROL_MAX 128 /* bytes of control messages with one message */
/* Peers whose way takes shorter runs than usual, remembered at most. */
#define APH_UDP_ROUTES	  64
#define APH_UDP_RUN_MAX	  64	/* segments of one send; kernels before 6.2 take no more */
#define APH_UDP_BYTES_MAX 65507 /* of one send */

#define APH_UDP_SEND_BUFFER (1 << 20)
/* A full device queue may hold a sender up for so long; then datagrams are dropped. */
#define APH_UDP_SEND_TIMEOUT_US 20000

/* A socket address of either family, as the system calls want it. */
union aph_udp_name {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* Control messages need the alignment of their header. */
union aph_udp_control {
	size_t align;
	char bytes[APH_UDP_CONTROL_MAX];
};

/*
 * What was received and the engine has not seen. A slot's memory lies in `buffer`, or is the
 * driver's own when memory was short; several slots share one buffer where datagrams come one by
 * one.
 */
struct aph_udp_inbox {
	struct mmsghdr headers[APH_UDP_INBOX_MAX];
	struct iovec iov[APH_UDP_INBOX_MAX];
	union aph_udp_name names[APH_UDP_INBOX_MAX];
	union aph_udp_control controls[APH_UDP_INBOX_MAX];
	struct aph_rx_buffer *buffers[APH_UDP_INBOX_MAX];
	char *reserve;	      /* one slot for when there is no buffer */
	unsigned n_slots;     /* ready to be filled */
	unsigned vector;      /* slots to offer next time */
	unsigned n_received;  /* filled */
	unsigned n_delivered; /* of them: the engine has seen them */
	unsigned n_alone;     /* came one by one since something looked like a run */
	size_t offset;	      /* bytes that it has seen of the next one */
};

/* A message, or a piece of one, on its way to the kernel. */
struct aph_udp_piece {
	const struct aph_rx_message *message;
	size_t offset, len; /* of the message */
};

struct aph_udp_outbox {
	struct mmsghdr headers[APH_UDP_OUTBOX_MAX];
	struct aph_udp_piece pieces[APH_UDP_OUTBOX_MAX];
	union aph_udp_name names[APH_UDP_OUTBOX_MAX];
	union aph_udp_control controls[APH_UDP_OUTBOX_MAX];
	struct iovec iov[4 * APH_UDP_OUTBOX_MAX];
	unsigned n, n_iov;
};

/* A message that our kernel did not take: told to the engine once its other messages have left. */
struct aph_udp_failure {
	struct aph_rx_path path;
	int error;
	uint32_t mtu;
	size_t quote_len;
	char quote[APH_RX_HEADER_SIZE];
};

#define APH_UDP_FAILURES_MAX 16

/* A way on which runs are limited. */
struct aph_udp_route {
	struct aph_rx_address remote; /* its port is not looked at; family 0: a free entry */
	unsigned segments_max;	      /* 1: no UDP_SEGMENT */
	uint64_t until_ns;	      /* then it is tried again */
};

/* A socket that only sends, to one peer, see line.c. */
struct aph_udp_line {
	int fd;		   /* -1: there is none */
	unsigned n_in_row; /* datagrams that it would have been for, one after the other */
	struct aph_rx_address remote; /* where it leads; family 0: nowhere */
	struct aph_rx_address next;   /* to whom something was sent last that went without it */
	struct aph_rx_path first;     /* where it led first; of a socket on every address only */
};

/* Where the waiting thread is: what it takes to wake it. */
enum aph_udp_place {
	APH_UDP_AWAKE,
	APH_UDP_IN_RECEIVE, /* in a receiving system call: only a datagram ends it early */
	APH_UDP_IN_POLL,    /* the eventfd ends it */
};

struct aph_rx_udp {
	_Atomic(struct aph_rx_udp *) next; /* among all drivers, see fork.c */
	bool keeps;			   /* it is left alone in children */
	bool forked;			   /* it is the parent's */
	struct aph_rx *rx;
	struct aph_udp_port *port; /* whose socket `fd` is; NULL: ours alone */
	struct aph_udp_member member;
	int fd;
	struct aph_udp_line lines[2]; /* IPv4, IPv6 */
	int event_fd;
	int epoll_fd; /* -1 until somebody asked for a descriptor */
	int timer_fd;
	bool is_v6;	   /* the socket's family is AF_INET6; IPv4 addresses are mapped */
	bool is_wildcard;  /* the local address of a path has to be told and chosen */
	bool has_segment;  /* UDP_SEGMENT may be used */
	bool has_gro;	   /* UDP_GRO is on, or will be */
	bool is_bare;	   /* nothing comes with a datagram but where from: UDP_GRO is not on */
	bool keeps_whole;  /* our kernel fragments nothing so far: it refuses what is too large */
	bool errors_there; /* the error queue is to be read */
	bool raised;	   /* the eventfd is readable because of events */
	bool has_rest;	   /* the engine has not seen all that is in the inbox */
	struct aph_rx_address local;
	struct aph_rx_path path; /* what is the same for all that arrives */
	uint64_t armed_ns;	 /* what the timerfd is set to */

	/* Receive buffer: packets it is good for, at most and as things are. */
	uint32_t budget_max, budget;
	uint32_t budget_asked;	  /* the user wants no more than this; 0: as much as there is */
	uint32_t n_dropped;	  /* as the kernel counted last */
	uint64_t budget_moved_ns; /* when the budget was changed last */

	_Atomic bool woken;
	_Atomic enum aph_udp_place place;
	uint64_t sleep_until_ns; /* of the thread that sleeps */
	union aph_udp_name self; /* how to reach this socket from this machine */
	socklen_t self_len;
	void (*lock)(void *arg);
	void (*unlock)(void *arg);
	void *lock_arg;

	struct aph_udp_spin spin;
	struct aph_udp_inbox inbox;
	struct aph_udp_outbox outbox;
	struct aph_udp_failure failures[APH_UDP_FAILURES_MAX];
	unsigned n_failures;
	struct aph_udp_route routes[APH_UDP_ROUTES];
	unsigned n_routes; /* entries in use */
};

/* Whether what arrives may be for others. */
static inline bool aph_udp_is_crowded(const struct aph_rx_udp *udp)
{
	return udp->port && atomic_load_explicit(&udp->port->crowded, memory_order_relaxed);
}

/* -- address.c: between the engine's addresses and the socket's -------------------------------- */

/* The form that the socket takes; returns its length, 0 when it cannot reach that family. */
socklen_t aph_udp_to_name(const struct aph_rx_udp *udp, const struct aph_rx_address *address,
			  union aph_udp_name *name);
/* The engine's form, never a mapped address. */
void aph_udp_from_name(const union aph_udp_name *name, struct aph_rx_address *address);
bool aph_udp_is_wildcard(const struct aph_rx_address *address);
/* Whether the kernel has to be told which of our addresses to send from. */
bool aph_udp_needs_source(const struct aph_rx_udp *udp, const struct aph_rx_path *path);
/*
 * A control message that chooses the source address; returns the space it took, 0: none is needed.
 */
size_t aph_udp_put_source(const struct aph_rx_udp *udp, const struct aph_rx_path *path,
			  void *space);

/* The address of ours and the interface, if that is what the control message tells. */
void aph_udp_read_pktinfo(const struct cmsghdr *cmsg, struct aph_rx_path *path);

/* -- line.c ------------------------------------------------------------------------------------ */

/* Where the system does not let us, there are none. */
void aph_udp_lines_open(struct aph_rx_udp *udp);
/* A socket that needs no address for a datagram on that path; -1: there is none. */
int aph_udp_line_to(struct aph_rx_udp *udp, const struct aph_rx_path *path);
/* It could not send. */
void aph_udp_line_fail(struct aph_rx_udp *udp, const struct aph_rx_path *path);

/* -- socket.c ---------------------------------------------------------------------------------- */

static inline bool aph_udp_set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) == 0;
}

/* Makes an eventfd unless there is one. 0, -errno. */
int aph_udp_need_eventfd(int *fd);
/*
 * Makes the socket, binds it, asks for what it can do. Everything is undone by
 * aph_udp_socket_close().
 */
int aph_udp_socket_open(struct aph_rx_udp *udp, const struct aph_rx_udp_options *options);
/* Where a socket that is open already is met. */
int aph_udp_socket_learn(struct aph_rx_udp *udp, bool is_v6only);
void aph_udp_socket_close(struct aph_rx_udp *udp);
/* Switches UDP_GRO on. Nobody may receive meanwhile: a run would be taken for one datagram. */
void aph_udp_start_gro(struct aph_rx_udp *udp);
/* The kernel has counted `n_dropped` datagrams in all that found no room. */
void aph_udp_note_drops(struct aph_rx_udp *udp, uint32_t n_dropped, uint64_t now_ns);
/* So much of the buffer is ours from now on. */
void aph_udp_set_budget_max(struct aph_rx_udp *udp, uint32_t budget);
/* What was shrunk grows again while nothing is dropped. */
void aph_udp_grow_budget(struct aph_rx_udp *udp, uint64_t now_ns);

/* -- send.c ------------------------------------------------------------------------------------ */

/* Sends all that the engine has. 0, or what the socket said last. */
int aph_udp_send(struct aph_rx_udp *udp, uint64_t now_ns);

/* -- receive.c --------------------------------------------------------------------------------- */

int aph_udp_inbox_init(struct aph_rx_udp *udp);
void aph_udp_inbox_deinit(struct aph_rx_udp *udp);
/*
 * One system call with `flags`. 1 or more messages are in the inbox, or -EAGAIN, or what it said.
 */
int aph_udp_receive(struct aph_rx_udp *udp, int flags);
/*
 * What was received goes to the engine, or the beginning of it. `at_once`: it had been there before
 * anybody waited.
 */
void aph_udp_deliver(struct aph_rx_udp *udp, bool at_once, uint64_t now_ns);
/* The next piece, where there is one. */
void aph_udp_deliver_rest(struct aph_rx_udp *udp, uint64_t now_ns);

/* -- errqueue.c -------------------------------------------------------------------------------- */

/*
 * An error that the network reported for an earlier datagram, not for what the system call was
 * about.
 */
bool aph_udp_is_reported(int error);
/* Tells the engine what is in the error queue. */
void aph_udp_read_errors(struct aph_rx_udp *udp, uint64_t now_ns);
/* The same, behind what is in the socket. Nobody sleeps in there. */
void aph_udp_read_all(struct aph_rx_udp *udp, uint64_t now_ns);
/*
 * Takes what our own kernel put there about the size of a probe; returns the MTU it said, 0:
 * nothing.
 */
uint32_t aph_udp_read_local_mtu(struct aph_rx_udp *udp);

/* -- fork.c ------------------------------------------------------------------------------------ */

/* From here on a forked child knows of it; it may not move. */
void aph_udp_register(struct aph_rx_udp *udp);
/* Does nothing for one that is not registered. */
void aph_udp_unregister(struct aph_rx_udp *udp);
/* 0, -ENOTCONN in a child of the process that opened it. */
int aph_udp_check(const struct aph_rx_udp *udp);

/* -- wait.c ------------------------------------------------------------------------------------ */

/* After somebody changed the engine: whoever sleeps, or the pollable descriptor, has to know. */
void aph_udp_update(struct aph_rx_udp *udp);

#endif
