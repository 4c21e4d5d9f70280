/* SPDX-License-Identifier: MIT */
/*
 * This project's engine and UDP driver, used directly: blocking calls of one thread or of many,
 * calls in flight on one endpoint, bulk in one call, idle connections. As "antiphon:block" it never
 * spins, as "antiphon:plain" it does without UDP_SEGMENT and UDP_GRO.
 *
 * Threads share the driver as its users do: one leads and receives for all, the others wait for the
 * leader to tell them that their call is over, or that it is their turn to lead.
 */
#include "harness.h"

#include <antiphon/rx.h>

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK	    (256 * 1024)
#define THREADS_MAX 16
#define PATIENCE_S  20 /* without an event: something is broken */
#define SETTLE_MS   100

static struct aph_rx_udp *udp;
static struct aph_rx *rx;
static struct aph_rx_client *client;
static struct aph_rx_path to_server;
static char buffer[CHUNK + 4];

static int start(const char *who, unsigned port, bool threads);

/* -- server ------------------------------------------------------------------------------------ */

/* How far a call has come. */
struct work {
	struct work *next; /* free ones */
	uint32_t words[6];
	size_t n_words; /* bytes of them */
	size_t in, out; /* bytes still to come, and to go with the cookie */
	bool has_request;
};

static struct work *spare;

static struct work *new_work(void)
{
	struct work *work = spare;

	if (work != NULL)
		spare = work->next;
	else
		work = malloc(sizeof(*work));
	if (work != NULL)
		memset(work, 0, sizeof(*work));
	return work;
}

/* How many bytes of words a request begins with, as far as that is known. */
static size_t words_of(const struct work *work)
{
	return work->n_words >= 8 && ntohl(work->words[1]) == RXB_RPC ? 24 : 20;
}

/*
 * Reads the words that a request begins with, and what else there is room for. True when they are
 * there.
 */
static bool read_words(struct aph_rx_call *call, struct work *work)
{
	while (work->n_words < words_of(work)) {
		ssize_t n = aph_rx_call_read(call, (char *)work->words + work->n_words,
					     sizeof(work->words) - work->n_words, 0);

		if (n <= 0)
			return false;
		work->n_words += (size_t)n;
	}
	switch (ntohl(work->words[1])) {
	case RXB_RPC:
		work->in = ntohl(work->words[4]);
		work->out = ntohl(work->words[5]) + 4;
		break;
	case RXB_SEND:
		work->in = ntohl(work->words[4]) - (work->n_words - words_of(work));
		work->out = 4;
		break;
	default:
		work->out = ntohl(work->words[4]) + 4;
	}
	work->has_request = true;
	return true;
}

static void write_reply(struct aph_rx_call *call, struct work *work)
{
	static const uint32_t cookie = RXB_COOKIE;

	while (work->out) {
		size_t len = work->out < CHUNK ? work->out : CHUNK;
		bool last = len == work->out;
		uint32_t word = htonl(cookie);
		ssize_t n;

		/* The cookie is the end of the last piece, however little of it is left. */
		memset(buffer, 0, 4);
		if (last && len >= 4)
			memcpy(buffer + len - 4, &word, 4);
		else if (last)
			memcpy(buffer, (char *)&word + 4 - len, len);
		n = aph_rx_call_write(call, buffer, len, last ? 0 : APH_RX_MORE);
		if (last && len > 4)
			memset(buffer + len - 4, 0, 4);
		if (n <= 0)
			return;
		work->out -= (size_t)n;
	}
}

static void serve_more(struct aph_rx_call *call, struct work *work)
{
	if (!work->has_request && !read_words(call, work))
		return;
	while (work->in) {
		ssize_t n = aph_rx_call_read(call, buffer, work->in < CHUNK ? work->in : CHUNK, 0);

		if (n <= 0)
			return;
		work->in -= (size_t)n;
	}
	if (aph_rx_call_is_complete(call))
		write_reply(call, work);
}

