/* SPDX-License-Identifier: MIT */
/*
 * antiphon call ADDRESS [TEXT | --in FILE | -]: calls a name from the shell.
 */
#include "call.h"

#include "json.h"
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT_MS 30000
#define CHANNEL_DEPTH_MAX  512

static const char help[] =
	"usage: antiphon call [OPTION...] ADDRESS [TEXT | --in FILE | -]\n"
	"Calls ADDRESS with TEXT, the contents of FILE, standard input (-), or nothing as the\n"
	"request and writes the reply to standard output.\n\n"
	"  --in FILE          the request is what FILE holds\n"
	"  --fd FILE          send a descriptor of FILE, open for reading; may be given 64 times\n"
	"  --timeout SECONDS  give up after so long, or wait 'forever'; by default 30\n"
	"  --wait             wait until somebody serves ADDRESS\n"
	"  --repeat N         call N times, drop the replies and show what the calls took\n"
	"  --parallel M       keep M calls under way at once; by default 1\n"
	"  --json             print the summary as JSON; for one call, its result on stderr\n"
	"  --progress         show a progress bar even if standard error is no terminal\n"
	"  --quiet            show no progress bar\n"
	"  --help             show this text\n\n"
	"exit status: 0 ANSWERED, 3 REFUSED (it did not run), 4 ABORTED by the service,\n"
	"             5 LOST (it may have run), 1 failed otherwise, 2 misused\n\n"
	"  antiphon call echo hello\n"
	"  antiphon call --in /etc/hostname upper\n";

/* -- options ----------------------------------------------------------------------------------- */

static int add_descriptor(void *value, const char *path)
{
	struct call_options *options = value;
	int fd;

	if (options->n_fds == APH_CALL_FDS_MAX) {
		cli_error("--fd can be given %d times", APH_CALL_FDS_MAX);
		return CLI_MISUSED;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		cli_error("cannot open %s: %s", path, strerror(errno));
		return CLI_FAILED;
	}
	options->fds[options->n_fds++] = fd;
	return CLI_OK;
}

static int read_operands(struct call_options *options, int n, char **operands)
{
	if (n == 0)
		return cli_misused("an address is missing");
	if (n > 2)
		return cli_misused(
			"the request is one argument: put '%s' and what follows in quotes",
			operands[1]);
	options->address = operands[0];
	if (n == 2 && options->in != NULL)
		return cli_misused(
			"the request comes from --in or from an argument, not from both");
	if (n == 2 && strcmp(operands[1], "-") == 0)
		options->in = "-";
	else if (n == 2)
		options->text = operands[1];
	if (options->parallel > 1 && !options->repeat)
		return cli_misused("--parallel needs --repeat");
	return CLI_OK;
}

/* True when there is something to do; else *status is the end. */
static bool read_options(struct call_options *call, int argc, char **argv, int *status)
{
	const struct cli_option options[] = {
		CLI_OPTION("in", CLI_TEXT, &call->in),
		{ .name = "fd", .kind = CLI_OTHER, .value = call, .read = add_descriptor },
		CLI_OPTION("timeout", CLI_TIMEOUT, &call->timeout_ms),
		CLI_OPTION("wait", CLI_FLAG, &call->wait),
		CLI_BOUNDED("repeat", CLI_COUNT, &call->repeat, 1, UINT64_C(1) << 40),
		CLI_BOUNDED("parallel", CLI_COUNT, &call->parallel, 1, 4096),
		CLI_OPTION("json", CLI_FLAG, &call->json),
		CLI_OPTION("progress", CLI_FLAG, &call->progress),
		CLI_OPTION("quiet", CLI_FLAG, &call->quiet),
	};

	call->timeout_ms = TIMEOUT_DEFAULT_MS;
	call->parallel = 1;
	if (!cli_read_options(argc, argv, help, options, CLI_LEN(options), status))
		return false;
	*status = read_operands(call, argc - optind, argv + optind);
	return *status == CLI_OK;
}

/* -- the call ---------------------------------------------------------------------------------- */

static int open_input(const struct call_options *options, int *fd)
{
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY;

	/* One call waits for whoever will write to a FIFO no longer than for anything else. */
	if (!options->repeat)
		flags |= O_NONBLOCK;
	*fd = -1;
	if (options->in == NULL)
		return CLI_OK;
	if (strcmp(options->in, "-") == 0) {
		*fd = STDIN_FILENO;
		return CLI_OK;
	}
	*fd = open(options->in, flags);
	if (*fd >= 0)
		return CLI_OK;
	cli_error("cannot open %s: %s", options->in, strerror(errno));
	return CLI_FAILED;
}

