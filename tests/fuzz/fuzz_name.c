/* SPDX-License-Identifier: MIT */
/* The address parser: whatever it takes can be written and read again, and means the same. */
#include "check.h"
#include "fuzz.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char address[400], text[APH_ADDRESS_MAX + 1];
	struct aph_name name, again;
	size_t len;
	int r;

	len = size < sizeof(address) - 1 ? size : sizeof(address) - 1;
	memcpy(address, data, len);
	address[len] = 0;
	r = aph_name_parse(&name, address);
	if (r < 0) {
		CHECK(r == -EINVAL || r == -ENOENT || r == -EPROTONOSUPPORT);
		CHECK(strlen(aph_error()) > 10);
		return 0;
	}
	CHECK(r == 0);
	len = strlen(name.name);
	CHECK(len >= 1 && len <= APH_NAME_MAX);
	CHECK(strspn(name.name,
		     "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") == len);
	CHECK(name.uid >= APH_ID_DEFAULT && name.uid <= UINT32_MAX);
	CHECK(name.gid >= APH_ID_DEFAULT && name.gid <= UINT32_MAX);
	CHECK_OK(aph_name_format(&name, text, sizeof(text)));
	CHECK(strlen(text) <= APH_ADDRESS_MAX);
	CHECK_OK(aph_name_parse(&again, text));
	CHECK(strcmp(name.name, again.name) == 0 && name.uid == again.uid && name.gid == again.gid);
	len = strlen(text);
	memset(address, 'x', sizeof(address));
	CHECK(aph_name_format(&name, address, len) == -ENOSPC);
	CHECK(address[len] == 'x');
	CHECK_OK(aph_name_format(&name, address, len + 1));
	CHECK(strcmp(address, text) == 0);
	return 0;
}
