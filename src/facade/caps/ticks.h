/* SPDX-License-Identifier: MIT */
/*
 * A clock that is only good to tell "a moment ago" from longer: a look at it must cost next to
 * nothing. The processor's counter where there is one (1 to 4 ticks a nanosecond), else
 * nanoseconds.
 */
#ifndef FACADE_CAPS_TICKS_H
#define FACADE_CAPS_TICKS_H

#include "port.h"

/* A moment: 16 microseconds, or 4 and more where ticks are finer. */
#define APH_CAPS_MOMENT_TICKS UINT64_C(16384)

static inline uint64_t aph_caps_ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return aph_time_ns();
#endif
}

/*
 * Whether what has arrived was looked at a moment ago: since the last time this was asked, itself a
 * moment ago, the program has received; or it looked when this was last denied. It reads the clock
 * once, and receiving does not have to.
 */
static inline bool aph_caps_looked(struct aph_caps_port *port)
{
	uint64_t now = aph_caps_ticks();

	if (port->received)
		port->looked_ticks = port->asked_ticks;
	port->received = false;
	port->asked_ticks = now;
	if (now - port->looked_ticks < APH_CAPS_MOMENT_TICKS)
		return true;
	port->looked_ticks = now;
	return false;
}

#endif
