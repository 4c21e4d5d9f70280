/* SPDX-License-Identifier: MIT */
/*
 * Connections to brokers: which sockets brokers have, what is said on a connection, and one
 * question after the other. A thread has a connection to itself while it asks; those that nobody
 * uses are kept for the next.
 */
#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* -- which there are --------------------------------------------------------------------------- */

#define N_HEADS 16

struct remote {
	struct remote *next;
	uint64_t cookie;
	uint64_t n_keys; /* changes of keys that the broker began with */
	uid_t uid;	 /* whose process this was when it learned of it */
};

static struct remote *heads[N_HEADS];
static _Atomic bool there_are_any;

bool aph_afrx_remote_any(void)
{
	return atomic_load_explicit(&there_are_any, memory_order_relaxed);
}

static const struct remote *find(uint64_t cookie)
{
	const struct remote *remote = heads[cookie % N_HEADS];

	while (remote && remote->cookie != cookie)
		remote = remote->next;
	return remote;
}

bool aph_afrx_remote_find(uint64_t cookie)
{
	return find(cookie);
}

/*
 * They stay: nothing tells when the last descriptor of this process is closed, and cookies are not
 * used again.
 */
int aph_afrx_remote_add(uint64_t cookie)
{
	struct remote *remote = malloc(sizeof(*remote));

	if (!remote)
		return -ENOMEM;
	remote->cookie = cookie;
	remote->n_keys = aph_afrx_keys_changed();
	remote->uid = geteuid();
	remote->next = heads[cookie % N_HEADS];
	heads[cookie % N_HEADS] = remote;
	atomic_store_explicit(&there_are_any, true, memory_order_relaxed);
	return 0;
}

/* -- messages ---------------------------------------------------------------------------------- */

/*
 * Asked of the kernel directly, here and below: the preload library has functions of the usual
 * names.
 */

