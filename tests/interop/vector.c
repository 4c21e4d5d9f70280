/* SPDX-License-Identifier: MIT */
#include "vector.h"

#include "check.h"
#include "describe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)

/* What failed and where, and what the engine has sent that nothing was said of. */
void vector_fail(struct vector *v, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "%s:%u: ", v->line->file, v->line->number);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	for (unsigned i = v->next_sent; i < v->n_sent && i < v->next_sent + 20; i++) {
		char text[240];

		describe_packet(text, sizeof(text), v->sent[i].bytes, v->sent[i].len);
		fprintf(stderr, "  then: %s\n", text);
	}
	longjmp(v->failed, 1);
}

/* -- words ------------------------------------------------------------------------------------- */

const char *line_value(const struct line *line, const char *key)
{
	size_t len = strlen(key);

	for (unsigned i = 1; i < line->n_words; i++)
		if (strncmp(line->words[i], key, len) == 0 && line->words[i][len] == '=')
			return line->words[i] + len + 1;
	return NULL;
}

bool line_has(const struct line *line, const char *word)
{
	for (unsigned i = 1; i < line->n_words; i++)
		if (strcmp(line->words[i], word) == 0)
			return true;
	return false;
}

void vector_set(struct vector *v, const char *name, uint64_t value)
{
	unsigned i;

	for (i = 0; i < v->n_vars; i++)
		if (strcmp(v->vars[i].name, name) == 0)
			break;
	if (i == VARS_MAX)
		vector_fail(v, "too many variables");
	if (i == v->n_vars)
		v->n_vars++;
	snprintf(v->vars[i].name, sizeof(v->vars[i].name), "%s", name);
	v->vars[i].value = value;
}

/* $name, $name+1, $name-1, or a number. */
uint64_t vector_number(struct vector *v, const char *text)
{
	uint64_t value = 0;
	char *end;
	size_t len;

	if (*text != '$') {
		value = (uint64_t)strtoll(text, &end, 0);
		if (end == text || *end)
			vector_fail(v, "'%s' is not a number", text);
		return *text == '-' ? (uint32_t)value : value;
	}
	text++;
	len = strcspn(text, "+-");
	for (unsigned i = 0;; i++) {
		if (i == v->n_vars)
			vector_fail(v, "nothing is known as '%s'", text);
		if (strlen(v->vars[i].name) == len && strncmp(v->vars[i].name, text, len) == 0) {
			value = v->vars[i].value;
			break;
		}
	}
	if (text[len])
		value += (uint64_t)strtoll(text + len, NULL, 0);
	return value;
}

uint64_t vector_field(struct vector *v, const char *key, uint64_t otherwise)
{
	const char *value = line_value(v->line, key);

	return value ? vector_number(v, value) : otherwise;
}

static struct vector_call *find_call(struct vector *v, const char *name)
{
	for (unsigned i = 0; i < v->n_calls; i++)
		if (strcmp(v->calls[i].name, name) == 0)
			return &v->calls[i];
	if (v->n_calls == CALLS_MAX)
		vector_fail(v, "too many calls");
	snprintf(v->calls[v->n_calls].name, sizeof(v->calls[0].name), "%s", name);
	return &v->calls[v->n_calls++];
}

static const char *word(struct vector *v, unsigned i)
{
	if (i >= v->line->n_words)
		vector_fail(v, "the line is too short");
	return v->line->words[i];
}

static struct aph_rx_call *the_call(struct vector *v)
{
	struct vector_call *found = find_call(v, word(v, 1));

	if (!found->call)
		vector_fail(v, "there is no call %s", found->name);
	return found->call;
}

/* -- the engine -------------------------------------------------------------------------------- */

static void *vector_alloc(void *arg, size_t size)
{
	struct vector *v = arg;
	void *memory = malloc(size);

	CHECK(memory);
	memset(memory, 0xa5, size);
	v->memory += size;
	return memory;
}

static void vector_free(void *arg, void *memory, size_t size)
{
	struct vector *v = arg;

	if (memory)
		v->memory -= size;
	free(memory);
}

