/* SPDX-License-Identifier: MIT */
/*
 * What the network says about datagrams that were sent: ICMP, through the socket's error queue.
 * Anybody can forge one, so the engine gets what it quotes of our datagram and decides. The socket
 * speaks of errors first, but an answer that is there may be the last thing that its sender did
 * before the port was closed: so what has arrived is handed on first.
 */
#include "udp/udp.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <string.h>

/* Of one reading: a flood of either must not keep the driver from its work. */
#define ERRORS_MAX   64
#define RECEIVED_MAX 64

bool aph_udp_is_reported(int error)
{
	switch (error) {
	case ECONNREFUSED:
	case ENETUNREACH:
	case EHOSTUNREACH:
	case EHOSTDOWN:
	case ENONET:
	case ENOPROTOOPT:
	case EOPNOTSUPP:
	case EPROTO:
	case EMSGSIZE:
	case EACCES:
		return true;
	default:
		return false;
	}
}

struct report {
	struct sock_extended_err error;
	struct aph_rx_path path; /* that the datagram took */
	uint8_t quote[128];
	size_t quote_len;
};

/* The next one in the queue; false: there is none. One that is not understood has ee_errno 0. */
static bool read_report(const struct aph_rx_udp *udp, struct report *report)
{
	union aph_udp_name name = { 0 };
	union {
		size_t align;
		char bytes[512];
	} control;
	struct iovec iov = { .iov_base = report->quote, .iov_len = sizeof(report->quote) };
	struct msghdr header = {
		.msg_name = &name,
		.msg_namelen = sizeof(name),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;

	n = recvmsg(udp->fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT);
	if (n < 0)
		return false;
	report->error = (struct sock_extended_err){ 0 };
	report->quote_len = (size_t)n;
	report->path = udp->path;
	if (header.msg_namelen > 0)
		aph_udp_from_name(&name, &report->path.remote);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
		bool is_error = (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
				(c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR);

		if (is_error && c->cmsg_len >= CMSG_LEN(sizeof(report->error)))
			memcpy(&report->error, CMSG_DATA(c), sizeof(report->error));
		else
			aph_udp_read_pktinfo(c, &report->path);
	}
	return true;
}

/* The kernel speaks of packets with their IP header, the engine of what UDP carries. */
static uint32_t payload_of(const struct aph_rx_path *path, uint32_t mtu)
{
	uint32_t headers = path->remote.family == AF_INET6 ? 40 + 8 : 20 + 8;

	return mtu > headers ? mtu - headers : 0;
}

void aph_udp_read_errors(struct aph_rx_udp *udp, uint64_t now_ns)
{
	struct report report;

	udp->errors_there = false;
	for (unsigned i = 0; i < ERRORS_MAX && read_report(udp, &report); i++) {
		const struct sock_extended_err *e = &report.error;
		uint32_t mtu;
		bool from_network = e->ee_origin == SO_EE_ORIGIN_ICMP ||
				    e->ee_origin == SO_EE_ORIGIN_ICMP6;

		/* What our own kernel refused, the sending call has told already. */
		if (!from_network || e->ee_errno == 0 || report.path.remote.family == AF_UNSPEC)
			continue;
		mtu = e->ee_errno == EMSGSIZE ? payload_of(&report.path, e->ee_info) : 0;
		if (aph_udp_is_crowded(udp))
			aph_udp_port_sort_error(udp, &report.path, (int)e->ee_errno, mtu,
						report.quote, report.quote_len, now_ns);
		else
			aph_rx_receive_error(udp->rx, &report.path, (int)e->ee_errno, mtu,
					     report.quote_len ? report.quote : NULL,
					     report.quote_len, false, now_ns);
	}
}

void aph_udp_read_all(struct aph_rx_udp *udp, uint64_t now_ns)
{
	for (unsigned i = 0; i < RECEIVED_MAX; i++) {
		int r = 0;

		if (udp->has_rest)
			aph_udp_deliver_rest(udp, now_ns);
		else
			r = aph_udp_receive(udp, MSG_DONTWAIT);
		if (r > 0)
			aph_udp_deliver(udp, true, now_ns);
		else if (r < 0 && !aph_udp_is_reported(-r))
			break;
	}
	aph_udp_read_errors(udp, now_ns);
}

uint32_t aph_udp_read_local_mtu(struct aph_rx_udp *udp)
{
	struct report report;
	uint32_t mtu = 0;

	/*
	 * ICMP that is in the queue before it would be lost here. The one that counts will come
	 * again: the engine goes on sending to whoever it was about.
	 */
	for (unsigned i = 0; i < ERRORS_MAX && read_report(udp, &report); i++)
		if (report.error.ee_origin == SO_EE_ORIGIN_LOCAL &&
		    report.error.ee_errno == EMSGSIZE)
			mtu = payload_of(&report.path, report.error.ee_info);
	return mtu;
}
