/* SPDX-License-Identifier: MIT */
/*
 * Questions that need no call: VERSION and DEBUG packets over a plain UDP socket.
 */
#include "rx.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define FIRST_TRY_MS 500 /* each further try waits twice as long */

/* -- addresses --------------------------------------------------------------------------------- */

/* Splits in place. The port is NULL where there is none. */
static int split(char *text, char **host, char **port)
{
	char *colon = strrchr(text, ':');

	*host = text;
	*port = NULL;
	if (text[0] == '[') {
		char *end = strchr(text, ']');

		if (end == NULL || (end[1] != '\0' && end[1] != ':'))
			return -EINVAL;
		*end = '\0';
		*host = text + 1;
		if (end[1] == ':')
			*port = end + 2;
	} else if (colon != NULL && strchr(text, ':') == colon) {
		*colon = '\0';
		*port = colon + 1;
	}
	return **host == '\0' || (*port != NULL && **port == '\0') ? -EINVAL : 0;
}

int rx_resolve(const char *text, uint16_t port_default, struct aph_rx_address *out)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_DGRAM, .ai_flags = AI_ADDRCONFIG };
	struct addrinfo *found;
	char copy[300], number[8];
	char *host, *port;
	int r;

	if (strlen(text) >= sizeof(copy)) {
		cli_error("'%.20s...' is too long for the address of a host", text);
		return CLI_MISUSED;
	}
	memcpy(copy, text, strlen(text) + 1);
	if (split(copy, &host, &port) < 0) {
		cli_error("'%s' is not HOST, HOST:PORT or [ADDRESS]:PORT", text);
		return CLI_MISUSED;
	}
	if (port != NULL && !cli_is_port(port)) {
		cli_error("'%s' is no port: it is a number up to 65535, or the name of a service",
			  port);
		return CLI_MISUSED;
	}
	snprintf(number, sizeof(number), "%u", port_default);
	r = getaddrinfo(host, port != NULL ? port : number, &hints, &found);
	if (r != 0) {
		cli_error("cannot find '%s': %s", text, cli_resolver_error(r));
		return CLI_FAILED;
	}
	memset(out, 0, sizeof(*out));
	memcpy(&out->any, found->ai_addr,
	       found->ai_addrlen < sizeof(*out) ? found->ai_addrlen : sizeof(*out));
	freeaddrinfo(found);
	return CLI_OK;
}

const char *rx_address_text(char *text, size_t size, const struct aph_rx_address *address)
{
	socklen_t len = address->family == AF_INET ? sizeof(address->in) : sizeof(address->in6);
	char host[INET6_ADDRSTRLEN + 20], port[8];

	if (getnameinfo(&address->any, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(text, size, "?");
	else
		snprintf(text, size, address->family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	return text;
}

/* -- asking ------------------------------------------------------------------------------------ */

int rx_ask_open(struct rx_asked *asked, const struct aph_rx_address *address, uint64_t timeout_ms)
{
	socklen_t len = address->family == AF_INET ? sizeof(address->in) : sizeof(address->in6);
	char text[RX_ADDRESS_TEXT];
	int r;

	asked->timeout_ms = timeout_ms;
	/* Nobody who does not see our questions can know the number that an answer needs. */
	if (getrandom(&asked->id, sizeof(asked->id), 0) != sizeof(asked->id))
		asked->id = (uint32_t)aph_time_ns();
	asked->fd = socket(address->family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (asked->fd >= 0 && connect(asked->fd, &address->any, len) == 0)
		return 0;
	r = -errno;
	cli_error("cannot ask %s: %s", rx_address_text(text, sizeof(text), address), strerror(-r));
	rx_ask_close(asked);
	return r;
}

void rx_ask_close(struct rx_asked *asked)
{
	if (asked->fd >= 0)
		close(asked->fd);
	asked->fd = -1;
}

int rx_ask_once(struct rx_asked *asked, enum aph_rx_query query, uint32_t index,
		uint64_t deadline_ns, struct aph_rx_answer *answer)
{
	uint8_t packet[APH_RX_ANSWER_SIZE_MAX];
	struct pollfd pollfd = { .fd = asked->fd, .events = POLLIN };
	size_t len = aph_rx_query_encode(packet, query, index, ++asked->id);
	ssize_t n;

	if (send(asked->fd, packet, len, 0) < 0)
		return -errno;
	for (;;) {
		uint64_t now_ns = aph_time_ns();
		uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
		const struct timespec left = {
			.tv_sec = (time_t)(left_ns / 1000000000),
			.tv_nsec = (long)(left_ns % 1000000000),
		};

		if (ppoll(&pollfd, 1, &left, NULL) < 0)
			return -errno;
		n = recv(asked->fd, packet, sizeof(packet), 0);
		if (n >= 0 &&
		    aph_rx_answer_decode(answer, packet, (size_t)n, query, asked->id) == 0)
			return 0;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n < 0 && left_ns == 0)
			return -ETIMEDOUT;
	}
}

int rx_ask(struct rx_asked *asked, enum aph_rx_query query, uint32_t index,
	   struct aph_rx_answer *answer)
{
	uint64_t end_ns = aph_deadline_ms(asked->timeout_ms);
	uint64_t wait_ms = FIRST_TRY_MS;
	int r;

	do {
		uint64_t try_ns = aph_deadline_ms(wait_ms);

		r = rx_ask_once(asked, query, index, try_ns < end_ns ? try_ns : end_ns, answer);
		wait_ms *= 2;
	} while (r == -ETIMEDOUT && aph_time_ns() < end_ns);
	if (r == -ECONNREFUSED)
		cli_error("nothing listens at that port");
	else if (r == -ETIMEDOUT)
		cli_error("no answer");
	else if (r < 0)
		cli_error("cannot ask: %s", strerror(-r));
	return r;
}
