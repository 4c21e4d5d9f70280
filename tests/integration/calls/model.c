/* SPDX-License-Identifier: MIT */
#include "model.h"

#include "pattern.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct world world;

static void say_end(const char *who, const struct end *end)
{
	fprintf(stderr, "  %s: sent %llu%s, got %llu%s%s%s%s", who, (unsigned long long)end->sent,
		end->sent_all ? " (all)" : "", (unsigned long long)end->got,
		end->got_all ? " (all)" : "", end->call ? "" : ", let go of",
		end->mute ? ", closed" : "", end->ended ? ", told " : "");
	if (end->ended)
		fprintf(stderr, "%s (%s) %d", aph_outcome_name(end->result.outcome),
			aph_reason_name(end->result.reason), (int)end->result.code);
	fprintf(stderr, "\n");
}

static void say_both(const struct job *job, const struct guest *guest)
{
	static const char *const deeds[] = { "nothing", "replied", "aborted", "refused",
					     "dropped it" };

	if (job)
		say_end(job->given_up ? "client, that gave up" : "client", &job->end);
	if (guest)
		say_end("service", &guest->end);
	if (guest)
		fprintf(stderr, "  it did: %s, code %d\n", deeds[guest->deed], (int)guest->code);
}

#define CHECK_CALL(condition, job, guest)     \
	do {                                  \
		if (!(condition))             \
			say_both(job, guest); \
		CHECK(condition);             \
	} while (0)

/* -- bodies ------------------------------------------------------------------------------------ */

uint32_t model_id(const struct job *job)
{
	return (uint32_t)(job - world.jobs);
}

static uint32_t seed_of(const struct job *job, bool request)
{
	return model_id(job) * 2 + request;
}

void model_fill(const struct job *job, bool request, void *buf, size_t len, uint64_t at)
{
	uint32_t id = model_id(job);

	pattern_fill(buf, len, at, seed_of(job, request));
	if (request && at < ID_LEN)
		memcpy(buf, (char *)&id + at, len < ID_LEN - at ? len : ID_LEN - at);
}

void model_check(const struct job *job, bool request, const void *buf, size_t len, uint64_t at)
{
	static uint8_t right[1 << 17];

	CHECK(len <= sizeof(right));
	model_fill(job, request, right, len, at);
	CHECK(memcmp(buf, right, len) == 0);
}

static off_t size_of_fd(const struct job *job, bool request, uint32_t n)
{
	return (off_t)seed_of(job, request) * 4096 + n;
}

int model_fd(const struct job *job, bool request, uint32_t n)
{
	int fd = memfd_create("model", MFD_CLOEXEC);

	CHECK(fd >= 0 && ftruncate(fd, size_of_fd(job, request, n)) == 0);
	return fd;
}

void model_check_fd(const struct job *job, bool request, uint32_t n, int fd)
{
	struct stat st;

	CHECK(fstat(fd, &st) == 0 && st.st_size == size_of_fd(job, request, n));
	close(fd);
}

void model_got_all(struct job *job, bool request)
{
	const struct guest *guest = job->guest;
	struct end *to = request ? &job->guest->end : &job->end;
	const struct end *from = request ? &job->end : &guest->end;

	CHECK_CALL(from->sent_all && to->got == from->sent, job, guest);
	CHECK_CALL(to->fds_got == from->fds_sent, job, guest);
	to->got_all = true;
}

/* -- who is who -------------------------------------------------------------------------------- */

struct job *model_job(const struct aph_call *call)
{
	for (unsigned i = 0; i < world.n_jobs; i++)
		if (world.jobs[i].end.call == call)
			return &world.jobs[i];
	return NULL;
}

struct guest *model_guest(const struct aph_call *call)
{
	for (unsigned i = 0; i < world.n_guests; i++)
		if (world.guests[i].end.call == call)
			return &world.guests[i];
	return NULL;
}

static struct post *post_of(const struct aph_service *service)
{
	for (unsigned i = 0; i < POSTS_MAX; i++)
		if (world.posts[i].service == service)
			return &world.posts[i];
	return NULL;
}

static struct link *link_of(const struct aph_channel *channel)
{
	for (unsigned i = 0; i < LINKS_MAX; i++)
		if (world.links[i].channel == channel)
			return &world.links[i];
	return NULL;
}

bool model_meets(struct guest *guest)
{
	struct end *end = &guest->end;
	ssize_t r;
	uint32_t id;

	if (guest->job)
		return true;
	if (end->starving)
		return false;
	r = aph_call_read(end->call, &guest->id[end->got], ID_LEN - end->got);
	end->got += r > 0 ? (uint64_t)r : 0;
	end->starving = r == -EAGAIN;
	if (end->got < ID_LEN)
		return false;
	memcpy(&id, guest->id, sizeof(id));
	CHECK(id < world.n_jobs);
	guest->job = &world.jobs[id];
	/* It runs once, and not if anybody was told that it will not. */
	CHECK(!guest->job->guest);
	CHECK(!guest->job->withdrawn);
	CHECK(!guest->job->end.ended || guest->job->end.result.outcome != APH_REFUSED);
	guest->job->guest = guest;
	return true;
}

