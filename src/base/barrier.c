/* SPDX-License-Identifier: MIT */
#include "base/barrier.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* No processor keeps a store to itself for that long. */
#define REFUSED_NS 1000000

bool aph_barrier_join(void)
{
	/*
	 * Where there are threads already the kernel would wait for them all, which takes some 10
	 * ms.
	 */
	if (!__libc_single_threaded)
		return false;
	return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
}

void aph_barrier_everywhere(void)
{
	struct timespec left = { .tv_nsec = REFUSED_NS };

	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0)
		return;
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		continue;
}
