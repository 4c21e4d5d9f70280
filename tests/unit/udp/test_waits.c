/* SPDX-License-Identifier: MIT */
/*
 * The driver between an engine made for tests and plain sockets on loopback: when a wait ends, who
 * else gets in meanwhile, what is left of it after fork(), and which options it refuses.
 */
#include "driver.h"
#include "fds.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* -- waiting ----------------------------------------------------------------------------------- */

static void a_wait_ends_in_time(void **state)
{
	static const unsigned waits_ms[] = { 0, 1, 12, 30 };
	uint64_t start;

	(void)state;
	open_with(0);
	for (size_t i = 0; i < 4; i++) {
		start = aph_rx_udp_now();
		assert_int_equal(aph_rx_udp_wait(udp, waits_ms[i] ? aph_deadline_ms(waits_ms[i])
								  : APH_NOW),
				 -ETIMEDOUT);
		assert_true(aph_rx_udp_now() - start >=
			    (waits_ms[i] ? waits_ms[i] - 1 : 0) * UINT64_C(1000000));
	}
	/* The engine's deadline is not the user's. */
	start = aph_rx_udp_now();
	engine->deadline_ns = start + 500000;
	assert_int_equal(aph_rx_udp_wait(udp, aph_deadline_ms(20)), -ETIMEDOUT);
	assert_int_equal(engine->n_ticks, 1);
	engine->deadline_ns = aph_deadline_ms(3);
	assert_int_equal(aph_rx_udp_wait(udp, aph_deadline_ms(20)), -ETIMEDOUT);
	assert_int_equal(engine->n_ticks, 2);
	engine->n_events = 1;
	assert_int_equal(aph_rx_udp_wait(udp, APH_FOREVER), 0);
	close_driver();
}

static void *wake_later(void *arg)
{
	struct timespec delay = { .tv_nsec = *(long *)arg };

	nanosleep(&delay, NULL);
	CHECK_OK(aph_rx_udp_wake(udp));
	return NULL;
}

static void is_woken(void **state)
{
	/* While it spins, sleeps in recvmsg(), sleeps in poll. */
	static long delays_ns[] = { 0, 10000, 100000, 1000000, 3000000, 30000000 };
	pthread_t thread;

	(void)state;
	open_with(0);
	assert_int_equal(aph_rx_udp_wake(udp), 0);
	assert_int_equal(aph_rx_udp_wake(udp), 0);
	assert_int_equal(aph_rx_udp_wait(udp, APH_FOREVER), -ECANCELED);
	assert_int_equal(aph_rx_udp_wait(udp, APH_NOW), -ETIMEDOUT);
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(pthread_create(&thread, NULL, wake_later, &delays_ns[i]), 0);
		assert_int_equal(aph_rx_udp_wait(udp, APH_FOREVER), -ECANCELED);
		assert_int_equal(pthread_join(thread, NULL), 0);
	}
	close_driver();
}

static void on_alarm(int number)
{
	(void)number;
	(void)aph_rx_udp_wake(udp);
}

static void is_woken_by_a_handler(void **state)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART }, old;
	struct itimerval soon = { .it_value.tv_usec = 2000 };
	int r;

	(void)state;
	open_with(0);
	assert_int_equal(sigaction(SIGALRM, &action, &old), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
	r = aph_rx_udp_wait(udp, APH_FOREVER);
	assert_true(r == -EINTR || r == -ECANCELED);
	if (r == -EINTR)
		assert_int_equal(aph_rx_udp_wait(udp, APH_FOREVER), -ECANCELED);
	assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
	close_driver();
}

static bool is_readable(int fd, int wait_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, wait_ms) == 1;
}

/*
 * An error that another process at the socket has met first: the descriptor tells of it, and then
 * no more.
 */
