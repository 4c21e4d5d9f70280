/* SPDX-License-Identifier: MIT */
/*
 * A service that is to be the only one waits for others to give way: threads of its endpoint do not
 * wait with it.
 */
#include "suite.h"

#include "local/rendezvous.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <time.h>
#include <unistd.h>

static struct aph_endpoint *ep;
static unsigned n_naps;
static int dir, rival;
static char file[APH_RENDEZVOUS_FILE_MAX + 1];

int __wrap_nanosleep(const struct timespec *time, struct timespec *left);

static void *use_endpoint(void *arg)
{
	struct aph_event event;

	(void)arg;
	CHECK(aph_endpoint_next(ep, &event, APH_NOW) == -EAGAIN);
	return NULL;
}

/* In place of a nap; the rival gives way in the second one. */
int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
	pthread_t thread;

	(void)time;
	(void)left;
	/* For ever, if whoever naps holds the lock. */
	CHECK(pthread_create(&thread, NULL, use_endpoint, NULL) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
	if (++n_naps == 2) {
		CHECK(unlinkat(dir, file, 0) == 0);
		close(rival);
	}
	return 0;
}

static void *be_there(void *arg)
{
	CHECK(sem_wait(arg) == 0);
	return NULL;
}

static void naps_without_the_lock(void **state)
{
	const struct aph_name name = { .name = "only", .uid = geteuid(), .gid = APH_ID_ANY };
	struct aph_service_options options = { .size = sizeof(options),
					       .flags = APH_SERVICE_EXCLUSIVE };
	char path[PATH_MAX];
	pthread_t other;
	sem_t done;

	(void)state;
	/* With one thread there is no lock. */
	assert_int_equal(sem_init(&done, 0, 0), 0);
	assert_int_equal(pthread_create(&other, NULL, be_there, &done), 0);
	dir = aph_rendezvous_open(path);
	assert_true(dir >= 0);
	/* Newer than anything: it may give way. */
	aph_rendezvous_format(file, &name, UINT64_MAX);
	rival = aph_rendezvous_listen(dir, file);
	assert_true(rival >= 0);
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, ep, "only", &options), 0);
	assert_int_equal(n_naps, 2);
	aph_endpoint_free(ep);
	close(dir);
	assert_int_equal(sem_post(&done), 0);
	assert_int_equal(pthread_join(other, NULL), 0);
	sem_destroy(&done);
}

int main(void)
{
	const struct CMUnitTest tests[] = { SUITE_TEST(naps_without_the_lock) };

	return suite_run("exclusive", tests, sizeof(tests) / sizeof(tests[0]), 60);
}