/* -- ends -------------------------------------------------------------------------------------- */

void model_frees_job(struct job *job)
{
	job->given_up |= !job->end.ended;
	job->end.call = NULL;
}

void model_frees_guest(struct guest *guest)
{
	guest->end.call = NULL;
}

/* Somebody has brought that about; over rx a refusal may come that proves nothing. */
static bool may_be_lost(const struct job *job)
{
	const struct guest *guest = job->guest;

	switch (job->end.result.reason) {
	case APH_REASON_CLOSED:
	case APH_REASON_NO_SERVICE:
		return true;
	case APH_REASON_PROTOCOL:
	case APH_REASON_RESOURCES:
		return false;
	case APH_REASON_BUSY:
		return world.remote;
	default:
		return job->given_up || (guest && guest->deed == DROPPED) ||
		       (guest && guest->deed == REFUSED && world.remote);
	}
}

/*
 * Over rx a word about an earlier call, or from an earlier service, may end one without an answer.
 */
static bool may_be_gone(const struct job *job)
{
	return job->given_up || job->end.mute || !job->end.call ||
	       (world.remote && !(job->end.ended && job->end.result.outcome == APH_ANSWERED));
}

static void check_client_end(const struct job *job)
{
	const struct guest *guest = job->guest;
	const struct aph_result *result = &job->end.result;

	switch (result->outcome) {
	case APH_ANSWERED:
		CHECK_CALL(guest && guest->deed == REPLIED && guest->end.sent_all, job, guest);
		break;
	case APH_REFUSED:
		CHECK_CALL(!guest || (guest->deed == REFUSED &&
				      (int32_t)result->reason == guest->code),
			   job, guest);
		break;
	case APH_ABORTED:
		CHECK_CALL(guest && guest->deed == ABORTED && result->code == guest->code, job,
			   guest);
		break;
	case APH_LOST:
		CHECK_CALL(job->end.sent > 0 && !job->withdrawn, job, guest);
		CHECK_CALL(may_be_lost(job), job, guest);
		break;
	default:
		check_failed(__FILE__, __LINE__, "an outcome that no client gets", result->outcome);
	}
}

static void check_service_end(const struct guest *guest)
{
	const struct job *job = guest->job;
	const struct aph_result *result = &guest->end.result;

	switch (result->outcome) {
	case APH_DISPOSED:
		CHECK_CALL(guest->receipts && guest->deed == REPLIED, job, guest);
		CHECK_CALL(!job->end.call || job->end.mute || job->end.got == guest->end.sent, job,
			   guest);
		break;
	case APH_GONE:
		CHECK_CALL(guest->receipts || guest->deed == NOTHING, job, guest);
		CHECK_CALL(!job || may_be_gone(job), job, guest);
		break;
	case APH_ABORTED:
		CHECK_CALL(guest->deed == ABORTED && result->code == guest->code, job, guest);
		break;
	case APH_REFUSED:
		CHECK_CALL(guest->deed == REFUSED, job, guest);
		break;
	default:
		check_failed(__FILE__, __LINE__, "an outcome that no service gets",
			     result->outcome);
	}
}

void model_check_all(void)
{
	for (unsigned i = 0; i < world.n_jobs; i++) {
		CHECK(!world.jobs[i].end.call);
		if (world.jobs[i].end.ended)
			check_client_end(&world.jobs[i]);
	}
	for (unsigned i = 0; i < world.n_guests; i++)
		CHECK(!world.guests[i].end.call);
}

/* -- what is closed ---------------------------------------------------------------------------- */

void model_closes_post(struct post *post)
{
	for (unsigned i = 0; i < world.n_guests; i++)
		if (world.guests[i].end.call && world.guests[i].post == post)
			world.guests[i].end.mute = true;
	post->service = NULL;
}

void model_closes_link(struct link *link)
{
	for (unsigned i = 0; i < world.n_jobs; i++)
		if (world.jobs[i].end.call && world.jobs[i].link == link) {
			world.jobs[i].given_up |= !world.jobs[i].end.ended;
			world.jobs[i].end.mute = true;
		}
	*link = (struct link){ 0 };
}

void model_closes_visitor(struct visitor *visitor)
{
	for (unsigned i = 0; i < world.n_guests; i++)
		if (world.guests[i].end.call &&
		    aph_call_channel(world.guests[i].end.call) == visitor->channel)
			world.guests[i].end.mute = true;
	*visitor = world.visitors[--world.n_visitors];
}

