/* SPDX-License-Identifier: MIT */
/* Opens files for others: the request is a path, the reply carries an open descriptor. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static void answer(struct aph_call *call)
{
	char path[4096];
	ssize_t n = aph_call_read(call, path, sizeof path - 1);
	int fd;

	path[n > 0 ? n : 0] = '\0';
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		aph_call_abort(call, errno);
		return;
	}
	aph_call_send_fds(call, "open", 4, &fd, 1, APH_MORE);
	aph_call_reply(call, NULL, 0); /* the end of the reply */
	close(fd);		       /* the library sent a duplicate */
}

int main(void)
{
	struct aph_endpoint *ep;
	struct aph_event ev;

	if (aph_endpoint_new(&ep, NULL) < 0 || aph_service_open(NULL, ep, "caps:open", NULL) < 0)
		errx(1, "%s", aph_error());
	fprintf(stderr, "serving caps:open\n");
	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0)
		if (ev.type == APH_EVENT_REQUEST)
			answer(ev.call);
	errx(1, "%s", aph_error());
}
