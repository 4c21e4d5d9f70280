/* SPDX-License-Identifier: MIT */
/*
 * Values of the command line's options: numbers, seconds, sizes. What is taken lies within the
 * limits.
 */
#include "../../src/programs/antiphon/cli.h"
#include "check.h"
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Complaints go to standard error, thousands of them. */
static void be_quiet(void)
{
	static bool done;
	int fd;

	if (done)
		return;
	done = true;
	fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	stderr = fdopen(fd, "w");
	CHECK(stderr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t limits[] = { 0, 1, 4096, UINT32_MAX, UINT64_MAX / 2, UINT64_MAX };
	char text[80], again[32];
	uint64_t value, same;
	size_t len = size < sizeof(text) - 1 ? size : sizeof(text) - 1;

	be_quiet();
	memcpy(text, data, len);
	text[len] = '\0';
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		value = 77;
		if (cli_read_count("count", text, limits[i] / 2, limits[i], &value) == 0) {
			CHECK(value >= limits[i] / 2 && value <= limits[i]);
			(void)snprintf(again, sizeof(again), "%llu", (unsigned long long)value);
			CHECK_OK(cli_read_count("count", again, value, value, &same));
			CHECK(same == value);
		}
		if (cli_read_size("size", text, limits[i], &value) == 0)
			CHECK(value <= limits[i]);
	}
	if (cli_read_seconds("time", text, true, &value) == 0)
		CHECK(value == UINT64_MAX || value < UINT64_MAX / 1000000);
	if (cli_read_seconds("time", text, false, &value) == 0)
		CHECK(value < UINT64_MAX / 1000000 && strcmp(text, "forever") != 0);
	return 0;
}
