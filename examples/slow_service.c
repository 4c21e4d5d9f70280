/* SPDX-License-Identifier: MIT */
/* Never answers, but is told when its clients stop waiting: a place to stop the work for them. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>

int main(void)
{
	struct aph_endpoint *ep;
	struct aph_event ev;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, "caps:never", NULL) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving caps:never\n");
	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0) {
		if (ev.type == APH_EVENT_REQUEST) {
			printf("working\n");
		} else if (ev.type == APH_EVENT_END) {
			printf("stopped: %s, %s\n", aph_outcome_name(ev.result.outcome),
			       aph_reason_name(ev.result.reason));
			aph_call_free(ev.call);
		}
	}
	errx(1, "%s", aph_error());
}
