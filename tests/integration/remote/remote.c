/* SPDX-License-Identifier: MIT */
#include "remote.h"

#include "port.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

const char *remote_address(void)
{
	static char text[64];
	static unsigned turn;

	if (turn++ % 2)
		snprintf(text, sizeof(text), "rx:[::1]:%u/%d", port_free(AF_INET6), REMOTE_SERVICE);
	else
		snprintf(text, sizeof(text), "rx:127.0.0.1:%u/%d", port_free(AF_INET),
			 REMOTE_SERVICE);
	return text;
}

const char *remote_other(const char *address, unsigned service)
{
	static char text[64];
	int n = (int)(strrchr(address, '/') - address);

	snprintf(text, sizeof(text), "%.*s/%u", n, address, service);
	return text;
}

void remote_expect_refused(struct aph_channel *channel, enum aph_reason reason)
{
	struct aph_result result;

	for (int i = 0; i < 20; i++) {
		int r = aph_call(channel, "e", 1, NULL, NULL, aph_deadline_ms(20000));

		result = aph_channel_result(channel);
		assert_int_equal(result.outcome, r);
		if (r == APH_REFUSED)
			break;
		assert_int_equal(r, APH_LOST);
		assert_int_not_equal(result.reason, APH_REASON_DEADLINE);
	}
	client_check_result(result, APH_REFUSED, reason);
}

void remote_nap(void)
{
	/* It spins first, receives then, and polls after 10 ms: all of them may be met. */
	const struct timespec nap = { .tv_nsec = 15000000 };

	nanosleep(&nap, NULL);
}
