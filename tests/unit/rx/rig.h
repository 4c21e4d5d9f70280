/* SPDX-License-Identifier: MIT */
/*
 * What tests of a whole engine share: an engine with a seeded random source, a clock, and
 * addresses.
 */
#ifndef TESTS_UNIT_RX_RIG_H
#define TESTS_UNIT_RX_RIG_H

#include "rx/wire.h"

#include <antiphon/rx.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define S UINT64_C(1000000000)

static uint64_t now_ns = S;

static inline void *allocate(void *arg, size_t size)
{
	(void)arg;
	return malloc(size);
}

static inline void release(void *arg, void *memory, size_t size)
{
	(void)arg;
	(void)size;
	free(memory);
}

static inline void draw(void *arg, void *out, size_t len)
{
	unsigned *seed = arg;

	for (size_t i = 0; i < len; i++)
		((uint8_t *)out)[i] = (uint8_t)rand_r(seed);
}

static inline struct aph_rx_config a_config(uint32_t flags)
{
	static unsigned seed = 1;

	return (struct aph_rx_config){
		.size = sizeof(struct aph_rx_config),
		.alloc = allocate,
		.free = release,
		.random = draw,
		.random_arg = &seed,
		.flags = flags,
		.version = "a version",
	};
}

static inline struct aph_rx *an_engine(uint32_t flags)
{
	const struct aph_rx_config config = a_config(flags);
	struct aph_rx *rx;

	assert_int_equal(aph_rx_new(&rx, &config, now_ns), 0);
	return rx;
}

static inline struct aph_rx_path a_path(const char *address, uint16_t port)
{
	struct aph_rx_path path = { 0 };

	if (inet_pton(AF_INET, address, &path.remote.in.sin_addr) == 1) {
		path.remote.in.sin_family = AF_INET;
		path.remote.in.sin_port = htons(port);
	} else {
		assert_int_equal(inet_pton(AF_INET6, address, &path.remote.in6.sin6_addr), 1);
		path.remote.in6.sin6_family = AF_INET6;
		path.remote.in6.sin6_port = htons(port);
	}
	return path;
}

static inline struct aph_rx_ack an_ack(uint32_t first)
{
	return (struct aph_rx_ack){
		.first = first,
		.previous = first - 1,
		.reason = APH_RX_ACK_IDLE,
		.max_mtu = 1444,
		.if_mtu = 1444,
		.rwind = 255,
		.max_jumbo = 1,
	};
}

/* The bytes of a message, which lie in pieces. Returns how many. */
static inline size_t gather(const struct aph_rx_message *message, uint8_t *bytes, size_t max)
{
	size_t len = 0;

	for (size_t i = 0; i < message->n_iov; i++) {
		assert_true(len + message->iov[i].iov_len <= max);
		memcpy(bytes + len, message->iov[i].iov_base, message->iov[i].iov_len);
		len += message->iov[i].iov_len;
	}
	assert_int_equal(len, message->len);
	return len;
}

/*
 * All that `from` has to send, in runs where it makes some; to nobody if `to` is NULL. Returns how
 * many messages.
 */
static inline size_t deliver(struct aph_rx *from, struct aph_rx *to, const struct aph_rx_path *path)
{
	static uint8_t bytes[70000];
	struct aph_rx_message messages[8];
	size_t n, all = 0;

	for (; (n = aph_rx_send(from, messages, 8, now_ns)) > 0; all += n) {
		for (size_t i = 0; to && i < n; i++) {
			size_t len = gather(&messages[i], bytes, sizeof(bytes));

			aph_rx_receive(to, path, bytes, len, messages[i].segment, NULL, now_ns);
		}
	}
	return all;
}

#endif
