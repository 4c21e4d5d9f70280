/* SPDX-License-Identifier: MIT */
/* When two addresses are the same one; flow labels are no part of them. */
#ifndef ANTIPHON_RX_ADDRESS_H
#define ANTIPHON_RX_ADDRESS_H

#include <antiphon/rx.h>

#include <string.h>

/* Their ports are not looked at. */
static inline bool aph_rx_same_host(const struct aph_rx_address *a, const struct aph_rx_address *b)
{
	if (a->family != b->family)
		return false;
	if (a->family == AF_INET)
		return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
	if (a->family == AF_INET6)
		return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) ==
			       0 &&
		       a->in6.sin6_scope_id == b->in6.sin6_scope_id;
	return true;
}

/* Of two addresses; the port lies at the same place in both families. */
static inline bool aph_rx_same_port(const struct aph_rx_address *a, const struct aph_rx_address *b)
{
	return a->in.sin_port == b->in.sin_port;
}

#endif
