/* SPDX-License-Identifier: MIT */
/*
 * What the parts of `antiphon hold` share: cmd_hold.c reads the options and is the keeper,
 * hold_client.c are the commands that talk to it, hold_exec.c those that end in another program,
 * hold_listen.c makes sockets.
 */
#ifndef ANTIPHON_CLI_HOLD_H
#define ANTIPHON_CLI_HOLD_H

#include <antiphon/antiphon.h>
#include <antiphon/hold.h>

#include <stdbool.h>

#define HOLD_OPTIONS_MAX 64 /* of one kind */

struct hold_options {
	const char *address;
	uint64_t timeout_ms;
	struct aph_hold_options call; /* of the requests */
	const char *allow[HOLD_OPTIONS_MAX];
	size_t n_allow;
	const char *limit[HOLD_OPTIONS_MAX];
	size_t n_limit;
	const char *listen[APH_HOLD_FDS_MAX];
	size_t n_listen;
	enum aph_hold_survival survival;
	bool replace;
	bool log;
	bool json;
	bool take;
	bool has_to;
	uid_t to;
	char **command; /* behind "--"; NULL */
};

/* The commands; `names` are the operands. They return a cli_status. */
int hold_cmd_store(const struct hold_options *options, int n_names, char **names);
int hold_cmd_exec(const struct hold_options *options, int n_names, char **names);
int hold_cmd_list(const struct hold_options *options, int n_names, char **names);
int hold_cmd_delete(const struct hold_options *options, int n_names, char **names);
int hold_cmd_transfer(const struct hold_options *options, int n_names, char **names);
int hold_cmd_accept(const struct hold_options *options, int n_names, char **names);
int hold_cmd_stop(const struct hold_options *options, int n_names, char **names);

/* Connects, or complains. 0 or -errno. */
int hold_connect(struct aph_hold **hold, const struct hold_options *options);
uint64_t hold_deadline(const struct hold_options *options);
/* The cli_status of what failed with -errno. */
int hold_status(int r);
/* Says what went wrong with a name; its cli_status. */
int hold_failed(const char *name, int r);

/* A socket that listens at [HOST:]PORT or at /PATH; -1 after a complaint. */
int hold_listen_at(const char *address);

/* Descriptors on their way to a program, with the name of each. */
struct hold_set {
	int *fds;
	char (*names)[APH_HOLD_NAME_MAX + 1];
	size_t n, max;
};

/* Adds descriptors, which are the set's then, in any case. 0 or -ENOMEM. */
int hold_set_add(struct hold_set *set, const char *name, const int *fds, size_t n);
void hold_set_free(struct hold_set *set);
/*
 * Becomes the command, which finds them from 3 up, as sd_listen_fds(3) says. Returns a cli_status
 * if it cannot.
 */
int hold_set_exec(struct hold_set *set, char **command);

#endif
