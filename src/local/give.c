/* SPDX-License-Identifier: MIT */
/*
 * The giver's side of a handover, which handover.c describes: what is idle goes to the newcomer, in
 * messages that never wait for it. What finds no room on the socket stays here, and is served here,
 * until there is room. A channel that was sent is gone: if the newcomer dies, it closes.
 *
 * A channel is idle when no call of it is open. Requests that lie in its ring are nobody's yet: the
 * newcomer goes on where the giver stopped. What the giver knows and the segment does not say, or
 * what its client could have changed there, travels in the message.
 */
#include "base/fd.h"
#include "local/hello.h"
#include "local/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define GIVER_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

struct aph_giving {
	struct aph_grave grave;
	struct aph_source source;
	struct aph_local_service *ls;
	struct aph_list link;	 /* in the transport's givers */
	struct aph_list leaving; /* channels that may be idle */
	int sock;
	bool agreed;	      /* the newcomer has the listener */
	bool done;	      /* DONE was sent */
	bool told;	      /* the user was */
	struct aph_hello how; /* what it can take */
	uint32_t n_left;
	struct aph_fd_stash *stash; /* of a channel that was given: still to be sent */
	unsigned stash_message, stash_fd;
};

static struct aph_local_service *service_of(const struct aph_local_channel *lc)
{
	struct aph_service *service = lc->base.service;

	return service ? aph_container(service, struct aph_local_service, base) : NULL;
}

/* -- what is idle ------------------------------------------------------------------------------ */

static bool is_wanted(const struct aph_giving *giving, const struct aph_local_channel *lc)
{
	return giving->n_left && lc->base.state == APH_CHANNEL_OPEN && !lc->doom &&
	       lc->segment_fd >= 0 && lc->base.calls_max <= giving->how.calls_max &&
	       lc->arena_size <= giving->how.arena &&
	       (lc->base.receipts || !(giving->how.allow & APH_WELCOME_RECEIPTS)) &&
	       (lc->receipts_ring || !(giving->how.allow & APH_WELCOME_RECEIPTS_NOW));
}

/*
 * Calls that have ended may still be the user's; they must not need anything of the channel any
 * more.
 */
static bool is_idle(const struct aph_local_channel *lc)
{
	struct aph_list *pos, *tmp;

	if (lc->doom || lc->base.n_calls || lc->n_kept || !aph_list_empty(&lc->blocked))
		return false;
	aph_list_for_each(pos, tmp, &lc->base.calls) {
		const struct aph_local_call *call =
			aph_local_call(aph_container(pos, struct aph_call, link));

		if (call->available || call->reserved)
			return false;
	}
	return true;
}

/* Has what waits in the ring been dealt with, requests aside? Receipts do not ring. */
static void catch_up(struct aph_local_channel *lc)
{
	uint32_t n = 0;

	while (n < lc->depth && aph_local_take(lc, false))
		n++;
}

/* -- messages ---------------------------------------------------------------------------------- */

static void fill_head(struct aph_handover *message, enum aph_handover_kind kind)
{
	memset(message, 0, sizeof(*message));
	message->magic = APH_LOCAL_MAGIC;
	message->version = APH_LOCAL_VERSION;
	message->kind = (uint16_t)kind;
}

/* 0; -EAGAIN: the socket will say when there is room; else the newcomer is gone. */
static int say(const struct aph_giving *giving, const struct aph_handover *message, size_t len,
	       const int *fds, size_t n_fds)
{
	int r = aph_hello_send(giving->sock, message, len, fds, n_fds);

	/* Too many descriptors of this user are under way: those that it takes make room. */
	return r == -ETOOMANYREFS ? -EAGAIN : r;
}

static int say_listener(const struct aph_giving *giving)
{
	struct aph_handover message;

	fill_head(&message, APH_HANDOVER_LISTENER);
	message.generation = giving->ls->base.generation;
	return say(giving, &message, APH_HANDOVER_SHORT, &giving->ls->listener, 1);
}

static int say_done(const struct aph_giving *giving)
{
	struct aph_handover message;

	fill_head(&message, APH_HANDOVER_DONE);
	message.generation = giving->ls->base.generation;
	return say(giving, &message, APH_HANDOVER_SHORT, NULL, 0);
}

