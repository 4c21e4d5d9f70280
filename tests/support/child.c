/* SPDX-License-Identifier: MIT */
#include "child.h"

#include "check.h"
#include "fds.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct fds fds_at_start;

/* The children that were not taken away yet, so that a failed test can be cleaned up after. */
static pid_t alive[512];

static void alive_replace(pid_t old, pid_t new)
{
	for (size_t i = 0; i < sizeof(alive) / sizeof(alive[0]); i++) {
		if (alive[i] == old) {
			alive[i] = new;
			return;
		}
	}
	CHECK(old != 0); /* else: too many children */
}

int child_kill_left(void)
{
	int n = 0;

	for (size_t i = 0; i < sizeof(alive) / sizeof(alive[0]); i++) {
		if (alive[i] == 0)
			continue;
		kill(alive[i], SIGKILL);
		waitpid(alive[i], NULL, 0);
		alive[i] = 0;
		n++;
	}
	return n;
}

static _Noreturn void child_main(pid_t parent, int ctl, int (*run)(int ctl, void *arg), void *arg)
{
	int status;

	memset(alive, 0, sizeof(alive));
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	fds_take(&fds_at_start);
	status = run(ctl, arg);
	if (fds_differ(&fds_at_start) && status == 0)
		status = CHILD_LEAKED;
	fflush(NULL);
	/* Not _exit(): the leak sanitizer looks when the process ends by itself. */
	exit(status);
}

void child_start(struct child *child, int (*run)(int ctl, void *arg), void *arg)
{
	pid_t parent = getpid();
	int pair[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	fflush(NULL);
	child->pid = (pid_t)CHECK_OK(fork());
	if (child->pid == 0) {
		close(pair[0]);
		child_main(parent, pair[1], run, arg);
	}
	alive_replace(0, child->pid);
	close(pair[1]);
	child->ctl = pair[0];
}

/* Where a process is that does not come to its end. */
static void say_state(pid_t pid)
{
	static const char *const names[] = { "status", "wchan", "stack", "syscall" };
	char path[64], text[4096];
	FILE *file;
	size_t n;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, names[i]);
		file = fopen(path, "re");
		if (!file)
			continue;
		n = fread(text, 1, sizeof(text) - 1, file);
		text[n] = 0;
		fclose(file);
		fprintf(stderr, "%s:\n%s\n", path, text);
	}
}

int child_finish(struct child *child, int timeout_ms)
{
	int fd = (int)CHECK_OK(pidfd_open(child->pid, 0));
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	int status = 0, result, ready;

	do {
		ready = poll(&poller, 1, timeout_ms);
	} while (ready < 0 && errno == EINTR);
	if (ready == 0) {
		fprintf(stderr, "child %d did not end in %d ms\n", (int)child->pid, timeout_ms);
		say_state(child->pid);
		CHECK_OK(kill(child->pid, SIGKILL));
	}
	CHECK(waitpid(child->pid, &status, 0) == child->pid);
	if (ready == 0)
		result = CHILD_TIMED_OUT;
	else if (WIFSIGNALED(status))
		result = CHILD_SIGNALLED + WTERMSIG(status);
	else
		result = WEXITSTATUS(status);
	alive_replace(child->pid, 0);
	close(fd);
	close(child->ctl);
	child->pid = -1;
	child->ctl = -1;
	return result;
}

void child_signal(const struct child *child, int signal)
{
	CHECK(child->pid > 0);
	CHECK_OK(kill(child->pid, signal));
}

void child_kill(struct child *child)
{
	child_signal(child, SIGKILL);
	CHECK(child_finish(child, 10000) == CHILD_SIGNALLED + SIGKILL);
}

void child_say(int ctl, char byte)
{
	CHECK(send(ctl, &byte, 1, MSG_NOSIGNAL) == 1);
}

int child_hear(int ctl, int timeout_ms)
{
	struct pollfd poller = { .fd = ctl, .events = POLLIN };
	unsigned char byte;
	int ready;

	do {
		ready = poll(&poller, 1, timeout_ms);
	} while (ready < 0 && errno == EINTR);
	if (ready <= 0 || recv(ctl, &byte, 1, 0) != 1)
		return -1;
	return byte;
}

static char state_of(pid_t pid)
{
	char path[64], line[512], *at;
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	n = fread(line, 1, sizeof(line) - 1, file);
	fclose(file);
	line[n] = 0;
	at = strrchr(line, ')');
	return at && at[1] ? at[2] : 0;
}

void child_await_state(pid_t pid, char state, int timeout_ms)
{
	const struct timespec nap = { .tv_nsec = 1000000 };

	while (state_of(pid) != state) {
		CHECK(timeout_ms-- > 0);
		nanosleep(&nap, NULL);
	}
}

static long switches_of(const char *path)
{
	FILE *file = fopen(path, "re");
	char line[256];
	long n = 0;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
			n = strtol(line + 24, NULL, 10);
	fclose(file);
	return n;
}

long child_switches(pid_t pid)
{
	char path[512];
	struct dirent *entry;
	long n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	CHECK(dir);
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, entry->d_name);
		n += switches_of(path);
	}
	closedir(dir);
	return n;
}

void child_await_rest(pid_t pid)
{
	const struct timespec nap = { .tv_nsec = 100000000 };
	int limit_ms = check_hang_ms(5000);
	char path[64];
	long n;

	/* The thread sanitizer has one of its own that never rests. */
	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)pid, (int)pid);
	do {
		n = switches_of(path);
		nanosleep(&nap, NULL);
		child_await_state(pid, 'S', limit_ms);
		CHECK((limit_ms -= 100) > 0);
	} while (switches_of(path) != n);
}
