/* SPDX-License-Identifier: MIT */
/*
 * Sockets before any call: making, addresses, binding, connecting, listening, shutting down,
 * options.
 */
#include "fixture.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/uio.h>

static struct got got;

static int server_on(const struct sockaddr_rxrpc *address)
{
	int fd = client_new();

	OK(bind_to(fd, address));
	return fd;
}

static int option(int fd, int name, const void *value, socklen_t len)
{
	return rx_setsockopt(fd, SOL_RXRPC, name, value, len) < 0 ? -errno : 0;
}

/* -- socket ------------------------------------------------------------------------------------ */

static void test_socket(void **state)
{
	int fd;

	(void)state;
	FAILS(rx_socket(AF_RXRPC, SOCK_DGRAM, 0), EPROTONOSUPPORT);
	FAILS(rx_socket(AF_RXRPC, SOCK_DGRAM, PF_UNIX), EPROTONOSUPPORT);
	FAILS(rx_socket(AF_RXRPC, SOCK_STREAM, PF_INET), ESOCKTNOSUPPORT);
	fd = (int)OK(rx_socket(AF_RXRPC, SOCK_DGRAM, PF_INET6));
	CHECK_INT(OK(fcntl(fd, F_GETFD)), 0);
	CHECK_INT(OK(fcntl(fd, F_GETFL)) & O_NONBLOCK, 0);
	OK(rx_close(fd));
	fd = (int)OK(rx_socket(AF_RXRPC, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, PF_INET));
	CHECK_INT(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
	CHECK_INT(OK(fcntl(fd, F_GETFL)) & O_NONBLOCK, O_NONBLOCK);
	OK(rx_close(fd));
	FAILS(rx_close(fd), EBADF);
	FAILS(rx_listen(fd, 1), EBADF);
}

/* -- addresses, in the order of the checks ----------------------------------------------------- */

struct bad_address {
	uint16_t family, type, len, transport;
	socklen_t size;
	int error;
};

/* Each is right but for one thing, or for that and what is checked later. */
static const struct bad_address bad_addresses[] = {
	{ AF_RXRPC, SOCK_DGRAM, 16, AF_INET, 35, EINVAL },
	{ AF_INET, SOCK_STREAM, 1, AF_UNIX, 36, EAFNOSUPPORT },
	{ AF_RXRPC, SOCK_STREAM, 1, AF_UNIX, 36, ESOCKTNOSUPPORT },
	{ AF_RXRPC, SOCK_DGRAM, 1, AF_UNIX, 36, EINVAL },
	{ AF_RXRPC, SOCK_DGRAM, 29, AF_UNIX, 36, EINVAL },
	{ AF_RXRPC, SOCK_DGRAM, 0, AF_INET, 36, EINVAL },
	{ AF_RXRPC, SOCK_DGRAM, 16, AF_UNIX, 36, EAFNOSUPPORT },
	{ AF_RXRPC, SOCK_DGRAM, 28, AF_INET6, 36, EAFNOSUPPORT }, /* of an IPv4 socket */
	{ AF_RXRPC, SOCK_DGRAM, 15, AF_INET, 36, EINVAL },
};

static void test_bad_addresses(void **state)
{
	struct ctl ctl = ctl_tag(1);
	int fd = client_new();
	size_t i;

	(void)state;
	for (i = 0; i < SUITE_LEN(bad_addresses); i++) {
		const struct bad_address *bad = &bad_addresses[i];
		struct sockaddr_rxrpc srx = loopback(port_free(AF_INET), SERVICE);
		const struct sockaddr *address = (const struct sockaddr *)&srx;
		struct msghdr message = { .msg_name = &srx,
					  .msg_namelen = bad->size,
					  .msg_control = ctl.bytes,
					  .msg_controllen = ctl.len };

		srx.srx_family = bad->family;
		srx.transport_type = bad->type;
		srx.transport_len = bad->len;
		srx.transport.family = bad->transport;
		FAILS(rx_bind(fd, address, bad->size), bad->error);
		FAILS(rx_connect(fd, address, bad->size), bad->error);
		FAILS(rx_sendmsg(fd, &message, 0), bad->error);
	}
	FAILS(rx_bind(fd, (const struct sockaddr *)8, sizeof(struct sockaddr_rxrpc)), EFAULT);
	OK(rx_close(fd));
	fd = (int)OK(rx_socket(AF_RXRPC, SOCK_DGRAM, PF_INET6));
	{
		struct sockaddr_rxrpc srx = loopback(0, 0);

		srx.transport.family = AF_INET6;
		srx.transport_len = 27;
		CHECK_INT(bind_to(fd, &srx), -EINVAL);
	}
	OK(rx_close(fd));
}

/* -- bind -------------------------------------------------------------------------------------- */

static void test_bind(void **state)
{
	struct sockaddr_rxrpc address = loopback(port_free(AF_INET), SERVICE), other;
	int fd, fd2, udp;

	(void)state;
	fd = client_new();
	OK(bind_to(fd, &address));
	/* The same service, and another one: on the same endpoint. */
	fd2 = client_new();
	CHECK_INT(bind_to(fd2, &address), -EADDRINUSE);
	address.srx_service++;
	OK(bind_to(fd2, &address));
	OK(rx_close(fd2));
	/* A client shares it as well. */
	fd2 = client_new();
	address.srx_service = 0;
	OK(bind_to(fd2, &address));
	CHECK_INT(bind_to(fd2, &address), -EINVAL);
	OK(rx_close(fd2));
	/* A wildcard beside it does not. */
	fd2 = client_new();
	other = address;
	other.transport.sin.sin_addr.s_addr = htonl(INADDR_ANY);
	CHECK_INT(bind_to(fd2, &other), -EADDRINUSE);
	/*
	 * Another address of the same port is another endpoint; a bind that failed may be tried
	 * again.
	 */
	other.transport.sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
	OK(bind_to(fd2, &other));
	OK(rx_close(fd2));
	OK(rx_close(fd));
	/* Closing gives the address free, for anybody. */
	udp = (int)OK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	OK(bind(udp, (const struct sockaddr *)&address.transport.sin, sizeof(struct sockaddr_in)));
	fd = client_new();
	CHECK_INT(bind_to(fd, &address), -EADDRINUSE);
	OK(rx_close(fd));
	OK(close(udp));
}

static void test_second_bind(void **state)
{
	struct sockaddr_rxrpc address = loopback(port_free(AF_INET), SERVICE), other = address;
	uint16_t upgrade[2] = { SERVICE, SERVICE + 1 };
	int fd = server_on(&address);

	(void)state;
	CHECK_INT(option(fd, RXRPC_UPGRADEABLE_SERVICE, upgrade, 2), -EINVAL);
	CHECK_INT(option(fd, RXRPC_UPGRADEABLE_SERVICE, upgrade, 4), -EISCONN);
	CHECK_INT(bind_to(fd, &address), -EADDRINUSE);
	other.srx_service = 0;
	CHECK_INT(bind_to(fd, &other), -EINVAL);
	other = loopback(port_free(AF_INET), SERVICE + 1);
	CHECK_INT(bind_to(fd, &other), -EINVAL);
	address.srx_service = SERVICE + 1;
	OK(bind_to(fd, &address));
	address.srx_service = SERVICE + 2;
	CHECK_INT(bind_to(fd, &address), -EINVAL);
	/* Bound twice and not listening, nothing can be sent. */
	CHECK_INT(tag_send(fd, 1, "x", 1, &address, 0), -EINVAL);
	upgrade[1] = SERVICE;
	CHECK_INT(option(fd, RXRPC_UPGRADEABLE_SERVICE, upgrade, 4), -EINVAL);
	upgrade[1] = SERVICE + 2;
	CHECK_INT(option(fd, RXRPC_UPGRADEABLE_SERVICE, upgrade, 4), -EINVAL);
	upgrade[1] = SERVICE + 1;
	OK(option(fd, RXRPC_UPGRADEABLE_SERVICE, upgrade, 4));
	CHECK_INT(option(fd, RXRPC_UPGRADEABLE_SERVICE, upgrade, 4), -EINVAL);
	OK(rx_listen(fd, 5));
	CHECK_INT(option(fd, RXRPC_UPGRADEABLE_SERVICE, upgrade, 4), -EISCONN);
	OK(rx_close(fd));
}

/* Port 0 of one address is one endpoint in each process, as long as somebody has it. */
static void test_port_zero(void **state)
{
	struct sockaddr_rxrpc address = loopback(0, SERVICE);
	int fd, fd2;

	(void)state;
	fd = server_on(&address);
	fd2 = client_new();
	/* With sockets that share, each has a process of its own. */
	if (!getenv("AFRX_SHARED"))
		CHECK_INT(bind_to(fd2, &address), -EADDRINUSE);
	address.srx_service++;
	OK(bind_to(fd2, &address));
	OK(rx_close(fd));
	OK(rx_close(fd2));
}

static bool has_privileged_ports(void)
{
	FILE *file = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
	int first = 1024;

	if (!file)
		return true;
	CHECK_INT(fscanf(file, "%d", &first), 1);
	CHECK_INT(fclose(file), 0);
	return first > 1;
}

static void test_privileged_port(void **state)
{
	struct sockaddr_rxrpc address = loopback(1, SERVICE);
	bool is_root = geteuid() == 0;
	int fd;

	(void)state;
	if (!has_privileged_ports())
		suite_skip("this system lets everybody bind to every port");
	fd = client_new();
	if (is_root)
		OK(seteuid(65534));
	CHECK_INT(bind_to(fd, &address), -EACCES);
	if (is_root)
		OK(seteuid(0));
	OK(rx_close(fd));
}

/* -- listen, connect, shutdown ----------------------------------------------------------------- */

static void test_listen(void **state)
{
	struct sockaddr_rxrpc address = loopback(port_free(AF_INET), SERVICE), own = loopback(0, 0);
	int fd = client_new(), on = 1;
	socklen_t len = sizeof(on);

	(void)state;
	FAILS(rx_listen(fd, 1), EADDRNOTAVAIL);
	OK(connect_to(fd, &address));
	FAILS(rx_listen(fd, 1), EADDRNOTAVAIL);
	OK(rx_close(fd));
	fd = server_on(&own);
	FAILS(rx_listen(fd, 1), EBUSY);
	OK(rx_close(fd));
	fd = server_on(&address);
	OK(rx_listen(fd, 100)); /* as the documentation's example does */
	FAILS(rx_listen(fd, 1), EBUSY);
	OK(rx_getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len));
	CHECK_INT(on, 0);
	OK(rx_listen(fd, 0));
	FAILS(rx_listen(fd, 0), EBUSY);
	FAILS(rx_listen(fd, 5), EBUSY);
	OK(rx_close(fd));
	fd = server_on(&address);
	OK(rx_listen(fd, 0));
	CHECK_INT(tag_command(fd, 1, RXRPC_CHARGE_ACCEPT), -ENOBUFS);
	OK(rx_close(fd));
}