/* The rest of the channel that was given last. */
static int say_stash(struct aph_giving *giving)
{
	struct aph_fd_stash *stash = giving->stash;
	struct aph_handover message;
	int r;

	while (stash && giving->stash_message < stash->n_messages) {
		unsigned n = stash->counts[giving->stash_message];

		fill_head(&message, APH_HANDOVER_FDS);
		message.truncated = stash->truncated[giving->stash_message];
		r = say(giving, &message, APH_HANDOVER_SHORT, stash->fds + giving->stash_fd, n);
		if (r < 0)
			return r;
		giving->stash_message++;
		while (n--)
			aph_fd_close(&stash->fds[giving->stash_fd++]);
	}
	free(stash);
	giving->stash = NULL;
	return 0;
}

static int say_channel(struct aph_giving *giving, struct aph_local_channel *lc)
{
	int fds[] = { lc->sock, lc->segment_fd, lc->bell };
	struct aph_handover message;
	size_t len = APH_HANDOVER_SHORT;

	fill_head(&message, APH_HANDOVER_CHANNEL);
	message.flags = (lc->bell >= 0 ? APH_WELCOME_BELL : 0) |
			(lc->may_pipeline ? APH_WELCOME_BARRIERS : 0) |
			(lc->base.receipts ? APH_WELCOME_RECEIPTS : 0) |
			(lc->receipts_ring ? APH_WELCOME_RECEIPTS_NOW : 0);
	message.n_messages = lc->stash ? lc->stash->n_messages : 0;
	message.depth = lc->depth;
	message.calls_max = lc->base.calls_max;
	message.arena = lc->arena_size;
	message.requests_taken = lc->in.next;
	message.replies_sent = lc->out.next;
	message.replies_taken = lc->out.taken;
	message.fds_under_way = aph_local_fds_under_way(lc);
	message.uid = lc->base.peer.uid;
	message.gid = lc->base.peer.gid;
	if (aph_arena_save(&lc->out_arena, message.n_of))
		len = sizeof(message);
	return say(giving, &message, len, fds, lc->bell >= 0 ? 3 : 2);
}

/* The channel is the newcomer's. It ends here without a word to the client. */
static void let_go(struct aph_giving *giving, struct aph_local_channel *lc)
{
	giving->n_left--;
	giving->stash = lc->stash;
	giving->stash_message = giving->stash_fd = 0;
	lc->stash = NULL;
	aph_channel_end(&lc->base, APH_REASON_CLOSED);
}

/* -- the conversation -------------------------------------------------------------------------- */

static void free_stash(struct aph_giving *giving)
{
	if (!giving->stash)
		return;
	while (giving->stash_fd < giving->stash->n_fds)
		aph_fd_close(&giving->stash->fds[giving->stash_fd++]);
	free(giving->stash);
	giving->stash = NULL;
}

/* Ends the conversation. What was not given stays here. */
static void stop_giving(struct aph_giving *giving)
{
	struct aph_local_service *ls = giving->ls;

	ls->giving = NULL;
	if (giving->agreed)
		ls->local->n_giving--;
	aph_list_remove(&giving->link);
	while (!aph_list_empty(&giving->leaving))
		aph_list_remove(giving->leaving.next);
	free_stash(giving);
	if (!ls->base.ep->forked)
		aph_source_remove(ls->base.ep, giving->sock);
	aph_fd_close(&giving->sock);
	aph_bury(ls->base.ep, &giving->grave, giving);
}

/* The service has lost its name, and what it still has it may finish. */
static void tell_user(struct aph_giving *giving)
{
	if (giving->told)
		return;
	giving->told = true;
	aph_pending_add(giving->ls->base.ep, &giving->ls->base.pending, APH_EVENT_TERMINATE);
}

/* Not while channels may still come from the service before: they are to go on to the next. */
static void tell_user_in_time(struct aph_giving *giving)
{
	if (giving->done && !giving->ls->taking)
		tell_user(giving);
}

static void lose_newcomer(struct aph_giving *giving)
{
	if (giving->agreed)
		tell_user(giving);
	stop_giving(giving);
}

/* Gives what there is. 0 when that was all, -EAGAIN when the socket is full, else it is over. */
static int give_all(struct aph_giving *giving)
{
	int r = say_stash(giving);

	while (r == 0 && !aph_list_empty(&giving->leaving)) {
		struct aph_local_channel *lc =
			aph_container(giving->leaving.next, struct aph_local_channel, leaving_link);

		aph_list_remove(&lc->leaving_link);
		if (!is_wanted(giving, lc))
			continue;
		catch_up(lc);
		if (!is_idle(lc))
			continue; /* it comes back when a call of it ends */
		r = say_channel(giving, lc);
		if (r == 0) {
			let_go(giving, lc);
			r = say_stash(giving);
		} else if (r == -EAGAIN && aph_list_empty(&lc->leaving_link)) {
			aph_list_append(&giving->leaving, &lc->leaving_link);
		}
	}
	return r;
}

