/* SPDX-License-Identifier: MIT */
/*
 * The twin: a second process that has everything.
 *
 * The journal is a socket pair whose queue the kernel keeps: what was sent is the twin's, whether it has
 * looked or not, and stays there when the keeper dies. So the keeper need not wait for the twin, and the
 * twin looks only now and then, in one go. What has no room waits for it.
 *
 * The twin never serves while the keeper lives: it learns of the death by the end of the journal, and reads
 * all of it first. A keeper whose twin has died, or did not look for a second, makes another; until that is
 * there it changes nothing.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_BYTES  (4 << 20) /* of the journal; the system may give less */
#define LOOK_EACH_NS 1000000   /* how long records gather before the twin looks */
#define WAIT_MS	     1000      /* for a twin that does not look */
#define WAIT_STEP_MS 2

/* -- records --------------------------------------------------------------------------------------------- */

void hold_record_of(struct hold_record *record, enum hold_change change,
		    const struct hold_entry *entry)
{
	memset(record, 0, sizeof(*record));
	record->change = change;
	record->owner = entry->owner;
	record->expiry_ns = entry->expiry_ns;
	record->stored_ns = entry->stored_ns;
	record->token = entry->token;
	record->serial = entry->serial;
	memcpy(record->name, entry->name, sizeof(record->name));
}

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(APH_HOLD_FDS_MAX * sizeof(int))];
};

