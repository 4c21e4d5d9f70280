/* SPDX-License-Identifier: MIT */
#include "stock.h"

#include "load.h"
#include "rx/wire.h"

#include <stdlib.h>
#include <string.h>

#define PAYLOAD	     1412u
#define RTO_MIN_NS   (300 * MS)
#define DEAD_NS	     (60 * SECOND)
#define READ_SLOW_NS (3 * MS)

static bool is_linux(const struct stock *stock)
{
	return stock->style == STOCK_LINUX;
}

static uint32_t window_of(const struct stock *stock, const struct stock_channel *channel)
{
	if (is_linux(stock))
		return 255 - (channel->in.next - 1 - channel->in.consumed);
	return channel->in.next > 1 ? 32 : 16;
}

/* -- sending ----------------------------------------------------------------------------------- */

static struct aph_rx_header header_of(struct stock_conn *conn, unsigned i, uint8_t type)
{
	return (struct aph_rx_header){
		.epoch = conn->epoch,
		.cid = conn->cid | i,
		.call_number = conn->channels[i].call,
		.serial = ++conn->serial,
		.type = type,
		.flags = conn->is_client ? APH_RX_CLIENT_INITIATED : 0,
		.service = STOCK_SERVICE,
	};
}

static void transmit(struct stock *stock, const struct stock_conn *conn, const uint8_t *bytes,
		     size_t len)
{
	world_send(&stock->node, &stock->node.address, &conn->peer, bytes, len, FRAGMENTS_MAY);
}

static void send_ack(struct stock *stock, struct stock_conn *conn, unsigned i, uint8_t reason,
		     uint32_t serial)
{
	struct stock_channel *channel = &conn->channels[i];
	struct stock_in *in = &channel->in;
	struct aph_rx_header h = header_of(conn, i, APH_RX_ACK);
	uint32_t first = is_linux(stock) ? in->next : in->consumed + 1, n = 0;
	uint8_t packet[512] = { 0 }, *body = packet + APH_RX_HEADER;
	size_t len;

	h.flags |= APH_RX_SLOW_START_OK;
	if (reason == APH_RX_ACK_PING)
		h.flags |= APH_RX_REQUEST_ACK;
	if (in->highest >= first)
		n = in->highest - first + 1;
	if (n > 255)
		n = 255;
	aph_rx_header_encode(packet, &h);
	aph_put32(body + 4, first);
	aph_put32(body + 8, in->highest);
	aph_put32(body + 12, serial);
	body[16] = reason;
	body[17] = (uint8_t)n;
	for (uint32_t k = 0; k < n; k++)
		body[18 + k] = first + k < in->next || in->slots[(first + k) % STOCK_WINDOW].held;
	len = 18 + n + 3;
	aph_put32(body + len, 5692);
	aph_put32(body + len + 4, 1444);
	aph_put32(body + len + 8, window_of(stock, channel));
	aph_put32(body + len + 12, stock->jumbo ? 4 : 1);
	in->n_since_ack = in->n_read_since_ack = 0;
	in->ack_at = 0;
	transmit(stock, conn, packet, APH_RX_HEADER + len + 16);
}

static uint32_t length_of(const struct stock_out *out, uint32_t seq)
{
	uint64_t left = out->len - (uint64_t)(seq - 1) * PAYLOAD;

	return left < PAYLOAD ? (uint32_t)left : PAYLOAD;
}

static void fill(const struct stock_conn *conn, const struct stock_channel *channel,
		 const struct stock_out *out, uint32_t seq, uint8_t *payload)
{
	uint64_t at = (uint64_t)(seq - 1) * PAYLOAD;

	load_pattern(payload, length_of(out, seq), out->id, at);
	if (conn->is_client && seq == 1) {
		aph_put32(payload, channel->id);
		aph_put32(payload + 4, (uint32_t)(channel->reply_len >> 32));
		aph_put32(payload + 8, (uint32_t)channel->reply_len);
	}
}

