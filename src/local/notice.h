/* SPDX-License-Identifier: MIT */
/* How services of other transports are shown in the runtime directory. */
#ifndef ANTIPHON_LOCAL_NOTICE_H
#define ANTIPHON_LOCAL_NOTICE_H

#include "local/rendezvous.h"
#include "local/stats.h"

/* Reads one. False when the process that wrote it is gone, or when it is no notice. */
bool aph_notice_read(struct aph_stats_message *out, const struct aph_rendezvous_entry *entry);

#endif
