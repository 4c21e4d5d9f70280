/* SPDX-License-Identifier: MIT */
/*
 * Checks for code that runs outside of cmocka's own thread: in helper threads, in child processes
 * and in fuzz targets. A failed check prints where and why and aborts the process, which the parent
 * notices.
 */
#ifndef TESTS_SUPPORT_CHECK_H
#define TESTS_SUPPORT_CHECK_H

#include <stdbool.h>
#include <stdint.h>

/* True where time is stretched: under a sanitizer, or where the environment says so. */
bool check_slow(void);

/* A limit in milliseconds for this build: longer where check_slow() says so. */
int check_ms(int ms);

/*
 * The same for a limit that only a hang is to meet: a quiet machine needs far less, and a busy one
 * may need several times as much.
 */
int check_hang_ms(int ms);

/* Milliseconds of CPU time that this process has used. */
int64_t check_worked_ms(void);

/* The seed for random tests: APH_TEST_SEED, or one from the clock. It is printed. */
uint64_t check_seed(void);

/* True when the long variant of the random tests was asked for with APH_TEST_LONG. */
bool check_long(void);

_Noreturn void check_failed(const char *file, int line, const char *what, long long got);

#define CHECK(condition)                                                 \
	do {                                                             \
		if (!(condition))                                        \
			check_failed(__FILE__, __LINE__, #condition, 0); \
	} while (0)

/* For results that are 0 or more when they are good; prints the error otherwise. */
#define CHECK_OK(expression) check_ok(__FILE__, __LINE__, #expression, (long long)(expression))

static inline long long check_ok(const char *file, int line, const char *what, long long got)
{
	if (got < 0)
		check_failed(file, line, what, got);
	return got;
}

/* A small seeded generator: the same seed gives the same test. */
struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t z = (rng->state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* A number below `n`, which is not 0. */
static inline uint32_t rng_below(struct rng *rng, uint32_t n)
{
	return (uint32_t)(rng_next(rng) % n);
}

#endif
