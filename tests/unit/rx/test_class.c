/* SPDX-License-Identifier: MIT */
/*
 * What a security class may ask for, with one made for the test that has all of it: bytes before
 * and behind the user's, padding, a checksum word, ids of the packet, state of the connection.
 */
#include "rx/engine.h"

#include "rig.h"

#include <errno.h>

#define SERVICE 147
#define KEY	0x5a
#define BEFORE	4
#define BEHIND	2
#define BLOCK	8

static unsigned n_states;

static int toy_init(struct aph_rx_conn *conn)
{
	conn->class_state = &n_states;
	n_states++;
	return 0;
}

static int toy_init_fails(struct aph_rx_conn *conn)
{
	(void)conn;
	return -1;
}

static void toy_deinit(struct aph_rx_conn *conn)
{
	assert_ptr_equal(conn->class_state, &n_states);
	n_states--;
}

static struct aph_rx_layout toy_layout(const struct aph_rx_client *client,
				       const struct aph_rx_conn *conn)
{
	assert_true(!client != !conn);
	return (struct aph_rx_layout){ .header = BEFORE, .trailer = BEHIND, .block = BLOCK };
}

static uint16_t checksum(const struct aph_rx_header *header)
{
	return (uint16_t)(header->call_number * 31 + header->seq + (header->cid & 3) + 7);
}

static void toy_secure(struct aph_rx_conn *conn, struct aph_rx_header *header, uint8_t *packet,
		       size_t *len)
{
	uint8_t *body = packet + APH_RX_HEADER;
	size_t size = (BEFORE + *len + BEHIND + BLOCK - 1) / BLOCK * BLOCK;

	assert_ptr_equal(conn->class_state, &n_states);
	assert_int_equal(header->security, 2);
	aph_put32(body, (uint32_t)*len);
	memset(body + BEFORE + *len, 0xbe, size - BEFORE - *len);
	for (size_t i = BEFORE; i < size; i++)
		body[i] ^= KEY;
	header->cksum = checksum(header);
	*len = size;
}

static int32_t toy_verify(struct aph_rx_conn *conn, const struct aph_rx_header *header,
			  uint8_t *payload, size_t len, size_t *start, size_t *user_len)
{
	(void)conn;
	if (len < BLOCK || len % BLOCK || header->cksum != checksum(header))
		return 4711;
	for (size_t i = BEFORE; i < len; i++)
		payload[i] ^= KEY;
	*start = BEFORE;
	*user_len = aph_get32(payload);
	return *user_len + BEFORE + BEHIND <= len ? 0 : 4712;
}

static const struct aph_rx_class toy = {
	.index = 2,
	.name = "toy",
	.init = toy_init,
	.deinit = toy_deinit,
	.layout = toy_layout,
	.secure = toy_secure,
	.verify = toy_verify,
};

static const struct aph_rx_class toy_that_fails = { .index = 2, .init = toy_init_fails };

struct rig {
	struct aph_rx *rx;
	struct aph_rx_path path;
	struct aph_rx_client *client;
	struct aph_rx_call *call;
	uint8_t body[40000]; /* what has left, deciphered */
	size_t len;
	struct aph_rx_header header; /* of the last packet */
	uint32_t acked;
};

static void begin(struct rig *r, const struct aph_rx_class *class)
{
	memset(r, 0, sizeof(*r));
	r->rx = an_engine(0);
	r->path = a_path("10.0.0.2", 7000);
	assert_int_equal(aph_rx_client_new(&r->client, r->rx, &r->path, SERVICE, NULL), 0);
	r->client->class = class;
}

static void end(struct rig *r)
{
	(void)aph_rx_call_free(r->call);
	(void)aph_rx_client_free(r->client);
	(void)aph_rx_free(r->rx);
	assert_int_equal(n_states, 0);
}

