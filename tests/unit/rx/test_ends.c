/* SPDX-License-Identifier: MIT */
/* How calls end at both ends, in corners of their lives: one end each, and the two agree. */
#include "two.h"

#include <errno.h>

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

/*
 * Who was away for longer than silence may last finds the reply all the same, where there is one.
 */
static void away(void **state)
{
	const struct aph_rx_config config = a_config(0);
	struct aph_rx_event event;
	struct aph_rx_call *call;

	(void)state;
	for (int replies = 0; replies < 2; replies++) {
		struct two t;

		two_begin(&t, &config);
		assert_int_equal(aph_rx_call_new(&call, t.client, NULL), 0);
		assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
		two_talk(&t);
		event = expect(t.theirs, APH_RX_EVENT_CALL);
		assert_int_equal(aph_rx_call_write(event.call, "hello", 5, 0), 5);
		now_ns += 13 * S;
		aph_rx_tick(t.ours, now_ns);
		assert_false(aph_rx_has_event(t.ours));
		if (replies) {
			(void)deliver(t.theirs, t.ours, &t.there);
			(void)expect(t.ours, APH_RX_EVENT_READABLE);
		}
		for (unsigned i = 0; i < 1190 && !replies; i++) {
			now_ns += 10 * MS;
			aph_rx_tick(t.ours, now_ns);
			(void)deliver(t.ours, NULL, NULL);
		}
		assert_int_equal(aph_rx_has_event(t.ours), replies);
		now_ns += 110 * MS;
		aph_rx_tick(t.ours, now_ns);
		event = expect(t.ours, APH_RX_EVENT_END);
		assert_int_equal(event.end.outcome, replies ? APH_RX_DONE : APH_RX_TIMED_OUT);
		(void)aph_rx_call_free(call);
		two_end(&t);
	}
}

/* A new limit is about the silence from then on, and the server is asked as often as it demands. */
static void a_shorter_patience(void **state)
{
	const struct aph_rx_config config = a_config(0);
	struct aph_rx_event event;
	struct aph_rx_call *call;
	struct two t;

	(void)state;
	two_begin(&t, &config);
	assert_int_equal(aph_rx_call_new(&call, t.client, NULL), 0);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	two_pass(&t, 1500 * MS);
	aph_rx_call_set_timeouts(call, 600, 0, 0);
	two_pass(&t, 5 * S);
	assert_false(aph_rx_has_event(t.ours));
	/* Neither need the engine know what time it is when it is told. */
	aph_rx_call_set_timeouts(call, 12000, 0, 0);
	two_pass(&t, 1500 * MS);
	now_ns += S;
	aph_rx_call_set_timeouts(call, 500, 0, 0);
	two_pass(&t, 5 * S);
	assert_false(aph_rx_has_event(t.ours));
	for (unsigned i = 0; i < 70; i++) {
		(void)deliver(t.ours, NULL, NULL);
		now_ns += 10 * MS;
		aph_rx_tick(t.ours, now_ns);
	}
	event = expect(t.ours, APH_RX_EVENT_END);
	assert_int_equal(event.end.outcome, APH_RX_TIMED_OUT);
	assert_int_equal(event.end.code, APH_RX_CALL_DEAD);
	(void)aph_rx_call_free(expect(t.theirs, APH_RX_EVENT_CALL).call);
	(void)aph_rx_call_free(call);
	two_end(&t);
}

/*
 * While the other end does not read it is asked about that, less and less often. That is no reason
 * to wait with what is lost then.
 */
