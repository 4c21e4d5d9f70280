/* SPDX-License-Identifier: MIT */
/*
 * The codec: packets of Linux kernels octet for octet, our own there and back, and every way to be
 * malformed.
 */
#include "rx/wire.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PACKET_MAX 65536

/* The octets that a line of a vector file stands for, or 0 at its end. Comments are skipped. */
static size_t next_vector(FILE *file, uint8_t *out, unsigned long *number)
{
	char line[512];
	size_t len = 0;
	char *at;

	while (fgets(line, sizeof(line), file)) {
		if (!isxdigit((unsigned char)line[0]))
			continue;
		for (at = line; isxdigit((unsigned char)at[0]); at += 2) {
			const char octet[3] = { at[0], at[1], 0 };

			out[len++] = (uint8_t)strtoul(octet, NULL, 16);
		}
		*number = strtoul(at, NULL, 10);
		return len;
	}
	return 0;
}

static FILE *open_vectors(const char *name)
{
	char path[512];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", VECTORS, name);
	file = fopen(path, "re");
	assert_non_null(file);
	return file;
}

static void linux_headers(void **state)
{
	FILE *file = open_vectors("linux-headers.hex");
	uint8_t bytes[300], again[APH_RX_HEADER];
	struct aph_rx_header header;
	unsigned long number;
	unsigned n = 0;

	(void)state;
	while (next_vector(file, bytes, &number) == APH_RX_HEADER) {
		aph_rx_header_decode(&header, bytes);
		assert_string_not_equal(aph_rx_type_name(header.type), "unknown");
		assert_true(header.serial > 0 && header.serial < 1000);
		assert_true(header.cid != 0 && header.epoch >> 31);
		memset(again, 0xee, sizeof(again));
		aph_rx_header_encode(again, &header);
		assert_memory_equal(again, bytes, sizeof(again));
		n++;
	}
	fclose(file);
	assert_true(n > 50);
}

static void linux_acks(void **state)
{
	static uint8_t bytes[PACKET_MAX];
	FILE *file = open_vectors("linux-acks.hex");
	uint8_t again[APH_RX_ACK_BODY_MAX];
	struct aph_rx_header header;
	struct aph_rx_ack ack;
	unsigned long n_zeros;
	unsigned n = 0;
	size_t len;

	(void)state;
	while ((len = next_vector(file, bytes, &n_zeros)) > 0) {
		assert_int_equal(len, 65);
		memset(bytes + len, 0, n_zeros);
		aph_rx_header_decode(&header, bytes);
		assert_int_equal(header.type, APH_RX_ACK);
		assert_int_equal(header.seq, 0);
		assert_true(aph_rx_ack_decode(&ack, bytes + APH_RX_HEADER,
					      len + n_zeros - APH_RX_HEADER));
		assert_int_equal(ack.n_words, 4);
		assert_int_equal(ack.n_acks, 0);
		assert_false(ack.extended);
		assert_true(ack.first >= 1 && ack.first < 20);
		assert_true(ack.previous < ack.first);
		assert_true(ack.rwind > 200 && ack.rwind <= 255);
		assert_int_equal(ack.if_mtu, 1444);
		assert_string_not_equal(aph_rx_ack_reason_name(ack.reason), "unknown");
		/* What Linux writes is what we write. */
		assert_int_equal(aph_rx_ack_encode(again, &ack), len - APH_RX_HEADER);
		assert_memory_equal(again, bytes + APH_RX_HEADER, len - APH_RX_HEADER);
		n++;
	}
	fclose(file);
	assert_true(n > 50);
}

/* first 10, previous 14, serial 7, OUT_OF_SEQUENCE, four entries, trailer 5692 1444 255 4 */
static const uint8_t a_body[] = {
	0, 0, 0, 0, 0, 0, 0,  10, 0, 0, 0, 14,	0, 0, 0, 7,   3, 4, 0, 1, 0,
	1, 0, 0, 0, 0, 0, 22, 60, 0, 0, 5, 164, 0, 0, 0, 255, 0, 0, 0, 4,
};

static void soft_acks_and_trailers(void **state)
{
	static const uint32_t words[] = { 5692, 1444, 255, 4 };
	struct aph_rx_ack ack;

	(void)state;
	assert_int_equal(sizeof(a_body), 18 + 4 + 3 + 16);
	for (size_t len = 0; len <= sizeof(a_body); len++) {
		const uint32_t *known[] = { &ack.max_mtu, &ack.if_mtu, &ack.rwind, &ack.max_jumbo };
		unsigned n_words = len < 25 ? 0 : (unsigned)(len - 25) / 4;

		/* A copy of its very size: a sanitizer sees what is read behind it. */
		uint8_t *copy = malloc(len + 1);

		memcpy(copy, a_body, len);
		memset(&ack, 0xee, sizeof(ack));
		assert_int_equal(aph_rx_ack_decode(&ack, copy, len), len >= 22);
		if (len >= 22) {
			assert_int_equal(ack.first, 10);
			assert_int_equal(ack.previous, 14);
			assert_int_equal(ack.serial, 7);
			assert_int_equal(ack.reason, APH_RX_ACK_OUT_OF_SEQUENCE);
			assert_int_equal(ack.n_acks, 4);
			assert_memory_equal(ack.acks, "\0\1\0\1", 4);
			assert_int_equal(ack.n_words, n_words);
			for (unsigned i = 0; i < 4; i++)
				assert_int_equal(*known[i], i < n_words ? words[i] : 0);
			assert_false(ack.extended);
		}
		free(copy);
	}
}

