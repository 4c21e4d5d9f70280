/* SPDX-License-Identifier: MIT */
/* Closing descriptors that others gave us. */
#ifndef ANTIPHON_BASE_CLOSE_H
#define ANTIPHON_BASE_CLOSE_H

#include <stddef.h>

/*
 * Closes them without waiting for the peer of a connection: the last close(2) of one with SO_LINGER
 * would wait until that has taken what was sent, for as long as whoever gave it to us has set. That
 * option is taken from it. How long a file system takes to close a file is not in our hands: see
 * SECURITY.md.
 */
void aph_close_received(const int *fds, size_t n);

#endif