static void a_loss_after_a_long_wait(void **state)
{
	static const uint8_t piece[1000];
	const struct aph_rx_config config = a_config(0);
	uint8_t read[sizeof(piece)];
	struct aph_rx_event event;
	struct aph_rx_call *call;
	struct two t;

	(void)state;
	two_begin(&t, &config);
	assert_int_equal(aph_rx_call_new(&call, t.client, NULL), 0);
	assert_int_equal(aph_rx_call_write(call, piece, sizeof(piece), APH_RX_MORE | APH_RX_PUSH),
			 sizeof(piece));
	two_talk(&t);
	event = expect(t.theirs, APH_RX_EVENT_CALL);
	two_pass(&t, 20 * S);
	assert_int_equal(aph_rx_call_read(event.call, read, sizeof(read), 0), sizeof(read));
	assert_int_equal(aph_rx_call_read(event.call, read, sizeof(read), 0), -EAGAIN);
	two_pass(&t, S);
	assert_false(aph_rx_has_event(t.theirs));
	assert_int_equal(aph_rx_call_write(call, piece, sizeof(piece), APH_RX_MORE | APH_RX_PUSH),
			 sizeof(piece));
	assert_int_equal(deliver(t.ours, NULL, NULL), 1);
	two_pass(&t, 500 * MS);
	(void)expect(t.theirs, APH_RX_EVENT_READABLE);
	(void)aph_rx_call_free(event.call);
	(void)aph_rx_call_free(call);
	two_end(&t);
}

/* A call whose reply has arrived and was not read; the server waits for its receipt. */
static struct aph_rx_call *an_unread_reply(struct two *t, const struct aph_rx_call_options *options)
{
	const struct aph_rx_config config = a_config(0);
	struct aph_rx_event event;
	struct aph_rx_call *call;

	two_begin(t, &config);
	assert_int_equal(aph_rx_call_new(&call, t->client, options), 0);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	two_talk(t);
	event = expect(t->theirs, APH_RX_EVENT_CALL);
	assert_int_equal(aph_rx_call_write(event.call, reply, sizeof(reply), 0), sizeof(reply));
	two_pass(t, 200 * MS);
	(void)expect(t->ours, APH_RX_EVENT_READABLE);
	assert_int_equal(expect(t->ours, APH_RX_EVENT_END).end.outcome, APH_RX_DONE);
	assert_false(aph_rx_has_event(t->theirs));
	return call;
}

/*
 * Limits of time end what is waited for. The reply is there: they make it neither unread nor
 * undone.
 */
static void limits_after_the_reply(void **state)
{
	static const struct aph_rx_call_options limits[] = {
		{ .size = sizeof(limits[0]), .hard_ms = 1000 },
		{ .size = sizeof(limits[0]), .idle_ms = 1000 },
	};
	uint8_t read[sizeof(reply)];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct two t;
		struct aph_rx_call *call = an_unread_reply(&t, &limits[i]);
		struct aph_rx_event event;

		two_pass(&t, 1100 * MS);
		event = expect(t.theirs, APH_RX_EVENT_END);
		assert_int_equal(event.end.outcome, APH_RX_DONE);
		(void)aph_rx_call_free(event.call);
		assert_int_equal(aph_rx_call_read(call, read, sizeof(read), 0), sizeof(read));
		assert_int_equal(aph_rx_call_read(call, read, sizeof(read), 0), 0);
		assert_false(aph_rx_has_event(t.ours));
		(void)aph_rx_call_free(call);
		two_end(&t);
	}
}

/* Who lets go of a reply without reading it owes a receipt as well; and who then closes, ACKALL. */
static void receipts_for_what_is_unread(void **state)
{
	(void)state;
	for (int closes = 0; closes < 2; closes++) {
		struct two t;
		struct aph_rx_event event;

		(void)aph_rx_call_free(an_unread_reply(&t, NULL));
		if (closes)
			t.client = aph_rx_client_free(t.client);
		else
			two_pass(&t, 30 * MS);
		two_talk(&t);
		event = expect(t.theirs, APH_RX_EVENT_END);
		assert_int_equal(event.end.outcome, APH_RX_DONE);
		(void)aph_rx_call_free(event.call);
		two_end(&t);
	}
}

