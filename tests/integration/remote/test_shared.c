/* SPDX-License-Identifier: MIT */
/*
 * Services of several endpoints at one UDP port, in one process and in several: each gets its own,
 * none waits.
 */
#include "remote.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OTHER_SERVICE 200

/* Two services at one port, and a channel to each. */
struct pair {
	char addresses[2][64];
	struct service services[2];
	struct client clients[2];
};

static void pair_addresses(struct pair *pair)
{
	snprintf(pair->addresses[0], sizeof(pair->addresses[0]), "%s", remote_address());
	snprintf(pair->addresses[1], sizeof(pair->addresses[1]), "%s",
		 remote_other(pair->addresses[0], OTHER_SERVICE));
}

static void pair_open(struct pair *pair, enum service_mode first, enum service_mode second)
{
	pair_addresses(pair);
	service_start_simple(&pair->services[0], first, pair->addresses[0]);
	service_start_simple(&pair->services[1], second, pair->addresses[1]);
	for (int i = 0; i < 2; i++)
		client_open(&pair->clients[i], pair->addresses[i]);
}

static void pair_close(struct pair *pair)
{
	for (int i = 0; i < 2; i++) {
		client_close(&pair->clients[i]);
		service_stop(&pair->services[i]);
	}
}

/* -- each gets its own ------------------------------------------------------------------------- */

static void each_gets_its_own(void **state)
{
	struct pair pair;

	(void)state;
	pair_open(&pair, suite_mode, suite_mode);
	for (uint32_t i = 0; i < 50; i++) {
		client_echo(pair.clients[i % 2].channel);
		client_echo(pair.clients[0].channel);
	}
	assert_int_equal(pair.services[0].seen->requests, 75);
	assert_int_equal(pair.services[1].seen->requests, 25);
	pair_close(&pair);
}

/* Bulk goes through at both at once, in both directions. */
static void *transfer(void *arg)
{
	struct client *client = arg;

	for (uint32_t i = 0; i < 3; i++) {
		client_get(client->ep, client->channel, 'g', 3000000, i);
		client_put(client->ep, client->channel, 3000000, i);
	}
	return NULL;
}

static void bulk_at_both(void **state)
{
	struct pair pair;
	pthread_t thread;

	(void)state;
	pair_open(&pair, suite_mode, suite_mode);
	assert_int_equal(pthread_create(&thread, NULL, transfer, &pair.clients[1]), 0);
	(void)transfer(&pair.clients[0]);
	assert_int_equal(pthread_join(thread, NULL), 0);
	pair_close(&pair);
}

/* With poll() on its descriptor one, beside one that waits in the driver. */
static void in_a_loop_of_its_own(void **state)
{
	struct service_config config = { .by_fd = true };
	struct pair pair;

	(void)state;
	pair_addresses(&pair);
	config.address = pair.addresses[0];
	service_start(&pair.services[0], suite_mode, &config);
	service_start_simple(&pair.services[1], suite_mode, pair.addresses[1]);
	for (int i = 0; i < 2; i++)
		client_open(&pair.clients[i], pair.addresses[i]);
	for (int i = 0; i < 50; i++) {
		client_echo(pair.clients[i % 2].channel);
		client_get(pair.clients[(i + 1) % 2].ep, pair.clients[(i + 1) % 2].channel, 'g',
			   20000, 1);
	}
	pair_close(&pair);
}

/* -- none waits for another -------------------------------------------------------------------- */

/* It looks for no events: a process is stopped, a service of this process is not called. */
static void fall_asleep(struct pair *pair, int sleeper)
{
	enum service_mode mode = suite_mode == SERVICE_PROCESS ? suite_mode : SERVICE_INLINE;

	pair_open(pair, sleeper == 0 ? mode : suite_mode, sleeper == 1 ? mode : suite_mode);
	if (mode == SERVICE_PROCESS) {
		child_signal(&pair->services[sleeper].child, SIGSTOP);
		child_await_state(pair->services[sleeper].child.pid, 'T', check_hang_ms(2000));
	}
}

static void wake_up(struct service *service)
{
	if (service->mode == SERVICE_PROCESS)
		child_signal(&service->child, SIGCONT);
	while (service->mode == SERVICE_INLINE && !service->seen->requests)
		service_turn(service, 1);
}

/* The one that does not look for its events is the first at the port, or the second. */
static void one_sleeps(void **state)
{
	struct aph_call *call;
	struct pair pair;

	(void)state;
	for (int sleeper = 0; sleeper < 2; sleeper++) {
		int awake = !sleeper;

		fall_asleep(&pair, sleeper);
		call = client_begin(pair.clients[sleeper].channel, "e", 1, APH_FOREVER);
		for (int i = 0; i < 50; i++)
			client_echo(pair.clients[awake].channel);
		client_get(pair.clients[awake].ep, pair.clients[awake].channel, 'g', 2000000, 7);
		assert_int_equal(pair.services[sleeper].seen->requests, 0);
		wake_up(&pair.services[sleeper]);
		client_check_result(client_end(pair.clients[sleeper].ep, call, NULL, NULL),
				    APH_ANSWERED, APH_REASON_NONE);
		assert_int_equal(pair.services[sleeper].seen->requests, 1);
		aph_call_free(call);
		pair_close(&pair);
	}
}

