/* SPDX-License-Identifier: MIT */
#include "remote.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned free_port(int family)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} at = { .any.sa_family = (sa_family_t)family };
	socklen_t len = family == AF_INET ? sizeof(at.in) : sizeof(at.in6);
	int fd = (int)CHECK_OK(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	CHECK_OK(bind(fd, &at.any, len));
	CHECK_OK(getsockname(fd, &at.any, &len));
	close(fd);
	return ntohs(at.in.sin_port);
}

const char *remote_address(void)
{
	static char text[64];
	static unsigned turn;

	if (turn++ % 2)
		snprintf(text, sizeof(text), "rx:[::1]:%u/%d", free_port(AF_INET6), REMOTE_SERVICE);
	else
		snprintf(text, sizeof(text), "rx:127.0.0.1:%u/%d", free_port(AF_INET),
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

void remote_check_result(struct aph_result got, enum aph_outcome outcome, enum aph_reason reason)
{
	assert_string_equal(aph_outcome_name(got.outcome), aph_outcome_name(outcome));
	assert_string_equal(aph_reason_name(got.reason), aph_reason_name(reason));
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
	remote_check_result(result, APH_REFUSED, reason);
}
