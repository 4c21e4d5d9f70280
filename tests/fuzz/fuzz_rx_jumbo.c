/* SPDX-License-Identifier: MIT */
/*
 * A DATA datagram, jumbograms included: the parts are all of it, in order, and nothing beside it.
 */
#include "rx/wire.h"

#include "check.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *at = data + APH_RX_HEADER, *payload = NULL, *end = data + size;
	struct aph_rx_header header, first;
	size_t left, payload_len = 0;
	uint32_t n = 0;
	int r;

	if (size < APH_RX_HEADER)
		return 0;
	left = size - APH_RX_HEADER;
	aph_rx_header_decode(&first, data);
	header = first;
	do {
		const uint8_t *before = at;
		bool jumbo = header.flags & APH_RX_JUMBO_PACKET;

		r = aph_rx_jumbo_next(&header, &at, &left, &payload, &payload_len);
		if (r < 0)
			break;
		CHECK(r == jumbo);
		CHECK(payload == before);
		CHECK(payload + payload_len + (r ? APH_RX_JUMBO_HEADER : 0) == at);
		CHECK(at + left == end);
		n += (uint32_t)r;
		CHECK(header.seq == first.seq + n && header.serial == first.serial + n);
		CHECK(header.epoch == first.epoch && header.cid == first.cid);
		CHECK(header.call_number == first.call_number && header.type == first.type);
		CHECK(header.security == first.security && header.service == first.service);
		CHECK(((header.flags ^ first.flags) & APH_RX_CLIENT_INITIATED) == 0);
		CHECK(n == 0 || header.user_status == 0);
	} while (r > 0);
	if (r == 0)
		CHECK(at == end && left == 0);
	return 0;
}
