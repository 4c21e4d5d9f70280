/* SPDX-License-Identifier: MIT */
/*
 * Allocation 1, 2, 3..., and call 1, 2, 3... of each system call, fails in whole lives of servers
 * and clients: whoever has to be told is told, and nothing is left behind. What fails because it
 * would block is done later.
 */
#include "fault.h"
#include "fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

static char path[160];
static int file;
static struct told server_told, client_told;

/* -- on an endpoint of its own, with all that is new ------------------------------------------- */

static struct aph_afdt_request *held;
static int n_messages;

static void hold(struct aph_afdt_request *request, void *data)
{
	(void)data;
	held = request;
}

static void on_message(const struct aph_afdt_message *response, void *data)
{
	(void)data;
	n_messages++;
	for (size_t i = 0; i < response->n_fds; i++)
		close(response->fds[i]);
}

/* Has the held request answered, if it can be. */
static void answer_held(bool *well)
{
	const int files[] = { file, file };
	const struct aph_afdt_message answer = { "there", 5, files, 2 };
	const struct aph_credentials *peer;
	int taken[3];
	size_t n;

	if (aph_afdt_request_credentials(held, &peer) < 0)
		*well = false;
	n = aph_afdt_request_take_fds(held, taken, 3);
	*well = *well && n == 2;
	while (n)
		close(taken[--n]);
	if (aph_afdt_request_reply(held, &answer) < 0) {
		*well = false;
		aph_afdt_request_free(held);
	}
	held = NULL;
}

/* The deadline of what is run: near where it may fail by that, and only there. */
static unsigned patience_ms;

static bool additions(void)
{
	const int files[] = { file, file };
	const struct aph_afdt_message request = { "here", 4, files, 2 };
	const struct aph_afdt_server_options options = {
		.size = sizeof(options),
		.request = hold,
		.gone = hold,
		.error = on_error,
		.data = &server_told,
		.flags = APH_AFDT_RECLAIM,
		.mode = 0600,
		.request_ms = patience_ms / 5,
	};
	const struct aph_afdt_client_options how = {
		.size = sizeof(how),
		.response = on_message,
		.error = on_error,
		.data = &client_told,
		.deadline_ns = aph_deadline_ms(patience_ms),
	};
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct aph_afdt_endpoint *ep;
	struct aph_afdt_server *server = NULL;
	bool well = true;

	n_messages = 0;
	held = NULL;
	if (aph_afdt_endpoint_new(&ep, NULL) < 0)
		return false;
	(void)aph_afdt_endpoint_fd(ep);
	if (aph_afdt_server_open(&server, ep, path, &options, &err) < 0 ||
	    aph_afdt_client_open(NULL, ep, path, &request, &how, &err) < 0) {
		CHECK(err.message[0]);
		well = false;
	}
	while (well && n_messages + client_told.errors == 0) {
		(void)aph_afdt_endpoint_serve(ep, how.deadline_ns);
		CHECK(aph_time_ns() < how.deadline_ns + (uint64_t)check_hang_ms(3000) * 1000000);
		if (held)
			answer_held(&well);
		if (!well)
			break;
	}
	aph_afdt_server_close(server);
	aph_afdt_endpoint_free(ep);
	return well && n_messages == 1;
}

/* -- the historical interface on libevent ------------------------------------------------------ */

static struct event_base *base;

static bool historical(void)
{
	const struct timeval timeout = { .tv_sec = (time_t)(patience_ms / 1000),
					 .tv_usec = (suseconds_t)(patience_ms % 1000) * 1000 };
	uint64_t end = aph_deadline_ms(patience_ms + (unsigned)check_hang_ms(3000));
	void *server;
	bool well;

	if (afdt_create_server(path, base, on_request, on_post, on_error, &server, &server_told) <
	    0) {
		CHECK(server_told.errors == 1);
		return false;
	}
	well = afdt_create_client(path, base, (const uint8_t *)"x", 1, on_response, on_error,
				  &timeout, &client_told) == 0;
	CHECK(well || client_told.errors == 1);
	while (well && client_told.responses + client_told.errors == 0) {
		CHECK(aph_time_ns() < end);
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	}
	well = well && client_told.responses == 1;
	if (client_told.fd >= 0)
		close(client_told.fd);
	CHECK_OK(afdt_close_server(server));
	/* A connection that was accepted and never spoke ends with its client. */
	for (int i = 0; i < 3; i++)
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	(void)unlink(path);
	return well;
}

/* -- the low level ----------------------------------------------------------------------------- */

static bool messages(void)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	int listener = afdt_listen(path, &err), client = -1, server = -1, fd = -1;
	uint8_t buf[16];
	uint32_t len = sizeof(buf);
	bool well = listener >= 0;

	if (well)
		client = afdt_connect(path, &err);
	if (client >= 0)
		server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	well = server >= 0 && afdt_send_fd_msg(client, (const uint8_t *)"x", 1, file, &err) == 0 &&
	       afdt_recv_fd_msg(server, buf, &len, &fd, &err) == 0;
	CHECK(!well || (len == 1 && fd >= 0));
	CHECK(well || server < 0 || err.message[0]);
	close(fd);
	close(server);
	close(client);
	close(listener);
	(void)unlink(path);
	return well;
}

