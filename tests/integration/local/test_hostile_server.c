/* SPDX-License-Identifier: MIT */
/*
 * A real client of a service that lies on an open channel: in its records, in the words it shares.
 * The client's calls each end once and in time, its other channels go on, and nothing is left
 * behind.
 */
#include "liar.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef void (*lie_fn)(struct wire *wire, const struct aph_record *request);

struct lying {
	lie_fn lie;
	struct wire wire;
	_Atomic bool done;
};

static void *lie_once(void *arg)
{
	struct lying *lying = arg;
	struct aph_hello hello;
	struct aph_record request;
	int sock = wire_accept(liar.listener, &hello, check_hang_ms(2000));

	CHECK(sock >= 0);
	wire_serve_well(&lying->wire, sock, &hello);
	/* The first call is answered well: the channel is one that works. */
	CHECK(wire_next(&lying->wire, &request, check_hang_ms(2000)));
	CHECK(request.type == APH_RECORD_REQUEST);
	wire_tell(&lying->wire, wire_record(APH_RECORD_REPLY, request.tag, "fine", 4));
	/* Its DISPOSE may come first. */
	do {
		CHECK(wire_next(&lying->wire, &request, check_hang_ms(2000)));
	} while (request.type != APH_RECORD_REQUEST);
	lying->lie(&lying->wire, &request);
	lying->done = true;
	return NULL;
}

/*
 * How a call and its channel must end when the service tells this lie; NULL: in any way, but in
 * time.
 */
static void one_lie(lie_fn lie, const enum aph_outcome *outcome, const enum aph_reason *reason)
{
	struct lying lying = { .lie = lie };
	struct aph_channel *channel;
	struct aph_result result;
	struct aph_call *call;
	struct aph_event ev;
	pthread_t thread;
	char reply[8];
	size_t len = sizeof(reply);
	bool ended = false, closed = false;
	int fds[8];
	ssize_t n;

	assert_int_equal(pthread_create(&thread, NULL, lie_once, &lying), 0);
	assert_int_equal(aph_channel_open(&channel, liar.honest.ep, "liar", NULL), 0);
	assert_int_equal(aph_call(channel, "one", 3, reply, &len, aph_deadline_ms(10000)), 0);
	assert_int_equal(len, 4);
	assert_memory_equal(reply, "fine", 4);
	call = client_begin(channel, "two", 3, aph_deadline_ms((uint64_t)check_ms(300)));
	while (!ended || (reason && *reason == APH_REASON_PROTOCOL && !closed)) {
		client_next(liar.honest.ep, &ev, 3000);
		assert_ptr_equal(ev.channel, channel);
		if (ev.type == APH_EVENT_CLOSED) {
			assert_false(closed);
			closed = true;
			continue;
		}
		assert_ptr_equal(ev.call, call);
		assert_false(ended);
		if (ev.type != APH_EVENT_WRITABLE)
			while (aph_call_read(call, reply, sizeof(reply)) > 0)
				;
		if (ev.type != APH_EVENT_END)
			continue;
		ended = true;
		result = ev.result;
	}
	if (outcome)
		assert_string_equal(aph_outcome_name(result.outcome), aph_outcome_name(*outcome));
	if (reason)
		assert_string_equal(aph_reason_name(result.reason), aph_reason_name(*reason));
	while ((n = aph_call_take_fds(call, fds, 8)) > 0)
		while (n > 0)
			close(fds[--n]);
	aph_call_free(call);
	client_echo(liar.honest.channel);
	assert_int_equal(pthread_join(thread, NULL), 0);
	/* Nothing more comes on that channel, but perhaps its own end. */
	if (aph_endpoint_next(liar.honest.ep, &ev, aph_deadline_ms(1)) == 0) {
		assert_int_equal(ev.type, APH_EVENT_CLOSED);
		assert_false(closed);
	}
	aph_channel_close(channel);
	wire_close(&lying.wire);
	client_echo(liar.honest.channel);
}

