/* SPDX-License-Identifier: MIT */
/*
 * Asynchronous clients: connect, send, receive, without ever waiting. A client ends once, in
 * finish() or fail(), which free it before its handler runs.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * A full backlog cannot be waited for; it is tried again after so long, and twice as long each
 * time.
 */
#define RETRY_MIN_NS UINT64_C(1000000)
#define RETRY_MAX_NS UINT64_C(64000000)

#define OPTIONS_SIZE_LEAST sizeof(struct aph_afdt_client_options)

struct aph_afdt_client {
	struct aph_afdt_endpoint *ep;
	struct aph_afdt_endpoint own; /* what ep points to with the historical interface */
	struct aph_afdt_link link;    /* in the endpoint's */
	struct aph_afdt_watch watch;
	enum {
		CONNECTING,
		SENDING,
		RECEIVING,
	} state;
	bool old;      /* made by the historical interface */
	bool extended; /* the server understands our headers */
	int sock;
	uint64_t deadline_ns, retry_ns;
	struct aph_afdt_address address;
	struct aph_afdt_message request;
	struct aph_afdt_outgo out;
	int *kept; /* copies of the request's descriptors */
	aph_afdt_response_handler response;
	aph_afdt_error_handler error; /* of either interface: they are the same */
	afdt_response_handler_t old_response;
	void *data;
	struct aph_afdt_intake in;
	uint8_t body[AFDT_MSGLEN];
};

struct aph_afdt_client *aph_afdt_client_of(struct aph_afdt_link *link)
{
	return APH_AFDT_CONTAINER(link, struct aph_afdt_client, link);
}

/* Frees all that the client has. Keeps errno. */
static void end(struct aph_afdt_client *client)
{
	int saved = errno;

	aph_afdt_watch_deinit(&client->watch);
	aph_afdt_link_remove(&client->link);
	aph_afdt_close(client->sock);
	aph_afdt_intake_deinit(&client->in);
	for (size_t i = 0; client->kept && i < client->request.n_fds; i++)
		aph_afdt_close(client->kept[i]);
	free(client->kept);
	free(client);
	errno = saved;
}

static void fail(struct aph_afdt_client *client, struct afdt_error_t *err)
{
	aph_afdt_error_handler error = client->error;
	void *data = client->data;

	err->phase = client->state == RECEIVING ? AFDT_HANDLE_RESPONSE : AFDT_CREATE_CLIENT;
	end(client);
	if (error)
		error(err, data);
}

static void finish(struct aph_afdt_client *client)
{
	struct aph_afdt_intake in = client->in;
	const struct aph_afdt_message message = {
		.body = aph_afdt_intake_body(&in),
		.len = in.len,
		.fds = in.fds,
		.n_fds = in.n_fds,
	};
	aph_afdt_response_handler response = client->response;
	afdt_response_handler_t old_response = client->old_response;
	void *data = client->data;

	client->in.n_fds = 0;
	end(client);
	errno = 0;
	if (old_response)
		old_response(message.body, in.len, in.n_fds ? in.fds[0] : -1, data);
	else
		response(&message, data);
}

/* -- connecting -------------------------------------------------------------------------------- */

/* 1 when it is connected, 0 when not yet, or an error. */
static int try_connect(struct aph_afdt_client *client, struct afdt_error_t *err)
{
	const struct aph_afdt_address *address = &client->address;

	if (connect(client->sock, (const struct sockaddr *)&address->un, address->len) < 0)
		return errno == EAGAIN || errno == EINTR
			       ? 0
			       : aph_afdt_fail(err, AFDT_CONNECT, errno,
					       "cannot connect to the path");
	if (client->old)
		return 1;
	client->extended = aph_afdt_fds_max(client->sock) > 0;
	if (client->request.n_fds && !client->extended)
		return aph_afdt_fail(err, AFDT_CONNECT, EOPNOTSUPP,
				     "the server takes no descriptors");
	return 1;
}

/* 1 when the request is sent, 0 when not all of it, or an error. */
static int try_send(struct aph_afdt_client *client, struct afdt_error_t *err)
{
	int r;

	do {
		r = aph_afdt_outgo_write(&client->out, client->sock, 0);
	} while (r == 0 || r == -EINTR);
	if (r == 1)
		return 1;
	return r == -EAGAIN ? 0 : aph_afdt_fail(err, AFDT_SENDMSG, -r, "cannot send the request");
}

