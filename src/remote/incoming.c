/* SPDX-License-Identifier: MIT */
/*
 * Requests that no service was told of. They wait until the endpoint takes requests, in the order
 * in which their beginnings have arrived, and can end before anybody knew of them.
 */
#include "remote/remote.h"

#include <errno.h>
#include <stdlib.h>

struct aph_remote_incoming {
	struct aph_remote_user user;
	struct aph_list link;
	struct aph_rx_call *rx;
	struct aph_remote_service *service;
};

static struct aph_remote_incoming *incoming_at(struct aph_list *link)
{
	return aph_container(link, struct aph_remote_incoming, link);
}

/* Of a call that nobody was told of, and nobody will be. */
static void end(struct aph_rx_call *rx, int32_t code)
{
	(void)aph_rx_call_abort(rx, code);
	(void)aph_rx_call_free(rx);
}

static void forget(struct aph_remote_incoming *incoming)
{
	aph_list_remove(&incoming->link);
	free(incoming);
}

/*
 * Whether the beginning of its request is there. If not, the engine tells of it when it comes: a
 * service that refuses without it may do so in the place of one that was here before, and has run
 * it.
 */
static bool has_begun(struct aph_rx_call *rx)
{
	return aph_rx_call_available(rx) || aph_rx_call_read(rx, NULL, 0, 0) != -EAGAIN;
}

void aph_remote_incoming_add(struct aph_remote_port *port, const struct aph_rx_event *event)
{
	struct aph_remote_incoming *incoming = calloc(1, sizeof(*incoming));

	if (!incoming) {
		end(event->call, APH_REMOTE_REFUSED | APH_REASON_RESOURCES);
		return;
	}
	incoming->rx = event->call;
	incoming->service = aph_rx_service_data(event->service);
	aph_list_append(has_begun(event->call) ? &port->incoming : &port->headless,
			&incoming->link);
	aph_rx_call_set_data(event->call, &incoming->user);
}

void aph_remote_incoming_event(struct aph_remote_port *port, struct aph_remote_user *user,
			       const struct aph_rx_event *event)
{
	struct aph_remote_incoming *incoming =
		aph_container(user, struct aph_remote_incoming, user);

	if (event->type == APH_RX_EVENT_END) {
		forget(incoming);
		(void)aph_rx_call_free(event->call);
	} else if (event->type == APH_RX_EVENT_READABLE) {
		/* It was among the headless: of others no read came up empty. */
		aph_list_remove(&incoming->link);
		aph_list_append(&port->incoming, &incoming->link);
	}
}

bool aph_remote_incoming_deliver(struct aph_remote_port *port)
{
	while (!aph_list_empty(&port->incoming)) {
		/* The analyzer does not see that forget() takes it off the list. */
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
		struct aph_remote_incoming *incoming = incoming_at(port->incoming.next);
		struct aph_remote_service *service = incoming->service;
		struct aph_rx_call *rx = incoming->rx;
		enum aph_reason reason;

		forget(incoming);
		reason = aph_remote_call_arrive(service, rx);
		if (reason == APH_REASON_NONE)
			return true;
		end(rx, APH_REMOTE_REFUSED | (int32_t)reason);
	}
	return false;
}

static void end_all(struct aph_list *list, const struct aph_remote_service *service, int32_t code)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, list) {
		struct aph_remote_incoming *incoming = incoming_at(pos);

		if (incoming->service != service)
			continue;
		end(incoming->rx, code);
		forget(incoming);
	}
}

void aph_remote_incoming_end(const struct aph_remote_service *service)
{
	end_all(&service->port->incoming, service, APH_REMOTE_REFUSED | APH_REASON_CLOSED);
	end_all(&service->port->headless, service, APH_RX_CALL_DEAD);
}

static void free_all(struct aph_list *list)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, list) {
		struct aph_remote_incoming *incoming = incoming_at(pos);

		(void)aph_rx_call_free(incoming->rx);
		forget(incoming);
	}
}

void aph_remote_incoming_free(struct aph_remote_port *port)
{
	free_all(&port->incoming);
	free_all(&port->headless);
}
