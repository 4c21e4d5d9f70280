/* SPDX-License-Identifier: MIT */
/*
 * Stands at a host's network card and checks what the wire may tell: that windows are kept, that
 * only what came is acknowledged, that serials are used once, that a reply begins after the
 * request's end, that ABORTs are not answered, and that every packet has the form that the
 * specification gives it.
 */
#ifndef TESTS_SIM_WATCH_H
#define TESTS_SIM_WATCH_H

#include "world.h"

struct watch_flow; /* one channel of a connection, as this host sees it */

struct watch {
	struct world *world;
	const struct node *node;
	uint32_t window_max; /* the most that this host may offer */
	struct watch_flow *flows;
	size_t n_flows, room_flows;
	/* By the node that said so, the largest window it offered to this host. */
	uint32_t window_seen[WORLD_NODES_MAX];
	/* The ABORT that was delivered, when nothing else was in the batch. */
	bool only_abort;
	unsigned n_in_batch;
	uint32_t abort_epoch, abort_cid, abort_serial;
	bool hostile; /* forged and damaged packets come in: what they say is not kept to */
	uint64_t n_data_sent, n_acks_sent, n_pings_sent, n_questions_sent, n_resent, n_aborts_sent,
		n_busy_sent;
};

void watch_init(struct watch *watch, struct world *world, const struct node *node,
		const struct aph_rx_config *config);
void watch_deinit(struct watch *watch);
void watch_sent(struct watch *watch, const struct aph_rx_address *to, const uint8_t *data,
		size_t len);
void watch_delivered(struct watch *watch, const struct packet *packet);
/* All that was delivered has been dealt with. */
void watch_settled(struct watch *watch);

#endif
