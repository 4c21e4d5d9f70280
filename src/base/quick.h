/* SPDX-License-Identifier: MIT */
/*
 * Which descriptors are closed at once. Libraries that do not use libantiphon have this compiled
 * in.
 */
#ifndef ANTIPHON_BASE_QUICK_H
#define ANTIPHON_BASE_QUICK_H

#include <stdbool.h>

/*
 * Whether close(2) of it is known to wait for nobody and to take microseconds only. It is not asked
 * of whoever serves the file: that one might not answer. Keeps errno.
 */
bool aph_closes_quickly(int fd);

#endif
