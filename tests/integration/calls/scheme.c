/* SPDX-License-Identifier: MIT */
#include "scheme.h"

#include "remote.h"

#include <string.h>

static bool remote;

void scheme_choose(int argc, char **argv)
{
	CHECK(argc == 2);
	remote = strcmp(argv[1], "rx") == 0;
	CHECK(remote || strcmp(argv[1], "local") == 0);
}

bool scheme_is_remote(void)
{
	return remote;
}

const char *scheme_address(void)
{
	return remote ? remote_address() : "calls";
}
