/* SPDX-License-Identifier: MIT */
/*
 * Channels and services of the remote transport. A client's channel is a client of the engine. At a
 * service, who calls from one address shares a channel; it is kept for a while after the last call,
 * as the next one is likely to come from there.
 *
 * Nobody proves who he is yet: credentials say so, and a service that others than this host can
 * reach has to say that it takes anybody.
 */
#include "base/error.h"
#include "remote/remote.h"
#include "udp/udp.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define QUIET_MAX     1024 /* channels kept without calls */
#define CALLS_DEFAULT 1024 /* in progress, of a channel */
#define SOME_USERS    (APH_ALLOW_USER | APH_ALLOW_GROUP | APH_ALLOW_NONE)
#define EVERYBODY     (APH_ALLOW_WORLD | APH_ALLOW_ANONYMOUS)

/* -- both sides -------------------------------------------------------------------------------- */

static struct aph_remote_channel *channel_new(struct aph_remote_port *port,
					      const struct aph_rx_path *path)
{
	struct aph_remote_channel *rc = calloc(1, sizeof(*rc));

	if (!rc)
		return NULL;
	rc->base.ops = &aph_remote_channel_ops;
	rc->port = port;
	rc->path = *path;
	port->n_users++;
	aph_list_init(&rc->path_link);
	aph_list_init(&rc->quiet_link);
	/* There is no process here that the kernel could name. */
	rc->base.peer.uid = rc->base.peer.euid = (uid_t)-1;
	rc->base.peer.gid = rc->base.peer.egid = (gid_t)-1;
	rc->base.peer.label = "";
	return rc;
}

/*
 * The client hears of it now: the service may hold what it has left for long. A reply that is
 * written goes on.
 */
static void abort_calls(struct aph_channel *channel)
{
	struct aph_list *pos, *tmp;
	bool any = false;

	aph_list_for_each(pos, tmp, &channel->calls) {
		const struct aph_call *call = aph_container(pos, struct aph_call, link);

		if (call->state != APH_CALL_ENDED && !call->out_last)
			any |= aph_rx_call_abort(aph_remote_call(call)->rx, APH_RX_CALL_DEAD) == 0;
	}
	if (any)
		aph_remote_flush_now(aph_remote_channel(channel)->port);
}

/* Service: it has a call, or ends. */
static void leave_quiet(struct aph_remote_channel *rc)
{
	if (aph_list_empty(&rc->quiet_link))
		return;
	aph_list_remove(&rc->quiet_link);
	aph_container(rc->base.service, struct aph_remote_service, base)->n_quiet--;
}

static void disconnect(struct aph_channel *channel)
{
	struct aph_remote_channel *rc = aph_remote_channel(channel);

	aph_list_remove(&rc->path_link);
	leave_quiet(rc);
	if (!rc->client) {
		abort_calls(channel);
		return;
	}
	/* Its calls end at the engine; what they were told is for the core to make of. */
	rc->client = aph_rx_client_free(rc->client);
	aph_remote_flush_now(rc->port);
}

static void free_channel(struct aph_channel *channel)
{
	struct aph_remote_channel *rc = aph_remote_channel(channel);

	if (!channel->ep->forked)
		aph_remote_port_put(rc->port);
	aph_bury(channel->ep, &rc->grave, rc);
}

static int64_t generation(const struct aph_channel *channel)
{
	(void)channel;
	return 0;
}

static void set_generation(struct aph_channel *channel, int64_t number)
{
	/* It does not cross the network: docs/spec says so. */
	(void)channel;
	(void)number;
}

static int pidfd(struct aph_channel *channel)
{
	(void)channel;
	return aph_err(-EOPNOTSUPP, "the other end is not a process of this host");
}

static void abandon_channel(struct aph_channel *channel)
{
	aph_remote_channel(channel)->client = NULL;
}

const struct aph_channel_ops aph_remote_channel_ops = {
	.call_size = sizeof(struct aph_remote_call),
	.call_init = aph_remote_call_init,
	.call_ended = aph_remote_call_ended,
	.call_deinit = aph_remote_call_deinit,
	.send = aph_remote_send,
	.send_all = aph_remote_send_all,
	.reserve = aph_remote_reserve,
	.commit = aph_remote_commit,
	.read = aph_remote_read,
	.available = aph_remote_available,
	.is_complete = aph_remote_is_complete,
	.borrow = aph_remote_borrow,
	.release = aph_remote_release,
	.take_fds = aph_remote_take_fds,
	.revoke = aph_remote_revoke,
	.signal = aph_remote_signal,
	.farewell = aph_remote_farewell,
	.disconnect = disconnect,
	.free = free_channel,
	.generation = generation,
	.set_generation = set_generation,
	.pidfd = pidfd,
	.abandon = abandon_channel,
};

/* -- a client's -------------------------------------------------------------------------------- */

