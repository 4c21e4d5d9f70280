/* SPDX-License-Identifier: MIT */
/* Looks at requests where they lie and builds replies where the client will read them. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>

static void answer(struct aph_call *call)
{
	const void *in;
	void *out;
	size_t len, room = 64, sum = 0;
	int n;

	/* The client may still change these bytes: each is looked at once. */
	while (aph_call_borrow(call, &in, &len) == 0) {
		for (size_t i = 0; i < len; i++)
			sum += ((const volatile unsigned char *)in)[i];
		aph_call_release(call, len);
	}
	if (aph_call_reserve(call, &out, &room) == 0) {
		n = snprintf(out, room, "the sum is %zu", sum);
		aph_call_commit(call, (size_t)n, APH_MORE);
	}
	aph_call_reply(call, NULL, 0); /* the end of the reply */
}

int main(void)
{
	struct aph_endpoint *ep;
	struct aph_event ev;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, "caps:sum", NULL) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving caps:sum\n");
	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0)
		if (ev.type == APH_EVENT_REQUEST)
			answer(ev.call);
	errx(1, "%s", aph_error());
}