static void test_connect(void **state)
{
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE);
	int fd = client_new();

	(void)state;
	OK(connect_to(fd, &to));
	CHECK_INT(connect_to(fd, &to), -EISCONN);
	CHECK_INT(bind_to(fd, &to), -EINVAL);
	OK(rx_close(fd));
	fd = server_on(&to);
	CHECK_INT(connect_to(fd, &to), -EBUSY);
	OK(rx_close(fd));
	/* After an automatic bind it is allowed, and bind() is not. */
	fd = client_new();
	CHECK_INT(tag_send(fd, 1, "x", 1, NULL, 0), -EDESTADDRREQ);
	CHECK_INT(bind_to(fd, &to), -EINVAL);
	OK(connect_to(fd, &to));
	OK(rx_close(fd));
	fd = client_new();
	OK(rx_shutdown(fd, SHUT_RDWR));
	CHECK_INT(connect_to(fd, &to), -EBUSY);
	OK(rx_close(fd));
}

static void test_shutdown(void **state)
{
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new();

	(void)state;
	FAILS(rx_shutdown(server, SHUT_RD), EOPNOTSUPP);
	FAILS(rx_shutdown(server, SHUT_WR), EOPNOTSUPP);
	FAILS(rx_shutdown(server, 7), EOPNOTSUPP);
	OK(rx_shutdown(server, SHUT_RDWR));
	FAILS(rx_shutdown(server, SHUT_RDWR), ESHUTDOWN);
	CHECK_INT(tag_send(server, 1, "x", 1, &to, 0), -EINVAL);
	CHECK_INT(tag_command(server, 1, RXRPC_CHARGE_ACCEPT), -EINVAL);
	receive(server, &got, 10, 0);
	CHECK_INT(got.n, -EAGAIN);
	CHECK(!polls(server, POLLIN, 0));
	OK(rx_close(client));
	OK(rx_close(server));
}

