/* SPDX-License-Identifier: MIT */
/*
 * The life of a call: how it begins at a service, what it waits for, and the one way in which it
 * ends. The states are in engine.h.
 */
#include "rx/call.h"

#include <errno.h>

/* -- events and the lists a call is in --------------------------------------------------------- */

void aph_rx_call_post(struct aph_rx_call *call, enum aph_rx_event_type type)
{
	if (!call->user_holds)
		return;
	if (!call->events)
		aph_list_append(&call->rx->ready, &call->event_link);
	call->events |= 1u << type;
}

static void drop_events(struct aph_rx_call *call, uint32_t keep)
{
	call->events &= keep;
	if (!call->events)
		aph_list_remove(&call->event_link);
}

void aph_rx_call_wants_to_send(struct aph_rx_call *call)
{
	if (call->conn && aph_list_empty(&call->send_link))
		aph_list_append(&call->rx->sending, &call->send_link);
}

/* -- time -------------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t later_by(uint64_t since_ns, uint64_t by_ns)
{
	return by_ns > UINT64_MAX - since_ns ? UINT64_MAX : since_ns + by_ns;
}

/* Whether silence of the peer means anything now. */
static bool expects_peer(const struct aph_rx_call *call)
{
	return call->conn && call->state != APH_RX_STATE_COMPLETE &&
	       (call->n_sent || !call->is_client);
}

uint64_t aph_rx_call_deadline(const struct aph_rx_call *call)
{
	uint64_t due = call->hard_ns;

	if (call->state == APH_RX_STATE_ENDED)
		return UINT64_MAX;
	if (call->idle_ns)
		due = earlier(due, later_by(call->data_ns, call->idle_ns));
	if (!call->conn)
		return due;
	due = earlier(due, aph_rx_recover_deadline(call));
	if (call->in.ack_reason)
		due = earlier(due, call->in.ack_ns);
	if (expects_peer(call)) {
		due = earlier(due, later_by(call->heard_ns, call->dead_ns));
		due = earlier(due, call->ping_ns);
	}
	return due;
}

static void keep_alive(struct aph_rx_call *call)
{
	struct aph_rx *rx = call->rx;
	uint64_t interval = call->dead_ns / 6;

	/*
	 * A question about a call that has not reached the server would be answered: there is none.
	 */
	if (call->is_client && !call->received) {
		call->ping_ns = later_by(rx->now_ns, interval);
		return;
	}
	if (call->out.last_sent_ns + interval > rx->now_ns) {
		call->ping_ns = call->out.last_sent_ns + interval;
		return;
	}
	call->ping_ns = later_by(rx->now_ns, interval);
	call->ping_due = true;
	aph_rx_call_wants_to_send(call);
}

/*
 * Who was away for most of the silence has not listened: what has come meanwhile is looked at
 * first, and if there is nothing the silence begins with our return. Once: who comes by as seldom
 * as that hears nothing either.
 */
static bool is_spared(struct aph_rx_call *call)
{
	const struct aph_rx *rx = call->rx;

	if (rx->away_ns < call->dead_ns / 2 || call->heard_ns >= rx->back_ns ||
	    call->heard_ns == call->spared_ns)
		return false;
	call->heard_ns = call->spared_ns = rx->back_ns;
	return true;
}

void aph_rx_call_expired(struct aph_rx_call *call)
{
	uint64_t now = call->rx->now_ns;

	if (call->state == APH_RX_STATE_ENDED)
		return;
	if (now >= call->hard_ns ||
	    (call->idle_ns && now >= later_by(call->data_ns, call->idle_ns))) {
		/*
		 * Who has all of the reply, and was told so, has no more to wait for; the server
		 * hears of that.
		 */
		if (call->state == APH_RX_STATE_COMPLETE)
			aph_rx_call_end(call, APH_RX_DONE, 0);
		else
			aph_rx_call_abort_now(call, APH_RX_TIMED_OUT, APH_RX_CALL_TIMEOUT);
		return;
	}
	if (expects_peer(call) && now >= later_by(call->heard_ns, call->dead_ns) &&
	    !is_spared(call)) {
		aph_rx_call_abort_now(call, APH_RX_TIMED_OUT, APH_RX_CALL_DEAD);
		return;
	}
	if (call->conn) {
		if (call->in.ack_reason && now >= call->in.ack_ns) {
			call->in.ack_now = true;
			call->in.ack_ns = UINT64_MAX;
			aph_rx_call_wants_to_send(call);
		}
		if (now >= aph_rx_recover_deadline(call) && !aph_rx_recover_expired(call))
			return;
		if (expects_peer(call) && now >= call->ping_ns)
			keep_alive(call);
	}
	aph_rx_timer_set(&call->rx->timers, &call->timer, aph_rx_call_deadline(call));
}

