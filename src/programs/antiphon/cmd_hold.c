/* SPDX-License-Identifier: MIT */
/*
 * antiphon hold: the keeper of descriptors, and the commands that talk to it.
 */
#include "cli.h"
#include "hold.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_DEFAULT_MS 10000

static const char help[] =
	"usage: antiphon hold [OPTION...]\n"
	"       antiphon hold store [OPTION...] NAME [DESCRIPTOR...]\n"
	"       antiphon hold exec [OPTION...] [NAME...] -- COMMAND [ARGUMENT...]\n"
	"       antiphon hold list [OPTION...] [PREFIX]\n"
	"       antiphon hold delete [OPTION...] NAME...\n"
	"       antiphon hold transfer [OPTION...] NAME\n"
	"       antiphon hold accept [OPTION...] NAME [-- COMMAND [ARGUMENT...]]\n"
	"       antiphon hold stop [OPTION...]\n"
	"Keeps descriptors, by name, for programs that are away; gives them back, from 3 up and with\n"
	"LISTEN_FDS in the environment, to the program that is started next.\n\n"
	"The keeper:\n"
	"  --allow RULE       let others in: uid=U or gid=G, and prefix=P, owner=O, can=VERB+VERB\n"
	"  --limit [USER=]N   descriptors of a user; by default 1024\n"
	"  --survive HOW      'twin', 'systemd' or 'not'; by default systemd if NOTIFY_SOCKET is set\n"
	"  --replace          take over from the keeper that is there; with store: from what is kept\n"
	"  --log              say on standard error what happens\n"
	"Everywhere:\n"
	"  --at ADDRESS       where the keeper is; by default caps:hold\n"
	"  --timeout SECONDS  give up after that time, or 'forever'; by default 10\n"
	"  --owner USER       a name of that user, and not one's own; with accept: who offers it\n"
	"store:\n"
	"  --listen ADDRESS   make a socket that listens at [HOST:]PORT or /PATH, and keep it\n"
	"  --expire SECONDS   close it after that time\n"
	"exec:\n"
	"  --take             the keeper shall forget them\n"
	"list:\n"
	"  --all              names of everybody\n"
	"  --json             print a JSON array\n"
	"transfer:\n"
	"  --to USER          the new owner; by default the same, in another process\n\n"
	"  --help             show this text\n\n"
	"  antiphon hold &\n"
	"  antiphon hold store --listen 8080 web\n"
	"  antiphon hold exec web -- lighttpd -D -f lighttpd.conf\n";

enum {
	OPT_ALLOW = 256,
	OPT_LIMIT,
	OPT_SURVIVE,
	OPT_REPLACE,
	OPT_LOG,
	OPT_AT,
	OPT_TIMEOUT,
	OPT_OWNER,
	OPT_LISTEN,
	OPT_EXPIRE,
	OPT_TAKE,
	OPT_ALL,
	OPT_JSON,
	OPT_TO,
	OPT_END,
};

static const struct option long_options[] = {
	{ "allow", required_argument, NULL, OPT_ALLOW },
	{ "limit", required_argument, NULL, OPT_LIMIT },
	{ "survive", required_argument, NULL, OPT_SURVIVE },
	{ "replace", no_argument, NULL, OPT_REPLACE },
	{ "log", no_argument, NULL, OPT_LOG },
	{ "at", required_argument, NULL, OPT_AT },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "owner", required_argument, NULL, OPT_OWNER },
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "expire", required_argument, NULL, OPT_EXPIRE },
	{ "take", no_argument, NULL, OPT_TAKE },
	{ "all", no_argument, NULL, OPT_ALL },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "to", required_argument, NULL, OPT_TO },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

#define BIT(option)  (1u << ((option)-OPT_ALLOW))
#define EVERYWHERE   (BIT(OPT_AT) | BIT(OPT_TIMEOUT))
#define BY_OWNER     (EVERYWHERE | BIT(OPT_OWNER))
#define WITH_COMMAND BIT(OPT_END)

static int keep(const struct hold_options *options, int n_names, char **names);

