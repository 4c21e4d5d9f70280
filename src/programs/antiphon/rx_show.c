/* SPDX-License-Identifier: MIT */
/*
 * What the rxdebug protocol tells, as text and as JSON. Numbers that only some programs fill in are
 * shown where they are not 0; JSON has all of them, under the protocol's names.
 */
#include "rx_debug.h"

#include "format.h"

#include <stddef.h>
#include <string.h>

/* A member that is an int32_t, and its name. */
struct field {
	const char *name;
	size_t offset;
};

#define STATS(name)                                              \
	{                                                        \
#name, offsetof(struct aph_rx_debug_stats, name) \
	}
#define COUNTER(name)                                               \
	{                                                           \
#name, offsetof(struct aph_rx_debug_counters, name) \
	}

static const struct field stats_fields[] = {
	STATS(free_packets), STATS(packet_reclaims), STATS(calls_executed), STATS(n_waiting),
	STATS(idle_threads), STATS(n_waited),	     STATS(n_packets),
};

static const struct field counter_fields[] = {
	COUNTER(packet_requests),
	COUNTER(receive_alloc_failures),
	COUNTER(send_alloc_failures),
	COUNTER(special_alloc_failures),
	COUNTER(socket_greedy),
	COUNTER(bogus_packet_on_read),
	COUNTER(bogus_host),
	COUNTER(no_packet_on_read),
	COUNTER(no_packet_buffers_on_read),
	COUNTER(selects),
	COUNTER(send_selects),
	COUNTER(data_packets_read),
	COUNTER(ack_packets_read),
	COUNTER(dup_packets_read),
	COUNTER(spurious_packets_read),
	COUNTER(ack_packets_sent),
	COUNTER(ping_packets_sent),
	COUNTER(abort_packets_sent),
	COUNTER(busy_packets_sent),
	COUNTER(data_packets_sent),
	COUNTER(data_packets_resent),
	COUNTER(data_packets_pushed),
	COUNTER(ignore_acked_packet),
	COUNTER(n_rtt_samples),
	COUNTER(n_server_conns),
	COUNTER(n_client_conns),
	COUNTER(n_peer_structs),
	COUNTER(n_call_structs),
	COUNTER(n_free_call_structs),
	COUNTER(net_send_failures),
	COUNTER(fatal_errors),
	COUNTER(ignore_packet_dally),
	COUNTER(receive_cbuf_alloc_failures),
	COUNTER(send_cbuf_alloc_failures),
	COUNTER(n_busies),
};

#define N_FIELDS(fields) (sizeof(fields) / sizeof((fields)[0]))

/* Of packet types, in the order of the counters. */
static const char *const type_names[APH_RX_DEBUG_N_TYPES] = {
	"data",	 "ack",	   "busy",    "abort",	 "ackall",  "challenge", "response",
	"debug", "params", "type_10", "type_11", "type_12", "version",
};

static int32_t field_value(const void *object, const struct field *field)
{
	int32_t value;

	memcpy(&value, (const char *)object + field->offset, sizeof(value));
	return value;
}

static void print_fields(const void *object, const struct field *fields, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (field_value(object, &fields[i]) != 0)
			printf("%-30s %d\n", fields[i].name, field_value(object, &fields[i]));
	}
}

static void json_fields(struct json *json, const void *object, const struct field *fields, size_t n)
{
	for (size_t i = 0; i < n; i++)
		json_int(json, fields[i].name, field_value(object, &fields[i]));
}

static const char *show_host(char *text, size_t size, uint32_t host, uint16_t port)
{
	snprintf(text, size, "%u.%u.%u.%u:%u", host >> 24, host >> 16 & 255, host >> 8 & 255,
		 host & 255, port);
	return text;
}

/* -- figures ----------------------------------------------------------------------------------- */

/* The letter of a stranger, fit to be shown. */
static char show_letter(char letter)
{
	return letter >= ' ' && letter <= '~' ? letter : '?';
}

void debug_print_stats(const struct aph_rx_debug_stats *stats)
{
	printf("%-30s %c\n", "version", show_letter(stats->version));
	if (stats->used_fds != 0)
		printf("%-30s %u\n", "used_fds", stats->used_fds);
	print_fields(stats, stats_fields, N_FIELDS(stats_fields));
	if (stats->waiting_for_packets)
		puts("calls wait for packets");
}

void debug_json_stats(const struct aph_rx_debug_stats *stats, struct json *json)
{
	const char letter[] = { show_letter(stats->version), '\0' };

	json_begin_object(json, "stats");
	json_string(json, "version", letter);
	json_uint(json, "used_fds", stats->used_fds);
	json_bool(json, "waiting_for_packets", stats->waiting_for_packets);
	json_fields(json, stats, stats_fields, N_FIELDS(stats_fields));
	json_end(json);
}

