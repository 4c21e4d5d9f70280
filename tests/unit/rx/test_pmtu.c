/* SPDX-License-Identifier: MIT */
/*
 * The search for the path's MTU, on paths of every size, with reports, without, and with false
 * ones.
 */
#include "rx/pmtu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MINUTE UINT64_C(60000000000)

/*
 * Probes until nothing is left to find out. Returns the number of probes. `lose` says which ones
 * get lost.
 */
static unsigned search(struct aph_rx_pmtu *pmtu, unsigned path, bool reports, unsigned lose,
		       uint64_t now_ns)
{
	unsigned n = 0;
	uint16_t size;

	while ((size = aph_rx_pmtu_probe(pmtu, now_ns)) != 0) {
		assert_true(size > pmtu->current);
		assert_true(size <= pmtu->peer_max);
		assert_int_equal(aph_rx_pmtu_probe(pmtu, now_ns), 0); /* one at a time */
		n++;
		if (size > path && reports)
			aph_rx_pmtu_too_large(pmtu, path);
		else if (size > path || (lose && n % lose == 0))
			aph_rx_pmtu_probe_lost(pmtu);
		else
			aph_rx_pmtu_probe_acked(pmtu);
		assert_true(n < 100);
	}
	assert_true(pmtu->done);
	return n;
}

static unsigned useful(unsigned path)
{
	return path < 1440 ? path - path % 20 : 1440 + (path - 1440) / 1416 * 1416;
}

static void nothing_before_the_peer_says(void **state)
{
	struct aph_rx_pmtu pmtu;

	(void)state;
	aph_rx_pmtu_init(&pmtu, 1444);
	assert_int_equal(pmtu.current, 1444);
	assert_int_equal(aph_rx_pmtu_probe(&pmtu, 0), 0);
}

static void every_path(void **state)
{
	(void)state;
	for (int reports = 0; reports < 2; reports++) {
		for (unsigned path = 1440; path <= APH_RX_MTU_MAX; path += 53) {
			struct aph_rx_pmtu pmtu;
			unsigned n;

			aph_rx_pmtu_init(&pmtu, 1440);
			aph_rx_pmtu_set_peer_max(&pmtu, APH_RX_MTU_MAX);
			n = search(&pmtu, path, reports, 0, 0);
			/* What was reported is known to the byte, and counts in whole packets. */
			assert_int_equal(useful(pmtu.current), useful(path));
			assert_true(n <= (reports ? 8 : 24));
		}
	}
}

static void ethernet_is_known_at_once(void **state)
{
	struct aph_rx_pmtu pmtu;

	(void)state;
	aph_rx_pmtu_init(&pmtu, 1444);
	aph_rx_pmtu_set_peer_max(&pmtu, 65160);
	assert_int_equal(search(&pmtu, 1472, true, 0, 0), 1);
	assert_int_equal(pmtu.current, 1444);
	/* And again after ten minutes, not before. */
	assert_int_equal(aph_rx_pmtu_probe(&pmtu, 9 * MINUTE), 0);
	assert_int_equal(aph_rx_pmtu_probe(&pmtu, 10 * MINUTE), 65160);
}

static void lost_probes_are_repeated(void **state)
{
	struct aph_rx_pmtu pmtu;

	(void)state;
	aph_rx_pmtu_init(&pmtu, 1444);
	aph_rx_pmtu_set_peer_max(&pmtu, 65160);
	(void)search(&pmtu, 8972, false, 2, 0);
	assert_int_equal(pmtu.current, 1440 + 5 * 1416);
}

static void peer_limits(void **state)
{
	struct aph_rx_pmtu pmtu;

	(void)state;
	aph_rx_pmtu_init(&pmtu, 1444);
	aph_rx_pmtu_set_peer_max(&pmtu, 5692);
	assert_int_equal(aph_rx_pmtu_probe(&pmtu, 0), 5688);
	/* It says less while the probe is under way: the answer of that counts no more. */
	aph_rx_pmtu_set_peer_max(&pmtu, 1444);
	assert_int_equal(pmtu.probing, 0);
	aph_rx_pmtu_probe_acked(&pmtu);
	assert_int_equal(pmtu.current, 1444);
	aph_rx_pmtu_set_peer_max(&pmtu, 5692);
	(void)search(&pmtu, 60000, false, 0, 0);
	assert_int_equal(pmtu.current, 5688);
	/* Forged words end at the limits. */
	aph_rx_pmtu_set_peer_max(&pmtu, 0);
	assert_int_equal(pmtu.current, APH_RX_MTU_FLOOR);
	aph_rx_pmtu_set_peer_max(&pmtu, UINT32_MAX);
	assert_int_equal(pmtu.peer_max, APH_RX_MTU_MAX);
	assert_int_equal(search(&pmtu, 65507, false, 0, 0), 1);
	assert_int_equal(pmtu.current, APH_RX_MTU_MAX);
}

