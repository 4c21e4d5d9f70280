/* SPDX-License-Identifier: MIT */
#include "driver.h"

#include "port.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct aph_rx_udp *udp;
int peer;
struct aph_rx_path to_peer;
unsigned char run[PACKETS * PACKET];

struct aph_rx_address v4(uint32_t host, uint16_t port)
{
	return (struct aph_rx_address){ .in = { .sin_family = AF_INET,
						.sin_port = htons(port),
						.sin_addr.s_addr = htonl(host) } };
}

int plain_socket(struct aph_rx_address *address)
{
	int fd = socket(address->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct timeval patience = { .tv_sec = 2 };
	int size = 4 << 20;
	socklen_t len = address->family == AF_INET ? sizeof(address->in) : sizeof(address->in6);

	if (fd < 0 || bind(fd, &address->any, len) < 0) {
		close(fd);
		return -1;
	}
	assert_int_equal(getsockname(fd, &address->any, &len), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	return fd;
}

void open_driver(struct aph_rx_udp_options *options)
{
	struct aph_rx_udp_options defaults = { .size = sizeof(defaults) };

	options = options ? options : &defaults;
	options->size = sizeof(*options);
	assert_int_equal(aph_rx_udp_open(&udp, options), 0);
	to_peer = (struct aph_rx_path){ .remote = v4(INADDR_LOOPBACK, 0) };
	peer = plain_socket(&to_peer.remote);
	assert_true(peer >= 0);
	for (size_t i = 0; i < sizeof(run); i++)
		run[i] = (unsigned char)(i / PACKET + i);
}

void open_with(uint32_t flags)
{
	open_driver(&(struct aph_rx_udp_options){ .flags = flags });
}

void close_driver(void)
{
	udp = aph_rx_udp_close(udp);
	close(peer);
}

struct aph_rx_address driver_address(void)
{
	struct aph_rx_address address;

	assert_int_equal(aph_rx_udp_address(udp, &address), 0);
	return v4(INADDR_LOOPBACK,
		  ntohs(address.family == AF_INET ? address.in.sin_port : address.in6.sin6_port));
}

void send_from(int fd, const void *data, size_t len, uint16_t segment)
{
	struct aph_rx_address to = driver_address();

	port_send_run(fd, &to.in, data, len, segment);
}
