/* SPDX-License-Identifier: MIT */
/*
 * What becomes of drivers in a forked child: their sockets are the parent's, so the child's copies
 * are closed, and nothing that the child does is heard by any peer.
 *
 * No lock is taken around fork(): users call the driver under locks of theirs, which they may take
 * around fork() as well, and in an order that nobody here knows. The list is changed by single
 * stores instead, so that at any instant, which is what a child gets a copy of, it can be walked.
 */
#include "udp/udp.h"

#include <pthread.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of those who change the list */
static _Atomic(struct aph_rx_udp *) drivers;

static void after_fork_in_child(void)
{
	static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	for (struct aph_rx_udp *udp = atomic_load(&drivers); udp; udp = atomic_load(&udp->next)) {
		if (udp->keeps) {
			if (udp->port)
				udp->port->keeps = true;
			continue;
		}
		udp->forked = true;
		aph_udp_socket_close(udp);
		if (udp->port)
			udp->port->n_members--;
	}
	aph_udp_ports_abandon();
	lock = fresh;
}

/*
 * As soon as the library is there: handlers of its users come after it then, and may close drivers.
 */
__attribute__((constructor)) static void watch_fork(void)
{
	(void)pthread_atfork(NULL, NULL, after_fork_in_child);
}

void aph_udp_register(struct aph_rx_udp *udp)
{
	(void)pthread_mutex_lock(&lock);
	atomic_store(&udp->next, atomic_load(&drivers));
	atomic_store(&drivers, udp);
	(void)pthread_mutex_unlock(&lock);
}

void aph_udp_unregister(struct aph_rx_udp *udp)
{
	_Atomic(struct aph_rx_udp *) *link = &drivers;
	struct aph_rx_udp *other;

	(void)pthread_mutex_lock(&lock);
	while ((other = atomic_load(link)) && other != udp)
		link = &other->next;
	if (other)
		atomic_store(link, atomic_load(&udp->next));
	(void)pthread_mutex_unlock(&lock);
}
