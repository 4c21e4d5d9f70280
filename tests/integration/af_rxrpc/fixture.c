/* SPDX-License-Identifier: MIT */
#include "fixture.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/wait.h>

/* -- sending ----------------------------------------------------------------------------------- */

struct ctl ctl_none(void)
{
	return (struct ctl){ .len = 0 };
}

void ctl_put(struct ctl *ctl, int type, const void *data, size_t len)
{
	struct cmsghdr header = { .cmsg_len = CMSG_LEN(len),
				  .cmsg_level = SOL_RXRPC,
				  .cmsg_type = type };

	CHECK(ctl->len + CMSG_SPACE(len) <= sizeof(ctl->bytes));
	memcpy(ctl->bytes + ctl->len, &header, sizeof(header));
	if (len)
		memcpy(ctl->bytes + ctl->len + sizeof(header), data, len);
	ctl->len += CMSG_SPACE(len);
}

struct ctl ctl_tag(unsigned long tag)
{
	struct ctl ctl = ctl_none();

	ctl_put(&ctl, RXRPC_USER_CALL_ID, &tag, sizeof(tag));
	return ctl;
}

void ctl_abort(struct ctl *ctl, uint32_t code)
{
	ctl_put(ctl, RXRPC_ABORT, &code, sizeof(code));
}

ssize_t ctl_send(int fd, const struct ctl *ctl, const void *data, size_t len,
		 const struct sockaddr_rxrpc *to, int flags)
{
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr message = {
		.msg_name = (void *)(uintptr_t)to,
		.msg_namelen = to ? sizeof(*to) : 0,
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = ctl->len ? (void *)(uintptr_t)ctl->bytes : NULL,
		.msg_controllen = ctl->len,
	};
	ssize_t n = rx_sendmsg(fd, &message, flags);

	return n < 0 ? -errno : n;
}

ssize_t tag_send(int fd, unsigned long tag, const void *data, size_t len,
		 const struct sockaddr_rxrpc *to, int flags)
{
	struct ctl ctl = ctl_tag(tag);

	return ctl_send(fd, &ctl, data, len, to, flags);
}

ssize_t tag_command(int fd, unsigned long tag, int type)
{
	struct ctl ctl = ctl_tag(tag);

	ctl_put(&ctl, type, NULL, 0);
	return ctl_send(fd, &ctl, NULL, 0, NULL, 0);
}

ssize_t tag_abort(int fd, unsigned long tag, uint32_t code)
{
	struct ctl ctl = ctl_tag(tag);

	ctl_abort(&ctl, code);
	return ctl_send(fd, &ctl, NULL, 0, NULL, 0);
}

/* -- receiving --------------------------------------------------------------------------------- */

static void read_control(struct got *got, struct msghdr *message)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_RXRPC)
			continue;
		if (c->cmsg_type == RXRPC_USER_CALL_ID) {
			CHECK(!got->has_tag && got->type == 0);
			CHECK_INT(c->cmsg_len, CMSG_LEN(sizeof(got->tag)));
			got->has_tag = true;
			memcpy(&got->tag, CMSG_DATA(c), sizeof(got->tag));
			continue;
		}
		CHECK_INT(got->type, 0);
		got->type = c->cmsg_type;
		if (c->cmsg_len == CMSG_LEN(sizeof(got->code)))
			memcpy(&got->code, CMSG_DATA(c), sizeof(got->code));
		else
			CHECK_INT(c->cmsg_len, CMSG_LEN(0));
	}
}

void receive(int fd, struct got *got, size_t len, int flags)
{
	char control[256] __attribute__((aligned(16)));
	struct iovec iov = { got->data, len };
	struct msghdr message = {
		.msg_name = &got->from,
		.msg_namelen = sizeof(got->from),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};

	CHECK(len <= sizeof(got->data));
	memset(got, 0, offsetof(struct got, data));
	got->n = rx_recvmsg(fd, &message, flags);
	if (got->n < 0) {
		got->n = -errno;
		return;
	}
	got->flags = message.msg_flags;
	got->from_len = message.msg_namelen;
	got->control_len = message.msg_controllen;
	read_control(got, &message);
}

