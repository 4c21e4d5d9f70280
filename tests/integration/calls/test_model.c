/* SPDX-License-Identifier: MIT */
/*
 * Both ends of many calls do whatever they may, at random: services, channels and endpoints come
 * and go meanwhile, and children are forked that let go of everything. model.c knows what may
 * happen. Then everybody finishes what has begun, by events alone: no call is left without its end,
 * and nobody waits for an event that does not come.
 */
#include "model.h"

#include "fds.h"
#include "remote.h"
#include "scheme.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STEPS	    1500
#define BODY_MAX    (1 << 16)
#define FDS_AT_ONCE 3

static uint8_t buffer[BODY_MAX];

static uint32_t below(uint32_t n)
{
	return rng_below(&world.rng, n);
}

static bool one_in(uint32_t n)
{
	return below(n) == 0;
}

/* Mostly small, seldom more than a channel holds. */
static size_t some_length(void)
{
	switch (below(8)) {
	case 0:
		return 0;
	case 1:
		return below(BODY_MAX);
	case 2:
		return below(5000);
	default:
		return below(200);
	}
}

/* -- sending and reading, at either end -------------------------------------------------------- */

static void note_sent(struct end *end, ssize_t r, size_t len, bool more)
{
	if (r < 0) {
		CHECK(r == -EAGAIN || r == -EPIPE || r == -ENOTCONN);
		end->blocked |= r == -EAGAIN;
		return;
	}
	CHECK((size_t)r <= len);
	end->sent += (uint64_t)r;
	end->blocked = (size_t)r < len;
	end->sent_all |= (size_t)r == len && !more;
}

static void send_copied(const struct job *job, struct end *end, size_t len, bool more)
{
	bool request = end == &job->end;
	int fds[FDS_AT_ONCE];
	size_t n_fds = world.remote || len == 0 || !one_in(4) ? 0 : below(FDS_AT_ONCE + 1);
	ssize_t r;

	for (size_t i = 0; i < n_fds; i++)
		fds[i] = model_fd(job, request, end->fds_sent + (uint32_t)i);
	model_fill(job, request, buffer, len, end->sent);
	r = aph_call_send_fds(end->call, buffer, len, fds, n_fds, more ? APH_MORE : 0);
	note_sent(end, r, len, more);
	if (r >= 0)
		end->fds_sent += (uint32_t)n_fds;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
}

/* What was reserved stays so where the piece has no room. */
static void commit(struct end *end)
{
	int r = aph_call_commit(end->call, end->reserved, end->more_after_them ? APH_MORE : 0);

	note_sent(end, r < 0 ? r : (ssize_t)end->reserved, end->reserved, end->more_after_them);
	end->is_reserved = r == -EAGAIN;
}

static void send_in_place(const struct job *job, struct end *end, size_t len, bool more)
{
	void *data;
	int r = aph_call_reserve(end->call, &data, &len);

	if (r < 0) {
		note_sent(end, r, len, more);
		return;
	}
	len = one_in(4) ? below((uint32_t)len + 1) : len;
	more |= end == &job->end && end->sent + len < ID_LEN;
	model_fill(job, end == &job->end, data, len, end->sent);
	end->reserved = len;
	end->more_after_them = more;
	commit(end);
}

static void send_piece(const struct job *job, struct end *end, bool more)
{
	size_t len = some_length();

	/* A request has its number, at least. */
	if (end == &job->end && end->sent < ID_LEN && len < ID_LEN)
		len = ID_LEN;
	if (end->is_reserved)
		commit(end);
	else if (len > 0 && one_in(4))
		send_in_place(job, end, len, more);
	else
		send_copied(job, end, len, more);
}

/* Those that have come with what was read. */
static void take_fds(const struct job *job, struct end *end)
{
	int fds[2];
	ssize_t n;

	while ((n = aph_call_take_fds(end->call, fds, 2)) > 0)
		for (ssize_t i = 0; i < n; i++)
			model_check_fd(job, end != &job->end, end->fds_got++, fds[i]);
	CHECK(n == 0);
}

