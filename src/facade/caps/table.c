/* SPDX-License-Identifier: MIT */
/*
 * The table of ports, and what fork() does to it.
 *
 * Numbers count from 1 and the lowest free one is given out. Looking one up takes no lock but the
 * port's own: the pointers in the table are set once. Order of locks: the table's, then a port's,
 * then whatever libantiphon locks.
 */
#include "port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK	 1024
#define N_CHUNKS 1024

typedef _Atomic(struct aph_caps_port *) slot;

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(slot *) table[N_CHUNKS];
static int n_ports; /* of which the table has a struct */

static struct aph_caps_port *find(int number)
{
	unsigned index = (unsigned)number - 1;
	slot *chunk;

	if (number < 1 || index >= N_CHUNKS * CHUNK)
		return NULL;
	chunk = atomic_load_explicit(&table[index / CHUNK], memory_order_acquire);
	return chunk ? atomic_load_explicit(&chunk[index % CHUNK], memory_order_acquire) : NULL;
}

/* -- looking up -------------------------------------------------------------------------------- */

struct aph_caps_port *aph_caps_port_lock_any(int number)
{
	struct aph_caps_port *port = find(number);
	int life;

	if (!port) {
		errno = EINVAL;
		return NULL;
	}
	aph_caps_port_relock(port);
	life = atomic_load_explicit(&port->life, memory_order_relaxed);
	if (life == APH_CAPS_OPEN || life == APH_CAPS_FORKED)
		return port;
	aph_caps_port_unlock(port);
	errno = EINVAL;
	return NULL;
}

struct aph_caps_port *aph_caps_port_lock(int number)
{
	struct aph_caps_port *port = aph_caps_port_lock_any(number);

	if (port && atomic_load_explicit(&port->life, memory_order_relaxed) == APH_CAPS_FORKED) {
		aph_caps_port_unlock(port);
		errno = ENOTCONN;
		return NULL;
	}
	return port;
}

struct aph_caps_port *aph_caps_port_lock_type(int number, caps_type_t type)
{
	struct aph_caps_port *port = aph_caps_port_lock(number);

	if (port && port->type != type) {
		aph_caps_port_unlock(port);
		errno = EINVAL;
		return NULL;
	}
	return port;
}

/* -- fork -------------------------------------------------------------------------------------- */

static void before_fork(void)
{
	int i;

	(void)pthread_mutex_lock(&table_lock);
	for (i = 1; i <= n_ports; i++)
		aph_caps_port_relock(find(i));
	aph_caps_upcall_lock();
}

static void after_fork_in_parent(void)
{
	int i;

	aph_caps_upcall_unlock();
	for (i = n_ports; i >= 1; i--)
		aph_caps_port_unlock(find(i));
	(void)pthread_mutex_unlock(&table_lock);
}

/*
 * Threads other than this one do not exist here, and the parent's connections are the parent's.
 * What a port holds stays as it is until the number is closed or used again.
 */
static void disown(struct aph_caps_port *port)
{
	int life = atomic_load_explicit(&port->life, memory_order_relaxed);

	port->receiver = APH_CAPS_NOBODY;
	port->n_followers = 0;
	port->thread_state = APH_CAPS_NO_THREAD;
	if (life == APH_CAPS_FREE || life == APH_CAPS_STALE || life == APH_CAPS_FORKED)
		return;
	if (port->own_fd >= 0)
		(void)close(port->own_fd);
	port->own_fd = -1;
	aph_caps_upcall_deinit(&port->upcall);
	life = life == APH_CAPS_OPEN && !(port->flags & CAPF_NOFORK) ? APH_CAPS_FORKED
								     : APH_CAPS_STALE;
	atomic_store_explicit(&port->life, life, memory_order_relaxed);
}

static void after_fork_in_child(void)
{
	int i;

	aph_caps_upcall_unlock();
	for (i = n_ports; i >= 1; i--) {
		struct aph_caps_port *port = find(i);

		if (!port)
			continue;
		disown(port);
		aph_caps_port_unlock(port);
	}
	(void)pthread_mutex_unlock(&table_lock);
}

/*
 * Called when an endpoint was made already: libantiphon's handlers are registered then, so that
 * ours lock first, in the same order as everybody else.
 */
