/* SPDX-License-Identifier: MIT */
/*
 * Exit statuses, complaints and option values for all subcommands.
 */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *program = "antiphon";

void cli_set_program(const char *name)
{
	program = name;
}

const char *cli_program(void)
{
	return program;
}

void cli_error(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", program);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

int cli_bad_option(void)
{
	fprintf(stderr, "%s: '%s --help' lists what it takes\n", program, program);
	return CLI_MISUSED;
}

int cli_run_command(const struct cli_command *commands, size_t n, int argc, char **argv)
{
	if (argc < 2)
		return cli_misused("a command is missing");
	for (size_t i = 0; i < n; i++) {
		static char name[32];

		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		/* getopt_long() begins its own messages with argv[0]. */
		(void)snprintf(name, sizeof(name), "%s", commands[i].program);
		cli_set_program(name);
		argv[1] = name;
		return commands[i].run(argc - 1, argv + 1);
	}
	return cli_misused("there is no command '%s'", argv[1]);
}

bool cli_is_port(const char *text)
{
	size_t n_digits = strspn(text, "0123456789");

	if (text[n_digits] != '\0')
		return isalnum((unsigned char)text[0]) != 0;
	return n_digits > 0 && n_digits <= 5 && atoi(text) <= UINT16_MAX;
}

const char *cli_resolver_error(int r)
{
	if (r == EAI_SYSTEM)
		return strerror(errno);
	if (r == EAI_SERVICE)
		return "there is no service of that name: use the number of the port";
	return gai_strerror(r);
}

int cli_outcome_status(enum aph_outcome outcome)
{
	switch (outcome) {
	case APH_ANSWERED:
		return CLI_OK;
	case APH_REFUSED:
		return CLI_REFUSED;
	case APH_ABORTED:
		return CLI_ABORTED;
	case APH_LOST:
		return CLI_LOST;
	case APH_DISPOSED:
	case APH_GONE:
		break;
	}
	return CLI_FAILED;
}

int cli_finish(int status)
{
	int failed = ferror(stdout);

	if (fflush(stdout) == 0 && !failed)
		return status;
	cli_error("cannot write to standard output: %s", strerror(errno));
	return CLI_FAILED;
}

int cli_read_count(const char *option, const char *text, uint64_t min, uint64_t max,
		   uint64_t *value)
{
	unsigned long long number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number < min ||
	    number > max) {
		cli_error("--%s takes a number from %llu to %llu, not '%s'", option,
			  (unsigned long long)min, (unsigned long long)max, text);
		return -EINVAL;
	}
	*value = number;
	return 0;
}

int cli_read_seconds(const char *option, const char *text, bool allow_forever, uint64_t *ms)
{
	double seconds;
	char *end;

	if (allow_forever && strcmp(text, "forever") == 0) {
		*ms = UINT64_MAX;
		return 0;
	}
	errno = 0;
	seconds = strtod(text, &end);
	/* One thousand million seconds are 31 years: more is a slip of the hand. */
	if (((text[0] < '0' || text[0] > '9') && text[0] != '.') || *end != '\0' || errno != 0 ||
	    !(seconds >= 0.001 && seconds <= 1e9)) {
		cli_error("--%s takes seconds from 0.001 to 1000000000%s, not '%s'", option,
			  allow_forever ? " or 'forever'" : "", text);
		return -EINVAL;
	}
	*ms = (uint64_t)(seconds * 1000.0 + 0.5);
	return 0;
}

static uint64_t unit_factor(const char *unit)
{
	if (strcmp(unit, "") == 0)
		return 1;
	if (strcmp(unit, "K") == 0)
		return UINT64_C(1) << 10;
	if (strcmp(unit, "M") == 0)
		return UINT64_C(1) << 20;
	if (strcmp(unit, "G") == 0)
		return UINT64_C(1) << 30;
	return 0;
}

int cli_read_size(const char *option, const char *text, uint64_t max, uint64_t *bytes)
{
	unsigned long long number;
	uint64_t factor;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 10);
	factor = unit_factor(end);
	if (text[0] < '0' || text[0] > '9' || errno != 0 || factor == 0 || number == 0 ||
	    number > max / factor) {
		cli_error(
			"--%s takes a number of bytes up to %llu, or one with K, M or G, not '%s'",
			option, (unsigned long long)max, text);
		return -EINVAL;
	}
	*bytes = number * factor;
	return 0;
}
