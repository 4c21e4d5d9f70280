/* SPDX-License-Identifier: MIT */
/*
 * What a keeper is started with: LISTEN_FDS, LISTEN_FDNAMES, and what is in the bottles of the
 * service manager. Whatever the bytes are, all that is kept has a name, and all that is not is
 * closed.
 *
 *   byte 0     how many descriptors
 *   to \n      LISTEN_FDNAMES
 *   the rest   the message in each bottle, with one descriptor
 */
#include "check.h"
#include "fuzz.h"

#include "base/close.h"
#include "facade/hold/keeper.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_FD   3
#define FDS_MOST   8
#define CLOSING_MS 5000

static int check_entry(const struct hold_entry *entry, void *arg)
{
	(void)arg;
	CHECK(hold_is_name(entry->name, strlen(entry->name)));
	CHECK(entry->n_fds >= 1 && entry->n_fds <= APH_HOLD_FDS_MAX);
	for (uint32_t i = 0; i < entry->n_fds; i++)
		CHECK(fcntl(entry->fds[i], F_GETFD) == FD_CLOEXEC);
	return 0;
}

/* A socket in whose queue the bytes are. */
static int bottle(const uint8_t *data, size_t size)
{
	struct iovec part = { .iov_base = (void *)data, .iov_len = size };
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	int ends[2];

	CHECK_OK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
	memcpy(CMSG_DATA(&control.header), &ends[0], sizeof(int));
	if (size)
		CHECK_OK(sendmsg(ends[0], &message, MSG_DONTWAIT));
	close(ends[0]);
	return ends[1];
}

static void inherit(int n, const char *names)
{
	struct hold_keeper keeper = { .manager = -1, .newcomer = -1, .self = -1, .fds_max = 100 };
	char text[32];

	(void)snprintf(text, sizeof(text), "%d", (int)getpid());
	CHECK_OK(setenv("LISTEN_PID", text, 1));
	(void)snprintf(text, sizeof(text), "%d", n);
	CHECK_OK(setenv("LISTEN_FDS", text, 1));
	CHECK_OK(setenv("LISTEN_FDNAMES", names, 1));
	CHECK_OK(hold_table_init(&keeper.table));
	CHECK_OK(hold_inherit(&keeper));
	CHECK(n == 0 || !getenv("LISTEN_FDS"));
	CHECK_OK(hold_table_each(&keeper.table, check_entry, NULL));
	hold_table_deinit(&keeper.table);
}

/*
 * A number that a thread is still to close is not free for anybody else: it would be closed there.
 */
static void await_closed(void)
{
	size_t own, others;

	for (int i = 0;; i++) {
		aph_close_count(APH_CLOSE_ANYBODY, &own, &others);
		if (own + others == 0)
			return;
		CHECK(i < CLOSING_MS);
		usleep(1000);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
	int saved[FDS_MOST], n;
	char names[256] = "";

	if (!end || end == data || (size_t)(end - data) > sizeof(names))
		return 0;
	n = data[0] % (FDS_MOST + 1);
	memcpy(names, data + 1, (size_t)(end - data) - 1);
	/* They have the numbers that are announced; whoever has those now gets them back. */
	for (int i = 0; i < n; i++) {
		int fd = bottle(end + 1, size - (size_t)(end + 1 - data));

		saved[i] = fd == FIRST_FD + i ? -1 : fcntl(FIRST_FD + i, F_DUPFD_CLOEXEC, 100);
		if (fd != FIRST_FD + i) {
			CHECK_OK(dup2(fd, FIRST_FD + i));
			close(fd);
		}
	}
	inherit(n, names);
	await_closed();
	for (int i = 0; i < n; i++) {
		CHECK(fcntl(FIRST_FD + i, F_GETFD) < 0);
		if (saved[i] < 0)
			continue;
		CHECK_OK(dup2(saved[i], FIRST_FD + i));
		close(saved[i]);
	}
	return 0;
}
