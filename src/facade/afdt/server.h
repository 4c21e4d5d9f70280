/* SPDX-License-Identifier: MIT */
/*
 * Servers, the requests of their clients, and clients, as the files of this facade see them. The
 * historical interface and the additions are two sets of handlers on the same objects.
 *
 * The life of a request, which is an accepted connection:
 *
 *   READING -> WITH_PROGRAM -> freed when the answer is sent at once, which is the rule
 *                           -> SENDING -> freed
 *
 * It is freed from any state when it fails. Deadlines are for READING and SENDING.
 */
#ifndef ANTIPHON_FACADE_AFDT_SERVER_H
#define ANTIPHON_FACADE_AFDT_SERVER_H

#include "watch.h"

#include <sys/stat.h>

#define APH_AFDT_CONNECTIONS_MAX 1024u
#define APH_AFDT_REQUEST_MS	 30000u

/* A socket file that this process holds: see listen.c. */
struct aph_afdt_claim {
	int dir; /* where it is; -1: none is held */
	int lock;
	char name[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	char lock_name[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 8];
	dev_t dev;
	ino_t ino;
};

struct aph_afdt_server {
	struct aph_afdt_endpoint *ep;
	struct aph_afdt_endpoint own; /* what ep points to with the historical interface */
	struct aph_afdt_link link;    /* in the endpoint's */
	struct aph_afdt_link reading; /* requests in that state, the oldest first */
	struct aph_afdt_watch watch;
	int sock;      /* -1: closed */
	unsigned refs; /* one of whoever may close it, one of each request */
	unsigned n_requests, connections_max;
	bool paused;
	bool crowd; /* more were waiting when one was accepted, and it did not turn out otherwise */
	bool accepting; /* a turn of accepting goes on: it has the last word */
	struct aph_afdt_spin next_spin, first_spin; /* for the next client, for its first bytes */
	struct aph_afdt_request *spare;
	uint64_t request_ns;
	struct aph_afdt_claim claim;
	/* Handlers. */
	aph_afdt_request_handler request;
	aph_afdt_request_handler gone;
	/* Runs when an answer was sent, before the request is freed. */
	void (*sent)(struct aph_afdt_request *request);
	aph_afdt_error_handler error;
	void *data;
	/* The historical ones, which those of the server call. */
	afdt_request_handler_t old_request;
	afdt_post_handler_t old_post;
};

enum aph_afdt_request_phase {
	APH_AFDT_READING,
	APH_AFDT_WITH_PROGRAM,
	APH_AFDT_SENDING,
};

struct aph_afdt_request {
	struct aph_afdt_server *server;
	struct aph_afdt_link link;	   /* in the endpoint's */
	struct aph_afdt_link reading_link; /* in the server's */
	struct aph_afdt_watch watch;
	enum aph_afdt_request_phase phase;
	bool gone;
	bool *freed; /* set when it is: whoever lent the request to a handler looks */
	void *data;
	uint64_t deadline_ns;
	struct aph_afdt_outgo out;
	int old_fd; /* the historical handler's answer */
	int *kept;  /* descriptors of an answer that could not be sent at once */
	struct aph_credentials credentials;
	bool has_credentials;
	gid_t *groups;
	char *label;
	struct aph_afdt_intake in;
	uint8_t answer[AFDT_MSGLEN];
};

/* Listens. Endpoint, handlers and limits are set already, all else is 0. */
int aph_afdt_server_start(struct aph_afdt_server *server, const char *path, unsigned flags,
			  mode_t mode, struct afdt_error_t *err);
/* Ends listening; the server is gone with its last request. */
void aph_afdt_server_stop(struct aph_afdt_server *server);
void aph_afdt_server_unref(struct aph_afdt_server *server);

/* Accepted a connection: reads, and goes on as far as it can. Takes the socket. */
void aph_afdt_request_begin(struct aph_afdt_server *server, int sock);

/*
 * Sends what is in `out`, now or later. 0: it is taken care of, or an error of sendmsg(2): it is
 * not.
 */
int aph_afdt_request_send(struct aph_afdt_request *request);

/* Tells the error handler, with errno as it is, and frees the request. */
void aph_afdt_request_fail(struct aph_afdt_request *request, enum afdt_phase phase,
			   struct afdt_error_t *err);

/*
 * Makes room for a newcomer at the expense of the oldest that has not said what it wants: of all,
 * or of those that have sent descriptors. False if there is none.
 */
bool aph_afdt_request_evict(struct aph_afdt_server *server, bool with_fds);

/* Lets the server accept again, should it have paused. */
void aph_afdt_server_resume(struct aph_afdt_server *server);

void aph_afdt_server_error(const struct aph_afdt_server *server, enum afdt_phase phase,
			   struct afdt_error_t *err);

/* -- socket files ------------------------------------------------------------------------------ */

/*
 * A listening socket at `path`, if wanted with the mark in its name, provided there is room for it.
 */
int aph_afdt_listen_at(const char *path, mode_t mode, int flags, bool mark,
		       struct afdt_error_t *err);

/* unlink(2) that keeps errno. */
void aph_afdt_unlink(const char *path);

/* One with the mark that does not block, in place of a dead owner's; the claim is filled in. */
int aph_afdt_claim_listen(struct aph_afdt_claim *claim, const char *path, mode_t mode,
			  struct afdt_error_t *err);

/* Removes the file, if it still is this server's, and lets go of the lock. */
void aph_afdt_claim_release(struct aph_afdt_claim *claim);

/* -- clients ----------------------------------------------------------------------------------- */

struct aph_afdt_client *aph_afdt_client_of(struct aph_afdt_link *link);

#endif
