/* SPDX-License-Identifier: MIT */
/*
 * Between the engine's addresses, where IPv4 is IPv4, and those of a socket of both families, where
 * it is mapped into IPv6.
 */
#include "rx/address.h"
#include "udp/udp.h"

#include <string.h>

socklen_t aph_udp_to_name(const struct aph_rx_udp *udp, const struct aph_rx_address *address,
			  union aph_udp_name *name)
{
	if (address->family == AF_INET && !udp->is_v6) {
		name->in = (struct sockaddr_in){
			.sin_family = AF_INET,
			.sin_port = address->in.sin_port,
			.sin_addr = address->in.sin_addr,
		};
		return sizeof(name->in);
	}
	if (!udp->is_v6)
		return 0;
	if (address->family == AF_INET6) {
		name->in6 = address->in6;
		return sizeof(name->in6);
	}
	if (address->family != AF_INET)
		return 0;
	name->in6 = (struct sockaddr_in6){
		.sin6_family = AF_INET6,
		.sin6_port = address->in.sin_port,
	};
	name->in6.sin6_addr.s6_addr[10] = 0xff;
	name->in6.sin6_addr.s6_addr[11] = 0xff;
	memcpy(&name->in6.sin6_addr.s6_addr[12], &address->in.sin_addr, 4);
	return sizeof(name->in6);
}

void aph_udp_from_name(const union aph_udp_name *name, struct aph_rx_address *address)
{
	if (name->any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&name->in6.sin6_addr)) {
		address->in = (struct sockaddr_in){
			.sin_family = AF_INET,
			.sin_port = name->in6.sin6_port,
		};
		memcpy(&address->in.sin_addr, &name->in6.sin6_addr.s6_addr[12], 4);
	} else if (name->any.sa_family == AF_INET6) {
		/* A flow label is no part of an address. */
		address->in6 = (struct sockaddr_in6){
			.sin6_family = AF_INET6,
			.sin6_port = name->in6.sin6_port,
			.sin6_addr = name->in6.sin6_addr,
			.sin6_scope_id = name->in6.sin6_scope_id,
		};
	} else if (name->any.sa_family == AF_INET) {
		address->in = (struct sockaddr_in){
			.sin_family = AF_INET,
			.sin_port = name->in.sin_port,
			.sin_addr = name->in.sin_addr,
		};
	} else {
		address->family = AF_UNSPEC;
	}
}

bool aph_udp_is_wildcard(const struct aph_rx_address *address)
{
	switch (address->family) {
	case AF_INET:
		return address->in.sin_addr.s_addr == htonl(INADDR_ANY);
	case AF_INET6:
		return IN6_IS_ADDR_UNSPECIFIED(&address->in6.sin6_addr);
	default:
		return true;
	}
}

static size_t put_source_v4(const struct aph_rx_path *path, struct cmsghdr *cmsg)
{
	struct in_pktinfo info = { .ipi_spec_dst = path->local.in.sin_addr };

	cmsg->cmsg_level = IPPROTO_IP;
	cmsg->cmsg_type = IP_PKTINFO;
	cmsg->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(cmsg), &info, sizeof(info));
	return CMSG_SPACE(sizeof(info));
}

static size_t put_source_v6(const struct aph_rx_udp *udp, const struct aph_rx_path *path,
			    struct cmsghdr *cmsg)
{
	struct in6_pktinfo info = { 0 };
	union aph_udp_name name;

	aph_udp_to_name(udp, &path->local, &name);
	info.ipi6_addr = name.in6.sin6_addr;
	if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
		info.ipi6_ifindex = path->interface;
	cmsg->cmsg_level = IPPROTO_IPV6;
	cmsg->cmsg_type = IPV6_PKTINFO;
	cmsg->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(cmsg), &info, sizeof(info));
	return CMSG_SPACE(sizeof(info));
}

bool aph_udp_needs_source(const struct aph_rx_udp *udp, const struct aph_rx_path *path)
{
	if (!udp->is_wildcard || path->local.family != path->remote.family ||
	    aph_udp_is_wildcard(&path->local))
		return false;
	/* To an address of this machine, the kernel sends from that address by itself. */
	return !aph_rx_same_host(&path->local, &path->remote);
}

size_t aph_udp_put_source(const struct aph_rx_udp *udp, const struct aph_rx_path *path, void *space)
{
	if (!aph_udp_needs_source(udp, path))
		return 0;
	if (udp->is_v6)
		return put_source_v6(udp, path, space);
	return put_source_v4(path, space);
}

static void read_pktinfo_v6(const void *data, struct aph_rx_path *path)
{
	struct in6_pktinfo info;
	union aph_udp_name name = { .in6 = { .sin6_family = AF_INET6 } };

	memcpy(&info, data, sizeof(info));
	name.in6.sin6_addr = info.ipi6_addr;
	aph_udp_from_name(&name, &path->local);
	path->interface = info.ipi6_ifindex;
}

static void read_pktinfo_v4(const void *data, struct aph_rx_path *path)
{
	struct in_pktinfo info;

	memcpy(&info, data, sizeof(info));
	path->local.in = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_addr = info.ipi_addr,
	};
	path->interface = (uint32_t)info.ipi_ifindex;
}

void aph_udp_read_pktinfo(const struct cmsghdr *cmsg, struct aph_rx_path *path)
{
	if (cmsg->cmsg_level == IPPROTO_IPV6 && cmsg->cmsg_type == IPV6_PKTINFO)
		read_pktinfo_v6(CMSG_DATA(cmsg), path);
	else if (cmsg->cmsg_level == IPPROTO_IP && cmsg->cmsg_type == IP_PKTINFO)
		read_pktinfo_v4(CMSG_DATA(cmsg), path);
}
