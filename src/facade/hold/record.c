/* SPDX-License-Identifier: MIT */
/* Records: made, sent, received and checked, put into the table. */
#include "record.h"

#include "../../base/close.h"

#include <antiphon/antiphon.h>

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_MS	     1000 /* for a reader that does not look */
#define WAIT_STEP_MS 2

void hold_record_of(struct hold_record *record, const struct hold_entry *entry)
{
	memset(record, 0, sizeof(*record));
	record->what = HOLD_PUT;
	record->n_fds = entry->n_fds;
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

	if (record->n_fds) {
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

/* Whatever the bytes are, what is accepted is within bounds. */
static bool is_whole(const struct hold_record *record, size_t len, size_t n_fds)
{
	if (len != sizeof(*record) || n_fds != record->n_fds || record->name[APH_HOLD_NAME_MAX])
		return false;
	return (record->what == HOLD_GO && !n_fds) ||
	       (record->what == HOLD_PUT && n_fds &&
		hold_is_name(record->name, strlen(record->name)));
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
	if (is_whole(record, (size_t)n, n_fds) && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return 1;
	aph_close_lingering(APH_CLOSE_ANYBODY, fds, n_fds);
	/* Not whole: there was no room for its descriptors, most likely. */
	return message.msg_flags & MSG_CTRUNC ? -EMFILE : -EPROTO;
}

int hold_record_apply(struct hold_table *table, const struct hold_record *record, const int *fds,
		      struct hold_entry **out)
{
	struct hold_entry *old, *entry;
	int r = hold_table_prepare(table, record->owner);

	if (r < 0)
		return r;
	entry = hold_entry_new(record->owner, record->name, fds, record->n_fds);
	if (!entry)
		return -ENOMEM;
	entry->expiry_ns = record->expiry_ns;
	entry->stored_ns = record->stored_ns;
	entry->token = record->token;
	entry->serial = record->serial;
	old = hold_table_find(table, record->owner, record->name);
	if (old)
		hold_table_remove(table, old);
	hold_entry_free(old);
	hold_table_add(table, entry);
	if (out)
		*out = entry;
	return 0;
}
