/* SPDX-License-Identifier: MIT */
/* How calls end at both ends, in corners of their lives: one end each, and the two agree. */
#include "two.h"

/* Too long for one ACK to be the last word, and short enough for the first window. */
static const uint8_t reply[10000];

/* A user may take time before it says something: the server's silence until then means nothing. */
static void a_late_first_word(void **state)
{
	const struct aph_rx_config config = a_config(0);
	struct aph_rx_call *call;
	struct two t;

	(void)state;
	two_begin(&t, &config);
	assert_int_equal(aph_rx_call_new(&call, t.client, NULL), 0);
	two_pass(&t, 20 * S);
	assert_int_equal(t.n_carried, 0);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	/* The network loses it. */
	assert_int_equal(deliver(t.ours, NULL, NULL), 1);
	two_pass(&t, 3 * S);
	assert_false(aph_rx_has_event(t.ours));
	(void)aph_rx_call_free(expect(t.theirs, APH_RX_EVENT_CALL).call);
	(void)aph_rx_call_free(call);
	two_end(&t);
}

/* As before, but nobody ever answers. */
static void a_late_first_word_to_nobody(void **state)
{
	const struct aph_rx_config config = a_config(0);
	struct aph_rx_event event;
	struct aph_rx_call *call;
	struct two t;

	(void)state;
	two_begin(&t, &config);
	assert_int_equal(aph_rx_call_new(&call, t.client, NULL), 0);
	two_pass(&t, 20 * S);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	for (unsigned i = 0; i < 118; i++) {
		(void)deliver(t.ours, NULL, NULL);
		now_ns += 100 * MS;
		aph_rx_tick(t.ours, now_ns);
	}
	assert_false(aph_rx_has_event(t.ours));
	now_ns += 300 * MS;
	aph_rx_tick(t.ours, now_ns);
	event = expect(t.ours, APH_RX_EVENT_END);
	assert_int_equal(event.end.outcome, APH_RX_TIMED_OUT);
	assert_int_equal(event.end.code, APH_RX_CALL_DEAD);
	(void)aph_rx_call_free(call);
	two_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_late_first_word),
		cmocka_unit_test(a_late_first_word_to_nobody),
	};

	return cmocka_run_group_tests_name("rx ends", tests, NULL, NULL);
}
