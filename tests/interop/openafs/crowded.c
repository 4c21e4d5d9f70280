/* SPDX-License-Identifier: MIT */
/*
 * A server with little room: crowded PORT SERVICE...
 *
 * At 127.3.0.1 it answers any request with four zeros, and says for which service it was, a line
 * each. With more than some dozens of callers it asks whoever comes for proof of their address.
 */
#include <antiphon/antiphon.h>
#include <antiphon/rx.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PEERS_MAX 64

static void go_on(struct aph_rx_event *event)
{
	char bytes[1024];
	ssize_t n;

	if (event->type == APH_RX_EVENT_END) {
		aph_rx_call_free(event->call);
		return;
	}
	while ((n = aph_rx_call_read(event->call, bytes, sizeof(bytes), 0)) > 0)
		;
	if (n < 0)
		return; /* more is to come */
	printf("%u\n", aph_rx_service_id(event->service));
	fflush(stdout);
	if (aph_rx_call_write(event->call, "\0\0\0", 4, 0) != 4)
		abort();
	aph_rx_call_free(event->call);
}

int main(int argc, char **argv)
{
	const struct aph_rx_config config = { .size = sizeof(config), .peers_max = PEERS_MAX };
	struct aph_rx_udp_options options = { .size = sizeof(options), .config = &config };
	struct aph_rx_service *service;
	struct aph_rx_event event;
	struct aph_rx_udp *udp;

	if (argc < 3)
		return 2;
	options.local.in.sin_family = AF_INET;
	options.local.in.sin_port = htons((uint16_t)atoi(argv[1]));
	if (inet_pton(AF_INET, "127.3.0.1", &options.local.in.sin_addr) != 1 ||
	    aph_rx_udp_open(&udp, &options) < 0) {
		fprintf(stderr, "crowded: %s\n", aph_error());
		return 1;
	}
	for (int i = 2; i < argc; i++)
		if (aph_rx_service_add(&service, aph_rx_udp_engine(udp), (uint16_t)atoi(argv[i]),
				       NULL) < 0)
			return 1;
	printf("ready\n");
	fflush(stdout);
	/* Until it is killed. */
	for (;;) {
		int r = aph_rx_udp_wait(udp, APH_FOREVER);

		if (r < 0 && r != -EINTR)
			return 1;
		while (aph_rx_next(aph_rx_udp_engine(udp), &event))
			go_on(&event);
	}
}
