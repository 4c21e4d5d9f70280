/* SPDX-License-Identifier: MIT */
/*
 * Between the files of the harness: harness.c (processes), measure.c (what a client does), cases.c.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdatomic.h>

#include "harness.h"

struct bench_result {
	uint64_t n_calls;
	double seconds;
	double cpu_seconds; /* of all ends and helpers together */
	double p50_us;
	double p99_us;
	double alone_p50_us; /* BENCH_IDLE: before the idle channels came */
	double told_us;	     /* BENCH_DEATH: from the kill until the call returned */
};

/* The page that all processes of a run share. */
struct bench_shared {
	_Atomic uint32_t n_ready;
	_Atomic uint32_t phase;	   /* BENCH_IDLE: 1 alone is measured, 2 the idle ones are there */
	_Atomic uint32_t received; /* BENCH_DEATH: the service holds the request */
	_Atomic uint64_t start_ticks;
	_Atomic uint64_t killed_ns;
	_Atomic uint64_t told_ns; /* BENCH_DEATH: when the service was told */
	double ticks_per_us;
	char error[160];
	struct bench_result results[BENCH_CLIENTS_MAX];
};

uint64_t bench_ticks(void);
uint64_t bench_now_ns(void);
void bench_sleep_us(unsigned us);

/* The body of a client process. Negative on failure, with the reason in the shared page. */
int bench_client(struct bench_job *job, unsigned index);

/* BENCH_COPY, in this process. */
int bench_copy(struct bench_job *job);

/* Prints what --list does; prints how to use the program and returns 2. */
int bench_list(const struct bench_who *whos, size_t n);
int bench_usage(const char *program);

/* Fills in who and which case the job is about; negative if there is no such thing. */
int bench_find(struct bench_job *job, const struct bench_who *whos, size_t n, const char *who,
	       const char *name);

#endif
