/* SPDX-License-Identifier: MIT */
#include "vector.h"

#include "describe.h"

#include <stdlib.h>
#include <string.h>

static const struct {
	char letter;
	uint8_t bit;
} flag_letters[] = {
	{ 'c', APH_RX_CLIENT_INITIATED }, { 'r', APH_RX_REQUEST_ACK },
	{ 'l', APH_RX_LAST_PACKET },	  { 'm', APH_RX_MORE_PACKETS },
	{ 'j', APH_RX_JUMBO_PACKET },	  { 's', APH_RX_SLOW_START_OK },
};

static const struct {
	const char *name;
	uint8_t type;
} types[] = {
	{ "DATA", APH_RX_DATA },	 { "ACK", APH_RX_ACK },
	{ "BUSY", APH_RX_BUSY_PACKET },	 { "ABORT", APH_RX_ABORT },
	{ "ACKALL", APH_RX_ACKALL },	 { "CHALLENGE", APH_RX_CHALLENGE },
	{ "RESPONSE", APH_RX_RESPONSE }, { "DEBUG", APH_RX_DEBUG },
	{ "PARAMS", APH_RX_PARAMS },	 { "VERSION", APH_RX_VERSION },
};

static const char *const reasons[] = {
	"0",	   "REQUESTED", "DUPLICATE",	 "OUT_OF_SEQUENCE", "EXCEEDS_WINDOW",
	"NOSPACE", "PING",	"PING_RESPONSE", "DELAY",	    "IDLE",
};

static uint8_t flags_of(struct vector *v, const char *text)
{
	uint8_t flags = 0;

	for (; *text && *text != '-'; text++) {
		unsigned i;

		for (i = 0; i < sizeof(flag_letters) / sizeof(flag_letters[0]); i++)
			if (flag_letters[i].letter == *text)
				break;
		if (i == sizeof(flag_letters) / sizeof(flag_letters[0]))
			vector_fail(v, "no flag '%c'", *text);
		flags |= flag_letters[i].bit;
	}
	return flags;
}

static uint8_t type_of(struct vector *v, const char *name)
{
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(types[i].name, name) == 0)
			return types[i].type;
	if (strncmp(name, "type=", 5) == 0)
		return (uint8_t)vector_number(v, name + 5);
	vector_fail(v, "no packet type '%s'", name);
}

