/* SPDX-License-Identifier: MIT */
/*
 * Congestion control: the arithmetic of the RFCs by worked examples, and what comes of it on a
 * modelled path with a bottleneck, a queue before it and random loss.
 */
#include "rx/congest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)
#define S  (1000 * MS)

/* A round trip of 100 ms without a queue, sampled often enough. */
static struct aph_rx_rtt a_path(void)
{
	struct aph_rx_rtt rtt = { 0 };

	for (int i = 0; i < 10; i++)
		aph_rx_rtt_sample(&rtt, 100 * MS, 0);
	return rtt;
}

/* Acknowledges one full window, packet by packet. Returns the next seq. */
static uint32_t a_round(struct aph_rx_congest *c, uint32_t seq, const struct aph_rx_rtt *rtt,
			uint64_t now_ns)
{
	uint32_t window = c->cwnd;

	for (uint32_t i = 0; i < window; i++) {
		aph_rx_congest_on_sent(c, true);
		aph_rx_congest_on_ack(c, 1, seq + i, seq + window, window, rtt, now_ns);
	}
	return seq + window;
}

static void slow_start_doubles(void **state)
{
	struct aph_rx_rtt rtt = a_path();
	struct aph_rx_congest c;
	uint32_t seq = 1;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_CUBIC, 0);
	assert_int_equal(c.cwnd, 10);
	for (uint32_t wanted = 20; wanted <= 5120; wanted *= 2) {
		seq = a_round(&c, seq, &rtt, 0);
		assert_int_equal(c.cwnd, wanted);
	}
	seq = a_round(&c, seq, &rtt, 0);
	assert_int_equal(c.cwnd, APH_RX_WINDOW_MAX);
}

/* Where a round trip takes next to nothing, a window of any size would only be a queue. */
static void short_path_needs_little(void **state)
{
	struct aph_rx_rtt rtt = { 0 }, longer = a_path();
	struct aph_rx_congest c;
	uint32_t seq = 1;

	(void)state;
	aph_rx_rtt_sample(&rtt, MS / 50, 0);
	aph_rx_congest_init(&c, APH_RX_CUBIC, 0);
	for (int i = 0; i < 12; i++)
		seq = a_round(&c, seq, &rtt, 0);
	assert_int_equal(c.cwnd, 512);
	/* The path has changed. */
	seq = a_round(&c, seq, &longer, 0);
	assert_int_equal(c.cwnd, 1024);
	(void)seq;
}

static void known_threshold(void **state)
{
	struct aph_rx_rtt rtt = a_path();
	struct aph_rx_congest c;
	uint32_t seq = 1;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_NEWRENO, 33);
	seq = a_round(&c, seq, &rtt, 0);
	seq = a_round(&c, seq, &rtt, 0);
	assert_int_equal(c.cwnd, 33);
	/* One packet a round from here. */
	seq = a_round(&c, seq, &rtt, 0);
	seq = a_round(&c, seq, &rtt, 0);
	assert_in_range(c.cwnd, 34, 35);
	(void)seq;
}

static void unused_window_does_not_grow(void **state)
{
	struct aph_rx_rtt rtt = a_path();
	struct aph_rx_congest c;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_CUBIC_TOLERANT, 0);
	for (uint32_t seq = 1; seq < 1000; seq++) {
		aph_rx_congest_on_sent(&c, false);
		aph_rx_congest_on_ack(&c, 1, seq, seq + 1, 1, &rtt, seq * 100 * MS);
	}
	assert_int_equal(c.cwnd, 10);
}

/*
 * What the next call begins with: where this one left slow start, or more if it has come further.
 */
static void what_was_learnt(void **state)
{
	struct aph_rx_congest c;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_CUBIC_TOLERANT, 0);
	assert_int_equal(aph_rx_congest_learnt(&c, 300), 300);
	c.ssthresh = 200;
	assert_int_equal(aph_rx_congest_learnt(&c, 300), 300);
	c.cwnd = 220;
	assert_int_equal(aph_rx_congest_learnt(&c, 300), 200);
	c.cwnd = 1000;
	assert_int_equal(aph_rx_congest_learnt(&c, 300), 500);
}

