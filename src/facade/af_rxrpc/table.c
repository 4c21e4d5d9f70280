/* SPDX-License-Identifier: MIT */
/*
 * Which sockets there are: found by the cookie that the kernel gives to the outer end, so that it
 * does not matter how a descriptor was copied, or whether it was closed and its number used again.
 * Also the lock, sleeping, and what the end of the process does.
 */
#include "../../base/futex.h"
#include "share.h"
#include "socket.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N_HEADS	 64
#define REAP_FEW 16 /* sockets, at which a look costs little */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool inside; /* this thread has the lock: what it asks of the system is ours */
static struct aph_afrx_link heads[N_HEADS];
static _Atomic unsigned n_sockets;

void aph_afrx_enter(void)
{
	/* Before, as a signal's handler may come in between and write to some file. */
	inside = true;
	(void)pthread_mutex_lock(&lock);
}

void aph_afrx_leave(void)
{
	(void)pthread_mutex_unlock(&lock);
	inside = false;
}

/* -- cancelling -------------------------------------------------------------------------------- */

static _Thread_local unsigned n_holds;
static _Thread_local int cancel_state; /* the program's, while there are any */

void aph_afrx_hold(void)
{
	if (n_holds++ == 0)
		(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
}

void aph_afrx_release(void)
{
	if (--n_holds == 0)
		(void)pthread_setcancelstate(cancel_state, NULL);
}

bool aph_afrx_is_cancellable(void)
{
	return cancel_state == PTHREAD_CANCEL_ENABLE;
}

/* -- finding ----------------------------------------------------------------------------------- */

/* Asked of the kernel directly: the preload library has a getsockopt() that comes here. */
int aph_afrx_cookie(int fd, uint64_t *cookie)
{
	socklen_t len = sizeof(*cookie);

	if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, cookie, &len) < 0)
		return -errno;
	return 0;
}

static struct aph_afrx_socket *find(uint64_t cookie)
{
	struct aph_afrx_link *head = &heads[cookie % N_HEADS], *pos;

	if (atomic_load_explicit(&n_sockets, memory_order_relaxed) == 0)
		return NULL;
	for (pos = head->next; pos != head; pos = pos->next) {
		struct aph_afrx_socket *s = APH_AFRX_OF(pos, struct aph_afrx_socket, link);

		if (s->cookie == cookie)
			return s;
	}
	return NULL;
}

int aph_afrx_get(struct aph_afrx_socket **out, int fd)
{
	struct aph_afrx_socket *s;
	uint64_t cookie;
	int r;

	r = aph_afrx_cookie(fd, &cookie);
	if (r < 0)
		return r;
	aph_afrx_hold();
	aph_afrx_enter();
	s = find(cookie);
	if (!s) {
		r = aph_afrx_remote_find(cookie) ? -EREMOTE : -ENOTSOCK;
		aph_afrx_leave();
		aph_afrx_release();
		return r;
	}
	s->users++;
	*out = s;
	return 0;
}

ssize_t aph_afrx_result(ssize_t result)
{
	if (result >= 0)
		return result;
	errno = (int)-result;
	return -1;
}

static void socket_free(struct aph_afrx_socket *s)
{
	free(s->key);
	free(s->keyring);
	free(s);
}

ssize_t aph_afrx_put(struct aph_afrx_socket *s, ssize_t result)
{
	/* Who is in a function keeps the socket, as a system call keeps a file. */
	if (--s->users == 0 && s->moved)
		socket_free(s);
	else if (s->users == 0 && s->hung_up)
		aph_afrx_socket_end(s);
	aph_afrx_leave();
	aph_afrx_release();
	return result;
}

static bool there_are_any(void)
{
	return atomic_load_explicit(&n_sockets, memory_order_relaxed) || aph_afrx_remote_any();
}

APH_API bool aph_rxrpc_is_socket(int fd)
{
	int saved = errno;
	uint64_t cookie;
	bool found;

	if (inside || !there_are_any() || aph_afrx_cookie(fd, &cookie) < 0) {
		errno = saved;
		return false;
	}
	aph_afrx_enter();
	found = find(cookie) || aph_afrx_remote_find(cookie);
	aph_afrx_leave();
	return found;
}

/* -- sleeping ---------------------------------------------------------------------------------- */

