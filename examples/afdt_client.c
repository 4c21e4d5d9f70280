/* SPDX-License-Identifier: MIT */
/* Asks a libafdt server for a descriptor and writes to it: afdt_client PATH. */
#include <afdt.h>

#include <err.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const struct timeval timeout = { .tv_sec = 5 };
	struct afdt_error_t error = AFDT_ERROR_T_INIT;
	uint8_t response[AFDT_MSGLEN];
	uint32_t len = sizeof(response);
	int fd;

	if (afdt_sync_client(argc > 1 ? argv[1] : "handover", (const uint8_t *)"output", 6,
			     response, &len, &fd, &timeout, &error) < 0)
		err(1, "%s: %s", afdt_operation_str(error.operation), error.message);
	if (fd < 0)
		errx(1, "no descriptor came");
	dprintf(fd, "written by the client\n");
	printf("%.*s\n", (int)len, (const char *)response);
	return close(fd);
}
