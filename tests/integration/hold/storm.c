/* SPDX-License-Identifier: MIT */
/*
 * The keeper, or its twin, is killed again and again while clients store, replace, retrieve, take
 * and delete. Whatever was confirmed must be true afterwards.
 *
 *   hold_storm [--kills N]
 */
#include "fixture.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS	     3
#define NAMES	     16
#define FDS_OF_NAME  3
#define PAUSE_MAX_US 6000

/* What a worker knows of its names. */
struct shared {
	_Atomic bool stop;
	_Atomic uint64_t confirmed[WORKERS];
	_Atomic uint64_t lost[WORKERS];
};

static struct shared *shared;

static void name_of(char *name, int worker, int i)
{
	(void)sprintf(name, "w%d.n%d", worker, i);
}

static void text_of(char *text, int worker, int i, unsigned version, int part)
{
	(void)sprintf(text, "worker %d name %d version %u part %d", worker, i, version, part);
}

static int n_fds_of(int i)
{
	return 1 + i % FDS_OF_NAME;
}

static void put(struct aph_hold *hold, int worker, int i, unsigned version)
{
	const struct aph_hold_options options = { .size = sizeof(options),
						  .flags = APH_HOLD_REPLACE };
	int fds[FDS_OF_NAME], n = n_fds_of(i);
	char name[64], text[128];

	for (int part = 0; part < n; part++) {
		text_of(text, worker, i, version, part);
		fds[part] = marked(text);
	}
	name_of(name, worker, i);
	CHECK_OK(aph_hold_store(hold, name, fds, (size_t)n, &options, SOON));
	for (int part = 0; part < n; part++)
		close(fds[part]);
}

/* Version 0: it must not be there. */
static void check(struct aph_hold *hold, int worker, int i, unsigned version, uint32_t flags)
{
	const struct aph_hold_options options = { .size = sizeof(options), .flags = flags };
	int fds[FDS_OF_NAME], r;
	size_t n = FDS_OF_NAME;
	char name[64], text[128];

	name_of(name, worker, i);
	r = aph_hold_retrieve(hold, name, fds, &n, &options, SOON);
	if (version == 0) {
		CHECK(r == -ENOENT);
		return;
	}
	CHECK_OK(r);
	CHECK((int)n == n_fds_of(i));
	for (int part = 0; part < (int)n; part++) {
		text_of(text, worker, i, version, part);
		if (!is_marked(fds[part], text))
			check_failed(__FILE__, __LINE__, "the descriptor stored last", version);
		close(fds[part]);
	}
}

static void remove_name(struct aph_hold *hold, int worker, int i, bool there)
{
	char name[64];
	int r;

	name_of(name, worker, i);
	r = aph_hold_delete(hold, name, NULL, SOON);
	/*
	 * Nobody can tell whether a name that is gone was there when the keeper died over the
	 * question.
	 */
	CHECK(r == 0 || (!there && r == -ENOENT));
}

static void work(int worker, uint64_t seed)
{
	struct rng rng = { .state = seed + (uint64_t)worker };
	unsigned versions[NAMES] = { 0 }, next = 1;
	struct aph_hold *hold = hold_open();

	while (!shared->stop) {
		int i = (int)rng_below(&rng, NAMES);

		switch (rng_below(&rng, 8)) {
		case 0:
			remove_name(hold, worker, i, versions[i] != 0);
			versions[i] = 0;
			break;
		case 1:
			/*
			 * A keeper that dies before it knows that it arrived keeps it: both are
			 * right.
			 */
			check(hold, worker, i, versions[i], APH_HOLD_TAKE);
			if (versions[i])
				put(hold, worker, i, versions[i]);
			break;
		case 2:
		case 3:
		case 4:
			check(hold, worker, i, versions[i], 0);
			break;
		default:
			put(hold, worker, i, next);
			versions[i] = next++;
		}
		shared->confirmed[worker]++;
	}
	for (int i = 0; i < NAMES; i++)
		check(hold, worker, i, versions[i], 0);
	aph_hold_close(hold);
}

/* One of the two dies; when this returns there are two again. */
static void kill_one(struct rng *rng)
{
	pid_t keeper = keeper_await_pid(0);
	pid_t twin = keeper_await_twin(keeper, 0);

	(void)usleep(rng_below(rng, PAUSE_MAX_US));
	if (rng_below(rng, 4) == 0) {
		CHECK_OK(kill(twin, SIGKILL));
		(void)keeper_await_twin(keeper, twin);
		return;
	}
	CHECK_OK(kill(keeper, SIGKILL));
	while (waitpid(keeper, NULL, 0) < 0 && errno == EINTR)
		continue;
	(void)keeper_await_twin(keeper_await_pid(keeper), 0);
}

static void say(const char *text)
{
	(void)fprintf(stderr, "keeper: %s\n", text);
}

static void storm(unsigned n_kills, uint64_t seed)
{
	const struct aph_hold_keeper_options options = {
		.size = sizeof(options),
		.log = getenv("APH_TEST_LOG") ? say : NULL,
	};
	struct rng rng = { .state = seed };
	struct keeper keeper;
	pid_t workers[WORKERS];
	uint64_t confirmed = 0;

	keeper_start(&keeper, &options);
	for (int i = 0; i < WORKERS; i++) {
		(void)fflush(NULL);
		workers[i] = fork();
		CHECK_OK(workers[i]);
		if (workers[i] == 0) {
			CHECK_OK(prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL));
			work(i, seed);
			exit(0);
		}
	}
	for (unsigned i = 0; i < n_kills; i++)
		kill_one(&rng);
	shared->stop = true;
	for (int i = 0; i < WORKERS; i++) {
		int status;

		CHECK(waitpid(workers[i], &status, 0) == workers[i]);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		confirmed += shared->confirmed[i];
	}
	keeper_stop(&keeper);
	printf("%u kills, %llu operations confirmed\n", n_kills, (unsigned long long)confirmed);
	CHECK(confirmed > n_kills);
}

int main(int argc, char **argv)
{
	unsigned n_kills = 500;
	void *state = NULL;

	if (argc == 3 && strcmp(argv[1], "--kills") == 0)
		n_kills = (unsigned)strtoul(argv[2], NULL, 10);
	if (check_long())
		n_kills *= 10;
	alarm((unsigned)check_ms(check_long() ? 1200000 : 120000) / 1000);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	CHECK(shared != MAP_FAILED);
	if (hold_setup(&state) != 0)
		return 1;
	storm(n_kills, check_seed());
	return hold_teardown(&state) != 0;
}
