/* SPDX-License-Identifier: MIT */
/*
 * The program's memory. The interface promises EFAULT for pointers that lead nowhere, so it is not
 * touched here before the kernel has been there, which tells: it copies, or for the little that
 * most messages are it only has a look, which costs a quarter. Where the kernel may not be asked (a
 * sandbox), memory is touched after all. A program that takes away what it has lent, meanwhile,
 * gets a signal, as from any function of the C library.
 */
#include "socket.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BYTES_MAX ((size_t)0x7ffff000) /* what the kernel takes in one go */
#define LITTLE	  512u		       /* bytes, on one page or two */
#define PAGE	  4096u		       /* or more: no page ends within one of these */
#define N_SIGBITS 8u		       /* bytes of the kernel's set of signals */

static bool is_unavailable(int error)
{
	return error == ENOSYS || error == EPERM;
}

/*
 * Whether the word can be read that this address is in: the kernel reads a set of signals before it
 * finds out that there is nothing to do with it. EINVAL: yes; EFAULT: no. At NULL there is no set,
 * and nothing is read.
 */
static int look_at(uintptr_t address)
{
	const uintptr_t word = address & ~(uintptr_t)(N_SIGBITS - 1);
	const int nothing_to_do = -1;

	if (!word)
		return EFAULT;
	(void)syscall(SYS_rt_sigprocmask, nothing_to_do, word, NULL, N_SIGBITS);
	return errno;
}

/* True when all of it has been looked at: `*r` is 0 or -EFAULT. False: ask in another way. */
static bool look(const void *from, size_t len, int *r)
{
	uintptr_t first = (uintptr_t)from, last = first + len - 1;
	int error;

	if (len > LITTLE || last < first)
		return false;
	error = look_at(first);
	if (error == EINVAL && first / PAGE != last / PAGE)
		error = look_at(last);
	*r = error == EFAULT ? -EFAULT : 0;
	return error == EFAULT || error == EINVAL;
}

int aph_afrx_check(const void *at, size_t len)
{
	int r;

	return at && len && look(at, len < LITTLE ? len : LITTLE, &r) ? r : 0;
}

/* Between a place of ours and pieces of the program's, together as long. 0, -EFAULT. */
static int copy_pieces(char *ours, const struct iovec *pieces, size_t n_pieces, size_t len, bool in)
{
	struct iovec local = { ours, len };
	ssize_t n = in ? process_vm_readv(aph_afrx_process(), &local, 1, pieces, n_pieces, 0)
		       : process_vm_writev(aph_afrx_process(), &local, 1, pieces, n_pieces, 0);
	size_t i;

	if (n >= 0 || !is_unavailable(errno))
		return n == (ssize_t)len ? 0 : -EFAULT;
	for (i = 0; i < n_pieces; ours += pieces[i++].iov_len) {
		if (in)
			memcpy(ours, pieces[i].iov_base, pieces[i].iov_len);
		else
			memcpy(pieces[i].iov_base, ours, pieces[i].iov_len);
	}
	return 0;
}

int aph_afrx_copy_in(void *to, const void *from, size_t len)
{
	struct iovec piece = { (void *)(uintptr_t)from, len };
	int r;

	if (len == 0)
		return 0;
	if (!look(from, len, &r))
		return copy_pieces(to, &piece, 1, len, true);
	if (r == 0)
		memcpy(to, from, len);
	return r;
}

int aph_afrx_copy_out(void *to, const void *from, size_t len)
{
	struct iovec piece = { to, len };

	return len ? copy_pieces((char *)(uintptr_t)from, &piece, 1, len, false) : 0;
}

int aph_afrx_copy_out_all(const struct iovec *to, const struct iovec *from, size_t n)
{
	size_t i, len = 0;
	ssize_t done = process_vm_writev(aph_afrx_process(), from, n, to, n, 0);

	for (i = 0; i < n; i++)
		len += from[i].iov_len;
	if (done >= 0 || !is_unavailable(errno))
		return done == (ssize_t)len ? 0 : -EFAULT;
	for (i = 0; i < n; i++)
		if (from[i].iov_len)
			memcpy(to[i].iov_base, from[i].iov_base, from[i].iov_len);
	return 0;
}

