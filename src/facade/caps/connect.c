/* SPDX-License-Identifier: MIT */
/*
 * Connecting a client port: at once, when a service appears (CAPF_WAITSVC), or while the program
 * goes on (CAPF_ASYNC), and then by the attendant.
 */
#include "port.h"

#include <errno.h>

/* What was opened before there was a port for it. */
struct opening {
	struct aph_endpoint *ep;
	struct aph_channel *channel; /* NULL while nobody serves the name */
	bool connecting;	     /* the channel is not open yet */
	bool awaited;
};

static int open_channel(struct aph_channel **channel, struct aph_endpoint *ep,
			const struct aph_name *name, int flags, uint32_t native,
			uint64_t deadline_ns)
{
	uint32_t allow = flags & CAPF_ANYCLIENT ? (uint32_t)flags & CAPF_ANYCLIENT : APH_ALLOW_NONE;
	struct aph_channel_options options = {
		.size = sizeof(options),
		.flags = allow | native,
		.depth = APH_CAPS_DEPTH,
		.calls_max = APH_CAPS_CALLS_MAX,
		.deadline_ns = deadline_ns,
	};

	return aph_channel_open_name(channel, ep, name, &options);
}

static int open_now(struct opening *o, const struct aph_name *name, int flags)
{
	uint32_t native = flags & CAPF_WAITSVC ? APH_CHANNEL_WAIT : 0;

	return open_channel(&o->channel, o->ep, name, flags, native, APH_FOREVER);
}

static int open_later(struct opening *o, const struct aph_name *name, int flags)
{
	int r = open_channel(&o->channel, o->ep, name, flags, APH_CHANNEL_ASYNC, APH_FOREVER);

	o->connecting = true;
	if (r != -ENOENT || !(flags & CAPF_WAITSVC))
		return r;
	o->awaited = true;
	return 0;
}

/* The attendant's part, in short steps, so that the port can be closed meanwhile. */
void aph_caps_client_connect(struct aph_caps_port *port)
{
	struct aph_channel *channel;
	int r;

	port->opening = true;
	aph_caps_port_unlock(port);
	r = open_channel(&channel, port->ep, &port->name, port->flags, APH_CHANNEL_WAIT,
			 aph_deadline_ms(100));
	aph_caps_port_relock(port);
	port->opening = false;
	if (!aph_caps_is_open(port)) {
		if (r == 0)
			(void)aph_channel_close(channel);
		aph_caps_leave(port);
		return;
	}
	if (r == 0)
		r = aph_caps_client_connected(port, channel);
	if (r == 0 || r == -ETIMEDOUT || r == -EINTR)
		return;
	aph_caps_client_disconnected(port);
	if (port->receiver == APH_CAPS_PROGRAM)
		(void)aph_endpoint_wake(port->ep); /* nothing it could wait for is going to come */
}

static int open_client(struct opening *o, const struct aph_name *name, int flags)
{
	int r = aph_endpoint_new(&o->ep, NULL);

	if (r < 0)
		return r;
	r = flags & CAPF_ASYNC ? open_later(o, name, flags) : open_now(o, name, flags);
	if (r < 0)
		o->ep = aph_endpoint_free(o->ep);
	return r;
}

/* Puts it into a port and unlocks that. The number, or -1 and errno. */
static int install(struct opening *o, const struct aph_name *name, struct aph_caps_upcall *upcall,
		   int flags)
{
	struct aph_caps_port *port = aph_caps_port_claim(CAPT_CLIENT, flags & CAPF_UFLAGS);

	if (!port) {
		int e = errno;

		aph_caps_upcall_deinit(upcall);
		(void)aph_endpoint_free(o->ep);
		errno = e;
		return -1;
	}
	port->ep = o->ep;
	port->upcall = *upcall;
	port->name = *name;
	port->connecting = o->connecting;
	port->awaited = o->awaited;
	if (!o->connecting && aph_caps_client_connected(port, o->channel) < 0)
		port->disconnected = true; /* no memory: the first put says ENOTCONN */
	return aph_caps_port_start(port);
}

APH_API int caps_sys_client(const char *name, uid_t uid, gid_t gid, int upcid, int flags)
{
	struct aph_caps_upcall upcall;
	struct opening o = { 0 };
	struct aph_name where;
	int r;

	r = -aph_caps_name(&where, name, uid, gid);
	if (r == 0)
		r = -aph_caps_upcall_init(&upcall, upcid);
	if (r < 0)
		return aph_caps_fail(r);
	r = open_client(&o, &where, flags);
	if (r < 0) {
		aph_caps_upcall_deinit(&upcall);
		return aph_caps_fail(r);
	}
	return install(&o, &where, &upcall, flags);
}
