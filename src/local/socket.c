/* SPDX-License-Identifier: MIT */
/*
 * What goes over a channel's socket and eventfd once it is open: bells and descriptors.
 *
 * The eventfd's counter starts in the middle and hardly moves, so it cannot saturate: the client
 * rings by writing 0, which the server sees as EPOLLIN; the server rings by reading without
 * waiting, which the client sees as EPOLLOUT. Both listen edge-triggered, so nobody drains
 * anything. Neither call blocks, whatever the peer has done to the file's flags or its counter.
 */
#include "base/close.h"
#include "base/error.h"
#include "local/hello.h"
#include "local/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define DRAIN_MAX 64 /* messages in one go */
/*
 * Ahead of descriptors: a bell for each record that the ring can hold, and then some that tell of
 * room.
 */
#define BELLS_MAX (4 * APH_DEPTH_MAX)

/* -- bells ------------------------------------------------------------------------------------- */

static void ring_by_byte(struct aph_local_channel *lc)
{
	static const char bell = APH_SOCKET_BELL;

	/* A full socket means that enough bells are under way. */
	(void)!send(lc->sock, &bell, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void aph_local_ring(struct aph_local_channel *lc)
{
	uint64_t value = 0;
	struct iovec iov = { .iov_base = &value, .iov_len = sizeof(value) };

	if (lc->bell < 0) {
		ring_by_byte(lc);
	} else if (lc->base.is_client) {
		(void)!write(lc->bell, &value, sizeof(value));
	} else if (preadv2(lc->bell, &iov, 1, -1, RWF_NOWAIT) < 0) {
		ring_by_byte(lc);
	}
}

/* -- descriptors out --------------------------------------------------------------------------- */

static_assert(APH_CALL_FDS_MAX <= APH_HELLO_FDS_MAX, "a piece's descriptors go in one message");

int aph_local_send_fds(struct aph_local_channel *lc, const int *fds, size_t n)
{
	static const char byte = APH_SOCKET_FDS;
	int r = aph_hello_send(lc->sock, &byte, 1, fds, n);

	switch (r) {
	case 0:
	case -EAGAIN:
		return r;
	case -EPIPE:
	case -ECONNRESET:
		return aph_err(-ENOTCONN, "the other side has closed the channel");
	case -EBADF:
		return aph_err(r, "one of the descriptors to send is not open");
	case -ETOOMANYREFS:
		return aph_err(r, "too many descriptors of this user are under way: let the "
				  "receivers take some, or raise the limit on open files");
	default:
		return aph_err(r, "cannot send descriptors: %s", strerror(-r));
	}
}

/* -- descriptors in ---------------------------------------------------------------------------- */

void aph_local_stash_free(struct aph_local_channel *lc)
{
	if (!lc->stash)
		return;
	aph_close_received(lc->base.peer.euid, lc->stash->fds, lc->stash->n_fds);
	free(lc->stash);
	lc->stash = NULL;
}

/* One message from the socket. */
struct arrival {
	char byte;
	bool truncated;
	struct ucred cred; /* of the sender; pid 0: not told */
	size_t n_fds;
	int fds[APH_CALL_FDS_MAX];
};

static void take_control(const struct aph_local_channel *lc, struct msghdr *msg,
			 struct arrival *arrival)
{
	struct cmsghdr *cmsg;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t n, keep;

		if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_CREDENTIALS)
			memcpy(&arrival->cred, CMSG_DATA(cmsg), sizeof(arrival->cred));
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		keep = APH_CALL_FDS_MAX - arrival->n_fds;
		keep = n < keep ? n : keep;
		memcpy(arrival->fds + arrival->n_fds, CMSG_DATA(cmsg), keep * sizeof(int));
		arrival->n_fds += keep;
		/* The room kept for credentials may have let in more than anybody may send. */
		for (; keep < n; keep++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + keep * sizeof(int), sizeof(fd));
			aph_close_received(lc->base.peer.euid, &fd, 1);
			arrival->truncated = true;
		}
	}
}

/*
 * Client: another process serves the channel now. This is its page, and it is who the kernel says.
 */
static int meet(struct aph_local_channel *lc, struct arrival *arrival)
{
	void *page;

	if (!lc->base.is_client || arrival->n_fds != 1) {
		aph_close_received(lc->base.peer.euid, arrival->fds, arrival->n_fds);
		return arrival->truncated ? 1 : -EPROTO;
	}
	/*
	 * The page is good for hints alone: what it says of sleep is not believed, see handover.c.
	 */
	if (aph_segment_map(&page, arrival->fds[0], APH_PAGE, false) == 0) {
		(void)munmap((void *)(uintptr_t)lc->page_map, APH_PAGE);
		lc->page_map = page;
	}
	aph_close_received(lc->base.peer.euid, arrival->fds, 1);
	if (arrival->cred.pid) {
		lc->base.peer.pid = arrival->cred.pid;
		lc->base.peer.uid = arrival->cred.uid;
		lc->base.peer.gid = arrival->cred.gid;
	}
	return 1;
}

