/* SPDX-License-Identifier: MIT */
/* An echo, in which each byte comes back turned over, and its caller. */
#include "caller.h"
#include "relay.h"

#include <antiphon/rx.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AT_ONCE	   4
#define PIECE	   4096
#define PATIENCE_S 60

/* -- the service ------------------------------------------------------------------------------- */

/* A reply may begin only when the request is over: until then it is kept. */
struct echo {
	unsigned char *bytes;
	size_t len, room, sent;
	bool over;
};

static void echo_read(struct aph_rx_call *call, struct echo *echo)
{
	ssize_t n;

	for (;;) {
		if (echo->len == echo->room) {
			echo->room = echo->room ? 2 * echo->room : PIECE;
			echo->bytes = realloc(echo->bytes, echo->room);
			CHECK(echo->bytes);
		}
		n = aph_rx_call_read(call, echo->bytes + echo->len, echo->room - echo->len, 0);
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			echo->bytes[echo->len + (size_t)i] ^= 0xff;
		echo->len += (size_t)n;
	}
	echo->over = n == 0;
}

static void echo_write(struct aph_rx_call *call, struct echo *echo)
{
	ssize_t n = aph_rx_call_write(call, echo->bytes + echo->sent, echo->len - echo->sent, 0);

	if (n > 0)
		echo->sent += (size_t)n;
}

static void serve_event(struct aph_rx_event *event)
{
	struct echo *echo = event->data;

	switch (event->type) {
	case APH_RX_EVENT_CALL:
		echo = calloc(1, sizeof(*echo));
		CHECK(echo);
		aph_rx_call_set_data(event->call, echo);
		break;
	case APH_RX_EVENT_END:
		aph_rx_call_free(event->call);
		free(echo->bytes);
		free(echo);
		return;
	default:
		break;
	}
	if (!echo->over)
		echo_read(event->call, echo);
	if (echo->over)
		echo_write(event->call, echo);
}

_Noreturn void caller_serve(uint32_t udp_flags, int ready_fd)
{
	struct aph_rx_udp_options options = { .size = sizeof(options), .flags = udp_flags };
	struct aph_rx_service *service;
	struct aph_rx_udp *udp;
	struct aph_rx_event event;

	options.local.in =
		(struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(CALLER_PORT) };
	CHECK_OK(aph_rx_udp_open(&udp, &options));
	CHECK_OK(aph_rx_service_add(&service, aph_rx_udp_engine(udp), CALLER_SERVICE, NULL));
	CHECK(write(ready_fd, "", 1) == 1);
	for (;;) {
		CHECK_OK(aph_rx_udp_wait(udp, APH_FOREVER));
		while (aph_rx_next(aph_rx_udp_engine(udp), &event))
			serve_event(&event);
	}
}

/* -- the client -------------------------------------------------------------------------------- */

/* A call under way: how much of its body has gone and come. */
struct one {
	unsigned seed;
	size_t len, sent, got;
	bool finished;
};

static struct aph_rx_udp *udp;
static struct aph_rx_client *client;

static unsigned char byte_at(const struct one *one, size_t i)
{
	return (unsigned char)(one->seed + i + i / 251);
}

static void send_more(struct aph_rx_call *call, struct one *one)
{
	unsigned char piece[PIECE];

	while (!one->finished) {
		size_t len = one->len - one->sent;
		bool last = len <= PIECE;
		ssize_t n;

		len = last ? len : PIECE;
		for (size_t i = 0; i < len; i++)
			piece[i] = byte_at(one, one->sent + i);
		n = aph_rx_call_write(call, piece, len, last ? 0 : APH_RX_MORE);
		if (n < 0)
			return;
		one->sent += (size_t)n;
		one->finished = last && (size_t)n == len;
		if ((size_t)n < len)
			return;
	}
}

static void get_more(struct aph_rx_call *call, struct one *one)
{
	unsigned char piece[PIECE];
	ssize_t n;

	while ((n = aph_rx_call_read(call, piece, sizeof(piece), 0)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			CHECK(piece[i] == (byte_at(one, one->got + (size_t)i) ^ 0xff));
		one->got += (size_t)n;
	}
}

static void open_client(uint32_t udp_flags, uint16_t port)
{
	struct aph_rx_udp_options options = { .size = sizeof(options), .flags = udp_flags };
	struct aph_rx_path path = { 0 };

	path.remote.in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
	CHECK(inet_pton(AF_INET, RELAY_SERVER, &path.remote.in.sin_addr) == 1);
	CHECK_OK(aph_rx_udp_open(&udp, &options));
	CHECK_OK(aph_rx_client_new(&client, aph_rx_udp_engine(udp), &path, CALLER_SERVICE, NULL));
}

static void begin(struct one *one, unsigned seed, size_t len)
{
	struct aph_rx_call_options options = { .size = sizeof(options), .data = one };
	struct aph_rx_call *call;

	*one = (struct one){ .seed = seed, .len = len };
	CHECK_OK(aph_rx_call_new(&call, client, &options));
	send_more(call, one);
}

static uint64_t patience(void)
{
	return aph_rx_udp_now() + PATIENCE_S * UINT64_C(1000000000);
}

_Noreturn void caller_call(uint32_t udp_flags, unsigned n, size_t len_max, uint64_t seed)
{
	struct rng rng = { .state = seed };
	struct one ones[AT_ONCE];
	unsigned n_begun = 0, n_done = 0;

	open_client(udp_flags, CALLER_PORT);
	for (; n_begun < AT_ONCE; n_begun++)
		begin(&ones[n_begun], n_begun, rng_below(&rng, (uint32_t)len_max + 1));
	while (n_done < n) {
		struct aph_rx_event event;

		CHECK_OK(aph_rx_udp_wait(udp, patience()));
		while (aph_rx_next(aph_rx_udp_engine(udp), &event)) {
			struct one *one = event.data;

			send_more(event.call, one);
			get_more(event.call, one);
			if (event.type != APH_RX_EVENT_END)
				continue;
			if (event.end.outcome != APH_RX_DONE)
				check_failed(__FILE__, __LINE__, "an outcome that is not DONE",
					     event.end.outcome);
			CHECK(one->got == one->len);
			aph_rx_call_free(event.call);
			n_done++;
			if (n_begun < n) {
				begin(one, n_begun, rng_below(&rng, (uint32_t)len_max + 1));
				n_begun++;
			}
		}
	}
	client = aph_rx_client_free(client);
	udp = aph_rx_udp_close(udp);
	_exit(0);
}

_Noreturn void caller_call_nobody(void)
{
	uint64_t start = aph_rx_udp_now();
	struct aph_rx_event event;
	struct one one;

	open_client(0, CALLER_PORT + 1);
	begin(&one, 1, 100);
	for (;;) {
		CHECK_OK(aph_rx_udp_wait(udp, patience()));
		while (aph_rx_next(aph_rx_udp_engine(udp), &event)) {
			if (event.type != APH_RX_EVENT_END)
				continue;
			CHECK(event.end.outcome == APH_RX_NET_ERROR);
			CHECK(event.end.code == ECONNREFUSED);
			CHECK(aph_rx_udp_now() - start < UINT64_C(5000000000));
			_exit(0);
		}
	}
}