static void newreno_halves_once(void **state)
{
	struct aph_rx_rtt rtt = a_path();
	struct aph_rx_congest c;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_NEWRENO, 0);
	c.cwnd = 100;
	aph_rx_congest_on_loss(&c, 1, 500, 600, 100, &rtt);
	assert_int_equal(c.ssthresh, 50);
	assert_int_equal(c.cwnd, 50);
	assert_true(c.in_recovery);
	/* More of the same flight: nothing. */
	aph_rx_congest_on_loss(&c, 20, 510, 620, 80, &rtt);
	aph_rx_congest_on_loss(&c, 1, 599, 620, 60, &rtt);
	assert_int_equal(c.cwnd, 50);
	/* A partial acknowledgement neither ends it nor lets it grow. */
	aph_rx_congest_on_ack(&c, 50, 598, 630, 50, &rtt, 0);
	assert_true(c.in_recovery);
	assert_int_equal(c.cwnd, 50);
	aph_rx_congest_on_ack(&c, 1, 600, 630, 50, &rtt, 0);
	assert_false(c.in_recovery);
	/* What was sent afterwards and is lost is a new event. */
	aph_rx_congest_on_loss(&c, 1, 601, 650, 50, &rtt);
	assert_int_equal(c.cwnd, 25);
}

static void never_below_the_minimum(void **state)
{
	struct aph_rx_rtt rtt = a_path();

	(void)state;
	for (int algorithm = APH_RX_CUBIC_TOLERANT; algorithm <= APH_RX_NEWRENO; algorithm++) {
		struct aph_rx_congest c;

		aph_rx_congest_init(&c, (enum aph_rx_congestion)algorithm, 0);
		for (uint32_t i = 0; i < 30; i++) {
			aph_rx_congest_on_loss(&c, 10, 100 * i + 1, 100 * i + 50, 10, &rtt);
			assert_true(c.cwnd >= APH_RX_CWND_MIN);
			assert_true(c.ssthresh >= APH_RX_CWND_MIN);
		}
		aph_rx_congest_on_timeout(&c, 4000, 0);
		assert_int_equal(c.cwnd, APH_RX_CWND_MIN);
		aph_rx_congest_on_idle(&c);
		assert_int_equal(c.cwnd, APH_RX_CWND_MIN);
	}
}

/* RFC 9438 with W_max = 1000: cwnd 700, K = cbrt(300 / 0.4) = 9.0856 s. */
static void cubic_curve(void **state)
{
	struct aph_rx_rtt rtt = a_path();
	struct aph_rx_congest c;
	uint32_t seq = 10000;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_CUBIC, 0);
	c.cwnd = 1000;
	aph_rx_congest_on_loss(&c, 1, seq, seq + 1000, 1000, &rtt);
	assert_int_equal(c.cwnd, 700);
	assert_int_equal(c.ssthresh, 700);
	assert_int_equal(c.w_max, 1000);
	seq += 1000;
	for (uint64_t ms = 0; ms <= 12000; ms += 100) {
		seq = a_round(&c, seq, &rtt, 1 * S + ms * MS);
		/* W(t) = 0.4 * (t - K)^3 + 1000, reached a round trip later. */
		if (ms == 100)
			assert_int_equal(c.k_ms, 9086);
		if (ms == 2000)
			assert_in_range(c.cwnd, 858, 876); /* W(2) = 857.8, W(2.1) = 863.6 */
		if (ms == 5000)
			assert_in_range(c.cwnd, 970, 976); /* W(5) = 972.7 */
		if (ms == 9000)
			assert_in_range(c.cwnd, 999, 1001);
		if (ms == 12000)
			assert_in_range(c.cwnd, 1007, 1013); /* W(12) = 1009.9 */
	}
}

