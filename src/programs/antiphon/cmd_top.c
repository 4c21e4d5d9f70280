/* SPDX-License-Identifier: MIT */
/*
 * antiphon top: what the services do now. Every refresh asks all of them for their counters and
 * shows the differences to the refresh before.
 */
#include "format.h"
#include "json.h"
#include "options.h"
#include "table.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_DEFAULT_MS 1000
#define N_BUCKETS	    (sizeof(((struct aph_service_info *)0)->latency) / sizeof(uint64_t))

static const char help[] =
	"usage: antiphon top [OPTION...]\n"
	"Shows what the services that you may see do: calls a second, the time from a call's\n"
	"receipt to the end of its reply (of a sample), calls received and not ended, channels.\n"
	"On a terminal it refreshes until it is interrupted, elsewhere it shows one interval.\n\n"
	"  --interval SECONDS  time between two refreshes; by default 1\n"
	"  -n, --count N       stop after N refreshes\n"
	"  --once              the same as --count 1\n"
	"  --json              print a JSON object for each refresh, one a line\n"
	"  --help              show this text\n\n"
	"  antiphon top\n"
	"  antiphon top --once --json\n";

struct sample {
	struct aph_service_info *list;
	size_t n;
	uint64_t taken_ns;
};

/* What one service did in an interval. */
struct activity {
	const struct aph_service_info *now;
	double calls_per_s;
	double aborted_per_s;
	double gone_per_s;
	bool has_latency;
	double mean_ns;
	double p50_ns;
	double p99_ns;
};

static volatile sig_atomic_t interrupted;

static void interrupt(int signal_number)
{
	(void)signal_number;
	interrupted = 1;
}

/* -- samples ----------------------------------------------------------------------------------- */

static int sample_take(struct sample *sample)
{
	int r = aph_directory_list(&sample->list, &sample->n, aph_deadline_ms(500));

	sample->taken_ns = aph_time_ns();
	if (r == -ENOENT) {
		sample->list = NULL;
		sample->n = 0;
		return 0;
	}
	return r;
}

/* The same service one sample ago. A process that was started anew in between is another one. */
static const struct aph_service_info *find_before(const struct sample *before,
						  const struct aph_service_info *now)
{
	for (size_t i = 0; i < before->n; i++) {
		const struct aph_service_info *info = &before->list[i];

		if (info->pid == now->pid && info->owner == now->owner &&
		    info->name.uid == now->name.uid && info->name.gid == now->name.gid &&
		    strcmp(info->name.name, now->name.name) == 0 && info->has_stats &&
		    info->calls <= now->calls)
			return info;
	}
	return NULL;
}

/*
 * A quantile of what was sampled in between. A bucket holds a power of two; inside it the durations
 * are taken to be spread evenly.
 */
static double quantile(const uint64_t counts[N_BUCKETS], uint64_t n, double fraction)
{
	double wanted = fraction * (double)n;
	double seen = 0;

	for (size_t i = 0; i < N_BUCKETS; i++) {
		double in_bucket = (double)counts[i];
		double begin = i == 0 ? 0 : (double)(UINT64_C(1) << (i - 1));
		double end = (double)(UINT64_C(1) << i);

		if (in_bucket > 0 && seen + in_bucket >= wanted)
			return begin + (end - begin) * (wanted - seen) / in_bucket;
		seen += in_bucket;
	}
	return 0;
}

static void fill_latency(struct activity *activity, const struct aph_service_info *before)
{
	const struct aph_service_info *now = activity->now;
	uint64_t counts[N_BUCKETS];
	uint64_t n = 0;

	for (size_t i = 0; i < N_BUCKETS; i++) {
		counts[i] = now->latency[i] >= before->latency[i]
				    ? now->latency[i] - before->latency[i]
				    : 0;
		n += counts[i];
	}
	if (n == 0 || now->sampled_calls <= before->sampled_calls)
		return;
	activity->has_latency = true;
	activity->mean_ns = (double)(now->sampled_ns - before->sampled_ns) /
			    (double)(now->sampled_calls - before->sampled_calls);
	activity->p50_ns = quantile(counts, n, 0.5);
	activity->p99_ns = quantile(counts, n, 0.99);
}

