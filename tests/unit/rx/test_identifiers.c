/* SPDX-License-Identifier: MIT */
/*
 * The numbers that a client's end makes up: random where strangers would have to guess them, and
 * never 0.
 */
#include "rig.h"

#define ENGINES 200
#define SERVICE 4

/* The header of the first packet of an engine's first call. */
static void first_packet(uint32_t *epoch, uint32_t *cid, uint32_t *number)
{
	const struct aph_rx_path path = a_path("10.0.0.2", 7000);
	struct aph_rx *rx = an_engine(0);
	struct aph_rx_message message;
	struct aph_rx_client *client;
	struct aph_rx_call *call;
	uint32_t words[3];

	assert_int_equal(aph_rx_client_new(&client, rx, &path, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_call_new(&call, client, NULL), 0);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	assert_int_equal(aph_rx_send(rx, &message, 1, now_ns), 1);
	assert_true(message.iov[0].iov_len >= sizeof(words));
	memcpy(words, message.iov[0].iov_base, sizeof(words));
	*epoch = ntohl(words[0]);
	*cid = ntohl(words[1]);
	*number = ntohl(words[2]);
	(void)aph_rx_call_free(call);
	aph_rx_free(rx);
}

static void made_up(void **state)
{
	uint32_t epochs[ENGINES], cids[ENGINES], all_epochs = 0, all_cids = 0, number;

	(void)state;
	for (unsigned i = 0; i < ENGINES; i++) {
		first_packet(&epochs[i], &cids[i], &number);
		/* Bit 31: it is random. 999 and the like are for packets outside connections. */
		assert_int_equal(epochs[i] >> 30, 2);
		assert_int_not_equal(cids[i], 0);
		assert_int_equal(cids[i] & 3, 0);
		assert_int_equal(number, 1);
		all_epochs |= epochs[i] ^ epochs[0];
		all_cids |= cids[i] ^ cids[0];
		for (unsigned j = 0; j < i; j++)
			assert_true(epochs[j] != epochs[i] && cids[j] != cids[i]);
	}
	/* Each bit that may differ does. */
	assert_int_equal(all_epochs, 0x3fffffff);
	assert_int_equal(all_cids, 0xfffffffc);
}

/* Whoever knows some of an engine's connections knows nothing of the others. */
static void connections_of_one_engine(void **state)
{
	const struct aph_rx_path path = a_path("10.0.0.2", 7000);
	struct aph_rx *rx = an_engine(0);
	uint32_t cids[ENGINES], all_steps = 0;

	(void)state;
	for (unsigned i = 0; i < ENGINES; i++) {
		struct aph_rx_client *client;
		struct aph_rx_call_info info;
		struct aph_rx_call *call;

		assert_int_equal(aph_rx_client_new(&client, rx, &path, SERVICE, NULL), 0);
		assert_int_equal(aph_rx_call_new(&call, client, NULL), 0);
		aph_rx_call_info(call, &info);
		cids[i] = info.cid;
		assert_int_not_equal(cids[i], 0);
		assert_int_equal(cids[i] & 3, 0);
		if (i > 0)
			all_steps |= (cids[i] - cids[i - 1]) ^ (cids[1] - cids[0]);
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(cids[j], cids[i]);
		(void)aph_rx_call_free(call);
	}
	assert_int_equal(all_steps, 0xfffffffc);
	aph_rx_free(rx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(made_up),
		cmocka_unit_test(connections_of_one_engine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
