/* SPDX-License-Identifier: MIT */
/*
 * antiphon hold exec and accept: descriptors that come back to a program.
 */
#include "cli.h"
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_FD 3

/* -- a set of descriptors ---------------------------------------------------------------------- */

void hold_set_free(struct hold_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		close(set->fds[i]);
	free(set->fds);
	free(set->names);
	memset(set, 0, sizeof(*set));
}

static int make_room(struct hold_set *set, size_t n)
{
	void *fds, *names;

	if (set->n + n <= set->max)
		return 0;
	fds = reallocarray(set->fds, set->max + n, sizeof(*set->fds));
	if (!fds)
		return -ENOMEM;
	set->fds = fds;
	names = reallocarray(set->names, set->max + n, sizeof(*set->names));
	if (!names)
		return -ENOMEM;
	set->names = names;
	set->max += n;
	return 0;
}

int hold_set_add(struct hold_set *set, const char *name, const int *fds, size_t n)
{
	int r = make_room(set, n);

	for (size_t i = 0; i < n; i++) {
		if (r < 0) {
			close(fds[i]);
			continue;
		}
		set->fds[set->n] = fds[i];
		snprintf(set->names[set->n], sizeof(set->names[0]), "%s", name);
		set->n++;
	}
	return r;
}

/* "web:web:log", as sd_listen_fds_with_names(3) wants it. */
static int announce(const struct hold_set *set)
{
	char number[24], *list = calloc(set->n + 1, sizeof(set->names[0]) + 1), *at = list;
	int r = -1;

	if (!list)
		return -1;
	for (size_t i = 0; i < set->n; i++)
		at += sprintf(at, "%s%s", i ? ":" : "", set->names[i]);
	snprintf(number, sizeof(number), "%zu", set->n);
	if (setenv("LISTEN_FDS", number, 1) == 0 && setenv("LISTEN_FDNAMES", list, 1) == 0) {
		snprintf(number, sizeof(number), "%ld", (long)getpid());
		r = setenv("LISTEN_PID", number, 1);
	}
	free(list);
	return r;
}

/* Out of the way first: the places may be taken by one another, or by something of ours. */
static int put_in_place(struct hold_set *set)
{
	int beyond = FIRST_FD + (int)set->n;

	for (size_t i = 0; i < set->n; i++) {
		int fd = set->fds[i];

		if (fd >= beyond)
			continue;
		set->fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, beyond);
		if (set->fds[i] < 0) {
			set->fds[i] = fd;
			return -1;
		}
		close(fd);
	}
	for (size_t i = 0; i < set->n; i++) {
		if (dup2(set->fds[i], FIRST_FD + (int)i) < 0)
			return -1;
	}
	return 0;
}

int hold_set_exec(struct hold_set *set, char **command)
{
	int saved;

	if (put_in_place(set) < 0 || announce(set) < 0) {
		cli_error("cannot hand over the descriptors: %s", strerror(errno));
		return CLI_FAILED;
	}
	fflush(stdout);
	execvp(command[0], command);
	saved = errno;
	cli_error("cannot run '%s': %s", command[0], strerror(saved));
	return saved == ENOENT ? 127 : 126;
}

/* -- exec -------------------------------------------------------------------------------------- */

static int retrieve(struct aph_hold *hold, const struct hold_options *options, const char *name,
		    struct hold_set *set)
{
	struct aph_hold_options call = options->call;
	int fds[APH_HOLD_FDS_MAX];
	size_t n = APH_HOLD_FDS_MAX;
	int r;

	call.flags |= options->take ? APH_HOLD_TAKE : 0;
	r = aph_hold_retrieve(hold, name, fds, &n, &call, hold_deadline(options));
	if (r < 0) {
		(void)hold_failed(name, r);
		return r;
	}
	r = hold_set_add(set, name, fds, n);
	if (r < 0)
		cli_error("out of memory");
	return r;
}

/* Every name of the owner. */
static int retrieve_all(struct aph_hold *hold, const struct hold_options *options,
			struct hold_set *set)
{
	struct aph_hold_info *list;
	size_t n;
	int r = aph_hold_list(hold, NULL, &list, &n, &options->call, hold_deadline(options));

	if (r < 0) {
		cli_error("%s", aph_hold_error());
		return r;
	}
	for (size_t i = 0; i < n && r == 0; i++)
		r = retrieve(hold, options, list[i].name, set);
	free(list);
	return r;
}

int hold_cmd_exec(const struct hold_options *options, int n_names, char **names)
{
	struct hold_set set = { 0 };
	struct aph_hold *hold;
	int r, status;

	if (!options->command)
		return cli_misused("exec needs a command behind --");
	r = hold_connect(&hold, options);
	if (r < 0)
		return hold_status(r);
	if (!n_names)
		r = retrieve_all(hold, options, &set);
	for (int i = 0; i < n_names && r == 0; i++)
		r = retrieve(hold, options, names[i], &set);
	aph_hold_close(hold);
	status = r == 0 ? hold_set_exec(&set, options->command) : hold_status(r);
	hold_set_free(&set);
	return status;
}

/* -- accept ------------------------------------------------------------------------------------ */

int hold_cmd_accept(const struct hold_options *options, int n_names, char **names)
{
	struct aph_hold_acceptance *acceptance;
	struct hold_set set = { 0 };
	struct aph_hold *hold;
	int fds[APH_HOLD_FDS_MAX], status, r;
	size_t n = APH_HOLD_FDS_MAX;

	(void)n_names;
	r = hold_connect(&hold, options);
	if (r < 0)
		return hold_status(r);
	r = aph_hold_accept(&acceptance, hold, names[0], fds, &n, &options->call,
			    hold_deadline(options));
	if (r == 0) {
		r = hold_set_add(&set, names[0], fds, n);
		if (r < 0)
			aph_hold_decline(acceptance);
		else
			r = aph_hold_confirm(acceptance, hold_deadline(options));
	}
	if (r < 0)
		(void)hold_failed(names[0], r);
	aph_hold_close(hold);
	if (r < 0)
		status = hold_status(r);
	else
		status = options->command ? hold_set_exec(&set, options->command) : CLI_OK;
	hold_set_free(&set);
	return status;
}
