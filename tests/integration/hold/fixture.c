/* SPDX-License-Identifier: MIT */
#include "fixture.h"

#include "fds.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Copies: a test that fails does not come back to its own. */
static struct keeper running[8];

int hold_setup(void **state)
{
	int r = dir_setup(state);

	/* What a twin leaves behind comes to us. */
	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1UL));
	return r == 0 ? chmod(dir_path(), 01777) : r;
}

int hold_teardown(void **state)
{
	for (size_t i = 0; i < SUITE_LEN(running); i++) {
		if (running[i].group)
			keeper_kill(&running[i]);
	}
	return dir_teardown(state);
}

static void pause_ms(int ms)
{
	(void)poll(NULL, 0, ms);
}

/* -- processes --------------------------------------------------------------------------------- */

static void remember(const struct keeper *keeper)
{
	size_t i = 0;

	while (i < SUITE_LEN(running) && running[i].group)
		i++;
	CHECK(i < SUITE_LEN(running));
	running[i] = *keeper;
}

static void forget(pid_t group)
{
	for (size_t i = 0; i < SUITE_LEN(running); i++) {
		if (running[i].group == group)
			running[i].group = 0;
	}
}

/* A process that outlives a test that crashes, by as much as it takes to kill the keeper. */
static void guard(struct keeper *keeper)
{
	int ends[2];
	char byte;

	CHECK_OK(pipe2(ends, O_CLOEXEC));
	keeper->guardian = fork();
	CHECK_OK(keeper->guardian);
	if (keeper->guardian == 0) {
		(void)setpgid(0, 0);
		close(ends[1]);
		while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
			continue;
		(void)kill(-keeper->group, SIGKILL);
		_exit(0);
	}
	close(ends[0]);
	keeper->guard = ends[1];
}

static void unguard(struct keeper *keeper)
{
	kill(keeper->guardian, SIGKILL);
	waitpid(keeper->guardian, NULL, 0);
	close(keeper->guard);
	forget(keeper->group);
}

static pid_t fork_keeper(const struct aph_hold_keeper_options *options)
{
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	CHECK_OK(pid);
	if (pid)
		return pid;
	setpgid(0, 0);
	for (int fd = 3; fd < 64; fd++)
		close(fd);
	_exit(-aph_hold_keep(options));
}

void keeper_start(struct keeper *keeper, const struct aph_hold_keeper_options *options)
{
	pid_t before = keeper_pid();

	keeper->group = fork_keeper(options);
	(void)setpgid(keeper->group, keeper->group);
	guard(keeper);
	remember(keeper);
	(void)keeper_await_pid(before);
}

void keeper_start_rules(struct keeper *keeper, const char *const *rules)
{
	struct aph_hold_keeper_options options = { .size = sizeof(options), .rules = rules };

	while (rules[options.n_rules])
		options.n_rules++;
	keeper_start(keeper, &options);
}

int keeper_try(const struct aph_hold_keeper_options *options)
{
	pid_t pid = fork_keeper(options);
	int status;

	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

void keeper_gone(struct keeper *keeper)
{
	uint64_t end = SOON;
	int status;
	pid_t pid;

	while ((pid = waitpid(-keeper->group, &status, WNOHANG)) >= 0) {
		CHECK(aph_time_ns() < end);
		if (pid == 0)
			pause_ms(2);
		else
			CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
			      (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
	}
	CHECK(errno == ECHILD);
	unguard(keeper);
}

void keeper_stop(struct keeper *keeper)
{
	struct aph_hold *hold = hold_open();

	assert_int_equal(aph_hold_stop(hold, SOON), 0);
	aph_hold_close(hold);
	keeper_gone(keeper);
}

void keeper_kill(struct keeper *keeper)
{
	(void)kill(-keeper->group, SIGKILL);
	while (waitpid(-keeper->group, NULL, 0) >= 0 || errno == EINTR)
		continue;
	unguard(keeper);
	dir_remove_sockets();
}

pid_t keeper_pid(void)
{
	struct aph_service_info *list;
	pid_t pid = 0;
	size_t n;

	if (aph_directory_list(&list, &n, SOON) < 0)
		return 0;
	for (size_t i = 0; i < n && !pid; i++) {
		if (strcmp(list[i].name.name, "hold") == 0)
			pid = list[i].pid;
	}
	free(list);
	return pid;
}

pid_t keeper_twin(pid_t keeper)
{
	char path[64], text[64] = "";
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)keeper, (int)keeper);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	fclose(file);
	return (pid_t)strtol(text, NULL, 10);
}