static void go_on(struct aph_giving *giving)
{
	int r = give_all(giving);

	/* Until the socket has room, or another call ends, there is nothing to do. */
	aph_list_remove(&giving->link);
	if (r == 0 && !giving->done) {
		r = say_done(giving);
		giving->done = r == 0;
	}
	if (r == 0)
		tell_user_in_time(giving);
	else if (r != -EAGAIN)
		lose_newcomer(giving);
}

void aph_local_give(struct aph_local *local)
{
	while (!aph_list_empty(&local->givers))
		go_on(aph_container(local->givers.next, struct aph_giving, link));
}

static void enlist(struct aph_giving *giving, struct aph_local_channel *lc)
{
	if (aph_list_empty(&lc->leaving_link))
		aph_list_append(&giving->leaving, &lc->leaving_link);
	if (aph_list_empty(&giving->link))
		aph_list_append(&giving->ls->local->givers, &giving->link);
}

void aph_local_may_leave(struct aph_local_channel *lc)
{
	struct aph_local_service *ls = service_of(lc);
	struct aph_giving *giving = ls ? ls->giving : NULL;

	if (!giving || !giving->agreed || lc->base.state != APH_CHANNEL_OPEN || lc->base.n_calls)
		return;
	if (aph_list_empty(&giving->link))
		/* Whoever sleeps for this endpoint is brought back: this asks for a new edge. */
		(void)aph_source_change(ls->base.ep, giving->sock, &giving->source, GIVER_EVENTS);
	enlist(giving, lc);
}

static void enlist_all(struct aph_giving *giving)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &giving->ls->base.channels)
		enlist(giving,
		       aph_local_channel(aph_container(pos, struct aph_channel, service_link)));
}

/* The newcomer has the listener: from here on the name is its. */
static void agree(struct aph_giving *giving)
{
	giving->agreed = true;
	giving->ls->local->n_giving++;
	aph_local_stop_listening(giving->ls);
	enlist_all(giving);
}

/* Whether the newcomer is still there. */
static bool hear(struct aph_giving *giving)
{
	char byte;
	ssize_t n = recv(giving->sock, &byte, 1, MSG_DONTWAIT);

	if (n == 1 && byte == APH_HANDOVER_YES && !giving->agreed) {
		agree(giving);
		return true;
	}
	return n < 0 && errno == EAGAIN;
}

static void giver_ready(struct aph_source *source, uint32_t events)
{
	struct aph_giving *giving = aph_container(source, struct aph_giving, source);

	if (giving->sock < 0)
		return;
	if (!hear(giving) || (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)))
		lose_newcomer(giving);
	else if (giving->agreed)
		go_on(giving);
}

int aph_local_offer(struct aph_local_service *ls, int sock, const struct aph_hello *hello)
{
	struct aph_giving *giving;
	int r;

	if (!(ls->base.flags & APH_SERVICE_GIVE))
		return -EACCES;
	if (ls->listener < 0)
		return -EBUSY;
	/*
	 * One that has not even said yes may be stopped for good: it must not be in the way of the
	 * next.
	 */
	if (ls->giving)
		stop_giving(ls->giving);
	giving = calloc(1, sizeof(*giving));
	if (!giving)
		return -ENOMEM;
	giving->ls = ls;
	giving->sock = sock;
	giving->how = *hello;
	giving->n_left = hello->depth;
	giving->source.on_ready = giver_ready;
	aph_list_init(&giving->link);
	aph_list_init(&giving->leaving);
	r = aph_source_add(ls->base.ep, sock, &giving->source, GIVER_EVENTS);
	if (r < 0) {
		free(giving);
		return r;
	}
	/* The last that can fail: whoever has the listener believes that it has the name. */
	r = say_listener(giving);
	if (r < 0) {
		giving->sock = -1;
		aph_source_remove(ls->base.ep, sock);
		aph_bury(ls->base.ep, &giving->grave, giving);
		return r;
	}
	ls->giving = giving;
	return 0;
}

void aph_local_give_last(struct aph_local_service *ls)
{
	if (!ls->giving || !ls->giving->agreed)
		return;
	enlist_all(ls->giving);
	go_on(ls->giving);
}

void aph_local_taken_all(struct aph_local_service *ls)
{
	if (ls->giving)
		tell_user_in_time(ls->giving);
}

void aph_local_give_stop(struct aph_local_service *ls)
{
	if (ls->giving)
		stop_giving(ls->giving);
}
