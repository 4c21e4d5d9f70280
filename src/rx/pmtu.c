/* SPDX-License-Identifier: MIT */
/*
 * The search for the path's MTU. Packets carry 1412 bytes at most, so that the sizes that matter
 * are those of whole jumbograms, 1440 + n * 1416, and below that any size; the search counts in
 * ranks: steps of 20 bytes up to 1440, one jumbogram packet each from there. The largest size is
 * tried first, because where it is larger than the interface takes our own kernel says so at once;
 * then the interval between what passes and what does not is halved until nothing is left between.
 */
#include "rx/pmtu.h"

#define STEP	     20u
#define PACKET	     1440u /* the largest one that is not a jumbogram: 28 + 1412 */
#define RANK_PACKET  ((PACKET - APH_RX_MTU_FLOOR) / STEP)
#define JUMBO_STEP   1416u
#define TRIES_MAX    3
#define BLACK_MAX    3
#define CAUTIOUS     1200 /* passes nearly everywhere, and unfragmented over IPv6 everywhere */
#define SEARCH_AGAIN UINT64_C(600000000000) /* RFC 8899's PMTU_RAISE_TIMER */

static unsigned rank_of(unsigned size)
{
	if (size >= PACKET)
		return RANK_PACKET + (size - PACKET) / JUMBO_STEP;
	return size > APH_RX_MTU_FLOOR ? (size - APH_RX_MTU_FLOOR) / STEP : 0;
}

static uint16_t size_of(unsigned rank)
{
	if (rank >= RANK_PACKET)
		return (uint16_t)(PACKET + (rank - RANK_PACKET) * JUMBO_STEP);
	return (uint16_t)(APH_RX_MTU_FLOOR + rank * STEP);
}

static uint16_t clamp(uint32_t size)
{
	if (size < APH_RX_MTU_FLOOR)
		return APH_RX_MTU_FLOOR;
	return size < APH_RX_MTU_MAX ? (uint16_t)size : APH_RX_MTU_MAX;
}

static void stop_probe(struct aph_rx_pmtu *pmtu)
{
	pmtu->probing = 0;
	pmtu->n_tries = 0;
}

void aph_rx_pmtu_init(struct aph_rx_pmtu *pmtu, uint16_t initial)
{
	*pmtu = (struct aph_rx_pmtu){
		.current = clamp(initial),
		.peer_max = clamp(initial),
	};
}

void aph_rx_pmtu_set_peer_max(struct aph_rx_pmtu *pmtu, uint32_t max_mtu)
{
	uint16_t max = clamp(max_mtu);

	if (max == pmtu->peer_max)
		return;
	if (max > pmtu->peer_max)
		pmtu->done = false;
	pmtu->peer_max = max;
	if (pmtu->current > max)
		pmtu->current = max;
	if (pmtu->probing > max)
		stop_probe(pmtu);
}

uint16_t aph_rx_pmtu_probe(struct aph_rx_pmtu *pmtu, uint64_t now_ns)
{
	unsigned low, high;

	if (pmtu->probing)
		return 0;
	if (pmtu->done) {
		if (now_ns < pmtu->search_ns)
			return 0;
		/* Routes change: what did not pass then may pass now. */
		pmtu->done = false;
		pmtu->too_large = 0;
	}
	low = rank_of(pmtu->current);
	high = rank_of(pmtu->peer_max);
	if (pmtu->too_large && rank_of(pmtu->too_large - 1u) < high)
		high = rank_of(pmtu->too_large - 1u);
	if (high <= low) {
		pmtu->done = true;
		pmtu->search_ns = now_ns + SEARCH_AGAIN;
		return 0;
	}
	pmtu->probing = size_of(pmtu->too_large ? (low + high + 1) / 2 : high);
	return pmtu->probing;
}

void aph_rx_pmtu_probe_acked(struct aph_rx_pmtu *pmtu)
{
	if (pmtu->probing > pmtu->current)
		pmtu->current = pmtu->probing;
	if (pmtu->too_large && pmtu->too_large <= pmtu->current)
		pmtu->too_large = 0;
	stop_probe(pmtu);
	pmtu->n_black = 0;
}

void aph_rx_pmtu_probe_lost(struct aph_rx_pmtu *pmtu)
{
	if (!pmtu->probing)
		return;
	if (++pmtu->n_tries < TRIES_MAX) {
		/* The next probe is the same one: nothing that it depends on has changed. */
		pmtu->probing = 0;
		return;
	}
	pmtu->too_large = pmtu->probing;
	stop_probe(pmtu);
}

/* What to believe passes when a report only says that `size` does not. */
static uint32_t next_below(uint32_t size)
{
	if (size > PACKET)
		return size / 2 > PACKET ? size / 2 : PACKET;
	return size > APH_RX_MTU_FLOOR + 100 ? size - 100 : APH_RX_MTU_FLOOR;
}

void aph_rx_pmtu_too_large(struct aph_rx_pmtu *pmtu, uint32_t mtu)
{
	uint16_t fits;

	if (mtu == 0 && pmtu->probing) {
		pmtu->too_large = pmtu->probing;
		stop_probe(pmtu);
		return;
	}
	fits = clamp(mtu ? mtu : next_below(pmtu->current));
	if (fits >= pmtu->current && fits >= pmtu->probing)
		return; /* nothing of ours is larger: stale, or not about us */
	if (fits < pmtu->current)
		pmtu->current = fits;
	if (fits < pmtu->probing)
		stop_probe(pmtu);
	pmtu->too_large = (uint16_t)(fits + 1u);
	pmtu->done = false;
}

/* Where to go when datagrams of `size` do not pass any more and nobody says why. */
static uint16_t step_down(uint16_t size)
{
	if (size > PACKET)
		return PACKET;
	return size > CAUTIOUS ? CAUTIOUS : APH_RX_MTU_FLOOR;
}

void aph_rx_pmtu_arrived(struct aph_rx_pmtu *pmtu, uint16_t size)
{
	if (pmtu->n_black && size >= pmtu->black)
		pmtu->n_black = 0;
}

void aph_rx_pmtu_lost(struct aph_rx_pmtu *pmtu, uint16_t size)
{
	uint16_t below;

	if (size <= APH_RX_MTU_FLOOR || size > pmtu->current)
		return;
	if (!pmtu->n_black || size < pmtu->black)
		pmtu->black = size;
	if (++pmtu->n_black < BLACK_MAX)
		return;
	pmtu->n_black = 0;
	below = step_down(pmtu->black);
	if (below < pmtu->current)
		pmtu->current = below;
	/*
	 * It may as well be that nothing at all passed for a while. So nothing is concluded about
	 * the sizes above; once packets pass again the search begins at the top.
	 */
	pmtu->too_large = 0;
	pmtu->done = false;
	stop_probe(pmtu);
}
