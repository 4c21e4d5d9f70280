/* SPDX-License-Identifier: MIT */
/* Keys: what payloads and descriptions are taken, what the options say, and calls with a key. */
#include "fixture.h"
#include "keys.h"

#include <endian.h>
#include <time.h>

static struct got got;

/* -- tokens ------------------------------------------------------------------------------------ */

struct binary {
	uint32_t version;
	uint16_t security, ticket_len;
	uint32_t expiry, kvno;
	uint8_t key[8];
	uint8_t ticket[12004];
};

static struct binary binary_new(void)
{
	struct binary b = { .version = 1,
			    .security = 2,
			    .ticket_len = 5,
			    .expiry = (uint32_t)time(NULL) + 1000,
			    .kvno = 7 };

	memcpy(b.key, "12345678", 8);
	memcpy(b.ticket, "TICKE", 5);
	return b;
}

static long add_token(const void *payload, size_t len)
{
	return key_add("rxrpc", "afs@example.org", payload, len, -2);
}

static void test_binary_tokens(void **state)
{
	static struct binary b;
	size_t len = 24 + 5;

	(void)state;
	b = binary_new();
	OK(add_token(&b, len));
	CHECK_INT(add_token(&b, len + 1), -EINVAL);
	CHECK_INT(add_token(&b, len - 1), -EINVAL);
	CHECK_INT(add_token(&b, 23), -EINVAL);
	b.version = 2;
	CHECK_INT(add_token(&b, len), -EKEYREJECTED);
	b.version = 1;
	b.security = 4;
	CHECK_INT(add_token(&b, len), -EPROTONOSUPPORT);
	b.security = 2;
	b.ticket_len = 12000;
	OK(add_token(&b, 24 + 12000));
	b.ticket_len = 12001;
	CHECK_INT(add_token(&b, 24 + 12001), -EINVAL);
	CHECK_INT(key_add("rxrpc", "", NULL, 0, -2), -EINVAL);
	OK(key_unlink((int32_t)OK(add_token(NULL, 0))));
}

/* A writer of XDR for the tests. */
struct xdr {
	unsigned char bytes[16400];
	size_t len;
};

static void put_u32(struct xdr *x, uint32_t value)
{
	value = htobe32(value);
	memcpy(x->bytes + x->len, &value, 4);
	x->len += 4;
}

static void put_opaque(struct xdr *x, const void *data, uint32_t len)
{
	put_u32(x, len);
	memset(x->bytes + x->len, 0, (len + 3) & ~3u);
	memcpy(x->bytes + x->len, data, len);
	x->len += (len + 3) & ~3u;
}

static void put_token(struct xdr *x, uint32_t type, uint32_t end, uint32_t ticket_len)
{
	struct xdr token = { .len = 0 };
	static char ticket[12004];

	put_u32(&token, type);
	put_u32(&token, 1);
	put_u32(&token, 7);
	memcpy(token.bytes + token.len, "12345678", 8);
	token.len += 8;
	put_u32(&token, 0);
	put_u32(&token, end);
	put_u32(&token, 0);
	put_opaque(&token, ticket, ticket_len);
	put_opaque(x, token.bytes, (uint32_t)token.len);
}

static void put_u64(struct xdr *x, uint64_t value)
{
	put_u32(x, (uint32_t)(value >> 32));
	put_u32(x, (uint32_t)value);
}

/* One of yfs-rxgk, whose times are in units of 100 ns. */
static void put_rxgk(struct xdr *x, uint64_t end_s, uint32_t key_len)
{
	struct xdr token = { .len = 0 };
	static const char key[32], ticket[7];

	put_u32(&token, 6);
	put_u64(&token, 0);
	put_u64(&token, end_s * 10000000);
	put_u64(&token, 2); /* level, lifetime, bytes, encryption type */
	put_u64(&token, 0);
	put_u64(&token, 0);
	put_u64(&token, 17);
	put_opaque(&token, key, key_len);
	put_opaque(&token, ticket, sizeof(ticket));
	put_opaque(x, token.bytes, (uint32_t)token.len);
}

static void begin_xdr(struct xdr *x, uint32_t n)
{
	x->len = 0;
	put_u32(x, 0);
	put_opaque(x, "example.org", 11);
	put_u32(x, n);
}

