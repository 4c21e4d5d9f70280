/* SPDX-License-Identifier: MIT */
/*
 * Threads that use two endpoints in every way there is, at random: each call ends once, no event is
 * lost, and nobody sleeps on. Rounds are short, and have few threads: what one does not hear of no
 * other comes to find by chance.
 */
#include "scheme.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define ENDPOINTS   2
#define THREADS_MAX 4 /* of an endpoint; the first of them takes events */
#define OPS_MAX	    12
#define OPEN_MAX    1024

enum role {
	NEXT_FOREVER,
	NEXT_BRIEFLY,
	NEXT_NOW,
	LOOP,
	CALL,
	CALL_BRIEFLY,
	CALL_ASYNC,
	N_ROLES,
	N_TAKERS = CALL
};

static const char *const role_names[] = { "next", "next-briefly", "next-now",  "loop",
					  "call", "call-briefly", "call-async" };

/* Whose parts in a call are over: it is freed by whoever comes last. */
enum {
	BEGUN = 0,
	USED = 1, /* by the thread that has begun it or was told of the request */
	ENDED = 2,
};

struct place {
	struct aph_endpoint *ep;
	struct aph_channel *to[ENDPOINTS];
};

struct member {
	struct place *place;
	enum role role;
	struct rng rng;
	pthread_t thread;
	_Atomic bool done;
};

static struct place places[ENDPOINTS];
static struct member members[ENDPOINTS * THREADS_MAX];
static unsigned n_members;
static _Atomic bool stopping;
static _Atomic uint32_t next_id;

static struct {
	pthread_mutex_t lock;
	struct {
		const struct aph_call *call;
		unsigned over;
	} calls[OPEN_MAX];
	_Atomic unsigned n;
} known = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* A part in the call is over, once. True: all are, and the call is to be freed. */
static bool is_over(const struct aph_call *call, unsigned part)
{
	bool over = false;
	unsigned i = 0;

	pthread_mutex_lock(&known.lock);
	while (i < known.n && known.calls[i].call != call)
		i++;
	if (i == known.n) {
		CHECK(known.n < OPEN_MAX);
		known.calls[known.n].call = call;
		known.calls[known.n].over = 0;
		known.n++;
	}
	CHECK(!(known.calls[i].over & part));
	known.calls[i].over |= part;
	if (known.calls[i].over == (USED | ENDED)) {
		known.calls[i] = known.calls[known.n - 1];
		known.n--;
		over = true;
	}
	pthread_mutex_unlock(&known.lock);
	return over;
}

static void finish(struct aph_call *call, unsigned part)
{
	if (is_over(call, part))
		aph_call_free(call);
}

static void nap(uint32_t us)
{
	const struct timespec time = { .tv_nsec = (long)us * 1000 };

	nanosleep(&time, NULL);
}

struct request {
	uint32_t id;
	char op[4]; /* 'r'eply, 'w'ait first, 'm'ore than one piece, 'a'bort */
};

/* One of the ways to wait for a call, and come back. */
static void wait_for_call(struct member *member, struct aph_call *call)
{
	static const uint64_t ahead_ns[] = { 0, 100000, 1000000 };
	uint32_t way = rng_below(&member->rng, 5);
	uint64_t deadline = way == 0   ? APH_NOW
			    : way == 1 ? APH_FOREVER
				       : aph_time_ns() + ahead_ns[way - 2];
	int r = aph_call_wait(call, deadline);

	CHECK(r == 0 || (r == -EAGAIN && way == 0) || (r == -ETIMEDOUT && way > 1));
	if (r == -EAGAIN)
		nap(100);
}

/* False when its client is gone. */
static bool read_request(struct member *member, struct aph_call *call, struct request *request)
{
	size_t len = 0;
	ssize_t n;

	while (len < sizeof(*request)) {
		n = aph_call_read(call, (char *)request + len, sizeof(*request) - len);
		if (n == -EPIPE)
			return false;
		CHECK(n > 0 || n == -EAGAIN);
		if (n > 0)
			len += (size_t)n;
		else
			wait_for_call(member, call);
	}
	return true;
}

