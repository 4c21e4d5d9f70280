/* SPDX-License-Identifier: MIT */
/*
 * A client that was let in and then writes anything into what it shares with the service: records,
 * words and memory. Each attack is made alone and at once with an honest client at work; the
 * attacker may lose its channel, nobody else.
 */
#include "hostile.h"

#include <string.h>
#include <unistd.h>

static struct victim victim;

static void bad_types(void **state)
{
	static const uint8_t types[] = { 0,
					 APH_RECORD_REPLY,
					 APH_RECORD_ABORT,
					 APH_RECORD_REFUSE,
					 APH_RECORD_LOSE,
					 10,
					 11,
					 127,
					 128,
					 255 };
	struct wire wire;

	(void)state;
	victim_start(&victim, 0);
	for (size_t i = 0; i < SUITE_LEN(types); i++) {
		/* Of a call that there is, and of one that there is not. */
		for (uint32_t tag = 0; tag < 2; tag++) {
			uint64_t before = victim_violations();

			assert_true(wire_open(&wire, victim.path, NULL));
			wire_tell(&wire, wire_record(APH_RECORD_REQUEST, 1, "h", 1));
			wire_tell(&wire, wire_record((enum aph_record_type)types[i], tag, "x", 1));
			assert_true(wire_hung_up(wire.sock, check_hang_ms(1000)));
			assert_int_equal(victim_violations(), before + 1);
			wire_close(&wire);
		}
		victim_check(&victim);
	}
	victim_stop(&victim);
}

static struct aph_record the_record;

static void post_the_record(struct wire *wire)
{
	wire_tell(wire, the_record);
}

static void bad_lengths(void **state)
{
	static const uint32_t inline_lens[] = { 41, 64, 4096, 1u << 31, UINT32_MAX };
	static const struct {
		uint32_t off, len;
	} pieces[] = {
		{ 1, 100 },
		{ 511, 100 },
		{ APH_ARENA_DEFAULT, 1 },
		{ APH_ARENA_DEFAULT - 512, 513 },
		{ 0, APH_ARENA_DEFAULT + 1 },
		{ 0, UINT32_MAX },
		{ UINT32_MAX, 1 },
		{ UINT32_MAX - 511, 512 },
		{ UINT32_MAX - 99, 100 },
		{ 512, UINT32_MAX },
		{ 512, UINT32_MAX - 511 },
		{ 1u << 31, 1u << 31 },
	};

	(void)state;
	victim_start(&victim, 0);
	for (size_t i = 0; i < SUITE_LEN(inline_lens); i++) {
		the_record = wire_record(APH_RECORD_REQUEST, 3, "e", 1);
		the_record.len = inline_lens[i];
		attack_must_end(&victim, post_the_record);
	}
	for (size_t i = 0; i < SUITE_LEN(pieces); i++) {
		the_record = wire_record(APH_RECORD_REQUEST, 3, NULL, pieces[i].len);
		the_record.flags = APH_RECORD_ARENA;
		the_record.off = pieces[i].off;
		attack_must_end(&victim, post_the_record);
	}
	victim_stop(&victim);
}

static void bad_flags(void **state)
{
	(void)state;
	victim_start(&victim, 0);
	for (unsigned bit = 2; bit < 8; bit++) {
		the_record = wire_record(APH_RECORD_REQUEST, 3, "e", 1);
		the_record.flags = (uint8_t)(1u << bit);
		attack_may_end(&victim, post_the_record);
	}
	the_record = wire_record(APH_RECORD_CANCEL, 0, NULL, 0);
	the_record.flags = 0xff;
	attack_may_end(&victim, post_the_record);
	victim_stop(&victim);
}

static void tag_out_of_range(struct wire *wire)
{
	wire_tell(wire,
		  wire_record(APH_RECORD_REQUEST, APH_TAG(wire->welcome.calls_max, 0), "e", 1));
}

static void tag_far_out_of_range(struct wire *wire)
{
	wire_tell(wire, wire_record(APH_RECORD_REQUEST, UINT32_MAX, "e", 1));
}

static void tag_in_use(struct wire *wire)
{
	wire_tell(wire, wire_record(APH_RECORD_REQUEST, 5, "h", 1));
	wire_tell(wire, wire_record(APH_RECORD_REQUEST, 5, "h", 1));
}

static void index_in_use(struct wire *wire)
{
	wire_tell(wire, wire_record(APH_RECORD_REQUEST, APH_TAG(5, 1), "h", 1));
	wire_tell(wire, wire_record(APH_RECORD_REQUEST, APH_TAG(5, 2), "h", 1));
}

static void body_after_the_end_of_the_body(struct wire *wire)
{
	wire_tell(wire, wire_record(APH_RECORD_REQUEST, 5, "h", 1));
	wire_tell(wire, wire_record(APH_RECORD_BODY, 5, NULL, 0));
}

