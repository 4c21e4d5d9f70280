/* SPDX-License-Identifier: MIT */
/* Learns of each reply whether it was taken: DISPOSED, or GONE and why. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
	struct aph_service_options options = { .size = sizeof options,
					       .flags = APH_SERVICE_RECEIPTS_NOW };
	struct aph_endpoint *ep;
	struct aph_event ev;
	char *copy;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_service_open(NULL, ep, "caps:receipts", &options) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving caps:receipts\n");
	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0) {
		if (ev.type == APH_EVENT_REQUEST) {
			/* Something to be kept until the client has the answer. */
			copy = strdup("kept until the receipt");
			aph_call_set_data(ev.call, copy);
			aph_call_reply(ev.call, copy, strlen(copy));
		} else if (ev.type == APH_EVENT_END) {
			printf("%s: %s\n", aph_outcome_name(ev.result.outcome),
			       aph_reason_name(ev.result.reason));
			free(aph_call_data(ev.call));
			aph_call_free(ev.call);
		}
	}
	errx(1, "%s", aph_error());
}
