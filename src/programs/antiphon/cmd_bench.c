/* SPDX-License-Identifier: MIT */
/*
 * antiphon bench: what a call costs on this machine, beside a socket, in one interleaved run. Times
 * on one machine say little about another; the ratios last.
 */
#include "bench.h"

#include "format.h"
#include "json.h"
#include "options.h"
#include "table.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS_DEFAULT	   5
#define ROUNDS_MAX	   99
#define SECONDS_DEFAULT_MS 200

static const char help[] =
	"usage: antiphon bench [OPTION...]\n"
	"Measures calls between processes of its own, beside a Unix SOCK_SEQPACKET socket, and\n"
	"prints the medians of all rounds and their ratios to the socket. Needs a few seconds and\n"
	"two quiet cores.\n\n"
	"  --rounds N         go N times through all cases; by default 5\n"
	"  --seconds SECONDS  measure each case so long in each round; by default 0.2\n"
	"  --json             print a JSON object for each figure, one a line\n"
	"  --help             show this text\n\n"
	"  antiphon bench --rounds 3\n";

enum metric {
	FLOOR_P50,
	FLOOR_P99,
	FLOOR_RATE,
	FLOOR_STREAM,
	CALL_P50,
	CALL_P99,
	CALL_DEPTH_8,
	CALL_DEPTH_64,
	CALL_CLIENTS_8,
	CALL_STREAM,
	N_METRICS,
};

enum unit {
	UNIT_NS,
	UNIT_CALLS,
	UNIT_BYTES,
};

/* What a figure is and which one it is compared with; the floors are compared with themselves. */
static const struct {
	const char *name;
	const char *who;
	const char *metric;
	enum unit unit;
	enum metric floor;
} metrics[N_METRICS] = {
	[FLOOR_P50] = { "4 bytes and back", "seqpacket", "p50", UNIT_NS, FLOOR_P50 },
	[FLOOR_P99] = { "4 bytes and back", "seqpacket", "p99", UNIT_NS, FLOOR_P99 },
	[FLOOR_RATE] = { "one at a time", "seqpacket", "rate", UNIT_CALLS, FLOOR_RATE },
	[FLOOR_STREAM] = { "stream one way", "seqpacket", "throughput", UNIT_BYTES, FLOOR_STREAM },
	[CALL_P50] = { "4 bytes and back", "antiphon", "p50", UNIT_NS, FLOOR_P50 },
	[CALL_P99] = { "4 bytes and back", "antiphon", "p99", UNIT_NS, FLOOR_P99 },
	[CALL_DEPTH_8] = { "8 under way", "antiphon", "rate", UNIT_CALLS, FLOOR_RATE },
	[CALL_DEPTH_64] = { "64 under way", "antiphon", "rate", UNIT_CALLS, FLOOR_RATE },
	[CALL_CLIENTS_8] = { "8 clients", "antiphon", "rate", UNIT_CALLS, FLOOR_RATE },
	[CALL_STREAM] = { "stream one way", "antiphon", "throughput", UNIT_BYTES, FLOOR_STREAM },
};

struct figures {
	size_t n_rounds;
	double values[N_METRICS][ROUNDS_MAX];
};

volatile sig_atomic_t bench_interrupted;

static void interrupt(int signal_number)
{
	(void)signal_number;
	bench_interrupted = 1;
}

/* -- rounds ------------------------------------------------------------------------------------ */

static int run_round(struct bench *bench, struct figures *figures, size_t round)
{
	double(*values)[ROUNDS_MAX] = figures->values;
	int r;

	r = bench_floor_latency(bench, &values[FLOOR_P50][round], &values[FLOOR_P99][round]);
	if (r < 0)
		return r;
	values[FLOOR_RATE][round] = (double)bench->histogram.n / ((double)bench->case_ns / 1e9);
	r = bench_call_latency(bench, &values[CALL_P50][round], &values[CALL_P99][round]);
	if (r == 0)
		r = bench_call_depth(bench, 8, &values[CALL_DEPTH_8][round]);
	if (r == 0)
		r = bench_call_depth(bench, 64, &values[CALL_DEPTH_64][round]);
	if (r == 0)
		r = bench_call_clients(bench, 8, &values[CALL_CLIENTS_8][round]);
	if (r == 0)
		r = bench_floor_stream(bench, &values[FLOOR_STREAM][round]);
	if (r == 0)
		r = bench_call_stream(bench, &values[CALL_STREAM][round]);
	return r;
}

static int run_rounds(struct bench *bench, struct figures *figures, uint64_t n_rounds)
{
	bool terminal = isatty(STDERR_FILENO);
	int r = 0;

	/* One round is not counted: caches and the kernel's tables are cold in it. */
	for (uint64_t i = 0; i <= n_rounds && r == 0; i++) {
		if (terminal)
			fprintf(stderr, "\r\033[Kround %llu of %llu", (unsigned long long)i,
				(unsigned long long)n_rounds);
		r = run_round(bench, figures, i == 0 ? 0 : (size_t)i - 1);
		figures->n_rounds = (size_t)i;
		if (bench_interrupted)
			r = -EINTR;
	}
	if (terminal)
		fputs("\r\033[K", stderr);
	return r;
}

/* -- figures ----------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

static double median(const double *values, size_t n)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, values, n * sizeof(*values));
	qsort(sorted, n, sizeof(*sorted), ascending);
	return n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/*
 * The median of the ratios and not the ratio of the medians: what disturbs a round disturbs both
 * sides.
 */
static double median_ratio(const struct figures *figures, enum metric metric)
{
	double ratios[ROUNDS_MAX] = { 0 };

	for (size_t i = 0; i < figures->n_rounds; i++)
		ratios[i] = figures->values[metric][i] / figures->values[metrics[metric].floor][i];
	return median(ratios, figures->n_rounds);
}