/* -- the synchronous client, against a process of its own -------------------------------------- */

static char other_path[160];

static int answer_always(int ctl, void *arg)
{
	int listener = peer_listen(other_path);

	(void)arg;
	child_say(ctl, 'r');
	for (;;) {
		struct peer_got got = { 0 };
		int sock = peer_accept(listener);

		if (peer_receive(sock, &got))
			peer_message(sock, "yes", 3, file);
		peer_drop(&got);
		close(sock);
	}
	return 1;
}

static bool synchronous(void)
{
	const struct timeval timeout = { .tv_sec = 10 };
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	uint8_t buf[8];
	uint32_t len = sizeof(buf);
	int fd;

	if (afdt_sync_client(other_path, (const uint8_t *)"x", 1, buf, &len, &fd, &timeout, &err) <
	    0) {
		CHECK(fd == -1 && err.phase != AFDT_NO_PHASE && err.message[0]);
		return false;
	}
	CHECK(len == 3);
	close(fd);
	return true;
}

/* -- all of it --------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	bool (*run)(void);
} scenarios[] = {
	{ "additions", additions },
	{ "historical", historical },
	{ "messages", messages },
	{ "synchronous", synchronous },
};

static int error_of(enum fault_site site)
{
	switch (site) {
	case FAULT_connect:
		return ECONNREFUSED;
	case FAULT_recvmsg:
	case FAULT_sendmsg:
	case FAULT_getsockopt:
	case FAULT_setsockopt:
		return ENOBUFS;
	case FAULT_socket:
	case FAULT_accept4:
	case FAULT_openat64:
	case FAULT_open64:
	case FAULT_epoll_create1:
	case FAULT_timerfd_create:
		return EMFILE;
	case FAULT_ALLOCATION:
		return ENOMEM;
	default:
		return ENOSPC;
	}
}

static bool run_for(size_t i, unsigned ms)
{
	patience_ms = ms;
	told_init(&server_told);
	told_init(&client_told);
	server_told.answer = "yes";
	server_told.answer_len = 3;
	server_told.give = file;
	return scenarios[i].run();
}

/* What is to go well has all the time it needs. */
static bool run(size_t i)
{
	return run_for(i, (unsigned)check_hang_ms(2500));
}

static unsigned n_failed;

static void each_fails_once(size_t i, enum fault_site site, const struct fds *before, long blocks)
{
	bool hit = true;

	for (unsigned n = 1; hit && n < 60; n++) {
		fault_arm(site, n, error_of(site));
		(void)run_for(i, 250);
		hit = fault_disarm();
		n_failed += hit;
		/* What could not be removed may stay. */
		if (site == FAULT_unlinkat || site == FAULT_fstatat64) {
			dir_remove_sockets();
			(void)unlink(path);
			(void)unlink(path_of("s.lock"));
		}
		if (fds_differ(before) || fault_blocks() != blocks)
			fail_msg("%s: something is left after %s %u failed (%ld blocks)",
				 scenarios[i].name, fault_name(site), n, fault_blocks() - blocks);
		if (!run(i))
			fail_msg("%s fails after %s %u failed", scenarios[i].name, fault_name(site),
				 n);
	}
	assert_true(!hit);
}

static void each_failure(void **state)
{
	struct child child;
	struct fds before;
	long blocks;

	(void)state;
	snprintf(path, sizeof(path), "%s", path_of("s"));
	snprintf(other_path, sizeof(other_path), "/tmp/aph-afdt.%d", (int)getpid());
	file = some_file();
	child_start(&child, answer_always, NULL);
	assert_int_equal(child_hear(child.ctl, check_hang_ms(5000)), 'r');
	base = event_base_new();
	for (size_t i = 0; i < SUITE_LEN(scenarios); i++)
		assert_true(run(i));
	fds_take(&before);
	blocks = fault_blocks();
	for (size_t i = 0; i < SUITE_LEN(scenarios); i++)
		for (enum fault_site site = 0; site < FAULT_SITE_COUNT; site++)
			each_fails_once(i, site, &before, blocks);
	print_message("%u failures\n", n_failed);
	assert_true(n_failed > 50);
	/* What would block, blocks nobody. */
	for (size_t i = 0; i < SUITE_LEN(scenarios); i++) {
		for (unsigned n = 1; n < 6; n++) {
			if (i == 2)
				continue; /* there the caller is told */
			fault_arm(FAULT_sendmsg, n, EAGAIN);
			assert_true(run(i));
			fault_arm(FAULT_recvmsg, n, EAGAIN);
			assert_true(run(i));
			fault_arm(FAULT_connect, 1, EAGAIN);
			if (i == 0)
				(void)run_for(i, 250);
			else
				assert_true(run(i));
			fault_arm(FAULT_sendmsg, n, EINTR);
			assert_true(run(i));
			fault_arm(FAULT_recvmsg, n, EINTR);
			assert_true(run(i));
			(void)fault_disarm();
			assert_int_equal(fds_differ(&before), 0);
			assert_int_equal(fault_blocks(), blocks);
		}
	}
	event_base_free(base);
	child_kill(&child);
	CHECK_OK(unlink(other_path));
	close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(each_failure),
	};

	return suite_run("afdt faults", tests, SUITE_LEN(tests), 90);
}
