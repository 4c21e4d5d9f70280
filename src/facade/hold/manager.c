/* SPDX-License-Identifier: MIT */
/*
 * The service manager's descriptor store, by the datagrams of sd_notify(3), and LISTEN_FDS.
 *
 * What is kept goes there in a bottle: a socket whose other end is closed, and in whose queue lies
 * one record with its descriptors. One bottle for each name: the manager drops a descriptor that it
 * has already, which two names may well share, and its names for them would not hold what we have
 * to remember. The bottles come back when we are started again; they are looked into without being
 * emptied, so that what the manager has stays good for the next time.
 *
 * A datagram is only a letter: when its sender dies before it is read the manager throws it away.
 * So nothing is confirmed before the manager has closed the pipe of a BARRIER=1 that followed it.
 */
#include "keeper.h"

#include "../../base/close.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BARRIER_MS	5000
#define BARRIER_STEP_MS 100
#define BOTTLE_START	'@' /* of its FDNAME; no name of ours begins like that */

/* -- datagrams --------------------------------------------------------------------------------- */

int hold_manager_open(struct hold_keeper *keeper)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET"), *max = getenv("FDSTORE");
	socklen_t len;

	if (!path || !path[0]) {
		if (keeper->survival == APH_HOLD_SURVIVE_SYSTEMD)
			return hold_complain(-ENOENT,
					     "no service manager: NOTIFY_SOCKET is not set");
		return 0;
	}
	if (keeper->survival == APH_HOLD_SURVIVE_SYSTEMD && max) {
		keeper->names_max = (uint32_t)strtoul(max, NULL, 10);
		if (!keeper->names_max)
			return hold_complain(
				-EINVAL,
				"the service manager stores nothing: the unit needs FileDescriptorStoreMax=");
	}
	if ((path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
		return hold_complain(-EINVAL, "NOTIFY_SOCKET is no address");
	memcpy(address.sun_path, path, strlen(path));
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	else
		len++;
	keeper->manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (keeper->manager < 0)
		return hold_complain(-errno, "cannot make a socket: %s", strerror(errno));
	if (connect(keeper->manager, (struct sockaddr *)&address, len) < 0)
		return hold_complain(-errno, "cannot reach the service manager at %s: %s", path,
				     strerror(errno));
	return 0;
}

static int say(const struct hold_keeper *keeper, const char *text, int fd)
{
	struct iovec part = { .iov_base = (void *)text, .iov_len = strlen(text) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;

	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	while (sendmsg(keeper->manager, &message, MSG_NOSIGNAL) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

void hold_manager_say(const struct hold_keeper *keeper, const char *text)
{
	if (keeper->manager >= 0)
		(void)say(keeper, text, -1);
}

/* The manager has read all that was said before. 0, or -EAGAIN. */
static int wait_for_manager(const struct hold_keeper *keeper)
{
	uint64_t end = aph_deadline_ms(BARRIER_MS);
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -EAGAIN;
	r = say(keeper, "BARRIER=1", ends[1]);
	(void)close(ends[1]);
	while (r == 0) {
		struct pollfd wait = { .fd = ends[0], .events = 0 };

		if (poll(&wait, 1, BARRIER_STEP_MS) > 0)
			break;
		if (aph_time_ns() >= end)
			r = -ETIMEDOUT;
	}
	(void)close(ends[0]);
	return r < 0 ? -EAGAIN : 0;
}

/* -- bottles ----------------------------------------------------------------------------------- */

int hold_manager_put(struct hold_keeper *keeper, const struct hold_record *record, const int *fds)
{
	char text[96];
	int ends[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -EAGAIN;
	r = hold_record_send(ends[0], record, fds);
	(void)close(ends[0]);
	/* A bottle looks as if it had hung up, which must not be taken for its end. */
	(void)snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%c%016llx", BOTTLE_START,
		       (unsigned long long)record->serial);
	if (r == 0)
		r = say(keeper, text, ends[1]);
	(void)close(ends[1]);
	if (r == 0)
		r = wait_for_manager(keeper);
	if (r < 0)
		hold_log(keeper, "the service manager does not take '%s'", record->name);
	return r < 0 ? -EAGAIN : 0;
}

int hold_manager_remove(struct hold_keeper *keeper, uint64_t serial)
{
	char text[96];
	int r;

	(void)snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%c%016llx", BOTTLE_START,
		       (unsigned long long)serial);
	r = say(keeper, text, -1);
	if (r == 0)
		r = wait_for_manager(keeper);
	return r < 0 ? -EAGAIN : 0;
}

/* What is in a bottle; of two with one name the later counts. */
static void open_bottle(struct hold_keeper *keeper, int bottle)
{
	struct hold_record record;
	const struct hold_entry *entry;
	int fds[APH_HOLD_FDS_MAX] = { 0 };
	uint64_t stale = 0;
	int r = 0;

	if (hold_record_recv(bottle, &record, fds, MSG_PEEK | MSG_DONTWAIT) != 1 ||
	    record.what != HOLD_PUT) {
		hold_log(keeper, "the service manager gave back what is no bottle");
		return;
	}
	entry = hold_table_find(&keeper->table, record.owner, record.name);
	if (entry && entry->serial != record.serial)
		stale = entry->serial < record.serial ? entry->serial : record.serial;
	if (!entry || stale == entry->serial) {
		r = hold_record_apply(&keeper->table, &record, fds, NULL);
		if (r == 0)
			record.n_fds = 0;
		else
			hold_log(keeper, "'%s' is lost: out of memory", record.name);
	}
	aph_close_lingering(record.owner, fds, record.n_fds);
	if (stale && r == 0)
		(void)hold_manager_remove(keeper, stale);
}

/* -- LISTEN_FDS -------------------------------------------------------------------------------- */

/* The name of the next descriptor. */
static const char *next_name(const char **names, char *name, size_t size)
{
	size_t len;

	if (!*names)
		return "unknown";
	len = strcspn(*names, ":");
	(void)snprintf(name, size, "%.*s", (int)len, *names);
	*names = (*names)[len] ? *names + len + 1 : NULL;
	return name;
}

/* Descriptors of one name are kept together. 0, or -ENOMEM. */
static int keep_inherited(struct hold_keeper *keeper, const char *name, int fd)
{
	struct hold_entry *old = hold_table_find(&keeper->table, keeper->uid, name), *entry;
	int fds[APH_HOLD_FDS_MAX];
	uint32_t n = 0;

	if (old && old->n_fds < APH_HOLD_FDS_MAX) {
		n = old->n_fds;
		memcpy(fds, old->fds, n * sizeof(int));
	} else if (old) {
		hold_log(keeper, "more than %d descriptors with the name '%s'", APH_HOLD_FDS_MAX,
			 name);
		(void)close(fd);
		return 0;
	}
	fds[n] = fd;
	entry = hold_entry_new(keeper->uid, name, fds, n + 1);
	if (!entry || hold_table_prepare(&keeper->table, keeper->uid) < 0) {
		if (entry)
			entry->n_fds = 0;
		hold_entry_free(entry);
		(void)close(fd);
		return -ENOMEM;
	}
	if (old) {
		hold_table_remove(&keeper->table, old);
		old->n_fds = 0;
		hold_entry_free(old);
	}
	entry->stored_ns = aph_time_ns();
	entry->serial = hold_new_serial(keeper);
	hold_table_add(&keeper->table, entry);
	return 0;
}

static int inherit(struct hold_keeper *keeper, int n, const char *names, bool bottles)
{
	char buf[256];
	int r = 0;

	for (int i = 0; i < n && r == 0; i++) {
		const char *name = next_name(&names, buf, sizeof(buf));
		bool is_bottle = name[0] == BOTTLE_START;
		const struct hold_entry *entry;

		if (is_bottle != bottles)
			continue;
		(void)fcntl(HOLD_FIRST_FD + i, F_SETFD, FD_CLOEXEC);
		if (is_bottle) {
			open_bottle(keeper, HOLD_FIRST_FD + i);
			(void)close(HOLD_FIRST_FD + i);
			continue;
		}
		if (!hold_is_name(name, strlen(name))) {
			hold_log(keeper, "descriptor %d has no name that it could be kept under",
				 HOLD_FIRST_FD + i);
			(void)close(HOLD_FIRST_FD + i);
			continue;
		}
		entry = hold_table_find(&keeper->table, keeper->uid, name);
		/* What was stored under the name is newer than what the unit says. */
		if (entry && entry->token)
			(void)close(HOLD_FIRST_FD + i);
		else
			r = keep_inherited(keeper, name, HOLD_FIRST_FD + i);
	}
	return r;
}

int hold_n_inherited(const struct hold_keeper *keeper)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	long n;

	if (!pid || !count || strtol(pid, NULL, 10) != getpid())
		return 0;
	n = strtol(count, NULL, 10);
	return n > 0 && n <= (long)keeper->fds_max ? (int)n : 0;
}

int hold_inherit(struct hold_keeper *keeper)
{
	const char *names = getenv("LISTEN_FDNAMES");
	int n = hold_n_inherited(keeper), r;

	if (n == 0)
		return 0;
	r = inherit(keeper, n, names, true);
	if (r == 0)
		r = inherit(keeper, n, names, false);
	(void)unsetenv("LISTEN_PID");
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LISTEN_FDNAMES");
	return r;
}