static const enum aph_outcome lost = APH_LOST, aborted = APH_ABORTED, answered = APH_ANSWERED;
static const enum aph_reason broke = APH_REASON_PROTOCOL, late = APH_REASON_DEADLINE,
			     closed_by = APH_REASON_CLOSED, none = APH_REASON_NONE;

static struct aph_record the_record;

static void tell_the_record(struct wire *wire, const struct aph_record *request)
{
	the_record.tag = request->tag;
	wire_tell(wire, the_record);
}

static void records_that_make_no_sense(void **state)
{
	static const uint8_t types[] = { 0,
					 APH_RECORD_REQUEST,
					 APH_RECORD_BODY,
					 APH_RECORD_CANCEL,
					 APH_RECORD_DISPOSE,
					 APH_RECORD_SIGNAL,
					 200,
					 255 };
	static const struct {
		uint32_t off, len;
	} pieces[] = {
		{ 3, 10 },	     { APH_ARENA_DEFAULT, 1 },	{ 0, APH_ARENA_DEFAULT + 1 },
		{ 512, UINT32_MAX }, { UINT32_MAX - 511, 512 }, { UINT32_MAX, UINT32_MAX },
	};
	static const uint32_t lens[] = { 41, 64, UINT32_MAX };

	(void)state;
	liar_start();
	for (size_t i = 0; i < SUITE_LEN(types); i++) {
		the_record = wire_record((enum aph_record_type)types[i], 0, "x", 1);
		one_lie(tell_the_record, &lost, &broke);
	}
	for (size_t i = 0; i < SUITE_LEN(pieces); i++) {
		the_record = wire_record(APH_RECORD_REPLY, 0, NULL, pieces[i].len);
		the_record.flags = APH_RECORD_ARENA;
		the_record.off = pieces[i].off;
		one_lie(tell_the_record, &lost, &broke);
	}
	for (size_t i = 0; i < SUITE_LEN(lens); i++) {
		the_record = wire_record(APH_RECORD_REPLY, 0, "x", 1);
		the_record.len = lens[i];
		one_lie(tell_the_record, &lost, &broke);
	}
	the_record = wire_record(APH_RECORD_REPLY, 0, "x", 1);
	the_record.n_fds = 1;
	one_lie(tell_the_record, &lost, &broke);
	the_record.n_fds = 255;
	one_lie(tell_the_record, &lost, &broke);
	the_record = wire_record(APH_RECORD_REFUSE, 0, NULL, 0);
	the_record.aux = 1000;
	one_lie(tell_the_record, &lost, &broke);
	liar_stop();
}

static void reply_to_others(struct wire *wire, const struct aph_record *request)
{
	for (uint32_t i = 1; i < 12; i++) {
		wire_tell(wire, wire_record(APH_RECORD_REPLY, request->tag + i, "wrong", 5));
		wire_tell(wire, wire_record(APH_RECORD_ABORT, request->tag + (i << 16), NULL, 0));
	}
	wire_tell(wire, wire_record(APH_RECORD_REPLY, UINT32_MAX, "wrong", 5));
	wire_tell(wire, wire_record(APH_RECORD_ABORT, request->tag, NULL, 0));
}

static void reply_twice(struct wire *wire, const struct aph_record *request)
{
	wire_post(wire, wire_record(APH_RECORD_REPLY, request->tag, "one", 3));
	wire_post(wire, wire_record(APH_RECORD_REPLY, request->tag, "two", 3));
	wire_post(wire, wire_record(APH_RECORD_ABORT, request->tag, NULL, 0));
	wire_tell(wire, wire_record(APH_RECORD_LOSE, request->tag, NULL, 0));
}

static void stay_silent(struct wire *wire, const struct aph_record *request)
{
	(void)wire;
	(void)request;
}

static void reply_a_part(struct wire *wire, const struct aph_record *request)
{
	struct aph_record record = wire_record(APH_RECORD_REPLY, request->tag, "part", 4);

	record.flags = APH_RECORD_MORE;
	wire_tell(wire, record);
}

static void reply_a_part_and_hang_up(struct wire *wire, const struct aph_record *request)
{
	reply_a_part(wire, request);
	shutdown(wire->sock, SHUT_RDWR);
}

