/* SPDX-License-Identifier: MIT */
/*
 * What arrives is looked at only after a while, if that is wanted: in order, all of it, and no
 * sooner.
 */
#include "stranger.h"

#define DELAY_MS 100

static void begin_slowly(struct host *h)
{
	struct aph_rx_config config = a_config(0);

	config.receive_delay_ms = DELAY_MS;
	begin_with(h, &config);
}

static void later(struct host *h, uint64_t ns)
{
	now_ns += ns;
	aph_rx_tick(h->rx, now_ns);
}

static void after_a_while(void **state)
{
	const struct client c = a_client(1);
	struct aph_rx_call *call;
	struct aph_rx_stats stats;
	struct host h;
	char text[8];

	(void)state;
	begin_slowly(&h);
	send_data(&h, &c, 0, 1, 0, 3);
	assert_int_equal(aph_rx_deadline(h.rx), now_ns + DELAY_MS * MS);
	later(&h, 60 * MS);
	send_data(&h, &c, 0, 2, LAST, 3);
	later(&h, 40 * MS - 1);
	assert_false(aph_rx_has_event(h.rx));
	look(&h);
	assert_int_equal(h.n_bytes, 0);
	later(&h, 1);
	call = next_call(&h);
	assert_int_equal(aph_rx_call_available(call), 3);
	assert_false(aph_rx_call_is_complete(call));
	later(&h, 60 * MS);
	assert_true(aph_rx_call_is_complete(call));
	assert_int_equal(aph_rx_call_read(call, text, sizeof(text), 0), 6);
	aph_rx_get_stats(h.rx, &stats);
	assert_int_equal(stats.packets_received[APH_RX_DATA], 2);
	(void)aph_rx_call_free(call);
	end(&h);
}

/*
 * Whoever sends faster than that loses what is too much, and what was never looked at is given
 * back.
 */
static void not_without_end(void **state)
{
	const struct client c = a_client(1);
	struct aph_rx_stats before, after;
	struct host h;

	(void)state;
	begin_slowly(&h);
	aph_rx_get_stats(h.rx, &before);
	for (uint32_t i = 0; i < 4000; i++)
		send_data(&h, &c, 0, 2, 0, 1412);
	aph_rx_get_stats(h.rx, &after);
	assert_in_range(after.memory - before.memory, 3u << 20, 4u << 20);
	later(&h, DELAY_MS * MS);
	aph_rx_get_stats(h.rx, &after);
	assert_in_range(after.packets_received[APH_RX_DATA], 2000, 3999);
	assert_true(after.memory - before.memory < 1u << 20);
	send_data(&h, &c, 0, 2, 0, 1412);
	end(&h);
}

static void count(void *arg, const struct aph_rx_trace *trace)
{
	unsigned *n = arg;

	assert_int_equal(trace->type, APH_RX_TRACE_DROPPED);
	assert_in_range(trace->len, 1, 1000);
	++*n;
}

/* What is too much of a run is told packet by packet, as all that is traced. */
static void a_run_too_many(void **state)
{
	struct aph_rx_config config = a_config(0);
	const struct client c = a_client(1);
	static const uint8_t run[60500];
	unsigned n = 0;
	struct host h;

	(void)state;
	config.receive_delay_ms = DELAY_MS;
	config.trace = count;
	config.trace_arg = &n;
	begin_with(&h, &config);
	for (unsigned i = 0; i < 100; i++)
		aph_rx_receive(h.rx, &c.path, run, sizeof(run), 1000, NULL, now_ns);
	assert_in_range(n, 61, 61 * 99);
	assert_int_equal(n % 61, 0);
	end(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_a_while),
		cmocka_unit_test(not_without_end),
		cmocka_unit_test(a_run_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
