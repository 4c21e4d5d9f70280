/* SPDX-License-Identifier: MIT */
/*
 * Acknowledgements that nobody should send: about what was never sent, with windows and sizes of
 * any kind. And those that are late, or missing, or come from elsewhere.
 */
#include "rig.h"

#define SERVICE 147

/*
 * A client with a request that is never answered, and what a server would put in front of its
 * packets.
 */
struct victim {
	struct aph_rx *rx;
	struct aph_rx_path path;
	struct aph_rx_client *client;
	struct aph_rx_call *call;
	struct aph_rx_header header;
	uint32_t highest; /* seq seen */
	uint32_t serials[64];
	unsigned copies[64];	  /* of the first packets */
	size_t smallest, largest; /* datagrams of data of the last look, but for a last one */
	uint32_t first, last;	  /* DATA of the last look; first 0: none, or not in order */
};

static uint64_t step_ns = S / 100; /* between acknowledgements */

/* Looks at all that it sends. Returns the number of DATA packets. */
static unsigned look(struct victim *v)
{
	struct aph_rx_message message;
	unsigned n = 0;

	v->smallest = SIZE_MAX;
	v->largest = 0;
	v->first = v->last = 0;
	while (aph_rx_send(v->rx, &message, 1, now_ns) == 1) {
		uint8_t bytes[65536];
		size_t len = gather(&message, bytes, sizeof(bytes));

		for (size_t at = 0; at < len; at += message.segment) {
			struct aph_rx_header header;

			aph_rx_header_decode(&header, bytes + at);
			if (header.type != APH_RX_DATA)
				continue;
			v->header = header;
			if (message.segment < v->smallest && !(header.flags & APH_RX_LAST_PACKET))
				v->smallest = message.segment;
			if (message.segment > v->largest)
				v->largest = message.segment;
			v->first = !n ? header.seq : header.seq > v->last ? v->first : 0;
			v->last = header.seq;
			if (header.seq > v->highest)
				v->highest = header.seq;
			if (header.seq < 64) {
				v->serials[header.seq] = header.serial;
				v->copies[header.seq]++;
			}
			n++;
		}
	}
	return n;
}

static void begin_with(struct victim *v, uint32_t flags)
{
	static const uint8_t body[300000];

	memset(v, 0, sizeof(*v));
	v->rx = an_engine(flags);
	v->path = a_path("10.0.0.2", 7000);
	assert_int_equal(aph_rx_client_new(&v->client, v->rx, &v->path, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_call_new(&v->call, v->client, NULL), 0);
	assert_int_equal(aph_rx_call_write(v->call, body, sizeof(body), 0), sizeof(body));
	assert_true(look(v) > 0);
}

static void begin(struct victim *v)
{
	begin_with(v, 0);
}

static void end(struct victim *v)
{
	struct aph_rx_event event;

	/* Whatever came, the call goes on, and an honest server can still end it well. */
	while (aph_rx_next(v->rx, &event))
		assert_int_not_equal(event.type, APH_RX_EVENT_END);
	(void)aph_rx_call_free(v->call);
	(void)aph_rx_client_free(v->client);
	(void)aph_rx_free(v->rx);
}

static void acknowledge(struct victim *v, struct aph_rx_ack *ack)
{
	struct aph_rx_header header = v->header;
	uint8_t packet[APH_RX_HEADER + APH_RX_ACK_BODY_MAX];
	static uint32_t serial;
	size_t len;

	header.type = APH_RX_ACK;
	header.flags = APH_RX_SLOW_START_OK;
	header.seq = 0;
	header.serial = ++serial;
	header.user_status = 0;
	aph_rx_header_encode(packet, &header);
	len = APH_RX_HEADER + aph_rx_ack_encode(packet + APH_RX_HEADER, ack);
	now_ns += step_ns;
	aph_rx_receive(v->rx, &v->path, packet, len, len, NULL, now_ns);
}

/* A window that wraps around must not look like one that is closed. */
static void windows_beyond_all_bounds(void **state)
{
	static const uint32_t windows[] = { 0x7fffffff, 0x80000000, 0xfffffff0, UINT32_MAX };

	(void)state;
	for (int extended = 0; extended < 2; extended++) {
		for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
			struct victim v;
			struct aph_rx_ack ack;

			begin(&v);
			ack = an_ack(v.highest + 1);
			ack.extended = extended;
			ack.window = ack.rwind = windows[i];
			acknowledge(&v, &ack);
			assert_true(look(&v) > 0);
			end(&v);
		}
	}
}