static int retry_later(struct aph_afdt_client *client, struct afdt_error_t *err)
{
	uint64_t next = aph_afdt_now() + client->retry_ns;

	if (client->retry_ns < RETRY_MAX_NS)
		client->retry_ns *= 2;
	if (next > client->deadline_ns)
		next = client->deadline_ns;
	return aph_afdt_watch_start(&client->watch, 0, next, err);
}

/* As far as it goes at once. 0: it waits for something, or an error. */
static int push(struct aph_afdt_client *client, struct afdt_error_t *err)
{
	int r = 1;

	if (client->state == CONNECTING) {
		r = try_connect(client, err);
		if (r <= 0)
			return r < 0 ? r : retry_later(client, err);
		client->state = SENDING;
		r = aph_afdt_outgo_init(&client->out, &client->request, client->extended, err);
		if (r < 0)
			return r;
	}
	r = try_send(client, err);
	if (r < 0)
		return r;
	if (r == 0)
		return aph_afdt_watch_start(&client->watch, APH_AFDT_WRITE, client->deadline_ns,
					    err);
	r = aph_afdt_watch_start(&client->watch, APH_AFDT_READ, client->deadline_ns, err);
	if (r == 0)
		client->state = RECEIVING;
	return r;
}

/* -- receiving --------------------------------------------------------------------------------- */

static void receive(struct aph_afdt_client *client, bool late)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	enum aph_afdt_intake_state state;
	ssize_t n;

	do {
		n = aph_afdt_intake_read(&client->in, client->sock, AFDT_FULL_MSGLEN);
		state = n > 0 ? aph_afdt_intake_state(&client->in, &err) : APH_AFDT_PART;
	} while (state == APH_AFDT_PART && (n > 0 || n == -EINTR));
	if (state == APH_AFDT_WHOLE && client->old && client->in.n_fds > 1) {
		state = APH_AFDT_WRONG;
		(void)aph_afdt_fail(&err, AFDT_FORMAT, 0, "more than one descriptor came");
	}
	if (state == APH_AFDT_WHOLE) {
		finish(client);
		return;
	}
	if (state == APH_AFDT_PART && n == -EAGAIN && !late) {
		if (aph_afdt_watch_start(&client->watch, APH_AFDT_READ, client->deadline_ns,
					 &err) == 0)
			return;
	} else if (state == APH_AFDT_PART && n == -EAGAIN) {
		(void)aph_afdt_fail(&err, AFDT_TIMEOUT, 0, "the server has not answered in time");
	} else if (n == 0 && client->in.n) {
		(void)aph_afdt_fail(&err, AFDT_FORMAT, 0, "the server has gone within its answer");
	} else if (n == 0) {
		(void)aph_afdt_fail(&err, AFDT_RECVMSG, 0, "the server has gone without an answer");
	} else if (n < 0) {
		(void)aph_afdt_fail(&err, AFDT_RECVMSG, (int)-n, "cannot receive the answer");
	}
	fail(client, &err);
}

static void client_ready(struct aph_afdt_watch *watch, unsigned what)
{
	struct aph_afdt_client *client = APH_AFDT_CONTAINER(watch, struct aph_afdt_client, watch);
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	bool late = what == APH_AFDT_TIMEOUT;

	if (client->state == RECEIVING) {
		/* An answer that is here is not too late. */
		receive(client, late);
		return;
	}
	/* In CONNECTING the timer also says that it is time to try again. */
	if (late && client->deadline_ns != APH_FOREVER && aph_afdt_now() >= client->deadline_ns) {
		(void)aph_afdt_fail(&err, AFDT_TIMEOUT, 0,
				    client->state == CONNECTING ? "the server does not accept"
								: "the server does not read");
		fail(client, &err);
	} else if (push(client, &err) < 0) {
		fail(client, &err);
	}
}

/* -- making one -------------------------------------------------------------------------------- */