static void test_xdr_tokens(void **state)
{
	static struct xdr x;
	unsigned char out[100];
	uint32_t later = (uint32_t)time(NULL) + 1000;
	int32_t key;

	(void)state;
	begin_xdr(&x, 2);
	put_token(&x, 99, later, 5); /* skipped */
	put_token(&x, 2, later, 5);
	key = (int32_t)OK(add_token(x.bytes, x.len));
	/* It is read as it was given; what does not fit is told. */
	CHECK_INT(key_read(key, out, 10), x.len);
	CHECK(memcmp(out, x.bytes, 10) == 0);
	OK(key_unlink(key));
	begin_xdr(&x, 1);
	put_token(&x, 99, later, 5);
	CHECK_INT(add_token(x.bytes, x.len), -EPROTONOSUPPORT);
	begin_xdr(&x, 1);
	put_token(&x, 2, later - 2000, 5);
	CHECK_INT(add_token(x.bytes, x.len), -EKEYEXPIRED);
	begin_xdr(&x, 1);
	put_token(&x, 2, later, 12001);
	CHECK_INT(add_token(x.bytes, x.len), -EKEYREJECTED);
	begin_xdr(&x, 1);
	put_rxgk(&x, later, 16);
	key = (int32_t)OK(add_token(x.bytes, x.len));
	CHECK_INT(key_read(key, out, 10), x.len);
	OK(key_unlink(key));
	begin_xdr(&x, 1);
	put_rxgk(&x, later - 2000, 16);
	CHECK_INT(add_token(x.bytes, x.len), -EKEYEXPIRED);
	begin_xdr(&x, 1);
	put_rxgk(&x, later, 0);
	CHECK_INT(add_token(x.bytes, x.len), -EKEYREJECTED);
	/* Not XDR after all, and so no binary form either. */
	begin_xdr(&x, 9);
	put_token(&x, 2, later, 5);
	CHECK_INT(add_token(x.bytes, x.len), -EKEYREJECTED);
}

/* The binary form is read as XDR. */
static void test_reading(void **state)
{
	static struct binary b;
	static struct xdr wanted;
	unsigned char out[200];
	int32_t key;

	(void)state;
	b = binary_new();
	key = (int32_t)OK(add_token(&b, 29));
	begin_xdr(&wanted, 1);
	put_token(&wanted, 2, b.expiry, 5);
	memcpy(wanted.bytes + wanted.len - 8, "TICKE", 5);
	memset(wanted.bytes + 28 + 4, 0, 4); /* viceid */
	CHECK_INT(key_read(key, out, sizeof(out)), wanted.len);
	CHECK(memcmp(out, wanted.bytes, wanted.len) == 0);
	OK(key_revoke(key));
	CHECK_INT(key_read(key, out, sizeof(out)), -EKEYREVOKED);
	OK(key_unlink(key));
}

/* -- keys of servers --------------------------------------------------------------------------- */

static void test_server_keys(void **state)
{
	static const struct {
		const char *description;
		size_t len;
		int error;
	} cases[] = {
		{ "52:2", 8, 0 },	   { "52:2", 7, -EINVAL },
		{ "65535:2", 8, 0 },	   { "65536:2", 8, -EINVAL },
		{ "52:0", 8, -EINVAL },	   { "52:256", 8, -EINVAL },
		{ "52", 8, -EINVAL },	   { "x:2", 8, -EINVAL },
		{ "52:2x", 8, -EINVAL },   { "52:3", 8, -ENOPKG },
		{ "52:6:1:17", 16, 0 },	   { "52:6:1:17", 15, -EKEYREJECTED },
		{ "52:6:1:18", 32, 0 },	   { "52:6:1:1", 16, -ENOPKG },
		{ "52:6:1", 16, -EINVAL }, { "52:6", 16, -EINVAL },
	};
	char key[32] = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < SUITE_LEN(cases); i++) {
		long r = key_add("rxrpc_s", cases[i].description, key, cases[i].len, -2);

		if (cases[i].error)
			CHECK_INT(r, cases[i].error);
		else
			OK(key_unlink((int32_t)OK(r)));
	}
}