#ifdef AFRX_PLAIN
/* What there is no function of the library for. */
static void test_other_calls(void **state)
{
	struct sockaddr_rxrpc to = loopback(port_free(AF_INET), SERVICE);
	socklen_t len = sizeof(to);
	int fd = client_new(), value = 0, pair[2], pipes[2];
	int null = (int)OK(open("/dev/null", O_RDWR | O_CLOEXEC));
	char byte = 0;

	(void)state;
	OK(pipe2(pipes, O_CLOEXEC));
	OK(connect_to(fd, &to));
	FAILS(getsockname(fd, (struct sockaddr *)&to, &len), EOPNOTSUPP);
	FAILS(getpeername(fd, (struct sockaddr *)&to, &len), EOPNOTSUPP);
	FAILS(accept(fd, NULL, NULL), EOPNOTSUPP);
	FAILS(accept4(fd, NULL, NULL, 0), EOPNOTSUPP);
	FAILS(socketpair(AF_RXRPC, SOCK_DGRAM, PF_INET, pair), EOPNOTSUPP);
	FAILS(ioctl(fd, FIONREAD, &value), EOPNOTSUPP);
	FAILS(ioctl(fd, 0x12345, &value), EOPNOTSUPP);
	value = 1;
	OK(ioctl(fd, FIONBIO, &value));
	CHECK(OK(fcntl(fd, F_GETFL)) & O_NONBLOCK);
	FAILS(write(fd, "x", 1), EINVAL);
	FAILS(send(fd, "x", 1, 0), EINVAL);
	CHECK_INT(read(fd, &byte, 0), 0);
	FAILS(read(fd, &byte, 1), EAGAIN);
	FAILS(recv(fd, &byte, 1, 0), EAGAIN);
	FAILS(sendfile(fd, null, NULL, 1), EOPNOTSUPP);
	FAILS(splice(fd, NULL, pipes[1], NULL, 1, 0), EOPNOTSUPP);
	FAILS(splice(pipes[0], NULL, fd, NULL, 1, 0), EOPNOTSUPP);
	/* What has nothing to do with these sockets goes through. */
	CHECK_INT(write(pipes[1], "ab", 2), 2);
	CHECK_INT(splice(pipes[0], NULL, null, NULL, 2, 0), 2);
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED);
	CHECK_INT(errno, ENODEV);
	CHECK(polls(fd, POLLOUT, 0)); /* nothing of it has got anywhere */
	OK(close(null));
	OK(close(pipes[0]));
	OK(close(pipes[1]));
	OK(close(fd));
}

