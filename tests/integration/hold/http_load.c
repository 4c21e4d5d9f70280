/* SPDX-License-Identifier: MIT */
/*
 * Asks an HTTP server for something, often, and counts what goes wrong.
 *
 *   http_load PORT REQUESTS THREADS
 *
 * Half of the threads make a connection for each request, half keep theirs while the server lets
 * them. A request has failed when its connection is refused, broken or silent before the whole
 * answer with status 200 was read. A kept connection that the server closes without a byte of an
 * answer is what HTTP allows between requests: that request is sent once more on a new one, and
 * counted as repeated.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define THREADS_MAX 64

static atomic_long left;
static atomic_long n_answered, n_failed, n_repeated, n_connections;
static struct sockaddr_in address;

struct connection {
	int fd; /* -1: none */
	bool used;
};

static int open_connection(struct connection *c)
{
	const struct timeval limit = { .tv_sec = 10 };

	c->used = false;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -1;
	(void)setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		perror("connect");
		return -1;
	}
	n_connections++;
	return 0;
}

static void close_connection(struct connection *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

/*
 * 1: answered. 0: closed without a byte. -1: anything else. `*stays`: the connection can be used
 * again.
 */
static int exchange(struct connection *c, bool keep, bool *stays)
{
	char request[128], answer[8192];
	size_t got = 0, head, body = 0;
	const char *end, *field;
	int n = snprintf(request, sizeof(request),
			 "GET / HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n",
			 keep ? "keep-alive" : "close");

	if (send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n)
		return 0;
	for (;;) {
		ssize_t more = recv(c->fd, answer + got, sizeof(answer) - 1 - got, 0);

		if (more <= 0)
			return got == 0 && (more == 0 || errno == ECONNRESET) ? 0 : -1;
		got += (size_t)more;
		answer[got] = '\0';
		end = strstr(answer, "\r\n\r\n");
		if (!end)
			continue;
		head = (size_t)(end - answer) + 4;
		field = strcasestr(answer, "\r\nContent-Length:");
		body = field && field < end ? strtoul(field + 17, NULL, 10) : 0;
		if (got >= head + body)
			break;
	}
	field = strcasestr(answer, "\r\nConnection: close");
	*stays = keep && !(field && field < end);
	return strncmp(answer, "HTTP/1.1 200", 12) == 0 ? 1 : -1;
}

static void ask_once(struct connection *c, bool keep)
{
	bool stays = false, was_used;
	int r;

	do {
		was_used = c->used;
		if (c->fd < 0 && open_connection(c) < 0) {
			n_failed++;
			close_connection(c);
			return;
		}
		was_used = c->used;
		r = exchange(c, keep, &stays);
		c->used = true;
		if (r <= 0 || !stays)
			close_connection(c);
		if (r == 0 && was_used)
			n_repeated++;
	} while (r == 0 && was_used);
	if (r == 1)
		n_answered++;
	else
		n_failed++;
}

static void *work(void *keep)
{
	struct connection c = { .fd = -1 };

	while (atomic_fetch_sub(&left, 1) > 0)
		ask_once(&c, keep != NULL);
	close_connection(&c);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS_MAX];
	int n = argc == 4 ? atoi(argv[3]) : 0;

	if (n < 1 || n > THREADS_MAX) {
		(void)fprintf(stderr, "usage: http_load PORT REQUESTS THREADS\n");
		return 2;
	}
	address.sin_family = AF_INET;
	address.sin_port = htons((uint16_t)atoi(argv[1]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	left = atol(argv[2]);
	for (long i = 0; i < n; i++) {
		if (pthread_create(&threads[i], NULL, work, i % 2 ? &left : NULL) != 0)
			return 2;
	}
	for (int i = 0; i < n; i++)
		(void)pthread_join(threads[i], NULL);
	printf("{\"answered\": %ld, \"failed\": %ld, \"repeated\": %ld, \"connections\": %ld}\n",
	       n_answered, n_failed, n_repeated, n_connections);
	return n_failed ? 1 : 0;
}
