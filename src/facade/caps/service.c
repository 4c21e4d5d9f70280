/* SPDX-License-Identifier: MIT */
/*
 * The service's side: registering, the events of its clients, replies, the generation number.
 *
 * Receipts are always asked for: they are the disposes. So are CONNECT and DISCONNECT, since a peer
 * is known from the one to the other; whether the program hears of them is CAPF_NOTICE's business.
 */
#include "port.h"
#include "ticks.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* So much of a client's replies fits into its channel in any case: half of the arena. */
#define SURELY_SENT ((size_t)128 << 10)
#define LINGER_MS   1000u

/* How often, and for how long, CAPF_EXCL waits for one that must give way. */
#define NAPS_MAX 20
#define NAP_NS	 5000000

/* -- events ------------------------------------------------------------------------------------ */

/* Queues a notice for a program that wants them, else NULL. */
static struct aph_caps_message *notice(struct aph_caps_port *port, struct aph_caps_peer *peer,
				       caps_msg_state_t state)
{
	struct aph_caps_message *m;

	if (!(port->flags & CAPF_NOTICE))
		return NULL;
	m = aph_caps_message_new(port, peer);
	if (m)
		aph_caps_message_ready(port, m, state);
	return m;
}

static struct aph_caps_peer *add_peer(struct aph_caps_port *port, struct aph_channel *channel)
{
	struct aph_caps_peer *peer = aph_caps_peer_new(port, channel);

	if (!peer)
		return NULL;
	port->n_connections = port->n_connections < INT_MAX ? port->n_connections + 1 : 1;
	peer->cred.cacheid = port->n_connections;
	aph_channel_set_data(channel, peer);
	(void)notice(port, peer, CAPMS_CONNECT);
	return peer;
}

/*
 * The client will not take the reply, or has taken it. A request that was never retrieved vanishes;
 * one that was comes back as a dispose.
 */
static void end(struct aph_caps_port *port, struct aph_caps_message *m, enum aph_reason reason)
{
	m->call = aph_call_free(m->call);
	switch (m->stage) {
	case APH_CAPS_HELD:
		m->gone = true;
		m->taken = reason == APH_REASON_CANCELLED;
		aph_caps_message_ready(port, m, CAPMS_DISPOSE);
		break;
	case APH_CAPS_REPLIED:
		m->peer->bytes_replied -= m->out_len;
		m->out_len = 0;
		aph_caps_message_ready(port, m, CAPMS_DISPOSE);
		break;
	default:
		aph_caps_message_free(port, m);
		break;
	}
}

void aph_caps_service_gather(struct aph_caps_port *port, struct aph_caps_message *m)
{
	int r = aph_caps_body_step(m);

	if (r == APH_CAPS_BODY_PART)
		return;
	if (r == APH_CAPS_BODY_WHOLE) {
		aph_caps_message_ready(port, m, CAPMS_REQUEST);
		aph_caps_body_gathered(m);
		return;
	}
	if (r != -EPIPE)
		(void)aph_call_refuse(m->call, APH_REASON_RESOURCES);
	aph_caps_message_free(port, m);
}

/* The END of a call whose client may have sent more. */
static void end_one(struct aph_caps_port *port, struct aph_caps_message *m, enum aph_reason reason)
{
	struct aph_caps_peer *peer = aph_caps_held_up(m);

	end(port, m, reason);
	aph_caps_resume(port, peer);
}

static void request(struct aph_caps_port *port, const struct aph_event *ev)
{
	struct aph_caps_peer *peer = aph_channel_data(ev->channel);
	struct aph_caps_message *m = NULL;

	if (!peer)
		peer = add_peer(port, ev->channel);
	if (peer)
		m = aph_caps_message_new(port, peer);
	if (!m) {
		(void)aph_call_refuse(ev->call, APH_REASON_RESOURCES);
		(void)aph_call_free(ev->call);
		return;
	}
	aph_call_set_data(ev->call, m);
	m->call = ev->call;
	m->stage = APH_CAPS_ARRIVING;
	aph_caps_service_gather(port, m);
}

/* Takes back the notice of a connection that the program has not heard of; the client never was. */
static bool forget(struct aph_caps_port *port, struct aph_caps_peer *peer)
{
	struct aph_caps_link *pos;

	if (peer->announced)
		return false;
	for (pos = peer->messages.next; pos != &peer->messages; pos = pos->next) {
		struct aph_caps_message *m =
			APH_CAPS_CONTAINER(pos, struct aph_caps_message, peer_link);

		if (m->state == CAPMS_CONNECT) {
			aph_caps_message_free(port, m);
			return true;
		}
	}
	return false;
}

