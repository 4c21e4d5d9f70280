/* SPDX-License-Identifier: MIT */
/*
 * Registering a service: as whom, under which file, and what becomes of others that have the same
 * name, alive or dead. The file is shown first and rivals are looked for then, so that of two who
 * do so at once at least one sees the other.
 */
#include "base/error.h"
#include "local/hello.h"
#include "local/local.h"
#include "local/rendezvous.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * How often, and for how long, an exclusive service looks whether a newer one gives way: 100 ms in
 * all.
 */
#define NAPS_MAX 20
#define NAP_NS	 5000000

/* Whether this process is in the group: 1, 0, -errno. */
static int is_member(gid_t gid)
{
	int n = getgroups(0, NULL), found = gid == getegid();
	gid_t *groups;

	if (found || n <= 0)
		return found;
	groups = calloc((size_t)n, sizeof(*groups));
	if (!groups)
		return aph_err(-ENOMEM, "no memory for the groups of this process");
	n = getgroups(n, groups);
	while (n > 0 && !found)
		found = groups[--n] == gid;
	free(groups);
	return found;
}

/* As whom the caller may register. */
static int check_rights(struct aph_name *name)
{
	int r;

	if (name->uid == APH_ID_DEFAULT)
		name->uid = (int64_t)geteuid();
	if (name->gid == APH_ID_DEFAULT)
		name->gid = APH_ID_ANY;
	if (name->uid >= UINT32_MAX || name->gid >= UINT32_MAX)
		return aph_err(-EINVAL, "that is not a %s: it has to be below 4294967295",
			       name->uid >= UINT32_MAX ? "uid" : "gid");
	if (geteuid() == 0)
		return 0;
	if (name->uid >= 0 && name->uid != (int64_t)geteuid())
		return aph_err(-EPERM, "only user %lld or root can register services of that user",
			       (long long)name->uid);
	r = name->gid < 0 ? 1 : is_member((gid_t)name->gid);
	if (r != 0)
		return r < 0 ? r : 0;
	return aph_err(-EPERM,
		       "only members of group %lld or root can register services of that group",
		       (long long)name->gid);
}

static bool is_same(const struct aph_name *a, const struct aph_name *b)
{
	return strcmp(a->name, b->name) == 0 && a->uid == b->uid && a->gid == b->gid;
}

/* Which other services of the same triple count. */
enum rivals {
	ALL,
	OLDER,
	GIVERS, /* older ones of users whom we trust with our clients */
};

static bool is_rival(const struct aph_local_service *ls, const struct aph_rendezvous_entry *entry,
		     enum rivals which)
{
	if (!is_same(&entry->name, &ls->base.name) || entry->serial == ls->serial)
		return false;
	if (which != ALL && entry->serial > ls->serial)
		return false;
	return which != GIVERS || entry->owner == 0 || entry->owner == geteuid();
}

/*
 * Connects to the newest of them. The socket, or -EAGAIN (there is one, and too many wait there),
 * -ENOENT (there is none) and other errors.
 */
static int meet_rival(const struct aph_local_service *ls, enum rivals which)
{
	struct aph_name wanted = ls->base.name;
	struct aph_rendezvous_entry *entries;
	int r, found = -ENOENT;
	size_t n, i;

	wanted.uid = wanted.gid = APH_ID_ANY;
	r = aph_rendezvous_search(&entries, &n, &wanted);
	if (r < 0)
		return r;
	for (i = 0; i < n && found == -ENOENT; i++) {
		if (!is_rival(ls, &entries[i], which))
			continue;
		r = aph_rendezvous_connect(&entries[i]);
		if (r != -ECONNREFUSED && r != -ENOENT)
			found = r;
	}
	free(entries);
	return found;
}

/* Whether there is one: 1, 0, or an error. */
static int has_rival(const struct aph_local_service *ls, enum rivals which)
{
	int sock = meet_rival(ls, which);

	if (sock >= 0)
		(void)close(sock);
	return sock >= 0 || sock == -EAGAIN ? 1 : sock == -ENOENT ? 0 : sock;
}

