/* SPDX-License-Identifier: MIT */
/*
 * What both modes of `antiphon serve` do with a call: move bytes between it and a pipe.
 */
#include "serve.h"

#include <errno.h>
#include <unistd.h>

ssize_t serve_move_request(struct aph_call *call, int fd)
{
	const void *data;
	size_t len;
	ssize_t n;
	int r;

	r = aph_call_borrow(call, &data, &len);
	if (r == -ENODATA)
		return SERVE_FD_ENDS;
	/* Whatever else is wrong with the call, its END event will say. */
	if (r < 0)
		return SERVE_CALL_WAITS;
	do {
		n = write(fd, data, len);
	} while (n < 0 && errno == EINTR);
	r = errno;
	aph_call_release(call, n > 0 ? (size_t)n : 0);
	if (n > 0)
		return n;
	return r == EAGAIN ? SERVE_FD_WAITS : SERVE_FD_ENDS;
}

ssize_t serve_move_reply(struct aph_call *call, int fd, size_t max, size_t *uncommitted)
{
	size_t len = max < SERVE_PIECE_MAX ? max : SERVE_PIECE_MAX;
	void *data;
	ssize_t n;
	int r;

	if (*uncommitted == 0) {
		r = aph_call_reserve(call, &data, &len);
		if (r < 0)
			return SERVE_CALL_WAITS;
		do {
			n = read(fd, data, len);
		} while (n < 0 && errno == EINTR);
		r = errno;
		if (n <= 0) {
			aph_call_commit(call, 0, APH_MORE);
			return n < 0 && r == EAGAIN ? SERVE_FD_WAITS : SERVE_FD_ENDS;
		}
		*uncommitted = (size_t)n;
	}
	r = aph_call_commit(call, *uncommitted, APH_MORE);
	if (r < 0)
		return SERVE_CALL_WAITS;
	n = (ssize_t)*uncommitted;
	*uncommitted = 0;
	return n;
}
