/* SPDX-License-Identifier: MIT */
/*
 * Sending: what the engine has, in as few system calls as there are ways. A run of datagrams of one
 * size goes as one message that the kernel cuts up (UDP_SEGMENT). Where it cannot, the same run is
 * cut up here, so that the packets are the same and only the time differs:
 *
 * - EINVAL: more segments than this kernel takes at once, or segments too large for the way. Half
 *   as many for this peer, down to one.
 * - EIO: no device on this way does it (IPsec, checksums). One.
 * - EMSGSIZE: for a probe the answer to its question; for a run as EINVAL. A single datagram is
 *   larger than our kernel knows its way to be: from now on it is to fragment such ones. It is not
 *   asked to before, as it then numbers each datagram, for the fragments that it may become.
 *
 * What the engine hands out is taken for sent; what could not be sent is a loss, that it mends.
 * Only errors that concern the peer are told, after the batch: the messages of a batch are gone
 * with the next call of the engine.
 */
#include "rx/address.h"
#include "udp/udp.h"

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>

#define BATCH_MAX     32 /* messages to take from the engine at once */
#define IOV_PER_PIECE 64 /* of a piece that has to be cut out of a message */
#define TRIES_MAX     4	 /* an error of an earlier datagram may surface on any call */
#define ROUTE_LIFE_NS UINT64_C(600000000000)

/* -- ways that take shorter runs --------------------------------------------------------------- */

static struct aph_udp_route *route_of(struct aph_rx_udp *udp, const struct aph_rx_address *remote)
{
	uint32_t hash = remote->family == AF_INET ? remote->in.sin_addr.s_addr
						  : remote->in6.sin6_addr.s6_addr32[3];

	return &udp->routes[(hash * UINT32_C(2654435761) >> 16) % APH_UDP_ROUTES];
}

/* How many segments one send to that peer may have. */
static unsigned segments_max(struct aph_rx_udp *udp, const struct aph_rx_address *remote,
			     uint64_t now_ns)
{
	struct aph_udp_route *route;

	if (!udp->has_segment)
		return 1;
	if (!udp->n_routes)
		return APH_UDP_RUN_MAX;
	route = route_of(udp, remote);
	if (!route->remote.family || !aph_rx_same_host(&route->remote, remote))
		return APH_UDP_RUN_MAX;
	if (now_ns < route->until_ns)
		return route->segments_max;
	route->remote.family = AF_UNSPEC;
	udp->n_routes--;
	return APH_UDP_RUN_MAX;
}

static void limit_route(struct aph_rx_udp *udp, const struct aph_rx_address *remote, unsigned max,
			uint64_t now_ns)
{
	struct aph_udp_route *route = route_of(udp, remote);

	if (!route->remote.family)
		udp->n_routes++;
	route->remote = *remote;
	route->segments_max = max;
	route->until_ns = now_ns + ROUTE_LIFE_NS;
}

/* It was not the length of the run that the kernel did not like. */
static void forget_route(struct aph_rx_udp *udp, const struct aph_rx_address *remote)
{
	struct aph_udp_route *route = route_of(udp, remote);

	if (!route->remote.family || !aph_rx_same_host(&route->remote, remote))
		return;
	route->remote.family = AF_UNSPEC;
	udp->n_routes--;
}

/* -- pieces ------------------------------------------------------------------------------------ */

/*
 * The part of a message's memory that a piece is. Returns the number of vectors, 0: more than
 * `max`.
 */
static unsigned cut_iov(const struct aph_udp_piece *piece, struct iovec *out, unsigned max)
{
	const struct aph_rx_message *message = piece->message;
	size_t skip = piece->offset, left = piece->len;
	unsigned n = 0;

	for (size_t i = 0; i < message->n_iov && left; i++) {
		size_t len = message->iov[i].iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		if (n == max)
			return 0;
		len -= skip;
		out[n].iov_base = (char *)message->iov[i].iov_base + skip;
		out[n].iov_len = len < left ? len : left;
		left -= out[n].iov_len;
		n++;
		skip = 0;
	}
	return n;
}

/* Control messages of a piece; returns the bytes they take. */
static size_t put_control(struct aph_rx_udp *udp, const struct aph_udp_piece *piece,
			  union aph_udp_control *control)
{
	const struct aph_rx_message *message = piece->message;
	size_t used = 0;

