/* SPDX-License-Identifier: MIT */
/* Which futex(2) takes the struct timespec of this build. */
#ifndef ANTIPHON_BASE_FUTEX_H
#define ANTIPHON_BASE_FUTEX_H

#include <sys/syscall.h>
#include <time.h>

static inline long aph_futex_number(void)
{
#ifdef SYS_futex_time64
	if (sizeof(time_t) > sizeof(long))
		return SYS_futex_time64;
#endif
	return SYS_futex;
}

#endif
