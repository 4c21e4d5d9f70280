/* SPDX-License-Identifier: MIT */
/* The one clock of the library. */
#include "base/time.h"

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

uint64_t aph_time_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t aph_deadline_ms(uint64_t ms)
{
	uint64_t now = aph_time_ns();

	if (ms > (APH_FOREVER - now) / NS_PER_MS)
		return APH_FOREVER;
	return now + ms * NS_PER_MS;
}