	if (piece->len > message->segment) {
		struct cmsghdr *c = (struct cmsghdr *)(void *)control->bytes;
		uint16_t segment = (uint16_t)message->segment;

		c->cmsg_level = IPPROTO_UDP;
		c->cmsg_type = UDP_SEGMENT;
		c->cmsg_len = CMSG_LEN(sizeof(segment));
		memcpy(CMSG_DATA(c), &segment, sizeof(segment));
		used = CMSG_SPACE(sizeof(segment));
	}
	return used + aph_udp_put_source(udp, message->path, control->bytes + used);
}

/*
 * Whether a header can be made of it; not when the peer's family cannot be reached from this
 * socket.
 */
static bool put_header(struct aph_rx_udp *udp, const struct aph_udp_piece *piece,
		       struct msghdr *header, union aph_udp_name *name,
		       union aph_udp_control *control)
{
	socklen_t len = aph_udp_to_name(udp, &piece->message->path->remote, name);
	size_t used = put_control(udp, piece, control);

	*header = (struct msghdr){
		.msg_name = name,
		.msg_namelen = len,
		.msg_control = used ? control : NULL,
		.msg_controllen = used,
	};
	return len != 0;
}

/* -- failures ---------------------------------------------------------------------------------- */

/* Notes what is to be told to the engine after the batch. */
static void note_failure(struct aph_rx_udp *udp, const struct aph_udp_piece *piece, int error,
			 uint32_t mtu)
{
	struct aph_udp_failure *failure = &udp->failures[udp->n_failures];
	struct iovec iov[1];
	struct aph_udp_piece start = { piece->message, piece->offset, APH_RX_HEADER_SIZE };

	if (udp->n_failures == APH_UDP_FAILURES_MAX)
		return;
	udp->n_failures++;
	failure->path = *piece->message->path;
	failure->error = error;
	failure->mtu = mtu;
	failure->quote_len = 0;
	if (cut_iov(&start, iov, 1) == 1) {
		failure->quote_len = iov[0].iov_len;
		memcpy(failure->quote, iov[0].iov_base, iov[0].iov_len);
	}
}

/* What the peer's calls have to know; the rest is only a loss. */
static bool is_for_peer(int error)
{
	switch (error) {
	case EAGAIN:
	case EINTR:
	case ENOBUFS:
	case ENOMEM:
	/* A firewall has dropped this one, or had no room to remember it. */
	case EPERM:
	/* Only ever about an earlier datagram, of which the error queue has more to say. */
	case ECONNREFUSED:
	case EHOSTDOWN:
	case ENONET:
	case ENOPROTOOPT:
	case EOPNOTSUPP:
	case EPROTO:
		return false;
	default:
		return true;
	}
}

static void tell_failures(struct aph_rx_udp *udp, uint64_t now_ns)
{
	unsigned n = udp->n_failures;

	udp->n_failures = 0;
	for (unsigned i = 0; i < n; i++) {
		const struct aph_udp_failure *failure = &udp->failures[i];

		aph_rx_receive_error(udp->rx, &failure->path, failure->error, failure->mtu,
				     failure->quote_len ? failure->quote : NULL, failure->quote_len,
				     true, now_ns);
	}
}

/* -- fragments --------------------------------------------------------------------------------- */

enum handling {
	/* Our kernel fragments what is larger than it knows the path to be; nobody else. */
	HANDLING_USUAL,
	HANDLING_PROBE, /* nobody does, whatever the kernel knows */
	/* Who has to, does; over IPv6, where routers do not, the same as usual. */
	HANDLING_FRAGMENT,
};

static void handle(struct aph_rx_udp *udp, sa_family_t family, enum handling handling)
{
	const int v4[] = { udp->keeps_whole ? IP_PMTUDISC_DO : IP_PMTUDISC_WANT, IP_PMTUDISC_PROBE,
			   IP_PMTUDISC_DONT };
	static const int v6[] = { IPV6_PMTUDISC_WANT, IPV6_PMTUDISC_PROBE, IPV6_PMTUDISC_WANT };

	if (family == AF_INET)
		(void)setsockopt(udp->fd, IPPROTO_IP, IP_MTU_DISCOVER, &v4[handling],
				 sizeof(v4[handling]));
	else
		(void)setsockopt(udp->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &v6[handling],
				 sizeof(v6[handling]));
}

