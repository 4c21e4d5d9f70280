/* SPDX-License-Identifier: MIT */
/*
 * The client's side of the rendezvous: who serves the name, are they who they must be, and will
 * they have us? The candidates are tried one after the other; a blocking open waits for the same
 * steps to end.
 */
#include "base/close.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/time.h"
#include "local/hello.h"
#include "local/local.h"
#include "local/rendezvous.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_EVENTS (EPOLLIN | EPOLLRDHUP)
#define SEARCHES_MAX  16u
#define RETRY_MS      1u /* at first, then twice as long each time */
#define RETRY_MAX_MS  16u

/* A search that goes on. */
struct aph_connecting {
	struct aph_rendezvous_entry *entries;
	size_t n, next;
	struct aph_hello hello;
	struct aph_name name; /* that is looked for */
	unsigned n_searches;
	int error; /* what the best candidate so far has said */
	bool announce;
	bool timed; /* holds a reservation in the timers */
	struct aph_timer timer;
	bool retries; /* holds another one */
	uint32_t retry_ms;
	struct aph_timer retry; /* too many wait at the service's door: looks again */
	struct aph_local_channel *lc;
};

void aph_local_connecting_free(struct aph_local_channel *lc)
{
	struct aph_endpoint *ep = lc->local->base.ep;

	if (!lc->connecting)
		return;
	if (lc->connecting->timed) {
		aph_timers_stop(&ep->timers, &lc->connecting->timer);
		aph_timers_unreserve(&ep->timers);
	}
	if (lc->connecting->retries) {
		aph_timers_stop(&ep->timers, &lc->connecting->retry);
		aph_timers_unreserve(&ep->timers);
	}
	free(lc->connecting->entries);
	free(lc->connecting);
	lc->connecting = NULL;
}

/* -- who serves -------------------------------------------------------------------------------- */

/* The kernel's word against the file's: whoever listens must be the file's owner, or root. */
static int check_server(struct aph_local_channel *lc, const struct aph_rendezvous_entry *entry)
{
	const struct aph_credentials *who = &lc->base.peer;
	int64_t wanted_gid = lc->connecting->name.gid;
	int r = aph_local_peer_credentials(&lc->base, lc->sock);

	if (r < 0)
		return r;
	if (who->euid != entry->owner && who->euid != 0)
		return aph_err(-EACCES, "%s is served by user %u under a file of user %u",
			       entry->file, (unsigned)who->euid, (unsigned)entry->owner);
	if (wanted_gid >= 0 && who->euid != 0 && !aph_local_is_in_group(who, wanted_gid))
		return aph_err(-EACCES, "%s is served by user %u, who is not in group %lld",
			       entry->file, (unsigned)who->euid, (long long)wanted_gid);
	return 0;
}

/* -- one candidate ----------------------------------------------------------------------------- */

static void answer_ready(struct aph_source *source, uint32_t events);

static int try_entry(struct aph_local_channel *lc, const struct aph_rendezvous_entry *entry)
{
	struct aph_connecting *connecting = lc->connecting;
	int r;

	lc->sock = aph_rendezvous_connect(entry);
	if (lc->sock < 0)
		return lc->sock;
	r = check_server(lc, entry);
	if (r == 0)
		r = aph_hello_send(lc->sock, &connecting->hello, sizeof(connecting->hello), NULL,
				   0);
	/* One that is short of descriptors says so without listening: its answer is there. */
	if (r == 0 || r == -EPIPE) {
		lc->sock_source.on_ready = answer_ready;
		r = aph_source_add(lc->base.ep, lc->sock, &lc->sock_source, ANSWER_EVENTS);
	}
	if (r == 0)
		lc->sock_events = ANSWER_EVENTS;
	else
		aph_local_channel_detach(lc);
	return r;
}

/* How much an error tells: that somebody is there weighs more than that nobody is. */
static int weight(int error)
{
	switch (error) {
	case 0:
		return 0;
	case -ECONNREFUSED:
	case -ENOENT:
	case -ECONNRESET:
	case -EPIPE:
		return 1;
	case -EACCES:
		return 2;
	default:
		return 3;
	}
}

