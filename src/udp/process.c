/* SPDX-License-Identifier: MIT */
/*
 * A driver in a process that has forked: one of the two copies goes on, the other one goes away in
 * silence.
 */
#include "udp/udp.h"

#include <stdlib.h>

/* Descriptors that are gathered: `n` are open, of which as many are kept as there is room for. */
struct gathered {
	int *fds;
	unsigned n, max;
};

static void gather(struct gathered *all, int fd)
{
	if (fd < 0)
		return;
	if (all->n < all->max)
		all->fds[all->n] = fd;
	all->n++;
}

unsigned aph_rx_udp_descriptors(const struct aph_rx_udp *udp, int *fds, unsigned n)
{
	struct gathered all = { .fds = fds, .max = n };
	const struct aph_udp_port *port = udp->port;

	gather(&all, udp->fd);
	gather(&all, udp->event_fd);
	gather(&all, udp->epoll_fd);
	gather(&all, udp->timer_fd);
	gather(&all, udp->member.fd);
	gather(&all, udp->lines[0].fd);
	gather(&all, udp->lines[1].fd);
	if (!port)
		return all.n;
	gather(&all, port->listener);
	gather(&all, port->epoll_fd);
	gather(&all, port->hint_fd);
	for (size_t i = 0; i < APH_UDP_LINKS_MAX; i++)
		gather(&all, port->links[i].fd);
	return all.n;
}

struct aph_rx_udp *aph_rx_udp_forget(struct aph_rx_udp *udp)
{
	if (!udp)
		return NULL;
	aph_udp_unregister(udp);
	aph_udp_inbox_deinit(udp);
	(void)aph_rx_free(udp->rx);
	if (udp->port) {
		aph_udp_port_leave(udp, true);
		aph_udp_queue_free(udp);
	}
	aph_udp_socket_close(udp);
	free(udp);
	return NULL;
}
