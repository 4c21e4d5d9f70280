/* SPDX-License-Identifier: MIT */
/*
 * The service's side of the rendezvous: letting clients in. A newcomer has five seconds and one
 * message to say what it wants; until then it costs a descriptor, and what one user may hold of
 * those is bounded.
 */
#include "base/close.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/time.h"
#include "local/hello.h"
#include "local/local.h"
#include "local/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define NEWCOMERS_MAX	   256u
#define NEWCOMERS_PER_USER 32u
#define HELLO_TIME_MS	   5000u
#define ACCEPTS_PER_TURN   64
#define ACCEPTING_NS	   100000u /* in one turn: those who are in wait meanwhile */
/* Far from both ends, so that neither ringing can block. */
#define BELL_COUNT (UINT64_C(1) << 62)

/* -- opening a channel ------------------------------------------------------------------------- */

static uint32_t clamp_depth(uint32_t depth)
{
	uint32_t d = APH_DEPTH_MIN;

	while (d < depth && d < APH_DEPTH_MAX)
		d *= 2;
	return d;
}

static uint32_t clamp(uint32_t value, uint32_t fallback, uint32_t least, uint32_t most)
{
	if (!value)
		value = fallback;
	return value < least ? least : value > most ? most : value;
}

static uint32_t clamp_arena(const struct aph_service *service, uint32_t arena)
{
	uint32_t most = clamp(service->arena_max, APH_ARENA_DEFAULT, APH_ARENA_MIN, APH_ARENA_MAX);
	uint32_t size = APH_ARENA_MIN;

	arena = clamp(arena, APH_ARENA_DEFAULT, APH_ARENA_MIN, most);
	while (size * 2 <= arena)
		size *= 2;
	return size;
}

/* With half of the process's descriptors in use, new channels do with one. */
static bool can_afford_bell(struct aph_local *local, int newest_fd)
{
	aph_local_note_limit(local);
	return newest_fd < local->many_fds;
}

static int make_bell(void)
{
	uint64_t count = BELL_COUNT;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);

	if (fd >= 0 && write(fd, &count, sizeof(count)) != (ssize_t)sizeof(count)) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

static int send_welcome(struct aph_local_channel *lc, struct aph_local_service *ls)
{
	struct aph_welcome welcome = {
		.magic = APH_LOCAL_MAGIC,
		.version = APH_LOCAL_VERSION,
		.depth = lc->depth,
		.calls_max = lc->base.calls_max,
		.arena = lc->arena_size,
		.flags = (lc->bell >= 0 ? APH_WELCOME_BELL : 0) |
			 (lc->may_pipeline ? APH_WELCOME_BARRIERS : 0) |
			 (ls->base.flags & APH_SERVICE_RECEIPTS ? APH_WELCOME_RECEIPTS : 0) |
			 (ls->base.flags & APH_SERVICE_RECEIPTS_NOW ? APH_WELCOME_RECEIPTS_NOW : 0),
	};
	int fds[] = { lc->segment_fd, lc->local->page_fd, lc->bell };

	return aph_hello_send(lc->sock, &welcome, sizeof(welcome), fds, lc->bell >= 0 ? 3 : 2);
}

static int open_channel(struct aph_local_channel *lc, struct aph_local_service *ls,
			const struct aph_hello *hello)
{
	struct aph_service *service = &ls->base;
	uint32_t depth = clamp_depth(hello->depth);
	uint32_t arena = clamp_arena(service, hello->arena);
	int r;

	lc->base.calls_max = clamp(hello->calls_max, APH_CALLS_DEFAULT, 1,
				   clamp(service->calls_max, APH_CALLS_DEFAULT, 1, APH_CALLS_MAX));
	lc->map_size = aph_layout_size(depth, arena);
	r = aph_segment_make(&lc->segment_fd, &lc->map, lc->map_size, "antiphon-channel", false);
	if (r < 0)
		return r;
	aph_local_channel_attach(lc, depth, arena, false);
	lc->may_pipeline = lc->local->barriers;
	if (service->generation)
		aph_local_channel_ops.set_generation(&lc->base, service->generation);
	if (can_afford_bell(lc->local, lc->segment_fd))
		lc->bell = make_bell();
	r = aph_local_watch(lc);
	if (r == 0)
		r = send_welcome(lc, ls);
	if (r < 0)
		return r;
	lc->is_new = lc->bell >= 0;
	if (!lc->is_new)
		aph_local_close_segment(lc);
	lc->base.receipts = service->flags & APH_SERVICE_RECEIPTS;
	lc->receipts_ring = service->flags & APH_SERVICE_RECEIPTS_NOW;
	aph_channel_init(&lc->base, service->ep, service);
	aph_channel_opened(&lc->base, service->flags & APH_SERVICE_EVENTS);
	aph_local_may_leave(lc);
	return 0;
}

