/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for the kernel's keys: a list of the process's own. Found by type and description, as
 * request_key() would; put into keyrings that are no more than numbers. Secrets are wiped before
 * their memory is given back.
 *
 * A broker begins with those that its program had. What is done to keys later is told to it by
 * whoever has done it, before it is asked for anything that might need them (connection.c). Those
 * that a process of another user tells are found for that user alone.
 */
#include "key.h"
#include "share.h"
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
	uid_t owner;	  /* APH_AFRX_OURS, or in a broker another user's */
	uint64_t changed; /* `n_changes` then */
	size_t len;
	uint8_t *payload;
};

/* All of it under the sockets' lock, so that a forked process finds it whole. */
static struct aph_afrx_link keys = { &keys, &keys };
static struct aph_afrx_link unlinked = { &unlinked, &unlinked }; /* those that brokers may have */
static unsigned n_keys, n_foreign, n_unlinked;
static uint64_t n_changes;
static int32_t last_serial = FIRST_SERIAL;

static const char *const types[] = { "rxrpc", "rxrpc_s", "keyring" };
#define N_TYPES (sizeof(types) / sizeof(types[0]))

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

static unsigned *count_of(const struct key *key)
{
	return key->owner == APH_AFRX_OURS ? &n_keys : &n_foreign;
}

static void drop(struct key *key)
{
	aph_afrx_list_del(&key->link);
	--*count_of(key);
	key_free(key);
}

static void forget_oldest(void)
{
	key_free(APH_AFRX_OF(aph_afrx_list_pop(&unlinked), struct key, link));
	n_unlinked--;
}

/* What brokers have to hear of is kept, without its secret. */
static void unlink_key(struct key *key)
{
	if (!aph_afrx_remote_any()) {
		drop(key);
		return;
	}
	aph_afrx_list_del(&key->link);
	--*count_of(key);
	explicit_bzero(key->payload, key->len);
	key->len = 0;
	key->changed = ++n_changes;
	aph_afrx_list_add(&unlinked, &key->link);
	if (++n_unlinked > KEYS_MAX)
		forget_oldest();
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

/* The newest one of an owner. `keyring` 0: in any. */
static struct key *find(const char *type, const char *description, int32_t keyring, uid_t owner)
{
	struct aph_afrx_link *pos;

	for (pos = keys.prev; pos != &keys; pos = pos->prev) {
		struct key *key = APH_AFRX_OF(pos, struct key, link);

		if (strcmp(key->type, type) == 0 && strcmp(key->description, description) == 0 &&
		    (keyring == 0 || key->keyring == keyring) && key->owner == owner)
			return key;
	}
	return NULL;
}

int aph_afrx_key_find(const char *type, const char *description, bool started)
{
	struct key *key = find(type, description, 0, aph_afrx_broker_asker());
	int r;

	if (!key)
		key = find(type, description, 0, APH_AFRX_OURS);
	if (!key)
		r = -ENOKEY;
	else if (key->revoked)
		r = -EKEYREVOKED;
	else if (is_expired(key))
		r = started ? -EKEYEXPIRED : -ENOKEY;
	else
		r = key->info.security;
	return r;
}

/* -- adding ------------------------------------------------------------------------------------ */

static const char *known_type(const char *type)
{
	size_t i;

	for (i = 0; i < N_TYPES; i++)
		if (strcmp(type, types[i]) == 0)
			return types[i];
	return NULL;
}

static int check(struct aph_afrx_payload *info, const char *type, const char *description,
		 const void *payload, size_t len, uint64_t time_s)
{
	size_t name_len = strlen(description);

	if (name_len == 0 || name_len > NAME_LEN_MAX || len > APH_AFRX_PAYLOAD_MAX)
		return -EINVAL;
	if (strcmp(type, "rxrpc") == 0)
		return aph_afrx_token_check(info, payload, len, time_s);
	if (strcmp(type, "rxrpc_s") == 0)
		return aph_afrx_server_key_check(info, description, len);
	return len ? -EINVAL : 0;
}

static int key_new(struct key **out, const char *type, const char *description, const void *payload,
		   size_t len, uint64_t time_s)
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
	key->owner = APH_AFRX_OURS;
	r = check(&key->info, type, description, payload, len, time_s);
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
	struct key *old = find(key->type, key->description, key->keyring, key->owner);

	if (!old && *count_of(key) >= KEYS_MAX)
		return -EDQUOT;
	key->serial = old ? old->serial : ++last_serial;
	key->changed = ++n_changes;
	aph_afrx_list_add(&keys, &key->link);
	++*count_of(key);
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
	aph_afrx_fork_begin();
	r = key_new(&key, type, description, payload, len, now_s());
	if (r == 0) {
		key->keyring = keyring;
		aph_afrx_enter();
		r = insert(key);
		aph_afrx_leave();
		if (r < 0)
			key_free(key);
	}
	return (int32_t)aph_afrx_result(r);
}

