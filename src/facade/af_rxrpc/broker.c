/* SPDX-License-Identifier: MIT */
/*
 * The broker: a copy of a program that has kept nothing but its sockets. It has the threads of
 * their UDP ports, one for each connection of a program, which calls the same functions as a
 * program would, and this one, which lets programs in, hears from those that do not want to wait
 * any more, and ends the process with the last socket.
 */
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CONNECTIONS_MAX	 1024
#define STRANGERS_MAX	 64 /* connections that have not shown a socket yet */
#define PORTS_PRIVILEGED 1024
#define FULL_MS		 10	     /* between two looks whether there is a descriptor again */
#define NOWHERE		 ((void *)8) /* no memory is there in any process */

/* What the main thread has to watch, in epoll's data. */
#define WATCH_LISTENER UINT64_C(0)
#define WATCH_END      UINT64_C(1)	   /* the eventfd */
#define WATCH_FIRST    UINT64_C(16)	   /* and on: connections, by serial number */
#define WATCH_INNER    (UINT64_C(1) << 63) /* and on: sockets, by cookie */

struct connection {
	uint64_t serial; /* 0: this entry is free */
	int fd;
	int kept; /* an outer end, for the next question; or -1 */
	uid_t uid;
	bool known;			/* it has shown a socket, and has a thread */
	struct aph_afrx_socket *sleeps; /* its thread does, there */
	bool cancelled;
	struct aph_afrx_shared *shared;
	size_t size;
};

static struct connection connections[CONNECTIONS_MAX];
static uint64_t last_serial = WATCH_FIRST;
static unsigned n_strangers;
static _Atomic unsigned n_asking; /* threads at a question, until its answer has been told */
static int watcher = -1, end_fd = -1;
static int spare = -1; /* a descriptor to give up for a moment, when no more can be had */
static _Thread_local struct connection *serving; /* by this thread */

static void drop(int fd)
{
	if (fd >= 0)
		(void)syscall(SYS_close, fd);
}

static int open_null(void)
{
	return (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC);
}

/* -- sleeping for somebody --------------------------------------------------------------------- */

static void watch_connection(const struct connection *c, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.u64 = c->serial };

	(void)epoll_ctl(watcher, EPOLL_CTL_MOD, c->fd, &event);
}

void aph_afrx_broker_watch(struct aph_afrx_socket *s)
{
	if (!serving)
		return;
	serving->sleeps = s;
	watch_connection(serving, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT);
}

/* The dead are to get nothing any more. */
static bool has_gone(const struct connection *c, short cancel)
{
	struct pollfd poller = { .fd = c->fd, .events = (short)(cancel | POLLRDHUP) };

	return poll(&poller, 1, 0) > 0;
}

bool aph_afrx_broker_cancelled(void)
{
	if (!serving)
		return false;
	serving->sleeps = NULL;
	watch_connection(serving, EPOLLONESHOT);
	/* What woke us may have come before the main thread could tell. */
	return serving->cancelled || has_gone(serving, POLLIN);
}

/* -- questions --------------------------------------------------------------------------------- */

/* A user who may not have such a port does not get it from a broker who may. */
static bool is_denied(const struct connection *c, const struct sockaddr_rxrpc *address)
{
	uint16_t port = ntohs(address->transport.sin.sin_port);

	static_assert(offsetof(struct sockaddr_in, sin_port) ==
			      offsetof(struct sockaddr_in6, sin6_port),
		      "the port is in one place");
	return port && port < PORTS_PRIVILEGED && c->uid != 0 && c->uid != geteuid();
}

static int64_t bind_for(const struct connection *c, int fd, const struct aph_afrx_question *q)
{
	struct sockaddr_rxrpc address;
	const struct sockaddr *any = (const struct sockaddr *)&address;

	memcpy(&address, c->shared->name, sizeof(address));
	if (q->op == APH_AFRX_OP_BIND && is_denied(c, &address))
		return aph_afrx_result(-EACCES);
	if (q->name_len < sizeof(address) || q->name_len > sizeof(struct sockaddr_storage))
		return aph_afrx_result(-EINVAL);
	return q->op == APH_AFRX_OP_BIND ? aph_rxrpc_bind(fd, any, q->name_len)
					 : aph_rxrpc_connect(fd, any, q->name_len);
}

