/* SPDX-License-Identifier: MIT */
/*
 * UDP ports. Each has a driver, an engine and a thread, which sleeps without the lock until
 * datagrams have come, a time limit has passed, or a socket's last descriptor was closed. Whoever
 * else does something to the engine sends what follows from it at once (aph_afrx_endpoint_push()),
 * so that the thread is for what comes from outside.
 *
 * A thread of the program that waits for a socket takes its place meanwhile (aph_afrx_drive()):
 * being woken by another thread costs more than a call.
 */
#include "socket.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BURST 64 /* turns of the engine before others may have the lock */

/* What the thread watches, in epoll's data; or it is the cookie of a socket. */
#define WATCH_DRIVER UINT64_C(0)
#define WATCH_WAKE   UINT64_MAX

#define DRIVE_NS \
	UINT64_C(250000000) /* for so long a thread that could be cancelled receives for others */
#define PARK_NS 50000	    /* between two looks whether all are out of the drivers */

static struct aph_afrx_link endpoints = { &endpoints, &endpoints };
static struct aph_afrx_link left_over = { &left_over, &left_over }; /* whose threads are to end */
static unsigned n_forking;	   /* threads that are about to fork, or do */
static _Thread_local bool is_ours; /* this thread is an endpoint's */

/* -- the thread -------------------------------------------------------------------------------- */

static void dispatch(struct aph_afrx_endpoint *ep)
{
	struct aph_rx_event ev;

	while (aph_rx_next(ep->rx, &ev))
		aph_afrx_event(&ev);
}

void aph_afrx_endpoint_push(struct aph_afrx_endpoint *ep)
{
	(void)aph_rx_udp_flush(ep->udp);
	if (aph_rx_has_event(ep->rx)) {
		dispatch(ep);
		(void)aph_rx_udp_flush(ep->udp);
	}
}

static void work(struct aph_afrx_endpoint *ep)
{
	int i, r;

	for (i = 0; i < BURST; i++) {
		r = aph_rx_udp_wait(ep->udp, APH_NOW);
		dispatch(ep);
		if (r < 0)
			break;
	}
	(void)aph_rx_udp_flush(ep->udp);
}

static void sleep_and_work(struct aph_afrx_endpoint *ep)
{
	struct epoll_event events[8];
	int i, n;

	aph_afrx_leave();
	n = epoll_wait(ep->epoll, events, 8, -1);
	aph_afrx_enter();
	if (ep->stop)
		return;
	for (i = 0; i < n; i++) {
		if (events[i].data.u64 == WATCH_DRIVER && !ep->driven)
			work(ep);
		else if (events[i].events & (EPOLLHUP | EPOLLERR))
			aph_afrx_reap_one(events[i].data.u64);
		if (ep->stop)
			return;
	}
}

static void *run(void *arg)
{
	struct aph_afrx_endpoint *ep = arg;

	is_ours = true;
	aph_afrx_enter();
	while (!ep->stop)
		sleep_and_work(ep);
	(void)close(ep->epoll);
	(void)close(ep->wake);
	ep->epoll = ep->wake = -1;
	aph_afrx_leave();
	if (ep->detached)
		free(ep);
	return NULL;
}

static int start(struct aph_afrx_endpoint *ep)
{
	sigset_t all, old;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&ep->thread, NULL, run, ep);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

