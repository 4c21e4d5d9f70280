/* SPDX-License-Identifier: MIT */
/* Two services on one endpoint: one queue of events for both, told apart by what they carry. */
#include <antiphon/antiphon.h>

#include <ctype.h>
#include <err.h>
#include <stdio.h>

static void answer(struct aph_service *service, struct aph_call *call)
{
	int loud = *(const int *)aph_service_data(service);
	char buf[256];
	ssize_t n = aph_call_read(call, buf, sizeof buf);

	for (ssize_t i = 0; i < n; i++)
		buf[i] = (char)(loud ? toupper((unsigned char)buf[i])
				     : tolower((unsigned char)buf[i]));
	aph_call_reply(call, buf, n > 0 ? (size_t)n : 0);
}

int main(void)
{
	int loud = 1, quiet = 0;
	struct aph_service_options shout = { .size = sizeof shout, .data = &loud };
	struct aph_service_options whisper = { .size = sizeof whisper, .data = &quiet };
	struct aph_endpoint *ep;
	struct aph_event ev;

	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_service_open(NULL, ep, "caps:shout", &shout) < 0 ||
	    aph_service_open(NULL, ep, "caps:whisper", &whisper) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving caps:shout and caps:whisper\n");
	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0)
		if (ev.type == APH_EVENT_REQUEST)
			answer(ev.service, ev.call);
	errx(1, "%s", aph_error());
}