/*
 * A datagram is too large for its way, as far as our kernel knows. Whether that is another matter
 * now.
 */
static bool allow_fragments(struct aph_rx_udp *udp)
{
	if (!udp->keeps_whole)
		return false;
	udp->keeps_whole = false;
	udp->errors_there = true; /* the refusal is in the queue, too */
	handle(udp, AF_INET, HANDLING_USUAL);
	return true;
}

/* -- system calls ------------------------------------------------------------------------------ */

/*
 * One message; asks again when what the call says is about an earlier one. 0 or a negative errno.
 */
static int send_one(struct aph_rx_udp *udp, const struct msghdr *header)
{
	int r = 0;

	for (unsigned i = 0; i < TRIES_MAX; i++) {
		if (sendmsg(udp->fd, header, 0) >= 0)
			return 0;
		r = -errno;
		if (aph_udp_is_reported(-r) && r != -EMSGSIZE)
			udp->errors_there = true;
		else if (r != -EINTR)
			break;
	}
	return r;
}

/* One piece in parts of `run` segments, fewer as it goes if the kernel wants it so. */
static int send_cut(struct aph_rx_udp *udp, const struct aph_udp_piece *piece, unsigned run,
		    uint64_t now_ns)
{
	size_t segment = piece->message->segment, done = 0;
	const struct aph_rx_address *remote = &piece->message->path->remote;
	int last = 0;

	while (done < piece->len) {
		struct aph_udp_piece part = { piece->message, piece->offset + done, run * segment };
		struct iovec iov[IOV_PER_PIECE];
		union aph_udp_name name;
		union aph_udp_control control = { .bytes = { 0 } };
		struct msghdr header;
		int r;

		if (part.len > piece->len - done)
			part.len = piece->len - done;
		(void)put_header(udp, &part, &header, &name, &control);
		header.msg_iov = iov;
		header.msg_iovlen = cut_iov(&part, iov, IOV_PER_PIECE);
		r = header.msg_iovlen ? send_one(udp, &header) : -EINVAL;
		if (part.len > segment && (r == -EINVAL || r == -EMSGSIZE || r == -EIO)) {
			run = r == -EIO ? 1 : run / 2;
			limit_route(udp, remote, run, now_ns);
			continue;
		}
		if (r == -EMSGSIZE && allow_fragments(udp))
			continue;
		if (r == -EINVAL)
			forget_route(udp, remote);
		if (r < 0 && is_for_peer(-r))
			note_failure(udp, &part, -r, 0);
		if (r < 0)
			last = r;
		done += part.len;
	}
	return last;
}

/* The kernel did not take the piece `i` of the outbox. */
static int refused(struct aph_rx_udp *udp, unsigned i, int error, uint64_t now_ns)
{
	const struct aph_udp_piece *piece = &udp->outbox.pieces[i];
	const struct msghdr *header = &udp->outbox.headers[i].msg_hdr;
	size_t segment = piece->message->segment;
	bool is_run = piece->len > segment;
	int r = -error;

	if (error == EMSGSIZE && !is_run)
		(void)allow_fragments(udp);
	/*
	 * What may be about an earlier datagram is said once: about this one the kernel says it
	 * again.
	 */
	if (aph_udp_is_reported(error) || error == EINTR) {
		udp->errors_there = error != EINTR || udp->errors_there;
		r = send_one(udp, header);
	}
	if (is_run && (r == -EINVAL || r == -EMSGSIZE || r == -EIO)) {
		size_t n = (piece->len + segment - 1) / segment;
		unsigned run = r == -EIO ? 1 : (unsigned)(n / 2);

		limit_route(udp, &piece->message->path->remote, run, now_ns);
		return send_cut(udp, piece, run, now_ns);
	}
	if (r == -EMSGSIZE && allow_fragments(udp))
		r = send_one(udp, header);
	if (r < 0 && is_for_peer(-r))
		note_failure(udp, piece, -r, 0);
	return r;
}