/* The next call says that a reply was taken: when it leaves, which may be never. */
static void receipts_beside_a_call_that_waits(void **state)
{
	enum {
		WAITS,
		CLOSES,
		CHANGES_ITS_MIND,
		N,
	};

	(void)state;
	for (int what = 0; what < N; what++) {
		struct aph_rx_call *call;
		struct aph_rx_event event;
		struct two t;

		(void)aph_rx_call_free(an_unread_reply(&t, NULL));
		assert_int_equal(aph_rx_call_new(&call, t.client, NULL), 0);
		assert_int_equal(aph_rx_call_write(call, "x", 1, APH_RX_MORE), 1);
		if (what == CLOSES)
			t.client = aph_rx_client_free(t.client);
		if (what == CHANGES_ITS_MIND)
			call = aph_rx_call_free(call);
		if (what != CLOSES)
			two_pass(&t, 30 * MS);
		two_talk(&t);
		event = expect(t.theirs, APH_RX_EVENT_END);
		assert_int_equal(event.end.outcome, APH_RX_DONE);
		(void)aph_rx_call_free(event.call);
		if (what == CHANGES_ITS_MIND)
			assert_int_equal(aph_rx_call_new(&call, t.client, NULL), 0);
		if (what != CLOSES) {
			assert_int_equal(aph_rx_call_write(call, "y", 1, 0), 1);
			two_talk(&t);
			(void)expect(t.theirs, APH_RX_EVENT_CALL);
		}
		(void)aph_rx_call_free(call);
		two_end(&t);
	}
}

/* The service replies to what has come; returns the calls that have ended there. */
static unsigned serve(struct two *t)
{
	struct aph_rx_event event;
	unsigned n_ended = 0;

	while (aph_rx_next(t->theirs, &event)) {
		if (event.type == APH_RX_EVENT_CALL) {
			assert_int_equal(aph_rx_call_write(event.call, "hello", 5, 0), 5);
		} else if (event.type == APH_RX_EVENT_END) {
			assert_int_equal(event.end.outcome, APH_RX_DONE);
			(void)aph_rx_call_free(event.call);
			n_ended++;
		}
	}
	return n_ended;
}

/* A server has to hold no more calls for the sake of our receipts than it says in rx.h. */
static void many_receipts(void **state)
{
	enum {
		HELD = 1024,
		MORE = 40,
		N = HELD + MORE
	};
	static struct aph_rx_client *clients[N];
	const struct aph_rx_config config = a_config(0);
	struct aph_rx_event event;
	unsigned n_ended = 0;
	struct two t;

	(void)state;
	two_begin(&t, &config);
	for (unsigned i = 0; i < N; i++) {
		struct aph_rx_call *call;

		assert_int_equal(aph_rx_client_new(&clients[i], t.ours, &t.there, SERVICE, NULL),
				 0);
		assert_int_equal(aph_rx_call_new(&call, clients[i], NULL), 0);
		assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
		two_talk(&t);
		n_ended += serve(&t);
		two_talk(&t);
		while (aph_rx_next(t.ours, &event))
			assert_true(event.type != APH_RX_EVENT_END ||
				    event.end.outcome == APH_RX_DONE);
		(void)aph_rx_call_free(call);
		assert_true(i < HELD ? aph_rx_deadline(t.ours) > now_ns
				     : aph_rx_deadline(t.ours) == 0);
		two_talk(&t);
	}
	/* The oldest have left, and no others. */
	n_ended += serve(&t);
	assert_int_equal(n_ended, MORE);
	two_pass(&t, 30 * MS);
	n_ended += serve(&t);
	assert_int_equal(n_ended, N);
	for (unsigned i = 0; i < N; i++)
		(void)aph_rx_client_free(clients[i]);
	two_end(&t);
}

/*
 * A server of another kind may reply as soon as it has read what it needs; who still waits to write
 * hears of it before the end.
 */
static void reply_to_a_writer(void **state)
{
	static const uint8_t request[20000];
	struct aph_rx_config config = a_config(0);
	struct aph_rx_call_info info;
	struct aph_rx_event event;
	struct aph_rx_header header = {
		.call_number = 1,
		.seq = 1,
		.serial = 1,
		.type = APH_RX_DATA,
		.flags = APH_RX_LAST_PACKET,
		.service = SERVICE,
	};
	uint8_t packet[APH_RX_HEADER + 4] = { 0 };
	struct aph_rx_call *call;
	struct two t;

	(void)state;
	config.send_max = 4000;
	two_begin(&t, &config);
	assert_int_equal(aph_rx_call_new(&call, t.client, NULL), 0);
	assert_in_range(aph_rx_call_write(call, request, sizeof(request), APH_RX_MORE), 1,
			sizeof(request) - 1);
	assert_int_not_equal(deliver(t.ours, NULL, NULL), 0);
	aph_rx_call_info(call, &info);
	header.epoch = info.epoch;
	header.cid = info.cid;
	aph_rx_header_encode(packet, &header);
	aph_rx_receive(t.ours, &t.there, packet, sizeof(packet), 0, NULL, now_ns);
	(void)expect(t.ours, APH_RX_EVENT_READABLE);
	(void)expect(t.ours, APH_RX_EVENT_WRITABLE);
	event = expect(t.ours, APH_RX_EVENT_END);
	assert_int_equal(event.end.outcome, APH_RX_DONE);
	now_ns += 200 * MS;
	aph_rx_tick(t.ours, now_ns);
	(void)deliver(t.ours, NULL, NULL);
	assert_false(aph_rx_has_event(t.ours));
	(void)aph_rx_call_free(call);
	two_end(&t);
}

