/* SPDX-License-Identifier: MIT */
/* The driver under test, on an engine made for tests, and its peer: a plain socket on loopback. */
#ifndef TESTS_UNIT_UDP_DRIVER_H
#define TESTS_UNIT_UDP_DRIVER_H

#include "engine.h"
#include "suite.h"

#define PACKETS 45
#define PACKET	1440
#define RUN	(PACKETS * PACKET - 100)

extern struct aph_rx_udp *udp;
extern int peer; /* a plain socket */
extern struct aph_rx_path to_peer;
extern unsigned char run[PACKETS * PACKET]; /* no two packets of it are the same */

struct aph_rx_address v4(uint32_t host, uint16_t port);
/* A socket that is bound there, and where that is; -1 if it cannot be. */
int plain_socket(struct aph_rx_address *address);

/* The driver and its peer; NULL: with the defaults. */
void open_driver(struct aph_rx_udp_options *options);
void open_with(uint32_t flags);
void close_driver(void);

/* Where the driver is met on loopback. */
struct aph_rx_address driver_address(void);
/* A datagram to the driver, or a run of them. */
void send_from(int fd, const void *data, size_t len, uint16_t segment);

#endif