/* -- connections ------------------------------------------------------------------------------- */

const char *const debug_connection_headings[DEBUG_CONNECTION_COLUMNS] = {
	"PEER", "ROLE", "CONNECTION", "SECURITY", ">CALL", "STATE", "MODE", "QUEUED",
};

static const char *name_of(const char *const *names, size_t n, uint8_t value)
{
	return value < n ? names[value] : "?";
}

static const char *state_name(uint8_t state)
{
	static const char *const names[] = {
		"idle", "precall", "active", "dally", "hold", "reset"
	};

	return name_of(names, N_FIELDS(names), state);
}

static const char *mode_name(uint8_t mode)
{
	static const char *const names[] = { "-", "sending", "receiving", "error", "eof" };

	return name_of(names, N_FIELDS(names), mode);
}

static const char *queued_name(uint8_t other)
{
	static const char *const names[] = { "-", "in", "out", "in, out" };

	return names[other & 3];
}

static const char *security_name(uint8_t type)
{
	static const char *const names[] = { "unknown", "null", "vab", "kad", "gk" };

	return name_of(names, N_FIELDS(names), type);
}

/* `channel` is 4 for the connection as such. */
static int add_row(struct table *table, const struct aph_rx_debug_connection *c, unsigned channel)
{
	const char *cells[DEBUG_CONNECTION_COLUMNS];
	char host[32], cid[24], number[16];
	int r = 0;

	snprintf(cid, sizeof(cid), "%08x/%08x", c->epoch, c->cid);
	cells[0] = show_host(host, sizeof(host), c->host, c->port);
	cells[1] = c->is_server ? "server" : "client";
	cells[2] = cid;
	cells[3] = security_name(c->security.type);
	cells[4] = cells[5] = cells[6] = cells[7] = "-";
	if (channel < 4) {
		snprintf(number, sizeof(number), "%u:%u", channel, c->call_number[channel]);
		cells[4] = number;
		cells[5] = state_name(c->call_state[channel]);
		cells[6] = mode_name(c->call_mode[channel]);
		cells[7] = queued_name(c->call_other[channel]);
	}
	for (size_t i = 0; i < DEBUG_CONNECTION_COLUMNS && r == 0; i++)
		r = table_add(table, cells[i]);
	return r;
}

int debug_add_connection(struct table *table, const struct aph_rx_debug_connection *connection)
{
	bool any = false;
	int r = 0;

	for (unsigned i = 0; i < 4 && r == 0; i++) {
		if (connection->call_number[i] == 0)
			continue;
		any = true;
		r = add_row(table, connection, i);
	}
	return any ? r : add_row(table, connection, 4);
}

void debug_json_connection(const struct aph_rx_debug_connection *c, struct json *json)
{
	char text[32];

	json_begin_object(json, NULL);
	json_string(json, "peer", show_host(text, sizeof(text), c->host, c->port));
	json_uint(json, "epoch", c->epoch);
	json_uint(json, "cid", c->cid);
	json_uint(json, "serial", c->serial);
	json_int(json, "error", c->error);
	json_uint(json, "flags", c->flags);
	json_string(json, "role", c->is_server ? "server" : "client");
	json_uint(json, "security_index", c->security_index);
	json_int(json, "nat_mtu", c->nat_mtu);
	json_begin_object(json, "security");
	json_string(json, "type", security_name(c->security.type));
	json_uint(json, "level", c->security.level);
	json_uint(json, "flags", c->security.flags);
	json_uint(json, "expires", c->security.expires);
	json_uint(json, "packets_received", c->security.packets_received);
	json_uint(json, "packets_sent", c->security.packets_sent);
	json_uint(json, "bytes_received", c->security.bytes_received);
	json_uint(json, "bytes_sent", c->security.bytes_sent);
	json_end(json);
	json_begin_array(json, "calls");
	for (unsigned i = 0; i < 4; i++) {
		json_begin_object(json, NULL);
		json_uint(json, "number", c->call_number[i]);
		json_string(json, "state", state_name(c->call_state[i]));
		json_string(json, "mode", mode_name(c->call_mode[i]));
		json_uint(json, "flags", c->call_flags[i]);
		json_bool(json, "queued_in", (c->call_other[i] & 1) != 0);
		json_bool(json, "queued_out", (c->call_other[i] & 2) != 0);
		json_end(json);
	}
	json_end(json);
	json_end(json);
}

/* -- peers ------------------------------------------------------------------------------------- */

const char *const debug_peer_headings[DEBUG_PEER_COLUMNS] = {
	"PEER", ">RTT", ">TIMEOUT", ">MTU", ">WINDOW", ">SENT", ">RESENT", ">USERS",
};

static double time_ns(const struct aph_rx_debug_time *time)
{
	return 1e9 * time->sec + 1e3 * time->usec;
}

