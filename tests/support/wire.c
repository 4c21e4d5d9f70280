/* SPDX-License-Identifier: MIT */
#include "wire.h"

#include "check.h"
#include "fds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BELL_START     (UINT64_C(1) << 62)
#define FDS_IN_MESSAGE 253

bool wire_send(int sock, const void *data, size_t len, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(FDS_IN_MESSAGE * sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	if (n_fds > 0) {
		CHECK(n_fds <= FDS_IN_MESSAGE);
		memset(&control, 0, sizeof(control));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

/* Receives one message and its descriptors. What recvmsg() said. */
static ssize_t receive(int sock, void *data, size_t len, int *fds, size_t *n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(FDS_IN_MESSAGE * sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

	*n_fds = 0;
	if (n < 0)
		return n;
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		*n_fds = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(cmsg), *n_fds * sizeof(int));
	}
	return n;
}

static bool ready(int fd, int timeout_ms)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	int n;

	do {
		n = poll(&poller, 1, timeout_ms);
	} while (n < 0 && errno == EINTR);
	return n > 0;
}

/* -- client ------------------------------------------------------------------------------------ */

int wire_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock = (int)CHECK_OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));

	CHECK(strlen(path) < sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (connect(sock, (void *)&address, sizeof(address)) < 0) {
		close(sock);
		return -1;
	}
	return sock;
}

struct aph_hello wire_hello(void)
{
	return (struct aph_hello){ .magic = APH_LOCAL_MAGIC,
				   .version = APH_LOCAL_VERSION,
				   .kind = APH_HELLO_CALLS,
				   .allow = APH_ALLOW_ANY,
				   .depth = APH_DEPTH_MIN,
				   .calls_max = APH_CALLS_DEFAULT,
				   .arena = APH_ARENA_DEFAULT };
}

static void point_into(struct wire *wire)
{
	wire->words = (void *)wire->map;
}

bool wire_open_begin(struct wire *wire, const char *path, const struct aph_hello *hello)
{
	struct aph_hello good = wire_hello();

	memset(wire, 0, sizeof(*wire));
	wire->bell = wire->segment = wire->page = -1;
	wire->sock = wire_connect(path);
	if (wire->sock < 0)
		return false;
	wire_send(wire->sock, hello ? hello : &good, sizeof(good), NULL, 0);
	return true;
}

