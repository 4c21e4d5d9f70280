/* SPDX-License-Identifier: MIT */
/*
 * Calls and their tags, and what the engine's events mean to them.
 *
 * A call of ours that waits to be accepted has no tag; a tag that was charged has no call. A call
 * leaves when its last message was received, or when the program aborts it: then its tag is free at
 * once.
 */
#include "socket.h"

#include <errno.h>
#include <stdlib.h>

static struct aph_afrx_link *head(const struct aph_afrx_socket *s, unsigned long tag)
{
	/* Tags are counters or pointers: mix the upper bits in. */
	uint64_t h = (uint64_t)tag * UINT64_C(0x9e3779b97f4a7c15);

	return (struct aph_afrx_link *)(uintptr_t)&s->tags[h >> 58];
}

static_assert(APH_AFRX_N_TAGS == 1 << 6, "head() makes six bits");

struct aph_afrx_call *aph_afrx_call_new(struct aph_afrx_socket *s)
{
	static uint64_t last_serial;
	struct aph_afrx_call *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->serial = ++last_serial;
	aph_afrx_list_init(&c->hash);
	aph_afrx_list_init(&c->place);
	aph_afrx_list_init(&c->pending);
	c->socket = s;
	c->tx_left = -1;
	return c;
}

void aph_afrx_call_set_tag(struct aph_afrx_call *c, unsigned long tag)
{
	c->tag = tag;
	c->tagged = true;
	aph_afrx_list_add(head(c->socket, tag), &c->hash);
	c->socket->n_tags++;
}

struct aph_afrx_call *aph_afrx_call_find(const struct aph_afrx_socket *s, unsigned long tag)
{
	struct aph_afrx_link *list = head(s, tag), *pos;

	for (pos = list->next; pos != list; pos = pos->next) {
		struct aph_afrx_call *c = APH_AFRX_OF(pos, struct aph_afrx_call, hash);

		if (c->tag == tag)
			return c;
	}
	return NULL;
}

/* -- letting go -------------------------------------------------------------------------------- */

static void unblock(struct aph_afrx_call *c)
{
	if (!c->blocked)
		return;
	c->blocked = false;
	c->socket->n_blocked--;
	aph_afrx_settle_room(c->socket, -1);
}

/* Everything but the engine's part. */
static void detach(struct aph_afrx_call *c)
{
	struct aph_afrx_socket *s = c->socket;

	assert(s);
	unblock(c);
	if (c->tagged)
		s->n_tags--;
	if (c->tagged && !c->rx)
		s->n_charged--;
	if (c->waits)
		s->n_waiting--;
	c->waits = false;
	aph_afrx_list_del(&c->hash);
	aph_afrx_list_del(&c->place);
	aph_afrx_list_del(&c->pending);
	c->socket = NULL;
}

void aph_afrx_call_unpin(struct aph_afrx_call *c)
{
	if (--c->pins == 0 && !c->socket)
		free(c);
}

void aph_afrx_call_forget(struct aph_afrx_call *c)
{
	detach(c);
	c->rx = NULL;
	c->client = NULL;
	c->pins++;
	aph_afrx_call_unpin(c);
}

void aph_afrx_call_free(struct aph_afrx_call *c)
{
	struct aph_rx_call *rx = c->rx;
	struct aph_afrx_client *client = c->client;

	if (c->pins)
		aph_afrx_notify(c->socket);
	detach(c);
	c->rx = NULL;
	c->client = NULL;
	if (rx) {
		if (!c->ended)
			(void)aph_rx_call_abort(rx, APH_RX_CALL_DEAD);
		aph_rx_call_set_data(rx, NULL);
		(void)aph_rx_call_free(rx);
	}
	if (client)
		aph_afrx_client_put(client);
	c->pins++;
	aph_afrx_call_unpin(c);
}

/* -- what there is to receive ------------------------------------------------------------------ */

bool aph_afrx_call_is_broken(const struct aph_afrx_call *c)
{
	if (!c->ended || c->end.outcome == APH_RX_DONE)
		return false;
	return c->read_out || !aph_rx_call_is_complete(c->rx);
}

bool aph_afrx_call_has_news(const struct aph_afrx_call *c)
{
	if (!c->tagged)
		return c->notice;
	if (!c->rx)
		return false;
	if (c->ended && (c->read_out || c->client || aph_afrx_call_is_broken(c)))
		return true;
	return !c->read_out && (aph_rx_call_available(c->rx) > 0 || aph_rx_call_is_complete(c->rx));
}

void aph_afrx_call_watch(struct aph_afrx_call *c)
{
	const void *data;
	size_t len;

	/* At the end of a body there is nothing to wait for, and to look may end the call. */
	if (c->rx && !c->ended && !c->read_out && !aph_rx_call_available(c->rx) &&
	    !aph_rx_call_is_complete(c->rx))
		(void)aph_rx_call_borrow(c->rx, &data, &len);
}

