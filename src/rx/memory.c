/* SPDX-License-Identifier: MIT */
/*
 * Memory of the hot path: receive buffers, cells for single packets, chunks of packets to be sent,
 * and calls are kept for the next one when they become free, so that a call in steady state
 * allocates nothing.
 */
#include "rx/engine.h"

#include <string.h>

/* The address sanitizer sees uses after free only of what is really freed. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FREE_ALL
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FREE_ALL
#endif

#ifdef FREE_ALL
#define KEEP_BUFFERS 0
#define KEEP_CELLS   0
#define KEEP_CHUNKS  0
#define KEEP_CALLS   0
#else
#define KEEP_BUFFERS 16
#define KEEP_CELLS   1024
#define KEEP_CHUNKS  256
#define KEEP_CALLS   256
#endif

void *aph_rx_alloc(struct aph_rx *rx, size_t size)
{
	void *memory = rx->config.alloc(rx->config.alloc_arg, size);

	if (memory)
		rx->stats.memory += size;
	else
		rx->stats.no_memory++;
	return memory;
}

void *aph_rx_zalloc(struct aph_rx *rx, size_t size)
{
	void *memory = aph_rx_alloc(rx, size);

	if (memory)
		memset(memory, 0, size);
	return memory;
}

void aph_rx_release(struct aph_rx *rx, void *memory, size_t size)
{
	if (!memory)
		return;
	rx->stats.memory -= size;
	rx->config.free(rx->config.alloc_arg, memory, size);
}

/* -- buffers and cells ------------------------------------------------------------------------- */

static struct aph_rx_buffer *buffer_new(struct aph_rx *rx, struct aph_rx_buffer **free_list,
					uint32_t *n_free, uint32_t size)
{
	struct aph_rx_buffer *buffer = *free_list;

	if (buffer) {
		*free_list = buffer->next;
		(*n_free)--;
	} else {
		buffer = aph_rx_alloc(rx, sizeof(*buffer) + size);
		if (!buffer)
			return NULL;
		buffer->size = size;
	}
	buffer->refs = 1;
	buffer->payer = NULL;
	buffer->n_held = 0;
	buffer->next = NULL;
	return buffer;
}

struct aph_rx_buffer *aph_rx_buffer_take(struct aph_rx *rx)
{
	return buffer_new(rx, &rx->free_buffers, &rx->n_free_buffers, APH_RX_BUFFER_SIZE);
}

struct aph_rx_buffer *aph_rx_cell_new(struct aph_rx *rx, size_t len)
{
	if (len <= APH_RX_SMALL_CELL)
		return buffer_new(rx, &rx->free_small_cells, &rx->n_free_small_cells,
				  APH_RX_SMALL_CELL);
	if (len <= APH_RX_CELL)
		return buffer_new(rx, &rx->free_cells, &rx->n_free_cells, APH_RX_CELL);
	return aph_rx_buffer_take(rx);
}

size_t aph_rx_cell_size(size_t len)
{
	if (len <= APH_RX_SMALL_CELL)
		return APH_RX_SMALL_CELL;
	return len <= APH_RX_CELL ? APH_RX_CELL : APH_RX_BUFFER_SIZE;
}

static bool keep(struct aph_rx_buffer **free_list, uint32_t *n_free, uint32_t max,
		 struct aph_rx_buffer *buffer)
{
	if (*n_free >= max)
		return false;
	buffer->next = *free_list;
	*free_list = buffer;
	(*n_free)++;
	return true;
}

void aph_rx_buffer_unref(struct aph_rx *rx, struct aph_rx_buffer *buffer)
{
	bool kept;

	if (--buffer->refs)
		return;
	if (buffer->size == APH_RX_SMALL_CELL)
		kept = keep(&rx->free_small_cells, &rx->n_free_small_cells, KEEP_CELLS, buffer);
	else if (buffer->size == APH_RX_CELL)
		kept = keep(&rx->free_cells, &rx->n_free_cells, KEEP_CELLS, buffer);
	else
		kept = keep(&rx->free_buffers, &rx->n_free_buffers, KEEP_BUFFERS, buffer);
	if (!kept)
		aph_rx_release(rx, buffer, sizeof(*buffer) + buffer->size);
}

