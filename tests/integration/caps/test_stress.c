/* SPDX-License-Identifier: MIT */
/* Many threads and processes at once: nothing is lost, nothing comes twice, nothing hangs. */
#include "fixture.h"

#include "support/pattern.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define N_WORKERS 3
#define N_CLIENTS 4
#define BODY_MAX  40000

struct world {
	int service;
	_Atomic int served, disposed, finished;
	int rounds;
};

static void *work(void *arg)
{
	struct world *world = arg;
	char *buf = malloc(BODY_MAX);
	struct caps_msgid id;
	int n;

	CHECK(buf != NULL);
	while ((n = caps_sys_wait(world->service, buf, BODY_MAX, &id, NULL)) >= 0) {
		CHECK(n <= BODY_MAX);
		if (id.c_state == CAPMS_DISPOSE) {
			atomic_fetch_add(&world->disposed, 1);
			continue;
		}
		CHECK(id.c_state == CAPMS_REQUEST);
		CHECK_OK(caps_sys_reply(world->service, buf, n, id.c_id));
		atomic_fetch_add(&world->served, 1);
	}
	CHECK(errno == EINVAL); /* the port was closed */
	free(buf);
	atomic_fetch_add(&world->finished, 1);
	return NULL;
}

/* Puts up to eight at a time and gets them back, each with its own content. */
struct sent {
	off_t id;
	int len;
	uint32_t seed;
};

static void send_one(int client, struct sent *sent, struct rng *rng, char *buf)
{
	sent->len = (int)rng_below(rng, rng_below(rng, 8) ? 200 : BODY_MAX);
	sent->seed = (uint32_t)rng_next(rng);
	pattern_fill(buf, (size_t)sent->len, 0, sent->seed);
	sent->id = (off_t)CHECK_OK(caps_sys_put(client, buf, sent->len));
}

static void take_one(int client, struct sent *sent, int n_sent, char *buf)
{
	struct caps_msgid id;
	int i, n = (int)CHECK_OK(caps_sys_wait(client, buf, BODY_MAX, &id, NULL));

	CHECK(id.c_state == CAPMS_REPLY);
	for (i = 0; i < n_sent && sent[i].id != id.c_id; i++)
		;
	CHECK(i < n_sent);
	CHECK(n == sent[i].len);
	CHECK(pattern_check(buf, (size_t)n, 0, sent[i].seed) == (size_t)n);
	sent[i] = sent[n_sent - 1];
}

static void *call(void *arg)
{
	struct world *world = arg;
	struct rng rng = { .state = (uint64_t)(uintptr_t)&rng };
	int client = connect_to("stress", CAPF_ANYCLIENT), n_sent = 0, i;
	char *buf = malloc(BODY_MAX);
	struct sent sent[8];

	CHECK(buf != NULL);
	for (i = 0; i < world->rounds || n_sent;) {
		if (i < world->rounds && n_sent < 8 && rng_below(&rng, 2)) {
			send_one(client, &sent[n_sent++], &rng, buf);
			i++;
		} else if (n_sent) {
			take_one(client, sent, n_sent--, buf);
		}
	}
	CHECK_OK(caps_sys_close(client));
	free(buf);
	return NULL;
}

static void test_threads(void **state)
{
	struct world world = { .rounds = check_slow() ? 300 : 3000 };
	pthread_t workers[N_WORKERS], clients[N_CLIENTS];
	int i, ms;

	(void)state;
	world.service = serve("stress", CAPF_ANYCLIENT);
	for (i = 0; i < N_WORKERS; i++)
		CHECK(pthread_create(&workers[i], NULL, work, &world) == 0);
	for (i = 0; i < N_CLIENTS; i++)
		CHECK(pthread_create(&clients[i], NULL, call, &world) == 0);
	for (i = 0; i < N_CLIENTS; i++)
		CHECK(pthread_join(clients[i], NULL) == 0);
	/* Each comes back as a dispose: those of a client that is gone do wake the service. */
	for (ms = check_hang_ms(3000);
	     ms && world.disposed + world.served != 2 * N_CLIENTS * world.rounds; ms--)
		(void)usleep(1000);
	assert_int_equal(world.disposed, N_CLIENTS * world.rounds);
	assert_int_equal(world.served, N_CLIENTS * world.rounds);
	assert_int_equal(caps_sys_close(world.service), 0);
	for (i = 0; i < N_WORKERS; i++)
		CHECK(pthread_join(workers[i], NULL) == 0);
	assert_int_equal(world.finished, N_WORKERS);
}

