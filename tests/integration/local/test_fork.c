/* SPDX-License-Identifier: MIT */
/*
 * A process forks while it has an endpoint: the child's copy answers -ENOTCONN and lets go, and
 * nothing that the child does or fails to do disturbs the parent or its peers.
 */
#include "suite.h"

#include "fds.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct client parent;
static struct aph_call *parent_call;

/* Everything a child may try on what it inherited; then a new life of its own. */
static int child_uses_it(int ctl, void *arg)
{
	struct aph_event ev;
	struct aph_call *call;
	struct aph_channel *channel;
	struct client own;
	char byte;

	(void)arg;
	(void)ctl;
	CHECK(aph_endpoint_next(parent.ep, &ev, APH_NOW) == -ENOTCONN);
	CHECK(aph_endpoint_next(parent.ep, &ev, APH_FOREVER) == -ENOTCONN);
	CHECK(aph_endpoint_fd(parent.ep) == -ENOTCONN);
	CHECK(aph_endpoint_serve(parent.ep, APH_NOW) == -ENOTCONN);
	CHECK(aph_endpoint_wake(parent.ep) == -ENOTCONN);
	CHECK(aph_channel_pidfd(parent.channel) == -ENOTCONN);
	CHECK(aph_call_new(&call, parent.channel, APH_FOREVER, NULL) == -ENOTCONN);
	CHECK(aph_call(parent.channel, "e", 1, NULL, NULL, APH_FOREVER) == -ENOTCONN);
	CHECK(aph_channel_open(&channel, parent.ep, "fork", NULL) == -ENOTCONN);
	CHECK(aph_service_open(NULL, parent.ep, "other", NULL) == -ENOTCONN);
	CHECK(aph_call_wait(parent_call, APH_NOW) == -ENOTCONN);
	CHECK(aph_call_send(parent_call, "x", 1, 0) == -EPIPE);
	CHECK(aph_call_cancel(parent_call) == -EALREADY);
	CHECK(aph_call_read(parent_call, &byte, 1) == -EPIPE);
	CHECK(!aph_channel_is_open(parent.channel));
	aph_call_free(parent_call);
	aph_channel_close(parent.channel);
	CHECK(aph_endpoint_free(parent.ep) == NULL);
	client_open(&own, "fork");
	client_echo(own.channel);
	client_close(&own);
	return 0;
}

static int child_frees_only(int ctl, void *arg)
{
	(void)arg;
	(void)ctl;
	aph_endpoint_free(parent.ep);
	return 0;
}

static int child_does_nothing(int ctl, void *arg)
{
	(void)arg;
	(void)ctl;
	return 0;
}

/*
 * child.c compares descriptors: those that the library lets go of are fewer than before, not more.
 */
static int run_child(int (*run)(int ctl, void *arg))
{
	struct child child;
	int status;

	child_start(&child, run, NULL);
	status = child_finish(&child, check_hang_ms(5000));
	return status == CHILD_LEAKED ? 0 : status;
}

static void the_parent_goes_on(void **state)
{
	static int (*const children[])(int, void *) = { child_uses_it, child_frees_only,
							child_does_nothing };
	struct service service;
	char reply[8];
	size_t len;

	(void)state;
	service_start_simple(&service, suite_mode, "fork");
	client_open(&parent, "fork");
	for (size_t i = 0; i < SUITE_LEN(children); i++) {
		parent_call = client_begin(parent.channel, "h", 1, APH_FOREVER);
		service_await(&service.seen->held, 1);
		assert_int_equal(run_child(children[i]), 0);
		client_echo(parent.channel);
		assert_int_equal(service.seen->held, 1);
		assert_int_equal(aph_call(parent.channel, "w", 1, NULL, NULL, APH_FOREVER), 0);
		len = sizeof(reply);
		assert_int_equal(client_end(parent.ep, parent_call, reply, &len).outcome,
				 APH_ANSWERED);
		assert_int_equal(len, 5);
		aph_call_free(parent_call);
	}
	client_quiet(parent.ep, 10);
	client_close(&parent);
	service_stop(&service);
}

static int child_frees_the_call_first(int ctl, void *arg)
{
	(void)arg;
	(void)ctl;
	aph_call_free(parent_call);
	aph_endpoint_free(parent.ep);
	return 0;
}

/*
 * What else has a deadline at the endpoint outlives the call: here a channel that is not open yet.
 */
static void a_call_with_a_deadline_goes_first(void **state)
{
	struct aph_channel_options async = { .size = sizeof(async), .flags = APH_CHANNEL_ASYNC };
	struct aph_endpoint *idle;
	struct aph_channel *channel;
	struct service service;

	(void)state;
	service_start_simple(&service, suite_mode, "fork");
	client_open(&parent, "fork");
	assert_int_equal(aph_endpoint_new(&idle, NULL), 0);
	assert_int_equal(aph_service_open(NULL, idle, "idle", NULL), 0);
	assert_int_equal(aph_channel_open(&channel, parent.ep, "idle", &async), 0);
	parent_call = client_begin(parent.channel, "h", 1, aph_deadline_ms(1000000));
	assert_int_equal(run_child(child_frees_the_call_first), 0);
	aph_call_free(parent_call);
	client_close(&parent);
	aph_endpoint_free(idle);
	service_stop(&service);
}

