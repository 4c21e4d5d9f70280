/* SPDX-License-Identifier: MIT */
/*
 * antiphon ls [NAME...]: which services there are.
 */
#include "format.h"
#include "json.h"
#include "options.h"
#include "table.h"

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_DEFAULT_MS 1000

static const char help[] =
	"usage: antiphon ls [OPTION...] [NAME...]\n"
	"Lists the services that you may see, or those whose names match a NAME, in which * and ?\n"
	"stand for other letters. '-' is what a service has not, or does not tell you.\n\n"
	"  --json             print a JSON array with all that is known\n"
	"  --timeout SECONDS  wait so long for a service to tell its figures; by default 1\n"
	"  --help             show this text\n\n"
	"  antiphon ls\n"
	"  antiphon ls 'echo*' --json\n";

static void json_id(struct json *json, const char *key, int64_t id)
{
	if (id < 0)
		json_null(json, key);
	else
		json_int(json, key, id);
}

static void print_json_service(struct json *json, const struct aph_service_info *info)
{
	json_begin_object(json, NULL);
	json_string(json, "name", info->name.name);
	json_id(json, "uid", info->name.uid);
	json_id(json, "gid", info->name.gid);
	json_uint(json, "owner", info->owner);
	json_id(json, "pid", info->pid == 0 ? -1 : info->pid);
	json_string(json, "program", info->program);
	if (info->has_stats) {
		json_uint(json, "channels", info->channels);
		json_uint(json, "calls", info->calls);
		json_uint(json, "calls_open", info->calls_open);
		json_uint(json, "disposed", info->ended_disposed);
		json_uint(json, "aborted", info->ended_aborted);
		json_uint(json, "gone", info->ended_gone);
		json_uint(json, "violations", info->violations);
	}
	json_end(json);
}

/* A number that may be unknown. */
static const char *figure(struct text *text, bool known, uint64_t value)
{
	if (known)
		snprintf(text->s, sizeof(text->s), "%llu", (unsigned long long)value);
	else
		strcpy(text->s, "-");
	return text->s;
}

static int add_row(struct table *table, const struct aph_service_info *info)
{
	struct text text;
	int r;

	r = table_add(table, info->name.name);
	if (r == 0)
		r = table_add(table, format_user(&text, info->name.uid));
	if (r == 0)
		r = table_add(table, format_group(&text, info->name.gid));
	if (r == 0)
		r = table_add(table, figure(&text, info->pid != 0, (uint64_t)info->pid));
	if (r == 0)
		r = table_add(table,
			      info->program[0] == '\0' ? "-" : format_safe(&text, info->program));
	if (r == 0)
		r = table_add(table, figure(&text, info->has_stats, info->channels));
	if (r == 0)
		r = table_add(table, figure(&text, info->has_stats, info->calls));
	return r;
}

static bool is_wanted(const struct aph_service_info *info, int n_patterns, char **patterns)
{
	for (int i = 0; i < n_patterns; i++) {
		if (fnmatch(patterns[i], info->name.name, 0) == 0)
			return true;
	}
	return n_patterns == 0;
}

static int print_table(const struct aph_service_info *list, size_t n, int n_patterns,
		       char **patterns, size_t *n_printed)
{
	static const char *const headings[] = { "NAME",	   "USER",	"GROUP", ">PID",
						"PROGRAM", ">CHANNELS", ">CALLS" };
	struct table table;
	int r = 0;

	table_init(&table, headings, sizeof(headings) / sizeof(headings[0]));
	for (size_t i = 0; i < n && r == 0; i++) {
		if (!is_wanted(&list[i], n_patterns, patterns))
			continue;
		r = add_row(&table, &list[i]);
		++*n_printed;
	}
	if (r == 0 && *n_printed > 0)
		table_print(&table, stdout, 0, 0);
	table_deinit(&table);
	return r;
}

static void print_json(const struct aph_service_info *list, size_t n, int n_patterns,
		       char **patterns, size_t *n_printed)
{
	struct json json;

	json_init(&json, stdout);
	json_begin_array(&json, NULL);
	for (size_t i = 0; i < n; i++) {
		if (!is_wanted(&list[i], n_patterns, patterns))
			continue;
		print_json_service(&json, &list[i]);
		++*n_printed;
	}
	json_end(&json);
}

static int list_services(bool as_json, uint64_t timeout_ms, int n_patterns, char **patterns)
{
	struct aph_service_info *list = NULL;
	size_t n = 0, n_printed = 0;
	int r;

	r = aph_directory_list(&list, &n, aph_deadline_ms(timeout_ms));
	/* Where there is no directory yet nobody has served anything yet. */
	if (r < 0 && r != -ENOENT) {
		cli_error("%s", aph_error());
		return CLI_FAILED;
	}
	if (as_json)
		print_json(list, n, n_patterns, patterns, &n_printed);
	else
		r = print_table(list, n, n_patterns, patterns, &n_printed);
	free(list);
	if (r == -ENOMEM) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	if (n_patterns > 0 && n_printed == 0) {
		cli_error("no service that you may see has such a name");
		return CLI_FAILED;
	}
	return CLI_OK;
}

int cmd_ls(int argc, char **argv)
{
	uint64_t timeout_ms = TIMEOUT_DEFAULT_MS;
	bool as_json = false;
	const struct cli_option options[] = {
		CLI_OPTION("json", CLI_FLAG, &as_json),
		CLI_OPTION("timeout", CLI_SECONDS, &timeout_ms),
	};
	int status;

	if (!cli_read_options(argc, argv, help, options, CLI_LEN(options), &status))
		return status;
	return cli_finish(list_services(as_json, timeout_ms, argc - optind, argv + optind));
}
