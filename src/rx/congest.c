/* SPDX-License-Identifier: MIT */
/*
 * NewReno (RFC 6582, with what selective acknowledgement tells), CUBIC (RFC 9438), and CUBIC that
 * tolerates a few losses without a queue. Slow start of all three ends as in RFC 9406, when the
 * round trip grows, or with a loss. docs/decisions/ has a page on the tolerance.
 *
 * Arithmetic is in integers: windows in packets, fractions of a packet in 1/65536, CUBIC's time in
 * milliseconds.
 */
#include "rx/congest.h"

#define CWND_MAX APH_RX_WINDOW_MAX
/*
 * On a path as short as this, so many packets under way are more than any link or machine carries.
 * A larger window would only be a larger queue, in memory that has left the cache by the time it is
 * read.
 */
#define SHORT_RTT_US   200
#define SHORT_CWND_MAX 512

/*
 * RFC 9406, section 4.3, but that the delay is looked at several times a round: a paced window that
 * is too large by half fills a queue at the end of a round and leaves it empty at its beginning,
 * and the whole round's smallest sample shows nothing of it.
 */
#define PART_SAMPLES	   8
#define PART_DIVISOR	   8 /* of the window */
#define CSS_ROUNDS	   5
#define CSS_GROWTH_DIVISOR 4
#define RTT_THRESH_MIN_US  2000 /* the RFC: 4000; our samples are microseconds, not ticks */
#define RTT_THRESH_MAX_US  16000

/* A share of losses is known from this many packets on; 1/50 of them may be lost. */
#define SHARE_PACKETS 128
#define SHARE_DIVISOR 50

/* An end of a recovery that lies so far back concerns no packet any more. */
#define RECOVERY_BEHIND (UINT32_C(1) << 24)

/* Pacing pays where a round trip is longer than what timers resolve. */
#define PACING_RTT_MIN_US 1000

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static bool seq_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static void begin_share(struct aph_rx_congest *c)
{
	c->n_acked = 0;
	c->n_lost = 0;
}

void aph_rx_congest_init(struct aph_rx_congest *c, enum aph_rx_congestion algorithm,
			 uint32_t ssthresh)
{
	*c = (struct aph_rx_congest){
		.algorithm = algorithm,
		.cwnd = APH_RX_CWND_INITIAL,
		.ssthresh = ssthresh ? larger(ssthresh, APH_RX_CWND_MIN) : UINT32_MAX,
		.round_min_rtt_us = UINT32_MAX,
		.last_round_min_rtt_us = UINT32_MAX,
		.part_min_rtt_us = UINT32_MAX,
		.last_part_min_rtt_us = UINT32_MAX,
	};
}

uint32_t aph_rx_congest_learnt(const struct aph_rx_congest *c, uint32_t ssthresh)
{
	if (c->cwnd < c->ssthresh)
		return ssthresh;
	/* The window may have become much larger since. */
	return larger(c->ssthresh, c->cwnd / 2);
}

void aph_rx_congest_on_sent(struct aph_rx_congest *c, bool limited)
{
	if (limited)
		c->round_limited = true;
}

/* -- CUBIC ------------------------------------------------------------------------------------- */

/* The smallest r with r^3 >= x. */
static uint32_t cube_root(uint64_t x)
{
	uint32_t low = 0, high = 1u << 21;

	while (low < high) {
		uint64_t middle = (low + high) / 2;

		if (middle * middle * middle >= x)
			high = (uint32_t)middle;
		else
			low = (uint32_t)middle + 1;
	}
	return low;
}

static void cubic_epoch(struct aph_rx_congest *c, uint64_t now_ns)
{
	c->epoch_start_ns = now_ns ? now_ns : 1;
	c->w_est = c->cwnd << 16;
	if (c->cwnd < c->w_max) {
		/*
		 * K = cbrt((W_max - cwnd) / 0.4) seconds: in milliseconds a factor of 10^9 under
		 * the root.
		 */
		c->k_ms = cube_root((uint64_t)(c->w_max - c->cwnd) * UINT64_C(2500000000));
	} else {
		c->k_ms = 0;
		c->w_max = c->cwnd;
	}
}

