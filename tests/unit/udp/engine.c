/* SPDX-License-Identifier: MIT */
/* The functions of the engine that the driver calls. */
#include "engine.h"

#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct aph_rx {
	struct engine e;
	struct iovec iov[ENGINE_MAX][2];
	struct aph_rx_path paths[ENGINE_MAX];
	struct aph_rx_buffer *kept[ENGINE_MAX];
	unsigned n_kept;
};

struct aph_rx_buffer {
	unsigned n_refs;
	char bytes[APH_RX_BUFFER_SIZE];
};

struct engine *engine;
uint32_t engine_epoch = UINT32_C(0x80000001);
bool engine_epoch_again;

int aph_rx_new(struct aph_rx **out, const struct aph_rx_config *config, uint64_t now_ns)
{
	struct aph_rx *rx = malloc(sizeof(*rx));

	(void)now_ns;
	if (!rx)
		return -ENOMEM;
	memset(rx, 0, sizeof(*rx));
	rx->e.config = *config;
	rx->e.epoch = engine_epoch_again ? engine_epoch - 1 : engine_epoch++;
	engine_epoch_again = false;
	rx->e.deadline_ns = APH_RX_NO_DEADLINE;
	rx->e.budget = config->receive_budget;
	engine = &rx->e;
	*out = rx;
	return 0;
}

static void forget(struct engine *e)
{
	for (unsigned i = 0; i < e->n_received; i++)
		free(e->received[i]);
	e->n_received = 0;
	e->n_errors = 0;
	e->n_to_send = e->n_sent = 0;
}

struct aph_rx *aph_rx_free(struct aph_rx *rx)
{
	if (!rx)
		return NULL;
	for (unsigned i = 0; i < rx->n_kept; i++)
		aph_rx_buffer_put(rx, rx->kept[i]);
	forget(&rx->e);
	CHECK(rx->e.n_buffers == 0);
	if (engine == &rx->e)
		engine = NULL;
	free(rx);
	return NULL;
}

void engine_put(const struct aph_rx_path *path, void *data, size_t len, size_t segment,
		size_t split)
{
	struct aph_rx *rx = (struct aph_rx *)(void *)engine;
	unsigned i = engine->n_to_send++;

	CHECK(i < ENGINE_MAX);
	rx->paths[i] = *path;
	rx->iov[i][0] = (struct iovec){ data, split ? split : len };
	rx->iov[i][1] = (struct iovec){ (char *)data + split, len - split };
	engine->to_send[i] = (struct aph_rx_message){
		.path = &rx->paths[i],
		.iov = rx->iov[i],
		.n_iov = split ? 2 : 1,
		.len = len,
		.segment = segment,
	};
}

unsigned engine_wait_for_bytes(struct aph_rx_udp *udp, size_t len)
{
	size_t sum = 0;

	while (sum < len) {
		sum = 0;
		engine->n_events = 0;
		CHECK(aph_rx_udp_wait(udp, aph_deadline_ms((uint64_t)check_ms(2000))) == 0);
		for (unsigned k = 0; k < engine->n_received; k++)
			sum += engine->received[k]->len;
	}
	CHECK(sum == len);
	return engine->n_received;
}

void engine_forget(void)
{
	forget(engine);
}

uint32_t aph_rx_epoch(const struct aph_rx *rx)
{
	return rx->e.epoch;
}

void aph_rx_set_receive_budget(struct aph_rx *rx, uint32_t packets)
{
	rx->e.budget = packets;
}

struct aph_rx_buffer *aph_rx_buffer_take(struct aph_rx *rx)
{
	struct aph_rx_buffer *buffer = rx->e.no_memory ? NULL : malloc(sizeof(*buffer));

	if (!buffer)
		return NULL;
	buffer->n_refs = 1;
	rx->e.n_buffers++;
	return buffer;
}

void aph_rx_buffer_put(struct aph_rx *rx, struct aph_rx_buffer *buffer)
{
	CHECK(buffer->n_refs > 0);
	if (--buffer->n_refs)
		return;
	rx->e.n_buffers--;
	free(buffer);
}

void *aph_rx_buffer_bytes(struct aph_rx_buffer *buffer)
{
	return buffer->bytes;
}

bool aph_rx_buffer_is_shared(const struct aph_rx_buffer *buffer)
{
	return buffer->n_refs > 1;
}

void aph_rx_receive(struct aph_rx *rx, const struct aph_rx_path *path, const void *data, size_t len,
		    size_t segment, struct aph_rx_buffer *buffer, uint64_t now_ns)
{
	struct engine_received *got = malloc(sizeof(*got));

	(void)now_ns;
	CHECK(rx->e.n_received < ENGINE_MAX && len <= APH_RX_BUFFER_SIZE);
	if (!got)
		return;
	if (buffer)
		CHECK((const char *)data >= buffer->bytes &&
		      (const char *)data + len <= buffer->bytes + APH_RX_BUFFER_SIZE);
	got->path = *path;
	got->len = len;
	got->segment = segment;
	got->had_buffer = buffer != NULL;
	memcpy(got->bytes, data, len);
	rx->e.received[rx->e.n_received++] = got;
	if (rx->e.receiving_is_event)
		rx->e.n_events++;
	if (rx->e.on_receive)
		rx->e.on_receive();
	if (rx->e.keep_buffers && buffer && rx->n_kept < ENGINE_MAX) {
		buffer->n_refs++;
		rx->kept[rx->n_kept++] = buffer;
	}
}

void aph_rx_receive_error(struct aph_rx *rx, const struct aph_rx_path *path, int error,
			  uint32_t mtu, const void *quote, size_t quote_len, bool local,
			  uint64_t now_ns)
{
	struct engine_error *e = &rx->e.errors[rx->e.n_errors];

	(void)now_ns;
	CHECK(rx->e.n_errors < ENGINE_MAX);
	rx->e.n_errors++;
	e->path = *path;
	e->error = error;
	e->mtu = mtu;
	e->local = local;
	e->quote_len = quote_len < sizeof(e->quote) ? quote_len : sizeof(e->quote);
	if (quote)
		memcpy(e->quote, quote, e->quote_len);
	if (rx->e.receiving_is_event)
		rx->e.n_events++;
}

size_t aph_rx_send(struct aph_rx *rx, struct aph_rx_message *out, size_t max, uint64_t now_ns)
{
	size_t n = 0;

	(void)now_ns;
	while (n < max && rx->e.n_sent < rx->e.n_to_send)
		out[n++] = rx->e.to_send[rx->e.n_sent++];
	return n;
}

uint64_t aph_rx_deadline(const struct aph_rx *rx)
{
	return rx->e.n_sent < rx->e.n_to_send ? 0 : rx->e.deadline_ns;
}

void aph_rx_tick(struct aph_rx *rx, uint64_t now_ns)
{
	(void)now_ns;
	rx->e.deadline_ns = APH_RX_NO_DEADLINE;
	rx->e.n_ticks++;
}

bool aph_rx_has_event(const struct aph_rx *rx)
{
	return rx->e.n_events > 0;
}
