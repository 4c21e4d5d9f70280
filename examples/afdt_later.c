/* SPDX-License-Identifier: MIT */
/* A libafdt server without libevent, which keeps its path if a former one has died. */
#include <antiphon/afdt.h>
#include <err.h>
#include <stdio.h>
#include <unistd.h>

static struct aph_afdt_request *waiting; /* ours until they are answered; each leads to the next */
static void on_request(struct aph_afdt_request *request, void *data)
{
	(void)data;
	aph_afdt_request_set_data(request, waiting);
	waiting = request;
}

static void answer(struct aph_afdt_request *request)
{
	const struct aph_afdt_message message = { "later", 5, (int[]){ STDOUT_FILENO }, 1 };
	const struct aph_credentials *peer;
	waiting = aph_afdt_request_data(request);
	if (aph_afdt_request_credentials(request, &peer) == 0)
		fprintf(stderr, "asked by uid %u\n", peer->euid);
	if (aph_afdt_request_reply(request, &message) < 0)
		aph_afdt_request_free(request);
}

int main(void)
{
	struct aph_afdt_server_options options = { .size = sizeof(options), .request = on_request };
	struct aph_afdt_endpoint *ep;

	options.flags = APH_AFDT_RECLAIM;
	if (aph_afdt_endpoint_new(&ep, NULL) < 0 ||
	    aph_afdt_server_open(NULL, ep, "handover", &options, NULL) < 0)
		err(1, "handover");
	fprintf(stderr, "serving handover\n");
	while (aph_afdt_endpoint_serve(ep, APH_FOREVER) == 0)
		while (waiting)
			answer(waiting);
}