/* -- newcomers --------------------------------------------------------------------------------- */

static void forget(struct aph_local_channel *lc)
{
	if (aph_list_empty(&lc->pending_link))
		return;
	aph_list_remove(&lc->pending_link);
	lc->local->n_newcomers--;
	aph_local_unwatch(lc);
}

void aph_local_newcomer_drop(struct aph_local_channel *lc)
{
	forget(lc);
	aph_local_channel_discard(lc);
}

void aph_local_newcomer_expire(struct aph_local *local, uint64_t now_ns)
{
	while (!aph_list_empty(&local->newcomers)) {
		struct aph_local_channel *lc = aph_container(
			local->newcomers.next, struct aph_local_channel, pending_link);

		if (lc->hello_deadline_ns > now_ns)
			return;
		aph_local_newcomer_drop(lc);
	}
}

static void answer(int sock, int status)
{
	struct aph_welcome welcome = {
		.magic = APH_LOCAL_MAGIC,
		.version = APH_LOCAL_VERSION,
		.status = (uint16_t)status,
	};

	(void)aph_hello_send(sock, &welcome, sizeof(welcome), NULL, 0);
}

static void turn_away(struct aph_local_channel *lc, int status)
{
	answer(lc->sock, status);
	aph_local_channel_discard(lc);
}

static void serve_stats(struct aph_local_channel *lc, struct aph_local_service *ls)
{
	struct aph_stats_message stats;

	aph_stats_fill(&stats, &ls->base);
	(void)aph_hello_send(lc->sock, &stats, sizeof(stats), NULL, 0);
	aph_local_channel_discard(lc);
}

/* A newer service of the same user wants to go on where this one stops. */
static void hand_over(struct aph_local_channel *lc, struct aph_local_service *ls,
		      const struct aph_hello *hello)
{
	int r = aph_local_offer(ls, lc->sock, hello);

	if (r < 0) {
		turn_away(lc, -r);
		return;
	}
	lc->sock = -1;
	aph_local_channel_discard(lc);
}

/* What the newcomer said decides what becomes of it; it is on no list any more. */
static void admit(struct aph_local_channel *lc, struct aph_local_service *ls,
		  const struct aph_hello *hello)
{
	const struct aph_credentials *who = &lc->base.peer;
	int r;

	if (hello->kind == APH_HELLO_STATS &&
	    (aph_local_is_master(who) || aph_local_may_enter(&ls->base, who))) {
		serve_stats(lc, ls);
	} else if (hello->kind == APH_HELLO_TERMINATE && aph_local_is_master(who)) {
		aph_pending_add(ls->base.ep, &ls->base.pending, APH_EVENT_TERMINATE);
		turn_away(lc, 0);
	} else if (hello->kind == APH_HELLO_TAKE && aph_local_is_master(who)) {
		hand_over(lc, ls, hello);
	} else if (hello->kind != APH_HELLO_CALLS ||
		   !aph_local_is_allowed(&ls->base, who, hello->allow)) {
		turn_away(lc, EACCES);
	} else if (aph_local_has_left(lc)) {
		/* A channel is dear: nobody gets one who is not there any more. */
		aph_local_channel_discard(lc);
	} else if (!aph_local_has_share(&ls->base, who)) {
		turn_away(lc, EBUSY);
	} else {
		r = open_channel(lc, ls, hello);
		if (r < 0)
			turn_away(lc, EBUSY);
	}
}

static bool is_hello(const struct aph_hello *hello, const struct aph_hello_message *message)
{
	return message->len == sizeof(*hello) && !message->n_fds &&
	       hello->magic == APH_LOCAL_MAGIC && hello->version == APH_LOCAL_VERSION;
}

