/* SPDX-License-Identifier: MIT */
/*
 * Exactly one of the response and error handlers runs, whatever the server does and whenever the
 * time is up: random schedules of a client's loop and of a server that accepts or not, answers in
 * pieces or wrongly, waits, and hangs up. Nothing is left open.
 */
#include "fixture.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define SCHEDULES      100000
#define SCHEDULES_SLOW 15000
#define SCHEDULES_LONG 2000000

static struct event_base *base;
static struct aph_afdt_endpoint *ep;
static struct told told;
static char path[160];
static unsigned n_answered, n_late, n_refused;

static void on_message(const struct aph_afdt_message *response, void *data)
{
	(void)data;
	told.responses++;
	for (size_t i = 0; i < response->n_fds; i++)
		close(response->fds[i]);
}

struct schedule {
	struct rng rng;
	bool old; /* the historical client on libevent, or one of ours on an endpoint */
	int listener, sock;
	uint8_t answer[64];
	size_t len, sent;
	int file;
};

static void run_loop(const struct schedule *s)
{
	if (s->old)
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	else
		(void)aph_afdt_endpoint_serve(ep, APH_NOW);
}

static void nap(unsigned us)
{
	const struct timespec time = { .tv_nsec = (long)us * 1000 };

	nanosleep(&time, NULL);
}

static void send_piece(struct schedule *s)
{
	size_t n = s->len - s->sent;
	const int files[] = { s->file, s->file };
	size_t n_fds = 0;

	if (s->sock < 0 || n == 0)
		return;
	if (rng_below(&s->rng, 2))
		n = 1 + rng_below(&s->rng, (uint32_t)n);
	if (s->sent == 0 && rng_below(&s->rng, 2))
		n_fds = 1 + (rng_below(&s->rng, 8) == 0);
	/* The client may have given up. */
	(void)peer_try_send(s->sock, s->answer + s->sent, n, files, n_fds);
	s->sent += n;
}

static void step(struct schedule *s)
{
	switch (rng_below(&s->rng, 8)) {
	case 0:
	case 1:
		if (s->sock < 0)
			s->sock = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		break;
	case 2:
	case 3:
		send_piece(s);
		break;
	case 4:
		if (s->sock >= 0 && rng_below(&s->rng, 4) == 0)
			shutdown(s->sock, SHUT_WR);
		break;
	case 5:
		if (rng_below(&s->rng, 32) == 0)
			nap(1 + rng_below(&s->rng, 200));
		break;
	default:
		run_loop(s);
	}
}

static void make_answer(struct schedule *s)
{
	uint32_t len = rng_below(&s->rng, 40);

	s->len = sizeof(len) + len;
	s->sent = 0;
	/* One in eight announces something else. */
	if (rng_below(&s->rng, 8) == 0)
		len = (uint32_t)rng_next(&s->rng);
	memcpy(s->answer, &len, sizeof(len));
}

/* Starts a client with a time limit from none to long. True if it is on its way. */
static bool start(struct schedule *s)
{
	static const uint64_t limits_us[] = { 0, 1, 20, 100, 1000000, UINT64_MAX };
	uint64_t us = limits_us[rng_below(&s->rng, 6)];
	const struct timeval timeout = { .tv_sec = us == 1000000,
					 .tv_usec = us < 1000000 ? (suseconds_t)us : 0 };
	const struct aph_afdt_message request = { "hello", 5, NULL, 0 };
	const struct aph_afdt_client_options how = {
		.size = sizeof(how),
		.response = on_message,
		.error = on_error,
		.data = &told,
		.deadline_ns = us == UINT64_MAX ? APH_FOREVER : aph_time_ns() + us * 1000,
	};

	if (s->old)
		return afdt_create_client(path, base, (const uint8_t *)"hello", 5, on_response,
					  on_error, us == UINT64_MAX ? NULL : &timeout, &told) == 0;
	return aph_afdt_client_open(NULL, ep, path, &request, &how, NULL) == 0;
}

static void run_schedule(struct schedule *s)
{
	uint32_t n_steps = rng_below(&s->rng, 14);
	uint64_t end;

	s->old = rng_below(&s->rng, 2);
	s->sock = -1;
	told.responses = told.errors = 0;
	told.fd = -1;
	make_answer(s);
	if (!start(s)) {
		CHECK(told.errors == (s->old ? 1 : 0));
		return;
	}
	CHECK(told.errors + told.responses == 0);
	while (n_steps--)
		step(s);
	/* The server ends, and with it whatever still waits. */
	if (s->sock < 0)
		s->sock = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (s->sock >= 0)
		close(s->sock);
	end = aph_deadline_ms((uint64_t)check_ms(5000));
	while (told.responses + told.errors == 0) {
		CHECK(aph_time_ns() < end);
		run_loop(s);
	}
	run_loop(s);
	CHECK(told.responses + told.errors == 1);
	n_answered += (unsigned)told.responses;
	n_late += told.errors && told.err.operation == AFDT_TIMEOUT;
	n_refused += told.errors && told.err.operation != AFDT_TIMEOUT;
	if (told.fd >= 0)
		close(told.fd);
}

static void exactly_one(void **state)
{
	int n = check_long() ? SCHEDULES_LONG : check_slow() ? SCHEDULES_SLOW : SCHEDULES;
	uint64_t seed = check_seed();
	struct schedule s;

	(void)state;
	base = event_base_new();
	CHECK_OK(aph_afdt_endpoint_new(&ep, NULL));
	told_init(&told);
	snprintf(path, sizeof(path), "%s", path_of("s"));
	s.listener = (int)CHECK_OK(afdt_listen(path, NULL));
	s.file = some_file();
	CHECK_OK(evutil_make_socket_nonblocking(s.listener));
	for (int i = 0; i < n; i++) {
		s.rng.state = seed + (uint64_t)i;
		run_schedule(&s);
	}
	print_message("%d schedules: %u answered, %u too late, %u otherwise\n", n, n_answered,
		      n_late, n_refused);
	assert_true(n_answered > 100 && n_late > 100 && n_refused > 100);
	close(s.listener);
	close(s.file);
	CHECK_OK(unlink(path));
	aph_afdt_endpoint_free(ep);
	event_base_free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(exactly_one),
	};

	return suite_run("afdt schedules", tests, SUITE_LEN(tests), 60);
}