static void serve(struct member *member, struct aph_call *call)
{
	struct request request;
	ssize_t n;
	int r;

	finish(call, BEGUN);
	if (!read_request(member, call, &request)) {
		finish(call, USED);
		return;
	}
	if (request.op[0] == 'w')
		nap(rng_below(&member->rng, 1000));
	if (request.op[0] == 'm') {
		n = aph_call_send(call, &request, 4, APH_MORE);
		CHECK(n == 4 || n == -EPIPE || n == -EAGAIN);
		nap(rng_below(&member->rng, 300));
		r = aph_call_reply(call, (char *)&request + (n == 4 ? 4 : 0), n == 4 ? 4 : 8);
	} else if (request.op[0] == 'a') {
		r = aph_call_abort(call, 7);
	} else {
		r = aph_call_reply(call, &request, sizeof(request));
	}
	CHECK(r == 0 || r == -ECANCELED);
	finish(call, USED);
}

static void take(struct member *member, const struct aph_event *ev)
{
	if (ev->type == APH_EVENT_REQUEST)
		serve(member, ev->call);
	else if (ev->type == APH_EVENT_END)
		finish(ev->call, ENDED);
	else
		CHECK(ev->type == APH_EVENT_REPLY || ev->type == APH_EVENT_READABLE ||
		      ev->type == APH_EVENT_WRITABLE);
}

/* Takes events until it is woken at the end. */
static void take_events(struct member *member)
{
	struct aph_endpoint *ep = member->place->ep;
	struct pollfd p = { .events = POLLIN };
	struct aph_event ev;
	int r;

	if (member->role == LOOP)
		p.fd = (int)CHECK_OK(aph_endpoint_fd(ep));
	for (;;) {
		uint64_t deadline = APH_NOW;

		if (member->role == LOOP)
			CHECK(poll(&p, 1, -1) == 1);
		if (member->role == NEXT_FOREVER)
			deadline = APH_FOREVER;
		else if (member->role == NEXT_BRIEFLY)
			deadline = aph_time_ns() + rng_below(&member->rng, 3) * 200000;
		while ((r = aph_endpoint_next(ep, &ev, deadline)) == 0)
			take(member, &ev);
		if (r == -ECANCELED && stopping)
			return;
		CHECK(r == (member->role == NEXT_BRIEFLY ? -ETIMEDOUT : -EAGAIN));
		if (member->role == NEXT_NOW)
			nap(rng_below(&member->rng, 500));
	}
}

static void check_outcome(int outcome, enum aph_reason reason, const struct request *request,
			  bool brief)
{
	if (brief && (outcome == APH_REFUSED || outcome == APH_LOST))
		CHECK(reason == APH_REASON_DEADLINE);
	else
		CHECK(outcome == (request->op[0] == 'a' ? APH_ABORTED : APH_ANSWERED));
}

static void call_once(struct member *member, struct aph_channel *channel,
		      const struct request *request)
{
	bool brief = member->role == CALL_BRIEFLY;
	uint64_t deadline = brief ? aph_time_ns() + rng_below(&member->rng, 1000) * 1000
				  : APH_FOREVER;
	struct request reply = { 0 };
	size_t len = sizeof(reply);
	int r = aph_call(channel, request, sizeof(*request), &reply, &len, deadline);

	CHECK_OK(r);
	check_outcome(r, aph_channel_result(channel).reason, request, brief);
	if (r == APH_ANSWERED)
		CHECK(len == sizeof(reply) && memcmp(&reply, request, len) == 0);
}

static void send_all(struct member *member, struct aph_call *call, const void *data, size_t len,
		     unsigned flags)
{
	ssize_t n;

	while ((n = aph_call_send(call, data, len, flags)) == -EAGAIN)
		wait_for_call(member, call);
	CHECK(n == (ssize_t)len);
}

static void call_async(struct member *member, struct aph_channel *channel,
		       const struct request *request)
{
	struct aph_result result;
	struct aph_call *call;
	char waste[16];

	CHECK_OK(aph_call_new(&call, channel, APH_FOREVER, NULL));
	finish(call, BEGUN);
	if (rng_below(&member->rng, 2)) {
		send_all(member, call, request, 3, APH_MORE);
		nap(rng_below(&member->rng, 200));
		send_all(member, call, (const char *)request + 3, sizeof(*request) - 3, 0);
	} else {
		send_all(member, call, request, sizeof(*request), 0);
	}
	if (rng_below(&member->rng, 4)) {
		while (!aph_call_result(call, &result))
			if (aph_call_read(call, waste, sizeof(waste)) == -EAGAIN)
				wait_for_call(member, call);
		check_outcome((int)result.outcome, result.reason, request, false);
	}
	finish(call, USED);
}