/* Sends `n` packets from `seq` on, as a jumbogram if they are more than one. */
static void send_data(struct stock *stock, struct stock_conn *conn, unsigned i, uint32_t seq,
		      uint32_t n, bool again, bool more)
{
	struct stock_channel *channel = &conn->channels[i];
	struct stock_out *out = &channel->out;
	struct aph_rx_header h = header_of(conn, i, APH_RX_DATA);
	uint8_t packet[APH_RX_HEADER + 4 * (PAYLOAD + 4)];
	size_t at = APH_RX_HEADER;

	h.seq = seq;
	conn->serial += n - 1;
	for (uint32_t k = 0; k < n; k++) {
		uint8_t flags = conn->is_client ? APH_RX_CLIENT_INITIATED : 0;

		if (seq + k == out->n_packets)
			flags |= APH_RX_LAST_PACKET;
		else if (again || (is_linux(stock) && (seq + k) % 16 < 3 && k == n - 1))
			flags |= APH_RX_REQUEST_ACK;
		if (k + 1 < n)
			flags |= APH_RX_JUMBO_PACKET;
		else if (more)
			flags |= APH_RX_MORE_PACKETS;
		if (k == 0) {
			h.flags = flags;
		} else {
			memset(packet + at, 0, 4);
			packet[at] = flags;
			at += 4;
		}
		fill(conn, channel, out, seq + k, packet + at);
		at += length_of(out, seq + k);
	}
	aph_rx_header_encode(packet, &h);
	channel->in.ack_at = 0; /* the data says it */
	transmit(stock, conn, packet, at);
}

static void send_some(struct stock *stock, struct stock_conn *conn, unsigned i)
{
	struct stock_out *out = &conn->channels[i].out;
	uint32_t window = out->window < out->cwnd ? out->window : out->cwnd;
	uint32_t end;

	if (!out->started || out->done)
		return;
	if (window > (is_linux(stock) ? 128u : 32u))
		window = is_linux(stock) ? 128 : 32;
	end = out->base + (window ? window : 1);
	if (end > out->n_packets + 1)
		end = out->n_packets + 1;
	while (out->next < end) {
		uint32_t n = 1;

		while (stock->jumbo && n < 4 && out->next + n < end &&
		       length_of(out, out->next + n - 1) == PAYLOAD)
			n++;
		send_data(stock, conn, i, out->next, n, false, out->next + n < end);
		out->next += n;
		if (out->resend_at == 0)
			out->resend_at = stock->node.world->now + out->rto_ns;
	}
}

static void begin_body(struct stock *stock, struct stock_conn *conn, unsigned i, uint32_t id,
		       uint64_t len)
{
	struct stock_out *out = &conn->channels[i].out;
	uint32_t window = out->window;

	memset(out, 0, sizeof(*out));
	out->id = id;
	out->len = len;
	out->n_packets = len ? (uint32_t)((len + PAYLOAD - 1) / PAYLOAD) : 1;
	out->base = out->next = 1;
	out->cwnd = 4;
	out->window = window ? window : 16;
	out->rto_ns = RTO_MIN_NS;
	out->started = true;
	send_some(stock, conn, i);
}

static void begin_in(struct stock_in *in)
{
	struct stock_slot *slots = in->slots;

	if (!slots)
		slots = malloc(STOCK_WINDOW * sizeof(*slots));
	CHECK(slots);
	for (unsigned k = 0; k < STOCK_WINDOW; k++)
		slots[k].held = false;
	memset(in, 0, sizeof(*in));
	in->slots = slots;
	in->next = 1;
}

/* -- a client's calls -------------------------------------------------------------------------- */

static void begin_call(struct stock *stock, struct stock_conn *conn, unsigned i)
{
	struct stock_channel *channel = &conn->channels[i];
	struct world *world = stock->node.world;

	if (stock->calls_left == 0)
		return;
	stock->calls_left--;
	stock->n_open++;
	channel->busy = true;
	channel->call++;
	channel->id = stock->next_id;
	stock->next_id += 2;
	channel->reply_len = world_skewed(world, stock->body_max);
	channel->begun = channel->heard = world->now;
	channel->out.window = 0;
	begin_in(&channel->in);
	begin_body(stock, conn, i, channel->id,
		   STOCK_PREFIX + world_skewed(world, stock->body_max));
}