static void print_json(const struct figures *figures)
{
	static const char *const units[] = {
		[UNIT_NS] = "us", [UNIT_CALLS] = "calls/s", [UNIT_BYTES] = "MiB/s"
	};
	static const double factors[] = {
		[UNIT_NS] = 1e-3, [UNIT_CALLS] = 1, [UNIT_BYTES] = 1.0 / (1024 * 1024)
	};

	for (int i = 0; i < N_METRICS; i++) {
		struct json json;

		json_init(&json, stdout);
		json_begin_object(&json, NULL);
		json_string(&json, "case", metrics[i].name);
		json_string(&json, "who", metrics[i].who);
		json_string(&json, "metric", metrics[i].metric);
		json_double(&json, "value",
			    median(figures->values[i], figures->n_rounds) *
				    factors[metrics[i].unit]);
		json_string(&json, "unit", units[metrics[i].unit]);
		json_double(&json, "ratio", median_ratio(figures, (enum metric)i));
		json_uint(&json, "rounds", figures->n_rounds);
		json_end(&json);
	}
}

static const char *format_figure(struct text *text, enum unit unit, double value)
{
	struct text amount;

	switch (unit) {
	case UNIT_NS:
		return format_duration(text, value);
	case UNIT_CALLS:
		snprintf(text->s, sizeof(text->s), "%.30s/s", format_rate(&amount, value));
		return text->s;
	case UNIT_BYTES:
		snprintf(text->s, sizeof(text->s), "%.30s/s", format_bytes(&amount, value));
		return text->s;
	}
	return "";
}

static int print_table(const struct figures *figures)
{
	static const char *const headings[] = { "CASE", "METRIC", ">SEQPACKET", ">ANTIPHON",
						">RATIO" };
	struct table table;
	struct text text;
	int r = 0;

	table_init(&table, headings, sizeof(headings) / sizeof(headings[0]));
	for (int i = CALL_P50; i < N_METRICS && r == 0; i++) {
		enum metric floor = metrics[i].floor;
		double of_floor = median(figures->values[floor], figures->n_rounds);
		double ours = median(figures->values[i], figures->n_rounds);

		r = table_add(&table, metrics[i].name);
		if (r == 0)
			r = table_add(&table, metrics[i].metric);
		if (r == 0)
			r = table_add(&table, format_figure(&text, metrics[i].unit, of_floor));
		if (r == 0)
			r = table_add(&table, format_figure(&text, metrics[i].unit, ours));
		snprintf(text.s, sizeof(text.s), "%.3f", median_ratio(figures, (enum metric)i));
		if (r == 0)
			r = table_add(&table, text.s);
	}
	if (r == 0)
		table_print(&table, stdout, 0, 0);
	table_deinit(&table);
	printf("\nmedians of %zu rounds; rates are compared with one exchange at a time\n",
	       figures->n_rounds);
	return r;
}

/* -- a directory of its own -------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* Nobody else sees the service, and it gets in nobody's way. */
static int make_directory(char *path, size_t size)
{
	const char *parent = getenv("TMPDIR");

	if (parent == NULL || parent[0] == '\0')
		parent = "/tmp";
	if ((size_t)snprintf(path, size, "%s/antiphon-bench.XXXXXX", parent) >= size)
		return -ENAMETOOLONG;
	if (mkdtemp(path) == NULL)
		return -errno;
	if (setenv("ANTIPHON_RUNTIME_DIR", path, 1) < 0)
		return -errno;
	return 0;
}

static int measure(struct bench *bench, struct figures *figures, uint64_t n_rounds)
{
	int r;

	if (sched_getaffinity(0, sizeof(bench->cpus), &bench->cpus) < 0)
		return -errno;
	bench_place(bench, BENCH_CLIENT);
	r = bench_floor_begin(bench);
	if (r == 0)
		r = bench_service_begin(bench);
	if (r == 0)
		r = run_rounds(bench, figures, n_rounds);
	bench_service_end(bench);
	bench_floor_end(bench);
	return r;
}

static int run(uint64_t n_rounds, uint64_t case_ms, bool as_json)
{
	static struct bench bench;
	static struct figures figures;
	char path[PATH_MAX];
	int r;

	bench.case_ns = case_ms * 1000000;
	bench.floor_fd = -1;
	r = make_directory(path, sizeof(path));
	if (r < 0) {
		cli_error("cannot make a directory for its service: %s; set TMPDIR to one that can "
			  "be written",
			  strerror(-r));
		return CLI_FAILED;
	}
	r = measure(&bench, &figures, n_rounds);
	nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	if (r < 0) {
		cli_error("%s", bench_interrupted ? "interrupted" : strerror(-r));
		return CLI_FAILED;
	}
	if (as_json) {
		print_json(&figures);
	} else if (print_table(&figures) < 0) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	return CLI_OK;
}

int cmd_bench(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = interrupt }, hangup;
	uint64_t n_rounds = ROUNDS_DEFAULT;
	uint64_t case_ms = SECONDS_DEFAULT_MS;
	bool as_json = false;
	const struct cli_option options[] = {
		CLI_BOUNDED("rounds", CLI_COUNT, &n_rounds, 1, ROUNDS_MAX),
		CLI_OPTION("seconds", CLI_SECONDS, &case_ms),
		CLI_OPTION("json", CLI_FLAG, &as_json),
	};
	int status;

	if (!cli_read_options(argc, argv, help, options, CLI_LEN(options), &status))
		return status;
	if (optind < argc)
		return cli_superfluous(argv[optind]);
	/* Ended in order, so that its directory does not stay behind. */
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
		sigaction(SIGHUP, &action, NULL);
	return cli_finish(run(n_rounds, case_ms, as_json));
}
