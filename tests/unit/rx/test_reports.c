/* SPDX-License-Identifier: MIT */
/*
 * What the network says about packets of ours, and what those say who have not seen any; and what
 * a server says that does not tell of which packet.
 */
#include "rx/wire.h"

#include "rig.h"

#include <errno.h>

#define SERVICE 147

/* A client that has sent a request, and its packet. */
struct caller {
	struct aph_rx *rx;
	struct aph_rx_path path;
	struct aph_rx_client *client;
	struct aph_rx_call *call;
	uint8_t sent[APH_RX_HEADER];
};

static void begin(struct caller *c)
{
	struct aph_rx_message message;

	c->rx = an_engine(0);
	c->path = a_path("10.0.0.2", 7000);
	assert_int_equal(aph_rx_client_new(&c->client, c->rx, &c->path, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_call_new(&c->call, c->client, NULL), 0);
	assert_int_equal(aph_rx_call_write(c->call, "request", 7, 0), 7);
	assert_int_equal(aph_rx_send(c->rx, &message, 1, now_ns), 1);
	assert_true(message.iov[0].iov_len >= APH_RX_HEADER);
	memcpy(c->sent, message.iov[0].iov_base, APH_RX_HEADER);
}

static void end(struct caller *c)
{
	(void)aph_rx_call_free(c->call);
	(void)aph_rx_client_free(c->client);
	(void)aph_rx_free(c->rx);
}

/* Whether the report ends the call. */
static bool ends(struct caller *c, const uint8_t *quote, size_t len, bool local)
{
	struct aph_rx_event event;

	aph_rx_receive_error(c->rx, &c->path, ECONNREFUSED, 0, quote, len, local, now_ns);
	if (!aph_rx_next(c->rx, &event))
		return false;
	assert_int_equal(event.type, APH_RX_EVENT_END);
	assert_int_equal(event.end.outcome, local ? APH_RX_LOCAL_ERROR : APH_RX_NET_ERROR);
	return true;
}

/* All that a router shows of the packet, or no more than says which connection it is of. */
static void true_ones_are_believed(void **state)
{
	static const size_t lengths[] = { 8, 12, 16, 20, 24, APH_RX_HEADER };

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct caller c;

		begin(&c);
		assert_true(ends(&c, c.sent, lengths[i], false));
		end(&c);
	}
}

/* Who guesses no more than addresses and ports ends nothing. */
static void blind_ones_are_not(void **state)
{
	struct caller c;

	(void)state;
	begin(&c);
	assert_false(ends(&c, NULL, 0, false));
	for (size_t len = 0; len < 8; len++)
		assert_false(ends(&c, c.sent, len, false));
	end(&c);
}

static void changed(struct caller *c, size_t at, uint8_t bits)
{
	uint8_t quote[APH_RX_HEADER];

	memcpy(quote, c->sent, sizeof(quote));
	quote[at] ^= bits;
	assert_false(ends(c, quote, sizeof(quote), false));
}

/* Nor does who shows what never left: in turn epoch, cid, call, serial and direction. */
static void nor_are_wrong_ones(void **state)
{
	struct caller c;

	(void)state;
	begin(&c);
	changed(&c, 3, 1);
	changed(&c, 7, 4);
	changed(&c, 11, 2);
	changed(&c, 19, 2);
	changed(&c, 21, APH_RX_CLIENT_INITIATED);
	end(&c);
}

/* The header of the next packet that leaves. */
static void take(struct caller *c, uint8_t out[APH_RX_HEADER])
{
	struct aph_rx_message message;

	assert_int_equal(aph_rx_send(c->rx, &message, 1, now_ns), 1);
	assert_true(message.iov[0].iov_len >= APH_RX_HEADER);
	memcpy(out, message.iov[0].iov_base, APH_RX_HEADER);
}

static void call_again(struct caller *c, struct aph_rx_client *client, struct aph_rx_call **call,
		       uint8_t sent[APH_RX_HEADER])
{
	assert_int_equal(aph_rx_call_new(call, client, NULL), 0);
	assert_int_equal(aph_rx_call_write(*call, "another", 7, 0), 7);
	take(c, sent);
}

/* Somebody may be at the port since: what has left before a call does not end it. */
static void those_of_earlier_packets_end_no_later_calls(void **state)
{
	uint8_t abort[APH_RX_HEADER], later[APH_RX_HEADER], elsewhere[APH_RX_HEADER];
	struct aph_rx_client *other;
	struct aph_rx_call *call, *third;
	struct aph_rx_event event;
	struct caller c;

	(void)state;
	begin(&c);
	assert_int_equal(aph_rx_client_new(&other, c.rx, &c.path, SERVICE + 1, NULL), 0);
	(void)aph_rx_call_free(c.call);
	take(&c, abort);
	assert_int_equal(abort[20], APH_RX_ABORT);
	call_again(&c, c.client, &call, later);
	assert_memory_equal(c.sent, later, 8); /* the same connection and channel */
	c.call = call;
	call_again(&c, other, &third, elsewhere);
	assert_false(ends(&c, c.sent, APH_RX_HEADER, false));
	assert_false(ends(&c, abort, APH_RX_HEADER, false));
	/* Its own one does, and with it all that the peer has to answer. */
	assert_true(ends(&c, later, APH_RX_HEADER, false));
	assert_true(aph_rx_next(c.rx, &event));
	assert_int_equal(event.end.outcome, APH_RX_NET_ERROR);
	(void)aph_rx_call_free(third);
	(void)aph_rx_client_free(other);
	end(&c);
}

