/* SPDX-License-Identifier: MIT */
/*
 * One call to another machine, again for as long as it cannot have been run: rx_client [ADDRESS].
 */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *address = argc > 1 ? argv[1] : "rx:127.0.0.1:7321/52";
	static const char text[100000] = "to be or not to be";
	uint64_t deadline = aph_deadline_ms(5000);
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_result result;
	char answer[100];
	size_t len;
	int r;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_channel_open(&channel, ep, address, NULL) < 0)
		errx(1, "%s", aph_error());
	do {
		len = sizeof answer;
		r = aph_call(channel, text, sizeof text, answer, &len, deadline);
		if (r < 0)
			errx(1, "%s", aph_error());
		result = aph_channel_result(channel);
		/* REFUSED: nobody has run it, so that it may be sent again. LOST: who knows? */
	} while (r == APH_REFUSED && aph_time_ns() < deadline && usleep(100000) == 0);
	if (r != APH_ANSWERED)
		errx(1, "%s: %s", aph_outcome_name(result.outcome), aph_reason_name(result.reason));
	printf("%.*s words\n", (int)len, answer);
	aph_endpoint_free(ep);
	return 0;
}
