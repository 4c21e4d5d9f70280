/* SPDX-License-Identifier: MIT */
/* Fails allocation and system call 1, 2, 3... while a driver opens, sends, receives and waits. */
#include "engine.h"
#include "fault.h"
#include "fds.h"
#include "suite.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const struct {
	enum fault_site site;
	int error;
} faults[] = {
	{ FAULT_ALLOCATION, ENOMEM },	   { FAULT_bind, EADDRINUSE },
	{ FAULT_connect, ENETUNREACH },	   { FAULT_epoll_create1, EMFILE },
	{ FAULT_epoll_ctl, ENOSPC },	   { FAULT_eventfd, EMFILE },
	{ FAULT_getsockopt, ENOPROTOOPT }, { FAULT_getsockname, ENOBUFS },
	{ FAULT_ppoll, ENOMEM },	   { FAULT_recvfrom, ENOMEM },
	{ FAULT_recvmmsg, ENOMEM },	   { FAULT_recvmsg, ENOMEM },
	{ FAULT_sendmmsg, ENOBUFS },	   { FAULT_sendmsg, ENOBUFS },
	{ FAULT_sendto, ENOBUFS },	   { FAULT_setsockopt, ENOPROTOOPT },
	{ FAULT_socket, EMFILE },	   { FAULT_timerfd_create, EMFILE },
};

/* A driver that sends to itself: on every address, or on one. 0 or the first error. */
static int send_to_itself(const struct aph_rx_address *local)
{
	struct aph_rx_udp_options options = { .size = sizeof(options), .local = *local };
	struct aph_rx_udp *udp = NULL;
	struct aph_rx_path path = { 0 };
	static char bytes[3000];
	int r = aph_rx_udp_open(&udp, &options);

	if (r < 0) {
		assert_null(udp);
		return r;
	}
	engine->receiving_is_event = true;
	CHECK_OK(aph_rx_udp_address(udp, &path.remote));
	if (local->family == AF_UNSPEC)
		path.remote.in6.sin6_addr = in6addr_loopback;
	engine_put(&path, bytes, sizeof(bytes), 1440, 0);
	engine_put(&path, bytes, 100, 100, 0);
	r = aph_rx_udp_flush(udp);
	engine_put(&path, bytes, 100, 100, 0);
	r = r < 0 ? r : aph_rx_udp_flush(udp);
	for (int i = 0; r == 0 && i < 2; i++) {
		r = aph_rx_udp_wait(udp, aph_deadline_ms(i ? 15 : 5));
		engine->n_events = 0;
		r = r == -ETIMEDOUT ? 0 : r;
	}
	if (r == 0)
		r = aph_rx_udp_fd(udp);
	if (r >= 0)
		r = 0;
	udp = aph_rx_udp_close(udp);
	return r;
}

static int scenario(void)
{
	const struct aph_rx_address any = { 0 };
	const struct aph_rx_address one = { .in = { .sin_family = AF_INET,
						    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
	int r = send_to_itself(&any);

	return r < 0 ? r : send_to_itself(&one);
}

static void each_fault_is_clean(void **state)
{
	unsigned total = 0;

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(faults); i++) {
		bool hit = true;

		for (unsigned n = 1; hit && n < 80; n++) {
			struct fds before;
			long blocks = fault_blocks();

			fds_take(&before);
			fault_arm(faults[i].site, n, faults[i].error);
			(void)scenario();
			hit = fault_disarm();
			total += hit;
			if (fds_differ(&before) || fault_blocks() != blocks)
				fail_msg("%s %u leaves something behind",
					 fault_name(faults[i].site), n);
		}
		assert_false(hit);
		assert_int_equal(scenario(), 0);
	}
	print_message("%u failures\n", total);
	assert_true(total > 25);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_fault_is_clean),
	};

	return cmocka_run_group_tests_name("udp faults", tests, NULL, NULL);
}
