/* SPDX-License-Identifier: MIT */
/* Sends its standard input through caps:upper to its standard output, a piece at a time. */
#include <antiphon/antiphon.h>

#include <err.h>
#include <errno.h>
#include <stdio.h>

int main(void)
{
	char in[16384], out[16384];
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_call *call;
	size_t len = 0, off = 0;
	int finished = 0;
	ssize_t n;

	if (aph_endpoint_new(&ep, NULL) < 0 ||
	    aph_channel_open(&channel, ep, "caps:upper", NULL) < 0 ||
	    aph_call_new(&call, channel, APH_FOREVER, NULL) < 0)
		errx(1, "%s", aph_error());

	do {
		if (off == len && !finished) {
			off = 0;
			len = fread(in, 1, sizeof in, stdin);
		}
		n = finished ? 0 : aph_call_send(call, in + off, len - off, len ? APH_MORE : 0);
		finished |= n == 0 && len == 0;
		off += n > 0 ? (size_t)n : 0;
		while ((n = aph_call_read(call, out, sizeof out)) > 0)
			fwrite(out, 1, (size_t)n, stdout);
		if (n < 0 && (len == 0 || off < len)) /* all is sent, or no room */
			aph_call_wait(call, APH_FOREVER);
	} while (n == -EAGAIN);
	aph_endpoint_free(ep);
	return n == 0 ? 0 : 1; /* 1: the call ended early */
}
