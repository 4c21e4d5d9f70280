/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for the kernel's keys: a list of the process's own. Found by type and description, as request_key()
 * would; put into keyrings that are no more than numbers. Secrets are wiped before their memory is given back.
 */
#include "key.h"
#include "socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define FIRST_SERIAL \
	0x40000000 /* kernels count from random numbers below; no two meet in practice */
#define KEYS_MAX     4096
#define NAME_LEN_MAX 4095

struct key {
	struct aph_afrx_link link;
	int32_t serial, keyring;
	const char *type; /* static */
	char *description;
	struct aph_afrx_payload info;
	bool revoked;
	size_t len;
	uint8_t *payload;
};

static pthread_mutex_t keys_lock = PTHREAD_MUTEX_INITIALIZER;
static struct aph_afrx_link keys = { &keys, &keys };
static unsigned n_keys;
static int32_t last_serial = FIRST_SERIAL;

static const char *const types[] = { "rxrpc", "rxrpc_s", "keyring" };

static uint64_t now_s(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec;
}

static bool is_expired(const struct key *key)
{
	return key->info.expiry_s && key->info.expiry_s <= now_s();
}

static void key_free(struct key *key)
{
	if (!key)
		return;
	if (key->payload)
		explicit_bzero(key->payload, key->len);
	free(key->payload);
	free(key->description);
	free(key);
}

static void drop(struct key *key)
{
	aph_afrx_list_del(&key->link);
	n_keys--;
	key_free(key);
}

static struct key *find_serial(int32_t serial)
{
	struct aph_afrx_link *pos;

	for (pos = keys.next; pos != &keys; pos = pos->next) {
		struct key *key = APH_AFRX_OF(pos, struct key, link);

		if (key->serial == serial)
			return key;
	}
	return NULL;
}

/* The newest one. `keyring` 0: in any. */
static struct key *find(const char *type, const char *description, int32_t keyring)
{
	struct aph_afrx_link *pos;

	for (pos = keys.prev; pos != &keys; pos = pos->prev) {
		struct key *key = APH_AFRX_OF(pos, struct key, link);

		if (strcmp(key->type, type) == 0 && strcmp(key->description, description) == 0 &&
		    (keyring == 0 || key->keyring == keyring))
			return key;
	}
	return NULL;
}

int aph_afrx_key_find(const char *type, const char *description, bool started)
{
	struct key *key;
	int r;

	(void)pthread_mutex_lock(&keys_lock);
	key = find(type, description, 0);
	if (!key)
		r = -ENOKEY;
	else if (key->revoked)
		r = -EKEYREVOKED;
	else if (is_expired(key))
		r = started ? -EKEYEXPIRED : -ENOKEY;
	else
		r = key->info.security;
	(void)pthread_mutex_unlock(&keys_lock);
	return r;
}

/* -- adding ------------------------------------------------------------------------------------------------- */

static const char *known_type(const char *type)
{
	size_t i;

	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(type, types[i]) == 0)
			return types[i];
	return NULL;
}

static int check(struct aph_afrx_payload *info, const char *type, const char *description,
		 const void *payload, size_t len)
{
	size_t name_len = strlen(description);

	if (name_len == 0 || name_len > NAME_LEN_MAX || len > APH_AFRX_PAYLOAD_MAX)
		return -EINVAL;
	if (strcmp(type, "rxrpc") == 0)
		return aph_afrx_token_check(info, payload, len, now_s());
	if (strcmp(type, "rxrpc_s") == 0)
		return aph_afrx_server_key_check(info, description, len);
	return len ? -EINVAL : 0;
}

static int key_new(struct key **out, const char *type, const char *description, const void *payload,
		   size_t len)
{
	struct key *key;
	int r;

	type = known_type(type);
	if (!type)
		return -ENODEV;
	key = calloc(1, sizeof(*key));
	if (!key)
		return -ENOMEM;
	key->type = type;
	r = check(&key->info, type, description, payload, len);
	if (r == 0) {
		key->description = strdup(description);
		key->payload = malloc(len ? len : 1);
		if (!key->description || !key->payload)
			r = -ENOMEM;
	}
	if (r < 0) {
		key_free(key);
		return r;
	}
	if (len)
		memcpy(key->payload, payload, len);
	key->len = len;
	*out = key;
	return 0;
}

/* Gives it the number of the one it replaces. */
static int insert(struct key *key)
{
	struct key *old = find(key->type, key->description, key->keyring);

	if (!old && n_keys >= KEYS_MAX)
		return -EDQUOT;
	key->serial = old ? old->serial : ++last_serial;
	aph_afrx_list_add(&keys, &key->link);
	n_keys++;
	if (old)
		drop(old);
	return key->serial;
}

APH_API int32_t aph_rxrpc_add_key(const char *type, const char *description, const void *payload,
				  size_t len, int32_t keyring)
{
	struct key *key = NULL;
	int r;

	if (!type || !description || (!payload && len))
		return (int32_t)aph_afrx_result(-EFAULT);
	r = key_new(&key, type, description, payload, len);
	if (r == 0) {
		key->keyring = keyring;
		(void)pthread_mutex_lock(&keys_lock);
		r = insert(key);
		(void)pthread_mutex_unlock(&keys_lock);
		if (r < 0)
			key_free(key);
	}
	return (int32_t)aph_afrx_result(r);
}

/* -- what else is done with keys ------------------------------------------------------------------------------- */

APH_API int aph_rxrpc_revoke_key(int32_t serial)
{
	struct key *key;

	(void)pthread_mutex_lock(&keys_lock);
	key = find_serial(serial);
	if (key)
		key->revoked = true;
	(void)pthread_mutex_unlock(&keys_lock);
	return (int)aph_afrx_result(key ? 0 : -ENOKEY);
}

APH_API int aph_rxrpc_set_key_timeout(int32_t serial, unsigned seconds)
{
	struct key *key;

	(void)pthread_mutex_lock(&keys_lock);
	key = find_serial(serial);
	if (key)
		key->info.expiry_s = seconds ? now_s() + seconds : 0;
	(void)pthread_mutex_unlock(&keys_lock);
	return (int)aph_afrx_result(key ? 0 : -ENOKEY);
}

APH_API int aph_rxrpc_unlink_key(int32_t serial)
{
	struct key *key;

	(void)pthread_mutex_lock(&keys_lock);
	key = find_serial(serial);
	if (key)
		drop(key);
	(void)pthread_mutex_unlock(&keys_lock);
	return (int)aph_afrx_result(key ? 0 : -ENOKEY);
}

APH_API ssize_t aph_rxrpc_read_key(int32_t serial, void *out, size_t len)
{
	struct key *key;
	ssize_t r;

	(void)pthread_mutex_lock(&keys_lock);
	key = find_serial(serial);
	if (!key)
		r = -ENOKEY;
	else if (key->revoked)
		r = -EKEYREVOKED;
	else if (is_expired(key))
		r = -EKEYEXPIRED;
	else if (strcmp(key->type, "rxrpc") != 0)
		r = -EOPNOTSUPP;
	else
		r = (ssize_t)aph_afrx_token_write(out, len, key->description, key->payload,
						  key->len);
	(void)pthread_mutex_unlock(&keys_lock);
	return aph_afrx_result(r);
}
