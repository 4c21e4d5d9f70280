/* SPDX-License-Identifier: MIT */
/*
 * Sockets of several processes. A socket is made in its program, and stays there as long as nobody
 * else can have it: that is fast. When the program forks, or is to start another one, all its
 * sockets move to a process of their own, the broker, which is a copy of the program at that moment
 * and closes everything but them. The programs then ask the broker for each operation, until the
 * last descriptor of each socket is closed.
 *
 *   fork.c        the moment of the move
 *   broker.c      the broker: a thread for each connection, which calls the functions that
 *                 programs call
 *   connection.c  how a program asks it
 *   remote.c      what it asks
 *
 * How they find each other: the inner end of a socket's pair has a name in the abstract namespace,
 * afrxrpc/ID/N; the broker listens at afrxrpc/ID/0. So whoever has the outer end, by whatever way,
 * asks the kernel for the name of its peer. Possession is the right to use: the outer end goes
 * along with each question, and the broker keeps no copy of it, as it has to hear when the last one
 * is closed.
 *
 * What they say: messages of one byte, with descriptors. Arguments and bodies lie in memory that
 * the program shares with the broker. The broker believes nothing in it: each figure is read once,
 * and checked.
 */
#ifndef FACADE_AF_RXRPC_SHARE_H
#define FACADE_AF_RXRPC_SHARE_H

#include "socket.h"

#include <sys/un.h>

enum aph_afrx_message {
	APH_AFRX_HELLO =
		'h', /* memory, and an outer end as proof: first, and when more memory is wanted */
	APH_AFRX_KEEP = 'k', /* an outer end, for the next question */
	APH_AFRX_ASK = 'a',  /* a question, with the outer end unless that is kept */
	APH_AFRX_CANCEL =
		/* Whoever asked does not want to wait any more; the answer comes all the same. */
		'c',
	APH_AFRX_DONE = 'd', /* the answer */
	APH_AFRX_FULL = 'f', /* the broker has no room for one more, and closes the connection */
};

enum aph_afrx_op {
	APH_AFRX_OP_BIND,
	APH_AFRX_OP_CONNECT,
	APH_AFRX_OP_LISTEN,
	APH_AFRX_OP_SEND,
	APH_AFRX_OP_RECEIVE,
	APH_AFRX_OP_SET,
	APH_AFRX_OP_GET,
	APH_AFRX_OP_SHUTDOWN,
	APH_AFRX_OP_CLOSE,
	APH_AFRX_OP_KEY, /* the body is a struct aph_afrx_key_image */
};

struct aph_afrx_question {
	uint32_t op;
	int32_t a, b;	    /* flags, level and option, backlog, how */
	uint32_t has_name;  /* there is a msg_name */
	uint32_t has_value; /* there is a value of an option */
	/* Body or value cannot be read: to fail as it would have in the program. */
	uint32_t is_faulty;
	uint32_t name_len;    /* as the program said, which may be more than there is room for */
	uint32_t control_len; /* the same */
	uint64_t len;	      /* of the body, or room for it */
	/* As in struct aph_afrx_onward, but for how long it may wait yet; 0: as long as any. */
	uint64_t tag, call, wait_ns;
};

struct aph_afrx_answer {
	int64_t result; /* or -errno */
	uint32_t name_len, control_len, value_len;
	int32_t flags;
};

#define APH_AFRX_BODY_MIN (UINT64_C(64) << 10)
#define APH_AFRX_BODY_MAX (UINT64_C(64) << 20)

/* What has become of a key: its description, which ends with a zero, and its payload follow. */
struct aph_afrx_key_image {
	uint32_t type;
	uint32_t is_unlinked, is_revoked;
	int32_t keyring;
	uint64_t expiry_s;
	uint32_t name_len, payload_len;
	char bytes[];
};

/* The memory of a connection; the body is as long as the memory allows. */
struct aph_afrx_shared {
	struct aph_afrx_question question;
	struct aph_afrx_answer answer;
	char name[sizeof(struct sockaddr_storage)];
	char control[APH_AFRX_CONTROL_MAX];
	char body[];
};

static_assert(offsetof(struct aph_afrx_shared, body) % _Alignof(struct aph_afrx_key_image) == 0,
	      "a key can lie in a body");

/*
 * A sendmsg() or recvmsg() that the program has begun before its socket moved, and that goes on at
 * the broker.
 */
struct aph_afrx_onward {
	unsigned long tag;
	uint64_t call;	      /* the serial number of the one that it is at; 0: none yet */
	uint64_t deadline_ns; /* of its waiting, which has begun */
};

