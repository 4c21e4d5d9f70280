/* SPDX-License-Identifier: MIT */
/* Gives up twice: by a deadline, and by cancelling.  The service is told both times. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>

static struct aph_call *begin(struct aph_channel *channel, uint64_t deadline_ns)
{
	struct aph_call *call;

	if (aph_call_new(&call, channel, deadline_ns, NULL) < 0 ||
	    aph_call_send(call, "x", 1, 0) < 0)
		errx(1, "%s", aph_error());
	return call;
}

int main(void)
{
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_call *call;
	struct aph_event ev;

	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_channel_open(&channel, ep, "caps:never", NULL) < 0)
		errx(1, "%s", aph_error());

	begin(channel, aph_deadline_ms(100));
	call = begin(channel, APH_FOREVER);
	for (int ended = 0; ended < 2 && aph_endpoint_next(ep, &ev, APH_FOREVER) == 0;) {
		printf("%s: %s\n", aph_outcome_name(ev.result.outcome),
		       aph_reason_name(ev.result.reason));
		aph_call_free(ev.call);
		if (++ended == 1)
			aph_call_cancel(call); /* the first ended by its deadline */
	}
	aph_endpoint_free(ep);
	return 0;
}