void aph_rx_buffer_put(struct aph_rx *rx, struct aph_rx_buffer *buffer)
{
	if (buffer)
		aph_rx_buffer_unref(rx, buffer);
}

void *aph_rx_buffer_bytes(struct aph_rx_buffer *buffer)
{
	return buffer->bytes;
}

bool aph_rx_buffer_is_shared(const struct aph_rx_buffer *buffer)
{
	return buffer->refs > 1;
}

/* -- chunks and calls -------------------------------------------------------------------------- */

struct aph_rx_chunk *aph_rx_chunk_new(struct aph_rx *rx)
{
	struct aph_rx_chunk *chunk = rx->free_chunks;

	if (chunk) {
		rx->free_chunks = chunk->next;
		rx->n_free_chunks--;
	} else {
		chunk = aph_rx_alloc(rx, sizeof(*chunk));
		if (!chunk)
			return NULL;
	}
	chunk->lost = chunk->sacked = 0;
	return chunk;
}

void aph_rx_chunk_free(struct aph_rx *rx, struct aph_rx_chunk *chunk)
{
	if (!chunk)
		return;
	if (rx->n_free_chunks >= KEEP_CHUNKS) {
		aph_rx_release(rx, chunk, sizeof(*chunk));
		return;
	}
	chunk->next = rx->free_chunks;
	rx->free_chunks = chunk;
	rx->n_free_chunks++;
}

/* The big arrays of a call need not be cleared: what is in them is written before it is read. */
struct aph_rx_call *aph_rx_call_alloc(struct aph_rx *rx)
{
	struct aph_rx_call *call;

	if (!aph_list_empty(&rx->free_calls)) {
		call = aph_container(rx->free_calls.next, struct aph_rx_call, link);
		aph_list_remove(&call->link);
		rx->n_free_calls--;
	} else {
		call = aph_rx_alloc(rx, sizeof(*call));
		if (!call)
			return NULL;
		aph_rx_timer_init(&call->timer);
	}
	aph_rx_clear(&call->rx,
		     offsetof(struct aph_rx_call, out.congest) - offsetof(struct aph_rx_call, rx));
	call->rx = rx;
	aph_list_init(&call->link);
	aph_list_init(&call->wait_link);
	aph_list_init(&call->send_link);
	aph_list_init(&call->event_link);
	aph_list_init(&call->fresh_link);
	rx->stats.n_calls++;
	return call;
}

void aph_rx_call_release_memory(struct aph_rx_call *call)
{
	struct aph_rx *rx = call->rx;

	rx->stats.n_calls--;
	if (rx->n_free_calls >= KEEP_CALLS) {
		aph_rx_timer_set(&rx->timers, &call->timer, UINT64_MAX);
		aph_rx_release(rx, call, sizeof(*call));
		return;
	}
	/* The one used last is taken first: it is in the cache. */
	aph_list_append(rx->free_calls.next, &call->link);
	rx->n_free_calls++;
}

static void free_list(struct aph_rx *rx, struct aph_rx_buffer *buffer)
{
	while (buffer) {
		struct aph_rx_buffer *next = buffer->next;

		aph_rx_release(rx, buffer, sizeof(*buffer) + buffer->size);
		buffer = next;
	}
}

void aph_rx_memory_deinit(struct aph_rx *rx)
{
	struct aph_rx_chunk *chunk = rx->free_chunks;
	struct aph_list *pos, *tmp;

	free_list(rx, rx->free_buffers);
	free_list(rx, rx->free_cells);
	free_list(rx, rx->free_small_cells);
	while (chunk) {
		struct aph_rx_chunk *next = chunk->next;

		aph_rx_release(rx, chunk, sizeof(*chunk));
		chunk = next;
	}
	aph_list_for_each(pos, tmp, &rx->free_calls)
		aph_rx_release(rx, aph_container(pos, struct aph_rx_call, link),
			       sizeof(struct aph_rx_call));
}