/* Of a function that the program has begun. */
static struct aph_afrx_onward make_onward(const struct aph_afrx_question *q)
{
	uint64_t now_ns = aph_time_ns();

	return (struct aph_afrx_onward){
		.tag = (unsigned long)q->tag,
		.call = q->call,
		.deadline_ns = q->wait_ns < APH_FOREVER - now_ns ? now_ns + q->wait_ns
								 : APH_FOREVER,
	};
}

static int64_t pass_message(const struct connection *c, int fd, const struct aph_afrx_question *q)
{
	struct aph_afrx_shared *shared = c->shared;
	struct iovec iov = { q->is_faulty ? NOWHERE : shared->body, (size_t)q->len };
	struct msghdr message = {
		.msg_name = q->has_name ? shared->name : NULL,
		.msg_namelen = q->name_len,
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = q->control_len ? shared->control : NULL,
		.msg_controllen = q->control_len,
	};
	const struct aph_afrx_onward begun = make_onward(q), *onward = q->wait_ns ? &begun : NULL;
	ssize_t n;

	if (q->len > c->size - sizeof(*shared))
		return aph_afrx_result(-EINVAL);
	if (q->op == APH_AFRX_OP_SEND)
		return aph_afrx_sendmsg(fd, &message, q->a, onward);
	if (message.msg_namelen > sizeof(shared->name))
		message.msg_namelen = sizeof(shared->name);
	if (message.msg_controllen > sizeof(shared->control))
		message.msg_controllen = sizeof(shared->control);
	n = aph_afrx_recvmsg(fd, &message, q->a, onward);
	shared->answer.name_len = message.msg_namelen;
	shared->answer.control_len = (uint32_t)message.msg_controllen;
	shared->answer.flags = message.msg_flags;
	return n;
}

static int64_t pass_option(const struct connection *c, int fd, const struct aph_afrx_question *q)
{
	const void *value = q->has_value ? c->shared->body : NULL;
	size_t room = c->size - sizeof(*c->shared);
	socklen_t len = (socklen_t)q->len;
	int r;

	/* The kernel would take pointers for ours, and open descriptors here. */
	if (q->a == SOL_SOCKET &&
	    !(q->op == APH_AFRX_OP_SET ? aph_afrx_sets_option(q->b) : aph_afrx_gets_option(q->b)))
		return aph_afrx_result(-ENOPROTOOPT);
	if (len > room && (q->op == APH_AFRX_OP_SET || len <= INT32_MAX))
		len = (socklen_t)room;
	if (q->op == APH_AFRX_OP_SET)
		return aph_rxrpc_setsockopt(fd, q->a, q->b, q->is_faulty ? NOWHERE : value, len);
	r = aph_rxrpc_getsockopt(fd, q->a, q->b, c->shared->body, &len);
	c->shared->answer.value_len = len;
	return r;
}

uid_t aph_afrx_broker_asker(void)
{
	if (!serving || serving->uid == 0 || serving->uid == geteuid())
		return APH_AFRX_OURS;
	return serving->uid;
}

static int64_t pass_key(const struct connection *c, const struct aph_afrx_question *q)
{
	struct aph_afrx_key_image *copy;
	size_t len = (size_t)q->len;
	int r;

	if (q->len < sizeof(*copy) || q->len > APH_AFRX_BODY_MIN ||
	    q->len > c->size - sizeof(*c->shared))
		return aph_afrx_result(-EINVAL);
	copy = malloc(len);
	if (!copy)
		return aph_afrx_result(-ENOMEM);
	memcpy(copy, c->shared->body, len);
	aph_afrx_enter();
	r = aph_afrx_key_adopt(copy, len);
	aph_afrx_leave();
	explicit_bzero(copy, len);
	free(copy);
	return aph_afrx_result(r);
}

