/* SPDX-License-Identifier: MIT */
/* Closing descriptors that others gave us. */
#ifndef ANTIPHON_BASE_CLOSE_H
#define ANTIPHON_BASE_CLOSE_H

#include <stddef.h>

/*
 * Closes them without waiting for anybody: the last close(2) of a connection with SO_LINGER would wait until its
 * peer has taken what was sent, for as long as whoever gave it to us has set. That option is taken from it.
 */
void aph_close_received(const int *fds, size_t n);

#endif
