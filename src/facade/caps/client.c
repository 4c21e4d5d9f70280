/* SPDX-License-Identifier: MIT */
/*
 * The client's side: putting messages, the events that bring replies, the generation number.
 *
 * A message goes straight into the channel. What has no room there is copied and sent in the order
 * of the puts, as the channel has room: by whoever receives, or by the attendant while nobody does.
 */
#include "port.h"
#include "ticks.h"

#include <errno.h>
#include <stdlib.h>

/* -- the way out ------------------------------------------------------------------------------- */

/*
 * Ends a message without an answer: it comes back as an empty reply, as CAPS has it when a service
 * closes.
 */
void aph_caps_client_come_back(struct aph_caps_port *port, struct aph_caps_message *m, int error)
{
	aph_caps_body_drop(m);
	if (m->call)
		m->call = aph_call_free(m->call);
	if (!m->error)
		m->error = error;
	aph_caps_message_ready(port, m, CAPMS_REPLY);
}

/*
 * Begins the call of a message. 0; -EAGAIN: there is room when another has come back; or an error.
 */
static int begin(struct aph_caps_port *port, struct aph_caps_message *m)
{
	if (m->call)
		return 0;
	return aph_call_new(&m->call, port->server->channel, APH_FOREVER, m);
}

/* Sends what is left of a message, or what has room. True when nothing more of it will be sent. */
static bool push(struct aph_caps_port *port, struct aph_caps_message *m)
{
	ssize_t n = begin(port, m);

	/* After a short send it is asked again: only being told -EAGAIN makes WRITABLE come. */
	while (n >= 0) {
		n = aph_call_send(m->call, m->out_len ? m->out + m->out_sent : "",
				  m->out_len - m->out_sent, 0);
		if (n >= 0)
			m->out_sent += (size_t)n;
		if (n >= 0 && m->out_sent == m->out_len)
			break;
	}
	if (n == -EAGAIN)
		return false;
	if (n < 0 && n != -EPIPE && n != -ENOTCONN) {
		aph_caps_client_come_back(port, m, (int)-n);
		return true;
	}
	if (!m->call) {
		aph_caps_client_come_back(port, m, 0);
		return true;
	}
	/* If the call has ended, its END says what becomes of the message. */
	aph_caps_link_remove(&m->link);
	m->stage = APH_CAPS_SENT;
	free(m->out);
	m->out = NULL;
	return true;
}

void aph_caps_client_pump(struct aph_caps_port *port)
{
	while (port->server && !aph_caps_link_empty(&port->outgoing)) {
		struct aph_caps_message *m =
			APH_CAPS_CONTAINER(port->outgoing.next, struct aph_caps_message, link);

		if (!m->peer)
			aph_caps_message_adopt(m, port->server);
		if (!push(port, m))
			break;
	}
}

/* -- events ------------------------------------------------------------------------------------ */

void aph_caps_client_disconnected(struct aph_caps_port *port)
{
	port->disconnected = true;
	port->connecting = port->awaited = false;
	while (!aph_caps_link_empty(&port->outgoing)) {
		struct aph_caps_message *m =
			APH_CAPS_CONTAINER(port->outgoing.next, struct aph_caps_message, link);

		aph_caps_client_come_back(port, m, 0);
	}
}

int aph_caps_client_connected(struct aph_caps_port *port, struct aph_channel *channel)
{
	port->connecting = port->awaited = false;
	port->server = aph_caps_peer_new(port, channel);
	if (!port->server) {
		(void)aph_channel_close(channel);
		return -ENOMEM;
	}
	aph_caps_client_pump(port);
	return 0;
}

void aph_caps_client_gather(struct aph_caps_port *port, struct aph_caps_message *m)
{
	int r = aph_caps_body_step(m);

	(void)port;
	if (r >= 0 || r == -EPIPE)
		return; /* its END is what makes it a reply */
	aph_caps_body_drop(m);
	m->error = -r;
	m->begun = false;
	(void)aph_call_cancel(m->call);
}

static void end(struct aph_caps_port *port, struct aph_caps_message *m,
		const struct aph_result *result)
{
	size_t here = m->body_len ? aph_call_available(m->call) : 0;

	if (result->outcome == APH_ANSWERED && !m->error && m->body_len + here > m->peer->bytes_max)
		m->error = EMSGSIZE;
	if (result->outcome == APH_ANSWERED && !m->error) {
		aph_caps_message_ready(port, m, CAPMS_REPLY);
		aph_caps_body_gathered(m);
	} else {
		bool too_long = result->outcome == APH_REFUSED &&
				result->reason == APH_REASON_RESOURCES;

		aph_caps_client_come_back(port, m, too_long ? EMSGSIZE : 0);
	}
	if (!aph_caps_link_empty(&port->outgoing))
		aph_caps_client_pump(port);
}