static void vector_random(void *arg, void *out, size_t len)
{
	struct vector *v = arg;
	struct rng rng = { v->random };

	for (size_t i = 0; i < len; i++)
		((uint8_t *)out)[i] = (uint8_t)rng_next(&rng);
	v->random = rng.state;
}

void vector_begin(struct vector *v)
{
	if (v->rx)
		return;
	v->config.size = sizeof(v->config);
	v->config.alloc = vector_alloc;
	v->config.free = vector_free;
	v->config.alloc_arg = v->config.random_arg = v;
	v->config.random = vector_random;
	v->random = 1;
	v->now = 1000000 * MS;
	v->serial = 1;
	vector_set(v, "epoch", 0x80001234);
	vector_set(v, "cid", 0x1000);
	vector_set(v, "call", 1);
	vector_set(v, "service", 4);
	CHECK_OK(aph_rx_new(&v->rx, &v->config, v->now));
}

struct aph_rx_path vector_path(unsigned peer)
{
	struct aph_rx_path path;

	memset(&path, 0, sizeof(path));
	path.remote.in.sin_family = AF_INET;
	/* Peer 200 is on this machine. */
	path.remote.in.sin_addr.s_addr = htonl(peer == 200 ? 0x7f000001 : 0x0a000000 + peer % 100);
	/* Peers 101 and up have the addresses of 1 and up, and other ports. */
	path.remote.in.sin_port = htons((uint16_t)(7001 + peer / 100));
	return path;
}

static unsigned peer_of(const struct aph_rx_path *path)
{
	uint32_t host = ntohl(path->remote.in.sin_addr.s_addr);

	if (host == 0x7f000001)
		return 200;
	return host - 0x0a000000 + 100u * (ntohs(path->remote.in.sin_port) - 7001u);
}

static void keep(struct vector *v, const struct aph_rx_message *message)
{
	uint8_t bytes[65536];
	size_t len = 0;

	for (size_t i = 0; i < message->n_iov; i++) {
		memcpy(bytes + len, message->iov[i].iov_base, message->iov[i].iov_len);
		len += message->iov[i].iov_len;
	}
	for (size_t at = 0; at < len; at += message->segment) {
		struct vector_datagram *datagram = &v->sent[v->n_sent++];

		if (v->n_sent == SENT_MAX)
			vector_fail(v, "too much is sent");
		datagram->len = len - at < message->segment ? len - at : message->segment;
		datagram->bytes = malloc(datagram->len);
		CHECK(datagram->bytes);
		memcpy(datagram->bytes, bytes + at, datagram->len);
		datagram->peer = peer_of(message->path);
	}
}

void vector_flush(struct vector *v)
{
	struct aph_rx_message message;

	if (v->next_sent == v->n_sent)
		v->next_sent = v->n_sent = 0;
	while (aph_rx_send(v->rx, &message, 1, v->now) == 1)
		keep(v, &message);
}

static void run_until(struct vector *v, uint64_t until)
{
	unsigned n = 0;

	vector_flush(v);
	for (;;) {
		uint64_t deadline = aph_rx_deadline(v->rx);

		if (deadline > until)
			break;
		if (deadline > v->now) {
			v->now = deadline;
			n = 0;
		}
		if (++n > 1000)
			vector_fail(v, "ticks do not move the deadline");
		aph_rx_tick(v->rx, v->now);
		vector_flush(v);
	}
	v->now = until;
}

static void drop_sent(struct vector *v)
{
	for (unsigned i = v->next_sent; i < v->n_sent; i++)
		free(v->sent[i].bytes);
	v->n_sent = v->next_sent = 0;
}

