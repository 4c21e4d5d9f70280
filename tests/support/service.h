/* SPDX-License-Identifier: MIT */
/*
 * A service that does what the first byte of each request says, in a process or a thread of its
 * own.
 *
 *   e...                 echo: the reply is the request, streamed
 *   d...                 drain: the reply is struct service_sum of the request
 *   D struct service_get the same for what follows, which should be so many bytes of the pattern
 *   g struct service_get the reply is so many bytes of the pattern, streamed as room appears
 *   G struct service_get the same with one aph_call_reply()
 *   z struct service_get the same with reserve and commit
 *   b...                 the same as `e`, but reads with borrow and release
 *   f...                 sends the descriptors of the request back with the reply's first byte, 'f'
 *   a int32_t            aborts with that code
 *   r uint8_t            refuses with that reason
 *   l                    frees the call without a reply
 *   h                    holds the call, unread beyond its first byte, until it is told otherwise
 *   w                    answers what is held with "woken", then itself
 *   p                    begins the reply with "part" and holds it
 *   P                    ends every held call without a reply: aborts it with 77
 *   t                    the reply is the call's deadline as the service sees it
 *   c                    the reply is struct service_caller
 *   x                    the process ends at once, without a reply
 *   X                    it sends "part" of a reply and ends at once
 *   o                    closes the caller's channel
 *   n int64_t            sets the generation number
 *   (empty)              an empty reply
 *   other                aborts with -1
 */
#ifndef TESTS_SUPPORT_SERVICE_H
#define TESTS_SUPPORT_SERVICE_H

#include "child.h"

#include <antiphon/antiphon.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct service_get {
	uint64_t len;
	uint32_t seed;
	uint32_t fd; /* 1: the first piece carries a descriptor */
};

struct service_sum {
	uint64_t len;
	uint64_t sum;
	/* The first byte that is not the pattern's; UINT64_MAX: none, or not asked. */
	uint64_t wrong_at;
};

struct service_caller {
	int32_t pid;
	uint32_t uid, euid, gid, egid;
	uint32_t n_groups;
	uint32_t groups[64];
	char label[64];
};

/* What the service has seen, in memory that it shares with the test. */
struct service_seen {
	_Atomic uint32_t signals, signal_code;
	_Atomic uint32_t requests, readable, writable, disposed, gone, connects, disconnects,
		terminates;
	_Atomic uint32_t thrown_out;   /* channels that it closed itself */
	_Atomic uint32_t own_ends;     /* END of what it aborted or refused itself */
	_Atomic uint32_t gone_for[16]; /* by reason */
	_Atomic uint32_t held;	       /* calls it holds now */
	_Atomic uint32_t works;	       /* calls it knows now */
	_Atomic uint64_t rss_kib;      /* resident memory when last looked at */
};

struct service_config {
	const char *address;
	struct aph_service_options options; /* size may be left 0 */
	bool by_fd; /* waits with poll() on aph_endpoint_fd(), one event per wake-up */
	bool end_on_terminate;
	/* `x` and `X` are unknown, and no reply is longer than a MiB: for attackers. */
	bool harmless;
	uint32_t spin_max_us; /* as for an endpoint */
	uint32_t nofile;      /* limit of open descriptors; 0: as it is */
	uid_t uid;	      /* a process becomes this user first; 0: it stays who it is */
	gid_t gid;
	const gid_t *groups;
	size_t n_groups;
};

enum service_mode {
	SERVICE_PROCESS,
	SERVICE_THREAD,
	SERVICE_INLINE, /* in this thread, whenever service_turn() is called */
};

struct service {
	enum service_mode mode;
	struct service_config config;
	struct service_seen *seen;
	struct child child;
	pthread_t thread;
	struct aph_endpoint *ep;
	struct aph_service *handle;
	_Atomic bool stop;
	bool ready;
	struct work *works;
};

/* Starts it and waits until it serves; checks that it does. */
void service_start(struct service *service, enum service_mode mode,
		   const struct service_config *config);

/* The same with nothing but an address. */
void service_start_simple(struct service *service, enum service_mode mode, const char *address);

/* SERVICE_INLINE: handles the events that are there, at most `max` of them; how many there were. */
int service_turn(struct service *service, int max);

/* Ends it and checks that it ended well, and left no call and no descriptor. */
void service_stop(struct service *service);

/* Takes away a service process that was killed or has ended by itself, with this result. */
void service_gone(struct service *service, int result);

/* Kills a service process with SIGKILL; its files are left to be found by others. */
void service_kill(struct service *service);

/* Waits until a number has become `n`; checks that it does within two seconds or so. */
#define service_await(number, n) service_await_at(__FILE__, __LINE__, number, n)

void service_await_at(const char *file, int line, const _Atomic uint32_t *number, uint32_t n);

#endif
