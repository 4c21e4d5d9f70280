/* SPDX-License-Identifier: MIT */
/* A datagram in one line, for traces and for what a failed expectation prints. */
#ifndef TESTS_SIM_DESCRIBE_H
#define TESTS_SIM_DESCRIBE_H

#include <stddef.h>
#include <stdint.h>

void describe_packet(char *out, size_t size, const uint8_t *data, size_t len);

#endif