static void note_error(struct aph_connecting *connecting, int error)
{
	if (weight(error) > weight(connecting->error))
		connecting->error = error;
}

static enum aph_reason reason_of(int error)
{
	switch (error) {
	case -EACCES:
		return APH_REASON_NOT_PERMITTED;
	case -EBUSY:
	case -EAGAIN:
		return APH_REASON_BUSY;
	case -EPROTO:
		return APH_REASON_PROTOCOL;
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
		return APH_REASON_RESOURCES;
	default:
		return APH_REASON_NO_SERVICE;
	}
}

static bool was_tried(const struct aph_connecting *connecting,
		      const struct aph_rendezvous_entry *entry)
{
	size_t i;

	for (i = 0; i < connecting->n; i++) {
		if (connecting->entries[i].dir == entry->dir &&
		    strcmp(connecting->entries[i].file, entry->file) == 0)
			return true;
	}
	return false;
}

/*
 * All candidates were gone: while we asked, somebody may have taken over from the last of them.
 * True when there are new ones.
 */
static bool search_again(struct aph_connecting *connecting)
{
	struct aph_rendezvous_entry *entries;
	size_t n, i, n_new = 0;

	if (weight(connecting->error) > 1 || connecting->n_searches++ >= SEARCHES_MAX ||
	    aph_rendezvous_search(&entries, &n, &connecting->name) < 0)
		return false;
	for (i = 0; i < n; i++) {
		if (!was_tried(connecting, &entries[i]))
			entries[n_new++] = entries[i];
	}
	if (!n_new) {
		free(entries);
		return false;
	}
	free(connecting->entries);
	connecting->entries = entries;
	connecting->n = n_new;
	connecting->next = 0;
	return true;
}

static void try_next(struct aph_local_channel *lc);

static void try_again(struct aph_timer *timer)
{
	struct aph_connecting *connecting = aph_container(timer, struct aph_connecting, retry);

	/* Whoever is there now, those who were full as well. */
	connecting->n = connecting->next = 0;
	connecting->n_searches = 0;
	connecting->error = 0;
	try_next(connecting->lc);
}

/* Somebody is there, but too many wait to be let in. False when there is no more to be done. */
static bool plan_retry(struct aph_connecting *connecting)
{
	struct aph_endpoint *ep = connecting->lc->local->base.ep;

	if (connecting->error != -EAGAIN)
		return false;
	if (!connecting->retries && aph_timers_reserve(&ep->timers) < 0)
		return false;
	connecting->retries = true;
	connecting->retry.expire = try_again;
	if (connecting->retry_ms < RETRY_MAX_MS)
		connecting->retry_ms = connecting->retry_ms ? 2 * connecting->retry_ms : RETRY_MS;
	aph_endpoint_start_timer(ep, &connecting->retry, aph_deadline_ms(connecting->retry_ms));
	return true;
}

/* Asks candidates until one is there to answer. Without any the channel ends. */
static void try_next(struct aph_local_channel *lc)
{
	struct aph_connecting *connecting = lc->connecting;

	while (connecting->next < connecting->n || search_again(connecting)) {
		int r = try_entry(lc, &connecting->entries[connecting->next++]);

		if (r == 0)
			return;
		note_error(connecting, r);
	}
	if (plan_retry(connecting))
		return;
	lc->connect_error = weight(connecting->error) > 1 ? connecting->error : -ENOENT;
	aph_channel_end(&lc->base, reason_of(lc->connect_error));
}

/* -- the answer -------------------------------------------------------------------------------- */

static bool is_sane(const struct aph_welcome *welcome, const struct aph_hello_message *message)
{
	return message->n_fds == (welcome->flags & APH_WELCOME_BELL ? 3 : 2) &&
	       aph_layout_is_sane(welcome->depth, welcome->arena, welcome->calls_max);
}

/*
 * Whether the bell is an eventfd. Whatever else it is, this side would write to it at every ring,
 * and a full pipe or a file of somebody's own making can hold up whoever does.
 */
static bool is_bell(int fd)
{
	static const char eventfd[] = "anon_inode:[eventfd]";
	char path[32], target[sizeof(eventfd)];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, target, sizeof(target)) == (ssize_t)sizeof(eventfd) - 1 &&
	       memcmp(target, eventfd, sizeof(eventfd) - 1) == 0;
}

