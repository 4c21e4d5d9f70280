/* SPDX-License-Identifier: MIT */
/* The echo service in a libuv loop. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>
#include <uv.h>

static void on_ready(uv_poll_t *poll, int status, int events)
{
	struct aph_endpoint *ep = poll->data;
	struct aph_event ev;
	char buf[256];
	ssize_t n;

	(void)status;
	(void)events;
	while (aph_endpoint_next(ep, &ev, APH_NOW) == 0) {
		if (ev.type != APH_EVENT_REQUEST)
			continue;
		n = aph_call_read(ev.call, buf, sizeof buf);
		aph_call_reply(ev.call, buf, n > 0 ? (size_t)n : 0);
	}
}

int main(void)
{
	struct aph_endpoint *ep;
	uv_poll_t ready;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, "caps:echo", NULL) < 0)
		errx(1, "%s", aph_error());
	uv_poll_init(uv_default_loop(), &ready, aph_endpoint_fd(ep));
	ready.data = ep;
	uv_poll_start(&ready, UV_READABLE, on_ready);
	fprintf(stderr, "serving caps:echo\n");
	return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
