/* SPDX-License-Identifier: MIT */
/*
 * Clients that want the keeper to wait, or to hold more for them than it should. The others notice
 * nothing.
 */
#include "fixture.h"

#include "fds.h"
#include "fuse.h"

#include "facade/hold/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* -- sockets that linger ----------------------------------------------------------------------- */

/* Stores a lingering socket, and lets the keeper have the last of it. */
static int store_lingering(struct aph_hold *hold, const char *name, uint32_t flags, int *peer)
{
	const struct aph_hold_options options = { .size = sizeof(options), .flags = flags };
	static const struct linger none = { 0 };
	int sock = fds_lingering(peer), r;

	r = aph_hold_store(hold, name, &sock, 1, &options, SOON);
	/* If it was refused, it is us who close it. */
	if (r < 0)
		CHECK_OK(setsockopt(sock, SOL_SOCKET, SO_LINGER, &none, sizeof(none)));
	close(sock);
	return r;
}

static void nobody_makes_it_wait(void **state)
{
	struct keeper keeper;
	struct aph_hold *hold;
	uint64_t end;
	int peers[4], before;
	pid_t pid;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	pid = keeper_pid();
	before = fds_settled(pid, hold);
	end = SOON;
	/* Let go of in each way there is. */
	assert_int_equal(store_lingering(hold, "a", 0, &peers[0]), 0);
	assert_int_equal(aph_hold_delete(hold, "a", NULL, SOON), 0);
	assert_int_equal(store(hold, "x", "x", 0), 0);
	assert_int_equal(store_lingering(hold, "b", 0, &peers[1]), 0);
	assert_int_equal(store(hold, "b", "b", APH_HOLD_REPLACE), 0);
	assert_int_equal(retrieve(hold, "b", "b", 0), 0);
	assert_int_equal(store_lingering(hold, "b", 0, &peers[2]), -EEXIST);
	assert_int_equal(retrieve(hold, "b", "b", 0), 0);
	/* Also by a twin, which does not know how it came. */
	assert_int_equal(store_lingering(hold, "c", 0, &peers[3]), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(aph_hold_delete(hold, "c", NULL, SOON), 0);
	assert_int_equal(retrieve(hold, "b", "b", 0), 0);
	pid = keeper_pid();
	assert_int_equal(aph_hold_delete(hold, "b", NULL, SOON), 0);
	assert_int_equal(aph_hold_delete(hold, "x", NULL, SOON), 0);
	fds_await(pid, before);
	assert_true(aph_time_ns() < end);
	for (int i = 0; i < 4; i++)
		close(peers[i]);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/* A file whose server does not let anybody close it. */
static void nobody_is_kept_from_closing(void **state)
{
	struct fuse_file file;
	struct keeper keeper;
	struct aph_hold *hold;
	int peer;

	(void)state;
	keeper_start(&keeper, NULL);
	/* Not before: the keeper would have it, and could not be rid of it. */
	if (fuse_begin(&file) < 0) {
		keeper_stop(&keeper);
		suite_skip("FUSE cannot be mounted here");
	}
	hold = hold_open();
	assert_int_equal(store(hold, "x", "x", 0), 0);
	assert_int_equal(aph_hold_store(hold, "a", &file.fd, 1, NULL, SOON), 0);
	assert_int_equal(aph_hold_store(hold, "b", &file.fd, 1, NULL, SOON), 0);
	assert_int_equal(aph_hold_store(hold, "b", &file.fd, 1, NULL, SOON), -EEXIST);
	assert_int_equal(aph_hold_delete(hold, "a", NULL, SOON), 0);
	assert_int_equal(retrieve(hold, "x", "x", 0), 0);
	/* Nor does that one hold up those who close something else. */
	assert_int_equal(store_lingering(hold, "l", 0, &peer), 0);
	assert_int_equal(aph_hold_delete(hold, "l", NULL, SOON), 0);
	assert_int_equal(retrieve(hold, "x", "x", 0), 0);
	close(peer);
	assert_int_equal(kill(keeper_pid(), SIGKILL), 0);
	assert_int_equal(retrieve(hold, "x", "x", 0), 0);
	assert_int_equal(aph_hold_delete(hold, "b", NULL, SOON), 0);
	assert_int_equal(retrieve(hold, "x", "x", 0), 0);
	fuse_end(&file);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/* -- calls that stay --------------------------------------------------------------------------- */

#define CHANNELS    4
#define EACH	    400
#define WAITING_MAX 1024

/* Waits for what nobody will ever offer. */
static struct aph_call *wait_in_vain(struct aph_channel *channel)
{
	struct {
		struct hold_request request;
		char name[4];
	} ask = {
		.request = {
			.version = HOLD_VERSION,
			.verb = HOLD_ACCEPT,
			.flags = APH_HOLD_OWNER,
			.owner = ALICE,
			.arg = 1,
		},
		.name = "none",
	};
	struct aph_call *call;

	CHECK_OK(aph_call_new(&call, channel, APH_FOREVER, NULL));
	while (aph_call_send(call, &ask, sizeof(ask.request) + sizeof(ask.name), 0) == -EAGAIN)
		(void)aph_call_wait(call, aph_deadline_ms(10));
	return call;
}

static void one_cannot_wait_for_everything(void **state)
{
	struct aph_call *calls[CHANNELS * EACH];
	struct client clients[CHANNELS];
	struct aph_result result;
	struct keeper keeper;
	struct aph_hold *hold;
	unsigned n_denied;
	uint64_t end = SOON;

	(void)state;
	keeper_start(&keeper, NULL);
	for (int i = 0; i < CHANNELS; i++) {
		client_open(&clients[i], "hold");
		for (int j = 0; j < EACH; j++)
			calls[i * EACH + j] = wait_in_vain(clients[i].channel);
	}
	/* The last of them has been answered, which says that all have been looked at. */
	while (!aph_call_result(calls[CHANNELS * EACH - 1], &result))
		(void)aph_call_wait(calls[CHANNELS * EACH - 1], SOON);
	assert_int_equal(result.outcome, APH_ABORTED);
	assert_int_equal(result.code, EDQUOT);
	/* Each channel has an endpoint of its own to be looked after. */
	do {
		assert_true(aph_time_ns() < end);
		n_denied = 0;
		for (int i = 0; i < CHANNELS * EACH; i++) {
			if (i % EACH == 0)
				(void)aph_endpoint_serve(clients[i / EACH].ep, aph_deadline_ms(2));
			n_denied += aph_call_result(calls[i], &result) != 0;
		}
	} while (n_denied < CHANNELS * EACH - WAITING_MAX);
	assert_int_equal(n_denied, CHANNELS * EACH - WAITING_MAX);
	for (int i = 0; i < CHANNELS * EACH; i++)
		aph_call_free(calls[i]);
	for (int i = 0; i < CHANNELS; i++)
		client_close(&clients[i]);
	/* What was withdrawn makes room again. */
	hold = hold_open();
	assert_int_equal(store(hold, "x", "x", 0), 0);
	assert_int_equal(retrieve(hold, "x", "x", APH_HOLD_TAKE), 0);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		HOLD_TEST(nobody_makes_it_wait),
		HOLD_TEST(nobody_is_kept_from_closing),
		HOLD_TEST(one_cannot_wait_for_everything),
	};

	return suite_run("hold hostile", tests, SUITE_LEN(tests), 60);
}
