/* SPDX-License-Identifier: MIT */
/*
 * sd-bus, once from peer to peer over a unix socket and once through a private dbus-broker. Small
 * values travel as "u", bodies as "ay", descriptors as "ah".
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "harness.h"
#include "sdbus_broker.h"

#define NAME	  "org.antiphon.Bench"
#define OBJECT	  "/b"
#define INTERFACE "org.antiphon.Bench"
#define N_REPLIES 64

struct client {
	sd_bus *bus;
	const char *destination;
	uint64_t replies[N_REPLIES];
	unsigned head, tail;
};

static const sd_id128_t server_id = { .bytes = "antiphon-bench0" };
static bool through_broker;

static int append(sd_bus_message *m, const void *data, size_t len)
{
	uint32_t value;

	if (len > sizeof value)
		return sd_bus_message_append_array(m, 'y', data, len);
	memcpy(&value, data, sizeof value);
	return sd_bus_message_append_basic(m, 'u', &value);
}

/* The sum of a message's content; of descriptors, how many there were. */
static int sum_of(sd_bus_message *m, uint64_t *sum)
{
	const void *data;
	uint32_t value;
	size_t len;
	int r, fd;

	if (sd_bus_message_has_signature(m, "u")) {
		r = sd_bus_message_read_basic(m, 'u', &value);
		*sum = value;
		return r;
	}
	if (sd_bus_message_has_signature(m, "ay")) {
		r = sd_bus_message_read_array(m, 'y', &data, &len);
		if (r >= 0)
			*sum = bench_sum(data, len);
		return r;
	}
	*sum = 0;
	r = sd_bus_message_enter_container(m, 'a', "h");
	while (r > 0) {
		r = sd_bus_message_read_basic(m, 'h', &fd);
		*sum += r > 0;
	}
	return r;
}

static int on_request(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bench_job *job = userdata;
	sd_bus_message *reply = NULL;
	uint64_t sum = 0;
	uint32_t small;
	size_t len;
	const void *data;
	int r = sum_of(m, &sum);

	(void)error;
	if (r < 0)
		return r;
	data = bench_answer(job, sum, &small, &len);
	r = sd_bus_message_new_method_return(m, &reply);
	if (r >= 0)
		r = append(reply, data, len);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	sd_bus_message_unref(reply);
	return r < 0 ? r : 1;
}

static int loop(sd_bus *bus)
{
	for (;;) {
		int r = sd_bus_process(bus, NULL);

		if (r == 0)
			r = sd_bus_wait(bus, UINT64_MAX);
		if (r < 0 && r != -EINTR)
			return r;
	}
}

/* Makes the service's end of a connection out of an accepted socket. */
static int new_server(struct bench_job *job, int fd, sd_bus **out)
{
	sd_bus *bus;
	int r = sd_bus_new(&bus);

	if (r < 0)
		return r;
	*out = bus;
	if ((r = sd_bus_set_fd(bus, fd, fd)) < 0 ||
	    (r = sd_bus_set_server(bus, 1, server_id)) < 0 ||
	    (r = sd_bus_negotiate_fds(bus, 1)) < 0 || (r = sd_bus_set_anonymous(bus, 1)) < 0 ||
	    (r = sd_bus_start(bus)) < 0)
		return r;
	return sd_bus_add_object(bus, NULL, OBJECT, on_request, job);
}

static int on_connect(sd_event_source *source, int listener, uint32_t events, void *userdata)
{
	sd_bus *bus;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r = fd < 0 ? -errno : new_server(userdata, fd, &bus);

	(void)events;
	if (r < 0)
		return r;
	return sd_bus_attach_event(bus, sd_event_source_get_event(source), 0);
}

static int serve_peer(struct bench_job *job)
{
	int listener = bench_listen(job->address, SOCK_STREAM), fd;
	sd_event *event;
	sd_bus *bus;
	int r;

	if (listener < 0)
		return listener;
	if (job->c.n_clients > 1) {
		r = sd_event_new(&event);
		if (r >= 0)
			r = sd_event_add_io(event, NULL, listener, 1, on_connect, job);
		bench_ready(job);
		return r < 0 ? r : sd_event_loop(event);
	}
	/* A single client is served without an event loop, which is faster. */
	bench_ready(job);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	r = fd < 0 ? -errno : new_server(job, fd, &bus);
	return r < 0 ? r : loop(bus);
}

