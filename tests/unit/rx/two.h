/* SPDX-License-Identifier: MIT */
/* Two engines that call each other, with nothing between them. */
#ifndef TESTS_UNIT_RX_TWO_H
#define TESTS_UNIT_RX_TWO_H

#include "rig.h"

#define SERVICE 147
#define MS	UINT64_C(1000000)

struct two {
	struct aph_rx *ours, *theirs; /* a client, and a service */
	struct aph_rx_path here, there;
	struct aph_rx_client *client;
	struct aph_rx_service *service;
	size_t n_carried; /* messages, in either direction */
};

static inline void two_begin(struct two *t, const struct aph_rx_config *config)
{
	*t = (struct two){
		.theirs = an_engine(0),
		.here = a_path("10.0.0.2", 7001),
		.there = a_path("10.0.0.1", 7000),
	};
	assert_int_equal(aph_rx_new(&t->ours, config, now_ns), 0);
	assert_int_equal(aph_rx_service_add(&t->service, t->theirs, SERVICE, NULL), 0);
	assert_int_equal(aph_rx_client_new(&t->client, t->ours, &t->there, SERVICE, NULL), 0);
}

static inline void two_end(struct two *t)
{
	(void)aph_rx_client_free(t->client);
	(void)aph_rx_service_remove(t->service);
	(void)aph_rx_free(t->ours);
	(void)aph_rx_free(t->theirs);
}

/* Until neither has anything to say. */
static inline void two_talk(struct two *t)
{
	size_t n;

	do {
		n = deliver(t->ours, t->theirs, &t->here) + deliver(t->theirs, t->ours, &t->there);
		t->n_carried += n;
	} while (n);
}

static inline void two_pass(struct two *t, uint64_t ns)
{
	for (uint64_t end_ns = now_ns + ns; now_ns < end_ns;) {
		now_ns += 10 * MS;
		aph_rx_tick(t->ours, now_ns);
		aph_rx_tick(t->theirs, now_ns);
		two_talk(t);
	}
}

/* The next event is of that type. */
static inline struct aph_rx_event expect(struct aph_rx *rx, enum aph_rx_event_type type)
{
	struct aph_rx_event event;

	assert_true(aph_rx_next(rx, &event));
	assert_int_equal(event.type, type);
	return event;
}

#endif
