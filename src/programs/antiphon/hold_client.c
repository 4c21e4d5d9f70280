/* SPDX-License-Identifier: MIT */
/*
 * antiphon hold store, list, delete, transfer, stop.
 */
#include "cli.h"
#include "format.h"
#include "hold.h"
#include "json.h"
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t hold_deadline(const struct hold_options *options)
{
	return aph_deadline_ms(options->timeout_ms);
}

int hold_connect(struct aph_hold **hold, const struct hold_options *options)
{
	int r = aph_hold_open(hold, options->address, hold_deadline(options));

	if (r == -ENOENT)
		cli_error("there is no keeper: 'antiphon hold' is one");
	else if (r < 0)
		cli_error("%s", aph_hold_error());
	return r;
}

int hold_status(int r)
{
	return r == -EINVAL ? CLI_MISUSED : CLI_FAILED;
}

int hold_failed(const char *name, int r)
{
	cli_error("'%s': %s", name, aph_hold_error());
	return hold_status(r);
}

/* -- store ------------------------------------------------------------------------------------- */

/* Of one that the caller has left open for us. */
static int read_descriptor(const char *text, int *fd)
{
	char *end;
	long number = strtol(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || number > 1 << 20)
		return cli_misused("'%s' is no number of a descriptor", text);
	if (fcntl((int)number, F_GETFD) < 0) {
		cli_error("descriptor %ld is not open", number);
		return CLI_FAILED;
	}
	*fd = (int)number;
	return CLI_OK;
}

static int read_descriptors(const struct hold_options *options, int n, char **numbers, int *fds)
{
	int status = CLI_OK;

	if (n == 0 && !options->n_listen)
		return cli_misused("store needs numbers of descriptors, or --listen");
	if ((size_t)n + options->n_listen > APH_HOLD_FDS_MAX)
		return cli_misused("more than %d descriptors", APH_HOLD_FDS_MAX);
	for (int i = 0; i < n && status == CLI_OK; i++)
		status = read_descriptor(numbers[i], &fds[i]);
	return status;
}

/* Nobody will ever answer at these paths, and they would be in the way of the next attempt. */
static void remove_paths(const struct hold_options *options, size_t n_listening)
{
	for (size_t i = 0; i < n_listening; i++) {
		if (options->listen[i][0] == '/')
			(void)unlink(options->listen[i]);
	}
}

/* 0, or -1 after a complaint. */
static int listen_at_all(const struct hold_options *options, int *fds)
{
	for (size_t i = 0; i < options->n_listen; i++) {
		fds[i] = hold_listen_at(options->listen[i]);
		if (fds[i] < 0) {
			remove_paths(options, i);
			return -1;
		}
	}
	return 0;
}

int hold_cmd_store(const struct hold_options *options, int n_names, char **names)
{
	struct aph_hold_options call = options->call;
	int fds[APH_HOLD_FDS_MAX], n_given = n_names - 1, status, r;
	size_t n_fds = (size_t)n_given + options->n_listen;
	struct aph_hold *hold;

	/* Before anything of ours is open. */
	status = read_descriptors(options, n_given, names + 1, fds);
	if (status != CLI_OK)
		return status;
	r = hold_connect(&hold, options);
	if (r < 0)
		return hold_status(r);
	r = listen_at_all(options, fds + n_given);
	if (r == 0) {
		call.flags |= options->replace ? APH_HOLD_REPLACE : 0;
		r = aph_hold_store(hold, names[0], fds, n_fds, &call, hold_deadline(options));
		if (r < 0)
			(void)hold_failed(names[0], r);
		/* After a time-out it may be kept all the same. */
		if (r < 0 && r != -ETIMEDOUT)
			remove_paths(options, options->n_listen);
	}
	aph_hold_close(hold);
	return r < 0 ? hold_status(r) : CLI_OK;
}

/* -- list -------------------------------------------------------------------------------------- */

