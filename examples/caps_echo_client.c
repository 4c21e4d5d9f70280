/* SPDX-License-Identifier: MIT */
/* A CAPS client that waits for its service to appear. caps_echo_client [NAME [TEXT]] */
#include <sys/caps.h>

#include <err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "caps.echo";
	const char *text = argc > 2 ? argv[2] : "hello";
	int port = caps_sys_client(name, getuid(), getgid(), 0, CAPF_ANYCLIENT | CAPF_WAITSVC);
	struct caps_msgid id;
	char answer[4096];
	off_t sent;
	int len;

	if (port < 0)
		err(1, "cannot connect to %s", name);
	sent = caps_sys_put(port, text, (int)strlen(text));
	if (sent < 0)
		err(1, "the service has gone");
	len = caps_sys_wait(port, answer, sizeof answer, &id, NULL);
	if (len < 0 || id.c_id != sent)
		err(1, "no reply");
	printf("%.*s\n", len, answer);
	return caps_sys_close(port) == 0 ? 0 : 1;
}
