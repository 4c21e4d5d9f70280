/* SPDX-License-Identifier: MIT */
/*
 * What a security class fills in. A connection carries one class and its state; packets pass
 * through it when they are sent for the first time and when they are taken in. All of it is pure
 * computation: no I/O, no clock.
 */
#ifndef ANTIPHON_RX_SECURITY_CLASS_H
#define ANTIPHON_RX_SECURITY_CLASS_H

#include "rx/wire.h"

struct aph_rx_client;
struct aph_rx_conn;

/* What a packet of a connection has besides the user's bytes. */
struct aph_rx_layout {
	uint16_t header;  /* bytes before them */
	uint16_t trailer; /* bytes behind them */
	uint16_t block;	  /* all of it is padded to a multiple of this; 0: not at all */
};

/* The length of all behind the packet's header when the user has `len` bytes in it. */
static inline size_t aph_rx_layout_size(const struct aph_rx_layout *layout, size_t len)
{
	size_t size = layout->header + len + layout->trailer;

	return layout->block ? (size + layout->block - 1) / layout->block * layout->block : size;
}

/* The most bytes of the user that fit into `size` behind the packet's header. */
static inline uint16_t aph_rx_layout_room(const struct aph_rx_layout *layout, uint16_t size)
{
	if (layout->block)
		size = (uint16_t)(size - size % layout->block);
	return (uint16_t)(size - layout->header - layout->trailer);
}

struct aph_rx_class {
	uint8_t index; /* securityIndex of every packet */
	const char *name;
	/* Sets up conn->class_state for a new connection. 0 or -errno. */
	int (*init)(struct aph_rx_conn *conn);
	void (*deinit)(struct aph_rx_conn *conn);
	/*
	 * At a client `conn` is NULL: bodies are begun before there is a connection for them. At a
	 * service `client` is.
	 */
	struct aph_rx_layout (*layout)(const struct aph_rx_client *client,
				       const struct aph_rx_conn *conn);
	/*
	 * Protects a packet that is about to be sent for the first time: the user's `*len` bytes
	 * lie at packet + APH_RX_HEADER + layout.header; `*len` becomes all behind the header.
	 * header->cksum is to be set, the ids in it are those of the packet. Cannot fail: what it
	 * needs was made by init().
	 */
	void (*secure)(struct aph_rx_conn *conn, struct aph_rx_header *header, uint8_t *packet,
		       size_t *len);
	/*
	 * Verifies a DATA packet and finds the user's bytes in it; may work in place. 0, or the
	 * abort code that ends the call.
	 */
	int32_t (*verify)(struct aph_rx_conn *conn, const struct aph_rx_header *header,
			  uint8_t *payload, size_t len, size_t *start, size_t *user_len);
	/* Server: whether calls may be delivered; if not, a CHALLENGE is due. */
	bool (*is_proven)(const struct aph_rx_conn *conn);
	/* Server: writes the body of a CHALLENGE; returns its length. */
	size_t (*challenge)(struct aph_rx_conn *conn, uint8_t *body, size_t max);
	/*
	 * Client: answers a CHALLENGE: writes the body of a RESPONSE, `*len` of it, which is the
	 * room at first, and sets header->cksum. 0, or an abort code.
	 */
	int32_t (*respond)(struct aph_rx_conn *conn, const uint8_t *challenge, size_t challenge_len,
			   struct aph_rx_header *header, uint8_t *body, size_t *len);
	/* Server: takes a RESPONSE. 0, or an abort code that ends the connection. */
	int32_t (*accept)(struct aph_rx_conn *conn, const struct aph_rx_header *header,
			  const uint8_t *response, size_t len);
};

/*
 * Class 0, rxnull: proves nothing and protects nothing. Its functions are NULL where nothing is to
 * be done.
 */
extern const struct aph_rx_class aph_rx_null;

#endif