/* Tells the service before, if there is one, that it is asked to end. */
static int ask_to_end(const struct aph_local_service *ls)
{
	struct aph_hello hello = {
		.magic = APH_LOCAL_MAGIC,
		.version = APH_LOCAL_VERSION,
		.kind = APH_HELLO_TERMINATE,
	};
	int sock = meet_rival(ls, OLDER);

	if (sock < 0)
		return sock == -ENOENT || sock == -EAGAIN ? 0 : sock;
	(void)aph_hello_send(sock, &hello, sizeof(hello), NULL, 0);
	(void)close(sock);
	return 0;
}

static int publish_name(struct aph_local_service *ls)
{
	char path[PATH_MAX];

	ls->dir_fd = aph_rendezvous_open(path);
	if (ls->dir_fd < 0)
		return ls->dir_fd;
	ls->serial = aph_rendezvous_serial();
	for (int i = 0; i < APH_SERIALS_TRIED; i++) {
		aph_rendezvous_format(ls->file, &ls->base.name, ++ls->serial);
		ls->listener = aph_rendezvous_listen(ls->dir_fd, ls->file);
		if (ls->listener != -EADDRINUSE)
			break;
	}
	return ls->listener < 0 ? ls->listener : 0;
}

/*
 * Files that dead processes have left under the same triple go: connecting finds them out. So do
 * those of processes that died while they registered anything here.
 */
static void sweep(const struct aph_local_service *ls)
{
	struct aph_name wanted = ls->base.name;
	struct aph_rendezvous_entry *entries;
	size_t n, i;

	aph_rendezvous_sweep_hidden(ls->dir_fd);
	wanted.uid = wanted.gid = APH_ID_ANY;
	if (aph_rendezvous_search(&entries, &n, &wanted) < 0)
		return;
	for (i = 0; i < n; i++) {
		int sock;

		if (!is_same(&entries[i].name, &ls->base.name) || entries[i].serial == ls->serial)
			continue;
		sock = aph_rendezvous_connect(&entries[i]);
		if (sock >= 0)
			(void)close(sock);
	}
	free(entries);
}

/* Other threads use the endpoint meanwhile; the service is not known to any of them. */
static void nap(struct aph_endpoint *ep)
{
	const struct timespec time = { .tv_nsec = NAP_NS };

	aph_unlock(ep);
	(void)nanosleep(&time, NULL);
	aph_lock(ep);
}

/*
 * Whoever is to be the only one gives way to an older one that is there. A newer one gives way to
 * us if it looks now; if it had looked before we could be seen it stays, and we give way. That is
 * told apart by waiting a moment.
 */
static int be_the_only_one(const struct aph_local_service *ls)
{
	int r = 0, i;

	for (i = 0; i < NAPS_MAX; i++) {
		r = has_rival(ls, OLDER);
		if (r != 0)
			break;
		r = has_rival(ls, ALL);
		if (r <= 0)
			return r;
		nap(ls->base.ep);
	}
	if (r < 0)
		return r;
	return aph_err(-EEXIST,
		       "%s is already served: end that service first, or register without "
		       "being exclusive",
		       ls->base.name.name);
}

static int settle_rivals(struct aph_local_service *ls)
{
	uint32_t flags = ls->base.flags;
	int sock;

	if (flags & APH_SERVICE_TAKE) {
		sock = meet_rival(ls, GIVERS);
		if (sock >= 0 && aph_local_take_over(ls, sock))
			return 0;
	}
	if (flags & APH_SERVICE_TERMINATE)
		return ask_to_end(ls);
	return flags & APH_SERVICE_EXCLUSIVE ? be_the_only_one(ls) : 0;
}

int aph_local_register(struct aph_local_service *ls)
{
	int r = check_rights(&ls->base.name);

	if (r == 0)
		r = publish_name(ls);
	if (r == 0)
		r = settle_rivals(ls);
	if (r == 0)
		sweep(ls);
	return r;
}