/* Maps what came. The descriptors stay the message's, but for the bell. */
static int attach(struct aph_local_channel *lc, const struct aph_welcome *welcome,
		  struct aph_hello_message *message)
{
	size_t size = aph_layout_size(welcome->depth, welcome->arena);
	void *page;
	int r;

	r = aph_segment_map(&lc->map, message->fds[0], size, true);
	if (r < 0)
		return r;
	lc->map_size = size;
	r = aph_segment_map(&page, message->fds[1], APH_PAGE, false);
	if (r < 0)
		return r;
	lc->page_map = page;
	if (message->n_fds == 3 && !is_bell(message->fds[2]))
		return aph_err(-EPROTO, "the service sent a bell that is not an eventfd");
	if (message->n_fds == 3) {
		lc->bell = message->fds[2];
		message->n_fds = 2;
	}
	aph_local_channel_attach(lc, welcome->depth, welcome->arena, true);
	lc->may_pipeline = lc->local->barriers && (welcome->flags & APH_WELCOME_BARRIERS);
	lc->base.calls_max = welcome->calls_max;
	lc->base.receipts = welcome->flags & APH_WELCOME_RECEIPTS;
	lc->receipts_ring = welcome->flags & APH_WELCOME_RECEIPTS_NOW;
	aph_local_unwatch(lc);
	return aph_local_watch(lc);
}

/*
 * Who really answers: the socket names the process that listened, the message the one that sent it.
 */
static void note_sender(struct aph_local_channel *lc, const struct aph_hello_message *message)
{
	if (!message->has_cred)
		return;
	lc->base.peer.pid = message->cred.pid;
	lc->base.peer.uid = message->cred.uid;
	lc->base.peer.gid = message->cred.gid;
}

static int take_welcome(struct aph_local_channel *lc)
{
	struct aph_hello_message message;
	struct aph_welcome welcome;
	int r = aph_hello_recv(lc->sock, &welcome, sizeof(welcome), &message);

	if (r < 0)
		return r;
	if (message.len == 0) {
		r = -ECONNRESET;
	} else if (message.len != sizeof(welcome) || welcome.magic != APH_LOCAL_MAGIC ||
		   welcome.version != APH_LOCAL_VERSION) {
		r = aph_err(-EPROTO, "the service does not speak this version of the protocol");
	} else if (welcome.status) {
		r = welcome.status == EACCES ? -EACCES : welcome.status == EBUSY ? -EBUSY : -EPROTO;
		(void)aph_err(r, "the service refused with error %u", (unsigned)welcome.status);
	} else if (!is_sane(&welcome, &message)) {
		r = aph_err(-EPROTO, "the service answered with figures that make no sense");
	} else {
		note_sender(lc, &message);
		r = attach(lc, &welcome, &message);
	}
	aph_close_received(message.whose, message.fds, message.n_fds);
	return r;
}

static void answer_ready(struct aph_source *source, uint32_t events)
{
	struct aph_local_channel *lc = aph_container(source, struct aph_local_channel, sock_source);
	bool announce;
	int r;

	(void)events;
	if (lc->base.state != APH_CHANNEL_CONNECTING || !lc->connecting)
		return;
	r = take_welcome(lc);
	if (r == -EAGAIN)
		return;
	if (r < 0) {
		/* It may be half attached: nothing of it is to be kept. */
		aph_local_channel_detach(lc);
		note_error(lc->connecting, r);
		try_next(lc);
		return;
	}
	announce = lc->connecting->announce;
	aph_local_connecting_free(lc);
	aph_channel_opened(&lc->base, announce);
	aph_endpoint_changed(lc->base.ep);
}

/* -- opening ----------------------------------------------------------------------------------- */

static bool is_settled(void *arg)
{
	return ((struct aph_channel *)arg)->state != APH_CHANNEL_CONNECTING;
}

