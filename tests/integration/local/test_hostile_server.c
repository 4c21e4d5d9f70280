/* SPDX-License-Identifier: MIT */
/*
 * A real client of a service that lies: in its welcome, in its records, in the words it shares. The
 * client's calls each end once and in time, its other channels go on, and nothing is left behind.
 *
 * The liar listens on the socket of a service that this process opened and never looks after.
 */
#include "suite.h"
#include "wire.h"

#include "fds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct liar {
	struct aph_endpoint *decoy;
	int listener;
	int pipe_reader; /* see full_pipe_end() */
	struct service honest_service;
	struct client honest;
};

static struct liar liar;

static void liar_start(void)
{
	assert_int_equal(aph_endpoint_new(&liar.decoy, NULL), 0);
	assert_int_equal(aph_service_open(NULL, liar.decoy, "liar", NULL), 0);
	liar.listener = wire_steal_listener();
	liar.pipe_reader = open("/dev/null", O_RDONLY | O_CLOEXEC);
	service_start_simple(&liar.honest_service, SERVICE_PROCESS, "honest");
	client_open(&liar.honest, "honest");
}

static void liar_stop(void)
{
	for (int i = 0; i < 5; i++)
		client_echo(liar.honest.channel);
	client_quiet(liar.honest.ep, 1);
	client_close(&liar.honest);
	service_stop(&liar.honest_service);
	close(liar.listener);
	close(liar.pipe_reader);
	aph_endpoint_free(liar.decoy);
}

/* -- lies in the welcome ----------------------------------------------------------------------- */

struct welcome_lie {
	const char *name;
	void (*tell)(int sock, const struct aph_hello *hello, const struct welcome_lie *lie);
	struct aph_welcome welcome; /* what is not 0 here takes the place of the truth */
	int variant;
};

struct welcoming {
	const struct welcome_lie *lie;
	int sock;
};

static void hang_up(int sock, const struct aph_hello *hello, const struct welcome_lie *lie)
{
	(void)sock;
	(void)hello;
	(void)lie;
}

static void garbage(int sock, const struct aph_hello *hello, const struct welcome_lie *lie)
{
	static unsigned char bytes[70000];

	(void)hello;
	memset(bytes, 0xa5, sizeof(bytes));
	wire_send(sock, bytes, (size_t)lie->variant, NULL, 0);
}