void aph_afrx_notify(struct aph_afrx_socket *s)
{
	atomic_fetch_add_explicit(&s->changes, 1, memory_order_relaxed);
	if (s->n_sleepers)
		(void)syscall(SYS_futex, &s->changes, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
	if (s->endpoint && s->endpoint->waits == s)
		(void)aph_rx_udp_wake(s->endpoint->udp);
}

/* Those that come of what a thread itself does, and so not while it sleeps. */
static bool is_fault(int signal)
{
	return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL ||
	       signal == SIGTRAP || signal == SIGSYS || signal == SIGABRT;
}

/* Whether every signal handler asks for the functions to go on that it interrupts. */
static bool all_restart(void)
{
	struct sigaction action;
	int i;

	for (i = 1; i < NSIG; i++)
		if (!is_fault(i) && sigaction(i, NULL, &action) == 0 &&
		    action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN &&
		    !(action.sa_flags & SA_RESTART))
			return false;
	return true;
}

struct sleep {
	struct aph_afrx_socket *s;
	unsigned *n;
	uint64_t deadline_ns;
	void (*give_up)(void *arg);
	void *arg;
};

static void wake_up(const struct sleep *sleep)
{
	aph_afrx_enter();
	sleep->s->n_sleepers--;
}

static void be_cancelled(void *arg)
{
	const struct sleep *sleep = arg;

	aph_afrx_hold();
	wake_up(sleep);
	/* It may be at the endpoint, which is gone with a socket that has moved. */
	if (sleep->n && !sleep->s->moved)
		--*sleep->n;
	sleep->give_up(sleep->arg);
}

/*
 * What changes from here on changes the word: see aph_afrx_notify(). The kernel knows what handlers
 * ask for.
 */
static int wait_for_word(struct sleep *sleep)
{
	_Atomic uint32_t *word = &sleep->s->changes;
	uint32_t seen = atomic_load_explicit(word, memory_order_relaxed);
	struct timespec until = { .tv_sec = (time_t)(sleep->deadline_ns / 1000000000),
				  .tv_nsec = (long)(sleep->deadline_ns % 1000000000) };
	const struct timespec *limit = sleep->deadline_ns == APH_FOREVER ? NULL : &until;
	int type, r;

	sleep->s->n_sleepers++;
	aph_afrx_leave();
	pthread_cleanup_push(be_cancelled, sleep);
	aph_afrx_release();
	/* The C library has no function for this that could be cancelled. */
	/* For system calls alone. NOLINTNEXTLINE(concurrency-thread-canceltype-asynchronous) */
	(void)pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	r = (int)syscall(aph_futex_number(), word, FUTEX_WAIT_BITSET_PRIVATE, seen, limit, NULL,
			 FUTEX_BITSET_MATCH_ANY);
	r = r < 0 ? -errno : 0;
	(void)pthread_setcanceltype(type, NULL);
	aph_afrx_hold();
	pthread_cleanup_pop(0);
	wake_up(sleep);
	return r;
}

int aph_afrx_sleep(struct aph_afrx_socket *s, unsigned *n, uint64_t deadline_ns,
		   void (*give_up)(void *arg), void *arg)
{
	struct sleep sleep = { s, n, deadline_ns, give_up, arg };
	int r;

	if (deadline_ns == APH_NOW)
		return -EAGAIN;
	if (n)
		++*n;
	aph_afrx_broker_watch(s);
	r = aph_afrx_drive(s, deadline_ns);
	if (r == -EBUSY)
		r = wait_for_word(&sleep);
	else if (r == -EINTR && deadline_ns == APH_FOREVER && all_restart())
		r = 0;
	/* The endpoint is gone with it, which may be where the count was. */
	if (s->moved)
		return -EREMOTE;
	if (n)
		--*n;
	if (aph_afrx_broker_cancelled())
		return -EINTR;
	if (r == -ETIMEDOUT)
		return -EAGAIN;
	return r == -EINTR ? -EINTR : 0;
}

void aph_afrx_wake_senders(struct aph_afrx_endpoint *ep)
{
	struct aph_afrx_link *pos;
	int i;

	for (i = 0; i < N_HEADS && ep->n_channel_waiters; i++) {
		for (pos = heads[i].next; pos != &heads[i]; pos = pos->next) {
			struct aph_afrx_socket *s = APH_AFRX_OF(pos, struct aph_afrx_socket, link);

			if (s->endpoint == ep)
				aph_afrx_notify(s);
		}
	}
}

/* -- all of them ------------------------------------------------------------------------------- */

void aph_afrx_for_each(void (*visit)(struct aph_afrx_socket *s))
{
	struct aph_afrx_link *pos, *next;
	int i;

	if (aph_afrx_n_sockets() == 0)
		return;
	for (i = 0; i < N_HEADS; i++) {
		for (pos = heads[i].next; pos != &heads[i]; pos = next) {
			next = pos->next;
			visit(APH_AFRX_OF(pos, struct aph_afrx_socket, link));
		}
	}
}

unsigned aph_afrx_n_sockets(void)
{
	return atomic_load_explicit(&n_sockets, memory_order_relaxed);
}

static void forget_calls(struct aph_afrx_socket *s)
{
	int i;

	for (i = 0; i < APH_AFRX_N_TAGS; i++)
		while (!aph_afrx_list_empty(&s->tags[i]))
			aph_afrx_call_forget(APH_AFRX_OF(aph_afrx_list_pop(&s->tags[i]),
							 struct aph_afrx_call, hash));
	while (!aph_afrx_list_empty(&s->waiting))
		aph_afrx_call_forget(
			APH_AFRX_OF(aph_afrx_list_pop(&s->waiting), struct aph_afrx_call, place));
	while (!aph_afrx_list_empty(&s->queue))
		aph_afrx_call_forget(
			APH_AFRX_OF(aph_afrx_list_pop(&s->queue), struct aph_afrx_call, pending));
}

void aph_afrx_socket_moved(struct aph_afrx_socket *s)
{
	/* What lies in the pair is the broker's. */
	s->full = false;
	s->marks = 0;
	forget_calls(s);
	aph_afrx_list_del(&s->link);
	atomic_fetch_sub_explicit(&n_sockets, 1, memory_order_relaxed);
	(void)close(s->inner);
	s->inner = -1;
	s->endpoint = NULL;
	s->moved = true;
	aph_afrx_notify(s);
	if (s->users == 0)
		socket_free(s);
}

static void begin(void)
{
	int i;

	for (i = 0; i < N_HEADS; i++)
		aph_afrx_list_init(&heads[i]);
	aph_afrx_fork_begin();
}

/*
 * The process ends: what is not closed is closed, as a kernel would. The lock is kept, so that no
 * thread that is still there comes to an engine that is not.
 */
__attribute__((destructor)) static void end(void)
{
	if (atomic_load_explicit(&n_sockets, memory_order_relaxed) == 0)
		return;
	if (pthread_mutex_trylock(&lock) != 0)
		return;
	inside = true;
	aph_afrx_endpoints_end();
}

/* -- making and ending ------------------------------------------------------------------------- */

/* What is open for all sockets is closed with the last one. */
static void drop_name(void)
{
	if (aph_afrx_n_sockets() == 0)
		aph_afrx_name_drop();
}

int aph_afrx_socket_new(struct aph_afrx_socket **out, int *fd, int flags)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct aph_afrx_socket *s;
	int i, r;

	(void)pthread_once(&once, begin);
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	aph_afrx_hold();
	aph_afrx_enter();
	r = aph_afrx_pair_new(fd, &s->inner, &s->cookie, flags);
	if (r == -EMFILE || r == -ENFILE) {
		aph_afrx_reap();
		r = aph_afrx_pair_new(fd, &s->inner, &s->cookie, flags);
	}
	if (r < 0) {
		drop_name();
		aph_afrx_leave();
		aph_afrx_release();
		free(s);
		return r;
	}
	for (i = 0; i < APH_AFRX_N_TAGS; i++)
		aph_afrx_list_init(&s->tags[i]);
	aph_afrx_list_init(&s->charged);
	aph_afrx_list_init(&s->waiting);
	aph_afrx_list_init(&s->queue);
	s->users = 1;
	aph_afrx_list_add(&heads[s->cookie % N_HEADS], &s->link);
	atomic_fetch_add_explicit(&n_sockets, 1, memory_order_relaxed);
	*out = s;
	return 0;
}