void aph_rx_call_is_fresh(struct aph_rx_call *call, uint8_t times)
{
	call->fresh |= times;
	if (aph_list_empty(&call->fresh_link))
		aph_list_append(&call->rx->fresh, &call->fresh_link);
}

void aph_rx_call_freshen(struct aph_rx_call *call, uint64_t late_ns)
{
	uint8_t times = call->fresh;

	call->fresh = 0;
	if (!late_ns || call->state == APH_RX_STATE_ENDED)
		return;
	if (times & APH_RX_FRESH_HARD)
		call->hard_ns = later_by(call->hard_ns, late_ns);
	if (times & APH_RX_FRESH_HEARD) {
		call->heard_ns += late_ns;
		call->ping_ns = later_by(call->ping_ns, late_ns);
	}
	if (times & APH_RX_FRESH_DATA)
		call->data_ns += late_ns;
}

/*
 * The silence so far was no longer than the old limit allowed, and was asked about as often as that
 * demanded.
 */
static void set_dead(struct aph_rx_call *call, uint64_t dead_ns)
{
	uint64_t now = call->rx->now_ns;

	if (dead_ns < call->dead_ns) {
		call->heard_ns = now;
		call->ping_ns = earlier(call->ping_ns, now + dead_ns / 6);
		aph_rx_call_is_fresh(call, APH_RX_FRESH_HEARD);
	}
	call->dead_ns = dead_ns;
}

void aph_rx_call_set_timeouts(struct aph_rx_call *call, uint32_t dead_ms, uint32_t idle_ms,
			      uint32_t hard_ms)
{
	if (call->state == APH_RX_STATE_ENDED)
		return;
	if (dead_ms)
		set_dead(call, dead_ms * APH_RX_MS);
	if (idle_ms)
		call->idle_ns = idle_ms * APH_RX_MS;
	if (hard_ms) {
		call->hard_ns = call->rx->now_ns + hard_ms * APH_RX_MS;
		aph_rx_call_is_fresh(call, APH_RX_FRESH_HARD);
	}
	if (dead_ms || idle_ms || hard_ms)
		aph_rx_call_arm(call, aph_rx_call_deadline(call));
}

/* -- beginning --------------------------------------------------------------------------------- */

void aph_rx_call_begin(struct aph_rx_call *call)
{
	call->state = APH_RX_STATE_REQUEST;
	call->heard_ns = call->rx->now_ns;
	call->ping_ns = later_by(call->rx->now_ns, call->dead_ns / 6);
	if (call->out.end > call->out.next)
		aph_rx_call_wants_to_send(call);
	aph_rx_call_arm(call, earlier(call->ping_ns, call->hard_ns));
	if (call->idle_ns)
		aph_rx_call_arm(call, later_by(call->data_ns, call->idle_ns));
}

struct aph_rx_call *aph_rx_call_incoming(struct aph_rx_conn *conn, struct aph_rx_service *service,
					 unsigned channel, uint32_t number)
{
	struct aph_rx *rx = conn->rx;
	struct aph_rx_call *call = aph_rx_call_alloc(rx);

	if (!call)
		return NULL;
	call->peer = conn->peer;
	aph_rx_peer_ref(call->peer);
	call->owner = service;
	call->user_holds = true;
	call->service = service->id;
	call->data_ns = rx->now_ns;
	call->dead_ns = rx->config.dead_ms * APH_RX_MS;
	call->hard_ns = UINT64_MAX;
	call->received = true;
	aph_rx_conn_attach(conn, channel, call, number);
	aph_rx_in_init(call);
	aph_rx_out_init(call);
	aph_list_append(&service->calls, &call->link);
	if (service->credit != APH_RX_UNLIMITED)
		service->credit--;
	rx->n_served++;
	rx->limits[call->peer->group].n_calls++;
	call->awaited = !call->peer->proven;
	rx->n_awaited += call->awaited;
	rx->stats.calls_served++;
	aph_rx_call_begin(call);
	aph_rx_call_post(call, APH_RX_EVENT_CALL);
	return call;
}

void aph_rx_call_not_awaited(struct aph_rx_call *call)
{
	call->rx->n_awaited -= call->awaited;
	call->awaited = false;
}

/* -- ending ------------------------------------------------------------------------------------ */

void aph_rx_call_settle(struct aph_rx_call *call)
{
	if (call->state != APH_RX_STATE_ENDED || call->user_holds)
		return;
	drop_events(call, 0);
	aph_list_remove(&call->link);
	aph_rx_in_deinit(call);
	if (call->out.lent)
		aph_rx_out_settle(call);
	if (!call->is_client) {
		call->rx->n_served--;
		call->rx->limits[call->peer->group].n_calls--;
	}
	aph_rx_peer_unref(call->peer);
	aph_rx_call_release_memory(call);
}

void aph_rx_call_free_all(struct aph_rx *rx)
{
	while (!aph_list_empty(&rx->orphans)) {
		struct aph_rx_call *call =
			aph_container(rx->orphans.next, struct aph_rx_call, link);

		call->user_holds = false;
		aph_rx_call_settle(call);
	}
}

