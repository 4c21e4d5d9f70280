/* SPDX-License-Identifier: MIT */
/*
 * What libafdt has beyond the library of 2009, whose interface is in <afdt.h>: answers that come
 * later, the caller's credentials, several descriptors with a message in either direction, socket
 * files whose owner has died, and loops other than libevent. Link with -lafdt; see afdt(7).
 *
 * Peers that know nothing of this are served and asked as ever; aph_afdt_fds_max() and
 * aph_afdt_request_fds_max() say what the other side takes.
 *
 * Functions return 0 (or a count) or -errno. Those with an `err`, which may be NULL, also tell
 * phase and operation. An endpoint, and all that is on it, is for one thread at a time; different
 * endpoints do not know of each other. Handlers may call anything but aph_afdt_endpoint_free() and
 * aph_afdt_endpoint_serve() of their own endpoint.
 */
#ifndef ANTIPHON_AFDT_H
#define ANTIPHON_AFDT_H

#include <antiphon/api.h>
#include <antiphon/credentials.h>

APH_BEGIN_DECLS

#define APH_AFDT_FDS_MAX 253 /* descriptors with one message, as many as the kernel takes */

struct afdt_error_t;
struct event_base;
struct aph_afdt_endpoint;
struct aph_afdt_server;
struct aph_afdt_request;
struct aph_afdt_client;

/* A message to send: at most AFDT_MSGLEN bytes. The descriptors stay the sender's. */
struct aph_afdt_message {
	const void *body;
	size_t len;
	const int *fds;
	size_t n_fds;
};

/*
 * Where a message is to go: `len` and `n_fds` go in as the room and come out as what there is. A
 * message that does not fit is an error. The descriptors are the receiver's.
 */
struct aph_afdt_room {
	void *body;
	size_t len;
	int *fds;
	size_t n_fds;
};

/* -- endpoints --------------------------------------------------------------------------------- */

/*
 * Where servers and clients live: on libevent's base `eb`, which must outlive the endpoint, or if
 * that is NULL on a descriptor of their own, for any other loop. 0, -EMFILE, -ENOMEM.
 */
APH_API int aph_afdt_endpoint_new(struct aph_afdt_endpoint **out, struct event_base *eb);

/*
 * Ends every server, request and client that is left on it; no handler runs. Accepts NULL. Returns
 * NULL.
 */
APH_API struct aph_afdt_endpoint *aph_afdt_endpoint_free(struct aph_afdt_endpoint *ep);

/*
 * A descriptor that is readable when there is something to do, be it only that a time limit has
 * passed: then call aph_afdt_endpoint_serve(). It belongs to the endpoint; do not read it.
 * -EOPNOTSUPP on libevent.
 */
APH_API int aph_afdt_endpoint_fd(struct aph_afdt_endpoint *ep);

/*
 * Does what there is to do, and runs handlers. Waits for something until `deadline_ns` (APH_NOW:
 * does not wait). 0 when there was something, -ETIMEDOUT, -EINTR, -EBUSY (called from a handler),
 * -EOPNOTSUPP.
 */
APH_API int aph_afdt_endpoint_serve(struct aph_afdt_endpoint *ep, uint64_t deadline_ns);

/* -- servers ----------------------------------------------------------------------------------- */

typedef void (*aph_afdt_request_handler)(struct aph_afdt_request *request, void *data);
typedef void (*aph_afdt_error_handler)(const struct afdt_error_t *err, void *data);

/*
 * Replaces a socket file whose owner has died, instead of failing with EADDRINUSE; removes it when
 * the server is closed. `PATH.lock` says that the owner lives.
 */
#define APH_AFDT_RECLAIM 0x1u

struct aph_afdt_server_options {
	size_t size; /* of this struct */
	/*
	 * A request has come. It is the program's until it is answered or freed, in the handler or
	 * at any time later.
	 */
	aph_afdt_request_handler request;
	/*
	 * The client of a request that is with the program has gone: stop working for it, and free
	 * it.
	 */
	aph_afdt_request_handler gone; /* or NULL */
	/* A client could not be served, and was dropped; errno is the cause, or 0. */
	aph_afdt_error_handler error; /* or NULL */
	void *data;		      /* for the handlers */
	unsigned flags;
	mode_t mode;		  /* of the socket file; 0: as the umask has it */
	unsigned connections_max; /* clients at a time; 0: 1024 */
	unsigned request_ms;	  /* to send a request, to take an answer; 0: 30,000 */
};

/*
 * Serves at `path`; `out` may be NULL. 0 or -errno with `err` filled in, phase AFDT_CREATE_SERVER.
 */
