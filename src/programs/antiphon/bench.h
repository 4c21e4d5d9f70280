/* SPDX-License-Identifier: MIT */
/*
 * What the parts of `antiphon bench` share: bench_floor.c measures a socket, bench_call.c measures
 * calls, cmd_bench.c goes round by round and compares.
 */
#ifndef ANTIPHON_CLI_BENCH_H
#define ANTIPHON_CLI_BENCH_H

#include "histogram.h"

#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_NAME	"bench"
#define BENCH_PIECE_LEN 65536

/* Somebody wants the end: a case that is under way ends with -EINTR. */
extern volatile sig_atomic_t bench_interrupted;

struct bench {
	cpu_set_t cpus;	  /* that the program may use */
	uint64_t case_ns; /* how long each case is measured in each round */
	pid_t service_pid;
	pid_t floor_pid;
	int floor_fd;
	struct histogram histogram;
	char piece[BENCH_PIECE_LEN];
};

/*
 * Where the two ends of a case run: on two CPUs, each on its own, where there are two. Left to the
 * scheduler they would share one for some time and not for the rest, and the figures mean nothing.
 */
enum bench_place {
	BENCH_CLIENT,
	BENCH_SERVICE,
	BENCH_ANYWHERE,
};
void bench_place(const struct bench *bench, enum bench_place place);

/* Runs `body` in a child that dies with its parent. 0 and the pid, or -errno. */
int bench_fork(pid_t *pid, void (*body)(void *data), void *data);
void bench_end_child(pid_t *pid);

/* The other end of the floor: a process on a SOCK_SEQPACKET socket pair. 0 or -errno. */
int bench_floor_begin(struct bench *bench);
void bench_floor_end(struct bench *bench);
/* A ping-pong of 4 bytes each way: median and 99th percentile in ns. 0 or -errno. */
int bench_floor_latency(struct bench *bench, double *p50_ns, double *p99_ns);
/* Messages of 64 KiB one way: bytes a second. */
int bench_floor_stream(struct bench *bench, double *bytes_per_s);

/* The service, in a process of its own. Each call is read whole and answered with 4 bytes. */
int bench_service_begin(struct bench *bench);
void bench_service_end(struct bench *bench);
/* One call of 4 bytes after the other. */
int bench_call_latency(struct bench *bench, double *p50_ns, double *p99_ns);
/* Calls of 4 bytes, `depth` of them under way at once on one channel. */
int bench_call_depth(struct bench *bench, unsigned depth, double *calls_per_s);
/* Calls of 4 bytes, one at a time in each of `n_clients` processes. */
int bench_call_clients(struct bench *bench, unsigned n_clients, double *calls_per_s);
/* A request that goes on and on. */
int bench_call_stream(struct bench *bench, double *bytes_per_s);

#endif
