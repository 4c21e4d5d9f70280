/* SPDX-License-Identifier: MIT */
/* Requests, taken apart: whatever the bytes are, what comes out is within bounds. */
#include "wire.h"

#include <errno.h>
#include <string.h>

static const struct {
	uint16_t flags;
	bool named;
} verbs[] = {
	[HOLD_STORE] = { APH_HOLD_REPLACE | APH_HOLD_OWNER, true },
	[HOLD_RETRIEVE] = { APH_HOLD_TAKE | APH_HOLD_OWNER, true },
	[HOLD_DELETE] = { APH_HOLD_OWNER, true },
	[HOLD_LIST] = { APH_HOLD_OWNER | APH_HOLD_ALL, false },
	[HOLD_OFFER] = { APH_HOLD_OWNER, true },
	[HOLD_ACCEPT] = { APH_HOLD_OWNER, true },
	[HOLD_STOP] = { 0, false },
	[HOLD_UPGRADE] = { 0, false },
};

static bool is_alphanumeric(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_';
}

bool hold_is_name(const char *name, size_t len)
{
	if (len < 1 || len > APH_HOLD_NAME_MAX || !is_alphanumeric(name[0]))
		return false;
	for (size_t i = 1; i < len; i++) {
		if (!is_alphanumeric(name[i]) && (!name[i] || !strchr(".-+@", name[i])))
			return false;
	}
	return true;
}

int hold_request_decode(const void *data, size_t len, struct hold_request *request, char *name)
{
	const char *rest = (const char *)data + sizeof(*request);
	size_t n;

	if (len < sizeof(*request) || len > HOLD_REQUEST_MAX)
		return -EBADMSG;
	memcpy(request, data, sizeof(*request));
	if (request->version != HOLD_VERSION || request->verb < HOLD_STORE ||
	    request->verb > HOLD_UPGRADE || (request->flags & ~verbs[request->verb].flags))
		return -EBADMSG;
	n = len - sizeof(*request);
	if ((verbs[request->verb].named || n) && !hold_is_name(rest, n))
		return -EINVAL;
	memcpy(name, rest, n);
	name[n] = '\0';
	return 0;
}