/* The truth with some fields replaced. */
static void fields(int sock, const struct aph_hello *hello, const struct welcome_lie *lie)
{
	struct wire wire;
	int fds[3];

	wire_serve(&wire, sock, hello, true);
	fcntl(wire.segment, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	fcntl(wire.page, F_ADD_SEALS,
	      F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
	if (lie->welcome.magic)
		wire.welcome.magic = lie->welcome.magic;
	if (lie->welcome.version)
		wire.welcome.version = lie->welcome.version;
	if (lie->welcome.status)
		wire.welcome.status = lie->welcome.status;
	if (lie->welcome.depth)
		wire.welcome.depth = lie->welcome.depth;
	if (lie->welcome.calls_max)
		wire.welcome.calls_max = lie->welcome.calls_max;
	if (lie->welcome.arena)
		wire.welcome.arena = lie->welcome.arena;
	if (lie->welcome.flags)
		wire.welcome.flags = lie->welcome.flags;
	if (lie->variant)
		memset(&wire.words->fixed, 0xff, sizeof(wire.words->fixed));
	fds[0] = wire.segment;
	fds[1] = wire.page;
	fds[2] = wire.bell;
	wire_welcome(sock, &wire.welcome, fds, 3);
	wire.sock = -1;
	wire_close(&wire);
}

static int pipe_end(void)
{
	int ends[2];

	CHECK_OK(pipe2(ends, O_CLOEXEC));
	close(ends[1]);
	return ends[0];
}

/* A write to it waits for ever. */
static int full_pipe_end(void)
{
	static const char byte;
	int ends[2];

	CHECK_OK(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
	while (write(ends[1], &byte, 1) == 1)
		;
	CHECK_OK(fcntl(ends[1], F_SETFL, 0));
	/* Left open: without a reader it would be broken, not full. */
	CHECK_OK(dup2(ends[0], liar.pipe_reader));
	close(ends[0]);
	return ends[1];
}

/* Descriptors that are not what they should be. */
static void descriptors(int sock, const struct aph_hello *hello, const struct welcome_lie *lie)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int page_seals = seals | F_SEAL_FUTURE_WRITE;
	int fds[20];
	struct wire wire;
	size_t n = 3;

	wire_serve(&wire, sock, hello, true);
	switch (lie->variant) {
	case 0:
		seals = 0;
		break;
	case 1:
		seals = F_SEAL_GROW;
		break;
	case 2:
		seals = F_SEAL_SHRINK;
		break;
	case 3:
		page_seals = 0;
		break;
	case 4:
		CHECK_OK(ftruncate(wire.segment, 0));
		break;
	case 5:
		CHECK_OK(ftruncate(wire.segment, (off_t)wire.size - 1));
		break;
	case 6:
		CHECK_OK(ftruncate(wire.segment, (off_t)wire.size * 2));
		break;
	case 7:
		CHECK_OK(ftruncate(wire.page, 0));
		break;
	case 8:
		CHECK_OK(ftruncate(wire.page, 100));
		break;
	default:
		break;
	}
	if (seals)
		CHECK_OK(fcntl(wire.segment, F_ADD_SEALS, seals));
	if (page_seals)
		CHECK_OK(fcntl(wire.page, F_ADD_SEALS, page_seals));
	fds[0] = wire.segment;
	fds[1] = wire.page;
	fds[2] = wire.bell;
	for (size_t i = 3; i < 20; i++)
		fds[i] = STDERR_FILENO;
	int odd = lie->variant == 23   ? full_pipe_end()
		  : lie->variant >= 20 ? pipe_end()
				       : open("/dev/null", O_RDWR | O_CLOEXEC);
	switch (lie->variant) {
	case 10:
		n = 0;
		break;
	case 11:
		n = 1;
		break;
	case 12:
		n = 2;
		break;
	case 13:
		n = 4;
		break;
	case 14:
		n = 20;
		break;
	case 15:
	case 20:
		fds[0] = odd;
		break;
	case 16:
	case 21:
		fds[1] = odd;
		break;
	case 17:
	case 22:
	case 23:
		fds[2] = odd;
		break;
	case 18:
		fds[0] = sock;
		break;
	case 19:
		fds[0] = wire.page;
		fds[1] = wire.segment;
		break;
	default:
		break;
	}
	wire_welcome(sock, &wire.welcome, fds, n);
	close(odd);
	wire.sock = -1;
	wire_close(&wire);
}

static void *welcome_one(void *arg)
{
	struct welcoming *welcoming = arg;
	struct aph_hello hello;

	welcoming->sock = wire_accept(liar.listener, &hello, check_hang_ms(2000));
	CHECK(welcoming->sock >= 0);
	welcoming->lie->tell(welcoming->sock, &hello, welcoming->lie);
	if (welcoming->lie->tell == hang_up) {
		close(welcoming->sock);
		welcoming->sock = -1;
	}
	return NULL;
}

static void lies_in_the_welcome(void **state)
{
	static const struct welcome_lie lies[] = {
		{ .name = "hang-up", .tell = hang_up },
		{ .name = "a byte", .tell = garbage, .variant = 1 },
		{ .name = "a few bytes", .tell = garbage, .variant = 27 },
		{ .name = "as many bytes", .tell = garbage, .variant = sizeof(struct aph_welcome) },
		{ .name = "many bytes", .tell = garbage, .variant = 70000 },
		{ .name = "magic", .tell = fields, .welcome.magic = 7 },
		{ .name = "version", .tell = fields, .welcome.version = 9 },
		{ .name = "status with fds", .tell = fields, .welcome.status = EACCES },
		{ .name = "odd status", .tell = fields, .welcome.status = 65535 },
		{ .name = "depth 1", .tell = fields, .welcome.depth = 1 },
		{ .name = "depth 48", .tell = fields, .welcome.depth = 48 },
		{ .name = "depth 64", .tell = fields, .welcome.depth = 64 },
		{ .name = "depth too large", .tell = fields, .welcome.depth = 1024 },
		{ .name = "depth huge", .tell = fields, .welcome.depth = UINT32_MAX },
		{ .name = "calls huge", .tell = fields, .welcome.calls_max = UINT32_MAX },
		{ .name = "arena odd", .tell = fields, .welcome.arena = 12345 },
		{ .name = "arena other", .tell = fields, .welcome.arena = APH_ARENA_MIN },
		{ .name = "arena too large", .tell = fields, .welcome.arena = APH_ARENA_MAX * 2 },
		{ .name = "arena huge", .tell = fields, .welcome.arena = UINT32_MAX },
		{ .name = "no bell but a descriptor",
		  .tell = fields,
		  .welcome.flags = APH_WELCOME_RECEIPTS },
		{ .name = "flags", .tell = fields, .welcome.flags = 0xfffffffe },
		{ .name = "unsealed", .tell = descriptors, .variant = 0 },
		{ .name = "may shrink", .tell = descriptors, .variant = 1 },
		{ .name = "may grow", .tell = descriptors, .variant = 2 },
		{ .name = "unsealed page", .tell = descriptors, .variant = 3 },
		{ .name = "empty segment", .tell = descriptors, .variant = 4 },
		{ .name = "short segment", .tell = descriptors, .variant = 5 },
		{ .name = "long segment", .tell = descriptors, .variant = 6 },
		{ .name = "empty page", .tell = descriptors, .variant = 7 },
		{ .name = "short page", .tell = descriptors, .variant = 8 },
		{ .name = "no descriptors", .tell = descriptors, .variant = 10 },
		{ .name = "one", .tell = descriptors, .variant = 11 },
		{ .name = "two", .tell = descriptors, .variant = 12 },
		{ .name = "four", .tell = descriptors, .variant = 13 },
		{ .name = "twenty", .tell = descriptors, .variant = 14 },
		{ .name = "segment is /dev/null", .tell = descriptors, .variant = 15 },
		{ .name = "page is /dev/null", .tell = descriptors, .variant = 16 },
		{ .name = "bell is /dev/null", .tell = descriptors, .variant = 17 },
		{ .name = "segment is a socket", .tell = descriptors, .variant = 18 },
		{ .name = "exchanged", .tell = descriptors, .variant = 19 },
		{ .name = "segment is a pipe", .tell = descriptors, .variant = 20 },
		{ .name = "page is a pipe", .tell = descriptors, .variant = 21 },
		{ .name = "bell is a pipe", .tell = descriptors, .variant = 22 },
	};
	struct aph_channel_options options = { .size = sizeof(options) };
	struct welcoming welcoming;
	struct aph_channel *channel;
	pthread_t thread;
	int r, before;

	(void)state;
	liar_start();
	for (size_t i = 0; i < SUITE_LEN(lies); i++) {
		for (int async = 0; async < 2; async++) {
			before = fds_count();
			options.flags = async ? APH_CHANNEL_ASYNC : 0;
			options.deadline_ns = aph_deadline_ms((uint64_t)check_ms(1000));
			welcoming = (struct welcoming){ .lie = &lies[i] };
			assert_int_equal(pthread_create(&thread, NULL, welcome_one, &welcoming), 0);
			r = aph_channel_open(&channel, liar.honest.ep, "liar", &options);
			if (r == 0 && async) {
				struct aph_event ev;

				client_next(liar.honest.ep, &ev, 3000);
				assert_ptr_equal(ev.channel, channel);
				assert_true(ev.type == APH_EVENT_CLOSED ||
					    ev.type == APH_EVENT_OPEN);
				r = ev.type == APH_EVENT_OPEN ? 0 : -1;
				if (ev.type == APH_EVENT_CLOSED)
					aph_channel_close(channel);
			}
			assert_int_equal(pthread_join(thread, NULL), 0);
			/*
			 * What was believed has no harm in it: a lie about something the client
			 * never relies on. The channel then works as far as its peer lets it.
			 */
			if (r == 0) {
				print_message("believed: %s\n", lies[i].name);
				(void)aph_call(channel, "e", 1, NULL, NULL, aph_deadline_ms(20));
				aph_channel_close(channel);
			}
			if (welcoming.sock >= 0)
				close(welcoming.sock);
			client_echo(liar.honest.channel);
			fds_await_count(before);
		}
	}
	liar_stop();
}

/* Whoever lies is passed over, and an older service of the name answers. */
static void an_honest_one_behind_a_liar(void **state)
{
	static const struct welcome_lie lies[] = {
		{ .name = "no descriptors", .tell = descriptors, .variant = 10 },
		{ .name = "short segment", .tell = descriptors, .variant = 5 },
		{ .name = "empty page", .tell = descriptors, .variant = 7 },
		{ .name = "bell is /dev/null", .tell = descriptors, .variant = 17 },
	};
	struct welcoming welcoming;
	struct service older;
	struct client client;
	pthread_t thread;

	(void)state;
	service_start_simple(&older, SERVICE_PROCESS, "liar");
	liar_start();
	for (size_t i = 0; i < SUITE_LEN(lies); i++) {
		int before = fds_count();

		welcoming = (struct welcoming){ .lie = &lies[i] };
		assert_int_equal(pthread_create(&thread, NULL, welcome_one, &welcoming), 0);
		client_open(&client, "liar");
		assert_int_equal(pthread_join(thread, NULL), 0);
		client_echo(client.channel);
		client_close(&client);
		close(welcoming.sock);
		assert_int_equal(fds_count(), before);
	}
	liar_stop();
	service_stop(&older);
}

/* Lies that must not be believed, as they could be used to kill the client. */
static void lies_that_must_not_be_believed(void **state)
{
	static const int variants[] = { 0, 1, 4, 5, 7, 8, 10, 11, 15, 16, 17, 18, 20, 21, 22, 23 };
	struct aph_channel_options options = { .size = sizeof(options) };
	struct welcome_lie lie = { .tell = descriptors };
	struct welcoming welcoming;
	struct aph_channel *channel;
	pthread_t thread;
	int r;

	(void)state;
	liar_start();
	for (size_t i = 0; i < SUITE_LEN(variants); i++) {
		lie.variant = variants[i];
		options.deadline_ns = aph_deadline_ms((uint64_t)check_ms(1000));
		welcoming = (struct welcoming){ .lie = &lie };
		assert_int_equal(pthread_create(&thread, NULL, welcome_one, &welcoming), 0);
		r = aph_channel_open(&channel, liar.honest.ep, "liar", &options);
		assert_int_equal(r, -EPROTO);
		assert_true(strlen(aph_error()) > 10);
		assert_int_equal(pthread_join(thread, NULL), 0);
		close(welcoming.sock);
	}
	liar_stop();
}

/* -- lies on an open channel ------------------------------------------------------------------- */

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
		SUITE_TEST(lies_in_the_welcome),
		SUITE_TEST(an_honest_one_behind_a_liar),
		SUITE_TEST(lies_that_must_not_be_believed),
		SUITE_TEST(records_that_make_no_sense),
		SUITE_TEST(records_out_of_order),
		SUITE_TEST(words_and_memory),
		SUITE_TEST(a_call_that_breaks_off),
		SUITE_TEST(a_lie_found_beside_a_loop),
		SUITE_TEST(seeded),
	};

	return suite_run("hostile server", tests, SUITE_LEN(tests), 60);
}
