/* SPDX-License-Identifier: MIT */
/*
 * libafdt: handing over file descriptors through a Unix socket; the interface of the library of
 * 2009.
 *
 * Names, values and types are as they were: programs written for it compile and link unchanged. See
 * afdt(7); what is new is in <antiphon/afdt.h>. Link with -lafdt.
 *
 * A message is up to AFDT_MSGLEN bytes, with or without one descriptor. Functions that fail return
 * a negative number and fill in `err`, which may be NULL; errno is the cause, or 0 where there is
 * none. Descriptors that arrive are close-on-exec and belong to who receives them; those that are
 * sent stay the sender's. One connection, and one event base with all that is on it, is for one
 * thread at a time.
 */
#ifndef AFDT_H
#define AFDT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AFDT_FULL_MSGLEN 0x200 /* the longest message, with its header of four bytes */
#define AFDT_MSGLEN	 (AFDT_FULL_MSGLEN - sizeof(uint32_t))

struct event_base;
struct timeval;

/* -- errors ------------------------------------------------------------------------------------ */

/* During which part of an exchange; set by the asynchronous and the synchronous interface. */
enum afdt_phase {
	AFDT_NO_PHASE,
	AFDT_CREATE_SERVER,
	AFDT_ACCEPT_CLIENT,
	AFDT_HANDLE_REQUEST,
	AFDT_CREATE_CLIENT,
	AFDT_HANDLE_RESPONSE,
};

/* What went wrong, mostly named after the system call. */
enum afdt_operation {
	AFDT_NO_OPERATION,
	AFDT_MALLOC,
	AFDT_SOCKET,
	AFDT_PATHNAME,
	AFDT_BIND,
	AFDT_LISTEN,
	AFDT_ACCEPT,
	AFDT_CONNECT,
	AFDT_FORMAT,
	AFDT_SENDMSG,
	AFDT_RECVMSG,
	AFDT_EVENT_BASE_SET,
	AFDT_EVENT_ADD,
	AFDT_POLL,
	AFDT_TIMEOUT,
};

struct afdt_error_t {
	enum afdt_phase phase;
	enum afdt_operation operation;
	const char *message; /* more about it, or ""; a static string */
};

/* What every struct afdt_error_t should be initialised from. */
extern const struct afdt_error_t AFDT_ERROR_T_INIT;

/* The name of the constant, "UNKNOWN" for a number that is none. Static strings. */
const char *afdt_phase_str(enum afdt_phase phase);
const char *afdt_operation_str(enum afdt_operation operation);

/* -- low-level interface ----------------------------------------------------------------------- */

/*
 * A listening socket bound to a new file `fname`, for accept(2); or one that is connected to it.
 * Both are blocking and close-on-exec. The caller closes them, and removes the file.
 */
int afdt_listen(const char *fname, struct afdt_error_t *err);
int afdt_connect(const char *fname, struct afdt_error_t *err);

/*
 * Sends one message, with a descriptor if `fd_to_send` is not negative. On a socket that does not
 * block either nothing was sent (EAGAIN), or all is: once begun, the rest is waited for.
 */
int afdt_send_fd_msg(int connfd, const uint8_t *content, uint32_t content_len, int fd_to_send,
		     struct afdt_error_t *err);
int afdt_send_plain_msg(int connfd, const uint8_t *content, uint32_t content_len,
			struct afdt_error_t *err);

/*
 * Receives one message, in however many pieces it comes, and nothing beyond it. `*content_len` goes
 * in as the room and comes out as the length. `*received_fd` is -1 if none came, and after a
 * failure. The plain form fails with AFDT_FORMAT if a descriptor came, and closes it. On a socket
 * that does not block a message that is not all there stays where it is (EAGAIN); after any other
 * failure the connection is of no more use.
 */
int afdt_recv_fd_msg(int connfd, uint8_t *content, uint32_t *content_len, int *received_fd,
		     struct afdt_error_t *err);
int afdt_recv_plain_msg(int connfd, uint8_t *content, uint32_t *content_len,
			struct afdt_error_t *err);

/* -- asynchronous interface, for libevent ------------------------------------------------------ */

/*
 * Answers a request: writes the response to `response`, whose room is `*response_length`, sets that
 * to the length, and returns the descriptor to send or a negative number for none.
 */
typedef int (*afdt_request_handler_t)(const uint8_t *request, uint32_t request_length,
				      uint8_t *response, uint32_t *response_length, void *userdata);

/* Takes a response; the descriptor, if not negative, is the handler's to close. */
typedef void (*afdt_response_handler_t)(const uint8_t *response, uint32_t response_length,
					int received_fd, void *userdata);

/* Runs when a response was sent, before the event loop goes on: `sent_fd` may now be closed. */
typedef void (*afdt_post_handler_t)(const uint8_t *request, uint32_t request_length,
				    const uint8_t *response, uint32_t response_length, int sent_fd,
				    void *userdata);

typedef void (*afdt_error_handler_t)(const struct afdt_error_t *err, void *userdata);

/* A post handler that does nothing. */
void afdt_no_post(const uint8_t *request, uint32_t request_length, const uint8_t *response,
		  uint32_t response_length, int sent_fd, void *userdata);

/*
 * Serves at `fname`, which must not exist. The request and error handlers run any number of times.
 * What afdt_close_server() wants is stored to `*out_close_handle` unless that is NULL. On failure
 * the error handler runs, too.
 */
int afdt_create_server(const char *fname, struct event_base *eb,
		       afdt_request_handler_t request_handler, afdt_post_handler_t post_handler,
		       afdt_error_handler_t error_handler, void **out_close_handle, void *userdata);

/*
 * Ends a server. Clients that were accepted are still served; the file is the caller's to remove.
 */
int afdt_close_server(void *close_handle);

/*
 * Asks a server. Exactly one of the response and error handlers runs, unless `timeout` is NULL and
 * the server never answers; on failure that is the error handler, before this function returns. The
 * request is copied. Nothing in it waits.
 */
int afdt_create_client(const char *fname, struct event_base *eb, const uint8_t *request,
		       uint32_t request_length, afdt_response_handler_t response_handler,
		       afdt_error_handler_t error_handler, const struct timeval *timeout,
		       void *userdata);

/* -- synchronous interface --------------------------------------------------------------------- */

/*
 * Connects, sends a request and waits for the response, all of it within `timeout` (NULL: for
 * ever). Lengths and descriptor are as for afdt_recv_fd_msg().
 */
int afdt_sync_client(const char *fname, const uint8_t *request, uint32_t request_length,
		     uint8_t *response, uint32_t *response_length, int *received_fd,
		     const struct timeval *timeout, struct afdt_error_t *err);

#ifdef __cplusplus
}
#endif

#endif