/* What the kernel sees to before it asks a socket. There is a message, and it stays. */
static void test_odd_lengths(void **state)
{
	struct timespec no_time = { .tv_nsec = 1000000000 };
	struct iovec many[IOV_MAX + 1] = { { NULL, 0 } };
	struct mmsghdr messages[1] = { { .msg_len = 0 } };
	struct sockaddr_rxrpc to, from;
	struct msghdr message = { .msg_name = &from, .msg_namelen = UINT32_MAX };
	socklen_t len = UINT32_MAX;
	int server = server_new(&to, 5), client = client_new();
	struct iovec *volatile nowhere = (void *)8;
	volatile size_t huge = SIZE_MAX;
	volatile int negative = -1;
	char byte = 0, *volatile at = &byte; /* not to be checked by the compiler */

	(void)state;
	CHECK_INT(tag_send(client, 1, "x", 1, &to, 0), 1);
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	CHECK_INT(readv(server, NULL, 0), 0);
	CHECK_INT(readv(server, many, 1), 0);
	CHECK_INT(readv(server, many, IOV_MAX), 0);
	FAILS(readv(server, many, IOV_MAX + 1), EINVAL);
	FAILS(readv(server, many, negative), EINVAL);
	FAILS(readv(server, nowhere, 1), EFAULT);
	CHECK_INT(writev(server, NULL, 0), 0);
	CHECK_INT(writev(server, many, IOV_MAX), 0);
	FAILS(writev(server, many, IOV_MAX + 1), EINVAL);
	FAILS(read(server, at, huge), EFAULT);
	FAILS(write(server, at, huge), EFAULT);
	FAILS(recvfrom(server, at, 1, 0, (struct sockaddr *)&from, NULL), EFAULT);
	FAILS(recvfrom(server, at, 1, 0, (struct sockaddr *)&from, &len), EINVAL);
	FAILS(recvmsg(server, &message, 0), EINVAL);
	FAILS(recvmmsg(server, messages, 1, 0, &no_time), EINVAL);
	message = (struct msghdr){ .msg_iov = many, .msg_iovlen = IOV_MAX + 1 };
	FAILS(recvmsg(server, &message, 0), EMSGSIZE);
	FAILS(sendmsg(server, &message, 0), EMSGSIZE);
	/* Too much is cut to what can be taken. */
	CHECK_INT(recv(server, at, huge, MSG_PEEK), 0);
	message.msg_iovlen = 0;
	OK(recvmsg(server, &message, 0));
	FAILS(recv(server, at, huge, MSG_DONTWAIT), EAGAIN);
	OK(close(client));
	OK(close(server));
}
#endif

