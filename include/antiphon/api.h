/* SPDX-License-Identifier: MIT */
/*
 * What every public header needs: the export mark, C++ linkage, and time.
 *
 * Time is CLOCK_MONOTONIC in nanoseconds. A deadline is an absolute point on that clock; 0 means
 * "now" (do not wait at all) and APH_FOREVER means "no deadline".
 */
#ifndef ANTIPHON_API_H
#define ANTIPHON_API_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define APH_API __attribute__((visibility("default")))

#ifdef __cplusplus
#define APH_BEGIN_DECLS extern "C" {
#define APH_END_DECLS	}
#else
#define APH_BEGIN_DECLS
#define APH_END_DECLS
#endif

#define APH_NOW	    UINT64_C(0)
#define APH_FOREVER UINT64_MAX

APH_BEGIN_DECLS

/* The time now, in nanoseconds of CLOCK_MONOTONIC. Any thread. */
APH_API uint64_t aph_time_ns(void);

/* The deadline that lies `ms` milliseconds ahead; saturates at APH_FOREVER. Any thread. */
APH_API uint64_t aph_deadline_ms(uint64_t ms);

APH_END_DECLS

#endif
