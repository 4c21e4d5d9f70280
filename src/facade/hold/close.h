/* SPDX-License-Identifier: MIT */
/* Closing what others gave us, without waiting. */
#ifndef ANTIPHON_HOLD_CLOSE_H
#define ANTIPHON_HOLD_CLOSE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Whether it is a socket whose close may wait, now or once somebody has set that; and the socket's
 * domain.
 */
bool hold_may_linger(int fd, int *domain);

/*
 * What aph_close_lingering() does, for those that are quick and cannot linger: with fewer system
 * calls.
 */
void hold_close_plain(const int *fds, uint32_t n);

#endif