/*
 * Looks at both ends of each piece: what leads nowhere mostly does so from the beginning or before
 * the end.
 */
int aph_afrx_vector_check(const struct aph_afrx_vector *v)
{
	size_t i;
	int r;

	for (i = 0; i < v->n; i++) {
		const char *at = v->iov[i].iov_base;
		size_t len = v->iov[i].iov_len;

		if (len && look(at, 1, &r) && r < 0)
			return r;
		if (len > 1 && look(at + len - 1, 1, &r) && r < 0)
			return r;
	}
	return 0;
}

static int vector_init(struct aph_afrx_vector *v, const struct iovec *iov, size_t n)
{
	size_t i;
	int r;

	v->iov = v->fixed;
	v->n = n;
	v->i = v->offset = v->left = 0;
	if (n > IOV_MAX)
		return -EMSGSIZE;
	if (n > sizeof(v->fixed) / sizeof(v->fixed[0])) {
		v->iov = calloc(n, sizeof(*v->iov));
		if (!v->iov)
			return -ENOMEM;
	}
	r = aph_afrx_copy_in(v->iov, iov, n * sizeof(*iov));
	for (i = 0; r == 0 && i < n; i++) {
		if (v->iov[i].iov_len > SSIZE_MAX)
			r = -EINVAL;
		else if (v->iov[i].iov_len > BYTES_MAX - v->left)
			v->iov[i].iov_len = BYTES_MAX - v->left;
		v->left += r == 0 ? v->iov[i].iov_len : 0;
	}
	if (r < 0)
		aph_afrx_vector_deinit(v);
	return r;
}

int aph_afrx_message_copy(struct msghdr *copy, struct aph_afrx_vector *v,
			  const struct msghdr *message)
{
	int r = aph_afrx_copy_in(copy, message, sizeof(*copy));

	/* It is an int to the kernel. */
	if (r == 0 && copy->msg_name && copy->msg_namelen > INT_MAX)
		r = -EINVAL;
	return r == 0 ? vector_init(v, copy->msg_iov, copy->msg_iovlen) : r;
}

void aph_afrx_vector_deinit(struct aph_afrx_vector *v)
{
	if (v->iov != v->fixed)
		free(v->iov);
	v->iov = v->fixed;
}

/* The next `len` bytes as pieces; returns how many pieces, and moves on only in `next`. */
static size_t slice(const struct aph_afrx_vector *v, struct iovec *out, size_t max, size_t *len,
		    struct aph_afrx_vector *next)
{
	size_t i = v->i, offset = v->offset, n = 0, sum = 0;

	while (sum < *len && i < v->n && n < max) {
		size_t room = v->iov[i].iov_len - offset;
		size_t piece = room < *len - sum ? room : *len - sum;

		if (piece) {
			/* Not a pointer's arithmetic: whoever gave it may have given NULL. */
			out[n].iov_base = (void *)((uintptr_t)v->iov[i].iov_base + offset);
			out[n++].iov_len = piece;
		}
		sum += piece;
		offset += piece;
		if (offset == v->iov[i].iov_len) {
			i++;
			offset = 0;
		}
	}
	next->i = i;
	next->offset = offset;
	*len = sum;
	return n;
}

static int move(struct aph_afrx_vector *v, char *ours, size_t len, bool in)
{
	struct aph_afrx_vector next = *v;
	struct iovec pieces[16];
	size_t left = v->left - len;
	int r;

	/* slice() looks at no pieces but v's, which `next` has only a pointer to. */
	while (len) {
		size_t part = len, n;

		n = slice(&next, pieces, sizeof(pieces) / sizeof(pieces[0]), &part, &next);
		r = in && n == 1 ? aph_afrx_copy_in(ours, pieces[0].iov_base, part)
				 : copy_pieces(ours, pieces, n, part, in);
		if (r < 0)
			return r;
		ours += part;
		len -= part;
	}
	v->left = left;
	v->i = next.i;
	v->offset = next.offset;
	return 0;
}

int aph_afrx_vector_gather(struct aph_afrx_vector *v, void *to, size_t len)
{
	return move(v, to, len, true);
}

int aph_afrx_vector_scatter(struct aph_afrx_vector *v, const void *from, size_t len)
{
	return move(v, (char *)(uintptr_t)from, len, false);
}
