/* SPDX-License-Identifier: MIT */
/*
 * Encoding, decoding, and the two system calls. Nothing that comes is believed: lengths are checked
 * before they are used, and every descriptor that arrives has an owner from the first instruction
 * on.
 */
#include "wire.h"

#include "../../base/close.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The header of ours: this bit, the number of descriptors, and the length. All other bits are 0. */
#define EXTENDED  0x80000000u
#define FDS_SHIFT 16
#define FDS_MASK  0xffu
#define LEN_MASK  0xffffu

#define NS_PER_S UINT64_C(1000000000)

/* After so many times in vain in a row it is tried once in 2^7 times. */
#define SPIN_MISSES_MAX 7

/* Room for descriptors, and for credentials should the program have asked its sockets for them. */
union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(APH_AFDT_FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
};

void aph_afdt_close(int fd)
{
	int saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
}

void aph_afdt_intake_deinit(struct aph_afdt_intake *in)
{
	aph_close_received(APH_CLOSE_ANYBODY, in->fds, in->n_fds);
	in->n_fds = 0;
}

static void take_fds(struct aph_afdt_intake *in, const struct cmsghdr *cmsg)
{
	size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	const unsigned char *data = CMSG_DATA(cmsg);

	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, data + i * sizeof(int), sizeof(int));
		if (in->n_fds < APH_AFDT_FDS_MAX) {
			in->fds[in->n_fds++] = fd;
		} else {
			in->excess = true;
			aph_close_received(APH_CLOSE_ANYBODY, &fd, 1);
		}
	}
}

ssize_t aph_afdt_intake_read(struct aph_afdt_intake *in, int sock, unsigned upto)
{
	union control control;
	struct iovec iov = { in->bytes + in->n, upto - in->n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;
	ssize_t n;

	msg.msg_control = &control;
	/*
	 * Where too many wait to be closed, descriptors get lost as if this process had no room for
	 * them.
	 */
	msg.msg_controllen = aph_close_has_room(APH_CLOSE_ANYBODY) ? sizeof(control) : 0;
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg))
		if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
			take_fds(in, cmsg);
	if (msg.msg_flags & MSG_CTRUNC)
		in->lost = true;
	in->n += (unsigned)n;
	return n;
}

static bool read_header(struct aph_afdt_intake *in)
{
	uint32_t word;

	memcpy(&word, in->bytes, sizeof(word));
	in->extended = word & EXTENDED;
	if (!in->extended) {
		in->len = word;
		return word <= AFDT_MSGLEN;
	}
	in->len = word & LEN_MASK;
	in->fds_wanted = word >> FDS_SHIFT & FDS_MASK;
	return in->len <= AFDT_MSGLEN && in->fds_wanted <= APH_AFDT_FDS_MAX &&
	       !(word & ~(EXTENDED | FDS_MASK << FDS_SHIFT | LEN_MASK));
}

static enum aph_afdt_intake_state wrong(struct afdt_error_t *err, enum afdt_operation operation,
					int cause, const char *message)
{
	(void)aph_afdt_fail(err, operation, cause, message);
	return APH_AFDT_WRONG;
}

enum aph_afdt_intake_state aph_afdt_intake_state(struct aph_afdt_intake *in,
						 struct afdt_error_t *err)
{
	if (in->lost)
		return wrong(err, AFDT_RECVMSG, EMFILE,
			     "a descriptor was lost: this process may not have more");
	if (in->n < APH_AFDT_HEADER)
		return APH_AFDT_PART;
	if (!read_header(in))
		return wrong(err, AFDT_FORMAT, 0,
			     "the header announces more than a message can be");
	if (in->excess || in->n_fds > (in->extended ? in->fds_wanted : 1))
		return wrong(err, AFDT_FORMAT, 0, "more descriptors came than a message may have");
	if (in->n < APH_AFDT_HEADER + in->len)
		return APH_AFDT_PART;
	if (in->n > APH_AFDT_HEADER + in->len)
		return wrong(err, AFDT_FORMAT, 0, "more came than the header announced");
	if (in->n_fds < in->fds_wanted)
		return wrong(err, AFDT_FORMAT, 0, "fewer descriptors came than announced");
	return APH_AFDT_WHOLE;
}

int aph_afdt_intake_give(struct aph_afdt_intake *in, struct aph_afdt_room *room,
			 struct afdt_error_t *err)
{
	if (in->len > room->len)
		return aph_afdt_fail(err, AFDT_FORMAT, 0, "the message is longer than the buffer"),
		       -EMSGSIZE;
	if (in->n_fds > room->n_fds)
		return aph_afdt_fail(err, AFDT_FORMAT, 0,
				     "a descriptor came that there is no room for");
	if (in->len)
		memcpy(room->body, aph_afdt_intake_body(in), in->len);
	if (in->n_fds)
		memcpy(room->fds, in->fds, in->n_fds * sizeof(int));
	room->len = in->len;
	room->n_fds = in->n_fds;
	in->n_fds = 0;
	return 0;
}

