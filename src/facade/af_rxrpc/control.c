/* SPDX-License-Identifier: MIT */
/* Control messages: those of a sendmsg() read, those of a recvmsg() written. */
#include "socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HARD_MAX 8589934 /* seconds: INT_MAX in ticks of 4 ms */
#define WAIT_MAX 3600000 /* ms */

static int set_command(struct aph_afrx_request *req, enum aph_afrx_command command)
{
	if (req->command != APH_AFRX_DATA)
		return -EINVAL;
	req->command = command;
	return 0;
}

static int read_abort(struct aph_afrx_request *req, const void *data, size_t len)
{
	if (req->command != APH_AFRX_DATA || len != sizeof(uint32_t))
		return -EINVAL;
	memcpy(&req->abort_code, data, sizeof(uint32_t));
	if (req->abort_code == 0)
		return -EINVAL;
	return set_command(req, APH_AFRX_ABORT);
}

static int read_accept(struct aph_afrx_request *req, const struct aph_afrx_socket *s, size_t len)
{
	if (req->command != APH_AFRX_DATA)
		return -EINVAL;
	if (s->state < APH_AFRX_SERVER_BOUND)
		return -EISCONN;
	return len ? -EINVAL : set_command(req, APH_AFRX_ACCEPT);
}

static int read_length(struct aph_afrx_request *req, const void *data, size_t len)
{
	if (req->tx_length != -1 || len != sizeof(int64_t))
		return -EINVAL;
	memcpy(&req->tx_length, data, sizeof(int64_t));
	return req->tx_length < 0 ? -EINVAL : 0;
}

static int read_timeouts(struct aph_afrx_request *req, const void *data, size_t len)
{
	uint32_t values[3] = { 0 };

	if (len == 0 || len > sizeof(values) || len % sizeof(values[0]))
		return -EINVAL;
	memcpy(values, data, len);
	req->n_timeouts = (unsigned)(len / sizeof(values[0]));
	req->hard_s = values[0];
	req->idle_ms = values[1];
	req->normal_ms = values[2];
	if (req->hard_s > HARD_MAX || req->idle_ms > WAIT_MAX || req->normal_ms > WAIT_MAX)
		return -ERANGE;
	return 0;
}

static int read_tag(struct aph_afrx_request *req, const void *data, size_t len)
{
	uint32_t half;

	if (len == sizeof(req->tag)) {
		memcpy(&req->tag, data, sizeof(req->tag));
	} else if (len == sizeof(half)) {
		/* Of programs that were written for 32 bits. */
		memcpy(&half, data, sizeof(half));
		req->tag = half;
	} else {
		return -EINVAL;
	}
	req->has_tag = true;
	return 0;
}

static int read_one(struct aph_afrx_request *req, const struct aph_afrx_socket *s, int type,
		    const void *data, size_t len)
{
	switch (type) {
	case RXRPC_USER_CALL_ID:
		return read_tag(req, data, len);
	case RXRPC_ABORT:
		return read_abort(req, data, len);
	case RXRPC_ACCEPT:
		return read_accept(req, s, len);
	case RXRPC_CHARGE_ACCEPT:
		return len ? -EINVAL : set_command(req, APH_AFRX_CHARGE);
	case RXRPC_EXCLUSIVE_CALL:
		req->exclusive = true;
		return len ? -EINVAL : 0;
	case RXRPC_UPGRADE_SERVICE:
		req->upgrade = true;
		return len ? -EINVAL : 0;
	case RXRPC_TX_LENGTH:
		return read_length(req, data, len);
	case RXRPC_SET_CALL_TIMEOUT:
		return read_timeouts(req, data, len);
	default:
		return -EINVAL;
	}
}

static int check(const struct aph_afrx_request *req)
{
	if (!req->has_tag)
		return -EINVAL;
	if (req->tx_length != -1 && req->command != APH_AFRX_DATA)
		return -EINVAL;
	if (req->command == APH_AFRX_CHARGE && (req->exclusive || req->upgrade || req->n_timeouts))
		return -EINVAL;
	return 0;
}

static int read_all(struct aph_afrx_request *req, const struct aph_afrx_socket *s,
		    const char *control, size_t len)
{
	size_t at = 0;
	int r;

	/* A tail that is too short for a header is not one. */
	while (len - at >= sizeof(struct cmsghdr)) {
		struct cmsghdr header;

		memcpy(&header, control + at, sizeof(header));
		if (header.cmsg_len < sizeof(header) || header.cmsg_len > len - at)
			return -EINVAL;
		if (header.cmsg_level == SOL_RXRPC) {
			r = read_one(req, s, header.cmsg_type, control + at + sizeof(header),
				     header.cmsg_len - sizeof(header));
			if (r < 0)
				return r;
		}
		if (CMSG_ALIGN(header.cmsg_len) >= len - at)
			break;
		at += CMSG_ALIGN(header.cmsg_len);
	}
	return check(req);
}

static_assert(CMSG_LEN(0) == sizeof(struct cmsghdr), "data follow the header");

int aph_afrx_request_read(struct aph_afrx_request *out, const struct aph_afrx_socket *s,
			  const struct msghdr *message)
{
	char small[256], *control = small;
	size_t len = message->msg_controllen;
	int r;

	*out = (struct aph_afrx_request){ .command = APH_AFRX_DATA, .tx_length = -1 };
	if (len == 0)
		return -EINVAL;
	if (len > APH_AFRX_CONTROL_MAX)
		return -ENOBUFS;
	if (len > sizeof(small)) {
		control = malloc(len);
		if (!control)
			return -ENOMEM;
	}
	r = aph_afrx_copy_in(control, message->msg_control, len);
	if (r == 0)
		r = read_all(out, s, control, len);
	if (control != small)
		free(control);
	return r;
}

/* As a kernel puts them: one that does not fit is cut, even inside its header's data. */
void aph_afrx_control_put(struct aph_afrx_control *c, int level, int type, const void *data,
			  size_t len)
{
	struct cmsghdr header = { .cmsg_len = CMSG_LEN(len),
				  .cmsg_level = level,
				  .cmsg_type = type };
	char *at = c->bytes + c->used;
	size_t room;

	assert(c->used + CMSG_SPACE(len) <= sizeof(c->bytes));
	if (c->left < sizeof(header)) {
		c->flags |= MSG_CTRUNC;
		return;
	}
	if (c->left < header.cmsg_len) {
		c->flags |= MSG_CTRUNC;
		header.cmsg_len = c->left;
	}
	memset(at, 0, CMSG_SPACE(len));
	memcpy(at, &header, sizeof(header));
	if (len)
		memcpy(at + sizeof(header), data, len);
	room = CMSG_SPACE(len) < c->left ? CMSG_SPACE(len) : c->left;
	c->left -= room;
	c->used += room;
}
