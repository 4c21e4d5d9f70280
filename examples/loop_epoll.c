/* SPDX-License-Identifier: MIT */
/* The echo service in somebody else's epoll loop, which also watches standard input. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

static void drain(struct aph_endpoint *ep)
{
	struct aph_event ev;
	char buf[256];
	ssize_t n;

	while (aph_endpoint_next(ep, &ev, APH_NOW) == 0) {
		if (ev.type != APH_EVENT_REQUEST)
			continue;
		n = aph_call_read(ev.call, buf, sizeof buf);
		aph_call_reply(ev.call, buf, n > 0 ? (size_t)n : 0);
	}
}

int main(void)
{
	struct epoll_event e = { .events = EPOLLIN };
	struct aph_endpoint *ep;
	int loop = epoll_create1(EPOLL_CLOEXEC);

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, "caps:echo", NULL) < 0)
		errx(1, "%s", aph_error());
	epoll_ctl(loop, EPOLL_CTL_ADD, e.data.fd = STDIN_FILENO, &e);
	epoll_ctl(loop, EPOLL_CTL_ADD, e.data.fd = aph_endpoint_fd(ep), &e);
	fprintf(stderr, "serving caps:echo until standard input says something\n");
	while (epoll_wait(loop, &e, 1, -1) == 1 && e.data.fd != STDIN_FILENO)
		drain(ep);
	aph_endpoint_free(ep);
	return 0;
}
