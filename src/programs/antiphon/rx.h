/* SPDX-License-Identifier: MIT */
/*
 * What the commands of `antiphon rx` share: addresses of other machines' services, and asking them
 * without a call.
 */
#ifndef ANTIPHON_CLI_RX_H
#define ANTIPHON_CLI_RX_H

#include "cli.h"

#include <antiphon/rx.h>
#include <antiphon/rxdebug.h>

/* They get argv from their own name on and return a cli_status. */
int rx_version(int argc, char **argv);
int rx_debug(int argc, char **argv);
int rx_ping(int argc, char **argv);
int rx_perf(int argc, char **argv);
int rx_run(int argc, char **argv);

extern const char rx_version_help[], rx_debug_help[], rx_ping_help[], rx_perf_help[], rx_run_help[];

#define RX_PORT_DEFAULT 7000 /* of a file server, which is whom people ask mostly */

/*
 * Resolves "HOST", "HOST:PORT" or "[ADDRESS]:PORT". A cli_status, after a complaint: CLI_MISUSED
 * when it cannot be one, CLI_FAILED when it cannot be found.
 */
int rx_resolve(const char *text, uint16_t port_default, struct aph_rx_address *out);
/* "127.0.0.1:7000", "[::1]:7000" */
const char *rx_address_text(char *text, size_t size, const struct aph_rx_address *address);
#define RX_ADDRESS_TEXT 64

/* Where questions go to, over a socket of their own. */
struct rx_asked {
	int fd;
	uint32_t id; /* of the last question */
	uint64_t timeout_ms;
};

/* 0 or a complaint and -errno. */
int rx_ask_open(struct rx_asked *asked, const struct aph_rx_address *address, uint64_t timeout_ms);
void rx_ask_close(struct rx_asked *asked);
/*
 * Asks, again and again until there is an answer or the time is over. 0, or a complaint and -errno.
 */
int rx_ask(struct rx_asked *asked, enum aph_rx_query query, uint32_t index,
	   struct aph_rx_answer *answer);
/*
 * Asks once and waits until `deadline_ns`. 0; -ETIMEDOUT; what the network said (-ECONNREFUSED,
 * ...). No complaint.
 */
int rx_ask_once(struct rx_asked *asked, enum aph_rx_query query, uint32_t index,
		uint64_t deadline_ns, struct aph_rx_answer *answer);

#endif
