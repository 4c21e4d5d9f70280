/* SPDX-License-Identifier: MIT */
/* A descriptor in a variable of its owner: -1 while there is none. */
#ifndef ANTIPHON_BASE_FD_H
#define ANTIPHON_BASE_FD_H

#include <unistd.h>

/* Closes it, if there is one, and forgets it. */
static inline void aph_fd_close(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

#endif
