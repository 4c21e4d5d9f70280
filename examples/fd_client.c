/* SPDX-License-Identifier: MIT */
/* Asks caps:open for a file and copies it to standard output: fd_client PATH. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/etc/hostname";
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_call *call;
	struct aph_event ev;
	char buf[4096];
	ssize_t n;
	int fd;

	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_channel_open(&channel, ep, "caps:open", NULL) < 0 ||
	    aph_call_new(&call, channel, aph_deadline_ms(2000), NULL) < 0 ||
	    aph_call_send(call, path, strlen(path), 0) < 0)
		errx(1, "%s", aph_error());

	do
		if (aph_endpoint_next(ep, &ev, APH_FOREVER) < 0)
			errx(1, "%s", aph_error());
	while (ev.type != APH_EVENT_END);
	if (ev.result.outcome == APH_ABORTED)
		errx(1, "%s: %s", path, strerror(ev.result.code));
	if (aph_call_take_fds(call, &fd, 1) != 1)
		errx(1, "no descriptor came: %s", aph_outcome_name(ev.result.outcome));

	while ((n = read(fd, buf, sizeof buf)) > 0)
		if (write(STDOUT_FILENO, buf, (size_t)n) != n)
			err(1, "standard output");
	aph_endpoint_free(ep);
	return 0;
}