static void watch_fork(void)
{
	(void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* -- claiming ---------------------------------------------------------------------------------- */

static struct aph_caps_port *add_port(void)
{
	unsigned index = (unsigned)n_ports;
	struct aph_caps_port *port;
	slot *chunk;

	if (index >= N_CHUNKS * CHUNK) {
		errno = EMFILE;
		return NULL;
	}
	port = calloc(1, sizeof(*port));
	if (!port)
		return NULL;
	chunk = atomic_load_explicit(&table[index / CHUNK], memory_order_relaxed);
	if (!chunk) {
		chunk = calloc(CHUNK, sizeof(*chunk));
		if (!chunk) {
			free(port);
			return NULL;
		}
		atomic_store_explicit(&table[index / CHUNK], chunk, memory_order_release);
	}
	port->number = ++n_ports;
	atomic_store_explicit(&chunk[index % CHUNK], port, memory_order_release);
	return port;
}

static void reset(struct aph_caps_port *port, caps_type_t type, int flags)
{
	port->type = type;
	port->flags = flags;
	port->ep = NULL;
	port->bytes_max = -1;
	aph_caps_link_init(&port->pool.unused);
	aph_caps_link_init(&port->ready);
	aph_caps_link_init(&port->peers);
	aph_caps_link_init(&port->outgoing);
	port->service = NULL;
	port->n_connections = 0;
	port->server = NULL;
	port->n_in_progress = 0;
	port->connecting = port->disconnected = port->awaited = false;
	port->received = false;
	port->asked_ticks = port->looked_ticks = 0;
	port->receiver = APH_CAPS_NOBODY;
	port->called_back = false;
	port->n_followers = 0;
	port->visits = 0;
	port->thread_state = APH_CAPS_NO_THREAD;
	port->stop = port->parked = port->opening = false;
	port->upcall = (struct aph_caps_upcall){ .fd = -1 };
	port->fresh = port->upcall_due = false;
	port->own_fd = -1;
	port->own_raised = false;
}

/* The first one whose number may be given out again. With the table's lock. */
static struct aph_caps_port *find_unused(void)
{
	int i, life;

	for (i = 1; i <= n_ports; i++) {
		struct aph_caps_port *port = find(i);

		if (!port)
			continue;
		life = atomic_load_explicit(&port->life, memory_order_relaxed);
		if (life == APH_CAPS_FREE || life == APH_CAPS_STALE)
			return port;
	}
	return NULL;
}

struct aph_caps_port *aph_caps_port_claim(caps_type_t type, int flags)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct aph_caps_port *port;

	(void)pthread_once(&once, watch_fork);
	(void)pthread_mutex_lock(&table_lock);
	port = find_unused();
	if (!port)
		port = add_port();
	if (port) {
		aph_caps_port_relock(port);
		if (atomic_load_explicit(&port->life, memory_order_relaxed) == APH_CAPS_STALE)
			aph_caps_port_scrub(port);
		reset(port, type, flags);
		atomic_store_explicit(&port->life, APH_CAPS_OPEN, memory_order_relaxed);
	}
	(void)pthread_mutex_unlock(&table_lock);
	return port;
}

long aph_caps_port_sleep(struct aph_caps_port *port, _Atomic uint32_t *word, unsigned ms)
{
	struct timespec time = { .tv_sec = (time_t)(ms / 1000),
				 .tv_nsec = (long)(ms % 1000) * 1000000 };
	uint32_t value = atomic_load_explicit(word, memory_order_relaxed);
	long r;

	aph_caps_port_unlock(port);
	r = aph_caps_futex_wait(word, value, ms ? &time : NULL);
	if (r < 0)
		r = -errno;
	aph_caps_port_relock(port);
	return r;
}

/* -- closing ----------------------------------------------------------------------------------- */

/* In a child the endpoint can only be freed: its calls go with it. */
static void forget_calls(struct aph_caps_port *port)
{
	uint32_t i;

	for (i = 0; i < port->pool.n_chunks * APH_CAPS_POOL_CHUNK; i++)
		port->pool.chunks[i / APH_CAPS_POOL_CHUNK][i % APH_CAPS_POOL_CHUNK].call = NULL;
}

void aph_caps_port_scrub(struct aph_caps_port *port)
{
	int life = atomic_load_explicit(&port->life, memory_order_relaxed);
	struct aph_caps_link *pos, *next;

	if (life == APH_CAPS_FORKED || life == APH_CAPS_STALE)
		forget_calls(port);
	else if (port->service)
		(void)aph_service_close(port->service);
	else if (port->server && port->server->channel)
		(void)aph_channel_close(port->server->channel);
	aph_caps_pool_deinit(port);
	port->ep = aph_endpoint_free(port->ep);
	for (pos = port->peers.next; pos != &port->peers; pos = next) {
		next = pos->next;
		aph_caps_peer_unref(APH_CAPS_CONTAINER(pos, struct aph_caps_peer, link));
	}
	if (port->own_fd >= 0)
		(void)close(port->own_fd);
	port->own_fd = -1;
	aph_caps_upcall_deinit(&port->upcall);
}

/* Waits until nobody is in the endpoint, or waits for somebody who is. */
static void evict(struct aph_caps_port *port)
{
	port->stop = true;
	while (port->receiver != APH_CAPS_NOBODY || port->n_followers || port->opening) {
		if (port->receiver != APH_CAPS_NOBODY)
			(void)aph_endpoint_wake(port->ep);
		aph_caps_leave(port);
		/* The time limit is for a wake-up that met a receiver on its way out. */
		(void)aph_caps_port_sleep(port, &port->closed, 10);
	}
}

/* Closes and unlocks it. */
static void close_port(struct aph_caps_port *port)
{
	bool done = true;

	if (aph_caps_is_open(port)) {
		atomic_store_explicit(&port->life, APH_CAPS_CLOSING, memory_order_relaxed);
		evict(port);
		done = aph_caps_attend_stop(port);
		if (port->type == CAPT_SERVICE)
			aph_caps_service_linger(port);
	}
	aph_caps_port_scrub(port);
	if (done)
		atomic_store_explicit(&port->life, APH_CAPS_FREE, memory_order_relaxed);
	aph_caps_port_unlock(port);
}

int aph_caps_port_start(struct aph_caps_port *port)
{
	int number = port->number, e = aph_caps_attend(port);

	if (e == 0) {
		aph_caps_port_unlock(port);
		return number;
	}
	close_port(port);
	errno = e;
	return -1;
}

APH_API int caps_sys_close(int number)
{
	struct aph_caps_port *port = aph_caps_port_lock_any(number);

	if (!port)
		return -1;
	close_port(port);
	return 0;
}