/*
 * A packet that is about no call does not answer who asks for a better service: the answer may be
 * the next one.
 */
static void upgrade_after_a_challenge(void **state)
{
	static const struct aph_rx_call_options upgrade = {
		.size = sizeof(upgrade),
		.flags = APH_RX_CALL_UPGRADE,
	};
	const struct aph_rx_config config = a_config(0);
	struct aph_rx_header header = { .serial = 1, .service = SERVICE };
	uint8_t packet[APH_RX_HEADER + 4] = { 0 };
	struct aph_rx_call_info info;
	struct aph_rx_call *call;
	struct two t;

	(void)state;
	two_begin(&t, &config);
	assert_int_equal(aph_rx_call_new(&call, t.client, &upgrade), 0);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	(void)deliver(t.ours, NULL, NULL);
	aph_rx_call_info(call, &info);
	header.epoch = info.epoch;
	header.cid = info.cid;
	header.type = APH_RX_CHALLENGE;
	aph_rx_header_encode(packet, &header);
	aph_rx_receive(t.ours, &t.there, packet, sizeof(packet), 0, NULL, now_ns);
	header.type = APH_RX_DATA;
	header.flags = APH_RX_LAST_PACKET;
	header.call_number = header.seq = 1;
	header.service = SERVICE + 1;
	aph_rx_header_encode(packet, &header);
	aph_rx_receive(t.ours, &t.there, packet, sizeof(packet), 0, NULL, now_ns);
	(void)expect(t.ours, APH_RX_EVENT_READABLE);
	assert_int_equal(expect(t.ours, APH_RX_EVENT_END).end.outcome, APH_RX_DONE);
	aph_rx_call_info(call, &info);
	assert_int_equal(info.service, SERVICE + 1);
	(void)aph_rx_call_free(call);
	two_end(&t);
}

/*
 * As many calls can begin as it says, after a question for a better service that nobody has
 * answered as well.
 */
static void channels_after_a_question(void **state)
{
	struct aph_rx_call_options options = { .size = sizeof(options),
					       .flags = APH_RX_CALL_UPGRADE };
	const struct aph_rx_config config = a_config(0);
	struct aph_rx_call *calls[16];
	uint32_t n;
	struct two t;

	(void)state;
	two_begin(&t, &config);
	assert_int_equal(aph_rx_call_new(&calls[0], t.client, &options), 0);
	(void)aph_rx_call_free(calls[0]);
	options.flags = APH_RX_CALL_NO_WAIT;
	n = aph_rx_client_free_channels(t.client);
	assert_int_equal(n, 13);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(aph_rx_call_new(&calls[i], t.client, &options), 0);
	assert_int_equal(aph_rx_call_new(&calls[n], t.client, &options), -EAGAIN);
	while (n)
		(void)aph_rx_call_free(calls[--n]);
	two_end(&t);
}

/* An answer so long that the service asks first who gets it. */
static void prove_address(struct two *t)
{
	struct aph_rx_event event;
	struct aph_rx_call *call;

	assert_int_equal(aph_rx_call_new(&call, t->client, NULL), 0);
	assert_int_equal(aph_rx_call_write(call, "hello", 5, 0), 5);
	two_talk(t);
	event = expect(t->theirs, APH_RX_EVENT_CALL);
	assert_int_equal(aph_rx_call_write(event.call, reply, sizeof(reply), 0), sizeof(reply));
	two_talk(t);
	(void)aph_rx_call_free(call);
	two_pass(t, 30 * MS);
	(void)aph_rx_call_free(event.call);
	assert_false(aph_rx_has_event(t->ours));
	assert_false(aph_rx_has_event(t->theirs));
}

