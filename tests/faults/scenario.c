/* SPDX-License-Identifier: MIT */
#include "scenario.h"

#include "check.h"
#include "dir.h"
#include "fds.h"
#include "pattern.h"

#include <antiphon/antiphon.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BODY 300000

/* With something failing, at first, and at most; and with nothing failing. */
#define PATIENCE_MS	300u
#define PATIENCE_MS_MAX 20000u

/* Both ends of a channel in one thread, and what the test has seen of a call. */
struct pair {
	struct aph_endpoint *server, *client;
	struct aph_service *service;
	struct aph_channel *channel;
	struct aph_call *call; /* the client's */
	struct aph_call *work; /* the service's */
	bool open, closed, ended;
	struct aph_result result;
	size_t sent, echoed, got;
	size_t have, used; /* bytes in `chunk`, and those of them that were sent back */
	size_t total;
	size_t first; /* bytes that go with the descriptors */
	bool wrong;
	int fds[8];
	size_t n_fds;
	bool fds_sent;
};

/*
 * How long an answer may take. Where something fails there may never be one, and all of this
 * passes; where nothing does the machine needs it only when it is busy.
 */
static unsigned patience_ms = PATIENCE_MS_MAX;

static unsigned char body[BODY];
static unsigned char chunk[10000];
static struct fds before;
static long blocks_before;

/* What a failing function must have said. */
static int failed(int r)
{
	CHECK(r < 0);
	CHECK(strlen(aph_error()) > 10);
	return r;
}

/* -- the service's side ------------------------------------------------------------------------ */

static void drop_work(struct pair *pair)
{
	pair->work = aph_call_free(pair->work);
}

static void close_fds(struct pair *pair)
{
	while (pair->n_fds > 0)
		close(pair->fds[--pair->n_fds]);
}

/* Sends back what it reads, with the descriptors; gives the call up where it must. */
static void serve(struct pair *pair)
{
	ssize_t n;
	int r;

	while (pair->work) {
		if (pair->used < pair->have) {
			n = aph_call_send(pair->work, chunk + pair->used, pair->have - pair->used,
					  APH_MORE);
			if (n == -EAGAIN)
				return;
			if (n < 0) {
				drop_work(pair);
				return;
			}
			pair->used += (size_t)n;
			continue;
		}
		n = aph_call_read(pair->work, chunk, sizeof(chunk));
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			drop_work(pair);
			return;
		}
		pair->have = (size_t)n;
		pair->used = 0;
		if (n > 0)
			continue;
		n = aph_call_take_fds(pair->work, pair->fds, 8);
		if (n > 0) {
			pair->n_fds = (size_t)n;
			n = aph_call_send_fds(pair->work, NULL, 0, pair->fds, pair->n_fds,
					      APH_MORE);
			close_fds(pair);
			if (n < 0) {
				drop_work(pair);
				return;
			}
		}
		r = aph_call_reply(pair->work, NULL, 0);
		if (r < 0 && r != -ECANCELED) {
			(void)failed(r);
			drop_work(pair);
		}
		pair->work = NULL;
	}
}

static void at_server(struct pair *pair, const struct aph_event *ev)
{
	if (ev->type == APH_EVENT_REQUEST) {
		CHECK(!pair->work);
		pair->work = ev->call;
		pair->have = pair->used = 0;
	} else if (ev->type == APH_EVENT_END) {
		CHECK(ev->call == pair->work);
		drop_work(pair);
	} else if (ev->type == APH_EVENT_DISCONNECT) {
		aph_channel_close(ev->channel);
	}
	serve(pair);
}

/* -- the client's side ------------------------------------------------------------------------- */

static void push(struct pair *pair)
{
	int two[2] = { STDERR_FILENO, STDERR_FILENO };
	ssize_t n;

	while (pair->call && !pair->ended && pair->sent < pair->total) {
		if (pair->total == BODY + 1 && !pair->fds_sent)
			n = aph_call_send_fds(pair->call, body, pair->first, two, 2, APH_MORE);
		else
			n = aph_call_send(pair->call, body + pair->sent,
					  pair->total - pair->sent - (pair->total > BODY), 0);
		if (n < 0) {
			if (n != -EAGAIN && n != -EPIPE) {
				(void)failed((int)n);
				(void)aph_call_cancel(pair->call);
			}
			return;
		}
		if (pair->total == BODY + 1 && !pair->fds_sent) {
			pair->fds_sent = true;
			pair->total = BODY;
		}
		pair->sent += (size_t)n;
	}
}

