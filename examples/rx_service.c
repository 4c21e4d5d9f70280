/* SPDX-License-Identifier: MIT */
/* Counts the words that other machines send.  Try: antiphon call rx:127.0.0.1:7321/52 'how many' */
#include <antiphon/antiphon.h>

#include <ctype.h>
#include <err.h>
#include <stdint.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	/* "rx:*:7321/52" is met at all addresses of the machine; the flag APH_ALLOW_ANONYMOUS
	 * says that whoever calls there may, though callers prove nothing. */
	const char *address = argc > 1 ? argv[1] : "rx:127.0.0.1:7321/52";
	struct aph_endpoint *ep;
	struct aph_event ev;
	char buf[4096];
	ssize_t n;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, address, NULL) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving %s\n", address);

	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0) {
		size_t words = ev.call ? (size_t)aph_call_data(ev.call) : 0;

		if (ev.type == APH_EVENT_END) {
			aph_call_free(ev.call);
		} else if (ev.type == APH_EVENT_REQUEST || ev.type == APH_EVENT_READABLE) {
			/* A network brings a request in pieces: the count waits in the call. */
			while ((n = aph_call_read(ev.call, buf, sizeof buf)) > 0)
				for (ssize_t i = 0; i < n; i++)
					words += isspace((unsigned char)buf[i]) != 0;
			aph_call_set_data(ev.call, (void *)words);
			if (n == 0) /* that was the end, at which there is a word too */
				aph_call_reply(ev.call, buf,
					       (size_t)sprintf(buf, "%zu", words + 1));
		}
	}
}