/* Several threads on one client's port: each takes whatever comes. */
static void *share(void *arg)
{
	const int *ports = arg;
	char buf[16];
	int i, rounds = check_slow() ? 200 : 2000;

	for (i = 0; i < rounds; i++) {
		(void)put(ports[1], "ping");
		CHECK(caps_sys_wait(ports[1], buf, 16, NULL, NULL) == 4);
	}
	return NULL;
}

static void test_shared_client(void **state)
{
	struct world world = { 0 };
	pthread_t worker, sharers[3];
	int i, ports[2];

	(void)state;
	world.service = ports[0] = serve("stress", CAPF_ANYCLIENT);
	ports[1] = connect_to("stress", CAPF_ANYCLIENT);
	CHECK(pthread_create(&worker, NULL, work, &world) == 0);
	for (i = 0; i < 3; i++)
		CHECK(pthread_create(&sharers[i], NULL, share, ports) == 0);
	for (i = 0; i < 3; i++)
		CHECK(pthread_join(sharers[i], NULL) == 0);
	assert_int_equal(caps_sys_close(ports[1]), 0);
	assert_int_equal(caps_sys_close(ports[0]), 0);
	CHECK(pthread_join(worker, NULL) == 0);
}

/* Ports are opened and closed while others use theirs, and the process forks meanwhile. */
static void *churn(void *arg)
{
	const _Atomic int *stop = arg;
	char name[16];

	(void)snprintf(name, sizeof(name), "churn.%d", (int)gettid());
	while (!atomic_load(stop)) {
		int service = serve(name, CAPF_ANYCLIENT),
		    client = connect_to(name, CAPF_ANYCLIENT);
		struct caps_msgid id;
		char buf[16];

		(void)put(client, "x");
		CHECK(caps_sys_wait(service, buf, 16, &id, NULL) == 1);
		CHECK_OK(caps_sys_reply(service, "yz", 2, id.c_id));
		CHECK(caps_sys_wait(client, buf, 16, NULL, NULL) == 2);
		CHECK_OK(caps_sys_close(service));
		CHECK_OK(caps_sys_close(client));
	}
	return NULL;
}

