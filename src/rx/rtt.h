/* SPDX-License-Identifier: MIT */
/*
 * Round-trip time of a peer: RFC 6298's estimator, in microseconds, and the smallest one seen
 * lately.
 */
#ifndef ANTIPHON_RX_RTT_H
#define ANTIPHON_RX_RTT_H

#include <stdbool.h>
#include <stdint.h>

#define APH_RX_RTO_MIN_US	UINT32_C(200000)
#define APH_RX_RTO_MAX_US	UINT32_C(120000000)
#define APH_RX_RTO_INITIAL_US	UINT32_C(1000000)
#define APH_RX_ACK_ALLOWANCE_US UINT32_C(100000) /* for acknowledgements that peers hold back */

struct aph_rx_rtt {
	uint32_t srtt_us; /* 0: no sample yet */
	uint32_t rttvar_us;
	uint32_t latest_us;
	uint32_t min_us;      /* the smallest of the last ten seconds or more */
	uint32_t next_min_us; /* of the window that runs */
	uint32_t n_samples;
	uint64_t window_end_ns;
	bool is_bound; /* no round trip was measured yet, but one took no longer than this */
};

void aph_rx_rtt_sample(struct aph_rx_rtt *rtt, uint64_t sample_ns, uint64_t now_ns);
/*
 * A request was answered in so long: a round trip and what the service took. Until there are
 * samples the smallest of those is the estimate, and no reason to be more patient than with a peer
 * that nothing is known of.
 */
void aph_rx_rtt_bound(struct aph_rx_rtt *rtt, uint64_t bound_ns, uint64_t now_ns);
/* The retransmission time-out after `n_backoffs` doublings. */
uint64_t aph_rx_rtt_rto_ns(const struct aph_rx_rtt *rtt, unsigned n_backoffs);

#endif
