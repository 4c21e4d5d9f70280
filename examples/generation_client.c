/* SPDX-License-Identifier: MIT */
/* Caches a service's value, and asks again only when the generation says that it has changed. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>

static const char *value(struct aph_channel *channel)
{
	static char cached[64];
	static int64_t cached_generation = -1;
	/* Read before asking: a change in between costs one more question, never a stale value. */
	int64_t now = aph_channel_generation(channel);
	size_t len = sizeof cached - 1;

	if (now == cached_generation)
		return cached; /* no call, no system call */
	if (aph_call(channel, NULL, 0, cached, &len, aph_deadline_ms(2000)) != APH_ANSWERED)
		errx(1, "no answer");
	cached[len] = '\0';
	cached_generation = now;
	printf("asked\n");
	return cached;
}

int main(void)
{
	struct aph_endpoint *ep;
	struct aph_channel *channel;

	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_channel_open(&channel, ep, "caps:value", NULL) < 0)
		errx(1, "%s", aph_error());
	for (int i = 0; i < 3; i++)
		printf("%s\n", value(channel));
	aph_call(channel, "second", 6, NULL, NULL, aph_deadline_ms(2000));
	printf("%s\n", value(channel));
	aph_endpoint_free(ep);
	return 0;
}
