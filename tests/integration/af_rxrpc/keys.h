/* SPDX-License-Identifier: MIT */
/* Keys, by whichever functions the test program is to use; -errno where they fail. */
#ifndef TESTS_AF_RXRPC_KEYS_H
#define TESTS_AF_RXRPC_KEYS_H

#include "fixture.h"

#ifdef AFRX_PLAIN
#include <dlfcn.h>

/* As in libkeyutils, which need not be there: the preload library has both. */
static inline int32_t key_add(const char *type, const char *description, const void *payload,
			      size_t len, int32_t keyring)
{
	void *symbol = dlsym(RTLD_DEFAULT, "add_key");
	int32_t (*function)(const char *, const char *, const void *, size_t, int32_t);
	int32_t r;

	CHECK(symbol != NULL);
	memcpy(&function, &symbol, sizeof(function));
	r = function(type, description, payload, len, keyring);
	return r < 0 ? -errno : r;
}

static inline long key_control(int command, int32_t key, unsigned long a, unsigned long b)
{
	void *symbol = dlsym(RTLD_DEFAULT, "keyctl");
	long (*function)(int, ...);
	long r;

	CHECK(symbol != NULL);
	memcpy(&function, &symbol, sizeof(function));
	r = function(command, key, a, b, 0UL);
	return r < 0 ? -errno : r;
}

#define key_revoke(key)		 key_control(3, key, 0, 0)
#define key_unlink(key)		 key_control(9, key, (unsigned long)-2, 0)
#define key_read(key, p, n)	 key_control(11, key, (unsigned long)(p), n)
#define key_expire(key, seconds) key_control(15, key, seconds, 0)
#else
static inline long key_result(long r)
{
	return r < 0 ? -errno : r;
}

#define key_add(type, name, p, n, ring) key_result(aph_rxrpc_add_key(type, name, p, n, ring))
#define key_revoke(key)			key_result(aph_rxrpc_revoke_key(key))
#define key_unlink(key)			key_result(aph_rxrpc_unlink_key(key))
#define key_read(key, p, n)		key_result(aph_rxrpc_read_key(key, p, n))
#define key_expire(key, seconds)	key_result(aph_rxrpc_set_key_timeout(key, seconds))
#endif

#endif