static void end_call(struct stock *stock, struct stock_conn *conn, unsigned i)
{
	struct stock_channel *channel = &conn->channels[i];

	if (channel->in.bytes != channel->reply_len)
		world_fail(stock->node.world, "%s: a reply of %llu bytes, not %llu",
			   stock->node.name, (unsigned long long)channel->in.bytes,
			   (unsigned long long)channel->reply_len);
	channel->busy = false;
	channel->last_seq = channel->in.last;
	stock->n_open--;
	stock->n_done++;
	/*
	 * OpenAFS leaves the receipt to the next call, or forces it out; Linux is a little later.
	 */
	begin_call(stock, conn, i);
	if (!channel->busy && !is_linux(stock))
		send_ack(stock, conn, i, APH_RX_ACK_DELAY, 0);
	else if (!channel->busy)
		channel->in.ack_at = stock->node.world->now + 8 * MS;
}

/* -- the programs ------------------------------------------------------------------------------ */

static void check_piece(struct stock *stock, struct stock_conn *conn, unsigned i,
			const struct stock_slot *slot)
{
	struct stock_channel *channel = &conn->channels[i];
	struct stock_in *in = &channel->in;
	size_t skip = 0;

	if (!conn->is_client && in->bytes == 0) {
		if (slot->len < STOCK_PREFIX)
			world_fail(stock->node.world, "a request of %u bytes", slot->len);
		channel->id = aph_get32(slot->data);
		channel->reply_len = (uint64_t)aph_get32(slot->data + 4) << 32 |
				     aph_get32(slot->data + 8);
		skip = STOCK_PREFIX;
	}
	if (!load_pattern_is(slot->data + skip, slot->len - skip, channel->id + conn->is_client,
			     in->bytes + skip))
		world_fail(stock->node.world, "%s gets wrong bytes at %llu of call %u",
			   stock->node.name, (unsigned long long)in->bytes, channel->id);
	in->bytes += slot->len;
}

static void consume(struct stock *stock, struct stock_conn *conn, unsigned i, uint32_t max)
{
	struct stock_channel *channel = &conn->channels[i];
	struct stock_in *in = &channel->in;

	while (channel->busy && in->consumed + 1 < in->next && max-- > 0) {
		struct stock_slot *slot = &in->slots[++in->consumed % STOCK_WINDOW];

		check_piece(stock, conn, i, slot);
		slot->held = false;
		in->n_read_since_ack++;
		if (in->consumed != in->last)
			continue;
		in->over = true;
		if (conn->is_client) {
			end_call(stock, conn, i);
			return;
		}
		channel->reply_at =
			stock->node.world->now + 1 +
			(stock->work_ns ? rng_next(&stock->node.world->rng) % stock->work_ns : 0);
	}
	if (!channel->busy || in->over)
		return;
	if (in->n_read_since_ack > (is_linux(stock) ? 8u : 2u))
		send_ack(stock, conn, i, is_linux(stock) ? APH_RX_ACK_IDLE : APH_RX_ACK_DELAY, 0);
	else if (in->n_read_since_ack > 0 && in->ack_at == 0)
		in->ack_at = stock->node.world->now + 100 * MS;
}

/* -- receiving --------------------------------------------------------------------------------- */

