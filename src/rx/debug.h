/* SPDX-License-Identifier: MIT */
/*
 * The answering side of antiphon/rxdebug.h: structures to the bodies of DEBUG and VERSION packets.
 */
#ifndef ANTIPHON_RX_DEBUG_H
#define ANTIPHON_RX_DEBUG_H

#include <antiphon/rxdebug.h>

#define APH_RX_DEBUG_EPOCH 999 /* of packets outside all connections */
#define APH_RX_DEBUG_QUERY 8   /* bytes of a query's body */

#define APH_RX_DEBUG_STATS	    56 /* bytes of the bodies of answers */
#define APH_RX_DEBUG_CONNECTION	    176
#define APH_RX_DEBUG_COUNTERS	    284
#define APH_RX_DEBUG_PEER	    132
#define APH_RX_DEBUG_ANSWER_MAX	    APH_RX_DEBUG_COUNTERS
#define APH_RX_DEBUG_VERSION_LETTER 'S'
#define APH_RX_VERSION_BODY	    65

/* Each writes the whole body, unknown and spare fields as zeros, and returns its length. */
size_t aph_rx_debug_encode_stats(uint8_t *body, const struct aph_rx_debug_stats *stats);
size_t aph_rx_debug_encode_connection(uint8_t *body,
				      const struct aph_rx_debug_connection *connection);
size_t aph_rx_debug_encode_counters(uint8_t *body, const struct aph_rx_debug_counters *counters);
size_t aph_rx_debug_encode_peer(uint8_t *body, const struct aph_rx_debug_peer *peer);
/* The end of a list of connections, or of peers. */
size_t aph_rx_debug_encode_end(uint8_t *body, enum aph_rx_query query);
/* The answer to a query that is not known. */
size_t aph_rx_debug_encode_unsupported(uint8_t *body);
/* `text` is cut to fit. */
size_t aph_rx_version_encode(uint8_t *body, const char *text);

#endif
