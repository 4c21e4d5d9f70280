/* SPDX-License-Identifier: MIT */
/* Four threads wait on one endpoint; each event goes to exactly one of them. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static void *work(void *arg)
{
	struct aph_endpoint *ep = arg;
	struct aph_event ev;
	char buf[256];
	ssize_t n;

	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0) {
		if (ev.type != APH_EVENT_REQUEST)
			continue;
		n = aph_call_read(ev.call, buf, sizeof buf);
		usleep(50 * 1000); /* slow work: the other threads go on meanwhile */
		aph_call_reply(ev.call, buf, n > 0 ? (size_t)n : 0);
	}
	return NULL;
}

int main(void)
{
	struct aph_endpoint *ep;
	pthread_t thread;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, "caps:slow", NULL) < 0)
		errx(1, "%s", aph_error());
	for (int i = 1; i < 4; i++)
		if (pthread_create(&thread, NULL, work, ep) != 0)
			errx(1, "no thread");
	fprintf(stderr, "serving caps:slow\n");
	work(ep);
	errx(1, "%s", aph_error());
}
