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
	uint64_t channels, calls, calls_open, disposed, aborted, gone, violations;
	uint64_t sampled, sampled_ns;
	uint64_t latency[40];
};

void aph_stats_fill(struct aph_stats_message *message, const struct aph_service *service);

#endif
