/* SPDX-License-Identifier: MIT */
/*
 * A client of the kill storm: calls of all sizes, several at once, some with descriptors, deadlines
 * or second thoughts. Whatever happens to its service it goes on with the next one, and checks that
 * each of its calls ends exactly once, and how.
 */
#include "storm.h"

#include "check.h"
#include "pattern.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define JOBS  12
#define PIECE 20000

struct job {
	struct aph_call *call;
	bool ended;
	struct storm_head head, answer;
	bool head_sent, all_sent;
	uint32_t sent, got;
	size_t have_answer;
	int fds[STORM_FDS_MAX];
	uint32_t n_fds;
};

static struct storm_log *the_log;
static struct rng rng;
static struct aph_endpoint *ep;
static struct aph_channel *channel;
static struct job jobs[JOBS];
static int files[STORM_FDS_MAX];

static void note(const struct job *job, unsigned end)
{
	the_log->calls[job->head.id].end = (uint8_t)end;
}

static void end_job(struct job *job)
{
	storm_close_fds(job->fds, &job->n_fds);
	job->call = aph_call_free(job->call);
}

/* -- one call ---------------------------------------------------------------------------------- */

static uint32_t some_length(void)
{
	switch (rng_below(&rng, 16)) {
	case 0:
		return rng_below(&rng, 300000);
	case 1:
	case 2:
	case 3:
		return rng_below(&rng, 9000);
	default:
		return rng_below(&rng, 12);
	}
}

static void push(struct job *job)
{
	static unsigned char buf[PIECE];
	uint32_t left;
	size_t len;
	ssize_t n = 0;

	if (!job->head_sent) {
		n = aph_call_send_fds(job->call, &job->head, sizeof(job->head), files,
				      job->head.n_fds, job->head.request_len ? APH_MORE : 0);
		CHECK(n == (ssize_t)sizeof(job->head) || n == -EAGAIN || n == -EPIPE ||
		      n == -ENOTCONN);
		if (n < 0)
			return;
		job->head_sent = true;
	}
	while ((left = job->head.request_len - job->sent) > 0) {
		len = left < sizeof(buf) ? left : sizeof(buf);
		pattern_fill(buf, len, job->sent, (uint32_t)job->head.id);
		n = aph_call_send(job->call, buf, len, len < left ? APH_MORE : 0);
		CHECK(n >= 0 || n == -EAGAIN || n == -EPIPE || n == -ENOTCONN);
		if (n < 0)
			return;
		job->sent += (uint32_t)n;
	}
}

static void pull(struct job *job)
{
	static unsigned char buf[PIECE];
	ssize_t n;

	while (job->have_answer < sizeof(job->answer)) {
		n = aph_call_read(job->call, (char *)&job->answer + job->have_answer,
				  sizeof(job->answer) - job->have_answer);
		CHECK(n >= 0 || n == -EAGAIN || n == -EPIPE);
		if (n <= 0)
			return;
		job->have_answer += (size_t)n;
	}
	CHECK(memcmp(&job->answer, &job->head, sizeof(job->head)) == 0);
	n = aph_call_take_fds(job->call, job->fds + job->n_fds, STORM_FDS_MAX - job->n_fds);
	CHECK(n >= 0);
	job->n_fds += (uint32_t)n;
	CHECK(job->n_fds == job->head.n_fds);
	while ((n = aph_call_read(job->call, buf, sizeof(buf))) > 0) {
		CHECK(pattern_check(buf, (size_t)n, job->got, (uint32_t)job->head.id + 1) ==
		      (size_t)n);
		job->got += (uint32_t)n;
	}
	CHECK(n == 0 || n == -EAGAIN || n == -EPIPE);
}

static void ended(struct job *job, const struct aph_result *result)
{
	const struct storm_call *logged = &the_log->calls[job->head.id];

	job->ended = true;
	note(job, STORM_ENDED + 16u * result->outcome + result->reason);
	switch (result->outcome) {
	case APH_ANSWERED:
		CHECK(logged->executed == 1);
		CHECK(job->have_answer == sizeof(job->answer));
		CHECK(job->got == job->head.reply_len);
		storm_check_fds(job->fds, job->n_fds);
		break;
	case APH_REFUSED:
		CHECK(logged->executed == 0);
		CHECK(result->reason == APH_REASON_CLOSED ||
		      result->reason == APH_REASON_DEADLINE ||
		      result->reason == APH_REASON_CANCELLED);
		break;
	case APH_LOST:
		CHECK(logged->executed <= 1);
		CHECK(result->reason == APH_REASON_CLOSED ||
		      result->reason == APH_REASON_DEADLINE ||
		      result->reason == APH_REASON_CANCELLED);
		break;
	default:
		check_failed(__FILE__, __LINE__, "an outcome that this service has not", 0);
	}
	end_job(job);
}

