/* SPDX-License-Identifier: MIT */
/*
 * antiphon serve ADDRESS -- CMD...: puts a command behind a name. This file reads the options, owns
 * the service and turns the loop; the two modes of serve.h do the work.
 */
#include "serve.h"

#include "options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Events of the endpoint that are handled before the pipes have their turn. */
#define EVENTS_PER_TURN 256
#define CALLS_MAX	256

static const char help[] =
	"usage: antiphon serve [OPTION...] ADDRESS -- CMD [ARGUMENT...]\n"
	"Puts CMD behind a name. Each call runs one process: the request is its standard input,\n"
	"its standard output is the reply. An exit status other than 0 aborts the call with it.\n\n"
	"  --allow WHO[,WHO]   who may call: user, group or world; by default user\n"
	"  --allow-anonymous   with rx:HOST:PORT/SERVICE: serve other machines too, whoever they are\n"
	"  --exclusive         fail if the name is served already\n"
	"  --give              let the next service with --take take over\n"
	"  --take              take over the name and its clients from one with --give\n"
	"  --terminate         ask the service that has the name now to end\n"
	"  --max N             at most N processes at once, further calls wait; by default 16\n"
	"  --kill-after SECONDS  when the caller has gone: from SIGTERM to SIGKILL; by default 2\n"
	"  --persistent        keep one process, which reads and writes frames: four bytes of\n"
	"                      length, most significant first, and a body\n"
	"  --request-max SIZE  with --persistent: refuse longer requests; by default 16M\n"
	"  --log               print a line for each call\n"
	"  --json              print a JSON object for each call\n"
	"  --help              show this text\n\n"
	"  antiphon serve upper -- tr a-z A-Z\n"
	"  antiphon call upper hello\n";

/* -- options ----------------------------------------------------------------------------------- */

static int read_allow(void *value, const char *text)
{
	uint32_t *flags = value;
	static const struct {
		const char *name;
		uint32_t flag;
	} kinds[] = {
		{ "user", APH_ALLOW_USER },
		{ "group", APH_ALLOW_GROUP },
		{ "world", APH_ALLOW_WORLD },
	};

	for (;;) {
		size_t len = strcspn(text, ",");
		uint32_t flag = 0;

		for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			if (strlen(kinds[i].name) == len && memcmp(kinds[i].name, text, len) == 0)
				flag = kinds[i].flag;
		}
		if (flag == 0) {
			cli_error("--allow takes user, group and world with commas, not '%.*s'",
				  (int)len, text);
			return CLI_MISUSED;
		}
		*flags |= flag;
		if (text[len] == '\0')
			return CLI_OK;
		text += len + 1;
	}
}

/* True when there is something to do; else *status is the end. */
static bool read_options(struct serve_options *serve, int argc, char **argv, int *status)
{
	uint64_t kill_after_ms = 2000;
	int command;
	const struct cli_option options[] = {
		{ .name = "allow", .kind = CLI_OTHER, .value = &serve->flags, .read = read_allow },
		CLI_BOUNDED("allow-anonymous", CLI_BIT, &serve->flags, 0, APH_ALLOW_ANONYMOUS),
		CLI_BOUNDED("exclusive", CLI_BIT, &serve->flags, 0, APH_SERVICE_EXCLUSIVE),
		CLI_BOUNDED("give", CLI_BIT, &serve->flags, 0, APH_SERVICE_GIVE),
		CLI_BOUNDED("take", CLI_BIT, &serve->flags, 0, APH_SERVICE_TAKE),
		CLI_BOUNDED("terminate", CLI_BIT, &serve->flags, 0, APH_SERVICE_TERMINATE),
		CLI_BOUNDED("max", CLI_COUNT, &serve->processes_max, 1, 10000),
		CLI_OPTION("kill-after", CLI_SECONDS, &kill_after_ms),
		CLI_OPTION("persistent", CLI_FLAG, &serve->persistent),
		CLI_BOUNDED("request-max", CLI_SIZE, &serve->request_max, 0, UINT64_C(1) << 31),
		CLI_OPTION("log", CLI_FLAG, &serve->log),
		CLI_OPTION("json", CLI_FLAG, &serve->json),
	};

	serve->processes_max = 16;
	serve->request_max = UINT64_C(16) << 20;
	if (!cli_read_options(argc, argv, help, options, CLI_LEN(options), status))
		return false;
	serve->kill_after_ns = kill_after_ms * 1000000;
	serve->address = argv[optind];
	command = optind + 1;
	/* With POSIXLY_CORRECT getopt_long() ends at the address and leaves it there. */
	if (command < argc && strcmp(argv[command], "--") == 0)
		command++;
	serve->argv = argv + command;
	if (optind == argc)
		*status = cli_misused("an address is missing");
	else if (command >= argc)
		*status = cli_misused("a command is missing: put it behind the address and '--'");
	else
		*status = CLI_OK;
	return *status == CLI_OK;
}

