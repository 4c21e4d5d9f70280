/* SPDX-License-Identifier: MIT */
/* Control messages: what sendmsg() takes and refuses, what each does, how recvmsg() writes them. */
#include "fixture.h"

#include <sys/mman.h>

static struct got got;

static ssize_t send_one(int fd, int type, const void *data, size_t len,
			const struct sockaddr_rxrpc *to)
{
	struct ctl ctl = ctl_tag(1);

	ctl_put(&ctl, type, data, len);
	return ctl_send(fd, &ctl, "x", 1, to, MSG_MORE);
}

/* -- refused ----------------------------------------------------------------------------------- */

/* The right length of each, or -1: not to be sent. */
static const struct {
	int type;
	int len;
} lengths[] = {
	{ RXRPC_ABORT, 4 },
	{ RXRPC_ACK, -1 },
	{ RXRPC_NET_ERROR, -1 },
	{ RXRPC_BUSY, -1 },
	{ RXRPC_LOCAL_ERROR, -1 },
	{ RXRPC_NEW_CALL, -1 },
	{ RXRPC_ACCEPT, 0 },
	{ RXRPC_EXCLUSIVE_CALL, 0 },
	{ RXRPC_UPGRADE_SERVICE, 0 },
	{ RXRPC_TX_LENGTH, 8 },
	{ RXRPC_CHARGE_ACCEPT, 0 },
	{ 0, -1 },
	{ 4, -1 },
	{ 99, -1 },
};

static void test_lengths(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5);
	uint64_t ones[2] = { 1, 1 };
	size_t i, len;

	(void)state;
	for (i = 0; i < SUITE_LEN(lengths); i++)
		for (len = 0; len <= 16; len += 4)
			if ((int)len != lengths[i].len)
				CHECK_INT(send_one(server, lengths[i].type, ones, len, &to),
					  -EINVAL);
	for (len = 0; len <= 16; len++)
		if (len % 4 || len == 0 || len == 16)
			CHECK_INT(send_one(server, RXRPC_SET_CALL_TIMEOUT, ones, len, &to),
				  -EINVAL);
	OK(rx_close(server));
}

static void test_no_tag(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5);
	struct ctl ctl = ctl_none();

	(void)state;
	CHECK_INT(ctl_send(server, &ctl, "x", 1, &to, 0), -EINVAL);
	ctl_put(&ctl, RXRPC_EXCLUSIVE_CALL, NULL, 0);
	CHECK_INT(ctl_send(server, &ctl, "x", 1, &to, 0), -EINVAL);
	ctl = ctl_none();
	ctl_put(&ctl, RXRPC_USER_CALL_ID, "1234567", 7);
	CHECK_INT(ctl_send(server, &ctl, "x", 1, &to, 0), -EINVAL);
	OK(rx_close(server));
}

/* Programs that were written for 32 bits have tags of four bytes. */
static void test_short_tag(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct ctl ctl = ctl_none();
	uint32_t tag = 0xfffffffe;

	(void)state;
	ctl_put(&ctl, RXRPC_USER_CALL_ID, &tag, sizeof(tag));
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	expect_data(server, 11, "x", 0);
	CHECK_INT(tag_send(server, 11, "y", 1, NULL, 0), 1);
	expect_data(client, 0xfffffffe, "y", MSG_EOR);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_combinations(void **state)
{
	static const int commands[] = { RXRPC_ABORT, RXRPC_ACCEPT, RXRPC_CHARGE_ACCEPT };
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5);
	uint32_t code = 7;
	int64_t length = 0;
	size_t i, j;
	struct ctl ctl;

	(void)state;
	for (i = 0; i < 3; i++) {
		for (j = 0; j < 3; j++) {
			ctl = ctl_tag(1);
			ctl_put(&ctl, commands[i], &code, i ? 0 : 4);
			ctl_put(&ctl, commands[j], &code, j ? 0 : 4);
			CHECK_INT(ctl_send(server, &ctl, NULL, 0, NULL, 0), -EINVAL);
		}
		ctl = ctl_tag(1);
		ctl_put(&ctl, commands[i], &code, i ? 0 : 4);
		ctl_put(&ctl, RXRPC_TX_LENGTH, &length, sizeof(length));
		CHECK_INT(ctl_send(server, &ctl, NULL, 0, NULL, 0), -EINVAL);
	}
	for (i = RXRPC_EXCLUSIVE_CALL; i <= RXRPC_UPGRADE_SERVICE; i++) {
		ctl = ctl_tag(1);
		ctl_put(&ctl, (int)i, NULL, 0);
		ctl_put(&ctl, RXRPC_CHARGE_ACCEPT, NULL, 0);
		CHECK_INT(ctl_send(server, &ctl, NULL, 0, NULL, 0), -EINVAL);
	}
	ctl = ctl_tag(1);
	ctl_put(&ctl, RXRPC_CHARGE_ACCEPT, NULL, 0);
	ctl_put(&ctl, RXRPC_SET_CALL_TIMEOUT, &code, sizeof(code));
	CHECK_INT(ctl_send(server, &ctl, NULL, 0, NULL, 0), -EINVAL);
	ctl = ctl_tag(1);
	ctl_put(&ctl, RXRPC_TX_LENGTH, &length, sizeof(length));
	ctl_put(&ctl, RXRPC_TX_LENGTH, &length, sizeof(length));
	CHECK_INT(ctl_send(server, &ctl, NULL, 0, NULL, 0), -EINVAL);
	OK(rx_close(server));
}

