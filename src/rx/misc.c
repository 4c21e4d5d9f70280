/* SPDX-License-Identifier: MIT */
/* Packets outside connections: who asks what we are is told, within limits. */
#include "rx/engine.h"

#include <string.h>

#define VERSION_LEN 65

void aph_rx_input_version(struct aph_rx *rx, const struct aph_rx_path *path,
			  const struct aph_rx_header *header, const uint8_t *body, size_t len)
{
	struct aph_rx_header answer = *header;
	uint8_t text[VERSION_LEN] = { 0 };

	(void)body;
	(void)len;
	/* Without the flag it is an answer, or a keep-alive that wants none. */
	if (!(header->flags & APH_RX_CLIENT_INITIATED) || !aph_rx_limit_take(rx, path))
		return;
	memcpy(text, rx->config.version, strlen(rx->config.version));
	answer.flags = APH_RX_LAST_PACKET;
	answer.seq = answer.serial = 0;
	answer.user_status = answer.security = 0;
	answer.cksum = 0;
	aph_rx_raw_send(rx, path, &answer, text, sizeof(text));
}

void aph_rx_input_debug(struct aph_rx *rx, const struct aph_rx_path *path,
			const struct aph_rx_header *header, const uint8_t *body, size_t len)
{
	(void)path;
	(void)header;
	(void)body;
	(void)len;
	rx->stats.unknown++;
}