static int explain(int error, const struct aph_name *name)
{
	char address[APH_ADDRESS_MAX + 1];

	(void)aph_name_format(name, address, sizeof(address));
	switch (error) {
	case -ENOENT:
		return aph_err(error, "nobody serves %s: start the service, or wait for it",
			       address);
	case -EACCES:
		return aph_err(
			error,
			"%s does not let this user in: ask who runs it to allow user, group or "
			"world",
			address);
	case -EBUSY:
	case -EAGAIN:
		return aph_err(error, "%s takes no more clients now: try again", address);
	case -ETIMEDOUT:
		return aph_err(error, "%s did not answer in time: is it stopped?", address);
	case -EMFILE:
	case -ENFILE:
		return aph_err(
			error,
			"no descriptors are left for a channel to %s: raise the limit on open "
			"files (ulimit -n)",
			address);
	default:
		return error; /* born with its own text */
	}
}

static int begin(struct aph_local_channel **out, struct aph_local *local,
		 const struct aph_name *name, const struct aph_channel_options *options)
{
	struct aph_local_channel *lc = aph_local_channel_new(local);
	struct aph_connecting *connecting = calloc(1, sizeof(*connecting));
	int r;

	if (!lc || !connecting) {
		free(lc);
		free(connecting);
		return aph_err(-ENOMEM, "no memory for a channel");
	}
	connecting->hello = (struct aph_hello){
		.magic = APH_LOCAL_MAGIC,
		.version = APH_LOCAL_VERSION,
		.kind = APH_HELLO_CALLS,
		.allow = options->flags & APH_ALLOW_ANY,
		.depth = options->depth,
		.calls_max = options->calls_max,
		.arena = options->arena,
	};
	connecting->name = *name;
	connecting->announce = options->flags & APH_CHANNEL_ASYNC;
	r = aph_rendezvous_search(&connecting->entries, &connecting->n, name);
	if (r == 0 && !connecting->n) {
		/* A long listing is no snapshot: in a handover it may have missed both. */
		free(connecting->entries);
		connecting->entries = NULL;
		r = aph_rendezvous_search(&connecting->entries, &connecting->n, name);
	}
	if (r < 0 || !connecting->n) {
		free(connecting->entries);
		free(connecting);
		free(lc);
		/* What is wrong with the directory was said. */
		return r < 0 ? r : explain(-ENOENT, name);
	}
	lc->connecting = connecting;
	connecting->lc = lc;
	lc->base.data = options->data;
	lc->base.peer.label = "";
	aph_channel_init(&lc->base, local->base.ep, NULL);
	*out = lc;
	return 0;
}

static void expire(struct aph_timer *timer)
{
	struct aph_connecting *connecting = aph_container(timer, struct aph_connecting, timer);

	aph_channel_end(&connecting->lc->base, APH_REASON_DEADLINE);
}

/* Nobody waits for an asynchronous open: a timer ends it when the service does not answer. */
static int start_timer(struct aph_local_channel *lc, uint64_t deadline_ns)
{
	struct aph_endpoint *ep = lc->local->base.ep;
	int r = aph_timers_reserve(&ep->timers);

	if (r < 0)
		return aph_err(r, "no memory for a deadline");
	lc->connecting->timed = true;
	lc->connecting->timer.expire = expire;
	aph_endpoint_start_timer(ep, &lc->connecting->timer, deadline_ns);
	return 0;
}

static int open_once(struct aph_channel **out, struct aph_local *local, const struct aph_name *name,
		     const struct aph_channel_options *options)
{
	struct aph_endpoint *ep = local->base.ep;
	struct aph_local_channel *lc = NULL;
	int r = begin(&lc, local, name, options);

	if (!lc)
		return r;
	aph_channel_ref(&lc->base); /* for us, then for the user */
	if (options->flags & APH_CHANNEL_ASYNC)
		r = start_timer(lc, options->deadline_ns);
	if (r == 0)
		try_next(lc);
	if (r == 0 && !(options->flags & APH_CHANNEL_ASYNC) && !is_settled(&lc->base)) {
		r = aph_endpoint_wait(ep, is_settled, &lc->base, options->deadline_ns,
				      APH_WAITER_CLIENT);
		if (r == -EAGAIN)
			r = -ETIMEDOUT;
	}
	if (r == 0)
		r = lc->connect_error;
	if (r < 0) {
		aph_channel_end(&lc->base, APH_REASON_CLOSED);
		aph_channel_unref(&lc->base);
		return explain(r, name);
	}
	lc->base.user_holds = true;
	/* It was open, and ended again before this thread had its turn. */
	if (lc->base.state == APH_CHANNEL_ENDED)
		aph_pending_add(ep, &lc->base.pending, APH_EVENT_CLOSED);
	*out = &lc->base;
	return 0;
}

