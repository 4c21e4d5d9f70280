/* SPDX-License-Identifier: MIT */
/*
 * The processes of one run: fork, pin, time limit, accounting, clean-up. See harness.h.
 */
#include "measure.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A run that takes this much longer than it measures is hanging, and is killed. */
#define GRACE_SECONDS	12
#define N_DEATHS	6
#define IDLE_PER_HOLDER 4000

static volatile sig_atomic_t timed_out;

/* The time is up, or the user has had enough: either way the run ends and is cleaned up after. */
static void on_end(int number)
{
	(void)number;
	timed_out = 1;
}

void bench_ready(struct bench_job *job)
{
	atomic_fetch_add(&job->shared->n_ready, 1);
}

const void *bench_answer(const struct bench_job *job, uint64_t sum, uint32_t *small, size_t *len)
{
	if (job->c.kind == BENCH_DEATH) {
		job->shared->received = 1;
		while (!job->c.client_dies)
			pause();
		return NULL;
	}
	*len = job->c.rep_len;
	if (job->c.rep_len > sizeof *small)
		return job->body;
	*small = (uint32_t)(sum + 1);
	return small;
}

void bench_told(struct bench_job *job)
{
	job->shared->told_ns = bench_now_ns();
}

static int unix_socket(const char *path, int type, struct sockaddr_un *address)
{
	int fd;

	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof address->sun_path)
		return -ENAMETOOLONG;
	memcpy(address->sun_path, path, strlen(path));
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

int bench_connect(const char *path, int type)
{
	struct sockaddr_un address;
	int fd = unix_socket(path, type, &address);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

int bench_listen(const char *path, int type)
{
	struct sockaddr_un address;
	int fd = unix_socket(path, type, &address);

	if (fd < 0)
		return fd;
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static void pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

pid_t bench_fork(struct bench_job *job, int cpu)
{
	pid_t parent = getpid(), pid;

	if (job->n_children == BENCH_CHILDREN_MAX) {
		errno = EAGAIN;
		return -1;
	}
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
		if (getppid() != parent)
			_exit(1);
		signal(SIGALRM, SIG_DFL);
		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		signal(SIGPIPE, SIG_IGN);
		pin(cpu);
	} else if (pid > 0) {
		job->children[job->n_children++] = pid;
	}
	return pid;
}

static void forget(struct bench_job *job, pid_t pid)
{
	for (unsigned i = 0; i < job->n_children; i++)
		if (job->children[i] == pid)
			job->children[i] = job->children[--job->n_children];
}

static void reap(struct bench_job *job, pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	forget(job, pid);
}

/* Waits for a child to end by itself. Negative unless it ended well. */
static int join(struct bench_job *job, pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR || timed_out)
			return -ETIMEDOUT;
	forget(job, pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPIPE;
}

/* Waits until @n processes are set up; negative if one of them ended instead. */
static int await_ready(struct bench_job *job, uint32_t n)
{
	while (job->shared->n_ready < n) {
		siginfo_t info = { 0 };

		if (timed_out)
			return -ETIMEDOUT;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0)
			return -EPIPE;
		bench_sleep_us(500);
	}
	return 0;
}

static int cpu_of(const struct bench_job *job, bool service)
{
	if (job->c.place == BENCH_FREE)
		return -1;
	return job->cpus[job->c.place == BENCH_ONE_CORE || service ? 0 : 1];
}

static pid_t start_service(struct bench_job *job)
{
	pid_t pid = bench_fork(job, cpu_of(job, true));

	if (pid == 0) {
		int r = job->who->serve(job);

		snprintf(job->shared->error, sizeof job->shared->error, "service: %s",
			 r < -1 ? strerror(-r) : "failed");
		_exit(1);
	}
	return pid;
}

static pid_t start_client(struct bench_job *job, unsigned index)
{
	pid_t pid = bench_fork(job, cpu_of(job, false));

	if (pid == 0)
		_exit(bench_client(job, index) < 0);
	return pid;
}

/* A process that opens @n channels and does nothing with them. */
static pid_t start_holder(struct bench_job *job, unsigned n)
{
	pid_t pid = bench_fork(job, -1);

	if (pid != 0)
		return pid;
	for (unsigned i = 0; i < n; i++) {
		void *self;
		int r = job->who->open(job, &self);

		if (r < 0) {
			snprintf(job->shared->error, sizeof job->shared->error,
				 "idle channel %u: %s", i, r < -1 ? strerror(-r) : "failed");
			_exit(1);
		}
	}
	bench_ready(job);
	for (;;)
		pause();
}

static int start_hogs(struct bench_job *job)
{
	unsigned n = job->c.all_busy ? 2 : job->hog;

	for (unsigned i = 0; i < n; i++) {
		pid_t pid = bench_fork(job, job->c.all_busy ? job->cpus[i] : cpu_of(job, true));

		if (pid < 0)
			return -errno;
		while (pid == 0)
			__asm__ volatile("");
	}
	return 0;
}