static double rate(uint64_t now, uint64_t before, double seconds)
{
	return now > before ? (double)(now - before) / seconds : 0;
}

static void compare(struct activity *activity, const struct aph_service_info *now,
		    const struct sample *before, double seconds)
{
	static const struct aph_service_info nothing;
	const struct aph_service_info *old = find_before(before, now);

	memset(activity, 0, sizeof(*activity));
	activity->now = now;
	if (!now->has_stats)
		return;
	/* One that is new in this interval began at nothing within it. */
	if (old == NULL)
		old = &nothing;
	activity->calls_per_s = rate(now->calls, old->calls, seconds);
	activity->aborted_per_s = rate(now->ended_aborted, old->ended_aborted, seconds);
	activity->gone_per_s = rate(now->ended_gone, old->ended_gone, seconds);
	fill_latency(activity, old);
}

static int busier(const void *a, const void *b)
{
	const struct activity *left = a, *right = b;

	if (left->calls_per_s != right->calls_per_s)
		return left->calls_per_s < right->calls_per_s ? 1 : -1;
	return strcmp(left->now->name.name, right->now->name.name);
}

static struct activity *compare_all(const struct sample *before, const struct sample *now)
{
	double seconds = (double)(now->taken_ns - before->taken_ns) / 1e9;
	struct activity *activities = calloc(now->n == 0 ? 1 : now->n, sizeof(*activities));

	if (activities == NULL)
		return NULL;
	for (size_t i = 0; i < now->n; i++)
		compare(&activities[i], &now->list[i], before, seconds);
	qsort(activities, now->n, sizeof(*activities), busier);
	return activities;
}

/* -- output ------------------------------------------------------------------------------------ */

static int add_rate(struct table *table, const struct activity *activity, double value)
{
	struct text text;

	return table_add(table, activity->now->has_stats ? format_rate(&text, value) : "-");
}

static int add_latency(struct table *table, const struct activity *activity, double ns)
{
	struct text text;

	return table_add(table, activity->has_latency ? format_duration(&text, ns) : "-");
}

static int add_figure(struct table *table, bool known, uint64_t value)
{
	struct text text;

	snprintf(text.s, sizeof(text.s), "%llu", (unsigned long long)value);
	return table_add(table, known ? text.s : "-");
}

static int add_row(struct table *table, const struct activity *activity)
{
	const struct aph_service_info *info = activity->now;
	struct text text;
	int r;

	r = table_add(table, info->name.name);
	if (r == 0)
		r = table_add(table, format_user(&text, info->owner));
	if (r == 0)
		r = add_figure(table, info->pid != 0, (uint64_t)info->pid);
	if (r == 0)
		r = add_rate(table, activity, activity->calls_per_s);
	if (r == 0)
		r = add_latency(table, activity, activity->p50_ns);
	if (r == 0)
		r = add_latency(table, activity, activity->p99_ns);
	if (r == 0)
		r = add_figure(table, info->has_stats, info->calls_open);
	if (r == 0)
		r = add_figure(table, info->has_stats, info->channels);
	if (r == 0)
		r = add_rate(table, activity, activity->aborted_per_s);
	if (r == 0)
		r = add_rate(table, activity, activity->gone_per_s);
	if (r == 0)
		r = table_add(table,
			      info->program[0] == '\0' ? "-" : format_safe(&text, info->program));
	return r;
}

static int print_table(const struct activity *activities, size_t n, bool terminal)
{
	static const char *const headings[] = { "NAME",	    "USER",    ">PID",	 ">CALLS/S",
						">P50",	    ">P99",    ">OPEN",	 ">CHANNELS",
						">ABORT/S", ">GONE/S", "PROGRAM" };
	struct winsize size = { 0 };
	struct table table;
	int r = 0;

	table_init(&table, headings, sizeof(headings) / sizeof(headings[0]));
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_row(&table, &activities[i]);
	if (r == 0 && terminal) {
		/* From the top left corner, and away with what was there. */
		fputs("\033[H\033[J", stdout);
		if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row < 4)
			size.ws_row = 24;
		table_print(&table, stdout, size.ws_row - 2u, size.ws_col);
	} else if (r == 0) {
		table_print(&table, stdout, 0, 0);
	}
	table_deinit(&table);
	return r;
}

