/* SPDX-License-Identifier: MIT */
/*
 * Payloads of keys. A token comes as XDR (flags, cell, tokens) or in the binary form; what is
 * neither is rejected as the binary form would be. Nothing here copies a key's secret anywhere but
 * to who may read the key.
 */
#include "key.h"

#include <assert.h>
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <linux/rxrpc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CELL_MAX      64
#define TOKENS_MAX    8
#define TOKEN_MIN     20
#define TOKEN_RXKAD   2
#define TOKEN_RXGK    6
#define BINARY_HEADER 24
#define UNITS_PER_S   10000000 /* of the times in rxgk tokens */

/* -- XDR, read --------------------------------------------------------------------------------- */

struct reader {
	const uint8_t *at;
	size_t left;
	bool bad; /* it was not all there */
};

static const uint8_t *get(struct reader *r, size_t len)
{
	const uint8_t *at = r->at;
	size_t padded = (len + 3) & ~(size_t)3;

	if (r->bad || len > r->left || padded > r->left) {
		r->bad = true;
		return NULL;
	}
	r->at += padded;
	r->left -= padded;
	return at;
}

static uint32_t get_u32(struct reader *r)
{
	const uint8_t *at = get(r, 4);
	uint32_t value;

	if (!at)
		return 0;
	memcpy(&value, at, 4);
	return be32toh(value);
}

static uint64_t get_u64(struct reader *r)
{
	uint64_t high = get_u32(r);

	return high << 32 | get_u32(r);
}

/* An opaque of a length between. */
static struct reader get_opaque(struct reader *r, size_t min, size_t max)
{
	size_t len = get_u32(r);
	struct reader inner = { .bad = true };

	if (!r->bad && (len < min || len > max))
		r->bad = true;
	inner.at = get(r, len);
	inner.left = len;
	inner.bad = !inner.at;
	return inner;
}

static int check_rxkad(struct aph_afrx_payload *out, struct reader *token, uint64_t now_s)
{
	uint32_t end;

	(void)get(token, 16); /* viceid, kvno, key */
	(void)get_u32(token);
	end = get_u32(token);
	(void)get_u32(token);
	(void)get_opaque(token, 0, APH_AFRX_TICKET_MAX);
	if (token->bad)
		return -EKEYREJECTED;
	if (end <= now_s)
		return -EKEYEXPIRED;
	*out = (struct aph_afrx_payload){ .security = RXRPC_SECURITY_RXKAD, .expiry_s = end };
	return 0;
}

static int check_rxgk(struct aph_afrx_payload *out, struct reader *token, uint64_t now_s)
{
	uint64_t end;

	(void)get_u64(token);
	end = get_u64(token) / UNITS_PER_S;
	(void)get(token, 32); /* level, lifetime, bytelife, enctype */
	(void)get_opaque(token, 1, APH_AFRX_TICKET_MAX);
	(void)get_opaque(token, 0, APH_AFRX_TICKET_MAX);
	if (token->bad)
		return -EKEYREJECTED;
	if (end <= now_s)
		return -EKEYEXPIRED;
	*out = (struct aph_afrx_payload){ .security = RXRPC_SECURITY_YFS_RXGK, .expiry_s = end };
	return 0;
}

static bool is_cell(const struct reader *cell)
{
	size_t i, padded = (cell->left + 3) & ~(size_t)3;

	for (i = 0; i < cell->left; i++)
		if (!isascii(cell->at[i]) || !isprint(cell->at[i]))
			return false;
	for (; i < padded; i++)
		if (cell->at[i])
			return false;
	return true;
}

/* Whether the outer structure is that of a token in XDR; `r` is then at the first token. */
static bool is_xdr(struct reader *r, uint32_t *n_tokens)
{
	struct reader cell, rest;
	uint32_t flags, i;

	if (r->left <= 28 || r->left % 4 || r->left > APH_AFRX_PAYLOAD_MAX)
		return false;
	flags = get_u32(r);
	cell = get_opaque(r, 1, CELL_MAX);
	*n_tokens = get_u32(r);
	if (r->bad || flags || !is_cell(&cell) || *n_tokens < 1 || *n_tokens > TOKENS_MAX)
		return false;
	rest = *r;
	for (i = 0; i < *n_tokens; i++)
		(void)get_opaque(&rest, TOKEN_MIN, APH_AFRX_PAYLOAD_MAX);
	return !rest.bad && rest.left == 0;
}

static int check_tokens(struct aph_afrx_payload *out, struct reader *r, uint32_t n, uint64_t now_s)
{
	struct aph_afrx_payload one;
	bool found = false;
	int e;

	for (; n; n--) {
		struct reader token = get_opaque(r, TOKEN_MIN, APH_AFRX_PAYLOAD_MAX);

		switch (get_u32(&token)) {
		case TOKEN_RXKAD:
			e = check_rxkad(&one, &token, now_s);
			break;
		case TOKEN_RXGK:
			e = check_rxgk(&one, &token, now_s);
			break;
		default:
			continue;
		}
		if (e < 0)
			return e;
		if (!found)
			*out = one;
		found = true;
	}
	return found ? 0 : -EPROTONOSUPPORT;
}

/* -- the binary form --------------------------------------------------------------------------- */

struct binary {
	uint32_t version;
	uint16_t security;
	uint16_t ticket_len;
	uint32_t expiry;
	uint32_t kvno;
	uint8_t key[8];
};