static int64_t answer(const struct connection *c, int fd, bool *closed)
{
	struct aph_afrx_question q;

	memcpy(&q, &c->shared->question, sizeof(q));
	switch (q.op) {
	case APH_AFRX_OP_BIND:
	case APH_AFRX_OP_CONNECT:
		return bind_for(c, fd, &q);
	case APH_AFRX_OP_LISTEN:
		return aph_rxrpc_listen(fd, q.a);
	case APH_AFRX_OP_SEND:
	case APH_AFRX_OP_RECEIVE:
		return pass_message(c, fd, &q);
	case APH_AFRX_OP_SET:
	case APH_AFRX_OP_GET:
		return pass_option(c, fd, &q);
	case APH_AFRX_OP_SHUTDOWN:
		return aph_rxrpc_shutdown(fd, q.a);
	case APH_AFRX_OP_CLOSE:
		/* Ours is the last one, and is closed by our caller otherwise. */
		*closed = aph_rxrpc_close(fd) == 0;
		return 0;
	case APH_AFRX_OP_KEY:
		return pass_key(c, &q);
	default:
		return aph_afrx_result(-EINVAL);
	}
}

static bool is_done(void)
{
	return aph_afrx_n_sockets() == 0 && atomic_load(&n_asking) == 0;
}

/* The eventfd is there for the main thread to see that there is nothing left. */
void aph_afrx_broker_look(void)
{
	uint64_t one = 1;

	if (end_fd >= 0 && is_done())
		(void)!write(end_fd, &one, sizeof(one));
}

static int serve_question(struct connection *c, int fd)
{
	bool closed = false;
	int64_t r;

	/* It may have asked some time ago, and a message be there since. */
	if (has_gone(c, 0)) {
		drop(fd);
		return -ENOTCONN;
	}
	if (fd < 0) {
		fd = c->kept;
		c->kept = -1;
	}
	c->cancelled = false;
	atomic_fetch_add(&n_asking, 1);
	/* If none came there was no room for it here. */
	r = fd < 0 ? aph_afrx_result(-ENOBUFS) : answer(c, fd, &closed);
	c->shared->answer.result = r < 0 ? -errno : r;
	if (!closed)
		drop(fd);
	r = aph_afrx_say(c->fd, APH_AFRX_DONE, NULL, 0);
	/*
	 * The socket may have ended with our descriptor, and the process is to end after the
	 * answer.
	 */
	atomic_fetch_sub(&n_asking, 1);
	aph_afrx_broker_look();
	return (int)r;
}

/* -- connections ------------------------------------------------------------------------------- */

/* Memory whose other user cannot make it shorter. */
static int map_memory(struct connection *c, int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat status;
	void *memory;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &status) < 0 ||
	    (uint64_t)status.st_size < sizeof(struct aph_afrx_shared) ||
	    (uint64_t)status.st_size > sizeof(struct aph_afrx_shared) + 4 * APH_AFRX_BODY_MAX)
		return -EINVAL;
	memory = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	if (c->shared)
		(void)munmap(c->shared, c->size);
	c->shared = memory;
	c->size = (size_t)status.st_size;
	return 0;
}

static void connection_end(struct connection *c)
{
	aph_afrx_enter();
	drop(c->fd);
	drop(c->kept);
	if (c->shared)
		(void)munmap(c->shared, c->size);
	if (!c->known)
		n_strangers--;
	memset(c, 0, sizeof(*c));
	aph_afrx_leave();
}

/* It had better come again later. */
static void refuse(int fd)
{
	(void)aph_afrx_say(fd, APH_AFRX_FULL, NULL, 0);
}

static int hello(struct connection *c, const int fds[2])
{
	int r;

	if (fds[0] < 0 || fds[1] < 0)
		r = -EMFILE; /* both were sent */
	else
		r = aph_rxrpc_is_socket(fds[1]) ? map_memory(c, fds[0]) : -ENOTSOCK;
	if (r == -EMFILE || r == -ENOMEM)
		refuse(c->fd);
	drop(fds[0]);
	drop(fds[1]);
	return r;
}

