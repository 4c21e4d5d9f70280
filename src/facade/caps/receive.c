/* SPDX-License-Identifier: MIT */
/*
 * Receiving: who is in aph_endpoint_next(), and what caps_sys_get() and caps_sys_wait() make of it.
 *
 * The common case is a program with one thread: it finds nothing queued, becomes the receiver, and
 * takes the message that its event brings straight from the channel. Only when another thread
 * receives does it follow: it sleeps on `turn` until the receiver leaves.
 */
#include "port.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define EVENTS_AT_ONCE 256
/* A limit: without one SA_RESTART would hide signals from a futex. */
#define FOLLOW_MS 3600000u

int aph_caps_fail(int r)
{
	errno = -r;
	return -1;
}

/* -- the receiver ------------------------------------------------------------------------------ */

void aph_caps_event(struct aph_caps_port *port, const struct aph_event *ev)
{
	if (port->type == CAPT_SERVICE)
		aph_caps_service_event(port, ev);
	else
		aph_caps_client_event(port, ev);
}

void aph_caps_leave(struct aph_caps_port *port)
{
	bool closing = !aph_caps_is_open(port);

	if (port->n_followers && (closing || port->receiver == APH_CAPS_NOBODY))
		aph_caps_ring(&port->turn, closing ? INT_MAX : 1);
	if (closing) {
		aph_caps_ring(&port->closed, 1);
		return;
	}
	/* This thread made something ready that no event will tell the receiver of. */
	if (port->receiver == APH_CAPS_PROGRAM && !aph_caps_link_empty(&port->ready))
		(void)aph_endpoint_wake(port->ep);
	if (port->parked && port->receiver == APH_CAPS_NOBODY)
		aph_caps_ring(&port->attention, 1);
	if (aph_caps_upcall_wanted(port))
		aph_caps_upcall_tell(port);
}

/* Waits for the turn to change, or for a signal. */
static int follow(struct aph_caps_port *port)
{
	long r;

	if (port->receiver == APH_CAPS_ATTENDANT && !port->called_back) {
		port->called_back = true;
		(void)aph_endpoint_wake(port->ep);
	}
	port->n_followers++;
	r = aph_caps_port_sleep(port, &port->turn, FOLLOW_MS);
	port->n_followers--;
	if (!aph_caps_is_open(port))
		return -EINVAL;
	return r == -EINTR ? -EINTR : 0;
}

int aph_caps_receive(struct aph_caps_port *port, uint64_t deadline_ns)
{
	struct aph_event ev;
	int r;

	if (port->receiver == APH_CAPS_PROGRAM && deadline_ns == APH_NOW)
		return -EAGAIN; /* whatever comes is another thread's */
	if (port->receiver != APH_CAPS_NOBODY)
		return follow(port);

	port->visits++;
	if (deadline_ns == APH_NOW) {
		r = aph_endpoint_next(port->ep, &ev, APH_NOW);
	} else {
		port->receiver = APH_CAPS_PROGRAM;
		aph_caps_port_unlock(port);
		r = aph_endpoint_next(port->ep, &ev, deadline_ns);
		aph_caps_port_relock(port);
		port->receiver = APH_CAPS_NOBODY;
	}
	port->received = true;
	if (r == 0)
		aph_caps_event(port, &ev);
	if (!aph_caps_is_open(port))
		return -EINVAL;
	return r == -ECANCELED ? 0 : r;
}

void aph_caps_receive_all(struct aph_caps_port *port)
{
	int i, r = 0;

	for (i = 0; i < EVENTS_AT_ONCE && (r == 0 || r == -EINTR); i++)
		r = aph_caps_receive(port, APH_NOW);
}

/* -- retrieving -------------------------------------------------------------------------------- */

struct wanted {
	char *buf;
	size_t max;
	caps_msgid_t id;
	caps_cred_t cred;
};

static void describe_sender(const struct aph_caps_port *port, const struct aph_caps_message *m,
			    caps_cred_t cred)
{
	/*
	 * Another process may have taken over the service; while nobody receives nothing changes.
	 */
	if (m->peer && port->type == CAPT_CLIENT && port->receiver == APH_CAPS_NOBODY)
		aph_caps_peer_refresh(m->peer);
	if (!(port->flags & CAPF_NOGROUPS)) {
		*cred = m->peer ? m->peer->cred : (struct caps_cred){ 0 };
		return;
	}
	/* groups[] is the last member and is not touched. */
	if (m->peer)
		memcpy(cred, &m->peer->cred, offsetof(struct caps_cred, groups));
	else
		memset(cred, 0, offsetof(struct caps_cred, groups));
	cred->ngroups = 0;
}

static void describe(const struct aph_caps_port *port, const struct aph_caps_message *m,
		     const struct wanted *w)
{
	if (w->id)
		*w->id = (struct caps_msgid){ .c_id = m->id, .c_state = m->state };
	if (w->id && m->peer && (m->state == CAPMS_CONNECT || m->state == CAPMS_DISCONNECT))
		w->id->c_id = m->peer->cred.cacheid;
	else if (w->id && m->state == CAPMS_ABORT)
		w->id->c_id = m->about;
	else if (w->id && m->state == CAPMS_TERM)
		w->id->c_id = 0;
	if (w->cred)
		describe_sender(port, m, w->cred);
}

