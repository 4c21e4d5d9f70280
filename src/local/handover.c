/* SPDX-License-Identifier: MIT */
/*
 * Handover: a newcomer takes the name and the idle channels of the service that is there, while its
 * clients go on as if nothing happened.
 *
 *   newcomer                                  giver
 *     its own name, newer, so found first
 *     TAKE                          ---->
 *                                   <----     the listener
 *     APH_HANDOVER_YES              ---->       until here nothing has changed for anybody
 *                                             takes its name away, gives what is idle:
 *                                   <----     CHANNEL, FDS ... CHANNEL ... DONE
 *                                             TERMINATE to its user; what falls idle later follows
 *                                   <----     CHANNEL ... until it closes
 *
 * This file is the newcomer's side, give.c the giver's.
 *
 * No lost wake-up
 *
 * A client keeps the page of the first server mapped, which says nothing about the newcomer and
 * stands still when that server has died. So on a channel that was taken over `scanned` alone
 * counts, and it is 1 only while the server is awake. Whoever publishes makes a full fence and then
 * looks:
 *
 *   (1) page asleep, not rung for yet         rings
 *   (2) page asleep, rung for it, moved 0     does not
 *   (3) else                                  rings unless `scanned` is 1
 *
 * The newcomer exchanges `scanned` to 0, then `moved` to 1, and only then looks at the ring: its
 * first look is brought about by epoll, which reports once what it is told to watch. In case (2)
 * the client has seen moved 0 after it published: so the look comes later and finds the record.
 * From the moment in which the giver stops looking until then, case (3) may see a 1 of the giver's:
 * the same look finds that. Afterwards a 1 is the newcomer's own word, and before it sleeps, or
 * stops looking at this ring, it exchanges it to 0 and looks once more: if the client saw the 1, it
 * published before the exchange, and is found; else it rings, and a bell is an edge that epoll
 * keeps.
 */
#include "base/close.h"
#include "base/fd.h"
#include "local/hello.h"
#include "local/local.h"

#include <antiphon/api.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define TAKE_TIME_MS	  2000u /* how long a newcomer waits for what is idle */
#define MESSAGES_PER_TURN 64

struct aph_taking {
	struct aph_grave grave;
	struct aph_source source;
	struct aph_local_service *ls;
	int sock;
	bool agreed;
	bool settled;			    /* all that was idle is here, or nothing will come */
	struct aph_local_channel *arriving; /* descriptors for it are still to come */
	uint32_t n_missing;
};

/* -- a channel --------------------------------------------------------------------------------- */

static bool is_sane(const struct aph_handover *message, size_t n_fds)
{
	return n_fds == (message->flags & APH_WELCOME_BELL ? 3 : 2) &&
	       aph_layout_is_sane(message->depth, message->arena, message->calls_max) &&
	       message->replies_sent - message->replies_taken <= message->depth &&
	       message->fds_under_way <= APH_SOCKET_FDS_MAX &&
	       message->n_messages <= APH_SOCKET_FDS_MAX;
}

/* The rings and the arena, as the giver has left them. */
static int restore(struct aph_local_channel *lc, const struct aph_handover *message, size_t len)
{
	lc->base.calls_max = message->calls_max;
	lc->base.receipts = message->flags & APH_WELCOME_RECEIPTS;
	lc->receipts_ring = message->flags & APH_WELCOME_RECEIPTS_NOW;
	lc->may_pipeline = message->flags & APH_WELCOME_BARRIERS;
	lc->in.next = message->requests_taken;
	lc->out.next = message->replies_sent;
	lc->out.taken = message->replies_taken;
	if (message->fds_under_way) {
		lc->fds_sent[0].record = message->replies_sent;
		lc->fds_sent[0].n = lc->fds_under_way = message->fds_under_way;
		lc->fds_tail = 1;
	}
	if (len == APH_HANDOVER_SHORT)
		return 0;
	return aph_arena_restore(&lc->out_arena, message->n_of);
}

static int attach(struct aph_local_channel *lc, const struct aph_handover *message, size_t len)
{
	int r;

	lc->map_size = aph_layout_size(message->depth, message->arena);
	r = aph_segment_map(&lc->map, lc->segment_fd, lc->map_size, true);
	if (r < 0)
		return r;
	aph_local_channel_attach(lc, message->depth, message->arena, false);
	return restore(lc, message, len);
}

/* Who the client is, by the kernel's word; and what the kernel has told the giver alone. */
static int identify(struct aph_local_channel *lc, const struct aph_handover *message)
{
	int r = aph_local_peer_credentials(&lc->base, lc->sock);

	lc->base.peer.uid = message->uid;
	lc->base.peer.gid = message->gid;
	if (r == 0 && !aph_local_may_enter(lc->base.service, &lc->base.peer))
		return -EACCES;
	return r;
}