/* -- what else is done with keys --------------------------------------------------------------- */

APH_API int aph_rxrpc_revoke_key(int32_t serial)
{
	struct key *key;

	aph_afrx_enter();
	key = find_serial(serial);
	if (key) {
		key->revoked = true;
		key->changed = ++n_changes;
	}
	aph_afrx_leave();
	return (int)aph_afrx_result(key ? 0 : -ENOKEY);
}

APH_API int aph_rxrpc_set_key_timeout(int32_t serial, unsigned seconds)
{
	struct key *key;

	aph_afrx_enter();
	key = find_serial(serial);
	if (key) {
		key->info.expiry_s = seconds ? now_s() + seconds : 0;
		key->changed = ++n_changes;
	}
	aph_afrx_leave();
	return (int)aph_afrx_result(key ? 0 : -ENOKEY);
}

APH_API int aph_rxrpc_unlink_key(int32_t serial)
{
	struct key *key;

	aph_afrx_enter();
	key = find_serial(serial);
	if (key)
		unlink_key(key);
	aph_afrx_leave();
	return (int)aph_afrx_result(key ? 0 : -ENOKEY);
}

APH_API ssize_t aph_rxrpc_read_key(int32_t serial, void *out, size_t len)
{
	struct key *key;
	ssize_t r;

	aph_afrx_enter();
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
	aph_afrx_leave();
	return aph_afrx_result(r);
}

/* -- between a program and its broker ---------------------------------------------------------- */

uint64_t aph_afrx_keys_changed(void)
{
	return n_changes;
}

static const struct key *first_changed(const struct aph_afrx_link *list, uint64_t since)
{
	const struct aph_afrx_link *pos;
	const struct key *first = NULL;

	for (pos = list->next; pos != list; pos = pos->next) {
		const struct key *key = APH_AFRX_OF(pos, const struct key, link);

		if (key->changed > since && (!first || key->changed < first->changed))
			first = key;
	}
	return first;
}

static uint32_t index_of(const char *type)
{
	uint32_t i;

	for (i = 0; i < N_TYPES - 1 && types[i] != type; i++)
		;
	return i;
}

size_t aph_afrx_key_image(struct aph_afrx_key_image *out, uint64_t *since)
{
	const struct key *key = first_changed(&keys, *since);
	const struct key *gone = first_changed(&unlinked, *since);
	bool is_gone = gone && (!key || gone->changed < key->changed);
	size_t name_len;

	key = is_gone ? gone : key;
	if (!key)
		return 0;
	*since = key->changed;
	name_len = strlen(key->description);
	*out = (struct aph_afrx_key_image){
		.type = index_of(key->type),
		.is_unlinked = is_gone,
		.is_revoked = key->revoked,
		.keyring = key->keyring,
		.expiry_s = key->info.expiry_s,
		.name_len = (uint32_t)name_len,
		.payload_len = (uint32_t)key->len,
	};
	memcpy(out->bytes, key->description, name_len + 1);
	if (key->len)
		memcpy(out->bytes + name_len + 1, key->payload, key->len);
	return sizeof(*out) + name_len + 1 + key->len;
}

static_assert(sizeof(struct aph_afrx_key_image) + NAME_LEN_MAX + 1 + APH_AFRX_PAYLOAD_MAX <=
		      APH_AFRX_BODY_MIN,
	      "a key fits into what every connection has");

static bool is_whole(const struct aph_afrx_key_image *image, size_t len)
{
	return len >= sizeof(*image) && image->type < N_TYPES && image->name_len <= NAME_LEN_MAX &&
	       image->payload_len <= APH_AFRX_PAYLOAD_MAX &&
	       len == sizeof(*image) + image->name_len + 1 + image->payload_len &&
	       memchr(image->bytes, '\0', image->name_len + 1) == image->bytes + image->name_len;
}

int aph_afrx_key_adopt(const struct aph_afrx_key_image *image, size_t len)
{
	struct key *key = NULL, *old;
	const char *name = image->bytes;
	uid_t owner = aph_afrx_broker_asker();
	int r;

	if (!is_whole(image, len))
		return -EINVAL;
	old = find(types[image->type], name, image->keyring, owner);
	if (image->is_unlinked) {
		if (old)
			drop(old);
		return 0;
	}
	/* Whether it has expired is seen when it is used. */
	r = key_new(&key, types[image->type], name, name + image->name_len + 1, image->payload_len,
		    0);
	if (r < 0)
		return r;
	key->owner = owner;
	key->keyring = image->keyring;
	key->revoked = image->is_revoked;
	key->info.expiry_s = image->expiry_s;
	r = insert(key);
	if (r < 0)
		key_free(key);
	return r < 0 ? r : 0;
}
