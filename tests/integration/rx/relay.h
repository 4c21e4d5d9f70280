/* SPDX-License-Identifier: MIT */
/*
 * A wire between two network namespaces: a TUN device in each, and this process, which carries IP
 * packets from one to the other and loses, doubles and delays some of them.
 */
#ifndef TESTS_INTEGRATION_RX_RELAY_H
#define TESTS_INTEGRATION_RX_RELAY_H

#include "check.h"

#include <stddef.h>
#include <sys/types.h>

#define RELAY_CLIENT "10.77.0.1"
#define RELAY_SERVER "10.77.0.2"

struct relay_faults {
	unsigned loss, duplicates, delays; /* of 1000 packets */
	unsigned delay_max_us;
	int mtu;	   /* of both devices; 0: 1500 */
	size_t black_hole; /* larger IP packets that may not be fragmented vanish; 0: none do */
};

struct relay {
	struct relay_faults faults;
	struct rng rng;
	int ends[2]; /* TUN devices: the client's and the server's */
	unsigned n_carried, n_lost, n_delayed, n_swallowed;
};

/*
 * Moves the calling process to a namespace of its own with one end of the wire, whose address is
 * `address`. Returns the device, or a negative errno; `*why` says what is not permitted here.
 */
int relay_enter(const char *address, int mtu, const char **why);
/* Carries packets until the process `pid` ends. Its exit status. */
int relay_run(struct relay *relay, pid_t pid);

#endif