static void body_in_the_record(struct wire *wire)
{
	struct aph_record record = wire_record(APH_RECORD_REQUEST, 5, "h", 1);

	record.flags = APH_RECORD_MORE;
	wire_tell(wire, record);
	wire_tell(wire, wire_record(APH_RECORD_BODY, 5, "inline", 6));
}

static void bad_tags(void **state)
{
	(void)state;
	victim_start(&victim, 0);
	attack_must_end(&victim, tag_out_of_range);
	attack_must_end(&victim, tag_far_out_of_range);
	attack_must_end(&victim, tag_in_use);
	attack_must_end(&victim, index_in_use);
	attack_may_end(&victim, body_after_the_end_of_the_body);
	attack_may_end(&victim, body_in_the_record);
	/* Of calls that nobody knows: they may have ended just now. */
	for (int type = APH_RECORD_BODY; type <= APH_RECORD_SIGNAL; type++) {
		if (type > APH_RECORD_DISPOSE && type < APH_RECORD_SIGNAL)
			continue;
		for (uint32_t tag = 7; tag != 0; tag = tag == 7 ? UINT32_MAX : 0) {
			the_record = wire_record((enum aph_record_type)type, tag, NULL, 0);
			attack_may_end(&victim, post_the_record);
			the_record.aux = UINT64_MAX;
			attack_may_end(&victim, post_the_record);
		}
	}
	victim_stop(&victim);
}

static void dispose_before_the_reply(struct wire *wire)
{
	wire_tell(wire, wire_record(APH_RECORD_REQUEST, 5, "h", 1));
	wire_tell(wire, wire_record(APH_RECORD_DISPOSE, 5, NULL, 0));
	wire_tell(wire, wire_record(APH_RECORD_DISPOSE, 5, NULL, 0));
	wire_tell(wire, wire_record(APH_RECORD_REQUEST, 5, "h", 1));
}

static void cancel_with_any_reason(struct wire *wire)
{
	for (uint64_t aux = 0; aux < 40; aux++) {
		struct aph_record record;

		wire_tell(wire, wire_record(APH_RECORD_REQUEST, APH_TAG(6, aux), "h", 1));
		record = wire_record(APH_RECORD_CANCEL, APH_TAG(6, aux), NULL, 0);
		record.aux = aux < 20 ? aux : aux * UINT64_C(0x123456789abcdef);
		wire_tell(wire, record);
		usleep(200);
	}
}

static void any_deadline(struct wire *wire)
{
	static const uint64_t deadlines[] = { 0, 1, INT64_MAX, (uint64_t)INT64_MAX + 1,
					      UINT64_MAX - 1 };

	for (size_t i = 0; i < SUITE_LEN(deadlines); i++) {
		struct aph_record record =
			wire_record(APH_RECORD_REQUEST, APH_TAG(8 + i, 0), "h", 1);

		record.aux = deadlines[i];
		wire_tell(wire, record);
	}
}

static void beats_out_of_order(void **state)
{
	(void)state;
	for (int receipts = 0; receipts < 2; receipts++) {
		victim_start(&victim, receipts ? APH_SERVICE_RECEIPTS_NOW | APH_SERVICE_EVENTS : 0);
		attack_may_end(&victim, dispose_before_the_reply);
		attack_may_end(&victim, cancel_with_any_reason);
		attack_may_end(&victim, any_deadline);
		victim_stop(&victim);
	}
}

static void wrong_number(struct wire *wire)
{
	struct aph_record record = wire_record(APH_RECORD_REQUEST, 3, "h", 1);

	wire_post_as(wire, record, wire->sent + 2);
	wire_ring(wire);
	wire_post_as(wire, record, wire->sent);
	wire_ring(wire);
	wire_post_as(wire, record, 0);
	wire_ring(wire);
	wire_post_as(wire, record, UINT32_MAX);
}

static void more_than_the_ring_holds(struct wire *wire)
{
	for (uint32_t i = 0; i < 5000; i++) {
		wire_post(wire,
			  wire_record(APH_RECORD_REQUEST, APH_TAG(i % 1024, i / 1024), "l", 1));
		if (i % 64 == 0)
			wire_ring(wire);
	}
}

static void taken_ahead(struct wire *wire)
{
	*wire_taken(wire) = wire->seen + 1000;
	for (uint32_t i = 0; i < 100; i++)
		wire_tell(wire, wire_record(APH_RECORD_REQUEST, APH_TAG(20 + i, 0), "e", 1));
}

static void taken_back(struct wire *wire)
{
	for (uint32_t i = 0; i < 100; i++) {
		*wire_taken(wire) = wire->seen - 1 - i * 77;
		wire_tell(wire, wire_record(APH_RECORD_REQUEST, APH_TAG(20 + i, 0), "e", 1));
		usleep(50);
	}
}

