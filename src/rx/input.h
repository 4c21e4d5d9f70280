/* SPDX-License-Identifier: MIT */
/* Between the files that take packets in: one packet, and what can be done with it. */
#ifndef ANTIPHON_RX_INPUT_H
#define ANTIPHON_RX_INPUT_H

#include "rx/engine.h"

/* One packet and where it came from. */
struct aph_rx_input {
	struct aph_rx *rx;
	const struct aph_rx_path *path;
	struct aph_rx_peer *peer;     /* of those who call us; NULL: nobody we know */
	bool peer_known;	      /* it was looked for */
	struct aph_rx_buffer *buffer; /* NULL: copy what is kept */
	const uint8_t *packet;
	size_t len;
	struct aph_rx_header header;
	struct aph_rx_call *call; /* that the packet before was DATA of, and that goes on; NULL */
};

/* -- input.c */
/* It is not used, and counted nowhere; or as something. */
void aph_rx_input_ignore(const struct aph_rx_input *input, const char *why);
void aph_rx_input_drop(const struct aph_rx_input *input, uint64_t *counter, const char *why);
/* An answer that belongs to no call of ours; within limits. */
void aph_rx_input_answer(const struct aph_rx_input *input, uint8_t type, uint32_t call_number,
			 const uint8_t *body, size_t len);
/* An ABORT. */
void aph_rx_input_reject(const struct aph_rx_input *input, uint32_t call_number, int32_t code,
			 const char *why);
/* It is of that call. */
void aph_rx_input_call(struct aph_rx_input *input, struct aph_rx_call *call);

/* -- admit.c */
/* DATA of a call that is not known; `conn` is NULL if neither is its connection. */
void aph_rx_admit(struct aph_rx_input *input, struct aph_rx_conn *conn);
/* Whether the packet answers a question of ours about its address, which is proven then. */
bool aph_rx_take_proof(struct aph_rx_input *input);

#endif
