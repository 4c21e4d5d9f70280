/* SPDX-License-Identifier: MIT */
/* The echo service in a GLib main loop. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <glib-unix.h>
#include <stdio.h>

static gboolean on_ready(gint fd, GIOCondition what, gpointer arg)
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
	return G_SOURCE_CONTINUE;
}

int main(void)
{
	GMainLoop *loop = g_main_loop_new(NULL, FALSE);
	struct aph_endpoint *ep;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, "caps:echo", NULL) < 0)
		errx(1, "%s", aph_error());
	g_unix_fd_add(aph_endpoint_fd(ep), G_IO_IN, on_ready, ep);
	fprintf(stderr, "serving caps:echo\n");
	g_main_loop_run(loop);
	return 0;
}