static int watch(struct aph_afrx_endpoint *ep, int fd, uint32_t events, uint64_t what)
{
	struct epoll_event event = { .events = events, .data.u64 = what };

	return epoll_ctl(ep->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* -- a thread of the program in its place ------------------------------------------------------ */

/* Whether the thread hears of what comes. */
static void listen_again(struct aph_afrx_endpoint *ep, bool again)
{
	struct epoll_event event = { .events = again ? EPOLLIN : 0, .data.u64 = WATCH_DRIVER };

	(void)epoll_ctl(ep->epoll, EPOLL_CTL_MOD, aph_rx_udp_fd(ep->udp), &event);
}

int aph_afrx_drive(struct aph_afrx_socket *s, uint64_t deadline_ns)
{
	uint32_t seen = atomic_load_explicit(&s->changes, memory_order_relaxed);
	struct aph_afrx_endpoint *ep = s->endpoint;
	uint64_t until_ns = deadline_ns;
	int r;

	if (!ep || ep->driven || n_forking)
		return -EBUSY;
	if (aph_afrx_is_cancellable()) {
		until_ns = aph_time_ns() + DRIVE_NS;
		until_ns = until_ns < deadline_ns ? until_ns : deadline_ns;
	}
	ep->driven = true;
	listen_again(ep, false);
	do {
		ep->waits = s;
		r = aph_rx_udp_wait(ep->udp, until_ns);
		ep->waits = NULL;
		dispatch(ep);
	} while (r == 0 && atomic_load_explicit(&s->changes, memory_order_relaxed) == seen);
	/* Also tells the driver's descriptor that its events have been taken. */
	aph_afrx_endpoint_push(ep);
	ep->driven = false;
	listen_again(ep, true);
	if ((r == -ETIMEDOUT && until_ns == deadline_ns) || r == -EINTR)
		return r;
	/*
	 * After an error that nobody expected another thread is to see; but not for what has
	 * happened already.
	 */
	if (r == -ECANCELED || atomic_load_explicit(&s->changes, memory_order_relaxed) != seen)
		return 0;
	return -EBUSY;
}

static bool are_driven(void)
{
	struct aph_afrx_link *pos;
	bool found = false;

	for (pos = endpoints.next; pos != &endpoints; pos = pos->next) {
		struct aph_afrx_endpoint *ep = APH_AFRX_OF(pos, struct aph_afrx_endpoint, link);

		if (!ep->driven)
			continue;
		(void)aph_rx_udp_wake(ep->udp);
		found = true;
	}
	return found;
}

void aph_afrx_endpoints_park(void)
{
	struct timespec pause = { .tv_nsec = PARK_NS };

	n_forking++;
	while (are_driven()) {
		aph_afrx_leave();
		(void)nanosleep(&pause, NULL);
		aph_afrx_enter();
	}
}

void aph_afrx_endpoints_unpark(bool forked)
{
	n_forking = forked ? 0 : n_forking - 1;
}

/* -- opening ----------------------------------------------------------------------------------- */

static void lock(void *arg)
{
	(void)arg;
	aph_afrx_enter();
}

static void unlock(void *arg)
{
	(void)arg;
	aph_afrx_leave();
}

static int open_driver(struct aph_afrx_endpoint *ep)
{
	struct aph_rx_config config = { .size = sizeof(config) };
	struct aph_rx_udp_options options = {
		.size = sizeof(options),
		.local = ep->asked,
		.flags = APH_RX_UDP_SHARE | APH_RX_UDP_KEEP,
		.config = &config,
		.lock = lock,
		.unlock = unlock,
	};
	int r;

	aph_afrx_tune(&config);
	r = aph_rx_udp_open(&ep->udp, &options);
	if (r < 0)
		return r;
	ep->rx = aph_rx_udp_engine(ep->udp);
	return aph_rx_udp_address(ep->udp, &ep->local);
}

static void close_driver(struct aph_afrx_endpoint *ep)
{
	while (!aph_afrx_list_empty(&ep->clients)) {
		struct aph_afrx_client *client =
			APH_AFRX_OF(aph_afrx_list_pop(&ep->clients), struct aph_afrx_client, link);

		(void)aph_rx_client_free(client->rx);
		free(client);
	}
	if (ep->udp) {
		(void)aph_rx_udp_flush(ep->udp);
		ep->udp = aph_rx_udp_close(ep->udp);
	}
}

static void discard(struct aph_afrx_endpoint *ep)
{
	close_driver(ep);
	if (ep->epoll >= 0)
		(void)close(ep->epoll);
	if (ep->wake >= 0)
		(void)close(ep->wake);
	free(ep);
}

/* What the thread sleeps in. */
static int open_loop(struct aph_afrx_endpoint *ep)
{
	int r;

	ep->wake = -1;
	ep->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (ep->epoll < 0)
		return -errno;
	ep->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ep->wake < 0)
		return -errno;
	r = watch(ep, ep->wake, EPOLLIN, WATCH_WAKE);
	return r < 0 ? r : watch(ep, aph_rx_udp_fd(ep->udp), EPOLLIN, WATCH_DRIVER);
}

static int open_endpoint(struct aph_afrx_endpoint **out, const struct aph_rx_address *address)
{
	struct aph_afrx_endpoint *ep = calloc(1, sizeof(*ep));
	int r;

	if (!ep)
		return -ENOMEM;
	aph_afrx_list_init(&ep->clients);
	ep->asked = *address;
	ep->epoll = ep->wake = -1;
	r = open_driver(ep);
	if (r == 0)
		r = open_loop(ep);
	if (r == 0)
		r = start(ep);
	if (r < 0) {
		discard(ep);
		return r;
	}
	aph_afrx_list_add(&endpoints, &ep->link);
	*out = ep;
	return 0;
}

static struct aph_afrx_endpoint *find(const struct aph_rx_address *address)
{
	struct aph_afrx_link *pos;

	for (pos = endpoints.next; pos != &endpoints; pos = pos->next) {
		struct aph_afrx_endpoint *ep = APH_AFRX_OF(pos, struct aph_afrx_endpoint, link);

		if (aph_rx_address_equal(&ep->asked, address) ||
		    aph_rx_address_equal(&ep->local, address))
			return ep;
	}
	return NULL;
}

int aph_afrx_endpoint_join(struct aph_afrx_socket *s, const struct aph_rx_address *address)
{
	struct aph_afrx_endpoint *ep;
	int r;

	ep = find(address);
	if (!ep) {
		r = open_endpoint(&ep, address);
		if (r < 0)
			return r;
	}
	/* Once: as long as somebody uses the socket the hang-up stays, and has to wait. */
	r = watch(ep, s->inner, EPOLLET, s->cookie);
	ep->n_sockets++;
	s->endpoint = ep;
	if (r < 0)
		aph_afrx_endpoint_part(s);
	return r;
}

/* -- closing ----------------------------------------------------------------------------------- */

void aph_afrx_endpoint_part(struct aph_afrx_socket *s)
{
	struct aph_afrx_endpoint *ep = s->endpoint;
	uint64_t one = 1;

	s->endpoint = NULL;
	if (s->inner >= 0)
		(void)epoll_ctl(ep->epoll, EPOLL_CTL_DEL, s->inner, NULL);
	if (--ep->n_sockets) {
		aph_afrx_endpoint_push(ep);
		return;
	}
	aph_afrx_list_del(&ep->link);
	close_driver(ep);
	ep->stop = true;
	if (write(ep->wake, &one, sizeof(one)) < 0) {
		/* Its counter is full: it is readable already. */
	}
	/*
	 * It may be this thread, or one that ends others' sockets as this one does: they cannot
	 * wait for each other.
	 */
	if (is_ours) {
		ep->detached = true;
		(void)pthread_detach(ep->thread);
		return;
	}
	aph_afrx_leave();
	(void)pthread_join(ep->thread, NULL);
	aph_afrx_enter();
	free(ep);
}

/* -- a broker gets them ------------------------------------------------------------------------ */

void aph_afrx_endpoints_forget(bool forked)
{
	uint64_t one = 1;

	/* Those of an earlier fork, if another thread was about to bury them. */
	while (forked && !aph_afrx_list_empty(&left_over))
		discard(APH_AFRX_OF(aph_afrx_list_pop(&left_over), struct aph_afrx_endpoint, link));
	while (!aph_afrx_list_empty(&endpoints)) {
		struct aph_afrx_endpoint *ep =
			APH_AFRX_OF(aph_afrx_list_pop(&endpoints), struct aph_afrx_endpoint, link);

		while (!aph_afrx_list_empty(&ep->clients)) {
			free(APH_AFRX_OF(aph_afrx_list_pop(&ep->clients), struct aph_afrx_client,
					 link));
		}
		ep->udp = aph_rx_udp_forget(ep->udp);
		if (forked) {
			discard(ep);
			continue;
		}
		ep->stop = true;
		aph_afrx_list_add(&left_over, &ep->link);
		if (write(ep->wake, &one, sizeof(one)) < 0) {
			/* Its counter is full: it is readable already. */
		}
	}
}

void aph_afrx_endpoints_bury(void)
{
	while (!aph_afrx_list_empty(&left_over)) {
		struct aph_afrx_endpoint *ep =
			APH_AFRX_OF(aph_afrx_list_pop(&left_over), struct aph_afrx_endpoint, link);

		aph_afrx_leave();
		(void)pthread_join(ep->thread, NULL);
		aph_afrx_enter();
		free(ep);
	}
}

/*
 * Whoever waited for a channel is not here: the clients' calls are counted again, by those that
 * are. The old descriptors are still those of the other processes, whose threads are told to stop
 * with them.
 */
static int resume(struct aph_afrx_endpoint *ep)
{
	struct aph_afrx_link *pos;
	int r;

	ep->n_channel_waiters = 0;
	for (pos = ep->clients.next; pos != &ep->clients; pos = pos->next)
		APH_AFRX_OF(pos, struct aph_afrx_client, link)->n_calls = 0;
	r = open_loop(ep);
	return r < 0 ? r : start(ep);
}

int aph_afrx_endpoints_resume(void)
{
	struct aph_afrx_link *pos;
	int r = 0;

	for (pos = endpoints.next; r == 0 && pos != &endpoints; pos = pos->next)
		r = resume(APH_AFRX_OF(pos, struct aph_afrx_endpoint, link));
	return r;
}

unsigned aph_afrx_endpoints_descriptors(int *fds, unsigned n)
{
	struct aph_afrx_link *pos;
	unsigned n_all = 0;

	for (pos = endpoints.next; pos != &endpoints; pos = pos->next) {
		struct aph_afrx_endpoint *ep = APH_AFRX_OF(pos, struct aph_afrx_endpoint, link);

		n_all += aph_rx_udp_descriptors(ep->udp, n_all < n ? fds + n_all : NULL,
						n_all < n ? n - n_all : 0);
	}
	return n_all;
}

/* -- the end ----------------------------------------------------------------------------------- */

void aph_afrx_endpoints_end(void)
{
	struct aph_afrx_link *pos;

	for (pos = endpoints.next; pos != &endpoints; pos = pos->next) {
		struct aph_afrx_endpoint *ep = APH_AFRX_OF(pos, struct aph_afrx_endpoint, link);

		ep->stop = true;
		/* Who is in the driver still has its memory. */
		if (!ep->driven)
			close_driver(ep);
	}
}

/* -- what is at an endpoint -------------------------------------------------------------------- */

void aph_afrx_set_credit(struct aph_afrx_socket *s)
{
	unsigned i;
	uint32_t credit = 0;

	if (s->state == APH_AFRX_LISTENING && s->charging)
		credit = s->n_charged;
	else if (s->state == APH_AFRX_LISTENING && s->n_waiting <= s->backlog)
		credit = s->backlog + 1 - s->n_waiting;
	else if (s->state == APH_AFRX_DISABLED || s->state == APH_AFRX_SHUT)
		credit = APH_RX_REFUSE;
	for (i = 0; i < s->n_services; i++)
		if (s->rx_services[i])
			aph_rx_service_set_credit(s->rx_services[i], credit);
}

static void drop_client(struct aph_afrx_client *client)
{
	aph_afrx_list_del(&client->link);
	client->endpoint->n_clients--;
	(void)aph_rx_client_free(client->rx);
	free(client);
}

/*
 * When there are many, those that have been idle for a while go. The least lately used ones are
 * first.
 */
static void trim_clients(struct aph_afrx_endpoint *ep)
{
	uint64_t expiry_ns = aph_afrx_tunable("idle_conn_fast_expiry") * UINT64_C(1000000);
	unsigned n_max = aph_afrx_tunable("reap_client_conns");
	uint64_t now_ns = aph_time_ns();
	struct aph_afrx_link *pos, *next;

	for (pos = ep->clients.next; pos != &ep->clients && ep->n_clients >= n_max; pos = next) {
		struct aph_afrx_client *client = APH_AFRX_OF(pos, struct aph_afrx_client, link);

		next = pos->next;
		if (client->n_calls == 0 && now_ns - client->idle_ns >= expiry_ns)
			drop_client(client);
	}
}

static int open_client(struct aph_afrx_client **out, struct aph_afrx_endpoint *ep,
		       const struct aph_rx_address *remote, uint16_t service)
{
	struct aph_rx_path path = { .remote = *remote };
	struct aph_afrx_client *client;
	int r;

	trim_clients(ep);
	client = calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	r = aph_rx_client_new(&client->rx, ep->rx, &path, service, NULL);
	if (r < 0) {
		free(client);
		return r;
	}
	client->endpoint = ep;
	client->remote = *remote;
	client->service = service;
	client->idle_ns = aph_time_ns();
	ep->n_clients++;
	aph_afrx_list_add(&ep->clients, &client->link);
	*out = client;
	return 0;
}

int aph_afrx_client_get(struct aph_afrx_client **out, struct aph_afrx_endpoint *ep,
			const struct aph_rx_address *remote, uint16_t service)
{
	struct aph_afrx_link *pos;

	for (pos = ep->clients.prev; pos != &ep->clients; pos = pos->prev) {
		struct aph_afrx_client *client = APH_AFRX_OF(pos, struct aph_afrx_client, link);

		if (client->service == service && aph_rx_address_equal(&client->remote, remote)) {
			aph_afrx_list_del(&client->link);
			aph_afrx_list_add(&ep->clients, &client->link);
			*out = client;
			return 0;
		}
	}
	return open_client(out, ep, remote, service);
}

void aph_afrx_client_put(struct aph_afrx_client *client)
{
	if (--client->n_calls == 0)
		client->idle_ns = aph_time_ns();
}
