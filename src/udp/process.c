/* SPDX-License-Identifier: MIT */
/* A driver in a process that has forked: one of the two copies goes on, the other one goes away in silence. */
#include "udp/udp.h"

#include <stdlib.h>

unsigned aph_rx_udp_descriptors(const struct aph_rx_udp *udp, int *fds, unsigned n)
{
	const int all[] = { udp->fd, udp->event_fd, udp->epoll_fd, udp->timer_fd, udp->member.fd };
	unsigned n_open = 0;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (all[i] < 0)
			continue;
		if (n_open < n)
			fds[n_open] = all[i];
		n_open++;
	}
	return n_open;
}

struct aph_rx_udp *aph_rx_udp_forget(struct aph_rx_udp *udp)
{
	if (!udp)
		return NULL;
	aph_udp_unregister(udp);
	aph_udp_inbox_deinit(udp);
	(void)aph_rx_free(udp->rx);
	if (udp->port) {
		aph_udp_port_leave(udp);
		aph_udp_queue_free(udp);
	}
	aph_udp_socket_close(udp);
	free(udp);
	return NULL;
}