static int open_bus(struct bench_job *job, sd_bus **out)
{
	char address[128];
	sd_bus *bus;
	int r = sd_bus_new(&bus);

	if (r < 0)
		return r;
	*out = bus;
	snprintf(address, sizeof address, "unix:path=%s%s", job->address,
		 through_broker ? SDBUS_BROKER_SUFFIX : "");
	if ((r = sd_bus_set_address(bus, address)) < 0 || (r = sd_bus_negotiate_fds(bus, 1)) < 0 ||
	    (r = sd_bus_set_bus_client(bus, through_broker)) < 0)
		return r;
	return sd_bus_start(bus);
}

static int serve_broker(struct bench_job *job)
{
	sd_bus *bus;
	int r = open_bus(job, &bus);

	if (r < 0 || (r = sd_bus_add_object(bus, NULL, OBJECT, on_request, job)) < 0 ||
	    (r = sd_bus_request_name(bus, NAME, 0)) < 0)
		return r;
	bench_ready(job);
	return loop(bus);
}

static int open_client(struct bench_job *job, void **self)
{
	struct client *client = calloc(1, sizeof *client);

	*self = client;
	client->destination = through_broker ? NAME : NULL;
	return open_bus(job, &client->bus);
}

static int new_call(struct client *client, sd_bus_message **m)
{
	return sd_bus_message_new_method_call(client->bus, m, client->destination, OBJECT,
					      INTERFACE, "Call");
}

static int call_message(struct client *client, sd_bus_message *m, uint64_t *sum)
{
	sd_bus_message *reply = NULL;
	int r = sd_bus_call(client->bus, m, UINT64_MAX, NULL, &reply);

	if (r >= 0)
		r = sum_of(reply, sum);
	sd_bus_message_unref(m);
	sd_bus_message_unref(reply);
	return r;
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	sd_bus_message *m = NULL;
	int r = new_call(self, &m);

	if (r >= 0)
		r = append(m, req, len);
	return r < 0 ? r : call_message(self, m, sum);
}

static int call_fds(void *self, const int *fds, unsigned n_fds, uint64_t *sum)
{
	sd_bus_message *m = NULL;
	int r = new_call(self, &m);

	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "h");
	for (unsigned i = 0; i < n_fds && r >= 0; i++)
		r = sd_bus_message_append_basic(m, 'h', &fds[i]);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	return r < 0 ? r : call_message(self, m, sum);
}

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct client *client = userdata;

	(void)error;
	return sum_of(m, &client->replies[client->head++ % N_REPLIES]);
}

static int submit(void *self, uint32_t value)
{
	struct client *client = self;
	sd_bus_message *m = NULL;
	int r = new_call(client, &m);

	if (r >= 0)
		r = append(m, &value, sizeof value);
	if (r >= 0)
		r = sd_bus_call_async(client->bus, NULL, m, on_reply, client, UINT64_MAX);
	sd_bus_message_unref(m);
	return r;
}

static int collect(void *self, uint64_t *sum)
{
	struct client *client = self;

	while (client->tail == client->head) {
		int r = sd_bus_process(client->bus, NULL);

		if (r == 0)
			r = sd_bus_wait(client->bus, UINT64_MAX);
		if (r < 0 && r != -EINTR)
			return r;
	}
	*sum = client->replies[client->tail++ % N_REPLIES];
	return 0;
}

static int prepare_broker(struct bench_job *job)
{
	through_broker = true;
	return sdbus_start_broker(job);
}

int main(int argc, char **argv)
{
	static const struct bench_who whos[] = {
		{ .name = "sd-bus",
		  .death = true,
		  .serve = serve_peer,
		  .open = open_client,
		  .call = call,
		  .call_fds = call_fds,
		  .submit = submit,
		  .collect = collect },
		{ .name = "dbus-broker",
		  .death = true,
		  .prepare = prepare_broker,
		  .serve = serve_broker,
		  .open = open_client,
		  .call = call,
		  .call_fds = call_fds,
		  .submit = submit,
		  .collect = collect },
	};

	return bench_main(whos, sdbus_have_broker() ? 2 : 1, argc, argv);
}