/* Neither datagrams that hold nothing nor such as cannot be sent. */
static void sizes_beyond_all_bounds(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 27, 28, 29, 0x10000, 0x80000000, UINT32_MAX };

	(void)state;
	for (unsigned which = 1; which < 8; which++) {
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			struct victim v;
			struct aph_rx_ack ack;

			begin(&v);
			ack = an_ack(v.highest + 1);
			if (which & 1)
				ack.max_mtu = sizes[i];
			if (which & 2)
				ack.if_mtu = sizes[i];
			if (which & 4)
				ack.max_jumbo = sizes[i];
			acknowledge(&v, &ack);
			assert_true(look(&v) > 0);
			assert_in_range(v.smallest, 200, 65507);
			assert_in_range(v.largest, 200, 65507);
			end(&v);
		}
	}
}

static void closed_window_is_asked_about(void **state)
{
	struct victim v;
	struct aph_rx_ack ack;
	uint32_t sent;

	(void)state;
	begin(&v);
	ack = an_ack(v.highest + 1);
	ack.rwind = 0;
	acknowledge(&v, &ack);
	sent = v.highest;
	assert_int_equal(look(&v), 0);
	assert_int_equal(v.highest, sent);
	assert_true(aph_rx_deadline(v.rx) != APH_RX_NO_DEADLINE);
	ack.rwind = 255;
	acknowledge(&v, &ack);
	assert_true(look(&v) > 0);
	end(&v);
}

static void about_what_was_not_sent(void **state)
{
	uint8_t acks[255];
	struct victim v;
	struct aph_rx_ack ack;
	uint32_t sent;

	(void)state;
	memset(acks, 1, sizeof(acks));
	begin(&v);
	sent = v.highest;
	ack = an_ack(sent + 2);
	acknowledge(&v, &ack);
	ack = an_ack(1);
	ack.n_acks = 255;
	ack.acks = acks;
	acknowledge(&v, &ack);
	ack = an_ack(1);
	ack.extended = true;
	ack.n_ranges = 1;
	ack.ranges[0] = (struct aph_rx_range){ sent, sent + 2 };
	acknowledge(&v, &ack);
	/* None of it freed the window. */
	assert_int_equal(look(&v), 0);
	end(&v);
}

/* What it says of sizes and windows does not count either. */
static void trailer_of_what_was_not_sent(void **state)
{
	struct victim v;
	struct aph_rx_ack ack;
	struct aph_rx_call *second;
	static const uint8_t body[3000];

	(void)state;
	begin(&v);
	ack = an_ack(v.highest + 2);
	ack.max_mtu = 500;
	ack.rwind = 0;
	acknowledge(&v, &ack);
	assert_int_equal(aph_rx_call_new(&second, v.client, NULL), 0);
	assert_int_equal(aph_rx_call_write(second, body, sizeof(body), 0), sizeof(body));
	assert_int_equal(look(&v), 3);
	(void)aph_rx_call_free(second);
	end(&v);
}

/* A reply to a request of which not all has left. */
static void reply_too_early(void **state)
{
	uint8_t packet[APH_RX_HEADER + 4] = { 0 };
	struct aph_rx_event event;
	struct victim v;

	(void)state;
	begin(&v);
	v.header.flags = 0;
	v.header.seq = 1;
	aph_rx_header_encode(packet, &v.header);
	aph_rx_receive(v.rx, &v.path, packet, sizeof(packet), 0, NULL, now_ns);
	assert_true(aph_rx_next(v.rx, &event));
	assert_int_equal(event.end.outcome, APH_RX_ABORTED_HERE);
	assert_int_equal(event.end.code, APH_RX_PROTOCOL_ERROR);
	end(&v);
}