int aph_afdt_outgo_init(struct aph_afdt_outgo *out, const struct aph_afdt_message *message,
			bool extended, struct afdt_error_t *err)
{
	if (message->len > AFDT_MSGLEN)
		return aph_afdt_fail(err, AFDT_FORMAT, 0, "the message is too long"), -EMSGSIZE;
	if (message->n_fds > APH_AFDT_FDS_MAX)
		return aph_afdt_fail(err, AFDT_FORMAT, EINVAL, "too many descriptors");
	if ((message->len && !message->body) || (message->n_fds && !message->fds))
		return aph_afdt_fail(err, AFDT_FORMAT, EINVAL, "a pointer is missing");
	out->len = (unsigned)message->len;
	out->n_fds = (unsigned)message->n_fds;
	out->header = out->len;
	if (extended || out->n_fds > 1)
		out->header |= EXTENDED | out->n_fds << FDS_SHIFT;
	out->body = message->body ? message->body : "";
	out->fds = message->fds;
	out->sent = 0;
	return 0;
}

static void attach_fds(struct msghdr *msg, union control *control, const int *fds, unsigned n)
{
	control->header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
					    .cmsg_type = SCM_RIGHTS,
					    .cmsg_len = CMSG_LEN(n * sizeof(int)) };
	memcpy(CMSG_DATA(&control->header), fds, n * sizeof(int));
	msg->msg_control = control;
	msg->msg_controllen = control->header.cmsg_len;
}

int aph_afdt_outgo_write(struct aph_afdt_outgo *out, int sock, int flags)
{
	unsigned in_header = out->sent < APH_AFDT_HEADER ? APH_AFDT_HEADER - out->sent : 0;
	unsigned in_body = in_header ? 0 : out->sent - APH_AFDT_HEADER;
	union control control;
	struct iovec iov[2];
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n;

	iov[0].iov_base = (char *)&out->header + (APH_AFDT_HEADER - in_header);
	iov[0].iov_len = in_header;
	iov[1].iov_base = (char *)out->body + in_body;
	iov[1].iov_len = out->len - in_body;
	if (out->sent == 0 && out->n_fds)
		attach_fds(&msg, &control, out->fds, out->n_fds);
	n = sendmsg(sock, &msg, MSG_NOSIGNAL | flags);
	if (n < 0)
		return -errno;
	out->sent += (unsigned)n;
	return out->sent == APH_AFDT_HEADER + out->len;
}

uint64_t aph_afdt_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t aph_afdt_deadline(const struct timeval *timeout)
{
	uint64_t now;

	if (!timeout || timeout->tv_sec > INT32_MAX)
		return APH_FOREVER;
	now = aph_afdt_now();
	if (timeout->tv_sec < 0 || timeout->tv_usec < 0)
		return now;
	return now + (uint64_t)timeout->tv_sec * NS_PER_S + (uint64_t)timeout->tv_usec * 1000;
}

uint64_t aph_afdt_spin_begin(struct aph_afdt_spin *spin, unsigned ns)
{
	if (spin->skip) {
		spin->skip--;
		return 0;
	}
	return aph_afdt_now() + ns;
}

void aph_afdt_spin_finish(struct aph_afdt_spin *spin, bool paid)
{
	if (paid)
		spin->misses = 0;
	else if (spin->misses < SPIN_MISSES_MAX)
		spin->misses++;
	spin->skip = paid ? 0 : (1u << spin->misses) - 1;
}

int aph_afdt_address_set(struct aph_afdt_address *address, const char *path,
			 struct afdt_error_t *err)
{
	size_t len;

	if (!path)
		return aph_afdt_fail(err, AFDT_PATHNAME, EINVAL, "there is no path");
	len = strlen(path);
	if (len == 0)
		return aph_afdt_fail(err, AFDT_PATHNAME, ENOENT, "the path is empty");
	if (len >= sizeof(address->un.sun_path))
		return aph_afdt_fail(err, AFDT_PATHNAME, ENAMETOOLONG,
				     "the path is too long for a socket");
	address->un.sun_family = AF_UNIX;
	memcpy(address->un.sun_path, path, len + 1);
	address->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

int aph_afdt_socket(int flags, struct afdt_error_t *err)
{
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (sock < 0)
		return aph_afdt_fail(err, AFDT_SOCKET, errno, "no socket could be made");
	return sock;
}