static int send_once(int sock, const struct hold_record *record, const int *fds)
{
	struct iovec part = { .iov_base = (void *)record, .iov_len = sizeof(*record) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	union control control;

	if (fds && record->n_fds) {
		size_t bytes = record->n_fds * sizeof(int);

		memset(&control.header, 0, sizeof(control.header));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(bytes);
		memcpy(CMSG_DATA(&control.header), fds, bytes);
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(bytes);
	}
	return sendmsg(sock, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int hold_record_send(int sock, const struct hold_record *record, const int *fds)
{
	uint64_t end = 0;
	int r;

	while ((r = send_once(sock, record, fds)) < 0) {
		struct pollfd wait = { .fd = sock, .events = POLLOUT };

		if (r == -EINTR)
			continue;
		/* Too many descriptors under way count like too many bytes. */
		if (r != -EAGAIN && r != -ENOBUFS && r != -ETOOMANYREFS)
			return r;
		if (!end)
			end = aph_deadline_ms(WAIT_MS);
		else if (aph_time_ns() > end)
			return -ETIMEDOUT;
		if (r == -EAGAIN)
			(void)poll(&wait, 1, WAIT_STEP_MS);
		else
			(void)poll(NULL, 0, WAIT_STEP_MS);
	}
	return 0;
}

int hold_record_recv(int sock, struct hold_record *record, int *fds, int flags)
{
	struct iovec part = { .iov_base = record, .iov_len = sizeof(*record) };
	union control control;
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	const struct cmsghdr *header;
	ssize_t n = recvmsg(sock, &message, flags | MSG_CMSG_CLOEXEC);
	size_t n_fds = 0;

	if (n <= 0)
		return n < 0 ? -errno : 0;
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
		n_fds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(header), n_fds * sizeof(int));
	}
	if (n == sizeof(*record) && n_fds == record->n_fds &&
	    !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return 1;
	while (n_fds)
		(void)close(fds[--n_fds]);
	/* Not whole: there was no room for its descriptors, most likely. */
	return message.msg_flags & MSG_CTRUNC ? -EMFILE : -EPROTO;
}

static int apply_put(struct hold_keeper *keeper, const struct hold_record *record, const int *fds)
{
	struct hold_entry *old, *entry;
	int r = hold_table_prepare(&keeper->table, record->owner);

	if (r < 0)
		return r;
	entry = hold_entry_new(record->owner, record->name, fds, record->n_fds);
	if (!entry)
		return -ENOMEM;
	entry->expiry_ns = record->expiry_ns;
	entry->stored_ns = record->stored_ns;
	entry->token = record->token;
	entry->serial = record->serial;
	if (entry->serial > keeper->last_serial)
		keeper->last_serial = entry->serial;
	old = hold_table_find(&keeper->table, record->owner, record->name);
	if (old)
		hold_drop(keeper, old);
	hold_table_add(&keeper->table, entry);
	return 0;
}

static int apply_move(struct hold_keeper *keeper, const struct hold_record *record)
{
	struct hold_entry *entry = hold_table_find(&keeper->table, record->owner, record->name);
	int r;

	if (!entry)
		return -EPROTO;
	r = hold_table_prepare(&keeper->table, record->new_owner);
	if (r < 0)
		return r;
	hold_table_remove(&keeper->table, entry);
	entry->owner = record->new_owner;
	entry->serial = record->serial;
	hold_table_add(&keeper->table, entry);
	return 0;
}

int hold_record_apply(struct hold_keeper *keeper, const struct hold_record *record, const int *fds)
{
	struct hold_entry *entry;
	int r = -EPROTO;

	if (record->change == HOLD_PUT && record->n_fds) {
		r = apply_put(keeper, record, fds);
		if (r == 0)
			return 0;
	} else if (record->change == HOLD_DROP) {
		entry = hold_table_find(&keeper->table, record->owner, record->name);
		if (entry)
			hold_drop(keeper, entry);
		r = 0;
	} else if (record->change == HOLD_MOVE) {
		r = apply_move(keeper, record);
	}
	for (uint32_t i = 0; i < record->n_fds; i++)
		(void)close(fds[i]);
	return r;
}

/* -- the keeper's side ----------------------------------------------------------------------------------- */

bool hold_twin_is_missing(const struct hold_keeper *keeper)
{
	return keeper->survival == APH_HOLD_SURVIVE_TWIN && keeper->link < 0;
}

static void widen(int sock)
{
	int bytes = QUEUE_BYTES;

	/* Beyond the system's limit for those who may, else up to it. */
	if (setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

enum hold_role hold_twin_fork(struct hold_keeper *keeper)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		hold_log(keeper, "no twin: %s", strerror(errno));
		return HOLD_KEEPER;
	}
	widen(ends[0]);
	pid = fork();
	if (pid == 0) {
		(void)close(ends[0]);
		keeper->link = ends[1];
		keeper->twin = 0;
		return HOLD_TWIN;
	}
	(void)close(ends[1]);
	if (pid < 0) {
		hold_log(keeper, "no twin: %s", strerror(errno));
		(void)close(ends[0]);
		return HOLD_KEEPER;
	}
	keeper->link = ends[0];
	keeper->twin = pid;
	hold_log(keeper, "the twin is process %d", (int)pid);
	return HOLD_KEEPER;
}

static void reap(struct hold_keeper *keeper)
{
	while (keeper->twin && waitpid(keeper->twin, NULL, 0) < 0 && errno == EINTR)
		continue;
	keeper->twin = 0;
}

void hold_twin_lose(struct hold_keeper *keeper)
{
	/* First its death: it must not take the end of the journal for ours. */
	if (keeper->twin)
		(void)kill(keeper->twin, SIGKILL);
	reap(keeper);
	if (keeper->link >= 0)
		(void)close(keeper->link);
	keeper->link = -1;
}

void hold_twin_end(struct hold_keeper *keeper)
{
	const struct hold_record record = { .change = HOLD_END };

	if (keeper->twin && hold_record_send(keeper->link, &record, NULL) < 0)
		(void)kill(keeper->twin, SIGKILL);
	reap(keeper);
	if (keeper->link >= 0)
		(void)close(keeper->link);
	keeper->link = -1;
}

static int tell_twin(struct hold_keeper *keeper, const struct hold_record *record, const int *fds)
{
	int r;

	if (keeper->link < 0)
		return -EAGAIN;
	r = hold_record_send(keeper->link, record, fds);
	if (r == 0)
		return 0;
	hold_log(keeper, "the twin, process %d, does not follow (%s): it is replaced",
		 (int)keeper->twin, strerror(-r));
	hold_twin_lose(keeper);
	return -EAGAIN;
}

static int save(struct hold_keeper *keeper, const struct hold_record *record, const int *fds)
{
	if (keeper->survival == APH_HOLD_SURVIVE_TWIN)
		return tell_twin(keeper, record, fds);
	return 0;
}

int hold_save_put(struct hold_keeper *keeper, const struct hold_entry *entry,
		  const struct hold_entry *old)
{
	struct hold_record record;
	int r;

	hold_record_of(&record, HOLD_PUT, entry);
	record.n_fds = entry->n_fds;
	if (keeper->survival != APH_HOLD_SURVIVE_SYSTEMD)
		return save(keeper, &record, entry->fds);
	r = hold_manager_put(keeper, &record, entry->fds);
	if (r == 0 && old)
		r = hold_manager_remove(keeper, old->serial);
	return r;
}

int hold_save_drop(struct hold_keeper *keeper, const struct hold_entry *entry)
{
	struct hold_record record;

	if (keeper->survival == APH_HOLD_SURVIVE_SYSTEMD)
		return hold_manager_remove(keeper, entry->serial);
	hold_record_of(&record, HOLD_DROP, entry);
	return save(keeper, &record, NULL);
}

int hold_save_move(struct hold_keeper *keeper, const struct hold_entry *entry, uid_t new_owner,
		   uint64_t serial)
{
	struct hold_record record;
	int r;

	hold_record_of(&record, HOLD_MOVE, entry);
	record.serial = serial;
	if (keeper->survival != APH_HOLD_SURVIVE_SYSTEMD) {
		record.new_owner = new_owner;
		return save(keeper, &record, NULL);
	}
	record.change = HOLD_PUT;
	record.owner = new_owner;
	record.n_fds = entry->n_fds;
	r = hold_manager_put(keeper, &record, entry->fds);
	return r == 0 ? hold_manager_remove(keeper, entry->serial) : r;
}

/* -- the twin's side ------------------------------------------------------------------------------------- */

/* HOLD_TWIN: all that was there has been read. */
static enum hold_role read_journal(struct hold_keeper *keeper)
{
	struct hold_record record;
	int fds[APH_HOLD_FDS_MAX] = { 0 };
	int r;

	for (;;) {
		r = hold_record_recv(keeper->link, &record, fds, MSG_DONTWAIT);
		if (r == -EAGAIN)
			return HOLD_TWIN;
		if (r == -EINTR || r == -ECONNRESET)
			continue;
		if (r == 0)
			return HOLD_KEEPER;
		if (r > 0 && record.change == HOLD_END)
			return HOLD_ENDS;
		if (r > 0)
			r = hold_record_apply(keeper, &record, fds);
		if (r < 0) {
			/* Half a twin is none: the keeper makes a better one. */
			hold_log(keeper, "the twin cannot follow: %s", strerror(-r));
			return HOLD_ENDS;
		}
	}
}

enum hold_role hold_twin_follow(struct hold_keeper *keeper, volatile const int *stop)
{
	static const struct timespec span = { .tv_sec = 0, .tv_nsec = LOOK_EACH_NS };
	enum hold_role role = HOLD_TWIN;
	sigset_t none, before;

	(void)prctl(PR_SET_NAME, "antiphon-twin");
	(void)sigemptyset(&none);
	(void)sigaddset(&none, SIGTERM);
	(void)sigaddset(&none, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &none, &before);
	(void)sigemptyset(&none);
	while (role == HOLD_TWIN && !*stop) {
		struct pollfd wait = { .fd = keeper->link, .events = POLLIN };

		if (ppoll(&wait, 1, NULL, &none) > 0) {
			role = read_journal(keeper);
			/* One look for what came in a while costs less than one for each. */
			if (role == HOLD_TWIN)
				(void)nanosleep(&span, NULL);
		}
	}
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	(void)close(keeper->link);
	keeper->link = -1;
	if (role == HOLD_TWIN)
		return HOLD_ENDS;
	(void)prctl(PR_SET_NAME, "antiphon");
	return role;
}
