/* SPDX-License-Identifier: MIT */
/*
 * The synchronous clients. The socket does not block, so that connecting and sending to a server
 * that keeps up need no time limit; whoever has to wait does so in poll(2).
 */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)

struct exchange {
	int sock;
	bool old; /* the historical interface: plain messages only */
	uint64_t deadline_ns;
	struct afdt_error_t *err;
};

/* How much time is left, at least a microsecond. False when there is no limit. */
static bool time_left(const struct exchange *x, uint64_t *left_ns)
{
	uint64_t now;

	if (x->deadline_ns == APH_FOREVER)
		return false;
	now = aph_afdt_now();
	*left_ns = x->deadline_ns > now + 1000 ? x->deadline_ns - now : 1000;
	return true;
}

static int late(const struct exchange *x, const char *message)
{
	if (x->deadline_ns == APH_FOREVER || aph_afdt_now() < x->deadline_ns)
		return 0;
	return aph_afdt_fail(x->err, AFDT_TIMEOUT, 0, message);
}

/* Waits until the socket is ready for `events`: 0, or an error. */
static int wait_for(const struct exchange *x, short events, const char *message)
{
	struct pollfd poller = { .fd = x->sock, .events = events };
	struct timespec timeout;
	uint64_t left;
	int r = -1;

	while (r < 0) {
		bool limited = time_left(x, &left);

		if (limited)
			timeout = (struct timespec){ (time_t)(left / NS_PER_S),
						     (long)(left % NS_PER_S) };
		r = ppoll(&poller, 1, limited ? &timeout : NULL, NULL);
		if (r < 0 && errno != EINTR)
			return aph_afdt_fail(x->err, AFDT_POLL, errno, "cannot wait");
		if (r <= 0) {
			int expired = late(x, message);

			if (expired < 0)
				return expired;
			r = -1;
		}
	}
	return 0;
}

/* -- connecting -------------------------------------------------------------------------------- */

