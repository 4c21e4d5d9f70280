/* SPDX-License-Identifier: MIT */
/*
 * What every subcommand shares: exit statuses, complaints, and the reading of option values.
 *
 * The program uses the public headers alone, so that everything it does any user could do.
 */
#ifndef ANTIPHON_CLI_H
#define ANTIPHON_CLI_H

#include <antiphon/antiphon.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Exit statuses. The last three are given by `antiphon call` alone, one per outcome. */
enum cli_status {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_MISUSED = 2,
	CLI_REFUSED = 3,
	CLI_ABORTED = 4,
	CLI_LOST = 5,
};

/* Every subcommand, one file each; they get argv from their own name on and return a cli_status. */
int cmd_serve(int argc, char **argv);
int cmd_call(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_rx(int argc, char **argv);
int cmd_hold(int argc, char **argv);

struct cli_command {
	const char *name;
	const char *program; /* what its messages begin with */
	const char *text;    /* for the help of all */
	int (*run)(int argc, char **argv);
};

/* Runs the command that argv[1] names, or complains. Returns a cli_status. */
int cli_run_command(const struct cli_command *commands, size_t n, int argc, char **argv);

/* The name that messages begin with, "antiphon call" say. Borrowed for ever. */
void cli_set_program(const char *name);
const char *cli_program(void);

/* One line on standard error, "PROGRAM: message". */
void cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* After a complaint about how the program was used: where to read more. Returns CLI_MISUSED. */
int cli_bad_option(void);

/* Complains and says where to read more. Is CLI_MISUSED. */
#define cli_misused(...) (cli_error(__VA_ARGS__), cli_bad_option())

/* Of a command that takes no operands. */
#define cli_superfluous(operand) cli_misused("'%s' is too much: it takes options only", operand)

/*
 * Whether getaddrinfo(3) may be asked for that port: a number, or what may be the name of a
 * service. Of a number that is none of a port it would take the lower 16 bits.
 */
bool cli_is_port(const char *text);

/* What getaddrinfo(3) means by the number that it returned; right after it. */
const char *cli_resolver_error(int r);

/* The exit status that tells an outcome. */
int cli_outcome_status(enum aph_outcome outcome);

/*
 * Writes out what standard output still holds. Returns `status`, or CLI_FAILED with a message when
 * it could not be written: a full disk must not look like success.
 */
int cli_finish(int status);

/*
 * Values of options. They return 0 and the value, or complain about the option of that name and
 * return -EINVAL.
 */
int cli_read_count(const char *option, const char *text, uint64_t min, uint64_t max,
		   uint64_t *value);
/*
 * Seconds, with a fraction if need be, in milliseconds; `forever` is UINT64_MAX where that is
 * allowed.
 */
int cli_read_seconds(const char *option, const char *text, bool allow_forever, uint64_t *ms);
/* A number of bytes with K, M or G behind it if need be: powers of 1024. */
int cli_read_size(const char *option, const char *text, uint64_t max, uint64_t *bytes);

#endif