static void cubic_fast_convergence(void **state)
{
	struct aph_rx_rtt rtt = a_path();
	struct aph_rx_congest c;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_CUBIC, 0);
	c.cwnd = 1000;
	aph_rx_congest_on_loss(&c, 1, 2000, 3000, 1000, &rtt);
	aph_rx_congest_on_loss(&c, 1, 3001, 4000, 700, &rtt);
	assert_int_equal(c.cwnd, 490);
	assert_int_equal(c.w_max, 595); /* 700 * (1 + 0.7) / 2 */
}

/* A short path: the Reno-friendly window is the larger one and leads. */
static void cubic_is_no_slower_than_reno(void **state)
{
	struct aph_rx_rtt rtt = { 0 };
	struct aph_rx_congest c;
	uint32_t seq = 1000;
	uint64_t now_ns = 1 * S;

	(void)state;
	aph_rx_rtt_sample(&rtt, 1 * MS, 0);
	aph_rx_congest_init(&c, APH_RX_CUBIC, 0);
	c.cwnd = 40;
	aph_rx_congest_on_loss(&c, 1, seq, seq + 40, 40, &rtt);
	assert_int_equal(c.cwnd, 28);
	seq += 40;
	for (int i = 0; i < 20; i++, now_ns += 1 * MS)
		seq = a_round(&c, seq, &rtt, now_ns);
	/* 28 + 20 * 9/17 = 38.6; the cubic curve alone would be at 29. */
	assert_in_range(c.cwnd, 37, 39);
}

/*
 * The friendly window is slow up to the window before the loss, not up to what fast convergence
 * makes of that: section 4.3.
 */
static void reno_friendly_up_to_the_window_of_before(void **state)
{
	struct aph_rx_rtt rtt = { 0 };
	struct aph_rx_congest c;
	uint32_t seq = 2000;
	uint64_t now_ns = 1 * S;

	(void)state;
	aph_rx_rtt_sample(&rtt, 1 * MS, 0);
	aph_rx_congest_init(&c, APH_RX_CUBIC, 0);
	c.cwnd = 100;
	aph_rx_congest_on_loss(&c, 1, seq, seq + 100, 100, &rtt);
	aph_rx_congest_on_loss(&c, 1, seq + 100, seq + 200, 70, &rtt);
	assert_int_equal(c.cwnd, 49);
	assert_int_equal(c.w_max, 59);
	seq += 200;
	for (int i = 0; i < 40; i++, now_ns += 1 * MS)
		seq = a_round(&c, seq, &rtt, now_ns);
	/* 49 + 39 * 9/17 = 69.6; from 59 on at one a round it would be 79. */
	assert_in_range(c.cwnd, 68, 71);
}

static void timeout_begins_anew(void **state)
{
	struct aph_rx_rtt rtt = a_path();
	struct aph_rx_congest c;
	uint32_t seq = 1;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_CUBIC, 0);
	c.cwnd = 100;
	aph_rx_congest_on_timeout(&c, 200, 100);
	assert_int_equal(c.cwnd, 2);
	assert_int_equal(c.ssthresh, 70);
	/* Again, nothing having passed in between: the threshold stays. */
	aph_rx_congest_on_timeout(&c, 200, 2);
	assert_int_equal(c.ssthresh, 70);
	/* Losses of before the time-out are not counted again. */
	aph_rx_congest_on_loss(&c, 50, 150, 200, 2, &rtt);
	assert_int_equal(c.ssthresh, 70);
	for (seq = 200; c.cwnd < 70;)
		seq = a_round(&c, seq, &rtt, 0);
	assert_in_range(c.cwnd, 70, 72);
	/*
	 * The curve begins there (section 4.8 of RFC 9438): in 2 s it adds 0.4 * 2^3 packets, not
	 * 15 and more.
	 */
	for (uint64_t ms = 0; ms < 2000; ms += 1000)
		seq = a_round(&c, seq, &rtt, S + ms * MS);
	assert_int_equal(c.k_ms, 0);
	assert_in_range(c.cwnd, 70, 76);
}

