/* SPDX-License-Identifier: MIT */
/*
 * The harness under every benchmark program.
 *
 * A program describes what it measures (a floor, a peer or antiphon) as a struct bench_who and
 * hands it to bench_main(). One run of the program measures one case: it forks one service and as
 * many clients as the case wants, pins them, lets them warm up, times them, counts the processor
 * time of both ends, and prints one JSON object. bench/run drives the programs and computes the
 * ratios.
 *
 * Bodies are checked, so that nobody wins by not reading: both ends add up what they received with
 * bench_sum(), and the harness compares the sums.
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BENCH_FDS_MAX	   16
#define BENCH_CLIENTS_MAX  16
#define BENCH_CHILDREN_MAX 64
#define BENCH_BODY_MAX	   ((size_t)1 << 20)

enum bench_kind {
	BENCH_CALLS, /* one call after the other, as fast as it goes */
	BENCH_PACED, /* one call every 200 us */
	BENCH_DEPTH, /* several calls in flight on one channel */
	BENCH_FDS,   /* each request carries descriptors */
	BENCH_IDLE,  /* one active channel beside many idle ones */
	BENCH_DEATH, /* the service is killed under a waiting client */
	BENCH_COPY,  /* no processes: the cost of memcpy */
};

enum bench_place {
	BENCH_FREE,
	BENCH_ONE_CORE,
	BENCH_TWO_CORES
};

struct bench_case {
	const char *name;
	enum bench_kind kind;
	enum bench_place place;
	unsigned n_clients;
	unsigned depth;
	unsigned n_fds;
	unsigned n_idle;
	bool all_busy;	  /* a processor hog on every core */
	bool client_dies; /* BENCH_DEATH: it is the client that is killed */
	bool keeps;	  /* descriptors are stored with the keeper, or retrieved */
	bool exchange;	  /* libafdt's: connect, request, answer with a descriptor, close */
	size_t req_len;
	size_t rep_len;
};

struct bench_shared;
struct bench_who;

/* All that one run is about. Set up before the forks; children change only what they own. */
struct bench_job {
	struct bench_case c;
	const struct bench_who *who;
	bool hog; /* a processor hog beside the service */
	unsigned run_ms;
	char dir[64];	  /* private directory for sockets, removed afterwards */
	char address[96]; /* dir "/s": for who needs just one path */
	uint8_t *body;	  /* BENCH_BODY_MAX bytes, what large bodies consist of */
	int cpus[2];	  /* what place == BENCH_TWO_CORES pins service and client to */
	unsigned index;	  /* which client this process is */
	struct bench_shared *shared;
	pid_t children[BENCH_CHILDREN_MAX];
	unsigned n_children;
	/*
	 * Processes whose time is charged to the calls besides the client: the service, a broker.
	 */
	pid_t charged[4];
	unsigned n_charged;
};

/*
 * What a program measures. serve() listens, calls bench_ready() and serves until it is killed;
 * open() connects. Both return a negative number on failure. call() sends a request, waits for the
 * reply and stores the reply's bench_sum(). A NULL member means the cases that need it are n/a.
 */
struct bench_who {
	const char *name;
	bool no_one_core;  /* meaningless with both ends on one core */
	bool no_clients;   /* serves one client only */
	bool no_body;	   /* no bodies larger than a word */
	bool idle;	   /* can hold thousands of idle channels */
	bool death;	   /* tells a blocked client that the service died */
	bool client_death; /* tells the service that the client died: it calls bench_told() */
	bool keeps;	   /* a call is one to the keeper of descriptors; the same */
	bool exchange;	   /* a call is libafdt's exchange; such cases are for these alone */
	int (*prepare)(struct bench_job *job); /* optional; before any fork */
	int (*serve)(struct bench_job *job);
	int (*open)(struct bench_job *job, void **self);
	int (*call)(void *self, const void *req, size_t len, uint64_t *sum);
	int (*call_fds)(void *self, const int *fds, unsigned n_fds, uint64_t *sum);
	int (*submit)(void *self, uint32_t value);
	int (*collect)(void *self, uint64_t *sum); /* one reply of those outstanding */
};

int bench_main(const struct bench_who *whos, size_t n_whos, int argc, char **argv);

/* Forks a child that dies with its parent, pinned to @cpu unless that is negative. As fork(). */
pid_t bench_fork(struct bench_job *job, int cpu);

/* The calling process is set up; the service calls this once it listens. */
void bench_ready(struct bench_job *job);

/*
 * Reads all @len bytes (4, or a multiple of 8) and adds them up. The sum of a body is the sum of
 * the sums of its pieces.
 */
uint64_t bench_sum(const void *data, size_t len);

/*
 * What the service answers to a request with that sum: @small, which it fills in, or the body. In
 * BENCH_DEATH cases this does not return if the service is to die, and is NULL if the client is:
 * the service then does not answer and goes on to wait for what comes.
 */
const void *bench_answer(const struct bench_job *job, uint64_t sum, uint32_t *small, size_t *len);

/* The service has been told that its client is dead. */
void bench_told(struct bench_job *job);

/* Connects to, or listens on, a unix socket of that type at @path. */
int bench_connect(const char *path, int type);
int bench_listen(const char *path, int type);

#ifdef __cplusplus
}
#endif

#endif