static void take(struct rig *r, const uint8_t *packet, size_t len)
{
	uint8_t copy[2000];
	struct aph_rx_header h;
	size_t start = 0, user_len = 0;

	aph_rx_header_decode(&h, packet);
	if (h.type != APH_RX_DATA)
		return;
	assert_in_range(len, APH_RX_HEADER + BLOCK, 1440);
	memcpy(copy, packet + APH_RX_HEADER, len - APH_RX_HEADER);
	assert_int_equal(h.security, 2);
	assert_int_equal(toy_verify(NULL, &h, copy, len - APH_RX_HEADER, &start, &user_len), 0);
	if (h.seq == r->header.seq + 1) {
		memcpy(r->body + r->len, copy + start, user_len);
		r->len += user_len;
		r->header = h;
	}
}

static void look(struct rig *r)
{
	static uint8_t bytes[70000];
	struct aph_rx_message m;

	while (aph_rx_send(r->rx, &m, 1, now_ns) == 1) {
		size_t len = gather(&m, bytes, sizeof(bytes));

		for (size_t at = 0; at < len; at += m.segment)
			take(r, bytes + at, len - at < m.segment ? len - at : m.segment);
	}
}

static void answer(struct rig *r, uint8_t type, uint32_t seq, const uint8_t *body, size_t len,
		   uint16_t cksum)
{
	struct aph_rx_header h = r->header;
	uint8_t packet[2000];

	h.type = type;
	h.seq = seq;
	h.flags = type == APH_RX_DATA ? APH_RX_LAST_PACKET : 0;
	h.serial = ++r->acked;
	h.cksum = cksum;
	aph_rx_header_encode(packet, &h);
	memcpy(packet + APH_RX_HEADER, body, len);
	aph_rx_receive(r->rx, &r->path, packet, APH_RX_HEADER + len, 0, NULL, now_ns);
}

static void acknowledge(struct rig *r)
{
	const struct aph_rx_ack ack = { .first = r->header.seq + 1,
					.previous = r->header.seq,
					.reason = APH_RX_ACK_IDLE,
					.max_mtu = 5692,
					.if_mtu = 1444,
					.rwind = 255,
					.max_jumbo = 4 };
	uint8_t body[APH_RX_ACK_BODY_MAX];

	answer(r, APH_RX_ACK, 0, body, aph_rx_ack_encode(body, &ack), 0);
}

/* Bodies of all sizes around those where packets, and what is kept in the call itself, end. */
static void requests(void **state)
{
	static const size_t edges[] = { 0, 8, 216, 224, 232, 1402, 1412, 2804, 30000 };
	static uint8_t body[40000];

	(void)state;
	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = (uint8_t)(i * 7 + i / 256);
	for (size_t e = 0; e < sizeof(edges) / sizeof(edges[0]); e++) {
		for (size_t len = edges[e] > 9 ? edges[e] - 9 : 0; len < edges[e] + 9; len++) {
			struct rig r;

			begin(&r, &toy);
			assert_int_equal(aph_rx_call_new(&r.call, r.client, NULL), 0);
			assert_int_equal(aph_rx_call_write(r.call, body, len, 0), (ssize_t)len);
			for (unsigned i = 0; i < 50 && !(r.header.flags & APH_RX_LAST_PACKET);
			     i++) {
				look(&r);
				now_ns += S / 1000;
				acknowledge(&r);
			}
			assert_int_equal(r.len, len);
			assert_memory_equal(r.body, body, len);
			/* 1402 is the most that fits into 1408, a multiple of the block. */
			assert_int_equal(r.header.seq, len ? (len + 1401) / 1402 : 1);
			end(&r);
		}
	}
}

static void begin_call(struct rig *r)
{
	begin(r, &toy);
	assert_int_equal(aph_rx_call_new(&r->call, r->client, NULL), 0);
	assert_int_equal(aph_rx_call_write(r->call, "question", 8, 0), 8);
	look(r);
	now_ns += S / 1000;
}