static void begin(struct job *job)
{
	uint64_t deadline = APH_FOREVER;

	memset(job, 0, sizeof(*job));
	job->head.id = atomic_fetch_add(&the_log->next_id, 1);
	CHECK(job->head.id < STORM_CALLS_MAX);
	job->head.request_len = some_length();
	job->head.reply_len = some_length();
	if (rng_below(&rng, 8) == 0)
		job->head.n_fds = rng_below(&rng, STORM_FDS_MAX + 1);
	if (rng_below(&rng, 10) == 0)
		deadline = aph_time_ns() + rng_below(&rng, 5000000);
	if (aph_call_new(&job->call, channel, deadline, job) < 0) {
		job->call = NULL;
		return;
	}
	note(job, STORM_BEGUN);
	push(job);
}

/* -- events ------------------------------------------------------------------------------------ */

/* True when the channel has closed. */
static bool handle(const struct aph_event *ev)
{
	struct job *job = ev->call ? aph_call_data(ev->call) : NULL;

	CHECK(ev->channel == channel);
	if (ev->type == APH_EVENT_CLOSED) {
		CHECK(ev->result.reason == APH_REASON_CLOSED);
		return true;
	}
	CHECK(job && job->call == ev->call && !job->ended);
	if (ev->type == APH_EVENT_WRITABLE) {
		push(job);
		return false;
	}
	pull(job);
	if (ev->type == APH_EVENT_END)
		ended(job, &ev->result);
	else
		CHECK(ev->type == APH_EVENT_REPLY || ev->type == APH_EVENT_READABLE);
	return false;
}

/* Takes what there is, or waits a little for one event. */
static bool take_events(bool wait)
{
	bool closed = false;
	struct aph_event ev;
	int r;

	r = aph_endpoint_next(ep, &ev, wait ? aph_deadline_ms(3) : APH_NOW);
	while (r == 0) {
		closed |= handle(&ev);
		r = aph_endpoint_next(ep, &ev, APH_NOW);
	}
	CHECK(r == -EAGAIN || r == -ETIMEDOUT || r == -EINTR);
	return closed;
}

/*
 * Without APH_CHANNEL_WAIT: it watches the directory, and a process that is killed with a watch
 * open takes the kernel long to bury on a busy machine.
 */
static bool open_channel(void)
{
	const struct timespec nap = { .tv_nsec = 300000 };
	int r;

	/* A service may die while it answers: then the next one is tried. */
	while (!the_log->stop) {
		r = aph_channel_open(&channel, ep, STORM_NAME, NULL);
		if (r == 0) {
			the_log->opened++;
			return true;
		}
		CHECK(r == -ETIMEDOUT || r == -ENOENT);
		nanosleep(&nap, NULL);
	}
	return false;
}

/* After CLOSED no call may be left without its END. */
static void drop_channel(void)
{
	while (take_events(false))
		;
	for (size_t i = 0; i < JOBS; i++)
		CHECK(!jobs[i].call);
	channel = aph_channel_close(channel);
	the_log->closed++;
}

static void change_mind(struct job *job)
{
	switch (rng_below(&rng, 60)) {
	case 0:
		(void)aph_call_cancel(job->call);
		break;
	case 1:
		note(job, STORM_FREED);
		end_job(job);
		break;
	default:
		break;
	}
}

int storm_client(int ctl, void *arg)
{
	const struct storm_process *process = arg;

	(void)ctl;
	the_log = process->log;
	rng.state = process->seed;
	for (int k = 0; k < STORM_FDS_MAX; k++) {
		files[k] = (int)CHECK_OK(memfd_create("storm", MFD_CLOEXEC));
		CHECK_OK(ftruncate(files[k], k + 1));
	}
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	while (!the_log->stop && open_channel()) {
		bool closed = false;

		while (!the_log->stop && !closed) {
			for (size_t i = 0; i < JOBS; i++) {
				if (!jobs[i].call)
					begin(&jobs[i]);
				else
					change_mind(&jobs[i]);
			}
			closed = take_events(true);
		}
		if (closed)
			drop_channel();
	}
	for (size_t i = 0; i < JOBS; i++) {
		if (!jobs[i].call)
			continue;
		note(&jobs[i], STORM_FREED);
		end_job(&jobs[i]);
	}
	aph_channel_close(channel);
	aph_endpoint_free(ep);
	for (int k = 0; k < STORM_FDS_MAX; k++)
		close(files[k]);
	return 0;
}