/* -- the loop ---------------------------------------------------------------------------------- */

static void stop(struct serve *serve)
{
	bool hard = serve->stopping;

	serve->stopping = true;
	serve->mode->stop(serve, hard);
}

/*
 * Another service wants the name. One that gives has no new clients then, and finishes what it has.
 */
static void end_for_another(struct serve *serve)
{
	if (serve->options.flags & APH_SERVICE_GIVE)
		serve->finishing = true;
	else
		stop(serve);
}

static void endpoint_ready(struct loop_source *source, uint32_t events)
{
	struct serve *serve = source->data;
	struct aph_event event;

	(void)events;
	for (int i = 0; i < EVENTS_PER_TURN; i++) {
		if (aph_endpoint_next(serve->ep, &event, APH_NOW) < 0)
			return;
		if (event.type == APH_EVENT_TERMINATE)
			end_for_another(serve);
		else if (event.call != NULL)
			serve->mode->event(serve, &event);
	}
}

static bool take_signal(const struct loop_source *source)
{
	struct signalfd_siginfo info;

	return read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info);
}

static void child_ready(struct loop_source *source, uint32_t events)
{
	struct serve *serve = source->data;
	bool ended = false;

	(void)events;
	while (take_signal(source))
		ended = true;
	if (ended)
		serve->mode->child_ended(serve);
}

static void end_ready(struct loop_source *source, uint32_t events)
{
	(void)events;
	while (take_signal(source))
		stop(source->data);
}

static int watch_set(struct serve *serve, struct loop_source *source, const sigset_t *set,
		     void (*ready)(struct loop_source *source, uint32_t events))
{
	sigprocmask(SIG_BLOCK, set, NULL);
	source->fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (source->fd < 0)
		return -errno;
	source->ready = ready;
	source->data = serve;
	return loop_add(&serve->loop, source, EPOLLIN);
}

static int watch_signals(struct serve *serve)
{
	struct sigaction hangup;
	sigset_t child, end;
	int r;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigemptyset(&end);
	sigaddset(&end, SIGINT);
	sigaddset(&end, SIGTERM);
	/* Unless nohup(1) has it ignored: blocked, it would come all the same. */
	if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
		sigaddset(&end, SIGHUP);
	/*
	 * A child that is inherited as ignored would be reaped by the kernel, and its status with
	 * it.
	 */
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	r = watch_set(serve, &serve->child_source, &child, child_ready);
	return r < 0 ? r : watch_set(serve, &serve->end_source, &end, end_ready);
}

static int watch_endpoint(struct serve *serve)
{
	serve->ep_source.fd = aph_endpoint_fd(serve->ep);
	if (serve->ep_source.fd < 0)
		return serve->ep_source.fd;
	serve->ep_source.ready = endpoint_ready;
	serve->ep_source.data = serve;
	return loop_add(&serve->loop, &serve->ep_source, EPOLLIN);
}

static bool is_remote(const struct serve *serve)
{
	return strncmp(serve->options.address, "rx:", 3) == 0;
}

