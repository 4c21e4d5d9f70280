/* SPDX-License-Identifier: MIT */
/*
 * Remote addresses: `rx:HOST:PORT/SERVICE`, HOST a name, an IPv4 address or an IPv6 address in
 * brackets.
 */
#include "base/error.h"
#include "remote/remote.h"
#include "udp/udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXAMPLE "write rx:HOST:PORT/SERVICE, as in rx:127.0.0.1:7009/147 or rx:[::1]:7009/147"

static int parse_number(uint16_t *out, const char *text, uint16_t least, const char *what)
{
	char *end;
	unsigned long value;

	if (*text < '0' || *text > '9')
		return aph_err(-EINVAL, "'%s' is no %s: " EXAMPLE, text, what);
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || value < least || value > UINT16_MAX)
		return aph_err(-EINVAL, "'%s' is no %s: it is a number from %u to %d", text, what,
			       least, UINT16_MAX);
	*out = (uint16_t)value;
	return 0;
}

/*
 * Cuts the host off at the front: `[...]:` or up to the last colon. Returns what follows, NULL:
 * malformed.
 */
static char *split_host(char *text, char **host)
{
	char *end;

	*host = text;
	if (*text == '[') {
		*host = text + 1;
		end = strchr(text, ']');
		if (!end || end[1] != ':' || memchr(*host, '[', (size_t)(end - *host)))
			return NULL;
		*end = '\0';
		return end + 2;
	}
	end = strrchr(text, ':');
	if (!end || strchr(text, ':') != end)
		return NULL;
	*end = '\0';
	return end + 1;
}

/* An error of getaddrinfo(). */
static int not_found(const char *host, int r)
{
	int error = r == EAI_SYSTEM ? errno : r == EAI_MEMORY ? ENOMEM : ENOENT;
	const char *why = r == EAI_SYSTEM ? strerror(error) : gai_strerror(r);

	if (error != EMFILE && error != ENFILE && error != ENOMEM)
		error = ENOENT;
	return aph_err(-error, "cannot find the host '%s': %s", host, why);
}

static int resolve(struct aph_rx_address *out, const char *host, uint16_t port, bool passive)
{
	struct addrinfo hints = { .ai_socktype = SOCK_DGRAM,
				  .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0) };
	union aph_udp_name name = { .in6 = { .sin6_family = AF_UNSPEC } };
	struct addrinfo *found;
	char text[8];
	int r;

	(void)snprintf(text, sizeof(text), "%u", port);
	r = getaddrinfo(*host ? host : NULL, text, &hints, &found);
	if (r != 0)
		return not_found(host, r);
	memcpy(&name, found->ai_addr,
	       found->ai_addrlen < sizeof(name) ? found->ai_addrlen : sizeof(name));
	/*
	 * An IPv4 address that is written as one of IPv6 is an IPv4 address: that is where answers
	 * come from.
	 */
	aph_udp_from_name(&name, out);
	freeaddrinfo(found);
	return 0;
}

/* Every address of this machine: of both families, where it has both. */
static struct aph_rx_address any_address(uint16_t port)
{
	struct aph_rx_address any = { .in = { .sin_family = AF_INET, .sin_port = htons(port) } };
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 && errno == EAFNOSUPPORT)
		return any;
	if (fd >= 0)
		(void)close(fd);
	any.in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
	return any;
}

static bool is_loopback(const struct aph_rx_address *a)
{
	if (a->family == AF_INET)
		return ntohl(a->in.sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

int aph_remote_address_split(struct aph_remote_parts *out, const char *address, bool passive)
{
	char *port_text, *service_text;
	int r;

	*out = (struct aph_remote_parts){ .host = out->text };
	if (strlen(address) >= sizeof(out->text))
		return aph_err(-EINVAL, "the address is longer than %zu bytes",
			       sizeof(out->text) - 1);
	memcpy(out->text, address + 3, strlen(address + 3) + 1); /* behind "rx:" */
	service_text = strrchr(out->text, '/');
	if (!service_text)
		return aph_err(-EINVAL, "'%s' names no service: " EXAMPLE, address);
	*service_text++ = '\0';
	port_text = split_host(out->text, &out->host);
	if (!port_text)
		return aph_err(-EINVAL, "'%s' is not HOST:PORT: " EXAMPLE, out->text);
	r = parse_number(&out->service, service_text, 1, "service number");
	if (r == 0)
		r = parse_number(&out->port, port_text, passive ? 0 : 1, "port");
	if (r < 0)
		return r;
	if (!*out->host && !passive)
		return aph_err(-EINVAL, "'%s' names no host: " EXAMPLE, address);
	out->is_wildcard = strcmp(out->host, "*") == 0 || !*out->host;
	return out->is_wildcard && !passive ? aph_err(-EINVAL, "'*' is for services: name a host")
					    : 0;
}

int aph_remote_address_parse(struct aph_remote_address *out, const char *address, bool passive)
{
	struct aph_remote_parts parts;
	int r;

	*out = (struct aph_remote_address){ .service = 0 };
	r = aph_remote_address_split(&parts, address, passive);
	if (r < 0)
		return r;
	out->service = parts.service;
	out->is_wildcard = parts.is_wildcard;
	if (parts.is_wildcard) {
		out->address = any_address(parts.port);
		return 0;
	}
	r = resolve(&out->address, parts.host, parts.port, passive);
	if (r < 0)
		return r;
	out->is_loopback = is_loopback(&out->address);
	return 0;
}

void aph_remote_address_text(char out[APH_REMOTE_TEXT_MAX], const struct aph_rx_address *address)
{
	bool is_v6 = address->family == AF_INET6;
	socklen_t len = is_v6 ? sizeof(address->in6) : sizeof(address->in);
	char host[INET6_ADDRSTRLEN + IF_NAMESIZE] = "?", port[8] = "?";

	(void)getnameinfo(&address->any, len, host, sizeof(host), port, sizeof(port),
			  NI_NUMERICHOST | NI_NUMERICSERV | NI_DGRAM);
	(void)snprintf(out, APH_REMOTE_TEXT_MAX, is_v6 ? "[%s]:%s" : "%s:%s", host, port);
}