static ssize_t read_some(const struct job *job, struct end *end, size_t max)
{
	bool request = end != &job->end;
	const void *data;
	ssize_t r;

	if (one_in(3)) {
		r = aph_call_peek(end->call, buffer, max);
		if (r > 0)
			model_check(job, request, buffer, (size_t)r, end->got);
	}
	if (one_in(3)) {
		size_t len = 0;
		int status = aph_call_borrow(end->call, &data, &len);

		r = status == 0		 ? (ssize_t)(len < max ? len : max)
		    : status == -ENODATA ? 0
					 : status;
		if (r > 0) {
			model_check(job, request, data, (size_t)r, end->got);
			CHECK_OK(aph_call_release(end->call, (size_t)r));
		}
	} else {
		r = aph_call_read(end->call, buffer, max);
		if (r > 0)
			model_check(job, request, buffer, (size_t)r, end->got);
	}
	return r;
}

/* False: there is no more of it. */
static bool read_piece(struct job *job, struct end *end)
{
	size_t max = one_in(4) ? 1 + below(BODY_MAX) : 1 + below(100);
	ssize_t r = read_some(job, end, max);

	if (r > 0) {
		end->got += (uint64_t)r;
		take_fds(job, end);
		return true;
	}
	CHECK(r == 0 || r == -EAGAIN || r == -EPIPE || r == -ENOTCONN);
	if (r == 0) {
		take_fds(job, end);
		model_got_all(job, end != &job->end);
	}
	end->starving = r == -EAGAIN;
	return r == -EAGAIN;
}

/* -- clients ----------------------------------------------------------------------------------- */

static void free_job(struct job *job)
{
	struct aph_call *call = job->end.call;

	model_frees_job(job);
	(void)aph_call_free(call);
}

static void begin_job(void)
{
	struct link *link = &world.links[below(LINKS_MAX)];
	struct job *job = &world.jobs[world.n_jobs];
	bool hurries = one_in(12);
	int r;

	if (!link->channel || world.n_jobs == JOBS_MAX)
		return;
	*job = (struct job){ .end = { .place = link->place }, .link = link, .given_up = hurries };
	r = aph_call_new(&job->end.call, link->channel,
			 hurries ? aph_time_ns() + below(3000) * UINT64_C(1000) : APH_FOREVER,
			 NULL);
	CHECK(r == 0 || r == -EAGAIN || r == -ENOTCONN);
	if (r < 0)
		return;
	world.n_jobs++;
}

static void withdraw(struct job *job)
{
	int r = aph_call_withdraw(job->end.call);

	CHECK(r == 0 || r == -EBUSY || r == -EALREADY);
	if (r < 0)
		return;
	CHECK(!job->guest && !job->end.ended);
	job->withdrawn = job->given_up = true;
}

static void cancel(struct job *job)
{
	int r = aph_call_cancel(job->end.call);

	CHECK(r == 0 || r == -EALREADY);
	job->given_up |= r == 0;
}

static void signal_service(struct job *job)
{
	int r = aph_call_signal(job->end.call, job->signalled + 1);

	CHECK(r == 0 || r == -EPIPE || r == -EAGAIN || r == -ENOTCONN || r == -EOPNOTSUPP);
	job->signalled += r == 0;
}

static void do_job(struct job *job)
{
	switch (below(24)) {
	case 0:
		free_job(job);
		break;
	case 1:
		cancel(job);
		break;
	case 2:
		withdraw(job);
		break;
	case 3:
		signal_service(job);
		break;
	case 4:
		(void)aph_call_wait(job->end.call, APH_NOW);
		break;
	case 5:
	case 6:
	case 7:
	case 8:
	case 9:
	case 10:
		(void)read_piece(job, &job->end);
		break;
	default:
		send_piece(job, &job->end, !one_in(3));
	}
}

/* -- services ---------------------------------------------------------------------------------- */

/* Without receipts that was the end of it. */
static void guest_did(struct guest *guest, int r, enum deed deed, int32_t code)
{
	if (r == -EINVAL)
		CHECK(guest->end.sent_all || guest->deed);
	else
		CHECK(r == 0 || r == -ECANCELED);
	if (r == -EINVAL)
		return;
	if (guest->deed == NOTHING && r == 0) {
		guest->deed = deed;
		guest->code = code;
	} else if (guest->deed == NOTHING) {
		guest->deed = DROPPED;
	}
	if (!guest->receipts)
		model_frees_guest(guest);
}