static uint8_t reason_of(struct vector *v, const char *name)
{
	for (uint8_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (strcmp(reasons[i], name) == 0)
			return i;
	return (uint8_t)vector_number(v, name);
}

/* -- what the peer sends ----------------------------------------------------------------------- */

static size_t build_ack(struct vector *v, uint8_t *body)
{
	const char *acks = line_value(v->line, "acks");
	const char *trailer = line_value(v->line, "trailer");
	const char *reason = line_value(v->line, "reason");
	size_t n = acks && *acks != '-' ? strlen(acks) : 0, len;
	char *end;

	memset(body, 0, APH_RX_ACK_FIXED);
	aph_put32(body + 4, (uint32_t)vector_field(v, "first", 1));
	aph_put32(body + 8, (uint32_t)vector_field(v, "prev", 0));
	aph_put32(body + 12, (uint32_t)vector_field(v, "for", 0));
	body[16] = reason_of(v, reason ? reason : "IDLE");
	body[17] = (uint8_t)vector_field(v, "n", n);
	len = APH_RX_ACK_FIXED;
	for (size_t i = 0; i < n; i++)
		body[len++] = (uint8_t)(acks[i] - '0');
	memset(body + len, 0, APH_RX_ACK_PADDING);
	len += APH_RX_ACK_PADDING;
	/* trailer=max,if,rwind,jumbo: any number of words. Without it, those of OpenAFS. */
	if (!trailer)
		trailer = "5692,1444,32,4";
	while (*trailer && *trailer != '-') {
		aph_put32(body + len, (uint32_t)strtoul(trailer, &end, 0));
		len += 4;
		trailer = end + (*end == ',');
	}
	if (v->line->has_body) {
		memcpy(body + len, v->line->body, v->line->body_len);
		len += v->line->body_len;
	}
	return len - (size_t)vector_field(v, "cut", 0);
}

void vector_send(struct vector *v)
{
	static uint8_t packet[70000];
	const struct line *line = v->line;
	const char *flags = line_value(line, "flags");
	struct aph_rx_path path = vector_path((unsigned)vector_field(v, "peer", 1));
	struct aph_rx_header h = { 0 };
	size_t len = APH_RX_HEADER, segment;

	vector_begin(v);
	if (line->n_words > 1 && strcmp(line->words[1], "raw") == 0) {
		memcpy(packet, line->body, line->body_len);
		len = line->body_len;
	} else {
		if (line->n_words < 2)
			vector_fail(v, "no packet type");
		h.type = type_of(v, line->words[1]);
		h.epoch = (uint32_t)vector_field(v, "epoch", vector_number(v, "$epoch"));
		h.cid = (uint32_t)vector_field(v, "cid", vector_number(v, "$cid"));
		h.call_number = (uint32_t)vector_field(v, "call", vector_number(v, "$call"));
		h.seq = (uint32_t)vector_field(v, "seq", h.type == APH_RX_DATA);
		h.serial = (uint32_t)vector_field(v, "serial", v->serial);
		v->serial = h.serial + 1;
		if (flags)
			h.flags = flags_of(v, flags);
		else
			h.flags = v->engine_is_client ? 0 : APH_RX_CLIENT_INITIATED;
		if (!flags && h.type == APH_RX_ACK)
			h.flags |= APH_RX_SLOW_START_OK;
		h.user_status = (uint8_t)vector_field(v, "status", 0);
		h.security = (uint8_t)vector_field(v, "security", 0);
		h.cksum = (uint16_t)vector_field(v, "cksum", 0);
		h.service = (uint16_t)vector_field(v, "service", vector_number(v, "$service"));
		aph_rx_header_encode(packet, &h);
		if (h.type == APH_RX_ACK) {
			len += build_ack(v, packet + len);
		} else if (h.type == APH_RX_ABORT && !line->has_body) {
			aph_put32(packet + len, (uint32_t)vector_field(v, "code", 1));
			len += 4;
		} else {
			memcpy(packet + len, line->body, line->body_len);
			len += line->body_len;
		}
	}
	segment = (size_t)vector_field(v, "segment", len);
	aph_rx_receive(v->rx, &path, packet, len, segment, NULL, v->now);
}

/* -- what the engine must send ----------------------------------------------------------------- */

static void compare(struct vector *v, const char *text, const char *key, uint64_t is)
{
	const char *wanted = line_value(v->line, key);

	if (!wanted)
		return;
	if (*wanted == '$' && wanted[1] == '=') {
		/* key=$=name remembers it. */
		vector_set(v, wanted + 2, is);
		return;
	}
	if (vector_number(v, wanted) != is)
		vector_fail(v, "%s is not %s in\n  %s", key, wanted, text);
}

static void compare_acks(struct vector *v, const struct aph_rx_ack *ack, const char *text)
{
	const char *wanted = line_value(v->line, "acks");
	size_t n;

	if (!wanted)
		return;
	n = *wanted == '-' ? 0 : strlen(wanted);
	if (n != ack->n_acks)
		vector_fail(v, "there are %u soft acknowledgements in\n  %s", ack->n_acks, text);
	for (size_t i = 0; i < n; i++)
		if ((ack->acks[i] & 1) != wanted[i] - '0')
			vector_fail(v, "acks are not %s in\n  %s", wanted, text);
}

static void compare_ack(struct vector *v, const uint8_t *body, size_t len, const char *text)
{
	const char *reason = line_value(v->line, "reason");
	struct aph_rx_ack ack;

	if (!aph_rx_ack_decode(&ack, body, len))
		vector_fail(v, "malformed:\n  %s", text);
	if (reason && reason_of(v, reason) != ack.reason)
		vector_fail(v, "reason is not %s in\n  %s", reason, text);
	compare(v, text, "first", ack.first);
	compare(v, text, "prev", ack.previous);
	compare(v, text, "for", ack.serial);
	compare(v, text, "words", ack.n_words);
	compare(v, text, "max", ack.max_mtu);
	compare(v, text, "if", ack.if_mtu);
	compare(v, text, "rwind", ack.rwind);
	compare(v, text, "jumbo", ack.max_jumbo);
	compare_acks(v, &ack, text);
	/*
	 * Nothing but the trailer (and our extension, or zeros) behind the soft acknowledgements.
	 */
	for (size_t i = 0; i < APH_RX_ACK_PADDING; i++)
		if (body[APH_RX_ACK_FIXED + ack.n_acks + i] != 0)
			vector_fail(v, "padding is not 0 in\n  %s", text);
}

static void compare_flags(struct vector *v, uint8_t flags, const char *text)
{
	const char *wanted = line_value(v->line, "flags");
	const char *some = line_value(v->line, "has"), *none = line_value(v->line, "lacks");

	if (wanted && flags_of(v, wanted) != flags)
		vector_fail(v, "flags are not %s in\n  %s", wanted, text);
	if (some && (flags_of(v, some) & flags) != flags_of(v, some))
		vector_fail(v, "flags are without one of %s in\n  %s", some, text);
	if (none && flags_of(v, none) & flags)
		vector_fail(v, "flags have one of %s in\n  %s", none, text);
}

static void compare_packet(struct vector *v, const struct vector_datagram *datagram,
			   const char *text)
{
	const struct line *line = v->line;
	const uint8_t *body = datagram->bytes + APH_RX_HEADER;
	size_t len = datagram->len - APH_RX_HEADER;
	struct aph_rx_header h;

	aph_rx_header_decode(&h, datagram->bytes);
	if (h.type != type_of(v, line->words[1]))
		vector_fail(v, "expected %s, but it sends\n  %s", line->words[1], text);
	compare(v, text, "epoch", h.epoch);
	compare(v, text, "cid", h.cid);
	compare(v, text, "call", h.call_number);
	compare(v, text, "seq", h.seq);
	compare(v, text, "serial", h.serial);
	compare(v, text, "status", h.user_status);
	compare(v, text, "security", h.security);
	compare(v, text, "cksum", h.cksum);
	compare(v, text, "service", h.service);
	compare(v, text, "len", len);
	compare(v, text, "peer", datagram->peer);
	compare_flags(v, h.flags, text);
	if (h.type == APH_RX_ACK)
		compare_ack(v, body, len, text);
	if (h.type == APH_RX_ABORT && len >= 4) {
		const char *code = line_value(line, "code");

		if (code && (int32_t)aph_get32(body) != (int32_t)vector_number(v, code))
			vector_fail(v, "code is not %s in\n  %s", code, text);
	}
	if (line->has_body &&
	    (line->body_len != len || memcmp(line->body, body, line->body_len) != 0))
		vector_fail(v, "another body in\n  %s", text);
	if (v->engine_is_client && h.type == APH_RX_DATA) {
		vector_set(v, "epoch", h.epoch);
		vector_set(v, "cid", h.cid);
		vector_set(v, "call", h.call_number);
	}
}

void vector_expect(struct vector *v)
{
	struct vector_datagram *datagram;
	char text[240];

	vector_begin(v);
	vector_flush(v);
	if (v->line->n_words < 2)
		vector_fail(v, "no packet type");
	datagram = &v->sent[v->next_sent];
	if (v->next_sent < v->n_sent)
		describe_packet(text, sizeof(text), datagram->bytes, datagram->len);
	if (strcmp(v->line->words[1], "none") == 0) {
		if (v->next_sent < v->n_sent)
			vector_fail(v, "nothing was to be sent, but it sends\n  %s", text);
		return;
	}
	if (v->next_sent == v->n_sent)
		vector_fail(v, "nothing is sent");
	v->next_sent++;
	if (datagram->len < APH_RX_HEADER)
		vector_fail(v, "a datagram of %zu bytes", datagram->len);
	compare_packet(v, datagram, text);
	free(datagram->bytes);
	datagram->bytes = NULL;
}
