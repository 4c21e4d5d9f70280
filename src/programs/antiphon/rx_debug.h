/* SPDX-License-Identifier: MIT */
/* How `antiphon rx debug` shows what it was told. */
#ifndef ANTIPHON_CLI_RX_DEBUG_H
#define ANTIPHON_CLI_RX_DEBUG_H

#include "json.h"
#include "rx.h"
#include "table.h"

void debug_print_stats(const struct aph_rx_debug_stats *stats);
void debug_json_stats(const struct aph_rx_debug_stats *stats, struct json *json);

#define DEBUG_CONNECTION_COLUMNS 8
extern const char *const debug_connection_headings[DEBUG_CONNECTION_COLUMNS];
/* One row for each channel that has had a call. 0 or -ENOMEM. */
int debug_add_connection(struct table *table, const struct aph_rx_debug_connection *connection);
void debug_json_connection(const struct aph_rx_debug_connection *connection, struct json *json);

#define DEBUG_PEER_COLUMNS 8
extern const char *const debug_peer_headings[DEBUG_PEER_COLUMNS];
int debug_add_peer(struct table *table, const struct aph_rx_debug_peer *peer);
void debug_json_peer(const struct aph_rx_debug_peer *peer, struct json *json);

/* Those that are not 0. */
void debug_print_counters(const struct aph_rx_debug_counters *counters);
void debug_json_counters(const struct aph_rx_debug_counters *counters, struct json *json);

#endif