static void replies(void **state)
{
	static const uint8_t sealed[] = { 0, 0, 0, 2, 'o' ^ KEY, 'k' ^ KEY, 0, 0 };
	static const uint8_t too_long[] = { 0, 0, 0, 3, 0, 0, 0, 0 };
	struct aph_rx_event event;
	char text[10];
	struct rig r;

	(void)state;
	begin_call(&r);
	r.header.seq = 1;
	answer(&r, APH_RX_DATA, 1, sealed, sizeof(sealed), checksum(&r.header));
	assert_int_equal(aph_rx_call_read(r.call, text, sizeof(text), 0), 2);
	assert_memory_equal(text, "ok", 2);
	end(&r);

	for (int wrong = 0; wrong < 3; wrong++) {
		begin_call(&r);
		r.header.seq = 1;
		answer(&r, APH_RX_DATA, 1, wrong == 1 ? too_long : sealed, wrong == 2 ? 5 : 8,
		       (uint16_t)(checksum(&r.header) + (wrong == 0)));
		assert_true(aph_rx_next(r.rx, &event));
		assert_int_equal(event.type, APH_RX_EVENT_END);
		assert_int_equal(event.end.outcome, APH_RX_ABORTED_HERE);
		assert_int_equal(event.end.code, wrong == 1 ? 4712 : 4711);
		end(&r);
	}
}

static void no_state(void **state)
{
	struct aph_rx_stats stats;
	struct rig r;

	(void)state;
	begin(&r, &toy_that_fails);
	assert_int_equal(aph_rx_call_new(&r.call, r.client, NULL), -ENOMEM);
	r.call = NULL;
	aph_rx_get_stats(r.rx, &stats);
	assert_int_equal(stats.n_client_connections, 0);
	end(&r);
}

/* A ticket may be of many KiB. */
static void large_responses(void **state)
{
	static const size_t lengths[] = { APH_RX_RAW_MAX - APH_RX_HEADER,
					  APH_RX_RAW_MAX - APH_RX_HEADER + 1, 1400, 12100,
					  APH_RX_LARGE_MAX - APH_RX_HEADER };
	const struct aph_rx_path path = a_path("10.0.0.2", 7000);
	const struct aph_rx_header header = { .type = APH_RX_RESPONSE, .epoch = 7, .security = 2 };
	static uint8_t body[APH_RX_LARGE_MAX];
	struct aph_rx_message message;
	struct aph_rx *rx = an_engine(0);

	(void)state;
	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = (uint8_t)(i * 7);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		aph_rx_raw_send(rx, &path, &header, body, lengths[i]);
		aph_rx_raw_send(rx, &path, &header, body, 4);
		assert_int_equal(aph_rx_send(rx, &message, 1, now_ns), 1);
		assert_int_equal(message.n_iov, 1);
		assert_int_equal(message.len, APH_RX_HEADER + lengths[i]);
		assert_memory_equal((uint8_t *)message.iov[0].iov_base + APH_RX_HEADER, body,
				    lengths[i]);
		assert_int_equal(message.fragment, message.len > 1444);
		assert_int_equal(aph_rx_send(rx, &message, 1, now_ns), 1);
		assert_int_equal(message.len, APH_RX_HEADER + 4);
	}
	/* No datagram is as large as that. */
	aph_rx_raw_send(rx, &path, &header, body, sizeof(body));
	assert_int_equal(aph_rx_send(rx, &message, 1, now_ns), 0);
	/* One that has left and one that has not are freed with the engine. */
	aph_rx_raw_send(rx, &path, &header, body, 3000);
	aph_rx_raw_send(rx, &path, &header, body, 3000);
	assert_int_equal(aph_rx_send(rx, &message, 1, now_ns), 1);
	(void)aph_rx_free(rx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(large_responses),
		cmocka_unit_test(requests),
		cmocka_unit_test(replies),
		cmocka_unit_test(no_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