static void begin_the_reply_twice(struct wire *wire, const struct aph_record *request)
{
	reply_a_part(wire, request);
	reply_a_part(wire, request);
}

static void fewer_fds(struct wire *wire, const struct aph_record *request)
{
	struct aph_record record = wire_record(APH_RECORD_REPLY, request->tag, "fds", 3);
	int fds[3] = { 2, 2, 2 };

	record.n_fds = 4;
	wire_send(wire->sock, "d", 1, fds, 3);
	wire_tell(wire, record);
}

static void more_fds(struct wire *wire, const struct aph_record *request)
{
	struct aph_record record = wire_record(APH_RECORD_REPLY, request->tag, "fds", 3);
	int fds[253];

	for (int i = 0; i < 253; i++)
		fds[i] = STDERR_FILENO;
	record.n_fds = 64;
	wire_send(wire->sock, "d", 1, fds, 253);
	wire_tell(wire, record);
}

static void no_such_message(struct wire *wire, const struct aph_record *request)
{
	(void)request;
	wire_send(wire->sock, "?", 1, NULL, 0);
	wire_ring(wire);
}

static void records_out_of_order(void **state)
{
	(void)state;
	liar_start();
	one_lie(reply_to_others, &aborted, &none);
	one_lie(reply_twice, &answered, &none);
	one_lie(stay_silent, &lost, &late);
	one_lie(reply_a_part, &lost, &late);
	one_lie(reply_a_part_and_hang_up, &lost, &closed_by);
	one_lie(begin_the_reply_twice, &lost, &broke);
	one_lie(fewer_fds, &lost, &broke);
	one_lie(more_fds, NULL, NULL);
	one_lie(no_such_message, &lost, NULL);
	liar_stop();
}

static void taken_ahead(struct wire *wire, const struct aph_record *request)
{
	(void)request;
	*wire_taken(wire) = wire->seen + 100000;
	wire_ring(wire);
}

static void words_of_all_kinds(struct wire *wire, const struct aph_record *request)
{
	static const uint32_t values[] = { 0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff };

	(void)request;
	for (size_t i = 0; i < SUITE_LEN(values); i++) {
		wire->words->server.want = values[i];
		wire->words->server.scanned = values[i];
		*wire_taken(wire) = values[i];
		wire->words->client.wait = values[i];
		wire->words->replies_taken = values[i];
		wire->words->generation = values[i];
		wire->shared->state = values[i];
		wire->shared->cpu = values[i];
		wire->shared->n_active = values[i];
		for (int k = 0; k < 8; k++) {
			wire->words->request_released[k] = values[i] * UINT64_C(0x100000001);
			wire->words->reply_released[k] = ~(uint64_t)values[i];
		}
		wire_ring(wire);
		usleep(300);
	}
}

static void scribble(struct wire *wire, const struct aph_record *request)
{
	struct rng rng = { .state = request->tag };

	for (int i = 0; i < 3000; i++) {
		memset(wire->map + rng_below(&rng, (uint32_t)wire->size - 64), (int)rng_next(&rng),
		       1 + rng_below(&rng, 64));
		if (i % 30 == 0)
			wire_ring(wire);
	}
	memset(wire->map, 0xff, wire->size);
	wire_ring(wire);
}

static void fill_with_zeros(struct wire *wire, const struct aph_record *request)
{
	(void)request;
	memset(wire->map, 0, wire->size);
	wire_ring(wire);
}

static void flood(struct wire *wire, const struct aph_record *request)
{
	for (uint32_t i = 0; i < 20000; i++) {
		wire_post(wire,
			  wire_record(APH_RECORD_REPLY, request->tag + (i << 16) + 65536, "x", 1));
		if (i % 16 == 0)
			wire_ring(wire);
	}
}

