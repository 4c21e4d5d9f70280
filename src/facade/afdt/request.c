/* SPDX-License-Identifier: MIT */
/* A request: from the accepted connection to the answer. */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* How often it is looked whether a client that has shut down its sending side is still there. */
#define LOOK_NS UINT64_C(250000000)

static struct aph_afdt_request *get_spare(struct aph_afdt_server *server)
{
	struct aph_afdt_request *request = server->spare;

	server->spare = NULL;
	return request ? request : malloc(sizeof(*request));
}

static void drop_kept(struct aph_afdt_request *request)
{
	for (unsigned i = 0; request->kept && i < request->out.n_fds; i++)
		aph_afdt_close(request->kept[i]);
	free(request->kept);
}

/* Ends a request. Keeps errno. */
static void end(struct aph_afdt_request *request)
{
	struct aph_afdt_server *server = request->server;
	int saved = errno;

	if (request->freed)
		*request->freed = true;
	aph_afdt_watch_deinit(&request->watch);
	aph_afdt_link_remove(&request->link);
	aph_afdt_link_remove(&request->reading_link);
	aph_afdt_close(request->watch.fd);
	aph_afdt_intake_deinit(&request->in);
	drop_kept(request);
	free(request->groups);
	free(request->label);
	server->n_requests--;
	if (server->spare || server->sock < 0)
		free(request);
	else
		server->spare = request;
	aph_afdt_server_resume(server);
	aph_afdt_server_unref(server);
	errno = saved;
}

void aph_afdt_request_fail(struct aph_afdt_request *request, enum afdt_phase phase,
			   struct afdt_error_t *err)
{
	struct aph_afdt_server *server = request->server;

	/* The handler may do anything, so it comes last. */
	server->refs++;
	end(request);
	aph_afdt_server_error(server, phase, err);
	aph_afdt_server_unref(server);
}

/* True if the request is still there. */
static bool await(struct aph_afdt_request *request, unsigned what, uint64_t deadline_ns,
		  enum afdt_phase phase)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;

	if (aph_afdt_watch_start(&request->watch, what, deadline_ns, &err) == 0)
		return true;
	aph_afdt_request_fail(request, phase, &err);
	return false;
}

/* -- with the program -------------------------------------------------------------------------- */

/*
 * Something has come on a connection whose request is with the program: its end, or bytes that
 * nobody has asked for. A client that merely shuts down its sending side still waits for the
 * answer; nothing tells of the end of such a one but looking again.
 */
static void look_after(struct aph_afdt_request *request)
{
	struct pollfd poller = { .fd = request->watch.fd };
	char byte;

	if (recv(poller.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
		(void)poll(&poller, 1, 0);
		if (!(poller.revents & (POLLHUP | POLLERR))) {
			(void)aph_afdt_watch_start(&request->watch, 0, aph_afdt_now() + LOOK_NS,
						   NULL);
			return;
		}
	}
	request->gone = true;
	if (request->server->gone)
		request->server->gone(request, request->server->data);
}

/* The request is whole. Afterwards it may be gone. */
static void hand_over(struct aph_afdt_request *request)
{
	bool freed = false;

	request->phase = APH_AFDT_WITH_PROGRAM;
	aph_afdt_link_remove(&request->reading_link);
	/* Taken back below. */
	/* cppcheck-suppress autoVariables */
	request->freed = &freed;
	request->server->request(request, request->server->data);
	if (freed)
		return;
	request->freed = NULL;
	/* The request is the program's. Should this fail, its end is noticed by whoever answers. */
	if (request->phase == APH_AFDT_WITH_PROGRAM)
		(void)aph_afdt_watch_start(&request->watch, APH_AFDT_READ, APH_FOREVER, NULL);
}

/* -- reading ----------------------------------------------------------------------------------- */

/* What became of a request that is not whole, by what the last attempt to read gave. */
static void broken_off(const struct aph_afdt_request *request, ssize_t n, struct afdt_error_t *err)
{
	if (n == -EAGAIN)
		(void)aph_afdt_fail(err, AFDT_TIMEOUT, 0, "the client has not sent its request");
	else if (n == 0 && request->in.n)
		(void)aph_afdt_fail(err, AFDT_FORMAT, 0, "the client has gone within its request");
	else if (n == 0)
		(void)aph_afdt_fail(err, AFDT_RECVMSG, 0, "the client has gone without a request");
	else
		(void)aph_afdt_fail(err, AFDT_RECVMSG, (int)-n, "cannot receive a request");
}

/* Reads what there is. Afterwards the request may be gone. */
static void read_on(struct aph_afdt_request *request, bool late)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	enum aph_afdt_intake_state state;
	ssize_t n = 1;

	while ((state = aph_afdt_intake_state(&request->in, &err)) == APH_AFDT_PART &&
	       (n > 0 || n == -EINTR))
		n = aph_afdt_intake_read(&request->in, request->watch.fd, AFDT_FULL_MSGLEN);
	if (state != APH_AFDT_WRONG && request->in.n_fds && request->server->old_request) {
		state = APH_AFDT_WRONG;
		(void)aph_afdt_fail(&err, AFDT_FORMAT, 0, "a descriptor came with the request");
	}
	if (state == APH_AFDT_WHOLE) {
		hand_over(request);
		return;
	}
	if (state == APH_AFDT_PART && n == -EAGAIN && !late) {
		if (aph_afdt_link_alone(&request->reading_link))
			aph_afdt_link_append(&request->server->reading, &request->reading_link);
		(void)await(request, APH_AFDT_READ, request->deadline_ns, AFDT_ACCEPT_CLIENT);
		return;
	}
	if (state == APH_AFDT_PART)
		broken_off(request, n, &err);
	aph_afdt_request_fail(request, AFDT_HANDLE_REQUEST, &err);
}