static void *take_nothing(void *arg)
{
	struct aph_event ev;

	(void)arg;
	CHECK(aph_endpoint_next(parent.ep, &ev, APH_FOREVER) == -ECANCELED);
	return NULL;
}

static void *call_and_wait(void *arg)
{
	(void)arg;
	CHECK(aph_call(parent.channel, "h", 1, NULL, NULL, APH_FOREVER) == APH_ANSWERED);
	return NULL;
}

static bool is_asleep(const char *tid)
{
	char path[300], line[512] = "";
	const char *at;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%s/stat", tid);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_non_null(fgets(line, sizeof(line), file));
	fclose(file);
	at = strrchr(line, ')');
	return at && at[1] && at[2] == 'S';
}

/* Waits until `n` threads, all but this one, sleep. */
static void await_sleepers(int n)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	const struct dirent *entry;
	int asleep;
	DIR *dir;

	for (int ms = check_hang_ms(5000); ms; ms--) {
		asleep = 0;
		dir = opendir("/proc/self/task");
		assert_non_null(dir);
		while ((entry = readdir(dir)))
			asleep += entry->d_name[0] != '.' && is_asleep(entry->d_name);
		closedir(dir);
		if (asleep >= n)
			return;
		nanosleep(&nap, NULL);
	}
	fail_msg("the threads do not come to rest");
}

/*
 * The threads are not the child's: their calls are freed with the endpoint, and nobody waits for
 * them. Of three one leads, and two wait for it, one for an event and one for its call, or two for
 * events.
 */
static void while_threads_wait(void **state)
{
	void *(*const waits[])(void *) = { take_nothing, take_nothing, call_and_wait };
	struct service service;
	pthread_t threads[3];

	(void)state;
	service_start_simple(&service, suite_mode, "fork");
	client_open(&parent, "fork");
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, waits[i], NULL), 0);
	service_await(&service.seen->held, 1);
	await_sleepers(3);
	assert_int_equal(run_child(child_frees_only), 0);
	assert_int_equal(aph_call(parent.channel, "w", 1, NULL, NULL, APH_FOREVER), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(aph_endpoint_wake(parent.ep), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	client_close(&parent);
	service_stop(&service);
}

static struct aph_endpoint *service_ep;
static struct aph_service *service_handle;

static int child_of_the_service(int ctl, void *arg)
{
	struct aph_event ev;

	(void)arg;
	(void)ctl;
	CHECK(aph_endpoint_next(service_ep, &ev, APH_NOW) == -ENOTCONN);
	CHECK(aph_service_set_generation(service_handle, 9) == -ENOTCONN);
	aph_service_close(service_handle);
	aph_endpoint_free(service_ep);
	return 0;
}

static int client_process(int ctl, void *arg)
{
	struct client client;

	(void)arg;
	client_open(&client, "forking");
	for (int i = 0; i < 3; i++) {
		client_echo(client.channel);
		child_say(ctl, '1');
		CHECK(child_hear(ctl, check_hang_ms(10000)) == '2');
	}
	CHECK(aph_channel_generation(client.channel) == 0);
	client_close(&client);
	return 0;
}

static void echo_one(void)
{
	struct aph_event ev;
	char buf[64];
	ssize_t n;

	client_next(service_ep, &ev, 3000);
	assert_int_equal(ev.type, APH_EVENT_REQUEST);
	n = aph_call_read(ev.call, buf, sizeof(buf));
	assert_true(n > 0);
	assert_int_equal(aph_call_reply(ev.call, buf, (size_t)n), 0);
}

/* A forked service's child must not take the name away, nor the channels. */
static void the_service_goes_on(void **state)
{
	struct child client;

	(void)state;
	assert_int_equal(aph_endpoint_new(&service_ep, NULL), 0);
	assert_int_equal(aph_service_open(&service_handle, service_ep, "forking", NULL), 0);
	child_start(&client, client_process, NULL);
	for (int i = 0; i < 3; i++) {
		echo_one();
		assert_int_equal(child_hear(client.ctl, check_hang_ms(5000)), '1');
		assert_int_equal(run_child(i == 1 ? child_does_nothing : child_of_the_service), 0);
		assert_int_equal(dir_sockets(), 1);
		child_say(client.ctl, '2');
	}
	assert_int_equal(child_finish(&client, check_hang_ms(5000)), 0);
	aph_service_close(service_handle);
	aph_endpoint_free(service_ep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(the_parent_goes_on),
		SUITE_TEST(a_call_with_a_deadline_goes_first),
		SUITE_TEST(while_threads_wait),
		SUITE_TEST(the_service_goes_on),
	};

	return suite_run("fork", tests, SUITE_LEN(tests), 30);
}
