/* SPDX-License-Identifier: MIT */
/*
 * Shared memory: what is made is sealed, and what is not sealed or not of its size is not mapped.
 */
#include "suite.h"

#include "local/local.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE 8192u

static void made_and_mapped(void **state)
{
	void *mine, *theirs;
	int fd;

	(void)state;
	for (int read_only = 0; read_only < 2; read_only++) {
		assert_int_equal(aph_segment_make(&fd, &mine, SIZE, "test", read_only), 0);
		assert_int_equal(aph_segment_map(&theirs, fd, SIZE, !read_only), 0);
		strcpy(mine, "shared");
		assert_string_equal(theirs, "shared");
		/* Sealed for good. */
		assert_true(ftruncate(fd, 0) < 0);
		assert_true(ftruncate(fd, 2 * SIZE) < 0);
		assert_true(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
		assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
		if (read_only)
			assert_true(mmap(NULL, SIZE, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
		munmap(mine, SIZE);
		munmap(theirs, SIZE);
		close(fd);
	}
}

static void bad_ones_are_not_mapped(void **state)
{
	static const int seals[] = { 0, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL };
	int good = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, fd;
	void *map = NULL;

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(seals); i++) {
		fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert_int_equal(ftruncate(fd, SIZE), 0);
		if (seals[i])
			assert_int_equal(fcntl(fd, F_ADD_SEALS, seals[i]), 0);
		assert_int_equal(aph_segment_map(&map, fd, SIZE, true), -EPROTO);
		close(fd);
	}
	for (uint32_t size = 0; size <= 2 * SIZE; size += SIZE / 2) {
		fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert_int_equal(ftruncate(fd, size), 0);
		assert_int_equal(fcntl(fd, F_ADD_SEALS, good), 0);
		if (size != SIZE)
			assert_int_equal(aph_segment_map(&map, fd, SIZE, true), -EPROTO);
		close(fd);
	}
	fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	assert_int_equal(aph_segment_map(&map, fd, SIZE, true), -EPROTO);
	close(fd);
	assert_int_equal(aph_segment_map(&map, -1, SIZE, true), -EPROTO);
	assert_null(map);
}

/* The parts of a segment for all depths and arenas: in order, apart, and in one piece. */
static void the_layout(void **state)
{
	(void)state;
	for (uint32_t depth = APH_DEPTH_MIN; depth <= APH_DEPTH_MAX; depth *= 2) {
		for (uint32_t arena = APH_ARENA_MIN; arena <= APH_ARENA_MAX; arena *= 2) {
			size_t ring = depth * sizeof(struct aph_record);

			assert_true(sizeof(struct aph_segment_words) + 2 * depth <= APH_PAGE);
			assert_int_equal(aph_layout_ring(depth, 0), APH_PAGE);
			assert_int_equal(aph_layout_ring(depth, 1), APH_PAGE + ring);
			assert_true(aph_layout_arena(depth, arena, 0) >= APH_PAGE + 2 * ring);
			assert_int_equal(aph_layout_arena(depth, arena, 0) % APH_PAGE, 0);
			assert_int_equal(aph_layout_arena(depth, arena, 1),
					 aph_layout_arena(depth, arena, 0) + arena);
			assert_int_equal(aph_layout_size(depth, arena),
					 aph_layout_arena(depth, arena, 1) + arena);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(made_and_mapped),
		cmocka_unit_test(bad_ones_are_not_mapped),
		cmocka_unit_test(the_layout),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
