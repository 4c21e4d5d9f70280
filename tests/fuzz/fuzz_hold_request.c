/* SPDX-License-Identifier: MIT */
/*
 * The keeper's requests: what is taken apart is within bounds, and rules read from the same bytes
 * are too.
 */
#include "check.h"
#include "fuzz.h"

#include "facade/hold/rules.h"

#include <errno.h>
#include <string.h>

static void check_request(const uint8_t *data, size_t size)
{
	struct hold_request request;
	char name[APH_HOLD_NAME_MAX + 1];
	int r;

	memset(name, 'x', sizeof(name));
	r = hold_request_decode(data, size, &request, name);
	if (r < 0) {
		CHECK(r == -EBADMSG || r == -EINVAL);
		return;
	}
	CHECK(size >= sizeof(request) && size <= HOLD_REQUEST_MAX);
	CHECK(memchr(name, 0, sizeof(name)) == name + (size - sizeof(request)));
	CHECK(request.version == HOLD_VERSION);
	CHECK(request.verb >= HOLD_STORE && request.verb <= HOLD_UPGRADE);
	CHECK(name[0] ? hold_is_name(name, strlen(name))
		      : request.verb == HOLD_LIST || request.verb == HOLD_STOP ||
				request.verb == HOLD_UPGRADE);
	CHECK(!(request.flags &
		~(unsigned)(APH_HOLD_REPLACE | APH_HOLD_TAKE | APH_HOLD_OWNER | APH_HOLD_ALL)));
	CHECK(!strchr(name, ':') && !strchr(name, '/') && name[0] != '@');
}

static void check_rule(const uint8_t *data, size_t size)
{
	static const struct aph_credentials who = { .euid = 7, .egid = 8 };
	struct hold_limit limit;
	struct hold_rule rule;
	char text[400];

	size = size < sizeof(text) - 1 ? size : sizeof(text) - 1;
	memcpy(text, data, size);
	text[size] = 0;
	if (hold_rule_parse(&rule, text) == 0) {
		CHECK(rule.can && !(rule.can & ~HOLD_CAN_ALL));
		CHECK(rule.uid >= APH_ID_ANY && rule.gid >= APH_ID_ANY);
		CHECK(!rule.prefix[0] || hold_is_name(rule.prefix, strlen(rule.prefix)));
		/* Without a word about owners it is about one's own. */
		if (rule.owner == HOLD_OWNER_SELF)
			CHECK(!hold_rule_fits(&rule, &who, rule.can, 9, rule.prefix));
	}
	if (hold_limit_parse(&limit, text) == 0)
		CHECK(limit.uid >= APH_ID_ANY && limit.n_fds <= INT32_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_request(data, size);
	check_rule(data, size);
	return 0;
}