/* -- options ----------------------------------------------------------------------------------- */

static int set(int fd, int name, const char *value, socklen_t len)
{
	return rx_setsockopt(fd, SOL_RXRPC, name, value, len) < 0 ? -errno : 0;
}

static void test_key_option(void **state)
{
	int32_t key = (int32_t)OK(key_add("rxrpc", "afs@one", NULL, 0, -2));
	static char long_name[5000];
	int fd = client_new();

	(void)state;
	memset(long_name, 'x', sizeof(long_name));
	CHECK_INT(set(fd, RXRPC_SECURITY_KEY, "afs@none", 8), -ENOKEY);
	CHECK_INT(set(fd, RXRPC_SECURITY_KEY, "", 0), -EINVAL);
	CHECK_INT(set(fd, RXRPC_SECURITY_KEY, long_name, 4096), -EINVAL);
	CHECK_INT(set(fd, RXRPC_SECURITY_KEY, long_name, 4095), -ENOKEY);
	OK(key_expire(key, 1));
	sleep(1);
	CHECK_INT(set(fd, RXRPC_SECURITY_KEY, "afs@one", 7), -ENOKEY);
	OK(key_expire(key, 0));
	OK(key_revoke(key));
	CHECK_INT(set(fd, RXRPC_SECURITY_KEY, "afs@one", 7), -EKEYREVOKED);
	key = (int32_t)OK(key_add("rxrpc", "afs@one", NULL, 0, -2));
	OK(set(fd, RXRPC_SECURITY_KEY, "afs@one", 8)); /* a counted NUL does no harm */
	CHECK_INT(set(fd, RXRPC_SECURITY_KEY, "afs@one", 7), -EINVAL);
	CHECK_INT(set(fd, RXRPC_SECURITY_KEYRING, "AFSkeys", 7), -ENOKEY);
	OK(key_add("keyring", "AFSkeys", NULL, 0, -2));
	OK(set(fd, RXRPC_SECURITY_KEYRING, "AFSkeys", 7));
	CHECK_INT(set(fd, RXRPC_SECURITY_KEYRING, "AFSkeys", 7), -EINVAL);
	OK(key_unlink(key));
	OK(rx_close(fd));
}

/* An empty key is none; one that went bad meanwhile is told when a call begins. */
static void test_calls_with_keys(void **state)
{
	static struct binary b;
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	int32_t key = (int32_t)OK(key_add("rxrpc", "afs@two", NULL, 0, -2));

	(void)state;
	OK(set(client, RXRPC_SECURITY_KEY, "afs@two", 7));
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	OK(key_expire(key, 1));
	sleep(1);
	CHECK_INT(tag_send(client, 2, "x", 1, &to, 0), -EKEYEXPIRED);
	OK(key_revoke(key));
	CHECK_INT(tag_send(client, 2, "x", 1, &to, 0), -EKEYREVOKED);
	OK(key_unlink(key));
	CHECK_INT(tag_send(client, 2, "x", 1, &to, 0), -ENOKEY);
	OK(rx_close(client));
	/* A security class that is not there. */
	client = client_new();
	b = binary_new();
	key = (int32_t)OK(add_token(&b, 29));
	OK(set(client, RXRPC_SECURITY_KEY, "afs@example.org", 15));
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), -ENOPKG);
	OK(key_unlink(key));
	OK(rx_close(client));
	OK(rx_close(server));
}

#ifndef AFRX_PLAIN
static void test_bad_keys(void **state)
{
	(void)state;
	FAILS(aph_rxrpc_add_key("user", "x", "x", 1, 0), ENODEV);
	FAILS(aph_rxrpc_add_key("rxrpc", NULL, "x", 1, 0), EFAULT);
	FAILS(aph_rxrpc_revoke_key(1), ENOKEY);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_binary_tokens), SUITE_TEST(test_xdr_tokens),
		SUITE_TEST(test_reading),	SUITE_TEST(test_server_keys),
		SUITE_TEST(test_key_option),	SUITE_TEST(test_calls_with_keys),
#ifndef AFRX_PLAIN
		SUITE_TEST(test_bad_keys),
#endif
	};

	return suite_run("af_rxrpc keys", tests, SUITE_LEN(tests), 60);
}
