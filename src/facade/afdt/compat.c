/* SPDX-License-Identifier: MIT */
/* The historical server: one descriptor, answers at once, a post handler. */
#include "server.h"

#include <errno.h>
#include <stdlib.h>

APH_API void afdt_no_post(const uint8_t *request, uint32_t request_length, const uint8_t *response,
			  uint32_t response_length, int sent_fd, void *userdata)
{
	(void)request;
	(void)request_length;
	(void)response;
	(void)response_length;
	(void)sent_fd;
	(void)userdata;
}

static void answer(struct aph_afdt_request *request, void *data)
{
	const struct aph_afdt_intake *in = &request->in;
	struct aph_afdt_message message = { .body = request->answer, .fds = &request->old_fd };
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	uint32_t len = AFDT_MSGLEN;
	int r;

	request->old_fd = request->server->old_request(aph_afdt_intake_body(in), in->len,
						       request->answer, &len, data);
	message.len = len;
	message.n_fds = request->old_fd >= 0;
	r = aph_afdt_outgo_init(&request->out, &message, false, &err);
	if (r == 0) {
		r = aph_afdt_request_send(request);
		if (r < 0)
			(void)aph_afdt_fail(&err, AFDT_SENDMSG, -r, "cannot send the answer");
	}
	if (r < 0)
		aph_afdt_request_fail(request, AFDT_HANDLE_REQUEST, &err);
}

static void sent(struct aph_afdt_request *request)
{
	const struct aph_afdt_server *server = request->server;

	if (server->old_post)
		server->old_post(aph_afdt_intake_body(&request->in), request->in.len,
				 request->answer, request->out.len, request->old_fd, server->data);
}

APH_API int afdt_create_server(const char *fname, struct event_base *eb,
			       afdt_request_handler_t request_handler,
			       afdt_post_handler_t post_handler, afdt_error_handler_t error_handler,
			       void **out_close_handle, void *userdata)
{
	struct aph_afdt_server *server = calloc(1, sizeof(*server));
	struct afdt_error_t err = AFDT_ERROR_T_INIT;

	err.phase = AFDT_CREATE_SERVER;
	if (!server) {
		(void)aph_afdt_fail(&err, AFDT_MALLOC, ENOMEM, "no memory for the server");
		goto failed;
	}
	aph_afdt_endpoint_init_libevent(&server->own, eb);
	server->ep = &server->own;
	server->connections_max = APH_AFDT_CONNECTIONS_MAX;
	server->request_ns = APH_AFDT_REQUEST_MS * UINT64_C(1000000);
	server->request = answer;
	server->sent = sent;
	server->error = error_handler;
	server->data = userdata;
	server->old_request = request_handler;
	server->old_post = post_handler;
	if (aph_afdt_server_start(server, fname, 0, 0, &err) < 0) {
		free(server);
		goto failed;
	}
	if (out_close_handle)
		*out_close_handle = server;
	return 0;
failed:
	if (error_handler)
		error_handler(&err, userdata);
	return -1;
}

APH_API int afdt_close_server(void *close_handle)
{
	errno = close_handle ? 0 : EINVAL;
	if (!close_handle)
		return -1;
	aph_afdt_server_stop(close_handle);
	return 0;
}