static void reply(struct guest *guest)
{
	size_t len = some_length();
	uint64_t sent = guest->end.sent;
	bool sent_all = guest->end.sent_all;
	int r;

	model_fill(guest->job, false, buffer, len, sent);
	r = aph_call_reply(guest->end.call, buffer, len);
	if (r == 0 && !sent_all) {
		guest->end.sent += len;
		guest->end.sent_all = true;
	}
	guest_did(guest, r, REPLIED, 0);
}

static void free_guest(struct guest *guest)
{
	struct aph_call *call = guest->end.call;

	guest->deed = guest->deed ? guest->deed : DROPPED;
	model_frees_guest(guest);
	(void)aph_call_free(call);
}

static void send_reply(struct guest *guest, bool more)
{
	if (guest->deed != NOTHING)
		return;
	send_piece(guest->job, &guest->end, more);
	if (guest->end.sent_all)
		guest->deed = REPLIED;
}

static void do_guest(struct guest *guest)
{
	/* Over rx some that are negative are taken, and so is 0. */
	int32_t code = world.remote ? 1 + (int32_t)below(1000) : (int32_t)below(1000) - 500;

	if (!model_meets(guest))
		return;
	switch (below(24)) {
	case 0:
		free_guest(guest);
		break;
	case 1:
		guest_did(guest, aph_call_abort(guest->end.call, code), ABORTED, code);
		break;
	case 2:
		code = (int32_t)(one_in(2) ? APH_REASON_BUSY : APH_REASON_POLICY);
		guest_did(guest, aph_call_refuse(guest->end.call, (enum aph_reason)code), REFUSED,
			  code);
		break;
	case 3:
	case 4:
		reply(guest);
		break;
	case 5:
	case 6:
	case 7:
	case 8:
	case 9:
	case 10:
		send_reply(guest, !one_in(4));
		break;
	default:
		(void)read_piece(guest->job, &guest->end);
	}
}

/* -- what they live in ------------------------------------------------------------------------- */

static void open_post(struct post *post)
{
	struct aph_service_options options = {
		.size = sizeof(options),
		.calls_max = one_in(3) ? 2 : 0,
		.arena_max = one_in(3) ? 16384 : 0,
	};
	const char *address = world.addresses[below(PLACES)];
	int r;

	*post = (struct post){
		.place = &world.places[below(PLACES)],
		.receipts = one_in(2),
		.events = one_in(3),
	};
	options.flags = (post->receipts ? APH_SERVICE_RECEIPTS : 0) |
			(post->events ? APH_SERVICE_EVENTS : 0);
	if (post->receipts && one_in(2))
		options.flags |= APH_SERVICE_RECEIPTS_NOW;
	r = aph_service_open(&post->service, post->place->ep, address, &options);
	CHECK(r == 0 || (world.remote && (r == -EADDRINUSE || r == -EEXIST)));
	if (r < 0)
		post->service = NULL;
}

static void close_post(struct post *post)
{
	struct aph_service *service = post->service;

	model_closes_post(post);
	(void)aph_service_close(service);
}

static void open_link(struct link *link)
{
	struct aph_channel_options options = {
		.size = sizeof(options),
		.flags = APH_CHANNEL_ASYNC,
		.calls_max = one_in(3) ? 3 : 0,
		.arena = one_in(3) ? 16384 : 0,
		.deadline_ns = aph_deadline_ms((uint64_t)check_hang_ms(5000)),
	};
	int r;

	*link = (struct link){ .place = &world.places[below(PLACES)] };
	r = aph_channel_open(&link->channel, link->place->ep, world.addresses[below(PLACES)],
			     &options);
	CHECK(r == 0 || r == -ENOENT || r == -EBUSY);
	if (r < 0)
		link->channel = NULL;
}

static void close_link(struct link *link)
{
	struct aph_channel *channel = link->channel;

	model_closes_link(link);
	(void)aph_channel_close(channel);
}