/* Reads the hello if it is there. False when the newcomer has to be waited for. */
static bool greet(struct aph_local_channel *lc, struct aph_local_service *ls)
{
	struct aph_hello_message message;
	struct aph_hello hello;
	int r = aph_hello_recv(lc->sock, &hello, sizeof(hello), &message);

	if (r == -EAGAIN)
		return false;
	forget(lc);
	if (r == 0 && is_hello(&hello, &message)) {
		if (message.has_cred) {
			/* The kernel's word on the sender: its real ids. */
			lc->base.peer.uid = message.cred.uid;
			lc->base.peer.gid = message.cred.gid;
		}
		admit(lc, ls, &hello);
		return true;
	}
	aph_close_received(message.whose, message.fds, message.n_fds);
	/* Who just looked whether somebody is here has hung up without a word. */
	if (r < 0 || message.len)
		ls->base.stats->violations++;
	aph_local_channel_discard(lc);
	return true;
}

static void newcomer_ready(struct aph_source *source, uint32_t events)
{
	struct aph_local_channel *lc = aph_container(source, struct aph_local_channel, sock_source);
	struct aph_local_service *ls;

	/* Another event of the same batch may have dropped it. */
	if (aph_list_empty(&lc->pending_link))
		return;
	ls = aph_container(lc->base.service, struct aph_local_service, base);
	if (!greet(lc, ls) && (events & (EPOLLHUP | EPOLLERR)))
		aph_local_newcomer_drop(lc);
}

/* Makes room: a user with too many goes first, else the oldest of all. */
static void limit_newcomers(struct aph_local *local, uid_t uid)
{
	struct aph_local_channel *oldest_of_user = NULL;
	struct aph_list *pos, *tmp;
	unsigned n = 0;

	aph_list_for_each(pos, tmp, &local->newcomers) {
		struct aph_local_channel *lc =
			aph_container(pos, struct aph_local_channel, pending_link);

		if (lc->base.peer.euid != uid)
			continue;
		n++;
		if (!oldest_of_user)
			oldest_of_user = lc;
	}
	if (n >= NEWCOMERS_PER_USER)
		aph_local_newcomer_drop(oldest_of_user);
	else if (local->n_newcomers >= NEWCOMERS_MAX)
		aph_local_newcomer_drop(aph_container(local->newcomers.next,
						      struct aph_local_channel, pending_link));
}

static void wait_for_hello(struct aph_local_channel *lc)
{
	struct aph_local *local = lc->local;

	limit_newcomers(local, lc->base.peer.euid);
	lc->hello_deadline_ns = aph_deadline_ms(HELLO_TIME_MS);
	lc->sock_source.on_ready = newcomer_ready;
	if (aph_source_add(local->base.ep, lc->sock, &lc->sock_source, EPOLLIN) < 0) {
		aph_local_channel_discard(lc);
		return;
	}
	lc->sock_events = EPOLLIN;
	aph_list_append(&local->newcomers, &lc->pending_link);
	local->n_newcomers++;
}

static void welcome_newcomer(struct aph_local_service *ls, int sock)
{
	struct aph_local_channel *lc = aph_local_channel_new(ls->local);

	if (!lc) {
		(void)close(sock);
		return;
	}
	lc->sock = sock;
	lc->base.ep = ls->base.ep;
	lc->base.service = &ls->base;
	if (aph_local_peer_credentials(&lc->base, sock) < 0) {
		aph_local_channel_discard(lc);
		return;
	}
	if (!greet(lc, ls))
		wait_for_hello(lc);
}

/* No descriptor is left: the spare one lets us at least say so. */
static bool turn_away_one(struct aph_local *local, int listener)
{
	int sock;

	/* Another thread may have been faster when it was last opened again. */
	if (local->spare_fd < 0)
		local->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (local->spare_fd < 0)
		return false;
	(void)close(local->spare_fd);
	sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (sock >= 0) {
		answer(sock, EBUSY);
		(void)close(sock);
	}
	local->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return sock >= 0;
}

static void accept_some(struct aph_local_service *ls, int listener)
{
	uint64_t until = aph_time_ns() + ACCEPTING_NS;
	int i;

	for (i = 0; i < ACCEPTS_PER_TURN && aph_time_ns() < until; i++) {
		int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (sock >= 0)
			welcome_newcomer(ls, sock);
		else if ((errno != EMFILE && errno != ENFILE) ||
			 !turn_away_one(ls->local, listener))
			return;
	}
}