static double resident_kib(pid_t pid)
{
	char line[128], path[64];
	double sum = -1;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
	f = fopen(path, "re");
	if (f == NULL)
		return sum;
	while (fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "Rss: %lf kB", &sum) == 1)
			break;
	fclose(f);
	return sum;
}

static void print_result(const struct bench_result *r)
{
	if (r->n_calls == 0)
		return;
	printf(", \"p50_us\": %.4f, \"p99_us\": %.4f, \"calls_s\": %.1f, \"cpu_us\": %.4f",
	       r->p50_us, r->p99_us, (double)r->n_calls / r->seconds,
	       r->cpu_seconds * 1e6 / (double)r->n_calls);
}

static void print_many(const struct bench_result *results, unsigned n)
{
	double sum = 0, slowest = 0, fastest = 0;

	for (unsigned i = 0; i < n; i++) {
		double rate = (double)results[i].n_calls / results[i].seconds;

		sum += rate;
		if (i == 0 || rate < slowest)
			slowest = rate;
		if (rate > fastest)
			fastest = rate;
	}
	printf(", \"calls_s\": %.1f, \"fairness\": %.4f", sum, slowest / fastest);
}

/* One service, the clients, and for BENCH_IDLE the holders of idle channels. */
static int run_calls(struct bench_job *job)
{
	pid_t service = start_service(job), clients[BENCH_CLIENTS_MAX];
	unsigned n = job->c.n_clients, n_ready = 1, left = job->c.n_idle;
	double before = 0, after = 0;
	int r = service < 0 ? -errno : await_ready(job, n_ready);

	job->charged[job->n_charged++] = service;
	for (unsigned i = 0; i < n && r >= 0; i++) {
		clients[i] = start_client(job, i);
		r = clients[i] < 0 ? -errno : 0;
	}
	if (r >= 0)
		r = await_ready(job, n_ready += n);
	if (r < 0)
		return r;
	job->shared->start_ticks = bench_ticks() + (uint64_t)(2000 * job->shared->ticks_per_us);
	if (left > 0) {
		while (job->shared->phase == 0 && !timed_out)
			bench_sleep_us(1000);
		before = resident_kib(service);
		for (; left > 0 && r >= 0;
		     left -= left < IDLE_PER_HOLDER ? left : IDLE_PER_HOLDER) {
			start_holder(job, left < IDLE_PER_HOLDER ? left : IDLE_PER_HOLDER);
			r = await_ready(job, ++n_ready);
		}
		/* The service may still be busy with the last of them. */
		bench_sleep_us(100000);
		after = resident_kib(service);
		job->shared->phase = 2;
	}
	for (unsigned i = 0; i < n && r >= 0; i++)
		r = join(job, clients[i]);
	if (r < 0)
		return r;
	if (n > 1)
		print_many(job->shared->results, n);
	else
		print_result(&job->shared->results[0]);
	if (job->c.n_idle > 0)
		printf(", \"alone_p50_us\": %.4f, \"idle_kib\": %.3f, \"n_idle\": %u",
		       job->shared->results[0].alone_p50_us, (after - before) / job->c.n_idle,
		       job->c.n_idle);
	return 0;
}

/* Waits until the service says that it was told of its client's death. */
static int await_told(struct bench_job *job, double *told_us)
{
	while (job->shared->told_ns == 0) {
		if (timed_out)
			return -ETIMEDOUT;
		bench_sleep_us(500);
	}
	*told_us = (double)(job->shared->told_ns - job->shared->killed_ns) / 1e3;
	return 0;
}

static int run_death_once(struct bench_job *job, double *told_us)
{
	pid_t service, client;
	int r;

	job->shared->n_ready = 0;
	job->shared->received = 0;
	job->shared->killed_ns = 0;
	job->shared->told_ns = 0;
	service = start_service(job);
	r = service < 0 ? -errno : await_ready(job, 1);
	if (r < 0)
		return r;
	client = start_client(job, 0);
	r = client < 0 ? -errno : await_ready(job, 2);
	while (r >= 0 && job->shared->received == 0) {
		bench_sleep_us(500);
		if (timed_out)
			r = -ETIMEDOUT;
	}
	if (r < 0)
		return r;
	/* Long enough for the one that waits to have given up any spinning. */
	bench_sleep_us(10000);
	job->shared->killed_ns = bench_now_ns();
	if (job->c.client_dies) {
		kill(client, SIGKILL);
		r = await_told(job, told_us);
		reap(job, client);
	} else {
		kill(service, SIGKILL);
		r = join(job, client);
		*told_us = job->shared->results[0].told_us;
	}
	reap(job, service);
	unlink(job->address);
	return r;
}

