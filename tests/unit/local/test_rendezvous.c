/* SPDX-License-Identifier: MIT */
/*
 * File names of the rendezvous directory: read and written alike, and nothing else is taken for
 * one.
 */
#include "local/rendezvous.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void round_trip(void **state)
{
	struct aph_name name = { .name = "a.B_9", .uid = 1000, .gid = APH_ID_ANY };
	struct aph_rendezvous_entry entry;
	char file[APH_RENDEZVOUS_FILE_MAX + 1];

	(void)state;
	aph_rendezvous_format(file, &name, UINT64_C(0x123456789abcdef0));
	assert_string_equal(file, "a.B_9,000003e8,ffffffff,123456789abcdef0");
	assert_true(aph_rendezvous_parse(&entry, file));
	assert_string_equal(entry.name.name, "a.B_9");
	assert_true(entry.name.uid == 1000 && entry.name.gid == APH_ID_ANY);
	assert_true(entry.serial == UINT64_C(0x123456789abcdef0));
	memset(name.name, 'x', APH_NAME_MAX);
	aph_rendezvous_format(file, &name, 0);
	assert_int_equal(strlen(file), APH_RENDEZVOUS_FILE_MAX);
	assert_true(aph_rendezvous_parse(&entry, file));
}

/* Of services of the remote transport. A name that may be called is never taken for one. */
static void notices(void **state)
{
	static const char *const addresses[] = {
		"rx:127.0.0.1:7009/147",
		"rx:[fe80::1%eth0]:65535/65535",
		"rx:[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535/65535",
	};
	struct aph_name name = { .uid = 0, .gid = APH_ID_ANY };
	struct aph_rendezvous_entry entry;
	char file[APH_RENDEZVOUS_FILE_MAX + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		strcpy(name.name, addresses[i]);
		aph_rendezvous_format(file, &name, 7);
		assert_null(strchr(file, '/'));
		assert_true(aph_rendezvous_parse(&entry, file));
		assert_true(entry.is_notice);
		assert_string_equal(entry.name.name, addresses[i]);
		assert_string_equal(entry.file, file);
	}
	assert_true(aph_rendezvous_parse(&entry, "rx,00000000,00000000,0000000000000000"));
	assert_false(entry.is_notice);
}

/* Two services that begin at the same time do not take each other's place. */
static void a_serial_number_is_of_one(void **state)
{
	static const char file[] = "one,00000000,ffffffff,0000000000000007";
	static const char hidden[] = ".0000000000000008";
	char path[] = "/tmp/aph-unit.XXXXXX";
	int dir_fd, first, other;

	(void)state;
	assert_non_null(mkdtemp(path));
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir_fd >= 0);
	first = aph_rendezvous_listen(dir_fd, file);
	assert_true(first >= 0);
	/* It is there already. */
	assert_int_equal(aph_rendezvous_listen(dir_fd, file), -EADDRINUSE);
	assert_int_equal(faccessat(dir_fd, ".0000000000000007", F_OK, 0), -1);
	/* Or about to be, whatever it is called. */
	other = openat(dir_fd, hidden, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(other >= 0);
	assert_int_equal(aph_rendezvous_listen(dir_fd, "two,00000000,ffffffff,0000000000000008"),
			 -EADDRINUSE);
	assert_int_equal(unlinkat(dir_fd, hidden, 0), 0);
	assert_int_equal(unlinkat(dir_fd, file, 0), 0);
	assert_int_equal(rmdir(path), 0);
	close(other);
	close(first);
	close(dir_fd);
}

static void strangers(void **state)
{
	static const char *const files[] = {
		"",
		".",
		"..",
		"echo",
		",00000000,00000000,0000000000000000",
		"echo,00000000,00000000,000000000000000",
		"echo,00000000,00000000,00000000000000000",
		"echo,0000000g,00000000,0000000000000000",
		"echo,00000000,0000000A,0000000000000000",
		"echo,000000000,0000000,0000000000000000",
		"ec-ho,00000000,00000000,0000000000000000",
		".18ea350f9c9c056b",
		"rx:a\x1b[2J,00000000,00000000,0000000000000000",
		"ry:a,00000000,00000000,0000000000000000",
		"rx:xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,00000000,00000000,0000000000000000",
	};
	struct aph_rendezvous_entry entry;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		assert_false(aph_rendezvous_parse(&entry, files[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(notices),
		cmocka_unit_test(a_serial_number_is_of_one),
		cmocka_unit_test(strangers),
	};

	return cmocka_run_group_tests_name("rendezvous", tests, NULL, NULL);
}
