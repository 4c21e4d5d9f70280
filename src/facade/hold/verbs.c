/* SPDX-License-Identifier: MIT */
/*
 * Storing, retrieving, deleting, listing, expiring.
 */
#include "keeper.h"

#include "close.h"

#include "../../base/quick.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* -- storing ----------------------------------------------------------------------------------- */

/* libantiphon binds its sockets as /proc/self/fd/N/.SERIAL, see its protocol. */
static bool is_antiphons(const struct sockaddr_un *address, socklen_t len)
{
	static const char top[] = "/proc/self/fd/";
	const char *base;
	char path[sizeof(address->sun_path) + 1];
	size_t n;

	if (len <= offsetof(struct sockaddr_un, sun_path) || len > sizeof(*address))
		return false;
	n = len - offsetof(struct sockaddr_un, sun_path);
	memcpy(path, address->sun_path, n);
	path[n] = '\0';
	if (strncmp(path, top, sizeof(top) - 1) != 0)
		return false;
	base = strrchr(path, '/') + 1;
	return base[0] == '.' && strspn(base + 1, "0123456789abcdef") == 16 && !base[17];
}

/*
 * A channel cannot be kept: it is memory, and what one process knows. And a keeper that holds its
 * client's end would never see it hang up.
 */
static bool is_own_socket(int fd)
{
	struct sockaddr_un address;
	socklen_t len = sizeof(address);

	if (getpeername(fd, (struct sockaddr *)&address, &len) == 0 && is_antiphons(&address, len))
		return true;
	len = sizeof(address);
	return getsockname(fd, (struct sockaddr *)&address, &len) == 0 &&
	       is_antiphons(&address, len);
}

/* `*plain` becomes false if one of the descriptors may linger or take long to close. */
static int check_store(const struct hold_keeper *keeper, const struct hold_job *job,
		       const struct hold_entry *old, bool *plain)
{
	const struct hold_table *table = &keeper->table;
	uint32_t n_old = old ? old->n_fds : 0;

	if (old && !(job->request.flags & APH_HOLD_REPLACE))
		return -EEXIST;
	if (old && (old->leaving || old->offer))
		return -EBUSY;
	if (job->n_fds > n_old && job->n_fds - n_old > hold_room(keeper, job->owner))
		return -EDQUOT;
	if (table->n_fds - n_old + job->n_fds > keeper->fds_max ||
	    (!old && table->n_entries >= keeper->names_max))
		return -ENFILE;
	for (uint32_t i = 0; i < job->n_fds; i++) {
		int domain;

		if (!aph_closes_quickly(job->fds[i]))
			*plain = false;
		if (hold_may_linger(job->fds[i], &domain))
			*plain = false;
		else if (domain == AF_UNIX && is_own_socket(job->fds[i]))
			return -EPERM;
	}
	return 0;
}

static uint64_t expiry_of(const struct hold_job *job)
{
	return job->request.arg ? aph_deadline_ms(job->request.arg) : 0;
}

int hold_store(struct hold_keeper *keeper, struct hold_job *job)
{
	struct hold_entry *old, *entry;
	bool plain = true;
	int r;

	if (job->n_fds < 1 || job->n_fds > APH_HOLD_FDS_MAX)
		return -EINVAL;
	if (!hold_may(keeper, job->who, HOLD_CAN_STORE, job->owner, job->name))
		return -EACCES;
	old = hold_table_find(&keeper->table, job->owner, job->name);
	/* Said once more by somebody who did not hear the answer. */
	if (old && job->request.token && old->token == job->request.token)
		return aph_call_reply(job->call, NULL, 0) == -ENOMEM ? -ENOMEM : 0;
	r = check_store(keeper, job, old, &plain);
	if (r == 0)
		r = hold_table_prepare(&keeper->table, job->owner);
	if (r < 0)
		return r;
	entry = hold_entry_new(job->owner, job->name, job->fds, job->n_fds);
	if (!entry)
		return -ENOMEM;
	entry->plain = plain;
	entry->expiry_ns = expiry_of(job);
	entry->stored_ns = aph_time_ns();
	entry->token = job->request.token;
	entry->serial = hold_new_serial(keeper);
	r = hold_save_put(keeper, entry, old);
	if (r < 0) {
		entry->n_fds = 0;
		hold_entry_free(entry);
		return r;
	}
	job->n_fds = 0;
	if (old)
		hold_table_remove(&keeper->table, old);
	hold_table_add(&keeper->table, entry);
	(void)aph_call_reply(job->call, NULL, 0);
	/* Nobody has to wait for the old ones to be closed. */
	hold_entry_free(old);
	return 0;
}

