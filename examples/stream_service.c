/* SPDX-License-Identifier: MIT */
/* Answers with the request in capitals, of any length, while the request is still arriving. */
#include <antiphon/antiphon.h>

#include <ctype.h>
#include <err.h>
#include <stdio.h>

/* Goes on until it lacks input (READABLE follows) or room (WRITABLE follows), and keeps nothing. */
static void pump(struct aph_call *call)
{
	char out[16384];
	ssize_t n, sent;

	while ((n = aph_call_peek(call, out, sizeof out)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			out[i] = (char)toupper((unsigned char)out[i]);
		sent = aph_call_send(call, out, (size_t)n, APH_MORE);
		if (sent <= 0 || aph_call_read(call, out, (size_t)sent) < sent || sent < n)
			return;
	}
	if (n == 0)
		aph_call_reply(call, NULL, 0); /* the end of the reply */
}

int main(void)
{
	struct aph_endpoint *ep;
	struct aph_event ev;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, "caps:upper", NULL) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving caps:upper\n");
	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0)
		if (ev.type == APH_EVENT_END)
			aph_call_free(ev.call); /* the client has gone */
		else if (ev.call)
			pump(ev.call);
	errx(1, "%s", aph_error());
}