static void pull(struct pair *pair)
{
	unsigned char buf[7000];
	ssize_t n;

	while ((n = aph_call_read(pair->call, buf, sizeof(buf))) > 0) {
		pair->wrong |= pair->got + (size_t)n > BODY ||
			       memcmp(buf, body + pair->got, (size_t)n) != 0;
		pair->got += (size_t)n;
	}
	n = aph_call_take_fds(pair->call, pair->fds, 8);
	pair->n_fds = n > 0 ? (size_t)n : 0;
	pair->echoed += pair->n_fds;
	close_fds(pair);
}

static void at_client(struct pair *pair, const struct aph_event *ev)
{
	switch (ev->type) {
	case APH_EVENT_OPEN:
		pair->open = true;
		break;
	case APH_EVENT_CLOSED:
		CHECK(!pair->closed);
		pair->closed = true;
		break;
	case APH_EVENT_END:
		CHECK(ev->call == pair->call && !pair->ended);
		pair->ended = true;
		pair->result = ev->result;
		pull(pair);
		break;
	default:
		CHECK(ev->call == pair->call && !pair->ended);
		pull(pair);
		push(pair);
	}
}

/* Takes what is there at both ends. A failure to look is one to come back from. */
static void turn(struct pair *pair)
{
	struct aph_event ev;
	int r;

	for (int i = 0; i < 50 && (r = aph_endpoint_next(pair->server, &ev, APH_NOW)) == 0; i++)
		at_server(pair, &ev);
	serve(pair);
	if (!pair->client)
		return;
	for (int i = 0; i < 50 && (r = aph_endpoint_next(pair->client, &ev, APH_NOW)) == 0; i++)
		at_client(pair, &ev);
	if (pair->call)
		push(pair);
}

/* -- from nothing to nothing ------------------------------------------------------------------- */

static void close_pair(struct pair *pair)
{
	aph_call_free(pair->call);
	aph_channel_close(pair->channel);
	aph_endpoint_free(pair->client);
	aph_call_free(pair->work);
	aph_service_close(pair->service);
	aph_endpoint_free(pair->server);
}

static int open_pair(struct pair *pair, unsigned flags)
{
	struct aph_service_options service = { .size = sizeof(service), .flags = flags };
	struct aph_channel_options channel = { .size = sizeof(channel),
					       .flags = APH_CHANNEL_ASYNC };
	uint64_t deadline;
	int r;

	memset(pair, 0, sizeof(*pair));
	r = aph_endpoint_new(&pair->server, NULL);
	if (r < 0)
		return failed(r);
	r = aph_service_open(&pair->service, pair->server, "fault", &service);
	if (r < 0)
		return failed(r);
	r = aph_endpoint_new(&pair->client, NULL);
	if (r < 0)
		return failed(r);
	deadline = channel.deadline_ns = aph_deadline_ms(patience_ms);
	r = aph_channel_open(&pair->channel, pair->client, "fault", &channel);
	if (r < 0)
		return failed(r);
	while (!pair->open && !pair->closed) {
		turn(pair);
		/* Whatever went wrong, the client is told by its deadline. */
		CHECK(aph_time_ns() < deadline + UINT64_C(30000000000));
	}
	return pair->closed ? -ECONNREFUSED : 0;
}

