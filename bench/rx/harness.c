/* SPDX-License-Identifier: MIT */
/*
 * Processes, cases, time and processor time. See harness.h.
 *
 * Processor time is that of both processes, spinning and helper threads included. A case lasts as
 * long as it is told; what it warms up with is not counted.
 */
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PACE_NS	    UINT64_C(200000)
#define SAMPLES_MAX ((size_t)1 << 20)
#define THREADS_MAX 16
#define BULK_MIN    ((size_t)16 << 20)
#define BULK_MAX    ((size_t)1 << 30)
#define GIB	    1073741824.0

enum kind {
	CALLS,
	PACED,
	FLIGHT,
	THREADS,
	BULK_UP,
	BULK_DOWN,
	IDLE
};

static const struct rxb_case {
	const char *name;
	enum kind kind;
	bool one_core;
} cases[] = {
	{ "call_2core", CALLS, false },	    { "call_1core", CALLS, true },
	{ "paced_200us", PACED, false },    { "flight16", FLIGHT, false },
	{ "flight16_1core", FLIGHT, true }, { "threads16", THREADS, false },
	{ "bulk_up", BULK_UP, false },	    { "bulk_down", BULK_DOWN, false },
	{ "idle100k", IDLE, false },
};

#define N_CASES (sizeof(cases) / sizeof(cases[0]))

static const struct rxb_peer *peer;
static pid_t server = -1;
static uint32_t *samples;
static size_t n_samples;

uint64_t rxb_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

size_t rxb_request(char *out, unsigned command, size_t in_len, size_t out_len)
{
	uint32_t words[6] = { htonl(3),
			      htonl(command),
			      htonl(524288),
			      htonl(524288),
			      htonl((uint32_t)(command == RXB_RECV ? out_len : in_len)),
			      htonl((uint32_t)out_len) };
	size_t len = command == RXB_RPC ? 24 : 20;

	memcpy(out, words, len);
	return len;
}

unsigned rxb_free_port(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&in, len) < 0 ||
	    getsockname(fd, (struct sockaddr *)&in, &len) < 0)
		in.sin_port = 0;
	close(fd);
	return ntohs(in.sin_port);
}

void rxb_ready(unsigned port)
{
	printf("%u\n", port);
	fflush(stdout);
}

/* -- processes --------------------------------------------------------------------------------- */

static void pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* The n-th CPU that we may use, or the first when there are not so many. */
static int nth_cpu(unsigned n)
{
	cpu_set_t set;
	int first = -1;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return -1;
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET((size_t)i, &set))
			continue;
		if (first < 0)
			first = i;
		if (n-- == 0)
			return i;
	}
	return first;
}

/* Starts the server; returns its port, 0 when it failed. */
static unsigned start_server(const char *program, const char *who, const char *name, int cpu)
{
	char number[16], line[32] = "";
	int from[2];
	struct pollfd p;

	snprintf(number, sizeof(number), "%d", cpu);
	if (pipe(from) < 0)
		return 0;
	server = fork();
	if (server == 0) {
		prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
		dup2(from[1], STDOUT_FILENO);
		close(from[0]);
		close(from[1]);
		execl(program, program, "serve", who, name, number, (char *)NULL);
		_exit(127);
	}
	close(from[1]);
	p = (struct pollfd){ .fd = from[0], .events = POLLIN };
	if (server < 0 || poll(&p, 1, 10000) != 1 || read(from[0], line, sizeof(line) - 1) <= 0)
		line[0] = '\0';
	close(from[0]);
	return (unsigned)strtoul(line, NULL, 10);
}

static void end_server(void)
{
	if (server <= 0)
		return;
	kill(server, SIGKILL);
	while (waitpid(server, NULL, 0) < 0 && errno == EINTR)
		continue;
	server = -1;
}

static double clock_seconds(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		return 0;
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Processor time of both ends so far. */
static double cpu_seconds(void)
{
	clockid_t clock;
	double sum = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);

	if (clock_getcpuclockid(server, &clock) == 0)
		sum += clock_seconds(clock);
	return sum;
}

static double resident_kib(pid_t pid)
{
	char line[128], path[64];
	double sum = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	f = fopen(path, "re");
	if (f == NULL)
		return 0;
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "Rss: %lf kB", &sum) == 1)
			break;
	fclose(f);
	return sum;
}