bool polls(int fd, short events, int ms)
{
	struct pollfd poller = { .fd = fd, .events = events };
	int n = poll(&poller, 1, ms);

	CHECK(n == 0 || !(poller.revents & (POLLERR | POLLHUP | POLLNVAL)));
	return n == 1 && (poller.revents & events) == events;
}

void receive_soon(int fd, struct got *got, size_t len, int flags)
{
	CHECK(polls(fd, POLLIN, check_hang_ms(5000)));
	receive(fd, got, len, flags);
}

/* As much as comes until the text is complete: a body may come in pieces. */
void expect_data(int fd, unsigned long tag, const char *text, int flags)
{
	static struct got got;
	size_t len = strlen(text), at = 0;

	do {
		receive_soon(fd, &got, sizeof(got.data), 0);
		CHECK(got.n >= 0);
		CHECK(got.has_tag && got.tag == tag);
		CHECK_INT(got.type, 0);
		CHECK(at + (size_t)got.n <= len);
		CHECK(memcmp(got.data, text + at, (size_t)got.n) == 0);
		at += (size_t)got.n;
	} while (at < len);
	CHECK_INT(got.flags & (MSG_MORE | MSG_EOR), flags);
}

void expect_note(int fd, struct got *got, unsigned long tag, int type)
{
	receive_soon(fd, got, sizeof(got->data), 0);
	CHECK_INT(got->n, 0);
	CHECK_INT(got->type, type);
	if (type == RXRPC_NEW_CALL) {
		CHECK(!got->has_tag);
		CHECK(!(got->flags & MSG_EOR));
		return;
	}
	CHECK(got->has_tag && got->tag == tag);
	CHECK_INT(got->flags & (MSG_MORE | MSG_EOR), MSG_EOR);
}

void expect_nothing(int fd)
{
	static struct got got;

	CHECK(!polls(fd, POLLIN, 50));
	receive(fd, &got, sizeof(got.data), MSG_DONTWAIT);
	CHECK_INT(got.n, -EAGAIN);
}

void reply_to(int server, unsigned long tag)
{
	static struct got got;

	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, tag, RXRPC_ACCEPT), 0);
	expect_data(server, tag, "x", 0);
	CHECK_INT(tag_send(server, tag, "y", 1, NULL, 0), 1);
}

void expect_ack(int server, unsigned long tag)
{
	static struct got got;

	expect_note(server, &got, tag, RXRPC_ACK);
}

/* -- sockets ----------------------------------------------------------------------------------- */

struct sockaddr_rxrpc loopback(uint16_t port, uint16_t service)
{
	struct sockaddr_rxrpc srx = {
		.srx_family = AF_RXRPC,
		.srx_service = service,
		.transport_type = SOCK_DGRAM,
		.transport_len = sizeof(struct sockaddr_in),
	};

	srx.transport.sin.sin_family = AF_INET;
	srx.transport.sin.sin_port = htons(port);
	srx.transport.sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return srx;
}

int bind_to(int fd, const struct sockaddr_rxrpc *address)
{
	return rx_bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
}

int connect_to(int fd, const struct sockaddr_rxrpc *address)
{
	return rx_connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
}

int client_new(void)
{
	int fd = (int)OK(rx_socket(AF_RXRPC, SOCK_DGRAM | SOCK_CLOEXEC, PF_INET));

#ifndef AFRX_PLAIN
	if (getenv("AFRX_SHARED"))
		OK(aph_rxrpc_share());
#endif
	return fd;
}

int server_new(struct sockaddr_rxrpc *address, int backlog)
{
	int fd = client_new();

	*address = loopback(port_free(AF_INET), SERVICE);
	OK(bind_to(fd, address));
	OK(rx_listen(fd, backlog));
	return fd;
}

/* -- processes --------------------------------------------------------------------------------- */

void finish(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) > 0);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void fork_once(void)
{
	pid_t pid = (pid_t)OK(fork());

	if (pid == 0)
		_exit(0);
	finish(pid);
}