/*
 * With CAPF_WAITSVC a service that has gone before it answered is as good as none: the next one
 * will do.
 */
static bool await_another(struct aph_caps_port *port, enum aph_reason reason)
{
	if (port->server || !(port->flags & CAPF_WAITSVC) ||
	    (reason != APH_REASON_CLOSED && reason != APH_REASON_NO_SERVICE))
		return false;
	port->awaited = true;
	return aph_caps_attend(port) == 0;
}

void aph_caps_client_event(struct aph_caps_port *port, const struct aph_event *ev)
{
	struct aph_caps_message *m = ev->call ? aph_call_data(ev->call) : NULL;

	switch (ev->type) {
	case APH_EVENT_END:
		if (m)
			end(port, m, &ev->result);
		break;
	case APH_EVENT_REPLY:
		if (m)
			m->begun = !m->error;
		/* fall through */
	case APH_EVENT_READABLE:
		if (m && m->begun)
			aph_caps_client_gather(port, m);
		break;
	case APH_EVENT_WRITABLE:
		aph_caps_client_pump(port);
		break;
	case APH_EVENT_OPEN:
		if (aph_caps_client_connected(port, ev->channel) < 0)
			aph_caps_client_disconnected(port);
		break;
	case APH_EVENT_CLOSED:
		if (!port->server)
			(void)aph_channel_close(ev->channel);
		if (!await_another(port, ev->result.reason))
			aph_caps_client_disconnected(port);
		break;
	default:
		break;
	}
}

/* -- putting ----------------------------------------------------------------------------------- */

/*
 * A service that went away while this client was elsewhere must be noticed now, and nothing but a
 * look at the socket tells. A client that was here a moment ago has looked.
 */
static void look(struct aph_caps_port *port)
{
	if (!aph_caps_looked(port) && port->receiver == APH_CAPS_NOBODY)
		aph_caps_receive_all(port);
}

/* Sends it as far as there is room, and keeps the rest. 0 or a negative error: nothing was sent. */
static int send_or_keep(struct aph_caps_port *port, struct aph_caps_message *m, const char *msg,
			size_t size)
{
	ssize_t n = 0;
	int r = 0;

	if (port->server && aph_caps_link_empty(&port->outgoing)) {
		r = aph_call_new(&m->call, port->server->channel, APH_FOREVER, m);
		if (r < 0 && r != -EAGAIN)
			return r;
		n = r == 0 ? aph_call_send(m->call, msg, size, 0) : 0;
		if (n < 0 && n != -EAGAIN)
			return n == -EPIPE ? -ENOTCONN : (int)n;
		if (r == 0 && n == (ssize_t)size) {
			m->stage = APH_CAPS_SENT;
			return 0;
		}
		if (n < 0)
			n = 0;
	}
	r = aph_caps_body_keep(m, msg + n, size - (size_t)n);
	if (r < 0)
		return r; /* the call is freed with the message, and its beginning is withdrawn */
	m->stage = APH_CAPS_OUTGOING;
	aph_caps_link_append(&port->outgoing, &m->link);
	aph_caps_client_pump(port);
	/* Without an attendant the rest goes when the program comes to receive. */
	(void)aph_caps_attend(port);
	return 0;
}

static off_t put(struct aph_caps_port *port, const char *msg, size_t size)
{
	struct aph_caps_message *m;
	int r;

	look(port);
	if (!aph_caps_is_open(port))
		return -EINVAL;
	if (port->disconnected)
		return -ENOTCONN;
	if (port->n_in_progress > CAPS_MAXINPROG)
		return -ENOBUFS;
	m = aph_caps_message_new(port, port->server);
	if (!m)
		return -ENOMEM;
	r = send_or_keep(port, m, msg, size);
	if (r < 0) {
		aph_caps_message_free(port, m);
		return r;
	}
	port->n_in_progress++;
	return m->id;
}

APH_API off_t caps_sys_put(int number, const void *msg, int size)
{
	struct aph_caps_port *port;
	off_t id;

	if (size < 0)
		return aph_caps_fail(-EINVAL);
	if (!msg && size > 0)
		return aph_caps_fail(-EFAULT);
	port = aph_caps_port_lock_type(number, CAPT_CLIENT);
	if (!port)
		return -1;
	id = put(port, msg ? msg : "", (size_t)size);
	aph_caps_leave(port);
	aph_caps_port_unlock(port);
	return id < 0 ? aph_caps_fail((int)id) : id;
}

/* -- the generation number --------------------------------------------------------------------- */

APH_API caps_gen_t caps_sys_getgen(int number)
{
	struct aph_caps_port *port = aph_caps_port_lock_type(number, CAPT_CLIENT);
	caps_gen_t gen;

	if (!port)
		return -1;
	/* After the service has gone this is still the last number that it set. */
	gen = port->server ? aph_channel_generation(port->server->channel) : 0;
	aph_caps_port_unlock(port);
	return gen;
}
