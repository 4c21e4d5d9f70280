/* SPDX-License-Identifier: MIT */
/*
 * antiphon rx ping HOST[:PORT]: how long an answer takes. The question is a VERSION packet: every
 * endpoint answers it, and it leaves nothing behind there.
 */
#include "format.h"
#include "histogram.h"
#include "options.h"
#include "rx.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <time.h>

const char rx_ping_help[] =
	"usage: antiphon rx ping [OPTION...] HOST[:PORT]\n"
	"Measures how long answers from a port take, 7000 unless it is given.\n\n"
	"  --count N           stop after so many; by default 5, 0 goes on until it is interrupted\n"
	"  --interval SECONDS  ask so often; by default 1\n"
	"  --timeout SECONDS   an answer that takes longer is lost; by default 1\n"
	"  --json              print a JSON object at the end instead of lines\n"
	"  --help              show this text\n\n"
	"  antiphon rx ping --count 10 --interval 0.1 127.0.0.1:7000\n";

struct ping {
	uint64_t count, interval_ms, timeout_ms;
	bool json;
	uint64_t n_sent, n_lost;
	struct histogram histogram;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
	(void)signo;
	interrupted = 1;
}

static void sleep_until(uint64_t deadline_ns)
{
	const struct timespec until = {
		.tv_sec = (time_t)(deadline_ns / 1000000000),
		.tv_nsec = (long)(deadline_ns % 1000000000),
	};

	(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* 0, or what ends all of it. */
static int ping_once(struct ping *ping, struct rx_asked *asked, const char *where)
{
	uint64_t start_ns = aph_time_ns(), ns;
	struct aph_rx_answer answer;
	struct text text;
	int r;

	ping->n_sent++;
	r = rx_ask_once(asked, APH_RX_QUERY_VERSION, 0, aph_deadline_ms(ping->timeout_ms), &answer);
	ns = aph_time_ns() - start_ns;
	if (r == -EINTR && interrupted) {
		ping->n_sent--;
		return 0;
	}
	if (r == 0)
		histogram_add(&ping->histogram, ns);
	else
		ping->n_lost++;
	if (r < 0 && r != -ETIMEDOUT && r != -ECONNREFUSED && r != -EHOSTUNREACH &&
	    r != -ENETUNREACH) {
		cli_error("cannot ask: %s", strerror(-r));
		return r;
	}
	if (ping->json)
		return 0;
	if (r == 0)
		printf("%s  %llu  %s\n", where, (unsigned long long)ping->n_sent,
		       format_duration(&text, (double)ns));
	else
		printf("%s  %llu  %s\n", where, (unsigned long long)ping->n_sent,
		       r == -ETIMEDOUT ? "no answer" : strerror(-r));
	fflush(stdout);
	return 0;
}

static void report(const struct ping *ping, const char *where)
{
	struct json json;

	if (!ping->json) {
		printf("%llu asked, %llu lost\n", (unsigned long long)ping->n_sent,
		       (unsigned long long)ping->n_lost);
		if (ping->histogram.n > 0)
			histogram_print(&ping->histogram, stdout);
		return;
	}
	json_init(&json, stdout);
	json_begin_object(&json, NULL);
	json_string(&json, "address", where);
	json_uint(&json, "asked", ping->n_sent);
	json_uint(&json, "lost", ping->n_lost);
	histogram_json(&ping->histogram, &json, "rtt_us");
	json_end(&json);
}

static int run_ping(struct ping *ping, const char *host)
{
	const struct sigaction action = { .sa_handler = on_interrupt };
	struct aph_rx_address address;
	struct rx_asked asked;
	char where[RX_ADDRESS_TEXT];
	uint64_t next_ns = aph_time_ns();
	int status = rx_resolve(host, RX_PORT_DEFAULT, &address), r = 0;

	if (status != CLI_OK)
		return status;
	if (rx_ask_open(&asked, &address, ping->timeout_ms) < 0)
		return CLI_FAILED;
	rx_address_text(where, sizeof(where), &address);
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	while (!interrupted && r == 0) {
		r = ping_once(ping, &asked, where);
		if (ping->n_sent == ping->count)
			break;
		next_ns += ping->interval_ms * 1000000;
		/* What was missed while there were no answers is not made up for. */
		if (next_ns < aph_time_ns())
			next_ns = aph_time_ns();
		if (!interrupted && r == 0)
			sleep_until(next_ns);
	}
	rx_ask_close(&asked);
	report(ping, where);
	return r == 0 && ping->histogram.n > 0 ? CLI_OK : CLI_FAILED;
}

int rx_ping(int argc, char **argv)
{
	static struct ping ping = { .count = 5, .interval_ms = 1000, .timeout_ms = 1000 };
	const struct cli_option options[] = {
		CLI_BOUNDED("count", CLI_COUNT, &ping.count, 0, UINT32_MAX),
		CLI_OPTION("interval", CLI_SECONDS, &ping.interval_ms),
		CLI_OPTION("timeout", CLI_SECONDS, &ping.timeout_ms),
		CLI_OPTION("json", CLI_FLAG, &ping.json),
	};
	int status;

	histogram_init(&ping.histogram);
	if (!cli_read_options(argc, argv, rx_ping_help, options, CLI_LEN(options), &status))
		return status;
	if (argc - optind != 1)
		return cli_misused("it takes one HOST[:PORT]");
	return cli_finish(run_ping(&ping, argv[optind]));
}
