/* SPDX-License-Identifier: MIT */
/*
 * The service of the kill storm. It runs a request when the whole of it is there, and says so in
 * the log before it answers; every byte and every descriptor is checked.
 */
#include "storm.h"

#include "check.h"
#include "child.h"
#include "pattern.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 20000

struct job {
	struct job *prev, *next;
	struct aph_call *call;
	struct storm_head head;
	size_t have_head;
	uint32_t got, sent; /* of the bodies after the heads */
	bool ran, begun;
	int fds[STORM_FDS_MAX];
	uint32_t n_fds;
};

static struct storm_log *the_log;
static struct aph_endpoint *ep;
static struct job *jobs;
static _Atomic bool stop;

static void on_term(int signal)
{
	(void)signal;
	stop = true;
	aph_endpoint_wake(ep);
}

void storm_check_fds(const int *fds, uint32_t n)
{
	struct stat st;

	for (uint32_t k = 0; k < n; k++) {
		CHECK_OK(fstat(fds[k], &st));
		CHECK(st.st_size == k + 1);
	}
}

void storm_close_fds(int *fds, uint32_t *n)
{
	while (*n > 0)
		close(fds[--*n]);
}

static void end_job(struct job *job)
{
	storm_close_fds(job->fds, &job->n_fds);
	if (job->prev)
		job->prev->next = job->next;
	else
		jobs = job->next;
	if (job->next)
		job->next->prev = job->prev;
	free(job);
}

/* Everything is there: this is the execution that the contract speaks of. */
static void execute(struct job *job)
{
	ssize_t n;

	CHECK(job->head.id < STORM_CALLS_MAX);
	CHECK(atomic_fetch_add(&the_log->calls[job->head.id].executed, 1) == 0);
	n = (ssize_t)CHECK_OK(aph_call_take_fds(job->call, job->fds, STORM_FDS_MAX));
	job->n_fds = (uint32_t)n;
	CHECK(job->n_fds == job->head.n_fds);
	storm_check_fds(job->fds, job->n_fds);
	job->ran = true;
}

/* True when the whole request has come. */
static bool read_request(struct job *job)
{
	static unsigned char buf[PIECE];
	ssize_t n;

	while (job->have_head < sizeof(job->head)) {
		n = aph_call_read(job->call, (char *)&job->head + job->have_head,
				  sizeof(job->head) - job->have_head);
		CHECK(n > 0 || n == -EAGAIN || n == -EPIPE);
		if (n < 0)
			return false;
		job->have_head += (size_t)n;
	}
	while ((n = aph_call_read(job->call, buf, sizeof(buf))) > 0) {
		CHECK(pattern_check(buf, (size_t)n, job->got, (uint32_t)job->head.id) == (size_t)n);
		job->got += (uint32_t)n;
	}
	CHECK(n == 0 || n == -EAGAIN || n == -EPIPE);
	if (n == 0)
		CHECK(job->got == job->head.request_len);
	return n == 0;
}

/* True when all of it was taken, or nobody wants it any more: the job is over then. */
static bool send_reply(struct job *job)
{
	static unsigned char buf[PIECE];
	uint32_t left;
	size_t len;
	ssize_t n;

	if (!job->begun) {
		n = aph_call_send_fds(job->call, &job->head, sizeof(job->head), job->fds,
				      job->n_fds, APH_MORE);
		CHECK(n == (ssize_t)sizeof(job->head) || n == -EAGAIN || n == -EPIPE ||
		      n == -ENOTCONN);
		if (n < 0)
			return false;
		storm_close_fds(job->fds, &job->n_fds);
		job->begun = true;
	}
	while ((left = job->head.reply_len - job->sent) > 0) {
		len = left < sizeof(buf) ? left : sizeof(buf);
		pattern_fill(buf, len, job->sent, (uint32_t)job->head.id + 1);
		/* The last piece sometimes leaves with the reply itself. */
		if (len == left && job->head.id % 2) {
			n = aph_call_reply(job->call, buf, len);
			CHECK(n == 0 || n == -ECANCELED);
			return true;
		}
		n = aph_call_send(job->call, buf, len, APH_MORE);
		CHECK(n >= 0 || n == -EAGAIN || n == -EPIPE || n == -ENOTCONN);
		if (n < 0)
			return false;
		job->sent += (uint32_t)n;
		if ((size_t)n < len)
			return false;
	}
	n = aph_call_reply(job->call, NULL, 0);
	CHECK(n == 0 || n == -ECANCELED);
	return true;
}

static void step(struct job *job)
{
	if (!job->ran && read_request(job))
		execute(job);
	if (job->ran && send_reply(job))
		end_job(job);
}

static void handle(const struct aph_event *ev)
{
	struct job *job = ev->call ? aph_call_data(ev->call) : NULL;

	switch (ev->type) {
	case APH_EVENT_REQUEST:
		CHECK(!job);
		job = calloc(1, sizeof(*job));
		CHECK(job);
		job->call = ev->call;
		job->next = jobs;
		if (jobs)
			jobs->prev = job;
		jobs = job;
		aph_call_set_data(ev->call, job);
		step(job);
		break;
	case APH_EVENT_READABLE:
	case APH_EVENT_WRITABLE:
		step(job);
		break;
	default:
		CHECK(ev->type == APH_EVENT_END && ev->result.outcome == APH_GONE);
		aph_call_free(ev->call);
		end_job(job);
	}
}

int storm_service(int ctl, void *arg)
{
	const struct storm_process *process = arg;
	struct sigaction act = { .sa_handler = on_term };
	struct aph_service *service;
	struct aph_event ev;
	int r;

	the_log = process->log;
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK_OK(aph_service_open(&service, ep, STORM_NAME, NULL));
	sigaction(SIGTERM, &act, NULL);
	child_say(ctl, 'r');
	while (!stop) {
		r = aph_endpoint_next(ep, &ev, APH_FOREVER);
		if (r == -EINTR || r == -ECANCELED)
			continue;
		CHECK_OK(r);
		handle(&ev);
	}
	signal(SIGTERM, SIG_IGN);
	aph_service_close(service);
	while (jobs) {
		aph_call_free(jobs->call);
		end_job(jobs);
	}
	aph_endpoint_free(ep);
	return 0;
}
