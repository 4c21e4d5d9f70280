/* SPDX-License-Identifier: MIT */
/*
 * What a program hands to an AF_RXRPC socket: an address, control messages, a key. The first byte
 * says which; each parser accepts what is within its rules, refuses the rest with one of its
 * errors, and reads nothing beyond.
 */
#include "../../src/facade/af_rxrpc/key.h"
#include "../../src/facade/af_rxrpc/socket.h"
#include "check.h"
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void read_address(const uint8_t *data, size_t len)
{
	static const int families[] = { AF_INET, AF_INET6 };

	for (int i = 0; i < 2; i++) {
		struct aph_afrx_name name;
		int r = aph_afrx_name_read(&name, families[i], data, (socklen_t)len);

		CHECK(r == 0 || r == -EINVAL || r == -EAFNOSUPPORT || r == -ESOCKTNOSUPPORT);
		if (r < 0)
			continue;
		CHECK(len >= sizeof(struct sockaddr_rxrpc));
		CHECK(name.address.family == AF_INET ||
		      (name.address.family == AF_INET6 && families[i] == AF_INET6));
	}
}

static void read_control(uint8_t *data, size_t len)
{
	struct msghdr message = { .msg_control = data, .msg_controllen = len };
	struct aph_afrx_socket socket = { .state = APH_AFRX_UNBOUND };
	struct aph_afrx_request request;

	for (int i = 0; i < 2; i++, socket.state = APH_AFRX_LISTENING) {
		int r = aph_afrx_request_read(&request, &socket, &message);

		CHECK(r == 0 || r == -EINVAL || r == -EISCONN || r == -ENOBUFS || r == -ERANGE);
		if (r < 0)
			continue;
		CHECK(request.has_tag);
		CHECK(request.tx_length >= -1 && request.n_timeouts <= 3);
		CHECK(request.tx_length == -1 || request.command == APH_AFRX_DATA);
		CHECK(request.command != APH_AFRX_ABORT || request.abort_code != 0);
		CHECK(i == 1 || request.command != APH_AFRX_ACCEPT);
	}
}

static void read_token(const uint8_t *data, size_t len)
{
	static uint8_t out[2 * APH_AFRX_PAYLOAD_MAX];
	struct aph_afrx_payload payload;
	size_t all;

	CHECK(len <= APH_AFRX_PAYLOAD_MAX);
	if (aph_afrx_token_check(&payload, data, len, 1000) < 0)
		return;
	CHECK(payload.security >= 0 && payload.security <= UINT8_MAX);
	all = aph_afrx_token_write(out, sizeof(out), "afs@example.org", data, len);
	CHECK(all <= sizeof(out));
	/* What is written in XDR says the same, and a short buffer is not written beyond. */
	if (len > 0) {
		struct aph_afrx_payload again;
		uint8_t *exact = malloc(all / 2 + 1);
		int r = aph_afrx_token_check(&again, out, all, 1000);

		CHECK((r == 0 && again.security == payload.security) || r == -EKEYEXPIRED);
		CHECK(exact &&
		      aph_afrx_token_write(exact, all / 2, "afs@example.org", data, len) == all);
		free(exact);
	}
}

static void read_server_key(const uint8_t *data, size_t len)
{
	struct aph_afrx_payload payload;
	char text[64];
	size_t n = len < sizeof(text) - 1 ? len : sizeof(text) - 1;

	memcpy(text, data, n);
	text[n] = '\0';
	for (size_t key = 0; key <= 32; key += 8)
		if (aph_afrx_server_key_check(&payload, text, key) == 0)
			CHECK(payload.security >= 1 && payload.security <= UINT8_MAX && key >= 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;
	size_t len;

	if (size == 0)
		return 0;
	len = size - 1 < APH_AFRX_PAYLOAD_MAX ? size - 1 : APH_AFRX_PAYLOAD_MAX;
	/* Of its exact size: what reads beyond is seen. */
	copy = malloc(len ? len : 1);
	CHECK(copy);
	memcpy(copy, data + 1, len);
	switch (data[0] % 4) {
	case 0:
		read_address(copy, len);
		break;
	case 1:
		read_control(copy, len);
		break;
	case 2:
		read_token(copy, len);
		break;
	default:
		read_server_key(copy, len);
		break;
	}
	free(copy);
	return 0;
}
