/* SPDX-License-Identifier: MIT */
/*
 * What a newcomer has to know of a channel that it takes over, and cannot see in shared memory:
 * which replies and which descriptors its client has not taken yet. And what lies unread in the
 * ring when the giver looks for the last time.
 */
#include "suite.h"

#include "relay.h"
#include "wire.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEPTH 32u
#define FDS   60u /* with each message: the fifth is more than may be under way */

static void open_wire(struct wire *wire)
{
	char path[256];

	dir_only_socket(path, sizeof(path));
	assert_true(wire_open(wire, path, NULL));
	assert_int_equal(wire->welcome.depth, DEPTH);
}

/* A client that has read none of its replies gets them all, and then those of the newcomer. */
static void replies_that_nobody_has_read(void **state)
{
	struct service first, second;
	struct aph_record record;
	struct wire wire;

	(void)state;
	relay_first(&first, 0);
	open_wire(&wire);
	for (uint32_t i = 1; i <= DEPTH; i++) {
		wire_tell(&wire, wire_record(APH_RECORD_REQUEST, APH_TAG(i, 0), "", 0));
		service_await(&first.seen->requests, i);
	}
	service_await(&first.seen->works, 0);
	relay_next(&second, 0);
	service_gone(&first, 0);
	wire_tell(&wire, wire_record(APH_RECORD_REQUEST, APH_TAG(DEPTH + 1, 0), "", 0));
	service_await(&second.seen->requests, 1);
	nap_ms(20);
	for (uint32_t i = 1; i <= DEPTH + 1; i++) {
		assert_true(wire_next(&wire, &record, check_hang_ms(2000)));
		assert_int_equal(record.type, APH_RECORD_REPLY);
		assert_int_equal(APH_TAG_INDEX(record.tag), i);
		wire_ring(&wire);
	}
	assert_true(wire_echo(&wire, APH_TAG(1, 1), check_hang_ms(2000)));
	wire_close(&wire);
	service_stop(&second);
}

/*
 * Takes one message off the socket. Its first byte, and how many descriptors it had; -1: there is
 * none.
 */
static int take_message(int sock, size_t *n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(APH_SOCKET_FDS_MAX * sizeof(int))];
	} control;
	unsigned char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg;

	*n_fds = 0;
	if (recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
		return -1;
	for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
		size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			close(fd);
		}
		*n_fds += n;
	}
	return byte;
}

static unsigned count_descriptors(int sock)
{
	unsigned n = 0;
	size_t n_fds;
	int byte;

	while ((byte = take_message(sock, &n_fds)) >= 0) {
		if (byte == APH_SOCKET_FDS) {
			assert_int_equal(n_fds, FDS);
			n++;
		}
	}
	return n;
}

static void ask_for_descriptors(struct wire *wire, uint32_t index)
{
	struct aph_record record = wire_record(APH_RECORD_REQUEST, APH_TAG(index, 0), "f", 1);
	int fds[FDS];

	for (unsigned i = 0; i < FDS; i++)
		fds[i] = STDERR_FILENO;
	record.n_fds = FDS;
	assert_true(wire_send(wire->sock, "d", 1, fds, FDS));
	wire_tell(wire, record);
}

/*
 * The newcomer counts what the giver had sent: no more than may be under way is, until the client
 * takes some.
 */
static void descriptors_that_are_under_way(void **state)
{
	struct service first, second;
	struct aph_record record;
	struct wire wire;

	(void)state;
	relay_first(&first, 0);
	open_wire(&wire);
	for (uint32_t i = 1; i <= 4; i++) {
		ask_for_descriptors(&wire, i);
		service_await(&first.seen->requests, i);
	}
	service_await(&first.seen->works, 0);
	relay_next(&second, 0);
	service_gone(&first, 0);
	ask_for_descriptors(&wire, 5);
	service_await(&second.seen->requests, 1);
	nap_ms(20);
	assert_int_equal(second.seen->works, 1);
	assert_int_equal(count_descriptors(wire.sock), 4);
	/* Each reply has two records: what comes with the descriptors, and its end. */
	for (uint32_t i = 1; i <= 8; i++)
		assert_true(wire_next(&wire, &record, check_hang_ms(2000)));
	wire_ring(&wire);
	service_await(&second.seen->works, 0);
	assert_int_equal(count_descriptors(wire.sock), 1);
	assert_true(wire_next(&wire, &record, check_hang_ms(2000)));
	assert_int_equal(APH_TAG_INDEX(record.tag), 5);
	assert_int_equal(record.n_fds, FDS);
	wire_close(&wire);
	service_stop(&second);
}