static void reports(void **state)
{
	struct aph_rx_pmtu pmtu;

	(void)state;
	aph_rx_pmtu_init(&pmtu, 1444);
	aph_rx_pmtu_set_peer_max(&pmtu, 65160);
	(void)search(&pmtu, 65160, false, 0, 0);
	aph_rx_pmtu_too_large(&pmtu, 1252);
	assert_int_equal(pmtu.current, 1252);
	/*
	 * A later one that claims more is stale; one without a size, or with an absurd one, ends
	 * somewhere.
	 */
	aph_rx_pmtu_too_large(&pmtu, 9000);
	assert_int_equal(pmtu.current, 1252);
	(void)search(&pmtu, 1252, false, 0, 0);
	assert_int_equal(pmtu.current, 1252);
	for (int i = 0; i < 20; i++)
		aph_rx_pmtu_too_large(&pmtu, 0);
	assert_int_equal(pmtu.current, APH_RX_MTU_FLOOR);
	aph_rx_pmtu_too_large(&pmtu, 1);
	assert_int_equal(pmtu.current, APH_RX_MTU_FLOOR);
	assert_int_equal(aph_rx_pmtu_probe(&pmtu, MINUTE), 0);
	/* All of it was a lie, or the route has changed: found out later. */
	(void)search(&pmtu, 1400, false, 0, 11 * MINUTE);
	assert_int_equal(pmtu.current, 1400);
}

static void report_without_size_means_the_probe(void **state)
{
	struct aph_rx_pmtu pmtu;

	(void)state;
	aph_rx_pmtu_init(&pmtu, 1444);
	aph_rx_pmtu_set_peer_max(&pmtu, 65160);
	assert_int_equal(aph_rx_pmtu_probe(&pmtu, 0), 65160);
	aph_rx_pmtu_too_large(&pmtu, 0);
	assert_int_equal(pmtu.current, 1444);
	assert_int_equal(pmtu.too_large, 65160);
}

static void black_hole(void **state)
{
	struct aph_rx_pmtu pmtu;

	(void)state;
	aph_rx_pmtu_init(&pmtu, 1444);
	aph_rx_pmtu_set_peer_max(&pmtu, 65160);
	(void)search(&pmtu, 8972, true, 0, 0);
	/* Small ones that pass say nothing; what is larger than what is sent anyway is stale. */
	for (int i = 0; i < 2; i++)
		aph_rx_pmtu_lost(&pmtu, 1440 + 4 * 1416);
	aph_rx_pmtu_arrived(&pmtu, 1440);
	aph_rx_pmtu_lost(&pmtu, 65160);
	assert_int_equal(useful(pmtu.current), 1440 + 5 * 1416);
	/* One as large does. */
	aph_rx_pmtu_arrived(&pmtu, 1440 + 4 * 1416);
	for (int i = 0; i < 2; i++)
		aph_rx_pmtu_lost(&pmtu, 1440 + 5 * 1416);
	assert_int_equal(useful(pmtu.current), 1440 + 5 * 1416);
	aph_rx_pmtu_lost(&pmtu, 1440 + 5 * 1416);
	assert_int_equal(pmtu.current, 1440);
	for (int i = 0; i < 3; i++)
		aph_rx_pmtu_lost(&pmtu, 1440);
	assert_int_equal(pmtu.current, 1200);
	for (int i = 0; i < 3; i++)
		aph_rx_pmtu_lost(&pmtu, 501);
	assert_int_equal(pmtu.current, APH_RX_MTU_FLOOR);
	for (int i = 0; i < 3; i++)
		aph_rx_pmtu_lost(&pmtu, APH_RX_MTU_FLOOR);
	assert_int_equal(pmtu.current, APH_RX_MTU_FLOOR);
	/* It was an outage: the first probe that passes brings all of it back. */
	assert_int_equal(search(&pmtu, 65507, false, 0, 0), 1);
	assert_int_equal(pmtu.current, 65160);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_before_the_peer_says),
		cmocka_unit_test(every_path),
		cmocka_unit_test(ethernet_is_known_at_once),
		cmocka_unit_test(lost_probes_are_repeated),
		cmocka_unit_test(peer_limits),
		cmocka_unit_test(reports),
		cmocka_unit_test(report_without_size_means_the_probe),
		cmocka_unit_test(black_hole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
