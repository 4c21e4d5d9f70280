/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target without libFuzzer: on each file of the directories it is given, and on a
 * number of mutants of each that are the same in every run.
 *
 *   replay_TARGET [--mutants N] [--seed S] FILE_OR_DIRECTORY...
 */
#include "check.h"
#include "fuzz.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_MAX_REPLAYED 65536

static unsigned n_mutants, n_files, n_runs;
static uint64_t seed = 1;

static void run(const uint8_t *data, size_t size)
{
	/* A block of just this size, so that a sanitizer sees what is read beyond. */
	uint8_t *copy = malloc(size ? size : 1);

	CHECK(copy);
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
	n_runs++;
}

static size_t mutate(struct rng *rng, uint8_t *data, size_t size)
{
	for (uint32_t steps = 1 + rng_below(rng, 4); steps > 0; steps--) {
		uint32_t at = size ? rng_below(rng, (uint32_t)size) : 0;

		switch (rng_below(rng, 5)) {
		case 0:
			if (size)
				data[at] ^= (uint8_t)(1u << rng_below(rng, 8));
			break;
		case 1:
			if (size)
				data[at] = (uint8_t)rng_next(rng);
			break;
		case 2:
			size = at;
			break;
		case 3:
			if (size && size < SIZE_MAX_REPLAYED / 2) {
				memcpy(data + size, data + at, size - at);
				size += size - at;
			}
			break;
		default:
			if (size < SIZE_MAX_REPLAYED)
				data[size++] = (uint8_t)rng_next(rng);
		}
	}
	return size;
}

static int visit(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	static uint8_t data[SIZE_MAX_REPLAYED], mutant[2 * SIZE_MAX_REPLAYED];
	struct rng rng = { .state = seed + n_files };
	FILE *file;
	size_t size;

	(void)st;
	(void)ftw;
	if (kind != FTW_F)
		return 0;
	file = fopen(path, "re");
	CHECK(file);
	size = fread(data, 1, sizeof(data), file);
	fclose(file);
	n_files++;
	run(data, size);
	for (unsigned i = 0; i < n_mutants; i++) {
		memcpy(mutant, data, size);
		run(mutant, mutate(&rng, mutant, size));
	}
	return 0;
}

int main(int argc, char **argv)
{
	int i;

	for (i = 1; i + 1 < argc && argv[i][0] == '-'; i += 2) {
		if (strcmp(argv[i], "--mutants") == 0)
			n_mutants = (unsigned)strtoul(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 0);
	}
	if (check_long()) {
		n_mutants *= 100;
		seed = check_seed();
	}
	alarm((unsigned)check_ms(check_long() ? 3600 : 60));
	for (; i < argc; i++)
		if (nftw(argv[i], visit, 8, FTW_PHYS) != 0) {
			fprintf(stderr, "cannot read %s\n", argv[i]);
			return 2;
		}
	printf("%u files, %u runs\n", n_files, n_runs);
	return n_files ? 0 : 1;
}
