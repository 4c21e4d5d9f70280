/* SPDX-License-Identifier: MIT */
/*
 * Bodies at a service, packet by packet: their ends, their windows, what is acknowledged, and who
 * is alive meanwhile.
 */
#include "stranger.h"

#include <errno.h>

/* Packets without anything in them do not fill the window for good. */
static void empty_packets(void **state)
{
	struct client c = a_client(1);
	struct aph_rx_call *call;
	char byte;
	struct host h;

	(void)state;
	begin(&h, 0);
	send_data(&h, &c, 0, 1, 0, 0);
	call = next_call(&h);
	for (uint32_t seq = 2; seq < 2000; seq++) {
		send_data(&h, &c, 0, seq, 0, 0);
		if (seq % 100 == 0)
			assert_int_equal(aph_rx_call_read(call, &byte, 1, 0), -EAGAIN);
		look(&h);
	}
	send_data(&h, &c, 0, 2000, LAST, 1);
	assert_int_equal(aph_rx_call_read(call, &byte, 1, 0), 1);
	assert_int_equal(aph_rx_call_read(call, &byte, 1, 0), 0);
	(void)aph_rx_call_free(call);
	end(&h);
}

/* Who says something, whatever it is, is alive; who says nothing for 12 s is not. */
static void signs_of_life(void **state)
{
	struct client c = a_client(1);
	struct aph_rx_ack ack = an_ack(1);
	struct aph_rx_event event;
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin(&h, 0);
	send_data(&h, &c, 0, 1, LAST, 4);
	call = next_call(&h);
	for (unsigned i = 0; i < 10; i++) {
		pass(&h, 5 * S);
		look(&h);
		/* It asks whether somebody is there. */
		assert_true(h.n_types[APH_RX_ACK] > 0);
		assert_false(aph_rx_next(h.rx, &event));
		send_ack(&h, &c, 0, &ack);
	}
	pass(&h, 11 * S);
	assert_false(aph_rx_next(h.rx, &event));
	pass(&h, 2 * S);
	assert_true(aph_rx_next(h.rx, &event));
	assert_int_equal(event.end.outcome, APH_RX_TIMED_OUT);
	assert_int_equal(event.end.code, APH_RX_CALL_DEAD);
	(void)aph_rx_call_free(call);
	end(&h);
}

/* "All of it has arrived" counts when all of it has left. */
static void acknowledged_too_early(void **state)
{
	struct client c = a_client(1);
	struct aph_rx_event event;
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin(&h, 0);
	call = ask_for_much(&h, &c, 1400);
	look(&h);
	assert_true(h.n_types[APH_RX_DATA] > 0);
	send_packet(&h, &c, (struct aph_rx_header){ .type = APH_RX_ACKALL, .call_number = 1 }, NULL,
		    0);
	while (aph_rx_next(h.rx, &event))
		assert_int_equal(event.type, APH_RX_EVENT_WRITABLE);
	assert_int_equal(aph_rx_call_abort(call, 1), 0);
	(void)aph_rx_call_free(call);
	end(&h);
}

/* A body has one end. */
static void second_end(void **state)
{
	static const uint32_t others[] = { 2, 4 };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct client c = a_client(1);
		struct aph_rx_event event;
		struct aph_rx_call *call;
		struct host h;

		begin(&h, 0);
		send_data(&h, &c, 0, 3, LAST, 4);
		call = next_call(&h);
		send_data(&h, &c, 0, others[i / 2], i % 2 ? LAST : 0, 4);
		if (i == 0) {
			assert_false(aph_rx_next(h.rx, &event));
		} else {
			assert_true(aph_rx_next(h.rx, &event));
			assert_int_equal(event.end.outcome, APH_RX_ABORTED_HERE);
			assert_int_equal(event.end.code, APH_RX_PROTOCOL_ERROR);
		}
		(void)aph_rx_call_free(call);
		end(&h);
	}
}

