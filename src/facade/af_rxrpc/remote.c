/* SPDX-License-Identifier: MIT */
/*
 * Sockets that a broker has, as their programs see them: which there are, connections to brokers,
 * and each function as a question. A thread has a connection to itself while it asks; those that
 * nobody uses are kept for the next.
 */
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VALUE_MAX 4096		      /* of an option: more is refused, whatever it is */
#define NOW_MAX	  (UINT32_C(1) << 20) /* of a body that may not wait */

static_assert(NOW_MAX > APH_AFRX_SEND_MAX, "more than a call takes");

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

struct connection {
	struct aph_afrx_link link; /* in `idle` or `busy` */
	int fd;
	/* Of fd: a program may close what it does not know, and get the number again. */
	uint64_t cookie;
	struct sockaddr_un broker;
	struct aph_afrx_shared *shared;
	size_t size;
	struct aph_afrx_vector *body; /* of who asks, and may be cancelled; or NULL */
	bool broken;
	int failure; /* of a broken one: what it is told with */
};

static struct aph_afrx_link idle = { &idle, &idle }, busy = { &busy, &busy };

static bool is_intact(const struct connection *c)
{
	uint64_t cookie;

	return aph_afrx_cookie(c->fd, &cookie) == 0 && cookie == c->cookie;
}

/* It is on no list. */
static void connection_free(struct connection *c)
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
		connection_free(APH_AFRX_OF(aph_afrx_list_pop(list), struct connection, link));
}

void aph_afrx_remote_forget(void)
{
	drop_all(&idle);
	drop_all(&busy);
}

/* Memory that both have, which neither can take away from the other. */
static int share_memory(struct connection *c, int outer, size_t size)
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

static struct connection *find_idle(const struct sockaddr_un *broker)
{
	struct aph_afrx_link *pos;