/* The one that has been reading for the longest, or of those that hold descriptors; NULL: none. */
static struct aph_afdt_request *oldest(struct aph_afdt_server *server, bool with_fds)
{
	for (struct aph_afdt_link *link = server->reading.next; link != &server->reading;
	     link = link->next) {
		struct aph_afdt_request *request =
			APH_AFDT_CONTAINER(link, struct aph_afdt_request, reading_link);

		if (!with_fds || request->in.n_fds)
			return request;
	}
	return NULL;
}

bool aph_afdt_request_evict(struct aph_afdt_server *server, bool with_fds)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct aph_afdt_request *request = oldest(server, with_fds);

	if (!request)
		return false;
	(void)aph_afdt_fail(&err, AFDT_TIMEOUT, EBUSY,
			    "a client that has not sent its request makes room for others");
	aph_afdt_request_fail(request, AFDT_HANDLE_REQUEST, &err);
	return true;
}

/* -- sending ----------------------------------------------------------------------------------- */

/* The message is copied, and so are its descriptors, as their owner may close them. */
static int keep(struct aph_afdt_request *request)
{
	struct aph_afdt_outgo *out = &request->out;
	unsigned i = 0;
	int r;

	if (out->len && out->body != request->answer)
		memcpy(request->answer, out->body, out->len);
	out->body = request->answer;
	/*
	 * With a part of the message the descriptors have gone; the historical handler keeps its
	 * own.
	 */
	if (out->sent || !out->n_fds || request->server->old_request)
		return 0;
	request->kept = malloc(out->n_fds * sizeof(int));
	if (!request->kept)
		return -ENOMEM;
	for (; i < out->n_fds; i++) {
		request->kept[i] = fcntl(out->fds[i], F_DUPFD_CLOEXEC, 0);
		if (request->kept[i] < 0)
			break;
	}
	if (i == out->n_fds) {
		out->fds = request->kept;
		return 0;
	}
	r = -errno;
	while (i--)
		aph_afdt_close(request->kept[i]);
	free(request->kept);
	request->kept = NULL;
	return r;
}

static void finish(struct aph_afdt_request *request)
{
	if (request->server->sent)
		request->server->sent(request);
	end(request);
}

/* Goes on sending. Afterwards the request may be gone. */
static void send_on(struct aph_afdt_request *request, bool late)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	int r;

	do {
		r = aph_afdt_outgo_write(&request->out, request->watch.fd, 0);
	} while (r == 0 || r == -EINTR);
	if (r == 1) {
		finish(request);
		return;
	}
	if (r == -EAGAIN && !late) {
		(void)await(request, APH_AFDT_WRITE, request->deadline_ns, AFDT_HANDLE_REQUEST);
		return;
	}
	if (r == -EAGAIN)
		(void)aph_afdt_fail(&err, AFDT_TIMEOUT, 0, "the client has not taken its answer");
	else
		(void)aph_afdt_fail(&err, AFDT_SENDMSG, -r, "cannot send the answer");
	aph_afdt_request_fail(request, AFDT_HANDLE_REQUEST, &err);
}

int aph_afdt_request_send(struct aph_afdt_request *request)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	int r;

	do {
		r = aph_afdt_outgo_write(&request->out, request->watch.fd, 0);
	} while (r == 0 || r == -EINTR);
	if (r == 1) {
		finish(request);
		return 0;
	}
	if (r != -EAGAIN)
		return r;
	r = keep(request);
	if (r < 0)
		return r;
	request->phase = APH_AFDT_SENDING;
	request->deadline_ns = aph_afdt_now() + request->server->request_ns;
	r = aph_afdt_watch_start(&request->watch, APH_AFDT_WRITE, request->deadline_ns, &err);
	if (r < 0)
		aph_afdt_request_fail(request, AFDT_HANDLE_REQUEST, &err);
	return 0;
}

