/* SPDX-License-Identifier: MIT */
/* Builds a request in the memory that the service reads: no copy on the way. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_call *call;
	struct aph_event ev = { .type = APH_EVENT_NONE };
	size_t len = 10000;
	void *body;
	char answer[64];
	ssize_t n;

	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_channel_open(&channel, ep, "caps:sum", NULL) < 0 ||
	    aph_call_new(&call, channel, aph_deadline_ms(2000), NULL) < 0 ||
	    aph_call_reserve(call, &body, &len) < 0)
		errx(1, "%s", aph_error());
	memset(body, 1, len); /* len may be less than was asked for */
	printf("sending %zu bytes\n", len);
	if (aph_call_commit(call, len, 0) < 0)
		errx(1, "%s", aph_error());

	while (ev.type != APH_EVENT_END)
		if (aph_endpoint_next(ep, &ev, APH_FOREVER) < 0)
			errx(1, "%s", aph_error());
	n = aph_call_read(call, answer, sizeof answer);
	printf("%s: %.*s\n", aph_outcome_name(ev.result.outcome), n > 0 ? (int)n : 0, answer);
	aph_endpoint_free(ep);
	return 0;
}
