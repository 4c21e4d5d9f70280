/* SPDX-License-Identifier: MIT */
#include "rig.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/time.h>

bool on_libevent;
static struct event_base *base;
struct aph_afdt_endpoint *ep;
struct aph_afdt_server *server;
struct told server_told, client_told;
struct aph_afdt_request *held;
int n_gone;
int got_fds[APH_AFDT_FDS_MAX];
size_t n_got_fds;

void hold(struct aph_afdt_request *request, void *data)
{
	const void *body;
	size_t len;

	assert_ptr_equal(data, &server_told);
	server_told.requests++;
	body = aph_afdt_request_body(request, &len);
	memcpy(server_told.body, body, len);
	server_told.len = (uint32_t)len;
	held = request;
}

static void gone(struct aph_afdt_request *request, void *data)
{
	(void)data;
	assert_ptr_equal(request, held);
	n_gone++;
}

void on_message(const struct aph_afdt_message *response, void *data)
{
	struct told *told = data;

	told->responses++;
	memcpy(told->body, response->body, response->len);
	told->len = (uint32_t)response->len;
	n_got_fds = response->n_fds;
	if (response->n_fds)
		memcpy(got_fds, response->fds, response->n_fds * sizeof(int));
}

struct aph_afdt_server_options options;

void open_endpoint(void)
{
	base = on_libevent ? event_base_new() : NULL;
	assert_int_equal(aph_afdt_endpoint_new(&ep, base), 0);
	told_init(&server_told);
	told_init(&client_told);
	held = NULL;
	n_gone = 0;
	n_got_fds = 0;
	options = (struct aph_afdt_server_options){
		.size = sizeof(options),
		.request = hold,
		.gone = gone,
		.error = on_error,
		.data = &server_told,
	};
}

void open_server(void)
{
	struct afdt_error_t err;

	assert_int_equal(aph_afdt_server_open(&server, ep, path_of("s"), &options, &err), 0);
}

void close_all(void)
{
	aph_afdt_server_close(server);
	server = NULL;
	(void)unlink(path_of("s"));
	ep = aph_afdt_endpoint_free(ep);
	if (base)
		event_base_free(base);
}

/* One look at the loop, for up to some milliseconds. */
void turn(int ms)
{
	const struct timeval slice = { .tv_usec = ms * 1000 };
	struct pollfd poller = { .events = POLLIN };

	if (on_libevent) {
		if (ms)
			event_base_loopexit(base, &slice);
		CHECK(event_base_loop(base, ms ? EVLOOP_ONCE : EVLOOP_NONBLOCK) >= 0);
		return;
	}
	poller.fd = aph_afdt_endpoint_fd(ep);
	if (poll(&poller, 1, ms) == 1)
		(void)aph_afdt_endpoint_serve(ep, APH_NOW);
}

void turn_until(const int *count, int wanted)
{
	uint64_t end = aph_deadline_ms((uint64_t)check_ms(5000));

	while (*count < wanted) {
		CHECK(aph_time_ns() < end);
		turn(20);
	}
	assert_int_equal(*count, wanted);
}

struct aph_afdt_client *ask(const char *request, const int *fds, size_t n_fds, int ms)
{
	const struct aph_afdt_message message = { request, strlen(request), fds, n_fds };
	const struct aph_afdt_client_options how = {
		.size = sizeof(how),
		.response = on_message,
		.error = on_error,
		.data = &client_told,
		.deadline_ns = ms < 0 ? APH_FOREVER : aph_deadline_ms((uint64_t)ms),
	};
	struct aph_afdt_client *client;
	struct afdt_error_t err;

	assert_int_equal(aph_afdt_client_open(&client, ep, path_of("s"), &message, &how, &err), 0);
	return client;
}

const struct aph_afdt_message yes = { "yes", 3, NULL, 0 };

int rig_run(const char *name, const struct CMUnitTest *tests, size_t n)
{
	char title[64];
	int failed = 0;

	for (int loop = 0; loop < 2; loop++) {
		on_libevent = loop == 0;
		(void)snprintf(title, sizeof(title), "%s, on %s", name,
			       on_libevent ? "libevent" : "an endpoint");
		failed += suite_run(title, tests, n, 60);
	}
	return failed;
}