/* The backlog is full: only a connect(2) that blocks waits for room in it. */
static int connect_late(const struct exchange *x, const struct aph_afdt_address *address)
{
	int flags = fcntl(x->sock, F_GETFL), r = 0;
	struct timeval timeout;
	uint64_t left;

	if (flags < 0 || fcntl(x->sock, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return aph_afdt_fail(x->err, AFDT_CONNECT, errno, "cannot wait for the server");
	do {
		if (time_left(x, &left)) {
			timeout.tv_sec = (time_t)(left / NS_PER_S);
			timeout.tv_usec = (suseconds_t)(left % NS_PER_S / 1000);
			if (setsockopt(x->sock, SOL_SOCKET, SO_SNDTIMEO, &timeout,
				       sizeof(timeout)) < 0)
				return aph_afdt_fail(x->err, AFDT_CONNECT, errno,
						     "cannot set a time limit");
		}
		if (connect(x->sock, (const struct sockaddr *)&address->un, address->len) == 0)
			break;
		r = errno == EAGAIN || errno == EINTR ? late(x, "the server does not accept")
						      : aph_afdt_fail(x->err, AFDT_CONNECT, errno,
								      "cannot connect to the path");
	} while (r == 0);
	if (r == 0 && fcntl(x->sock, F_SETFL, flags) < 0)
		return aph_afdt_fail(x->err, AFDT_CONNECT, errno, "cannot wait for the server");
	return r;
}

static int open_exchange(struct exchange *x, const char *path)
{
	struct aph_afdt_address address;
	int r = aph_afdt_address_set(&address, path, x->err);

	if (r < 0)
		return r;
	x->sock = aph_afdt_socket(SOCK_NONBLOCK, x->err);
	if (x->sock < 0)
		return x->sock;
	if (connect(x->sock, (const struct sockaddr *)&address.un, address.len) == 0)
		return 0;
	if (errno == EAGAIN || errno == EINTR)
		return connect_late(x, &address);
	return aph_afdt_fail(x->err, AFDT_CONNECT, errno, "cannot connect to the path");
}

/* -- the two messages -------------------------------------------------------------------------- */

static int send_request(const struct exchange *x, const struct aph_afdt_message *request)
{
	bool extended = !x->old && aph_afdt_fds_max(x->sock) > 0;
	struct aph_afdt_outgo out;
	int r;

	if (request->n_fds && !extended)
		return aph_afdt_fail(x->err, AFDT_CONNECT, EOPNOTSUPP,
				     "the server takes no descriptors");
	r = aph_afdt_outgo_init(&out, request, extended, x->err);
	while (r == 0) {
		r = aph_afdt_outgo_write(&out, x->sock, 0);
		if (r == 1)
			return 0;
		if (r == -EAGAIN)
			r = wait_for(x, POLLOUT, "the server does not read");
		else if (r == -EINTR)
			r = 0;
		else if (r < 0)
			r = aph_afdt_fail(x->err, AFDT_SENDMSG, -r, "cannot send the request");
	}
	return r;
}

/* The answer of a server that is awake is here before this thread could be asleep. */
static void look_again(const struct exchange *x, struct aph_afdt_intake *in)
{
	static _Thread_local struct aph_afdt_spin spin;
	uint64_t until = aph_afdt_spin_begin(&spin, APH_AFDT_SPIN_CLIENT_NS);
	ssize_t n;

	if (!until)
		return;
	do {
		n = aph_afdt_intake_read(in, x->sock, AFDT_FULL_MSGLEN);
	} while (n == -EAGAIN && aph_afdt_now() < until);
	aph_afdt_spin_finish(&spin, n > 0);
}

static int receive(const struct exchange *x, struct aph_afdt_intake *in)
{
	enum aph_afdt_intake_state state;
	ssize_t n;
	int r;

	look_again(x, in);
	while ((state = aph_afdt_intake_state(in, x->err)) == APH_AFDT_PART) {
		r = wait_for(x, POLLIN, "the server has not answered in time");
		if (r < 0)
			return r;
		n = aph_afdt_intake_read(in, x->sock, AFDT_FULL_MSGLEN);
		if (n == 0)
			return aph_afdt_fail(x->err, in->n ? AFDT_FORMAT : AFDT_RECVMSG, 0,
					     in->n ? "the server has gone within its answer"
						   : "the server has gone without an answer");
		if (n < 0 && n != -EAGAIN && n != -EINTR)
			return aph_afdt_fail(x->err, AFDT_RECVMSG, (int)-n,
					     "cannot receive the answer");
	}
	return state == APH_AFDT_WHOLE ? 0 : errno ? -errno : -EPROTO;
}

static void enter(const struct exchange *x, enum afdt_phase phase)
{
	if (x->err)
		x->err->phase = phase;
}

static int exchange(struct exchange *x, const char *path, const struct aph_afdt_message *request,
		    struct aph_afdt_room *response)
{
	struct aph_afdt_intake in;
	int r;

	enter(x, AFDT_CREATE_CLIENT);
	aph_afdt_intake_init(&in);
	r = open_exchange(x, path);
	if (r == 0)
		r = send_request(x, request);
	if (r == 0) {
		enter(x, AFDT_HANDLE_RESPONSE);
		r = receive(x, &in);
	}
	if (r == 0)
		r = aph_afdt_intake_give(&in, response, x->err);
	aph_afdt_intake_deinit(&in);
	aph_afdt_close(x->sock);
	if (r == 0)
		enter(x, AFDT_NO_PHASE);
	return r;
}

APH_API int aph_afdt_call(const char *path, const struct aph_afdt_message *request,
			  struct aph_afdt_room *response, uint64_t deadline_ns,
			  struct afdt_error_t *err)
{
	static const struct aph_afdt_message nothing;
	struct exchange x = { .sock = -1, .deadline_ns = deadline_ns, .err = err };
	struct aph_afdt_room none = { 0 };

	return exchange(&x, path, request ? request : &nothing, response ? response : &none);
}

APH_API int afdt_sync_client(const char *fname, const uint8_t *request, uint32_t request_length,
			     uint8_t *response, uint32_t *response_length, int *received_fd,
			     const struct timeval *timeout, struct afdt_error_t *err)
{
	const struct aph_afdt_message message = { .body = request, .len = request_length };
	struct exchange x = { .sock = -1, .old = true, .err = err };
	struct aph_afdt_room room = { .body = response, .len = *response_length };
	int fd = -1;

	x.deadline_ns = aph_afdt_deadline(timeout);
	if (received_fd) {
		*received_fd = -1;
		room.fds = &fd;
		room.n_fds = 1;
	}
	if (exchange(&x, fname, &message, &room) < 0)
		return -1;
	*response_length = (uint32_t)room.len;
	if (received_fd)
		*received_fd = fd;
	return 0;
}
