/* SPDX-License-Identifier: MIT */
/*
 * Kernels and ways that refuse what another one does: the same datagrams leave all the same, and
 * what was refused is not tried again with every run. The system calls that send are wrapped and
 * answer for them.
 */
#include "engine.h"
#include "suite.h"

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define PACKETS 45
#define PACKET	1440

/* What the kernel of the moment does not take. */
static struct {
	size_t segments_max; /* of one message; 0: any number */
	int error;	     /* what it says to more */
	int once;	     /* the next call fails with this, whatever it is */
	int always;	     /* each call does */
	size_t whole_max;    /* a longer datagram has to be fragmented; 0: none has */
	unsigned n_calls, n_refused;
} kernel;

static struct aph_rx_udp *udp;
static int peer;
static struct aph_rx_path to_peer;
static unsigned char run[PACKETS * PACKET];

ssize_t __real_sendmsg(int fd, const struct msghdr *header, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *header, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
ssize_t __wrap_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to,
		      socklen_t to_len);

static size_t length_of(const struct msghdr *header)
{
	size_t len = 0;

	for (size_t i = 0; i < header->msg_iovlen; i++)
		len += header->msg_iov[i].iov_len;
	return len;
}

static size_t segments_of(const struct msghdr *header)
{
	struct msghdr *h = (struct msghdr *)(uintptr_t)header;
	size_t len = length_of(header);
	uint16_t segment;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_SEGMENT)
			continue;
		memcpy(&segment, CMSG_DATA(c), sizeof(segment));
		return (len + segment - 1) / segment;
	}
	return 1;
}

/* Whether the socket has asked for it. */
static bool may_fragment(int fd)
{
	int discover = -1;
	socklen_t len = sizeof(discover);

	assert_int_equal(getsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, &len), 0);
	return discover != IP_PMTUDISC_DO;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *header, int flags)
{
	kernel.n_calls++;
	if (kernel.once || kernel.always) {
		errno = kernel.once ? kernel.once : kernel.always;
		kernel.once = 0;
		return -1;
	}
	if (kernel.whole_max && segments_of(header) == 1 && length_of(header) > kernel.whole_max &&
	    !may_fragment(fd)) {
		kernel.n_refused++;
		errno = EMSGSIZE;
		return -1;
	}
	if (kernel.segments_max && segments_of(header) > kernel.segments_max) {
		kernel.n_refused++;
		errno = kernel.error;
		return -1;
	}
	return __real_sendmsg(fd, header, flags);
}

ssize_t __wrap_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to,
		      socklen_t to_len)
{
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr header = {
		.msg_name = (void *)(uintptr_t)to,
		.msg_namelen = to_len,
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};

	return __wrap_sendmsg(fd, &header, flags);
}

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		ssize_t len = __wrap_sendmsg(fd, &headers[i].msg_hdr, flags);

		if (len < 0)
			break;
		headers[i].msg_len = (unsigned)len;
	}
	return i || !n ? (int)i : -1;
}

static int set_up(void **state)
{
	struct timeval patience = { .tv_sec = 2 };
	struct sockaddr_in *in = &to_peer.remote.in;
	socklen_t len = sizeof(*in);

	(void)state;
	memset(&kernel, 0, sizeof(kernel));
	memset(&to_peer, 0, sizeof(to_peer));
	assert_int_equal(aph_rx_udp_open(&udp, NULL), 0);
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	peer = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(peer, &to_peer.remote.any, len), 0);
	assert_int_equal(getsockname(peer, &to_peer.remote.any, &len), 0);
	assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	for (size_t i = 0; i < sizeof(run); i++)
		run[i] = (unsigned char)(i / PACKET + i);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	udp = aph_rx_udp_close(udp);
	close(peer);
	return 0;
}

