/* SPDX-License-Identifier: MIT */
/* How long connections of ours are kept that have no call. */
#include "rig.h"

#include <errno.h>

#define SERVICE	    4
#define CONNECTIONS 12

static uint64_t connections(const struct aph_rx *rx)
{
	struct aph_rx_stats stats;

	aph_rx_get_stats(rx, &stats);
	return stats.n_client_connections;
}

/* An engine with a connection to each of several peers, whose calls were given up. */
static struct aph_rx *with_connections(const struct aph_rx_config *config)
{
	struct aph_rx_message message;
	struct aph_rx *rx;

	assert_int_equal(aph_rx_new(&rx, config, now_ns), 0);
	for (uint16_t i = 0; i < CONNECTIONS; i++) {
		const struct aph_rx_path path = a_path("10.0.0.2", (uint16_t)(7000 + i));
		struct aph_rx_client *client;
		struct aph_rx_call *call;

		assert_int_equal(aph_rx_client_new(&client, rx, &path, SERVICE, NULL), 0);
		assert_int_equal(aph_rx_call_new(&call, client, NULL), 0);
		assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
		while (aph_rx_send(rx, &message, 1, now_ns) == 1)
			;
		(void)aph_rx_call_free(call);
		while (aph_rx_send(rx, &message, 1, now_ns) == 1)
			;
	}
	assert_int_equal(connections(rx), CONNECTIONS);
	return rx;
}

static void pass(struct aph_rx *rx, uint64_t ns)
{
	for (uint64_t end = now_ns + ns; now_ns < end; now_ns += S)
		aph_rx_tick(rx, now_ns);
	aph_rx_tick(rx, now_ns);
}

static void two_minutes(void **state)
{
	const struct aph_rx_config config = a_config(0);
	struct aph_rx *rx = with_connections(&config);

	(void)state;
	pass(rx, 119 * S);
	assert_int_equal(connections(rx), CONNECTIONS);
	pass(rx, 2 * S);
	assert_int_equal(connections(rx), 0);
	aph_rx_free(rx);
}

/* In a crowd those that have been idle longest go soon, until it is none. */
static void a_crowd(void **state)
{
	struct aph_rx_config config = a_config(0);
	struct aph_rx *rx;

	(void)state;
	config.crowd = 5;
	rx = with_connections(&config);
	pass(rx, S);
	assert_int_equal(connections(rx), CONNECTIONS);
	pass(rx, 2 * S);
	assert_int_equal(connections(rx), 5);
	pass(rx, 100 * S);
	assert_int_equal(connections(rx), 5);
	pass(rx, 20 * S);
	assert_int_equal(connections(rx), 0);
	aph_rx_free(rx);
}

/* One that failed is of no use: it goes at once, and does not keep others from going. */
static void failed(void **state)
{
	struct aph_rx_config config = a_config(0);
	const struct aph_rx_path path = a_path("10.0.0.3", 7000);
	struct aph_rx_message message;
	struct aph_rx_client *client;
	struct aph_rx_call *call;
	struct aph_rx *rx;

	(void)state;
	/* As soon after the start as can be. */
	now_ns = 0;
	config.crowd = 5;
	rx = with_connections(&config);
	assert_int_equal(aph_rx_client_new(&client, rx, &path, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_call_new(&call, client, NULL), 0);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	assert_int_equal(aph_rx_send(rx, &message, 1, now_ns), 1);
	assert_int_equal(connections(rx), CONNECTIONS + 1);
	aph_rx_receive_error(rx, &path, EPERM, 0, NULL, 0, true, now_ns);
	(void)aph_rx_call_free(call);
	pass(rx, 3 * S);
	assert_int_equal(connections(rx), 5);
	aph_rx_free(rx);
}

/* Nor is one that had its only call of use for long. */
static void exclusive(void **state)
{
	const struct aph_rx_call_options options = { .size = sizeof(options),
						     .flags = APH_RX_CALL_EXCLUSIVE };
	const struct aph_rx_path path = a_path("10.0.0.3", 7000);
	const struct aph_rx_config config = a_config(0);
	struct aph_rx *rx = with_connections(&config);
	struct aph_rx_client *client;

	(void)state;
	assert_int_equal(aph_rx_client_new(&client, rx, &path, SERVICE, NULL), 0);
	for (unsigned i = 0; i < 100; i++) {
		struct aph_rx_call *call;

		assert_int_equal(aph_rx_call_new(&call, client, &options), 0);
		assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
		(void)deliver(rx, NULL, NULL);
		(void)aph_rx_call_free(call);
		(void)deliver(rx, NULL, NULL);
	}
	/* Its server may not have heard what became of it. */
	pass(rx, 11 * S);
	assert_int_equal(connections(rx), CONNECTIONS + 100);
	pass(rx, 2 * S);
	assert_int_equal(connections(rx), CONNECTIONS);
	aph_rx_free(rx);
}

/* As a driver does: it looks when something is due. */
static void sleep_until(struct aph_rx *rx, uint64_t end_ns)
{
	for (uint64_t due; (due = aph_rx_deadline(rx)) < end_ns;) {
		now_ns = due > now_ns ? due : now_ns;
		aph_rx_tick(rx, now_ns);
		(void)deliver(rx, NULL, NULL);
	}
	now_ns = end_ns;
}

/* Who calls now and then tells the engine the time as seldom: that is no clock that has jumped. */
static void calls_now_and_then(void **state)
{
	const struct aph_rx_call_options limits = { .size = sizeof(limits), .hard_ms = 1000 };
	const struct aph_rx_path path = a_path("10.0.0.3", 7000);
	const struct aph_rx_config config = a_config(0);
	struct aph_rx *rx = with_connections(&config);
	struct aph_rx_client *client;

	(void)state;
	assert_int_equal(aph_rx_client_new(&client, rx, &path, SERVICE, NULL), 0);
	for (unsigned i = 0; i < 6; i++) {
		struct aph_rx_call *call;

		assert_int_equal(aph_rx_call_new(&call, client, i % 2 ? &limits : NULL), 0);
		assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
		(void)deliver(rx, NULL, NULL);
		(void)aph_rx_call_free(call);
		(void)deliver(rx, NULL, NULL);
		sleep_until(rx, now_ns + 30 * S);
	}
	assert_int_equal(connections(rx), 1);
	aph_rx_free(rx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_minutes),
		cmocka_unit_test(a_crowd),
		cmocka_unit_test(failed),
		cmocka_unit_test(exclusive),
		cmocka_unit_test(calls_now_and_then),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