static int serve_one(struct connection *c)
{
	int fds[2], r;
	char what;

	r = aph_afrx_hear(c->fd, &what, fds);
	if (r <= 0)
		return -ENOTCONN;
	switch (what) {
	case APH_AFRX_HELLO:
		return hello(c, fds);
	case APH_AFRX_KEEP:
		drop(c->kept);
		drop(fds[1]);
		c->kept = fds[0];
		return 0;
	case APH_AFRX_ASK:
		drop(fds[1]);
		return serve_question(c, fds[0]);
	default: /* a cancel that was too late */
		drop(fds[0]);
		drop(fds[1]);
		return 0;
	}
}

static void *serve(void *arg)
{
	serving = arg;
	/* Nobody does, and so it may stay in the drivers. */
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	while (serve_one(serving) == 0)
		;
	connection_end(serving);
	return NULL;
}

/* The first message of a newcomer. */
static void welcome(struct connection *c)
{
	int fds[2], r;
	pthread_t thread;
	char what;

	r = aph_afrx_hear(c->fd, &what, fds) == 1 ? hello(c, fds) : -ENOTCONN;
	if (r == 0) {
		c->known = true;
		n_strangers--;
		watch_connection(c, EPOLLONESHOT);
		r = -pthread_create(&thread, NULL, serve, c);
		if (r == 0) {
			(void)pthread_detach(thread);
			return;
		}
		refuse(c->fd);
	}
	connection_end(c);
}

/* By serial number; 0: a free entry. The oldest stranger if `stranger`. */
static struct connection *find(uint64_t serial, bool stranger)
{
	struct connection *found = NULL;
	size_t i;

	for (i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *c = &connections[i];

		if (!stranger && c->serial == serial)
			return c;
		if (stranger && c->serial && !c->known && (!found || c->serial < found->serial))
			found = c;
	}
	return found;
}

static int accept_one(int listener)
{
	return (int)syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC);
}

/* Who cannot be let in hears so at once; and the listener would stay readable. */
static void turn_away(int listener)
{
	int fd;

	drop(spare);
	fd = accept_one(listener);
	if (fd >= 0)
		refuse(fd);
	drop(fd);
	spare = open_null();
	/* Somebody else was faster: there is nothing to do but to wait. */
	if (fd < 0)
		(void)poll(NULL, 0, FULL_MS);
}

static void let_in(int listener)
{
	int fd = accept_one(listener);
	struct epoll_event event = { .events = EPOLLIN };
	socklen_t len = sizeof(struct ucred);
	struct connection *c;
	struct ucred peer;

	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		turn_away(listener);
	if (fd < 0)
		return;
	if (n_strangers >= STRANGERS_MAX) {
		c = find(0, true);
		refuse(c->fd);
		connection_end(c);
	}
	aph_afrx_enter();
	c = find(0, false);
	if (c && syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0) {
		event.data.u64 = ++last_serial;
		*c = (struct connection){
			.serial = last_serial, .fd = fd, .kept = -1, .uid = peer.uid
		};
		n_strangers++;
	}
	aph_afrx_leave();
	if (!c) {
		refuse(fd);
		drop(fd);
	} else if (epoll_ctl(watcher, EPOLL_CTL_ADD, fd, &event) < 0) {
		connection_end(c);
	}
}

/* Something of a connection: it is new, or somebody sleeps for it who should not any more. */
static void look_at(uint64_t serial)
{
	struct connection *c;
	bool is_new;

	aph_afrx_enter();
	c = find(serial, false);
	is_new = c && !c->known;
	if (c && c->sleeps) {
		c->cancelled = true;
		aph_afrx_notify(c->sleeps);
	}
	aph_afrx_leave();
	if (is_new)
		welcome(c);
}

/* -- the process ------------------------------------------------------------------------------- */

static int *kept;
static unsigned n_kept;

static void keep_inner(struct aph_afrx_socket *s)
{
	kept[n_kept++] = s->inner;
}

