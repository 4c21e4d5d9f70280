/* SPDX-License-Identifier: MIT */
/*
 * A hostile service's records, words and descriptors under a client that makes calls of all kinds:
 * each call ends at most once, and nothing comes for it afterwards.
 */
#include "check.h"
#include "dir.h"
#include "fds.h"
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define CALLS 6

static struct aph_endpoint *decoy, *ep;
static int listener;

struct life {
	struct aph_channel *channel;
	struct aph_call *calls[CALLS];
	bool ended[CALLS];
	bool closed;
};

static size_t number_of(const struct life *life, const struct aph_call *call)
{
	for (size_t i = 0; i < CALLS; i++)
		if (life->calls[i] == call)
			return i;
	abort();
}

static void take_events(struct life *life)
{
	struct aph_event ev;
	unsigned char buf[512];
	int fds[8];
	ssize_t n;
	int r = 0;

	for (int i = 0; i < 100 && (r = aph_endpoint_next(ep, &ev, APH_NOW)) == 0; i++) {
		CHECK(ev.channel == life->channel);
		if (ev.type == APH_EVENT_CLOSED) {
			CHECK(!life->closed);
			life->closed = true;
			continue;
		}
		CHECK(ev.type >= APH_EVENT_REPLY && ev.type <= APH_EVENT_END);
		CHECK(!life->ended[number_of(life, ev.call)]);
		if (ev.type == APH_EVENT_END)
			life->ended[number_of(life, ev.call)] = true;
		(void)aph_call_peek(ev.call, buf, sizeof(buf));
		while ((n = aph_call_read(ev.call, buf, sizeof(buf))) > 0)
			;
		n = aph_call_take_fds(ev.call, fds, 8);
		while (n > 0)
			close(fds[--n]);
	}
	CHECK(r == 0 || r == -EAGAIN);
}

/* What the client does of its own. */
static void act(struct life *life, struct feed *feed)
{
	static unsigned char body[70000];
	uint8_t what = feed_u8(feed);
	size_t i = what % CALLS, len;
	const void *data;
	void *room;

	if (!life->calls[i]) {
		life->ended[i] = false;
		if (aph_call_new(&life->calls[i], life->channel, APH_FOREVER, NULL) < 0)
			life->calls[i] = NULL;
	}
	if (!life->calls[i])
		return;
	len = what & 128 ? feed_u16(feed) : feed_u8(feed) % 45;
	switch (what / CALLS % 6) {
	case 0:
		(void)aph_call_send(life->calls[i], body, len, len & 1 ? APH_MORE : 0);
		break;
	case 1:
		(void)aph_call_cancel(life->calls[i]);
		break;
	case 2:
		life->calls[i] = aph_call_free(life->calls[i]);
		break;
	case 3:
		len = len ? len : 1;
		if (aph_call_reserve(life->calls[i], &room, &len) == 0)
			(void)aph_call_commit(life->calls[i], len, len & 1 ? APH_MORE : 0);
		break;
	case 4:
		if (aph_call_borrow(life->calls[i], &data, &len) == 0)
			(void)aph_call_release(life->calls[i], (len + 1) / 2);
		break;
	default:
		(void)aph_call_send(life->calls[i], body, len, 0);
	}
}

static void start(void)
{
	fuzz_dir();
	CHECK_OK(aph_endpoint_new(&decoy, NULL));
	CHECK_OK(aph_service_open(NULL, decoy, "decoy", NULL));
	listener = wire_steal_listener();
	CHECK_OK(aph_endpoint_new(&ep, NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct aph_channel_options options = { .size = sizeof(options),
					       .flags = APH_CHANNEL_ASYNC };
	struct feed feed = { data, size };
	struct life life = { .closed = false };
	struct aph_hello hello;
	struct aph_event ev;
	struct wire wire;
	static unsigned inputs;
	static struct fds fds;

	if (!ep)
		start();
	CHECK_OK(aph_channel_open(&life.channel, ep, "decoy", &options));
	wire_serve_well(&wire, wire_accept(listener, &hello, 1000), &hello);
	CHECK_OK(aph_endpoint_next(ep, &ev, aph_deadline_ms(5000)));
	CHECK(ev.type == APH_EVENT_OPEN);
	for (int steps = 0; steps < 200 && feed.left > 0; steps++) {
		uint8_t who = feed_u8(&feed);

		if (who & 1)
			act(&life, &feed);
		else
			fuzz_wire_step(&wire, &feed);
		if (who & 6)
			take_events(&life);
	}
	wire_ring(&wire);
	take_events(&life);
	for (size_t i = 0; i < CALLS; i++)
		aph_call_free(life.calls[i]);
	aph_channel_close(life.channel);
	wire_close(&wire);
	CHECK(aph_endpoint_next(ep, &ev, APH_NOW) == -EAGAIN);
	if (++inputs == 16)
		fds_take(&fds);
	if (inputs > 16 && inputs % 64 == 0)
		CHECK(fds_differ_but_pipes(&fds) == 0);
	return 0;
}