static void print_json_service(struct json *json, const struct activity *activity)
{
	const struct aph_service_info *info = activity->now;

	json_begin_object(json, NULL);
	json_string(json, "name", info->name.name);
	json_uint(json, "owner", info->owner);
	if (info->pid != 0)
		json_int(json, "pid", info->pid);
	else
		json_null(json, "pid");
	json_string(json, "program", info->program);
	if (info->has_stats) {
		json_double(json, "calls_per_s", activity->calls_per_s);
		json_double(json, "aborted_per_s", activity->aborted_per_s);
		json_double(json, "gone_per_s", activity->gone_per_s);
		json_uint(json, "calls_open", info->calls_open);
		json_uint(json, "channels", info->channels);
		json_uint(json, "calls", info->calls);
	}
	if (activity->has_latency) {
		json_begin_object(json, "latency_us");
		json_double(json, "mean", activity->mean_ns / 1e3);
		json_double(json, "p50", activity->p50_ns / 1e3);
		json_double(json, "p99", activity->p99_ns / 1e3);
		json_end(json);
	}
	json_end(json);
}

static void print_json(const struct activity *activities, size_t n, double seconds)
{
	struct json json;

	json_init(&json, stdout);
	json_begin_object(&json, NULL);
	json_double(&json, "seconds", seconds);
	json_begin_array(&json, "services");
	for (size_t i = 0; i < n; i++)
		print_json_service(&json, &activities[i]);
	json_end(&json);
	json_end(&json);
}

/* -- the loop ---------------------------------------------------------------------------------- */

static void pause_until(uint64_t when_ns)
{
	struct timespec when = { .tv_sec = (time_t)(when_ns / 1000000000),
				 .tv_nsec = (long)(when_ns % 1000000000) };

	while (!interrupted &&
	       clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR)
		;
}

static int refresh(const struct sample *before, const struct sample *now, bool as_json,
		   bool terminal)
{
	struct activity *activities = compare_all(before, now);
	int r = 0;

	if (activities == NULL) {
		r = -ENOMEM;
	} else if (as_json) {
		print_json(activities, now->n, (double)(now->taken_ns - before->taken_ns) / 1e9);
	} else {
		r = print_table(activities, now->n, terminal);
	}
	free(activities);
	if (r < 0)
		cli_error("out of memory");
	return fflush(stdout) == EOF || r < 0 ? -1 : 0;
}

static int watch(uint64_t interval_ms, uint64_t count, bool as_json)
{
	bool terminal = !as_json && count != 1 && isatty(STDOUT_FILENO);
	struct sample before = { 0 }, now = { 0 };
	int status = CLI_OK;

	if (sample_take(&before) < 0) {
		cli_error("%s", aph_error());
		return CLI_FAILED;
	}
	for (uint64_t i = 0; i < count; i++) {
		pause_until(before.taken_ns + interval_ms * 1000000);
		if (interrupted)
			break;
		if (sample_take(&now) < 0) {
			cli_error("%s", aph_error());
			status = CLI_FAILED;
			break;
		}
		if (refresh(&before, &now, as_json, terminal) < 0) {
			status = CLI_FAILED;
			break;
		}
		free(before.list);
		before = now;
		now.list = NULL;
	}
	free(now.list);
	free(before.list);
	return cli_finish(status);
}

int cmd_top(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = interrupt };
	uint64_t interval_ms = INTERVAL_DEFAULT_MS;
	uint64_t count = isatty(STDOUT_FILENO) ? UINT64_MAX : 1;
	bool once = false, as_json = false;
	const struct cli_option options[] = {
		CLI_OPTION("interval", CLI_SECONDS, &interval_ms),
		{ .name = "count",
		  .kind = CLI_COUNT,
		  .value = &count,
		  .min = 1,
		  .max = UINT32_MAX,
		  .letter = 'n' },
		CLI_OPTION("once", CLI_FLAG, &once),
		CLI_OPTION("json", CLI_FLAG, &as_json),
	};
	int status;

	if (!cli_read_options(argc, argv, help, options, CLI_LEN(options), &status))
		return status;
	if (optind < argc)
		return cli_superfluous(argv[optind]);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return watch(interval_ms, once ? 1 : count, as_json);
}
