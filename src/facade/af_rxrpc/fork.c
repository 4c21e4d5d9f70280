/* SPDX-License-Identifier: MIT */
/*
 * The moment in which sockets move to a broker: around fork(), with the lock held, so that no
 * engine is at work. The child begins the broker, as nothing but its one thread runs there, and
 * memory that other threads of the parent were just changing is whole again. Parent and child wait
 * until it is there. If it does not come, the parent goes on with the sockets, and those of the
 * child are dead.
 */
#include "share.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME_PREFIX "afrxrpc/"

static uint64_t id[2];	 /* of the broker that would get the sockets made now; 0: not drawn yet */
static unsigned n_named; /* inner ends of it */
static int reserved =
	-1; /* has the name at which that broker will listen, so that nobody takes it; or -1 */
static uint64_t
	reserved_cookie; /* a program may close what it does not know, and get the number again */
static int ready[2];	 /* during a fork: the broker writes, parent and child read */
static bool is_moving;	 /* during a fork: there are sockets, and there is a pipe */
static pid_t process;	 /* whose sockets these are */
static _Thread_local bool
	has_moved; /* with the last fork of this thread, or there was nothing to move */

/* -- names ------------------------------------------------------------------------------------- */

static socklen_t make_name(struct sockaddr_un *out, unsigned n)
{
	int len;

	memset(out, 0, sizeof(*out));
	out->sun_family = AF_UNIX;
	len = snprintf(out->sun_path + 1, sizeof(out->sun_path) - 1,
		       NAME_PREFIX "%016llx%016llx/%u", (unsigned long long)id[0],
		       (unsigned long long)id[1], n);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

static bool is_reserved(void)
{
	uint64_t cookie;

	return reserved >= 0 && aph_afrx_cookie(reserved, &cookie) == 0 &&
	       cookie == reserved_cookie;
}

/* Lets go of the name here; a broker that has it keeps it. */
void aph_afrx_name_drop(void)
{
	if (is_reserved())
		(void)syscall(SYS_close, reserved);
	reserved = -1;
	id[0] = 0;
	n_named = 0;
}

/* Nobody can connect to it before it is listened at, which only a broker does that is ready. */
static int reserve_name(void)
{
	struct sockaddr_un name;
	socklen_t len = make_name(&name, 0);
	int r;

	reserved = (int)syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (reserved < 0)
		return -errno;
	r = aph_afrx_cookie(reserved, &reserved_cookie);
	if (r == 0 && syscall(SYS_bind, reserved, &name, len) < 0)
		r = -errno;
	if (r < 0) {
		(void)syscall(SYS_close, reserved);
		reserved = -1;
	}
	return r;
}

static int draw_id(void)
{
	int r;

	if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id) || id[0] == 0)
		r = -EAGAIN;
	else
		r = reserve_name();
	if (r < 0)
		id[0] = 0;
	return r;
}

int aph_afrx_name_inner(int inner)
{
	struct sockaddr_un name;
	socklen_t len;
	int r = id[0] ? 0 : draw_id();

	if (r < 0)
		return r;
	len = make_name(&name, ++n_named);
	return syscall(SYS_bind, inner, &name, len) < 0 ? -errno : 0;
}

int aph_afrx_broker_of(int outer, struct sockaddr_un *out, socklen_t *len)
{
	size_t prefix = offsetof(struct sockaddr_un, sun_path) + 1, n;

	*len = sizeof(*out);
	if (syscall(SYS_getpeername, outer, out, len) < 0 || *len > sizeof(*out) ||
	    *len <= prefix + strlen(NAME_PREFIX) || out->sun_family != AF_UNIX ||
	    out->sun_path[0] != '\0' ||
	    memcmp(out->sun_path + 1, NAME_PREFIX, strlen(NAME_PREFIX)) != 0)
		return -ENOTSOCK;
	/* The number behind the last slash becomes 0. */
	for (n = *len - prefix; n && out->sun_path[n] != '/'; n--)
		;
	if (n + 1 >= sizeof(out->sun_path) - 1)
		return -ENOTSOCK;
	out->sun_path[n + 1] = '0';
	*len = (socklen_t)(prefix + n + 1);
	return 0;
}

pid_t aph_afrx_process(void)
{
	return process;
}

/* -- fork -------------------------------------------------------------------------------------- */

static void before_fork(void)
{
	aph_afrx_hold();
	aph_afrx_enter();
	aph_afrx_endpoints_park();
	is_moving = aph_afrx_n_sockets() > 0 && pipe2(ready, O_CLOEXEC) == 0;
}