pid_t keeper_await_pid(pid_t not )
{
	uint64_t end = SOON;
	pid_t pid;

	while ((pid = keeper_pid()) == 0 || pid == not ) {
		CHECK(aph_time_ns() < end);
		pause_ms(1);
	}
	return pid;
}

pid_t keeper_await_twin(pid_t keeper, pid_t not )
{
	uint64_t end = SOON;
	pid_t pid;

	while ((pid = keeper_twin(keeper)) == 0 || pid == not ) {
		CHECK(aph_time_ns() < end);
		pause_ms(1);
	}
	return pid;
}

int fds_of(pid_t pid)
{
	char path[64];
	int n = 0;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

int fds_settled(pid_t pid, struct aph_hold *hold)
{
	int n = fds_of(pid), same = 0;

	while (same < 5) {
		int now;

		/* The keeper has run meanwhile, and looked after whatever else was waiting. */
		CHECK(retrieve(hold, "no.such.name", "", 0) == -ENOENT);
		pause_ms(3);
		now = fds_of(pid);
		same = now == n ? same + 1 : 0;
		n = now;
	}
	return n;
}

void fds_await(pid_t pid, int n)
{
	uint64_t end = SOON;

	while (fds_of(pid) != n) {
		if (aph_time_ns() > end)
			check_failed(__FILE__, __LINE__, "descriptors of the keeper",
				     fds_of(pid) - n);
		pause_ms(2);
	}
}

/* -- storing and retrieving -------------------------------------------------------------------- */

struct aph_hold *hold_open(void)
{
	struct aph_hold *hold;

	assert_int_equal(aph_hold_open(&hold, NULL, SOON), 0);
	return hold;
}

int marked(const char *text)
{
	int fd = memfd_create("marked", MFD_CLOEXEC);

	CHECK_OK(fd);
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return fd;
}

bool is_marked(int fd, const char *text)
{
	char found[256];
	ssize_t n = pread(fd, found, sizeof(found) - 1, 0);

	CHECK_OK(n);
	found[n] = '\0';
	return strcmp(found, text) == 0;
}

int store(struct aph_hold *hold, const char *name, const char *text, uint32_t flags)
{
	const struct aph_hold_options options = { .size = sizeof(options), .flags = flags };
	int fd = marked(text);
	int r = aph_hold_store(hold, name, &fd, 1, &options, SOON);

	close(fd);
	return r;
}

int retrieve(struct aph_hold *hold, const char *name, const char *text, uint32_t flags)
{
	const struct aph_hold_options options = { .size = sizeof(options), .flags = flags };
	size_t n = 1;
	int fd, r;

	r = aph_hold_retrieve(hold, name, &fd, &n, &options, SOON);
	if (r < 0)
		return r;
	CHECK(n == 1);
	r = !is_marked(fd, text);
	close(fd);
	return r;
}

/* -- users ------------------------------------------------------------------------------------- */

void need_root(void)
{
	if (geteuid() != 0)
		suite_skip("only root can become two other users");
}

void become(uid_t uid)
{
	CHECK_OK(setgroups(0, NULL));
	CHECK_OK(setresgid(uid, uid, uid));
	CHECK_OK(setresuid(uid, uid, uid));
}
