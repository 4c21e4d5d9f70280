/* SPDX-License-Identifier: MIT */
/*
 * rxnull: no challenge, bodies as they are. Every step is left out, so it costs nothing. The word
 * for a checksum is free: services tell in it which life of theirs answers.
 */
#include "rx/security/class.h"

const struct aph_rx_class aph_rx_null = {
	.index = 0,
	.name = "rxnull",
};