static void disconnect(struct aph_caps_port *port, struct aph_channel *channel)
{
	struct aph_caps_peer *peer = aph_channel_data(channel);
	struct aph_caps_link *pos, *next;

	if (peer) {
		peer->refs++;
		for (pos = peer->messages.next; pos != &peer->messages; pos = next) {
			struct aph_caps_message *m =
				APH_CAPS_CONTAINER(pos, struct aph_caps_message, peer_link);

			next = pos->next;
			if (m->call)
				end(port, m, APH_REASON_CLOSED);
		}
		if (!forget(port, peer))
			(void)notice(port, peer, CAPMS_DISCONNECT);
		peer->channel = NULL;
		aph_caps_peer_unref(peer);
		aph_caps_peer_unref(peer); /* the connection's */
	}
	(void)aph_channel_close(channel);
}

/*
 * The client would like to have a message back: a request that the program has not seen goes at
 * once.
 */
static void asked_back(struct aph_caps_port *port, struct aph_caps_message *m)
{
	struct aph_caps_message *reminder;

	if (m->stage == APH_CAPS_HELD) {
		reminder = m->reminded ? NULL : notice(port, m->peer, CAPMS_ABORT);
		if (!reminder)
			return;
		reminder->about = m->id;
		m->reminded = true;
	} else if (m->stage != APH_CAPS_REPLIED && !m->peeked) {
		struct aph_caps_peer *peer = aph_caps_held_up(m);

		(void)aph_call_refuse(m->call, APH_REASON_CANCELLED);
		aph_caps_message_free(port, m);
		aph_caps_resume(port, peer);
	}
}

void aph_caps_service_event(struct aph_caps_port *port, const struct aph_event *ev)
{
	struct aph_caps_message *m = ev->call ? aph_call_data(ev->call) : NULL;

	switch (ev->type) {
	case APH_EVENT_REQUEST:
		request(port, ev);
		break;
	case APH_EVENT_READABLE:
		if (m && m->stage == APH_CAPS_ARRIVING)
			aph_caps_service_gather(port, m);
		break;
	case APH_EVENT_END:
		if (m)
			end_one(port, m, ev->result.reason);
		else
			(void)aph_call_free(ev->call); /* it ended before anybody saw it */
		break;
	case APH_EVENT_CONNECT:
		if (!add_peer(port, ev->channel))
			(void)aph_channel_close(ev->channel);
		break;
	case APH_EVENT_DISCONNECT:
		disconnect(port, ev->channel);
		break;
	case APH_EVENT_TERMINATE:
		(void)notice(port, NULL, CAPMS_TERM);
		break;
	case APH_EVENT_SIGNAL:
		if (m)
			asked_back(port, m);
		break;
	default:
		break;
	}
}

/* -- registering ------------------------------------------------------------------------------- */

int aph_caps_name(struct aph_name *out, const char *name, uid_t uid, gid_t gid)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyz"
				   "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "0123456789_.";
	size_t len;

	if (!name)
		return EFAULT;
	len = strnlen(name, CAPS_MAXNAMELEN);
	if (len == 0 || len >= CAPS_MAXNAMELEN || strspn(name, good) != len)
		return EINVAL;
	memcpy(out->name, name, len + 1);
	out->uid = uid == (uid_t)-1 ? APH_ID_ANY : (int64_t)uid;
	out->gid = gid == (gid_t)-1 ? APH_ID_ANY : (int64_t)gid;
	return 0;
}

static bool is_same(const struct aph_name *a, const struct aph_name *b)
{
	return strcmp(a->name, b->name) == 0 && a->uid == b->uid && a->gid == b->gid;
}

/* Whether a client that searches for `name` would find this one. */
static bool is_found(const struct aph_name *name, const struct aph_name *other)
{
	return strcmp(name->name, other->name) == 0 &&
	       (name->uid == APH_ID_ANY || name->uid == other->uid) &&
	       (name->gid == APH_ID_ANY || name->gid == other->gid);
}

enum found {
	NOBODY,
	NEWER, /* than our own service */
	OLDER
};

/*
 * Who is there beside our own service, if `registered`: enum found, or a negative error. The list
 * is ordered, newest first, and of our own triple we are the oldest: the library has seen to that.
 */
