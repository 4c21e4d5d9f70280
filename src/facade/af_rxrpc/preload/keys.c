/* SPDX-License-Identifier: MIT */
/*
 * add_key() and keyctl() for keys of AF_RXRPC, which the library keeps. Keyrings are the kernel's
 * if it has any; of those made here the name is kept too, for RXRPC_SECURITY_KEYRING.
 */
#include "preload.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CTL_REVOKE	3
#define CTL_UNLINK	9
#define CTL_READ	11
#define CTL_SET_TIMEOUT 15
#define CTL_INVALIDATE	21

int32_t add_key(const char *type, const char *description, const void *payload, size_t len,
		int32_t keyring);
/* Wherever arguments go into registers, a variable number of them is the same as all. */
long keyctl(int command, unsigned long a, unsigned long b, unsigned long c, unsigned long d);

static int32_t add_keyring(const char *description, int32_t parent)
{
	int32_t own = aph_rxrpc_add_key("keyring", description, NULL, 0, 0);
	long serial = syscall(SYS_add_key, "keyring", description, NULL, (size_t)0, parent);

	return serial > 0 ? (int32_t)serial : own;
}

APH_API int32_t add_key(const char *type, const char *description, const void *payload, size_t len,
			int32_t keyring)
{
	if (type && description && (strcmp(type, "rxrpc") == 0 || strcmp(type, "rxrpc_s") == 0))
		return aph_rxrpc_add_key(type, description, payload, len, keyring);
	if (type && description && strcmp(type, "keyring") == 0)
		return add_keyring(description, keyring);
	return (int32_t)syscall(SYS_add_key, type, description, payload, len, keyring);
}

/*
 * What a command does to a key of ours. ENOKEY: there is none of that number, or it is not such a
 * command.
 */
static long control_own(int command, unsigned long serial, unsigned long a, unsigned long b)
{
	int32_t key = (int32_t)serial;

	switch (command) {
	case CTL_REVOKE:
		return aph_rxrpc_revoke_key(key);
	case CTL_UNLINK:
	case CTL_INVALIDATE:
		return aph_rxrpc_unlink_key(key);
	case CTL_SET_TIMEOUT:
		return aph_rxrpc_set_key_timeout(key, (unsigned)a);
	case CTL_READ:
		return aph_rxrpc_read_key(key, (void *)a, b);
	default:
		errno = ENOKEY;
		return -1;
	}
}

APH_API long keyctl(int command, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	int saved = errno;
	long r;

	r = control_own(command, a, b, c);
	if (r >= 0 || errno != ENOKEY)
		return r;
	errno = saved;
	return syscall(SYS_keyctl, command, a, b, c, d);
}