static int keep_request(struct aph_afdt_client *client, const struct aph_afdt_message *request)
{
	client->request = *request;
	client->request.body = client->body;
	client->request.fds = NULL;
	client->request.n_fds = 0;
	if (request->len)
		memcpy(client->body, request->body, request->len);
	if (!request->n_fds)
		return 0;
	client->kept = malloc(request->n_fds * sizeof(int));
	if (!client->kept)
		return -ENOMEM;
	client->request.fds = client->kept;
	for (size_t i = 0; i < request->n_fds; i++) {
		client->kept[i] = fcntl(request->fds[i], F_DUPFD_CLOEXEC, 0);
		if (client->kept[i] < 0)
			return -errno;
		client->request.n_fds++;
	}
	return 0;
}

/*
 * Connects, and sends if it can. The client is linked into its endpoint then; it is not after a
 * failure.
 */
static int start(struct aph_afdt_client *client, const char *path,
		 const struct aph_afdt_message *request, struct afdt_error_t *err)
{
	struct aph_afdt_outgo probe;
	int r;

	aph_afdt_link_init(&client->link);
	aph_afdt_intake_init(&client->in);
	client->state = CONNECTING;
	client->retry_ns = RETRY_MIN_NS;
	client->sock = -1;
	if (aph_afdt_watch_init(&client->watch, client->ep, -1, client_ready) < 0) {
		free(client);
		return aph_afdt_fail(err, AFDT_MALLOC, ENOMEM, "no memory for the client");
	}
	r = aph_afdt_outgo_init(&probe, request, false, err);
	if (r == 0)
		r = aph_afdt_address_set(&client->address, path, err);
	if (r == 0) {
		r = keep_request(client, request);
		if (r < 0)
			r = aph_afdt_fail(err, r == -ENOMEM ? AFDT_MALLOC : AFDT_SENDMSG, -r,
					  "cannot keep the request");
	}
	if (r == 0) {
		r = aph_afdt_socket(SOCK_NONBLOCK, err);
		client->sock = client->watch.fd = r;
	}
	if (r >= 0)
		r = push(client, err);
	if (r < 0) {
		end(client);
		return r;
	}
	aph_afdt_link_append(&client->ep->clients, &client->link);
	return 0;
}

APH_API int aph_afdt_client_open(struct aph_afdt_client **out, struct aph_afdt_endpoint *ep,
				 const char *path, const struct aph_afdt_message *request,
				 const struct aph_afdt_client_options *options,
				 struct afdt_error_t *err)
{
	static const struct aph_afdt_message nothing;
	struct aph_afdt_client *client;
	int r;

	if (err)
		err->phase = AFDT_CREATE_CLIENT;
	if (!options || options->size < OPTIONS_SIZE_LEAST || !options->response || !options->error)
		return aph_afdt_fail(err, AFDT_NO_OPERATION, EINVAL, "the options are not valid");
	client = calloc(1, sizeof(*client));
	if (!client)
		return aph_afdt_fail(err, AFDT_MALLOC, ENOMEM, "no memory for the client");
	client->ep = ep;
	client->response = options->response;
	client->error = options->error;
	client->data = options->data;
	client->deadline_ns = options->deadline_ns;
	r = start(client, path, request ? request : &nothing, err);
	if (r == 0 && out)
		*out = client;
	return r;
}

APH_API struct aph_afdt_client *aph_afdt_client_close(struct aph_afdt_client *client)
{
	if (client)
		end(client);
	return NULL;
}

APH_API int afdt_create_client(const char *fname, struct event_base *eb, const uint8_t *request,
			       uint32_t request_length, afdt_response_handler_t response_handler,
			       afdt_error_handler_t error_handler, const struct timeval *timeout,
			       void *userdata)
{
	const struct aph_afdt_message message = { .body = request, .len = request_length };
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct aph_afdt_client *client = calloc(1, sizeof(*client));

	err.phase = AFDT_CREATE_CLIENT;
	if (!client) {
		(void)aph_afdt_fail(&err, AFDT_MALLOC, ENOMEM, "no memory for the client");
		goto failed;
	}
	aph_afdt_endpoint_init_libevent(&client->own, eb);
	client->ep = &client->own;
	client->old = true;
	client->old_response = response_handler;
	client->error = error_handler;
	client->data = userdata;
	client->deadline_ns = aph_afdt_deadline(timeout);
	if (start(client, fname, &message, &err) == 0)
		return 0;
failed:
	if (error_handler)
		error_handler(&err, userdata);
	return -1;
}