/*
 * A packet is lost when one that left after it has arrived, and some time has gone by: not before.
 */
static void overtaken(void **state)
{
	static const uint8_t second_only[] = { 0, 1 };
	struct aph_rx_ack ack;
	struct victim v;

	(void)state;
	begin(&v);
	ack = an_ack(1);
	ack.n_acks = 2;
	ack.acks = second_only;
	ack.serial = v.serials[2];
	ack.reason = APH_RX_ACK_OUT_OF_SEQUENCE;
	acknowledge(&v, &ack); /* 10 ms later, which is the round trip */
	(void)look(&v);
	assert_int_equal(v.copies[1], 1);
	now_ns += S / 1000;
	aph_rx_tick(v.rx, now_ns);
	(void)look(&v);
	assert_int_equal(v.copies[1], 1);
	now_ns += 2 * S / 1000;
	aph_rx_tick(v.rx, now_ns);
	(void)look(&v);
	assert_int_equal(v.copies[1], 2);
	end(&v);
}

/* As much as may leave. */
static void fly(struct victim *v)
{
	static const uint8_t body[100000];

	do {
		(void)aph_rx_call_write(v->call, body, sizeof(body), APH_RX_MORE);
	} while (look(v));
}

/* Acknowledges one of those that are out; those that left before it are lost then. */
static void lose_before(struct victim *v, uint32_t base, uint32_t seq)
{
	struct aph_rx_ack ack = an_ack(base);

	ack.extended = true;
	ack.window = APH_RX_WINDOW_MAX;
	ack.n_ranges = 1;
	ack.ranges[0] = (struct aph_rx_range){ seq, seq + 1 };
	acknowledge(v, &ack);
	now_ns += S / 100;
	aph_rx_tick(v->rx, now_ns);
}

/* What is lost leaves in order, however it came to be lost. */
static void lost_again_and_again(void **state)
{
	struct aph_rx_ack ack;
	struct victim v;
	uint32_t base = 1;

	(void)state;
	step_ns = S / 100000; /* so short a path is not paced */
	begin(&v);
	(void)aph_rx_call_free(v.call);
	assert_int_equal(aph_rx_call_new(&v.call, v.client, NULL), 0);
	v.highest = 0;
	fly(&v);
	while (v.highest - base < 3000) {
		base = v.highest + 1;
		ack = an_ack(base);
		ack.extended = true;
		ack.window = APH_RX_WINDOW_MAX;
		acknowledge(&v, &ack);
		fly(&v);
	}
	lose_before(&v, base, v.highest);
	assert_true(look(&v) > 100);
	assert_int_equal(v.first, base);
	for (unsigned i = 0; i < 4; i++) {
		/* These are lost once more, while those above them still are. */
		uint32_t last = v.last;

		assert_true(last + 100 < v.highest);
		lose_before(&v, base, last);
		assert_true(look(&v) > 1);
		assert_int_equal(v.first, base);
		assert_true(v.last > base);
	}
	ack.first = v.highest + 1;
	ack.previous = v.highest;
	acknowledge(&v, &ack);
	fly(&v);
	assert_true(v.highest > ack.first);
	end(&v);
	step_ns = S / 100;
}

/* How long until packet `seq` leaves once more. */
static uint64_t wait_for_copy(struct victim *v, uint32_t seq)
{
	unsigned copies = v->copies[seq];
	uint64_t start_ns = now_ns;

	while (v->copies[seq] == copies) {
		assert_true(now_ns < start_ns + 10 * S);
		now_ns += S / 100;
		aph_rx_tick(v->rx, now_ns);
		(void)look(v);
	}
	return now_ns - start_ns;
}

/* Time-outs become longer with each, and are short again when something has arrived. */
static void back_off(void **state)
{
	struct aph_rx_ack ack;
	uint64_t first, second, again;
	struct victim v;

	(void)state;
	begin(&v);
	first = wait_for_copy(&v, 1);
	second = wait_for_copy(&v, 1);
	assert_in_range(second * 10 / first, 17, 23);
	ack = an_ack(3);
	acknowledge(&v, &ack);
	(void)look(&v);
	again = wait_for_copy(&v, 3);
	assert_in_range(again, 0, first + S / 10);
	end(&v);
}