/* -- the connection ---------------------------------------------------------------------------- */

/* A client sends its request right after it has connected, which may have been this very moment. */
static void await_first(struct aph_afdt_request *request)
{
	struct aph_afdt_spin *spin = &request->server->first_spin;
	uint64_t until = 0;
	ssize_t n;

	do {
		n = aph_afdt_intake_read(&request->in, request->watch.fd, AFDT_FULL_MSGLEN);
		if (n != -EAGAIN)
			break;
		if (!until && !(until = aph_afdt_spin_begin(spin, APH_AFDT_SPIN_SERVER_NS)))
			return;
	} while (aph_afdt_now() < until);
	if (until)
		aph_afdt_spin_finish(spin, n > 0);
}

static void connection_ready(struct aph_afdt_watch *watch, unsigned what)
{
	struct aph_afdt_request *request =
		APH_AFDT_CONTAINER(watch, struct aph_afdt_request, watch);
	bool late = what == APH_AFDT_TIMEOUT;

	switch (request->phase) {
	case APH_AFDT_READING:
		read_on(request, late);
		return;
	case APH_AFDT_WITH_PROGRAM:
		look_after(request);
		return;
	case APH_AFDT_SENDING:
		send_on(request, late);
		return;
	}
}

void aph_afdt_request_begin(struct aph_afdt_server *server, int sock)
{
	struct aph_afdt_request *request = get_spare(server);
	struct afdt_error_t err = AFDT_ERROR_T_INIT;

	if (!request ||
	    aph_afdt_watch_init(&request->watch, server->ep, sock, connection_ready) < 0) {
		free(request);
		aph_afdt_close(sock);
		(void)aph_afdt_fail(&err, AFDT_MALLOC, ENOMEM, "no memory for a client");
		aph_afdt_server_error(server, AFDT_ACCEPT_CLIENT, &err);
		return;
	}
	request->server = server;
	aph_afdt_link_append(&server->ep->requests, &request->link);
	aph_afdt_link_init(&request->reading_link);
	request->phase = APH_AFDT_READING;
	request->gone = false;
	request->freed = NULL;
	request->data = NULL;
	request->deadline_ns = aph_afdt_now() + server->request_ns;
	request->kept = NULL;
	request->has_credentials = false;
	request->groups = NULL;
	request->label = NULL;
	aph_afdt_intake_init(&request->in);
	server->refs++;
	server->n_requests++;
	await_first(request);
	read_on(request, false);
}

/* -- for programs ------------------------------------------------------------------------------ */

APH_API const void *aph_afdt_request_body(const struct aph_afdt_request *request, size_t *len)
{
	*len = request->in.len;
	return aph_afdt_intake_body(&request->in);
}

APH_API size_t aph_afdt_request_take_fds(struct aph_afdt_request *request, int *fds, size_t max)
{
	struct aph_afdt_intake *in = &request->in;
	unsigned n = max < in->n_fds ? (unsigned)max : in->n_fds;

	if (n) {
		memcpy(fds, in->fds, n * sizeof(int));
		memmove(in->fds, in->fds + n, (in->n_fds - n) * sizeof(int));
		in->n_fds -= n;
	}
	return n;
}

APH_API size_t aph_afdt_request_fds_max(const struct aph_afdt_request *request)
{
	return request->in.extended ? APH_AFDT_FDS_MAX : 1;
}

APH_API void *aph_afdt_request_data(const struct aph_afdt_request *request)
{
	return request->data;
}

APH_API void aph_afdt_request_set_data(struct aph_afdt_request *request, void *data)
{
	request->data = data;
}

APH_API int aph_afdt_request_reply(struct aph_afdt_request *request,
				   const struct aph_afdt_message *answer)
{
	static const struct aph_afdt_message nothing;
	int r;

	if (request->phase != APH_AFDT_WITH_PROGRAM || request->gone)
		return -ECANCELED;
	if (!answer)
		answer = &nothing;
	if (answer->n_fds > aph_afdt_request_fds_max(request))
		return -EOPNOTSUPP;
	r = aph_afdt_outgo_init(&request->out, answer, request->in.extended, NULL);
	if (r == 0)
		r = aph_afdt_request_send(request);
	return r == -EPIPE || r == -ECONNRESET ? -ECANCELED : r;
}

APH_API struct aph_afdt_request *aph_afdt_request_free(struct aph_afdt_request *request)
{
	if (request)
		end(request);
	return NULL;
}