static void test_fork_in_the_middle(void **state)
{
	int i, status, rounds = check_slow() ? 20 : 200;
	_Atomic int stop = 0;
	pthread_t threads[2];

	(void)state;
	for (i = 0; i < 2; i++)
		CHECK(pthread_create(&threads[i], NULL, churn, &stop) == 0);
	for (i = 0; i < rounds; i++) {
		pid_t pid = (pid_t)CHECK_OK(fork());

		if (pid == 0) {
			int port;

			/* Whatever was open is a dummy, and can be closed; nothing hangs. */
			for (port = 1; port < 8; port++) {
				if (caps_sys_put(port, "x", 1) < 0 && errno == ENOTCONN)
					(void)caps_sys_close(port);
			}
			_exit(0);
		}
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	}
	atomic_store(&stop, 1);
	for (i = 0; i < 2; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

/* -- a storm of deaths ------------------------------------------------------------------------- */

static int storm_service(int ctl, void *arg)
{
	int service = serve("storm", CAPF_ANYCLIENT);
	char *buf = malloc(1 << 20);
	struct caps_msgid id;

	(void)arg;
	child_say(ctl, 'r');
	for (;;) {
		int n = caps_sys_wait(service, buf, 1 << 20, &id, NULL);

		if (n < 0)
			return 1;
		if (id.c_state == CAPMS_REQUEST)
			CHECK_OK(caps_sys_reply(service, buf, n, id.c_id));
	}
}

/* The service is killed at any moment; the client gets every message back once, whole or empty. */
static void test_service_storm(void **state)
{
	struct rng rng = { .state = check_seed() };
	int round, rounds = check_slow() ? 10 : 60;
	char *buf = malloc(400000), *back = malloc(400000);

	(void)state;
	for (round = 0; round < rounds; round++) {
		struct child child;
		off_t ids[16];
		int lens[16], n = 0, i, client;

		child_start(&child, storm_service, NULL);
		CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
		client = connect_to("storm", CAPF_ANYCLIENT);
		for (i = 0; i < 16; i++) {
			int len = (int)rng_below(&rng, i % 4 ? 100 : 400000) + 1;
			off_t id;

			pattern_fill(buf, (size_t)len, 0, (uint32_t)len);
			if (i == 8) {
				(void)usleep(rng_below(&rng, 2000));
				child_signal(&child, SIGKILL);
			}
			id = caps_sys_put(client, buf, len);
			if (id < 0) {
				CHECK(errno == ENOTCONN);
				break;
			}
			ids[n] = id;
			lens[n++] = len;
		}
		while (n) {
			struct caps_msgid id;
			int len = (int)CHECK_OK(caps_sys_wait(client, back, 400000, &id, NULL));

			for (i = 0; i < n && ids[i] != id.c_id; i++)
				;
			CHECK(i < n);
			CHECK(len == 0 || len == lens[i]);
			CHECK(pattern_check(back, (size_t)len, 0, (uint32_t)lens[i]) ==
			      (size_t)len);
			ids[i] = ids[n - 1];
			lens[i] = lens[--n];
		}
		FAILS(caps_sys_put(client, "x", 1), ENOTCONN);
		FAILS(caps_sys_wait(client, back, 1, NULL, NULL), ENOTCONN);
		CHECK_OK(caps_sys_close(client));
		CHECK(child_finish(&child, check_hang_ms(5000)) == CHILD_SIGNALLED + SIGKILL);
		dir_remove_sockets();
	}
	free(buf);
	free(back);
}

static int storm_client(int ctl, void *arg)
{
	struct rng rng = { .state = (uint64_t)getpid() };
	int client = connect_to("storm", CAPF_ANYCLIENT);
	char *buf = calloc(1, 400000);
	struct caps_msgid id;

	(void)arg;
	child_say(ctl, 'r');
	for (;;) {
		int n = 0, i;

		for (i = 0; i < 4; i++)
			n += caps_sys_put(client, buf, (int)rng_below(&rng, i ? 100 : 400000)) >= 0;
		if (n != 4)
			return 1;
		for (i = 0; i < 4; i++)
			CHECK_OK(caps_sys_wait(client, buf, 400000, &id, NULL));
	}
}

/*
 * Clients are killed at any moment; the service gets each retrieved request back once as a dispose.
 */
static void test_client_storm(void **state)
{
	struct rng rng = { .state = check_seed() };
	int round, rounds = check_slow() ? 10 : 60, service, held = 0, ms;
	char *buf = malloc(400000);
	struct caps_msgid id;

	(void)state;
	service = serve("storm", CAPF_ANYCLIENT);
	for (round = 0; round < rounds; round++) {
		int n_events = (int)rng_below(&rng, 300);
		struct child child;

		child_of_threads(&child, storm_client, NULL);
		CHECK(child_hear(child.ctl, check_hang_ms(5000)) == 'r');
		while (n_events--) {
			int n = (int)CHECK_OK(caps_sys_wait(service, buf, 400000, &id, NULL));

			held += id.c_state == CAPMS_REQUEST ? 1 : -1;
			if (id.c_state == CAPMS_REQUEST)
				CHECK_OK(caps_sys_reply(service, buf, n, id.c_id));
		}
		child_kill(&child);
	}
	for (ms = check_hang_ms(3000); held && ms; ms--) {
		while (caps_sys_get(service, buf, 400000, &id, NULL) >= 0) {
			CHECK(id.c_state == CAPMS_DISPOSE);
			held--;
		}
		(void)usleep(1000);
	}
	assert_int_equal(held, 0);
	expect_nothing(service);
	assert_int_equal(caps_sys_close(service), 0);
	free(buf);
}

/* -- threads that wait on one port ------------------------------------------------------------- */

struct waiting {
	pthread_t thread;
	int port, n, e;
	bool get;
	struct caps_msgid id;
	_Atomic bool done;
};

static void *wait_for_one(void *arg)
{
	struct waiting *w = arg;
	char buf[16];

	if (w->get)
		w->n = caps_sys_get(w->port, buf, sizeof(buf), &w->id, NULL);
	else
		w->n = caps_sys_wait(w->port, buf, sizeof(buf), &w->id, NULL);
	w->e = errno;
	atomic_store(&w->done, true);
	return NULL;
}

static void wait_begin(struct waiting *w, int port, bool get)
{
	*w = (struct waiting){ .port = port, .get = get };
	assert_int_equal(pthread_create(&w->thread, NULL, wait_for_one, w), 0);
}

static bool wait_is_done(struct waiting *w, int ms)
{
	for (; ms > 0 && !atomic_load(&w->done); ms--)
		(void)usleep(1000);
	return atomic_load(&w->done);
}

/* What one thread calls back is for the other to retrieve, and no event comes of it. */
static void test_abort_wakes(void **state)
{
	static char body[2 << 20];
	int service = serve("storm", CAPF_ANYCLIENT), client = connect_to("storm", CAPF_ANYCLIENT);
	struct waiting waiting;
	off_t id;

	(void)state;
	(void)CHECK_OK(caps_sys_put(client, body, sizeof(body)));
	id = (off_t)CHECK_OK(caps_sys_put(client, body, sizeof(body)));
	wait_begin(&waiting, client, false);
	assert_false(wait_is_done(&waiting, 50));
	assert_int_equal(caps_sys_abort(client, id, 0), CAPS_ABORT_BEFORESERVER);
	assert_true(wait_is_done(&waiting, check_hang_ms(3000)));
	assert_int_equal(pthread_join(waiting.thread, NULL), 0);
	assert_int_equal(waiting.n, 0);
	assert_true(waiting.id.c_id == id);
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

/* Both find the attendant receiving; whoever comes second after it is not to wait for the other. */
static void test_get_does_not_wait(void **state)
{
	int service = serve("storm", CAPF_ANYCLIENT), client = connect_to("storm", CAPF_ANYCLIENT);
	int i;

	(void)state;
	(void)CHECK_OK(caps_upcall_fd(service));
	for (i = 0; i < 40; i++) {
		struct waiting get, wait;

		(void)usleep(1000);
		wait_begin(&wait, service, false);
		wait_begin(&get, service, true);
		assert_true(wait_is_done(&get, check_hang_ms(3000)));
		(void)put(client, "x");
		assert_true(wait_is_done(&wait, check_hang_ms(3000)));
		assert_int_equal(pthread_join(get.thread, NULL), 0);
		assert_int_equal(pthread_join(wait.thread, NULL), 0);
	}
	assert_int_equal(caps_sys_close(client), 0);
	assert_int_equal(caps_sys_close(service), 0);
}

static void on_signal(int number)
{
	(void)number;
}

/* The thread that receives, and the one that waits for its turn. */
static void test_every_thread_is_interrupted(void **state)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	int service = serve("storm", CAPF_ANYCLIENT), i;
	struct waiting waiting[2];

	(void)state;
	(void)sigaction(SIGUSR1, &action, NULL);
	for (i = 0; i < 2; i++) {
		wait_begin(&waiting[i], service, false);
		assert_false(wait_is_done(&waiting[i], 50));
	}
	for (i = 2; i-- > 0;) {
		CHECK(pthread_kill(waiting[i].thread, SIGUSR1) == 0);
		assert_true(wait_is_done(&waiting[i], check_hang_ms(3000)));
		assert_int_equal(pthread_join(waiting[i].thread, NULL), 0);
		assert_int_equal(waiting[i].n, -1);
		assert_int_equal(waiting[i].e, EINTR);
	}
	(void)signal(SIGUSR1, SIG_DFL);
	assert_int_equal(caps_sys_close(service), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		SENTENCE("several threads serve a port, several clients call it", test_threads),
		SENTENCE("several threads use one client's port", test_shared_client),
		SENTENCE("fork while other threads open, use and close ports",
			 test_fork_in_the_middle),
		SENTENCE("a service is killed at any moment", test_service_storm),
		SENTENCE("clients are killed at any moment", test_client_storm),
		SENTENCE("what one thread aborts wakes another that waits", test_abort_wakes),
		SENTENCE("get: does not wait behind a thread that does", test_get_does_not_wait),
		SENTENCE("wait: EINTR also for a thread behind another, with SA_RESTART",
			 test_every_thread_is_interrupted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