/* -- what is said ------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	uint32_t flag;
} config_flags[] = {
	{ "no-jumbo", APH_RX_NO_JUMBO },
	{ "no-extension", APH_RX_NO_EXTENSION },
	{ "segments", APH_RX_SEGMENTS },
	{ "answer-debug", APH_RX_ANSWER_DEBUG },
	{ "multihomed", APH_RX_MULTIHOMED },
	{ "busy-ends", APH_RX_BUSY_ENDS },
	{ "no-pmtu-probes", APH_RX_NO_PMTU_PROBES },
};

static void do_engine(struct vector *v)
{
	if (v->rx)
		vector_fail(v, "there is an engine already");
	for (unsigned i = 0; i < sizeof(config_flags) / sizeof(config_flags[0]); i++)
		if (line_has(v->line, config_flags[i].name))
			v->config.flags |= config_flags[i].flag;
	v->config.mtu = (uint32_t)vector_field(v, "mtu", 0);
	v->config.window = (uint32_t)vector_field(v, "window", 0);
	v->config.send_max = (uint32_t)vector_field(v, "send_max", 0);
	v->config.dead_ms = (uint32_t)vector_field(v, "dead", 0);
	v->config.idle_client_ms = (uint32_t)vector_field(v, "idle_client", 0);
	v->config.idle_service_ms = (uint32_t)vector_field(v, "idle_service", 0);
	v->config.calls_max = (uint32_t)vector_field(v, "calls_max", 0);
	v->config.connections_max = (uint32_t)vector_field(v, "connections_max", 0);
	v->config.peers_max = (uint32_t)vector_field(v, "peers_max", 0);
	v->config.final_ack_delay_ms = (uint32_t)vector_field(v, "final_ack_delay", 0);
	v->config.soft_ack_delay_ms = (uint32_t)vector_field(v, "soft_ack_delay", 0);
	snprintf(v->config.version, sizeof(v->config.version), "vector");
	vector_begin(v);
}

static void do_service(struct vector *v)
{
	struct aph_rx_service_options options = { .size = sizeof(options) };
	uint16_t id = (uint16_t)vector_number(v, word(v, 1));

	vector_begin(v);
	options.credit = (uint32_t)vector_field(v, "credit", 0);
	options.upgrade_to = (uint16_t)vector_field(v, "upgrade", 0);
	CHECK_OK(aph_rx_service_add(&v->services[id], v->rx, id, &options));
}

static void do_remove(struct vector *v)
{
	uint16_t id = (uint16_t)vector_number(v, word(v, 1));

	v->services[id] = aph_rx_service_remove(v->services[id]);
}

static void do_credit(struct vector *v)
{
	aph_rx_service_set_credit(v->services[vector_number(v, word(v, 1))],
				  (uint32_t)vector_number(v, word(v, 2)));
}

static void do_client(struct vector *v)
{
	struct aph_rx_client_options options = { .size = sizeof(options) };
	struct aph_rx_path path = vector_path((unsigned)vector_field(v, "peer", 1));
	unsigned i = (unsigned)(word(v, 1)[0] - 'A');

	vector_begin(v);
	v->engine_is_client = true;
	if (i >= 26)
		vector_fail(v, "clients are named A to Z");
	options.connections_max = (uint32_t)vector_field(v, "connections", 0);
	CHECK_OK(aph_rx_client_new(&v->clients[i], v->rx, &path,
				   (uint16_t)vector_field(v, "service", 4), &options));
}

static void do_call(struct vector *v)
{
	struct aph_rx_call_options options = { .size = sizeof(options) };
	struct vector_call *call = find_call(v, word(v, 1));
	const char *client = line_value(v->line, "client");
	int r;

	if (line_has(v->line, "exclusive"))
		options.flags |= APH_RX_CALL_EXCLUSIVE;
	if (line_has(v->line, "upgrade"))
		options.flags |= APH_RX_CALL_UPGRADE;
	if (line_has(v->line, "no-wait"))
		options.flags |= APH_RX_CALL_NO_WAIT;
	options.dead_ms = (uint32_t)vector_field(v, "dead", 0);
	options.idle_ms = (uint32_t)vector_field(v, "idle", 0);
	options.hard_ms = (uint32_t)vector_field(v, "hard", 0);
	r = aph_rx_call_new(&call->call, v->clients[client ? client[0] - 'A' : 0], &options);
	if (line_has(v->line, "EAGAIN") != (r == -EAGAIN) || (r < 0 && r != -EAGAIN))
		vector_fail(v, "aph_rx_call_new() gave %d", r);
}

/* write X LEN|: body [more] [gives=N|EAGAIN|...] */
static void do_write(struct vector *v)
{
	static uint8_t filler[1 << 20];
	struct aph_rx_call *call = the_call(v);
	const char *gives = line_value(v->line, "gives");
	size_t len = (size_t)vector_field(v, "len", v->line->body_len);
	const void *data = v->line->has_body ? v->line->body : filler;
	ssize_t r, wanted = (ssize_t)len;

	if (gives && strcmp(gives, "EAGAIN") == 0)
		wanted = -EAGAIN;
	else if (gives && strcmp(gives, "EPROTO") == 0)
		wanted = -EPROTO;
	else if (gives && strcmp(gives, "ESHUTDOWN") == 0)
		wanted = -ESHUTDOWN;
	else if (gives)
		wanted = (ssize_t)vector_number(v, gives);
	if (len > sizeof(filler))
		vector_fail(v, "too long");
	r = aph_rx_call_write(call, data, len, line_has(v->line, "more") ? APH_RX_MORE : 0);
	if (r != wanted)
		vector_fail(v, "the write gives %zd", r);
}