/* -- waiting for somebody to serve the name ---------------------------------------------------- */

struct vigil {
	/* Another thread may be on its way back from epoll with a pointer to it. */
	struct aph_grave grave;
	struct aph_source source;
	struct aph_endpoint *ep;
	int fd;
	bool moved;
};

static void directory_changed(struct aph_source *source, uint32_t events)
{
	struct vigil *vigil = aph_container(source, struct vigil, source);
	char buf[4096] __attribute__((aligned(8)));

	(void)events;
	if (vigil->fd < 0)
		return; /* it has ended */
	while (read(vigil->fd, buf, sizeof(buf)) > 0)
		vigil->moved = true;
	aph_endpoint_changed(vigil->ep);
}

static bool has_moved(void *arg)
{
	return ((struct vigil *)arg)->moved;
}

/*
 * Watches the directories in which it may appear, and makes the one that a first service would
 * make, or there is nothing to watch. Done again whenever one has changed, as it may have been
 * removed.
 */
static int watch_directories(const struct vigil *vigil)
{
	char path[PATH_MAX];
	int i, n = 0, r = aph_rendezvous_open(path);

	if (r >= 0)
		(void)close(r);
	for (i = 0; aph_rendezvous_dir(i, path); i++)
		n += inotify_add_watch(vigil->fd, path,
				       IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF) >= 0;
	if (n)
		return 0;
	return r < 0 ? r
		     : aph_err(-errno, "cannot watch the runtime directory: %s%s", strerror(errno),
			       aph_advice(errno));
}

static int begin_vigil(struct vigil *vigil, struct aph_endpoint *ep)
{
	int r;

	vigil->ep = ep;
	vigil->source.on_ready = directory_changed;
	vigil->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (vigil->fd < 0)
		return aph_err(-errno, "cannot watch the runtime directory: %s%s", strerror(errno),
			       aph_advice(errno));
	r = aph_source_add(ep, vigil->fd, &vigil->source, EPOLLIN);
	if (r < 0)
		(void)close(vigil->fd);
	return r;
}

static void end_vigil(struct vigil *vigil)
{
	aph_source_remove(vigil->ep, vigil->fd);
	aph_fd_close(&vigil->fd);
	aph_bury(vigil->ep, &vigil->grave, vigil);
}

static int open_patiently(struct aph_channel **out, struct aph_local *local,
			  const struct aph_name *name, const struct aph_channel_options *options)
{
	struct aph_endpoint *ep = local->base.ep;
	struct vigil *vigil = calloc(1, sizeof(*vigil));
	int r;

	if (!vigil)
		return aph_err(-ENOMEM, "no memory to wait for a service");
	r = begin_vigil(vigil, ep);
	if (r < 0) {
		free(vigil);
		return r;
	}
	for (;;) {
		vigil->moved = false;
		r = watch_directories(vigil);
		if (r < 0)
			break;
		r = open_once(out, local, name, options);
		if (r != -ENOENT)
			break;
		r = aph_endpoint_wait(ep, has_moved, vigil, options->deadline_ns,
				      APH_WAITER_OPENER);
		if (r < 0)
			break;
	}
	end_vigil(vigil);
	if (r == -ETIMEDOUT || r == -EAGAIN)
		return aph_err(-ETIMEDOUT, "nobody came to serve %s in time", name->name);
	return r;
}

int aph_local_channel_open(struct aph_channel **out, struct aph_endpoint *ep,
			   const struct aph_name *name, const struct aph_channel_options *options)
{
	struct aph_local *local;
	int r;

	r = aph_local_get(&local, ep);
	if (r < 0)
		return r;
	if (options->flags & APH_CHANNEL_WAIT)
		return open_patiently(out, local, name, options);
	return open_once(out, local, name, options);
}