/* -- who is there ------------------------------------------------------------------------------ */

static void served_already(void **state)
{
	struct aph_endpoint *ep;
	struct pair pair;

	(void)state;
	pair_open(&pair, suite_mode, suite_mode);
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(aph_service_open(NULL, ep, pair.addresses[i], NULL), -EADDRINUSE);
		assert_non_null(strstr(aph_error(), "serve"));
	}
	/* What one gives back the next one gets. */
	client_close(&pair.clients[1]);
	service_stop(&pair.services[1]);
	assert_int_equal(aph_service_open(NULL, ep, pair.addresses[1], NULL), 0);
	assert_int_equal(aph_service_open(NULL, ep, pair.addresses[1], NULL), -EEXIST);
	assert_null(aph_endpoint_free(ep));
	client_close(&pair.clients[0]);
	service_stop(&pair.services[0]);
}

/* One goes, the first or the second, in the middle of calls to the other. */
static void one_goes(void **state)
{
	struct aph_call *held;
	struct pair pair;

	(void)state;
	for (int leaver = 0; leaver < 2; leaver++) {
		int stays = !leaver;

		pair_open(&pair, suite_mode, suite_mode);
		client_echo(pair.clients[leaver].channel);
		held = client_begin(pair.clients[stays].channel, "h", 1, APH_FOREVER);
		service_await(&pair.services[stays].seen->held, 1);
		service_stop(&pair.services[leaver]);
		remote_expect_refused(pair.clients[leaver].channel, APH_REASON_NO_SERVICE);
		client_echo(pair.clients[stays].channel);
		assert_int_equal(aph_call(pair.clients[stays].channel, "w", 1, NULL, NULL,
					  aph_deadline_ms(20000)),
				 0);
		client_check_result(client_end(pair.clients[stays].ep, held, NULL, NULL),
				    APH_ANSWERED, APH_REASON_NONE);
		aph_call_free(held);
		/* And comes back. */
		service_start_simple(&pair.services[leaver], suite_mode, pair.addresses[leaver]);
		client_echo(pair.clients[leaver].channel);
		client_echo(pair.clients[stays].channel);
		pair_close(&pair);
	}
}

/* -- an owner that does not answer ------------------------------------------------------------- */

struct opening {
	struct aph_endpoint *ep;
	const char *address;
	_Atomic bool done;
	int result;
	pthread_t thread;
};

static void *open_service(void *arg)
{
	struct opening *opening = arg;

	opening->result = aph_service_open(NULL, opening->ep, opening->address, NULL);
	opening->done = true;
	return NULL;
}

/* The endpoint that waits for the owner is used, and another one opens a service elsewhere. */
static void expect_others_go_on(struct opening *opening, struct aph_channel *to)
{
	struct aph_endpoint *ep;
	struct aph_service *service;
	unsigned n_calls = 0;

	assert_int_equal(pthread_create(&opening->thread, NULL, open_service, opening), 0);
	usleep(500000); /* by now it has asked; it is given 2 s */
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(&service, ep, remote_address(), NULL), 0);
	assert_null(aph_service_close(service));
	assert_null(aph_endpoint_free(ep));
	assert_false(opening->done);
	do {
		client_echo(to);
		n_calls++;
	} while (!opening->done);
	assert_true(n_calls > 10);
	assert_int_equal(pthread_join(opening->thread, NULL), 0);
	assert_int_equal(opening->result, -EADDRINUSE);
}

/* The port is new to this process, or it has it already and wants one more service there. */
static void an_owner_that_is_stopped(void **state)
{
	char owners[64], elsewhere[64];
	struct service owner, service;
	struct client client;

	(void)state;
	if (suite_mode != SERVICE_PROCESS)
		suite_skip("needs a service that can be stopped");
	for (int is_at_it = 0; is_at_it < 2; is_at_it++) {
		struct opening opening = { .done = false };

		snprintf(owners, sizeof(owners), "%s", remote_address());
		snprintf(elsewhere, sizeof(elsewhere), "%s", remote_address());
		service_start_simple(&owner, suite_mode, owners);
		service_start_simple(&service, suite_mode, elsewhere);
		client_open(&client, elsewhere);
		if (is_at_it)
			assert_int_equal(aph_service_open(NULL, client.ep,
							  remote_other(owners, OTHER_SERVICE + 1),
							  NULL),
					 0);
		child_signal(&owner.child, SIGSTOP);
		child_await_state(owner.child.pid, 'T', check_hang_ms(2000));
		opening.ep = client.ep;
		opening.address = remote_other(owners, OTHER_SERVICE);
		expect_others_go_on(&opening, client.channel);
		child_signal(&owner.child, SIGCONT);
		assert_int_equal(aph_service_open(NULL, client.ep, opening.address, NULL), 0);
		client_close(&client);
		service_stop(&service);
		service_stop(&owner);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(each_gets_its_own),	      SUITE_TEST(bulk_at_both),
		SUITE_TEST(in_a_loop_of_its_own),     SUITE_TEST(one_sleeps),
		SUITE_TEST(served_already),	      SUITE_TEST(one_goes),
		SUITE_TEST(an_owner_that_is_stopped),
	};

	return suite_run_both("remote shared", tests, SUITE_LEN(tests), 60);
}
