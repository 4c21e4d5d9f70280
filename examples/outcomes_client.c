/* SPDX-License-Identifier: MIT */
/* Waits for a service, calls it, and says what the outcome means: outcomes_client ADDRESS TEXT. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct aph_channel_options options = { .size = sizeof options, .flags = APH_CHANNEL_WAIT };
	struct aph_endpoint *ep;
	struct aph_channel *channel;

	if (argc != 3)
		errx(2, "usage: outcomes_client ADDRESS TEXT");
	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_channel_open(&channel, ep, argv[1], &options) < 0)
		errx(1, "%s", aph_error());
	switch (aph_call(channel, argv[2], strlen(argv[2]), NULL, NULL, aph_deadline_ms(300))) {
	case APH_ANSWERED:
		printf("ANSWERED: it ran once, and the whole answer is here\n");
		break;
	case APH_REFUSED:
		printf("REFUSED: it did not run; call again, here or elsewhere\n");
		break;
	case APH_ABORTED:
		printf("ABORTED: code %d says why\n", (int)aph_channel_result(channel).code);
		break;
	case APH_LOST:
		printf("LOST: it may have run; look before you repeat it\n");
		break;
	default:
		errx(1, "%s", aph_error()); /* no call was made */
	}
	aph_endpoint_free(ep);
	return 0;
}