void model_frees_place(const struct place *place)
{
	for (unsigned i = 0; i < world.n_jobs; i++)
		if (world.jobs[i].end.call && world.jobs[i].end.place == place)
			model_frees_job(&world.jobs[i]);
	for (unsigned i = 0; i < world.n_guests; i++)
		if (world.guests[i].end.call && world.guests[i].end.place == place) {
			world.guests[i].deed = world.guests[i].deed ? world.guests[i].deed
								    : DROPPED;
			model_frees_guest(&world.guests[i]);
		}
	for (unsigned i = 0; i < POSTS_MAX; i++)
		if (world.posts[i].service && world.posts[i].place == place)
			world.posts[i].service = NULL;
	for (unsigned i = 0; i < LINKS_MAX; i++)
		if (world.links[i].channel && world.links[i].place == place)
			world.links[i] = (struct link){ 0 };
	for (unsigned i = world.n_visitors; i-- > 0;)
		if (world.visitors[i].place == place)
			world.visitors[i] = world.visitors[--world.n_visitors];
}

/* -- events ------------------------------------------------------------------------------------ */

static void take_request(struct place *place, const struct aph_event *ev)
{
	struct post *post = post_of(ev->service);
	struct guest *guest = &world.guests[world.n_guests];

	CHECK(post && post->place == place);
	CHECK(!model_guest(ev->call) && !model_job(ev->call));
	CHECK(world.n_guests < GUESTS_MAX);
	*guest = (struct guest){
		.end = { .call = ev->call, .place = place },
		.post = post,
		.receipts = post->receipts,
	};
	world.n_guests++;
	(void)model_meets(guest);
}

/* Of a call that is known to this place, and not over there. */
static struct end *end_of(const struct place *place, const struct aph_event *ev)
{
	struct job *job = model_job(ev->call);
	struct guest *guest = model_guest(ev->call);
	struct end *end = job ? &job->end : guest ? &guest->end : NULL;

	CHECK(end && end->place == place && !end->ended && !end->mute);
	CHECK(ev->channel == aph_call_channel(ev->call));
	return end;
}

static void take_end(struct place *place, const struct aph_event *ev)
{
	struct end *end = end_of(place, ev);
	struct job *job = model_job(ev->call);
	struct guest *guest = model_guest(ev->call);

	end->ended = true;
	end->starving = end->blocked = false;
	end->result = ev->result;
	if (job) {
		world.n_outcomes[ev->result.outcome]++;
		check_client_end(job);
	} else {
		world.n_receipts[ev->result.outcome]++;
		check_service_end(guest);
	}
}

static void take_signal(struct place *place, const struct aph_event *ev)
{
	struct guest *guest = model_guest(ev->call);

	(void)end_of(place, ev);
	CHECK(guest && ev->result.code > guest->signalled);
	if (model_meets(guest))
		CHECK(ev->result.code <= guest->job->signalled);
	guest->signalled = ev->result.code;
}

static void take_connect(struct place *place, const struct aph_event *ev)
{
	const struct post *post = post_of(ev->service);

	CHECK(post && post->place == place && post->events);
	CHECK(world.n_visitors < sizeof(world.visitors) / sizeof(world.visitors[0]));
	world.visitors[world.n_visitors++] =
		(struct visitor){ .channel = ev->channel, .place = place };
}

static void take_disconnect(struct place *place, const struct aph_event *ev)
{
	for (unsigned i = 0; i < world.n_visitors; i++) {
		struct visitor *visitor = &world.visitors[i];

		if (visitor->channel != ev->channel)
			continue;
		CHECK(visitor->place == place && !visitor->left);
		visitor->left = true;
		return;
	}
	check_failed(__FILE__, __LINE__, "a channel that was never announced", 0);
}

void model_event(struct place *place, const struct aph_event *ev)
{
	struct link *link = ev->channel ? link_of(ev->channel) : NULL;

	switch (ev->type) {
	case APH_EVENT_REQUEST:
		take_request(place, ev);
		break;
	case APH_EVENT_REPLY:
		CHECK(model_job(ev->call));
		end_of(place, ev)->starving = false;
		break;
	case APH_EVENT_READABLE:
		end_of(place, ev)->starving = false;
		break;
	case APH_EVENT_WRITABLE:
		end_of(place, ev)->blocked = false;
		break;
	case APH_EVENT_END:
		take_end(place, ev);
		break;
	case APH_EVENT_SIGNAL:
		take_signal(place, ev);
		break;
	case APH_EVENT_CONNECT:
		take_connect(place, ev);
		break;
	case APH_EVENT_DISCONNECT:
		take_disconnect(place, ev);
		break;
	case APH_EVENT_OPEN:
		CHECK(link && link->place == place && !link->open && !link->closed);
		link->open = true;
		break;
	case APH_EVENT_CLOSED:
		CHECK(link && link->place == place && !link->closed);
		CHECK(!aph_channel_is_open(link->channel));
		link->closed = true;
		break;
	default:
		check_failed(__FILE__, __LINE__, "an event that nobody asked for", ev->type);
	}
}