/* -- cases ------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void print_calls(uint64_t n, double seconds, double cpu)
{
	printf("\"calls_s\": %.1f, \"cpu_us\": %.4f", (double)n / seconds, cpu * 1e6 / (double)n);
	if (n_samples == 0)
		return;
	qsort(samples, n_samples, sizeof(samples[0]), compare);
	printf(", \"p50_us\": %.4f, \"p99_us\": %.4f", samples[n_samples / 2] / 1e3,
	       samples[n_samples * 99 / 100] / 1e3);
}

static void sleep_until(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / UINT64_C(1000000000)),
			       (long)(ns % UINT64_C(1000000000)) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

/* One call after the other, until `ms` are over; keeps what each took when `keep`. */
static int make_calls(unsigned ms, bool paced, bool keep, uint64_t *n)
{
	uint64_t start = rxb_now_ns(), end = start + ms * UINT64_C(1000000), next = start;

	n_samples = 0;
	for (*n = 0; start < end; ++*n) {
		uint64_t now;

		if (paced) {
			next += PACE_NS;
			sleep_until(next);
			start = rxb_now_ns();
		}
		if (peer->call(0) < 0)
			return -1;
		now = rxb_now_ns();
		if (keep && n_samples < SAMPLES_MAX)
			samples[n_samples++] = (uint32_t)(now - start);
		start = now;
	}
	return 0;
}

static int run_calls(unsigned ms, bool paced)
{
	uint64_t n, start;
	double cpu;

	if (make_calls(ms / 4 + 1, paced, false, &n) < 0)
		return -1;
	cpu = cpu_seconds();
	start = rxb_now_ns();
	if (make_calls(ms, paced, true, &n) < 0)
		return -1;
	print_calls(n, (double)(rxb_now_ns() - start) / 1e9, cpu_seconds() - cpu);
	return 0;
}

struct thread {
	pthread_t id;
	unsigned index;
	uint64_t end_ns, n;
	int r;
};

static void *thread_main(void *arg)
{
	struct thread *t = arg;

	while (t->r == 0 && rxb_now_ns() < t->end_ns) {
		t->r = peer->call(t->index);
		t->n++;
	}
	return NULL;
}

static int with_threads(uint64_t end_ns, uint64_t *n)
{
	struct thread threads[THREADS_MAX];
	unsigned n_threads = 0;
	int r = 0;

	*n = 0;
	for (; n_threads < THREADS_MAX && r == 0; n_threads += r == 0) {
		struct thread *t = &threads[n_threads];

		*t = (struct thread){ .index = n_threads, .end_ns = end_ns };
		r = -pthread_create(&t->id, NULL, thread_main, t);
	}
	for (unsigned i = 0; i < n_threads; i++) {
		pthread_join(threads[i].id, NULL);
		*n += threads[i].n;
		r = threads[i].r < 0 ? threads[i].r : r;
	}
	return r;
}

static int run_many(unsigned ms, bool threads)
{
	uint64_t n = 0, start = 0;
	double cpu = 0;

	n_samples = 0;
	for (int round = 0; round < 2; round++) {
		unsigned this_ms = round ? ms : ms / 4 + 1;
		int r;

		cpu = cpu_seconds();
		start = rxb_now_ns();
		if (threads || peer->flight == NULL)
			r = with_threads(start + this_ms * UINT64_C(1000000), &n);
		else
			r = peer->flight(16, start + this_ms * UINT64_C(1000000), &n);
		if (r < 0 || n == 0)
			return -1;
	}
	print_calls(n, (double)(rxb_now_ns() - start) / 1e9, cpu_seconds() - cpu);
	return 0;
}

/* A call that is long enough to tell how long one must be to last for `ms`, and that one. */
static int run_bulk(unsigned ms, bool up)
{
	size_t len = BULK_MIN;
	double seconds = 0, cpu = 0;

	for (int round = 0; round < 2; round++) {
		uint64_t start = rxb_now_ns();

		cpu = cpu_seconds();
		if (peer->bulk(up, len) < 0)
			return -1;
		seconds = (double)(rxb_now_ns() - start) / 1e9;
		cpu = cpu_seconds() - cpu;
		if (round == 0) {
			len = (size_t)((double)len / seconds * ms / 1e3) & ~(size_t)0xffff;
			len = len < BULK_MIN ? BULK_MIN : len > BULK_MAX ? BULK_MAX : len;
		} else {
			printf("\"mb_s\": %.2f, \"cpu_gib\": %.4f, \"bytes\": %zu",
			       (double)len / seconds / 1e6, cpu / ((double)len / GIB), len);
		}
	}
	return 0;
}

/*
 * A call's latency alone and among idle connections, what they hold, and what they cost while
 * nothing happens.
 */
