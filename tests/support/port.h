/* SPDX-License-Identifier: MIT */
/* UDP ports for tests whose servers cannot be given any, and asked which one it is. */
#ifndef TESTS_SUPPORT_PORT_H
#define TESTS_SUPPORT_PORT_H

#include <stdint.h>

/*
 * A port that nobody has on the loopback of this family. It is not one of those that the kernel gives to sockets which
 * want any, so that nobody gets it by chance before it is bound.
 */
uint16_t port_free(int family);

#endif