/* Sends `n` packets as one run, the last a little short, and expects them. */
static void send_run(size_t n)
{
	size_t len = n * PACKET - 7;
	unsigned char got[PACKET + 1];

	engine_put(&to_peer, run, len, PACKET, n > 3 ? 3 * PACKET + 1 : 0);
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	for (size_t i = 0; i < len; i += PACKET) {
		size_t want = len - i < PACKET ? len - i : PACKET;

		assert_int_equal(recv(peer, got, sizeof(got), 0), (ssize_t)want);
		assert_memory_equal(got, run + i, want);
	}
	assert_int_equal(recv(peer, got, sizeof(got), MSG_DONTWAIT), -1);
	assert_int_equal(engine->n_errors, 0);
}

static void shorter_runs(void **state)
{
	(void)state;
	kernel.segments_max = 16;
	kernel.error = EINVAL;
	send_run(PACKETS);
	/* 45 and 22 were refused, 11 are taken; and that is remembered. */
	assert_int_equal(kernel.n_refused, 2);
	kernel.n_calls = 0;
	send_run(PACKETS);
	assert_int_equal(kernel.n_refused, 2);
	assert_int_equal(kernel.n_calls, 5);
}

static void none_at_all(void **state)
{
	(void)state;
	kernel.segments_max = 1;
	kernel.error = EIO;
	send_run(PACKETS);
	assert_int_equal(kernel.n_refused, 1);
	send_run(PACKETS);
	assert_int_equal(kernel.n_refused, 1);
}

static void halved_down_to_one(void **state)
{
	(void)state;
	kernel.segments_max = 1;
	kernel.error = EINVAL;
	send_run(PACKETS);
	assert_int_equal(kernel.n_refused, 5);
	send_run(PACKETS);
	assert_int_equal(kernel.n_refused, 5);
}

static void segments_too_large_for_the_way(void **state)
{
	(void)state;
	kernel.segments_max = 1;
	kernel.error = EMSGSIZE;
	send_run(PACKETS);
	send_run(2);
}

/* An address that is no longer ours has nothing to do with runs. */
static void another_kind_of_invalid(void **state)
{
	(void)state;
	kernel.always = EINVAL;
	engine_put(&to_peer, run, 4 * PACKET, PACKET, 0);
	assert_int_equal(aph_rx_udp_flush(udp), -EINVAL);
	assert_true(engine->n_errors >= 1);
	assert_int_equal(engine->errors[0].error, EINVAL);
	assert_true(engine->errors[0].local);
	engine_forget();
	memset(&kernel, 0, sizeof(kernel));
	send_run(PACKETS);
	assert_int_equal(kernel.n_calls, 1);
}

/* An error of an earlier datagram surfaces here; this one leaves. */
static void errors_of_others(void **state)
{
	static const int errors[] = { ECONNREFUSED, EHOSTUNREACH, EINTR, EMSGSIZE };

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(errors); i++) {
		kernel.once = errors[i];
		send_run(PACKETS);
		kernel.once = errors[i];
		send_run(1);
	}
	/* Nor have they anything to do with the length of runs. */
	kernel.n_calls = 0;
	send_run(PACKETS);
	assert_int_equal(kernel.n_calls, 1);
}

/* Behind it comes what the kernel has to say about this one. */
static void errors_of_others_first(void **state)
{
	static const int errors[] = { EIO, EINVAL, EMSGSIZE };

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(errors); i++) {
		kernel.segments_max = 16;
		kernel.error = errors[i];
		kernel.once = EHOSTUNREACH;
		send_run(PACKETS);
	}
}

static void errors_that_stay(void **state)
{
	(void)state;
	kernel.always = ENETUNREACH;
	engine_put(&to_peer, run, PACKET, PACKET, 0);
	engine_put(&to_peer, run, PACKET, PACKET, 0);
	assert_int_equal(aph_rx_udp_flush(udp), -ENETUNREACH);
	assert_int_equal(engine->n_errors, 2);
	assert_int_equal(engine->errors[0].error, ENETUNREACH);
	assert_int_equal(engine->errors[0].quote_len, 28);
	assert_memory_equal(engine->errors[0].quote, run, 28);
}

