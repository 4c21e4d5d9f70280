/* SPDX-License-Identifier: MIT */
/* Keeps one value; each change of it raises the generation, which tells clients to drop caches. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	struct aph_endpoint *ep;
	struct aph_service *service;
	struct aph_event ev;
	char value[64] = "first", text[64];
	int64_t generation = 0;
	ssize_t n;

	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_service_open(&service, ep, "caps:value", NULL) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving caps:value\n");
	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0) {
		if (ev.type != APH_EVENT_REQUEST)
			continue;
		n = aph_call_read(ev.call, text, sizeof text - 1);
		if (n > 0) { /* an empty request only asks */
			text[n] = '\0';
			strcpy(value, text);
			aph_service_set_generation(service, ++generation);
		}
		aph_call_reply(ev.call, value, strlen(value));
	}
	errx(1, "%s", aph_error());
}