int debug_add_peer(struct table *table, const struct aph_rx_debug_peer *peer)
{
	char host[32], mtu[8], window[8], sent[16], resent[16], users[8];
	struct text rtt, timeout;
	const char *cells[DEBUG_PEER_COLUMNS];
	int r = 0;

	snprintf(mtu, sizeof(mtu), "%u", peer->nat_mtu);
	snprintf(window, sizeof(window), "%u", peer->cwind);
	snprintf(sent, sizeof(sent), "%d", peer->n_sent);
	snprintf(resent, sizeof(resent), "%d", peer->resends);
	snprintf(users, sizeof(users), "%u", peer->ref_count);
	cells[0] = show_host(host, sizeof(host), peer->host, peer->port);
	cells[1] = format_duration(&rtt, peer->rtt / 8.0 * 1e6);
	cells[2] = format_duration(&timeout, time_ns(&peer->timeout));
	cells[3] = mtu;
	cells[4] = window;
	cells[5] = sent;
	cells[6] = resent;
	cells[7] = users;
	for (size_t i = 0; i < DEBUG_PEER_COLUMNS && r == 0; i++)
		r = table_add(table, cells[i]);
	return r;
}

void debug_json_peer(const struct aph_rx_debug_peer *peer, struct json *json)
{
	char text[32];

	json_begin_object(json, NULL);
	json_string(json, "peer", show_host(text, sizeof(text), peer->host, peer->port));
	json_double(json, "rtt_ms", peer->rtt / 8.0);
	json_double(json, "rtt_dev_ms", peer->rtt_dev / 4.0);
	json_double(json, "timeout_ms", time_ns(&peer->timeout) / 1e6);
	json_double(json, "burst_wait_ms", time_ns(&peer->burst_wait) / 1e6);
	json_uint(json, "idle_when", peer->idle_when);
	json_uint(json, "ref_count", peer->ref_count);
	json_uint(json, "burst_size", peer->burst_size);
	json_uint(json, "burst", peer->burst);
	json_int(json, "n_sent", peer->n_sent);
	json_int(json, "resends", peer->resends);
	json_int(json, "in_packet_skew", peer->in_packet_skew);
	json_int(json, "out_packet_skew", peer->out_packet_skew);
	json_int(json, "rate_flag", peer->rate_flag);
	json_uint(json, "if_mtu", peer->if_mtu);
	json_uint(json, "nat_mtu", peer->nat_mtu);
	json_uint(json, "max_mtu", peer->max_mtu);
	json_uint(json, "mtu", peer->mtu);
	json_uint(json, "max_dgram_packets", peer->max_dgram_packets);
	json_uint(json, "if_dgram_packets", peer->if_dgram_packets);
	json_uint(json, "n_dgram_packets", peer->n_dgram_packets);
	json_uint(json, "cwind", peer->cwind);
	json_uint(json, "congest_seq", peer->congest_seq);
	json_uint(json, "bytes_sent", peer->bytes_sent);
	json_uint(json, "bytes_received", peer->bytes_received);
	json_end(json);
}

/* -- counters ---------------------------------------------------------------------------------- */

void debug_print_counters(const struct aph_rx_debug_counters *counters)
{
	char name[40];

	print_fields(counters, counter_fields, N_FIELDS(counter_fields));
	for (size_t i = 0; i < APH_RX_DEBUG_N_TYPES; i++) {
		if (counters->packets_read[i] == 0 && counters->packets_sent[i] == 0)
			continue;
		snprintf(name, sizeof(name), "packets %s", type_names[i]);
		printf("%-30s %d read, %d sent\n", name, counters->packets_read[i],
		       counters->packets_sent[i]);
	}
	if (counters->n_rtt_samples > 0) {
		struct text min, max;

		printf("%-30s %s to %s\n", "rtt",
		       format_duration(&min, time_ns(&counters->min_rtt)),
		       format_duration(&max, time_ns(&counters->max_rtt)));
	}
}

static void json_types(struct json *json, const char *key, const int32_t *values)
{
	json_begin_object(json, key);
	for (size_t i = 0; i < APH_RX_DEBUG_N_TYPES; i++)
		json_int(json, type_names[i], values[i]);
	json_end(json);
}

void debug_json_counters(const struct aph_rx_debug_counters *counters, struct json *json)
{
	json_begin_object(json, "counters");
	json_fields(json, counters, counter_fields, N_FIELDS(counter_fields));
	json_types(json, "packets_read", counters->packets_read);
	json_types(json, "packets_sent", counters->packets_sent);
	json_double(json, "total_rtt_ms", time_ns(&counters->total_rtt) / 1e6);
	json_double(json, "min_rtt_ms", time_ns(&counters->min_rtt) / 1e6);
	json_double(json, "max_rtt_ms", time_ns(&counters->max_rtt) / 1e6);
	json_end(json);
}