/* A reply says that the request has arrived, but not that some of it came twice. */
static void reply_instead_of_acknowledgement(void **state)
{
	(void)state;
	for (int twice = 0; twice < 2; twice++) {
		struct client c = a_client(1);
		struct aph_rx_call *call;
		struct host h;

		begin(&h, 0);
		send_data(&h, &c, 0, 1, LAST | APH_RX_REQUEST_ACK, 4);
		call = next_call(&h);
		if (twice)
			send_data(&h, &c, 0, 1, LAST, 4);
		assert_int_equal(aph_rx_call_write(call, "answer", 6, 0), 6);
		look(&h);
		assert_int_equal(h.n_types[APH_RX_DATA], 1);
		assert_int_equal(h.n_types[APH_RX_ACK], twice);
		(void)aph_rx_call_free(call);
		end(&h);
	}
}

/*
 * A body that ends when all of it has left ends with a packet of its own; else its last packet says
 * so.
 */
static void end_of_a_body(void **state)
{
	static const uint8_t body[APH_RX_PAYLOAD_MAX];

	(void)state;
	for (int sent = 0; sent < 2; sent++) {
		struct client c = a_client(1);
		struct aph_rx_call *call;
		struct host h;

		begin(&h, 0);
		send_data(&h, &c, 0, 1, LAST, 1000);
		call = next_call(&h);
		assert_int_equal(aph_rx_call_write(call, body, sizeof(body), APH_RX_MORE),
				 sizeof(body));
		if (sent) {
			look(&h);
			assert_int_equal(h.seen[APH_RX_DATA].seq, 1);
			assert_int_equal(h.seen[APH_RX_DATA].flags & LAST, 0);
		}
		assert_int_equal(aph_rx_call_write(call, "", 0, 0), 0);
		look(&h);
		assert_int_equal(h.n_types[APH_RX_DATA], 1);
		assert_int_equal(h.seen[APH_RX_DATA].seq, 1 + sent);
		assert_int_equal(h.seen[APH_RX_DATA].flags & LAST, LAST);
		(void)aph_rx_call_free(call);
		end(&h);
	}
}

/* A packet of a short body that was lost says nothing about how fast a long one may begin. */
static void short_bodies_teach_nothing(void **state)
{
	struct client c = a_client(1);
	struct aph_rx_ack ack = an_ack(2);
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin(&h, 0);
	send_data(&h, &c, 0, 1, LAST, 4);
	call = next_call(&h);
	assert_int_equal(aph_rx_call_write(call, "answer", 6, 0), 6);
	look(&h);
	pass(&h, 3 * S);
	look(&h);
	assert_true(call->out.congest.ssthresh < APH_RX_CWND_INITIAL);
	send_ack(&h, &c, 0, &ack);
	(void)aph_rx_call_free(call);
	send_data(&h, &c, 1, 1, LAST, 4);
	call = next_call(&h);
	assert_true(call->out.congest.ssthresh > APH_RX_WINDOW_MAX);
	(void)aph_rx_call_free(call);
	end(&h);
}

/* Who pauses within a body goes on with half of the window that it had. */
static void pauses(void **state)
{
	static const uint8_t body[APH_RX_PAYLOAD_MAX];
	struct client c = a_client(1);
	struct aph_rx_ack ack = an_ack(1);
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin(&h, 0);
	send_data(&h, &c, 0, 1, LAST, 1400);
	call = next_call(&h);
	call->peer->proven = true;
	for (uint32_t seq = 1; seq < 20; seq++) {
		/* A PING is not what the window is for. */
		for (unsigned i = 0; seq == 10 && i < 50; i++) {
			pass(&h, 100 * MS);
			look(&h);
			send_ack(&h, &c, 0, &ack);
		}
		call->out.congest.cwnd = seq <= 10 ? 100 : call->out.congest.cwnd;
		assert_int_equal(aph_rx_call_write(call, body, sizeof(body), APH_RX_MORE),
				 sizeof(body));
		look(&h);
		assert_int_equal(h.n_types[APH_RX_DATA], 1);
		assert_int_equal(call->out.congest.cwnd, seq < 10 ? 100 : 50);
		ack.first = seq + 1;
		ack.previous = seq;
		pass(&h, 10 * MS);
		send_ack(&h, &c, 0, &ack);
	}
	(void)aph_rx_call_free(call);
	end(&h);
}