void aph_afrx_socket_end(struct aph_afrx_socket *s)
{
	int i;

	aph_afrx_list_del(&s->link);
	atomic_fetch_sub_explicit(&n_sockets, 1, memory_order_relaxed);
	for (i = 0; i < APH_AFRX_N_TAGS; i++)
		while (!aph_afrx_list_empty(&s->tags[i]))
			aph_afrx_call_free(APH_AFRX_OF(aph_afrx_list_pop(&s->tags[i]),
						       struct aph_afrx_call, hash));
	while (!aph_afrx_list_empty(&s->waiting))
		aph_afrx_call_free(
			APH_AFRX_OF(aph_afrx_list_pop(&s->waiting), struct aph_afrx_call, place));
	while (!aph_afrx_list_empty(&s->queue))
		aph_afrx_call_free(
			APH_AFRX_OF(aph_afrx_list_pop(&s->queue), struct aph_afrx_call, pending));
	aph_afrx_unserve(s);
	(void)close(s->inner);
	s->inner = -1;
	if (s->endpoint)
		aph_afrx_endpoint_part(s);
	socket_free(s);
	drop_name();
	aph_afrx_broker_look();
}

/* -- those that were closed behind our back ---------------------------------------------------- */

static void look_at(struct aph_afrx_socket *s)
{
	s->hung_up = s->hung_up || aph_afrx_is_closed(s);
}

static struct aph_afrx_socket *find_ended(void)
{
	struct aph_afrx_link *pos;
	int i;

	for (i = 0; i < N_HEADS; i++) {
		for (pos = heads[i].next; pos != &heads[i]; pos = pos->next) {
			struct aph_afrx_socket *s = APH_AFRX_OF(pos, struct aph_afrx_socket, link);

			if (s->hung_up && s->users == 0)
				return s;
		}
	}
	return NULL;
}

/* Ending one may let go of the lock: the search begins again each time. */
void aph_afrx_reap(void)
{
	struct aph_afrx_socket *s;

	aph_afrx_for_each(look_at);
	while ((s = find_ended()))
		aph_afrx_socket_end(s);
}

void aph_afrx_reap_one(uint64_t cookie)
{
	struct aph_afrx_socket *s = find(cookie);

	if (!s)
		return;
	look_at(s);
	if (s->hung_up && s->users == 0)
		aph_afrx_socket_end(s);
}

void aph_afrx_reap_sometimes(void)
{
	static unsigned limit;

	if (aph_afrx_n_sockets() > REAP_FEW && aph_afrx_n_sockets() < limit)
		return;
	aph_afrx_reap();
	limit = 2 * aph_afrx_n_sockets();
}
