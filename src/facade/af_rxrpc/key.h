/* SPDX-License-Identifier: MIT */
/* What is in a key: payloads checked, and written again. No key is looked up here: see key.c. */
#ifndef FACADE_AF_RXRPC_KEY_H
#define FACADE_AF_RXRPC_KEY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define APH_AFRX_PAYLOAD_MAX 16384
#define APH_AFRX_TICKET_MAX  12000

struct aph_afrx_payload {
	int security;	   /* index of the first class that is supported; 0: no security */
	uint64_t expiry_s; /* since 1970; 0: never */
};

/*
 * A payload of type "rxrpc": empty, XDR, or the binary form. `now_s` is the time of day. -EINVAL,
 * -EKEYREJECTED, -EKEYEXPIRED, -EPROTONOSUPPORT.
 */
int aph_afrx_token_check(struct aph_afrx_payload *out, const void *data, size_t len,
			 uint64_t now_s);
/* The same in XDR, at most `max` bytes of it; returns the length of all. */
size_t aph_afrx_token_write(void *out, size_t max, const char *description, const void *data,
			    size_t len);
/*
 * A key of type "rxrpc_s": its description says what the payload is. -EINVAL, -EKEYREJECTED,
 * -ENOPKG.
 */
int aph_afrx_server_key_check(struct aph_afrx_payload *out, const char *description, size_t len);

#endif
