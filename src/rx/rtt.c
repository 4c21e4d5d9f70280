/* SPDX-License-Identifier: MIT */
/*
 * The estimator of RFC 6298. A transmission has its own serial, so that each sample belongs to one
 * transmission and Karn's problem does not arise. The smallest sample is that of this window and
 * the one before.
 */
#include "rx/rtt.h"

#define MIN_WINDOW_NS UINT64_C(10000000000)
#define SAMPLE_MAX_US UINT32_C(60000000)

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static void sample_min(struct aph_rx_rtt *rtt, uint32_t us, uint64_t now_ns)
{
	if (rtt->n_samples == 0 || rtt->is_bound || now_ns >= rtt->window_end_ns + MIN_WINDOW_NS) {
		/* The first one, or what is known is older than two windows. */
		rtt->min_us = us;
		rtt->next_min_us = us;
		rtt->window_end_ns = now_ns + MIN_WINDOW_NS;
	} else if (now_ns >= rtt->window_end_ns) {
		rtt->min_us = smaller(rtt->next_min_us, us);
		rtt->next_min_us = us;
		rtt->window_end_ns += MIN_WINDOW_NS;
	} else {
		rtt->min_us = smaller(rtt->min_us, us);
		rtt->next_min_us = smaller(rtt->next_min_us, us);
	}
}

/* 0 stands for "none yet", and a clock that jumped must not spoil the estimate for ever. */
static uint32_t to_us(uint64_t ns)
{
	uint64_t us = ns / 1000;

	return us == 0 ? 1 : us > SAMPLE_MAX_US ? SAMPLE_MAX_US : (uint32_t)us;
}

void aph_rx_rtt_sample(struct aph_rx_rtt *rtt, uint64_t sample_ns, uint64_t now_ns)
{
	uint32_t us = to_us(sample_ns), error_us;

	sample_min(rtt, us, now_ns);
	rtt->latest_us = us;
	if (rtt->n_samples == 0 || rtt->is_bound) {
		rtt->srtt_us = us;
		rtt->rttvar_us = us / 2;
	} else {
		error_us = us > rtt->srtt_us ? us - rtt->srtt_us : rtt->srtt_us - us;
		rtt->rttvar_us = (uint32_t)((UINT64_C(3) * rtt->rttvar_us + error_us + 2) / 4);
		rtt->srtt_us = (uint32_t)((UINT64_C(7) * rtt->srtt_us + us + 4) / 8);
	}
	if (rtt->n_samples < UINT32_MAX)
		rtt->n_samples++;
	rtt->is_bound = false;
}

void aph_rx_rtt_bound(struct aph_rx_rtt *rtt, uint64_t bound_ns, uint64_t now_ns)
{
	if (rtt->n_samples && (!rtt->is_bound || to_us(bound_ns) >= rtt->srtt_us))
		return;
	aph_rx_rtt_sample(rtt, bound_ns, now_ns);
	rtt->is_bound = true;
}

uint64_t aph_rx_rtt_rto_ns(const struct aph_rx_rtt *rtt, unsigned n_backoffs)
{
	uint64_t us = APH_RX_RTO_INITIAL_US;

	if (rtt->n_samples > 0) {
		us = rtt->srtt_us + UINT64_C(4) * rtt->rttvar_us + APH_RX_ACK_ALLOWANCE_US;
		if (us < APH_RX_RTO_MIN_US)
			us = APH_RX_RTO_MIN_US;
		if (rtt->is_bound && us > APH_RX_RTO_INITIAL_US)
			us = APH_RX_RTO_INITIAL_US;
	}
	us <<= n_backoffs < 20 ? n_backoffs : 20;
	return (us < APH_RX_RTO_MAX_US ? us : APH_RX_RTO_MAX_US) * 1000;
}
