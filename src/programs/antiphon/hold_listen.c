/* SPDX-License-Identifier: MIT */
/*
 * Sockets that listen, for `antiphon hold store --listen`.
 */
#include "cli.h"
#include "hold.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int listen_unix(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(address.sun_path)) {
		cli_error("--listen %s: the path is too long", path);
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    listen(fd, SOMAXCONN) == 0)
		return fd;
	cli_error("--listen %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

static int listen_inet(const struct addrinfo *info)
{
	int one = 1, saved;
	int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC, info->ai_protocol);

	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
	    bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int hold_listen_at(const char *address)
{
	const struct addrinfo hints = {
		.ai_flags = AI_PASSIVE,
		.ai_socktype = SOCK_STREAM,
	};
	const char *colon = strrchr(address, ':'), *port = colon ? colon + 1 : address;
	struct addrinfo *found;
	char host[256];
	int fd = -1, r;

	if (address[0] == '/')
		return listen_unix(address);
	r = snprintf(host, sizeof(host), "%.*s", colon ? (int)(colon - address) : 0, address);
	/* [::1]:80 */
	if (host[0] == '[' && r < (int)sizeof(host) && host[r - 1] == ']') {
		memmove(host, host + 1, (size_t)r);
		host[r - 2] = '\0';
	}
	if (!cli_is_port(port)) {
		cli_error(
			"--listen %s: '%s' is no port: it is a number up to 65535, or the name of a service",
			address, port);
		return -1;
	}
	r = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
	if (r != 0) {
		cli_error("--listen %s: %s", address, cli_resolver_error(r));
		return -1;
	}
	for (const struct addrinfo *info = found; info && fd < 0; info = info->ai_next)
		fd = listen_inet(info);
	if (fd < 0)
		cli_error("--listen %s: %s", address, strerror(errno));
	freeaddrinfo(found);
	return fd;
}
