/* SPDX-License-Identifier: MIT */
/*
 * How large a datagram a path takes (RFC 8899 in spirit): starts small enough for everybody, is
 * lowered by what the network reports, and raised by probes, which are PING ACKs with zeros behind,
 * one at a time. Sizes are UDP payloads.
 */
#ifndef ANTIPHON_RX_PMTU_H
#define ANTIPHON_RX_PMTU_H

#include <stdbool.h>
#include <stdint.h>

#define APH_RX_MTU_FLOOR   500
#define APH_RX_MTU_DEFAULT 1444
#define APH_RX_MTU_IPV6	   1232	 /* 1280 - 48 */
#define APH_RX_MTU_MAX	   65160 /* 46 packets in a jumbogram */

struct aph_rx_pmtu {
	uint16_t current;   /* datagrams up to this size are known, or assumed, to arrive */
	uint16_t peer_max;  /* the peer takes no larger ones */
	uint16_t too_large; /* the smallest size known not to arrive; 0: none */
	uint16_t probing;   /* size of the probe that is under way; 0: none */
	uint16_t black;	    /* the smallest size of those that were lost of late */
	uint8_t n_tries;    /* of the probe */
	uint8_t n_black;    /* how many, since one at least as large arrived */
	bool done;	    /* searched; starts anew at search_ns */
	uint64_t search_ns;
};

void aph_rx_pmtu_init(struct aph_rx_pmtu *pmtu, uint16_t initial);
/* The peer said what it takes (word 0 of the trailer). */
void aph_rx_pmtu_set_peer_max(struct aph_rx_pmtu *pmtu, uint32_t max_mtu);
/* The size of a probe to be sent now, 0: none. It is under way then. */
uint16_t aph_rx_pmtu_probe(struct aph_rx_pmtu *pmtu, uint64_t now_ns);
/* The probe that is under way was answered, or is taken for lost. */
void aph_rx_pmtu_probe_acked(struct aph_rx_pmtu *pmtu);
void aph_rx_pmtu_probe_lost(struct aph_rx_pmtu *pmtu);
/*
 * The network or our kernel said that datagrams of more than `mtu` do not pass; 0: it did not say
 * how large.
 */
void aph_rx_pmtu_too_large(struct aph_rx_pmtu *pmtu, uint32_t mtu);
/*
 * A datagram of `size` bytes has arrived, or was lost where that means something: by a time-out, or
 * for the second time. Only those that could not be fragmented are told of. After some losses
 * without an arrival the path has shrunk.
 */
void aph_rx_pmtu_arrived(struct aph_rx_pmtu *pmtu, uint16_t size);
void aph_rx_pmtu_lost(struct aph_rx_pmtu *pmtu, uint16_t size);

#endif