/* -- retrieving -------------------------------------------------------------------------------- */

struct taking {
	struct hold_work work;
	struct hold_entry *entry;
};

/* What was taken and has arrived is forgotten; else it stays. */
static void taking_ended(struct hold_keeper *keeper, struct hold_work *work,
			 enum aph_outcome outcome)
{
	struct hold_entry *entry = ((struct taking *)work)->entry;

	hold_work_free(keeper, work);
	if (outcome != APH_DISPOSED) {
		entry->leaving = false;
		hold_table_resume(&keeper->table, entry);
	} else if (hold_save_drop(keeper, entry) == 0) {
		hold_drop(keeper, entry);
	} else {
		/* Nobody else gets it meanwhile; see hold_expire(). */
		entry->expiry_ns = 1;
		hold_table_resume(&keeper->table, entry);
	}
}

static int begin_taking(struct hold_keeper *keeper, struct hold_job *job, struct hold_entry *entry)
{
	struct taking *taking;

	if (hold_is_waiting_enough(keeper, job->who->euid))
		return -EAGAIN;
	taking = calloc(1, sizeof(*taking));
	if (!taking)
		return -ENOMEM;
	taking->work.ended = taking_ended;
	taking->work.verb = HOLD_RETRIEVE;
	taking->entry = entry;
	hold_work_add(keeper, &taking->work, job);
	entry->leaving = true;
	hold_table_suspend(&keeper->table, entry);
	return 0;
}

static void undo_taking(struct hold_keeper *keeper, struct hold_job *job, struct hold_entry *entry)
{
	struct hold_work *work = aph_call_data(job->call);

	hold_work_free(keeper, work);
	entry->leaving = false;
	hold_table_resume(&keeper->table, entry);
}

bool hold_is_taken_from(const struct hold_keeper *keeper)
{
	const struct hold_work *work = keeper->works;

	while (work && work->verb != HOLD_RETRIEVE)
		work = work->next;
	return work;
}

int hold_retrieve(struct hold_keeper *keeper, struct hold_job *job)
{
	bool take = job->request.flags & APH_HOLD_TAKE;
	struct hold_entry *entry;
	struct hold_given given;
	ssize_t n;
	int r;

	if (!hold_may(keeper, job->who, HOLD_CAN_RETRIEVE | (take ? HOLD_CAN_DELETE : 0),
		      job->owner, job->name))
		return -EACCES;
	entry = hold_table_find(&keeper->table, job->owner, job->name);
	if (!entry)
		return -ENOENT;
	if (entry->leaving || (take && entry->offer))
		return -EBUSY;
	if (job->request.arg < entry->n_fds)
		return -EMSGSIZE;
	if (take) {
		r = begin_taking(keeper, job, entry);
		if (r < 0)
			return r;
	}
	given = (struct hold_given){ .serial = entry->serial, .n_fds = entry->n_fds };
	n = aph_call_send_fds(job->call, &given, sizeof(given), entry->fds, entry->n_fds, 0);
	if (n == (ssize_t)sizeof(given) || n == -EPIPE || n == -ENOTCONN)
		return 0;
	/* Nothing went. Too many of its descriptors are under way: it may ask again. */
	if (take)
		undo_taking(keeper, job, entry);
	return n == -EAGAIN ? -EAGAIN : -EIO;
}

/* -- deleting ---------------------------------------------------------------------------------- */

