/* SPDX-License-Identifier: MIT */
/*
 * The calls that `antiphon bench` measures, and the service that answers them.
 */
#include "bench.h"

#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS_MAX	64
#define STREAM_LEN	(UINT64_C(64) << 20)
#define CALL_TIMEOUT_MS 10000

/* -- the service ------------------------------------------------------------------------------- */

/* Reads what is there of a request and answers it once it was read to its end. */
static void serve_call(struct aph_call *call)
{
	static char buf[BENCH_PIECE_LEN];
	ssize_t n;

	do {
		n = aph_call_read(call, buf, sizeof(buf));
	} while (n > 0);
	if (n == 0)
		aph_call_reply(call, buf, 4);
}

struct server {
	const struct bench *bench;
	int ready; /* written to when the name is there */
};

static void serve(void *data)
{
	const struct server *server = data;
	struct aph_endpoint *ep;
	struct aph_event event;

	bench_place(server->bench, BENCH_SERVICE);
	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, BENCH_NAME, NULL) < 0) {
		fprintf(stderr, "antiphon bench: %s\n", aph_error());
		_exit(1);
	}
	if (write(server->ready, "", 1) != 1)
		_exit(1);
	close(server->ready);
	while (aph_endpoint_next(ep, &event, APH_FOREVER) == 0) {
		if (event.type == APH_EVENT_REQUEST || event.type == APH_EVENT_READABLE)
			serve_call(event.call);
		else if (event.type == APH_EVENT_END)
			aph_call_free(event.call);
	}
	_exit(1);
}

int bench_service_begin(struct bench *bench)
{
	struct server server = { .bench = bench };
	int ready[2];
	char byte;
	int r;

	if (pipe(ready) < 0)
		return -errno;
	server.ready = ready[1];
	r = bench_fork(&bench->service_pid, serve, &server);
	close(ready[1]);
	if (r == 0 && read(ready[0], &byte, 1) != 1)
		r = -ECONNREFUSED;
	close(ready[0]);
	return r;
}

void bench_service_end(struct bench *bench)
{
	bench_end_child(&bench->service_pid);
}

/* -- one client -------------------------------------------------------------------------------- */

struct client {
	struct aph_endpoint *ep;
	struct aph_channel *channel;
};

/* `n_records` that may be under way each way; 0 is the library's default. */
static int client_open(struct client *client, uint32_t n_records)
{
	struct aph_channel_options options = { .size = sizeof(options), .depth = n_records };
	int r;

	memset(client, 0, sizeof(*client));
	r = aph_endpoint_new(&client->ep, NULL);
	if (r == 0)
		r = aph_channel_open(&client->channel, client->ep, BENCH_NAME, &options);
	if (r < 0) {
		cli_error("%s", aph_error());
		aph_endpoint_free(client->ep);
	}
	return r;
}

static void client_close(struct client *client)
{
	aph_channel_close(client->channel);
	aph_endpoint_free(client->ep);
}

static int call_once(const struct client *client)
{
	char reply[4];
	size_t len = sizeof(reply);
	int r = aph_call(client->channel, "ping", 4, reply, &len, aph_deadline_ms(CALL_TIMEOUT_MS));

	return r > 0 ? -EIO : r;
}

int bench_call_latency(struct bench *bench, double *p50_ns, double *p99_ns)
{
	struct client client;
	uint64_t before_ns, end_ns;
	int r;

	r = client_open(&client, 0);
	if (r < 0)
		return r;
	histogram_init(&bench->histogram);
	before_ns = aph_time_ns();
	end_ns = before_ns + bench->case_ns;
	while (r == 0 && before_ns < end_ns) {
		uint64_t now_ns;

		r = call_once(&client);
		now_ns = aph_time_ns();
		histogram_add(&bench->histogram, now_ns - before_ns);
		before_ns = now_ns;
		if (bench_interrupted)
			r = -EINTR;
	}
	client_close(&client);
	*p50_ns = (double)histogram_quantile(&bench->histogram, 0.5);
	*p99_ns = (double)histogram_quantile(&bench->histogram, 0.99);
	return r;
}

static int begin_call(const struct client *client)
{
	struct aph_call *call;
	ssize_t n;
	int r;

	r = aph_call_new(&call, client->channel, APH_FOREVER, NULL);
	if (r < 0)
		return r;
	n = aph_call_send(call, "ping", 4, 0);
	if (n == 4)
		return 0;
	aph_call_free(call);
	return n < 0 && n != -EAGAIN ? (int)n : -EAGAIN;
}

