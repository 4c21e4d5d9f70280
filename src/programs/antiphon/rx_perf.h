/* SPDX-License-Identifier: MIT */
/*
 * The rxperf service: a load test that OpenAFS and Linux have too. Words are big-endian. A request
 * is a head of words, then as many octets as the head says; the reply is as many octets as asked
 * for, then (but for FILE) a cookie.
 */
#ifndef ANTIPHON_CLI_RX_PERF_H
#define ANTIPHON_CLI_RX_PERF_H

#include "histogram.h"
#include "rx.h"

#define PERF_PORT    7009
#define PERF_SERVICE 147
#define PERF_VERSION 3
#define PERF_COOKIE  0x00004711u

enum perf_command {
	PERF_SEND = 0, /* parameters: n, then n octets */
	PERF_RECV = 1, /* n: n octets come back */
	PERF_RPC = 3,  /* n, m, then n octets; m come back */
	PERF_FILE = 4, /* count, list of lengths in words; 0 turns the direction round; no cookie */
};

/* version, command, read size, write size */
#define PERF_HEAD_WORDS 4
#define PERF_READ_SIZE	65536 /* no effect on anything */

struct perf_options {
	struct aph_rx_address address;
	uint16_t service;
	enum perf_command command;
	uint64_t request_len, reply_len; /* octets of data */
	uint64_t parallel;
	uint64_t count; /* calls in all; 0: as many as the time allows */
	uint64_t seconds_ms;
	uint64_t window;
	uint64_t timeout_ms; /* of each call */
	bool json;
};

struct perf_result {
	uint64_t n_calls, n_failed;
	uint64_t bytes_sent, bytes_received;
	uint64_t n_packets, n_resent;
	uint64_t elapsed_ns;
	int32_t last_code; /* of the last failure, and how it came */
	enum aph_rx_outcome last_outcome;
	struct histogram histogram;
};

/* Both run until they are done or interrupted and return a cli_status. */
int perf_client(const struct perf_options *options, struct perf_result *result);
int perf_server(const struct perf_options *options);

/* The driver of both: 0 or a complaint. `local` may have no family: any address. */
int perf_open(struct aph_rx_udp **udp, const struct aph_rx_address *local, uint64_t window);
/* No signal wakes it any more from then on. */
void perf_close(struct aph_rx_udp *udp);
/* Whether a signal asked for the end; `udp` is woken by it. */
void perf_watch_signals(struct aph_rx_udp *udp);
bool perf_interrupted(void);

const char *perf_outcome_name(enum aph_rx_outcome outcome);

static inline void perf_put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static inline uint32_t perf_get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

#endif