/*
 * Where descriptors are getting scarce no client may make us hold more than its share: what it
 * sends beyond that is treated as if this process had no room for it.
 */
static void keep_to_share(const struct aph_local_channel *lc, struct arrival *arrival)
{
	if (lc->base.is_client || !arrival->n_fds ||
	    arrival->fds[arrival->n_fds - 1] < lc->local->many_fds ||
	    aph_local_may_hold(lc, arrival->n_fds))
		return;
	aph_close_received(lc->base.peer.euid, arrival->fds, arrival->n_fds);
	arrival->n_fds = 0;
	arrival->truncated = true;
}

/* 1: a message; 0: none (or the end); -EPROTO: one that makes no sense. */
static int receive(struct aph_local_channel *lc, struct arrival *arrival)
{
	union {
		struct cmsghdr align;
		/* Room for the credentials that the kernel adds where they were asked for. */
		char space[CMSG_SPACE(sizeof(int) * APH_CALL_FDS_MAX) +
			   CMSG_SPACE(sizeof(struct ucred))];
	} control;
	/*
	 * Where too many wait to be closed, descriptors are treated as if this process had no room
	 * for them.
	 */
	size_t room = aph_close_has_room(lc->base.peer.euid) ? sizeof(control.space)
							     : CMSG_SPACE(sizeof(struct ucred));
	struct iovec iov = { .iov_base = &arrival->byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = room,
	};
	ssize_t n = aph_hello_recvmsg(lc->sock, &msg);

	arrival->n_fds = 0;
	arrival->cred.pid = 0;
	if (n < 0)
		return 0;
	arrival->truncated = msg.msg_flags & MSG_CTRUNC;
	take_control(lc, &msg, arrival);
	if (n == 0) {
		aph_close_received(lc->base.peer.euid, arrival->fds, arrival->n_fds);
		return 0;
	}
	if (!(msg.msg_flags & MSG_TRUNC) && arrival->byte == APH_SOCKET_MOVED)
		return meet(lc, arrival);
	if ((msg.msg_flags & MSG_TRUNC) ||
	    (arrival->byte != APH_SOCKET_BELL && arrival->byte != APH_SOCKET_FDS) ||
	    (arrival->byte == APH_SOCKET_BELL && (arrival->n_fds || arrival->truncated))) {
		aph_close_received(lc->base.peer.euid, arrival->fds, arrival->n_fds);
		return -EPROTO;
	}
	keep_to_share(lc, arrival);
	return 1;
}

int aph_local_stash_add(struct aph_local_channel *lc, const int *fds, size_t n, bool truncated)
{
	struct aph_fd_stash *stash = lc->stash;

	if (!stash) {
		stash = lc->stash = calloc(1, sizeof(*stash));
		if (!stash) {
			aph_close_received(lc->base.peer.euid, fds, n);
			return -ENOMEM;
		}
	}
	if (stash->n_messages == APH_SOCKET_FDS_MAX || stash->n_fds + n > APH_SOCKET_FDS_MAX) {
		aph_close_received(lc->base.peer.euid, fds, n);
		return -EPROTO;
	}
	memcpy(stash->fds + stash->n_fds, fds, n * sizeof(int));
	stash->n_fds = (uint16_t)(stash->n_fds + n);
	stash->truncated[stash->n_messages] = truncated;
	stash->counts[stash->n_messages++] = (uint8_t)n;
	return 0;
}

static int keep(struct aph_local_channel *lc, const struct arrival *arrival)
{
	return aph_local_stash_add(lc, arrival->fds, arrival->n_fds, arrival->truncated);
}

/* Reads what is there. 0; -EPROTO: the peer's fault; else ours. */
static int drain(struct aph_local_channel *lc)
{
	struct arrival arrival;
	int i, r;

	for (i = 0; i < DRAIN_MAX; i++) {
		r = receive(lc, &arrival);
		if (r <= 0)
			return r;
		if (arrival.byte == APH_SOCKET_FDS)
			r = keep(lc, &arrival);
		if (r < 0)
			return r;
	}
	/* More may be there, and the edge is used up: ask for a new one. */
	return aph_local_watch(lc);
}

/* The oldest message that was kept. */
static int take_kept(const struct aph_local_channel *lc, int *fds, size_t n)
{
	struct aph_fd_stash *stash = lc->stash;
	size_t count = stash->counts[0];
	bool truncated = stash->truncated[0];

	stash->n_messages--;
	memmove(stash->counts, stash->counts + 1, stash->n_messages * sizeof(stash->counts[0]));
	memmove(stash->truncated, stash->truncated + 1,
		stash->n_messages * sizeof(stash->truncated[0]));
	if (count == n && !truncated)
		memcpy(fds, stash->fds, n * sizeof(int));
	else
		aph_close_received(lc->base.peer.euid, stash->fds, count);
	stash->n_fds = (uint16_t)(stash->n_fds - count);
	memmove(stash->fds, stash->fds + count, stash->n_fds * sizeof(int));
	if (truncated)
		return -EMFILE;
	return count == n ? 0 : -EPROTO;
}