static void test_values(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5);
	uint32_t times[3] = { 0, 0, 0 }, zero = 0;
	int64_t negative = -1;

	(void)state;
	CHECK_INT(send_one(server, RXRPC_ABORT, &zero, 4, &to), -EINVAL);
	CHECK_INT(send_one(server, RXRPC_TX_LENGTH, &negative, 8, &to), -EINVAL);
	times[0] = 8589935;
	CHECK_INT(send_one(server, RXRPC_SET_CALL_TIMEOUT, times, 4, &to), -ERANGE);
	times[0] = 8589934;
	times[1] = 3600001;
	CHECK_INT(send_one(server, RXRPC_SET_CALL_TIMEOUT, times, 8, &to), -ERANGE);
	times[1] = 0;
	times[2] = 3600001;
	CHECK_INT(send_one(server, RXRPC_SET_CALL_TIMEOUT, times, 12, &to), -ERANGE);
	OK(rx_close(server));
}

/* The tag may come last, and commands do not look at data. */
static void test_order(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	unsigned long tag = 11;
	uint32_t code = 7;
	struct ctl ctl;

	(void)state;
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	ctl = ctl_none();
	ctl_put(&ctl, RXRPC_ACCEPT, NULL, 0);
	ctl_put(&ctl, RXRPC_USER_CALL_ID, &tag, sizeof(tag));
	CHECK_INT(ctl_send(server, &ctl, "data", 4, NULL, MSG_MORE), 0);
	expect_data(server, 11, "x", 0);
	ctl = ctl_none();
	ctl_put(&ctl, RXRPC_ABORT, &code, sizeof(code));
	ctl_put(&ctl, RXRPC_USER_CALL_ID, &tag, sizeof(tag));
	CHECK_INT(ctl_send(server, &ctl, "data", 4, NULL, MSG_MORE), 0);
	expect_note(client, &got, 1, RXRPC_ABORT);
	CHECK_INT(got.code, 7);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* A header that is shorter than itself, or longer than what there is; other levels; a tail. */
static void test_malformed(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct cmsghdr *header;
	struct ctl ctl = ctl_tag(1);

	(void)state;
	header = (struct cmsghdr *)(void *)ctl.bytes;
	header->cmsg_len = 15;
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, 0), -EINVAL);
	header->cmsg_len = 25;
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, 0), -EINVAL);
	ctl = ctl_tag(1);
	ctl_put(&ctl, 99, "abcd", 4);
	header = (struct cmsghdr *)(void *)(ctl.bytes + CMSG_SPACE(sizeof(long)));
	header->cmsg_level = SOL_SOCKET; /* not ours: skipped */
	ctl.len += 8;			 /* too short for a header: ignored */
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, 0), 1);
	/* The last of two tags counts. */
	ctl = ctl_tag(1);
	ctl_put(&ctl, RXRPC_USER_CALL_ID, &(unsigned long){ 5 }, sizeof(long));
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, MSG_MORE), 1);
	CHECK_INT(tag_abort(client, 5, 1), 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_pointers(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct ctl ctl = ctl_tag(1);
	struct iovec iov = { (void *)8, 4 };
	struct msghdr message = { .msg_name = &to,
				  .msg_namelen = sizeof(to),
				  .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = (void *)8,
				  .msg_controllen = ctl.len };
	char text[8];

	(void)state;
	FAILS(rx_bind(client, (void *)8, sizeof(to)), EFAULT);
	/* Whatever the last error was. */
	FAILS(rx_bind(client, (void *)&message, 1), EINVAL);
	CHECK(rx_bind(client, NULL, sizeof(to)) < 0 && errno == EFAULT);
	FAILS(rx_sendmsg(client, &message, 0), EFAULT);
	message.msg_control = ctl.bytes;
	FAILS(rx_sendmsg(client, &message, 0), EFAULT);
	iov.iov_base = NULL;
	FAILS(rx_sendmsg(client, &message, 0), EFAULT);
	iov.iov_base = text;
	memcpy(text, "abcd", 4);
	message.msg_name = NULL;
	CHECK_INT(rx_sendmsg(client, &message, 0),
		  4); /* the call is there, and nothing of it was taken */
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	iov.iov_base = (void *)8;
	FAILS(rx_recvmsg(server, &message, 0), EFAULT);
	iov.iov_base = NULL;
	FAILS(rx_recvmsg(server, &message, 0), EFAULT);
	iov.iov_base = text;
	message.msg_control = (void *)8;
	FAILS(rx_recvmsg(server, &message, 0), EFAULT);
	message.msg_control = ctl.bytes;
	message.msg_name = (void *)8;
	FAILS(rx_recvmsg(server, &message, 0), EFAULT);
	expect_data(server, 11, "abcd", 0); /* nothing was lost */
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Bodies that begin and end with the only page there is, and those that go a byte beyond. */
static void test_page_ends(void **state)
{
	static const size_t sizes[] = { 1, 7, 8, 13, 512, 513, 4096 };
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct ctl ctl = ctl_tag(1);
	char *pages = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *begin = pages + page, *end = begin + page;

	(void)state;
	CHECK(pages != MAP_FAILED);
	OK(mprotect(begin, page, PROT_READ | PROT_WRITE));
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, MSG_MORE), 1);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		ssize_t n = (ssize_t)sizes[i];

		CHECK_INT(ctl_send(client, &ctl, begin - 1, sizes[i], NULL, MSG_MORE), -EFAULT);
		CHECK_INT(ctl_send(client, &ctl, begin, sizes[i], NULL, MSG_MORE), n);
		CHECK_INT(ctl_send(client, &ctl, end - n, sizes[i], NULL, MSG_MORE), n);
		CHECK_INT(ctl_send(client, &ctl, end - n + 1, sizes[i], NULL, MSG_MORE), -EFAULT);
	}
	CHECK_INT(tag_abort(client, 1, 1), 0);
	OK(munmap(pages, 3 * page));
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- ACCEPT and CHARGE_ACCEPT ------------------------------------------------------------------ */