static void close_visitor(struct visitor *visitor)
{
	struct aph_channel *channel = visitor->channel;

	model_closes_visitor(visitor);
	(void)aph_channel_close(channel);
}

static void renew_place(struct place *place)
{
	model_frees_place(place);
	(void)aph_endpoint_free(place->ep);
	CHECK_OK(aph_endpoint_new(&place->ep, NULL));
}

/* A child lets go of everything, and nobody notices. */
static void fork_child(void)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		struct aph_event ev;

		for (int i = 0; i < PLACES; i++) {
			CHECK(aph_endpoint_next(world.places[i].ep, &ev, APH_NOW) == -ENOTCONN);
			(void)aph_endpoint_free(world.places[i].ep);
		}
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void change_something(void)
{
	struct post *post = &world.posts[below(POSTS_MAX)];
	struct link *link = &world.links[below(LINKS_MAX)];

	switch (below(40)) {
	case 0:
		renew_place(&world.places[below(PLACES)]);
		break;
	case 1:
		fork_child();
		break;
	case 2:
	case 3:
		if (post->service)
			close_post(post);
		break;
	case 4:
	case 5:
		if (link->channel)
			close_link(link);
		break;
	case 6:
		if (world.n_visitors)
			close_visitor(&world.visitors[below(world.n_visitors)]);
		break;
	default:
		if (!post->service)
			open_post(post);
		if (!link->channel)
			open_link(link);
	}
}

/* -- events, and a round ----------------------------------------------------------------------- */

/* At most so many events of the place. */
static unsigned pump(struct place *place, unsigned max)
{
	struct aph_event ev;
	unsigned n = 0;
	int r = 0;

	while (n < max && (r = aph_endpoint_next(place->ep, &ev, APH_NOW)) == 0) {
		model_event(place, &ev);
		n++;
	}
	CHECK(r == 0 || r == -EAGAIN);
	return n;
}

static void step(void)
{
	struct job *job = world.n_jobs ? &world.jobs[below(world.n_jobs)] : NULL;
	struct guest *guest = world.n_guests ? &world.guests[below(world.n_guests)] : NULL;
	uint32_t what = below(100);

	if (what < 35)
		(void)pump(&world.places[below(PLACES)], 1 + below(8));
	else if (what < 60)
		begin_job();
	else if (what < 63)
		change_something();
	/* The youngest are tried more often: of the oldest most are over. */
	for (unsigned i = 0; what >= 63 && i < 20; i++) {
		uint32_t back = 1 + below(60);

		job = back <= world.n_jobs ? &world.jobs[world.n_jobs - back] : NULL;
		guest = back <= world.n_guests ? &world.guests[world.n_guests - back] : NULL;
		if (job && job->end.call && i % 2) {
			do_job(job);
			return;
		}
		if (guest && guest->end.call && i % 2 == 0) {
			do_guest(guest);
			return;
		}
	}
}

/* Goes on with a call as far as events allow. */
static void finish_job(struct job *job)
{
	struct end *end = &job->end;

	if (end->mute) {
		free_job(job);
		return;
	}
	if (!end->ended && !end->sent_all && !end->blocked)
		send_piece(job, end, one_in(2));
	while (end->got_all == false && !end->starving && read_piece(job, end))
		;
	if (end->ended)
		free_job(job);
}

static void finish_guest(struct guest *guest)
{
	struct end *end = &guest->end;

	if (end->mute || end->ended) {
		free_guest(guest);
		return;
	}
	if (!model_meets(guest))
		return;
	while (!end->got_all && !end->starving && read_piece(guest->job, end))
		;
	if (guest->deed == NOTHING && !end->blocked && end->got_all)
		send_reply(guest, one_in(2));
	if (guest->deed == REPLIED && !guest->receipts)
		free_guest(guest);
}

static bool all_is_over(void)
{
	for (unsigned i = 0; i < world.n_jobs; i++)
		if (world.jobs[i].end.call)
			return false;
	for (unsigned i = 0; i < world.n_guests; i++)
		if (world.guests[i].end.call)
			return false;
	return true;
}

