/* SPDX-License-Identifier: MIT */
/* A libafdt server without libevent, which keeps its path if a former one has died. */
#include <afdt.h>
#include <antiphon/afdt.h>
#include <err.h>
#include <stdio.h>
#include <unistd.h>

static struct aph_afdt_request *waiting; /* it is ours until it is answered */
static void on_request(struct aph_afdt_request *request, void *data)
{
	(void)data;
	waiting = request;
}

static void answer(struct aph_afdt_request *request)
{
	const struct aph_afdt_message message = { "later", 5, (int[]){ STDOUT_FILENO }, 1 };
	const struct aph_credentials *peer;

	if (request && aph_afdt_request_credentials(request, &peer) == 0)
		fprintf(stderr, "asked by uid %u\n", peer->euid);
	if (request && aph_afdt_request_reply(request, &message) < 0)
		aph_afdt_request_free(request);
}

int main(void)
{
	struct aph_afdt_server_options options = { .size = sizeof(options), .request = on_request };
	struct afdt_error_t error = AFDT_ERROR_T_INIT;
	struct aph_afdt_endpoint *ep;

	options.flags = APH_AFDT_RECLAIM;
	if (aph_afdt_endpoint_new(&ep, NULL) < 0 ||
	    aph_afdt_server_open(NULL, ep, "handover", &options, &error) < 0)
		err(1, "%s", error.message);
	fprintf(stderr, "serving handover\n");
	for (; aph_afdt_endpoint_serve(ep, APH_FOREVER) == 0; waiting = NULL)
		answer(waiting);
}