/* Two calls of one connection: the one that was there by then ends, the later one goes on. */
static void earlier_calls_of_the_connection_end(void **state)
{
	uint8_t later[APH_RX_HEADER];
	struct aph_rx_call *call;
	struct caller c;

	(void)state;
	begin(&c);
	call_again(&c, c.client, &call, later);
	assert_memory_equal(c.sent, later, 7);
	assert_int_not_equal(c.sent[7], later[7]);
	assert_true(ends(&c, c.sent, APH_RX_HEADER, false));
	assert_false(ends(&c, c.sent, APH_RX_HEADER, false));
	assert_true(ends(&c, later, APH_RX_HEADER, false));
	(void)aph_rx_call_free(call);
	end(&c);
}

static void sizes_are_not_lowered_blindly(void **state)
{
	struct aph_rx_call *second;
	struct aph_rx_message message;
	static const uint8_t body[3000];
	struct caller c;

	(void)state;
	begin(&c);
	aph_rx_receive_error(c.rx, &c.path, EMSGSIZE, 500, NULL, 0, false, now_ns);
	assert_int_equal(aph_rx_call_new(&second, c.client, NULL), 0);
	assert_int_equal(aph_rx_call_write(second, body, sizeof(body), 0), sizeof(body));
	assert_int_equal(aph_rx_send(c.rx, &message, 1, now_ns), 1);
	assert_true(message.segment > 1400);
	(void)aph_rx_call_free(second);
	end(&c);
}

/* Nobody but our own kernel can say that. */
static void our_own_kernel_needs_no_proof(void **state)
{
	struct caller c;

	(void)state;
	begin(&c);
	assert_true(ends(&c, NULL, 0, true));
	end(&c);
}

/* -- a server that has no such service --------------------------------------------------------- */

/* A packet of the server, on the connection of the caller's first one. */
static void answer(struct caller *c, uint8_t type, uint32_t call_number, uint32_t word)
{
	uint8_t packet[APH_RX_HEADER + 4];
	struct aph_rx_header header;

	aph_rx_header_decode(&header, c->sent);
	header.call_number = call_number;
	header.seq = type == APH_RX_DATA;
	header.type = type;
	header.flags = type == APH_RX_DATA ? APH_RX_LAST_PACKET : 0;
	aph_rx_header_encode(packet, &header);
	aph_put32(packet + APH_RX_HEADER, word);
	aph_rx_receive(c->rx, &c->path, packet, sizeof(packet), 0, NULL, now_ns);
}

static void pass(struct caller *c, uint64_t ns)
{
	for (uint64_t end_ns = now_ns + ns; now_ns < end_ns;) {
		now_ns += S / 10;
		aph_rx_tick(c->rx, now_ns);
	}
}

/* The abort may answer a copy of an earlier call's request. Then nobody knows of this one. */
static void an_abort_of_the_connection_after_copies(void **state)
{
	static const struct {
		bool copy, late, vague;
	} cases[] = { { false, false, false }, { true, false, true }, { true, true, false } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t sent[APH_RX_HEADER], reply[8];
		struct aph_rx_call_info info;
		struct aph_rx_message message;
		struct aph_rx_call *call;
		struct caller c;

		begin(&c);
		if (cases[i].copy) {
			pass(&c, 2 * S);
			take(&c, sent);
			assert_int_equal(sent[20], APH_RX_DATA);
		}
		answer(&c, APH_RX_DATA, 1, 0);
		assert_int_equal(aph_rx_call_read(c.call, reply, sizeof(reply), 0), 4);
		assert_null(aph_rx_call_free(c.call));
		if (cases[i].late)
			pass(&c, 13 * S);
		while (aph_rx_send(c.rx, &message, 1, now_ns) == 1)
			;
		call_again(&c, c.client, &call, sent);
		assert_memory_equal(c.sent, sent, 8);
		c.call = call;
		answer(&c, APH_RX_ABORT, 0, (uint32_t)APH_RX_INVALID_OPERATION);
		aph_rx_call_info(call, &info);
		assert_int_equal(info.n_sent, 1);
		assert_int_equal(info.vague, cases[i].vague);
		end(&c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(true_ones_are_believed),
		cmocka_unit_test(blind_ones_are_not),
		cmocka_unit_test(nor_are_wrong_ones),
		cmocka_unit_test(those_of_earlier_packets_end_no_later_calls),
		cmocka_unit_test(earlier_calls_of_the_connection_end),
		cmocka_unit_test(sizes_are_not_lowered_blindly),
		cmocka_unit_test(our_own_kernel_needs_no_proof),
		cmocka_unit_test(an_abort_of_the_connection_after_copies),
	};

	return cmocka_run_group_tests_name("rx reports", tests, NULL, NULL);
}
