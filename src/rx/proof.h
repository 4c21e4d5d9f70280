/* SPDX-License-Identifier: MIT */
/*
 * Questions to addresses that nothing is known of and nothing is kept for: a PING whose serial only
 * who gets it can know, and that is found again when it comes back.
 */
#ifndef ANTIPHON_RX_PROOF_H
#define ANTIPHON_RX_PROOF_H

#include "rx/engine.h"

/* SipHash-2-4: a code of `data` that nobody can make who does not know the key. */
uint64_t aph_rx_siphash(const uint64_t key[2], const void *data, size_t len);

/* The serial of a question about the call of `header`, to be asked now. */
uint32_t aph_rx_proof_serial(const struct aph_rx *rx, const struct aph_rx_path *path,
			     const struct aph_rx_header *header);
/* Whether `serial` is that of a question that was asked there lately. */
bool aph_rx_proof_holds(const struct aph_rx *rx, const struct aph_rx_path *path,
			const struct aph_rx_header *header, uint32_t serial);

#endif