static void first_zero_is_malformed(void **state)
{
	uint8_t body[sizeof(a_body)];
	struct aph_rx_ack ack;

	(void)state;
	memcpy(body, a_body, sizeof(body));
	body[7] = 0;
	assert_false(aph_rx_ack_decode(&ack, body, sizeof(body)));
	body[4] = 1;
	assert_true(aph_rx_ack_decode(&ack, body, sizeof(body)));
	assert_int_equal(ack.first, 0x01000000);
}

static size_t an_extended_ack(uint8_t *body, uint32_t first, uint32_t n_ranges)
{
	static uint8_t acks[255];
	struct aph_rx_ack ack = {
		.first = first,
		.previous = first + 5000,
		.serial = 77,
		.reason = APH_RX_ACK_REQUESTED,
		.n_acks = 255,
		.acks = acks,
		.max_mtu = 65160,
		.if_mtu = 1444,
		.rwind = 255,
		.max_jumbo = 46,
		.extended = true,
		.window = 8192,
		.n_ranges = n_ranges,
	};

	memset(acks, 1, sizeof(acks));
	acks[0] = 0;
	for (uint32_t i = 0; i < n_ranges; i++) {
		ack.ranges[i].start = first + 256 + 10 * i;
		ack.ranges[i].end = first + 256 + 10 * i + 9;
	}
	return aph_rx_ack_encode(body, &ack);
}

static void extension_there_and_back(void **state)
{
	uint8_t body[APH_RX_ACK_BODY_MAX + 100];
	struct aph_rx_ack ack;

	(void)state;
	/* Also where the sequence numbers wrap around between the ranges. */
	for (int wrap = 0; wrap < 2; wrap++) {
		uint32_t first = wrap ? UINT32_MAX - 300 : 1;

		for (uint32_t n = 0; n <= APH_RX_ACK_RANGES_MAX; n++) {
			size_t len = an_extended_ack(body, first, n);

			assert_int_equal(len, 18 + 255 + 3 + 16 + 12 + 8 * n);
			assert_true(len <= APH_RX_ACK_BODY_MAX);
			memset(body + len, 0, 100);
			assert_true(aph_rx_ack_decode(&ack, body, len + 100));
			assert_true(ack.extended);
			assert_int_equal(ack.window, 8192);
			assert_int_equal(ack.n_ranges, n);
			for (uint32_t i = 0; i < n; i++) {
				assert_int_equal(ack.ranges[i].start, first + 256 + 10 * i);
				assert_int_equal(ack.ranges[i].end, first + 256 + 10 * i + 9);
			}
		}
	}
}

/* Whatever is wrong with it, the ACK in front of it counts. */
static void extension_malformed(void **state)
{
	static const struct {
		size_t at; /* from the extension's beginning */
		uint32_t value;
	} wrong[] = {
		{ 0, 0 },	    /* padding */
		{ 0, 0x41706832 },  /* another magic */
		{ 8, 33 },	    /* more ranges than there may be */
		{ 8, 4 },	    /* ... than there are */
		{ 8, 0x20000001 },  /* ... and a product that overflows 32 bits */
		{ 12, 5 },	    /* a range that starts at first */
		{ 12, 4 },	    /* ... below it */
		{ 16, 261 },	    /* an empty one */
		{ 16, 200 },	    /* one that ends before it starts */
		{ 16, 271 },	    /* one that touches the next */
		{ 16, 300 },	    /* ... and one that overlaps it */
		{ 32, 0x90000000 }, /* half of all numbers away */
	};
	uint8_t body[APH_RX_ACK_BODY_MAX];
	struct aph_rx_ack ack;
	size_t len = an_extended_ack(body, 5, 3), at = 18 + 255 + 3 + 16;

	(void)state;
	assert_true(aph_rx_ack_decode(&ack, body, len));
	assert_true(ack.extended);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		(void)an_extended_ack(body, 5, 3);
		aph_put32(body + at + wrong[i].at, wrong[i].value);
		assert_true(aph_rx_ack_decode(&ack, body, len));
		assert_false(ack.extended);
		assert_int_equal(ack.n_ranges, 0);
		assert_int_equal(ack.window, 0);
		assert_int_equal(ack.rwind, 255);
	}
	(void)an_extended_ack(body, 5, 3);
	for (size_t cut = 1; cut <= 12 + 3 * 8; cut++) {
		assert_true(aph_rx_ack_decode(&ack, body, len - cut));
		assert_false(ack.extended);
	}
}