static void handle(struct aph_rx_event *event)
{
	struct work *work = event->data;

	switch (event->type) {
	case APH_RX_EVENT_CALL:
		work = new_work();
		if (work == NULL) {
			aph_rx_call_free(event->call);
			break;
		}
		aph_rx_call_set_data(event->call, work);
		serve_more(event->call, work);
		break;
	case APH_RX_EVENT_READABLE:
	case APH_RX_EVENT_WRITABLE:
		serve_more(event->call, work);
		break;
	default:
		aph_rx_call_free(event->call);
		work->next = spare;
		spare = work;
	}
}

static int serve(const char *who, const char *name)
{
	struct aph_rx_service *service;
	struct aph_rx_address address;
	struct aph_rx_event event;

	(void)name;
	if (start(who, 0, false) < 0 || aph_rx_service_add(&service, rx, RXB_SERVICE, NULL) < 0 ||
	    aph_rx_udp_address(udp, &address) < 0)
		return -1;
	rxb_ready(ntohs(address.in.sin_port));
	while (aph_rx_udp_wait(udp, APH_FOREVER) == 0)
		while (aph_rx_next(rx, &event))
			handle(&event);
	return -1;
}

/* -- leader and followers ---------------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* A thread that waits for its call. */
struct waiter {
	sem_t wake;
	bool waits, done;
	_Atomic bool is_told; /* that it is done */
	int r;
};

static struct waiter waiters[THREADS_MAX];
static unsigned n_done; /* those who have not been told */
static bool is_led;
static bool has_threads;

static void lock(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&mutex);
}

/* Whoever is woken up finds the mutex free. */
static void unlock(void *arg)
{
	struct waiter *told[THREADS_MAX];
	unsigned n = 0;

	(void)arg;
	for (size_t i = 0; n_done && i < THREADS_MAX; i++) {
		if (!waiters[i].done || waiters[i].is_told)
			continue;
		waiters[i].is_told = true;
		told[n++] = &waiters[i];
		n_done--;
	}
	pthread_mutex_unlock(&mutex);
	for (unsigned i = 0; i < n; i++)
		sem_post(&told[i]->wake);
}

/* -- client ------------------------------------------------------------------------------------ */

