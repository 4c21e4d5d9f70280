/* SPDX-License-Identifier: MIT */
/* Answers every call with its own request.  Try it with: antiphon call caps:echo hello */
#include <antiphon/antiphon.h>

#include <err.h>
#include <errno.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	const char *address = argc > 1 ? argv[1] : "caps:echo";
	struct aph_endpoint *ep;
	struct aph_event ev;
	char buf[4096];
	ssize_t n;
	int r;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, address, NULL) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving %s\n", address);

	while ((r = aph_endpoint_next(ep, &ev, APH_FOREVER)) == 0 || r == -EINTR) {
		if (r == 0 && ev.type == APH_EVENT_REQUEST) {
			n = aph_call_read(ev.call, buf, sizeof buf);
			/* What does not arrive in one piece is for stream_service.c. */
			if (n < 0 || n == sizeof buf || !aph_call_body_complete(ev.call))
				aph_call_abort(ev.call, EMSGSIZE);
			else
				aph_call_reply(ev.call, buf, (size_t)n);
		} else if (r == 0 && ev.type == APH_EVENT_END) {
			aph_call_free(ev.call);
		}
	}
	errx(1, "%s", aph_error());
}
