/* SPDX-License-Identifier: MIT */
/*
 * Listening and accepting. Whoever is accepted is read from and answered at once if possible, so
 * that an exchange of which both messages are small and prompt never meets the event loop.
 */
#include "server.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ACCEPTS_PER_TURN   64
#define ACCEPTS_OVERTAKING 4
#define PAUSE_NS	   UINT64_C(100000000)
#define NS_PER_MS	   UINT64_C(1000000)

/* What options of any age have. */
#define OPTIONS_SIZE_LEAST offsetof(struct aph_afdt_server_options, gone)

void aph_afdt_server_error(const struct aph_afdt_server *server, enum afdt_phase phase,
			   struct afdt_error_t *err)
{
	err->phase = phase;
	if (server->error)
		server->error(err, server->data);
}

void aph_afdt_server_unref(struct aph_afdt_server *server)
{
	if (--server->refs)
		return;
	free(server->spare);
	free(server);
}

/* Stops accepting until a request ends, or for want of one, for a while. */
static void pause_accepting(struct aph_afdt_server *server)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	uint64_t until = aph_afdt_now() + PAUSE_NS;

	server->paused = true;
	if (aph_afdt_watch_start(&server->watch, 0, until, &err) < 0)
		aph_afdt_server_error(server, AFDT_ACCEPT_CLIENT, &err);
}

void aph_afdt_server_resume(struct aph_afdt_server *server)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;

	if (!server->paused || server->sock < 0 || server->accepting)
		return;
	server->paused = false;
	if (aph_afdt_watch_start(&server->watch, APH_AFDT_READ | APH_AFDT_PERSIST, APH_FOREVER,
				 &err) < 0) {
		aph_afdt_server_error(server, AFDT_ACCEPT_CLIENT, &err);
		/* The timer may still be had. */
		if (server->sock >= 0)
			pause_accepting(server);
	}
}

/* All places are taken: true if one is free now, and there is somebody who wants it. */
static bool make_room(struct aph_afdt_server *server)
{
	struct pollfd poller = { .fd = server->sock, .events = POLLIN };

	if (poll(&poller, 1, 0) != 1) {
		server->crowd = false;
		return false;
	}
	if (aph_afdt_request_evict(server, false))
		return server->sock >= 0;
	pause_accepting(server);
	return false;
}

/* False when there is nobody more, or no more can be had for now. */
static bool accept_one(struct aph_afdt_server *server)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	int sock, cause;

	if (server->n_requests >= server->connections_max && !make_room(server))
		return false;
	sock = accept4(server->sock, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (sock >= 0) {
		aph_afdt_request_begin(server, sock);
		return server->sock >= 0;
	}
	if (errno == EAGAIN) {
		server->crowd = false;
		return false;
	}
	if (errno == EINTR || errno == ECONNABORTED)
		return true;
	cause = errno;
	if ((cause == EMFILE || cause == ENFILE) && aph_afdt_request_evict(server, true))
		return server->sock >= 0;
	/* The loop would be told again at once, for as long as there is no room. */
	pause_accepting(server);
	(void)aph_afdt_fail(&err, AFDT_ACCEPT, cause, "cannot accept a client");
	aph_afdt_server_error(server, AFDT_ACCEPT_CLIENT, &err);
	return false;
}

/*
 * Whether another client is there, or comes in a moment. In a crowd, accepting is the way to find
 * out.
 */
static bool is_another(struct aph_afdt_server *server)
{
	struct pollfd poller = { .fd = server->sock, .events = POLLIN };
	uint64_t until;

	if (!server->crowd)
		server->crowd = poll(&poller, 1, 0) == 1;
	if (server->crowd)
		return true;
	until = aph_afdt_spin_begin(&server->next_spin, APH_AFDT_SPIN_SERVER_NS);
	if (!until)
		return false;
	do {
		if (poll(&poller, 1, 0) == 1) {
			aph_afdt_spin_finish(&server->next_spin, true);
			return true;
		}
	} while (aph_afdt_now() < until);
	aph_afdt_spin_finish(&server->next_spin, false);
	return false;
}

/*
 * How many are served before the loop is asked again. Only the loop sees what somebody sends who
 * was accepted before it had sent its request: all who come meanwhile would overtake it, again and
 * again if it shares a core with this server.
 */
static int turn_of(const struct aph_afdt_server *server)
{
	return aph_afdt_link_alone(&server->reading) ? ACCEPTS_PER_TURN : ACCEPTS_OVERTAKING;
}

