/* SPDX-License-Identifier: MIT */
/* An engine with a service, and clients whose packets are made by hand. */
#ifndef TESTS_UNIT_RX_STRANGER_H
#define TESTS_UNIT_RX_STRANGER_H

#include "rx/engine.h"

#include "rig.h"

#define SERVICE	 147
#define MS	 UINT64_C(1000000)
#define LAST	 APH_RX_LAST_PACKET
#define BODY_MAX 60000

/* An engine with a service, and what it sent since it was last looked at. */
struct host {
	struct aph_rx *rx;
	struct aph_rx_service *service;
	uint32_t serial;	       /* of the client */
	size_t n_received, n_sent;     /* bytes, in all */
	size_t n_bytes;		       /* that left */
	unsigned n_types[14];	       /* packets that left */
	struct aph_rx_header seen[14]; /* the last one of each type */
	uint8_t acked[4096];	       /* body of the last ACK */
	size_t acked_len;
};

/* Who speaks: an address and one of its connections. */
struct client {
	struct aph_rx_path path;
	uint32_t epoch, cid;
};

static inline void begin_with(struct host *h, const struct aph_rx_config *config)
{
	memset(h, 0, sizeof(*h));
	assert_int_equal(aph_rx_new(&h->rx, config, now_ns), 0);
	assert_int_equal(aph_rx_service_add(&h->service, h->rx, SERVICE, NULL), 0);
}

static inline void begin(struct host *h, uint32_t flags)
{
	const struct aph_rx_config config = a_config(flags);

	begin_with(h, &config);
}

static inline void end(struct host *h)
{
	(void)aph_rx_service_remove(h->service);
	(void)aph_rx_free(h->rx);
}

static inline struct client a_client(unsigned n)
{
	struct client c = { .path = a_path("10.0.0.2", 7001), .epoch = 0x80001000, .cid = n * 4 };

	return c;
}

static inline void note(struct host *h, const uint8_t *packet, size_t len)
{
	struct aph_rx_header header;

	assert_true(len >= APH_RX_HEADER);
	aph_rx_header_decode(&header, packet);
	assert_in_range(header.type, 1, 13);
	h->n_types[header.type]++;
	h->seen[header.type] = header;
	h->n_bytes += len;
	h->n_sent += len;
	if (header.type != APH_RX_ACK)
		return;
	h->acked_len = len - APH_RX_HEADER;
	assert_true(h->acked_len <= sizeof(h->acked));
	memcpy(h->acked, packet + APH_RX_HEADER, h->acked_len);
}

/* Takes all that wants to leave. */
static inline void look(struct host *h)
{
	struct aph_rx_message message;
	static uint8_t bytes[70000];

	h->n_bytes = 0;
	memset(h->n_types, 0, sizeof(h->n_types));
	while (aph_rx_send(h->rx, &message, 1, now_ns) == 1) {
		size_t len = gather(&message, bytes, sizeof(bytes));

		for (size_t at = 0; at < len; at += message.segment)
			note(h, bytes + at,
			     len - at < message.segment ? len - at : message.segment);
	}
}

/* In steps, so that it does not look as if the clock had jumped. */
static inline void pass(struct host *h, uint64_t ns)
{
	for (uint64_t end_ns = now_ns + ns; now_ns < end_ns;) {
		now_ns += end_ns - now_ns < S ? end_ns - now_ns : S;
		aph_rx_tick(h->rx, now_ns);
	}
}

static inline void send_packet(struct host *h, const struct client *c, struct aph_rx_header header,
			       const uint8_t *body, size_t len)
{
	static uint8_t packet[APH_RX_HEADER + BODY_MAX];

	header.epoch = c->epoch;
	header.cid |= c->cid;
	header.serial = ++h->serial;
	header.flags |= APH_RX_CLIENT_INITIATED;
	header.service = SERVICE;
	aph_rx_header_encode(packet, &header);
	assert_true(len <= BODY_MAX);
	memset(packet + APH_RX_HEADER, 'x', len);
	if (body)
		memcpy(packet + APH_RX_HEADER, body, len);
	h->n_received += APH_RX_HEADER + len;
	aph_rx_receive(h->rx, &c->path, packet, APH_RX_HEADER + len, 0, NULL, now_ns);
}

static inline void send_data(struct host *h, const struct client *c, uint32_t channel, uint32_t seq,
			     uint8_t flags, size_t len)
{
	send_packet(h, c,
		    (struct aph_rx_header){ .cid = channel,
					    .call_number = 1,
					    .seq = seq,
					    .type = APH_RX_DATA,
					    .flags = flags },
		    NULL, len);
}

static inline void send_ack(struct host *h, const struct client *c, uint32_t channel,
			    const struct aph_rx_ack *ack)
{
	uint8_t body[APH_RX_ACK_BODY_MAX];
	size_t len = aph_rx_ack_encode(body, ack);

	send_packet(h, c,
		    (struct aph_rx_header){ .cid = channel,
					    .call_number = 1,
					    .type = APH_RX_ACK,
					    .flags = APH_RX_SLOW_START_OK },
		    body, len);
}

static inline struct aph_rx_call *next_call(struct host *h)
{
	struct aph_rx_event event;

	assert_true(aph_rx_next(h->rx, &event));
	assert_int_equal(event.type, APH_RX_EVENT_CALL);
	return event.call;
}

/* A request for a large reply. */
static inline struct aph_rx_call *ask_for_much(struct host *h, const struct client *c,
					       size_t request)
{
	static const uint8_t reply[400000];
	struct aph_rx_call *call;

	send_data(h, c, 0, 1, LAST, request);
	call = next_call(h);
	assert_true(aph_rx_call_write(call, reply, sizeof(reply), 0) > 0);
	return call;
}

#endif
