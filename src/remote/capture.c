/* SPDX-License-Identifier: MIT */
/*
 * Packets in a file, for Wireshark and tcpdump: with ANTIPHON_RX_TRACE=NAME.pcap each packet that a
 * port sends or receives is added to that file. It needs no rights, and shows what this process
 * sees: the IP and UDP headers are made up from the addresses that are known.
 *
 * The format is libpcap's with times in nanoseconds (magic a1b23c4d), in the byte order of this
 * machine; link type 101, packets begin with their IP header.
 */
#include "remote/remote.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define TIME_TO_LIVE 64

struct file_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, precision;
	uint32_t packet_max;
	uint32_t link_type;
};

struct record {
	uint32_t s, ns;
	uint32_t captured_len, len;
};

struct headers {
	union {
		struct ip v4;
		struct ip6_hdr v6;
	};
	struct udphdr udp; /* follows whichever of them it is */
	size_t ip_len;
};

static const struct file_header our_header = {
	.magic = 0xa1b23c4d,
	.major = 2,
	.minor = 4,
	.packet_max = 0x40000,
	.link_type = 101,
};

static const char *file_name;
static _Atomic int file = -1;

static void give_up(const char *why)
{
	(void)fprintf(stderr, "ANTIPHON_RX_TRACE: no packets go to %s: %s\n", file_name, why);
}

/* Several processes may begin at once: one of them writes the header. */
static const char *begin(int fd)
{
	struct file_header header;
	struct stat status;

	if (flock(fd, LOCK_EX) < 0 || fstat(fd, &status) < 0)
		return strerror(errno);
	if (!S_ISREG(status.st_mode))
		return "it is no regular file";
	if (status.st_size == 0)
		return write(fd, &our_header, sizeof(our_header)) == sizeof(our_header)
			       ? NULL
			       : strerror(errno);
	if (pread(fd, &header, sizeof(header), 0) != sizeof(header) ||
	    memcmp(&header, &our_header, sizeof(header)) != 0)
		return "there is something else in it; give the name of a new file";
	return NULL;
}

static void open_file(void)
{
	const char *why;
	int fd;

	file_name = secure_getenv("ANTIPHON_RX_TRACE");
	fd = open(file_name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0600);
	why = fd < 0 ? strerror(errno) : begin(fd);
	if (fd >= 0)
		(void)flock(fd, LOCK_UN);
	if (!why) {
		file = fd;
		return;
	}
	give_up(why);
	if (fd >= 0)
		(void)close(fd);
}

/* -- headers that might have been -------------------------------------------------------------- */

static uint32_t add_words(uint32_t sum, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void make_ip4(struct headers *headers, const struct aph_rx_path *path, bool sent, size_t len)
{
	struct in_addr remote = path->remote.in.sin_addr, local = { 0 };

	if (path->local.family == AF_INET)
		local = path->local.in.sin_addr;
	else if (ntohl(remote.s_addr) >> 24 == IN_LOOPBACKNET)
		local.s_addr = htonl(INADDR_LOOPBACK);
	headers->ip_len = sizeof(headers->v4);
	headers->v4 = (struct ip){
		.ip_hl = sizeof(headers->v4) / 4,
		.ip_v = 4,
		.ip_len = htons((uint16_t)(sizeof(headers->v4) + len)),
		.ip_ttl = TIME_TO_LIVE,
		.ip_p = IPPROTO_UDP,
		.ip_src = sent ? local : remote,
		.ip_dst = sent ? remote : local,
	};
	headers->v4.ip_sum = fold(add_words(0, &headers->v4, sizeof(headers->v4)));
}

static void make_ip6(struct headers *headers, const struct aph_rx_path *path, bool sent, size_t len)
{
	struct in6_addr remote = path->remote.in6.sin6_addr, local = in6addr_any;

	if (path->local.family == AF_INET6)
		local = path->local.in6.sin6_addr;
	else if (IN6_IS_ADDR_LOOPBACK(&remote))
		local = in6addr_loopback;
	headers->ip_len = sizeof(headers->v6);
	headers->v6 = (struct ip6_hdr){
		.ip6_flow = htonl(UINT32_C(6) << 28),
		.ip6_plen = htons((uint16_t)len),
		.ip6_nxt = IPPROTO_UDP,
		.ip6_hlim = TIME_TO_LIVE,
		.ip6_src = sent ? local : remote,
		.ip6_dst = sent ? remote : local,
	};
}

static void make_headers(struct headers *headers, const struct aph_rx_trace *trace, uint16_t port)
{
	bool sent = trace->type == APH_RX_TRACE_SENT;
	uint16_t remote_port = aph_remote_port_of(&trace->path->remote);
	size_t len = sizeof(headers->udp) + trace->len;
	uint32_t sum;

	headers->udp = (struct udphdr){
		.uh_sport = sent ? port : remote_port,
		.uh_dport = sent ? remote_port : port,
		.uh_ulen = htons((uint16_t)len),
	};
	/* UDP's sum covers the addresses, the length and the protocol as well. */
	sum = IPPROTO_UDP + (uint32_t)len;
	if (trace->path->remote.family == AF_INET6) {
		make_ip6(headers, trace->path, sent, len);
		sum = add_words(sum, &headers->v6.ip6_src, 2 * sizeof(headers->v6.ip6_src));
	} else {
		make_ip4(headers, trace->path, sent, len);
		sum = add_words(sum, &headers->v4.ip_src, 2 * sizeof(headers->v4.ip_src));
	}
	sum = add_words(sum, &headers->udp, sizeof(headers->udp));
	sum = add_words(sum, trace->packet, trace->len);
	headers->udp.uh_sum = fold(sum) ? fold(sum) : 0xffff;
}

/* -- one packet -------------------------------------------------------------------------------- */

static void capture(void *arg, const struct aph_rx_trace *trace)
{
	const struct aph_remote_port *port = arg;
	struct aph_rx_address local;
	struct headers headers;
	struct record record;
	struct timespec now;
	struct iovec iov[4];
	ssize_t len = 0;
	int fd = file;

	if (fd < 0 || (trace->type != APH_RX_TRACE_SENT && trace->type != APH_RX_TRACE_RECEIVED) ||
	    aph_rx_udp_address(port->udp, &local) < 0)
		return;
	make_headers(&headers, trace, aph_remote_port_of(&local));
	(void)clock_gettime(CLOCK_REALTIME, &now);
	record.s = (uint32_t)now.tv_sec;
	record.ns = (uint32_t)now.tv_nsec;
	record.len = (uint32_t)(headers.ip_len + sizeof(headers.udp) + trace->len);
	record.captured_len = record.len;
	iov[0] = (struct iovec){ &record, sizeof(record) };
	iov[1] = (struct iovec){ &headers, headers.ip_len };
	iov[2] = (struct iovec){ &headers.udp, sizeof(headers.udp) };
	iov[3] = (struct iovec){ (void *)(uintptr_t)trace->packet, trace->len };
	for (size_t i = 0; i < 4; i++)
		len += (ssize_t)iov[i].iov_len;
	/* What is written in part would make the rest unreadable. */
	if (writev(fd, iov, 4) != len && atomic_compare_exchange_strong(&file, &fd, -1))
		give_up("it could not be written to; it is cut off there");
}

void aph_remote_capture(struct aph_rx_config *config, struct aph_remote_port *port)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, open_file);
	config->trace = capture;
	config->trace_arg = port;
}
