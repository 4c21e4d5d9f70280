/* SPDX-License-Identifier: MIT */
/*
 * Notices: how services of the remote transport are shown in the runtime directory.
 *
 * Such a service waits in its UDP driver and nowhere else, so nobody can ask it by a socket. It has
 * a regular file there that it keeps mapped, and counts in it; who wants to know reads. The lock on
 * the file (flock(2)) goes when its process does, and so tells a notice from what a dead process
 * has left. What is shown is no secret: RxRPC itself tells more of it to anybody on this host
 * (DEBUG packets).
 *
 * The file can be made shorter by its owner alone: who may do that to a service may as well kill
 * it.
 */
#include "base/fd.h"
#include "local/notice.h"
#include "base/error.h"
#include "local/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct aph_notice {
	int dir_fd, fd;
	struct aph_stats_message *page;
	char file[APH_RENDEZVOUS_FILE_MAX + 1];
};

/* -- reading ----------------------------------------------------------------------------------- */

/* A process of its owner; 0 when the notice claims another one. */
static pid_t check_pid(pid_t pid, uid_t owner)
{
	char path[32];
	struct stat st;

	(void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	return pid > 0 && stat(path, &st) == 0 && st.st_uid == owner ? pid : 0;
}

bool aph_notice_read(struct aph_stats_message *out, const struct aph_rendezvous_entry *entry)
{
	int fd = aph_rendezvous_open_notice(entry);
	bool is_held, is_whole;

	if (fd < 0)
		return false;
	is_held = flock(fd, LOCK_SH | LOCK_NB) < 0;
	is_whole = pread(fd, out, sizeof(*out), 0) == (ssize_t)sizeof(*out) &&
		   out->magic == APH_LOCAL_MAGIC && out->version == APH_LOCAL_VERSION;
	(void)close(fd);
	if (!is_held)
		aph_rendezvous_remove(entry);
	if (!is_held || !is_whole)
		return false;
	out->pid = check_pid(out->pid, entry->owner);
	return true;
}

static void remove_stale_ones(void)
{
	struct aph_rendezvous_entry *entries;
	struct aph_stats_message shown;
	size_t n;

	if (aph_rendezvous_search(&entries, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		if (entries[i].is_notice)
			(void)aph_notice_read(&shown, &entries[i]);
	}
	free(entries);
}

/* -- writing ----------------------------------------------------------------------------------- */

/* The file's size, mode, lock and mapping. 0, -errno. */
static int map_whole(struct aph_notice *notice)
{
	const size_t size = sizeof(*notice->page);
	/* All of it is there, or a full disk would kill us later. */
	int r = -posix_fallocate(notice->fd, 0, (off_t)size);
	void *page;

	if (r < 0)
		return r;
	if (fchmod(notice->fd, 0644) < 0 || flock(notice->fd, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, notice->fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	notice->page = page;
	/* A child must not count for its parent. */
	(void)madvise(page, size, MADV_DONTFORK);
	return 0;
}

/* Under a hidden name until it is whole and locked. 0, -errno; -EEXIST: the number is taken. */
static int make_with(struct aph_notice *notice, const struct aph_name *name, uint64_t serial)
{
	char hidden[32];
	int r;

	(void)snprintf(hidden, sizeof(hidden), ".%016" PRIx64, serial);
	aph_rendezvous_format(notice->file, name, serial);
	notice->fd = openat(notice->dir_fd, hidden, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (notice->fd < 0)
		return -errno;
	r = map_whole(notice);
	if (r == 0 && renameat(notice->dir_fd, hidden, notice->dir_fd, notice->file) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(notice->dir_fd, hidden, 0);
	return r;
}

static int make(struct aph_notice *notice, const struct aph_name *name)
{
	uint64_t serial = aph_rendezvous_serial();
	int r = -EEXIST;

	for (int i = 0; i < APH_SERIALS_TRIED && r == -EEXIST; i++)
		r = make_with(notice, name, ++serial);
	return r;
}

static void free_notice(struct aph_notice *notice)
{
	aph_fd_close(&notice->fd);
	aph_fd_close(&notice->dir_fd);
	free(notice);
}

int aph_local_show(struct aph_service *service)
{
	struct aph_name name = { .uid = (int64_t)geteuid(), .gid = APH_ID_ANY };
	struct aph_notice *notice;
	char path[PATH_MAX];
	int r;

	if (service->ops->address(service, name.name, sizeof(name.name)) < 0)
		return aph_err(-ENAMETOOLONG, "the service's address has more than %d characters",
			       APH_NAME_MAX);
	notice = malloc(sizeof(*notice));
	if (!notice)
		return aph_err(-ENOMEM, "out of memory");
	*notice = (struct aph_notice){ .fd = -1, .dir_fd = aph_rendezvous_open(path) };
	r = notice->dir_fd;
	if (r >= 0) {
		r = make(notice, &name);
		if (r < 0)
			(void)aph_err(r, "cannot make a file in the runtime directory %s: %s%s",
				      path, strerror(-r), aph_advice(-r));
	}
	if (r < 0) {
		if (notice->page)
			(void)munmap(notice->page, sizeof(*notice->page));
		free_notice(notice);
		return r;
	}
	aph_rendezvous_sweep_hidden(notice->dir_fd);
	remove_stale_ones();
	aph_stats_fill(notice->page, service);
	service->stats = &notice->page->stats;
	service->notice = notice;
	return 0;
}

void aph_local_hide(struct aph_service *service)
{
	struct aph_notice *notice = service->notice;

	if (!notice)
		return;
	service->notice = NULL;
	service->own_stats = *service->stats;
	service->stats = &service->own_stats;
	(void)unlinkat(notice->dir_fd, notice->file, 0);
	(void)munmap(notice->page, sizeof(*notice->page));
	free_notice(notice);
}

void aph_local_forget(struct aph_service *service)
{
	if (!service->notice)
		return;
	/* The mapping did not come along. */
	service->stats = &service->own_stats;
	free_notice(service->notice);
	service->notice = NULL;
}
