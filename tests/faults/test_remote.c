/* SPDX-License-Identifier: MIT */
/*
 * Memory runs out in a client of a remote service, at each place where a call asks for some: an
 * error says that the service knows nothing of the call, and what has reached it has an outcome.
 */
#include "suite.h"

#include "core/transport.h"
#include "fault.h"
#include "port.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define BODY 1000000

/* One call with a long request, which the service reads to its end. */
static int put(struct aph_channel *channel)
{
	static char body[BODY] = "d";

	return aph_call(channel, body, sizeof(body), NULL, NULL, APH_FOREVER);
}

static void each_allocation(void **state)
{
	char address[64];
	struct service service;
	struct client client;
	unsigned n, n_lost = 0;
	uint32_t seen;
	bool hit;
	int r;

	(void)state;
	/* Linked, so that it need not be loaded. */
	assert_non_null(aph_rx_scheme.channel_open);
	(void)snprintf(address, sizeof(address), "rx:127.0.0.1:%u/147", port_free(AF_INET));
	service_start_simple(&service, SERVICE_PROCESS, address);
	for (n = 1, hit = true; hit; n++) {
		/* A new one, that keeps no memory of the last call. */
		client_open(&client, address);
		client_echo(client.channel);
		seen = service.seen->requests;
		fault_arm(FAULT_ALLOCATION, n, ENOMEM);
		r = put(client.channel);
		hit = fault_disarm();
		if (r < 0) {
			assert_int_equal(r, -ENOMEM);
			assert_non_null(strstr(aph_error(), "memory"));
		} else if (r > 0) {
			assert_int_equal(r, APH_LOST);
			assert_int_equal(aph_channel_result(client.channel).reason,
					 APH_REASON_RESOURCES);
			n_lost++;
		}
		/* Behind all that the call has sent. */
		client_echo(client.channel);
		if (r < 0)
			assert_int_equal(service.seen->requests, seen + 1);
		client_close(&client);
	}
	assert_int_equal(r, 0);
	assert_true(n_lost > 0);
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(each_allocation),
	};

	return suite_run("remote faults", tests, SUITE_LEN(tests), 90);
}