static void describe(const char *what, unsigned i, const struct end *end)
{
	if (end->call)
		fprintf(stderr, "%s %u: sent %llu%s, got %llu%s%s%s%s%s\n", what, i,
			(unsigned long long)end->sent, end->sent_all ? " (all)" : "",
			(unsigned long long)end->got, end->got_all ? " (all)" : "",
			end->blocked ? ", waits to write" : "",
			end->starving ? ", waits to read" : "", end->ended ? ", has ended" : "",
			end->mute ? ", is mute" : "");
}

/* Everybody is quiet, and something is not over. */
static void hangs(void)
{
	for (unsigned i = 0; i < world.n_jobs; i++)
		describe("job", i, &world.jobs[i].end);
	for (unsigned i = 0; i < world.n_guests; i++)
		describe("guest", i, &world.guests[i].end);
	check_failed(__FILE__, __LINE__, "a call has no end, or an event was lost", 0);
}

static void finish_all(void)
{
	static const struct timespec nap = { .tv_nsec = 50000 };
	uint64_t limit = aph_deadline_ms((uint64_t)check_hang_ms(5000));

	while (!all_is_over()) {
		unsigned n = 0;

		for (unsigned i = 0; i < world.n_jobs; i++)
			if (world.jobs[i].end.call)
				finish_job(&world.jobs[i]);
		for (unsigned i = 0; i < world.n_guests; i++)
			if (world.guests[i].end.call)
				finish_guest(&world.guests[i]);
		for (int i = 0; i < PLACES; i++)
			n += pump(&world.places[i], UINT32_MAX);
		if (n)
			continue;
		if (aph_time_ns() > limit)
			hangs();
		nanosleep(&nap, NULL);
	}
	model_check_all();
}

static void one_round(void)
{
	static struct fds before;

	fds_take(&before);
	world = (struct world){ .rng = world.rng, .remote = scheme_is_remote() };
	for (int i = 0; i < PLACES; i++) {
		CHECK_OK(aph_endpoint_new(&world.places[i].ep, NULL));
		if (world.remote)
			snprintf(world.addresses[i], sizeof(world.addresses[i]), "%s",
				 remote_address());
		else
			snprintf(world.addresses[i], sizeof(world.addresses[i]), "model%d", i);
	}
	for (int i = 0; i < POSTS_MAX; i++)
		open_post(&world.posts[i]);
	for (int i = 0; i < LINKS_MAX; i++)
		open_link(&world.links[i]);
	for (int i = 0; i < STEPS; i++)
		step();
	finish_all();
	for (int i = 0; i < PLACES; i++) {
		model_frees_place(&world.places[i]);
		(void)aph_endpoint_free(world.places[i].ep);
	}
	CHECK(fds_differ(&before) == 0);
	CHECK(dir_sockets() == 0);
}

static void as_the_model_says(void **state)
{
	uint64_t until = aph_deadline_ms(check_long() ? 60000 : 3000);
	unsigned n_rounds = 0, n_outcomes[APH_GONE + 1] = { 0 }, n_receipts[APH_GONE + 1] = { 0 };
	struct rng seeds = { .state = check_seed() };

	(void)state;
	do {
		uint64_t seed = n_rounds ? rng_next(&seeds) : seeds.state;

		world.rng = (struct rng){ .state = seed };
		one_round();
		for (int i = 0; i <= APH_GONE; i++) {
			n_outcomes[i] += world.n_outcomes[i];
			n_receipts[i] += world.n_receipts[i];
		}
		n_rounds++;
	} while (aph_time_ns() < until);
	printf("%u rounds; calls that ended:", n_rounds);
	for (int i = 0; i <= APH_GONE; i++)
		printf(" %s %u+%u", aph_outcome_name((enum aph_outcome)i), n_outcomes[i],
		       n_receipts[i]);
	printf("\n");
	for (int i = APH_ANSWERED; n_rounds >= 10 && i <= APH_GONE; i++)
		CHECK(n_outcomes[i] + n_receipts[i] > 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(as_the_model_says),
	};

	scheme_choose(argc, argv);
	return suite_run("model", tests, SUITE_LEN(tests), 60);
}
