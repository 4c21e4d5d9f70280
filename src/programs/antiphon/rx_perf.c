/* SPDX-License-Identifier: MIT */
/*
 * antiphon rx perf: the rxperf load test, as its server and as a client of anybody's.
 */
#include "rx_perf.h"
#include "format.h"
#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>

const char rx_perf_help[] =
	"usage: antiphon rx perf [OPTION...] HOST[:PORT] rpc|send|recv|file\n"
	"       antiphon rx perf --serve [OPTION...] [HOST[:PORT]]\n"
	"Measures calls to a server of the rxperf test, at port 7009 unless another is given: this\n"
	"one, OpenAFS's or Linux's. As the server it is met at 127.0.0.1 unless told otherwise, and\n"
	"at an address that other machines reach only with --allow-anonymous.\n\n"
	"  --request SIZE      octets of data in each request (rpc, send, file); K, M or G may follow;\n"
	"                      by default 4, for send 1M\n"
	"  --reply SIZE        octets of data in each reply (rpc, recv, file); by default 4, for recv 1M\n"
	"  --parallel N        calls in flight; by default 1\n"
	"  --count N           stop after so many calls\n"
	"  --seconds SECONDS   stop after this time; by default 5\n"
	"  --timeout SECONDS   a call that takes longer has failed; by default 60\n"
	"  --window N          packets that may be under way to each reader, up to 8192; by default 255\n"
	"  --service N         number of the service; by default 147\n"
	"  --json              print a JSON object\n"
	"  --serve             be the server\n"
	"  --allow-anonymous   serve other machines too, whoever they are\n"
	"  --help              show this text\n\n"
	"  antiphon rx perf --serve &\n"
	"  antiphon rx perf --parallel 16 --seconds 2 127.0.0.1 rpc\n";

static const struct {
	const char *name;
	enum perf_command command;
	bool sends, receives; /* data of a size that the user chooses */
} commands[] = {
	{ "rpc", PERF_RPC, true, true },
	{ "send", PERF_SEND, true, false },
	{ "recv", PERF_RECV, false, true },
	{ "file", PERF_FILE, true, true },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))
#define SIZE_UNSET UINT64_MAX

/* -- what both ends need ----------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;
static struct aph_rx_udp *_Atomic woken;

static void on_signal(int signo)
{
	struct aph_rx_udp *udp = woken;
	int saved = errno;

	(void)signo;
	interrupted = 1;
	if (udp != NULL)
		(void)aph_rx_udp_wake(udp);
	errno = saved;
}

void perf_watch_signals(struct aph_rx_udp *udp)
{
	const struct sigaction action = { .sa_handler = on_signal };

	woken = udp;
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
}

void perf_close(struct aph_rx_udp *udp)
{
	/* Another signal may come at any time, until the process has ended. */
	woken = NULL;
	aph_rx_udp_close(udp);
}

bool perf_interrupted(void)
{
	return interrupted != 0;
}

int perf_open(struct aph_rx_udp **udp, const struct aph_rx_address *local, uint64_t window)
{
	const struct aph_rx_config config = {
		.size = sizeof(config),
		.window = (uint32_t)window,
		/* As much on its way as such a window at the other end would take. */
		.send_max = window > 255 ? (uint32_t)window * 2 * APH_RX_PAYLOAD_MAX : 0,
	};
	const struct aph_rx_udp_options options = {
		.size = sizeof(options),
		.local = *local,
		.receive_buffer = window > 255 ? (uint32_t)window * 2 * 2304 : 0,
		.config = &config,
	};
	int r = aph_rx_udp_open(udp, &options);

	if (r < 0)
		cli_error("%s", aph_error());
	return r;
}