/* Nobody has seen it yet: nobody needs to hear of it, and another call may come in its place. */
static void forget_unseen(struct aph_rx_call *call)
{
	if (!(call->events & 1u << APH_RX_EVENT_CALL))
		return;
	call->user_holds = false;
	if (call->owner && call->owner->credit < APH_RX_REFUSE)
		call->owner->credit++;
}

void aph_rx_call_end(struct aph_rx_call *call, enum aph_rx_outcome outcome, int32_t code)
{
	struct aph_rx *rx = call->rx;

	if (call->state == APH_RX_STATE_ENDED)
		return;
	call->state = APH_RX_STATE_ENDED;
	if (!call->told)
		call->end = (struct aph_rx_end){ outcome, code };
	rx->stats.calls_ended++;
	aph_rx_trace_call(call, APH_RX_TRACE_ENDED, 0, NULL);
	aph_list_remove(&call->wait_link);
	aph_list_remove(&call->send_link);
	aph_list_remove(&call->fresh_link);
	if (call->is_bulk) {
		call->is_bulk = false;
		rx->n_bulk--;
	}
	aph_rx_call_not_awaited(call);
	aph_rx_out_deinit(call);
	forget_unseen(call);
	if (!call->told && call->user_holds) {
		call->told = true;
		drop_events(call, 0);
		aph_rx_call_post(call, APH_RX_EVENT_END);
	}
	if (call->conn)
		aph_rx_conn_release(call->conn, call);
	aph_rx_call_settle(call);
}

/*
 * When many calls end at once, as their service goes, there is no room for all: the others' leave
 * from their channels.
 */
static void say_abort(struct aph_rx_call *call, int32_t code)
{
	/* Who has not heard of it need not hear that either. */
	if (!call->conn || (call->is_client && !call->n_sent))
		return;
	if (aph_rx_send_abort(call->conn, call->cid, call->number, code))
		return;
	call->conn->channels[call->channel].abort_due = true;
	aph_rx_conn_hurry(call->conn);
}

void aph_rx_call_abort_now(struct aph_rx_call *call, enum aph_rx_outcome outcome, int32_t code)
{
	say_abort(call, code);
	aph_rx_call_end(call, outcome, code);
}

void aph_rx_call_reset(struct aph_rx_call *call)
{
	say_abort(call, APH_RX_CALL_DEAD);
	aph_rx_call_end(call, APH_RX_RESET, ENETRESET);
}

/* Client: the whole reply is here. The channel is the call's until the user has read it. */
void aph_rx_call_complete(struct aph_rx_call *call)
{
	call->state = APH_RX_STATE_COMPLETE;
	call->end = (struct aph_rx_end){ APH_RX_DONE, 0 };
	call->told = true;
	aph_rx_call_post(call, APH_RX_EVENT_END);
	if (!call->user_holds)
		aph_rx_call_end(call, APH_RX_DONE, 0);
}

int aph_rx_call_abort(struct aph_rx_call *call, int32_t code)
{
	if (!code)
		return -EINVAL;
	if (call->told || call->state == APH_RX_STATE_ENDED)
		return -EALREADY;
	aph_rx_call_abort_now(call, APH_RX_ABORTED_HERE, code);
	return 0;
}

struct aph_rx_call *aph_rx_call_free(struct aph_rx_call *call)
{
	if (!call)
		return NULL;
	call->user_holds = false;
	drop_events(call, 0);
	if (call->state == APH_RX_STATE_ENDED)
		aph_rx_call_settle(call);
	else if (call->state == APH_RX_STATE_COMPLETE)
		aph_rx_call_end(call, APH_RX_DONE, 0);
	else if (call->is_client || !call->out.finished)
		aph_rx_call_abort_now(call, APH_RX_ABORTED_HERE, APH_RX_CALL_DEAD);
	return NULL;
}

/* -- what is known of it ----------------------------------------------------------------------- */

void aph_rx_call_info(const struct aph_rx_call *call, struct aph_rx_call_info *info)
{
	*info = (struct aph_rx_call_info){
		.path = &call->peer->path,
		.service = call->service,
		.is_client = call->is_client,
		.epoch = call->epoch,
		.cid = call->cid,
		.call_number = call->number,
		.n_sent = call->n_sent,
		.n_resent = call->n_resent,
		.n_acked = call->out.base ? call->out.base - 1 : 0,
		.rtt_us = call->peer->rtt.srtt_us,
		.received = call->received,
		.bounced = call->bounced,
		.vague = call->vague,
	};
	if (call->conn)
		info->security = call->conn->class->index;
}

void *aph_rx_call_data(const struct aph_rx_call *call)
{
	return call->data;
}

void aph_rx_call_set_data(struct aph_rx_call *call, void *data)
{
	call->data = data;
}