/* W_cubic(t) = 0.4 * (t - K)^3 + W_max, in 1/256 packets; section 4.2 of the RFC. */
static int64_t cubic_window(const struct aph_rx_congest *c, uint64_t t_ms)
{
	int64_t d = (int64_t)(t_ms < 100000 ? t_ms : 100000) - (int64_t)c->k_ms;

	/* |d| is at most 100 s: the cube times 512 stays below 2^59. */
	return ((int64_t)c->w_max << 8) + d * d * d * 512 / INT64_C(5000000000);
}

static void cubic_grow(struct aph_rx_congest *c, uint32_t n_acked, const struct aph_rx_rtt *rtt,
		       uint64_t now_ns)
{
	int64_t cwnd = (int64_t)c->cwnd << 8, target;
	uint64_t t_ms;

	if (c->epoch_start_ns == 0)
		cubic_epoch(c, now_ns);
	/* alpha is 3 * (1 - 0.7) / (1 + 0.7) = 9/17 up to the window of before, then 1. */
	if (c->w_est >> 16 < c->prior)
		c->w_est +=
			(uint32_t)((((uint64_t)n_acked << 16) * 9 / 17 + c->cwnd / 2) / c->cwnd);
	else
		c->w_est += (uint32_t)((((uint64_t)n_acked << 16) + c->cwnd / 2) / c->cwnd);
	c->w_est = smaller(c->w_est, (uint32_t)CWND_MAX << 16);

	t_ms = now_ns > c->epoch_start_ns ? (now_ns - c->epoch_start_ns) / 1000000 : 0;
	if (cubic_window(c, t_ms) < (int64_t)(c->w_est >> 8)) {
		c->cwnd = larger(c->cwnd, c->w_est >> 16);
		return;
	}
	target = cubic_window(c, t_ms + rtt->srtt_us / 1000);
	if (target > cwnd + cwnd / 2)
		target = cwnd + cwnd / 2;
	if (target <= cwnd)
		return;
	c->credit += (uint32_t)((uint64_t)n_acked * (uint64_t)(target - cwnd) * 256 / c->cwnd);
	c->cwnd += c->credit >> 16;
	c->credit &= 0xffff;
}

static void cubic_reduce(struct aph_rx_congest *c)
{
	/* Fast convergence: a window that shrinks leaves more to those who came later. */
	c->w_max = c->cwnd < c->w_max ? c->cwnd * 17 / 20 : c->cwnd;
	c->prior = c->cwnd;
	c->ssthresh = larger(c->cwnd * 7 / 10, APH_RX_CWND_MIN);
	c->epoch_start_ns = 0;
}

/* -- rounds and slow start --------------------------------------------------------------------- */

static void leave_slow_start(struct aph_rx_congest *c)
{
	c->ssthresh = c->cwnd;
	c->n_css_rounds = 0;
	c->epoch_start_ns = 0;
	c->w_max = c->prior = c->cwnd;
}

static uint32_t rtt_threshold(uint32_t base_us)
{
	return larger(RTT_THRESH_MIN_US, smaller(base_us / 8, RTT_THRESH_MAX_US));
}

/* Called with the smallest sample of a part of a round in slow start. */
static void watch_delay(struct aph_rx_congest *c, uint32_t us)
{
	uint32_t base_us = c->n_css_rounds ? c->css_base_us : c->last_round_min_rtt_us;
	bool grown = base_us != UINT32_MAX && us >= base_us + rtt_threshold(base_us);

	if (c->n_css_rounds == 0 && grown) {
		c->n_css_rounds = 1;
		c->css_base_us = us;
	} else if (c->n_css_rounds > 0 && grown) {
		leave_slow_start(c); /* the queue has doubled already */
	} else if (us < base_us) {
		c->n_css_rounds = 0; /* it was no queue that stays */
	}
}

