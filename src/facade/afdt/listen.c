/* SPDX-License-Identifier: MIT */
/*
 * Socket files. A server of ours binds its socket under a spelling of the path that leads to the
 * same place and that clients can see, which tells them what it understands (docs/decisions/0025).
 *
 * Reclaiming: the owner holds a lock on PATH.lock for as long as it lives, so among those that do,
 * nobody can take a path from somebody alive, not even one that has bound and does not listen yet.
 * Others, who know of no lock, are asked by connecting; and since they may come in between, what
 * was replaced is looked at afterwards, and put back if it is not what was meant. The new socket
 * listens before it has its name.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG	  4096
#define LOCK_NAME ".lock"
#define TRIES	  8

/*
 * A file this young may belong to a server that is about to listen, and is asked again a moment
 * later.
 */
#define YOUNG_S 2
#define NAP_NS	2000000

void aph_afdt_unlink(const char *path)
{
	int saved = errno;

	unlink(path);
	errno = saved;
}

/* Writes the path with the mark, if there is room. */
static bool mark_path(char *marked, size_t size, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	int dir_len = slash ? (int)(slash - path) : 1;
	int n = snprintf(marked, size, "%.*s%s%s", dir_len, slash ? path : ".", APH_AFDT_MARK,
			 base);

	return n > 0 && (size_t)n < size;
}

/* Binds, sets the mode and listens. On failure nothing is left behind. */
static int listen_on(const struct aph_afdt_address *address, mode_t mode, int flags,
		     struct afdt_error_t *err)
{
	int sock = aph_afdt_socket(flags, err), r;

	if (sock < 0)
		return sock;
	/* Never more than is wanted, not for an instant; and in the end no less. */
	if ((mode && fchmod(sock, mode) < 0) ||
	    bind(sock, (const struct sockaddr *)&address->un, address->len) < 0) {
		r = aph_afdt_fail(err, AFDT_BIND, errno, "cannot bind to the path");
		aph_afdt_close(sock);
		return r;
	}
	if (mode && chmod(address->un.sun_path, mode) < 0) {
		r = aph_afdt_fail(err, AFDT_BIND, errno, "cannot set the mode of the socket file");
	} else if (listen(sock, BACKLOG) < 0) {
		r = aph_afdt_fail(err, AFDT_LISTEN, errno, "cannot listen");
	} else {
		return sock;
	}
	aph_afdt_unlink(address->un.sun_path);
	aph_afdt_close(sock);
	return r;
}

int aph_afdt_listen_at(const char *path, mode_t mode, int flags, bool mark,
		       struct afdt_error_t *err)
{
	struct aph_afdt_address address;
	char marked[sizeof(address.un.sun_path)];
	int r = aph_afdt_address_set(&address, path, err);

	if (r == 0 && mark && mark_path(marked, sizeof(marked), path))
		r = aph_afdt_address_set(&address, marked, err);
	return r < 0 ? r : listen_on(&address, mode, flags, err);
}

APH_API int afdt_listen(const char *fname, struct afdt_error_t *err)
{
	int sock = aph_afdt_listen_at(fname, 0, 0, false, err);

	return sock < 0 ? -1 : sock;
}

/* -- reclaiming -------------------------------------------------------------------------------- */

/* What is being claimed. */
struct claiming {
	struct aph_afdt_claim *claim;
	struct aph_afdt_address address; /* of the path itself */
	const char *base;		 /* its last component */
	char temporary[40];		 /* the name of the new socket until it has its own */
	bool dead_there;		 /* a dead owner's file is in the way; it is this one: */
	dev_t dev;
	ino_t ino;
	struct afdt_error_t *err;
};

static int fail(const struct claiming *c, int cause, const char *message)
{
	return aph_afdt_fail(c->err, AFDT_BIND, cause, message);
}

static int open_dir(struct claiming *c, const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[sizeof(c->address.un.sun_path)] = ".";

	c->base = slash ? slash + 1 : path;
	if (slash)
		snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	c->claim->dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (c->claim->dir < 0)
		return fail(c, errno, "cannot open the path's directory");
	return 0;
}

