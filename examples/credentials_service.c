/* SPDX-License-Identifier: MIT */
/* Lets everybody connect, answers only root and its own user, and tells them who they are. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <stdio.h>
#include <unistd.h>

static void answer(struct aph_call *call)
{
	const struct aph_credentials *who = aph_call_credentials(call);
	char text[128];
	int n;

	if (who->euid != 0 && who->euid != geteuid()) {
		aph_call_refuse(call, APH_REASON_NOT_PERMITTED);
		return;
	}
	n = snprintf(text, sizeof text, "pid %d, uid %u, euid %u, gid %u, in %zu more groups",
		     (int)who->pid, who->uid, who->euid, who->gid, who->n_groups);
	aph_call_reply(call, text, n > 0 ? (size_t)n : 0);
}

int main(void)
{
	struct aph_service_options options = { .size = sizeof options, .flags = APH_ALLOW_WORLD };
	struct aph_endpoint *ep;
	struct aph_event ev;

	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_service_open(NULL, ep, "caps:whoami", &options) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving caps:whoami\n");
	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0)
		if (ev.type == APH_EVENT_REQUEST)
			answer(ev.call);
	errx(1, "%s", aph_error());
}