static int call_once(struct pair *pair, size_t total)
{
	uint64_t deadline = aph_deadline_ms(patience_ms);
	int r;

	pair->total = total;
	pair->sent = pair->echoed = pair->got = 0;
	pair->fds_sent = false;
	pair->ended = pair->wrong = false;
	r = aph_call_new(&pair->call, pair->channel, deadline, NULL);
	if (r < 0)
		return failed(r);
	push(pair);
	while (!pair->ended) {
		turn(pair);
		CHECK(aph_time_ns() < deadline + UINT64_C(30000000000));
	}
	CHECK(!pair->wrong);
	if (pair->result.outcome == APH_ANSWERED)
		CHECK(pair->got == (total > BODY ? BODY : total));
	if (pair->result.outcome == APH_ANSWERED && total > BODY)
		CHECK(pair->echoed == 2);
	pair->call = aph_call_free(pair->call);
	return pair->result.outcome == APH_ANSWERED ? 0 : -ECONNABORTED;
}

static int with_pair_and_first(unsigned flags, size_t total, size_t first, int calls)
{
	struct pair pair;
	int r = open_pair(&pair, flags);

	pair.first = first;
	for (int i = 0; r == 0 && i < calls; i++)
		r = call_once(&pair, total);
	close_pair(&pair);
	return r;
}

static int with_pair(unsigned flags, size_t total, int calls)
{
	return with_pair_and_first(flags, total, 1, calls);
}

/* -- the scenarios ----------------------------------------------------------------------------- */

static int a_service(void)
{
	return with_pair(0, 0, 0);
}

static int only_a_service(void)
{
	struct aph_endpoint *ep;
	struct aph_service *service;
	int r = aph_endpoint_new(&ep, NULL);

	if (r < 0)
		return failed(r);
	r = aph_service_open(&service, ep, "fault", NULL);
	if (r < 0)
		(void)failed(r);
	else
		aph_service_close(service);
	aph_endpoint_free(ep);
	return r;
}

static int small_calls(void)
{
	return with_pair(0, 20, 3);
}

static int large_calls(void)
{
	return with_pair(0, BODY, 2);
}

static int calls_with_descriptors(void)
{
	return with_pair(0, BODY + 1, 2);
}

/* Memory and descriptors in one record. */
static int calls_with_descriptors_beside_bytes(void)
{
	return with_pair_and_first(0, BODY + 1, 1000, 2);
}

static int a_service_that_is_told_everything(void)
{
	return with_pair(APH_SERVICE_EVENTS | APH_SERVICE_EXCLUSIVE, 5000, 2);
}

static int a_long_reply_at_once(void)
{
	struct pair pair;
	struct aph_event ev;
	uint64_t deadline;
	int r = open_pair(&pair, 0);

	if (r < 0)
		goto out;
	deadline = aph_deadline_ms(patience_ms);
	r = aph_call_new(&pair.call, pair.channel, deadline, NULL);
	if (r < 0) {
		(void)failed(r);
		goto out;
	}
	r = (int)aph_call_send(pair.call, "x", 1, 0);
	if (r < 0)
		(void)failed(r);
	if (r < 0)
		goto out;
	while (!pair.ended) {
		if (aph_endpoint_next(pair.server, &ev, APH_NOW) == 0) {
			if (ev.type == APH_EVENT_REQUEST) {
				r = aph_call_reply(ev.call, body, BODY);
				if (r < 0 && r != -ECANCELED) {
					(void)failed(r);
					aph_call_free(ev.call);
				}
			} else if (ev.type == APH_EVENT_END) {
				aph_call_free(ev.call);
			}
		}
		if (aph_endpoint_next(pair.client, &ev, APH_NOW) == 0)
			at_client(&pair, &ev);
		CHECK(aph_time_ns() < deadline + UINT64_C(30000000000));
	}
	CHECK(!pair.wrong);
	r = pair.result.outcome == APH_ANSWERED ? 0 : -ECONNABORTED;
	CHECK(r < 0 || pair.got == BODY);
out:
	close_pair(&pair);
	return r;
}

/* As a foreign loop would do it. */
static int by_descriptor(void)
{
	struct pair pair;
	struct pollfd poller = { .events = POLLIN };
	int r = open_pair(&pair, 0), fd;

	if (r == 0) {
		fd = aph_endpoint_fd(pair.client);
		r = fd < 0 ? failed(fd) : 0;
		poller.fd = fd;
		(void)poll(&poller, 1, 0);
	}
	if (r == 0)
		r = call_once(&pair, 20);
	close_pair(&pair);
	return r;
}