static void block_the_bell(struct wire *wire, const struct aph_record *request)
{
	uint64_t word = 1;

	(void)request;
	fcntl(wire->bell, F_SETFL, O_RDWR | O_NONBLOCK);
	for (word = UINT64_C(1) << 63; word > 0; word /= 2)
		while (write(wire->bell, &word, sizeof(word)) > 0)
			;
	fcntl(wire->bell, F_SETFL, O_RDWR);
	atomic_store(&wire->shared->state, 5);
}

static void words_and_memory(void **state)
{
	(void)state;
	liar_start();
	/* Who says that it has not taken a request is believed: REFUSED then, as well as LOST. */
	one_lie(taken_ahead, NULL, NULL);
	one_lie(words_of_all_kinds, NULL, NULL);
	one_lie(fill_with_zeros, NULL, NULL);
	one_lie(flood, NULL, NULL);
	for (int i = 0; i < 20; i++)
		one_lie(scribble, NULL, NULL);
	one_lie(block_the_bell, NULL, NULL);
	liar_stop();
}

/* Takes the beginning of a request and then gives back memory that was never sent. */
static void *break_off(void *arg)
{
	struct wire *wire = arg;
	struct aph_hello hello;
	struct aph_record record;
	uint32_t len = 0;
	int sock = wire_accept(liar.listener, &hello, check_hang_ms(2000));

	CHECK(sock >= 0);
	wire_serve_well(wire, sock, &hello);
	/* Until the client has put in what it may, and waits for room. */
	while (len < wire->welcome.arena / 8 * 7) {
		CHECK(wire_next(wire, &record, check_hang_ms(2000)));
		len += record.len;
	}
	usleep(10000);
	for (int i = 0; i < 8; i++)
		wire->words->request_released[i] = UINT64_MAX;
	wire_ring(wire);
	return NULL;
}

/*
 * A call whose request was received in part may have run: it is lost, and not an error that says
 * "not sent".
 */
static void a_call_that_breaks_off(void **state)
{
	static unsigned char data[1 << 20];
	struct aph_channel *channel;
	struct wire wire;
	pthread_t thread;

	(void)state;
	liar_start();
	assert_int_equal(pthread_create(&thread, NULL, break_off, &wire), 0);
	assert_int_equal(aph_channel_open(&channel, liar.honest.ep, "liar", NULL), 0);
	assert_int_equal(aph_call(channel, data, sizeof(data), NULL, NULL,
				  aph_deadline_ms((uint64_t)check_ms(2000))),
			 APH_LOST);
	assert_int_equal(aph_channel_result(channel).reason, APH_REASON_PROTOCOL);
	assert_int_equal(pthread_join(thread, NULL), 0);
	aph_channel_close(channel);
	wire_close(&wire);
	liar_stop();
}

static void *serve_one(void *arg)
{
	struct aph_hello hello;
	int sock = wire_accept(liar.listener, &hello, check_hang_ms(2000));

	CHECK(sock >= 0);
	wire_serve_well(arg, sock, &hello);
	return NULL;
}

/* Who finds out while a loop sleeps for the endpoint: the loop is woken to end the channel. */
static void a_lie_found_beside_a_loop(void **state)
{
	static unsigned char data[1 << 20];
	/* No deadline: its timer would wake the loop, too. */
	struct aph_channel_options options = { .size = sizeof(options),
					       .deadline_ns = APH_FOREVER };
	struct aph_channel *channel;
	struct aph_endpoint *ep;
	struct pollfd poller = { .events = POLLIN };
	struct aph_call *call;
	struct aph_event ev;
	struct wire wire;
	pthread_t thread;
	int ends = 0;

	(void)state;
	liar_start();
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve_one, &wire), 0);
	assert_int_equal(aph_channel_open(&channel, ep, "liar", &options), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	poller.fd = aph_endpoint_fd(ep);
	while (poll(&poller, 1, 0) > 0)
		assert_int_equal(aph_endpoint_next(ep, &ev, APH_NOW), -EAGAIN);
	for (int i = 0; i < 8; i++)
		wire.words->request_released[i] = UINT64_MAX;
	assert_int_equal(aph_call_new(&call, channel, APH_FOREVER, NULL), 0);
	assert_true(aph_call_send(call, data, sizeof(data), 0) > 0);
	assert_int_equal(aph_call_send(call, data, sizeof(data), 0), -ENOTCONN);
	while (ends < 2) {
		assert_int_equal(poll(&poller, 1, check_hang_ms(3000)), 1);
		if (aph_endpoint_next(ep, &ev, APH_NOW) == 0) {
			assert_int_equal(ev.type, ends++ ? APH_EVENT_CLOSED : APH_EVENT_END);
			assert_int_equal(ev.result.reason, APH_REASON_PROTOCOL);
		}
	}
	aph_call_free(call);
	aph_channel_close(channel);
	aph_endpoint_free(ep);
	wire_close(&wire);
	liar_stop();
}