/* Takes the lock file in hand. 1: it was removed meanwhile by its last owner, try again. */
static int try_lock(const struct claiming *c, const char *name)
{
	struct aph_afdt_claim *claim = c->claim;
	struct stat held, there;

	claim->lock = openat(claim->dir, name,
			     O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (claim->lock < 0)
		return fail(c, errno, "cannot open the lock file");
	if (fstat(claim->lock, &held) < 0)
		return fail(c, errno, "cannot look at the lock file");
	if (!S_ISREG(held.st_mode) || held.st_uid != geteuid())
		return fail(c, EPERM, "the lock file belongs to another user");
	if (flock(claim->lock, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? fail(c, EADDRINUSE, "the owner of the path lives")
					    : fail(c, errno, "cannot lock the lock file");
	if (fstatat(claim->dir, name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	    there.st_ino == held.st_ino && there.st_dev == held.st_dev) {
		snprintf(c->claim->lock_name, sizeof(c->claim->lock_name), "%s", name);
		return 0;
	}
	aph_afdt_close(claim->lock);
	claim->lock = -1;
	return 1;
}

static int lock(struct claiming *c)
{
	char name[sizeof(c->claim->lock_name)];
	struct stat held;
	int r = 1;

	snprintf(name, sizeof(name), "%s" LOCK_NAME, c->base);
	for (int i = 0; r == 1 && i < TRIES; i++)
		r = try_lock(c, name);
	if (r == 1)
		return fail(c, EADDRINUSE, "the lock file does not stay");
	if (r == 0 && fstat(c->claim->lock, &held) < 0)
		return fail(c, errno, "cannot look at the lock file");
	/* One for each path, so that one that was left behind is found by the next. */
	if (r == 0)
		snprintf(c->temporary, sizeof(c->temporary), ".afdt-%llx",
			 (unsigned long long)held.st_ino);
	return r;
}

/* Whether somebody listens there: 1, 0, or -errno. */
static int probe(const struct claiming *c)
{
	int sock = aph_afdt_socket(SOCK_NONBLOCK, c->err), cause;

	if (sock < 0)
		return sock;
	cause = connect(sock, (const struct sockaddr *)&c->address.un, c->address.len) < 0 ? errno
											   : 0;
	aph_afdt_close(sock);
	switch (cause) {
	case 0:
	case EAGAIN:
	case EPROTOTYPE: /* not a stream socket, but alive */
		return 1;
	case ECONNREFUSED:
	case ENOENT:
		return 0;
	default:
		return fail(c, cause, "cannot tell whether the owner of the path lives");
	}
}

/* 0 when the path is free or a dead owner's. */
static int look(struct claiming *c)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	struct timespec now;
	struct stat st;
	int r;

	c->dead_there = false;
	if (fstatat(c->claim->dir, c->base, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail(c, errno, "cannot look at the path");
	if (!S_ISSOCK(st.st_mode))
		return fail(c, EEXIST, "the path is there and is not a socket");
	if (st.st_uid != geteuid())
		return fail(c, EPERM, "the path belongs to another user");
	r = probe(c);
	clock_gettime(CLOCK_REALTIME, &now);
	if (r == 0 && now.tv_sec - st.st_ctim.tv_sec < YOUNG_S) {
		nanosleep(&nap, NULL);
		r = probe(c);
	}
	if (r)
		return r < 0 ? r : fail(c, EADDRINUSE, "somebody listens at the path");
	c->dead_there = true;
	c->dev = st.st_dev;
	c->ino = st.st_ino;
	return 0;
}

/* A socket that listens under the temporary name. */
static int listen_aside(struct claiming *c, const char *path, mode_t mode)
{
	const char *slash = strrchr(path, '/');
	char name[sizeof(c->address.un.sun_path)];
	struct aph_afdt_address address;
	struct stat st;
	int n, sock;

	n = snprintf(name, sizeof(name), "%.*s%s%s", slash ? (int)(slash - path) : 1,
		     slash ? path : ".", APH_AFDT_MARK, c->temporary);
	/* This way is always short enough. */
	if (n < 0 || (size_t)n >= sizeof(name))
		snprintf(name, sizeof(name), "/proc/self/fd/%d%s%s", c->claim->dir, APH_AFDT_MARK,
			 c->temporary);
	(void)unlinkat(c->claim->dir, c->temporary, 0);
	sock = aph_afdt_address_set(&address, name, c->err);
	if (sock == 0)
		sock = listen_on(&address, mode, SOCK_NONBLOCK, c->err);
	if (sock < 0)
		return sock;
	if (fstatat(c->claim->dir, c->temporary, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		n = fail(c, errno, "cannot look at the new socket file");
		aph_afdt_close(sock);
		return n;
	}
	c->claim->dev = st.st_dev;
	c->claim->ino = st.st_ino;
	return sock;
}

static int rename_it(const struct claiming *c, unsigned flags)
{
	int dir = c->claim->dir;

	return renameat2(dir, c->temporary, dir, c->base, flags);
}

/* Gives the new socket its name. */
static int install(const struct claiming *c)
{
	int dir = c->claim->dir;
	struct stat st;

	if (!c->dead_there) {
		if (rename_it(c, RENAME_NOREPLACE) == 0)
			return 0;
		/* Not every file system can; all of these can link. */
		if (errno == EINVAL && linkat(dir, c->temporary, dir, c->base, 0) == 0) {
			(void)unlinkat(dir, c->temporary, 0);
			return 0;
		}
		return fail(c, errno == EEXIST ? EADDRINUSE : errno,
			    "the path was taken meanwhile");
	}
	if (rename_it(c, RENAME_EXCHANGE) < 0)
		return errno == EINVAL && rename_it(c, 0) == 0
			       ? 0
			       : fail(c, errno, "cannot replace the dead owner's file");
	if (fstatat(dir, c->temporary, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    (st.st_ino == c->ino && st.st_dev == c->dev)) {
		(void)unlinkat(dir, c->temporary, 0);
		return 0;
	}
	(void)rename_it(c, RENAME_EXCHANGE);
	return fail(c, EADDRINUSE, "the path was taken meanwhile");
}

static int claim_it(struct claiming *c, const char *path, mode_t mode)
{
	int r = open_dir(c, path), sock;

	if (r == 0)
		r = lock(c);
	if (r == 0)
		r = look(c);
	if (r < 0)
		return r;
	sock = listen_aside(c, path, mode);
	if (sock < 0)
		return sock;
	r = install(c);
	if (r == 0)
		return sock;
	(void)unlinkat(c->claim->dir, c->temporary, 0);
	aph_afdt_close(sock);
	return r;
}

int aph_afdt_claim_listen(struct aph_afdt_claim *claim, const char *path, mode_t mode,
			  struct afdt_error_t *err)
{
	struct claiming c = { .claim = claim, .err = err };
	int r = aph_afdt_address_set(&c.address, path, err), saved;

	*claim = (struct aph_afdt_claim){ .dir = -1, .lock = -1 };
	if (r < 0)
		return r;
	r = claim_it(&c, path, mode);
	if (r < 0) {
		saved = errno;
		aph_afdt_claim_release(claim);
		errno = saved;
		return r;
	}
	snprintf(claim->name, sizeof(claim->name), "%s", c.base);
	return r;
}

void aph_afdt_claim_release(struct aph_afdt_claim *claim)
{
	struct stat st;

	if (claim->name[0] && fstatat(claim->dir, claim->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_ino == claim->ino && st.st_dev == claim->dev)
		(void)unlinkat(claim->dir, claim->name, 0);
	/* Under the lock, and whoever gets it next sees that the file is not there any more. */
	if (claim->lock_name[0])
		(void)unlinkat(claim->dir, claim->lock_name, 0);
	aph_afdt_close(claim->lock);
	aph_afdt_close(claim->dir);
	*claim = (struct aph_afdt_claim){ .dir = -1, .lock = -1 };
}