/* Sends what is in the outbox. 0, or what the socket said last. */
static int push(struct aph_rx_udp *udp, uint64_t now_ns)
{
	struct aph_udp_outbox *out = &udp->outbox;
	unsigned i = 0, n = out->n;
	int last = 0;

	out->n = 0;
	out->n_iov = 0;
	while (i < n) {
		int r;

		if (n - i == 1)
			r = sendmsg(udp->fd, &out->headers[i].msg_hdr, 0) < 0 ? -1 : 1;
		else
			r = sendmmsg(udp->fd, out->headers + i, n - i, 0);
		if (r > 0) {
			i += (unsigned)r;
			continue;
		}
		/* A full queue has held us up for long enough: the rest is lost. */
		if (errno == EAGAIN)
			return -EAGAIN;
		r = refused(udp, i++, errno, now_ns);
		if (r < 0)
			last = r;
	}
	return last;
}

/* Puts a piece into the outbox, which has room. */
static int put_piece(struct aph_rx_udp *udp, const struct aph_udp_piece *piece, bool whole)
{
	struct aph_udp_outbox *out = &udp->outbox;
	unsigned i = out->n, n_iov;
	struct msghdr *header = &out->headers[i].msg_hdr;

	out->pieces[i] = *piece;
	if (!put_header(udp, piece, header, &out->names[i], &out->controls[i])) {
		note_failure(udp, piece, EAFNOSUPPORT, 0);
		return -EAFNOSUPPORT;
	}
	if (whole) {
		header->msg_iov = (struct iovec *)piece->message->iov;
		header->msg_iovlen = piece->message->n_iov;
	} else {
		n_iov = (unsigned)(sizeof(out->iov) / sizeof(out->iov[0])) - out->n_iov;
		header->msg_iov = out->iov + out->n_iov;
		header->msg_iovlen = cut_iov(piece, header->msg_iov, n_iov);
		if (!header->msg_iovlen)
			return -EAGAIN;
		out->n_iov += (unsigned)header->msg_iovlen;
	}
	out->n++;
	return 0;
}

/* A message into the outbox, in as many pieces as its way asks for. */
static int put_message(struct aph_rx_udp *udp, const struct aph_rx_message *message,
		       uint64_t now_ns)
{
	struct aph_udp_piece piece = { message, 0, message->len };
	size_t max = message->len;
	int last = 0, r;

	if (message->len > message->segment) {
		unsigned n = segments_max(udp, &message->path->remote, now_ns);

		if (n > 1 && n * message->segment > APH_UDP_BYTES_MAX)
			n = (unsigned)(APH_UDP_BYTES_MAX / message->segment);
		max = n * message->segment;
	}
	for (; piece.offset < message->len; piece.offset += piece.len) {
		piece.len = message->len - piece.offset;
		if (piece.len > max)
			piece.len = max;
		if (udp->outbox.n == APH_UDP_OUTBOX_MAX) {
			r = push(udp, now_ns);
			last = r < 0 ? r : last;
		}
		r = put_piece(udp, &piece, piece.len == message->len);
		if (r == -EAGAIN) {
			/* No vectors left: they are free again after a push. */
			r = push(udp, now_ns);
			last = r < 0 ? r : last;
			r = put_piece(udp, &piece, false);
		}
		last = r < 0 ? r : last;
	}
	return last;
}

/* -- probes, and what anybody may fragment ----------------------------------------------------- */

/*
 * A probe must not be fragmented, here or on its way, whatever the kernel believes about the path.
 */
static int send_probe(struct aph_rx_udp *udp, const struct aph_rx_message *message)
{
	struct aph_udp_piece piece = { message, 0, message->len };
	sa_family_t family = message->path->remote.family;
	union aph_udp_name name;
	union aph_udp_control control = { .bytes = { 0 } };
	struct msghdr header;
	uint32_t mtu = 0;
	int r;

	if (!put_header(udp, &piece, &header, &name, &control))
		return 0;
	header.msg_iov = (struct iovec *)message->iov;
	header.msg_iovlen = message->n_iov;
	/* For others at the socket this must be one step. */
	if (udp->port)
		(void)pthread_mutex_lock(&udp->port->lock);
	handle(udp, family, HANDLING_PROBE);
	r = send_one(udp, &header);
	/* What may be about an earlier datagram is said once. */
	if (r == -EMSGSIZE)
		r = send_one(udp, &header);
	handle(udp, family, HANDLING_USUAL);
	if (r == -EMSGSIZE)
		mtu = aph_udp_read_local_mtu(udp);
	if (udp->port)
		(void)pthread_mutex_unlock(&udp->port->lock);
	if (r == -EMSGSIZE)
		note_failure(udp, &piece, EMSGSIZE, mtu);
	else if (r < 0 && is_for_peer(-r))
		note_failure(udp, &piece, -r, 0);
	/* What a probe meets is its answer, and no failure of the flush. */
	return 0;
}