static void listener_ready(struct aph_afdt_watch *watch, unsigned what)
{
	struct aph_afdt_server *server = APH_AFDT_CONTAINER(watch, struct aph_afdt_server, watch);

	if (what & APH_AFDT_TIMEOUT) {
		aph_afdt_server_resume(server);
		return;
	}
	server->refs++;
	server->accepting = true;
	for (int i = 1; accept_one(server) && i < turn_of(server) && is_another(server); i++)
		continue;
	server->accepting = false;
	aph_afdt_server_unref(server);
}

int aph_afdt_server_start(struct aph_afdt_server *server, const char *path, unsigned flags,
			  mode_t mode, struct afdt_error_t *err)
{
	/* The historical handlers cannot take what the mark invites others to send. */
	bool mark = !server->old_request, claim = flags & APH_AFDT_RECLAIM;
	int r;

	aph_afdt_link_init(&server->link);
	aph_afdt_link_init(&server->reading);
	server->refs = 1;
	server->claim.dir = server->claim.lock = -1;
	server->sock = claim ? aph_afdt_claim_listen(&server->claim, path, mode, err)
			     : aph_afdt_listen_at(path, mode, SOCK_NONBLOCK, mark, err);
	if (server->sock < 0)
		return server->sock;
	r = aph_afdt_watch_init(&server->watch, server->ep, server->sock, listener_ready);
	if (r < 0) {
		r = aph_afdt_fail(err, AFDT_MALLOC, -r, "no memory for the server");
		goto failed;
	}
	r = aph_afdt_watch_start(&server->watch, APH_AFDT_READ | APH_AFDT_PERSIST, APH_FOREVER,
				 err);
	if (r < 0) {
		aph_afdt_watch_deinit(&server->watch);
		goto failed;
	}
	aph_afdt_link_append(&server->ep->servers, &server->link);
	return 0;
failed:
	if (!claim)
		aph_afdt_unlink(path);
	aph_afdt_claim_release(&server->claim);
	aph_afdt_close(server->sock);
	server->sock = -1;
	return r;
}

void aph_afdt_server_stop(struct aph_afdt_server *server)
{
	aph_afdt_watch_deinit(&server->watch);
	aph_afdt_link_remove(&server->link);
	/* First the file, so that nobody finds a socket that refuses. */
	aph_afdt_claim_release(&server->claim);
	aph_afdt_close(server->sock);
	server->sock = -1;
	aph_afdt_server_unref(server);
}

static int check(const char *path, const struct aph_afdt_server_options *options,
		 struct aph_afdt_server_options *all)
{
	*all = (struct aph_afdt_server_options){ 0 };
	if (!path || !options || options->size < OPTIONS_SIZE_LEAST || !options->request)
		return -EINVAL;
	memcpy(all, options, options->size < sizeof(*all) ? options->size : sizeof(*all));
	if (all->flags & ~APH_AFDT_RECLAIM || all->mode & ~(mode_t)0777)
		return -EINVAL;
	return 0;
}

APH_API int aph_afdt_server_open(struct aph_afdt_server **out, struct aph_afdt_endpoint *ep,
				 const char *path, const struct aph_afdt_server_options *options,
				 struct afdt_error_t *err)
{
	struct aph_afdt_server_options all;
	struct aph_afdt_server *server;
	int r = check(path, options, &all);

	if (err)
		err->phase = AFDT_CREATE_SERVER;
	if (r < 0)
		return aph_afdt_fail(err, AFDT_NO_OPERATION, -r, "the options are not valid");
	server = calloc(1, sizeof(*server));
	if (!server)
		return aph_afdt_fail(err, AFDT_MALLOC, ENOMEM, "no memory for the server");
	server->ep = ep;
	server->connections_max = all.connections_max ? all.connections_max
						      : APH_AFDT_CONNECTIONS_MAX;
	server->request_ns = (all.request_ms ? all.request_ms : APH_AFDT_REQUEST_MS) * NS_PER_MS;
	server->request = all.request;
	server->gone = all.gone;
	server->error = all.error;
	server->data = all.data;
	r = aph_afdt_server_start(server, path, all.flags, all.mode, err);
	if (r < 0) {
		free(server);
		return r;
	}
	if (out)
		*out = server;
	return 0;
}

APH_API struct aph_afdt_server *aph_afdt_server_close(struct aph_afdt_server *server)
{
	if (server)
		aph_afdt_server_stop(server);
	return NULL;
}
