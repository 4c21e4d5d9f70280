/* SPDX-License-Identifier: MIT */
#include "rx/address.h"

bool aph_rx_address_equal(const struct aph_rx_address *a, const struct aph_rx_address *b)
{
	return aph_rx_same_host(a, b) && (!a->family || aph_rx_same_port(a, b));
}