/* One that was overtaken does not make lost what the later one has acknowledged. */
static void overtaken_acknowledgement(void **state)
{
	static const uint8_t later[] = { 0, 1, 1, 1 }, earlier[] = { 0, 0, 1 };
	struct client c = a_client(1);
	struct aph_rx_ack ack = an_ack(3);
	struct aph_rx_call *call;
	struct host h;

	(void)state;
	begin(&h, 0);
	call = ask_for_much(&h, &c, 1400);
	call->peer->proven = true;
	look(&h);
	assert_in_range(h.n_types[APH_RX_DATA], 6, 10);
	/* The last that is said of the packets: 4 arrived after 5. */
	ack.acks = later;
	ack.n_acks = sizeof(later);
	ack.previous = 6;
	send_ack(&h, &c, 0, &ack);
	assert_int_equal(call->out.n_sacked, 3);
	ack.acks = earlier;
	ack.n_acks = sizeof(earlier);
	ack.previous = 5;
	send_ack(&h, &c, 0, &ack);
	assert_int_equal(call->out.n_sacked, 3);
	(void)aph_rx_call_free(call);
	end(&h);
}

/* The last packet of the window is taken, and the first one beyond is not. */
static void edge_of_the_window(void **state)
{
	struct client c = a_client(1);
	struct host h;

	(void)state;
	begin(&h, APH_RX_NO_EXTENSION);
	send_data(&h, &c, 0, 2, 0, 4);
	look(&h);
	send_data(&h, &c, 0, 256, 0, 4);
	look(&h);
	assert_int_equal(h.n_types[APH_RX_ACK], 1);
	assert_int_equal(h.acked[16], APH_RX_ACK_EXCEEDS_WINDOW);
	send_data(&h, &c, 0, 255, 0, 4);
	look(&h);
	assert_int_equal(h.n_types[APH_RX_ACK], 1);
	assert_int_equal(h.acked[16], APH_RX_ACK_OUT_OF_SEQUENCE);
	end(&h);
}

/* The numbers of packets do not begin anew. */
static void longest_bodies(void **state)
{
	static const uint8_t body[40000];
	struct client c = a_client(1);
	struct aph_rx_event event;
	struct aph_rx_call *call;
	struct host h;
	ssize_t n, all = 0;

	(void)state;
	begin(&h, 0);
	send_data(&h, &c, 0, 1, 0, 4);
	call = next_call(&h);
	call->in.base = call->in.next = call->in.highest = APH_RX_SEQ_MAX - 3;
	for (uint32_t seq = APH_RX_SEQ_MAX - 3; seq <= APH_RX_SEQ_MAX; seq++)
		send_data(&h, &c, 0, seq, 0, 4);
	assert_false(aph_rx_next(h.rx, &event));
	send_data(&h, &c, 0, APH_RX_SEQ_MAX + 1, 0, 4);
	assert_true(aph_rx_next(h.rx, &event));
	assert_int_equal(event.end.outcome, APH_RX_ABORTED_HERE);
	(void)aph_rx_call_free(call);

	send_data(&h, &c, 1, 1, LAST, 4);
	call = next_call(&h);
	call->out.base = call->out.next = call->out.end = APH_RX_SEQ_MAX - 10;
	call->out.window_end = call->out.base + 1;
	while ((n = aph_rx_call_write(call, body, sizeof(body), APH_RX_MORE)) > 0)
		all += n;
	assert_int_equal(n, -EFBIG);
	assert_int_equal(all, 10 * APH_RX_PAYLOAD_MAX);
	/* A writer whom the last short write has sent to wait is woken to hear it. */
	look(&h);
	assert_true(aph_rx_next(h.rx, &event));
	assert_int_equal(event.type, APH_RX_EVENT_WRITABLE);
	(void)aph_rx_call_free(call);
	end(&h);
}

