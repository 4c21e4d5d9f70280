/* SPDX-License-Identifier: MIT */
/* Which descriptors are closed at once, of each kind there is. */
#include "suite.h"

#include "base/quick.h"
#include "fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGE (32 << 20)

static void expect(bool quick, int fd)
{
	assert_true(fd >= 0);
	errno = 77;
	assert_int_equal(aph_closes_quickly(fd), quick);
	assert_int_equal(errno, 77);
	close(fd);
}

static int large(void)
{
	int fd = memfd_create("large", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fallocate(fd, 0, 0, LARGE), 0);
	return fd;
}

static int lingering(int seconds)
{
	const struct linger linger = { .l_onoff = 1, .l_linger = seconds };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	return fd;
}

static void quick_ones(void **state)
{
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	expect(true, ends[0]);
	expect(true, ends[1]);
	expect(true, memfd_create("small", MFD_CLOEXEC));
	expect(true, open("/dev/null", O_RDWR | O_CLOEXEC));
	expect(true, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	expect(true, socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	expect(true, eventfd(0, EFD_CLOEXEC));
	expect(true, lingering(0));
	/* There is nothing to close. */
	assert_true(aph_closes_quickly(-1));
}

static void slow_ones(void **state)
{
	int fd, pair[2];

	(void)state;
	expect(false, large());
	expect(false, lingering(5));
	expect(false, inotify_init1(IN_CLOEXEC));
	/* Anything can be in their queues. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	expect(false, pair[0]);
	expect(false, pair[1]);
	fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0)
		expect(false, fd);
}

/* Its server is not asked, or this would not come back. */
static void a_file_of_anybody(void **state)
{
	struct fuse_file file;

	(void)state;
	if (fuse_begin(&file) < 0)
		suite_skip("FUSE cannot be mounted here");
	assert_false(aph_closes_quickly(file.fd));
	fuse_end(&file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(quick_ones),
		SUITE_TEST(slow_ones),
		SUITE_TEST(a_file_of_anybody),
	};

	return suite_run("quick", tests, SUITE_LEN(tests), 30);
}
