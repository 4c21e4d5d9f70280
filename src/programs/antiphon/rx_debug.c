/* SPDX-License-Identifier: MIT */
/*
 * antiphon rx debug HOST[:PORT]: everything that the rxdebug protocol tells of an endpoint.
 */
#include "rx_debug.h"
#include "options.h"

#include <getopt.h>

/* A list that is still not at its end then is a joke of the other side. */
#define ENTRIES_MAX 200000

const char rx_debug_help[] =
	"usage: antiphon rx debug [OPTION...] HOST[:PORT]\n"
	"Asks what an endpoint is doing, at port 7000 unless another is given. Many answer only\n"
	"their own machine. Without an option that says what: --stats and --connections.\n\n"
	"  --stats            figures of the whole endpoint\n"
	"  --connections      connections that have calls now\n"
	"  --all              all connections\n"
	"  --peers            machines it talks to\n"
	"  --rxstats          counters of packets and failures\n"
	"  --json             print a JSON object\n"
	"  --timeout SECONDS  wait so long for each answer; by default 5\n"
	"  --help             show this text\n\n"
	"  antiphon rx debug --all --peers localhost:7003\n";

struct debug {
	struct rx_asked asked;
	bool stats, connections, all, peers, counters;
	bool as_json;
	unsigned n_parts; /* printed so far */
	struct json json;
};

/* A part of the text that comes after another one. */
static void begin_part(struct debug *debug)
{
	if (debug->n_parts++ > 0 && !debug->as_json)
		putchar('\n');
}

static int show_stats(struct debug *debug)
{
	struct aph_rx_answer answer;
	int r = rx_ask(&debug->asked, APH_RX_QUERY_STATS, 0, &answer);

	if (r < 0)
		return r;
	begin_part(debug);
	if (answer.unsupported && debug->as_json)
		json_null(&debug->json, "stats");
	else if (answer.unsupported)
		puts("it has no figures");
	else if (debug->as_json)
		debug_json_stats(&answer.stats, &debug->json);
	else
		debug_print_stats(&answer.stats);
	return 0;
}

static int show_counters(struct debug *debug)
{
	struct aph_rx_answer answer;
	int r = rx_ask(&debug->asked, APH_RX_QUERY_COUNTERS, 0, &answer);

	if (r < 0)
		return r;
	begin_part(debug);
	if (answer.unsupported && debug->as_json)
		json_null(&debug->json, "counters");
	else if (answer.unsupported)
		puts("it has no counters");
	else if (debug->as_json)
		debug_json_counters(&answer.counters, &debug->json);
	else
		debug_print_counters(&answer.counters);
	return 0;
}

static int show_entry(struct debug *debug, const struct aph_rx_answer *answer, struct table *table)
{
	if (answer->query == APH_RX_QUERY_PEERS) {
		if (!debug->as_json)
			return debug_add_peer(table, &answer->peer);
		debug_json_peer(&answer->peer, &debug->json);
		return 0;
	}
	if (!debug->as_json)
		return debug_add_connection(table, &answer->connection);
	debug_json_connection(&answer->connection, &debug->json);
	return 0;
}

static int show_list(struct debug *debug, enum aph_rx_query query, const char *name)
{
	bool peers = query == APH_RX_QUERY_PEERS;
	struct aph_rx_answer answer;
	struct table table;
	uint32_t n;
	int r = 0;

	table_init(&table, peers ? debug_peer_headings : debug_connection_headings,
		   peers ? DEBUG_PEER_COLUMNS : DEBUG_CONNECTION_COLUMNS);
	begin_part(debug);
	if (debug->as_json)
		json_begin_array(&debug->json, name);
	for (n = 0; n < ENTRIES_MAX && r == 0; n++) {
		r = rx_ask(&debug->asked, query, n, &answer);
		if (r < 0 || answer.end || answer.unsupported)
			break;
		r = show_entry(debug, &answer, &table);
		if (r < 0)
			cli_error("out of memory");
	}
	if (debug->as_json)
		json_end(&debug->json);
	else if (r == 0 && table.n_cells > 0)
		table_print(&table, stdout, 0, 0);
	else if (r == 0)
		printf("no %s\n", name);
	table_deinit(&table);
	return r;
}

static int ask_all(struct debug *debug)
{
	int r = 0;

	if (debug->stats)
		r = show_stats(debug);
	if (r == 0 && (debug->connections || debug->all))
		r = show_list(debug,
			      debug->all ? APH_RX_QUERY_ALL_CONNECTIONS : APH_RX_QUERY_CONNECTIONS,
			      "connections");
	if (r == 0 && debug->peers)
		r = show_list(debug, APH_RX_QUERY_PEERS, "peers");
	if (r == 0 && debug->counters)
		r = show_counters(debug);
	return r;
}

static int run_debug(struct debug *debug, const char *host, uint64_t timeout_ms)
{
	struct aph_rx_address address;
	char where[RX_ADDRESS_TEXT];
	int status = rx_resolve(host, RX_PORT_DEFAULT, &address), r;

	if (!debug->connections && !debug->all && !debug->peers && !debug->counters &&
	    !debug->stats)
		debug->stats = debug->connections = true;
	if (status != CLI_OK)
		return status;
	if (rx_ask_open(&debug->asked, &address, timeout_ms) < 0)
		return CLI_FAILED;
	if (debug->as_json) {
		json_init(&debug->json, stdout);
		json_begin_object(&debug->json, NULL);
		json_string(&debug->json, "address",
			    rx_address_text(where, sizeof(where), &address));
	}
	r = ask_all(debug);
	if (debug->as_json)
		json_end(&debug->json);
	rx_ask_close(&debug->asked);
	return r < 0 ? CLI_FAILED : CLI_OK;
}

int rx_debug(int argc, char **argv)
{
	struct debug debug = { .n_parts = 0 };
	uint64_t timeout_ms = 5000;
	const struct cli_option options[] = {
		CLI_OPTION("stats", CLI_FLAG, &debug.stats),
		CLI_OPTION("connections", CLI_FLAG, &debug.connections),
		CLI_OPTION("all", CLI_FLAG, &debug.all),
		CLI_OPTION("peers", CLI_FLAG, &debug.peers),
		CLI_OPTION("rxstats", CLI_FLAG, &debug.counters),
		CLI_OPTION("json", CLI_FLAG, &debug.as_json),
		CLI_OPTION("timeout", CLI_SECONDS, &timeout_ms),
	};
	int status;

	if (!cli_read_options(argc, argv, rx_debug_help, options, CLI_LEN(options), &status))
		return status;
	if (argc - optind != 1)
		return cli_misused("it takes one HOST[:PORT]");
	return cli_finish(run_debug(&debug, argv[optind], timeout_ms));
}