/* read X : body | read X len=N | read X eof | read X again | read X shutdown */
static void do_read(struct vector *v)
{
	static uint8_t piece[1 << 20];
	struct aph_rx_call *call = the_call(v);
	size_t len = (size_t)vector_field(v, "len", v->line->body_len);
	ssize_t r, wanted = (ssize_t)len;

	if (line_has(v->line, "again"))
		wanted = -EAGAIN;
	if (line_has(v->line, "shutdown"))
		wanted = -ESHUTDOWN;
	r = aph_rx_call_read(call, piece, wanted > 0 ? len : 1, 0);
	if (r != wanted)
		vector_fail(v, "the read gives %zd", r);
	if (v->line->has_body && memcmp(piece, v->line->body, len) != 0)
		vector_fail(v, "the read gives other bytes");
}

static const char *const outcomes[] = { "DONE",	     "ABORTED", "ABORTED_HERE", "BUSY",
					"TIMED_OUT", "RESET",	"NET_ERROR",	"LOCAL_ERROR" };
static const char *const event_types[] = { "none", "CALL", "READABLE", "WRITABLE", "END" };

/* event CALL|READABLE|WRITABLE|END NAME [outcome= code= service=], event none */
static void do_event(struct vector *v)
{
	const char *type = word(v, 1), *outcome = line_value(v->line, "outcome");
	const char *code = line_value(v->line, "code");
	struct vector_call *call;
	struct aph_rx_event event;
	bool none;

	vector_begin(v);
	/* What can be read or written beside what is looked for is passed over. */
	do {
		none = !aph_rx_next(v->rx, &event);
	} while (!none && strcmp(type, event_types[event.type]) != 0 &&
		 (event.type == APH_RX_EVENT_READABLE || event.type == APH_RX_EVENT_WRITABLE));
	if (none) {
		if (strcmp(type, "none") == 0)
			return;
		vector_fail(v, "there is no event");
	}
	if (strcmp(type, event_types[event.type]) != 0)
		vector_fail(v, "the event is %s, outcome %s, code %d", event_types[event.type],
			    outcomes[event.end.outcome], event.end.code);
	call = find_call(v, word(v, 2));
	if (event.type == APH_RX_EVENT_CALL)
		call->call = event.call;
	if (call->call != event.call)
		vector_fail(v, "the event is for another call");
	if (outcome && strcmp(outcome, outcomes[event.end.outcome]) != 0)
		vector_fail(v, "the outcome is %s, code %d", outcomes[event.end.outcome],
			    event.end.code);
	if (code && (int32_t)vector_number(v, code) != event.end.code)
		vector_fail(v, "the code is %d", event.end.code);
	if (line_value(v->line, "service") &&
	    aph_rx_service_id(event.service) != vector_field(v, "service", 0))
		vector_fail(v, "at service %u", aph_rx_service_id(event.service));
}

static void do_abort(struct vector *v)
{
	CHECK_OK(aph_rx_call_abort(the_call(v), (int32_t)vector_number(v, word(v, 2))));
}

static void do_free(struct vector *v)
{
	struct vector_call *call = find_call(v, word(v, 1));

	call->call = aph_rx_call_free(call->call);
}