/* How a local service is called in what is printed; of a remote one the port is not known yet. */
static int read_name(struct serve *serve)
{
	const uint32_t groups = APH_ALLOW_GROUP | APH_ALLOW_WORLD;
	struct aph_name name;

	if (is_remote(serve))
		return CLI_OK;
	if (aph_name_parse(&name, serve->options.address) < 0 ||
	    aph_name_format(&name, serve->name, sizeof(serve->name)) < 0) {
		cli_error("%s", aph_error());
		return CLI_MISUSED;
	}
	if ((serve->options.flags & groups) == APH_ALLOW_GROUP && name.gid < 0)
		return cli_misused("--allow group needs to know which: serve caps:%s,gid=GROUP",
				   name.name);
	return CLI_OK;
}

static int open_service(struct serve *serve)
{
	struct aph_service_options options = {
		.size = sizeof(options),
		.flags = serve->options.flags,
		.calls_max = CALLS_MAX,
	};
	int r = read_name(serve);

	if (r != CLI_OK)
		return r;
	r = aph_endpoint_new(&serve->ep, NULL);
	if (r == 0)
		r = aph_service_open(&serve->service, serve->ep, serve->options.address, &options);
	if (r == 0 && is_remote(serve))
		r = aph_service_address(serve->service, serve->name, sizeof(serve->name));
	if (r == 0) {
		if (aph_service_show(serve->service) < 0)
			cli_error("serving, but antiphon ls cannot show it: %s", aph_error());
		return CLI_OK;
	}
	cli_error("%s", aph_error());
	return r == -EINVAL ? CLI_MISUSED : CLI_FAILED;
}

static int run(struct serve *serve)
{
	uint64_t next_ns;
	int r;

	while (!serve->stopping || !serve->mode->is_idle(serve)) {
		next_ns = serve->mode->turn(serve, aph_time_ns());
		if (serve->finishing && !serve->stopping && !serve->mode->has_calls(serve))
			stop(serve);
		if (serve->stopping && serve->mode->is_idle(serve))
			break;
		r = loop_wait(&serve->loop, next_ns);
		if (r < 0) {
			cli_error("cannot wait for events: %s", strerror(-r));
			return CLI_FAILED;
		}
	}
	return CLI_OK;
}

static int begin(struct serve *serve)
{
	int r, status;

	assert(serve->options.argv != NULL);
	r = child_find(serve->options.argv[0]);
	if (r < 0) {
		cli_error("cannot run %s: %s", serve->options.argv[0], strerror(-r));
		return CLI_FAILED;
	}
	r = loop_init(&serve->loop);
	if (r == 0)
		r = watch_signals(serve);
	if (r < 0) {
		cli_error("cannot set up the event loop: %s%s", strerror(-r),
			  r == -EMFILE ? "; raise the limit on open files (ulimit -n)" : "");
		return CLI_FAILED;
	}
	status = open_service(serve);
	if (status != CLI_OK)
		return status;
	r = watch_endpoint(serve);
	if (r < 0) {
		cli_error("cannot watch the endpoint: %s", strerror(-r));
		return CLI_FAILED;
	}
	return serve->mode->begin(serve) < 0 ? CLI_FAILED : CLI_OK;
}

int cmd_serve(int argc, char **argv)
{
	static struct serve serve = {
		.loop.epoll_fd = -1,
		.child_source.fd = -1,
		.end_source.fd = -1,
	};
	int status;

	if (!read_options(&serve.options, argc, argv, &status))
		return status;
	serve.mode = serve.options.persistent ? &serve_persistent_mode : &serve_process_mode;

	status = begin(&serve);
	if (status == CLI_OK) {
		serve_log_begin(&serve);
		status = run(&serve);
	}
	if (serve.mode_state != NULL)
		serve.mode->end(&serve);
	aph_service_close(serve.service);
	aph_endpoint_free(serve.ep);
	if (serve.child_source.fd >= 0)
		close(serve.child_source.fd);
	if (serve.end_source.fd >= 0)
		close(serve.end_source.fd);
	loop_deinit(&serve.loop);
	return status;
}
