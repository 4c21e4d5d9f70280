/* SPDX-License-Identifier: MIT */
/*
 * What a client process does: connect, wait for the common start, warm up, and time its calls.
 *
 * One time stamp is taken per call, the end of one being the start of the next, so that the clock
 * costs the fast ones as little as it can. Samples go to memory that was touched beforehand.
 */
#include "measure.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#define PACE_NS	    UINT64_C(200000)
#define SAMPLES_MAX ((size_t)1 << 20)

/* One measurement in progress. */
struct timing {
	uint64_t begin; /* ticks: warm-up ends */
	uint64_t end;	/* ticks: the measurement ends */
	double cpu_seconds;
	uint32_t *samples;
	size_t n_samples;
	uint64_t n_calls;
};

uint64_t bench_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

uint64_t bench_ticks(void)
{
#if defined(__x86_64__)
	return __rdtsc();
#else
	return bench_now_ns();
#endif
}

void bench_sleep_us(unsigned us)
{
	struct timespec ts = { us / 1000000, (long)(us % 1000000) * 1000 };

	clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

static void sleep_until_ns(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

uint64_t bench_sum(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t lane[4] = { 0, 0, 0, 0 }, word[4];
	uint32_t small;

	if (len == sizeof small) {
		memcpy(&small, p, sizeof small);
		return small;
	}
	for (; len >= sizeof word; len -= sizeof word, p += sizeof word) {
		memcpy(word, p, sizeof word);
		for (int i = 0; i < 4; i++)
			lane[i] += word[i];
	}
	for (; len >= sizeof word[0]; len -= sizeof word[0], p += sizeof word[0]) {
		memcpy(word, p, sizeof word[0]);
		lane[0] += word[0];
	}
	return lane[0] + lane[1] + lane[2] + lane[3];
}

/* Hoare's selection: reorders until samples[k] is what sorting would put there. */
static void select_sample(uint32_t *samples, size_t n, size_t k)
{
	size_t low = 0, high = n - 1;

	while (low < high) {
		uint32_t pivot = samples[low + (high - low) / 2];
		size_t i = low, j = high;

		for (;;) {
			while (samples[i] < pivot)
				i++;
			while (samples[j] > pivot)
				j--;
			if (i >= j)
				break;
			uint32_t t = samples[i];
			samples[i++] = samples[j];
			samples[j--] = t;
		}
		/* Nothing up to j is above the pivot, nothing behind j below it, and j < high. */
		if (k <= j)
			high = j;
		else
			low = j + 1;
	}
}

static double percentile(uint32_t *samples, size_t n, unsigned percent, double ticks_per_us)
{
	size_t k;

	if (n == 0)
		return 0;
	k = n * percent / 100;
	if (k >= n)
		k = n - 1;
	select_sample(samples, n, k);
	return samples[k] / ticks_per_us;
}

/* Processor time of this process, the service and its helpers so far. */
static double cpu_seconds(const struct bench_job *job)
{
	struct timespec ts;
	double sum = 0;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	sum += (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
	for (unsigned i = 0; i < job->n_charged; i++) {
		clockid_t clock;

		if (clock_getcpuclockid(job->charged[i], &clock) != 0)
			continue;
		if (clock_gettime(clock, &ts) == 0)
			sum += (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
	}
	return sum;
}

static int fail(struct bench_job *job, const char *what, int r)
{
	snprintf(job->shared->error, sizeof job->shared->error, "%s: %s", what,
		 r < -1 && r > -4096 ? strerror(-r) : "failed");
	return -1;
}

static int check(struct bench_job *job, uint64_t sum, uint64_t expected)
{
	if (sum == expected)
		return 0;
	return fail(job, "a reply with the wrong content", -1);
}

/* The next request and the sum that its reply must have. */
struct request {
	uint8_t *data;
	size_t len;
	uint64_t rest; /* what the sum of the request is without its first word */
	uint64_t body; /* the sum of a large reply */
	uint32_t value;
};

static void request_init(struct request *request, const struct bench_job *job)
{
	request->data = job->body;
	request->len = job->c.req_len;
	memset(request->data, 0, 8);
	request->rest = request->len > 4 ? bench_sum(request->data, request->len) : 0;
	request->body = bench_sum(request->data, job->c.rep_len);
	request->value = 0;
}

static uint64_t request_next(struct request *request, const struct bench_job *job)
{
	request->value++;
	memcpy(request->data, &request->value, sizeof request->value);
	if (job->c.rep_len > 4)
		return request->body;
	return (uint32_t)(request->rest + request->value + 1);
}

/* Counts a call that took @ticks and ended @now. Returns false when the measurement is over. */
static bool record(struct timing *t, const struct bench_job *job, uint64_t now, uint64_t ticks)
{
	if (now < t->begin)
		return true;
	if (t->n_calls++ == 0) {
		/* The call that straddles the border is not counted, it starts the clocks. */
		t->begin = now;
		t->cpu_seconds = cpu_seconds(job);
		return true;
	}
	if (t->n_samples < SAMPLES_MAX)
		t->samples[t->n_samples++] = ticks < UINT32_MAX ? (uint32_t)ticks : UINT32_MAX;
	return now < t->end;
}

static void finish(struct timing *t, struct bench_job *job, struct bench_result *result)
{
	double ticks_per_us = job->shared->ticks_per_us;
	uint64_t now = bench_ticks();

	result->cpu_seconds = cpu_seconds(job) - t->cpu_seconds;
	result->n_calls = t->n_calls > 0 ? t->n_calls - 1 : 0;
	result->seconds = (double)(now - t->begin) / ticks_per_us / 1e6;
	result->p50_us = percentile(t->samples, t->n_samples, 50, ticks_per_us);
	result->p99_us = percentile(t->samples, t->n_samples, 99, ticks_per_us);
}

static int loop_calls(struct bench_job *job, void *self, struct timing *t)
{
	const struct bench_who *who = job->who;
	struct request request;
	uint64_t sum, before, now = bench_ticks();
	int r;

	request_init(&request, job);
	do {
		uint64_t expected = request_next(&request, job);

		before = now;
		r = who->call(self, request.data, request.len, &sum);
		if (r < 0)
			return fail(job, "call", r);
		if (check(job, sum, expected) < 0)
			return -1;
		now = bench_ticks();
	} while (record(t, job, now, now - before));
	return 0;
}

static int loop_paced(struct bench_job *job, void *self, struct timing *t)
{
	struct request request;
	uint64_t next = bench_now_ns(), sum, before, now;
	int r;

	request_init(&request, job);
	do {
		uint64_t expected = request_next(&request, job);

		next += PACE_NS;
		if (bench_now_ns() > next)
			next = bench_now_ns();
		sleep_until_ns(next);
		before = bench_ticks();
		r = job->who->call(self, request.data, request.len, &sum);
		if (r < 0)
			return fail(job, "call", r);
		if (check(job, sum, expected) < 0)
			return -1;
		now = bench_ticks();
	} while (record(t, job, now, now - before));
	return 0;
}

static int loop_depth(struct bench_job *job, void *self, struct timing *t)
{
	const struct bench_who *who = job->who;
	uint64_t sum, sent = 0, got = 0, before, now = bench_ticks();
	uint32_t value = 0;
	int r = 0;

	for (; r >= 0 && value < job->c.depth; value++, sent += value + UINT64_C(1))
		r = who->submit(self, value + 1);
	do {
		before = now;
		if (r >= 0)
			r = who->collect(self, &sum);
		if (r < 0)
			return fail(job, "call", r);
		got += sum;
		value++;
		sent += value + UINT64_C(1);
		r = who->submit(self, value);
		now = bench_ticks();
	} while (record(t, job, now, now - before));
	for (unsigned i = 0; i < job->c.depth; i++, got += sum) {
		r = r < 0 ? r : who->collect(self, &sum);
		if (r < 0)
			return fail(job, "call", r);
	}
	return check(job, got, sent);
}

static int loop_fds(struct bench_job *job, void *self, struct timing *t)
{
	uint64_t sum, before, now = bench_ticks();
	int fds[BENCH_FDS_MAX], r;

	for (unsigned i = 0; i < job->c.n_fds; i++) {
		fds[i] = memfd_create("bench", MFD_CLOEXEC);
		if (fds[i] < 0)
			return fail(job, "memfd_create", -errno);
	}
	do {
		before = now;
		r = job->who->call_fds(self, fds, job->c.n_fds, &sum);
		if (r < 0)
			return fail(job, "call", r);
		if (check(job, sum, job->c.n_fds + UINT64_C(1)) < 0)
			return -1;
		now = bench_ticks();
	} while (record(t, job, now, now - before));
	return 0;
}

/* Warm-up and measurement from @start (ticks) on. */
static int timed(struct bench_job *job, void *self, uint64_t start, struct bench_result *result)
{
	double run = job->run_ms * 1000.0 * job->shared->ticks_per_us;
	struct timing t = { 0 };
	int r;

	t.begin = start + (uint64_t)(run / 5);
	t.end = t.begin + (uint64_t)run;
	t.samples = mmap(NULL, SAMPLES_MAX * sizeof t.samples[0], PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (t.samples == MAP_FAILED)
		return fail(job, "memory for the samples", -errno);
	while (bench_ticks() < start)
		bench_sleep_us(200);
	if (job->c.kind == BENCH_PACED)
		r = loop_paced(job, self, &t);
	else if (job->c.kind == BENCH_DEPTH)
		r = loop_depth(job, self, &t);
	else if (job->c.kind == BENCH_FDS)
		r = loop_fds(job, self, &t);
	else
		r = loop_calls(job, self, &t);
	if (r >= 0)
		finish(&t, job, result);
	munmap(t.samples, SAMPLES_MAX * sizeof t.samples[0]);
	return r;
}

/* Blocks in a call that is never answered, and says when it was told. */
static int wait_for_death(struct bench_job *job, void *self, struct bench_result *result)
{
	uint32_t value = 1;
	uint64_t sum, now;
	int r;

	r = job->who->call(self, &value, sizeof value, &sum);
	now = bench_now_ns();
	if (r >= 0 || job->shared->killed_ns == 0)
		return fail(job, "the call ended before the service", r);
	result->told_us = (double)(now - job->shared->killed_ns) / 1e3;
	return 0;
}

int bench_client(struct bench_job *job, unsigned index)
{
	struct bench_result *result = &job->shared->results[index];
	void *self = NULL;
	int r;

	job->index = index;
	/* Without this the kernel may let a paced client sleep 50 us too long. */
	prctl(PR_SET_TIMERSLACK, 1UL);
	r = job->who->open(job, &self);
	if (r < 0)
		return fail(job, "open", r);
	bench_ready(job);
	if (job->c.kind == BENCH_DEATH)
		return wait_for_death(job, self, result);
	while (job->shared->start_ticks == 0)
		bench_sleep_us(200);
	r = timed(job, self, job->shared->start_ticks, result);
	if (r < 0 || job->c.kind != BENCH_IDLE)
		return r;
	result->alone_p50_us = result->p50_us;
	job->shared->phase = 1;
	while (job->shared->phase != 2)
		bench_sleep_us(1000);
	return timed(job, self, bench_ticks(), result);
}

int bench_copy(struct bench_job *job)
{
	size_t len = job->c.req_len > job->c.rep_len ? job->c.req_len : job->c.rep_len;
	double run = job->run_ms * 1000.0 * job->shared->ticks_per_us;
	struct timing t = { 0 };
	uint64_t before, now = bench_ticks();
	uint8_t *to = malloc(len);

	t.samples = calloc(SAMPLES_MAX, sizeof t.samples[0]);
	if (to == NULL || t.samples == NULL) {
		free(to);
		free(t.samples);
		return fail(job, "memory", -ENOMEM);
	}
	t.begin = now + (uint64_t)(run / 5);
	t.end = t.begin + (uint64_t)run;
	do {
		before = now;
		memcpy(to, job->body, len);
		/* So that the copy cannot be left out. */
		__asm__ volatile("" : : "r"(to) : "memory");
		now = bench_ticks();
	} while (record(&t, job, now, now - before));
	finish(&t, job, &job->shared->results[0]);
	free(to);
	free(t.samples);
	return 0;
}
