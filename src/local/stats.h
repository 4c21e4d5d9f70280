/* SPDX-License-Identifier: MIT */
/* How a service does, as it is told to those who ask (APH_HELLO_STATS). */
#ifndef ANTIPHON_LOCAL_STATS_H
#define ANTIPHON_LOCAL_STATS_H

#include "core/transport.h"

struct aph_stats_message {
	uint32_t magic;
	uint16_t version;
	uint16_t status;
	int32_t pid;
	uint32_t reserved;
	struct aph_service_stats stats;
};

void aph_stats_fill(struct aph_stats_message *message, const struct aph_service *service);

#endif