int aph_afrx_say(int fd, char what, const int *fds, unsigned n)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = { .bytes = { 0 } };
	struct iovec iov = { &what, 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	if (n) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(n * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&message);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n * sizeof(int));
	}
	/*
	 * Whoever hears reads all: there is always room for the few messages that can be under way.
	 */
	while (syscall(SYS_sendmsg, fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* A thread may be cancelled in it, and leave what the address sanitizer has marked on its stack. */
__attribute__((no_sanitize_address)) int aph_afrx_hear(int fd, char *what, int fds[2])
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = { what, 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	long n = syscall(SYS_recvmsg, fd, &message, MSG_CMSG_CLOEXEC);
	struct cmsghdr *cmsg;

	fds[0] = fds[1] = -1;
	if (n <= 0)
		return n < 0 ? -errno : 0;
	for (cmsg = CMSG_FIRSTHDR(&message); cmsg; cmsg = CMSG_NXTHDR(&message, cmsg))
		if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
			memcpy(fds, CMSG_DATA(cmsg),
			       cmsg->cmsg_len - CMSG_LEN(0) < 2 * sizeof(int) ? sizeof(int)
									      : 2 * sizeof(int));
	return 1;
}

/* -- connections ------------------------------------------------------------------------------- */

static struct aph_afrx_link idle = { &idle, &idle }, busy = { &busy, &busy };

static bool is_intact(const struct aph_afrx_connection *c)
{
	uint64_t cookie;

	return aph_afrx_cookie(c->fd, &cookie) == 0 && cookie == c->cookie;
}

/* It is on no list. */
static void connection_free(struct aph_afrx_connection *c)
{
	if (c->fd >= 0 && is_intact(c))
		(void)syscall(SYS_close, c->fd);
	if (c->shared)
		(void)munmap(c->shared, c->size);
	free(c);
}

static void drop_all(struct aph_afrx_link *list)
{
	while (!aph_afrx_list_empty(list))
		connection_free(
			APH_AFRX_OF(aph_afrx_list_pop(list), struct aph_afrx_connection, link));
}

void aph_afrx_remote_forget(void)
{
	drop_all(&idle);
	drop_all(&busy);
}

/* Memory that both have, which neither can take away from the other. */
static int share_memory(struct aph_afrx_connection *c, int outer, size_t size)
{
	int fd = memfd_create("afrxrpc", MFD_CLOEXEC | MFD_ALLOW_SEALING), r;
	void *memory;

	if (fd < 0)
		return -errno;
	r = ftruncate(fd, (off_t)size) < 0 ||
			    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) < 0
		    ? -errno
		    : 0;
	if (r == 0) {
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (memory == MAP_FAILED)
			r = -errno;
	}
	if (r == 0) {
		if (c->shared)
			(void)munmap(c->shared, c->size);
		c->shared = memory;
		c->size = size;
		r = aph_afrx_say(c->fd, APH_AFRX_HELLO, (const int[]){ fd, outer }, 2);
	}
	(void)syscall(SYS_close, fd);
	return r;
}

static struct aph_afrx_connection *find_idle(const struct sockaddr_un *broker)
{
	struct aph_afrx_link *pos;

	/* The analyzer does not see that those that were freed are not in the list any more. */
	/* NOLINTBEGIN(clang-analyzer-unix.Malloc) */
	for (pos = idle.next; pos != &idle; pos = pos->next) {
		struct aph_afrx_connection *c = APH_AFRX_OF(pos, struct aph_afrx_connection, link);

		if (memcmp(&c->broker, broker, sizeof(*broker)) == 0)
			return c;
	}
	/* NOLINTEND(clang-analyzer-unix.Malloc) */
	return NULL;
}

/* Who made the other end, or listens there; -1: nobody can tell. */
static uid_t uid_of(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return (uid_t)-1;
	return peer.uid;
}

/*
 * Anybody may listen at a name that no broker has, not yet or not any more: that gets neither
 * descriptors nor keys of ours. A broker is of the user who has made the socket (whom the kernel
 * knows), of ours, or of root.
 */
static bool is_trusted(int fd, int outer)
{
	uid_t broker = uid_of(fd);
	const struct remote *remote;
	uint64_t cookie;
	bool is_ours;

	if (broker == (uid_t)-1 || aph_afrx_cookie(outer, &cookie) < 0)
		return false;
	aph_afrx_enter();
	remote = find(cookie);
	is_ours = remote && remote->uid == broker;
	aph_afrx_leave();
	return is_ours || broker == uid_of(outer) || broker == 0;
}

/*
 * Those whose broker has ended with its last socket: who closed that was somebody else, or did it
 * behind our back.
 */
static void drop_dead(void)
{
	struct aph_afrx_link *pos, *next;

	for (pos = idle.next; pos != &idle; pos = next) {
		struct aph_afrx_connection *c = APH_AFRX_OF(pos, struct aph_afrx_connection, link);
		struct pollfd poller = { .fd = c->fd, .events = POLLIN | POLLRDHUP };

		next = pos->next;
		if (is_intact(c) && poll(&poller, 1, 0) == 0)
			continue;
		aph_afrx_list_del(&c->link);
		connection_free(c);
	}
}

static int connect_new(struct aph_afrx_connection **out, int outer,
		       const struct sockaddr_un *broker, socklen_t len)
{
	struct aph_afrx_connection *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	aph_afrx_list_init(&c->link);
	c->broker = *broker;
	c->fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	r = c->fd < 0 ? -errno : aph_afrx_cookie(c->fd, &c->cookie);
	while (r == 0 && syscall(SYS_connect, c->fd, broker, len) < 0)
		r = errno == EINTR ? 0 : -ENOTCONN;
	if (r == 0 && !is_trusted(c->fd, outer))
		r = -ENOTCONN;
	if (r < 0) {
		connection_free(c);
		return r;
	}
	*out = c;
	return 0;
}

/* An idle one, or a new one. */
static int find_connection(struct aph_afrx_connection **out, int outer)
{
	struct sockaddr_un broker = { 0 };
	struct aph_afrx_connection *c;
	socklen_t len;
	int r;

	r = aph_afrx_broker_of(outer, &broker, &len);
	if (r < 0)
		return r;
	memset((char *)&broker + len, 0, sizeof(broker) - len);
	aph_afrx_enter();
	while ((c = find_idle(&broker))) {
		aph_afrx_list_del(&c->link);
		if (is_intact(c))
			break;
		connection_free(c);
	}
	if (!c)
		drop_dead();
	aph_afrx_leave();
	*out = c;
	return c ? 0 : connect_new(out, outer, &broker, len);
}

/*
 * A connection has failed: the broker had no room for it, or is not there any more. Returns what to
 * tell of it.
 */
static int fail(struct aph_afrx_connection *c, int error)
{
	char what = 0;
	int fds[2];

	/* What it said before it closed is behind the errors. */
	while (error == -EPIPE || error == -ECONNRESET)
		error = aph_afrx_hear(c->fd, &what, fds);
	c->broken = true;
	if (error >= 0)
		error = what == APH_AFRX_FULL ? -ENOBUFS : -ENOTCONN;
	c->failure = error;
	return error;
}

struct aph_afrx_connection *aph_afrx_connection_begin(int outer, size_t len, ssize_t *error)
{
	size_t size = sizeof(struct aph_afrx_shared) + APH_AFRX_BODY_MIN;
	struct aph_afrx_connection *c = NULL;
	int r;

	aph_afrx_hold();
	r = find_connection(&c, outer);
	while (size < sizeof(struct aph_afrx_shared) + len)
		size *= 2;
	if (c && (!c->shared || c->size < size))
		r = share_memory(c, outer, size);
	if (r < 0 || !c || !c->shared) {
		*error = c ? fail(c, r) : r;
		if (c)
			connection_free(c);
		aph_afrx_release();
		return NULL;
	}
	memset(&c->shared->question, 0, sizeof(c->shared->question));
	aph_afrx_enter();
	aph_afrx_list_add(&busy, &c->link);
	aph_afrx_leave();
	return c;
}

void aph_afrx_connection_end(struct aph_afrx_connection *c)
{
	c->body = NULL;
	c->timed = false;
	aph_afrx_enter();
	aph_afrx_list_del(&c->link);
	/* Much memory is not kept, nor is what was interrupted. */
	if (c->broken || c->size > 16 * APH_AFRX_BODY_MIN)
		connection_free(c);
	else
		aph_afrx_list_add(&idle, &c->link);
	aph_afrx_leave();
	aph_afrx_release();
}

void aph_afrx_connection_end_all(struct aph_afrx_connection *c)
{
	struct aph_afrx_connection *other;

	aph_afrx_enter();
	while ((other = find_idle(&c->broker))) {
		aph_afrx_list_del(&other->link);
		connection_free(other);
	}
	aph_afrx_leave();
	c->broken = true;
	aph_afrx_connection_end(c);
}

/* The broker hears that nobody is there any more, and lets go of the question. */
static void be_cancelled(void *arg)
{
	struct aph_afrx_connection *c = arg;

	aph_afrx_hold();
	aph_afrx_vector_deinit(c->body);
	c->broken = true;
	aph_afrx_connection_end(c);
}

/*
 * The kernel goes on with recvmsg() after a handler with SA_RESTART, as no time limit is set for
 * this descriptor; never with poll().
 */
static int hear(const struct aph_afrx_connection *c, char *what, int fds[2])
{
	struct pollfd poller = { .fd = c->fd, .events = POLLIN };

	if (c->timed && poll(&poller, 1, -1) < 0)
		return -errno;
	return aph_afrx_hear(c->fd, what, fds);
}

static int hear_answer(struct aph_afrx_connection *c, char *what)
{
	int fds[2], type, r;

	if (!c->body)
		return aph_afrx_hear(c->fd, what, fds);
	pthread_cleanup_push(be_cancelled, c);
	aph_afrx_release();
	/* For system calls alone. NOLINTNEXTLINE(concurrency-thread-canceltype-asynchronous) */
	(void)pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	r = hear(c, what, fds);
	(void)pthread_setcanceltype(type, NULL);
	aph_afrx_hold();
	pthread_cleanup_pop(0);
	return r;
}

ssize_t aph_afrx_connection_await(struct aph_afrx_connection *c)
{
	bool cancelled = false;
	char what = 0;
	int r;

	for (;;) {
		r = hear_answer(c, &what);
		if (r == 1 && what == APH_AFRX_DONE)
			return (ssize_t)c->shared->answer.result;
		if (r == 1 && what == APH_AFRX_FULL)
			return fail(c, -ENOBUFS);
		if (r != -EINTR)
			return fail(c, r);
		if (!cancelled)
			(void)aph_afrx_say(c->fd, APH_AFRX_CANCEL, NULL, 0);
		cancelled = true;
	}
}

ssize_t aph_afrx_connection_ask(struct aph_afrx_connection *c, int outer, enum aph_afrx_op op)
{
	int r;

	if (c->broken)
		return c->failure;
	c->shared->question.op = op;
	r = aph_afrx_say(c->fd, APH_AFRX_ASK, &outer, 1);
	if (r == 0)
		return aph_afrx_connection_await(c);
	return fail(c, r);
}

/* -- keys -------------------------------------------------------------------------------------- */

/* How much each broker knows of what was done to keys. They are few, and stay as sockets do. */
struct broker {
	struct broker *next;
	struct sockaddr_un name;
	uint64_t n_keys;
};

static struct broker *brokers;

/* With the lock held. NULL: memory. */
static struct broker *find_broker(const struct aph_afrx_connection *c, int outer)
{
	struct broker *broker = brokers;
	const struct remote *remote;
	uint64_t cookie;

	while (broker && memcmp(&broker->name, &c->broker, sizeof(broker->name)) != 0)
		broker = broker->next;
	if (broker)
		return broker;
	remote = aph_afrx_cookie(outer, &cookie) == 0 ? find(cookie) : NULL;
	broker = malloc(sizeof(*broker));
	if (!broker)
		return NULL;
	broker->name = c->broker;
	broker->n_keys = remote ? remote->n_keys : 0;
	broker->next = brokers;
	brokers = broker;
	return broker;
}

/* Another thread may be at the same: it does no harm twice. */
void aph_afrx_connection_tell_keys(struct aph_afrx_connection *c, int outer)
{
	struct broker *broker;
	uint64_t since = 0;
	size_t len = 1;

	while (len && !c->broken) {
		aph_afrx_enter();
		broker = find_broker(c, outer);
		if (broker && since > broker->n_keys)
			broker->n_keys = since;
		if (broker && since < broker->n_keys)
			since = broker->n_keys;
		len = broker ? aph_afrx_key_image((void *)c->shared->body, &since) : 0;
		aph_afrx_leave();
		if (!len)
			break;
		c->shared->question.len = len;
		(void)aph_afrx_connection_ask(c, outer, APH_AFRX_OP_KEY);
		explicit_bzero(c->shared->body, len);
	}
	memset(&c->shared->question, 0, sizeof(c->shared->question));
}
