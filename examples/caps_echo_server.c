/* SPDX-License-Identifier: MIT */
/* A CAPS service that returns what it gets; it also looks who asks. caps_echo_server [NAME] */
#include <sys/caps.h>

#include <err.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "caps.echo";
	int port = caps_sys_service(name, getuid(), getgid(), 0, CAPF_ANYCLIENT);
	struct caps_msgid id;
	struct caps_cred cred;
	char text[4096];
	int len;

	if (port < 0)
		err(1, "cannot serve %s", name);
	setlinebuf(stdout);
	while ((len = caps_sys_wait(port, text, sizeof text, &id, &cred)) >= 0) {
		if (id.c_state == CAPMS_REQUEST) {
			printf("%d bytes from uid %d\n", len, (int)cred.euid);
			if (len > (int)sizeof text)
				len = 0; /* too long: answered unread */
			caps_sys_reply(port, text, len, id.c_id);
		} else if (id.c_state == CAPMS_DISPOSE) {
			printf("message %lld is over\n", (long long)id.c_id);
		}
	}
	err(1, "waiting for messages");
}
