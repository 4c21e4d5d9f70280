/* SPDX-License-Identifier: MIT */
/*
 * The floor that `antiphon bench` compares with: a Unix SOCK_SEQPACKET socket between two
 * processes.
 */
#include "bench.h"

#include <antiphon/api.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* The first byte of a message says whether it is to be answered. */
#define ANSWER 'a'
#define TAKE   't'
/* Every so many pieces of a stream one is answered, so that it is known to have arrived. */
#define PIECES_PER_ANSWER 256

struct floor_ends {
	struct bench *bench;
	int ours;
	int theirs;
};

void bench_place(const struct bench *bench, enum bench_place place)
{
	cpu_set_t one;
	int nth = (int)place;

	if (place == BENCH_ANYWHERE || CPU_COUNT(&bench->cpus) < 2) {
		sched_setaffinity(0, sizeof(bench->cpus), &bench->cpus);
		return;
	}
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET((size_t)cpu, &bench->cpus) || nth-- > 0)
			continue;
		CPU_SET((size_t)cpu, &one);
		break;
	}
	sched_setaffinity(0, sizeof(one), &one);
}

int bench_fork(pid_t *pid, void (*body)(void *data), void *data)
{
	pid_t parent = getpid();

	fflush(NULL);
	*pid = fork();
	if (*pid < 0)
		return -errno;
	if (*pid > 0)
		return 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		body(data);
	_exit(1);
}

void bench_end_child(pid_t *pid)
{
	if (*pid <= 0)
		return;
	kill(*pid, SIGKILL);
	while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
		;
	*pid = 0;
}

static void answer(void *data)
{
	struct floor_ends *ends = data;
	static char message[BENCH_PIECE_LEN];

	/* Else this process would never see the other end close. */
	close(ends->ours);
	bench_place(ends->bench, BENCH_SERVICE);
	for (;;) {
		ssize_t n = recv(ends->theirs, message, sizeof(message), 0);

		if (n <= 0)
			_exit(0);
		if (message[0] == ANSWER && send(ends->theirs, message, 4, MSG_NOSIGNAL) < 0)
			_exit(0);
	}
}

int bench_floor_begin(struct bench *bench)
{
	struct floor_ends ends;
	int fds[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	ends.bench = bench;
	ends.ours = fds[0];
	ends.theirs = fds[1];
	r = bench_fork(&bench->floor_pid, answer, &ends);
	close(ends.theirs);
	if (r < 0) {
		close(ends.ours);
		return r;
	}
	bench->floor_fd = ends.ours;
	return 0;
}

void bench_floor_end(struct bench *bench)
{
	bench_end_child(&bench->floor_pid);
	if (bench->floor_fd >= 0)
		close(bench->floor_fd);
	bench->floor_fd = -1;
}

static int exchange(struct bench *bench, size_t len)
{
	char reply[4];

	bench->piece[0] = ANSWER;
	if (send(bench->floor_fd, bench->piece, len, MSG_NOSIGNAL) < 0)
		return -errno;
	if (recv(bench->floor_fd, reply, sizeof(reply), 0) != (ssize_t)sizeof(reply))
		return -EPIPE;
	return 0;
}

int bench_floor_latency(struct bench *bench, double *p50_ns, double *p99_ns)
{
	uint64_t before_ns = aph_time_ns();
	uint64_t end_ns = before_ns + bench->case_ns;

	histogram_init(&bench->histogram);
	while (before_ns < end_ns) {
		uint64_t now_ns;
		int r = exchange(bench, 4);

		if (r < 0)
			return r;
		now_ns = aph_time_ns();
		histogram_add(&bench->histogram, now_ns - before_ns);
		before_ns = now_ns;
		if (bench_interrupted)
			return -EINTR;
	}
	*p50_ns = (double)histogram_quantile(&bench->histogram, 0.5);
	*p99_ns = (double)histogram_quantile(&bench->histogram, 0.99);
	return 0;
}

int bench_floor_stream(struct bench *bench, double *bytes_per_s)
{
	uint64_t began_ns = aph_time_ns();
	uint64_t n_bytes = 0;
	int r;

	do {
		bench->piece[0] = TAKE;
		for (unsigned i = 1; i < PIECES_PER_ANSWER; i++) {
			if (send(bench->floor_fd, bench->piece, BENCH_PIECE_LEN, MSG_NOSIGNAL) < 0)
				return -errno;
		}
		r = exchange(bench, BENCH_PIECE_LEN);
		if (r < 0)
			return r;
		n_bytes += (uint64_t)PIECES_PER_ANSWER * BENCH_PIECE_LEN;
		if (bench_interrupted)
			return -EINTR;
	} while (aph_time_ns() < began_ns + bench->case_ns);
	*bytes_per_s = (double)n_bytes / ((double)(aph_time_ns() - began_ns) / 1e9);
	return 0;
}