static const struct {
	const char *name;
	int (*run)(const struct hold_options *options, int n_names, char **names);
	unsigned allowed;
	int min, max; /* operands */
} commands[] = {
	/* The first is the keeper, which has no word of its own. */
	{ "hold", keep,
	  BIT(OPT_ALLOW) | BIT(OPT_LIMIT) | BIT(OPT_SURVIVE) | BIT(OPT_REPLACE) | BIT(OPT_LOG) |
		  BIT(OPT_AT),
	  0, 0 },
	{ "store", hold_cmd_store, BY_OWNER | BIT(OPT_LISTEN) | BIT(OPT_EXPIRE) | BIT(OPT_REPLACE),
	  1, APH_HOLD_FDS_MAX + 1 },
	{ "exec", hold_cmd_exec, BY_OWNER | BIT(OPT_TAKE) | WITH_COMMAND, 0, 1024 },
	{ "list", hold_cmd_list, BY_OWNER | BIT(OPT_ALL) | BIT(OPT_JSON), 0, 1 },
	{ "delete", hold_cmd_delete, BY_OWNER, 1, 1024 },
	{ "transfer", hold_cmd_transfer, BY_OWNER | BIT(OPT_TO), 1, 1 },
	{ "accept", hold_cmd_accept, BY_OWNER | WITH_COMMAND, 1, 1 },
	{ "stop", hold_cmd_stop, EVERYWHERE, 0, 0 },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* -- the keeper -------------------------------------------------------------------------------- */

static void log_line(const char *text)
{
	fprintf(stderr, "%s: %s\n", cli_program(), text);
}

static int keep(const struct hold_options *options, int n_names, char **names)
{
	const struct aph_hold_keeper_options keeper = {
		.size = sizeof(keeper),
		.address = options->address,
		.rules = options->allow,
		.n_rules = options->n_allow,
		.limits = options->limit,
		.n_limits = options->n_limit,
		.replace = options->replace,
		.survival = options->survival,
		.log = options->log ? log_line : NULL,
	};
	int r = aph_hold_keep(&keeper);

	(void)n_names;
	(void)names;
	if (r == 0)
		return CLI_OK;
	cli_error("%s", aph_hold_error());
	if (r == -EEXIST)
		cli_error("--replace takes over from a keeper that is there");
	return r == -EINVAL ? cli_bad_option() : CLI_FAILED;
}

/* -- options ----------------------------------------------------------------------------------- */

static int add(const char *option, const char **list, size_t *n, size_t max)
{
	if (*n == max) {
		cli_error("--%s can be given %zu times at most", option, max);
		return -EINVAL;
	}
	list[(*n)++] = optarg;
	return 0;
}

static int read_user(const char *option, uid_t *uid)
{
	char *end;
	unsigned long number = strtoul(optarg, &end, 10);
	char address[APH_ADDRESS_MAX + 1];
	struct aph_name name;
	int n;

	if (optarg[0] >= '0' && optarg[0] <= '9' && !*end && number < UINT32_MAX) {
		*uid = (uid_t)number;
		return 0;
	}
	/* Addresses know names of users. */
	n = snprintf(address, sizeof(address), "caps:x,uid=%s", optarg);
	if (n < 0 || n >= (int)sizeof(address) || strchr(optarg, ',') ||
	    aph_name_parse(&name, address) < 0 || name.uid < 0) {
		cli_error("--%s: there is no user '%s'", option, optarg);
		return -EINVAL;
	}
	*uid = (uid_t)name.uid;
	return 0;
}

static int read_survival(enum aph_hold_survival *survival)
{
	static const char *const names[] = { "twin", "systemd", "not" };

	for (int i = 0; i < 3; i++) {
		if (strcmp(optarg, names[i]) == 0) {
			*survival = (enum aph_hold_survival)(i + 1);
			return 0;
		}
	}
	cli_error("--survive takes twin, systemd or not, and not '%s'", optarg);
	return -EINVAL;
}

static int read_option(struct hold_options *o, int option)
{
	switch (option) {
	case OPT_ALLOW:
		return add("allow", o->allow, &o->n_allow, HOLD_OPTIONS_MAX);
	case OPT_LIMIT:
		return add("limit", o->limit, &o->n_limit, HOLD_OPTIONS_MAX);
	case OPT_LISTEN:
		return add("listen", o->listen, &o->n_listen, APH_HOLD_FDS_MAX);
	case OPT_SURVIVE:
		return read_survival(&o->survival);
	case OPT_TIMEOUT:
		return cli_read_seconds("timeout", optarg, true, &o->timeout_ms);
	case OPT_EXPIRE:
		return cli_read_seconds("expire", optarg, false, &o->call.expiry_ms);
	case OPT_OWNER:
		o->call.flags |= APH_HOLD_OWNER;
		return read_user("owner", &o->call.owner);
	case OPT_TO:
		o->has_to = true;
		return read_user("to", &o->to);
	case OPT_AT:
		o->address = optarg;
		break;
	case OPT_REPLACE:
		o->replace = true;
		break;
	case OPT_LOG:
		o->log = true;
		break;
	case OPT_TAKE:
		o->take = true;
		break;
	case OPT_ALL:
		o->call.flags |= APH_HOLD_ALL;
		break;
	case OPT_JSON:
		o->json = true;
		break;
	default:
		return -EINVAL;
	}
	return 0;
}

/* What stands behind "--" is somebody else's command. */
static int split_command(struct hold_options *options, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--") != 0)
			continue;
		options->command = argv + i + 1;
		argv[i] = NULL;
		return i;
	}
	return argc;
}

static int run(size_t command, struct hold_options *options, int argc, char **argv)
{
	const char *name = commands[command].name;
	int n = argc - optind;

	if (n < commands[command].min)
		return cli_misused("%s needs a name", name);
	if (n > commands[command].max)
		return cli_misused("%s does not take '%s'", name,
				   argv[optind + commands[command].max]);
	if (options->command && !(commands[command].allowed & WITH_COMMAND))
		return cli_misused("%s does not take a command", name);
	if (options->command && !options->command[0])
		return cli_misused("the command behind -- is missing");
	return commands[command].run(options, n, argv + optind);
}

int cmd_hold(int argc, char **argv)
{
	struct hold_options options = {
		.timeout_ms = TIMEOUT_DEFAULT_MS,
		.call = { .size = sizeof(options.call) },
	};
	size_t command = 0;
	int option;

	for (size_t i = 1; argc > 1 && i < N_COMMANDS; i++) {
		if (strcmp(argv[1], commands[i].name) == 0)
			command = i;
	}
	if (command) {
		argv[1] = argv[0];
		argv++;
		argc--;
	}
	argc = split_command(&options, argc, argv);
	while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish(CLI_OK);
		}
		if (option < OPT_ALLOW || option >= OPT_END)
			return cli_bad_option();
		if (!(commands[command].allowed & BIT(option)))
			return cli_misused("%s does not take --%s", commands[command].name,
					   long_options[option - OPT_ALLOW].name);
		if (read_option(&options, option) < 0)
			return cli_bad_option();
	}
	return cli_finish(run(command, &options, argc, argv));
}
