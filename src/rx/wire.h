/* SPDX-License-Identifier: MIT */
/*
 * The packet codec: bytes to structures and back, nothing else. Section numbers are those of
 * docs/spec/rx.md. Decoders take any bytes at all and never read beyond `len`; what they refuse is
 * malformed.
 */
#ifndef ANTIPHON_RX_WIRE_H
#define ANTIPHON_RX_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define APH_RX_HEADER	     28
#define APH_RX_JUMBO_HEADER  4
#define APH_RX_JUMBO_PAYLOAD 1412 /* of every packet of a jumbogram but the last */

enum aph_rx_type {
	APH_RX_DATA = 1,
	APH_RX_ACK = 2,
	APH_RX_BUSY_PACKET = 3,
	APH_RX_ABORT = 4,
	APH_RX_ACKALL = 5,
	APH_RX_CHALLENGE = 6,
	APH_RX_RESPONSE = 7,
	APH_RX_DEBUG = 8,
	APH_RX_PARAMS = 9, /* this, 10 and 11 are ignored */
	APH_RX_VERSION = 13,
};

#define APH_RX_CLIENT_INITIATED 0x01
#define APH_RX_REQUEST_ACK	0x02
#define APH_RX_LAST_PACKET	0x04
#define APH_RX_MORE_PACKETS	0x08
#define APH_RX_JUMBO_PACKET	0x20 /* in DATA */
#define APH_RX_SLOW_START_OK	0x20 /* in ACK */

#define APH_RX_USER_STATUS_UPGRADE 1

struct aph_rx_header {
	uint32_t epoch;
	uint32_t cid; /* with the channel in its lowest two bits */
	uint32_t call_number;
	uint32_t seq;
	uint32_t serial;
	uint8_t type;
	uint8_t flags;
	uint8_t user_status;
	uint8_t security;
	uint16_t cksum;
	uint16_t service;
};

/* Whole words, as compilers do not always see that bytes put together are one. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define APH_RX_SWAP16(v) __builtin_bswap16(v)
#define APH_RX_SWAP32(v) __builtin_bswap32(v)
#else
#define APH_RX_SWAP16(v) (v)
#define APH_RX_SWAP32(v) (v)
#endif

static inline uint16_t aph_get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return APH_RX_SWAP16(v);
}

static inline uint32_t aph_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return APH_RX_SWAP32(v);
}

static inline void aph_put16(uint8_t *p, uint16_t v)
{
	v = APH_RX_SWAP16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void aph_put32(uint8_t *p, uint32_t v)
{
	v = APH_RX_SWAP32(v);
	memcpy(p, &v, sizeof(v));
}

/* Needs APH_RX_HEADER bytes at `p`. */
static inline void aph_rx_header_decode(struct aph_rx_header *out, const uint8_t *p)
{
	out->epoch = aph_get32(p);
	out->cid = aph_get32(p + 4);
	out->call_number = aph_get32(p + 8);
	out->seq = aph_get32(p + 12);
	out->serial = aph_get32(p + 16);
	out->type = p[20];
	out->flags = p[21];
	out->user_status = p[22];
	out->security = p[23];
	out->cksum = aph_get16(p + 24);
	out->service = aph_get16(p + 26);
}

static inline void aph_rx_header_encode(uint8_t *p, const struct aph_rx_header *h)
{
	aph_put32(p, h->epoch);
	aph_put32(p + 4, h->cid);
	aph_put32(p + 8, h->call_number);
	aph_put32(p + 12, h->seq);
	aph_put32(p + 16, h->serial);
	p[20] = h->type;
	p[21] = h->flags;
	p[22] = h->user_status;
	p[23] = h->security;
	aph_put16(p + 24, h->cksum);
	aph_put16(p + 26, h->service);
}

/* -- ACK --------------------------------------------------------------------------------------- */

enum aph_rx_ack_reason {
	APH_RX_ACK_REQUESTED = 1,
	APH_RX_ACK_DUPLICATE = 2,
	APH_RX_ACK_OUT_OF_SEQUENCE = 3,
	APH_RX_ACK_EXCEEDS_WINDOW = 4,
	APH_RX_ACK_NOSPACE = 5,
	APH_RX_ACK_PING = 6,
	APH_RX_ACK_PING_RESPONSE = 7,
	APH_RX_ACK_DELAY = 8,
	APH_RX_ACK_IDLE = 9,
};

#define APH_RX_ACK_FIXED   18 /* bytes before acks[] */
#define APH_RX_ACK_PADDING 3  /* between acks[] and the trailer */
#define APH_RX_ACK_TRAILER 16 /* four words */

/*
 * Ours, behind the trailer, where stock peers look at nothing: the extension for windows beyond 255
 * packets. A range is [start, end) of packets that have arrived above `first`, beyond what acks[]
 * can say.
 */
#define APH_RX_EXTENSION_MAGIC UINT32_C(0x41706831) /* "Aph1" */
#define APH_RX_ACK_RANGES_MAX  32

struct aph_rx_range {
	uint32_t start, end;
};

struct aph_rx_ack {
	uint32_t first;	   /* firstPacket: everything below is acknowledged for good */
	uint32_t previous; /* previousPacket */
	uint32_t serial;
	uint8_t reason;
	uint8_t n_acks;
	const uint8_t *acks; /* n_acks bytes, bit 0 of each counts; points into the packet */
	uint8_t n_words;     /* of the trailer that were there, 0 to 4 */
	uint32_t max_mtu;    /* words 0 to 3 */
	uint32_t if_mtu;
	uint32_t rwind;
	uint32_t max_jumbo;
	bool extended;	 /* the extension was there */
	uint32_t window; /* of the extension: as rwind, in 32 bits */
	uint32_t n_ranges;
	struct aph_rx_range ranges[APH_RX_ACK_RANGES_MAX];
};

/*
 * Decodes the body of an ACK. False when it is malformed: too short for its own counts, or first is
 * 0. Bytes behind what is known are ignored.
 */
bool aph_rx_ack_decode(struct aph_rx_ack *out, const uint8_t *body, size_t len);
/*
 * Writes the body of an ACK with all four words (and the extension if `extended`). Returns its
 * length.
 */
size_t aph_rx_ack_encode(uint8_t *body, const struct aph_rx_ack *ack);
/* The least that aph_rx_ack_encode() writes with the extension, and the most. */
#define APH_RX_ACK_BODY_MIN (APH_RX_ACK_FIXED + APH_RX_ACK_PADDING + APH_RX_ACK_TRAILER + 12)
#define APH_RX_ACK_BODY_MAX                                                      \
	(APH_RX_ACK_FIXED + 255 + APH_RX_ACK_PADDING + APH_RX_ACK_TRAILER + 12 + \
	 8 * APH_RX_ACK_RANGES_MAX)

/* -- DATA and jumbograms ----------------------------------------------------------------------- */

/*
 * Takes the first DATA packet off a datagram: `header` is its header (decoded by the caller for the
 * first), `*data` and `*len` what is left behind it. Sets `*payload_len`, moves `*data` behind the
 * payload and, if another packet follows, changes `header` to be that packet's. Returns 1 if
 * another follows, 0 if not, -1 when malformed.
 */
int aph_rx_jumbo_next(struct aph_rx_header *header, const uint8_t **data, size_t *len,
		      const uint8_t **payload, size_t *payload_len);

/* -- names ------------------------------------------------------------------------------------- */

/* "DATA", "ACK", ...; "type 12" is "unknown". Static. */
const char *aph_rx_type_name(uint8_t type);
const char *aph_rx_ack_reason_name(uint8_t reason);

#endif