static void tolerance(void **state)
{
	struct aph_rx_rtt rtt = a_path();
	struct aph_rx_congest c;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_CUBIC_TOLERANT, 0);
	c.cwnd = 1000;
	/* Up to 2% of a flight without a queue: as if nothing had been. */
	for (uint32_t i = 0; i < 20; i++)
		aph_rx_congest_on_loss(&c, 1, 1000 + i, 3000, 1000, &rtt);
	assert_int_equal(c.cwnd, 1000);
	assert_false(c.in_recovery);
	aph_rx_congest_on_loss(&c, 1, 1020, 3000, 1000, &rtt);
	assert_int_equal(c.cwnd, 700);
	assert_true(c.in_recovery);

	/* One lost packet, and a queue. */
	aph_rx_congest_init(&c, APH_RX_CUBIC_TOLERANT, 0);
	c.cwnd = 1000;
	c.ssthresh = 1000;
	for (uint32_t i = 0; i < 10; i++) {
		aph_rx_rtt_sample(&rtt, 120 * MS, 0);
		aph_rx_congest_on_ack(&c, 1, 10 + i, 2000, 1000, &rtt, 0);
	}
	aph_rx_congest_on_loss(&c, 1, 1000, 3000, 1000, &rtt);
	assert_int_equal(c.cwnd, 700);

	/* The others take every loss for congestion. */
	rtt = a_path();
	aph_rx_congest_init(&c, APH_RX_CUBIC, 0);
	c.cwnd = 1000;
	aph_rx_congest_on_loss(&c, 1, 1000, 3000, 1000, &rtt);
	assert_int_equal(c.cwnd, 700);
}

static void idle_and_pacing(void **state)
{
	struct aph_rx_rtt rtt = { 0 };
	struct aph_rx_congest c;

	(void)state;
	aph_rx_congest_init(&c, APH_RX_CUBIC, 0);
	assert_int_equal(aph_rx_congest_interval_ns(&c, &rtt), 0);
	aph_rx_rtt_sample(&rtt, 999000, 0);
	assert_int_equal(aph_rx_congest_interval_ns(&c, &rtt), 0);
	rtt = a_path();
	assert_int_equal(aph_rx_congest_interval_ns(&c, &rtt), 5 * MS); /* 100 ms / (2 * 10) */
	c.cwnd = 100;
	c.ssthresh = 50;
	assert_int_equal(aph_rx_congest_interval_ns(&c, &rtt), 800000); /* 100 ms / 125 */
	aph_rx_congest_on_idle(&c);
	assert_int_equal(c.cwnd, 50);
	assert_int_equal(c.ssthresh, 75);
	for (int i = 0; i < 10; i++)
		aph_rx_congest_on_idle(&c);
	assert_int_equal(c.cwnd, 10);
}

/* -- a path ------------------------------------------------------------------------------------ */

#define IN_FLIGHT_MAX 16384

struct path {
	uint64_t packet_ns; /* the bottleneck takes so long for one */
	uint64_t delay_ns;  /* both ways, without the queue */
	uint32_t queue;	    /* packets */
	uint32_t loss;	    /* one of so many, 0: none */
	uint32_t per_ack;   /* packets that one acknowledgement is about */
};

struct outcome {
	double share;	       /* of what the bottleneck can carry, from `from_ns` on */
	double lost;	       /* of what was sent */
	uint32_t n_slow_start; /* packets lost before slow start had ended */
	double queue_ms;       /* mean time in the queue */
};

/*
 * A sender with endless data for `ns`. What is lost is counted and not repeated: only rates matter
 * here.
 */
