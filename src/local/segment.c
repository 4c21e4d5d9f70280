/* SPDX-License-Identifier: MIT */
/* Shared memory: sealed memfds, made by the server, checked by the client before it maps them. */
#include "base/error.h"
#include "local/local.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static int fail(const char *what)
{
	int e = errno;

	return aph_err(-e, "cannot make shared memory (%s): %s%s", what, strerror(e),
		       aph_advice(e));
}

/* A forked child must not keep the mapping: it would go on with rings that belong to the parent. */
static void *map(int fd, size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED) {
		/*
		 * Too much would be locked (mlockall(2)). It does not mean "later", as EAGAIN does
		 * elsewhere.
		 */
		if (errno == EAGAIN)
			errno = ENOMEM;
		return NULL;
	}
	(void)madvise(p, size, MADV_DONTFORK);
	return p;
}

/* Beyond the limit on file sizes the kernel does not say no: it kills, by SIGXFSZ. */
static int set_size(int fd, size_t size)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < size)
		return aph_err(-EFBIG,
			       "shared memory of %zu bytes goes beyond the limit on file sizes: "
			       "raise it (ulimit -f)",
			       size);
	return ftruncate(fd, (off_t)size) < 0 ? fail("ftruncate") : 0;
}

int aph_segment_make(int *out_fd, void **out_map, size_t size, const char *name,
		     bool read_only_to_peer)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p = NULL;
	int r;

	if (fd < 0)
		return fail("memfd_create");
	if (read_only_to_peer)
		seals |= F_SEAL_FUTURE_WRITE;
	r = set_size(fd, size);
	if (r == 0 && !(p = map(fd, size, PROT_READ | PROT_WRITE)))
		r = fail("mmap");
	if (r == 0 && fcntl(fd, F_ADD_SEALS, seals) < 0)
		r = fail("F_ADD_SEALS");
	if (r < 0) {
		if (p)
			(void)munmap(p, size);
		(void)close(fd);
		return r;
	}
	*out_fd = fd;
	*out_map = p;
	return 0;
}

int aph_segment_map(void **out_map, int fd, size_t size, bool writable)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	/* The seals are what rules out SIGBUS: nobody can cut the file off under us. */
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || !(seals & F_SEAL_GROW))
		return aph_err(-EPROTO,
			       "the service sent memory that is not sealed against shrinking");
	if (fstat(fd, &st) < 0 || st.st_size != (off_t)size)
		return aph_err(-EPROTO, "the service sent memory of the wrong size");
	p = map(fd, size, writable ? PROT_READ | PROT_WRITE : PROT_READ);
	if (!p)
		return fail("mmap");
	*out_map = p;
	return 0;
}