void aph_afrx_call_announce(struct aph_afrx_call *c)
{
	if (!aph_afrx_call_has_news(c)) {
		aph_afrx_call_watch(c);
		return;
	}
	if (aph_afrx_list_empty(&c->pending)) {
		c->turn = 0;
		aph_afrx_list_add(&c->socket->queue, &c->pending);
	}
	aph_afrx_mark(c->socket);
	aph_afrx_notify(c->socket);
}

int aph_afrx_call_error(const struct aph_afrx_call *c)
{
	switch (c->end.outcome) {
	case APH_RX_DONE:
		return ESHUTDOWN;
	case APH_RX_ABORTED:
	case APH_RX_ABORTED_HERE:
		return ECONNABORTED;
	case APH_RX_BUSY:
		return EBUSY;
	case APH_RX_TIMED_OUT:
		return ETIME;
	case APH_RX_RESET:
	case APH_RX_NET_ERROR:
	case APH_RX_LOCAL_ERROR:
		break;
	}
	return c->end.code > 0 ? c->end.code : EIO;
}

/* -- accepting --------------------------------------------------------------------------------- */

void aph_afrx_call_accept(struct aph_afrx_call *c, unsigned long tag)
{
	aph_afrx_list_del(&c->place);
	aph_afrx_list_del(&c->pending);
	c->waits = c->notice = false;
	c->socket->n_waiting--;
	aph_afrx_call_set_tag(c, tag);
}

void aph_afrx_match(struct aph_afrx_socket *s)
{
	while (s->n_waiting && s->n_charged) {
		struct aph_afrx_call *charge =
			APH_AFRX_OF(aph_afrx_list_pop(&s->charged), struct aph_afrx_call, place);
		struct aph_afrx_call *call =
			APH_AFRX_OF(s->waiting.next, struct aph_afrx_call, place);
		unsigned long tag = charge->tag;

		aph_afrx_call_free(charge);
		aph_afrx_call_accept(call, tag);
		aph_afrx_call_announce(call);
	}
}

static void arrive(const struct aph_rx_event *ev)
{
	struct aph_afrx_socket *s = aph_rx_service_data(ev->service);
	struct aph_afrx_call *c = s ? aph_afrx_call_new(s) : NULL;

	if (!c) {
		(void)aph_rx_call_free(ev->call);
		return;
	}
	c->rx = ev->call;
	aph_rx_call_set_data(ev->call, c);
	(void)clock_gettime(CLOCK_REALTIME, &c->arrived);
	aph_afrx_list_add(&s->waiting, &c->place);
	c->waits = true;
	s->n_waiting++;
	if (s->charging) {
		aph_afrx_match(s);
	} else {
		c->notice = true;
		aph_afrx_call_announce(c);
	}
	/*
	 * Each call has taken one of the engine's credits: with ACCEPT there may be one left still.
	 */
	aph_afrx_set_credit(s);
}

/* A call that nobody has accepted: whoever has read of it will accept another one, or none. */
static void vanish(struct aph_afrx_call *c)
{
	struct aph_afrx_socket *s = c->socket;

	aph_afrx_list_del(&c->place);
	c->waits = false;
	s->n_waiting--;
	if (!c->notice)
		aph_afrx_call_free(c);
	aph_afrx_set_credit(s);
}

/* A channel may be free now: for anybody who sends from this port. */
static void offer_channel(const struct aph_afrx_call *c)
{
	if (c->client)
		aph_afrx_wake_senders(c->client->endpoint);
}

static void end(struct aph_afrx_call *c, const struct aph_rx_end *how)
{
	c->ended = true;
	c->end = *how;
	if (!c->tagged) {
		vanish(c);
		return;
	}
	unblock(c);
	offer_channel(c);
	aph_afrx_call_announce(c);
}

void aph_afrx_event(const struct aph_rx_event *ev)
{
	struct aph_afrx_call *c = ev->data;

	if (ev->type == APH_RX_EVENT_CALL) {
		arrive(ev);
		return;
	}
	if (!c)
		return;
	switch (ev->type) {
	case APH_RX_EVENT_CALL:
		break;
	case APH_RX_EVENT_READABLE:
		(void)clock_gettime(CLOCK_REALTIME, &c->arrived);
		if (c->tagged)
			aph_afrx_call_announce(c);
		break;
	case APH_RX_EVENT_WRITABLE:
		unblock(c);
		aph_afrx_notify(c->socket);
		break;
	case APH_RX_EVENT_END:
		end(c, &ev->end);
		break;
	}
}
