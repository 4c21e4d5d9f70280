/* SPDX-License-Identifier: MIT */
/* Packets outside connections: who asks what we are is told, within limits. */
#include "rx/debug.h"
#include "rx/engine.h"

void aph_rx_input_version(struct aph_rx *rx, const struct aph_rx_path *path,
			  const struct aph_rx_header *header)
{
	struct aph_rx_header answer = *header;
	uint8_t text[APH_RX_VERSION_BODY];

	/* Without the flag it is an answer, or a keep-alive that wants none. */
	if (!(header->flags & APH_RX_CLIENT_INITIATED) || !aph_rx_limit_take(rx, path))
		return;
	answer.flags = APH_RX_LAST_PACKET;
	answer.seq = answer.serial = 0;
	answer.user_status = answer.security = 0;
	answer.cksum = 0;
	aph_rx_raw_send(rx, path, &answer, text, aph_rx_version_encode(text, rx->config.version));
}