static void take_packet(struct stock *stock, struct stock_conn *conn, unsigned i,
			const struct aph_rx_header *h, const uint8_t *payload, size_t len)
{
	struct stock_in *in = &conn->channels[i].in;
	struct stock_slot *slot = &in->slots[h->seq % STOCK_WINDOW];
	uint64_t now = stock->node.world->now;
	bool gap;

	if (h->seq < in->next || (h->seq < in->consumed + STOCK_WINDOW && slot->held)) {
		send_ack(stock, conn, i, APH_RX_ACK_DUPLICATE, h->serial);
		return;
	}
	if (h->seq >= (is_linux(stock) ? in->consumed + 256 : in->consumed + 1 + 32)) {
		send_ack(stock, conn, i, APH_RX_ACK_EXCEEDS_WINDOW, h->serial);
		return;
	}
	if (len > sizeof(slot->data))
		world_fail(stock->node.world, "%s: a packet of %zu bytes", stock->node.name, len);
	slot->held = true;
	slot->len = (uint16_t)len;
	memcpy(slot->data, payload, len);
	if (h->flags & APH_RX_LAST_PACKET)
		in->last = h->seq;
	if (h->seq > in->highest)
		in->highest = h->seq;
	gap = h->seq != in->next;
	while (in->next <= in->highest && in->slots[in->next % STOCK_WINDOW].held)
		in->next++;
	if (gap) {
		send_ack(stock, conn, i, APH_RX_ACK_OUT_OF_SEQUENCE, h->serial);
	} else if (h->flags & APH_RX_REQUEST_ACK) {
		send_ack(stock, conn, i, APH_RX_ACK_REQUESTED, h->serial);
	} else if (h->flags & APH_RX_LAST_PACKET) {
		if (conn->is_client)
			in->ack_at = now + 400 * MS;
	} else if (++in->n_since_ack > (is_linux(stock) ? 2u : 1u)) {
		send_ack(stock, conn, i, APH_RX_ACK_IDLE, is_linux(stock) ? 0 : h->serial);
	} else if (in->ack_at == 0) {
		in->ack_at = now + (is_linux(stock) ? 1000 * MS : 100 * MS);
	}
}

static void all_acked(struct stock_out *out)
{
	out->base = out->next = out->n_packets + 1;
	out->done = true;
	out->resend_at = 0;
}

static void take_data(struct stock *stock, struct stock_conn *conn, unsigned i,
		      struct aph_rx_header h, const uint8_t *data, size_t len)
{
	struct stock_channel *channel = &conn->channels[i];
	const uint8_t *payload;
	size_t payload_len;
	int more;

	if (conn->is_client) {
		if (h.call_number != channel->call || !channel->busy) {
			/* The receipt again. */
			if (h.call_number == channel->call)
				send_ack(stock, conn, i, APH_RX_ACK_DUPLICATE, h.serial);
			return;
		}
		if (!channel->out.done && channel->out.next <= channel->out.n_packets)
			world_fail(stock->node.world, "%s: a reply before the request's end",
				   stock->node.name);
		all_acked(&channel->out);
	} else if (h.call_number > channel->call || !channel->in.slots) {
		if (h.seq > 32)
			return;
		if (channel->busy && !channel->out.started)
			world_fail(stock->node.world,
				   "%s: call %u begins while %u is being worked on",
				   stock->node.name, h.call_number, channel->call);
		stock->n_served++;
		channel->call = h.call_number;
		channel->busy = true;
		channel->reply_at = 0;
		memset(&channel->out, 0, sizeof(channel->out));
		begin_in(&channel->in);
		if (is_linux(stock)) {
			stock->n_pings++;
			send_ack(stock, conn, i, APH_RX_ACK_PING, 0);
		}
	} else if (h.call_number < channel->call || channel->out.done) {
		return;
	}
	channel->heard = stock->node.world->now;
	do {
		const struct aph_rx_header part = h;

		more = aph_rx_jumbo_next(&h, &data, &len, &payload, &payload_len);
		if (more < 0)
			world_fail(stock->node.world, "%s: a bad jumbogram", stock->node.name);
		take_packet(stock, conn, i, &part, payload, payload_len);
	} while (more > 0);
	if (!stock->slow)
		consume(stock, conn, i, UINT32_MAX);
}

static void strict(struct stock *stock, const struct stock_out *out, const struct aph_rx_ack *ack)
{
	uint32_t sent = out->started ? out->next - 1 : 0;

	if (ack->first > sent + 1 || ack->first + ack->n_acks > sent + 1)
		world_fail(
			stock->node.world,
			"%s would abort: an ACK for more than was sent: first %u, %u soft, sent %u",
			stock->node.name, ack->first, ack->n_acks, sent);
}