static void take_sample(struct aph_rx_congest *c, const struct aph_rx_rtt *rtt, uint32_t n_acked)
{
	c->part_acked += n_acked;
	if (rtt->n_samples == c->n_samples)
		return;
	c->n_samples = rtt->n_samples;
	c->round_min_rtt_us = smaller(c->round_min_rtt_us, rtt->latest_us);
	c->part_min_rtt_us = smaller(c->part_min_rtt_us, rtt->latest_us);
	if (++c->n_part_samples < PART_SAMPLES || c->part_acked < c->cwnd / PART_DIVISOR)
		return;
	if (c->cwnd < c->ssthresh)
		watch_delay(c, c->part_min_rtt_us);
	c->last_part_min_rtt_us = c->part_min_rtt_us;
	c->part_min_rtt_us = UINT32_MAX;
	c->n_part_samples = 0;
	c->part_acked = 0;
}

static void end_round(struct aph_rx_congest *c, uint32_t seq, uint32_t next)
{
	c->round_end = next;
	if (c->round_min_rtt_us != UINT32_MAX) {
		c->last_round_min_rtt_us = c->round_min_rtt_us;
		c->round_min_rtt_us = UINT32_MAX;
	}
	if (c->n_acked + c->n_lost >= SHARE_PACKETS)
		begin_share(c);
	if (c->n_css_rounds > 0 && ++c->n_css_rounds > CSS_ROUNDS)
		leave_slow_start(c);
	/*
	 * After a round in which the sender had nothing more to send, the curve starts where the
	 * window is.
	 */
	if (!c->cwnd_limited && !c->round_limited)
		c->epoch_start_ns = 0;
	c->cwnd_limited = c->round_limited;
	c->round_limited = false;
	/* Half of all sequence numbers later, an old end would look like one to come. */
	if (seq_before(c->recovery_end, seq - RECOVERY_BEHIND))
		c->recovery_end = seq - RECOVERY_BEHIND;
}

/* -- what happened ----------------------------------------------------------------------------- */

static uint32_t cwnd_max(const struct aph_rx_rtt *rtt)
{
	return rtt->n_samples && rtt->min_us < SHORT_RTT_US ? SHORT_CWND_MAX : CWND_MAX;
}

static void grow(struct aph_rx_congest *c, uint32_t n_acked, uint32_t in_flight,
		 const struct aph_rx_rtt *rtt, uint64_t now_ns)
{
	bool slow_start = c->cwnd < c->ssthresh;

	/* A window that is not used is not proven (RFC 7661); paced slow start uses half of it. */
	if (!c->cwnd_limited && !c->round_limited && !(slow_start && in_flight * 2 >= c->cwnd))
		return;
	if (slow_start && c->n_css_rounds > 0) {
		c->credit += n_acked * (65536 / CSS_GROWTH_DIVISOR);
		c->cwnd += c->credit >> 16;
		c->credit &= 0xffff;
	} else if (slow_start) {
		c->cwnd = smaller(c->cwnd + n_acked, c->ssthresh);
	} else if (c->algorithm == APH_RX_NEWRENO) {
		c->credit += (uint32_t)(((uint64_t)n_acked << 16) / c->cwnd);
		c->cwnd += c->credit >> 16;
		c->credit &= 0xffff;
	} else {
		cubic_grow(c, n_acked, rtt, now_ns);
	}
	c->cwnd = smaller(c->cwnd, cwnd_max(rtt));
}

