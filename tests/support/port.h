/* SPDX-License-Identifier: MIT */
/*
 * UDP: ports for tests whose servers cannot be given any, and asked which one it is; runs of
 * datagrams.
 */
#ifndef TESTS_SUPPORT_PORT_H
#define TESTS_SUPPORT_PORT_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A port that nobody has on the loopback of this family. It is not one of those that the kernel
 * gives to sockets which want any, so that nobody gets it by chance before it is bound; nor does
 * another test that runs beside this one. It may come again, 256 ports later.
 */
uint16_t port_free(int family);

/*
 * Sends one datagram, or with a `segment` a run of datagrams of that size, the last of which may be
 * shorter.
 */
void port_send_run(int fd, const struct sockaddr_in *to, const void *data, size_t len,
		   uint16_t segment);

#endif