static void *take_part(void *arg)
{
	static const char ops[] = "rrrwma";
	struct member *member = arg;

	if (member->role < N_TAKERS) {
		take_events(member);
	} else {
		for (uint32_t n = 1 + rng_below(&member->rng, OPS_MAX); n; n--) {
			struct aph_channel *to =
				member->place->to[rng_below(&member->rng, ENDPOINTS)];
			struct request request = { .id = next_id++,
						   .op = { ops[rng_below(&member->rng, 6)] } };

			if (member->role == CALL_ASYNC)
				call_async(member, to, &request);
			else
				call_once(member, to, &request);
			if (rng_below(&member->rng, 4) == 0)
				nap(rng_below(&member->rng, 1000));
		}
	}
	member->done = true;
	return NULL;
}

static void check_in_time(uint64_t deadline_ns)
{
	if (aph_time_ns() < deadline_ns)
		return;
	for (unsigned i = 0; i < n_members; i++)
		fprintf(stderr, "endpoint %d, %s%s\n", (int)(members[i].place - places),
			role_names[members[i].role], members[i].done ? ", has ended" : "");
	fprintf(stderr, "%u calls have not ended\n", known.n);
	check_failed(__FILE__, __LINE__, "somebody sleeps on, or an event was lost", 0);
}

static void open_places(void)
{
	static const struct aph_service_options options = { .size = sizeof(options),
							    .flags = APH_SERVICE_RECEIPTS_NOW };

	for (int i = 0; i < ENDPOINTS; i++)
		CHECK_OK(aph_endpoint_new(&places[i].ep, NULL));
	for (int i = 0; i < ENDPOINTS; i++) {
		char address[64];

		snprintf(address, sizeof(address), "%s", scheme_address());
		CHECK_OK(aph_service_open(NULL, places[i].ep, address, &options));
		for (int j = 0; j < ENDPOINTS; j++) {
			struct aph_channel_options async = { .size = sizeof(async),
							     .flags = APH_CHANNEL_ASYNC };
			struct aph_event ev = { 0 };

			CHECK_OK(aph_channel_open(&places[j].to[i], places[j].ep, address, &async));
			while (aph_endpoint_next(places[j].ep, &ev, APH_NOW) != 0)
				(void)aph_endpoint_serve(places[i].ep, APH_NOW);
			CHECK(ev.type == APH_EVENT_OPEN);
		}
	}
}

static void one_round(struct rng *rng)
{
	struct aph_event ev;
	uint64_t limit;
	unsigned n;

	open_places();
	n_members = 0;
	stopping = false;
	for (int i = 0; i < ENDPOINTS; i++) {
		n = 1 + rng_below(rng, THREADS_MAX);
		for (unsigned k = 0; k < n; k++)
			members[n_members++] = (struct member){
				.place = &places[i],
				.role = (enum role)rng_below(rng, k ? N_ROLES : N_TAKERS),
				.rng = { rng_next(rng) },
			};
	}
	limit = aph_deadline_ms((uint64_t)check_hang_ms(5000));
	for (unsigned i = 0; i < n_members; i++)
		CHECK(!pthread_create(&members[i].thread, NULL, take_part, &members[i]));
	for (unsigned i = 0; i < n_members; i++)
		for (; members[i].role >= N_TAKERS && !members[i].done; nap(200))
			check_in_time(limit);
	for (; known.n; nap(200))
		check_in_time(limit);
	stopping = true;
	for (unsigned i = 0; i < n_members; i++)
		if (members[i].role < N_TAKERS)
			CHECK_OK(aph_endpoint_wake(members[i].place->ep));
	for (unsigned i = 0; i < n_members; i++) {
		for (; !members[i].done; nap(100))
			check_in_time(limit);
		CHECK(!pthread_join(members[i].thread, NULL));
	}
	/* Of callers that had no time some may still be on their way. */
	for (; known.n; check_in_time(limit))
		for (int i = 0; i < ENDPOINTS; i++)
			while (aph_endpoint_next(places[i].ep, &ev, APH_NOW) == 0)
				take(&members[0], &ev);
	for (int i = 0; i < ENDPOINTS; i++)
		aph_endpoint_free(places[i].ep);
}

static void in_every_way(void **state)
{
	struct rng rng = { .state = check_seed() };
	uint64_t until = aph_deadline_ms(check_long() ? 60000 : 3000);

	(void)state;
	while (aph_time_ns() < until)
		one_round(&rng);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(in_every_way),
	};

	scheme_choose(argc, argv);
	return suite_run("mix", tests, SUITE_LEN(tests), 60);
}