const char *perf_outcome_name(enum aph_rx_outcome outcome)
{
	switch (outcome) {
	case APH_RX_DONE:
		return "done";
	case APH_RX_ABORTED:
		return "aborted by the server";
	case APH_RX_ABORTED_HERE:
		return "the server broke the protocol";
	case APH_RX_BUSY:
		return "the server is busy";
	case APH_RX_TIMED_OUT:
		return "timed out";
	case APH_RX_RESET:
		return "forgotten by the server";
	case APH_RX_NET_ERROR:
		return "the network could not deliver";
	case APH_RX_LOCAL_ERROR:
		return "this machine could not send";
	}
	return "?";
}

static bool is_loopback(const struct aph_rx_address *address)
{
	if (address->family == AF_INET)
		return ntohl(address->in.sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&address->in6.sin6_addr);
}

/* -- the report -------------------------------------------------------------------------------- */

static double per_second(const struct perf_result *result, uint64_t value)
{
	return result->elapsed_ns ? (double)value * 1e9 / (double)result->elapsed_ns : 0;
}

static void report(const struct perf_options *options, const char *command,
		   const struct perf_result *result)
{
	struct text rate, sent, received, elapsed;

	printf("%s: %llu calls in %s, %s/s, %llu failed\n", command,
	       (unsigned long long)result->n_calls,
	       format_duration(&elapsed, (double)result->elapsed_ns),
	       format_rate(&rate, per_second(result, result->n_calls)),
	       (unsigned long long)result->n_failed);
	printf("data: %s/s sent, %s/s received; packets: %llu sent, %llu of them again\n",
	       format_bytes(&sent, per_second(result, result->bytes_sent)),
	       format_bytes(&received, per_second(result, result->bytes_received)),
	       (unsigned long long)result->n_packets, (unsigned long long)result->n_resent);
	if (result->n_calls > 0)
		histogram_print(&result->histogram, stdout);
	(void)options;
}

static void report_json(const struct perf_options *options, const char *command,
			const struct perf_result *result)
{
	char text[RX_ADDRESS_TEXT];
	struct json json;

	json_init(&json, stdout);
	json_begin_object(&json, NULL);
	json_string(&json, "address", rx_address_text(text, sizeof(text), &options->address));
	json_string(&json, "command", command);
	json_uint(&json, "request", options->request_len);
	json_uint(&json, "reply", options->reply_len);
	json_uint(&json, "parallel", options->parallel);
	json_double(&json, "seconds", (double)result->elapsed_ns / 1e9);
	json_uint(&json, "calls", result->n_calls);
	json_uint(&json, "failed", result->n_failed);
	json_double(&json, "calls_per_s", per_second(result, result->n_calls));
	json_double(&json, "sent_per_s", per_second(result, result->bytes_sent));
	json_double(&json, "received_per_s", per_second(result, result->bytes_received));
	json_uint(&json, "packets", result->n_packets);
	json_uint(&json, "resent", result->n_resent);
	histogram_json(&result->histogram, &json, "latency_us");
	json_end(&json);
}

/* -- options ----------------------------------------------------------------------------------- */

static int set_command(struct perf_options *options, const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++) {
		bool bulk = commands[i].sends != commands[i].receives;

		if (strcmp(name, commands[i].name) != 0)
			continue;
		if ((!commands[i].sends && options->request_len != SIZE_UNSET) ||
		    (!commands[i].receives && options->reply_len != SIZE_UNSET))
			return cli_misused("%s has no data in its %s", name,
					   commands[i].sends ? "reply" : "request");
		options->command = commands[i].command;
		if (options->request_len == SIZE_UNSET)
			options->request_len = !commands[i].sends ? 0 : bulk ? 1 << 20 : 4;
		if (options->reply_len == SIZE_UNSET)
			options->reply_len = !commands[i].receives ? 0 : bulk ? 1 << 20 : 4;
		if (options->command == PERF_FILE &&
		    (options->request_len % 4 != 0 || options->reply_len % 4 != 0))
			return cli_misused("file has sizes that are multiples of 4");
		return CLI_OK;
	}
	return cli_misused("there is no test '%s'; rpc, send, recv and file there are", name);
}