/* While the client streams both ways, its peer changes everything under it. */
struct scribbler {
	struct wire wire;
	_Atomic bool stop;
	uint64_t seed;
};

static void *scribble_on(void *arg)
{
	struct scribbler *scribbler = arg;
	struct wire *wire = &scribbler->wire;
	struct rng rng = { .state = scribbler->seed };
	struct aph_hello hello;
	int sock = wire_accept(liar.listener, &hello, check_hang_ms(2000));

	CHECK(sock >= 0);
	wire_serve_well(wire, sock, &hello);
	while (!scribbler->stop) {
		uint32_t what = rng_below(&rng, 8);
		uint64_t value = rng_below(&rng, 2) ? rng_next(&rng) : rng_below(&rng, 64);

		if (what == 0)
			*wire_taken(wire) = (uint32_t)value;
		else if (what == 1)
			wire->words->request_released[value % 8] = rng_next(&rng);
		else if (what == 2)
			wire->map[rng_below(&rng, (uint32_t)wire->size)] = (unsigned char)value;
		else
			wire_post(wire,
				  (struct aph_record){ .type = (uint8_t)(value % 9),
						       .flags = (uint8_t)(value >> 8 & 3),
						       .tag = (uint32_t)(value >> 16 & 3),
						       .len = (uint32_t)(value >> 20 & 127),
						       .off = (uint32_t)(value >> 28 & 0xfff) });
		if (rng_below(&rng, 4) == 0)
			wire_ring(wire);
		if (rng_below(&rng, 64) == 0)
			usleep(10);
	}
	return NULL;
}

static void seeded(void **state)
{
	uint64_t seed = check_seed();
	unsigned rounds = check_long() ? 2000 : 60;
	static unsigned char data[200000];

	(void)state;
	liar_start();
	for (unsigned round = 0; round < rounds; round++) {
		struct scribbler scribbler = { .seed = seed + round };
		struct aph_channel *channel;
		struct aph_call *call;
		pthread_t thread;
		uint64_t until;

		assert_int_equal(pthread_create(&thread, NULL, scribble_on, &scribbler), 0);
		assert_int_equal(aph_channel_open(&channel, liar.honest.ep, "liar", NULL), 0);
		until = aph_deadline_ms(20);
		while (aph_time_ns() < until &&
		       aph_call_new(&call, channel, aph_deadline_ms(5), NULL) == 0) {
			unsigned char back[5000];

			(void)aph_call_send(call, data, 1 + round * 1000 % sizeof(data),
					    round % 2 ? APH_MORE : 0);
			(void)aph_call_wait(call, aph_deadline_ms(1));
			(void)aph_call_read(call, back, sizeof(back));
			(void)aph_call_send(call, data, 3000, 0);
			aph_call_free(call);
		}
		client_echo(liar.honest.channel);
		aph_channel_close(channel);
		scribbler.stop = true;
		assert_int_equal(pthread_join(thread, NULL), 0);
		wire_close(&scribbler.wire);
	}
	liar_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(records_that_make_no_sense), SUITE_TEST(records_out_of_order),
		SUITE_TEST(words_and_memory),		SUITE_TEST(a_call_that_breaks_off),
		SUITE_TEST(a_lie_found_beside_a_loop),	SUITE_TEST(seeded),
	};

	return suite_run("hostile server", tests, SUITE_LEN(tests), 60);
}