APH_API int aph_afdt_server_open(struct aph_afdt_server **out, struct aph_afdt_endpoint *ep,
				 const char *path, const struct aph_afdt_server_options *options,
				 struct afdt_error_t *err);

/* Clients that were accepted are still served. Accepts NULL. Returns NULL. */
APH_API struct aph_afdt_server *aph_afdt_server_close(struct aph_afdt_server *server);

/* The bytes of a request; they live as long as it does. */
APH_API const void *aph_afdt_request_body(const struct aph_afdt_request *request, size_t *len);

/*
 * Takes up to `max` of the descriptors that came with it; the others are closed with the request.
 */
APH_API size_t aph_afdt_request_take_fds(struct aph_afdt_request *request, int *fds, size_t max);

/* How many descriptors this client takes with its answer: 1, or APH_AFDT_FDS_MAX. */
APH_API size_t aph_afdt_request_fds_max(const struct aph_afdt_request *request);

/*
 * Who asks, as the kernel says: the process that connected, as it was then. What `*out` points to
 * lives as long as the request. 0, -ENOMEM.
 */
APH_API int aph_afdt_request_credentials(struct aph_afdt_request *request,
					 const struct aph_credentials **out);

/* A pidfd of the process that connected, which the caller closes. -ESRCH when it has ended. */
APH_API int aph_afdt_request_pidfd(struct aph_afdt_request *request);

/* A pointer of the program's that stays with the request; NULL at first. */
APH_API void *aph_afdt_request_data(const struct aph_afdt_request *request);
APH_API void aph_afdt_request_set_data(struct aph_afdt_request *request, void *data);

/*
 * Answers. 0: the answer is on its way, the descriptors may be closed, and the request is no more.
 * Otherwise nothing was sent and the request is still the program's: -EBADF, -EMSGSIZE (too long),
 * -EOPNOTSUPP (more descriptors than the client takes), -ECANCELED (the client has gone), -ENOMEM,
 * -ETOOMANYREFS or other errors of sendmsg(2).
 */
APH_API int aph_afdt_request_reply(struct aph_afdt_request *request,
				   const struct aph_afdt_message *answer);

/* Ends a request without an answer: its client is hung up on. Accepts NULL. Returns NULL. */
APH_API struct aph_afdt_request *aph_afdt_request_free(struct aph_afdt_request *request);

/* -- clients ----------------------------------------------------------------------------------- */

/* The descriptors are the handler's to close. */
typedef void (*aph_afdt_response_handler)(const struct aph_afdt_message *response, void *data);

struct aph_afdt_client_options {
	size_t size; /* of this struct */
	aph_afdt_response_handler response;
	aph_afdt_error_handler error;
	void *data;	      /* for the handlers */
	uint64_t deadline_ns; /* APH_FOREVER: none */
};

/*
 * Asks the server at `path`. After 0 exactly one of the two handlers runs, later, and the client is
 * no more then; it does not run if the client is closed before, nor if there is no deadline and no
 * answer. With descriptors in the request, -EOPNOTSUPP if the server does not take them.
 */
APH_API int aph_afdt_client_open(struct aph_afdt_client **out, struct aph_afdt_endpoint *ep,
				 const char *path, const struct aph_afdt_message *request,
				 const struct aph_afdt_client_options *options,
				 struct afdt_error_t *err);

/* Gives up: no handler runs. Accepts NULL. Returns NULL. */
APH_API struct aph_afdt_client *aph_afdt_client_close(struct aph_afdt_client *client);

/*
 * Asks the server at `path` and waits for the answer. 0 or -errno; -EOPNOTSUPP as above. Nothing is
 * received after a failure.
 */
APH_API int aph_afdt_call(const char *path, const struct aph_afdt_message *request,
			  struct aph_afdt_room *response, uint64_t deadline_ns,
			  struct afdt_error_t *err);

/* -- messages ---------------------------------------------------------------------------------- */

/*
 * As afdt_send_fd_msg() and afdt_recv_fd_msg(), with any number of descriptors. A message with two
 * or more is understood by aph_afdt_recv_msg() alone.
 */
APH_API int aph_afdt_send_msg(int connfd, const struct aph_afdt_message *message,
			      struct afdt_error_t *err);
APH_API int aph_afdt_recv_msg(int connfd, struct aph_afdt_room *room, struct afdt_error_t *err);

/*
 * How many descriptors the server behind a connected socket takes with a request: 0 if it is one of
 * 2009 or was made by afdt_create_server(), else APH_AFDT_FDS_MAX.
 */
APH_API size_t aph_afdt_fds_max(int connfd);

APH_END_DECLS

#endif
