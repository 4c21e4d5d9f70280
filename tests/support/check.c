/* SPDX-License-Identifier: MIT */
/*
 * What the tests share that belongs to no fixture: failing loudly, seeds, and limits that fit the
 * build.
 */
#include "check.h"

#include <antiphon/error.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CHECK_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CHECK_SANITIZED 1
#endif
#endif
#ifndef CHECK_SANITIZED
#define CHECK_SANITIZED 0
#endif

bool check_slow(void)
{
	return CHECK_SANITIZED || getenv("APH_TEST_SLOW") != NULL;
}

int check_ms(int ms)
{
	return check_slow() ? ms * 5 : ms;
}

int check_hang_ms(int ms)
{
	return check_ms(ms) * 4;
}

int64_t check_worked_ms(void)
{
	struct rusage usage;

	CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
	return (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

bool check_long(void)
{
	return getenv("APH_TEST_LONG") != NULL;
}

uint64_t check_seed(void)
{
	const char *given = getenv("APH_TEST_SEED");
	struct timespec now;
	uint64_t seed;

	if (given) {
		seed = strtoull(given, NULL, 0);
	} else {
		clock_gettime(CLOCK_REALTIME, &now);
		seed = (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20 ^ (uint64_t)getpid();
		seed &= UINT64_C(0xffffffff);
	}
	printf("seed %llu (replay with APH_TEST_SEED=%llu)\n", (unsigned long long)seed,
	       (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

void check_failed(const char *file, int line, const char *what, long long got)
{
	int saved = errno;

	fflush(stdout);
	if (got < 0)
		fprintf(stderr, "%s:%d: pid %d: %s gave %lld (%s); last error: %s\n", file, line,
			(int)getpid(), what, got, strerror((int)-got), aph_error());
	else
		fprintf(stderr, "%s:%d: pid %d: not true: %s (errno %d, last error: %s)\n", file,
			line, (int)getpid(), what, saved, aph_error());
	fflush(stderr);
	abort();
}