static void errors_that_no_call_tells_of(void **state)
{
	struct aph_rx_address nobody = v4(INADDR_LOOPBACK, 0);
	socklen_t len = sizeof(int);
	int fd, error, sock;

	(void)state;
	open_with(0);
	close(plain_socket(&nobody));
	fd = aph_rx_udp_fd(udp);
	assert_int_equal(aph_rx_udp_descriptors(udp, &sock, 1), 6);
	assert_int_equal(aph_rx_udp_wait(udp, APH_NOW), -ETIMEDOUT);
	nobody.in6 =
		(struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = nobody.in.sin_port };
	memcpy(&nobody.in6.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
	assert_int_equal(sendto(sock, run, 60, 0, &nobody.any, sizeof(nobody.in6)), 60);
	assert_true(is_readable(fd, check_ms(2000)));
	assert_int_equal(getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	assert_int_equal(error, ECONNREFUSED);
	assert_int_equal(aph_rx_udp_wait(udp, APH_NOW), -ETIMEDOUT);
	assert_int_equal(engine->n_errors, 1);
	assert_false(is_readable(fd, 0));
	close_driver();
}

static void has_a_descriptor_to_poll(void **state)
{
	int fd;

	(void)state;
	open_with(0);
	engine->receiving_is_event = true;
	fd = aph_rx_udp_fd(udp);
	assert_true(fd >= 0);
	assert_int_equal(aph_rx_udp_fd(udp), fd);
	assert_false(is_readable(fd, 0));
	/* A datagram. */
	send_from(peer, run, 40, 0);
	assert_true(is_readable(fd, check_ms(2000)));
	assert_int_equal(aph_rx_udp_wait(udp, APH_NOW), 0);
	/* An event that is there. */
	assert_true(is_readable(fd, 0));
	engine->n_events = 0;
	assert_int_equal(aph_rx_udp_wait(udp, APH_NOW), -ETIMEDOUT);
	assert_false(is_readable(fd, 0));
	/* A deadline. */
	engine->deadline_ns = aph_deadline_ms(2);
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	assert_false(is_readable(fd, 0));
	assert_true(is_readable(fd, check_ms(2000)));
	assert_int_equal(aph_rx_udp_wait(udp, APH_NOW), -ETIMEDOUT);
	assert_int_equal(engine->n_ticks, 1);
	assert_false(is_readable(fd, 0));
	/* A wake. */
	assert_int_equal(aph_rx_udp_wake(udp), 0);
	assert_true(is_readable(fd, 0));
	assert_int_equal(aph_rx_udp_wait(udp, APH_NOW), -ECANCELED);
	assert_false(is_readable(fd, 0));
	close_driver();
}

/* -- several threads --------------------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void lock(void *arg)
{
	(void)arg;
	CHECK(pthread_mutex_lock(&mutex) == 0);
}

static void unlock(void *arg)
{
	(void)arg;
	CHECK(pthread_mutex_unlock(&mutex) == 0);
}

/*
 * Changes the engine while another thread sleeps: it has to see the deadline, and then the event.
 */
static void *use_it_meanwhile(void *arg)
{
	struct timespec delay = { .tv_nsec = *(long *)arg };

	nanosleep(&delay, NULL);
	lock(NULL);
	engine_put(&to_peer, run, 60, 60, 0);
	engine->deadline_ns = aph_rx_udp_now() + 1000000;
	CHECK_OK(aph_rx_udp_flush(udp));
	unlock(NULL);
	while (true) {
		unsigned n;

		lock(NULL);
		n = engine->n_ticks;
		if (n) {
			engine->n_events = 1;
			CHECK_OK(aph_rx_udp_flush(udp));
		}
		unlock(NULL);
		if (n)
			return NULL;
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
}

static void lets_others_in(void **state)
{
	static long delays_ns[] = { 0, 1000000, 20000000 };
	pthread_t thread;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		open_driver(&(struct aph_rx_udp_options){ .lock = lock, .unlock = unlock });
		lock(NULL);
		assert_int_equal(pthread_create(&thread, NULL, use_it_meanwhile, &delays_ns[i]), 0);
		assert_int_equal(aph_rx_udp_wait(udp, APH_FOREVER), 0);
		unlock(NULL);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_int_equal(recv(peer, run, sizeof(run), 0), 60);
		close_driver();
	}
}

/* -- fork -------------------------------------------------------------------------------------- */

/* In a child the driver has no descriptors and says nothing to anybody; the parent's goes on. */
static void is_the_parents(void **state)
{
	struct fds before;
	int status;
	pid_t pid;

	(void)state;
	fds_take(&before);
	open_with(0);
	assert_true(aph_rx_udp_fd(udp) >= 0);
	engine_put(&to_peer, run, 60, 60, 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		CHECK(close(peer) == 0);
		CHECK(fds_differ(&before) == 0);
		CHECK(aph_rx_udp_flush(udp) == -ENOTCONN);
		CHECK(aph_rx_udp_wait(udp, APH_FOREVER) == -ENOTCONN);
		CHECK(aph_rx_udp_wake(udp) == -ENOTCONN);
		CHECK(aph_rx_udp_fd(udp) == -ENOTCONN);
		CHECK(aph_rx_udp_close(udp) == NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(recv(peer, run, sizeof(run), MSG_DONTWAIT), -1);
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	assert_int_equal(recv(peer, run, sizeof(run), 0), 60);
	close_driver();
	assert_int_equal(fds_differ(&before), 0);
}

static void refuses_nonsense(void **state)
{
	struct aph_rx_config config = { .size = sizeof(config) - 1 };
	struct aph_rx_udp_options options = { .size = 1 };
	struct aph_rx_udp *none = NULL;

	(void)state;
	assert_int_equal(aph_rx_udp_open(&none, &options), -EINVAL);
	options.size = sizeof(options);
	options.config = &config;
	assert_int_equal(aph_rx_udp_open(&none, &options), -EINVAL);
	options.config = NULL;
	options.lock = lock;
	assert_int_equal(aph_rx_udp_open(&none, &options), -EINVAL);
	options.lock = NULL;
	options.local.family = AF_UNIX;
	assert_int_equal(aph_rx_udp_open(&none, &options), -EAFNOSUPPORT);
	options.local = v4(0xc0000201, 0); /* 192.0.2.1 is nobody's */
	assert_int_equal(aph_rx_udp_open(&none, &options), -EADDRNOTAVAIL);
	assert_null(none);
	assert_null(aph_rx_udp_close(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(a_wait_ends_in_time),      SUITE_TEST(is_woken),
		SUITE_TEST(is_woken_by_a_handler),    SUITE_TEST(errors_that_no_call_tells_of),
		SUITE_TEST(has_a_descriptor_to_poll), SUITE_TEST(lets_others_in),
		SUITE_TEST(is_the_parents),	      SUITE_TEST(refuses_nonsense),
	};

	return suite_run("udp waits", tests, SUITE_LEN(tests), 60);
}
