/* SPDX-License-Identifier: MIT */
/*
 * A hostile client of a libafdt server, and a hostile server of a libafdt client, in one loop: the
 * client is told exactly once, the server goes on serving, and nothing stays open.
 */
#include "check.h"
#include "dir.h"
#include "fuzz.h"

#include <afdt.h>
#include <antiphon/afdt.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct aph_afdt_endpoint *ep;
static struct aph_afdt_request *held;
static char path[2][128]; /* ours, the hostile one */
static int listener, n_told;
static int n_requests, n_seen; /* whole ones, connections that came to one or to an error */
static struct fds before;

static void on_request(struct aph_afdt_request *request, void *data)
{
	const int fds[] = { 2, 2, 2 };
	const struct aph_afdt_message answer = { "there", 5, fds,
						 aph_afdt_request_fds_max(request) > 1 ? 3 : 1 };
	size_t len;

	(void)data;
	n_requests++;
	n_seen++;
	CHECK(aph_afdt_request_body(request, &len) && len <= AFDT_MSGLEN);
	/* One waits while others come. */
	if (!held) {
		held = request;
		return;
	}
	if (aph_afdt_request_reply(request, &answer) < 0)
		aph_afdt_request_free(request);
}

static void on_gone(struct aph_afdt_request *request, void *data)
{
	(void)data;
	CHECK(request == held);
	held = aph_afdt_request_free(request);
}

static void on_server_error(const struct afdt_error_t *err, void *data)
{
	(void)data;
	n_seen++;
	CHECK(err->message[0] && err->phase == AFDT_HANDLE_REQUEST);
}

static void on_response(const struct aph_afdt_message *response, void *data)
{
	(void)data;
	n_told++;
	for (size_t i = 0; i < response->n_fds; i++)
		CHECK_OK(close(response->fds[i]));
}

static void on_client_error(const struct afdt_error_t *err, void *data)
{
	(void)data;
	n_told++;
	CHECK(err->message[0] && err->operation != AFDT_NO_OPERATION);
}

static void make(void)
{
	const struct aph_afdt_server_options options = {
		.size = sizeof(options),
		.request = on_request,
		.gone = on_gone,
		.error = on_server_error,
		.connections_max = 8,
	};
	struct aph_afdt_server *server;

	if (ep)
		return;
	fuzz_dir();
	for (int i = 0; i < 2; i++)
		snprintf(path[i], sizeof(path[i]), "%s/%d", dir_path(), i);
	CHECK_OK(aph_afdt_endpoint_new(&ep, NULL));
	CHECK_OK(aph_afdt_server_open(&server, ep, path[0], &options, NULL));
	listener = (int)CHECK_OK(afdt_listen(path[1], NULL));
	fds_take(&before);
}

static void turn(int n)
{
	while (n--)
		(void)aph_afdt_endpoint_serve(ep, APH_NOW);
}

/*
 * What a close() tells the other end is late where somebody else holds the descriptor, if only to
 * look at it.
 */
static void turn_until(const int *n)
{
	for (int i = 0; *n == 0 && i < 500; i++)
		(void)aph_afdt_endpoint_serve(ep, aph_deadline_ms(10));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct aph_afdt_client_options how = {
		.size = sizeof(how),
		.response = on_response,
		.error = on_client_error,
		.deadline_ns = APH_FOREVER,
	};
	struct feed feed = { data, size };
	int socks[2], fds[8] = { 2, 2, 2, 2, 2, 2, 2, 2 }, asked;

	make();
	n_told = n_seen = 0;
	CHECK_OK(aph_afdt_client_open(NULL, ep, path[1], NULL, &how, NULL));
	socks[0] = (int)CHECK_OK(afdt_connect(path[0], NULL));
	socks[1] = (int)CHECK_OK(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	while (feed.left > 0) {
		uint8_t shape = feed_u8(&feed);
		const uint8_t *bytes;
		size_t len;

		bytes = feed_bytes(&feed, shape & 32 ? feed_u8(&feed) : 5, &len);
		if (len)
			wire_send(socks[shape >> 7], bytes, len, fds, shape & 7);
		if (shape & 64)
			turn(1);
	}
	close(socks[0]);
	close(socks[1]);
	turn(4);
	turn_until(&n_told);
	turn_until(&n_seen);
	CHECK(n_told == 1 && n_seen == 1);
	if (held)
		held = aph_afdt_request_free(held);
	/* An honest client. */
	socks[0] = (int)CHECK_OK(afdt_connect(path[0], NULL));
	asked = n_requests;
	CHECK_OK(afdt_send_plain_msg(socks[0], data, size & 255 ? 1 : 0, NULL));
	n_seen = 0;
	turn_until(&n_seen);
	CHECK(n_seen == 1 && n_requests == asked + 1 && held);
	held = aph_afdt_request_free(held);
	close(socks[0]);
	CHECK(fds_differ_but_pipes(&before) == 0);
	return 0;
}