static int the_directory(void)
{
	struct aph_service_info *list;
	struct pair pair;
	int r = open_pair(&pair, 0);
	char path[300];
	size_t n;

	if (r == 0) {
		/* Nobody answers, as the service is this thread: it is listed all the same. */
		r = aph_directory_list(&list, &n, aph_deadline_ms(2));
		if (r < 0) {
			(void)failed(r);
		} else {
			for (size_t i = 0; i < n; i++)
				CHECK(strcmp(list[i].name.name, "fault") == 0);
			r = n == 1 ? 0 : -ENOENT;
			free(list);
		}
	}
	if (r == 0) {
		r = aph_directory_path(path, sizeof(path));
		if (r < 0)
			(void)failed(r);
	}
	close_pair(&pair);
	return r;
}

static int waiting_in_vain(void)
{
	struct aph_channel_options options = { .size = sizeof(options), .flags = APH_CHANNEL_WAIT };
	struct aph_channel *channel;
	struct aph_endpoint *ep;
	int r = aph_endpoint_new(&ep, NULL);

	if (r < 0)
		return failed(r);
	options.deadline_ns = aph_deadline_ms(3);
	r = aph_channel_open(&channel, ep, "nobody", &options);
	CHECK(r < 0);
	aph_endpoint_free(ep);
	return r == -ETIMEDOUT ? 0 : failed(r);
}

const struct scenario scenarios[] = {
	{ "only a service", only_a_service },
	{ "a service and a channel", a_service },
	{ "small calls", small_calls },
	{ "large calls", large_calls },
	{ "calls with descriptors", calls_with_descriptors },
	{ "calls with descriptors beside bytes", calls_with_descriptors_beside_bytes },
	{ "a service that is told everything", a_service_that_is_told_everything },
	{ "a long reply at once", a_long_reply_at_once },
	{ "by descriptor", by_descriptor },
	{ "the directory", the_directory },
	{ "waiting in vain", waiting_in_vain },
};

const size_t n_scenarios = sizeof(scenarios) / sizeof(scenarios[0]);

int scenario_run(const struct scenario *scenario)
{
	patience_ms = PATIENCE_MS_MAX;
	return scenario->run();
}

int scenario_run_with(const struct scenario *scenario, enum fault_site site, unsigned n, int error,
		      bool *hit)
{
	int r;

	for (unsigned ms = PATIENCE_MS;; ms *= 4) {
		patience_ms = ms;
		fault_arm(site, n, error);
		r = scenario->run();
		*hit = fault_disarm();
		/* If nothing failed, and yet it did not work, the machine was busy for so long. */
		if (*hit || r == 0 || ms >= PATIENCE_MS_MAX)
			return r;
	}
}

/*
 * A thread that has closed what might have been slow to close gives its memory back a moment later:
 * what is there when nothing has changed for a while.
 */
static long settled_blocks(void)
{
	long n = fault_blocks();

	for (int i = 0, same = 0; i < 1000 && same < 20; i++) {
		usleep(1000);
		same = fault_blocks() == n ? same + 1 : 0;
		n = fault_blocks();
	}
	return n;
}

void scenario_begin(void)
{
	pattern_fill(body, sizeof(body), 0, 77);
	/* What is made once in a process's life is made now. */
	for (size_t i = 0; i < n_scenarios; i++)
		CHECK_OK(scenario_run(&scenarios[i]));
	blocks_before = settled_blocks();
	fds_take(&before);
}

static long blocks_left(void)
{
	for (int i = 0; i < 1000 && fault_blocks() != blocks_before; i++)
		usleep(1000);
	return fault_blocks() - blocks_before;
}

void scenario_check(const char *what, unsigned n)
{
	long blocks = blocks_left();
	bool bad = false;

	if (fds_differ(&before))
		bad = true;
	if (blocks) {
		fprintf(stderr, "%ld blocks of memory were left\n", blocks);
		bad = true;
	}
	if (dir_sockets() != 0) {
		fprintf(stderr, "a socket file was left\n");
		bad = true;
	}
	if (bad) {
		fprintf(stderr, "after %s, number %u\n", what, n);
		abort();
	}
}
