/* SPDX-License-Identifier: MIT */
/*
 * Child processes in process groups of their own.
 */
#include "child.h"

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST_PASSED_FD 3
#define PIPE_SIZE_WIDE	(256 * 1024)

/*
 * Moves the descriptors to 3, 4, ... Each is first lifted above all of the targets, as one that is
 * still to be moved may sit where another has to go.
 */
static int pass_descriptors(const struct child_spec *spec)
{
	int lifted[64];
	int above = FIRST_PASSED_FD + (int)spec->n_fds;

	if (spec->n_fds > sizeof(lifted) / sizeof(lifted[0]))
		return -1;
	for (size_t i = 0; i < spec->n_fds; i++) {
		lifted[i] = fcntl(spec->fds[i], F_DUPFD_CLOEXEC, above);
		if (lifted[i] < 0)
			return -1;
	}
	for (size_t i = 0; i < spec->n_fds; i++) {
		if (dup2(lifted[i], FIRST_PASSED_FD + (int)i) < 0)
			return -1;
	}
	return 0;
}

static void set_environment(const struct child_spec *spec)
{
	static char listen_fds[32], listen_pid[32];

	for (size_t i = 0; spec->env[i] != NULL; i++)
		putenv(spec->env[i]);

	/* What we were started with ourselves is not meant for the child. */
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDNAMES");
	if (spec->n_fds > 0) {
		snprintf(listen_fds, sizeof(listen_fds), "LISTEN_FDS=%zu", spec->n_fds);
		snprintf(listen_pid, sizeof(listen_pid), "LISTEN_PID=%ld", (long)getpid());
		putenv(listen_fds);
		putenv(listen_pid);
	}
}

static void reset_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
}

static void run_child(const struct child_spec *spec, pid_t parent, int in, int out)
	__attribute__((noreturn));

static void run_child(const struct child_spec *spec, pid_t parent, int in, int out)
{
	int saved;

	setpgid(0, 0);
	/* Should the server be killed outright, its commands must not go on for nobody. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(128 + SIGTERM);
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
	    pass_descriptors(spec) < 0)
		_exit(126);
	set_environment(spec);
	reset_signals();
	execvp(spec->argv[0], spec->argv);
	saved = errno;
	cli_error("cannot run %s: %s", spec->argv[0], strerror(saved));
	_exit(saved == ENOENT || saved == ENOTDIR ? 127 : 126);
}

static void close_pair(int pair[2])
{
	if (pair[0] >= 0)
		close(pair[0]);
	if (pair[1] >= 0)
		close(pair[1]);
}

static int open_pipes(int in[2], int out[2])
{
	if (pipe2(in, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(out, O_CLOEXEC) < 0)
		return -errno;
	/* Only our ends: the two ends of a pipe are two open file descriptions. */
	if (fcntl(in[1], F_SETFL, O_NONBLOCK) < 0 || fcntl(out[0], F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int child_start(struct child *child, const struct child_spec *spec)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 };
	pid_t parent = getpid();
	pid_t pid;
	int r;

	r = open_pipes(in, out);
	if (r < 0)
		goto out;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		r = -errno;
		goto out;
	}
	if (pid == 0)
		run_child(spec, parent, in[0], out[1]);

	/*
	 * On both sides, as neither knows who comes first; it fails only once the child has
	 * executed.
	 */
	setpgid(pid, pid);
	*child = (struct child){ .pid = pid, .in = in[1], .out = out[0] };
	in[1] = -1;
	out[0] = -1;
	r = 0;
out:
	close_pair(in);
	close_pair(out);
	return r;
}

bool child_has_ended(const struct child *child, int *code)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	if (waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
	    info.si_pid == 0)
		return false;
	*code = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	return true;
}

void child_signal(const struct child *child, int signal)
{
	kill(-child->pid, signal);
}

void child_reap(struct child *child)
{
	if (child->in >= 0)
		close(child->in);
	if (child->out >= 0)
		close(child->out);
	while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
		;
	child->pid = 0;
	child->in = -1;
	child->out = -1;
}

bool child_widen(struct child *child, int pipe_fd)
{
	bool *widened = &child->widened[pipe_fd == child->in];

	/* Once: the kernel may say no to a user who has many pipes. */
	if (*widened)
		return false;
	*widened = true;
	return fcntl(pipe_fd, F_SETPIPE_SZ, PIPE_SIZE_WIDE) >= 0;
}

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

int child_find(const char *command)
{
	const char *path = getenv("PATH");
	char candidate[PATH_MAX];

	if (command[0] == '\0')
		return -ENOENT;
	if (strchr(command, '/') != NULL) {
		if (is_program(command))
			return 0;
		return access(command, F_OK) < 0 ? -errno : -EACCES;
	}
	if (path == NULL)
		path = "/bin:/usr/bin";
	for (;;) {
		size_t len = strcspn(path, ":");

		/* An empty element is the current directory. */
		snprintf(candidate, sizeof(candidate), "%.*s%s%s", (int)len, path,
			 len > 0 ? "/" : "./", command);
		if (is_program(candidate))
			return 0;
		if (path[len] == '\0')
			return -ENOENT;
		path += len + 1;
	}
}
