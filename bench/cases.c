/* SPDX-License-Identifier: MIT */
/*
 * The cases, by name, and who can do which. What they are good for is said in bench/cases.py.
 */
#include <stdio.h>
#include <string.h>

#include "measure.h"

#define N_IDLE 10000

#define KIB(n) ((size_t)(n) << 10)

static const struct bench_case cases[] = {
	{ "call4_2core", BENCH_CALLS, BENCH_TWO_CORES, 1, 0, 0, 0, false, 4, 4 },
	{ "call4_1core", BENCH_CALLS, BENCH_ONE_CORE, 1, 0, 0, 0, false, 4, 4 },
	{ "call4_free", BENCH_CALLS, BENCH_FREE, 1, 0, 0, 0, false, 4, 4 },
	{ "paced_200us", BENCH_PACED, BENCH_TWO_CORES, 1, 0, 0, 0, false, 4, 4 },
	{ "clients8", BENCH_CALLS, BENCH_FREE, 8, 0, 0, 0, false, 4, 4 },
	{ "depth8", BENCH_DEPTH, BENCH_TWO_CORES, 1, 8, 0, 0, false, 4, 4 },
	{ "body_64k_req", BENCH_CALLS, BENCH_TWO_CORES, 1, 0, 0, 0, false, KIB(64), 4 },
	{ "body_64k_rep", BENCH_CALLS, BENCH_TWO_CORES, 1, 0, 0, 0, false, 4, KIB(64) },
	{ "body_1m_req", BENCH_CALLS, BENCH_TWO_CORES, 1, 0, 0, 0, false, KIB(1024), 4 },
	{ "body_1m_rep", BENCH_CALLS, BENCH_TWO_CORES, 1, 0, 0, 0, false, 4, KIB(1024) },
	{ "fd1", BENCH_FDS, BENCH_TWO_CORES, 1, 0, 1, 0, false, 4, 4 },
	{ "fd16", BENCH_FDS, BENCH_TWO_CORES, 1, 0, 16, 0, false, 4, 4 },
	{ "idle10k", BENCH_IDLE, BENCH_TWO_CORES, 1, 0, 0, N_IDLE, false, 4, 4 },
	{ "death_blocked", BENCH_DEATH, BENCH_FREE, 1, 0, 0, 0, false, 4, 4 },
	{ "death_busy", BENCH_DEATH, BENCH_FREE, 1, 0, 0, 0, true, 4, 4 },
	{ "copy_64k", BENCH_COPY, BENCH_ONE_CORE, 0, 0, 0, 0, false, KIB(64), 4 },
	{ "copy_1m", BENCH_COPY, BENCH_ONE_CORE, 0, 0, 0, 0, false, KIB(1024), 4 },
};

static bool able(const struct bench_who *who, const struct bench_case *c)
{
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
		return who->death && who->call != NULL;
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
	return job->who != NULL && job->c.name != NULL && able(job->who, &job->c) ? 0 : -1;
}