static void take_ack(struct stock *stock, struct stock_conn *conn, unsigned i,
		     const struct aph_rx_header *h, const uint8_t *body, size_t len)
{
	struct stock_channel *channel = &conn->channels[i];
	struct stock_out *out = &channel->out;
	struct aph_rx_ack ack;
	bool nack = false;

	if (!aph_rx_ack_decode(&ack, body, len))
		world_fail(stock->node.world, "%s: a malformed ACK", stock->node.name);
	if (h->call_number != channel->call)
		return;
	if (conn->is_client && !channel->busy) {
		send_ack(stock, conn, i, APH_RX_ACK_DUPLICATE, h->serial);
		return;
	}
	channel->heard = stock->node.world->now;
	if (h->flags & APH_RX_REQUEST_ACK)
		send_ack(stock, conn, i, APH_RX_ACK_PING_RESPONSE, h->serial);
	if (ack.n_words == 4)
		out->window = ack.rwind ? ack.rwind : 1;
	if (!out->started || out->done)
		return;
	strict(stock, out, &ack);
	if (ack.first < out->base)
		return;
	if (ack.first > out->base) {
		out->cwnd += ack.first - out->base;
		for (; out->base < ack.first; out->base++)
			out->acked[out->base % STOCK_WINDOW] = 0;
		out->rto_ns = RTO_MIN_NS;
		out->resend_at = out->base < out->next ? stock->node.world->now + out->rto_ns : 0;
	}
	for (uint32_t k = 0; k < ack.n_acks; k++) {
		out->acked[(ack.first + k) % STOCK_WINDOW] = ack.acks[k] & 1;
		nack = nack || !(ack.acks[k] & 1);
	}
	out->n_nacks = nack ? out->n_nacks + 1 : 0;
	if (out->n_nacks == 3) {
		out->n_nacks = 0;
		out->cwnd = out->cwnd / 2 + 3;
		for (uint32_t k = 0; k < ack.n_acks; k++)
			if (!(ack.acks[k] & 1))
				send_data(stock, conn, i, ack.first + k, 1, true, false);
	}
	if (out->base > out->n_packets)
		all_acked(out);
	send_some(stock, conn, i);
	if (!conn->is_client && out->done)
		channel->busy = false;
}

static struct stock_conn *find_conn(struct stock *stock, const struct packet *packet,
				    const struct aph_rx_header *h)
{
	bool is_client = !(h->flags & APH_RX_CLIENT_INITIATED);
	struct stock_conn *conn;

	for (unsigned c = 0; c < stock->n_conns; c++) {
		conn = &stock->conns[c];
		if (conn->epoch == h->epoch && conn->cid == (h->cid & ~3u) &&
		    conn->is_client == is_client)
			return conn;
	}
	if (is_client || h->type != APH_RX_DATA || h->service != STOCK_SERVICE)
		return NULL;
	if (stock->n_conns == STOCK_CONNS_MAX)
		world_fail(stock->node.world, "%s: too many connections", stock->node.name);
	conn = &stock->conns[stock->n_conns++];
	conn->used = true;
	conn->peer = packet->from;
	conn->epoch = h->epoch;
	conn->cid = h->cid & ~3u;
	return conn;
}

/* -- time -------------------------------------------------------------------------------------- */

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return b != 0 && b < a ? b : a;
}

static void stock_arm(struct stock *stock)
{
	uint64_t at = UINT64_MAX;

	for (unsigned c = 0; c < stock->n_conns; c++)
		for (unsigned i = 0; i < 4; i++) {
			const struct stock_channel *channel = &stock->conns[c].channels[i];

			at = sooner(at, channel->in.ack_at);
			at = sooner(at, channel->reply_at);
			at = sooner(at, channel->out.resend_at);
			if (stock->slow && channel->busy &&
			    channel->in.consumed + 1 < channel->in.next)
				at = sooner(at, stock->node.world->now + READ_SLOW_NS);
		}
	world_set_timer(&stock->node, at);
}

static void resend(struct stock *stock, struct stock_conn *conn, unsigned i)
{
	struct stock_channel *channel = &conn->channels[i];
	struct stock_out *out = &channel->out;
	uint64_t now = stock->node.world->now;

	/* A server gives up some time after its client has gone. */
	if (!conn->is_client && now - channel->heard > DEAD_NS / 4) {
		all_acked(out);
		channel->busy = false;
		return;
	}
	if (now - channel->heard > DEAD_NS)
		world_fail(stock->node.world, "%s: nothing heard for call %u", stock->node.name,
			   channel->call);
	out->cwnd = 1;
	out->rto_ns *= 2;
	if (out->rto_ns > 4 * SECOND)
		out->rto_ns = 4 * SECOND;
	for (uint32_t seq = out->base; seq < out->next; seq++)
		if (!out->acked[seq % STOCK_WINDOW]) {
			send_data(stock, conn, i, seq, 1, true, false);
			break;
		}
	out->resend_at = now + out->rto_ns;
}