int bench_call_depth(struct bench *bench, unsigned depth, double *calls_per_s)
{
	struct client client;
	struct aph_event event;
	uint64_t began_ns, now_ns;
	uint64_t n_calls = 0;
	unsigned n_open = 0;
	int r;

	/* A call takes a request and a receipt. */
	r = client_open(&client, depth < 32 ? 0 : 2 * depth);
	if (r < 0)
		return r;
	began_ns = now_ns = aph_time_ns();
	while (r == 0 && now_ns < began_ns + bench->case_ns) {
		while (n_open < depth && r == 0) {
			r = begin_call(&client);
			n_open += r == 0;
		}
		/* A full ring is no trouble: go on with what is under way. */
		if (r == -EAGAIN && n_open > 0)
			r = 0;
		if (r == 0)
			r = aph_endpoint_next(client.ep, &event, aph_deadline_ms(CALL_TIMEOUT_MS));
		if (r == 0 && event.type == APH_EVENT_END) {
			if (event.result.outcome != APH_ANSWERED)
				r = -EIO;
			aph_call_free(event.call);
			n_open--;
			n_calls++;
		}
		if ((n_calls & 15) == 0)
			now_ns = aph_time_ns();
		if (bench_interrupted)
			r = -EINTR;
	}
	*calls_per_s = (double)n_calls / ((double)(aph_time_ns() - began_ns) / 1e9);
	client_close(&client);
	return r;
}

int bench_call_stream(struct bench *bench, double *bytes_per_s)
{
	struct client client;
	uint64_t began_ns;
	uint64_t n_bytes = 0;
	int r;

	r = client_open(&client, 0);
	if (r < 0)
		return r;
	began_ns = aph_time_ns();
	while (r == 0 && aph_time_ns() < began_ns + bench->case_ns) {
		uint64_t deadline_ns = aph_deadline_ms(CALL_TIMEOUT_MS);
		struct aph_result result = { 0 };
		struct aph_call *call = NULL;
		uint64_t left = STREAM_LEN;

		r = aph_call_new(&call, client.channel, deadline_ns, NULL);
		while (r == 0 && left > 0) {
			size_t len = left < BENCH_PIECE_LEN ? (size_t)left : BENCH_PIECE_LEN;
			ssize_t n =
				aph_call_send(call, bench->piece, len, len == left ? 0 : APH_MORE);

			if (n > 0)
				left -= (uint64_t)n;
			if (n == -EAGAIN || (n >= 0 && (size_t)n < len))
				r = aph_call_wait(call, deadline_ns);
			else if (n < 0)
				r = (int)n;
		}
		while (r == 0 && !aph_call_result(call, &result))
			r = aph_call_wait(call, deadline_ns);
		if (r == 0 && result.outcome != APH_ANSWERED)
			r = -EIO;
		n_bytes += STREAM_LEN;
		aph_call_free(call);
		if (bench_interrupted)
			r = -EINTR;
	}
	*bytes_per_s = (double)n_bytes / ((double)(aph_time_ns() - began_ns) / 1e9);
	client_close(&client);
	return r;
}

/* -- several clients --------------------------------------------------------------------------- */

struct crowd {
	const struct bench *bench;
	int fd; /* a socket pair's end: a byte says go, the count comes back */
};

static void client_run(void *data)
{
	const struct crowd *crowd = data;
	struct client client;
	uint64_t n_calls = 0;
	uint64_t end_ns;
	char byte = 0;

	bench_place(crowd->bench, BENCH_ANYWHERE);
	if (client_open(&client, 0) < 0 || call_once(&client) < 0)
		_exit(1);
	if (send(crowd->fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(crowd->fd, &byte, 1, 0) != 1)
		_exit(1);
	end_ns = aph_time_ns() + crowd->bench->case_ns;
	while (aph_time_ns() < end_ns) {
		if (call_once(&client) < 0)
			_exit(1);
		n_calls++;
	}
	if (send(crowd->fd, &n_calls, sizeof(n_calls), MSG_NOSIGNAL) < 0)
		_exit(1);
	_exit(0);
}

/* Each client says that it is ready, all are told to go, each says how many calls it made. */
static int conduct(const int *fds, unsigned n_clients, uint64_t *n_calls)
{
	uint64_t count;
	char byte = 0;

	for (unsigned i = 0; i < n_clients; i++) {
		if (recv(fds[i], &byte, 1, 0) != 1)
			return -EPIPE;
	}
	for (unsigned i = 0; i < n_clients; i++) {
		if (send(fds[i], &byte, 1, MSG_NOSIGNAL) != 1)
			return -EPIPE;
	}
	*n_calls = 0;
	for (unsigned i = 0; i < n_clients; i++) {
		if (recv(fds[i], &count, sizeof(count), 0) != (ssize_t)sizeof(count))
			return -EPIPE;
		*n_calls += count;
	}
	return 0;
}

int bench_call_clients(struct bench *bench, unsigned n_clients, double *calls_per_s)
{
	pid_t pids[CLIENTS_MAX] = { 0 };
	int fds[CLIENTS_MAX];
	uint64_t n_calls = 0;
	unsigned n = 0;
	int r = bench_interrupted ? -EINTR : 0;

	while (n < n_clients && n < CLIENTS_MAX && r == 0) {
		struct crowd crowd = { .bench = bench };
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
			r = -errno;
			break;
		}
		crowd.fd = pair[1];
		r = bench_fork(&pids[n], client_run, &crowd);
		close(pair[1]);
		fds[n++] = pair[0];
	}
	if (r == 0)
		r = conduct(fds, n, &n_calls);
	for (unsigned i = 0; i < n; i++) {
		close(fds[i]);
		bench_end_child(&pids[i]);
	}
	*calls_per_s = (double)n_calls / ((double)bench->case_ns / 1e9);
	return r;
}
