/* SPDX-License-Identifier: MIT */
/* The echo service in a libevent loop. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <event2/event.h>
#include <stdio.h>

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
	struct aph_endpoint *ep = arg;
	struct aph_event ev;
	char buf[256];
	ssize_t n;

	(void)fd;
	(void)what;
	while (aph_endpoint_next(ep, &ev, APH_NOW) == 0) {
		if (ev.type != APH_EVENT_REQUEST)
			continue;
		n = aph_call_read(ev.call, buf, sizeof buf);
		aph_call_reply(ev.call, buf, n > 0 ? (size_t)n : 0);
	}
}

int main(void)
{
	struct event_base *base = event_base_new();
	struct aph_endpoint *ep;
	struct event *ready;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, "caps:echo", NULL) < 0)
		errx(1, "%s", aph_error());
	ready = event_new(base, aph_endpoint_fd(ep), EV_READ | EV_PERSIST, on_ready, ep);
	event_add(ready, NULL);
	fprintf(stderr, "serving caps:echo\n");
	return event_base_dispatch(base);
}