/* -- options ----------------------------------------------------------------------------------- */

static void test_flag_options(void **state)
{
	struct sockaddr_rxrpc address = loopback(port_free(AF_INET), SERVICE);
	uint32_t level = 2, bad = 3;
	int fd = client_new(), one = 1;

	(void)state;
	CHECK_INT(option(fd, RXRPC_EXCLUSIVE_CONNECTION, &one, sizeof(one)), -EINVAL);
	OK(option(fd, RXRPC_EXCLUSIVE_CONNECTION, NULL, 0));
	CHECK_INT(option(fd, RXRPC_MIN_SECURITY_LEVEL, &level, 2), -EINVAL);
	CHECK_INT(option(fd, RXRPC_MIN_SECURITY_LEVEL, &bad, 4), -EINVAL);
	CHECK_INT(option(fd, RXRPC_MIN_SECURITY_LEVEL, (void *)8, 4), -EFAULT);
	OK(option(fd, RXRPC_MIN_SECURITY_LEVEL, &level, 4));
	OK(option(fd, RXRPC_MIN_SECURITY_LEVEL, &level, 4));
	CHECK_INT(option(fd, 99, &one, sizeof(one)), -ENOPROTOOPT);
	OK(rx_setsockopt(fd, IPPROTO_IP, 1, &one, sizeof(one)));
	OK(bind_to(fd, &address));
	CHECK_INT(option(fd, RXRPC_EXCLUSIVE_CONNECTION, &one, sizeof(one)), -EINVAL);
	CHECK_INT(option(fd, RXRPC_EXCLUSIVE_CONNECTION, NULL, 0), -EISCONN);
	CHECK_INT(option(fd, RXRPC_MIN_SECURITY_LEVEL, &bad, 2), -EINVAL);
	CHECK_INT(option(fd, RXRPC_MIN_SECURITY_LEVEL, (void *)8, 4), -EISCONN);
	CHECK_INT(option(fd, RXRPC_SECURITY_KEY, "x", 0), -EISCONN);
	OK(rx_close(fd));
	fd = client_new();
	OK(connect_to(fd, &address));
	CHECK_INT(option(fd, RXRPC_EXCLUSIVE_CONNECTION, NULL, 0), -EISCONN);
	OK(rx_close(fd));
}