static void test_accept(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	CHECK_INT(tag_command(client, 1, RXRPC_ACCEPT), -EISCONN);
	CHECK_INT(tag_command(server, 1, RXRPC_ACCEPT), -ENODATA);
	CHECK_INT(tag_send(client, 1, "a", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	CHECK_INT(tag_send(client, 2, "b", 1, &to, 0), 1);
	expect_data(server, 11, "a", 0);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), -EBADSLT); /* the waiting call is kept */
	CHECK_INT(tag_command(server, 12, RXRPC_ACCEPT), 0);
	expect_data(server, 12, "b", 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* A call that was aborted before it was accepted is not given to anybody. */
static void test_accept_of_a_dead_call(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	CHECK_INT(tag_send(client, 1, "a", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_abort(client, 1, 1), 0);
	CHECK_INT(tag_send(client, 2, "b", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 12, RXRPC_ACCEPT), 0);
	expect_data(server, 12, "b", 0);
	CHECK_INT(tag_command(server, 13, RXRPC_ACCEPT), -ENODATA);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_charge(void **state)
{
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE), bad = to;
	int server = client_new(), client = client_new();
	struct ctl ctl = ctl_tag(4);

	(void)state;
	OK(bind_to(server, &to));
	CHECK_INT(tag_command(server, 1, RXRPC_CHARGE_ACCEPT), -EINVAL);
	OK(rx_listen(server, 2));
	CHECK_INT(tag_command(server, 1, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_command(server, 1, RXRPC_CHARGE_ACCEPT), -EBADSLT);
	CHECK_INT(tag_send(server, 1, "x", 1, NULL, 0), -EBUSY);
	CHECK_INT(tag_abort(server, 1, 1), -EBUSY);
	CHECK_INT(tag_command(server, 2, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_command(server, 1, RXRPC_CHARGE_ACCEPT), -ENOBUFS); /* before the tag */
	CHECK_INT(tag_command(server, 3, RXRPC_CHARGE_ACCEPT), -ENOBUFS);
	CHECK_INT(tag_send(client, 1, "a", 1, &to, 0), 1);
	expect_data(server, 1, "a", 0);
	/* A live call does not count. */
	CHECK_INT(tag_command(server, 3, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_command(client, 9, RXRPC_CHARGE_ACCEPT), -EINVAL);
	/* An address is checked and not looked at, nor are data and MSG_MORE. */
	ctl_put(&ctl, RXRPC_CHARGE_ACCEPT, NULL, 0);
	bad.transport_type = SOCK_STREAM;
	CHECK_INT(ctl_send(server, &ctl, "abc", 3, &bad, MSG_MORE), -ESOCKTNOSUPPORT);
	CHECK_INT(tag_send(client, 2, "b", 1, &to, 0), 1);
	expect_data(server, 2, "b", 0);
	CHECK_INT(ctl_send(server, &ctl, "abc", 3, &to, MSG_MORE), 0);
	CHECK_INT(tag_send(client, 3, "c", 1, &to, 0), 1);
	expect_data(server, 3, "c", 0);
	CHECK_INT(tag_send(client, 4, "d", 1, &to, 0), 1);
	expect_data(server, 4, "d", 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- TX_LENGTH, SET_CALL_TIMEOUT, EXCLUSIVE_CALL, UPGRADE_SERVICE ------------------------------ */

static ssize_t send_length(int fd, unsigned long tag, int64_t total, size_t len, int flags,
			   const struct sockaddr_rxrpc *to)
{
	struct ctl ctl = ctl_tag(tag);

	ctl_put(&ctl, RXRPC_TX_LENGTH, &total, sizeof(total));
	return ctl_send(fd, &ctl, "0123456789", len, to, flags);
}

static void test_tx_length(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(send_length(client, 1, 5, 6, 0, &to), -EMSGSIZE);
	CHECK_INT(tag_send(client, 1, "012", 3, NULL, 0), -EMSGSIZE);
	CHECK_INT(tag_send(client, 1, "012", 3, NULL, MSG_MORE), 3);
	CHECK_INT(send_length(client, 1, 5, 2, 0, NULL), -EINVAL);
	CHECK_INT(tag_send(client, 1, "345", 3, NULL, 0), -EMSGSIZE);
	CHECK_INT(tag_send(client, 1, "34", 2, NULL, MSG_MORE), 2);
	CHECK_INT(tag_send(client, 1, NULL, 0, NULL, 0), 0);
	expect_data(server, 11, "01234", 0);
	CHECK_INT(send_length(server, 11, 2, 2, 0, NULL), 2);
	expect_data(client, 1, "01", MSG_EOR);
	CHECK_INT(tag_send(client, 2, "0", 1, &to, MSG_MORE), 1);
	CHECK_INT(send_length(client, 2, 5, 4, 0, NULL), -EINVAL); /* late */
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_hard_timeout(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	uint32_t times[2] = { 1, 0 };
	struct ctl ctl = ctl_tag(1);

	(void)state;
	ctl_put(&ctl, RXRPC_SET_CALL_TIMEOUT, times, 8);
	ctl_put(&ctl, RXRPC_SET_CALL_TIMEOUT, times, 8);
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, 0), 1);
	expect_note(client, &got, 1, RXRPC_ABORT);
	CHECK_INT(got.code, (uint32_t)RX_CALL_TIMEOUT);
	/* And on a call that exists. */
	CHECK_INT(tag_send(client, 2, "x", 1, &to, MSG_MORE), 1);
	ctl = ctl_tag(2);
	ctl_put(&ctl, RXRPC_SET_CALL_TIMEOUT, times, 4);
	CHECK_INT(ctl_send(client, &ctl, "x", 1, NULL, 0), 1);
	expect_note(client, &got, 2, RXRPC_ABORT);
	CHECK_INT(got.code, (uint32_t)RX_CALL_TIMEOUT);
	OK(rx_close(client));
	OK(rx_close(server));
}

/*
 * The other two limits: no data from anybody, and no packet at all, from a peer that has only an
 * address.
 */
static void test_silence(void **state)
{
	struct sockaddr_rxrpc to, nobody = loopback(port_free(AF_INET), SERVICE);
	int udp = (int)OK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	int server = server_new(&to, 5), client = client_new();
	uint32_t times[3] = { 0, 300, 0 };
	struct ctl ctl = ctl_tag(1);

	(void)state;
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	ctl_put(&ctl, RXRPC_SET_CALL_TIMEOUT, times, 8);
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, 0), 1);
	expect_data(server, 11, "x", 0);
	expect_note(client, &got, 1, RXRPC_ABORT);
	CHECK_INT(got.code, (uint32_t)RX_CALL_TIMEOUT);
	OK(bind(udp, (const struct sockaddr *)&nobody.transport.sin, sizeof(struct sockaddr_in)));
	times[1] = 0;
	times[2] = 300;
	ctl = ctl_tag(2);
	ctl_put(&ctl, RXRPC_SET_CALL_TIMEOUT, times, 12);
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &nobody, 0), 1);
	expect_note(client, &got, 2, RXRPC_ABORT);
	CHECK_INT(got.code, (uint32_t)RX_CALL_TIMEOUT);
	OK(close(udp));
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Sixteen calls go to one service of a peer at a time; an exclusive one is outside of that. */
static void test_channels(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	unsigned long tag;
	struct ctl ctl;

	(void)state;
	for (tag = 1; tag <= 16; tag++)
		CHECK_INT(tag_send(client, tag, "x", 1, &to, MSG_MORE | MSG_DONTWAIT), 1);
	CHECK_INT(tag_send(client, 17, "x", 1, &to, MSG_MORE | MSG_DONTWAIT), -EAGAIN);
	CHECK_INT(tag_abort(client, 17, 1), -EBADSLT); /* and no tag */
	ctl = ctl_tag(18);
	ctl_put(&ctl, RXRPC_EXCLUSIVE_CALL, NULL, 0);
	ctl_put(&ctl, RXRPC_EXCLUSIVE_CALL, NULL, 0);
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, MSG_MORE | MSG_DONTWAIT), 1);
	CHECK_INT(tag_abort(client, 1, 1), 0);
	CHECK_INT(tag_send(client, 17, "x", 1, &to, MSG_MORE), 1);
	/* On a call that exists these are ignored. */
	ctl = ctl_tag(17);
	ctl_put(&ctl, RXRPC_EXCLUSIVE_CALL, NULL, 0);
	ctl_put(&ctl, RXRPC_UPGRADE_SERVICE, NULL, 0);
	CHECK_INT(ctl_send(client, &ctl, "x", 1, NULL, MSG_MORE), 1);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* Each call of such a socket has a connection of its own, and so there is always a channel. */
static void test_exclusive_connection(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	unsigned long tag;

	(void)state;
	OK(rx_setsockopt(client, SOL_RXRPC, RXRPC_EXCLUSIVE_CONNECTION, NULL, 0));
	for (tag = 1; tag <= 20; tag++)
		CHECK_INT(tag_send(client, tag, "x", 1, &to, MSG_MORE | MSG_DONTWAIT), 1);
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_upgrade(void **state)
{
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE), better = to;
	uint16_t rule[2] = { SERVICE, SERVICE + 1 };
	int server = client_new(), client = client_new();
	struct ctl ctl = ctl_tag(1);

	(void)state;
	OK(bind_to(server, &to));
	better.srx_service = SERVICE + 1;
	OK(bind_to(server, &better));
	OK(rx_setsockopt(server, SOL_RXRPC, RXRPC_UPGRADEABLE_SERVICE, rule, sizeof(rule)));
	OK(rx_listen(server, 5));
	ctl_put(&ctl, RXRPC_UPGRADE_SERVICE, NULL, 0);
	CHECK_INT(ctl_send(client, &ctl, "x", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	receive_soon(server, &got, 10, 0);
	CHECK_INT(got.from.srx_service, SERVICE + 1);
	CHECK_INT(tag_send(server, 11, "y", 1, NULL, 0), 1);
	receive_soon(client, &got, 10, 0);
	CHECK_INT(got.flags, MSG_EOR);
	CHECK_INT(got.from.srx_service, SERVICE + 1);
	expect_note(server, &got, 11, RXRPC_ACK);
	/* Listening with two services, it can call as others can. */
	CHECK_INT(tag_send(server, 2, "x", 1, &to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- writing them ------------------------------------------------------------------------------ */

/*
 * A control buffer that is too short: MSG_CTRUNC, a message cut in its data, and the end is taken
 * all the same.
 */
static void test_truncated_control(void **state)
{
	char control[64] __attribute__((aligned(16)));
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct msghdr message = { .msg_control = control };
	struct cmsghdr header;

	(void)state;
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(client, 1, "", 0, &to, 0), 0);
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	message.msg_controllen = sizeof(header) + 2;
	CHECK_INT(rx_recvmsg(server, &message, MSG_PEEK), 0);
	CHECK(message.msg_flags & MSG_CTRUNC);
	memcpy(&header, control, sizeof(header));
	CHECK_INT(header.cmsg_len, sizeof(header) + 2);
	CHECK_INT(message.msg_controllen, sizeof(header) + 2);
	message.msg_controllen = sizeof(header) - 1;
	CHECK_INT(rx_recvmsg(server, &message, 0), 0);
	CHECK(message.msg_flags & MSG_CTRUNC);
	CHECK_INT(message.msg_controllen, 0);
	CHECK_INT(tag_send(server, 11, "", 0, NULL, 0), 0);
	CHECK(polls(client, POLLIN, check_hang_ms(5000)));
	message.msg_control = NULL;
	message.msg_controllen = 0;
	CHECK_INT(rx_recvmsg(client, &message, 0), 0);
	CHECK_INT(message.msg_flags, MSG_EOR | MSG_CTRUNC);
	CHECK_INT(tag_abort(client, 1, 1), -EBADSLT); /* the tag is free */
	OK(rx_close(client));
	OK(rx_close(server));
}

static void test_short_name(void **state)
{
	char name[8] = { 0 };
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();
	struct msghdr message = { .msg_name = name, .msg_namelen = 4 };

	(void)state;
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(client, 1, "", 0, &to, 0), 0);
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	CHECK_INT(rx_recvmsg(server, &message, 0), 0);
	CHECK_INT(message.msg_namelen, sizeof(to));
	CHECK(name[0] == AF_RXRPC && name[4] == 0);
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- flags ------------------------------------------------------------------------------------- */

static void test_flags(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5);

	(void)state;
	CHECK_INT(tag_send(server, 1, "x", 1, &to, MSG_OOB), -EOPNOTSUPP);
	receive(server, &got, 10, MSG_OOB);
	CHECK_INT(got.n, -EOPNOTSUPP);
	receive(server, &got, 10, MSG_TRUNC);
	CHECK_INT(got.n, -EOPNOTSUPP);
	receive(server, &got, 10, MSG_ERRQUEUE | MSG_DONTWAIT);
	CHECK_INT(got.n, -EAGAIN);
	OK(rx_close(server));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_lengths),
		SUITE_TEST(test_no_tag),
		SUITE_TEST(test_short_tag),
		SUITE_TEST(test_silence),
		SUITE_TEST(test_combinations),
		SUITE_TEST(test_values),
		SUITE_TEST(test_order),
		SUITE_TEST(test_malformed),
		SUITE_TEST(test_pointers),
		SUITE_TEST(test_page_ends),
		SUITE_TEST(test_accept),
		SUITE_TEST(test_accept_of_a_dead_call),
		SUITE_TEST(test_charge),
		SUITE_TEST(test_tx_length),
		SUITE_TEST(test_hard_timeout),
		SUITE_TEST(test_channels),
		SUITE_TEST(test_exclusive_connection),
		SUITE_TEST(test_upgrade),
		SUITE_TEST(test_truncated_control),
		SUITE_TEST(test_short_name),
		SUITE_TEST(test_flags),
	};

	return suite_run("af_rxrpc control messages", tests, SUITE_LEN(tests), 60);
}