static void longer_than_udp(void **state)
{
	static uint8_t packet[APH_RX_HEADER + 66000];
	struct client c = a_client(1);
	struct aph_rx_header header = { .type = APH_RX_DATA,
					.call_number = 1,
					.seq = 1,
					.service = SERVICE,
					.flags = APH_RX_CLIENT_INITIATED | LAST };
	struct host h;

	(void)state;
	begin(&h, 0);
	header.epoch = c.epoch;
	header.cid = c.cid;
	aph_rx_header_encode(packet, &header);
	aph_rx_receive(h.rx, &c.path, packet, sizeof(packet), 0, NULL, now_ns);
	assert_false(aph_rx_has_event(h.rx));
	end(&h);
}

/*
 * A packet is never cut anew: who sends another one in its place has begun the call anew, and
 * bodies must not mix.
 */
static void another_packet_in_its_place(void **state)
{
	static const uint8_t other[8] = "other";
	struct aph_rx_header header = { .call_number = 1, .type = APH_RX_DATA };
	struct aph_rx_event event;
	struct aph_rx_call *call;

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct client c = a_client(1);
		struct host h;

		/* One that could be read, or one that waits for those before it. */
		header.seq = i & 2 ? 1 : 3;
		begin(&h, 0);
		send_data(&h, &c, 0, 1, 0, 8);
		call = next_call(&h);
		send_data(&h, &c, 0, 3, 0, 8);
		send_data(&h, &c, 0, header.seq, 0, 8);
		look(&h);
		assert_false(aph_rx_next(h.rx, &event));
		if (i & 1)
			send_packet(&h, &c, header, other, sizeof(other));
		else
			send_data(&h, &c, 0, header.seq, 0, 7);
		assert_true(aph_rx_next(h.rx, &event));
		assert_int_equal(event.type, APH_RX_EVENT_END);
		assert_int_equal(event.end.outcome, APH_RX_ABORTED_HERE);
		assert_int_equal(event.end.code, APH_RX_PROTOCOL_ERROR);
		(void)aph_rx_call_free(call);
		end(&h);
	}
}

/* What the ACK of one more packet offers. */
static uint32_t jumbo_offered(struct host *h, const struct client *c, uint32_t seq)
{
	struct aph_rx_ack ack;

	send_data(h, c, 0, seq, APH_RX_REQUEST_ACK, 4);
	look(h);
	assert_int_equal(h->n_types[APH_RX_ACK], 1);
	assert_true(aph_rx_ack_decode(&ack, h->acked, h->acked_len));
	return ack.max_jumbo;
}

/* At one address there may be a program of ours, and then one of another kind, or both. */
static void another_kind_of_peer(void **state)
{
	const struct client c = a_client(1);
	struct aph_rx_ack ack = an_ack(1);
	struct host h;

	(void)state;
	begin(&h, 0);
	assert_int_equal(jumbo_offered(&h, &c, 1), 4);
	ack.extended = true;
	ack.window = 1000;
	send_ack(&h, &c, 0, &ack);
	assert_int_equal(jumbo_offered(&h, &c, 2), 46);
	ack.extended = false;
	send_ack(&h, &c, 0, &ack);
	assert_int_equal(jumbo_offered(&h, &c, 3), 4);
	(void)aph_rx_call_free(next_call(&h));
	end(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty_packets),
		cmocka_unit_test(signs_of_life),
		cmocka_unit_test(acknowledged_too_early),
		cmocka_unit_test(second_end),
		cmocka_unit_test(reply_instead_of_acknowledgement),
		cmocka_unit_test(end_of_a_body),
		cmocka_unit_test(short_bodies_teach_nothing),
		cmocka_unit_test(pauses),
		cmocka_unit_test(overtaken_acknowledgement),
		cmocka_unit_test(edge_of_the_window),
		cmocka_unit_test(another_packet_in_its_place),
		cmocka_unit_test(longest_bodies),
		cmocka_unit_test(longer_than_udp),
		cmocka_unit_test(another_kind_of_peer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