/* Others' errors that come faster than we send are not this peer's: no more than a loss. */
static void errors_of_others_without_end(void **state)
{
	static const int errors[] = { ECONNREFUSED, ENOPROTOOPT };

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(errors); i++) {
		for (size_t n = 1; n < 4; n++) {
			kernel.always = errors[i];
			engine_put(&to_peer, run, n * PACKET, PACKET, 0);
			assert_int_equal(aph_rx_udp_flush(udp), -errors[i]);
			assert_int_equal(engine->n_errors, 0);
		}
		kernel.always = 0;
		send_run(PACKETS);
	}
}

/* Nor are they the answer to a probe, which has not left yet. */
static void errors_of_others_and_a_probe(void **state)
{
	unsigned char got[PACKET];

	(void)state;
	kernel.once = EMSGSIZE;
	engine_put(&to_peer, run, PACKET, PACKET, 0);
	engine->to_send[engine->n_to_send - 1].probe = true;
	assert_int_equal(aph_rx_udp_flush(udp), 0);
	assert_int_equal(engine->n_errors, 0);
	assert_int_equal(recv(peer, got, sizeof(got), 0), PACKET);
}

/* A full queue is a loss, and nobody's error; so is what a firewall drops. */
static void no_room(void **state)
{
	static const int errors[] = { ENOBUFS, EAGAIN, ENOMEM, EPERM };

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(errors); i++) {
		kernel.once = errors[i];
		engine_put(&to_peer, run, PACKET, PACKET, 0);
		assert_int_equal(aph_rx_udp_flush(udp), -errors[i]);
		assert_int_equal(engine->n_errors, 0);
	}
	send_run(PACKETS);
}

/*
 * Our kernel fragments a datagram that is too large for its way: it is asked to once, when there is
 * one.
 */
static void larger_than_the_way(void **state)
{
	(void)state;
	kernel.whole_max = PACKET / 2;
	send_run(1);
	assert_in_range(kernel.n_refused, 1, 2);
	kernel.n_refused = 0;
	send_run(1);
	assert_int_equal(kernel.n_refused, 0);
}

static void runs_larger_than_the_way(void **state)
{
	(void)state;
	kernel.whole_max = PACKET / 2;
	kernel.segments_max = 1;
	kernel.error = EMSGSIZE;
	send_run(PACKETS);
	/* The first one twice, as it might have been about another datagram. */
	assert_int_equal(kernel.n_refused, 7);
	send_run(PACKETS);
	assert_int_equal(kernel.n_refused, 7);
}

/* Where others send from the socket too nobody changes it for them. */
static void may_be_larger_where_it_is_shared(void **state)
{
	struct aph_rx_udp_options options = { .size = sizeof(options), .flags = APH_RX_UDP_SHARE };

	(void)state;
	udp = aph_rx_udp_close(udp);
	assert_int_equal(aph_rx_udp_open(&udp, &options), 0);
	kernel.whole_max = PACKET / 2;
	send_run(1);
	assert_int_equal(kernel.n_refused, 0);
}

#define REFUSAL(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		REFUSAL(shorter_runs),
		REFUSAL(none_at_all),
		REFUSAL(halved_down_to_one),
		REFUSAL(segments_too_large_for_the_way),
		REFUSAL(another_kind_of_invalid),
		REFUSAL(errors_of_others),
		REFUSAL(errors_of_others_first),
		REFUSAL(errors_of_others_without_end),
		REFUSAL(errors_of_others_and_a_probe),
		REFUSAL(errors_that_stay),
		REFUSAL(no_room),
		REFUSAL(larger_than_the_way),
		REFUSAL(runs_larger_than_the_way),
		REFUSAL(may_be_larger_where_it_is_shared),
	};

	return cmocka_run_group_tests_name("udp refusals", tests, NULL, NULL);
}