static_assert(sizeof(struct binary) == BINARY_HEADER, "the interface's layout");

static int check_binary(struct aph_afrx_payload *out, const void *data, size_t len)
{
	struct binary b;

	if (len < sizeof(b))
		return -EINVAL;
	memcpy(&b, data, sizeof(b));
	if (b.version != 1)
		return -EKEYREJECTED;
	if (len != sizeof(b) + b.ticket_len || b.ticket_len > APH_AFRX_TICKET_MAX)
		return -EINVAL;
	if (b.security != RXRPC_SECURITY_RXKAD)
		return -EPROTONOSUPPORT;
	*out = (struct aph_afrx_payload){ .security = b.security, .expiry_s = b.expiry };
	return 0;
}

int aph_afrx_token_check(struct aph_afrx_payload *out, const void *data, size_t len, uint64_t now_s)
{
	struct reader r = { .at = data, .left = len };
	uint32_t n;

	*out = (struct aph_afrx_payload){ .security = RXRPC_SECURITY_NONE };
	if (len == 0)
		return 0;
	if (is_xdr(&r, &n))
		return check_tokens(out, &r, n, now_s);
	return check_binary(out, data, len);
}

/* -- XDR, written ------------------------------------------------------------------------------ */

struct writer {
	uint8_t *at;
	size_t max, len; /* `len` counts on when there is no room */
};

static void put_bytes(struct writer *w, const void *data, size_t len)
{
	size_t room = w->len < w->max ? w->max - w->len : 0;

	if (room && len)
		memcpy(w->at + w->len, data, len < room ? len : room);
	w->len += len;
}

static void put(struct writer *w, const void *data, size_t len)
{
	static const uint8_t zeros[4];

	put_bytes(w, data, len);
	put_bytes(w, zeros, (4 - len % 4) % 4);
}

static void put_u32(struct writer *w, uint32_t value)
{
	uint32_t wire = htobe32(value);

	put(w, &wire, sizeof(wire));
}

size_t aph_afrx_token_write(void *out, size_t max, const char *description, const void *data,
			    size_t len)
{
	struct writer w = { .at = out, .max = max };
	struct reader r = { .at = data, .left = len };
	const char *cell = strpbrk(description, "@:");
	struct binary b;
	uint32_t n;

	if (len == 0)
		return 0;
	if (is_xdr(&r, &n)) {
		put(&w, data, len);
		return w.len;
	}
	memcpy(&b, data, sizeof(b));
	cell = cell ? cell + 1 : description;
	put_u32(&w, 0);
	put_u32(&w, (uint32_t)strlen(cell));
	put(&w, cell, strlen(cell));
	put_u32(&w, 1);
	put_u32(&w, (uint32_t)(28 + sizeof(b.key) + ((b.ticket_len + 3u) & ~3u)));
	put_u32(&w, TOKEN_RXKAD);
	put_u32(&w, 0); /* viceid */
	put_u32(&w, b.kvno);
	put(&w, b.key, sizeof(b.key));
	put_u32(&w, 0); /* begin */
	put_u32(&w, b.expiry);
	put_u32(&w, 0); /* not the primary one */
	put_u32(&w, b.ticket_len);
	put(&w, (const uint8_t *)data + sizeof(b), b.ticket_len);
	return w.len;
}

/* -- keys of servers --------------------------------------------------------------------------- */

/* Decimal digits up to a colon or the end. Returns what follows, or NULL. */
static const char *get_number(const char *text, unsigned long max, unsigned long *value)
{
	char *end;

	if (!text || !isdigit((unsigned char)*text))
		return NULL;
	*value = strtoul(text, &end, 10);
	if (*value > max || (*end && *end != ':'))
		return NULL;
	return *end ? end + 1 : end;
}

static size_t enctype_key_len(unsigned long enctype)
{
	switch (enctype) {
	case 17: /* aes128-cts-hmac-sha1-96 */
	case 19: /* aes128-cts-hmac-sha256-128 */
	case 25: /* camellia128-cts-cmac */
		return 16;
	case 18: /* aes256-cts-hmac-sha1-96 */
	case 20: /* aes256-cts-hmac-sha384-192 */
	case 26: /* camellia256-cts-cmac */
		return 32;
	default:
		return 0;
	}
}

int aph_afrx_server_key_check(struct aph_afrx_payload *out, const char *description, size_t len)
{
	unsigned long service, index, kvno, enctype;
	const char *rest;
	size_t wanted;

	rest = get_number(description, UINT16_MAX, &service);
	rest = get_number(rest, UINT8_MAX, &index);
	if (!rest || index < 1)
		return -EINVAL;
	*out = (struct aph_afrx_payload){ .security = (int)index };
	if (index == RXRPC_SECURITY_RXKAD)
		return len == 8 ? 0 : -EINVAL;
	if (index != RXRPC_SECURITY_YFS_RXGK)
		return -ENOPKG;
	rest = get_number(rest, UINT32_MAX, &kvno);
	rest = get_number(rest, UINT32_MAX, &enctype);
	if (!rest)
		return -EINVAL;
	wanted = enctype_key_len(enctype);
	if (wanted == 0)
		return -ENOPKG;
	return len == wanted ? 0 : -EKEYREJECTED;
}
