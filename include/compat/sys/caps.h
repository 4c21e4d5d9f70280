/* SPDX-License-Identifier: MIT */
/*
 * CAPS: named rendezvous, opaque messages, three states; the interface of DragonFly BSD's
 * <sys/caps.h>.
 *
 * The first part is the historical interface: names, values and layouts are as they were. The
 * second part is what the original announced and left open, with values of ours; old programs never
 * meet any of it. See caps(7). Link with -lcaps.
 *
 * All functions return -1 and set errno on failure. They may be used from any thread, but not from
 * signal handlers. A port belongs to the process that opened it: after fork() the child gets
 * ENOTCONN for it.
 */
#ifndef SYS_CAPS_H
#define SYS_CAPS_H

#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* -- the historical interface ------------------------------------------------------------------ */

typedef enum caps_msg_state {
	CAPMS_REQUEST,
	CAPMS_REQUEST_RETRY, /* never used */
	CAPMS_REPLY,
	CAPMS_REPLY_RETRY, /* never used */
	CAPMS_DISPOSE
} caps_msg_state_t;

typedef struct caps_msgid {
	off_t c_id;
	caps_msg_state_t c_state;
	int c_reserved01;
} * caps_msgid_t;

typedef enum caps_type {
	CAPT_UNKNOWN,
	CAPT_CLIENT,
	CAPT_SERVICE,
	CAPT_REMOTE,
	CAPT_FORKED
} caps_type_t;

typedef int64_t caps_gen_t;

#define CAPS_MAXGROUPS	16
#define CAPS_MAXNAMELEN 64 /* with the NUL */
#define CAPS_MAXINPROG \
	128 /* with more messages than this in progress, caps_sys_put() says ENOBUFS */

/* The sender of a leg of a message, as the kernel says. */
typedef struct caps_cred {
	pid_t pid;
	uid_t uid;
	uid_t euid;
	gid_t gid;
	int ngroups;
	int cacheid; /* ours: at a service, the number of the client's connection; else 0 */
	gid_t groups[CAPS_MAXGROUPS];
} * caps_cred_t;

#define CAPF_UFLAGS    0xFFFF
#define CAPF_USER      0x0001 /* clients whose effective uid is the service's uid */
#define CAPF_GROUP     0x0002 /* clients that are in the service's gid */
#define CAPF_WORLD     0x0004 /* everybody */
#define CAPF_EXCL      0x0008 /* EEXIST if such a service is there */
#define CAPF_ANYCLIENT (CAPF_USER | CAPF_GROUP | CAPF_WORLD)
#define CAPF_WCRED     0x0010 /* accepted, without effect, as it always was */
#define CAPF_NOFORK    0x0020 /* a forked child has no such port: EINVAL instead of ENOTCONN */
#define CAPF_WAITSVC   0x0040 /* wait until a service registers */

#define CAPS_ABORT_NOTIMPL	0
#define CAPS_ABORT_RETURNED	1 /* the reply is here already: nothing was done */
#define CAPS_ABORT_BEFORESERVER 2 /* caught before the service retrieved it */
#define CAPS_ABORT_ATSERVER	3 /* the service has retrieved it */

#define CAPF_ABORT_HARD 0x0001 /* take it away from the service that has it */

int caps_sys_service(const char *name, uid_t uid, gid_t gid, int upcid, int flags);
int caps_sys_client(const char *name, uid_t uid, gid_t gid, int upcid, int flags);
int caps_sys_close(int port);
off_t caps_sys_put(int port, const void *msg, int size);
int caps_sys_reply(int port, const void *msg, int size, off_t msgid);
int caps_sys_get(int port, void *buf, int max, caps_msgid_t id, caps_cred_t cred);
int caps_sys_wait(int port, void *buf, int max, caps_msgid_t id, caps_cred_t cred);
int caps_sys_abort(int port, off_t msgid, int flags);
int caps_sys_setgen(int port, caps_gen_t gen);
caps_gen_t caps_sys_getgen(int port);

/* -- additions: the flags that the original announced ------------------------------------------ */

#define CAPF_ASYNC    0x0080 /* client: connect while the program goes on */
#define CAPF_NOGROUPS 0x0100 /* leave groups[] of retrieved credentials alone, ngroups is 0 */
#define CAPF_TERM     0x0200 /* service: ask the service that is there now to end */
/* service: take over the connections of the service that is there now. */
#define CAPF_TAKE	 0x0400
#define CAPF_DISPOSE_IMM 0x0800 /* service: a dispose wakes a blocked service */

/* -- additions: notices ------------------------------------------------------------------------ */

/*
 * A service opened with CAPF_NOTICE also retrieves notices: messages of length 0 in the states
 * below, in their place among the others. They need no reply. For the first two c_id is the number
 * of the client's connection, which every message of that client carries in its credentials as
 * cacheid.
 */
#define CAPF_NOTICE 0x1000

#define CAPMS_CONNECT ((caps_msg_state_t)5) /* a client has connected */
#define CAPMS_DISCONNECT \
	((caps_msg_state_t)6) /* it has gone; its last message was delivered before */
#define CAPMS_TERM \
	((caps_msg_state_t)7) /* a service with CAPF_TERM asks this one to end; c_id is 0 */
#define CAPMS_ABORT ((caps_msg_state_t)8) /* the client would like to have request c_id back soon */

/* -- additions: notification by upcid ---------------------------------------------------------- */

/*
 * The `upcid` of caps_sys_service() and caps_sys_client() may be 0 or -1 (none), an eventfd of the
 * caller's, which is written to whenever the port has something to retrieve, or what
 * caps_upcall_function() gave.
 */
typedef void (*caps_upcall_t)(int port, void *arg);

/*
 * A descriptor that is readable while the port has something to retrieve. It is made at the first
 * call, belongs to the port and is closed with it; do not read it.
 */
int caps_upcall_fd(int port);

/*
 * An upcid for a function that is run on a thread of the library when the port has something to
 * retrieve: one thread for each port, never twice at once for one port. It may use and close the
 * port.
 */
int caps_upcall_function(caps_upcall_t function, void *arg);

/* Gives an upcid back; ports that use it keep it until they are closed. */
int caps_upcall_release(int upcid);

/* -- additions: limits ------------------------------------------------------------------------- */

/*
 * The memory, in bytes, that one peer may have of this process for messages that do not fit into
 * the channel: by default INT_MAX for peers with the port's own effective uid and for root,
 * CAPS_PEER_BYTES for others. A message that goes beyond is not delivered: its client retrieves it
 * with EMSGSIZE.
 */
#define CAPS_PEER_BYTES (64 << 20)

/* Sets this limit for all peers of a port. */
int caps_limit(int port, int bytes);

#ifdef __cplusplus
}
#endif

#endif