	for (pos = idle.next; pos != &idle; pos = pos->next) {
		struct connection *c = APH_AFRX_OF(pos, struct connection, link);

		if (memcmp(&c->broker, broker, sizeof(*broker)) == 0)
			return c;
	}
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

static int connect_new(struct connection **out, int outer, const struct sockaddr_un *broker,
		       socklen_t len)
{
	struct connection *c = calloc(1, sizeof(*c));
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
static int find_connection(struct connection **out, int outer)
{
	struct sockaddr_un broker = { 0 };
	struct connection *c;
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
	aph_afrx_leave();
	*out = c;
	return c ? 0 : connect_new(out, outer, &broker, len);
}

/*
 * A connection has failed: the broker had no room for it, or is not there any more. Returns what to
 * tell of it.
 */
static int fail(struct connection *c, int error)
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

/*
 * A connection to the broker of this outer end, with room for a body and an empty question; the
 * thread is held. NULL: -errno in `error`.
 */
static struct connection *begin(int outer, size_t len, int64_t *error)
{
	size_t size = sizeof(struct aph_afrx_shared) + APH_AFRX_BODY_MIN;
	struct connection *c = NULL;
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

static void end(struct connection *c)
{
	c->body = NULL;
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

/* Nobody may come to this broker any more: no descriptor stays that the program does not know. */
static void end_all(struct connection *c)
{
	struct connection *other;

	aph_afrx_enter();
	while ((other = find_idle(&c->broker))) {
		aph_afrx_list_del(&other->link);
		connection_free(other);
	}
	aph_afrx_leave();
	c->broken = true;
	end(c);
}

/* The broker hears that nobody is there any more, and lets go of the question. */
static void be_cancelled(void *arg)
{
	struct connection *c = arg;

	aph_afrx_hold();
	aph_afrx_vector_deinit(c->body);
	c->broken = true;
	end(c);
}

static int hear_answer(struct connection *c, char *what)
{
	int fds[2], type, r;

	if (!c->body)
		return aph_afrx_hear(c->fd, what, fds);
	pthread_cleanup_push(be_cancelled, c);
	aph_afrx_release();
	/* For system calls alone. NOLINTNEXTLINE(concurrency-thread-canceltype-asynchronous) */
	(void)pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	r = aph_afrx_hear(c->fd, what, fds);
	(void)pthread_setcanceltype(type, NULL);
	aph_afrx_hold();
	pthread_cleanup_pop(0);
	return r;
}

/* Waits for the answer. A signal withdraws the question, but what was done of it is still told. */
static int64_t await_answer(struct connection *c)
{
	bool cancelled = false;
	char what;
	int r;

	for (;;) {
		r = hear_answer(c, &what);
		if (r == 1 && what == APH_AFRX_DONE)
			return c->shared->answer.result;
		if (r == 1 && what == APH_AFRX_FULL)
			return fail(c, -ENOBUFS);
		if (r != -EINTR)
			return fail(c, r);
		if (!cancelled)
			(void)aph_afrx_say(c->fd, APH_AFRX_CANCEL, NULL, 0);
		cancelled = true;
	}
}

static int64_t ask(struct connection *c, int outer, enum aph_afrx_op op)
{
	int r;

	if (c->broken)
		return c->failure;
	c->shared->question.op = op;
	r = aph_afrx_say(c->fd, APH_AFRX_ASK, &outer, 1);
	if (r == 0)
		return await_answer(c);
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
static struct broker *find_broker(const struct connection *c, int outer)
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

/*
 * Tells the broker what it does not know yet. Another thread may be at the same: it does no harm
 * twice.
 */
static void tell_keys(struct connection *c, int outer)
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
		(void)ask(c, outer, APH_AFRX_OP_KEY);
		explicit_bzero(c->shared->body, len);
	}
	memset(&c->shared->question, 0, sizeof(c->shared->question));
}

/* -- names and states -------------------------------------------------------------------------- */

static int put_name(struct connection *c, const void *name, socklen_t len)
{
	size_t n = len < sizeof(c->shared->name) ? len : sizeof(c->shared->name);

	c->shared->question.has_name = name != NULL;
	c->shared->question.name_len = len;
	return name ? aph_afrx_copy_in(c->shared->name, name, n) : 0;
}

static int ask_with_name(int fd, enum aph_afrx_op op, const struct sockaddr *address, socklen_t len)
{
	struct connection *c;
	int64_t r;

	c = begin(fd, 0, &r);
	if (!c)
		return (int)aph_afrx_result(r);
	/* One that is too short is not looked at. */
	if (len < sizeof(struct sockaddr_rxrpc))
		r = -EINVAL;
	else
		r = address ? put_name(c, address, len) : -EFAULT;
	if (r == 0)
		r = ask(c, fd, op);
	end(c);
	return (int)aph_afrx_result(r);
}

static int ask_with_number(int fd, enum aph_afrx_op op, int number)
{
	struct connection *c;
	int64_t r;

	c = begin(fd, 0, &r);
	if (!c)
		return (int)aph_afrx_result(r);
	c->shared->question.a = number;
	r = ask(c, fd, op);
	end(c);
	return (int)aph_afrx_result(r);
}

int aph_afrx_remote_bind(int fd, const struct sockaddr *address, socklen_t len)
{
	return ask_with_name(fd, APH_AFRX_OP_BIND, address, len);
}

int aph_afrx_remote_connect(int fd, const struct sockaddr *address, socklen_t len)
{
	return ask_with_name(fd, APH_AFRX_OP_CONNECT, address, len);
}

int aph_afrx_remote_listen(int fd, int backlog)
{
	return ask_with_number(fd, APH_AFRX_OP_LISTEN, backlog);
}

int aph_afrx_remote_shutdown(int fd, int how)
{
	return ask_with_number(fd, APH_AFRX_OP_SHUTDOWN, how);
}

/*
 * The broker keeps the descriptor for a moment, so that it closes the last one and can say when
 * that is done.
 */
int aph_afrx_remote_close(int fd)
{
	struct connection *c;
	int64_t r;
	int saved;

	c = begin(fd, 0, &r);
	if (c) {
		c->shared->question.op = APH_AFRX_OP_CLOSE;
		c->broken = aph_afrx_say(c->fd, APH_AFRX_KEEP, &fd, 1) < 0;
	}
	saved = syscall(SYS_close, fd) < 0 ? errno : 0;
	if (c) {
		c->broken = c->broken || aph_afrx_say(c->fd, APH_AFRX_ASK, NULL, 0) < 0;
		if (!c->broken)
			(void)await_answer(c);
		end_all(c);
	}
	return (int)aph_afrx_result(-saved);
}

/* -- messages ---------------------------------------------------------------------------------- */

static int put_message(struct connection *c, const struct msghdr *message,
		       struct aph_afrx_vector *body, size_t len)
{
	size_t n_control = message->msg_controllen;
	int r;

	r = put_name(c, message->msg_namelen ? message->msg_name : NULL, message->msg_namelen);
	if (n_control > UINT32_MAX)
		n_control = UINT32_MAX;
	c->shared->question.control_len = (uint32_t)n_control;
	if (n_control > sizeof(c->shared->control))
		n_control = 0; /* refused without a look */
	if (r == 0)
		r = aph_afrx_copy_in(c->shared->control, message->msg_control, n_control);
	c->shared->question.is_faulty = r == 0 &&
					aph_afrx_vector_gather(body, c->shared->body, len) < 0;
	c->shared->question.len = len;
	return r;
}

/*
 * How much of a body is given to the broker at a time: the caller hears of the rest, as of any
 * short count.
 */
static size_t limit_body(int fd, size_t len, int flags)
{
	/*
	 * A call that may not wait takes no more than there is room for, which is less than this.
	 */
	if (len > NOW_MAX && aph_afrx_deadline(fd, SO_SNDTIMEO, flags) == APH_NOW)
		return NOW_MAX;
	return len < APH_AFRX_BODY_MAX ? len : APH_AFRX_BODY_MAX;
}

ssize_t aph_afrx_remote_sendmsg(int fd, const struct msghdr *message, int flags)
{
	struct aph_afrx_vector body = { .left = 0 };
	struct connection *c;
	struct msghdr copy;
	size_t len;
	int64_t r;

	r = aph_afrx_message_copy(&copy, &body, message);
	if (r < 0)
		return aph_afrx_result(r);
	len = limit_body(fd, body.left, flags);
	if (len < body.left)
		flags |= MSG_MORE;
	c = begin(fd, len, &r);
	if (c) {
		c->body = &body;
		tell_keys(c, fd);
		r = put_message(c, &copy, &body, len);
		c->shared->question.a = flags;
		if (r == 0)
			r = ask(c, fd, APH_AFRX_OP_SEND);
		end(c);
	}
	aph_afrx_vector_deinit(&body);
	return aph_afrx_result(r);
}

/* What has come, within what there is room for. */
static int take_message(const struct connection *c, struct msghdr *copy,
			struct aph_afrx_vector *body, uint64_t len)
{
	struct aph_afrx_answer answer = c->shared->answer;
	size_t n = answer.name_len < copy->msg_namelen ? answer.name_len : copy->msg_namelen;
	int r = 0;

	if (copy->msg_name && n <= sizeof(c->shared->name))
		r = aph_afrx_copy_out(copy->msg_name, c->shared->name, n);
	if (copy->msg_name)
		copy->msg_namelen = answer.name_len;
	if (answer.control_len > copy->msg_controllen ||
	    answer.control_len > sizeof(c->shared->control) || len > body->left)
		return -EIO;
	if (r == 0)
		r = aph_afrx_copy_out(copy->msg_control, c->shared->control, answer.control_len);
	if (r == 0)
		r = aph_afrx_vector_scatter(body, c->shared->body, len);
	copy->msg_controllen = answer.control_len;
	copy->msg_flags = answer.flags;
	return r;
}

static int64_t receive(int fd, struct msghdr *copy, struct aph_afrx_vector *body, int flags)
{
	size_t len = body->left < APH_AFRX_BODY_MAX ? body->left : APH_AFRX_BODY_MAX;
	size_t n_control = copy->msg_control ? copy->msg_controllen : 0;
	struct aph_afrx_question *q;
	struct connection *c;
	int64_t n;
	int r;

	/* The broker takes the message before it can be seen whether there is a place for it. */
	r = aph_afrx_check(copy->msg_name, copy->msg_namelen);
	if (r == 0)
		r = aph_afrx_check(copy->msg_control, n_control);
	if (r == 0)
		r = aph_afrx_vector_check(body);
	if (r < 0)
		return r;
	c = begin(fd, len, &n);
	if (!c)
		return n;
	c->body = body;
	q = &c->shared->question;
	q->a = flags;
	q->len = len;
	q->has_name = copy->msg_name != NULL;
	q->name_len = copy->msg_namelen;
	q->control_len =
		(uint32_t)(n_control < APH_AFRX_CONTROL_MAX ? n_control : APH_AFRX_CONTROL_MAX);
	copy->msg_controllen = n_control;
	n = ask(c, fd, APH_AFRX_OP_RECEIVE);
	if (n >= 0)
		r = take_message(c, copy, body, (uint64_t)n);
	end(c);
	return r < 0 ? r : n;
}

ssize_t aph_afrx_remote_recvmsg(int fd, struct msghdr *message, int flags)
{
	struct aph_afrx_vector body = { .left = 0 };
	struct msghdr copy;
	int64_t r;

	r = aph_afrx_message_copy(&copy, &body, message);
	if (r < 0)
		return aph_afrx_result(r);
	r = receive(fd, &copy, &body, flags);
	aph_afrx_vector_deinit(&body);
	if (r >= 0) {
		int copied = aph_afrx_copy_out(message, &copy, sizeof(copy));

		r = copied < 0 ? copied : r;
	}
	return aph_afrx_result(r);
}

/* -- options ----------------------------------------------------------------------------------- */

int aph_afrx_remote_setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	struct connection *c;
	int64_t r;

	if (level == SOL_SOCKET && !aph_afrx_sets_option(option))
		return (int)syscall(SYS_setsockopt, fd, level, option, value, len);
	c = begin(fd, 0, &r);
	if (!c)
		return (int)aph_afrx_result(r);
	tell_keys(c, fd);
	c->shared->question.a = level;
	c->shared->question.b = option;
	c->shared->question.len = len;
	c->shared->question.has_value = value != NULL;
	c->shared->question.is_faulty =
		value &&
		aph_afrx_copy_in(c->shared->body, value, len < VALUE_MAX ? len : VALUE_MAX) < 0;
	r = ask(c, fd, APH_AFRX_OP_SET);
	end(c);
	return (int)aph_afrx_result(r);
}

int aph_afrx_remote_getsockopt(int fd, int level, int option, void *value, socklen_t *len)
{
	struct connection *c;
	socklen_t given, n;
	int64_t r;

	if (level == SOL_SOCKET && !aph_afrx_gets_option(option))
		return (int)syscall(SYS_getsockopt, fd, level, option, value, len);
	r = aph_afrx_copy_in(&given, len, sizeof(given));
	c = r < 0 ? NULL : begin(fd, 0, &r);
	if (!c)
		return (int)aph_afrx_result(r);
	c->shared->question.a = level;
	c->shared->question.b = option;
	c->shared->question.len = given;
	r = ask(c, fd, APH_AFRX_OP_GET);
	if (r == 0) {
		n = c->shared->answer.value_len;
		if (n > given || n > APH_AFRX_BODY_MIN)
			r = -EIO;
		if (r == 0)
			r = aph_afrx_copy_out(value, c->shared->body, n);
		if (r == 0)
			r = aph_afrx_copy_out(len, &n, sizeof(n));
	}
	end(c);
	return (int)aph_afrx_result(r);
}
