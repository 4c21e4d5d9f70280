/* SPDX-License-Identifier: MIT */
/*
 * The program's memory. The interface promises EFAULT for pointers that lead nowhere, so it is not touched here
 * but by the kernel, which tells. Where the kernel may not be asked (a sandbox), it is touched after all.
 */
#include "socket.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BYTES_MAX ((size_t)0x7ffff000) /* what the kernel takes in one go */

static bool is_unavailable(int error)
{
	return error == ENOSYS || error == EPERM;
}

int aph_afrx_copy_in(void *to, const void *from, size_t len)
{
	struct iovec local = { to, len }, remote = { (void *)(uintptr_t)from, len };
	ssize_t n;

	if (len == 0)
		return 0;
	n = process_vm_readv(aph_afrx_process(), &local, 1, &remote, 1, 0);
	if (n < 0 && is_unavailable(errno)) {
		memcpy(to, from, len);
		return 0;
	}
	return n == (ssize_t)len ? 0 : -EFAULT;
}

int aph_afrx_copy_out(void *to, const void *from, size_t len)
{
	struct iovec local = { (void *)(uintptr_t)from, len }, remote = { to, len };
	ssize_t n;

	if (len == 0)
		return 0;
	n = process_vm_writev(aph_afrx_process(), &local, 1, &remote, 1, 0);
	if (n < 0 && is_unavailable(errno)) {
		memcpy(to, from, len);
		return 0;
	}
	return n == (ssize_t)len ? 0 : -EFAULT;
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
			out[n].iov_base = (char *)v->iov[i].iov_base + offset;
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

static int move(struct aph_afrx_vector *v, void *ours, size_t len, bool in)
{
	struct aph_afrx_vector next = *v;
	struct iovec pieces[16], local;
	size_t left = v->left - len;
	ssize_t n;

	/* slice() looks at no pieces but v's, which `next` has only a pointer to. */
	while (len) {
		size_t part = len, n_pieces;

		n_pieces = slice(&next, pieces, sizeof(pieces) / sizeof(pieces[0]), &part, &next);
		local = (struct iovec){ ours, part };
		n = in ? process_vm_readv(aph_afrx_process(), &local, 1, pieces, n_pieces, 0)
		       : process_vm_writev(aph_afrx_process(), &local, 1, pieces, n_pieces, 0);
		if (n < 0 && is_unavailable(errno)) {
			size_t i, done = 0;

			for (i = 0; i < n_pieces; done += pieces[i++].iov_len) {
				if (in)
					memcpy((char *)ours + done, pieces[i].iov_base,
					       pieces[i].iov_len);
				else
					memcpy(pieces[i].iov_base, (char *)ours + done,
					       pieces[i].iov_len);
			}
			n = (ssize_t)part;
		}
		if (n != (ssize_t)part)
			return -EFAULT;
		ours = (char *)ours + part;
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
	return move(v, (void *)(uintptr_t)from, len, false);
}
