/* SPDX-License-Identifier: MIT */
/* Descriptors that cannot be closed: who sends them loses by that, and nobody else. */
#include "suite.h"

#include "fuse.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MANY	     600 /* more than may be unclosed */
#define UNCLOSED_MAX 300
#define THREADS_MAX  64

static struct service service;
static struct fuse_file file;
static int n_threads; /* before anything was closed; a sanitizer may add one */

static int n_of(const char *what)
{
	struct dirent *entry;
	char path[64];
	DIR *dir;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)service.child.pid, what);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

/* Until all of them are closed, and the threads gone that did it. */
static void await(int n_fds)
{
	static const struct timespec span = { .tv_nsec = 1000000 };
	uint64_t end = aph_deadline_ms((uint64_t)check_hang_ms(2000));

	while (n_of("fd") != n_fds || n_of("task") > n_threads + 1) {
		assert_true(aph_time_ns() < end);
		nanosleep(&span, NULL);
	}
}

/* A request whose descriptor the service does not take. */
static struct aph_result send_it(struct client *client, const int *fds, size_t n)
{
	struct aph_call *call;
	struct aph_result result;

	assert_int_equal(aph_call_new(&call, client->channel,
				      aph_deadline_ms((uint64_t)check_hang_ms(2000)), NULL),
			 0);
	assert_int_equal(aph_call_send_fds(call, "d", 1, fds, n, 0), 1);
	result = client_end(client->ep, call, NULL, NULL);
	aph_call_free(call);
	return result;
}

static void echo(struct client *client)
{
	char reply[4];
	size_t len = sizeof(reply);

	assert_int_equal(aph_call(client->channel, "e", 1, reply, &len,
				  aph_deadline_ms((uint64_t)check_hang_ms(1000))),
			 0);
}

/* How many descriptors the service has with two clients. */
static int begin(struct client *hostile, struct client *honest)
{
	if (fuse_begin(&file) < 0)
		suite_skip("FUSE cannot be mounted here");
	service_start_simple(&service, SERVICE_PROCESS, "slow");
	n_threads = n_of("task");
	client_open(hostile, "slow");
	client_open(honest, "slow");
	echo(hostile);
	echo(honest);
	return n_of("fd");
}

static void others_are_answered(void **state)
{
	struct client hostile, honest;
	int before;

	(void)state;
	before = begin(&hostile, &honest);
	(void)send_it(&hostile, &file.fd, 1);
	echo(&honest);
	assert_int_equal(send_it(&honest, &(int){ STDIN_FILENO }, 1).outcome, APH_ANSWERED);
	/* Also when it leaves without a word. */
	client_close(&hostile);
	echo(&honest);
	fuse_end(&file);
	await(before - 2);
	client_close(&honest);
	service_stop(&service);
}

static void what_is_left_open_is_bounded(void **state)
{
	struct client hostile, honest;
	int before, n_refused = 0;

	(void)state;
	before = begin(&hostile, &honest);
	for (int i = 0; i < MANY; i++) {
		struct aph_result result = send_it(&hostile, &file.fd, 1);

		if (result.outcome == APH_REFUSED && result.reason == APH_REASON_RESOURCES)
			n_refused++;
		else
			assert_int_equal(result.outcome, APH_ANSWERED);
	}
	assert_true(n_refused > 0);
	assert_true(n_of("fd") < before + UNCLOSED_MAX);
	assert_true(n_of("task") <= n_threads + 1 + THREADS_MAX);
	for (int i = 0; i < 100; i++)
		echo(&honest);
	/* Nothing of it stays when the file's server has gone. */
	fuse_end(&file);
	await(before);
	assert_int_equal(send_it(&hostile, &(int){ STDIN_FILENO }, 1).outcome, APH_ANSWERED);
	await(before);
	client_close(&hostile);
	client_close(&honest);
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(others_are_answered),
		SUITE_TEST(what_is_left_open_is_bounded),
	};

	return suite_run("slow close", tests, SUITE_LEN(tests), 60);
}
