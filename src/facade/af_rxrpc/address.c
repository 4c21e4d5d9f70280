/* SPDX-License-Identifier: MIT */
/* Addresses: struct sockaddr_rxrpc checked, and between it and the engine's addresses. */
#include "socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static_assert(sizeof(struct sockaddr_rxrpc) == 36, "the interface's layout");
static_assert(offsetof(struct sockaddr_rxrpc, transport) == 8, "the interface's layout");

static bool is_family_allowed(int socket_family, sa_family_t family)
{
	return family == AF_INET || (family == AF_INET6 && socket_family == PF_INET6);
}

/* The order of the checks is the interface's. */
static int check(const struct sockaddr_rxrpc *srx, int family, socklen_t len)
{
	if (srx->srx_family != AF_RXRPC)
		return -EAFNOSUPPORT;
	if (srx->transport_type != SOCK_DGRAM)
		return -ESOCKTNOSUPPORT;
	if (srx->transport_len < sizeof(sa_family_t) ||
	    srx->transport_len > len - offsetof(struct sockaddr_rxrpc, transport))
		return -EINVAL;
	if (!is_family_allowed(family, srx->transport.family))
		return -EAFNOSUPPORT;
	if (srx->transport.family == AF_INET && srx->transport_len < sizeof(struct sockaddr_in))
		return -EINVAL;
	if (srx->transport.family == AF_INET6 && srx->transport_len < sizeof(struct sockaddr_in6))
		return -EINVAL;
	return 0;
}

/* Old programs, as the documentation's examples, leave transport_len 0. */
static void complete(struct sockaddr_rxrpc *srx)
{
	if (srx->transport_len != 0 || !aph_afrx_tunable("implicit_length"))
		return;
	if (srx->transport.family == AF_INET)
		srx->transport_len = sizeof(struct sockaddr_in);
	else if (srx->transport.family == AF_INET6)
		srx->transport_len = sizeof(struct sockaddr_in6);
}

int aph_afrx_name_read(struct aph_afrx_name *out, int family, const void *address, socklen_t len)
{
	struct sockaddr_rxrpc srx;
	int r;

	if (len < sizeof(srx) || len > sizeof(struct sockaddr_storage))
		return -EINVAL;
	r = aph_afrx_copy_in(&srx, address, sizeof(srx));
	if (r < 0)
		return r;
	complete(&srx);
	r = check(&srx, family, len);
	if (r < 0)
		return r;
	memset(out, 0, sizeof(*out));
	out->service = srx.srx_service;
	if (srx.transport.family == AF_INET) {
		out->address.in = (struct sockaddr_in){
			.sin_family = AF_INET,
			.sin_port = srx.transport.sin.sin_port,
			.sin_addr = srx.transport.sin.sin_addr,
		};
	} else {
		out->address.in6 = srx.transport.sin6;
		out->address.in6.sin6_flowinfo = 0;
	}
	return 0;
}

void aph_afrx_name_write(struct sockaddr_rxrpc *out, const struct aph_rx_address *address,
			 uint16_t service)
{
	memset(out, 0, sizeof(*out));
	out->srx_family = AF_RXRPC;
	out->srx_service = service;
	out->transport_type = SOCK_DGRAM;
	if (address->family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&address->in6.sin6_addr)) {
		out->transport_len = sizeof(struct sockaddr_in6);
		out->transport.sin6 = address->in6;
		return;
	}
	out->transport_len = sizeof(struct sockaddr_in);
	if (address->family == AF_INET6) {
		out->transport.sin.sin_family = AF_INET;
		out->transport.sin.sin_port = address->in6.sin6_port;
		memcpy(&out->transport.sin.sin_addr, &address->in6.sin6_addr.s6_addr[12],
		       sizeof(struct in_addr));
	} else {
		out->transport.sin.sin_family = AF_INET;
		out->transport.sin.sin_port = address->in.sin_port;
		out->transport.sin.sin_addr = address->in.sin_addr;
	}
}