static int run_idle(unsigned ms)
{
	double server_kib, client_kib, cpu, alone;
	uint64_t n;

	if (make_calls(ms / 2 + 1, false, true, &n) < 0 || make_calls(ms, false, true, &n) < 0)
		return -1;
	qsort(samples, n_samples, sizeof(samples[0]), compare);
	alone = samples[n_samples / 2] / 1e3;
	server_kib = resident_kib(server);
	client_kib = resident_kib(getpid());
	if (peer->idle(RXB_IDLE) < 0)
		return -1;
	server_kib = resident_kib(server) - server_kib;
	client_kib = resident_kib(getpid()) - client_kib;
	cpu = cpu_seconds();
	usleep(200000);
	cpu = cpu_seconds() - cpu;
	if (make_calls(ms / 4 + 1, false, true, &n) < 0 || make_calls(ms, false, true, &n) < 0)
		return -1;
	printf("\"alone_p50_us\": %.4f, \"server_bytes\": %.1f, \"client_bytes\": %.1f, "
	       "\"idle_cpu_percent\": %.3f, ",
	       alone, server_kib * 1024 / RXB_IDLE, client_kib * 1024 / RXB_IDLE, cpu / 0.2 * 100);
	print_calls(n, 1, 0);
	return 0;
}

static int run_case(const struct rxb_case *c, unsigned ms)
{
	switch (c->kind) {
	case CALLS:
	case PACED:
		return run_calls(ms, c->kind == PACED);
	case FLIGHT:
	case THREADS:
		return run_many(ms, c->kind == THREADS);
	case BULK_UP:
	case BULK_DOWN:
		return run_bulk(ms, c->kind == BULK_UP);
	default:
		return run_idle(ms);
	}
}

static bool can(const struct rxb_peer *p, enum kind kind)
{
	switch (kind) {
	case BULK_UP:
	case BULK_DOWN:
		return p->bulk != NULL;
	case IDLE:
		return p->idle != NULL;
	case FLIGHT:
	case THREADS:
		return p->call != NULL && (p->flight != NULL || strncmp(p->name, "floor", 5) != 0);
	default:
		return p->call != NULL;
	}
}

static void list(const struct rxb_peer *peers, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		printf("%s", peers[i].name);
		for (size_t k = 0; k < N_CASES; k++)
			if (can(&peers[i], cases[k].kind))
				printf(" %s", cases[k].name);
		printf("\n");
	}
}

static const struct rxb_peer *find_peer(const struct rxb_peer *peers, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(peers[i].name, name) == 0)
			return &peers[i];
	return NULL;
}

static const struct rxb_case *find_case(const char *name)
{
	for (size_t i = 0; i < N_CASES; i++)
		if (strcmp(cases[i].name, name) == 0)
			return &cases[i];
	return NULL;
}

static int fail(const char *what)
{
	end_server();
	printf("{\"error\": \"%s\"}\n", what);
	return 1;
}

static int run(const struct rxb_case *c, unsigned ms, char **argv)
{
	int cpus[2] = { nth_cpu(0), nth_cpu(1) };
	unsigned port;

	samples = malloc(SAMPLES_MAX * sizeof(samples[0]));
	if (samples == NULL)
		return fail("no memory");
	memset(samples, 0, SAMPLES_MAX * sizeof(samples[0]));
	/* Whoever hangs is killed by this, and its server with it. */
	alarm(ms / 1000 + 30);
	port = start_server(argv[0], argv[1], c->name, cpus[0]);
	if (port == 0)
		return fail("the server does not start");
	pin(cpus[c->one_core ? 0 : 1]);
	if (peer->open(peer->name, c->name, port) < 0)
		return fail("the client does not start");
	printf("{");
	if (run_case(c, ms) < 0) {
		printf("\"failed\": true, ");
		printf("\"error\": \"a call has failed\"}\n");
		end_server();
		return 1;
	}
	printf("}\n");
	fflush(stdout);
	end_server();
	return 0;
}

int rxb_main(const struct rxb_peer *peers, size_t n_peers, int argc, char **argv)
{
	const struct rxb_case *c = argc > 3 ? find_case(argv[3]) : NULL;

	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		list(peers, n_peers);
		return 0;
	}
	peer = argc > 2 ? find_peer(peers, n_peers, argv[2]) : NULL;
	if (peer != NULL && c != NULL && argc == 5 && strcmp(argv[1], "serve") == 0) {
		pin(atoi(argv[4]));
		return peer->serve(argv[2], argv[3]) < 0;
	}
	if (peer != NULL && c != NULL && argc == 7 && strcmp(argv[1], "run") == 0)
		return run(c, (unsigned)atoi(argv[4]), argv + 5);
	fprintf(stderr, "usage: %s --list | serve WHO CASE CPU | run WHO CASE MS SERVER WHO\n",
		argv[0]);
	return 2;
}
