/* SPDX-License-Identifier: MIT */
#include "dir.h"

#include "check.h"
#include "child.h"
#include "fds.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char path_now[64];
static struct fds fds_before;
static pid_t owner;

/* What a walk over the directory finds; nftw() has no argument to pass. */
static int walk_sockets;
static char walk_last[256];
static int walk_remove;
static int walk_say;

const char *dir_path(void)
{
	return path_now;
}

static int visit(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)kind;
	(void)ftw;
	if (S_ISSOCK(st->st_mode)) {
		walk_sockets++;
		snprintf(walk_last, sizeof(walk_last), "%s", path);
		if (walk_say)
			fprintf(stderr, "socket file %s\n", path);
		if (walk_remove)
			unlink(path);
	}
	return 0;
}

static int visit_remove(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	remove(path);
	return 0;
}

int dir_sockets(void)
{
	walk_sockets = 0;
	nftw(path_now, visit, 8, FTW_PHYS);
	return walk_sockets;
}

void dir_check_sockets(int n)
{
	if (dir_sockets() == n)
		return;
	walk_say = 1;
	n = dir_sockets();
	walk_say = 0;
	check_failed(__FILE__, __LINE__, "the number of socket files", -n);
}

void dir_only_socket(char *path, size_t size)
{
	dir_check_sockets(1);
	CHECK(strlen(walk_last) < size);
	memcpy(path, walk_last, strlen(walk_last) + 1);
}

void dir_remove_sockets(void)
{
	walk_remove = 1;
	dir_sockets();
	walk_remove = 0;
}

static void remove_all(void)
{
	if (getpid() == owner && path_now[0])
		nftw(path_now, visit_remove, 8, FTW_PHYS | FTW_DEPTH);
	path_now[0] = 0;
}

void dir_begin(void)
{
	static int registered;

	if (!registered++)
		atexit(remove_all);
	/* Writing to a socket whose reader died must not end a test before its check does. */
	signal(SIGPIPE, SIG_IGN);
	owner = getpid();
	snprintf(path_now, sizeof(path_now), "/tmp/aph-test.XXXXXX");
	CHECK(mkdtemp(path_now));
	/*
	 * As packaging makes it: everybody may register and look, nobody may touch another's file.
	 */
	CHECK_OK(chmod(path_now, 01777));
	CHECK_OK(setenv("ANTIPHON_RUNTIME_DIR", path_now, 1));
	fds_take(&fds_before);
}

void dir_end(void)
{
	CHECK(fds_differ(&fds_before) == 0);
	CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
	dir_check_sockets(0);
	remove_all();
}

int dir_setup(void **state)
{
	(void)state;
	dir_begin();
	return 0;
}

int dir_teardown(void **state)
{
	int bad = 0;

	(void)state;
	if (fds_differ(&fds_before))
		bad = -1;
	if (child_kill_left() || waitpid(-1, NULL, WNOHANG) != -1) {
		fprintf(stderr, "a child process was left behind\n");
		bad = -1;
	}
	if (dir_sockets()) {
		fprintf(stderr, "%d socket files were left, one is %s\n", walk_sockets, walk_last);
		bad = -1;
	}
	remove_all();
	return bad;
}
