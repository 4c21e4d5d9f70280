/* SPDX-License-Identifier: MIT */
/*
 * AF_RXRPC sockets without a kernel that has them: functions with the signatures of the socket
 * calls. Addresses, options and control messages are in linux/rxrpc.h (ours is in the directory
 * antiphon-compat); af_rxrpc(7) states the rules. Link with -lafrxrpc.
 *
 * A socket is an ordinary descriptor: poll(), select(), epoll, fcntl(), dup() and close() are used
 * on it as they are. It must not be read or written with the system's own calls. Forked children
 * and programs that are started share it: see af_rxrpc(7).
 *
 * All functions return -1 and set errno on failure. They may be used from any thread, but not from
 * signal handlers. A thread may be cancelled (pthread_cancel(3)) while it waits in sendmsg() or
 * recvmsg(), and in no other of them. The library has one thread for each UDP port in use, which
 * handles no signals.
 */
#ifndef ANTIPHON_AF_RXRPC_H
#define ANTIPHON_AF_RXRPC_H

#include <antiphon/api.h>

#include <stdbool.h>
#include <sys/socket.h>

APH_BEGIN_DECLS

/*
 * `domain` is AF_RXRPC, `type` SOCK_DGRAM with SOCK_CLOEXEC and SOCK_NONBLOCK if wanted, `protocol`
 * PF_INET or PF_INET6.
 */
APH_API int aph_rxrpc_socket(int domain, int type, int protocol);
APH_API int aph_rxrpc_bind(int fd, const struct sockaddr *address, socklen_t len);
APH_API int aph_rxrpc_connect(int fd, const struct sockaddr *address, socklen_t len);
APH_API int aph_rxrpc_listen(int fd, int backlog);
APH_API ssize_t aph_rxrpc_sendmsg(int fd, const struct msghdr *message, int flags);
APH_API ssize_t aph_rxrpc_recvmsg(int fd, struct msghdr *message, int flags);
APH_API int aph_rxrpc_setsockopt(int fd, int level, int option, const void *value, socklen_t len);
APH_API int aph_rxrpc_getsockopt(int fd, int level, int option, void *value, socklen_t *len);
APH_API int aph_rxrpc_shutdown(int fd, int how);

/*
 * Closes the descriptor. With the last one of a socket its calls are aborted and its address is
 * free when the function returns; after the system's close() that is so a moment later.
 */
APH_API int aph_rxrpc_close(int fd);

/*
 * Moves all sockets of this process to a process of their own, as fork() does: so that they survive
 * a program that is started in place of this one, or by posix_spawn(). 0; EAGAIN: they are still
 * here.
 */
APH_API int aph_rxrpc_share(void);

/* Whether the descriptor is a socket of this library. */
APH_API bool aph_rxrpc_is_socket(int fd);

/*
 * Limits and delays under the names they have in /proc/sys/net/rxrpc: max_backlog, rx_window_size,
 * rx_mtu, rx_jumbo_max, soft_ack_delay, idle_ack_delay, idle_conn_expiry, idle_conn_fast_expiry,
 * reap_client_conns, inject_rx_delay. The environment variable AFRXRPC_NAME, in capitals, gives the
 * first value. All but max_backlog count for UDP ports that are opened later. Errors: ENOENT (there
 * is no such tunable), EINVAL (out of range).
 */
APH_API int aph_rxrpc_set_tunable(const char *name, unsigned value);
APH_API int aph_rxrpc_get_tunable(const char *name, unsigned *value);

/*
 * Keys, as add_key(2) and keyctl(2) would keep them; they are the process's own. `type` is "rxrpc"
 * (a client's token), "rxrpc_s" (a server's key) or "keyring" (a place for those, found by its
 * name). A key that has the type, description and keyring of another replaces it. Errors: EINVAL,
 * EKEYREJECTED, EKEYEXPIRED, EPROTONOSUPPORT, ENOPKG (the payload, as aph_rxrpc_add_key(3) says),
 * ENODEV (the type is not known), EDQUOT (there are too many), ENOMEM; of the others ENOKEY (there
 * is no such key).
 */
APH_API int32_t aph_rxrpc_add_key(const char *type, const char *description, const void *payload,
				  size_t len, int32_t keyring);
/* From now on the key is found, and answered with EKEYREVOKED. */
APH_API int aph_rxrpc_revoke_key(int32_t key);
/* It expires after so many seconds; 0: never. */
APH_API int aph_rxrpc_set_key_timeout(int32_t key, unsigned seconds);
/* Nobody finds it any more. */
APH_API int aph_rxrpc_unlink_key(int32_t key);
/*
 * The payload of an "rxrpc" key in XDR. Returns its length, and copies at most `len` bytes of it.
 */
APH_API ssize_t aph_rxrpc_read_key(int32_t key, void *out, size_t len);

APH_END_DECLS

#endif