bool wire_open_finish(struct wire *wire, int timeout_ms)
{
	int fds[FDS_IN_MESSAGE];
	size_t n_fds;
	ssize_t n;

	if (!ready(wire->sock, timeout_ms))
		goto bad;
	n = receive(wire->sock, &wire->welcome, sizeof(wire->welcome), fds, &n_fds);
	if (n != (ssize_t)sizeof(wire->welcome) || wire->welcome.status != 0) {
		CHECK(n_fds == 0);
		goto bad;
	}
	CHECK(n_fds == 2 + (size_t)(wire->welcome.flags & APH_WELCOME_BELL));
	wire->bell = wire->welcome.flags & APH_WELCOME_BELL ? fds[2] : -1;
	wire->size = aph_layout_size(wire->welcome.depth, wire->welcome.arena);
	wire->map = mmap(NULL, wire->size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	CHECK(wire->map != MAP_FAILED);
	wire->shared = mmap(NULL, APH_PAGE, PROT_READ, MAP_SHARED, fds[1], 0);
	CHECK(wire->shared != MAP_FAILED);
	wire->segment = fds[0];
	wire->page = fds[1];
	point_into(wire);
	return true;
bad:
	close(wire->sock);
	wire->sock = -1;
	return false;
}

bool wire_open(struct wire *wire, const char *path, const struct aph_hello *hello)
{
	return wire_open_begin(wire, path, hello) && wire_open_finish(wire, check_ms(3000));
}

void wire_close(struct wire *wire)
{
	if (wire->map)
		munmap(wire->map, wire->size);
	if (wire->shared)
		munmap(wire->shared, APH_PAGE);
	if (wire->sock >= 0)
		close(wire->sock);
	if (wire->bell >= 0)
		close(wire->bell);
	if (wire->segment >= 0)
		close(wire->segment);
	if (wire->page >= 0)
		close(wire->page);
	memset(wire, 0, sizeof(*wire));
	wire->sock = wire->bell = wire->segment = wire->page = -1;
}

/* -- server ------------------------------------------------------------------------------------ */

int wire_steal_listener(void)
{
	struct fds fds;
	int listening, found = -1;
	socklen_t len;

	fds_take(&fds);
	for (int fd = 0; fd < FDS_MAX; fd++) {
		len = sizeof(listening);
		if (!fds.open[fd] ||
		    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening)
			continue;
		CHECK(found < 0);
		found = fd;
	}
	CHECK(found >= 0);
	return (int)CHECK_OK(fcntl(found, F_DUPFD_CLOEXEC, 0));
}

int wire_accept(int listener, struct aph_hello *hello, int timeout_ms)
{
	int sock;

	if (!ready(listener, timeout_ms))
		return -1;
	sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (sock < 0)
		return -1;
	if (!ready(sock, timeout_ms) || recv(sock, hello, sizeof(*hello), 0) != sizeof(*hello)) {
		close(sock);
		return -1;
	}
	return sock;
}

void wire_serve(struct wire *wire, int sock, const struct aph_hello *asked, bool bell)
{
	struct aph_hello defaults = *asked;
	const struct aph_hello *hello = &defaults;

	/* A client that does not mind says 0. */
	defaults.depth = asked->depth ? asked->depth : APH_DEPTH_MIN;
	defaults.calls_max = asked->calls_max ? asked->calls_max : APH_CALLS_DEFAULT;
	defaults.arena = asked->arena ? asked->arena : APH_ARENA_DEFAULT;
	memset(wire, 0, sizeof(*wire));
	wire->server = true;
	wire->sock = sock;
	wire->bell = -1;
	wire->welcome = (struct aph_welcome){ .magic = APH_LOCAL_MAGIC,
					      .version = APH_LOCAL_VERSION,
					      .depth = hello->depth,
					      .calls_max = hello->calls_max,
					      .arena = hello->arena,
					      .flags = bell ? APH_WELCOME_BELL : 0 };
	wire->size = aph_layout_size(hello->depth, hello->arena);
	wire->segment = (int)CHECK_OK(memfd_create("segment", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	CHECK_OK(ftruncate(wire->segment, (off_t)wire->size));
	wire->map = mmap(NULL, wire->size, PROT_READ | PROT_WRITE, MAP_SHARED, wire->segment, 0);
	CHECK(wire->map != MAP_FAILED);
	point_into(wire);
	wire->page = (int)CHECK_OK(memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	CHECK_OK(ftruncate(wire->page, APH_PAGE));
	wire->shared = mmap(NULL, APH_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, wire->page, 0);
	CHECK(wire->shared != MAP_FAILED);
	/* Asleep, so that whoever sends also rings. */
	atomic_store(&wire->shared->state, APH_PAGE_ASLEEP);
	if (bell)
		wire->bell = (int)CHECK_OK(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE));
	if (bell) {
		uint64_t start = BELL_START;

		CHECK(write(wire->bell, &start, sizeof(start)) == sizeof(start));
	}
}

void wire_welcome(int sock, const struct aph_welcome *welcome, const int *fds, size_t n_fds)
{
	wire_send(sock, welcome, sizeof(*welcome), fds, n_fds);
}

void wire_serve_well(struct wire *wire, int sock, const struct aph_hello *hello)
{
	int fds[3];

	wire_serve(wire, sock, hello, true);
	CHECK_OK(fcntl(wire->segment, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
	CHECK_OK(fcntl(wire->page, F_ADD_SEALS,
		       F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL));
	fds[0] = wire->segment;
	fds[1] = wire->page;
	fds[2] = wire->bell;
	wire_welcome(sock, &wire->welcome, fds, 3);
}

/* -- both -------------------------------------------------------------------------------------- */

struct aph_record *wire_slot(const struct wire *wire, bool reply, uint32_t seq)
{
	size_t ring = aph_layout_ring(wire->welcome.depth, reply);
	uint32_t index = (seq - 1) % wire->welcome.depth;

	return (struct aph_record *)(void *)(wire->map + ring) + index;
}

unsigned char *wire_arena(const struct wire *wire, bool reply)
{
	return wire->map + aph_layout_arena(wire->welcome.depth, wire->welcome.arena, reply);
}

_Atomic uint32_t *wire_taken(const struct wire *wire)
{
	return wire->server ? &wire->words->requests_taken : &wire->words->replies_taken;
}

void wire_post_as(struct wire *wire, struct aph_record record, uint32_t seq)
{
	struct aph_record *slot = wire_slot(wire, wire->server, wire->sent + 1);

	memcpy((char *)slot + sizeof(slot->seq), (char *)&record + sizeof(record.seq),
	       sizeof(record) - sizeof(record.seq));
	atomic_store(&slot->seq, seq);
}

void wire_post(struct wire *wire, struct aph_record record)
{
	wire_post_as(wire, record, wire->sent + 1);
	wire->sent++;
}

struct aph_record wire_record(enum aph_record_type type, uint32_t tag, const void *data,
			      uint32_t len)
{
	struct aph_record record;

	memset(&record, 0, sizeof(record));
	record.type = (uint8_t)type;
	record.tag = tag;
	record.len = len;
	if (type == APH_RECORD_REQUEST)
		record.aux = APH_FOREVER;
	if (data)
		memcpy(record.data, data, len < APH_INLINE_MAX ? len : APH_INLINE_MAX);
	return record;
}

void wire_ring(const struct wire *wire)
{
	uint64_t word = 0;
	struct iovec iov = { .iov_base = &word, .iov_len = sizeof(word) };

	if (wire->bell < 0)
		wire_send(wire->sock, "b", 1, NULL, 0);
	else if (wire->server)
		(void)!preadv2(wire->bell, &iov, 1, -1, RWF_NOWAIT);
	else
		(void)!write(wire->bell, &word, sizeof(word));
}

void wire_tell(struct wire *wire, struct aph_record record)
{
	wire_post(wire, record);
	wire_ring(wire);
}

bool wire_next(struct wire *wire, struct aph_record *out, int timeout_ms)
{
	const struct timespec nap = { .tv_nsec = 100000 };
	uint64_t deadline = aph_deadline_ms((uint64_t)timeout_ms);
	struct aph_record *slot = wire_slot(wire, !wire->server, wire->seen + 1);

	while (atomic_load(&slot->seq) != wire->seen + 1) {
		if (aph_time_ns() > deadline || wire_hung_up(wire->sock, 0))
			return false;
		nanosleep(&nap, NULL);
	}
	memcpy((void *)out, (void *)slot, sizeof(*out));
	wire->seen++;
	atomic_store(wire_taken(wire), wire->seen);
	return true;
}

bool wire_hung_up(int sock, int timeout_ms)
{
	uint64_t deadline = aph_deadline_ms((uint64_t)timeout_ms);
	int fds[FDS_IN_MESSAGE];
	unsigned char data[256];
	size_t n_fds;
	ssize_t n;

	do {
		uint64_t now = aph_time_ns();
		int left = now < deadline ? (int)((deadline - now) / 1000000) : 0;

		if (!ready(sock, left))
			return false;
		n = receive(sock, data, sizeof(data), fds, &n_fds);
		while (n_fds > 0)
			close(fds[--n_fds]);
	} while (n > 0);
	return true;
}

bool wire_echo(struct wire *wire, uint32_t tag, int timeout_ms)
{
	struct aph_record record;

	wire_tell(wire, wire_record(APH_RECORD_REQUEST, tag, "echo", 4));
	do {
		if (!wire_next(wire, &record, timeout_ms))
			return false;
	} while (record.tag != tag);
	wire_tell(wire, wire_record(APH_RECORD_DISPOSE, tag, NULL, 0));
	return record.type == APH_RECORD_REPLY && memcmp(record.data, "e", 1) == 0;
}