/* The next abort of this message may tell the program again. */
static void forget_reminder(struct aph_caps_port *port, off_t id)
{
	struct aph_caps_message *about = aph_caps_message_find(port, id);

	if (about)
		about->reminded = false;
}

/* The message has been retrieved whole. */
static void pass_on(struct aph_caps_port *port, struct aph_caps_message *m)
{
	struct aph_caps_peer *peer = m->peer;

	aph_caps_link_remove(&m->link);
	if (m->state == CAPMS_REQUEST) {
		m->stage = APH_CAPS_HELD;
	} else {
		if (m->state == CAPMS_CONNECT)
			peer->announced = true;
		if (m->state == CAPMS_ABORT)
			forget_reminder(port, m->about);
		if (peer)
			peer->refs++;
		aph_caps_message_free(port, m);
		if (port->type == CAPT_CLIENT) {
			port->n_in_progress--;
			if (!aph_caps_link_empty(&port->outgoing))
				aph_caps_client_pump(port);
		}
		if (peer)
			aph_caps_peer_unref(peer);
	}
}

void aph_caps_resume(struct aph_caps_port *port, struct aph_caps_peer *peer)
{
	struct aph_caps_link *pos, *next;

	if (!peer)
		return;
	for (pos = peer->messages.next; pos != &peer->messages && !peer->n_gathered; pos = next) {
		struct aph_caps_message *m =
			APH_CAPS_CONTAINER(pos, struct aph_caps_message, peer_link);

		next = pos->next;
		if (port->type == CAPT_SERVICE && m->stage == APH_CAPS_ARRIVING)
			aph_caps_service_gather(port, m);
		else if (port->type == CAPT_CLIENT && m->stage == APH_CAPS_SENT && m->begun)
			aph_caps_client_gather(port, m);
	}
}

/*
 * Retrieves the oldest message. Its length; -EAGAIN when there is none after all; or what it fails
 * with, which is its end.
 */
static int retrieve(struct aph_caps_port *port, const struct wanted *w)
{
	struct aph_caps_message *m;

	while ((m = aph_caps_message_first(port))) {
		struct aph_caps_peer *peer = aph_caps_held_up(m);
		size_t len = aph_caps_body_len(m);
		int r;

		if (len > w->max) {
			m->peeked = true;
			describe(port, m, w);
			if (aph_caps_body_peek(m, w->buf, w->max) == 0)
				return (int)len;
			r = -EPIPE;
		} else {
			r = aph_caps_body_take(m, w->buf, len);
		}
		if (r < 0 && m->state == CAPMS_REQUEST) {
			/* Its client has broken off, and nobody has seen the request. */
			aph_caps_message_free(port, m);
			aph_caps_resume(port, peer);
			continue;
		}
		describe(port, m, w);
		r = r < 0 ? 0 : m->error ? -m->error : (int)len;
		if (peer)
			peer->refs++;
		pass_on(port, m);
		port->fresh =
			true; /* if something is left, whoever waits to be told is told again */
		aph_caps_resume(port, peer);
		if (peer)
			aph_caps_peer_unref(peer);
		return r;
	}
	return -EAGAIN;
}

static int finish(struct aph_caps_port *port, int r)
{
	aph_caps_leave(port);
	aph_caps_port_unlock(port);
	return r < 0 ? aph_caps_fail(r) : r;
}

static struct aph_caps_port *begin(int number, struct wanted *w, void *buf, int max)
{
	if (max < 0) {
		errno = EINVAL;
		return NULL;
	}
	if (!buf && max > 0) {
		errno = EFAULT;
		return NULL;
	}
	w->buf = buf;
	w->max = (size_t)max;
	return aph_caps_port_lock(number);
}

APH_API int caps_sys_get(int number, void *buf, int max, caps_msgid_t id, caps_cred_t cred)
{
	struct wanted w = { .id = id, .cred = cred };
	struct aph_caps_port *port = begin(number, &w, buf, max);

	if (!port)
		return -1;
	/*
	 * Everything that has come is looked at before the first of it is handed out: a request
	 * whose client has gone must not be.
	 */
	aph_caps_receive_all(port);
	if (!aph_caps_is_open(port))
		return finish(port, -EINVAL);
	return finish(port, retrieve(port, &w));
}

/* Nothing can come any more: the service has gone and all messages were retrieved. */
static bool is_over(const struct aph_caps_port *port)
{
	return port->type == CAPT_CLIENT && port->disconnected && !port->n_in_progress;
}

APH_API int caps_sys_wait(int number, void *buf, int max, caps_msgid_t id, caps_cred_t cred)
{
	struct wanted w = { .id = id, .cred = cred };
	struct aph_caps_port *port = begin(number, &w, buf, max);
	int r;

	if (!port)
		return -1;
	for (;;) {
		r = retrieve(port, &w);
		if (r != -EAGAIN)
			break;
		if (is_over(port)) {
			r = -ENOTCONN;
			break;
		}
		r = aph_caps_receive(port, APH_FOREVER);
		if (r < 0)
			break;
	}
	return finish(port, r);
}