static int run_death(struct bench_job *job)
{
	double told[N_DEATHS], sum = 0, max = 0;

	for (unsigned i = 0; i < N_DEATHS; i++) {
		int r = run_death_once(job, &told[i]);

		if (r < 0)
			return r;
		sum += told[i];
		if (told[i] > max)
			max = told[i];
	}
	printf(", \"told_us\": %.1f, \"told_max_us\": %.1f", sum / N_DEATHS, max);
	return 0;
}

static void remove_dir(const char *path)
{
	char name[320];
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(name, sizeof name, "%.60s/%s", path, entry->d_name);
		if (entry->d_type == DT_DIR)
			remove_dir(name);
		else
			unlink(name);
	}
	if (dir != NULL)
		closedir(dir);
	rmdir(path);
}

static int choose_cpus(struct bench_job *job)
{
	cpu_set_t set;
	int n = 0;

	CPU_ZERO(&set);
	sched_getaffinity(0, sizeof set, &set);
	for (size_t i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &set))
			job->cpus[n++] = (int)i;
	if (n < 2 && (job->c.place == BENCH_TWO_CORES || job->c.all_busy))
		return -ENODEV;
	return 0;
}

static double calibrate(void)
{
	uint64_t ns = bench_now_ns(), ticks = bench_ticks();

	bench_sleep_us(4000);
	ticks = bench_ticks() - ticks;
	return (double)ticks / ((double)(bench_now_ns() - ns) / 1e3);
}

static void raise_limits(struct bench_job *job)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
		if (job->c.n_idle > 0 && job->c.n_idle + 200 > limit.rlim_max)
			job->c.n_idle = (unsigned)limit.rlim_max - 200;
	}
	limit.rlim_cur = limit.rlim_max = RLIM_INFINITY;
	setrlimit(RLIMIT_MSGQUEUE, &limit);
}

static int setup(struct bench_job *job)
{
	const char *tmp = getenv("TMPDIR");
	int r = choose_cpus(job);

	if (r < 0)
		return r;
	raise_limits(job);
	/* As in a process that has run for long: large bodies come from memory it already has. */
	mallopt(M_MMAP_THRESHOLD, 1 << 25);
	mallopt(M_TRIM_THRESHOLD, 1 << 28);
	job->shared = mmap(NULL, sizeof *job->shared, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	job->body = mmap(NULL, BENCH_BODY_MAX, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (job->shared == MAP_FAILED || job->body == MAP_FAILED)
		return -errno;
	/* The first word stays 0: a client numbers its requests there. */
	for (size_t i = 8; i < BENCH_BODY_MAX; i++)
		job->body[i] = (uint8_t)(i * 167 + i / 4096);
	job->shared->ticks_per_us = calibrate();
	snprintf(job->dir, sizeof job->dir, "%s/bench-XXXXXX",
		 tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
	if (mkdtemp(job->dir) == NULL)
		return -errno;
	snprintf(job->address, sizeof job->address, "%s/s", job->dir);
	return 0;
}

static int run(struct bench_job *job)
{
	struct sigaction action = { 0 };
	struct itimerval limit = { .it_interval.tv_sec = 1 };
	int r = 0;

	action.sa_handler = on_end;
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	/* Again each second, should the first signal come just before a wait. */
	limit.it_value.tv_sec = GRACE_SECONDS + job->run_ms / 300;
	setitimer(ITIMER_REAL, &limit, NULL);
	if (job->who->prepare != NULL)
		r = job->who->prepare(job);
	if (r >= 0)
		r = start_hogs(job);
	if (r < 0)
		return r;
	if (job->c.kind == BENCH_DEATH)
		return run_death(job);
	if (job->c.kind != BENCH_COPY)
		return run_calls(job);
	r = bench_copy(job);
	print_result(&job->shared->results[0]);
	return r;
}

int bench_main(const struct bench_who *whos, size_t n_whos, int argc, char **argv)
{
	static struct bench_job job;
	int r;

	if (argc == 2 && strcmp(argv[1], "--list") == 0)
		return bench_list(whos, n_whos);
	if (argc < 3 || bench_find(&job, whos, n_whos, argv[1], argv[2]) < 0)
		return bench_usage(argv[0]);
	job.run_ms = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 200;
	r = setup(&job);
	if (r < 0) {
		printf("{\"error\": \"%s\"}\n", r == -ENODEV ? "needs two cores" : strerror(-r));
		return 1;
	}
	printf("{\"case\": \"%s\", \"who\": \"%s\"", argv[2], argv[1]);
	/* Nothing buffered may be in the children's hands too. */
	fflush(stdout);
	r = run(&job);
	if (r < 0)
		printf(", \"error\": \"%s\"",
		       job.shared->error[0] != 0 ? job.shared->error : strerror(-r));
	printf("}\n");
	while (job.n_children > 0)
		reap(&job, job.children[0]);
	remove_dir(job.dir);
	return r < 0;
}
