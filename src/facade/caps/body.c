/* SPDX-License-Identifier: MIT */
/*
 * Bodies. A message can be retrieved when all of it is here, since its length must be known. What
 * fits into the channel waits there, untouched, until the program takes it: it is copied once. A
 * longer body has to make room for its own rest, so its beginning moves to private memory, which is
 * charged to the peer. While a peer has a whole message in private memory that nobody has
 * retrieved, no other of its messages is gathered: the sender waits, and the memory is bounded by
 * what it sends.
 */
#include "port.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE ((size_t)64 << 10)

/* Makes room for `more` bytes behind those that are there. */
static int reserve(struct aph_caps_message *m, size_t more)
{
	struct aph_caps_peer *peer = m->peer;
	size_t need = m->body_len + more, size = m->body_size ? m->body_size : FIRST_SIZE;
	size_t others = peer->bytes - m->body_size;
	char *body;

	if (need > peer->bytes_max || others > peer->bytes_max - need)
		return -EMSGSIZE;
	if (need <= m->body_size)
		return 0;
	while (size < need)
		size *= 2;
	if (size > peer->bytes_max - others)
		size = peer->bytes_max - others;
	body = realloc(m->body, size);
	if (!body)
		return -ENOMEM;
	m->body = body;
	m->body_size = size;
	peer->bytes = others + size;
	return 0;
}

int aph_caps_body_step(struct aph_caps_message *m)
{
	for (;;) {
		size_t here;
		ssize_t n;
		int r;

		if (aph_call_body_complete(m->call)) {
			here = m->body_len ? aph_call_available(m->call) : 0;
			return m->body_len + here > m->peer->bytes_max ? -EMSGSIZE
								       : APH_CAPS_BODY_WHOLE;
		}
		if (m->peer->n_gathered)
			return APH_CAPS_BODY_PART;
		/*
		 * At least one byte is asked for: being told -EAGAIN is what makes READABLE come.
		 */
		here = aph_call_available(m->call);
		r = reserve(m, here ? here : 1);
		if (r < 0)
			return r;
		n = aph_call_read(m->call, m->body + m->body_len, m->body_size - m->body_len);
		if (n == -EAGAIN)
			return APH_CAPS_BODY_PART;
		if (n < 0)
			return (int)n;
		m->body_len += (size_t)n;
	}
}

size_t aph_caps_body_len(const struct aph_caps_message *m)
{
	return m->body_len + (m->call ? aph_call_available(m->call) : 0);
}

int aph_caps_body_peek(struct aph_caps_message *m, char *buf, size_t max)
{
	size_t mine = m->body_len < max ? m->body_len : max;
	ssize_t n;

	if (mine)
		memcpy(buf, m->body, mine);
	if (mine == max || !m->call)
		return 0;
	n = aph_call_peek(m->call, buf + mine, max - mine);
	return n == (ssize_t)(max - mine) ? 0 : -EPIPE;
}

int aph_caps_body_take(struct aph_caps_message *m, char *buf, size_t len)
{
	size_t at = m->body_len;

	if (at)
		memcpy(buf, m->body, at);
	while (at < len) {
		ssize_t n = aph_call_read(m->call, buf + at, len - at);

		if (n <= 0)
			return -EPIPE;
		at += (size_t)n;
	}
	if (m->body || m->out)
		aph_caps_body_drop(m);
	return 0;
}

int aph_caps_body_keep(struct aph_caps_message *m, const char *data, size_t len)
{
	if (len) {
		m->out = malloc(len);
		if (!m->out)
			return -ENOMEM;
		memcpy(m->out, data, len);
	}
	m->out_len = len;
	m->out_sent = 0;
	return 0;
}

void aph_caps_body_gathered(struct aph_caps_message *m)
{
	if (m->gathered || !m->body_len)
		return;
	m->gathered = true;
	m->peer->n_gathered++;
}

void aph_caps_body_drop(struct aph_caps_message *m)
{
	if (m->gathered)
		m->peer->n_gathered--;
	m->gathered = false;
	if (m->peer)
		m->peer->bytes -= m->body_size;
	free(m->body);
	free(m->out);
	m->body = m->out = NULL;
	m->body_len = m->body_size = 0;
	m->out_len = m->out_sent = 0;
}