static void complain(const struct perf_result *result)
{
	unsigned long long n = result->n_failed;
	const char *outcome = perf_outcome_name(result->last_outcome);

	if (result->last_outcome == APH_RX_NET_ERROR || result->last_outcome == APH_RX_LOCAL_ERROR)
		cli_error("%llu failed; the last one: %s: %s", n, outcome,
			  strerror(result->last_code));
	else
		cli_error("%llu failed; the last one: %s, code %d", n, outcome, result->last_code);
}

static int measure(struct perf_options *options, const char *host, const char *command)
{
	static struct perf_result result;
	int status = set_command(options, command);

	if (status != CLI_OK)
		return status;
	status = rx_resolve(host, PERF_PORT, &options->address);
	if (status != CLI_OK)
		return status;
	histogram_init(&result.histogram);
	status = perf_client(options, &result);
	if (status != CLI_OK)
		return status;
	if (options->json)
		report_json(options, command, &result);
	else
		report(options, command, &result);
	if (result.n_failed > 0)
		complain(&result);
	return result.n_failed > 0 || result.n_calls == 0 ? CLI_FAILED : CLI_OK;
}

static int serve(struct perf_options *options, const char *host, bool allow_anonymous)
{
	int status = rx_resolve(host != NULL ? host : "127.0.0.1", PERF_PORT, &options->address);

	if (status != CLI_OK)
		return status;
	if (!allow_anonymous && !is_loopback(&options->address)) {
		cli_error("other machines reach that address, and callers prove nothing: "
			  "say --allow-anonymous if anybody may call");
		return CLI_FAILED;
	}
	return perf_server(options);
}

int rx_perf(int argc, char **argv)
{
	struct perf_options perf = {
		.request_len = SIZE_UNSET,
		.reply_len = SIZE_UNSET,
		.parallel = 1,
		.timeout_ms = 60000,
	};
	bool is_server = false, allow_anonymous = false;
	uint64_t service = PERF_SERVICE;
	const struct cli_option options[] = {
		CLI_BOUNDED("request", CLI_SIZE, &perf.request_len, 0, UINT32_MAX),
		CLI_BOUNDED("reply", CLI_SIZE, &perf.reply_len, 0, UINT32_MAX),
		CLI_BOUNDED("parallel", CLI_COUNT, &perf.parallel, 1, 4096),
		CLI_BOUNDED("count", CLI_COUNT, &perf.count, 1, UINT32_MAX),
		CLI_OPTION("seconds", CLI_SECONDS, &perf.seconds_ms),
		CLI_OPTION("timeout", CLI_SECONDS, &perf.timeout_ms),
		CLI_BOUNDED("window", CLI_COUNT, &perf.window, 1, APH_RX_WINDOW_MAX),
		CLI_BOUNDED("service", CLI_COUNT, &service, 1, UINT16_MAX),
		CLI_OPTION("json", CLI_FLAG, &perf.json),
		CLI_OPTION("serve", CLI_FLAG, &is_server),
		CLI_OPTION("allow-anonymous", CLI_FLAG, &allow_anonymous),
	};
	int status, n;

	if (!cli_read_options(argc, argv, rx_perf_help, options, CLI_LEN(options), &status))
		return status;
	perf.service = (uint16_t)service;
	n = argc - optind;
	if (is_server && n > 1)
		return cli_misused("a server is given one HOST[:PORT] at most");
	if (is_server)
		return serve(&perf, n ? argv[optind] : NULL, allow_anonymous);
	if (n != 2)
		return cli_misused("it takes HOST[:PORT] and one of rpc, send, recv and file");
	if (perf.count == 0 && perf.seconds_ms == 0)
		perf.seconds_ms = 5000;
	return cli_finish(measure(&perf, argv[optind], argv[optind + 1]));
}