/* -- fork.c ------------------------------------------------------------------------------------ */

/* Before there is a socket, here or at a broker. */
void aph_afrx_fork_begin(void);
/* Gives the inner end of a new socket its name. The first one reserves that of the broker. */
int aph_afrx_name_inner(int inner);
/* There are no sockets here (any more) that a broker could get. */
void aph_afrx_name_drop(void);
/*
 * Where the broker listens that has (or would have) the socket of this outer end. -ENOTSOCK: it is
 * none of ours.
 */
int aph_afrx_broker_of(int outer, struct sockaddr_un *out, socklen_t *len);

/* -- broker.c ---------------------------------------------------------------------------------- */

/*
 * This process is a broker from now on, at the name of `listener`. The lock is held. `ready` is
 * written to, once for each of two processes.
 */
_Noreturn void aph_afrx_broker_run(int listener, int ready);
/*
 * Before and after a thread of the broker sleeps for somebody: whether they cancelled. Nothing in
 * programs.
 */
void aph_afrx_broker_watch(struct aph_afrx_socket *s);
bool aph_afrx_broker_cancelled(void);
/* A socket has ended, whoever did it; or whoever asked something has the answer. */
void aph_afrx_broker_look(void);
/*
 * The user for whom this thread of a broker is at work, if it is another one than ours; else
 * APH_AFRX_OURS.
 */
uid_t aph_afrx_broker_asker(void);
#define APH_AFRX_OURS ((uid_t)-1)

/* -- send.c, receive.c ------------------------------------------------------------------------- */

/* As the public functions. `begun`: what a broker's asker has begun; or NULL. */
ssize_t aph_afrx_sendmsg(int fd, const struct msghdr *message, int flags,
			 const struct aph_afrx_onward *begun);
ssize_t aph_afrx_recvmsg(int fd, struct msghdr *message, int flags,
			 const struct aph_afrx_onward *begun);

/* -- connection.c ------------------------------------------------------------------------------ */

/* One message with at most two descriptors. 0, -errno. */
int aph_afrx_say(int fd, char what, const int *fds, unsigned n);
/* Receives one; those that are missing are -1. 1, 0 (nobody is there any more), -EINTR, -errno. */
int aph_afrx_hear(int fd, char *what, int fds[2]);

/* -- key.c: keys that the program has changed since; with the lock held ------------------------ */

/* How often that was. */
uint64_t aph_afrx_keys_changed(void);
/*
 * The first change after `*since`, which becomes that one. Returns its length, at most
 * APH_AFRX_BODY_MIN; 0: none.
 */
size_t aph_afrx_key_image(struct aph_afrx_key_image *out, uint64_t *since);
/*
 * In a broker, for its asker. The image is a copy, and may be anything. 0, -EINVAL, -EDQUOT,
 * -ENOMEM, ...
 */
int aph_afrx_key_adopt(const struct aph_afrx_key_image *image, size_t len);

/* -- connection.c, remote.c: sockets that a broker has ----------------------------------------- */

/* With the lock held. */
bool aph_afrx_remote_find(uint64_t cookie);
bool aph_afrx_remote_any(void); /* without it as well */
int aph_afrx_remote_add(uint64_t cookie);
/* In a forked child: the connections are the parent's. */
void aph_afrx_remote_forget(void);

/* The public functions for them. */
int aph_afrx_remote_bind(int fd, const struct sockaddr *address, socklen_t len);
int aph_afrx_remote_connect(int fd, const struct sockaddr *address, socklen_t len);
int aph_afrx_remote_listen(int fd, int backlog);
int aph_afrx_remote_shutdown(int fd, int how);
int aph_afrx_remote_close(int fd);
ssize_t aph_afrx_remote_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t aph_afrx_remote_recvmsg(int fd, struct msghdr *message, int flags);
/*
 * What is left of those: `copy` and `body` as of aph_afrx_message_copy(), the body freed if the
 * thread is cancelled. Return a count, or -errno.
 */
ssize_t aph_afrx_remote_send_on(int fd, const struct msghdr *copy, struct aph_afrx_vector *body,
				int flags, const struct aph_afrx_onward *onward);
ssize_t aph_afrx_remote_receive_on(int fd, struct msghdr *message, const struct msghdr *copy,
				   struct aph_afrx_vector *body, int flags,
				   const struct aph_afrx_onward *onward);
int aph_afrx_remote_setsockopt(int fd, int level, int option, const void *value, socklen_t len);
int aph_afrx_remote_getsockopt(int fd, int level, int option, void *value, socklen_t *len);

#endif