static void words_of_all_kinds(struct wire *wire)
{
	static const uint32_t values[] = { 0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff };

	for (size_t i = 0; i < SUITE_LEN(values); i++) {
		wire->words->client.wait = values[i];
		wire->words->client.want = values[i];
		wire->words->server.want = values[i];
		wire->words->server.scanned = values[i];
		wire->words->requests_taken = values[i];
		wire->words->generation = (int64_t)values[i] << 31;
		for (uint32_t k = 0; k < 2 * wire->welcome.depth; k++)
			wire->words->revoked[k] = (uint8_t)(values[i] + k);
		wire_tell(wire, wire_record(APH_RECORD_REQUEST, APH_TAG(30 + i, 0), "e", 1));
		usleep(200);
	}
}

static void revoke_everything(struct wire *wire)
{
	for (uint32_t i = 0; i < 2000; i++) {
		wire->words->revoked[(wire->sent + 1 + i % 3) % (2 * wire->welcome.depth)] = 1;
		wire_post(wire,
			  wire_record(APH_RECORD_REQUEST, APH_TAG(i % 1000, i / 1000), "e", 1));
		if (i % 16 == 0)
			wire_ring(wire);
	}
}

static void words(void **state)
{
	(void)state;
	victim_start(&victim, 0);
	attack_may_end(&victim, wrong_number);
	attack_may_end(&victim, more_than_the_ring_holds);
	attack_may_end(&victim, taken_ahead);
	attack_may_end(&victim, taken_back);
	attack_may_end(&victim, words_of_all_kinds);
	attack_may_end(&victim, revoke_everything);
	victim_stop(&victim);
}

/*
 * Asks for long replies, for which the service allocates in the reply arena, and says what it
 * likes.
 */
static void request_long_replies(struct wire *wire, char op)
{
	struct service_get get = { .len = 600000, .seed = 1 };
	unsigned char request[1 + sizeof(get)];

	request[0] = (unsigned char)op;
	memcpy(request + 1, &get, sizeof(get));
	for (uint32_t i = 0; i < 6; i++)
		wire_tell(wire,
			  wire_record(APH_RECORD_REQUEST, APH_TAG(100 + i, wire->sent & 0xffff),
				      request, sizeof(request)));
}

static void release_what_was_not_sent(struct wire *wire)
{
	request_long_replies(wire, 'g');
	request_long_replies(wire, 'G');
	request_long_replies(wire, 'z');
	for (int i = 0; i < 200; i++) {
		for (int k = 0; k < 8; k++)
			wire->words->reply_released[k] =
				i % 2 ? UINT64_MAX : UINT64_C(0xaaaaaaaaaaaaaaaa) >> i % 7;
		*wire_taken(wire) = (uint32_t)i;
		wire_ring(wire);
		usleep(100);
	}
}

static void scribble_in_both_arenas(struct wire *wire)
{
	request_long_replies(wire, 'g');
	for (int i = 0; i < 20; i++) {
		memset(wire_arena(wire, false), i, wire->welcome.arena);
		memset(wire_arena(wire, true), i, wire->welcome.arena);
		memset((void *)wire_slot(wire, true, 1), 0xa5, wire->welcome.depth * APH_LINE);
		for (int k = 0; k < 8; k++)
			wire->words->request_released[k] =
				(uint64_t)i * UINT64_C(0x0101010101010101);
		wire_ring(wire);
	}
}

/* The same memory as the body of several calls, which are read while it changes. */
static void one_piece_for_many_calls(struct wire *wire)
{
	for (uint32_t i = 0; i < 30; i++) {
		struct aph_record record =
			wire_record(APH_RECORD_REQUEST, APH_TAG(200 + i, 0), NULL, 40000);

		record.flags = APH_RECORD_ARENA;
		record.off = i % 3 * 1024;
		memcpy(wire_arena(wire, false) + i % 3 * 1024, &"ebd"[i % 3], 1);
		wire_tell(wire, record);
		memset(wire_arena(wire, false), (int)i, 41000);
	}
}

static void fill_with(struct wire *wire, int byte)
{
	for (int i = 0; i < 10; i++) {
		memset(wire->map, byte, wire->size);
		wire_ring(wire);
		usleep(300);
	}
}

static void fill_with_ones(struct wire *wire)
{
	fill_with(wire, 0xff);
}

static void fill_with_zeros(struct wire *wire)
{
	request_long_replies(wire, 'g');
	fill_with(wire, 0);
}

static void memory(void **state)
{
	(void)state;
	victim_start(&victim, 0);
	attack_may_end(&victim, release_what_was_not_sent);
	attack_may_end(&victim, scribble_in_both_arenas);
	attack_may_end(&victim, one_piece_for_many_calls);
	attack_may_end(&victim, fill_with_ones);
	attack_may_end(&victim, fill_with_zeros);
	victim_stop(&victim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(bad_types), SUITE_TEST(bad_lengths),	       SUITE_TEST(bad_flags),
		SUITE_TEST(bad_tags),  SUITE_TEST(beats_out_of_order), SUITE_TEST(words),
		SUITE_TEST(memory),
	};

	return suite_run("hostile client", tests, SUITE_LEN(tests), 60);
}
