/* SPDX-License-Identifier: MIT */
/*
 * antiphon rx version HOST[:PORT]: what program answers there, by a VERSION packet.
 */
#include "json.h"
#include "options.h"
#include "rx.h"

#include <getopt.h>

const char rx_version_help[] = "usage: antiphon rx version [OPTION...] HOST[:PORT]\n"
			       "Asks what version answers at a port, 7000 unless it is given.\n\n"
			       "  --json             print a JSON object\n"
			       "  --timeout SECONDS  wait so long for an answer; by default 5\n"
			       "  --help             show this text\n\n"
			       "  antiphon rx version fileserver.example.org:7000\n";

static int ask_version(const char *host, bool as_json, uint64_t timeout_ms)
{
	struct aph_rx_address address;
	struct aph_rx_answer answer;
	struct rx_asked asked;
	char text[RX_ADDRESS_TEXT];
	struct json json;
	int status = rx_resolve(host, RX_PORT_DEFAULT, &address), r;

	if (status != CLI_OK)
		return status;
	if (rx_ask_open(&asked, &address, timeout_ms) < 0)
		return CLI_FAILED;
	r = rx_ask(&asked, APH_RX_QUERY_VERSION, 0, &answer);
	rx_ask_close(&asked);
	if (r < 0)
		return CLI_FAILED;
	if (!as_json) {
		puts(answer.version);
		return CLI_OK;
	}
	json_init(&json, stdout);
	json_begin_object(&json, NULL);
	json_string(&json, "address", rx_address_text(text, sizeof(text), &address));
	json_string(&json, "version", answer.version);
	json_end(&json);
	return CLI_OK;
}

int rx_version(int argc, char **argv)
{
	uint64_t timeout_ms = 5000;
	bool as_json = false;
	const struct cli_option options[] = {
		CLI_OPTION("json", CLI_FLAG, &as_json),
		CLI_OPTION("timeout", CLI_SECONDS, &timeout_ms),
	};
	int status;

	if (!cli_read_options(argc, argv, rx_version_help, options, CLI_LEN(options), &status))
		return status;
	if (argc - optind != 1)
		return cli_misused("it takes one HOST[:PORT]");
	return cli_finish(ask_version(argv[optind], as_json, timeout_ms));
}