static int compare(const void *a, const void *b)
{
	const int *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* All that the program had open is not to be held open here. */
static int close_others(int listener, int ready)
{
	unsigned n_ports = aph_afrx_endpoints_descriptors(NULL, 0), i;
	int next = 0, null;

	kept = calloc(n_ports + aph_afrx_n_sockets() + 2, sizeof(*kept));
	if (!kept)
		return -ENOMEM;
	n_kept = aph_afrx_endpoints_descriptors(kept, n_ports);
	aph_afrx_for_each(keep_inner);
	kept[n_kept++] = listener;
	kept[n_kept++] = ready;
	qsort(kept, n_kept, sizeof(*kept), compare);
	for (i = 0; i < n_kept; next = kept[i++] + 1)
		if (kept[i] > next)
			(void)close_range((unsigned)next, (unsigned)kept[i] - 1, 0);
	(void)close_range((unsigned)next, ~0u, 0);
	free(kept);
	/* Nothing that is opened later is to be taken for a standard stream. */
	do {
		null = open_null();
	} while (null >= 0 && null < 3);
	spare = null;
	return 0;
}

/* Those who were in a function are not here; they ask again. */
static void take_over(struct aph_afrx_socket *s)
{
	struct epoll_event event = { .events = EPOLLET, .data.u64 = WATCH_INNER | s->cookie };
	int i;

	s->users = s->n_sleepers = s->n_readers = 0;
	/* One that they kept beyond its end is heard of again. */
	s->hung_up = false;
	for (i = 0; i < APH_AFRX_N_TAGS; i++) {
		struct aph_afrx_link *pos;

		for (pos = s->tags[i].next; pos != &s->tags[i]; pos = pos->next) {
			struct aph_afrx_call *c = APH_AFRX_OF(pos, struct aph_afrx_call, hash);

			c->pins = 0;
			if (c->client)
				c->client->n_calls++;
		}
	}
	if (!aph_afrx_list_empty(&s->queue) && s->marks == 0)
		aph_afrx_mark(s);
	(void)epoll_ctl(watcher, EPOLL_CTL_ADD, s->inner, &event);
}

/* What programs have open between them is open here: their limit is not ours. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int set_up(int listener, int ready)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = WATCH_LISTENER };
	sigset_t all;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, NULL);
	(void)setsid();
	(void)!chdir("/");
	(void)prctl(PR_SET_NAME, "afrxrpc");
	raise_limit();
	r = close_others(listener, ready);
	if (r < 0)
		return r;
	watcher = epoll_create1(EPOLL_CLOEXEC);
	end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (watcher < 0 || end_fd < 0 || epoll_ctl(watcher, EPOLL_CTL_ADD, listener, &event) < 0)
		return -errno;
	event.data.u64 = WATCH_END;
	if (epoll_ctl(watcher, EPOLL_CTL_ADD, end_fd, &event) < 0)
		return -errno;
	r = aph_afrx_endpoints_resume();
	if (r < 0)
		return r;
	aph_afrx_for_each(take_over);
	return syscall(SYS_listen, listener, SOMAXCONN) < 0 ? -errno : 0;
}

static void work(int listener)
{
	struct epoll_event event;

	/*
	 * One at a time: what follows in a batch might be about a connection that has ended
	 * meanwhile.
	 */
	if (epoll_wait(watcher, &event, 1, -1) != 1)
		return;
	if (event.data.u64 == WATCH_LISTENER)
		let_in(listener);
	else if (event.data.u64 > WATCH_FIRST && event.data.u64 < WATCH_INNER)
		look_at(event.data.u64);
	aph_afrx_enter();
	if (event.data.u64 >= WATCH_INNER)
		aph_afrx_reap_one(event.data.u64 & ~WATCH_INNER);
	if (is_done())
		_exit(0);
	aph_afrx_leave();
}

_Noreturn void aph_afrx_broker_run(int listener, int ready)
{
	if (set_up(listener, ready) < 0 || write(ready, "rr", 2) != 2)
		_exit(1);
	drop(ready);
	aph_afrx_leave();
	for (;;)
		work(listener);
}