int hold_delete(struct hold_keeper *keeper, struct hold_job *job)
{
	struct hold_entry *entry;
	int r;

	if (!hold_may(keeper, job->who, HOLD_CAN_DELETE, job->owner, job->name))
		return -EACCES;
	entry = hold_table_find(&keeper->table, job->owner, job->name);
	if (!entry)
		return -ENOENT;
	if (entry->leaving || hold_is_given(entry))
		return -EBUSY;
	r = hold_save_drop(keeper, entry);
	if (r < 0)
		return r;
	hold_offer_end(keeper, entry, -ENOENT);
	hold_drop(keeper, entry);
	(void)aph_call_reply(job->call, NULL, 0);
	return 0;
}

void hold_expire(struct hold_keeper *keeper)
{
	struct hold_entry *entry;
	uint64_t now;

	if (hold_table_next_expiry(&keeper->table) == APH_FOREVER)
		return;
	now = aph_time_ns();
	while ((entry = hold_table_expired(&keeper->table, now)) &&
	       hold_save_drop(keeper, entry) == 0) {
		hold_offer_end(keeper, entry, -ENOENT);
		hold_drop(keeper, entry);
	}
}

/* -- listing ----------------------------------------------------------------------------------- */

struct listing {
	const struct hold_keeper *keeper;
	const struct hold_job *job;
	struct aph_hold_info *infos;
	size_t n, max;
	uint64_t now_ns;
};

/*
 * Who may transfer a name of his own is told of it, if he names it: so he learns whether he has
 * become the owner when the keeper died on his confirmation.
 */
static bool may_see(const struct listing *listing, const struct hold_entry *entry)
{
	const struct hold_job *job = listing->job;

	if (hold_may(listing->keeper, job->who, HOLD_CAN_LIST, entry->owner, entry->name))
		return true;
	return entry->owner == job->who->euid && strcmp(entry->name, job->name) == 0 &&
	       hold_may(listing->keeper, job->who, HOLD_CAN_TRANSFER, entry->owner, entry->name);
}

static int add_info(const struct hold_entry *entry, void *arg)
{
	struct listing *listing = arg;
	const struct hold_job *job = listing->job;
	struct aph_hold_info *info;

	if ((!(job->request.flags & APH_HOLD_ALL) && entry->owner != job->owner) ||
	    strncmp(entry->name, job->name, strlen(job->name)) != 0 || !may_see(listing, entry))
		return 0;
	if (listing->n == listing->max) {
		size_t max = listing->max ? 2 * listing->max : 16;

		info = reallocarray(listing->infos, max, sizeof(*info));
		if (!info)
			return -ENOMEM;
		listing->infos = info;
		listing->max = max;
	}
	info = &listing->infos[listing->n++];
	memset(info, 0, sizeof(*info));
	memcpy(info->name, entry->name, sizeof(info->name));
	info->owner = entry->owner;
	info->n_fds = entry->n_fds;
	info->serial = entry->serial;
	info->age_ms = (listing->now_ns - entry->stored_ns) / 1000000;
	/* 0 would mean for ever. */
	if (entry->expiry_ns)
		info->expiry_ms = entry->expiry_ns > listing->now_ns
					  ? (entry->expiry_ns - listing->now_ns) / 1000000 + 1
					  : 1;
	info->offered = hold_is_offered(entry, &info->offered_to);
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct aph_hold_info *left = a, *right = b;

	if (left->owner != right->owner)
		return left->owner < right->owner ? -1 : 1;
	return strcmp(left->name, right->name);
}

int hold_list(struct hold_keeper *keeper, struct hold_job *job)
{
	struct listing listing = { .keeper = keeper, .job = job, .now_ns = aph_time_ns() };
	int r;

	/* Who may see nothing at all is told so. */
	if (!hold_is_master(keeper, job->who) && !keeper->n_rules)
		return -EACCES;
	r = hold_table_each(&keeper->table, add_info, &listing);
	if (r == 0) {
		if (listing.n)
			qsort(listing.infos, listing.n, sizeof(*listing.infos), compare);
		r = aph_call_reply(job->call, listing.infos, listing.n * sizeof(*listing.infos));
	}
	free(listing.infos);
	return r == -ENOMEM ? r : 0;
}
