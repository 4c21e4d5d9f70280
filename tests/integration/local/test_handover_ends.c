/* SPDX-License-Identifier: MIT */
/*
 * Handovers in which somebody dies, stops half way, forks or has no business there: what was given
 * lives with the newcomer, what was not with the giver, and neither waits for the other.
 */
#include "suite.h"

#include "relay.h"
#include "wire.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define STRANGER 54321u

/* -- death ------------------------------------------------------------------------------------- */

static void the_giver_is_killed(void **state)
{
	struct service first, second;
	struct client clients[20];

	(void)state;
	for (int i = 0; i < 5; i++) {
		relay_patient(&first, 0);
		for (int k = 0; k < 20; k++)
			client_open(&clients[k], "relay");
		relay_next(&second, 0);
		service_kill(&first);
		for (int k = 0; k < 20; k++) {
			client_echo(clients[k].channel);
			client_close(&clients[k]);
		}
		service_stop(&second);
	}
}

/*
 * The page that a client knows stands still when its first server has died, in its sleep here. One
 * bell for each sleep would be one for ever.
 */
static void killed_asleep(void **state)
{
	struct service first, second;
	struct aph_call *calls[5];
	struct client client;
	struct aph_event ev;

	(void)state;
	relay_patient(&first, 0);
	client_open(&client, "relay");
	client_echo(client.channel);
	child_await_state(first.child.pid, 'S', check_hang_ms(3000));
	relay_next(&second, 0);
	nap_ms(20);
	service_kill(&first);
	/* None of these is looked at by us before the last has been sent. */
	for (unsigned i = 0; i < 5; i++) {
		calls[i] = client_begin(client.channel, "e", 1, aph_deadline_ms(10000));
		service_await(&second.seen->requests, i + 1);
		nap_ms(10);
	}
	for (unsigned i = 0; i < 5; i++) {
		while (!aph_call_result(calls[i], &(struct aph_result){ 0 }))
			client_next(client.ep, &ev, 5000);
		aph_call_free(calls[i]);
	}
	client_close(&client);
	service_stop(&second);
}

/* Whoever asked the giver alone for admission, and in vain, finds the newcomer by itself. */
static void a_client_on_the_doorstep(void **state)
{
	struct aph_channel_options async = { .size = sizeof(async), .flags = APH_CHANNEL_ASYNC };
	struct service first, second;
	struct client client;

	(void)state;
	relay_patient(&first, 0);
	child_signal(&first.child, SIGSTOP);
	child_await_state(first.child.pid, 'T', check_hang_ms(3000));
	CHECK_OK(aph_endpoint_new(&client.ep, NULL));
	CHECK_OK(aph_channel_open(&client.channel, client.ep, "relay", &async));
	relay_next(&second, 0); /* two seconds */
	service_kill(&first);
	client_expect(client.ep, APH_EVENT_OPEN, NULL);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&second);
	dir_remove_sockets();
}

static void the_newcomer_is_killed(void **state)
{
	struct service first, second;
	struct client idle, busy;
	struct aph_call *held;

	(void)state;
	relay_patient(&first, 0);
	client_open(&idle, "relay");
	client_open(&busy, "relay");
	held = client_begin(busy.channel, "h", 1, aph_deadline_ms(20000));
	service_await(&first.seen->held, 1);
	relay_next(&second, 0);
	service_kill(&second);
	client_expect(idle.ep, APH_EVENT_CLOSED, NULL);
	CHECK(aph_call(busy.channel, "w", 1, NULL, NULL, aph_deadline_ms(5000)) == 0);
	CHECK(client_end(busy.ep, held, NULL, NULL).outcome == APH_ANSWERED);
	aph_call_free(held);
	client_echo(busy.channel);
	service_stop(&first);
	client_close(&idle);
	client_close(&busy);
	dir_remove_sockets();
}

/* -- newcomers that stop half way, by hand ----------------------------------------------------- */

static int ask_for_all(const char *path)
{
	struct aph_hello hello = wire_hello();
	int sock = wire_connect(path);

	CHECK(sock >= 0);
	hello.kind = APH_HELLO_TAKE;
	hello.allow = 0;
	hello.depth = 10000;
	CHECK(wire_send(sock, &hello, sizeof(hello), NULL, 0));
	return sock;
}