/* Lets the client know who serves it now, and shows it the page that says whether we are busy. */
static void introduce(const struct aph_local_channel *lc)
{
	static const char byte = APH_SOCKET_MOVED;

	/* A hint: without it the client works, and guesses. */
	(void)aph_hello_send(lc->sock, &byte, 1, &lc->local->page_fd, 1);
}

/* All of it has come. Its order is the one that the argument above needs. */
static void adopt(struct aph_local_service *ls, struct aph_local_channel *lc)
{
	struct aph_segment_words *words = lc->words;

	atomic_store_explicit(&words->generation, ls->base.generation, memory_order_release);
	(void)atomic_exchange(&words->server.scanned, 0);
	(void)atomic_exchange(&words->server.moved, 1);
	/*
	 * A socket that rings by bytes reports, once, that there is room: that is its first look.
	 */
	lc->fds_blocked = lc->bell < 0;
	if (aph_local_watch(lc) < 0) {
		aph_local_channel_discard(lc);
		return;
	}
	lc->moved = true;
	lc->local->n_moved++;
	introduce(lc);
	aph_local_close_segment(lc);
	aph_channel_init(&lc->base, ls->base.ep, &ls->base);
	aph_channel_opened(&lc->base, ls->base.flags & APH_SERVICE_EVENTS);
	aph_local_may_leave(lc);
}

static void take_channel(struct aph_taking *taking, const struct aph_handover *handover, size_t len,
			 struct aph_hello_message *message)
{
	struct aph_local_service *ls = taking->ls;
	struct aph_local_channel *lc;

	if (!is_sane(handover, message->n_fds))
		return;
	lc = aph_local_channel_new(ls->local);
	if (!lc)
		return;
	if (message->n_fds == 3)
		lc->bell = message->fds[2];
	lc->segment_fd = message->fds[1];
	lc->sock = message->fds[0];
	message->n_fds = 0;
	lc->base.ep = ls->base.ep;
	lc->base.service = &ls->base;
	if (attach(lc, handover, len) < 0 || identify(lc, handover) < 0) {
		aph_local_channel_discard(lc);
		return;
	}
	if (!handover->n_messages) {
		adopt(ls, lc);
		return;
	}
	taking->arriving = lc;
	taking->n_missing = handover->n_messages;
}

/* -- the conversation -------------------------------------------------------------------------- */

static void drop_arriving(struct aph_taking *taking)
{
	struct aph_local_channel *lc = taking->arriving;

	if (!lc)
		return;
	if (lc->base.ep->forked)
		lc->map = NULL; /* it did not come along */
	aph_local_channel_discard(lc);
	taking->arriving = NULL;
}

static void settle(struct aph_taking *taking)
{
	taking->settled = true;
	aph_endpoint_changed(taking->ls->base.ep);
}

static void stop_taking(struct aph_taking *taking)
{
	struct aph_local_service *ls = taking->ls;

	ls->taking = NULL;
	drop_arriving(taking);
	settle(taking);
	aph_local_taken_all(ls);
	if (!ls->base.ep->forked)
		aph_source_remove(ls->base.ep, taking->sock);
	aph_fd_close(&taking->sock);
	aph_bury(ls->base.ep, &taking->grave, taking);
}

/* The listener: from now on the name is ours, if the giver hears us. */
static bool take_listener(struct aph_taking *taking, const struct aph_handover *handover,
			  struct aph_hello_message *message)
{
	static const char yes = APH_HANDOVER_YES;
	struct aph_local_service *ls = taking->ls;

	if (taking->agreed || message->n_fds != 1 ||
	    aph_hello_send(taking->sock, &yes, 1, NULL, 0) < 0)
		return false;
	taking->agreed = ls->taken = true;
	if (handover->generation > ls->base.generation)
		ls->base.generation = handover->generation;
	/* Without it those who wait there are sent away, and come to us on their own. */
	if (aph_local_inherit(ls, message->fds[0]) == 0)
		message->n_fds = 0;
	return true;
}

static void take_fds(struct aph_taking *taking, const struct aph_handover *handover,
		     struct aph_hello_message *message)
{
	struct aph_local_channel *lc = taking->arriving;

	if (!lc)
		return;
	if (aph_local_stash_add(lc, message->fds, message->n_fds, handover->truncated) < 0) {
		message->n_fds = 0;
		drop_arriving(taking);
		return;
	}
	message->n_fds = 0;
	if (--taking->n_missing)
		return;
	taking->arriving = NULL;
	adopt(taking->ls, lc);
}

