/* SPDX-License-Identifier: MIT */
/*
 * The parser of remote addresses: what it takes is within bounds, and can be written and read
 * again. Nothing here asks a resolver: only what it would be asked is looked at.
 */
#include "check.h"
#include "fuzz.h"
#include "remote/remote.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void look(const char *address, bool passive)
{
	struct aph_remote_parts parts, again;
	struct aph_remote_address full;
	char text[sizeof(parts.text) + 32];
	int r = aph_remote_address_split(&parts, address, passive);

	if (r < 0) {
		CHECK(r == -EINVAL);
		CHECK(strlen(aph_error()) > 10);
		CHECK(aph_remote_address_parse(&full, address, passive) == r);
		return;
	}
	CHECK(r == 0);
	CHECK(parts.host >= parts.text && parts.host < parts.text + sizeof(parts.text));
	CHECK(parts.service >= 1 && (passive || parts.port >= 1));
	CHECK(passive || (*parts.host && !parts.is_wildcard));
	CHECK(!strchr(parts.host, ']') || parts.text[0] != '[');
	(void)snprintf(text, sizeof(text),
		       strchr(parts.host, ':') ? "rx:[%s]:%u/%u" : "rx:%s:%u/%u", parts.host,
		       parts.port, parts.service);
	CHECK_OK(aph_remote_address_split(&again, text, passive));
	CHECK(strcmp(parts.host, again.host) == 0);
	CHECK(parts.port == again.port && parts.service == again.service &&
	      parts.is_wildcard == again.is_wildcard);
	if (!parts.is_wildcard)
		return;
	CHECK_OK(aph_remote_address_parse(&full, address, passive));
	CHECK(full.is_wildcard && full.service == parts.service);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char address[600] = "rx:";
	size_t len = size < sizeof(address) - 4 ? size : sizeof(address) - 4;

	memcpy(address + 3, data, len);
	address[3 + len] = 0;
	look(address, false);
	look(address, true);
	return 0;
}