static struct outcome run(enum aph_rx_congestion algorithm, const struct path *path, uint64_t ns,
			  uint64_t from_ns)
{
	static struct {
		uint64_t sent_ns, acked_ns;
		bool lost;
	} flight[IN_FLIGHT_MAX];
	struct aph_rx_congest c;
	struct aph_rx_rtt rtt = { 0 };
	struct outcome outcome = { 0 };
	uint64_t now_ns = 1 * S, start_ns = now_ns, free_ns = 0, next_ns = now_ns, queued_ns = 0;
	uint32_t base = 1, next = 1, n_sent = 0, n_lost = 0, n_done = 0;
	unsigned seed = 1;

	aph_rx_congest_init(&c, algorithm, 0);
	while (now_ns < start_ns + ns) {
		uint32_t in_flight = next - base, last;

		if (in_flight < c.cwnd &&
		    (base == next || next_ns <= flight[(next - 1 < base + path->per_ack - 1
								? next - 1
								: base + path->per_ack - 1) %
						       IN_FLIGHT_MAX]
							.acked_ns)) {
			uint64_t ahead_ns;
			bool lost;

			now_ns = next_ns > now_ns ? next_ns : now_ns;
			ahead_ns = free_ns > now_ns ? free_ns - now_ns : 0;
			lost = path->loss && (unsigned)rand_r(&seed) % path->loss == 0;
			if (ahead_ns > path->queue * path->packet_ns)
				lost = true;
			else
				free_ns = now_ns + ahead_ns + path->packet_ns;
			flight[next % IN_FLIGHT_MAX].sent_ns = now_ns;
			flight[next % IN_FLIGHT_MAX].acked_ns =
				now_ns + ahead_ns + path->packet_ns + path->delay_ns;
			flight[next % IN_FLIGHT_MAX].lost = lost;
			queued_ns += ahead_ns;
			n_sent++;
			next_ns = now_ns + aph_rx_congest_interval_ns(&c, &rtt);
			next++;
			aph_rx_congest_on_sent(&c, in_flight + 1 >= c.cwnd);
			continue;
		}
		/*
		 * An acknowledgement of per_ack packets, or of what there is; it tells the losses
		 * before it.
		 */
		last = next - base < path->per_ack ? next : base + path->per_ack;
		now_ns = flight[(last - 1) % IN_FLIGHT_MAX].acked_ns > now_ns
				 ? flight[(last - 1) % IN_FLIGHT_MAX].acked_ns
				 : now_ns;
		for (uint32_t seq = base; seq < last; seq++) {
			if (!flight[seq % IN_FLIGHT_MAX].lost)
				continue;
			n_lost++;
			if (c.cwnd < c.ssthresh)
				outcome.n_slow_start++;
			aph_rx_congest_on_loss(&c, 1, seq, next, next - base, &rtt);
		}
		for (uint32_t seq = base; seq < last; seq++) {
			if (flight[seq % IN_FLIGHT_MAX].lost)
				continue;
			n_done += now_ns >= start_ns + from_ns;
			if (seq + 1 == last)
				aph_rx_rtt_sample(
					&rtt, now_ns - flight[seq % IN_FLIGHT_MAX].sent_ns, now_ns);
			aph_rx_congest_on_ack(&c, 1, seq, next, next - base, &rtt, now_ns);
		}
		base = last;
		assert_in_range(c.cwnd, APH_RX_CWND_MIN, APH_RX_WINDOW_MAX);
	}
	outcome.share = (double)n_done * (double)path->packet_ns / (double)(ns - from_ns);
	outcome.lost = (double)n_lost / n_sent;
	outcome.queue_ms = (double)queued_ns / n_sent / 1e6;
	if (getenv("APH_TEST_VERBOSE"))
		print_message(
			"algorithm %d, loss 1/%u, queue %u: %.3f of the link, %.4f lost (%u in slow start), "
			"%.1f ms queued, cwnd %u\n",
			algorithm, path->loss, path->queue, outcome.share, outcome.lost,
			outcome.n_slow_start, outcome.queue_ms, c.cwnd);
	return outcome;
}