static void print_json(const struct aph_hold_info *list, size_t n)
{
	struct json json;

	json_init(&json, stdout);
	json_begin_array(&json, NULL);
	for (size_t i = 0; i < n; i++) {
		json_begin_object(&json, NULL);
		json_string(&json, "name", list[i].name);
		json_uint(&json, "owner", list[i].owner);
		json_uint(&json, "descriptors", list[i].n_fds);
		json_double(&json, "age", (double)list[i].age_ms / 1000.0);
		if (list[i].expiry_ms)
			json_double(&json, "expires", (double)list[i].expiry_ms / 1000.0);
		else
			json_null(&json, "expires");
		if (list[i].offered)
			json_uint(&json, "offered_to", list[i].offered_to);
		else
			json_null(&json, "offered_to");
		json_end(&json);
	}
	json_end(&json);
}

static int add_row(struct table *table, const struct aph_hold_info *info)
{
	struct text text;
	char number[32];
	int r;

	r = table_add(table, info->name);
	if (r == 0)
		r = table_add(table, format_user(&text, (int64_t)info->owner));
	snprintf(number, sizeof(number), "%u", (unsigned)info->n_fds);
	if (r == 0)
		r = table_add(table, number);
	if (r == 0)
		r = table_add(table, format_duration(&text, (double)info->age_ms * 1e6));
	if (r == 0)
		r = table_add(table, info->expiry_ms
					     ? format_duration(&text, (double)info->expiry_ms * 1e6)
					     : "-");
	if (r == 0)
		r = table_add(table,
			      info->offered ? format_user(&text, (int64_t)info->offered_to) : "-");
	return r;
}

static int print_table(const struct aph_hold_info *list, size_t n)
{
	static const char *const headings[] = { "NAME", "OWNER",    ">DESCRIPTORS",
						">AGE", ">EXPIRES", "OFFERED TO" };
	struct table table;
	int r = 0;

	table_init(&table, headings, sizeof(headings) / sizeof(headings[0]));
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_row(&table, &list[i]);
	if (r < 0)
		cli_error("out of memory");
	else if (n)
		table_print(&table, stdout, 0, 0);
	table_deinit(&table);
	return r;
}

int hold_cmd_list(const struct hold_options *options, int n_names, char **names)
{
	struct aph_hold_info *list = NULL;
	struct aph_hold *hold;
	size_t n = 0;
	int r;

	r = hold_connect(&hold, options);
	if (r < 0)
		return hold_status(r);
	r = aph_hold_list(hold, n_names ? names[0] : NULL, &list, &n, &options->call,
			  hold_deadline(options));
	if (r < 0)
		cli_error("%s", aph_hold_error());
	else if (options->json)
		print_json(list, n);
	else
		r = print_table(list, n);
	free(list);
	aph_hold_close(hold);
	return r < 0 ? hold_status(r) : CLI_OK;
}

/* -- delete, transfer, stop -------------------------------------------------------------------- */

int hold_cmd_delete(const struct hold_options *options, int n_names, char **names)
{
	struct aph_hold *hold;
	int status = CLI_OK;
	int r;

	r = hold_connect(&hold, options);
	if (r < 0)
		return hold_status(r);
	for (int i = 0; i < n_names; i++) {
		r = aph_hold_delete(hold, names[i], &options->call, hold_deadline(options));
		if (r < 0)
			status = hold_failed(names[i], r);
	}
	aph_hold_close(hold);
	return status;
}

int hold_cmd_transfer(const struct hold_options *options, int n_names, char **names)
{
	struct aph_hold_offer *offer;
	struct aph_hold *hold;
	uid_t to = options->has_to ? options->to : geteuid();
	int r;

	(void)n_names;
	r = hold_connect(&hold, options);
	if (r < 0)
		return hold_status(r);
	r = aph_hold_offer(&offer, hold, names[0], to, &options->call);
	if (r == 0)
		r = aph_hold_offer_wait(offer, hold_deadline(options));
	if (r < 0)
		(void)hold_failed(names[0], r);
	aph_hold_close(hold);
	return r < 0 ? hold_status(r) : CLI_OK;
}

int hold_cmd_stop(const struct hold_options *options, int n_names, char **names)
{
	struct aph_hold *hold;
	int r;

	(void)n_names;
	(void)names;
	r = hold_connect(&hold, options);
	if (r < 0)
		return hold_status(r);
	r = aph_hold_stop(hold, hold_deadline(options));
	if (r < 0)
		cli_error("%s", aph_hold_error());
	aph_hold_close(hold);
	return r < 0 ? hold_status(r) : CLI_OK;
}