static void do_free_client(struct vector *v)
{
	unsigned i = (unsigned)(word(v, 1)[0] - 'A');

	v->clients[i] = aph_rx_client_free(v->clients[i]);
}

static void do_wait(struct vector *v)
{
	run_until(v, v->now + vector_number(v, word(v, 1)) * MS);
}

static void do_skip(struct vector *v)
{
	vector_flush(v);
	drop_sent(v);
}

/*
 * icmp ECONNREFUSED|EMSGSIZE|EHOSTUNREACH [mtu=] [peer=] [local]: about the datagram that was
 * expected last
 */
static void do_icmp(struct vector *v)
{
	const char *name = word(v, 1);
	struct aph_rx_path path = vector_path((unsigned)vector_field(v, "peer", 1));
	struct aph_rx_header h = { 0 };
	uint8_t quote[APH_RX_HEADER];
	int error = strcmp(name, "EMSGSIZE") == 0	? EMSGSIZE
		    : strcmp(name, "ECONNREFUSED") == 0 ? ECONNREFUSED
							: EHOSTUNREACH;

	h.epoch = (uint32_t)vector_field(v, "epoch", vector_number(v, "$epoch"));
	h.cid = (uint32_t)vector_field(v, "cid", vector_number(v, "$cid"));
	h.call_number = (uint32_t)vector_field(v, "call", vector_number(v, "$call"));
	h.seq = h.serial = h.type = 1;
	h.flags = v->engine_is_client ? APH_RX_CLIENT_INITIATED : 0;
	h.service = (uint16_t)vector_field(v, "service", 4);
	aph_rx_header_encode(quote, &h);
	aph_rx_receive_error(v->rx, &path, error, (uint32_t)vector_field(v, "mtu", 0),
			     line_has(v->line, "no-quote") ? NULL : quote,
			     line_has(v->line, "no-quote") ? 0 : sizeof(quote),
			     line_has(v->line, "local"), v->now);
}

static void do_stat(struct vector *v)
{
	struct aph_rx_stats stats;
	const struct {
		const char *name;
		const uint64_t *value;
	} known[] = {
		{ "malformed", &stats.malformed },
		{ "unknown", &stats.unknown },
		{ "rejected", &stats.rejected },
		{ "rate_limited", &stats.rate_limited },
		{ "calls", &stats.n_calls },
		{ "service_connections", &stats.n_service_connections },
		{ "client_connections", &stats.n_client_connections },
		{ "peers", &stats.n_peers },
	};

	aph_rx_get_stats(v->rx, &stats);
	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(known[i].name, word(v, 1)) != 0)
			continue;
		if (*known[i].value != vector_number(v, word(v, 2)))
			vector_fail(v, "%s is %" PRIu64, word(v, 1), *known[i].value);
		return;
	}
	vector_fail(v, "no figure is named %s", word(v, 1));
}

static const struct {
	const char *name;
	void (*run)(struct vector *v);
} commands[] = {
	{ ">", vector_send },	   { "<", vector_expect },  { "engine", do_engine },
	{ "service", do_service }, { "remove", do_remove }, { "credit", do_credit },
	{ "client", do_client },   { "call", do_call },	    { "write", do_write },
	{ "read", do_read },	   { "event", do_event },   { "abort", do_abort },
	{ "free", do_free },	   { "wait", do_wait },	    { "skip", do_skip },
	{ "icmp", do_icmp },	   { "stat", do_stat },	    { "free-client", do_free_client },
};

void vector_run(struct vector *v, const struct line *line)
{
	v->line = line;
	if (line->n_words == 0)
		return;
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(commands[i].name, line->words[0]) == 0) {
			commands[i].run(v);
			return;
		}
	vector_fail(v, "'%s' is no command", line->words[0]);
}

/* Everything that was sent must have been expected; nothing may be left. */
void vector_end(struct vector *v)
{
	vector_begin(v);
	vector_flush(v);
	if (v->next_sent < v->n_sent)
		vector_fail(v, "it sends more than was expected:");
	v->rx = aph_rx_free(v->rx);
	if (v->memory != 0)
		vector_fail(v, "%zu bytes are left", v->memory);
}
