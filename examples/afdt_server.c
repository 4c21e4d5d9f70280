/* SPDX-License-Identifier: MIT */
/* Gives its standard output to whoever asks: afdt_server PATH. */
#include <afdt.h>

#include <err.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int on_request(const uint8_t *request, uint32_t len, uint8_t *response,
		      uint32_t *response_len, void *data)
{
	(void)data;
	fprintf(stderr, "asked for: %.*s\n", (int)len, (const char *)request);
	memcpy(response, "here", 4);
	*response_len = 4;
	return STDOUT_FILENO;
}

static void on_error(const struct afdt_error_t *error, void *data)
{
	(void)data;
	warn("%s, %s: %s", afdt_phase_str(error->phase), afdt_operation_str(error->operation),
	     error->message);
}

int main(int argc, char **argv)
{
	struct event_base *base = event_base_new();
	const char *path = argc > 1 ? argv[1] : "handover";

	unlink(path);
	if (afdt_create_server(path, base, on_request, afdt_no_post, on_error, NULL, NULL) < 0)
		return 1;
	fprintf(stderr, "serving %s\n", path);
	return event_base_dispatch(base);
}