/* A reply from another address, or from another port, with the ids that only the server knows. */
static void from_elsewhere(void **state)
{
	static const struct {
		uint32_t flags;
		const char *address;
		uint16_t port;
		bool taken;
	} ways[] = {
		{ 0, "10.0.0.2", 7000, true },
		{ 0, "10.0.0.2", 7001, false },
		{ 0, "10.0.0.3", 7000, false },
		{ APH_RX_MULTIHOMED, "10.0.0.3", 7000, true },
		{ APH_RX_MULTIHOMED, "10.0.0.2", 7001, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct aph_rx_call_info info;
		struct aph_rx_ack ack = an_ack(2);
		struct victim v;

		begin_with(&v, ways[i].flags);
		v.path = a_path(ways[i].address, ways[i].port);
		acknowledge(&v, &ack);
		aph_rx_call_info(v.call, &info);
		assert_int_equal(info.received, ways[i].taken);
		end(&v);
	}
}

/* A server that has no such service aborts the connection of each call. They do not pile up. */
static void aborted_connections(void **state)
{
	struct aph_rx_stats stats;
	struct aph_rx_event event;
	struct victim v;

	(void)state;
	begin(&v);
	for (unsigned i = 0; i < 500; i++) {
		uint8_t packet[APH_RX_HEADER + 4];
		struct aph_rx_call *call;

		assert_int_equal(aph_rx_call_new(&call, v.client, NULL), 0);
		assert_int_equal(aph_rx_call_write(call, "x", 1, 0), 1);
		assert_int_equal(look(&v), 1);
		v.header.type = APH_RX_ABORT;
		v.header.flags = 0;
		v.header.cid &= ~3u;
		v.header.call_number = v.header.seq = 0;
		aph_rx_header_encode(packet, &v.header);
		aph_put32(packet + APH_RX_HEADER, (uint32_t)APH_RX_INVALID_OPERATION);
		aph_rx_receive(v.rx, &v.path, packet, sizeof(packet), 0, NULL, now_ns);
		while (aph_rx_next(v.rx, &event))
			assert_int_equal(event.type, APH_RX_EVENT_END);
		(void)aph_rx_call_free(call);
		now_ns += S / 1000;
		aph_rx_tick(v.rx, now_ns);
	}
	aph_rx_get_stats(v.rx, &stats);
	assert_in_range(stats.n_client_connections, 0, 4);
	end(&v);
}

/* Neither do those of calls that want one of their own hold up the others. */
static void exclusive_connections(void **state)
{
	struct aph_rx_call_options options = { .size = sizeof(options),
					       .flags = APH_RX_CALL_EXCLUSIVE };
	struct aph_rx_call *calls[40];
	struct victim v;

	(void)state;
	begin(&v);
	for (unsigned i = 0; i < 40; i++) {
		assert_int_equal(aph_rx_call_new(&calls[i], v.client, &options), 0);
		assert_int_equal(aph_rx_call_write(calls[i], "x", 1, 0), 1);
	}
	assert_true(look(&v) >= 40);
	assert_int_equal(aph_rx_client_free_channels(v.client), 15);
	for (unsigned i = 0; i < 40; i++)
		(void)aph_rx_call_free(calls[i]);
	end(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(windows_beyond_all_bounds),
		cmocka_unit_test(sizes_beyond_all_bounds),
		cmocka_unit_test(closed_window_is_asked_about),
		cmocka_unit_test(about_what_was_not_sent),
		cmocka_unit_test(trailer_of_what_was_not_sent),
		cmocka_unit_test(reply_too_early),
		cmocka_unit_test(overtaken),
		cmocka_unit_test(lost_again_and_again),
		cmocka_unit_test(back_off),
		cmocka_unit_test(from_elsewhere),
		cmocka_unit_test(aborted_connections),
		cmocka_unit_test(exclusive_connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
