/* SPDX-License-Identifier: MIT */
/*
 * For tests: what arrives is kept for a while before it is looked at, as if the way were longer. In
 * order, as all wait for the same time; and bounded, as a socket's buffer is.
 */
#include "rx/engine.h"

#include <string.h>

#define DELAYED_MAX (4u << 20) /* bytes, headers of ours included */

struct aph_rx_delayed {
	struct aph_rx_delayed *next;
	struct aph_rx_path path;
	uint64_t due_ns;
	size_t len, segment;
	uint8_t bytes[];
};

static size_t size_of(size_t len)
{
	return sizeof(struct aph_rx_delayed) + len;
}

uint64_t aph_rx_delay_next(const struct aph_rx_delay *delay)
{
	return delay->first ? delay->first->due_ns : UINT64_MAX;
}

static void trace_dropped(struct aph_rx *rx, const struct aph_rx_path *path, const uint8_t *data,
			  size_t len, size_t segment)
{
	size_t part;

	for (; len; data += part, len -= part) {
		part = segment && segment < len ? segment : len;
		aph_rx_trace_packet(rx, APH_RX_TRACE_DROPPED, path, data, part,
				    "too much is delayed");
	}
}

void aph_rx_delay_put(struct aph_rx *rx, const struct aph_rx_path *path, const void *data,
		      size_t len, size_t segment)
{
	struct aph_rx_delay *delay = &rx->delay;
	size_t size = size_of(len);
	struct aph_rx_delayed *item = NULL;

	if (size <= DELAYED_MAX - delay->held)
		item = aph_rx_alloc(rx, size);
	if (!item) {
		trace_dropped(rx, path, data, len, segment);
		return;
	}
	*item = (struct aph_rx_delayed){
		.path = *path,
		.due_ns = rx->now_ns + rx->config.receive_delay_ms * APH_RX_MS,
		.len = len,
		.segment = segment,
	};
	if (len)
		memcpy(item->bytes, data, len);
	if (!delay->first)
		delay->last = &delay->first;
	*delay->last = item;
	delay->last = &item->next;
	delay->held += size;
}

static struct aph_rx_delayed *take(struct aph_rx_delay *delay)
{
	struct aph_rx_delayed *item = delay->first;

	delay->first = item->next;
	delay->held -= size_of(item->len);
	return item;
}

void aph_rx_delay_expire(struct aph_rx *rx)
{
	while (aph_rx_delay_next(&rx->delay) <= rx->now_ns) {
		struct aph_rx_delayed *item = take(&rx->delay);

		aph_rx_input(rx, &item->path, item->bytes, item->len, item->segment, NULL);
		aph_rx_release(rx, item, size_of(item->len));
	}
}

void aph_rx_delay_deinit(struct aph_rx *rx)
{
	while (rx->delay.first) {
		struct aph_rx_delayed *item = take(&rx->delay);

		aph_rx_release(rx, item, size_of(item->len));
	}
}