/* Whether the broker is there. */
static bool await_broker(void)
{
	char byte;
	ssize_t n;

	(void)syscall(SYS_close, ready[1]);
	do {
		n = syscall(SYS_read, ready[0], &byte, sizeof(byte));
	} while (n < 0 && errno == EINTR);
	(void)syscall(SYS_close, ready[0]);
	return n == 1;
}

static void move(struct aph_afrx_socket *s)
{
	/* Without memory for that its descriptors are not known any more, and that is all. */
	(void)aph_afrx_remote_add(s->cookie);
	aph_afrx_socket_moved(s);
}

static void move_all(bool forked)
{
	aph_afrx_for_each(move);
	aph_afrx_endpoints_forget(forked);
	aph_afrx_name_drop();
}

static void after_fork_in_parent(void)
{
	int saved = errno;

	if (is_moving && await_broker())
		move_all(false);
	has_moved = aph_afrx_n_sockets() == 0;
	is_moving = false;
	aph_afrx_endpoints_unpark(false);
	aph_afrx_endpoints_bury();
	errno = saved;
	aph_afrx_leave();
	aph_afrx_release();
}

/*
 * The broker is nobody's child, so that no wait() of the program meets it: it is made by a process
 * that ends at once, and whose end sends no signal. The argument-free form of clone() is the same
 * on all machines.
 */
static void begin_broker(void)
{
	pid_t between;

	/* The program has closed it, it may be: then the name can be had again. */
	if (!is_reserved() && reserve_name() < 0)
		return;
	between = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
	if (between == 0) {
		if (_Fork() == 0) {
			process = getpid();
			aph_afrx_broker_run(reserved, ready[1]);
		}
		_exit(0);
	}
	if (between > 0)
		while (waitpid(between, NULL, __WALL) < 0 && errno == EINTR)
			;
}

static void after_fork_in_child(void)
{
	int saved = errno;

	process = getpid();
	aph_afrx_endpoints_unpark(true);
	aph_afrx_remote_forget();
	if (is_moving) {
		begin_broker();
		(void)await_broker();
	}
	/* The engines are the broker's or the parent's, by whom the sockets are found. */
	move_all(true);
	is_moving = false;
	errno = saved;
	aph_afrx_leave();
	aph_afrx_release();
}

static void watch_fork(void)
{
	/* Before, nothing told us of a fork. */
	process = getpid();
	(void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void aph_afrx_fork_begin(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, watch_fork);
}

/* -- other ways of starting a program ---------------------------------------------------------- */

/* A child of the program, too, that it may not have heard of. */
static bool has_news_of_children(void)
{
	siginfo_t info = { 0 };
	const int all = WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT;

	return waitid(P_ALL, 0, &info, all) == 0 && info.si_pid != 0;
}

/*
 * The child's end is ours alone to know. Signals of the program's children, of which one stands for
 * all, go to it.
 */
static void take_signal(const sigset_t *set, pid_t child)
{
	struct timespec none = { 0 };
	siginfo_t info;

	if (sigtimedwait(set, &info, &none) == SIGCHLD &&
	    (info.si_pid != child || has_news_of_children()))
		(void)kill(getpid(), SIGCHLD);
}

APH_API int aph_rxrpc_share(void)
{
	sigset_t set, old;
	pid_t child;

	/* Not in a child that shares our memory (vfork), where this would be done to its parent. */
	if (aph_afrx_n_sockets() == 0 || getpid() != process)
		return 0;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	aph_afrx_hold();
	(void)pthread_sigmask(SIG_BLOCK, &set, &old);
	child = fork();
	if (child == 0)
		_exit(0);
	if (child > 0) {
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
		take_signal(&set, child);
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	aph_afrx_release();
	return (int)aph_afrx_result(has_moved ? 0 : -EAGAIN);
}

/* -- a program that was started with sockets --------------------------------------------------- */

static void find_inherited(int fd)
{
	struct sockaddr_un name;
	socklen_t len;
	uint64_t cookie;

	if (aph_afrx_broker_of(fd, &name, &len) < 0 || aph_afrx_cookie(fd, &cookie) < 0)
		return;
	aph_afrx_fork_begin();
	(void)aph_afrx_remote_add(cookie);
}

__attribute__((constructor)) static void begin_program(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	process = getpid();
	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			find_inherited((int)strtol(entry->d_name, NULL, 10));
	(void)closedir(dir);
}
