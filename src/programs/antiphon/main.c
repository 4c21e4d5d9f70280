/* SPDX-License-Identifier: MIT */
/*
 * antiphon: calls by name from the shell. This file finds the subcommand; each has a file of its
 * own.
 */
#include "cli.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const struct cli_command commands[] = {
	{ "serve", "antiphon serve", "put a command behind a name", cmd_serve },
	{ "call", "antiphon call", "call a name, write its reply to standard output", cmd_call },
	{ "ls", "antiphon ls", "list the services", cmd_ls },
	{ "top", "antiphon top", "watch rates, latencies and queues of the services", cmd_top },
	{ "rx", "antiphon rx", "ask and measure what speaks Rx on other machines", cmd_rx },
	{ "hold", "antiphon hold", "keep descriptors for programs that are away", cmd_hold },
	{ "bench", "antiphon bench", "measure calls on this machine beside a socket", cmd_bench },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(FILE *out)
{
	fputs("usage: antiphon COMMAND [ARGUMENT...]\n"
	      "Named calls between processes.\n\n"
	      "commands:\n",
	      out);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].text);
	fputs("\noptions:\n"
	      "  --help     show this text; 'antiphon COMMAND --help' says more\n"
	      "  --version  show the version\n\n"
	      "example:\n"
	      "  antiphon serve echo -- cat\n"
	      "  antiphon call echo hello\n",
	      out);
}

/*
 * A descriptor that is opened later must never become standard input, output or error by accident.
 * What is written to a standard output that was closed must not look as if it were there, nor a
 * standard input that was closed as if it were empty.
 */
static int open_standard_descriptors(void)
{
	int fd;

	do {
		int flags = O_RDWR;

		if (fcntl(STDIN_FILENO, F_GETFD) < 0)
			flags = O_WRONLY;
		else if (fcntl(STDOUT_FILENO, F_GETFD) < 0)
			flags = O_RDONLY;
		fd = open("/dev/null", flags);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	if (open_standard_descriptors() < 0) {
		cli_error("cannot open /dev/null, which it needs to be there");
		return CLI_FAILED;
	}
	if (name && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)) {
		print_help(stdout);
		return cli_finish(CLI_OK);
	}
	if (name && strcmp(name, "--version") == 0) {
		printf("antiphon %s\n", aph_version());
		return cli_finish(CLI_OK);
	}
	return cli_run_command(commands, N_COMMANDS, argc, argv);
}