/* Each datagram by itself: the kernel does not cut runs into what it has to fragment. */
static int send_in_fragments(struct aph_rx_udp *udp, const struct aph_rx_message *message,
			     uint64_t now_ns)
{
	struct aph_udp_piece piece = { message, 0, message->len };
	sa_family_t family = message->path->remote.family;
	union aph_udp_name name;
	int r;

	if (!aph_udp_to_name(udp, &message->path->remote, &name)) {
		note_failure(udp, &piece, EAFNOSUPPORT, 0);
		return -EAFNOSUPPORT;
	}
	if (udp->port)
		(void)pthread_mutex_lock(&udp->port->lock);
	handle(udp, family, HANDLING_FRAGMENT);
	r = send_cut(udp, &piece, 1, now_ns);
	handle(udp, family, HANDLING_USUAL);
	if (udp->port)
		(void)pthread_mutex_unlock(&udp->port->lock);
	return r;
}

/* -- all of it --------------------------------------------------------------------------------- */

static int send_batch(struct aph_rx_udp *udp, const struct aph_rx_message *messages, size_t n,
		      uint64_t now_ns)
{
	int last = 0, r;

	for (size_t i = 0; i < n; i++) {
		if (messages[i].probe || messages[i].fragment) {
			r = push(udp, now_ns);
			last = r < 0 ? r : last;
		}
		if (messages[i].probe)
			r = send_probe(udp, &messages[i]);
		else if (messages[i].fragment)
			r = send_in_fragments(udp, &messages[i], now_ns);
		else
			r = put_message(udp, &messages[i], now_ns);
		last = r < 0 ? r : last;
	}
	r = push(udp, now_ns);
	return r < 0 ? r : last;
}

#define LONG_WAY 1

/*
 * One datagram in one piece, with the cheapest system call there is. 0: it has left; a negative
 * errno: it is lost; LONG_WAY: what send_batch() does will find out why it cannot leave, or how it
 * can.
 */
static int send_single(struct aph_rx_udp *udp, const struct aph_rx_message *message)
{
	union aph_udp_name name;
	socklen_t len;
	int line;

	if (message->n_iov != 1 || message->len != message->segment || message->probe ||
	    message->fragment)
		return LONG_WAY;
	line = aph_udp_line_to(udp, message->path);
	if (line >= 0) {
		if (send(line, message->iov->iov_base, message->len, 0) >= 0)
			return 0;
		aph_udp_line_fail(udp, message->path);
	}
	if (aph_udp_needs_source(udp, message->path))
		return LONG_WAY;
	len = aph_udp_to_name(udp, &message->path->remote, &name);
	if (!len)
		return LONG_WAY;
	if (sendto(udp->fd, message->iov->iov_base, message->len, 0, &name.any, len) >= 0)
		return 0;
	if (aph_udp_is_reported(errno))
		udp->errors_there = true;
	else if (!is_for_peer(errno) && errno != EINTR)
		return -errno;
	return LONG_WAY;
}

int aph_udp_send(struct aph_rx_udp *udp, uint64_t now_ns)
{
	struct aph_rx_message messages[BATCH_MAX];
	int last = 0;
	size_t n;

	/*
	 * Asking again costs as much as a small packet: only when the engine has more to do at
	 * once.
	 */
	do {
		int r;

		n = aph_rx_send(udp->rx, messages, BATCH_MAX, now_ns);
		if (!n)
			break;
		r = n == 1 ? send_single(udp, messages) : LONG_WAY;
		if (r == LONG_WAY)
			r = send_batch(udp, messages, n, now_ns);
		if (r < 0)
			last = r;
		if (udp->n_failures)
			tell_failures(udp, now_ns);
	} while (aph_rx_deadline(udp->rx) <= now_ns);
	return last;
}
