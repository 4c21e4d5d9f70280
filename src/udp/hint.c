/* SPDX-License-Identifier: MIT */
/* Who receives at a port, in memory that the processes there share. See port.h. */
#include "udp/link.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static bool map(struct aph_udp_port *port, int fd)
{
	void *memory =
		mmap(NULL, sizeof(struct aph_udp_hint), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return false;
	port->hint_fd = fd;
	atomic_store(&port->hint, memory);
	return true;
}

int aph_udp_hint_share(struct aph_udp_port *port)
{
	int fd;

	if (port->hint_fd >= 0)
		return port->hint_fd;
	fd = memfd_create("antiphon-udp", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, sizeof(struct aph_udp_hint)) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0 ||
	    !map(port, fd)) {
		(void)close(fd);
		return -ENOMEM;
	}
	return fd;
}

void aph_udp_hint_adopt(struct aph_udp_port *port, int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	/*
	 * Memory that may shrink would be our end. Without any we receive more often than we need
	 * to.
	 */
	if (port->hint_fd < 0 && seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &st) == 0 &&
	    st.st_size >= (off_t)sizeof(struct aph_udp_hint) && map(port, fd))
		return;
	(void)close(fd);
}

void aph_udp_hint_close(struct aph_udp_port *port)
{
	struct aph_udp_hint *hint = atomic_load(&port->hint);

	if (hint != &port->own_hint)
		(void)munmap(hint, sizeof(*hint));
	atomic_store(&port->hint, &port->own_hint);
	if (port->hint_fd >= 0)
		(void)close(port->hint_fd);
	port->hint_fd = -1;
}
