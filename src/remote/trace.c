/* SPDX-License-Identifier: MIT */
/*
 * Packets as text, for people: with ANTIPHON_RX_TRACE in the environment each packet that a port
 * sends or receives is a line on standard error. It names types, flags and reasons as the
 * protocol's documents do. Where the variable is the name of a file, capture.c has the packets.
 */
#include "remote/remote.h"
#include "rx/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *direction(enum aph_rx_trace_type type)
{
	switch (type) {
	case APH_RX_TRACE_SENT:
		return "->";
	case APH_RX_TRACE_RECEIVED:
		return "<-";
	case APH_RX_TRACE_DROPPED:
		return "x-";
	case APH_RX_TRACE_LOST:
	case APH_RX_TRACE_ENDED:
		break;
	}
	return "--";
}

static void print_flags(FILE *out, const struct aph_rx_header *header)
{
	static const struct {
		uint8_t bit;
		const char *name;
	} flags[] = {
		{ APH_RX_CLIENT_INITIATED, "CLIENT_INITIATED" },
		{ APH_RX_REQUEST_ACK, "REQUEST_ACK" },
		{ APH_RX_LAST_PACKET, "LAST_PACKET" },
		{ APH_RX_MORE_PACKETS, "MORE_PACKETS" },
	};
	size_t i;

	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (header->flags & flags[i].bit)
			(void)fprintf(out, " %s", flags[i].name);
	}
	if (header->flags & APH_RX_JUMBO_PACKET)
		(void)fputs(header->type == APH_RX_ACK ? " SLOW_START_OK" : " JUMBO_PACKET", out);
}

static void print_body(FILE *out, const struct aph_rx_header *header, const uint8_t *body,
		       size_t len)
{
	struct aph_rx_ack ack;

	if (header->type == APH_RX_ACK && aph_rx_ack_decode(&ack, body, len))
		(void)fprintf(out, " %s first %u of serial %u, %u soft, window %u",
			      aph_rx_ack_reason_name(ack.reason), ack.first, ack.serial, ack.n_acks,
			      ack.extended ? ack.window : ack.rwind);
	else if (header->type == APH_RX_ABORT && len >= 4)
		(void)fprintf(out, " code %d", (int32_t)aph_get32(body));
	else
		(void)fprintf(out, ", %zu bytes", len);
}

static void print(void *arg, const struct aph_rx_trace *trace)
{
	struct aph_rx_header header;
	char peer[APH_REMOTE_TEXT_MAX];

	(void)arg;
	if (!trace->packet || trace->len < APH_RX_HEADER)
		return;
	aph_remote_address_text(peer, &trace->path->remote);
	aph_rx_header_decode(&header, trace->packet);
	flockfile(stderr);
	(void)fprintf(stderr, "%llu.%06llu %s ", (unsigned long long)(trace->now_ns / 1000000000),
		      (unsigned long long)(trace->now_ns / 1000 % 1000000), direction(trace->type));
	(void)fprintf(stderr, "%s %s connection %08x:%08x call %u seq %u serial %u service %u",
		      peer, aph_rx_type_name(header.type), header.epoch, header.cid,
		      header.call_number, header.seq, header.serial, header.service);
	print_flags(stderr, &header);
	print_body(stderr, &header, (const uint8_t *)trace->packet + APH_RX_HEADER,
		   trace->len - APH_RX_HEADER);
	if (trace->why)
		(void)fprintf(stderr, " (%s)", trace->why);
	(void)fputc('\n', stderr);
	funlockfile(stderr);
}

void aph_remote_trace(struct aph_rx_config *config, struct aph_remote_port *port)
{
	const char *wanted = secure_getenv("ANTIPHON_RX_TRACE");
	size_t len = wanted ? strlen(wanted) : 0;

	if (len == 0 || strcmp(wanted, "0") == 0)
		return;
	if (len > 5 && strcmp(wanted + len - 5, ".pcap") == 0)
		aph_remote_capture(config, port);
	else
		config->trace = print;
}
