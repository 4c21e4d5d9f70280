/* SPDX-License-Identifier: MIT */
/*
 * The body of an ACK packet. What is taken is consistent, and the same again after it was encoded.
 */
#include "rx/wire.h"

#include "check.h"
#include "fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t again[APH_RX_ACK_BODY_MAX];
	struct aph_rx_ack ack, same;
	uint32_t below;
	size_t len;

	if (!aph_rx_ack_decode(&ack, data, size))
		return 0;
	CHECK(ack.first != 0);
	CHECK(ack.acks == data + APH_RX_ACK_FIXED);
	CHECK((size_t)APH_RX_ACK_FIXED + ack.n_acks <= size);
	CHECK(ack.n_words <= 4);
	CHECK(!ack.extended || ack.n_words == 4);
	CHECK(ack.extended || ack.n_ranges == 0);
	CHECK(ack.n_ranges <= APH_RX_ACK_RANGES_MAX);
	below = ack.first;
	for (uint32_t i = 0; i < ack.n_ranges; i++) {
		CHECK((int32_t)(ack.ranges[i].start - below) > 0);
		CHECK((int32_t)(ack.ranges[i].end - ack.ranges[i].start) > 0);
		below = ack.ranges[i].end;
	}

	len = aph_rx_ack_encode(again, &ack);
	CHECK(len <= sizeof(again));
	CHECK(aph_rx_ack_decode(&same, again, len));
	CHECK(same.first == ack.first && same.previous == ack.previous);
	CHECK(same.serial == ack.serial && same.reason == ack.reason);
	CHECK(same.n_acks == ack.n_acks && memcmp(same.acks, ack.acks, ack.n_acks) == 0);
	CHECK(same.max_mtu == ack.max_mtu && same.if_mtu == ack.if_mtu);
	CHECK(same.rwind == ack.rwind && same.max_jumbo == ack.max_jumbo);
	CHECK(same.extended == ack.extended && same.window == ack.window);
	CHECK(same.n_ranges == ack.n_ranges);
	CHECK(memcmp(same.ranges, ack.ranges, ack.n_ranges * sizeof(ack.ranges[0])) == 0);
	return 0;
}
