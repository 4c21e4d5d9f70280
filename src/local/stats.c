/* SPDX-License-Identifier: MIT */
/* Listing services and asking them how they do: aph_directory_list(). */
#include "local/stats.h"
#include "base/close.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/time.h"
#include "local/hello.h"
#include "local/layout.h"
#include "local/notice.h"
#include "local/rendezvous.h"

#include <antiphon/directory.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void aph_stats_fill(struct aph_stats_message *message, const struct aph_service *service)
{
	*message = (struct aph_stats_message){
		.magic = APH_LOCAL_MAGIC,
		.version = APH_LOCAL_VERSION,
		.pid = getpid(),
		.stats = *service->stats,
	};
}

/* One service that is being asked. */
struct question {
	struct aph_service_info *info;
	int sock;
};

static void read_program(struct aph_service_info *info)
{
	char path[64];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)info->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, info->program, sizeof(info->program) - 1);
	(void)close(fd);
	while (n > 0 && info->program[n - 1] == '\n')
		n--;
	info->program[n > 0 ? n : 0] = '\0';
}

static void ask(struct question *question)
{
	struct aph_hello hello = {
		.magic = APH_LOCAL_MAGIC,
		.version = APH_LOCAL_VERSION,
		.kind = APH_HELLO_STATS,
	};
	struct ucred ucred;
	socklen_t len = sizeof(ucred);

	if (getsockopt(question->sock, SOL_SOCKET, SO_PEERCRED, &ucred, &len) == 0)
		question->info->pid = ucred.pid;
	read_program(question->info);
	if (aph_hello_send(question->sock, &hello, sizeof(hello), NULL, 0) < 0) {
		aph_fd_close(&question->sock);
	}
}

static void take_stats(struct aph_service_info *info, const struct aph_service_stats *stats)
{
	info->has_stats = 1;
	info->channels = stats->channels;
	info->calls = stats->calls;
	info->calls_open = stats->open;
	info->ended_disposed = stats->disposed;
	info->ended_aborted = stats->aborted;
	info->ended_gone = stats->gone;
	info->violations = stats->violations;
	info->sampled_calls = stats->sampled;
	info->sampled_ns = stats->sampled_ns;
	static_assert(sizeof(info->latency) == sizeof(stats->latency), "the same buckets");
	memcpy(info->latency, stats->latency, sizeof(info->latency));
}

static void take_answer(struct question *question)
{
	struct aph_hello_message message;
	struct aph_stats_message stats;
	struct aph_service_info *info = question->info;
	int r = aph_hello_recv(question->sock, &stats, sizeof(stats), &message);

	if (r == -EAGAIN)
		return;
	aph_fd_close(&question->sock);
	if (r == 0)
		aph_close_received(message.whose, message.fds, message.n_fds);
	if (r < 0 || message.len != sizeof(stats) || stats.magic != APH_LOCAL_MAGIC ||
	    stats.version != APH_LOCAL_VERSION)
		return;
	take_stats(info, &stats.stats);
	if (message.has_cred && message.cred.pid > 0 && message.cred.pid != info->pid) {
		info->pid = message.cred.pid;
		info->program[0] = '\0';
		read_program(info);
	}
}

static void collect_answers(struct question *questions, size_t n, struct pollfd *fds,
			    uint64_t deadline_ns)
{
	for (;;) {
		uint64_t now = aph_time_ns();
		struct timespec left = aph_time_left(deadline_ns, now);
		size_t i, open = 0;
		int r;

		for (i = 0; i < n; i++) {
			fds[i] = (struct pollfd){ .fd = questions[i].sock, .events = POLLIN };
			open += questions[i].sock >= 0;
		}
		if (!open)
			break;
		r = ppoll(fds, (nfds_t)n, deadline_ns == APH_FOREVER ? NULL : &left, NULL);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			break;
		for (i = 0; i < n; i++) {
			if (fds[i].revents && questions[i].sock >= 0)
				take_answer(&questions[i]);
		}
	}
	for (size_t i = 0; i < n; i++)
		aph_fd_close(&questions[i].sock);
}

/*
 * A service of another host's calls: what it shows is all that there is to ask. False when its
 * process is gone.
 */
static bool read_notice(struct aph_service_info *info, const struct aph_rendezvous_entry *entry)
{
	struct aph_stats_message shown;

	if (!aph_notice_read(&shown, entry))
		return false;
	*info = (struct aph_service_info){ .name = entry->name, .owner = entry->owner };
	info->pid = shown.pid;
	read_program(info);
	take_stats(info, &shown.stats);
	return true;
}

/* Connects to one. False when its process is gone. */
static bool ask_service(struct question *question, struct aph_service_info *info,
			const struct aph_rendezvous_entry *entry)
{
	int sock = aph_rendezvous_connect(entry);

	if (sock == -ECONNREFUSED || sock == -ENOENT)
		return false;
	*info = (struct aph_service_info){ .name = entry->name, .owner = entry->owner };
	question->info = info;
	question->sock = sock;
	if (sock >= 0)
		ask(question);
	return true;
}

static size_t ask_all(struct question *questions, struct aph_service_info *infos,
		      const struct aph_rendezvous_entry *entries, size_t n)
{
	size_t i, kept = 0;

	for (i = 0; i < n; i++) {
		questions[kept].sock = -1;
		if (entries[i].is_notice ? read_notice(&infos[kept], &entries[i])
					 : ask_service(&questions[kept], &infos[kept], &entries[i]))
			kept++;
	}
	return kept;
}

int aph_directory_list(struct aph_service_info **list, size_t *n, uint64_t deadline_ns)
{
	struct aph_rendezvous_entry *entries;
	struct aph_service_info *infos;
	struct question *questions;
	struct pollfd *fds;
	size_t n_entries;
	int r = aph_rendezvous_search(&entries, &n_entries, NULL);

	if (r < 0)
		return r;
	infos = calloc(n_entries + 1, sizeof(*infos));
	questions = calloc(n_entries + 1, sizeof(*questions));
	fds = calloc(n_entries + 1, sizeof(*fds));
	if (infos && questions && fds) {
		*n = ask_all(questions, infos, entries, n_entries);
		collect_answers(questions, *n, fds, deadline_ns);
		*list = infos;
	} else {
		r = aph_err(-ENOMEM, "no memory to list services");
		free(infos);
	}
	free(questions);
	free(fds);
	free(entries);
	return r;
}