struct giver {
	struct aph_endpoint *ep;
	struct aph_service *service;
	struct aph_call *_Atomic call;
};

/* Receives one call, and looks after the endpoint until the name is somebody else's. */
static void *give(void *arg)
{
	struct giver *giver = arg;
	struct aph_event ev;

	do {
		client_next(giver->ep, &ev, 10000);
		if (ev.type == APH_EVENT_REQUEST)
			atomic_store(&giver->call, ev.call);
	} while (ev.type != APH_EVENT_TERMINATE);
	return NULL;
}

/*
 * The receipt of the last reply lies in the ring when the giver closes, which does not look at it
 * first: the channel is idle all the same, and goes to the newcomer.
 */
static void a_receipt_that_was_not_seen(void **state)
{
	struct aph_service_options options = { .size = sizeof(options),
					       .flags = APH_SERVICE_GIVE | APH_SERVICE_RECEIPTS };
	struct giver giver = { .call = NULL };
	struct service second;
	struct client client;
	struct aph_call *call;
	pthread_t thread;
	char reply[8];
	size_t len = sizeof(reply);

	(void)state;
	CHECK_OK(aph_endpoint_new(&giver.ep, NULL));
	CHECK_OK(aph_service_open(&giver.service, giver.ep, "relay", &options));
	CHECK(pthread_create(&thread, NULL, give, &giver) == 0);
	client_open(&client, "relay");
	call = client_begin(client.channel, "x", 1, aph_deadline_ms(20000));
	while (!atomic_load(&giver.call))
		nap_ms(1);
	relay_next(&second, APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS);
	CHECK(pthread_join(thread, NULL) == 0);
	assert_int_equal(second.seen->connects, 0);
	CHECK_OK(aph_call_reply(giver.call, "done", 4));
	CHECK(client_end(client.ep, call, reply, &len).outcome == APH_ANSWERED);
	assert_int_equal(len, 4);
	aph_call_free(call);
	aph_call_free(giver.call);
	aph_service_close(giver.service);
	service_await(&second.seen->connects, 1);
	client_echo(client.channel);
	assert_int_equal(second.seen->requests, 1);
	aph_endpoint_free(giver.ep);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&second);
}

/*
 * The newcomer is taken over itself, while the giver is still busy for a client: it is not told to
 * end before that client has passed through it.
 */
static void from_hand_to_hand(void **state)
{
	struct service first, second, third;
	struct client client;
	struct aph_call *held;
	char reply[8];
	size_t len = sizeof(reply);

	(void)state;
	relay_patient(&first, 0);
	client_open(&client, "relay");
	held = client_begin(client.channel, "h", 1, aph_deadline_ms(20000));
	service_await(&first.seen->held, 1);
	relay_next(&second, APH_SERVICE_EVENTS);
	relay_next(&third, APH_SERVICE_EVENTS);
	nap_ms(20);
	assert_int_equal(second.seen->terminates, 0);
	CHECK(aph_call(client.channel, "w", 1, NULL, NULL, aph_deadline_ms(5000)) == 0);
	CHECK(client_end(client.ep, held, reply, &len).outcome == APH_ANSWERED);
	assert_memory_equal(reply, "woken", 5);
	aph_call_free(held);
	service_await(&third.seen->connects, 1);
	client_echo(client.channel);
	assert_int_equal(third.seen->requests, 1);
	assert_int_equal(second.seen->terminates, 0);
	service_stop(&first);
	service_gone(&second, 0);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&third);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(replies_that_nobody_has_read),
		SUITE_TEST(descriptors_that_are_under_way),
		SUITE_TEST(a_receipt_that_was_not_seen),
		SUITE_TEST(from_hand_to_hand),
	};

	return suite_run("handover state", tests, SUITE_LEN(tests), 60);
}