static void stock_timer(struct node *node)
{
	struct stock *stock = (struct stock *)node;
	uint64_t now = node->world->now;

	for (unsigned c = 0; c < stock->n_conns; c++)
		for (unsigned i = 0; i < 4; i++) {
			struct stock_conn *conn = &stock->conns[c];
			struct stock_channel *channel = &conn->channels[i];

			if (!channel->in.slots)
				continue;
			if (stock->slow)
				consume(stock, conn, i, 1 + rng_below(&node->world->rng, 4));
			if (channel->in.ack_at && channel->in.ack_at <= now)
				send_ack(stock, conn, i, APH_RX_ACK_DELAY, 0);
			if (channel->reply_at && channel->reply_at <= now) {
				channel->reply_at = 0;
				begin_body(stock, conn, i, channel->id + 1, channel->reply_len);
			}
			if (channel->out.resend_at && channel->out.resend_at <= now)
				resend(stock, conn, i);
		}
	stock_arm(stock);
}

static void take_abort(struct stock *stock, struct stock_conn *conn, const struct aph_rx_header *h,
		       const uint8_t *body)
{
	if (h->call_number == 0 || conn->channels[h->cid & 3].call == h->call_number)
		world_fail(stock->node.world, "%s: call %u is aborted with %d", stock->node.name,
			   h->call_number, (int32_t)aph_get32(body));
}

static void stock_deliver(struct node *node, struct packet **packets, size_t n)
{
	struct stock *stock = (struct stock *)node;

	for (size_t k = 0; k < n; k++) {
		const uint8_t *body = packets[k]->data + APH_RX_HEADER;
		size_t len = packets[k]->len - APH_RX_HEADER;
		struct aph_rx_header h;
		struct stock_conn *conn;

		CHECK(packets[k]->len >= APH_RX_HEADER);
		aph_rx_header_decode(&h, packets[k]->data);
		conn = find_conn(stock, packets[k], &h);
		if (!conn)
			continue;
		if (h.type == APH_RX_DATA)
			take_data(stock, conn, h.cid & 3, h, body, len);
		else if (h.type == APH_RX_ACK && conn->channels[h.cid & 3].in.slots)
			take_ack(stock, conn, h.cid & 3, &h, body, len);
		else if (h.type == APH_RX_ACKALL)
			all_acked(&conn->channels[h.cid & 3].out);
		else if (h.type == APH_RX_ABORT)
			take_abort(stock, conn, &h, body);
	}
	stock_arm(stock);
}

void stock_init(struct stock *stock, struct world *world, const char *name,
		const struct aph_rx_address *address, enum stock_style style)
{
	memset(stock, 0, sizeof(*stock));
	world_add(world, &stock->node, name);
	stock->node.address = *address;
	stock->node.deliver = stock_deliver;
	stock->node.timer = stock_timer;
	stock->style = style;
}

void stock_deinit(struct stock *stock)
{
	for (unsigned c = 0; c < STOCK_CONNS_MAX; c++)
		for (unsigned i = 0; i < 4; i++)
			free(stock->conns[c].channels[i].in.slots);
}

void stock_call(struct stock *stock, const struct aph_rx_address *peer, unsigned n_conns,
		unsigned n_calls)
{
	stock->is_client = true;
	stock->calls_left = n_calls;
	for (unsigned c = 0; c < n_conns; c++) {
		struct stock_conn *conn = &stock->conns[stock->n_conns++];

		conn->used = conn->is_client = true;
		conn->peer = *peer;
		conn->epoch = 0x80000000u | (uint32_t)rng_next(&stock->node.world->rng);
		conn->cid = (uint32_t)rng_next(&stock->node.world->rng) << 2;
		for (unsigned i = 0; i < 4; i++)
			begin_call(stock, conn, i);
	}
	stock_arm(stock);
}
