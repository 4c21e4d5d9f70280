/* SPDX-License-Identifier: MIT */
/* One call, one answer: echo_client [ADDRESS [TEXT]]. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	const char *address = argc > 1 ? argv[1] : "caps:echo";
	const char *text = argc > 2 ? argv[2] : "hello";
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_result result;
	char answer[4096];
	size_t len = sizeof answer;
	int r;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_channel_open(&channel, ep, address, NULL) < 0)
		errx(1, "%s", aph_error());

	r = aph_call(channel, text, strlen(text), answer, &len, aph_deadline_ms(2000));
	if (r < 0)
		errx(1, "%s", aph_error());
	if (r != APH_ANSWERED) {
		result = aph_channel_result(channel);
		errx(1, "%s: %s, code %d", aph_outcome_name(result.outcome),
		     aph_reason_name(result.reason), (int)result.code);
	}
	printf("%.*s\n", (int)len, answer);
	aph_endpoint_free(ep); /* and with it the channel */
	return 0;
}