static int channel_open(struct aph_channel **out, struct aph_endpoint *ep,
			const struct aph_place *place, const char *address,
			const struct aph_channel_options *options)
{
	const struct aph_remote_address *to = (const void *)place;
	struct aph_remote_port *port;
	struct aph_remote_channel *rc;
	struct aph_rx_path path = { .interface = 0 };
	int r;

	if (options->flags & APH_CHANNEL_WAIT)
		return aph_err(-EINVAL, "nobody can tell when '%s' is served: call, and see",
			       address);
	r = aph_remote_port_get(&port, ep, NULL);
	if (r < 0)
		return r;
	path.remote = to->address;
	rc = channel_new(port, &path);
	if (rc)
		r = aph_rx_client_new(&rc->client, port->rx, &path, to->service, NULL);
	aph_remote_port_put(port); /* the channel has its own */
	if (!rc || r < 0) {
		if (rc)
			aph_remote_port_put(port);
		free(rc);
		return aph_err(rc ? r : -ENOMEM, "no memory for a channel to '%s'", address);
	}
	rc->base.calls_max = options->calls_max ? options->calls_max : CALLS_DEFAULT;
	rc->base.data = options->data;
	rc->base.user_holds = true;
	aph_channel_init(&rc->base, ep, NULL);
	aph_channel_ref(&rc->base);
	aph_channel_opened(&rc->base, (options->flags & APH_CHANNEL_ASYNC) != 0);
	*out = &rc->base;
	return 0;
}

/* -- a service's ------------------------------------------------------------------------------- */

static struct aph_list *bucket(struct aph_remote_service *service, const struct aph_rx_address *a)
{
	uint32_t hash = a->in.sin_port;

	if (a->family == AF_INET)
		hash ^= a->in.sin_addr.s_addr;
	else
		hash ^= a->in6.sin6_addr.s6_addr32[2] ^ a->in6.sin6_addr.s6_addr32[3];
	hash *= UINT32_C(0x9e3779b1);
	return &service->clients[hash >> 24];
}

void aph_remote_channel_busy(struct aph_remote_channel *rc)
{
	if (rc->n_calls++ == 0)
		leave_quiet(rc);
}

void aph_remote_channel_quiet(struct aph_remote_channel *rc)
{
	rc->n_calls--;
	aph_remote_channel_unused(rc);
}

/* The one that has been without calls for longest. */
static void end_quietest(struct aph_remote_service *service)
{
	struct aph_remote_channel *rc =
		aph_container(service->quiet.next, struct aph_remote_channel, quiet_link);

	aph_channel_end(&rc->base, APH_REASON_CLOSED);
}

void aph_remote_channel_unused(struct aph_remote_channel *rc)
{
	struct aph_remote_service *service;

	if (rc->n_calls || !rc->base.service || rc->base.state != APH_CHANNEL_OPEN ||
	    !aph_list_empty(&rc->quiet_link))
		return;
	service = aph_container(rc->base.service, struct aph_remote_service, base);
	aph_list_append(&service->quiet, &rc->quiet_link);
	if (++service->n_quiet > QUIET_MAX)
		end_quietest(service);
}

struct aph_remote_channel *aph_remote_channel_for(struct aph_remote_service *service,
						  const struct aph_rx_path *path)
{
	struct aph_list *head = bucket(service, &path->remote);
	struct aph_remote_channel *rc;
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, head) {
		rc = aph_container(pos, struct aph_remote_channel, path_link);
		if (aph_rx_address_equal(&rc->path.remote, &path->remote))
			return rc;
	}
	if (service->base.n_channels >= service->base.channels_max) {
		if (aph_list_empty(&service->quiet))
			return NULL;
		end_quietest(service);
	}
	rc = channel_new(service->port, path);
	if (!rc)
		return NULL;
	rc->base.calls_max = service->base.calls_max;
	aph_channel_init(&rc->base, service->base.ep, &service->base);
	aph_list_append(head, &rc->path_link);
	aph_channel_opened(&rc->base, (service->base.flags & APH_SERVICE_EVENTS) != 0);
	return rc;
}

static void retire(struct aph_service *base)
{
	struct aph_remote_service *service = aph_container(base, struct aph_remote_service, base);

	/* Requests that are still in the socket are refused with those that wait. */
	aph_remote_drain(service->port);
	aph_remote_incoming_end(service);
}

static void close_service(struct aph_service *base)
{
	struct aph_remote_service *service = aph_container(base, struct aph_remote_service, base);
	uint16_t id;

	id = aph_rx_service_id(service->rx);
	service->rx = aph_rx_service_remove(service->rx);
	aph_rx_udp_release(service->port->udp, id);
	aph_remote_flush_now(service->port);
	aph_remote_port_put(service->port);
	aph_bury(base->ep, &service->grave, service);
}