static int find_others(const struct aph_name *name, bool registered)
{
	struct aph_service_info *list;
	int found = NOBODY, r;
	size_t n, i, own;

	r = aph_directory_list(&list, &n, APH_NOW);
	if (r < 0)
		return r == -ENOMEM ? r : NOBODY; /* without a directory to read there is nobody */
	for (own = i = 0; i < n; i++) {
		if (is_same(&list[i].name, name))
			own = i;
	}
	for (i = 0; i < n; i++) {
		if ((registered && i == own) || !is_found(name, &list[i].name))
			continue;
		found = registered && i < own ? NEWER : OLDER;
	}
	free(list);
	return found;
}

/*
 * The library tells only of the same triple; CAPF_EXCL has always meant a search, in which -1
 * matches anything. It is made when the name can be seen, as the library makes its own: so of two
 * that begin at once at least one sees the other. An older one that sees a newer waits a moment for
 * that to give way.
 */
static int be_the_only_one(const struct aph_name *name)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	int i;

	for (i = 0; i < NAPS_MAX; i++) {
		int found = find_others(name, true);

		if (found <= NOBODY)
			return found;
		if (found == OLDER)
			break;
		(void)nanosleep(&nap, NULL);
	}
	return -EEXIST;
}

static uint32_t native_flags(int flags)
{
	/* libantiphon has the same values for who may come in. */
	uint32_t native = flags & CAPF_ANYCLIENT ? (uint32_t)flags & CAPF_ANYCLIENT
						 : APH_ALLOW_NONE;

	native |= APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS | APH_SERVICE_GIVE;
	if (flags & CAPF_EXCL)
		native |= APH_SERVICE_EXCLUSIVE;
	if (flags & CAPF_DISPOSE_IMM)
		native |= APH_SERVICE_RECEIPTS_NOW;
	if (flags & CAPF_TERM)
		native |= APH_SERVICE_TERMINATE;
	if (flags & CAPF_TAKE)
		native |= APH_SERVICE_TAKE;
	return native;
}

_Static_assert(CAPF_USER == APH_ALLOW_USER && CAPF_GROUP == APH_ALLOW_GROUP &&
		       CAPF_WORLD == APH_ALLOW_WORLD,
	       "permissions have the same values on both levels");

static int open_service(struct aph_endpoint **ep, struct aph_service **service,
			const struct aph_name *name, int flags)
{
	struct aph_service_options options = {
		.size = sizeof(options),
		.flags = native_flags(flags),
		.calls_max = APH_CAPS_CALLS_MAX,
	};
	bool searches = (flags & CAPF_EXCL) && (name->uid == APH_ID_ANY || name->gid == APH_ID_ANY);
	int r;

	/* Looked at first, so that nothing is asked to end or taken over in vain. */
	r = searches ? find_others(name, false) : NOBODY;
	if (r != NOBODY)
		return r < 0 ? r : -EEXIST;
	r = aph_endpoint_new(ep, NULL);
	if (r < 0)
		return r;
	r = aph_service_open_name(service, *ep, name, &options);
	if (r == 0 && searches)
		r = be_the_only_one(name);
	if (r < 0)
		*ep = aph_endpoint_free(*ep);
	return r;
}

APH_API int caps_sys_service(const char *name, uid_t uid, gid_t gid, int upcid, int flags)
{
	struct aph_caps_upcall upcall;
	struct aph_caps_port *port;
	struct aph_service *service;
	struct aph_endpoint *ep;
	struct aph_name where;
	int r;

	r = -aph_caps_name(&where, name, uid, gid);
	if (r == 0)
		r = -aph_caps_upcall_init(&upcall, upcid);
	if (r < 0)
		return aph_caps_fail(r);
	r = open_service(&ep, &service, &where, flags);
	if (r < 0) {
		aph_caps_upcall_deinit(&upcall);
		return aph_caps_fail(r);
	}
	port = aph_caps_port_claim(CAPT_SERVICE, flags & CAPF_UFLAGS);
	if (!port) {
		r = -errno;
		(void)aph_endpoint_free(ep);
		aph_caps_upcall_deinit(&upcall);
		return aph_caps_fail(r);
	}
	port->ep = ep;
	port->service = service;
	port->upcall = upcall;
	return aph_caps_port_start(port);
}

/* -- replying ---------------------------------------------------------------------------------- */