int aph_local_recv_fds(struct aph_local_channel *lc, int *fds, size_t n)
{
	struct arrival arrival;
	unsigned i;
	int r;

	if (lc->stash && lc->stash->n_messages)
		return take_kept(lc, fds, n);
	for (i = 0; i < BELLS_MAX; i++) {
		r = receive(lc, &arrival);
		if (r <= 0)
			return -EPROTO; /* they are sent before the record that announces them */
		if (arrival.byte != APH_SOCKET_FDS)
			continue;
		if (arrival.n_fds == n && !arrival.truncated) {
			memcpy(fds, arrival.fds, n * sizeof(int));
			return 0;
		}
		aph_close_received(lc->base.peer.euid, arrival.fds, arrival.n_fds);
		return arrival.truncated ? -EMFILE : -EPROTO;
	}
	return -EPROTO;
}

/* -- watching ---------------------------------------------------------------------------------- */

int aph_local_read_socket(struct aph_local_channel *lc)
{
	int r = drain(lc);

	if (r < 0)
		aph_local_doom(lc, r == -EPROTO ? APH_REASON_PROTOCOL : APH_REASON_RESOURCES);
	return r;
}

static void sock_ready(struct aph_source *source, uint32_t events)
{
	struct aph_local_channel *lc = aph_container(source, struct aph_local_channel, sock_source);

	if (lc->base.state == APH_CHANNEL_ENDED ||
	    ((events & EPOLLIN) && aph_local_read_socket(lc) < 0))
		return;
	if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) {
		aph_local_hangup(lc);
		return;
	}
	if ((events & EPOLLOUT) && lc->fds_blocked) {
		aph_local_watch_room(lc, false);
		aph_local_unblock(lc);
	}
	if (lc->bell < 0 && !lc->base.is_client)
		aph_local_scan(lc);
}

/*
 * What epoll reports first is that there is a bell, not that it was rung. A look into the ring
 * would cost a page, and another one to say so, even if nobody ever uses the channel. To read a
 * hole of the file costs none.
 */
static bool is_unused(struct aph_local_channel *lc)
{
	off_t at = (off_t)(aph_layout_ring(lc->depth, 0) + offsetof(struct aph_record, seq));
	uint32_t seq = 1;

	(void)!pread(lc->segment_fd, &seq, sizeof(seq), at);
	lc->is_new = false;
	aph_local_close_segment(lc);
	return !seq;
}

static void bell_ready(struct aph_source *source, uint32_t events)
{
	struct aph_local_channel *lc = aph_container(source, struct aph_local_channel, bell_source);

	(void)events;
	if (lc->base.state != APH_CHANNEL_OPEN || (lc->is_new && is_unused(lc)))
		return;
	/* The peer had these lines last, and all of them are wanted soon. */
	aph_ring_expect(&lc->in);
	if (lc->base.is_client)
		return;
	aph_ring_prepare(&lc->out);
	aph_prefetch_to_write(&lc->words->client.wait);
	aph_local_scan(lc);
}

int aph_local_watch(struct aph_local_channel *lc)
{
	struct aph_endpoint *ep = lc->base.ep;
	uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET | (lc->fds_blocked ? EPOLLOUT : 0);
	int r;

	if (lc->sock_events) {
		lc->sock_events = events;
		return aph_source_change(ep, lc->sock, &lc->sock_source, events);
	}
	lc->sock_source.on_ready = sock_ready;
	lc->bell_source.on_ready = bell_ready;
	r = aph_source_add(ep, lc->sock, &lc->sock_source, events);
	if (r < 0)
		return r;
	lc->sock_events = events;
	if (lc->bell < 0)
		return 0;
	return aph_source_add(ep, lc->bell, &lc->bell_source,
			      (lc->base.is_client ? EPOLLOUT : EPOLLIN) | EPOLLET);
}

void aph_local_unwatch(struct aph_local_channel *lc)
{
	struct aph_endpoint *ep = lc->local->base.ep;

	if (!lc->sock_events)
		return;
	/*
	 * The peer, or a child, may hold copies of these: closing alone would leave them in our
	 * epoll.
	 */
	aph_source_remove(ep, lc->sock);
	if (lc->bell >= 0)
		aph_source_remove(ep, lc->bell);
	lc->sock_events = 0;
}

void aph_local_watch_room(struct aph_local_channel *lc, bool on)
{
	if (lc->fds_blocked == on)
		return;
	lc->fds_blocked = on;
	if (aph_local_watch(lc) < 0)
		aph_local_doom(lc, APH_REASON_RESOURCES);
}
