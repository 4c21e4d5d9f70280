/* SPDX-License-Identifier: MIT */
/*
 * The preload library: functions of the C library that know AF_RXRPC sockets, and hand everything
 * else on.
 *
 * Descriptors of these sockets are real ones, so that what only passes them on (dup, fcntl, poll,
 * epoll, close by whatever way) is left alone. Whether a descriptor is one of them is asked of
 * libafrxrpc, which says no at once as long as there is none, and in calls that it makes itself.
 */
#ifndef FACADE_AF_RXRPC_PRELOAD_H
#define FACADE_AF_RXRPC_PRELOAD_H

#include <antiphon/af_rxrpc.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/*
 * Address of the next function of this name. Ends the process when there is none: nothing could go
 * on.
 */
uintptr_t aph_afrx_next(const char *name);

/* Declares `real`, the function of this name that would have been called without us. */
#define APH_AFRX_REAL(name)                                                   \
	static _Atomic(uintptr_t) cache;                                      \
	uintptr_t found = atomic_load_explicit(&cache, memory_order_relaxed); \
	__typeof__(&(name)) real;                                             \
	if (!found) {                                                         \
		found = aph_afrx_next(#name);                                 \
		atomic_store_explicit(&cache, found, memory_order_relaxed);   \
	}                                                                     \
	memcpy(&real, &found, sizeof(real))

#endif