static void test_getting_options(void **state)
{
	int fd = client_new(), value = 0;
	socklen_t len = sizeof(value);

	(void)state;
	OK(rx_getsockopt(fd, SOL_RXRPC, RXRPC_SUPPORTED_CMSG, &value, &len));
	CHECK(value == RXRPC_CHARGE_ACCEPT && len == sizeof(value));
	len = 3;
	FAILS(rx_getsockopt(fd, SOL_RXRPC, RXRPC_SUPPORTED_CMSG, &value, &len), 525);
	len = sizeof(value);
	FAILS(rx_getsockopt(fd, SOL_RXRPC, RXRPC_MIN_SECURITY_LEVEL, &value, &len), EOPNOTSUPP);
	FAILS(rx_getsockopt(fd, IPPROTO_IP, 1, &value, &len), EOPNOTSUPP);
	OK(rx_getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len));
	CHECK_INT(value, SOCK_DGRAM);
	OK(rx_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &len));
	CHECK_INT(value, AF_RXRPC);
	OK(rx_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &len));
	CHECK_INT(value, PF_INET);
	OK(rx_close(fd));
}

static void test_general_options(void **state)
{
	struct timeval limit = { .tv_sec = 3 }, read = { 0 };
	int fd = client_new(), value = 50000;
	socklen_t len = sizeof(read);

	(void)state;
	OK(rx_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	OK(rx_getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &read, &len));
	CHECK_INT(read.tv_sec, 3);
	OK(rx_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, sizeof(value)));
	len = sizeof(value);
	OK(rx_getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, &len));
	CHECK_INT(value, 100000);
	value = 1;
	OK(rx_setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof(value)));
	OK(rx_close(fd));
}

/* SO_TIMESTAMP: with data, after the tag, and not with notifications. */
static void test_timestamp(void **state)
{
	char control[256] __attribute__((aligned(16)));
	struct msghdr message = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct sockaddr_rxrpc to;
	int server = server_new(&to, 5), client = client_new(), on = 1;
	struct timeval then, now;
	struct cmsghdr *c;

	(void)state;
	OK(rx_setsockopt(server, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)));
	CHECK_INT(tag_command(server, 11, RXRPC_CHARGE_ACCEPT), 0);
	CHECK_INT(tag_send(client, 1, "", 0, &to, 0), 0);
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	CHECK_INT(rx_recvmsg(server, &message, 0), 0);
	c = CMSG_FIRSTHDR(&message);
	CHECK(c && c->cmsg_level == SOL_RXRPC && c->cmsg_type == RXRPC_USER_CALL_ID);
	c = CMSG_NXTHDR(&message, c);
	CHECK(c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMP);
	memcpy(&then, CMSG_DATA(c), sizeof(then));
	OK(gettimeofday(&now, NULL));
	CHECK(now.tv_sec - then.tv_sec >= 0 && now.tv_sec - then.tv_sec < 60);
	CHECK_INT(tag_send(server, 11, "", 0, NULL, 0), 0);
	receive_soon(client, &got, 10, 0);
	CHECK(polls(server, POLLIN, check_hang_ms(5000)));
	message.msg_controllen = sizeof(control);
	CHECK_INT(rx_recvmsg(server, &message, 0), 0);
	CHECK_INT(message.msg_controllen, CMSG_SPACE(sizeof(long)) + CMSG_SPACE(0));
	OK(rx_close(client));
	OK(rx_close(server));
}