static const struct aph_rx_header data_header = {
	.epoch = 0x80000001,
	.cid = 0x1230,
	.call_number = 4,
	.seq = UINT32_MAX,
	.serial = 100,
	.type = APH_RX_DATA,
	.flags = APH_RX_CLIENT_INITIATED | APH_RX_JUMBO_PACKET,
	.user_status = 1,
	.security = 2,
	.cksum = 0x1111,
	.service = 52,
};

static void jumbo_split(void **state)
{
	uint8_t datagram[2 * (APH_RX_JUMBO_PAYLOAD + APH_RX_JUMBO_HEADER) + 10];
	struct aph_rx_header header = data_header;
	const uint8_t *data = datagram, *payload;
	size_t len = sizeof(datagram), payload_len;
	uint8_t *second = datagram + APH_RX_JUMBO_PAYLOAD, *third = second + 1416;

	(void)state;
	memset(datagram, 0, sizeof(datagram));
	memcpy(second, "\x22\xff\xab\xcd", 4); /* JUMBO, REQUEST_ACK; not CLIENT_INITIATED */
	memcpy(third, "\x04\x00\x00\x01", 4);

	assert_int_equal(aph_rx_jumbo_next(&header, &data, &len, &payload, &payload_len), 1);
	assert_ptr_equal(payload, datagram);
	assert_int_equal(payload_len, 1412);
	assert_int_equal(header.seq, 0);
	assert_int_equal(header.serial, 101);
	assert_int_equal(header.flags, 0x23);
	assert_int_equal(header.cksum, 0xabcd);
	assert_int_equal(header.user_status, 0);
	assert_int_equal(header.cid, data_header.cid);
	assert_int_equal(header.service, data_header.service);

	assert_int_equal(aph_rx_jumbo_next(&header, &data, &len, &payload, &payload_len), 1);
	assert_ptr_equal(payload, second + 4);
	assert_int_equal(payload_len, 1412);
	assert_int_equal(header.seq, 1);
	assert_int_equal(header.serial, 102);
	assert_int_equal(header.flags, 0x05);
	assert_int_equal(header.cksum, 1);

	assert_int_equal(aph_rx_jumbo_next(&header, &data, &len, &payload, &payload_len), 0);
	assert_ptr_equal(payload, third + 4);
	assert_int_equal(payload_len, 10);
	assert_int_equal(len, 0);
	assert_int_equal(header.seq, 1);
}

static void plain_data_takes_all(void **state)
{
	struct aph_rx_header header = data_header;
	uint8_t bytes[3000] = { 0 };

	(void)state;
	header.flags = APH_RX_LAST_PACKET;
	for (size_t n = 0; n < sizeof(bytes); n += 700) {
		const uint8_t *data = bytes, *payload = NULL;
		size_t len = n, payload_len = 1;

		assert_int_equal(aph_rx_jumbo_next(&header, &data, &len, &payload, &payload_len),
				 0);
		assert_int_equal(payload_len, n);
		assert_ptr_equal(payload, bytes);
	}
}

static void jumbo_malformed(void **state)
{
	uint8_t *bytes = calloc(1, 1416);
	struct aph_rx_header header = data_header;
	const uint8_t *data, *payload;
	size_t len, payload_len;

	(void)state;
	for (size_t n = 0; n < 1416; n++) {
		header = data_header;
		data = bytes;
		len = n;
		assert_int_equal(aph_rx_jumbo_next(&header, &data, &len, &payload, &payload_len),
				 -1);
	}
	/* Just enough: the packet that follows is empty, which is a packet. */
	len = 1416;
	assert_int_equal(aph_rx_jumbo_next(&header, &data, &len, &payload, &payload_len), 1);
	assert_int_equal(aph_rx_jumbo_next(&header, &data, &len, &payload, &payload_len), 0);
	assert_int_equal(payload_len, 0);

	header = data_header;
	header.flags |= APH_RX_LAST_PACKET;
	data = bytes;
	len = 1416;
	assert_int_equal(aph_rx_jumbo_next(&header, &data, &len, &payload, &payload_len), -1);
	free(bytes);
}

static void names(void **state)
{
	(void)state;
	assert_string_equal(aph_rx_type_name(1), "DATA");
	assert_string_equal(aph_rx_type_name(13), "VERSION");
	assert_string_equal(aph_rx_ack_reason_name(9), "IDLE");
	for (unsigned i = 0; i < 256; i++) {
		bool is_type = (i >= 1 && i <= 9) || i == 13;

		assert_int_equal(strcmp(aph_rx_type_name((uint8_t)i), "unknown") != 0, is_type);
		assert_int_equal(strcmp(aph_rx_ack_reason_name((uint8_t)i), "unknown") != 0,
				 i >= 1 && i <= 9);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(linux_headers),
		cmocka_unit_test(linux_acks),
		cmocka_unit_test(soft_acks_and_trailers),
		cmocka_unit_test(first_zero_is_malformed),
		cmocka_unit_test(extension_there_and_back),
		cmocka_unit_test(extension_malformed),
		cmocka_unit_test(jumbo_split),
		cmocka_unit_test(plain_data_takes_all),
		cmocka_unit_test(jumbo_malformed),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