/* False when the giver says what makes no sense, or that it gives nothing. */
static bool take(struct aph_taking *taking, const struct aph_handover *handover,
		 struct aph_hello_message *message)
{
	if (message->len != APH_HANDOVER_SHORT && message->len != sizeof(*handover))
		return false;
	if (handover->magic != APH_LOCAL_MAGIC || handover->version != APH_LOCAL_VERSION)
		return false;
	if (handover->kind == APH_HANDOVER_LISTENER)
		return take_listener(taking, handover, message);
	if (!taking->agreed)
		return false;
	switch (handover->kind) {
	case APH_HANDOVER_CHANNEL:
		drop_arriving(taking);
		take_channel(taking, handover, message->len, message);
		return true;
	case APH_HANDOVER_FDS:
		take_fds(taking, handover, message);
		return true;
	case APH_HANDOVER_DONE:
		settle(taking);
		return true;
	default:
		return false;
	}
}

/* One message. 0, -EAGAIN, or it is over. */
static int listen_once(struct aph_taking *taking)
{
	struct aph_hello_message message;
	struct aph_handover handover;
	bool good;
	int r = aph_hello_recv(taking->sock, &handover, sizeof(handover), &message);

	if (r == -EPROTO || r == -EMFILE) {
		/* For want of descriptors it did not come whole: one client loses its channel. */
		drop_arriving(taking);
		return 0;
	}
	if (r < 0)
		return r;
	good = take(taking, &handover, &message);
	aph_close_received(message.whose, message.fds, message.n_fds);
	return good ? 0 : -EPROTO;
}

static void taker_ready(struct aph_source *source, uint32_t events)
{
	struct aph_taking *taking = aph_container(source, struct aph_taking, source);
	int i, r = 0;

	(void)events;
	if (taking->sock < 0)
		return;
	for (i = 0; i < MESSAGES_PER_TURN && r == 0; i++)
		r = listen_once(taking);
	if (r < 0 && r != -EAGAIN)
		stop_taking(taking);
}

static bool is_settled(void *arg)
{
	const struct aph_local_service *ls = arg;

	return !ls->taking || ls->taking->settled;
}

/* Only our own user and root may hand us clients. */
static bool is_trusted(int sock)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
	       (who.uid == 0 || who.uid == geteuid());
}

static int begin_taking(struct aph_local_service *ls, int sock)
{
	struct aph_hello hello = {
		.magic = APH_LOCAL_MAGIC,
		.version = APH_LOCAL_VERSION,
		.kind = APH_HELLO_TAKE,
		.allow = (ls->base.flags & APH_SERVICE_RECEIPTS ? APH_WELCOME_RECEIPTS : 0) |
			 (ls->base.flags & APH_SERVICE_RECEIPTS_NOW ? APH_WELCOME_RECEIPTS_NOW : 0),
		.depth = ls->base.channels_max,
		.calls_max = ls->base.calls_max ? ls->base.calls_max : APH_CALLS_DEFAULT,
		.arena = ls->base.arena_max ? ls->base.arena_max : APH_ARENA_DEFAULT,
	};
	struct aph_taking *taking;
	int r;

	if (!is_trusted(sock))
		return -EACCES;
	taking = calloc(1, sizeof(*taking));
	if (!taking)
		return -ENOMEM;
	taking->ls = ls;
	taking->sock = sock;
	taking->source.on_ready = taker_ready;
	r = aph_hello_send(sock, &hello, sizeof(hello), NULL, 0);
	if (r == 0)
		r = aph_source_add(ls->base.ep, sock, &taking->source, EPOLLIN | EPOLLRDHUP);
	if (r < 0) {
		free(taking);
		return r;
	}
	ls->taking = taking;
	return 0;
}

bool aph_local_take_over(struct aph_local_service *ls, int sock)
{
	if (begin_taking(ls, sock) < 0) {
		(void)close(sock);
		return false;
	}
	/* A giver that is stopped may come back: what it gives then is welcome still. */
	(void)aph_endpoint_wait(ls->base.ep, is_settled, ls, aph_deadline_ms(TAKE_TIME_MS),
				APH_WAITER_CLIENT);
	return ls->taken;
}

/* -- the end ----------------------------------------------------------------------------------- */

void aph_local_handover_free(struct aph_local_service *ls)
{
	aph_local_give_stop(ls);
	if (ls->taking)
		stop_taking(ls->taking);
}

/* -- sleep ------------------------------------------------------------------------------------- */

static void set_scanned(struct aph_local *local, uint32_t value)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &local->scan) {
		struct aph_local_channel *lc =
			aph_container(pos, struct aph_local_channel, scan_link);

		if (lc->moved)
			(void)atomic_exchange(&lc->words->server.scanned, value);
	}
}

void aph_local_moved_asleep(struct aph_local *local)
{
	set_scanned(local, 0);
}

void aph_local_moved_awake(struct aph_local *local)
{
	set_scanned(local, 1);
}
