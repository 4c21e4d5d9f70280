/* SPDX-License-Identifier: MIT */
/*
 * antiphon rx COMMAND: what is about the protocol between machines and not about names. This file
 * finds the command.
 */
#include "rx.h"

#include <string.h>

static const struct cli_command commands[] = {
	{ "version", "antiphon rx version", rx_version_help, rx_version },
	{ "debug", "antiphon rx debug", rx_debug_help, rx_debug },
	{ "ping", "antiphon rx ping", rx_ping_help, rx_ping },
	{ "perf", "antiphon rx perf", rx_perf_help, rx_perf },
	{ "run", "antiphon rx run", rx_run_help, rx_run },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(void)
{
	fputs("usage: antiphon rx COMMAND [ARGUMENT...]\n"
	      "Talks to whatever speaks Rx, the protocol of AFS, at a UDP port: this program's services,\n"
	      "OpenAFS, Linux. HOST is a name, an IPv4 address, or an IPv6 address, in brackets where a\n"
	      "port follows.\n\n"
	      "options:\n"
	      "  --help  show this text; 'antiphon rx COMMAND --help' shows the part about one command\n",
	      stdout);
	for (size_t i = 0; i < N_COMMANDS; i++) {
		putchar('\n');
		fputs(commands[i].text, stdout);
	}
}

int cmd_rx(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	if (name && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)) {
		print_help();
		return cli_finish(CLI_OK);
	}
	return cli_run_command(commands, N_COMMANDS, argc, argv);
}
