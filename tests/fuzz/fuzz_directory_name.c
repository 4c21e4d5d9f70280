/* SPDX-License-Identifier: MIT */
/*
 * Files of any name and kind in the runtime directory, which others may put there: the list has
 * none of them that does not answer, and a client that looks for a name is not misled.
 */
#include "check.h"
#include "dir.h"
#include "fds.h"
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FILES 8

static char paths[FILES][256];

static void put(size_t number, uint8_t kind, const uint8_t *name, size_t len)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char *path = paths[number];
	int n = snprintf(path, sizeof(paths[0]), "%s/", dir_path());
	int fd;

	for (size_t i = 0; i < len; i++)
		path[n++] = (char)(name[i] == 0 || name[i] == '/' ? '_' : name[i]);
	path[n] = 0;
	if (len == 0 || strcmp(path + n - len, ".") == 0 || strcmp(path + n - len, "..") == 0) {
		path[0] = 0;
		return;
	}
	switch (kind % 4) {
	case 0:
		if (strlen(path) >= sizeof(address.sun_path))
			return;
		memcpy(address.sun_path, path, strlen(path) + 1);
		fd = (int)CHECK_OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
		(void)bind(fd, (void *)&address, sizeof(address));
		close(fd);
		break;
	case 1:
		fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		if (fd >= 0)
			close(fd);
		break;
	case 2:
		(void)mkfifo(path, 0600);
		break;
	default:
		(void)!symlink("/dev/null", path);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct feed feed = { data, size };
	struct aph_service_info *list;
	struct aph_channel *channel;
	struct aph_endpoint *ep;
	size_t n, n_files = 0, len;
	const uint8_t *name;
	int r;

	fuzz_dir();
	while (n_files < FILES && feed.left > 0) {
		uint8_t shape = feed_u8(&feed);

		name = feed_bytes(&feed, shape >> 2, &len);
		put(n_files++, shape, name, len);
	}
	CHECK_OK(aph_directory_list(&list, &n, aph_deadline_ms(50)));
	CHECK(n == 0);
	free(list);
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	r = aph_channel_open(&channel, ep, "caps:name,uid=any", NULL);
	CHECK(r == -ENOENT);
	r = aph_service_open(NULL, ep, "name", NULL);
	CHECK(r == 0);
	aph_endpoint_free(ep);
	while (n_files > 0)
		if (paths[--n_files][0])
			(void)unlink(paths[n_files]);
	CHECK(dir_sockets() == 0);
	return 0;
}