#define MANY 500

/*
 * Very many calls at once, all of which have come to the service; or whose replies have come to the
 * client.
 */
static void begin_many(struct two *t, struct aph_rx_call **calls, bool replies)
{
	const struct aph_rx_client_options options = { .size = sizeof(options),
						       .connections_max = MANY };
	const struct aph_rx_config config = a_config(0);
	struct aph_rx_event event;

	two_begin(t, &config);
	t->client = aph_rx_client_free(t->client);
	assert_int_equal(aph_rx_client_new(&t->client, t->ours, &t->there, SERVICE, &options), 0);
	prove_address(t);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(aph_rx_call_new(&calls[i], t->client, NULL), 0);
		assert_int_equal(aph_rx_call_write(calls[i], "hello", 5, 0), 5);
	}
	two_talk(t);
	for (unsigned i = 0; i < MANY; i++) {
		event = expect(t->theirs, APH_RX_EVENT_CALL);
		if (replies)
			assert_int_equal(aph_rx_call_write(event.call, "hello", 5, 0), 5);
	}
	two_talk(t);
}

static void expect_ends(struct aph_rx *rx, enum aph_rx_outcome outcome)
{
	struct aph_rx_event event;
	unsigned n = 0;

	while (aph_rx_next(rx, &event)) {
		if (event.type != APH_RX_EVENT_END)
			continue;
		assert_int_equal(event.end.outcome, outcome);
		(void)aph_rx_call_free(event.call);
		n++;
	}
	assert_int_equal(n, MANY);
}

static uint64_t client_connections(struct aph_rx *rx)
{
	struct aph_rx_stats stats;

	aph_rx_get_stats(rx, &stats);
	return stats.n_client_connections;
}

/* Who goes with very many calls tells all their other ends, and what for. */
static void all_are_told(void **state)
{
	struct aph_rx_call *calls[MANY];
	struct two t;

	(void)state;
	begin_many(&t, calls, false);
	t.service = aph_rx_service_remove(t.service);
	expect_ends(t.theirs, APH_RX_ABORTED_HERE);
	two_talk(&t);
	expect_ends(t.ours, APH_RX_ABORTED);
	two_end(&t);

	begin_many(&t, calls, false);
	t.client = aph_rx_client_free(t.client);
	expect_ends(t.ours, APH_RX_ABORTED_HERE);
	two_talk(&t);
	expect_ends(t.theirs, APH_RX_ABORTED);
	assert_int_equal(client_connections(t.ours), 0);
	two_end(&t);

	begin_many(&t, calls, true);
	expect_ends(t.ours, APH_RX_DONE);
	t.client = aph_rx_client_free(t.client);
	two_talk(&t);
	expect_ends(t.theirs, APH_RX_DONE);
	assert_int_equal(client_connections(t.ours), 0);
	two_end(&t);

	/* Or it may end with the word unsaid. */
	begin_many(&t, calls, false);
	t.client = aph_rx_client_free(t.client);
	expect_ends(t.ours, APH_RX_ABORTED_HERE);
	two_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_late_first_word),
		cmocka_unit_test(a_late_first_word_to_nobody),
		cmocka_unit_test(away),
		cmocka_unit_test(a_shorter_patience),
		cmocka_unit_test(a_loss_after_a_long_wait),
		cmocka_unit_test(limits_after_the_reply),
		cmocka_unit_test(receipts_for_what_is_unread),
		cmocka_unit_test(receipts_beside_a_call_that_waits),
		cmocka_unit_test(many_receipts),
		cmocka_unit_test(reply_to_a_writer),
		cmocka_unit_test(upgrade_after_a_challenge),
		cmocka_unit_test(channels_after_a_question),
		cmocka_unit_test(all_are_told),
	};

	return cmocka_run_group_tests_name("rx ends", tests, NULL, NULL);
}
