/* SPDX-License-Identifier: MIT */
/*
 * Options of a command line from a table: a line for each says what it is called, what it takes and
 * where that goes. --help is everybody's.
 */
#ifndef ANTIPHON_CLI_OPTIONS_H
#define ANTIPHON_CLI_OPTIONS_H

#include "cli.h"

#include <stddef.h>

enum cli_kind {
	CLI_FLAG,    /* nothing: the bool becomes true */
	CLI_BIT,     /* nothing: `max` is or-ed into the uint32_t */
	CLI_COUNT,   /* a number from `min` to `max`: uint64_t */
	CLI_SIZE,    /* a number of bytes up to `max`: uint64_t */
	CLI_SECONDS, /* uint64_t, in milliseconds */
	CLI_TIMEOUT, /* the same, or `forever`: UINT64_MAX */
	CLI_TEXT,    /* const char *: borrowed from argv */
	CLI_OTHER,   /* whatever `read` makes of it, which says a cli_status after a message */
};

struct cli_option {
	const char *name;
	enum cli_kind kind;
	void *value;
	uint64_t min, max;
	char letter; /* 0: it has no short form */
	int (*read)(void *value, const char *text);
};

/* The usual lines of a table; those with a letter or a function of their own name their members. */
#define CLI_OPTION(name_, kind_, value_)                            \
	{                                                           \
		.name = (name_), .kind = (kind_), .value = (value_) \
	}
#define CLI_BOUNDED(name_, kind_, value_, min_, max_)                                             \
	{                                                                                         \
		.name = (name_), .kind = (kind_), .value = (value_), .min = (min_), .max = (max_) \
	}

#define CLI_OPTIONS_MAX 24u
#define CLI_LEN(array)	(sizeof(array) / sizeof((array)[0]))

/*
 * Reads them all, with getopt_long(3): operands begin at argv[optind] then, and true is returned.
 * Else the command is over with *status: `help` was asked for and printed, or something was wrong
 * and was said.
 */
bool cli_read_options(int argc, char **argv, const char *help, const struct cli_option *options,
		      size_t n, int *status);

#endif
