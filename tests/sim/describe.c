/* SPDX-License-Identifier: MIT */
#include "describe.h"

#include "rx/wire.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct text {
	char *out;
	size_t size, len;
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *text, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text->out + text->len, text->size - text->len, format, args);
	va_end(args);
	if (n > 0)
		text->len += (size_t)n;
	if (text->len >= text->size)
		text->len = text->size - 1;
}

static void describe_ack(struct text *text, const uint8_t *body, size_t len)
{
	struct aph_rx_ack ack;

	if (!aph_rx_ack_decode(&ack, body, len)) {
		add(text, " malformed");
		return;
	}
	add(text, " reason=%s first=%u prev=%u for=%u acks=", aph_rx_ack_reason_name(ack.reason),
	    ack.first, ack.previous, ack.serial);
	for (unsigned i = 0; i < ack.n_acks && i < 40; i++)
		add(text, "%u", ack.acks[i] & 1u);
	if (ack.n_acks > 40)
		add(text, "...(%u)", ack.n_acks);
	if (ack.n_words == 4)
		add(text, " trailer=%u,%u,%u,%u", ack.max_mtu, ack.if_mtu, ack.rwind,
		    ack.max_jumbo);
	else
		add(text, " words=%u", ack.n_words);
	if (ack.extended)
		add(text, " window=%u ranges=%u", ack.window, ack.n_ranges);
}

void describe_packet(char *out, size_t size, const uint8_t *data, size_t len)
{
	struct text text = { out, size, 0 };
	struct aph_rx_header h;

	out[0] = '\0';
	if (len < APH_RX_HEADER) {
		add(&text, "%zu bytes", len);
		return;
	}
	aph_rx_header_decode(&h, data);
	add(&text, "%s", aph_rx_type_name(h.type));
	add(&text, " epoch=%08x cid=%08x call=%u seq=%u serial=%u flags=%s%s%s%s%s", h.epoch, h.cid,
	    h.call_number, h.seq, h.serial, h.flags & APH_RX_CLIENT_INITIATED ? "c" : "",
	    h.flags & APH_RX_REQUEST_ACK ? "r" : "", h.flags & APH_RX_LAST_PACKET ? "l" : "",
	    h.flags & APH_RX_MORE_PACKETS ? "m" : "", h.flags & APH_RX_JUMBO_PACKET ? "j" : "");
	if (h.user_status || h.security)
		add(&text, " status=%u security=%u", h.user_status, h.security);
	add(&text, " service=%u", h.service);
	if (h.type == APH_RX_ACK)
		describe_ack(&text, data + APH_RX_HEADER, len - APH_RX_HEADER);
	else if (h.type == APH_RX_ABORT && len >= APH_RX_HEADER + 4)
		add(&text, " code=%d", (int32_t)aph_get32(data + APH_RX_HEADER));
	add(&text, " len=%zu", len - APH_RX_HEADER);
}