/* -- IPv6 -------------------------------------------------------------------------------------- */

static struct sockaddr_rxrpc loopback6(uint16_t port, uint16_t service)
{
	struct sockaddr_rxrpc srx = { .srx_family = AF_RXRPC,
				      .srx_service = service,
				      .transport_type = SOCK_DGRAM,
				      .transport_len = sizeof(struct sockaddr_in6) };

	srx.transport.sin6.sin6_family = AF_INET6;
	srx.transport.sin6.sin6_port = htons(port);
	srx.transport.sin6.sin6_addr = in6addr_loopback;
	return srx;
}

static void one_call(int client, int server, const struct sockaddr_rxrpc *to)
{
	CHECK_INT(tag_send(client, 1, "x", 1, to, 0), 1);
	expect_note(server, &got, 0, RXRPC_NEW_CALL);
	CHECK_INT(tag_command(server, 11, RXRPC_ACCEPT), 0);
	expect_data(server, 11, "x", 0);
	CHECK_INT(tag_send(server, 11, "y", 1, NULL, 0), 1);
	receive_soon(client, &got, 10, 0);
	CHECK(got.n == 1 && got.flags == MSG_EOR);
	CHECK(memcmp(&got.from, to, sizeof(*to)) == 0);
	expect_note(server, &got, 11, RXRPC_ACK);
}

/* A wildcard of IPv6 takes the port of IPv4 as well. */
static void test_both_wildcards(void **state)
{
	struct sockaddr_rxrpc four = loopback(port_free(AF_INET), SERVICE), six = four;
	int fd = client_new(), fd2;

	(void)state;
	four.transport.sin.sin_addr.s_addr = htonl(INADDR_ANY);
	OK(bind_to(fd, &four));
	memset(&six.transport, 0, sizeof(six.transport));
	six.transport_len = sizeof(struct sockaddr_in6);
	six.transport.sin6.sin6_family = AF_INET6;
	six.transport.sin6.sin6_port = four.transport.sin.sin_port;
	fd2 = (int)OK(rx_socket(AF_RXRPC, SOCK_DGRAM, PF_INET6));
	CHECK_INT(bind_to(fd2, &six), -EADDRINUSE);
	OK(rx_close(fd2));
	OK(rx_close(fd));
}

static void test_ipv6(void **state)
{
	struct sockaddr_rxrpc address = loopback6(port_free(AF_INET6), SERVICE), address4;
	int server = (int)OK(rx_socket(AF_RXRPC, SOCK_DGRAM, PF_INET6)), server4, client;
	int r = bind_to(server, &address);

	(void)state;
	if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT) {
		OK(rx_close(server));
		suite_skip("there is no IPv6 here");
	}
	CHECK_INT(r, 0);
	OK(rx_listen(server, 5));
	server4 = server_new(&address4, 5);
	client = (int)OK(rx_socket(AF_RXRPC, SOCK_DGRAM, PF_INET6));
	one_call(client, server, &address);
	one_call(client, server4, &address4); /* the same socket reaches both */
	OK(rx_close(client));
	OK(rx_close(server));
	OK(rx_close(server4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(test_socket),
		SUITE_TEST(test_bad_addresses),
		SUITE_TEST(test_bind),
		SUITE_TEST(test_second_bind),
		SUITE_TEST(test_port_zero),
		SUITE_TEST(test_privileged_port),
		SUITE_TEST(test_listen),
		SUITE_TEST(test_connect),
		SUITE_TEST(test_shutdown),
		SUITE_TEST(test_flag_options),
		SUITE_TEST(test_getting_options),
		SUITE_TEST(test_general_options),
		SUITE_TEST(test_timestamp),
		SUITE_TEST(test_ipv6),
		SUITE_TEST(test_both_wildcards),
#ifdef AFRX_PLAIN
		SUITE_TEST(test_other_calls),
		SUITE_TEST(test_odd_lengths),
#endif
	};

	return suite_run("af_rxrpc states", tests, SUITE_LEN(tests), 60);
}