static void report_json(const struct call_report *report)
{
	struct json json;

	json_init(&json, stderr);
	json_begin_object(&json, NULL);
	json_string(&json, "outcome", aph_outcome_name(report->result.outcome));
	json_string(&json, "reason", aph_reason_name(report->result.reason));
	json_int(&json, "code", report->result.code);
	json_uint(&json, "request_bytes", report->request_bytes);
	json_uint(&json, "reply_bytes", report->reply_bytes);
	json_double(&json, "seconds", report->seconds);
	json_end(&json);
}

static void report_text(const struct aph_result *result)
{
	const char *reason = aph_reason_name(result->reason);

	switch (result->outcome) {
	case APH_REFUSED:
		cli_error("REFUSED: %s; the request has not run, it is safe to call again", reason);
		break;
	case APH_ABORTED:
		cli_error("ABORTED by the service with code %d", (int)result->code);
		break;
	case APH_LOST:
		cli_error("LOST: %s; the request may have run", reason);
		break;
	case APH_ANSWERED:
	case APH_DISPOSED:
	case APH_GONE:
		break;
	}
}

static void report(const struct call_options *options, const struct call_report *report)
{
	if (options->json)
		report_json(report);
	else
		report_text(&report->result);
}

/* A channel that could not be opened: the call was refused, unless the trouble is ours. */
static int report_open(const struct call_options *options, int error)
{
	struct call_report refused = { .result = { .outcome = APH_REFUSED } };

	switch (-error) {
	case EINVAL:
	case EPROTONOSUPPORT:
		cli_error("%s", aph_error());
		return CLI_MISUSED;
	case ENOENT:
		refused.result.reason = APH_REASON_NO_SERVICE;
		break;
	case ETIMEDOUT:
		refused.result.reason = APH_REASON_DEADLINE;
		break;
	case EACCES:
	case EPERM:
		refused.result.reason = APH_REASON_NOT_PERMITTED;
		break;
	case EBUSY:
		refused.result.reason = APH_REASON_BUSY;
		break;
	default:
		cli_error("%s", aph_error());
		return CLI_FAILED;
	}
	if (options->json)
		report_json(&refused);
	else
		cli_error("REFUSED: %s", aph_error());
	return CLI_REFUSED;
}

/* Room for a request and a receipt of each call that is under way: a power of two. */
static uint32_t channel_depth(const struct call_options *options)
{
	uint32_t depth = 32;

	while (depth < 2 * options->parallel && depth < CHANNEL_DEPTH_MAX)
		depth *= 2;
	return depth;
}

static int call_on(struct aph_endpoint *ep, const struct call_options *options, int in_fd)
{
	uint64_t deadline_ns = aph_deadline_ms(options->timeout_ms);
	struct aph_channel_options channel_options = {
		.size = sizeof(channel_options),
		.flags = options->wait ? APH_CHANNEL_WAIT : 0,
		.depth = channel_depth(options),
		.calls_max = (uint32_t)options->parallel,
		.deadline_ns = deadline_ns,
	};
	struct aph_channel *channel;
	struct call_report result;
	int r, status;

	r = aph_channel_open(&channel, ep, options->address, &channel_options);
	if (r < 0)
		return report_open(options, r);
	if (options->repeat) {
		status = call_repeat(ep, channel, options, in_fd);
	} else {
		status = call_once(ep, channel, options, in_fd, deadline_ns, &result);
		if (status != CLI_FAILED)
			report(options, &result);
	}
	aph_channel_close(channel);
	return status;
}

int cmd_call(int argc, char **argv)
{
	struct call_options options = { 0 };
	struct aph_endpoint *ep;
	int in_fd, status;

	if (!read_options(&options, argc, argv, &status))
		return status;
	status = open_input(&options, &in_fd);
	if (status != CLI_OK)
		return status;
	if (aph_endpoint_new(&ep, NULL) < 0) {
		cli_error("%s", aph_error());
		return CLI_FAILED;
	}
	status = call_on(ep, &options, in_fd);
	aph_endpoint_free(ep);
	return status;
}
