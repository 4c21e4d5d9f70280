/* SPDX-License-Identifier: MIT */
/*
 * An engine for tests of the driver: it sends what a test has put into it and remembers what the
 * driver gave it. Linked in place of src/rx.
 */
#ifndef TESTS_UNIT_UDP_ENGINE_H
#define TESTS_UNIT_UDP_ENGINE_H

#include <antiphon/rx.h>

#define ENGINE_MAX 512

/* One aph_rx_receive(). */
struct engine_received {
	struct aph_rx_path path;
	size_t len, segment;
	bool had_buffer;
	unsigned char bytes[APH_RX_BUFFER_SIZE];
};

/* One aph_rx_receive_error(). */
struct engine_error {
	struct aph_rx_path path;
	int error;
	uint32_t mtu;
	size_t quote_len;
	unsigned char quote[64];
	bool local;
};

struct engine {
	struct aph_rx_message to_send[ENGINE_MAX];
	unsigned n_to_send, n_sent;
	struct engine_received *received[ENGINE_MAX];
	unsigned n_received;
	struct engine_error errors[ENGINE_MAX];
	unsigned n_errors;
	unsigned n_events;	  /* what aph_rx_has_event() says */
	bool receiving_is_event;  /* each aph_rx_receive() makes one */
	void (*on_receive)(void); /* what happens meanwhile; or NULL */
	bool keep_buffers;	  /* as if calls read from each buffer */
	bool no_memory;		  /* no buffer can be had */
	uint32_t budget;	  /* what was said last */
	uint64_t deadline_ns;
	unsigned n_ticks;
	uint32_t epoch;
	long n_buffers; /* taken and not put */
	struct aph_rx_config config;
};

/* The engine of the driver that was opened last. */
extern struct engine *engine;
/* Epochs of the next engines; counted up, but for the one that comes again. */
extern uint32_t engine_epoch;
extern bool engine_epoch_again;

/* Something to send: one iovec, or two when `split` is not 0. */
void engine_put(const struct aph_rx_path *path, void *data, size_t len, size_t segment,
		size_t split);
/* Waits until `len` bytes in all were received; returns in how many pieces they came. */
unsigned engine_wait_for_bytes(struct aph_rx_udp *udp, size_t len);
/* Forgets what was received and reported. */
void engine_forget(void);

#endif
