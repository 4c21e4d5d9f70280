/* SPDX-License-Identifier: MIT */
/*
 * antiphon rx run -- COMMAND: a program that opens AF_RXRPC sockets, on a kernel that need not have
 * them.
 */
#include "rx.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What shells and env(1) say of a command that did not run. */
#define NOT_RUNNABLE 126
#define NOT_FOUND    127

const char rx_run_help[] =
	"usage: antiphon rx run [--] COMMAND [ARGUMENT...]\n"
	"Runs a command whose AF_RXRPC sockets are this project's, not the kernel's.\n\n"
	"  --help  show this text\n\n"
	"  antiphon rx run -- ./server 7000\n";

static const struct option long_options[] = {
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

/* Puts our library in front of what is to be loaded already. */
static int set_preload(void)
{
	const char *library = getenv("AFRXRPC_PRELOAD"), *others = getenv("LD_PRELOAD");
	char list[PATH_MAX];

	if (!library)
		library = RX_PRELOAD;
	if (access(library, R_OK) < 0) {
		cli_error("cannot read %s: %s; AFRXRPC_PRELOAD can name another place", library,
			  strerror(errno));
		return -errno;
	}
	if ((size_t)snprintf(list, sizeof(list), "%s%s%s", library, others && *others ? ":" : "",
			     others ? others : "") >= sizeof(list) ||
	    setenv("LD_PRELOAD", list, 1) < 0) {
		cli_error("cannot set LD_PRELOAD: it is too long");
		return -E2BIG;
	}
	return 0;
}

int rx_run(int argc, char **argv)
{
	int option, saved;

	/* Options after the command are its own. */
	while ((option = getopt_long(argc, argv, "+h", long_options, NULL)) != -1) {
		if (option != 'h')
			return cli_bad_option();
		fputs(rx_run_help, stdout);
		return cli_finish(CLI_OK);
	}
	if (optind == argc)
		return cli_misused("a command is missing");
	if (set_preload() < 0)
		return CLI_FAILED;
	(void)execvp(argv[optind], argv + optind);
	saved = errno;
	cli_error("cannot run %s: %s", argv[optind], strerror(saved));
	return saved == ENOENT ? NOT_FOUND : NOT_RUNNABLE;
}