/* One message within the limit; what came with it is closed. 0 at the end, -1 when none came. */
static ssize_t hear(int sock, void *buf, size_t size, int timeout_ms)
{
	struct pollfd poller = { .fd = sock, .events = POLLIN };
	union {
		struct cmsghdr align;
		char bytes[1024];
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg;
	ssize_t n;

	if (poll(&poller, 1, check_ms(timeout_ms)) != 1)
		return -1;
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	for (cmsg = n < 0 ? NULL : CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
		size_t n_fds = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fds[64];

		if (cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds, CMSG_DATA(cmsg), n_fds * sizeof(int));
		while (n_fds)
			close(fds[--n_fds]);
	}
	return n;
}

/* Until it has said yes the giver keeps everything, and gives to the next one who asks. */
static void a_newcomer_that_never_says_yes(void **state)
{
	struct aph_handover handover;
	struct service first, second;
	struct client client;
	char path[256];
	int sock;

	(void)state;
	for (int dies = 0; dies < 2; dies++) {
		relay_first(&first, 0);
		dir_only_socket(path, sizeof(path));
		client_open(&client, "relay");
		sock = ask_for_all(path);
		assert_int_equal(hear(sock, &handover, sizeof(handover), 5000), APH_HANDOVER_SHORT);
		assert_int_equal(handover.kind, APH_HANDOVER_LISTENER);
		if (dies)
			close(sock);
		client_echo(client.channel);
		client_close(&client);
		client_open(&client, "relay");
		assert_int_equal(first.seen->terminates, 0);
		relay_next(&second, 0);
		service_gone(&first, 0);
		client_echo(client.channel);
		client_close(&client);
		service_stop(&second);
		if (!dies)
			close(sock);
	}
}

#define CROWD 450

/* Calls on every channel; how many were answered within the limit. */
static unsigned answered(struct aph_endpoint *ep, struct aph_channel **channels, unsigned n, int ms,
			 unsigned *n_closed)
{
	unsigned n_answered = 0, n_left = 0;

	for (unsigned i = 0; i < n; i++) {
		struct aph_call *call;

		if (!channels[i])
			continue;
		if (!aph_channel_is_open(channels[i])) {
			channels[i] = aph_channel_close(channels[i]);
			(*n_closed)++;
			continue;
		}
		CHECK_OK(aph_call_new(&call, channels[i], aph_deadline_ms((uint64_t)check_ms(ms)),
				      NULL));
		CHECK(aph_call_send(call, "e", 1, 0) == 1);
		n_left++;
	}
	while (n_left) {
		struct aph_event ev;

		client_next(ep, &ev, ms + 5000);
		if (ev.type != APH_EVENT_END)
			continue;
		if (ev.result.outcome == APH_ANSWERED)
			n_answered++;
		else
			assert_int_equal(ev.result.outcome, APH_REFUSED);
		aph_call_free(ev.call);
		n_left--;
	}
	return n_answered;
}

/* The giver never waits for it: what finds no room on the way stays, and lives. */
static void a_newcomer_that_stops_in_the_middle(void **state)
{
	struct aph_channel *channels[CROWD];
	struct aph_handover handover;
	unsigned n_answered, n_closed = 0, n_closed_events = 0;
	struct aph_endpoint *ep;
	struct aph_event ev;
	struct service first;
	char path[256];
	int sock;

	(void)state;
	relay_patient(&first, 0);
	dir_only_socket(path, sizeof(path));
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	for (unsigned i = 0; i < CROWD; i++)
		CHECK_OK(aph_channel_open(&channels[i], ep, "relay", NULL));
	sock = ask_for_all(path);
	assert_int_equal(hear(sock, &handover, sizeof(handover), 5000), APH_HANDOVER_SHORT);
	CHECK(wire_send(sock, "y", 1, NULL, 0));
	n_answered = answered(ep, channels, CROWD, 1500, &n_closed);
	assert_true(n_answered > 0 && n_answered < CROWD);
	assert_int_equal(n_closed, 0);
	assert_int_equal(dir_sockets(), 0);
	assert_int_equal(first.seen->terminates, 0);
	/* It goes on for a while: more is sent at once. Then it dies. */
	for (int i = 0; i < 50; i++) {
		assert_int_equal(hear(sock, &handover, sizeof(handover), 5000), APH_HANDOVER_SHORT);
		assert_int_equal(handover.kind, APH_HANDOVER_CHANNEL);
	}
	close(sock);
	service_await(&first.seen->terminates, 1);
	while (aph_endpoint_next(ep, &ev, aph_deadline_ms((uint64_t)check_ms(50))) == 0) {
		CHECK(ev.type == APH_EVENT_CLOSED);
		n_closed_events++;
	}
	n_answered = answered(ep, channels, CROWD, 10000, &n_closed);
	assert_int_equal(n_closed, n_closed_events);
	assert_int_equal(n_answered + n_closed, CROWD);
	assert_true(n_closed >= 50 && n_answered > 0);
	aph_endpoint_free(ep);
	service_stop(&first);
}

/* A child that is forked in the middle of it holds nothing of it open. */
static void fork_in_the_middle(void **state)
{
	struct service_config config = relay(0);
	struct aph_handover handover;
	struct service first;
	struct client client;
	int sock, status, ends[2];
	char path[256], byte;
	pid_t pid;

	(void)state;
	config.end_on_terminate = false;
	service_start(&first, SERVICE_THREAD, &config);
	dir_only_socket(path, sizeof(path));
	sock = ask_for_all(path);
	assert_int_equal(hear(sock, &handover, sizeof(handover), 5000), APH_HANDOVER_SHORT);
	CHECK(wire_send(sock, "y", 1, NULL, 0));
	assert_int_equal(hear(sock, &handover, sizeof(handover), 5000), APH_HANDOVER_SHORT);
	assert_int_equal(handover.kind, APH_HANDOVER_DONE);
	CHECK_OK(pipe(ends));
	pid = (pid_t)CHECK_OK(fork());
	if (pid == 0) {
		close(ends[1]);
		close(sock);
		(void)!read(ends[0], &byte, 1);
		_exit(0);
	}
	service_stop(&first);
	assert_int_equal(hear(sock, &handover, sizeof(handover), 5000), 0);
	close(ends[0]);
	close(ends[1]);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	close(sock);
	CHECK_OK(aph_endpoint_new(&client.ep, NULL));
	assert_int_equal(aph_channel_open(&client.channel, client.ep, "relay", NULL), -ENOENT);
	aph_endpoint_free(client.ep);
}

/* -- strangers --------------------------------------------------------------------------------- */

static int ask_as_a_stranger(int ctl, void *arg)
{
	struct aph_welcome welcome;
	int sock;

	(void)ctl;
	CHECK_OK(setgroups(0, NULL));
	CHECK_OK(setresgid(STRANGER, STRANGER, STRANGER));
	CHECK_OK(setresuid(STRANGER, STRANGER, STRANGER));
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sock = ask_for_all(arg);
	CHECK(hear(sock, &welcome, sizeof(welcome), 5000) == sizeof(welcome));
	CHECK(welcome.status == EACCES);
	close(sock);
	return 0;
}

static void strangers_get_nothing(void **state)
{
	struct service first;
	struct client client;
	struct child child;
	char path[256];

	(void)state;
	if (geteuid() != 0) {
		suite_skip("only root can become other users");
		return;
	}
	relay_first(&first, APH_ALLOW_ANY);
	dir_only_socket(path, sizeof(path));
	client_open(&client, "relay");
	child_start(&child, ask_as_a_stranger, path);
	assert_int_equal(child_finish(&child, check_hang_ms(10000)), 0);
	client_echo(client.channel);
	assert_int_equal(first.seen->terminates, 0);
	client_close(&client);
	service_stop(&first);
}

/* One call, answered by hand. */
static bool works(struct client *client, struct wire *wire, struct aph_call **call)
{
	struct aph_record record;

	if (aph_call_new(call, client->channel, aph_deadline_ms(20000), NULL) < 0)
		return false;
	CHECK(aph_call_send(*call, "ping", 4, 0) == 4);
	CHECK(wire_next(wire, &record, check_hang_ms(3000)));
	wire_tell(wire, wire_record(APH_RECORD_REPLY, record.tag, "pong", 4));
	return client_expect(client->ep, APH_EVENT_END, *call).result.outcome == APH_ANSWERED;
}

/*
 * A server that says "another one serves you now" and shows what is no page: at most its channel
 * ends.
 */
static void false_pages(void **state)
{
	struct aph_channel_options async = { .size = sizeof(async), .flags = APH_CHANNEL_ASYNC };
	struct aph_endpoint *decoy;
	struct client client;
	struct aph_call *call;
	struct aph_hello hello;
	struct wire wire;
	int listener, sock;
	int fds[3];

	(void)state;
	CHECK_OK(aph_endpoint_new(&decoy, NULL));
	CHECK_OK(aph_service_open(NULL, decoy, "liar", NULL));
	listener = wire_steal_listener();
	fds[0] = (int)CHECK_OK(memfd_create("unsealed", MFD_CLOEXEC));
	CHECK_OK(ftruncate(fds[0], APH_PAGE));
	fds[1] = fds[2] = STDERR_FILENO;
	for (size_t n_fds = 0; n_fds < 4; n_fds++) {
		CHECK_OK(aph_endpoint_new(&client.ep, NULL));
		CHECK_OK(aph_channel_open(&client.channel, client.ep, "liar", &async));
		sock = wire_accept(listener, &hello, check_hang_ms(3000));
		CHECK(sock >= 0);
		wire_serve_well(&wire, sock, &hello);
		client_expect(client.ep, APH_EVENT_OPEN, NULL);
		CHECK(works(&client, &wire, &call));
		aph_call_free(call);
		for (int i = 0; i < 100; i++)
			(void)wire_send(wire.sock, "m", 1, fds, n_fds);
		if (n_fds == 1) {
			client_quiet(client.ep, 10);
			CHECK(works(&client, &wire, &call));
			aph_call_free(call);
		} else {
			struct aph_event ev = client_expect(client.ep, APH_EVENT_CLOSED, NULL);

			assert_int_equal(ev.result.reason, APH_REASON_PROTOCOL);
		}
		client_close(&client);
		wire_close(&wire);
	}
	close(fds[0]);
	close(listener);
	aph_endpoint_free(decoy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(the_giver_is_killed),
		SUITE_TEST(killed_asleep),
		SUITE_TEST(a_client_on_the_doorstep),
		SUITE_TEST(the_newcomer_is_killed),
		SUITE_TEST(a_newcomer_that_never_says_yes),
		SUITE_TEST(a_newcomer_that_stops_in_the_middle),
		SUITE_TEST(fork_in_the_middle),
		SUITE_TEST(strangers_get_nothing),
		SUITE_TEST(false_pages),
	};

	return suite_run("handover, cut short", tests, SUITE_LEN(tests), 60);
}
