/* SPDX-License-Identifier: MIT */
/*
 * A real client of a service that lies in its welcome. No lie does the client any harm: its other
 * channels go on, and nothing is left behind.
 */
#include "liar.h"

#include "fds.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(lies_in_the_welcome),
		SUITE_TEST(an_honest_one_behind_a_liar),
		SUITE_TEST(lies_that_must_not_be_believed),
	};

	return suite_run("hostile welcome", tests, SUITE_LEN(tests), 60);
}
