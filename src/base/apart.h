/* SPDX-License-Identifier: MIT */
/*
 * What is rare or long is kept out of functions that run with every call: they stay short, and save
 * few registers.
 */
#ifndef ANTIPHON_BASE_APART_H
#define ANTIPHON_BASE_APART_H

#define APH_APART __attribute__((noinline))

#endif
