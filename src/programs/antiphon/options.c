/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <assert.h>
#include <getopt.h>

/* Numbers of options without a letter begin here. */
#define OPT_FIRST 256

static int number_of(const struct cli_option *option, size_t i)
{
	return option->letter ? option->letter : OPT_FIRST + (int)i;
}

static bool takes_value(const struct cli_option *option)
{
	return option->kind != CLI_FLAG && option->kind != CLI_BIT;
}

static int status_of(int r)
{
	return r < 0 ? CLI_MISUSED : CLI_OK;
}

static int read_value(const struct cli_option *option, const char *text)
{
	switch (option->kind) {
	case CLI_FLAG:
		*(bool *)option->value = true;
		return CLI_OK;
	case CLI_BIT:
		*(uint32_t *)option->value |= (uint32_t)option->max;
		return CLI_OK;
	case CLI_COUNT:
		return status_of(cli_read_count(option->name, text, option->min, option->max,
						option->value));
	case CLI_SIZE:
		return status_of(cli_read_size(option->name, text, option->max, option->value));
	case CLI_SECONDS:
	case CLI_TIMEOUT:
		return status_of(cli_read_seconds(option->name, text, option->kind == CLI_TIMEOUT,
						  option->value));
	case CLI_TEXT:
		*(const char **)option->value = text;
		return CLI_OK;
	case CLI_OTHER:
		return option->read(option->value, text);
	}
	return CLI_MISUSED;
}

/* What getopt_long() wants to know: `h` and the letters that are there, and all names. */
static void describe(const struct cli_option *options, size_t n, struct option *names,
		     char *letters)
{
	*letters++ = 'h';
	for (size_t i = 0; i < n; i++) {
		const struct cli_option *option = &options[i];

		names[i] = (struct option){
			.name = option->name,
			.has_arg = takes_value(option) ? required_argument : no_argument,
			.val = number_of(option, i),
		};
		if (!option->letter)
			continue;
		*letters++ = option->letter;
		if (takes_value(option))
			*letters++ = ':';
	}
	*letters = '\0';
	names[n] = (struct option){ .name = "help", .val = 'h' };
	names[n + 1] = (struct option){ .name = NULL };
}

static int read_one(const struct cli_option *options, size_t n, int found)
{
	for (size_t i = 0; i < n; i++) {
		if (number_of(&options[i], i) == found)
			return read_value(&options[i], optarg);
	}
	return CLI_MISUSED; /* getopt_long() has said why */
}

bool cli_read_options(int argc, char **argv, const char *help, const struct cli_option *options,
		      size_t n, int *status)
{
	struct option names[CLI_OPTIONS_MAX + 2];
	char letters[2 * CLI_OPTIONS_MAX + 2];
	int found;

	assert(n <= CLI_OPTIONS_MAX);
	describe(options, n, names, letters);
	while ((found = getopt_long(argc, argv, letters, names, NULL)) != -1) {
		if (found == 'h') {
			fputs(help, stdout);
			*status = cli_finish(CLI_OK);
			return false;
		}
		*status = read_one(options, n, found);
		if (*status == CLI_MISUSED)
			*status = cli_bad_option();
		if (*status != CLI_OK)
			return false;
	}
	return true;
}
