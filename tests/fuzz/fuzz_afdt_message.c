/* SPDX-License-Identifier: MIT */
/*
 * Bytes and descriptors that arrive in any pieces, read as messages of libafdt: what is taken for
 * one fits its room, and every descriptor is somebody's.
 */
#include "check.h"
#include "fuzz.h"

#include <afdt.h>
#include <antiphon/afdt.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void receive(int sock, struct feed *feed)
{
	uint8_t bytes[AFDT_FULL_MSGLEN];
	int fds[APH_AFDT_FDS_MAX], fd = -2;
	struct aph_afdt_room room = { bytes, feed_u8(feed) * 2u, fds, feed_u8(feed) % 8 };
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	const struct aph_afdt_room before = room;
	uint32_t len = (uint32_t)room.len;

	if (feed_u8(feed) & 1) {
		if (afdt_recv_fd_msg(sock, bytes, &len, &fd, &err) == 0)
			CHECK(len <= before.len && fd >= -1);
		else
			CHECK(fd == -1 && len == before.len && err.operation != AFDT_NO_OPERATION);
		if (fd >= 0)
			CHECK_OK(close(fd));
		return;
	}
	if (aph_afdt_recv_msg(sock, &room, &err) < 0) {
		CHECK(room.len == before.len && room.n_fds == before.n_fds && err.message[0]);
		return;
	}
	CHECK(room.len <= before.len && room.n_fds <= before.n_fds);
	while (room.n_fds)
		CHECK_OK(close(fds[--room.n_fds]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct feed feed = { data, size };
	int pair[2], fds[8] = { 2, 2, 2, 2, 2, 2, 2, 2 };
	struct fds before;

	fds_take(&before);
	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	CHECK_OK(fcntl(pair[0], F_SETFL, O_NONBLOCK));
	while (feed.left > 0) {
		uint8_t shape = feed_u8(&feed);
		const uint8_t *bytes;
		size_t len;

		if (shape & 128) {
			receive(pair[0], &feed);
			continue;
		}
		bytes = feed_bytes(&feed, shape & 64 ? feed_u8(&feed) : 4, &len);
		if (len)
			wire_send(pair[1], bytes, len, fds, shape & 7);
	}
	shutdown(pair[1], SHUT_WR);
	receive(pair[0], &feed);
	close(pair[0]);
	close(pair[1]);
	CHECK(fds_differ_but_pipes(&before) == 0);
	return 0;
}
