/* SPDX-License-Identifier: MIT */
/*
 * What the tests of AF_RXRPC share. Each test program is built twice: with libafrxrpc's functions,
 * and (AFRX_PLAIN) with the system's calls of the same purpose, to be run under the preload
 * library.
 */
#ifndef TESTS_AF_RXRPC_FIXTURE_H
#define TESTS_AF_RXRPC_FIXTURE_H

#include "support/port.h"
#include "support/suite.h"

#include <errno.h>
#include <linux/rxrpc.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#ifdef AFRX_PLAIN
#define rx_socket     socket
#define rx_bind	      bind
#define rx_connect    connect
#define rx_listen     listen
#define rx_sendmsg    sendmsg
#define rx_recvmsg    recvmsg
#define rx_setsockopt setsockopt
#define rx_getsockopt getsockopt
#define rx_shutdown   shutdown
#define rx_close      close
#else
#include <antiphon/af_rxrpc.h>
#define rx_socket     aph_rxrpc_socket
#define rx_bind	      aph_rxrpc_bind
#define rx_connect    aph_rxrpc_connect
#define rx_listen     aph_rxrpc_listen
#define rx_sendmsg    aph_rxrpc_sendmsg
#define rx_recvmsg    aph_rxrpc_recvmsg
#define rx_setsockopt aph_rxrpc_setsockopt
#define rx_getsockopt aph_rxrpc_getsockopt
#define rx_shutdown   aph_rxrpc_shutdown
#define rx_close      aph_rxrpc_close
#endif

#define SERVICE 1234

/* -- control messages to send ------------------------------------------------------------------ */

struct ctl {
	char bytes[512] __attribute__((aligned(16)));
	size_t len;
};

/* Begins with nothing. */
struct ctl ctl_none(void);
/* Begins with a tag. */
struct ctl ctl_tag(unsigned long tag);
void ctl_put(struct ctl *ctl, int type, const void *data, size_t len);
void ctl_abort(struct ctl *ctl, uint32_t code);

/* sendmsg() with them; -errno or what it returned. */
ssize_t ctl_send(int fd, const struct ctl *ctl, const void *data, size_t len,
		 const struct sockaddr_rxrpc *to, int flags);
/* With a tag alone. */
ssize_t tag_send(int fd, unsigned long tag, const void *data, size_t len,
		 const struct sockaddr_rxrpc *to, int flags);
/* With a tag and a command without data. */
ssize_t tag_command(int fd, unsigned long tag, int type);
ssize_t tag_abort(int fd, unsigned long tag, uint32_t code);

/* -- messages received ------------------------------------------------------------------------- */

struct got {
	ssize_t n; /* or -errno */
	int flags; /* msg_flags */
	bool has_tag;
	unsigned long tag;
	int type; /* of the other control message; 0: there was none */
	uint32_t code;
	struct sockaddr_rxrpc from;
	socklen_t from_len;
	size_t control_len;
	char data[65536];
};

/* recvmsg() with a buffer of `len`. */
void receive(int fd, struct got *got, size_t len, int flags);
/* The same, waiting for it no longer than the tests' patience. */
void receive_soon(int fd, struct got *got, size_t len, int flags);
/* It has to be data of this tag, which say so, with these flags. */
void expect_data(int fd, unsigned long tag, const char *text, int flags);
/* It has to be a message of this type without data. */
void expect_note(int fd, struct got *got, unsigned long tag, int type);
/* There is nothing to receive, and does not come in a while. */
void expect_nothing(int fd);
/* Takes the call that comes next, whose request has to be "x", and replies "y". */
void reply_to(int server, unsigned long tag);
/* Its reply has been acknowledged. */
void expect_ack(int server, unsigned long tag);

/* -- sockets ----------------------------------------------------------------------------------- */

/* 127.0.0.1 and a service. */
struct sockaddr_rxrpc loopback(uint16_t port, uint16_t service);
/* A server on a free port, listening. */
int server_new(struct sockaddr_rxrpc *address, int backlog);
int client_new(void);
/* bind() and -errno. */
int bind_to(int fd, const struct sockaddr_rxrpc *address);
int connect_to(int fd, const struct sockaddr_rxrpc *address);
/* Whether poll() says these events of these, within so many ms. */
bool polls(int fd, short events, int ms);

/* -- processes --------------------------------------------------------------------------------- */

/* Waits for a child; its exit status has to be 0. */
void finish(pid_t pid);
/* A child that ends at once. The sockets have moved then. */
void fork_once(void);

#define OK(call) CHECK_OK(call)
#define CHECK_INT(got, wanted)                                                           \
	do {                                                                             \
		long long got_ = (long long)(got);                                       \
		if (got_ != (long long)(wanted))                                         \
			check_failed(__FILE__, __LINE__, #got " is not " #wanted, got_); \
	} while (0)
#define FAILS(call, error)                 \
	do {                               \
		errno = 0;                 \
		CHECK((call) == -1);       \
		CHECK_INT(errno, (error)); \
	} while (0)

#endif