/* 1 Gbit/s and 50 ms, packets of 1468 bytes with all headers: 4257 of them fill it. */
static const struct path long_fat = {
	.packet_ns = 11744,
	.delay_ns = 50 * MS,
	.queue = 4257,
	.per_ack = 8,
};

static void fills_a_long_fat_path(void **state)
{
	(void)state;
	for (int algorithm = APH_RX_CUBIC_TOLERANT; algorithm <= APH_RX_CUBIC; algorithm++) {
		struct path path = long_fat;
		struct outcome outcome;

		outcome = run((enum aph_rx_congestion)algorithm, &path, 20 * S, 1 * S);
		assert_true(outcome.share > 0.9);
		path.queue = 1000;
		outcome = run((enum aph_rx_congestion)algorithm, &path, 20 * S, 1 * S);
		assert_true(outcome.share > 0.9);
		path.per_ack = 50;
		outcome = run((enum aph_rx_congestion)algorithm, &path, 20 * S, 1 * S);
		assert_true(outcome.share > 0.9);
	}
}

static void random_loss_on_a_long_fat_path(void **state)
{
	static const uint32_t queues[] = { 200, 1000, 4257 };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct path path = long_fat;
		struct outcome outcome;

		path.queue = queues[i];
		path.loss = 1000;
		outcome = run(APH_RX_CUBIC_TOLERANT, &path, 20 * S, 2 * S);
		assert_true(outcome.share > 0.75);
		/* What the tolerance is for. */
		outcome = run(APH_RX_CUBIC, &path, 20 * S, 2 * S);
		assert_true(outcome.share < 0.2);
	}
}

static void slow_start_ends_before_the_queue_overflows(void **state)
{
	struct path path = long_fat;
	struct outcome outcome;

	(void)state;
	outcome = run(APH_RX_CUBIC_TOLERANT, &path, 2 * S, 1 * S);
	assert_true(outcome.n_slow_start == 0);
	assert_true(outcome.share > 0.9);
	/* 100 Mbit/s, 20 ms: 170 packets fill it. */
	path = (struct path){
		.packet_ns = 117440, .delay_ns = 20 * MS, .queue = 170, .per_ack = 2
	};
	outcome = run(APH_RX_CUBIC_TOLERANT, &path, 2 * S, 1 * S);
	assert_true(outcome.n_slow_start == 0);
	assert_true(outcome.share > 0.9);
}

/* Where losses do mean congestion the tolerance gives way: a shallow queue is not flooded. */
static void shallow_queue_is_not_flooded(void **state)
{
	static const uint32_t queues[] = { 10, 40, 100, 300 };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct path path = long_fat;
		struct outcome outcome;

		path.queue = queues[i];
		outcome = run(APH_RX_CUBIC_TOLERANT, &path, 20 * S, 1 * S);
		assert_true(outcome.lost < 0.04);
		assert_true(outcome.share > 0.6);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_start_doubles),
		cmocka_unit_test(short_path_needs_little),
		cmocka_unit_test(known_threshold),
		cmocka_unit_test(what_was_learnt),
		cmocka_unit_test(unused_window_does_not_grow),
		cmocka_unit_test(newreno_halves_once),
		cmocka_unit_test(never_below_the_minimum),
		cmocka_unit_test(cubic_curve),
		cmocka_unit_test(cubic_fast_convergence),
		cmocka_unit_test(cubic_is_no_slower_than_reno),
		cmocka_unit_test(reno_friendly_up_to_the_window_of_before),
		cmocka_unit_test(timeout_begins_anew),
		cmocka_unit_test(tolerance),
		cmocka_unit_test(idle_and_pacing),
		cmocka_unit_test(fills_a_long_fat_path),
		cmocka_unit_test(random_loss_on_a_long_fat_path),
		cmocka_unit_test(slow_start_ends_before_the_queue_overflows),
		cmocka_unit_test(shallow_queue_is_not_flooded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
