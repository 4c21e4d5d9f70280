/* SPDX-License-Identifier: MIT */
/* Clearing some hundred bytes, which each call does a few times. */
#ifndef ANTIPHON_RX_CLEAR_H
#define ANTIPHON_RX_CLEAR_H

#include <stddef.h>
#include <string.h>

/*
 * The C library's memset(): where gcc knows the size it puts "rep stos" in its place, and that
 * takes longer than all else that beginning a call takes.
 */
static inline void aph_rx_clear(void *memory, size_t size)
{
	__asm__("" : "+r"(size));
	memset(memory, 0, size);
}

#endif
