/* SPDX-License-Identifier: MIT */
/* Eight calls under way at once on one channel; prints each answer as it comes. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	const char *address = argc > 1 ? argv[1] : "caps:echo";
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_call *call;
	struct aph_event ev;
	char text[16], answer[64];
	int left = 8;
	ssize_t n;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_channel_open(&channel, ep, address, NULL) < 0)
		errx(1, "%s", aph_error());
	for (int i = 0; i < left; i++) {
		n = snprintf(text, sizeof text, "call %d", i);
		if (aph_call_new(&call, channel, aph_deadline_ms(2000), NULL) < 0 ||
		    aph_call_send(call, text, (size_t)n, 0) != n)
			errx(1, "%s", aph_error());
	}
	while (left > 0 && aph_endpoint_next(ep, &ev, APH_FOREVER) == 0) {
		if (ev.type != APH_EVENT_END)
			continue;
		n = aph_call_read(ev.call, answer, sizeof answer);
		printf("%s: %.*s\n", aph_outcome_name(ev.result.outcome), n > 0 ? (int)n : 0,
		       answer);
		aph_call_free(ev.call);
		left--;
	}
	aph_endpoint_free(ep);
	return 0;
}
