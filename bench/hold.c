/* SPDX-License-Identifier: MIT */
/*
 * The keeper, with its twin, as antiphon hold runs it: storing in place of what is there, or
 * retrieving, by name. The descriptors are the harness's, and those that come back are closed
 * again.
 */
#include <antiphon/antiphon.h>
#include <antiphon/hold.h>

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"

#define NAME "bench"

struct client {
	struct aph_hold *hold;
	bool stores;
	bool stored;
};

static struct bench_job *serving;

static int prepare(struct bench_job *job)
{
	return setenv("ANTIPHON_RUNTIME_DIR", job->dir, 1);
}

static void said(const char *text)
{
	if (strncmp(text, "serving", 7) == 0)
		bench_ready(serving);
}

/* The harness kills the keeper, whose twin would then take over, as it should: they go together. */
static void die_together(pid_t keeper)
{
	struct pollfd wait = { .fd = (int)syscall(SYS_pidfd_open, keeper, 0), .events = POLLIN };

	while (poll(&wait, 1, -1) < 1)
		continue;
	kill(-keeper, SIGKILL);
	_exit(0);
}

static int serve(struct bench_job *job)
{
	struct aph_hold_keeper_options options = {
		.size = sizeof options,
		.survival = APH_HOLD_SURVIVE_TWIN,
		.log = said,
	};
	pid_t keeper = getpid();

	serving = job;
	if (fork() == 0)
		die_together(keeper);
	setpgid(0, 0);
	return aph_hold_keep(&options);
}

static int open_client(struct bench_job *job, void **self)
{
	struct client *client = calloc(1, sizeof *client);

	client->stores = strncmp(job->c.name, "hold_store", 10) == 0;
	*self = client;
	return aph_hold_open(&client->hold, NULL, aph_deadline_ms(5000));
}

static int store(struct client *client, const int *fds, unsigned n)
{
	const struct aph_hold_options options = { .size = sizeof options,
						  .flags = APH_HOLD_REPLACE };

	return aph_hold_store(client->hold, NAME, fds, n, &options, aph_deadline_ms(5000));
}

static int retrieve(struct client *client, unsigned n)
{
	int fds[BENCH_FDS_MAX], r;
	size_t got = BENCH_FDS_MAX;

	r = aph_hold_retrieve(client->hold, NAME, fds, &got, NULL, aph_deadline_ms(5000));
	if (r < 0)
		return r;
	for (size_t i = 0; i < got; i++)
		close(fds[i]);
	return got == n ? 0 : -1;
}

static int call_fds(void *self, const int *fds, unsigned n_fds, uint64_t *sum)
{
	struct client *client = self;
	int r = 0;

	*sum = n_fds + UINT64_C(1);
	if (client->stores || !client->stored)
		r = store(client, fds, n_fds);
	client->stored = true;
	return r < 0 || client->stores ? r : retrieve(client, n_fds);
}

int main(int argc, char **argv)
{
	static const struct bench_who whos[] = {
		{ .name = "antiphon:hold",
		  .keeps = true,
		  .prepare = prepare,
		  .serve = serve,
		  .open = open_client,
		  .call_fds = call_fds },
	};

	return bench_main(whos, sizeof whos / sizeof whos[0], argc, argv);
}