/* A request that this service has retrieved, or the beginning of it. */
static bool is_replyable(const struct aph_caps_message *m)
{
	if (m->gone)
		return !m->taken;
	return m->stage == APH_CAPS_HELD ||
	       (m->stage == APH_CAPS_READY && m->state == CAPMS_REQUEST && m->peeked);
}

/*
 * A hard abort that came while the program was at work has taken the message away. To see it takes
 * a look at what has arrived, which is left out when one reply follows the other at once.
 */
static void look(struct aph_caps_port *port)
{
	if (!aph_caps_looked(port) && port->receiver == APH_CAPS_NOBODY)
		(void)aph_endpoint_serve(port->ep, APH_NOW);
}

static int reply(struct aph_caps_port *port, struct aph_caps_message *m, const void *msg, int size)
{
	struct aph_result result = { .reason = APH_REASON_CLOSED };
	struct aph_caps_peer *peer = aph_caps_held_up(m);
	int r;

	if (m->gone)
		return 0; /* it is on its way back already, as a dispose */
	look(port);
	r = aph_call_reply(m->call, msg, (size_t)size);
	if (r < 0 && r != -ECANCELED)
		return r;
	aph_caps_link_remove(
		&m->link); /* it was at the head of the queue if it is answered unread */
	aph_caps_body_drop(m);
	if (r == 0) {
		m->stage = APH_CAPS_REPLIED;
		m->out_len = (size_t)size;
		m->peer->bytes_replied += m->out_len;
	} else {
		m->stage = APH_CAPS_HELD;
		(void)aph_call_result(m->call, &result);
		end(port, m, result.reason);
	}
	aph_caps_resume(port, peer); /* it was answered unread */
	return m->taken ? -EINVAL : 0;
}

APH_API int caps_sys_reply(int number, const void *msg, int size, off_t msgid)
{
	struct aph_caps_message *m;
	struct aph_caps_port *port;
	int r;

	if (size < 0)
		return aph_caps_fail(-EINVAL);
	if (!msg && size > 0)
		return aph_caps_fail(-EFAULT);
	port = aph_caps_port_lock_type(number, CAPT_SERVICE);
	if (!port)
		return -1;
	m = aph_caps_message_find(port, msgid);
	r = m && is_replyable(m) ? reply(port, m, msg, size) : -EINVAL;
	aph_caps_leave(port); /* it may have come back as a dispose */
	aph_caps_port_unlock(port);
	return r < 0 ? aph_caps_fail(r) : 0;
}

/* -- closing ----------------------------------------------------------------------------------- */

/* Whether more is on its way to some client than surely lies in its channel already. */
static bool is_owed(const struct aph_caps_port *port)
{
	const struct aph_caps_link *pos;

	for (pos = port->peers.next; pos != &port->peers; pos = pos->next) {
		const struct aph_caps_peer *peer =
			APH_CAPS_CONTAINER(pos, struct aph_caps_peer, link);

		if (peer->bytes_replied > SURELY_SENT)
			return true;
	}
	return false;
}

void aph_caps_service_linger(struct aph_caps_port *port)
{
	uint64_t until_ns = aph_deadline_ms(LINGER_MS);
	int r = 0;

	while ((r == 0 || r == -EINTR || r == -ECANCELED) && is_owed(port)) {
		struct aph_event ev;

		aph_caps_port_unlock(port);
		r = aph_endpoint_next(port->ep, &ev, until_ns);
		aph_caps_port_relock(port);
		if (r == 0)
			aph_caps_service_event(port, &ev);
	}
}

/* -- the generation number --------------------------------------------------------------------- */

APH_API int caps_sys_setgen(int number, caps_gen_t gen)
{
	struct aph_caps_port *port = aph_caps_port_lock(number);
	int r = 0;

	if (!port)
		return -1;
	/* A client's number was always accepted, and nobody could ever read it. */
	if (port->type == CAPT_SERVICE)
		r = aph_service_set_generation(port->service, gen);
	aph_caps_port_unlock(port);
	return r < 0 ? aph_caps_fail(r) : 0;
}

APH_API int caps_limit(int number, int bytes)
{
	struct aph_caps_port *port;

	if (bytes < 0)
		return aph_caps_fail(-EINVAL);
	port = aph_caps_port_lock(number);
	if (!port)
		return -1;
	port->bytes_max = bytes;
	aph_caps_peer_limits(port);
	aph_caps_port_unlock(port);
	return 0;
}
