/* SPDX-License-Identifier: MIT */
/*
 * The cases, by name, and who can do which. What they are good for is said in bench/cases.py.
 */
#include <stdio.h>
#include <string.h>

#include "measure.h"

#define N_IDLE 10000

#define KIB(n) ((size_t)(n) << 10)

/* One client and bodies of 4 bytes are what is not said. */
static const struct bench_case cases[] = {
	{ .name = "call4_2core", .place = BENCH_TWO_CORES },
	{ .name = "call4_1core", .place = BENCH_ONE_CORE },
	{ .name = "call4_free" },
	{ .name = "paced_200us", .kind = BENCH_PACED, .place = BENCH_TWO_CORES },
	{ .name = "clients8", .n_clients = 8 },
	{ .name = "depth8", .kind = BENCH_DEPTH, .place = BENCH_TWO_CORES, .depth = 8 },
	{ .name = "body_64k_req", .place = BENCH_TWO_CORES, .req_len = KIB(64) },
	{ .name = "body_64k_rep", .place = BENCH_TWO_CORES, .rep_len = KIB(64) },
	{ .name = "body_1m_req", .place = BENCH_TWO_CORES, .req_len = KIB(1024) },
	{ .name = "body_1m_rep", .place = BENCH_TWO_CORES, .rep_len = KIB(1024) },
	{ .name = "fd1", .kind = BENCH_FDS, .place = BENCH_TWO_CORES, .n_fds = 1 },
	{ .name = "fd16", .kind = BENCH_FDS, .place = BENCH_TWO_CORES, .n_fds = 16 },
	{ .name = "idle10k", .kind = BENCH_IDLE, .place = BENCH_TWO_CORES, .n_idle = N_IDLE },
	{ .name = "death_blocked", .kind = BENCH_DEATH },
	{ .name = "death_busy", .kind = BENCH_DEATH, .all_busy = true },
	{ .name = "death_client", .kind = BENCH_DEATH, .client_dies = true },
	{ .name = "death_client_busy", .kind = BENCH_DEATH, .client_dies = true, .all_busy = true },
	{ .name = "handover", .place = BENCH_TWO_CORES, .exchange = true },
	{ .name = "handover8", .n_clients = 8, .exchange = true },
	{ .name = "hold_store",
	  .kind = BENCH_FDS,
	  .place = BENCH_TWO_CORES,
	  .n_fds = 1,
	  .keeps = true },
	{ .name = "hold_retrieve",
	  .kind = BENCH_FDS,
	  .place = BENCH_TWO_CORES,
	  .n_fds = 1,
	  .keeps = true },
	{ .name = "hold_store16",
	  .kind = BENCH_FDS,
	  .place = BENCH_TWO_CORES,
	  .n_fds = 16,
	  .keeps = true },
	{ .name = "hold_retrieve16",
	  .kind = BENCH_FDS,
	  .place = BENCH_TWO_CORES,
	  .n_fds = 16,
	  .keeps = true },
	{ .name = "copy_64k", .kind = BENCH_COPY, .place = BENCH_ONE_CORE, .req_len = KIB(64) },
	{ .name = "copy_1m", .kind = BENCH_COPY, .place = BENCH_ONE_CORE, .req_len = KIB(1024) },
};

static bool able(const struct bench_who *who, const struct bench_case *c)
{
	if (who->exchange != c->exchange || who->keeps != c->keeps)
		return false;
	if ((who->no_one_core && c->place == BENCH_ONE_CORE) ||
	    (who->no_clients && (c->n_clients > 1 || c->kind == BENCH_IDLE)) ||
	    (who->no_body && (c->req_len > 4 || c->rep_len > 4)))
		return false;
	switch (c->kind) {
	case BENCH_DEPTH:
		return who->submit != NULL;
	case BENCH_FDS:
		return who->call_fds != NULL;
	case BENCH_IDLE:
		return who->idle && who->call != NULL;
	case BENCH_DEATH:
		return c->client_dies ? who->client_death : who->death;
	case BENCH_COPY:
		return who->serve == NULL;
	default:
		return who->call != NULL;
	}
}

int bench_list(const struct bench_who *whos, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		printf("%s", whos[i].name);
		for (size_t j = 0; j < sizeof cases / sizeof cases[0]; j++)
			if (able(&whos[i], &cases[j]))
				printf(" %s", cases[j].name);
		printf("\n");
	}
	return 0;
}

int bench_usage(const char *program)
{
	fprintf(stderr,
		"usage: %s --list\n"
		"       %s WHO [hog_]CASE [MILLISECONDS]\n"
		"Measures one case once and prints one JSON object; bench/run drives it.\n",
		program, program);
	return 2;
}

int bench_find(struct bench_job *job, const struct bench_who *whos, size_t n, const char *who,
	       const char *name)
{
	job->hog = strncmp(name, "hog_", 4) == 0;
	name += job->hog ? 4 : 0;
	for (size_t i = 0; i < n; i++)
		if (strcmp(whos[i].name, who) == 0)
			job->who = &whos[i];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		if (strcmp(cases[i].name, name) == 0)
			job->c = cases[i];
	job->c.n_clients = job->c.n_clients > 0 ? job->c.n_clients : 1;
	job->c.req_len = job->c.req_len > 0 ? job->c.req_len : 4;
	job->c.rep_len = job->c.rep_len > 0 ? job->c.rep_len : 4;
	return job->who != NULL && job->c.name != NULL && able(job->who, &job->c) ? 0 : -1;
}
