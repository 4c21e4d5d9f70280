/* SPDX-License-Identifier: MIT */
/*
 * Congestion control of one sending call: how many packets may be in flight, and how fast they
 * leave. Three algorithms behind one interface; all count packets. The caller tells what happened,
 * with the number of packets in flight (sent, neither acknowledged nor taken for lost) before it.
 *
 * A round is one flight: it ends when a packet that was sent after its beginning is acknowledged.
 */
#ifndef ANTIPHON_RX_CONGEST_H
#define ANTIPHON_RX_CONGEST_H

#include "rx/rtt.h"

#include <antiphon/rx.h>

#define APH_RX_CWND_INITIAL 10 /* RFC 6928 */
#define APH_RX_CWND_MIN	    2

struct aph_rx_congest {
	enum aph_rx_congestion algorithm;
	uint32_t cwnd;
	uint32_t ssthresh;
	uint32_t recovery_end; /* seq: a loss below it belongs to the last reduction */
	bool in_recovery;
	bool cwnd_limited;  /* the window kept the sender back in the last round */
	bool round_limited; /* ... in the one that runs */
	/* the round that runs */
	uint32_t round_end;	   /* seq: it ends when this one is acknowledged */
	uint32_t round_min_rtt_us; /* UINT32_MAX: no sample yet */
	uint32_t last_round_min_rtt_us;
	/* a part of it: at least an eighth of the window, and samples enough */
	uint32_t part_min_rtt_us, last_part_min_rtt_us;
	uint32_t part_acked, n_part_samples;
	uint32_t n_samples; /* of the estimator, when it was last looked at */
	/* the share of lost packets: over a round, or several if it was too short to know one */
	uint32_t n_acked, n_lost;
	/* the end of slow start, RFC 9406 */
	uint8_t n_css_rounds; /* 0: no conservative slow start; else 1 + its full rounds */
	uint32_t css_base_us; /* the smallest RTT when it began */
	/* CUBIC */
	uint64_t epoch_start_ns; /* 0: begins with the next acknowledgement */
	uint32_t w_max;
	uint32_t prior; /* the window when ssthresh was last set */
	uint32_t k_ms;
	uint32_t w_est;	 /* Reno-friendly estimate, in 1/65536 packets */
	uint32_t credit; /* growth that is no whole packet yet, in 1/65536 */
};

/* `ssthresh`: packets that an earlier call to this peer ended slow start with; 0: not known. */
void aph_rx_congest_init(struct aph_rx_congest *c, enum aph_rx_congestion algorithm,
			 uint32_t ssthresh);

/*
 * What to begin the next call with, after one that was no short one: `ssthresh` if it ended in slow
 * start.
 */
uint32_t aph_rx_congest_learnt(const struct aph_rx_congest *c, uint32_t ssthresh);

/* New packets were handed to the network; `limited`: more was there and only cwnd kept it back. */
void aph_rx_congest_on_sent(struct aph_rx_congest *c, bool limited);

/*
 * `n_acked` packets were newly acknowledged, softly or for good, the highest of them `seq`; `next`
 * is the next seq that will be sent for the first time.
 */
void aph_rx_congest_on_ack(struct aph_rx_congest *c, uint32_t n_acked, uint32_t seq, uint32_t next,
			   uint32_t in_flight, const struct aph_rx_rtt *rtt, uint64_t now_ns);

/* `n_lost` packets were found lost, the lowest of them `seq`. */
void aph_rx_congest_on_loss(struct aph_rx_congest *c, uint32_t n_lost, uint32_t seq, uint32_t next,
			    uint32_t in_flight, const struct aph_rx_rtt *rtt);

/* The retransmission time-out expired; all that was in flight is taken for lost. */
void aph_rx_congest_on_timeout(struct aph_rx_congest *c, uint32_t next, uint32_t in_flight);

/* Nothing was sent for longer than a time-out (RFC 2861 in spirit). */
void aph_rx_congest_on_idle(struct aph_rx_congest *c);

/*
 * Nanoseconds between two packets, 0: no pacing (no sample yet, or a path so short that timers are
 * coarser than its round trip). In slow start at twice the window per round trip, later at 1.25
 * times.
 */
uint64_t aph_rx_congest_interval_ns(const struct aph_rx_congest *c, const struct aph_rx_rtt *rtt);

#endif