static void listener_ready(struct aph_source *source, uint32_t events)
{
	struct aph_local_service *ls = aph_container(source, struct aph_local_service, source);

	(void)events;
	if (ls->listener >= 0)
		accept_some(ls, ls->listener);
}

/* -- the listener of the service before -------------------------------------------------------- */

static void inherited_ready(struct aph_source *source, uint32_t events)
{
	struct aph_local_service *ls =
		aph_container(source, struct aph_local_service, inherited_source);

	(void)events;
	if (ls->inherited >= 0)
		accept_some(ls, ls->inherited);
}

int aph_local_inherit(struct aph_local_service *ls, int fd)
{
	int r;

	ls->inherited_source.on_ready = inherited_ready;
	r = aph_source_add(ls->base.ep, fd, &ls->inherited_source, EPOLLIN);
	if (r == 0)
		ls->inherited = fd;
	return r;
}

static void drop_inherited(struct aph_local_service *ls)
{
	if (ls->inherited < 0)
		return;
	aph_source_remove(ls->base.ep, ls->inherited);
	aph_fd_close(&ls->inherited);
}

/* -- the service ------------------------------------------------------------------------------- */

void aph_local_stop_listening(struct aph_local_service *ls)
{
	if (ls->listener < 0)
		return;
	aph_source_remove(ls->base.ep, ls->listener);
	(void)unlinkat(ls->dir_fd, ls->file, 0);
	aph_fd_close(&ls->listener);
	/* Whoever still waits where the name was before. */
	if (ls->inherited >= 0)
		accept_some(ls, ls->inherited);
	drop_inherited(ls);
}

static void withdraw(struct aph_local_service *ls)
{
	drop_inherited(ls);
	aph_local_stop_listening(ls);
	aph_fd_close(&ls->dir_fd);
}

static void close_service(struct aph_service *service)
{
	struct aph_local_service *ls = aph_container(service, struct aph_local_service, base);
	struct aph_list *pos, *tmp;

	withdraw(ls);
	aph_local_handover_free(ls);
	aph_list_for_each(pos, tmp, &ls->local->newcomers) {
		struct aph_local_channel *lc =
			aph_container(pos, struct aph_local_channel, pending_link);

		if (lc->base.service == service)
			aph_local_newcomer_drop(lc);
	}
	aph_bury(service->ep, &ls->grave, ls);
}

static void abandon_service(struct aph_service *service)
{
	struct aph_local_service *ls = aph_container(service, struct aph_local_service, base);

	aph_local_handover_free(ls);
	aph_fd_close(&ls->inherited);
	aph_fd_close(&ls->listener);
	aph_fd_close(&ls->dir_fd);
}

static void retire_service(struct aph_service *service)
{
	aph_local_give_last(aph_container(service, struct aph_local_service, base));
}

static int service_address(const struct aph_service *service, char *buf, size_t size)
{
	return aph_name_format(&service->name, buf, size);
}

static const struct aph_service_ops ops = {
	.retire = retire_service,
	.close = close_service,
	.abandon = abandon_service,
	.address = service_address,
};

int aph_local_service_open(struct aph_service **out, struct aph_endpoint *ep,
			   const struct aph_name *name, const struct aph_service_options *options)
{
	struct aph_local_service *ls;
	struct aph_local *local;
	int r;

	r = aph_local_get(&local, ep);
	if (r == 0)
		r = aph_local_need_page(local);
	if (r < 0)
		return r;
	ls = calloc(1, sizeof(*ls));
	if (!ls)
		return aph_err(-ENOMEM, "no memory for a service");
	aph_local_note_limit(local);
	ls->local = local;
	ls->listener = ls->dir_fd = ls->inherited = -1;
	ls->base.ep = ep;
	ls->base.ops = &ops;
	ls->base.name = *name;
	ls->base.flags = options->flags;
	ls->base.channels_max = options->channels_max;
	ls->base.calls_max = options->calls_max;
	ls->base.arena_max = options->arena_max;
	ls->base.data = options->data;
	ls->source.on_ready = listener_ready;
	aph_service_init(&ls->base);
	r = aph_local_register(ls);
	/* Only now can anybody come in: a name that was not to be had lets nobody down. */
	if (r == 0)
		r = aph_source_add(ep, ls->listener, &ls->source, EPOLLIN);
	if (r < 0) {
		aph_service_end(&ls->base);
		return r;
	}
	*out = &ls->base;
	return 0;
}
