/* SPDX-License-Identifier: MIT */
/* Bytes that say where they belong: byte `at` of the stream with this seed. */
#ifndef TESTS_SUPPORT_PATTERN_H
#define TESTS_SUPPORT_PATTERN_H

#include <stddef.h>
#include <stdint.h>

void pattern_fill(void *buf, size_t len, uint64_t at, uint32_t seed);

/* The index of the first wrong byte, or `len` when all are right. */
size_t pattern_check(const void *buf, size_t len, uint64_t at, uint32_t seed);

/* A running checksum of a stream; begin with 0. */
uint64_t pattern_sum(uint64_t sum, const void *buf, size_t len);

#endif
