/* SPDX-License-Identifier: MIT */
/*
 * A peer that is not ours: small models of how OpenAFS and the Linux kernel receive, acknowledge
 * and send, packet by packet, written from their description and not from our engine. As a server
 * it answers calls; as a client it makes them, four at a time on each of its connections. A request
 * begins with STOCK_PREFIX bytes: the call's id and the length of its reply, big-endian.
 */
#ifndef TESTS_SIM_STOCK_H
#define TESTS_SIM_STOCK_H

#include "world.h"

#define STOCK_PREFIX	12
#define STOCK_CONNS_MAX 32
#define STOCK_WINDOW	256
#define STOCK_SERVICE	4

enum stock_style {
	STOCK_OPENAFS, /* window 32, every second packet, hard only when the program has read */
	STOCK_LINUX,   /* window 255, hard as soon as it came, strict about what it is sent */
};

struct stock_slot {
	bool held;
	bool last;
	uint16_t len;
	uint8_t data[1500];
};

struct stock_in {
	struct stock_slot *slots;		/* STOCK_WINDOW of them, by seq */
	uint32_t next, highest, last, consumed; /* packets; consumed: by the program */
	uint32_t n_since_ack, n_read_since_ack;
	uint64_t bytes;
	uint64_t ack_at; /* a delayed ACK is due; 0: none */
	bool over;	 /* the program has read the end */
};

struct stock_out {
	uint64_t len;
	uint32_t id, n_packets, base, next, cwnd, window, n_nacks;
	uint8_t acked[STOCK_WINDOW];
	uint64_t resend_at, rto_ns;
	bool started, done;
};

struct stock_channel {
	bool busy;
	uint32_t call;
	struct stock_in in;
	struct stock_out out;
	uint64_t reply_at; /* server: when the program answers */
	uint64_t begun;
	uint64_t reply_len; /* client: what it expects */
	uint32_t id, last_seq;
	uint64_t heard;
};

struct stock_conn {
	bool used, is_client;
	struct aph_rx_address peer;
	uint32_t epoch, cid, serial;
	struct stock_channel channels[4];
};

struct stock {
	struct node node;
	enum stock_style style;
	bool is_client, jumbo, slow;
	uint64_t work_ns; /* a server's program takes up to so long */
	struct stock_conn conns[STOCK_CONNS_MAX];
	unsigned n_conns;
	uint32_t next_id, body_max;
	unsigned calls_left, n_open, n_done, n_served;
	uint64_t n_pings;
};

void stock_init(struct stock *stock, struct world *world, const char *name,
		const struct aph_rx_address *address, enum stock_style style);
void stock_deinit(struct stock *stock);
/* Makes `n_calls` calls to `peer` over `n_conns` connections. */
void stock_call(struct stock *stock, const struct aph_rx_address *peer, unsigned n_conns,
		unsigned n_calls);

#endif
