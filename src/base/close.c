/* SPDX-License-Identifier: MIT */
/*
 * Closing what others gave us. See close.h.
 *
 * close(2) of any descriptor of a file, not of the last one alone, asks the file's server, and a
 * FUSE server may be anybody's. Nothing takes a descriptor out of the process without that, and
 * once begun it cannot be broken off. So a batch of descriptors that are not known to be quick gets
 * a thread of its own, which ends with it. There are at most THREADS_MAX; batches beyond wait for
 * one. Neither threads nor room can be used up by one user: a user gets three quarters of what the
 * others leave, and these count as one full share at most.
 */
#include "close.h"
#include "quick.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX   64u
#define UNCLOSED_MAX  256u /* descriptors; what came in one go may exceed it */
#define PATIENCE_NS   3000000
#define WORK_PER_WAIT 16
#define LEAVING_NS    100000000 /* a thread that ends takes microseconds */
#define LEAVING_LOOKS 1000
#define NS_PER_S      UINT64_C(1000000000)
#define STACK_SIZE    (64u << 10)

struct batch {
	struct batch *next;
	uid_t whose;
	bool begun, lingers;
	size_t n; /* not closed yet */
	int fds[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t closed_one = PTHREAD_COND_INITIALIZER;
/* The oldest first, those that have a thread as well. */
static struct batch *batches;
static atomic_bool any; /* of them: read without the lock */
/* Threads that have done their work, the latest of them: they end without the lock. */
static pid_t leaving[THREADS_MAX];
static unsigned n_leaving;
/* Nobody waits before that, so that waiting is never more than a small part of the time. */
static uint64_t patient_from_ns;

/* -- forks ------------------------------------------------------------------------------------- */

static void before_fork(void)
{
	(void)pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
	(void)pthread_mutex_unlock(&lock);
}

/*
 * The threads did not come along, nor whoever waits for them. To close the descriptors here would
 * take as long: they stay, until execve(2).
 */
static void after_fork_in_child(void)
{
	static const pthread_cond_t fresh = PTHREAD_COND_INITIALIZER;

	memcpy(&closed_one, &fresh, sizeof(fresh));
	memset(leaving, 0, sizeof(leaving));
	while (batches) {
		struct batch *batch = batches;

		batches = batch->next;
		free(batch);
	}
	atomic_store(&any, false);
	(void)pthread_mutex_unlock(&lock);
}

static void watch_fork(void)
{
	(void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void aph_close_prepare(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, watch_fork);
}

static void enter(void)
{
	aph_close_prepare();
	(void)pthread_mutex_lock(&lock);
}

/*
 * A thread that is about to end may have locks of the C library, which would stay locked in the
 * child.
 */
static void await_leaving(void)
{
	static const struct timespec span = { .tv_nsec = LEAVING_NS / LEAVING_LOOKS };

	for (size_t i = 0; i < THREADS_MAX; i++) {
		for (int j = 0; leaving[i] && j < LEAVING_LOOKS; j++) {
			if (tgkill(getpid(), leaving[i], 0) < 0)
				leaving[i] = 0;
			else
				(void)nanosleep(&span, NULL);
		}
		leaving[i] = 0;
	}
}

pid_t aph_close_fork(pid_t (*make)(void))
{
	pid_t pid;

	enter();
	await_leaving();
	pid = make();
	if (pid == 0)
		after_fork_in_child();
	else
		(void)pthread_mutex_unlock(&lock);
	return pid;
}

/* -- shares ------------------------------------------------------------------------------------ */

static size_t share_of_most(size_t most)
{
	return most / 4 * 3;
}

static bool has_share(size_t own, size_t others, size_t most)
{
	size_t taken = others < share_of_most(most) ? others : share_of_most(most);

	return own < share_of_most(most - taken);
}

static void count(uid_t whose, size_t *own, size_t *others)
{
	*own = *others = 0;
	for (const struct batch *batch = batches; batch; batch = batch->next)
		*(batch->whose == whose ? own : others) += batch->n;
}

static bool may_begin(uid_t whose)
{
	size_t own = 0, others = 0;

	for (const struct batch *batch = batches; batch; batch = batch->next)
		*(batch->whose == whose ? &own : &others) += batch->begun;
	return own + others < THREADS_MAX && has_share(own, others, THREADS_MAX);
}

static struct batch *next_to_begin(void)
{
	struct batch *batch = batches;

	while (batch && (batch->begun || !may_begin(batch->whose)))
		batch = batch->next;
	return batch;
}

/* -- the threads ------------------------------------------------------------------------------- */

static void stop_lingering(int fd)
{
	static const struct linger off = { 0 };
	struct linger linger;
	socklen_t len = sizeof(linger);

	if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && linger.l_onoff &&
	    linger.l_linger > 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

static void drop(struct batch *batch)
{
	struct batch **link = &batches;

	while (*link != batch)
		link = &(*link)->next;
	*link = batch->next;
	free(batch);
	atomic_store(&any, batches != NULL);
}

/* Under the lock, which it gives back meanwhile. */
static void close_batch(struct batch *batch)
{
	while (batch->n) {
		int fd = batch->fds[batch->n - 1];

		(void)pthread_mutex_unlock(&lock);
		if (!batch->lingers)
			stop_lingering(fd);
		(void)close(fd);
		(void)pthread_mutex_lock(&lock);
		batch->n--;
		if (batch->n)
			(void)pthread_cond_broadcast(&closed_one);
	}
	drop(batch);
	(void)pthread_cond_broadcast(&closed_one);
}

static void *run(void *arg)
{
	struct batch *batch = arg;

	(void)prctl(PR_SET_NAME, "antiphon-close");
	(void)pthread_mutex_lock(&lock);
	while (batch) {
		close_batch(batch);
		batch = next_to_begin();
		if (batch)
			batch->begun = true;
	}
	leaving[n_leaving++ % THREADS_MAX] = gettid();
	(void)pthread_mutex_unlock(&lock);
	return NULL;
}

static bool start_thread(struct batch *batch)
{
	size_t least = (size_t)sysconf(_SC_THREAD_STACK_MIN);
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	if (pthread_attr_init(&attr) != 0)
		return false;
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	(void)pthread_attr_setstacksize(&attr,
					least < STACK_SIZE ? STACK_SIZE : least + STACK_SIZE);
	/* The program's signals are for its own threads. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, &attr, run, batch);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	(void)pthread_attr_destroy(&attr);
	return r == 0;
}

/* What finds no thread stays, until one has time or the next descriptors are to be closed. */
static void begin_some(void)
{
	struct batch *batch;

	while ((batch = next_to_begin())) {
		batch->begun = true;
		if (!start_thread(batch)) {
			batch->begun = false;
			return;
		}
	}
}

/* -- waiting ----------------------------------------------------------------------------------- */

static bool has_room(uid_t whose)
{
	size_t own, others;

	count(whose, &own, &others);
	return has_share(own, others, UNCLOSED_MAX);
}

static bool is_all_closed(uid_t whose)
{
	(void)whose;
	return !batches;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Until it is so, or somebody's time slice would be over. */
static bool wait_a_moment(bool (*is_so)(uid_t whose), uid_t whose)
{
	uint64_t begin = now_ns(), end = begin + PATIENCE_NS;
	const struct timespec until = { .tv_sec = (time_t)(end / NS_PER_S),
					.tv_nsec = (long)(end % NS_PER_S) };
	int r = 0;

	if (begin < patient_from_ns)
		return false;
	while (r == 0 && !is_so(whose))
		r = pthread_cond_clockwait(&closed_one, &lock, CLOCK_MONOTONIC, &until);
	end = now_ns();
	patient_from_ns = end + (end - begin) * WORK_PER_WAIT;
	return is_so(whose);
}

/* -- the interface ----------------------------------------------------------------------------- */

static void append(struct batch *batch)
{
	struct batch **end = &batches;

	while (*end)
		end = &(*end)->next;
	*end = batch;
	atomic_store(&any, true);
}

static void close_by_thread(struct batch *batch)
{
	uid_t whose = batch->whose;
	bool is_alone;

	enter();
	is_alone = !batches;
	append(batch);
	begin_some();
	/* As a rule it takes no longer than that, and is done when this returns. */
	if (is_alone)
		(void)wait_a_moment(is_all_closed, whose);
	(void)pthread_mutex_unlock(&lock);
}

static void close_all(uid_t whose, const int *fds, size_t n, bool lingers)
{
	struct batch *slow = NULL;
	int saved = errno;

	for (size_t i = 0; i < n; i++) {
		bool quick = aph_closes_quickly(fds[i]);

		if (!quick && !slow) {
			slow = malloc(sizeof(*slow) + (n - i) * sizeof(int));
			if (slow)
				*slow = (struct batch){ .whose = whose, .lingers = lingers };
		}
		if (!quick && slow) {
			slow->fds[slow->n++] = fds[i];
			continue;
		}
		/* Without memory nothing is left but to wait, for as short as can be. */
		if (!quick)
			stop_lingering(fds[i]);
		(void)close(fds[i]);
	}
	if (slow)
		close_by_thread(slow);
	errno = saved;
}

void aph_close_received(uid_t whose, const int *fds, size_t n)
{
	close_all(whose, fds, n, false);
}

void aph_close_lingering(uid_t whose, const int *fds, size_t n)
{
	close_all(whose, fds, n, true);
}

bool aph_close_has_room(uid_t whose)
{
	bool room;

	if (!atomic_load_explicit(&any, memory_order_relaxed))
		return true;
	enter();
	room = has_room(whose) || wait_a_moment(has_room, whose);
	(void)pthread_mutex_unlock(&lock);
	return room;
}

void aph_close_count(uid_t whose, size_t *own, size_t *others)
{
	*own = *others = 0;
	if (!atomic_load_explicit(&any, memory_order_relaxed))
		return;
	enter();
	count(whose, own, others);
	(void)pthread_mutex_unlock(&lock);
}