void aph_rx_congest_on_ack(struct aph_rx_congest *c, uint32_t n_acked, uint32_t seq, uint32_t next,
			   uint32_t in_flight, const struct aph_rx_rtt *rtt, uint64_t now_ns)
{
	take_sample(c, rtt, n_acked);
	if (n_acked == 0)
		return;
	c->n_acked += n_acked;
	if (c->in_recovery && !seq_before(seq, c->recovery_end))
		c->in_recovery = false;
	if (!c->in_recovery)
		grow(c, n_acked, in_flight, rtt, now_ns);
	if (!seq_before(seq, c->round_end))
		end_round(c, seq, next);
}

/* Whether packets wait somewhere on the path, as far as the last samples show it. */
static bool sees_queue(const struct aph_rx_congest *c, const struct aph_rx_rtt *rtt)
{
	uint32_t us = c->last_part_min_rtt_us;

	if (rtt->n_samples == 0)
		return true;
	if (us == UINT32_MAX)
		us = rtt->srtt_us;
	return us > rtt->min_us + larger(rtt->min_us / 8, 1000);
}

static bool tolerates(const struct aph_rx_congest *c, uint32_t in_flight,
		      const struct aph_rx_rtt *rtt)
{
	uint32_t packets = larger(c->n_acked + c->n_lost, larger(in_flight, SHARE_PACKETS));

	return c->algorithm == APH_RX_CUBIC_TOLERANT && c->n_lost <= packets / SHARE_DIVISOR &&
	       !sees_queue(c, rtt);
}

void aph_rx_congest_on_loss(struct aph_rx_congest *c, uint32_t n_lost, uint32_t seq, uint32_t next,
			    uint32_t in_flight, const struct aph_rx_rtt *rtt)
{
	if (seq_before(seq, c->recovery_end))
		return; /* the window is reduced once for all that was under way */
	c->n_lost += n_lost;
	if (tolerates(c, in_flight, rtt))
		return;
	if (c->algorithm == APH_RX_NEWRENO)
		c->ssthresh = larger(in_flight / 2, APH_RX_CWND_MIN);
	else
		cubic_reduce(c);
	c->cwnd = smaller(c->cwnd, c->ssthresh);
	c->n_css_rounds = 0;
	c->credit = 0;
	c->in_recovery = true;
	c->recovery_end = next;
	begin_share(c);
}

void aph_rx_congest_on_timeout(struct aph_rx_congest *c, uint32_t next, uint32_t in_flight)
{
	/* A second time-out in a row says nothing new about the window (RFC 5681, section 3.1). */
	if (c->cwnd > APH_RX_CWND_MIN) {
		if (c->algorithm == APH_RX_NEWRENO)
			c->ssthresh = larger(in_flight / 2, APH_RX_CWND_MIN);
		else
			cubic_reduce(c);
	}
	/*
	 * Nothing is known of the path any more: the curve begins where slow start ends (RFC 9438,
	 * section 4.8).
	 */
	c->w_max = 0;
	c->cwnd = APH_RX_CWND_MIN;
	c->n_css_rounds = 0;
	c->credit = 0;
	c->in_recovery = false;
	c->recovery_end = next;
	begin_share(c);
}

void aph_rx_congest_on_idle(struct aph_rx_congest *c)
{
	c->ssthresh = c->ssthresh == UINT32_MAX ? UINT32_MAX
						: larger(c->ssthresh, c->cwnd - c->cwnd / 4);
	c->cwnd = larger(c->cwnd / 2, smaller(c->cwnd, APH_RX_CWND_INITIAL));
	c->epoch_start_ns = 0;
	c->n_css_rounds = 0;
	c->cwnd_limited = false;
	c->round_limited = false;
	begin_share(c);
}

uint64_t aph_rx_congest_interval_ns(const struct aph_rx_congest *c, const struct aph_rx_rtt *rtt)
{
	uint64_t srtt_ns = (uint64_t)rtt->srtt_us * 1000;

	if (rtt->srtt_us < PACING_RTT_MIN_US)
		return 0;
	if (c->cwnd < c->ssthresh)
		return srtt_ns / 2 / c->cwnd;
	return srtt_ns * 4 / 5 / c->cwnd;
}