static void abandon_service(struct aph_service *base)
{
	(void)base;
}

static int service_address(const struct aph_service *base, char *buf, size_t size)
{
	const struct aph_remote_service *service = (const void *)base;
	char text[APH_REMOTE_TEXT_MAX];
	int len;

	aph_remote_address_text(text, &service->port->address);
	len = snprintf(buf, size, "rx:%s/%u", text, aph_rx_service_id(service->rx));
	return len < (int)size ? 0 : aph_err(-ENOSPC, "%zu bytes do not hold the address", size);
}

static const struct aph_service_ops service_ops = {
	.retire = retire,
	.close = close_service,
	.abandon = abandon_service,
	.address = service_address,
};

static int check_options(const struct aph_remote_address *at, const char *address,
			 const struct aph_service_options *options)
{
	if (options->flags & (APH_SERVICE_TAKE | APH_SERVICE_GIVE | APH_SERVICE_TERMINATE))
		return aph_err(-EINVAL, "TAKE, GIVE and TERMINATE are for services of one host");
	if (!at->is_loopback && !(options->flags & APH_ALLOW_ANONYMOUS))
		return aph_err(
			-EACCES,
			"others than this host can reach '%s', and its callers prove nothing: serve on "
			"127.0.0.1 or [::1], or allow anonymous callers",
			address);
	if ((options->flags & SOME_USERS) && !(options->flags & EVERYBODY))
		return aph_err(-EACCES,
			       "callers of '%s' prove nothing, so it cannot be kept to some users: "
			       "allow the world or anonymous callers",
			       address);
	return 0;
}

/* At the port, which others may have too, and in its engine. */
static int add_service(struct aph_remote_service *service, uint16_t id, const char *address)
{
	struct aph_remote_port *port = service->port;
	struct aph_rx_service_options options = { .size = sizeof(options), .data = service };
	struct aph_endpoint *ep = port->remote->base.ep;
	int r;

	/* Another process may have to be asked, as for the port. */
	aph_unlock(ep);
	r = aph_rx_udp_claim(port->udp, id);
	aph_lock(ep);
	if (r < 0)
		return aph_err(
			r, "cannot serve '%s': %s", address,
			r == -EADDRINUSE
				? "another endpoint serves it already, or who has the port does not answer"
			: r == -ENOBUFS ? "this process has as many services there as it may have"
					: "no memory");
	r = aph_rx_service_add(&service->rx, port->rx, id, &options);
	if (r == -EADDRINUSE)
		return aph_err(-EEXIST, "cannot serve '%s': this endpoint serves it already",
			       address);
	if (r < 0) {
		aph_rx_udp_release(port->udp, id);
		return aph_err(r, "cannot serve '%s': no memory", address);
	}
	return 0;
}

/* At its port. Gives the endpoint's lock back while another process is asked. */
static int place_service(struct aph_remote_service *service, struct aph_endpoint *ep,
			 const struct aph_remote_address *at, const char *address)
{
	int r = aph_remote_begin_opening(ep);

	if (r < 0)
		return r;
	r = aph_remote_port_get(&service->port, ep, &at->address);
	if (r == 0) {
		r = add_service(service, at->service, address);
		if (r < 0)
			aph_remote_port_put(service->port);
	}
	aph_remote_end_opening(ep);
	return r;
}

static int service_open(struct aph_service **out, struct aph_endpoint *ep,
			const struct aph_place *place, const char *address,
			const struct aph_service_options *options)
{
	const struct aph_remote_address *at = (const void *)place;
	struct aph_remote_service *service;
	int r = check_options(at, address, options);
	size_t i;

	if (r < 0)
		return r;
	service = calloc(1, sizeof(*service));
	if (!service)
		return aph_err(-ENOMEM, "no memory for a service");
	for (i = 0; i < APH_REMOTE_BUCKETS; i++)
		aph_list_init(&service->clients[i]);
	aph_list_init(&service->quiet);
	service->base.ep = ep;
	service->base.ops = &service_ops;
	service->base.flags = options->flags;
	service->base.channels_max = options->channels_max;
	service->base.calls_max = options->calls_max ? options->calls_max : CALLS_DEFAULT;
	service->base.data = options->data;
	r = place_service(service, ep, at, address);
	if (r < 0) {
		free(service);
		return r;
	}
	aph_service_init(&service->base);
	*out = &service->base;
	return 0;
}

static_assert(sizeof(struct aph_remote_address) <= sizeof(struct aph_place), "a place has room");

static int resolve_place(struct aph_place *out, const char *address, bool passive)
{
	return aph_remote_address_parse((struct aph_remote_address *)(void *)out, address, passive);
}

APH_API const struct aph_scheme aph_rx_scheme = {
	.resolve = resolve_place,
	.service_open = service_open,
	.channel_open = channel_open,
};
