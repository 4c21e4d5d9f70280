/* SPDX-License-Identifier: MIT */
/*
 * What any Rx endpoint tells about itself: its version, and what the rxdebug protocol asks for
 * (figures, connections, counters, peers). Packets to bytes and back; sending them is the caller's
 * business, from any UDP socket:
 *
 *   len = aph_rx_query_encode(packet, APH_RX_QUERY_STATS, 0, id);
 *   send(fd, packet, len, 0);
 *   len = recv(fd, packet, sizeof(packet), 0);
 *   r = aph_rx_answer_decode(&answer, packet, len, APH_RX_QUERY_STATS, id);
 *
 * Nothing in an answer can be trusted, nor where it comes from. Names of fields are those of the
 * protocol, which docs/spec/rx.md describes in section 20. Threads: these functions keep nothing.
 */
#ifndef ANTIPHON_RXDEBUG_H
#define ANTIPHON_RXDEBUG_H

#include <antiphon/api.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

APH_BEGIN_DECLS

enum aph_rx_query {
	APH_RX_QUERY_VERSION = 0,
	APH_RX_QUERY_STATS = 1,
	APH_RX_QUERY_CONNECTIONS = 2, /* those with calls; one by one, by index */
	APH_RX_QUERY_ALL_CONNECTIONS = 3,
	APH_RX_QUERY_COUNTERS = 4,
	APH_RX_QUERY_PEERS = 5, /* one by one, by index */
};

#define APH_RX_QUERY_SIZE_MAX  36
#define APH_RX_ANSWER_SIZE_MAX 1500 /* room for any answer there is */

struct aph_rx_debug_stats {
	int32_t free_packets, packet_reclaims, calls_executed;
	bool waiting_for_packets;
	uint8_t used_fds;
	char version; /* letter: which fields and queries the other side knows; the newest is 'S' */
	int32_t n_waiting, idle_threads, n_waited, n_packets;
};

/* Of a connection: secStats. */
struct aph_rx_debug_security {
	uint8_t type; /* 0 unknown, 1 null, 2 vab, 3 kad, 4 gk */
	uint8_t level;
	uint32_t flags; /* 1 unallocated, 2 authenticated, 4 expired, 8 checksums seen */
	uint32_t expires;
	uint32_t packets_received, packets_sent, bytes_received, bytes_sent;
};

struct aph_rx_debug_connection {
	uint32_t host; /* 127.0.0.1 is 0x7f000001; 0 where the peer has no IPv4 address */
	uint16_t port;
	uint32_t cid, epoch, serial;
	uint32_t call_number[4];
	int32_t error;
	uint8_t flags;
	bool is_server; /* as its owner sees it */
	uint8_t security_index;
	uint8_t call_state[4]; /* 0 none, 1 waits, 2 active, 3 dallies, 4 hold, 5 reset */
	uint8_t call_mode[4];  /* 1 sending, 2 receiving, 3 error, 4 end */
	uint8_t call_flags[4];
	uint8_t call_other[4]; /* 1: packets are queued in, 2: out */
	struct aph_rx_debug_security security;
	int32_t nat_mtu;
};

struct aph_rx_debug_time {
	int32_t sec, usec;
};

#define APH_RX_DEBUG_N_TYPES 13 /* entry i is of packets of type i + 1 */

struct aph_rx_debug_counters {
	int32_t packet_requests;
	int32_t receive_alloc_failures, send_alloc_failures, special_alloc_failures;
	int32_t socket_greedy, bogus_packet_on_read, bogus_host;
	int32_t no_packet_on_read, no_packet_buffers_on_read, selects, send_selects;
	int32_t packets_read[APH_RX_DEBUG_N_TYPES];
	int32_t data_packets_read, ack_packets_read, dup_packets_read, spurious_packets_read;
	int32_t packets_sent[APH_RX_DEBUG_N_TYPES];
	int32_t ack_packets_sent, ping_packets_sent, abort_packets_sent, busy_packets_sent;
	int32_t data_packets_sent, data_packets_resent, data_packets_pushed, ignore_acked_packet;
	struct aph_rx_debug_time total_rtt, min_rtt, max_rtt;
	int32_t n_rtt_samples, n_server_conns, n_client_conns, n_peer_structs;
	int32_t n_call_structs, n_free_call_structs, net_send_failures, fatal_errors;
	int32_t ignore_packet_dally, receive_cbuf_alloc_failures, send_cbuf_alloc_failures;
	int32_t n_busies;
};

struct aph_rx_debug_peer {
	uint32_t host; /* as in connections */
	uint16_t port;
	uint16_t if_mtu;
	uint32_t idle_when;
	uint16_t ref_count;
	uint8_t burst_size, burst;
	struct aph_rx_debug_time burst_wait;
	int32_t rtt;	 /* in eighths of a millisecond */
	int32_t rtt_dev; /* in quarters of one */
	struct aph_rx_debug_time timeout;
	int32_t n_sent, resends, in_packet_skew, out_packet_skew, rate_flag;
	uint16_t nat_mtu, max_mtu, max_dgram_packets, if_dgram_packets;
	uint16_t mtu, cwind, n_dgram_packets, congest_seq;
	uint64_t bytes_sent, bytes_received;
};

struct aph_rx_answer {
	enum aph_rx_query query;
	bool end;	  /* of a list: nothing has this index */
	bool unsupported; /* the other side does not know the query */
	union {
		char version[66];
		struct aph_rx_debug_stats stats;
		struct aph_rx_debug_connection connection;
		struct aph_rx_debug_counters counters;
		struct aph_rx_debug_peer peer;
	};
};

/*
 * Writes the packet of a query to `packet`, APH_RX_QUERY_SIZE_MAX bytes, and returns its length.
 * `index` counts from 0 and is only for lists; `id` comes back with the answer.
 */
APH_API size_t aph_rx_query_encode(void *packet, enum aph_rx_query query, uint32_t index,
				   uint32_t id);

/*
 * Reads the answer to that query. Fields that an old peer does not send are 0; a version has only
 * printable characters. 0; -ENOMSG: it is no answer, or one to another query; -EBADMSG: it is
 * malformed.
 */
APH_API int aph_rx_answer_decode(struct aph_rx_answer *out, const void *packet, size_t len,
				 enum aph_rx_query query, uint32_t id);

APH_END_DECLS

#endif
