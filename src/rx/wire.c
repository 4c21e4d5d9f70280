/* SPDX-License-Identifier: MIT */
/*
 * The packet codec. Decoders copy nothing and allocate nothing; what they give out points into the
 * packet. They say no to what contradicts itself and leave to the engine what contradicts the state
 * of a call. Encoders write every byte of what they report, padding included: nothing of an old
 * buffer leaves with a packet.
 */
#include "rx/wire.h"

#include <string.h>

#define EXTENSION_FIXED 12 /* magic, window, number of ranges */

/* Section 6.5. Whatever is not the whole, well-formed extension is padding, and no error. */
static void extension_decode(struct aph_rx_ack *out, const uint8_t *p, size_t len)
{
	uint32_t n, below = 1;

	if (len < EXTENSION_FIXED || aph_get32(p) != APH_RX_EXTENSION_MAGIC)
		return;
	n = aph_get32(p + 8);
	if (n > APH_RX_ACK_RANGES_MAX || len - EXTENSION_FIXED < 8 * (size_t)n)
		return;
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *at = p + EXTENSION_FIXED + 8 * (size_t)i;
		struct aph_rx_range range = { .start = aph_get32(at), .end = aph_get32(at + 4) };
		uint32_t start = range.start - out->first, end = range.end - out->first;

		/* Above first, not empty, in order and apart: so they can be walked once. */
		if (start < below || end <= start || end > INT32_MAX)
			return;
		below = end + 1;
		out->ranges[i] = range;
	}
	out->extended = true;
	out->window = aph_get32(p + 4);
	out->n_ranges = n;
}

bool aph_rx_ack_decode(struct aph_rx_ack *out, const uint8_t *body, size_t len)
{
	uint32_t words[4] = { 0 };
	size_t at;

	if (len < APH_RX_ACK_FIXED)
		return false;
	out->first = aph_get32(body + 4);
	out->previous = aph_get32(body + 8);
	out->serial = aph_get32(body + 12);
	out->reason = body[16];
	out->n_acks = body[17];
	out->acks = body + APH_RX_ACK_FIXED;
	if (out->first == 0 || len - APH_RX_ACK_FIXED < out->n_acks)
		return false;

	at = APH_RX_ACK_FIXED + (size_t)out->n_acks + APH_RX_ACK_PADDING;
	out->n_words = 0;
	while (out->n_words < 4 && at + 4 <= len) {
		words[out->n_words++] = aph_get32(body + at);
		at += 4;
	}
	out->max_mtu = words[0];
	out->if_mtu = words[1];
	out->rwind = words[2];
	out->max_jumbo = words[3];
	out->extended = false;
	out->window = 0;
	out->n_ranges = 0;
	if (out->n_words == 4)
		extension_decode(out, body + at, len - at);
	return true;
}

size_t aph_rx_ack_encode(uint8_t *body, const struct aph_rx_ack *ack)
{
	uint8_t *p = body + APH_RX_ACK_FIXED;

	aph_put32(body, 0); /* bufferSpace and maxSkew */
	aph_put32(body + 4, ack->first);
	aph_put32(body + 8, ack->previous);
	aph_put32(body + 12, ack->serial);
	body[16] = ack->reason;
	body[17] = ack->n_acks;
	if (ack->n_acks)
		memcpy(p, ack->acks, ack->n_acks);
	p += ack->n_acks;
	memset(p, 0, APH_RX_ACK_PADDING);
	p += APH_RX_ACK_PADDING;
	aph_put32(p, ack->max_mtu);
	aph_put32(p + 4, ack->if_mtu);
	aph_put32(p + 8, ack->rwind);
	aph_put32(p + 12, ack->max_jumbo);
	p += APH_RX_ACK_TRAILER;
	if (!ack->extended)
		return (size_t)(p - body);

	aph_put32(p, APH_RX_EXTENSION_MAGIC);
	aph_put32(p + 4, ack->window);
	aph_put32(p + 8, ack->n_ranges);
	p += EXTENSION_FIXED;
	for (uint32_t i = 0; i < ack->n_ranges; i++, p += 8) {
		aph_put32(p, ack->ranges[i].start);
		aph_put32(p + 4, ack->ranges[i].end);
	}
	return (size_t)(p - body);
}

int aph_rx_jumbo_next(struct aph_rx_header *header, const uint8_t **data, size_t *len,
		      const uint8_t **payload, size_t *payload_len)
{
	const uint8_t *jumbo;

	*payload = *data;
	if (!(header->flags & APH_RX_JUMBO_PACKET)) {
		*payload_len = *len;
		*data += *len;
		*len = 0;
		return 0;
	}
	/* Section 5.2: neither may the last packet be followed by one, nor may one be cut short. */
	if (header->flags & APH_RX_LAST_PACKET || *len < APH_RX_JUMBO_PAYLOAD + APH_RX_JUMBO_HEADER)
		return -1;

	*payload_len = APH_RX_JUMBO_PAYLOAD;
	jumbo = *data + APH_RX_JUMBO_PAYLOAD;
	*data = jumbo + APH_RX_JUMBO_HEADER;
	*len -= APH_RX_JUMBO_PAYLOAD + APH_RX_JUMBO_HEADER;
	header->seq++;
	header->serial++;
	/* Which end made the connection is a fact of the datagram. */
	header->flags = (uint8_t)((jumbo[0] & ~APH_RX_CLIENT_INITIATED) |
				  (header->flags & APH_RX_CLIENT_INITIATED));
	header->user_status = 0;
	header->cksum = aph_get16(jumbo + 2);
	return 1;
}

const char *aph_rx_type_name(uint8_t type)
{
	static const char *const names[] = {
		[APH_RX_DATA] = "DATA",		[APH_RX_ACK] = "ACK",
		[APH_RX_BUSY_PACKET] = "BUSY",	[APH_RX_ABORT] = "ABORT",
		[APH_RX_ACKALL] = "ACKALL",	[APH_RX_CHALLENGE] = "CHALLENGE",
		[APH_RX_RESPONSE] = "RESPONSE", [APH_RX_DEBUG] = "DEBUG",
		[APH_RX_PARAMS] = "PARAMS",	[APH_RX_VERSION] = "VERSION",
	};

	if (type >= sizeof(names) / sizeof(names[0]) || !names[type])
		return "unknown";
	return names[type];
}

const char *aph_rx_ack_reason_name(uint8_t reason)
{
	static const char *const names[] = {
		[APH_RX_ACK_REQUESTED] = "REQUESTED",
		[APH_RX_ACK_DUPLICATE] = "DUPLICATE",
		[APH_RX_ACK_OUT_OF_SEQUENCE] = "OUT_OF_SEQUENCE",
		[APH_RX_ACK_EXCEEDS_WINDOW] = "EXCEEDS_WINDOW",
		[APH_RX_ACK_NOSPACE] = "NOSPACE",
		[APH_RX_ACK_PING] = "PING",
		[APH_RX_ACK_PING_RESPONSE] = "PING_RESPONSE",
		[APH_RX_ACK_DELAY] = "DELAY",
		[APH_RX_ACK_IDLE] = "IDLE",
	};

	if (reason >= sizeof(names) / sizeof(names[0]) || !names[reason])
		return "unknown";
	return names[reason];
}