static int start(const char *who, unsigned port, bool threads)
{
	struct aph_rx_config config = { .size = sizeof(config), .peers_max = 4096 };
	struct aph_rx_udp_options options = { .size = sizeof(options), .config = &config };

	options.local.in = (struct sockaddr_in){ .sin_family = AF_INET,
						 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	config.peer_memory_max = 1u << 30; /* all are of one peer here */
	if (strcmp(who, "antiphon:block") == 0)
		options.spin_max_us = UINT32_MAX;
	if (strcmp(who, "antiphon:plain") == 0)
		options.flags = APH_RX_UDP_NO_SEGMENT | APH_RX_UDP_NO_GRO;
	if (threads) {
		options.lock = lock;
		options.unlock = unlock;
	}
	if (aph_rx_udp_open(&udp, &options) < 0)
		return -1;
	rx = aph_rx_udp_engine(udp);
	to_server.remote.in = (struct sockaddr_in){ .sin_family = AF_INET,
						    .sin_port = htons((uint16_t)port),
						    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	return 0;
}

static int open_client(const char *who, const char *name, unsigned port)
{
	has_threads = strcmp(name, "threads16") == 0;
	if (start(who, port, has_threads) < 0)
		return -1;
	for (size_t i = 0; i < THREADS_MAX; i++)
		sem_init(&waiters[i].wake, 0, 0);
	return aph_rx_client_new(&client, rx, &to_server, RXB_SERVICE, NULL);
}

/* Begins a small call. */
static int begin(struct aph_rx_client *to, void *data)
{
	struct aph_rx_call_options options = { .size = sizeof(options), .data = data };
	struct aph_rx_call *call;
	char request[24 + RXB_SMALL] = { 0 };

	rxb_request(request, RXB_RPC, RXB_SMALL, RXB_SMALL);
	if (aph_rx_call_new(&call, to, &options) < 0)
		return -1;
	return aph_rx_call_write(call, request, sizeof(request), 0) == sizeof(request) ? 0 : -1;
}

/* The call has ended: whether it went well. */
static int finish(const struct aph_rx_event *event)
{
	char reply[RXB_SMALL + 4];
	uint32_t word = htonl(RXB_COOKIE);
	int r = -1;

	if (event->end.outcome == APH_RX_DONE &&
	    aph_rx_call_read(event->call, reply, sizeof(reply), 0) == sizeof(reply) &&
	    memcmp(reply + RXB_SMALL, &word, 4) == 0)
		r = 0;
	else
		fprintf(stderr, "antiphon: outcome %d code %d\n", (int)event->end.outcome,
			event->end.code);
	aph_rx_call_free(event->call);
	return r;
}

static int wait_for_event(void)
{
	int r = aph_rx_udp_wait(udp, aph_rx_udp_now() + PATIENCE_S * UINT64_C(1000000000));

	if (r < 0)
		fprintf(stderr, "antiphon: %s\n", strerror(-r));
	return r;
}

static int call_alone(void)
{
	struct aph_rx_event event;

	if (begin(client, NULL) < 0)
		return -1;
	for (;;) {
		if (wait_for_event() < 0)
			return -1;
		while (aph_rx_next(rx, &event))
			if (event.type == APH_RX_EVENT_END)
				return finish(&event);
	}
}

/* Receives for all until the own call is over; then somebody else leads. */
static void lead(struct waiter *own)
{
	struct aph_rx_event event;

	is_led = true;
	while (!own->done) {
		if (wait_for_event() < 0) {
			own->done = own->is_told = true;
			own->r = -1;
		}
		while (aph_rx_next(rx, &event)) {
			struct waiter *waiter = event.data;

			if (event.type != APH_RX_EVENT_END)
				continue;
			waiter->r = finish(&event);
			waiter->done = true;
			waiter->is_told = waiter == own;
			n_done += waiter != own;
		}
	}
	is_led = false;
}

/* Somebody else is to lead. */
static struct waiter *next_leader(void)
{
	for (size_t i = 0; !is_led && i < THREADS_MAX; i++)
		if (waiters[i].waits && !waiters[i].done)
			return &waiters[i];
	return NULL;
}

static int call_shared(unsigned thread)
{
	struct waiter *own = &waiters[thread], *next;

	pthread_mutex_lock(&mutex);
	own->done = own->is_told = false;
	own->r = begin(client, own);
	if (own->r < 0) {
		unlock(NULL);
		return -1;
	}
	if (is_led)
		aph_rx_udp_flush(udp);
	own->waits = true;
	while (is_led) {
		/*
		 * Either the call is over, and then nobody touches it any more, or it is this one's
		 * turn to lead.
		 */
		unlock(NULL);
		sem_wait(&own->wake);
		if (own->is_told)
			return own->r;
		pthread_mutex_lock(&mutex);
	}
	lead(own);
	own->waits = false;
	next = next_leader();
	unlock(NULL);
	if (next)
		sem_post(&next->wake);
	return own->r;
}

static int call_once(unsigned thread)
{
	return has_threads ? call_shared(thread) : call_alone();
}

static int flight(unsigned depth, uint64_t end_ns, uint64_t *n_calls)
{
	struct aph_rx_event event;
	unsigned n = 0;

	*n_calls = 0;
	for (; n < depth; n++)
		if (begin(client, NULL) < 0)
			return -1;
	while (n > 0) {
		bool more;

		if (wait_for_event() < 0)
			return -1;
		more = rxb_now_ns() < end_ns;
		while (aph_rx_next(rx, &event)) {
			if (event.type != APH_RX_EVENT_END)
				continue;
			if (finish(&event) < 0)
				return -1;
			++*n_calls;
			n--;
			if (more && n < depth && begin(client, NULL) == 0)
				n++;
		}
	}
	return 0;
}

/* -- bulk -------------------------------------------------------------------------------------- */

struct transfer {
	char words[24];
	size_t n_words, words_len;
	size_t out, in;
};

static void move(struct aph_rx_call *call, struct transfer *t)
{
	while (t->n_words < t->words_len) {
		ssize_t n = aph_rx_call_write(call, t->words + t->n_words,
					      t->words_len - t->n_words, t->out ? APH_RX_MORE : 0);

		if (n <= 0)
			return;
		t->n_words += (size_t)n;
	}
	while (t->out) {
		size_t len = t->out < CHUNK ? t->out : CHUNK;
		ssize_t n = aph_rx_call_write(call, buffer, len, len < t->out ? APH_RX_MORE : 0);

		if (n <= 0)
			return;
		t->out -= (size_t)n;
	}
	while (t->in) {
		ssize_t n = aph_rx_call_read(call, buffer, t->in < CHUNK ? t->in : CHUNK, 0);

		if (n <= 0)
			return;
		t->in -= (size_t)n;
	}
}

static int bulk(bool up, size_t len)
{
	struct transfer t = { .out = up ? len : 0, .in = (up ? 0 : len) + 4 };
	struct aph_rx_event event;
	struct aph_rx_call *call;

	t.words_len = rxb_request(t.words, up ? RXB_SEND : RXB_RECV, t.out, up ? 0 : len);
	if (aph_rx_call_new(&call, client, NULL) < 0)
		return -1;
	move(call, &t);
	for (;;) {
		if (wait_for_event() < 0)
			return -1;
		while (aph_rx_next(rx, &event)) {
			move(call, &t);
			if (event.type != APH_RX_EVENT_END)
				continue;
			if (event.end.outcome != APH_RX_DONE)
				fprintf(stderr, "antiphon: outcome %d code %d\n",
					(int)event.end.outcome, event.end.code);
			aph_rx_call_free(call);
			return event.end.outcome == APH_RX_DONE && t.in == 0 ? 0 : -1;
		}
	}
}

/* Connections that have carried one call each, and stay. */
static int idle(unsigned n)
{
	struct aph_rx_event event;

	for (unsigned i = 0; i < n;) {
		unsigned batch = n - i < 64 ? n - i : 64, left = batch;

		for (unsigned k = 0; k < batch; k++) {
			struct aph_rx_client *one;

			if (aph_rx_client_new(&one, rx, &to_server, RXB_SERVICE, NULL) < 0 ||
			    begin(one, NULL) < 0)
				return -1;
		}
		while (left) {
			if (wait_for_event() < 0)
				return -1;
			while (aph_rx_next(rx, &event)) {
				if (event.type != APH_RX_EVENT_END)
					continue;
				if (finish(&event) < 0)
					return -1;
				left--;
			}
		}
		i += batch;
	}
	/* Until the receipts of the last ones have left, they are not idle. */
	return aph_rx_udp_wait(udp, aph_rx_udp_now() + SETTLE_MS * UINT64_C(1000000)) == -ETIMEDOUT
		       ? 0
		       : -1;
}

int main(int argc, char **argv)
{
	static const struct rxb_peer peers[] = {
		{ .name = "antiphon",
		  .serve = serve,
		  .open = open_client,
		  .call = call_once,
		  .flight = flight,
		  .bulk = bulk,
		  .idle = idle },
		{ .name = "antiphon:block",
		  .serve = serve,
		  .open = open_client,
		  .call = call_once,
		  .flight = flight,
		  .bulk = bulk },
		{ .name = "antiphon:plain",
		  .serve = serve,
		  .open = open_client,
		  .call = call_once,
		  .flight = flight,
		  .bulk = bulk },
	};

	return rxb_main(peers, 3, argc, argv);
}
