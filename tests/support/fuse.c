/* SPDX-License-Identifier: MIT */
/*
 * The kernel's protocol without a library: the mount's root is a file. It is mounted in namespaces
 * of the server's, so that nobody else comes across it, and opened by a child, as the server has to
 * answer that.
 */
#include "fuse.h"

#include "check.h"
#include "dir.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void answer(int dev, uint64_t unique, int error, const void *data, size_t len)
{
	struct {
		struct fuse_out_header header;
		char data[256];
	} out = { .header = { .len = (uint32_t)(sizeof(out.header) + len),
			      .error = error,
			      .unique = unique } };

	if (len)
		memcpy(out.data, data, len);
	(void)!write(dev, &out, out.header.len);
}

static void serve_one(int dev, const struct fuse_in_header *in)
{
	struct fuse_init_out init = { .major = FUSE_KERNEL_VERSION,
				      .minor = 31,
				      .max_write = 4096 };
	struct fuse_attr_out attr = { .attr = { .ino = 1, .mode = S_IFREG | 0666, .nlink = 1 } };
	struct fuse_open_out opened = { .fh = 1 };

	switch (in->opcode) {
	case FUSE_INIT:
		answer(dev, in->unique, 0, &init, sizeof(init));
		break;
	case FUSE_GETATTR:
		answer(dev, in->unique, 0, &attr, sizeof(attr));
		break;
	case FUSE_OPEN:
		answer(dev, in->unique, 0, &opened, sizeof(opened));
		break;
	case FUSE_FLUSH:
	case FUSE_FORGET:
		break;
	default:
		answer(dev, in->unique, -ENOSYS, NULL, 0);
	}
}

static void serve(int dev)
{
	static _Alignas(8) char request[FUSE_MIN_READ_BUFFER * 2];

	for (;;) {
		ssize_t n = read(dev, request, sizeof(request));

		if (n >= (ssize_t)sizeof(struct fuse_in_header))
			serve_one(dev, (const void *)request);
		else if (n >= 0 || (errno != EINTR && errno != ENOENT))
			_exit(0);
	}
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		perror(path);
	if (fd >= 0)
		close(fd);
}

static int enter_namespaces(void)
{
	unsigned uid = geteuid(), gid = getegid();
	char map[32];

	if (unshare(uid ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) < 0)
		return -errno;
	if (uid) {
		(void)snprintf(map, sizeof(map), "0 %u 1", uid);
		write_file("/proc/self/uid_map", map);
		write_file("/proc/self/setgroups", "deny");
		(void)snprintf(map, sizeof(map), "0 %u 1", gid);
		write_file("/proc/self/gid_map", map);
	}
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? -errno : 0;
}

/* /dev/fuse, mounted on the file `path`. */
static int mount_on(const char *path)
{
	char options[96];
	int dev, r = enter_namespaces();

	if (r < 0)
		return r;
	dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -errno;
	(void)snprintf(options, sizeof(options), "fd=%d,rootmode=100000,user_id=0,group_id=0", dev);
	return mount("test", path, "fuse", 0, options) < 0 ? -errno : dev;
}

/* An error, or who has opened it and the descriptor. */
static void hand_over(int ctl, int result, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .header = { .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS,
				  .cmsg_len = CMSG_LEN(sizeof(int)) } };
	struct iovec iov = { &result, sizeof(result) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (result > 0) {
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	CHECK_OK(sendmsg(ctl, &msg, MSG_NOSIGNAL));
}

static int run(int ctl, void *arg)
{
	const char *path = arg;
	int dev = mount_on(path), fd;

	if (dev < 0) {
		hand_over(ctl, dev, -1);
		return 0;
	}
	if (CHECK_OK(fork()) == 0) {
		(void)close(dev);
		fd = open(path, O_RDWR | O_CLOEXEC);
		hand_over(ctl, fd < 0 ? -errno : getpid(), fd);
		_exit(0); /* with the server */
	}
	serve(dev);
	return 0;
}

int fuse_begin(struct fuse_file *file)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	int result;
	struct iovec iov = { &result, sizeof(result) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/fuse", dir_path());
	CHECK_OK(close((int)CHECK_OK(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600))));
	child_start(&file->server, run, path);
	CHECK(recvmsg(file->server.ctl, &msg, MSG_CMSG_CLOEXEC) == sizeof(result));
	CHECK_OK(unlink(path));
	if (result < 0) {
		child_kill(&file->server);
		return result;
	}
	file->opener = result;
	memcpy(&file->fd, CMSG_DATA(&control.header), sizeof(int));
	return 0;
}

void fuse_end(struct fuse_file *file)
{
	child_kill(&file->server);
	/* Where orphans come to this process. */
	(void)waitpid(file->opener, NULL, 0);
	(void)close(file->fd);
}
