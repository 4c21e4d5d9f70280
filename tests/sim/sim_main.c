/* SPDX-License-Identifier: MIT */
/*
 * The simulator.
 *
 *   sim [--scenario NAME[,NAME...]] [--seed N] [--seeds COUNT] [--fresh COUNT] [--seconds S]
 *   [--trace]
 *
 * Runs each scenario (all of them, if none is named) with COUNT seeds from N on, and then with
 * `fresh` seeds from the clock, which it prints. With --seconds it goes on with further seeds until
 * the time is over. The same seed gives the same run, and the same hash, always. Prints TAP, a line
 * for each scenario.
 */
#include "scenario.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool is_wanted(const char *list, const char *name, bool slow)
{
	size_t len = strlen(name);

	if (!list)
		return !slow;
	for (const char *at = list; *at; at += strcspn(at, ",")) {
		at += *at == ',';
		if (strcspn(at, ",") == len && strncmp(at, name, len) == 0)
			return true;
	}
	return false;
}

static uint64_t run_one(const struct scenario *scenario, uint64_t seed, bool trace)
{
	static struct world world;
	uint64_t hash;

	world_init(&world, seed);
	world.scenario = scenario->name;
	if (trace)
		world.trace = stdout;
	scenario->run(&world);
	hash = world.hash;
	tally.n_datagrams += world.n_datagrams;
	world_deinit(&world);
	return hash;
}

static void print_tally(const struct scenario *scenario, uint64_t n_runs, double took,
			uint64_t hash)
{
	printf("# %s: %llu runs, %llu calls (%.0f a minute), %llu datagrams, %.0f s of virtual time "
	       "in %.2f s, hash %016llx\n",
	       scenario->name, (unsigned long long)n_runs, (unsigned long long)tally.n_calls,
	       (double)tally.n_calls / took * 60, (unsigned long long)tally.n_datagrams,
	       tally.virtual_seconds, took, (unsigned long long)hash);
	if (tally.goodput > 0)
		printf("# %s: %.3f of the link\n", scenario->name, tally.goodput);
	printf("#   done %llu aborted %llu aborted-here %llu busy %llu timed-out %llu reset %llu "
	       "net-error %llu local-error %llu\n",
	       (unsigned long long)tally.n_outcomes[0], (unsigned long long)tally.n_outcomes[1],
	       (unsigned long long)tally.n_outcomes[2], (unsigned long long)tally.n_outcomes[3],
	       (unsigned long long)tally.n_outcomes[4], (unsigned long long)tally.n_outcomes[5],
	       (unsigned long long)tally.n_outcomes[6], (unsigned long long)tally.n_outcomes[7]);
}

struct options {
	const char *names;
	uint64_t seed, n_seeds, n_fresh;
	double seconds;
	bool trace;
};

static void run_scenario(const struct options *options, const struct scenario *scenario,
			 uint64_t fresh)
{
	double begin = seconds_now();
	uint64_t n = 0, hash = 0;

	memset(&tally, 0, sizeof(tally));
	for (; n < options->n_seeds + options->n_fresh ||
	       (options->seconds > 0 && seconds_now() - begin < options->seconds);
	     n++) {
		uint64_t seed = options->seed + n;

		if (n >= options->n_seeds && options->n_fresh > 0)
			seed = fresh + n;
		hash = hash * 31 + run_one(scenario, seed, options->trace);
	}
	print_tally(scenario, n, seconds_now() - begin, hash);
}

static int usage(void)
{
	fprintf(stderr,
		"usage: sim [--scenario NAME,...] [--seed N] [--seeds COUNT] [--fresh COUNT] "
		"[--seconds S] [--trace]\n");
	for (unsigned i = 0; i < n_scenarios; i++)
		fprintf(stderr, "  %-10s %s\n", scenarios[i].name, scenarios[i].what);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "scenario", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' },
		{ "seeds", required_argument, NULL, 'c' },
		{ "fresh", required_argument, NULL, 'f' },
		{ "seconds", required_argument, NULL, 'd' },
		{ "trace", no_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 },
	};
	struct options options = { .seed = 1, .n_seeds = 1 };
	uint64_t fresh = 0;
	unsigned n = 0;
	int o;

	while ((o = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (o == 'n')
			options.names = optarg;
		else if (o == 's')
			options.seed = strtoull(optarg, NULL, 0);
		else if (o == 'c')
			options.n_seeds = strtoull(optarg, NULL, 0);
		else if (o == 'f')
			options.n_fresh = strtoull(optarg, NULL, 0);
		else if (o == 'd')
			options.seconds = strtod(optarg, NULL);
		else if (o == 't')
			options.trace = true;
		else
			return usage();
	}
	if (check_long() && options.seconds == 0)
		options.seconds = 120;
	if (options.n_fresh > 0)
		fresh = check_seed();
	for (unsigned i = 0; i < n_scenarios; i++)
		if (is_wanted(options.names, scenarios[i].name, scenarios[i].slow)) {
			run_scenario(&options, &scenarios[i], fresh);
			printf("ok %u - %s\n", ++n, scenarios[i].name);
			fflush(stdout);
		}
	printf("1..%u\n", n);
	return n ? 0 : usage();
}
